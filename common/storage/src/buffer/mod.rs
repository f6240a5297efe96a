//! The buffer pool: a fixed number of frames that hold pages, found by [`PageId`], evicted by a clock.
//!
//! Invariants owned here:
//!
//! - A page is in at most one frame; a pinned page stays in its frame.
//! - A hit costs one probe of the page table and one compare-and-swap on the frame, and takes no lock.
//! - A dirty page is written only when the quorum has its LSN (I7, the *write-back gate*); one writer at a time per frame.
//! - At most ¾ of the frames hold pages above the quorum ([`BufferPool::quorum_room`]), so readers find frames (B4).
//! - A damaged page is an error for whoever asks for it, not for the pool.
//!
//! Reading a missing page happens in place, under the frame's exclusive latch; whoever finds the frame meanwhile waits on that latch.

mod bound;
mod clean;
mod cleanup;
mod frame;
mod guard;
mod room;
mod sweep;
mod table;
mod write_back;

pub use clean::CleanRound;
pub use guard::{HintGuard, PageRead, PageReadRef, PageWrite, PinnedPage};
pub use write_back::{FlushState, WriteBack, WriteBackCounts};

use crate::error::{StorageError, StorageResult};
use crate::smgr::Smgr;
use frame::{CLEAN, ExclusiveLatch, FrameArray, FrameRef, TAGGED, USAGE_ONE, VALID};
use room::RoomEstimate;
use table::PageTable;
use towline_base::{BlockNumber, ForkKind, Lsn, LsnWatch, PageId, RelFileNode};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// The smallest pool: PostgreSQL's minimum of `shared_buffers` (128 kB).
pub const MIN_FRAMES: usize = 16;

/// How much a pin says about future use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// The page is likely to be used again.
    #[default]
    Normal,
    /// One of many in a large scan: its use does not keep other pages out.
    Scan,
}

/// Counters of the pool since its start.
#[derive(Debug, Default)]
pub struct PoolCounters {
    /// Pages read from files.
    pub reads: AtomicU64,
    /// Pages that a session had to write to get a frame.
    pub evicted_dirty: AtomicU64,
    /// Pages that were added to relations.
    pub extended: AtomicU64,
    /// Frames that were given to another page.
    pub allocated: AtomicU64,
    /// Pages that the background writer has written.
    pub cleaned: AtomicU64,
    /// Rounds of the background writer that ended at `bgwriter_lru_maxpages`.
    pub clean_rounds_cut: AtomicU64,
}

/// See the module.
pub struct BufferPool {
    frames: FrameArray,
    table: PageTable,
    hand: AtomicUsize,
    smgr: Arc<Smgr>,
    quorum: LsnWatch,
    checksums: bool,
    room: RoomEstimate,
    stopped: AtomicBool,
    counters: PoolCounters,
    bound: bound::PageLsnBound,
    /// Highest LSN of any page written to a file.
    highest_written: AtomicU64,
}

impl std::fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BufferPool")
            .field("frames", &self.frames.as_slice().len())
            .finish_non_exhaustive()
    }
}

impl BufferPool {
    /// A pool of `frames` frames over `smgr`. Pages are written when `quorum` has their LSN.
    pub fn new(frames: usize, smgr: Arc<Smgr>, quorum: LsnWatch, checksums: bool) -> BufferPool {
        let frames = frames.max(MIN_FRAMES);
        BufferPool {
            frames: FrameArray::new(frames),
            table: PageTable::new(frames),
            hand: AtomicUsize::new(0),
            smgr,
            quorum,
            checksums,
            room: RoomEstimate::new(frames),
            stopped: AtomicBool::new(false),
            counters: PoolCounters::default(),
            bound: bound::PageLsnBound::new(),
            highest_written: AtomicU64::new(0),
        }
    }

    /// Frames of the pool.
    pub fn frame_count(&self) -> usize {
        self.frames.as_slice().len()
    }

    /// Counters since the start.
    pub fn counters(&self) -> &PoolCounters {
        &self.counters
    }

