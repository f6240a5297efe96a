//! Recovery beside the peer: the same number of pgbench transactions on Towline and PostgreSQL 15, both killed, and how long each takes until it
//! answers again, from one and the same copy of its files every time. Prints seconds until the first answer, seconds of redo alone, CPU
//! seconds of the server processes, and WAL bytes a transaction; for Towline with 1, 2 and 4 appliers.
//!
//! `cargo bench -p towline-integration-tests --bench recovery -- [--quick] [--transactions N] [--scale N] [--repeats N] [--cold]`
//! Needs only Debian's postgresql-15. `--cold` empties the system's page cache before each start, which only root may.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use towline_integration_tests::client::Sql;
use towline_integration_tests::node::{Node, PATIENCE, Role};
use towline_integration_tests::peer::Postgres;
use towline_integration_tests::process::cpu_seconds;
use towline_integration_tests::tools::{missing, need};

const SETTINGS: &[&str] = &["shared_buffers=1GB", "max_wal_size=32GB", "checkpoint_timeout=1h"];
const APPLIERS: [&str; 3] = ["replay_appliers=1", "replay_appliers=2", "replay_appliers=4"];
const CLIENTS: u32 = 16;
/// Between two looks whether the server answers.
const LOOK: Duration = Duration::from_millis(2);

struct Options {
    transactions: u32,
    scale: u32,
    repeats: usize,
    cold: bool,
}

fn options() -> Options {
    let mut options = Options {
        transactions: 400_000,
        scale: 50,
        repeats: 5,
        cold: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            words
                .next()
                .and_then(|n| n.parse::<u32>().ok())
                .expect("a number follows")
        };
        match word.as_str() {
            "--bench" => {}
            "--quick" => (options.transactions, options.scale, options.repeats) = (40_000, 10, 3),
            "--transactions" => options.transactions = number(),
            "--scale" => options.scale = number(),
            "--repeats" => options.repeats = number() as usize,
            "--cold" => options.cold = true,
            other => panic!("unknown option {other}"),
        }
    }
    options
}

fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn pgbench(port: u16, arguments: &str) {
    run(Command::new(need("pgbench"))
        .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()])
        .args(arguments.split(' '))
        .arg("postgres"));
}

/// Fills the tables and changes them; returns the bytes of WAL that the changes wrote.
fn work(port: u16, options: &Options) -> f64 {
    pgbench(port, &format!("-i -q -s {}", options.scale));
    let sql = Sql::connect(port).unwrap();
    sql.query("checkpoint").unwrap();
    let from = sql.value("select pg_current_wal_insert_lsn()").unwrap();
    let each = options.transactions / CLIENTS;
    pgbench(port, &format!("-n -M prepared -c {CLIENTS} -j 2 -t {each}"));
    let written = format!("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{from}')::float8");
    sql.value(&written).unwrap().parse().unwrap()
}

/// What one start came to.
struct Sample {
    /// Seconds until the first answer.
    wall: f64,
    /// Seconds of redo by the server's own words.
    redo: f64,
    /// CPU seconds of its processes until then.
    cpu: f64,
}

fn first_answer(port: u16, begun: Instant) -> f64 {
    while !Sql::connect(port).is_ok_and(|sql| sql.value("select 1").is_ok()) {
        assert!(begun.elapsed() < PATIENCE, "no answer on port {port}");
        std::thread::sleep(LOOK);
    }
    begun.elapsed().as_secs_f64()
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

fn settle(options: &Options) {
    run(&mut Command::new("sync"));
    if options.cold {
        std::fs::write("/proc/sys/vm/drop_caches", "3").expect("only root may empty the page cache");
    }
}

/// The number that stands between these words in the last line that has them.
fn number_between(log: &Path, before: &str, after: &str) -> f64 {
    let text = std::fs::read_to_string(log).unwrap();
    let found = text.lines().rev().find_map(|line| {
        let rest = line.split_once(before)?.1;
        rest.split_once(after)?.0.trim().parse().ok()
    });
    found.unwrap_or_else(|| panic!("{} has no line with {before:?}", log.display()))
}

fn ours(base: &Path, saved: &Path, appliers: &str, options: &Options) -> Sample {
    copy(saved, &base.join("p"));
    let mut settings = SETTINGS.to_vec();
    settings.extend(["synchronous_standby_names=", appliers]);
    let mut node = Node::new(base, "p", Role::Primary, &settings);
    settle(options);
    let begun = Instant::now();
    node.start();
    let wall = first_answer(node.sql_port, begun);
    let cpu = cpu_seconds(node.pid().unwrap());
    node.kill();
    let redo = number_between(&base.join("p/log/towline.log"), "redo done: ", " s,");
    Sample { wall, redo, cpu }
}

fn theirs(server: &Postgres, saved: &Path, options: &Options) -> Sample {
    copy(saved, &server.data);
    settle(options);
    let begun = Instant::now();
    server.start_without_waiting();
    let wall = first_answer(server.port, begun);
    let cpu = cpu_seconds(server.pid());
    server.kill();
    let redo = number_between(&server.log(), "elapsed: ", " s");
    Sample { wall, redo, cpu }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print(name: &str, samples: &[Sample]) {
    let column = |f: &dyn Fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(f).collect();
        let middle = median(&mut values);
        format!(
            "{middle:>6.2} ({:.2} to {:.2})",
            values[0],
            values[values.len() - 1]
        )
    };
    println!(
        "{name:<20} answers after {} s   redo {} s   cpu {} s",
        column(&|sample| sample.wall),
        column(&|sample| sample.redo),
        column(&|sample| sample.cpu)
    );
}

fn main() {
    let options = options();
    let lacking = missing(&["pgbench", "initdb", "pg_ctl"]);
    if !lacking.is_empty() {
        println!(
            "benchmark not run: {} not installed (Debian: postgresql-15)",
            lacking.join(", ")
        );
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let mut settings = SETTINGS.to_vec();
    settings.push("synchronous_standby_names=");
    let mut node = Node::new(base.path(), "p", Role::Primary, &settings);
    node.init();
    node.start_ready();
    let our_wal = work(node.sql_port, &options);
    node.kill();
    let our_copy = base.path().join("saved");
    copy(&node.dir, &our_copy);

    let server = Postgres::start_with(SETTINGS);
    let their_wal = work(server.port, &options);
    server.kill();
    let their_copy = PathBuf::from(format!("{}.saved", server.data.display()));
    copy(&server.data, &their_copy);

    let transactions = f64::from(options.transactions / CLIENTS * CLIENTS);
    println!(
        "{transactions} tpcb-like transactions, scale {}, {} repeats, {}: WAL bytes a transaction {:.0} / {:.0} (towline / postgresql 15)",
        options.scale,
        options.repeats,
        if options.cold {
            "files not in memory"
        } else {
            "files in memory"
        },
        our_wal / transactions,
        their_wal / transactions,
    );
    let mut samples: Vec<Vec<Sample>> = (0..=APPLIERS.len()).map(|_| Vec::new()).collect();
    for repeat in 0..options.repeats {
        // Each takes its turn at being first.
        for turn in 0..samples.len() {
            let which = (repeat + turn) % samples.len();
            let sample = match APPLIERS.get(which) {
                Some(appliers) => ours(base.path(), &our_copy, appliers, &options),
                None => theirs(&server, &their_copy, &options),
            };
            samples[which].push(sample);
        }
    }
    for (which, samples) in samples.iter().enumerate() {
        print(APPLIERS.get(which).unwrap_or(&"postgresql 15"), samples);
    }
}
