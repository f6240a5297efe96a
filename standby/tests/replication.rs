//! A primary and standbys in one process: real files, real threads, gRPC over loopback.

#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code)]
mod cluster;

use std::time::{Duration, Instant};

use cluster::{PATIENCE, Primary, Standby, eventually};
use towline_access::CommitLevel;
use towline_access::engine::RetentionHooks;
use towline_base::failpoint::{self, Action, FailpointGuard};
use towline_base::rules::{self, Rule};
use towline_base::{Incarnation, Lsn, NodeId, TimelineId, TimelineNumber};
use towline_proto::UNFINISHED_RECORD;
use towline_proto::replication::BaseBackupRequest;
use towline_proto::replication::replication_client::ReplicationClient;
use towline_proto::transport::{self, Secret, ShowSecret};
use towline_standby::StandbyEnd;

#[test]
fn an_empty_standby_clones_itself_streams_and_shows_what_the_quorum_has() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("ANY 1 (*)");
    let standby = Standby::empty("s1", &primary);
    let lsn = primary
        .commit(CommitLevel::On, PATIENCE)
        .expect("released with the standby");
    eventually("the standby shows the commit", || standby.horizon() >= lsn);
    assert!(standby.view().is_consistent());
    let row = primary.only_stream();
    assert_eq!(row.application_name, "s1");
    assert_eq!(
        (row.sync_state.as_str(), row.state.as_str()),
        ("quorum", "streaming")
    );
    assert!(row.flush_lsn >= lsn && row.sent_lsn >= row.write_lsn);
    assert_eq!(primary.view().slots()[0].wal_status, "reserved");
    assert!(primary.view().slots()[0].active);
    eventually("replay is told", || primary.only_stream().replay_lsn >= lsn);
    assert_eq!(standby.view().receiver().status, "streaming");
    primary.stop();
    standby.stop();
}

/// Whoever was let in between the two loaded the catalog as of the start, and kept it.
#[test]
fn a_standby_that_lets_readers_in_shows_them_what_its_copy_has() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("");
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    for _ in 0..3 {
        let standby = Standby::empty("s1", &primary);
        let view = standby.view();
        let deadline = Instant::now() + PATIENCE;
        while !view.is_consistent() {
            assert!(Instant::now() < deadline, "never consistent");
            std::hint::spin_loop();
        }
        let shown = standby.horizon();
        assert!(
            shown >= lsn,
            "{shown} is shown, {lsn} was committed before the copy"
        );
        standby.stop();
        primary.wait_gone("s1");
    }
    primary.stop();
}

#[test]
fn without_the_required_standby_a_commit_is_not_released_until_it_is_back() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("ANY 1 (*)");
    let standby = Standby::empty("s1", &primary);
    primary.commit(CommitLevel::On, PATIENCE).expect("released");
    let files = standby.stop();
    let waiting = primary.commit_later(CommitLevel::On);
    assert!(
        primary
            .commit(CommitLevel::On, Duration::from_millis(300))
            .is_none()
    );
    assert!(!primary.engine().release().is_visible(waiting));
    eventually("it is said", || primary.view().missing().is_some());
    // Local commits wait behind it: release is in LSN order.
    assert!(
        primary
            .commit(CommitLevel::Local, Duration::from_millis(100))
            .is_none()
    );
    let standby = Standby::start("s1", &primary, files);
    eventually("released after the return", || {
        primary.engine().release().is_visible(waiting)
    });
    eventually("shown there", || standby.horizon() >= waiting);
    primary.stop();
    standby.stop();
}

#[test]
fn while_the_primary_syncs_the_standby_is_ahead_and_nothing_is_visible() {
    let _turn = cluster::turn_with_failpoints();
    let primary = Primary::init("ANY 1 (*)");
    let standby = Standby::empty("s1", &primary);
    primary.commit(CommitLevel::On, PATIENCE).expect("released");
    let before = primary.flush();
    let held = FailpointGuard::new("wal::before_fsync", Action::Pause, 0);
    let committing = primary.commit_aside(CommitLevel::On);
    assert!(failpoint::wait_paused("wal::before_fsync", PATIENCE));
    eventually("the standby has made it durable", || {
        standby.view().last_receive_lsn() > before
    });
    assert_eq!(primary.flush(), before);
    assert!(primary.engine().visible().get() <= before, "no snapshot sees it");
    assert!(
        standby.horizon() <= before,
        "no standby shows what the quorum does not have"
    );
    drop(held);
    let lsn = committing.join().unwrap();
    eventually("released after the sync", || {
        primary.engine().release().is_visible(lsn)
    });
    eventually("shown after the sync", || standby.horizon() >= lsn);
    primary.stop();
    standby.stop();
}

