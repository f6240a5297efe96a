//! A walsender: one stream of the log to one standby.
//!
//! - It sends what is complete in the WAL buffers, which may not be durable here yet: the standby's fsync runs beside
//!   ours. What left the buffers is read from segment files.
//! - It is woken by the write position, which the WAL writer publishes just before its fsync: one wake-up and one message for
//!   a whole group of commits.
//! - Nothing is kept for a slow standby: at most two chunks wait for the network, the rest stays in the log.
//! - The quorum travels with the WAL. When no WAL follows, it is announced by itself, at once when the stream is idle.
//! - A standby that neither answers nor takes anything for `wal_sender_timeout` is given up, by the monotonic clock.
//! - I2: `sent` never exceeds what is complete; an ack that is not `apply, read horizon ≤ flush ≤ write ≤ sent` ends the stream
//!   with an error and counts for nothing.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use towline_base::{Clock, Incarnation, Lsn, Moment, NodeId, TimelineId};
use towline_proto::replication::{
    Ack, Goodbye, Keepalive, PrimaryMessage, Progress, StandbyMessage, primary_message, standby_message,
};
use towline_proto::{BadMessage, reclone, required, wal_message};

use crate::lag::{LagTracker, Lags};
use crate::role::Core;
use crate::slots::SlotGuard;
use crate::source::{Chunk, SourceError};
use crate::sync_rep::MemberId;
use crate::sync_set::Reached;

/// While WAL flows, how long an announcement of the quorum waits for a chunk that carries it.
const QUORUM_PATIENCE: Duration = Duration::from_millis(1);
/// Longest sleep of an idle walsender.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// While the node stops: a notice that comes between a look and the wait is made up for after this.
const DRAIN_PAUSE: Duration = Duration::from_millis(20);
/// Messages that may wait for the network.
pub(crate) const IN_FLIGHT: usize = 2;

/// `state` of pg_stat_replication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Phase {
    Startup = 0,
    Catchup = 1,
    Streaming = 2,
    Backup = 3,
    Stopping = 4,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Startup => "startup",
            Phase::Catchup => "catchup",
            Phase::Streaming => "streaming",
            Phase::Backup => "backup",
            Phase::Stopping => "stopping",
        }
    }

    fn from_number(number: u8) -> Phase {
        match number {
            1 => Phase::Catchup,
            2 => Phase::Streaming,
            3 => Phase::Backup,
            4 => Phase::Stopping,
            _ => Phase::Startup,
        }
    }
}

/// What a walsender sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A base backup.
    Backup,
    /// The log, to this member.
    Stream(MemberId),
}

/// What others see of a walsender.
#[derive(Debug)]
pub(crate) struct SenderState {
    pub(crate) pid: i32,
    pub(crate) node: NodeId,
    /// The process at the other end, when it says which it is.
    pub(crate) instance: Option<Incarnation>,
    /// Where it comes from: address and port.
    pub(crate) address: String,
    pub(crate) started: i64,
    kind: Kind,
    pub(crate) cancel: CancellationToken,
    phase: AtomicU8,
    sent: AtomicU64,
    applied: AtomicU64,
    oldest_snapshot: AtomicU64,
    last_reply: AtomicI64,
    /// When the standby was last heard of, as [`Moment`].
    heard: AtomicU64,
    caught_up: AtomicBool,
    /// The standby wants to hear from us.
    reply_wanted: Notify,
    /// Somebody else wants to know whether the standby is still there.
    sign_wanted: Notify,
    /// How the standby broke the protocol.
    broken: OnceLock<BadMessage>,
    lag: Mutex<LagTracker>,
}

impl SenderState {
    /// Of a stream that begins at `start`: the standby has what is before it.
    pub(crate) fn new(
        pid: i32,
        node: NodeId,
        address: String,
        clock: &dyn Clock,
        kind: Kind,
        start: Lsn,
        cancel: CancellationToken,
    ) -> SenderState {
        let started = clock.wall();
        SenderState {
            pid,
            node,
            instance: None,
            address,
            started,
            kind,
            cancel,
            phase: AtomicU8::new(Phase::Startup as u8),
            // Before the sender's first turn: the standby's first ack may be here earlier.
            sent: AtomicU64::new(start.0),
            applied: AtomicU64::new(0),
            oldest_snapshot: AtomicU64::new(0),
            last_reply: AtomicI64::new(started),
            heard: AtomicU64::new(clock.now().0),
            caught_up: AtomicBool::new(false),
            reply_wanted: Notify::new(),
            sign_wanted: Notify::new(),
            broken: OnceLock::new(),
            lag: Mutex::new(LagTracker::default()),
        }
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.member().is_some()
    }

