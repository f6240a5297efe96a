//! Xids: how a cluster lives on when their low half wraps around, when the oldest come too near to the newest, and what becomes of the
//! outcomes that nobody asks for any more.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use towline_base::{SqlState, Tid, Xid};

use super::standby_tests::Pair;
use crate::csn::XidStatus;
use crate::ops::{InsertOp, RowOutcome, UpdateOp};
use crate::testing::*;
use crate::txn::xids::XidLimits;
use crate::vacuum::{VacuumOptions, frozen};
use crate::{Engine, Step, Transaction};

/// Xids from which the low half, or its sign, is about to change.
const BORDERS: [u64; 3] = [1 << 31, 1 << 32, (1 << 32) + (1 << 31)];

fn relfrozenxid(rig: &Rig, table: &crate::catalog::Table) -> Xid {
    frozen::of_table(&rig.engine, table.oid).unwrap().unwrap()
}

fn datfrozenxid(engine: &Engine) -> Xid {
    frozen::of_database(engine).unwrap().unwrap()
}

/// Lets the counter go on as if so many transactions had been.
fn burn(rig: &Rig, count: u64) {
    let next = Xid(rig.engine.next_xid().0 + count);
    rig.engine.csn().extend_to(next).unwrap();
    rig.engine.xids().advance_to(next);
}

fn checkpoint(rig: &Rig) {
    let wait = rig.engine.checkpoint().unwrap();
    assert!(wait.block(Duration::from_secs(20)).unwrap());
}

/// Makes what was logged durable: a vacuum waits for nothing.
fn flush(rig: &Rig) {
    let wal = rig.engine.writer().unwrap().wal.clone();
    wal.flush(wal.insert_lsn(), None).unwrap();
}

fn set(rig: &Rig, table: &Arc<crate::catalog::Table>, row: Row, commits: bool) {
    let mut txn = rig.begin();
    let (tid, _) = find(&mut txn, table, row.0).unwrap();
    assert!(matches!(update(&mut txn, table, tid, row), RowOutcome::Done(_)));
    if commits {
        commit(txn);
    } else {
        txn.rollback();
    }
}

fn try_insert(txn: &mut Transaction, table: &Arc<crate::catalog::Table>, row: Row) -> crate::Result<Tid> {
    txn.begin_statement();
    let mut op = InsertOp::new(Arc::clone(table), &values(row))?;
    try_done(txn, |txn| op.step(txn))
}

#[test]
fn vacuum_tells_the_catalog_how_old_a_table_is_and_a_crash_takes_nothing_of_it_back() {
    let rig = Rig::new();
    burn(&rig, 1000);
    let t = create_table(&rig, "t");
    let made = relfrozenxid(&rig, &t);
    assert!(made >= Xid(1000), "a new table holds no old rows: {made}");
    let untouched = create_table(&rig, "untouched");
    let mut open = rig.begin();
    insert(&mut open, &t, (0, 0));
    let held = open.xid().unwrap();
    for id in 1..50 {
        let mut txn = rig.begin();
        insert(&mut txn, &t, (id, 0));
        commit(txn);
    }
    // A transaction that runs may still write there, and no table is younger than it.
    vacuum_all(&rig);
    assert_eq!(relfrozenxid(&rig, &t), held);
    assert_eq!(relfrozenxid(&rig, &untouched), held);
    assert!(datfrozenxid(&rig.engine) <= held);
    // An aborted one that a vacuum met while it ran left its rows.
    open.rollback();
    let before = rig.engine.next_xid();
    vacuum_all(&rig);
    assert!(relfrozenxid(&rig, &t) >= before);
    let oldest = datfrozenxid(&rig.engine);
    assert!(oldest >= before, "{oldest} of {before}");
    assert_eq!(rig.engine.xids().oldest_unfrozen(), oldest);
    flush(&rig);
    let rig = Rig::open(rig.crash());
    let t = table_called(&rig, "t");
    assert!(relfrozenxid(&rig, &t) >= before);
    assert_eq!(rig.engine.xids().oldest_unfrozen(), oldest);
    assert_eq!(rig.rows(&t).len(), 49);
    // A table that is vacuumed without looking at all its pages stays as old as it was.
    set(&rig, &t, (7, 1), true);
    vacuum(&rig, &t, VacuumOptions::default());
    let known = relfrozenxid(&rig, &t);
    burn(&rig, 1000);
    let report = vacuum(&rig, &t, VacuumOptions::default());
    assert!(report.left_out > 0, "{report:?}");
    assert_eq!(relfrozenxid(&rig, &t), known);
    // An age of the table that has been reached makes it thorough, and one of rows makes it freeze.
    let options = VacuumOptions {
        freeze_table_age: 900,
        freeze_min_age: 500,
        ..VacuumOptions::default()
    };
    let report = vacuum(&rig, &t, options);
    assert_eq!((report.left_out, report.frozen), (0, 1), "{report:?}");
    assert!(relfrozenxid(&rig, &t) > known);
}

