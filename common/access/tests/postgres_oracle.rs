//! PostgreSQL 15 as the oracle of our tables and indexes: files that Towline wrote are put under tables of the same schema in a
//! stopped PostgreSQL, which then reads every row, and verifies each index with `bt_index_parent_check(…, heapallindexed)`.
//! Needs Debian's postgresql-15; without it the test says so, and fails under `TOWLINE_REQUIRE_TOOLS=1`.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use towline_access::bootstrap::{InitOptions, init};
use towline_access::btree::check;
use towline_access::catalog::{BOOTSTRAP_SUPERUSER, Relation, Table};
use towline_access::ddl::{
    CreateIndex, CreateTable, DdlOp, NewColumn, NewConstraint, NewIndexKey, QualifiedName, Statement,
};
use towline_access::ops::{DeleteOp, InsertOp, UpdateOp};
use towline_access::vacuum::{VacuumOp, VacuumOptions, VacuumStep};
use towline_access::{CommitLevel, Engine, EngineConfig, Result, Step, Transaction, TxnOptions, open_alone};
use towline_base::{Clock, OsVfs, SystemClock, Tid, Vfs};
use towline_storage::Page;
use towline_types::{ColumnType, Datum, Numeric, TypeId};

const BIN: &str = "/usr/lib/postgresql/15/bin";
const ROWS: i32 = 4000;

fn done<T>(txn: &mut Transaction, mut step: impl FnMut(&mut Transaction) -> Result<Step<T>>) -> T {
    loop {
        match step(txn).unwrap() {
            Step::Done(value) => return value,
            Step::Wait(wait) => assert!(wait.block(Duration::from_secs(60)).unwrap()),
        }
    }
}

fn commit(mut txn: Transaction) {
    let lsn = done(&mut txn, |txn| txn.commit(CommitLevel::On));
    let engine = Arc::clone(txn.engine());
    drop(txn);
    assert!(
        engine
            .release()
            .wait(lsn, CommitLevel::On)
            .block(Duration::from_secs(60))
            .unwrap()
    );
}

fn ddl(engine: &Arc<Engine>, statement: Statement) {
    let mut txn = engine.begin(TxnOptions::default()).unwrap();
    txn.begin_statement();
    let mut op = DdlOp::new(statement, BOOTSTRAP_SUPERUSER);
    done(&mut txn, |txn| op.step(txn));
    commit(txn);
}

fn table(engine: &Arc<Engine>, name: &str) -> Arc<Table> {
    let view = engine.catalog().shared(engine).unwrap();
    match view.find_relation(None, name, &["public"]) {
        Some(Relation::Table(table)) => Arc::clone(table),
        other => panic!("{other:?}"),
    }
}

fn row(n: i32, generation: i32) -> Vec<Datum> {
    // Some rows are long enough to be compressed, in the table and as a key.
    let tail = match n % 60 {
        0 => "a value that compresses, ".repeat((n % 347) as usize),
        1 => "z".repeat((n % 9000) as usize),
        _ => "é".repeat((n % 90) as usize),
    };
    vec![
        Datum::Int4(n),
        Datum::text(&format!("name {:05} {tail}", (n * 7919) % ROWS)),
        if n % 11 == 0 {
            Datum::Null
        } else {
            Datum::Numeric(Numeric::from(i64::from(n % 500) * 100_000 - 7))
        },
        Datum::Bool(n % 3 == 0),
        Datum::Int8(i64::from(generation)),
        large(n),
    ]
}

/// Some values are stored out of line, plain or compressed, in one chunk and in several.
fn large(n: i32) -> Datum {
    let noise = |len: usize| -> String {
        let mut state = n as u64 + 12_345;
        (0..len)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                char::from(b'a' + ((state >> 40) % 26) as u8)
            })
            .collect()
    };
    match n % 40 {
        0 => Datum::text(&noise(1900 + (n as usize % 70) * 100)),
        1 => Datum::text(&("ab".repeat(1500) + &noise(2600))),
        2 => Datum::text(&noise(1996)),
        3 => Datum::text(&noise(2 * 1996)),
        _ => Datum::Null,
    }
}

