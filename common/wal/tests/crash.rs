//! Crashes at every boundary of a disk that loses what was not synced.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use common::*;
use towline_base::rules::{Rule, RuleOff};
use towline_base::testing::points;
use towline_base::vfs::crash::Op;
use towline_base::vfs::{CrashVfs, Unsynced};
use towline_base::{Clock, Lsn, ManualClock, Next, OpenMode, TimelineNumber, Vfs, WaitOutcome};
use towline_wal::records::xact::{XactEnd, XactOp};
use towline_wal::{
    Beyond, EndReason, InsertError, Known, NoCredit, PermitIssuer, Positions, Preallocator, ReadOutcome,
    ReceivedWal, RecordBuilder, Rmgr, StartAt, SyncMethod, TimelineHistory, Wal, WalFailed, WalReader,
    find_end, fork_timeline, rewrite_tail_durable,
};

const DIR: &str = "/pg_wal";
const WROTE_IT: Known = Known {
    durable: Lsn::INVALID,
    wrote_it: true,
};

const FATES: [Unsynced; 5] = [
    Unsynced::Lost,
    Unsynced::Kept,
    Unsynced::Reordered,
    Unsynced::Torn(512),
    Unsynced::Torn(4096),
];

fn disk() -> CrashVfs {
    let vfs = CrashVfs::new();
    vfs.create_dir_all(DIR.as_ref()).unwrap();
    vfs.sync_dir("/".as_ref()).unwrap();
    vfs
}

/// What a run got acknowledged.
#[derive(Default)]
struct Run {
    flushed: Lsn,
    inserted: Vec<(Lsn, Vec<u8>)>,
}

/// Inserts and flushes groups until the power goes.
fn run(wal: &Wal, permits: &PermitIssuer, groups: usize, run: &mut Run) {
    let mut record = RecordBuilder::new();
    for group in 0..groups {
        for member in 0..4usize {
            let data = vec![(group * 5 + member) as u8; (group * 7919 + member * 9973) % 30_000];
            record.begin(Rmgr::Towline, 0x10, 1).data(&data);
            let Ok(credit) = wal.credit(record.credit_needed()) else {
                return;
            };
            let Ok(inserted) = wal.insert(&permits.issue(), credit, &mut record, &[]) else {
                return;
            };
            run.inserted.push((inserted.start, data));
        }
        let end = XactEnd {
            quorum: Some(wal.positions().flush.get()),
            ..XactEnd::default()
        };
        record
            .begin(Rmgr::Transaction, end.info(XactOp::Commit), 9)
            .payload(&end);
        let Ok(credit) = wal.credit(record.credit_needed()) else {
            return;
        };
        let Ok(inserted) = wal.insert(&permits.issue(), credit, &mut record, &[]) else {
            return;
        };
        let mut main = Vec::new();
        towline_wal::records::Payload::encode(&end, &mut main);
        run.inserted.push((inserted.start, main));
        match wal.flush(inserted.end, None) {
            Ok(flushed) => run.flushed = flushed,
            Err(_) => return,
        }
    }
}

fn start_on(vfs: &CrashVfs, method: SyncMethod) -> Arc<Wal> {
    try_start_on(vfs, method).unwrap()
}

fn try_start_on(vfs: &CrashVfs, method: SyncMethod) -> std::io::Result<Arc<Wal>> {
    let mut config = config(DIR.as_ref());
    config.sync_method = method;
    let lsn = Lsn(SEGMENT);
    let (publishers, _) = Positions::starting_at(lsn);
    let at = StartAt {
        lsn,
        prev: Lsn::INVALID,
        timeline: timeline(1),
        image_threshold: lsn,
    };
    Wal::start(vfs.shared(), config, at, publishers)
}

