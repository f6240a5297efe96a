//! Single roles that must not start: one clear sentence, exit code ≠ 0, the directory as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use towline_integration_tests::node::{Cluster, Node, PATIENCE, Role};
use towline_integration_tests::ports::free_port;
use towline_integration_tests::tools::towline;
use towline_integration_tests::wait::wait_until;

use crate::Case;

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![
        Case::new("a_role_refuses_a_directory_that_is_not_its_own", &[], directories),
        Case::new(
            "a_damaged_catalog_ends_the_start_with_its_file",
            &[],
            damaged_catalog,
        ),
        Case::new(
            "listeners_beyond_loopback_need_passwords_and_a_secret",
            &[],
            open_listeners,
        ),
    ]
};

/// Runs a role that must refuse, and returns its sentence.
fn refused(role: &str, dir: &Path, more: &[&str]) -> String {
    let sql = format!("127.0.0.1:{}", free_port());
    let grpc = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new("timeout");
    command
        .arg(PATIENCE.as_secs().to_string())
        .arg(towline())
        .arg(role)
        .arg("--data-dir")
        .arg(dir);
    for (option, address) in [("--sql-listen", &sql), ("--grpc-listen", &grpc)] {
        if !more.contains(&option) {
            command.args([option, address]);
        }
    }
    let Output { status, stderr, .. } = command.args(more).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(
        status.code().is_some_and(|code| code != 0 && code != 124),
        "{role} did not refuse ({status}): {said}"
    );
    let sentences: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("towline: "))
        .collect();
    assert_eq!(sentences.len(), 1, "one sentence: {said}");
    sentences[0].to_owned()
}

/// The bytes of every file below a folder but the log, which may say more than before, and the lock.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "log") {
                    folders.push(path);
                }
            } else if path.extension().is_none_or(|kind| kind != "lock") {
                let bytes = std::fs::read(&path).unwrap();
                files.insert(path, bytes);
            }
        }
    }
    files
}

/// The node ran, said nothing, and refused every login.
fn damaged_catalog() {
    let base = tempfile::tempdir().unwrap();
    let node = Node::new(base.path(), "p", Role::Primary, &[]);
    node.init();
    let file = node.dir.join("base/5/1259");
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    for damage in [Some(flipped), Some(whole[..5000].to_vec()), None] {
        match damage {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        // The first start ends in production, as after a crash; the second finds that too.
        for _ in 0..2 {
            let sentence = refused("primary", &node.dir, &[]);
            assert!(
                sentence.contains("base/5/1259") && sentence.contains("backup"),
                "{sentence}"
            );
        }
    }
}

fn directories() {
    let mut cluster = Cluster::start(1, &["synchronous_standby_names="]);
    cluster.primary().sql().query("create table t (id int)").unwrap();
    cluster.wait_for_standbys();
    let upstream = format!("http://127.0.0.1:{}", cluster.nodes[0].grpc_port);
    cluster.nodes[1].stop();
    let standby = cluster.nodes[1].dir.clone();

    let before = contents(&standby);
    let said = refused("primary", &standby, &[]);
    assert!(said.contains(standby.to_str().unwrap()), "{said}");
    assert!(said.contains("standby"), "{said}");
    assert!(
        contents(&standby) == before,
        "a primary has changed a standby's directory"
    );

    // Another system's standby.
    let other = tempfile::tempdir().unwrap();
    let mut foreign = Node::new(other.path(), "f", Role::Primary, &["synchronous_standby_names="]);
    foreign.init();
    foreign.start_ready();
    let upstream_of_others = Role::Standby {
        upstream: foreign.grpc_port,
    };
    let mut astray = Node::new(cluster.base.path(), "s1", upstream_of_others, &[]);
    astray.start_ready();
    wait_until("the standby to be turned away", PATIENCE, || {
        std::fs::read_to_string(standby.with_extension("stderr"))
            .is_ok_and(|said| said.contains("the standby belongs to another cluster"))
    });
    assert_eq!(
        astray.sql().value("select count(*) from t").unwrap(),
        "0",
        "it keeps and serves what it has"
    );
    astray.stop();

    cluster.nodes[0].stop();
    let primary = cluster.nodes[0].dir.clone();
    let before = contents(&primary);
    let said = refused("standby", &primary, &["--name", "p", "--upstream", &upstream]);
    assert!(said.contains(primary.to_str().unwrap()), "{said}");
    assert!(
        contents(&primary) == before,
        "a standby has changed a primary's directory"
    );

    // Under its own name too.
    let own = ["--name", "primary", "--upstream", &upstream];
    let said = refused("standby", &primary, &own);
    assert!(said.contains("towline primary"), "{said}");
    assert!(
        contents(&primary) == before,
        "a standby has changed a primary's directory"
    );
    let nowhere = other.path().join("nowhere");
    for wrong in ["http://", "http://127.0.0.1:99999", "https://127.0.0.1:7432"] {
        let said = refused("standby", &nowhere, &["--name", "s1", "--upstream", wrong]);
        assert!(said.contains("is not an address to follow"), "{said}");
        assert!(!nowhere.exists(), "{wrong} has made a directory");
    }

    let missing = other.path().join("missing");
    let said = refused("primary", &missing, &[]);
    assert!(said.contains("init"), "{said}");
    assert!(!missing.exists());
    let file = other.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    for role in ["init", "primary"] {
        let mut command = Command::new(towline());
        let output = command.arg(role).arg("--data-dir").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains("file is not a directory"),
            "{role}: {said}"
        );
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    let notes = other.path().join("notes");
    std::fs::create_dir(&notes).unwrap();
    std::fs::write(notes.join("notes.txt"), "mine").unwrap();
    let said = refused("primary", &notes, &[]);
    assert!(said.contains("not a data directory"), "{said}");
    let said = refused("standby", &notes, &["--name", "s1", "--upstream", &upstream]);
    assert!(
        said.contains("not a data directory") || said.contains("not empty"),
        "{said}"
    );
    assert_eq!(std::fs::read_dir(&notes).unwrap().count(), 1);
}

fn open_listeners() {
    let base = tempfile::tempdir().unwrap();
    let node = Node::new(base.path(), "p", Role::Primary, &[]);
    node.init();
    let before = contents(&node.dir);
    let open = format!("0.0.0.0:{}", free_port());
    let said = refused("primary", &node.dir, &["--grpc-listen", &open]);
    assert!(said.contains("cluster_secret_file"), "{said}");
    let said = refused("primary", &node.dir, &["--sql-listen", "127.0.0.1:0"]);
    assert!(said.contains("names no port"), "{said}");
    let said = refused("primary", &node.dir, &["--set", "shared_buffers=8000GB"]);
    assert!(said.contains("memory of this machine"), "{said}");
    let said = refused("primary", &node.dir, &["--set", "nonsense_setting=1"]);
    assert!(said.contains("nonsense_setting"), "{said}");
    assert!(
        contents(&node.dir) == before,
        "a refused start has changed the directory"
    );
    // Whether anybody has a password stands in the catalog: the node has to recover before it can say so.
    let said = refused("primary", &node.dir, &["--sql-listen", &open]);
    assert!(said.contains("password"), "{said}");
    std::fs::write(
        node.dir.join("towline.toml"),
        "[[hba]]\ntype = \"host\"\ndatabase = \"all\"\nuser = \"all\"\naddress = \"all\"\nmethod = \"trust\"\n",
    )
    .unwrap();
    let said = refused("primary", &node.dir, &["--sql-listen", &open]);
    assert!(said.contains("password"), "{said}");
}
