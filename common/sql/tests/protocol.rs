//! The extended protocol's calls: portals that pause, plans that outlive definitions, errors that end what they must.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::local::{LocalPeer, Server};
use support::script::Peer;
use towline_base::SqlState;
use towline_sql::{Execution, SqlError};

/// Runs Bind and Execute of a prepared statement with text parameters; the rows and the tag.
fn execute(peer: &mut LocalPeer, statement: &str, params: &[&str]) -> Result<Vec<String>, SqlError> {
    let params: Vec<Option<&[u8]>> = params.iter().map(|param| Some(param.as_bytes())).collect();
    peer.session.bind("", statement, &[], &params, &[])?;
    let result = peer.session.execute("", 0, &mut peer.sink)?;
    finish(peer, result)?;
    Ok(std::mem::take(&mut peer.sink.lines))
}

fn sync(peer: &mut LocalPeer) {
    let result = peer.session.sync(&mut peer.sink).unwrap();
    finish(peer, result).unwrap();
}

/// Awaits what the engine asks for, as a connection does. Relation locks fall on another thread just after their commit is visible, so
/// that also the next statement of the same session may have to wait for them.
fn finish(peer: &mut LocalPeer, mut result: Execution) -> Result<(), SqlError> {
    while let Execution::Wait(wait) = result {
        assert!(wait.block(Duration::from_secs(60)).unwrap());
        result = peer.session.resume(&mut peer.sink)?;
    }
    assert!(matches!(result, Execution::Complete), "{result:?}");
    Ok(())
}

#[test]
fn a_portal_pauses_after_max_rows_and_goes_on() {
    let server = Server::new();
    let mut peer = server.connect();
    peer.session
        .parse("", "select x from generate_series(1, 5) x", &[])
        .unwrap();
    peer.session.bind("p", "", &[], &[], &[]).unwrap();
    let shape = peer.session.describe_portal("p").unwrap().unwrap();
    assert_eq!((shape.fields.len(), shape.fields[0].type_oid), (1, 23));
    for expected in [
        vec!["1", "2", "SUSPENDED"],
        vec!["3", "4", "SUSPENDED"],
        vec!["5", "SELECT 1"],
    ] {
        let result = peer.session.execute("p", 2, &mut peer.sink).unwrap();
        let suspended = expected.last() == Some(&"SUSPENDED");
        assert_eq!(matches!(result, Execution::Suspended), suspended);
        assert_eq!(std::mem::take(&mut peer.sink.lines), expected);
    }
    sync(&mut peer);
    assert_eq!(
        peer.session.describe_portal("p").unwrap_err().sqlstate(),
        SqlState::INVALID_CURSOR_NAME
    );
}

#[test]
fn parameters_get_their_types_from_use_and_are_checked() {
    let server = Server::new();
    let mut peer = server.connect();
    peer.run("create table t (a int primary key, b text)");
    peer.session
        .parse("ins", "insert into t values ($1, $2)", &[])
        .unwrap();
    let description = peer.session.describe_statement("ins").unwrap();
    assert_eq!(description.params, [23, 25]);
    assert!(description.rows.is_none());
    assert_eq!(execute(&mut peer, "ins", &["1", "one"]).unwrap(), ["INSERT 0 1"]);
    sync(&mut peer);
    assert_eq!(
        execute(&mut peer, "ins", &["x", "one"]).unwrap_err().sqlstate(),
        SqlState::INVALID_TEXT_REPRESENTATION
    );
    sync(&mut peer);
    assert_eq!(
        execute(&mut peer, "ins", &["1"]).unwrap_err().sqlstate(),
        SqlState::PROTOCOL_VIOLATION
    );
    sync(&mut peer);
    assert_eq!(
        execute(&mut peer, "ins", &["1", "two"]).unwrap_err().sqlstate(),
        SqlState::UNIQUE_VIOLATION
    );
    sync(&mut peer);
    let error = peer.session.parse("", "select $1", &[0]).err();
    assert!(error.is_none(), "an undecided parameter of a select list is text");
    sync(&mut peer);
    assert_eq!(peer.run("select * from t"), ["1|one", "SELECT 1"]);
}

