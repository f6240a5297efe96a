//! A base backup of a database that changes meanwhile: what a standby shows of it first. With the rule that tells it how new its pages
//! may be (B9), and seen to fail without.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use towline_access::bootstrap::{InitOptions, WAL_DIR, init};
use towline_access::catalog::{BOOTSTRAP_SUPERUSER, Relation, Table};
use towline_access::ddl::{CreateTable, DdlOp, NewColumn, NewConstraint, QualifiedName, Statement};
use towline_access::engine::{OpenedPrimary, QuorumMode};
use towline_access::heap::HeapScan;
use towline_access::ops::InsertOp;
use towline_access::{CommitLevel, Engine, EngineConfig, Step, Transaction, TxnOptions};
use towline_base::rules::RuleOff;
use towline_base::settings::Settings;
use towline_base::settings::sync_names::SyncNames;
use towline_base::vfs::CrashVfs;
use towline_base::{Clock, Incarnation, Lsn, LsnWatch, NodeId, SystemClock, Vfs};
use towline_proto::transport::Secret;
use towline_storage::ControlFile;
use towline_storage::buffer::FlushState;
use towline_types::{ColumnType, Datum, TypeId};
use towline_wal::format::SegmentSize;
use towline_wal::{LoopThread, ReadOutcome, TimelineHistory, WalReader, WalSource};

use super::*;
use crate::seen::SeenTimelines;
use crate::slots::Slots;
use crate::sync_rep::{QuorumPublishers, SyncRep};
use crate::walsender::Kind;
use crate::{PrimaryParts, PrimaryRole};

const LIMIT: Duration = Duration::from_secs(20);
const ROOT: &str = "/data";

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn config() -> EngineConfig {
    EngineConfig {
        shared_buffers: 512,
        ..EngineConfig::new(ROOT)
    }
}

fn drive<T>(
    txn: &mut Transaction,
    mut step: impl FnMut(&mut Transaction) -> towline_access::Result<Step<T>>,
) -> T {
    loop {
        match step(txn).unwrap() {
            Step::Done(value) => return value,
            Step::Wait(wait) => assert!(wait.block(LIMIT).unwrap(), "a step waits for ever"),
        }
    }
}

/// A primary on files in memory, which serves backups and needs no standby.
struct Primary {
    vfs: CrashVfs,
    opened: OpenedPrimary,
    role: PrimaryRole,
    runtime: Runtime,
    _writer: LoopThread,
}

impl Primary {
    fn start() -> Primary {
        let vfs = CrashVfs::new();
        let options = InitOptions {
            segment_size: 1 << 20,
            ..InitOptions::default()
        };
        init(&vfs.shared(), Path::new(ROOT), &clock(), &options).unwrap();
        let mut opened = Engine::open_primary(vfs.shared(), clock(), config(), QuorumMode::Managed).unwrap();
        let (quorum, quorum_written) = opened.quorum.take().unwrap();
        let sync_rep = SyncRep::new(
            opened.history.current(),
            opened.first_record_end,
            QuorumPublishers {
                quorum,
                quorum_written,
            },
            Arc::clone(opened.engine.release()),
            SyncNames::parse("").unwrap(),
            opened.wal.positions().flush.get(),
        );
        let told = Arc::clone(&sync_rep);
        opened
            .wal
            .set_post_flush_hook(Box::new(move |flush| told.on_flush(flush)));
        let writer = opened.engine.start_wal_writer(&opened.wal).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let parts = PrimaryParts {
            node: NodeId {
                name: "p".into(),
                incarnation: Incarnation([1; 16]),
            },
            system: opened.storage.control().get().system,
            settings: Settings::with(&[]).unwrap(),
            clock: clock(),
            wal: Arc::clone(&opened.wal),
            history: opened.history.clone(),
            storage: Arc::clone(&opened.storage),
            sync_rep,
            slots: Slots::open(vfs.shared(), &Path::new(ROOT).join("slots")).unwrap(),
            seen: SeenTimelines::open(vfs.shared(), Path::new(ROOT)).unwrap(),
            on_feedback: Box::new(|_| ()),
            secret: Secret::parse("correct horse battery").unwrap(),
            listener: runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap(),
        };
        let role = PrimaryRole::start(parts, runtime.handle()).unwrap();
        opened.recover().unwrap();
        Primary {
            vfs,
            opened,
            role,
            runtime,
            _writer: writer,
        }
    }

