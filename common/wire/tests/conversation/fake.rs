//! A scripted session: it does what the text of the statement says, so that the loop alone is under test.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BufMut;
use towline_access::session::{SessionHandle, SessionRegistry, SessionState};
use towline_base::scram::ScramSecret;
use towline_base::{Lsn, LsnPublisher, LsnWatch, SqlState};
use towline_sql::{
    CommandTag, CopyShape, RowDescription, RowSink, SessionParams, SqlError, StatementDescription, Timeouts,
};
use towline_wire::session::{Backend, Gate, Outcome, RoleLogin, WireSession, WireWait};

/// What tests and session share.
pub struct World {
    me: Weak<World>,
    pub registry: Arc<SessionRegistry>,
    pub visible: LsnWatch,
    pub deadlock: AtomicBool,
    pub statement_ms: AtomicU32,
    pub lock_ms: AtomicU32,
    pub idle_ms: AtomicU32,
    pub copied: AtomicUsize,
    pub most_buffered: AtomicUsize,
    pub depends_on: AtomicUsize,
    /// An answer may be taken back.
    pub withdraws: AtomicBool,
    /// Sessions that ended inside a transaction.
    pub rolled_back: AtomicUsize,
}

impl World {
    pub fn new(max: usize) -> (Arc<Self>, LsnPublisher) {
        let (publisher, visible) = LsnWatch::new(Lsn(0));
        let world = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            registry: SessionRegistry::new(max),
            visible,
            deadlock: AtomicBool::new(false),
            statement_ms: AtomicU32::new(0),
            lock_ms: AtomicU32::new(0),
            idle_ms: AtomicU32::new(0),
            copied: AtomicUsize::new(0),
            most_buffered: AtomicUsize::new(0),
            depends_on: AtomicUsize::new(0),
            withdraws: AtomicBool::new(false),
            rolled_back: AtomicUsize::new(0),
        });
        (world, publisher)
    }
}

impl Backend for World {
    type Session = Fake;

    fn accepting(&self) -> Result<(), SqlError> {
        Ok(())
    }

    fn role(&self, name: &str) -> Result<Option<RoleLogin>, SqlError> {
        let login = |superuser, can_login| RoleLogin {
            can_login,
            superuser,
            secret: Some(ScramSecret::from_password("geheim", b"0123456789abcdef", 16)),
        };
        Ok(match name {
            "postgres" => Some(login(true, true)),
            "bob" => Some(login(false, true)),
            "group" => Some(login(false, false)),
            _ => None,
        })
    }

    fn open(&self, params: SessionParams, handle: SessionHandle) -> Result<Fake, SqlError> {
        if params.database != "postgres" {
            let message = format!("database \"{}\" does not exist", params.database);
            return Err(SqlError::fatal(SqlState::INVALID_CATALOG_NAME, message));
        }
        Ok(Fake::new(handle, self.me.upgrade().unwrap()))
    }

    fn registry(&self) -> &Arc<SessionRegistry> {
        &self.registry
    }
}

enum Doing {
    Nothing,
    Waiting,
    Rows { left: usize },
    Copying { done: bool },
    Spinning,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.world
            .rolled_back
            .fetch_add(usize::from(self.status == b'T'), Ordering::SeqCst);
    }
}

pub struct Fake {
    handle: SessionHandle,
    world: Arc<World>,
    status: u8,
    doing: Doing,
    interrupted: Option<SqlError>,
    statements: VecDeque<String>,
    prepared: String,
}

pub struct FakeWait {
    wait: Pin<Box<dyn Future<Output = ()> + Send>>,
    lock: bool,
    world: Arc<World>,
}

impl Future for FakeWait {
    type Output = Result<(), SqlError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.wait.as_mut().poll(cx).map(Ok)
    }
}

impl WireWait for FakeWait {
    fn is_lock(&self) -> bool {
        self.lock
    }
    fn check_deadlock(&self) -> Result<(), SqlError> {
        if self.world.deadlock.load(Ordering::SeqCst) {
            Err(SqlError::new(SqlState::DEADLOCK_DETECTED, "deadlock detected"))
        } else {
            Ok(())
        }
    }
}

impl Fake {
    fn new(handle: SessionHandle, world: Arc<World>) -> Self {
        Fake {
            handle,
            world,
            status: b'I',
            doing: Doing::Nothing,
            interrupted: None,
            statements: VecDeque::new(),
            prepared: String::new(),
        }
    }

