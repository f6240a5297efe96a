//! Reading the log: one reader for recovery, waldump, standbys and walsenders.
//!
//! The reader never believes what it reads: page, length, links, checksum are checked before a record is handed out, and the
//! first thing that does not fit is the end of the log, with its reason. Whether such an end is one that a crash explains, or
//! damage in the middle of a log that goes on, is decided by [`WalReader::look_beyond`] (HAZARDS A13).

mod beyond;
mod bytes;
mod end;
mod find_end;
mod source;

use std::cell::Cell;
use std::io;

use towline_base::Lsn;

use crate::format::{
    DecodedRecord, HEADER_SIZE, HeaderError, PageHeader, RecordHeader, WAL_PAGE, decode_record, page_flags,
    record_crc,
};
use crate::records::xlog::XlogOp;
use crate::rmgr::Rmgr;
use crate::timeline::TimelineHistory;
use source::Page;
pub(crate) use source::Pages;

pub use beyond::{Beyond, Known, MAX_UNSYNCED};
pub use bytes::WalBytes;
pub use end::{EndOfWal, EndReason};
pub use find_end::{LogEnd, find_end};
pub use source::WalSource;

/// The next thing in the log.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly always the large one, and never stored"
)]
pub enum ReadOutcome<'a> {
    /// A record. It borrows the reader's buffer.
    Record(DecodedRecord<'a>),
    /// No further record.
    End(EndOfWal),
}

/// Reads records in order. See the module.
#[derive(Debug)]
pub struct WalReader {
    pages: Pages,
    /// Where the next record is looked for: the end of the last one.
    ///
    /// A cell, like its neighbours: a record is lent together with the decision to go on behind it.
    next: Cell<Lsn>,
    /// Start of the last record, for the next one's link.
    last: Cell<Option<Lsn>>,
    /// What was read behind the end must not be believed the next time.
    stale: Cell<bool>,
    limit: Lsn,
    /// A record that crosses pages is put together here.
    scratch: Vec<u8>,
}

/// A complete record found by `locate`, not decoded yet.
struct Located {
    start: Lsn,
    end: Lsn,
    /// In the chunk (with its page) or in `scratch`.
    place: Place,
    length: usize,
    /// See [`DecodedRecord::overwrote`].
    overwrote: Option<Lsn>,
}

/// A record that a later writer gave up, and the page where that writer went on.
struct GivenUp {
    start: Lsn,
    page: Lsn,
}

enum Place {
    Page(Page, usize),
    Scratch,
}

/// What stopped `locate`: I/O, or the end of the log at a position.
enum Stop {
    Io(io::Error),
    End(EndReason, Lsn),
    /// The same for a whole record: where it begins and ends.
    Damaged(EndReason, Lsn, Lsn),
}

