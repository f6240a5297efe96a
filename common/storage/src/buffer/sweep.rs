//! Eviction: a clock over the frames. Each pass lowers a frame's usage count; a frame at zero that nobody pins gives its place.

use super::frame::{CLAIMED, DIRTY, Frame, FrameRef, MAX_USAGE, PIN_MASK, TAGGED, WRITING};
use super::guard::PinnedPage;
use super::{BufferPool, table};
use crate::error::{StorageError, StorageResult};
use towline_base::Lsn;

use std::sync::atomic::Ordering;

/// How often the whole pool is swept again, other threads let in between, when frames are busy for a moment only.
const MAX_SWEEPS: usize = 50;

/// What a sweep over the pool met on the way, when it found no frame.
#[derive(Default)]
struct Refusals {
    /// The lowest page LSN above the quorum.
    above_quorum: Option<Lsn>,
    /// A frame was being written, or claimed, or changed state under the hand.
    busy: bool,
}

impl BufferPool {
    /// Takes a frame for another page: claimed, out of the page table, its latch free. A dirty page is written first if the quorum has
    /// it; one that it has not is passed over. [`StorageError::NeedsQuorum`] when only such pages could go.
    pub(super) fn claim_victim(&self) -> StorageResult<u32> {
        for sweep in 0..MAX_SWEEPS {
            let mut refusals = Refusals::default();
            if let Some(index) = self.sweep(&mut refusals)? {
                return Ok(index);
            }
            if let Some(lsn) = refusals.above_quorum {
                return Err(StorageError::NeedsQuorum(lsn));
            }
            // All are pinned, which may be as short as a latch; but a leak of pins must become an error.
            if !refusals.busy && sweep >= MAX_SWEEPS / 10 {
                break;
            }
            std::thread::yield_now();
        }
        Err(StorageError::NoFreeFrame)
    }

    fn sweep(&self, refusals: &mut Refusals) -> StorageResult<Option<u32>> {
        let frames = self.frames.as_slice();
        // One more round than the usage count has steps, and one for what moved meanwhile.
        for _ in 0..frames.len() * (MAX_USAGE as usize + 2) {
            let index = self.hand.fetch_add(1, Ordering::Relaxed) % frames.len();
            let frame = &frames[index];
            let state = frame.state.load(Ordering::Relaxed);
            if state & PIN_MASK != 0 {
                continue;
            }
            if state & CLAIMED != 0 {
                refusals.busy = true;
                continue;
            }
            if state & TAGGED != 0 && Frame::usage(state) > 0 {
                frame.cool(state);
                continue;
            }
            let lsn = Lsn(frame.page_lsn.load(Ordering::Acquire));
            if state & TAGGED != 0 && state & (DIRTY | WRITING) != 0 && lsn > self.quorum.get() {
                refusals.above_quorum = Some(refusals.above_quorum.map_or(lsn, |lowest| lowest.min(lsn)));
                continue;
            }
            if state & WRITING != 0
                || (state & TAGGED != 0 && state & DIRTY != 0 && !self.write_victim(frame)?)
            {
                refusals.busy = true;
                continue;
            }
            if self.claim(index as u32) {
                return Ok(Some(index as u32));
            }
            refusals.busy = true;
        }
        Ok(None)
    }

    /// Claims a clean frame without pins and takes it out of the page table.
    fn claim(&self, index: u32) -> bool {
        let frame = &self.frames.as_slice()[index as usize];
        let state = frame.state.load(Ordering::Acquire);
        let busy = PIN_MASK | CLAIMED | WRITING;
        if state & busy != 0 || (state & TAGGED != 0 && state & DIRTY != 0) {
            return false;
        }
        if frame
            .state
            .compare_exchange(state, state | CLAIMED, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            return false;
        }
        if state & TAGGED != 0 {
            let id = frame.id();
            let hash = table::hash(&id);
            let lock = self.table.lock(hash);
            self.table.remove(&self.frames, &lock, hash, index);
        }
        true
    }

    /// Writes the dirty page of a frame that nobody has pinned; false when it is busy after all.
    pub(super) fn write_unused(&self, frame: &Frame) -> StorageResult<bool> {
        let id = frame.id();
        if frame.try_pin(&id, false).is_none() {
            return Ok(false);
        }
        let pin = PinnedPage::adopt(FrameRef::pinned(frame));
        self.write_in_place(&pin)
    }

    /// Writes a dirty victim; false when it is busy after all.
    fn write_victim(&self, frame: &Frame) -> StorageResult<bool> {
        let written = self.write_unused(frame)?;
        if written {
            self.counters.evicted_dirty.fetch_add(1, Ordering::Relaxed);
        }
        Ok(written)
    }
}
