//! Cleaning ahead of the clock hand: dirty pages that the hand is about to take are written, so that a session finds a clean frame.

use super::BufferPool;
use super::frame::{CLAIMED, DIRTY, Frame, PIN_MASK, TAGGED, WRITING};
use crate::error::StorageResult;
use towline_base::{Lsn, PageId};

use std::sync::atomic::Ordering;

/// What one round of cleaning came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CleanRound {
    /// Frames ahead of the hand that can be given away at once, the cleaned ones included.
    pub reusable: usize,
    /// Pages written.
    pub written: Vec<PageId>,
    /// Ended because so many pages were written as were allowed.
    pub cut: bool,
}

impl BufferPool {
    /// Looks at the frames ahead of the clock hand until `wanted` of them can be given away, writing those that are dirty, unpinned, not
    /// used of late, and at or below the quorum (I7): at most `max_pages`.
    pub fn clean_ahead(&self, wanted: usize, max_pages: usize) -> StorageResult<CleanRound> {
        let frames = self.frames.as_slice();
        let hand = self.hand.load(Ordering::Relaxed);
        let mut round = CleanRound::default();
        for ahead in 0..frames.len() {
            if round.reusable >= wanted {
                break;
            }
            let frame = &frames[(hand + ahead) % frames.len()];
            let state = frame.state.load(Ordering::Relaxed);
            if state & (PIN_MASK | CLAIMED | WRITING) != 0 || (state & TAGGED != 0 && Frame::usage(state) > 0)
            {
                continue;
            }
            if state & TAGGED == 0 || state & DIRTY == 0 {
                round.reusable += 1;
                continue;
            }
            if Lsn(frame.page_lsn.load(Ordering::Acquire)) > self.quorum.get() {
                continue;
            }
            if round.written.len() >= max_pages {
                round.cut = true;
                break;
            }
            let id = frame.id();
            if self.write_unused(frame)? {
                round.written.push(id);
                round.reusable += 1;
            }
        }
        let (counters, written) = (&self.counters, round.written.len() as u64);
        counters.cleaned.fetch_add(written, Ordering::Relaxed);
        counters
            .clean_rounds_cut
            .fetch_add(u64::from(round.cut), Ordering::Relaxed);
        Ok(round)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{fixture, page, set};
    use super::*;

    #[test]
    fn what_the_hand_reaches_next_is_written_up_to_the_wish_and_below_the_quorum() {
        let fixture = fixture(16, 40);
        let gate = fixture.pool.quorum.get().0;
        for block in 0..16 {
            // The last four are above the quorum.
            set(&fixture.pool, block, if block < 12 { 100 } else { gate + 1 }, 7);
        }
        let untouched = fixture.pool.clean_ahead(4, 100).unwrap();
        assert_eq!(untouched, CleanRound::default(), "all were used of late");
        // The hand cools every frame and takes one.
        fixture.pool.pin(page(20)).unwrap();
        let few = fixture.pool.clean_ahead(3, 2).unwrap();
        assert_eq!((few.written.len(), few.cut), (2, true));
        let more = fixture.pool.clean_ahead(5, 100).unwrap();
        assert_eq!((more.reusable, more.written.len(), more.cut), (5, 3, false));
        let rest = fixture.pool.clean_ahead(100, 100).unwrap();
        assert!(rest.written.iter().all(|id| id.block < 12), "{rest:?}");
        assert_eq!(fixture.pool.dirty_count(), 4);
        let backend = fixture.pool.counters().evicted_dirty.load(Ordering::Relaxed);
        fixture.pool.pin(page(21)).unwrap();
        assert_eq!(
            fixture.pool.counters().evicted_dirty.load(Ordering::Relaxed),
            backend,
            "a session finds a clean frame"
        );
    }
}
