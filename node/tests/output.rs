//! What the commands do when their output goes nowhere: a full disk is an error with its reason, no panic.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn towline(arguments: &[&str], output: Stdio) -> Output {
    Command::new(env!("CARGO_BIN_EXE_towline"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::piped())
        .output()
        .unwrap()
}

/// A device whose every write fails for want of space.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn data_dir(parent: &Path) -> String {
    let dir = parent.join("data").to_str().unwrap().to_owned();
    let arguments = ["init", "--data-dir", &dir, "--wal-segment-size", "1MB"];
    assert!(towline(&arguments, Stdio::null()).status.success());
    dir
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let parent = tempfile::tempdir().unwrap();
    let dir = data_dir(parent.path());
    let file = format!("{dir}/base/5/1259");
    let other = parent.path().join("other").to_str().unwrap().to_owned();
    for arguments in [
        &["controldata", &dir][..],
        &["status", "--sql", "127.0.0.1:1"],
        &["status", "--json", "--sql", "127.0.0.1:1"],
        &["pagedump", &file],
        &["waldump", &dir],
        &["waldump", "--stats", &dir],
        &["init", "--data-dir", &other, "--wal-segment-size", "1MB"],
    ] {
        let output = towline(arguments, full());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{arguments:?}: {:?}",
            output.status
        );
        assert!(said.contains("No space left on device"), "{arguments:?}: {said}");
    }
}

#[test]
fn a_directory_is_no_relation_file() {
    let parent = tempfile::tempdir().unwrap();
    let output = towline(&["pagedump", parent.path().to_str().unwrap()], Stdio::null());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("is a directory"), "{said}");
}

#[test]
fn what_waldump_cannot_dump_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let dir = data_dir(parent.path());
    let notes = parent.path().join("notes.txt").to_str().unwrap().to_owned();
    std::fs::write(&notes, "mine").unwrap();
    let segment = format!("{dir}/pg_wal/000000010000000000000001");
    for (arguments, reason) in [
        (
            &["waldump", &notes][..],
            "\"notes.txt\" is not the name of a WAL segment",
        ),
        (
            &["waldump", "--timeline", "99", &segment],
            "the segment is of timeline 1, not 99",
        ),
    ] {
        let output = towline(arguments, Stdio::null());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(reason), "{said}");
    }
    assert!(
        towline(&["waldump", "--timeline", "1", &segment], Stdio::null())
            .status
            .success()
    );
}
