//! PostgreSQL 15's own pgbench, unmodified: every built-in script, every protocol mode, one and 32 clients.

use std::process::Command;

use towline_integration_tests::client::Sql;
use towline_integration_tests::node::{Cluster, Node};
use towline_integration_tests::tools::need;

use crate::Case;

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![
        Case::new(
            "pgbench_runs_every_script_in_every_mode_and_all_nodes_agree",
            &["pgbench"],
            every_script,
        ),
        Case::new(
            "pgbench_fills_its_tables_on_the_server",
            &["pgbench"],
            server_side_fill,
        ),
    ]
};

/// Rows per scale factor in pgbench_accounts.
const ACCOUNTS: u64 = 100_000;

/// The scale of the runs: 10 as documented with TOWLINE_FULL=1, else a smaller one that exercises the same.
fn scale() -> u64 {
    if std::env::var("TOWLINE_FULL").is_ok_and(|v| v == "1") {
        10
    } else {
        2
    }
}

fn pgbench(node: &Node, arguments: &[&str]) -> String {
    let out = Command::new(need("pgbench"))
        .args([
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
            &node.sql_port.to_string(),
        ])
        .args(arguments)
        .arg("postgres")
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(out.status.success(), "pgbench {arguments:?}: {stdout}{stderr}");
    let noise = stderr.to_lowercase();
    assert!(
        !noise.contains("error") && !noise.contains("abort") && !noise.contains("fatal"),
        "{stderr}"
    );
    stdout.into_owned()
}

fn processed(report: &str) -> u64 {
    let line = report
        .lines()
        .find(|l| l.starts_with("number of transactions actually processed"))
        .unwrap();
    line.split(": ")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn number(sql: &Sql, query: &str) -> i64 {
    sql.value(query).unwrap().parse().unwrap()
}

/// The sums that every tpcb-like transaction keeps equal, and the counts that none changes.
fn agree(sql: &Sql, who: &str, history: u64) {
    let scale = scale() as i64;
    assert_eq!(
        number(sql, "select count(*) from pgbench_accounts"),
        scale * ACCOUNTS as i64,
        "{who}"
    );
    assert_eq!(
        number(sql, "select count(*) from pgbench_tellers"),
        scale * 10,
        "{who}"
    );
    assert_eq!(
        number(sql, "select count(*) from pgbench_branches"),
        scale,
        "{who}"
    );
    assert_eq!(
        number(sql, "select count(*) from pgbench_history"),
        history as i64,
        "{who}"
    );
    let accounts = number(sql, "select sum(abalance) from pgbench_accounts");
    let history = number(sql, "select coalesce(sum(delta), 0) from pgbench_history");
    assert_eq!(accounts, history, "{who}: accounts against history");
    let tellers = number(sql, "select sum(tbalance) from pgbench_tellers");
    let branches = number(sql, "select sum(bbalance) from pgbench_branches");
    assert_eq!(tellers, branches, "{who}: tellers against branches");
}

fn every_script() {
    let mut cluster = Cluster::start(2, &["synchronous_standby_names=ANY 1 (*)"]);
    pgbench(&cluster.nodes[0], &["-i", "-q", "-s", &scale().to_string()]);
    let mut history = 0;
    for clients in ["1", "32"] {
        let each = if clients == "1" { "200" } else { "30" };
        for mode in ["simple", "extended", "prepared"] {
            for script in ["tpcb-like", "simple-update", "select-only"] {
                let report = pgbench(
                    &cluster.nodes[0],
                    &[
                        "-n", "-b", script, "-M", mode, "-c", clients, "-j", "2", "-t", each,
                    ],
                );
                if script != "select-only" {
                    history += processed(&report);
                }
            }
        }
    }
    agree(&cluster.nodes[0].sql(), "primary", history);
    cluster.wait_for_standbys();
    cluster.primary().kill();
    for standby in &cluster.nodes[1..] {
        agree(&standby.sql(), &standby.name, history);
    }
}

fn server_side_fill() {
    let mut cluster = Cluster::start(0, &["synchronous_standby_names="]);
    let node = cluster.primary();
    pgbench(node, &["-i", "-q", "-I", "dtGvp", "-s", &scale().to_string()]);
    agree(&node.sql(), "primary", 0);
}
