//! The last part of VACUUM: empty pages at the end of the heap go back to the file system.
//!
//! It needs the table for itself, and takes that only when nobody holds or waits for a lock on it. The record comes first, and the file is cut
//! when the quorum has it (I7). If that takes long, or somebody waits, or the command is cancelled meanwhile, the cut is given up:
//! the pages hold nothing, and whoever fills one again logs it as a new page, so a standby that has cut it makes it anew.

use std::time::Duration;

use towline_base::{BlockNumber, ForkKind, Moment, PageId};
use towline_storage::{PendingTruncation, StorageError};

use crate::catalog::{FIRST_USER_OID, Table};
use crate::engine::Engine;
use crate::error::Result;
use crate::heap::place;
use crate::locks::{LockMode, LockTag};
use crate::step::Step;
use crate::txn::Transaction;

/// So many pages are always worth it …
const MANY_PAGES: u32 = 1000;
/// … and so large a part of the table.
const LARGE_PART: u32 = 16;
/// Pages looked at before somebody may be waiting.
const PAGES_PER_LOOK: u32 = 256;
/// How long the table is held for the quorum, while nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
enum State {
    /// The table is to be locked.
    #[default]
    Free,
    /// There is to be no cut.
    Never,
    /// It is locked and had so many pages; from here on all are empty.
    Counting(BlockNumber, BlockNumber),
    /// The record is logged: the pages cut, and when that is given up.
    Logged(PendingTruncation, u32, Moment),
    /// So many pages are cut; the table is given back to others, and vacuum's own lock is taken again.
    Ended(u32),
}

/// A cut in progress.
#[derive(Debug, Default)]
pub(super) struct Cut(State);

fn is_worth_it(pages: BlockNumber, empty: u32) -> bool {
    empty > 0 && (empty >= MANY_PAGES || empty >= pages / LARGE_PART)
}

impl Cut {
    /// A cut that cuts nothing.
    pub(super) fn never() -> Cut {
        Cut(State::Never)
    }

    #[cfg(test)]
    pub(super) fn is_logged(&self) -> bool {
        matches!(self.0, State::Logged(..))
    }

    /// Goes on; at the end with the number of pages that were cut off. No row stands at or behind block `tail`, as vacuum has seen.
    pub(super) fn step(
        &mut self,
        txn: &mut Transaction,
        table: &Table,
        tail: BlockNumber,
    ) -> Result<Step<Option<u32>>> {
        let engine = txn.engine().clone();
        let tag = LockTag::Relation(table.oid.0);
        match &mut self.0 {
            State::Never => Ok(Step::Done(Some(0))),
            State::Free => {
                let pages = engine.storage().nblocks(table.node, ForkKind::Main)?;
                // The catalog is read without locks. And a VACUUM that is there to get xids back needs none.
                if table.oid.0 < FIRST_USER_OID
                    || !is_worth_it(pages, pages.saturating_sub(tail))
                    || txn.xid().is_none() && engine.xids().is_exhausted()
                {
                    return Ok(Step::Done(Some(0)));
                }
                crate::ready!(txn.ensure_xid());
                if !crate::ready!(txn.try_lock(tag, LockMode::AccessExclusive)) {
                    return Ok(Step::Done(Some(0)));
                }
                let pages = engine.storage().nblocks(table.node, ForkKind::Main)?;
                self.0 = State::Counting(pages, pages);
                Ok(Step::Done(None))
            }
            State::Counting(pages, from) => {
                let pages = *pages;
                for _ in 0..PAGES_PER_LOOK {
                    if *from == 0 || !is_empty(&engine, table, *from - 1)? {
                        let (keep, empty) = (*from, pages - *from);
                        if !is_worth_it(pages, empty) {
                            return Ok(self.end(txn, tag, 0));
                        }
                        return self.log(txn, &engine, table, keep, empty);
                    }
                    *from -= 1;
                }
                if somebody_waits(&engine, tag) {
                    return Ok(self.end(txn, tag, 0));
                }
                Ok(Step::Done(None))
            }
            State::Logged(pending, cut, until) => match pending.finish() {
                Ok(()) => {
                    let cut = *cut;
                    Ok(self.end(txn, tag, cut))
                }
                Err(StorageError::NeedsQuorum(_))
                    if engine.clock().now() < *until && !somebody_waits(&engine, tag) =>
                {
                    std::thread::yield_now();
                    Ok(Step::Done(None))
                }
                Err(StorageError::NeedsQuorum(_)) => Ok(self.end(txn, tag, 0)),
                Err(error) => Err(error.into()),
            },
            State::Ended(cut) => {
                crate::ready!(txn.lock(tag, LockMode::ShareUpdateExclusive));
                Ok(Step::Done(Some(*cut)))
            }
        }
    }

    /// Gives the table back at once: nothing that was changed here needs the lock until the end of the transaction.
    fn end(&mut self, txn: &mut Transaction, tag: LockTag, cut: u32) -> Step<Option<u32>> {
        txn.unlock(tag);
        self.0 = State::Ended(cut);
        Step::Done(None)
    }

    fn log(
        &mut self,
        txn: &mut Transaction,
        engine: &Engine,
        table: &Table,
        keep: BlockNumber,
        empty: u32,
    ) -> Result<Step<Option<u32>>> {
        let writer = engine.writer()?;
        let xid = crate::ready!(txn.ensure_xid());
        match engine
            .storage_arc()
            .log_truncate(&writer.permit, xid, table.node, keep)
        {
            Ok(pending) => {
                let pending = pending.cuts_nothing_needed();
                writer.wal.request_flush(pending.logged());
                self.0 = State::Logged(pending, empty, engine.clock().now().after(PATIENCE));
                Ok(Step::Done(None))
            }
            // Nothing is logged yet, and the table is not held for a log without room.
            Err(StorageError::NeedsFlush(_) | StorageError::NeedsQuorum(_)) => {
                Ok(self.end(txn, LockTag::Relation(table.oid.0), 0))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn is_empty(engine: &Engine, table: &Table, block: BlockNumber) -> Result<bool> {
    let page = engine.storage().pin_for_scan(PageId::main(table.node, block))?;
    let empty = place::is_empty(&page.read_ref());
    Ok(empty)
}

fn somebody_waits(engine: &Engine, tag: LockTag) -> bool {
    engine.locks().relations.is_awaited(tag)
}
