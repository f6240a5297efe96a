//! Opening an engine: as a primary, as a standby. (A new cluster is made by [`crate::bootstrap`].)
//!
//! Every start as a primary opens a timeline (I6), in the order of DESIGN §7 and HAZARDS B2:
//!
//! 1. find the end of the WAL; damage with valid log behind it is corruption, not the end (A13);
//! 2. make the tail durable again;
//! 3. fork a new timeline at the end, never in place (A14), and start the log there; the image threshold is the fork (B6);
//! 4. insert the end-of-recovery record; until the quorum has it, `visible` stays at what was known at the fork (A1);
//! 5. redo (it may run while standbys are being served); then open for transactions. The next xid is past every reservation (C7).

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use towline_base::rules::{self, Rule};
use towline_base::{
    Clock, Lsn, LsnPublisher, LsnWatch, SqlState, SystemId, TimelineId, TimelineNumber, Vfs, Xid,
};
use towline_storage::{
    ClusterState, ControlData, ControlFile, Recovery, Replayer, ScanMeter, Storage, StorageConfig,
};
use towline_wal::format::{DecodedRecord, PositionMap, SegmentSize, is_segment_name};
use towline_wal::records::towline::{TowlineOp, XidReservation};
use towline_wal::records::xlog::{CheckPoint, EndOfRecovery, XlogOp};
use towline_wal::{
    Beyond, Known, PermitIssuer, Positions, Rmgr, StartAt, TimelineHistory, Wal, WalConfig, WalSource,
    credit_for, find_end, fork_timeline, rewrite_tail_durable,
};

use super::participant::Participant;
use super::replay::{Managers, redo_error};
use super::{Engine, EngineConfig, Writer};
use crate::bootstrap::{CSN_DIR, WAL_DIR};
use crate::csn::CsnLog;
use crate::error::{AccessError, Result};
use crate::heap::place::Targets;
use crate::locks::{LockManager, OwnerId};
use crate::release::note::{self, ReleaseNote};
use crate::release::{CommitLevel, CommitQueue};
use crate::session::SessionRegistry;
use crate::txn::slots::TxnSlots;
use crate::txn::snapshot::Horizon;
use crate::txn::xids::XidSource;

/// Who computes the quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuorumMode {
    /// A cluster of one: the quorum is the flush position, and the engine publishes it itself.
    Alone,
    /// The primary role: it gets the publishers, and must call [`CommitQueue::advance`].
    Managed,
}

/// A primary that has its log, and whose data is not recovered yet.
pub struct OpenedPrimary {
    /// The engine. Reads and writes only after [`OpenedPrimary::recover`].
    pub engine: Arc<Engine>,
    /// The log, to be shipped at once.
    pub wal: Arc<Wal>,
    /// Pages and files.
    pub storage: Arc<Storage>,
    /// The timelines, the new one last.
    pub history: TimelineHistory,
    /// End of the end-of-recovery record: the first record of the timeline.
    pub first_record_end: Lsn,
    /// The publishers of `quorum` and `quorum_written`, in [`QuorumMode::Managed`].
    pub quorum: Option<(LsnPublisher, LsnPublisher)>,
    /// Takes the permit back: fencing. Dropping it revokes, so it is kept as long as the node is primary.
    pub permits: Arc<PermitIssuer>,
    redo: Option<Recovery>,
    writer: Writer,
}

impl std::fmt::Debug for OpenedPrimary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedPrimary")
            .field("first_record_end", &self.first_record_end)
            .finish_non_exhaustive()
    }
}

fn io(action: &str, error: &std::io::Error) -> AccessError {
    let state = match error.kind() {
        std::io::ErrorKind::InvalidData => SqlState::DATA_CORRUPTED,
        _ => SqlState::IO_ERROR,
    };
    AccessError::new(state, format!("could not {action}: {error}"))
}

