//! How deep statements may nest: as deep as in PostgreSQL 15 with its default of max_stack_depth, and never so deep that a stack is
//! exhausted. A sum of a thousand terms was refused once, and so was the two hundredth parenthesis.
#![allow(clippy::unwrap_used)]

mod support;

use support::local::{LocalPeer, Server};
use towline_sql::{Execution, SqlError};

/// A way in which statements nest.
struct Kind {
    name: &'static str,
    /// Levels that must be accepted.
    levels: usize,
    text: fn(usize) -> String,
}

fn around(levels: usize, before: &str, core: &str, after: &str) -> String {
    format!("{}{core}{}", before.repeat(levels), after.repeat(levels))
}

fn chain(levels: usize, core: &str, term: &str) -> String {
    format!("{core}{}", term.repeat(levels))
}

const KINDS: &[Kind] = &[
    Kind {
        name: "a sum",
        levels: 5_000,
        text: |n| format!("select {}", chain(n, "1", " + 1")),
    },
    Kind {
        name: "a sum over a column",
        levels: 5_000,
        text: |n| format!("select {} from t", chain(n, "a", " + 1")),
    },
    Kind {
        name: "operators of several powers",
        levels: 5_000,
        text: |n| format!("select {}", chain(n / 2, "1", " * 1 + 1")),
    },
    Kind {
        name: "concatenations",
        levels: 5_000,
        text: |n| format!("select length({})", chain(n, "'a'", " || 'b'")),
    },
    Kind {
        name: "casts",
        levels: 5_000,
        text: |n| format!("select {}", chain(n, "1", "::int")),
    },
    Kind {
        name: "casts that do something",
        levels: 5_000,
        text: |n| format!("select {} from t", chain(n / 2, "a", "::text::int")),
    },
    Kind {
        name: "or",
        levels: 10_000,
        text: |n| format!("select count(*) from t where {}", chain(n, "a = 0", " or a = 1")),
    },
    Kind {
        name: "and",
        levels: 10_000,
        text: |n| format!("select count(*) from t where {}", chain(n, "a = 1", " and a < 2")),
    },
    Kind {
        name: "a list of values",
        levels: 20_000,
        text: |n| format!("select count(*) from t where a in ({})", chain(n, "0", ", 1")),
    },
    Kind {
        name: "tests of tests",
        levels: 5_000,
        text: |n| format!("select {}", chain(n, "true", " is not null")),
    },
    Kind {
        name: "not",
        levels: 2_000,
        text: |n| format!("select {}true", "not ".repeat(n)),
    },
    Kind {
        name: "signs",
        levels: 2_000,
        text: |n| format!("select {}a from t", "- ".repeat(n)),
    },
    Kind {
        name: "parentheses",
        levels: 2_000,
        text: |n| format!("select {}", around(n, "(", "1", ")")),
    },
    Kind {
        name: "sums in parentheses to the right",
        levels: 2_000,
        text: |n| format!("select {}", around(n, "(a + ", "1", ")") + " from t"),
    },
    Kind {
        name: "and and or in parentheses",
        levels: 1_000,
        text: |n| {
            let condition = around(n, "(a = 1 and (a = 2 or ", "a = 1", "))");
            format!("select count(*) from t where {condition}")
        },
    },
    Kind {
        name: "CASE in THEN",
        levels: 1_000,
        text: |n| {
            format!(
                "select {} from t",
                around(n, "case when a = 1 then ", "1", " end")
            )
        },
    },
    Kind {
        name: "CASE in ELSE",
        levels: 1_000,
        text: |n| {
            format!(
                "select {} from t",
                around(n, "case a when 2 then 0 else ", "1", " end")
            )
        },
    },
    Kind {
        name: "calls",
        levels: 1_000,
        text: |n| format!("select {} from t", around(n, "abs(", "a", ")")),
    },
    Kind {
        name: "COALESCE",
        levels: 1_000,
        text: |n| format!("select {} from t", around(n, "coalesce(null, ", "a", ")")),
    },
    Kind {
        name: "NULLIF and GREATEST",
        levels: 1_000,
        text: |n| {
            format!(
                "select {} from t",
                around(n / 2, "nullif(greatest(", "a", ", 1), 2)")
            )
        },
    },
    Kind {
        name: "subqueries",
        levels: 1_000,
        text: |n| format!("select {}", around(n, "(select ", "1", ")")),
    },
    Kind {
        name: "subqueries that look outside",
        levels: 500,
        text: |n| format!("select {} from t", around(n, "(select a + ", "1", ")")),
    },
    Kind {
        name: "EXISTS",
        levels: 500,
        text: |n| {
            format!(
                "select 1 where {}",
                around(n, "exists (select 1 from t where ", "true", ")")
            )
        },
    },
    Kind {
        name: "IN of a query",
        levels: 500,
        text: |n| {
            format!(
                "select count(*) from t where {}",
                around(n, "a in (select a from t where ", "true", ")")
            )
        },
    },
    Kind {
        name: "derived tables",
        levels: 500,
        text: |n| format!("select * from {}", around(n, "(select * from ", "t", ") x")),
    },
    Kind {
        name: "LATERAL",
        levels: 300,
        text: |n| {
            format!(
                "select * from t, lateral {}",
                around(n, "(select x.* from t u, lateral ", "(select a) x", ") x")
            )
        },
    },
    Kind {
        name: "queries in parentheses",
        levels: 1_000,
        text: |n| around(n, "(", "select 1", ")"),
    },
    Kind {
        name: "UNION ALL",
        levels: 1_000,
        text: |n| {
            format!(
                "select count(*) from ({}) x",
                chain(n, "select 1", " union all select 1")
            )
        },
    },
    Kind {
        name: "UNION",
        levels: 1_000,
        text: |n| chain(n, "select 1", " union select 1"),
    },
    Kind {
        name: "EXCEPT to the right",
        levels: 500,
        text: |n| around(n, "select 1 except (", "select 2", ")"),
    },
    Kind {
        name: "WITH in WITH",
        levels: 500,
        text: |n| around(n, "with x as (", "select 1", ") select * from x"),
    },
    Kind {
        name: "WITH that names the one before",
        levels: 200,
        text: |n| {
            let mut text = "with w0 as (select 1 c)".to_owned();
            for level in 0..n {
                text += &format!(", w{} as (select c from w{level})", level + 1);
            }
            format!("{text} select * from w{n}")
        },
    },
    Kind {
        name: "joins in parentheses",
        levels: 100,
        text: |n| {
            let mut text = "t t0 cross join t".to_owned();
            for level in 0..n {
                text = format!("({text}) cross join t t{}", level + 1);
            }
            format!("select count(*) from {text}")
        },
    },
    Kind {
        name: "an aggregate's argument",
        levels: 5_000,
        text: |n| {
            let sum = chain(n, "a", " + 1");
            format!("select sum({sum}), max({sum}) from t")
        },
    },
    Kind {
        name: "a group's key",
        levels: 5_000,
        text: |n| {
            let sum = chain(n, "a", " + 1");
            format!("select {sum} + 1 from t group by {sum} order by {sum}")
        },
    },
    Kind {
        name: "rows",
        levels: 1_600,
        text: |n| format!("select ({}) < ({})", chain(n, "1", ", 1"), chain(n, "1", ", 1")),
    },
    Kind {
        name: "BETWEEN of a sum",
        levels: 5_000,
        text: |n| format!("select {} between 0 and 1", chain(n, "1", " + 1")),
    },
    Kind {
        name: "an update",
        levels: 5_000,
        text: |n| format!("update t set a = {} where a = -1", chain(n, "a", " + 1")),
    },
];

