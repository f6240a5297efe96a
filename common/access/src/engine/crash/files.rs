//! No effect outside the log before the quorum has its record (I7, B1), for each kind of file operation: a file made, longer, written,
//! shorter, or gone, of heaps, indexes, visibility maps and values out of line; the status log; the control file; a shutdown.
//!
//! The quorum is held back, one operation is done, and everything writes that may: then the node is cut at the quorum. What may be
//! found is what nobody refers to: new files, and blocks of zeros at the end of old ones. The next start takes the files away again.
//!
//! The quorum is held back in more than one way ([`Held`]). Where the log goes on above it on the node's own disk, the node first comes back
//! without its standbys, redoes that part, and must write no more than before; then a failover takes it back: another timeline leaves the
//! log at the quorum, and the node starts on that one, as a primary and as a standby. And each operation is also done with a quorum that says
//! it has what the cut throws away: all gates are open then, and the operation's own effect must be found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

#[cfg(debug_assertions)]
use towline_base::rules::{Rule, RuleOff};
use towline_base::vfs::{CrashVfs, Unsynced};
use towline_base::{Lsn, TimelineId, TimelineNumber, Vfs, Xid};
use towline_storage::buffer::FlushState;
use towline_storage::{CheckpointParticipant, ControlFile};
use towline_wal::format::SegmentSize;
use towline_wal::{TimelineHistory, WalSource, fork_timeline};

use super::driver::{COMMIT, Driver, End};
use super::node::{Failure, Hold, Node, State, contents, text};
use super::rules::{replayed, wal_dir};
use crate::bootstrap::{CSN_DIR, WAL_DIR};
use crate::csn::XidStatus;
use crate::engine::{Engine, QuorumMode};
use crate::testing::{clock, fresh_disk};
use crate::vacuum::{VacuumOp, VacuumOptions, VacuumStep};
use crate::{CommitLevel, Step};

/// How the quorum is held back while an operation runs, and how that commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// The log is not flushed, so it ends at the quorum by itself. The commit is seen at once.
    Log,
    /// The log is flushed here and the standbys are away. The commit asks for them no more than that, and is seen.
    Standbys,
    /// The same, and the commit waits for them.
    Waiting,
    /// It is not: the quorum is said to have what the cut throws away.
    Not,
}

impl Held {
    /// The ways in which nothing may be found.
    const ALL: [Held; 3] = [Held::Log, Held::Standbys, Held::Waiting];

    fn mode(self) -> QuorumMode {
        match self {
            Held::Log => QuorumMode::Alone,
            Held::Standbys | Held::Waiting | Held::Not => QuorumMode::Managed,
        }
    }

    fn hold(self) -> Hold {
        match self {
            Held::Log => Hold::Flush,
            Held::Standbys | Held::Waiting => Hold::Standbys,
            Held::Not => Hold::Nothing,
        }
    }

    fn end(self) -> End {
        match self {
            Held::Log => End::Commit(CommitLevel::Off),
            Held::Standbys => End::Commit(CommitLevel::Local),
            Held::Waiting => End::Unanswered(CommitLevel::On),
            Held::Not => COMMIT,
        }
    }
}

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
            } else if entry.name != WAL_DIR {
                directories.push(path);
            }
        }
    }
    found
}

fn is_relation(path: &Path) -> bool {
    path.starts_with("/data/base")
}

fn is_status(path: &Path) -> bool {
    path.starts_with(Path::new("/data").join(CSN_DIR))
}

/// Whether a file of the status log says no more than it did: an abort may be there, which nothing takes back. And a node that comes back
/// knows only a lower bound of the quorum, so commits behind its redo pointer may be missing. 63 outcomes and a checksum.
fn is_same_status(before: &[u8], after: &[u8], redo: Lsn) -> bool {
    let word = |bytes: &[u8], at: usize| {
        let found = bytes.get(at * 8..at * 8 + 8);
        found.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
    };
    let is_same = |at: usize| match (word(before, at), word(after, at)) {
        (0, 1) => true,
        (before, 0) if before > redo.0 => true,
        (before, after) => before == after,
    };
    before.len() <= after.len() && (0..after.len() / 8).all(|at| at % 64 == 63 || is_same(at))
}

