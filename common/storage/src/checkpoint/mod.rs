//! Checkpoints on a primary and restartpoints on a standby: one loop, [`Checkpointer::step`].
//!
//! The order, which is the invariant: the redo pointer is fixed; every page whose first unwritten change is before it is written,
//! each when the quorum has it; the participants write theirs; everything is synced; the checkpoint record is inserted; the quorum
//! has it; the control file names it; only then old WAL and the files of dropped relations go.
//!
//! A restartpoint is the same without a record of its own: it takes the redo pointer of a checkpoint record that was replayed.
//! Between any two steps nothing is latched. A failing write ends the attempt, the pages stay dirty, and it is tried again; a failing
//! sync stops the storage (I5).

mod participant;
mod report;
mod requests;
mod statistics;
mod thread;
mod trigger;

use participant::repeated_credit;
pub use participant::{CheckpointCounters, CheckpointParticipant, REPEATED_BYTES};
pub use requests::CheckpointRequests;
pub use statistics::CheckpointStatistics;
pub use thread::{CheckpointerThread, spawn_checkpointer};
pub use trigger::{
    CheckpointReason, CheckpointSettings, Situation, bytes_to_recycle, decide, estimate_distance,
    is_on_schedule, wal_between_checkpoints,
};

use crate::buffer::{FlushState, WriteBack};
use crate::control::{CheckpointInfo, ClusterState};
use crate::error::{StorageError, StorageResult};
use crate::recovery::Replayer;
use crate::storage::Storage;
use report::{Report, WalFiles};
use towline_base::clock::POSTGRES_EPOCH_UNIX_SECONDS;
use towline_base::rules::{self, Rule};
use towline_base::{Clock, Lsn, LsnPublisher, LsnWatch, Moment, Next, TimelineNumber};
use towline_wal::SegmentDir;
use towline_wal::records::xlog::{CheckPoint, XlogOp};
use towline_wal::{Credit, Inserted, NoCredit, RecordBuilder, Rmgr, Wal, WritePermit, credit_for, retention};

use std::sync::Arc;
use std::time::Duration;

/// Between looks at the clock while nothing is due, so that a changed setting or more WAL is noticed.
const POLL: Duration = Duration::from_secs(1);
/// Between looks at a position that is waited for, when nobody waits on its watch.
const POLL_POSITION: Duration = Duration::from_millis(5);
/// How long a spread checkpoint rests when it is ahead of its schedule.
const REST: Duration = Duration::from_millis(100);
/// After a failed attempt.
const RETRY: Duration = Duration::from_secs(1);

/// What a checkpointer of a primary needs.
pub struct PrimarySide {
    /// The log.
    pub wal: Arc<Wal>,
    /// The right to insert the checkpoint record.
    pub permit: WritePermit,
    /// The parent's timeline number, as in the history.
    pub previous_timeline: TimelineNumber,
    /// Where the timeline began: older timelines' segments behind it may go.
    pub timeline_begin: Lsn,
}

/// Where checkpoints come from.
pub enum CheckpointSource {
    /// A primary makes checkpoints.
    Primary(PrimarySide),
    /// A standby makes restartpoints of what it has replayed.
    Standby(Arc<Replayer>),
}

/// A checkpoint in progress.
struct Run {
    reason: CheckpointReason,
    info: CheckpointInfo,
    report: Report,
}

enum Phase {
    Idle,
    Writing {
        run: Box<Run>,
        pages: WriteBack,
    },
    Participants {
        run: Box<Run>,
    },
    /// The record is inserted, or none is needed: waits until the quorum has `info.end`.
    Logged {
        run: Box<Run>,
    },
}

/// See the module.
pub struct Checkpointer {
    storage: Arc<Storage>,
    source: CheckpointSource,
    participant: Arc<dyn CheckpointParticipant>,
    /// Where WAL is kept, if this node removes it.
    segments: Option<Arc<SegmentDir>>,
    clock: Arc<dyn Clock>,
    requests: Arc<CheckpointRequests>,
    finished: LsnPublisher,
    phase: Phase,
    last_start: Moment,
    not_before: Moment,
    waits_for: Option<Lsn>,
    /// WAL bytes to expect between redo pointers: how many segments are worth keeping for reuse.
    estimate: u64,
    /// WAL segments that the log had made when the last checkpoint ended.
    segments_made: u64,
}

