//! [`Lsn`]: a position in the write-ahead log, the only clock of the system.
//!
//! An LSN counts bytes of the log from its beginning, page and segment headers included. It is
//! meaningful only together with a timeline; where both matter, the pair is passed explicitly.

use std::fmt;
use std::str::FromStr;

/// Bytes in one WAL page; PostgreSQL's `XLOG_BLCKSZ`.
pub const WAL_PAGE_SIZE: u64 = 8192;

/// A byte position in the write-ahead log.
///
/// Displayed as PostgreSQL does, `0/16B3748`: the high and low 32 bits in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    /// No position. A valid log never holds a record here, since page 0 begins with a header.
    pub const INVALID: Lsn = Lsn(0);
    /// Above every position.
    pub const MAX: Lsn = Lsn(u64::MAX);

    /// True unless this is [`Lsn::INVALID`].
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// The position `bytes` later, or `None` past the end of the address space.
    pub fn checked_add(self, bytes: u64) -> Option<Lsn> {
        self.0.checked_add(bytes).map(Lsn)
    }

    /// The position `bytes` earlier, or `None` below zero.
    pub fn checked_sub(self, bytes: u64) -> Option<Lsn> {
        self.0.checked_sub(bytes).map(Lsn)
    }

    /// The position `bytes` later, held at [`Lsn::MAX`].
    pub const fn saturating_add(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }

    /// The position `bytes` earlier, held at zero.
    pub const fn saturating_sub(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_sub(bytes))
    }

    /// Bytes from `earlier` to here; zero when `earlier` is not earlier.
    pub const fn distance_from(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Offset inside its WAL page.
    pub const fn page_offset(self) -> usize {
        (self.0 % WAL_PAGE_SIZE) as usize
    }

    /// First byte of the WAL page that holds this position.
    pub const fn page_start(self) -> Lsn {
        Lsn(self.0 - self.0 % WAL_PAGE_SIZE)
    }

    /// Number of the segment that holds this position.
    pub const fn segment_number(self, segment_size: u64) -> u64 {
        self.0 / segment_size
    }

    /// Offset inside its segment.
    pub const fn segment_offset(self, segment_size: u64) -> u64 {
        self.0 % segment_size
    }

    /// First byte of the segment that holds this position.
    pub const fn segment_start(self, segment_size: u64) -> Lsn {
        Lsn(self.0 - self.0 % segment_size)
    }

    /// Rounded up to the next multiple of eight, where records begin.
    pub const fn align_up(self) -> Lsn {
        Lsn(self.0.saturating_add(7) & !7)
    }
}

impl std::ops::Add<u64> for Lsn {
    type Output = Lsn;
    /// Adds bytes. An overflow (2^64 bytes of log) is a programming error and panics.
    fn add(self, bytes: u64) -> Lsn {
        self.checked_add(bytes).expect("LSN past 2^64")
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not of the form `X/X` with one to eight hexadecimal digits on each side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseLsnError;

impl fmt::Display for ParseLsnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid LSN, expected the form 16/B374D848")
    }
}

impl std::error::Error for ParseLsnError {}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Lsn, ParseLsnError> {
        fn half(text: &str) -> Result<u64, ParseLsnError> {
            let all_hex = text.bytes().all(|b| b.is_ascii_hexdigit());
            if text.is_empty() || text.len() > 8 || !all_hex {
                return Err(ParseLsnError);
            }
            u64::from_str_radix(text, 16).map_err(|_| ParseLsnError)
        }
        let (high, low) = text.split_once('/').ok_or(ParseLsnError)?;
        Ok(Lsn(half(high)? << 32 | half(low)?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn text_form_is_postgresqls() {
        assert_eq!(Lsn(0x16B_3748).to_string(), "0/16B3748");
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        for lsn in [Lsn(0), Lsn(1), Lsn(0xFFFF_FFFF), Lsn::MAX] {
            assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
        }
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in [
            "",
            "/",
            "0",
            "1/",
            "/1",
            "g/1",
            "1/123456789",
            "+1/2",
            "1/2/3",
            " 1/2",
        ] {
            assert_eq!(text.parse::<Lsn>(), Err(ParseLsnError), "{text:?}");
        }
    }

    #[test]
    fn page_and_segment_helpers_agree() {
        let lsn = Lsn(0x0300_2005);
        assert_eq!(lsn.page_start(), Lsn(0x0300_2000));
        assert_eq!(lsn.page_offset(), 5);
        assert_eq!(lsn.segment_number(0x0100_0000), 3);
        assert_eq!(lsn.segment_start(0x0100_0000), Lsn(0x0300_0000));
        assert_eq!(lsn.align_up(), Lsn(0x0300_2008));
        assert_eq!(lsn.distance_from(Lsn(0x0300_2000)), 5);
        assert_eq!(Lsn(1).distance_from(Lsn(2)), 0);
    }
}
