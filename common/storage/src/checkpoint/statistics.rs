//! What checkpoints have done since the start: the checkpoint columns of pg_stat_bgwriter.

use super::CheckpointReason;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of checkpoints or restartpoints.
#[derive(Debug, Default)]
pub struct CheckpointStatistics {
    /// Begun because `checkpoint_timeout` had passed.
    pub timed: AtomicU64,
    /// Begun for another reason.
    pub requested: AtomicU64,
    /// Pages written.
    pub buffers: AtomicU64,
    /// Time spent writing, in microseconds.
    pub write_micros: AtomicU64,
    /// Time spent syncing, in microseconds.
    pub sync_micros: AtomicU64,
}

impl CheckpointStatistics {
    pub(super) fn begun(&self, reason: CheckpointReason) {
        let counter = match reason {
            CheckpointReason::Time => &self.timed,
            CheckpointReason::Wal | CheckpointReason::Request | CheckpointReason::Shutdown => &self.requested,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn synced(&self, buffers: u64, (write, sync): (Duration, Duration)) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.buffers.fetch_add(buffers, Ordering::Relaxed);
        self.write_micros.fetch_add(micros(write), Ordering::Relaxed);
        self.sync_micros.fetch_add(micros(sync), Ordering::Relaxed);
    }
}
