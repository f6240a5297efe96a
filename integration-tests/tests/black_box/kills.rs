//! `kill -9` at a random moment under load: no acknowledged row is missing afterwards, none is invented,
//! and the nodes are equal. Of a mix of transactions on a node alone, each is wholly there or wholly absent.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use towline_integration_tests::client::Sql;
use towline_integration_tests::node::{Cluster, PATIENCE};
use towline_integration_tests::raw::Raw;
use towline_integration_tests::tools::towline;
use towline_integration_tests::wait::wait_until;

use crate::Case;
use crate::mixed::{self, SCHEMA, Side, State};

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![
        Case::new(
            "no_acknowledged_row_is_lost_when_nodes_are_killed_under_load",
            &[],
            kill_rounds,
        ),
        Case::new(
            "a_primary_killed_and_started_with_its_standbys_away_shows_every_acknowledged_row",
            &[],
            alone_after_a_kill,
        ),
        Case::new(
            "every_transaction_of_a_mix_is_kept_or_undone_as_a_whole_when_a_node_is_killed",
            &[],
            kill_rounds_mixed,
        ),
    ]
};

/// Acknowledged rows that a round waits for before it kills.
const ROWS_PER_ROUND: usize = 500;
const WRITERS: usize = 8;
/// Clients of the mixed rounds.
const OWNERS: usize = 4;

/// So many rounds with TOWLINE_FULL=1, else a bounded form.
fn rounds(full: u64, bounded: u64) -> u64 {
    if std::env::var("TOWLINE_FULL").is_ok_and(|v| v == "1") {
        full
    } else {
        bounded
    }
}

