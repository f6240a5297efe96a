//! Fuzzers of what a client says in SQL: texts made of pieces of real statements, nesting without end, COPY data, parameters. Errors are
//! right; panics, hangs and an exhausted stack are not. `towline_base::testing` says how to run them longer and how to repeat a case.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use support::local::{LocalPeer, Server};
use towline_base::SqlState;
use towline_base::testing::{Case, fuzz};
use towline_sql::{Execution, SqlError};

/// The statements of the golden scripts.
static STATEMENTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    // Of this crate, or of the one with the fuzz targets.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut dirs = ["tests/scripts", "../../common/sql/tests/scripts"]
        .map(|dir| here.join(dir))
        .into_iter();
    let dir = dirs.find(|dir| dir.is_dir()).unwrap();
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut statements = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        for record in text.split("\n\n") {
            let sql: Vec<&str> = record
                .lines()
                .take_while(|line| *line != "----")
                .filter(|line| !line.starts_with(['#', '@']))
                .collect();
            statements.push(sql.join("\n"));
        }
    }
    assert!(statements.len() > 100, "{}", statements.len());
    statements
});

const WORDS: &[&str] = &[
    "null",
    "''",
    "'{}'",
    "0",
    "-1",
    "2147483647",
    "-9223372036854775808",
    "1e308",
    "'NaN'::float8",
    "1.5",
    "0.00001",
    "$1",
    "$99",
    "(",
    ")",
    ",",
    ";",
    "*",
    ".",
    "::",
    "::int4",
    "::text",
    "::numeric",
    "::date",
    "::interval",
    "::timestamptz",
    "::bytea",
    "::int[]",
    "[1]",
    "=",
    "<>",
    "not",
    "and",
    "or",
    "is null",
    "like",
    "between",
    "in",
    "exists",
    "any",
    "all",
    "case",
    "when",
    "then",
    "else",
    "end",
    "select",
    "from",
    "where",
    "group by",
    "order by",
    "limit",
    "offset",
    "having",
    "distinct",
    "union",
    "union all",
    "except",
    "intersect",
    "with",
    "recursive",
    "as",
    "join",
    "left join",
    "cross join",
    "on",
    "using",
    "lateral",
    "values",
    "insert",
    "into",
    "update",
    "set",
    "delete",
    "returning",
    "for update",
    "create",
    "table",
    "index",
    "drop",
    "alter",
    "truncate",
    "begin",
    "commit",
    "rollback",
    "savepoint s",
    "explain",
    "analyze",
    "copy",
    "vacuum",
    "t",
    "k",
    "g",
    "v",
    "a",
    "b",
    "\"",
    "'",
    "$$",
    "E'\\",
    "--",
    "/*",
    "\u{e9}",
    "\u{1f600}",
    "generate_series(1, 20)",
    "count(*)",
    "sum(v)",
    "over",
    "array[1, 2]",
    "row(1, 2)",
    "substring",
    "to_char",
    "extract",
    "interval '1 day'",
    "now()",
    "current_date",
    "length",
    "coalesce",
];

/// Words, numbers, quoted pieces and single signs.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let end = if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else if first == '\'' {
            rest[1..].find('\'').map_or(rest.len(), |at| at + 2)
        } else {
            first.len_utf8()
        };
        tokens.push(rest[..end].to_owned());
        rest = &rest[end..];
    }
    tokens
}

fn changed(case: &mut Case) -> String {
    let mut tokens = tokens(&case.pick(&STATEMENTS).clone());
    for _ in 0..case.below(5) {
        let at = case.below(tokens.len() + 1);
        match case.below(6) {
            0 if at < tokens.len() => drop(tokens.remove(at)),
            1 if at < tokens.len() => tokens[at] = format!(" {} ", case.pick(WORDS)),
            2 => tokens.insert(at, format!(" {} ", case.pick(WORDS))),
            3 if at < tokens.len() => {
                let other = case.below(tokens.len());
                tokens.swap(at, other);
            }
            4 => {
                let other = self::tokens(&case.pick(&STATEMENTS).clone());
                let from = case.below(other.len() + 1);
                let to = (from + case.below(8)).min(other.len());
                tokens.splice(at..at, other[from..to].iter().cloned());
            }
            _ if at < tokens.len() => case.mutate_text(&mut tokens[at], WORDS),
            _ => {}
        }
    }
    tokens.concat()
}

