//! Commits held at the worst moments: between record and CSN (C1), and before they are durable (C3, B8). In a process of its own,
//! because failpoints belong to the process; one test at a time.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use towline_access::bootstrap::{InitOptions, init};
use towline_access::catalog::{BOOTSTRAP_SUPERUSER, Relation, Table};
use towline_access::ddl::{CreateTable, DdlOp, NewColumn, NewConstraint, QualifiedName, Statement};
use towline_access::heap::HeapScan;
use towline_access::heap::tuple::mask;
use towline_access::ops::{InsertOp, RowOutcome, UpdateOp};
use towline_access::{
    CommitLevel, Engine, EngineConfig, Isolation, Result, Step, Transaction, TxnOptions, open_alone,
};
use towline_base::failpoint::{self, Action};
use towline_base::vfs::CrashVfs;
use towline_base::{Clock, Lsn, PageId, SqlState, SystemClock, Tid, Vfs};
use towline_types::{ColumnType, Datum, TypeId};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
const LIMIT: Duration = Duration::from_secs(20);

/// Frees whoever is held, also when the test fails.
struct Hold(&'static str);

impl Hold {
    fn at(name: &'static str) -> Self {
        failpoint::configure(name, Action::Pause, 0);
        Hold(name)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        failpoint::release(self.0);
    }
}

struct Node {
    engine: Arc<Engine>,
    table: Arc<Table>,
    _permits: Arc<towline_wal::PermitIssuer>,
    _alone: MutexGuard<'static, ()>,
}

fn done<T>(txn: &mut Transaction, mut step: impl FnMut(&mut Transaction) -> Result<Step<T>>) -> T {
    loop {
        match step(txn).unwrap() {
            Step::Done(value) => return value,
            Step::Wait(wait) => assert!(wait.block(LIMIT).unwrap()),
        }
    }
}

fn begin(engine: &Arc<Engine>) -> Transaction {
    let mut txn = engine.begin(TxnOptions::default()).unwrap();
    txn.begin_statement();
    txn
}

fn row(id: i32, value: i32) -> [Datum; 2] {
    [Datum::Int4(id), Datum::Int4(value)]
}

impl Node {
    fn new() -> Self {
        let alone = ONE_AT_A_TIME.lock();
        let vfs: Arc<dyn Vfs> = CrashVfs::new().shared();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let options = InitOptions {
            segment_size: 1 << 20,
            ..InitOptions::default()
        };
        init(&vfs, Path::new("/data"), &clock, &options).unwrap();
        let config = EngineConfig {
            shared_buffers: 512,
            flush_alone: false,
            ..EngineConfig::new("/data")
        };
        let (engine, permits) = open_alone(vfs, clock, config).unwrap();
        let column = |name: &str| NewColumn {
            name: name.to_owned(),
            column_type: ColumnType::from(TypeId::Int4),
            not_null: false,
            default: None,
        };
        let statement = Statement::CreateTable(CreateTable {
            name: QualifiedName::new("t"),
            if_not_exists: false,
            columns: vec![column("id"), column("value")],
            constraints: vec![NewConstraint {
                primary: true,
                name: None,
                columns: vec!["id".to_owned()],
                fillfactor: None,
            }],
            fillfactor: None,
        });
        let mut txn = begin(&engine);
        let mut op = DdlOp::new(statement, BOOTSTRAP_SUPERUSER);
        done(&mut txn, |txn| op.step(txn));
        let lsn = done(&mut txn, |txn| txn.commit(CommitLevel::On));
        assert!(engine.release().wait(lsn, CommitLevel::On).block(LIMIT).unwrap());
        let view = engine.catalog().shared(&engine).unwrap();
        let table = match view.find_relation(None, "t", &["public"]) {
            Some(Relation::Table(table)) => Arc::clone(table),
            other => panic!("{other:?}"),
        };
        Node {
            engine,
            table,
            _permits: permits,
            _alone: alone,
        }
    }

    fn insert(&self, txn: &mut Transaction, id: i32) -> Tid {
        let mut op = InsertOp::new(self.table.clone(), &row(id, 0)).unwrap();
        done(txn, |txn| op.step(txn))
    }

    /// Inserts a row and commits without waiting for the release.
    fn insert_and_commit(&self, id: i32, level: CommitLevel) -> (Tid, Lsn) {
        let mut txn = begin(&self.engine);
        let tid = self.insert(&mut txn, id);
        let lsn = done(&mut txn, |txn| txn.commit(level));
        (tid, lsn)
    }

    fn count(&self, txn: &mut Transaction) -> usize {
        let snapshot = txn.begin_statement();
        let mut scan = HeapScan::new(txn, self.table.node).unwrap();
        let mut count = 0;
        while scan.next_page(txn, &snapshot).unwrap() {
            count += scan.rows().count();
        }
        count
    }

    fn wait_visible(&self, lsn: Lsn) {
        assert!(
            self.engine
                .release()
                .wait(lsn, CommitLevel::On)
                .block(LIMIT)
                .unwrap()
        );
    }
}

#[test]
fn a_durable_commit_without_its_csn_is_seen_by_nobody_and_neither_are_its_successors() {
    let node = Node::new();
    let before = node.engine.visible().get();
    let (slow, fast) = std::thread::scope(|scope| {
        let hold = Hold::at("access::before_csn");
        let slow = scope.spawn(|| node.insert_and_commit(1, CommitLevel::On).1);
        assert!(failpoint::wait_paused("access::before_csn", LIMIT));
        // The first stays held, the second one passes: its commit is behind, stored and queued.
        failpoint::configure("access::before_csn", Action::Pause, 1);
        let fast = node.insert_and_commit(2, CommitLevel::On).1;
        let wal = node.engine.writer().unwrap().wal.clone();
        wal.flush(wal.insert_lsn(), None).unwrap();
        let flushed = wal.positions().flush.get();
        node.engine.release().advance(flushed, flushed, flushed);
        assert_eq!(node.engine.visible().get(), before);
        let mut reader = begin(&node.engine);
        assert_eq!(node.count(&mut reader), 0);
        drop(reader);
        drop(hold);
        (slow.join().unwrap(), fast)
    });
    assert!(slow < fast);
    node.wait_visible(fast);
    assert_eq!(node.count(&mut begin(&node.engine)), 2);
}

#[test]
fn a_decision_on_a_commit_that_is_not_released_is_told_only_after_it() {
    let node = Node::new();
    // A first writer reserves xids, so that the later ones need no quorum.
    let (tid, lsn) = node.insert_and_commit(0, CommitLevel::On);
    node.wait_visible(lsn);
    let hold = Hold::at("wal::before_fsync");
    let (_, held) = node.insert_and_commit(1, CommitLevel::On);
    assert!(node.engine.visible().get() < held);
    // A reader does not see it, and depends on nothing.
    let mut reader = begin(&node.engine);
    assert_eq!((node.count(&mut reader), reader.depends_on()), (1, Lsn::INVALID));
    // A duplicate key is found, and the answer depends on the commit.
    let mut other = begin(&node.engine);
    let mut op = InsertOp::new(node.table.clone(), &row(1, 9)).unwrap();
    assert_eq!(
        op.step(&mut other).unwrap_err().sqlstate(),
        SqlState::UNIQUE_VIOLATION
    );
    assert_eq!(other.depends_on(), held);
    other.rollback();
    // An update of a row whose newest version is not released goes on from it, and depends on it.
    let mut first = begin(&node.engine);
    let mut op = UpdateOp::new(node.table.clone(), tid, &row(0, 1)).unwrap();
    let RowOutcome::Done(newer) = done(&mut first, |txn| op.step(txn)) else {
        panic!("must be done")
    };
    let updated = done(&mut first, |txn| txn.commit(CommitLevel::On));
    let mut second = begin(&node.engine);
    let mut op = UpdateOp::new(node.table.clone(), tid, &row(0, 2)).unwrap();
    assert_eq!(
        done(&mut second, |txn| op.step(txn)),
        RowOutcome::Updated { newest: newer }
    );
    op.retarget(newer, &row(0, 2)).unwrap();
    assert!(matches!(
        done(&mut second, |txn| op.step(txn)),
        RowOutcome::Done(_)
    ));
    assert_eq!(second.depends_on(), updated);
    // REPEATABLE READ refuses, and the refusal depends on it, too.
    let options = TxnOptions {
        isolation: Isolation::RepeatableRead,
        ..TxnOptions::default()
    };
    let mut third = node.engine.begin(options).unwrap();
    third.begin_statement();
    let mut op = UpdateOp::new(node.table.clone(), tid, &row(0, 3)).unwrap();
    assert_eq!(
        op.step(&mut third).unwrap_err().sqlstate(),
        SqlState::SERIALIZATION_FAILURE
    );
    assert_eq!(third.depends_on(), updated);
    drop(hold);
    node.wait_visible(updated);
    drop((reader, second, third));
}

#[test]
fn a_hint_is_not_set_for_a_commit_that_may_still_be_lost() {
    let node = Node::new();
    let (_, lsn) = node.insert_and_commit(0, CommitLevel::On);
    node.wait_visible(lsn);
    let hold = Hold::at("wal::before_fsync");
    let (tid, lost) = node.insert_and_commit(1, CommitLevel::Off);
    // Released, as `off` promises, by this thread or by one that was releasing the commit before; neither flushed nor on the quorum.
    node.wait_visible(lost);
    assert!(node.engine.release().positions().flush < lost);
    assert_eq!(node.count(&mut begin(&node.engine)), 2);
    let hinted = || {
        let page = node
            .engine
            .storage()
            .pin(PageId::main(node.table.node, tid.block))
            .unwrap()
            .read();
        let tuple = towline_access::heap::TupleRef::new(page.item(tid.offset).unwrap()).unwrap();
        tuple.infomask() & mask::XMIN_COMMITTED != 0
    };
    assert!(!hinted());
    drop(hold);
    let wal = node.engine.writer().unwrap().wal.clone();
    wal.flush(lost, None).unwrap();
    let next = node.insert_and_commit(2, CommitLevel::On).1;
    node.wait_visible(next);
    assert_eq!(node.count(&mut begin(&node.engine)), 3);
    assert!(hinted());
}
