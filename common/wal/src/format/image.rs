//! Page images: PostgreSQL 15's form of a full page in a record, plain or compressed.
//!
//! The hole (the unused middle of a page with PostgreSQL's header) is taken out first; what is left is stored as it is, or as
//! one LZ4 block or one zstd frame when that is shorter. Decoding trusts nothing: the result has a fixed size, memory is bounded
//! by it, and bytes that do not decode to exactly that size are an error that leaves the page as it was.

use std::cell::RefCell;
use std::fmt;

use towline_base::PAGE_SIZE;

/// Bits of an image's `bimg_info`.
pub mod image_flags {
    /// Zero bytes were left out.
    pub const HAS_HOLE: u8 = 0x01;
    /// Redo restores it (otherwise it is for checking only).
    pub const APPLY: u8 = 0x02;
    /// Compressed with pglz.
    pub const COMPRESS_PGLZ: u8 = 0x04;
    /// Compressed with lz4.
    pub const COMPRESS_LZ4: u8 = 0x08;
    /// Compressed with zstd.
    pub const COMPRESS_ZSTD: u8 = 0x10;
    /// Any compression.
    pub const COMPRESSED: u8 = COMPRESS_PGLZ | COMPRESS_LZ4 | COMPRESS_ZSTD;
}

/// `wal_compression`: how images are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    Off,
    /// LZ4 blocks.
    Lz4,
    /// zstd frames of the default level.
    Zstd,
}

impl Compression {
    /// The method of a setting's word; what is no known word is off.
    pub fn from_name(name: &str) -> Self {
        match name {
            "lz4" => Self::Lz4,
            "zstd" => Self::Zstd,
            _ => Self::Off,
        }
    }

    /// The bit in `bimg_info`, 0 for none.
    pub fn flag(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Lz4 => image_flags::COMPRESS_LZ4,
            Self::Zstd => image_flags::COMPRESS_ZSTD,
        }
    }

    /// Appends `page` without its hole, compressed, to `out` and returns how many bytes that took. `None`, with `out` as it was, when
    /// nothing is saved.
    ///
    /// # Panics
    /// When the hole is not inside the page: the caller is wrong.
    pub fn compress(
        self,
        page: &[u8; PAGE_SIZE],
        hole_offset: usize,
        hole_length: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        if self == Self::Off {
            return None;
        }
        let mut joined = [0u8; PAGE_SIZE];
        let source: &[u8] = if hole_length == 0 {
            page
        } else {
            let rest = &page[hole_offset + hole_length..];
            joined[..hole_offset].copy_from_slice(&page[..hole_offset]);
            joined[hole_offset..hole_offset + rest.len()].copy_from_slice(rest);
            &joined[..hole_offset + rest.len()]
        };
        let begin = out.len();
        out.resize(begin + lz4_flex::block::get_maximum_output_size(PAGE_SIZE), 0);
        let written = match self {
            Self::Off => None,
            Self::Lz4 => lz4_flex::block::compress_into(source, &mut out[begin..]).ok(),
            Self::Zstd => zstd_compress(source, &mut out[begin..]),
        };
        // The length of the hole, which a plain image does not need, takes two bytes more.
        let extra = if hole_length == 0 { 0 } else { 2 };
        let length = written.filter(|length| length + extra < source.len());
        out.truncate(begin + length.unwrap_or(0));
        length
    }
}

thread_local! {
    /// Contexts are large to make; both are made at a thread's first use.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

fn zstd_compress(source: &[u8], out: &mut [u8]) -> Option<usize> {
    COMPRESSOR.with_borrow_mut(|compressor| {
        if compressor.is_none() {
            *compressor = zstd::bulk::Compressor::new(zstd::DEFAULT_COMPRESSION_LEVEL).ok();
        }
        compressor.as_mut()?.compress_to_buffer(source, out).ok()
    })
}

fn zstd_decompress(source: &[u8], out: &mut [u8]) -> Option<usize> {
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        if decompressor.is_none() {
            *decompressor = zstd::bulk::Decompressor::new().ok();
        }
        decompressor.as_mut()?.decompress_to_buffer(source, out).ok()
    })
}

/// Why an image cannot be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageError {
    /// Its length and its hole are not a page.
    BadLength,
    /// Compressed with pglz, or with several methods at once.
    Unsupported,
    /// The compressed bytes are damaged: they do not decode to the page without its hole.
    Damaged(&'static str),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadLength => f.write_str("its length and its hole are not a page"),
            Self::Unsupported => {
                f.write_str("it is compressed by a method that is not supported (lz4 and zstd are)")
            }
            Self::Damaged(method) => {
                write!(f, "its {method} data is damaged")
            }
        }
    }
}

impl std::error::Error for ImageError {}

/// A page image in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockImage<'a> {
    /// The stored bytes, hole left out, possibly compressed.
    pub bytes: &'a [u8],
    /// Where the hole begins.
    pub hole_offset: u16,
    /// Its length.
    pub hole_length: u16,
    /// [`image_flags`].
    pub flags: u8,
}

