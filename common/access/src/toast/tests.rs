//! Values out of line: written, carried, deleted, vacuumed, read by old snapshots and on a standby; what damage says.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use towline_base::{ForkKind, SqlState};
use towline_types::{Datum, ToastPointer};

use super::*;
use crate::ddl::verify_table;
use crate::heap::{HeapScan, TupleRef};
use crate::ops::{DeleteOp, InsertOp, MultiInsertOp, RowOutcome, UpdateOp};
use crate::testing::*;
use crate::vacuum::{VacuumOp, VacuumOptions, VacuumReport, VacuumStep};
use crate::{AccessError, Engine, Snapshot, Step, Transaction};

/// Text that does not compress, another for each seed.
pub(crate) fn noise(seed: i32, len: usize) -> String {
    let mut state = u64::from(seed as u32).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'!' + (state % 90) as u8)
        })
        .collect()
}

fn row(id: i32, value: i32, large: &str) -> [Datum; 3] {
    [Datum::Int4(id), Datum::Int4(value), Datum::text(large)]
}

fn insert_row(txn: &mut Transaction, table: &Arc<Table>, values: &[Datum]) -> towline_base::Tid {
    txn.begin_statement();
    let mut op = InsertOp::new(Arc::clone(table), values).unwrap();
    done(txn, |txn| op.step(txn))
}

fn update_row(
    txn: &mut Transaction,
    table: &Arc<Table>,
    tid: towline_base::Tid,
    values: &[Datum],
) -> towline_base::Tid {
    txn.begin_statement();
    let mut op = UpdateOp::new(Arc::clone(table), tid, values).unwrap();
    match done(txn, |txn| op.step(txn)) {
        RowOutcome::Done(tid) => tid,
        other => panic!("{other:?}"),
    }
}

/// The rows that a snapshot sees, with pointers where values stand out of line.
fn raw_rows(txn: &Transaction, snapshot: &Snapshot, table: &Table) -> Vec<(towline_base::Tid, Vec<Datum>)> {
    let mut scan = HeapScan::new(txn, table.node).unwrap();
    let mut found = Vec::new();
    while scan.next_page(txn, snapshot).unwrap() {
        found.extend(scan.rows().map(|(tid, tuple): (_, TupleRef<'_>)| {
            let mut values = Vec::new();
            let (data, bitmap, natts) = (tuple.data(), tuple.bitmap(), tuple.natts());
            table.layout.deform(data, bitmap, natts, &mut values).unwrap();
            let external = values.iter().any(|value| matches!(value, Datum::External(_)));
            assert_eq!(tuple.has_external(), external);
            (tid, values)
        }));
    }
    found
}