impl std::fmt::Debug for Checkpointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpointer")
            .field("waits_for", &self.waits_for)
            .finish_non_exhaustive()
    }
}

impl Checkpointer {
    /// A checkpointer over a storage. The first checkpoint is due `checkpoint_timeout` from now.
    pub fn new(
        storage: Arc<Storage>,
        source: CheckpointSource,
        participant: Arc<dyn CheckpointParticipant>,
        segments: Option<Arc<SegmentDir>>,
        clock: Arc<dyn Clock>,
        settings: CheckpointSettings,
    ) -> Checkpointer {
        let (finished, watch) = LsnWatch::new(storage.control().get().checkpoint.redo);
        let last_start = clock.now();
        Checkpointer {
            storage,
            source,
            participant,
            segments,
            clock,
            requests: Arc::new(CheckpointRequests::new(watch, settings)),
            finished,
            phase: Phase::Idle,
            last_start,
            not_before: last_start,
            waits_for: None,
            estimate: 0,
            segments_made: 0,
        }
    }

    /// The handle by which checkpoints are asked for.
    pub fn requests(&self) -> &Arc<CheckpointRequests> {
        &self.requests
    }

    /// The quorum position that the next step waits for, if it waits for one: the thread that drives the steps waits for it.
    pub fn waits_for(&self) -> Option<Lsn> {
        self.waits_for
    }

