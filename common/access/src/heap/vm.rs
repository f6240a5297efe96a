//! The visibility map: which heap pages need no look by vacuum. Set by vacuum (logged), cleared by whatever changes the page.
//!
//! A page's own `PD_ALL_VISIBLE` flag says whether its bits may be set, so that a change of an ordinary page never looks at the map. The
//! bits are cleared in the same logged change as the heap page's: the map's pages are latched behind the heap's, and take part in the
//! record as blocks of their own, so that they get images, and wait for the quorum, as every page does.
//!
//! A page without a tuple never has a bit: so a truncation, which cuts such pages, leaves none behind for the pages that come in their place.

use smallvec::SmallVec;
use towline_base::{BlockNumber, ForkKind, Lsn, PageId, Xid};
use towline_storage::vm::{ALL_VISIBLE, VALID_BITS};
use towline_storage::{LoggedChange, Page, PageWrite, PinnedPage, RedoContext, StorageError, vm};
use towline_wal::format::DecodedRecord;
use towline_wal::records::heap2::{Heap2Op, HeapVisible};
use towline_wal::{BlockFlags, Rmgr, credit_for};

use super::tuple::mask;
use super::visibility::{Outcome, commit_lsn, holder, inserter, tuple_at};
use crate::engine::Engine;
use crate::error::{AccessError, Result};
use crate::step::Step;

/// Block id of the first map page in a heap record: behind the two that a heap change can have.
const FIRST_MAP_ID: u8 = 2;

/// What a change of heap pages clears in the map: nothing, for pages whose flag is not set.
#[derive(Default)]
pub(crate) struct Clearing {
    bits: u8,
    heap: SmallVec<[BlockNumber; 2]>,
    maps: SmallVec<[PageWrite; 2]>,
}

