//! The page table: which frame holds a page.
//!
//! Buckets are heads of chains that run through the frame headers. A lookup takes no lock: it walks the chain, pins a frame
//! whose tag looks right, and looks at the tag again under the pin. While it walks, frames may leave the chain or move to
//! another one; the walk then ends somewhere else, which is a miss that the locked lookup corrects. Chains change only under the
//! lock of their partition.

use super::frame::{FrameArray, FrameRef, NO_FRAME};
use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
use towline_base::PageId;

use std::sync::atomic::{AtomicU32, Ordering};

const PARTITIONS: usize = 128;
/// Steps of a lookup without lock: longer chains are either broken by a concurrent change or very unlucky.
const MAX_UNLOCKED_STEPS: usize = 16;

pub(super) struct PageTable {
    buckets: Box<[AtomicU32]>,
    partitions: Box<[CachePadded<Mutex<()>>]>,
}

/// The right to change the chains of one partition.
pub(super) struct PartitionLock<'a> {
    _lock: MutexGuard<'a, ()>,
}

/// Spreads page ids over buckets: blocks of a relation are neighbours, so every bit must count.
#[inline]
pub(super) fn hash(id: &PageId) -> u64 {
    let block = u64::from(id.rel.rel) << 32 | u64::from(id.block);
    let space = (u64::from(id.rel.db) << 32 | u64::from(id.rel.spc)) ^ (u64::from(id.fork as u8) << 61);
    let mixed =
        u128::from(block ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(u128::from(space ^ 0xD6E8_FEB8_6659_FD93) | 1);
    let folded = (mixed as u64) ^ ((mixed >> 64) as u64);
    folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (folded >> 29)
}

impl PageTable {
    pub(super) fn new(frames: usize) -> PageTable {
        let buckets = (frames * 2).next_power_of_two().max(PARTITIONS);
        PageTable {
            buckets: (0..buckets).map(|_| AtomicU32::new(NO_FRAME)).collect(),
            partitions: (0..PARTITIONS)
                .map(|_| CachePadded::new(Mutex::new(())))
                .collect(),
        }
    }

    #[inline]
    fn bucket(&self, hash: u64) -> &AtomicU32 {
        &self.buckets[(hash >> 32) as usize & (self.buckets.len() - 1)]
    }

    pub(super) fn lock(&self, hash: u64) -> PartitionLock<'_> {
        // Buckets of one partition must share its lock: the partition is a function of the bucket.
        let bucket = (hash >> 32) as usize & (self.buckets.len() - 1);
        PartitionLock {
            _lock: self.partitions[bucket % PARTITIONS].lock(),
        }
    }

    /// Finds and pins without a lock; the frame and its state. `None` may be wrong.
    #[inline]
    pub(super) fn find(
        &self,
        frames: &FrameArray,
        hash: u64,
        id: &PageId,
        bump: bool,
    ) -> Option<(FrameRef, u32)> {
        let frames = frames.as_slice();
        let mut index = self.bucket(hash).load(Ordering::Acquire);
        for _ in 0..MAX_UNLOCKED_STEPS {
            let frame = frames.get(index as usize)?;
            if frame.holds(id) {
                return frame
                    .try_pin(id, bump)
                    .map(|state| (FrameRef::pinned(frame), state));
            }
            index = frame.next.load(Ordering::Acquire);
        }
        None
    }

    /// The frame that stands under this id, pinned by nobody yet; certain, under the partition's lock.
    pub(super) fn find_locked(
        &self,
        frames: &FrameArray,
        _lock: &PartitionLock<'_>,
        hash: u64,
        id: &PageId,
    ) -> Option<u32> {
        let frames = frames.as_slice();
        let mut index = self.bucket(hash).load(Ordering::Acquire);
        while let Some(frame) = frames.get(index as usize) {
            if frame.holds(id) {
                return Some(index);
            }
            index = frame.next.load(Ordering::Acquire);
        }
        None
    }

    /// Puts a claimed frame, its tag set, into its chain.
    pub(super) fn insert(&self, frames: &FrameArray, _lock: &PartitionLock<'_>, hash: u64, index: u32) {
        let bucket = self.bucket(hash);
        frames.as_slice()[index as usize]
            .next
            .store(bucket.load(Ordering::Relaxed), Ordering::Relaxed);
        bucket.store(index, Ordering::Release);
    }

    /// Takes a frame out of its chain.
    pub(super) fn remove(&self, frames: &FrameArray, _lock: &PartitionLock<'_>, hash: u64, index: u32) {
        let frames = frames.as_slice();
        let mut link = self.bucket(hash);
        loop {
            let at = link.load(Ordering::Acquire);
            let Some(frame) = frames.get(at as usize) else {
                debug_assert!(false, "a tagged frame stands in its chain");
                return;
            };
            if at == index {
                link.store(frame.next.load(Ordering::Acquire), Ordering::Release);
                return;
            }
            link = &frame.next;
        }
    }
}