fn answer(peer: &mut LocalPeer, text: &str) -> Result<Vec<String>, String> {
    let lines = peer.run(text);
    match lines.last() {
        Some(last) if last.starts_with("ERROR") => Err(last.clone()),
        _ => Ok(lines),
    }
}

/// Runs a text by Parse, Bind and Execute.
fn prepared(peer: &mut LocalPeer, name: &str, text: &str) -> Result<Vec<String>, SqlError> {
    peer.session.handle().interrupts().clear();
    peer.session.parse(name, text, &[])?;
    peer.session.describe_statement(name)?;
    peer.session.bind("", name, &[], &[], &[])?;
    let mut result = peer.session.execute("", 0, &mut peer.sink)?;
    loop {
        match result {
            Execution::Wait(wait) => assert!(wait.block(std::time::Duration::from_secs(60)).unwrap()),
            Execution::Yield => {}
            _ => break,
        }
        result = peer.session.resume(&mut peer.sink)?;
    }
    Ok(std::mem::take(&mut peer.sink.lines))
}

fn server() -> Server {
    let server = Server::new();
    let mut peer = server.connect();
    for text in ["create table t (a int)", "insert into t values (1)"] {
        assert!(answer(&mut peer, text).is_ok());
    }
    server
}

#[test]
fn statements_nest_as_deep_as_in_postgres() {
    let server = server();
    for kind in KINDS {
        let text = (kind.text)(kind.levels);
        let mut peer = server.connect();
        let started = std::time::Instant::now();
        let by_text = answer(&mut peer, &text);
        let took = started.elapsed();
        assert!(by_text.is_ok(), "{}: {by_text:?}", kind.name);
        println!("{}: {took:?}", kind.name);
        let explained = answer(&mut peer, &format!("explain {text}"));
        assert!(explained.is_ok(), "EXPLAIN, {}: {explained:?}", kind.name);
        for name in ["", "s"] {
            let lines = prepared(&mut peer, name, &text).map_err(|error| error.message().to_owned());
            assert_eq!(lines, by_text, "prepared, {}", kind.name);
        }
        // What a session holds when it ends goes on a stack that is large enough.
        drop(peer);
    }
}

