//! Redo of B-tree records, ours and the meaning PostgreSQL gives them.
//!
//! Storage has latched all blocks of a record before it calls this, and gives out a page to change only when the page has not
//! seen the record ([C6], repeatable by page LSN). A split's left half is rebuilt by the function that made it on the
//! primary.

use towline_storage::recovery::{RedoContext, RedoError};
use towline_storage::{OffsetNumber, PageError, Placement};
use towline_wal::format::DecodedRecord;
use towline_wal::records::btree::{BtreeInsert, BtreeMetadata, BtreeNewRoot, BtreeOp, BtreeSplit};

use super::page::{self, HAS_GARBAGE, INCOMPLETE_SPLIT, LEAF, Opaque, ROOT};
use super::root::from_metadata;
use super::split_pages::{NewItem, left_half, restore_items};
use super::split_point::SplitPoint;
use super::tuple::IndexTuple;

type Result<T> = std::result::Result<T, RedoError>;

/// Makes errors that name the record.
struct Blame<'a, 'r>(&'a DecodedRecord<'r>);

impl Blame<'_, '_> {
    fn bad(&self, what: impl std::fmt::Display) -> RedoError {
        RedoError::record(self.0.start, format!("btree: {what}"))
    }

    fn page(&self, result: std::result::Result<(), PageError>) -> Result<()> {
        result.map_err(|error| self.bad(error))
    }

    fn data(&self, id: u8) -> &[u8] {
        self.0.block(id).map_or(&[], |block| block.data)
    }
}

/// Applies a record of the B-tree's resource manager.
pub(crate) fn redo(record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>) -> Result<()> {
    let blame = Blame(record);
    let op = BtreeOp::from_info(record.info()).ok_or_else(|| blame.bad("unknown operation"))?;
    match op {
        BtreeOp::InsertLeaf => insert(&blame, cx),
        BtreeOp::InsertUpper => {
            insert(&blame, cx)?;
            clear_incomplete(cx, 1);
            Ok(())
        }
        BtreeOp::InsertMeta => {
            insert(&blame, cx)?;
            clear_incomplete(cx, 1);
            restore_meta(&blame, cx, 2)
        }
        BtreeOp::SplitLeft => split(&blame, cx, true),
        BtreeOp::SplitRight => split(&blame, cx, false),
        BtreeOp::Delete | BtreeOp::Vacuum => delete(&blame, cx),
        BtreeOp::NewRoot => new_root(&blame, cx),
        // A conflict only; the standby has resolved it before.
        BtreeOp::ReusePage => Ok(()),
        BtreeOp::MetaCleanup => restore_meta(&blame, cx, 0),
        BtreeOp::InsertPost
        | BtreeOp::Dedup
        | BtreeOp::UnlinkPage
        | BtreeOp::UnlinkPageMeta
        | BtreeOp::MarkPageHalfDead => {
            Err(blame.bad(format_args!("{} is never written by Towline", op.name())))
        }
    }
}

fn clear_incomplete(cx: &mut RedoContext<'_>, id: u8) {
    if let Some(page) = cx.page_mut(id) {
        page::update_flags(page, 0, INCOMPLETE_SPLIT);
    }
}

fn insert(blame: &Blame<'_, '_>, cx: &mut RedoContext<'_>) -> Result<()> {
    let record = BtreeInsert::decode(blame.0.main).map_err(|error| blame.bad(error))?;
    let Some(page) = cx.page_mut(0) else { return Ok(()) };
    blame.page(
        page.add_item(blame.data(0), Placement::Insert(record.offnum))
            .map(|_| ()),
    )
}

fn restore_meta(blame: &Blame<'_, '_>, cx: &mut RedoContext<'_>, id: u8) -> Result<()> {
    let data = BtreeMetadata::decode(blame.data(id)).map_err(|error| blame.bad(error))?;
    if let Some(page) = cx.page_mut(id) {
        from_metadata(&data).write(page);
    }
    Ok(())
}

fn new_root(blame: &Blame<'_, '_>, cx: &mut RedoContext<'_>) -> Result<()> {
    let record = BtreeNewRoot::decode(blame.0.main).map_err(|error| blame.bad(error))?;
    if let Some(page) = cx.page_mut(0) {
        let leaf = if record.level == 0 { LEAF } else { 0 };
        page::init(
            page,
            &Opaque {
                prev: 0,
                next: 0,
                level: record.level,
                flags: ROOT | leaf,
                cycle: 0,
            },
        );
        blame.page(restore_items(page, blame.data(0)))?;
    }
    clear_incomplete(cx, 1);
    restore_meta(blame, cx, 2)
}

fn split(blame: &Blame<'_, '_>, cx: &mut RedoContext<'_>, new_on_left: bool) -> Result<()> {
    let record = BtreeSplit::decode(blame.0.main).map_err(|error| blame.bad(error))?;
    let block_of = |id: u8| blame.0.block(id).map(|block| block.page.block);
    let (Some(left), Some(right)) = (block_of(0), block_of(1)) else {
        return Err(blame.bad("a split lacks a page"));
    };
    if let Some(page) = cx.page_mut(1) {
        let flags = if record.level == 0 { LEAF } else { 0 };
        let next = block_of(2).unwrap_or(page::NO_SIBLING);
        page::init(
            page,
            &Opaque {
                prev: left,
                next,
                level: record.level,
                flags,
                cycle: 0,
            },
        );
        blame.page(restore_items(page, blame.data(1)))?;
    }
    if let Some(page) = cx.page_mut(0) {
        let mut data = blame.data(0);
        let mut take = || -> Result<&[u8]> {
            let size = (IndexTuple(data).size() + 7) & !7;
            let (tuple, rest) = data
                .split_at_checked(size)
                .filter(|_| size > 0)
                .ok_or_else(|| blame.bad("a split's tuples are cut off"))?;
            data = rest;
            Ok(tuple)
        };
        let new_item = if new_on_left {
            Some(NewItem {
                bytes: take()?,
                offset: record.newitemoff,
            })
        } else {
            None
        };
        let high_key = take()?;
        let point = SplitPoint {
            first_right: record.firstrightoff,
            new_on_left,
        };
        let half =
            left_half(page, point, new_item.as_ref(), high_key, right).map_err(|error| blame.bad(error))?;
        page.clone_from(&half);
    }
    if let Some(page) = cx.page_mut(2) {
        let mut links = page::opaque(page);
        links.prev = right;
        page::set_opaque(page, &links);
    }
    clear_incomplete(cx, 3);
    Ok(())
}

fn delete(blame: &Blame<'_, '_>, cx: &mut RedoContext<'_>) -> Result<()> {
    let offsets: Vec<OffsetNumber> = blame
        .data(0)
        .as_chunks::<2>()
        .0
        .iter()
        .map(|raw| OffsetNumber::from_le_bytes(*raw))
        .collect();
    let Some(page) = cx.page_mut(0) else { return Ok(()) };
    blame.page(page.remove_items(&offsets))?;
    page::update_flags(page, 0, HAS_GARBAGE);
    Ok(())
}
