//! psql 15 by hand: the same script on Towline and on PostgreSQL prints the same, errors with their positions
//! included; Ctrl-C cancels.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use towline_integration_tests::node::{Cluster, PATIENCE};
use towline_integration_tests::peer::Postgres;
use towline_integration_tests::tools::psql;
use towline_integration_tests::wait::{wait_for, wait_until};

use crate::Case;

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![
        Case::new(
            "psql_prints_on_us_what_it_prints_on_postgresql",
            &["psql", "initdb", "pg_ctl"],
            same_output,
        ),
        Case::new(
            "interrupting_psql_cancels_its_query",
            &["psql"],
            interrupt_cancels,
        ),
        Case::new("psql_tells_the_time_of_a_query", &["psql"], timing),
    ]
};

/// What a script prints, both streams in the order in which a terminal shows them.
fn output(port: u16, script: &Path) -> Vec<String> {
    let line = format!("exec \"$0\" \"$@\" -a -f '{}' 2>&1", script.display());
    let psql = psql(port);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &line])
        .arg(psql.get_program())
        .args(psql.get_args());
    let out = shell.stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

fn same_output() {
    let cluster = Cluster::start(0, &["synchronous_standby_names="]);
    let postgres = Postgres::start();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("psql");
    let mut wrong = Vec::new();
    for file in ["describe.sql", "errors.sql"] {
        let theirs = output(postgres.port, &folder.join(file));
        let ours = output(cluster.nodes[0].sql_port, &folder.join(file));
        assert!(theirs.len() > 50, "psql did not run {file}: {theirs:?}");
        for (number, (our, their)) in ours.iter().zip(&theirs).enumerate() {
            if our != their {
                wrong.push(format!(
                    "{file} line {}:\n  towline    {our}\n  postgresql {their}",
                    number + 1
                ));
            }
        }
        if ours.len() != theirs.len() {
            wrong.push(format!(
                "{file}: {} lines, {} on postgresql",
                ours.len(),
                theirs.len()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong[..wrong.len().min(12)].join("\n"));
}

fn timing() {
    let cluster = Cluster::start(0, &["synchronous_standby_names="]);
    let out = psql(cluster.nodes[0].sql_port)
        .args(["-At", "-c", "\\timing on", "-c", "select pg_sleep(0.05)"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    // From a second on, the same time in minutes and seconds follows.
    let time = said
        .lines()
        .find_map(|line| line.strip_prefix("Time: ")?.split_once(" ms"))
        .map(|(time, _)| time)
        .unwrap_or_else(|| panic!("no time: {said}"));
    let time: f64 = time.parse().unwrap();
    assert!((50.0..PATIENCE.as_secs_f64() * 1000.0).contains(&time), "{said}");
}

fn interrupt_cancels() {
    let mut cluster = Cluster::start(0, &["synchronous_standby_names="]);
    let control = cluster.primary().sql();
    let mut child = psql(cluster.nodes[0].sql_port)
        .args(["-c", "select count(*) from generate_series(1, 1000000000000) n"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the query to run", PATIENCE, || {
        control
            .value("select count(*) from pg_stat_activity where query like 'select count(*) from generate_series(1, 1000000000000)%' and state = 'active'")
            .is_ok_and(|n| n == "1")
    });
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::INT).unwrap();
    wait_for("psql to end", PATIENCE, || child.try_wait().unwrap());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("canceling statement due to user request"), "{said}");
    wait_until("the session to be gone", PATIENCE, || {
        control
            .value("select count(*) from pg_stat_activity where query like 'select count(*) from generate_series(1, 1000000000000)%'")
            .is_ok_and(|n| n == "0")
    });
}