/// As [`io`], for the new files of the log that a start makes: the tail's last segment and the new timeline's first.
fn log_io(action: &str, error: &std::io::Error, source: &WalSource) -> AccessError {
    let full = [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded];
    if !full.contains(&error.kind()) {
        return io(action, error);
    }
    AccessError::new(
        SqlState::DISK_FULL,
        format!(
            "could not {action}: the disk of \"{}\" is full; a start needs room for two segments there, {} MB; remove what is not \
             ours, or give it more space, and start again",
            source.dir.display(),
            2 * source.segment_size.bytes() / (1 << 20)
        ),
    )
}

fn segment_size(control: &ControlData) -> Result<SegmentSize> {
    SegmentSize::new(control.segment_size)
        .ok_or_else(|| AccessError::corrupted("the control file names an impossible WAL segment size"))
}

fn source_of(vfs: &Arc<dyn Vfs>, config: &EngineConfig, control: &ControlData) -> Result<WalSource> {
    let dir = config.data_dir.join(WAL_DIR);
    let history = TimelineHistory::read_of(&**vfs, &dir, control.timeline)
        .map_err(|error| io("read the timeline history", &error))?;
    Ok(WalSource {
        vfs: Arc::clone(vfs),
        dir,
        segment_size: segment_size(control)?,
        system: Some(control.system),
        history,
    })
}

/// A timeline number above that of every history file and segment in the directory, whosever they are, and above `seen`.
fn next_timeline(source: &WalSource, seen: TimelineNumber) -> Result<TimelineNumber> {
    let names = source
        .vfs
        .read_dir(&source.dir)
        .map_err(|error| io("list the WAL directory", &error))?;
    let (mut highest, mut shown_by) = (source.history.current().number.0, "the control file");
    if seen.0 > highest {
        (highest, shown_by) = (seen.0, "a standby");
    }
    for entry in &names {
        let number = match entry.name.strip_suffix(".history") {
            Some(digits) => digits,
            None if is_segment_name(&entry.name) => &entry.name[..8],
            None => continue,
        };
        if let Some(number) = u32::from_str_radix(number, 16)
            .ok()
            .filter(|number| *number > highest)
        {
            (highest, shown_by) = (number, &entry.name);
        }
    }
    highest.checked_add(1).map(TimelineNumber).ok_or_else(|| {
        AccessError::corrupted(format!(
            "no timeline number is left above {highest}, which {shown_by} shows in \"{}\"",
            source.dir.display()
        ))
    })
}

/// What the scan of the log says of xids.
struct XidScan(Xid);

impl XidScan {
    fn see(&mut self, record: &DecodedRecord<'_>) {
        if record.header.xid != 0 {
            let xid = Xid::from_low32(record.header.xid, self.0);
            if xid.is_normal() {
                self.0 = self.0.max(xid.next());
            }
        }
        match record.rmgr() {
            Rmgr::Towline if TowlineOp::from_info(record.header.info) == Some(TowlineOp::XidReservation) => {
                if let Ok(body) = XidReservation::decode(record.main) {
                    self.0 = self.0.max(Xid(body.limit));
                }
            }
            Rmgr::Xlog => {
                let op = XlogOp::from_info(record.header.info);
                if let (Some(XlogOp::CheckpointOnline | XlogOp::CheckpointShutdown), Ok(body)) =
                    (op, CheckPoint::decode(record.main))
                {
                    self.0 = self.0.max(Xid(body.next_xid));
                }
            }
            _ => {}
        }
    }
}

fn wal_config(config: &EngineConfig, source: &WalSource, system: SystemId) -> WalConfig {
    WalConfig {
        dir: source.dir.clone(),
        system,
        segment_size: source.segment_size,
        buffers: config.wal_buffers,
        sync_method: config.wal_sync_method,
        fsync: config.fsync,
        tuning: config.wal_tuning,
    }
}

/// The parts of an engine that do not depend on its role.
struct Parts {
    vfs: Arc<dyn Vfs>,
    clock: Arc<dyn Clock>,
    config: EngineConfig,
    storage: Arc<Storage>,
    quorum: LsnWatch,
    next_xid: Xid,
    /// The next xid of the checkpoint that redo begins at.
    checkpoint_xid: Xid,
    visible: Lsn,
    hot: bool,
}

