//! What a checkpoint says in the log when it is complete, in PostgreSQL's words.

use crate::buffer::WriteBackCounts;
use crate::control::CheckpointInfo;
use crate::smgr::SyncCounts;
use towline_base::{Lsn, Moment};

use std::time::Duration;

/// What became of WAL files.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WalFiles {
    /// Made since the last checkpoint.
    pub(super) added: u64,
    pub(super) removed: usize,
    pub(super) recycled: usize,
}

/// Times and counts of one checkpoint.
pub(super) struct Report {
    started: Moment,
    writing_ended: Moment,
    synced: Moment,
    files: SyncCounts,
    frames: usize,
    counts: WriteBackCounts,
    previous_redo: Lsn,
}

impl Report {
    pub(super) fn new(now: Moment, frames: usize, previous_redo: Lsn) -> Report {
        Report {
            started: now,
            writing_ended: now,
            synced: now,
            files: SyncCounts::default(),
            frames,
            counts: WriteBackCounts::default(),
            previous_redo,
        }
    }

    pub(super) fn started(&self) -> Moment {
        self.started
    }

    pub(super) fn pages(&mut self, counts: WriteBackCounts) {
        self.counts = counts;
    }

    pub(super) fn writing_ended(&mut self, now: Moment) {
        self.writing_ended = now;
        self.synced = now;
    }

    pub(super) fn synced(&mut self, files: SyncCounts, now: Moment) {
        self.files = files;
        self.synced = now;
    }

    /// Pages written.
    pub(super) fn written(&self) -> u64 {
        self.counts.written
    }

    /// Time spent writing, and syncing.
    pub(super) fn times(&self) -> (Duration, Duration) {
        (
            self.writing_ended.since(self.started),
            self.synced.since(self.writing_ended),
        )
    }

    /// The line; `estimate` is the expected distance in bytes.
    pub(super) fn line(&self, info: &CheckpointInfo, wal: WalFiles, estimate: u64, now: Moment) -> String {
        let (write, sync) = self.times();
        let average = self.files.total.as_secs_f64() / self.files.files.max(1) as f64;
        format!(
            "wrote {} buffers ({:.1}%); {} WAL file(s) added, {} removed, {} recycled; write={:.3} s, sync={:.3} s, total={:.3} s; \
             sync files={}, longest={:.3} s, average={:.3} s; distance={} kB, estimate={} kB; lsn={}, redo lsn={}",
            self.counts.written,
            self.counts.written as f64 * 100.0 / self.frames.max(1) as f64,
            wal.added,
            wal.removed,
            wal.recycled,
            write.as_secs_f64(),
            sync.as_secs_f64(),
            now.since(self.started).as_secs_f64(),
            self.files.files,
            self.files.longest.as_secs_f64(),
            average,
            info.redo.distance_from(self.previous_redo) / 1024,
            estimate / 1024,
            info.lsn,
            info.redo,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_line_has_postgresqls_words() {
        let begun = Moment::default();
        let mut report = Report::new(begun, 1000, Lsn(1 << 20));
        report.pages(WriteBackCounts {
            written: 25,
            skipped: 0,
            total: 25,
        });
        report.writing_ended(begun.after(Duration::from_millis(1500)));
        let files = SyncCounts {
            files: 4,
            longest: Duration::from_millis(20),
            total: Duration::from_millis(32),
        };
        report.synced(files, begun.after(Duration::from_millis(1540)));
        let info = CheckpointInfo {
            lsn: Lsn(5 << 20),
            end: Lsn(5 << 20),
            redo: Lsn(3 << 20),
            ..CheckpointInfo::NONE
        };
        let wal = WalFiles {
            added: 1,
            removed: 2,
            recycled: 3,
        };
        let line = report.line(&info, wal, 4 << 20, begun.after(Duration::from_secs(2)));
        assert_eq!(
            line,
            "wrote 25 buffers (2.5%); 1 WAL file(s) added, 2 removed, 3 recycled; write=1.500 s, sync=0.040 s, total=2.000 s; \
             sync files=4, longest=0.020 s, average=0.008 s; distance=2048 kB, estimate=4096 kB; lsn=0/500000, redo lsn=0/300000"
        );
    }
}
