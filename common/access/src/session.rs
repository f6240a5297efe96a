//! Who is connected: interrupts (cancel, terminate, conflict) and the rows of pg_stat_activity.
//!
//! An [`Interrupts`] is one word of flags shared by a session and whoever may stop it. The session looks at it at every
//! page (one relaxed load); a session that is waiting is woken through the waker that its driver registered. The registry
//! is bounded by `max_connections` and hands out the process numbers and secret keys of cancel requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use hashbrown::HashMap;
use parking_lot::Mutex;
use towline_base::SqlState;

use crate::error::{AccessError, Result};

const CANCEL: u32 = 1;
const TERMINATE: u32 = 2;
const CONFLICT: u32 = 4;
const STATEMENT_TIMEOUT: u32 = 8;
const LOCK_TIMEOUT: u32 = 16;

/// Why a session is asked to stop what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// A cancel request or pg_cancel_backend.
    Cancel,
    /// pg_terminate_backend, or the node stops.
    Terminate,
    /// Replay on a standby needs what the query reads.
    Conflict,
    /// `statement_timeout` passed.
    StatementTimeout,
    /// `lock_timeout` passed.
    LockTimeout,
}

/// The flags of one session.
#[derive(Debug)]
pub struct Interrupts {
    flags: AtomicU32,
    waker: Mutex<Option<Waker>>,
    /// When the running statement's time is over, in nanoseconds since `begun`; 0 for never. [`Interrupts::check`] looks at it itself: a
    /// timer of the runtime may stand in the queue of the very thread that a long step holds.
    deadline: AtomicU64,
    begun: Instant,
}

impl Default for Interrupts {
    fn default() -> Self {
        Interrupts {
            flags: AtomicU32::new(0),
            waker: Mutex::new(None),
            deadline: AtomicU64::new(0),
            begun: Instant::now(),
        }
    }
}

impl Interrupts {
    /// No flag set.
    pub fn new() -> Arc<Self> {
        Arc::new(Interrupts::default())
    }

    /// From `deadline` on [`Interrupts::check`] finds that `statement_timeout` has passed; never, for none. It wakes nobody: who waits has
    /// a timer.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        let nanos = |at: Instant| {
            let nanos = at.saturating_duration_since(self.begun).as_nanos();
            u64::try_from(nanos).unwrap_or(u64::MAX).max(1)
        };
        self.deadline.store(deadline.map_or(0, nanos), Ordering::Relaxed);
    }

    /// Sets a flag and wakes the session.
    pub fn raise(&self, interrupt: Interrupt) {
        let flag = match interrupt {
            Interrupt::Cancel => CANCEL,
            Interrupt::Terminate => TERMINATE,
            Interrupt::Conflict => CONFLICT,
            Interrupt::StatementTimeout => STATEMENT_TIMEOUT,
            Interrupt::LockTimeout => LOCK_TIMEOUT,
        };
        self.flags.fetch_or(flag, Ordering::SeqCst);
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether any flag is set.
    pub fn is_raised(&self) -> bool {
        self.flags.load(Ordering::Relaxed) != 0
    }

    /// Whether the session must end.
    pub fn is_terminated(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & TERMINATE != 0
    }

    /// The error of the most severe flag, if any is set. Called at every page.
    #[inline]
    pub fn check(&self) -> Result<()> {
        if self.flags.load(Ordering::Relaxed) == 0 && !self.is_late() {
            Ok(())
        } else {
            Err(self.error())
        }
    }

    /// Whether the statement's time is over; its flag is set then. The clock is read only where there is a deadline.
    #[inline]
    fn is_late(&self) -> bool {
        let deadline = self.deadline.load(Ordering::Relaxed);
        let late = deadline != 0 && self.begun.elapsed().as_nanos() >= u128::from(deadline);
        if late {
            self.deadline.store(0, Ordering::Relaxed);
            self.raise(Interrupt::StatementTimeout);
        }
        late
    }

    #[cold]
    fn error(&self) -> AccessError {
        let flags = self.flags.load(Ordering::SeqCst);
        if flags & TERMINATE != 0 {
            return AccessError::terminated();
        }
        if flags & CONFLICT != 0 {
            return AccessError::recovery_conflict(
                "User query might have needed to see row versions that must be removed.",
            );
        }
        if flags & LOCK_TIMEOUT != 0 {
            return AccessError::lock_not_available("canceling statement due to lock timeout");
        }
        if flags & STATEMENT_TIMEOUT != 0 {
            return AccessError::new(
                SqlState::QUERY_CANCELED,
                "canceling statement due to statement timeout",
            );
        }
        AccessError::canceled()
    }

    /// Forgets all but a termination: called when the next statement starts.
    pub fn clear(&self) {
        self.flags.fetch_and(TERMINATE, Ordering::SeqCst);
    }

    /// Forgets what was meant for the statement before: cancel requests and timers. A conflict stays: it concerns the
    /// transaction's snapshot.
    pub fn clear_statement(&self) {
        self.flags.fetch_and(TERMINATE | CONFLICT, Ordering::SeqCst);
    }

    /// Forgets that a statement's time was over, and nothing else: another statement of the same text begins.
    pub fn clear_timeout(&self) {
        self.flags.fetch_and(!STATEMENT_TIMEOUT, Ordering::SeqCst);
    }

    /// Whether replay on a standby asked this session to give its snapshot up.
    pub fn is_conflict(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & CONFLICT != 0
    }

    /// For the driver's select: ready when a flag is set.
    pub fn poll_raised(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_raised() {
            return Poll::Ready(());
        }
        let mut slot = self.waker.lock();
        match slot.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *slot = Some(cx.waker().clone()),
        }
        drop(slot);
        if self.is_raised() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// What a session is doing, as pg_stat_activity says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SessionState {
    /// Waiting for the client.
    #[default]
    Idle,
    /// Running a statement.
    Active,
    /// Inside a transaction, waiting for the client.
    IdleInTransaction,
    /// Inside a failed transaction, waiting for the client.
    IdleInTransactionAborted,
}

