//! The connection loop against a scripted session over an in-memory stream.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod client;
mod fake;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use client::{Client, error_code, extended, kinds, message, query, startup, sync};
use fake::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use towline_access::session::Interrupt;
use towline_base::Lsn;
use towline_wire::connection::End;
use towline_wire::hba::Rule;
use towline_wire::{Server, ServerConfig, Stop};

/// How long something may take that is sure to come: a machine that does other things may stand still for
/// long.
const PATIENCE: Duration = Duration::from_secs(60);

fn world() -> Arc<World> {
    let (world, publisher) = World::new(3);
    // Dropping the publisher would end the waits.
    std::mem::forget(publisher);
    world
}

async fn ask(client: &mut Client, text: &str) -> Vec<(u8, Vec<u8>)> {
    client.send(&query(text)).await;
    client.until(b'Z').await
}

#[tokio::test]
async fn encryption_requests_are_declined_and_the_session_opens() {
    let mut client = Client::dial(&world(), Rule::loopback_trust(), 4096);
    for code in [80_877_103u32, 80_877_104] {
        client
            .send(&[8u32.to_be_bytes(), code.to_be_bytes()].concat())
            .await;
        assert_eq!(client.io.read_u8().await.unwrap(), b'N');
    }
    client.send(&startup("postgres", "postgres")).await;
    assert_eq!(kinds(&client.until(b'Z').await), "RSKZ");
}

/// The version was told without its major number, 0.0: newer clients took that for a downgrade and left.
#[tokio::test]
async fn a_newer_client_is_told_the_newest_version_and_the_options_not_understood() {
    let mut client = Client::dial(&world(), Rule::loopback_trust(), 4096);
    let mut packet = startup("postgres", "postgres");
    packet[4..8].copy_from_slice(&0x0003_0002u32.to_be_bytes());
    packet.truncate(packet.len() - 1);
    packet.extend(b"_pq_.x\x001\0\0");
    let length = packet.len() as u32;
    packet[..4].copy_from_slice(&length.to_be_bytes());
    client.send(&packet).await;
    let answer = client.until(b'Z').await;
    assert_eq!(kinds(&answer), "vRSKZ");
    assert_eq!(answer[0].1, b"\0\x03\0\0\0\0\0\x01_pq_.x\0");
}

