//! The fixed array of live transactions: what each one's snapshot needs, its xid, and the commit in flight.
//!
//! One slot per open transaction, claimed and freed without a lock. Everything that must be known of *all* transactions is read
//! here by scanning (the oldest snapshot, the lowest commit bound, who runs an xid), so a transaction pays one store where
//! others would pay a shared list.
//!
//! - `snapshot`: an LSN not above the snapshot in use, or none. Published before `visible` is read again (C1), so a horizon computed from
//!   (`visible`, then the slots) is never above any snapshot that can still be used.
//! - `bound`: a lower bound of the commit record being inserted, or none. `visible` never passes the lowest one (C1).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use towline_base::{Lsn, SqlState, Xid};

use crate::error::{AccessError, Result};
use crate::locks::OwnerId;
use crate::session::{Interrupt, Interrupts};

/// No snapshot, no bound.
const NONE: u64 = u64::MAX;

#[derive(Debug)]
struct Slot {
    used: AtomicBool,
    generation: AtomicU32,
    snapshot: AtomicU64,
    bound: AtomicU64,
    xid: AtomicU64,
    pid: AtomicU32,
    /// The transaction told standbys of an access exclusive lock.
    logged_locks: AtomicBool,
    interrupts: Mutex<Option<Arc<Interrupts>>>,
}

/// The slots of a node.
#[derive(Debug)]
pub struct TxnSlots {
    slots: Box<[CachePadded<Slot>]>,
    /// Slots at and above this were never used: scans stop here.
    high: AtomicU32,
    /// Where the next claim begins to look.
    hint: AtomicU32,
}

impl TxnSlots {
    /// Room for `max` open transactions.
    pub fn new(max: usize) -> Arc<Self> {
        let slots = (0..max.max(1))
            .map(|_| {
                CachePadded::new(Slot {
                    used: AtomicBool::new(false),
                    generation: AtomicU32::new(0),
                    snapshot: AtomicU64::new(NONE),
                    bound: AtomicU64::new(NONE),
                    xid: AtomicU64::new(0),
                    pid: AtomicU32::new(0),
                    logged_locks: AtomicBool::new(false),
                    interrupts: Mutex::new(None),
                })
            })
            .collect();
        Arc::new(TxnSlots {
            slots,
            high: AtomicU32::new(0),
            hint: AtomicU32::new(0),
        })
    }

    /// Takes a free slot; 53300 when there is none.
    pub fn claim(self: &Arc<Self>, pid: u32, interrupts: Option<Arc<Interrupts>>) -> Result<SlotGuard> {
        let count = self.slots.len() as u32;
        // The slot freed last is tried first: slots in use stay few and low, so scans stay short.
        let start = self.hint.load(Ordering::Relaxed).min(count - 1);
        let order = std::iter::once(start).chain(0..count);
        for index in order {
            let slot = &self.slots[index as usize];
            if slot.used.load(Ordering::Relaxed) {
                continue;
            }
            if slot
                .used
                .compare_exchange(false, true, Ordering::SeqCst, Ordering::Relaxed)
                .is_err()
            {
                continue;
            }
            self.high.fetch_max(index + 1, Ordering::SeqCst);
            let generation = slot.generation.fetch_add(1, Ordering::SeqCst).wrapping_add(1) & 0x7FFF_FFFF;
            slot.pid.store(pid, Ordering::Relaxed);
            *slot.interrupts.lock() = interrupts;
            let owner = OwnerId(u64::from(generation) << 32 | u64::from(index));
            return Ok(SlotGuard {
                slots: Arc::clone(self),
                index,
                owner,
                kept: false,
            });
        }
        Err(
            AccessError::new(SqlState::TOO_MANY_CONNECTIONS, "too many transactions are open")
                .with_hint("Increase max_connections."),
        )
    }

    fn live(&self) -> &[CachePadded<Slot>] {
        &self.slots[..self.high.load(Ordering::SeqCst) as usize]
    }

    /// The oldest published snapshot, if any.
    pub fn oldest_snapshot(&self) -> Option<Lsn> {
        let oldest = self
            .live()
            .iter()
            .map(|slot| slot.snapshot.load(Ordering::SeqCst))
            .min()?;
        (oldest != NONE).then_some(Lsn(oldest))
    }

    /// The lowest bound of a commit in flight, if any.
    pub fn lowest_bound(&self) -> Option<Lsn> {
        let lowest = self
            .live()
            .iter()
            .map(|slot| slot.bound.load(Ordering::SeqCst))
            .min()?;
        (lowest != NONE).then_some(Lsn(lowest))
    }

    /// The lowest xid of an open transaction, if any has one.
    pub fn oldest_xid(&self) -> Option<Xid> {
        self.live()
            .iter()
            .map(|slot| slot.xid.load(Ordering::SeqCst))
            .filter(|xid| *xid != 0)
            .min()
            .map(Xid)
    }

    /// Every xid in use.
    pub fn running_xids(&self) -> Vec<Xid> {
        let mut xids: Vec<Xid> = self
            .live()
            .iter()
            .map(|slot| Xid(slot.xid.load(Ordering::SeqCst)))
            .filter(|xid| xid.is_valid())
            .collect();
        xids.sort_unstable();
        xids
    }

    /// The transaction that runs `xid`.
    pub fn owner_of(&self, xid: Xid) -> Option<OwnerId> {
        let index = self
            .live()
            .iter()
            .position(|slot| slot.xid.load(Ordering::SeqCst) == xid.0)?;
        let generation = self.slots[index].generation.load(Ordering::SeqCst) & 0x7FFF_FFFF;
        Some(OwnerId(u64::from(generation) << 32 | index as u64))
    }