    /// One step: begins a checkpoint when one is due, or writes some pages, or finishes. `Stop` after the shutdown checkpoint, or when the
    /// storage has stopped.
    pub fn step(&mut self, now: Moment) -> Next {
        self.waits_for = None;
        if self.storage.stop_reason().is_some() {
            return Next::Stop;
        }
        let outcome = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => self.begin_if_due(now),
            Phase::Writing { run, pages } => self.write(now, run, pages),
            Phase::Participants { run } => self.flush_participants(now, run),
            Phase::Logged { run } => self.finish(now, run),
        };
        if self.storage.control().has_failed() {
            self.storage.stop("the control file could not be written");
        }
        match outcome {
            Ok(next) => next,
            // Said by whoever stopped it; a failed sync is not repeated (I5).
            Err(_) if self.storage.stop_reason().is_some() => Next::Stop,
            Err(error) => {
                tracing::error!(%error, "checkpoint failed, will be tried again");
                self.not_before = now.after(RETRY);
                Next::At(self.not_before)
            }
        }
    }

    fn begin_if_due(&mut self, now: Moment) -> StorageResult<Next> {
        if now < self.not_before {
            return Ok(Next::At(self.not_before));
        }
        let settings = self.requests.settings();
        let last = self.storage.control().get().checkpoint;
        let position = match &self.source {
            CheckpointSource::Primary(side) => side.wal.insert_lsn(),
            CheckpointSource::Standby(replayer) => replayer.replayed(),
        };
        let situation = Situation {
            elapsed: now.since(self.last_start),
            wal_since_redo: position.distance_from(last.redo),
            anything_logged: position > last.end,
            requested: self.requests.wanted().is_some(),
            shutting_down: self.requests.is_shutting_down(),
        };
        let idle = Next::At(
            self.last_start
                .after(settings.timeout)
                .min(now.after(POLL))
                .max(now.after(REST)),
        );
        let Some(reason) = decide(&settings, &situation) else {
            return Ok(idle);
        };
        let Some(info) = self.fix_redo(&last) else {
            self.requests.forget_wish();
            if reason == CheckpointReason::Shutdown {
                return self.record_shutdown();
            }
            return Ok(idle);
        };
        self.warn_if_frequent(&settings, reason, now);
        self.last_start = now;
        let kind = self.kind();
        if settings.log {
            tracing::info!("{kind} starting: {}", reason.flags());
        }
        self.storage.checkpoints().begun(reason);
        let pages = self
            .storage
            .pool()
            .write_back(info.redo)
            .flush_after(settings.flush_after);
        let report = Report::new(now, self.storage.pool().frame_count(), last.redo);
        self.phase = Phase::Writing {
            run: Box::new(Run { reason, info, report }),
            pages,
        };
        Ok(Next::Now)
    }

    /// The redo pointer and what is known with it. `None` on a standby that has replayed no newer checkpoint record.
    fn fix_redo(&self, last: &CheckpointInfo) -> Option<CheckpointInfo> {
        match &self.source {
            CheckpointSource::Primary(side) => {
                let redo = side.wal.begin_checkpoint();
                let counters = self.participant.counters();
                Some(CheckpointInfo {
                    lsn: redo,
                    end: redo,
                    redo,
                    timeline: side.wal.timeline(),
                    previous_timeline: side.previous_timeline,
                    next_xid: counters.next_xid,
                    next_oid: counters.next_oid,
                    oldest_xid: counters.oldest_xid,
                    oldest_active_xid: counters.oldest_active_xid,
                    time: self.clock.wall(),
                })
            }
            CheckpointSource::Standby(replayer) => {
                replayer.last_checkpoint().filter(|info| info.redo > last.redo)
            }
        }
    }

    fn kind(&self) -> &'static str {
        match self.source {
            CheckpointSource::Primary(_) => "checkpoint",
            CheckpointSource::Standby(_) => "restartpoint",
        }
    }

    fn warn_if_frequent(&self, settings: &CheckpointSettings, reason: CheckpointReason, now: Moment) {
        let apart = now.since(self.last_start);
        if reason == CheckpointReason::Wal && apart < settings.warning {
            tracing::warn!(
                "checkpoints are occurring too frequently ({} seconds apart); consider increasing max_wal_size",
                apart.as_secs()
            );
        }
    }

    fn write(&mut self, now: Moment, mut run: Box<Run>, mut pages: WriteBack) -> StorageResult<Next> {
        let hurry =
            run.reason.is_immediate() || self.requests.wanted().is_some() || self.requests.is_shutting_down();
        if !hurry && pages.remaining() > 0 {
            let counts = pages.counts();
            let done = (counts.written + counts.skipped) as f64 / counts.total.max(1) as f64;
            let wal = self.position().distance_from(run.info.redo);
            let elapsed = now.since(run.report.started());
            if is_on_schedule(&self.requests.settings(), done, elapsed, wal) && done > 0.0 {
                self.phase = Phase::Writing { run, pages };
                return Ok(Next::At(now.after(REST)));
            }
        }
        let state = pages.step()?;
        run.report.pages(pages.counts());
        Ok(match state {
            FlushState::Done => {
                self.phase = Phase::Participants { run };
                Next::Now
            }
            other => {
                self.phase = Phase::Writing { run, pages };
                self.wait(now, other)
            }
        })
    }

    fn flush_participants(&mut self, now: Moment, mut run: Box<Run>) -> StorageResult<Next> {
        let state = self.participant.flush(run.info.redo).inspect_err(|error| {
            // A write for which there is no room is tried again. Otherwise a sync may have failed, and that is not repeated (I5).
            if !error.is_disk_full() {
                self.storage
                    .stop_after("the transaction status log could not be made durable", error);
            }
        })?;
        if state != FlushState::Done {
            self.phase = Phase::Participants { run };
            return Ok(self.wait(now, state));
        }
        if self.storage.truncations().any_before(run.info.redo) {
            self.phase = Phase::Participants { run };
            return Ok(self.wait(now, FlushState::Busy));
        }
        run.report.writing_ended(now);
        let files = self.storage.smgr().sync(&*self.clock).inspect_err(|error| {
            // What the operating system could not write it may have forgotten (I5).
            self.storage.stop_after("a data file could not be synced", error);
        })?;
        run.report.synced(files, self.clock.now());
        self.storage
            .checkpoints()
            .synced(run.report.written(), run.report.times());
        if !self.log_record(&mut run)? {
            self.phase = Phase::Participants { run };
            return Ok(Next::At(now.after(POLL_POSITION)));
        }
        self.phase = Phase::Logged { run };
        Ok(Next::Now)
    }

    /// Inserts what the participant repeats, and the checkpoint record; false when the WAL buffers have no room yet.
    fn log_record(&self, run: &mut Run) -> StorageResult<bool> {
        let CheckpointSource::Primary(side) = &self.source else {
            return Ok(true);
        };
        let body = record_body(&run.info);
        // Behind a shutdown's redo pointer stands its own record only, and nobody runs any more.
        let mut repeated = RecordBuilder::new();
        if run.reason != CheckpointReason::Shutdown && self.participant.repeat(&mut repeated) {
            let Some(credit) = room(side, repeated_credit())? else {
                return Ok(false);
            };
            insert(side, credit, &mut repeated)?;
        }
        let Some(credit) = room(side, credit_for(0, 128))? else {
            return Ok(false);
        };
        let op = match run.reason {
            CheckpointReason::Shutdown => XlogOp::CheckpointShutdown,
            CheckpointReason::Time | CheckpointReason::Wal | CheckpointReason::Request => {
                XlogOp::CheckpointOnline
            }
        };
        let mut record = RecordBuilder::new();
        record.begin(Rmgr::Xlog, op as u8, 0).payload(&body);
        let inserted = insert(side, credit, &mut record)?;
        run.info.lsn = inserted.start;
        run.info.end = inserted.end;
        side.wal.request_flush(inserted.end);
        Ok(true)
    }

    fn finish(&mut self, now: Moment, run: Box<Run>) -> StorageResult<Next> {
        let quorum = self.storage.quorum().get();
        if quorum < run.info.end && !rules::is_off(Rule::CheckpointBelowQuorum) {
            let end = run.info.end;
            self.phase = Phase::Logged { run };
            return Ok(self.wait(now, FlushState::NeedsQuorum(end)));
        }
        let previous_redo = self.storage.control().get().checkpoint.redo;
        let stops = run.reason == CheckpointReason::Shutdown;
        let state = self.state_after(stops);
        let wall = self.clock.wall();
        let highest = self.storage.pool().highest_written();
        self.storage
            .control()
            .update(|control| {
                control.checkpoint = run.info;
                // The log of a standby may follow a newer timeline than the checkpoint that it has replayed.
                if run.info.timeline.number > control.timeline.number {
                    control.timeline = run.info.timeline;
                }
                control.quorum = control.quorum.max(quorum);
                control.page_lsn_bound = control.page_lsn_bound.max(highest);
                control.time = wall;
                control.state = state;
            })
            .inspect_err(|error| {
                self.storage
                    .stop_after("the control file could not be written", error)
            })?;
        self.estimate = estimate_distance(self.estimate, run.info.redo.distance_from(previous_redo));
        if let Err(error) =
            self.storage
                .unlinks()
                .run(self.storage.smgr(), self.storage.pool(), run.info.redo)
        {
            tracing::warn!(%error, "the files of a dropped relation could not be removed, will be tried again");
        }
        let (oldest_kept, wal) = self.retire_wal(&run.info);
        self.participant.finished(&run.info, oldest_kept);
        // Last: whoever waits for it finds the old log and the files of dropped relations gone.
        self.finished.advance(run.info.redo.max(self.finished.get()));
        if self.requests.settings().log {
            let line = run.report.line(&run.info, wal, self.estimate, self.clock.now());
            tracing::info!("{} complete: {line}", self.kind());
            if let CheckpointSource::Standby(_) = &self.source {
                tracing::info!("recovery restart point at {}", run.info.redo);
            }
        }
        self.not_before = now;
        Ok(if stops { Next::Stop } else { Next::Now })
    }

    fn state_after(&self, stops: bool) -> ClusterState {
        match (&self.source, stops) {
            (CheckpointSource::Primary(_), true) => ClusterState::ShutDown,
            (CheckpointSource::Primary(_), false) => ClusterState::InProduction,
            (CheckpointSource::Standby(_), true) => ClusterState::ShutDownInRecovery,
            (CheckpointSource::Standby(_), false) => ClusterState::InArchiveRecovery,
        }
    }

    /// A standby stops without a newer checkpoint record: only the state changes.
    fn record_shutdown(&self) -> StorageResult<Next> {
        let (state, wall) = (self.state_after(true), self.clock.wall());
        let highest = self.storage.pool().highest_written();
        self.storage.control().update(|control| {
            control.state = state;
            control.time = wall;
            control.page_lsn_bound = control.page_lsn_bound.max(highest);
        })?;
        Ok(Next::Stop)
    }

    /// Removes and recycles segments that nobody needs (`retention::plan`); the lowest position that stays readable.
    fn retire_wal(&mut self, info: &CheckpointInfo) -> (Lsn, WalFiles) {
        let settings = self.requests.settings();
        let insert = self.position();
        let oldest = retention::oldest_needed(&retention::Needs {
            redo: info.redo,
            insert,
            slots: self.participant.oldest_slot(),
            max_slot_keep: settings.max_slot_wal_keep_size,
            keep: settings.wal_keep_size,
        });
        let mut files = WalFiles::default();
        if let CheckpointSource::Primary(side) = &self.source {
            let made = side.wal.segments().made();
            files.added = made - self.segments_made;
            self.segments_made = made;
        }
        let Some(segments) = &self.segments else {
            return (oldest, files);
        };
        let size = segments.segment_size();
        let (begin, ahead) = match &self.source {
            CheckpointSource::Primary(side) => {
                let wanted = bytes_to_recycle(&settings, self.estimate, insert.distance_from(info.redo));
                (side.timeline_begin, wanted / size.bytes())
            }
            CheckpointSource::Standby(_) => (Lsn::MAX, 0),
        };
        let plan = retention::Plan {
            oldest,
            insert,
            timeline: info.timeline.number,
            begin,
            size,
            ahead,
        };
        let retired = segments.list().and_then(|present| {
            let actions = retention::plan(&plan, present);
            segments.retire(&actions)?;
            let is_removal = |action: &&retention::Action| matches!(action, retention::Action::Remove { .. });
            files.removed = actions.iter().filter(is_removal).count();
            files.recycled = actions.len() - files.removed;
            Ok(())
        });
        if let Err(error) = retired {
            tracing::warn!(%error, "old WAL segments could not be removed, will be tried again");
        }
        (oldest, files)
    }

    fn position(&self) -> Lsn {
        match &self.source {
            CheckpointSource::Primary(side) => side.wal.insert_lsn(),
            CheckpointSource::Standby(replayer) => replayer.replayed(),
        }
    }

    fn wait(&mut self, now: Moment, state: FlushState) -> Next {
        match state {
            FlushState::More | FlushState::Done => Next::Now,
            FlushState::Busy => Next::At(now.after(POLL_POSITION)),
            FlushState::NeedsQuorum(lsn) => {
                if let CheckpointSource::Primary(side) = &self.source {
                    side.wal.request_flush(lsn);
                }
                self.waits_for = Some(lsn);
                Next::At(now.after(POLL_POSITION))
            }
        }
    }
}

