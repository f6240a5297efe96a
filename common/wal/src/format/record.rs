//! Record header, block references, main data: bounded decoding of one contiguous record.
//!
//! Nothing here trusts its input: a record whose CRC is right but whose structure is not is a [`DecodeError`], never a
//! panic. Assembly of records across pages is the reader's work.

use std::fmt;

use smallvec::SmallVec;
use towline_base::{BlockNumber, ForkKind, Lsn, PAGE_SIZE, PageId, RelFileNode};

use super::image::{BlockImage, image_flags};
use crate::records::layout::Field;
use crate::rmgr::Rmgr;

/// Bytes of the record header.
pub const HEADER_SIZE: usize = 24;
/// Highest block reference id.
pub const MAX_BLOCK_ID: u8 = 32;

/// Ids that stand in a block id's place.
pub mod special_ids {
    /// Main data with a one-byte length.
    pub const DATA_SHORT: u8 = 255;
    /// Main data with a four-byte length.
    pub const DATA_LONG: u8 = 254;
    /// Replication origin.
    pub const ORIGIN: u8 = 253;
    /// Top-level xid of a subtransaction.
    pub const TOPLEVEL_XID: u8 = 252;
}

/// Bits of a block reference's `fork_flags`; the low four are the fork.
pub mod block_flags {
    /// The fork's number.
    pub const FORK_MASK: u8 = 0x0F;
    /// A page image follows.
    pub const HAS_IMAGE: u8 = 0x10;
    /// Data follows.
    pub const HAS_DATA: u8 = 0x20;
    /// Redo initializes the page.
    pub const WILL_INIT: u8 = 0x40;
    /// The relation is the previous reference's.
    pub const SAME_REL: u8 = 0x80;
}

/// Bit of `xl_info`: the record carries page images for `wal_consistency_checking` (PostgreSQL's `XLR_CHECK_CONSISTENCY`).
pub const CHECK_CONSISTENCY: u8 = 0x02;

/// The fixed header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the whole record, header included, padding not.
    pub total_len: u32,
    /// Low half of the transaction's xid, or 0.
    pub xid: u32,
    /// Start of the record before.
    pub prev: Lsn,
    /// High four bits the manager's, low four flags.
    pub info: u8,
    /// Resource manager id.
    pub rmid: u8,
    /// CRC-32C over the payload, then the first 20 bytes of the header.
    pub crc: u32,
}

/// Why a record header is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// The length is below the header's; zero where the log was never written.
    BadLength(u32),
    /// No such resource manager.
    BadRmgr(u8),
    /// The link to the record before is wrong: left over from an older use of the space.
    BadPrev {
        /// What the header says.
        found: Lsn,
        /// What it should say; `None` when only "before this record" is known.
        expected: Option<Lsn>,
    },
}

impl RecordHeader {
    /// Decodes the fields without judging them. `None` when fewer than 24 bytes are there.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_SIZE)?;
        Some(Self {
            total_len: u32::get(bytes)?,
            xid: u32::get(&bytes[4..])?,
            prev: Lsn::get(&bytes[8..])?,
            info: bytes[16],
            rmid: bytes[17],
            crc: u32::get(&bytes[20..])?,
        })
    }

    /// The stored form.
    pub fn to_bytes(&self) -> [u8; HEADER_SIZE] {
        let mut out = [0u8; HEADER_SIZE];
        out[0..4].copy_from_slice(&self.total_len.to_le_bytes());
        out[4..8].copy_from_slice(&self.xid.to_le_bytes());
        out[8..16].copy_from_slice(&self.prev.0.to_le_bytes());
        out[16] = self.info;
        out[17] = self.rmid;
        out[20..24].copy_from_slice(&self.crc.to_le_bytes());
        out
    }

    /// Checks what can be checked before the body is read. `prev` is the expected link; `None` when reading starts here,
    /// where any earlier position will do.
    pub fn check(&self, start: Lsn, prev: Option<Lsn>) -> Result<(), HeaderError> {
        if (self.total_len as usize) < HEADER_SIZE
            || self.total_len as usize > towline_base::limits::MAX_RECORD_BYTES
        {
            return Err(HeaderError::BadLength(self.total_len));
        }
        if !Rmgr::is_valid_id(self.rmid) {
            return Err(HeaderError::BadRmgr(self.rmid));
        }
        match prev {
            Some(expected) if self.prev != expected => Err(HeaderError::BadPrev {
                found: self.prev,
                expected: Some(expected),
            }),
            None if self.prev >= start => Err(HeaderError::BadPrev {
                found: self.prev,
                expected: None,
            }),
            Some(_) | None => Ok(()),
        }
    }
}

