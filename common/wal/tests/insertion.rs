//! Insertion, flushing and reading together, on a real directory.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::*;
use parking_lot::Mutex;
use towline_base::{
    Clock, Lsn, ManualClock, Moment, Next, PAGE_SIZE, PageId, RelFileNode, SystemClock, TimelineNumber,
    WaitOutcome,
    failpoint::{self, FailpointGuard},
};
use towline_wal::{
    Beyond, BlockFlags, EndReason, InsertError, Known, NoCredit, PermitIssuer, ReadOutcome, RecordBuilder,
    Rmgr, Wal, WalBytes, WalReader, WalWriter, retention, spawn_preallocator, spawn_writer,
};

/// Far above what any wait here takes, on a disk that stalls too.
const PATIENCE: Duration = Duration::from_secs(120);

/// Held by whoever switches segments: a failpoint stands there, which belongs to the process.
static SWITCHING: Mutex<()> = Mutex::new(());

/// For the buffers, or for a segment that is being made.
fn wait_for_credit(wal: &Wal, lsn: Lsn) {
    let room = (wal.positions().flush.get() >= lsn)
        .then(|| wal.room_wait())
        .flatten();
    let wait = room.unwrap_or_else(|| wal.positions().write.wait_for(lsn));
    wait.block(Some(PATIENCE));
}

#[test]
fn what_was_inserted_and_flushed_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let wal = start(os(), config(dir.path()));
    let permits = PermitIssuer::new(timeline(1));
    let mut record = RecordBuilder::new();
    let mut expected = Vec::new();
    for size in (0..400usize)
        .chain([8_000, 8_100, 8_168, 9_000, 100_000, 40_000])
        .cycle()
        .take(4000)
    {
        let data = vec![size as u8; size];
        let inserted = insert(&wal, &permits, &mut record, &data);
        expected.push((inserted.start, inserted.end, data));
    }
    assert_eq!(wal.flush(wal.insert_lsn(), None).unwrap(), wal.insert_lsn());
    let (records, end) = read_all(&mut reader(os(), dir.path()));
    assert!(
        records == expected,
        "{} of {} records",
        records.len(),
        expected.len()
    );
    assert_eq!((end.lsn, end.reason), (wal.insert_lsn(), EndReason::ZeroLength));
    assert!(wal.insert_lsn().0 > 2 * SEGMENT, "the test crosses segments");
}

#[test]
fn threads_insert_concurrently_and_every_record_is_found_once_in_order() {
    const THREADS: usize = 6;
    const EACH: u32 = 4000;
    let dir = tempfile::tempdir().unwrap();
    let wal = start(os(), config(dir.path()));
    let permits = PermitIssuer::new(timeline(1));
    let writer = spawn_writer(&wal, Arc::new(SystemClock), Arc::default()).unwrap();
    let preallocator = spawn_preallocator(wal.segments(), Arc::new(SystemClock)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (wal, permits) = (&wal, &permits);
            scope.spawn(move || {
                let mut record = RecordBuilder::new();
                for number in 0..EACH {
                    let mut data = vec![thread as u8; 4 + (number as usize * 7 + thread * 13) % 900];
                    data[..4].copy_from_slice(&number.to_le_bytes());
                    record.begin(Rmgr::Towline, 0x10, thread as u32).data(&data);
                    let credit = loop {
                        match wal.credit(record.credit_needed()) {
                            Ok(credit) => break credit,
                            Err(NoCredit::NeedsFlush(lsn)) => {
                                wait_for_credit(wal, lsn);
                            }
                            Err(error) => panic!("{error:?}"),
                        }
                    };
                    let inserted = wal.insert(&permits.issue(), credit, &mut record, &[]).unwrap();
                    if number % 50 == 0 {
                        wal.request_flush(inserted.end);
                        let waited = wal.positions().flush.wait_for(inserted.end).block(Some(PATIENCE));
                        assert!(matches!(waited, WaitOutcome::Reached(_)));
                    }
                }
            });
        }
    });
    wal.flush(wal.insert_lsn(), None).unwrap();
    writer.stop();
    preallocator.stop();
    let mut reader = reader(os(), dir.path());
    let mut next = [0u32; THREADS];
    let mut last = Lsn::INVALID;
    loop {
        match reader.next().unwrap() {
            ReadOutcome::Record(record) => {
                assert_eq!(record.header.prev, last);
                last = record.start;
                let thread = record.header.xid as usize;
                assert_eq!(
                    u32::from_le_bytes(*record.main.first_chunk().unwrap()),
                    next[thread]
                );
                assert!(record.main[4..].iter().all(|byte| *byte == thread as u8));
                next[thread] += 1;
            }
            ReadOutcome::End(end) => {
                assert_eq!(end.lsn, wal.insert_lsn(), "{end}");
                break;
            }
        }
    }
    assert_eq!(next, [EACH; THREADS]);
}