#[tokio::test]
async fn wrong_logins_get_postgresqls_codes() {
    let reject = || vec![Rule::parse("host", "all", "all", "all", "reject").unwrap()];
    for (rules, user, database, code) in [
        (Rule::loopback_trust(), "nobody", "postgres", "28000"),
        (Rule::loopback_trust(), "group", "postgres", "28000"),
        (Rule::loopback_trust(), "postgres", "other", "3D000"),
        (Rule::loopback_trust(), "", "postgres", "28000"),
        (reject(), "postgres", "postgres", "28000"),
        (Vec::new(), "postgres", "postgres", "28000"),
    ] {
        let mut client = Client::dial(&world(), rules, 4096);
        client.send(&startup(user, database)).await;
        let answer = client.until(b'Z').await;
        assert_eq!(error_code(&answer), code, "{user} {database}");
        assert!(matches!(client.server.await.unwrap(), End::Fatal(_)));
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_look_alike() {
    let rules = || vec![Rule::parse("host", "all", "all", "all", "scram-sha-256").unwrap()];
    for user in ["postgres", "nobody"] {
        let mut client = Client::dial(&world(), rules(), 4096);
        client.send(&startup(user, "postgres")).await;
        let (kind, body) = client.read().await.unwrap();
        assert_eq!((kind, &body[4..]), (b'R', &b"SCRAM-SHA-256\0\0"[..]));
        let first = b"n,,n=,r=abc";
        let mut initial = b"SCRAM-SHA-256\0".to_vec();
        initial.extend_from_slice(&(first.len() as u32).to_be_bytes());
        initial.extend_from_slice(first);
        client.send(&message(b'p', &initial)).await;
        let (kind, body) = client.read().await.unwrap();
        assert_eq!((kind, body[3]), (b'R', 11));
        let nonce = String::from_utf8(body[4..].to_vec()).unwrap();
        let nonce = nonce.split(',').next().unwrap().to_owned();
        let proof = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        client
            .send(&message(b'p', format!("c=biws,{nonce},p={proof}").as_bytes()))
            .await;
        assert_eq!(error_code(&client.until(b'Z').await), "28P01", "{user}");
    }
}

#[tokio::test]
async fn too_many_clients_are_told_so_and_a_place_is_kept_for_superusers() {
    let world = world();
    let _first = Client::connect(&world).await;
    let _second = Client::connect(&world).await;
    for (user, code) in [
        ("bob", Some("53300")),
        ("postgres", None),
        ("postgres", Some("53300")),
    ] {
        let mut client = Client::dial(&world, Rule::loopback_trust(), 4096);
        client.send(&startup(user, "postgres")).await;
        let answer = client.until(b'Z').await;
        match code {
            Some(code) => assert_eq!(error_code(&answer), code),
            None => {
                assert_eq!(kinds(&answer), "RSKZ");
                std::mem::forget(client);
            }
        }
    }
}

#[tokio::test]
async fn a_pipeline_is_answered_with_one_write() {
    let world = world();
    let mut client = Client::connect(&world).await;
    let before = client.writes.load(Ordering::SeqCst);
    let mut bytes = Vec::new();
    for _ in 0..3 {
        bytes.extend(extended("rows 2"));
        bytes.extend(sync());
    }
    client.send(&bytes).await;
    for _ in 0..3 {
        assert_eq!(kinds(&client.until(b'Z').await), "12DDCZ");
    }
    assert_eq!(client.writes.load(Ordering::SeqCst) - before, 1);
}

#[tokio::test]
async fn after_an_error_everything_up_to_sync_is_skipped() {
    let world = world();
    let mut client = Client::connect(&world).await;
    let mut bytes = extended("oops");
    bytes.extend(extended("rows 1"));
    bytes.extend(sync());
    bytes.extend(extended("rows 1"));
    bytes.extend(sync());
    client.send(&bytes).await;
    assert_eq!(kinds(&client.until(b'Z').await), "12EZ");
    assert_eq!(kinds(&client.until(b'Z').await), "12DCZ");
}

#[tokio::test]
async fn a_broken_message_fails_its_group_and_not_the_connection() {
    let world = world();
    let mut client = Client::connect(&world).await;
    ask(&mut client, "begin").await;
    let mut bytes = message(b'P', b"no terminator");
    bytes.extend(sync());
    client.send(&bytes).await;
    let answer = client.until(b'Z').await;
    assert_eq!(error_code(&answer), "08P01");
    assert_eq!(answer.last().unwrap().1, b"E");
    assert_eq!(kinds(&ask(&mut client, "rollback").await), "CZ");
    client.send(&message(b'Q', b"\xc3\x28\0")).await;
    assert_eq!(error_code(&client.until(b'Z').await), "22021");
    client.send(&message(b'F', b"")).await;
    assert_eq!(error_code(&client.until(b'Z').await), "0A000");
}

#[tokio::test]
async fn a_cancel_request_ends_a_wait_and_the_session_goes_on() {
    let world = world();
    let mut client = Client::connect(&world).await;
    let pid = world.registry.rows()[0].pid;
    client.send(&query("wait")).await;
    tokio::task::yield_now().await;
    assert!(timeout(Duration::from_millis(20), client.read()).await.is_err());
    world.registry.interrupt(pid, Interrupt::Cancel);
    assert_eq!(error_code(&client.until(b'Z').await), "57014");
    assert_eq!(kinds(&ask(&mut client, "rows 1").await), "DCZ");
    // A cancel that comes too late concerns nobody.
    world.registry.interrupt(pid, Interrupt::Cancel);
    tokio::task::yield_now().await;
    assert_eq!(kinds(&ask(&mut client, "rows 1").await), "DCZ");
}

#[tokio::test]
async fn termination_reaches_idle_busy_and_waiting_sessions() {
    for text in ["", "wait", "spin", "copy"] {
        let world = world();
        let mut client = Client::connect(&world).await;
        if !text.is_empty() {
            client.send(&query(text)).await;
        }
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        world.registry.interrupt_all(Interrupt::Terminate);
        let answer = timeout(PATIENCE, client.until(b'Z')).await.unwrap();
        assert_eq!(error_code(&answer), "57P01", "{text}");
        assert!(world.registry.is_empty() || client.server.await.is_ok());
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_back_its_query_and_no_shutdown() {
    let world = world();
    let mut client = Client::connect_with(&world, 1024).await;
    client.send(&query("rows 1000000")).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(world.most_buffered.load(Ordering::SeqCst) < 128 * 1024);
    world.registry.interrupt_all(Interrupt::Terminate);
    timeout(PATIENCE, client.server).await.unwrap().unwrap();
}

/// With its query's cancel, the session lost the sight of its end: the node's stop waited for a client that
/// did not read.
#[tokio::test]
async fn a_client_that_cancels_and_does_not_read_holds_up_no_shutdown() {
    let world = world();
    let mut client = Client::connect_with(&world, 1024).await;
    client.send(&query("rows 1000000")).await;
    for flag in [Interrupt::Cancel, Interrupt::Terminate] {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        world.registry.interrupt_all(flag);
    }
    timeout(PATIENCE, client.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_panic_ends_its_own_session_with_xx000_and_no_other() {
    let world = world();
    let mut other = Client::connect(&world).await;
    for bytes in [query("panic"), [extended("panic"), sync()].concat()] {
        let mut client = Client::connect(&world).await;
        ask(&mut client, "begin").await;
        client.send(&bytes).await;
        let answer = client.until(b'Z').await;
        assert_eq!(error_code(&answer), "XX000");
        assert_ne!(answer.last().unwrap().0, b'Z', "the connection is closed");
        assert!(matches!(client.server.await.unwrap(), End::Panicked(_)));
        assert_eq!(world.registry.len(), 1);
        assert_eq!(kinds(&ask(&mut other, "rows 1").await), "DCZ");
    }
    assert_eq!(world.rolled_back.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_session_that_waits_ends_when_its_client_has_gone() {
    for text in ["wait", "lock", "spin"] {
        let world = world();
        let mut client = Client::connect(&world).await;
        ask(&mut client, "begin").await;
        client.send(&query(text)).await;
        client.send(&query("rows 1")).await;
        assert!(timeout(Duration::from_millis(20), client.read()).await.is_err());
        let Client { io, server, .. } = client;
        drop(io);
        let end = timeout(PATIENCE, server).await.unwrap().unwrap();
        assert!(matches!(end, End::Closed | End::Io(_)), "{text}: {end:?}");
        assert_eq!(world.rolled_back.load(Ordering::SeqCst), 1, "{text}");
        assert!(world.registry.is_empty());
    }
}

#[tokio::test]
async fn an_answer_held_by_the_gate_is_given_up_when_its_client_has_gone() {
    let world = world();
    let mut client = Client::connect(&world).await;
    world.depends_on.store(50, Ordering::SeqCst);
    client.send(&query("rows 1")).await;
    assert!(timeout(Duration::from_millis(20), client.read()).await.is_err());
    let Client { io, server, .. } = client;
    drop(io);
    timeout(PATIENCE, server).await.unwrap().unwrap();
}

/// The error of a wait that was given up waited itself, for the commit that the statement had seen, and no cancel came through.
#[tokio::test]
async fn who_gives_up_a_wait_is_not_held_by_the_gate() {
    let world = world();
    let mut client = Client::connect(&world).await;
    world.depends_on.store(50, Ordering::SeqCst);
    world.statement_ms.store(20, Ordering::SeqCst);
    client.send(&query("wait")).await;
    assert_eq!(error_code(&client.until(b'E').await), "08007");
}

/// Its answer was held for as long as it took, whatever the statement's limit.
#[tokio::test]
async fn a_statement_timeout_reaches_an_answer_that_the_gate_holds() {
    let world = world();
    let mut client = Client::connect(&world).await;
    world.depends_on.store(50, Ordering::SeqCst);
    world.statement_ms.store(20, Ordering::SeqCst);
    client.send(&query("rows 1")).await;
    assert_eq!(error_code(&client.until(b'E').await), "08007");
}

/// The session was ended, though nothing of the answer had left.
#[tokio::test]
async fn an_answer_that_the_gate_holds_is_taken_back_and_the_session_goes_on() {
    let world = world();
    world.withdraws.store(true, Ordering::SeqCst);
    let mut client = Client::connect(&world).await;
    let mut extended_seen = extended("seen 50");
    extended_seen.extend(sync());
    for (bytes, answer) in [(query("seen 50"), "SEZ"), (extended_seen.clone(), "12SEZ")] {
        world.statement_ms.store(20, Ordering::SeqCst);
        client.send(&bytes).await;
        let messages = client.until(b'Z').await;
        assert_eq!(kinds(&messages), answer);
        assert_eq!(error_code(&messages), "57014");
        world.statement_ms.store(0, Ordering::SeqCst);
        assert_eq!(kinds(&ask(&mut client, "rows 1").await), "DCZ");
    }
    // By a cancel, in a block, behind the answer to a statement that depends on nothing.
    let pid = world.registry.rows()[0].pid;
    ask(&mut client, "begin").await;
    client.send(&query("rows 1;seen 50")).await;
    assert!(timeout(Duration::from_millis(20), client.read()).await.is_err());
    assert_eq!(
        world.registry.rows()[0].wait_event,
        Some(("IPC", "scripted")),
        "it is shown what it waits for"
    );
    world.registry.interrupt(pid, Interrupt::Cancel);
    let messages = client.until(b'Z').await;
    assert_eq!(
        (kinds(&messages).as_str(), error_code(&messages).as_str()),
        ("DCSEZ", "57014")
    );
    assert_eq!(messages.last().unwrap().1, b"E");
    assert_eq!(world.registry.rows()[0].wait_event, None);
    assert_eq!(kinds(&ask(&mut client, "rollback").await), "CZ");
}

/// What several statements have answered behind the gate, and what the session cannot take back, ends the session.
#[tokio::test]
async fn answers_that_cannot_be_taken_back_end_the_session() {
    let two = [query("seen 50"), query("rows 1")].concat();
    let mut flushed = extended("seen 50");
    flushed.extend(message(b'H', b""));
    for (bytes, withdraws) in [
        (query("seen 50"), false),
        (query("seen 50;rows 1"), true),
        (two, true),
        (flushed, true),
    ] {
        let world = world();
        world.withdraws.store(withdraws, Ordering::SeqCst);
        let mut client = Client::connect(&world).await;
        world.statement_ms.store(20, Ordering::SeqCst);
        client.send(&bytes).await;
        let messages = client.until(b'Z').await;
        assert_eq!(kinds(&messages), "E");
        assert_eq!(error_code(&messages), "08007");
        assert!(matches!(client.server.await.unwrap(), End::Fatal(_)));
    }
}

#[tokio::test]
async fn what_arrives_during_a_wait_is_answered_in_order_after_it() {
    let (world, mut publisher) = World::new(3);
    let mut client = Client::connect(&world).await;
    let (first, second) = (query("rows 2"), query("rows 3"));
    client.send(&query("wait")).await;
    assert!(timeout(Duration::from_millis(20), client.read()).await.is_err());
    client.send(&first).await;
    client.send(&second[..7]).await;
    tokio::task::yield_now().await;
    publisher.advance(Lsn(100));
    client.send(&second[7..]).await;
    assert_eq!(kinds(&client.until(b'Z').await), "CZ");
    assert_eq!(kinds(&client.until(b'Z').await), "DDCZ");
    assert_eq!(kinds(&client.until(b'Z').await), "DDDCZ");
}

/// What is read ahead during a wait is bounded; the rest stays in the socket.
#[tokio::test(start_paused = true)]
async fn a_client_that_floods_a_wait_is_held_back_by_its_socket() {
    let (world, mut publisher) = World::new(3);
    let mut client = Client::connect_with(&world, 1024).await;
    client.send(&query("wait")).await;
    let one = query("rows 0");
    let flood = one.repeat(1_000_000 / one.len());
    let mut taken = 0;
    // The clock stands still while anybody can do anything: time passes when the client is held back.
    let sent = timeout(Duration::from_millis(200), async {
        for piece in flood.chunks(one.len()) {
            client.io.write_all(piece).await.unwrap();
            taken += piece.len();
        }
    });
    assert!(sent.await.is_err(), "a megabyte was taken during a wait");
    assert!((32 * 1024..80 * 1024).contains(&taken), "{taken}");
    publisher.advance(Lsn(100));
    assert_eq!(kinds(&client.until(b'Z').await), "CZ");
    for _ in 0..taken / one.len() {
        assert_eq!(kinds(&client.until(b'Z').await), "CZ");
    }
}

#[tokio::test]
async fn a_big_result_arrives_whole_through_a_small_stream() {
    let world = world();
    let mut client = Client::connect_with(&world, 1024).await;
    client.send(&query("rows 50000")).await;
    let answer = client.until(b'Z').await;
    assert_eq!(answer.iter().filter(|(kind, _)| *kind == b'D').count(), 50_000);
    assert!(world.most_buffered.load(Ordering::SeqCst) < 128 * 1024);
}

#[tokio::test]
async fn no_byte_leaves_before_what_it_depends_on_is_visible() {
    let (world, mut publisher) = World::new(3);
    let mut client = Client::connect(&world).await;
    for (text, lsn) in [("rows 1", 50), ("oops", 60)] {
        world.depends_on.store(lsn, Ordering::SeqCst);
        client.send(&query(text)).await;
        assert!(
            timeout(Duration::from_millis(20), client.io.read_u8())
                .await
                .is_err(),
            "{text}"
        );
        publisher.advance(Lsn(lsn as u64));
        assert!(timeout(PATIENCE, client.until(b'Z')).await.unwrap().len() >= 2);
    }
}

#[tokio::test]
async fn copy_data_is_streamed_and_its_end_completes_the_query() {
    let world = world();
    let mut client = Client::connect(&world).await;
    client.send(&query("copy;rows 1")).await;
    assert_eq!(kinds(&client.until(b'G').await), "G");
    for _ in 0..100 {
        client.send(&message(b'd', &[b'x'; 1000])).await;
    }
    client.send(&message(b'H', b"")).await;
    client.send(&message(b'c', b"")).await;
    assert_eq!(kinds(&client.until(b'Z').await), "CDCZ");
    assert_eq!(world.copied.load(Ordering::SeqCst), 100_000);
}

#[tokio::test]
async fn a_failed_copy_swallows_the_rest_of_its_data() {
    let world = world();
    let mut client = Client::connect(&world).await;
    for (last, code) in [
        (message(b'f', b"no\0"), "57014"),
        (message(b'd', b"wrong"), "22P04"),
    ] {
        client.send(&query("copy")).await;
        client.until(b'G').await;
        client.send(&last).await;
        client.send(&message(b'd', b"late")).await;
        client.send(&message(b'c', b"")).await;
        assert_eq!(error_code(&client.until(b'Z').await), code);
        assert_eq!(kinds(&ask(&mut client, "rows 1").await), "DCZ");
    }
    client.send(&extended("copy")).await;
    client.until(b'G').await;
    client.send(&message(b'f', b"no\0")).await;
    client.send(&sync()).await;
    assert_eq!(kinds(&client.until(b'Z').await), "EZ");
}

#[tokio::test(start_paused = true)]
async fn timers_end_what_takes_too_long() {
    let (world, mut publisher) = World::new(3);
    let mut client = Client::connect(&world).await;
    world.statement_ms.store(3000, Ordering::SeqCst);
    assert_eq!(error_code(&ask(&mut client, "wait").await), "57014");
    assert_eq!(error_code(&ask(&mut client, "lock").await), "57014");
    world.statement_ms.store(0, Ordering::SeqCst);
    world.lock_ms.store(2000, Ordering::SeqCst);
    assert_eq!(error_code(&ask(&mut client, "lock").await), "55P03");
    world.deadlock.store(true, Ordering::SeqCst);
    assert_eq!(error_code(&ask(&mut client, "lock").await), "40P01");
    publisher.advance(Lsn(100));
    assert_eq!(kinds(&ask(&mut client, "lock").await), "CZ");
    world.idle_ms.store(500, Ordering::SeqCst);
    ask(&mut client, "begin").await;
    assert_eq!(error_code(&client.until(b'Z').await), "25P03");
}

/// The time that was set when the text came was that of all its statements together.
#[tokio::test(start_paused = true)]
async fn each_statement_of_a_text_has_its_own_time() {
    let mut client = Client::connect(&world()).await;
    for (text, answer) in [
        ("timeout 100;sleep 5000", "CEZ"),
        ("sleep 70;sleep 70", "CCZ"),
        ("sleep 70;timeout 0;sleep 5000", "CCCZ"),
        (
            "sleep 5000;timeout 100;sleep 70;rows 1;sleep 99;sleep 101;rows 1",
            "CCCDCCEZ",
        ),
        ("timeout 0;sleep 5000", "CCZ"),
    ] {
        let messages = ask(&mut client, text).await;
        assert_eq!(kinds(&messages), answer, "{text}");
        if answer.contains('E') {
            assert_eq!(error_code(&messages), "57014", "{text}");
        }
    }
}

/// The timer was forgotten when the COPY asked for its data.
#[tokio::test]
async fn a_statement_timeout_ends_a_copy_whose_client_is_silent() {
    let world = world();
    let mut client = Client::connect(&world).await;
    world.statement_ms.store(20, Ordering::SeqCst);
    client.send(&query("copy")).await;
    client.until(b'G').await;
    assert_eq!(error_code(&client.until(b'Z').await), "57014");
    world.statement_ms.store(0, Ordering::SeqCst);
    assert_eq!(kinds(&ask(&mut client, "rows 1").await), "DCZ");
}

#[tokio::test]
async fn a_statement_timeout_reaches_a_session_that_computes() {
    let world = world();
    let mut client = Client::connect(&world).await;
    world.statement_ms.store(20, Ordering::SeqCst);
    let answer = timeout(PATIENCE, ask(&mut client, "spin")).await.unwrap();
    assert_eq!(error_code(&answer), "57014");
}

/// A subquery runs to its end within one step: it went on for as long as it liked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_timeout_reaches_a_step_that_does_not_yield() {
    let world = world();
    let mut client = Client::connect(&world).await;
    world.statement_ms.store(20, Ordering::SeqCst);
    assert_eq!(error_code(&ask(&mut client, "busy").await), "57014");
    // It concerns no other statement.
    world.statement_ms.store(0, Ordering::SeqCst);
    let mut bytes = extended("rows 1");
    bytes.extend(extended("rows 1"));
    bytes.extend(sync());
    client.send(&bytes).await;
    assert_eq!(kinds(&client.until(b'Z').await), "12DC12DCZ");
}

/// A client that was connected and had not logged in held up the node's stop for the whole of
/// `authentication_timeout`.
#[tokio::test]
async fn a_login_that_is_not_finished_holds_up_no_stop() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = ServerConfig {
        rules: Arc::new(vec![
            Rule::parse("host", "all", "all", "all", "scram-sha-256").unwrap(),
        ]),
        max_connections: 3,
        reserved: 1,
        authentication_timeout: Duration::from_secs(24 * 3600),
    };
    let server = Server::new(world(), config).unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(Stop::No);
    let serving = tokio::spawn(server.serve(listener, stopped));
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent
        .write_all(&[8u32.to_be_bytes(), 80_877_103u32.to_be_bytes()].concat())
        .await
        .unwrap();
    assert_eq!(silent.read_u8().await.unwrap(), b'N');
    let mut asked = TcpStream::connect(address).await.unwrap();
    asked.write_all(&startup("postgres", "postgres")).await.unwrap();
    assert_eq!(asked.read_u8().await.unwrap(), b'R');
    stop.send(Stop::Fast).unwrap();
    timeout(PATIENCE, serving).await.unwrap().unwrap();
}

/// A broken CopyFail after its COPY had failed was answered, and every later answer was taken for another's.
#[tokio::test]
async fn what_follows_a_failed_copy_is_not_looked_into() {
    let world = world();
    let mut client = Client::connect(&world).await;
    client.send(&query("copy")).await;
    client.until(b'G').await;
    let mut bytes = message(b'd', b"wrong");
    bytes.extend(message(b'f', b"no terminator"));
    bytes.extend(message(b'c', b"and more"));
    bytes.extend(query("rows 1"));
    client.send(&bytes).await;
    assert_eq!(error_code(&client.until(b'Z').await), "22P04");
    assert_eq!(kinds(&client.until(b'Z').await), "DCZ");
}

#[tokio::test]
async fn a_broken_flush_fails_its_group_and_a_function_call_its_block() {
    let world = world();
    let mut client = Client::connect(&world).await;
    let mut bytes = message(b'H', b"more");
    bytes.extend(extended("rows 1"));
    bytes.extend(sync());
    client.send(&bytes).await;
    assert_eq!(kinds(&client.until(b'Z').await), "EZ");
    ask(&mut client, "begin").await;
    client.send(&message(b'F', b"")).await;
    let answer = client.until(b'Z').await;
    assert_eq!(error_code(&answer), "0A000");
    assert_eq!(answer.last().unwrap().1, b"E");
}

#[tokio::test]
async fn flush_sends_what_is_there_without_sync() {
    let world = world();
    let mut client = Client::connect(&world).await;
    let mut bytes = message(b'P', b"\0rows 1\0\0\0");
    bytes.extend(message(b'H', b""));
    client.send(&bytes).await;
    assert_eq!(kinds(&client.until(b'1').await), "1");
}

#[tokio::test]
async fn random_bytes_never_panic_or_hang() {
    let world = world();
    let mut seed = 0x2545_F491_4F6C_DD1Du64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..400 {
        let mut client = if round % 4 == 0 {
            Client::dial(&world, Rule::loopback_trust(), 1 << 16)
        } else {
            Client::connect(&world).await
        };
        let mut bytes = Vec::new();
        for _ in 0..random() % 20 {
            let kinds = b"QPBDCESHXdcfFp\0z";
            let kind = kinds[(random() % kinds.len() as u64) as usize];
            let len = (random() % 24) as usize;
            let body: Vec<u8> = (0..len)
                .map(|_| if random() % 3 == 0 { 0 } else { random() as u8 })
                .collect();
            let mut frame = message(kind, &body);
            if random() % 8 == 0 {
                frame[1] = random() as u8;
            }
            if random() % 8 == 0 {
                frame.truncate((random() % frame.len() as u64) as usize);
            }
            bytes.extend(frame);
        }
        if round % 4 == 0 && round % 8 != 0 {
            bytes.splice(0..0, (bytes.len() as u32 + 4).to_be_bytes());
        }
        let _ = client.io.write_all(&bytes).await;
        let _ = client.io.shutdown().await;
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, client.io.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "round {round} hangs");
        timeout(PATIENCE, client.server)
            .await
            .expect("the loop ends")
            .expect("no panic");
    }
    assert!(world.registry.is_empty());
}
