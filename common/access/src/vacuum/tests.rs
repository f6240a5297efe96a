//! Tests of VACUUM: what it removes, freezes and must keep.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::heap::tuple::TupleRef;
use crate::testing::*;

fn vacuum(rig: &Rig, table: &Arc<Table>, freeze: bool) -> VacuumReport {
    let mut txn = rig.begin();
    let mut op = VacuumOp::new(&txn, table.clone(), VacuumOptions::freezing(freeze)).unwrap();
    loop {
        match op.step(&mut txn).unwrap() {
            VacuumStep::More => op.await_cut(&rig.engine),
            VacuumStep::Wait(wait) => assert!(wait.block(std::time::Duration::from_secs(20)).unwrap()),
            VacuumStep::Done(report) => return report,
        }
    }
}

fn fill(rig: &Rig, table: &Arc<Table>, count: i32) -> Vec<Tid> {
    let mut txn = rig.begin();
    let tids = (0..count).map(|id| insert(&mut txn, table, (id, 0))).collect();
    commit(txn);
    tids
}

#[test]
fn dead_rows_leave_heap_and_index_and_their_space_is_used_again() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let tids = fill(&rig, &t, 2000);
    let mut txn = rig.begin();
    for tid in &tids[..1500] {
        delete(&mut txn, &t, *tid);
    }
    commit(txn);
    let before = rig.engine.storage().nblocks(t.node, ForkKind::Main).unwrap();
    let report = vacuum(&rig, &t, false);
    assert_eq!(
        (report.live_rows, report.removed, report.recently_dead),
        (500, 1500, 0)
    );
    assert_eq!(report.index_entries, 1500);
    assert_eq!(
        btree::check(rig.engine.storage().pool(), &t.indexes[0])
            .unwrap()
            .places
            .len(),
        500
    );
    assert_eq!(rig.rows(&t).len(), 500);
    fill(&rig, &table(20_000, false, 100), 1400);
    assert_eq!(
        rig.engine.storage().nblocks(t.node, ForkKind::Main).unwrap(),
        before
    );
    let rig = Rig::open(rig.crash());
    assert_eq!(rig.rows(&t).len(), 1900);
}

#[test]
fn what_an_old_snapshot_sees_stays() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let tids = fill(&rig, &t, 100);
    let mut old = rig.begin_repeatable();
    assert_eq!(rows(&mut old, &t).len(), 100);
    let mut txn = rig.begin();
    for tid in &tids {
        delete(&mut txn, &t, *tid);
    }
    commit(txn);
    let report = vacuum(&rig, &t, true);
    assert_eq!((report.removed, report.recently_dead), (0, 100));
    assert_eq!(rows(&mut old, &t).len(), 100);
    old.rollback();
    assert_eq!(vacuum(&rig, &t, true).removed, 100);
}

#[test]
fn freezing_leaves_no_xid_behind() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let tids = fill(&rig, &t, 300);
    let mut aborted = rig.begin();
    update(&mut aborted, &t, tids[0], (0, 9));
    aborted.rollback();
    let mut txn = rig.begin();
    update(&mut txn, &t, tids[1], (1, 9));
    commit(txn);
    let next = rig.engine.next_xid();
    let report = vacuum(&rig, &t, true);
    assert!(report.oldest_unfrozen >= next, "{report:?}");
    // A vacuum waits for nothing; here its records shall survive.
    let wal = rig.engine.writer().unwrap().wal.clone();
    wal.flush(wal.insert_lsn(), None).unwrap();
    let rig = Rig::open(rig.crash());
    let blocks = rig.engine.storage().nblocks(t.node, ForkKind::Main).unwrap();
    for block in 0..blocks {
        let page = rig
            .engine
            .storage()
            .pin(PageId::main(t.node, block))
            .unwrap()
            .read();
        for offset in 1..=page.max_offset() {
            if let Some(tuple) = page.item(offset).and_then(TupleRef::new) {
                assert!(
                    tuple.is_xmin_frozen() && tuple.infomask() & mask::XMAX_INVALID != 0,
                    "({block},{offset})"
                );
            }
        }
    }
    let mut expected: Vec<Row> = (0..300).map(|id| (id, 0)).collect();
    expected[1] = (1, 9);
    assert_eq!(rig.rows(&t), expected);
}