impl Parts {
    fn build(self, replay_from: Option<Lsn>) -> Result<Engine> {
        let slots = TxnSlots::new(self.config.max_connections + self.config.background_transactions);
        let locks = LockManager::new(Arc::clone(&slots));
        let release = CommitQueue::new(Arc::clone(&slots), Arc::clone(&locks), self.visible);
        let csn_dir = self.config.data_dir.join(CSN_DIR);
        let control = self.storage.control().get();
        let csn = Arc::new(CsnLog::open(
            Arc::clone(&self.vfs),
            &csn_dir,
            control.checkpoint.oldest_xid..self.checkpoint_xid,
            self.quorum.clone(),
            crate::csn::pages_beside(self.config.shared_buffers),
        )?);
        csn.extend_to(self.next_xid)?;
        let xids = Arc::new(XidSource::new(self.next_xid, self.config.xid_limits));
        xids.set_oldest_unfrozen(control.checkpoint.oldest_xid);
        let managers = Managers::new(
            Arc::clone(&csn),
            Arc::clone(&xids),
            Arc::clone(&locks),
            Arc::clone(&slots),
            Arc::clone(&release),
            self.hot
                .then_some((control.page_lsn_bound, control.timeline.number)),
        );
        let replayer = replay_from.map(|start| {
            let managers: Arc<dyn towline_storage::ResourceManagers> = Arc::clone(&managers) as _;
            Arc::new(Replayer::new(Arc::clone(&self.storage), managers, start))
        });
        let participant = Arc::new(Participant {
            csn: Arc::clone(&csn),
            xids: Arc::clone(&xids),
            slots: Arc::clone(&slots),
            quorum: self.quorum.clone(),
            positions: PositionMap::new(segment_size(&control)?),
            next_oid: AtomicU32::new(control.checkpoint.next_oid),
            hooks: Mutex::new(None),
        });
        let catalog = Arc::new(crate::catalog::CatalogCache::new());
        release.add_invalidator(Arc::clone(&catalog) as _);
        Ok(Engine {
            sessions: SessionRegistry::new(self.config.max_connections),
            config: self.config,
            vfs: self.vfs,
            clock: self.clock,
            writer: ArcSwapOption::empty(),
            storage: self.storage,
            targets: Targets::new(),
            quorum: self.quorum,
            slots,
            locks,
            csn,
            xids,
            release,
            horizon: Horizon::new(),
            cluster: std::sync::OnceLock::new(),
            pending_aborts: Mutex::new(Vec::new()),
            has_pending_aborts: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            catalog,
            managers,
            replayer,
            participant,
            background: Mutex::new(None),
            open_writers: Arc::new(AtomicU32::new(0)),
            next_toast_value: AtomicU32::new(crate::catalog::FIRST_USER_OID),
            first_record: AtomicU64::new(0),
            note_sync: Mutex::new(None),
        })
    }
}

fn storage_config(config: &EngineConfig) -> StorageConfig {
    StorageConfig {
        root: config.data_dir.clone(),
        frames: config.shared_buffers,
        max_open_files: config.max_open_files,
        max_wal_above_quorum: config.max_wal_above_quorum,
    }
}

/// A log or a storage that failed ends the engine (I5): no transaction begins any more, and the node is told by
/// [`Engine::has_failed`].
fn install_failure_hooks(engine: &Arc<Engine>, wal: &Wal) {
    let weak = Arc::downgrade(engine);
    wal.set_failure_hook(Box::new(move |error| {
        if let Some(engine) = weak.upgrade() {
            engine.fail(&io("write the log", error));
        }
    }));
    let weak = Arc::downgrade(engine);
    engine.storage.set_stop_hook(move |why| {
        if let Some(engine) = weak.upgrade() {
            engine.fail(&AccessError::new(SqlState::CRASH_SHUTDOWN, why));
        }
    });
}

