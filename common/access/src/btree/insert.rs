//! Inserting a tuple: find the leaf, look for a conflicting key, add the tuple or split the page.
//!
//! Resumable: an outcome other than `Inserted` leaves the index as if the call had not been made (but for a finished
//! split or a hint), with nothing latched, and the caller simply calls again. An index holds at most the leaf, its
//! right neighbours during a unique check, and the pages of one record at a time.
//!
//! **Unique check** (PostgreSQL's `_bt_check_unique`). While the first leaf that can hold the key is latched for writing,
//! nobody can add an equal key, because equal keys must pass through it. Each equal item's row is looked up: a row being
//! inserted or deleted by a running transaction blocks, a live one conflicts, whether or not its commit is visible yet; the
//! decision then depends on that commit [C3].

use std::cmp::Ordering;

use towline_base::{Lsn, Tid, Xid};
use towline_storage::{OffsetNumber, PageWrite, Placement};
use towline_wal::records::btree::{BtreeInsert, BtreeOp};

use super::context::Pressure;
use super::context::{Credited, IndexContext};
use super::key::{SearchKey, Values};
use super::page::{self, HIGH_KEY, NO_SIBLING, Opaque, free_space, item};
use super::search::{self, Stack, Steps};
use super::tuple::{IndexTuple, MAX_SIZE, MAX_TUPLE, TupleBuf, form};
use super::{delete, root, split};
use crate::catalog::Index;
use crate::error::{AccessError, Result};

/// What became of a row that an equal key points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// No version is live or can become live: aborted, deleted, or removed.
    Gone {
        /// Also invisible to every snapshot there is or will be, quorum included (B8): the item may be marked dead.
        for_everybody: bool,
        /// Commit LSN of the deletion that made it so, if it is not visible yet; else [`Lsn::INVALID`].
        depends_on: Lsn,
    },
    /// A version is live.
    Live {
        /// Commit LSN of its insertion, if it is not visible yet; else [`Lsn::INVALID`].
        depends_on: Lsn,
    },
    /// A running transaction decides.
    InProgress {
        /// That transaction.
        xid: Xid,
        /// The version it inserted or is deleting.
        tid: Tid,
    },
}

/// Looks at the row versions behind an index item; the heap's part of a unique check. It may latch heap pages, for reading
/// or for hints, one at a time.
pub trait RowProbe {
    /// The state of the row whose version chain starts at `tid`, seen by the inserting transaction: its own changes count.
    fn probe(&self, tid: Tid) -> Result<RowState>;
}

/// How an insertion ended.
#[derive(Debug)]
pub enum InsertOutcome {
    /// The tuple is in the index. The decision depends on this LSN being visible ([`Lsn::INVALID`] for none).
    Inserted {
        /// To be raised on the transaction.
        depends_on: Lsn,
    },
    /// An equal key belongs to a running transaction; call again after it ended.
    Blocked {
        /// That transaction.
        xid: Xid,
        /// The version it holds.
        tid: Tid,
    },
    /// An equal key is live.
    Duplicate {
        /// Where its row is.
        tid: Tid,
        /// To be raised on the transaction before the error is reported.
        depends_on: Lsn,
    },
    /// There is no room in the WAL buffers; call again after this.
    Needs(Pressure),
}

