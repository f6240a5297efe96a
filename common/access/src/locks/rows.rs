//! Row queues and transaction ends: who waits for a row, and who is woken when a transaction ends.
//!
//! A row's lock is its `xmax` on the page. Whoever finds it taken by a running transaction X joins the row's queue, keyed by
//! (relation, tid), and looks at X once more before it sleeps (so no wake-up is lost). Rules (C8):
//!
//! - Only the head of a queue is registered with X, so only the head is woken when X ends.
//! - A head that took the row hands the queue on: it is re-keyed to the row's new version, and the next in line now
//!   waits for the head's own xid, without being woken.
//! - A head that leaves without taking the row (cancelled, row gone, condition false) wakes the next.
//! - Waits for a transaction without a row (a unique key that it may insert) are registered directly.
//!
//! `RowWaits::xid_ended` runs at each commit of a writer: it is one load unless somebody may be waiting. A waiter counts itself in
//! `hints` before it re-checks X's status; X stores its status before it reads `hints`; a SeqCst fence stands between the two steps on
//! either side, so one sees the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use hashbrown::HashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use towline_base::{Tid, Xid};

use super::{LockManager, OwnerId};
use crate::step::WaitCell;

/// A row: the relation's oid and the tuple's address.
pub type RowKey = (u32, Tid);

const HINTS: usize = 256;

#[derive(Debug)]
pub(super) struct RowWaiter {
    pub(super) owner: OwnerId,
    cell: Arc<WaitCell>,
}

#[derive(Debug)]
pub(super) struct RowQueue {
    pub(super) waiters: VecDeque<RowWaiter>,
    /// The transaction that the head waits for.
    pub(super) blocker: Xid,
}

/// Who is woken when a transaction ends.
type XidWaiters = SmallVec<[(OwnerId, Arc<WaitCell>); 2]>;

#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) queues: HashMap<RowKey, RowQueue>,
    /// The queue each waiting owner stands in (one at a time), followed when queues move on to the successor.
    standing: HashMap<OwnerId, RowKey>,
    /// Whom to wake when the xid ends.
    pub(super) by_xid: HashMap<Xid, XidWaiters>,
}

/// All row queues.
#[derive(Debug)]
pub struct RowWaits {
    hints: Box<[AtomicU32]>,
    pub(super) tables: Mutex<Tables>,
}

impl Tables {
    fn register(&mut self, hints: &[AtomicU32], xid: Xid, owner: OwnerId, cell: Arc<WaitCell>) {
        let waiters = self.by_xid.entry(xid).or_default();
        if let Some(entry) = waiters.iter_mut().find(|(other, _)| *other == owner) {
            entry.1 = cell;
            return;
        }
        waiters.push((owner, cell));
        hints[xid.0 as usize % HINTS].fetch_add(1, Ordering::SeqCst);
    }

    fn unregister(&mut self, hints: &[AtomicU32], xid: Xid, owner: OwnerId) {
        let Some(waiters) = self.by_xid.get_mut(&xid) else {
            return;
        };
        let before = waiters.len();
        waiters.retain(|(other, _)| *other != owner);
        let removed = before - waiters.len();
        if waiters.is_empty() {
            self.by_xid.remove(&xid);
        }
        hints[xid.0 as usize % HINTS].fetch_sub(removed as u32, Ordering::SeqCst);
    }
}

impl RowWaits {
    pub(super) fn new() -> Self {
        RowWaits {
            hints: (0..HINTS).map(|_| AtomicU32::new(0)).collect(),
            tables: Mutex::default(),
        }
    }

