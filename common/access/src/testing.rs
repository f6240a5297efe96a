//! What the tests of this crate share: a cluster of one in memory, small tables without a catalog entry, and drivers that block.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use towline_base::vfs::CrashVfs;
use towline_base::{Clock, ForkKind, Lsn, Oid, SystemClock, Tid, Vfs, Xid};
use towline_types::{ColumnType, Datum, RowDesc, TypeId};
use towline_wal::format::Compression;
use towline_wal::{CheckedManagers, ImagePolicy, PermitIssuer, WalTuning};

use crate::bootstrap::{self, InitOptions};
use crate::btree::{Build, BuildStep, DescentHints, IndexContext, KeyColumn, KeyDescriptor, Spool};
use crate::catalog::{Column, Index, IndexKey, PUBLIC, RelationKind, Table, relation_file};
use crate::heap::{HeapScan, fetch};
use crate::ops::{DeleteOp, InsertOp, RowOutcome, UpdateOp};
use crate::{
    CommitLevel, Engine, EngineConfig, Isolation, Result, Snapshot, Step, Transaction, TxnOptions, open_alone,
};

/// A row of the test table: (id, value).
pub(crate) type Row = (i32, i32);

/// A cluster of one on files in memory.
pub(crate) struct Rig {
    pub(crate) vfs: CrashVfs,
    pub(crate) engine: Arc<Engine>,
    permits: Option<Arc<PermitIssuer>>,
}