/// What is wrong with the files of a node that was cut at the quorum, which had those of `before`, and has redone from `redo` on.
fn wrongs(before: &Files, after: &Files, redo: Lsn) -> Vec<String> {
    let mut found = Vec::new();
    let mut say = |path: &Path, what| found.push(format!("{} {what}", path.display()));
    for (path, bytes) in before {
        match after.get(path) {
            None => say(path, "is gone"),
            Some(now) if now.len() < bytes.len() => say(path, "was cut"),
            Some(now) if is_status(path) && is_same_status(bytes, now, redo) => {}
            // Zeros behind its end say nothing.
            Some(now) if now.starts_with(bytes) && now[bytes.len()..].iter().all(|byte| *byte == 0) => {}
            Some(_) => say(path, "was changed"),
        }
    }
    for (path, bytes) in after.iter().filter(|(path, _)| !before.contains_key(*path)) {
        if !is_relation(path) || bytes.iter().any(|byte| *byte != 0) {
            say(path, "was written");
        }
    }
    found
}

/// Everything that writes outside the log does what it may, but for checkpoints.
fn write_what_may(engine: &Engine) -> Result<(), Failure> {
    let storage = engine.storage();
    storage.pool().clean_ahead(usize::MAX, usize::MAX).map_err(text)?;
    let mut pages = storage.pool().write_back(Lsn::MAX);
    while pages.step().map_err(text)? == FlushState::More {}
    drop(pages);
    for redo in [Lsn::MAX, storage.quorum().get()] {
        let _ = engine.participant.flush(redo).map_err(text)?;
    }
    storage.smgr().sync(&*clock()).map_err(text)?;
    Ok(())
}

/// The same with a checkpoint, and with the removal of what is dropped.
fn write_all(node: &mut Node) -> Result<(), Failure> {
    node.flush()?;
    drop(node.begin()?);
    write_what_may(&node.engine)?;
    node.try_checkpoint(200)?;
    write_what_may(&node.engine)
}

/// A disk with tables for the operations.
fn disk_with_tables() -> CrashVfs {
    fn make() -> Result<CrashVfs, Failure> {
        let vfs = fresh_disk();
        let mut driver = Driver::start(&vfs)?;
        let all = |rows: std::ops::Range<i32>, value| rows.map(|id| (id, value)).collect::<Vec<_>>();
        driver.text_length = 700;
        // Empty at its end; with old rows; with old rows, as the map says.
        for name in ["t", "f", "v"] {
            driver.create(name, COMMIT)?;
            driver.change(name, &all(0..40, Some(7)), COMMIT)?;
        }
        driver.change("t", &all(0..40, None), COMMIT)?;
        driver.vacuum("v")?;
        // A value out of line; and one in its row, with only dead ones out of line.
        for name in ["l", "e"] {
            driver.create_large(name, COMMIT)?;
        }
        driver.change("l", &[(1, Some(21))], COMMIT)?;
        driver.vacuum("l")?;
        driver.change("e", &[(1, Some(1))], COMMIT)?;
        driver.change("e", &all(2..7, Some(21)), COMMIT)?;
        driver.change("e", &all(2..7, None), COMMIT)?;
        driver.checkpoint()?;
        Ok(vfs.after_crash(Unsynced::Kept, 0))
    }
    static MADE: OnceLock<CrashVfs> = OnceLock::new();
    MADE.get_or_init(|| make().unwrap())
        .look(|moment| moment.after_kill())
}

