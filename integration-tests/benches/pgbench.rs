//! The benchmark against the peer: the same pgbench in ABBA pairs on Towline and PostgreSQL 15, in one run,
//! on one machine, with equal settings. Prints for each row the median ratio with its range, CPU seconds per
//! transaction summed over the server processes, and log syncs per transaction on both sides.
//!
//! `cargo bench -p towline-integration-tests -- [--quick] [--pairs N] [--seconds N] [--nodes 1|2] [--scale N] [FILTER]`
//! Needs only Debian's postgresql-15. Any error of a client ends the comparison.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use towline_integration_tests::client::Sql;
use towline_integration_tests::node::Cluster;
use towline_integration_tests::peer::Postgres;
use towline_integration_tests::process::cpu_seconds;
use towline_integration_tests::tools::{missing, need};

const SETTINGS: &[&str] = &[
    "shared_buffers=1GB",
    "max_wal_size=4GB",
    "checkpoint_timeout=30min",
    "max_connections=300",
];

/// One line of the table.
struct Row {
    name: &'static str,
    script: &'static str,
    clients: u32,
}

const ROWS: &[Row] = &[
    Row {
        name: "select-only -c 1",
        script: "select-only",
        clients: 1,
    },
    Row {
        name: "select-only -c 16",
        script: "select-only",
        clients: 16,
    },
    Row {
        name: "tpcb-like -c 1",
        script: "tpcb-like",
        clients: 1,
    },
    Row {
        name: "tpcb-like -c 16",
        script: "tpcb-like",
        clients: 16,
    },
    Row {
        name: "tpcb-like -c 64",
        script: "tpcb-like",
        clients: 64,
    },
    Row {
        name: "simple-update -c 1",
        script: "simple-update",
        clients: 1,
    },
    Row {
        name: "simple-update -c 16",
        script: "simple-update",
        clients: 16,
    },
    Row {
        name: "simple-update -c 64",
        script: "simple-update",
        clients: 64,
    },
];

struct Options {
    pairs: usize,
    seconds: u32,
    nodes: usize,
    scale: u32,
    filter: Option<String>,
}

fn options() -> Options {
    let mut options = Options {
        pairs: 7,
        seconds: 20,
        nodes: 1,
        scale: 10,
        filter: None,
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
            "--quick" => (options.pairs, options.seconds) = (3, 4),
            "--pairs" => options.pairs = number() as usize,
            "--seconds" => options.seconds = number(),
            "--nodes" => options.nodes = number() as usize,
            "--scale" => options.scale = number(),
            other => options.filter = Some(other.to_owned()),
        }
    }
    options
}

/// One server side of the comparison.
struct Side {
    port: u16,
    pids: Vec<u32>,
}

/// What one pgbench run measured.
#[derive(Clone, Copy)]
struct Sample {
    tps: f64,
    /// CPU seconds of all server processes per transaction.
    cpu: f64,
    /// WAL syncs of the primary per transaction.
    syncs: f64,
}

