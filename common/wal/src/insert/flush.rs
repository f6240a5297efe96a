//! Write, then sync, then publish, then wake (I3): the flushing side of the log.
//!
//! Whoever holds the core's lock is the leader: it takes everything that is complete, writes it with one call per segment, syncs
//! once, publishes. Others only leave their wish in [`Requests`]; the leader looks at it again after it has given up the lock, so
//! no wish is lost. The writer thread is one such leader; a thread without it (`init`, shutdown, a lone client) may be another.
//!
//! A leader's turn is a critical section: a panic in it, on whatever thread, ends the process.
//!
//! I5: a failed write or sync is never repeated. The log is poisoned, the publishers are closed (every waiter gets an error) and
//! the node's hook is called.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use std::thread::Thread;

use parking_lot::Mutex;
use towline_base::{CriticalSection, Lsn, TimelineNumber, VfsFile, failpoint};

use super::wal::Wal;
use crate::config::{Positions, SyncMethod, WalConfig, WalPublishers};
use crate::format::{SegmentNumber, WAL_PAGE};
use crate::segments::SegmentDir;

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The writer thread is at work (or there is none): nobody needs to wake it.
const AWAKE: u8 = 0;
/// It sleeps until its timer: only a flush wakes it.
const DOZING: u8 = 1;
/// It sleeps without a timer: an asynchronous commit wakes it too, to set the timer.
const ASLEEP: u8 = 2;

/// Space behind a segment switch that holds no records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gap {
    pub(crate) from: Lsn,
    pub(crate) to: Lsn,
}

/// What others want from whoever flushes.
#[derive(Debug)]
pub(crate) struct Requests {
    flush: AtomicU64,
    background: AtomicU64,
    /// Nothing before it is in the buffers: the start of the log, or the end of the last gap.
    readable_from: AtomicU64,
    /// Where a pending gap begins, which is not in the buffers either; `u64::MAX` without one.
    gap_from: AtomicU64,
    state: AtomicU8,
    thread: Mutex<Option<Thread>>,
}

impl Requests {
    pub(crate) fn new(start: Lsn) -> Self {
        Self {
            flush: AtomicU64::new(0),
            background: AtomicU64::new(0),
            readable_from: AtomicU64::new(start.0),
            gap_from: AtomicU64::new(u64::MAX),
            state: AtomicU8::new(AWAKE),
            thread: Mutex::new(None),
        }
    }