/// What a failover makes of the disk: another timeline leaves this log at `fork`, and the node is to follow it.
fn fork_at(disk: &CrashVfs, history: &TimelineHistory, fork: Lsn) -> Result<TimelineId, Failure> {
    let control = ControlFile::open(disk.shared(), Path::new("/data")).map_err(text)?;
    let data = control.get();
    let source = WalSource {
        vfs: disk.shared(),
        dir: wal_dir(),
        segment_size: SegmentSize::new(data.segment_size).ok_or("no segment size")?,
        system: Some(data.system),
        history: history.clone(),
    };
    let number = TimelineNumber(history.current().number.0 + 8);
    let timeline = TimelineId::new_random(number).map_err(text)?;
    fork_timeline(&source, fork, timeline, "failover").map_err(text)?;
    control.update(|data| data.timeline = timeline).map_err(text)?;
    Ok(timeline)
}

/// What a start on the disk finds wrong, and what it leaves: it is to be a node in this state, with the files of `before`.
fn start_on(disk: &CrashVfs, state: &State, before: &Files) -> Result<Vec<String>, Failure> {
    let mut again = match Driver::start(disk) {
        Ok(again) => again,
        Err(error) => return Ok(vec![format!("the next start fails: {error}")]),
    };
    if again.state != *state {
        return Ok(vec!["the next start finds something else".to_owned()]);
    }
    again.checkpoint()?;
    let is_new = |path: &Path| is_relation(path) && !before.contains_key(path) && !is_map(path, before);
    let left = files(disk);
    let mut wrong: Vec<_> = left
        .keys()
        .filter(|path| is_new(path))
        .map(|path| format!("{} is left", path.display()))
        .collect();
    // Its transactions may have the numbers of those that are taken back.
    again.text_length = 700;
    for value in 0..3 {
        again.change("f", &[(1, Some(value)), (100 + value, Some(value))], COMMIT)?;
    }
    if again.node.contents()? != again.state {
        wrong.push("it does not go on".to_owned());
    }
    Ok(wrong)
}

/// Whether this is the visibility map of a relation that was there. Vacuum may have made it, and zeros say nothing.
fn is_map(path: &Path, before: &Files) -> bool {
    let heap = path.to_str().and_then(|path| path.strip_suffix("_vm"));
    heap.is_some_and(|heap| before.contains_key(Path::new(heap)))
}

/// Does an operation above the quorum, and says what is wrong with the files after a cut at the quorum.
fn cut_after(
    held: Held,
    operation: impl Fn(&mut Driver, End) -> Result<(), Failure>,
) -> Result<Vec<String>, Failure> {
    let vfs = disk_with_tables();
    let mut driver = Driver::of(Node::start_as(&vfs, 0, held.mode())?)?;
    driver.checkpoint()?;
    // Something for a checkpoint to do that is all below the quorum.
    driver.text_length = 700;
    driver.change("f", &[(39, Some(8))], COMMIT)?;
    driver.node.flush()?;
    write_what_may(&driver.node.engine)?;
    let quorum = driver.node.engine.storage().quorum().get();
    let control = driver.node.engine.storage().control().get();
    let history = TimelineHistory::read_of(&vfs, &wal_dir(), control.timeline).map_err(text)?;
    let state = driver.node.contents()?;
    let before = files(&vfs.look(|moment| moment.after_kill()));

    driver.node.hold = held.hold();
    operation(&mut driver, held.end())?;
    if driver.node.engine.insert_lsn().map_err(text)? <= quorum {
        return Err("nothing was logged".to_owned());
    }
    write_all(&mut driver.node)?;
    if held != Held::Not && driver.node.engine.storage().quorum().get() != quorum {
        return Err("the quorum was not held back".to_owned());
    }
    let disk = vfs.after_crash(Unsynced::Kept, 0);
    let mut wrong = wrongs(&before, &files(&disk), Lsn::MAX);
    if !wrong.is_empty() || held == Held::Log {
        if wrong.is_empty() {
            wrong = start_on(&disk, &state, &before)?;
        }
        return Ok(wrong);
    }

    let copy = |disk: &CrashVfs| disk.look(|moment| moment.after_kill());
    let alone = copy(&disk);
    let (engine, node) = Node::start_without_standbys(&alone)?;
    match node {
        Some(mut node) => write_all(&mut node)?,
        None => write_what_may(&engine)?,
    }
    let alone = alone.after_crash(Unsynced::Kept, 0);
    let mut now = files(&alone);
    // That it has started is in the control file; its checkpoint is the one before.
    let path = Path::new("/data").join(towline_storage::control::CONTROL_FILE);
    now.insert(path.clone(), before[&path].clone());
    wrong.extend(wrongs(&before, &now, control.checkpoint.redo));
    let found = ControlFile::open(copy(&alone).shared(), Path::new("/data"))
        .map_err(text)?
        .get();
    if found.checkpoint != control.checkpoint || found.page_lsn_bound > quorum {
        wrong.push("the control file names what is above the quorum".to_owned());
    }
    for disk in [disk, alone] {
        let timeline = fork_at(&disk, &history, quorum)?;
        let standby = replayed(&copy(&disk), timeline, quorum)?;
        standby.publish_horizon(quorum);
        if contents(&standby)? != state {
            wrong.push("a standby finds something else".to_owned());
        }
        wrong.extend(start_on(&disk, &state, &before)?);
    }
    Ok(wrong)
}