fn check(vfs: &CrashVfs, done: &Run, context: &str) -> towline_wal::LogEnd {
    let mut found = Vec::new();
    let source = source(vfs.shared(), DIR.as_ref(), first_history());
    let end = find_end(source, Lsn(SEGMENT), WROTE_IT, |record| {
        found.push((record.start, record.main.to_vec()))
    })
    .unwrap();
    assert!(
        end.end.lsn >= done.flushed,
        "{context}: {} lost, log ends {} ({})",
        done.flushed,
        end.end.lsn,
        end.end
    );
    assert!(done.inserted.starts_with(&found), "{context}: invented records");
    assert_eq!(end.beyond, Beyond::End, "{context}: {}", end.end);
    end
}

#[test]
fn every_acknowledged_flush_survives_a_crash_at_every_boundary() {
    let mut points = 0;
    for method in [SyncMethod::Fdatasync, SyncMethod::OpenDatasync] {
        let vfs = disk();
        let first = vfs.boundaries();
        let mut whole = Run::default();
        run(
            &start_on(&vfs, method),
            &PermitIssuer::new(timeline(1)),
            20,
            &mut whole,
        );
        let last = vfs.boundaries();
        assert!(whole.flushed.0 > 2 * SEGMENT, "{}", whole.flushed);
        assert!(last - first > 25, "{first}..{last}");
        for boundary in first + 1..=last {
            let vfs = disk();
            vfs.crash_at(boundary);
            let mut done = Run {
                flushed: Lsn(SEGMENT),
                ..Run::default()
            };
            if let Ok(wal) = try_start_on(&vfs, method) {
                run(&wal, &PermitIssuer::new(timeline(1)), 20, &mut done);
            }
            for fate in FATES {
                let after = vfs.after_crash(fate, boundary);
                // Before the first flush there may be no file at all.
                if done.flushed > Lsn(SEGMENT) {
                    check(&after, &done, &format!("{method:?} {boundary} {fate:?}"));
                    points += 1;
                }
            }
        }
    }
    points::report("log", points);
}

#[test]
fn a_failed_sync_poisons_the_log_for_everybody() {
    for op in [Op::Sync, Op::Write] {
        let vfs = disk();
        let wal = start_on(&vfs, SyncMethod::Fdatasync);
        let permits = PermitIssuer::new(timeline(1));
        let told = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&told);
        wal.set_failure_hook(Box::new(move |_| seen.store(true, Ordering::SeqCst)));
        let mut record = RecordBuilder::new();
        insert(&wal, &permits, &mut record, b"first");
        let durable = wal.flush(wal.insert_lsn(), None).unwrap();
        let lost = insert(&wal, &permits, &mut record, b"second");
        vfs.fail_nth(op, 1, 5, false);
        assert_eq!(wal.flush(lost.end, None), Err(WalFailed::Poisoned));
        assert!(told.load(Ordering::SeqCst) && wal.is_poisoned());
        // The next sync would succeed: it is not tried.
        let syncs = vfs.count(Op::Sync);
        assert_eq!(wal.flush(lost.end, None), Err(WalFailed::Poisoned));
        assert_eq!(vfs.count(Op::Sync), syncs);
        assert_eq!(
            wal.positions().flush.wait_for(lost.end).block(None),
            WaitOutcome::Closed
        );
        assert_eq!(wal.positions().flush.get(), durable);
        record.begin(Rmgr::Towline, 0x10, 0).data(b"third");
        let refused = wal.insert(&permits.issue(), wal.credit(500).unwrap(), &mut record, &[]);
        assert_eq!(refused, Err(InsertError::Poisoned));
    }
}

/// A log of timeline 1 with `groups` groups.
fn written(groups: usize) -> (CrashVfs, Run) {
    let vfs = disk();
    let mut done = Run::default();
    run(
        &start_on(&vfs, SyncMethod::Fdatasync),
        &PermitIssuer::new(timeline(1)),
        groups,
        &mut done,
    );
    (vfs, done)
}

