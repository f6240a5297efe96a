//! Redo of heap records: the page half of every change in this directory.
//!
//! A page is changed only when [`RedoContext::page_mut`] hands it out, that is when its LSN is below the record's; so redo twice is redo
//! once. Nothing here trusts the record: what does not fit the page is an error with the record's position, not a panic.
//!
//! Replayed tuples differ from the primary's only in what nobody needs after the transaction: command ids and hint bits.

use towline_base::Tid;
use towline_storage::vm::{ALL_FROZEN, VALID_BITS};
use towline_storage::{Page, Placement, RedoContext};
use towline_wal::Rmgr;
use towline_wal::format::DecodedRecord;
use towline_wal::records::heap::{
    HeapDelete, HeapHeader, HeapInsert, HeapLock, HeapOp, HeapUpdate, INIT_PAGE, LOCK_ALL_FROZEN_CLEARED,
    infobits, update_flags,
};
use towline_wal::records::heap2::{
    Heap2Op, HeapFreezePage, HeapFreezeTuple, HeapLockUpdated, HeapMultiInsert, HeapPrune, HeapVacuum,
    MultiInsertTuples, PrunedOffsets,
};
use towline_wal::records::layout::OffsetNumbers;

use super::form::MAX_TUPLE;
use super::modify::apply_infobits;
use super::prune;
use super::tuple::{HEADER, TupleMut, TupleRef, mask, mask2};
use crate::error::{AccessError, Result};

fn bad(record: &DecodedRecord<'_>, what: &str) -> AccessError {
    AccessError::corrupted(format!(
        "the heap record at {} cannot be applied: {what}",
        record.start
    ))
}

fn block_of(record: &DecodedRecord<'_>, id: u8) -> Result<u32> {
    record
        .block(id)
        .map(|block| block.page.block)
        .ok_or_else(|| bad(record, "a block reference is missing"))
}

/// Applies a record of the Heap resource manager.
pub(crate) fn heap(record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>) -> Result<()> {
    match HeapOp::from_info(record.header.info) {
        HeapOp::Insert => insert(record, cx),
        HeapOp::Delete => delete(record, cx),
        HeapOp::Update => update(record, cx, false),
        HeapOp::HotUpdate => update(record, cx, true),
        HeapOp::Lock => lock(record, cx),
        HeapOp::Inplace => inplace(record, cx),
        // A marker for logical decoding; no page changes.
        HeapOp::Truncate => Ok(()),
        HeapOp::Confirm => Err(bad(record, "speculative insertions are never written")),
    }
}

/// Applies a record of the Heap2 resource manager.
pub(crate) fn heap2(record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>) -> Result<()> {
    match Heap2Op::from_info(record.header.info) {
        Heap2Op::Prune => prune_page(record, cx),
        Heap2Op::Vacuum => vacuum_page(record, cx),
        Heap2Op::FreezePage => freeze_page(record, cx),
        Heap2Op::MultiInsert => multi_insert(record, cx),
        Heap2Op::LockUpdated => lock_updated(record, cx),
        Heap2Op::NewCid | Heap2Op::Rewrite => Ok(()),
        Heap2Op::Visible => super::vm::redo_visible(record, cx),
    }
}

