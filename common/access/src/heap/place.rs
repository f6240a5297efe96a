//! Where a new version goes: the session's own target block, else what the free space map offers, else a new block.

use std::sync::atomic::{AtomicU64, Ordering};

use towline_base::{BlockNumber, ForkKind, PAGE_SIZE, PageId, RelFileNode};
use towline_storage::page::{HEADER_SIZE, max_align};
use towline_storage::{PageWrite, PinnedPage};

use super::prune;
use crate::engine::Engine;
use crate::error::Result;

/// Entries of the target table.
const TARGETS: usize = 4096;
/// Blocks that the map may offer in vain before the relation is extended.
const TRIES: usize = 8;

/// The block each group of sessions inserted into last, by relation: a small hashed table of hints, so that inserters do not all
/// latch the same page.
#[derive(Debug)]
pub(crate) struct Targets(Box<[AtomicU64]>);

impl Targets {
    pub(crate) fn new() -> Self {
        Targets((0..TARGETS).map(|_| AtomicU64::new(0)).collect())
    }

    fn entry(&self, rel: RelFileNode, slot: u32) -> &AtomicU64 {
        let hash = (u64::from(rel.rel) << 6 ^ u64::from(slot)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        &self.0[(hash >> 52) as usize % TARGETS]
    }

    fn get(&self, rel: RelFileNode, slot: u32) -> Option<BlockNumber> {
        let value = self.entry(rel, slot).load(Ordering::Relaxed);
        (value >> 32 == u64::from(rel.rel) && rel.rel != 0).then_some(value as u32)
    }

    fn set(&self, rel: RelFileNode, slot: u32, block: BlockNumber) {
        self.entry(rel, slot)
            .store(u64::from(rel.rel) << 32 | u64::from(block), Ordering::Relaxed);
    }

    fn clear(&self, rel: RelFileNode, slot: u32) {
        if self.get(rel, slot).is_some() {
            self.entry(rel, slot).store(0, Ordering::Relaxed);
        }
    }
}

/// Bytes that a page has for one more tuple: a page of zeros is as good as an empty one.
pub(crate) fn room(page: &towline_storage::Page) -> usize {
    if page.is_new() {
        PAGE_SIZE - HEADER_SIZE - 4
    } else {
        page.heap_free_space()
    }
}

/// Whether nothing stands on a page: the next tuple makes it anew, and vacuum may cut it off.
pub(crate) fn is_empty(page: &towline_storage::Page) -> bool {
    page.item_ids().all(|(_, item)| !item.is_used())
}

/// Bytes that inserts leave for later updates of the page.
pub(crate) fn reserve(fillfactor: u8) -> usize {
    PAGE_SIZE * (100 - usize::from(fillfactor.clamp(10, 100))) / 100
}

/// Who places what, where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) rel: RelFileNode,
    /// The session's slot: which target block it uses.
    pub(crate) slot: u32,
    /// Length of the tuple.
    pub(crate) len: usize,
    pub(crate) fillfactor: u8,
}

impl Request {
    /// Bytes needed on a page that already has tuples; an empty page takes any tuple.
    fn fits(&self, page: &towline_storage::Page) -> bool {
        let need = max_align(self.len);
        let free = room(page);
        free >= need && (page.max_offset() == 0 || free >= need + reserve(self.fillfactor))
    }
}

/// A page with room, latched for writing.
pub(crate) fn page_with_room(engine: &Engine, request: &Request) -> Result<PageWrite> {
    let mut full = None;
    for _ in 0..TRIES {
        let page = candidate(engine, request, full)?.write();
        if request.fits(&page) {
            engine.targets().set(request.rel, request.slot, page.id().block);
            return Ok(page);
        }
        note_full(engine, request, &page);
        full = Some(page.id().block);
    }
    Ok(extend(engine, request)?.write())
}

/// A page that may have room, pinned and not latched; a new block when nothing better is known. `not` was found full.
pub(crate) fn candidate(engine: &Engine, request: &Request, not: Option<BlockNumber>) -> Result<PinnedPage> {
    let storage = engine.storage();
    let rel = request.rel;
    if not.is_none()
        && let Some(block) = engine.targets().get(rel, request.slot)
        && block < storage.nblocks(rel, ForkKind::Main)?
    {
        return Ok(storage.pin(PageId::main(rel, block))?);
    }
    engine.targets().clear(rel, request.slot);
    let blocks = storage.nblocks(rel, ForkKind::Main)?;
    let need = max_align(request.len) + reserve(request.fillfactor);
    for _ in 0..TRIES {
        let Some(block) = storage
            .fsm()
            .search(rel, blocks, need.min(PAGE_SIZE - HEADER_SIZE - 64))
        else {
            break;
        };
        // The next searcher looks elsewhere: each session fills a page of its own.
        storage.fsm().skip(rel, block);
        if not == Some(block) {
            continue;
        }
        let pinned = storage.pin(PageId::main(rel, block))?;
        prune::prune_opportunistically(engine, &pinned);
        return Ok(pinned);
    }
    extend(engine, request)
}

/// A new block at the end of the relation.
pub(crate) fn extend(engine: &Engine, request: &Request) -> Result<PinnedPage> {
    let pinned = engine.storage().pool().extend(request.rel, ForkKind::Main)?;
    engine.storage().fsm().record(request.rel, pinned.id().block, 0);
    engine.targets().set(request.rel, request.slot, pinned.id().block);
    Ok(pinned)
}

/// Writes down what a page really has, so that nobody is sent there in vain.
pub(crate) fn note_full(engine: &Engine, request: &Request, page: &PageWrite) {
    engine
        .storage()
        .fsm()
        .record(request.rel, page.id().block, room(page));
}
