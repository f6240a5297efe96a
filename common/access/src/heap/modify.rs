//! Deleting, locking and updating the newest version of a row: one attempt at one tuple, under its page's latch.
//!
//! An attempt never waits: it says what stands in the way. Following chains, queues and re-checks are the operations' part
//! ([`crate::ops`]). "Newest version" counts a transaction whose commit record is inserted as committed, released or not (C3); the
//! commit LSN that a decision rests on is returned with it.

use towline_base::{Lsn, PageId, RelFileNode, Tid, Xid};
use towline_storage::page::max_align;
use towline_storage::vm::{ALL_FROZEN, VALID_BITS};
use towline_storage::{LoggedChange, Page, PageWrite, Placement, StorageError};
use towline_wal::records::heap::{
    HeapDelete, HeapLock, HeapOp, HeapUpdate, INIT_PAGE, LOCK_ALL_FROZEN_CLEARED, delete_flags, infobits,
    update_flags,
};
use towline_wal::{BlockFlags, Rmgr, credit_for};

use super::insert::{RECORD_OVERHEAD, bad_tuple, record_header, set_self_link};
use super::place::{self, Request};
use super::tuple::{HEADER, TupleMut, TupleRef, mask, mask2};
use super::visibility::{Outcome, command_ids, holder, inserter, tuple_at};
use super::vm::Clearing;
use crate::csn::CsnLog;
use crate::engine::Engine;
use crate::error::{AccessError, Result};
use crate::step::Step;
use crate::txn::Transaction;
use crate::txn::snapshot::ComboCids;

/// Versions that [`follow`] passes at once.
const MAX_FOLLOW: usize = 10_000;

/// Whether a version may be changed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Yes. The LSN is the commit that inserted it.
    Free(Lsn),
    /// There is no such version (any more).
    Gone,
    /// The own transaction changed it: in this command (`true`) or an earlier one.
    ByMyself(bool),
    /// A running transaction holds it.
    Held(Xid),
    /// A committed transaction replaced it; the next version and the commit.
    Updated(Tid, Lsn),
    /// A committed transaction deleted it.
    Deleted(Lsn),
}

/// The own transaction, as far as verdicts and stamps need it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Myself {
    pub(crate) xid: Xid,
    pub(crate) command: u32,
    pub(crate) slot: u32,
}

/// Judges the version at `tid`.
pub(crate) fn verdict(
    csn: &CsnLog,
    tuple: TupleRef<'_>,
    tid: Tid,
    me: &Myself,
    combos: &ComboCids,
    next: Xid,
) -> Result<Verdict> {
    let inserted = match inserter(csn, tuple, me.xid, next)? {
        Outcome::None => return Ok(Verdict::Gone),
        Outcome::Running(_) => return Ok(Verdict::Gone),
        Outcome::Own => {
            if command_ids(tuple, combos).0 >= me.command {
                return Ok(Verdict::ByMyself(true));
            }
            Lsn::INVALID
        }
        Outcome::Committed(lsn) => lsn,
    };
    let held = holder(csn, tuple, me.xid, next)?;
    if tuple.is_lock_only() {
        return Ok(match held {
            Outcome::Running(xid) => Verdict::Held(xid),
            _ => Verdict::Free(inserted),
        });
    }
    Ok(match held {
        Outcome::None => Verdict::Free(inserted),
        Outcome::Own => Verdict::ByMyself(command_ids(tuple, combos).1 >= me.command),
        Outcome::Running(xid) => Verdict::Held(xid),
        Outcome::Committed(lsn) if tuple.ctid() != tid => Verdict::Updated(tuple.ctid(), lsn),
        Outcome::Committed(lsn) => Verdict::Deleted(lsn),
    })
}

/// An attempt's result.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Done; where the newest version now is, and whether it has values out of line.
    Done(Tid, bool),
    /// What stands in the way.
    Refused(Verdict),
}

fn page_of(engine: &Engine, rel: RelFileNode, tid: Tid) -> Result<PageWrite> {
    Ok(engine.storage().pin(PageId::main(rel, tid.block))?.write())
}

