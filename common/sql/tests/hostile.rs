//! What a client may try: circles, trees that multiply, more than memory holds, what its role may not do.
//! Each has brought the node, one of its threads or its passwords into somebody's hands once.
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write as _;

use support::local::{LocalPeer, Server};
use towline_base::SqlState;
use towline_sql::{Execution, SqlError};

/// Runs Bind and Execute of a prepared statement.
fn execute(peer: &mut LocalPeer, statement: &str) -> Result<Vec<String>, SqlError> {
    peer.session.bind("", statement, &[], &[], &[])?;
    again(peer, "", 0)
}

/// Runs Execute of a portal.
fn again(peer: &mut LocalPeer, portal: &str, max_rows: u32) -> Result<Vec<String>, SqlError> {
    let mut result = peer.session.execute(portal, max_rows, &mut peer.sink)?;
    while let Execution::Wait(wait) = result {
        assert!(wait.block(std::time::Duration::from_secs(60)).unwrap());
        result = peer.session.resume(&mut peer.sink)?;
    }
    Ok(std::mem::take(&mut peer.sink.lines))
}

fn refused(peer: &mut LocalPeer, text: &str, code: &str) {
    let answer = peer.run(text);
    let shown: String = text.chars().take(80).collect();
    let last = answer.last().unwrap();
    assert!(last.starts_with(&format!("ERROR {code}")), "{shown}: {last}");
}

/// By Parse, EXECUTE may be prepared like any statement: two of them executed each other for ever.
#[test]
fn statements_that_execute_each_other_come_to_an_end() {
    let server = Server::new();
    let mut peer = server.connect();
    peer.session.parse("a", "select 1", &[]).unwrap();
    peer.session.parse("b", "execute a", &[]).unwrap();
    assert_eq!(execute(&mut peer, "b").unwrap(), ["1", "SELECT 1"]);
    peer.session.close_statement("a");
    peer.session.parse("a", "execute b", &[]).unwrap();
    let error = execute(&mut peer, "a").unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::STATEMENT_TOO_COMPLEX);
}

/// It was gone with its last row, and a client that asked once more was told that it had never been.
#[test]
fn a_portal_that_has_ended_stays_until_its_transaction_ends() {
    let server = Server::new();
    let mut peer = server.connect();
    peer.run("create table t (a int)");
    peer.run("begin");
    for (name, text) in [
        ("rows", "select x from generate_series(1, 3) x"),
        ("change", "insert into t values (1), (2), (3) returning a"),
        ("silent", "insert into t values (4)"),
        ("shown", "show datestyle"),
        ("nothing", ""),
    ] {
        peer.session.parse(name, text, &[]).unwrap();
        peer.session.bind(name, name, &[], &[], &[]).unwrap();
    }
    assert_eq!(again(&mut peer, "rows", 2).unwrap(), ["1", "2", "SUSPENDED"]);
    assert_eq!(again(&mut peer, "rows", 2).unwrap(), ["3", "SELECT 1"]);
    assert_eq!(again(&mut peer, "rows", 2).unwrap(), ["SELECT 0"]);
    assert!(peer.session.describe_portal("rows").unwrap().is_some());
    assert_eq!(again(&mut peer, "change", 2).unwrap(), ["1", "2", "SUSPENDED"]);
    assert_eq!(again(&mut peer, "change", 2).unwrap(), ["3", "INSERT 0 1"]);
    assert_eq!(again(&mut peer, "change", 2).unwrap(), ["INSERT 0 0"]);
    assert_eq!(again(&mut peer, "shown", 0).unwrap(), ["ISO, MDY", "SHOW"]);
    assert_eq!(again(&mut peer, "shown", 0).unwrap(), ["SHOW"]);
    assert_eq!(again(&mut peer, "nothing", 0).unwrap(), ["EMPTY"]);
    assert_eq!(again(&mut peer, "nothing", 0).unwrap(), ["EMPTY"]);
    assert_eq!(again(&mut peer, "silent", 0).unwrap(), ["INSERT 0 1"]);
    let error = again(&mut peer, "silent", 0).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(error.message(), "portal \"silent\" cannot be run");
    peer.run("rollback");
    let error = again(&mut peer, "rows", 0).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::INVALID_CURSOR_NAME);
}

/// `around(core)`, with what is made as the next core, `times` times.
fn repeated(times: usize, mut core: String, around: impl Fn(String, usize) -> String) -> String {
    for time in 0..times {
        core = around(core, time);
    }
    core
}

