//! What transactions write into the log beside page changes: commits, aborts, xid reservations, lock notices.

use std::sync::atomic::Ordering;

use towline_base::{CriticalSection, Lsn, Xid};
use towline_storage::{StorageError, StorageResult};
use towline_wal::records::standby::{StandbyLock, StandbyLocks, StandbyOp};
use towline_wal::records::towline::{TowlineOp, XidReservation};
use towline_wal::records::xact::{XactEnd, XactOp, xinfo};
use towline_wal::{Credit, InsertError, Inserted, RecordBuilder, Rmgr, credit_for};

use super::Engine;
use crate::error::{AccessError, Result};
use crate::release::CommitLevel;
use crate::step::{Step, Wait, WaitKind};
use crate::txn::commit::{EndRecord, PendingAbort};

/// Bytes of a file reference, and of an invalidation, in a commit record.
const REL_BYTES: usize = 12;
const INVALIDATION_BYTES: usize = 16;
const END_BYTES: usize = 64;

thread_local! {
    static RECORD: std::cell::RefCell<RecordBuilder> = std::cell::RefCell::new(RecordBuilder::new());
}

fn insert_error(error: InsertError) -> AccessError {
    match error {
        InsertError::NotPermitted => AccessError::new(
            towline_base::SqlState::READ_ONLY_SQL_TRANSACTION,
            "this node is not the primary any more",
        ),
        InsertError::Poisoned => AccessError::new(
            towline_base::SqlState::CRASH_SHUTDOWN,
            "the write-ahead log has failed and the node is stopping",
        ),
        InsertError::TooLarge => AccessError::internal("a log record is larger than its credit"),
    }
}

impl Engine {
    /// A wait until the quorum reaches `lsn`.
    pub(crate) fn wait_quorum(&self, lsn: Lsn) -> Wait {
        if let Some(writer) = self.writer.load().as_ref() {
            writer.wal.request_flush(lsn);
        }
        Wait::lsn(WaitKind::Quorum(lsn), self.quorum.wait_for(lsn))
    }

    /// A wait until the commit at `lsn` is released to snapshots.
    pub fn wait_visible(&self, lsn: Lsn) -> Wait {
        Wait::lsn(WaitKind::Visible(lsn), self.visible().wait_for(lsn))
    }

    /// A wait until what the log held when this primary was started is released, if it is not yet: its required standbys are away. A
    /// statement that changes rows waits for that before it takes its snapshot. The end of what was acknowledged before a power cut is not
    /// known, and a row that a client was told of must not be passed over as if it were not there. Its own commit would have to wait anyway.
    pub fn wait_to_write(&self) -> Option<Wait> {
        let first = Lsn(self.first_record.load(Ordering::Acquire));
        (self.visible().get() < first).then(|| self.wait_visible(first))
    }

    /// A wait until the log is flushed up to `lsn`, which is asked for; or until there may be room again, when that is reached and the disk
    /// of the log is full.
    pub(crate) fn wait_flush(&self, lsn: Lsn) -> Wait {
        match self.writer.load().as_ref() {
            Some(writer) => {
                let flush = &writer.wal.positions().flush;
                writer.wal.request_flush(lsn);
                // With nothing left to flush it is a full disk that holds changes back.
                let room = (flush.get() >= lsn).then(|| writer.wal.room_wait()).flatten();
                Wait::lsn(WaitKind::Flush(lsn), room.unwrap_or_else(|| flush.wait_for(lsn)))
            }
            None => Wait::lsn(WaitKind::Quorum(lsn), self.quorum.wait_for(lsn)),
        }
    }

    /// Space for a record of up to `bytes` (see `towline_wal::credit_for`), to be taken before anything is latched. Waits while the WAL
    /// buffers are full, the log has no room on its disk, or too much stands above the quorum (B4).
    pub fn credit(&self, bytes: u32) -> Result<Step<Credit>> {
        self.credit_or_wait(|| self.storage.credit(bytes))
    }

    fn credit_or_wait(&self, take: impl FnOnce() -> StorageResult<Credit>) -> Result<Step<Credit>> {
        if self.writer.load().is_none() {
            self.writer()?;
        }
        match take() {
            Ok(credit) => Ok(Step::Done(credit)),
            Err(StorageError::NeedsFlush(lsn)) => Ok(Step::Wait(self.wait_flush(lsn))),
            Err(StorageError::NeedsQuorum(lsn)) => Ok(Step::Wait(self.wait_quorum(lsn))),
            Err(error) => Err(error.into()),
        }
    }

    /// The end of what is inserted so far.
    pub fn insert_lsn(&self) -> Result<Lsn> {
        Ok(self.writer()?.wal.insert_lsn())
    }

    /// Inserts a record that changes no page.
    pub(crate) fn insert_plain(
        &self,
        credit: Credit,
        rmgr: Rmgr,
        info: u8,
        xid: Xid,
        fill: impl FnOnce(&mut RecordBuilder),
    ) -> Result<Inserted> {
        let writer = self.writer()?;
        RECORD.with_borrow_mut(|record| {
            record.begin(rmgr, info, xid.low32());
            fill(record);
            writer
                .wal
                .insert(&writer.permit, credit, record, &[])
                .map_err(insert_error)
        })
    }

    pub(crate) fn commit_credit(&self, record: &EndRecord<'_>) -> Result<Step<Credit>> {
        let bytes =
            END_BYTES + record.dropped.len() * REL_BYTES + record.invalidations.len() * INVALIDATION_BYTES;
        // Where changes are held back by a full disk, those that were made can still be committed.
        self.credit_or_wait(|| self.storage.credit_for_end(credit_for(0, bytes)))
    }