#[test]
fn a_binary_parameter_and_result_use_the_short_way_too() {
    let server = Server::new();
    let mut peer = server.connect();
    peer.run("create table t (a int primary key, b int8); insert into t values (7, 70), (8, null)");
    peer.session
        .parse("get", "select b from t where a = $1", &[])
        .unwrap();
    for (key, expected) in [(7i32, Some(70i64)), (8, None)] {
        let bytes = key.to_be_bytes();
        peer.session.bind("", "get", &[1], &[Some(&bytes)], &[1]).unwrap();
        let result = peer.session.execute("", 0, &mut peer.sink).unwrap();
        finish(&mut peer, result).unwrap();
        let lines = std::mem::take(&mut peer.sink.lines);
        let shown = expected.map_or("NULL".to_owned(), |value| {
            String::from_utf8_lossy(&value.to_be_bytes()).into_owned()
        });
        assert_eq!(lines, [shown, "SELECT 1".to_owned()]);
    }
    assert_eq!(execute(&mut peer, "get", &["9"]).unwrap(), ["SELECT 0"]);
    sync(&mut peer);
}

#[test]
fn a_prepared_statement_follows_the_table_it_was_made_for() {
    let server = Server::new();
    let mut peer = server.connect();
    peer.run("create table t (a int, b int); insert into t select i, i * 2 from generate_series(1, 100) i");
    peer.session
        .parse("get", "select b from t where a = $1", &[])
        .unwrap();
    assert_eq!(execute(&mut peer, "get", &["5"]).unwrap(), ["10", "SELECT 1"]);
    sync(&mut peer);
    peer.run("alter table t add primary key (a)");
    assert_eq!(execute(&mut peer, "get", &["5"]).unwrap(), ["10", "SELECT 1"]);
    sync(&mut peer);
    peer.run("drop table t; create table t (a int, b text); insert into t values (5, 'new')");
    let error = execute(&mut peer, "get", &["5"]).unwrap_err();
    assert_eq!(error.message(), "cached plan must not change result type");
    sync(&mut peer);
    peer.run("drop table t");
    assert_eq!(
        execute(&mut peer, "get", &["5"]).unwrap_err().sqlstate(),
        SqlState::UNDEFINED_TABLE
    );
    sync(&mut peer);
}

#[test]
fn an_error_rolls_back_everything_since_the_last_sync() {
    let server = Server::new();
    let mut peer = server.connect();
    peer.run("create table t (a int primary key)");
    peer.session
        .parse("ins", "insert into t values ($1)", &[])
        .unwrap();
    execute(&mut peer, "ins", &["1"]).unwrap();
    execute(&mut peer, "ins", &["2"]).unwrap();
    assert_eq!(
        execute(&mut peer, "ins", &["1"]).unwrap_err().sqlstate(),
        SqlState::UNIQUE_VIOLATION
    );
    assert_eq!(peer.session.transaction_status(), b'I');
    sync(&mut peer);
    assert_eq!(peer.run("select count(*) from t"), ["0", "SELECT 1"]);
}

#[test]
fn a_wait_that_was_given_up_undoes_its_statement_only_after_resume() {
    let server = Server::new();
    let (mut holder, mut waiter) = (server.connect(), server.connect());
    holder.run("create table t (a int primary key, b int); insert into t values (1, 1)");
    holder.run("begin; update t set b = 2 where a = 1");
    waiter.run("begin");
    let result = waiter
        .session
        .simple_query("update t set b = 3 where a = 1", &mut waiter.sink)
        .unwrap();
    assert!(matches!(result, Execution::Wait(_)), "{result:?}");
    drop(result);
    waiter.session.interrupt(SqlError::new(
        SqlState::QUERY_CANCELED,
        "canceling statement due to user request",
    ));
    let error = waiter.session.resume(&mut waiter.sink).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::QUERY_CANCELED);
    assert_eq!(waiter.session.transaction_status(), b'E');
    waiter.sink.lines.clear();
    waiter.run("rollback");
    holder.run("commit");
    assert_eq!(waiter.run("select b from t"), ["2", "SELECT 1"]);
}

/// All statements of a text ran in one call: whoever keeps the time saw what was set before the first of them.
#[test]
fn between_the_statements_of_a_text_their_time_begins_anew() {
    let server = Server::new();
    let mut peer = server.connect();
    let (session, sink) = (&mut peer.session, &mut peer.sink);
    let text = "set statement_timeout = '100ms'; select pg_sleep(5); set statement_timeout = 0; select 1";
    for (begun, expected) in [(0, 100), (100, 100), (100, 0)] {
        assert_eq!(session.statement_timeout(), begun);
        let mut result = match begun {
            0 => session.simple_query(text, sink),
            _ => session.resume(sink),
        };
        if let Ok(Execution::Sleep(_)) = result {
            result = session.resume(sink);
        }
        assert!(matches!(result, Ok(Execution::Next)), "{result:?}");
        assert_eq!(session.statement_timeout(), expected);
    }
    assert!(matches!(session.resume(sink), Ok(Execution::Complete)));
}

