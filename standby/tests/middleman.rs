//! Somebody between a primary and its standby who changes what passes: places, lengths, order, timelines, checksums, quorums, handshakes
//! and acks. The side that is lied to ends the stream with a reason, keeps its data, connects again and goes on from what is durable.
#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code)]
mod cluster;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::{PATIENCE, Primary, Standby, eventually};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use towline_access::CommitLevel;
use towline_base::{Incarnation, Lsn, NodeId};
use towline_proto::replication as pb;
use towline_proto::replication::primary_message::Message as Told;
use towline_proto::replication::replication_client::ReplicationClient;
use towline_proto::replication::replication_server::{Replication, ReplicationServer};
use towline_proto::replication::standby_message::Message as Said;
use towline_proto::replication::{Ack, HandshakeReply, PrimaryMessage, StandbyMessage, Timeline, WalData};
use towline_proto::transport::{self, Secret, ShowSecret};
use towline_standby::{CloneRequest, StandbyEnd, clone_database};

/// Between two pings of a connection: a machine that stalls is not taken for a line that is cut.
const KEEPALIVE: Duration = Duration::from_secs(600);
/// How long the answer to a handshake is held back: longer than any pause between acks.
const SLOW: Duration = Duration::from_millis(500);

/// What becomes of a message.
enum Passed {
    /// It passes as it is.
    Same,
    /// These pass instead of it.
    Instead(Vec<PrimaryMessage>),
    /// The same, and no later message is changed.
    Last(Vec<PrimaryMessage>),
}

type Change = Box<dyn FnMut(&PrimaryMessage) -> Passed + Send>;
type AckChange = Box<dyn Fn(&mut StandbyMessage) + Send>;

struct Line {
    upstream: String,
    change: Mutex<Option<Change>>,
    ack_change: Mutex<Option<AckChange>>,
    /// Streams that begin wait for as long as it is true.
    held: watch::Sender<bool>,
    /// Ends the streams of now.
    cut: Mutex<CancellationToken>,
    slow_reply: AtomicBool,
    /// Acks that came before the answer to the handshake had left.
    early_acks: AtomicU64,
    /// Acks wait here for as long as it is true.
    acks_held: watch::Sender<bool>,
    /// The primary does not learn that a stream has ended on the standby's side: nothing passes any more, and nothing is closed.
    half_dead: AtomicBool,
    /// Base backups stop after their first messages, and stay open.
    backups_stall: AtomicBool,
}

impl Line {
    async fn client(&self) -> Result<ReplicationClient<InterceptedService<Channel, ShowSecret>>, Status> {
        let failed = |error: tonic::transport::Error| Status::unavailable(error.to_string());
        let endpoint = transport::endpoint(&self.upstream, PATIENCE, KEEPALIVE).map_err(failed)?;
        let channel = endpoint.connect().await.map_err(failed)?;
        let secret = Secret::parse(cluster::SECRET).unwrap();
        Ok(ReplicationClient::with_interceptor(channel, ShowSecret(secret))
            .max_decoding_message_size(transport::MESSAGE_LIMIT))
    }

    /// When a stream ends on the standby's side, this is what is left of it on the primary's.
    async fn half_dead(&self, mut answers: Streaming<PrimaryMessage>) {
        if self.half_dead.load(Ordering::SeqCst) {
            while let Ok(Some(_)) = answers.message().await {}
        }
    }

    fn changed(&self, message: PrimaryMessage) -> Vec<PrimaryMessage> {
        let mut change = self.change.lock();
        let passed = change.as_mut().map_or(Passed::Same, |change| change(&message));
        match passed {
            Passed::Same => vec![message],
            Passed::Instead(others) => others,
            Passed::Last(others) => {
                *change = None;
                self.held.send_replace(true);
                others
            }
        }
    }

    fn changed_ack(&self, mut message: StandbyMessage) -> StandbyMessage {
        if matches!(message.message, Some(Said::Ack(_)))
            && let Some(change) = self.ack_change.lock().take()
        {
            self.held.send_replace(true);
            change(&mut message);
        }
        message
    }
}

#[derive(Clone)]
struct Service(Arc<Line>);