/// The wait for a row was that for xid `blocker`, of which the row holds the low half.
#[test]
fn rows_locks_and_snapshots_stay_what_they_are_when_xids_wrap_around() {
    for border in BORDERS {
        let rig = Rig::open(disk_from(Xid(border - 150)));
        let t = table(20_000, true, 100);
        rig.make_table(&t);
        let mut model: Vec<Row> = (0..40).map(|id| (id, 0)).collect();
        let mut txn = rig.begin();
        for row in &model {
            insert(&mut txn, &t, *row);
        }
        commit(txn);
        let mut old = rig.begin_repeatable();
        let before = rows(&mut old, &t);
        // Holds a row from before the border until long after it.
        let mut holder = rig.begin();
        let (held, _) = find(&mut holder, &t, 39).unwrap();
        assert!(matches!(
            update(&mut holder, &t, held, (39, 7)),
            RowOutcome::Done(_)
        ));
        assert!(holder.xid().unwrap().0 < border);
        for round in 1..=300 {
            let id = round % 38;
            let commits = round % 5 != 0;
            set(&rig, &t, (id, round), commits);
            if commits {
                model[id as usize].1 = round;
            }
        }
        assert!(rig.engine.next_xid().0 > border + 100);
        let mut waiter = rig.begin();
        waiter.begin_statement();
        let mut op = UpdateOp::new(t.clone(), held, &values((39, 8))).unwrap();
        assert!(matches!(op.step(&mut waiter).unwrap(), Step::Wait(_)));
        assert_eq!(rows(&mut old, &t), before);
        commit(holder);
        assert!(matches!(
            done(&mut waiter, |txn| op.step(txn)),
            RowOutcome::Updated { .. }
        ));
        waiter.rollback();
        model[39].1 = 7;
        assert_eq!(rig.rows(&t), model);
        old.rollback();
        // Redo begins before the border.
        let rig = Rig::open(rig.crash());
        assert_eq!(rig.rows(&t), model);
        assert!(rig.engine.next_xid().0 > border);
        vacuum(&rig, &t, VacuumOptions::default());
        checkpoint(&rig);
        let rig = Rig::open(rig.crash());
        assert_eq!(rig.rows(&t), model);
        let report = vacuum(&rig, &t, VacuumOptions::freezing(true));
        assert!(report.oldest_unfrozen >= Xid(border));
        check_map(&rig.engine, &t);
        burn(&rig, 1 << 20);
        set(&rig, &t, (3, 1000), true);
        model[3].1 = 1000;
        assert_eq!(rig.rows(&t), model);
    }
}

/// The border of a reservation is any number, and xids whose low half is special are frozen rows' and nobody's.
#[test]
fn a_restart_whose_reservation_ends_at_the_border_gives_out_no_special_xid() {
    for offset in 0..4 {
        let border = 1 << 32;
        let first = Xid(border - crate::txn::xids::RESERVATION + offset);
        let rig = Rig::open(disk_from(first));
        let t = create_table(&rig, "t");
        let rig = Rig::open(rig.crash());
        let mut txn = rig.begin();
        insert(&mut txn, &t, (1, 1));
        let xid = txn.xid().unwrap();
        assert!(xid.0 >= border && xid.low32() >= 3, "{xid}");
        txn.rollback();
        assert!(rig.rows(&t).is_empty());
    }
}

