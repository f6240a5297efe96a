//! The gRPC service of a primary.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use towline_base::settings::keys;
use towline_base::{Incarnation, Lsn, NodeId, TimelineId, TimelineNumber};
use towline_proto::replication as pb;
use towline_proto::replication::replication_server::Replication;
use towline_proto::replication::{PrimaryMessage, StandbyMessage, primary_message, standby_message};
use towline_proto::transport::MESSAGE_LIMIT;
use towline_proto::{PROTOCOL_VERSION, reclone, required};
use towline_wal::TimelineHistory;
use towline_wal::records::timestamp;

use crate::backup;
use crate::handshake::{self, TheirLog};
use crate::role::Core;
use crate::slots::{SlotError, SlotGuard, Slots, slot_name_of};
use crate::walsender::{IN_FLIGHT, Kind, Sender, SenderState, receive_acks};

/// How long a new stream has to introduce itself.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long a new stream waits for an older one of the same node to leave the slot.
const SLOT_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at whether it has.
pub(crate) const SLOT_PAUSE: Duration = Duration::from_millis(20);
/// Longest history that is read from a standby: most of a message. Each start of a primary adds a line.
const MAX_HISTORY: usize = MESSAGE_LIMIT / 4 * 3;

/// The service; clones share the role.
#[derive(Clone, Debug)]
pub struct ReplicationService {
    pub(crate) core: Arc<Core>,
}

impl From<SlotError> for Status {
    fn from(error: SlotError) -> Status {
        let text = error.to_string();
        match error {
            SlotError::BadName(_) => Status::invalid_argument(text),
            SlotError::TooMany => Status::resource_exhausted(text),
            SlotError::NotFound(_) => Status::not_found(text),
            SlotError::InUse(_) => Status::already_exists(text),
            SlotError::Lost(_) => reclone(Status::out_of_range(text)),
            SlotError::Io(_) => Status::internal(text),
        }
    }
}

/// Why a node gets no slot, with what to do about it.
pub(crate) fn no_slot(core: &Core, error: SlotError, node: &NodeId) -> Status {
    let SlotError::InUse(slot) = &error else {
        return error.into();
    };
    let user = core.slots.user(slot).and_then(|pid| core.senders.of_pid(pid));
    let user = user.map_or_else(String::new, |user| {
        format!(
            " by the standby {}, from {} since {}",
            user.node,
            user.address,
            timestamp(user.started)
        )
    });
    Status::already_exists(format!(
        "{error}{user}: an earlier stream has not ended yet, or another standby has the name \"{}\" too; give each a name of its own",
        node.name
    ))
}

