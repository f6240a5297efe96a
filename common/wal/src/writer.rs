//! [`WalWriter`]: the loop that flushes for everybody, and [`Preallocator`]: the loop that makes segments ahead of need.
//!
//! Both are `step(now) -> Next`; production gives each a thread, the simulator steps them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use towline_base::{Clock, Lsn, Moment, Next};

use crate::format::SegmentNumber;
use crate::insert::Wal;
use crate::segments::SegmentDir;

/// Bytes that are made ahead of the segment being written: one segment at least, two at most.
const AHEAD_BYTES: u64 = 64 * 1024 * 1024;

/// After a failure the preallocator tries again this much later.
const RETRY: Duration = Duration::from_secs(1);

/// Flushes what is asked for. See `insert::flush` for the protocol.
#[derive(Debug)]
pub struct WalWriter {
    wal: Arc<Wal>,
    /// When the oldest unflushed asynchronous commit must be flushed.
    background_deadline: Option<Moment>,
    /// When the group that is being collected (commit_delay) must be flushed.
    group_deadline: Option<Moment>,
    /// Open transactions, for commit_siblings; kept by whoever runs transactions.
    open_transactions: Arc<AtomicU32>,
}

impl WalWriter {
    /// For a log. `open_transactions` is read for `commit_siblings`.
    pub fn new(wal: Arc<Wal>, open_transactions: Arc<AtomicU32>) -> Self {
        Self {
            wal,
            background_deadline: None,
            group_deadline: None,
            open_transactions,
        }
    }

    /// Flushes when something is due; tells when to come again.
    pub fn step(&mut self, now: Moment) -> Next {
        if self.wal.is_poisoned() {
            return Next::Stop;
        }
        if self.wal.flush_pending() {
            if let Some(deadline) = self.group_deadline_from(now)
                && now < deadline
            {
                return Next::At(deadline);
            }
            self.group_deadline = None;
            self.wal.drive();
            return Next::Now;
        }
        self.group_deadline = None;
        let wanted = self.wal.requests.background_wanted().min(self.wal.insert_lsn());
        if wanted <= self.wal.positions().flush.get() {
            self.background_deadline = None;
            return Next::Idle;
        }
        let delay = self.wal.tuning.lock().writer_delay;
        let deadline = *self.background_deadline.get_or_insert(now.after(delay));
        if now < deadline {
            return Next::At(deadline);
        }
        self.background_deadline = None;
        self.wal.requests.ask(wanted);
        Next::Now
    }

    /// With `commit_delay` and enough company, a flush waits a little for more commits.
    fn group_deadline_from(&mut self, now: Moment) -> Option<Moment> {
        let tuning = *self.wal.tuning.lock();
        if tuning.commit_delay.is_zero() {
            return None;
        }
        if self.group_deadline.is_none() {
            // The one that commits is open itself.
            let others = self.open_transactions.load(Ordering::Relaxed).saturating_sub(1);
            if others < tuning.commit_siblings {
                return None;
            }
            self.group_deadline = Some(now.after(tuning.commit_delay));
        }
        self.group_deadline
    }
}

/// A background thread of the log; dropping the handle stops and joins it.
#[derive(Debug)]
pub struct LoopThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LoopThread {
    /// Has the loop look again now.
    pub fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Stops the loop after its present step and waits for it.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.thread().id() == std::thread::current().id() {
                // The loop itself let go of the last handle: it ends after this step.
                return;
            }
            // A panic in the loop was reported by its hook; the log is poisoned or idle, and we are going down.
            let _ = thread.join();
        }
    }
}

impl Drop for LoopThread {
    fn drop(&mut self) {
        self.join();
    }
}

/// Runs a [`WalWriter`] on a thread of its own.
pub fn spawn_writer(
    wal: &Arc<Wal>,
    clock: Arc<dyn Clock>,
    open_transactions: Arc<AtomicU32>,
) -> io::Result<LoopThread> {
    let mut writer = WalWriter::new(Arc::clone(wal), open_transactions);
    let wal = Arc::clone(wal);
    spawn("wal-writer", move |stop| {
        let _guard = PanicGuard(&wal);
        wal.requests.set_thread(Some(std::thread::current()));
        while !stop.load(Ordering::SeqCst) {
            let next = writer.step(clock.now());
            let timeout = match next {
                Next::Now => continue,
                Next::Stop => break,
                Next::Idle => None,
                Next::At(moment) => Some(moment.since(clock.now())),
            };
            // While a group is collected, no further commit may wake us: we seem to be awake.
            let grouping = writer.group_deadline.is_some();
            if !grouping {
                wal.requests.going_to_sleep(timeout.is_some());
            }
            // Looked at again after the announcement: whoever left a wish before it did not wake us.
            let wished = !grouping
                && (wal.flush_pending()
                    || (timeout.is_none()
                        && wal.requests.background_wanted().min(wal.insert_lsn())
                            > wal.positions().flush.get()));
            if !wished && !stop.load(Ordering::SeqCst) {
                match timeout {
                    Some(timeout) => std::thread::park_timeout(timeout),
                    None => std::thread::park(),
                }
            }
            wal.requests.awake();
        }
        // From now on whoever wants a flush does it; what was wished before is done here.
        wal.requests.set_thread(None);
        wal.drive();
    })
}

