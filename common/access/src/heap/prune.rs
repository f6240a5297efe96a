//! Pruning: dead versions leave their page, chains get shorter, and line pointers that indexes point to stay.
//!
//! It happens on access, when a page is nearly full and may hold something dead, and in vacuum. It needs the page latched for writing,
//! no more: nobody keeps a pointer into a page across a latch, and a version that some snapshot sees is never removed. A page that cannot
//! be latched at once, and a log without room, put it off. The record carries the highest commit LSN of what it removes, so that
//! a standby cancels the snapshots that still see it (B8).
//!
//! The plan for a chain is PostgreSQL's (`pruneheap.c`): everything up to the last dead version goes; the root line pointer is redirected to
//! the first survivor, or dead when there is none.

use smallvec::SmallVec;
use towline_base::{Lsn, PAGE_SIZE, Xid};
use towline_storage::{ItemId, LoggedChange, Page, PageWrite, PinnedPage, StorageError};
use towline_wal::records::heap2::{Heap2Op, HeapPrune, PrunedOffsets};
use towline_wal::{BlockFlags, Credit, Rmgr, credit_for};

use super::tuple::TupleRef;
use super::visibility::{Liveness, liveness, tuple_at};
use crate::csn::{CsnLog, XidStatus};
use crate::engine::Engine;
use crate::error::{AccessError, Result};

/// Line pointers of one page, as a bound of all lists here.
const MAX_OFFSETS: usize = 292;
/// Bytes of data in a prune record at most: every line pointer redirected.
pub(crate) const PRUNE_DATA: usize = MAX_OFFSETS * 4 + 32;

/// What pruning would do to a page.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) redirected: SmallVec<[(u16, u16); 32]>,
    pub(crate) dead: SmallVec<[u16; 32]>,
    pub(crate) unused: SmallVec<[u16; 32]>,
    /// Highest commit LSN of the removed versions' deleters.
    pub(crate) conflict: Lsn,
    /// Highest xid among the removed versions, for PostgreSQL's field.
    pub(crate) latest_removed: u32,
    /// An xid whose deletion may be pruned later, 0 for none.
    pub(crate) prune_later: u32,
    /// Versions removed.
    pub(crate) removed: u32,
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.redirected.is_empty() && self.dead.is_empty() && self.unused.is_empty()
    }
}

struct Planner<'a> {
    csn: &'a CsnLog,
    page: &'a Page,
    block: u32,
    horizon: Lsn,
    next: Xid,
    marked: [bool; MAX_OFFSETS],
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn item(&self, offset: u16) -> Option<ItemId> {
        if usize::from(offset) < MAX_OFFSETS {
            self.page.item_id(offset)
        } else {
            None
        }
    }

    fn mark(&mut self, offset: u16) {
        self.marked[usize::from(offset)] = true;
    }

    fn judge(&self, tuple: TupleRef<'_>) -> Result<Liveness> {
        liveness(self.csn, tuple, self.horizon, self.next)
    }

    fn removed(&mut self, tuple: TupleRef<'_>, deleted: Lsn) {
        self.plan.removed += 1;
        self.plan.conflict = self.plan.conflict.max(deleted);
        let xid = if deleted.is_valid() {
            tuple.xmax()
        } else {
            tuple.xmin()
        };
        if self.plan.latest_removed == 0
            || Xid::from_low32(xid, self.next) > Xid::from_low32(self.plan.latest_removed, self.next)
        {
            self.plan.latest_removed = xid;
        }
    }

    fn prunable_later(&mut self, xid: u32) {
        let later = self.plan.prune_later;
        if later == 0 || Xid::from_low32(xid, self.next) < Xid::from_low32(later, self.next) {
            self.plan.prune_later = xid;
        }
    }

    /// Plans the chain that begins at a root line pointer.
    fn chain(&mut self, root: u16) -> Result<()> {
        let Some(root_item) = self.item(root) else {
            return Ok(());
        };
        if root_item.is_normal()
            && let Some(tuple) = tuple_at(self.page, self.block, root)?
            && tuple.is_heap_only()
        {
            // Reached through its chain, unless that was cut by an abort: then it is dead, unless it goes on.
            if let Liveness::Dead(lsn) = self.judge(tuple)?
                && !tuple.is_hot_updated()
            {
                self.removed(tuple, lsn);
                self.plan.unused.push(root);
                self.mark(root);
            }
            return Ok(());
        }
        let mut members: SmallVec<[u16; 16]> = SmallVec::new();
        let mut last_dead = None;
        let mut offset = root;
        let mut previous_xmax = None;
        while let Some(item) = self.item(offset) {
            if self.marked[usize::from(offset)] || members.len() >= MAX_OFFSETS {
                break;
            }
            if item.is_redirect() {
                if !members.is_empty() {
                    break;
                }
                members.push(offset);
                offset = item.redirect_target();
                continue;
            }
            let Some(tuple) = tuple_at(self.page, self.block, offset)? else {
                break;
            };
            if previous_xmax.is_some_and(|xmax| xmax != tuple.xmin()) {
                break;
            }
            members.push(offset);
            let mut go_on = true;
            match self.judge(tuple)? {
                Liveness::Dead(lsn) => {
                    last_dead = Some(members.len() - 1);
                    self.removed(tuple, lsn);
                }
                // Something behind it may be dead all the same (an aborted update); keep looking.
                Liveness::RecentlyDead(_) => self.prunable_later(tuple.xmax()),
                Liveness::Deleting => {
                    self.prunable_later(tuple.xmax());
                    go_on = false;
                }
                Liveness::Inserting => {
                    self.prunable_later(tuple.xmin());
                    go_on = false;
                }
                Liveness::Live(_) => go_on = false,
            }
            if !go_on || !tuple.is_hot_updated() || tuple.ctid().block != self.block {
                break;
            }
            previous_xmax = Some(tuple.xmax());
            offset = tuple.ctid().offset;
        }
        match last_dead {
            Some(last) => self.cut(&members, last),
            None if members.len() == 1 && root_item.is_redirect() => {
                // A redirect to nothing: its last version was removed as an orphan.
                self.plan.dead.push(root);
                self.mark(root);
            }
            None => {}
        }
        Ok(())
    }

    /// Removes `members` up to index `last`; the root stays as a redirect or a dead line pointer.
    fn cut(&mut self, members: &[u16], last: usize) {
        for &offset in &members[1..=last] {
            self.plan.unused.push(offset);
            self.mark(offset);
        }
        let root = members[0];
        match members.get(last + 1) {
            Some(&survivor) => self.plan.redirected.push((root, survivor)),
            None => self.plan.dead.push(root),
        }
        self.mark(root);
    }
}

