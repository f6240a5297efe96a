//! Replay: what redo does beside pages, and how a standby's readers are kept right meanwhile.
//!
//! - Commit and abort records set CSNs; their invalidations, drops and lock releases wait until the read horizon passes them.
//! - The read horizon moves only by [`Engine::publish_horizon`], to at most what is applied and what the quorum has (I9).
//! - A record that removes versions carries `conflict_lsn`: before any page of it is touched, the horizon is moved up to the record (its
//!   removers' commits are behind it, so new snapshots do not need the versions), and sessions with older snapshots are cancelled (B8).
//! - An exclusive lock from the primary is queued like any other; its holders here are cancelled and waited for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;
use towline_base::{Lsn, TimelineNumber, Xid};
use towline_storage::{Page, RedoContext, RedoError, ResourceManagers, Storage};
use towline_wal::Rmgr;
use towline_wal::format::DecodedRecord;
use towline_wal::records::btree::BtreeOp;
use towline_wal::records::heap2::{Heap2Op, HeapFreezePage, HeapPrune, HeapVacuum, HeapVisible};
use towline_wal::records::standby::{StandbyLocks, StandbyOp};
use towline_wal::records::towline::{TowlineOp, XidReservation};
use towline_wal::records::xact::{ParsedXactEnd, XactOp};
use towline_wal::records::xlog::{CheckPoint, EndOfRecovery, XlogOp};

use super::Engine;
use crate::csn::{CsnLog, XidStatus};
use crate::error::{AccessError, Result};
use crate::locks::{Acquired, LockManager, LockMode, LockTag, OwnerId};
use crate::release::{CommitQueue, Finish};
use crate::step::{Step, Wait, WaitKind};
use crate::txn::slots::TxnSlots;
use crate::txn::xids::XidSource;

/// What waits for the read horizon to pass it.
#[derive(Debug)]
struct Finished {
    lsn: Lsn,
    xid: Xid,
    finish: Finish,
}

#[derive(Debug, Default)]
struct Pending {
    finished: VecDeque<Finished>,
    /// Relations that a replayed transaction has locked.
    locks: HashMap<Xid, Vec<u32>>,
}

/// The access layer's half of redo.
#[derive(Debug)]
pub(crate) struct Managers {
    pub(crate) csn: Arc<CsnLog>,
    pub(crate) xids: Arc<XidSource>,
    pub(crate) locks: Arc<LockManager>,
    pub(crate) slots: Arc<TxnSlots>,
    pub(crate) release: Arc<CommitQueue>,
    /// Whether anybody can read meanwhile. Crash recovery has no readers.
    pub(crate) hot: AtomicBool,
    /// No page on disk, as found at the start, is from behind this position or from a later timeline.
    found: (Lsn, TimelineNumber),
    pending: Mutex<Pending>,
}

impl Managers {
    /// `hot` is for a node that others read meanwhile: no page on disk is from behind this position or from a later timeline. `None` in
    /// crash recovery.
    pub(crate) fn new(
        csn: Arc<CsnLog>,
        xids: Arc<XidSource>,
        locks: Arc<LockManager>,
        slots: Arc<TxnSlots>,
        release: Arc<CommitQueue>,
        hot: Option<(Lsn, TimelineNumber)>,
    ) -> Arc<Self> {
        Arc::new(Managers {
            csn,
            xids,
            locks,
            slots,
            release,
            hot: AtomicBool::new(hot.is_some()),
            found: hot.unwrap_or((Lsn::INVALID, TimelineNumber::FIRST)),
            pending: Mutex::default(),
        })
    }

    fn xid_of(&self, record: &DecodedRecord<'_>) -> Xid {
        Xid::from_low32(record.header.xid, self.xids.next())
    }

