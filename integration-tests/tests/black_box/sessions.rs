//! Sessions that go wrong: a panic in one of them, clients that vanish, that do not read, that do not log in. Everybody else goes on.

use std::path::Path;
use std::time::{Duration, Instant};

use towline_integration_tests::client::Sql;
use towline_integration_tests::node::{Cluster, Node, PATIENCE, Role};
use towline_integration_tests::raw::Raw;
use towline_integration_tests::wait::wait_until;

use crate::Case;

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![
        Case::new(
            "a_panic_in_an_expression_ends_its_session_and_frees_its_locks",
            &[],
            panic_in_expression,
        ),
        Case::new(
            "a_panic_in_a_critical_section_stops_the_node_and_it_recovers",
            &[],
            panic_in_critical_section,
        ),
        Case::new(
            "a_waiting_session_ends_when_its_client_has_gone",
            &[],
            waiting_clients_vanish,
        ),
        Case::new(
            "a_commit_whose_client_has_gone_is_neither_shown_nor_taken_back",
            &[],
            committing_client_vanishes,
        ),
        Case::new(
            "a_commit_whose_wait_is_given_up_is_unknown_and_is_neither_shown_nor_taken_back",
            &[],
            wait_given_up,
        ),
        Case::new(
            "an_answer_that_depends_on_an_unconfirmed_commit_is_taken_back_and_the_session_goes_on",
            &[],
            answer_taken_back,
        ),
        Case::new("each_statement_of_a_text_has_its_own_time", &[], statement_times),
        Case::new(
            "reset_connections_and_slow_logins_free_their_places",
            &[],
            places_are_freed,
        ),
        Case::new(
            "a_client_that_never_reads_costs_bounded_memory",
            &[],
            unread_answer,
        ),
    ]
};

/// A primary alone, with these failpoints.
fn node(base: &Path, failpoints: &str, settings: &[&str]) -> Node {
    let mut node = Node::new(base, "p", Role::Primary, settings);
    node.env("TOWLINE_FAILPOINTS", failpoints);
    node.init();
    node.start_ready();
    node
}

/// Sessions other than the asking one whose statement begins like this.
fn running(sql: &Sql, statement: &str) -> String {
    sql.value(&format!(
        "select count(*) from pg_stat_activity where query like '{statement}%' and state = 'active' and pid <> pg_backend_pid()"
    ))
    .unwrap()
}

fn panic_in_expression() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path(), "sql::sleep=panic", &["synchronous_standby_names="]);
    let other = node.sql();
    other.query("create table t (id int primary key, v int)").unwrap();
    other.query("insert into t values (1, 0)").unwrap();

    let broken = node.sql();
    broken.query("begin").unwrap();
    broken.query("update t set v = 1 where id = 1").unwrap();
    let waiting = node.sql();
    let waiter =
        std::thread::spawn(move || waiting.query_within("update t set v = v + 2 where id = 1", PATIENCE));
    wait_until("the second update to wait", PATIENCE, || {
        running(&other, "update t set v = v + 2") == "1"
    });
    let failure = broken.query("select pg_sleep(0) from t").unwrap_err();
    assert_eq!(failure.sqlstate.as_deref(), Some("XX000"), "{failure:?}");
    waiter.join().unwrap().unwrap();
    assert_eq!(other.value("select v from t").unwrap(), "2");
    assert!(broken.query("select 1").is_err(), "the connection is closed");
    wait_until("the session to be gone", PATIENCE, || {
        other
            .value("select count(*) from pg_stat_activity where query like 'select pg_sleep%'")
            .is_ok_and(|n| n == "0")
    });
    other.query_within("drop table t", PATIENCE).unwrap();
}

fn panic_in_critical_section() {
    for failpoint in ["storage::before_log", "wal::before_copy", "access::before_csn"] {
        let base = tempfile::tempdir().unwrap();
        let switch = base.path().join("panic");
        let failpoints = format!("{failpoint}=panic:{}", switch.display());
        let mut node = node(base.path(), &failpoints, &["synchronous_standby_names="]);
        let sql = node.sql();
        sql.query("create table t (id int primary key)").unwrap();
        sql.query("insert into t values (1)").unwrap();
        std::fs::write(&switch, "").unwrap();
        assert!(sql.query_within("insert into t values (2)", PATIENCE).is_err());
        assert_eq!(node.wait_ended(), None, "{failpoint}: a signal ends it, SIGABRT");
        std::fs::remove_file(&switch).unwrap();
        node.start_ready();
        let sql = node.sql();
        assert_eq!(
            sql.value("select count(*) from t where id = 1").unwrap(),
            "1",
            "{failpoint}"
        );
        sql.query("insert into t values (3)").unwrap();
        assert_eq!(sql.value("select count(*) from t where id = 3").unwrap(), "1");
    }
}