/// Drives a call to its end. What takes long is cancelled, as a client would.
fn drive(case: &mut Case, peer: &mut LocalPeer, mut result: Result<Execution, SqlError>, copied: &[u8]) {
    for round in 0..100_000u32 {
        match result {
            Err(_) | Ok(Execution::Complete | Execution::Suspended) => {
                peer.sink.lines.clear();
                return;
            }
            Ok(Execution::Yield) if round < 50 => {}
            Ok(Execution::Next) => {}
            Ok(Execution::Yield | Execution::Sleep(_)) => {
                let error = SqlError::new(
                    SqlState::QUERY_CANCELED,
                    "canceling statement due to user request",
                );
                peer.session.interrupt(error);
            }
            Ok(Execution::Wait(wait)) => {
                assert!(
                    wait.block(Duration::from_secs(20)).unwrap(),
                    "the engine never answers"
                );
            }
            Ok(Execution::CopyIn(_)) => {
                let mut rest = copied;
                let mut sent = Ok(());
                while !rest.is_empty() && sent.is_ok() {
                    let (piece, after) = rest.split_at(1 + case.below(rest.len()));
                    sent = peer.session.copy_data(piece);
                    rest = after;
                    if case.one_in(2) {
                        break;
                    }
                }
                let _ = if case.one_in(6) {
                    peer.session.copy_fail("no more")
                } else if rest.is_empty() || sent.is_err() {
                    peer.session.copy_done()
                } else {
                    peer.session
                        .copy_data(rest)
                        .and_then(|()| peer.session.copy_done())
                };
            }
        }
        result = peer.session.resume(&mut peer.sink);
    }
    panic!("the statement does not end");
}

fn run(case: &mut Case, peer: &mut LocalPeer, sql: &str, copied: &[u8]) {
    peer.session.handle().interrupts().clear();
    let result = peer.session.simple_query(sql, &mut peer.sink);
    drive(case, peer, result, copied);
}

