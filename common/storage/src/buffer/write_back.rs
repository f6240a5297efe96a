//! Writing dirty pages: copy under a shared latch, wait with no latch until the quorum has the copy's LSN, write the copy (B3).
//!
//! A hot page's LSN is always above the quorum, so waiting for the page itself would never end. What changes after the copy keeps
//! the page dirty, with a `rec_lsn` of its own.
//!
//! - `WRITING` is set from the copy until the write has ended: one writer per frame, so an old copy never overwrites a newer one;
//!   and such a frame keeps its page, although nobody pins it.
//! - `DIRTY` falls with the copy, not with the write, so whoever looks for what a checkpoint must write looks at both.
//! - A page that is dropped meanwhile (its tag gone) is not written: the writer looks under the latch that the dropper takes.
//! - Whoever writes has compared the copy's LSN with the quorum; the one function that issues the write asserts it once more (I7).

use super::BufferPool;
use super::frame::{CLEAN, DIRTY, Frame, FrameRef, SharedLatch, TAGGED, VALID, WRITING};
use super::guard::PinnedPage;
use crate::error::StorageResult;
use crate::page::Page;
use towline_base::rules::{self, Rule};
use towline_base::{CriticalSection, Lsn, PageId};

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Copies that one write-back holds at a time: 512 kB, and less in a small pool, since frames whose copies wait cannot be given to
/// other pages.
const MAX_BATCH: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Box<Page>> = RefCell::new(Page::boxed_zeroed());
}

/// What a step of a write-back came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushState {
    /// Some pages were written; there are more.
    More,
    /// The copies wait for the quorum to reach this position.
    NeedsQuorum(Lsn),
    /// The pages left are just being written by others.
    Busy,
    /// All written.
    Done,
}

/// Pages of a write-back by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteBackCounts {
    /// Written by this write-back.
    pub written: u64,
    /// Found clean, or gone, when their turn came.
    pub skipped: u64,
    /// To be looked at when it began.
    pub total: u64,
}

/// What is needed to write a frame's page and to take the attempt back.
struct Taken {
    lsn: Lsn,
    rec_lsn: u64,
}

struct Copy {
    frame: u32,
    id: PageId,
    taken: Taken,
    page: Box<Page>,
}

/// A write-back of everything that was changed before a position, in file order, a batch at a time. Dropping it early leaves the pages
/// dirty as they were.
pub struct WriteBack {
    pool: Arc<BufferPool>,
    before: Lsn,
    batch: usize,
    targets: VecDeque<(PageId, u32)>,
    copies: Vec<Copy>,
    spare: Vec<Box<Page>>,
    counts: WriteBackCounts,
    /// Written pages that the system was not asked to write back yet, and how many of them it takes to ask; 0 never asks.
    unadvised: Vec<PageId>,
    flush_after: usize,
}

