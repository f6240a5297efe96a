//! The golden scripts of `tests/scripts`, in process. With TOWLINE_RECORD=host:port they are recorded anew from the
//! PostgreSQL 15 that listens there (superuser `postgres`, trust), whose database should be fresh.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::time::Duration;

use support::client::Client;
use support::local::Server;
use support::script::{self, Peer};

#[test]
fn scripts_answer_as_postgresql_does() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let only = std::env::var("TOWLINE_SCRIPT").ok();
    let record = std::env::var("TOWLINE_RECORD").ok();
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut failures = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let records = script::parse(&std::fs::read_to_string(&file).unwrap());
        if let Some(address) = &record {
            let mut open = |_: &str| -> Box<dyn Peer> {
                Box::new(Client::connect(address.parse().unwrap(), "postgres").unwrap())
            };
            let (text, _) = script::run(&records, &mut open, None);
            std::fs::write(&file, text).unwrap();
            continue;
        }
        let server = Server::new();
        let mut open = |_: &str| -> Box<dyn Peer> { Box::new(server.connect()) };
        let (_, differences) = script::run(&records, &mut open, Some(Duration::from_millis(20)));
        failures.extend(
            differences
                .into_iter()
                .map(|difference| format!("{name}: {difference}")),
        );
    }
    assert!(
        failures.is_empty(),
        "{} differences\n{}",
        failures.len(),
        failures.join("\n")
    );
}
