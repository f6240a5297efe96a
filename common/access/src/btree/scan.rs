//! Index scans: the places of matching rows in index order, forward or backward.
//!
//! A scan copies the matching places of one leaf while it has the latch, and holds nothing between steps: no latch, no
//! pin. Forward, it goes on at the right link as it was when the page was copied, so items that a split moves right
//! are not seen twice. Backward, it follows the left link as it is now and moves right until it stands on the true
//! left neighbour (PostgreSQL's `_bt_walk_left`). A place that vacuum has meanwhile given to a new row is harmless:
//! that row is newer than the scan's snapshot.

use std::cmp::Ordering;
use std::sync::Arc;

use towline_base::{BlockNumber, Tid};
use towline_storage::{BufferPool, OffsetNumber, PageRead};
use towline_types::{Datum, TypeId};

use super::key::{EncodedKey, KeyDescriptor, SearchKey};
use super::page::{self, HIGH_KEY, NO_SIBLING, Opaque, item};
use super::search;
use super::tuple::IndexTuple;
use crate::catalog::Index;
use crate::error::Result;

/// Which way a scan goes through the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// In index order.
    Forward,
    /// Against it.
    Backward,
}

/// One end of a range of values.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The value; never NULL.
    pub value: Datum,
    /// Whether the value itself belongs to the range.
    pub inclusive: bool,
}

/// What a scan matches: equality on the first columns of the index, a range on the next one.
///
/// Values must be of the columns' own types. An equality with [`Datum::Null`] means IS NULL; SQL's `= NULL` must not get
/// here. `lower` and `upper` are in value order, also for DESC columns; a range never matches NULL.
#[derive(Clone, Debug, Default)]
pub struct ScanBounds {
    /// Values of the first columns.
    pub equal: Vec<Datum>,
    /// Lower end of the range on column `equal.len()`.
    pub lower: Option<Bound>,
    /// Upper end of the range on column `equal.len()`.
    pub upper: Option<Bound>,
    /// Without `lower` and `upper`: the next column is NOT NULL.
    pub not_null: bool,
}

impl ScanBounds {
    /// Matches these values of the first columns.
    pub fn equal(values: Vec<Datum>) -> ScanBounds {
        ScanBounds {
            equal: values,
            ..ScanBounds::default()
        }
    }
}

/// One end of the scanned part in index order: a key of leading columns, and whether items equal to it belong. Its memory is
/// kept from one scan to the next.
#[derive(Clone, Debug, Default)]
struct End {
    /// False: the edge of the index.
    bounded: bool,
    key: EncodedKey,
    inclusive: bool,
}

impl End {
    fn set_equal(&mut self, index: &Index, values: &[Datum]) -> Result<()> {
        self.key.clear();
        for (column, value) in index.key.columns.iter().zip(values) {
            self.key.push(column.type_id, value)?;
        }
        self.inclusive = true;
        self.bounded = self.key.len() > 0;
        Ok(())
    }

    /// Adds the range's end on the next column; the range is open on the side where the NULLs are, which do not belong to it.
    fn set_range(&mut self, type_id: TypeId, bound: &Option<Bound>, nulls_here: bool) -> Result<()> {
        match bound {
            Some(bound) => {
                self.key.push(type_id, &bound.value)?;
                self.inclusive = bound.inclusive;
            }
            None if nulls_here => {
                self.key.push_null();
                self.inclusive = false;
            }
            None => {}
        }
        self.bounded = self.key.len() > 0;
        Ok(())
    }

    /// The end as a search, and whether items equal to it belong.
    fn search<'a>(&'a self, key: &KeyDescriptor) -> Option<(SearchKey<'a>, bool)> {
        self.bounded
            .then(|| (SearchKey::new(key, self.key.values(), None), self.inclusive))
    }
}

/// Where the scan goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Start,
    /// Forward: the next page to read. Backward: the page just read, and its left link then.
    After {
        block: BlockNumber,
        left: BlockNumber,
    },
    End,
}

/// A scan of one index.
#[derive(Debug)]
pub struct IndexScan {
    index: Arc<Index>,
    direction: Direction,
    /// First and last end in index order.
    low: End,
    high: End,
    /// Equality only: `low` is both ends.
    single: bool,
    cursor: Cursor,
    steps: search::Steps,
}

/// What a scan has copied of the page it stands on.
#[derive(Debug)]
struct Cursor {
    position: Position,
    items: Vec<Tid>,
    next: usize,
}

