//! [`Wal`]: the insertion side of the log.
//!
//! Life of an insertion:
//! 1. **Credit**, before the caller latches anything: room in the buffers for the largest form of the record.
//! 2. **Assembly** (no lock): which pages get an image, the headers, the CRC of everything but the fixed header.
//! 3. **Slot**: a lower bound of where we shall write, for whoever wants to know what is complete.
//! 4. **Reservation** under the one short lock: position and `xl_prev`; the permit and the image threshold are looked at again
//!    here, so that a revocation or a checkpoint's redo pointer has a definite place between records.
//! 5. **Copy** into the buffers, together with others, page headers in between; then the slot is given up.
//!
//! Reservation to slot is a critical section: giving the slot up by unwinding would call space complete that was never filled.
//!
//! Nothing here does I/O or waits for it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use towline_base::{CriticalSection, Lsn, LsnWait, TimelineId, Vfs, WaitOutcome, failpoint};

use super::assemble::assemble;
use super::copy::Copy;
use super::flush::{FlushCore, Requests};
use super::images::{CheckedManagers, ImagePolicy};
use super::ring::Ring;
use super::slots::Slots;
use super::space::{Refused, Space};
use super::{Credit, PageBytes, RecordBuilder, WritePermit};
use crate::config::{Positions, StartAt, WalConfig, WalPublishers, WalTuning};
use crate::format::{BytePosition, CHECK_CONSISTENCY, HEADER_SIZE, PositionMap, RecordHeader, WAL_PAGE};
use crate::reader::MAX_UNSYNCED;
use crate::segments::SegmentDir;

/// The least size of the buffers: four of the engine's largest records.
const MIN_BUFFERS: usize = 4 * towline_base::limits::MAX_OWN_RECORD_BYTES;
/// The largest: what is in the buffers is unsynced, and the judgement of a log's end relies on a bound of that.
const MAX_BUFFERS: usize = (MAX_UNSYNCED / 2) as usize;

/// Why no credit was given. Nothing is latched yet, so the caller waits and tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCredit {
    /// The buffers are full: wait until `positions().write` (or `flush`) reaches this. The flush is already asked for. When it is reached
    /// already, the next segment is not there yet, or the disk is full: see [`Wal::room_wait`].
    NeedsFlush(Lsn),
    /// The record can never fit; the statement fails (54000).
    TooLarge {
        /// What was asked for.
        bytes: u32,
        /// The most that is given.
        max: u32,
    },
}

/// Where a record went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// Its first byte.
    pub start: Lsn,
    /// Behind its last byte: the page LSN of what it changed, and of a commit record the commit's LSN.
    pub end: Lsn,
}

/// Why a record was not inserted. Nothing of it is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertError {
    /// The permit was revoked, or is for another timeline.
    NotPermitted,
    /// The log failed before; the node is about to stop.
    Poisoned,
    /// The record is larger than its credit.
    TooLarge,
}

impl fmt::Display for InsertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted => f.write_str("this node may not write the log"),
            Self::Poisoned => f.write_str("the log has failed"),
            Self::TooLarge => f.write_str("record is larger than its reserved space"),
        }
    }
}

impl std::error::Error for InsertError {}

/// The log failed, or the wait timed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalFailed {
    /// A write or sync failed; nothing more will be flushed.
    Poisoned,
    /// Not flushed in time.
    TimedOut,
}

impl fmt::Display for WalFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poisoned => f.write_str("the log has failed"),
            Self::TimedOut => f.write_str("the log was not flushed in time"),
        }
    }
}

impl std::error::Error for WalFailed {}

/// What the reservation lock protects, beside `Space::reserved`.
#[derive(Debug)]
pub(super) struct Reservation {
    /// Start of the last reserved record; `xl_prev` of the next.
    prev: Prev,
}

/// Start of a record: known as an LSN for the one before us, as a position for our own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Prev {
    Lsn(Lsn),
    Position(BytePosition),
}

/// Called after each flush with the new flush position.
pub type PostFlushHook = Box<dyn Fn(Lsn) + Send + Sync>;
/// Called once when a write or a sync failed.
pub type FailureHook = Box<dyn Fn(&io::Error) + Send + Sync>;

