//! The free space map, in memory only: for each page of a relation about how many bytes are free.
//!
//! It is a hint in both directions: whoever gets a block from it looks at the page itself and records what it found. After a start
//! nothing is known about any page; unknown pages are offered like good ones, a few per search, so that the map fills itself
//! where rows are inserted, without a scan and without forgetting the room that exists.
//!
//! One byte per page (32-byte steps, as PostgreSQL's) and one per 256 pages, which holds the highest of them.

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use towline_base::{BlockNumber, PAGE_SIZE, RelFileNode};

use std::sync::Arc;

const STEP: usize = PAGE_SIZE / 256;
/// Nothing is known about the page.
const UNKNOWN: u8 = 255;
/// The highest known category; it promises `254 * STEP` bytes.
const HIGHEST: u8 = 254;
const GROUP: usize = 256;
/// Unknown pages that one search offers before it gives up: the cost of learning is spread over inserts.
pub const MAX_UNKNOWN_PER_SEARCH: u32 = 4;

#[derive(Default)]
struct RelationSpace {
    pages: Vec<u8>,
    groups: Vec<u8>,
    /// Where the next search begins, so that sessions spread over pages.
    next: usize,
}

impl RelationSpace {
    fn grow(&mut self, blocks: usize) {
        if blocks > self.pages.len() {
            let changed = self.pages.len() / GROUP;
            self.pages.resize(blocks, UNKNOWN);
            self.groups.resize(blocks.div_ceil(GROUP), 0);
            for group in changed..self.groups.len() {
                self.recount(group);
            }
        }
    }

    fn recount(&mut self, group: usize) {
        let end = self.pages.len().min((group + 1) * GROUP);
        self.groups[group] = self.pages[group * GROUP..end].iter().copied().max().unwrap_or(0);
    }

    fn set(&mut self, block: usize, category: u8) {
        self.grow(block + 1);
        let before = std::mem::replace(&mut self.pages[block], category);
        let group = block / GROUP;
        if category >= self.groups[group] {
            self.groups[group] = category;
        } else if before == self.groups[group] {
            self.recount(group);
        }
    }

    fn search(&self, needed: u8) -> Option<usize> {
        let groups = self.groups.len();
        let start = if self.next < self.pages.len() {
            self.next
        } else {
            0
        };
        for turn in 0..=groups {
            let group = (start / GROUP + turn) % groups.max(1);
            if *self.groups.get(group)? < needed {
                continue;
            }
            let from = if turn == 0 { start } else { group * GROUP };
            let end = self.pages.len().min((group + 1) * GROUP);
            if let Some(found) = self.pages[from..end]
                .iter()
                .position(|category| *category >= needed)
            {
                return Some(from + found);
            }
        }
        None
    }
}

/// Free space of all relations. See the module.
#[derive(Default)]
pub struct FreeSpaceMap {
    relations: RwLock<HashMap<RelFileNode, Arc<Mutex<RelationSpace>>>>,
}

impl std::fmt::Debug for FreeSpaceMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FreeSpaceMap")
            .field("relations", &self.relations.read().len())
            .finish()
    }
}

fn category_of(free: usize) -> u8 {
    (free / STEP).min(usize::from(HIGHEST)) as u8
}

impl FreeSpaceMap {
    /// Knows nothing.
    pub fn new() -> FreeSpaceMap {
        FreeSpaceMap::default()
    }

    /// A page of a relation of `blocks` blocks that may have `needed` free bytes. The caller looks at the page, and if it has not,
    /// says so with [`FreeSpaceMap::record`] and asks again; after [`MAX_UNKNOWN_PER_SEARCH`] misses it extends.
    pub fn search(&self, rel: RelFileNode, blocks: BlockNumber, needed: usize) -> Option<BlockNumber> {
        if blocks == 0 || needed > usize::from(HIGHEST) * STEP {
            return None;
        }
        let space = self.relation(rel);
        let mut space = space.lock();
        space.grow(blocks as usize);
        let found = space.search(needed.div_ceil(STEP) as u8)?;
        if found >= blocks as usize {
            return None;
        }
        // Stays on this page until it is full: rows inserted together stand together.
        space.next = found;
        Some(found as BlockNumber)
    }