/// Whether redo changes no page but those that the record names, and of the visibility map only clears bits. A record of PostgreSQL's form
/// does not name the map's page whose bits it clears; vacuum's record sets them. One that cannot be read is for redo to complain about.
pub(crate) fn may_run_beside_others(record: &DecodedRecord<'_>) -> bool {
    const NONE: [bool; 2] = [false, false];
    // Whether the map's bits of the pages of blocks 0 and 1 are cleared.
    let cleared = match (record.rmgr(), HeapOp::from_info(record.header.info)) {
        (Rmgr::Heap2, _) => match Heap2Op::from_info(record.header.info) {
            Heap2Op::MultiInsert => {
                HeapMultiInsert::decode(record.main).map(|body| [body.flags & 1 != 0, false])
            }
            Heap2Op::Prune
            | Heap2Op::Vacuum
            | Heap2Op::FreezePage
            | Heap2Op::LockUpdated
            | Heap2Op::NewCid
            | Heap2Op::Rewrite => Ok(NONE),
            Heap2Op::Visible => return false,
        },
        (_, HeapOp::Insert) => HeapInsert::decode(record.main).map(|body| [body.flags & 1 != 0, false]),
        (_, HeapOp::Delete) => HeapDelete::decode(record.main).map(|body| [body.flags & 1 != 0, false]),
        (_, HeapOp::Lock) => {
            HeapLock::decode(record.main).map(|body| [body.flags & LOCK_ALL_FROZEN_CLEARED != 0, false])
        }
        (_, HeapOp::Update | HeapOp::HotUpdate) => HeapUpdate::decode(record.main).map(|body| {
            let old = body.flags & update_flags::OLD_ALL_VISIBLE_CLEARED != 0;
            let new = body.flags & update_flags::NEW_ALL_VISIBLE_CLEARED != 0;
            match record.block(1) {
                Some(_) => [new, old],
                None => [new || old, false],
            }
        }),
        (_, HeapOp::Inplace | HeapOp::Truncate | HeapOp::Confirm) => Ok(NONE),
    };
    let is_named = |id: u8| {
        record.block(id).is_none_or(|heap| {
            let map = towline_storage::vm::map_page(heap.page.rel, heap.page.block);
            record.blocks.iter().any(|block| block.page == map)
        })
    };
    cleared.is_ok_and(|cleared| (0..).zip(cleared).all(|(id, cleared)| !cleared || is_named(id)))
}

/// Formats the page when the record says that its tuples are the first.
fn begin_page(record: &DecodedRecord<'_>, page: &mut Page) {
    if record.header.info & INIT_PAGE != 0 {
        page.init(0);
    }
}

/// Rebuilds a tuple from a record's header and the bytes behind the fixed header.
fn assemble(record: &DecodedRecord<'_>, header: &HeapHeader, body: &[u8]) -> Result<Vec<u8>> {
    if body.len() + HEADER > MAX_TUPLE {
        return Err(bad(record, "the tuple is larger than a page"));
    }
    let mut bytes = vec![0u8; HEADER + body.len()];
    bytes[HEADER..].copy_from_slice(body);
    bytes[18..20].copy_from_slice(&header.infomask2.to_le_bytes());
    bytes[20..22].copy_from_slice(&header.infomask.to_le_bytes());
    bytes[22] = header.hoff;
    let mut tuple = TupleMut::new(&mut bytes).ok_or_else(|| bad(record, "the tuple's header is invalid"))?;
    tuple.set_xmin(record.header.xid);
    Ok(bytes)
}

fn place(record: &DecodedRecord<'_>, page: &mut Page, bytes: &[u8], tid: Tid) -> Result<()> {
    page.add_item(bytes, Placement::At(tid.offset))
        .map_err(|error| bad(record, &error.to_string()))?;
    let mut tuple = tuple_mut(record, page, tid.offset)?;
    tuple.set_ctid(tid);
    Ok(())
}

fn tuple_mut<'p>(record: &DecodedRecord<'_>, page: &'p mut Page, offset: u16) -> Result<TupleMut<'p>> {
    page.item_mut(offset)
        .and_then(TupleMut::new)
        .ok_or_else(|| bad(record, "there is no such tuple"))
}

