//! VACUUM of one table: prune and freeze the heap, clean the indexes, free the line pointers. A resumable operation.
//!
//! Three passes, as PostgreSQL's: (1) each heap page is pruned and, where asked, frozen, and its dead line pointers are noted; (2) each index
//! loses its entries for them; (3) the noted line pointers are freed. When the list of dead line pointers is full, (2) and (3) run in
//! between. A page on which everybody sees every tuple then gets its bits in the visibility map. Then `relfrozenxid` is brought up to date
//! (`vacuum/frozen.rs`). At last, empty pages at the end are cut off, when nobody else uses the table; then the TOAST table is vacuumed in the
//! same way. Nothing is latched between steps. The caller holds ShareUpdateExclusive on the table and no snapshot.
//!
//! A page that the map calls all frozen is counted and left alone; so is one that is all visible, unless old xids are to be looked for
//! (FREEZE, or a table older than `vacuum_freeze_table_age`). Only a VACUUM that has left out none of the latter knows the
//! table's oldest xid.
//!
//! What may go: versions deleted at or below the horizon, min(visible, live snapshots, feedback). What may be frozen: inserts that are also
//! ≤ quorum and flush (B8), since a frozen tuple no longer says what it depended on; the same holds for the map's bits. Records carry
//! `conflict_lsn` for standbys.

mod auto;
mod cut;
pub(crate) mod frozen;
pub(crate) mod orphans;
mod sizes;

use std::sync::Arc;

use smallvec::SmallVec;
use towline_base::{BlockNumber, ForkKind, Lsn, PageId, Tid, Xid};
use towline_storage::vm::{ALL_FROZEN, ALL_VISIBLE};
use towline_storage::{LoggedChange, PageWrite};
use towline_wal::records::heap2::{Heap2Op, HeapFreezePage, HeapFreezeTuple, HeapVacuum};
use towline_wal::records::layout::Payload;
use towline_wal::{BlockFlags, Rmgr, credit_for};

use crate::btree::{self, BulkDelete, BulkStep, IndexContext};
use crate::catalog::Table;
use crate::engine::Engine;
use crate::error::{AccessError, Result};
use crate::heap::place::room;
use crate::heap::prune::{self, PRUNE_DATA};
use crate::heap::redo::{apply_freeze, free_dead};
use crate::heap::tuple::{TupleMut, TupleRef, mask};
use crate::heap::visibility::{Outcome, commit_lsn, holder, inserter, tuple_at};
use crate::heap::vm;
use crate::locks::{LockMode, LockTag};
use crate::ops::wait_for;
use crate::step::{Step, Wait};
use crate::txn::Transaction;

pub use auto::{Autovacuum, AutovacuumSettings};
pub use sizes::SizesOp;

/// Dead line pointers noted before indexes are cleaned.
const MAX_DEAD: usize = 1 << 20;
/// Pages of one step.
const PAGES_PER_STEP: u32 = 32;
/// Bytes of a freeze record's data at most.
const FREEZE_DATA: usize = 292 * HeapFreezeTuple::SIZE + 32;

/// What is asked of a VACUUM. The defaults are PostgreSQL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VacuumOptions {
    /// FREEZE: freeze whatever may be frozen.
    pub freeze: bool,
    /// Xids younger than this are not frozen (`vacuum_freeze_min_age`).
    pub freeze_min_age: u64,
    /// A table whose oldest xid is at least so old is looked through for old xids (`vacuum_freeze_table_age`).
    pub freeze_table_age: u64,
}

impl Default for VacuumOptions {
    fn default() -> VacuumOptions {
        VacuumOptions {
            freeze: false,
            freeze_min_age: 50_000_000,
            freeze_table_age: 150_000_000,
        }
    }
}

impl VacuumOptions {
    /// FREEZE, or not, with everything else by default.
    pub fn freezing(freeze: bool) -> VacuumOptions {
        VacuumOptions {
            freeze,
            ..VacuumOptions::default()
        }
    }

