//! Tests of the engine as a whole: isolation, row queues, deadlock, HOT chains, restart.
#![allow(clippy::unwrap_used)]
use std::sync::Arc;
use std::time::Duration;

use towline_base::vfs::crash::Op;
use towline_base::{Lsn, SqlState, Tid, Xid};
use towline_wal::format::WAL_PAGE;
use towline_wal::records::towline::TowlineOp;
use towline_wal::{Rmgr, credit_for};

use crate::locks::{LockMode, LockTag};
use crate::ops::{InsertOp, LockRowOp, LockWait, RowOutcome, UpdateOp};
use crate::testing::*;
use crate::{CommitLevel, Isolation, Step, Wait, WaitKind};

fn lock_row(txn: &mut crate::Transaction, table: &Arc<crate::catalog::Table>, tid: Tid) -> RowOutcome {
    txn.begin_statement();
    let mut op = LockRowOp::new(Arc::clone(table), tid, LockWait::Wait);
    done(txn, |txn| op.step(txn))
}

/// One step of an update; the wait if it has to.
fn try_update(txn: &mut crate::Transaction, op: &mut UpdateOp) -> std::result::Result<RowOutcome, Wait> {
    match op.step(txn).unwrap() {
        Step::Done(outcome) => Ok(outcome),
        Step::Wait(wait) => Err(wait),
    }
}

#[test]
fn a_committed_row_is_seen_after_its_release_and_survives_a_crash() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let mut txn = rig.begin();
    insert(&mut txn, &t, (1, 10));
    assert_eq!(rig.rows(&t), vec![]);
    assert_eq!(rows(&mut txn, &t).len(), 1);
    commit(txn);
    assert_eq!(rig.rows(&t), vec![(1, 10)]);
    let mut lost = rig.begin();
    insert(&mut lost, &t, (2, 20));
    std::mem::forget(lost);
    let rig = Rig::open(rig.crash());
    assert_eq!(rig.rows(&t), vec![(1, 10)]);
    // Life goes on, and the next start finds it, too.
    let mut txn = rig.begin();
    insert(&mut txn, &t, (3, 30));
    commit(txn);
    rig.engine.shutdown().unwrap();
    let rig = Rig::open(rig.crash());
    assert_eq!(rig.rows(&t), vec![(1, 10), (3, 30)]);
}

#[test]
fn a_rolled_back_transaction_leaves_nothing_to_see() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let mut txn = rig.begin();
    let tid = insert(&mut txn, &t, (1, 10));
    commit(txn);
    let mut txn = rig.begin();
    insert(&mut txn, &t, (2, 20));
    update(&mut txn, &t, tid, (1, 11));
    txn.rollback();
    assert_eq!(rig.rows(&t), vec![(1, 10)]);
    // Its keys are free again.
    let mut txn = rig.begin();
    insert(&mut txn, &t, (2, 22));
    commit(txn);
    assert_eq!(rig.rows(&t), vec![(1, 10), (2, 22)]);
}

#[test]
fn an_update_waits_for_the_row_and_is_told_of_the_newer_version() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let mut txn = rig.begin();
    let tid = insert(&mut txn, &t, (1, 10));
    commit(txn);
    let (mut first, mut second) = (rig.begin(), rig.begin());
    second.begin_statement();
    let RowOutcome::Done(newer) = update(&mut first, &t, tid, (1, 11)) else {
        panic!("must be done")
    };
    let mut op = UpdateOp::new(t.clone(), tid, &values((1, 12))).unwrap();
    let wait = try_update(&mut second, &mut op).unwrap_err();
    assert_eq!(wait.kind(), WaitKind::Row);
    commit(first);
    assert!(wait.block(Duration::from_secs(20)).unwrap());
    assert_eq!(
        try_update(&mut second, &mut op).unwrap(),
        RowOutcome::Updated { newest: newer }
    );
    op.retarget(newer, &values((1, 23))).unwrap();
    assert!(matches!(
        try_update(&mut second, &mut op).unwrap(),
        RowOutcome::Done(_)
    ));
    commit(second);
    assert_eq!(rig.rows(&t), vec![(1, 23)]);
}

