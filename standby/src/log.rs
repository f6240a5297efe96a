//! Opening a standby's log at its start: where it ends, that its end is durable, what is known of the quorum.
//!
//! A13: what the file system returns after a crash may be in memory only. The tail is written anew and synced before any position
//! is reported. A log that is damaged below what was durable is no shorter log: the standby clones itself anew.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use towline_base::{Clock, Lsn, SystemClock, Vfs};
use towline_storage::{ControlData, ScanMeter};
use towline_wal::format::SegmentSize;
use towline_wal::timeline::ReceiverConfig;
use towline_wal::{
    Beyond, EndReason, Known, LogEnd, Positions, ReceivedWal, SyncMethod, TimelineHistory, WalSource,
    find_end, rewrite_tail_durable,
};

/// Why a standby's log cannot be used.
#[derive(Debug)]
pub enum OpenLogError {
    /// It is damaged, or does not fit the control file; the standby must clone itself anew.
    Damaged(String),
    /// It cannot be read or written.
    Io(io::Error),
}

impl fmt::Display for OpenLogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenLogError::Damaged(what) => write!(f, "the write-ahead log is damaged: {what}"),
            OpenLogError::Io(error) => write!(f, "the write-ahead log cannot be opened: {error}"),
        }
    }
}

impl std::error::Error for OpenLogError {}

impl From<io::Error> for OpenLogError {
    fn from(error: io::Error) -> OpenLogError {
        OpenLogError::Io(error)
    }
}

/// A standby's log, ready to go on.
#[derive(Debug)]
pub struct OpenedLog {
    /// Where received WAL is written. Its history may end before `followed`: it is that of what the log has reached.
    pub received: ReceivedWal,
    /// The history of the timeline that is followed, by the control file. Pages and quorum belong to it.
    pub followed: TimelineHistory,
    /// End of the log here; durable.
    pub end: Lsn,
    /// A lower bound of the quorum, known from the log and the control file: replay may go so far before the primary has said anything.
    pub quorum: Lsn,
    /// No page on disk is newer: readers may be let in when this is replayed.
    pub consistent_at: Lsn,
    /// Pages on disk may be as new as this: the log is never cut below it.
    pub on_disk: Lsn,
}

/// How the log is written.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// `wal_sync_method`.
    pub sync_method: SyncMethod,
    /// `fsync`.
    pub fsync: bool,
    /// `log_startup_progress_interval`: between two log lines about the search for the end; zero writes none.
    pub progress_interval: Duration,
}

/// The directory of the log in a data directory.
pub fn wal_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("pg_wal")
}

/// The history of the timeline that the control file names.
pub fn read_history(
    vfs: &dyn Vfs,
    data_dir: &Path,
    control: &ControlData,
) -> Result<TimelineHistory, OpenLogError> {
    let history = TimelineHistory::read_of(vfs, &wal_dir(data_dir), control.timeline);
    history.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => OpenLogError::Damaged(error.to_string()),
        _ => OpenLogError::Io(error),
    })
}

/// Scans for the end, along the part of the history that the log has reached: a standby knows of a fork before it has received the
/// log up to there. What it then has is its parent's, for the time being.
fn find_end_of(
    mut source: WalSource,
    redo: Lsn,
    settings: LogSettings,
) -> Result<(WalSource, LogEnd), OpenLogError> {
    loop {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut progress = ScanMeter::new(clock, settings.progress_interval, redo);
        let found = find_end(source.clone(), redo, Known::default(), |record| {
            progress.tell(record.end)
        })?;
        // After a base backup the log may still be empty, but the data has reached redo.
        let reached = if found.records == 0 { redo } else { found.end.lsn };
        if reached >= source.history.begin() {
            return Ok((source, found));
        }
        let Some(parent) = parent_of(&source.history) else {
            return Ok((source, found));
        };
        source.history = parent;
    }
}