    fn apply(&self, record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>) -> Result<()> {
        if record.header.xid != 0 {
            self.xids.observe(self.xid_of(record));
        }
        match record.rmgr() {
            Rmgr::Heap => crate::heap::redo::heap(record, cx),
            Rmgr::Heap2 => crate::heap::redo::heap2(record, cx),
            // Its redo is called without this detour.
            Rmgr::Btree => Ok(()),
            Rmgr::Transaction => self.transaction(record, cx),
            Rmgr::Standby => self.standby(record),
            Rmgr::Towline => self.towline(record),
            Rmgr::Xlog => self.xlog(record, cx),
            Rmgr::Storage => Ok(()),
            Rmgr::Foreign(id) => Err(AccessError::corrupted(format!(
                "resource manager {id} is not known"
            ))),
        }
    }

    fn transaction(&self, record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>) -> Result<()> {
        let xid = self.xid_of(record);
        let end = ParsedXactEnd::decode(record.header.info, record.main)?;
        match XactOp::from_info(record.header.info) {
            Some(XactOp::Commit) => {
                for sub in end.subxacts.iter() {
                    let sub = Xid::from_low32(sub, self.xids.next());
                    self.csn.set(sub, XidStatus::Committed(record.end))?;
                }
                self.csn.set(xid, XidStatus::Committed(record.end))?;
                for rel in end.dropped.iter() {
                    cx.drop_relation(rel);
                }
                let finish = Finish {
                    invalidations: end.invalidations.iter().collect(),
                    dropped: Vec::new(),
                };
                self.finished(record.end, xid, finish);
            }
            Some(XactOp::Abort) => {
                for sub in end.subxacts.iter() {
                    self.csn
                        .set(Xid::from_low32(sub, self.xids.next()), XidStatus::Aborted)?;
                }
                self.csn.set(xid, XidStatus::Aborted)?;
                for rel in end.dropped.iter() {
                    cx.drop_relation(rel);
                }
                self.finished(record.end, xid, Finish::default());
            }
            Some(XactOp::Assignment | XactOp::Invalidations) => {}
            Some(XactOp::Prepare | XactOp::CommitPrepared | XactOp::AbortPrepared) | None => {
                return Err(AccessError::corrupted(format!(
                    "the transaction record at {} is of no known kind",
                    record.start
                )));
            }
        }
        Ok(())
    }

    fn finished(&self, lsn: Lsn, xid: Xid, finish: Finish) {
        let mut pending = self.pending.lock();
        if !self.hot.load(Ordering::Relaxed) {
            pending.locks.remove(&xid);
            return;
        }
        if !finish.invalidations.is_empty() || pending.locks.contains_key(&xid) {
            pending.finished.push_back(Finished { lsn, xid, finish });
        }
    }

    fn standby(&self, record: &DecodedRecord<'_>) -> Result<()> {
        if StandbyOp::from_info(record.header.info) != Some(StandbyOp::Lock) {
            return Ok(());
        }
        for lock in StandbyLocks::iter(record.main)? {
            let xid = Xid::from_low32(lock.xid, self.xids.next());
            // Already granted by `lock_conflicts` where there are readers.
            let tag = LockTag::Relation(lock.rel);
            if self.hot.load(Ordering::Relaxed) {
                self.locks
                    .relations
                    .grant_forced(OwnerId::replayed(xid), tag, LockMode::AccessExclusive);
                self.pending.lock().locks.entry(xid).or_default().push(lock.rel);
            }
        }
        Ok(())
    }

    fn towline(&self, record: &DecodedRecord<'_>) -> Result<()> {
        match TowlineOp::from_info(record.header.info) {
            Some(TowlineOp::XidReservation) => {
                let limit = Xid(XidReservation::decode(record.main)?.limit);
                self.xids.advance_to(limit);
                Ok(())
            }
            Some(TowlineOp::QuorumNote) => Ok(()),
            None => Err(AccessError::corrupted(format!(
                "the Towline record at {} is of no known kind",
                record.start
            ))),
        }
    }

