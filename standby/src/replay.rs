//! The replay thread: applies the log up to min(own flush, announced quorum), and moves the read horizon.
//!
//! B7: nothing above the quorum is applied, so nothing ever has to be taken back when the primary changes; the rest waits as WAL.
//! I2: `replay ≤ flush ≤ write` and `replay ≤ quorum`; I9: `read horizon ≤ quorum`. Asserted here, where the positions meet.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use towline_access::{AccessError, Engine, Step};
use towline_base::rules::{self, Rule};
use towline_base::{Lsn, LsnWatch, TimelineId, WaitOutcome};
use towline_storage::{ProgressMeter, RecoveryProgress};
use towline_wal::format::DecodedRecord;
use towline_wal::{EndOfWal, EndReason, ReadOutcome, WalReader};

use crate::shared::Shared;

/// Records applied between two publications of the horizon.
const BATCH: usize = 128;
/// Longest sleep, after which the stop flag is looked at.
const NAP: Duration = Duration::from_millis(200);

/// What replay does to a node: the engine, or a double in tests.
pub trait Replay: Send + Sync + fmt::Debug {
    /// Applies the next record, or says what it waits for.
    fn replay(&self, record: &DecodedRecord<'_>) -> Result<Step<()>, AccessError>;
    /// End of the last record applied.
    fn replayed(&self) -> Lsn;
    /// Lets readers see what is applied, up to `lsn`.
    fn publish_horizon(&self, lsn: Lsn);
    /// What readers see.
    fn horizon(&self) -> &LsnWatch;
    /// The oldest snapshot that is in use or may still be taken.
    fn oldest_snapshot(&self) -> Lsn;
    /// Replay is about to begin: from now on the control file knows how new a page on disk can be.
    fn begin(&self) -> Result<(), AccessError>;
    /// The quorum that was announced last, noted durably: the next start may replay so far before the primary has said anything.
    fn note_quorum(&self, quorum: Lsn) -> Result<(), AccessError>;
    /// The log follows this timeline from now on: noted durably.
    fn follow(&self, timeline: TimelineId) -> Result<(), AccessError>;
    /// How far replay is on its way to consistent data; `None` when it is there.
    fn note_progress(&self, _progress: Option<RecoveryProgress>) {}
    /// `log_startup_progress_interval`; zero logs no progress.
    fn progress_interval(&self) -> Duration {
        Duration::ZERO
    }
}

impl Replay for Engine {
    fn replay(&self, record: &DecodedRecord<'_>) -> Result<Step<()>, AccessError> {
        Engine::replay(self, record)
    }

    fn replayed(&self) -> Lsn {
        Engine::replayed(self).unwrap_or_default()
    }

    fn publish_horizon(&self, lsn: Lsn) {
        Engine::publish_horizon(self, lsn);
    }

    fn horizon(&self) -> &LsnWatch {
        self.visible()
    }

    fn oldest_snapshot(&self) -> Lsn {
        self.vacuum_horizon()
    }

    fn begin(&self) -> Result<(), AccessError> {
        self.storage()
            .set_strict_page_lsn_bound(true)
            .map_err(AccessError::from)
    }

    fn note_quorum(&self, quorum: Lsn) -> Result<(), AccessError> {
        let noted = self
            .storage()
            .control()
            .update(|data| data.quorum = data.quorum.max(quorum));
        noted.map_err(AccessError::from)
    }

    fn follow(&self, timeline: TimelineId) -> Result<(), AccessError> {
        self.storage()
            .control()
            .update(|data| data.timeline = timeline)
            .map_err(AccessError::from)
    }

    fn note_progress(&self, progress: Option<RecoveryProgress>) {
        self.storage().note_recovery(progress);
    }

    fn progress_interval(&self) -> Duration {
        self.config().progress_interval
    }
}

/// How far replay goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// Up to what is durable here and in the quorum.
    Quorum,
    /// Up to what is durable here: the rule switched off.
    Flush,
}

/// Starts the thread.
pub(crate) fn spawn(shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    // A switched rule is the switch of the thread that starts the role.
    let bound = if rules::is_off(Rule::ReplayBelowQuorum) {
        Bound::Flush
    } else {
        Bound::Quorum
    };
    std::thread::Builder::new()
        .name("replay".to_owned())
        .spawn(move || {
            if let Err(error) = run(&shared, bound) {
                shared.fail(format!("replay stopped: {error}"));
            }
        })
}