fn waiting_clients_vanish() {
    let mut cluster = Cluster::start(0, &["synchronous_standby_names="]);
    let port = cluster.nodes[0].sql_port;
    let control = cluster.primary().sql();
    control
        .query("create table t (id int primary key, v int)")
        .unwrap();
    control.query("insert into t values (1, 0)").unwrap();
    let holder = cluster.primary().sql();
    holder.query("begin").unwrap();
    holder.query("update t set v = 1 where id = 1").unwrap();
    for (number, statement) in [
        "update t set v = 2 where id = 1",
        "truncate t",
        "select pg_sleep(600)",
    ]
    .into_iter()
    .enumerate()
    {
        for reset in [false, true] {
            let mut raw = Raw::log_in(port).unwrap();
            raw.send(statement).unwrap();
            wait_until(&format!("{statement} to run"), PATIENCE, || {
                running(&control, statement) == "1"
            });
            // What it has sent ahead does not hide that it has gone.
            raw.send(&format!("insert into t values ({}, 0)", number + 10))
                .unwrap();
            if reset {
                raw.reset();
            } else {
                drop(raw);
            }
            wait_until(&format!("{statement} to be given up"), PATIENCE, || {
                running(&control, statement) == "0"
            });
        }
    }
    // Nothing queues behind those who have gone.
    control
        .query_within("insert into t values (2, 0)", PATIENCE)
        .unwrap();
    holder.query("commit").unwrap();
    assert_eq!(
        control
            .value("select string_agg(id || ':' || v, ' ' order by id) from t")
            .unwrap(),
        "1:1 2:0"
    );
}

fn committing_client_vanishes() {
    let mut cluster = Cluster::start(1, &["synchronous_standby_names=ANY 1 (*)"]);
    let control = cluster.primary().sql();
    control.query("create table t (id int primary key)").unwrap();
    cluster.wait_for_standbys();
    cluster.nodes[1].kill();
    let mut raw = Raw::log_in(cluster.nodes[0].sql_port).unwrap();
    raw.send("insert into t values (1)").unwrap();
    // Not only to run: a statement whose client goes before its commit is taken back.
    wait_until("the commit to wait", PATIENCE, || {
        let waiting = "select count(*) from pg_stat_activity where query like 'insert into t%' and wait_event = 'SyncRep'";
        control.value(waiting).unwrap() == "1"
    });
    drop(raw);
    wait_until("the session to end", PATIENCE, || {
        running(&control, "insert into t") == "0"
    });
    assert_eq!(control.value("select count(*) from t").unwrap(), "0");
    cluster.nodes[1].start_ready();
    wait_until("the commit to be released", PATIENCE, || {
        control.value("select count(*) from t").is_ok_and(|n| n == "1")
    });
}

