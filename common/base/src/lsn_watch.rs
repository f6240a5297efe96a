//! [`LsnWatch`]: "wait until this position is at least x", for tasks and threads, in one place.
//!
//! - A position has one [`LsnPublisher`]; advancing it needs `&mut`, so no two threads publish.
//! - It never moves backwards; that is asserted here, where every published position passes.
//! - Waiting when the position is reached already costs one atomic load.
//! - Advancing when nobody waits for what was reached costs one store, a fence and one load.
//!
//! Why no wake-up is lost. The publisher does `position := new; fence; read lowest`. A waiter, under
//! the lock, does `lowest := min(lowest, target); fence; read position`. Both fences are SeqCst, so
//! in their single total order one comes first. If the publisher's does, the waiter's read sees
//! the new position and it does not sleep. If the waiter's does, the publisher's read sees a `lowest`
//! not above the target, takes the lock, finds the waiter and wakes it. `lowest` is written only under the
//! lock, and it is raised only to the least target that is still registered.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::Lsn;

/// No waiter is registered.
const NOBODY: u64 = u64::MAX;

struct Shared {
    position: CachePadded<AtomicU64>,
    /// The least target of the registered waiters, or [`NOBODY`]. Written under `waiters`' lock.
    lowest: AtomicU64,
    closed: AtomicBool,
    waiters: Mutex<Waiters>,
}

#[derive(Default)]
struct Waiters {
    next_id: u64,
    /// Sorted by target; the id tells waiters of one target apart.
    sorted: BTreeMap<(u64, u64), Waker>,
}

impl Shared {
    fn position(&self) -> Lsn {
        Lsn(self.position.load(Ordering::Acquire))
    }

    fn store_lowest(&self, waiters: &Waiters) {
        let lowest = waiters.sorted.first_key_value().map_or(NOBODY, |(key, _)| key.0);
        self.lowest.store(lowest, Ordering::Relaxed);
    }

    /// Takes out the wakers of everyone whose target is at most `reached`, and wakes them outside the lock.
    #[cold]
    fn wake_up_to(&self, reached: u64) {
        let woken = {
            let mut waiters = self.waiters.lock();
            let woken = if reached == NOBODY {
                std::mem::take(&mut waiters.sorted)
            } else {
                let later = waiters.sorted.split_off(&(reached.saturating_add(1), 0));
                std::mem::replace(&mut waiters.sorted, later)
            };
            self.store_lowest(&waiters);
            woken
        };
        for waker in woken.into_values() {
            waker.wake();
        }
    }
}

/// The right to advance a position. There is one for each watch, and dropping it closes the watch.
pub struct LsnPublisher {
    shared: Arc<Shared>,
}

impl LsnPublisher {
    /// Publishes a new position and wakes whoever waits for it.
    ///
    /// # Panics
    /// When `lsn` is below the position published before: I2 is broken, and going on would
    /// acknowledge what is not there.
    pub fn advance(&mut self, lsn: Lsn) {
        let before = self.shared.position.load(Ordering::Relaxed);
        assert!(
            lsn.0 >= before,
            "position moves backwards from {} to {lsn}",
            Lsn(before)
        );
        if lsn.0 == before {
            return;
        }
        self.shared.position.store(lsn.0, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.shared.lowest.load(Ordering::Relaxed) <= lsn.0 {
            self.shared.wake_up_to(lsn.0);
        }
    }

    /// The position published last.
    pub fn get(&self) -> Lsn {
        self.shared.position()
    }

    /// Another reader of this position.
    pub fn watch(&self) -> LsnWatch {
        LsnWatch {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Ends the watch: no further position will come, and whoever waits for one gets [`WatchClosed`].
    pub fn close(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.shared.wake_up_to(NOBODY);
    }
}

impl Drop for LsnPublisher {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for LsnPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LsnPublisher({})", self.get())
    }
}

/// Reads a published position and waits for it. Cheap to clone.
#[derive(Clone)]
pub struct LsnWatch {
    shared: Arc<Shared>,
}

impl LsnWatch {
    /// A position, its publisher and its first reader.
    pub fn new(start: Lsn) -> (LsnPublisher, LsnWatch) {
        let shared = Arc::new(Shared {
            position: CachePadded::new(AtomicU64::new(start.0)),
            lowest: AtomicU64::new(NOBODY),
            closed: AtomicBool::new(false),
            waiters: Mutex::new(Waiters::default()),
        });
        (
            LsnPublisher {
                shared: Arc::clone(&shared),
            },
            LsnWatch { shared },
        )
    }

    /// The position now.
    #[inline]
    pub fn get(&self) -> Lsn {
        self.shared.position()
    }

    /// True when no further position will come.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// A future that is ready when the position is at least `target`, or the watch is closed.
    pub fn wait_for(&self, target: Lsn) -> LsnWait {
        LsnWait {
            shared: Arc::clone(&self.shared),
            target,
            registered: None,
        }
    }

    /// A future that is ready when the position is above `seen`.
    pub fn wait_past(&self, seen: Lsn) -> LsnWait {
        self.wait_for(seen.saturating_add(1))
    }

    /// Whether anybody waits for a later position.
    pub fn has_waiters(&self) -> bool {
        self.shared.lowest.load(Ordering::Relaxed) != NOBODY
    }

    /// Whether two watches read the same position.
    pub fn same_as(&self, other: &LsnWatch) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl fmt::Debug for LsnWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LsnWatch({})", self.get())
    }
}

/// The publisher is gone before the position was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchClosed;

impl fmt::Display for WatchClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the position is not published any more")
    }
}