impl std::fmt::Debug for WriteBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteBack")
            .field("before", &self.before)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl BufferPool {
    /// Begins to write every page whose first unwritten change starts before `before` ([`Lsn::MAX`] for all).
    pub fn write_back(self: &Arc<Self>, before: Lsn) -> WriteBack {
        let mut targets: Vec<(PageId, u32)> = Vec::new();
        for (index, frame) in self.frames.as_slice().iter().enumerate() {
            if may_be_due(frame, before) {
                targets.push((frame.id(), index as u32));
            }
        }
        targets.sort_unstable();
        let counts = WriteBackCounts {
            total: targets.len() as u64,
            ..WriteBackCounts::default()
        };
        WriteBack {
            pool: Arc::clone(self),
            before,
            batch: (self.frame_count() / 8).clamp(1, MAX_BATCH),
            targets: targets.into(),
            copies: Vec::new(),
            spare: Vec::new(),
            counts,
            unadvised: Vec::new(),
            flush_after: 0,
        }
    }

    /// Frames with unwritten changes, now.
    pub fn dirty_count(&self) -> usize {
        let dirty = |frame: &&Frame| frame.state.load(Ordering::Relaxed) & (DIRTY | TAGGED) == DIRTY | TAGGED;
        self.frames.as_slice().iter().filter(dirty).count()
    }

    /// Highest LSN of any page that this pool has written to a file.
    pub fn highest_written(&self) -> Lsn {
        Lsn(self.highest_written.load(Ordering::Acquire))
    }

    /// Writes a pinned page if it is dirty, the quorum has it and nobody is changing or writing it. False when it stays dirty.
    pub(super) fn write_in_place(&self, pin: &PinnedPage) -> StorageResult<bool> {
        let frame = pin.frame();
        self.raise_bound(Lsn(frame.page_lsn.load(Ordering::Acquire)))?;
        let Some(latch) = SharedLatch::try_lock(frame) else {
            return Ok(false);
        };
        let lsn = latch.page().lsn();
        if lsn > self.quorum.get() || !self.is_within_bound(lsn) {
            return Ok(false);
        }
        let Some(taken) = take(&frame) else {
            return Ok(frame.state.load(Ordering::Acquire) & (DIRTY | WRITING) == 0);
        };
        // Nobody would end the attempt of a writer that unwinds: the page could never be written again.
        let section = CriticalSection::enter("writing a page");
        let written = SCRATCH.with_borrow_mut(|scratch| {
            scratch.as_bytes_mut().copy_from_slice(latch.page().as_bytes());
            self.write_taken(&frame, &latch, &pin.id(), &taken, scratch)
        });
        section.leave();
        written.map(|()| true)
    }

    /// Writes a copy, under the shared latch of its frame, and ends the attempt either way.
    fn write_taken(
        &self,
        frame: &Frame,
        _latch: &SharedLatch,
        id: &PageId,
        taken: &Taken,
        copy: &mut Page,
    ) -> StorageResult<()> {
        let (lsn, gate) = (copy.lsn(), self.quorum.get());
        assert!(
            lsn <= gate,
            "{id} with LSN {lsn} must not reach disk before the quorum, at {gate}, has it (I7)"
        );
        if self.checksums {
            copy.set_stored_checksum(copy.checksum(id.block));
        }
        // Before the write: what a crash leaves on disk must not be above what is claimed.
        self.highest_written.fetch_max(taken.lsn.0, Ordering::AcqRel);
        let written = self.smgr.write(id, copy);
        match written {
            Ok(()) => {
                frame.state.fetch_and(!WRITING, Ordering::AcqRel);
            }
            Err(_) => give_back(frame, taken),
        }
        written
    }
}

/// Whether the frame may hold a change from before `before` that is not on disk, in its page or in a copy that is being written.
///
/// Without a latch: a copy may be taken, and given back, between the loads. At the moment of the state's, unless it has `WRITING`, `rec_lsn`
/// is right; so it is looked at before and after, and where it has become [`CLEAN`] beside `DIRTY` a copy was taken in between.
fn may_be_due(frame: &Frame, before: Lsn) -> bool {
    let is_due = |rec_lsn: u64| rec_lsn < before.0 || rec_lsn == CLEAN;
    let earlier = frame.rec_lsn.load(Ordering::Acquire);
    let state = frame.state.load(Ordering::Acquire);
    let later = frame.rec_lsn.load(Ordering::Acquire);
    let due = state & DIRTY != 0 && (is_due(earlier) || is_due(later));
    state & TAGGED != 0 && (due || state & WRITING != 0)
}

/// Sets `WRITING`, clears `DIRTY`: under a shared latch, by whoever copies the page under the same latch.
fn take(frame: &Frame) -> Option<Taken> {
    let state = frame.state.load(Ordering::Acquire);
    if state & (DIRTY | TAGGED | VALID) != DIRTY | TAGGED | VALID {
        return None;
    }
    if frame.state.fetch_or(WRITING, Ordering::AcqRel) & WRITING != 0 {
        return None;
    }
    let taken = Taken {
        lsn: Lsn(frame.page_lsn.load(Ordering::Acquire)),
        rec_lsn: frame.rec_lsn.swap(CLEAN, Ordering::AcqRel),
    };
    frame.state.fetch_and(!DIRTY, Ordering::AcqRel);
    Some(taken)
}