fn reset(case: &mut Case, peer: &mut LocalPeer) {
    for sql in [
        "rollback",
        "drop table if exists t, u",
        "create table t (k int primary key, g text, v int, n numeric, d timestamptz, b bytea, a int[])",
        "insert into t select i, 'g' || i, i, i, now(), 'x', array[i] from generate_series(1, 20) i",
        "create table u (k int primary key, g text)",
    ] {
        run(case, peer, sql, b"");
    }
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn texts_of_shuffled_statements_are_answered() {
    let server = Server::new();
    fuzz("sql text", 100_000, |case| {
        let mut peer = server.connect();
        reset(case, &mut peer);
        for _ in 0..20 {
            let text = changed(case);
            if case.one_in(4) {
                extended(case, &mut peer, &text);
            } else {
                run(case, &mut peer, &text, b"1\tx\n");
            }
        }
    });
}

/// Parse, Bind with parameters of any formats, numbers and bytes, Describe, Execute by pieces, Sync.
fn extended(case: &mut Case, peer: &mut LocalPeer, text: &str) {
    let types: Vec<u32> = (0..case.below(3))
        .map(|_| *case.pick(&[0, 16, 17, 20, 23, 25, 700, 1007, 1082, 1184, 1186, 1700, 99_999]))
        .collect();
    let name = *case.pick(&["", "s"]);
    if peer.session.parse(name, text, &types).is_ok() {
        let _ = peer.session.describe_statement(name);
        let formats: Vec<i16> = (0..case.below(3))
            .map(|_| *case.pick(&[0, 1, 1, 0, 2, -1]))
            .collect();
        let values: Vec<Option<Vec<u8>>> = (0..case.below(4))
            .map(|_| {
                let count = *case.pick(&[0, 1, 2, 4, 8, 12, 20, 300]);
                (!case.one_in(5)).then(|| case.bytes(count))
            })
            .collect();
        let values: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
        let results: Vec<i16> = (0..case.below(3)).map(|_| *case.pick(&[0, 1, 2])).collect();
        if peer.session.bind("", name, &formats, &values, &results).is_ok() {
            let _ = peer.session.describe_portal("");
            let result = peer.session.execute("", case.below(3) as u32, &mut peer.sink);
            drive(case, peer, result, b"");
        }
    }
    let result = peer.session.sync(&mut peer.sink);
    drive(case, peer, result, b"");
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn parameters_of_any_bytes_are_values_or_errors() {
    let server = Server::new();
    fuzz("parameters", 100_000, |case| {
        let mut peer = server.connect();
        reset(case, &mut peer);
        for _ in 0..20 {
            let text = *case.pick(&[
                "select $1::int4 + $2, $1::text",
                "select k, g from t where k = $1 and v < $2",
                "insert into u values ($1, $2)",
                "update t set n = $1, d = $2 where k = 3",
                "select $1::numeric, $2::interval, $1::int[]",
                "select * from t order by k limit $1 offset $2",
                "select $1::timestamptz - $2::timestamptz, $1::date, $2::bytea, $1::uuid, $2::jsonb",
            ]);
            extended(case, &mut peer, text);
        }
    });
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn copy_data_of_any_bytes_is_rows_or_an_error() {
    let server = Server::new();
    let text =
        b"21\tg\t1\t1.5\t2024-01-01 00:00:00+00\t\\\\x00ff\t{1,2}\n22\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\n\\.\n"
            .to_vec();
    let csv = b"k,g,v,n,d,b,a\n21,\"a \"\"b\"\"\n c\",1,2,,\\x00,\"{1,2}\"\n22,,,,,,\n".to_vec();
    let mut binary = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for key in [21u32, 22] {
        binary.extend_from_slice(&2u16.to_be_bytes());
        binary.extend_from_slice(&4u32.to_be_bytes());
        binary.extend_from_slice(&key.to_be_bytes());
        binary.extend_from_slice(&3u32.to_be_bytes());
        binary.extend_from_slice(b"abc");
    }
    binary.extend_from_slice(&u16::MAX.to_be_bytes());
    fuzz("copy", 100_000, |case| {
        let mut peer = server.connect();
        reset(case, &mut peer);
        for _ in 0..10 {
            let (sql, mut data) = match case.below(6) {
                0 => ("copy t from stdin", text.clone()),
                1 => ("copy t from stdin (format csv, header)", csv.clone()),
                2 => (
                    "copy t from stdin (format csv, delimiter '|', null 'x', quote '''', escape '\\')",
                    csv.clone(),
                ),
                3 => (
                    "copy t (k, g, b) from stdin (delimiter ',', null '')",
                    csv.clone(),
                ),
                _ => ("copy u from stdin (format binary)", binary.clone()),
            };
            case.mutate(&mut data);
            run(case, &mut peer, sql, &data);
            run(case, &mut peer, "delete from t where k > 20", b"");
            run(case, &mut peer, "delete from u", b"");
        }
    });
}

/// A text nested `depth` times, in one of the ways that the grammar nests.
fn nested(case: &mut Case, depth: usize) -> String {
    let around = |before: &str, core: &str, after: &str| {
        format!("{}{core}{}", before.repeat(depth), after.repeat(depth))
    };
    match case.below(20) {
        0 => format!("select {}", around("(", "1", ")")),
        1 => around("(", "select 1", ")"),
        2 => format!("select {}", around("(select ", "1", ")")),
        3 => format!("select {}true", "not ".repeat(depth)),
        4 => format!("select {}1", "- ".repeat(depth)),
        5 => format!("select 1{}", " + 1".repeat(depth)),
        6 => format!("select true{}", " and true".repeat(depth)),
        7 => format!("select {}", around("case when true then ", "1", " end")),
        8 => format!("select {}", around("abs(", "1", ")")),
        9 => format!("select 1{}", "::int".repeat(depth)),
        10 => format!("select {}", around("array[", "1", "]")),
        11 => format!("select * from {}", around("(select * from ", "t", ") x")),
        12 => format!("select 1{}", " union all select 1".repeat(depth)),
        13 => around("with x as (", "select 1", ") select 1"),
        14 => format!("select * from t{}", " cross join t".repeat(depth)),
        15 => format!("select * from {}", around("(", "t", " cross join t)")),
        16 => format!("select 1 where 1 in ({}1)", "1, ".repeat(depth)),
        17 => format!("select '{}'::jsonb", around("[", "", "]")),
        18 => format!("select a{} from t", "[1]".repeat(depth)),
        _ => format!(
            "explain {}select 'a'{}",
            "/*".repeat(depth).replace("/*", "/**/"),
            " || 'b'".repeat(depth)
        ),
    }
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn nesting_without_end_is_refused_and_no_stack_is_exhausted() {
    let server = Server::new();
    fuzz("nesting", 100_000, |case| {
        let mut peer = server.connect();
        let depth = *case.pick(&[1, 10, 100, 140, 149, 151, 300, 599, 601, 2000, 100_000]);
        let text = nested(case, depth);
        reset(case, &mut peer);
        if case.one_in(3) {
            extended(case, &mut peer, &text);
        } else {
            run(case, &mut peer, &text, b"");
        }
    });
}
