//! What other layers add to a checkpoint.

use crate::buffer::FlushState;
use crate::control::CheckpointInfo;
use crate::error::StorageResult;
use towline_base::{Lsn, Xid};
use towline_wal::{RecordBuilder, credit_for};

/// Most bytes of payload that [`CheckpointParticipant::repeat`] may fill in.
pub const REPEATED_BYTES: usize = 32;

/// Credit for that record.
pub(super) fn repeated_credit() -> u32 {
    credit_for(0, REPEATED_BYTES)
}

/// Counters of the access layer as of a redo pointer, or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointCounters {
    /// Above every xid assigned so far.
    pub next_xid: Xid,
    /// Above every object id assigned so far.
    pub next_oid: u32,
    /// Oldest xid that may stand unfrozen in a table.
    pub oldest_xid: Xid,
    /// Oldest running xid; [`Xid::INVALID`] when none runs.
    pub oldest_active_xid: Xid,
}

/// What the access layer (CSN log, counters) and the node (slots) contribute.
pub trait CheckpointParticipant: Send + Sync {
    /// The counters; called on a primary right after the redo pointer is fixed.
    fn counters(&self) -> CheckpointCounters;

    /// Writes what covers records before `redo`, and syncs it. Called again until it says [`FlushState::Done`]. It obeys I7: what it
    /// writes is ≤ Q. It must wait for transactions whose commit record is before `redo` and whose CSN is not stored yet (the lower
    /// bounds of C1), since redo will not see those records again.
    fn flush(&self, redo: Lsn) -> StorageResult<FlushState>;

    /// Begins a record that redo from this checkpoint must meet again, since its like may stand before the redo pointer only. It is logged just
    /// before the checkpoint's own, so a start that uses the checkpoint reads it. At most [`REPEATED_BYTES`] of payload; false for none.
    fn repeat(&self, record: &mut RecordBuilder) -> bool {
        let _ = record;
        false
    }

    /// The lowest position that a replication slot needs.
    fn oldest_slot(&self) -> Option<Lsn> {
        None
    }

    /// The checkpoint is in the control file; `oldest_kept` is what the log still holds.
    fn finished(&self, info: &CheckpointInfo, oldest_kept: Lsn) {
        let _ = (info, oldest_kept);
    }
}
