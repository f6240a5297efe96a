//! What a statement sees: an LSN (I1), and the transaction's own changes by command id.

use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use towline_base::{Lsn, LsnWatch, Xid};

use super::slots::{SlotGuard, TxnSlots};

/// A snapshot: exactly the transactions whose commit LSN is at most `lsn`, and what the own transaction did before `command`.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// The LSN.
    pub lsn: Lsn,
    /// The own xid when the snapshot was taken, or `Xid::INVALID`.
    pub xid: Xid,
    /// Own changes of this command and later ones are not seen.
    pub command: u32,
    /// The next xid when it was taken: the reference from which tuples' 32-bit xids are widened.
    pub next_xid: Xid,
}

/// Takes a snapshot and registers it in the slot.
///
/// The order matters (C1): a lower bound is published first and `visible` is read again after. Whoever computes a horizon reads
/// `visible` first and the slots second; if it missed this slot, its `visible` was read before the one used here.
pub(crate) fn take(slot: &SlotGuard, visible: &LsnWatch) -> Lsn {
    slot.set_snapshot(Some(visible.get()));
    std::sync::atomic::fence(Ordering::SeqCst);
    visible.get()
}

/// The horizon below which nobody looks: the commits at or below it are seen by everybody, now and later.
#[derive(Debug)]
pub(crate) struct Horizon {
    /// What standbys still need (feedback), or none.
    feedback: AtomicU64,
    /// The last computed horizon, and the `visible` it was computed at.
    cached: AtomicU64,
    cached_at: AtomicU64,
    /// No horizon was ever higher, before the start included; 0 before the first.
    highest: AtomicU64,
}

const NO_FEEDBACK: u64 = u64::MAX;

impl Horizon {
    pub(crate) fn new() -> Self {
        Horizon {
            feedback: AtomicU64::new(NO_FEEDBACK),
            cached: AtomicU64::new(0),
            cached_at: AtomicU64::new(u64::MAX),
            highest: AtomicU64::new(0),
        }
    }

    /// At least every horizon computed so far. The horizon itself falls when a standby reports an older snapshot, so what was judged
    /// dead by an earlier one is removed under this conflict LSN.
    pub(crate) fn highest(&self) -> Lsn {
        Lsn(self.highest.load(Ordering::SeqCst))
    }

    /// The oldest snapshot that any standby reported, or none.
    pub(crate) fn set_feedback(&self, oldest: Option<Lsn>) {
        self.feedback
            .store(oldest.map_or(NO_FEEDBACK, |lsn| lsn.0), Ordering::SeqCst);
        // What was computed without it is too high.
        self.cached.store(0, Ordering::SeqCst);
    }

    /// min(visible, live snapshots, feedback), computed now.
    pub(crate) fn compute(&self, slots: &TxnSlots, visible: &LsnWatch) -> Lsn {
        let seen = visible.get();
        std::sync::atomic::fence(Ordering::SeqCst);
        let snapshots = slots.oldest_snapshot().unwrap_or(Lsn::MAX);
        let horizon = seen.min(snapshots).min(Lsn(self.feedback.load(Ordering::SeqCst)));
        // Marks found on pages at the first look were made below what was visible then.
        let first = self.highest.load(Ordering::SeqCst) == 0;
        self.highest
            .fetch_max(if first { seen.0 } else { horizon.0 }, Ordering::SeqCst);
        self.cached_at.store(seen.0, Ordering::Relaxed);
        self.cached.store(horizon.0, Ordering::SeqCst);
        if self.feedback.load(Ordering::SeqCst) < horizon.0 {
            // Told since the first look: what it made void must not come back.
            self.cached.store(0, Ordering::SeqCst);
        }
        horizon
    }

    /// A horizon that was right a moment ago, and so is not too high now. Computed anew when `visible` has moved, or while something
    /// holds the horizon below it.
    pub(crate) fn recent(&self, slots: &TxnSlots, visible: &LsnWatch) -> Lsn {
        let (seen, cached) = (visible.get().0, self.cached.load(Ordering::Relaxed));
        if self.cached_at.load(Ordering::Relaxed) == seen && cached == seen {
            // Still right: a snapshot taken since is at least `visible`, and feedback is never below what it was told to hold.
            return Lsn(cached);
        }
        self.compute(slots, visible)
    }
}

/// Combo command ids: a tuple inserted and deleted by the same transaction stores one number for the pair (cmin, cmax).
#[derive(Debug, Default)]
pub struct ComboCids {
    pairs: Vec<(u32, u32)>,
    numbers: HashMap<(u32, u32), u32>,
}

impl ComboCids {
    /// The number of a pair.
    pub(crate) fn combo(&mut self, cmin: u32, cmax: u32) -> u32 {
        *self.numbers.entry((cmin, cmax)).or_insert_with(|| {
            self.pairs.push((cmin, cmax));
            (self.pairs.len() - 1) as u32
        })
    }

    /// The pair of a number; a number that this transaction never gave out reads as deleted by a later command.
    pub(crate) fn pair(&self, combo: u32) -> (u32, u32) {
        self.pairs.get(combo as usize).copied().unwrap_or((0, u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_horizon_is_held_back_by_snapshots_and_feedback() {
        let slots = TxnSlots::new(4);
        let (mut publisher, visible) = LsnWatch::new(Lsn(100));
        let horizon = Horizon::new();
        assert_eq!(horizon.compute(&slots, &visible), Lsn(100));
        let slot = slots.claim(1, None).unwrap();
        assert_eq!(take(&slot, &visible), Lsn(100));
        publisher.advance(Lsn(200));
        assert_eq!(horizon.recent(&slots, &visible), Lsn(100));
        drop(slot);
        assert_eq!(horizon.compute(&slots, &visible), Lsn(200));
        horizon.set_feedback(Some(Lsn(150)));
        assert_eq!(horizon.compute(&slots, &visible), Lsn(150));
        assert_eq!(horizon.highest(), Lsn(200));
    }

    #[test]
    fn combo_command_ids_are_shared_by_equal_pairs() {
        let mut combos = ComboCids::default();
        let first = combos.combo(1, 2);
        assert_ne!(first, combos.combo(1, 3));
        assert_eq!(first, combos.combo(1, 2));
        assert_eq!(combos.pair(first), (1, 2));
    }
}