/// The catalog would say that nobody asks for the outcome of a transaction any more which rows still name.
#[test]
fn xids_that_stay_in_rows_hold_back_the_tables_oldest() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let mut txn = rig.begin();
    let tid = insert(&mut txn, &t, (100, 0));
    let inserter = txn.xid().unwrap();
    commit(txn);
    fill(&rig, &t, 10);
    assert_eq!(vacuum(&rig, &t, false).oldest_unfrozen, inserter);
    assert_eq!(vacuum(&rig, &t, true).oldest_unfrozen, rig.engine.next_xid());
    // Deleted, while somebody sees it.
    let mut old = rig.begin_repeatable();
    assert_eq!(rows(&mut old, &t).len(), 11);
    let mut txn = rig.begin();
    delete(&mut txn, &t, tid);
    let deleter = txn.xid().unwrap();
    commit(txn);
    assert_eq!(vacuum(&rig, &t, true).oldest_unfrozen, deleter);
    assert_eq!(rows(&mut old, &t).len(), 11);
}

#[test]
fn every_change_of_a_row_takes_its_pages_bits() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let mut tids = fill(&rig, &t, 400);
    let pages = rig.engine.storage().nblocks(t.node, ForkKind::Main).unwrap();
    assert_eq!(check_map(&rig.engine, &t), (0, 0));
    vacuum(&rig, &t, false);
    assert_eq!(check_map(&rig.engine, &t), (pages, 0));
    vacuum(&rig, &t, true);
    assert_eq!(check_map(&rig.engine, &t), (pages, pages));
    // A lock leaves the rows visible to all, but not without an xid.
    let mut txn = rig.begin();
    let tid = tids.remove(0);
    txn.begin_statement();
    let mut op = crate::ops::LockRowOp::new(t.clone(), tid, Default::default());
    done(&mut txn, |txn| op.step(txn));
    commit(txn);
    assert_eq!(check_map(&rig.engine, &t), (pages, pages - 1));
    let mut txn = rig.begin();
    delete(&mut txn, &t, tids.remove(0));
    assert_eq!(check_map(&rig.engine, &t), (pages - 1, pages - 1));
    // The new version goes to another page, or a new one.
    update(&mut txn, &t, *tids.last().unwrap(), (399, 1));
    let (visible, _) = check_map(&rig.engine, &t);
    assert!(visible <= pages - 2, "{visible} of {pages}");
    txn.rollback();
    let after = check_map(&rig.engine, &t);
    // Redo leaves the map as it was.
    let wal = rig.engine.writer().unwrap().wal.clone();
    wal.flush(wal.insert_lsn(), None).unwrap();
    let rig = Rig::open(rig.crash());
    assert_eq!(check_map(&rig.engine, &t), after);
    // An aborted delete does not matter to anybody.
    assert_eq!(vacuum(&rig, &t, true).live_rows, 400);
    let pages = rig.engine.storage().nblocks(t.node, ForkKind::Main).unwrap();
    assert_eq!(check_map(&rig.engine, &t), (pages, pages));
    assert_eq!(vacuum(&rig, &t, false).live_rows, 400);
    assert_eq!(rig.rows(&t).len(), 400);
}

/// Redo clears the bits again, so only a start that redoes nothing of the change tells whether the map was written with it.
#[test]
fn bits_that_a_change_takes_are_on_disk_with_the_next_checkpoint() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let tids = fill(&rig, &t, 400);
    let pages = rig.engine.storage().nblocks(t.node, ForkKind::Main).unwrap();
    vacuum(&rig, &t, true);
    let checkpoint = || {
        let wait = rig.engine.checkpoint().unwrap();
        assert!(wait.block(std::time::Duration::from_secs(20)).unwrap());
    };
    checkpoint();
    let mut txn = rig.begin();
    delete(&mut txn, &t, tids[0]);
    commit(txn);
    checkpoint();
    let rig = Rig::open(rig.crash());
    assert_eq!(check_map(&rig.engine, &t), (pages - 1, pages - 1));
}

