//! The WAL receiver's network half: connects, shakes hands, hands what arrives to the writer thread, and sends acks.
//!
//! It tries for ever, with pauses that double and are random, until a stream has brought WAL or has lasted: one that ends right behind its
//! handshake, again and again, is no progress. It gives up only when the primary says by name that only a new clone helps: its
//! WAL for this standby is gone. Every other refusal leaves the data alone: a primary that lacks what this standby has may be
//! the one that is wrong. Acks are built when the network takes them, from the positions as they are then: a slow line carries
//! fewer of them, never older ones. None is sent before the log stands where the stream begins: until then it may be longer.
//!
//! Whatever comes from the network is judged before it is written: its checksum, its place, its timeline, the positions with it. What does
//! not fit ends the stream with a reason, and the next attempt asks again for what follows the durable log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use towline_base::settings::keys;
use towline_base::{Lsn, TimelineId};
use towline_proto::replication::replication_client::ReplicationClient;
use towline_proto::replication::{
    Handshake, HandshakeReply, PrimaryMessage, Progress, StandbyMessage, WalData,
};
use towline_proto::replication::{primary_message, standby_message};
use towline_proto::transport::{self, ShowSecret};
use towline_proto::{BadMessage, PROTOCOL_VERSION, asks_to_reclone, is_intact, required};
use towline_wal::TimelineHistory;

use crate::backoff::Backoff;
use crate::shared::{Shared, StandbyEnd, describe};
use crate::writer::Command;

pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// HTTP/2 pings are the second line behind `wal_receiver_timeout`, and no more frequent than this: a primary whose machine stalls for a
/// while is not taken for one that has gone.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How often it is looked whether replay has moved, when nobody waits to hear of it.
const APPLY_LOOK: Duration = Duration::from_millis(200);

/// How an attempt ended.
enum Ended {
    /// Try again.
    Retry(String),
    /// This standby's data cannot follow, and the primary says so.
    Reclone(String),
    Stopped,
}

impl From<Status> for Ended {
    fn from(status: Status) -> Ended {
        let text = status.message().to_owned();
        if asks_to_reclone(&status) {
            Ended::Reclone(text)
        } else if text.is_empty() {
            Ended::Retry(format!("{:?}", status.code()))
        } else {
            Ended::Retry(text)
        }
    }
}

impl From<towline_proto::BadMessage> for Ended {
    fn from(error: towline_proto::BadMessage) -> Ended {
        Ended::Retry(error.to_string())
    }
}

/// Streams until the role stops.
pub(crate) async fn run(shared: Arc<Shared>, commands: mpsc::Sender<Command>) {
    let mut backoff = Backoff::new(FIRST_PAUSE, longest_pause(&shared));
    let mut number = 0;
    while !shared.stopping() {
        number += 1;
        let attempt = Attempt {
            shared: &shared,
            commands: &commands,
            number,
        };
        let ended = tokio::select! {
            biased;
            () = shared.cancel.cancelled() => Ended::Stopped,
            ended = attempt.run(&mut backoff) => ended,
        };
        shared.streaming.store(false, Ordering::Relaxed);
        match ended {
            Ended::Stopped => return,
            Ended::Reclone(why) => {
                tracing::warn!("this standby must be cloned anew: {why}");
                return shared.finish(StandbyEnd::Reclone(why));
            }
            Ended::Retry(why) => {
                // The same trouble is said once.
                let mut trouble = shared.trouble.lock();
                if trouble.as_ref() != Some(&why) {
                    tracing::warn!(upstream = shared.upstream, "replication stream: {why}");
                    *trouble = Some(why);
                }
            }
        }
        // It may have been changed since.
        backoff.set_longest(longest_pause(&shared));
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            () = tokio::time::sleep(backoff.next_pause()) => {}
        }
    }
}

fn longest_pause(shared: &Shared) -> Duration {
    shared
        .settings
        .duration(keys::wal_retrieve_retry_interval)
        .unwrap_or(Duration::from_secs(5))
}

struct Attempt<'a> {
    shared: &'a Arc<Shared>,
    commands: &'a mpsc::Sender<Command>,
    number: u64,
}

