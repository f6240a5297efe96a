//! Scripts of single rules, each seen to fail with its rule switched off.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use towline_base::rules::{Rule, RuleOff};
use towline_base::vfs::{CrashVfs, Unsynced};
use towline_base::{Lsn, LsnWatch, OpenMode, TimelineId, Vfs};
use towline_storage::CheckpointParticipant;
use towline_types::Datum;
use towline_wal::format::SegmentSize;
use towline_wal::{ReadOutcome, TimelineHistory, WalReader, WalSource};

use super::driver::{COMMIT, Driver};
use super::node::{Failure, Node, config, find, long, text};
use crate::bootstrap::WAL_DIR;
use crate::catalog::Table;
use crate::ops::InsertOp;
use crate::testing::{clock, fresh_disk};
use crate::{CommitLevel, Engine, Isolation, Step, Transaction, TxnOptions};

/// A running transaction that has inserted a row.
fn inserted(node: &Node, table: &Arc<Table>, id: i32) -> Result<Transaction, Failure> {
    let mut txn = node.begin()?;
    txn.begin_statement();
    let row = [Datum::Int4(id), Datum::Int4(0), Datum::text(&long(id, 20))];
    let mut op = InsertOp::new(Arc::clone(table), &row).map_err(text)?;
    node.drive(&mut txn, |txn| op.step(txn))?;
    Ok(txn)
}

/// B1 for the status log: a commit whose record is lost is found in the files of the status log, and the next node's log passes its LSN.
fn a_lost_commit_stays_lost() -> Result<bool, Failure> {
    let vfs = fresh_disk();
    let mut driver = Driver::start(&vfs)?;
    driver.create("t", COMMIT)?;
    let table = driver.node.table("t")?.ok_or("no table")?;
    let mut lost = inserted(&driver.node, &table, 1)?;
    // Makes the row durable, too.
    driver.change("t", &[(2, Some(2))], COMMIT)?;
    let durable = driver.node.engine.storage().quorum().get();
    driver.node.drive(&mut lost, |txn| txn.commit(CommitLevel::Off))?;
    // What a checkpoint does with the status log, its redo pointer being before that commit.
    let flushed = driver.node.engine.participant.flush(durable).map_err(text)?;
    assert_eq!(flushed, towline_storage::buffer::FlushState::Done);
    let after = vfs.after_crash(Unsynced::Lost, 0);
    let mut driver = Driver::start(&after)?;
    let shown = |driver: &Driver| driver.state["t"].rows.contains_key(&1);
    if shown(&driver) {
        return Ok(false);
    }
    for round in 0..4 {
        driver.change("t", &[(2, Some(round))], COMMIT)?;
    }
    driver.state = driver.node.contents()?;
    Ok(!shown(&driver))
}

#[test]
fn a_commit_whose_record_is_lost_does_not_come_back_from_the_status_log() {
    assert!(a_lost_commit_stays_lost().unwrap());
}

#[cfg(debug_assertions)]
#[test]
fn without_the_gate_of_the_status_log_a_lost_commit_would_come_back() {
    let _off = RuleOff::new(Rule::StatusBelowQuorum);
    assert!(!a_lost_commit_stays_lost().unwrap());
}

/// B8: a hint tells everybody that a commit is there, also those whose snapshots are older.
fn an_older_snapshot_stays_as_it_was() -> Result<bool, Failure> {
    let vfs = fresh_disk();
    let mut driver = Driver::start(&vfs)?;
    driver.create("t", COMMIT)?;
    let table = driver.node.table("t")?.ok_or("no table")?;
    driver.change("t", &[(1, Some(1))], COMMIT)?;
    let options = TxnOptions {
        isolation: Isolation::RepeatableRead,
        ..TxnOptions::default()
    };
    let mut old = driver.node.engine.begin(options).map_err(text)?;
    assert!(find(&mut old, &table, 1)?.is_some());
    driver.change("t", &[(2, Some(2))], COMMIT)?;
    // Readers settle what they find.
    let mut reader = driver.node.begin()?;
    for _ in 0..3 {
        assert!(find(&mut reader, &table, 2)?.is_some());
    }
    Ok(find(&mut old, &table, 2)?.is_none())
}

#[test]
fn a_hint_is_not_set_before_every_snapshot_sees_the_commit() {
    assert!(an_older_snapshot_stays_as_it_was().unwrap());
}

