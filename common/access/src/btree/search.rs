//! Descents: from the root to the leaf where a key belongs, one latch at a time (Lehman and Yao, as in nbtsearch.c).
//!
//! A page's high key and right link make up for splits that happen between leaving the parent and reaching the child: a
//! descent that arrives too far left moves right. No page is ever deleted yet, so any page once seen at a level stays
//! part of that level, and a remembered root is always a valid place to begin.

use std::cmp::Ordering;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering as Memory};

use smallvec::SmallVec;
use towline_base::{BlockNumber, ForkKind, PageId};
use towline_storage::{BufferPool, OffsetNumber, Page, PageRead, PinnedPage};

use super::key::{KeyDescriptor, SearchKey};
use super::page::{self, HIGH_KEY, MAX_LEVELS, META_BLOCK, Meta, NO_SIBLING, Opaque, item};
use super::tuple::IndexTuple;
use crate::catalog::Index;
use crate::error::{AccessError, Result};

/// Hints where descents begin. Wrong hints cost time, never correctness.
#[derive(Debug)]
pub struct DescentHints {
    /// Level and block of the root last seen; 0 for none.
    root: AtomicU64,
    /// The rightmost leaf last inserted into; 0 for none.
    rightmost: AtomicU32,
}

impl Default for DescentHints {
    fn default() -> Self {
        DescentHints {
            root: AtomicU64::new(0),
            rightmost: AtomicU32::new(0),
        }
    }
}

impl DescentHints {
    fn root(&self) -> Option<(BlockNumber, u32)> {
        let packed = self.root.load(Memory::Relaxed);
        (packed != 0).then_some((packed as u32, (packed >> 32) as u32))
    }

    pub(super) fn set_root(&self, block: BlockNumber, level: u32) {
        self.root
            .store(u64::from(level) << 32 | u64::from(block), Memory::Relaxed);
    }

    fn forget_root(&self) {
        self.root.store(0, Memory::Relaxed);
    }

    pub(super) fn rightmost(&self) -> Option<BlockNumber> {
        let block = self.rightmost.load(Memory::Relaxed);
        (block != NO_SIBLING).then_some(block)
    }

    pub(super) fn set_rightmost(&self, block: Option<BlockNumber>) {
        self.rightmost.store(block.unwrap_or(NO_SIBLING), Memory::Relaxed);
    }
}

/// Where a descent went through on its way: the page of each level above the leaf, and the downlink taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct StackEntry {
    pub(super) block: BlockNumber,
    pub(super) offset: OffsetNumber,
}

pub(super) type Stack = SmallVec<[StackEntry; 8]>;

/// Steps to a sibling that may be taken before the length of the index is asked for.
const FREE_STEPS: u32 = 16;

/// Counts the steps from sibling to sibling on one level. More of them than the index has pages mean that the links go in a
/// circle: damage, and without the count a walk without end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    taken: u32,
    most: u32,
}

impl Default for Steps {
    fn default() -> Self {
        Steps {
            taken: 0,
            most: FREE_STEPS,
        }
    }
}

impl Steps {
    /// One more step.
    pub(super) fn take(&mut self, pool: &BufferPool, index: &Index) -> Result<()> {
        self.taken = self.taken.saturating_add(1);
        if self.taken > self.most {
            self.most = pool.nblocks(index.node, ForkKind::Main)?.max(FREE_STEPS);
            if self.taken > self.most {
                return Err(circle(index));
            }
        }
        Ok(())
    }
}

/// Sibling links lead back to where they came from.
pub(crate) fn circle(index: &Index) -> AccessError {
    page::corrupted(&index.name, "has sibling links that go in a circle")
}

/// Pins a page of the index.
pub(super) fn pin(pool: &BufferPool, index: &Index, block: BlockNumber) -> Result<PinnedPage> {
    Ok(pool.pin(PageId::main(index.node, block))?)
}

/// Reads a page of the index and checks that it is one.
pub(super) fn read(pool: &BufferPool, index: &Index, block: BlockNumber) -> Result<(PageRead, Opaque)> {
    let page = pin(pool, index, block)?.read();
    let opaque = page::check(&page, &index.name, block)?;
    Ok((page, opaque))
}