fn judge(txn: &Transaction, page: &PageWrite, tid: Tid, me: &Myself) -> Result<Verdict> {
    let named = |error: AccessError| AccessError::corrupted(format!("{}: {error}", page.id()));
    let Some(tuple) = tuple_at(page, tid.block, tid.offset).map_err(named)? else {
        return Ok(Verdict::Gone);
    };
    verdict(
        txn.engine().csn(),
        tuple,
        tid,
        me,
        &txn.combos,
        txn.engine().next_xid(),
    )
}

/// The command id to store as cmax: a combo if the own transaction inserted the tuple too.
fn cmax_for(txn: &mut Transaction, tuple_xmin: u32, cmin: u32, me: &Myself) -> (u32, bool) {
    if tuple_xmin == me.xid.low32() {
        (txn.combos.combo(cmin, me.command), true)
    } else {
        (me.command, false)
    }
}

/// cmin as stored, or as the combo says.
fn cmin_of(txn: &Transaction, tuple: TupleRef<'_>) -> u32 {
    command_ids(tuple, &txn.combos).0
}

/// The infobits of a record, from a tuple's masks.
fn infobits_of(tuple: TupleRef<'_>) -> u8 {
    let (bits, bits2) = (tuple.infomask(), tuple.infomask2());
    let mut set = 0;
    for (present, bit) in [
        (bits & mask::XMAX_IS_MULTI != 0, infobits::XMAX_IS_MULTI),
        (bits & mask::XMAX_LOCK_ONLY != 0, infobits::XMAX_LOCK_ONLY),
        (bits & mask::XMAX_EXCL_LOCK != 0, infobits::XMAX_EXCL_LOCK),
        (bits & mask::XMAX_KEYSHR_LOCK != 0, infobits::XMAX_KEYSHR_LOCK),
        (bits2 & mask2::KEYS_UPDATED != 0, infobits::KEYS_UPDATED),
    ] {
        if present {
            set |= bit;
        }
    }
    set
}

/// Sets a tuple's masks from a record's infobits: redo's half of [`infobits_of`].
pub(crate) fn apply_infobits(tuple: &mut TupleMut<'_>, set: u8) {
    let view = tuple.as_ref();
    let mut bits = view.infomask() & !mask::XMAX_BITS;
    let mut bits2 = view.infomask2() & !mask2::KEYS_UPDATED;
    for (bit, flag) in [
        (infobits::XMAX_IS_MULTI, mask::XMAX_IS_MULTI),
        (infobits::XMAX_LOCK_ONLY, mask::XMAX_LOCK_ONLY),
        (infobits::XMAX_EXCL_LOCK, mask::XMAX_EXCL_LOCK),
        (infobits::XMAX_KEYSHR_LOCK, mask::XMAX_KEYSHR_LOCK),
    ] {
        if set & bit != 0 {
            bits |= flag;
        }
    }
    if set & infobits::KEYS_UPDATED != 0 {
        bits2 |= mask2::KEYS_UPDATED;
    }
    tuple.set_infomask(bits);
    tuple.set_infomask2(bits2);
}

fn missing(tid: Tid) -> AccessError {
    AccessError::internal(format!("tuple {tid} vanished under its latch"))
}

/// Notes on the page that `xid` deleted something, for pruning.
pub(crate) fn note_prunable(page: &mut Page, xid: Xid, next: Xid) {
    let before = page.prune_xid();
    if before == 0 || xid < Xid::from_low32(before, next) {
        page.set_prune_xid(xid.low32());
    }
}

