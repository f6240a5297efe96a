//! Inserting tuples: one, or many of a COPY on one page.

use towline_base::{RelFileNode, Tid, Xid};
use towline_storage::page::max_align;
use towline_storage::vm::VALID_BITS;
use towline_storage::{LoggedChange, Placement};
use towline_wal::records::heap::{HeapHeader, HeapInsert, HeapOp, INIT_PAGE, insert_flags};
use towline_wal::records::heap2::{Heap2Op, HeapMultiInsert, MultiInsertTuple, MultiInsertTuples};
use towline_wal::records::layout::Payload;
use towline_wal::{BlockFlags, Rmgr, credit_for};

use super::place::{self, Request};
use super::tuple::{HEADER, TupleMut, TupleRef};
use super::vm::Clearing;
use crate::engine::Engine;
use crate::error::{AccessError, Result};
use crate::step::Step;

/// Bytes of a record beside the tuple.
pub(crate) const RECORD_OVERHEAD: usize = 64;
/// Tuples of one multi-insert, bounded so that its credit stays small.
const MULTI_TUPLES: usize = 290;

/// Who inserts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inserter {
    pub(crate) xid: Xid,
    pub(crate) command: u32,
    pub(crate) slot: u32,
}

pub(crate) fn bad_tuple() -> AccessError {
    AccessError::internal("a tuple was formed with a wrong header")
}

/// The part of a tuple's header that a record carries.
pub(crate) fn record_header(tuple: TupleRef<'_>) -> HeapHeader {
    HeapHeader {
        infomask2: tuple.infomask2(),
        infomask: tuple.infomask(),
        hoff: tuple.hoff() as u8,
    }
}

/// Stamps a formed tuple with its inserter.
pub(crate) fn stamp(tuple: &mut [u8], who: &Inserter) -> Result<()> {
    let mut tuple = TupleMut::new(tuple).ok_or_else(bad_tuple)?;
    tuple.set_xmin(who.xid.low32());
    tuple.set_xmax(0);
    tuple.set_cid(who.command, false);
    Ok(())
}

/// Inserts one formed tuple. A `Wait` is for room in the WAL buffers.
pub(crate) fn insert(
    engine: &Engine,
    rel: RelFileNode,
    fillfactor: u8,
    who: &Inserter,
    tuple: &mut [u8],
) -> Result<Step<Tid>> {
    stamp(tuple, who)?;
    // The tuple's page, and that of the visibility map.
    let credit = crate::ready!(engine.credit(credit_for(2, tuple.len() + RECORD_OVERHEAD)));
    let writer = engine.writer()?;
    let request = Request {
        rel,
        slot: who.slot,
        len: tuple.len(),
        fillfactor,
    };
    let page = place::page_with_room(engine, &request)?;
    let block = page.id().block;
    let clearing = Clearing::latch(engine, &[&page], VALID_BITS)?;
    let cleared = clearing.covers(block);
    let empty = place::is_empty(&page);
    let info = HeapOp::Insert as u8 | if empty { INIT_PAGE } else { 0 };
    let mut change = LoggedChange::new(
        engine.storage(),
        &writer.permit,
        credit,
        Rmgr::Heap,
        info,
        who.xid,
    );
    let flags = if empty {
        BlockFlags::STANDARD | BlockFlags::WILL_INIT
    } else {
        BlockFlags::STANDARD
    };
    let id = change.page(page, flags);
    let page = change.page_mut(id);
    if empty {
        page.init(0);
    }
    let offset = page
        .add_item(tuple, Placement::Heap)
        .map_err(|error| AccessError::internal(error.to_string()))?;
    let tid = Tid::new(block, offset);
    set_self_link(page, tid);
    page.set_all_visible(false);
    let view = TupleRef::new(tuple).ok_or_else(bad_tuple)?;
    change.block_payload(id, &record_header(view));
    change.block_data(id, &tuple[HEADER..]);
    clearing.apply(&mut change);
    change.payload(&HeapInsert {
        offnum: offset,
        flags: if cleared {
            insert_flags::ALL_VISIBLE_CLEARED
        } else {
            0
        },
    });
    change.finish()?;
    Ok(Step::Done(tid))
}