/// The next statement of the transaction took the older snapshot's place, and what the portal was still to read was pruned.
#[test]
fn a_suspended_portal_keeps_its_snapshot_while_other_statements_run() {
    let rig = Rig::new();
    let t = table(20_000, false, 100);
    rig.make_table(&t);
    let mut txn = rig.begin();
    let tid = insert(&mut txn, &t, (1, 10));
    commit(txn);
    for isolation in [Isolation::ReadCommitted, Isolation::RepeatableRead] {
        let mut reader = begin(&rig.engine, isolation);
        let portal = reader.begin_statement();
        let mut txn = rig.begin();
        insert(&mut txn, &t, (2, 20));
        commit(txn);
        let next = reader.begin_statement();
        assert_eq!(next.lsn > portal.lsn, isolation == Isolation::ReadCommitted);
        assert!(reader.latest_snapshot().lsn > portal.lsn);
        assert!(rig.engine.vacuum_horizon() <= portal.lsn);
        // Once the last portal has ended, nothing is kept for it.
        reader.end_statement();
        let kept = rig.engine.vacuum_horizon() <= portal.lsn;
        assert_eq!(kept, isolation == Isolation::RepeatableRead);
        assert!(find_at(&reader, &portal, &t, 1).is_some_and(|found| found == tid));
    }
}

/// The change had begun when it met the damage, and so the node stopped, again after each restart.
#[test]
fn page_damage_that_a_change_meets_is_named_and_fails_the_statement_alone() {
    let rig = Rig::new();
    let t = table(20_000, false, 100);
    rig.make_table(&t);
    let mut txn = rig.begin();
    let tids: Vec<Tid> = (1..=3).map(|id| insert(&mut txn, &t, (id, 0))).collect();
    commit(txn);
    let id = towline_base::PageId::main(t.node, tids[0].block);
    {
        let mut page = rig.engine.storage().pin(id).unwrap().write();
        let bytes = page.hint_mut();
        // One tuple's header contradicts its length, another stands where the next new one will.
        bytes.item_mut(tids[0].offset).unwrap()[22] = 255;
        let item = bytes.item_id(tids[1].offset).unwrap();
        let moved = bytes.upper() - 48;
        bytes
            .as_bytes_mut()
            .copy_within(item.offset()..item.offset() + item.len(), moved);
        let item = towline_storage::ItemId::normal(moved, item.len());
        bytes.set_item_id(tids[1].offset, item).unwrap();
    }
    for tid in &tids[..2] {
        let mut txn = rig.begin();
        txn.begin_statement();
        let mut op = UpdateOp::new(t.clone(), *tid, &values((1, 1))).unwrap();
        let error = op.step(&mut txn).unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::DATA_CORRUPTED, "{error}");
        assert!(error.to_string().contains(&id.to_string()), "{error}");
    }
    assert!(!rig.engine.has_failed());
    let mut txn = rig.begin();
    update(&mut txn, &t, tids[2], (3, 1));
    commit(txn);
}

#[test]
fn repeatable_read_refuses_what_changed_since_its_snapshot() {
    let rig = Rig::new();
    let t = table(20_000, false, 100);
    rig.make_table(&t);
    let mut txn = rig.begin();
    let tid = insert(&mut txn, &t, (1, 10));
    let other = insert(&mut txn, &t, (2, 20));
    commit(txn);
    let mut old = rig.begin_repeatable();
    assert_eq!(rows(&mut old, &t).len(), 2);
    let mut txn = rig.begin();
    update(&mut txn, &t, tid, (1, 11));
    delete(&mut txn, &t, other);
    commit(txn);
    // Its own snapshot stays.
    assert_eq!(
        rows(&mut old, &t)
            .into_iter()
            .map(|(_, row)| row)
            .collect::<Vec<_>>(),
        vec![(1, 10), (2, 20)]
    );
    old.begin_statement();
    let mut op = UpdateOp::new(t.clone(), tid, &values((1, 12))).unwrap();
    let error = op.step(&mut old).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::SERIALIZATION_FAILURE);
    let mut op = crate::ops::DeleteOp::new(t.clone(), other);
    assert_eq!(
        op.step(&mut old).unwrap_err().sqlstate(),
        SqlState::SERIALIZATION_FAILURE
    );
}

