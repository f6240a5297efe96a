//! Helpers of the crate's tests: a log in a directory, readers over it, the external tools.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use towline_base::{Incarnation, Lsn, OsVfs, SystemId, TimelineId, TimelineNumber, Vfs};
use towline_wal::format::SegmentSize;
use towline_wal::{
    Credit, Inserted, NoCredit, PageBytes, PermitIssuer, Positions, ReadOutcome, RecordBuilder, Rmgr,
    StartAt, TimelineHistory, Wal, WalConfig, WalReader, WalSource,
};

pub const SYSTEM: SystemId = SystemId(0x5454_0000_1234_5678);
pub const SEGMENT: u64 = 1 << 20;

pub fn timeline(number: u32) -> TimelineId {
    TimelineId {
        number: TimelineNumber(number),
        incarnation: Incarnation([number as u8; 16]),
    }
}

pub fn config(dir: &Path) -> WalConfig {
    let mut config = WalConfig::new(dir, SYSTEM);
    config.segment_size = SegmentSize::new(SEGMENT).unwrap();
    config.buffers = 1 << 20;
    config
}

/// A new log that begins with segment 1 of 1 MB segments.
pub fn start(vfs: Arc<dyn Vfs>, config: WalConfig) -> Arc<Wal> {
    let lsn = Lsn(config.segment_size.bytes());
    start_at(vfs, config, lsn, Lsn::INVALID, timeline(1))
}

pub fn start_at(vfs: Arc<dyn Vfs>, config: WalConfig, lsn: Lsn, prev: Lsn, timeline: TimelineId) -> Arc<Wal> {
    let (publishers, _) = Positions::starting_at(lsn);
    Wal::start(
        vfs,
        config,
        StartAt {
            lsn,
            prev,
            timeline,
            image_threshold: lsn,
        },
        publishers,
    )
    .unwrap()
}

pub fn source(vfs: Arc<dyn Vfs>, dir: &Path, history: TimelineHistory) -> WalSource {
    WalSource {
        vfs,
        dir: dir.to_owned(),
        segment_size: SegmentSize::new(SEGMENT).unwrap(),
        system: Some(SYSTEM),
        history,
    }
}

pub fn first_history() -> TimelineHistory {
    TimelineHistory::first(timeline(1))
}

pub fn reader(vfs: Arc<dyn Vfs>, dir: &Path) -> WalReader {
    WalReader::new(source(vfs, dir, first_history()), Lsn(SEGMENT))
}

/// Credit, flushing on this thread when the buffers are full.
pub fn credit(wal: &Wal, bytes: u32) -> Credit {
    loop {
        match wal.credit(bytes) {
            Ok(credit) => return credit,
            Err(NoCredit::NeedsFlush(lsn)) => {
                wal.flush(lsn, None).unwrap();
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Inserts a record of our own manager with these main bytes.
pub fn insert(wal: &Wal, permits: &PermitIssuer, record: &mut RecordBuilder, data: &[u8]) -> Inserted {
    record.begin(Rmgr::Towline, 0x10, 7).data(data);
    insert_built(wal, permits, record, &[])
}

pub fn insert_built(
    wal: &Wal,
    permits: &PermitIssuer,
    record: &mut RecordBuilder,
    pages: &[&PageBytes],
) -> Inserted {
    let credit = credit(wal, record.credit_needed());
    wal.insert(&permits.issue(), credit, record, pages).unwrap()
}

/// Every record up to the end: (start, end, main data).
pub fn read_all(reader: &mut WalReader) -> (Vec<(Lsn, Lsn, Vec<u8>)>, towline_wal::EndOfWal) {
    let mut records = Vec::new();
    loop {
        match reader.next().unwrap() {
            ReadOutcome::Record(record) => records.push((record.start, record.end, record.main.to_vec())),
            ReadOutcome::End(end) => return (records, end),
        }
    }
}

pub fn os() -> Arc<dyn Vfs> {
    OsVfs::shared()
}

/// The path of one of PostgreSQL 15's programs; `None` (with a message) when it is not installed, a failure when
/// TOWLINE_REQUIRE_TOOLS is set.
pub fn require_tool(name: &str) -> Option<PathBuf> {
    let path = Path::new("/usr/lib/postgresql/15/bin").join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(
        std::env::var_os("TOWLINE_REQUIRE_TOOLS").is_none(),
        "{name} of PostgreSQL 15 is required and missing"
    );
    eprintln!("ignored: {name} of PostgreSQL 15 is not installed");
    None
}

/// What pg_waldump prints: stdout, stderr.
pub fn pg_waldump(tool: &Path, dir: &Path, arguments: &[&str]) -> (String, String) {
    let output = Command::new(tool)
        .env("TZ", "UTC")
        .arg("-p")
        .arg(dir)
        .args(arguments)
        .output()
        .unwrap();
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}