/// Points a tuple at itself: it is the newest version.
pub(crate) fn set_self_link(page: &mut towline_storage::Page, tid: Tid) {
    if let Some(mut tuple) = page.item_mut(tid.offset).and_then(TupleMut::new) {
        tuple.set_ctid(tid);
    }
}

/// Inserts as many of `tuples` as fit one page, and returns their addresses (at least one, in order).
pub(crate) fn multi_insert(
    engine: &Engine,
    rel: RelFileNode,
    fillfactor: u8,
    who: &Inserter,
    tuples: &mut [Vec<u8>],
) -> Result<Step<Vec<Tid>>> {
    let Some(first) = tuples.first() else {
        return Ok(Step::Done(Vec::new()));
    };
    // What fits one page, whatever page it will be.
    let credit = crate::ready!(engine.credit(credit_for(2, 2 * towline_base::PAGE_SIZE)));
    let writer = engine.writer()?;
    let request = Request {
        rel,
        slot: who.slot,
        len: first.len(),
        fillfactor,
    };
    let page = place::page_with_room(engine, &request)?;
    let block = page.id().block;
    let empty = place::is_empty(&page);
    let clearing = Clearing::latch(engine, &[&page], VALID_BITS)?;
    let cleared = clearing.covers(block);
    let count = count_that_fit(&page, tuples, place::reserve(fillfactor));
    let tuples = &mut tuples[..count];
    for tuple in tuples.iter_mut() {
        stamp(tuple, who)?;
    }
    let info = Heap2Op::MultiInsert as u8 | if empty { INIT_PAGE } else { 0 };
    let mut change = LoggedChange::new(
        engine.storage(),
        &writer.permit,
        credit,
        Rmgr::Heap2,
        info,
        who.xid,
    );
    let flags = if empty {
        BlockFlags::STANDARD | BlockFlags::WILL_INIT
    } else {
        BlockFlags::STANDARD
    };
    let id = change.page(page, flags);
    let page = change.page_mut(id);
    if empty {
        page.init(0);
    }
    let mut tids = Vec::with_capacity(count);
    for tuple in tuples.iter() {
        let offset = page
            .add_item(tuple, Placement::Heap)
            .map_err(|error| AccessError::internal(error.to_string()))?;
        let tid = Tid::new(block, offset);
        set_self_link(page, tid);
        tids.push(tid);
    }
    page.set_all_visible(false);
    let data = change.builder_mut().block_buffer(id);
    let start = data.len();
    for tuple in tuples.iter() {
        let view = TupleRef::new(tuple).ok_or_else(bad_tuple)?;
        let header = MultiInsertTuple {
            datalen: (tuple.len() - HEADER) as u16,
            infomask2: view.infomask2(),
            infomask: view.infomask(),
            hoff: view.hoff() as u8,
        };
        MultiInsertTuples::append(&header, &tuple[HEADER..], start, data);
    }
    clearing.apply(&mut change);
    let main = HeapMultiInsert {
        flags: insert_flags::LAST_IN_MULTI
            | if cleared {
                insert_flags::ALL_VISIBLE_CLEARED
            } else {
                0
            },
        ntuples: count as u16,
    };
    let buffer = change.builder_mut().data_buffer();
    main.encode(buffer);
    if !empty {
        for tid in &tids {
            buffer.extend_from_slice(&tid.offset.to_le_bytes());
        }
    }
    change.finish()?;
    Ok(Step::Done(tids))
}

fn count_that_fit(page: &towline_storage::Page, tuples: &[Vec<u8>], reserve: usize) -> usize {
    let mut free = if page.is_new() {
        place::room(page) + 4
    } else {
        page.exact_free_space()
    };
    let lines = MULTI_TUPLES.saturating_sub(usize::from(page.max_offset())).max(1);
    let mut count = 0;
    for tuple in tuples.iter().take(lines) {
        let need = max_align(tuple.len()) + 4;
        let kept = if count == 0 { 0 } else { reserve };
        if free < need + kept {
            break;
        }
        free -= need;
        count += 1;
    }
    count.max(1)
}