/// Deletes the version at `tid`. A `Wait` is for room in the WAL buffers.
pub(crate) fn delete(
    txn: &mut Transaction,
    rel: RelFileNode,
    tid: Tid,
    me: &Myself,
) -> Result<Step<Attempt>> {
    let engine = txn.engine().clone();
    let credit = crate::ready!(engine.credit(credit_for(2, RECORD_OVERHEAD)));
    let page = page_of(&engine, rel, tid)?;
    match judge(txn, &page, tid, me)? {
        Verdict::Free(inserted) => txn.raise_depends_on(inserted),
        verdict => return Ok(Step::Done(Attempt::Refused(verdict))),
    }
    let tuple = tuple_at(&page, tid.block, tid.offset)?.ok_or_else(|| missing(tid))?;
    let external = tuple.has_external();
    let (cmax, combo) = cmax_for(txn, tuple.xmin(), cmin_of(txn, tuple), me);
    let writer = engine.writer()?;
    let clearing = Clearing::latch(&engine, &[&page], VALID_BITS)?;
    let cleared = clearing.covers(tid.block);
    let info = HeapOp::Delete as u8;
    let mut change = LoggedChange::new(engine.storage(), &writer.permit, credit, Rmgr::Heap, info, me.xid);
    let id = change.page(page, BlockFlags::STANDARD);
    let page = change.page_mut(id);
    page.set_all_visible(false);
    note_prunable(page, me.xid, engine.next_xid());
    let mut tuple = page
        .item_mut(tid.offset)
        .and_then(TupleMut::new)
        .ok_or_else(|| missing(tid))?;
    let bits2 = tuple.as_ref().infomask2();
    tuple.set_infomask(tuple.as_ref().infomask() & !mask::XMAX_BITS);
    tuple.set_infomask2(bits2 & !mask2::HOT_UPDATED | mask2::KEYS_UPDATED);
    tuple.set_xmax(me.xid.low32());
    tuple.set_cid(cmax, combo);
    tuple.set_ctid(tid);
    let record = HeapDelete {
        xmax: me.xid.low32(),
        offnum: tid.offset,
        infobits_set: infobits_of(tuple.as_ref()),
        flags: if cleared {
            delete_flags::ALL_VISIBLE_CLEARED
        } else {
            0
        },
    };
    clearing.apply(&mut change);
    change.payload(&record);
    change.finish()?;
    Ok(Step::Done(Attempt::Done(tid, external)))
}

/// Locks the version at `tid` for the own transaction, changing nothing. A `Wait` is for room in the WAL buffers.
pub(crate) fn lock(txn: &mut Transaction, rel: RelFileNode, tid: Tid, me: &Myself) -> Result<Step<Attempt>> {
    let engine = txn.engine().clone();
    let credit = crate::ready!(engine.credit(credit_for(2, RECORD_OVERHEAD)));
    let page = page_of(&engine, rel, tid)?;
    match judge(txn, &page, tid, me)? {
        Verdict::Free(inserted) => txn.raise_depends_on(inserted),
        verdict => return Ok(Step::Done(Attempt::Refused(verdict))),
    }
    let tuple = tuple_at(&page, tid.block, tid.offset)?.ok_or_else(|| missing(tid))?;
    if tuple.is_lock_only() && tuple.infomask() & mask::XMAX_INVALID == 0 && tuple.xmax() == me.xid.low32() {
        return Ok(Step::Done(Attempt::Done(tid, tuple.has_external())));
    }
    let external = tuple.has_external();
    let writer = engine.writer()?;
    // Everybody still sees the row, but it holds an xid.
    let clearing = Clearing::latch(&engine, &[&page], ALL_FROZEN)?;
    let cleared = clearing.covers(tid.block);
    let info = HeapOp::Lock as u8;
    let mut change = LoggedChange::new(engine.storage(), &writer.permit, credit, Rmgr::Heap, info, me.xid);
    let id = change.page(page, BlockFlags::STANDARD);
    let page = change.page_mut(id);
    let mut tuple = page
        .item_mut(tid.offset)
        .and_then(TupleMut::new)
        .ok_or_else(|| missing(tid))?;
    let (bits, bits2) = (tuple.as_ref().infomask(), tuple.as_ref().infomask2());
    tuple.set_infomask(bits & !mask::XMAX_BITS | mask::XMAX_LOCK_ONLY | mask::XMAX_EXCL_LOCK);
    tuple.set_infomask2(bits2 & !mask2::HOT_UPDATED | mask2::KEYS_UPDATED);
    tuple.set_xmax(me.xid.low32());
    tuple.set_ctid(tid);
    let record = HeapLock {
        locking_xid: me.xid.low32(),
        offnum: tid.offset,
        infobits_set: infobits_of(tuple.as_ref()),
        flags: if cleared { LOCK_ALL_FROZEN_CLEARED } else { 0 },
    };
    clearing.apply(&mut change);
    change.payload(&record);
    change.finish()?;
    Ok(Step::Done(Attempt::Done(tid, external)))
}

