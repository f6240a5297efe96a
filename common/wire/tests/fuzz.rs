//! A client that breaks the protocol: startup packets and messages of wrong types, lengths and order, cut off anywhere. The server answers
//! or ends the connection; it does not panic, hang or take memory by a length that it was told. `towline_base::testing` says how
//! to run it longer and how to repeat a case.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

#[path = "conversation/client.rs"]
mod client;
#[path = "conversation/fake.rs"]
mod fake;

use std::time::Duration;

use client::{Client, extended, message, query, startup, sync};
use fake::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use towline_base::testing::{Case, WatchedAllocator, fuzz};
use towline_wire::hba::Rule;

#[global_allocator]
static ALLOCATOR: WatchedAllocator = WatchedAllocator;

/// Messages of every kind that a client may send, some of them whole conversations.
fn messages() -> Vec<Vec<u8>> {
    let mut bind = b"p\0s\0".to_vec();
    for word in [2u16, 0, 1, 2] {
        bind.extend_from_slice(&word.to_be_bytes());
    }
    bind.extend_from_slice(&3u32.to_be_bytes());
    bind.extend_from_slice(b"abc");
    bind.extend_from_slice(&u32::MAX.to_be_bytes());
    for word in [1u16, 1] {
        bind.extend_from_slice(&word.to_be_bytes());
    }
    let mut parse = b"s\0rows 2\0".to_vec();
    parse.extend_from_slice(&1u16.to_be_bytes());
    parse.extend_from_slice(&23u32.to_be_bytes());
    vec![
        query("rows 2"),
        query("begin"),
        query("copy"),
        query("nonsense; rows 1"),
        extended("rows 3"),
        sync(),
        message(b'P', &parse),
        message(b'B', &bind),
        message(b'D', b"Ss\0"),
        message(b'D', b"Pp\0"),
        message(b'E', b"p\0\0\0\0\x02"),
        message(b'C', b"Ss\0"),
        message(b'H', b""),
        message(b'd', b"1\tx\n"),
        message(b'c', b""),
        message(b'f', b"no more\0"),
        message(b'F', &[0; 12]),
        message(b'p', b"SCRAM-SHA-256\0\0\0\0\x0bn,,n=,r=abc"),
        message(b'X', b""),
        message(b'!', b"what"),
    ]
}

/// Changes one message: its body with the length right, or anything.
fn change(case: &mut Case, bytes: &mut Vec<u8>) {
    if bytes.len() >= 5 && case.one_in(2) {
        let (kind, mut body) = (bytes[0], bytes[5..].to_vec());
        case.mutate(&mut body);
        *bytes = message(kind, &body);
    } else if bytes.len() >= 5 && case.one_in(3) {
        let length = case.border() as u32;
        bytes[1..5].copy_from_slice(&length.to_be_bytes());
    } else {
        case.mutate(bytes);
    }
}

fn conversation(case: &mut Case, messages: &[Vec<u8>]) -> Vec<u8> {
    let user: &str = case.pick::<&str>(&["postgres", "bob", "nobody"]);
    let mut all = startup(user, "postgres");
    match case.below(6) {
        0 => case.mutate(&mut all),
        1 => {
            let word = if case.one_in(2) { 0 } else { 4 };
            let value = case.border() as u32;
            all[word..word + 4].copy_from_slice(&value.to_be_bytes());
        }
        2 => {
            // A request for encryption, a cancel request, a version of the future.
            let code = *case.pick(&[80_877_103u32, 80_877_104, 80_877_102, 0x30001, 0x20000]);
            let mut first = 8u32.to_be_bytes().to_vec();
            first.extend_from_slice(&code.to_be_bytes());
            first.extend(all);
            all = first;
        }
        _ => {}
    }
    for _ in 0..case.below(12) {
        let mut bytes = case.pick(messages).clone();
        if case.one_in(2) {
            change(case, &mut bytes);
        }
        all.extend(bytes);
    }
    if case.one_in(4) {
        let end = case.below(all.len() + 1);
        all.truncate(end);
    }
    all
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn a_client_that_breaks_the_protocol_is_answered_or_sent_away() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let messages = messages();
    fuzz("protocol", 100_000, |case| {
        let bytes = conversation(case, &messages);
        let rules = if case.one_in(4) {
            vec![Rule::parse("host", "all", "all", "all", "scram-sha-256").unwrap()]
        } else {
            Rule::loopback_trust()
        };
        let pieces = 1 + case.below(3);
        runtime.block_on(async {
            let (world, publisher) = World::new(3);
            let client = Client::dial(&world, rules, 1 << 20);
            let (mut reading, mut writing) = tokio::io::split(client.io);
            let send = async move {
                for piece in bytes.chunks(bytes.len().div_ceil(pieces).max(1)) {
                    // The server may have gone.
                    if writing.write_all(piece).await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                let _ = writing.shutdown().await;
            };
            let mut answer = Vec::new();
            let receive = reading.read_to_end(&mut answer);
            let all = async { tokio::join!(send, receive, client.server) };
            let (_, _, end) = tokio::time::timeout(Duration::from_secs(25), all)
                .await
                .expect("the server does not end");
            end.expect("the connection's task has panicked");
            drop(publisher);
        });
    });
}