/// The log of a primary. See the module.
pub struct Wal {
    pub(super) config: WalConfig,
    pub(super) timeline: TimelineId,
    pub(super) map: PositionMap,
    pub(super) ring: Ring,
    pub(super) slots: Slots,
    pub(super) space: Arc<Space>,
    pub(super) reservation: Mutex<Reservation>,
    image_threshold: AtomicU64,
    pub(super) positions: Positions,
    pub(super) segments: Arc<SegmentDir>,
    pub(crate) requests: Requests,
    pub(super) core: Mutex<FlushCore>,
    pub(super) poisoned: AtomicBool,
    /// Syncs done, for figures: apart from what the leader owns, so that asking does not wait for a sync.
    pub(super) syncs: AtomicU64,
    pub(super) post_flush: OnceLock<PostFlushHook>,
    pub(super) on_failure: OnceLock<FailureHook>,
    pub(crate) tuning: Mutex<WalTuning>,
    /// The image policy of `tuning`, where every insertion reads it.
    images: AtomicU16,
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("timeline", &self.timeline)
            .field("insert", &self.insert_lsn())
            .field("positions", &self.positions)
            .finish_non_exhaustive()
    }
}

impl Wal {
    /// Opens the log for insertion at `at`. Starts no thread: see [`crate::WalWriter`].
    ///
    /// # Errors
    /// When the published flush position lies beyond `at.lsn` (positions never move backwards; a fork below it needs new
    /// publishers), or the segment cannot be opened, or is missing although the log is to go on in its middle.
    pub fn start(
        vfs: Arc<dyn Vfs>,
        config: WalConfig,
        at: StartAt,
        mut publishers: WalPublishers,
    ) -> io::Result<Arc<Self>> {
        if publishers.write.get() > at.lsn || publishers.flush.get() > at.lsn {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "published WAL position is beyond the start",
            ));
        }
        publishers.write.advance(at.lsn);
        publishers.flush.advance(at.lsn);
        let map = PositionMap::new(config.segment_size);
        let start = map.position(at.lsn);
        let buffers = config
            .buffers
            .clamp(MIN_BUFFERS, MAX_BUFFERS)
            .next_multiple_of(WAL_PAGE);
        let segments = Arc::new(SegmentDir::new(vfs, config.dir.clone(), config.segment_size));
        let segment = config.segment_size.segment_of(at.lsn);
        segments.require_beginning(at.timeline.number, at.lsn)?;
        segments.remove_temporaries()?;
        let mut core = FlushCore::new(publishers, at.lsn);
        let positions = core.positions();
        // Opened (and made, if need be) now: the first commit shall not wait for it, and a full disk shows at the start.
        core.open(&segments, &config, at.timeline.number, segment)?;
        Ok(Arc::new(Self {
            timeline: at.timeline,
            map,
            ring: Ring::new(buffers),
            slots: Slots::new(),
            space: Arc::new(Space::new(buffers, start)),
            reservation: Mutex::new(Reservation {
                prev: Prev::Lsn(at.prev),
            }),
            image_threshold: AtomicU64::new(at.image_threshold.0),
            positions,
            segments,
            requests: Requests::new(at.lsn),
            core: Mutex::new(core),
            poisoned: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            post_flush: OnceLock::new(),
            on_failure: OnceLock::new(),
            tuning: Mutex::new(config.tuning),
            images: AtomicU16::new(config.tuning.images.to_bits()),
            config,
        }))
    }

    /// The timeline it writes.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// How it was configured.
    pub fn config(&self) -> &WalConfig {
        &self.config
    }

    /// Watches of what the writer publishes.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// The directory of its segments.
    pub fn segments(&self) -> &Arc<SegmentDir> {
        &self.segments
    }

    /// Takes space for a change of up to `bytes` log bytes (see [`RecordBuilder::credit_needed`], [`super::credit_for`]).
    ///
    /// While a preallocator is at work, changes are held back half a segment before the end of the segments that are there; what is left
    /// is for the ends of transactions ([`Self::credit_for_end`]), and the very last for the checkpoint, which gives space back
    /// ([`Self::credit_for_checkpoint`]).
    pub fn credit(&self, bytes: u32) -> Result<Credit, NoCredit> {
        self.credit_before(bytes, self.config.segment_size.bytes() / 2)
    }

    /// As [`Self::credit`], for what ends a transaction: it finds room when changes do not any more.
    pub fn credit_for_end(&self, bytes: u32) -> Result<Credit, NoCredit> {
        self.credit_before(bytes, self.config.segment_size.bytes() / 16)
    }

    /// Takes space that leaves `reserve` bytes free before the end of the room.
    fn credit_before(&self, bytes: u32, reserve: u64) -> Result<Credit, NoCredit> {
        let credit = self.credit_for_checkpoint(bytes)?;
        let room_end = self.segments.room_end();
        if room_end == Lsn::MAX {
            return Ok(credit);
        }
        // With what others have credit for, and we ourselves: no two can be given the same last space.
        let end = self
            .map
            .end_lsn(self.space.promised_end())
            .saturating_add(reserve);
        if end <= room_end {
            return Ok(credit);
        }
        drop(credit);
        self.segments.want(end);
        Err(NoCredit::NeedsFlush(self.positions.flush.get()))
    }

    /// As [`Self::credit`], also where no room is known to be.
    pub fn credit_for_checkpoint(&self, bytes: u32) -> Result<Credit, NoCredit> {
        self.space.credit(bytes).map_err(|refused| match refused {
            Refused::TooLarge(max) => NoCredit::TooLarge { bytes, max },
            Refused::Until(position) => {
                let lsn = self.map.end_lsn(position);
                self.request_flush(lsn);
                NoCredit::NeedsFlush(lsn)
            }
        })
    }

    /// What those wait for who were held back for want of room: the next attempt to make some, a second from now at most. `None` when
    /// there is room for all who were refused.
    pub fn room_wait(&self) -> Option<LsnWait> {
        self.segments.room_wait()
    }

    /// The largest credit that is ever given.
    pub fn max_credit(&self) -> u32 {
        self.space.max_credit()
    }

    /// Inserts the record. `pages` are the pages of `record`'s blocks in order, as they are after the change; the caller holds
    /// them latched exclusively and sets their LSN to [`Inserted::end`] afterwards.
    ///
    /// # Panics
    /// When the number of pages is not the number of the record's blocks, or the credit is another log's.
    pub fn insert(
        &self,
        permit: &WritePermit,
        credit: Credit,
        record: &mut RecordBuilder,
        pages: &[&PageBytes],
    ) -> Result<Inserted, InsertError> {
        assert!(credit.is_of(&self.space), "the credit is this log's");
        let header = RecordHeader {
            total_len: 0,
            xid: record.xid,
            prev: Lsn::INVALID,
            info: record.info,
            rmid: record.rmgr.id(),
            crc: 0,
        };
        let mut threshold = self.image_threshold();
        let images = ImagePolicy::from_bits(self.images.load(Ordering::Relaxed));
        let mut images = images.for_this_thread();
        loop {
            let parts = assemble(record, pages, threshold, images).map_err(|_| InsertError::TooLarge)?;
            let size = u64::from(parts.total_len).next_multiple_of(8);
            if size > u64::from(credit.bytes()) {
                if parts.info & CHECK_CONSISTENCY == 0 {
                    return Err(InsertError::TooLarge);
                }
                // The credit is for what redo needs. A check that does not fit beside it is left out.
                images.checked = CheckedManagers::NONE;
                continue;
            }
            let slot = self.slots.take(&self.space.reserved);
            let section;
            let (start, prev) = {
                let mut reservation = self.reservation.lock();
                self.check(permit)?;
                let now = self.image_threshold();
                if now != threshold {
                    // A checkpoint has begun since: pages that needed no image may need one now.
                    threshold = now;
                    continue;
                }
                section = CriticalSection::enter("log space reserved and not filled");
                self.reserve(&mut reservation, size)
            };
            slot.refine(start);
            // A test panics here.
            let _ = failpoint!("wal::before_copy");
            let inserted = Inserted {
                start: self.map.start_lsn(start),
                end: self.map.end_lsn(BytePosition(start.0 + size)),
            };
            let header = RecordHeader {
                info: header.info | parts.info,
                ..header
            };
            let header = self.finish_header(header, parts.total_len, prev, parts.payload_crc);
            let mut copy = Copy::new(self, inserted.start, parts.total_len);
            copy.put(&header);
            parts.pieces.iter().for_each(|piece| copy.put(piece));
            copy.pad(size as usize - parts.total_len as usize);
            drop(slot);
            section.leave();
            drop(credit);
            self.request_if_filling(start, size);
            return Ok(inserted);
        }
    }

    pub(super) fn check(&self, permit: &WritePermit) -> Result<(), InsertError> {
        if permit.timeline() != self.timeline || !permit.is_valid() {
            return Err(InsertError::NotPermitted);
        }
        if self.poisoned.load(Ordering::Relaxed) {
            return Err(InsertError::Poisoned);
        }
        Ok(())
    }

    pub(super) fn reserve(&self, reservation: &mut Reservation, size: u64) -> (BytePosition, Prev) {
        let start = BytePosition(self.space.reserved.load(Ordering::Relaxed));
        self.space.reserved.store(start.0 + size, Ordering::SeqCst);
        (
            start,
            std::mem::replace(&mut reservation.prev, Prev::Position(start)),
        )
    }

    pub(super) fn finish_header(
        &self,
        header: RecordHeader,
        total_len: u32,
        prev: Prev,
        payload_crc: u32,
    ) -> [u8; HEADER_SIZE] {
        let prev = match prev {
            Prev::Lsn(lsn) => lsn,
            Prev::Position(position) => self.map.start_lsn(position),
        };
        let mut bytes = RecordHeader {
            total_len,
            prev,
            ..header
        }
        .to_bytes();
        let crc = crc32c::crc32c_append(payload_crc, &bytes[..20]);
        bytes[20..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Each time another quarter of the buffers has filled, the writer is told, so that credits seldom fail.
    fn request_if_filling(&self, start: BytePosition, size: u64) {
        let quarter = self.space.capacity() / 4;
        if start.0 / quarter != (start.0 + size) / quarter {
            self.request_flush(self.map.end_lsn(start));
        }
    }

    /// Where the next record will end up at the earliest: the end of all reserved space.
    pub fn insert_lsn(&self) -> Lsn {
        self.map
            .end_lsn(BytePosition(self.space.reserved.load(Ordering::Acquire)))
    }

    /// The end of the contiguous part that is completely copied to the buffers.
    pub fn complete_lsn(&self) -> Lsn {
        self.map.end_lsn(self.slots.complete(&self.space.reserved))
    }

    /// Starts a checkpoint: its redo pointer, which is the new image threshold at the same instant (no record is between).
    pub fn begin_checkpoint(&self) -> Lsn {
        let _reservation = self.reservation.lock();
        let redo = self
            .map
            .start_lsn(BytePosition(self.space.reserved.load(Ordering::Relaxed)));
        self.image_threshold.store(redo.0, Ordering::Release);
        redo
    }

    /// Pages last changed at or before it get an image.
    pub fn image_threshold(&self) -> Lsn {
        Lsn(self.image_threshold.load(Ordering::Acquire))
    }

    /// Sets the image threshold.
    pub fn set_image_threshold(&self, threshold: Lsn) {
        let _reservation = self.reservation.lock();
        self.image_threshold.store(threshold.0, Ordering::Release);
    }

    /// Returns when no insertion with a permit revoked before this call can still reserve space: afterwards `insert_lsn` is final.
    pub fn barrier(&self) {
        drop(self.reservation.lock());
    }

    /// Flushes up to `lsn` and waits for it on this thread, doing the work itself when no other thread does (checkpoints,
    /// shutdown, `init`, which has no writer thread). Sessions wait on the watch instead.
    pub fn flush(&self, lsn: Lsn, timeout: Option<Duration>) -> Result<Lsn, WalFailed> {
        let lsn = lsn.min(self.insert_lsn());
        self.requests.ask(lsn);
        self.drive_until(lsn);
        if self.positions.flush.get() >= lsn {
            return Ok(self.positions.flush.get());
        }
        match self.positions.flush.wait_for(lsn).block(timeout) {
            WaitOutcome::Reached(reached) => Ok(reached),
            WaitOutcome::TimedOut => Err(WalFailed::TimedOut),
            WaitOutcome::Closed => Err(WalFailed::Poisoned),
        }
    }

    /// Copies complete bytes from `from` on, at most `max`, out of the buffers, appended to `out`; returns how many. 0 when there
    /// are none yet, or when they are no longer in the buffers: those up to `positions().write` are in the segment files.
    pub fn read_recent(&self, from: Lsn, max: usize, out: &mut Vec<u8>) -> usize {
        let Some(_pin) = self.space.pin(self.map.position(from)) else {
            return 0;
        };
        let complete = self.complete_lsn();
        // What lies before this log's start, or in the gap behind a segment switch, was never in the buffers.
        let (readable_from, readable_to) = self.requests.readable();
        if from < readable_from {
            return 0;
        }
        let to = complete.min(readable_to).min(from.saturating_add(max as u64));
        if to <= from {
            return 0;
        }
        // SAFETY: [from, to) is complete, and the pin holds the floor at or below `from` (`ring`'s rules).
        let (first, second) = unsafe { self.ring.slices(from, to) };
        out.extend_from_slice(first);
        out.extend_from_slice(second);
        first.len() + second.len()
    }

    /// Called on the thread that flushed, after each flush, with the new flush position, while that thread still leads: the hook must
    /// not wait for a flush. Set once; later calls are ignored.
    pub fn set_post_flush_hook(&self, hook: PostFlushHook) {
        let _ = self.post_flush.set(hook);
    }

    /// Called once when a write or a sync failed (I5): the node stops. Set once; later calls are ignored.
    pub fn set_failure_hook(&self, hook: FailureHook) {
        let _ = self.on_failure.set(hook);
    }

    /// Changes what a reload may change.
    pub fn tune(&self, tuning: WalTuning) {
        *self.tuning.lock() = tuning;
        self.images.store(tuning.images.to_bits(), Ordering::Relaxed);
    }

    /// Gives the log up as if a write had failed: whoever flushes has panicked.
    pub(crate) fn give_up(&self, error: &io::Error) {
        self.poison(&mut self.core.lock(), error);
    }

    /// True once a write or sync failed.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }
}
