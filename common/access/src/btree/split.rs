//! Splitting a page and telling its parent, as two separate steps (Lehman and Yao).
//!
//! The split is one record: the left half stays in place with the incomplete-split flag, the right half is a new page at the
//! end of the file, linked between the left half and its old right neighbour. Readers find moved items through the right
//! link. The parent gets its downlink in a second record, which clears the flag. Whoever comes to a page with the flag first
//! (after a crash, or because the splitter had no room in the WAL buffers) does the second step.

use std::cmp::Ordering;

use smallvec::SmallVec;
use towline_base::{BlockNumber, ForkKind};
use towline_storage::{OffsetNumber, PageWrite, Placement};
use towline_wal::Credit;
use towline_wal::records::btree::{BtreeInsert, BtreeOp, BtreeSplit};

use super::context::Pressure;
use super::context::{Credited, IndexContext};
use super::key::SearchKey;
use super::page::{self, HIGH_KEY, INCOMPLETE_SPLIT, NO_SIBLING, Opaque, free_space, item};
use super::root;
use super::search::{self, Stack, StackEntry};
use super::split_pages::{NewItem, item_area, left_half, right_half};
use super::split_point::{SplitInput, SplitPoint};
use super::tuple::{IndexTuple, TupleBuf, set_downlink, truncate};
use crate::catalog::Index;
use crate::error::Result;

/// Splits `page` so that `tuple` comes to stand at `offset` of it, or in its right half. `child` is the page whose split
/// made `tuple`, when the page is an internal one; its incomplete-split flag falls with the same record.
pub(super) fn split(
    cx: &IndexContext<'_>,
    index: &Index,
    credit: Credit,
    left: PageWrite,
    child: Option<PageWrite>,
    offset: OffsetNumber,
    tuple: &[u8],
) -> Result<()> {
    let opaque = page::opaque(&left);
    let left_block = left.id().block;
    let damaged = |what: &dyn std::fmt::Display| {
        page::corrupted(&index.name, format!("cannot split block {left_block}: {what}"))
    };
    let input = SplitInput {
        key: &index.key,
        page: &left,
        opaque,
        new_item: tuple,
        new_offset: offset,
        fillfactor: index.fillfactor,
    };
    let point = input.choose().ok_or_else(|| damaged(&"no place to split"))?;
    let new_item = NewItem { bytes: tuple, offset };
    let high_key =
        separator(index, &left, &opaque, point, &new_item).ok_or_else(|| damaged(&"an item is missing"))?;

    let right = cx.pool().extend(index.node, ForkKind::Main)?.write();
    let right_block = right.id().block;
    let new_left = left_half(
        &left,
        point,
        point.new_on_left.then_some(&new_item),
        &high_key,
        right_block,
    )
    .map_err(|error| damaged(&error))?;
    let new_right = right_half(&left, point, &new_item, left_block).map_err(|error| damaged(&error))?;
    let sibling = if opaque.is_rightmost() {
        None
    } else if child
        .as_ref()
        .is_some_and(|child| child.id().block == opaque.next)
    {
        // It is latched: damage must not make us wait for ourselves.
        return Err(damaged(&"its right neighbour is the page below it"));
    } else {
        let sibling = search::pin(cx.pool(), index, opaque.next)?.write();
        let links = page::check(&sibling, &index.name, opaque.next)?;
        if links.prev != left_block {
            return Err(damaged(&format_args!(
                "right neighbour {} has left link {}",
                opaque.next, links.prev
            )));
        }
        Some(sibling)
    };

    let op = if point.new_on_left {
        BtreeOp::SplitLeft
    } else {
        BtreeOp::SplitRight
    };
    let mut change = cx.change(credit, op);
    let lsn = left.lsn();
    let left = change.page(left);
    change.page_mut(left).clone_from(&new_left);
    change.page_mut(left).set_lsn(lsn);
    let right = change.page_init(right);
    change.page_mut(right).clone_from(&new_right);
    if let Some(sibling) = sibling {
        let sibling = change.page_as(2, sibling);
        let mut links = page::opaque(change.page_mut(sibling));
        links.prev = right_block;
        page::set_opaque(change.page_mut(sibling), &links);
    }
    if let Some(child) = child {
        let child = change.page_as(3, child);
        page::update_flags(change.page_mut(child), 0, INCOMPLETE_SPLIT);
    }
    if point.new_on_left {
        change.block_data(left, tuple);
    }
    change.block_data(left, &high_key);
    change.block_data(right, item_area(&new_right));
    let record = BtreeSplit {
        level: opaque.level,
        firstrightoff: point.first_right,
        newitemoff: offset,
        postingoff: 0,
    };
    change.payload(&record);
    change.finish()?;
    if opaque.is_leaf() && opaque.is_rightmost() {
        index.hints.set_rightmost(Some(right_block));
    }
    Ok(())
}