/// By cancel, termination and timeout; of an implicit commit and of COMMIT, which was once told as if it had been undone (57014).
fn wait_given_up() {
    // Without the setting on the command line, which would stand above ALTER SYSTEM.
    let mut cluster = Cluster::start(0, &[]);
    let control = cluster.primary().sql();
    control.query("create table t (id int primary key)").unwrap();
    // An xid is in hand: the next one needs no quorum.
    control.query("insert into t values (0)").unwrap();
    let require = |names: &str| {
        control
            .query(&format!("alter system set synchronous_standby_names = '{names}'"))
            .unwrap();
        control.query("select pg_reload_conf()").unwrap();
        let set = "select current_setting('synchronous_standby_names')";
        wait_until("the setting to change", PATIENCE, || {
            control.value(set).unwrap() == names
        });
    };
    require("nobody");
    let (mut id, mut committed) = (0, vec![0]);
    for give_up in ["pg_cancel_backend", "pg_terminate_backend", "statement_timeout"] {
        for (begin, end) in [("", ""), ("begin;", "; commit"), ("begin;", "; commit; select 1")] {
            let mut timeout_ms = 200;
            // Until the commit was reached: a timeout that strikes a slow machine before that undoes the row, and a longer one is tried.
            loop {
                id += 1;
                let case = format!("{give_up} of {begin} insert {id} {end}");
                let sql = cluster.nodes[0].sql();
                let pid = sql.value("select pg_backend_pid()").unwrap();
                let commit = match end {
                    // Alone in its text.
                    "; commit" => {
                        sql.query(&format!("begin; insert into t values ({id})")).unwrap();
                        "commit".to_owned()
                    }
                    _ => format!("{begin} insert into t values ({id}) {end}"),
                };
                if give_up == "statement_timeout" {
                    sql.query(&format!("set statement_timeout = '{timeout_ms}ms'"))
                        .unwrap();
                }
                let waiting = std::thread::spawn(move || {
                    let answer = sql.query_within(&commit, PATIENCE);
                    (sql, answer)
                });
                if give_up != "statement_timeout" {
                    let at_commit = format!(
                        "select count(*) from pg_stat_activity where pid = {pid} and wait_event = 'SyncRep'"
                    );
                    wait_until(&format!("{case} to wait"), PATIENCE, || {
                        control.value(&at_commit).unwrap() == "1"
                    });
                    control.query(&format!("select {give_up}({pid})")).unwrap();
                }
                let (sql, answer) = waiting.join().unwrap();
                let failure = answer.unwrap_err();
                let code = failure.sqlstate.as_deref();
                if give_up == "statement_timeout" && code == Some("57014") && timeout_ms < 60_000 {
                    timeout_ms *= 4;
                    continue;
                }
                assert_eq!(code, Some("08007"), "{case}: {failure:?}");
                committed.push(id);
                if give_up != "pg_terminate_backend" {
                    // The transaction is over: no block is left that only ROLLBACK would end.
                    assert_eq!(sql.value("select 1").unwrap(), "1", "{case}");
                }
                assert_eq!(control.value("select count(*) from t").unwrap(), "1", "{case}");
                break;
            }
        }
    }
    require("");
    // Those, and none that was told as undone.
    wait_until("all of them to be shown", PATIENCE, || {
        control.value("select count(*) from t").unwrap() == committed.len().to_string()
    });
    let shown = control.query("select id from t order by id").unwrap();
    let expected: Vec<_> = committed.iter().map(|id| vec![Some(id.to_string())]).collect();
    assert_eq!(shown, expected);
}

/// It ended the session. What is told instead does not say what was found: a statement outside of a block that failed, found nothing or
/// has committed is unknown in the same words, and in a block each is undone.
fn answer_taken_back() {
    let mut cluster = Cluster::start(0, &[]);
    let control = cluster.primary().sql();
    control
        .query("create table t (id int primary key, v int)")
        .unwrap();
    control.query("insert into t values (0, 0)").unwrap();
    let require = |names: &str| {
        control
            .query(&format!("alter system set synchronous_standby_names = '{names}'"))
            .unwrap();
        control.query("select pg_reload_conf()").unwrap();
        let set = "select current_setting('synchronous_standby_names')";
        wait_until("the setting to change", PATIENCE, || {
            control.value(set).unwrap() == names
        });
    };
    require("nobody");
    let at_commit = |pid: &str| {
        let waiting = format!(
            "select count(*) from pg_stat_activity where pid = {pid} and wait_event_type = 'IPC' and wait_event = 'SyncRep'"
        );
        wait_until("the session to wait", PATIENCE, || {
            control.value(&waiting).unwrap() == "1"
        });
    };
    let cancelled = |sql: Sql, text: &'static str| {
        let pid = sql.value("select pg_backend_pid()").unwrap();
        let waiting = std::thread::spawn(move || {
            let answer = sql.query_within(text, PATIENCE);
            (sql, answer)
        });
        at_commit(&pid);
        control
            .query(&format!("select pg_cancel_backend({pid})"))
            .unwrap();
        let (sql, answer) = waiting.join().unwrap();
        (sql, answer.unwrap_err())
    };
    // Row 0 has v = 1 from now on, and row 1 is there; nobody may know.
    let writer = cluster.nodes[0].sql();
    let (_, failure) = cancelled(
        writer,
        "begin; update t set v = 1 where id = 0; insert into t values (1, 1); commit",
    );
    assert_eq!(failure.sqlstate.as_deref(), Some("08007"), "{failure:?}");
    let mut told = Vec::new();
    for text in [
        "insert into t values (1, 5)",
        "update t set v = 6 where id = 0 and v = 0",
        "update t set v = 7 where id = 0",
    ] {
        let sql = cluster.nodes[0].sql();
        sql.query("begin").unwrap();
        let (sql, failure) = cancelled(sql, text);
        assert_eq!(failure.sqlstate.as_deref(), Some("57014"), "{text}: {failure:?}");
        let later = sql.query("select 1").unwrap_err();
        assert_eq!(later.sqlstate.as_deref(), Some("25P02"), "{text}: {later:?}");
        sql.query_within("rollback", PATIENCE).unwrap();
        let (sql, failure) = cancelled(sql, text);
        assert_eq!(failure.sqlstate.as_deref(), Some("08007"), "{text}: {failure:?}");
        told.push(format!("{failure:?}"));
        assert_eq!(sql.value("select v from t where id = 0").unwrap(), "0", "{text}");
    }
    assert!(told.iter().all(|words| *words == told[0]), "{told:?}");
    // What it has seen may be kept in the session itself: that one ends.
    let (sql, failure) = cancelled(
        cluster.nodes[0].sql(),
        "update t set v = 8 where id = 0 and v = 0 and set_config('application_name', v::text, false) = '0'",
    );
    assert_eq!(failure.sqlstate.as_deref(), Some("08007"), "{failure:?}");
    assert!(sql.query("select 1").is_err(), "the connection is closed");
    require("");
    wait_until("the commits to be shown", PATIENCE, || {
        control
            .value("select string_agg(id || ':' || v, ' ' order by id) from t")
            .unwrap()
            == "0:7 1:1"
    });
}

