//! A standby beside its primary, fed record by record: what its readers see, and who has to give way.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use towline_base::vfs::CrashVfs;
use towline_base::{Lsn, LsnPublisher, LsnWatch, SqlState, Xid};
use towline_storage::CheckpointInfo;
use towline_wal::{ReadOutcome, TimelineHistory, WalReader, WalSource};

use super::RetentionHooks;
use crate::bootstrap::WAL_DIR;
use crate::locks::{LockMode, LockTag};
use crate::ops::{InsertOp, RowOutcome};
use crate::testing::*;
use crate::{Engine, Interrupts, Isolation, Step, Transaction, TxnOptions};

/// The standby's slot: no checkpoint of the primary takes away what it has not read.
#[derive(Debug)]
struct Slot(AtomicU64);

impl RetentionHooks for Slot {
    fn oldest_slot(&self) -> Option<Lsn> {
        Some(Lsn(self.0.load(Ordering::SeqCst)))
    }

    fn checkpoint_finished(&self, _info: &CheckpointInfo, _oldest_kept: Lsn) {}
}

/// A primary, and a standby that began from a copy of its disk.
pub(super) struct Pair {
    pub(super) rig: Rig,
    pub(super) standby: Arc<Engine>,
    quorum: LsnPublisher,
    reader: WalReader,
    slot: Arc<Slot>,
}

impl Pair {
    fn new() -> Self {
        Pair::from(fresh_disk(), fresh_disk())
    }

    /// Both begin with the same files.
    pub(super) fn from(primary: CrashVfs, disk: CrashVfs) -> Self {
        let rig = Rig::open(primary);
        let control = rig.engine.storage().control().get();
        let segment_size = towline_wal::format::SegmentSize::new(control.segment_size).unwrap();
        let vfs = rig.vfs.shared();
        let history =
            TimelineHistory::read(&*vfs, &Path::new("/data").join(WAL_DIR), control.timeline.number)
                .unwrap()
                .unwrap();
        let source = WalSource {
            vfs,
            dir: Path::new("/data").join(WAL_DIR),
            segment_size,
            system: Some(control.system),
            history,
        };
        let reader = WalReader::new(source, control.checkpoint.redo);
        let slot = Arc::new(Slot(AtomicU64::new(control.checkpoint.redo.0)));
        rig.engine.set_retention_hooks(Arc::clone(&slot) as _);
        let (quorum, watch) = LsnWatch::new(Lsn(1));
        let standby = Engine::open_standby(disk.shared(), clock(), config(), watch).unwrap();
        Pair {
            rig,
            standby,
            quorum,
            reader,
            slot,
        }
    }

    /// Replays what the primary has made durable; stops at the first record that has to wait.
    pub(super) fn catch_up(&mut self) -> Option<crate::Wait> {
        // The log's own word: the release hears of a flush a moment later.
        let flushed = self.rig.engine.writer().unwrap().wal.positions().flush.get();
        if flushed > self.quorum.get() {
            self.quorum.advance(flushed);
        }
        self.reader.set_limit(flushed);
        loop {
            let start = self.reader.position();
            self.slot.0.store(start.0, Ordering::SeqCst);
            let step = match self.reader.next().unwrap() {
                ReadOutcome::Record(record) => self.standby.replay(&record).unwrap(),
                ReadOutcome::End(_) => {
                    self.standby.publish_horizon(Lsn::MAX);
                    return None;
                }
            };
            if let Step::Wait(wait) = step {
                self.reader = WalReader::new(self.source(), start);
                return Some(wait);
            }
        }
    }

    fn source(&self) -> WalSource {
        let control = self.rig.engine.storage().control().get();
        WalSource {
            vfs: self.rig.vfs.shared(),
            dir: Path::new("/data").join(WAL_DIR),
            segment_size: towline_wal::format::SegmentSize::new(control.segment_size).unwrap(),
            system: Some(control.system),
            history: self.reader.history().clone(),
        }
    }

