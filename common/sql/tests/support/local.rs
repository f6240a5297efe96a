//! Sessions on an engine in this process, on files in memory.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use towline_access::{Engine, EngineConfig, SessionRow, Wait, WaitKind, bootstrap, open_alone};
use towline_base::settings::Settings;
use towline_base::vfs::{CrashVfs, Unsynced};
use towline_base::{Clock, SystemClock};
use towline_sql::{
    CommandTag, CopyShape, Execution, Notice, RowDescription, RowSink, Session, SessionParams, SqlError,
};

use super::script::Peer;

/// A server of one, without network.
pub struct Server {
    pub engine: Arc<Engine>,
    pub settings: Arc<Settings>,
    permits: Arc<towline_wal::PermitIssuer>,
}

impl Server {
    /// A fresh cluster.
    pub fn new() -> Server {
        static MADE: OnceLock<CrashVfs> = OnceLock::new();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let disk = MADE.get_or_init(|| {
            let vfs = CrashVfs::new();
            let options = bootstrap::InitOptions {
                segment_size: 1 << 20,
                ..bootstrap::InitOptions::default()
            };
            bootstrap::init(&vfs.shared(), Path::new("/data"), &clock, &options).unwrap();
            vfs
        });
        let vfs = disk.after_crash(Unsynced::Kept, 0);
        let config = EngineConfig {
            shared_buffers: 2048,
            wal_buffers: 1 << 20,
            ..EngineConfig::new("/data")
        };
        let (engine, permits) = open_alone(vfs.shared(), clock, config).unwrap();
        Server {
            engine,
            settings: Settings::defaults(),
            permits,
        }
    }

    /// A session of the superuser.
    pub fn connect(&self) -> LocalPeer {
        self.connect_as("postgres")
    }

    /// A session of this role.
    pub fn connect_as(&self, user: &str) -> LocalPeer {
        let row = SessionRow {
            user: user.into(),
            database: "postgres".into(),
            ..SessionRow::default()
        };
        let handle = self.engine.sessions().register(1, row).unwrap();
        let params = SessionParams {
            user: user.into(),
            database: "postgres".into(),
            ..SessionParams::default()
        };
        let session = Session::new(self.engine.clone(), self.settings.clone(), handle, params).unwrap();
        LocalPeer {
            session,
            sink: Sink::default(),
            waiting: None,
            finished: None,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.engine.shutdown();
    }
}

/// Collects an answer.
#[derive(Default)]
pub struct Sink {
    buffer: BytesMut,
    pub lines: Vec<String>,
}

impl Sink {
    fn take_rows(&mut self) {
        while self.buffer.len() >= 5 {
            let length = u32::from_be_bytes(self.buffer[1..5].try_into().unwrap()) as usize;
            let message = self.buffer.split_to(length + 1);
            match message[0] {
                b'D' => self.lines.push(row(&message[5..])),
                b'd' => {
                    let text = String::from_utf8_lossy(&message[5..]).into_owned();
                    self.lines.push(format!("copy: {}", text.trim_end_matches('\n')));
                }
                other => panic!("message {other} in the buffer"),
            }
        }
    }
}

fn row(body: &[u8]) -> String {
    let count = u16::from_be_bytes([body[0], body[1]]);
    let mut at = 2;
    let mut values = Vec::new();
    for _ in 0..count {
        let length = i32::from_be_bytes(body[at..at + 4].try_into().unwrap());
        at += 4;
        if length < 0 {
            values.push("NULL".to_owned());
        } else {
            let end = at + length as usize;
            values.push(String::from_utf8_lossy(&body[at..end]).replace('\n', "\\n"));
            at = end;
        }
    }
    assert_eq!(at, body.len(), "a row's lengths do not add up");
    values.join("|")
}

impl RowSink for Sink {
    fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }
    fn row_description(&mut self, _: &RowDescription) {}
    fn command_complete(&mut self, tag: &CommandTag) {
        self.take_rows();
        self.lines.push(tag.to_string());
    }
    fn empty_query(&mut self) {
        self.lines.push("EMPTY".into());
    }
    fn portal_suspended(&mut self) {
        self.take_rows();
        self.lines.push("SUSPENDED".into());
    }
    fn copy_in(&mut self, _: CopyShape) {}
    fn copy_out(&mut self, _: CopyShape) {}
    fn copy_done(&mut self) {}
    fn notice(&mut self, notice: &Notice) {
        self.take_rows();
        self.lines.push(line(notice));
    }
    fn parameter_status(&mut self, _: &str, _: &str) {}
}

fn line(fields: &Notice) -> String {
    let mut line = format!(
        "{} {}: {}",
        fields.severity.as_str(),
        fields.sqlstate.code(),
        fields.message
    );
    if let Some(position) = fields.position {
        line += &format!(" (at {position})");
    }
    line
}

/// A session with what it waits for.
pub struct LocalPeer {
    pub session: Session,
    pub sink: Sink,
    waiting: Option<Wait>,
    finished: Option<Vec<String>>,
}

impl LocalPeer {
    /// Drives a call until it is done or blocked by another session.
    fn drive(&mut self, mut result: Result<Execution, SqlError>) {
        loop {
            match result {
                Ok(Execution::Complete | Execution::Suspended) => break,
                Ok(Execution::Yield | Execution::Next | Execution::Sleep(_)) => self.sink.take_rows(),
                Ok(Execution::CopyIn(_)) => self.session.copy_done().unwrap(),
                Ok(Execution::Wait(wait)) => {
                    if matches!(wait.kind(), WaitKind::Row | WaitKind::Lock) {
                        self.waiting = Some(wait);
                        return;
                    }
                    assert!(
                        wait.block(Duration::from_secs(60)).unwrap(),
                        "the engine never answers"
                    );
                }
                Err(error) => {
                    self.sink.take_rows();
                    self.sink.lines.push(line(error.fields()));
                    break;
                }
            }
            result = self.session.resume(&mut self.sink);
        }
        self.sink.take_rows();
        let depends_on = self.session.depends_on();
        if self.session.engine().visible().get() < depends_on {
            let wait = self.session.engine().wait_visible(depends_on);
            assert!(wait.block(Duration::from_secs(60)).unwrap(), "never visible");
        }
        self.finished = Some(std::mem::take(&mut self.sink.lines));
    }

    /// Runs a text to its end.
    pub fn run(&mut self, sql: &str) -> Vec<String> {
        self.send(sql);
        self.answer(Duration::from_secs(60)).expect("blocked")
    }
}

impl Peer for LocalPeer {
    fn send(&mut self, sql: &str) {
        self.session.handle().interrupts().clear();
        let result = self.session.simple_query(sql, &mut self.sink);
        self.drive(result);
    }

    fn answer(&mut self, patience: Duration) -> Option<Vec<String>> {
        while let Some(wait) = self.waiting.take() {
            if let Err(error) = wait.check_deadlock() {
                self.session.interrupt(error.into());
                let result = self.session.resume(&mut self.sink);
                self.drive(result);
                continue;
            }
            // A wait that was not over is asked for anew by the step that wants it.
            let over = wait.block(patience).unwrap();
            let result = self.session.resume(&mut self.sink);
            self.drive(result);
            if !over && self.waiting.is_some() {
                return None;
            }
        }
        self.finished.take()
    }
}
