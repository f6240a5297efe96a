//! How the engine says "not yet": a step is done, or names what must happen before it is called again (DESIGN §5).
//!
//! The rule that makes this safe: when a step returns [`Step::Wait`], it holds no latch and no pin. The driver (an async
//! session, or a test's thread) awaits the [`Wait`] and calls the same step again; a wake-up promises nothing but that
//! it is worth trying. Everything here is runtime-free: a `Wait` is a plain future, woken through its `Waker`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use towline_base::{Lsn, LsnWait};

use crate::error::{AccessError, Result};
use crate::locks::{LockManager, OwnerId};

/// The outcome of one step.
#[derive(Debug)]
pub enum Step<T> {
    /// The result.
    Done(T),
    /// Nothing is held; call again after this wait.
    Wait(Wait),
}

impl<T> Step<T> {
    /// Applies `f` to a finished result.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Step<U> {
        match self {
            Step::Done(value) => Step::Done(f(value)),
            Step::Wait(wait) => Step::Wait(wait),
        }
    }
}

/// Unwraps a `Result<Step<T>>` inside a function that returns one itself: errors and waits go up.
#[macro_export]
macro_rules! ready {
    ($step:expr) => {
        match $step? {
            $crate::Step::Done(value) => value,
            $crate::Step::Wait(wait) => return Ok($crate::Step::Wait(wait)),
        }
    };
}

/// What a wait is for: shown in pg_stat_activity and used to choose the timers of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitKind {
    /// A row that another transaction changed or locked, or that transaction's end. Deadlocks are possible.
    Row,
    /// A relation, object or advisory lock. Deadlocks are possible.
    Lock,
    /// Room in the WAL buffers: the writer must write up to the LSN.
    Flush(Lsn),
    /// Another session logs the reservation of xids.
    Xid,
    /// The commit quorum must reach the LSN.
    Quorum(Lsn),
    /// The commit at the LSN must be released to snapshots.
    Visible(Lsn),
    /// Nothing: the step has worked for long enough, and others are let run.
    Turn,
}

impl WaitKind {
    /// PostgreSQL's `wait_event_type`.
    pub fn event_type(self) -> &'static str {
        match self {
            WaitKind::Row | WaitKind::Lock => "Lock",
            WaitKind::Flush(_) => "IO",
            WaitKind::Xid => "LWLock",
            WaitKind::Quorum(_) | WaitKind::Visible(_) => "IPC",
            WaitKind::Turn => "Timeout",
        }
    }

    /// PostgreSQL's `wait_event`, or the nearest.
    pub fn event(self) -> &'static str {
        match self {
            WaitKind::Row => "transactionid",
            WaitKind::Lock => "relation",
            WaitKind::Flush(_) => "WALWrite",
            WaitKind::Xid => "XidGen",
            WaitKind::Quorum(_) | WaitKind::Visible(_) => "SyncRep",
            WaitKind::Turn => "SpinDelay",
        }
    }

    /// Whether the driver should call [`Wait::check_deadlock`] after `deadlock_timeout`.
    pub fn can_deadlock(self) -> bool {
        matches!(self, WaitKind::Row | WaitKind::Lock)
    }
}

/// One waiter's bell: rung once, heard by whoever polls. Waiters are woken by an owner that holds no lock meanwhile.
#[derive(Debug, Default)]
pub struct WaitCell {
    rung: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl WaitCell {
    /// A silent bell.
    pub fn new() -> Arc<Self> {
        Arc::new(WaitCell::default())
    }

    /// Rings: the waiter, present or future, goes on.
    pub fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it was rung.
    pub fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_rung() {
            return Poll::Ready(());
        }
        let mut slot = self.waker.lock();
        match slot.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *slot = Some(cx.waker().clone()),
        }
        drop(slot);
        // Rung between the first look and the registration?
        if self.is_rung() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

#[derive(Debug)]
enum Inner {
    /// All of them, one after another.
    Lsn(LsnWait, Option<LsnWait>),
    Cell {
        cell: Arc<WaitCell>,
        locks: Arc<LockManager>,
        owner: OwnerId,
    },
    /// Whether the turn was given away.
    Turn(bool),
}

/// A future that resolves when the step that returned it is worth calling again.
///
/// Dropping it is harmless: places in row queues belong to the operation, places in lock queues to the transaction; both
/// give them up when they are dropped.
#[must_use = "a wait must be awaited before the step is called again"]
#[derive(Debug)]
pub struct Wait {
    kind: WaitKind,
    inner: Inner,
}

impl Wait {
    pub(crate) fn lsn(kind: WaitKind, wait: LsnWait) -> Self {
        Wait {
            kind,
            inner: Inner::Lsn(wait, None),
        }
    }

