//! Tests of the node's store, its files, and sessions.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::SqlState;
use crate::vfs::{CrashVfs, OpenMode, Vfs};

fn files(main: &str) -> (CrashVfs, ConfigFiles) {
    let vfs = CrashVfs::new();
    let files = ConfigFiles::in_dir(Path::new("/"));
    write(&vfs, &files.main, main);
    (vfs, files)
}

fn write(vfs: &CrashVfs, path: &Path, text: &str) {
    vfs.open(path, OpenMode::Truncate)
        .unwrap()
        .write_all_at(text.as_bytes(), 0)
        .unwrap();
}

fn load(vfs: &CrashVfs, files: &ConfigFiles, line: &[(&str, &str)]) -> Arc<Settings> {
    Settings::load(vfs.shared(), files.clone(), line).unwrap()
}

#[test]
fn the_strongest_source_wins() {
    let (vfs, paths) = files("work_mem = \"8MB\"\nfsync = false\ncommit_delay = 7\nport=1000");
    write(&vfs, &paths.auto, "work_mem = \"16MB\"\nport = 1001\n");
    let settings = load(&vfs, &paths, &[("port", "1002")]);
    assert_eq!(settings.bytes(keys::work_mem), Some(16 << 20));
    assert!(!settings.get(keys::fsync));
    assert_eq!(settings.get(keys::commit_delay), 7);
    assert_eq!(settings.get(keys::port), 1002);
    assert_eq!(settings.get(keys::max_connections), 100);
    assert_eq!(
        settings.duration(keys::checkpoint_timeout),
        Some(Duration::from_secs(300))
    );
    assert_eq!(settings.bytes(keys::max_slot_wal_keep_size), Some(4 << 30));
    let row = settings
        .rows()
        .into_iter()
        .find(|row| row.def.name == "work_mem")
        .unwrap();
    assert_eq!((row.source, row.value), (Source::AutoFile, Value::Int(16384)));
}

