//! No effect outside the log before the quorum has its record (I7, B1), for each kind of file operation: a file made, longer, written,
//! shorter, or gone, of heaps, indexes, visibility maps and values out of line; the status log; the control file.
//!
//! The quorum is held back, one operation is done, and everything writes that may: then the node is cut at the quorum. What may be
//! found is what nobody refers to: new files, and blocks of zeros at the end of old ones. The next start takes the files away again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(debug_assertions)]
use towline_base::rules::{Rule, RuleOff};
use towline_base::vfs::{CrashVfs, Unsynced};
use towline_base::{Lsn, Vfs};
use towline_storage::CheckpointParticipant;
use towline_storage::buffer::FlushState;

use super::driver::{COMMIT, Driver, End};
use super::node::{Failure, text};
use crate::testing::{clock, fresh_disk};
use crate::vacuum::{VacuumOp, VacuumOptions, VacuumStep};
use crate::{CommitLevel, Step};

/// Answered at once, so nothing asks the log to be flushed.
const OFF: End = End::Commit(CommitLevel::Off);

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// All files but the log's.
fn files(disk: &CrashVfs) -> Files {
    let mut found = Files::new();
    let mut directories = vec![PathBuf::from("/data")];
    while let Some(directory) = directories.pop() {
        for entry in disk.read_dir(&directory).unwrap() {
            let path = directory.join(&entry.name);
            if !entry.is_dir {
                found.insert(path.clone(), disk.read_file(&path, 1 << 30).unwrap());
            } else if entry.name != crate::bootstrap::WAL_DIR {
                directories.push(path);
            }
        }
    }
    found
}

/// Whether a file is as it was, but for zeros behind its end.
fn is_kept(before: &[u8], after: &[u8]) -> bool {
    after.starts_with(before) && after[before.len()..].iter().all(|byte| *byte == 0)
}

fn is_relation(path: &Path) -> bool {
    path.starts_with("/data/base")
}

/// Everything that writes outside the log does what it may.
fn write_all(driver: &Driver) -> Result<(), Failure> {
    let storage = driver.node.engine.storage();
    let mut pages = storage.pool().write_back(Lsn::MAX);
    while pages.step().map_err(text)? == FlushState::More {}
    drop(pages);
    let _ = driver.node.engine.participant.flush(Lsn::MAX).map_err(text)?;
    storage.smgr().sync(&*clock()).map_err(text)?;
    Ok(())
}

/// Does an operation above the quorum, and says what is wrong with the files after a cut at the quorum.
fn cut_after(operation: impl FnOnce(&mut Driver) -> Result<(), Failure>) -> Result<Option<String>, Failure> {
    let vfs = fresh_disk();
    let mut driver = Driver::start(&vfs)?;
    driver.create("t", COMMIT)?;
    driver.create_large("l", COMMIT)?;
    let rows: Vec<_> = (0..40).map(|id| (id, Some(id))).collect();
    driver.text_length = 700;
    driver.change("t", &rows, COMMIT)?;
    driver.change("l", &[(1, Some(21))], COMMIT)?;
    driver.vacuum("l")?;
    let emptied: Vec<_> = (0..40).map(|id| (id, None)).collect();
    driver.change("t", &emptied, COMMIT)?;
    driver.checkpoint()?;
    driver.node.flush()?;
    write_all(&driver)?;
    let quorum = driver.node.engine.storage().quorum().get();
    let state = driver.node.contents()?;
    let before = files(&vfs.look(|moment| moment.after_kill()));

    operation(&mut driver)?;
    if driver.node.engine.insert_lsn().map_err(text)? <= quorum {
        return Err("nothing was logged".to_owned());
    }
    write_all(&driver)?;
    if driver.node.engine.storage().quorum().get() != quorum {
        return Err("the quorum was not held back".to_owned());
    }
    let disk = vfs.after_crash(Unsynced::Kept, 0);
    let after = files(&disk);
    for (path, bytes) in &before {
        match after.get(path) {
            Some(now) if is_kept(bytes, now) => {}
            Some(_) => return Ok(Some(format!("{} was changed", path.display()))),
            None => return Ok(Some(format!("{} is gone", path.display()))),
        }
    }
    for (path, bytes) in after.iter().filter(|(path, _)| !before.contains_key(*path)) {
        if !is_relation(path) || bytes.iter().any(|byte| *byte != 0) {
            return Ok(Some(format!("{} was written", path.display())));
        }
    }

    let mut again = Driver::start(&disk)?;
    if again.node.contents()? != state {
        return Ok(Some("the next start finds something else".to_owned()));
    }
    again.checkpoint()?;
    let left = files(&disk);
    let left = left
        .keys()
        .find(|path| is_relation(path) && !before.contains_key(*path));
    Ok(left.map(|path| format!("{} is left", path.display())))
}