/// In a cluster of one, the flush position is the quorum: publishes and releases after each flush.
fn install_alone(engine: &Arc<Engine>, wal: &Wal, quorum: LsnPublisher) {
    let publisher = Mutex::new(quorum);
    let engine = Arc::downgrade(engine);
    wal.set_post_flush_hook(Box::new(move |flush| {
        {
            let mut publisher = publisher.lock();
            if flush > publisher.get() {
                publisher.advance(flush);
            }
        }
        if let Some(engine) = engine.upgrade() {
            engine.release.advance(flush, flush, flush);
        }
    }));
}

impl Engine {
    /// Opens the data directory as a primary on a new timeline. See the module for the order.
    pub fn open_primary(
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        config: EngineConfig,
        mode: QuorumMode,
    ) -> Result<OpenedPrimary> {
        let control = ControlFile::open(Arc::clone(&vfs), &config.data_dir)?;
        let data = control.get();
        if data.state == ClusterState::Starting {
            return Err(AccessError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the data directory was not initialized completely; remove it and run init again",
            ));
        }
        let source = source_of(&vfs, &config, &data)?;
        let mut scan = XidScan(data.checkpoint.next_xid);
        // What an earlier start of a primary here has released, and so had made durable.
        let noted = note::read(&*vfs, &source.dir)
            .map_err(|error| io("read the note of released positions", &error))?
            .and_then(|released| released.on(&source.history));
        let durable = data
            .checkpoint
            .end
            .max(noted.map_or(Lsn::INVALID, |noted| noted.durable));
        let known = Known {
            durable,
            wrote_it: true,
        };
        let mut progress = ScanMeter::new(Arc::clone(&clock), config.progress_interval, data.checkpoint.redo);
        let found = find_end(source.clone(), data.checkpoint.redo, known, |record| {
            scan.see(record);
            progress.tell(record.end);
        })
        .map_err(|error| io("read the log", &error))?;
        if let Beyond::Corruption { durable } = found.beyond {
            return Err(AccessError::corrupted(format!(
                "the write-ahead log is damaged: {} in \"{}\", although it was durable up to {durable}",
                found.end,
                source.file_of(found.end.found_at).display()
            )));
        }
        let end = found.end.lsn;
        tracing::info!(%end, reason = %found.end, records = found.records, "end of the write-ahead log");
        rewrite_tail_durable(&source, durable.min(end), end)
            .map_err(|error| log_io("make the log's tail durable", &error, &source))?;
        let number = next_timeline(&source, config.timelines_seen)?;
        let timeline = TimelineId::new_random(number).map_err(|error| io("get random bytes", &error))?;
        let history = fork_timeline(&source, end, timeline, "start as a primary")
            .map_err(|error| log_io("open a timeline", &error, &source))?;
        let (noted_quorum, noted_visible) = noted.map_or((Lsn::INVALID, Lsn::INVALID), |noted| {
            (noted.quorum, noted.visible)
        });
        let known_quorum = found.quorum.max(data.quorum).max(noted_quorum).min(end);
        // What was seen before is seen again, also above the quorum (`local`), as far as it is there (`off`).
        let known_visible = known_quorum.max(noted_visible.min(end));
        control.update(|control| {
            control.timeline = timeline;
            control.state = ClusterState::InCrashRecovery;
            control.quorum = control.quorum.max(known_quorum);
        })?;
        let (publishers, _) = Positions::starting_at(Lsn::INVALID.max(end));
        let at = StartAt {
            lsn: end,
            prev: found.end.last_record,
            timeline,
            image_threshold: if rules::is_off(Rule::ImagesBehindFork) {
                data.checkpoint.redo
            } else {
                end
            },
        };
        let wal = Wal::start(
            Arc::clone(&vfs),
            wal_config(&config, &source, data.system),
            at,
            publishers,
        )
        .map_err(|error| log_io("start the log", &error, &source))?;
        let start_quorum = match mode {
            QuorumMode::Alone => end,
            QuorumMode::Managed => known_quorum,
        };
        let visible = start_quorum.max(known_visible);
        let (quorum, watch) = LsnWatch::new(start_quorum);
        let (quorum_written, _) = LsnWatch::new(start_quorum);
        let storage = Storage::open(Arc::clone(&vfs), &storage_config(&config), control, watch.clone())?;
        if !data.state.is_stopped() {
            storage.smgr().round_off_torn_blocks()?;
        }
        // A primary's pages are ≤ Q, which no fork goes below, and redo ends before anybody reads.
        storage.set_strict_page_lsn_bound(false)?;
        let parts = Parts {
            vfs,
            clock,
            config,
            storage: Arc::clone(&storage),
            quorum: watch,
            next_xid: scan.0,
            checkpoint_xid: data.checkpoint.next_xid,
            visible,
            hot: false,
        };
        let synced_log = parts.config.fsync;
        let engine = Arc::new(parts.build(Some(data.checkpoint.redo))?);
        if mode == QuorumMode::Managed {
            let note = ReleaseNote::open(&*engine.vfs, &source.dir, timeline, synced_log)
                .map_err(|error| io("open the note of released positions", &error))?;
            *engine.note_sync.lock() = Some(note.sync());
            engine.release.keep_note(note);
        }
        install_failure_hooks(&engine, &wal);
        let permits = Arc::new(PermitIssuer::new(timeline));
        let writer = Writer {
            wal: Arc::clone(&wal),
            permit: permits.issue(),
        };
        let quorum = match mode {
            QuorumMode::Alone => {
                install_alone(&engine, &wal, quorum);
                None
            }
            QuorumMode::Managed => Some((quorum, quorum_written)),
        };
        let first_record_end = if rules::is_off(Rule::RecordBeforeRedo) {
            end
        } else {
            insert_end_of_recovery(&engine, &writer, source.history.current().number)?
        };
        let replayer = engine
            .replayer
            .clone()
            .ok_or_else(|| AccessError::internal("no replayer"))?;
        let mut redo = Recovery::begin(replayer, source, Some(end)).map_err(redo_error)?;
        if let Some(count) = NonZeroUsize::new(engine.config.recovery_appliers) {
            redo.apply_with(count, engine.config.recovery_prefetch)
                .map_err(redo_error)?;
        }
        redo.measure(Arc::clone(&engine.clock), engine.config.progress_interval);
        Ok(OpenedPrimary {
            engine,
            wal,
            storage,
            history,
            first_record_end,
            quorum,
            permits,
            redo: Some(redo),
            writer,
        })
    }

    /// Opens the data directory as a standby. `quorum` is what the primary announces. Replay begins at the control file's checkpoint
    /// ([`Engine::replayed`]); the standby role feeds records to [`Engine::replay`] and moves the horizon.
    pub fn open_standby(
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        config: EngineConfig,
        quorum: LsnWatch,
    ) -> Result<Arc<Engine>> {
        let control = ControlFile::open(Arc::clone(&vfs), &config.data_dir)?;
        let data = control.get();
        if data.state == ClusterState::Starting {
            return Err(AccessError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the data directory was not initialized completely",
            ));
        }
        control.update(|control| control.state = ClusterState::InArchiveRecovery)?;
        let storage = Storage::open(
            Arc::clone(&vfs),
            &storage_config(&config),
            control,
            quorum.clone(),
        )?;
        if !data.state.is_stopped() {
            storage.smgr().round_off_torn_blocks()?;
        }
        // After a restart readers wait until replay has reached every page that is on disk.
        storage.set_strict_page_lsn_bound(true)?;
        let parts = Parts {
            vfs,
            clock,
            config,
            storage,
            quorum,
            next_xid: data.checkpoint.next_xid,
            checkpoint_xid: data.checkpoint.next_xid,
            visible: Lsn::INVALID,
            hot: true,
        };
        Ok(Arc::new(parts.build(Some(data.checkpoint.redo))?))
    }

    /// Lets the engine write.
    pub(super) fn open_writer(&self, writer: Writer) -> Result<()> {
        self.storage.attach_wal(Arc::clone(&writer.wal))?;
        self.managers.hot.store(false, Ordering::SeqCst);
        self.writer.store(Some(Arc::new(writer)));
        Ok(())
    }
}

