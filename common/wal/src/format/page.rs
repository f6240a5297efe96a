//! WAL page headers: 24 bytes on every page, 40 on a segment's first.

use std::fmt;

use towline_base::{Lsn, SystemId, TimelineNumber};

use super::{SegmentSize, WAL_PAGE};

/// PostgreSQL 15's `XLOG_PAGE_MAGIC`.
pub const PAGE_MAGIC: u16 = 0xD110;
/// Bytes of the short header.
pub const SHORT_HEADER: usize = 24;
/// Bytes of the long header on a segment's first page.
pub const LONG_HEADER: usize = 40;

/// Bits of `xlp_info`.
pub mod page_flags {
    /// The page begins with the rest of a record.
    pub const FIRST_IS_CONTRECORD: u16 = 0x0001;
    /// The header is the long one.
    pub const LONG_HEADER: u16 = 0x0002;
    /// Images may be removed; not used.
    pub const BKP_REMOVABLE: u16 = 0x0004;
    /// The continuation that belongs here was given up; an OVERWRITE_CONTRECORD record follows.
    pub const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;
    /// All that are defined.
    pub const ALL: u16 = 0x000F;
}

/// A page header as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// [`page_flags`].
    pub flags: u16,
    /// Timeline of the first record on the page (its parent's on pages copied at a fork).
    pub timeline: TimelineNumber,
    /// Position of the page.
    pub address: Lsn,
    /// Bytes of a continued record that are still to come, this page's included.
    pub remaining: u32,
    /// The long part, on a segment's first page.
    pub long: Option<(SystemId, SegmentSize)>,
}

/// Why a page header is not acceptable at its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageError {
    /// All of the header is zero: never written.
    Zero,
    /// The magic number is another.
    BadMagic(u16),
    /// Undefined bits in the flags, or a long header where a short one belongs, or the reverse.
    BadFlags(u16),
    /// The page belongs to another position: a recycled segment.
    BadAddress {
        /// What the header says.
        found: Lsn,
        /// Where it was read.
        expected: Lsn,
    },
    /// The long header names another cluster, segment size or page size.
    ForeignSegment,
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => f.write_str("page was never written"),
            Self::BadMagic(magic) => write!(f, "invalid magic number {magic:04X}"),
            Self::BadFlags(flags) => write!(f, "invalid info bits {flags:04X}"),
            Self::BadAddress { found, expected } => {
                write!(f, "unexpected page address {found} at {expected}")
            }
            Self::ForeignSegment => f.write_str("segment of another cluster or segment size"),
        }
    }
}

impl PageHeader {
    /// Bytes that this header takes.
    pub fn size(&self) -> usize {
        if self.flags & page_flags::LONG_HEADER != 0 {
            LONG_HEADER
        } else {
            SHORT_HEADER
        }
    }

    /// Bytes that the header of the page at `address` takes.
    pub const fn size_at(address: Lsn, segment: SegmentSize) -> usize {
        if segment.offset(address.page_start()) == 0 {
            LONG_HEADER
        } else {
            SHORT_HEADER
        }
    }

    /// The stored form; `size()` bytes of it count.
    pub fn to_bytes(&self) -> [u8; LONG_HEADER] {
        let mut out = [0u8; LONG_HEADER];
        out[0..2].copy_from_slice(&PAGE_MAGIC.to_le_bytes());
        out[2..4].copy_from_slice(&self.flags.to_le_bytes());
        out[4..8].copy_from_slice(&self.timeline.0.to_le_bytes());
        out[8..16].copy_from_slice(&self.address.0.to_le_bytes());
        out[16..20].copy_from_slice(&self.remaining.to_le_bytes());
        if let Some((system, segment)) = self.long {
            out[24..32].copy_from_slice(&system.0.to_le_bytes());
            out[32..36].copy_from_slice(&(segment.bytes() as u32).to_le_bytes());
            out[36..40].copy_from_slice(&(WAL_PAGE as u32).to_le_bytes());
        }
        out
    }

    /// Decodes and checks the header of the page at `address`. `system`, when known, must match the long header's.
    /// `bytes` needs [`LONG_HEADER`] bytes; fewer are taken as never written.
    pub fn decode(
        bytes: &[u8],
        address: Lsn,
        segment: SegmentSize,
        system: Option<SystemId>,
    ) -> Result<Self, PageError> {
        let Some(bytes) = bytes.first_chunk::<LONG_HEADER>() else {
            return Err(PageError::Zero);
        };
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;

        let (magic, flags) = (u16_at(0), u16_at(2));
        if magic == 0 && bytes[..SHORT_HEADER].iter().all(|byte| *byte == 0) {
            return Err(PageError::Zero);
        }
        if magic != PAGE_MAGIC {
            return Err(PageError::BadMagic(magic));
        }
        let long_expected = segment.offset(address) == 0;
        if flags & !page_flags::ALL != 0 || (flags & page_flags::LONG_HEADER != 0) != long_expected {
            return Err(PageError::BadFlags(flags));
        }
        let mut long = None;
        if long_expected {
            let found = SystemId(u64_at(24));
            let same_size = u64::from(u32_at(32)) == segment.bytes() && u32_at(36) as usize == WAL_PAGE;
            if !same_size || system.is_some_and(|system| system != found) {
                return Err(PageError::ForeignSegment);
            }
            long = Some((found, segment));
        }
        let found = Lsn(u64_at(8));
        if found != address {
            return Err(PageError::BadAddress {
                found,
                expected: address,
            });
        }
        Ok(Self {
            flags,
            timeline: TimelineNumber(u32_at(4)),
            address,
            remaining: u32_at(16),
            long,
        })
    }
}