/// What PostgreSQL prints for a row.
fn printed(n: i32, generation: i32) -> String {
    let values = row(n, generation);
    let number = match &values[2] {
        Datum::Null => "-".to_owned(),
        other => towline_types::text_of(other, &towline_types::IoStyle::default()),
    };
    let name = values[1].as_str().unwrap().to_owned();
    format!(
        "{n}|{name}|{number}|{}|{generation}|{}",
        if n % 3 == 0 { "true" } else { "false" },
        large(n).as_str().unwrap_or("-")
    )
}

/// Fills a table, changes it and freezes it; returns the table and the rows it holds.
fn make_files(root: &Path) -> (Arc<Table>, Vec<String>) {
    let vfs: Arc<dyn Vfs> = OsVfs::shared();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    init(
        &vfs,
        root,
        &clock,
        &InitOptions {
            segment_size: 1 << 20,
            ..InitOptions::default()
        },
    )
    .unwrap();
    let config = EngineConfig {
        shared_buffers: 2048,
        ..EngineConfig::new(root)
    };
    let (engine, _permits) = open_alone(vfs, clock, config).unwrap();
    let types = [
        ("a", TypeId::Int4),
        ("b", TypeId::Text),
        ("c", TypeId::Numeric),
        ("d", TypeId::Bool),
        ("g", TypeId::Int8),
        ("l", TypeId::Text),
    ];
    ddl(
        &engine,
        Statement::CreateTable(CreateTable {
            name: QualifiedName::new("t"),
            if_not_exists: false,
            columns: types
                .iter()
                .map(|(name, id)| NewColumn {
                    name: (*name).to_owned(),
                    column_type: ColumnType::from(*id),
                    not_null: false,
                    default: None,
                })
                .collect(),
            constraints: vec![
                NewConstraint {
                    primary: true,
                    name: None,
                    columns: vec!["a".into()],
                    fillfactor: None,
                },
                NewConstraint {
                    primary: false,
                    name: None,
                    columns: vec!["b".into()],
                    fillfactor: None,
                },
            ],
            fillfactor: Some(90),
        }),
    );
    let key = |column: &str, descending: bool| NewIndexKey {
        column: column.into(),
        descending,
        nulls_first: descending,
    };
    let index = |keys: Vec<NewIndexKey>| {
        Statement::CreateIndex(CreateIndex {
            name: None,
            if_not_exists: false,
            table: QualifiedName::new("t"),
            unique: false,
            keys,
            fillfactor: None,
        })
    };
    ddl(&engine, index(vec![key("c", true), key("b", false)]));
    let t = table(&engine, "t");

    let mut txn = engine.begin(TxnOptions::default()).unwrap();
    let mut places: Vec<(i32, i32, Tid)> = Vec::new();
    for step in 0..ROWS {
        let n = (step * 2741) % ROWS;
        txn.begin_statement();
        let mut op = InsertOp::new(Arc::clone(&t), &row(n, 0)).unwrap();
        places.push((n, 0, done(&mut txn, |txn| op.step(txn))));
    }
    commit(txn);
    // An index built over what is there, HOT updates, updates of keys, deletions, and a rollback.
    ddl(&engine, index(vec![key("d", false)]));
    let t = table(&engine, "t");
    let mut txn = engine.begin(TxnOptions::default()).unwrap();
    places.retain_mut(|(n, generation, tid)| {
        txn.begin_statement();
        if *n % 5 == 0 {
            *generation = 1;
            let mut op = UpdateOp::new(Arc::clone(&t), *tid, &row(*n, 1)).unwrap();
            match done(&mut txn, |txn| op.step(txn)) {
                towline_access::ops::RowOutcome::Done(newest) => *tid = newest,
                other => panic!("{other:?}"),
            }
        }
        if *n % 13 == 0 {
            let mut op = DeleteOp::new(Arc::clone(&t), *tid);
            txn.begin_statement();
            done(&mut txn, |txn| op.step(txn));
            return false;
        }
        true
    });
    commit(txn);
    let mut lost = engine.begin(TxnOptions::default()).unwrap();
    for n in 0..300 {
        lost.begin_statement();
        let mut op = InsertOp::new(Arc::clone(&t), &row(ROWS + n, 0)).unwrap();
        done(&mut lost, |txn| op.step(txn));
    }
    lost.rollback();
    let mut txn = engine.begin(TxnOptions::default()).unwrap();
    let mut vacuum = VacuumOp::new(&txn, Arc::clone(&t), VacuumOptions::freezing(true)).unwrap();
    loop {
        match vacuum.step(&mut txn).unwrap() {
            VacuumStep::Done(_) => break,
            VacuumStep::More => {}
            VacuumStep::Wait(wait) => assert!(wait.block(Duration::from_secs(60)).unwrap()),
        }
    }
    commit(txn);
    let toast = t.toast.as_ref().unwrap();
    let chunks = check(engine.storage().pool(), &toast.indexes[0])
        .unwrap()
        .places
        .len();
    assert!((700..1200).contains(&chunks), "{chunks} chunks");
    for index in &t.indexes {
        let places = check(engine.storage().pool(), index).unwrap().places.len();
        assert!(places >= 3600, "{}: {places}", index.name);
    }
    engine.shutdown().unwrap();
    places.sort_unstable();
    (
        t,
        places
            .into_iter()
            .map(|(n, generation, _)| printed(n, generation))
            .collect(),
    )
}

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

