//! [`ReceivedWal`]: the log of a standby, written as it arrives.
//!
//! Bytes are written where they belong, in order, without being understood: the reader judges them later. The timeline of a byte is
//! the one whose range in the history holds its position; at a fork the writing goes on in a new file (A14).

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use towline_base::{Lsn, SystemId, TimelineNumber, Vfs, VfsFile, failpoint};

use super::TimelineHistory;
use super::fork::copy_prefix;
use crate::config::{Positions, SyncMethod, WalPublishers};
use crate::format::{SegmentNumber, SegmentSize};
use crate::reader::{MAX_UNSYNCED, WalSource};
use crate::segments::SegmentDir;

/// Where and how a standby writes.
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    /// The file layer.
    pub vfs: Arc<dyn Vfs>,
    /// The `pg_wal` directory.
    pub dir: PathBuf,
    /// Segment size.
    pub segment_size: SegmentSize,
    /// The cluster.
    pub system: SystemId,
    /// `wal_sync_method`; OpenDatasync is done as Fdatasync.
    pub sync_method: SyncMethod,
    /// `fsync`.
    pub fsync: bool,
}

/// Why received bytes were not written.
#[derive(Debug)]
pub enum ReceiveError {
    /// They do not begin where the log ends: the stream must begin anew at `expected`.
    OutOfOrder {
        /// Where the bytes were said to begin.
        found: Lsn,
        /// The end of what is written.
        expected: Lsn,
    },
    /// A write or sync failed. It is never tried again (I5): the node stops.
    Failed(io::Error),
    /// It failed before.
    Poisoned,
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfOrder { found, expected } => write!(f, "received WAL at {found}, expected {expected}"),
            Self::Failed(error) => write!(f, "writing received WAL failed: {error}"),
            Self::Poisoned => f.write_str("the log has failed"),
        }
    }
}

impl std::error::Error for ReceiveError {}

/// A standby's log. See the module.
#[derive(Debug)]
pub struct ReceivedWal {
    config: ReceiverConfig,
    history: TimelineHistory,
    segments: Arc<SegmentDir>,
    publishers: WalPublishers,
    written: Lsn,
    file: Option<(TimelineNumber, SegmentNumber, Arc<dyn VfsFile>)>,
    poisoned: bool,
}

impl ReceivedWal {
    /// Goes on at `at`, the end of the complete records in the log that `history` describes; everything before it is durable (see
    /// [`super::rewrite_tail_durable`]).
    ///
    /// # Errors
    /// When a published position lies behind `at`, or the files cannot be made.
    pub fn open(
        config: ReceiverConfig,
        history: TimelineHistory,
        at: Lsn,
        publishers: WalPublishers,
    ) -> io::Result<Self> {
        let segments = SegmentDir::new(config.vfs.clone(), config.dir.clone(), config.segment_size);
        Self::open_in(config, Arc::new(segments), history, at, publishers)
    }