/// Nesting was bounded, and so were chains; nested chains made trees so high that taking them down exhausted the stack.
#[test]
fn chains_within_chains_are_not_higher_than_one() {
    let server = Server::new();
    let mut peer = server.connect();
    peer.run("create table t (a int)");
    let sum = repeated(140, "1".into(), |core, _| {
        format!("({core}{})", " + 1".repeat(590))
    });
    let casts = repeated(140, "1".into(), |core, _| {
        format!("({core}{})", "::int".repeat(590))
    });
    let joins = repeated(140, "t t".into(), |core, level| {
        let mut joins = format!("({core}");
        for place in 0..140 {
            let _ = write!(joins, " cross join t t{level}_{place}");
        }
        joins + ")"
    });
    let mut right = "t a join t b".to_owned();
    for place in 0..20_000 {
        let _ = write!(right, " join t c{place} on true");
    }
    let unions = repeated(140, "select 1".into(), |core, _| {
        format!("({core}{})", " union all select 1".repeat(140))
    });
    for text in [
        format!("select {sum}"),
        format!("select {casts}"),
        format!("select * from {joins}"),
        format!("select * from {right} on true"),
        unions,
        format!("create {}table t (a int)", "or replace ".repeat(100_000)),
        format!("prepare p as select {sum}"),
        format!("explain select {sum}"),
    ] {
        let answer = peer.run(&text);
        let last = answer.last().unwrap();
        assert!(
            last.starts_with("ERROR 54001") || last.starts_with("ERROR 42601"),
            "{last}"
        );
    }
    // As high as a tree may be.
    let long = format!("select {}1{}", "(".repeat(100), " + 1)".repeat(100));
    assert_eq!(peer.run(&long), ["101", "SELECT 1"]);
    let long = format!("select 1{}", " + 1".repeat(599));
    assert_eq!(peer.run(&long), ["600", "SELECT 1"]);
    let both = format!(
        "select ((1{}){}){}",
        " + 1".repeat(300),
        " + 1".repeat(200),
        " + 1".repeat(90)
    );
    assert_eq!(peer.run(&both), ["591", "SELECT 1"]);
    let unions = format!(
        "select count(*) from (select 1{}) x",
        " union all select 1".repeat(140)
    );
    assert_eq!(peer.run(&unions), ["141", "SELECT 1"]);
}

/// Each WITH entry names the one before it twice: it was bound for each of its names, a thousand million times for thirty lines.
#[test]
fn trees_that_double_at_every_level_are_refused() {
    let server = Server::new();
    let mut peer = server.connect();
    let mut with = "with w0 as (select 1 c)".to_owned();
    for level in 1..60 {
        let below = level - 1;
        let _ = write!(with, ", w{level} as (select 1 c from w{below} a, w{below} b)");
    }
    let between = repeated(60, "1".into(), |core, _| format!("({core} between 0 and 2)::int"));
    let symmetric = repeated(40, "1".into(), |core, _| {
        format!("({core} between symmetric 0 and 2)::int")
    });
    let case = repeated(60, "1".into(), |core, _| {
        format!("case {core} when 1 then 1 when 2 then 2 when 3 then 3 end")
    });
    let row = repeated(60, "true".into(), |core, _| format!("(({core}, 1) < (true, 2))"));
    for text in [
        format!("{with} select 1 from w59"),
        format!("select {between}"),
        format!("select {symmetric}"),
        format!("select {case}"),
        format!("select {row}"),
    ] {
        refused(&mut peer, &text, "54001");
    }
    // What people write is far from it.
    let mut with = "with w as (select 1 c)".to_owned();
    let _ = write!(with, " select count(*) from w a0");
    for place in 1..50 {
        let _ = write!(with, ", w a{place}");
    }
    assert_eq!(peer.run(&with), ["1", "SELECT 1"]);
}

/// Each row was compared with all before it, to say which one was wrong.
#[test]
fn a_wrong_row_among_many_is_found_in_time() {
    let server = Server::new();
    let mut peer = server.connect();
    let text = format!("values {} ('x'::text)", "(1), ".repeat(200_000));
    refused(&mut peer, &text, "42804");
}

/// The planner has a bit for each.
#[test]
fn a_query_has_no_more_items_in_from_than_the_planner_can_tell_apart() {
    let server = Server::new();
    let mut peer = server.connect();
    let from = |count: usize| {
        let items: Vec<String> = (0..count)
            .map(|place| format!("generate_series(1, 1) a{place}"))
            .collect();
        format!("select count(*) from {}", items.join(", "))
    };
    assert_eq!(peer.run(&from(120)), ["1", "SELECT 1"]);
    refused(&mut peer, &from(121), "54000");
}

