//! What an idle cluster costs: memory (Pss) of each node 60 s after its start, what 1,000 idle connections add, and CPU.
//!
//! `cargo bench -p towline-integration-tests --bench footprint`
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use towline_integration_tests::node::{Cluster, Node};
use towline_integration_tests::wait::wait_until;

const CONNECTIONS: usize = 1_000;

/// Proportional set size of a process, in kB.
fn pss(node: &Node) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", node.pid().unwrap())).unwrap();
    let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// CPU seconds that a process has used.
fn cpu(node: &Node) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.pid().unwrap())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum::<f64>()
        / 100.0
}

fn pass(what: &str, time: Duration) {
    let end = Instant::now() + time;
    wait_until(what, time * 2, || Instant::now() >= end);
}

fn main() {
    let settings = [
        "shared_buffers=64MB",
        "max_connections=1100",
        "synchronous_standby_names=ANY 1 (*)",
    ];
    let cluster = Cluster::start(2, &settings);
    pass("60 s after the start", Duration::from_secs(60));
    for node in &cluster.nodes {
        println!("{:<4} Pss {:>6} kB", node.name, pss(node));
    }
    let before: Vec<f64> = cluster.nodes.iter().map(cpu).collect();
    pass("30 s of idling", Duration::from_secs(30));
    let used: f64 = cluster
        .nodes
        .iter()
        .map(cpu)
        .zip(&before)
        .map(|(after, before)| after - before)
        .sum();
    println!(
        "idle cluster: {:.2} % of a core over 30 s, all nodes",
        used / 30.0 * 100.0
    );

    let primary = &cluster.nodes[0];
    let alone = pss(primary);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let config = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres",
        primary.sql_port
    );
    let clients: Vec<tokio_postgres::Client> = runtime.block_on(async {
        let mut clients = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
                .await
                .unwrap();
            tokio::spawn(connection);
            client.simple_query("select 1").await.unwrap();
            clients.push(client);
        }
        clients
    });
    pass("the connections to idle", Duration::from_secs(5));
    println!(
        "{} idle connections add {} kB",
        clients.len(),
        pss(primary).saturating_sub(alone)
    );
}
