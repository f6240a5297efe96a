//! Passwords: SCRAM by psql and by a driver, under `[[hba]]` rules, as roles come, change and go.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use towline_integration_tests::client::{Failure, Sql};
use towline_integration_tests::node::{Node, Role};
use towline_integration_tests::tools::need;

use crate::Case;

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![Case::new(
        "passwords_are_asked_for_by_rule_and_follow_their_roles",
        &["psql"],
        passwords,
    )]
};

const RULES: &str = r#"
[[hba]]
type = "host"
database = "all"
user = "postgres"
address = "127.0.0.1/32"
method = "trust"

[[hba]]
type = "host"
database = "all"
user = "eve"
address = "all"
method = "reject"

[[hba]]
type = "host"
database = "all"
user = "all"
address = "127.0.0.1/32"
method = "scram-sha-256"
"#;

fn psql(port: u16, user: &str, password: &str) -> Output {
    Command::new(need("psql"))
        .args(["-X", "-w", "-At", "-h", "127.0.0.1", "-d", "postgres", "-U", user])
        .args(["-p", &port.to_string(), "-c", "select current_user"])
        .env("PGPASSWORD", password)
        .output()
        .unwrap()
}

fn connect(port: u16, user: &str, password: &str) -> Result<Sql, Failure> {
    Sql::connect_with(&format!(
        "host=127.0.0.1 port={port} user={user} password={password} dbname=postgres"
    ))
}

/// The SQLSTATE with which a login fails, or nothing.
fn refusal(port: u16, user: &str, password: &str) -> Option<String> {
    connect(port, user, password)
        .err()
        .and_then(|failure| failure.sqlstate)
}

fn passwords() {
    let base = tempfile::tempdir().unwrap();
    let mut node = Node::new(base.path(), "p", Role::Primary, &["synchronous_standby_names="]);
    node.init();
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(node.dir.join("towline.toml"))
        .unwrap()
        .write_all(RULES.as_bytes())
        .unwrap();
    node.start_ready();
    let port = node.sql_port;
    let admin = node.sql();
    for statement in [
        "create role alice login password 'one'",
        "create role eve login password 'one'",
        "create role guests password 'one'",
        "create role bare login",
    ] {
        admin.query(statement).unwrap();
    }

    let said = psql(port, "alice", "one");
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "alice", "{said:?}");
    let said = psql(port, "alice", "two");
    assert_eq!(said.status.code(), Some(2));
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(
        words.contains("password authentication failed for user \"alice\""),
        "{words}"
    );

    let code = |code: &str| Some(code.to_owned());
    assert_eq!(refusal(port, "alice", "two"), code("28P01"));
    assert_eq!(refusal(port, "nobody", "one"), code("28P01"));
    assert_eq!(refusal(port, "bare", "one"), code("28P01"));
    assert_eq!(refusal(port, "guests", "one"), code("28000"));
    assert_eq!(refusal(port, "eve", "one"), code("28000"));

    let alice = connect(port, "alice", "one").unwrap();
    let refused = alice.query("create role mallory").unwrap_err();
    assert_eq!(refused.sqlstate.as_deref(), Some("42501"), "{refused:?}");
    for asked in ["show data_directory", "show config_file"] {
        let refused = alice.query(asked).unwrap_err();
        assert_eq!(refused.sqlstate.as_deref(), Some("42501"), "{refused:?}");
    }
    let listed = "select count(*) from pg_settings where name = 'data_directory'";
    assert_eq!(alice.value(listed).unwrap(), "0");
    assert_eq!(
        admin.value("show data_directory").unwrap(),
        node.dir.to_str().unwrap()
    );
    let log = node.dir.join("log");
    for (path, mode) in [(log.join("towline.log"), 0o600), (log, 0o700)] {
        let found = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{}", path.display());
    }
    alice.query("alter role alice password 'two'").unwrap();
    assert_eq!(refusal(port, "alice", "one"), code("28P01"));
    assert_eq!(refusal(port, "alice", "two"), None);
    admin.query("alter role alice password null").unwrap();
    assert_eq!(refusal(port, "alice", "two"), code("28P01"));
    admin.query("alter role alice password 'three'").unwrap();
    assert_eq!(refusal(port, "alice", "three"), None);
    let stored = admin
        .value("select left(rolpassword, 14) from pg_authid where rolname = 'alice'")
        .unwrap();
    assert_eq!(stored, "SCRAM-SHA-256$");
    // A hash is no password: with that, who has read it could log in.
    let hash = "md50123456789abcdef0123456789abcdef";
    let refused = admin
        .query(&format!("alter role alice password '{hash}'"))
        .unwrap_err();
    assert_eq!(refused.sqlstate.as_deref(), Some("0A000"), "{refused:?}");
    assert_eq!(refusal(port, "alice", hash), code("28P01"));
    // What only looks like a stored secret is a password.
    admin
        .query("alter role alice password 'SCRAM-SHA-256$x'")
        .unwrap();
    assert_eq!(refusal(port, "alice", "SCRAM-SHA-256$x"), None);
    admin.query("alter role alice password ''").unwrap();
    assert_eq!(refusal(port, "alice", "SCRAM-SHA-256$x"), code("28P01"));
    admin.query("alter role alice password 'three'").unwrap();
    admin.query("drop role alice").unwrap();
    assert_eq!(refusal(port, "alice", "three"), code("28P01"));
}