impl Attempt<'_> {
    async fn run(&self, backoff: &mut Backoff) -> Ended {
        match self.stream(backoff).await {
            Ok(()) => Ended::Retry("the primary has ended the stream".to_owned()),
            Err(ended) => ended,
        }
    }

    async fn stream(&self, backoff: &mut Backoff) -> Result<(), Ended> {
        let failed = |error: tonic::transport::Error| Ended::Retry(describe(&error));
        let keepalive = self.timeout().unwrap_or_default().max(KEEPALIVE);
        let endpoint =
            transport::endpoint(&self.shared.upstream, CONNECT_TIMEOUT, keepalive).map_err(failed)?;
        let channel = endpoint.connect().await.map_err(failed)?;
        let mut client = ReplicationClient::with_interceptor(channel, ShowSecret(self.shared.secret.clone()))
            .max_decoding_message_size(transport::MESSAGE_LIMIT)
            .max_encoding_message_size(transport::MESSAGE_LIMIT);
        // Ends the acks when this attempt ends, however it ends.
        let attempt = self.shared.cancel.child_token();
        let _guard = attempt.clone().drop_guard();
        // What earlier streams have brought may still be on its way to the disk.
        let (done, settled) = oneshot::channel();
        self.command(Command::Settle { done }).await?;
        settled.await.map_err(|_| Ended::Stopped)?;
        let ours = OurLog::now(self.shared);
        let begin = Arc::new(Notify::new());
        let hello = handshake(self.shared, &ours);
        let acks = outbound(Arc::clone(self.shared), attempt, hello, Arc::clone(&begin));
        let answer = client.start_replication(acks);
        let mut inbound = match self.timeout() {
            None => answer.await?,
            Some(timeout) => tokio::time::timeout(timeout, answer)
                .await
                .map_err(|_| silence())??,
        }
        .into_inner();
        let reply = match self.next(&mut inbound).await?.message {
            Some(primary_message::Message::Handshake(reply)) => reply,
            _ => {
                return Err(Ended::Retry(
                    "the primary did not answer the handshake".to_owned(),
                ));
            }
        };
        let mut place = self.follow(reply, &ours).await?;
        begin.notify_one();
        let begun = Instant::now();
        self.shared.streaming.store(true, Ordering::Relaxed);
        *self.shared.trouble.lock() = None;
        loop {
            match self.next(&mut inbound).await?.message {
                Some(primary_message::Message::Wal(wal)) => {
                    place.take(&wal)?;
                    let progress = place.progress(wal.progress)?;
                    let command = Command::Wal {
                        stream: self.number,
                        start: Lsn(wal.start),
                        data: wal.data,
                        progress,
                    };
                    self.command(command).await?;
                    backoff.reset();
                }
                Some(primary_message::Message::Keepalive(keepalive)) => {
                    let progress = place.progress(keepalive.progress)?;
                    self.command(Command::Progress {
                        stream: self.number,
                        progress,
                    })
                    .await?;
                    if keepalive.reply_requested {
                        self.shared.ack_due.notify_one();
                    }
                    // Without WAL, a stream has led to something when it has lasted.
                    if begun.elapsed() >= longest_pause(self.shared) {
                        backoff.reset();
                    }
                }
                Some(primary_message::Message::Goodbye(goodbye)) => {
                    return Err(Ended::Retry(format!(
                        "the primary has ended the stream: {}",
                        goodbye.reason
                    )));
                }
                Some(primary_message::Message::Handshake(_)) | None => {
                    return Err(Ended::Retry("unexpected message from the primary".to_owned()));
                }
            }
        }
    }

    /// `wal_receiver_timeout`, unless it is off.
    fn timeout(&self) -> Option<Duration> {
        let timeout = self.shared.settings.duration(keys::wal_receiver_timeout);
        timeout.filter(|timeout| !timeout.is_zero())
    }

    /// The next message. Half the timeout without one asks the primary for a sign of life, all of it ends the attempt.
    async fn next(&self, inbound: &mut Streaming<PrimaryMessage>) -> Result<PrimaryMessage, Ended> {
        let message = match self.timeout() {
            None => inbound.message().await?,
            Some(timeout) => match tokio::time::timeout(timeout / 2, inbound.message()).await {
                Ok(message) => message?,
                Err(_) => {
                    self.shared.ask_reply.store(true, Ordering::Relaxed);
                    self.shared.ack_due.notify_one();
                    tokio::time::timeout(timeout / 2, inbound.message())
                        .await
                        .map_err(|_| silence())??
                }
            },
        };
        self.shared
            .last_message
            .store(self.shared.clock.wall(), Ordering::Relaxed);
        message.ok_or_else(|| Ended::Retry("the primary has ended the stream".to_owned()))
    }

    /// Bounded: while the writer thread is busy, the network waits, and so the primary.
    async fn command(&self, command: Command) -> Result<(), Ended> {
        self.commands.send(command).await.map_err(|_| Ended::Stopped)
    }

    async fn follow(&self, reply: HandshakeReply, ours: &OurLog) -> Result<Place, Ended> {
        let timeline: TimelineId = required(reply.timeline, "handshake without timeline")?;
        let text = String::from_utf8_lossy(&reply.history).into_owned();
        let history = TimelineHistory::parse(timeline.number, &text)
            .map_err(|error| Ended::Retry(format!("the primary's history: {error}")))?;
        if history.current() != timeline {
            return Err(Ended::Retry(
                "the primary's history is not that of its timeline".to_owned(),
            ));
        }
        let start = Lsn(reply.start);
        ours.check(&history, start)?;
        let start_timeline: TimelineId =
            required(reply.start_timeline, "handshake without its first timeline")?;
        if start_timeline != history.timeline_at(start) {
            return Err(BadMessage("the first timeline is not the history's").into());
        }
        if reply.segment_size != self.shared.log().source.segment_size.bytes() {
            return Err(BadMessage("segments of another size").into());
        }
        let (done, outcome) = oneshot::channel();
        self.command(Command::Follow {
            stream: self.number,
            start,
            history: Box::new(history.clone()),
            sync_set_version: reply.sync_set_version,
            done,
        })
        .await?;
        outcome.await.map_err(|_| Ended::Stopped)?.map_err(Ended::Retry)?;
        self.shared.start_lsn.store(start.0, Ordering::Relaxed);
        tracing::info!(upstream = self.shared.upstream, %start, %timeline, "streaming WAL");
        Ok(Place {
            history,
            next: start,
            quorum: Lsn::INVALID,
        })
    }
}

