//! Failing calls: the k-th read, write, sync, rename… fails with EIO or ENOSPC, for every k of a small workload. The node may stop or go
//! on; it never panics, and after a restart nothing that was promised is lost.
//!
//! The short form takes a sample of k; `TOWLINE_ERROR_SWEEP=all` takes each.

use super::*;
use std::num::NonZeroUsize;
use std::sync::Arc;
use towline_base::{Lsn, LsnWatch};
use towline_storage::{ControlFile, Recovery, RecoveryStep, Replayer, Storage, StorageError};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// Failures of one kind in the short form.
const SAMPLE: u64 = 12;

/// Works on a disk whose `k`-th call of this kind fails, until the first error. The disk, what was done, and whether the call came.
fn run_failing(seed: u64, op: Op, k: u64, errno: i32, sticky: bool) -> (CrashVfs, Trace, bool) {
    let vfs = CrashVfs::new();
    init(&vfs).unwrap();
    let before = vfs.count(op);
    vfs.fail_nth(op, k, errno, sticky);
    let mut trace = Trace::default();
    let mut next_rel = 20_000;
    if let Ok(mut node) = Node::start(&vfs, Sabotage::None) {
        let _ = work(&mut node, &mut Rng::new(seed), 60, &mut next_rel, &mut trace);
        // What the log has made durable by now, whoever asked for it, is promised.
        trace.acknowledged = trace.acknowledged.max(node.wal.positions().flush.get());
    }
    let came = vfs.count(op) >= before + k;
    (vfs, trace, came)
}

#[test]
fn no_failing_call_loses_what_was_promised() {
    let all = std::env::var_os("TOWLINE_ERROR_SWEEP").is_some_and(|value| value == "all");
    let mut points = 0;
    for op in Op::ALL {
        for (errno, sticky) in [(EIO, false), (ENOSPC, false), (EIO, true)] {
            let (probe, _, _) = run_failing(3, op, u64::MAX / 2, errno, sticky);
            let total = probe.count(op);
            let stride = if all { 1 } else { (total / SAMPLE).max(1) };
            let mut k = 1;
            loop {
                let (disk, trace, came) = run_failing(3, op, k, errno, sticky);
                if !came {
                    break;
                }
                let after = disk.after_crash(MODES[(k % 5) as usize], k);
                after.clear_failures();
                if let Err(error) = check(&after, &trace, 3, Sabotage::None) {
                    panic!("{op:?} number {k} fails with {errno} (sticky: {sticky}): {error}");
                }
                points += 1;
                k += stride;
            }
        }
    }
    println!("{points} failing calls");
    assert!(points > 100);
}

#[test]
fn a_failed_sync_of_a_data_file_stops_the_node_and_is_not_repeated() {
    let vfs = CrashVfs::new();
    init(&vfs).unwrap();
    let node = Node::start(&vfs, Sabotage::None).unwrap();
    node.apply(&Event::Create(20_000)).unwrap();
    node.apply(&Event::Init(20_000, 0)).unwrap();
    node.flush().unwrap();
    // Two syncs raise the bound of page LSNs in the control file's copies; then the data file's turn comes.
    vfs.fail_nth(Op::Sync, 3, EIO, false);
    node.checkpoint().unwrap_err();
    assert_eq!(
        node.storage.stop_reason(),
        Some("a data file could not be synced")
    );
    let syncs = vfs.count(Op::Sync);
    node.checkpoint().unwrap_err();
    assert_eq!(vfs.count(Op::Sync), syncs, "a failed sync was tried again");
}

/// The bound of page LSNs was raised anew after a failed sync of the control file.
#[test]
fn a_failed_sync_of_the_control_file_stops_the_node_and_is_not_repeated() {
    let vfs = CrashVfs::new();
    init(&vfs).unwrap();
    let node = Node::start(&vfs, Sabotage::None).unwrap();
    node.apply(&Event::Create(20_000)).unwrap();
    node.apply(&Event::Init(20_000, 0)).unwrap();
    node.flush().unwrap();
    vfs.fail_nth(Op::Sync, 1, EIO, false);
    node.checkpoint().unwrap_err();
    assert_eq!(
        node.storage.stop_reason(),
        Some("the control file could not be written")
    );
}