fn insert(record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>) -> Result<()> {
    let body = HeapInsert::decode(record.main)?;
    let block = block_of(record, 0)?;
    let data = record.block(0).map_or(&[][..], |block| block.data);
    super::vm::redo_cleared(record, cx, 0, VALID_BITS, body.flags & 1 != 0)?;
    let Some(page) = cx.page_mut(0) else { return Ok(()) };
    begin_page(record, page);
    let header = HeapHeader::decode(data)?;
    let bytes = assemble(record, &header, data.get(HeapHeader::SIZE..).unwrap_or_default())?;
    place(record, page, &bytes, Tid::new(block, body.offnum))?;
    if body.flags & 1 != 0 {
        page.set_all_visible(false);
    }
    Ok(())
}

fn multi_insert(record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>) -> Result<()> {
    let body = HeapMultiInsert::decode(record.main)?;
    let block = block_of(record, 0)?;
    let data = record.block(0).map_or(&[][..], |block| block.data);
    let init = record.header.info & INIT_PAGE != 0;
    let offsets: Vec<u16> = if init {
        (1..=body.ntuples).collect()
    } else {
        body.offsets(record.main)?.iter().collect()
    };
    super::vm::redo_cleared(record, cx, 0, VALID_BITS, body.flags & 1 != 0)?;
    let Some(page) = cx.page_mut(0) else { return Ok(()) };
    begin_page(record, page);
    for (offset, tuple) in offsets.iter().zip(MultiInsertTuples::new(data)) {
        let (header, body) = tuple?;
        let header = HeapHeader {
            infomask2: header.infomask2,
            infomask: header.infomask,
            hoff: header.hoff,
        };
        let bytes = assemble(record, &header, body)?;
        place(record, page, &bytes, Tid::new(block, *offset))?;
    }
    if body.flags & 1 != 0 {
        page.set_all_visible(false);
    }
    Ok(())
}

fn note_prunable(page: &mut Page, record: &DecodedRecord<'_>) {
    let before = page.prune_xid();
    let older = (record.header.xid.wrapping_sub(before) as i32) < 0;
    if before == 0 || older {
        page.set_prune_xid(record.header.xid);
    }
}

fn delete(record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>) -> Result<()> {
    let body = HeapDelete::decode(record.main)?;
    let block = block_of(record, 0)?;
    super::vm::redo_cleared(record, cx, 0, VALID_BITS, body.flags & 1 != 0)?;
    let Some(page) = cx.page_mut(0) else { return Ok(()) };
    let mut tuple = tuple_mut(record, page, body.offnum)?;
    let bits2 = tuple.as_ref().infomask2();
    tuple.set_infomask2(bits2 & !mask2::HOT_UPDATED);
    apply_infobits(&mut tuple, body.infobits_set);
    tuple.set_xmax(body.xmax);
    tuple.set_cid(0, false);
    tuple.set_ctid(Tid::new(block, body.offnum));
    note_prunable(page, record);
    if body.flags & 1 != 0 {
        page.set_all_visible(false);
    }
    Ok(())
}

fn lock(record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>) -> Result<()> {
    let body = HeapLock::decode(record.main)?;
    let block = block_of(record, 0)?;
    let thawed = body.flags & LOCK_ALL_FROZEN_CLEARED != 0;
    super::vm::redo_cleared(record, cx, 0, ALL_FROZEN, thawed)?;
    let Some(page) = cx.page_mut(0) else { return Ok(()) };
    let mut tuple = tuple_mut(record, page, body.offnum)?;
    apply_infobits(&mut tuple, body.infobits_set);
    if body.infobits_set & infobits::XMAX_LOCK_ONLY != 0 {
        let bits2 = tuple.as_ref().infomask2();
        tuple.set_infomask2(bits2 & !mask2::HOT_UPDATED);
        tuple.set_ctid(Tid::new(block, body.offnum));
    }
    tuple.set_xmax(body.locking_xid);
    tuple.set_cid(0, false);
    Ok(())
}

fn lock_updated(record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>) -> Result<()> {
    let body = HeapLockUpdated::decode(record.main)?;
    let Some(page) = cx.page_mut(0) else { return Ok(()) };
    let mut tuple = tuple_mut(record, page, body.offnum)?;
    apply_infobits(&mut tuple, body.infobits_set);
    tuple.set_xmax(body.xmax);
    Ok(())
}

