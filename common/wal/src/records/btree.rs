//! B-tree record payloads: insert, split, new root, delete, vacuum, page deletion, metapage.
//!
//! Byte for byte PostgreSQL 15's `nbtxlog.h` (nbtree version 4). Towline writes no posting lists, so `nupdated`
//! and `postingoff` are 0 in its own records.

use std::fmt::Write as _;

use towline_base::{Lsn, RelFileNode};

use super::layout::layout;

/// The operation in the high bits of `xl_info` (mask `0xF0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BtreeOp {
    /// Tuple added to a leaf; main [`BtreeInsert`], block 0 the leaf with the tuple as data.
    InsertLeaf = 0x00,
    /// Tuple added to an inner page; block 1 the child whose incomplete-split flag falls.
    InsertUpper = 0x10,
    /// As upper, and block 2 the metapage with [`BtreeMetadata`] as data.
    InsertMeta = 0x20,
    /// Split, new tuple on the left page; main [`BtreeSplit`].
    SplitLeft = 0x30,
    /// Split, new tuple on the right page.
    SplitRight = 0x40,
    /// Insert with a posting list split; not written by Towline.
    InsertPost = 0x50,
    /// Deduplication; not written by Towline.
    Dedup = 0x60,
    /// Leaf tuples deleted because their rows are dead; main [`BtreeDelete`], block 0 data the offsets.
    Delete = 0x70,
    /// Half-dead page unlinked; main [`BtreeUnlinkPage`].
    UnlinkPage = 0x80,
    /// The same, and the metapage changed.
    UnlinkPageMeta = 0x90,
    /// New root; main [`BtreeNewRoot`].
    NewRoot = 0xA0,
    /// Leaf marked half-dead; main [`BtreeMarkPageHalfDead`].
    MarkPageHalfDead = 0xB0,
    /// Tuples deleted by vacuum; main [`BtreeVacuum`], block 0 data the offsets.
    Vacuum = 0xC0,
    /// A deleted page is reused; main [`BtreeReusePage`], no block.
    ReusePage = 0xD0,
    /// Cleanup data of the metapage; block 0 the metapage.
    MetaCleanup = 0xE0,
}

impl BtreeOp {
    /// The operation of an `xl_info` byte; `None` for 0xF0.
    pub fn from_info(info: u8) -> Option<Self> {
        Some(match info & 0xF0 {
            0x00 => Self::InsertLeaf,
            0x10 => Self::InsertUpper,
            0x20 => Self::InsertMeta,
            0x30 => Self::SplitLeft,
            0x40 => Self::SplitRight,
            0x50 => Self::InsertPost,
            0x60 => Self::Dedup,
            0x70 => Self::Delete,
            0x80 => Self::UnlinkPage,
            0x90 => Self::UnlinkPageMeta,
            0xA0 => Self::NewRoot,
            0xB0 => Self::MarkPageHalfDead,
            0xC0 => Self::Vacuum,
            0xD0 => Self::ReusePage,
            0xE0 => Self::MetaCleanup,
            _ => return None,
        })
    }

    /// The name that pg_waldump prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::InsertLeaf => "INSERT_LEAF",
            Self::InsertUpper => "INSERT_UPPER",
            Self::InsertMeta => "INSERT_META",
            Self::SplitLeft => "SPLIT_L",
            Self::SplitRight => "SPLIT_R",
            Self::InsertPost => "INSERT_POST",
            Self::Dedup => "DEDUP",
            Self::Delete => "DELETE",
            Self::UnlinkPage => "UNLINK_PAGE",
            Self::UnlinkPageMeta => "UNLINK_PAGE_META",
            Self::NewRoot => "NEWROOT",
            Self::MarkPageHalfDead => "MARK_PAGE_HALFDEAD",
            Self::Vacuum => "VACUUM",
            Self::ReusePage => "REUSE_PAGE",
            Self::MetaCleanup => "META_CLEANUP",
        }
    }
}

layout! {
    /// The metapage's changing fields, in a block's data.
    pub struct BtreeMetadata: 28 {
        /// nbtree version, 4.
        pub version: u32 = 0,
        /// Root block.
        pub root: u32 = 4,
        /// Its level.
        pub level: u32 = 8,
        /// Fast root block.
        pub fastroot: u32 = 12,
        /// Its level.
        pub fastlevel: u32 = 16,
        /// Deleted pages seen by the last cleanup.
        pub last_cleanup_num_delpages: u32 = 20,
        /// Equal keys have equal images (deduplication would be safe).
        pub allequalimage: bool = 24,
    }
}

layout! {
    /// A tuple was added at `offnum`.
    pub struct BtreeInsert: 2 {
        /// Offset number of the new tuple.
        pub offnum: u16 = 0,
    }
}

layout! {
    /// A page was split. Block 0 the left (original) page, 1 the new right page, 2 the old right sibling if any, 3 the child.
    pub struct BtreeSplit: 10 {
        /// Level of the split page.
        pub level: u32 = 0,
        /// First original item that went right.
        pub firstrightoff: u16 = 4,
        /// Offset number of the new item.
        pub newitemoff: u16 = 6,
        /// Posting list split offset; 0 in Towline.
        pub postingoff: u16 = 8,
    }
}

layout! {
    /// Deduplication of a page; PostgreSQL only.
    pub struct BtreeDedup: 2 {
        /// Number of intervals in block 0's data.
        pub nintervals: u16 = 0,
    }
}