    pub(crate) fn member(&self) -> Option<MemberId> {
        match self.kind {
            Kind::Backup => None,
            Kind::Stream(member) => Some(member),
        }
    }

    /// The address without the port, as pg_stat_replication has it.
    pub(crate) fn host(&self) -> String {
        let parsed = self.address.parse::<std::net::SocketAddr>();
        parsed.map_or_else(|_| self.address.clone(), |address| address.ip().to_string())
    }

    /// Has the standby asked for a sign of life.
    pub(crate) fn ask_for_sign(&self) {
        self.sign_wanted.notify_one();
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase::from_number(self.phase.load(Ordering::Relaxed))
    }

    pub(crate) fn sent(&self) -> Lsn {
        Lsn(self.sent.load(Ordering::Acquire))
    }

    pub(crate) fn applied(&self) -> Lsn {
        Lsn(self.applied.load(Ordering::Relaxed))
    }

    /// The oldest snapshot in use there, if it says so.
    pub(crate) fn oldest_snapshot(&self) -> Option<Lsn> {
        Some(Lsn(self.oldest_snapshot.load(Ordering::Relaxed))).filter(|lsn| lsn.is_valid())
    }

    pub(crate) fn last_reply(&self) -> i64 {
        self.last_reply.load(Ordering::Relaxed)
    }

    /// The standby has said something.
    fn heard(&self, clock: &dyn Clock) {
        self.last_reply.store(clock.wall(), Ordering::Relaxed);
        self.heard.store(clock.now().0, Ordering::Relaxed);
    }

    /// Time since the standby last said anything.
    pub(crate) fn silence(&self, clock: &dyn Clock) -> Duration {
        clock.now().since(Moment(self.heard.load(Ordering::Relaxed)))
    }

    pub(crate) fn lags(&self) -> Lags {
        self.lag.lock().lags()
    }
}

/// The sending half.
pub(crate) struct Sender {
    pub(crate) core: Arc<Core>,
    pub(crate) state: Arc<SenderState>,
    pub(crate) out: mpsc::Sender<Result<PrimaryMessage, Status>>,
    pub(crate) start: Lsn,
    pub(crate) slot: Option<Arc<SlotGuard>>,
}

/// What to do next, when no WAL is there to be sent.
enum Woken {
    Again,
    Stop,
}

impl Sender {
    /// Sends until cancelled, drained, or the standby is gone.
    pub(crate) async fn run(self) {
        let outcome = self.stream().await;
        self.state.set_phase(Phase::Stopping);
        let broken = self.state.broken.get().copied();
        let message = match broken.map_or(outcome, |error| Err(error.into())) {
            Ok(reason) => {
                let goodbye = Goodbye {
                    reason: reason.to_owned(),
                };
                Ok(PrimaryMessage {
                    message: Some(primary_message::Message::Goodbye(goodbye)),
                })
            }
            Err(status) => Err(status),
        };
        // The standby may be gone already, or not reading: then it learns nothing more.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.out.send(message)).await;
    }