#[test]
fn a_full_disk_fails_the_extension_and_nothing_else() {
    let vfs = CrashVfs::new();
    init(&vfs).unwrap();
    let node = Node::start(&vfs, Sabotage::None).unwrap();
    node.apply(&Event::Create(20_000)).unwrap();
    node.apply(&Event::Init(20_000, 0)).unwrap();
    vfs.set_capacity(Some(0));
    let node_rel = towline_storage::smgr::relation(20_000);
    let refused = node
        .storage
        .pool()
        .extend(node_rel, towline_base::ForkKind::Main)
        .unwrap_err();
    assert_eq!(refused.sqlstate().code(), "53100", "{refused}");
    assert!(node.storage.stop_reason().is_none());
    node.apply(&Event::Put(20_000, 0, 1, 7)).unwrap();
    node.flush().unwrap();
    vfs.set_capacity(None);
    node.apply(&Event::Init(20_000, 1)).unwrap();
    node.checkpoint().unwrap();
}

/// A disk with the log of these events, its history, where redo begins and where the log ends.
fn written(events: impl Iterator<Item = Event>) -> (CrashVfs, History, Lsn, Lsn) {
    let vfs = CrashVfs::new();
    init(&vfs).unwrap();
    let node = Node::start(&vfs, Sabotage::None).unwrap();
    let mut history = History::new();
    for event in events {
        history.push((node.apply(&event).unwrap(), event));
    }
    let end = node.flush().unwrap();
    drop(node);
    let disk = vfs.after_crash(Unsynced::Lost, 1);
    let control = ControlFile::open(disk.shared(), world::ROOT.as_ref()).unwrap();
    let redo = control.get().checkpoint.redo;
    (disk, history, redo, end)
}

/// A recovery that has not begun, with so many appliers.
fn recovery(disk: &CrashVfs, end: Lsn, quorum: LsnWatch, appliers: usize) -> (Arc<Storage>, Recovery) {
    let shared = disk.shared();
    let control = ControlFile::open(Arc::clone(&shared), world::ROOT.as_ref()).unwrap();
    let redo = control.get().checkpoint.redo;
    let storage = Storage::open(Arc::clone(&shared), &world::storage_config(), control, quorum).unwrap();
    let managers = Arc::new(world::Managers);
    let replayer = Arc::new(Replayer::new(Arc::clone(&storage), managers, redo));
    let mut recovery = Recovery::begin(replayer, world::source(&shared), Some(end)).unwrap();
    if let Some(appliers) = NonZeroUsize::new(appliers) {
        recovery.apply_with(appliers, true).unwrap();
    }
    (storage, recovery)
}

#[test]
fn redo_that_meets_a_full_disk_waits_and_goes_on() {
    for appliers in [0, 1, 3] {
        let (disk, history, _, end) = written(
            [
                Event::Create(20_000),
                Event::Init(20_000, 0),
                Event::Init(20_000, 1),
                Event::Put(20_000, 1, 3, 99),
            ]
            .into_iter(),
        );
        let (_quorum, watch) = LsnWatch::new(end);
        let (storage, mut recovery) = recovery(&disk, end, watch, appliers);
        disk.set_capacity(Some(0));
        for _ in 0..2 {
            assert!(matches!(
                recovery.step(100).unwrap(),
                RecoveryStep::NoSpace(StorageError::Io { .. })
            ));
            assert!(storage.is_short_of_space());
        }
        disk.set_capacity(None);
        while !matches!(recovery.step(100).unwrap(), RecoveryStep::Done(_)) {}
        assert!(!storage.is_short_of_space() && storage.stop_reason().is_none());
        assert_eq!(recovery.replayer().replayed(), end);
        world::verify(&storage, &history, end, || Ok(())).unwrap();
    }
}