    pub(super) fn standby_reader(&self) -> (Transaction, Arc<Interrupts>) {
        let interrupts = Interrupts::new();
        let options = TxnOptions {
            isolation: Isolation::RepeatableRead,
            pid: 2,
            interrupts: Some(Arc::clone(&interrupts)),
            ..TxnOptions::default()
        };
        (self.standby.begin(options).unwrap(), interrupts)
    }
}

fn plain(found: Vec<(towline_base::Tid, Row)>) -> Vec<Row> {
    found.into_iter().map(|(_, row)| row).collect()
}

#[test]
fn a_standby_shows_what_the_primary_released_and_refuses_to_write() {
    let mut pair = Pair::new();
    let t = table(20_000, true, 100);
    pair.rig.make_table(&t);
    let mut txn = pair.rig.begin();
    insert(&mut txn, &t, (1, 10));
    commit(txn);
    let mut open = pair.rig.begin();
    insert(&mut open, &t, (2, 20));
    assert!(pair.catch_up().is_none());
    let (mut old, _) = pair.standby_reader();
    assert_eq!(plain(rows(&mut old, &t)), vec![(1, 10)]);
    commit(open);
    assert!(pair.catch_up().is_none());
    // REPEATABLE READ keeps its horizon, a new one sees more.
    assert_eq!(plain(rows(&mut old, &t)), vec![(1, 10)]);
    let (mut new, _) = pair.standby_reader();
    assert_eq!(plain(rows(&mut new, &t)), vec![(1, 10), (2, 20)]);
    assert_eq!(
        new.check_writable("INSERT").unwrap_err().sqlstate(),
        SqlState::READ_ONLY_SQL_TRANSACTION
    );
    new.begin_statement();
    let mut op = InsertOp::new(t.clone(), &values((3, 30))).unwrap();
    assert_eq!(
        op.step(&mut new).unwrap_err().sqlstate(),
        SqlState::READ_ONLY_SQL_TRANSACTION
    );
    assert!(new.xid().is_none());
}

#[test]
fn replay_cancels_a_snapshot_that_needs_what_it_removes_and_no_other() {
    let mut pair = Pair::new();
    let t = table(20_000, true, 100);
    pair.rig.make_table(&t);
    let mut txn = pair.rig.begin();
    let tids: Vec<_> = (0..60).map(|id| insert(&mut txn, &t, (id, 0))).collect();
    commit(txn);
    assert!(pair.catch_up().is_none());
    let (mut old, old_flags) = pair.standby_reader();
    assert_eq!(rows(&mut old, &t).len(), 60);
    let mut txn = pair.rig.begin();
    for tid in &tids[..30] {
        assert!(matches!(delete(&mut txn, &t, *tid), RowOutcome::Done(_)));
    }
    commit(txn);
    assert!(pair.catch_up().is_none());
    let (mut new, new_flags) = pair.standby_reader();
    assert_eq!(rows(&mut new, &t).len(), 30);
    assert_eq!(rows(&mut old, &t).len(), 60);
    // Readers on the primary leave hints, which say only "old enough for everybody here"; the records must still carry the LSNs.
    assert_eq!(pair.rig.rows(&t).len(), 30);
    let page = pair
        .rig
        .engine
        .storage()
        .pin(towline_base::PageId::main(t.node, tids[0].block))
        .unwrap()
        .read();
    let tuple = crate::heap::TupleRef::new(page.item(tids[0].offset).unwrap()).unwrap();
    assert!(tuple.infomask() & crate::heap::tuple::mask::XMAX_COMMITTED != 0);
    drop(page);
    // Vacuum on the primary removes what only the old one sees.
    let mut txn = pair.rig.begin();
    let mut op = crate::vacuum::VacuumOp::new(&txn, t.clone(), Default::default()).unwrap();
    while !matches!(op.step(&mut txn).unwrap(), crate::vacuum::VacuumStep::Done(_)) {}
    drop(txn);
    let wal = pair.rig.engine.writer().unwrap().wal.clone();
    wal.flush(wal.insert_lsn(), None).unwrap();
    assert!(pair.catch_up().is_none());
    assert_eq!(
        old_flags.check().unwrap_err().sqlstate(),
        SqlState::SERIALIZATION_FAILURE
    );
    assert!(new_flags.check().is_ok());
    assert_eq!(rows(&mut new, &t).len(), 30);
    // The cancelled one gets an error, never a wrong answer.
    let snapshot = old.snapshot();
    let mut scan = crate::heap::HeapScan::new(&old, t.node).unwrap();
    assert!(scan.next_page(&old, &snapshot).is_err());
}

