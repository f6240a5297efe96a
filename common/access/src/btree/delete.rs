//! Removing tuples: those marked dead when a page is full, and those vacuum names.
//!
//! Vacuum walks the leaves from left to right by their links, one latch at a time. Tuples that a concurrent split moves to
//! the right of the walk come under it again; those it has passed it has seen. No tuple that must go can be missed,
//! because rows that vacuum removes get no new index tuples. Empty pages stay in the tree: page deletion is not built
//! yet, they take new keys of their range.

use towline_base::{BlockNumber, Tid};
use towline_storage::{OffsetNumber, PageWrite};
use towline_wal::Credit;
use towline_wal::records::Payload;
use towline_wal::records::btree::{BtreeDelete, BtreeOp, BtreeVacuum};

use super::context::Pressure;
use super::context::{Credited, IndexContext};
use super::page::{self, HAS_GARBAGE, NO_SIBLING, item};
use super::search;
use super::tuple::IndexTuple;
use crate::catalog::Index;
use crate::error::Result;

/// Marks items dead, as a hint: they point to rows that are gone for everybody.
pub(super) fn mark_dead(page: &mut PageWrite, offsets: &[OffsetNumber]) {
    let bytes = page.hint_mut();
    for offset in offsets {
        if let Some(id) = bytes.item_id(*offset) {
            // The offset came from this page under this latch.
            let _ = bytes.set_item_id(*offset, id.to_dead());
        }
    }
    page::update_flags(bytes, HAS_GARBAGE, 0);
}

/// Removes the items marked dead from a full leaf (PostgreSQL's simple deletion). True when there were any.
pub(super) fn dead_items(
    cx: &IndexContext<'_>,
    index: &Index,
    page: PageWrite,
    credit: Credit,
) -> Result<bool> {
    let opaque = page::opaque(&page);
    let dead: Vec<OffsetNumber> = (opaque.first_data()..=page.max_offset())
        .filter(|offset| page.item_id(*offset).is_some_and(|id| id.is_dead()))
        .collect();
    if dead.is_empty() {
        return Ok(false);
    }
    let record = BtreeDelete {
        latest_removed_xid: 0,
        ndeleted: dead.len() as u16,
        nupdated: 0,
        // An item is marked only when its row was below the horizon of that moment: no later than this.
        conflict_lsn: (cx.horizon)(),
    };
    remove(cx, index, page, credit, BtreeOp::Delete, &record, &dead)?;
    Ok(true)
}

fn remove(
    cx: &IndexContext<'_>,
    index: &Index,
    page: PageWrite,
    credit: Credit,
    op: BtreeOp,
    main: &dyn Payload,
    offsets: &[OffsetNumber],
) -> Result<()> {
    let block = page.id().block;
    // Damage is found before the change begins: a change that has begun must be logged, or the node stops.
    page.check_items().map_err(|error| {
        let id = page.id();
        page::corrupted(&index.name, format!("is damaged in {id}: {error}"))
    })?;
    let mut change = cx.change(credit, op);
    let leaf = change.page(page);
    let bytes = change.page_mut(leaf);
    bytes.remove_items(offsets).map_err(|error| {
        page::corrupted(
            &index.name,
            format!("cannot remove tuples from block {block}: {error}"),
        )
    })?;
    page::update_flags(bytes, 0, HAS_GARBAGE);
    let raw: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
    change.block_data(leaf, &raw);
    change.payload(main);
    change.finish()
}

/// What a walk of vacuum over an index did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkDelete {
    /// Tuples removed.
    pub removed: u64,
    /// Tuples left.
    pub remaining: u64,
    /// Pages of the index.
    pub pages: u32,
}

/// One step of vacuum's walk over an index.
#[derive(Debug)]
pub enum BulkStep {
    /// More leaves are left: call again with this block.
    Next(BlockNumber),
    /// The WAL buffers have no room: wait, then call again with the same block.
    Needs(Pressure),
    /// The last leaf was done.
    Done,
}

/// Removes from the leaf at `block` (`None` to begin at the leftmost) the tuples whose rows `is_dead`, and says where to go
/// on. Nothing is held between the steps.
pub(crate) fn bulk_delete(
    cx: &IndexContext<'_>,
    index: &Index,
    block: Option<BlockNumber>,
    is_dead: &mut dyn FnMut(Tid) -> bool,
    total: &mut BulkDelete,
) -> Result<BulkStep> {
    let block = match block {
        Some(block) => block,
        None => match search::edge_leaf(cx.pool(), index, false)? {
            Some((page, _)) => page.id().block,
            None => return Ok(BulkStep::Done),
        },
    };
    let (page, opaque) = search::read(cx.pool(), index, block)?;
    if !(opaque.first_data()..=page.max_offset())
        .any(|offset| item(&page, offset).is_some_and(|bytes| is_dead(IndexTuple(bytes).leaf_tid())))
    {
        total.remaining += u64::from((page.max_offset() + 1).saturating_sub(opaque.first_data()));
        return Ok(next_step(opaque.next));
    }
    drop(page);
    let credit = match cx.credit(IndexContext::record_size(1, 2 * towline_storage::page::MAX_ITEMS))? {
        Credited::Yes(credit) => credit,
        Credited::No(wait) => return Ok(BulkStep::Needs(wait)),
    };
    let page = search::pin(cx.pool(), index, block)?.write();
    let opaque = page::check(&page, &index.name, block)?;
    let (first, last) = (opaque.first_data(), page.max_offset());
    let dead: Vec<OffsetNumber> = (first..=last)
        .filter(|offset| item(&page, *offset).is_some_and(|bytes| is_dead(IndexTuple(bytes).leaf_tid())))
        .collect();
    total.removed += dead.len() as u64;
    total.remaining += u64::from((last + 1).saturating_sub(first)).saturating_sub(dead.len() as u64);
    if !dead.is_empty() {
        let record = BtreeVacuum {
            ndeleted: dead.len() as u16,
            nupdated: 0,
        };
        remove(cx, index, page, credit, BtreeOp::Vacuum, &record, &dead)?;
    }
    Ok(next_step(opaque.next))
}

fn next_step(next: BlockNumber) -> BulkStep {
    if next == NO_SIBLING {
        BulkStep::Done
    } else {
        BulkStep::Next(next)
    }
}
