//! A primary and its standbys: what is committed on one is read on the others.

use std::collections::BTreeSet;

use towline_integration_tests::client::Sql;
use towline_integration_tests::node::{Cluster, Node, PATIENCE, Role};
use towline_integration_tests::wait::wait_until;

use crate::Case;

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![
        Case::new("a_standby_serves_what_the_primary_committed", &[], standby_serves),
        Case::new(
            "a_write_on_a_standby_is_refused_with_25006",
            &[],
            standby_refuses_writes,
        ),
        Case::new(
            "a_commit_waits_for_its_standby_and_is_released_when_it_returns",
            &[],
            commit_waits_for_standby,
        ),
        Case::new("a_standby_that_was_away_catches_up", &[], standby_catches_up),
        Case::new(
            "a_commit_that_only_the_standby_has_flushed_is_neither_answered_nor_seen",
            &[],
            held_fsync,
        ),
        Case::new(
            "files_of_a_table_that_a_crash_has_undone_go_on_the_standby_too",
            &[],
            orphans_go,
        ),
        Case::new("a_standby_follows_vacuum_page_by_page", &[], vacuum_is_followed),
    ]
};

const SYNC: &[&str] = &["synchronous_standby_names=ANY 1 (*)"];

fn standby_serves() {
    let mut cluster = Cluster::start(2, SYNC);
    let sql = cluster.primary().sql();
    sql.query("create table t (id int primary key, v text)").unwrap();
    sql.query("insert into t select i, 'row ' || i from generate_series(1, 1000) i")
        .unwrap();
    cluster.wait_for_standbys();
    for standby in &cluster.nodes[1..] {
        let reader = standby.sql();
        assert_eq!(reader.value("select count(*) from t").unwrap(), "1000");
        assert_eq!(reader.value("select v from t where id = 500").unwrap(), "row 500");
        assert_eq!(reader.value("select pg_is_in_recovery()").unwrap(), "t");
        let asked = reader.query("select inet_server_addr(), inet_server_port()");
        let address = [Some("127.0.0.1".to_owned()), Some(standby.sql_port.to_string())];
        assert_eq!(asked.unwrap(), [address]);
    }
    cluster.primary().kill();
    for standby in &cluster.nodes[1..] {
        assert_eq!(
            standby.sql().value("select count(*) from t").unwrap(),
            "1000",
            "with the primary killed"
        );
    }
}

fn standby_refuses_writes() {
    let mut cluster = Cluster::start(1, SYNC);
    cluster.primary().sql().query("create table t (id int)").unwrap();
    cluster.wait_for_standbys();
    let standby = cluster.nodes[1].sql();
    for statement in [
        "insert into t values (1)",
        "create table u (id int)",
        "delete from t",
        "truncate t",
    ] {
        let refused = standby.query(statement).unwrap_err();
        assert_eq!(
            refused.sqlstate.as_deref(),
            Some("25006"),
            "{statement}: {}",
            refused.message
        );
    }
    assert_eq!(standby.value("show transaction_read_only").unwrap(), "on");
    assert_eq!(standby.value("show in_hot_standby").unwrap(), "on");
}

fn commit_waits_for_standby() {
    let mut cluster = Cluster::start(1, SYNC);
    cluster
        .primary()
        .sql()
        .query("create table t (id int primary key)")
        .unwrap();
    cluster.wait_for_standbys();
    cluster.nodes[1].kill();
    let (primary, writer) = (cluster.nodes[0].sql(), cluster.nodes[0].sql());
    let commit = std::thread::spawn(move || writer.query_within("insert into t values (1)", PATIENCE));
    wait_until("the commit to wait", PATIENCE, || {
        let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
        primary.value(waiting).unwrap() == "1"
    });
    let count = "select count(*) from t";
    assert_eq!(primary.value(count).unwrap(), "0", "visible before its quorum");
    assert!(!commit.is_finished(), "acknowledged with no standby");
    cluster.nodes[1].start_ready();
    commit.join().unwrap().unwrap();
    assert_eq!(primary.value(count).unwrap(), "1");
}

/// The primary's fsync is held by a failpoint, the standby's is not.
fn held_fsync() {
    let base = tempfile::tempdir().unwrap();
    let hold = base.path().join("hold");
    let mut primary = Node::new(base.path(), "p", Role::Primary, SYNC);
    primary.env(
        "TOWLINE_FAILPOINTS",
        &format!("wal::before_fsync=pause:{}", hold.display()),
    );
    primary.init();
    let upstream = primary.grpc_port;
    let mut standby = Node::new(base.path(), "s1", Role::Standby { upstream }, SYNC);
    primary.start();
    standby.start();
    primary.wait_ready();
    standby.wait_ready();
    let (sql, reader, writer) = (primary.sql(), standby.sql(), primary.sql());
    sql.query("create table t (id int primary key)").unwrap();
    let count = |sql: &Sql| sql.value("select count(*) from t").unwrap();
    wait_until("the standby to have the table", PATIENCE, || {
        reader.value("select count(*) from t").is_ok()
    });

    std::fs::write(&hold, "").unwrap();
    let commit = std::thread::spawn(move || writer.query_within("insert into t values (1)", PATIENCE));
    wait_until("the standby to flush what the primary has not", PATIENCE, || {
        let ahead = "select count(*) from pg_stat_replication \
                     where flush_lsn > pg_current_wal_flush_lsn() and flush_lsn >= pg_current_wal_insert_lsn()";
        sql.value(ahead).is_ok_and(|n| n == "1")
    });
    assert_eq!((count(&sql), count(&reader)), ("0".into(), "0".into()));
    assert!(!commit.is_finished(), "answered before its own flush");
    std::fs::remove_file(&hold).unwrap();
    commit.join().unwrap().unwrap();
    assert_eq!(count(&sql), "1");
    wait_until("the standby to show it", PATIENCE, || count(&reader) == "1");
}