#[test]
fn write_skew_is_allowed_in_repeatable_read_and_lost_updates_are_not() {
    let rig = Rig::new();
    let t = table(20_000, false, 100);
    rig.make_table(&t);
    let mut txn = rig.begin();
    let a = insert(&mut txn, &t, (1, 1));
    let b = insert(&mut txn, &t, (2, 1));
    commit(txn);
    let (mut x, mut y) = (rig.begin_repeatable(), rig.begin_repeatable());
    assert_eq!(rows(&mut x, &t).len() + rows(&mut y, &t).len(), 4);
    assert!(matches!(update(&mut x, &t, a, (1, 0)), RowOutcome::Done(_)));
    assert!(matches!(update(&mut y, &t, b, (2, 0)), RowOutcome::Done(_)));
    commit(x);
    commit(y);
    assert_eq!(rig.rows(&t), vec![(1, 0), (2, 0)]);
}

#[test]
fn a_statement_does_not_see_its_own_rows_and_a_command_changes_a_row_once() {
    let rig = Rig::new();
    let t = table(20_000, false, 100);
    rig.make_table(&t);
    let mut txn = rig.begin();
    let snapshot = txn.begin_statement();
    let mut op = InsertOp::new(t.clone(), &values((1, 1))).unwrap();
    let tid = done(&mut txn, |txn| op.step(txn));
    let found = crate::heap::fetch::fetch(&txn, &snapshot, t.node, tid).unwrap();
    assert!(found.is_none());
    drop(found);
    txn.begin_statement();
    assert_eq!(read_at(&mut txn, &t, tid), Some((1, 1)));
    let mut op = UpdateOp::new(t.clone(), tid, &values((1, 2))).unwrap();
    let RowOutcome::Done(newer) = done(&mut txn, |txn| op.step(txn)) else {
        panic!("must be done")
    };
    let mut again = UpdateOp::new(t.clone(), tid, &values((1, 3))).unwrap();
    assert_eq!(done(&mut txn, |txn| again.step(txn)), RowOutcome::SelfModified);
    txn.begin_statement();
    assert_eq!(read_at(&mut txn, &t, tid), Some((1, 2)));
    assert!(matches!(delete(&mut txn, &t, newer), RowOutcome::Done(_)));
    assert_eq!(rows(&mut txn, &t), vec![]);
    commit(txn);
    assert_eq!(rig.rows(&t), vec![]);
}

#[test]
fn hot_updates_stay_on_their_page_and_pruning_keeps_them_there() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let mut txn = rig.begin();
    let root = insert(&mut txn, &t, (1, 0));
    commit(txn);
    for value in 1..2000 {
        let mut txn = rig.begin();
        let (tid, row) = find(&mut txn, &t, 1).unwrap();
        assert_eq!(row.1, value - 1);
        assert!(matches!(
            update(&mut txn, &t, tid, (1, value)),
            RowOutcome::Done(_)
        ));
        commit_at(txn, CommitLevel::Off);
    }
    // The index still leads to the row through the first address.
    let mut txn = rig.begin();
    txn.begin_statement();
    assert_eq!(read_at(&mut txn, &t, root), Some((1, 1999)));
    let blocks = rig
        .engine
        .storage()
        .nblocks(t.node, towline_base::ForkKind::Main)
        .unwrap();
    assert_eq!(blocks, 1);
}

#[test]
fn an_old_snapshot_keeps_its_versions_from_pruning() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let mut txn = rig.begin();
    insert(&mut txn, &t, (1, 0));
    commit(txn);
    let mut old = rig.begin_repeatable();
    assert_eq!(rows(&mut old, &t).len(), 1);
    for value in 1..600 {
        let mut txn = rig.begin();
        let (tid, _) = find(&mut txn, &t, 1).unwrap();
        update(&mut txn, &t, tid, (1, value));
        commit_at(txn, CommitLevel::Off);
    }
    assert_eq!(
        rows(&mut old, &t)
            .into_iter()
            .map(|(_, row)| row)
            .collect::<Vec<_>>(),
        vec![(1, 0)]
    );
}

#[test]
fn a_unique_key_waits_for_its_holder_and_then_conflicts_or_not() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    for (commits, row) in [(false, (1, 10)), (true, (2, 20))] {
        let mut holder = rig.begin();
        insert(&mut holder, &t, row);
        let mut other = rig.begin();
        other.begin_statement();
        let mut op = InsertOp::new(t.clone(), &values((row.0, 99))).unwrap();
        let Step::Wait(wait) = op.step(&mut other).unwrap() else {
            panic!("must wait")
        };
        if commits {
            commit(holder);
        } else {
            holder.rollback();
        }
        assert!(wait.block(Duration::from_secs(20)).unwrap());
        if commits {
            let error = op.step(&mut other).unwrap_err();
            assert_eq!(error.sqlstate(), SqlState::UNIQUE_VIOLATION);
            assert_eq!(
                error.fields().detail.as_deref(),
                Some("Key (id)=(2) already exists.")
            );
            other.rollback();
        } else {
            assert!(matches!(op.step(&mut other).unwrap(), Step::Done(_)));
            commit(other);
        }
    }
    assert_eq!(rig.rows(&t), vec![(1, 99), (2, 20)]);
}