fn insert_end_of_recovery(engine: &Arc<Engine>, writer: &Writer, previous: TimelineNumber) -> Result<Lsn> {
    let timeline = writer.permit.timeline();
    let body = EndOfRecovery {
        end_time: engine.clock.wall().div_euclid(1_000_000)
            + towline_base::clock::POSTGRES_EPOCH_UNIX_SECONDS,
        timeline: timeline.number.0,
        prev_timeline: previous.0,
        incarnation: timeline.incarnation,
    };
    let credit = writer
        .wal
        .credit(credit_for(0, 64))
        .map_err(|_| AccessError::internal("a fresh log has no room for its first record"))?;
    let mut record = towline_wal::RecordBuilder::new();
    record
        .begin(Rmgr::Xlog, XlogOp::EndOfRecovery as u8, 0)
        .payload(&body);
    let inserted = writer
        .wal
        .insert(&writer.permit, credit, &mut record, &[])
        .map_err(|error| AccessError::internal(error.to_string()))?;
    engine.first_record.store(inserted.end.0, Ordering::Release);
    // What the log held is released together with this record, once the quorum has it (A1).
    engine.release.enqueue(
        inserted.end,
        CommitLevel::On,
        OwnerId(0),
        smallvec::SmallVec::new(),
        None,
    );
    writer.wal.request_flush(inserted.end);
    Ok(inserted.end)
}

