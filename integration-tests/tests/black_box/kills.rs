//! `kill -9` at a random moment under load: no acknowledged row is missing afterwards, none is invented,
//! and the nodes are equal.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use towline_integration_tests::client::Sql;
use towline_integration_tests::node::{Cluster, PATIENCE};
use towline_integration_tests::wait::{wait_for, wait_until};

use crate::Case;

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![Case::new(
        "no_acknowledged_row_is_lost_when_nodes_are_killed_under_load",
        &[],
        kill_rounds,
    )]
};

/// Acknowledged rows that a round waits for before it kills.
const ROWS_PER_ROUND: usize = 500;
const WRITERS: usize = 8;

/// 20 rounds with TOWLINE_FULL=1, else a bounded form that kills each kind of node.
fn rounds() -> u64 {
    if std::env::var("TOWLINE_FULL").is_ok_and(|v| v == "1") {
        20
    } else {
        6
    }
}

#[derive(Default)]
struct Ledger {
    acknowledged: Mutex<BTreeSet<i64>>,
    attempted: Mutex<BTreeSet<i64>>,
    stop: AtomicBool,
}

/// Inserts numbers of its own, one row a transaction, until told to stop; reconnects when cut off.
fn write(port: u16, ledger: &Ledger, mut next: i64) {
    let mut connection: Option<Sql> = None;
    while !ledger.stop.load(Ordering::Relaxed) {
        let Some(sql) = connection.take().or_else(|| Sql::connect(port).ok()) else {
            std::thread::park_timeout(Duration::from_millis(20));
            continue;
        };
        ledger.attempted.lock().unwrap().insert(next);
        let insert = format!("insert into acked values ({next}, repeat('v', {}))", next % 300);
        if sql.query_within(&insert, Duration::from_secs(2)).is_ok() {
            ledger.acknowledged.lock().unwrap().insert(next);
            connection = Some(sql);
        }
        next += 1;
    }
}

fn rows(sql: &Sql) -> BTreeSet<i64> {
    let rows = sql.query("select id from acked order by id").unwrap();
    let found: BTreeSet<i64> = rows
        .iter()
        .map(|r| r[0].as_ref().unwrap().parse().unwrap())
        .collect();
    assert_eq!(found.len(), rows.len(), "a row stands twice");
    found
}

fn kill_rounds() {
    let seed = std::env::var("TOWLINE_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| rand::rng().random());
    println!("TOWLINE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(2, &["synchronous_standby_names=ANY 1 (*)"]);
    cluster
        .primary()
        .sql()
        .query("create table acked (id bigint primary key, v text)")
        .unwrap();
    let port = cluster.nodes[0].sql_port;
    let mut base = 0_i64;
    let mut all_acknowledged = BTreeSet::new();
    let mut all_attempted = BTreeSet::new();
    for round in 0..rounds() {
        let ledger = Arc::new(Ledger::default());
        let writers: Vec<_> = (0..WRITERS)
            .map(|w| {
                let ledger = Arc::clone(&ledger);
                let first = base + w as i64 * 1_000_000;
                std::thread::spawn(move || write(port, &ledger, first))
            })
            .collect();
        base += WRITERS as i64 * 1_000_000;
        let extra = random.random_range(0..ROWS_PER_ROUND);
        wait_until("enough acknowledged rows", PATIENCE, || {
            ledger.acknowledged.lock().unwrap().len() >= ROWS_PER_ROUND + extra
        });
        let victims: Vec<usize> = match round % 3 {
            0 => vec![0],
            1 => vec![1 + random.random_range(0..2)],
            _ => vec![0, 1, 2],
        };
        for victim in &victims {
            cluster.nodes[*victim].kill();
        }
        ledger.stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().unwrap();
        }
        for victim in &victims {
            cluster.nodes[*victim].start();
        }
        for victim in &victims {
            cluster.nodes[*victim].wait_ready();
        }
        all_acknowledged.extend(ledger.acknowledged.lock().unwrap().iter());
        all_attempted.extend(ledger.attempted.lock().unwrap().iter());

        let on_primary = wait_for("the primary to release what it has", PATIENCE, || {
            let found = rows(&cluster.nodes[0].sql());
            all_acknowledged.is_subset(&found).then_some(found)
        });
        let invented: Vec<_> = on_primary.difference(&all_attempted).collect();
        assert!(
            invented.is_empty(),
            "seed {seed}, round {round}: rows that nobody wrote: {invented:?}"
        );
        cluster.wait_for_standbys();
        for standby in &cluster.nodes[1..] {
            wait_until(
                &format!(
                    "{} to equal the primary, seed {seed}, round {round}",
                    standby.name
                ),
                PATIENCE,
                // What a writer gave up on may still be on its way: the primary is asked again as well.
                || rows(&standby.sql()) == rows(&cluster.nodes[0].sql()),
            );
        }
    }
}