fn inplace(record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>) -> Result<()> {
    let body = towline_wal::records::heap::HeapInplace::decode(record.main)?;
    let data = record.block(0).map_or(&[][..], |block| block.data);
    let Some(page) = cx.page_mut(0) else { return Ok(()) };
    let bytes = page
        .item_mut(body.offnum)
        .ok_or_else(|| bad(record, "there is no such tuple"))?;
    let hoff = TupleRef::new(bytes)
        .ok_or_else(|| bad(record, "the tuple's header is invalid"))?
        .hoff();
    let target = bytes.get_mut(hoff..).filter(|target| target.len() == data.len());
    target
        .ok_or_else(|| bad(record, "the tuple has another length"))?
        .copy_from_slice(data);
    Ok(())
}

/// Block 0 is the page of the new version; block 1, when there is one, that of the old.
fn update(record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>, hot: bool) -> Result<()> {
    let body = HeapUpdate::decode(record.main)?;
    let new_block = block_of(record, 0)?;
    let (old_id, old_block) = match record.block(1) {
        Some(block) => (1, block.page.block),
        None => (0, new_block),
    };
    let new_tid = Tid::new(new_block, body.new_offnum);
    super::vm::redo_cleared(
        record,
        cx,
        old_id,
        VALID_BITS,
        body.flags & update_flags::OLD_ALL_VISIBLE_CLEARED != 0,
    )?;
    super::vm::redo_cleared(
        record,
        cx,
        0,
        VALID_BITS,
        body.flags & update_flags::NEW_ALL_VISIBLE_CLEARED != 0,
    )?;
    let same_page = old_id == 0;
    if !same_page || record.header.info & INIT_PAGE == 0 {
        // The old version's bytes, before it is retired, give the new one its common parts.
        let rebuilt = if same_page {
            rebuild(record, cx, &body)?
        } else {
            None
        };
        if let Some(page) = cx.page_mut(old_id) {
            retire(record, page, &body, new_tid, hot)?;
            if body.flags & update_flags::OLD_ALL_VISIBLE_CLEARED != 0 {
                page.set_all_visible(false);
            }
            if !same_page {
                page.set_full(true);
            }
        }
        let _ = old_block;
        if same_page {
            let (Some(bytes), Some(page)) = (rebuilt, cx.page_mut(0)) else {
                return Ok(());
            };
            place_new(record, page, &body, &bytes, new_tid, hot)?;
            return Ok(());
        }
    }
    let data = record.block(0).map_or(&[][..], |block| block.data);
    let Some(page) = cx.page_mut(0) else { return Ok(()) };
    begin_page(record, page);
    let header = HeapHeader::decode(data)?;
    let bytes = assemble(record, &header, data.get(HeapHeader::SIZE..).unwrap_or_default())?;
    place_new(record, page, &body, &bytes, new_tid, hot)
}

fn retire(record: &DecodedRecord<'_>, page: &mut Page, body: &HeapUpdate, new: Tid, hot: bool) -> Result<()> {
    let mut old = tuple_mut(record, page, body.old_offnum)?;
    apply_infobits(&mut old, body.old_infobits_set);
    let bits2 = old.as_ref().infomask2() & !mask2::HOT_UPDATED;
    old.set_infomask2(if hot { bits2 | mask2::HOT_UPDATED } else { bits2 });
    old.set_xmax(body.old_xmax);
    old.set_cid(0, false);
    old.set_ctid(new);
    note_prunable(page, record);
    Ok(())
}

