//! The recent pages of the CSN log: a fixed ring, read without a lock.
//!
//! Slot `page % len` holds page `number`. A reader loads the number, the entry, and the number again; the mover writes [`MOVING`] into the
//! number before it touches the entries and the new number after. If a reader saw an entry of the new page, it also sees, by
//! acquire on that entry, that the number has changed, and goes to the paged log. Writers of entries hold the slot's lock shared, the
//! mover holds it exclusively, so no outcome is lost while a page moves.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::{ENTRIES_PER_PAGE, Entries, empty_entries};

const EMPTY: u64 = u64::MAX;
const MOVING: u64 = u64::MAX - 1;

#[derive(Debug)]
struct RingPage {
    number: AtomicU64,
    dirty: AtomicBool,
    lock: RwLock<()>,
    /// Made when the first page enters, so that a large ring takes no memory before it is used.
    entries: OnceLock<Box<[AtomicU64]>>,
}

impl RingPage {
    fn entries(&self) -> &[AtomicU64] {
        self.entries
            .get_or_init(|| (0..ENTRIES_PER_PAGE).map(|_| AtomicU64::new(0)).collect())
    }
}

/// The ring.
#[derive(Debug)]
pub(super) struct Ring {
    pages: Box<[RingPage]>,
    /// One past the highest page in the ring.
    end: AtomicU64,
    /// The lowest page that ever entered it.
    first: AtomicU64,
}

impl Ring {
    pub(super) fn new(pages: usize) -> Self {
        let pages = (0..pages.max(2))
            .map(|_| RingPage {
                number: AtomicU64::new(EMPTY),
                dirty: AtomicBool::new(false),
                lock: RwLock::new(()),
                entries: OnceLock::new(),
            })
            .collect();
        Ring {
            pages,
            end: AtomicU64::new(0),
            first: AtomicU64::new(0),
        }
    }

    /// The first page to be pushed. Only before any push.
    pub(super) fn start_at(&self, page: u64) {
        self.end.store(page, Ordering::SeqCst);
        self.first.store(page, Ordering::SeqCst);
    }

    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(super) fn start(&self) -> u64 {
        self.end()
            .saturating_sub(self.pages.len() as u64)
            .max(self.first.load(Ordering::SeqCst))
    }

    fn slot(&self, page: u64) -> &RingPage {
        &self.pages[(page % self.pages.len() as u64) as usize]
    }

    pub(super) fn holds(&self, page: u64) -> bool {
        self.slot(page).number.load(Ordering::SeqCst) == page
    }

    #[inline]
    pub(super) fn get(&self, page: u64, index: usize) -> Option<u64> {
        let slot = self.slot(page);
        if slot.number.load(Ordering::Acquire) != page {
            return None;
        }
        let entry = slot.entries.get()?[index].load(Ordering::Acquire);
        (slot.number.load(Ordering::Acquire) == page).then_some(entry)
    }

    /// False when the page is not in the ring.
    pub(super) fn set(&self, page: u64, index: usize, entry: u64) -> bool {
        let slot = self.slot(page);
        let _shared = slot.lock.read();
        if slot.number.load(Ordering::Acquire) != page {
            return false;
        }
        slot.entries()[index].store(entry, Ordering::SeqCst);
        slot.dirty.store(true, Ordering::SeqCst);
        true
    }

    /// Puts `page`, the end of the ring, into its slot; returns what had to leave.
    pub(super) fn push(&self, page: u64, entries: &[u64; ENTRIES_PER_PAGE]) -> Option<(u64, Entries, bool)> {
        assert_eq!(page, self.end(), "pages enter the ring in order");
        let slot = self.slot(page);
        let leaving = {
            let _exclusive = slot.lock.write();
            let number = slot.number.load(Ordering::SeqCst);
            let leaving = (number != EMPTY).then(|| {
                (
                    number,
                    copy(slot.entries()),
                    slot.dirty.swap(false, Ordering::SeqCst),
                )
            });
            slot.number.store(MOVING, Ordering::SeqCst);
            for (target, entry) in slot.entries().iter().zip(entries) {
                target.store(*entry, Ordering::Release);
            }
            slot.number.store(page, Ordering::Release);
            leaving
        };
        self.end.store(page + 1, Ordering::Release);
        leaving
    }

    /// The pages that have changed since they were taken.
    pub(super) fn dirty(&self) -> Vec<u64> {
        let dirty = self.pages.iter().filter(|slot| slot.dirty.load(Ordering::SeqCst));
        dirty
            .map(|slot| slot.number.load(Ordering::SeqCst))
            .filter(|number| *number < MOVING)
            .collect()
    }

    /// A copy of a page, which is clean from here on: whoever cannot write it marks it dirty again. `None` when it is not in the ring.
    pub(super) fn take(&self, page: u64) -> Option<Entries> {
        let slot = self.slot(page);
        if slot.number.load(Ordering::SeqCst) != page {
            return None;
        }
        // Before the copy: an entry stored meanwhile marks the page again.
        slot.dirty.store(false, Ordering::SeqCst);
        Some(copy(slot.entries()))
    }

    pub(super) fn mark_dirty(&self, page: u64) {
        let slot = self.slot(page);
        if slot.number.load(Ordering::SeqCst) == page {
            slot.dirty.store(true, Ordering::SeqCst);
        }
    }
}

fn copy(entries: &[AtomicU64]) -> Entries {
    let mut copy = empty_entries();
    for (target, entry) in copy.iter_mut().zip(entries) {
        *target = entry.load(Ordering::SeqCst);
    }
    copy
}