    /// The ages, as far as they let VACUUM do its work before `autovacuum_freeze_max_age` would force it to, as PostgreSQL bounds them.
    pub fn bounded_by(mut self, freeze_max_age: u64) -> VacuumOptions {
        self.freeze_min_age = self.freeze_min_age.min(freeze_max_age / 2);
        self.freeze_table_age = self.freeze_table_age.min(freeze_max_age / 20 * 19);
        self
    }
}

/// What a VACUUM did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VacuumReport {
    /// Pages of the table.
    pub pages: u32,
    /// Rows that somebody may see.
    pub live_rows: u64,
    /// Versions that are deleted, but still visible to some snapshot.
    pub recently_dead: u64,
    /// Line pointers freed.
    pub removed: u64,
    /// Entries removed from all indexes together.
    pub index_entries: u64,
    /// Tuples frozen.
    pub frozen: u64,
    /// Empty pages cut off the end.
    pub cut: u32,
    /// The lowest xid that stands unfrozen in the pages looked at: the new `relfrozenxid`, unless some were left out.
    pub oldest_unfrozen: Xid,
    /// Pages left out because everybody sees all that is on them.
    pub left_out: u32,
    /// Pages that were changed.
    pub changed: u32,
    /// Pages read, those of indexes included.
    pub seen: u64,
}

/// The outcome of one step.
#[derive(Debug)]
pub enum VacuumStep {
    /// There is more to do: call again, after looking at the interrupts.
    More,
    /// Call again after this.
    Wait(Wait),
    /// Finished.
    Done(VacuumReport),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Heap,
    Index {
        at: usize,
        block: Option<BlockNumber>,
    },
    Free {
        at: usize,
    },
    Frozen,
    Cut,
    /// The TOAST table.
    Toast,
    Done,
}

/// A VACUUM of one table in progress.
#[derive(Debug)]
pub struct VacuumOp {
    table: Arc<Table>,
    options: VacuumOptions,
    /// Old xids are looked for on every page that may have some.
    thorough: bool,
    phase: Phase,
    next: BlockNumber,
    end: BlockNumber,
    /// The next page was pruned and frozen, and waits for its bits in the visibility map.
    pruned: bool,
    /// Behind the last page that holds a row.
    tail: BlockNumber,
    cut: cut::Cut,
    dead: Vec<Tid>,
    /// The vacuum of the TOAST table, once it has begun.
    toast: Option<Box<VacuumOp>>,
    keeps_length: bool,
    /// Leaves of the index that were visited: more than it has pages are a circle of links.
    walked: u32,
    report: VacuumReport,
    toast_report: Option<VacuumReport>,
}

impl VacuumOp {
    /// A VACUUM of the whole table.
    pub fn new(txn: &Transaction, table: Arc<Table>, options: VacuumOptions) -> Result<Self> {
        let engine = txn.engine();
        // Before the length is looked at: what stands behind the end will be of transactions that run now, or younger ones.
        let oldest_running = engine.oldest_running_xid();
        let end = engine.storage().nblocks(table.node, ForkKind::Main)?;
        let age = |xid: Xid| engine.next_xid().0.saturating_sub(xid.0);
        let thorough = options.freeze
            || frozen::of_table(engine, table.oid)?.is_none_or(|xid| age(xid) >= options.freeze_table_age);
        let report = VacuumReport {
            pages: end,
            oldest_unfrozen: oldest_running,
            ..VacuumReport::default()
        };
        Ok(VacuumOp {
            table,
            options,
            thorough,
            phase: Phase::Heap,
            next: 0,
            end,
            pruned: false,
            tail: 0,
            cut: cut::Cut::default(),
            dead: Vec::new(),
            toast: None,
            keeps_length: false,
            walked: 0,
            report,
            toast_report: None,
        })
    }

    /// Leaves empty pages at the end where they are, as the table may be in use by somebody without a lock on it.
    pub fn keep_length(mut self) -> Self {
        self.cut = cut::Cut::never();
        self.keeps_length = true;
        self
    }