fn place_new(
    record: &DecodedRecord<'_>,
    page: &mut Page,
    body: &HeapUpdate,
    bytes: &[u8],
    tid: Tid,
    _hot: bool,
) -> Result<()> {
    place(record, page, bytes, tid)?;
    let mut tuple = tuple_mut(record, page, tid.offset)?;
    tuple.set_xmax(body.new_xmax);
    if body.flags & update_flags::NEW_ALL_VISIBLE_CLEARED != 0 {
        page.set_all_visible(false);
    }
    Ok(())
}

/// The new version of a same-page update, with the prefix and suffix that the record left out. `None` when the page needs nothing.
fn rebuild(
    record: &DecodedRecord<'_>,
    cx: &mut RedoContext<'_>,
    body: &HeapUpdate,
) -> Result<Option<Vec<u8>>> {
    let Some(page) = cx.page_mut(0) else {
        return Ok(None);
    };
    let mut data = record.block(0).map_or(&[][..], |block| block.data);
    let mut length = |flag: u8| -> Result<usize> {
        if body.flags & flag == 0 {
            return Ok(0);
        }
        let (head, tail) = data
            .split_at_checked(2)
            .ok_or_else(|| bad(record, "the record is too short"))?;
        data = tail;
        Ok(usize::from(u16::from_le_bytes([head[0], head[1]])))
    };
    let prefix = length(update_flags::PREFIX_FROM_OLD)?;
    let suffix = length(update_flags::SUFFIX_FROM_OLD)?;
    let header = HeapHeader::decode(data)?;
    let rest = data.get(HeapHeader::SIZE..).unwrap_or_default();
    let bitmap = usize::from(header.hoff)
        .checked_sub(HEADER)
        .ok_or_else(|| bad(record, "invalid header length"))?;
    let (bitmap, middle) = rest
        .split_at_checked(bitmap)
        .ok_or_else(|| bad(record, "the record is too short"))?;
    let old = page
        .item(body.old_offnum)
        .and_then(TupleRef::new)
        .ok_or_else(|| bad(record, "there is no old version"))?;
    let old = old.data();
    let (Some(head), Some(tail)) = (
        old.get(..prefix),
        old.len().checked_sub(suffix).and_then(|at| old.get(at..)),
    ) else {
        return Err(bad(record, "the old version is too short"));
    };
    let whole = [bitmap, head, middle, tail].concat();
    assemble(record, &header, &whole).map(Some)
}

fn prune_page(record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>) -> Result<()> {
    let body = HeapPrune::decode(record.main)?;
    let data = record.block(0).map_or(&[][..], |block| block.data);
    let Some(page) = cx.page_mut(0) else { return Ok(()) };
    let offsets = PrunedOffsets::decode(&body, data)?;
    prune::execute(
        page,
        offsets.redirected(),
        offsets.dead.iter(),
        offsets.unused.iter(),
    )
}

fn vacuum_page(record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>) -> Result<()> {
    let body = HeapVacuum::decode(record.main)?;
    let data = record.block(0).map_or(&[][..], |block| block.data);
    let Some(page) = cx.page_mut(0) else { return Ok(()) };
    let (offsets, _) = OffsetNumbers::split(data, usize::from(body.nunused))?;
    free_dead(page, offsets.iter())
}

/// Frees dead line pointers. Shared by vacuum and its redo.
pub(crate) fn free_dead(page: &mut Page, offsets: impl Iterator<Item = u16>) -> Result<()> {
    let failed = |error: towline_storage::PageError| AccessError::corrupted(error.to_string());
    for offset in offsets {
        page.set_item_id(offset, towline_storage::ItemId::UNUSED)
            .map_err(failed)?;
    }
    page.truncate_line_pointers().map_err(failed)
}

fn freeze_page(record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>) -> Result<()> {
    let body = HeapFreezePage::decode(record.main)?;
    let data = record.block(0).map_or(&[][..], |block| block.data);
    let Some(page) = cx.page_mut(0) else { return Ok(()) };
    for index in 0..usize::from(body.ntuples) {
        let entry = data.get(index * HeapFreezeTuple::SIZE..).unwrap_or_default();
        let freeze = HeapFreezeTuple::decode(entry)?;
        let mut tuple = tuple_mut(record, page, freeze.offset)?;
        apply_freeze(&mut tuple, &freeze);
    }
    Ok(())
}

