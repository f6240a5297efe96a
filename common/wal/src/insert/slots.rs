//! Insertion slots: who is copying into the buffers, and from where on.
//!
//! A slot holds a lower bound of the position that its inserter writes to, or [`IDLE`]. It is taken before space is reserved and
//! given up after the copy, so that "everything reserved is complete, except from the lowest slot on" always holds.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::format::BytePosition;

const IDLE: u64 = u64::MAX;
/// More than the threads that can be inside an insertion at once on the machines we expect; others wait their turn.
const SLOTS: usize = 16;

/// The slots of one log.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: [CachePadded<AtomicU64>; SLOTS],
}

/// A taken slot; dropping it tells that the copy is complete.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    cell: &'a AtomicU64,
}

thread_local! {
    /// The slot this thread used last: mostly free again, and its cache line is here.
    static HINT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Spreads threads over the slots.
static NEXT_HINT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

impl Slots {
    pub(crate) fn new() -> Self {
        Self {
            slots: std::array::from_fn(|_| CachePadded::new(AtomicU64::new(IDLE))),
        }
    }

    /// Takes a slot with the reserved position read now as lower bound: what is reserved afterwards lies above it.
    pub(crate) fn take(&self, reserved: &AtomicU64) -> Slot<'_> {
        let mut index = HINT.get();
        if index == usize::MAX {
            index = NEXT_HINT.fetch_add(1, Ordering::Relaxed) % SLOTS;
        }
        let mut tried = 0;
        loop {
            let cell = &*self.slots[index];
            let bound = reserved.load(Ordering::Acquire);
            if cell.load(Ordering::Relaxed) == IDLE
                && cell
                    .compare_exchange(IDLE, bound, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            {
                HINT.set(index);
                return Slot { cell };
            }
            index = (index + 1) % SLOTS;
            tried += 1;
            if tried % SLOTS == 0 {
                std::thread::yield_now();
            }
        }
    }

    /// The position up to which everything is copied.
    ///
    /// `reserved` is read first: an inserter stores its slot before it raises `reserved`, so whoever's space is included in the
    /// value read is seen here, unless it has finished, and then (acquire on the slot) its bytes are seen.
    pub(crate) fn complete(&self, reserved: &AtomicU64) -> BytePosition {
        let mut complete = reserved.load(Ordering::Acquire);
        for slot in &self.slots {
            complete = complete.min(slot.load(Ordering::Acquire));
        }
        BytePosition(complete)
    }
}

impl Slot<'_> {
    /// Raises the lower bound to the reservation's start.
    pub(crate) fn refine(&self, start: BytePosition) {
        self.cell.store(start.0, Ordering::Release);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.cell.store(IDLE, Ordering::Release);
    }
}