/// However the quorum is held back, nothing of the operation is found; and when the quorum is not, `what` befell a file in `place`.
fn check((place, what): (&str, &str), operation: impl Fn(&mut Driver, End) -> Result<(), Failure>) {
    for held in Held::ALL {
        assert_eq!(cut_after(held, &operation), Ok(Vec::new()), "{held:?}");
    }
    let found = cut_after(Held::Not, &operation).unwrap();
    let is_it = |wrong: &String| wrong.starts_with(&format!("/data/{place}")) && wrong.ends_with(what);
    assert!(
        found.iter().any(is_it),
        "with open gates {place} {what}, but: {found:?}"
    );
}

/// With the rule switched off, `what` befell a file in `place`, whichever way the quorum is held back.
#[cfg(debug_assertions)]
fn check_without(
    rule: Rule,
    (place, what): (&str, &str),
    operation: impl Fn(&mut Driver, End) -> Result<(), Failure>,
    ways: &[Held],
) {
    let _off = RuleOff::new(rule);
    for held in ways {
        let found = cut_after(*held, &operation).unwrap();
        let is_it = |wrong: &String| wrong.starts_with(&format!("/data/{place}")) && wrong.ends_with(what);
        assert!(found.iter().any(is_it), "{held:?}: {found:?}");
    }
}

/// A vacuum that goes on as far as it can without the quorum.
fn vacuum_alone(driver: &mut Driver, name: &str) -> Result<(), Failure> {
    let table = driver.node.table(name)?.ok_or("no table")?;
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
        if op.is_cutting() {
            cutting += 1;
            driver.node.flush()?;
            write_what_may(&driver.node.engine)?;
        }
    }
    Ok(())
}

/// Commits of so many transactions that the status log writes the oldest of them before any checkpoint.
fn many_commits(driver: &mut Driver, end: End) -> Result<(), Failure> {
    driver.change("f", &[(1, Some(3))], end)?;
    driver.node.flush()?;
    let engine = &driver.node.engine;
    let (first, lsn) = (engine.next_xid(), engine.insert_lsn().map_err(text)?);
    for page in 0..400 {
        let xid = Xid(first.0 + page * 1008);
        engine.csn().set(xid, XidStatus::Committed(lsn)).map_err(text)?;
    }
    Ok(())
}

#[test]
fn a_new_table_and_its_files_are_no_more() {
    check(("base", "was written"), |driver, end| {
        driver.create_large("n", end)?;
        match driver.node.table("n")? {
            Some(_) => driver.change("n", &[(1, Some(21)), (2, Some(22))], end),
            None => Ok(()),
        }
    });
}

#[test]
fn a_new_table_that_is_rolled_back_leaves_nothing() {
    check(("base", "was changed"), |driver, _| {
        driver.create_large("n", End::Rollback)
    });
}

#[test]
fn a_new_index_is_no_more() {
    check(("base", "was written"), |driver, end| driver.index("f", end));
}

#[test]
fn a_longer_heap_and_index_hold_nothing_new() {
    let rows: Vec<_> = (100..160).map(|id| (id, Some(id))).collect();
    check(("base", "was changed"), |driver, end| {
        driver.change("f", &rows, end)
    });
}

