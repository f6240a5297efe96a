//! How a log is written: where, in what segments, by which system calls; and the positions that the writer publishes.

use std::path::PathBuf;
use std::time::Duration;

use towline_base::{Lsn, LsnPublisher, LsnWatch, SystemId, TimelineId};

use crate::format::SegmentSize;
use crate::insert::ImagePolicy;

/// `wal_sync_method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMethod {
    /// `fdatasync` after the write.
    #[default]
    Fdatasync,
    /// Files opened with `O_DSYNC`: the write returns when it is durable.
    OpenDatasync,
    /// `fsync` after the write.
    Fsync,
}

/// Settings of one log. The ones that PostgreSQL lets a reload change can be changed by `Wal::tune`.
#[derive(Debug, Clone)]
pub struct WalConfig {
    /// The `pg_wal` directory; it must exist.
    pub dir: PathBuf,
    /// Written into each segment's long header.
    pub system: SystemId,
    /// `wal_segment_size`.
    pub segment_size: SegmentSize,
    /// `wal_buffers` in bytes; raised to the least that the largest record needs.
    pub buffers: usize,
    /// `wal_sync_method`.
    pub sync_method: SyncMethod,
    /// `fsync`; off gives up durability.
    pub fsync: bool,
    /// What a reload may change.
    pub tuning: WalTuning,
}

/// Settings that may change while the log is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalTuning {
    /// `commit_delay`: how long a flush waits for company.
    pub commit_delay: Duration,
    /// `commit_siblings`: how many other open transactions make that worthwhile.
    pub commit_siblings: u32,
    /// `wal_writer_delay`: how long an asynchronous commit may stay unflushed (times three at most).
    pub writer_delay: Duration,
    /// `wal_compression` and `wal_consistency_checking` of the node; a session may have its own.
    pub images: ImagePolicy,
}

impl Default for WalTuning {
    fn default() -> Self {
        Self {
            commit_delay: Duration::ZERO,
            commit_siblings: 5,
            writer_delay: Duration::from_millis(200),
            images: ImagePolicy::default(),
        }
    }
}

impl WalConfig {
    /// PostgreSQL's defaults for a directory and a cluster.
    pub fn new(dir: impl Into<PathBuf>, system: SystemId) -> Self {
        Self {
            dir: dir.into(),
            system,
            segment_size: SegmentSize::DEFAULT,
            buffers: 4 * 1024 * 1024,
            sync_method: SyncMethod::default(),
            fsync: true,
            tuning: WalTuning::default(),
        }
    }
}

/// Where insertion begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartAt {
    /// End of the last record (or the first byte of a segment for a log without one). Everything before it is durable.
    pub lsn: Lsn,
    /// Start of the last record, for the first new record's `xl_prev`; invalid for a log without one.
    pub prev: Lsn,
    /// The timeline to write.
    pub timeline: TimelineId,
    /// Pages last changed at or before it get an image. On a new timeline this is the fork (HAZARDS B6).
    pub image_threshold: Lsn,
}

/// The positions that a log publishes, for everybody who waits for them.
#[derive(Debug, Clone)]
pub struct Positions {
    /// Written to the file (survives a crash of the process, not of the machine).
    pub write: LsnWatch,
    /// Durable.
    pub flush: LsnWatch,
}

/// The right to publish [`Positions`]: held by the one log (or the one receiver) that makes them true. Handed from a standby's
/// receiver to the primary's log at promotion, so that watches go on.
#[derive(Debug)]
pub struct WalPublishers {
    /// Publishes `write`.
    pub write: LsnPublisher,
    /// Publishes `flush`.
    pub flush: LsnPublisher,
}

impl Positions {
    /// Both at `start`, with their publishers.
    pub fn starting_at(start: Lsn) -> (WalPublishers, Positions) {
        let (write, write_watch) = LsnWatch::new(start);
        let (flush, flush_watch) = LsnWatch::new(start);
        (
            WalPublishers { write, flush },
            Positions {
                write: write_watch,
                flush: flush_watch,
            },
        )
    }
}

impl WalPublishers {
    /// Watches of what is published here.
    pub fn positions(&self) -> Positions {
        Positions {
            write: self.write.watch(),
            flush: self.flush.watch(),
        }
    }
}