    fn fail(&mut self, error: SqlError) -> SqlError {
        if self.status == b'T' {
            self.status = b'E';
        }
        self.statements.clear();
        self.doing = Doing::Nothing;
        error
    }

    fn next(&mut self, out: &mut dyn RowSink) -> Result<Outcome<FakeWait>, SqlError> {
        let Some(text) = self.statements.pop_front() else {
            return Ok(Outcome::Complete);
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            [] => out.empty_query(),
            ["begin"] => {
                self.status = b'T';
                out.command_complete(&CommandTag::Word("BEGIN"));
            }
            ["rollback"] => {
                self.status = b'I';
                out.command_complete(&CommandTag::Word("ROLLBACK"));
            }
            ["seen", lsn] => {
                let lsn = lsn.parse().unwrap();
                self.world.depends_on.store(lsn, Ordering::SeqCst);
                out.parameter_status("seen", "yes");
                out.command_complete(&CommandTag::Word("SEEN"));
            }
            ["timeout", ms] => {
                self.world
                    .statement_ms
                    .store(ms.parse().unwrap(), Ordering::SeqCst);
                out.command_complete(&CommandTag::Word("SET"));
            }
            ["sleep", ms] => {
                self.doing = Doing::Waiting;
                let time = Duration::from_millis(ms.parse().unwrap());
                return Ok(Outcome::Wait(FakeWait {
                    wait: Box::pin(tokio::time::sleep(time)),
                    lock: false,
                    world: Arc::clone(&self.world),
                }));
            }
            ["rows", n] => {
                self.doing = Doing::Rows {
                    left: n.parse().unwrap_or(0),
                };
                return self.resume(out);
            }
            ["wait"] | ["lock"] => {
                self.doing = Doing::Waiting;
                let wait = self.world.visible.wait_for(Lsn(100));
                let wait = Box::pin(async move {
                    let _ = wait.await;
                });
                let lock = words == ["lock"];
                return Ok(Outcome::Wait(FakeWait {
                    wait,
                    lock,
                    world: Arc::clone(&self.world),
                }));
            }
            ["panic"] => panic!("an expression is wrong"),
            ["busy"] => {
                // A step that looks at its flags and yields to nobody.
                let end = Instant::now() + Duration::from_secs(60);
                while Instant::now() < end {
                    if let Err(error) = self.handle.interrupts().check() {
                        return Err(self.fail(error.into()));
                    }
                    std::thread::yield_now();
                }
                out.command_complete(&CommandTag::Word("BUSY"));
            }
            ["spin"] => {
                self.doing = Doing::Spinning;
                return Ok(Outcome::Yield);
            }
            ["copy"] => {
                self.doing = Doing::Copying { done: false };
                out.copy_in(CopyShape {
                    columns: 2,
                    binary: false,
                });
                return Ok(Outcome::CopyIn(CopyShape {
                    columns: 2,
                    binary: false,
                }));
            }
            _ => {
                let error = SqlError::new(SqlState::SYNTAX_ERROR, "syntax error").with_position(1);
                return Err(self.fail(error));
            }
        }
        Ok(self.ended())
    }

    /// A statement is over.
    fn ended(&self) -> Outcome<FakeWait> {
        if self.statements.is_empty() {
            Outcome::Complete
        } else {
            Outcome::Next
        }
    }
}

impl WireSession for Fake {
    type Wait = FakeWait;

    fn initial_parameters(&self) -> Vec<(String, String)> {
        vec![("server_version".to_owned(), "15.0".to_owned())]
    }

    fn parse(&mut self, _name: &str, text: &str, _types: &[u32]) -> Result<(), SqlError> {
        if text == "bad" {
            return Err(self.fail(SqlError::new(SqlState::SYNTAX_ERROR, "syntax error")));
        }
        text.clone_into(&mut self.prepared);
        Ok(())
    }

    fn bind(
        &mut self,
        _portal: &str,
        _statement: &str,
        _formats: &[i16],
        _params: &[Option<&[u8]>],
        _results: &[i16],
    ) -> Result<(), SqlError> {
        Ok(())
    }

    fn describe_statement(&mut self, _name: &str) -> Result<StatementDescription, SqlError> {
        Ok(StatementDescription::default())
    }

    fn describe_portal(&mut self, _name: &str) -> Result<Option<RowDescription>, SqlError> {
        Ok(None)
    }

    fn close_statement(&mut self, _name: &str) {}

    fn close_portal(&mut self, _name: &str) {}

