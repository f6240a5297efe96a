//! The nbtree page: special area, metapage, high key and data item offsets, as PostgreSQL 15 lays them out.
//!
//! Version 4 without deduplication: `btpo_prev, btpo_next, btpo_level, btpo_flags, btpo_cycleid` in 16 bytes of special
//! area, a metapage in block 0, the high key as line pointer 1 of every page that is not rightmost. Everything read here
//! may be damaged; [`check`] refuses a page before anything follows its links.

use towline_base::{BlockNumber, PAGE_SIZE};
use towline_storage::page::HEADER_SIZE;
use towline_storage::{OffsetNumber, Page};

use crate::error::{AccessError, Result};

/// Bytes of the special area.
pub(crate) const OPAQUE_SIZE: usize = 16;
/// Sibling link that leads nowhere (PostgreSQL's `P_NONE`).
pub(crate) const NO_SIBLING: BlockNumber = 0;
/// The metapage's block.
pub(crate) const META_BLOCK: BlockNumber = 0;
/// Line pointer of the high key.
pub(crate) const HIGH_KEY: OffsetNumber = 1;

/// `BTP_LEAF`
pub(crate) const LEAF: u16 = 1 << 0;
/// `BTP_ROOT`
pub(crate) const ROOT: u16 = 1 << 1;
/// `BTP_DELETED`
pub(crate) const DELETED: u16 = 1 << 2;
/// `BTP_META`
pub(crate) const META: u16 = 1 << 3;
/// `BTP_HALF_DEAD`
pub(crate) const HALF_DEAD: u16 = 1 << 4;
/// `BTP_HAS_GARBAGE`
pub(crate) const HAS_GARBAGE: u16 = 1 << 6;
/// `BTP_INCOMPLETE_SPLIT`
pub(crate) const INCOMPLETE_SPLIT: u16 = 1 << 7;

/// The special area of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opaque {
    /// Left sibling.
    pub(crate) prev: BlockNumber,
    /// Right sibling.
    pub(crate) next: BlockNumber,
    /// Height above the leaves.
    pub(crate) level: u32,
    /// `BTP_…` bits.
    pub(crate) flags: u16,
    /// Vacuum cycle of the last split; unused here, always 0.
    pub(crate) cycle: u16,
}

impl Opaque {
    pub(crate) fn is_leaf(&self) -> bool {
        self.flags & LEAF != 0
    }

    pub(crate) fn is_rightmost(&self) -> bool {
        self.next == NO_SIBLING
    }

    pub(crate) fn is_leftmost(&self) -> bool {
        self.prev == NO_SIBLING
    }

    pub(crate) fn is_incomplete_split(&self) -> bool {
        self.flags & INCOMPLETE_SPLIT != 0
    }

    /// Deleted or half-dead: to be passed over.
    pub(crate) fn is_ignorable(&self) -> bool {
        self.flags & (DELETED | HALF_DEAD) != 0
    }

