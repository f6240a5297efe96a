//! Bulk loads: the tuples of a new index are sorted, and pages are written from the leaves up, each once and full to the
//! fillfactor (PostgreSQL's nbtsort.c).
//!
//! Only a table's live versions are indexed, each under the place of its chain's root, with the table locked against
//! writers. Snapshots older than the build must not use the index ([`Index::usable_from`]). Every page is logged as an
//! image; the metapage comes last, so that a half-built index is an index without root.
//!
//! The spool is in memory. Nothing is latched or pinned between steps but the unfinished page of each level, which nobody else
//! can know of.

use std::collections::VecDeque;

use smallvec::SmallVec;
use towline_base::{BlockNumber, ForkKind, PAGE_SIZE, PageId, Tid};
use towline_storage::page::HEADER_SIZE;
use towline_storage::{LoggedChange, Page, PinnedPage};
use towline_wal::records::xlog::XlogOp;
use towline_wal::{BlockFlags, Rmgr};

use super::context::{Credited, IndexContext, Pressure};
use super::insert::too_large;
use super::key::{EncodedKey, KeyDescriptor};
use super::page::{self, LEAF, META_BLOCK, Meta, NO_SIBLING, OPAQUE_SIZE, Opaque, ROOT};
use super::split_pages::append;
use super::tuple::{IndexTuple, MAX_TUPLE, TupleBuf, form, minus_infinity, set_downlink, truncate};
use crate::catalog::Index;
use crate::error::{AccessError, Result};

/// Bytes of a line pointer.
const LINE: usize = 4;
/// Bytes that a tie-breaking place may add to a high key.
const TIEBREAK: usize = 8;
/// How full internal pages are loaded, in percent.
const INTERNAL_FILL: usize = 70;
/// Items loaded between two looks at the caller's interrupts.
const STEP_ITEMS: usize = 4096;

/// Tuples collected for a build.
#[derive(Debug, Default)]
pub struct Spool {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    scratch: TupleBuf,
    sorted: bool,
}

impl Spool {
    /// Adds a row's key values and place.
    pub(crate) fn add(&mut self, index: &Index, key: &EncodedKey, tid: Tid) -> Result<()> {
        form(&index.key, &key.values(), tid, &mut self.scratch);
        if self.scratch.len() > MAX_TUPLE {
            return Err(too_large(index, self.scratch.len()));
        }
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(&self.scratch);
        Ok(())
    }

    /// Tuples collected.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.starts.capacity() * size_of::<usize>()
    }

    fn tuple(&self, at: usize) -> &[u8] {
        let Some(start) = self.starts.get(at) else {
            return &[];
        };
        let rest = &self.bytes[*start..];
        rest.get(..IndexTuple(rest).size()).unwrap_or(rest)
    }

    /// Sorts; with `unique`, returns the places of two rows with equal keys, if there are such.
    fn sort(&mut self, key: &KeyDescriptor, unique: bool) -> Option<(Tid, Tid)> {
        let mut starts = std::mem::take(&mut self.starts);
        let at = |start: usize| IndexTuple(&self.bytes[start..]);
        starts.sort_unstable_by(|a, b| key.compare_tuples(at(*a), at(*b)));
        let duplicate = starts.windows(2).filter(|_| unique).find_map(|pair| {
            let (left, right) = (at(pair[0]), at(pair[1]));
            let equal = !left.has_nulls()
                && !right.has_nulls()
                && key.distinguishing(left, right) > key.columns.len();
            equal.then(|| (left.leaf_tid(), right.leaf_tid()))
        });
        self.starts = starts;
        self.sorted = true;
        duplicate
    }
}

/// One step of a build.
#[derive(Debug)]
pub enum BuildStep {
    /// More is to be done: check for interrupts, call again.
    Continue,
    /// No room in the WAL buffers, or too far above the quorum: wait, call again.
    Needs(Pressure),
    /// Two rows have equal keys in a unique index; the index is unusable.
    Duplicate(Tid, Tid),
    /// The index is complete.
    Done,
}

/// The unfinished page of one level.
struct Level {
    pin: PinnedPage,
    prev: BlockNumber,
    items: Vec<TupleBuf>,
    used: usize,
    /// The page's low key: the pivot for its parent.
    low: TupleBuf,
}

