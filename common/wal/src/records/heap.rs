//! Heap record payloads: insert, delete, update, hot update, lock, confirm, inplace, truncate.
//!
//! Byte for byte PostgreSQL 15's `heapam_xlog.h`. The tuple of an insert or update travels in block 0's data as
//! [`HeapHeader`] followed by the tuple from its null bitmap on (`t_hoff` covers header, bitmap and padding).

use std::fmt::Write as _;

use super::layout::layout;

/// The operation in the high bits of `xl_info` (mask `0x70`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum HeapOp {
    /// New tuple; main [`HeapInsert`].
    Insert = 0x00,
    /// Deleted tuple; main [`HeapDelete`].
    Delete = 0x10,
    /// New version on any page; main [`HeapUpdate`], block 0 the new page, block 1 the old one when different.
    Update = 0x20,
    /// Logical truncation marker; not written by Towline.
    Truncate = 0x30,
    /// New version on the same page, no indexed column changed.
    HotUpdate = 0x40,
    /// Speculative insertion confirmed; main [`HeapConfirm`].
    Confirm = 0x50,
    /// Row lock; main [`HeapLock`].
    Lock = 0x60,
    /// Overwrite in place; main [`HeapInplace`].
    Inplace = 0x70,
}

/// Set in `xl_info` when redo re-initializes block 0 (the tuple is the page's only one).
pub const INIT_PAGE: u8 = 0x80;

impl HeapOp {
    /// The operation of an `xl_info` byte. Every value of the mask is defined.
    pub fn from_info(info: u8) -> Self {
        match info & 0x70 {
            0x00 => Self::Insert,
            0x10 => Self::Delete,
            0x20 => Self::Update,
            0x30 => Self::Truncate,
            0x40 => Self::HotUpdate,
            0x50 => Self::Confirm,
            0x60 => Self::Lock,
            _ => Self::Inplace,
        }
    }

    /// The name that pg_waldump prints.
    pub fn name(info: u8) -> Option<&'static str> {
        let init = info & INIT_PAGE != 0;
        Some(match (Self::from_info(info), init) {
            (Self::Insert, false) => "INSERT",
            (Self::Insert, true) => "INSERT+INIT",
            (Self::Delete, false) => "DELETE",
            (Self::Update, false) => "UPDATE",
            (Self::Update, true) => "UPDATE+INIT",
            (Self::HotUpdate, false) => "HOT_UPDATE",
            (Self::HotUpdate, true) => "HOT_UPDATE+INIT",
            (Self::Truncate, false) => "TRUNCATE",
            (Self::Confirm, false) => "HEAP_CONFIRM",
            (Self::Lock, false) => "LOCK",
            (Self::Inplace, false) => "INPLACE",
            (Self::Delete | Self::Truncate | Self::Confirm | Self::Lock | Self::Inplace, true) => {
                return None;
            }
        })
    }
}

/// `flags` of [`HeapInsert`] and of [`super::heap2::HeapMultiInsert`].
pub mod insert_flags {
    /// The page's all-visible bit was cleared.
    pub const ALL_VISIBLE_CLEARED: u8 = 1 << 0;
    /// Last record of a multi-insert command.
    pub const LAST_IN_MULTI: u8 = 1 << 1;
    /// Speculative insertion.
    pub const IS_SPECULATIVE: u8 = 1 << 2;
    /// The tuple is in the record even with an image.
    pub const CONTAINS_NEW_TUPLE: u8 = 1 << 3;
    /// The relation is a TOAST table.
    pub const ON_TOAST_RELATION: u8 = 1 << 4;
    /// The page became all-frozen.
    pub const ALL_FROZEN_SET: u8 = 1 << 5;
}