fn run_pgbench(port: u16, arguments: &[String]) -> String {
    let out = Command::new(need("pgbench"))
        .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()])
        .args(arguments)
        .arg("postgres")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr).to_lowercase();
    let failed = ["error", "abort", "fatal"]
        .iter()
        .any(|word| stderr.contains(word));
    assert!(
        out.status.success() && !failed,
        "pgbench {arguments:?} on port {port}: {stderr}"
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn syncs(port: u16) -> f64 {
    Sql::connect(port)
        .unwrap()
        .value("select wal_sync from pg_stat_wal")
        .unwrap()
        .parse()
        .unwrap()
}

fn measure(side: &Side, row: &Row, options: &Options) -> Sample {
    let cpu = || side.pids.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>();
    let (cpu_before, syncs_before) = (cpu(), syncs(side.port));
    let arguments: Vec<String> = format!(
        "-n -M prepared -b {} -c {} -j {} -T {}",
        row.script,
        row.clients,
        row.clients.min(2),
        options.seconds
    )
    .split(' ')
    .map(str::to_owned)
    .collect();
    let report = run_pgbench(side.port, &arguments);
    let after = |prefix: &str| {
        let line = report.lines().find(|l| l.starts_with(prefix)).unwrap();
        let rest = &line[prefix.len()..];
        let number: String = rest
            .chars()
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        number.parse::<f64>().unwrap()
    };
    let transactions = after("number of transactions actually processed: ");
    Sample {
        tps: after("tps = "),
        cpu: (cpu() - cpu_before) / transactions,
        syncs: (syncs(side.port) - syncs_before) / transactions,
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn compare(ours: &Side, theirs: &Side, row: &Row, options: &Options) {
    let mut pairs: Vec<(Sample, Sample)> = Vec::new();
    for i in 0..options.pairs {
        let pair = if i % 2 == 0 {
            let a = measure(ours, row, options);
            (a, measure(theirs, row, options))
        } else {
            let b = measure(theirs, row, options);
            (measure(ours, row, options), b)
        };
        pairs.push(pair);
    }
    let column = |f: &dyn Fn(&(Sample, Sample)) -> f64| median(&mut pairs.iter().map(f).collect::<Vec<_>>());
    let mut ratios: Vec<f64> = pairs.iter().map(|(a, b)| a.tps / b.tps).collect();
    let middle = median(&mut ratios);
    println!(
        "{:<22} ratio {:.2} ({:.2} to {:.2})  tps {:>7.0} / {:>7.0}  cpu µs/tx {:>6.0} / {:>6.0}  syncs/tx {:.3} / {:.3}",
        row.name,
        middle,
        ratios[0],
        ratios[ratios.len() - 1],
        column(&|p| p.0.tps),
        column(&|p| p.1.tps),
        column(&|p| p.0.cpu) * 1e6,
        column(&|p| p.1.cpu) * 1e6,
        column(&|p| p.0.syncs),
        column(&|p| p.1.syncs),
    );
}

fn main() {
    let options = options();
    let lacking = missing(&["pgbench", "initdb", "pg_ctl", "pg_basebackup"]);
    if !lacking.is_empty() {
        println!(
            "benchmark not run: {} not installed (Debian: postgresql-15)",
            lacking.join(", ")
        );
        return;
    }
    let standbys = options.nodes - 1;
    let names = if standbys == 0 { "" } else { "*" };
    let sync = format!("synchronous_standby_names={names}");
    let mut settings = SETTINGS.to_vec();
    let theirs = Postgres::start_with(&settings);
    let their_standbys: Vec<Postgres> = (1..=standbys).map(|i| theirs.standby(&format!("s{i}"))).collect();
    if standbys > 0 {
        let sql = theirs.sql();
        sql.query("alter system set synchronous_standby_names = '*'")
            .unwrap();
        sql.query("select pg_reload_conf()").unwrap();
    }
    settings.push(&sync);
    let ours = Cluster::start(standbys, &settings);

    let our_side = Side {
        port: ours.nodes[0].sql_port,
        pids: ours.nodes.iter().filter_map(|n| n.pid()).collect(),
    };
    let their_side = Side {
        port: theirs.port,
        pids: std::iter::once(&theirs)
            .chain(&their_standbys)
            .map(Postgres::pid)
            .collect(),
    };
    for side in [&our_side, &their_side] {
        let fill: Vec<String> = ["-i", "-q", "-s", &options.scale.to_string()]
            .iter()
            .map(|s| (*s).to_owned())
            .collect();
        run_pgbench(side.port, &fill);
    }
    println!(
        "towline / postgresql 15, {} node(s) a side, scale {}, {} pairs of {} s, prepared",
        options.nodes, options.scale, options.pairs, options.seconds
    );
    // A whole name stands for its row alone, a part for all that have it.
    let whole = ROWS.iter().any(|row| options.filter.as_deref() == Some(row.name));
    for row in ROWS {
        let chosen = |filter: &String| {
            if whole {
                row.name == filter
            } else {
                row.name.contains(filter.as_str())
            }
        };
        if options.filter.as_ref().is_none_or(chosen) {
            compare(&our_side, &their_side, row, &options);
        }
    }
}
