//! The 8 KB page: PostgreSQL 15's header, line pointers and free space arithmetic over a plain byte array.
//!
//! Invariant owned here: every accessor is total. A page may come from a damaged disk, so an offset read from the page is
//! checked before it is followed, and a nonsense header yields `None` or a [`PageError`], never a panic or a read outside
//! the page. What stands inside an item or in the special area belongs to the heap and the B-tree.
//!
//! Layout (little-endian), from PostgreSQL's `bufpage.h`:
//!
//! ```text
//!  0 pd_lsn u64 (high half first)   8 pd_checksum u16   10 pd_flags u16
//! 12 pd_lower u16   14 pd_upper u16   16 pd_special u16   18 pd_pagesize_version u16   20 pd_prune_xid u32
//! 24 line pointers, 4 bytes each, growing up to pd_lower; items grow down from pd_special to pd_upper
//! ```

mod checksum;
mod compact;
mod item_id;
mod items;
mod mask;

pub use item_id::{ItemId, ItemState};
pub use items::Placement;

use towline_base::{Lsn, PAGE_SIZE};

use core::fmt;
use core::ops::Range;

/// Bytes of the page header; line pointers begin here.
pub const HEADER_SIZE: usize = 24;
/// Bytes of one line pointer.
pub const ITEM_ID_SIZE: usize = 4;
/// The layout version that PostgreSQL has written since 8.3.
pub const LAYOUT_VERSION: u16 = 4;
/// A 1-based line pointer number.
pub type OffsetNumber = u16;
/// The first line pointer of a page.
pub const FIRST_OFFSET: OffsetNumber = 1;
/// Line pointers that fit when every heap tuple has the smallest size (PostgreSQL's `MaxHeapTuplesPerPage`).
pub const MAX_HEAP_TUPLES: usize = (PAGE_SIZE - HEADER_SIZE) / (24 + ITEM_ID_SIZE);
/// Line pointers that fit a page that holds nothing else: the bound of every loop over them.
pub const MAX_ITEMS: usize = (PAGE_SIZE - HEADER_SIZE) / ITEM_ID_SIZE;

const _: () = assert!(MAX_HEAP_TUPLES == 291);
const _: () = assert!(PAGE_SIZE <= 1 << 15, "line pointers keep offsets in 15 bits");

const FLAG_HAS_FREE_LINES: u16 = 0x0001;
const FLAG_PAGE_FULL: u16 = 0x0002;
const FLAG_ALL_VISIBLE: u16 = 0x0004;
const VALID_FLAGS: u16 = 0x0007;

/// Rounds up to the eight-byte alignment that items keep.
#[inline]
pub const fn max_align(len: usize) -> usize {
    (len + 7) & !7
}

/// Why a page operation was refused. None of them has changed the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageError {
    /// The item, with its line pointer if it needs a new one, does not fit.
    NoSpace,
    /// The line pointer number does not exist, or is in use, or is not in a state that the operation accepts.
    InvalidOffset(OffsetNumber),
    /// The page contradicts itself; the text says where.
    Corrupt(&'static str),
    /// The line pointer points to where no item can stand.
    MisplacedItem(OffsetNumber),
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PageError::NoSpace => f.write_str("not enough free space on the page"),
            PageError::InvalidOffset(offset) => {
                write!(f, "line pointer {offset} is not usable for this operation")
            }
            PageError::Corrupt(what) => write!(f, "corrupted page: {what}"),
            PageError::MisplacedItem(offset) => {
                write!(
                    f,
                    "corrupted page: the item of line pointer {offset} stands outside the item area"
                )
            }
        }
    }
}

impl std::error::Error for PageError {}

/// One page image. It has the size, and no more than the alignment, of its bytes; frames of the pool are aligned to 4 KB.
#[repr(transparent)]
pub struct Page([u8; PAGE_SIZE]);

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page")
            .field("lsn", &self.lsn())
            .field("flags", &self.flags())
            .field("lower", &self.lower())
            .field("upper", &self.upper())
            .field("special", &self.special_offset())
            .finish_non_exhaustive()
    }
}

impl Clone for Page {
    fn clone(&self) -> Page {
        Page(self.0)
    }
}