#[test]
fn remote_apply_waits_for_the_standbys_readers() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("FIRST 1 (s1)");
    let standby = Standby::empty("s1", &primary);
    for _ in 0..5 {
        let lsn = primary
            .commit(CommitLevel::RemoteApply, PATIENCE)
            .expect("released");
        assert!(standby.horizon() >= lsn);
    }
    primary.stop();
    standby.stop();
}

#[test]
fn an_idle_cluster_announces_the_quorum() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("");
    let one = Standby::empty("s1", &primary);
    let two = Standby::empty("s2", &primary);
    let lsn = primary
        .commit(CommitLevel::On, PATIENCE)
        .expect("alone it needs nobody");
    eventually("both show it", || one.horizon() >= lsn && two.horizon() >= lsn);
    // A base backup has a row of its own, until its end is noted.
    eventually("two streams, both asynchronous", || {
        let rows = primary.view().replication();
        rows.len() == 2 && rows.iter().all(|row| row.sync_state == "async")
    });
    one.stop();
    two.stop();
    primary.stop();
}

#[test]
fn a_primary_that_restarts_opens_a_timeline_and_the_standby_cuts_what_no_quorum_had() {
    let _turn = cluster::turn_with_failpoints();
    let primary = Primary::init("ANY 1 (*)");
    let standby = Standby::empty("s1", &primary);
    let released = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("shown", || standby.horizon() >= released);
    // The standby gets WAL that the primary never makes durable.
    let durable = primary.flush();
    let held = FailpointGuard::new("wal::before_fsync", Action::Pause, 0);
    let _lost = primary.commit_aside(CommitLevel::On);
    assert!(failpoint::wait_paused("wal::before_fsync", PATIENCE));
    eventually("the standby has it", || {
        standby.view().last_receive_lsn() > durable
    });
    let files = primary.crash_before_sync(held);
    let primary = Primary::start("ANY 1 (*)", files);
    let after = primary
        .commit(CommitLevel::On, PATIENCE)
        .expect("released on the new timeline");
    eventually("shown on the new timeline", || standby.horizon() >= after);
    assert_eq!(standby.view().timeline(), primary.timeline());
    primary.only_stream();
    let files = standby.stop();
    // And again from its files.
    let standby = Standby::start("s1", &primary, files);
    let last = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("shown after a restart", || standby.horizon() >= last);
    primary.stop();
    standby.stop();
}

/// B7: the primary restarts without log that the standby has and no quorum had. Whether the standby goes on with it.
fn a_standby_follows_a_primary_that_lost_what_no_quorum_had() -> bool {
    let _turn = cluster::turn_with_failpoints();
    let primary = Primary::init("ANY 1 (*)");
    let standby = Standby::empty("s1", &primary);
    let released = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("applied", || standby.view().applied_lsn() >= released);
    let durable = primary.flush();
    let held = FailpointGuard::new("wal::before_fsync", Action::Pause, 0);
    let _lost = primary.commit_aside(CommitLevel::On);
    eventually("the standby has it", || {
        standby.view().last_receive_lsn() > durable
    });
    if rules::is_off(Rule::ReplayBelowQuorum) {
        eventually("the standby has applied it", || {
            standby.view().applied_lsn() > durable
        });
    }
    let files = primary.crash_before_sync(held);
    // It needs nobody from now on, so that it can stop whatever the standby does.
    let primary = Primary::start("", files);
    let after = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    let is_refused = || {
        let trouble = standby.view().trouble();
        trouble.is_some_and(|trouble| trouble.contains("lacks"))
    };
    eventually("it is followed, or refused", || {
        standby.horizon() >= after || is_refused()
    });
    let follows = standby.horizon() >= after;
    primary.stop();
    standby.stop();
    follows
}

#[test]
fn a_standby_applies_nothing_that_a_primary_may_lose() {
    assert!(a_standby_follows_a_primary_that_lost_what_no_quorum_had());
}

#[cfg(debug_assertions)]
#[test]
fn without_the_bound_of_replay_a_standby_could_not_follow_its_primary() {
    let _off = rules::RuleOff::new(Rule::ReplayBelowQuorum);
    assert!(!a_standby_follows_a_primary_that_lost_what_no_quorum_had());
}