/// The left half's high key: on a leaf the shortest separator, above it the first right item itself.
fn separator(
    index: &Index,
    page: &PageWrite,
    opaque: &Opaque,
    point: SplitPoint,
    new_item: &NewItem<'_>,
) -> Option<TupleBuf> {
    let new_here = point.first_right == new_item.offset;
    let first_right = if new_here && !point.new_on_left {
        new_item.bytes
    } else {
        item(page, point.first_right)?
    };
    if !opaque.is_leaf() {
        return Some(SmallVec::from_slice(first_right));
    }
    let last_left = if new_here && point.new_on_left {
        new_item.bytes
    } else {
        item(page, point.first_right.checked_sub(1)?)?
    };
    let mut out = TupleBuf::new();
    truncate(
        &index.key,
        IndexTuple(last_left),
        IndexTuple(first_right),
        &mut out,
    );
    Some(out)
}

/// How often a parent without downlink is looked at again: a neighbour's split is finished in between, by us or by others.
const MAX_ATTEMPTS: u32 = 10_000;

/// What the record of the second step may need.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Insert,
    Split,
}

/// The second step after one's own split. Without room in the WAL buffers it is left to whoever comes by.
pub(super) fn finish_later(
    cx: &IndexContext<'_>,
    index: &Index,
    left_block: BlockNumber,
    stack: &[StackEntry],
) -> Result<()> {
    #[cfg(test)]
    if super::harness::abandons_split() {
        return Ok(());
    }
    finish(cx, index, left_block, stack).map(|_| ())
}

/// Gives the right half of a split page its downlink, if that has not been done. `stack` is the way to the page, or empty.
/// Returns a wait when the WAL buffers have no room: nothing was done then.
pub(super) fn finish(
    cx: &IndexContext<'_>,
    index: &Index,
    left_block: BlockNumber,
    stack: &[StackEntry],
) -> Result<Option<Pressure>> {
    let mut room = Room::Insert;
    let mut attempts = 0;
    // Whether the way to a page without stack was looked for.
    let mut searched = false;
    let mut found_stack = Stack::from_slice(stack);
    loop {
        let bytes = match room {
            Room::Insert => IndexContext::record_size(3, 2 * towline_base::PAGE_SIZE),
            Room::Split => IndexContext::record_size(4, 2 * towline_base::PAGE_SIZE),
        };
        let credit = match cx.credit(bytes)? {
            Credited::Yes(credit) => credit,
            Credited::No(wait) => return Ok(Some(wait)),
        };
        let left = search::pin(cx.pool(), index, left_block)?.write();
        let opaque = page::check(&left, &index.name, left_block)?;
        if !opaque.is_incomplete_split() {
            return Ok(None);
        }
        let high_key: TupleBuf = match item(&left, HIGH_KEY) {
            Some(bytes) if opaque.next != NO_SIBLING => SmallVec::from_slice(bytes),
            _ => {
                return Err(page::corrupted(
                    &index.name,
                    format!("has a split without high key on block {left_block}"),
                ));
            }
        };
        if found_stack.is_empty() && !searched {
            let meta = search::read_meta(cx.pool(), index)?;
            if meta.root == left_block {
                root::grow(cx, index, credit, left, &high_key)?;
                return Ok(None);
            }
            // The descent may begin at this very page, when what is remembered of the root is old: it must not be latched meanwhile.
            drop(left);
            drop(credit);
            find_parent(cx, index, &opaque, &high_key, &mut found_stack)?;
            searched = true;
            continue;
        }
        let found = match found_stack.split_last() {
            Some((entry, _)) => latch_parent(cx, index, left_block, *entry, opaque.level + 1)?,
            None => Parent::Missing,
        };
        let above = Stack::from_slice(found_stack.split_last().map_or(&[], |(_, above)| above));
        let (parent, offset) = match found {
            Parent::Found(parent, offset) => (parent, offset),
            Parent::Incomplete(block) => {
                drop(left);
                drop(credit);
                if let Some(wait) = finish(cx, index, block, &above)? {
                    return Ok(Some(wait));
                }
                continue;
            }
            Parent::Missing => {
                // The page is itself the right half of a split that is not finished: that one comes first.
                drop(left);
                drop(credit);
                searched = false;
                attempts += 1;
                if attempts > MAX_ATTEMPTS {
                    return Err(page::corrupted(
                        &index.name,
                        format!("has no downlink to split block {left_block}"),
                    ));
                }
                if let Some(neighbour) = unfinished_neighbour(cx, index, left_block, opaque.prev)?
                    && let Some(wait) = finish(cx, index, neighbour, &found_stack)?
                {
                    return Ok(Some(wait));
                }
                continue;
            }
        };
        let mut downlink = high_key;
        set_downlink(&mut downlink, opaque.next);
        if free_space(&parent) >= downlink.len() {
            insert_downlink(cx, index, credit, parent, left, offset + 1, &downlink)?;
            return Ok(None);
        }
        if room == Room::Insert {
            room = Room::Split;
            continue;
        }
        let parent_block = parent.id().block;
        split(cx, index, credit, parent, Some(left), offset + 1, &downlink)?;
        finish_later(cx, index, parent_block, &above)?;
        return Ok(None);
    }
}