    /// Pins a page, reading it when no frame holds it. An error names the page that is damaged or missing.
    #[inline]
    pub fn pin(&self, id: PageId) -> StorageResult<PinnedPage> {
        self.pin_for(id, Access::Normal)
    }

    /// Whether a frame holds the page, or is about to.
    pub fn holds(&self, id: &PageId) -> bool {
        let found = self.table.find(&self.frames, table::hash(id), id, false);
        found.map(|(frame, _)| PinnedPage::adopt(frame)).is_some()
    }

    /// As [`BufferPool::pin`], with a word on future use.
    #[inline]
    pub fn pin_for(&self, id: PageId, access: Access) -> StorageResult<PinnedPage> {
        let hash = table::hash(&id);
        if let Some((frame, state)) = self.table.find(&self.frames, hash, &id, access == Access::Normal) {
            let pin = PinnedPage::adopt(frame);
            if state & VALID != 0 && !self.stopped.load(Ordering::Relaxed) {
                return Ok(pin);
            }
            return self.pin_slowly(id, hash, access, Some(pin));
        }
        self.pin_slowly(id, hash, access, None)
    }

    #[cold]
    fn pin_slowly(
        &self,
        id: PageId,
        hash: u64,
        access: Access,
        found: Option<PinnedPage>,
    ) -> StorageResult<PinnedPage> {
        self.check_stopped()?;
        let (pin, latch) = match found {
            Some(pin) => (pin, None),
            None => self.find_or_place(id, hash, access)?,
        };
        if latch.is_none() && pin.is_valid() {
            return Ok(pin);
        }
        let mut latch = latch.unwrap_or_else(|| ExclusiveLatch::lock(pin.frame()));
        if !pin.is_valid() {
            self.fill(&pin, &mut latch)?;
        }
        drop(latch);
        Ok(pin)
    }

    /// Pins a page without reading it: for a block that the caller formats anew. A frame that holds the page already is used as it is;
    /// otherwise the page is zero. The block must exist.
    pub fn pin_zeroed(&self, id: PageId) -> StorageResult<PinnedPage> {
        self.check_stopped()?;
        let (pin, latch) = self.find_or_place(id, table::hash(&id), Access::Normal)?;
        let mut latch = match latch {
            Some(latch) => latch,
            None if pin.is_valid() => return Ok(pin),
            None => ExclusiveLatch::lock(pin.frame()),
        };
        if !pin.is_valid() {
            latch.page_mut().as_bytes_mut().fill(0);
            self.publish(&pin, Lsn::INVALID);
        }
        drop(latch);
        Ok(pin)
    }

    /// Adds a block at the end of a fork and pins it, zeroed. Blocks until the file system has allocated it.
    pub fn extend(&self, rel: RelFileNode, fork: ForkKind) -> StorageResult<PinnedPage> {
        self.check_stopped()?;
        let block = self.smgr.extend(rel, fork, 1)?;
        self.counters.extended.fetch_add(1, Ordering::Relaxed);
        self.pin_zeroed(PageId { rel, fork, block })
    }

    /// Length of a fork in blocks.
    pub fn nblocks(&self, rel: RelFileNode, fork: ForkKind) -> StorageResult<BlockNumber> {
        self.smgr.nblocks(rel, fork)
    }

    /// Forgets the pages of a fork from block `from` on, dirty or not: their relation is dropped, cut or about to be emptied. Nobody
    /// may use them any more; a write that is under way is waited for.
    pub fn drop_pages(&self, rel: RelFileNode, fork: Option<ForkKind>, from: BlockNumber) {
        let matches =
            |id: &PageId| id.rel == rel && id.block >= from && fork.is_none_or(|fork| id.fork == fork);
        for (index, frame) in self.frames.as_slice().iter().enumerate() {
            if frame.state.load(Ordering::Acquire) & TAGGED == 0 || !matches(&frame.id()) {
                continue;
            }
            let id = frame.id();
            if let Some(state) = frame.try_pin(&id, false) {
                debug_assert!(state & TAGGED != 0);
                let pin = PinnedPage::adopt(FrameRef::pinned(frame));
                // Waits for a write under way; later ones see that the tag is gone.
                let latch = ExclusiveLatch::lock(pin.frame());
                self.untag(index as u32, &id);
                drop(latch);
            }
        }
    }

