//! What the engine contributes to checkpoints: its counters, and the CSN log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use towline_base::rules::{self, Rule};
use towline_base::{Lsn, LsnWatch, Xid};
use towline_storage::buffer::FlushState;
use towline_storage::{CheckpointCounters, CheckpointInfo, CheckpointParticipant, StorageResult};
use towline_wal::format::PositionMap;
use towline_wal::records::towline::{TowlineOp, XidReservation};
use towline_wal::{RecordBuilder, Rmgr};

use crate::csn::CsnLog;
use crate::txn::slots::TxnSlots;
use crate::txn::xids::XidSource;

/// What the node adds: the lowest position that a replication slot needs, and word of finished checkpoints.
pub trait RetentionHooks: Send + Sync + std::fmt::Debug {
    /// The lowest position that a replication slot needs.
    fn oldest_slot(&self) -> Option<Lsn>;
    /// A checkpoint is in the control file; the log holds what is at or behind `oldest_kept`.
    fn checkpoint_finished(&self, info: &CheckpointInfo, oldest_kept: Lsn);
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Participant {
    pub(crate) csn: Arc<CsnLog>,
    pub(crate) xids: Arc<XidSource>,
    pub(crate) slots: Arc<TxnSlots>,
    pub(crate) quorum: LsnWatch,
    pub(crate) positions: PositionMap,
    /// Above every object id given out; told by the catalog.
    pub(crate) next_oid: AtomicU32,
    pub(crate) hooks: Mutex<Option<Arc<dyn RetentionHooks>>>,
}

impl CheckpointParticipant for Participant {
    fn counters(&self) -> CheckpointCounters {
        CheckpointCounters {
            next_xid: self.xids.next(),
            next_oid: self.next_oid.load(Ordering::SeqCst),
            oldest_xid: self.xids.oldest_unfrozen(),
            oldest_active_xid: self.slots.oldest_xid().unwrap_or(Xid::INVALID),
        }
    }

    fn flush(&self, redo: Lsn) -> StorageResult<FlushState> {
        // A commit below the redo pointer whose CSN is not stored yet would be in neither the file nor redo (C1).
        if self.slots.lowest_bound().is_some_and(|bound| bound < redo) {
            return Ok(FlushState::Busy);
        }
        // At a page's end the redo pointer stands behind the next page's header, where the log may not get before there is another record.
        let logged = self.positions.end_lsn(self.positions.position(redo));
        let quorum = if rules::is_off(Rule::StatusBelowQuorum) {
            Lsn::MAX
        } else {
            self.quorum.get()
        };
        if quorum < logged {
            return Ok(FlushState::NeedsQuorum(logged));
        }
        self.csn.flush(quorum, self.xids.next())?;
        Ok(FlushState::Done)
    }

    /// The reservation of xids in force (C7): a start from this redo pointer would else know only of the xids that the log behind it
    /// shows, and give out again those of a lost tail.
    fn repeat(&self, record: &mut RecordBuilder) -> bool {
        let limit = self.xids.reserved_limit().0;
        record
            .begin(Rmgr::Towline, TowlineOp::XidReservation as u8, 0)
            .payload(&XidReservation { limit });
        true
    }

    fn oldest_slot(&self) -> Option<Lsn> {
        self.hooks.lock().as_ref().and_then(|hooks| hooks.oldest_slot())
    }

    fn finished(&self, info: &CheckpointInfo, oldest_kept: Lsn) {
        // The control file has it, and it has the quorum's agreement (I7): no start looks below it any more.
        if let Err(error) = self.csn.truncate_below(info.oldest_xid) {
            tracing::warn!(%error, "old files of the commit log could not be removed, will be tried again");
        }
        let hooks = self.hooks.lock().clone();
        if let Some(hooks) = hooks {
            hooks.checkpoint_finished(info, oldest_kept);
        }
    }
}