/// A14's scene: timeline 1 wrote 30 equal records; timeline 2 leaves it after 20 and writes one of the same size, so that positions
/// and links of what stood behind the fork coincide. Returns the disk, the new history and the end of the new record.
fn forked_among_equal_records() -> (CrashVfs, TimelineHistory, Lsn) {
    let vfs = disk();
    let wal = start_on(&vfs, SyncMethod::Fdatasync);
    let permits = PermitIssuer::new(timeline(1));
    let mut record = RecordBuilder::new();
    let old: Vec<_> = (0..30)
        .map(|_| insert(&wal, &permits, &mut record, &[1; 100]))
        .collect();
    wal.flush(wal.insert_lsn(), None).unwrap();
    let parent = source(vfs.shared(), DIR.as_ref(), first_history());
    let history = fork_timeline(&parent, old[19].end, timeline(2), "test").unwrap();
    let wal = start_at(
        vfs.shared(),
        config(DIR.as_ref()),
        old[19].end,
        old[19].start,
        timeline(2),
    );
    let own = insert(&wal, &PermitIssuer::new(timeline(2)), &mut record, &[0xEE; 100]);
    wal.flush(own.end, None).unwrap();
    assert_eq!((own.start, own.end), (old[20].start, old[20].end));
    (vfs, history, own.end)
}

#[test]
fn old_bytes_behind_a_fork_never_come_back() {
    let (vfs, history, own_end) = forked_among_equal_records();
    let source = source(vfs.shared(), DIR.as_ref(), history);
    let (records, end) = read_all(&mut WalReader::new(source.clone(), Lsn(SEGMENT)));
    assert_eq!(
        (records.len(), end.lsn, end.timeline),
        (21, own_end, TimelineNumber(2))
    );
    assert_eq!(records[20].2, [0xEE; 100]);
    assert_eq!(
        find_end(source, Lsn(SEGMENT), WROTE_IT, |_| {}).unwrap().beyond,
        Beyond::End
    );
    // The old timeline is still what it was.
    let (old, _) = read_all(&mut reader(vfs.shared(), DIR.as_ref()));
    assert_eq!(old.len(), 30);
}

/// The new file is one of three lines: a writer zeroes its last page's rest, and a page names its timeline. With the first switched off and
/// the second undone by hand, the old bytes are read.
#[cfg(debug_assertions)]
#[test]
fn without_a_new_file_at_the_fork_old_bytes_would_come_back() {
    let _off = RuleOff::new(Rule::ForkIsANewFile);
    let (vfs, history, own_end) = forked_among_equal_records();
    let old = vfs
        .read_file(format!("{DIR}/000000010000000000000001").as_ref(), SEGMENT)
        .unwrap();
    let file = vfs
        .open(
            format!("{DIR}/000000020000000000000001").as_ref(),
            OpenMode::ReadWrite,
        )
        .unwrap();
    let behind = (own_end.0 - SEGMENT) as usize;
    file.write_all_at(&old[behind..8192], behind as u64).unwrap();
    let source = source(vfs.shared(), DIR.as_ref(), history);
    let (records, _) = read_all(&mut WalReader::new(source, Lsn(SEGMENT)));
    assert_eq!(
        records.len(),
        30,
        "nine records of the abandoned tail pass every check"
    );
}

#[test]
fn a_fork_interrupted_at_any_boundary_leaves_the_old_or_the_new_timeline() {
    let (vfs, done) = written(12);
    let source_on = |vfs: &CrashVfs, history| source(vfs.shared(), DIR.as_ref(), history);
    let before = vfs.boundaries();
    let fork = done.flushed;
    fork_timeline(&source_on(&vfs, first_history()), fork, timeline(2), "test").unwrap();
    let steps = vfs.boundaries() - before;
    assert!(steps > 4);
    for step in 1..=steps {
        for fate in FATES {
            let (vfs, _) = written(12);
            vfs.crash_at(vfs.boundaries() + step);
            let forked = fork_timeline(&source_on(&vfs, first_history()), fork, timeline(2), "test");
            let after = vfs.after_crash(fate, step);
            let history = TimelineHistory::read(&after, DIR.as_ref(), TimelineNumber(2)).unwrap();
            assert!(forked.is_err() || history.is_some(), "a finished fork is durable");
            let source = source_on(&after, history.unwrap_or_else(first_history));
            let (records, end) = read_all(&mut WalReader::new(source, Lsn(SEGMENT)));
            assert_eq!(
                (records.len(), end.lsn),
                (done.inserted.len(), fork),
                "step {step} {fate:?}"
            );
        }
    }
}