    pub(crate) fn commit(kind: WaitKind, visible: LsnWait, applied: Option<LsnWait>) -> Self {
        Wait {
            kind,
            inner: Inner::Lsn(visible, applied),
        }
    }

    pub(crate) fn cell(kind: WaitKind, cell: Arc<WaitCell>, locks: Arc<LockManager>, owner: OwnerId) -> Self {
        Wait {
            kind,
            inner: Inner::Cell { cell, locks, owner },
        }
    }

    /// A wait for nothing: whoever awaits it lets others run once and is then called again.
    pub(crate) fn turn() -> Self {
        Wait {
            kind: WaitKind::Turn,
            inner: Inner::Turn(false),
        }
    }

    /// What is waited for.
    pub fn kind(&self) -> WaitKind {
        self.kind
    }

    /// Whether it would resolve at once.
    #[cfg(test)]
    pub(crate) fn is_ready_for_test(&self) -> bool {
        match &self.inner {
            Inner::Cell { cell, .. } => cell.is_rung(),
            Inner::Lsn(..) | Inner::Turn(_) => false,
        }
    }

    /// 40P01 when this wait is part of a circle. To be called once after `deadlock_timeout`; costs nothing for waits that
    /// cannot deadlock.
    pub fn check_deadlock(&self) -> Result<()> {
        match &self.inner {
            Inner::Lsn(..) | Inner::Turn(_) => Ok(()),
            Inner::Cell { cell, locks, owner } => {
                if cell.is_rung() {
                    return Ok(());
                }
                locks.check_deadlock(*owner)
            }
        }
    }

    /// For threads and tests: blocks the calling thread until the wait resolves or `timeout` passes. True when it resolved.
    pub fn block(self, timeout: Duration) -> Result<bool> {
        Ok(self.block_briefly(timeout)?.is_ok())
    }

    /// As [`Wait::block`]; gives the wait back when the timeout passed, to go on waiting.
    pub fn block_briefly(mut self, timeout: Duration) -> Result<std::result::Result<(), Wait>> {
        struct ThreadWaker {
            rung: Mutex<bool>,
            bell: Condvar,
        }
        impl std::task::Wake for ThreadWaker {
            fn wake(self: Arc<Self>) {
                *self.rung.lock() = true;
                self.bell.notify_one();
            }
        }
        let shared = Arc::new(ThreadWaker {
            rung: Mutex::new(false),
            bell: Condvar::new(),
        });
        let waker = Waker::from(Arc::clone(&shared));
        let mut cx = Context::from_waker(&waker);
        let deadline = Instant::now() + timeout;
        loop {
            if let Poll::Ready(result) = Pin::new(&mut self).poll(&mut cx) {
                return result.map(Ok);
            }
            let mut rung = shared.rung.lock();
            while !*rung {
                if shared.bell.wait_until(&mut rung, deadline).timed_out() && !*rung {
                    drop(rung);
                    return Ok(Err(self));
                }
            }
            *rung = false;
        }
    }
}

impl Future for Wait {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().inner {
            Inner::Lsn(first, second) => {
                let closed = |_| AccessError::terminated();
                match Pin::new(first).poll(cx) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(closed(error))),
                    Poll::Pending => return Poll::Pending,
                }
                match second {
                    None => Poll::Ready(Ok(())),
                    Some(wait) => Pin::new(wait)
                        .poll(cx)
                        .map(|outcome| outcome.map(|_| ()).map_err(closed)),
                }
            }
            Inner::Cell { cell, .. } => cell.poll(cx).map(Ok),
            Inner::Turn(given) => {
                if std::mem::replace(given, true) {
                    return Poll::Ready(Ok(()));
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}