#[test]
fn a_row_that_a_snapshot_does_not_see_keeps_its_page_out_of_the_map() {
    let rig = Rig::new();
    let t = table(20_000, false, 100);
    rig.make_table(&t);
    fill(&rig, &t, 10);
    let mut old = rig.begin_repeatable();
    assert_eq!(rows(&mut old, &t).len(), 10);
    let mut txn = rig.begin();
    insert(&mut txn, &t, (10, 0));
    commit(txn);
    let pages = rig.engine.storage().nblocks(t.node, ForkKind::Main).unwrap();
    vacuum(&rig, &t, true);
    assert_eq!(check_map(&rig.engine, &t), (pages - 1, pages - 1));
    old.rollback();
    vacuum(&rig, &t, true);
    assert_eq!(check_map(&rig.engine, &t), (pages, pages));
}

#[test]
fn empty_pages_at_the_end_are_given_back_when_nobody_is_in_the_way() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let tids = fill(&rig, &t, 2000);
    let blocks = |rig: &Rig| rig.engine.storage().nblocks(t.node, ForkKind::Main).unwrap();
    let before = blocks(&rig);
    let mut txn = rig.begin();
    for tid in &tids[500..] {
        delete(&mut txn, &t, *tid);
    }
    commit(txn);
    let tag = crate::locks::LockTag::Relation(t.oid.0);
    let mut reader = rig.begin();
    done(&mut reader, |txn| {
        txn.lock(tag, crate::locks::LockMode::AccessShare)
    });
    assert_eq!(vacuum(&rig, &t, false).cut, 0);
    assert_eq!(blocks(&rig), before);
    reader.rollback();
    let report = vacuum(&rig, &t, false);
    assert!(
        report.cut > 10 && blocks(&rig) + report.cut == before,
        "{report:?} of {before}"
    );
    let last = tids[499].block + 1;
    assert_eq!(blocks(&rig), last);
    check_map(&rig.engine, &t);
    let rig = Rig::open(rig.crash());
    assert_eq!((blocks(&rig), rig.rows(&t).len()), (last, 500));
    fill(&rig, &table(20_000, false, 100), 1400);
    vacuum(&rig, &t, true);
    check_map(&rig.engine, &t);
    assert_eq!(rig.rows(&t).len(), 1900);
}

/// A logged truncation that was dropped stopped the node.
#[test]
fn a_vacuum_that_is_cancelled_before_its_cut_leaves_the_table_usable() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let tids = fill(&rig, &t, 1000);
    let mut txn = rig.begin();
    for tid in &tids {
        delete(&mut txn, &t, *tid);
    }
    commit(txn);
    let mut txn = rig.begin();
    let mut op = VacuumOp::new(&txn, t.clone(), VacuumOptions::default()).unwrap();
    while !op.is_cutting() {
        assert!(!matches!(op.step(&mut txn).unwrap(), VacuumStep::Done(_)));
    }
    drop(op);
    txn.rollback();
    assert!(rig.engine.storage().stop_reason().is_none());
    let mut txn = rig.begin();
    for id in 0..1000 {
        insert(&mut txn, &t, (id, 1));
    }
    commit(txn);
    let rig = Rig::open(rig.crash());
    assert_eq!(rig.rows(&t).len(), 1000);
    // Redo twice: the pages on disk are newer than the record that cuts them.
    let rig = Rig::open(rig.crash());
    assert_eq!(rig.rows(&t).len(), 1000);
}

/// The rows came when vacuum had seen their pages empty, and had not got the table for itself yet.
#[test]
fn pages_that_are_filled_again_before_the_cut_stay() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let tids = fill(&rig, &t, 1000);
    let mut txn = rig.begin();
    for tid in &tids[10..] {
        delete(&mut txn, &t, *tid);
    }
    commit(txn);
    let mut txn = rig.begin();
    let mut op = VacuumOp::new(&txn, t.clone(), VacuumOptions::default()).unwrap();
    let mut step = |until: fn(Phase) -> bool, op: &mut VacuumOp| {
        while !until(op.phase) {
            if let VacuumStep::Wait(wait) = op.step(&mut txn).unwrap() {
                assert!(wait.block(std::time::Duration::from_secs(20)).unwrap());
            }
        }
    };
    step(|phase| phase == Phase::Cut, &mut op);
    let mut writer = rig.begin();
    for id in 1000..1900 {
        insert(&mut writer, &t, (id, 1));
    }
    commit(writer);
    step(|phase| phase == Phase::Done, &mut op);
    assert_eq!(rig.rows(&t).len(), 910);
    let rig = Rig::open(rig.crash());
    assert_eq!(rig.rows(&t).len(), 910);
    check_map(&rig.engine, &t);
}