/// The CRC that a complete record must carry.
pub fn record_crc(record: &[u8]) -> u32 {
    let (header, payload) = record.split_at(HEADER_SIZE.min(record.len()));
    let crc = crc32c::crc32c(payload);
    crc32c::crc32c_append(crc, &header[..header.len().min(20)])
}

/// Why a record with a right CRC does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The record ends inside a field or a promised length.
    Truncated,
    /// Block references out of order or above 32.
    BadBlockId(u8),
    /// SAME_REL on the first reference.
    NoPreviousRelation,
    /// A fork that does not exist.
    BadFork(u8),
    /// Image lengths, hole and flags contradict each other.
    BadImage,
    /// HAS_DATA and the data length contradict each other.
    BadDataLength,
    /// Bytes left over behind the last fragment.
    TrailingBytes,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("record is shorter than its parts"),
            Self::BadBlockId(id) => write!(f, "invalid block reference id {id}"),
            Self::NoPreviousRelation => f.write_str("first block reference has no relation"),
            Self::BadFork(fork) => write!(f, "invalid fork number {fork}"),
            Self::BadImage => f.write_str("inconsistent page image header"),
            Self::BadDataLength => f.write_str("inconsistent block data length"),
            Self::TrailingBytes => f.write_str("bytes left over behind the record's parts"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// A page that a record refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRef<'a> {
    /// Its id in the record.
    pub id: u8,
    /// The page.
    pub page: PageId,
    /// [`block_flags`], fork bits removed.
    pub flags: u8,
    /// The image, when the record carries one.
    pub image: Option<BlockImage<'a>>,
    /// The manager's data for this page.
    pub data: &'a [u8],
}

impl BlockRef<'_> {
    /// Redo initializes the page from nothing.
    pub fn will_init(&self) -> bool {
        self.flags & block_flags::WILL_INIT != 0
    }

    /// The record holds an image that redo restores.
    pub fn has_apply_image(&self) -> bool {
        self.image.is_some_and(|image| image.apply())
    }
}

/// One decoded record, borrowing its bytes.
#[derive(Debug, Clone)]
pub struct DecodedRecord<'a> {
    /// Where it begins.
    pub start: Lsn,
    /// Where it ends, padding to 8 bytes included; a page boundary stays before the next page's header.
    pub end: Lsn,
    /// The fixed header.
    pub header: RecordHeader,
    /// Block references in the order of the record (ascending ids).
    pub blocks: SmallVec<[BlockRef<'a>; 4]>,
    /// Main data.
    pub main: &'a [u8],
    /// Replication origin.
    pub origin: Option<u16>,
    /// Top-level xid of a subtransaction, low half.
    pub toplevel_xid: Option<u32>,
    /// The whole record as stored in a contiguous piece (header first, padding not included).
    pub bytes: &'a [u8],
    /// Start of an incomplete record that a later writer gave up, passed over by the reader on its way to this one. Only an
    /// OVERWRITE_CONTRECORD record that names it explains that.
    pub overwrote: Option<Lsn>,
}

impl<'a> DecodedRecord<'a> {
    /// The resource manager.
    pub fn rmgr(&self) -> Rmgr {
        Rmgr::from_id(self.header.rmid)
    }

    /// The manager's part of `xl_info` (low four bits cleared).
    pub fn info(&self) -> u8 {
        self.header.info & 0xF0
    }

    /// The reference with this id.
    pub fn block(&self, id: u8) -> Option<&BlockRef<'a>> {
        self.blocks.iter().find(|block| block.id == id)
    }

    /// Bytes of page images in the record, as stored.
    pub fn image_bytes(&self) -> usize {
        self.blocks
            .iter()
            .filter_map(|block| block.image)
            .map(|image| image.bytes.len())
            .sum()
    }
}

/// A forward-only bounded reader over the record's header part.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take<T: Field>(&mut self) -> Result<T, DecodeError> {
        let value = T::get(self.0).ok_or(DecodeError::Truncated)?;
        self.0 = &self.0[T::SIZE..];
        Ok(value)
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }
}

struct ImageHeader {
    length: u16,
    hole_offset: u16,
    hole_length: u16,
    flags: u8,
}

