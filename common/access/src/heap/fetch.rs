//! One row by its address: the short way of point reads, and the re-check after a row wait.

use towline_base::rules::{self, Rule};
use towline_base::{Lsn, PageId, RelFileNode, Tid};
use towline_storage::{PageRead, PinnedPage};

use super::prune;
use super::tuple::TupleRef;
use super::visibility::{Outcome, Visibility, chain_search, inserter, settle_hints, tuple_at};
use crate::engine::Engine;
use crate::error::Result;
use crate::txn::{Snapshot, Transaction};

/// A version on its page, latched for reading while this lives: decode it and let go. Not `Send`, so it cannot be carried over a wait.
pub struct FetchedRow {
    page: PageRead,
    tid: Tid,
}

impl std::fmt::Debug for FetchedRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FetchedRow{}", self.tid)
    }
}

impl FetchedRow {
    /// Where the version is (for a HOT chain: the version's own address).
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// The version.
    ///
    /// # Panics
    /// Never: the header was checked when it was found.
    #[inline]
    pub fn tuple(&self) -> TupleRef<'_> {
        self.page
            .item(self.tid.offset)
            .and_then(TupleRef::new)
            .expect("checked when it was found")
    }
}

/// The version that the snapshot sees in the chain which an index entry, or a scan, found at `tid`.
pub fn fetch(
    txn: &Transaction,
    snapshot: &Snapshot,
    rel: RelFileNode,
    tid: Tid,
) -> Result<Option<FetchedRow>> {
    let engine = txn.engine();
    let pinned = engine.storage().pin(PageId::main(rel, tid.block))?;
    let page = pinned.read();
    if prune::is_worthwhile(engine, &page) {
        let pinned = page.unlatch();
        prune::prune_opportunistically(engine, &pinned);
        return find(txn, snapshot, pinned.read(), tid);
    }
    find(txn, snapshot, page, tid)
}

#[inline]
fn find(txn: &Transaction, snapshot: &Snapshot, page: PageRead, tid: Tid) -> Result<Option<FetchedRow>> {
    let mut visibility = Visibility::new(txn.engine().csn(), snapshot, &txn.combos);
    let found = chain_search(&page, tid.block, tid.offset, &mut visibility)?.map(|(offset, _)| offset);
    // After the page was looked at: replay on a standby raises the flag before it removes what this snapshot sees.
    txn.check_interrupts()?;
    Ok(found.map(|offset| FetchedRow {
        tid: Tid::new(tid.block, offset),
        page,
    }))
}

/// The version at exactly `tid`, committed (released or not) or the own transaction's: what READ COMMITTED looks at after a wait. The
/// commit it rests on raises the transaction's `depends_on`.
pub fn fetch_newest(txn: &mut Transaction, rel: RelFileNode, tid: Tid) -> Result<Option<FetchedRow>> {
    let page = txn.engine().storage().pin(PageId::main(rel, tid.block))?.read();
    let outcome = match tuple_at(&page, tid.block, tid.offset)? {
        None => return Ok(None),
        Some(tuple) => inserter(txn.engine().csn(), tuple, txn.xid, txn.engine().next_xid())?,
    };
    match outcome {
        Outcome::None | Outcome::Running(_) => Ok(None),
        Outcome::Own => Ok(Some(FetchedRow { page, tid })),
        Outcome::Committed(lsn) => {
            txn.raise_depends_on(lsn);
            Ok(Some(FetchedRow { page, tid }))
        }
    }
}

/// Sets committed hints on a page where they may be set (B8), if nobody has it latched: so that later reads need no CSN log. The page
/// does not become dirty.
pub(crate) fn settle_page(engine: &Engine, pinned: &PinnedPage) -> Result<()> {
    let settled = if rules::is_off(Rule::HintsAreSettled) {
        Lsn::MAX
    } else {
        engine.settled()
    };
    let Some(mut guard) = pinned.try_hint() else {
        return Ok(());
    };
    let next = engine.next_xid();
    let page = guard.page_mut();
    for offset in 1..=page.max_offset() {
        if let Some(bytes) = page.item_mut(offset) {
            settle_hints(engine.csn(), bytes, settled, next)?;
        }
    }
    Ok(())
}