    /// Goes on for a few pages.
    pub fn step(&mut self, txn: &mut Transaction) -> Result<VacuumStep> {
        txn.check_interrupts()?;
        let engine = Arc::clone(txn.engine());
        let outcome = match self.phase {
            Phase::Heap => self.heap(&engine)?,
            Phase::Index { at, block } => self.index(&engine, at, block)?,
            Phase::Free { at } => self.free(&engine, at)?,
            Phase::Frozen => self.advance_frozen(&engine)?,
            Phase::Cut => match self.cut.step(txn, &self.table, self.tail)? {
                Step::Done(None) => Step::Done(()),
                Step::Done(Some(pages)) => {
                    self.report.cut = pages;
                    self.phase = Phase::Toast;
                    Step::Done(())
                }
                Step::Wait(wait) => Step::Wait(wait),
            },
            Phase::Toast => return self.toast(txn),
            Phase::Done => return Ok(VacuumStep::Done(self.report)),
        };
        Ok(match outcome {
            Step::Done(()) => VacuumStep::More,
            Step::Wait(wait) => VacuumStep::Wait(wait),
        })
    }

    fn toast(&mut self, txn: &mut Transaction) -> Result<VacuumStep> {
        let Some(toast) = self.table.toast.as_ref() else {
            self.phase = Phase::Done;
            return Ok(VacuumStep::More);
        };
        let op = match &mut self.toast {
            Some(op) => op,
            None => {
                let tag = LockTag::Relation(toast.oid.0);
                if let Step::Wait(wait) = txn.lock(tag, LockMode::ShareUpdateExclusive)? {
                    return Ok(VacuumStep::Wait(wait));
                }
                let mut op = VacuumOp::new(txn, Arc::clone(toast), self.options)?;
                if self.keeps_length {
                    op = op.keep_length();
                }
                self.toast.insert(Box::new(op))
            }
        };
        Ok(match op.step(txn)? {
            VacuumStep::Done(report) => {
                // It has a `relfrozenxid` of its own; the work of both is counted together.
                self.report.seen += report.seen;
                self.report.changed += report.changed;
                self.toast_report = Some(report);
                self.phase = Phase::Done;
                VacuumStep::More
            }
            other => other,
        })
    }

    /// What was done in the TOAST table, once all is done.
    pub fn toast_report(&self) -> Option<&VacuumReport> {
        self.toast_report.as_ref()
    }

    /// Whether a cut, of the table or of its TOAST table, is logged and not carried out.
    #[cfg(test)]
    pub(crate) fn is_cutting(&self) -> bool {
        self.cut.is_logged() || self.toast.as_ref().is_some_and(|toast| toast.is_cutting())
    }

    /// Pages read and pages changed so far.
    pub(crate) fn work(&self) -> (u64, u64) {
        let (seen, changed) = (self.report.seen, u64::from(self.report.changed));
        match &self.toast {
            // Its counts are in the report once it has ended.
            Some(toast) if self.toast_report.is_none() => {
                let (also_seen, also_changed) = toast.work();
                (seen + also_seen, changed + also_changed)
            }
            _ => (seen, changed),
        }
    }

    /// How far the first pass is, in percent.
    pub fn percent(&self) -> u32 {
        if self.end == 0 {
            100
        } else {
            (u64::from(self.next) * 100 / u64::from(self.end)) as u32
        }
    }

    fn heap(&mut self, engine: &Engine) -> Result<Step<()>> {
        for _ in 0..PAGES_PER_STEP {
            if self.next >= self.end || self.dead.len() + 300 > MAX_DEAD {
                self.phase = if self.dead.is_empty() {
                    Phase::Frozen
                } else {
                    Phase::Index { at: 0, block: None }
                };
                return Ok(Step::Done(()));
            }
            // Two steps: the second may wait, and the first must not count twice.
            if !self.pruned {
                crate::ready!(self.heap_page(engine, self.next));
                self.pruned = true;
            }
            crate::ready!(self.mark_page(engine, self.next));
            self.pruned = false;
            self.next += 1;
            self.report.seen += 1;
        }
        Ok(Step::Done(()))
    }