impl IndexScan {
    /// Prepares a scan; nothing is read yet.
    ///
    /// # Errors
    /// XX000 for a bound of another type than its column.
    pub fn new(index: Arc<Index>, bounds: &ScanBounds, direction: Direction) -> Result<IndexScan> {
        let mut scan = IndexScan {
            index,
            direction,
            low: End::default(),
            high: End::default(),
            single: true,
            cursor: Cursor {
                position: Position::Start,
                items: Vec::new(),
                next: 0,
            },
            steps: search::Steps::default(),
        };
        scan.restart(bounds)?;
        Ok(scan)
    }

    /// Begins anew with other bounds, keeping memory: for nested loops and prepared statements.
    pub fn restart(&mut self, bounds: &ScanBounds) -> Result<()> {
        self.cursor.items.clear();
        self.cursor.next = 0;
        self.cursor.position = Position::Start;
        self.steps = search::Steps::default();
        let columns = &self.index.key.columns;
        let prefix = bounds.equal.len().min(columns.len());
        self.low.set_equal(&self.index, &bounds.equal)?;
        let ranged = bounds.lower.is_some() || bounds.upper.is_some() || bounds.not_null;
        let Some(column) = columns.get(prefix).filter(|_| ranged) else {
            self.single = true;
            return Ok(());
        };
        self.single = false;
        self.high.set_equal(&self.index, &bounds.equal)?;
        let (first, last) = if column.descending {
            (&bounds.upper, &bounds.lower)
        } else {
            (&bounds.lower, &bounds.upper)
        };
        self.low.set_range(column.type_id, first, column.nulls_first)?;
        self.high.set_range(column.type_id, last, !column.nulls_first)
    }

    /// The index.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// Whether the next call of [`IndexScan::next`] reads no page.
    pub fn has_buffered(&self) -> bool {
        self.cursor.next < self.cursor.items.len()
    }

    /// The next row's place; `None` at the end. Between calls nothing is held, so the caller checks for interrupts here.
    #[inline]
    pub fn next(&mut self, pool: &BufferPool) -> Result<Option<Tid>> {
        loop {
            if let Some(tid) = self.cursor.items.get(self.cursor.next) {
                self.cursor.next += 1;
                return Ok(Some(*tid));
            }
            if self.cursor.position == Position::End {
                return Ok(None);
            }
            self.read_page(pool)?;
        }
    }

    fn read_page(&mut self, pool: &BufferPool) -> Result<()> {
        self.cursor.items.clear();
        self.cursor.next = 0;
        self.steps.take(pool, &self.index)?;
        let key = &self.index.key;
        let low = self.low.search(key);
        let high = if self.single {
            low.clone()
        } else {
            self.high.search(key)
        };
        let found = match (self.direction, self.cursor.position) {
            (_, Position::End) => return Ok(()),
            (Direction::Forward, Position::Start) => first_forward(pool, &self.index, &low)?,
            (Direction::Backward, Position::Start) => first_backward(pool, &self.index, &high)?,
            (Direction::Forward, Position::After { block, .. }) => {
                let (page, opaque) = search::read(pool, &self.index, block)?;
                Some((page, opaque, opaque.first_data()))
            }
            (Direction::Backward, Position::After { block, left }) => {
                walk_left(pool, &self.index, block, left)?.map(|(page, opaque)| {
                    let last = page.max_offset();
                    (page, opaque, last)
                })
            }
        };
        let Some((page, opaque, from)) = found else {
            self.cursor.position = Position::End;
            return Ok(());
        };
        match self.direction {
            Direction::Forward => self.cursor.copy_forward(key, &high, &page, &opaque, from),
            Direction::Backward => self.cursor.copy_backward(key, &low, &page, &opaque, from),
        }
        Ok(())
    }
}

type Found = Option<(PageRead, Opaque, OffsetNumber)>;