/// `flags` of [`HeapUpdate`].
pub mod update_flags {
    /// The old page's all-visible bit was cleared.
    pub const OLD_ALL_VISIBLE_CLEARED: u8 = 1 << 0;
    /// The new page's all-visible bit was cleared.
    pub const NEW_ALL_VISIBLE_CLEARED: u8 = 1 << 1;
    /// The old tuple follows (logical replication).
    pub const CONTAINS_OLD_TUPLE: u8 = 1 << 2;
    /// The old key follows (logical replication).
    pub const CONTAINS_OLD_KEY: u8 = 1 << 3;
    /// The whole new tuple is in the record.
    pub const CONTAINS_NEW_TUPLE: u8 = 1 << 4;
    /// A prefix is to be taken from the old tuple; its length (`u16`) leads block 0's data.
    pub const PREFIX_FROM_OLD: u8 = 1 << 5;
    /// A suffix is to be taken from the old tuple; its length (`u16`) leads block 0's data (behind the prefix's).
    pub const SUFFIX_FROM_OLD: u8 = 1 << 6;
}

/// `flags` of [`HeapDelete`].
pub mod delete_flags {
    /// The page's all-visible bit was cleared.
    pub const ALL_VISIBLE_CLEARED: u8 = 1 << 0;
    /// The old tuple follows (logical replication).
    pub const CONTAINS_OLD_TUPLE: u8 = 1 << 1;
    /// The old key follows (logical replication).
    pub const CONTAINS_OLD_KEY: u8 = 1 << 2;
    /// A speculative insertion is taken back.
    pub const IS_SUPER: u8 = 1 << 3;
    /// The row moved to another partition.
    pub const IS_PARTITION_MOVE: u8 = 1 << 4;
}

/// `infobits_set`: the part of a tuple's infomasks that a lock, delete or update sets.
pub mod infobits {
    /// xmax is a multixact.
    pub const XMAX_IS_MULTI: u8 = 0x01;
    /// xmax only locks.
    pub const XMAX_LOCK_ONLY: u8 = 0x02;
    /// xmax is an exclusive locker.
    pub const XMAX_EXCL_LOCK: u8 = 0x04;
    /// xmax is a key-share locker.
    pub const XMAX_KEYSHR_LOCK: u8 = 0x08;
    /// Key columns were updated, or the tuple deleted.
    pub const KEYS_UPDATED: u8 = 0x10;
}

/// `flags` of [`HeapLock`]: the all-frozen bit of the visibility map was cleared.
pub const LOCK_ALL_FROZEN_CLEARED: u8 = 0x01;

pub(super) fn describe_infobits(bits: u8, out: &mut String) {
    for (bit, name) in [
        (infobits::XMAX_IS_MULTI, "IS_MULTI "),
        (infobits::XMAX_LOCK_ONLY, "LOCK_ONLY "),
        (infobits::XMAX_EXCL_LOCK, "EXCL_LOCK "),
        (infobits::XMAX_KEYSHR_LOCK, "KEYSHR_LOCK "),
        (infobits::KEYS_UPDATED, "KEYS_UPDATED "),
    ] {
        if bits & bit != 0 {
            out.push_str(name);
        }
    }
}

layout! {
    /// A new tuple at `offnum` of block 0.
    pub struct HeapInsert: 3 {
        /// Its offset number.
        pub offnum: u16 = 0,
        /// [`insert_flags`].
        pub flags: u8 = 2,
    }
}

layout! {
    /// The variable part of a tuple header that a record must carry; the tuple's bytes behind the 23-byte header follow.
    pub struct HeapHeader: 5 {
        /// `t_infomask2`.
        pub infomask2: u16 = 0,
        /// `t_infomask`.
        pub infomask: u16 = 2,
        /// `t_hoff`.
        pub hoff: u8 = 4,
    }
}

layout! {
    /// A tuple of block 0 was deleted.
    pub struct HeapDelete: 8 {
        /// xmax, low 32 bits.
        pub xmax: u32 = 0,
        /// The tuple's offset number.
        pub offnum: u16 = 4,
        /// [`infobits`].
        pub infobits_set: u8 = 6,
        /// [`delete_flags`].
        pub flags: u8 = 7,
    }
}

