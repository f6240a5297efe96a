//! Copying a record into the WAL buffers, with page headers in between. Calls the ring's `unsafe` writing, see `ring`.

use towline_base::Lsn;

use super::wal::Wal;
use crate::format::{LONG_HEADER, PageHeader, SHORT_HEADER, WAL_PAGE, page_flags};

/// Copies a record to its place in the ring, with page headers in between.
pub(super) struct Copy<'a> {
    wal: &'a Wal,
    at: Lsn,
    /// Bytes up to the end of the page.
    room: usize,
    /// Bytes of the record not copied yet, padding not included.
    remaining: u32,
}

impl<'a> Copy<'a> {
    pub(super) fn new(wal: &'a Wal, start: Lsn, total_len: u32) -> Self {
        let offset = start.page_offset();
        let copy = Self {
            wal,
            at: start,
            room: WAL_PAGE - offset,
            remaining: total_len,
        };
        // The record that has a page's first usable byte writes the page's header.
        let header = PageHeader::size_at(start, wal.config.segment_size);
        if offset == header {
            copy.page_header(start.page_start(), 0);
        }
        copy
    }

    fn page_header(&self, page: Lsn, remaining: u32) -> usize {
        let segment = self.wal.config.segment_size;
        let long = (segment.offset(page) == 0).then_some((self.wal.config.system, segment));
        let mut flags = 0;
        if long.is_some() {
            flags |= page_flags::LONG_HEADER;
        }
        if remaining > 0 {
            flags |= page_flags::FIRST_IS_CONTRECORD;
        }
        let header = PageHeader {
            flags,
            timeline: self.wal.timeline.number,
            address: page,
            remaining,
            long,
        };
        let size = if long.is_some() { LONG_HEADER } else { SHORT_HEADER };
        // SAFETY: a page header belongs to the reservation that covers the page's first usable byte, which is ours.
        unsafe { self.wal.ring.write(page, &header.to_bytes()[..size]) };
        size
    }

    pub(super) fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.room == 0 {
                let size = self.page_header(self.at, self.remaining);
                self.at = self.at + size as u64;
                self.room = WAL_PAGE - size;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.room));
            // SAFETY: the piece lies in our reservation and in one WAL page.
            unsafe { self.wal.ring.write(self.at, now) };
            self.at = self.at + now.len() as u64;
            self.room -= now.len();
            self.remaining -= now.len() as u32;
            bytes = later;
        }
    }

    /// Zeros up to the next multiple of eight; they share the page of the record's last byte.
    pub(super) fn pad(&mut self, count: usize) {
        debug_assert!(self.remaining == 0 && count <= self.room);
        // SAFETY: the padding is the end of our reservation.
        unsafe { self.wal.ring.write(self.at, &[0u8; 8][..count]) };
    }
}
