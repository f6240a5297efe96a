//! [`PrimaryRole`]: the running primary, beyond the engine: its walsenders, slots, quorum and gRPC service.
//!
//! Shutdown: the node first stops SQL and makes its last checkpoint, then calls [`PrimaryRole::shutdown`]. Walsenders
//! go last: each sends what is left and waits until its standby has it, or the time is over; then the service closes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use towline_access::cluster::{ReplicationRow, SlotRow};
use towline_base::settings::{Settings, keys};
use towline_base::{Clock, Lsn, NodeId, SystemId, TimelineNumber};
use towline_proto::replication::replication_server::ReplicationServer;
use towline_proto::replication::{Progress, Timeline};
use towline_proto::transport::{self, Secret};
use towline_storage::Storage;
use towline_wal::{TimelineHistory, Wal};

use crate::handshake::Refusal;
use crate::seen::SeenTimelines;
use crate::senders::Senders;
use crate::service::ReplicationService;
use crate::slots::{Bounds, Slots};
use crate::source::LogBytes;
use crate::sync_rep::SyncRep;
use crate::walsender::SenderState;

/// HTTP/2 pings are the second line behind `wal_sender_timeout`, and no more frequent than this.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Nodes whose refusal is remembered, so that it is logged once.
const MAX_SAID: usize = 64;

/// Told of the oldest snapshot that standbys use, when it changes (`Engine::set_feedback`).
pub type FeedbackHook = Box<dyn Fn(Option<Lsn>) + Send + Sync>;

/// What a primary role is made of. The node opens the parts; see the crate's documentation for the order.
pub struct PrimaryParts {
    /// This node.
    pub node: NodeId,
    /// The cluster.
    pub system: SystemId,
    /// The node's settings.
    pub settings: Arc<Settings>,
    /// Its clocks.
    pub clock: Arc<dyn Clock>,
    /// Its log, open for insertion on the newest timeline of `history`.
    pub wal: Arc<Wal>,
    /// The timelines behind it.
    pub history: TimelineHistory,
    /// Its data files, for base backups.
    pub storage: Arc<Storage>,
    /// Members and quorum. Its `on_flush` must be the log's post-flush hook.
    pub sync_rep: Arc<SyncRep>,
    /// The slots, which retention asks too.
    pub slots: Arc<Slots>,
    /// What standbys have told of other timelines.
    pub seen: Arc<SeenTimelines>,
    /// Told of standby feedback.
    pub on_feedback: FeedbackHook,
    /// The secret of the cluster.
    pub secret: Secret,
    /// Where the service listens.
    pub listener: TcpListener,
}