/// A13's scene: a tail is written and its sync fails, or the process is killed before it; the next process reads it, reports its end, and the
/// power goes. Whether everything reported is still there.
fn what_was_reported_is_there(sync_fails: bool) -> bool {
    let vfs = disk();
    let wal = start_on(&vfs, SyncMethod::Fdatasync);
    let permits = PermitIssuer::new(timeline(1));
    let mut record = RecordBuilder::new();
    insert(&wal, &permits, &mut record, &[1; 5000]);
    let durable = wal.flush(wal.insert_lsn(), None).unwrap();
    let tail = insert(&wal, &permits, &mut record, &[2; 5000]);
    let next = if sync_fails {
        // The system takes the pages for clean: a later sync would succeed and write nothing.
        vfs.fail_nth(Op::Sync, 1, 5, false);
        wal.flush(tail.end, None).unwrap_err();
        vfs.clear_failures();
        vfs.after_kill()
    } else {
        // Killed in the sync: written, and not durable.
        let seen = Arc::new(std::sync::Mutex::new(None));
        let (last, killed) = (vfs.boundaries() + 2, Arc::clone(&seen));
        vfs.observe(move |moment| {
            if moment.boundary() == last {
                *killed.lock().unwrap() = Some(moment.after_kill());
            }
        });
        wal.flush(tail.end, None).unwrap();
        vfs.observe_no_more();
        seen.lock().unwrap().take().unwrap()
    };
    let source = source(next.shared(), DIR.as_ref(), first_history());
    let seen = find_end(source.clone(), Lsn(SEGMENT), WROTE_IT, |_| {}).unwrap();
    assert_eq!(seen.end.lsn, tail.end, "the page cache shows the tail");
    rewrite_tail_durable(&source, durable, tail.end).unwrap();
    let after = next.after_crash(Unsynced::Lost, 1);
    let (records, end) = read_all(&mut reader(after.shared(), DIR.as_ref()));
    (records.len(), end.lsn) == (2, tail.end)
}

#[test]
fn a_tail_read_from_the_page_cache_is_durable_before_it_is_reported() {
    assert!(what_was_reported_is_there(true) && what_was_reported_is_there(false));
}

#[cfg(debug_assertions)]
#[test]
fn without_that_rule_what_was_reported_would_be_lost() {
    let _off = RuleOff::new(Rule::TailIsDurable);
    assert!(!what_was_reported_is_there(true) && !what_was_reported_is_there(false));
}

fn receiver_config(vfs: &CrashVfs) -> towline_wal::timeline::ReceiverConfig {
    towline_wal::timeline::ReceiverConfig {
        vfs: vfs.shared(),
        dir: DIR.into(),
        segment_size: towline_wal::format::SegmentSize::new(SEGMENT).unwrap(),
        system: SYSTEM,
        sync_method: SyncMethod::Fdatasync,
        fsync: true,
    }
}

/// The raw bytes `[from, to)` of a log.
fn raw(vfs: &CrashVfs, timeline: u32, from: Lsn, to: Lsn) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = from.0;
    while at < to.0 {
        let name = format!("{DIR}/{timeline:08X}00000000{:08X}", at / SEGMENT);
        let file = vfs.read_file(name.as_ref(), SEGMENT).unwrap();
        let end = to.0.min((at / SEGMENT + 1) * SEGMENT);
        bytes.extend_from_slice(&file[(at % SEGMENT) as usize..(end - at / SEGMENT * SEGMENT) as usize]);
        at = end;
    }
    bytes
}

