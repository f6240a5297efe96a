//! Two- and three-session schedules, run against Towline and PostgreSQL 15 in one run: the same rows in the
//! same order, the same SQLSTATE, the same sessions blocked.
//!
//! A schedule is a file of lines `session: statement`; `session wait: statement` must block on a lock, which is
//! seen in pg_stat_activity before the next line runs, and `session done:` collects its answer. `setup:` runs
//! first on a connection of its own.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use towline_integration_tests::client::{Failure, Rows, Sql};
use towline_integration_tests::node::{Cluster, PATIENCE};
use towline_integration_tests::peer::Postgres;
use towline_integration_tests::wait::wait_until;

use crate::Case;

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![Case::new(
        "schedules_of_several_sessions_end_as_on_postgresql",
        &["initdb", "pg_ctl"],
        every_schedule_agrees,
    )]
};

/// A session on a thread of its own, so that a blocked statement does not stop the schedule.
struct Session {
    name: String,
    pid: String,
    statements: Sender<String>,
    answers: Receiver<Result<Rows, Failure>>,
    /// Statements sent whose answers are not collected yet.
    waiting: bool,
}

impl Session {
    fn open(port: u16, name: &str) -> Session {
        let sql = Sql::connect(port).unwrap();
        let pid = sql.value("select pg_backend_pid()").unwrap();
        let (statements, inbox) = channel::<String>();
        let (outbox, answers) = channel();
        std::thread::spawn(move || {
            for statement in inbox {
                if outbox.send(sql.query(&statement)).is_err() {
                    return;
                }
            }
        });
        Session {
            name: name.to_owned(),
            pid,
            statements,
            answers,
            waiting: false,
        }
    }

    fn answer(&mut self) -> String {
        self.waiting = false;
        let answer = self.answers.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            Err(Failure {
                sqlstate: None,
                message: "no answer: still blocked".to_owned(),
            })
        });
        match answer {
            Ok(rows) => format!("{rows:?}"),
            Err(failure) => format!("ERROR {}", failure.sqlstate.unwrap_or(failure.message)),
        }
    }
}

/// Runs a schedule and returns what each line answered.
fn transcript(port: u16, text: &str) -> Vec<String> {
    let control = Sql::connect(port).unwrap();
    let mut sessions: Vec<Session> = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (who, statement) = line
            .split_once(':')
            .unwrap_or_else(|| panic!("not a schedule line: {line}"));
        let statement = statement.trim();
        if who == "setup" {
            control
                .query(statement)
                .unwrap_or_else(|e| panic!("{line}: {e:?}"));
            continue;
        }
        let (name, verb) = who.split_once(' ').unwrap_or((who, "run"));
        let at = sessions.iter().position(|s| s.name == name).unwrap_or_else(|| {
            sessions.push(Session::open(port, name));
            sessions.len() - 1
        });
        let session = &mut sessions[at];
        if verb != "done" {
            assert!(!session.waiting, "{name} is still blocked before: {line}");
            session.statements.send(statement.to_owned()).unwrap();
        }
        if verb == "wait" {
            session.waiting = true;
            let blocked = format!(
                "select count(*) from pg_stat_activity where pid = {} and wait_event_type = 'Lock'",
                session.pid
            );
            wait_until(&format!("to block: {line}"), PATIENCE, || {
                control.value(&blocked).unwrap() == "1"
            });
            lines.push(format!("{line} -> blocked"));
        } else {
            lines.push(format!("{line} -> {}", session.answer()));
        }
    }
    lines
}

fn every_schedule_agrees() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schedules");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 10, "only {} schedules found", files.len());
    let cluster = Cluster::start(0, &["synchronous_standby_names="]);
    let postgres = Postgres::start();
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let theirs = transcript(postgres.port, &text);
        let ours = transcript(cluster.nodes[0].sql_port, &text);
        for (our, their) in ours.iter().zip(&theirs) {
            if our != their {
                wrong.push(format!(
                    "{}:\n  towline    {our}\n  postgresql {their}",
                    file.display()
                ));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