impl std::error::Error for WatchClosed {}

/// How a thread's wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitOutcome {
    /// The position is at least the target; the value seen.
    Reached(Lsn),
    /// The timeout passed first.
    TimedOut,
    /// The publisher is gone.
    Closed,
}

/// Waits for a position; belongs to no runtime. Dropping it takes it out of the list.
pub struct LsnWait {
    shared: Arc<Shared>,
    target: Lsn,
    registered: Option<u64>,
}

impl LsnWait {
    /// The position waited for.
    pub fn target(&self) -> Lsn {
        self.target
    }

    /// Waits on this thread. `None` waits for ever.
    pub fn block(mut self, timeout: Option<Duration>) -> WaitOutcome {
        if let Some(outcome) = self.check() {
            return outcome.map_or(WaitOutcome::Closed, WaitOutcome::Reached);
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let waker = Waker::from(Arc::new(ThreadWaker(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match Pin::new(&mut self).poll(&mut context) {
                Poll::Ready(Ok(lsn)) => return WaitOutcome::Reached(lsn),
                Poll::Ready(Err(WatchClosed)) => return WaitOutcome::Closed,
                Poll::Pending => {}
            }
            match deadline {
                None => std::thread::park(),
                Some(deadline) => {
                    let now = Instant::now();
                    if now >= deadline {
                        return WaitOutcome::TimedOut;
                    }
                    std::thread::park_timeout(deadline - now);
                }
            }
        }
    }

    fn check(&self) -> Option<Result<Lsn, WatchClosed>> {
        // `closed` is read first: a position published just before the close is still seen.
        let closed = self.shared.closed.load(Ordering::Acquire);
        let position = self.shared.position();
        if position >= self.target {
            Some(Ok(position))
        } else {
            closed.then_some(Err(WatchClosed))
        }
    }
}

impl Future for LsnWait {
    type Output = Result<Lsn, WatchClosed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.check() {
            return Poll::Ready(outcome);
        }
        let this = &mut *self;
        {
            let mut waiters = this.shared.waiters.lock();
            let id = *this.registered.get_or_insert_with(|| {
                waiters.next_id += 1;
                waiters.next_id
            });
            match waiters.sorted.get_mut(&(this.target.0, id)) {
                Some(waker) => waker.clone_from(context.waker()),
                None => {
                    waiters
                        .sorted
                        .insert((this.target.0, id), context.waker().clone());
                }
            }
            this.shared.store_lowest(&waiters);
        }
        fence(Ordering::SeqCst);
        match this.check() {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }
}

impl Drop for LsnWait {
    fn drop(&mut self) {
        let Some(id) = self.registered else { return };
        let mut waiters = self.shared.waiters.lock();
        if waiters.sorted.remove(&(self.target.0, id)).is_some() {
            self.shared.store_lowest(&waiters);
        }
    }
}

impl fmt::Debug for LsnWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LsnWait({} of {})", self.shared.position(), self.target)
    }
}

/// Wakes a parked thread.
struct ThreadWaker(Thread);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
#[path = "lsn_watch_tests.rs"]
mod tests;