    /// Joins (or stays in) the queue of `key`, whose row is taken by `blocker`. The caller re-checks `blocker` after this.
    fn join(&self, owner: OwnerId, key: RowKey, blocker: Xid) -> Arc<WaitCell> {
        let cell = WaitCell::new();
        let mut next_in_old_queue = None;
        let mut guard = self.tables.lock();
        let tables = &mut *guard;
        if tables
            .standing
            .get(&owner)
            .is_some_and(|standing| *standing != key)
        {
            // The row was followed to a version outside the queue's own succession: leave the old queue first. Whoever is first
            // there now must look for itself: nobody else would wake it.
            next_in_old_queue = self.leave_locked(tables, owner, None);
        }
        tables.standing.insert(owner, key);
        let queue = tables.queues.entry(key).or_insert_with(|| RowQueue {
            waiters: VecDeque::new(),
            blocker,
        });
        let place = match queue.waiters.iter().position(|waiter| waiter.owner == owner) {
            Some(place) => {
                queue.waiters[place].cell = Arc::clone(&cell);
                place
            }
            None => {
                queue.waiters.push_back(RowWaiter {
                    owner,
                    cell: Arc::clone(&cell),
                });
                queue.waiters.len() - 1
            }
        };
        if place == 0 {
            let before = std::mem::replace(&mut queue.blocker, blocker);
            if before != blocker {
                tables.unregister(&self.hints, before, owner);
            }
            tables.register(&self.hints, blocker, owner, Arc::clone(&cell));
        }
        drop(guard);
        if let Some(next) = next_in_old_queue {
            next.ring();
        }
        fence(Ordering::SeqCst);
        cell
    }

    /// Leaves the queue the owner stands in. `took` is the row's new address and the owner's xid when it took the row.
    /// Returns the cell to ring, outside the lock.
    fn leave_locked(
        &self,
        tables: &mut Tables,
        owner: OwnerId,
        took: Option<(Tid, Xid)>,
    ) -> Option<Arc<WaitCell>> {
        let key = tables.standing.remove(&owner)?;
        let mut queue = tables.queues.remove(&key)?;
        let Some(place) = queue.waiters.iter().position(|waiter| waiter.owner == owner) else {
            tables.queues.insert(key, queue);
            return None;
        };
        queue.waiters.remove(place);
        if place == 0 {
            tables.unregister(&self.hints, queue.blocker, owner);
        }
        let head = queue.waiters.front()?;
        let (head_owner, head_cell) = (head.owner, Arc::clone(&head.cell));
        match took {
            Some((tid, xid)) => {
                // The row belongs to the leaver now, wherever it stood: the whole queue waits for it, at the new version.
                if place != 0 {
                    let before = queue.blocker;
                    tables.unregister(&self.hints, before, head_owner);
                }
                let new_key = (key.0, tid);
                for waiter in &queue.waiters {
                    tables.standing.insert(waiter.owner, new_key);
                }
                match tables.queues.get_mut(&new_key) {
                    // Others stand there already, for what had the address before. They have a head, who is woken; ours have none any more.
                    Some(existing) => existing.waiters.extend(queue.waiters),
                    None => {
                        queue.blocker = xid;
                        tables.register(&self.hints, xid, head_owner, head_cell);
                        tables.queues.insert(new_key, queue);
                    }
                }
                None
            }
            None => {
                tables.queues.insert(key, queue);
                (place == 0).then_some(head_cell)
            }
        }
    }

    fn leave(&self, owner: OwnerId, took: Option<(Tid, Xid)>) {
        let ring = self.leave_locked(&mut self.tables.lock(), owner, took);
        if let Some(cell) = ring {
            cell.ring();
        }
    }

    fn register_xid(&self, owner: OwnerId, xid: Xid) -> Arc<WaitCell> {
        let cell = WaitCell::new();
        self.tables
            .lock()
            .register(&self.hints, xid, owner, Arc::clone(&cell));
        fence(Ordering::SeqCst);
        cell
    }

    fn unregister_xid(&self, owner: OwnerId, xid: Xid) {
        self.tables.lock().unregister(&self.hints, xid, owner);
    }

    pub(super) fn xid_ended(&self, xid: Xid) {
        fence(Ordering::SeqCst);
        if self.hints[xid.0 as usize % HINTS].load(Ordering::SeqCst) == 0 {
            return;
        }
        let woken = {
            let mut tables = self.tables.lock();
            let Some(woken) = tables.by_xid.remove(&xid) else {
                return;
            };
            self.hints[xid.0 as usize % HINTS].fetch_sub(woken.len() as u32, Ordering::SeqCst);
            woken
        };
        for (_, cell) in woken {
            cell.ring();
        }
    }