    /// As [`Self::open`], in a directory whose other parties (a restartpoint that recycles) go on with the same value.
    fn open_in(
        config: ReceiverConfig,
        segments: Arc<SegmentDir>,
        history: TimelineHistory,
        at: Lsn,
        mut publishers: WalPublishers,
    ) -> io::Result<Self> {
        if publishers.write.get() > at || publishers.flush.get() > at {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "published WAL position is beyond the start",
            ));
        }
        let own = segments.path(history.timeline_at(at).number, config.segment_size.segment_of(at));
        if !config.vfs.exists(&own)? {
            // At a fork, what is before `at` may still be in the parent's file only; the first write copies it.
            let before = Lsn(at.0.saturating_sub(1));
            segments.require_beginning(history.timeline_at(before).number, at)?;
        }
        segments.remove_temporaries()?;
        publishers.write.advance(at);
        publishers.flush.advance(at);
        Ok(Self {
            config,
            history,
            segments,
            publishers,
            written: at,
            file: None,
            poisoned: false,
        })
    }

    /// Writes bytes that begin at `lsn`, which must be the end of what is written, and publishes `write`.
    ///
    /// When much is unsynced, it is synced first, so that a start can tell a crash from damage ([`MAX_UNSYNCED`]).
    pub fn write(&mut self, lsn: Lsn, mut bytes: &[u8]) -> Result<(), ReceiveError> {
        if self.poisoned {
            return Err(ReceiveError::Poisoned);
        }
        if lsn != self.written {
            return Err(ReceiveError::OutOfOrder {
                found: lsn,
                expected: self.written,
            });
        }
        while !bytes.is_empty() {
            if self.written.distance_from(self.publishers.flush.get()) >= MAX_UNSYNCED / 4 {
                self.flush()?;
            }
            match self.write_part(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) => return Err(self.fail(error)),
            }
        }
        self.publishers.write.advance(self.written);
        Ok(())
    }

    /// Writes what fits into the present file; returns how much.
    fn write_part(&mut self, bytes: &[u8]) -> io::Result<usize> {
        failpoint!("wal::receive_write")?;
        let size = self.config.segment_size;
        let segment = size.segment_of(self.written);
        let (timeline, range_end) = self.range_at(self.written);
        let room = range_end.min(size.end(segment)).distance_from(self.written);
        let count = room.min(bytes.len() as u64) as usize;
        let file = self.open_file(timeline, segment)?;
        file.write_all_at(&bytes[..count], size.offset(self.written))?;
        self.written = self.written + count as u64;
        Ok(count)
    }

    fn range_at(&self, lsn: Lsn) -> (TimelineNumber, Lsn) {
        let timeline = self.history.timeline_at(lsn).number;
        (timeline, self.history.end_of(timeline).unwrap_or(Lsn::MAX))
    }

    fn open_file(
        &mut self,
        timeline: TimelineNumber,
        segment: SegmentNumber,
    ) -> io::Result<Arc<dyn VfsFile>> {
        if let Some((open_timeline, open_segment, file)) = &self.file {
            if (*open_timeline, *open_segment) == (timeline, segment) {
                return Ok(Arc::clone(file));
            }
            self.sync_file(&**file)?;
        }
        let begins_here = self.history.ranges().any(|(known, begin, _)| {
            known.number == timeline && begin == self.written && self.config.segment_size.offset(begin) != 0
        });
        if begins_here && !self.config.vfs.exists(&self.segments.path(timeline, segment))? {
            copy_prefix(
                &self.segments,
                &self.source_before(timeline),
                self.written,
                timeline,
            )?;
        }
        let file = self.segments.open_for_write(timeline, segment, false)?;
        self.file = Some((timeline, segment, Arc::clone(&file)));
        Ok(file)
    }

    /// What a reader of the ancestors of `timeline` reads from.
    fn source_before(&self, timeline: TimelineNumber) -> WalSource {
        let mut history: Option<TimelineHistory> = None;
        for (known, begin, _) in self.history.ranges() {
            if known.number == timeline {
                break;
            }
            history = Some(match history {
                None => TimelineHistory::first(known),
                Some(before) => before.forked(begin, known, ""),
            });
        }
        self.source(history.unwrap_or_else(|| self.history.clone()))
    }

    fn source(&self, history: TimelineHistory) -> WalSource {
        WalSource {
            vfs: self.config.vfs.clone(),
            dir: self.config.dir.clone(),
            segment_size: self.config.segment_size,
            system: Some(self.config.system),
            history,
        }
    }

    fn sync_file(&self, file: &dyn VfsFile) -> io::Result<()> {
        failpoint!("wal::receive_fsync")?;
        match self.config.sync_method {
            _ if !self.config.fsync => Ok(()),
            SyncMethod::Fdatasync | SyncMethod::OpenDatasync => file.sync_data(),
            SyncMethod::Fsync => file.sync_all(),
        }
    }

    /// Makes everything written durable and publishes `flush`. The position may be in the middle of a record.
    pub fn flush(&mut self) -> Result<Lsn, ReceiveError> {
        if self.poisoned {
            return Err(ReceiveError::Poisoned);
        }
        if self.written > self.publishers.flush.get() {
            if let Some((_, _, file)) = &self.file
                && let Err(error) = self.sync_file(&**file)
            {
                return Err(self.fail(error));
            }
            self.publishers.write.advance(self.written);
            self.publishers.flush.advance(self.written);
        }
        Ok(self.written)
    }

    fn fail(&mut self, error: io::Error) -> ReceiveError {
        self.poisoned = true;
        self.publishers.write.close();
        self.publishers.flush.close();
        ReceiveError::Failed(error)
    }

    /// Leaves the log at `fork` and goes on along `history`, which must contain this log's history up to there. Makes the new
    /// timeline's file (prefix copied, rest zero), then its history file. The positions begin anew, since they may fall.
    ///
    /// # Errors
    /// When `history` does not go through (this log's timeline, `fork`), or `fork` lies behind what is durable here.
    pub fn cut_at(mut self, fork: Lsn, history: TimelineHistory) -> io::Result<(Self, Positions)> {
        let shared = self.history.fork_from(&history);
        if shared.is_none_or(|(_, shared)| fork > shared) || fork > self.publishers.flush.get() {
            let text = format!(
                "history of timeline {} does not hold {fork} of this log",
                history.current()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.file = None;
        self.segments.forget_opened();
        let timeline = history.timeline_at(fork).number;
        let size = self.config.segment_size;
        let path = self.segments.path(timeline, size.segment_of(fork));
        let is_fork = history
            .ranges()
            .any(|(known, begin, _)| known.number == timeline && begin == fork);
        // On the same timeline (nothing but an incomplete tail is cut) the file is made anew just the same.
        if !(is_fork && self.config.vfs.exists(&path)?) {
            let parent = self.source(self.history.clone());
            copy_prefix(&self.segments, &parent, fork, timeline)?;
        }
        history.write(&*self.config.vfs, &self.config.dir)?;
        let (publishers, positions) = Positions::starting_at(fork);
        let received = Self::open_in(self.config, self.segments, history, fork, publishers)?;
        Ok((received, positions))
    }

    /// End of what is written.
    pub fn written(&self) -> Lsn {
        self.written
    }

    /// End of what is durable.
    pub fn flushed(&self) -> Lsn {
        self.publishers.flush.get()
    }

    /// Watches of what it publishes.
    pub fn positions(&self) -> Positions {
        self.publishers.positions()
    }

    /// The timelines it follows.
    pub fn history(&self) -> &TimelineHistory {
        &self.history
    }

    /// A reader's source over this log.
    pub fn wal_source(&self) -> WalSource {
        self.source(self.history.clone())
    }

    /// The directory of its segments.
    pub fn segments(&self) -> &Arc<SegmentDir> {
        &self.segments
    }

    /// Hands the publishers to the log of the primary that this node becomes. The next log begins at a fork at or behind the flush
    /// position, or it needs new ones.
    pub fn into_publishers(self) -> WalPublishers {
        self.publishers
    }
}