impl SessionState {
    /// PostgreSQL's word.
    pub fn as_str(self) -> &'static str {
        match self {
            SessionState::Idle => "idle",
            SessionState::Active => "active",
            SessionState::IdleInTransaction => "idle in transaction",
            SessionState::IdleInTransactionAborted => "idle in transaction (aborted)",
        }
    }
}

/// One row of pg_stat_activity; timestamps are microseconds since 2000-01-01 UTC.
#[derive(Clone, Debug, Default)]
pub struct SessionRow {
    /// The process number we invented for the session.
    pub pid: i32,
    /// The role it logged in as.
    pub user: String,
    /// The database.
    pub database: String,
    /// `application_name`.
    pub application_name: String,
    /// The client's address, empty for a local socket.
    pub client_addr: String,
    /// The client's port, -1 for none.
    pub client_port: i32,
    /// When the session began.
    pub backend_start: i64,
    /// When its transaction began, if it is in one.
    pub xact_start: Option<i64>,
    /// When its last statement began.
    pub query_start: Option<i64>,
    /// When `state` last changed.
    pub state_change: Option<i64>,
    /// What it does.
    pub state: SessionState,
    /// The text of the running or last statement.
    pub query: Arc<str>,
    /// `wait_event_type` and `wait_event` while it waits.
    pub wait_event: Option<(&'static str, &'static str)>,
    /// Its transaction's xid, if it has one.
    pub backend_xid: Option<u32>,
    /// "client backend", "walsender", "checkpointer", …
    pub backend_type: &'static str,
}

#[derive(Debug)]
struct Entry {
    secret: i32,
    interrupts: Arc<Interrupts>,
    row: Arc<Mutex<SessionRow>>,
}

/// All sessions of the node.
#[derive(Debug)]
pub struct SessionRegistry {
    max: usize,
    next_pid: AtomicI32,
    entries: Mutex<HashMap<i32, Entry>>,
}

impl SessionRegistry {
    /// Room for `max_connections` sessions.
    pub fn new(max_connections: usize) -> Arc<Self> {
        Arc::new(SessionRegistry {
            max: max_connections,
            next_pid: AtomicI32::new(std::process::id().cast_signed().wrapping_add(1).max(1)),
            entries: Mutex::new(HashMap::new()),
        })
    }

    /// Registers a session; 53300 when all places are taken. `secret` is the random key of cancel requests. The row's pid
    /// is filled in.
    pub fn register(self: &Arc<Self>, secret: i32, mut row: SessionRow) -> Result<SessionHandle> {
        let mut entries = self.entries.lock();
        if entries.len() >= self.max {
            return Err(AccessError::new(
                SqlState::TOO_MANY_CONNECTIONS,
                "sorry, too many clients already",
            ));
        }
        let pid = loop {
            let pid = self.next_pid.fetch_add(1, Ordering::Relaxed);
            if pid <= 0 {
                self.next_pid.store(1, Ordering::Relaxed);
            } else if !entries.contains_key(&pid) {
                break pid;
            }
        };
        row.pid = pid;
        if row.backend_type.is_empty() {
            row.backend_type = "client backend";
        }
        let interrupts = Interrupts::new();
        let row = Arc::new(Mutex::new(row));
        entries.insert(
            pid,
            Entry {
                secret,
                interrupts: Arc::clone(&interrupts),
                row: Arc::clone(&row),
            },
        );
        Ok(SessionHandle {
            registry: Arc::clone(self),
            pid,
            secret,
            interrupts,
            row,
        })
    }