    #[cfg(test)]
    fn is_idle(&self) -> bool {
        let tables = self.tables.lock();
        tables.queues.is_empty()
            && tables.standing.is_empty()
            && tables.by_xid.is_empty()
            && self.hints.iter().all(|hint| hint.load(Ordering::SeqCst) == 0)
    }
}

/// An operation's place in a row queue, or its registration with a transaction. Dropping it gives the place up and wakes the next.
#[derive(Debug)]
pub struct RowTicket {
    locks: Arc<LockManager>,
    owner: OwnerId,
    /// Set when this waits for a transaction alone.
    xid_only: Option<Xid>,
    cell: Arc<WaitCell>,
    handed_on: bool,
}

impl RowTicket {
    /// Joins the queue of a row that `blocker` has taken. Re-check `blocker`'s status afterwards.
    pub fn row(locks: &Arc<LockManager>, owner: OwnerId, key: RowKey, blocker: Xid) -> Self {
        let cell = locks.rows.join(owner, key, blocker);
        RowTicket {
            locks: Arc::clone(locks),
            owner,
            xid_only: None,
            cell,
            handed_on: false,
        }
    }

    /// Waits for the end of a transaction. Re-check its status afterwards.
    pub fn xid(locks: &Arc<LockManager>, owner: OwnerId, xid: Xid) -> Self {
        let cell = locks.rows.register_xid(owner, xid);
        RowTicket {
            locks: Arc::clone(locks),
            owner,
            xid_only: Some(xid),
            cell,
            handed_on: false,
        }
    }

    /// Stays at the same place for another wait (the row was taken by somebody else first).
    pub fn again(&mut self, key: RowKey, blocker: Xid) {
        if let Some(xid) = self.xid_only.take() {
            self.locks.rows.unregister_xid(self.owner, xid);
        }
        self.cell = self.locks.rows.join(self.owner, key, blocker);
    }

    /// The owner took the row and its newest version is now at `tid`: the rest of the queue waits for `xid` there.
    pub fn hand_on(mut self, tid: Tid, xid: Xid) {
        if self.xid_only.is_none() {
            self.handed_on = true;
            self.locks.rows.leave(self.owner, Some((tid, xid)));
        }
    }

    /// The bell.
    pub fn cell(&self) -> &Arc<WaitCell> {
        &self.cell
    }
}

impl Drop for RowTicket {
    fn drop(&mut self) {
        if self.handed_on {
            return;
        }
        match self.xid_only {
            Some(xid) => self.locks.rows.unregister_xid(self.owner, xid),
            None => self.locks.rows.leave(self.owner, None),
        }
    }
}