pub(crate) fn config() -> EngineConfig {
    EngineConfig {
        shared_buffers: 512,
        wal_buffers: 1 << 20,
        // Nobody vacuums but the tests.
        autovacuum: crate::vacuum::AutovacuumSettings {
            enabled: false,
            ..Default::default()
        },
        // Whatever is replayed in a test is compared with what was written.
        wal_tuning: WalTuning {
            images: ImagePolicy {
                compression: Compression::Lz4,
                checked: CheckedManagers::ALL,
            },
            ..WalTuning::default()
        },
        ..EngineConfig::new("/data")
    }
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// The disk of a new cluster with 1 MB segments, made once and copied: making the catalog takes a while.
pub(crate) fn fresh_disk() -> CrashVfs {
    use std::sync::OnceLock;
    static MADE: OnceLock<CrashVfs> = OnceLock::new();
    MADE.get_or_init(|| {
        let vfs = CrashVfs::new();
        let options = InitOptions {
            segment_size: 1 << 20,
            ..InitOptions::default()
        };
        bootstrap::init(&vfs.shared(), Path::new("/data"), &clock(), &options).unwrap();
        vfs
    })
    .after_crash(towline_base::vfs::Unsynced::Kept, 0)
}

/// The disk of a new cluster whose first transaction has this xid.
pub(crate) fn disk_from(first_xid: Xid) -> CrashVfs {
    let vfs = CrashVfs::new();
    let options = InitOptions {
        segment_size: 1 << 20,
        first_xid,
        ..InitOptions::default()
    };
    bootstrap::init(&vfs.shared(), Path::new("/data"), &clock(), &options).unwrap();
    vfs
}

impl Rig {
    pub(crate) fn new() -> Self {
        Rig::open(fresh_disk())
    }

    pub(crate) fn open(vfs: CrashVfs) -> Self {
        Rig::try_open(vfs).unwrap()
    }

    pub(crate) fn try_open(vfs: CrashVfs) -> Result<Self> {
        Rig::try_open_with(vfs, config())
    }

    pub(crate) fn try_open_with(vfs: CrashVfs, config: EngineConfig) -> Result<Self> {
        let shared: Arc<dyn Vfs> = vfs.shared();
        let (engine, permits) = open_alone(shared, clock(), config)?;
        Ok(Rig {
            vfs,
            engine,
            permits: Some(permits),
        })
    }

    /// Ends the process without a checkpoint; what was written stays, synced or not.
    pub(crate) fn crash(self) -> CrashVfs {
        self.crash_with(towline_base::vfs::Unsynced::Kept, 0)
    }

    pub(crate) fn crash_with(mut self, unsynced: towline_base::vfs::Unsynced, seed: u64) -> CrashVfs {
        let next = self.vfs.after_crash(unsynced, seed);
        self.engine.stop_abruptly();
        self.permits.take();
        next
    }

    pub(crate) fn begin(&self) -> Transaction {
        begin(&self.engine, Isolation::ReadCommitted)
    }

    pub(crate) fn begin_repeatable(&self) -> Transaction {
        begin(&self.engine, Isolation::RepeatableRead)
    }

    pub(crate) fn make_table(&self, table: &Arc<Table>) {
        let mut txn = self.begin();
        done(&mut txn, |txn| txn.ensure_xid());
        let writer = self.engine.writer().unwrap();
        let storage = self.engine.storage();
        storage
            .create_fork(&writer.permit, txn.xid().unwrap(), table.node, ForkKind::Main)
            .unwrap();
        for index in &table.indexes {
            storage
                .create_fork(&writer.permit, txn.xid().unwrap(), index.node, ForkKind::Main)
                .unwrap();
            let horizon = || Lsn::INVALID;
            let cx = IndexContext {
                storage,
                permit: &writer.permit,
                xid: Xid::INVALID,
                horizon: &horizon,
            };
            let mut build = Build::new(Spool::default());
            while !matches!(build.step(&cx, index).unwrap(), BuildStep::Done) {}
        }
        commit(txn);
    }

    /// All visible rows, sorted.
    pub(crate) fn rows(&self, table: &Table) -> Vec<Row> {
        let mut txn = self.begin();
        rows(&mut txn, table).into_iter().map(|(_, row)| row).collect()
    }
}

pub(crate) fn begin(engine: &Arc<Engine>, isolation: Isolation) -> Transaction {
    engine
        .begin(TxnOptions {
            isolation,
            pid: 1,
            ..TxnOptions::default()
        })
        .unwrap()
}

/// No catalog row claims the test tables' files, so their numbers are below those of user relations: a start would sweep them.
const UNCLAIMED: u32 = 10_000;

/// A table (id int4, value int4, pad text), with a unique index on id if `indexed`.
pub(crate) fn table(file: u32, indexed: bool, fillfactor: u8) -> Arc<Table> {
    let types = [TypeId::Int4, TypeId::Int4, TypeId::Text];
    let column = |number: usize| Column {
        name: ["id", "value", "pad"][number].into(),
        number: number as i16 + 1,
        column_type: ColumnType::from(types[number]),
        not_null: false,
        default: None,
        dropped: false,
    };
    let index = Index {
        oid: Oid(file + 1),
        name: format!("t{file}_pkey").into(),
        schema: PUBLIC,
        table: Oid(file),
        node: relation_file(file + 1 - UNCLAIMED),
        keys: Box::new([IndexKey {
            column: 1,
            descending: false,
            nulls_first: false,
        }]),
        key: KeyDescriptor::new(vec![KeyColumn::new(TypeId::Int4, false, false)]),
        unique: true,
        primary: true,
        constraint: None,
        fillfactor: 90,
        usable_from: Lsn::INVALID,
        hints: DescentHints::default(),
    };
    Arc::new(Table {
        oid: Oid(file),
        name: format!("t{file}").into(),
        schema: PUBLIC,
        schema_name: "public".into(),
        owner: Oid(10),
        kind: RelationKind::Table,
        node: relation_file(file - UNCLAIMED),
        columns: (0..3).map(column).collect(),
        layout: RowDesc::new(types.map(ColumnType::from)),
        indexes: if indexed {
            Box::new([Arc::new(index)])
        } else {
            Box::new([])
        },
        toast: None,
        fillfactor,
        estimated_rows: -1.0,
        estimated_pages: 0,
        activity: Arc::default(),
    })
}

/// A table (id int4 primary key, value int4, large text) with a TOAST table, made by DDL.
pub(crate) fn large_table(rig: &Rig, name: &str) -> Arc<Table> {
    use crate::ddl::{CreateTable, DdlOp, NewColumn, NewConstraint, QualifiedName, Statement};
    let column = |name: &str, id| NewColumn {
        name: name.into(),
        column_type: ColumnType::from(id),
        not_null: false,
        default: None,
    };
    let statement = Statement::CreateTable(CreateTable {
        name: QualifiedName::new(name),
        if_not_exists: false,
        columns: vec![
            column("id", TypeId::Int4),
            column("value", TypeId::Int4),
            column("large", TypeId::Text),
        ],
        constraints: vec![NewConstraint {
            primary: true,
            name: None,
            columns: vec!["id".into()],
            fillfactor: None,
        }],
        fillfactor: None,
    });
    let mut txn = rig.begin();
    txn.begin_statement();
    let mut op = DdlOp::new(statement, crate::catalog::BOOTSTRAP_SUPERUSER);
    done(&mut txn, |txn| op.step(txn));
    commit(txn);
    named(rig, name)
}

/// The table of this name in public.
pub(crate) fn named(rig: &Rig, name: &str) -> Arc<Table> {
    let view = rig.engine.catalog().shared(&rig.engine).unwrap();
    match view.find_relation(None, name, &["public"]) {
        Some(crate::catalog::Relation::Table(table)) => Arc::clone(table),
        other => panic!("{name}: {other:?}"),
    }
}

/// Runs steps to the end, blocking on waits.
pub(crate) fn done<T>(txn: &mut Transaction, mut step: impl FnMut(&mut Transaction) -> Result<Step<T>>) -> T {
    try_done(txn, &mut step).unwrap()
}

pub(crate) fn try_done<T>(
    txn: &mut Transaction,
    mut step: impl FnMut(&mut Transaction) -> Result<Step<T>>,
) -> Result<T> {
    loop {
        match step(txn)? {
            Step::Done(value) => return Ok(value),
            Step::Wait(wait) => assert!(wait.block(Duration::from_secs(20))?, "a wait did not end"),
        }
    }
}

pub(crate) fn values(row: Row) -> [Datum; 3] {
    [
        Datum::Int4(row.0),
        Datum::Int4(row.1),
        Datum::Text("some padding to give the row a size".into()),
    ]
}

pub(crate) fn insert(txn: &mut Transaction, table: &Arc<Table>, row: Row) -> Tid {
    txn.begin_statement();
    let mut op = InsertOp::new(Arc::clone(table), &values(row)).unwrap();
    done(txn, |txn| op.step(txn))
}

pub(crate) fn update(txn: &mut Transaction, table: &Arc<Table>, tid: Tid, row: Row) -> RowOutcome {
    txn.begin_statement();
    let mut op = UpdateOp::new(Arc::clone(table), tid, &values(row)).unwrap();
    done(txn, |txn| op.step(txn))
}

pub(crate) fn delete(txn: &mut Transaction, table: &Arc<Table>, tid: Tid) -> RowOutcome {
    txn.begin_statement();
    let mut op = DeleteOp::new(Arc::clone(table), tid);
    done(txn, |txn| op.step(txn))
}

pub(crate) fn decode(table: &Table, tuple: crate::heap::TupleRef<'_>) -> Row {
    let mut out = Vec::new();
    table
        .layout
        .deform(tuple.data(), tuple.bitmap(), tuple.natts(), &mut out)
        .unwrap();
    let number = |datum: &Datum| match datum {
        Datum::Int4(value) => *value,
        other => panic!("not an int4: {other:?}"),
    };
    (number(&out[0]), number(&out[1]))
}

/// What the transaction sees now, sorted by row.
pub(crate) fn rows(txn: &mut Transaction, table: &Table) -> Vec<(Tid, Row)> {
    let snapshot = txn.begin_statement();
    let found = all_at(txn, &snapshot, table);
    txn.end_statement();
    found
}

/// Where a snapshot sees the row with this id.
pub(crate) fn find_at(txn: &Transaction, snapshot: &Snapshot, table: &Table, id: i32) -> Option<Tid> {
    all_at(txn, snapshot, table)
        .into_iter()
        .find(|(_, row)| row.0 == id)
        .map(|(tid, _)| tid)
}

/// VACUUM of one table, each wait blocked for.
pub(crate) fn vacuum(
    rig: &Rig,
    table: &Arc<Table>,
    options: crate::vacuum::VacuumOptions,
) -> crate::vacuum::VacuumReport {
    use crate::vacuum::{VacuumOp, VacuumStep};

    let mut txn = rig.begin();
    let mut op = VacuumOp::new(&txn, Arc::clone(table), options).unwrap();
    loop {
        match op.step(&mut txn).unwrap() {
            VacuumStep::More => {}
            VacuumStep::Wait(wait) => assert!(wait.block(Duration::from_secs(20)).unwrap()),
            VacuumStep::Done(report) => return report,
        }
    }
}

/// VACUUM FREEZE of every table that the catalog names.
pub(crate) fn vacuum_all(rig: &Rig) {
    let view = rig.engine.catalog().shared(&rig.engine).unwrap();
    for table in view.tables().filter(|table| table.kind == RelationKind::Table) {
        vacuum(rig, table, crate::vacuum::VacuumOptions::freezing(true));
    }
}

/// A table (id int4, value int4, pad text) that the catalog names.
pub(crate) fn create_table(rig: &Rig, name: &str) -> Arc<Table> {
    use crate::ddl::{CreateTable, DdlOp, NewColumn, QualifiedName, Statement};

    let column = |(name, id): (&str, TypeId)| NewColumn {
        name: name.into(),
        column_type: ColumnType::from(id),
        not_null: false,
        default: None,
    };
    let columns = [
        ("id", TypeId::Int4),
        ("value", TypeId::Int4),
        ("pad", TypeId::Text),
    ];
    let statement = Statement::CreateTable(CreateTable {
        name: QualifiedName::new(name),
        if_not_exists: false,
        columns: columns.map(column).into(),
        constraints: Vec::new(),
        fillfactor: None,
    });
    let mut txn = rig.begin();
    txn.begin_statement();
    let mut op = DdlOp::new(statement, crate::catalog::BOOTSTRAP_SUPERUSER);
    done(&mut txn, |txn| op.step(txn));
    commit(txn);
    table_called(rig, name)
}

/// A table by its name.
pub(crate) fn table_called(rig: &Rig, name: &str) -> Arc<Table> {
    let view = rig.engine.catalog().shared(&rig.engine).unwrap();
    let found = view.tables().find(|table| &*table.name == name).cloned();
    found.unwrap()
}

/// What a snapshot sees, sorted by row.
pub(crate) fn all_at(txn: &Transaction, snapshot: &Snapshot, table: &Table) -> Vec<(Tid, Row)> {
    let mut scan = HeapScan::new(txn, table.node).unwrap();
    let mut found = Vec::new();
    while scan.next_page(txn, snapshot).unwrap() {
        found.extend(scan.rows().map(|(tid, tuple)| (tid, decode(table, tuple))));
    }
    found.sort_by_key(|(_, row)| *row);
    found
}

/// Where the transaction sees the row with this id.
pub(crate) fn find(txn: &mut Transaction, table: &Table, id: i32) -> Option<(Tid, Row)> {
    rows(txn, table).into_iter().find(|(_, row)| row.0 == id)
}

/// Reads one version through its address.
pub(crate) fn read_at(txn: &mut Transaction, table: &Table, tid: Tid) -> Option<Row> {
    let snapshot = txn.snapshot();
    fetch::fetch(txn, &snapshot, table.node, tid)
        .unwrap()
        .map(|row| decode(table, row.tuple()))
}

/// Commits and waits for the release.
pub(crate) fn commit(txn: Transaction) -> Lsn {
    commit_at(txn, CommitLevel::On)
}

/// Commits at a level and waits for the release, as every driver must, at level off too.
pub(crate) fn commit_at(mut txn: Transaction, level: CommitLevel) -> Lsn {
    let engine = Arc::clone(txn.engine());
    let lsn = done(&mut txn, |txn| txn.commit(level));
    assert!(
        engine
            .release()
            .wait(lsn, level)
            .block(Duration::from_secs(20))
            .unwrap()
    );
    lsn
}

/// The visibility map says nothing that is not so: a bit stands only where the heap page's own flag does, that only over rows which every
/// snapshot sees, and the frozen bit only over rows without an xid. Returns how many pages are all visible, and all frozen.
pub(crate) fn check_map(engine: &Engine, table: &Table) -> (u32, u32) {
    use crate::csn::XidStatus;
    use crate::heap::tuple::{TupleRef, mask};
    use towline_base::PageId;

    let (csn, next) = (engine.csn(), engine.next_xid());
    let status = |low: u32| csn.status(Xid::from_low32(low, next)).unwrap();
    let blocks = engine.storage().nblocks(table.node, ForkKind::Main).unwrap();
    let (mut visible, mut frozen) = (0, 0);
    for block in 0..blocks + 8 {
        let bits = crate::heap::vm::bits_of(engine, PageId::main(table.node, block)).unwrap();
        if block >= blocks {
            assert_eq!(bits, 0, "block {block} is behind the end");
            continue;
        }
        let page = engine
            .storage()
            .pin(PageId::main(table.node, block))
            .unwrap()
            .read();
        if !page.is_all_visible() {
            assert_eq!(bits, 0, "block {block} has no flag");
            continue;
        }
        let all_frozen = bits & towline_storage::vm::ALL_FROZEN != 0;
        visible += u32::from(bits != 0);
        frozen += u32::from(all_frozen);
        let horizon = engine.vacuum_horizon();
        for offset in 1..=page.max_offset() {
            assert!(
                !page.item_id(offset).unwrap().is_dead(),
                "({block},{offset}) is dead"
            );
            let Some(tuple) = page.item(offset).and_then(TupleRef::new) else {
                continue;
            };
            if !tuple.is_xmin_frozen() {
                let inserted = status(tuple.xmin());
                assert!(
                    matches!(inserted, XidStatus::Committed(lsn) if lsn <= horizon),
                    "({block},{offset}) was inserted: {inserted:?}, horizon {horizon}"
                );
            }
            let has_xmax = tuple.infomask() & mask::XMAX_INVALID == 0 && tuple.xmax() != 0;
            assert!(
                !has_xmax || tuple.is_lock_only() || status(tuple.xmax()) == XidStatus::Aborted,
                "({block},{offset}) is deleted"
            );
            assert!(
                !all_frozen || tuple.is_xmin_frozen() && !has_xmax,
                "({block},{offset}) has an xid"
            );
        }
    }
    (visible, frozen)
}
