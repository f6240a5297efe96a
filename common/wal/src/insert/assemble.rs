//! Turns a [`RecordBuilder`] and its pages into the pieces of a record: which pages get an image, the headers, the CRC of the
//! payload. Pure: no lock, no position.

use std::ops::Range;

use smallvec::SmallVec;
use towline_base::{Lsn, PAGE_SIZE};

use super::builder::{BlockFlags, PageBytes, RecordBuilder};
use super::images::ImagePolicy;
use crate::format::{CHECK_CONSISTENCY, HEADER_SIZE, block_flags, image_flags, special_ids};
use crate::records::layout::Field;

/// The pieces of a record behind its fixed header, in order, ready to be copied.
pub(crate) struct Assembled<'a> {
    /// Bytes of the whole record, fixed header included, padding not.
    pub(crate) total_len: u32,
    /// CRC-32C of everything behind the fixed header.
    pub(crate) payload_crc: u32,
    /// What `xl_info` gets beside the caller's bits.
    pub(crate) info: u8,
    /// Block headers, images, block data, main data.
    pub(crate) pieces: SmallVec<[&'a [u8]; 12]>,
}

/// A part of the record is longer than its field can say.
pub(crate) struct TooLong;

/// The page LSN in a page's first eight bytes: high half, low half.
pub(crate) fn page_lsn(page: &PageBytes) -> Lsn {
    let half = |at: usize| {
        u64::from(u32::from_le_bytes([
            page[at],
            page[at + 1],
            page[at + 2],
            page[at + 3],
        ]))
    };
    Lsn(half(0) << 32 | half(4))
}

fn needs_image(flags: BlockFlags, page: &PageBytes, threshold: Lsn) -> bool {
    if flags.contains(BlockFlags::FORCE_IMAGE) {
        return true;
    }
    !flags.contains(BlockFlags::NO_IMAGE) && page_lsn(page) <= threshold
}

/// The zero-for-redo middle of a page with PostgreSQL's header: from `pd_lower` to `pd_upper`.
fn hole(flags: BlockFlags, page: &PageBytes) -> (usize, usize) {
    const PAGE_HEADER: usize = 24;
    if flags.contains(BlockFlags::STANDARD) {
        let lower = usize::from(u16::from_le_bytes([page[12], page[13]]));
        let upper = usize::from(u16::from_le_bytes([page[14], page[15]]));
        if lower >= PAGE_HEADER && lower < upper && upper <= PAGE_SIZE {
            return (lower, upper - lower);
        }
    }
    (0, 0)
}

/// Where the bytes of a page's image are.
enum Image {
    None,
    /// In the page, around a hole of this offset and length.
    Plain(usize, usize),
    /// In the builder's buffer.
    Compressed(Range<usize>),
}

/// Appends the header of a page's image, compressing it first when the policy says so.
fn image_header(
    policy: ImagePolicy,
    part: BlockFlags,
    page: &PageBytes,
    apply: bool,
    header: &mut Vec<u8>,
    compressed: &mut Vec<u8>,
) -> Image {
    let (hole_offset, hole_length) = hole(part, page);
    let begin = compressed.len();
    let shrunk = policy
        .compression
        .compress(page, hole_offset, hole_length, compressed);
    let mut flags = if apply { image_flags::APPLY } else { 0 };
    if hole_length > 0 {
        flags |= image_flags::HAS_HOLE;
    }
    if shrunk.is_some() {
        flags |= policy.compression.flag();
    }
    let length = shrunk.unwrap_or(PAGE_SIZE - hole_length);
    header.extend_from_slice(&(length as u16).to_le_bytes());
    header.extend_from_slice(&(hole_offset as u16).to_le_bytes());
    header.push(flags);
    match shrunk {
        Some(length) => {
            if hole_length > 0 {
                header.extend_from_slice(&(hole_length as u16).to_le_bytes());
            }
            Image::Compressed(begin..begin + length)
        }
        None => Image::Plain(hole_offset, hole_length),
    }
}

