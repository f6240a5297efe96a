//! PostgreSQL 15's eyes on our bytes: `pg_waldump` reads our log, `pageinspect` our pages, and a PostgreSQL
//! server, given our files under a table of the same schema, selects the same rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use towline_integration_tests::client::Sql;
use towline_integration_tests::node::Cluster;
use towline_integration_tests::peer::Postgres;
use towline_integration_tests::tools::{need, towline};

use crate::Case;

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![
        Case::new(
            "pg_waldump_describes_every_record_as_we_do",
            &["pg_waldump"],
            waldump_agrees,
        ),
        Case::new(
            "page_images_are_compressed_and_compared_as_settings_and_sessions_say",
            &[],
            page_images,
        ),
        Case::new(
            "pageinspect_agrees_with_us_on_every_page",
            &["initdb", "pg_ctl"],
            pages_agree,
        ),
        Case::new(
            "postgresql_reads_our_heap_and_index_files",
            &["initdb", "pg_ctl"],
            postgres_reads_our_files,
        ),
    ]
};

const PAGE: usize = 8192;

/// A table of every type that both sides store alike, with an index of each kind that we build.
const SCHEMA: &str = "create table everything (id int primary key, a smallint, b bigint, c text, d varchar(20), \
     e char(5), f numeric(12,3), g double precision, h boolean, i bytea, j date, k timestamp, l timestamptz, m pg_lsn)";
const INDEXES: &[&str] = &[
    "create index everything_c on everything (c)",
    "create index everything_b_a on everything (b, a)",
    "create index everything_f on everything (f)",
    "create index everything_l on everything (l)",
];
const ROWS: &str = "insert into everything select i, (i % 300)::smallint, i * 10000000000, 'text ' || i, 'v' || i, \
     'c' || (i % 1000), i / 7.0, i * 1.5, i % 3 = 0, 'bytes'::bytea, date '2000-01-01' + i, \
     timestamp '2001-02-03 04:05:06' , timestamptz '2001-02-03 04:05:06+00', '0/16B3748'::pg_lsn \
     from generate_series(1, 3000) i";

fn workload(sql: &Sql) {
    sql.query(SCHEMA).unwrap();
    for index in INDEXES {
        sql.query(index).unwrap();
    }
    sql.query(ROWS).unwrap();
    sql.query("insert into everything (id, c) values (100001, null), (100002, '')")
        .unwrap();
    // Long enough to be compressed, in the table and as keys.
    sql.query(
        "insert into everything (id, c, i) select 200000 + i, 'long ' || i || repeat(' and longer', i * 8), \
         repeat('bytes ', i * 5)::bytea from generate_series(1, 80) i",
    )
    .unwrap();
    sql.query("update everything set g = g + 1 where id % 5 = 0")
        .unwrap();
    sql.query("update everything set c = c || ' changed' where id % 7 = 0")
        .unwrap();
    sql.query("delete from everything where id % 11 = 0").unwrap();
    sql.query("begin; delete from everything where id < 100; rollback")
        .unwrap();
}

/// The log folder's files by name, history files left out.
fn segments(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.len() == 24 && n.bytes().all(|b| b.is_ascii_hexdigit()))
        .collect();
    names.sort();
    names
}

/// The name of the 16 MB segment that holds a position written as `X/XXXXXXXX`.
fn segment_of(timeline: u32, lsn: &str) -> String {
    let (high, low) = lsn.split_once('/').unwrap();
    let high = u32::from_str_radix(high, 16).unwrap();
    let low = u32::from_str_radix(low, 16).unwrap();
    format!("{timeline:08X}{high:08X}{:08X}", low >> 24)
}

/// Lines of a dump as (LSN, resource manager, description), in order.
fn records(text: &str) -> Vec<(String, String, String)> {
    text.lines()
        .filter(|line| line.starts_with("rmgr: "))
        .map(|line| {
            let rmgr = line["rmgr: ".len()..].split_whitespace().next().unwrap();
            // PostgreSQL knows our own resource manager by its number alone.
            let rmgr = if rmgr == "custom128" { "Towline" } else { rmgr }.to_owned();
            let lsn = line
                .split("lsn: ")
                .nth(1)
                .unwrap()
                .split(',')
                .next()
                .unwrap()
                .to_owned();
            let desc = line.split("desc: ").nth(1).unwrap_or("").trim_end().to_owned();
            (lsn, rmgr, desc)
        })
        .collect()
}

