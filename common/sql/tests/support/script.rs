//! Golden scripts: statements with the answers that PostgreSQL 15 gives, run against any server that speaks SQL.
//!
//! A script is a list of records separated by blank lines; `#` begins a comment line. A record is SQL, a line `----`,
//! and the expected lines. `@name` as a record's first line chooses the session (`@main` without).
//!
//! ```text
//! select a, b from t order by a
//! ----
//! 1|x
//! 2|NULL
//! SELECT 2
//!
//! @two
//! update t set b = 'y' where a = 1
//! ----
//! WAIT
//! ```
//!
//! `WAIT`: the statement is blocked by another session. When a later record unblocks it, its lines stand at the end of
//! that record, each with the session's name before it (`two: UPDATE 1`).
//!
//! This file knows no server: [`Peer`] is one session on one. It is used by the tests of this crate (in process) and by
//! the integration tests (over TCP, against both servers).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// One session.
pub trait Peer {
    /// Sends a query text.
    fn send(&mut self, sql: &str);
    /// The lines of the answer, if it comes within this time: rows, notices, tags or errors.
    fn answer(&mut self, patience: Duration) -> Option<Vec<String>>;
}

/// A record of a script.
#[derive(Debug)]
pub struct Record {
    session: String,
    sql: String,
    expected: Vec<String>,
    line: usize,
    comments: Vec<String>,
}

/// Reads a script.
pub fn parse(text: &str) -> Vec<Record> {
    let mut records = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    let mut comments = Vec::new();
    while let Some((number, line)) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        if line.starts_with('#') {
            comments.push(line.to_owned());
            continue;
        }
        let mut session = "main".to_owned();
        let mut sql = Vec::new();
        match line.strip_prefix('@') {
            Some(name) => session = name.trim().to_owned(),
            None => sql.push(line),
        }
        let mut expected = Vec::new();
        let mut answer = false;
        while let Some((_, line)) = lines.next_if(|(_, line)| !line.trim().is_empty()) {
            if answer {
                expected.push(line.to_owned());
            } else if line == "----" {
                answer = true;
            } else {
                sql.push(line);
            }
        }
        records.push(Record {
            session,
            sql: sql.join("\n"),
            expected,
            line: number + 1,
            comments: std::mem::take(&mut comments),
        });
    }
    records
}

/// How long an answer may take that is sure to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait before a statement counts as blocked.
const BLOCKED_AFTER: Duration = Duration::from_millis(300);

/// Runs a script; gives the script with the actual answers, and the differences.
pub fn run(
    records: &[Record],
    open: &mut dyn FnMut(&str) -> Box<dyn Peer>,
    blocked_after: Option<Duration>,
) -> (String, Vec<String>) {
    let mut sessions: BTreeMap<String, (Box<dyn Peer>, bool)> = BTreeMap::new();
    let mut actual = String::new();
    let mut differences = Vec::new();
    let blocked_after = blocked_after.unwrap_or(BLOCKED_AFTER);
    for record in records {
        let (peer, blocked) = sessions
            .entry(record.session.clone())
            .or_insert_with(|| (open(&record.session), false));
        assert!(
            !*blocked,
            "line {}: session {} is blocked",
            record.line, record.session
        );
        peer.send(&record.sql);
        let may_wait = record.expected.first().is_none_or(|line| line == "WAIT");
        let mut lines = match peer.answer(if may_wait { blocked_after } else { PATIENCE }) {
            Some(lines) => lines,
            None => {
                *blocked = true;
                vec!["WAIT".to_owned()]
            }
        };
        // Sessions wake each other, so all are asked in turns until everyone who is due has answered.
        let deadline = Instant::now() + PATIENCE;
        let mut woken: BTreeMap<String, Vec<String>> = BTreeMap::new();
        loop {
            let mut due = false;
            for (name, (peer, blocked)) in &mut sessions {
                if !*blocked || *name == record.session {
                    continue;
                }
                due |= record
                    .expected
                    .iter()
                    .any(|line| line.starts_with(&format!("{name}: ")));
                if let Some(answer) = peer.answer(blocked_after.min(Duration::from_millis(100))) {
                    *blocked = false;
                    woken.insert(
                        name.clone(),
                        answer.iter().map(|line| format!("{name}: {line}")).collect(),
                    );
                }
            }
            let missing = sessions.iter().any(|(name, (_, blocked))| {
                *blocked
                    && record
                        .expected
                        .iter()
                        .any(|line| line.starts_with(&format!("{name}: ")))
            });
            if !due || !missing || Instant::now() > deadline {
                break;
            }
        }
        lines.extend(woken.into_values().flatten());
        if lines != record.expected {
            let mut text = format!("line {}: {}\n", record.line, record.sql);
            for line in &record.expected {
                let _ = writeln!(text, "  expected  {line}");
            }
            for line in &lines {
                let _ = writeln!(text, "  got       {line}");
            }
            differences.push(text);
        }
        for comment in &record.comments {
            let _ = writeln!(actual, "{comment}");
        }
        if record.session != "main" || record.sql.is_empty() {
            let _ = writeln!(actual, "@{}", record.session);
        }
        let _ = writeln!(actual, "{}\n----\n{}\n", record.sql, lines.join("\n"));
    }
    (actual, differences)
}