/// From a version that a committed transaction made, along the committed updates to the newest one: so that a waiter behind many others
/// is told where the row is now, and re-checks it once. What each step rests on raises `depends_on`.
pub(crate) fn follow(txn: &mut Transaction, rel: RelFileNode, from: Tid) -> Result<Tid> {
    let engine = txn.engine().clone();
    let mut at = from;
    let mut page = engine.storage().pin(PageId::main(rel, at.block))?.read();
    // Bounded by what can stand between two snapshots; the caller goes on from wherever this ends.
    for _ in 0..MAX_FOLLOW {
        let Some(tuple) = tuple_at(&page, at.block, at.offset)? else {
            return Ok(at);
        };
        let next = engine.next_xid();
        if tuple.is_lock_only() || tuple.ctid() == at {
            return Ok(at);
        }
        let Outcome::Committed(lsn) = holder(engine.csn(), tuple, txn.xid, next)? else {
            return Ok(at);
        };
        let successor = tuple.ctid();
        txn.raise_depends_on(lsn);
        if successor.block != at.block {
            drop(page);
            page = engine.storage().pin(PageId::main(rel, successor.block))?.read();
        }
        at = successor;
    }
    Ok(at)
}

/// What an update needs beside the old version's address.
pub(crate) struct NewVersion<'a> {
    /// The formed tuple.
    pub(crate) tuple: &'a mut [u8],
    pub(crate) fillfactor: u8,
    /// Whether no indexed column differs between the old and the new version, so that the new one may be heap-only.
    pub(crate) hot_allowed: &'a dyn Fn(TupleRef<'_>, TupleRef<'_>) -> Result<bool>,
}

/// Where an update put the new version.
#[derive(Debug)]
pub(crate) enum Updated {
    /// At this place; heap-only when `hot`, so indexes need no new entry. `external`: the old version has values out of line.
    Done { tid: Tid, hot: bool, external: bool },
    /// What stands in the way.
    Refused(Verdict),
}

/// Replaces the version at `tid`. A `Wait` is for room in the WAL buffers.
pub(crate) fn update(
    txn: &mut Transaction,
    rel: RelFileNode,
    tid: Tid,
    me: &Myself,
    new: &mut NewVersion<'_>,
) -> Result<Step<Updated>> {
    let engine = txn.engine().clone();
    // Two pages in the worst case, and those of the visibility map, whatever the first look says.
    let bytes = credit_for(4, new.tuple.len() + RECORD_OVERHEAD);
    let mut credit = Some(crate::ready!(engine.credit(bytes)));
    let mut other: Option<towline_storage::PinnedPage> = None;
    loop {
        let (page, target) = match &other {
            None => (page_of(&engine, rel, tid)?, None),
            Some(pinned) => latch_both(&engine, rel, tid, pinned)?,
        };
        match judge(txn, &page, tid, me)? {
            Verdict::Free(inserted) => txn.raise_depends_on(inserted),
            verdict => return Ok(Step::Done(Updated::Refused(verdict))),
        }
        let need = max_align(new.tuple.len());
        let request = Request {
            rel,
            slot: me.slot,
            len: new.tuple.len(),
            fillfactor: new.fillfactor,
        };
        let fits_here = page.heap_free_space() >= need;
        match (fits_here, target) {
            (true, target) => {
                drop(target);
                let credit = credit
                    .take()
                    .ok_or_else(|| AccessError::internal("credit was used"))?;
                return write_same_page(txn, &engine, page, tid, me, new, credit).map(Step::Done);
            }
            (false, Some(target)) if place::room(&target) >= need => {
                let credit = credit
                    .take()
                    .ok_or_else(|| AccessError::internal("credit was used"))?;
                return write_two_pages(txn, &engine, page, target, tid, me, new, credit).map(Step::Done);
            }
            (false, target) => {
                let full = target.map(|target| {
                    place::note_full(&engine, &request, &target);
                    target.id().block
                });
                let mut page = page;
                // A hint: who reads the page next may prune it.
                page.hint_mut().set_full(true);
                drop(page);
                let pinned = place::candidate(&engine, &request, full)?;
                other = Some(if pinned.id().block == tid.block {
                    place::extend(&engine, &request)?
                } else {
                    pinned
                });
            }
        }
    }
}

/// Latches the old version's page and another, the lower block first, as everybody does.
fn latch_both(
    engine: &Engine,
    rel: RelFileNode,
    tid: Tid,
    other: &towline_storage::PinnedPage,
) -> Result<(PageWrite, Option<PageWrite>)> {
    if other.id().block < tid.block {
        let target = other.clone().write();
        Ok((page_of(engine, rel, tid)?, Some(target)))
    } else {
        let page = page_of(engine, rel, tid)?;
        Ok((page, Some(other.clone().write())))
    }
}