#[test]
fn replay_of_an_exclusive_lock_cancels_its_holders_and_waits_for_them() {
    let mut pair = Pair::new();
    let t = table(20_000, true, 100);
    pair.rig.make_table(&t);
    assert!(pair.catch_up().is_none());
    let tag = LockTag::Relation(t.oid.0);
    let (mut reader, flags) = pair.standby_reader();
    assert!(matches!(
        reader.lock(tag, LockMode::AccessShare).unwrap(),
        Step::Done(())
    ));
    let mut ddl = pair.rig.begin();
    done(&mut ddl, |txn| txn.lock(tag, LockMode::AccessExclusive));
    commit(ddl);
    let wait = pair.catch_up().expect("the reader is in the way");
    assert!(flags.is_conflict());
    reader.rollback();
    assert!(wait.block(Duration::from_secs(20)).unwrap());
    assert!(pair.catch_up().is_none());
    // The primary's transaction has ended, and the horizon has passed it: the lock is free again.
    let (mut later, _) = pair.standby_reader();
    assert!(matches!(
        later.lock(tag, LockMode::AccessShare).unwrap(),
        Step::Done(())
    ));
}

#[test]
fn nothing_above_the_quorum_is_shown() {
    let mut pair = Pair::new();
    let t = table(20_000, true, 100);
    pair.rig.make_table(&t);
    assert!(pair.catch_up().is_none());
    let before = pair.standby.visible().get();
    pair.standby.publish_horizon(Lsn::MAX);
    assert_eq!(pair.standby.visible().get(), before);
    assert!(before <= pair.quorum.get() && Some(before) <= pair.standby.replayed());
    // A standby's next xid is past what the primary has reserved, so tuples' xids are widened rightly.
    assert!(pair.standby.next_xid() > Xid::FIRST_NORMAL);
}

/// Runs VACUUM on the primary and makes its records durable.
fn vacuum(pair: &Pair, table: &Arc<crate::catalog::Table>, freeze: bool) -> crate::vacuum::VacuumReport {
    let mut txn = pair.rig.begin();
    let options = crate::vacuum::VacuumOptions::freezing(freeze);
    let mut op = crate::vacuum::VacuumOp::new(&txn, table.clone(), options).unwrap();
    let report = loop {
        if let crate::vacuum::VacuumStep::Done(report) = op.step(&mut txn).unwrap() {
            break report;
        }
    };
    drop(txn);
    let wal = pair.rig.engine.writer().unwrap().wal.clone();
    wal.flush(wal.insert_lsn(), None).unwrap();
    report
}