layout! {
    /// A tuple was replaced: old version in block 1 (or in block 0 when there is no block 1), new version in block 0.
    pub struct HeapUpdate: 14 {
        /// xmax of the old tuple.
        pub old_xmax: u32 = 0,
        /// Its offset number.
        pub old_offnum: u16 = 4,
        /// [`infobits`] of the old tuple.
        pub old_infobits_set: u8 = 6,
        /// [`update_flags`].
        pub flags: u8 = 7,
        /// xmax of the new tuple (0, or a locker carried over).
        pub new_xmax: u32 = 8,
        /// Offset number of the new tuple.
        pub new_offnum: u16 = 12,
    }
}

layout! {
    /// A tuple of block 0 was locked.
    pub struct HeapLock: 8 {
        /// The locking xid.
        pub locking_xid: u32 = 0,
        /// The tuple's offset number.
        pub offnum: u16 = 4,
        /// [`infobits`].
        pub infobits_set: u8 = 6,
        /// [`LOCK_ALL_FROZEN_CLEARED`].
        pub flags: u8 = 7,
    }
}

layout! {
    /// A speculative insertion is confirmed.
    pub struct HeapConfirm: 2 {
        /// The tuple's offset number.
        pub offnum: u16 = 0,
    }
}

layout! {
    /// A tuple's data was overwritten in place with block 0's data.
    pub struct HeapInplace: 2 {
        /// The tuple's offset number.
        pub offnum: u16 = 0,
    }
}

impl HeapInsert {
    /// pg_waldump's text.
    pub fn describe(&self, out: &mut String) {
        let _ = write!(out, "off {} flags 0x{:02X}", self.offnum, self.flags);
    }
}

impl HeapDelete {
    /// pg_waldump's text.
    pub fn describe(&self, out: &mut String) {
        let _ = write!(out, "off {} flags 0x{:02X} ", self.offnum, self.flags);
        describe_infobits(self.infobits_set, out);
    }
}

impl HeapUpdate {
    /// pg_waldump's text.
    pub fn describe(&self, out: &mut String) {
        let _ = write!(
            out,
            "off {} xmax {} flags 0x{:02X} ",
            self.old_offnum, self.old_xmax, self.flags
        );
        describe_infobits(self.old_infobits_set, out);
        let _ = write!(out, "; new off {} xmax {}", self.new_offnum, self.new_xmax);
    }
}

impl HeapLock {
    /// pg_waldump's text.
    pub fn describe(&self, out: &mut String) {
        let _ = write!(
            out,
            "off {}: xid {}: flags 0x{:02X} ",
            self.offnum, self.locking_xid, self.flags
        );
        describe_infobits(self.infobits_set, out);
    }
}

impl HeapConfirm {
    /// pg_waldump's text.
    pub fn describe(&self, out: &mut String) {
        let _ = write!(out, "off {}", self.offnum);
    }
}

impl HeapInplace {
    /// pg_waldump's text.
    pub fn describe(&self, out: &mut String) {
        let _ = write!(out, "off {}", self.offnum);
    }
}

/// pg_waldump's text for a logical truncation: flags, then the relations.
pub(super) fn describe_truncate(main: &[u8], out: &mut String) -> Result<(), super::PayloadError> {
    use super::layout::field_at;
    let (count, flags): (u32, u8) = (field_at(main, 4)?, field_at(main, 8)?);
    if flags & 1 != 0 {
        out.push_str("cascade ");
    }
    if flags & 2 != 0 {
        out.push_str("restart_seqs ");
    }
    let _ = write!(out, "nrelids {count} relids");
    for relation in main
        .get(12..)
        .unwrap_or_default()
        .chunks_exact(4)
        .take(count as usize)
    {
        let _ = write!(out, " {}", field_at::<u32>(relation, 0)?);
    }
    Ok(())
}