/// The history of the timeline that this one left; `None` for the first.
fn parent_of(history: &TimelineHistory) -> Option<TimelineHistory> {
    let mut ancestors = history.ancestors().iter().enumerate();
    let (_, oldest) = ancestors.next()?;
    let mut parent = TimelineHistory::first(oldest.timeline);
    for (index, entry) in ancestors {
        let left = &history.ancestors()[index - 1];
        parent = parent.forked(left.end, entry.timeline, &left.reason);
    }
    Some(parent)
}

/// Opens the log. See the module.
pub fn open_log(
    vfs: &Arc<dyn Vfs>,
    data_dir: &Path,
    control: &ControlData,
    settings: LogSettings,
) -> Result<OpenedLog, OpenLogError> {
    let dir = wal_dir(data_dir);
    vfs.create_dir_all(&dir)?;
    let segment_size = SegmentSize::new(control.segment_size).ok_or_else(|| {
        OpenLogError::Damaged("the control file names an impossible segment size".to_owned())
    })?;
    let source = WalSource {
        vfs: Arc::clone(vfs),
        dir: dir.clone(),
        segment_size,
        system: Some(control.system),
        history: read_history(vfs.as_ref(), data_dir, control)?,
    };
    let followed = source.history.clone();
    let config = ReceiverConfig {
        vfs: Arc::clone(vfs),
        dir,
        segment_size,
        system: control.system,
        sync_method: settings.sync_method,
        fsync: settings.fsync,
    };
    let redo = control.checkpoint.redo;
    let (source, found) = find_end_of(source, redo, settings)?;
    // What was replayed was durable here, and so was what pages on disk say.
    let strict = if control.page_lsn_bound_is_strict {
        control.page_lsn_bound
    } else {
        Lsn::INVALID
    };
    let history = source.history.clone();
    let end = if found.records == 0 {
        // Nothing is there yet after a base backup, or only the beginning of the segment: it comes anew from there.
        segment_size.start(segment_size.segment_of(redo))
    } else {
        if let Beyond::Corruption { durable } = found.beyond {
            let file = source.file_of(found.end.found_at);
            let text = format!(
                "{} in \"{}\", although it was durable up to {durable}",
                found.end,
                file.display()
            );
            return Err(OpenLogError::Damaged(text));
        }
        let durable = control.checkpoint.end.max(strict).min(found.end.lsn);
        rewrite_tail_durable(&source, durable, found.end.lsn)?;
        found.end.lsn
    };
    if found.end.reason != EndReason::ZeroLength {
        tracing::info!(%end, reason = %found.end, "end of the standby's log");
    }
    let quorum = control
        .quorum
        .max(found.quorum)
        .max(strict)
        .min(end.max(control.quorum));
    let (publishers, _) = Positions::starting_at(end);
    let received = ReceivedWal::open(config, history, end, publishers)?;
    // Without a strict bound, any page may have been written that was replayed before, and that is all that is in the log.
    let bound = control.page_lsn_bound.max(control.checkpoint.end);
    let consistent_at = if control.page_lsn_bound_is_strict {
        bound
    } else {
        bound.max(end)
    };
    Ok(OpenedLog {
        received,
        followed,
        end,
        quorum,
        consistent_at,
        on_disk: bound,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use towline_base::{Incarnation, TimelineId, TimelineNumber};

    #[test]
    fn a_history_without_its_newest_timeline_is_its_parents() {
        let timeline = |number| TimelineId {
            number: TimelineNumber(number),
            incarnation: Incarnation([number as u8; 16]),
        };
        let one = TimelineHistory::first(timeline(1));
        let two = one.forked(Lsn(100), timeline(2), "a");
        let three = two.forked(Lsn(200), timeline(5), "b");
        assert_eq!(parent_of(&three), Some(two.clone()));
        assert_eq!(parent_of(&two), Some(one.clone()));
        assert_eq!(parent_of(&one), None);
    }
}