#[test]
fn what_is_too_deep_is_refused_and_the_session_goes_on() {
    let server = server();
    let mut peer = server.connect();
    for kind in KINDS.iter().filter(|kind| kind.levels <= 5_000) {
        let before = (kind.text)(2);
        assert!(answer(&mut peer, &before).is_ok(), "{}: {before}", kind.name);
        let text = (kind.text)(100_000);
        let refused = answer(&mut peer, &text).unwrap_err();
        let codes = ["ERROR 54001: stack depth limit exceeded", "ERROR 54000"];
        assert!(
            codes.iter().any(|code| refused.starts_with(code)),
            "{}: {refused}",
            kind.name
        );
        let error = prepared(&mut peer, "", &text).unwrap_err();
        assert!(
            error.sqlstate().code().starts_with("5400"),
            "{}: {error:?}",
            kind.name
        );
        let after = answer(&mut peer, "select 1").unwrap();
        assert_eq!(after, ["1", "SELECT 1"], "{}", kind.name);
    }
}

/// Bytes of the stack of this thread that have been touched.
fn touched() -> usize {
    let here = 0u8;
    let here = std::ptr::from_ref(&here).addr();
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((from, to)) = first.split_once('-') {
            let [from, to] = [from, to].map(|at| usize::from_str_radix(at, 16).unwrap_or(0));
            inside = (from..to).contains(&here);
        } else if inside && first == "Rss:" {
            return words.next().unwrap().parse::<usize>().unwrap() << 10;
        }
    }
    panic!("this thread has no stack");
}

/// The limits are counts of levels; this is what they must fit into, with what functions of this build take. On a stack that is large
/// already the statement runs where it is, so the pages it touched can be counted.
#[test]
fn the_deepest_statements_take_less_than_half_of_a_deep_stack() {
    const STACK: usize = 240 << 20;
    const DEEP_STACK: usize = 192 << 20;
    const MEASURED: &[&str] = &[
        "a sum",
        "parentheses",
        "CASE in THEN",
        "calls",
        "subqueries",
        "derived tables",
        "queries in parentheses",
    ];
    let server = server();
    for kind in KINDS.iter().filter(|kind| MEASURED.contains(&kind.name)) {
        let most = std::thread::scope(|scope| {
            let worker = std::thread::Builder::new().stack_size(STACK);
            let run = || {
                let mut peer = server.connect();
                // The most levels that are accepted, nearly.
                let (mut most, mut refused) = (kind.levels, 16_000);
                while refused - most > most / 8 {
                    let middle = most.midpoint(refused);
                    match answer(&mut peer, &(kind.text)(middle)) {
                        Ok(_) => most = middle,
                        Err(_) => refused = middle,
                    }
                }
                let text = (kind.text)(most);
                let _ = answer(&mut peer, &format!("explain analyze {text}"));
                let _ = prepared(&mut peer, "s", &text);
                drop(peer);
                (most, touched())
            };
            worker.spawn_scoped(scope, run).unwrap().join().unwrap()
        });
        let (levels, bytes) = most;
        println!(
            "{}: {levels} levels, {} KB, {} bytes a level",
            kind.name,
            bytes >> 10,
            bytes / levels
        );
        assert!(bytes < DEEP_STACK / 2, "{}: {bytes} bytes", kind.name);
    }
}