/// The one row of the table, as it stands there.
fn raw_row(txn: &mut Transaction, table: &Table) -> (towline_base::Tid, Vec<Datum>) {
    let snapshot = txn.begin_statement();
    let mut rows = raw_rows(txn, &snapshot, table);
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

fn pointer(value: &Datum) -> ToastPointer {
    match value {
        Datum::External(pointer) => *pointer,
        other => panic!("not out of line: {} bytes", other.as_str().map_or(0, str::len)),
    }
}

fn fetched(
    txn: &Transaction,
    table: &Table,
    mut values: Vec<Datum>,
) -> std::result::Result<Vec<Datum>, AccessError> {
    fetch_all(txn, table, &mut values)?;
    Ok(values)
}

/// (chunk_id, chunk_seq, length) of the chunks that are visible now.
fn chunks(rig: &Rig, table: &Table) -> Vec<(u32, i32, usize)> {
    let mut txn = rig.begin();
    let snapshot = txn.begin_statement();
    let toast = table.toast.as_ref().unwrap();
    let mut found: Vec<_> = raw_rows(&txn, &snapshot, toast)
        .into_iter()
        .map(|(_, values)| match values.as_slice() {
            [Datum::Oid(id), Datum::Int4(seq), Datum::Bytea(data)] => (*id, *seq, data.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    found.sort_unstable();
    found
}

fn verify(rig: &Rig, table: &Arc<Table>) {
    let mut txn = rig.begin();
    txn.begin_statement();
    verify_table(&mut txn, table).unwrap();
}

fn vacuum(engine: &Arc<Engine>, table: &Arc<Table>) -> (VacuumReport, VacuumReport) {
    let mut txn = begin(engine, crate::Isolation::ReadCommitted);
    let mut op = VacuumOp::new(&txn, Arc::clone(table), VacuumOptions::freezing(true)).unwrap();
    let report = loop {
        match op.step(&mut txn).unwrap() {
            VacuumStep::Done(report) => break (report, *op.toast_report().unwrap()),
            VacuumStep::More => op.await_cut(engine),
            VacuumStep::Wait(wait) => assert!(wait.block(Duration::from_secs(20)).unwrap()),
        }
    };
    commit(txn);
    report
}

#[test]
fn a_large_value_stands_in_chunks_of_1996_bytes_and_comes_back() {
    let rig = Rig::new();
    let t = large_table(&rig, "t");
    let value = noise(1, 3 * CHUNK + 7);
    let mut txn = rig.begin();
    insert_row(&mut txn, &t, &row(1, 10, &value));
    // The own transaction reads it before it is committed.
    let (_, raw) = raw_row(&mut txn, &t);
    let written = pointer(&raw[2]);
    assert_eq!(fetched(&txn, &t, raw).unwrap(), row(1, 10, &value));
    commit(txn);
    assert_eq!(written.raw_len(), value.len());
    assert_eq!(written.relation, t.toast.as_ref().unwrap().oid.0);
    let id = written.value;
    assert_eq!(
        chunks(&rig, &t),
        [(id, 0, CHUNK), (id, 1, CHUNK), (id, 2, CHUNK), (id, 3, 7)]
    );
    verify(&rig, &t);
    // Chunks fill their pages: four of them each.
    let mut txn = rig.begin();
    let large = noise(2, 400 * CHUNK);
    insert_row(&mut txn, &t, &row(2, 0, &large));
    commit(txn);
    let pages = rig
        .engine
        .storage()
        .nblocks(t.toast.as_ref().unwrap().node, ForkKind::Main)
        .unwrap();
    assert!((101..=103).contains(&pages), "{pages} pages");
    let rig = Rig::open(rig.crash());
    let t = named(&rig, "t");
    let mut txn = rig.begin();
    let snapshot = txn.begin_statement();
    let rows: Vec<_> = raw_rows(&txn, &snapshot, &t)
        .into_iter()
        .map(|(_, raw)| fetched(&txn, &t, raw).unwrap())
        .collect();
    assert_eq!(rows, [row(1, 10, &value), row(2, 0, &large)]);
}

#[test]
fn values_that_compress_stand_compressed_in_their_chunks() {
    let rig = Rig::new();
    let t = large_table(&rig, "t");
    let value = noise(1, 700).repeat(200);
    let mut txn = rig.begin();
    insert_row(&mut txn, &t, &row(1, 0, &value));
    commit(txn);
    let mut txn = rig.begin();
    let (_, raw) = raw_row(&mut txn, &t);
    let written = pointer(&raw[2]);
    assert!(
        written.is_compressed() && written.stored_len() < value.len() / 20,
        "{written:?}"
    );
    assert_eq!(fetched(&txn, &t, raw).unwrap(), row(1, 0, &value));
}

#[test]
fn an_update_keeps_a_value_that_it_carries_and_deletes_one_that_it_replaces() {
    let rig = Rig::new();
    let t = large_table(&rig, "t");
    let mut txn = rig.begin();
    let tid = insert_row(&mut txn, &t, &row(1, 0, &noise(1, 5000)));
    commit(txn);
    let before = chunks(&rig, &t);
    // Carried: the same chunks, whether the new version is heap-only or not.
    let mut tid = tid;
    for id in [1, 2] {
        let mut txn = rig.begin();
        let (_, mut raw) = raw_row(&mut txn, &t);
        raw[0] = Datum::Int4(id);
        raw[1] = Datum::Int4(id * 7);
        tid = update_row(&mut txn, &t, tid, &raw);
        commit(txn);
        assert_eq!(chunks(&rig, &t), before);
        verify(&rig, &t);
    }
    // Replaced by another, then by a short one, then by a long one again, and deleted.
    for (seed, len) in [(2, 9000), (3, 10), (4, 2 * CHUNK)] {
        let mut txn = rig.begin();
        tid = update_row(&mut txn, &t, tid, &row(2, 0, &noise(seed, len)));
        commit(txn);
        let now = chunks(&rig, &t);
        assert!(now.iter().all(|chunk| !before.contains(chunk)));
        let expected = if len > 100 { len.div_ceil(CHUNK) } else { 0 };
        assert_eq!(now.len(), expected);
        verify(&rig, &t);
    }
    let mut txn = rig.begin();
    txn.begin_statement();
    let mut op = DeleteOp::new(Arc::clone(&t), tid);
    assert_eq!(done(&mut txn, |txn| op.step(txn)), RowOutcome::Done(tid));
    commit(txn);
    assert!(chunks(&rig, &t).is_empty());
    verify(&rig, &t);
    // And vacuum gives the pages of both back.
    let (_, toast) = vacuum(&rig.engine, &t);
    assert_eq!(toast.live_rows, 0);
    let blocks = |table: &Table| rig.engine.storage().nblocks(table.node, ForkKind::Main).unwrap();
    assert_eq!((blocks(&t), blocks(t.toast.as_ref().unwrap())), (0, 0));
    verify(&rig, &t);
}

#[test]
fn what_is_rolled_back_leaves_no_chunk_and_takes_none_away() {
    let rig = Rig::new();
    let t = large_table(&rig, "t");
    let value = noise(1, 6000);
    let mut txn = rig.begin();
    let tid = insert_row(&mut txn, &t, &row(1, 0, &value));
    commit(txn);
    let before = chunks(&rig, &t);
    let mut txn = rig.begin();
    update_row(&mut txn, &t, tid, &row(1, 0, &noise(2, 8000)));
    insert_row(&mut txn, &t, &row(2, 0, &noise(3, 8000)));
    txn.rollback();
    assert_eq!(chunks(&rig, &t), before);
    verify(&rig, &t);
    let (_, report) = vacuum(&rig.engine, &t);
    assert!(report.removed >= 10, "{report:?}");
    let mut txn = rig.begin();
    let (_, raw) = raw_row(&mut txn, &t);
    assert_eq!(fetched(&txn, &t, raw).unwrap(), row(1, 0, &value));
    verify(&rig, &t);
}

#[test]
fn what_an_aborted_transaction_wrote_is_nobodys_value() {
    let rig = Rig::new();
    let t = large_table(&rig, "t");
    let mut txn = rig.begin();
    insert_row(&mut txn, &t, &row(1, 0, &noise(1, 5000)));
    let (_, raw) = raw_row(&mut txn, &t);
    let lost = pointer(&raw[2]);
    assert_eq!(read_value(&txn, &t, lost).unwrap().len(), 5000);
    txn.rollback();
    let txn = rig.begin();
    let error = read_value(&txn, &t, lost).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::DATA_CORRUPTED);
    assert!(error.message().contains("missing chunk number 0"), "{error}");
}

/// Its own value is gone and vacuumed, since it holds no snapshot, and another value has got the places.
#[test]
fn a_reader_takes_no_chunk_of_another_value() {
    let rig = Rig::new();
    let t = large_table(&rig, "t");
    let mut txn = rig.begin();
    let tid = insert_row(&mut txn, &t, &row(1, 0, &noise(1, 10 * CHUNK)));
    commit(txn);
    let mut txn = rig.begin();
    let (_, raw) = raw_row(&mut txn, &t);
    drop(txn);
    let reading = rig.begin();
    let mut reader = ToastReader::new(&t, pointer(&raw[2])).unwrap();
    assert!(reader.step(&reading, 1).unwrap().is_none());
    let mut txn = rig.begin();
    txn.begin_statement();
    let mut op = DeleteOp::new(Arc::clone(&t), tid);
    done(&mut txn, |txn| op.step(txn));
    commit(txn);
    assert_eq!(vacuum(&rig.engine, &t).1.removed, 10);
    let mut txn = rig.begin();
    insert_row(&mut txn, &t, &row(2, 0, &noise(2, 10 * CHUNK)));
    commit(txn);
    let error = reader.step(&reading, 20).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::DATA_CORRUPTED);
    assert!(error.message().contains("missing chunk number 1"), "{error}");
}

/// An update or a delete keeps the pages of the chunks' table from being cut until its transaction ends.
#[test]
fn who_writes_or_deletes_chunks_holds_their_table() {
    use crate::locks::{LockMode, LockTag};
    let rig = Rig::new();
    let t = large_table(&rig, "t");
    let tag = LockTag::Relation(t.toast.as_ref().unwrap().oid.0);
    let mut txn = rig.begin();
    let tids: Vec<_> = (0..30)
        .map(|id| insert_row(&mut txn, &t, &row(id, 0, &noise(id, 4 * CHUNK))))
        .collect();
    assert!(txn.holds_lock(tag, LockMode::RowExclusive));
    commit(txn);
    let delete = |txn: &mut Transaction, tid| {
        txn.begin_statement();
        let mut op = DeleteOp::new(Arc::clone(&t), tid);
        done(txn, |txn| op.step(txn));
    };
    let mut txn = rig.begin();
    for tid in &tids[1..] {
        delete(&mut txn, *tid);
    }
    commit(txn);
    let mut open = rig.begin();
    delete(&mut open, tids[0]);
    assert!(open.holds_lock(tag, LockMode::RowExclusive));
    assert_eq!(vacuum(&rig.engine, &t).1.cut, 0);
    commit(open);
    assert!(vacuum(&rig.engine, &t).1.cut >= 29);
}

#[test]
fn nobody_vacuums_drops_or_empties_a_chunks_table_that_another_vacuums() {
    use crate::WaitKind;
    use crate::ddl::{DdlOp, Drop, DropKind, QualifiedName, Statement, Truncate};
    use crate::locks::{LockMode, LockTag};
    let rig = Rig::new();
    let t = large_table(&rig, "t");
    let toast = t.toast.as_ref().unwrap().oid;
    let mut other = rig.begin();
    done(&mut other, |txn| {
        txn.lock(LockTag::Relation(toast.0), LockMode::ShareUpdateExclusive)
    });
    let mut txn = rig.begin();
    let mut op = VacuumOp::new(&txn, Arc::clone(&t), VacuumOptions::default()).unwrap();
    let waits_for = loop {
        match op.step(&mut txn).unwrap() {
            VacuumStep::More => {}
            VacuumStep::Wait(wait) if wait.kind() == WaitKind::Lock => break Some(wait.kind()),
            VacuumStep::Wait(wait) => assert!(wait.block(Duration::from_secs(20)).unwrap()),
            VacuumStep::Done(_) => break None,
        }
    };
    assert_eq!(waits_for, Some(WaitKind::Lock));
    drop(op);
    txn.rollback();
    let names = || vec![QualifiedName::new("t")];
    let truncate = Statement::Truncate(Truncate { tables: names() });
    let drop_table = Statement::Drop(Drop {
        kind: DropKind::Table,
        names: names(),
        if_exists: false,
        cascade: false,
    });
    for statement in [truncate, drop_table.clone()] {
        let mut txn = rig.begin();
        txn.begin_statement();
        let mut op = DdlOp::new(statement, crate::catalog::BOOTSTRAP_SUPERUSER);
        loop {
            match op.step(&mut txn).unwrap() {
                Step::Wait(wait) if wait.kind() == WaitKind::Lock => break,
                Step::Wait(wait) => assert!(wait.block(Duration::from_secs(20)).unwrap()),
                Step::Done(_) => panic!("the chunks' table is in use"),
            }
        }
        drop(op);
        txn.rollback();
    }
    other.rollback();
    // And a table takes the one of its chunks with it.
    let mut txn = rig.begin();
    txn.begin_statement();
    let mut op = DdlOp::new(drop_table, crate::catalog::BOOTSTRAP_SUPERUSER);
    done(&mut txn, |txn| op.step(txn));
    commit(txn);
    let view = rig.engine.catalog().shared(&rig.engine).unwrap();
    assert!(view.table(t.oid).is_none() && view.table(toast).is_none());
    assert!(!view.tables().any(|table| table.oid == toast));
}

#[test]
fn an_old_snapshot_reads_what_was_replaced_since_and_vacuum_waits_for_it() {
    let rig = Rig::new();
    let t = large_table(&rig, "t");
    let value = noise(1, 20_000);
    let mut txn = rig.begin();
    let tid = insert_row(&mut txn, &t, &row(1, 0, &value));
    commit(txn);
    let mut old = rig.begin_repeatable();
    let snapshot = old.begin_statement();
    let mut txn = rig.begin();
    update_row(&mut txn, &t, tid, &row(1, 0, "short"));
    commit(txn);
    vacuum(&rig.engine, &t);
    let mut rows = raw_rows(&old, &snapshot, &t);
    let (_, raw) = rows.remove(0);
    // Slowly, with a vacuum between the steps.
    let mut reader = ToastReader::new(&t, pointer(&raw[2])).unwrap();
    let payload = loop {
        if let Some(payload) = reader.step(&old, 3).unwrap() {
            break payload;
        }
        vacuum(&rig.engine, &t);
    };
    assert_eq!(payload, value.as_bytes());
    drop(old);
    let (_, report) = vacuum(&rig.engine, &t);
    assert_eq!(report.removed, 11);
    // What nobody may read any more is told to be missing, not given.
    let txn = rig.begin();
    let error = fetched(&txn, &t, raw).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::DATA_CORRUPTED);
}

#[test]
fn an_update_that_comes_second_leaves_no_chunk_of_its_first_attempt() {
    let rig = Rig::new();
    let t = large_table(&rig, "t");
    let mut txn = rig.begin();
    let tid = insert_row(&mut txn, &t, &row(1, 0, &noise(1, 5000)));
    commit(txn);
    let (mut first, mut second) = (rig.begin(), rig.begin());
    update_row(&mut first, &t, tid, &row(1, 1, &noise(2, 5000)));
    second.begin_statement();
    let mut op = UpdateOp::new(Arc::clone(&t), tid, &row(1, 2, &noise(3, 5000))).unwrap();
    let Step::Wait(wait) = op.step(&mut second).unwrap() else {
        panic!("the row is not locked")
    };
    commit(first);
    assert!(wait.block(Duration::from_secs(20)).unwrap());
    let RowOutcome::Updated { newest } = done(&mut second, |txn| op.step(txn)) else {
        panic!("the row was not changed by another")
    };
    op.retarget(newest, &row(1, 2, &noise(4, 7000))).unwrap();
    assert!(matches!(
        done(&mut second, |txn| op.step(txn)),
        RowOutcome::Done(_)
    ));
    commit(second);
    assert_eq!(chunks(&rig, &t).len(), 4);
    verify(&rig, &t);
}

#[test]
fn copied_rows_with_large_values_and_without_come_in_one_batch() {
    let rig = Rig::new();
    let t = large_table(&rig, "t");
    let rows: Vec<_> = (0..120)
        .map(|id| row(id, id * 2, &noise(id, if id % 3 == 0 { 4000 } else { 20 })))
        .collect();
    let mut txn = rig.begin();
    txn.begin_statement();
    let mut op = MultiInsertOp::new(Arc::clone(&t));
    for values in &rows {
        if op.push(values).unwrap() {
            done(&mut txn, |txn| op.step(txn));
        }
    }
    done(&mut txn, |txn| op.step(txn));
    commit(txn);
    let mut txn = rig.begin();
    let snapshot = txn.begin_statement();
    let mut found: Vec<_> = raw_rows(&txn, &snapshot, &t)
        .into_iter()
        .map(|(_, raw)| fetched(&txn, &t, raw).unwrap())
        .collect();
    found.sort_by_key(|values| values[0].as_i64());
    assert_eq!(found, rows);
    verify(&rig, &t);
}

#[test]
fn numbers_of_values_are_not_used_twice_after_a_restart() {
    let mut rig = Rig::new();
    large_table(&rig, "t");
    large_table(&rig, "u");
    let mut count = 0;
    for round in 0..3 {
        for name in ["t", "u", "t"] {
            let t = named(&rig, name);
            let mut txn = rig.begin();
            insert_row(&mut txn, &t, &row(count, 0, &noise(count, 3000)));
            count += 1;
            commit(txn);
        }
        if round < 2 {
            rig = Rig::open(rig.crash());
        }
    }
    for (name, rows) in [("t", 6), ("u", 3)] {
        let t = named(&rig, name);
        assert_eq!(chunks(&rig, &t).len(), rows * 2);
        verify(&rig, &t);
    }
    // At the end of the numbers it begins anew, beside those that are taken.
    rig.engine
        .next_toast_value()
        .store(u32::MAX, std::sync::atomic::Ordering::SeqCst);
    let t = named(&rig, "t");
    for _ in 0..3 {
        let mut txn = rig.begin();
        insert_row(&mut txn, &t, &row(count, 0, &noise(count, 3000)));
        count += 1;
        commit(txn);
    }
    verify(&rig, &t);
}

#[test]
fn a_missing_or_wrong_chunk_is_an_error_with_names() {
    let rig = Rig::new();
    let t = large_table(&rig, "t");
    let toast = Arc::clone(t.toast.as_ref().unwrap());
    let mut txn = rig.begin();
    insert_row(&mut txn, &t, &row(1, 0, &noise(1, 2 * CHUNK + 100)));
    commit(txn);
    let mut txn = rig.begin();
    let (_, raw) = raw_row(&mut txn, &t);
    let good = pointer(&raw[2]);
    let error_of = |pointer: ToastPointer| {
        let txn = rig.begin();
        let error = read_value(&txn, &t, pointer).unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::DATA_CORRUPTED);
        error.message().to_owned()
    };
    let message = error_of(ToastPointer {
        info: good.info + CHUNK as u32,
        raw_size: good.raw_size + CHUNK as u32,
        ..good
    });
    assert!(
        message.contains("unexpected chunk size 100 (expected 1996) in chunk 2 of 4"),
        "{message}"
    );
    let message = error_of(ToastPointer {
        info: CHUNK as u32,
        raw_size: CHUNK as u32 + 4,
        ..good
    });
    assert!(message.contains("unexpected chunk number 1"), "{message}");
    let message = error_of(ToastPointer {
        value: good.value + 1000,
        ..good
    });
    let names = format!("for toast value {} in {}", good.value + 1000, toast.name);
    assert!(
        message.contains("missing chunk number 0") && message.contains(&names),
        "{message}"
    );
    let message = error_of(ToastPointer {
        relation: 1259,
        ..good
    });
    assert!(message.contains("1259"), "{message}");
    let message = error_of(ToastPointer {
        raw_size: good.raw_size + 5,
        ..good
    });
    assert!(message.contains(&toast.name.to_string()), "{message}");
    // A chunk in the middle is gone.
    let snapshot = txn.begin_statement();
    let victim = raw_rows(&txn, &snapshot, &toast)
        .into_iter()
        .find(|(_, values)| values[1] == Datum::Int4(1))
        .unwrap()
        .0;
    drop(txn);
    let mut txn = rig.begin();
    txn.begin_statement();
    let mut op = DeleteOp::new(Arc::clone(&toast), victim);
    done(&mut txn, |txn| op.step(txn));
    commit(txn);
    vacuum(&rig.engine, &t);
    let message = error_of(good);
    assert!(
        message.contains("unexpected chunk number 2 (expected 1)"),
        "{message}"
    );
    // The row can be deleted all the same.
    let mut txn = rig.begin();
    let (tid, _) = raw_row(&mut txn, &t);
    let mut op = DeleteOp::new(Arc::clone(&t), tid);
    assert_eq!(done(&mut txn, |txn| op.step(txn)), RowOutcome::Done(tid));
    commit(txn);
    verify(&rig, &t);
    // A pointer that promises more than memory has is not believed before its chunks are there.
    let reader = ToastReader::new(
        &t,
        ToastPointer {
            info: (1 << 30) - 1,
            raw_size: (1 << 30) + 3,
            ..good
        },
    )
    .unwrap();
    assert!(reader.reserved() < 1 << 20, "{} bytes", reader.reserved());
    // A chunk that somebody else has deleted is damage to whoever deletes its row.
    let mut txn = rig.begin();
    let tid = insert_row(&mut txn, &t, &row(2, 0, &noise(2, 2 * CHUNK)));
    commit(txn);
    let mut txn = rig.begin();
    let snapshot = txn.begin_statement();
    let victim = raw_rows(&txn, &snapshot, &toast)[0].0;
    let mut op = DeleteOp::new(Arc::clone(&toast), victim);
    done(&mut txn, |txn| op.step(txn));
    commit(txn);
    let mut txn = rig.begin();
    txn.begin_statement();
    let mut op = DeleteOp::new(Arc::clone(&t), tid);
    let error = try_done(&mut txn, |txn| op.step(txn)).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::DATA_CORRUPTED);
    assert!(error.message().contains("is deleted already"), "{error}");
}

