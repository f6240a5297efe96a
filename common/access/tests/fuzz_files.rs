//! A stopped node one of whose files was damaged, cut, removed or replaced by a directory: the next start and the first look at the table
//! give an error, or all rows are there. Nothing is lost in silence. `towline_base::testing` says how to run it longer and how to
//! repeat a case.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use support::Work;
use towline_access::btree::{Direction, IndexScan, ScanBounds};
use towline_access::heap::{HeapScan, fetch};
use towline_access::{AccessError, Result};
use towline_base::testing::{Case, WatchedAllocator, fuzz};
use towline_base::vfs::{CrashVfs, Unsynced};
use towline_base::{OpenMode, Vfs};
use towline_types::Datum;

#[global_allocator]
static ALLOCATOR: WatchedAllocator = WatchedAllocator;

/// A stopped cluster: its disk, all its files, the ids in the table.
struct Made {
    disk: CrashVfs,
    files: Vec<PathBuf>,
    ids: BTreeSet<i32>,
    shut_down: bool,
}

fn list(vfs: &CrashVfs, dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in vfs.read_dir(dir).unwrap() {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            list(vfs, &path, files);
        } else {
            files.push(path);
        }
    }
}

fn make(shut_down: bool) -> Made {
    let work = Work::on(support::fresh_disk());
    work.change_much();
    let ids = ids(&work).unwrap();
    assert!(ids.len() > 600, "{}", ids.len());
    if shut_down {
        work.engine.shutdown().unwrap();
    }
    let disk = work.vfs.after_crash(Unsynced::Lost, 0);
    drop(work);
    let mut files = Vec::new();
    list(&disk, Path::new("/data"), &mut files);
    Made {
        disk,
        files,
        ids,
        shut_down,
    }
}

static SHUT_DOWN: LazyLock<Made> = LazyLock::new(|| make(true));
static KILLED: LazyLock<Made> = LazyLock::new(|| make(false));

/// The ids that a scan of the heap finds; they must be those that a scan of the index finds. No ids when the catalog
/// does not have the table.
fn ids(work: &Work) -> Result<BTreeSet<i32>> {
    let Some(table) = work.find_table()? else {
        return Ok(BTreeSet::new());
    };
    let mut txn = work.begin()?;
    let snapshot = txn.begin_statement();
    let id = |values: &[Datum]| match values.first() {
        Some(Datum::Int4(id)) => *id,
        other => panic!("{other:?}"),
    };
    let (mut found, mut values) = (BTreeSet::new(), Vec::new());
    let mut scan = HeapScan::new(&txn, table.node)?;
    while scan.next_page(&txn, &snapshot)? {
        for (_, tuple) in scan.rows() {
            values.clear();
            table
                .layout
                .deform(tuple.data(), tuple.bitmap(), tuple.natts(), &mut values)
                .unwrap();
            found.insert(id(&values));
        }
    }
    let mut by_index = BTreeSet::new();
    let bounds = ScanBounds::equal(vec![]);
    let index = table
        .indexes
        .first()
        .ok_or_else(|| AccessError::internal("the index is gone"))?;
    let mut scan = IndexScan::new(index.clone(), &bounds, Direction::Forward)?;
    while let Some(tid) = scan.next(work.engine.storage().pool())? {
        if let Some(row) = fetch::fetch(&txn, &snapshot, table.node, tid)? {
            let tuple = row.tuple();
            values.clear();
            table
                .layout
                .deform(tuple.data(), tuple.bitmap(), tuple.natts(), &mut values)
                .unwrap();
            by_index.insert(id(&values));
        }
    }
    assert_eq!(found, by_index, "heap and index differ");
    Ok(found)
}