#[test]
fn a_wrong_entry_stops_the_start_and_names_itself() {
    for (text, wanted) in [
        (
            "wrok_mem = 1",
            "unrecognized configuration parameter \"wrok_mem\"",
        ),
        (
            "work_mem = \"lots\"",
            "invalid value for parameter \"work_mem\": \"lots\"",
        ),
        (
            "server_version = \"9\"",
            "parameter \"server_version\" cannot be changed",
        ),
        ("work_mem = ", "towline.toml"),
        (
            "fsync = true\nwork_mem = = 1\n",
            "towline.toml\" line 2 cannot be read: ",
        ),
        (
            "fsync = true\nfsync = true\n",
            "towline.toml\" line 2 cannot be read: duplicate key",
        ),
        (
            "fsync = true\n\nwrok_mem = 1",
            "towline.toml\" line 3: unrecognized",
        ),
        (
            "fsync = true\nwork_mem = [1]",
            "line 2: work_mem: expected a value",
        ),
        ("[towline]\n \"nonsense\" = 1", "line 2: unrecognized"),
        ("work_mem = [1]", "expected a value"),
        (
            "synchronous_standby_names = \"ANY (x)\"",
            "synchronous_standby_names",
        ),
    ] {
        let (vfs, paths) = files(text);
        let error = Settings::load(vfs.shared(), paths, &[]).unwrap_err();
        let told = error.to_string();
        assert!(told.contains(wanted), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

/// What the parser had to say was shown over several lines, and nobody was told what to do.
#[test]
fn a_damaged_file_of_alter_system_is_told_in_a_sentence() {
    for (damaged, line) in [("work_mem = \"8MB\"\nfsync = o\0n\n", 2), ("\0\0\0\0", 1)] {
        let (vfs, paths) = files("fsync = true");
        write(&vfs, &paths.auto, damaged);
        let told = Settings::load(vfs.shared(), paths, &[]).unwrap_err().to_string();
        let wanted = format!("towline.auto.toml\" line {line} cannot be read: ");
        assert!(told.contains(&wanted), "{told}");
        assert!(told.contains("(correct or remove that line; "), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn reload_applies_what_it_may_and_reports_what_waits() {
    let (vfs, paths) = files("wal_keep_size = \"16MB\"\nmax_connections = 50");
    let settings = load(&vfs, &paths, &[("checkpoint_timeout", "1min")]);
    let before = settings.generation();
    assert_eq!(settings.reload(), Reload::default());
    assert_eq!(settings.generation(), before);
    write(
        &vfs,
        &paths.main,
        "wal_keep_size = \"32MB\"\nmax_connections = 60\nnonsense = 1\ncheckpoint_timeout = \"2min\"",
    );
    let reload = settings.reload();
    assert_eq!(reload.changed, ["wal_keep_size"]);
    assert_eq!(reload.pending_restart, ["max_connections"]);
    assert_eq!(reload.errors.len(), 1);
    assert!(settings.generation() > before);
    assert_eq!(settings.get(keys::wal_keep_size), 32);
    assert_eq!(settings.get(keys::max_connections), 50);
    assert_eq!(
        settings.get(keys::checkpoint_timeout),
        60,
        "the command line is stronger"
    );
    assert!(
        settings
            .rows()
            .iter()
            .any(|r| r.def.name == "max_connections" && r.pending_restart)
    );
    // A wrong value is no value: it does not fall back to the default.
    write(
        &vfs,
        &paths.main,
        "wal_keep_size = \"lots\"\nmax_connections = 50",
    );
    let reload = settings.reload();
    assert_eq!((reload.changed.len(), reload.errors.len()), (0, 1));
    assert!(reload.errors[0].message.contains("line 1"), "{:?}", reload.errors);
    assert_eq!(settings.get(keys::wal_keep_size), 32);
    // An entry that is taken out of the file falls back to its default.
    write(&vfs, &paths.main, "max_connections = 50");
    assert_eq!(settings.reload().changed, ["wal_keep_size"]);
    assert_eq!(settings.get(keys::wal_keep_size), 0);
    // A file that cannot be parsed changes nothing.
    write(&vfs, &paths.main, "= =");
    assert_eq!(settings.reload().errors.len(), 1);
}

#[test]
fn alter_system_writes_the_file_and_reload_applies_it() {
    let (vfs, paths) = files("");
    let settings = load(&vfs, &paths, &[]);
    settings.alter_system("WAL_KEEP_SIZE", Some("64MB")).unwrap();
    settings
        .alter_system("search_path", Some("a \"b\" \\ c"))
        .unwrap();
    settings.alter_system("port", Some("99")).unwrap();
    settings.alter_system("port", None).unwrap();
    assert_eq!(settings.get(keys::wal_keep_size), 0);
    assert_eq!(settings.reload().changed, ["wal_keep_size", "search_path"]);
    assert_eq!(settings.get(keys::wal_keep_size), 64);
    assert_eq!(&*settings.get(keys::search_path), "a \"b\" \\ c");
    assert!(settings.alter_system("fsync", Some("perhaps")).is_err());
    assert!(settings.alter_system("block_size", Some("8192")).is_err());
    settings.alter_system_reset_all().unwrap();
    assert_eq!(settings.reload().changed.len(), 2);
}

#[test]
fn login_rules_are_read_in_order() {
    let (vfs, paths) = files(
        "[[hba]]\naddress = \"127.0.0.1/32\"\nmethod = \"trust\"\n\
         [[hba]]\naddress = \"all\"\nuser = \"app\"\nmethod = \"scram-sha-256\"\n",
    );
    let rules = load(&vfs, &paths, &[]).hba();
    assert_eq!(rules.len(), 2);
    assert_eq!(
        (rules[0].user.as_str(), rules[0].method.as_str()),
        ("all", "trust")
    );
    assert_eq!(rules[1].user, "app");
    let (vfs, paths) = files("[[hba]]\naddress = \"all\"\ncolour = \"red\"\n");
    assert!(Settings::load(vfs.shared(), paths, &[]).is_err());
}

#[test]
fn an_overridden_value_survives_a_reload() {
    let (vfs, paths) = files("");
    let settings = load(&vfs, &paths, &[]);
    settings.override_value("in_hot_standby", "on").unwrap();
    settings.reload();
    assert!(settings.get(keys::in_hot_standby));
}

fn session() -> SessionSettings {
    SessionSettings::new(Settings::with(&[("work_mem", "1MB")]).unwrap(), true)
}

#[test]
fn set_lasts_and_set_local_ends_with_the_transaction() {
    let mut session = session();
    session.begin();
    session.set("work_mem", "2MB", Scope::Session).unwrap();
    session.set("work_mem", "3MB", Scope::Local).unwrap();
    assert_eq!(session.get(keys::work_mem), 3072);
    session.commit();
    assert_eq!(session.get(keys::work_mem), 2048);
    session.begin();
    session.set("work_mem", "4MB", Scope::Local).unwrap();
    session.commit();
    assert_eq!(session.get(keys::work_mem), 2048);
    session.set("work_mem", "5MB", Scope::Local).unwrap();
    assert_eq!(
        session.get(keys::work_mem),
        2048,
        "no transaction, nothing to last for"
    );
    session.reset("work_mem", Scope::Session).unwrap();
    assert_eq!(session.show("work_mem").unwrap(), "1MB");
}

#[test]
fn a_rollback_undoes_every_set() {
    let mut session = session();
    session.set("work_mem", "2MB", Scope::Session).unwrap();
    session.begin();
    session.set("work_mem", "3MB", Scope::Session).unwrap();
    session.reset("work_mem", Scope::Session).unwrap();
    session.set("statement_timeout", "5s", Scope::Local).unwrap();
    session.rollback();
    assert_eq!(session.get(keys::work_mem), 2048);
    assert_eq!(session.get(keys::statement_timeout), 0);
}

#[test]
fn savepoints_undo_their_own_sets_only() {
    let mut session = session();
    session.begin();
    session.set("work_mem", "2MB", Scope::Session).unwrap();
    session.begin();
    session.set("work_mem", "3MB", Scope::Session).unwrap();
    session.rollback();
    assert_eq!(session.get(keys::work_mem), 2048);
    session.begin();
    session.set("work_mem", "4MB", Scope::Session).unwrap();
    session.commit();
    assert_eq!(session.get(keys::work_mem), 4096);
    session.rollback();
    assert_eq!(session.show("work_mem").unwrap(), "1MB");
}

#[test]
fn contexts_are_respected() {
    let mut session = SessionSettings::new(Settings::defaults(), false);
    let mut code = |name: &str, text: &str| {
        session
            .set(name, text, Scope::Session)
            .map_err(|error| error.sqlstate)
    };
    assert_eq!(code("nonsense", "1"), Err(SqlState::UNDEFINED_OBJECT));
    assert_eq!(
        code("block_size", "8192"),
        Err(SqlState::CANT_CHANGE_RUNTIME_PARAM)
    );
    assert_eq!(
        code("shared_buffers", "1GB"),
        Err(SqlState::CANT_CHANGE_RUNTIME_PARAM)
    );
    assert_eq!(
        code("wal_keep_size", "1GB"),
        Err(SqlState::CANT_CHANGE_RUNTIME_PARAM)
    );
    assert_eq!(
        code("log_statement", "all"),
        Err(SqlState::INSUFFICIENT_PRIVILEGE)
    );
    assert_eq!(
        code("client_encoding", "latin1"),
        Err(SqlState::INVALID_PARAMETER_VALUE)
    );
    assert_eq!(code("client_encoding", "utf-8"), Ok(()));
}

#[test]
fn reported_settings_are_told_once_per_change() {
    let mut session = session();
    assert!(
        session
            .all_reports()
            .iter()
            .any(|(name, _)| *name == "server_version")
    );
    session.set("datestyle", "german", Scope::Session).unwrap();
    session.set("work_mem", "2MB", Scope::Session).unwrap();
    assert_eq!(session.take_reports(), [("DateStyle", "German, DMY".to_owned())]);
    assert!(session.take_reports().is_empty());
    session.begin();
    session
        .set("application_name", "x\u{e9}", Scope::Session)
        .unwrap();
    session.rollback();
    assert_eq!(session.take_reports(), [("application_name", String::new())]);
}

#[test]
fn reset_returns_to_what_the_login_asked_for() {
    let mut session = session();
    session.set_at_login("work_mem", "7MB").unwrap();
    session.set("work_mem", "2MB", Scope::Session).unwrap();
    session.set("lock_timeout", "1s", Scope::Session).unwrap();
    session.set_internal(keys::is_superuser, "off").unwrap();
    session.reset_all();
    assert_eq!(session.show("work_mem").unwrap(), "7MB");
    assert_eq!(session.get(keys::lock_timeout), 0);
    assert!(!session.get(keys::is_superuser));
    let all: Vec<_> = session.show_all().collect();
    assert!(all.len() > 150);
}

#[test]
fn settings_of_page_images_take_what_is_supported_and_name_it() {
    let mut session = session();
    for (name, text) in [
        ("wal_compression", "lz4"),
        ("wal_compression", "ZSTD"),
        ("wal_compression", "off"),
        ("wal_consistency_checking", ""),
        ("wal_consistency_checking", "all"),
        ("wal_consistency_checking", "heap, Heap2,btree"),
    ] {
        session.set(name, text, Scope::Session).unwrap();
        assert!(session.show(name).unwrap().eq_ignore_ascii_case(text));
    }
    for (name, text, wanted) in [
        ("wal_compression", "on", "Available values: off, lz4, zstd."),
        // It would refuse every transaction, and with them the statement that takes it back.
        (
            "default_transaction_isolation",
            "serializable",
            "Available values: read uncommitted, read committed, repeatable read.",
        ),
        ("wal_compression", "pglz", "Available values: off, lz4, zstd."),
        (
            "wal_consistency_checking",
            "heap,hash",
            "Unrecognized key word: \"hash\". Available: all, heap2, heap, btree.",
        ),
    ] {
        let error = session.set(name, text, Scope::Session).unwrap_err();
        assert_eq!(error.sqlstate, SqlState::INVALID_PARAMETER_VALUE);
        assert_eq!(error.hint.as_deref(), Some(wanted));
    }
    assert_eq!(session.own(keys::wal_compression), Some("off"));
    session.reset("wal_compression", Scope::Session).unwrap();
    assert_eq!(session.own(keys::wal_compression), None);
}
