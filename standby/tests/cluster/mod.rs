//! The nodes of the tests: what the `towline` binary composes, without SQL.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use towline_access::bootstrap::{InitOptions, init};
use towline_access::cluster::ReplicationRow;
use towline_access::engine::{OpenedPrimary, QuorumMode};
use towline_access::{CommitLevel, Engine, EngineConfig, Step, TxnOptions};
use towline_base::failpoint::FailpointGuard;
use towline_base::settings::Settings;
use towline_base::settings::sync_names::SyncNames;
use towline_base::{
    Clock, Incarnation, Lsn, LsnWatch, NodeId, OsVfs, SystemClock, TimelineId, TimelineNumber, Vfs,
};
use towline_primary::{
    PrimaryParts, PrimaryRole, PrimaryView, QuorumPublishers, SeenTimelines, Slots, SyncRep,
};
use towline_proto::transport::Secret;
use towline_standby::{
    CloneRequest, LogSettings, PromiseFile, StandbyParts, StandbyRole, StandbyView, clone_database,
    mark_for_clone, needs_clone, open_log, wipe,
};
use towline_storage::ControlFile;
use towline_wal::format::{SegmentSize, parse_segment_name};
use towline_wal::{LoopThread, SyncMethod};

/// Failpoints belong to the whole process: a test that sets one runs alone, the others run together.
static FAILPOINTS: std::sync::RwLock<()> = std::sync::RwLock::new(());

/// The turn of a test that sets failpoints.
pub(crate) fn turn_with_failpoints() -> std::sync::RwLockWriteGuard<'static, ()> {
    FAILPOINTS
        .write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The turn of a test that must meet none.
pub(crate) fn turn_without_failpoints() -> std::sync::RwLockReadGuard<'static, ()> {
    FAILPOINTS
        .read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Bytes of a segment of the log.
pub(crate) const SEGMENT: u64 = 1 << 20;

pub(crate) const SECRET: &str = "correct horse battery";

/// How long anything may take that must happen: far above what it takes, on a machine that stalls as well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for a condition; fails with its name after a while.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn vfs() -> Arc<dyn Vfs> {
    OsVfs::shared()
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn config(dir: &std::path::Path) -> EngineConfig {
    EngineConfig {
        shared_buffers: 1024,
        shutdown_timeout: PATIENCE,
        ..EngineConfig::new(dir)
    }
}

fn settings() -> Arc<Settings> {
    Settings::with(&[
        ("wal_retrieve_retry_interval", "200ms"),
        // No stream ends because the machine stalls.
        ("wal_receiver_timeout", "10min"),
        ("wal_sender_timeout", "10min"),
    ])
    .unwrap()
}

/// A port that is a node's also while it is down: a socket that is bound and does not listen keeps it from everybody else.
#[derive(Clone, Debug)]
struct Address {
    port: u16,
    _bound: Arc<TcpSocket>,
}

impl Address {
    fn reserve() -> Address {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Address {
            port: socket.local_addr().unwrap().port(),
            _bound: Arc::new(socket),
        }
    }
}