/// Reads the metapage.
pub(super) fn read_meta(pool: &BufferPool, index: &Index) -> Result<Meta> {
    let page = pin(pool, index, META_BLOCK)?.read();
    Meta::read(&page, &index.name)
}

/// The first data item of `page` that is not before `search`: with `next_key`, the first beyond it.
pub(super) fn lower_bound(
    key: &KeyDescriptor,
    page: &Page,
    opaque: &Opaque,
    search: &SearchKey<'_>,
    next_key: bool,
) -> OffsetNumber {
    let mut low = opaque.first_data();
    let mut high = page.max_offset() + 1;
    while low < high {
        let middle = low + (high - low) / 2;
        let order =
            item(page, middle).map_or(Ordering::Greater, |bytes| key.compare(search, IndexTuple(bytes)));
        let go_right = if next_key {
            order != Ordering::Less
        } else {
            order == Ordering::Greater
        };
        if go_right {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Whether what `search` looks for lies to the right of this page.
pub(super) fn beyond_high_key(
    key: &KeyDescriptor,
    page: &Page,
    opaque: &Opaque,
    search: &SearchKey<'_>,
    next_key: bool,
) -> bool {
    if opaque.is_rightmost() {
        return false;
    }
    if opaque.is_ignorable() {
        return true;
    }
    let Some(high_key) = item(page, HIGH_KEY) else {
        return false;
    };
    match key.compare(search, IndexTuple(high_key)) {
        Ordering::Greater => true,
        Ordering::Equal => next_key,
        Ordering::Less => false,
    }
}

/// The downlink on an internal page that leads to `search`, and its offset.
pub(super) fn downlink(
    key: &KeyDescriptor,
    page: &Page,
    opaque: &Opaque,
    search: &SearchKey<'_>,
    next_key: bool,
) -> Option<(BlockNumber, OffsetNumber)> {
    let first = opaque.first_data();
    // The first item is minus infinity: never compared. The last one before the bound leads down.
    let offset = lower_bound(key, page, opaque, search, next_key).max(first + 1) - 1;
    item(page, offset).map(|bytes| (IndexTuple(bytes).downlink(), offset))
}

/// The root page, latched for reading, or `None` when the index is empty.
fn read_root(pool: &BufferPool, index: &Index) -> Result<Option<(PageRead, Opaque)>> {
    if let Some((block, level)) = index.hints.root() {
        let (page, opaque) = read(pool, index, block)?;
        // The root grew above it when it has a sibling; it still works, but a fresh look is cheaper.
        if opaque.level == level && opaque.is_leftmost() && opaque.is_rightmost() {
            return Ok(Some((page, opaque)));
        }
        drop(page);
        index.hints.forget_root();
    }
    let meta = read_meta(pool, index)?;
    if meta.root == NO_SIBLING {
        return Ok(None);
    }
    index.hints.set_root(meta.fast_root, meta.fast_level);
    let (page, opaque) = read(pool, index, meta.fast_root)?;
    if opaque.level != meta.fast_level {
        return Err(page::corrupted(
            &index.name,
            format!(
                "has level {} where {} is expected at block {}",
                opaque.level, meta.fast_level, meta.fast_root
            ),
        ));
    }
    Ok(Some((page, opaque)))
}

/// Moves right until `search` belongs to the page.
pub(super) fn move_right(
    pool: &BufferPool,
    index: &Index,
    mut page: PageRead,
    mut opaque: Opaque,
    search: &SearchKey<'_>,
    next_key: bool,
) -> Result<(PageRead, Opaque)> {
    let mut steps = Steps::default();
    while beyond_high_key(&index.key, &page, &opaque, search, next_key) {
        steps.take(pool, index)?;
        let next = opaque.next;
        drop(page);
        (page, opaque) = read(pool, index, next)?;
    }
    Ok((page, opaque))
}

/// Descends to the leaf where the first item not before `search` (or beyond it, with `next_key`) is or would be. The leaf is
/// latched for reading; `None` when the index is empty. `stack` receives the way.
pub(super) fn descend(
    pool: &BufferPool,
    index: &Index,
    search: &SearchKey<'_>,
    next_key: bool,
    mut stack: Option<&mut Stack>,
) -> Result<Option<(PageRead, Opaque)>> {
    if let Some(stack) = stack.as_deref_mut() {
        stack.clear();
    }
    let Some((mut page, mut opaque)) = read_root(pool, index)? else {
        return Ok(None);
    };
    for _ in 0..MAX_LEVELS {
        (page, opaque) = move_right(pool, index, page, opaque, search, next_key)?;
        if opaque.is_leaf() {
            return Ok(Some((page, opaque)));
        }
        let block = page.id().block;
        let level = opaque.level;
        let Some((child, offset)) = downlink(&index.key, &page, &opaque, search, next_key) else {
            return Err(page::corrupted(
                &index.name,
                format!("has no downlink on block {block}"),
            ));
        };
        if let Some(stack) = stack.as_deref_mut() {
            stack.push(StackEntry { block, offset });
        }
        drop(page);
        (page, opaque) = read(pool, index, child)?;
        if opaque.level + 1 != level {
            return Err(page::corrupted(
                &index.name,
                format!("has level {} below level {level} at block {child}", opaque.level),
            ));
        }
    }
    Err(page::corrupted(&index.name, "is too deep"))
}

/// As [`descend`], but stops above the leaf and returns its block, so that the caller can latch it for writing.
pub(super) fn descend_to_leaf_block(
    pool: &BufferPool,
    index: &Index,
    search: &SearchKey<'_>,
    stack: &mut Stack,
) -> Result<Option<BlockNumber>> {
    descend_to_level(pool, index, search, 0, stack)
}

/// The block at `level` that `search` leads to; it may have to move right from there. `None` when the tree is empty or lower.
pub(super) fn descend_to_level(
    pool: &BufferPool,
    index: &Index,
    search: &SearchKey<'_>,
    level: u32,
    stack: &mut Stack,
) -> Result<Option<BlockNumber>> {
    stack.clear();
    let Some((mut page, mut opaque)) = read_root(pool, index)? else {
        return Ok(None);
    };
    if opaque.level < level {
        return Ok(None);
    }
    for _ in 0..MAX_LEVELS {
        if opaque.level == level {
            return Ok(Some(page.id().block));
        }
        (page, opaque) = move_right(pool, index, page, opaque, search, false)?;
        let block = page.id().block;
        let Some((child, offset)) = downlink(&index.key, &page, &opaque, search, false) else {
            return Err(page::corrupted(
                &index.name,
                format!("has no downlink on block {block}"),
            ));
        };
        stack.push(StackEntry { block, offset });
        if opaque.level == level + 1 {
            return Ok(Some(child));
        }
        let above = opaque.level;
        drop(page);
        (page, opaque) = read(pool, index, child)?;
        if opaque.level + 1 != above {
            return Err(page::corrupted(
                &index.name,
                format!("has level {} at block {child}", opaque.level),
            ));
        }
    }
    Err(page::corrupted(&index.name, "is too deep"))
}

/// The leftmost or rightmost leaf; `None` when the index is empty.
pub(super) fn edge_leaf(
    pool: &BufferPool,
    index: &Index,
    rightmost: bool,
) -> Result<Option<(PageRead, Opaque)>> {
    let Some((mut page, mut opaque)) = read_root(pool, index)? else {
        return Ok(None);
    };
    for _ in 0..MAX_LEVELS {
        let mut steps = Steps::default();
        while (rightmost && !opaque.is_rightmost()) || (opaque.is_ignorable() && !opaque.is_rightmost()) {
            steps.take(pool, index)?;
            let next = opaque.next;
            drop(page);
            (page, opaque) = read(pool, index, next)?;
        }
        if opaque.is_leaf() {
            return Ok(Some((page, opaque)));
        }
        let offset = if rightmost {
            page.max_offset()
        } else {
            opaque.first_data()
        };
        let Some(child) = item(&page, offset).map(|bytes| IndexTuple(bytes).downlink()) else {
            return Err(page::corrupted(
                &index.name,
                format!("has no downlink on block {}", page.id().block),
            ));
        };
        drop(page);
        (page, opaque) = read(pool, index, child)?;
    }
    Err(page::corrupted(&index.name, "is too deep"))
}