#[test]
fn a_standby_follows_over_the_border() {
    let border = 1u64 << 32;
    let mut pair = pair_from(Xid(border - 60));
    let t = create_table(&pair.rig, "t");
    let mut txn = pair.rig.begin();
    for id in 0..20 {
        insert(&mut txn, &t, (id, 0));
    }
    commit(txn);
    assert!(pair.catch_up().is_none());
    let (mut old, flags) = pair.standby_reader();
    assert_eq!(rows(&mut old, &t).len(), 20);
    let mut open = pair.rig.begin();
    insert(&mut open, &t, (100, 0));
    for round in 1..=150 {
        set(&pair.rig, &t, (round % 20, round), round % 7 != 0);
    }
    assert!(pair.rig.engine.next_xid().0 > border + 50);
    assert!(pair.catch_up().is_none());
    assert!(!flags.is_conflict());
    assert!(rows(&mut old, &t).iter().all(|(_, row)| row.1 == 0));
    let expected = pair.rig.rows(&t);
    let (mut new, _) = pair.standby_reader();
    let shown =
        |txn: &mut Transaction| -> Vec<Row> { rows(txn, &t).into_iter().map(|(_, row)| row).collect() };
    assert_eq!(shown(&mut new), expected);
    commit(open);
    // Freezing, and what the catalog says of it, arrive as well.
    vacuum_all(&pair.rig);
    checkpoint(&pair.rig);
    flush(&pair.rig);
    assert!(pair.catch_up().is_none());
    assert_eq!(datfrozenxid(&pair.standby), datfrozenxid(&pair.rig.engine));
    assert!(datfrozenxid(&pair.standby) > Xid(border));
    assert_eq!(
        pair.standby.xids().oldest_unfrozen(),
        pair.rig.engine.xids().oldest_unfrozen()
    );
    let (mut new, _) = pair.standby_reader();
    assert_eq!(shown(&mut new), pair.rig.rows(&t));
    check_map(&pair.standby, &t);
}

#[test]
fn a_database_whose_oldest_rows_are_too_old_refuses_changes_until_they_are_frozen() {
    let limited = || crate::EngineConfig {
        xid_limits: XidLimits {
            warn: 60_000,
            stop: 100_000,
        },
        ..config()
    };
    let rig = Rig::try_open_with(disk_from(Xid(1 << 32)), limited()).unwrap();
    let t = create_table(&rig, "t");
    let mut txn = rig.begin();
    let tids: Vec<Tid> = (0..1000).map(|id| insert(&mut txn, &t, (id, 0))).collect();
    commit(txn);
    let mut txn = rig.begin();
    for tid in &tids[10..] {
        delete(&mut txn, &t, *tid);
    }
    commit(txn);
    burn(&rig, 100_000);
    assert!(rig.engine.xids().is_exhausted());
    let mut txn = rig.begin();
    let error = try_insert(&mut txn, &t, (1000, 0)).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::PROGRAM_LIMIT_EXCEEDED);
    txn.rollback();
    assert_eq!(rig.rows(&t).len(), 10);
    checkpoint(&rig);
    // A start does not help; and VACUUM needs no xid, not even to cut the end off.
    let rig = Rig::try_open_with(rig.crash(), limited()).unwrap();
    let t = table_called(&rig, "t");
    assert!(rig.engine.xids().is_exhausted());
    vacuum(&rig, &t, VacuumOptions::freezing(true));
    assert!(rig.engine.xids().is_exhausted(), "other tables are as old");
    vacuum_all(&rig);
    assert!(!rig.engine.xids().is_exhausted());
    flush(&rig);
    // Nor does a crash undo it, although no checkpoint has been.
    let rig = Rig::try_open_with(rig.crash(), limited()).unwrap();
    assert!(!rig.engine.xids().is_exhausted());
    let mut txn = rig.begin();
    try_insert(&mut txn, &t, (1000, 0)).unwrap();
    commit(txn);
    assert_eq!(rig.rows(&t).len(), 11);
}

