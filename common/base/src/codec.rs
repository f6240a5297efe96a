//! Bounded little-endian [`Reader`] and [`Writer`] for files and messages of our own formats.
//!
//! A `Reader` never panics and never reads past its slice, whatever the bytes: short input is
//! [`CodecError`]. It borrows; nothing here allocates by a length read from the input.

use std::fmt;

/// The input ended early, held too much, or held a value outside its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodecError {
    /// Fewer bytes than the format needs; at this offset.
    Truncated(usize),
    /// Bytes left over after the last field; their count.
    Trailing(usize),
    /// A value outside its range; what it was.
    Invalid(&'static str),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::Truncated(at) => write!(f, "data ends early at offset {at}"),
            CodecError::Trailing(count) => write!(f, "{count} bytes too many"),
            CodecError::Invalid(what) => write!(f, "invalid {what}"),
        }
    }
}

impl std::error::Error for CodecError {}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Result of decoding.
pub type CodecResult<T> = Result<T, CodecError>;

/// Reads fixed-size little-endian fields from a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

macro_rules! read_number {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(&mut self) -> CodecResult<$type> {
            Ok(<$type>::from_le_bytes(self.array()?))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Starts at the slice's first byte.
    pub const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// Bytes not read yet.
    pub const fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Offset of the next byte.
    pub const fn position(&self) -> usize {
        self.at
    }

    /// True when all is read.
    pub const fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> CodecResult<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or(CodecError::Truncated(self.at))?;
        let taken = self
            .bytes
            .get(self.at..end)
            .ok_or(CodecError::Truncated(self.at))?;
        self.at = end;
        Ok(taken)
    }

    /// Everything not read yet.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        self.at = self.bytes.len();
        rest
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> CodecResult<[u8; N]> {
        let taken = self.bytes(N)?;
        taken.try_into().map_err(|_| CodecError::Truncated(self.at))
    }

    read_number! {
        /// One byte.
        u8: u8,
        /// Two bytes.
        u16: u16,
        /// Four bytes.
        u32: u32,
        /// Eight bytes.
        u64: u64,
        /// Two bytes, signed.
        i16: i16,
        /// Four bytes, signed.
        i32: i32,
        /// Eight bytes, signed.
        i64: i64,
        /// Eight bytes, IEEE 754.
        f64: f64,
    }

    /// A log position.
    pub fn lsn(&mut self) -> CodecResult<crate::Lsn> {
        self.u64().map(crate::Lsn)
    }

    /// A byte that must be 0 or 1.
    pub fn bool(&mut self) -> CodecResult<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Invalid("boolean")),
        }
    }

    /// A string with a 16-bit length before it, at most `max` bytes.
    pub fn short_str(&mut self, max: usize) -> CodecResult<&'a str> {
        let length = usize::from(self.u16()?);
        if length > max {
            return Err(CodecError::Invalid("string length"));
        }
        std::str::from_utf8(self.bytes(length)?).map_err(|_| CodecError::Invalid("UTF-8"))
    }

    /// Skips bytes.
    pub fn skip(&mut self, count: usize) -> CodecResult<()> {
        self.bytes(count).map(|_| ())
    }

    /// Skips to the next multiple of `alignment` (a power of two), counted from the slice's start.
    pub fn align(&mut self, alignment: usize) -> CodecResult<()> {
        let over = self.at % alignment.max(1);
        if over == 0 {
            Ok(())
        } else {
            self.skip(alignment - over)
        }
    }

    /// Fails unless all is read.
    pub fn finish(self) -> CodecResult<()> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(CodecError::Trailing(left)),
        }
    }
}

/// Appends little-endian fields to a buffer that the caller owns and reuses.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

macro_rules! write_number {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(&mut self, value: $type) -> &mut Self {
            self.bytes(&value.to_le_bytes())
        }
    )*};
}

impl<'a> Writer<'a> {
    /// Appends behind what the buffer holds.
    pub fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { out }
    }

    /// Raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    write_number! {
        /// One byte.
        u8: u8,
        /// Two bytes.
        u16: u16,
        /// Four bytes.
        u32: u32,
        /// Eight bytes.
        u64: u64,
        /// Two bytes, signed.
        i16: i16,
        /// Four bytes, signed.
        i32: i32,
        /// Eight bytes, signed.
        i64: i64,
        /// Eight bytes, IEEE 754.
        f64: f64,
    }

    /// A log position.
    pub fn lsn(&mut self, lsn: crate::Lsn) -> &mut Self {
        self.u64(lsn.0)
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// A string with a 16-bit length before it. Longer than 65,535 bytes is a programming error.
    pub fn short_str(&mut self, text: &str) -> &mut Self {
        let length = u16::try_from(text.len()).expect("short_str holds at most 65535 bytes");
        self.u16(length).bytes(text.as_bytes())
    }

    /// Zeros up to the next multiple of `alignment`, counted from the buffer's start.
    pub fn align(&mut self, alignment: usize) -> &mut Self {
        let length = self.out.len().next_multiple_of(alignment.max(1));
        self.out.resize(length, 0);
        self
    }
}

