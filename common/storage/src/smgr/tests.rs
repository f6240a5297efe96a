//! Relation files on a real directory.
#![allow(clippy::unwrap_used)]

use super::*;
use towline_base::vfs::CrashVfs;
use towline_base::vfs::crash::Op;
use towline_base::{OsVfs, SystemClock};

fn smgr(limit: usize) -> (tempfile::TempDir, Smgr) {
    let dir = tempfile::tempdir().unwrap();
    let smgr = Smgr::new(Arc::new(OsVfs), dir.path(), limit);
    smgr.create_directories().unwrap();
    (dir, smgr)
}

#[test]
fn blocks_are_zero_until_written_and_come_back() {
    let (dir, smgr) = smgr(100);
    let rel = relation(16384);
    smgr.create(rel, ForkKind::Main).unwrap();
    assert_eq!(smgr.nblocks(rel, ForkKind::Main).unwrap(), 0);
    assert_eq!(smgr.extend(rel, ForkKind::Main, 1).unwrap(), 0);
    assert_eq!(smgr.extend(rel, ForkKind::Main, 3).unwrap(), 1);
    let mut page = Page::boxed_zeroed();
    smgr.read(&PageId::main(rel, 3), &mut page).unwrap();
    assert!(page.is_all_zero());
    page.init(0);
    smgr.write(&PageId::main(rel, 2), &page).unwrap();
    let again = Smgr::new(Arc::new(OsVfs), dir.path(), 100);
    assert_eq!(again.nblocks(rel, ForkKind::Main).unwrap(), 4);
    let mut back = Page::boxed_zeroed();
    again.read(&PageId::main(rel, 2), &mut back).unwrap();
    assert!(back == page);
    assert!(matches!(
        again.read(&PageId::main(rel, 4), &mut back),
        Err(StorageError::NoSuchBlock(_))
    ));
}

#[test]
fn a_missing_relation_is_named() {
    let (_dir, smgr) = smgr(100);
    assert!(
        matches!(smgr.nblocks(relation(9), ForkKind::Main), Err(StorageError::NoSuchRelation(rel)) if rel == relation(9))
    );
    assert!(!smgr.exists(relation(9), ForkKind::Main).unwrap());
    smgr.unlink(relation(9)).unwrap();
}

#[test]
fn truncation_and_removal_show_at_once_and_after_reopening() {
    let (dir, smgr) = smgr(100);
    let rel = relation(20000);
    smgr.create(rel, ForkKind::Main).unwrap();
    smgr.create(rel, ForkKind::Vm).unwrap();
    smgr.extend(rel, ForkKind::Main, 100).unwrap();
    smgr.truncate(rel, ForkKind::Main, 7).unwrap();
    assert_eq!(smgr.nblocks(rel, ForkKind::Main).unwrap(), 7);
    assert_eq!(
        Smgr::new(Arc::new(OsVfs), dir.path(), 100)
            .nblocks(rel, ForkKind::Main)
            .unwrap(),
        7
    );
    assert_eq!(smgr.extend(rel, ForkKind::Main, 1).unwrap(), 7);
    smgr.unlink(rel).unwrap();
    assert!(!smgr.exists(rel, ForkKind::Main).unwrap());
    assert!(smgr.list(&rel).unwrap().is_empty());
    smgr.sync(&SystemClock).unwrap();
}

#[test]
fn redo_of_a_creation_empties_what_is_there() {
    let (_dir, smgr) = smgr(100);
    let rel = relation(20001);
    smgr.create(rel, ForkKind::Main).unwrap();
    smgr.extend(rel, ForkKind::Main, 5).unwrap();
    assert!(smgr.create(rel, ForkKind::Main).is_err());
    smgr.create_or_empty(rel, ForkKind::Main).unwrap();
    assert_eq!(smgr.nblocks(rel, ForkKind::Main).unwrap(), 0);
    smgr.ensure_blocks(rel, ForkKind::Main, 3).unwrap();
    assert_eq!(smgr.nblocks(rel, ForkKind::Main).unwrap(), 3);
    smgr.ensure_blocks(relation(20002), ForkKind::Vm, 1).unwrap();
    assert_eq!(smgr.nblocks(relation(20002), ForkKind::Vm).unwrap(), 1);
}

#[test]
fn the_number_of_open_files_is_bounded() {
    let (_dir, smgr) = smgr(16);
    for number in 1..200 {
        smgr.create(relation(number), ForkKind::Main).unwrap();
        smgr.extend(relation(number), ForkKind::Main, 1).unwrap();
        assert!(smgr.handles.len() <= 16);
    }
    for number in 1..200 {
        assert_eq!(smgr.nblocks(relation(number), ForkKind::Main).unwrap(), 1);
    }
    assert_eq!(smgr.sync(&SystemClock).unwrap().files, 199);
    assert_eq!(smgr.sync(&SystemClock).unwrap().files, 0);
}