fn waldump_agrees() {
    let mut cluster = Cluster::start(
        0,
        &[
            "synchronous_standby_names=",
            "wal_recycle=off",
            "max_wal_size=4GB",
        ],
    );
    let sql = cluster.primary().sql();
    let start = sql.value("select pg_current_wal_lsn()").unwrap();
    workload(&sql);
    sql.query("vacuum freeze everything").unwrap();
    sql.query("checkpoint").unwrap();
    sql.query("drop table everything").unwrap();
    drop(sql);
    assert_eq!(cluster.primary().stop(), Some(0));
    let dir = cluster.nodes[0].dir.join("pg_wal");
    let last = segments(&dir).last().unwrap().clone();
    let timeline = u32::from_str_radix(&last[..8], 16).unwrap();

    let ours = Command::new(towline())
        .arg("waldump")
        .arg(&dir)
        .args(["--start", &start])
        .output()
        .unwrap();
    assert!(ours.status.success(), "{}", String::from_utf8_lossy(&ours.stderr));
    let ours = records(&String::from_utf8_lossy(&ours.stdout));
    assert!(
        ours.len() > 5_000,
        "the workload wrote only {} records",
        ours.len()
    );

    // pg_waldump reads the one segment that it is given, unless the last one is named too.
    let theirs = Command::new(need("pg_waldump"))
        .args([
            "-p",
            dir.to_str().unwrap(),
            "-t",
            &timeline.to_string(),
            "-s",
            &start,
        ])
        .args([
            segment_of(timeline, &start),
            segment_of(timeline, &ours[ours.len() - 1].0),
        ])
        .output()
        .unwrap();
    let theirs = records(&String::from_utf8_lossy(&theirs.stdout));

    let mut by_manager: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for (side, list) in [&theirs, &ours].into_iter().enumerate() {
        for (_, manager, _) in list {
            by_manager.entry(manager).or_default()[side] += 1;
        }
    }
    let uneven: Vec<_> = by_manager
        .iter()
        .filter(|(_, counts)| counts[0] != counts[1])
        .collect();
    assert!(
        uneven.is_empty(),
        "records by resource manager (theirs, ours): {uneven:?}"
    );
    for (their, our) in theirs.iter().zip(&ours) {
        if ["Heap", "Heap2", "Btree", "Transaction", "XLOG"].contains(&their.1.as_str()) {
            assert_eq!(their, our);
        }
    }
}