impl Clearing {
    /// Latches the map's pages for a change that takes `bits` from these heap pages, which are latched. Before any page is touched.
    pub(crate) fn latch(engine: &Engine, pages: &[&PageWrite], bits: u8) -> Result<Clearing> {
        let mut clearing = Clearing {
            bits,
            ..Clearing::default()
        };
        let mut ids: SmallVec<[PageId; 2]> = SmallVec::new();
        for page in pages.iter().filter(|page| page.is_all_visible()) {
            clearing.heap.push(page.id().block);
            let id = vm::map_page(page.id().rel, page.id().block);
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        for id in ids {
            let map = match engine.storage().pin(id) {
                Ok(pinned) => pinned.write(),
                Err(StorageError::NoSuchBlock(_) | StorageError::NoSuchRelation(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let set =
                |heap: &BlockNumber| vm::map_page(id.rel, *heap) == id && vm::get(&map, *heap) & bits != 0;
            if clearing.heap.iter().any(set) {
                clearing.maps.push(map);
            }
        }
        Ok(clearing)
    }

    /// Whether the record must say that this heap page lost its bits, or, for a part of the bits, that some of them were set.
    pub(crate) fn covers(&self, heap: BlockNumber) -> bool {
        self.heap.contains(&heap) && (self.bits == VALID_BITS || !self.maps.is_empty())
    }

    /// Adds the map's pages to the change, behind the heap's, and clears the bits.
    pub(crate) fn apply(self, change: &mut LoggedChange<'_>) {
        for (id, map) in (FIRST_MAP_ID..).zip(self.maps) {
            let page = map.id();
            change.page_as(id, map, BlockFlags::DEFAULT);
            let map = change.page_mut(id);
            for heap in self
                .heap
                .iter()
                .filter(|heap| vm::map_page(page.rel, **heap) == page)
            {
                vm::clear(map, *heap, self.bits);
            }
        }
    }
}

/// Redo of a heap change that cleared bits of one of its pages. Bears repetition: the bits are simply cleared.
pub(crate) fn redo_cleared(
    record: &DecodedRecord<'_>,
    cx: &mut RedoContext<'_>,
    id: u8,
    bits: u8,
    cleared: bool,
) -> Result<()> {
    if !cleared {
        return Ok(());
    }
    let Some(block) = record.block(id) else {
        return Ok(());
    };
    let (page, heap) = (vm::map_page(block.page.rel, block.page.block), block.page.block);
    let named = record.blocks.iter().find(|block| block.page == page);
    let map = match named {
        // Not kept from it by a later change of other bits: several appliers come in no order here.
        Some(block) => cx.page_to_repeat(block.id),
        // A record of PostgreSQL's form does not name the map's page.
        None => cx
            .other_page(page, false)
            .map_err(|error| AccessError::corrupted(error.to_string()))?,
    };
    if let Some(map) = map {
        vm::clear(map, heap, bits);
    }
    Ok(())
}

/// Redo of vacuum's record: block 0 is the map's page, block 1 the heap page.
pub(crate) fn redo_visible(record: &DecodedRecord<'_>, cx: &mut RedoContext<'_>) -> Result<()> {
    let body = HeapVisible::decode(record.main)?;
    let heap = record.block(1).map(|block| block.page.block).ok_or_else(|| {
        AccessError::corrupted(format!("the record at {} names no heap page", record.start))
    })?;
    if let Some(page) = cx.page_mut(1) {
        page.set_all_visible(true);
    }
    if let Some(map) = cx.page_mut(0) {
        if map.is_new() {
            map.init(0);
        }
        vm::set(map, heap, body.flags & VALID_BITS);
    }
    Ok(())
}

/// What vacuum may say of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// [`ALL_VISIBLE`], with [`ALL_FROZEN`] or without; 0 when somebody may not see a tuple, or there is none.
    pub(crate) bits: u8,
    /// Highest commit LSN of the inserts that are not frozen: who has an older snapshot does not see the page so.
    pub(crate) conflict: Lsn,
    /// Highest xid of those inserts.
    highest: Xid,
}

/// Judges a page: all visible when every tuple was inserted by a commit at or below `settled` (B8) and is not deleted, and nothing else is
/// there that an index could lead to.
pub(crate) fn judge(engine: &Engine, page: &Page, block: BlockNumber, settled: Lsn) -> Result<Judgement> {
    let (csn, next) = (engine.csn(), engine.next_xid());
    let mut found = Judgement::default();
    let (mut tuples, mut frozen) = (0, true);
    for offset in 1..=page.max_offset() {
        if page.item_id(offset).is_some_and(|item| item.is_dead()) {
            return Ok(Judgement::default());
        }
        let Some(tuple) = tuple_at(page, block, offset)? else {
            continue;
        };
        tuples += 1;
        match inserter(csn, tuple, Xid::INVALID, next)? {
            Outcome::Committed(_) if tuple.is_xmin_frozen() => {}
            Outcome::Committed(_) => {
                // Not what a hint says: a standby may have older snapshots.
                let lsn = commit_lsn(csn, tuple.xmin(), next)?;
                if lsn > settled {
                    return Ok(Judgement::default());
                }
                found.conflict = found.conflict.max(lsn);
                found.highest = found.highest.max(Xid::from_low32(tuple.xmin(), next));
                frozen = false;
            }
            Outcome::None | Outcome::Own | Outcome::Running(_) => return Ok(Judgement::default()),
        }
        if tuple.infomask() & mask::XMAX_INVALID == 0 && tuple.xmax() != 0 {
            frozen = false;
            let deleter = holder(csn, tuple, Xid::INVALID, next)?;
            if !tuple.is_lock_only() && deleter != Outcome::None {
                return Ok(Judgement::default());
            }
        }
    }
    if tuples > 0 {
        found.bits = if frozen { VALID_BITS } else { ALL_VISIBLE };
    }
    Ok(found)
}

/// The bits that the map has for a heap page.
pub(crate) fn bits_of(engine: &Engine, heap: PageId) -> Result<u8> {
    match engine.storage().pin(vm::map_page(heap.rel, heap.block)) {
        Ok(map) => Ok(vm::get(&map.read_ref(), heap.block)),
        Err(StorageError::NoSuchBlock(_) | StorageError::NoSuchRelation(_)) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// The bits that the map has for a heap page whose own flag agrees.
pub(crate) fn settled_bits(engine: &Engine, heap: &PinnedPage) -> Result<u8> {
    if !heap.read_ref().is_all_visible() {
        return Ok(0);
    }
    bits_of(engine, heap.id())
}

/// Sets the bits that a page deserves and has not got, logged. For vacuum, nothing being latched.
pub(crate) fn set_bits(engine: &Engine, heap: &PinnedPage) -> Result<Step<()>> {
    let id = heap.id();
    let settled = engine.vacuum_horizon().min(engine.settled());
    let wanted = judge(engine, &heap.read_ref(), id.block, settled)?.bits;
    if wanted == 0 || heap.read_ref().is_all_visible() && bits_of(engine, id)? & wanted == wanted {
        return Ok(Step::Done(()));
    }
    let map_id = vm::map_page(id.rel, id.block);
    // A map that is longer than the log says holds zeros there, which say nothing.
    engine
        .storage()
        .smgr()
        .ensure_blocks(id.rel, ForkKind::Vm, map_id.block + 1)?;
    let credit = crate::ready!(engine.credit(credit_for(2, HeapVisible::SIZE)));
    let writer = engine.writer()?;
    let map = engine.storage().pin(map_id)?;
    let page = heap.clone().write();
    // It may have changed since.
    let found = judge(engine, &page, id.block, settled)?;
    if found.bits == 0 {
        return Ok(Step::Done(()));
    }
    let map = map.write();
    let new = map.is_new();
    let info = Heap2Op::Visible as u8;
    let mut change = LoggedChange::new(
        engine.storage(),
        &writer.permit,
        credit,
        Rmgr::Heap2,
        info,
        Xid::INVALID,
    );
    let flags = if new {
        BlockFlags::WILL_INIT
    } else {
        BlockFlags::DEFAULT
    };
    let map_at = change.page(map, flags);
    let heap_at = change.page(page, BlockFlags::STANDARD);
    change.page_mut(heap_at).set_all_visible(true);
    let map = change.page_mut(map_at);
    if new {
        map.init(0);
    }
    vm::set(map, id.block, found.bits);
    change.payload(&HeapVisible {
        cutoff_xid: found.highest.low32(),
        flags: found.bits,
        conflict_lsn: found.conflict,
    });
    change.finish()?;
    Ok(Step::Done(()))
}