/// A vacuum of `t` that goes on as far as it can without the quorum.
fn vacuum_alone(driver: &mut Driver) -> Result<(), Failure> {
    let table = driver.node.table("t")?.ok_or("no table")?;
    let mut txn = driver.node.begin()?;
    let mut op = VacuumOp::new(&txn, Arc::clone(&table), VacuumOptions::freezing(true)).map_err(text)?;
    let mut cutting = 0;
    while cutting < 10 {
        let done = driver.node.drive(&mut txn, |txn| {
            Ok(Step::Done(matches!(
                op.step(txn)?,
                VacuumStep::Done(_) | VacuumStep::Wait(_)
            )))
        })?;
        if done {
            break;
        }
        cutting += i32::from(op.is_cutting());
    }
    write_all(driver)
}

fn nothing() -> Result<Option<String>, Failure> {
    Ok(None)
}

#[test]
fn a_new_table_and_its_files_are_no_more() {
    let made = |driver: &mut Driver| {
        driver.create_large("n", OFF)?;
        driver.change("n", &[(1, Some(21)), (2, Some(22))], OFF)
    };
    assert_eq!(cut_after(made), nothing());
}

#[test]
fn a_new_index_is_no_more() {
    assert_eq!(cut_after(|driver| driver.index("t", OFF)), nothing());
}

#[test]
fn a_longer_heap_and_index_hold_nothing_new() {
    let rows: Vec<_> = (100..160).map(|id| (id, Some(id))).collect();
    assert_eq!(cut_after(|driver| driver.change("t", &rows, OFF)), nothing());
}

#[test]
fn a_value_out_of_line_is_as_it_was() {
    let changed = |driver: &mut Driver| driver.change("l", &[(1, Some(31)), (2, Some(22))], OFF);
    assert_eq!(cut_after(changed), nothing());
}

/// Above the quorum the commit is not released, and nobody asks for the removal yet; that it waits then is shown in storage's crash tests.
#[test]
fn a_dropped_table_has_its_files() {
    assert_eq!(cut_after(|driver| driver.drop_table("l", OFF)), nothing());
}

#[test]
fn an_emptied_table_has_its_files() {
    assert_eq!(cut_after(|driver| driver.truncate("l", OFF)), nothing());
}

#[test]
fn a_table_that_is_vacuumed_is_as_long_as_it_was() {
    assert_eq!(cut_after(vacuum_alone), nothing());
}

#[cfg(debug_assertions)]
#[test]
fn without_the_gate_of_files_a_vacuumed_table_would_be_cut() {
    let _off = RuleOff::new(Rule::FilesBelowQuorum);
    let wrong = cut_after(vacuum_alone).unwrap().unwrap();
    assert!(wrong.ends_with("was changed"), "{wrong}");
}

#[cfg(debug_assertions)]
#[test]
fn without_the_gate_of_the_status_log_it_would_be_written() {
    let _off = RuleOff::new(Rule::StatusBelowQuorum);
    let wrong = cut_after(|driver| driver.change("t", &[(100, Some(1))], OFF))
        .unwrap()
        .unwrap();
    assert!(wrong.contains("pg_csn"), "{wrong}");
}