    /// Leaves a wish without waking anybody.
    pub(crate) fn ask(&self, lsn: Lsn) {
        if self.flush.load(Ordering::Relaxed) < lsn.0 {
            self.flush.fetch_max(lsn.0, Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
    }

    pub(crate) fn flush_wanted(&self) -> Lsn {
        Lsn(self.flush.load(Ordering::SeqCst))
    }

    pub(crate) fn background_wanted(&self) -> Lsn {
        Lsn(self.background.load(Ordering::SeqCst))
    }

    /// The part of the log that the buffers may hold. The end is read first: when a gap is written out, the beginning is moved
    /// behind it before the end is given free.
    pub(crate) fn readable(&self) -> (Lsn, Lsn) {
        let end = Lsn(self.gap_from.load(Ordering::SeqCst));
        (Lsn(self.readable_from.load(Ordering::SeqCst)), end)
    }

    /// A gap is about to be reserved.
    pub(crate) fn gap_begins(&self, from: Lsn) {
        self.gap_from.store(from.0, Ordering::SeqCst);
    }

    /// The gap is in the file.
    fn gap_ends(&self, to: Lsn) {
        self.readable_from.store(to.0, Ordering::SeqCst);
        self.gap_from.store(u64::MAX, Ordering::SeqCst);
    }

    /// The writer thread says who it is, and that it leaves.
    pub(crate) fn set_thread(&self, thread: Option<Thread>) {
        *self.thread.lock() = thread;
    }

    fn has_thread(&self) -> bool {
        self.thread.lock().is_some()
    }

    /// The writer is about to sleep; it must look at the wishes once more afterwards.
    pub(crate) fn going_to_sleep(&self, with_timer: bool) {
        self.state
            .store(if with_timer { DOZING } else { ASLEEP }, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn awake(&self) {
        self.state.store(AWAKE, Ordering::SeqCst);
    }

    /// Wakes the writer when it sleeps at least this deeply. Only the first of many callers does.
    pub(crate) fn wake(&self, at_least: u8) {
        if self.state.load(Ordering::SeqCst) >= at_least
            && self.state.swap(AWAKE, Ordering::SeqCst) != AWAKE
            && let Some(thread) = &*self.thread.lock()
        {
            thread.unpark();
        }
    }
}

/// What the leader owns.
#[derive(Debug)]
pub(crate) struct FlushCore {
    publishers: WalPublishers,
    written: Lsn,
    file: Option<(SegmentNumber, Arc<dyn VfsFile>)>,
    gap: Option<Gap>,
}

impl FlushCore {
    pub(crate) fn new(publishers: WalPublishers, start: Lsn) -> Self {
        Self {
            publishers,
            written: start,
            file: None,
            gap: None,
        }
    }

    pub(crate) fn positions(&self) -> Positions {
        self.publishers.positions()
    }

    /// Opens a segment for writing.
    pub(crate) fn open(
        &mut self,
        segments: &SegmentDir,
        config: &WalConfig,
        timeline: TimelineNumber,
        segment: SegmentNumber,
    ) -> io::Result<Arc<dyn VfsFile>> {
        let dsync = config.fsync && config.sync_method == SyncMethod::OpenDatasync;
        let file = segments.open_for_write(timeline, segment, dsync)?;
        self.file = Some((segment, Arc::clone(&file)));
        Ok(file)
    }

    pub(crate) fn written(&self) -> Lsn {
        self.written
    }

    pub(crate) fn gap(&self) -> Option<Gap> {
        self.gap
    }

    pub(crate) fn set_gap(&mut self, gap: Gap) {
        self.gap = Some(gap);
    }
}

impl Wal {
    /// Asks that everything up to `lsn` be flushed soon. Returns at once; wait on `positions().flush`.
    #[inline]
    pub fn request_flush(&self, lsn: Lsn) {
        // A wish beyond the log's end would make every later record urgent.
        self.requests.ask(lsn.min(self.insert_lsn()));
        self.requests.wake(DOZING);
    }

    /// Asks that everything up to `lsn` be flushed within three times `wal_writer_delay`: an asynchronous commit.
    pub fn request_background_flush(&self, lsn: Lsn) {
        let lsn = lsn.min(self.insert_lsn());
        self.requests.background.fetch_max(lsn.0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.requests.wake(ASLEEP);
    }

    /// As [`Self::request_flush`], but when nobody is flushing, this thread does it before it returns: no hand-off between
    /// threads for a lone client. Returns the flush position. Blocks for the time of a sync; `positions().flush` tells the rest.
    pub fn flush_here(&self, lsn: Lsn) -> Lsn {
        let lsn = lsn.min(self.insert_lsn());
        self.requests.ask(lsn);
        self.drive_until(lsn);
        self.positions.flush.get()
    }

    /// Syncs done so far.
    pub fn sync_count(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// The writer thread's turn: leads as long as wishes are open, waiting for another leader to finish.
    pub(crate) fn drive(&self) {
        while self.flush_pending() {
            if !self.lead(&mut self.core.lock()) {
                return;
            }
            // As in `drive_until`.
            fence(Ordering::SeqCst);
        }
    }

    /// A session's turn: leads until `lsn` is flushed, unless another thread leads already. What others wish beyond that is left to
    /// the writer thread, when there is one: a session that flushes for itself must not be kept by the others.
    pub(crate) fn drive_until(&self, lsn: Lsn) {
        while self.flush_pending() {
            if self.positions.flush.get() >= lsn && self.requests.has_thread() {
                self.requests.wake(DOZING);
                return;
            }
            let Some(mut core) = self.core.try_lock() else {
                return;
            };
            let healthy = self.lead(&mut core);
            drop(core);
            if !healthy {
                return;
            }
            // Pairs with the fence of `ask`: a wish left while we held the lock is seen by the loop's condition.
            fence(Ordering::SeqCst);
        }
    }

    /// Whoever held the core's lock for something else than flushing calls this after giving it up: those who found it taken have left
    /// their wishes to its holder.
    pub(super) fn serve_wishes(&self) {
        // As in `drive_until`.
        fence(Ordering::SeqCst);
        if !self.flush_pending() {
            return;
        }
        if self.requests.has_thread() {
            self.requests.wake(DOZING);
        } else {
            self.drive_until(self.insert_lsn());
        }
    }

    /// One group, as its leader. False when the log is poisoned.
    fn lead(&self, core: &mut FlushCore) -> bool {
        let before = core.publishers.flush.get();
        if self.flush_round(core).is_err() {
            return false;
        }
        if core.publishers.flush.get() == before && self.flush_pending() {
            // What is wanted is reserved, but another thread still copies it.
            std::thread::yield_now();
        }
        true
    }

    pub(crate) fn flush_pending(&self) -> bool {
        let wanted = self.requests.flush_wanted().min(self.insert_lsn());
        !self.is_poisoned() && wanted > self.positions.flush.get()
    }

    /// One group: everything that is complete now. `Err` when the log is poisoned.
    pub(crate) fn flush_round(&self, core: &mut FlushCore) -> Result<(), Poisoned> {
        if self.is_poisoned() {
            return Err(Poisoned);
        }
        let section = CriticalSection::enter("flushing the log");
        let flushed = self
            .write_complete(core)
            .and_then(|upto| self.sync_and_publish(core, upto));
        section.leave();
        match flushed {
            Ok(()) => Ok(()),
            Err(error) => {
                self.poison(core, &error);
                Err(Poisoned)
            }
        }
    }

    fn write_complete(&self, core: &mut FlushCore) -> io::Result<Lsn> {
        let position = self.slots.complete(&self.space.reserved);
        let upto = self.map.end_lsn(position);
        if upto <= core.written {
            return Ok(core.written);
        }
        failpoint!("wal::before_write")?;
        let size = self.config.segment_size;
        while core.written < upto {
            let from = core.written;
            let segment = size.segment_of(from);
            let mut to = upto.min(size.end(segment));
            let gap = core.gap.filter(|gap| size.segment_of(gap.from) == segment);
            if let Some(gap) = gap {
                to = to.min(gap.from);
            }
            let file = self.segment_file(core, segment)?;
            if to > from {
                self.write_part(&*file, from, to)?;
                core.written = to;
            }
            if let Some(gap) = gap.filter(|gap| to == gap.from && upto >= gap.to) {
                // What the recycled file held before must not be taken for records by anybody.
                let mut at = gap.from;
                while at < gap.to {
                    let length = gap.to.distance_from(at).min(ZEROS.len() as u64);
                    file.write_all_at(&ZEROS[..length as usize], size.offset(at))?;
                    at = at + length;
                }
                core.written = gap.to;
                core.gap = None;
                self.requests.gap_ends(gap.to);
            }
        }
        assert!(upto >= core.publishers.flush.get(), "flush <= write (I2)");
        core.publishers.write.advance(upto);
        self.space.advance_written(position);
        Ok(upto)
    }

    /// Writes `[from, to)` of one segment from the ring, then zeros up to the page's end, so that nothing of the file's former
    /// use stands directly behind the log's end.
    fn write_part(&self, file: &dyn VfsFile, from: Lsn, to: Lsn) -> io::Result<()> {
        // SAFETY: the range is complete, and the floor stays at or below `from` until `advance_written`.
        let (first, second) = unsafe { self.ring.slices(from, to) };
        let padding = to.0.next_multiple_of(WAL_PAGE as u64) - to.0;
        let slices = [
            IoSlice::new(first),
            IoSlice::new(second),
            IoSlice::new(&ZEROS[..padding as usize]),
        ];
        let offset = self.config.segment_size.offset(from);
        if second.is_empty() {
            file.write_vectored_all_at(&[slices[0], slices[2]], offset)
        } else {
            file.write_vectored_all_at(&slices, offset)
        }
    }

    fn segment_file(&self, core: &mut FlushCore, segment: SegmentNumber) -> io::Result<Arc<dyn VfsFile>> {
        if let Some((open, file)) = &core.file {
            if *open == segment {
                return Ok(Arc::clone(file));
            }
            // The group goes on in the next segment: this one is synced now, since the flush at the end syncs one file.
            self.sync_file(&**file)?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        core.open(&self.segments, &self.config, self.timeline.number, segment)
    }

    fn sync_file(&self, file: &dyn VfsFile) -> io::Result<()> {
        failpoint!("wal::before_fsync")?;
        match self.config.sync_method {
            _ if !self.config.fsync => Ok(()),
            SyncMethod::Fdatasync => file.sync_data(),
            SyncMethod::Fsync => file.sync_all(),
            SyncMethod::OpenDatasync => Ok(()),
        }
    }

    fn sync_and_publish(&self, core: &mut FlushCore, upto: Lsn) -> io::Result<()> {
        if upto <= core.publishers.flush.get() {
            return Ok(());
        }
        if let Some((_, file)) = &core.file {
            self.sync_file(&**file)?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        failpoint!("wal::after_fsync")?;
        core.publishers.flush.advance(upto);
        if let Some(hook) = self.post_flush.get() {
            hook(upto);
        }
        Ok(())
    }

    pub(super) fn poison(&self, core: &mut FlushCore, error: &io::Error) {
        self.poisoned.store(true, Ordering::SeqCst);
        tracing::error!(%error, written = %core.written, "WAL write failed; the node stops");
        core.publishers.write.close();
        core.publishers.flush.close();
        if let Some(hook) = self.on_failure.get() {
            hook(error);
        }
    }
}

/// The log has failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Poisoned;