#[test]
fn copy_takes_data_in_any_pieces() {
    let server = Server::new();
    let mut peer = server.connect();
    peer.run("create table t (a int, b text)");
    let mut result = peer
        .session
        .simple_query("copy t from stdin", &mut peer.sink)
        .unwrap();
    // The lock of CREATE TABLE may still be there.
    while let Execution::Wait(wait) = result {
        assert!(wait.block(Duration::from_secs(60)).unwrap());
        result = peer.session.resume(&mut peer.sink).unwrap();
    }
    assert!(matches!(result, Execution::CopyIn(_)), "{result:?}");
    // An escape and what it escapes come apart, too: a newline behind a backslash belonged to no line.
    for byte in b"1\tone\\ttab\n2\t\\N\r\n3\tthree\\\nlines\n" {
        peer.session.copy_data(&[*byte]).unwrap();
        let result = peer.session.resume(&mut peer.sink).unwrap();
        assert!(matches!(result, Execution::CopyIn(_)), "{result:?}");
    }
    peer.session.copy_done().unwrap();
    let mut result = peer.session.resume(&mut peer.sink).unwrap();
    while let Execution::Wait(wait) = result {
        assert!(wait.block(Duration::from_secs(60)).unwrap());
        result = peer.session.resume(&mut peer.sink).unwrap();
    }
    peer.sink.lines.clear();
    assert_eq!(
        peer.run("copy t to stdout"),
        [
            "copy: 1\tone\\ttab",
            "copy: 2\t\\N",
            "copy: 3\tthree\\nlines",
            "COPY 3"
        ]
    );
    peer.send("copy t to stdout (format csv, header)");
    assert_eq!(
        peer.answer(Duration::from_secs(60)).unwrap(),
        [
            "copy: a,b",
            "copy: 1,one\ttab",
            "copy: 2,",
            "copy: 3,\"three\nlines\"",
            "COPY 3"
        ]
    );
}

#[test]
fn an_asynchronous_commit_is_seen_by_the_next_statement_of_its_session() {
    // It was answered before it was released: behind an earlier commit that waits for its flush, the session's next
    // snapshot did not have it.
    let server = Server::new();
    let (mut one, mut two) = (server.connect(), server.connect());
    one.run("create table t (a int primary key, b int); insert into t values (1, 0), (2, 0)");
    two.run("set synchronous_commit = off");
    for round in 1..=50 {
        // A commit that is inserted and not yet waited for.
        let pending = one
            .session
            .simple_query("update t set b = b + 1 where a = 1", &mut one.sink)
            .unwrap();
        two.run("update t set b = b + 1 where a = 2");
        assert_eq!(
            two.run("select b from t where a = 2"),
            [round.to_string(), "SELECT 1".to_owned()]
        );
        let mut result = pending;
        while let Execution::Wait(wait) = result {
            assert!(wait.block(Duration::from_secs(60)).unwrap());
            result = one.session.resume(&mut one.sink).unwrap();
        }
        one.sink.lines.clear();
    }
}

/// What a statement answers when it is sent as a text of its own, and when it is parsed anew each time.
fn parsed(peer: &mut LocalPeer, text: &str) -> Vec<String> {
    peer.session.parse("", text, &[]).unwrap();
    let lines = execute(peer, "", &[]).unwrap();
    sync(peer);
    lines
}

#[test]
fn a_text_sent_again_is_read_as_if_it_were_new() {
    let server = Server::new();
    let mut peer = server.connect();
    let today = "select 'now'::timestamptz = now()";
    for _ in 0..3 {
        assert_eq!(peer.run(today), ["t", "SELECT 1"]);
        assert_eq!(parsed(&mut peer, today), ["t", "SELECT 1"]);
    }
    peer.run("create table t (a int primary key)");
    peer.run("insert into t values (7)");
    let all = "select * from t where a = 7";
    for _ in 0..3 {
        assert_eq!(peer.run(all), ["7", "SELECT 1"]);
        assert_eq!(parsed(&mut peer, all), ["7", "SELECT 1"]);
    }
    // Another shape: a statement that is parsed now has it.
    peer.run("drop table t");
    peer.run("create table t (a int primary key, b text default 'x')");
    peer.run("insert into t values (7)");
    for _ in 0..3 {
        assert_eq!(peer.run(all), ["7|x", "SELECT 1"]);
        assert_eq!(parsed(&mut peer, all), ["7|x", "SELECT 1"]);
    }
}