fn page(lsn: Lsn, lower: u16, upper: u16) -> [u8; PAGE_SIZE] {
    let mut page = [0xABu8; PAGE_SIZE];
    page[..4].copy_from_slice(&((lsn.0 >> 32) as u32).to_le_bytes());
    page[4..8].copy_from_slice(&(lsn.0 as u32).to_le_bytes());
    page[12..14].copy_from_slice(&lower.to_le_bytes());
    page[14..16].copy_from_slice(&upper.to_le_bytes());
    page[usize::from(lower)..usize::from(upper)].fill(0);
    page
}

fn page_id(block: u32) -> PageId {
    PageId::main(
        RelFileNode {
            spc: 1663,
            db: 5,
            rel: 16384,
        },
        block,
    )
}

#[test]
fn a_page_gets_an_image_once_after_each_redo_pointer() {
    let dir = tempfile::tempdir().unwrap();
    let wal = start(os(), config(dir.path()));
    let permits = PermitIssuer::new(timeline(1));
    let mut record = RecordBuilder::new();
    let mut write = |lsn: Lsn, flags: BlockFlags| {
        let page = page(lsn, 100, 8000);
        record
            .begin(Rmgr::Heap, 0, 3)
            .block(0, page_id(9), flags)
            .block_data(0, b"change")
            .data(&[1, 0, 0]);
        insert_built(&wal, &permits, &mut record, &[&page]).end
    };
    let first = write(Lsn(5), BlockFlags::STANDARD);
    let second = write(first, BlockFlags::STANDARD);
    let redo = wal.begin_checkpoint();
    let third = write(second, BlockFlags::STANDARD);
    let fourth = write(third, BlockFlags::STANDARD);
    write(Lsn(5), BlockFlags::WILL_INIT | BlockFlags::STANDARD);
    write(Lsn(5), BlockFlags::NO_IMAGE);
    write(fourth, BlockFlags::FORCE_IMAGE | BlockFlags::KEEP_DATA);
    assert!(redo >= second && redo < third);
    wal.flush(wal.insert_lsn(), None).unwrap();

    let mut reader = reader(os(), dir.path());
    let mut seen = Vec::new();
    while let ReadOutcome::Record(record) = reader.next().unwrap() {
        let block = record.block(0).unwrap();
        assert_eq!(block.page, page_id(9));
        if let Some(image) = block.image {
            let mut restored = [1u8; PAGE_SIZE];
            assert!(image.apply() && image.restore(&mut restored).is_ok());
            assert_eq!(restored[24..], page(Lsn(0), 100, 8000)[24..]);
        }
        let hole = block.image.map_or(0, |image| image.hole_length);
        seen.push((
            block.image.is_some(),
            hole,
            block.data == b"change",
            block.will_init(),
        ));
    }
    assert_eq!(
        seen,
        [
            (true, 7900, false, false),
            (false, 0, true, false),
            (true, 7900, false, false),
            (false, 0, true, false),
            (false, 0, true, true),
            (false, 0, true, false),
            (true, 0, true, false),
        ]
    );
}