impl ReplicationService {
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.core.secret.check(request)?;
        if self.core.stopping() {
            return Err(Status::unavailable("the primary is shutting down"));
        }
        Ok(())
    }

    fn same_cluster(&self, system: u64) -> Result<(), Status> {
        if system == self.core.system.0 {
            return Ok(());
        }
        let text = format!(
            "the standby belongs to another cluster (system id {system}, not {}); start it with the address of its own primary, or \
             remove its data directory to clone this one",
            self.core.system
        );
        Err(Status::permission_denied(text))
    }

    /// A copy of the primary's own directory would vote a second time for what the primary has (A5, A6).
    fn is_another(&self, node: &NodeId) -> Result<(), Status> {
        if node.incarnation != self.core.node.incarnation {
            return Ok(());
        }
        let text = format!(
            "the standby \"{}\" has the identity of this primary: its data directory is a copy; remove it, and the standby clones itself",
            node.name
        );
        Err(Status::permission_denied(text))
    }

    fn check_handshake(&self, hello: &pb::Handshake) -> Result<(NodeId, handshake::Start), Status> {
        if hello.protocol_version != PROTOCOL_VERSION {
            let version = hello.protocol_version;
            let text = format!(
                "replication protocol {version} is not spoken here, only {PROTOCOL_VERSION}; run the same release on both nodes"
            );
            return Err(Status::unimplemented(text));
        }
        self.same_cluster(hello.system_id)?;
        let node: NodeId = required(hello.node.clone(), "handshake without node")?;
        self.is_another(&node)?;
        let timeline: TimelineId = required(hello.timeline.clone(), "handshake without timeline")?;
        let history = parse_history(timeline, &hello.history)?;
        let promise: TimelineId = required(hello.promise.clone(), "handshake without promise")?;
        self.core.note_promise(&node, promise.number);
        let theirs = TheirLog {
            history: &history,
            position: Lsn(hello.position),
            kept: Lsn(hello.kept),
            promise,
        };
        let end = self.core.wal.complete_lsn();
        let start = handshake::start(&self.core.history, end, theirs).map_err(|refusal| {
            self.core.say_refused(&node, &refusal);
            Status::failed_precondition(refusal.to_string())
        })?;
        Ok((node, start))
    }

    /// Lets a new stream of a node in, or says which one it has already. One that has just ended, or whose other side has gone, is given a
    /// moment to leave.
    async fn make_room(&self, node: &NodeId, instance: Option<Incarnation>) -> Result<(), Status> {
        let (core, arrived) = (&*self.core, self.core.clock.now());
        let deadline = tokio::time::Instant::now() + SLOT_PATIENCE;
        let mut asked = false;
        while let Some(earlier) = core.senders.in_the_way(node, instance) {
            let lives = earlier.has_spoken_since(arrived, &*core.clock);
            if lives || core.stopping() || tokio::time::Instant::now() >= deadline {
                return Err(self.has_a_stream(node, &earlier));
            }
            if !asked {
                asked = true;
                earlier.ask_for_sign();
            }
            tokio::time::sleep(SLOT_PAUSE).await;
        }
        Ok(())
    }

    fn has_a_stream(&self, node: &NodeId, earlier: &SenderState) -> Status {
        let refusal = earlier.refusal();
        self.core.say_refused(node, &refusal);
        Status::already_exists(refusal.to_string())
    }

    /// The slot of a stream. An older stream of the same process, whose end was not noticed yet, has been ended for it.
    async fn take_slot(
        &self,
        name: &str,
        node: &NodeId,
        start: Lsn,
        pid: i32,
    ) -> Result<Option<Arc<SlotGuard>>, Status> {
        let name = if name.is_empty() {
            slot_name_of(&node.name)
        } else {
            name.to_owned()
        };
        let slots = &self.core.slots;
        let refused = |error| no_slot(&self.core, error, node);
        let ensure = || {
            let (name, node) = (name.clone(), node.clone());
            self.core
                .change_slots(move |slots| slots.ensure(&name, &node, start))
        };
        ensure().await.map_err(refused)?;
        let deadline = tokio::time::Instant::now() + SLOT_PATIENCE;
        loop {
            match slots.acquire(&name, pid) {
                Ok(guard) => {
                    // Until now the older stream may have confirmed more than this one begins with, or another node taken the slot.
                    ensure().await.map_err(refused)?;
                    return Ok(Some(Arc::new(guard)));
                }
                Err(SlotError::InUse(_)) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(SLOT_PAUSE).await;
                }
                Err(error) => return Err(refused(error)),
            }
        }
    }
}

/// Where a request comes from, with its port.
fn address_of<T>(request: &Request<T>) -> String {
    request
        .remote_addr()
        .map_or_else(String::new, |address| address.to_string())
}

/// A history as its file has it, of the timeline that the node says it is on.
fn parse_history(timeline: TimelineId, text: &[u8]) -> Result<TimelineHistory, Status> {
    if text.len() > MAX_HISTORY {
        return Err(Status::invalid_argument("the timeline history is too long"));
    }
    let text = std::str::from_utf8(text).map_err(|_| Status::invalid_argument("history is not UTF-8"))?;
    let history = TimelineHistory::parse(timeline.number, text)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    if history.current() != timeline {
        return Err(Status::invalid_argument(
            "the history is not that of the timeline",
        ));
    }
    Ok(history)
}

#[tonic::async_trait]
impl Replication for ReplicationService {
    type StartReplicationStream = ReceiverStream<Result<PrimaryMessage, Status>>;
    type BaseBackupStream = ReceiverStream<Result<pb::BackupMessage, Status>>;