#[test]
fn a_standby_whose_wal_is_gone_is_told_to_clone_itself_anew() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("");
    let standby = Standby::empty("s1", &primary);
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("shown", || standby.horizon() >= lsn);
    let files = standby.stop();
    primary.wait_gone("s1");
    primary
        .slots()
        .invalidate_below(primary.flush().saturating_add(1))
        .unwrap();
    primary.commit(CommitLevel::On, PATIENCE).expect("released");
    primary.remove_old_wal();
    let standby = Standby::start("s1", &primary, files);
    eventually("it is told", || {
        matches!(standby.view().ended(), Some(StandbyEnd::Reclone(_)))
    });
    let files = standby.stop();
    let standby = Standby::clone_anew("s1", &primary, files);
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("shown by the clone", || standby.horizon() >= lsn);
    primary.stop();
    standby.stop();
}

#[test]
fn a_primary_started_from_an_old_copy_is_not_followed_and_costs_the_standby_nothing() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("ANY 1 (*)");
    let standby = Standby::empty("s1", &primary);
    primary.commit(CommitLevel::On, PATIENCE).expect("released");
    let files = primary.stop();
    let mut old = files.copy();
    let primary = Primary::start("ANY 1 (*)", files);
    let newest = primary.timeline();
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("shown", || standby.horizon() >= lsn);
    assert_eq!(standby.view().promise().timeline, newest);
    let files = primary.stop();
    let mut standby = standby;
    // The first start of the copy opens another timeline of the same number, the next one a higher one.
    for expected in ["old copy", "lacks what"] {
        let primary = Primary::start("", old);
        assert_ne!(primary.timeline(), newest);
        eventually("it is refused", || {
            standby
                .view()
                .trouble()
                .is_some_and(|trouble| trouble.contains(expected))
        });
        // And again after a restart of the standby, which remembers.
        let files = standby.stop();
        standby = Standby::start("s1", &primary, files);
        eventually("it is refused after a restart", || {
            standby
                .view()
                .trouble()
                .is_some_and(|trouble| trouble.contains(expected))
        });
        assert_eq!(standby.view().ended(), None, "the data are kept");
        assert_eq!(standby.view().timeline(), newest);
        assert!(primary.view().replication().is_empty());
        old = primary.stop();
    }
    let primary = Primary::start("ANY 1 (*)", files);
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("the newest data are followed", || standby.horizon() >= lsn);
    assert_eq!(standby.view().trouble(), None);
    primary.stop();
    standby.stop();
}

#[test]
fn a_standby_keeps_what_the_slowest_member_needs() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("ANY 1 (*)");
    let one = Standby::empty("s1", &primary);
    let two = Standby::empty("s2", &primary);
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("both have it", || one.horizon() >= lsn && two.horizon() >= lsn);
    let files = two.stop();
    primary.wait_gone("s2");
    primary.remove_old_wal();
    let needed = primary.slots().oldest_saved().expect("two slots");
    eventually("the needs of the absent one are announced", || {
        one.view().retain() == needed
    });
    assert!(needed <= primary.slot_of("s2") && needed < primary.slot_of("s1"));
    // From the beginning of a record that it may have half of.
    assert_eq!(
        one.view().oldest_slot(),
        Some(needed.saturating_sub(UNFINISHED_RECORD))
    );
    let unreachable = primary.url();
    let two = Standby::start("s2", &primary, files);
    // Its address stays its own.
    let _stopped = primary.stop();
    let files = one.stop();
    // Nobody speaks to it now.
    let one = Standby::start_at(&unreachable, files);
    assert_eq!(
        one.view().retain(),
        Lsn::INVALID,
        "everything, before the primary has spoken"
    );
    one.stop();
    two.stop();
}