impl BlockImage<'_> {
    /// Whether redo restores it.
    pub fn apply(&self) -> bool {
        self.flags & image_flags::APPLY != 0
    }

    /// The name of the method that it is compressed with.
    pub fn method(&self) -> Option<&'static str> {
        match self.flags & image_flags::COMPRESSED {
            0 => None,
            image_flags::COMPRESS_LZ4 => Some("lz4"),
            image_flags::COMPRESS_ZSTD => Some("zstd"),
            image_flags::COMPRESS_PGLZ => Some("pglz"),
            _ => Some("unknown"),
        }
    }

    /// Writes the whole page. On an error nothing is written.
    pub fn restore(&self, page: &mut [u8; PAGE_SIZE]) -> Result<(), ImageError> {
        let (hole, length) = (usize::from(self.hole_offset), usize::from(self.hole_length));
        let kept = PAGE_SIZE
            .checked_sub(length)
            .filter(|kept| hole <= *kept)
            .ok_or(ImageError::BadLength)?;
        let mut buffer = [0u8; PAGE_SIZE];
        let target = &mut buffer[..kept];
        let source: &[u8] = match self.flags & image_flags::COMPRESSED {
            0 if self.bytes.len() == kept => self.bytes,
            0 => return Err(ImageError::BadLength),
            image_flags::COMPRESS_LZ4 => {
                let written = lz4_flex::block::decompress_into(self.bytes, target).ok();
                (written == Some(kept))
                    .then_some(&*target)
                    .ok_or(ImageError::Damaged("lz4"))?
            }
            image_flags::COMPRESS_ZSTD => {
                let written = zstd_decompress(self.bytes, target);
                (written == Some(kept))
                    .then_some(&*target)
                    .ok_or(ImageError::Damaged("zstd"))?
            }
            _ => return Err(ImageError::Unsupported),
        };
        page[..hole].copy_from_slice(&source[..hole]);
        page[hole..hole + length].fill(0);
        page[hole + length..].copy_from_slice(&source[hole..]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const METHODS: [Compression; 2] = [Compression::Lz4, Compression::Zstd];

    fn page(hole: std::ops::Range<usize>) -> [u8; PAGE_SIZE] {
        let mut page = [0u8; PAGE_SIZE];
        for (at, byte) in page.iter_mut().enumerate() {
            *byte = (at / 40) as u8;
        }
        page[hole].fill(0);
        page
    }

    fn image(bytes: &[u8], hole: (usize, usize), method: Compression) -> BlockImage<'_> {
        BlockImage {
            bytes,
            hole_offset: hole.0 as u16,
            hole_length: hole.1 as u16,
            flags: image_flags::APPLY | method.flag(),
        }
    }

    #[test]
    fn compressed_pages_come_back_with_and_without_a_hole() {
        for method in METHODS {
            for hole in [(0, 0), (40, 8000), (24, PAGE_SIZE - 24), (8191, 1)] {
                let page = page(hole.0..hole.0 + hole.1);
                let mut out = vec![7; 3];
                let Some(length) = method.compress(&page, hole.0, hole.1, &mut out) else {
                    assert_eq!(out, [7; 3]);
                    assert!(PAGE_SIZE - hole.1 < 40, "{method:?} {hole:?}");
                    continue;
                };
                assert_eq!(out.len(), 3 + length);
                let mut restored = [1u8; PAGE_SIZE];
                image(&out[3..], hole, method).restore(&mut restored).unwrap();
                assert!(restored == page, "{method:?} {hole:?}");
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        let mut page = [0u8; PAGE_SIZE];
        let mut state = 1u64;
        for byte in &mut page {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        for method in METHODS {
            let mut out = Vec::new();
            assert_eq!(method.compress(&page, 0, 0, &mut out), None);
            assert!(out.is_empty());
        }
        assert_eq!(
            Compression::Off.compress(&[0; PAGE_SIZE], 0, 0, &mut Vec::new()),
            None
        );
    }

    #[test]
    fn a_damaged_image_is_refused_and_the_page_left_as_it_was() {
        for method in METHODS {
            let hole = (100, 4000);
            let mut out = Vec::new();
            method
                .compress(&page(100..4100), hole.0, hole.1, &mut out)
                .unwrap();
            let mut restored = [9u8; PAGE_SIZE];
            for cut in 0..out.len() {
                let cut = image(&out[..cut], hole, method).restore(&mut restored);
                assert!(matches!(cut, Err(ImageError::Damaged(_))), "{method:?} {cut:?}");
            }
            // A smaller or larger hole than the data was made for.
            for length in [3999, 4001] {
                let other = image(&out, (100, length), method).restore(&mut restored);
                assert!(matches!(other, Err(ImageError::Damaged(_))), "{other:?}");
            }
            let beyond = image(&out, (8000, 1000), method).restore(&mut restored);
            assert_eq!(beyond, Err(ImageError::BadLength));
            let mut foreign = image(&out, hole, method);
            foreign.flags |= image_flags::COMPRESS_PGLZ;
            assert_eq!(foreign.restore(&mut restored), Err(ImageError::Unsupported));
            assert!(restored == [9u8; PAGE_SIZE]);
        }
    }
}