/// A checkpoint that had no descriptor left to open a file with stopped the node.
#[test]
fn without_a_descriptor_files_that_are_open_are_closed_for_it() {
    let vfs = CrashVfs::new();
    let smgr = Smgr::new(vfs.shared(), "/data", 100);
    smgr.create_directories().unwrap();
    for number in 1..=16 {
        smgr.create(relation(number), ForkKind::Main).unwrap();
    }
    for code in [24, 23] {
        let open = smgr.handles.len();
        vfs.fail_nth(Op::Open, 1, code, false);
        smgr.create(relation(100 + code as u32), ForkKind::Main).unwrap();
        assert!(smgr.handles.len() < open);
    }
    // When nothing is left to close, it is an error.
    vfs.fail_nth(Op::Open, 1, 24, true);
    let error = smgr.create(relation(200), ForkKind::Main).unwrap_err();
    assert!(error.to_string().contains("Too many open files"), "{error}");
    vfs.clear_failures();
    assert_eq!(smgr.sync(&SystemClock).unwrap().files, 18);
}

/// The lost part of a page was not noticed: the relation was a block shorter.
#[test]
fn a_file_that_was_cut_in_the_middle_of_a_block_is_damage() {
    let (dir, smgr) = smgr(100);
    let rel = relation(16384);
    smgr.create(rel, ForkKind::Main).unwrap();
    smgr.extend(rel, ForkKind::Main, 2).unwrap();
    let path = dir.path().join("base/5/16384");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(PAGE_SIZE as u64 + 5000).unwrap();
    let again = Smgr::new(Arc::new(OsVfs), dir.path(), 100);
    let error = again.nblocks(rel, ForkKind::Main).unwrap_err();
    assert_eq!(error.sqlstate(), towline_base::SqlState::DATA_CORRUPTED);
    assert!(
        error.to_string().contains("base/5/16384\" has 13192 bytes"),
        "{error}"
    );
}

#[test]
fn a_start_after_a_crash_rounds_torn_extensions_off_and_keeps_torn_pages_visible() {
    let (dir, smgr) = smgr(100);
    let path = |number: u32| dir.path().join(format!("base/5/{number}"));
    for (number, last) in [(16384, 0u8), (16385, 7)] {
        smgr.create(relation(number), ForkKind::Main).unwrap();
        smgr.extend(relation(number), ForkKind::Main, 1).unwrap();
        let mut bytes = vec![1; PAGE_SIZE];
        bytes.extend_from_slice(&[last; 5000]);
        std::fs::write(path(number), bytes).unwrap();
    }
    let again = Smgr::new(Arc::new(OsVfs), dir.path(), 100);
    assert_eq!(again.round_off_torn_blocks().unwrap(), 2);
    assert_eq!(again.nblocks(relation(16384), ForkKind::Main).unwrap(), 1);
    assert_eq!(again.nblocks(relation(16385), ForkKind::Main).unwrap(), 2);
    let kept = std::fs::read(path(16385)).unwrap();
    assert_eq!((kept[PAGE_SIZE + 4999], kept[PAGE_SIZE + 5000]), (7, 0));
    assert_eq!(again.round_off_torn_blocks().unwrap(), 0);
}

/// An extension up to the invalid block number never ended.
#[test]
fn no_relation_gets_more_blocks_than_there_are_numbers() {
    let vfs = CrashVfs::new();
    let smgr = Smgr::new(vfs.shared(), "/data", 10);
    smgr.create_directories().unwrap();
    vfs.set_capacity(Some(0));
    let error = smgr
        .ensure_blocks(relation(20000), ForkKind::Main, u32::MAX)
        .unwrap_err();
    assert!(matches!(error, StorageError::Damaged(_)), "{error}");
}

/// Two appliers of redo found the file missing, and the second began its length anew.
#[test]
fn two_that_make_a_missing_fork_long_enough_both_find_their_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let smgr = Smgr::new(Arc::new(OsVfs), dir.path(), 100);
    smgr.create_directories().unwrap();
    let start = std::sync::Barrier::new(2);
    for round in 0..300 {
        let rel = relation(20_000 + round);
        std::thread::scope(|scope| {
            for blocks in [3, 7] {
                let (smgr, start) = (&smgr, &start);
                scope.spawn(move || {
                    start.wait();
                    smgr.ensure_blocks(rel, ForkKind::Main, blocks).unwrap();
                    assert!(smgr.nblocks(rel, ForkKind::Main).unwrap() >= blocks);
                });
            }
        });
        assert!(smgr.nblocks(rel, ForkKind::Main).unwrap() >= 7, "round {round}");
    }
}
