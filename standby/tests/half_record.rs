//! A standby that has received half of a record across the end of a segment, when its primary restarts without that record (compare
//! PostgreSQL's tests 026 and 043). It is killed at every boundary of cutting the half and going on along the new timeline.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use towline_base::testing::points;
use towline_base::vfs::crash::Op;
use towline_base::vfs::{CrashVfs, Unsynced};
use towline_base::{Incarnation, Lsn, SystemId, TimelineId, TimelineNumber, Vfs};
use towline_standby::{LogSettings, open_log};
use towline_storage::ControlData;
use towline_wal::format::SegmentSize;
use towline_wal::{
    Known, NoCredit, PermitIssuer, Positions, ReadOutcome, ReceivedWal, RecordBuilder, Rmgr, StartAt,
    SyncMethod, TimelineHistory, Wal, WalBytes, WalConfig, WalReader, WalSource, find_end, fork_timeline,
    rewrite_tail_durable,
};

const SEGMENT: u64 = 1 << 20;
const SYSTEM: SystemId = SystemId(77);
const DATA: &str = "/data";
const LOG: &str = "/data/pg_wal";

fn timeline(number: u32) -> TimelineId {
    TimelineId {
        number: TimelineNumber(number),
        incarnation: Incarnation([number as u8; 16]),
    }
}

fn disk() -> CrashVfs {
    let vfs = CrashVfs::new();
    vfs.create_dir_all(LOG.as_ref()).unwrap();
    vfs.sync_dir("/".as_ref()).unwrap();
    vfs.sync_dir(DATA.as_ref()).unwrap();
    vfs
}

fn source(vfs: &CrashVfs, history: TimelineHistory) -> WalSource {
    WalSource {
        vfs: vfs.shared(),
        dir: LOG.into(),
        segment_size: SegmentSize::new(SEGMENT).unwrap(),
        system: Some(SYSTEM),
        history,
    }
}

fn log_at(vfs: &CrashVfs, lsn: Lsn, prev: Lsn, timeline: TimelineId) -> Arc<Wal> {
    let mut config = WalConfig::new(LOG, SYSTEM);
    config.segment_size = SegmentSize::new(SEGMENT).unwrap();
    config.buffers = 1 << 20;
    let at = StartAt {
        lsn,
        prev,
        timeline,
        image_threshold: lsn,
    };
    Wal::start(vfs.shared(), config, at, Positions::starting_at(lsn).0).unwrap()
}

fn insert(wal: &Wal, timeline: TimelineId, length: usize) -> Lsn {
    let permits = PermitIssuer::new(timeline);
    let mut record = RecordBuilder::new();
    record.begin(Rmgr::Towline, 0x10, 0).data(&vec![1; length]);
    let credit = loop {
        match wal.credit(record.credit_needed()) {
            Ok(credit) => break credit,
            Err(NoCredit::NeedsFlush(lsn)) => {
                wal.flush(lsn, None).unwrap();
            }
            Err(error) => panic!("{error:?}"),
        }
    };
    wal.insert(&permits.issue(), credit, &mut record, &[])
        .unwrap()
        .end
}

fn bytes(source: &WalSource, from: Lsn, to: Lsn) -> Vec<u8> {
    let mut reader = WalBytes::new(source.clone());
    let mut out = Vec::new();
    while from + (out.len() as u64) < to {
        let at = from + out.len() as u64;
        reader.read(at, to, usize::MAX, &mut out).unwrap();
    }
    out
}

fn records(source: &WalSource) -> (Vec<(Lsn, u32)>, Lsn) {
    let mut reader = WalReader::new(source.clone(), Lsn(SEGMENT));
    let mut found = Vec::new();
    loop {
        match reader.next().unwrap() {
            ReadOutcome::Record(record) => found.push((record.start, record.header.crc)),
            ReadOutcome::End(end) => return (found, end.lsn),
        }
    }
}

/// A primary that wrote half of a long record, and restarted without it.
struct Primary {
    /// The log of timeline 1 as it would have been, the long record included, and where that ends.
    first: Vec<u8>,
    /// The log of timeline 2, which left the first at `fork`, and its end.
    source: WalSource,
    fork: Lsn,
    end: Lsn,
}