    async fn stream(&self) -> Result<&'static str, Status> {
        let mut sent = self.start;
        let mut announced = Lsn::INVALID;
        let mut wal_sent_at = Instant::now();
        let mut asked_at = None;
        self.state.set_phase(Phase::Catchup);
        loop {
            if self.state.cancel.is_cancelled() {
                return Ok(self.why_cancelled());
            }
            if let Some(chunk) = self.next_chunk(sent).await? {
                let start = sent;
                sent = sent + chunk.bytes.len() as u64;
                let progress = self.progress();
                let current = chunk.timeline == self.core.history.current();
                let timeline = if current {
                    self.core.timeline.clone()
                } else {
                    chunk.timeline.into()
                };
                announced = Lsn(progress.quorum);
                wal_sent_at = Instant::now();
                // Before it is sent: an ack may come before the next line runs.
                self.state.sent.store(sent.0, Ordering::Release);
                self.state.lag.lock().sent(sent, progress.send_time);
                if !self
                    .send(wal_message(timeline, start, chunk.bytes, progress))
                    .await?
                {
                    return Ok("the standby has gone");
                }
                continue;
            }
            self.caught_up(sent);
            let drained = self.drained(sent);
            let quorum = self.core.sync_rep.quorum().get();
            let quiet = wal_sent_at.elapsed();
            if quorum > announced && (drained || quiet >= QUORUM_PATIENCE || self.core.wants_applies()) {
                announced = quorum;
                if !self.send(self.keepalive(false)).await? {
                    return Ok("the standby has gone");
                }
                continue;
            }
            if drained {
                return Ok("the primary has sent everything and stops");
            }
            let patience = if quorum > announced {
                Some(QUORUM_PATIENCE - quiet)
            } else {
                None
            };
            match self.wait(sent, quorum, patience, &mut asked_at).await? {
                Woken::Again => {}
                Woken::Stop => return Ok(self.why_cancelled()),
            }
        }
    }

    fn why_cancelled(&self) -> &'static str {
        if self.core.stopping() {
            "the primary stops"
        } else {
            "the standby has ended this stream or connected anew"
        }
    }

    /// The next bytes: from the buffers, else from files on a thread that may block.
    async fn next_chunk(&self, sent: Lsn) -> Result<Option<Chunk>, Status> {
        if let Some(chunk) = self.core.log.recent(sent) {
            return Ok(Some(chunk));
        }
        if sent >= self.core.log.written() {
            return Ok(None);
        }
        if self.slot.as_ref().is_some_and(|slot| slot.is_lost()) {
            return Err(reclone(Status::out_of_range(
                "the replication slot has lost WAL that the standby needs",
            )));
        }
        let log = self.core.log.clone();
        let read = tokio::task::spawn_blocking(move || log.in_files(sent)).await;
        match read.map_err(|error| Status::internal(error.to_string()))? {
            Ok(chunk) => Ok(chunk),
            Err(error @ SourceError::Removed(_)) => Err(reclone(Status::out_of_range(error.to_string()))),
            Err(error @ SourceError::Io(_)) => Err(Status::internal(error.to_string())),
        }
    }

    fn caught_up(&self, sent: Lsn) {
        if !self.state.caught_up.swap(true, Ordering::Relaxed) {
            self.state.set_phase(Phase::Streaming);
            if let Some(member) = self.state.member() {
                self.core.sync_rep.set_streaming(member);
            }
            tracing::info!(standby = %self.state.node, %sent, "standby has caught up");
        }
    }

    /// Whether the node stops and this standby has all that it will get: the end of the log, and the word that the quorum has it, which may
    /// still need other standbys. Those that are connected are waited for; without any that could bring it, the quorum stays behind.
    fn drained(&self, sent: Lsn) -> bool {
        let Some(end) = self.core.drain_to() else {
            return false;
        };
        let sync_rep = &self.core.sync_rep;
        let durable_there = self.state.member().and_then(|member| sync_rep.reached(member));
        sent >= end
            && durable_there.is_some_and(|reached| reached.flush >= end)
            && (sync_rep.quorum().get() >= end || sync_rep.all_have(end))
    }

    /// Waits for more WAL, for a quorum above the one that was looked at, or for what else there is to do.
    async fn wait(
        &self,
        sent: Lsn,
        seen_quorum: Lsn,
        patience: Option<Duration>,
        asked_at: &mut Option<Instant>,
    ) -> Result<Woken, Status> {
        let timeout = self.core.sender_timeout();
        let silent = self.state.silence(&*self.core.clock);
        if let Some(timeout) = timeout {
            self.give_up_after(timeout)?;
            // Asked once per silence, at half the time.
            let due = silent >= timeout / 2 && asked_at.is_none_or(|at| at.elapsed() >= timeout / 2);
            if due {
                *asked_at = Some(Instant::now());
                if !self.send(self.keepalive(true)).await? {
                    return Ok(Woken::Stop);
                }
            }
        }
        // Listened for before it is looked at: a drain that begins in between is not slept through.
        let mut draining = std::pin::pin!(self.core.draining.notified());
        draining.as_mut().enable();
        let rest = if self.core.drain_to().is_some() {
            DRAIN_PAUSE
        } else {
            MAX_PAUSE
        };
        let pause = patience.unwrap_or_else(|| timeout.map_or(rest, |timeout| rest.min(timeout / 4)));
        let write = &self.core.wal.positions().write;
        tokio::select! {
            biased;
            () = self.state.cancel.cancelled() => return Ok(Woken::Stop),
            () = self.out.closed() => return Ok(Woken::Stop),
            outcome = write.wait_past(sent) => {
                // The log has failed; the node is about to end.
                outcome.map_err(|_| Status::unavailable("the primary's log has failed"))?;
            }
            _ = self.core.sync_rep.quorum().wait_past(seen_quorum) => {}
            () = draining => {}
            () = self.state.sign_wanted.notified() => {
                if !self.send(self.keepalive(true)).await? {
                    return Ok(Woken::Stop);
                }
            }
            () = self.state.reply_wanted.notified() => {
                if !self.send(self.keepalive(false)).await? {
                    return Ok(Woken::Stop);
                }
            }
            () = tokio::time::sleep(pause) => {}
        }
        Ok(Woken::Again)
    }

    fn give_up_after(&self, timeout: Duration) -> Result<(), Status> {
        if self.state.silence(&*self.core.clock) < timeout {
            return Ok(());
        }
        let text = "the standby has not answered within wal_sender_timeout";
        tracing::warn!(standby = %self.state.node, "{text}");
        Err(Status::deadline_exceeded(text))
    }

    /// Hands a message to the network. False when the stream has ended; an error when the standby takes nothing and is silent.
    async fn send(&self, message: PrimaryMessage) -> Result<bool, Status> {
        let message = match self.out.try_send(Ok(message)) {
            Ok(()) => return Ok(true),
            Err(TrySendError::Closed(_)) => return Ok(false),
            Err(TrySendError::Full(message)) => message,
        };
        let mut sending = std::pin::pin!(self.out.send(message));
        loop {
            let timeout = self.core.sender_timeout();
            let silent = self.state.silence(&*self.core.clock);
            let pause = timeout.map_or(MAX_PAUSE, |timeout| timeout.saturating_sub(silent).min(MAX_PAUSE));
            tokio::select! {
                biased;
                sent = &mut sending => return Ok(sent.is_ok()),
                () = self.state.cancel.cancelled() => return Ok(false),
                () = tokio::time::sleep(pause) => timeout.map_or(Ok(()), |timeout| self.give_up_after(timeout))?,
            }
        }
    }

    fn keepalive(&self, reply_requested: bool) -> PrimaryMessage {
        let keepalive = Keepalive {
            progress: Some(self.progress()),
            reply_requested,
        };
        PrimaryMessage {
            message: Some(primary_message::Message::Keepalive(keepalive)),
        }
    }

    fn progress(&self) -> Progress {
        self.core.progress()
    }
}