impl PartialEq for Page {
    fn eq(&self, other: &Page) -> bool {
        self.0[..] == other.0[..]
    }
}

impl Eq for Page {}

impl Default for Page {
    fn default() -> Page {
        Page::zeroed()
    }
}

impl Page {
    /// A page of zero bytes, which is what an allocated, never initialised block holds.
    pub const fn zeroed() -> Page {
        Page([0; PAGE_SIZE])
    }

    /// A page on the heap without a copy through the stack.
    pub fn boxed_zeroed() -> Box<Page> {
        Box::new(Page::zeroed())
    }

    /// Takes over raw bytes as they are.
    pub const fn from_bytes(bytes: [u8; PAGE_SIZE]) -> Page {
        Page(bytes)
    }

    /// The raw bytes.
    #[inline]
    pub const fn as_bytes(&self) -> &[u8; PAGE_SIZE] {
        &self.0
    }

    /// The raw bytes, writable. What is written here must keep the header sane.
    #[inline]
    pub const fn as_bytes_mut(&mut self) -> &mut [u8; PAGE_SIZE] {
        &mut self.0
    }

    /// Formats the page: no items, `special_size` bytes (aligned up) reserved at the end, everything else zero.
    /// `special_size` above the page's room is cut to it.
    pub fn init(&mut self, special_size: usize) {
        let special = PAGE_SIZE - max_align(special_size).min(PAGE_SIZE - HEADER_SIZE);
        self.0.fill(0);
        self.put_u16(12, HEADER_SIZE as u16);
        self.put_u16(14, special as u16);
        self.put_u16(16, special as u16);
        self.put_u16(18, PAGE_SIZE as u16 | LAYOUT_VERSION);
    }

    /// Never initialised (`pd_upper` is zero), PostgreSQL's `PageIsNew`.
    #[inline]
    pub fn is_new(&self) -> bool {
        self.upper() == 0
    }

    /// True when every byte is zero.
    pub fn is_all_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// The header is one that this code can have written. A new page passes only when it is all zero.
    pub fn check_header(&self) -> Result<(), PageError> {
        if self.is_new() {
            return if self.is_all_zero() {
                Ok(())
            } else {
                Err(PageError::Corrupt("no upper bound, but not all zero"))
            };
        }
        let (lower, upper, special) = (self.lower(), self.upper(), self.special_offset());
        if self.flags() & !VALID_FLAGS != 0 {
            return Err(PageError::Corrupt("unknown page flags"));
        }
        if self.size_and_version() != PAGE_SIZE as u16 | LAYOUT_VERSION {
            return Err(PageError::Corrupt("wrong page size or layout version"));
        }
        if lower < HEADER_SIZE || lower > upper || upper > special || special > PAGE_SIZE || special % 8 != 0
        {
            return Err(PageError::Corrupt(
                "lower, upper and special do not follow each other",
            ));
        }
        Ok(())
    }

    /// End of the WAL record that changed the page last ([`Lsn::INVALID`] on a new page).
    #[inline]
    pub fn lsn(&self) -> Lsn {
        Lsn((u64::from(self.u32_at(0)) << 32) | u64::from(self.u32_at(4)))
    }

    /// Sets `pd_lsn`. Only [`crate::LoggedChange`] and redo have a reason to.
    #[inline]
    pub fn set_lsn(&mut self, lsn: Lsn) {
        self.put_u32(0, (lsn.0 >> 32) as u32);
        self.put_u32(4, lsn.0 as u32);
    }

    /// `pd_checksum` as stored.
    #[inline]
    pub fn stored_checksum(&self) -> u16 {
        self.u16_at(8)
    }

    /// Stores `pd_checksum`.
    #[inline]
    pub fn set_stored_checksum(&mut self, checksum: u16) {
        self.put_u16(8, checksum);
    }

    /// `pd_flags`.
    #[inline]
    pub fn flags(&self) -> u16 {
        self.u16_at(10)
    }

    /// End of the line pointers.
    #[inline]
    pub fn lower(&self) -> usize {
        usize::from(self.u16_at(12))
    }

    /// Start of the items.
    #[inline]
    pub fn upper(&self) -> usize {
        usize::from(self.u16_at(14))
    }