/// The page behind this one. Only damage, or a file named for the last positions there are, leads to the end of the number space.
fn following_page(address: Lsn) -> Result<Lsn, Stop> {
    address
        .checked_add(WAL_PAGE as u64)
        .ok_or(Stop::End(EndReason::MissingSegment, address))
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl WalReader {
    /// A reader whose first record begins at `start`: a record's start, or the end of the record before it.
    pub fn new(source: WalSource, start: Lsn) -> Self {
        Self {
            pages: Pages::new(source),
            next: Cell::new(start),
            last: Cell::new(None),
            stale: Cell::new(false),
            limit: Lsn::MAX,
            scratch: Vec::new(),
        }
    }

    /// Also checks the first record's link to the one before it.
    pub fn expect_previous(&mut self, previous: Lsn) {
        self.last.set(Some(previous));
    }

    /// Reads no record that ends behind `limit`. May be raised while reading: after [`EndReason::Limit`], `next` goes on. What
    /// lies behind the limit is not looked at, so it may be written meanwhile.
    pub fn set_limit(&mut self, limit: Lsn) {
        self.limit = limit;
    }

    /// Follows a longer history from now on (a standby that moves to a new timeline).
    pub fn set_history(&mut self, history: TimelineHistory) {
        self.pages.set_history(history);
    }

    /// The timelines being followed.
    pub fn history(&self) -> &TimelineHistory {
        &self.pages.source().history
    }

    /// End of the last record returned, where the next one is looked for.
    pub fn position(&self) -> Lsn {
        self.next.get()
    }

    /// Start of the last record returned; invalid before the first.
    pub fn last_record(&self) -> Lsn {
        self.last.get().unwrap_or(Lsn::INVALID)
    }

    /// The next record, or the end. `Err` only for failing I/O, never for what the bytes say. After an end it may be called
    /// again: it looks anew.
    #[expect(clippy::should_implement_trait, reason = "it lends")]
    pub fn next(&mut self) -> io::Result<ReadOutcome<'_>> {
        let located = match self.locate() {
            Ok(located) => located,
            Err(Stop::Io(error)) => return Err(error),
            Err(Stop::End(reason, at)) => return Ok(ReadOutcome::End(self.end(reason, at, at))),
            Err(Stop::Damaged(reason, at, to)) => return Ok(ReadOutcome::End(self.end(reason, at, to))),
        };
        let before = (
            self.next.replace(located.end),
            self.last.replace(Some(located.start)),
        );
        Ok(
            match decode_record(located.start, located.end, self.bytes_of(&located)) {
                Ok(mut record) => {
                    record.overwrote = located.overwrote;
                    ReadOutcome::Record(record)
                }
                Err(error) => {
                    self.next.set(before.0);
                    self.last.set(before.1);
                    ReadOutcome::End(self.end(EndReason::BadRecord(error), located.start, located.end))
                }
            },
        )
    }

    fn bytes_of(&self, located: &Located) -> &[u8] {
        match located.place {
            Place::Page(page, offset) => &self.pages.bytes(page)[offset..offset + located.length],
            Place::Scratch => &self.scratch[..located.length],
        }
    }

    fn end(&self, reason: EndReason, found_at: Lsn, reached: Lsn) -> EndOfWal {
        if reason != EndReason::Limit {
            // Somebody may write here later.
            self.stale.set(true);
        }
        let timeline = self
            .history()
            .timeline_at(self.last.get().unwrap_or(self.next.get()))
            .number;
        EndOfWal {
            lsn: self.next.get(),
            last_record: self.last_record(),
            timeline,
            reason,
            found_at,
            reached,
        }
    }

    fn page(&mut self, address: Lsn, limit: Lsn) -> Result<Page, Stop> {
        self.pages
            .page(address, limit)?
            .map_err(|reason| Stop::End(reason, address))
    }

    /// Finds the next complete record with a right checksum.
    fn locate(&mut self) -> Result<Located, Stop> {
        if self.stale.take() {
            self.pages.forget();
        }
        let mut from = self.next.get();
        let mut overwrote = None;
        loop {
            match self.locate_at(from)? {
                Ok(located) => return Ok(Located { overwrote, ..located }),
                // The record here was given up by a later writer, who says so on this page: go on behind it.
                Err(given_up) => {
                    overwrote = Some(given_up.start);
                    from = given_up.page;
                }
            }
        }
    }

    fn locate_at(&mut self, from: Lsn) -> Result<Result<Located, GivenUp>, Stop> {
        let limit = self.limit;
        if from >= limit {
            return Err(Stop::End(EndReason::Limit, from));
        }
        let segment = self.pages.source().segment_size;
        let header_size = PageHeader::size_at(from, segment);
        let page_start = from.page_start();
        let mut start = from;
        if from.page_offset() < header_size {
            start = page_start.saturating_add(header_size as u64);
        }
        // Not even the shortest record ends before the limit: its first bytes may be half written.
        if start.saturating_add(HEADER_SIZE as u64) > limit {
            return Err(Stop::End(EndReason::Limit, from));
        }
        if self.pages.fork() <= start {
            // The timeline of the open file ends before this record. The next one's file may have been made since that was opened.
            self.pages.forget();
        }
        let page = self.page(page_start, limit)?;
        let offset = start.page_offset();
        if offset == header_size && page.header.flags & page_flags::FIRST_IS_CONTRECORD != 0 {
            return Err(Stop::End(
                EndReason::UnexpectedContinuation { expected: false },
                page_start,
            ));
        }
        if self.pages.fork() <= start {
            return Err(Stop::End(EndReason::MissingSegment, start));
        }
        let bytes = self.pages.bytes(page);
        let (first_bytes, on_page) = (&bytes[offset..], WAL_PAGE - offset);
        let length_field = first_bytes
            .first_chunk::<4>()
            .map_or(0, |chunk| u32::from_le_bytes(*chunk));
        let length = length_field as usize;
        if length == 0 {
            return Err(Stop::End(EndReason::ZeroLength, start));
        }
        if !(HEADER_SIZE..=towline_base::limits::MAX_RECORD_BYTES).contains(&length) {
            return Err(Stop::End(EndReason::BadLength(length_field), start));
        }
        if on_page >= HEADER_SIZE {
            self.check_header(first_bytes, start)?;
        }
        if length <= on_page {
            let end = start.saturating_add(length.next_multiple_of(8).min(on_page) as u64);
            let located = Located {
                start,
                end,
                place: Place::Page(page, offset),
                length,
                overwrote: None,
            };
            return self.finish(located).map(Ok);
        }
        // A record that cannot end before the limit is not followed onto pages that may not be written yet.
        if start.saturating_add(length as u64) > limit {
            return Err(Stop::End(EndReason::Limit, start));
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(&self.pages.bytes(page)[offset..]);
        self.locate_continued(start, length)
    }

    /// Collects the rest of a record from the following pages; the first part is in `scratch`.
    fn locate_continued(&mut self, start: Lsn, length: usize) -> Result<Result<Located, GivenUp>, Stop> {
        let segment = self.pages.source().segment_size;
        let mut address = start.page_start();
        loop {
            address = following_page(address)?;
            let header_size = PageHeader::size_at(address, segment);
            if address.saturating_add(header_size as u64) > self.limit {
                return Err(Stop::End(EndReason::Limit, start));
            }
            let page = self.page(address, self.limit)?;
            let flags = page.header.flags;
            if flags & page_flags::FIRST_IS_OVERWRITE_CONTRECORD != 0 {
                return Ok(Err(GivenUp { start, page: address }));
            }
            if flags & page_flags::FIRST_IS_CONTRECORD == 0 {
                return Err(Stop::End(
                    EndReason::UnexpectedContinuation { expected: true },
                    address,
                ));
            }
            let missing = length - self.scratch.len();
            if page.header.remaining as usize != missing {
                let expected = missing as u32;
                let reason = EndReason::BadContinuationLength {
                    found: page.header.remaining,
                    expected,
                };
                return Err(Stop::End(reason, address));
            }
            let had_header = self.scratch.len() >= HEADER_SIZE;
            let here = missing.min(WAL_PAGE - header_size);
            let bytes = self.pages.bytes(page);
            self.scratch
                .extend_from_slice(&bytes[header_size..header_size + here]);
            if !had_header && self.scratch.len() >= HEADER_SIZE {
                let mut header = [0u8; HEADER_SIZE];
                header.copy_from_slice(&self.scratch[..HEADER_SIZE]);
                self.check_header(&header, start)?;
            }
            if self.scratch.len() == length {
                let end = address.saturating_add((header_size + here).next_multiple_of(8) as u64);
                return self
                    .finish(Located {
                        start,
                        end,
                        place: Place::Scratch,
                        length,
                        overwrote: None,
                    })
                    .map(Ok);
            }
        }
    }

    fn check_header(&self, bytes: &[u8], start: Lsn) -> Result<(), Stop> {
        let reason = match RecordHeader::decode(bytes).map(|header| header.check(start, self.last.get())) {
            Some(Ok(())) => return Ok(()),
            Some(Err(HeaderError::BadLength(length))) => EndReason::BadLength(length),
            Some(Err(HeaderError::BadRmgr(id))) => EndReason::BadRmgr(id),
            Some(Err(HeaderError::BadPrev { found, .. })) => EndReason::BadPrev { found },
            None => EndReason::BadLength(0),
        };
        Err(Stop::End(reason, start))
    }

    /// The checks that need the whole record: checksum, limit, fork; and a switch's jump to the next segment.
    fn finish(&self, mut located: Located) -> Result<Located, Stop> {
        let bytes = self.bytes_of(&located);
        let Some(header) = RecordHeader::decode(bytes) else {
            return Err(Stop::End(EndReason::BadLength(0), located.start));
        };
        // The limit comes first: what lies behind it may be half written.
        if located.end > self.limit {
            return Err(Stop::End(EndReason::Limit, located.start));
        }
        if record_crc(bytes) != header.crc {
            return Err(Stop::Damaged(EndReason::BadCrc, located.start, located.end));
        }
        if located.end > self.pages.fork() {
            return Err(Stop::End(
                EndReason::CrossesFork(self.pages.fork()),
                located.start,
            ));
        }
        if header.rmid == Rmgr::Xlog.id() && header.info & 0xF0 == XlogOp::Switch as u8 {
            let segment = self.pages.source().segment_size;
            located.end = segment.end(segment.segment_before(located.end));
        }
        Ok(located)
    }

    /// The first record that begins at or behind `from`, skipping the end of one that began before. Positions the reader there.
    /// `Ok(Err(…))` when the log ends before.
    pub fn seek_first(&mut self, from: Lsn) -> io::Result<Result<Lsn, EndOfWal>> {
        let segment = self.pages.source().segment_size;
        self.last.set(None);
        self.pages.forget();
        let mut address = from.page_start();
        let mut at = from;
        loop {
            self.next.set(at);
            let page = match self.page(address, self.limit) {
                Ok(page) => page,
                Err(Stop::Io(error)) => return Err(error),
                Err(Stop::End(reason, at) | Stop::Damaged(reason, at, _)) => {
                    return Ok(Err(self.end(reason, at, at)));
                }
            };
            let header_size = PageHeader::size_at(address, segment);
            if page.header.flags & page_flags::FIRST_IS_CONTRECORD == 0 {
                // A record begins right behind the header; from the middle of the page it must be walked to.
                self.next.set(address.saturating_add(header_size as u64));
                break;
            }
            let rest = page.header.remaining as usize;
            let room = WAL_PAGE - header_size;
            if rest.next_multiple_of(8) < room {
                let behind = (header_size + rest.next_multiple_of(8)) as u64;
                self.next.set(address.saturating_add(behind));
                break;
            }
            address = match address.checked_add(WAL_PAGE as u64) {
                Some(address) => address,
                None => return Ok(Err(self.end(EndReason::MissingSegment, address, address))),
            };
            at = address;
        }
        while self.next.get() < from {
            match self.next()? {
                ReadOutcome::Record(_) => {}
                ReadOutcome::End(end) => return Ok(Err(end)),
            }
        }
        Ok(Ok(self.next.get()))
    }
}