    /// Moves the start of the next search away from `block`, which others are using just now.
    pub fn skip(&self, rel: RelFileNode, block: BlockNumber) {
        self.relation(rel).lock().next = block as usize + 1;
    }

    /// A page has `free` bytes.
    pub fn record(&self, rel: RelFileNode, block: BlockNumber, free: usize) {
        self.relation(rel).lock().set(block as usize, category_of(free));
    }

    /// What is known of a page; `None` when nothing is.
    pub fn get(&self, rel: RelFileNode, block: BlockNumber) -> Option<usize> {
        let space = self.relations.read().get(&rel).cloned()?;
        let category = space.lock().pages.get(block as usize).copied()?;
        (category != UNKNOWN).then_some(usize::from(category) * STEP)
    }

    /// The relation was cut to `blocks`.
    pub fn truncate(&self, rel: RelFileNode, blocks: BlockNumber) {
        if let Some(space) = self.relations.read().get(&rel) {
            let mut space = space.lock();
            let blocks = (blocks as usize).min(space.pages.len());
            space.pages.truncate(blocks);
            space.groups.truncate(blocks.div_ceil(GROUP));
            if blocks % GROUP != 0 {
                space.recount(blocks / GROUP);
            }
        }
    }

    /// The relation is gone.
    pub fn forget(&self, rel: RelFileNode) {
        self.relations.write().remove(&rel);
    }

    fn relation(&self, rel: RelFileNode) -> Arc<Mutex<RelationSpace>> {
        if let Some(space) = self.relations.read().get(&rel) {
            return Arc::clone(space);
        }
        Arc::clone(self.relations.write().entry(rel).or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::smgr::relation;
    use proptest::prelude::*;

    #[test]
    fn unknown_pages_are_offered_until_something_is_known() {
        let map = FreeSpaceMap::new();
        let rel = relation(1);
        assert_eq!(map.search(rel, 0, 100), None);
        assert_eq!(map.search(rel, 2, 100), Some(0));
        map.record(rel, 0, 50);
        assert_eq!(map.search(rel, 2, 100), Some(1));
        map.record(rel, 1, 10);
        assert_eq!(map.search(rel, 2, 100), None);
        assert_eq!(map.search(rel, 3, 100), Some(2));
        assert_eq!(map.get(rel, 0), Some(32));
        assert_eq!(map.get(rel, 2), None);
    }

    #[test]
    fn a_search_stays_on_its_page_and_skip_moves_it() {
        let map = FreeSpaceMap::new();
        let rel = relation(1);
        for block in 0..600 {
            map.record(rel, block, 4000);
        }
        assert_eq!(map.search(rel, 600, 1000), Some(0));
        map.skip(rel, 0);
        assert_eq!(map.search(rel, 600, 1000), Some(1));
        map.skip(rel, 599);
        assert_eq!(map.search(rel, 600, 1000), Some(0));
    }

    proptest! {
        #[test]
        fn a_search_finds_a_page_exactly_when_there_is_one(
            records in prop::collection::vec((0u32..700, 0usize..8192), 0..200),
            truncated in prop::option::of(1u32..700),
            needed in 1usize..8000,
            start in 0u32..800,
        ) {
            let map = FreeSpaceMap::new();
            let rel = relation(7);
            let mut oracle = vec![UNKNOWN; 700];
            map.search(rel, 700, 1);
            for (block, free) in records {
                map.record(rel, block, free);
                oracle[block as usize] = category_of(free);
            }
            if let Some(blocks) = truncated {
                map.truncate(rel, blocks);
                oracle[blocks as usize..].fill(UNKNOWN);
            }
            map.skip(rel, start);
            let category = needed.div_ceil(STEP);
            let exists = oracle.iter().any(|known| usize::from(*known) >= category);
            match map.search(rel, 700, needed) {
                Some(block) => prop_assert!(usize::from(oracle[block as usize]) >= category),
                None => prop_assert!(!exists || needed > usize::from(HIGHEST) * STEP),
            }
        }
    }
}