    fn execute(
        &mut self,
        _portal: &str,
        _max_rows: u32,
        out: &mut dyn RowSink,
    ) -> Result<Outcome<FakeWait>, SqlError> {
        self.statements = VecDeque::from([self.prepared.clone()]);
        self.next(out)
    }

    fn sync(&mut self, _out: &mut dyn RowSink) -> Result<Outcome<FakeWait>, SqlError> {
        Ok(Outcome::Complete)
    }

    fn simple_query(&mut self, text: &str, out: &mut dyn RowSink) -> Result<Outcome<FakeWait>, SqlError> {
        self.statements = text.split(';').map(str::to_owned).collect();
        self.next(out)
    }

    fn resume(&mut self, out: &mut dyn RowSink) -> Result<Outcome<FakeWait>, SqlError> {
        if let Some(error) = self.interrupted.take() {
            return Err(self.fail(error));
        }
        if let Err(error) = self.handle.interrupts().check() {
            return Err(self.fail(error.into()));
        }
        match self.doing {
            Doing::Nothing => return self.next(out),
            Doing::Waiting => out.command_complete(&CommandTag::Word("WAITED")),
            Doing::Spinning => return Ok(Outcome::Yield),
            Doing::Rows { left } => {
                for done in 0..left {
                    if out.is_full() {
                        self.doing = Doing::Rows { left: left - done };
                        return Ok(Outcome::Yield);
                    }
                    let buffer = out.buffer();
                    buffer.put_slice(b"D\0\0\0\x0e\0\x01\0\0\0\x04row!");
                    self.world.most_buffered.fetch_max(buffer.len(), Ordering::SeqCst);
                }
                out.command_complete(&CommandTag::Rows("SELECT", left as u64));
            }
            Doing::Copying { done: false } => {
                return Ok(Outcome::CopyIn(CopyShape {
                    columns: 2,
                    binary: false,
                }));
            }
            Doing::Copying { done: true } => out.command_complete(&CommandTag::Rows("COPY", 1)),
        }
        self.doing = Doing::Nothing;
        Ok(self.ended())
    }

    fn interrupt(&mut self, error: SqlError) {
        self.interrupted = Some(error);
    }

    fn copy_data(&mut self, data: &[u8]) -> Result<(), SqlError> {
        if data == b"wrong" {
            return Err(SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, "missing data"));
        }
        self.world.copied.fetch_add(data.len(), Ordering::SeqCst);
        Ok(())
    }

    fn copy_done(&mut self) -> Result<(), SqlError> {
        self.doing = Doing::Copying { done: true };
        Ok(())
    }

    fn copy_fail(&mut self, message: &str) -> Result<(), SqlError> {
        self.interrupted = Some(SqlError::new(
            SqlState::QUERY_CANCELED,
            format!("COPY from stdin failed: {message}"),
        ));
        Ok(())
    }

    fn gate(&self) -> Option<Gate> {
        let lsn = Lsn(self.world.depends_on.load(Ordering::SeqCst) as u64);
        if self.world.visible.get() >= lsn {
            return None;
        }
        let wait = self.world.visible.wait_for(lsn);
        Some(Box::pin(async move {
            wait.await.map(|_| ()).map_err(|_| SqlError::internal("closed"))
        }))
    }

    fn hold(&mut self) {}

    fn withdraw(&mut self, reason: &SqlError, _out: &mut dyn RowSink) -> Option<SqlError> {
        if !self.world.withdraws.load(Ordering::SeqCst) {
            return None;
        }
        self.world.depends_on.store(0, Ordering::SeqCst);
        Some(self.fail(reason.clone()))
    }

    fn transaction_status(&self) -> u8 {
        self.status
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts {
            statement_ms: self.world.statement_ms.load(Ordering::SeqCst),
            lock_ms: self.world.lock_ms.load(Ordering::SeqCst),
            deadlock_ms: 1000,
            idle_in_transaction_ms: self.world.idle_ms.load(Ordering::SeqCst),
        }
    }

    fn show_state(&self, state: SessionState) {
        self.handle.update(|row| row.state = state);
    }

    fn show_wait(&self, wait: Option<&Self::Wait>) {
        let event = wait.map(|_| ("Lock", "scripted"));
        self.handle.update(|row| row.wait_event = event);
    }

    fn show_gate(&self, waits: bool) {
        let event = waits.then_some(("IPC", "scripted"));
        self.handle.update(|row| row.wait_event = event);
    }
}