/// Aggregates kept what they were given without counting it, and what was kept in a subquery counted for ever.
#[test]
fn what_a_statement_keeps_is_counted_and_what_it_lets_go_is_not() {
    let server = Server::new();
    let mut peer = server.connect();
    // The rows share one text: it is the count that is tested, not the machine.
    refused(
        &mut peer,
        "select array_agg(t) from (select repeat('x', 1000000) t) s, generate_series(1, 2000)",
        "53200",
    );
    refused(
        &mut peer,
        "select string_agg(t, '' order by i) from (select repeat('x', 1000000) t) s, generate_series(1, 2000) i",
        "53200",
    );
    let run_anew = |inner: &str| {
        format!(
            "select count(*) from (select repeat('x', 1000000) t) s, generate_series(1, 1100) i
             where (select count(*) from ({inner}) g) > 0"
        )
    };
    for inner in [
        "select t where i > 0 group by t",
        "select distinct t where i > 0",
        "select t where i > 0 intersect select t",
    ] {
        assert_eq!(peer.run(&run_anew(inner)), ["1100", "SELECT 1"], "{inner}");
    }
    refused(
        &mut peer,
        r"select length(regexp_replace(repeat('a', 1000000), '(a+)', repeat('\1', 300)))",
        "54000",
    );
    // Once the time that a template took was the square of its length.
    assert_eq!(
        peer.run("select length(to_char(now(), repeat('x', 300000)))"),
        ["300000", "SELECT 1"]
    );
}

/// Whoever could log in could make itself, and then a password of the superuser.
#[test]
fn a_role_does_what_it_may_and_no_more() {
    let server = Server::new();
    let mut admin = server.connect();
    admin.run("create role ann login");
    admin.run("create role bob login createrole");
    let mut ann = server.connect_as("ann");
    let pid = admin.session.handle().pid();
    for (text, said) in [
        ("alter role ann createrole", "permission denied"),
        ("alter role ann nologin password 'x'", "permission denied"),
        ("alter role ann superuser", "must be superuser to alter"),
        ("alter role bob password 'x'", "permission denied"),
        (
            "alter role postgres password 'x'",
            "must be superuser to alter superuser",
        ),
        ("create role eve", "permission denied to create role"),
        ("drop role bob", "permission denied to drop role"),
        (
            "select rolpassword from pg_authid",
            "permission denied for table pg_authid",
        ),
        (
            "copy pg_authid to stdout",
            "permission denied for table pg_authid",
        ),
        (
            "create table stolen as select * from pg_authid",
            "permission denied for table pg_authid",
        ),
        (
            "select (select max(rolpassword) from pg_authid)",
            "permission denied for table pg_authid",
        ),
        (
            "select pg_reload_conf()",
            "permission denied for function pg_reload_conf",
        ),
        ("checkpoint", "must be superuser"),
        ("alter system set work_mem = '1MB'", "permission denied"),
    ] {
        let answer = ann.run(text);
        let last = answer.last().unwrap();
        assert!(
            last.starts_with("ERROR 42501") && last.contains(said),
            "{text}: {last}"
        );
    }
    for function in ["pg_cancel_backend", "pg_terminate_backend"] {
        refused(&mut ann, &format!("select {function}({pid})"), "42501");
    }
    assert_eq!(ann.run("alter role ann password 'mine'"), ["ALTER ROLE"]);
    assert_eq!(
        ann.run("select rolname from pg_roles where rolname = 'ann'"),
        ["ann", "SELECT 1"]
    );
    let mut bob = server.connect_as("bob");
    for text in [
        "alter role postgres password 'x'",
        "alter role bob superuser",
        "create role eve superuser",
        "create role eve replication",
        "drop role postgres",
    ] {
        refused(&mut bob, text, "42501");
    }
    assert_eq!(bob.run("create role carol login password 'x'"), ["CREATE ROLE"]);
    assert_eq!(bob.run("alter role carol password 'y'"), ["ALTER ROLE"]);
    let own = ann.session.handle().pid();
    let mut other = server.connect_as("ann");
    assert_eq!(
        other.run(&format!("select pg_cancel_backend({own})")),
        ["t", "SELECT 1"]
    );
}