/// The first page of a forward scan and the first item to look at.
fn first_forward(pool: &BufferPool, index: &Index, low: &Option<(SearchKey<'_>, bool)>) -> Result<Found> {
    Ok(match low {
        Some((key, inclusive)) => {
            search::descend(pool, index, key, !inclusive, None)?.map(|(page, opaque)| {
                let offset = search::lower_bound(&index.key, &page, &opaque, key, !inclusive);
                (page, opaque, offset)
            })
        }
        None => search::edge_leaf(pool, index, false)?.map(|(page, opaque)| {
            let first = opaque.first_data();
            (page, opaque, first)
        }),
    })
}

/// The first page of a backward scan and the first item to look at: the one before the first item behind the range.
fn first_backward(pool: &BufferPool, index: &Index, high: &Option<(SearchKey<'_>, bool)>) -> Result<Found> {
    Ok(match high {
        Some((key, inclusive)) => {
            search::descend(pool, index, key, *inclusive, None)?.map(|(page, opaque)| {
                let offset = search::lower_bound(&index.key, &page, &opaque, key, *inclusive);
                (page, opaque, offset - 1)
            })
        }
        None => search::edge_leaf(pool, index, true)?.map(|(page, opaque)| {
            let last = page.max_offset();
            (page, opaque, last)
        }),
    })
}

impl Cursor {
    /// Copies the matches from `from` on and decides whether the next page can have more.
    fn copy_forward(
        &mut self,
        key: &KeyDescriptor,
        end: &Option<(SearchKey<'_>, bool)>,
        page: &PageRead,
        opaque: &Opaque,
        from: OffsetNumber,
    ) {
        let beyond = |bytes: &[u8]| match end {
            None => false,
            Some((search, inclusive)) => match key.compare(search, IndexTuple(bytes)) {
                Ordering::Less => true,
                Ordering::Equal => !inclusive,
                Ordering::Greater => false,
            },
        };
        let mut done = opaque.is_rightmost();
        if !opaque.is_ignorable() {
            // A page in the middle of a range lies wholly inside it: then only the last item is compared.
            let last = page.max_offset();
            let all_match = from <= last && item(page, last).is_some_and(|bytes| !beyond(bytes));
            for offset in from..=last {
                let Some(bytes) = item(page, offset) else { continue };
                if !all_match && beyond(bytes) {
                    done = true;
                    break;
                }
                self.items.push(IndexTuple(bytes).leaf_tid());
            }
            // All items to the right are above the high key.
            if !done && item(page, HIGH_KEY).is_some_and(beyond) {
                done = true;
            }
        }
        self.position = if done {
            Position::End
        } else {
            Position::After {
                block: opaque.next,
                left: NO_SIBLING,
            }
        };
    }

    /// Copies the matches from `from` down and decides whether the page to the left can have more.
    fn copy_backward(
        &mut self,
        key: &KeyDescriptor,
        end: &Option<(SearchKey<'_>, bool)>,
        page: &PageRead,
        opaque: &Opaque,
        from: OffsetNumber,
    ) {
        let mut done = opaque.is_leftmost();
        if !opaque.is_ignorable() {
            for offset in (opaque.first_data()..=from).rev() {
                let Some(bytes) = item(page, offset) else { continue };
                let before = match end {
                    None => false,
                    Some((search, inclusive)) => match key.compare(search, IndexTuple(bytes)) {
                        Ordering::Greater => true,
                        Ordering::Equal => !inclusive,
                        Ordering::Less => false,
                    },
                };
                if before {
                    done = true;
                    break;
                }
                self.items.push(IndexTuple(bytes).leaf_tid());
            }
        }
        self.position = if done {
            Position::End
        } else {
            Position::After {
                block: page.id().block,
                left: opaque.prev,
            }
        };
    }
}

/// The page to the left of `block`, whose left link was `left` when it was read.
fn walk_left(
    pool: &BufferPool,
    index: &Index,
    block: BlockNumber,
    mut left: BlockNumber,
) -> Result<Option<(PageRead, Opaque)>> {
    // Each round ends on the neighbour, or with a newer left link of `block`: its left neighbour was split.
    for _ in 0..u16::MAX {
        if left == NO_SIBLING {
            return Ok(None);
        }
        let (mut page, mut opaque) = search::read(pool, index, left)?;
        for _ in 0..4 {
            if opaque.next == block && !opaque.is_ignorable() {
                return Ok(Some((page, opaque)));
            }
            if opaque.is_rightmost() {
                break;
            }
            let next = opaque.next;
            drop(page);
            (page, opaque) = search::read(pool, index, next)?;
        }
        drop(page);
        let (_, current) = search::read(pool, index, block)?;
        if current.prev == left {
            return Err(page::corrupted(
                &index.name,
                format!("has a left link from block {block} to {left} without a way back"),
            ));
        }
        left = current.prev;
    }
    Err(page::corrupted(
        &index.name,
        format!("has no left neighbour of block {block}"),
    ))
}