layout! {
    /// Dead tuples removed from a leaf before a split.
    pub struct BtreeDelete: 16, at least 8 {
        /// Newest deleter, low 32 bits.
        pub latest_removed_xid: u32 = 0,
        /// Offsets in block 0's data.
        pub ndeleted: u16 = 4,
        /// Posting list updates; 0 in Towline.
        pub nupdated: u16 = 6,
        /// Towline: highest commit LSN of the removed rows' deleters.
        pub conflict_lsn: Lsn = 8,
    }
}

layout! {
    /// Tuples removed from a leaf by vacuum.
    pub struct BtreeVacuum: 4 {
        /// Offsets in block 0's data.
        pub ndeleted: u16 = 0,
        /// Posting list updates; 0 in Towline.
        pub nupdated: u16 = 2,
    }
}

layout! {
    /// A deleted page is taken into use again: a conflict only.
    pub struct BtreeReusePage: 32, at least 24 {
        /// The index.
        pub node: RelFileNode = 0,
        /// The page.
        pub block: u32 = 12,
        /// Its safe xid, 64 bits.
        pub latest_removed_full_xid: u64 = 16,
        /// Towline: snapshots below it may still walk the old page.
        pub conflict_lsn: Lsn = 24,
    }
}

layout! {
    /// A leaf became half-dead. Block 0 the leaf, 1 the parent.
    pub struct BtreeMarkPageHalfDead: 20 {
        /// Tuple removed from the parent.
        pub poffset: u16 = 0,
        /// The leaf.
        pub leafblk: u32 = 4,
        /// Its left sibling.
        pub leftblk: u32 = 8,
        /// Its right sibling.
        pub rightblk: u32 = 12,
        /// Topmost page of the subtree to delete.
        pub topparent: u32 = 16,
    }
}

layout! {
    /// A half-dead page was unlinked. Block 0 the page, 1 its left sibling, 2 its right sibling, 3 the leaf, 4 the metapage.
    pub struct BtreeUnlinkPage: 36 {
        /// Left sibling or 0.
        pub leftsib: u32 = 0,
        /// Right sibling.
        pub rightsib: u32 = 4,
        /// Level of the page.
        pub level: u32 = 8,
        /// Full xid after which the page may be reused.
        pub safexid: u64 = 16,
        /// Left sibling of the half-dead leaf.
        pub leafleftsib: u32 = 24,
        /// Its right sibling.
        pub leafrightsib: u32 = 28,
        /// Next page down in the subtree.
        pub leaftopparent: u32 = 32,
    }
}

layout! {
    /// A new root. Block 0 the root, 1 the old root's left half (none for an empty tree), 2 the metapage.
    pub struct BtreeNewRoot: 8 {
        /// The root block.
        pub rootblk: u32 = 0,
        /// Its level.
        pub level: u32 = 4,
    }
}

/// pg_waldump's text for one of our B-tree operations, from the main data (and block 0's data for META_CLEANUP).
pub(super) fn describe(
    op: BtreeOp,
    main: &[u8],
    block0: Option<&[u8]>,
    out: &mut String,
) -> Result<(), super::PayloadError> {
    let _ = match op {
        BtreeOp::InsertLeaf | BtreeOp::InsertUpper | BtreeOp::InsertMeta | BtreeOp::InsertPost => {
            write!(out, "off {}", BtreeInsert::decode(main)?.offnum)
        }
        BtreeOp::SplitLeft | BtreeOp::SplitRight => {
            let split = BtreeSplit::decode(main)?;
            write!(
                out,
                "level {}, firstrightoff {}, newitemoff {}, postingoff {}",
                split.level, split.firstrightoff, split.newitemoff, split.postingoff
            )
        }
        BtreeOp::Dedup => write!(out, "nintervals {}", BtreeDedup::decode(main)?.nintervals),
        BtreeOp::Vacuum => {
            let vacuum = BtreeVacuum::decode(main)?;
            write!(out, "ndeleted {}; nupdated {}", vacuum.ndeleted, vacuum.nupdated)
        }
        BtreeOp::Delete => {
            let delete = BtreeDelete::decode(main)?;
            write!(
                out,
                "latestRemovedXid {}; ndeleted {}; nupdated {}",
                delete.latest_removed_xid, delete.ndeleted, delete.nupdated
            )
        }
        BtreeOp::MarkPageHalfDead => {
            let mark = BtreeMarkPageHalfDead::decode(main)?;
            write!(
                out,
                "topparent {}; leaf {}; left {}; right {}",
                mark.topparent, mark.leafblk, mark.leftblk, mark.rightblk
            )
        }
        BtreeOp::UnlinkPage | BtreeOp::UnlinkPageMeta => {
            let unlink = BtreeUnlinkPage::decode(main)?;
            write!(
                out,
                "left {}; right {}; level {}; safexid {}:{}; leafleft {}; leafright {}; leaftopparent {}",
                unlink.leftsib,
                unlink.rightsib,
                unlink.level,
                unlink.safexid >> 32,
                unlink.safexid as u32,
                unlink.leafleftsib,
                unlink.leafrightsib,
                unlink.leaftopparent
            )
        }
        BtreeOp::NewRoot => write!(out, "lev {}", BtreeNewRoot::decode(main)?.level),
        BtreeOp::ReusePage => {
            let reuse = BtreeReusePage::decode(main)?;
            write!(
                out,
                "rel {}/{}/{}; latestRemovedXid {}:{}",
                reuse.node.spc,
                reuse.node.db,
                reuse.node.rel,
                reuse.latest_removed_full_xid >> 32,
                reuse.latest_removed_full_xid as u32
            )
        }
        BtreeOp::MetaCleanup => {
            let meta = BtreeMetadata::decode(block0.unwrap_or_default())?;
            write!(
                out,
                "last_cleanup_num_delpages {}",
                meta.last_cleanup_num_delpages
            )
        }
    };
    Ok(())
}