    fn heap_page(&mut self, engine: &Engine, block: BlockNumber) -> Result<Step<()>> {
        let rel = self.table.node;
        let pinned = engine.storage().pin_for_scan(PageId::main(rel, block))?;
        let bits = vm::settled_bits(engine, &pinned)?;
        if bits & ALL_FROZEN != 0 || bits & ALL_VISIBLE != 0 && !self.thorough {
            self.report.left_out += u32::from(bits & ALL_FROZEN == 0);
            let page = pinned.read_ref();
            self.report.live_rows += page.item_ids().filter(|(_, item)| item.is_normal()).count() as u64;
            self.tail = block + 1;
            engine.storage().fsm().record(rel, block, room(&page));
            return Ok(Step::Done(()));
        }
        let credit = crate::ready!(engine.credit(credit_for(1, PRUNE_DATA)));
        let page = pinned.clone().write();
        if page.is_new() {
            engine.storage().fsm().record(rel, block, room(&page));
            return Ok(Step::Done(()));
        }
        let plan = prune::plan(
            engine.csn(),
            &page,
            block,
            engine.vacuum_horizon(),
            engine.next_xid(),
        )?;
        if plan.is_empty() {
            drop((credit, page));
        } else {
            prune::apply(engine, page, credit, &plan)?;
            self.report.changed += 1;
        }
        crate::ready!(self.freeze_page(engine, &pinned, block));
        let page = pinned.read_ref();
        engine.storage().fsm().record(rel, block, room(&page));
        if page
            .item_ids()
            .any(|(_, item)| item.is_normal() || item.is_redirect())
        {
            self.tail = block + 1;
        }
        self.dead.extend((1..=page.max_offset()).filter_map(|offset| {
            page.item_id(offset)
                .is_some_and(|item| item.is_dead())
                .then_some(Tid::new(block, offset))
        }));
        Ok(Step::Done(()))
    }

    /// Says in the catalog how old the table is now. A VACUUM waits for nobody's transaction: what is there now decides.
    fn advance_frozen(&mut self, engine: &Engine) -> Result<Step<()>> {
        if self.report.left_out == 0 && frozen::of_table(engine, self.table.oid)?.is_some() {
            crate::ready!(frozen::advance_table(
                engine,
                self.table.oid,
                self.report.oldest_unfrozen
            ));
            crate::ready!(frozen::advance_database(engine));
        }
        self.phase = Phase::Cut;
        Ok(Step::Done(()))
    }

    /// Sets the page's bits in the visibility map.
    fn mark_page(&self, engine: &Engine, block: BlockNumber) -> Result<Step<()>> {
        let pinned = engine
            .storage()
            .pin_for_scan(PageId::main(self.table.node, block))?;
        vm::set_bits(engine, &pinned)
    }

    /// Freezes what may be frozen, and counts what is there.
    fn freeze_page(
        &mut self,
        engine: &Engine,
        pinned: &towline_storage::PinnedPage,
        block: BlockNumber,
    ) -> Result<Step<()>> {
        let credit = crate::ready!(engine.credit(credit_for(1, FREEZE_DATA)));
        let page = pinned.clone().write();
        let settled = engine.vacuum_horizon().min(engine.settled());
        let mut work = FreezePlan::default();
        let mut counts = self.report;
        for offset in 1..=page.max_offset() {
            if let Some(tuple) = tuple_at(&page, block, offset)? {
                plan_freeze(
                    engine,
                    tuple,
                    offset,
                    settled,
                    &self.options,
                    &mut work,
                    &mut counts,
                )?;
            }
        }
        counts.frozen += work.tuples.len() as u64;
        self.report = counts;
        if work.tuples.is_empty() {
            return Ok(Step::Done(()));
        }
        let writer = engine.writer()?;
        let info = Heap2Op::FreezePage as u8;
        let mut change = LoggedChange::new(
            engine.storage(),
            &writer.permit,
            credit,
            Rmgr::Heap2,
            info,
            Xid::INVALID,
        );
        let id = change.page(page, BlockFlags::STANDARD);
        let page = change.page_mut(id);
        for freeze in &work.tuples {
            let tuple = page.item_mut(freeze.offset).and_then(TupleMut::new);
            apply_freeze(
                &mut tuple.ok_or_else(|| AccessError::internal("a tuple vanished under its latch"))?,
                freeze,
            );
        }
        let data = change.builder_mut().block_buffer(id);
        for freeze in &work.tuples {
            freeze.encode(data);
        }
        change.payload(&HeapFreezePage {
            cutoff_xid: work.highest.next().low32(),
            ntuples: work.tuples.len() as u16,
            conflict_lsn: work.conflict,
        });
        change.finish()?;
        self.report.changed += 1;
        Ok(Step::Done(()))
    }