#[test]
fn a_plan_does_not_outlive_the_settings_it_was_made_with() {
    let server = Server::new();
    let mut peer = server.connect();
    peer.run("create table t (a int primary key)");
    peer.run("insert into t values (7)");
    peer.session.parse("all", "select * from t", &[]).unwrap();
    peer.session
        .parse("zone", "select '2026-01-01 12:00'::timestamptz::text", &[])
        .unwrap();
    for text in ["select * from t where a = 7"; 3] {
        assert_eq!(peer.run(text), ["7", "SELECT 1"]);
    }
    assert_eq!(execute(&mut peer, "all", &[]).unwrap(), ["7", "SELECT 1"]);
    peer.run("begin");
    peer.run("set local search_path to nowhere");
    peer.run("set local timezone to 'Asia/Tokyo'");
    assert_eq!(
        execute(&mut peer, "zone", &[]).unwrap(),
        ["2026-01-01 12:00:00+09", "SELECT 1"]
    );
    assert_eq!(
        execute(&mut peer, "all", &[]).unwrap_err().sqlstate(),
        SqlState::UNDEFINED_TABLE
    );
    peer.run("rollback");
    assert_eq!(execute(&mut peer, "all", &[]).unwrap(), ["7", "SELECT 1"]);
    sync(&mut peer);
    peer.run("set search_path to nowhere");
    assert!(peer.run("select * from t where a = 7")[0].contains("42P01"));
}

/// The answer of a statement and what it left in the table, in one transaction of its own.
fn outcome(peer: &mut LocalPeer, result: Result<Vec<String>, SqlError>) -> Vec<String> {
    let mut lines =
        result.unwrap_or_else(|error| vec![error.sqlstate().code().to_owned(), error.message().to_owned()]);
    sync(peer);
    lines.extend(peer.run("select * from t order by a, b, c"));
    lines
}

#[test]
fn a_change_by_key_does_the_same_the_first_time_and_every_further_time() {
    let statements = [
        "insert into t values ($1, $2, 0)",
        "insert into t (a, b) values ($1, $2) returning b, c, a + 1",
        "update t set c = c + 1, b = $2 where a = $1",
        "update t set a = a + 10, b = $2 where a = $1 returning a, b, c",
        "delete from t where a = $1 and b <> $2",
        "delete from t where a = $1 and $2 <> '' returning b",
    ];
    let params = [
        ("1", "one"),
        ("1", "again"),
        ("2", "two"),
        ("-3", "none"),
        ("2", "two"),
        ("11", "eleven"),
        ("1", "1"),
    ];
    let tables = || {
        let server = Server::new();
        let mut peer = server.connect();
        peer.run("create table t (a int primary key, b text not null, c int default 5)");
        peer.run("create unique index on t (b)");
        (server, peer)
    };
    let (_first, mut kept) = tables();
    let (_second, mut fresh) = tables();
    for (number, text) in statements.iter().enumerate() {
        kept.session.parse(&number.to_string(), text, &[]).unwrap();
    }
    for round in 0..3 {
        for (number, text) in statements.iter().enumerate() {
            for (a, b) in params {
                let again = execute(&mut kept, &number.to_string(), &[a, b]);
                let again = outcome(&mut kept, again);
                // The text differs each time, so that nothing of the time before is used.
                let text = format!("{text} /* {round} {a} {b} */");
                fresh.session.parse("", &text, &[]).unwrap();
                let new = execute(&mut fresh, "", &[a, b]);
                let new = outcome(&mut fresh, new);
                assert_eq!(again, new, "{text} with {a}, {b}");
            }
        }
    }
    // NULL where none may be, by a statement that has run well before.
    for peer in [&mut kept, &mut fresh] {
        peer.session
            .parse("null", "insert into t values ($1, nullif($2, 'x'))", &[])
            .unwrap();
        assert_eq!(execute(peer, "null", &["50", "y"]).unwrap(), ["INSERT 0 1"]);
        sync(peer);
        let error = execute(peer, "null", &["51", "x"]).unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::NOT_NULL_VIOLATION);
        sync(peer);
        assert_eq!(execute(peer, "null", &["51", "z"]).unwrap(), ["INSERT 0 1"]);
        sync(peer);
    }
}

