//! Faults that are no crash: a peer that is silent, a wrong upstream, an old copy, a lost slot, a supervisor that is killed, a
//! setting that changes while commits wait.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use towline_integration_tests::client::Sql;
use towline_integration_tests::node::{Cluster, Node, PATIENCE, Role};
use towline_integration_tests::ports::free_block;
use towline_integration_tests::tools::towline;
use towline_integration_tests::wait::{wait_for, wait_until};

use crate::Case;
use crate::up::Up;

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![
        Case::new("up_killed_takes_its_children_along_at_once", &[], up_killed),
        Case::new(
            "status_answers_when_sql_wants_passwords",
            &[],
            status_with_passwords,
        ),
        Case::new("a_silent_standby_is_given_up_and_catches_up", &[], silent_standby),
        Case::new(
            "a_silent_primary_is_given_up_and_found_again",
            &[],
            silent_primary,
        ),
        Case::new(
            "a_standby_that_is_sent_to_another_standby_keeps_its_data",
            &[],
            wrong_upstream,
        ),
        Case::new(
            "a_standby_whose_slot_is_lost_clones_itself_anew_once",
            &[],
            lost_slot,
        ),
        Case::new(
            "commits_that_wait_are_released_by_a_reload_and_a_wrong_value_changes_nothing",
            &[],
            reload_sync_names,
        ),
        Case::new(
            "a_low_limit_of_open_files_is_lived_with_or_refused",
            &["prlimit"],
            few_open_files,
        ),
    ]
};