#[test]
fn a_map_that_is_cleared_is_as_it_was() {
    check(("base", "was changed"), |driver, end| {
        driver.change("v", &[(1, Some(8)), (20, None)], end)
    });
}

#[test]
fn a_value_out_of_line_is_as_it_was() {
    check(("base", "was changed"), |driver, end| {
        driver.change("l", &[(1, Some(31)), (2, Some(22))], end)
    });
}

#[test]
fn a_dropped_table_has_its_files() {
    check(("base", "is gone"), |driver, end| driver.drop_table("l", end));
}

#[test]
fn an_emptied_table_has_its_files() {
    check(("base", "is gone"), |driver, end| driver.truncate("l", end));
}

#[test]
fn a_table_that_is_vacuumed_is_as_long_as_it_was() {
    check(("base", "was cut"), |driver, _| vacuum_alone(driver, "t"));
}

#[test]
fn what_is_out_of_line_is_as_long_as_it_was() {
    check(("base", "was cut"), |driver, _| vacuum_alone(driver, "e"));
}

#[test]
fn rows_that_are_frozen_and_a_new_map_are_as_they_were() {
    check(("base", "was changed"), |driver, _| vacuum_alone(driver, "f"));
}

#[test]
fn the_status_log_has_no_commit_above_the_quorum() {
    check((CSN_DIR, "was changed"), |driver, end| {
        driver.change("f", &[(1, Some(3))], end)
    });
    check((CSN_DIR, "was changed"), many_commits);
}

#[test]
fn a_checkpoint_whose_record_the_quorum_has_not_is_not_named() {
    check(("global", "was changed"), |driver, _| {
        driver.node.try_checkpoint(200).map(|_| ())
    });
}

#[test]
fn a_shutdown_without_the_quorum_leaves_what_was_there() {
    check(("global", "was changed"), |driver, _| {
        driver.node.try_shutdown(200).map(|_| ())
    });
}

#[cfg(debug_assertions)]
#[test]
fn without_the_gate_of_files_a_vacuumed_table_would_be_cut() {
    for name in ["t", "e"] {
        let vacuum = |driver: &mut Driver, _| vacuum_alone(driver, name);
        check_without(Rule::FilesBelowQuorum, ("base", "was cut"), vacuum, &Held::ALL);
    }
}

/// A commit that is not seen asks for no removal.
#[cfg(debug_assertions)]
#[test]
fn without_the_gate_of_files_a_dropped_and_an_emptied_table_would_be_gone() {
    let (gone, ways) = (("base", "is gone"), [Held::Log, Held::Standbys]);
    let drop = |driver: &mut Driver, end| driver.drop_table("l", end);
    check_without(Rule::FilesBelowQuorum, gone, drop, &ways);
    let truncate = |driver: &mut Driver, end| driver.truncate("l", end);
    check_without(Rule::FilesBelowQuorum, gone, truncate, &ways);
}

#[cfg(debug_assertions)]
#[test]
fn without_the_gate_of_the_status_log_it_would_be_written() {
    let changed = (CSN_DIR, "was changed");
    let change = |driver: &mut Driver, end| driver.change("f", &[(1, Some(3))], end);
    check_without(Rule::StatusBelowQuorum, changed, change, &Held::ALL);
    check_without(Rule::StatusBelowQuorum, changed, many_commits, &Held::ALL);
}

#[cfg(debug_assertions)]
#[test]
fn without_the_gate_of_the_control_file_it_would_name_a_checkpoint_that_is_taken_back() {
    let changed = ("global", "was changed");
    let checkpoint = |driver: &mut Driver, _| driver.node.try_checkpoint(200).map(|_| ());
    check_without(Rule::CheckpointBelowQuorum, changed, checkpoint, &Held::ALL);
    let shutdown = |driver: &mut Driver, _| driver.node.try_shutdown(200).map(|_| ());
    check_without(Rule::CheckpointBelowQuorum, changed, shutdown, &Held::ALL);
}
