//! PostgreSQL 15 as the oracle of our page format: the `pageinspect` extension computes checksums and reads headers and line pointers of
//! pages that we made. Needs Debian's postgresql-15; without it the test says so, and fails under `TOWLINE_REQUIRE_TOOLS=1`.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use towline_base::Lsn;
use towline_storage::{ItemId, Page, Placement};

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// A command of PostgreSQL's, which refuses to run as root.
fn postgres(program: &str, directory: &Path) -> Command {
    let is_root = std::fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    let mut command = if is_root.unwrap_or(false) {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(format!("{BIN}/{program}"));
        command
    } else {
        Command::new(format!("{BIN}/{program}"))
    };
    command.current_dir(directory).env("LC_ALL", "C");
    command
}

/// Runs a script in PostgreSQL's single-user mode, which needs no port, and returns what it prints.
fn single_user(data: &Path, script: &str) -> String {
    // From a file: a pipe would fill while the answers wait in another one.
    let path = data.parent().unwrap().join("script.sql");
    std::fs::write(&path, script).unwrap();
    let output = postgres("postgres", data.parent().unwrap())
        .args(["--single", "-j", "-F", "-D"])
        .arg(data)
        .arg("postgres")
        .stdin(std::fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn tool_is_there() -> bool {
    let there = Path::new(BIN).join("initdb").exists()
        && Path::new("/usr/share/postgresql/15/extension/pageinspect.control").exists();
    let required = std::env::var("TOWLINE_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
    assert!(
        there || !required,
        "PostgreSQL 15 with pageinspect is required and not installed"
    );
    there
}

/// The values of `name = "…"` lines, in order.
fn values(output: &str, name: &str) -> Vec<String> {
    let prefix = format!("{name} = \"");
    let found = output
        .lines()
        .filter_map(|line| line.split_once(&prefix)?.1.split('"').next());
    found.map(str::to_owned).collect()
}

fn sample(seed: u64) -> Page {
    let mut page = Page::zeroed();
    page.init(if seed.is_multiple_of(3) { 16 } else { 0 });
    let mut state = seed | 1;
    for _ in 0..seed % 40 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Tuples of 24 bytes and more: heap_page_items looks at their headers.
        let data = vec![(state >> 40) as u8; 24 + (state >> 33) as usize % 60];
        page.add_item(&data, Placement::Heap).unwrap();
    }
    if page.max_offset() > 4 {
        page.set_item_id(2, ItemId::redirect(3)).unwrap();
        page.set_item_id(4, ItemId::UNUSED).unwrap();
        page.repair_fragmentation().unwrap();
    }
    page.set_lsn(Lsn(state));
    page.set_all_visible(seed.is_multiple_of(2));
    page.set_prune_xid(seed as u32);
    page
}

#[test]
fn postgresql_reads_our_pages_as_we_do() {
    if !tool_is_there() {
        println!("ignored: postgresql-15 with pageinspect is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let data: PathBuf = directory.path().join("data");
    let made = postgres("initdb", directory.path())
        .args(["-U", "postgres", "--no-sync", "-D"])
        .arg(&data)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let pages: Vec<(Page, u32)> = (0..40).map(|seed| (sample(seed), (seed as u32) * 7919)).collect();
    let mut script = String::from("CREATE EXTENSION pageinspect;\n\n");
    for (page, block) in &pages {
        let hex: String = page.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = write!(
            script,
            "SELECT page_checksum(p, {block}) AS checksum, h.lsn AS page_lsn, h.flags, h.lower, h.upper, h.special, h.pagesize, h.version, \
             h.prune_xid, (SELECT string_agg(lp_flags || ':' || lp_off || ':' || lp_len, ' ' ORDER BY lp) FROM \
             heap_page_items(p)) AS items FROM (SELECT '\\x{hex}'::bytea AS p) s, page_header(p) h;\n\n"
        );
    }
    let output = single_user(&data, &script);
    let column = |name: &str| values(&output, name);
    let checksums = column("checksum");
    assert_eq!(checksums.len(), pages.len(), "{output}");
    let (lsns, flags, prunes) = (column("page_lsn"), column("flags"), column("prune_xid"));
    let (lowers, uppers, specials) = (column("lower"), column("upper"), column("special"));
    let mut items = column("items").into_iter();
    for (index, (page, block)) in pages.iter().enumerate() {
        let theirs = checksums[index].parse::<i16>().unwrap() as u16;
        assert_eq!(page.checksum(*block), theirs, "checksum of page {index}");
        assert_eq!(page.lsn().to_string(), lsns[index]);
        assert_eq!(page.flags().to_string(), flags[index]);
        assert_eq!(page.lower().to_string(), lowers[index]);
        assert_eq!(page.upper().to_string(), uppers[index]);
        assert_eq!(page.special_offset().to_string(), specials[index]);
        assert_eq!(page.prune_xid().to_string(), prunes[index]);
        let ours: Vec<String> = page
            .item_ids()
            .map(|(_, item)| format!("{}:{}:{}", (item.0 >> 15) & 3, item.offset(), item.len()))
            .collect();
        if !ours.is_empty() {
            assert_eq!(
                Some(ours.join(" ")),
                items.next(),
                "line pointers of page {index}"
            );
        }
    }
}