#[test]
fn a_revoked_or_foreign_permit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let wal = start(os(), config(dir.path()));
    let permits = PermitIssuer::new(timeline(1));
    let permit = permits.issue();
    let mut record = RecordBuilder::new();
    record.begin(Rmgr::Towline, 0x10, 0).data(&[0; 8]);
    let before = wal.insert_lsn();
    let foreign = PermitIssuer::new(timeline(2)).issue();
    assert_eq!(
        wal.insert(&foreign, credit(&wal, 500), &mut record, &[]),
        Err(InsertError::NotPermitted)
    );
    permits.revoke();
    assert_eq!(
        wal.insert(&permit, credit(&wal, 500), &mut record, &[]),
        Err(InsertError::NotPermitted)
    );
    assert_eq!(wal.insert_lsn(), before);
}

#[test]
fn full_buffers_refuse_credit_and_a_flush_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let wal = start(os(), config(dir.path()));
    let permits = PermitIssuer::new(timeline(1));
    let mut record = RecordBuilder::new();
    record.begin(Rmgr::Towline, 0x10, 0).data(&[7; 60_000]);
    let mut count = 0;
    let needed = loop {
        match wal.credit(record.credit_needed()) {
            Ok(credit) => wal.insert(&permits.issue(), credit, &mut record, &[]).unwrap(),
            Err(NoCredit::NeedsFlush(lsn)) => break lsn,
            Err(error) => panic!("{error:?}"),
        };
        count += 1;
    };
    assert!(count > 10);
    assert!(needed > wal.positions().write.get());
    wal.flush(needed, None).unwrap();
    assert!(wal.credit(record.credit_needed()).is_ok());
    let max = wal.max_credit();
    assert_eq!(
        wal.credit(max + 1).unwrap_err(),
        NoCredit::TooLarge { bytes: max + 1, max }
    );
    // A record that outgrew its credit is refused, not inserted.
    let small = wal.credit(100).unwrap();
    assert_eq!(
        wal.insert(&permits.issue(), small, &mut record, &[]),
        Err(InsertError::TooLarge)
    );
}

#[test]
fn recent_bytes_equal_the_files_and_old_ones_are_not_given() {
    let dir = tempfile::tempdir().unwrap();
    let wal = start(os(), config(dir.path()));
    let permits = PermitIssuer::new(timeline(1));
    let mut record = RecordBuilder::new();
    let begin = Lsn(SEGMENT);
    let mut shipped = Vec::new();
    for number in 0..2000u32 {
        insert(
            &wal,
            &permits,
            &mut record,
            &vec![number as u8; (number % 700) as usize],
        );
        if number % 100 == 0 {
            while wal.read_recent(begin + shipped.len() as u64, 10_000, &mut shipped) > 0 {}
        }
    }
    while wal.read_recent(begin + shipped.len() as u64, 10_000, &mut shipped) > 0 {}
    assert_eq!(begin + shipped.len() as u64, wal.insert_lsn());
    wal.flush(wal.insert_lsn(), None).unwrap();
    let first = std::fs::read(dir.path().join("000000010000000000000001")).unwrap();
    let length = shipped.len().min(first.len());
    assert!(first[..length] == shipped[..length]);
    // Push the beginning out of the buffers.
    for _ in 0..20 {
        insert(&wal, &permits, &mut record, &[1; 100_000]);
    }
    assert_eq!(wal.read_recent(begin, 100, &mut Vec::new()), 0);
    assert_eq!(wal.read_recent(wal.insert_lsn(), 100, &mut Vec::new()), 0);
}