impl Level {
    fn block(&self) -> BlockNumber {
        self.pin.id().block
    }

    /// Bytes left for items and their line pointers, one line pointer being kept for the high key.
    fn free(&self) -> usize {
        (PAGE_SIZE - HEADER_SIZE - OPAQUE_SIZE).saturating_sub(self.used + LINE)
    }

    fn push(&mut self, item: TupleBuf) {
        self.used += item.len() + LINE;
        self.items.push(item);
    }
}

/// A page to be logged.
struct Ready {
    pin: PinnedPage,
    page: Box<Page>,
}

/// A build of one index from a spool.
pub struct Build {
    spool: Spool,
    next: usize,
    levels: Vec<Level>,
    ready: VecDeque<Ready>,
    phase: Phase,
}

impl std::fmt::Debug for Build {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Build")
            .field("tuples", &self.spool.len())
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Sort,
    Meta,
    Load,
    Finish,
    Done,
}

impl Build {
    /// A build from these tuples. The index's file exists and is empty.
    pub fn new(spool: Spool) -> Build {
        Build {
            spool,
            next: 0,
            levels: Vec::new(),
            ready: VecDeque::new(),
            phase: Phase::Sort,
        }
    }

    /// Goes on.
    pub(crate) fn step(&mut self, cx: &IndexContext<'_>, index: &Index) -> Result<BuildStep> {
        if let Some(pressure) = self.write_ready(cx)? {
            return Ok(BuildStep::Needs(pressure));
        }
        match self.phase {
            Phase::Sort => {
                if let Some((first, second)) = self.spool.sort(&index.key, index.unique) {
                    return Ok(BuildStep::Duplicate(first, second));
                }
                self.phase = Phase::Meta;
            }
            Phase::Meta => {
                let meta = cx.pool().extend(index.node, ForkKind::Main)?;
                if meta.id().block != META_BLOCK {
                    return Err(AccessError::internal("the file of a new index is not empty"));
                }
                self.queue_meta(meta, &Meta::new(NO_SIBLING, 0));
                self.phase = Phase::Load;
            }
            Phase::Load => {
                let end = self.spool.len().min(self.next + STEP_ITEMS);
                while self.next < end && self.ready.is_empty() {
                    let item = TupleBuf::from_slice(self.spool.tuple(self.next));
                    self.add(cx, index, 0, item)?;
                    self.next += 1;
                }
                if self.next == self.spool.len() {
                    self.phase = Phase::Finish;
                }
            }
            Phase::Finish => {
                self.finish(cx, index)?;
                self.phase = Phase::Done;
            }
            Phase::Done => return Ok(BuildStep::Done),
        }
        Ok(BuildStep::Continue)
    }

    /// Logs the pages that are complete.
    fn write_ready(&mut self, cx: &IndexContext<'_>) -> Result<Option<Pressure>> {
        while let Some(ready) = self.ready.pop_front() {
            let credit = match cx.credit(IndexContext::record_size(1, 0))? {
                Credited::Yes(credit) => credit,
                Credited::No(pressure) => {
                    self.ready.push_front(ready);
                    return Ok(Some(pressure));
                }
            };
            let mut change = LoggedChange::new(
                cx.storage,
                cx.permit,
                credit,
                Rmgr::Xlog,
                XlogOp::Fpi as u8,
                cx.xid,
            );
            let block = change.page(ready.pin.write(), BlockFlags::STANDARD | BlockFlags::FORCE_IMAGE);
            change.page_mut(block).clone_from(&ready.page);
            change.finish()?;
        }
        Ok(None)
    }

    fn queue_meta(&mut self, pin: PinnedPage, meta: &Meta) {
        let mut page = Page::boxed_zeroed();
        meta.write(&mut page);
        self.ready.push_back(Ready { pin, page });
    }