/// Runs a script in PostgreSQL's single-user mode, which needs no port: what it prints, and its messages.
fn single_user(data: &Path, script: &str) -> (String, String) {
    let mut child = postgres("postgres", data.parent().unwrap())
        .args(["--single", "-j", "-F", "-D"])
        .arg(data)
        .arg("postgres")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

/// The value of the first `name = "…"`.
fn value<'t>(output: &'t str, name: &str) -> &'t str {
    let prefix = format!("{name} = \"");
    let Some((_, rest)) = output.split_once(&prefix) else {
        panic!("no {name} in {output}")
    };
    rest.split("\"\t(typeid").next().unwrap()
}

fn tool_is_there() -> bool {
    let there = Path::new(BIN).join("initdb").exists()
        && Path::new("/usr/share/postgresql/15/extension/amcheck.control").exists();
    let required = std::env::var("TOWLINE_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
    assert!(
        there || !required,
        "PostgreSQL 15 with amcheck is required and not installed"
    );
    there
}

#[test]
fn postgresql_reads_our_table_and_accepts_our_indexes() {
    if !tool_is_there() {
        println!("ignored: postgresql-15 with amcheck is not installed");
        return;
    }
    let ours = tempfile::tempdir().unwrap();
    let root = ours.path().join("towline");
    let (t, expected) = make_files(&root);

    let directory = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let data = directory.path().join("data");
    let made = postgres("initdb", directory.path())
        .args([
            "-U",
            "postgres",
            "--no-sync",
            "-k",
            "--no-locale",
            "-E",
            "UTF8",
            "-D",
        ])
        .arg(&data)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let schema = "CREATE EXTENSION amcheck;\n\nCREATE EXTENSION pageinspect;\n\n\
        CREATE TABLE t (a int4 PRIMARY KEY, b text UNIQUE, c numeric, d bool, g int8, l text) WITH (fillfactor = 90);\n\n\
        CREATE INDEX ON t (c DESC, b);\n\nCREATE INDEX ON t (d);\n\n\
        SELECT string_agg(pg_relation_filepath(r), ' ' ORDER BY o) AS files FROM \
        (SELECT reltoastrelid AS toast FROM pg_class WHERE relname = 't') c, \
        unnest(ARRAY['t'::regclass, 't_pkey', 't_b_key', 't_c_b_idx', 't_d_idx', toast::regclass, \
        (SELECT indexrelid::regclass FROM pg_index WHERE indrelid = toast)]) WITH ORDINALITY AS x(r, o);\n\n";
    // Our pointers name our TOAST table, so theirs gets its number.
    let toast = t.toast.as_ref().unwrap();
    let renumber = format!(
        "CREATE TABLE was AS SELECT reltoastrelid AS toast FROM pg_class WHERE relname = 't';\n\n\
         UPDATE pg_attribute SET attrelid = {0} FROM was WHERE attrelid = toast;\n\n\
         UPDATE pg_index SET indrelid = {0} FROM was WHERE indrelid = toast;\n\n\
         UPDATE pg_class SET reltoastrelid = {0} WHERE relname = 't';\n\n\
         UPDATE pg_class SET oid = {0} FROM was WHERE pg_class.oid = toast;\n\n",
        toast.oid
    );
    let (output, errors) = single_user(&data, schema);
    assert!(!errors.contains("ERROR"), "{errors}");
    let files: Vec<&str> = value(&output, "files").split(' ').collect();
    let (_, errors) = single_user(&data, &renumber);
    assert!(!errors.contains("ERROR"), "{errors}");

    let names = ["t_pkey", "t_b_key", "t_c_b_idx", "t_d_idx"];
    let sources = std::iter::once(t.node).chain(names.iter().map(|name| {
        t.indexes
            .iter()
            .find(|index| &*index.name == *name)
            .unwrap_or_else(|| panic!("no index {name}"))
            .node
    }));
    let sources = sources.chain([toast.node, toast.indexes[0].node]);
    assert_eq!(files.len(), 7);
    for (node, file) in sources.zip(&files) {
        let mut bytes = std::fs::read(root.join(format!("base/5/{}", node.rel))).unwrap();
        assert!(!bytes.is_empty() && bytes.len().is_multiple_of(8192));
        for (block, chunk) in bytes.as_chunks_mut::<8192>().0.iter_mut().enumerate() {
            let mut page = Page::from_bytes(*chunk);
            assert!(
                page.verify_checksum(block as u32),
                "checksum of block {block} of {node}"
            );
            if !page.is_new() {
                // The other cluster's log has not come so far.
                page.set_lsn(towline_base::Lsn(1));
                let checksum = page.checksum(block as u32);
                page.set_stored_checksum(checksum);
            }
            *chunk = *page.as_bytes();
        }
        std::fs::write(data.join(file), bytes).unwrap();
    }

    let mut script = String::from(
        "SELECT string_agg(a || '|' || b || '|' || coalesce(c::text, '-') || '|' || d || '|' || g || '|' || coalesce(l, '-'), ';' ORDER BY a) AS contents FROM t;\n\n\
         SET enable_seqscan = off;\n\n\
         SELECT string_agg(a::text, ' ') AS by_key FROM (SELECT a FROM t WHERE a BETWEEN 100 AND 140 ORDER BY a) s;\n\n\
         SELECT count(*) AS nulls FROM t WHERE c IS NULL;\n\n",
    );
    script.push_str(
        "SELECT string_agg(concat_ws(' ', blkno, offnum, attnum, msg), '; ') AS problems, count(*) AS counted \
         FROM verify_heapam('t', check_toast => true);\n\n",
    );
    script.push_str(&format!(
        "SELECT bt_index_parent_check(indexrelid, true, true) IS NULL AS checked_toast FROM pg_index \
         WHERE indrelid = {};\n\n",
        toast.oid
    ));
    for name in names {
        script.push_str(&format!(
            "SELECT bt_index_parent_check('{name}', true, true) IS NULL AS checked_{name};\n\n"
        ));
        script.push_str(&format!(
            "SELECT sum(live_items) - sum((btpo_next <> 0)::int) AS items_{name} FROM \
             generate_series(1, pg_relation_size('{name}') / 8192 - 1) b, \
             LATERAL bt_page_stats('{name}', b::int) WHERE type IN ('l', 'r') AND btpo_level = 0;\n\n"
        ));
    }
    let (output, errors) = single_user(&data, &script);
    assert!(
        !errors.contains("ERROR") && !errors.contains("WARNING"),
        "{errors}"
    );
    let contents: Vec<&str> = value(&output, "contents").split(';').collect();
    assert_eq!(contents.len(), expected.len());
    for (theirs, ours) in contents.iter().zip(&expected) {
        assert_eq!(theirs, ours);
    }
    let by_key: Vec<String> = (100..=140)
        .filter(|n| n % 13 != 0)
        .map(|n| n.to_string())
        .collect();
    assert_eq!(value(&output, "by_key"), by_key.join(" "));
    assert!(!output.contains("problems = "), "{}", value(&output, "problems"));
    assert_eq!(value(&output, "counted"), "0");
    assert!(
        output.contains("checked_toast = "),
        "the TOAST index was not checked: {errors}"
    );
    let nulls = (0..ROWS).filter(|n| n % 11 == 0 && n % 13 != 0).count();
    assert_eq!(value(&output, "nulls"), nulls.to_string());
    for name in names {
        assert!(
            output.contains(&format!("checked_{name} = ")),
            "{name} was not checked: {errors}"
        );
        let items: usize = value(&output, &format!("items_{name}")).parse().unwrap();
        assert!(items >= expected.len(), "{name} has {items} items");
    }
}