/// The files of relations of users in a data directory: those that stand in the catalog of a new cluster have lower numbers.
fn user_files(node: &Node) -> BTreeSet<u32> {
    let names = std::fs::read_dir(node.dir.join("base/5")).unwrap();
    names
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|number| *number >= 16_384)
        .collect()
}

fn orphans_go() {
    let mut cluster = Cluster::start(1, SYNC);
    let sql = cluster.primary().sql();
    sql.query("create table kept (id int primary key); insert into kept values (1)")
        .unwrap();
    cluster.wait_for_standbys();
    let kept = user_files(&cluster.nodes[0]);
    assert!(
        kept.len() >= 2 && kept == user_files(&cluster.nodes[1]),
        "{kept:?}"
    );
    let undone = cluster.nodes[0].sql();
    undone
        .query("begin; create table undone (id int primary key); insert into undone select generate_series(1, 1000)")
        .unwrap();
    // A commit behind it brings the quorum past the files' creation.
    sql.query("insert into kept values (2)").unwrap();
    cluster.wait_for_standbys();
    wait_until("the files to be on the standby", PATIENCE, || {
        user_files(&cluster.nodes[1]).len() > kept.len()
    });
    cluster.nodes[0].kill();
    cluster.nodes[0].start_ready();
    // They go with a checkpoint behind the new timeline's first record, on the standby with a restartpoint of it.
    let (primary, standby) = (cluster.nodes[0].sql(), cluster.nodes[1].sql());
    wait_until("the files to be gone on both", PATIENCE, || {
        primary.query("checkpoint").unwrap();
        cluster.wait_for_standbys();
        standby.query("checkpoint").unwrap();
        cluster.nodes.iter().all(|node| user_files(node) == kept)
    });
    assert_eq!(standby.value("select count(*) from kept").unwrap(), "2");
}

fn standby_catches_up() {
    let mut cluster = Cluster::start(2, SYNC);
    let sql = cluster.primary().sql();
    sql.query("create table t (id int primary key, v text)").unwrap();
    cluster.nodes[2].kill();
    for block in 0..10 {
        let from = block * 500;
        sql.query(&format!(
            "insert into t select i, repeat('x', 200) from generate_series({from}, {}) i",
            from + 499
        ))
        .unwrap();
    }
    cluster.nodes[2].start_ready();
    cluster.wait_for_standbys();
    assert_eq!(
        cluster.nodes[2].sql().value("select count(*) from t").unwrap(),
        "5000"
    );
}

/// Each page is compared after redo: heap, index and visibility map.
fn vacuum_is_followed() {
    let settings = [SYNC[0], "wal_consistency_checking=all"];
    let mut cluster = Cluster::start(1, &settings);
    let sql = cluster.primary().sql();
    let size = |sql: &Sql| sql.value("select pg_relation_size('t')").unwrap();
    for statement in [
        "create table t (id int primary key, v text)",
        "insert into t select i, 'row ' || i from generate_series(1, 5000) i",
        "vacuum t",
        "vacuum freeze t",
        "begin",
        "select * from t where id = 700 for update",
        "update t set v = 'new' where id = 10",
        "rollback",
        "delete from t where id = 300",
        "update t set v = 'new' where id = 500",
        "vacuum t",
        "delete from t where id > 1000 or id = 500",
    ] {
        sql.query(statement).unwrap();
    }
    let before: u64 = size(&sql).parse().unwrap();
    // The standby's feedback keeps what it may still read.
    wait_until("vacuum to cut the table", PATIENCE, || {
        sql.query("vacuum t").unwrap();
        size(&sql).parse::<u64>().unwrap() < before
    });
    sql.query("insert into t select i, 'again' from generate_series(2001, 3000) i")
        .unwrap();
    sql.query("vacuum t").unwrap();
    cluster.wait_for_standbys();
    let standby = cluster.nodes[1].sql();
    let count = "select count(*) from t";
    assert_eq!(standby.value(count).unwrap(), "1998");
    wait_until("the standby's file to be as long", PATIENCE, || {
        size(&standby) == size(&sql)
    });
    drop(sql);
    cluster.primary().kill();
    cluster.primary().start_ready();
    assert_eq!(cluster.primary().sql().value(count).unwrap(), "1998");
    cluster.primary().sql().query("delete from t").unwrap();
    cluster.primary().sql().query("vacuum t").unwrap();
    cluster.wait_for_standbys();
    assert_eq!(cluster.nodes[1].sql().value(count).unwrap(), "0");
}