    /// Adds an item to the unfinished page of a level, completing that page first if it is full.
    fn add(&mut self, cx: &IndexContext<'_>, index: &Index, level: usize, item: TupleBuf) -> Result<()> {
        if level == self.levels.len() {
            let pin = cx.pool().extend(index.node, ForkKind::Main)?;
            let low = SmallVec::from_slice(&minus_infinity(NO_SIBLING));
            self.levels.push(Level {
                pin,
                prev: NO_SIBLING,
                items: Vec::new(),
                used: 0,
                low,
            });
        }
        let fill = if level == 0 {
            usize::from(index.fillfactor)
        } else {
            INTERNAL_FILL
        };
        let reserve = PAGE_SIZE * (100 - fill.min(100)) / 100;
        let need = item.len() + LINE + if level == 0 { TIEBREAK } else { 0 };
        let state = &self.levels[level];
        if state.free() < need || (state.free() < reserve && state.items.len() > 1) {
            self.complete(cx, index, level)?;
        }
        let state = &mut self.levels[level];
        let item = if level > 0 && state.items.is_empty() {
            SmallVec::from_slice(&minus_infinity(IndexTuple(&item).downlink()))
        } else {
            item
        };
        state.push(item);
        Ok(())
    }

    /// Completes the page of a level: its last item goes to a new page and leaves its key as high key.
    fn complete(&mut self, cx: &IndexContext<'_>, index: &Index, level: usize) -> Result<()> {
        let pin = cx.pool().extend(index.node, ForkKind::Main)?;
        let state = &mut self.levels[level];
        let (Some(last), true) = (state.items.pop(), !state.items.is_empty()) else {
            return Err(AccessError::internal("an index page of one item is full"));
        };
        let mut high = TupleBuf::new();
        match state.items.last() {
            Some(left) if level == 0 => truncate(&index.key, IndexTuple(left), IndexTuple(&last), &mut high),
            _ => high = last.clone(),
        }
        let next = pin.id().block;
        let old = std::mem::replace(
            state,
            Level {
                prev: state.block(),
                pin,
                items: Vec::new(),
                used: 0,
                low: high.clone(),
            },
        );
        let first = if level > 0 {
            SmallVec::from_slice(&minus_infinity(IndexTuple(&last).downlink()))
        } else {
            last
        };
        state.push(first);
        let block = old.block();
        let mut low = old.low.clone();
        self.queue(index, old, level, next, Some(&high), 0)?;
        set_downlink(&mut low, block);
        self.add(cx, index, level + 1, low)
    }

    /// Forms the page of a level and queues it.
    fn queue(
        &mut self,
        index: &Index,
        level_page: Level,
        level: usize,
        next: BlockNumber,
        high: Option<&TupleBuf>,
        flags: u16,
    ) -> Result<()> {
        let mut page = Page::boxed_zeroed();
        let leaf = if level == 0 { LEAF } else { 0 };
        let opaque = Opaque {
            prev: level_page.prev,
            next,
            level: level as u32,
            flags: flags | leaf,
            cycle: 0,
        };
        page::init(&mut page, &opaque);
        for item in high.into_iter().chain(&level_page.items) {
            append(&mut page, item)
                .map_err(|error| page::corrupted(&index.name, format!("cannot be built: {error}")))?;
        }
        self.ready.push_back(Ready {
            pin: level_page.pin,
            page,
        });
        Ok(())
    }

    /// Completes the rightmost page of every level, the topmost being the root, and says so on the metapage.
    fn finish(&mut self, cx: &IndexContext<'_>, index: &Index) -> Result<()> {
        let mut level = 0;
        let mut root = None;
        while level < self.levels.len() {
            let top = level + 1 == self.levels.len();
            let block = self.levels[level].block();
            let mut low = self.levels[level].low.clone();
            if top {
                root = Some((block, level as u32));
            } else {
                set_downlink(&mut low, block);
                self.add(cx, index, level + 1, low)?;
            }
            level += 1;
        }
        for (level, state) in std::mem::take(&mut self.levels).into_iter().enumerate() {
            let flags = if root.is_some_and(|(block, _)| block == state.block()) {
                ROOT
            } else {
                0
            };
            self.queue(index, state, level, NO_SIBLING, None, flags)?;
        }
        if let Some((block, level)) = root {
            let meta = cx.pool().pin(PageId::main(index.node, META_BLOCK))?;
            self.queue_meta(meta, &Meta::new(block, level));
        }
        Ok(())
    }
}