/// Writes the header part into the builder's buffer and lists the pieces. A page that needs no image for redo gets one when
/// the policy has the record checked; the block's data stays then.
///
/// # Panics
/// When the number of pages is not the number of blocks: the caller is wrong.
pub(crate) fn assemble<'a>(
    record: &'a mut RecordBuilder,
    pages: &[&'a PageBytes],
    threshold: Lsn,
    policy: ImagePolicy,
) -> Result<Assembled<'a>, TooLong> {
    assert_eq!(
        pages.len(),
        record.block_count(),
        "one page for each block of a record"
    );
    let mut header = std::mem::take(&mut record.header);
    header.clear();
    let mut compressed = std::mem::take(&mut record.compressed);
    compressed.clear();
    let checked = policy.checked.contains(record.rmgr);
    let mut info = 0;
    let mut images: SmallVec<[(Image, bool); 4]> = SmallVec::new();
    let mut previous = None;
    let mut result = Ok(());
    for (part, page) in record.blocks().iter().zip(pages) {
        let apply = needs_image(part.flags, page, threshold);
        let image = apply || checked;
        let keep_data = !apply || part.flags.contains(BlockFlags::KEEP_DATA);
        let data_len = if keep_data { part.data.len() } else { 0 };
        let Ok(data_len) = u16::try_from(data_len) else {
            result = Err(TooLong);
            break;
        };
        let same_rel = previous == Some(part.page.rel);
        previous = Some(part.page.rel);
        let mut fork_flags = part.page.fork as u8;
        for (present, bit) in [
            (image, block_flags::HAS_IMAGE),
            (data_len > 0, block_flags::HAS_DATA),
            (part.flags.contains(BlockFlags::WILL_INIT), block_flags::WILL_INIT),
            (same_rel, block_flags::SAME_REL),
        ] {
            if present {
                fork_flags |= bit;
            }
        }
        header.extend_from_slice(&[part.id, fork_flags]);
        header.extend_from_slice(&data_len.to_le_bytes());
        let stored = if image {
            if !apply {
                info = CHECK_CONSISTENCY;
            }
            image_header(policy, part.flags, page, apply, &mut header, &mut compressed)
        } else {
            Image::None
        };
        if !same_rel {
            let mut rel = [0u8; 12];
            part.page.rel.put(&mut rel);
            header.extend_from_slice(&rel);
        }
        header.extend_from_slice(&part.page.block.to_le_bytes());
        images.push((stored, keep_data));
    }
    match u8::try_from(record.main.len()) {
        Ok(0) => {}
        Ok(length) => header.extend_from_slice(&[special_ids::DATA_SHORT, length]),
        Err(_) => {
            let Ok(length) = u32::try_from(record.main.len()) else {
                return Err(TooLong);
            };
            header.push(special_ids::DATA_LONG);
            header.extend_from_slice(&length.to_le_bytes());
        }
    }
    record.header = header;
    record.compressed = compressed;
    result?;

    let record = &*record;
    let mut pieces: SmallVec<[&[u8]; 12]> = SmallVec::new();
    pieces.push(&record.header);
    for ((part, page), (image, keep_data)) in record.blocks().iter().zip(pages).zip(images) {
        let page: &'a [u8] = &page[..];
        match image {
            Image::None => {}
            Image::Plain(_, 0) => pieces.push(page),
            Image::Plain(hole_offset, hole_length) => {
                pieces.push(&page[..hole_offset]);
                pieces.push(&page[hole_offset + hole_length..]);
            }
            Image::Compressed(range) => pieces.push(&record.compressed[range]),
        }
        if keep_data && !part.data.is_empty() {
            pieces.push(&part.data);
        }
    }
    if !record.main.is_empty() {
        pieces.push(&record.main);
    }
    let mut payload_crc = 0;
    let mut total = HEADER_SIZE;
    for piece in &pieces {
        payload_crc = crc32c::crc32c_append(payload_crc, piece);
        total += piece.len();
    }
    let total_len = u32::try_from(total).map_err(|_| TooLong)?;
    Ok(Assembled {
        total_len,
        payload_crc,
        info,
        pieces,
    })
}