#[test]
fn a_standby_has_the_visibility_map_of_its_primary() {
    let mut pair = Pair::new();
    let t = table(20_000, true, 100);
    pair.rig.make_table(&t);
    let mut txn = pair.rig.begin();
    let tids: Vec<_> = (0..600).map(|id| insert(&mut txn, &t, (id, 0))).collect();
    commit(txn);
    for freeze in [false, true] {
        vacuum(&pair, &t, freeze);
        assert!(pair.catch_up().is_none());
        let on_primary = check_map(&pair.rig.engine, &t);
        assert!(on_primary.0 > 3 && (on_primary.1 > 3) == freeze, "{on_primary:?}");
        assert_eq!(check_map(&pair.standby, &t), on_primary);
    }
    let mut txn = pair.rig.begin();
    assert!(matches!(delete(&mut txn, &t, tids[0]), RowOutcome::Done(_)));
    commit(txn);
    assert!(pair.catch_up().is_none());
    let on_primary = check_map(&pair.rig.engine, &t);
    assert_eq!(check_map(&pair.standby, &t), on_primary);
    // Setting a bit cancels whoever does not see the rows yet.
    let (mut old, flags) = pair.standby_reader();
    assert_eq!(rows(&mut old, &t).len(), 599);
    let mut txn = pair.rig.begin();
    insert(&mut txn, &t, (1000, 0));
    commit(txn);
    vacuum(&pair, &t, false);
    assert!(pair.catch_up().is_none());
    assert!(flags.is_conflict());
}

/// The page is frozen and not all visible, since another row on it is of a transaction that runs: only the freeze record can tell.
#[test]
fn replay_of_freezing_cancels_who_does_not_see_the_rows_yet() {
    let mut pair = Pair::new();
    let t = table(20_000, true, 100);
    pair.rig.make_table(&t);
    assert!(pair.catch_up().is_none());
    let (mut old, flags) = pair.standby_reader();
    assert!(rows(&mut old, &t).is_empty());
    let mut txn = pair.rig.begin();
    insert(&mut txn, &t, (1, 0));
    commit(txn);
    let mut open = pair.rig.begin();
    insert(&mut open, &t, (2, 0));
    assert_eq!(vacuum(&pair, &t, true).frozen, 1);
    assert_eq!(check_map(&pair.rig.engine, &t), (0, 0));
    assert!(pair.catch_up().is_none());
    assert!(flags.is_conflict());
}

/// A full leaf loses the items of dead rows, and an older snapshot on the standby would not find its row any more.
#[test]
fn replay_of_a_removal_from_an_index_cancels_who_still_sees_the_rows() {
    let mut pair = Pair::new();
    // Half of each heap page stays free, so that none is pruned.
    let t = table(20_000, true, 50);
    pair.rig.make_table(&t);
    let mut txn = pair.rig.begin();
    let first = insert(&mut txn, &t, (1, 0));
    commit(txn);
    assert!(pair.catch_up().is_none());
    let (mut old, flags) = pair.standby_reader();
    assert_eq!(rows(&mut old, &t).len(), 1);
    let mut newest = first;
    for value in 1..600 {
        let mut txn = pair.rig.begin();
        assert!(matches!(delete(&mut txn, &t, newest), RowOutcome::Done(_)));
        newest = insert(&mut txn, &t, (1, value));
        commit(txn);
    }
    let storage = pair.rig.engine.storage();
    let items = crate::btree::check(storage.pool(), &t.indexes[0]).unwrap();
    assert!(items.places.len() < 600, "{} items", items.places.len());
    let page = storage
        .pin(towline_base::PageId::main(t.node, first.block))
        .unwrap()
        .read();
    assert!(page.item_ids().all(|(_, item)| item.is_normal()));
    drop(page);
    assert!(pair.catch_up().is_none());
    assert!(flags.is_conflict());
}