#[test]
fn a_standby_writes_what_it_receives_and_a_reader_follows_its_flush() {
    let (primary, done) = written(16);
    let bytes = raw(&primary, 1, Lsn(SEGMENT), done.flushed);
    let standby = disk();
    let (publishers, positions) = Positions::starting_at(Lsn(SEGMENT));
    let mut received = ReceivedWal::open(
        receiver_config(&standby),
        first_history(),
        Lsn(SEGMENT),
        publishers,
    )
    .unwrap();
    let mut reader = WalReader::new(received.wal_source(), Lsn(SEGMENT));
    let mut count = 0;
    for chunk in bytes.chunks(12_345) {
        received.write(received.written(), chunk).unwrap();
        received.flush().unwrap();
        reader.set_limit(positions.flush.get());
        while let ReadOutcome::Record(record) = reader.next().unwrap() {
            assert_eq!(
                (record.start, record.main),
                (done.inserted[count].0, &done.inserted[count].1[..])
            );
            assert!(record.end <= positions.flush.get());
            count += 1;
        }
    }
    assert_eq!(count, done.inserted.len());
    let wrong = received.write(Lsn(7), b"x");
    assert!(matches!(
        wrong,
        Err(towline_wal::timeline::ReceiveError::OutOfOrder { .. })
    ));
    // What was acknowledged survives, and no end is taken for damage.
    let after = standby.after_crash(Unsynced::Lost, 3);
    check(&after, &done, "standby");
}

#[test]
fn a_standby_cuts_what_was_never_acknowledged_and_follows_two_timelines_at_once() {
    let (primary, done) = written(10);
    let count = done.inserted.len();
    // The new primary forked before our end, wrote a little, and forked again.
    let (fork, prev) = (done.inserted[count - 7].0, done.inserted[count - 8].0);
    let second = fork_timeline(
        &source(primary.shared(), DIR.as_ref(), first_history()),
        fork,
        timeline(2),
        "a",
    )
    .unwrap();
    let wal = start_at(primary.shared(), config(DIR.as_ref()), fork, prev, timeline(2));
    let mut record = RecordBuilder::new();
    let two = insert(&wal, &PermitIssuer::new(timeline(2)), &mut record, b"two");
    wal.flush(two.end, None).unwrap();
    let third = fork_timeline(
        &source(primary.shared(), DIR.as_ref(), second),
        two.end,
        timeline(3),
        "b",
    )
    .unwrap();
    let wal = start_at(
        primary.shared(),
        config(DIR.as_ref()),
        two.end,
        two.start,
        timeline(3),
    );
    let three = insert(&wal, &PermitIssuer::new(timeline(3)), &mut record, b"three");
    let end = wal.flush(three.end, None).unwrap();

    let standby = disk();
    let (publishers, _) = Positions::starting_at(Lsn(SEGMENT));
    let mut received = ReceivedWal::open(
        receiver_config(&standby),
        first_history(),
        Lsn(SEGMENT),
        publishers,
    )
    .unwrap();
    received
        .write(Lsn(SEGMENT), &raw(&primary, 1, Lsn(SEGMENT), done.flushed))
        .unwrap();
    received.flush().unwrap();
    let (mut received, positions) = received.cut_at(fork, third.clone()).unwrap();
    assert_eq!(positions.flush.get(), fork);
    received.write(fork, &raw(&primary, 3, fork, end)).unwrap();
    received.flush().unwrap();

    for crashed in [false, true] {
        let vfs = if crashed {
            standby.after_crash(Unsynced::Lost, 9)
        } else {
            standby.clone()
        };
        let source = source(vfs.shared(), DIR.as_ref(), third.clone());
        let (records, found) = read_all(&mut WalReader::new(source, Lsn(SEGMENT)));
        assert_eq!(records.len(), count - 7 + 2);
        assert_eq!(
            (&records[count - 7].2[..], &records[count - 6].2[..]),
            (&b"two"[..], &b"three"[..])
        );
        assert_eq!((found.lsn, found.timeline), (end, TimelineNumber(3)));
        assert_eq!(
            TimelineHistory::read(&vfs, DIR.as_ref(), TimelineNumber(3)).unwrap(),
            Some(third.clone())
        );
    }
}