#[test]
fn the_segments_that_an_absent_member_needs_stay_on_a_standby_and_no_others() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("ANY 1 (*)");
    let one = Standby::empty("s1", &primary);
    let two = Standby::empty("s2", &primary);
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("both have it", || one.horizon() >= lsn && two.horizon() >= lsn);
    let files = two.stop();
    primary.wait_gone("s2");
    for _ in 0..3 {
        primary.remove_old_wal();
    }
    let needed = primary.slots().oldest_saved().expect("two slots").0 / cluster::SEGMENT;
    let redo_is_beyond = |segment: u64| {
        let _ = one.engine().checkpoint();
        let control = one.engine().storage().control().get();
        control.checkpoint.redo.0 / cluster::SEGMENT > segment
    };
    // The first restartpoint may come before the needs were announced, when everything is kept: the second one does not.
    eventually("restartpoints", || redo_is_beyond(needed + 3));
    let first = one.engine().storage().control().get().checkpoint.redo.0 / cluster::SEGMENT;
    primary.remove_old_wal();
    eventually("another restartpoint", || redo_is_beyond(first));
    let (kept, end) = (one.segments(), primary.flush().0 / cluster::SEGMENT);
    let missing: Vec<u64> = (needed..=end).filter(|segment| !kept.contains(segment)).collect();
    assert!(missing.is_empty(), "{missing:?} are missing of {needed}..={end}");
    let two = Standby::start("s2", &primary, files);
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("it catches up", || two.horizon() >= lsn);
    // Each checkpoint saves the slots as they are then: that of the second may still say what it needed before.
    eventually("what nobody needs goes", || {
        primary.remove_old_wal();
        let _ = one.engine().checkpoint();
        one.segments().first().is_some_and(|segment| *segment > needed)
    });
    primary.stop();
    one.stop();
    two.stop();
}

#[test]
fn a_primary_that_is_told_of_a_higher_timeline_opens_its_next_one_above_it() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("");
    let standby = Standby::empty("s1", &primary);
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("shown", || standby.horizon() >= lsn);
    let files = standby.stop();
    let told = TimelineId {
        number: TimelineNumber(primary.timeline().number.0 + 6),
        incarnation: Incarnation([7; 16]),
    };
    files.promise(told);
    let standby = Standby::start("s1", &primary, files);
    eventually("it is refused", || {
        let trouble = standby.view().trouble();
        trouble.is_some_and(|trouble| trouble.contains("old copy"))
    });
    let primary = Primary::start("", primary.stop());
    assert_eq!(primary.timeline().number.0, told.number.0 + 1);
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("it is followed", || standby.horizon() >= lsn);
    assert_eq!(standby.view().promise().timeline, primary.timeline());
    primary.stop();
    standby.stop();
}

#[test]
fn a_new_sync_set_is_noted_durably_by_the_standby() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("ANY 1 (*)");
    let standby = Standby::empty("s1", &primary);
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("shown", || standby.horizon() >= lsn);
    let before = standby.view().promise().sync_set_version;
    assert!(before > 0);
    primary.set_names("FIRST 1 (s1)");
    primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("noted", || standby.view().promise().sync_set_version > before);
    let noted = standby.view().promise();
    let files = standby.stop();
    let standby = Standby::start("s1", &primary, files);
    assert_eq!(standby.view().promise(), noted);
    primary.stop();
    standby.stop();
}

#[test]
fn a_second_node_of_the_same_name_is_refused_and_the_first_goes_on() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("FIRST 1 (s1)");
    let one = Standby::empty("s1", &primary);
    let two = Standby::empty("s2", &primary);
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("both have it", || one.horizon() >= lsn && two.horizon() >= lsn);
    let files = two.stop().renamed("s1");
    let two = Standby::start("s1", &primary, files);
    eventually("the second is refused", || {
        let trouble = two.view().trouble();
        trouble.is_some_and(|trouble| trouble.contains("\"s1\" is in use"))
    });
    assert_eq!(two.view().ended(), None, "it keeps its data");
    for _ in 0..20 {
        primary.commit(CommitLevel::On, PATIENCE).expect("released");
    }
    // The stream that it had under its own name is noticed to have ended.
    assert_eq!(primary.only_stream().sync_state, "sync");
    assert_eq!(one.view().trouble(), None);
    primary.stop();
    one.stop();
    two.stop();
}

