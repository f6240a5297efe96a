//! A standby that breaks the protocol: handshakes with wrong identities, histories and positions, acks beyond what was sent, on other
//! timelines, out of order. The primary refuses or ends the stream, and goes on serving. `towline_base::testing` says how to run it
//! longer and how to repeat a case.
#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code)]
mod cluster;

use std::time::Duration;

use cluster::Primary;
use towline_access::CommitLevel;
use towline_base::testing::{Case, WatchedAllocator, fuzz};
use towline_proto::PROTOCOL_VERSION;
use towline_proto::replication::replication_client::ReplicationClient;
use towline_proto::replication::{
    Ack, BaseBackupRequest, CreateSlotRequest, DropSlotRequest, Handshake, IdentifyResponse, Node,
    StandbyMessage, Timeline, TimelineHistoryRequest, standby_message,
};
use towline_proto::transport::{Secret, ShowSecret, endpoint};

#[global_allocator]
static ALLOCATOR: WatchedAllocator = WatchedAllocator;

/// How long an answer may take: less than a case may.
const PATIENCE: Duration = Duration::from_secs(25);
/// Between two pings of the connection, which is looked at only while a case talks: the pause between two cases is none that breaks it.
const KEEPALIVE: Duration = Duration::from_secs(600);

fn wrong_timeline(case: &mut Case, right: &Option<Timeline>) -> Option<Timeline> {
    let mut timeline = right.clone().unwrap();
    match case.below(4) {
        0 => return None,
        1 => timeline.number = case.border() as u32,
        2 => {
            let count = case.below(20);
            timeline.incarnation = case.bytes(count).into();
        }
        _ => {}
    }
    Some(timeline)
}

fn position(case: &mut Case, end: u64) -> u64 {
    match case.below(4) {
        0 => case.border(),
        1 => end.wrapping_add(case.below(3) as u64).wrapping_sub(1),
        _ => case.below(end as usize) as u64,
    }
}

fn handshake(case: &mut Case, primary: &IdentifyResponse, history: &str) -> Handshake {
    let mut text = history.to_owned();
    if case.one_in(4) {
        case.mutate_text(
            &mut text,
            &["\n", "\t", "0/0", "incarnation=", "1\t0/2000000\tx\n"],
        );
    }
    let mut hello = Handshake {
        protocol_version: PROTOCOL_VERSION,
        system_id: primary.system_id,
        node: Some(Node {
            name: (*case.pick(&["n0", "n1", "n2"])).to_owned(),
            incarnation: case.bytes(16).into(),
        }),
        history: text.into_bytes().into(),
        timeline: primary.timeline.clone(),
        position: primary.flush,
        kept: 0,
        slot: String::new(),
        sync_set_version: 0,
        promise: primary.timeline.clone(),
        instance: case.bytes(16).into(),
    };
    match case.below(9) {
        0 => hello.protocol_version = case.border() as u32,
        1 => hello.system_id = case.border(),
        2 => hello.node = None,
        3 => hello.timeline = wrong_timeline(case, &primary.timeline),
        4 => hello.promise = wrong_timeline(case, &primary.timeline),
        5 => hello.kept = position(case, primary.flush),
        6 => {
            hello.node.as_mut().unwrap().name = (*case.pick(&["", "a/b", "\0", "..", "größe"])).to_owned();
        }
        7 => hello.slot = (*case.pick(&["../x", "", "UPPER", "a b", "\0"])).to_owned(),
        _ => {}
    }
    if case.one_in(2) {
        hello.position = position(case, primary.flush);
    }
    hello
}

fn ack(case: &mut Case, primary: &IdentifyResponse) -> Ack {
    let write = position(case, primary.flush);
    let flush = if case.one_in(3) {
        position(case, primary.flush)
    } else {
        write
    };
    Ack {
        timeline: if case.one_in(4) {
            wrong_timeline(case, &primary.timeline)
        } else {
            primary.timeline.clone()
        },
        write,
        flush,
        apply: if case.one_in(3) {
            position(case, primary.flush)
        } else {
            flush
        },
        read_horizon: if case.one_in(3) {
            position(case, primary.flush)
        } else {
            flush
        },
        oldest_snapshot: case.border(),
        echo_time: case.border() as i64,
        reply_requested: case.one_in(2),
    }
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn a_standby_that_breaks_the_protocol_is_refused_and_the_primary_goes_on() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("");
    primary.commit(CommitLevel::On, PATIENCE).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut client = runtime.block_on(async {
        let endpoint = endpoint(&primary.url(), PATIENCE, KEEPALIVE).unwrap();
        let secret = Secret::parse(cluster::SECRET).unwrap();
        ReplicationClient::with_interceptor(endpoint.connect().await.unwrap(), ShowSecret(secret))
    });
    let history = runtime.block_on(async {
        let number = primary.timeline().number.0;
        let reply = client
            .timeline_history(TimelineHistoryRequest { number })
            .await
            .unwrap();
        String::from_utf8(reply.into_inner().history.to_vec()).unwrap()
    });
    fuzz("replication stream", 100_000, |case| {
        let talk = async {
            let known = client
                .identify(towline_proto::replication::IdentifyRequest {})
                .await
                .unwrap()
                .into_inner();
            match case.below(12) {
                0 => {
                    let name = (*case.pick(&["../../x", "", "a", "UPPER"])).to_owned();
                    let _ = client.create_slot(CreateSlotRequest { name: name.clone() }).await;
                    let _ = client.drop_slot(DropSlotRequest { name }).await;
                }
                1 => {
                    let number = case.border() as u32;
                    let _ = client.timeline_history(TimelineHistoryRequest { number }).await;
                }
                2 => {
                    let request = BaseBackupRequest {
                        node: case.one_in(2).then(Node::default),
                        slot: (*case.pick(&["..", "", "n9"])).to_owned(),
                    };
                    if let Ok(stream) = client.base_backup(request).await {
                        let _ = stream.into_inner().message().await;
                    }
                }
                _ => {
                    let (send, receive) = tokio::sync::mpsc::channel(32);
                    let mut messages = vec![standby_message::Message::Handshake(handshake(
                        case, &known, &history,
                    ))];
                    for _ in 0..case.below(5) {
                        messages.push(standby_message::Message::Ack(ack(case, &known)));
                    }
                    if case.one_in(5) {
                        let other = case.below(messages.len());
                        messages.swap(0, other);
                    }
                    for message in messages {
                        let message = (!case.one_in(30)).then_some(message);
                        send.send(StandbyMessage { message }).await.unwrap();
                    }
                    drop(send);
                    let stream = tokio_stream::wrappers::ReceiverStream::new(receive);
                    if let Ok(answers) = client.start_replication(stream).await {
                        let mut answers = answers.into_inner();
                        while let Ok(Some(_)) = answers.message().await {}
                    }
                }
            }
        };
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, talk).await })
            .expect("the primary does not answer");
        if case.one_in(10) {
            primary
                .commit(CommitLevel::On, PATIENCE)
                .expect("the primary serves");
        }
    });
    primary
        .commit(CommitLevel::On, PATIENCE)
        .expect("the primary serves");
    drop(client);
    primary.stop();
}