/// Sets a frozen tuple's header. Shared by vacuum and its redo.
pub(crate) fn apply_freeze(tuple: &mut TupleMut<'_>, freeze: &HeapFreezeTuple) {
    tuple.set_xmax(freeze.xmax);
    tuple.set_infomask(freeze.infomask);
    tuple.set_infomask2(freeze.infomask2);
}

/// Clears what may differ between a heap page here and on the primary: hints, command ids, unused bytes (`wal_consistency_checking`).
pub(crate) fn mask_for_comparison(page: &mut Page) {
    page.mask_unused();
    page.mask_padding();
    for offset in 1..=page.max_offset() {
        let Some(mut tuple) = page.item_mut(offset).and_then(TupleMut::new) else {
            continue;
        };
        let mut hints = mask::XMAX_COMMITTED | mask::XMAX_INVALID;
        if !tuple.as_ref().is_xmin_frozen() {
            hints |= mask::XMIN_FROZEN;
        }
        tuple.set_infomask(tuple.as_ref().infomask() & !hints);
        tuple.set_cid(0, false);
    }
}

#[cfg(test)]
mod tests {
    use towline_base::{ForkKind, Lsn, PageId};
    use towline_storage::smgr::relation;
    use towline_wal::Rmgr;
    use towline_wal::format::{BlockRef, RecordHeader};

    use super::*;

    fn update(flags: u8, blocks: &[(u8, ForkKind, u32)]) -> bool {
        let mut main = [0; 14];
        main[7] = flags;
        let header = RecordHeader {
            total_len: 0,
            xid: 3,
            prev: Lsn(0),
            info: HeapOp::Update as u8,
            rmid: Rmgr::Heap.id(),
            crc: 0,
        };
        let blocks = blocks.iter().map(|(id, fork, block)| BlockRef {
            id: *id,
            page: PageId {
                rel: relation(16384),
                fork: *fork,
                block: *block,
            },
            flags: 0,
            image: None,
            data: &[],
        });
        may_run_beside_others(&DecodedRecord {
            start: Lsn(100),
            end: Lsn(200),
            header,
            blocks: blocks.collect(),
            main: &main,
            origin: None,
            toplevel_xid: None,
            bytes: &[],
            overwrote: None,
        })
    }

    /// Of two heap pages only the one whose bits are cleared needs its map's page named: when all were asked for, most updates of a table with
    /// two such pages ran alone.
    #[test]
    fn a_change_runs_alone_when_it_clears_bits_of_a_page_that_is_not_named() {
        const OLD: u8 = update_flags::OLD_ALL_VISIBLE_CLEARED;
        const NEW: u8 = update_flags::NEW_ALL_VISIBLE_CLEARED;
        let (new, old) = ((0, ForkKind::Main, 40_000), (1, ForkKind::Main, 7));
        let (map_of_old, map_of_new) = ((2, ForkKind::Vm, 0), (3, ForkKind::Vm, 1));
        assert!(update(0, &[new, old]));
        assert!(update(OLD, &[new, old, map_of_old]));
        assert!(update(NEW, &[new, old, map_of_new]));
        assert!(update(OLD | NEW, &[new, old, map_of_old, map_of_new]));
        assert!(update(OLD, &[new, map_of_new]), "both versions on one page");
        for (flags, blocks) in [
            (OLD, &[new, old][..]),
            (OLD, &[new, old, map_of_new]),
            (NEW, &[new, old, map_of_old]),
            (OLD | NEW, &[new, old, map_of_old]),
            (OLD, &[new]),
        ] {
            assert!(!update(flags, blocks), "{flags} {blocks:?}");
        }
    }
}
