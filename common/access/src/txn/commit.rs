//! The end of a transaction.
//!
//! Commit, in this order: the lower bound is registered → the commit record is inserted (its end is the commit's LSN, I1) → the CSN is stored →
//! the commit is queued for release → the bound is cleared → the xid ends, so row locks fall and the heads of row queues
//! wake. Nothing of this waits; the answer waits for release. From the record to the end of the xid is a critical section: unwinding would
//! free the slot, and with it the bound, of a commit whose CSN nobody stored.
//!
//! Rollback undoes nothing: the CSN says aborted, and an abort record tells standbys and redo. It never waits either: without room in
//! the WAL buffers the record is left to the next transaction.

use towline_base::rules::{self, Rule};
use towline_base::{CriticalSection, Lsn, RelFileNode, Xid, failpoint};

use super::Transaction;
use crate::csn::XidStatus;
use crate::error::{AccessError, Result};
use crate::release::CommitLevel;
use crate::step::Step;

/// What the end of a transaction writes into the log.
#[derive(Debug)]
pub(crate) struct EndRecord<'a> {
    pub(crate) xid: Xid,
    pub(crate) level: CommitLevel,
    pub(crate) dropped: &'a [RelFileNode],
    pub(crate) invalidations: &'a [towline_wal::records::invalidation::Invalidation],
    pub(crate) exclusive_locks: bool,
}

/// An abort whose record found no room.
#[derive(Debug)]
pub(crate) struct PendingAbort {
    pub(crate) xid: Xid,
    pub(crate) created: Vec<RelFileNode>,
}

impl Transaction {
    /// Commits. The value is the LSN that must be visible (`engine.release().wait(lsn, level)`) before the client is told; for a
    /// transaction that wrote nothing it is [`Transaction::depends_on`]. A `Wait` is for room in the WAL buffers: call again. At level off
    /// nothing has to happen before the release, but a thread that is releasing others just then does it, a moment after this returns.
    ///
    /// After an error the transaction is rolled back, unless the node is about to stop.
    pub fn commit(&mut self, level: CommitLevel) -> Result<Step<Lsn>> {
        if self.ended {
            return Err(AccessError::internal("the transaction has ended already"));
        }
        if !self.xid.is_valid() {
            self.ended = true;
            self.slot.set_snapshot(None);
            self.release_locks();
            return Ok(Step::Done(self.depends_on));
        }
        let finish = self.finish.take();
        let record = EndRecord {
            xid: self.xid,
            level,
            dropped: finish.as_ref().map_or(&[], |finish| &finish.dropped),
            invalidations: finish.as_ref().map_or(&[], |finish| &finish.invalidations),
            exclusive_locks: self.slot.logged_locks(),
        };
        let credit = match self.engine.commit_credit(&record)? {
            Step::Done(credit) => credit,
            Step::Wait(wait) => {
                self.finish = finish;
                return Ok(Step::Wait(wait));
            }
        };
        let bound = self.engine.insert_lsn()?;
        if !rules::is_off(Rule::BoundBeforeCommit) {
            self.slot.set_bound(Some(bound));
        }
        let section = CriticalSection::enter("a commit without its CSN");
        let lsn = match self.engine.insert_commit(credit, &record) {
            Ok(lsn) => lsn,
            Err(error) => {
                self.slot.set_bound(None);
                self.engine.release().bound_cleared();
                return Err(error);
            }
        };
        assert!(bound < lsn, "the bound {bound} is below the commit {lsn} (I1)");
        self.ended = true;
        // A test holds a committer here: its record may be durable, and nobody may see it yet (C1).
        let _ = failpoint!("access::before_csn");
        // Should this fail (the CSN log could not be read), the bound stays: nobody may see a half-stored commit, and the node stops.
        if let Err(error) = self.engine.csn().set(self.xid, XidStatus::Committed(lsn)) {
            self.slot.keep_bound();
            self.engine.fail(&error);
            return Err(error);
        }
        let locks = self.take_locks();
        self.engine
            .release()
            .enqueue(lsn, level, self.owner(), locks, finish);
        self.slot.set_bound(None);
        self.engine.release().bound_cleared();
        self.slot.set_xid(Xid::INVALID);
        self.slot.set_snapshot(None);
        self.engine.locks().xid_ended(self.xid);
        section.leave();
        self.touched.settle(true);
        let alone = self.engine.writer_ended();
        self.engine.flush_commit(lsn, level, alone);
        Ok(Step::Done(lsn))
    }

    /// Rolls back. Never waits and cannot fail: what could not be logged now is logged later.
    pub fn rollback(mut self) {
        self.abort();
    }

    pub(super) fn abort(&mut self) {
        if self.ended {
            return;
        }
        self.ended = true;
        // Half an abort would leave row queues that nobody wakes, and an xid that runs for ever.
        let section = CriticalSection::enter("a transaction half aborted");
        if self.xid.is_valid() {
            if let Err(error) = self.engine.csn().set(self.xid, XidStatus::Aborted) {
                self.engine.fail(&error);
            }
            let created = std::mem::take(&mut self.created);
            self.engine.writer_ended();
            self.engine.log_abort(PendingAbort {
                xid: self.xid,
                created,
            });
            self.slot.set_xid(Xid::INVALID);
            self.engine.locks().xid_ended(self.xid);
        }
        self.slot.set_snapshot(None);
        self.release_locks();
        section.leave();
        self.touched.settle(false);
    }
}
