//! What an engine is opened with.

use std::path::PathBuf;
use std::time::Duration;

use towline_base::TimelineNumber;
use towline_storage::{BackgroundWriterSettings, CheckpointSettings};
use towline_wal::{SyncMethod, WalTuning};

use crate::txn::xids::XidLimits;
use crate::vacuum::AutovacuumSettings;

/// Settings fixed while the engine is open. Defaults are PostgreSQL's, where it has the setting.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The data directory.
    pub data_dir: PathBuf,
    /// `shared_buffers`, in pages.
    pub shared_buffers: usize,
    /// `wal_buffers`, in bytes.
    pub wal_buffers: usize,
    /// `wal_sync_method`.
    pub wal_sync_method: SyncMethod,
    /// `fsync`.
    pub fsync: bool,
    /// What of the WAL a reload may change.
    pub wal_tuning: WalTuning,
    /// `max_connections`: sessions.
    pub max_connections: usize,
    /// Transactions of background work, beyond the sessions'.
    pub background_transactions: usize,
    /// WAL bytes that may stand above the quorum before writers wait (B4).
    pub max_wal_above_quorum: u64,
    /// Whether the only client flushes its commits on its own thread.
    pub flush_alone: bool,
    /// Relation files kept open.
    pub max_open_files: usize,
    /// When checkpoints happen.
    pub checkpoint: CheckpointSettings,
    /// How pages are cleaned ahead of need.
    pub background_writer: BackgroundWriterSettings,
    /// How long a shutdown waits for its checkpoint.
    pub shutdown_timeout: Duration,
    /// `log_startup_progress_interval`: between two log lines about a recovery; zero writes none.
    pub progress_interval: Duration,
    /// Threads that change pages in a recovery after a crash, beside the one that reads the log; 0 for none: that one does it.
    pub recovery_appliers: usize,
    /// Whether such threads' pages are asked for ahead.
    pub recovery_prefetch: bool,
    /// When tables are vacuumed by themselves.
    pub autovacuum: AutovacuumSettings,
    /// When xids run out.
    pub xid_limits: XidLimits,
    /// A primary opens a timeline above this number, beside those that its own log shows.
    pub timelines_seen: TimelineNumber,
}

impl EngineConfig {
    /// The defaults for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        EngineConfig {
            data_dir: data_dir.into(),
            shared_buffers: 16_384,
            wal_buffers: 4 * 1024 * 1024,
            wal_sync_method: SyncMethod::default(),
            fsync: true,
            wal_tuning: WalTuning::default(),
            max_connections: 100,
            background_transactions: 16,
            max_wal_above_quorum: 512 * 1024 * 1024,
            flush_alone: true,
            max_open_files: 1000,
            checkpoint: CheckpointSettings::default(),
            background_writer: BackgroundWriterSettings::default(),
            shutdown_timeout: Duration::from_secs(60),
            progress_interval: Duration::from_secs(10),
            recovery_appliers: 0,
            recovery_prefetch: true,
            autovacuum: AutovacuumSettings::default(),
            xid_limits: XidLimits::default(),
            timelines_seen: TimelineNumber(0),
        }
    }
}