/// A primary and its standby that begin with this xid.
fn pair_from(first: Xid) -> Pair {
    let made = disk_from(first);
    let copy = || made.after_crash(towline_base::vfs::Unsynced::Kept, 0);
    Pair::from(copy(), copy())
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "waiting for {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Xids in one file of the CSN log.
const XIDS_PER_FILE: u64 = 1024 * 1008;

#[test]
fn outcomes_go_with_the_checkpoint_after_their_rows_are_frozen_and_not_before() {
    let mut pair = pair_from(Xid(XIDS_PER_FILE - 300));
    let t = create_table(&pair.rig, "t");
    for id in 0..100 {
        let mut txn = pair.rig.begin();
        insert(&mut txn, &t, (id, 0));
        if id % 3 == 0 {
            txn.rollback();
        } else {
            commit(txn);
        }
    }
    let expected = pair.rig.rows(&t);
    let first = pair.rig.engine.next_xid();
    burn(&pair.rig, XIDS_PER_FILE);
    set(&pair.rig, &t, (1, 1), true);
    set(&pair.rig, &t, (1, 0), true);
    checkpoint(&pair.rig);
    assert_eq!(pair.rig.engine.csn().file_numbers(), [0, 1]);
    assert_eq!(pair.rig.rows(&t), expected);
    vacuum_all(&pair.rig);
    assert_eq!(pair.rig.engine.csn().file_numbers(), [0, 1]);
    flush(&pair.rig);
    assert!(pair.catch_up().is_none());
    checkpoint(&pair.rig);
    wait_until("the first file to go", || {
        pair.rig.engine.csn().file_numbers() == [1]
    });
    assert!(pair.rig.engine.csn().status(Xid(first.0 - 1)).is_err());
    assert_eq!(pair.rig.rows(&t), expected);
    // The standby has its own log of outcomes, and its own checkpoints.
    flush(&pair.rig);
    assert!(pair.catch_up().is_none());
    pair.standby.start_restartpoints(None).unwrap();
    assert!(pair.standby.checkpoint().is_none());
    let control = pair.standby.storage().control();
    wait_until("the standby's old outcomes to go", || {
        control.get().checkpoint.oldest_xid > first && pair.standby.csn().file_numbers().first() != Some(&0)
    });
    let (mut reader, _) = pair.standby_reader();
    let shown: Vec<Row> = rows(&mut reader, &t).into_iter().map(|(_, row)| row).collect();
    assert_eq!(shown, expected);
    drop(reader);
    pair.standby.stop_abruptly();
    let rig = Rig::open(pair.rig.crash());
    assert_eq!(rig.rows(&table_called(&rig, "t")), expected);
    assert_eq!(rig.engine.csn().file_numbers().first(), Some(&1));
    // A restart begins behind the reservation, at xids that nobody had.
    assert!(matches!(
        rig.engine.csn().status(Xid(rig.engine.next_xid().0 - 1)),
        Ok(XidStatus::Aborted | XidStatus::InProgress)
    ));
}

/// The reservation stood before the redo pointer only: a start from there gave out again what a lost tail may have used.
#[test]
fn xids_reserved_before_a_checkpoint_are_not_given_out_again_by_a_start_from_it() {
    let rig = Rig::new();
    let t = create_table(&rig, "t");
    let mut txn = rig.begin();
    insert(&mut txn, &t, (1, 1));
    commit(txn);
    checkpoint(&rig);
    // Heard of by its client, and lost: nothing of it reaches the disk.
    let mut lost = rig.begin();
    insert(&mut lost, &t, (2, 2));
    let xid = lost.xid().unwrap();
    let disk = rig.crash_with(towline_base::vfs::Unsynced::Lost, 1);
    drop(lost);
    let rig = Rig::open(disk);
    assert!(rig.engine.next_xid() > xid, "{xid} would be given out again");
}