#[test]
fn a_full_disk_holds_changes_back_and_lets_small_records_through() {
    let vfs = disk();
    let wal = start_on(&vfs, SyncMethod::Fdatasync);
    let permits = PermitIssuer::new(timeline(1));
    let mut record = RecordBuilder::new();
    let mut preallocator = Preallocator::new(Arc::clone(wal.segments()));
    let clock = ManualClock::new(0);
    assert_eq!(preallocator.step(clock.now()), Next::Now);
    let asked = Arc::new(AtomicU32::new(0));
    let asks = Arc::clone(&asked);
    wal.segments().set_shortage_hook(move || {
        asks.fetch_add(1, Ordering::SeqCst);
    });
    vfs.set_capacity(Some(2 * SEGMENT + 1000));
    for _ in 0..3 {
        assert!(matches!(preallocator.step(clock.now()), Next::At(_)));
        assert_eq!(wal.segments().shortage(), Lsn(3 * SEGMENT));
    }
    // Who can make room is asked once, as asking again would not help.
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let mut count = 0;
    let refused = loop {
        record.begin(Rmgr::Towline, 0x10, 0).data(&[1; 50_000]);
        match wal.credit(record.credit_needed()) {
            Ok(credit) => wal.insert(&permits.issue(), credit, &mut record, &[]).unwrap(),
            Err(error) => break error,
        };
        wal.flush(wal.insert_lsn(), None).unwrap();
        count += 1;
        assert!(count < 60, "the log would run out of space");
    };
    assert_eq!(refused, NoCredit::NeedsFlush(wal.positions().flush.get()));
    assert!(wal.insert_lsn().0 > 2 * SEGMENT);
    // Small changes find none either, a little later: what is left is for the ends of transactions. A commit still finds room.
    record.begin(Rmgr::Towline, 0x10, 0).data(&[1; 900]);
    while let Ok(credit) = wal.credit(record.credit_needed()) {
        wal.insert(&permits.issue(), credit, &mut record, &[]).unwrap();
        record.begin(Rmgr::Towline, 0x10, 0).data(&[1; 900]);
        wal.flush(wal.insert_lsn(), None).unwrap();
    }
    // Many of them leave some for the checkpoint, which will free space.
    record.begin(Rmgr::Towline, 0x10, 0).data(&[1; 900]);
    let mut commits = 0;
    while let Ok(credit) = wal.credit_for_end(record.credit_needed()) {
        wal.insert(&permits.issue(), credit, &mut record, &[]).unwrap();
        commits += 1;
        record.begin(Rmgr::Towline, 0x10, 0).data(&[1; 900]);
        wal.flush(wal.insert_lsn(), None).unwrap();
    }
    assert!(commits > 100, "{commits} commits");
    let credit = wal.credit_for_checkpoint(record.credit_needed()).unwrap();
    wal.insert(&permits.issue(), credit, &mut record, &[]).unwrap();
    wal.flush(wal.insert_lsn(), None).unwrap();
    // Who is held back waits for the next attempt to make room.
    let room = wal.room_wait().unwrap();
    assert_eq!(
        wal.room_wait().unwrap().block(Some(Duration::ZERO)),
        WaitOutcome::TimedOut
    );
    // Space again.
    vfs.set_capacity(None);
    while preallocator.step(clock.now()) == Next::Now {}
    assert!(matches!(
        room.block(Some(Duration::ZERO)),
        WaitOutcome::Reached(_)
    ));
    assert!(wal.room_wait().is_none());
    assert!(wal.credit(60_000).is_ok());
}

