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

/// What a command that refuses says, in one line.
fn refused(arguments: &[&str]) -> String {
    let output = towline(arguments, Stdio::null());
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    let sentences: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with("towline: "))
        .collect();
    assert_eq!(sentences.len(), 1, "{told}");
    sentences[0].to_owned()
}

/// A path that is not there was called an unfinished data directory.
#[test]
fn checksums_of_a_directory_that_is_missing_say_so() {
    let parent = tempfile::tempdir().unwrap();
    let missing = parent.path().join("nope").to_str().unwrap().to_owned();
    let told = refused(&["checksums", &missing]);
    assert!(
        told.contains(&format!(
            "{missing} is not a data directory of Towline: there is no such directory; "
        )),
        "{told}"
    );
}

/// All that was said is that a file exists.
#[test]
fn a_file_in_the_place_of_the_log_is_named_with_what_to_do() {
    let parent = tempfile::tempdir().unwrap();
    let dir = data_dir(parent.path());
    std::fs::write(format!("{dir}/log"), "mine").unwrap();
    let told = refused(&[
        "primary",
        "--data-dir",
        &dir,
        "--sql-listen",
        "127.0.0.1:0",
        "--grpc-listen",
        "127.0.0.1:0",
    ]);
    assert!(
        told.contains(&format!(
            "{dir}/log is a file in the place of the log's directory; move it away"
        )),
        "{told}"
    );
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
        &["checksums", &dir],
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

/// What was opened before it was looked at was waited for.
#[test]
fn a_pipe_is_no_file_to_dump() {
    let parent = tempfile::tempdir().unwrap();
    let pipe = parent.path().join("000000010000000000000001");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    for command in ["waldump", "pagedump"] {
        let output = towline(&[command, pipe.to_str().unwrap()], Stdio::null());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("file; name"), "{said}");
    }
}

/// It left a lock in whatever directory it was pointed at.
#[test]
fn checksums_touches_no_directory_that_is_not_a_nodes() {
    let parent = tempfile::tempdir().unwrap();
    for dir in [parent.path().to_owned(), parent.path().join("missing")] {
        let output = towline(&["checksums", dir.to_str().unwrap()], Stdio::null());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("is not a data directory of Towline"), "{said}");
    }
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn a_segment_that_was_cut_short_or_is_none_is_an_error() {
    let parent = tempfile::tempdir().unwrap();
    let dir = data_dir(parent.path());
    let name = "000000010000000000000001";
    let whole = std::fs::read(format!("{dir}/pg_wal/{name}")).unwrap();
    let path = parent.path().join(name);
    for (bytes, reason) in [
        (&whole[..300_000], "is cut short"),
        (&whole[..10], "does not begin with the header of a WAL segment"),
        (
            &[0x5A; 100_000][..],
            "does not begin with the header of a WAL segment",
        ),
        (&[][..], "does not begin with the header of a WAL segment"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let output = towline(&["waldump", path.to_str().unwrap()], Stdio::null());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(reason), "{said}");
    }
    for (start, reason) in [
        ("9/0", "no WAL record at or behind 9/0"),
        ("nonsense", "is not a WAL position"),
    ] {
        let output = towline(&["waldump", "--start", start, &dir], Stdio::null());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(reason), "{said}");
    }
}

/// Half a directory was a node's that could not start, or somebody else's that could not be used.
#[test]
fn an_init_that_was_cut_short_is_named_and_begun_anew_by_the_same_command() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data").to_str().unwrap().to_owned();
    let init = ["init", "--data-dir", &dir, "--wal-segment-size", "1MB"];
    for cut in [
        "node::init_marked=crash",
        "wal::before_fsync=crash",
        "wal::before_fsync=enospc",
        "node::init_made=crash",
        "node::init_made=error",
    ] {
        let killed = Command::new(env!("CARGO_BIN_EXE_towline"))
            .args(init)
            .env("TOWLINE_FAILPOINTS", cut)
            .output()
            .unwrap();
        assert!(!killed.status.success(), "{cut}");
        let listen = ["--sql-listen", "127.0.0.1:1", "--grpc-listen", "127.0.0.1:2"];
        let output = towline(
            &[&["primary", "--data-dir", &dir], &listen[..]].concat(),
            Stdio::null(),
        );
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{cut}: {said}");
        assert!(
            said.contains("begin it anew with: towline init --data-dir"),
            "{cut}: {said}"
        );
        let output = towline(&init, Stdio::null());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{cut}: {said}");
        assert!(
            towline(&["controldata", &dir], Stdio::null()).status.success(),
            "{cut}"
        );
        assert!(
            !towline(&init, Stdio::null()).status.success(),
            "it is made: {cut}"
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

/// A password was cut after 1024 bytes, and nobody could log in with the whole.
#[test]
fn a_password_file_that_holds_no_password_makes_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data").to_str().unwrap().to_owned();
    let file = parent.path().join("password").to_str().unwrap().to_owned();
    let arguments = ["init", "--data-dir", &dir, "--password-file", &file];
    for (bytes, reason) in [
        (vec![b'x'; 1025], "is longer than 1024 bytes"),
        (vec![], "is empty"),
        (vec![0xFF, b'\n'], "cannot be read"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let output = towline(&arguments, Stdio::null());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(reason) && !said.contains("xxx"), "{said}");
        assert!(!Path::new(&dir).exists());
    }
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