fn page_images() {
    let mut cluster = Cluster::start(
        1,
        &[
            "synchronous_standby_names=ANY 1 (*)",
            "wal_recycle=off",
            "wal_compression=zstd",
            "wal_consistency_checking=all",
            "autovacuum=off",
        ],
    );
    let sql = cluster.primary().sql();
    workload(&sql);
    sql.query("vacuum freeze everything").unwrap();
    sql.query("checkpoint").unwrap();
    let start = sql.value("select pg_current_wal_lsn()").unwrap();
    for value in 0..3 {
        sql.query(&format!("update everything set a = {value} where id = 100002"))
            .unwrap();
    }
    let middle = sql.value("select pg_current_wal_lsn()").unwrap();
    sql.query("set wal_compression = lz4").unwrap();
    sql.query("set wal_consistency_checking = ''").unwrap();
    sql.query("update everything set a = 2 where id < 1000").unwrap();
    for text in ["pglz", "on"] {
        let refused = sql.query(&format!("set wal_compression = '{text}'")).unwrap_err();
        assert_eq!(refused.sqlstate.as_deref(), Some("22023"), "{}", refused.message);
    }
    let count = sql.value("select count(*) from everything").unwrap();
    cluster.wait_for_standbys();
    assert_eq!(
        cluster.nodes[1]
            .sql()
            .value("select count(*) from everything")
            .unwrap(),
        count
    );

    let dir = cluster.nodes[0].dir.join("pg_wal");
    let dump = |range: &[&str]| {
        let output = Command::new(towline())
            .args(["waldump", "--bkp-details"])
            .arg(&dir)
            .args(range)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let (nodes, sessions) = (
        dump(&["--start", &start, "--end", &middle]),
        dump(&["--start", &middle]),
    );
    for part in ["(FPW); ", "(FPW for WAL verification); ", "method: zstd"] {
        assert!(nodes.contains(part), "{part}: {nodes}");
    }
    assert!(sessions.contains("method: lz4"), "{sessions}");
    for part in ["method: zstd", "WAL verification"] {
        assert!(!sessions.contains(part), "{part}: {sessions}");
    }

    drop(sql);
    cluster.primary().kill();
    cluster.primary().start_ready();
    let sql = cluster.primary().sql();
    assert_eq!(sql.value("select count(*) from everything").unwrap(), count);
}

fn relation_file(dir: &Path, sql: &Sql, relation: &str) -> PathBuf {
    let node = sql
        .value(&format!(
            "select relfilenode from pg_class where relname = '{relation}'"
        ))
        .unwrap();
    dir.join("base/5").join(node)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn pages_agree() {
    let mut cluster = Cluster::start(0, &["synchronous_standby_names="]);
    let sql = cluster.primary().sql();
    workload(&sql);
    sql.query("vacuum everything").unwrap();
    sql.query("checkpoint").unwrap();
    let dir = cluster.nodes[0].dir.clone();
    let heap = relation_file(&dir, &sql, "everything");
    let indexes: Vec<PathBuf> = [
        "everything_pkey",
        "everything_c",
        "everything_b_a",
        "everything_f",
    ]
    .iter()
    .map(|name| relation_file(&dir, &sql, name))
    .collect();
    let live: usize = sql
        .value("select count(*) from everything")
        .unwrap()
        .parse()
        .unwrap();
    drop(sql);
    assert_eq!(cluster.primary().stop(), Some(0));

    let postgres = Postgres::start();
    let peer = postgres.sql();
    peer.query("create extension pageinspect").unwrap();
    let mut normal = 0_usize;
    for (number, page) in std::fs::read(&heap).unwrap().chunks(PAGE).enumerate() {
        assert_eq!(page.len(), PAGE);
        if page.iter().all(|byte| *byte == 0) {
            // Allocated ahead and not used yet, as PostgreSQL has them too.
            continue;
        }
        let raw = format!("'\\x{}'::bytea", hex(page));
        let header = &peer
            .query(&format!(
                "select lsn, checksum, lower, upper, special, pagesize, version from page_header({raw})"
            ))
            .unwrap()[0];
        assert_eq!(header[5].as_deref(), Some("8192"));
        assert_eq!(header[6].as_deref(), Some("4"));
        assert_eq!(
            header[4].as_deref(),
            Some("8192"),
            "a heap page has no special space"
        );
        let computed = peer
            .value(&format!("select page_checksum({raw}, {number})"))
            .unwrap();
        assert_eq!(
            header[1].as_deref(),
            Some(computed.as_str()),
            "checksum of heap block {number}"
        );
        let items = peer
            .value(&format!(
                "select count(*) from heap_page_items({raw}) where lp_flags = 1"
            ))
            .unwrap();
        normal += items.parse::<usize>().unwrap();
    }
    assert!(
        normal >= live,
        "heap_page_items sees {normal} items of {live} live rows"
    );
    for index in indexes {
        for (number, page) in std::fs::read(&index).unwrap().chunks(PAGE).enumerate() {
            if page.iter().all(|byte| *byte == 0) {
                continue;
            }
            let raw = format!("'\\x{}'::bytea", hex(page));
            let stored = peer
                .value(&format!("select checksum from page_header({raw})"))
                .unwrap();
            let computed = peer
                .value(&format!("select page_checksum({raw}, {number})"))
                .unwrap();
            assert_eq!(stored, computed, "checksum of index block {number} of {index:?}");
            if number > 0 {
                peer.query(&format!("select count(*) from bt_page_items({raw})"))
                    .unwrap();
            }
        }
    }
}

fn postgres_reads_our_files() {
    let mut cluster = Cluster::start(0, &["synchronous_standby_names="]);
    let sql = cluster.primary().sql();
    workload(&sql);
    sql.query("vacuum freeze everything").unwrap();
    sql.query("checkpoint").unwrap();
    let select = "select * from everything order by id";
    sql.query("set timezone = 'UTC'").unwrap();
    let ours = sql.query(select).unwrap();
    let dir = cluster.nodes[0].dir.clone();
    let names = [
        "everything",
        "everything_pkey",
        "everything_c",
        "everything_b_a",
        "everything_f",
        "everything_l",
    ];
    let files: Vec<PathBuf> = names.iter().map(|name| relation_file(&dir, &sql, name)).collect();
    drop(sql);
    assert_eq!(cluster.primary().stop(), Some(0));

    let postgres = Postgres::start();
    let peer = postgres.sql();
    peer.query(SCHEMA).unwrap();
    for index in INDEXES {
        peer.query(index).unwrap();
    }
    peer.query("create extension amcheck").unwrap();
    let targets: Vec<PathBuf> = names
        .iter()
        .map(|name| {
            postgres.data.join(
                peer.value(&format!("select pg_relation_filepath('{name}')"))
                    .unwrap(),
            )
        })
        .collect();
    peer.query("checkpoint").unwrap();
    drop(peer);
    postgres.stop();
    for (from, to) in files.iter().zip(&targets) {
        // Written into the existing file, which keeps its owner.
        std::fs::write(to, std::fs::read(from).unwrap()).unwrap();
    }
    postgres.start_again();
    let peer = postgres.sql();
    peer.query("set timezone = 'UTC'").unwrap();
    assert_eq!(peer.query(select).unwrap(), ours);
    for index in &names[1..] {
        peer.query(&format!("select bt_index_parent_check('{index}', true, true)"))
            .unwrap();
    }
    let by_index = "set enable_seqscan = off; select id from everything where c = 'text 1234'";
    assert_eq!(peer.query(by_index).unwrap(), vec![vec![Some("1234".to_owned())]]);
}