fn primary() -> Primary {
    let write = |vfs: &CrashVfs, fails: bool| {
        let wal = log_at(vfs, Lsn(SEGMENT), Lsn::INVALID, timeline(1));
        while wal.insert_lsn().0 < 2 * SEGMENT - 110_000 {
            insert(&wal, timeline(1), 9000);
        }
        let durable = wal.flush(wal.insert_lsn(), None).unwrap();
        let long = insert(&wal, timeline(1), 240_000);
        if fails {
            // Segment 1 is synced, segment 2 is made; the half in it is lost.
            vfs.fail_nth(Op::Sync, 3, 5, false);
        }
        assert_eq!(wal.flush(long, None).is_ok(), !fails);
        (durable, long)
    };
    let whole = disk();
    let (_, long) = write(&whole, false);
    let first = TimelineHistory::first(timeline(1));
    let cut = disk();
    let (durable, _) = write(&cut, true);
    let vfs = cut.after_crash(Unsynced::Lost, 0);
    let parent = source(&vfs, first.clone());
    let found = find_end(parent.clone(), Lsn(SEGMENT), Known::default(), |_| {}).unwrap();
    assert_eq!(found.end.lsn, durable);
    rewrite_tail_durable(&parent, Lsn(SEGMENT), durable).unwrap();
    let history = fork_timeline(&parent, durable, timeline(2), "start").unwrap();
    let wal = log_at(&vfs, durable, found.end.last_record, timeline(2));
    for _ in 0..150 {
        insert(&wal, timeline(2), 9000);
    }
    let end = wal.flush(wal.insert_lsn(), None).unwrap();
    assert!(end.0 > 3 * SEGMENT);
    Primary {
        first: bytes(&source(&whole, first), Lsn(SEGMENT), long),
        source: source(&vfs, history),
        fork: durable,
        end,
    }
}

/// The standby's control file, and what it has acknowledged last: a timeline and a position.
#[derive(Clone)]
struct Standby {
    control: ControlData,
    acknowledged: (u32, Lsn),
}

fn open(vfs: &CrashVfs, control: &ControlData) -> towline_standby::OpenedLog {
    let settings = LogSettings {
        sync_method: SyncMethod::Fdatasync,
        fsync: true,
        progress_interval: std::time::Duration::ZERO,
    };
    open_log(&vfs.shared(), Path::new(DATA), control, settings).unwrap()
}

/// Shakes hands as the writer does, cuts, and receives up to the primary's end, acknowledging on the way.
fn follow(
    mut received: ReceivedWal,
    followed: &TimelineHistory,
    primary: &Primary,
    standby: &Mutex<Standby>,
) -> ReceivedWal {
    let ours = &primary.source.history;
    let (_, shared) = ours.fork_from(followed).unwrap();
    let start = received.flushed().min(shared);
    if *received.history() != *ours || received.written() != start {
        received = received.cut_at(start, ours.clone()).unwrap().0;
        standby.lock().control.timeline = timeline(2);
    }
    for chunk in bytes(&primary.source, start, primary.end).chunks(200_000) {
        received.write(received.written(), chunk).unwrap();
        let flushed = received.flush().unwrap();
        standby.lock().acknowledged = (2, flushed);
    }
    received
}

/// A start on this disk must have what was acknowledged, come to the primary's log, and keep that.
fn judge(disk: &CrashVfs, standby: &Standby, primary: &Primary) {
    let opened = open(disk, &standby.control);
    let (number, acknowledged) = standby.acknowledged;
    // Whole records: the end of what was acknowledged may lie in the middle of one.
    let whole = records(&primary.source).0.into_iter().map(|(start, _)| start);
    let sure = match number {
        1 => primary.fork,
        _ => whole.take_while(|start| *start <= acknowledged).last().unwrap(),
    };
    assert!(
        opened.end >= sure,
        "{} is there, {sure} was acknowledged",
        opened.end
    );
    let again = Mutex::new(standby.clone());
    let received = follow(opened.received, &opened.followed, primary, &again);
    let expected = records(&primary.source);
    assert_eq!(records(&received.wal_source()), expected);
    let after = disk.after_crash(Unsynced::Lost, 0);
    let control = again.lock().control.clone();
    assert_eq!(open(&after, &control).end, primary.end);
}

#[test]
fn a_standby_with_half_a_record_across_segments_goes_on_wherever_it_is_killed() {
    let primary = primary();
    let mut checked = 0;
    // The half ends in its first segment, with it, and in the second.
    for received_to in [primary.fork + 50_000, Lsn(2 * SEGMENT), Lsn(2 * SEGMENT + 60_000)] {
        let vfs = disk();
        let mut control = ControlData::new(SYSTEM, timeline(1), SEGMENT, true);
        control.checkpoint.redo = Lsn(SEGMENT);
        control.checkpoint.end = Lsn(SEGMENT);
        let standby = Arc::new(Mutex::new(Standby {
            control: control.clone(),
            acknowledged: (1, received_to),
        }));
        let opened = open(&vfs, &control);
        let mut received = opened.received;
        let length = received_to.distance_from(Lsn(SEGMENT)) as usize;
        received.write(Lsn(SEGMENT), &primary.first[..length]).unwrap();
        received.flush().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, state) = (Arc::clone(&seen), Arc::clone(&standby));
        vfs.observe(move |moment| kept.lock().push((moment.after_kill(), state.lock().clone())));
        let received = follow(received, &opened.followed, &primary, &standby);
        vfs.observe_no_more();
        assert_eq!(records(&received.wal_source()), records(&primary.source));
        for (disk, standby) in std::mem::take(&mut *seen.lock()) {
            let cut = disk.look(|moment| moment.disks(&Unsynced::ALL, moment.boundary()));
            for (_, cut) in cut {
                judge(&cut, &standby, &primary);
                checked += 1;
            }
            // Only the process has ended.
            judge(&disk, &standby, &primary);
            checked += 1;
        }
    }
    points::report("half records", checked);
}