/// Each ended the other's stream whenever it connected, for ever.
#[test]
fn of_two_live_copies_of_a_directory_the_first_keeps_its_stream_and_the_second_is_told() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("FIRST 1 (s1)");
    let first = Standby::empty("s1", &primary);
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("shown", || first.horizon() >= lsn);
    let files = first.stop();
    primary.wait_gone("s1");
    let copy = files.copy();
    let first = Standby::start("s1", &primary, files);
    primary.commit(CommitLevel::On, PATIENCE).expect("released");
    let pid = primary.only_stream().pid;
    let second = Standby::start("s1", &primary, copy);
    eventually("the second is refused", || {
        let trouble = second.view().trouble();
        trouble.is_some_and(|trouble| {
            trouble.contains("s1") && trouble.contains("streams already, from 127.0.0.1:")
        })
    });
    for _ in 0..20 {
        primary.commit(CommitLevel::On, PATIENCE).expect("released");
    }
    assert_eq!(primary.only_stream().pid, pid, "the first stream goes on");
    assert_eq!(first.view().trouble(), None);
    assert_eq!(second.view().ended(), None, "the second keeps its data");
    first.stop();
    let lsn = primary
        .commit(CommitLevel::On, PATIENCE)
        .expect("released by the second");
    eventually("the second follows when the first has gone", || {
        second.horizon() >= lsn
    });
    primary.stop();
    second.stop();
}

/// It was counted as a standby like any other, although the two have one vote.
#[test]
fn a_standby_with_the_identity_of_its_primary_is_refused() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("");
    let standby = Standby::empty("s1", &primary);
    let files = standby.stop().copied_from(&primary);
    let standby = Standby::start("p", &primary, files);
    eventually("it is refused", || {
        let trouble = standby.view().trouble();
        trouble.is_some_and(|trouble| trouble.contains("has the identity of this primary"))
    });
    assert_eq!(standby.view().ended(), None);
    standby.stop();
    primary.stop();
}

/// Whoever was told to clone itself anew came back before its stream was noticed to have ended, and failed.
#[test]
fn a_clone_waits_until_the_stream_before_has_left_its_slot() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("");
    let earlier = NodeId {
        name: "s1".into(),
        incarnation: Incarnation([7; 16]),
    };
    primary.slots().ensure("s1", &earlier, primary.flush()).unwrap();
    let held = primary.slots().acquire("s1", 1).unwrap();
    let url = primary.url();
    let cloning = std::thread::spawn(move || Standby::empty_at("s1", &url));
    eventually("it waits for the slot", || {
        let rows = primary.view().replication();
        rows.iter().any(|row| row.state == "backup") || cloning.is_finished()
    });
    drop(held);
    let standby = cloning.join().unwrap();
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("shown by the clone", || standby.horizon() >= lsn);
    standby.stop();
    primary.stop();
}

/// It was copied to its end, and the standby found out only then that it could not follow, again and again.
#[test]
fn a_base_backup_whose_wal_is_removed_meanwhile_ends_and_says_what_to_do() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("");
    let node = NodeId {
        name: "s1".into(),
        incarnation: Incarnation([7; 16]),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let said = runtime.block_on(async {
        // A small window: what is not taken here waits in the primary.
        let endpoint = transport::endpoint(&primary.url(), PATIENCE, PATIENCE)
            .unwrap()
            .initial_stream_window_size(65_536_u32)
            .initial_connection_window_size(65_536_u32);
        let secret = ShowSecret(Secret::parse(cluster::SECRET).unwrap());
        let channel = endpoint.connect().await.unwrap();
        let mut client = ReplicationClient::with_interceptor(channel, secret);
        let request = BaseBackupRequest {
            node: Some((&node).into()),
            slot: String::new(),
        };
        let mut messages = client.base_backup(request).await.unwrap().into_inner();
        messages.message().await.unwrap().expect("it begins");
        primary.slots().invalidate_below(Lsn::MAX).unwrap();
        loop {
            match messages.message().await {
                Ok(message) => assert!(message.is_some(), "it is complete"),
                Err(status) => break status.message().to_owned(),
            }
        }
    });
    assert!(said.contains("raise max_slot_wal_keep_size"), "{said}");
    primary.stop();
}

/// The first message of a base backup that nobody takes any further; it stays open for as long as the result is kept.
fn begun_backup(
    runtime: &tokio::runtime::Runtime,
    primary: &Primary,
) -> tonic::Streaming<towline_proto::replication::BackupMessage> {
    let node = NodeId {
        name: "s1".into(),
        incarnation: Incarnation([7; 16]),
    };
    runtime.block_on(async {
        let endpoint = transport::endpoint(&primary.url(), PATIENCE, PATIENCE)
            .unwrap()
            .initial_stream_window_size(65_536_u32)
            .initial_connection_window_size(65_536_u32);
        let secret = ShowSecret(Secret::parse(cluster::SECRET).unwrap());
        let channel = endpoint.connect().await.unwrap();
        let mut client = ReplicationClient::with_interceptor(channel, secret);
        let request = BaseBackupRequest {
            node: Some((&node).into()),
            slot: String::new(),
        };
        let mut messages = client.base_backup(request).await.unwrap().into_inner();
        messages.message().await.unwrap().expect("it begins");
        messages
    })
}

