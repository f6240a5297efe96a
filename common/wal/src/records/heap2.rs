//! Heap2 record payloads: prune, vacuum, freeze, visible, multi-insert, lock-updated, new-cid.
//!
//! PostgreSQL 15's layouts. Records that remove or declare old carry Towline's `conflict_lsn` behind PostgreSQL's
//! payload (HAZARDS B8): the highest commit LSN of what they remove or freeze; replay cancels snapshots below it.

use std::fmt::Write as _;

use towline_base::{Lsn, RelFileNode, Tid};

use super::layout::{OffsetNumbers, Payload, PayloadError, encode_offsets, layout};

/// The operation in the high bits of `xl_info` (mask `0x70`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Heap2Op {
    /// Logical rewrite mapping; not written by Towline.
    Rewrite = 0x00,
    /// Pruned page; main [`HeapPrune`], block 0 data [`PrunedOffsets`].
    Prune = 0x10,
    /// Dead line pointers made unused; main [`HeapVacuum`], block 0 data the offsets.
    Vacuum = 0x20,
    /// Tuples frozen; main [`HeapFreezePage`], block 0 data an array of [`HeapFreezeTuple`].
    FreezePage = 0x30,
    /// Visibility map bits set; block 0 the map page, block 1 the heap page.
    Visible = 0x40,
    /// Several tuples for one page; main [`HeapMultiInsert`], block 0 data [`MultiInsertTuples`].
    MultiInsert = 0x50,
    /// A row lock spread to a newer version; main [`HeapLockUpdated`].
    LockUpdated = 0x60,
    /// Command ids for logical decoding; not written by Towline.
    NewCid = 0x70,
}

impl Heap2Op {
    /// The operation of an `xl_info` byte. Every value of the mask is defined.
    pub fn from_info(info: u8) -> Self {
        match info & 0x70 {
            0x00 => Self::Rewrite,
            0x10 => Self::Prune,
            0x20 => Self::Vacuum,
            0x30 => Self::FreezePage,
            0x40 => Self::Visible,
            0x50 => Self::MultiInsert,
            0x60 => Self::LockUpdated,
            _ => Self::NewCid,
        }
    }

    /// The name that pg_waldump prints.
    pub fn name(info: u8) -> Option<&'static str> {
        let init = info & super::heap::INIT_PAGE != 0;
        Some(match (Self::from_info(info), init) {
            (Self::Rewrite, false) => "REWRITE",
            (Self::Prune, false) => "PRUNE",
            (Self::Vacuum, false) => "VACUUM",
            (Self::FreezePage, false) => "FREEZE_PAGE",
            (Self::Visible, false) => "VISIBLE",
            (Self::MultiInsert, false) => "MULTI_INSERT",
            (Self::MultiInsert, true) => "MULTI_INSERT+INIT",
            (Self::LockUpdated, false) => "LOCK_UPDATED",
            (Self::NewCid, false) => "NEW_CID",
            (
                Self::Rewrite
                | Self::Prune
                | Self::Vacuum
                | Self::FreezePage
                | Self::Visible
                | Self::LockUpdated
                | Self::NewCid,
                true,
            ) => return None,
        })
    }
}

layout! {
    /// A page was pruned.
    pub struct HeapPrune: 16, at least 8 {
        /// Newest xid removed, low 32 bits.
        pub latest_removed_xid: u32 = 0,
        /// Redirected line pointers (pairs in block 0's data).
        pub nredirected: u16 = 4,
        /// Line pointers made dead.
        pub ndead: u16 = 6,
        /// Towline: highest commit LSN of the removed versions' deleters.
        pub conflict_lsn: Lsn = 8,
    }
}

layout! {
    /// Dead line pointers of block 0 became unused; the offsets are block 0's data.
    pub struct HeapVacuum: 10, at least 2 {
        /// How many.
        pub nunused: u16 = 0,
        /// Towline: highest commit LSN of the removed rows (usually invalid: prune was the conflict).
        pub conflict_lsn: Lsn = 2,
    }
}

layout! {
    /// Tuples of block 0 were frozen.
    pub struct HeapFreezePage: 14, at least 6 {
        /// Xids before it were frozen.
        pub cutoff_xid: u32 = 0,
        /// How many [`HeapFreezeTuple`]s block 0's data holds.
        pub ntuples: u16 = 4,
        /// Towline: highest commit LSN of the frozen inserts.
        pub conflict_lsn: Lsn = 6,
    }
}