    fn xlog(&self, record: &DecodedRecord<'_>, cx: &RedoContext<'_>) -> Result<()> {
        match XlogOp::from_info(record.header.info) {
            Some(XlogOp::CheckpointOnline | XlogOp::CheckpointShutdown) => {
                let body = CheckPoint::decode(record.main)?;
                self.xids.advance_to(Xid(body.next_xid));
                self.xids
                    .set_oldest_unfrozen(Xid::from_low32(body.oldest_xid, Xid(body.next_xid)));
            }
            Some(XlogOp::EndOfRecovery) => {
                self.timeline_begins();
                let timeline = TimelineNumber(EndOfRecovery::decode(record.main)?.timeline);
                // Otherwise pages may be ahead of the record, and so the catalog.
                let ahead = record.start >= self.found.0 && timeline > self.found.1;
                if self.hot.load(Ordering::Relaxed) && ahead {
                    self.sweep(cx.storage(), record.end);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A new timeline: whatever was running on the one before is gone, with its locks.
    pub(crate) fn timeline_begins(&self) {
        self.csn.set_first_of_timeline(self.xids.next());
        let locks = std::mem::take(&mut self.pending.lock().locks);
        for (xid, rels) in locks {
            self.release_locks(xid, &rels);
        }
    }

    /// No transaction runs: what no relation claims goes. Orphans only waste space, so a failure stops nothing.
    pub(crate) fn sweep(&self, storage: &Storage, logged: Lsn) {
        if let Err(error) = crate::vacuum::orphans::sweep(storage, &self.csn, self.xids.next(), logged) {
            tracing::warn!(%error, "files that belong to no relation were not looked for");
        }
    }

    fn release_locks(&self, xid: Xid, rels: &[u32]) {
        for rel in rels {
            self.locks
                .release(OwnerId::replayed(xid), LockTag::Relation(*rel));
        }
    }

    /// Moves the read horizon; what it passes is finished.
    fn publish(&self, horizon: Lsn) {
        let (finished, locks) = {
            let mut pending = self.pending.lock();
            let count = pending
                .finished
                .iter()
                .take_while(|entry| entry.lsn <= horizon)
                .count();
            let entries: Vec<Finished> = pending.finished.drain(..count).collect();
            let locks: Vec<(Xid, Vec<u32>)> = entries
                .iter()
                .filter_map(|entry| pending.locks.remove(&entry.xid).map(|rels| (entry.xid, rels)))
                .collect();
            let finished: Vec<(Lsn, Finish)> = entries
                .into_iter()
                .map(|entry| (entry.lsn, entry.finish))
                .collect();
            (finished, locks)
        };
        self.release.advance_horizon(horizon, &finished);
        for (xid, rels) in locks {
            self.release_locks(xid, &rels);
        }
    }

    /// Queues the primary's exclusive locks and cancels who is in their way. A wait while somebody still is.
    fn lock_conflicts(&self, record: &DecodedRecord<'_>) -> Result<Option<Wait>> {
        if record.rmgr() != Rmgr::Standby || StandbyOp::from_info(record.header.info) != Some(StandbyOp::Lock)
        {
            return Ok(None);
        }
        for lock in StandbyLocks::iter(record.main)? {
            let owner = OwnerId::replayed(Xid::from_low32(lock.xid, self.xids.next()));
            let tag = LockTag::Relation(lock.rel);
            if let Acquired::Queued(cell) = self.locks.acquire(owner, tag, LockMode::AccessExclusive) {
                for holder in self
                    .locks
                    .relations
                    .conflicting_holders(tag, LockMode::AccessExclusive, owner)
                {
                    self.slots.cancel_owner(holder);
                }
                return Ok(Some(Wait::cell(
                    WaitKind::Lock,
                    cell,
                    Arc::clone(&self.locks),
                    owner,
                )));
            }
        }
        Ok(None)
    }
}

/// The highest commit LSN of what a record removes or declares old, if it does.
pub(crate) fn conflict_lsn(record: &DecodedRecord<'_>) -> Result<Option<Lsn>> {
    let lsn = match record.rmgr() {
        Rmgr::Heap2 => match Heap2Op::from_info(record.header.info) {
            Heap2Op::Prune => HeapPrune::decode(record.main)?.conflict_lsn,
            Heap2Op::Vacuum => HeapVacuum::decode(record.main)?.conflict_lsn,
            Heap2Op::FreezePage => HeapFreezePage::decode(record.main)?.conflict_lsn,
            Heap2Op::Visible => HeapVisible::decode(record.main)?.conflict_lsn,
            Heap2Op::MultiInsert | Heap2Op::LockUpdated | Heap2Op::NewCid | Heap2Op::Rewrite => {
                return Ok(None);
            }
        },
        Rmgr::Btree => match BtreeOp::from_info(record.info()) {
            Some(BtreeOp::Delete) => {
                towline_wal::records::btree::BtreeDelete::decode(record.main)?.conflict_lsn
            }
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(lsn.is_valid().then_some(lsn))
}

impl ResourceManagers for Managers {
    fn redo(
        &self,
        record: &DecodedRecord<'_>,
        context: &mut RedoContext<'_>,
    ) -> std::result::Result<(), RedoError> {
        if record.rmgr() == Rmgr::Btree {
            crate::btree::redo(record, context)?;
        }
        self.apply(record, context)
            .map_err(|error| RedoError::record(record.start, error.to_string()))
    }

    fn may_run_beside_others(&self, record: &DecodedRecord<'_>) -> bool {
        match record.rmgr() {
            Rmgr::Heap | Rmgr::Heap2 => crate::heap::redo::may_run_beside_others(record),
            _ => true,
        }
    }

    fn mask(&self, record: &DecodedRecord<'_>, page: &mut Page) {
        match record.rmgr() {
            Rmgr::Heap | Rmgr::Heap2 => crate::heap::redo::mask_for_comparison(page),
            Rmgr::Btree => crate::btree::mask_for_comparison(page),
            Rmgr::Xlog
            | Rmgr::Transaction
            | Rmgr::Storage
            | Rmgr::Standby
            | Rmgr::Towline
            | Rmgr::Foreign(_) => {}
        }
    }
}

impl Engine {
    /// Applies the next record on a standby. A `Wait` is for the quorum, or for sessions that hold what the record needs: call again
    /// with the same record. Readers see nothing of it before [`Engine::publish_horizon`].
    pub fn replay(&self, record: &DecodedRecord<'_>) -> Result<Step<()>> {
        let replayer = self
            .replayer
            .as_ref()
            .ok_or_else(|| AccessError::internal("this engine does not replay"))?;
        if self.managers.hot.load(Ordering::Relaxed) {
            if record.rmgr() == Rmgr::Standby {
                // Locks of transactions that ended before this record fall first.
                self.publish_horizon(record.start);
            }
            if let Some(wait) = self.managers.lock_conflicts(record)? {
                return Ok(Step::Wait(wait));
            }
            if let Some(conflict) = conflict_lsn(record)? {
                self.publish_horizon(record.start);
                self.slots.cancel_snapshots_below(conflict);
            }
        }
        match replayer.replay_one(record) {
            Ok(()) => {
                self.storage.note_shortage(None);
                Ok(Step::Done(()))
            }
            Err(RedoError::NeedsQuorum(lsn)) => Ok(Step::Wait(self.wait_quorum(lsn))),
            Err(RedoError::NoSpace(error)) => {
                // Nothing tells when there is space: the caller's own pause is the wait.
                self.storage.note_shortage(Some(&error));
                Ok(Step::Wait(self.wait_quorum(Lsn::MAX)))
            }
            Err(error) => Err(redo_error(error)),
        }
    }

    /// End of the last record applied.
    pub fn replayed(&self) -> Option<Lsn> {
        self.replayer.as_ref().map(|replayer| replayer.replayed())
    }

    /// Moves the read horizon up to `lsn`, but not above what is applied or what the quorum has (I9). Called after each batch. Nobody
    /// can read before the first call, which the standby makes when its data is consistent.
    pub fn publish_horizon(&self, lsn: Lsn) {
        let applied = self.replayed().unwrap_or_default();
        let horizon = lsn.min(applied).min(self.quorum.get());
        if horizon > self.visible().get() {
            self.managers.publish(horizon);
        }
    }
}

pub(crate) fn redo_error(error: RedoError) -> AccessError {
    match error {
        RedoError::Storage(error) | RedoError::NoSpace(error) => error.into(),
        other => AccessError::corrupted(other.to_string()),
    }
}
