//! Cutting a relation: logged first, carried out when the quorum has the record (I7).
//!
//! Between the two stands a [`PendingTruncation`]. A checkpoint whose redo pointer is behind the record must not be finished before
//! the files are cut: redo would not see the record again, and what was cut would come back. And a logged truncation
//! that fails, or is given up, leaves this node different from what its log says: the storage stops, and redo cuts the files.
//!
//! One kind may be given up: when nothing stands in the blocks behind, and whoever fills one of them again logs all of it
//! ([`PendingTruncation::cuts_nothing_needed`]). Redo makes such a block anew wherever the record has cut it.

use crate::error::{StorageError, StorageResult};
use crate::storage::Storage;
use parking_lot::Mutex;
use towline_base::rules::{self, Rule};
use towline_base::{BlockNumber, Lsn, RelFileNode};
use towline_wal::records::smgr::truncate_flags;

use std::collections::BTreeMap;
use std::sync::Arc;

/// Truncations that are logged, or about to be, and not carried out: a position at or before the record, by ticket.
#[derive(Debug, Default)]
pub(crate) struct PendingTruncations {
    pending: Mutex<(u64, BTreeMap<u64, Lsn>)>,
}

impl PendingTruncations {
    /// Registers one whose record will begin at `earliest` or later. Before the record is inserted.
    pub(crate) fn register(&self, earliest: Lsn) -> u64 {
        let mut pending = self.pending.lock();
        pending.0 += 1;
        let ticket = pending.0;
        pending.1.insert(ticket, earliest);
        ticket
    }

    pub(crate) fn clear(&self, ticket: u64) {
        self.pending.lock().1.remove(&ticket);
    }

    /// Whether a checkpoint with this redo pointer must wait.
    pub(crate) fn any_before(&self, redo: Lsn) -> bool {
        self.pending.lock().1.values().any(|earliest| *earliest < redo)
    }
}

/// A logged truncation. See the module; its owner holds the relation's exclusive lock.
#[must_use = "a logged truncation must be carried out, unless it cuts nothing needed"]
pub struct PendingTruncation {
    storage: Arc<Storage>,
    ticket: u64,
    logged: Lsn,
    rel: RelFileNode,
    blocks: BlockNumber,
    may_be_given_up: bool,
    done: bool,
}

impl std::fmt::Debug for PendingTruncation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "PendingTruncation({} to {} blocks, logged up to {})",
            self.rel, self.blocks, self.logged
        )
    }
}

impl PendingTruncation {
    pub(crate) fn new(
        storage: Arc<Storage>,
        ticket: u64,
        logged: Lsn,
        rel: RelFileNode,
        blocks: BlockNumber,
    ) -> PendingTruncation {
        PendingTruncation {
            storage,
            ticket,
            logged,
            rel,
            blocks,
            may_be_given_up: false,
            done: false,
        }
    }

    /// The caller vouches that the blocks behind hold nothing, and that the next change of each is logged as a page made anew: so this may
    /// be dropped without being carried out.
    pub fn cuts_nothing_needed(mut self) -> PendingTruncation {
        self.may_be_given_up = true;
        self
    }

    /// End of its record.
    pub fn logged(&self) -> Lsn {
        self.logged
    }

    /// Carries it out. [`StorageError::NeedsQuorum`] as long as the quorum has not got the record; every other error stops the storage.
    pub fn finish(&mut self) -> StorageResult<()> {
        if self.done {
            return Ok(());
        }
        if self.logged > self.storage.quorum().get() && !rules::is_off(Rule::FilesBelowQuorum) {
            return Err(StorageError::NeedsQuorum(self.logged));
        }
        self.storage
            .truncate_now(self.rel, self.blocks, truncate_flags::ALL)
            .inspect_err(|_| self.storage.stop("a logged truncation could not be carried out"))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for PendingTruncation {
    fn drop(&mut self) {
        if !self.done && !self.may_be_given_up {
            self.storage.stop("a logged truncation was given up");
        }
        self.storage.truncations().clear(self.ticket);
    }
}