#[test]
fn tables_whose_rows_stay_short_have_no_toast_table() {
    use towline_types::ColumnType;
    let column = |id, typmod| Column {
        name: "c".into(),
        number: 1,
        column_type: ColumnType { id, typmod },
        not_null: false,
        default: None,
        dropped: false,
    };
    let needed = is_needed;
    assert!(!needed(&[column(TypeId::Int4, -1), column(TypeId::Name, -1)]));
    assert!(needed(&[column(TypeId::Text, -1)]));
    assert!(needed(&[column(TypeId::Varchar, -1)]));
    // 4 × 501 + 4 bytes and a header of 24 make 2032; one character more is more.
    assert!(!needed(&[column(TypeId::Varchar, 505)]));
    assert!(needed(&[column(TypeId::Varchar, 506)]));
    assert!(!needed(&[column(TypeId::Bpchar, 88)]));
    assert!(!needed(&[column(TypeId::Numeric, (30 << 16) + 4)]));
    assert!(needed(&[column(TypeId::Numeric, -1)]));
    let dropped = Column {
        dropped: true,
        ..column(TypeId::Text, -1)
    };
    assert!(!needed(&[column(TypeId::Int4, -1), dropped]));
}

#[test]
fn a_column_that_may_be_long_brings_a_toast_table() {
    use crate::ddl::{AlterTable, AlterTableAction, CreateTable, DdlOp, NewColumn, QualifiedName, Statement};
    let rig = Rig::new();
    let ddl = |statement: Statement| {
        let mut txn = rig.begin();
        txn.begin_statement();
        let mut op = DdlOp::new(statement, crate::catalog::BOOTSTRAP_SUPERUSER);
        done(&mut txn, |txn| op.step(txn));
        commit(txn);
    };
    let column = |name: &str, id| NewColumn {
        name: name.into(),
        column_type: ColumnType::from(id),
        not_null: false,
        default: None,
    };
    ddl(Statement::CreateTable(CreateTable {
        name: QualifiedName::new("late"),
        if_not_exists: false,
        columns: vec![column("id", TypeId::Int4), column("value", TypeId::Int4)],
        constraints: Vec::new(),
        fillfactor: None,
    }));
    assert!(named(&rig, "late").toast.is_none());
    ddl(Statement::AlterTable(AlterTable {
        name: QualifiedName::new("late"),
        if_exists: false,
        actions: vec![AlterTableAction::AddColumn(column("large", TypeId::Text))],
    }));
    let t = named(&rig, "late");
    let toast = t.toast.as_ref().unwrap();
    assert_eq!(*toast.name, format!("pg_toast_{}", t.oid));
    assert_eq!(*toast.indexes[0].name, format!("pg_toast_{}_index", t.oid));
    let value = noise(1, 5000);
    let mut txn = rig.begin();
    insert_row(&mut txn, &t, &row(1, 2, &value));
    commit(txn);
    let mut txn = rig.begin();
    let (_, raw) = raw_row(&mut txn, &t);
    assert_eq!(pointer(&raw[2]).stored_len(), 5000);
    assert_eq!(fetched(&txn, &t, raw).unwrap(), row(1, 2, &value));
    verify(&rig, &t);
}
