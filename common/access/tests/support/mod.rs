//! A cluster of one on files in memory, with one table, for the tests that damage it.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use towline_access::bootstrap::{InitOptions, WAL_DIR, init};
use towline_access::catalog::{BOOTSTRAP_SUPERUSER, Relation, Table};
use towline_access::ddl::{CreateTable, DdlOp, NewColumn, NewConstraint, QualifiedName, Statement};
use towline_access::ops::{DeleteOp, InsertOp, LockRowOp, LockWait, RowOutcome, UpdateOp};
use towline_access::vacuum::{VacuumOp, VacuumOptions, VacuumStep};
use towline_access::{
    AccessError, CommitLevel, Engine, EngineConfig, Result, Step, Transaction, TxnOptions, open_alone,
};
use towline_base::vfs::{CrashVfs, Unsynced};
use towline_base::{Clock, Lsn, SystemClock, Tid, Vfs};
use towline_types::{ColumnType, Datum, TypeId};
use towline_wal::format::SegmentSize;
use towline_wal::{PermitIssuer, ReadOutcome, TimelineHistory, WalReader, WalSource};

/// How long a wait may last; nobody else is there, so it lasts no time.
const LIMIT: Duration = Duration::from_secs(20);

pub fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

pub fn config() -> EngineConfig {
    EngineConfig {
        shared_buffers: 256,
        wal_buffers: 1 << 20,
        ..EngineConfig::new("/data")
    }
}

/// The disk of a new cluster with 1 MB segments.
pub fn fresh_disk() -> CrashVfs {
    static MADE: OnceLock<CrashVfs> = OnceLock::new();
    MADE.get_or_init(|| {
        let vfs = CrashVfs::new();
        let options = InitOptions {
            segment_size: 1 << 20,
            ..InitOptions::default()
        };
        init(&vfs.shared(), Path::new("/data"), &clock(), &options).unwrap();
        vfs
    })
    .after_crash(Unsynced::Kept, 0)
}

/// Runs steps to the end, blocking on waits.
pub fn drive<T>(
    txn: &mut Transaction,
    mut step: impl FnMut(&mut Transaction) -> Result<Step<T>>,
) -> Result<T> {
    for _ in 0..10_000 {
        match step(txn)? {
            Step::Done(value) => return Ok(value),
            Step::Wait(wait) => assert!(wait.block(LIMIT)?, "a wait does not end"),
        }
    }
    panic!("a step waits again and again");
}

pub fn row(id: i32, value: i32) -> [Datum; 3] {
    // Now and then a text that is long enough to be compressed.
    let padding = if id % 16 == 0 {
        "padding ".repeat(400)
    } else {
        "some padding to give the row a size".to_owned()
    };
    [
        Datum::Int4(id),
        Datum::Int4(value),
        Datum::Text(padding.as_str().into()),
    ]
}

/// A primary and its table `t (id int4 primary key, value int4, pad text)`.
pub struct Work {
    pub vfs: CrashVfs,
    pub engine: Arc<Engine>,
    _permits: Arc<PermitIssuer>,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.engine.stop_abruptly();
    }
}

impl Work {
    pub fn on(vfs: CrashVfs) -> Work {
        Work::try_on(vfs).unwrap()
    }

    pub fn try_on(vfs: CrashVfs) -> Result<Work> {
        let shared: Arc<dyn Vfs> = vfs.shared();
        let (engine, permits) = open_alone(shared, clock(), config())?;
        Ok(Work {
            vfs,
            engine,
            _permits: permits,
        })
    }

    pub fn begin(&self) -> Result<Transaction> {
        let mut txn = self.engine.begin(TxnOptions::default())?;
        txn.begin_statement();
        Ok(txn)
    }

    pub fn commit(&self, mut txn: Transaction) -> Result<()> {
        let lsn = drive(&mut txn, |txn| txn.commit(CommitLevel::On))?;
        assert!(self.engine.release().wait(lsn, CommitLevel::On).block(LIMIT)?);
        Ok(())
    }

    pub fn create_table(&self) {
        let column = |name: &str, id| NewColumn {
            name: name.to_owned(),
            column_type: ColumnType::from(id),
            not_null: false,
            default: None,
        };
        let statement = Statement::CreateTable(CreateTable {
            name: QualifiedName::new("t"),
            if_not_exists: false,
            columns: vec![
                column("id", TypeId::Int4),
                column("value", TypeId::Int4),
                column("pad", TypeId::Text),
            ],
            constraints: vec![NewConstraint {
                primary: true,
                name: None,
                columns: vec!["id".to_owned()],
                fillfactor: None,
            }],
            fillfactor: None,
        });
        let mut txn = self.begin().unwrap();
        let mut op = DdlOp::new(statement, BOOTSTRAP_SUPERUSER);
        drive(&mut txn, |txn| op.step(txn)).unwrap();
        self.commit(txn).unwrap();
    }