#[test]
fn a_change_by_key_that_runs_again_waits_for_its_row_and_looks_at_the_newest_version() {
    let server = Server::new();
    let (mut holder, mut waiter) = (server.connect(), server.connect());
    holder.run("create table t (a int primary key, b int)");
    holder.run("insert into t values (1, 1), (2, 2)");
    waiter
        .session
        .parse("u", "update t set b = b + 1 where a = $1 and b < 100", &[])
        .unwrap();
    assert_eq!(execute(&mut waiter, "u", &["2"]).unwrap(), ["UPDATE 1"]);
    sync(&mut waiter);
    for (theirs, tag, after) in [
        ("update t set b = 10 where a = 1", "UPDATE 1", "11"),
        ("update t set b = 50 where a = 1", "UPDATE 1", "51"),
        ("update t set b = 100 where a = 1", "UPDATE 0", "100"),
    ] {
        holder.run("begin");
        holder.run(theirs);
        waiter.session.bind("", "u", &[], &[Some(b"1")], &[]).unwrap();
        let result = waiter.session.execute("", 0, &mut waiter.sink).unwrap();
        let Execution::Wait(wait) = result else {
            panic!("{result:?}")
        };
        holder.run("commit");
        assert!(wait.block(Duration::from_secs(60)).unwrap());
        let result = waiter.session.resume(&mut waiter.sink).unwrap();
        assert!(matches!(result, Execution::Complete), "{result:?}");
        assert_eq!(std::mem::take(&mut waiter.sink.lines), [tag]);
        sync(&mut waiter);
        assert_eq!(holder.run("select b from t where a = 1"), [after, "SELECT 1"]);
    }
    // REPEATABLE READ does not look at the newest version: 40001.
    waiter.run("begin isolation level repeatable read");
    assert_eq!(waiter.run("select b from t where a = 2"), ["3", "SELECT 1"]);
    holder.run("update t set b = 7 where a = 2");
    let error = execute(&mut waiter, "u", &["2"]).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::SERIALIZATION_FAILURE);
    waiter.run("rollback");
    assert_eq!(execute(&mut waiter, "u", &["2"]).unwrap(), ["UPDATE 1"]);
    sync(&mut waiter);
    assert_eq!(holder.run("select b from t where a = 2"), ["8", "SELECT 1"]);
    // A transaction that may not write.
    waiter.run("begin read only");
    let error = execute(&mut waiter, "u", &["2"]).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::READ_ONLY_SQL_TRANSACTION);
    waiter.run("rollback");
    // A table made anew under the same name.
    holder.run("drop table t");
    holder.run("create table t (x text, a int primary key, b int)");
    holder.run("insert into t values ('new', 2, 1)");
    assert_eq!(execute(&mut waiter, "u", &["2"]).unwrap(), ["UPDATE 1"]);
    sync(&mut waiter);
    assert_eq!(holder.run("select * from t"), ["new|2|2", "SELECT 1"]);
}

/// It was accepted, and from then on every statement of the session failed, RESET as well.
#[test]
fn a_default_isolation_that_is_not_built_is_refused_where_it_is_set() {
    let server = Server::new();
    let mut peer = server.connect();
    for statement in [
        "set default_transaction_isolation = 'serializable'",
        "set default_transaction_isolation to Serializable",
        "select set_config('default_transaction_isolation', 'serializable', false)",
        "set session characteristics as transaction isolation level serializable",
        "begin isolation level serializable",
    ] {
        let answer = peer.run(statement);
        let refused = "ERROR 0A000: isolation level SERIALIZABLE is not supported";
        assert!(
            answer.iter().any(|line| line.starts_with(refused)),
            "{statement}: {answer:?}"
        );
        peer.run("rollback");
        assert_eq!(
            peer.run("show default_transaction_isolation"),
            ["read committed", "SHOW"],
            "{statement}"
        );
    }
}

/// The name was taken as it was, shown by SHOW, and times went on in the zone before it.
#[test]
fn an_unknown_time_zone_is_refused_and_a_known_one_counts() {
    let server = Server::new();
    let mut peer = server.connect();
    for name in [
        "set timezone = 'nosuch'",
        "set time zone 'Mars/Olympus'",
        "select set_config('TimeZone', 'x', false)",
    ] {
        let answer = peer.run(name);
        assert!(
            answer
                .iter()
                .any(|line| line.contains("22023: invalid value for parameter \"TimeZone\"")),
            "{answer:?}"
        );
    }
    for (zone, hour) in [
        ("'Asia/Tokyo'", "09"),
        ("'utc'", "00"),
        ("3", "03"),
        ("local", "00"),
        ("default", "00"),
    ] {
        peer.run(&format!("set time zone {zone}"));
        let shown = peer.run("select substring((timestamptz '2020-01-01 00:00:00+00')::text from 12 for 2)");
        assert_eq!(shown[0], hour, "{zone}");
    }
}
