//! A storage, a log and one index without an engine, for the B-tree's tests.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use towline_base::{Incarnation, Lsn, Oid, RelFileNode, SystemId, Tid, TimelineId, TimelineNumber, Vfs, Xid};
use towline_storage::{ControlData, ControlFile, Storage, StorageConfig};
use towline_types::{Datum, TypeId};
use towline_wal::format::SegmentSize;
use towline_wal::{PermitIssuer, Positions, StartAt, Wal, WalConfig, WritePermit};

use super::build::{Build, BuildStep, Spool};
use super::context::{IndexContext, Pressure};
use super::insert::{InsertOutcome, RowProbe, insert};
use super::key::{KeyColumn, KeyDescriptor};
use super::search::DescentHints;
use crate::catalog::{Index, IndexKey};

pub(crate) const SEGMENT: u64 = 1 << 20;

pub(crate) struct Harness {
    pub(crate) storage: Arc<Storage>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) permit: WritePermit,
    _issuer: PermitIssuer,
}

pub(crate) fn timeline() -> TimelineId {
    TimelineId {
        number: TimelineNumber(1),
        incarnation: Incarnation([1; 16]),
    }
}

pub(crate) const SYSTEM: SystemId = SystemId(77);

impl Harness {
    /// A new storage below `root`, with `frames` buffers.
    pub(crate) fn new(vfs: Arc<dyn Vfs>, root: &Path, frames: usize) -> Harness {
        let dir = root.join("pg_wal");
        vfs.create_dir_all(&dir).unwrap();
        vfs.create_dir_all(&root.join("global")).unwrap();
        let mut config = WalConfig::new(&dir, SYSTEM);
        config.segment_size = SegmentSize::new(SEGMENT).unwrap();
        config.buffers = 2 << 20;
        config.tuning.images.checked = towline_wal::CheckedManagers::ALL;
        let (publishers, positions) = Positions::starting_at(Lsn(SEGMENT));
        let start = StartAt {
            lsn: Lsn(SEGMENT),
            prev: Lsn::INVALID,
            timeline: timeline(),
            image_threshold: Lsn(SEGMENT),
        };
        let wal = Wal::start(Arc::clone(&vfs), config, start, publishers).unwrap();
        let data = ControlData::new(SYSTEM, timeline(), SEGMENT, true);
        let control = ControlFile::create(Arc::clone(&vfs), root, data).unwrap();
        let mut storage_config = StorageConfig::new(root);
        storage_config.frames = frames;
        let storage = Storage::open(vfs, &storage_config, control, positions.flush).unwrap();
        storage.attach_wal(Arc::clone(&wal)).unwrap();
        let issuer = PermitIssuer::new(timeline());
        let permit = issuer.issue();
        Harness {
            storage,
            wal,
            permit,
            _issuer: issuer,
        }
    }