    /// Inserts the commit record; its end is the commit's LSN.
    pub(crate) fn insert_commit(&self, credit: Credit, record: &EndRecord<'_>) -> Result<Lsn> {
        let mut flags = 0;
        if record.level == CommitLevel::RemoteApply {
            flags |= xinfo::APPLY_FEEDBACK;
        }
        if record.exclusive_locks {
            flags |= xinfo::HAS_AE_LOCKS;
        }
        let end = XactEnd {
            time: self.clock.wall(),
            flags,
            db: (!record.invalidations.is_empty())
                .then_some((crate::DATABASE_OID, crate::DEFAULT_TABLESPACE_OID)),
            subxacts: &[],
            dropped: record.dropped,
            invalidations: record.invalidations,
            quorum: Some(self.quorum.get()),
        };
        let info = end.info(XactOp::Commit);
        let inserted = self.insert_plain(credit, Rmgr::Transaction, info, record.xid, |builder| {
            builder.payload(&end);
        })?;
        Ok(inserted.end)
    }

    /// A transaction has taken an xid.
    pub(crate) fn writer_began(&self) {
        self.open_writers.fetch_add(1, Ordering::Relaxed);
    }

    /// A transaction with an xid has ended; true when no other is open.
    pub(crate) fn writer_ended(&self) -> bool {
        self.open_writers.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Has the commit made durable, and released if nothing else is needed. Nothing is latched here. The only client flushes on its own
    /// thread: there is no company to wait for, and no hand-off to pay. With others connected the log's writer flushes for the group, as
    /// a thread that blocks in a sync may be the one that watches the others' sockets.
    pub(crate) fn flush_commit(&self, lsn: Lsn, level: CommitLevel, alone: bool) {
        let writer = self.writer.load();
        let Some(writer) = writer.as_ref() else {
            return;
        };
        if level == CommitLevel::Off {
            writer.wal.request_background_flush(lsn);
            self.release.release();
            return;
        }
        if alone && self.config.flush_alone && self.sessions.len() <= 1 {
            writer.wal.flush_here(lsn);
        } else {
            writer.wal.request_flush(lsn);
        }
        // The flush may have passed the record before it was queued.
        let positions = self.release.positions();
        if !self.release.is_visible(lsn) && (positions.quorum >= lsn || positions.flush >= lsn) {
            self.release.release();
        }
    }

    /// Logs an abort, now or with the next one that finds room.
    pub(crate) fn log_abort(&self, abort: PendingAbort) {
        self.pending_aborts.lock().push(abort);
        self.log_pending_aborts();
    }

    /// Logs the aborts that found no room before.
    pub(crate) fn log_pending_aborts(&self) {
        let mut pending = self.pending_aborts.lock();
        while let Some(abort) = pending.last() {
            match self.try_log_abort(abort) {
                Ok(true) => {
                    pending.pop();
                }
                Ok(false) => break,
                Err(error) => {
                    // The node stops or is not the primary any more: what is not in the log is aborted by recovery.
                    tracing::debug!(%error, "abort record not written");
                    pending.clear();
                }
            }
        }
        self.has_pending_aborts
            .store(!pending.is_empty(), Ordering::SeqCst);
    }

    fn try_log_abort(&self, abort: &PendingAbort) -> Result<bool> {
        let bytes = END_BYTES + abort.created.len() * REL_BYTES;
        let writer = self.writer()?;
        let Ok(credit) = writer.wal.credit(credit_for(0, bytes)) else {
            return Ok(false);
        };
        let end = XactEnd {
            time: self.clock.wall(),
            dropped: &abort.created,
            ..XactEnd::default()
        };
        let info = end.info(XactOp::Abort);
        let inserted = self.insert_plain(credit, Rmgr::Transaction, info, abort.xid, |builder| {
            builder.payload(&end);
        })?;
        if !abort.created.is_empty() {
            self.release
                .add_dropped(inserted.end, abort.created.iter().copied());
        }
        Ok(true)
    }

    /// Logs that xids below `limit` may be used, once the quorum has the record.
    pub(crate) fn reserve_xids(&self, limit: Xid) -> Result<Step<()>> {
        // Everybody who needs an xid waits for the one who has begun a reservation.
        let section = CriticalSection::enter("a reservation of xids begun");
        let result = self.try_reserve_xids(limit);
        section.leave();
        if !matches!(result, Ok(Step::Done(()))) {
            self.xids.reserved(limit, None);
        }
        result
    }

    fn try_reserve_xids(&self, limit: Xid) -> Result<Step<()>> {
        let credit = crate::ready!(self.credit(credit_for(0, 16)));
        let inserted = self.insert_plain(
            credit,
            Rmgr::Towline,
            TowlineOp::XidReservation as u8,
            Xid::INVALID,
            |builder| {
                builder.payload(&XidReservation { limit: limit.0 });
            },
        )?;
        self.xids.reserved(limit, Some(inserted.end));
        self.writer()?.wal.request_flush(inserted.end);
        Ok(Step::Done(()))
    }

    /// Tells standbys of access exclusive locks.
    pub(crate) fn log_standby_locks(&self, xid: Xid, rels: &[u32]) -> Result<Step<()>> {
        let credit = crate::ready!(self.credit(credit_for(0, 16 + rels.len() * 12)));
        let locks: Vec<StandbyLock> = rels
            .iter()
            .map(|rel| StandbyLock {
                xid: xid.low32(),
                db: crate::DATABASE_OID,
                rel: *rel,
            })
            .collect();
        self.insert_plain(credit, Rmgr::Standby, StandbyOp::Lock as u8, xid, |builder| {
            builder.payload(&StandbyLocks(&locks));
        })?;
        Ok(Step::Done(()))
    }
}