/// A cut that is given up leaves the primary with pages that its standby has not got.
#[test]
fn pages_that_only_the_standby_has_cut_are_made_anew_there() {
    let mut pair = Pair::new();
    let t = table(20_000, true, 100);
    pair.rig.make_table(&t);
    let mut txn = pair.rig.begin();
    let tids: Vec<_> = (0..600).map(|id| insert(&mut txn, &t, (id, 0))).collect();
    commit(txn);
    let mut txn = pair.rig.begin();
    for tid in &tids[60..] {
        assert!(matches!(delete(&mut txn, &t, *tid), RowOutcome::Done(_)));
    }
    commit(txn);
    let mut txn = pair.rig.begin();
    let mut op = crate::vacuum::VacuumOp::new(&txn, t.clone(), Default::default()).unwrap();
    while !op.is_cutting() {
        op.step(&mut txn).unwrap();
    }
    drop(op);
    txn.rollback();
    let wal = pair.rig.engine.writer().unwrap().wal.clone();
    wal.flush(wal.insert_lsn(), None).unwrap();
    assert!(pair.catch_up().is_none());
    let blocks = |engine: &Engine| {
        engine
            .storage()
            .nblocks(t.node, towline_base::ForkKind::Main)
            .unwrap()
    };
    assert!(blocks(&pair.standby) < blocks(&pair.rig.engine));
    assert!(pair.rig.engine.storage().stop_reason().is_none());
    let mut txn = pair.rig.begin();
    for id in 600..1200 {
        insert(&mut txn, &t, (id, 0));
    }
    commit(txn);
    assert!(pair.catch_up().is_none());
    let (mut reader, _) = pair.standby_reader();
    assert_eq!(rows(&mut reader, &t).len(), 660);
    vacuum(&pair, &t, false);
    assert!(pair.catch_up().is_none());
    check_map(&pair.standby, &t);
    let rig = Rig::open(pair.rig.crash());
    assert_eq!(rig.rows(&t).len(), 660);
}

/// Reads the first row's large value through the table as this node knows it.
fn large_value(txn: &mut Transaction, table: &crate::catalog::Table) -> crate::Result<towline_types::Datum> {
    let snapshot = txn.begin_statement();
    let mut scan = crate::heap::HeapScan::new(txn, table.node).unwrap();
    let mut values = Vec::new();
    while values.is_empty() && scan.next_page(txn, &snapshot)? {
        if let Some((_, tuple)) = scan.next_row() {
            let (data, bitmap, natts) = (tuple.data(), tuple.bitmap(), tuple.natts());
            table.layout.deform(data, bitmap, natts, &mut values).unwrap();
        }
    }
    crate::toast::fetch_all(txn, table, &mut values)?;
    Ok(values.swap_remove(2))
}

/// A pair with one row, whose value is out of line; that value, the table here, and the row's place.
fn pair_with_a_large_value() -> (Pair, String, Arc<crate::catalog::Table>, towline_base::Tid) {
    let mut pair = Pair::new();
    let t = large_table(&pair.rig, "t");
    let long = crate::toast::tests::noise(1, 30_000);
    let mut txn = pair.rig.begin();
    txn.begin_statement();
    let mut op = InsertOp::new(t.clone(), &large_row(&long)).unwrap();
    let tid = done(&mut txn, |txn| op.step(txn));
    commit(txn);
    assert!(pair.catch_up().is_none());
    (pair, long, t, tid)
}

fn large_row(large: &str) -> [towline_types::Datum; 3] {
    use towline_types::Datum;
    [Datum::Int4(1), Datum::Int4(0), Datum::text(large)]
}

/// Puts a short value in the large one's place, on both nodes.
fn shorten(pair: &mut Pair, t: &Arc<crate::catalog::Table>, tid: towline_base::Tid) {
    let mut txn = pair.rig.begin();
    txn.begin_statement();
    let mut op = crate::ops::UpdateOp::new(t.clone(), tid, &large_row("short")).unwrap();
    done(&mut txn, |txn| op.step(txn));
    commit(txn);
    assert!(pair.catch_up().is_none());
}

/// A table as the standby knows it.
fn on_standby(pair: &Pair, t: &crate::catalog::Table) -> Arc<crate::catalog::Table> {
    let view = pair.standby.catalog().shared(&pair.standby).unwrap();
    view.table(t.oid).unwrap().clone()
}