    pub(crate) fn cx(&self) -> IndexContext<'_> {
        IndexContext {
            storage: &self.storage,
            permit: &self.permit,
            xid: Xid(100),
            horizon: &|| Lsn(1 << 40),
        }
    }

    pub(crate) fn relieve(&self, _pressure: Pressure) {
        self.wal.flush(self.wal.insert_lsn(), None).unwrap();
    }

    /// Creates the file of `index` and loads it with `rows`.
    pub(crate) fn create(&self, index: &Index, rows: &[(Vec<Datum>, Tid)]) {
        self.storage
            .create_fork(&self.permit, Xid(100), index.node, towline_base::ForkKind::Main)
            .unwrap();
        let mut spool = Spool::default();
        for (values, tid) in rows {
            spool
                .add(index, &index.key.encode(values).unwrap(), *tid)
                .unwrap();
        }
        let mut build = Build::new(spool);
        loop {
            match build.step(&self.cx(), index).unwrap() {
                BuildStep::Continue => {}
                BuildStep::Needs(pressure) => self.relieve(pressure),
                BuildStep::Duplicate(a, b) => panic!("duplicate {a} {b}"),
                BuildStep::Done => return,
            }
        }
    }

    pub(crate) fn insert(&self, index: &Index, values: &[Datum], tid: Tid) {
        match self.try_insert(index, values, tid, None) {
            InsertOutcome::Inserted { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn try_insert(
        &self,
        index: &Index,
        values: &[Datum],
        tid: Tid,
        probe: Option<&dyn RowProbe>,
    ) -> InsertOutcome {
        let key = index.key.encode(values).unwrap();
        loop {
            match insert(&self.cx(), index, &key.values(), tid, probe).unwrap() {
                InsertOutcome::Needs(pressure) => self.relieve(pressure),
                other => return other,
            }
        }
    }
}

/// An index on columns of these types in key order; `descending` has one flag for each.
pub(crate) fn index(file: u32, columns: &[(TypeId, bool)], unique: bool) -> Index {
    let keys = columns
        .iter()
        .enumerate()
        .map(|(at, (_, descending))| IndexKey {
            column: at as i16 + 1,
            descending: *descending,
            nulls_first: *descending,
        })
        .collect();
    let key = columns
        .iter()
        .map(|(id, descending)| KeyColumn::new(*id, *descending, *descending))
        .collect();
    Index {
        oid: Oid(file),
        name: Arc::from("t_idx"),
        schema: crate::catalog::PUBLIC,
        table: Oid(file - 1),
        node: RelFileNode {
            spc: 1663,
            db: 5,
            rel: file,
        },
        keys,
        key: KeyDescriptor::new(key),
        unique,
        primary: false,
        constraint: None,
        fillfactor: 90,
        usable_from: Lsn::INVALID,
        hints: DescentHints::default(),
    }
}

/// Redo of the B-tree's records, and of no other.
pub(crate) struct OnlyBtree;

impl towline_storage::ResourceManagers for OnlyBtree {
    fn redo(
        &self,
        record: &towline_wal::format::DecodedRecord<'_>,
        context: &mut towline_storage::RedoContext<'_>,
    ) -> Result<(), towline_storage::RedoError> {
        match record.rmgr() {
            towline_wal::Rmgr::Btree => super::redo(record, context),
            _ => Ok(()),
        }
    }

    fn mask(&self, record: &towline_wal::format::DecodedRecord<'_>, page: &mut towline_storage::Page) {
        if record.rmgr() == towline_wal::Rmgr::Btree {
            super::mask_for_comparison(page);
        }
    }
}

impl Harness {
    /// Inserts under a unique check that must pass.
    pub(crate) fn insert_with(&self, index: &Index, values: &[Datum], tid: Tid, probe: &dyn RowProbe) {
        match self.try_insert(index, values, tid, Some(probe)) {
            InsertOutcome::Inserted { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    /// An empty storage to replay onto.
    pub(crate) fn replica(&self, vfs: &Arc<dyn Vfs>, root: &Path) -> Arc<Storage> {
        vfs.create_dir_all(&root.join("global")).unwrap();
        let data = ControlData::new(SYSTEM, timeline(), SEGMENT, true);
        let control = ControlFile::create(Arc::clone(vfs), root, data).unwrap();
        let quorum = self.wal.positions().flush.clone();
        let mut config = StorageConfig::new(root);
        config.frames = 2048;
        Storage::open(Arc::clone(vfs), &config, control, quorum).unwrap()
    }

    /// Replays the whole log of `from` onto a storage.
    pub(crate) fn replay(&self, vfs: &Arc<dyn Vfs>, from: &Path, onto: &Arc<Storage>) {
        self.replay_with(vfs, from, onto, Arc::new(OnlyBtree)).unwrap();
    }

    /// The same with another redo.
    pub(crate) fn replay_with(
        &self,
        vfs: &Arc<dyn Vfs>,
        from: &Path,
        onto: &Arc<Storage>,
        managers: Arc<dyn towline_storage::ResourceManagers>,
    ) -> Result<(), towline_storage::RedoError> {
        use towline_wal::{ReadOutcome, TimelineHistory, WalReader, WalSource};
        let source = WalSource {
            vfs: Arc::clone(vfs),
            dir: from.join("pg_wal"),
            segment_size: SegmentSize::new(SEGMENT).unwrap(),
            system: Some(SYSTEM),
            history: TimelineHistory::first(timeline()),
        };
        let replayer = towline_storage::Replayer::new(Arc::clone(onto), managers, Lsn(SEGMENT));
        let mut reader = WalReader::new(source, Lsn(SEGMENT));
        while let ReadOutcome::Record(record) = reader.next().unwrap() {
            replayer.replay_one(&record)?;
        }
        replayer.check_missing_pages()
    }
}

thread_local! {
    static ABANDON: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// From now on this thread leaves splits unfinished, most of the time.
pub(crate) fn abandon_splits(seed: Option<u64>) {
    ABANDON.set(seed.map(|seed| seed | 1));
}

/// Whether this split is left unfinished.
pub(crate) fn abandons_split() -> bool {
    let Some(state) = ABANDON.get() else {
        return false;
    };
    let next = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    ABANDON.set(Some(next | 1));
    (next >> 40) % 4 != 0
}
