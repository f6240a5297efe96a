//! Verification of a whole index, for tests and the crash harness (compare PostgreSQL's amcheck).
//!
//! Nobody may change the index meanwhile. Every level is walked from left to right: levels, flags, links, the order of
//! items, high keys, and that the downlinks of the level above name exactly the pages of this one, in order, with keys
//! that are true lower bounds. A page without downlink must be the right half of an unfinished split.

use std::cmp::Ordering;

use hashbrown::HashSet;
use towline_base::{BlockNumber, Tid};
use towline_storage::BufferPool;

use super::key::SearchKey;
use super::page::{self, HIGH_KEY, INCOMPLETE_SPLIT, LEAF, Meta, NO_SIBLING, ROOT, item};
use super::search;
use super::tuple::{IndexTuple, TupleBuf};
use crate::catalog::Index;
use crate::error::Result;

/// What a check found, when nothing was wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Levels, 0 for an index without root.
    pub levels: u32,
    /// Pages reached, the metapage not counted.
    pub pages: u32,
    /// Pages whose downlink is still missing.
    pub unfinished_splits: u32,
    /// Places of all leaf items in index order, items marked dead included.
    pub places: Vec<Tid>,
}

/// A child that the level above promises: its block and its low key.
struct Promise {
    block: BlockNumber,
    low: TupleBuf,
}

/// Verifies the structure of an index.
///
/// # Errors
/// XX002 with what is wrong.
pub fn check(pool: &BufferPool, index: &Index) -> Result<Checked> {
    let meta: Meta = search::read_meta(pool, index)?;
    let mut checked = Checked::default();
    if meta.root == NO_SIBLING {
        return Ok(checked);
    }
    checked.levels = meta.level + 1;
    let mut seen = HashSet::new();
    let mut promises: Option<Vec<Promise>> = None;
    let mut level = meta.level;
    let mut leftmost = meta.root;
    loop {
        let below = check_level(
            pool,
            index,
            leftmost,
            level,
            meta.level,
            promises.as_deref(),
            &mut seen,
            &mut checked,
        )?;
        if level == 0 {
            return Ok(checked);
        }
        leftmost = match below.first() {
            Some(first) => first.block,
            None => {
                return Err(page::corrupted(
                    &index.name,
                    format!("has no downlinks at level {level}"),
                ));
            }
        };
        promises = Some(below);
        level -= 1;
    }
}

