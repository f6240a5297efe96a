//! Redo: applying the log to pages and files, after a crash and, without end, on a standby.
//!
//! One function, [`Replayer::replay_one`], serves both; a recovery without readers may have several threads call it for different pages
//! (`appliers`). It does what is the same for every record (waiting for the quorum's room,
//! latching, images, page LSNs, page LSN stamps) and hands the rest to the [`ResourceManagers`] of the layer above; records about
//! files and checkpoints it applies itself. [`Recovery`] is the loop over a reader, from the control file's checkpoint to the end.
//!
//! Records with images for `wal_consistency_checking` have their pages compared after redo.
//!
//! Redo may be stopped at any point and begun again: a page is changed only when its LSN is below the record's, and file
//! operations bear repetition.

mod appliers;
mod consistency;
mod context;
mod invalid;
mod progress;
mod replay;
mod run;

pub use appliers::MAX_APPLIERS;
pub use context::{RedoAction, RedoContext};
pub use progress::{ProgressMeter, RecoveryProgress, ScanMeter};
pub use replay::{Replayer, ResourceManagers};
pub use run::{Recovery, RecoveryStep};

use crate::error::StorageError;
use towline_base::{Lsn, PageId};

use std::fmt;

/// Why redo does not go on.
#[derive(Debug, Clone)]
pub enum RedoError {
    /// Nothing was changed: try the record again when the quorum has reached this position.
    NeedsQuorum(Lsn),
    /// The disk has no room for a block that the record needs. Nothing was changed: try the record again when there is space.
    NoSpace(StorageError),
    /// Pages or files.
    Storage(StorageError),
    /// The log cannot be read.
    Log(String),
    /// The record at this position cannot be applied.
    Record {
        /// Its start.
        lsn: Lsn,
        /// What is wrong.
        what: String,
    },
    /// `wal_consistency_checking`: after redo of the record the page is not what the primary had.
    Inconsistent {
        /// The page.
        page: PageId,
        /// The record's start.
        lsn: Lsn,
        /// The record's resource manager and kind.
        record: String,
        /// The first byte of the page that differs.
        offset: usize,
    },
    /// The record at this position changes a page that is not there, and nothing later explains it.
    MissingPage {
        /// The page.
        page: PageId,
        /// The record's start.
        lsn: Lsn,
    },
}

impl RedoError {
    /// The record at `lsn` cannot be applied.
    pub fn record(lsn: Lsn, what: impl Into<String>) -> RedoError {
        RedoError::Record {
            lsn,
            what: what.into(),
        }
    }
}

impl From<StorageError> for RedoError {
    fn from(error: StorageError) -> RedoError {
        match error {
            StorageError::NeedsQuorum(lsn) => RedoError::NeedsQuorum(lsn),
            error if error.is_disk_full() => RedoError::NoSpace(error),
            other => RedoError::Storage(other),
        }
    }
}

impl fmt::Display for RedoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedoError::NeedsQuorum(lsn) => write!(f, "redo waits for the quorum to reach {lsn}"),
            RedoError::NoSpace(error) => write!(f, "redo waits for space: {error}"),
            RedoError::Storage(error) => write!(f, "redo failed: {error}"),
            RedoError::Log(what) => write!(f, "the write-ahead log cannot be read: {what}"),
            RedoError::Record { lsn, what } => write!(f, "the record at {lsn} cannot be applied: {what}"),
            RedoError::Inconsistent {
                page,
                lsn,
                record,
                offset,
            } => write!(
                f,
                "inconsistent page found: after redo of the {record} record at {lsn}, {page} differs from the primary's at byte {offset}"
            ),
            RedoError::MissingPage { page, lsn } => {
                write!(
                    f,
                    "the log refers to a page that is not there: {page}, first in the record at {lsn}"
                )
            }
        }
    }
}

impl std::error::Error for RedoError {}