    fn commit(&self, mut txn: Transaction) {
        let lsn = drive(&mut txn, |txn| txn.commit(CommitLevel::On));
        let wait = self.opened.engine.release().wait(lsn, CommitLevel::On);
        assert!(wait.block(LIMIT).unwrap());
    }

    fn begin(&self) -> Transaction {
        self.opened.engine.begin(TxnOptions::default()).unwrap()
    }

    /// Makes a table (id int4 primary key, large text), whose values out of line have files of their own.
    fn create(&self, name: &str) -> Arc<Table> {
        let column = |name: &str, id| NewColumn {
            name: name.to_owned(),
            column_type: ColumnType::from(id),
            not_null: false,
            default: None,
        };
        let statement = Statement::CreateTable(CreateTable {
            name: QualifiedName::new(name),
            if_not_exists: false,
            columns: vec![column("id", TypeId::Int4), column("large", TypeId::Text)],
            constraints: vec![NewConstraint {
                primary: true,
                name: None,
                columns: vec!["id".to_owned()],
                fillfactor: None,
            }],
            fillfactor: None,
        });
        let mut txn = self.begin();
        txn.begin_statement();
        let mut op = DdlOp::new(statement, BOOTSTRAP_SUPERUSER);
        drive(&mut txn, |txn| op.step(txn));
        self.commit(txn);
        let engine = &self.opened.engine;
        let view = engine.catalog().shared(engine).unwrap();
        match view.find_relation(None, name, &["public"]) {
            Some(Relation::Table(table)) => Arc::clone(table),
            other => panic!("{name}: {other:?}"),
        }
    }

    /// A row with this id in each of the tables, by one transaction; then whoever reads has left its hints, and every page is written.
    fn insert(&self, id: i32, tables: &[&Arc<Table>]) {
        let mut txn = self.begin();
        for table in tables {
            txn.begin_statement();
            let row = [Datum::Int4(id), Datum::text("short")];
            let mut op = InsertOp::new(Arc::clone(table), &row).unwrap();
            drive(&mut txn, |txn| op.step(txn));
        }
        self.commit(txn);
        for table in tables {
            assert!(ids(&self.opened.engine, table).contains(&id));
        }
        let mut pages = self.opened.storage.pool().write_back(Lsn::MAX);
        while pages.step().unwrap() != FlushState::Done {}
    }
}

/// The ids of the rows that a new transaction sees.
fn ids(engine: &Arc<Engine>, table: &Table) -> BTreeSet<i32> {
    let mut txn = engine.begin(TxnOptions::default()).unwrap();
    let snapshot = txn.begin_statement();
    let mut scan = HeapScan::new(&txn, table.node).unwrap();
    let mut found = BTreeSet::new();
    while scan.next_page(&txn, &snapshot).unwrap() {
        for (_, tuple) in scan.rows() {
            let bytes = table.layout.attr(tuple.data(), tuple.bitmap(), tuple.natts(), 0);
            found.insert(i32::from_le_bytes(
                bytes.unwrap().unwrap()[..].try_into().unwrap(),
            ));
        }
    }
    found
}

/// The files of a backup on a disk of their own, with the primary's log.
fn restored(primary: &Primary, messages: &[Message]) -> CrashVfs {
    let (root, disk) = (Path::new(ROOT), CrashVfs::new());
    for directory in ["base/5", "global", "pg_csn", WAL_DIR] {
        disk.create_dir_all(&root.join(directory)).unwrap();
    }
    let mut file = None;
    for message in messages {
        match message {
            Message::Start(_) => {}
            Message::File(begun) => {
                let path = root.join(&begun.path);
                disk.create_dir_all(path.parent().unwrap()).unwrap();
                file = Some(disk.open(&path, OpenMode::Truncate).unwrap());
            }
            Message::Chunk(chunk) => file
                .as_ref()
                .unwrap()
                .write_all_at(&chunk.data, chunk.offset)
                .unwrap(),
            Message::End(end) => {
                let (_, data) = control::decode(&end.control).unwrap();
                ControlFile::create(disk.shared(), root, data).unwrap();
            }
        }
    }
    for entry in primary.vfs.read_dir(&root.join(WAL_DIR)).unwrap() {
        let path = root.join(WAL_DIR).join(&entry.name);
        let bytes = primary.vfs.read_file(&path, 1 << 30).unwrap();
        let file = disk.open(&path, OpenMode::Truncate).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
    }
    disk
}

