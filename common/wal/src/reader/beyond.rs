//! Damage or end? What lies behind the place where a log stops being readable (HAZARDS A13).
//!
//! A crash explains an unreadable place with readable pages behind it, as long as all of that was written since the last sync: the
//! system writes back pages in any order. It does not explain one below a position that was durable. That a position was durable is
//! known from
//! - what the caller knows ([`Known`]), and the history: a timeline begins at a durable position;
//! - a readable page of a later segment: both writers sync a segment before they write to the next;
//! - a readable page of the same segment further behind than a writer ever has unsynced ([`MAX_UNSYNCED`]);
//! - a commit record behind the place, which carries the quorum LSN known at its insert, when this node wrote it.
//!
//! A segment that is shorter than a segment is damage wherever the log ends: a file gets a segment's name only when it has its full length
//! and is synced (see [`SegmentDir`]), so no crash leaves one behind.

use std::io;

use towline_base::Lsn;

use super::find_end::quorum_of;
use super::{EndOfWal, EndReason, Pages, ReadOutcome, WalReader};
use crate::format::{SegmentNumber, WAL_PAGE};
use crate::segments::SegmentDir;

/// More bytes than any writer leaves unsynced: twice the largest WAL buffers, and far above what a receiver writes between syncs.
pub const MAX_UNSYNCED: u64 = 64 * 1024 * 1024;

/// What the caller knows about the log it judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// A position that was durable here (control file, promise); invalid when none is known.
    pub durable: Lsn,
    /// This node wrote the newest timeline as its primary. Only then does a quorum LSN in a record prove that this node had
    /// flushed that far: a standby may have been outside the quorum.
    pub wrote_it: bool,
}

/// What [`WalReader::look_beyond`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// Nothing that a crash does not explain: this is the end of the log.
    End,
    /// The log was durable beyond this place: it is damaged. The node must not vote, nor go on from here.
    Corruption {
        /// A position behind the end that is known to have been durable.
        durable: Lsn,
    },
}

impl WalReader {
    /// Fails when a segment from `from` on, of a timeline that is followed, does not have the segment size.
    pub(super) fn check_lengths(&self, from: SegmentNumber) -> io::Result<()> {
        let source = self.pages.source();
        let known = |timeline| source.history.ranges().any(|(id, ..)| id.number == timeline);
        SegmentDir::new(source.vfs.clone(), source.dir.clone(), source.segment_size)
            .check_lengths(|timeline, segment| segment >= from && known(timeline))
    }

    /// Judges an end that `next` returned.
    pub fn look_beyond(&self, end: &EndOfWal, known: Known) -> io::Result<Beyond> {
        if end.reason == EndReason::Limit {
            return Ok(Beyond::End);
        }
        let durable = known.durable.max(self.history().begin());
        if durable > end.lsn {
            return Ok(Beyond::Corruption { durable });
        }
        let proof = match self.proof_in_segment(end, known.wrote_it)? {
            Some(durable) => Some(durable),
            None => self.proof_in_later_segments(end)?,
        };
        Ok(proof.map_or(Beyond::End, |durable| Beyond::Corruption { durable }))
    }

    /// Looks at the pages behind the place up to the end of its segment.
    fn proof_in_segment(&self, end: &EndOfWal, wrote_it: bool) -> io::Result<Option<Lsn>> {
        let source = self.pages.source();
        let size = source.segment_size;
        let to = size.end(size.segment_of(end.reached));
        let mut pages = Pages::new(source.clone());
        let mut address = end.reached.page_start().saturating_add(WAL_PAGE as u64);
        while address < to {
            match pages.page(address, Lsn::MAX)? {
                Ok(_) if address.distance_from(end.lsn) > MAX_UNSYNCED => return Ok(Some(address)),
                Ok(_) if wrote_it => {
                    if let Some(durable) = self.proof_in_records(address, end.lsn)? {
                        return Ok(Some(durable));
                    }
                }
                Ok(_) => {}
                Err(EndReason::MissingSegment | EndReason::ShortSegment) => break,
                Err(_) => {}
            }
            address = address.saturating_add(WAL_PAGE as u64);
        }
        Ok(None)
    }

    /// The first position above `end` that a readable record beginning on this page proves durable.
    fn proof_in_records(&self, page: Lsn, end: Lsn) -> io::Result<Option<Lsn>> {
        let mut reader = WalReader::new(self.pages.source().clone(), page);
        if reader.seek_first(page)?.is_err() {
            return Ok(None);
        }
        // The following pages are looked at in their turn.
        while reader.position() < page.saturating_add(WAL_PAGE as u64) {
            let ReadOutcome::Record(record) = reader.next()? else {
                return Ok(None);
            };
            if let Some(quorum) = quorum_of(&record).filter(|quorum| *quorum > end) {
                return Ok(Some(quorum));
            }
        }
        Ok(None)
    }

    fn proof_in_later_segments(&self, end: &EndOfWal) -> io::Result<Option<Lsn>> {
        let source = self.pages.source();
        let size = source.segment_size;
        let mut pages = Pages::new(source.clone());
        pages.read_sparsely();
        let (reached, current) = (size.segment_of(end.reached), source.history.current().number);
        let present = SegmentDir::new(source.vfs.clone(), source.dir.clone(), size).list()?;
        for (timeline, segment) in present {
            // A file made ahead of need has no valid page, and a recycled one those of other positions.
            if timeline == current && segment > reached && pages.page(size.start(segment), Lsn::MAX)?.is_ok()
            {
                return Ok(Some(size.start(segment)));
            }
        }
        Ok(None)
    }
}