/// The receiving half: acks, until the standby goes or breaks the protocol.
pub(crate) async fn receive_acks(
    core: Arc<Core>,
    state: Arc<SenderState>,
    slot: Option<Arc<SlotGuard>>,
    mut inbound: Streaming<StandbyMessage>,
) {
    let cancel = state.cancel.clone();
    loop {
        let message = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            message = inbound.message() => message,
        };
        let outcome = match message {
            Ok(Some(StandbyMessage {
                message: Some(standby_message::Message::Ack(ack)),
            })) => on_ack(&core, &state, slot.as_deref(), ack),
            Ok(Some(_)) => Err(BadMessage("only acks may follow the handshake")),
            Ok(None) => {
                tracing::info!(standby = %state.node, "standby has ended its stream");
                return cancel.cancel();
            }
            Err(status) => {
                tracing::info!(standby = %state.node, reason = status.message(), "stream from the standby broke");
                return cancel.cancel();
            }
        };
        if let Err(error) = outcome {
            tracing::warn!(standby = %state.node, %error, "standby broke the protocol");
            let _ = state.broken.set(error);
            return cancel.cancel();
        }
    }
}

fn on_ack(core: &Core, state: &SenderState, slot: Option<&SlotGuard>, ack: Ack) -> Result<(), BadMessage> {
    let timeline: TimelineId = required(ack.timeline, "ack without timeline")?;
    let (write, flush, apply) = (Lsn(ack.write), Lsn(ack.flush), Lsn(ack.apply));
    let read_horizon = Lsn(ack.read_horizon);
    let in_order = apply <= flush && read_horizon <= flush && flush <= write && write <= state.sent();
    if !in_order {
        return Err(BadMessage("acknowledged positions are not in order"));
    }
    state.applied.fetch_max(apply.0, Ordering::Relaxed);
    state.heard(&*core.clock);
    state.lag.lock().acked(write, flush, apply, state.last_reply());
    if let Some(slot) = slot
        && core.history.contains(timeline, flush)
    {
        slot.confirm(flush);
    }
    if let Some(member) = state.member() {
        core.sync_rep.on_ack(
            member,
            timeline,
            Reached {
                write,
                flush,
                apply: read_horizon,
            },
        );
    }
    if state.oldest_snapshot.swap(ack.oldest_snapshot, Ordering::Relaxed) != ack.oldest_snapshot {
        core.feedback_changed();
    }
    if ack.reply_requested {
        state.reply_wanted.notify_one();
    }
    if core.drain_to().is_some() {
        core.draining.notify_waiters();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use towline_base::{Incarnation, ManualClock};

    /// When the first ack came before the sender's first turn, all of it was beyond what was sent, and the stream ended.
    #[test]
    fn what_a_standby_begins_with_counts_as_sent_before_anything_is() {
        let node = NodeId {
            name: "s1".to_owned(),
            incarnation: Incarnation([1; 16]),
        };
        let clock = ManualClock::new(0);
        let (address, cancel) = (String::new(), CancellationToken::new());
        let state = SenderState::new(1, node, address, &clock, Kind::Backup, Lsn(700), cancel);
        assert_eq!(state.sent(), Lsn(700));
    }
}