layout! {
    /// One frozen tuple. The array in block 0's data is of 12-byte elements.
    pub struct HeapFreezeTuple: 12 {
        /// New xmax.
        pub xmax: u32 = 0,
        /// Offset number.
        pub offset: u16 = 4,
        /// New `t_infomask2`.
        pub infomask2: u16 = 6,
        /// New `t_infomask`.
        pub infomask: u16 = 8,
        /// PostgreSQL's freeze flags for `xvac`; 0 in Towline.
        pub frzflags: u8 = 10,
    }
}

layout! {
    /// Visibility map bits were set for block 1's heap page.
    pub struct HeapVisible: 13, at least 5 {
        /// Newest xid on the page, for conflicts.
        pub cutoff_xid: u32 = 0,
        /// [`visible_flags`].
        pub flags: u8 = 4,
        /// Towline: highest commit LSN of the page's inserts.
        pub conflict_lsn: Lsn = 5,
    }
}

/// `flags` of [`HeapVisible`]: the bits of the visibility map.
pub mod visible_flags {
    /// All tuples visible to all.
    pub const ALL_VISIBLE: u8 = 0x01;
    /// All tuples frozen.
    pub const ALL_FROZEN: u8 = 0x02;
}

layout! {
    /// Leads a multi-insert's main data; without INIT_PAGE, `ntuples` offset numbers follow.
    pub struct HeapMultiInsert: 4 {
        /// [`super::heap::insert_flags`].
        pub flags: u8 = 0,
        /// Number of tuples.
        pub ntuples: u16 = 2,
    }
}

layout! {
    /// Leads one tuple of a multi-insert, at an even position of block 0's data; `datalen` bytes follow.
    pub struct MultiInsertTuple: 7 {
        /// Bytes of tuple behind this header.
        pub datalen: u16 = 0,
        /// `t_infomask2`.
        pub infomask2: u16 = 2,
        /// `t_infomask`.
        pub infomask: u16 = 4,
        /// `t_hoff`.
        pub hoff: u8 = 6,
    }
}

layout! {
    /// A row lock was spread to a newer version of the row.
    pub struct HeapLockUpdated: 8 {
        /// The locking xid.
        pub xmax: u32 = 0,
        /// Offset number.
        pub offnum: u16 = 4,
        /// [`super::heap::infobits`].
        pub infobits_set: u8 = 6,
        /// [`super::heap::LOCK_ALL_FROZEN_CLEARED`].
        pub flags: u8 = 7,
    }
}

layout! {
    /// Command ids of a catalog tuple (logical decoding only).
    pub struct HeapNewCid: 34 {
        /// Top-level xid.
        pub top_xid: u32 = 0,
        /// Inserting command.
        pub cmin: u32 = 4,
        /// Deleting command.
        pub cmax: u32 = 8,
        /// Combo command id.
        pub combocid: u32 = 12,
        /// Relation file.
        pub target_node: RelFileNode = 16,
        /// Tuple.
        pub target_tid: Tid = 28,
    }
}

/// Block 0's data of a prune record: redirect pairs (from, to), then dead, then unused offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrunedOffsets<'a> {
    redirected: OffsetNumbers<'a>,
    /// Line pointers made dead.
    pub dead: OffsetNumbers<'a>,
    /// Line pointers made unused.
    pub unused: OffsetNumbers<'a>,
}

impl<'a> PrunedOffsets<'a> {
    /// Decodes with the counts of the main data; the rest is the unused list.
    pub fn decode(prune: &HeapPrune, data: &'a [u8]) -> Result<Self, PayloadError> {
        let (redirected, rest) = OffsetNumbers::split(data, usize::from(prune.nredirected) * 2)?;
        let (dead, rest) = OffsetNumbers::split(rest, usize::from(prune.ndead))?;
        let (unused, _) = OffsetNumbers::split(rest, rest.len() / 2)?;
        Ok(Self {
            redirected,
            dead,
            unused,
        })
    }

    /// (from, to) pairs.
    pub fn redirected(&self) -> impl Iterator<Item = (u16, u16)> + 'a {
        let mut offsets = self.redirected.iter();
        std::iter::from_fn(move || Some((offsets.next()?, offsets.next()?)))
    }

    /// Appends block 0's data in its stored form.
    pub fn encode(redirected: &[(u16, u16)], dead: &[u16], unused: &[u16], out: &mut Vec<u8>) {
        for &(from, to) in redirected {
            encode_offsets(&[from, to], out);
        }
        encode_offsets(dead, out);
        encode_offsets(unused, out);
    }
}