#[cfg(debug_assertions)]
#[test]
fn without_that_rule_an_older_snapshot_would_see_the_commit() {
    let _off = RuleOff::new(Rule::HintsAreSettled);
    assert!(!an_older_snapshot_stays_as_it_was().unwrap());
}

pub(super) fn wal_dir() -> PathBuf {
    Path::new("/data").join(WAL_DIR)
}

/// Brings the log of another node.
fn copy_log(from: &CrashVfs, to: &CrashVfs) {
    for entry in from.read_dir(&wal_dir()).unwrap() {
        let path = wal_dir().join(&entry.name);
        let bytes = from.read_file(&path, 1 << 30).unwrap();
        let file = to.open(&path, OpenMode::Truncate).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        file.sync_all().unwrap();
    }
    to.sync_dir(&wal_dir()).unwrap();
}

/// A standby on this disk replays the log there, along this timeline, up to its end, which is at or behind `end`.
pub(super) fn replayed(disk: &CrashVfs, timeline: TimelineId, end: Lsn) -> Result<Arc<Engine>, Failure> {
    let (_quorum, watch) = LsnWatch::new(Lsn::MAX);
    let standby = Engine::open_standby(disk.shared(), clock(), config(), watch).map_err(text)?;
    let control = standby.storage().control().get();
    let history = TimelineHistory::read_of(disk, &wal_dir(), timeline).map_err(text)?;
    let source = WalSource {
        vfs: disk.shared(),
        dir: wal_dir(),
        segment_size: SegmentSize::new(control.segment_size).ok_or("no segment size")?,
        system: Some(control.system),
        history,
    };
    let mut reader = WalReader::new(source, control.checkpoint.redo);
    while let ReadOutcome::Record(record) = reader.next().map_err(text)? {
        match standby.replay(&record).map_err(text)? {
            Step::Done(()) => {}
            Step::Wait(wait) => return Err(format!("replay waits for {:?}", wait.kind())),
        }
    }
    if reader.position() < end {
        return Err("the log was not replayed to its end".to_owned());
    }
    Ok(standby)
}

/// B6: S1 is promoted with an older restartpoint than S2's, and changes a page that it has changed since its own, but that S2 has not changed
/// since hers. S2 replays that, and loses power while it writes the page. Whether S2 can begin again, whatever is torn.
fn a_torn_page_heals_on_the_new_timeline() -> Result<bool, Failure> {
    let vfs = fresh_disk();
    let mut driver = Driver::start(&vfs)?;
    driver.create("t", COMMIT)?;
    driver.change("t", &[(1, Some(1)), (2, Some(2))], COMMIT)?;
    driver.checkpoint()?;
    driver.change("t", &[(1, Some(10))], COMMIT)?;
    let first = vfs.look(|moment| moment.after_kill());
    driver.checkpoint()?;
    let second = vfs.after_crash(Unsynced::Kept, 0);
    copy_log(&second, &first);

    // The election: S1 wins, with all of the log.
    let mut promoted = Driver::start(&first)?;
    promoted.change("t", &[(1, Some(11))], COMMIT)?;
    let storage = promoted.node.engine.storage();
    let (timeline, end) = (storage.control().get().timeline, storage.quorum().get());
    copy_log(&first.look(|moment| moment.after_kill()), &second);
    let standby = replayed(&second, timeline, end)?;
    standby
        .storage()
        .control()
        .update(|data| data.timeline = timeline)
        .map_err(text)?;
    let mut pages = standby.storage().pool().write_back(Lsn::MAX);
    while pages.step().map_err(text)? != towline_storage::buffer::FlushState::Done {}
    drop(pages);
    for seed in 0..12 {
        let torn = second.look(|moment| moment.disks(&[Unsynced::Torn(512)], seed).remove(0).1);
        if replayed(&torn, timeline, end).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[test]
fn the_first_change_of_a_page_on_a_new_timeline_heals_it_everywhere() {
    assert!(a_torn_page_heals_on_the_new_timeline().unwrap());
}

#[cfg(debug_assertions)]
#[test]
fn without_images_behind_the_fork_a_page_would_stay_torn() {
    let _off = RuleOff::new(Rule::ImagesBehindFork);
    assert!(!a_torn_page_heals_on_the_new_timeline().unwrap());
}