/// The log as the handshake tells it.
struct OurLog {
    history: TimelineHistory,
    position: Lsn,
}

impl OurLog {
    fn now(shared: &Shared) -> OurLog {
        OurLog {
            history: shared.followed(),
            position: shared.positions().flush.get(),
        }
    }

    /// A stream begins where this log ends or leaves the primary's history. One that began lower would have durable, acknowledged WAL cut
    /// that both have.
    fn check(&self, theirs: &TimelineHistory, start: Lsn) -> Result<(), Ended> {
        match self.history.fork_from(theirs) {
            Some((_, shared)) if start == shared.min(self.position) => Ok(()),
            shared => {
                let shared = shared.map_or_else(|| "nowhere".to_owned(), |(_, shared)| shared.to_string());
                Err(Ended::Retry(format!(
                    "the primary begins the stream at {start}, where a log that ends at {} and shares its history up to {shared} does not \
                     go on",
                    self.position
                )))
            }
        }
    }
}

fn silence() -> Ended {
    Ended::Retry("the primary is silent (wal_receiver_timeout)".to_owned())
}

/// Where a stream is: what comes next, on which timeline, and the quorum told last.
struct Place {
    history: TimelineHistory,
    next: Lsn,
    quorum: Lsn,
}

impl Place {
    /// Bytes arrive. They must go on where the last ones ended, on the timeline that has this place, as they were sent.
    fn take(&mut self, wal: &WalData) -> Result<(), Ended> {
        let timeline: TimelineId = required(wal.timeline.clone(), "WAL without timeline")?;
        let (start, expected) = (Lsn(wal.start), self.history.timeline_at(self.next));
        if start != self.next || timeline != expected {
            return Err(Ended::Retry(format!(
                "the primary sent WAL at {start} of timeline {timeline}, where {} of timeline {expected} comes next",
                self.next
            )));
        }
        if !is_intact(wal) {
            return Err(Ended::Retry(format!(
                "the WAL at {start} was changed on its way: its checksum is wrong"
            )));
        }
        let end = start.0.checked_add(wal.data.len() as u64).map(Lsn);
        let end = end.ok_or(BadMessage("WAL beyond the last position"))?;
        if self
            .history
            .end_of(timeline.number)
            .is_some_and(|left| end > left)
        {
            return Err(BadMessage("WAL beyond the end of its timeline").into());
        }
        self.next = end;
        Ok(())
    }