    /// Start of the special area (`PAGE_SIZE` when there is none).
    #[inline]
    pub fn special_offset(&self) -> usize {
        usize::from(self.u16_at(16))
    }

    /// `pd_pagesize_version`.
    #[inline]
    pub fn size_and_version(&self) -> u16 {
        self.u16_at(18)
    }

    /// `pd_prune_xid`: the lowest 32 bits of the oldest xid whose deletion pruning may remove, 0 for none.
    #[inline]
    pub fn prune_xid(&self) -> u32 {
        self.u32_at(20)
    }

    /// Sets `pd_prune_xid`.
    #[inline]
    pub fn set_prune_xid(&mut self, low_xid: u32) {
        self.put_u32(20, low_xid);
    }

    /// Hint: there may be unused line pointers to take again.
    #[inline]
    pub fn has_free_lines(&self) -> bool {
        self.flags() & FLAG_HAS_FREE_LINES != 0
    }

    /// Sets or clears the hint of [`Page::has_free_lines`].
    pub fn set_has_free_lines(&mut self, on: bool) {
        self.put_flag(FLAG_HAS_FREE_LINES, on);
    }

    /// Hint: an update did not find room here.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.flags() & FLAG_PAGE_FULL != 0
    }

    /// Sets or clears the hint of [`Page::is_full`].
    pub fn set_full(&mut self, on: bool) {
        self.put_flag(FLAG_PAGE_FULL, on);
    }

    /// Every tuple of the page is visible to everybody (`PD_ALL_VISIBLE`).
    #[inline]
    pub fn is_all_visible(&self) -> bool {
        self.flags() & FLAG_ALL_VISIBLE != 0
    }

    /// Sets or clears `PD_ALL_VISIBLE`; a logged change, as DESIGN §6 asks of it.
    pub fn set_all_visible(&mut self, on: bool) {
        self.put_flag(FLAG_ALL_VISIBLE, on);
    }

    /// The special area; empty when the header is nonsense.
    #[inline]
    pub fn special(&self) -> &[u8] {
        self.0.get(self.special_offset()..).unwrap_or(&[])
    }

    /// The special area, writable; empty when the header is nonsense.
    #[inline]
    pub fn special_mut(&mut self) -> &mut [u8] {
        let special = self.special_offset();
        self.0.get_mut(special..).unwrap_or(&mut [])
    }

    /// The unused bytes between line pointers and items, which images leave out. Empty when the header is nonsense.
    #[inline]
    pub fn hole(&self) -> Range<usize> {
        let (lower, upper) = (self.lower(), self.upper());
        if lower >= HEADER_SIZE && lower < upper && upper <= PAGE_SIZE {
            lower..upper
        } else {
            0..0
        }
    }

    /// Line pointers on the page; 0 on a new or nonsense page.
    #[inline]
    pub fn max_offset(&self) -> OffsetNumber {
        let lower = self.lower();
        if lower <= HEADER_SIZE || lower > PAGE_SIZE {
            0
        } else {
            ((lower - HEADER_SIZE) / ITEM_ID_SIZE) as OffsetNumber
        }
    }

    /// Computes PostgreSQL's page checksum for this content at `block`, ignoring the stored one.
    pub fn checksum(&self, block: u32) -> u16 {
        checksum::page_checksum(&self.0, block)
    }

    /// The checksum agrees with the content. A page of zero bytes has none and passes.
    pub fn verify_checksum(&self, block: u32) -> bool {
        if self.is_new() {
            return self.is_all_zero();
        }
        self.stored_checksum() == self.checksum(block)
    }

    #[inline]
    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    #[inline]
    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    #[inline]
    fn put_u16(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    #[inline]
    fn put_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn put_flag(&mut self, flag: u16, on: bool) {
        let flags = if on {
            self.flags() | flag
        } else {
            self.flags() & !flag
        };
        self.put_u16(10, flags);
    }

    fn set_lower(&mut self, lower: usize) {
        self.put_u16(12, lower as u16);
    }

    fn set_upper(&mut self, upper: usize) {
        self.put_u16(14, upper as u16);
    }
}

#[cfg(test)]
mod tests;