    async fn identify(
        &self,
        request: Request<pb::IdentifyRequest>,
    ) -> Result<Response<pb::IdentifyResponse>, Status> {
        self.core.secret.check(&request)?;
        Ok(Response::new(pb::IdentifyResponse {
            system_id: self.core.system.0,
            node: Some((&self.core.node).into()),
            timeline: Some(self.core.history.current().into()),
            flush: self.core.wal.positions().flush.get().0,
            quorum: self.core.sync_rep.quorum().get().0,
            segment_size: self.core.wal.segments().segment_size().bytes(),
            role: "primary".to_owned(),
            format_version: 150_000,
        }))
    }

    async fn start_replication(
        &self,
        request: Request<Streaming<StandbyMessage>>,
    ) -> Result<Response<Self::StartReplicationStream>, Status> {
        self.admit(&request)?;
        let address = address_of(&request);
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(HANDSHAKE_TIME, inbound.message());
        let first = first
            .await
            .map_err(|_| Status::deadline_exceeded("no handshake came"))??;
        let Some(StandbyMessage {
            message: Some(standby_message::Message::Handshake(hello)),
        }) = first
        else {
            return Err(Status::invalid_argument("the first message must be a handshake"));
        };
        let (node, start) = self.check_handshake(&hello)?;
        let instance = Incarnation::from_slice(&hello.instance);
        self.make_room(&node, instance).await?;
        let pid = self.core.next_pid();
        let slot = self.take_slot(&hello.slot, &node, start.lsn, pid).await?;
        let permit = self.core.admit_sender()?;
        let member = self.core.sync_rep.join(node.clone());
        let (out, stream) = mpsc::channel(IN_FLIGHT);
        let cancel = self.core.cancel.child_token();
        let mut state = SenderState::new(
            pid,
            node,
            address,
            &*self.core.clock,
            Kind::Stream(member),
            start.lsn,
            cancel.clone(),
        );
        state.instance = instance;
        let state = Arc::new(state);
        // Since there was room, another one may have come.
        if let Err(earlier) = self.core.senders.add(&state) {
            self.core.sync_rep.leave(member);
            return Err(self.has_a_stream(&state.node, &earlier));
        }
        tracing::info!(standby = %state.node, start = %start.lsn, timeline = %start.timeline, "standby connects");
        let reply = pb::HandshakeReply {
            history: self.core.history.to_text().into(),
            timeline: Some(self.core.history.current().into()),
            start: start.lsn.0,
            start_timeline: Some(start.timeline.into()),
            node: Some((&self.core.node).into()),
            sync_set_version: self.core.sync_rep.version(),
            segment_size: self.core.wal.segments().segment_size().bytes(),
        };
        let reply = PrimaryMessage {
            message: Some(primary_message::Message::Handshake(reply)),
        };
        out.try_send(Ok(reply))
            .map_err(|_| Status::internal("the stream ended at once"))?;
        let acks = receive_acks(Arc::clone(&self.core), Arc::clone(&state), slot.clone(), inbound);
        let sender = Sender {
            core: Arc::clone(&self.core),
            state: Arc::clone(&state),
            out,
            start: start.lsn,
            slot,
        };
        let core = Arc::clone(&self.core);
        self.core.tasks.spawn(async move {
            let acks = tokio::spawn(acks);
            sender.run().await;
            cancel.cancel();
            let _ = acks.await;
            core.senders.remove(&state);
            core.sync_rep.leave(member);
            core.feedback_changed();
            drop(permit);
            tracing::info!(standby = %state.node, sent = %state.sent(), "standby disconnected");
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn base_backup(
        &self,
        request: Request<pb::BaseBackupRequest>,
    ) -> Result<Response<Self::BaseBackupStream>, Status> {
        self.admit(&request)?;
        let address = address_of(&request);
        let request = request.into_inner();
        let node: NodeId = required(request.node, "backup request without node")?;
        let pid = self.core.next_pid();
        let slot = if request.slot.is_empty() {
            slot_name_of(&node.name)
        } else {
            request.slot
        };
        self.core.senders.end_backups_of(&node);
        let permit = self.core.admit_sender()?;
        let cancel = self.core.cancel.child_token();
        let clock = &*self.core.clock;
        let state = Arc::new(SenderState::new(
            pid,
            node,
            address,
            clock,
            Kind::Backup,
            Lsn::INVALID,
            cancel,
        ));
        let (out, stream) = mpsc::channel(IN_FLIGHT);
        let core = Arc::clone(&self.core);
        if let Err(earlier) = self.core.senders.add(&state) {
            return Err(self.has_a_stream(&state.node, &earlier));
        }
        self.core.tasks.spawn_blocking(move || {
            backup::run(&core, &state, &slot, &out);
            core.senders.remove(&state);
            drop(permit);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn timeline_history(
        &self,
        request: Request<pb::TimelineHistoryRequest>,
    ) -> Result<Response<pb::TimelineHistoryResponse>, Status> {
        self.admit(&request)?;
        let number = TimelineNumber(request.into_inner().number);
        let segments = Arc::clone(self.core.wal.segments());
        let read = move || TimelineHistory::read(segments.vfs().as_ref(), segments.dir(), number);
        let history = tokio::task::spawn_blocking(read).await;
        match history.map_err(|error| Status::internal(error.to_string()))? {
            Ok(Some(history)) => Ok(Response::new(pb::TimelineHistoryResponse {
                history: history.to_text().into(),
            })),
            Ok(None) => Err(Status::not_found(format!(
                "timeline {number} has no history file"
            ))),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }

    async fn create_slot(
        &self,
        request: Request<pb::CreateSlotRequest>,
    ) -> Result<Response<pb::CreateSlotResponse>, Status> {
        self.admit(&request)?;
        let name = request.into_inner().name;
        let restart = self.core.wal.positions().flush.get();
        let node = self.core.node.clone();
        let ensure = self
            .core
            .change_slots(move |slots| slots.ensure(&name, &node, restart));
        let restart = ensure.await?;
        Ok(Response::new(pb::CreateSlotResponse { restart: restart.0 }))
    }

    async fn drop_slot(
        &self,
        request: Request<pb::DropSlotRequest>,
    ) -> Result<Response<pb::DropSlotResponse>, Status> {
        self.admit(&request)?;
        let name = request.into_inner().name;
        self.core
            .change_slots(move |slots| slots.drop_slot(&name))
            .await?;
        Ok(Response::new(pb::DropSlotResponse {}))
    }
}

impl Core {
    /// A change of slots and their files, on a thread that may wait for the disk. Durable when it is done; one that nobody waits for any
    /// more is carried out all the same.
    pub(crate) async fn change_slots<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Slots) -> Result<T, SlotError> + Send + 'static,
    ) -> Result<T, SlotError> {
        let slots = Arc::clone(&self.slots);
        let changed = tokio::task::spawn_blocking(move || change(&slots)).await;
        changed.unwrap_or_else(|error| Err(SlotError::Io(error.to_string())))
    }

    /// A place among `max_wal_senders`.
    fn admit_sender(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Status> {
        let limit = self.settings.get(keys::max_wal_senders);
        Arc::clone(&self.sender_places).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "max_wal_senders ({limit}) standbys are connected; raise it on the primary"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fmt::Write as _;

    use super::*;
    use towline_base::Incarnation;

    /// After some fifteen thousand starts of its primary no standby was let in any more.
    #[test]
    fn the_history_of_a_primary_that_was_started_many_times_is_read() {
        let starts = 30_000;
        let mut text = String::new();
        for number in 1..=starts {
            let incarnation = Incarnation([7; 16]);
            writeln!(text, "{number}\t0/{number:X}\tincarnation={incarnation} start").unwrap();
        }
        let timeline = TimelineId {
            number: TimelineNumber(starts + 1),
            incarnation: Incarnation::ZERO,
        };
        let history = parse_history(timeline, text.as_bytes()).unwrap();
        assert_eq!(history.ancestors().len(), starts as usize);
        let endless = vec![b'#'; MAX_HISTORY + 1];
        assert!(parse_history(timeline, &endless).is_err());
    }
}