fn runtime() -> Runtime {
    // RUST_LOG=info shows what the nodes say.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A stopped node's directory, and where its log ended.
pub(crate) struct Files {
    pub(crate) dir: TempDir,
    pub(crate) end: Lsn,
    address: Address,
    node: NodeId,
}

impl Files {
    fn new(name: &str) -> Files {
        Files {
            dir: tempfile::tempdir().unwrap(),
            end: Lsn::INVALID,
            address: Address::reserve(),
            node: new_node(name),
        }
    }

    /// The same directory as it is now, under the same identity and address.
    pub(crate) fn copy(&self) -> Files {
        let dir = tempfile::tempdir().unwrap();
        copy_tree(self.dir.path(), dir.path());
        Files {
            dir,
            end: self.end,
            address: self.address.clone(),
            node: self.node.clone(),
        }
    }

    /// As if this node had another name.
    pub(crate) fn renamed(mut self, name: &str) -> Files {
        self.node.name = name.to_owned();
        self
    }

    /// As if this were a copy of that node's directory, whole.
    pub(crate) fn copied_from(mut self, primary: &Primary) -> Files {
        self.node = primary.files.node.clone();
        self
    }

    /// As if this standby had accepted another timeline.
    pub(crate) fn promise(&self, timeline: TimelineId) {
        let data_dir = self.dir.path().join("data");
        let followed = ControlFile::open(vfs(), &data_dir).unwrap().get().timeline;
        let file = PromiseFile::open(vfs(), &data_dir, &self.node, followed).unwrap();
        file.give(timeline, 0).unwrap();
    }
}

fn new_node(name: &str) -> NodeId {
    NodeId {
        name: name.to_owned(),
        incarnation: Incarnation::random().unwrap(),
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy_tree(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

pub(crate) struct Primary {
    runtime: Runtime,
    settings: Arc<Settings>,
    engine: Arc<Engine>,
    opened: OpenedPrimary,
    role: Option<PrimaryRole>,
    slots: Arc<Slots>,
    files: Files,
}

impl Primary {
    pub(crate) fn init(names: &str) -> Primary {
        let files = Files::new("p");
        let options = InitOptions {
            segment_size: SEGMENT,
            ..InitOptions::default()
        };
        init(&vfs(), &files.dir.path().join("data"), &clock(), &options).unwrap();
        Primary::start(names, files)
    }

    pub(crate) fn start(names: &str, files: Files) -> Primary {
        let (runtime, settings) = (runtime(), settings());
        let data_dir = files.dir.path().join("data");
        let seen = SeenTimelines::open(vfs(), &data_dir).unwrap();
        let engine_config = EngineConfig {
            timelines_seen: seen.highest().unwrap_or(TimelineNumber(0)),
            ..config(&data_dir)
        };
        let mut opened = Engine::open_primary(vfs(), clock(), engine_config, QuorumMode::Managed).unwrap();
        let engine = Arc::clone(&opened.engine);
        let (quorum, quorum_written) = opened.quorum.take().unwrap();
        let sync_rep = SyncRep::new(
            opened.history.current(),
            opened.first_record_end,
            QuorumPublishers {
                quorum,
                quorum_written,
            },
            Arc::clone(engine.release()),
            SyncNames::parse(names).unwrap(),
            opened.wal.positions().flush.get(),
        );
        let told = Arc::clone(&sync_rep);
        opened
            .wal
            .set_post_flush_hook(Box::new(move |flush| told.on_flush(flush)));
        let writer: LoopThread = engine.start_wal_writer(&opened.wal).unwrap();
        let slots = Slots::open(vfs(), &data_dir.join("slots")).unwrap();
        engine.set_retention_hooks(Arc::clone(&slots) as _);
        let listener = runtime
            .block_on(TcpListener::bind(("127.0.0.1", files.address.port)))
            .unwrap();
        let feedback = Arc::clone(&engine);
        let parts = PrimaryParts {
            node: files.node.clone(),
            system: opened.storage.control().get().system,
            settings: Arc::clone(&settings),
            clock: clock(),
            wal: Arc::clone(&opened.wal),
            history: opened.history.clone(),
            storage: Arc::clone(&opened.storage),
            sync_rep,
            slots: Arc::clone(&slots),
            seen,
            on_feedback: Box::new(move |oldest| feedback.set_feedback(oldest)),
            secret: Secret::parse(SECRET).unwrap(),
            listener,
        };
        let role = PrimaryRole::start(parts, runtime.handle()).unwrap();
        opened.recover().unwrap();
        engine.start_background_with(&opened.history, writer).unwrap();
        Primary {
            runtime,
            settings,
            engine,
            opened,
            role: Some(role),
            slots,
            files,
        }
    }

    /// Changes a setting of the running node.
    pub(crate) fn set(&self, name: &str, value: &str) {
        self.settings.override_value(name, value).unwrap();
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(crate) fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    pub(crate) fn view(&self) -> PrimaryView {
        self.role.as_ref().unwrap().view()
    }

    /// Changes `synchronous_standby_names`.
    pub(crate) fn set_names(&self, names: &str) {
        let role = self.role.as_ref().unwrap();
        role.sync_rep().set_names(SyncNames::parse(names).unwrap());
    }

    /// The stream of a standby of this name has ended, here too: what it has acknowledged is known.
    pub(crate) fn wait_gone(&self, name: &str) {
        eventually("its slot is free", || {
            !self
                .view()
                .slots()
                .iter()
                .any(|slot| slot.name == name && slot.active)
        });
    }

    /// Where the slot of a node begins.
    pub(crate) fn slot_of(&self, name: &str) -> Lsn {
        let slots = self.view().slots();
        let slot = slots.iter().find(|slot| slot.name == name).unwrap();
        slot.restart_lsn.unwrap()
    }

    pub(crate) fn timeline(&self) -> TimelineId {
        self.opened.history.current()
    }

    /// The only standby that streams; a base backup of which the end was not noted yet is waited for.
    pub(crate) fn only_stream(&self) -> ReplicationRow {
        let mut rows = Vec::new();
        eventually("there is one stream", || {
            rows = self.view().replication();
            rows.len() == 1
        });
        rows.remove(0)
    }

    pub(crate) fn flush(&self) -> Lsn {
        self.opened.wal.positions().flush.get()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.files.address.port)
    }

    /// Commits a transaction that has an xid; its LSN when it is released (and, for remote_apply, readable there) in time.
    pub(crate) fn commit(&self, level: CommitLevel, patience: Duration) -> Option<Lsn> {
        let lsn = self.commit_later(level);
        let released = self.engine.release().wait(lsn, level).block(patience).unwrap();
        released.then_some(lsn)
    }

    /// Commits without waiting for the release.
    pub(crate) fn commit_later(&self, level: CommitLevel) -> Lsn {
        let mut transaction = self.engine.begin(TxnOptions::default()).unwrap();
        finish(|| transaction.ensure_xid());
        finish(|| transaction.commit(level))
    }

    /// Commits on a thread of its own: a lone committer flushes by itself, so it is held where a flush is held.
    pub(crate) fn commit_aside(&self, level: CommitLevel) -> std::thread::JoinHandle<Lsn> {
        let engine = Arc::clone(&self.engine);
        std::thread::spawn(move || {
            let mut transaction = engine.begin(TxnOptions::default()).unwrap();
            finish(|| transaction.ensure_xid());
            finish(|| transaction.commit(level))
        })
    }

    /// Ends the segment. The log refuses while its writer is at work, which wakes a committer before it is done: asked again then.
    pub(crate) fn switch_segment(&self) {
        let writer = self.engine.writer().unwrap();
        eventually("the segment has ended", || {
            writer.wal.switch_segment(&writer.permit).unwrap().is_some()
        });
    }

    /// Checkpoints until nothing older than now is needed, so that old segments go.
    pub(crate) fn remove_old_wal(&self) {
        for _ in 0..3 {
            self.switch_segment();
            self.commit(CommitLevel::On, PATIENCE).unwrap();
            let wait = self.engine.checkpoint().unwrap();
            assert!(wait.block(PATIENCE).unwrap());
        }
    }

    /// Stops in order: the shutdown checkpoint, then the walsenders.
    pub(crate) fn stop(mut self) -> Files {
        self.engine.shutdown().unwrap();
        self.files.end = self.flush();
        let role = self.role.take().unwrap();
        self.runtime.block_on(role.shutdown(PATIENCE));
        self.runtime.shutdown_timeout(PATIENCE);
        self.files
    }

    /// Lets the walsenders go in order, without a checkpoint before, as after one that found no quorum in time; then ends.
    pub(crate) fn stop_without_checkpoint(mut self, meanwhile: impl FnOnce(&PrimaryView)) {
        let view = self.view();
        let role = self.role.take().unwrap();
        let stopping = self.runtime.spawn(role.shutdown(PATIENCE));
        meanwhile(&view);
        self.runtime.block_on(stopping).unwrap();
        self.engine.stop_abruptly();
        self.runtime.shutdown_timeout(PATIENCE);
    }

    /// Ends while a sync is held, as a crash does: what is written and not synced is taken out of the files.
    pub(crate) fn crash_before_sync(mut self, held: FailpointGuard) -> Files {
        let (durable, timeline) = (self.flush(), self.timeline().number);
        let role = self.role.take().unwrap();
        self.runtime.block_on(role.abort());
        // Nobody is told of what the sync that is held brings when it is let go.
        self.runtime.shutdown_timeout(PATIENCE);
        let engine = Arc::clone(&self.engine);
        // Any sync that still comes fails, and poisons the log.
        let failing = FailpointGuard::new("wal::before_fsync", towline_base::failpoint::Action::Error, 0);
        engine.stop_abruptly();
        drop((held, failing));
        let segments = self.opened.wal.segments();
        let (path, offset) = segments.locate(timeline, durable);
        let file = vfs().open(&path, towline_base::OpenMode::ReadWrite).unwrap();
        file.allocate_zeroed(offset, file.len().unwrap() - offset)
            .unwrap();
        self.files
    }
}

/// Drives a step to its end.
fn finish<T>(mut step: impl FnMut() -> towline_access::Result<Step<T>>) -> T {
    loop {
        match step().unwrap() {
            Step::Done(value) => return value,
            Step::Wait(wait) => {
                assert!(wait.block(PATIENCE).unwrap(), "a step waits for ever");
            }
        }
    }
}

pub(crate) struct Standby {
    runtime: Runtime,
    settings: Arc<Settings>,
    engine: Arc<Engine>,
    role: Option<StandbyRole>,
    files: Files,
}

impl Standby {
    /// A new node, cloned from the primary.
    pub(crate) fn empty(name: &str, primary: &Primary) -> Standby {
        Standby::empty_at(name, &primary.url())
    }

    /// Wipes the files and clones again, as a new incarnation.
    pub(crate) fn clone_anew(name: &str, primary: &Primary, mut files: Files) -> Standby {
        mark_for_clone(&*vfs(), &files.dir.path().join("data")).unwrap();
        files.node = new_node(name);
        Standby::start(name, primary, files)
    }

    pub(crate) fn start(_name: &str, primary: &Primary, files: Files) -> Standby {
        Standby::start_at(&primary.url(), files)
    }

    /// A new node whose primary is reached at this address.
    pub(crate) fn empty_at(name: &str, upstream: &str) -> Standby {
        let files = Files::new(name);
        vfs().create_dir_all(&files.dir.path().join("data")).unwrap();
        Standby::start_at(upstream, files)
    }

    /// From files, the primary at this address.
    pub(crate) fn start_at(upstream: &str, files: Files) -> Standby {
        let (runtime, settings) = (runtime(), settings());
        let vfs = vfs();
        let data_dir: PathBuf = files.dir.path().join("data");
        let secret = Secret::parse(SECRET).unwrap();
        if needs_clone(&*vfs, &data_dir).unwrap() {
            wipe(&*vfs, &data_dir).unwrap();
            let request = CloneRequest {
                upstream: upstream.to_owned(),
                secret: secret.clone(),
                node: files.node.clone(),
                slot: String::new(),
                data_dir: data_dir.clone(),
                timeout: None,
            };
            let mut seen = 0;
            runtime
                .block_on(clone_database(&vfs, &request, |progress| seen = progress.bytes))
                .unwrap();
            assert!(seen > 0, "progress was told");
        }
        let control = ControlFile::open(Arc::clone(&vfs), &data_dir).unwrap().get();
        let log_settings = LogSettings {
            sync_method: SyncMethod::Fdatasync,
            fsync: true,
            progress_interval: std::time::Duration::ZERO,
        };
        let opened = open_log(&vfs, &data_dir, &control, log_settings).unwrap();
        let promise = PromiseFile::open(Arc::clone(&vfs), &data_dir, &files.node, control.timeline).unwrap();
        let (quorum, watch) = LsnWatch::new(opened.quorum);
        let segments = Arc::clone(opened.received.segments());
        let engine = Engine::open_standby(Arc::clone(&vfs), clock(), config(&data_dir), watch).unwrap();
        let parts = StandbyParts {
            node: files.node.clone(),
            system: control.system,
            settings: Arc::clone(&settings),
            clock: clock(),
            upstream: upstream.to_owned(),
            secret,
            replay: Arc::clone(&engine) as _,
            received: opened.received,
            followed: opened.followed,
            quorum,
            consistent_at: opened.consistent_at,
            on_disk: opened.on_disk,
            promise,
        };
        let role = StandbyRole::start(parts, runtime.handle()).unwrap();
        engine.set_retention_hooks(Arc::new(role.view()));
        engine.start_restartpoints(Some(segments)).unwrap();
        Standby {
            runtime,
            settings,
            engine,
            role: Some(role),
            files,
        }
    }

    /// Changes a setting of the running node.
    pub(crate) fn set(&self, name: &str, value: &str) {
        self.settings.override_value(name, value).unwrap();
    }

    pub(crate) fn view(&self) -> StandbyView {
        self.role.as_ref().unwrap().view()
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The numbers of the segments that are there, of any timeline, in order.
    pub(crate) fn segments(&self) -> Vec<u64> {
        let size = SegmentSize::new(SEGMENT).unwrap();
        let entries = vfs()
            .read_dir(&self.files.dir.path().join("data/pg_wal"))
            .unwrap();
        let mut numbers: Vec<u64> = entries
            .iter()
            .filter_map(|entry| parse_segment_name(&entry.name, size))
            .map(|(_, segment)| segment.0)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// What readers see.
    pub(crate) fn horizon(&self) -> Lsn {
        self.engine.visible().get()
    }

    pub(crate) fn stop(mut self) -> Files {
        let role = self.role.take().unwrap();
        self.runtime.block_on(role.shutdown());
        let _ = self.engine.shutdown();
        self.runtime.shutdown_timeout(PATIENCE);
        self.files
    }
}