#[test]
fn redo_whose_pages_are_above_the_quorum_waits_for_it_and_goes_on() {
    for appliers in [0, 1, 3] {
        let blocks = 4 * world::storage_config().frames as u32;
        let events = std::iter::once(Event::Create(20_000)).chain(
            (0..blocks).flat_map(|block| [Event::Init(20_000, block), Event::Put(20_000, block, 3, 7)]),
        );
        let (disk, history, redo, end) = written(events);
        let (mut quorum, watch) = LsnWatch::new(redo);
        let (storage, mut recovery) = recovery(&disk, end, watch, appliers);
        let mut waits = 0;
        loop {
            match recovery.step(100).unwrap() {
                RecoveryStep::Done(_) => break,
                RecoveryStep::More => {}
                RecoveryStep::NeedsQuorum(lsn) => {
                    assert!(lsn <= end, "{lsn}");
                    // An applier may say what it waited for before the last advance.
                    if lsn > quorum.get() {
                        // Nothing has changed: it still waits.
                        assert!(matches!(
                            recovery.step(100).unwrap(),
                            RecoveryStep::NeedsQuorum(_)
                        ));
                        quorum.advance(lsn);
                        waits += 1;
                    }
                }
                RecoveryStep::NoSpace(error) => panic!("{error}"),
            }
        }
        assert!(waits > 0);
        quorum.advance(end);
        assert_eq!(recovery.replayer().replayed(), end);
        world::verify(&storage, &history, end, || Ok(())).unwrap();
    }
}

/// A node that is told to stop does not wait for what its recovery waits for.
#[test]
fn a_recovery_that_waits_may_be_dropped() {
    let blocks = 4 * world::storage_config().frames as u32;
    let events =
        std::iter::once(Event::Create(20_000)).chain((0..blocks).map(|block| Event::Init(20_000, block)));
    let (disk, _, redo, end) = written(events);
    let (_quorum, watch) = LsnWatch::new(redo);
    let (_storage, mut recovery) = recovery(&disk, end, watch, 3);
    while !matches!(recovery.step(100).unwrap(), RecoveryStep::NeedsQuorum(_)) {}
}

/// Redo extended a file to a block that no relation can have, without end.
#[test]
fn a_record_of_a_block_that_cannot_be_is_damage() {
    let vfs = CrashVfs::new();
    init(&vfs).unwrap();
    let node = Node::start(&vfs, Sabotage::None).unwrap();
    node.apply(&Event::Create(20_000)).unwrap();
    node.apply(&Event::Init(20_000, 0)).unwrap();
    let end = node.flush().unwrap();
    drop(node);
    let disk = vfs.after_crash(Unsynced::Kept, 1);
    let shared = disk.shared();
    let control = ControlFile::open(Arc::clone(&shared), world::ROOT.as_ref()).unwrap();
    let redo = control.get().checkpoint.redo;
    let (_quorum, watch) = towline_base::LsnWatch::new(end);
    let storage = Storage::open(Arc::clone(&shared), &world::storage_config(), control, watch).unwrap();
    let replayer = Replayer::new(storage, Arc::new(world::Managers), redo);
    disk.set_capacity(Some(0));
    let mut reader = towline_wal::WalReader::new(world::source(&shared), redo);
    loop {
        let towline_wal::ReadOutcome::Record(mut record) = reader.next().unwrap() else {
            panic!("the log has no record of a page");
        };
        if let Some(block) = record.blocks.first_mut() {
            block.page.block = u32::MAX;
            let refused = replayer.replay_one(&record).unwrap_err();
            assert!(
                matches!(refused, towline_storage::recovery::RedoError::Record { .. }),
                "{refused}"
            );
            return;
        }
    }
}