/// Stamps the old version: deleted by me, replaced by `new`.
fn retire(page: &mut Page, tid: Tid, me: &Myself, cmax: (u32, bool), new: Tid, hot: bool) -> Result<u8> {
    let mut old = page
        .item_mut(tid.offset)
        .and_then(TupleMut::new)
        .ok_or_else(|| missing(tid))?;
    let (bits, bits2) = (old.as_ref().infomask(), old.as_ref().infomask2());
    old.set_infomask(bits & !mask::XMAX_BITS);
    let bits2 = bits2 & !(mask2::HOT_UPDATED | mask2::KEYS_UPDATED);
    old.set_infomask2(if hot { bits2 | mask2::HOT_UPDATED } else { bits2 });
    old.set_xmax(me.xid.low32());
    old.set_cid(cmax.0, cmax.1);
    old.set_ctid(new);
    Ok(infobits_of(old.as_ref()))
}

/// Stamps the new version's bytes.
fn prepare_new(new: &mut NewVersion<'_>, me: &Myself, hot: bool) -> Result<()> {
    let mut tuple = TupleMut::new(new.tuple).ok_or_else(bad_tuple)?;
    tuple.set_xmin(me.xid.low32());
    tuple.set_xmax(0);
    tuple.set_cid(me.command, false);
    let (bits, bits2) = (tuple.as_ref().infomask(), tuple.as_ref().infomask2());
    tuple.set_infomask(bits & !mask::XMAX_BITS | mask::XMAX_INVALID | mask::UPDATED);
    let bits2 = bits2 & mask2::NATTS;
    tuple.set_infomask2(if hot { bits2 | mask2::HEAP_ONLY } else { bits2 });
    Ok(())
}

fn write_same_page(
    txn: &mut Transaction,
    engine: &Engine,
    page: PageWrite,
    tid: Tid,
    me: &Myself,
    new: &mut NewVersion<'_>,
    credit: towline_wal::Credit,
) -> Result<Updated> {
    // An old version that stands outside the item area might be overwritten by the new one.
    page.check_item(tid.offset)
        .map_err(|error| StorageError::Page(page.id(), error))?;
    let old = tuple_at(&page, tid.block, tid.offset)?.ok_or_else(|| missing(tid))?;
    let external = old.has_external();
    let hot = (new.hot_allowed)(old, TupleRef::new(new.tuple).ok_or_else(bad_tuple)?)?;
    let cmax = cmax_for(txn, old.xmin(), cmin_of(txn, old), me);
    prepare_new(new, me, hot)?;
    let (prefix, suffix) = common_ends(old, TupleRef::new(new.tuple).ok_or_else(bad_tuple)?);
    let writer = engine.writer()?;
    let clearing = Clearing::latch(engine, &[&page], VALID_BITS)?;
    // One page: the old version's flag speaks for it.
    let cleared = if clearing.covers(tid.block) {
        update_flags::OLD_ALL_VISIBLE_CLEARED
    } else {
        0
    };
    let info = if hot { HeapOp::HotUpdate } else { HeapOp::Update } as u8;
    let mut change = LoggedChange::new(engine.storage(), &writer.permit, credit, Rmgr::Heap, info, me.xid);
    let id = change.page(page, BlockFlags::STANDARD);
    let page = change.page_mut(id);
    let offset = page
        .add_item(new.tuple, Placement::Heap)
        .map_err(|error| AccessError::internal(error.to_string()))?;
    let new_tid = Tid::new(tid.block, offset);
    set_self_link(page, new_tid);
    note_prunable(page, me.xid, engine.next_xid());
    page.set_all_visible(false);
    let infobits_set = retire(page, tid, me, cmax, new_tid, hot)?;
    let mut flags = cleared;
    if prefix > 0 {
        flags |= update_flags::PREFIX_FROM_OLD;
        change.block_data(id, &(prefix as u16).to_le_bytes());
    }
    if suffix > 0 {
        flags |= update_flags::SUFFIX_FROM_OLD;
        change.block_data(id, &(suffix as u16).to_le_bytes());
    }
    let view = TupleRef::new(new.tuple).ok_or_else(bad_tuple)?;
    let hoff = view.hoff();
    change.block_payload(id, &record_header(view));
    change.block_data(id, &new.tuple[HEADER..hoff]);
    change.block_data(id, &new.tuple[hoff + prefix..new.tuple.len() - suffix]);
    clearing.apply(&mut change);
    change.payload(&update_record(me, tid, infobits_set, flags, new_tid));
    change.finish()?;
    Ok(Updated::Done {
        tid: new_tid,
        hot,
        external,
    })
}