impl OpenedPrimary {
    /// Redo, on this thread; then the engine takes transactions. It may wait for the quorum, so the log's writer, and the primary role
    /// if there is one, must be running.
    pub fn recover(&mut self) -> Result<()> {
        while !self.recover_until(&|| false)? {}
        Ok(())
    }

    /// As [`Self::recover`], until `stopped` says so; false when it did. The cluster is then as after a crash, and the next start, or another
    /// call, goes on.
    pub fn recover_until(&mut self, stopped: &dyn Fn() -> bool) -> Result<bool> {
        let Some(redo) = self.redo.as_mut() else {
            return Ok(true);
        };
        if redo.run_until(stopped).map_err(redo_error)?.is_none() {
            return Ok(false);
        }
        let Some(redo) = self.redo.take() else {
            return Ok(true);
        };
        redo.replayer().check_missing_pages().map_err(redo_error)?;
        let progress = redo.progress();
        let seconds = progress.elapsed.as_secs_f64();
        tracing::info!(records = progress.records, from = %progress.start, "redo done: {seconds:.2} s, {progress}");
        if rules::is_off(Rule::RecordBeforeRedo) {
            let left = self.history.ancestors().last();
            let previous = left.map_or(TimelineNumber::FIRST, |entry| entry.timeline.number);
            self.first_record_end = insert_end_of_recovery(&self.engine, &self.writer, previous)?;
        }
        self.engine.managers.timeline_begins();
        self.engine.managers.sweep(&self.storage, self.first_record_end);
        // VACUUM may have made it younger since the checkpoint. A damaged catalog ends the start elsewhere.
        if let Ok(Some(oldest)) = crate::vacuum::frozen::of_database(&self.engine) {
            self.engine.xids.set_oldest_unfrozen(oldest);
        }
        self.storage
            .control()
            .update(|control| control.state = ClusterState::InProduction)?;
        self.engine.open_writer(self.writer.clone())?;
        Ok(true)
    }

    /// How far redo is.
    pub fn progress(&self) -> Option<towline_storage::RecoveryProgress> {
        self.redo.as_ref().map(Recovery::progress)
    }
}

/// Opens a cluster of one and makes it ready: recovery done, threads running.
pub fn open_alone(
    vfs: Arc<dyn Vfs>,
    clock: Arc<dyn Clock>,
    config: EngineConfig,
) -> Result<(Arc<Engine>, Arc<PermitIssuer>)> {
    let mut opened = Engine::open_primary(vfs, clock, config, QuorumMode::Alone)?;
    opened.recover()?;
    opened.engine.start_background(&opened.history)?;
    Ok((opened.engine, opened.permits))
}