fn damage(case: &mut Case, vfs: &CrashVfs, path: &Path) -> String {
    let file = vfs.open(path, OpenMode::ReadWrite).unwrap();
    let length = file.len().unwrap() as usize;
    match case.below(6) {
        0 => {
            vfs.remove_file(path).unwrap();
            "removed".to_owned()
        }
        1 => {
            vfs.remove_file(path).unwrap();
            vfs.create_dir_all(path).unwrap();
            "replaced by a directory".to_owned()
        }
        2 => {
            let length = case.below(length + 1);
            file.set_len(length as u64).unwrap();
            format!("cut to {length} bytes")
        }
        _ if length > 0 => {
            let at = case.below(length);
            let mut byte = [0];
            file.read_exact_at(&mut byte, at as u64).unwrap();
            byte[0] ^= 1 << case.below(8);
            file.write_all_at(&byte, at as u64).unwrap();
            format!("flipped a bit at {at}")
        }
        _ => "left alone".to_owned(),
    }
}

fn run(case: &mut Case, made: &Made) {
    let vfs = made.disk.after_crash(Unsynced::Kept, 0);
    // The kinds of files are few; those of the catalog are many.
    let kinds: Vec<&PathBuf> = made
        .files
        .iter()
        .filter(|path| !path.starts_with("/data/base"))
        .collect();
    let path = if case.one_in(2) {
        (*case.pick(&kinds)).clone()
    } else {
        case.pick(&made.files).clone()
    };
    let what = damage(case, &vfs, &path);
    // What no format can tell: where the log of a killed node ended, and that a relation's file was longer.
    let excused = (!made.shut_down && path.starts_with("/data/pg_wal") && !what.starts_with("cut"))
        || (path.starts_with("/data/base") && what.starts_with("cut"));
    match Work::try_on(vfs).and_then(|work| ids(&work)) {
        Ok(found) => assert!(
            excused || found == made.ids,
            "{}: {what}: rows were lost in silence",
            path.display()
        ),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Each of these had made the next start lose tables or timelines without a word.
#[test]
fn a_lost_file_is_named_by_the_next_start() {
    let mut named: Vec<&str> = SHUT_DOWN.files.iter().filter_map(|path| path.to_str()).collect();
    named.retain(|name| name.starts_with("/data/pg_csn/") || name.ends_with(".history"));
    assert!(named.len() >= 2, "{named:?}");
    for name in named {
        for cut in [None, Some(0), Some(10)] {
            let vfs = SHUT_DOWN.disk.after_crash(Unsynced::Kept, 0);
            match cut {
                None => vfs.remove_file(name.as_ref()).unwrap(),
                Some(length) => vfs
                    .open(name.as_ref(), OpenMode::ReadWrite)
                    .unwrap()
                    .set_len(length)
                    .unwrap(),
            }
            let error = Work::try_on(vfs).map(drop).unwrap_err();
            assert!(error.to_string().contains(name), "{name} cut to {cut:?}: {error}");
        }
    }
}

/// The number above it overflowed.
#[test]
fn a_file_of_the_last_timeline_there_is_is_an_error_and_one_of_another_kind_is_passed_over() {
    let start = |name: &str| {
        let vfs = SHUT_DOWN.disk.after_crash(Unsynced::Kept, 0);
        vfs.open(name.as_ref(), OpenMode::Create).unwrap();
        Work::try_on(vfs).map(drop).map_err(|error| error.to_string())
    };
    for name in ["FFFFFFFF.history", "FFFFFFFF0000000000000001"] {
        let error = start(&format!("/data/pg_wal/{name}")).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
    for name in ["ffffffffff", "FFFFFFFF-notes", "ffffffff0000000000000001"] {
        start(&format!("/data/pg_wal/{name}")).unwrap();
    }
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn a_damaged_file_of_a_node_that_was_shut_down_loses_nothing_in_silence() {
    fuzz("files after a shutdown", 100_000, |case| run(case, &SHUT_DOWN));
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn a_damaged_file_of_a_node_that_was_killed_loses_nothing_in_silence() {
    fuzz("files after a kill", 100_000, |case| run(case, &KILLED));
}