/// A writer that panics must not leave sessions waiting for ever: the log is given up, and the node stops.
struct PanicGuard<'a>(&'a Wal);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.give_up(&io::Error::other("the WAL writer panicked"));
        }
    }
}

/// Runs `step` on a thread of its own, whenever it wants to be called, until it says stop or the handle is dropped.
pub fn spawn_loop(
    name: &str,
    clock: Arc<dyn Clock>,
    mut step: impl FnMut(Moment) -> Next + Send + 'static,
) -> io::Result<LoopThread> {
    spawn(name, move |stop| {
        while !stop.load(Ordering::SeqCst) {
            match step(clock.now()) {
                Next::Now => {}
                Next::Stop => break,
                Next::Idle => std::thread::park(),
                Next::At(moment) => std::thread::park_timeout(moment.since(clock.now())),
            }
        }
    })
}

fn spawn(name: &str, body: impl FnOnce(&AtomicBool) + Send + 'static) -> io::Result<LoopThread> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || body(&seen))?;
    Ok(LoopThread {
        stop,
        thread: Some(thread),
    })
}

/// Makes the next segments before the writer needs them.
#[derive(Debug)]
pub struct Preallocator {
    segments: Arc<SegmentDir>,
    /// The end of the space that there was when room was asked for last.
    asked_at: Lsn,
}

impl Preallocator {
    /// For the directory of a log that is being written, by a primary or by a receiver.
    pub fn new(segments: Arc<SegmentDir>) -> Self {
        Self {
            segments,
            asked_at: Lsn::INVALID,
        }
    }

    /// Makes at most one segment. A failure is logged and tried again after a second. While the disk is full the log holds changes back,
    /// so that commits and a checkpoint still find room. Any other failure holds nobody back: the writer meets it itself when it needs the
    /// segment, and stops the node (I5). Changes held back for a disk that has died would wait for ever, since nothing is left to write.
    ///
    /// A full disk is also told to whoever can make room ([`SegmentDir::set_shortage_hook`]), once for each segment that it stands in the way
    /// of: when nothing can be freed, asking again would not help.
    pub fn step(&mut self, now: Moment) -> Next {
        let Some((timeline, opened)) = self.segments.last_opened() else {
            return Next::Idle;
        };
        let size = self.segments.segment_size();
        let ahead = (AHEAD_BYTES / size.bytes()).clamp(1, 2);
        // A log in memory larger than that may be waiting for more.
        let asked_for = size.segment_before(self.segments.wanted().max(size.end(opened)));
        let last = asked_for.0.max(opened.0 + ahead);
        for number in opened.0 + 1..=last {
            let segment = SegmentNumber(number);
            match self.segments.create(timeline, segment) {
                Ok(false) => {}
                Ok(true) => {
                    self.segments.judge(size.end(segment), false);
                    return Next::Now;
                }
                Err(error) if is_full(&error) => {
                    if self.segments.shortage() == Lsn::MAX {
                        tracing::warn!(%error, %segment, "cannot make a WAL segment ahead of need; changes are held back");
                    }
                    let end = size.start(segment);
                    self.segments.judge(end, true);
                    if std::mem::replace(&mut self.asked_at, end) != end {
                        self.segments.ask_for_room();
                    }
                    return Next::At(now.after(RETRY));
                }
                Err(error) => {
                    tracing::warn!(%error, %segment, "cannot make a WAL segment ahead of need");
                    self.segments.judge(Lsn::MAX, false);
                    return Next::At(now.after(RETRY));
                }
            }
        }
        self.segments.judge(size.end(SegmentNumber(last)), false);
        Next::Idle
    }
}

/// Whether the failure is one that free space ends.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Holds changes back at the end of the room while it lives. Afterwards nobody makes room any more: whoever waits for it goes on, and meets
/// the end of the disk in the log.
struct Judging(Arc<SegmentDir>);

impl Drop for Judging {
    fn drop(&mut self) {
        self.0.judge(Lsn::MAX, false);
    }
}

/// Runs a [`Preallocator`] on a thread of its own.
pub fn spawn_preallocator(segments: &Arc<SegmentDir>, clock: Arc<dyn Clock>) -> io::Result<LoopThread> {
    let mut preallocator = Preallocator::new(Arc::clone(segments));
    // From now on, not only when the thread is scheduled.
    segments.begin_judging();
    let judging = Judging(Arc::clone(segments));
    spawn("wal-preallocator", move |stop| {
        judging.0.set_preallocator(std::thread::current());
        while !stop.load(Ordering::SeqCst) {
            match preallocator.step(clock.now()) {
                Next::Now => {}
                Next::Stop => break,
                Next::Idle => std::thread::park(),
                Next::At(moment) => std::thread::park_timeout(moment.since(clock.now())),
            }
        }
    })
}
