//! Why reading stopped: the end of the log, classified.

use std::fmt;

use towline_base::{Lsn, TimelineNumber};

use crate::format::{DecodeError, PageError};

/// What was found where the next record should begin (or go on).
///
/// All of these are ordinary ends of a log after a crash, except where `Corruption` is proven (see
/// [`crate::WalReader::look_beyond`]): which one it was is told to the operator and decides what a standby asks for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Reading was to stop here.
    Limit,
    /// The segment's file is not there.
    MissingSegment,
    /// The segment's file is shorter than a segment.
    ShortSegment,
    /// The page that should hold the record (or its continuation) is not acceptable.
    Page(PageError),
    /// The page's timeline does not belong to the history being read.
    WrongTimeline(TimelineNumber),
    /// The page says that it begins with a continuation, but none is expected, or the reverse.
    UnexpectedContinuation {
        /// Whether a continuation was expected.
        expected: bool,
    },
    /// The continuation's length does not fit the record.
    BadContinuationLength {
        /// What the page says.
        found: u32,
        /// What is missing from the record.
        expected: u32,
    },
    /// All zero: nothing was written here yet.
    ZeroLength,
    /// The record's length is too small or too large.
    BadLength(u32),
    /// No such resource manager.
    BadRmgr(u8),
    /// The link to the record before is wrong: bytes from an older use of the space.
    BadPrev {
        /// What the header says.
        found: Lsn,
    },
    /// The checksum is wrong: torn, or damaged.
    BadCrc,
    /// The checksum is right but the parts do not fit: damage that the checksum covers, or a foreign writer.
    BadRecord(DecodeError),
    /// The record's timeline ends inside it: what follows belongs to a timeline that was abandoned.
    CrossesFork(Lsn),
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit => f.write_str("requested end reached"),
            Self::MissingSegment => f.write_str("segment file is missing"),
            Self::ShortSegment => f.write_str("segment file is too short"),
            Self::Page(error) => write!(f, "{error}"),
            Self::WrongTimeline(timeline) => {
                write!(f, "page of timeline {timeline}, which is not in the history")
            }
            Self::UnexpectedContinuation { expected: true } => {
                f.write_str("there is no continuation of the record")
            }
            Self::UnexpectedContinuation { expected: false } => f.write_str("continuation without a record"),
            Self::BadContinuationLength { found, expected } => {
                write!(f, "invalid continuation length {found} (expected {expected})")
            }
            Self::ZeroLength => f.write_str("invalid record length: wanted 24, got 0"),
            Self::BadLength(length) => write!(f, "invalid record length: wanted 24, got {length}"),
            Self::BadRmgr(id) => write!(f, "invalid resource manager ID {id}"),
            Self::BadPrev { found } => write!(f, "record with incorrect prev-link {found}"),
            Self::BadCrc => f.write_str("incorrect resource manager data checksum in record"),
            Self::BadRecord(error) => write!(f, "{error}"),
            Self::CrossesFork(fork) => write!(f, "record goes beyond the end of its timeline at {fork}"),
        }
    }
}

/// Where and why reading stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndOfWal {
    /// End of the last complete record: where a new record would begin (a page boundary stays before the page's header).
    pub lsn: Lsn,
    /// Start of the last complete record; invalid when none was read.
    pub last_record: Lsn,
    /// Timeline of the last position read.
    pub timeline: TimelineNumber,
    /// What was found instead of a record.
    pub reason: EndReason,
    /// Where exactly (a page or record start at or behind `lsn`).
    pub found_at: Lsn,
    /// How far the bytes that were judged reach: for a record with a wrong checksum, its end.
    pub reached: Lsn,
}

impl fmt::Display for EndOfWal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.reason, self.found_at)
    }
}
