//! The scan of a start: where the log ends, why, and what it says on the way.

use std::io;

use towline_base::Lsn;

use super::{Beyond, EndOfWal, Known, ReadOutcome, WalReader, WalSource};
use crate::format::DecodedRecord;
use crate::records::towline::{QuorumNote, TowlineOp};
use crate::records::xact::{ParsedXactEnd, XactOp};
use crate::rmgr::Rmgr;

/// What a scan from a redo pointer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// Where and why reading stopped.
    pub end: EndOfWal,
    /// Whether that is an end or damage.
    pub beyond: Beyond,
    /// The highest quorum LSN that any record carries: a durable lower bound of it (HAZARDS B2).
    pub quorum: Lsn,
    /// Records read.
    pub records: u64,
}

/// The quorum LSN that a record carries, if any.
pub(super) fn quorum_of(record: &DecodedRecord<'_>) -> Option<Lsn> {
    match record.rmgr() {
        Rmgr::Transaction
            if matches!(
                XactOp::from_info(record.header.info),
                Some(XactOp::Commit | XactOp::Abort)
            ) =>
        {
            ParsedXactEnd::decode(record.header.info, record.main)
                .ok()
                .and_then(|parsed| parsed.quorum)
        }
        Rmgr::Towline if TowlineOp::from_info(record.header.info) == Some(TowlineOp::QuorumNote) => {
            QuorumNote::decode(record.main).ok().map(|note| note.quorum)
        }
        _ => None,
    }
}

/// Reads from `start` to the end of the log, showing each record to `visit`, and judges the end.
///
/// # Errors
/// Failing I/O; a segment that is cut (what it held could not be told from what was never written).
pub fn find_end(
    source: WalSource,
    start: Lsn,
    known: Known,
    mut visit: impl FnMut(&DecodedRecord<'_>),
) -> io::Result<LogEnd> {
    let segment = source.segment_size.segment_of(start);
    let mut reader = WalReader::new(source, start);
    let (mut quorum, mut records) = (Lsn::INVALID, 0);
    let end = loop {
        match reader.next()? {
            ReadOutcome::Record(record) => {
                quorum = quorum.max(quorum_of(&record).unwrap_or_default());
                records += 1;
                visit(&record);
            }
            ReadOutcome::End(end) => break end,
        }
    };
    reader.check_lengths(segment)?;
    let beyond = reader.look_beyond(&end, known)?;
    Ok(LogEnd {
        end,
        beyond,
        quorum,
        records,
    })
}