/// Defaults are texts in the catalog, which any session binds again for its own statements.
#[test]
fn a_deep_default_is_kept_and_used() {
    let server = server();
    let mut peer = server.connect();
    let sum = chain(3_000, "1", " + 1");
    assert!(answer(&mut peer, &format!("create table d (k int, v int default {sum})")).is_ok());
    let too_deep = chain(100_000, "1", " + 1");
    let refused = answer(&mut peer, &format!("create table e (v int default {too_deep})")).unwrap_err();
    assert!(refused.starts_with("ERROR 54001"), "{refused}");
    // A session that has not met anything deep, by text, prepared, within a transaction, in several statements of one text.
    for round in 0..4 {
        let mut peer = server.connect();
        match round {
            0 => assert!(answer(&mut peer, "insert into d (k) values (0)").is_ok()),
            1 => assert!(prepared(&mut peer, "s", "insert into d (k) values (1)").is_ok()),
            2 => assert!(answer(&mut peer, "select 1; insert into d (k) values (2); select 2").is_ok()),
            _ => {
                for text in [
                    "begin",
                    "insert into d (k) values (3)",
                    "explain insert into d (k) values (4)",
                    "commit",
                ] {
                    let done = answer(&mut peer, text);
                    assert!(done.is_ok(), "{text}: {done:?}");
                }
            }
        }
        let sync = peer.session.sync(&mut peer.sink).unwrap();
        if let Execution::Wait(wait) = sync {
            assert!(wait.block(std::time::Duration::from_secs(60)).unwrap());
            peer.session.resume(&mut peer.sink).unwrap();
        }
    }
    let rows = answer(&mut server.connect(), "select count(*), sum(v) from d").unwrap();
    assert_eq!(rows, ["4|12004", "SELECT 1"]);
}

/// Other statements that hold a tree, and portals that are left half read.
#[test]
fn what_holds_a_deep_tree_may_be_dropped_in_any_way() {
    let server = server();
    let mut peer = server.connect();
    let sum = chain(5_000, "1", " + 1");
    for text in [
        format!("prepare p as select {sum} + $1::int"),
        "execute p (1)".to_owned(),
        format!("execute p ({sum})"),
        "deallocate p".to_owned(),
        format!("copy (select {sum}) to stdout"),
        format!("select 1; select {sum}; select 2"),
    ] {
        let done = answer(&mut peer, &text);
        assert!(done.is_ok(), "{}: {done:?}", &text[..text.len().min(60)]);
    }
    for text in [
        // Errors of the parser, the binder and the execution while the tree is there.
        format!("select {sum} from from"),
        format!("select {sum} + nothing"),
        format!("select {sum} / 0"),
        format!("select {sum}; select )"),
    ] {
        assert!(answer(&mut peer, &text).is_err());
    }
    peer.run("begin");
    let rows = format!("select {sum} from generate_series(1, 10)");
    peer.session.parse("s", &rows, &[]).unwrap();
    peer.session.bind("c", "s", &[], &[], &[]).unwrap();
    assert!(matches!(
        peer.session.execute("c", 2, &mut peer.sink),
        Ok(Execution::Suspended)
    ));
    peer.session.close_statement("s");
    peer.session.bind("d", "nothing", &[], &[], &[]).unwrap_err();
    peer.run("rollback");
    peer.session.parse("", &rows, &[]).unwrap();
    peer.session.parse("", "select 1", &[]).unwrap();
    // A thread with the least of stacks drops it all.
    peer.session.parse("s", &rows, &[]).unwrap();
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().stack_size(256 << 10);
        worker.spawn_scoped(scope, move || drop(peer)).unwrap();
    });
}
