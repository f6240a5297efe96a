//! The bytes of the log: pages, records, segments. PostgreSQL 15's format, with no I/O.

mod image;
mod page;
mod position;
mod record;
mod segment;

pub use image::{BlockImage, Compression, ImageError, image_flags};
pub use page::{LONG_HEADER, PAGE_MAGIC, PageError, PageHeader, SHORT_HEADER, page_flags};
pub use position::{BytePosition, PositionMap};
pub use record::{
    BlockRef, CHECK_CONSISTENCY, DecodeError, DecodedRecord, HEADER_SIZE, HeaderError, MAX_BLOCK_ID,
    RecordHeader, block_flags, decode_record, record_crc, special_ids,
};
pub use segment::{SegmentNumber, SegmentSize, is_segment_name, parse_segment_name, segment_name};

/// Bytes in a WAL page.
pub const WAL_PAGE: usize = towline_base::lsn::WAL_PAGE_SIZE as usize;
