//! What the standby's parts share: the log's positions, the announced quorum, and what to tell the primary.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use towline_base::settings::{Settings, keys};
use towline_base::{Clock, Incarnation, Lsn, LsnPublisher, LsnWatch, NodeId, SystemId, TimelineId};
use towline_proto::replication::Ack;
use towline_proto::transport::Secret;
use towline_wal::{Positions, ReceivedWal, TimelineHistory, WalSource};

use crate::promise::PromiseFile;
use crate::replay::Replay;
use crate::role::StandbyParts;

/// How a standby role ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StandbyEnd {
    /// It was stopped.
    Stopped,
    /// Its data cannot follow the primary any more: it must be cloned anew. Why.
    Reclone(String),
    /// Something failed that only a restart, or an operator, mends. Why.
    Failed(String),
}

struct Log {
    positions: Positions,
    /// Of what the log has reached.
    history: TimelineHistory,
    /// Of the timeline that is followed: the same, or longer, when the log has not come to its last fork yet.
    followed: TimelineHistory,
    source: WalSource,
    generation: u64,
}

/// The log as replay sees it.
pub(crate) struct LogView {
    pub(crate) generation: u64,
    pub(crate) source: WalSource,
    pub(crate) positions: Positions,
}

pub(crate) struct Shared {
    pub(crate) node: NodeId,
    /// This start of the node: the primary tells it from a copy of its directory by this.
    pub(crate) instance: Incarnation,
    pub(crate) system: SystemId,
    pub(crate) settings: Arc<Settings>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) upstream: String,
    pub(crate) secret: Secret,
    pub(crate) replay: Arc<dyn Replay>,
    /// As announced by the primary.
    pub(crate) quorum: LsnWatch,
    pub(crate) consistent_at: Lsn,
    pub(crate) on_disk: Lsn,
    pub(crate) promise: PromiseFile,
    pub(crate) consistent: AtomicBool,
    pub(crate) consistent_changed: Notify,
    /// An ack is worth sending.
    pub(crate) ack_due: Notify,
    /// The primary wants to know at once what is written, and what is applied.
    pub(crate) ack_writes: AtomicBool,
    pub(crate) ack_applies: AtomicBool,
    /// Ask the primary for a sign of life with the next ack.
    pub(crate) ask_reply: AtomicBool,
    pub(crate) cancel: CancellationToken,
    pub(crate) retain: AtomicU64,
    pub(crate) start_lsn: AtomicU64,
    pub(crate) last_message: AtomicI64,
    pub(crate) streaming: AtomicBool,
    pub(crate) echo_time: AtomicI64,
    /// Why there is no stream.
    pub(crate) trouble: Mutex<Option<String>>,
    log: Mutex<Log>,
    end: watch::Sender<Option<StandbyEnd>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// What all parts share, the log, and the right to publish the quorum.
    ///
    /// # Errors
    /// When no random numbers are to be had.
    pub(crate) fn new(parts: StandbyParts) -> std::io::Result<(Shared, ReceivedWal, LsnPublisher)> {
        let received = parts.received;
        let shared = Shared {
            node: parts.node,
            instance: Incarnation::random()?,
            system: parts.system,
            settings: parts.settings,
            clock: parts.clock,
            upstream: parts.upstream,
            secret: parts.secret,
            replay: parts.replay,
            quorum: parts.quorum.watch(),
            consistent_at: parts.consistent_at,
            on_disk: parts.on_disk,
            promise: parts.promise,
            consistent: AtomicBool::new(false),
            consistent_changed: Notify::new(),
            ack_due: Notify::new(),
            ack_writes: AtomicBool::new(false),
            ack_applies: AtomicBool::new(false),
            ask_reply: AtomicBool::new(false),
            cancel: CancellationToken::new(),
            retain: AtomicU64::new(0),
            start_lsn: AtomicU64::new(0),
            last_message: AtomicI64::new(0),
            streaming: AtomicBool::new(false),
            echo_time: AtomicI64::new(0),
            trouble: Mutex::new(None),
            log: Mutex::new(Log {
                positions: received.positions(),
                history: received.history().clone(),
                followed: parts.followed,
                source: received.wal_source(),
                generation: 1,
            }),
            end: watch::Sender::new(None),
        };
        Ok((shared, received, parts.quorum))
    }

    /// What is never cut off the log, and what a primary must have, whether it has come here yet or not: data files may hold it, or a quorum is
    /// known to have had it. So the quorum announced never lies behind the fork of the timeline that is followed (A1, I9).
    pub(crate) fn kept(&self) -> Lsn {
        self.on_disk.max(self.replay.replayed()).max(self.quorum.get())
    }

    pub(crate) fn stopping(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// The positions of the log as it is now. After a cut there are new ones, and the old ones are closed.
    pub(crate) fn positions(&self) -> Positions {
        self.log.lock().positions.clone()
    }

    /// The history that pages and quorum belong to.
    pub(crate) fn followed(&self) -> TimelineHistory {
        self.log.lock().followed.clone()
    }

    pub(crate) fn timeline(&self) -> TimelineId {
        self.log.lock().history.current()
    }

    /// Where replay reads, and how far the log goes: of one moment, since a cut changes both.
    pub(crate) fn log(&self) -> LogView {
        let log = self.log.lock();
        LogView {
            generation: log.generation,
            source: log.source.clone(),
            positions: log.positions.clone(),
        }
    }

    /// Which cut of the log is in force.
    pub(crate) fn generation(&self) -> u64 {
        self.log.lock().generation
    }

    /// The log was cut.
    pub(crate) fn set_log(&self, received: &ReceivedWal) {
        let mut log = self.log.lock();
        log.positions = received.positions();
        log.history = received.history().clone();
        log.followed = log.history.clone();
        log.source = received.wal_source();
        log.generation += 1;
    }

    /// Ends the role; the first reason counts.
    pub(crate) fn finish(&self, end: StandbyEnd) {
        self.end.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(end);
            }
            first
        });
        self.cancel.cancel();
    }

    pub(crate) fn fail(&self, why: String) {
        tracing::error!("{why}");
        self.finish(StandbyEnd::Failed(why));
    }

    pub(crate) fn end(&self) -> watch::Receiver<Option<StandbyEnd>> {
        self.end.subscribe()
    }

    /// Moves whenever replay does.
    pub(crate) fn applied(&self) -> Lsn {
        self.replay.replayed().max(self.replay.horizon().get())
    }

    /// What the primary is told now. Positions are read in the order apply, flush, write, so that they never cross (I2). Replay may be
    /// ahead of the log where that holds nothing: behind a segment switch, and below a base backup's redo pointer.
    pub(crate) fn ack(&self) -> Ack {
        let (positions, timeline) = {
            let log = self.log.lock();
            (log.positions.clone(), log.history.current())
        };
        let (horizon, apply) = (self.replay.horizon().get(), self.replay.replayed());
        let flush = positions.flush.get();
        let write = positions.write.get().max(flush);
        let feedback =
            self.settings.get(keys::hot_standby_feedback) && self.consistent.load(Ordering::Relaxed);
        Ack {
            timeline: Some(timeline.into()),
            write: write.0,
            flush: flush.0,
            apply: apply.min(flush).0,
            read_horizon: horizon.min(flush).0,
            oldest_snapshot: if feedback {
                self.replay.oldest_snapshot().0
            } else {
                0
            },
            echo_time: self.echo_time.load(Ordering::Relaxed),
            reply_requested: self.ask_reply.swap(false, Ordering::Relaxed),
        }
    }
}

/// An error with what is behind it: "transport error" alone says nothing.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