    fn untag(&self, index: u32, id: &PageId) {
        let frame = &self.frames.as_slice()[index as usize];
        let hash = table::hash(id);
        let lock = self.table.lock(hash);
        if frame.state.load(Ordering::Acquire) & TAGGED != 0 && frame.holds(id) {
            self.table.remove(&self.frames, &lock, hash, index);
            frame
                .state
                .fetch_and(!(TAGGED | VALID | frame::DIRTY), Ordering::AcqRel);
            frame.rec_lsn.store(CLEAN, Ordering::Release);
        }
    }

    /// No page is given out any more: a change has touched pages and could not be logged, so memory is ahead of the log.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Whether [`BufferPool::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn check_stopped(&self) -> StorageResult<()> {
        if self.is_stopped() {
            return Err(StorageError::Stopped(
                "a change was begun and could not be logged",
            ));
        }
        Ok(())
    }

    /// Finds the page's frame, or gives it one; that one comes latched, not valid yet.
    fn find_or_place(
        &self,
        id: PageId,
        hash: u64,
        access: Access,
    ) -> StorageResult<(PinnedPage, Option<ExclusiveLatch>)> {
        loop {
            if let Some(found) = self.find_certainly(&id, hash) {
                return Ok((found, None));
            }
            let index = self.claim_victim()?;
            self.counters.allocated.fetch_add(1, Ordering::Relaxed);
            let frame = &self.frames.as_slice()[index as usize];
            frame.set_id(&id);
            let lock = self.table.lock(hash);
            if self.table.find_locked(&self.frames, &lock, hash, &id).is_some() {
                // Somebody else was faster; the frame goes back, empty.
                drop(lock);
                frame.state.store(0, Ordering::Release);
                continue;
            }
            frame.rec_lsn.store(CLEAN, Ordering::Relaxed);
            frame.page_lsn.store(0, Ordering::Relaxed);
            // Nobody can pin a claimed frame, so its latch is free: it is taken before the page can be found and used.
            let latch = ExclusiveLatch::lock(FrameRef::held(frame));
            self.table.insert(&self.frames, &lock, hash, index);
            let usage = if access == Access::Normal { USAGE_ONE } else { 0 };
            frame.state.store(TAGGED | usage | 1, Ordering::Release);
            drop(lock);
            return Ok((PinnedPage::adopt(FrameRef::pinned(frame)), Some(latch)));
        }
    }

    /// Looks the page up under the partition's lock and pins it.
    fn find_certainly(&self, id: &PageId, hash: u64) -> Option<PinnedPage> {
        loop {
            let lock = self.table.lock(hash);
            let index = self.table.find_locked(&self.frames, &lock, hash, id)?;
            let frame = &self.frames.as_slice()[index as usize];
            if frame.try_pin(id, true).is_some() {
                return Some(PinnedPage::adopt(FrameRef::pinned(frame)));
            }
            // It is claimed by somebody who needs this lock to take it out of its chain.
            drop(lock);
            std::thread::yield_now();
        }
    }

    /// Reads the page into its frame, checks it and lets others see it.
    fn fill(&self, pin: &PinnedPage, latch: &mut ExclusiveLatch) -> StorageResult<()> {
        let id = pin.id();
        self.smgr.read(&id, latch.page_mut())?;
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        let page = latch.page();
        let damage = if self.checksums {
            crate::checksums::damage(page, id.block)
        } else {
            page.check_header().err().map(|error| error.to_string())
        };
        if let Some(what) = damage {
            let (file, offset) = self.smgr.locate(&id);
            return Err(StorageError::Corrupt {
                page: id,
                file,
                offset,
                what,
            });
        }
        self.publish(pin, page.lsn());
        Ok(())
    }

    fn publish(&self, pin: &PinnedPage, lsn: Lsn) {
        let frame = pin.frame();
        frame.page_lsn.store(lsn.0, Ordering::Relaxed);
        frame.state.fetch_or(VALID, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