    fn index(&mut self, engine: &Engine, at: usize, block: Option<BlockNumber>) -> Result<Step<()>> {
        let Some(index) = self.table.indexes.get(at) else {
            self.phase = Phase::Free { at: 0 };
            return Ok(Step::Done(()));
        };
        let writer = engine.writer()?;
        let horizon = || engine.vacuum_horizon();
        let cx = IndexContext {
            storage: engine.storage(),
            permit: &writer.permit,
            xid: Xid::INVALID,
            horizon: &horizon,
        };
        let dead = &self.dead;
        // Tids were noted in page order, so the list is sorted.
        let mut is_dead = |tid: Tid| dead.binary_search(&tid).is_ok();
        let mut block = block;
        for _ in 0..PAGES_PER_STEP {
            let mut leaf = BulkDelete::default();
            let step = btree::bulk_delete(&cx, index, block, &mut is_dead, &mut leaf)?;
            self.report.index_entries += leaf.removed;
            self.report.seen += 1;
            self.report.changed += u32::from(leaf.removed > 0);
            match step {
                BulkStep::Next(next) => {
                    block = Some(next);
                    self.walked += 1;
                    if self.walked > engine.storage().nblocks(index.node, ForkKind::Main)? {
                        return Err(btree::circle(index));
                    }
                }
                BulkStep::Needs(pressure) => {
                    self.phase = Phase::Index { at, block };
                    return Ok(Step::Wait(wait_for(engine, pressure)));
                }
                BulkStep::Done => {
                    self.walked = 0;
                    self.phase = Phase::Index {
                        at: at + 1,
                        block: None,
                    };
                    return Ok(Step::Done(()));
                }
            }
        }
        self.phase = Phase::Index { at, block };
        Ok(Step::Done(()))
    }

    fn free(&mut self, engine: &Engine, mut at: usize) -> Result<Step<()>> {
        for _ in 0..PAGES_PER_STEP {
            let Some(first) = self.dead.get(at) else {
                self.dead.clear();
                self.phase = if self.next >= self.end {
                    Phase::Frozen
                } else {
                    Phase::Heap
                };
                return Ok(Step::Done(()));
            };
            let count = self.dead[at..]
                .iter()
                .take_while(|tid| tid.block == first.block)
                .count();
            let block = first.block;
            crate::ready!(self.free_page(engine, at, count));
            crate::ready!(self.mark_page(engine, block));
            at += count;
            self.report.seen += 1;
            self.phase = Phase::Free { at };
        }
        Ok(Step::Done(()))
    }