#[test]
fn a_standby_reads_large_values_and_cancels_who_would_miss_a_chunk() {
    use towline_types::Datum;
    let (mut pair, long, t, tid) = pair_with_a_large_value();
    let (mut old, flags) = pair.standby_reader();
    let table = on_standby(&pair, &t);
    assert_eq!(large_value(&mut old, &table).unwrap(), Datum::text(&long));
    // Replaced: the old snapshot still reads the old value.
    shorten(&mut pair, &t, tid);
    assert_eq!(large_value(&mut old, &table).unwrap(), Datum::text(&long));
    assert!(!flags.is_conflict());
    // Its chunks alone are vacuumed away: a conflict, not damage.
    let toast = t.toast.clone().unwrap();
    assert!(vacuum(&pair, &toast, false).removed >= 15);
    assert!(pair.catch_up().is_none());
    assert!(flags.is_conflict());
    let error = large_value(&mut old, &table).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::SERIALIZATION_FAILURE);
    let (mut new, _) = pair.standby_reader();
    assert_eq!(large_value(&mut new, &table).unwrap(), Datum::text("short"));
    // TRUNCATE gives both new files.
    let before = (table.node, table.toast.as_ref().unwrap().node);
    drop((old, new));
    let mut txn = pair.rig.begin();
    txn.begin_statement();
    let truncate = crate::ddl::Statement::Truncate(crate::ddl::Truncate {
        tables: vec![crate::ddl::QualifiedName::new("t")],
    });
    let mut op = crate::ddl::DdlOp::new(truncate, crate::catalog::BOOTSTRAP_SUPERUSER);
    done(&mut txn, |txn| op.step(txn));
    commit(txn);
    assert!(pair.catch_up().is_none());
    let table = on_standby(&pair, &t);
    let after = (table.node, table.toast.as_ref().unwrap().node);
    assert!(before.0 != after.0 && before.1 != after.1);
}

/// Whoever looked for the chunks first called what replay had taken away damage.
#[test]
fn a_large_value_that_replay_takes_away_is_a_conflict_and_no_damage() {
    use towline_types::Datum;
    let (mut pair, long, t, tid) = pair_with_a_large_value();
    let (mut old, flags) = pair.standby_reader();
    let table = on_standby(&pair, &t);
    let snapshot = old.begin_statement();
    let mut scan = crate::heap::HeapScan::new(&old, table.node).unwrap();
    assert!(scan.next_page(&old, &snapshot).unwrap());
    let mut values = Vec::new();
    let (_, tuple) = scan.next_row().unwrap();
    let (data, bitmap, natts) = (tuple.data(), tuple.bitmap(), tuple.natts());
    table.layout.deform(data, bitmap, natts, &mut values).unwrap();
    let Datum::External(pointer) = values[2] else {
        panic!("the value stands in its row")
    };
    let read = |txn: &Transaction| crate::toast::read_value(txn, &table, pointer);
    assert_eq!(read(&old).unwrap().len(), long.len());
    shorten(&mut pair, &t, tid);
    assert_eq!(read(&old).unwrap().len(), long.len());
    assert!(vacuum(&pair, &t.toast.clone().unwrap(), false).removed >= 15);
    let flushed = pair.rig.engine.writer().unwrap().wal.positions().flush.get();
    pair.quorum.advance(flushed);
    pair.reader.set_limit(flushed);
    // Up to the record that takes the first of the chunks: the others are still there.
    while !flags.is_conflict() {
        let ReadOutcome::Record(record) = pair.reader.next().unwrap() else {
            panic!("the log ends without a conflict")
        };
        assert!(matches!(pair.standby.replay(&record).unwrap(), Step::Done(())));
    }
    let conflict = SqlState::SERIALIZATION_FAILURE;
    assert_eq!(read(&old).unwrap_err().sqlstate(), conflict);
    // And when all are gone.
    assert!(pair.catch_up().is_none());
    assert_eq!(read(&old).unwrap_err().sqlstate(), conflict);
}
