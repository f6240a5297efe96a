//! [`StandbyRole`]: the running standby: WAL receiver, replay, and what others may know of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use towline_access::cluster::ReceiverRow;
use towline_access::engine::RetentionHooks;
use towline_base::settings::Settings;
use towline_base::{Clock, Lsn, LsnPublisher, NodeId, SystemId, TimelineId};
use towline_proto::UNFINISHED_RECORD;
use towline_proto::transport::Secret;
use towline_storage::CheckpointInfo;
use towline_wal::{ReceivedWal, TimelineHistory};

use crate::promise::{Promise, PromiseFile};
use crate::replay::{self, Replay};
use crate::shared::{Shared, StandbyEnd};
use crate::stream;
use crate::writer::{self, QUEUE};

/// What a standby role is made of. The node opens the parts; see the crate's documentation for the order.
pub struct StandbyParts {
    /// This node.
    pub node: NodeId,
    /// The cluster.
    pub system: SystemId,
    /// The node's settings.
    pub settings: Arc<Settings>,
    /// Its clocks.
    pub clock: Arc<dyn Clock>,
    /// The primary's replication service, `http://host:port`.
    pub upstream: String,
    /// The secret of the cluster.
    pub secret: Secret,
    /// The engine that replays.
    pub replay: Arc<dyn Replay>,
    /// The log, from [`crate::open_log`].
    pub received: ReceivedWal,
    /// From [`crate::open_log`]: the history that pages and quorum belong to.
    pub followed: TimelineHistory,
    /// Publishes the announced quorum; its watch is the engine's.
    pub quorum: LsnPublisher,
    /// From [`crate::open_log`]: readers may be let in when this is replayed.
    pub consistent_at: Lsn,
    /// From [`crate::open_log`]: pages on disk may be as new as this.
    pub on_disk: Lsn,
    /// Which timelines may be followed.
    pub promise: PromiseFile,
}

/// See the module.
pub struct StandbyRole {
    shared: Arc<Shared>,
    writer: JoinHandle<Option<(ReceivedWal, LsnPublisher)>>,
    replay: JoinHandle<()>,
    stream: tokio::task::JoinHandle<()>,
}

impl fmt::Debug for StandbyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandbyRole")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl StandbyRole {
    /// Starts streaming and replay. The stream runs on this runtime; writing and replay have threads of their own.
    ///
    /// # Errors
    /// When a thread cannot be started, or no random numbers are to be had.
    pub fn start(parts: StandbyParts, runtime: &tokio::runtime::Handle) -> std::io::Result<StandbyRole> {
        let (shared, received, quorum) = Shared::new(parts)?;
        let shared = Arc::new(shared);
        let (commands, queue) = mpsc::channel(QUEUE);
        let writer = writer::spawn(Arc::clone(&shared), received, quorum, queue)?;
        let replay = replay::spawn(Arc::clone(&shared))?;
        let stream = runtime.spawn(stream::run(Arc::clone(&shared), commands));
        Ok(StandbyRole {
            shared,
            writer,
            replay,
            stream,
        })
    }

    /// Waits until the data is consistent: from then on SQL may be served. False when the role ended before.
    pub async fn wait_consistent(&self) -> bool {
        loop {
            let changed = self.shared.consistent_changed.notified();
            if self.shared.consistent.load(Ordering::Acquire) {
                return true;
            }
            tokio::select! {
                () = changed => {}
                () = self.shared.cancel.cancelled() => return false,
                // A notice between the two lines above is made up for.
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    }

    /// Waits until the role ends by itself, and says why.
    pub async fn wait_ended(&self) -> StandbyEnd {
        let mut end = self.shared.end();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(StandbyEnd::Stopped),
            Err(_) => StandbyEnd::Stopped,
        }
    }

    /// A handle for `ClusterInfo` and status, which outlives the role harmlessly.
    pub fn view(&self) -> StandbyView {
        StandbyView {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Stops the stream, makes durable what has arrived, and stops replay. Gives back the log and the right to publish the quorum, unless
    /// the log has failed.
    pub async fn shutdown(self) -> Option<(ReceivedWal, LsnPublisher)> {
        self.shared.finish(StandbyEnd::Stopped);
        let _ = self.stream.await;
        // The stream held the only way to the writer: the writer ends after what was queued.
        let threads = tokio::task::spawn_blocking(move || {
            let written = self.writer.join().ok().flatten();
            let _ = self.replay.join();
            if let Some((log, quorum)) = &written
                && let Err(error) = self.shared.replay.note_quorum(quorum.get().min(log.flushed()))
            {
                tracing::warn!(%error, "the quorum position was not noted");
            }
            written
        });
        threads.await.ok().flatten()
    }
}

/// What others may ask of a standby role.
#[derive(Clone, Debug)]
pub struct StandbyView {
    shared: Arc<Shared>,
}

impl StandbyView {
    /// The row of pg_stat_wal_receiver.
    pub fn receiver(&self) -> ReceiverRow {
        let shared = &self.shared;
        let positions = shared.positions();
        let time = Some(shared.last_message.load(Ordering::Relaxed)).filter(|time| *time != 0);
        ReceiverRow {
            status: if shared.streaming.load(Ordering::Relaxed) {
                "streaming"
            } else {
                "waiting"
            }
            .to_owned(),
            receive_start_lsn: Lsn(shared.start_lsn.load(Ordering::Relaxed)),
            written_lsn: positions.write.get(),
            flushed_lsn: positions.flush.get(),
            received_timeline: shared.timeline().number.0,
            sender: shared.upstream.clone(),
            last_message_time: time,
        }
    }

    /// End of what was received and is durable.
    pub fn last_receive_lsn(&self) -> Lsn {
        self.shared.positions().flush.get()
    }

    /// End of what was replayed, whether readers see it or not.
    pub fn applied_lsn(&self) -> Lsn {
        self.shared.replay.replayed()
    }

    /// End of what was replayed. Where readers are let in, of what they see: who finds a commit's position reached here finds the commit too,
    /// and a batch that is still being applied does not count yet.
    pub fn last_replay_lsn(&self) -> Lsn {
        if self.is_consistent() {
            self.shared.replay.horizon().get()
        } else {
            self.applied_lsn()
        }
    }

    /// The timeline that is followed.
    pub fn timeline(&self) -> TimelineId {
        self.shared.timeline()
    }

    /// Whether readers may be let in.
    pub fn is_consistent(&self) -> bool {
        self.shared.consistent.load(Ordering::Acquire)
    }

    /// Why there is no stream, since the last attempt failed.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().clone()
    }

    /// Why the role ended, once it has.
    pub fn ended(&self) -> Option<StandbyEnd> {
        self.shared.end().borrow().clone()
    }

    /// Lowest position that any member of the cluster still needs, as the primary says (B10). Zero, so everything, until it has
    /// said so.
    pub fn retain(&self) -> Lsn {
        Lsn(self.shared.retain.load(Ordering::Relaxed))
    }

    /// The highest timeline accepted, and the version of the sync set told last.
    pub fn promise(&self) -> Promise {
        self.shared.promise.get()
    }
}

/// A standby keeps what any member of the cluster may still need of it, within `max_slot_wal_keep_size` (B10).
impl RetentionHooks for StandbyView {
    fn oldest_slot(&self) -> Option<Lsn> {
        Some(self.retain().saturating_sub(UNFINISHED_RECORD))
    }

    fn checkpoint_finished(&self, _info: &CheckpointInfo, _oldest_kept: Lsn) {}
}
