//! Usable byte positions: the log without its page headers.
//!
//! Reserving space for a record must be one addition, so the insertion point counts usable bytes only. An LSN is found from
//! it by arithmetic, not by walking pages. (PostgreSQL's `XLogBytePosToRecPtr` does the same.)

use towline_base::Lsn;

use super::{LONG_HEADER, SHORT_HEADER, SegmentSize, WAL_PAGE};

/// A position counted in bytes that records may use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BytePosition(pub u64);

const PER_PAGE: u64 = (WAL_PAGE - SHORT_HEADER) as u64;

/// Converts between LSNs and usable byte positions for one segment size.
#[derive(Clone, Copy, Debug)]
pub struct PositionMap {
    segment: u64,
    usable: u64,
}

impl PositionMap {
    /// For a segment size.
    pub const fn new(segment: SegmentSize) -> Self {
        let pages = segment.bytes() / WAL_PAGE as u64;
        Self {
            segment: segment.bytes(),
            usable: pages * PER_PAGE - (LONG_HEADER - SHORT_HEADER) as u64,
        }
    }

    /// Offset inside a segment of the usable byte `within`, and whether it is the first usable one of its page.
    const fn offset_in_segment(within: u64) -> (u64, bool) {
        const FIRST: u64 = (WAL_PAGE - LONG_HEADER) as u64;
        if within < FIRST {
            (LONG_HEADER as u64 + within, within == 0)
        } else {
            let rest = within - FIRST;
            let in_page = rest % PER_PAGE;
            (
                (1 + rest / PER_PAGE) * WAL_PAGE as u64 + SHORT_HEADER as u64 + in_page,
                in_page == 0,
            )
        }
    }

    /// Where a record that begins at this position begins: behind the page header when it is a page's first byte.
    pub const fn start_lsn(self, position: BytePosition) -> Lsn {
        let (offset, _) = Self::offset_in_segment(position.0 % self.usable);
        Lsn(position.0 / self.usable * self.segment + offset)
    }

    /// Where a record that ends at this position ends: a page boundary stays before the next page's header.
    pub const fn end_lsn(self, position: BytePosition) -> Lsn {
        let (offset, page_first) = Self::offset_in_segment(position.0 % self.usable);
        let offset = if page_first {
            offset - offset % WAL_PAGE as u64
        } else {
            offset
        };
        Lsn(position.0 / self.usable * self.segment + offset)
    }

    /// The usable byte position of an LSN. Inside a page header (or at a page boundary) it is that of the page's first
    /// usable byte.
    pub const fn position(self, lsn: Lsn) -> BytePosition {
        const FIRST: u64 = (WAL_PAGE - LONG_HEADER) as u64;
        let (segment, offset) = (lsn.0 / self.segment, lsn.0 % self.segment);
        let (page, in_page) = (offset / WAL_PAGE as u64, offset % WAL_PAGE as u64);
        let within = if page == 0 {
            in_page.saturating_sub(LONG_HEADER as u64)
        } else {
            FIRST + (page - 1) * PER_PAGE + in_page.saturating_sub(SHORT_HEADER as u64)
        };
        BytePosition(segment * self.usable + within)
    }

    /// The position of the first usable byte of the segment behind the one that holds `position`; itself when it is
    /// already a segment's first.
    pub const fn round_up_to_segment(self, position: BytePosition) -> BytePosition {
        BytePosition(position.0.div_ceil(self.usable) * self.usable)
    }

    /// LSN bytes that `bytes` usable bytes take at most, page headers included, wherever they begin.
    pub const fn worst_case(bytes: u64) -> u64 {
        // Every started page may need a header; a segment's first page needs 16 bytes more.
        let pages = bytes / PER_PAGE + 2;
        bytes + pages * SHORT_HEADER as u64 + (LONG_HEADER - SHORT_HEADER) as u64 * (1 + bytes / (1 << 19))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn map() -> PositionMap {
        PositionMap::new(SegmentSize::new(1 << 20).unwrap())
    }

    #[test]
    fn boundaries_land_behind_or_before_headers() {
        let map = map();
        let first = map.position(Lsn(1 << 20));
        assert_eq!(map.start_lsn(first), Lsn((1 << 20) + 40));
        assert_eq!(map.end_lsn(first), Lsn(1 << 20));
        let second_page = BytePosition(first.0 + 8192 - 40);
        assert_eq!(map.start_lsn(second_page), Lsn((1 << 20) + 8192 + 24));
        assert_eq!(map.end_lsn(second_page), Lsn((1 << 20) + 8192));
        assert_eq!(map.round_up_to_segment(second_page), map.position(Lsn(2 << 20)));
    }

    proptest! {
        #[test]
        fn every_position_maps_back(position in 0u64..1 << 40) {
            let map = map();
            let position = BytePosition(position);
            prop_assert_eq!(map.position(map.start_lsn(position)), position);
            prop_assert_eq!(map.position(map.end_lsn(position)), position);
        }

        #[test]
        fn worst_case_is_never_exceeded(start in 0u64..1 << 32, bytes in 1u64..1 << 21) {
            let map = map();
            let from = map.end_lsn(BytePosition(start)).0;
            let to = map.end_lsn(BytePosition(start + bytes)).0;
            prop_assert!(to - from <= PositionMap::worst_case(bytes));
        }
    }
}