    /// Where the primary stands. I2, whatever the network says: what it has sent and the quorum are parts of its log, the quorum never
    /// falls, and the timeline is that of the handshake.
    fn progress(&mut self, progress: Option<Progress>) -> Result<Progress, Ended> {
        let progress = progress.ok_or(BadMessage("message without progress"))?;
        let timeline: TimelineId = required(progress.timeline.clone(), "progress without timeline")?;
        if timeline != self.history.current() {
            return Err(BadMessage("progress of another timeline").into());
        }
        let (quorum, insert) = (Lsn(progress.quorum), Lsn(progress.insert));
        if quorum > insert {
            return Err(BadMessage("a quorum beyond the end of the log").into());
        }
        if self.next > insert {
            return Err(BadMessage("WAL beyond the end of the log").into());
        }
        if quorum < self.quorum {
            return Err(BadMessage("a quorum that falls").into());
        }
        self.quorum = quorum;
        Ok(progress)
    }
}

/// The handshake; then, from `begin` on, acks.
fn outbound(
    shared: Arc<Shared>,
    cancel: CancellationToken,
    hello: Handshake,
    begin: Arc<Notify>,
) -> impl futures_util::Stream<Item = StandbyMessage> + Send + 'static {
    enum Next {
        Handshake(Box<Handshake>, Arc<Notify>),
        First(Arc<Notify>),
        Later { sent_at: Instant, applied: Lsn },
    }
    let first = Next::Handshake(Box::new(hello), begin);
    stream::unfold((shared, cancel, first), |(shared, cancel, next)| async move {
        match next {
            Next::Handshake(hello, begin) => {
                let message = standby_message::Message::Handshake(*hello);
                return Some((said(message), (shared, cancel, Next::First(begin))));
            }
            Next::First(begin) => tokio::select! {
                biased;
                () = cancel.cancelled() => return None,
                () = begin.notified() => {}
            },
            Next::Later { sent_at, applied } => wait_for_ack(&shared, &cancel, sent_at, applied).await?,
        }
        // Read before the ack is built: what moves in between is told by the next one.
        let applied = shared.applied();
        let message = said(standby_message::Message::Ack(shared.ack()));
        let sent_at = Instant::now();
        Some((message, (shared, cancel, Next::Later { sent_at, applied })))
    })
}

fn said(message: standby_message::Message) -> StandbyMessage {
    StandbyMessage {
        message: Some(message),
    }
}

/// Returns when an ack is due; `None` when the attempt has ended.
async fn wait_for_ack(
    shared: &Shared,
    cancel: &CancellationToken,
    sent_at: Instant,
    applied: Lsn,
) -> Option<()> {
    let interval = shared
        .settings
        .duration(keys::wal_receiver_status_interval)
        .filter(|i| !i.is_zero());
    let interval = interval.unwrap_or(Duration::from_secs(3600));
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return None,
            () = shared.ack_due.notified() => return Some(()),
            () = tokio::time::sleep(APPLY_LOOK) => {
                if shared.applied() != applied || sent_at.elapsed() >= interval {
                    return Some(());
                }
            }
        }
    }
}

fn handshake(shared: &Shared, log: &OurLog) -> Handshake {
    let promise = shared.promise.get();
    Handshake {
        protocol_version: PROTOCOL_VERSION,
        system_id: shared.system.0,
        node: Some((&shared.node).into()),
        history: log.history.to_text().into(),
        timeline: Some(log.history.current().into()),
        position: log.position.0,
        kept: shared.kept().0,
        slot: shared.settings.get(keys::primary_slot_name).to_string(),
        sync_set_version: promise.sync_set_version,
        promise: Some(promise.timeline.into()),
        instance: shared.instance.0.to_vec().into(),
    }
}