/// The copy was not written: the page is dirty again, since its first change.
fn give_back(frame: &Frame, taken: &Taken) {
    if frame.state.load(Ordering::Acquire) & TAGGED != 0 {
        frame.rec_lsn.fetch_min(taken.rec_lsn, Ordering::AcqRel);
        frame.state.fetch_or(DIRTY, Ordering::AcqRel);
    }
    frame.state.fetch_and(!WRITING, Ordering::AcqRel);
}

impl WriteBack {
    /// Asks the system to begin its own writing after each `pages` pages (`checkpoint_flush_after`), so that the sync at the end is
    /// short; 0 leaves it to the system.
    #[must_use]
    pub fn flush_after(mut self, pages: usize) -> WriteBack {
        self.flush_after = pages;
        self
    }

    /// Goes on: writes the copies whose LSN the quorum has, then copies the next pages. Latches one page at a time, and none when it
    /// returns. After an error the pages are dirty as before, and the write-back may be dropped.
    pub fn step(&mut self) -> StorageResult<FlushState> {
        if self.copies.is_empty() {
            self.copy_batch();
            self.copies.reverse();
        }
        if rules::is_off(Rule::CopyWaits) {
            self.wait_for_pages();
        }
        let quorum = self.pool.quorum.get();
        let ready = self
            .copies
            .iter()
            .map(|copy| copy.taken.lsn)
            .filter(|lsn| *lsn <= quorum);
        if let Some(highest) = ready.max() {
            self.pool.raise_bound(highest)?;
        }
        let mut waits_for = None;
        let mut wrote = false;
        // From the end, so that after an error the others still stand in `copies` and are given back.
        let mut index = self.copies.len();
        while index > 0 {
            index -= 1;
            let lsn = self.copies[index].taken.lsn;
            if lsn <= quorum {
                let copy = self.copies.remove(index);
                self.write(copy)?;
                wrote = true;
            } else {
                waits_for = waits_for.max(Some(lsn));
            }
        }
        Ok(match waits_for {
            Some(lsn) => FlushState::NeedsQuorum(lsn),
            None if self.targets.is_empty() => FlushState::Done,
            None if wrote => FlushState::More,
            None => FlushState::Busy,
        })
    }

    /// The rule of the copies switched off: each waits for what its page has become.
    #[cold]
    fn wait_for_pages(&mut self) {
        for copy in &mut self.copies {
            let frame = &self.pool.frames.as_slice()[copy.frame as usize];
            copy.taken.lsn = copy.taken.lsn.max(Lsn(frame.page_lsn.load(Ordering::Acquire)));
        }
    }

    /// Counts so far.
    pub fn counts(&self) -> WriteBackCounts {
        self.counts
    }

    /// Pages that are still to be looked at or written.
    pub fn remaining(&self) -> usize {
        self.targets.len() + self.copies.len()
    }

    fn copy_batch(&mut self) {
        for _ in 0..self.targets.len().min(4 * self.batch) {
            let Some((id, index)) = self.targets.pop_front() else {
                break;
            };
            match self.copy_one(id, index) {
                Copied::Yes(copy) => self.copies.push(copy),
                Copied::Clean => self.counts.skipped += 1,
                Copied::Busy => self.targets.push_back((id, index)),
            }
            if self.copies.len() >= self.batch {
                break;
            }
        }
    }