/// Verifies one level and returns what it promises of the level below.
#[allow(clippy::too_many_arguments)]
fn check_level(
    pool: &BufferPool,
    index: &Index,
    leftmost: BlockNumber,
    level: u32,
    root_level: u32,
    promises: Option<&[Promise]>,
    seen: &mut HashSet<BlockNumber>,
    checked: &mut Checked,
) -> Result<Vec<Promise>> {
    let wrong = |block: BlockNumber, what: String| {
        page::corrupted(
            &index.name,
            format!("is wrong at block {block} of level {level}: {what}"),
        )
    };
    let mut below = Vec::new();
    let mut expected = promises.unwrap_or(&[]).iter().peekable();
    let mut left = NO_SIBLING;
    let mut block = leftmost;
    let mut left_high: Option<TupleBuf> = None;
    let mut left_unfinished = false;
    while block != NO_SIBLING {
        if !seen.insert(block) {
            return Err(wrong(block, "it was reached before".into()));
        }
        let (page, opaque) = search::read(pool, index, block)?;
        checked.pages += 1;
        if opaque.level != level || opaque.is_leaf() != (level == 0) {
            return Err(wrong(
                block,
                format!("level {} and flags {:#x}", opaque.level, opaque.flags),
            ));
        }
        if opaque.flags & !(LEAF | ROOT | INCOMPLETE_SPLIT | page::HAS_GARBAGE) != 0 {
            return Err(wrong(block, format!("flags {:#x}", opaque.flags)));
        }
        let is_root = level == root_level && opaque.is_leftmost() && opaque.is_rightmost();
        if (opaque.flags & ROOT != 0) != is_root {
            return Err(wrong(block, "the root flag".into()));
        }
        if opaque.prev != left {
            return Err(wrong(
                block,
                format!("left link {} instead of {left}", opaque.prev),
            ));
        }
        if opaque.is_incomplete_split() {
            checked.unfinished_splits += 1;
        }
        // The parent's downlink.
        let low = match expected.next_if(|promise| promise.block == block) {
            Some(promise) => Some(&promise.low),
            None if promises.is_none() || left_unfinished => None,
            None => return Err(wrong(block, "the level above has no downlink to it".into())),
        };
        let high = if opaque.is_rightmost() {
            None
        } else {
            item(&page, HIGH_KEY).map(TupleBuf::from_slice)
        };
        let mut before: Option<TupleBuf> = None;
        for offset in opaque.first_data()..=page.max_offset() {
            let Some(bytes) = item(&page, offset) else {
                return Err(wrong(block, format!("item {offset} has no bytes")));
            };
            let tuple = IndexTuple(bytes);
            if tuple.size() != bytes.len() || tuple.is_pivot() == opaque.is_leaf() {
                return Err(wrong(block, format!("item {offset} is malformed")));
            }
            let first_pivot = !opaque.is_leaf() && offset == opaque.first_data();
            if !first_pivot {
                let order = |other: &TupleBuf| compare(index, bytes, other);
                if before
                    .as_ref()
                    .is_some_and(|other| order(other) != Ordering::Greater)
                {
                    return Err(wrong(block, format!("item {offset} is not above the one before")));
                }
                if low.is_some_and(|low| {
                    IndexTuple(low).attribute_count(usize::MAX) > 0 && order(low) == Ordering::Less
                }) || left_high.as_ref().is_some_and(|low| order(low) == Ordering::Less)
                {
                    return Err(wrong(block, format!("item {offset} is below the page's low key")));
                }
                if let Some(high) = &high {
                    let order = order(high);
                    if order == Ordering::Greater || (order == Ordering::Equal && !opaque.is_leaf()) {
                        return Err(wrong(block, format!("item {offset} is above the high key")));
                    }
                }
                before = Some(TupleBuf::from_slice(bytes));
            } else if tuple.attribute_count(usize::MAX) != 0 {
                return Err(wrong(block, "the first downlink has attributes".into()));
            }
            if opaque.is_leaf() {
                checked.places.push(tuple.leaf_tid());
            } else {
                // The first child's low key is the page's own.
                let own = low.or(left_high.as_ref());
                let low = if first_pivot {
                    own.cloned().unwrap_or_else(|| TupleBuf::from_slice(bytes))
                } else {
                    TupleBuf::from_slice(bytes)
                };
                below.push(Promise {
                    block: tuple.downlink(),
                    low,
                });
            }
        }
        if !opaque.is_leaf() && page.max_offset() < opaque.first_data() {
            return Err(wrong(block, "no downlinks".into()));
        }
        if let (Some(low), Some(left_high)) = (low, &left_high)
            && compare(index, low, left_high) != Ordering::Equal
        {
            return Err(wrong(
                block,
                "its downlink's key is not its left neighbour's high key".into(),
            ));
        }
        left_unfinished = opaque.is_incomplete_split();
        left_high = high;
        left = block;
        block = opaque.next;
    }
    if let Some(promise) = expected.next() {
        return Err(wrong(
            promise.block,
            "a downlink leads to it, but no sibling link".into(),
        ));
    }
    Ok(below)
}

/// The order of two tuples, pivots counting as exactly what they hold.
fn compare(index: &Index, left: &[u8], right: &[u8]) -> Ordering {
    let mut key = SearchKey::of_tuple(&index.key, IndexTuple(left));
    key.exact_pivot = true;
    let order = index.key.compare(&key, IndexTuple(right));
    // A shorter left pivot equal so far is below: what it lacks is minus infinity.
    if order == Ordering::Equal
        && IndexTuple(left).attribute_count(index.key.columns.len())
            < IndexTuple(right).attribute_count(index.key.columns.len())
    {
        return Ordering::Less;
    }
    if order == Ordering::Equal
        && IndexTuple(left).heap_tid().is_none()
        && IndexTuple(right).heap_tid().is_some()
    {
        return Ordering::Less;
    }
    order
}