#[expect(
    clippy::too_many_arguments,
    reason = "the two pages, the two versions and who does it"
)]
fn write_two_pages(
    txn: &mut Transaction,
    engine: &Engine,
    page: PageWrite,
    target: PageWrite,
    tid: Tid,
    me: &Myself,
    new: &mut NewVersion<'_>,
    credit: towline_wal::Credit,
) -> Result<Updated> {
    let old = tuple_at(&page, tid.block, tid.offset)?.ok_or_else(|| missing(tid))?;
    let external = old.has_external();
    let cmax = cmax_for(txn, old.xmin(), cmin_of(txn, old), me);
    prepare_new(new, me, false)?;
    let writer = engine.writer()?;
    let clearing = Clearing::latch(engine, &[&target, &page], VALID_BITS)?;
    let mut cleared = 0;
    for (block, flag) in [
        (tid.block, update_flags::OLD_ALL_VISIBLE_CLEARED),
        (target.id().block, update_flags::NEW_ALL_VISIBLE_CLEARED),
    ] {
        if clearing.covers(block) {
            cleared |= flag;
        }
    }
    let empty = place::is_empty(&target);
    let info = HeapOp::Update as u8 | if empty { INIT_PAGE } else { 0 };
    let mut change = LoggedChange::new(engine.storage(), &writer.permit, credit, Rmgr::Heap, info, me.xid);
    let block = target.id().block;
    let flags = if empty {
        BlockFlags::STANDARD | BlockFlags::WILL_INIT
    } else {
        BlockFlags::STANDARD
    };
    let new_id = change.page(target, flags);
    let old_id = change.page(page, BlockFlags::STANDARD);
    let target = change.page_mut(new_id);
    if empty {
        target.init(0);
    }
    let offset = target
        .add_item(new.tuple, Placement::Heap)
        .map_err(|error| AccessError::internal(error.to_string()))?;
    let new_tid = Tid::new(block, offset);
    set_self_link(target, new_tid);
    target.set_all_visible(false);
    let page = change.page_mut(old_id);
    page.set_all_visible(false);
    note_prunable(page, me.xid, engine.next_xid());
    // The old page had no room: who reads it next may prune it.
    page.set_full(true);
    let infobits_set = retire(page, tid, me, cmax, new_tid, false)?;
    let view = TupleRef::new(new.tuple).ok_or_else(bad_tuple)?;
    change.block_payload(new_id, &record_header(view));
    change.block_data(new_id, &new.tuple[HEADER..]);
    clearing.apply(&mut change);
    change.payload(&update_record(me, tid, infobits_set, cleared, new_tid));
    change.finish()?;
    Ok(Updated::Done {
        tid: new_tid,
        hot: false,
        external,
    })
}

fn update_record(me: &Myself, old: Tid, old_infobits_set: u8, flags: u8, new: Tid) -> HeapUpdate {
    HeapUpdate {
        old_xmax: me.xid.low32(),
        old_offnum: old.offset,
        old_infobits_set,
        flags,
        new_xmax: 0,
        new_offnum: new.offset,
    }
}

/// Lengths of the common beginning and end of two versions' attributes: left out of the record (PostgreSQL's `log_heap_update`).
fn common_ends(old: TupleRef<'_>, new: TupleRef<'_>) -> (usize, usize) {
    let (old, new) = (old.data(), new.data());
    let limit = old.len().min(new.len());
    let mut prefix = old
        .iter()
        .zip(new)
        .take(limit)
        .take_while(|(a, b)| a == b)
        .count();
    // The length itself takes two bytes.
    if prefix < 3 {
        prefix = 0;
    }
    let rest = limit - prefix;
    let mut suffix = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take(rest)
        .take_while(|(a, b)| a == b)
        .count();
    if suffix < 3 {
        suffix = 0;
    }
    (prefix, suffix)
}