    /// The first line pointer that is not the high key.
    pub(crate) fn first_data(&self) -> OffsetNumber {
        if self.is_rightmost() {
            HIGH_KEY
        } else {
            HIGH_KEY + 1
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    match bytes.get(at..at + 4) {
        Some(four) => u32::from_le_bytes([four[0], four[1], four[2], four[3]]),
        None => 0,
    }
}

/// No tree is higher than this; a page that says so, or a descent that goes on, is caught in a damaged one.
pub(super) const MAX_LEVELS: u32 = 64;

/// The special area as stored; zeros when the page has none.
pub(crate) fn opaque(page: &Page) -> Opaque {
    let special = page.special();
    let flags = u32_at(special, 12);
    Opaque {
        prev: u32_at(special, 0),
        next: u32_at(special, 4),
        level: u32_at(special, 8),
        flags: flags as u16,
        cycle: (flags >> 16) as u16,
    }
}

/// Stores the special area of an initialised page.
pub(crate) fn set_opaque(page: &mut Page, opaque: &Opaque) {
    let special = page.special_mut();
    if special.len() == OPAQUE_SIZE {
        special[0..4].copy_from_slice(&opaque.prev.to_le_bytes());
        special[4..8].copy_from_slice(&opaque.next.to_le_bytes());
        special[8..12].copy_from_slice(&opaque.level.to_le_bytes());
        special[12..14].copy_from_slice(&opaque.flags.to_le_bytes());
        special[14..16].copy_from_slice(&opaque.cycle.to_le_bytes());
    }
}

/// Changes the flags of a page.
pub(crate) fn update_flags(page: &mut Page, set: u16, clear: u16) {
    let mut all = opaque(page);
    all.flags = (all.flags | set) & !clear;
    set_opaque(page, &all);
}

/// Clears what may differ between a B-tree page here and on the primary: hints and unused bytes (`wal_consistency_checking`).
pub(crate) fn mask_for_comparison(page: &mut Page) {
    page.mask_unused();
    let mut links = opaque(page);
    if links.flags & META != 0 {
        return;
    }
    page.mask_dead_marks();
    links.flags &= !HAS_GARBAGE;
    links.cycle = 0;
    set_opaque(page, &links);
}

/// Formats a page.
pub(crate) fn init(page: &mut Page, opaque: &Opaque) {
    page.init(OPAQUE_SIZE);
    set_opaque(page, opaque);
}

/// Refuses a page that is not a B-tree page with items (XX002).
pub(crate) fn check(page: &Page, index: &str, block: BlockNumber) -> Result<Opaque> {
    if page.is_new() {
        return Err(corrupted(
            index,
            format!("contains unexpected zero page at block {block}"),
        ));
    }
    if page.special().len() != OPAQUE_SIZE {
        return Err(corrupted(
            index,
            format!("contains corrupted page at block {block}"),
        ));
    }
    let opaque = opaque(page);
    if opaque.flags & META != 0 {
        return Err(corrupted(
            index,
            format!("has a metapage at block {block} where a tree page must be"),
        ));
    }
    if opaque.level >= MAX_LEVELS {
        return Err(corrupted(
            index,
            format!("has level {} at block {block}", opaque.level),
        ));
    }
    // Block 0 is the metapage, so this is no place of no sibling. Writers latch siblings together: never one page twice.
    if opaque.next == block || opaque.prev == block {
        return Err(corrupted(index, format!("links block {block} to itself")));
    }
    if !opaque.is_rightmost() && page.max_offset() < HIGH_KEY {
        return Err(corrupted(index, format!("has no high key on block {block}")));
    }
    Ok(opaque)
}

/// XX002 for this index.
pub(crate) fn corrupted(index: &str, what: impl std::fmt::Display) -> AccessError {
    AccessError::new(
        towline_base::SqlState::INDEX_CORRUPTED,
        format!("index \"{index}\" {what}"),
    )
}

/// The bytes of an item that is normal or marked dead.
#[inline]
pub(crate) fn item(page: &Page, offset: OffsetNumber) -> Option<&[u8]> {
    page.item_bytes(page.item_id(offset)?)
}

/// Bytes of free space for one more item and its line pointer, PostgreSQL's `PageGetFreeSpace`.
pub(crate) fn free_space(page: &Page) -> usize {
    let space = page.upper().saturating_sub(page.lower());
    space.saturating_sub(4)
}

/// `BTREE_MAGIC`
const META_MAGIC: u32 = 0x0005_3162;
/// `BTREE_VERSION`
const META_VERSION: u32 = 4;
/// Bytes of `BTMetaPageData`.
const META_SIZE: usize = 48;

/// What the metapage says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The root, or [`NO_SIBLING`] for an empty index.
    pub(crate) root: BlockNumber,
    /// The root's level.
    pub(crate) level: u32,
    /// Lowest level with a single page; the same as the root until pages are deleted.
    pub(crate) fast_root: BlockNumber,
    /// Its level.
    pub(crate) fast_level: u32,
    /// `btm_last_cleanup_num_delpages`
    pub(crate) deleted_pages: u32,
    /// `btm_allequalimage`: always false, which tells PostgreSQL not to deduplicate.
    pub(crate) all_equal_image: bool,
}

impl Meta {
    /// The metapage of an index whose root is `root` at `level`.
    pub(crate) fn new(root: BlockNumber, level: u32) -> Meta {
        Meta {
            root,
            level,
            fast_root: root,
            fast_level: level,
            deleted_pages: 0,
            all_equal_image: false,
        }
    }

    /// Reads a metapage.
    pub(crate) fn read(page: &Page, index: &str) -> Result<Meta> {
        let bytes = &page.as_bytes()[HEADER_SIZE..HEADER_SIZE + META_SIZE];
        let flags = opaque(page).flags;
        if flags & META == 0 || u32_at(bytes, 0) != META_MAGIC {
            return Err(corrupted(index, "is not a btree"));
        }
        if u32_at(bytes, 4) != META_VERSION {
            return Err(corrupted(
                index,
                format!(
                    "has btree version {}, supported is {META_VERSION}",
                    u32_at(bytes, 4)
                ),
            ));
        }
        let (level, fast_level) = (u32_at(bytes, 12), u32_at(bytes, 20));
        if level.max(fast_level) >= MAX_LEVELS {
            return Err(corrupted(index, format!("has {level} levels in its metapage")));
        }
        Ok(Meta {
            root: u32_at(bytes, 8),
            level,
            fast_root: u32_at(bytes, 16),
            fast_level,
            deleted_pages: u32_at(bytes, 24),
            all_equal_image: bytes[40] != 0,
        })
    }

    /// Formats `page` as a metapage that says this.
    pub(crate) fn write(&self, page: &mut Page) {
        init(
            page,
            &Opaque {
                prev: 0,
                next: 0,
                level: 0,
                flags: META,
                cycle: 0,
            },
        );
        let all = page.as_bytes_mut();
        let bytes = &mut all[HEADER_SIZE..HEADER_SIZE + META_SIZE];
        let words = [
            META_MAGIC,
            META_VERSION,
            self.root,
            self.level,
            self.fast_root,
            self.fast_level,
            self.deleted_pages,
        ];
        for (index, word) in words.iter().enumerate() {
            bytes[index * 4..index * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes[32..40].copy_from_slice(&(-1.0f64).to_le_bytes());
        bytes[40] = u8::from(self.all_equal_image);
        // pd_lower behind the contents, so that images keep them.
        let lower = (HEADER_SIZE + META_SIZE) as u16;
        all[12..14].copy_from_slice(&lower.to_le_bytes());
    }
}

const _: () = assert!(HEADER_SIZE + META_SIZE + OPAQUE_SIZE <= PAGE_SIZE);