/// The log in memory had run past the segments that were there before the preallocator was scheduled: its writer met the full disk, and the
/// node stopped.
#[test]
fn the_log_in_memory_does_not_run_ahead_of_the_preallocator() {
    let vfs = disk();
    let wal = start_on(&vfs, SyncMethod::Fdatasync);
    let permits = PermitIssuer::new(timeline(1));
    let mut record = RecordBuilder::new();
    let mut preallocator = Preallocator::new(Arc::clone(wal.segments()));
    let clock = ManualClock::new(0);
    while preallocator.step(clock.now()) == Next::Now {}
    let mut fill = || {
        loop {
            record.begin(Rmgr::Towline, 0x10, 0).data(&[1; 50_000]);
            match wal.credit(record.credit_needed()) {
                Ok(credit) => wal.insert(&permits.issue(), credit, &mut record, &[]).unwrap(),
                Err(NoCredit::NeedsFlush(lsn)) if lsn > wal.positions().flush.get() => {
                    panic!("the buffers end before the room does")
                }
                Err(_) => break wal.room_wait().unwrap(),
            };
            wal.flush(wal.insert_lsn(), None).unwrap();
            assert!(wal.insert_lsn().0 < 8 * SEGMENT, "nobody is held back");
        }
    };
    // The preallocator is not scheduled. There is room, but nobody knows.
    let wait = fill();
    assert!(wal.insert_lsn().0 < 4 * SEGMENT);
    assert_eq!(wal.segments().shortage(), Lsn::MAX);
    while preallocator.step(clock.now()) == Next::Now {}
    assert!(matches!(
        wait.block(Some(Duration::ZERO)),
        WaitOutcome::Reached(_)
    ));
    assert!(wal.room_wait().is_none());
    // The same at the end of the disk.
    vfs.set_capacity(Some(0));
    let wait = fill();
    for _ in 0..3 {
        assert!(matches!(preallocator.step(clock.now()), Next::At(_)));
    }
    drop(wait);
    let _wait = fill();
    assert!(!wal.is_poisoned());
    assert_ne!(wal.segments().shortage(), Lsn::MAX);
}

/// Credits that are out count: two had been given the same last space.
#[test]
fn the_last_room_is_promised_once() {
    let vfs = disk();
    let wal = start_on(&vfs, SyncMethod::Fdatasync);
    let mut preallocator = Preallocator::new(Arc::clone(wal.segments()));
    let clock = ManualClock::new(0);
    while preallocator.step(clock.now()) == Next::Now {}
    let (permits, mut record) = (PermitIssuer::new(timeline(1)), RecordBuilder::new());
    while wal.insert_lsn().0 < 3 * SEGMENT {
        insert(&wal, &permits, &mut record, &[1; 50_000]);
        wal.flush(wal.insert_lsn(), None).unwrap();
    }
    let mut credits = Vec::new();
    while let Ok(credit) = wal.credit(50_000) {
        credits.push(credit);
    }
    let promised = wal.insert_lsn().0 + 50_000 * credits.len() as u64;
    assert!(promised + SEGMENT / 2 <= 4 * SEGMENT, "{} credits", credits.len());
}