/// A standby on a restored backup, which has replayed as far as it must before it lets readers in.
fn first_shown(disk: &CrashVfs) -> Arc<Engine> {
    let (_quorum, watch) = LsnWatch::new(Lsn::MAX);
    let standby = Engine::open_standby(disk.shared(), clock(), config(), watch).unwrap();
    let control = standby.storage().control().get();
    let dir = Path::new(ROOT).join(WAL_DIR);
    let source = WalSource {
        vfs: disk.shared(),
        history: TimelineHistory::read_of(disk, &dir, control.timeline).unwrap(),
        dir,
        segment_size: SegmentSize::new(control.segment_size).unwrap(),
        system: Some(control.system),
    };
    let consistent_at = control.page_lsn_bound.max(control.checkpoint.end);
    let mut reader = WalReader::new(source, control.checkpoint.redo);
    reader.set_limit(consistent_at);
    while let ReadOutcome::Record(record) = reader.next().unwrap() {
        assert!(matches!(standby.replay(&record).unwrap(), Step::Done(())));
    }
    standby.publish_horizon(consistent_at);
    standby
}

/// B9: between the copies of two tables a transaction changes both, and their pages are written. Whether a standby of that copy shows all of
/// the transaction, or nothing of it.
fn a_copy_shows_whole_transactions(off: bool) -> bool {
    let primary = Primary::start();
    let (one, two) = (primary.create("one"), primary.create("two"));
    primary.insert(1, &[&one, &two]);
    let core = Arc::clone(primary.role.core());
    let node = NodeId {
        name: "s1".into(),
        incarnation: Incarnation([2; 16]),
    };
    let cancel = CancellationToken::new();
    let state = SenderState::new(
        7,
        node,
        String::new(),
        &*core.clock,
        Kind::Backup,
        Lsn::INVALID,
        cancel,
    );
    // So narrow that the copy is never more than two messages ahead.
    let (out, mut copied) = mpsc::channel(1);
    let runtime = primary.runtime.handle().clone();
    let copying = std::thread::spawn(move || {
        let _off = off.then(|| RuleOff::new(Rule::BackupKnowsItsEnd));
        let _inside = runtime.enter();
        assert!(copy(&core, &state, "s1", &out).is_ok(), "the copy has failed");
    });
    let path = |table: &Table| format!("base/5/{}", table.node.rel);
    let (mut messages, mut current, mut changed) = (Vec::new(), String::new(), false);
    while let Some(message) = copied.blocking_recv() {
        let message = message.unwrap().message.unwrap();
        match &message {
            Message::File(file) => {
                current.clone_from(&file.path);
                assert!(
                    changed || current != path(&two),
                    "the second table is copied too early"
                );
            }
            // The first table's files beside this one are still to come, and then the second's.
            Message::Chunk(_) if current == path(&one) => {
                primary.insert(2, &[&one, &two]);
                changed = true;
            }
            _ => {}
        }
        messages.push(message);
    }
    copying.join().unwrap();
    assert!(changed, "the first table was copied");
    let standby = first_shown(&restored(&primary, &messages));
    let (one, two) = (ids(&standby, &one), ids(&standby, &two));
    primary.opened.engine.stop_abruptly();
    primary.runtime.block_on(primary.role.abort());
    one == two && one.contains(&1)
}

#[test]
fn a_backup_is_shown_when_it_has_reached_its_newest_page() {
    assert!(a_copy_shows_whole_transactions(false));
}

#[cfg(debug_assertions)]
#[test]
fn without_its_end_a_backup_would_show_half_a_transaction() {
    assert!(!a_copy_shows_whole_transactions(true));
}
