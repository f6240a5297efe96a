//! Tests of the CSN log: the ring, the paged log beneath it, and its checksums.
#![allow(clippy::unwrap_used)]
use super::*;
use towline_base::OsVfs;
use towline_base::vfs::crash::Op;
use towline_base::vfs::{CrashVfs, Unsynced};

/// A quorum that has everything.
fn quorum() -> LsnWatch {
    LsnWatch::new(Lsn::MAX).1
}

fn open(dir: &Path, next: u64) -> CsnLog {
    let log = CsnLog::open(Arc::new(OsVfs), dir, Xid(next)..Xid(next), quorum(), 4).unwrap();
    // Nothing is too old to be asked for, although no checkpoint has left files.
    log.oldest.store(3, Ordering::SeqCst);
    log
}

#[test]
fn outcomes_are_found_in_the_ring_and_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 3);
    let count = 20_000u64;
    for xid in 3..count {
        let status = if xid % 3 == 0 {
            XidStatus::Aborted
        } else {
            XidStatus::Committed(Lsn(xid * 10))
        };
        if xid % 7 != 0 {
            log.set(Xid(xid), status).unwrap();
        } else {
            log.extend_to(Xid(xid)).unwrap();
        }
    }
    let check = |log: &CsnLog| {
        for xid in 3..count {
            let expected = match xid {
                xid if xid % 7 == 0 => XidStatus::InProgress,
                xid if xid % 3 == 0 => XidStatus::Aborted,
                xid => XidStatus::Committed(Lsn(xid * 10)),
            };
            assert_eq!(log.status(Xid(xid)).unwrap(), expected, "xid {xid}");
        }
    };
    check(&log);
    log.flush(Lsn::MAX, Xid(3)).unwrap();
    check(&log);
    drop(log);
    let log = open(dir.path(), count);
    check(&log);
    log.set_first_of_timeline(Xid(count));
    assert_eq!(log.status(Xid(7)).unwrap(), XidStatus::Aborted);
    assert_eq!(log.status(Xid(count)).unwrap(), XidStatus::InProgress);
}

/// A row that was not frozen would otherwise become one of an aborted transaction.
#[test]
fn an_outcome_that_was_removed_is_an_error_and_not_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 3);
    let last = 3 * 1024 * ENTRIES_PER_PAGE as u64;
    for xid in [10, last / 2, last] {
        log.set(Xid(xid), XidStatus::Committed(Lsn(xid))).unwrap();
    }
    log.flush(Lsn::MAX, Xid(last)).unwrap();
    assert_eq!(log.file_numbers(), [0, 1, 2, 3]);
    log.truncate_below(Xid(last - 1)).unwrap();
    assert_eq!(log.file_numbers(), [2, 3]);
    let error = log.status(Xid(10)).unwrap_err();
    assert_eq!(error.sqlstate(), towline_base::SqlState::DATA_CORRUPTED);
    assert_eq!(log.status(Xid(last)).unwrap(), XidStatus::Committed(Lsn(last)));
    // Redo from a checkpoint that is older than the freezing finds commits of that age once more.
    log.set(Xid(11), XidStatus::Committed(Lsn(11))).unwrap();
    log.flush(Lsn::MAX, Xid(last)).unwrap();
    assert_eq!(log.file_numbers(), [2, 3]);
    drop(log);
    let log = CsnLog::open(Arc::new(OsVfs), dir.path(), Xid(last - 1)..Xid(last), quorum(), 4).unwrap();
    assert!(log.status(Xid(10)).is_err());
}

#[test]
fn a_commit_above_the_limit_stays_out_of_the_file_until_it_is_below() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 3);
    log.set(Xid(10), XidStatus::Committed(Lsn(100))).unwrap();
    log.set(Xid(11), XidStatus::Committed(Lsn(200))).unwrap();
    log.flush(Lsn(150), Xid(3)).unwrap();
    let reopened = open(dir.path(), 3);
    assert_eq!(reopened.status(Xid(10)).unwrap(), XidStatus::Committed(Lsn(100)));
    assert_eq!(reopened.status(Xid(11)).unwrap(), XidStatus::InProgress);
    log.flush(Lsn(200), Xid(3)).unwrap();
    assert_eq!(
        open(dir.path(), 3).status(Xid(11)).unwrap(),
        XidStatus::Committed(Lsn(200))
    );
}

#[test]
fn special_xids_need_no_entry() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 3);
    assert_eq!(log.status(Xid::FROZEN).unwrap(), XidStatus::OLD);
    assert_eq!(log.status(Xid::BOOTSTRAP).unwrap(), XidStatus::OLD);
    assert_eq!(log.status(Xid::INVALID).unwrap(), XidStatus::Aborted);
}

#[test]
fn a_damaged_sector_is_an_error_and_not_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 3);
    log.set(Xid(10), XidStatus::Committed(Lsn(100))).unwrap();
    log.flush(Lsn::MAX, Xid(3)).unwrap();
    drop(log);
    let path = dir.path().join("00000000");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = CsnLog::open(Arc::new(OsVfs), dir.path(), Xid(3)..Xid(3), quorum(), 4).unwrap_err();
    assert_eq!(error.sqlstate(), towline_base::SqlState::DATA_CORRUPTED);
}