/// A small file of ours: an 8-byte magic, a version, the body, and the CRC-32C of all that.
pub fn seal(magic: &[u8; 8], version: u32, body: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    seal_into(&mut out, magic, version, body);
    out
}

/// As [`seal`], in place of what `out` holds: for a file that is written often.
pub fn seal_into(out: &mut Vec<u8>, magic: &[u8; 8], version: u32, body: impl FnOnce(&mut Writer<'_>)) {
    out.clear();
    body(Writer::new(out).bytes(magic).u32(version));
    let crc = crc32c::crc32c(out);
    Writer::new(out).u32(crc);
}

/// The body of what [`seal`] made; the caller reads it and calls [`Reader::finish`].
///
/// # Errors
/// When it is cut, its checksum is wrong, or it is another kind of file or another version of it.
pub fn unseal<'a>(bytes: &'a [u8], magic: &[u8; 8], version: u32) -> CodecResult<Reader<'a>> {
    let body = bytes.len().checked_sub(4).ok_or(CodecError::Truncated(0))?;
    let (body, crc) = bytes.split_at(body);
    if Reader::new(crc).u32()? != crc32c::crc32c(body) {
        return Err(CodecError::Invalid("checksum"));
    }
    let mut reader = Reader::new(body);
    if reader.array::<8>()? != *magic {
        return Err(CodecError::Invalid("magic"));
    }
    if reader.u32()? != version {
        return Err(CodecError::Invalid("version"));
    }
    Ok(reader)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_round_trip() {
        let mut buffer = Vec::new();
        Writer::new(&mut buffer)
            .u8(1)
            .align(8)
            .u64(7)
            .lsn(crate::Lsn(9))
            .bool(true)
            .short_str("héllo")
            .i16(-2)
            .f64(1.5);
        let mut reader = Reader::new(&buffer);
        assert_eq!(reader.u8().unwrap(), 1);
        reader.align(8).unwrap();
        assert_eq!(reader.u64().unwrap(), 7);
        assert_eq!(reader.lsn().unwrap(), crate::Lsn(9));
        assert!(reader.bool().unwrap());
        assert_eq!(reader.short_str(10).unwrap(), "héllo");
        assert_eq!(reader.i16().unwrap(), -2);
        assert_eq!(reader.f64().unwrap(), 1.5);
        reader.finish().unwrap();
    }

    #[test]
    fn leftover_bytes_are_an_error() {
        assert_eq!(Reader::new(&[1]).finish(), Err(CodecError::Trailing(1)));
    }

    #[test]
    fn a_sealed_file_is_read_back_and_any_changed_or_missing_byte_is_seen() {
        let sealed = seal(b"TOWLTEST", 3, |body| {
            body.u32(7).short_str("x");
        });
        let mut reader = unseal(&sealed, b"TOWLTEST", 3).unwrap();
        assert_eq!(reader.u32().unwrap(), 7);
        assert_eq!(reader.short_str(8).unwrap(), "x");
        reader.finish().unwrap();
        assert!(unseal(&sealed, b"TOWLTESU", 3).is_err());
        assert!(unseal(&sealed, b"TOWLTEST", 4).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 0x40;
            assert!(unseal(&changed, b"TOWLTEST", 3).is_err(), "byte {at}");
            assert!(unseal(&sealed[..at], b"TOWLTEST", 3).is_err(), "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn no_input_makes_the_reader_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            calls in proptest::collection::vec((0u8..9, any::<usize>()), 0..32),
        ) {
            let mut reader = Reader::new(&bytes);
            for (call, size) in calls {
                let before = reader.position();
                let failed = match call {
                    0 => reader.u8().is_err(),
                    1 => reader.u16().is_err(),
                    2 => reader.u32().is_err(),
                    3 => reader.u64().is_err(),
                    4 => reader.bytes(size).is_err(),
                    5 => reader.short_str(size).is_err(),
                    6 => reader.align(size % 17).is_err(),
                    7 => reader.bool().is_err(),
                    _ => reader.skip(size % 8).is_err(),
                };
                prop_assert!(reader.position() >= before && reader.position() <= bytes.len());
                if failed { break; }
            }
            let left = reader.remaining();
            prop_assert_eq!(reader.rest().len(), left);
        }
    }
}