#[test]
fn a_base_backup_that_nobody_takes_ends_and_leaves_its_slot() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let messages = begun_backup(&runtime, &primary);
    assert_eq!(primary.only_stream().state, "backup");
    primary.set("wal_sender_timeout", "1s");
    eventually("the backup has ended", || primary.view().replication().is_empty());
    primary.wait_gone("s1");
    drop(messages);
    primary.stop();
}

/// A stop waited for it until the time for standbys was over.
#[test]
fn a_base_backup_that_nobody_takes_does_not_hold_a_stop() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let messages = begun_backup(&runtime, &primary);
    assert_eq!(primary.only_stream().state, "backup");
    let begun = Instant::now();
    primary.stop();
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    drop(messages);
}

#[test]
fn a_standby_of_another_cluster_is_refused_and_keeps_its_data() {
    let _turn = cluster::turn_without_failpoints();
    let other = Primary::init("");
    let standby = Standby::empty("s1", &other);
    let files = standby.stop();
    let primary = Primary::init("");
    let standby = Standby::start("s1", &primary, files);
    eventually("it is refused", || {
        let trouble = standby.view().trouble();
        trouble.is_some_and(|trouble| trouble.contains("belongs to another cluster"))
    });
    assert_eq!(standby.view().ended(), None);
    assert!(primary.view().replication().is_empty());
    standby.stop();
    primary.stop();
    other.stop();
}

#[test]
fn an_orderly_stop_delivers_the_last_record_to_the_standbys() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("ANY 1 (*)");
    let standby = Standby::empty("s1", &primary);
    for _ in 0..20 {
        primary.commit(CommitLevel::On, PATIENCE).expect("released");
    }
    let end = primary.stop().end;
    assert_eq!(standby.view().last_receive_lsn(), end);
    // The quorum of that record came last: readers there see all that the primary had.
    eventually("shown to the end", || standby.horizon() >= end);
    standby.stop();
}

#[test]
fn many_commits_flow_through_segments_and_restarts_of_the_standby() {
    let _turn = cluster::turn_without_failpoints();
    let primary = Primary::init("ANY 1 (*)");
    let mut standby = Standby::empty("s1", &primary);
    for round in 0..4 {
        for _ in 0..50 {
            primary.commit(CommitLevel::Off, PATIENCE).expect("inserted");
        }
        primary.switch_segment();
        let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
        eventually("shown", || standby.horizon() >= lsn);
        if round % 2 == 1 {
            let files = standby.stop();
            primary.commit_later(CommitLevel::On);
            standby = Standby::start("s1", &primary, files);
        }
    }
    primary.stop();
    standby.stop();
}

#[test]
fn a_standby_that_does_not_keep_up_holds_the_stream_back_not_the_primarys_memory() {
    let _turn = cluster::turn_with_failpoints();
    let primary = Primary::init("");
    let standby = Standby::empty("s1", &primary);
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("shown", || standby.horizon() >= lsn);
    let held = FailpointGuard::new("standby::before_flush", Action::Pause, 0);
    for _ in 0..64 {
        primary.switch_segment();
        primary
            .commit(CommitLevel::On, PATIENCE)
            .expect("nobody waits for an asynchronous standby");
    }
    assert!(failpoint::wait_paused("standby::before_flush", PATIENCE));
    // Queues, windows and socket buffers fill up, and then nothing is sent any more.
    let mut before = primary.only_stream().sent_lsn;
    eventually("the stream stands still", || {
        std::thread::park_timeout(Duration::from_millis(200));
        std::mem::replace(&mut before, primary.only_stream().sent_lsn) == before
    });
    let on_the_way = before.distance_from(standby.view().last_receive_lsn());
    assert!(on_the_way < 40 << 20, "{on_the_way} bytes are on the way");
    assert!(before < primary.flush(), "the rest waits in the log");
    drop(held);
    let lsn = primary.commit(CommitLevel::On, PATIENCE).expect("released");
    eventually("it catches up", || standby.horizon() >= lsn);
    primary.stop();
    standby.stop();
}