#[cfg(test)]
#[path = "rows_schedule_tests.rs"]
mod schedule_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::slots::TxnSlots;

    const ROW: RowKey = (1, Tid { block: 0, offset: 1 });

    fn locks() -> Arc<LockManager> {
        LockManager::new(TxnSlots::new(8))
    }

    #[test]
    fn only_the_head_wakes_and_the_queue_follows_the_row() {
        let locks = locks();
        let holder = Xid(10);
        let first = RowTicket::row(&locks, OwnerId(1), ROW, holder);
        let second = RowTicket::row(&locks, OwnerId(2), ROW, holder);
        let third = RowTicket::row(&locks, OwnerId(3), ROW, holder);
        locks.xid_ended(holder);
        assert!(first.cell().is_rung() && !second.cell().is_rung() && !third.cell().is_rung());
        // The head updates the row: nobody wakes, the queue now waits for xid 11 at the new version.
        first.hand_on(Tid::new(0, 2), Xid(11));
        assert!(!second.cell().is_rung());
        locks.xid_ended(Xid(11));
        assert!(second.cell().is_rung() && !third.cell().is_rung());
        // The new head gives up: the next is woken at once.
        drop(second);
        assert!(third.cell().is_rung());
        drop(third);
        assert!(locks.rows.is_idle());
    }

    #[test]
    fn a_waiter_that_leaves_from_the_middle_disturbs_nobody() {
        let locks = locks();
        let first = RowTicket::row(&locks, OwnerId(1), ROW, Xid(10));
        let second = RowTicket::row(&locks, OwnerId(2), ROW, Xid(10));
        let third = RowTicket::row(&locks, OwnerId(3), ROW, Xid(10));
        drop(second);
        locks.xid_ended(Xid(10));
        assert!(first.cell().is_rung() && !third.cell().is_rung());
        drop(first);
        assert!(third.cell().is_rung());
        drop(third);
        assert!(locks.rows.is_idle());
    }

    #[test]
    fn a_head_overtaken_by_a_newcomer_stays_head() {
        let locks = locks();
        let mut first = RowTicket::row(&locks, OwnerId(1), ROW, Xid(10));
        let second = RowTicket::row(&locks, OwnerId(2), ROW, Xid(10));
        locks.xid_ended(Xid(10));
        assert!(first.cell().is_rung());
        first.again(ROW, Xid(12));
        assert!(!first.cell().is_rung());
        locks.xid_ended(Xid(12));
        assert!(first.cell().is_rung() && !second.cell().is_rung());
        drop(first);
        drop(second);
        assert!(locks.rows.is_idle());
    }

    /// The head followed the row to a version that a newcomer had taken; those behind it in the old queue slept for ever.
    #[test]
    fn a_head_that_follows_the_row_elsewhere_wakes_the_next_in_line() {
        let locks = locks();
        let mut first = RowTicket::row(&locks, OwnerId(1), ROW, Xid(10));
        let second = RowTicket::row(&locks, OwnerId(2), ROW, Xid(10));
        locks.xid_ended(Xid(10));
        assert!(first.cell().is_rung() && !second.cell().is_rung());
        first.again((1, Tid::new(0, 2)), Xid(12));
        assert!(second.cell().is_rung());
        drop(second);
        locks.xid_ended(Xid(12));
        drop(first);
        assert!(locks.rows.is_idle());
    }

    /// Every way to give up is a dropped ticket: a cancel, a timeout, a terminated session, a client that has gone, a panic.
    #[test]
    fn a_head_that_gives_up_passes_its_turn_on_whenever_it_does() {
        // Before it was woken, after it was, and after it has joined again.
        for stage in 0..3 {
            let locks = locks();
            let mut first = RowTicket::row(&locks, OwnerId(1), ROW, Xid(10));
            let second = RowTicket::row(&locks, OwnerId(2), ROW, Xid(10));
            let third = RowTicket::row(&locks, OwnerId(3), ROW, Xid(10));
            if stage > 0 {
                locks.xid_ended(Xid(10));
            }
            if stage > 1 {
                first.again(ROW, Xid(12));
            }
            let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _first = first;
                std::panic::resume_unwind(Box::new(()));
            }));
            assert!(unwound.is_err());
            assert!(second.cell().is_rung() && !third.cell().is_rung(), "{stage}");
            // The next gives up too, before it ran.
            drop(second);
            assert!(third.cell().is_rung(), "{stage}");
            drop(third);
            assert!(locks.rows.is_idle(), "{stage}");
        }
    }

    /// The first of the queue that was moved stayed registered with an xid although it was no head any more: its edge in the waits-for graph
    /// outlived its wait.
    #[test]
    fn a_queue_that_moves_to_an_address_where_others_wait_stands_behind_them() {
        let locks = locks();
        let reused = (1, Tid::new(0, 2));
        let elsewhere = RowTicket::row(&locks, OwnerId(7), reused, Xid(20));
        let first = RowTicket::row(&locks, OwnerId(1), ROW, Xid(10));
        let second = RowTicket::row(&locks, OwnerId(2), ROW, Xid(10));
        locks.xid_ended(Xid(10));
        first.hand_on(reused.1, Xid(11));
        drop(second);
        locks.xid_ended(Xid(20));
        assert!(elsewhere.cell().is_rung());
        drop(elsewhere);
        assert!(locks.rows.is_idle());
    }

    #[test]
    fn an_xid_wait_needs_no_row() {
        let locks = locks();
        let wait = RowTicket::xid(&locks, OwnerId(1), Xid(10));
        locks.xid_ended(Xid(11));
        assert!(!wait.cell().is_rung());
        locks.xid_ended(Xid(10));
        assert!(wait.cell().is_rung());
        drop(wait);
        assert!(locks.rows.is_idle());
    }
}