#[test]
fn a_segment_switch_leaves_the_rest_unused_and_reading_goes_on_behind() {
    let _alone = SWITCHING.lock();
    let dir = tempfile::tempdir().unwrap();
    let wal = start(os(), config(dir.path()));
    let permits = PermitIssuer::new(timeline(1));
    let mut record = RecordBuilder::new();
    insert(&wal, &permits, &mut record, b"before");
    let switched = loop {
        if let Some(switched) = wal.switch_segment(&permits.issue()).unwrap() {
            break switched;
        }
        wal.flush(wal.insert_lsn(), None).unwrap();
    };
    assert_eq!(switched.end, Lsn(2 * SEGMENT));
    // At a boundary there is nothing to switch.
    wal.flush(wal.insert_lsn(), None).unwrap();
    assert_eq!(
        wal.switch_segment(&permits.issue()).unwrap().unwrap().start,
        Lsn(2 * SEGMENT)
    );
    let after = insert(&wal, &permits, &mut record, b"after");
    assert_eq!(after.start, Lsn(2 * SEGMENT + 40));
    wal.flush(wal.insert_lsn(), None).unwrap();
    let (records, end) = read_all(&mut reader(os(), dir.path()));
    assert_eq!(
        records.iter().map(|record| record.0).collect::<Vec<_>>(),
        [Lsn(SEGMENT + 40), switched.start, after.start]
    );
    assert_eq!(end.lsn, wal.insert_lsn());
}

/// A lone committer found the leader's lock taken by a segment switch, and left its flush to a leader that was none.
#[test]
fn a_flush_wished_during_a_segment_switch_is_not_lost() {
    let _alone = SWITCHING.lock();
    let dir = tempfile::tempdir().unwrap();
    let wal = start(os(), config(dir.path()));
    let permits = PermitIssuer::new(timeline(1));
    let _writer = spawn_writer(&wal, Arc::new(SystemClock), Arc::default()).unwrap();
    std::thread::scope(|scope| {
        let held = FailpointGuard::new("wal::switching", failpoint::Action::Pause, 0);
        // Nothing is written yet, so the writer is not at work, and the switch need not be tried again.
        scope.spawn(|| wal.switch_segment(&permits.issue()).unwrap().unwrap());
        assert!(failpoint::wait_paused("wal::switching", PATIENCE));
        let end = insert(&wal, &permits, &mut RecordBuilder::new(), b"wished").end;
        wal.flush_here(end);
        drop(held);
        let waited = wal.positions().flush.wait_for(end).block(Some(PATIENCE));
        assert!(matches!(waited, WaitOutcome::Reached(_)), "{waited:?}");
    });
}

#[test]
fn an_idle_writer_is_woken_and_flushes_once_for_a_group() {
    let dir = tempfile::tempdir().unwrap();
    let wal = start(os(), config(dir.path()));
    let permits = PermitIssuer::new(timeline(1));
    let writer = spawn_writer(&wal, Arc::new(SystemClock), Arc::default()).unwrap();
    let flushes = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&flushes);
    wal.set_post_flush_hook(Box::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    let mut record = RecordBuilder::new();
    let end = (0..100)
        .map(|_| insert(&wal, &permits, &mut record, &[1; 100]).end)
        .last()
        .unwrap();
    wal.request_flush(end);
    let waited = wal.positions().flush.wait_for(end).block(Some(PATIENCE));
    assert!(matches!(waited, WaitOutcome::Reached(_)));
    assert_eq!(wal.sync_count(), 1);
    writer.stop();
    assert_eq!(flushes.load(Ordering::SeqCst), 1);
}

#[test]
fn an_asynchronous_commit_is_flushed_after_the_writer_delay() {
    const DELAY: Duration = Duration::from_millis(20);
    const TICK: Duration = Duration::from_millis(1);
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.tuning.writer_delay = DELAY;
    let wal = start(os(), config);
    let permits = PermitIssuer::new(timeline(1));
    // Moved here only: the writer may have looked at a real clock long before it meets the commit.
    let clock = Arc::new(ManualClock::new(0));
    let _writer = spawn_writer(&wal, clock.clone(), Arc::default()).unwrap();
    let mut record = RecordBuilder::new();
    let end = insert(&wal, &permits, &mut record, &[1; 100]).end;
    wal.request_background_flush(end);
    while wal.positions().flush.wait_for(end).block(Some(TICK)) == WaitOutcome::TimedOut {
        clock.advance(TICK);
        assert!(clock.now() < Moment(0).after(PATIENCE), "it is not flushed");
    }
    assert!(wal.positions().flush.get() >= end);
    assert!(clock.now() >= Moment(0).after(DELAY), "not at once");
}