    fn free_page(&mut self, engine: &Engine, at: usize, count: usize) -> Result<Step<()>> {
        let (rel, block) = (self.table.node, self.dead[at].block);
        let credit = crate::ready!(engine.credit(credit_for(1, count * 2 + 32)));
        let writer = engine.writer()?;
        let page: PageWrite = engine.storage().pin(PageId::main(rel, block))?.write();
        let offsets: SmallVec<[u16; 64]> = self.dead[at..at + count]
            .iter()
            .map(|tid| tid.offset)
            .filter(|offset| page.item_id(*offset).is_some_and(|item| item.is_dead()))
            .collect();
        if offsets.is_empty() {
            return Ok(Step::Done(()));
        }
        let info = Heap2Op::Vacuum as u8;
        let mut change = LoggedChange::new(
            engine.storage(),
            &writer.permit,
            credit,
            Rmgr::Heap2,
            info,
            Xid::INVALID,
        );
        let id = change.page(page, BlockFlags::STANDARD);
        let page = change.page_mut(id);
        free_dead(page, offsets.iter().copied())?;
        let free = room_of(page);
        for offset in &offsets {
            change.block_data(id, &offset.to_le_bytes());
        }
        // What these line pointers stood for was conflicted with when it was pruned.
        change.payload(&HeapVacuum {
            nunused: offsets.len() as u16,
            conflict_lsn: Lsn::INVALID,
        });
        change.finish()?;
        self.report.removed += offsets.len() as u64;
        self.report.changed += 1;
        engine.storage().fsm().record(rel, block, free);
        Ok(Step::Done(()))
    }
}

fn room_of(page: &towline_storage::Page) -> usize {
    room(page)
}

#[derive(Default)]
struct FreezePlan {
    tuples: SmallVec<[HeapFreezeTuple; 32]>,
    conflict: Lsn,
    highest: Xid,
}

/// Decides about one tuple, and counts it.
fn plan_freeze(
    engine: &Engine,
    tuple: TupleRef<'_>,
    offset: u16,
    settled: Lsn,
    options: &VacuumOptions,
    plan: &mut FreezePlan,
    counts: &mut VacuumReport,
) -> Result<()> {
    let (csn, next) = (engine.csn(), engine.next_xid());
    let xmin = Xid::from_low32(tuple.xmin(), next);
    let old = |xid: Xid| options.freeze || next.0.saturating_sub(xid.0) > options.freeze_min_age;
    let mut bits = tuple.infomask();
    let mut xmax = tuple.xmax();
    let mut left = Xid(u64::MAX);
    match inserter(csn, tuple, Xid::INVALID, next)? {
        Outcome::Committed(_) => {
            let frozen = tuple.is_xmin_frozen() || !xmin.is_normal();
            // Not what a hint says: a standby may have older snapshots.
            let lsn = commit_lsn(csn, tuple.xmin(), next)?;
            if !frozen && lsn <= settled && old(xmin) {
                plan.conflict = plan.conflict.max(lsn);
                plan.highest = plan.highest.max(xmin);
                bits |= mask::XMIN_FROZEN;
            } else if !frozen {
                left = left.min(xmin);
            }
        }
        // An aborted one that came since the page was pruned, or that is still part of a chain.
        Outcome::Running(_) | Outcome::Own | Outcome::None => left = left.min(xmin),
    }
    if bits & mask::XMAX_INVALID == 0 && xmax != 0 {
        let deleter = Xid::from_low32(xmax, next);
        match holder(csn, tuple, Xid::INVALID, next)? {
            Outcome::Running(_) | Outcome::Own => {
                left = left.min(deleter);
                counts.live_rows += 1;
            }
            Outcome::Committed(_) if !tuple.is_lock_only() => {
                left = left.min(deleter);
                counts.recently_dead += 1;
            }
            // A locker that has ended, or a deleter that aborted: xmax means nothing.
            Outcome::Committed(_) | Outcome::None => {
                counts.live_rows += 1;
                if old(deleter) {
                    xmax = 0;
                    bits = bits & !mask::XMAX_BITS | mask::XMAX_INVALID;
                } else {
                    left = left.min(deleter);
                }
            }
        }
    } else {
        counts.live_rows += 1;
    }
    counts.oldest_unfrozen = counts.oldest_unfrozen.min(left);
    if bits != tuple.infomask() || xmax != tuple.xmax() {
        let mut bits2 = tuple.infomask2();
        if bits & mask::XMAX_INVALID != 0 {
            bits2 &= !(crate::heap::tuple::mask2::HOT_UPDATED | crate::heap::tuple::mask2::KEYS_UPDATED);
        }
        plan.tuples.push(HeapFreezeTuple {
            xmax,
            offset,
            infomask2: bits2,
            infomask: bits,
            frzflags: 0,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