/// The left neighbour of `block`, if its split is not finished. `left` was the left link a moment ago; the neighbour may have been
/// split since.
fn unfinished_neighbour(
    cx: &IndexContext<'_>,
    index: &Index,
    block: BlockNumber,
    mut left: BlockNumber,
) -> Result<Option<BlockNumber>> {
    let mut steps = search::Steps::default();
    while left != NO_SIBLING {
        steps.take(cx.pool(), index)?;
        let (_, opaque) = search::read(cx.pool(), index, left)?;
        if opaque.next == block {
            return Ok(opaque.is_incomplete_split().then_some(left));
        }
        left = opaque.next;
    }
    Ok(None)
}

/// Descends to the parent level of a page whose stack is not known.
fn find_parent(
    cx: &IndexContext<'_>,
    index: &Index,
    opaque: &Opaque,
    high_key: &[u8],
    stack: &mut Stack,
) -> Result<()> {
    let mut key = SearchKey::of_tuple(&index.key, IndexTuple(high_key));
    key.exact_pivot = true;
    if let Some(block) = search::descend_to_level(cx.pool(), index, &key, opaque.level + 1, stack)? {
        stack.push(StackEntry { block, offset: 0 });
    }
    Ok(())
}

enum Parent {
    /// Latched for writing; the offset of the child's downlink.
    Found(PageWrite, OffsetNumber),
    /// The parent's own split must be finished first.
    Incomplete(BlockNumber),
    /// No page of the level above has a downlink to the child.
    Missing,
}

/// Finds the downlink to `child`, on the remembered page or to the right of it.
fn latch_parent(
    cx: &IndexContext<'_>,
    index: &Index,
    child: BlockNumber,
    entry: StackEntry,
    level: u32,
) -> Result<Parent> {
    let mut block = entry.block;
    let mut steps = search::Steps::default();
    loop {
        steps.take(cx.pool(), index)?;
        if block == child {
            // It is latched: damage must not make us wait for ourselves.
            return Err(page::corrupted(
                &index.name,
                format!("leads to block {block} above itself"),
            ));
        }
        let parent = search::pin(cx.pool(), index, block)?.write();
        let opaque = page::check(&parent, &index.name, block)?;
        if opaque.level != level {
            return Err(page::corrupted(
                &index.name,
                format!("has level {} at parent block {block}", opaque.level),
            ));
        }
        if opaque.is_incomplete_split() {
            return Ok(Parent::Incomplete(block));
        }
        let leads = |offset: OffsetNumber| {
            item(&parent, offset).is_some_and(|bytes| IndexTuple(bytes).downlink() == child)
        };
        let (first, last) = (opaque.first_data(), parent.max_offset());
        let start = entry.offset.clamp(first, last.max(first));
        // Usually where it was, or a little to the right of it.
        let found = (start..=last)
            .chain((first..start).rev())
            .find(|offset| leads(*offset));
        if let Some(offset) = found {
            return Ok(Parent::Found(parent, offset));
        }
        if opaque.is_rightmost() {
            return Ok(Parent::Missing);
        }
        block = opaque.next;
    }
}

fn insert_downlink(
    cx: &IndexContext<'_>,
    index: &Index,
    credit: Credit,
    parent: PageWrite,
    child: PageWrite,
    offset: OffsetNumber,
    downlink: &[u8],
) -> Result<()> {
    debug_assert!(
        in_order(index, &parent, offset, downlink),
        "a downlink out of order"
    );
    let block = parent.id().block;
    let mut change = cx.change(credit, BtreeOp::InsertUpper);
    let parent = change.page(parent);
    change
        .page_mut(parent)
        .add_item(downlink, Placement::Insert(offset))
        .map_err(|error| {
            page::corrupted(
                &index.name,
                format!("cannot take a downlink on block {block}: {error}"),
            )
        })?;
    change.block_data(parent, downlink);
    let child = change.page(child);
    page::update_flags(change.page_mut(child), 0, INCOMPLETE_SPLIT);
    change.payload(&BtreeInsert { offnum: offset });
    change.finish()
}

/// Whether `downlink` may stand at `offset`.
fn in_order(index: &Index, page: &PageWrite, offset: OffsetNumber, downlink: &[u8]) -> bool {
    let mut key = SearchKey::of_tuple(&index.key, IndexTuple(downlink));
    key.exact_pivot = true;
    let opaque = page::opaque(page);
    let before = offset
        .checked_sub(1)
        .filter(|before| *before > opaque.first_data());
    let above = before.and_then(|before| item(page, before));
    let below = item(page, offset);
    above.is_none_or(|bytes| index.key.compare(&key, IndexTuple(bytes)) != Ordering::Less)
        && below.is_none_or(|bytes| index.key.compare(&key, IndexTuple(bytes)) != Ordering::Greater)
}