fn run(shared: &Shared, bound: Bound) -> Result<(), AccessError> {
    shared.replay.begin()?;
    let mut log = shared.log();
    let mut reader = WalReader::new(log.source.clone(), shared.replay.replayed());
    let mut progress = Progress::new(shared);
    while !shared.stopping() {
        progress.tell(shared);
        if shared.generation() != log.generation {
            // The log was cut, never below what is applied, and goes on along another history.
            log = shared.log();
            reader = WalReader::new(log.source.clone(), shared.replay.replayed());
        }
        let (flush, quorum) = (log.positions.flush.get(), shared.quorum.get());
        let limit = match bound {
            Bound::Quorum => flush.min(quorum),
            Bound::Flush => flush,
        };
        // What is waited for: the lower of the two. A cut closes the first, which wakes too.
        let behind = if quorum <= flush && bound == Bound::Quorum {
            &shared.quorum
        } else {
            &log.positions.flush
        };
        if limit <= reader.position() {
            rest(behind, limit);
            continue;
        }
        reader.set_limit(limit);
        let exhausted = match apply_batch(shared, &mut reader)? {
            Batch::More => false,
            Batch::Exhausted => true,
            Batch::Unreadable(_) if shared.generation() != log.generation => continue,
            // What was made durable below the quorum must be readable.
            Batch::Unreadable(end) => {
                return Err(AccessError::corrupted(format!(
                    "the received log is damaged: {end}"
                )));
            }
        };
        // Behind a segment switch there is nothing to apply up to the limit.
        let reached = if exhausted {
            limit
        } else {
            shared.replay.replayed()
        };
        let replayed = shared.replay.replayed();
        // A segment switch ends at the next segment; what it skips holds nothing.
        let switched = log.source.segment_size.offset(replayed) == 0;
        assert!(
            replayed <= limit || switched,
            "replay {replayed} is beyond flush {flush} or quorum {quorum} (I2)"
        );
        publish(shared, reached);
        if exhausted {
            rest(behind, limit);
        }
    }
    Ok(())
}

/// The way from the start to consistent data, told while it lasts.
struct Progress {
    meter: Option<ProgressMeter>,
}

impl Progress {
    fn new(shared: &Shared) -> Progress {
        let meter = ProgressMeter::new(
            Arc::clone(&shared.clock),
            shared.replay.progress_interval(),
            shared.replay.replayed(),
            Some(shared.consistent_at),
        );
        Progress { meter: Some(meter) }
    }

    fn tell(&mut self, shared: &Shared) {
        let Some(meter) = &mut self.meter else { return };
        if shared.consistent.load(Ordering::Acquire) {
            self.meter = None;
            shared.replay.note_progress(None);
            return;
        }
        let progress = meter.progress(shared.replay.replayed(), 0);
        if meter.is_line_due() {
            tracing::info!("replay on the way to consistent data: {progress}");
        }
        shared.replay.note_progress(Some(progress));
    }
}

/// Sleeps until the position is past `limit`. A position that is closed will be replaced, or the role ends.
fn rest(behind: &LsnWatch, limit: Lsn) {
    if behind.wait_past(limit).block(Some(NAP)) == WaitOutcome::Closed {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// How a batch ended.
enum Batch {
    /// There may be more below the limit.
    More,
    /// There is nothing more below the limit.
    Exhausted,
    /// There should be more, and it is not there.
    Unreadable(EndOfWal),
}

/// Applies some records.
fn apply_batch(shared: &Shared, reader: &mut WalReader) -> Result<Batch, AccessError> {
    for _ in 0..BATCH {
        match reader
            .next()
            .map_err(|error| AccessError::internal(format!("the log cannot be read: {error}")))?
        {
            ReadOutcome::Record(record) => {
                if !apply(shared, &record)? {
                    return Ok(Batch::More);
                }
            }
            ReadOutcome::End(end) if end.reason == EndReason::Limit => return Ok(Batch::Exhausted),
            ReadOutcome::End(end) => return Ok(Batch::Unreadable(end)),
        }
    }
    Ok(Batch::More)
}

/// Applies one record, waiting as often as it must. False when the node stops meanwhile.
fn apply(shared: &Shared, record: &DecodedRecord<'_>) -> Result<bool, AccessError> {
    loop {
        match shared.replay.replay(record)? {
            Step::Done(()) => return Ok(true),
            Step::Wait(wait) => {
                // Readers that are in the way were cancelled; let them see the newest state meanwhile.
                wait.block(NAP)?;
                if shared.stopping() {
                    return Ok(false);
                }
            }
        }
    }
}

fn publish(shared: &Shared, reached: Lsn) {
    let replayed = shared.replay.replayed();
    if reached < shared.consistent_at {
        return;
    }
    // The horizon first: readers who are let in would see the state of the start, and keep the catalog of it.
    shared.replay.publish_horizon(replayed);
    if !shared.consistent.swap(true, Ordering::AcqRel) {
        tracing::info!(%replayed, "consistent state reached: the standby serves reads");
        shared.consistent_changed.notify_waiters();
    }
    let (horizon, quorum) = (shared.replay.horizon().get(), shared.quorum.get());
    assert!(
        horizon <= quorum,
        "the read horizon {horizon} is beyond the quorum {quorum} (I9)"
    );
    if shared.ack_applies.load(Ordering::Relaxed) {
        shared.ack_due.notify_one();
    }
}