#[test]
fn the_writers_step_waits_for_a_group_and_for_the_writer_delay() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.tuning.commit_delay = Duration::from_millis(3);
    config.tuning.commit_siblings = 2;
    let delay = config.tuning.writer_delay;
    let wal = start(os(), config);
    let permits = PermitIssuer::new(timeline(1));
    let open_transactions = Arc::new(AtomicU32::new(1));
    let mut writer = WalWriter::new(Arc::clone(&wal), Arc::clone(&open_transactions));
    let clock = ManualClock::new(0);
    let mut record = RecordBuilder::new();
    let mut commit = || insert(&wal, &permits, &mut record, &[1; 100]).end;
    let flushed = || wal.positions().flush.get();
    assert_eq!(writer.step(clock.now()), Next::Idle);

    // Alone: at once.
    let end = commit();
    wal.request_flush(end);
    assert_eq!((writer.step(clock.now()), flushed()), (Next::Now, end));
    // With company: after commit_delay, together with what came meanwhile.
    open_transactions.store(3, Ordering::Relaxed);
    wal.request_flush(commit());
    let due = clock.now().after(Duration::from_millis(3));
    assert_eq!(writer.step(clock.now()), Next::At(due));
    clock.advance(Duration::from_millis(2));
    let last = commit();
    wal.request_flush(last);
    assert_eq!(writer.step(clock.now()), Next::At(due));
    clock.advance(Duration::from_millis(1));
    assert_eq!((writer.step(clock.now()), flushed()), (Next::Now, last));
    assert_eq!(writer.step(clock.now()), Next::Idle);

    // An asynchronous commit: after wal_writer_delay.
    open_transactions.store(0, Ordering::Relaxed);
    let end = commit();
    wal.request_background_flush(end);
    assert_eq!(writer.step(clock.now()), Next::At(clock.now().after(delay)));
    clock.advance(delay);
    assert_eq!(writer.step(clock.now()), Next::Now);
    writer.step(clock.now());
    assert_eq!((writer.step(clock.now()), flushed()), (Next::Idle, end));
}

