//! Segment sizes, numbers and names: 24 hexadecimal digits, timeline then position.

use std::fmt;

use towline_base::limits::{MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES};
use towline_base::{Lsn, TimelineNumber};

/// A valid segment size: a power of two from 1 MB to 1 GB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// 16 MB.
    pub const DEFAULT: SegmentSize = SegmentSize(16 * 1024 * 1024);

    /// Checks a size in bytes.
    pub fn new(bytes: u64) -> Option<Self> {
        let valid = bytes.is_power_of_two() && (MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&bytes);
        valid.then_some(Self(bytes as u32))
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// Segments in the 4 GB that share the middle eight digits of a name.
    pub const fn per_id(self) -> u64 {
        (1 << 32) / self.bytes()
    }

    /// The segment that holds this position.
    pub const fn segment_of(self, lsn: Lsn) -> SegmentNumber {
        SegmentNumber(lsn.0 / self.bytes())
    }

    /// The segment that holds the byte before this position: where a record that ends here has its last byte.
    pub const fn segment_before(self, lsn: Lsn) -> SegmentNumber {
        SegmentNumber(lsn.0.saturating_sub(1) / self.bytes())
    }

    /// Offset of a position in its segment.
    pub const fn offset(self, lsn: Lsn) -> u64 {
        lsn.0 % self.bytes()
    }

    /// First position of a segment.
    pub const fn start(self, segment: SegmentNumber) -> Lsn {
        Lsn(segment.0.saturating_mul(self.bytes()))
    }

    /// First position behind a segment.
    pub const fn end(self, segment: SegmentNumber) -> Lsn {
        Lsn(segment.0.saturating_add(1).saturating_mul(self.bytes()))
    }
}

/// Number of a segment, counted from LSN 0 in units of the segment size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// The following segment.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The name of a segment's file.
pub fn segment_name(timeline: TimelineNumber, segment: SegmentNumber, size: SegmentSize) -> String {
    let per_id = size.per_id();
    format!(
        "{:08X}{:08X}{:08X}",
        timeline.0,
        segment.0 / per_id,
        segment.0 % per_id
    )
}

/// Whether a file name has the form of a segment's.
pub fn is_segment_name(name: &str) -> bool {
    name.len() == 24 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
}

/// The timeline and segment of a file name; `None` when it is not a segment's of this size.
pub fn parse_segment_name(name: &str, size: SegmentSize) -> Option<(TimelineNumber, SegmentNumber)> {
    if !is_segment_name(name) {
        return None;
    }
    let field = |at: usize| u32::from_str_radix(&name[at..at + 8], 16).ok();
    let (timeline, id, low) = (field(0)?, field(8)?, field(16)?);
    (u64::from(low) < size.per_id()).then(|| {
        (
            TimelineNumber(timeline),
            SegmentNumber(u64::from(id) * size.per_id() + u64::from(low)),
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_postgresqls() {
        let size = SegmentSize::DEFAULT;
        let name = segment_name(TimelineNumber(1), SegmentNumber(0x1FF), size);
        assert_eq!(name, "0000000100000001000000FF");
        assert_eq!(
            parse_segment_name(&name, size),
            Some((TimelineNumber(1), SegmentNumber(0x1FF)))
        );
        let small = SegmentSize::new(1 << 20).unwrap();
        assert_eq!(
            segment_name(TimelineNumber(0xA), SegmentNumber(0x1001), small),
            "0000000A0000000100000001"
        );
        // 0x1FF is above what a name's last part may hold with 16 MB segments.
        assert_eq!(parse_segment_name("0000000100000000000001FF", size), None);
        assert_eq!(parse_segment_name("00000001000000000000000f", size), None);
        assert_eq!(parse_segment_name("00000001.history", size), None);
    }

    #[test]
    fn sizes_are_powers_of_two_in_range() {
        assert!(SegmentSize::new(1 << 19).is_none());
        assert!(SegmentSize::new(3 << 20).is_none());
        assert!(SegmentSize::new(1 << 31).is_none());
        assert_eq!(SegmentSize::new(1 << 30).unwrap().per_id(), 4);
    }
}