/// Adds a tuple with these key values and place. `probe` asks for the unique check.
///
/// # Errors
/// 54000 when the tuple is too large; damage of the index; storage.
pub(crate) fn insert(
    cx: &IndexContext<'_>,
    index: &Index,
    values: &Values<'_>,
    tid: Tid,
    probe: Option<&dyn RowProbe>,
) -> Result<InsertOutcome> {
    let mut tuple = TupleBuf::new();
    form(&index.key, values, tid, &mut tuple);
    if tuple.len() > MAX_TUPLE {
        return Err(too_large(index, tuple.len()));
    }
    let full = SearchKey::new(&index.key, values.clone(), Some(tid));
    let probe = probe.filter(|_| values.iter().all(Option::is_some));
    let mut stack = Stack::new();
    let mut room = Room::Insert;
    loop {
        let credit = match cx.credit(room.bytes(tuple.len()))? {
            Credited::Yes(credit) => credit,
            Credited::No(wait) => return Ok(InsertOutcome::Needs(wait)),
        };
        let mut depends_on = Lsn::INVALID;
        let leaf = match probe {
            None => find_leaf(cx, index, &full, &full, tuple.len(), &mut stack)?,
            Some(probe) => {
                let any = SearchKey::new(&index.key, values.clone(), None);
                let Some(mut leaf) = find_leaf(cx, index, &any, &full, tuple.len(), &mut stack)? else {
                    drop(credit);
                    if let Some(wait) = root::create(cx, index)? {
                        return Ok(InsertOutcome::Needs(wait));
                    }
                    continue;
                };
                match check_unique(cx, index, &any, &mut leaf, probe)? {
                    Unique::Free(lsn) => depends_on = lsn,
                    Unique::Blocked { xid, tid } => return Ok(InsertOutcome::Blocked { xid, tid }),
                    Unique::Duplicate { tid, depends_on } => {
                        return Ok(InsertOutcome::Duplicate { tid, depends_on });
                    }
                }
                // Among equal keys the place decides; equal keys may go on to the right.
                Some(move_right(cx, index, leaf, &full)?)
            }
        };
        let Some(Leaf { page, opaque }) = leaf else {
            drop(credit);
            if let Some(wait) = root::create(cx, index)? {
                return Ok(InsertOutcome::Needs(wait));
            }
            continue;
        };
        if opaque.is_incomplete_split() {
            let block = page.id().block;
            drop(page);
            drop(credit);
            if let Some(wait) = split::finish(cx, index, block, &stack)? {
                return Ok(InsertOutcome::Needs(wait));
            }
            continue;
        }
        if free_space(&page) < tuple.len() {
            // Cheapest first: the dead go, and only if that is not enough the page is split.
            match room {
                Room::Insert if opaque.flags & page::HAS_GARBAGE != 0 => {
                    room = Room::Delete;
                    continue;
                }
                Room::Insert => {
                    room = Room::Split;
                    continue;
                }
                Room::Delete => {
                    room = if delete::dead_items(cx, index, page, credit)? {
                        Room::Insert
                    } else {
                        Room::Split
                    };
                    continue;
                }
                Room::Split => {}
            }
            let offset = search::lower_bound(&index.key, &page, &opaque, &full, false);
            let left = page.id().block;
            split::split(cx, index, credit, page, None, offset, &tuple)?;
            // The tuple is in; the parent's downlink may be left to the next one who comes by.
            split::finish_later(cx, index, left, &stack)?;
            return Ok(InsertOutcome::Inserted { depends_on });
        }
        let offset = search::lower_bound(&index.key, &page, &opaque, &full, false);
        let block = page.id().block;
        let mut change = cx.change(credit, BtreeOp::InsertLeaf);
        let leaf = change.page(page);
        change
            .page_mut(leaf)
            .add_item(&tuple, Placement::Insert(offset))
            .map_err(|error| {
                page::corrupted(
                    &index.name,
                    format!("cannot take a tuple on block {block}: {error}"),
                )
            })?;
        change.block_data(leaf, &tuple);
        change.payload(&BtreeInsert { offnum: offset });
        change.finish()?;
        if opaque.is_rightmost() && opaque.level == 0 {
            index.hints.set_rightmost(Some(block));
        }
        return Ok(InsertOutcome::Inserted { depends_on });
    }
}

/// What the next record may need.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Insert,
    Delete,
    Split,
}

impl Room {
    fn bytes(self, tuple: usize) -> u32 {
        match self {
            Room::Insert => IndexContext::record_size(1, tuple),
            Room::Delete => IndexContext::record_size(1, 2 * towline_storage::page::MAX_ITEMS),
            Room::Split => IndexContext::record_size(4, tuple + towline_base::PAGE_SIZE),
        }
    }
}

/// 54000, with PostgreSQL's words.
pub(crate) fn too_large(index: &Index, size: usize) -> AccessError {
    if size > MAX_SIZE {
        return AccessError::new(
            towline_base::SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("index row requires {size} bytes, maximum size is {MAX_SIZE}"),
        );
    }
    AccessError::new(
        towline_base::SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!(
            "index row size {size} exceeds btree version 4 maximum {MAX_TUPLE} for index \"{}\"",
            index.name
        ),
    )
    .with_hint(
        "Values larger than 1/3 of a buffer page cannot be indexed.\n\
         Consider a function index of an MD5 hash of the value, or use full text indexing.",
    )
}

/// A leaf latched for writing.
struct Leaf {
    page: PageWrite,
    opaque: Opaque,
}

/// The leaf that `search` leads to, latched for writing; `None` when the index is empty. `full` and `size` decide whether
/// the remembered rightmost leaf will do without a descent.
fn find_leaf(
    cx: &IndexContext<'_>,
    index: &Index,
    search: &SearchKey<'_>,
    full: &SearchKey<'_>,
    size: usize,
    stack: &mut Stack,
) -> Result<Option<Leaf>> {
    stack.clear();
    if let Some(leaf) = rightmost_leaf(cx, index, search, full, size)? {
        return Ok(Some(leaf));
    }
    let Some(block) = search::descend_to_leaf_block(cx.pool(), index, search, stack)? else {
        return Ok(None);
    };
    let page = search::pin(cx.pool(), index, block)?.write();
    let opaque = page::check(&page, &index.name, block)?;
    move_right(cx, index, Leaf { page, opaque }, search).map(Some)
}