/// The preallocator alone had met the end of the disk and held all changes back, for ever: nobody wrote the log, so nobody learned of it.
#[test]
fn a_dead_disk_holds_no_changes_back_until_the_writer_meets_it() {
    let vfs = disk();
    let wal = start_on(&vfs, SyncMethod::Fdatasync);
    let permits = PermitIssuer::new(timeline(1));
    let mut record = RecordBuilder::new();
    let mut preallocator = Preallocator::new(Arc::clone(wal.segments()));
    let clock = ManualClock::new(0);
    vfs.set_capacity(Some(SEGMENT + 1000));
    assert!(matches!(preallocator.step(clock.now()), Next::At(_)));
    assert_eq!(wal.segments().shortage(), Lsn(2 * SEGMENT));
    vfs.set_capacity(None);
    vfs.crash_at(vfs.boundaries() + 1);
    assert!(matches!(preallocator.step(clock.now()), Next::At(_)));
    assert!(vfs.crashed());
    assert_eq!(wal.segments().shortage(), Lsn::MAX);
    for _ in 0..12 {
        record.begin(Rmgr::Towline, 0x10, 0).data(&[1; 50_000]);
        let credit = wal.credit(record.credit_needed()).unwrap();
        wal.insert(&permits.issue(), credit, &mut record, &[]).unwrap();
    }
    assert_eq!(wal.flush(wal.insert_lsn(), None), Err(WalFailed::Poisoned));
}

/// The reader had come to the fork with the parent's file open, since the child's was not there yet: the first look behind the fork said
/// that the segment is missing.
#[test]
fn a_reader_finds_the_file_of_the_new_timeline_in_the_middle_of_a_segment() {
    // The fork in the middle of a page, and at a page's end.
    for bytes in [100, 8192 - 40 - 24 - 5] {
        let vfs = disk();
        let wal = start_on(&vfs, SyncMethod::Fdatasync);
        let permits = PermitIssuer::new(timeline(1));
        let mut record = RecordBuilder::new();
        let last = insert(&wal, &permits, &mut record, &vec![1; bytes]);
        let fork = wal.flush(last.end, None).unwrap();
        let history = first_history().forked(fork, timeline(2), "test");
        let mut reader = WalReader::new(source(vfs.shared(), DIR.as_ref(), history), last.start);
        reader.set_limit(fork);
        let (records, end) = read_all(&mut reader);
        assert_eq!((records.len(), end.reason), (1, EndReason::Limit));
        fork_timeline(
            &source(vfs.shared(), DIR.as_ref(), first_history()),
            fork,
            timeline(2),
            "test",
        )
        .unwrap();
        let wal = start_at(vfs.shared(), config(DIR.as_ref()), fork, last.start, timeline(2));
        let permits = PermitIssuer::new(timeline(2));
        let own = insert(&wal, &permits, &mut record, &[2; 20_000]);
        reader.set_limit(wal.flush(own.end, None).unwrap());
        match reader.next().unwrap() {
            ReadOutcome::Record(record) => assert_eq!((record.start, record.end), (own.start, own.end)),
            ReadOutcome::End(end) => panic!("fork at {fork}: {end}"),
        }
    }
}

#[test]
fn a_recycled_segment_is_not_written_before_its_new_name_is_durable() {
    // A checkpoint has renamed a segment and not synced the directory yet when the writer comes to it. Without a sync of its own the
    // commit would be durable under a name that is gone after the crash.
    let vfs = disk();
    let wal = start_on(&vfs, SyncMethod::Fdatasync);
    let permits = PermitIssuer::new(timeline(1));
    let mut record = RecordBuilder::new();
    let spare = wal
        .segments()
        .path(TimelineNumber(1), towline_wal::format::SegmentNumber(0));
    wal.segments()
        .create(TimelineNumber(1), towline_wal::format::SegmentNumber(0))
        .unwrap();
    let next = wal
        .segments()
        .path(TimelineNumber(1), towline_wal::format::SegmentNumber(2));
    vfs.rename(&spare, &next).unwrap();
    let mut inserted = Vec::new();
    while wal.insert_lsn().0 < 2 * SEGMENT + 1000 {
        let data = vec![5; 90_000];
        inserted.push((insert(&wal, &permits, &mut record, &data).start, data));
    }
    let flushed = wal.flush(wal.insert_lsn(), None).unwrap();
    let after = vfs.after_crash(Unsynced::Lost, 1);
    check(&after, &Run { flushed, inserted }, "recycled");
}