fn decode_image_header(cursor: &mut Cursor<'_>) -> Result<ImageHeader, DecodeError> {
    let (length, hole_offset, flags): (u16, u16, u8) = (cursor.take()?, cursor.take()?, cursor.take()?);
    let page = PAGE_SIZE as u16;
    let has_hole = flags & image_flags::HAS_HOLE != 0;
    let compressed = flags & image_flags::COMPRESSED != 0;
    let hole_length = match (has_hole, compressed) {
        (true, true) => cursor.take()?,
        (true, false) => page.checked_sub(length).ok_or(DecodeError::BadImage)?,
        (false, _) => 0,
    };
    // PostgreSQL's cross-checks: a hole has a place and a size, no hole has neither, and a plain image is a page.
    let hole_ok = if has_hole {
        hole_offset != 0
            && hole_length != 0
            && length != page
            && u32::from(hole_offset) + u32::from(hole_length) <= u32::from(page)
    } else {
        hole_offset == 0
    };
    let length_ok = if compressed {
        length < page
    } else {
        has_hole || length == page
    };
    if hole_ok && length_ok {
        Ok(ImageHeader {
            length,
            hole_offset,
            hole_length,
            flags,
        })
    } else {
        Err(DecodeError::BadImage)
    }
}

/// Decodes a complete, contiguous record whose CRC the caller has checked.
pub fn decode_record(start: Lsn, end: Lsn, bytes: &[u8]) -> Result<DecodedRecord<'_>, DecodeError> {
    let header = RecordHeader::decode(bytes).ok_or(DecodeError::Truncated)?;
    let mut record = DecodedRecord {
        start,
        end,
        header,
        blocks: SmallVec::new(),
        main: &[],
        origin: None,
        toplevel_xid: None,
        bytes,
        overwrote: None,
    };
    let mut cursor = Cursor(
        bytes
            .get(HEADER_SIZE..header.total_len as usize)
            .ok_or(DecodeError::Truncated)?,
    );
    let mut images: SmallVec<[Option<ImageHeader>; 4]> = SmallVec::new();
    let mut data_lengths: SmallVec<[u16; 4]> = SmallVec::new();
    let (mut main_len, mut fragments, mut relation) = (0usize, 0usize, None::<RelFileNode>);

    while cursor.0.len() > fragments {
        match cursor.take::<u8>()? {
            special_ids::DATA_SHORT => {
                main_len = usize::from(cursor.take::<u8>()?);
                fragments += main_len;
                break; // by convention the main data's header is the last
            }
            special_ids::DATA_LONG => {
                main_len = cursor.take::<u32>()? as usize;
                fragments += main_len;
                break;
            }
            special_ids::ORIGIN => record.origin = Some(cursor.take()?),
            special_ids::TOPLEVEL_XID => record.toplevel_xid = Some(cursor.take()?),
            id if id <= MAX_BLOCK_ID => {
                if record.blocks.last().is_some_and(|last| last.id >= id) {
                    return Err(DecodeError::BadBlockId(id));
                }
                let fork_flags: u8 = cursor.take()?;
                let data_length: u16 = cursor.take()?;
                if (fork_flags & block_flags::HAS_DATA != 0) != (data_length != 0) {
                    return Err(DecodeError::BadDataLength);
                }
                let image = (fork_flags & block_flags::HAS_IMAGE != 0)
                    .then(|| decode_image_header(&mut cursor))
                    .transpose()?;
                if fork_flags & block_flags::SAME_REL == 0 {
                    relation = Some(cursor.take()?);
                }
                let rel = relation.ok_or(DecodeError::NoPreviousRelation)?;
                let block: BlockNumber = cursor.take()?;
                let fork_number = fork_flags & block_flags::FORK_MASK;
                let fork = ForkKind::from_number(fork_number).ok_or(DecodeError::BadFork(fork_number))?;
                fragments +=
                    usize::from(data_length) + image.as_ref().map_or(0, |image| usize::from(image.length));
                record.blocks.push(BlockRef {
                    id,
                    page: PageId { rel, fork, block },
                    flags: fork_flags & !block_flags::FORK_MASK,
                    image: None,
                    data: &[],
                });
                images.push(image);
                data_lengths.push(data_length);
            }
            id => return Err(DecodeError::BadBlockId(id)),
        }
    }
    if cursor.0.len() != fragments {
        return Err(if cursor.0.len() < fragments {
            DecodeError::Truncated
        } else {
            DecodeError::TrailingBytes
        });
    }
    for ((block, image), data_length) in record.blocks.iter_mut().zip(images).zip(data_lengths) {
        if let Some(image) = image {
            block.image = Some(BlockImage {
                bytes: cursor.bytes(usize::from(image.length))?,
                hole_offset: image.hole_offset,
                hole_length: image.hole_length,
                flags: image.flags,
            });
        }
        block.data = cursor.bytes(usize::from(data_length))?;
    }
    record.main = cursor.bytes(main_len)?;
    Ok(record)
}
