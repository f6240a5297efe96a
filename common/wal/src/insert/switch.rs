//! Ending a segment early: a switch record, and a gap behind it that never was in the buffers.

use std::sync::atomic::Ordering;

use towline_base::{CriticalSection, Lsn, failpoint};

use super::WritePermit;
use super::copy::Copy;
use super::flush::{FlushCore, Gap};
use super::wal::{InsertError, Inserted, Wal};
use crate::format::{BytePosition, HEADER_SIZE, RecordHeader};
use crate::records::xlog::XlogOp;
use crate::rmgr::Rmgr;

impl Wal {
    /// Ends the segment: a switch record, then nothing up to the next segment. `None` when insertions are under way: try again
    /// after a moment. At a segment's beginning nothing is done, as in PostgreSQL; the answer is then the present position.
    pub fn switch_segment(&self, permit: &WritePermit) -> Result<Option<Inserted>, InsertError> {
        // The leader's lock first: it is held during a sync, and the reservation lock must never wait for that.
        let Some(mut core) = self.core.try_lock() else {
            return Ok(None);
        };
        let outcome = self.switch_holding(&mut core, permit);
        // A test holds the lock here, as if the switch took long.
        let _ = failpoint!("wal::switching");
        drop(core);
        self.serve_wishes();
        outcome
    }

    /// The switch itself, by whoever holds the leader's lock.
    fn switch_holding(
        &self,
        core: &mut FlushCore,
        permit: &WritePermit,
    ) -> Result<Option<Inserted>, InsertError> {
        let Some(frozen) = self.space.freeze() else {
            return Ok(None);
        };
        let slot = self.slots.take(&self.space.reserved);
        let mut reservation = self.reservation.lock();
        self.check(permit)?;
        let here = BytePosition(self.space.reserved.load(Ordering::Relaxed));
        let lsn = self.map.end_lsn(here);
        if self.map.round_up_to_segment(here) == here {
            return Ok(Some(Inserted { start: lsn, end: lsn }));
        }
        if core.gap().is_some() || core.written() < lsn {
            // The buffers still hold unwritten records: the gap must not be promised over them.
            self.requests.ask(lsn);
            return Ok(None);
        }
        let behind = BytePosition(here.0 + HEADER_SIZE as u64);
        let end = self.map.round_up_to_segment(behind);
        let from = self.map.end_lsn(behind);
        if from < self.map.end_lsn(end) {
            self.requests.gap_begins(from);
            core.set_gap(Gap {
                from,
                to: self.map.end_lsn(end),
            });
        }
        // As in `Wal::insert`.
        let section = CriticalSection::enter("log space reserved and not filled");
        let (start, prev) = self.reserve(&mut reservation, HEADER_SIZE as u64);
        self.space.reserved.store(end.0, Ordering::SeqCst);
        let inserted = Inserted {
            start: self.map.start_lsn(start),
            end: self.map.end_lsn(end),
        };
        let header = RecordHeader {
            total_len: 0,
            xid: 0,
            prev: Lsn::INVALID,
            info: XlogOp::Switch as u8,
            rmid: Rmgr::Xlog.id(),
            crc: 0,
        };
        let header = self.finish_header(header, HEADER_SIZE as u32, prev, 0);
        let mut copy = Copy::new(self, inserted.start, HEADER_SIZE as u32);
        copy.put(&header);
        drop((reservation, slot, frozen));
        section.leave();
        self.requests.ask(inserted.end);
        Ok(Some(inserted))
    }
}