/// Iterates over block 0's data of a multi-insert: each tuple's header and bytes.
#[derive(Debug, Clone)]
pub struct MultiInsertTuples<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> MultiInsertTuples<'a> {
    /// Over the block's data.
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// Appends one tuple, aligned to an even position of `out`'s part from `start` (the block data's start in `out`).
    pub fn append(header: &MultiInsertTuple, tuple: &[u8], start: usize, out: &mut Vec<u8>) {
        if !(out.len() - start).is_multiple_of(2) {
            out.push(0);
        }
        header.encode(out);
        out.extend_from_slice(tuple);
    }
}

impl<'a> Iterator for MultiInsertTuples<'a> {
    type Item = Result<(MultiInsertTuple, &'a [u8]), PayloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.next_multiple_of(2);
        if at >= self.data.len() {
            return None;
        }
        let rest = &self.data[at..];
        let header = match MultiInsertTuple::decode(rest) {
            Ok(header) => header,
            Err(error) => {
                self.at = self.data.len();
                return Some(Err(error));
            }
        };
        let end = MultiInsertTuple::SIZE + usize::from(header.datalen);
        match rest.get(MultiInsertTuple::SIZE..end) {
            Some(tuple) => {
                self.at = at + end;
                Some(Ok((header, tuple)))
            }
            None => {
                self.at = self.data.len();
                Some(Err(PayloadError::Truncated {
                    needed: end,
                    available: rest.len(),
                }))
            }
        }
    }
}

impl HeapMultiInsert {
    /// The offset numbers behind the struct in the main data (absent with INIT_PAGE: 1, 2, 3 …).
    pub fn offsets<'a>(&self, main: &'a [u8]) -> Result<OffsetNumbers<'a>, PayloadError> {
        OffsetNumbers::split(
            main.get(Self::SIZE..).unwrap_or_default(),
            usize::from(self.ntuples),
        )
        .map(|(list, _)| list)
    }

    /// pg_waldump's text.
    pub fn describe(&self, out: &mut String) {
        let _ = write!(out, "{} tuples flags 0x{:02X}", self.ntuples, self.flags);
    }
}

impl HeapPrune {
    /// pg_waldump's text.
    pub fn describe(&self, out: &mut String) {
        let _ = write!(
            out,
            "latestRemovedXid {} nredirected {} ndead {}",
            self.latest_removed_xid, self.nredirected, self.ndead
        );
    }
}

impl HeapVacuum {
    /// pg_waldump's text.
    pub fn describe(&self, out: &mut String) {
        let _ = write!(out, "nunused {}", self.nunused);
    }
}

impl HeapFreezePage {
    /// pg_waldump's text.
    pub fn describe(&self, out: &mut String) {
        let _ = write!(out, "cutoff xid {} ntuples {}", self.cutoff_xid, self.ntuples);
    }
}

impl HeapFreezeTuple {
    /// The elements of block 0's data.
    pub fn iter(data: &[u8]) -> impl Iterator<Item = Result<Self, PayloadError>> + '_ {
        data.chunks(Self::SIZE).map(Self::decode)
    }
}

impl HeapVisible {
    /// pg_waldump's text.
    pub fn describe(&self, out: &mut String) {
        let _ = write!(out, "cutoff xid {} flags 0x{:02X}", self.cutoff_xid, self.flags);
    }
}

impl HeapLockUpdated {
    /// pg_waldump's text.
    pub fn describe(&self, out: &mut String) {
        let _ = write!(
            out,
            "off {}: xmax {}: flags 0x{:02X} ",
            self.offnum, self.xmax, self.flags
        );
        super::heap::describe_infobits(self.infobits_set, out);
    }
}

impl HeapNewCid {
    /// pg_waldump's text.
    pub fn describe(&self, out: &mut String) {
        let (node, tid) = (self.target_node, self.target_tid);
        let _ = write!(
            out,
            "rel {}/{}/{}; tid {}/{}; cmin: {}, cmax: {}, combo: {}",
            node.spc, node.db, node.rel, tid.block, tid.offset, self.cmin, self.cmax, self.combocid
        );
    }
}