    /// The process number of an owner's session, 0 for none.
    pub fn pid_of(&self, owner: OwnerId) -> u32 {
        if owner.is_replayed() {
            return 0;
        }
        self.slots
            .get(owner.slot() as usize)
            .map_or(0, |slot| slot.pid.load(Ordering::Relaxed))
    }

    /// Interrupts the session of every transaction whose snapshot is below `lsn`; returns how many.
    pub fn cancel_snapshots_below(&self, lsn: Lsn) -> usize {
        let mut cancelled = 0;
        for slot in self.live() {
            if slot.snapshot.load(Ordering::SeqCst) < lsn.0
                && let Some(interrupts) = slot.interrupts.lock().as_ref()
            {
                interrupts.raise(Interrupt::Conflict);
                cancelled += 1;
            }
        }
        cancelled
    }

    /// Interrupts one transaction's session.
    pub fn cancel_owner(&self, owner: OwnerId) -> bool {
        if owner.is_replayed() {
            return false;
        }
        let Some(slot) = self.slots.get(owner.slot() as usize) else {
            return false;
        };
        let interrupts = slot.interrupts.lock();
        let Some(interrupts) = interrupts.as_ref() else {
            return false;
        };
        interrupts.raise(Interrupt::Conflict);
        true
    }
}

/// A claimed slot; dropping it frees it.
#[derive(Debug)]
pub struct SlotGuard {
    slots: Arc<TxnSlots>,
    index: u32,
    owner: OwnerId,
    /// The slot is never freed: see [`SlotGuard::keep_bound`].
    kept: bool,
}

impl SlotGuard {
    fn slot(&self) -> &Slot {
        &self.slots.slots[self.index as usize]
    }

    /// The identity under which this transaction holds locks.
    pub fn owner(&self) -> OwnerId {
        self.owner
    }

    /// The process number of the session.
    pub fn pid(&self) -> u32 {
        self.slot().pid.load(Ordering::Relaxed)
    }

    /// Publishes a lower bound of the snapshot, or none.
    pub fn set_snapshot(&self, lsn: Option<Lsn>) {
        self.slot()
            .snapshot
            .store(lsn.map_or(NONE, |lsn| lsn.0), Ordering::SeqCst);
    }

    /// What is published.
    pub fn snapshot(&self) -> Option<Lsn> {
        let lsn = self.slot().snapshot.load(Ordering::Relaxed);
        (lsn != NONE).then_some(Lsn(lsn))
    }

    /// Registers the lower bound of a commit record about to be inserted, or clears it.
    pub fn set_bound(&self, lsn: Option<Lsn>) {
        self.slot()
            .bound
            .store(lsn.map_or(NONE, |lsn| lsn.0), Ordering::SeqCst);
    }

    /// The commit in flight will never be complete: the bound outlives the transaction, so that nothing at or behind the commit
    /// becomes visible before the node has stopped.
    pub fn keep_bound(&mut self) {
        self.kept = true;
    }

    /// Remembers that standbys hold a lock for this transaction.
    pub fn set_logged_locks(&self) {
        self.slot().logged_locks.store(true, Ordering::Relaxed);
    }

    /// Whether standbys hold a lock for this transaction.
    pub fn logged_locks(&self) -> bool {
        self.slot().logged_locks.load(Ordering::Relaxed)
    }

    /// Publishes the xid (`Xid::INVALID` when it has ended).
    pub fn set_xid(&self, xid: Xid) {
        self.slot().xid.store(xid.0, Ordering::SeqCst);
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let slot = self.slot();
        slot.snapshot.store(NONE, Ordering::SeqCst);
        slot.bound.store(NONE, Ordering::SeqCst);
        slot.xid.store(0, Ordering::SeqCst);
        slot.logged_locks.store(false, Ordering::Relaxed);
        *slot.interrupts.lock() = None;
        slot.used.store(false, Ordering::SeqCst);
        self.slots.hint.store(self.index, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_oldest_snapshot_and_the_lowest_bound_are_found_by_scanning() {
        let slots = TxnSlots::new(3);
        assert_eq!(slots.oldest_snapshot(), None);
        let a = slots.claim(1, None).unwrap();
        let b = slots.claim(2, None).unwrap();
        a.set_snapshot(Some(Lsn(30)));
        b.set_snapshot(Some(Lsn(20)));
        b.set_bound(Some(Lsn(7)));
        assert_eq!(slots.oldest_snapshot(), Some(Lsn(20)));
        assert_eq!(slots.lowest_bound(), Some(Lsn(7)));
        drop(b);
        assert_eq!(slots.oldest_snapshot(), Some(Lsn(30)));
        assert_eq!(slots.lowest_bound(), None);
    }

    /// The bound of a commit whose CSN could not be stored fell with its transaction, and `visible` passed the commit.
    #[test]
    fn a_kept_bound_outlives_its_transaction() {
        let slots = TxnSlots::new(2);
        let mut slot = slots.claim(1, None).unwrap();
        slot.set_bound(Some(Lsn(7)));
        slot.keep_bound();
        drop(slot);
        assert_eq!(slots.lowest_bound(), Some(Lsn(7)));
    }

    #[test]
    fn a_freed_slot_gets_a_new_owner() {
        let slots = TxnSlots::new(1);
        let first = slots.claim(1, None).unwrap().owner();
        let second = slots.claim(1, None).unwrap();
        assert_ne!(first, second.owner());
        assert!(slots.claim(1, None).is_err());
    }
}