/// The timeout that held when the text came was that of all its statements.
fn statement_times() {
    let cluster = Cluster::start(0, &["synchronous_standby_names="]);
    let sql = cluster.nodes[0].sql();
    let late = sql
        .query_within("set statement_timeout = '100ms'; select pg_sleep(600)", PATIENCE)
        .unwrap_err();
    assert_eq!(late.sqlstate.as_deref(), Some("57014"), "{late:?}");
    sql.query("set statement_timeout = '1s'").unwrap();
    sql.query("set statement_timeout = 0; select pg_sleep(1.1)")
        .unwrap();
}

fn places_are_freed() {
    let cluster = Cluster::start(
        0,
        &[
            "synchronous_standby_names=",
            "max_connections=5",
            "superuser_reserved_connections=1",
            "authentication_timeout=1s",
        ],
    );
    let port = cluster.nodes[0].sql_port;
    for round in 0..10 {
        let mut crowd: Vec<Raw> = Vec::new();
        wait_until(&format!("five places in round {round}"), PATIENCE, || {
            crowd.extend(Raw::log_in(port));
            crowd.len() == 5
        });
        for (number, mut raw) in crowd.into_iter().enumerate() {
            if number % 2 == 0 {
                raw.send("select pg_sleep(600)").unwrap();
            }
            raw.reset();
        }
    }
    // A start-up packet that never ends, and one that never begins.
    for bytes in [&b"\0\0\0\x28\0\x03"[..], b""] {
        let mut slow = Raw::dial(port).unwrap();
        std::io::Write::write_all(&mut slow.socket, bytes).unwrap();
        let end = std::io::Read::read(&mut slow.socket, &mut [0; 64]);
        assert!(matches!(end, Ok(0)), "{end:?}");
    }
}

/// Resident memory in kilobytes and used processor time in ticks.
fn usage(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (
        resident.split_whitespace().nth(1).unwrap().parse().unwrap(),
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap(),
    )
}

fn unread_answer() {
    let cluster = Cluster::start(0, &["synchronous_standby_names=", "shared_buffers=16MB"]);
    let port = cluster.nodes[0].sql_port;
    let pid = cluster.nodes[0].pid().unwrap();
    let before = usage(pid).0;
    let mut readers: Vec<Raw> = Vec::new();
    for _ in 0..10 {
        let mut raw = Raw::log_in(port).unwrap();
        raw.send("select repeat('x', 1000) from generate_series(1, 300000)")
            .unwrap();
        readers.push(raw);
    }
    // 3 GB of answers: the node stops when the sockets are full. What it does all the same, now and then, is less than a tenth of a processor.
    let (mut ticks, mut since) = (0, Instant::now());
    wait_until("the node to stop sending", PATIENCE, || {
        let now = usage(pid).1;
        if now > ticks + 5 {
            (ticks, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(500)
    });
    let grown = usage(pid).0.saturating_sub(before);
    assert!(grown < 60_000, "ten unread answers hold {grown} kB");
    assert_eq!(cluster.nodes[0].sql().value("select 1").unwrap(), "1");
}