/// Ended with "Too many open files" at a thousand files, and the node with it at the next checkpoint.
fn few_open_files() {
    let dir = tempfile::tempdir().unwrap();
    // Each table has four files: its own, its key's, that of its large values and of their index.
    let tables = 80;
    let mut node = Node::new(dir.path(), "p", Role::Primary, &["max_connections=40"]);
    node.init();
    node.limit_open_files(40 + 128 + 64);
    node.start_ready();
    let sql = node.sql();
    for table in 0..tables {
        sql.query(&format!(
            "create table t{table} (a int primary key, b text); insert into t{table} values ({table}, 'x')"
        ))
        .unwrap();
    }
    sql.query("checkpoint").unwrap();
    // As many sessions as there may be, without those kept for superusers.
    let sessions: Vec<Sql> = (0..36).map(|_| node.sql()).collect();
    for table in 0..tables {
        let session = &sessions[table % sessions.len()];
        let sum = session.value(&format!("select sum(a) from t{table} where b = 'x'"));
        assert_eq!(sum.unwrap(), table.to_string());
    }
    drop((sql, sessions));
    assert_eq!(node.stop(), Some(0));

    node.limit_open_files(40 + 128 + 63);
    node.start();
    assert_eq!(node.wait_ended(), Some(2));
    let said = std::fs::read_to_string(dir.path().join("p.stderr")).unwrap();
    assert!(
        said.contains(
            "The limit of open files is 231, and max_connections = 40 needs at least 232; raise it (ulimit -n)"
        ),
        "{said}"
    );
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

fn log_of(node: &Node) -> String {
    std::fs::read_to_string(node.dir.join("log/towline.log")).unwrap_or_default()
}

/// Children of a process, by the kernel.
fn children_of(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn status_with_passwords() {
    let base = tempfile::tempdir().unwrap();
    let port = free_block();
    // The secret's file is named on the command line only; status finds it all the same.
    let secret = base.path().join("secret");
    std::fs::write(&secret, "correct horse battery staple\n").unwrap();
    let given = format!("cluster_secret_file={}", secret.display());
    let base = base.path().join("cluster");
    let mut up = Up::start(&base, port, &["--nodes", "2", "--set", &given]);
    up.wait_ready(&[port, port + 1]);
    Sql::connect(port)
        .unwrap()
        .query("alter role postgres password 'correct horse'")
        .unwrap();
    for (node, port) in [("node1", port), ("node2", port + 1)] {
        let rules = "[[hba]]\naddress = \"all\"\nmethod = \"scram-sha-256\"\n";
        std::fs::write(base.join(node).join("towline.toml"), rules).unwrap();
        Sql::connect(port)
            .unwrap()
            .query("select pg_reload_conf()")
            .unwrap();
        wait_until("a password to be wanted", PATIENCE, || {
            Sql::connect(port).is_err()
        });
    }
    // It gives a node two seconds, of which a stalled disk may take more.
    let said = wait_for("status to have every node's answer", PATIENCE, || {
        let status = Command::new(towline())
            .args(["status", "--json", "--data-dir"])
            .arg(&base)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(!said.contains("cluster secret"), "{said}");
        status.status.success().then_some(said)
    });
    assert!(
        said.contains("\"primary\"") && said.contains("\"standby\""),
        "{said}"
    );
    assert_eq!(up.interrupt(), Some(0));
}

fn up_killed() {
    let base = tempfile::tempdir().unwrap();
    let port = free_block();
    let dir = base.path().join("data");
    let mut up = Up::start(&dir, port, &[]);
    up.wait_ready(&[port, port + 1, port + 2]);
    let children = children_of(up.child.id());
    assert_eq!(children.len(), 3);
    // Its last commit waits, as does an orderly stop of a primary whose standbys are away: nothing of that may hold the ports.
    for standby in &children[1..] {
        signal(*standby, Signal::STOP);
    }
    up.child.kill().unwrap();
    up.child.wait().unwrap();
    // The kernel lets a killed process go when the disk has done with it.
    wait_until("the ports to be free", PATIENCE, || {
        (port..port + 3)
            .flat_map(|port| [port, port + 2000])
            .all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
    });
    for child in children {
        assert!(
            !Path::new(&format!("/proc/{child}/exe")).exists(),
            "{child} lives"
        );
    }
    let said = std::fs::read_to_string(dir.join("node1/log/towline.log")).unwrap();
    assert!(
        !said.contains("shutdown request"),
        "the primary stopped in its orderly way: {said}"
    );
}

/// More than the queues, windows and socket buffers between two nodes hold.
const MUCH: &str = "insert into t select i, repeat('x', 1000) from generate_series(1, 40000) i";

/// A silence of more than a second is noticed within this, on a busy machine too: well below the timeouts' defaults of a minute.
const NOTICED: Duration = Duration::from_secs(30);

fn silent_standby() {
    let settings = ["wal_sender_timeout=1s", "wal_receiver_timeout=1s"];
    let mut cluster = Cluster::start(2, &settings);
    let sql = cluster.primary().sql();
    sql.query("create table t (id int, v text)").unwrap();
    sql.query("alter system set synchronous_standby_names = 'ANY 1 (*)'")
        .unwrap();
    sql.query("select pg_reload_conf()").unwrap();
    let stopped = cluster.nodes[1].pid().unwrap();
    signal(stopped, Signal::STOP);
    sql.query(MUCH).unwrap();
    wait_until("the silent one to be given up", NOTICED, || {
        sql.value("select count(*) from pg_stat_replication").unwrap() == "1"
    });
    sql.query("insert into t values (0, 'with one of two')").unwrap();
    signal(stopped, Signal::CONT);
    cluster.wait_for_standbys();
    assert_eq!(
        cluster.nodes[1].sql().value("select count(*) from t").unwrap(),
        "40001"
    );
}

fn silent_primary() {
    let mut cluster = Cluster::start(
        1,
        &["wal_receiver_timeout=1s", "synchronous_standby_names=ANY 1 (*)"],
    );
    cluster.primary().sql().query("create table t (id int)").unwrap();
    cluster.wait_for_standbys();
    let standby = cluster.nodes[1].sql();
    let stopped = cluster.nodes[0].pid().unwrap();
    signal(stopped, Signal::STOP);
    wait_until("the silence to be noticed", NOTICED, || {
        standby.value("select status from pg_stat_wal_receiver").unwrap() == "waiting"
    });
    assert_eq!(
        standby.value("select count(*) from t").unwrap(),
        "0",
        "reads go on"
    );
    signal(stopped, Signal::CONT);
    cluster.primary().sql().query("insert into t values (1)").unwrap();
    cluster.wait_for_standbys();
    assert_eq!(standby.value("select count(*) from t").unwrap(), "1");
}

fn wrong_upstream() {
    let mut cluster = Cluster::start(2, &[]);
    cluster.primary().sql().query("create table t (id int)").unwrap();
    cluster.wait_for_standbys();
    let other = cluster.nodes[2].grpc_port;
    // A standby that is started beside its primary may have to ask more than once.
    let copies = |node: &Node| log_of(node).matches("copying the primary").count();
    let copied = copies(&cluster.nodes[1]);
    cluster.nodes[1].stop();
    let mut lost = Node::new(cluster.base.path(), "s1", Role::Standby { upstream: other }, &[]);
    let control = lost.dir.join("global/towline_control");
    assert!(control.exists());
    lost.start_ready();
    wait_until("it to say why there is no stream", PATIENCE, || {
        log_of(&lost).contains("this node is a standby; ask the primary")
    });
    assert!(control.exists() && !lost.dir.join("towline.clone").exists());
    assert_eq!(lost.sql().value("select count(*) from t").unwrap(), "0");
    lost.stop();
    cluster.nodes[1].start_ready();
    cluster.wait_for_standbys();
    assert_eq!(copies(&cluster.nodes[1]), copied, "{}", log_of(&cluster.nodes[1]));
}

fn lost_slot() {
    let settings = [
        "max_slot_wal_keep_size=1MB",
        "max_wal_size=32MB",
        "min_wal_size=32MB",
        // What it writes could cost the new slot its log as well.
        "autovacuum=off",
    ];
    let mut cluster = Cluster::start(1, &settings);
    let sql = cluster.primary().sql();
    sql.query("create table t (id int, v text)").unwrap();
    cluster.wait_for_standbys();
    cluster.nodes[1].kill();
    sql.query(MUCH).unwrap();
    wait_until("the slot to be lost", PATIENCE, || {
        sql.query("checkpoint").unwrap();
        sql.query("insert into t select 0, repeat('x', 1000) from generate_series(1, 5000)")
            .unwrap();
        sql.value("select wal_status from pg_replication_slots").unwrap() == "lost"
    });
    cluster.nodes[1].start_ready();
    cluster.wait_for_standbys();
    let standby = cluster.nodes[1].sql();
    let count = "select count(*) from t";
    assert_eq!(standby.value(count).unwrap(), sql.value(count).unwrap());
    let log = log_of(&cluster.nodes[1]);
    assert_eq!(log.matches("must be cloned anew").count(), 1, "{log}");
    // The one it began with, and another.
    assert_eq!(log.matches("the copy is complete").count(), 2, "{log}");
    // The primary hears of what the standby has a moment after the standby has it.
    wait_until("the slot to be in use again", PATIENCE, || {
        let slots = sql.query("select wal_status, active from pg_replication_slots");
        slots.unwrap() == [[Some("reserved".to_owned()), Some("t".to_owned())]]
    });
}

fn reload_sync_names() {
    let mut cluster = Cluster::start(1, &[]);
    let file = cluster.primary().dir.join("towline.toml");
    let set =
        |names: &str| std::fs::write(&file, format!("synchronous_standby_names = \"{names}\"\n")).unwrap();
    let primary = cluster.nodes[0].sql();
    let show = || primary.value("show synchronous_standby_names").unwrap();
    primary.query("create table t (id int)").unwrap();
    set("FIRST 1 (nobody)");
    primary.query("select pg_reload_conf()").unwrap();
    assert_eq!(show(), "FIRST 1 (nobody)");
    let waiting = cluster.nodes[0].sql();
    let commit = std::thread::spawn(move || waiting.query("insert into t values (1)"));
    wait_until("the commit to wait", PATIENCE, || {
        let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
        primary.value(waiting).unwrap() == "1"
    });
    assert!(log_of(&cluster.nodes[0]).contains("waiting for 1 of (nobody)"));
    // A wrong value must not count as none: that would acknowledge commits that nobody else has.
    set("ANY 1 (");
    signal(cluster.nodes[0].pid().unwrap(), Signal::HUP);
    wait_until("the wrong value to be refused in the log", PATIENCE, || {
        log_of(&cluster.nodes[0]).contains("configuration not applied")
    });
    assert_eq!(show(), "FIRST 1 (nobody)");
    assert_eq!(primary.value("select count(*) from t").unwrap(), "0");
    assert!(!commit.is_finished());
    set("ANY 1 (s1)");
    signal(cluster.nodes[0].pid().unwrap(), Signal::HUP);
    wait_until("the commit to be released", PATIENCE, || commit.is_finished());
    commit.join().unwrap().unwrap();
    assert_eq!(primary.value("select count(*) from t").unwrap(), "1");
}