/// What all parts of the role share.
pub(crate) struct Core {
    pub(crate) node: NodeId,
    pub(crate) system: SystemId,
    pub(crate) settings: Arc<Settings>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) history: Arc<TimelineHistory>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) sync_rep: Arc<SyncRep>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) seen: Arc<SeenTimelines>,
    pub(crate) log: LogBytes,
    /// The newest timeline as it travels with each message: a clone costs no allocation.
    pub(crate) timeline: Timeline,
    pub(crate) secret: Secret,
    /// Ends every stream at once.
    pub(crate) cancel: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) sender_places: Arc<Semaphore>,
    /// Wakes walsenders that wait for the end of a drain.
    pub(crate) draining: Notify,
    drain_to: AtomicU64,
    stopping: AtomicBool,
    pub(crate) senders: Senders,
    last_pid: AtomicI32,
    on_feedback: FeedbackHook,
    /// Why nodes were refused last.
    said_refused: Mutex<BTreeMap<NodeId, Refusal>>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn next_pid(&self) -> i32 {
        self.last_pid.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// While the node stops: what every standby shall still get.
    pub(crate) fn drain_to(&self) -> Option<Lsn> {
        Some(Lsn(self.drain_to.load(Ordering::Acquire))).filter(|lsn| lsn.is_valid())
    }

    /// Whether standbys shall tell at once what they have applied.
    pub(crate) fn wants_applies(&self) -> bool {
        self.settings.get(keys::synchronous_commit) == "remote_apply" || self.sync_rep.applied().has_waiters()
    }

    /// What every message says of this node.
    pub(crate) fn progress(&self) -> Progress {
        // The quorum is read first, since both grow. I2: it is a part of this log.
        let quorum = self.sync_rep.quorum().get();
        let insert = self.wal.complete_lsn();
        assert!(quorum <= insert, "quorum {quorum} is beyond insert {insert} (I2)");
        Progress {
            timeline: Some(self.timeline.clone()),
            quorum: quorum.0,
            insert: insert.0,
            retain: self.slots.oldest_saved().unwrap_or(Lsn::INVALID).0,
            send_time: self.clock.wall(),
            ack_writes: self.settings.get(keys::synchronous_commit) == "remote_write",
            ack_applies: self.wants_applies(),
            sync_set_version: self.sync_rep.version(),
        }
    }

    /// A standby's oldest snapshot has changed, or the standby has gone.
    pub(crate) fn feedback_changed(&self) {
        self.senders
            .with_oldest_snapshot(|oldest| (self.on_feedback)(oldest));
    }

    /// Says once, however often the standby comes back, why it gets no stream.
    pub(crate) fn say_refused(&self, node: &NodeId, refusal: &Refusal) {
        let mut said = self.said_refused.lock();
        if said.get(node) != Some(refusal) {
            tracing::warn!(standby = %node, "standby is refused: {refusal}");
            if said.len() == MAX_SAID {
                said.clear();
            }
            said.insert(node.clone(), refusal.clone());
        }
    }

    /// A standby has followed the timeline `promised`: this node's next one must be above it.
    pub(crate) fn note_promise(&self, node: &NodeId, promised: TimelineNumber) {
        match self.seen.note(promised, self.history.current().number) {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(standby = %node, timeline = %promised, "an incredible timeline is not remembered")
            }
            Err(error) => {
                tracing::error!(timeline = %promised, %error, "a standby's timeline could not be remembered");
            }
        }
    }

    /// `wal_sender_timeout`, unless it is off.
    pub(crate) fn sender_timeout(&self) -> Option<Duration> {
        let timeout = self.settings.duration(keys::wal_sender_timeout);
        timeout.filter(|timeout| !timeout.is_zero())
    }

    fn slot_bounds(&self) -> Bounds {
        Bounds {
            insert: self.wal.complete_lsn(),
            max_wal: self.settings.bytes(keys::max_wal_size).unwrap_or(u64::MAX),
            max_keep: self.settings.bytes(keys::max_slot_wal_keep_size),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct PrimaryRole {
    core: Arc<Core>,
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
    /// Ends the gRPC server.
    close: CancellationToken,
}

impl PrimaryRole {
    /// Starts serving standbys on this runtime.
    ///
    /// # Errors
    /// When the listener's address cannot be told.
    pub fn start(parts: PrimaryParts, runtime: &tokio::runtime::Handle) -> std::io::Result<PrimaryRole> {
        let address = parts.listener.local_addr()?;
        let history = Arc::new(parts.history);
        let places = usize::try_from(parts.settings.get(keys::max_wal_senders)).unwrap_or(0);
        let core = Arc::new(Core {
            log: LogBytes::new(Arc::clone(&parts.wal), Arc::clone(&history)),
            timeline: history.current().into(),
            node: parts.node,
            system: parts.system,
            settings: parts.settings,
            clock: parts.clock,
            wal: parts.wal,
            history,
            storage: parts.storage,
            sync_rep: parts.sync_rep,
            slots: parts.slots,
            seen: parts.seen,
            secret: parts.secret,
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
            sender_places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            draining: Notify::new(),
            drain_to: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            senders: Senders::default(),
            last_pid: AtomicI32::new(std::process::id() as i32 + 1),
            on_feedback: parts.on_feedback,
            said_refused: Mutex::new(BTreeMap::new()),
        });
        let close = CancellationToken::new();
        let service = ReplicationServer::new(ReplicationService {
            core: Arc::clone(&core),
        })
        .max_decoding_message_size(transport::MESSAGE_LIMIT)
        .max_encoding_message_size(transport::MESSAGE_LIMIT);
        let keepalive = core.sender_timeout().unwrap_or_default().max(KEEPALIVE);
        let incoming = NoDelay(TcpListenerStream::new(parts.listener));
        let closed = close.clone();
        let server = runtime.spawn(async move {
            let server = transport::server(keepalive).add_service(service);
            let ended = server
                .serve_with_incoming_shutdown(incoming, closed.cancelled_owned())
                .await;
            if let Err(error) = ended {
                tracing::error!(%error, "the replication service failed");
            }
        });
        tracing::info!(%address, node = %core.node, "replication service is open");
        Ok(PrimaryRole {
            core,
            address,
            server,
            close,
        })
    }

    /// What its parts share.
    #[cfg(test)]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Where the service listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Members and quorum.
    pub fn sync_rep(&self) -> &Arc<SyncRep> {
        &self.core.sync_rep
    }

    /// A handle for `ClusterInfo` and status, which outlives the role harmlessly.
    pub fn view(&self) -> PrimaryView {
        PrimaryView {
            core: Arc::clone(&self.core),
        }
    }

    /// Sends every standby what is left up to the log's end, waits until they have it or `timeout` passes, then closes.
    pub async fn shutdown(self, timeout: Duration) {
        let core = &self.core;
        core.stopping.store(true, Ordering::Release);
        core.drain_to
            .store(core.wal.positions().flush.get().0.max(1), Ordering::Release);
        core.draining.notify_waiters();
        core.tasks.close();
        if tokio::time::timeout(timeout, core.tasks.wait()).await.is_err() {
            let silent = core.senders.rows(|sender| sender.node.name.clone());
            tracing::warn!(
                "standbys did not confirm the end of the log in time: {}",
                silent.join(", ")
            );
        }
        self.abort().await;
    }

    /// Closes at once, as after a failure.
    pub async fn abort(mut self) {
        self.core.stopping.store(true, Ordering::Release);
        self.core.cancel.cancel();
        self.core.tasks.close();
        self.close.cancel();
        let patience = Duration::from_secs(3);
        let _ = tokio::time::timeout(patience, self.core.tasks.wait()).await;
        if tokio::time::timeout(patience, &mut self.server).await.is_err() {
            self.server.abort();
        }
        if let Err(error) = self.core.change_slots(Slots::save).await {
            tracing::warn!(%error, "replication slots were not saved");
        }
    }
}

/// What others may ask of a primary role.
#[derive(Clone, Debug)]
pub struct PrimaryView {
    core: Arc<Core>,
}

impl PrimaryView {
    /// Rows of pg_stat_replication.
    pub fn replication(&self) -> Vec<ReplicationRow> {
        let members = self.core.sync_rep.rows();
        let row = |sender: &SenderState| {
            let member = members.iter().find(|row| Some(row.id) == sender.member());
            let reached = member.map(|row| row.member.reached).unwrap_or_default();
            let lags = sender.lags();
            ReplicationRow {
                pid: sender.pid,
                user: "postgres".to_owned(),
                application_name: sender.node.name.clone(),
                client_addr: sender.host(),
                backend_start: sender.started,
                state: sender.phase().name().to_owned(),
                sent_lsn: sender.sent(),
                write_lsn: reached.write,
                flush_lsn: reached.flush,
                replay_lsn: sender.applied(),
                write_lag: lags.write,
                flush_lag: lags.flush,
                replay_lag: lags.apply,
                sync_priority: member.map_or(0, |row| row.priority as i32),
                sync_state: member.map_or("async", |row| row.state.as_str()).to_owned(),
                reply_time: Some(sender.last_reply()),
            }
        };
        self.core.senders.rows(row)
    }

    /// Rows of pg_replication_slots.
    pub fn slots(&self) -> Vec<SlotRow> {
        self.core.slots.rows(&self.core.slot_bounds())
    }

    /// What is missing for a commit quorum, as "waiting for 1 of (s1, s2)".
    pub fn missing(&self) -> Option<String> {
        self.core.sync_rep.missing()
    }
}

/// Incoming connections without Nagle's delay, which the server's own setting does not reach on a given listener.
struct NoDelay(TcpListenerStream);

impl tokio_stream::Stream for NoDelay {
    type Item = std::io::Result<tokio::net::TcpStream>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let next = std::pin::Pin::new(&mut self.0).poll_next(context);
        if let std::task::Poll::Ready(Some(Ok(stream))) = &next {
            // Without it the stream still works, only later.
            let _ = stream.set_nodelay(true);
        }
        next
    }
}