/// Credit in the WAL buffers; `None` when they have no room yet, and a flush was asked for.
fn room(side: &PrimarySide, bytes: u32) -> StorageResult<Option<Credit>> {
    match side.wal.credit_for_checkpoint(bytes) {
        Ok(credit) => Ok(Some(credit)),
        Err(NoCredit::NeedsFlush(lsn)) => {
            side.wal.request_flush(lsn);
            Ok(None)
        }
        Err(NoCredit::TooLarge { .. }) => Err(StorageError::Misuse("a checkpoint record is too large")),
    }
}

fn insert(side: &PrimarySide, credit: Credit, record: &mut RecordBuilder) -> StorageResult<Inserted> {
    let inserted = side.wal.insert(&side.permit, credit, record, &[]);
    inserted.map_err(|error| StorageError::Wal(error.to_string()))
}

fn record_body(info: &CheckpointInfo) -> CheckPoint {
    CheckPoint {
        redo: info.redo,
        timeline: info.timeline.number.0,
        prev_timeline: info.previous_timeline.0,
        full_page_writes: true,
        next_xid: info.next_xid.0,
        next_oid: info.next_oid,
        next_multi: 1,
        next_multi_offset: 0,
        oldest_xid: info.oldest_xid.low32(),
        oldest_xid_db: crate::smgr::DATABASE,
        oldest_multi: 1,
        oldest_multi_db: crate::smgr::DATABASE,
        time: info.time.div_euclid(1_000_000) + POSTGRES_EPOCH_UNIX_SECONDS,
        oldest_commit_ts_xid: 0,
        newest_commit_ts_xid: 0,
        oldest_active_xid: info.oldest_active_xid.low32(),
    }
}
