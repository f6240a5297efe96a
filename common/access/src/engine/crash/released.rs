//! What a primary shows that is started while its quorum is away: everything that was acknowledged before it was killed.

use std::path::Path;

use towline_base::vfs::{CrashVfs, Unsynced};
use towline_base::{OpenMode, Vfs};
use towline_types::Datum;

use super::node::{Failure, config, long, text};
use super::without_quorum::{Primary, TEXT, disk_with_tables};
use crate::CommitLevel;
use crate::ops::InsertOp;

const NOTE: &str = "/data/pg_wal/released";

/// A primary that has inserted one row into `t` at this level and said so; with the standbys there, or not any more.
fn after_a_commit(level: CommitLevel, with_quorum: bool) -> Result<(CrashVfs, Primary), Failure> {
    let disk = disk_with_tables()?;
    let mut primary = Primary::start(&disk, config())?;
    let t = primary.table("t")?;
    let mut txn = primary.begin()?;
    let row = [Datum::Int4(1), Datum::Int4(1), Datum::text(&long(1, TEXT))];
    let mut op = InsertOp::new(t, &row).map_err(text)?;
    primary.drive(&mut txn, |txn| op.step(txn))?;
    primary.drive(&mut txn, |txn| txn.commit(level))?;
    if with_quorum {
        primary.acknowledge();
    } else if level == CommitLevel::Local {
        let (wal, release) = (&primary.opened.wal, primary.opened.engine.release());
        let flush = wal.flush_here(wal.insert_lsn());
        let positions = release.positions();
        release.advance(flush, positions.quorum_written, positions.quorum);
    }
    drop(txn);
    if primary.count(&*primary.table("t")?)? != 1 {
        return Err("the commit was not released".to_owned());
    }
    Ok((disk, primary))
}

/// Starts with the standbys away: the rows of `t` then, and when they are back.
fn shown(disk: &CrashVfs) -> Result<(usize, usize), Failure> {
    let mut again = Primary::open(disk, config())?;
    again.opened.recover().map_err(text)?;
    let t = again.table("t")?;
    let alone = again.count(&t)?;
    if again.engine().wait_to_write().is_none() {
        return Err("a statement that changes rows need not wait".to_owned());
    }
    again.acknowledge();
    if again.engine().wait_to_write().is_some() {
        return Err("a statement that changes rows waits for ever".to_owned());
    }
    Ok((alone, again.count(&t)?))
}

/// The last record that carries a quorum's position is the commit itself, and it cannot carry its own.
#[test]
fn an_acknowledged_commit_is_shown_after_a_kill_with_the_standbys_away() {
    let (disk, _primary) = after_a_commit(CommitLevel::On, true).unwrap();
    assert_eq!(shown(&disk.after_kill()).unwrap(), (1, 1));
    // And by the start after that, which has told nothing itself.
    let again = disk.after_kill();
    drop(Primary::open(&again, config()).unwrap());
    assert_eq!(shown(&again.after_kill()).unwrap(), (1, 1));
    // Without the note only the log tells, until the standbys are back.
    let without = disk.after_kill();
    without.remove_file(Path::new(NOTE)).unwrap();
    assert_eq!(shown(&without).unwrap(), (0, 1));
}

#[test]
fn a_power_cut_shows_what_was_acknowledged_at_the_latest_with_the_standbys() {
    let (disk, _primary) = after_a_commit(CommitLevel::On, true).unwrap();
    for (seed, fate) in (0..).zip(Unsynced::ALL) {
        let (_, with_standbys) = shown(&disk.after_crash(fate, seed)).unwrap();
        assert_eq!(with_standbys, 1, "{fate:?}");
    }
}

#[test]
fn what_was_seen_above_the_quorum_is_seen_again_as_far_as_it_is_there() {
    let (disk, _primary) = after_a_commit(CommitLevel::Local, false).unwrap();
    assert_eq!(shown(&disk.after_kill()).unwrap(), (1, 1));
    // Nothing of it was written.
    let (disk, _primary) = after_a_commit(CommitLevel::Off, false).unwrap();
    assert_eq!(shown(&disk.after_kill()).unwrap(), (0, 0));
}

/// Below its last checkpoint's end a log is known to have been durable; behind that, damage looked like an end.
#[test]
fn damage_of_what_was_released_is_no_end_of_the_log() {
    let (disk, primary) = after_a_commit(CommitLevel::On, true).unwrap();
    let (end, size) = (primary.opened.wal.insert_lsn(), config_segment_size(&primary));
    let killed = disk.after_kill();
    let suffix = format!("{:016X}", end.0 / size);
    let names = killed.read_dir(Path::new("/data/pg_wal")).unwrap();
    let newest = names
        .into_iter()
        .rfind(|entry| entry.name.ends_with(&suffix))
        .unwrap();
    let path = Path::new("/data/pg_wal").join(newest.name);
    let file = killed.open(&path, OpenMode::ReadWrite).unwrap();
    // In the commit record's body.
    let mut byte = [0];
    let at = end.0 % size - 16;
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let error = Primary::open(&killed.after_kill(), config())
        .map(|_| ())
        .unwrap_err();
    assert!(
        error.contains("damaged") && error.contains("durable up to"),
        "{error}"
    );
    let without = killed.after_kill();
    without.remove_file(Path::new(NOTE)).unwrap();
    assert_eq!(shown(&without).unwrap(), (0, 0), "nothing else tells of the loss");
}

fn config_segment_size(primary: &Primary) -> u64 {
    primary.opened.storage.control().get().segment_size
}