    fn copy_one(&mut self, id: PageId, index: u32) -> Copied {
        let pool = Arc::clone(&self.pool);
        let frame = &pool.frames.as_slice()[index as usize];
        if frame.try_pin(&id, false).is_none() {
            // Evicted, and so written, or dropped.
            let claimed = frame.state.load(Ordering::Acquire) & super::frame::CLAIMED != 0;
            return if claimed && frame.holds(&id) {
                Copied::Busy
            } else {
                Copied::Clean
            };
        }
        let pin = PinnedPage::adopt(FrameRef::held(frame));
        let latch = SharedLatch::lock(pin.frame());
        let state = frame.state.load(Ordering::Acquire);
        if state & WRITING != 0 {
            return Copied::Busy;
        }
        if state & DIRTY == 0 {
            return Copied::Clean;
        }
        match frame.rec_lsn.load(Ordering::Acquire) {
            // Another writer, who latches as we do, has taken a copy since.
            CLEAN => return Copied::Busy,
            rec_lsn if rec_lsn >= self.before.0 => return Copied::Clean,
            _ => {}
        }
        let Some(taken) = take(frame) else {
            return Copied::Busy;
        };
        let mut page = self.spare.pop().unwrap_or_else(Page::boxed_zeroed);
        page.as_bytes_mut().copy_from_slice(latch.page().as_bytes());
        Copied::Yes(Copy {
            frame: index,
            id,
            taken,
            page,
        })
    }

    fn write(&mut self, mut copy: Copy) -> StorageResult<()> {
        let frame = &self.pool.frames.as_slice()[copy.frame as usize];
        // `WRITING` keeps the page in the frame, or the frame empty if the page was dropped.
        let latch = SharedLatch::lock(FrameRef::held(frame));
        if frame.state.load(Ordering::Acquire) & TAGGED == 0 {
            frame.state.fetch_and(!WRITING, Ordering::AcqRel);
            self.counts.skipped += 1;
        } else {
            self.pool
                .write_taken(frame, &latch, &copy.id, &copy.taken, &mut copy.page)?;
            self.counts.written += 1;
            self.unadvised.push(copy.id);
        }
        drop(latch);
        self.spare.push(copy.page);
        if self.flush_after == 0 {
            self.unadvised.clear();
        } else if self.unadvised.len() >= self.flush_after {
            self.pool.smgr.advise_written(&mut self.unadvised);
            self.unadvised.clear();
        }
        Ok(())
    }
}

enum Copied {
    Yes(Copy),
    Clean,
    Busy,
}

impl Drop for WriteBack {
    fn drop(&mut self) {
        for copy in &self.copies {
            let frame = &self.pool.frames.as_slice()[copy.frame as usize];
            let _latch = SharedLatch::lock(FrameRef::held(frame));
            give_back(frame, &copy.taken);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{fixture, page, set};
    use super::*;

    /// A checkpoint passed over a page whose copy a session was just taking, and ended although the copy was not written.
    #[test]
    fn a_page_whose_copy_is_taken_while_it_is_looked_at_is_waited_for() {
        let fixture = fixture(16, 1);
        set(&fixture.pool, 0, 500, 7);
        let pin = fixture.pool.pin(page(0)).unwrap();
        // Between two moves of `take`.
        let rec_lsn = pin.frame().rec_lsn.swap(CLEAN, Ordering::AcqRel);
        let mut write_back = fixture.pool.write_back(Lsn(900));
        assert_eq!(write_back.counts().total, 1);
        assert_eq!(write_back.step().unwrap(), FlushState::Busy);
        pin.frame().rec_lsn.store(rec_lsn, Ordering::Release);
        assert_eq!(write_back.step().unwrap(), FlushState::Done);
        assert_eq!(fixture.pool.dirty_count(), 0);
    }

    #[test]
    #[should_panic(expected = "(I7)")]
    fn a_page_above_the_gate_is_not_written_whatever_the_caller_has_looked_at() {
        let fixture = fixture(16, 1);
        let above = fixture.pool.quorum.get().0 + 1;
        set(&fixture.pool, 0, above, 7);
        let pin = fixture.pool.pin(page(0)).unwrap();
        let latch = SharedLatch::lock(pin.frame());
        let taken = take(&pin.frame()).unwrap();
        let mut copy = Page::boxed_zeroed();
        copy.as_bytes_mut().copy_from_slice(latch.page().as_bytes());
        let _ = fixture
            .pool
            .write_taken(&pin.frame(), &latch, &pin.id(), &taken, &mut copy);
    }
}