/// What can go from a page at this horizon.
pub(crate) fn plan(csn: &CsnLog, page: &Page, block: u32, horizon: Lsn, next: Xid) -> Result<Plan> {
    let mut planner = Planner {
        csn,
        page,
        block,
        horizon,
        next,
        marked: [false; MAX_OFFSETS],
        plan: Plan::default(),
    };
    let last = page.max_offset().min(MAX_OFFSETS as u16 - 1);
    for offset in 1..=last {
        let used = page
            .item_id(offset)
            .is_some_and(|item| item.is_normal() || item.is_redirect());
        if used && !planner.marked[usize::from(offset)] {
            planner.chain(offset)?;
        }
    }
    Ok(planner.plan)
}

/// Does to the page what a plan, or a record, says. Shared by the change and its redo.
pub(crate) fn execute(
    page: &mut Page,
    redirected: impl Iterator<Item = (u16, u16)>,
    dead: impl Iterator<Item = u16>,
    unused: impl Iterator<Item = u16>,
) -> Result<()> {
    let failed = |error: towline_storage::PageError| AccessError::corrupted(error.to_string());
    for (from, to) in redirected {
        page.set_item_id(from, ItemId::redirect(to)).map_err(failed)?;
    }
    for offset in dead {
        page.set_item_id(offset, ItemId::dead()).map_err(failed)?;
    }
    for offset in unused {
        page.set_item_id(offset, ItemId::UNUSED).map_err(failed)?;
    }
    page.repair_fragmentation().map_err(failed)
}

/// Logs and applies a plan that is not empty.
pub(crate) fn apply(engine: &Engine, page: PageWrite, credit: Credit, plan: &Plan) -> Result<()> {
    let writer = engine.writer()?;
    // Damage is found before the change begins: a change that has begun must be logged, or the node stops.
    page.check_items()
        .map_err(|error| StorageError::Page(page.id(), error))?;
    let info = Heap2Op::Prune as u8;
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
    execute(
        page,
        plan.redirected.iter().copied(),
        plan.dead.iter().copied(),
        plan.unused.iter().copied(),
    )?;
    page.set_prune_xid(plan.prune_later);
    page.set_full(false);
    PrunedOffsets::encode(
        &plan.redirected,
        &plan.dead,
        &plan.unused,
        change.builder_mut().block_buffer(id),
    );
    change.payload(&HeapPrune {
        latest_removed_xid: plan.latest_removed,
        nredirected: plan.redirected.len() as u16,
        ndead: plan.dead.len() as u16,
        conflict_lsn: plan.conflict,
    });
    change.finish()?;
    Ok(())
}

/// Whether a look at the page says that pruning may pay: it is nearly full, and what was deleted on it is now dead.
#[inline]
pub(crate) fn is_worthwhile(engine: &Engine, page: &Page) -> bool {
    let low = page.prune_xid();
    if low == 0 {
        return false;
    }
    if !page.is_full() && page.free_space() >= PAGE_SIZE / 10 || engine.is_standby() {
        return false;
    }
    match engine.csn().status(Xid::from_low32(low, engine.next_xid())) {
        Ok(XidStatus::Committed(lsn)) => lsn <= engine.recent_horizon(),
        Ok(XidStatus::Aborted) => true,
        Ok(XidStatus::InProgress) | Err(_) => false,
    }
}

/// Prunes a page if that may pay and can be done at once. Advice only: failure leaves the page as it is.
pub(crate) fn prune_opportunistically(engine: &Engine, pinned: &PinnedPage) {
    if !is_worthwhile(engine, &pinned.read_ref()) {
        return;
    }
    // Credit first, latch second; a reader without credit does not prune.
    let Ok(credit) = engine.storage().credit(credit_for(1, PRUNE_DATA)) else {
        return;
    };
    let Ok(page) = pinned.clone().try_write() else {
        return;
    };
    if let Err(error) = prune_latched(engine, page, credit) {
        tracing::warn!(page = %pinned.id(), %error, "page could not be pruned");
    }
}

fn prune_latched(engine: &Engine, mut page: PageWrite, credit: Credit) -> Result<()> {
    let block = page.id().block;
    let plan = plan(
        engine.csn(),
        &page,
        block,
        engine.recent_horizon(),
        engine.next_xid(),
    )?;
    if plan.is_empty() {
        // Hints: the next access need not look again before something changes.
        page.hint_mut().set_prune_xid(plan.prune_later);
        page.hint_mut().set_full(false);
        return Ok(());
    }
    let file = page.id().rel.rel;
    apply(engine, page, credit, &plan)?;
    // A line pointer that is dead and not free yet is vacuum's work as much as the version was.
    if let Some(activity) = engine.catalog().activity().of_file(file) {
        activity.pruned(plan.removed.saturating_sub(plan.dead.len() as u32));
    }
    Ok(())
}
