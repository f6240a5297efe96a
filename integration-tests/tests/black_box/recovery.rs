//! What PostgreSQL's own recovery tests ask of one node and its standby: unfinished transactions at a crash, clients that are cut off,
//! and which rows a standby shows.

use towline_integration_tests::client::{Failure, Sql};
use towline_integration_tests::node::{Cluster, PATIENCE};
use towline_integration_tests::wait::{wait_for, wait_until};

use crate::Case;

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![
        Case::new(
            "what_is_in_progress_at_a_crash_is_undone_and_its_xid_not_used_again",
            &[],
            in_progress_is_undone,
        ),
        Case::new(
            "clients_that_a_kill_cuts_off_are_told_so_and_may_come_back",
            &[],
            clients_come_back,
        ),
        Case::new(
            "a_standby_shows_rows_as_its_primary_does",
            &[],
            rows_show_as_on_the_primary,
        ),
    ]
};

const SYNC: &[&str] = &["synchronous_standby_names=ANY 1 (*)"];

/// The ids and values of table t, as `id:value` in order.
fn rows(sql: &Sql) -> Result<Vec<String>, Failure> {
    let rows = sql.query("select id || ':' || v from t order by id")?;
    Ok(rows.into_iter().flatten().flatten().collect())
}

fn in_progress_is_undone() {
    let mut cluster = Cluster::start(1, SYNC);
    let sql = cluster.primary().sql();
    sql.query("create table t (id int primary key, v text)").unwrap();
    let running = cluster.primary().sql();
    let xid: u64 = running
        .value("begin; insert into t values (1, 'undone'); select xmin from t where id = 1")
        .unwrap()
        .parse()
        .unwrap();
    let status = format!("select txid_status({xid})");
    // A commit behind it makes its records durable on both nodes.
    sql.query("insert into t values (2, 'kept')").unwrap();
    cluster.wait_for_standbys();
    let reader = cluster.nodes[1].sql();
    for node in [&sql, &reader] {
        assert_eq!(node.value(&status).unwrap(), "in progress");
        assert_eq!(rows(node).unwrap(), ["2:kept"]);
    }
    cluster.primary().kill();
    cluster.primary().start_ready();
    let sql = cluster.primary().sql();
    assert_eq!(sql.value(&status).unwrap(), "aborted");
    // It shows what the quorum has, and the standby has to come back to say so.
    wait_until("what was acknowledged to show", PATIENCE, || {
        rows(&sql).unwrap() == ["2:kept"]
    });
    sql.query("insert into t values (1, 'again')").unwrap();
    let again = sql.value("select xmin from t where id = 1").unwrap();
    let next: u64 = again.parse().unwrap();
    assert!(next > xid, "{next} is given out behind {xid}");
    let of_next = format!("select txid_status({next})");
    assert_eq!(sql.value(&of_next).unwrap(), "committed");
    let future = sql.query(&format!("select txid_status({})", next + 1_000_000));
    assert_eq!(future.unwrap_err().sqlstate.as_deref(), Some("22023"));
    cluster.wait_for_standbys();
    assert_eq!(reader.value(&status).unwrap(), "aborted");
    assert_eq!(reader.value(&of_next).unwrap(), "committed");
    assert_eq!(rows(&reader).unwrap(), ["1:again", "2:kept"]);
}

fn clients_come_back() {
    let mut cluster = Cluster::start(0, &["synchronous_standby_names="]);
    let (idle, open) = (cluster.primary().sql(), cluster.primary().sql());
    idle.query("create table t (id int primary key, v text); insert into t values (1, 'kept')")
        .unwrap();
    open.query("begin; insert into t values (2, 'undone')").unwrap();
    // Who is ended by an administrator is told why; who is cut off by a kill can only see that the connection is gone.
    let ended = cluster.primary().sql();
    let pid = ended.value("select pg_backend_pid()").unwrap();
    assert_eq!(
        idle.value(&format!("select pg_terminate_backend({pid})"))
            .unwrap(),
        "t"
    );
    wait_until("the session to be gone", PATIENCE, || {
        let left = format!("select count(*) from pg_stat_activity where pid = {pid}");
        idle.value(&left).unwrap() == "0"
    });
    assert!(ended.query("select 1").is_err());
    cluster.primary().kill();
    for cut_off in [&idle, &open] {
        let failure = cut_off.query("select 1").unwrap_err();
        assert_eq!(failure.sqlstate, None, "{}", failure.message);
    }
    cluster.primary().start();
    let back = wait_for("a client to come back", PATIENCE, || {
        match cluster.nodes[0].connect() {
            Ok(sql) => Some(sql),
            // Nobody listens yet, or recovery is under way.
            Err(failure) => {
                assert!(
                    matches!(failure.sqlstate.as_deref(), None | Some("57P03")),
                    "{failure:?}"
                );
                None
            }
        }
    });
    assert_eq!(rows(&back).unwrap(), ["1:kept"]);
    back.query("insert into t values (2, 'new')").unwrap();
}

fn rows_show_as_on_the_primary() {
    let mut cluster = Cluster::start(1, SYNC);
    let sql = cluster.primary().sql();
    sql.query(
        "create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'a'), (3, 'a')",
    )
    .unwrap();
    cluster.wait_for_standbys();
    let (reader, old) = (cluster.nodes[1].sql(), cluster.nodes[1].sql());
    old.query("begin isolation level repeatable read").unwrap();
    let first = rows(&old).unwrap();
    assert_eq!(first, ["1:a", "2:a", "3:a"]);
    // Each step in a transaction of its own that stays open meanwhile: nothing of it shows before its commit, all of it after.
    let writer = cluster.primary().sql();
    for statement in [
        "insert into t values (4, 'b')",
        "update t set v = 'b' where id = 1",
        "delete from t where id = 2",
        "update t set id = 5, v = 'c' where id = 3",
        "insert into t select i, 'many' from generate_series(10, 30) i",
        "update t set v = v || 'x' where id > 20",
    ] {
        for end in ["rollback", "commit"] {
            let before = rows(&sql).unwrap();
            writer.query(&format!("begin; {statement}")).unwrap();
            sql.query("create table if not exists other (id int); insert into other values (1)")
                .unwrap();
            cluster.wait_for_standbys();
            assert_eq!(rows(&reader).unwrap(), before, "{statement} is open");
            writer.query(end).unwrap();
            let after = rows(&sql).unwrap();
            assert_eq!(after == before, end == "rollback", "{statement}; {end}");
            cluster.wait_for_standbys();
            wait_until("the standby to show what the primary shows", PATIENCE, || {
                rows(&reader).unwrap() == after
            });
        }
    }
    // Locks of rows change nothing that a reader sees.
    writer.query("begin; select * from t for update").unwrap();
    sql.query("insert into other values (2)").unwrap();
    cluster.wait_for_standbys();
    assert_eq!(rows(&reader).unwrap(), rows(&sql).unwrap());
    assert_eq!(rows(&old).unwrap(), first, "a snapshot stays what it was");
    old.query("commit").unwrap();
    assert_eq!(rows(&old).unwrap(), rows(&sql).unwrap());
    writer.query("commit").unwrap();
}