#[tonic::async_trait]
impl Replication for Service {
    type StartReplicationStream = ReceiverStream<Result<PrimaryMessage, Status>>;
    type BaseBackupStream = ReceiverStream<Result<pb::BackupMessage, Status>>;

    async fn start_replication(
        &self,
        request: Request<Streaming<StandbyMessage>>,
    ) -> Result<Response<Self::StartReplicationStream>, Status> {
        let line = Arc::clone(&self.0);
        let mut held = line.held.subscribe();
        let _released = held.wait_for(|held| !*held).await.is_ok();
        let cut = line.cut.lock().clone();
        let mut inbound = request.into_inner();
        let (to_primary, for_primary) = mpsc::channel(4);
        let acks = Arc::new(AtomicU64::new(0));
        let (upward, upward_cut, seen) = (Arc::clone(&line), cut.clone(), Arc::clone(&acks));
        tokio::spawn(async move {
            let mut acks_held = upward.acks_held.subscribe();
            loop {
                let message = tokio::select! {
                    () = upward_cut.cancelled() => break,
                    message = inbound.message() => message,
                };
                let Ok(Some(message)) = message else { break };
                if matches!(message.message, Some(Said::Ack(_))) {
                    seen.fetch_add(1, Ordering::SeqCst);
                    let _released = acks_held.wait_for(|held| !*held).await.is_ok();
                }
                if to_primary.send(upward.changed_ack(message)).await.is_err() {
                    return;
                }
            }
            if upward.half_dead.load(Ordering::SeqCst) {
                to_primary.closed().await;
            }
        });
        let mut client = line.client().await?;
        let answers = client.start_replication(ReceiverStream::new(for_primary)).await?;
        let mut answers = answers.into_inner();
        let (to_standby, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    () = cut.cancelled() => Err(Status::unavailable("the line is cut")),
                    message = answers.message() => message,
                };
                let message = match message {
                    Ok(Some(message)) => message,
                    Ok(None) => return,
                    Err(status) => {
                        let _ = to_standby.send(Err(status)).await;
                        drop(to_standby);
                        return line.half_dead(answers).await;
                    }
                };
                if matches!(message.message, Some(Told::Handshake(_)))
                    && line.slow_reply.load(Ordering::SeqCst)
                {
                    tokio::time::sleep(SLOW).await;
                    line.early_acks
                        .fetch_add(acks.load(Ordering::SeqCst), Ordering::SeqCst);
                }
                for message in line.changed(message) {
                    if to_standby.send(Ok(message)).await.is_err() {
                        return line.half_dead(answers).await;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn base_backup(
        &self,
        request: Request<pb::BaseBackupRequest>,
    ) -> Result<Response<Self::BaseBackupStream>, Status> {
        let line = Arc::clone(&self.0);
        let copied = line.client().await?.base_backup(request.into_inner()).await?;
        let mut copied = copied.into_inner();
        let (to_standby, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            for passed in 0.. {
                if passed == 3 && line.backups_stall.load(Ordering::SeqCst) {
                    return to_standby.closed().await;
                }
                let Some(message) = copied.message().await.transpose() else {
                    return;
                };
                if to_standby.send(message).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn identify(
        &self,
        _: Request<pb::IdentifyRequest>,
    ) -> Result<Response<pb::IdentifyResponse>, Status> {
        Err(Status::unimplemented("identify"))
    }

    async fn timeline_history(
        &self,
        _: Request<pb::TimelineHistoryRequest>,
    ) -> Result<Response<pb::TimelineHistoryResponse>, Status> {
        Err(Status::unimplemented("timeline history"))
    }

    async fn create_slot(
        &self,
        _: Request<pb::CreateSlotRequest>,
    ) -> Result<Response<pb::CreateSlotResponse>, Status> {
        Err(Status::unimplemented("create slot"))
    }

    async fn drop_slot(
        &self,
        _: Request<pb::DropSlotRequest>,
    ) -> Result<Response<pb::DropSlotResponse>, Status> {
        Err(Status::unimplemented("drop slot"))
    }
}

/// A primary and a standby with somebody between them.
struct Rig {
    primary: Primary,
    standby: Standby,
    line: Arc<Line>,
    url: String,
    runtime: Runtime,
}

impl Rig {
    fn new(names: &str) -> Rig {
        let primary = Primary::init(names);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let line = Arc::new(Line {
            upstream: primary.url(),
            change: Mutex::default(),
            ack_change: Mutex::default(),
            held: watch::Sender::new(false),
            cut: Mutex::default(),
            slow_reply: AtomicBool::new(false),
            early_acks: AtomicU64::new(0),
            acks_held: watch::Sender::new(false),
            half_dead: AtomicBool::new(false),
            backups_stall: AtomicBool::new(false),
        });
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)))
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = ReplicationServer::new(Service(Arc::clone(&line)))
            .max_decoding_message_size(transport::MESSAGE_LIMIT)
            .max_encoding_message_size(transport::MESSAGE_LIMIT);
        runtime.spawn(
            transport::server(KEEPALIVE)
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let standby = Standby::empty_at("s1", &url);
        let rig = Rig {
            primary,
            standby,
            line,
            url,
            runtime,
        };
        rig.must_flow("at first");
        rig
    }

    /// A commit is released and shown by the standby.
    fn must_flow(&self, when: &str) {
        let lsn = self.primary.commit(CommitLevel::On, PATIENCE).expect(when);
        eventually(when, || self.standby.horizon() >= lsn);
    }

    /// The same with another primary at the same address. No stream is open, and none begins meanwhile.
    fn with_primary(self, change: impl FnOnce(Primary) -> Primary) -> Rig {
        self.line.held.send_replace(true);
        self.cut();
        self.primary.wait_gone("s1");
        Rig {
            primary: change(self.primary),
            ..self
        }
    }

    /// Ends the streams; those that follow are new.
    fn cut(&self) {
        std::mem::take(&mut *self.line.cut.lock()).cancel();
    }

    /// Commits go on until the standby says one of these.
    fn until_it_says(&self, case: &str, reasons: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.primary.commit_later(CommitLevel::On);
            let trouble = self.standby.view().trouble();
            if let Some(trouble) = &trouble
                && reasons.iter().any(|reason| trouble.contains(reason))
            {
                break;
            }
            assert!(Instant::now() < deadline, "{case}: {trouble:?}, not {reasons:?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        assert_eq!(self.standby.view().ended(), None, "{case}");
        assert!(
            self.standby.horizon() <= self.standby.view().last_receive_lsn(),
            "{case}"
        );
        self.line.held.send_replace(false);
        self.must_flow(case);
        assert_eq!(self.standby.view().trouble(), None, "{case}");
    }

    fn stop(self) {
        self.primary.stop();
        self.standby.stop();
    }
}

fn told(message: Told) -> PrimaryMessage {
    PrimaryMessage {
        message: Some(message),
    }
}

/// Changes the next message with WAL.
fn wal(change: impl Fn(&mut WalData) + Send + 'static) -> Change {
    Box::new(move |message| match &message.message {
        Some(Told::Wal(wal)) => {
            let mut wal = wal.clone();
            change(&mut wal);
            Passed::Last(vec![told(Told::Wal(wal))])
        }
        _ => Passed::Same,
    })
}

/// The next message with WAL passes as these.
fn instead_of_wal(others: impl Fn(WalData) -> Vec<PrimaryMessage> + Send + 'static) -> Change {
    Box::new(move |message| match &message.message {
        Some(Told::Wal(wal)) => Passed::Last(others(wal.clone())),
        _ => Passed::Same,
    })
}

/// Changes the answer to the next handshake.
fn reply(change: impl Fn(&mut HandshakeReply) + Send + 'static) -> Change {
    Box::new(move |message| match &message.message {
        Some(Told::Handshake(reply)) => {
            let mut reply = reply.clone();
            change(&mut reply);
            Passed::Last(vec![told(Told::Handshake(reply))])
        }
        _ => Passed::Same,
    })
}

/// The next two messages with WAL change places.
fn swapped() -> Change {
    let mut first = None;
    Box::new(move |message| match (&message.message, first.take()) {
        (Some(Told::Wal(_)), None) => {
            first = Some(message.clone());
            Passed::Instead(Vec::new())
        }
        (Some(Told::Wal(_)), Some(earlier)) => Passed::Last(vec![message.clone(), earlier]),
        (_, earlier) => {
            first = earlier;
            Passed::Same
        }
    })
}

fn shortened(wal: &mut WalData) {
    wal.data = wal.data.slice(..wal.data.len() - 8);
}

fn flipped(wal: &mut WalData) {
    let mut bytes = wal.data.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    wal.data = bytes.into();
}

fn progress(wal: &mut WalData) -> &mut pb::Progress {
    wal.progress.as_mut().unwrap()
}

fn other(timeline: &mut Option<Timeline>) {
    timeline.as_mut().unwrap().incarnation = Bytes::from_static(&[7; 16]);
}

fn numbered(timeline: &mut Option<Timeline>, number: u32) {
    timeline.as_mut().unwrap().number = number;
}

#[test]
fn wal_that_was_changed_on_its_way_ends_the_stream_and_nothing_of_it_is_kept() {
    let _turn = cluster::turn_without_failpoints();
    let rig = Rig::new("ANY 1 (*)");
    let place = &["comes next"][..];
    let cases: Vec<(&str, Change, &[&str])> = vec![
        ("a higher place", wal(|wal| wal.start += 8), place),
        ("a lower place", wal(|wal| wal.start -= 8), place),
        ("the last place", wal(|wal| wal.start = u64::MAX), place),
        ("cut short", wal(shortened), &["checksum"]),
        (
            "cut short, with its checksum",
            wal(|wal| {
                shortened(wal);
                wal.crc = crc32c::crc32c(&wal.data);
            }),
            place,
        ),
        (
            "extended",
            wal(|wal| wal.data = [&wal.data[..], &[0; 8]].concat().into()),
            &["checksum"],
        ),
        ("flipped", wal(flipped), &["checksum"]),
        ("another checksum", wal(|wal| wal.crc ^= 1), &["checksum"]),
        (
            "twice",
            instead_of_wal(|wal| vec![told(Told::Wal(wal.clone())), told(Told::Wal(wal))]),
            place,
        ),
        ("lost", instead_of_wal(|_| Vec::new()), place),
        ("out of order", swapped(), place),
        (
            "a higher timeline",
            wal(|wal| numbered(&mut wal.timeline, 99)),
            place,
        ),
        ("timeline 0", wal(|wal| numbered(&mut wal.timeline, 0)), place),
        ("another timeline", wal(|wal| other(&mut wal.timeline)), place),
        (
            "no timeline",
            wal(|wal| wal.timeline = None),
            &["WAL without timeline"],
        ),
        (
            "no progress",
            wal(|wal| wal.progress = None),
            &["without progress"],
        ),
        (
            "progress of another timeline",
            wal(|wal| other(&mut progress(wal).timeline)),
            &["progress of another timeline"],
        ),
        (
            "a quorum beyond the log",
            wal(|wal| progress(wal).quorum = progress(wal).insert + 8),
            &["a quorum beyond the end of the log"],
        ),
        (
            "a log that ends before what was sent",
            wal(|wal| {
                progress(wal).insert = wal.start;
                progress(wal).quorum = 0;
            }),
            &["WAL beyond the end of the log", "a quorum that falls"],
        ),
        (
            "no message",
            instead_of_wal(|_| vec![PrimaryMessage { message: None }]),
            &["unexpected message"],
        ),
        (
            "a second handshake",
            instead_of_wal(|_| vec![told(Told::Handshake(HandshakeReply::default()))]),
            &["unexpected message"],
        ),
        // The last one: the standby believes this quorum from now on, and still shows no more than it has made durable.
        (
            "a quorum beyond what the standby has",
            wal(|wal| {
                let progress = progress(wal);
                progress.insert += 1 << 20;
                progress.quorum = progress.insert;
            }),
            &["a quorum that falls"],
        ),
    ];
    for (case, change, reasons) in cases {
        *rig.line.change.lock() = Some(change);
        rig.until_it_says(case, reasons);
    }
    rig.stop();
}

#[test]
fn a_handshake_that_was_changed_on_its_way_cuts_nothing() {
    let _turn = cluster::turn_without_failpoints();
    let rig = Rig::new("ANY 1 (*)");
    let place = &["does not go on"][..];
    let cases: Vec<(&str, Change, &[&str])> = vec![
        ("a higher start", reply(|reply| reply.start += 8), place),
        ("a lower start", reply(|reply| reply.start -= 8), place),
        ("the first start", reply(|reply| reply.start = 0), place),
        (
            "no timeline",
            reply(|reply| reply.timeline = None),
            &["without timeline"],
        ),
        (
            "another timeline",
            reply(|reply| other(&mut reply.timeline)),
            &["not that of its timeline"],
        ),
        (
            "another first timeline",
            reply(|reply| other(&mut reply.start_timeline)),
            &["first timeline"],
        ),
        (
            "no first timeline",
            reply(|reply| reply.start_timeline = None),
            &["first timeline"],
        ),
        (
            "a garbled history",
            reply(|reply| reply.history = Bytes::from_static(b"1\tx\n")),
            &["history"],
        ),
        (
            "segments of another size",
            reply(|reply| reply.segment_size *= 2),
            &["segments of another size"],
        ),
        (
            "no answer",
            Box::new(|message| match &message.message {
                Some(Told::Handshake(_)) => Passed::Last(vec![PrimaryMessage { message: None }]),
                // Of the stream that is about to be cut.
                _ => Passed::Same,
            }),
            &["did not answer the handshake"],
        ),
    ];
    for (case, change, reasons) in cases {
        let before = rig.standby.view().last_receive_lsn();
        *rig.line.change.lock() = Some(change);
        rig.cut();
        rig.until_it_says(case, reasons);
        assert!(rig.standby.view().last_receive_lsn() >= before, "{case}");
    }
    rig.stop();
}

#[test]
fn acks_that_claim_more_than_can_be_end_the_stream_with_an_error() {
    let _turn = cluster::turn_without_failpoints();
    let rig = Rig::new("ANY 1 (*)");
    let order = &["not in order"][..];
    let ack = |change: fn(&mut Ack)| -> AckChange {
        Box::new(move |message| {
            if let Some(Said::Ack(ack)) = &mut message.message {
                change(ack);
            }
        })
    };
    let cases: Vec<(&str, AckChange, &[&str])> = vec![
        ("flush beyond write", ack(|ack| ack.flush = ack.write + 8), order),
        (
            "write beyond what was sent",
            ack(|ack| ack.write += 1 << 30),
            order,
        ),
        ("apply beyond flush", ack(|ack| ack.apply = ack.flush + 8), order),
        (
            "a read horizon beyond flush",
            ack(|ack| ack.read_horizon = ack.flush + 8),
            order,
        ),
        ("the last position", ack(|ack| ack.apply = u64::MAX), order),
        (
            "no timeline",
            ack(|ack| ack.timeline = None),
            &["ack without timeline"],
        ),
        (
            "no message",
            Box::new(|message| message.message = None),
            &["only acks may follow"],
        ),
    ];
    for (case, change, reasons) in cases {
        *rig.line.ack_change.lock() = Some(change);
        rig.until_it_says(case, reasons);
    }
    rig.stop();
}

/// It followed a primary that lacked what it only knew a quorum to have, and showed what that one wrote in its place before any quorum had
/// that.
#[test]
fn a_standby_that_lags_does_not_follow_a_primary_that_lacks_what_a_quorum_is_known_to_have() {
    let _turn = cluster::turn_without_failpoints();
    let rig = Rig::new("");
    let mut old = None;
    let rig = rig.with_primary(|primary| {
        for _ in 0..3 {
            primary.switch_segment();
            primary.commit(CommitLevel::On, PATIENCE).expect("needs nobody");
        }
        let files = primary.stop();
        old = Some(files.copy());
        let primary = Primary::start("", files);
        primary.commit(CommitLevel::On, PATIENCE).expect("needs nobody");
        primary
    });
    // The first bytes arrive alone, and with them how far the quorum is: beyond where the copy leaves this history.
    let before = rig.standby.view().last_receive_lsn();
    let mut passed = false;
    let only_the_first: Change = Box::new(move |message: &PrimaryMessage| match &message.message {
        Some(Told::Handshake(_)) => Passed::Same,
        Some(Told::Wal(_)) if !std::mem::replace(&mut passed, true) => Passed::Same,
        _ => Passed::Instead(Vec::new()),
    });
    *rig.line.change.lock() = Some(only_the_first);
    rig.line.held.send_replace(false);
    eventually("the first bytes", || {
        rig.standby.view().last_receive_lsn() > before
    });
    let mut newest = None;
    let rig = rig.with_primary(|primary| {
        newest = Some(primary.stop());
        // The first start of the copy opens a timeline of the same number, the next one a higher one, which may be followed.
        let primary = Primary::start("", old.take().unwrap());
        Primary::start("", primary.stop())
    });
    *rig.line.change.lock() = None;
    let has = rig.standby.view().last_receive_lsn();
    rig.line.held.send_replace(false);
    eventually("it is refused", || {
        let trouble = rig.standby.view().trouble();
        trouble.is_some_and(|trouble| trouble.contains("lacks what"))
    });
    assert_eq!(rig.standby.view().ended(), None);
    assert_eq!(rig.standby.view().last_receive_lsn(), has);
    let rig = rig.with_primary(|primary| {
        primary.stop();
        Primary::start("", newest.take().unwrap())
    });
    rig.line.held.send_replace(false);
    rig.must_flow("on the newest data");
    rig.stop();
}

/// Until its log stands where the stream begins it may be longer: the primary took such an ack for a lie and ended the stream.
#[test]
fn no_ack_is_sent_before_the_handshake_is_answered() {
    let _turn = cluster::turn_without_failpoints();
    let rig = Rig::new("");
    rig.line.slow_reply.store(true, Ordering::SeqCst);
    rig.cut();
    eventually("a new stream", || rig.primary.view().replication().len() == 1);
    rig.must_flow("after a slow answer");
    assert_eq!(rig.line.early_acks.load(Ordering::SeqCst), 0);
    rig.stop();
}

#[test]
fn a_stream_that_breaks_again_and_again_leaves_nothing_behind() {
    let _turn = cluster::turn_without_failpoints();
    let rig = Rig::new("FIRST 1 (s1)");
    // More often than there are places for walsenders.
    for _ in 0..15 {
        rig.cut();
        rig.must_flow("after a break");
    }
    eventually("the old streams are gone", || {
        let rows = rig.primary.view().replication();
        rows.len() == 1 && rows[0].sync_state == "sync"
    });
    assert_eq!(rig.primary.view().missing(), None);
    assert_eq!(rig.primary.view().slots().len(), 1);
    rig.stop();
}

/// With a checksum of its own, a changed byte reaches the log: its record's checksum tells.
#[test]
fn a_record_that_is_damaged_all_the_way_from_the_primary_is_not_applied() {
    let _turn = cluster::turn_without_failpoints();
    let rig = Rig::new("");
    let before = rig.standby.horizon();
    *rig.line.change.lock() = Some(wal(|wal| {
        flipped(wal);
        wal.crc = crc32c::crc32c(&wal.data);
    }));
    let lsn: Lsn = rig
        .primary
        .commit(CommitLevel::On, PATIENCE)
        .expect("needs nobody");
    eventually("the standby ends", || rig.standby.view().ended().is_some());
    let ended = rig.standby.view().ended();
    assert!(
        matches!(&ended, Some(StandbyEnd::Failed(why)) if why.contains("damaged")),
        "{ended:?}"
    );
    assert!(rig.standby.horizon() >= before && rig.standby.horizon() < lsn);
    rig.stop();
}

/// The same process comes back at once, whatever the primary thinks of its earlier stream. Another one with its identity might be a copy of a
/// directory that is in use: it waits, for wal_sender_timeout at most.
#[test]
fn a_standby_whose_earlier_stream_is_half_dead_gets_in() {
    let _turn = cluster::turn_without_failpoints();
    let rig = Rig::new("");
    rig.line.half_dead.store(true, Ordering::SeqCst);
    rig.cut();
    rig.must_flow("by the same process, long before wal_sender_timeout");
    let Rig {
        primary,
        standby,
        line,
        url,
        runtime,
    } = rig;
    let files = standby.stop();
    assert_eq!(
        primary.only_stream().state,
        "streaming",
        "the primary has noticed nothing"
    );
    let standby = Standby::start_at(&url, files);
    eventually("it is told who is there", || {
        let trouble = standby.view().trouble();
        trouble.is_some_and(|trouble| trouble.contains("streams already, from 127.0.0.1:"))
    });
    assert_eq!(primary.only_stream().state, "streaming");
    primary.set("wal_sender_timeout", "1s");
    let rig = Rig {
        primary,
        standby,
        line,
        url,
        runtime,
    };
    rig.must_flow("after wal_sender_timeout");
    rig.line.half_dead.store(false, Ordering::SeqCst);
    rig.stop();
}

/// Every handshake was progress: a standby that was refused right behind it came back ten times a second, for ever.
#[test]
fn pauses_grow_when_streams_end_right_behind_their_handshakes() {
    let _turn = cluster::turn_without_failpoints();
    let rig = Rig::new("");
    rig.standby.set("wal_retrieve_retry_interval", "5s");
    let handshakes = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&handshakes);
    *rig.line.change.lock() = Some(Box::new(move |message| match &message.message {
        Some(Told::Handshake(_)) => {
            seen.fetch_add(1, Ordering::SeqCst);
            let reason = "not now".to_owned();
            Passed::Instead(vec![message.clone(), told(Told::Goodbye(pb::Goodbye { reason }))])
        }
        _ => Passed::Same,
    }));
    let begun = Instant::now();
    rig.cut();
    eventually("five streams end", || handshakes.load(Ordering::SeqCst) >= 5);
    // The pauses before them are at least half of 100, 200, 400, 800 and 1600 ms.
    assert!(
        begun.elapsed() >= Duration::from_millis(1550),
        "{:?}",
        begun.elapsed()
    );
    *rig.line.change.lock() = None;
    rig.must_flow("when streams last");
    rig.stop();
}

/// Pings were answered, and the copy never went on: the standby waited for it for ever.
#[test]
fn a_base_backup_that_stands_still_is_given_up_and_says_why() {
    let _turn = cluster::turn_without_failpoints();
    let rig = Rig::new("");
    rig.line.backups_stall.store(true, Ordering::SeqCst);
    let dir = tempfile::tempdir().unwrap();
    let vfs = towline_base::OsVfs::shared();
    let request = CloneRequest {
        upstream: rig.url.clone(),
        secret: Secret::parse(cluster::SECRET).unwrap(),
        node: NodeId {
            name: "s2".to_owned(),
            incarnation: Incarnation([2; 16]),
        },
        slot: String::new(),
        data_dir: dir.path().to_owned(),
        timeout: Some(Duration::from_secs(1)),
    };
    let copied = rig.runtime.block_on(async {
        let copying = clone_database(&vfs, &request, |_| ());
        tokio::time::timeout(PATIENCE, copying).await
    });
    let failed = copied.expect("it waits for ever").unwrap_err().to_string();
    assert!(failed.contains("wal_receiver_timeout"), "{failed}");
    assert!(towline_standby::needs_clone(&*vfs, dir.path()).unwrap());
    // The primary's half of it ends too.
    rig.primary.only_stream();
    rig.line.backups_stall.store(false, Ordering::SeqCst);
    let request = CloneRequest {
        timeout: Some(PATIENCE),
        ..request
    };
    towline_standby::wipe(&*vfs, dir.path()).unwrap();
    rig.runtime
        .block_on(clone_database(&vfs, &request, |_| ()))
        .unwrap();
    rig.stop();
}

/// The first of two required standbys that had the end of the log was let go: the quorum never came about, and neither showed the end.
#[test]
fn a_stop_keeps_every_standby_until_the_quorum_has_the_end_of_the_log() {
    let _turn = cluster::turn_without_failpoints();
    let rig = Rig::new("");
    let near = Standby::empty("s2", &rig.primary);
    rig.primary.set_names("ANY 2 (*)");
    rig.must_flow("with both");
    rig.line.acks_held.send_replace(true);
    let lsn = rig.primary.commit_later(CommitLevel::On);
    eventually("all but one are known to have it", || {
        rig.primary.flush() >= lsn && near.view().last_receive_lsn() >= lsn
    });
    let line = Arc::clone(&rig.line);
    rig.primary.stop_without_checkpoint(|view| {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(500) {
            let rows = view.replication();
            assert!(
                rows.iter().any(|row| row.application_name == "s2"),
                "it was let go: {rows:?}"
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
        line.acks_held.send_replace(false);
    });
    eventually("both show the end", || {
        near.horizon() >= lsn && rig.standby.horizon() >= lsn
    });
    near.stop();
    rig.standby.stop();
}