/// The remembered rightmost leaf, if the key is behind its first item and there is room.
fn rightmost_leaf(
    cx: &IndexContext<'_>,
    index: &Index,
    search: &SearchKey<'_>,
    full: &SearchKey<'_>,
    size: usize,
) -> Result<Option<Leaf>> {
    let Some(block) = index.hints.rightmost() else {
        return Ok(None);
    };
    let Ok(page) = search::pin(cx.pool(), index, block)?.try_write() else {
        return Ok(None);
    };
    let opaque = page::check(&page, &index.name, block)?;
    let usable = opaque.is_leaf()
        && opaque.is_rightmost()
        && !opaque.is_ignorable()
        && free_space(&page) >= size
        && item(&page, opaque.first_data()).is_some_and(|first| {
            index.key.compare(search, IndexTuple(first)) == Ordering::Greater
                && index.key.compare(full, IndexTuple(first)) == Ordering::Greater
        });
    if !usable {
        index.hints.set_rightmost(None);
        return Ok(None);
    }
    Ok(Some(Leaf { page, opaque }))
}

/// Moves right, latched for writing, until `search` belongs to the page.
fn move_right(cx: &IndexContext<'_>, index: &Index, leaf: Leaf, search: &SearchKey<'_>) -> Result<Leaf> {
    let Leaf { mut page, mut opaque } = leaf;
    let mut steps = Steps::default();
    while search::beyond_high_key(&index.key, &page, &opaque, search, false) {
        steps.take(cx.pool(), index)?;
        let next = opaque.next;
        // The caller finishes a split that it ends on; one that it passes is left to others.
        drop(page);
        page = search::pin(cx.pool(), index, next)?.write();
        opaque = page::check(&page, &index.name, next)?;
    }
    Ok(Leaf { page, opaque })
}

enum Unique {
    Free(Lsn),
    Blocked { xid: Xid, tid: Tid },
    Duplicate { tid: Tid, depends_on: Lsn },
}

/// Looks at every item equal to `any`, from `leaf` on.
fn check_unique(
    cx: &IndexContext<'_>,
    index: &Index,
    any: &SearchKey<'_>,
    leaf: &mut Leaf,
    probe: &dyn RowProbe,
) -> Result<Unique> {
    let mut depends_on = Lsn::INVALID;
    let from = search::lower_bound(&index.key, &leaf.page, &leaf.opaque, any, false);
    let mut dead: smallvec::SmallVec<[OffsetNumber; 8]> = smallvec::SmallVec::new();
    let mut examine = |offset: OffsetNumber, bytes: &[u8], first: bool| -> Result<Option<Unique>> {
        let tid = IndexTuple(bytes).leaf_tid();
        match probe.probe(tid)? {
            RowState::Gone {
                for_everybody,
                depends_on: lsn,
            } => {
                depends_on = depends_on.max(lsn);
                if for_everybody && first {
                    dead.push(offset);
                }
                Ok(None)
            }
            RowState::Live { depends_on: lsn } => Ok(Some(Unique::Duplicate {
                tid,
                depends_on: depends_on.max(lsn),
            })),
            RowState::InProgress { xid, tid } => Ok(Some(Unique::Blocked { xid, tid })),
        }
    };
    let equal = |bytes: &[u8]| index.key.compare(any, IndexTuple(bytes)) == Ordering::Equal;

    let mut found = None;
    let mut next = NO_SIBLING;
    let last = leaf.page.max_offset();
    let mut offset = from;
    loop {
        if offset > last {
            // Equal keys go on to the right only when the high key is not beyond them.
            if !leaf.opaque.is_rightmost()
                && item(&leaf.page, HIGH_KEY).is_some_and(|high| may_continue(index, any, high))
            {
                next = leaf.opaque.next;
            }
            break;
        }
        let Some(bytes) = item(&leaf.page, offset) else {
            break;
        };
        if !equal(bytes) {
            break;
        }
        if leaf.page.item_id(offset).is_some_and(|id| !id.is_dead()) {
            found = examine(offset, bytes, true)?;
            if found.is_some() {
                break;
            }
        }
        offset += 1;
    }
    let mut steps = Steps::default();
    while found.is_none() && next != NO_SIBLING {
        steps.take(cx.pool(), index)?;
        if next == leaf.page.id().block {
            return Err(page::corrupted(
                &index.name,
                format!("leads back to block {next}"),
            ));
        }
        let (page, opaque) = search::read(cx.pool(), index, next)?;
        next = NO_SIBLING;
        let mut ended = false;
        for offset in opaque.first_data()..=page.max_offset() {
            let Some(bytes) = item(&page, offset) else {
                continue;
            };
            if !equal(bytes) {
                ended = true;
                break;
            }
            if page.item_id(offset).is_some_and(|id| !id.is_dead()) {
                found = examine(offset, bytes, false)?;
                if found.is_some() {
                    break;
                }
            }
        }
        if found.is_none()
            && !ended
            && !opaque.is_rightmost()
            && item(&page, HIGH_KEY).is_some_and(|high| may_continue(index, any, high))
        {
            next = opaque.next;
        }
    }
    if !dead.is_empty() {
        delete::mark_dead(&mut leaf.page, &dead);
        leaf.opaque = page::opaque(&leaf.page);
    }
    Ok(found.unwrap_or(Unique::Free(depends_on)))
}

/// Whether a page to the right of this high key can hold items equal to `any`.
fn may_continue(index: &Index, any: &SearchKey<'_>, high_key: &[u8]) -> bool {
    index.key.compare(any, IndexTuple(high_key)) != Ordering::Less
}