    /// A cancel request from the wire: false when pid and key do not match a session.
    pub fn cancel_with_key(&self, pid: i32, secret: i32) -> bool {
        let entries = self.entries.lock();
        match entries.get(&pid) {
            Some(entry) if entry.secret == secret => {
                entry.interrupts.raise(Interrupt::Cancel);
                true
            }
            _ => false,
        }
    }

    /// pg_cancel_backend / pg_terminate_backend: false when there is no such session.
    pub fn interrupt(&self, pid: i32, interrupt: Interrupt) -> bool {
        let entries = self.entries.lock();
        let Some(entry) = entries.get(&pid) else {
            return false;
        };
        entry.interrupts.raise(interrupt);
        true
    }

    /// Interrupts every session (shutdown).
    pub fn interrupt_all(&self, interrupt: Interrupt) {
        for entry in self.entries.lock().values() {
            entry.interrupts.raise(interrupt);
        }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of pg_stat_activity, ordered by pid.
    pub fn rows(&self) -> Vec<SessionRow> {
        let rows: Vec<_> = self
            .entries
            .lock()
            .values()
            .map(|entry| Arc::clone(&entry.row))
            .collect();
        let mut rows: Vec<SessionRow> = rows.iter().map(|row| row.lock().clone()).collect();
        rows.sort_by_key(|row| row.pid);
        rows
    }
}

/// A session's place in the registry; dropping it frees the place.
#[derive(Debug)]
pub struct SessionHandle {
    registry: Arc<SessionRegistry>,
    pid: i32,
    secret: i32,
    interrupts: Arc<Interrupts>,
    row: Arc<Mutex<SessionRow>>,
}

impl SessionHandle {
    /// The process number told to the client.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The key told to the client.
    pub fn secret(&self) -> i32 {
        self.secret
    }

    /// The flags of this session.
    pub fn interrupts(&self) -> &Arc<Interrupts> {
        &self.interrupts
    }

    /// Changes the session's row.
    pub fn update(&self, change: impl FnOnce(&mut SessionRow)) {
        change(&mut self.row.lock());
    }

    /// The registry it belongs to.
    pub fn registry(&self) -> &Arc<SessionRegistry> {
        &self.registry
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        self.registry.entries.lock().remove(&self.pid);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_statement_that_is_late_is_told_at_its_next_look_and_the_one_after_it_is_not() {
        let interrupts = Interrupts::new();
        let now = Instant::now();
        interrupts.set_deadline(Some(now + std::time::Duration::from_secs(3600)));
        assert!(interrupts.check().is_ok());
        interrupts.set_deadline(Some(now));
        for _ in 0..2 {
            let late = interrupts.check().unwrap_err();
            assert_eq!(late.sqlstate(), SqlState::QUERY_CANCELED);
        }
        interrupts.set_deadline(None);
        interrupts.clear_statement();
        assert!(interrupts.check().is_ok());
    }

    #[test]
    fn a_full_registry_refuses_and_a_leaver_makes_room() {
        let registry = SessionRegistry::new(1);
        let first = registry.register(7, SessionRow::default()).unwrap();
        let refused = registry.register(8, SessionRow::default()).unwrap_err();
        assert_eq!(refused.sqlstate(), SqlState::TOO_MANY_CONNECTIONS);
        drop(first);
        registry.register(9, SessionRow::default()).unwrap();
    }

    #[test]
    fn a_cancel_needs_the_key_and_ends_with_the_statement() {
        let registry = SessionRegistry::new(2);
        let session = registry.register(7, SessionRow::default()).unwrap();
        assert!(!registry.cancel_with_key(session.pid(), 8));
        assert!(session.interrupts().check().is_ok());
        assert!(registry.cancel_with_key(session.pid(), 7));
        assert_eq!(
            session.interrupts().check().unwrap_err().sqlstate(),
            SqlState::QUERY_CANCELED
        );
        session.interrupts().clear();
        assert!(session.interrupts().check().is_ok());
    }
}