#[test]
fn readers_never_see_another_xids_outcome_while_the_ring_moves() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(open(dir.path(), 3));
    let end = 60_000u64;
    std::thread::scope(|scope| {
        for reader in 0..2u64 {
            let log = Arc::clone(&log);
            scope.spawn(move || {
                let mut seed = reader + 1;
                for _ in 0..100_000 {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let xid = 3 + (seed >> 33) % (end - 3);
                    match log.status(Xid(xid)).unwrap() {
                        XidStatus::Committed(lsn) => assert_eq!(lsn, Lsn(xid * 8 + 16)),
                        XidStatus::InProgress => {}
                        XidStatus::Aborted => panic!("nobody aborts"),
                    }
                }
            });
        }
        for xid in 3..end {
            log.set(Xid(xid), XidStatus::Committed(Lsn(xid * 8 + 16)))
                .unwrap();
        }
    });
    for xid in (3..end).step_by(97) {
        assert_eq!(
            log.status(Xid(xid)).unwrap(),
            XidStatus::Committed(Lsn(xid * 8 + 16))
        );
    }
}

const ENOSPC: i32 = 28;

fn disk() -> CrashVfs {
    let vfs = CrashVfs::new();
    CsnLog::create(&vfs, Path::new("/csn")).unwrap();
    vfs
}

/// A log on files in memory that has been through a checkpoint: xids 3 to 2999, on three pages.
fn checkpointed() -> CrashVfs {
    let vfs = disk();
    let log = open_in(&vfs, Xid(3)..Xid(3)).unwrap();
    for xid in 3..2000 {
        log.set(Xid(xid), XidStatus::Committed(Lsn(xid))).unwrap();
    }
    // The last page has no outcome yet: what was given out there runs.
    log.flush(Lsn::MAX, Xid(3000)).unwrap();
    vfs.after_crash(Unsynced::Lost, 0)
}

fn open_in(vfs: &CrashVfs, xids: Range<Xid>) -> Result<CsnLog> {
    CsnLog::open(vfs.shared(), Path::new("/csn"), xids, quorum(), 4)
}

/// A lost file made every commit in it an aborted transaction, and the node started without a word.
#[test]
fn a_file_that_a_checkpoint_left_and_that_is_gone_or_cut_is_an_error_with_its_name() {
    let file = Path::new("/csn/00000000");
    let whole = checkpointed();
    assert_eq!(
        open_in(&whole, Xid(3)..Xid(3000))
            .unwrap()
            .status(Xid(1999))
            .unwrap(),
        XidStatus::Committed(Lsn(1999))
    );
    for length in [None, Some(0), Some(10), Some(3 * 8192 - 1)] {
        let vfs = checkpointed();
        match length {
            None => vfs.remove_file(file).unwrap(),
            Some(length) => {
                let open = vfs.open(file, towline_base::OpenMode::ReadWrite).unwrap();
                open.set_len(length).unwrap();
            }
        }
        let error = open_in(&vfs, Xid(3)..Xid(3000)).unwrap_err();
        assert_eq!(
            error.sqlstate(),
            towline_base::SqlState::DATA_CORRUPTED,
            "{error}"
        );
        assert!(error.to_string().contains("/csn/00000000"), "{error}");
    }
    // What nobody was given yet, and what is frozen everywhere, need not be there.
    let vfs = checkpointed();
    vfs.remove_file(file).unwrap();
    assert!(open_in(&vfs, Xid(3)..Xid(3)).is_ok());
    assert!(open_in(&vfs, Xid(3_000_000)..Xid(3_000_000)).is_ok());
}

/// Every mark was taken before the first write: after one that found the disk full, the others were never written again.
#[test]
fn a_write_that_finds_the_disk_full_is_tried_again_with_all_that_was_left() {
    let all =
        |log: &CsnLog| (3..5000).all(|xid| log.status(Xid(xid)).unwrap() == XidStatus::Committed(Lsn(xid)));
    for failing in 1..=5 {
        let vfs = disk();
        let log = open_in(&vfs, Xid(3)..Xid(3)).unwrap();
        for xid in 3..5000 {
            log.set(Xid(xid), XidStatus::Committed(Lsn(xid))).unwrap();
        }
        vfs.fail_nth(Op::Write, failing, ENOSPC, false);
        let error = log.flush(Lsn::MAX, Xid(5000)).unwrap_err();
        assert!(error.is_disk_full(), "{error}");
        log.flush(Lsn::MAX, Xid(5000)).unwrap();
        let after = vfs.after_crash(Unsynced::Lost, 0);
        assert!(
            all(&open_in(&after, Xid(3)..Xid(5000)).unwrap()),
            "write {failing}"
        );
    }
}

#[test]
fn a_sync_that_finds_the_disk_full_has_failed_for_good() {
    let vfs = disk();
    let log = open_in(&vfs, Xid(3)..Xid(3)).unwrap();
    log.set(Xid(3), XidStatus::Aborted).unwrap();
    vfs.fail_nth(Op::Sync, 1, ENOSPC, false);
    let error = log.flush(Lsn::MAX, Xid(4)).unwrap_err();
    assert!(!error.is_disk_full(), "{error}");
}