#[test]
fn waiters_of_a_row_are_served_in_order_and_only_the_head_wakes() {
    let rig = Rig::new();
    let t = table(20_000, false, 100);
    rig.make_table(&t);
    let mut txn = rig.begin();
    let tid = insert(&mut txn, &t, (1, 0));
    commit(txn);
    let mut holder = rig.begin();
    let RowOutcome::Done(mut newest) = update(&mut holder, &t, tid, (1, 1)) else {
        panic!("must be done")
    };
    let mut waiters = Vec::new();
    for value in 2..6 {
        let mut txn = rig.begin();
        txn.begin_statement();
        let mut op = UpdateOp::new(t.clone(), tid, &values((1, value))).unwrap();
        let wait = try_update(&mut txn, &mut op).unwrap_err();
        waiters.push((txn, op, wait, value));
    }
    commit(holder);
    while !waiters.is_empty() {
        let (mut txn, mut op, wait, value) = waiters.remove(0);
        assert!(wait.block(Duration::from_secs(20)).unwrap());
        for (_, _, other, _) in &waiters {
            assert!(!other.is_ready_for_test(), "only the head wakes");
        }
        let RowOutcome::Updated { newest: found } = try_update(&mut txn, &mut op).unwrap() else {
            panic!("the row has changed")
        };
        // The chain is followed to its end.
        let mut at = found;
        loop {
            op.retarget(at, &values((1, value))).unwrap();
            match try_update(&mut txn, &mut op).unwrap() {
                RowOutcome::Updated { newest } => at = newest,
                RowOutcome::Done(tid) => {
                    newest = tid;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        commit(txn);
    }
    let mut txn = rig.begin();
    assert_eq!(find(&mut txn, &t, 1), Some((newest, (1, 5))));
}

#[test]
fn a_deadlock_is_found_and_told_to_one_of_the_two() {
    let rig = Rig::new();
    let t = table(20_000, false, 100);
    rig.make_table(&t);
    let mut txn = rig.begin();
    let a = insert(&mut txn, &t, (1, 0));
    let b = insert(&mut txn, &t, (2, 0));
    commit(txn);
    let (mut x, mut y) = (rig.begin(), rig.begin());
    update(&mut x, &t, a, (1, 1));
    update(&mut y, &t, b, (2, 1));
    x.begin_statement();
    let mut x_op = UpdateOp::new(t.clone(), b, &values((2, 2))).unwrap();
    let x_wait = try_update(&mut x, &mut x_op).unwrap_err();
    assert!(x_wait.check_deadlock().is_ok());
    y.begin_statement();
    let mut y_op = UpdateOp::new(t.clone(), a, &values((1, 2))).unwrap();
    let y_wait = try_update(&mut y, &mut y_op).unwrap_err();
    assert_eq!(
        y_wait.check_deadlock().unwrap_err().sqlstate(),
        SqlState::DEADLOCK_DETECTED
    );
    drop(y_op);
    y.rollback();
    assert!(x_wait.block(Duration::from_secs(20)).unwrap());
    assert!(matches!(
        try_update(&mut x, &mut x_op).unwrap(),
        RowOutcome::Done(_)
    ));
    commit(x);
    assert_eq!(rig.rows(&t), vec![(1, 1), (2, 2)]);
}

#[test]
fn a_locked_row_can_be_skipped_refused_or_waited_for() {
    let rig = Rig::new();
    let t = table(20_000, false, 100);
    rig.make_table(&t);
    let mut txn = rig.begin();
    let tid = insert(&mut txn, &t, (1, 0));
    commit(txn);
    let mut holder = rig.begin();
    holder.begin_statement();
    let mut lock = LockRowOp::new(t.clone(), tid, LockWait::Wait);
    assert_eq!(done(&mut holder, |txn| lock.step(txn)), RowOutcome::Done(tid));
    let mut other = rig.begin();
    other.begin_statement();
    let mut skip = LockRowOp::new(t.clone(), tid, LockWait::Skip);
    assert_eq!(done(&mut other, |txn| skip.step(txn)), RowOutcome::Skipped);
    let mut refuse = LockRowOp::new(t.clone(), tid, LockWait::NoWait);
    assert_eq!(
        refuse.step(&mut other).unwrap_err().sqlstate(),
        SqlState::LOCK_NOT_AVAILABLE
    );
    let mut waits = LockRowOp::new(t.clone(), tid, LockWait::Wait);
    let Step::Wait(wait) = waits.step(&mut other).unwrap() else {
        panic!("must wait")
    };
    // Readers do not care.
    assert_eq!(rig.rows(&t), vec![(1, 0)]);
    // The holder may update what it has locked.
    let RowOutcome::Done(newer) = update(&mut holder, &t, tid, (1, 1)) else {
        panic!("must be done")
    };
    commit(holder);
    assert!(wait.block(Duration::from_secs(20)).unwrap());
    assert_eq!(
        done(&mut other, |txn| waits.step(txn)),
        RowOutcome::Updated { newest: newer }
    );
    waits.retarget(newer);
    assert_eq!(done(&mut other, |txn| waits.step(txn)), RowOutcome::Done(newer));
}

#[test]
fn rows_move_to_other_pages_and_back_pressure_does_not_break_them() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let mut op = crate::ops::MultiInsertOp::new(t.clone());
    let mut txn = rig.begin();
    txn.begin_statement();
    for id in 0..3000 {
        if op.push(&values((id, 0))).unwrap() {
            done(&mut txn, |txn| op.step(txn));
        }
    }
    done(&mut txn, |txn| op.step(txn));
    commit(txn);
    let mut txn = rig.begin();
    for (tid, (id, value)) in rows(&mut txn, &t) {
        assert!(matches!(
            update(&mut txn, &t, tid, (id, value + 1)),
            RowOutcome::Done(_)
        ));
    }
    commit(txn);
    let expected: Vec<Row> = (0..3000).map(|id| (id, 1)).collect();
    assert_eq!(rig.rows(&t), expected);
    let rig = Rig::open(rig.crash());
    assert_eq!(rig.rows(&t), expected);
}

/// The wait for room was over at once, again and again: the session burned its thread, and neither a cancel nor a timeout reached it.
#[test]
fn a_full_disk_of_the_log_makes_writers_wait_and_not_spin() {
    let rig = Rig::new();
    let t = table(20_000, false, 100);
    rig.make_table(&t);
    let wal = Arc::clone(&rig.engine.writer().unwrap().wal);
    // Only segments are renamed when they are made.
    rig.vfs.fail_nth(Op::Rename, 1, 28, true);
    let mut txn = rig.begin();
    txn.begin_statement();
    // Since the last row: a session that spins gets no further.
    let limit = || std::time::Instant::now() + Duration::from_secs(20);
    let mut deadline = limit();
    let mut op = InsertOp::new(t.clone(), &values((1, 1))).unwrap();
    let held = loop {
        assert!(std::time::Instant::now() < deadline, "nobody waits for room");
        match op.step(&mut txn).unwrap() {
            Step::Done(_) => {
                op.reset(&values((1, 1))).unwrap();
                deadline = limit();
            }
            Step::Wait(wait) => {
                let flushed = wal.positions().flush.get();
                let nothing_to_flush = matches!(wait.kind(), WaitKind::Flush(lsn) if lsn <= flushed);
                // Else it waits for a segment that is being looked for.
                let full = wal.segments().shortage() != Lsn::MAX;
                match wait.block_briefly(Duration::ZERO).unwrap() {
                    Err(wait) if nothing_to_flush && full => break wait,
                    Err(wait) => assert!(wait.block(Duration::from_secs(20)).unwrap()),
                    Ok(()) => {}
                }
            }
        }
    };
    assert!(!rig.engine.has_failed());
    // A transaction that has changed something can end.
    commit(txn);
    assert!(!rig.engine.has_failed());
    // With room again changes go on.
    rig.vfs.clear_failures();
    assert!(held.block(Duration::from_secs(20)).unwrap());
    let mut other = rig.begin();
    other.begin_statement();
    op.reset(&values((2, 2))).unwrap();
    done(&mut other, |txn| op.step(txn));
    commit(other);
}

/// The redo pointer of a checkpoint that began at a page's end stood behind the next page's header, where an idle log never gets: one checkpoint
/// in a thousand, that of a shutdown too, waited for ever.
#[test]
fn a_checkpoint_ends_when_the_log_rests_at_the_end_of_a_page() {
    let rig = Rig::new();
    let wal = Arc::clone(&rig.engine.writer().unwrap().wal);
    // A record has a header of 24 bytes, and its data one of 2, or of 5 when they are longer than a byte says.
    while wal.insert_lsn().page_offset() != 0 {
        let room = WAL_PAGE - wal.insert_lsn().page_offset();
        let data = vec![0u8; if room > 300 { room - 29 } else { room.max(32) - 26 }];
        let credit = match rig.engine.credit(credit_for(0, data.len())).unwrap() {
            Step::Done(credit) => credit,
            Step::Wait(wait) => panic!("{wait:?}"),
        };
        let info = TowlineOp::QuorumNote as u8;
        rig.engine
            .insert_plain(credit, Rmgr::Towline, info, Xid::INVALID, |record| {
                record.data(&data);
            })
            .unwrap();
    }
    let checkpoint = rig.engine.checkpoint().unwrap();
    assert!(checkpoint.block(Duration::from_secs(20)).unwrap());
    rig.engine.shutdown().unwrap();
}

/// However a transaction gives up (a cancel, a timeout, a client that has gone, a panic), it is dropped: while it waits for a lock, and when the
/// lock was granted and it has not come to take it.
#[test]
fn a_transaction_that_gives_up_in_a_lock_queue_passes_its_turn_on() {
    let rig = Rig::new();
    let tag = LockTag::Relation(77);
    let queue = |txn: &mut crate::Transaction, mode| match txn.lock(tag, mode).unwrap() {
        Step::Wait(wait) => wait,
        Step::Done(()) => panic!("the lock is not free"),
    };
    for granted in [false, true] {
        let (mut holder, mut first, mut second) = (rig.begin(), rig.begin(), rig.begin());
        done(&mut holder, |txn| txn.lock(tag, LockMode::Share));
        let first_wait = queue(&mut first, LockMode::AccessExclusive);
        let second_wait = queue(&mut second, LockMode::Share);
        if granted {
            drop(holder);
            assert!(first_wait.is_ready_for_test() && !second_wait.is_ready_for_test());
        }
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _first = first;
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(unwound.is_err());
        assert!(second_wait.is_ready_for_test(), "granted: {granted}");
        done(&mut second, |txn| txn.lock(tag, LockMode::Share));
        drop((second, first_wait));
    }
    assert!(rig.begin().try_lock(tag, LockMode::AccessExclusive).is_ok());
    assert!(rig.engine.locks().relations.rows().is_empty());
}

/// The same for a row, through the operations.
#[test]
fn an_update_that_gives_up_in_a_row_queue_passes_its_turn_on() {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let mut txn = rig.begin();
    let tid = insert(&mut txn, &t, (1, 0));
    commit(txn);
    for woken in [false, true] {
        let mut holder = rig.begin();
        assert!(matches!(lock_row(&mut holder, &t, tid), RowOutcome::Done(_)));
        let (mut first, mut second) = (rig.begin(), rig.begin());
        let mut first_op = UpdateOp::new(t.clone(), tid, &values((1, 1))).unwrap();
        let mut second_op = UpdateOp::new(t.clone(), tid, &values((1, 2))).unwrap();
        first.begin_statement();
        second.begin_statement();
        let first_wait = try_update(&mut first, &mut first_op).unwrap_err();
        let second_wait = try_update(&mut second, &mut second_op).unwrap_err();
        if woken {
            holder.rollback();
            assert!(first_wait.is_ready_for_test() && !second_wait.is_ready_for_test());
            drop((first_op, first));
        } else {
            drop((first_op, first));
            // It looks at the row, and waits as the head of the queue.
            assert!(second_wait.is_ready_for_test());
            let as_head = try_update(&mut second, &mut second_op).unwrap_err();
            assert!(!as_head.is_ready_for_test());
            holder.rollback();
            assert!(as_head.is_ready_for_test());
        }
        assert!(matches!(
            done(&mut second, |txn| second_op.step(txn)),
            RowOutcome::Done(_)
        ));
        second.rollback();
    }
}