    pub fn table(&self) -> Result<Arc<Table>> {
        self.find_table()?
            .ok_or_else(|| AccessError::internal("the table is not in the catalog"))
    }

    /// The table, if the catalog has it.
    pub fn find_table(&self) -> Result<Option<Arc<Table>>> {
        let view = self.engine.catalog().shared(&self.engine)?;
        Ok(match view.find_relation(None, "t", &["public"]) {
            Some(Relation::Table(table)) => Some(Arc::clone(table)),
            _ => None,
        })
    }

    pub fn insert(&self, txn: &mut Transaction, table: &Arc<Table>, id: i32) -> Result<Tid> {
        let mut op = InsertOp::new(table.clone(), &row(id, 0))?;
        drive(txn, |txn| op.step(txn))
    }

    pub fn update(&self, txn: &mut Transaction, table: &Arc<Table>, tid: Tid, id: i32) -> Result<RowOutcome> {
        txn.begin_statement();
        let mut op = UpdateOp::new(table.clone(), tid, &row(id, 1))?;
        drive(txn, |txn| op.step(txn))
    }

    pub fn delete(&self, txn: &mut Transaction, table: &Arc<Table>, tid: Tid) -> Result<RowOutcome> {
        txn.begin_statement();
        let mut op = DeleteOp::new(table.clone(), tid);
        drive(txn, |txn| op.step(txn))
    }

    pub fn vacuum(&self, table: &Arc<Table>, freeze: bool) -> Result<()> {
        let mut txn = self.begin()?;
        let mut op = VacuumOp::new(&txn, table.clone(), VacuumOptions::freezing(freeze))?;
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            match op.step(&mut txn)? {
                VacuumStep::Done(_) => return Ok(()),
                VacuumStep::More => {}
                VacuumStep::Wait(wait) => assert!(wait.block(LIMIT)?),
            }
        }
        panic!("vacuum goes on and on");
    }

    /// Work that leaves records of most kinds: inserts with splits, updates on the page and elsewhere, deletes, locks, an abort, vacuum.
    pub fn change_much(&self) {
        self.create_table();
        let table = self.table().unwrap();
        let mut txn = self.begin().unwrap();
        let tids: Vec<Tid> = (0..700)
            .map(|id| self.insert(&mut txn, &table, id * 2).unwrap())
            .collect();
        self.commit(txn).unwrap();
        let mut txn = self.begin().unwrap();
        for tid in &tids[..60] {
            self.delete(&mut txn, &table, *tid).unwrap();
        }
        for (at, tid) in tids[60..120].iter().enumerate() {
            // Half of them keep their key.
            let id = (60 + at as i32) * 2 + (at as i32 % 2);
            self.update(&mut txn, &table, *tid, id).unwrap();
        }
        txn.begin_statement();
        let mut lock = LockRowOp::new(table.clone(), tids[300], LockWait::NoWait);
        drive(&mut txn, |txn| lock.step(txn)).unwrap();
        self.commit(txn).unwrap();
        let mut txn = self.begin().unwrap();
        for id in 0..20 {
            self.insert(&mut txn, &table, 5000 + id).unwrap();
        }
        txn.rollback();
        self.vacuum(&table, false).unwrap();
        let mut txn = self.begin().unwrap();
        for id in 0..100 {
            self.insert(&mut txn, &table, 6000 + id).unwrap();
        }
        self.commit(txn).unwrap();
        self.vacuum(&table, true).unwrap();
        let wal = &self.engine.writer().unwrap().wal;
        wal.flush(wal.insert_lsn(), None).unwrap();
    }

    /// Every record from the redo pointer on: start, end, bytes.
    pub fn records(&self) -> Vec<(Lsn, Lsn, Vec<u8>)> {
        let control = self.engine.storage().control().get();
        let vfs = self.vfs.shared();
        let dir = Path::new("/data").join(WAL_DIR);
        let history = TimelineHistory::read(&*vfs, &dir, control.timeline.number)
            .unwrap()
            .unwrap();
        let source = WalSource {
            vfs,
            dir,
            segment_size: SegmentSize::new(control.segment_size).unwrap(),
            system: Some(control.system),
            history,
        };
        let mut reader = WalReader::new(source, control.checkpoint.redo);
        let mut records = Vec::new();
        while let ReadOutcome::Record(record) = reader.next().unwrap() {
            records.push((record.start, record.end, record.bytes.to_vec()));
        }
        records
    }
}