/// Of TOWLINE_SEED, to repeat a run, or a new one.
fn seed() -> u64 {
    let given = std::env::var("TOWLINE_SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(|| rand::rng().random());
    println!("TOWLINE_SEED={seed}");
    seed
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

/// Writers with numbers from `base` on, a million for each.
fn start_writers(port: u16, base: i64) -> (Arc<Ledger>, Vec<JoinHandle<()>>) {
    let ledger = Arc::new(Ledger::default());
    let writers = (0..WRITERS)
        .map(|w| {
            let ledger = Arc::clone(&ledger);
            let first = base + w as i64 * 1_000_000;
            std::thread::spawn(move || write(port, &ledger, first))
        })
        .collect();
    (ledger, writers)
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
    let seed = seed();
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
    // Each kind of node is a victim, in the bounded form too.
    for round in 0..rounds(20, 6) {
        let (ledger, writers) = start_writers(port, base);
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

        // At its first answer, whoever of its standbys is back.
        let on_primary = rows(&cluster.nodes[0].sql());
        let missing: Vec<_> = all_acknowledged.difference(&on_primary).collect();
        assert!(
            missing.is_empty(),
            "seed {seed}, round {round}: acknowledged rows are missing: {missing:?}"
        );
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

/// A statement that looks for rows to change waits until it can see all that were acknowledged, or might have been.
fn alone_after_a_kill() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(1, &[]);
    let sql = cluster.primary().sql();
    let require_standby = "alter system set synchronous_standby_names = 'ANY 1 (*)'";
    sql.query(require_standby).unwrap();
    sql.query("select pg_reload_conf()").unwrap();
    sql.query("create table acked (id bigint primary key, v text)")
        .unwrap();
    let port = cluster.nodes[0].sql_port;
    let (ledger, writers) = start_writers(port, 0);
    let enough = ROWS_PER_ROUND + random.random_range(0..ROWS_PER_ROUND);
    wait_until("enough acknowledged rows", PATIENCE, || {
        ledger.acknowledged.lock().unwrap().len() >= enough
    });
    ledger.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    // The log's last record is this commit, which cannot tell that the quorum has it.
    let sql = cluster.nodes[0].sql();
    sql.query("insert into acked values (-1, 'the last')").unwrap();
    let mut acknowledged = ledger.acknowledged.lock().unwrap().clone();
    acknowledged.insert(-1);
    for node in [1, 0] {
        cluster.nodes[node].kill();
    }
    // Twice, since a start that releases nothing must not forget.
    for _ in 0..2 {
        cluster.nodes[0].kill();
        cluster.nodes[0].start_ready();
        let sql = cluster.nodes[0].sql();
        let found = rows(&sql);
        let missing: Vec<_> = acknowledged.difference(&found).collect();
        assert!(missing.is_empty(), "seed {seed}: {missing:?}");
        sql.query("set statement_timeout = '200ms'").unwrap();
        for change in [
            "update acked set v = 'x'",
            "select * from acked for update",
            "select * from (select * from acked for update) s",
            "copy acked from stdin",
            "create table u (id int)",
        ] {
            let refused = sql.query(change).unwrap_err();
            assert_eq!(
                refused.sqlstate.as_deref(),
                Some("57014"),
                "{change}: {refused:?}"
            );
        }
        let refused = sql.query("begin read only; delete from acked").unwrap_err();
        assert_eq!(refused.sqlstate.as_deref(), Some("25006"), "{refused:?}");
    }
    let waiting = Sql::connect(port).unwrap();
    let update = std::thread::spawn(move || waiting.query("update acked set v = 'x' returning id"));
    cluster.nodes[1].start_ready();
    let updated = update.join().unwrap().unwrap();
    assert_eq!(updated.len(), rows(&cluster.nodes[0].sql()).len());
    // What ends the wait for good.
    for node in [1, 0] {
        cluster.nodes[node].kill();
    }
    cluster.nodes[0].start_ready();
    let sql = cluster.nodes[0].sql();
    sql.query("alter system set synchronous_standby_names = ''")
        .unwrap();
    sql.query("select pg_reload_conf()").unwrap();
    assert_eq!(
        sql.query("delete from acked returning id").unwrap().len(),
        updated.len()
    );
}

/// A client of the mixed rounds.
struct Owner {
    number: usize,
    random: StdRng,
    /// What it has been told that it owns.
    state: State,
    /// What it owns if the commit is there whose answer it did not get.
    perhaps: Option<State>,
}

/// Works until the connection breaks. Nothing that it does may be refused.
fn work(port: u16, mut owner: Owner, acknowledged: &AtomicUsize) -> Owner {
    let (Ok(sql), Ok(mut raw)) = (Sql::connect(port), Raw::log_in(port)) else {
        return owner;
    };
    loop {
        let work = mixed::plan(&mut owner.random, owner.number, &owner.state);
        for (at, text) in work.texts.iter().enumerate() {
            let broken = match &work.copy {
                Some(data) => raw.copy_in(text, data).err().map(|error| {
                    assert_ne!(error.kind(), io::ErrorKind::Other, "{text:.200}: {error}");
                }),
                None => sql.query(text).err().map(|failure| {
                    assert_eq!(failure.sqlstate, None, "{text:.200}: {failure:?}");
                }),
            };
            if broken.is_some() {
                owner.perhaps = (at + 1 == work.texts.len()).then_some(work.after);
                return owner;
            }
        }
        owner.state = work.after;
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a client owns, as the node has it.
fn owned(sql: &Sql, number: usize) -> State {
    let rows = |query: String| sql.query(&query).unwrap().into_iter();
    let of_ledger = format!("select id, n, v from ledger where owner = {number}");
    let rows_of_ledger: Vec<_> = rows(of_ledger).collect();
    let count = rows_of_ledger.len();
    let cell = |row: &[Option<String>], at: usize| row[at].clone().unwrap();
    let row = |row: Vec<Option<String>>| {
        let (id, n) = (cell(&row, 0).parse().unwrap(), cell(&row, 1).parse().unwrap());
        (id, (n, cell(&row, 2).into()))
    };
    let owned: BTreeMap<i32, (i64, Arc<str>)> = rows_of_ledger.into_iter().map(row).collect();
    assert_eq!(owned.len(), count, "a row stands twice");
    let is_there = |relation: String| {
        let named = format!("select count(*) from pg_class where relname = '{relation}'");
        sql.value(&named).unwrap() == "1"
    };
    let side = is_there(format!("side_{number}")).then(|| {
        let of_side = rows(format!("select id, n from side_{number}"));
        let row = |row: Vec<Option<String>>| (cell(&row, 0).parse().unwrap(), cell(&row, 1).parse().unwrap());
        Side {
            rows: of_side.map(row).collect(),
            indexed: is_there(format!("side_{number}_n")),
        }
    });
    State { rows: owned, side }
}

/// The table's rows by an index, in its order, are those that a scan of the table finds; in a range of the first key as well.
fn index_agrees(sql: &Sql, table: &str, keys: &str) {
    let numbers = |query: &str| -> Vec<Vec<i64>> {
        let rows = sql.query(query).unwrap().into_iter();
        let row = |row: Vec<Option<String>>| row.iter().flatten().map(|n| n.parse().unwrap()).collect();
        rows.map(row).collect()
    };
    let (first, _) = keys.split_once(',').unwrap_or((keys, ""));
    for (by_index, by_scan) in [
        (String::new(), String::new()),
        (
            format!("where {first} >= 100 and {first} < 50000"),
            format!("where {first} + 0 >= 100 and {first} + 0 < 50000"),
        ),
    ] {
        let by_index = format!("select {keys} from {table} {by_index} order by {keys} limit 1000000");
        let by_scan = format!("select {keys} from {table} {by_scan}");
        for (query, way) in [(&by_index, "Index Scan"), (&by_scan, "Seq Scan")] {
            let plan = format!("{:?}", sql.query(&format!("explain {query}")).unwrap());
            assert!(plan.contains(way), "{query}: {plan}");
        }
        let mut scanned = numbers(&by_scan);
        scanned.sort_unstable();
        assert_eq!(numbers(&by_index), scanned, "{by_index}");
    }
}

/// Everything that is there is what the clients own, and indexes agree with their tables.
fn check(sql: &Sql, owners: &mut [Owner]) {
    for owner in owners.iter_mut() {
        let found = owned(sql, owner.number);
        let perhaps = owner.perhaps.take();
        assert!(
            found == owner.state || perhaps.as_ref() == Some(&found),
            "client {} owns {:#?}\nor {perhaps:#?}\nand there is {found:#?}",
            owner.number,
            owner.state
        );
        owner.state = found;
        if let Some(side) = &owner.state.side {
            let table = format!("side_{}", owner.number);
            index_agrees(sql, &table, "id");
            if side.indexed {
                index_agrees(sql, &table, "n, id");
            }
        }
    }
    index_agrees(sql, "ledger", "owner, id");
    index_agrees(sql, "ledger", "n, owner, id");
    let all: usize = owners.iter().map(|owner| owner.state.rows.len()).sum();
    assert_eq!(sql.value("select count(*) from ledger").unwrap(), all.to_string());
    let sides = owners.iter().filter(|owner| owner.state.side.is_some()).count();
    let tables = "select count(*) from pg_class where relkind = 'r' and relname like 'side%'";
    assert_eq!(sql.value(tables).unwrap(), sides.to_string());
}

/// On the same data from first to last, with small buffers and little log, so that pages are written and segments go all the time.
fn kill_rounds_mixed() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let settings = [
        "synchronous_standby_names=",
        "shared_buffers=16MB",
        "max_wal_size=32MB",
        "min_wal_size=32MB",
        "autovacuum_naptime=1s",
    ];
    let mut cluster = Cluster::start(0, &settings);
    let node = cluster.primary();
    node.sql().query(SCHEMA).unwrap();
    let port = node.sql_port;
    let mut owners: Vec<Owner> = (0..OWNERS)
        .map(|number| Owner {
            number,
            random: StdRng::seed_from_u64(random.random()),
            state: State::default(),
            perhaps: None,
        })
        .collect();
    for round in 0..rounds(200, 5) {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let clients: Vec<JoinHandle<Owner>> = owners
            .drain(..)
            .map(|owner| {
                let acknowledged = Arc::clone(&acknowledged);
                std::thread::spawn(move || work(port, owner, &acknowledged))
            })
            .collect();
        let enough = random.random_range(20..400);
        wait_until("enough acknowledged transactions", PATIENCE, || {
            acknowledged.load(Ordering::Relaxed) >= enough || clients.iter().any(JoinHandle::is_finished)
        });
        node.kill();
        owners = clients.into_iter().map(|client| client.join().unwrap()).collect();
        if random.random_bool(0.3) {
            // And again on its way up.
            node.start();
            wait_until("it to listen", PATIENCE, || {
                TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
            node.kill();
        }
        node.start_ready();
        println!(
            "round {round}: {} acknowledged",
            acknowledged.load(Ordering::Relaxed)
        );
        check(&node.sql(), &mut owners);
    }
    assert_eq!(node.stop(), Some(0));
    let mut checksums = Command::new(towline());
    let said = checksums.arg("checksums").arg(&node.dir).output().unwrap();
    assert!(said.status.success(), "{said:?}");
}