#[test]
fn a_walsender_reads_from_the_files_what_left_the_buffers() {
    let dir = tempfile::tempdir().unwrap();
    let wal = start(os(), config(dir.path()));
    let permits = PermitIssuer::new(timeline(1));
    let mut record = RecordBuilder::new();
    for number in 0..60u8 {
        insert(&wal, &permits, &mut record, &vec![number; 50_000]);
    }
    let end = wal.flush(wal.insert_lsn(), None).unwrap();
    let mut bytes = WalBytes::new(source(os(), dir.path(), first_history()));
    let (mut shipped, mut at) = (Vec::new(), Lsn(SEGMENT));
    while at < end {
        let count = bytes.read(at, end, 100_000, &mut shipped).unwrap();
        assert!(count > 0 && count <= 100_000);
        at = at + count as u64;
    }
    assert_eq!(at, end);
    let mut recent = Vec::new();
    let from = Lsn(end.0 - 400_000);
    assert_eq!(wal.read_recent(from, usize::MAX, &mut recent), 400_000);
    assert!(shipped.ends_with(&recent));
    let gone = bytes.read(Lsn(5), end, 100, &mut shipped).unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn old_segments_are_recycled_into_future_ones_and_their_old_records_are_never_read() {
    let dir = tempfile::tempdir().unwrap();
    let wal = start(os(), config(dir.path()));
    let permits = PermitIssuer::new(timeline(1));
    let mut record = RecordBuilder::new();
    for round in 0..6u8 {
        for _ in 0..30 {
            insert(&wal, &permits, &mut record, &vec![round; 40_000]);
        }
        let end = wal.flush(wal.insert_lsn(), None).unwrap();
        let size = wal.config().segment_size;
        let plan = retention::Plan {
            oldest: size.start(size.segment_of(end)),
            insert: end,
            timeline: TimelineNumber(1),
            begin: Lsn(0),
            size,
            ahead: 1,
        };
        let actions = retention::plan(&plan, wal.segments().list().unwrap());
        assert!(
            round == 0
                || actions
                    .iter()
                    .any(|action| matches!(action, retention::Action::Recycle { .. }))
        );
        wal.segments().retire(&actions).unwrap();
        let mut reader = WalReader::new(source(os(), dir.path(), first_history()), plan.oldest);
        reader.seek_first(plan.oldest).unwrap().unwrap();
        let (_, found) = read_all(&mut reader);
        assert_eq!(found.lsn, end, "{found}");
        assert_eq!(reader.look_beyond(&found, Known::default()).unwrap(), Beyond::End);
    }
    assert_eq!(wal.segments().list().unwrap().len(), 2);
}

#[test]
fn walsenders_never_see_bytes_that_are_being_overwritten() {
    // The smallest buffers, turned over many times, with readers that lag, fall out and catch up from the files.
    const SENDERS: usize = 2;
    let dir = tempfile::tempdir().unwrap();
    let wal = start(os(), config(dir.path()));
    let permits = PermitIssuer::new(timeline(1));
    let writer = spawn_writer(&wal, Arc::new(SystemClock), Arc::default()).unwrap();
    let done = AtomicU32::new(0);
    let shipped: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (wal, done, dir) = (&wal, &done, dir.path());
                scope.spawn(move || {
                    let mut files = WalBytes::new(source(os(), dir, first_history()));
                    let (mut out, mut recent) = (Vec::new(), 0u64);
                    loop {
                        let finished = done.load(Ordering::SeqCst) == 2;
                        let from = Lsn(SEGMENT + out.len() as u64);
                        let count = wal.read_recent(from, 3000 * (1 + sender * 40), &mut out);
                        recent += count as u64;
                        if count > 0 {
                            continue;
                        }
                        let written = wal.positions().write.get();
                        if from < written {
                            files.read(from, written, 100_000, &mut out).unwrap();
                        } else if finished && from >= wal.insert_lsn() {
                            assert!(recent > 0);
                            return out;
                        } else {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        for thread in 0..2u8 {
            let (wal, permits, done) = (&wal, &permits, &done);
            scope.spawn(move || {
                let mut record = RecordBuilder::new();
                for number in 0..3000usize {
                    let data = vec![thread ^ number as u8; number * 31 % 5000];
                    record.begin(Rmgr::Towline, 0x10, 0).data(&data);
                    let credit = loop {
                        match wal.credit(record.credit_needed()) {
                            Ok(credit) => break credit,
                            Err(NoCredit::NeedsFlush(lsn)) => {
                                wait_for_credit(wal, lsn);
                            }
                            Err(error) => panic!("{error:?}"),
                        }
                    };
                    wal.insert(&permits.issue(), credit, &mut record, &[]).unwrap();
                }
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    let end = wal.flush(wal.insert_lsn(), None).unwrap();
    writer.stop();
    let mut expected = Vec::new();
    let mut files = WalBytes::new(source(os(), dir.path(), first_history()));
    while SEGMENT + (expected.len() as u64) < end.0 {
        files
            .read(
                Lsn(SEGMENT + expected.len() as u64),
                end,
                usize::MAX,
                &mut expected,
            )
            .unwrap();
    }
    for bytes in shipped {
        let differs = bytes.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!((bytes.len(), differs), (expected.len(), None));
    }
}
