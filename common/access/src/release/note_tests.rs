//! Tests of the note of released positions.
#![allow(clippy::unwrap_used)]
use std::path::Path;

use towline_base::vfs::{CrashVfs, Unsynced};

use super::*;

const DIR: &str = "/wal";

fn timeline(number: u32) -> TimelineId {
    TimelineId {
        number: TimelineNumber(number),
        incarnation: Incarnation([number as u8; 16]),
    }
}

fn positions(flush: u64, quorum: u64) -> ReleasePositions {
    ReleasePositions {
        flush: Lsn(flush),
        quorum_written: Lsn(quorum),
        quorum: Lsn(quorum),
    }
}

fn disk() -> CrashVfs {
    let vfs = CrashVfs::new();
    vfs.create_dir_all(Path::new(DIR)).unwrap();
    vfs.sync_dir(Path::new("/")).unwrap();
    vfs
}

fn open(vfs: &CrashVfs, synced_log: bool) -> ReleaseNote {
    ReleaseNote::open(vfs, Path::new(DIR), timeline(2), synced_log).unwrap()
}

/// What the next process finds if this one ends now.
fn killed(vfs: &CrashVfs) -> CrashVfs {
    vfs.look(|moment| moment.after_kill())
}

fn found(vfs: &CrashVfs) -> Option<Released> {
    read(vfs, Path::new(DIR)).unwrap()
}

#[test]
fn what_was_told_last_is_found_after_a_kill() {
    let vfs = disk();
    let mut note = open(&vfs, true);
    assert_eq!(found(&killed(&vfs)), None, "nothing was told");
    note.tell(&positions(300, 200), Lsn(250));
    note.tell(&positions(330, 310), Lsn(310));
    let told = Released {
        timeline: timeline(2),
        durable: Lsn(330),
        quorum: Lsn(310),
        visible: Lsn(310),
    };
    assert_eq!(found(&killed(&vfs)), Some(told));
    // The next timeline's writer leaves it until it has something to tell.
    let next = killed(&vfs);
    drop(open(&next, true));
    assert_eq!(found(&next), Some(told));
}

#[test]
fn a_power_cut_leaves_what_was_synced_or_something_newer() {
    let vfs = disk();
    let mut note = open(&vfs, true);
    let mut sync = note.sync();
    let start = Moment(5_000_000_000);
    assert_eq!(sync.step(start), Next::Idle);
    note.tell(&positions(100, 100), Lsn(100));
    assert_eq!(sync.step(start), Next::Now);
    assert_eq!(sync.step(start), Next::Idle);
    note.tell(&positions(200, 200), Lsn(200));
    let due = start.after(SYNC_EVERY);
    assert_eq!(sync.step(start), Next::At(due));
    let left = |seed| {
        let disks = vfs.look(|moment| moment.disks(&Unsynced::ALL, seed));
        let visible = |(_, disk): (Unsynced, CrashVfs)| found(&disk).map(|released| released.visible);
        disks.into_iter().map(visible).collect::<Vec<_>>()
    };
    for seed in 0..20 {
        for visible in left(seed) {
            assert!([Some(Lsn(100)), Some(Lsn(200))].contains(&visible), "{visible:?}");
        }
    }
    assert_eq!(sync.step(due), Next::Now);
    assert!(left(1).iter().all(|visible| *visible == Some(Lsn(200))));
}

#[test]
fn a_log_that_is_not_synced_is_not_called_durable() {
    let vfs = disk();
    open(&vfs, false).tell(&positions(300, 200), Lsn(250));
    let released = found(&killed(&vfs)).unwrap();
    assert_eq!((released.durable, released.quorum), (Lsn::INVALID, Lsn(200)));
}

#[test]
fn positions_count_as_far_as_their_timeline_goes() {
    let of = |number, visible: u64| Released {
        timeline: timeline(number),
        durable: Lsn(visible),
        quorum: Lsn(visible),
        visible: Lsn(visible),
    };
    let history = TimelineHistory::first(timeline(1)).forked(Lsn(100), timeline(2), "test");
    assert_eq!(of(1, 70).on(&history), Some(of(1, 70)));
    assert_eq!(of(1, 130).on(&history), Some(of(1, 100)), "it was cut at 100");
    assert_eq!(of(2, 130).on(&history), Some(of(2, 130)));
    assert_eq!(of(3, 130).on(&history), None);
    let namesake = TimelineId {
        incarnation: Incarnation([9; 16]),
        ..timeline(2)
    };
    let foreign = Released {
        timeline: namesake,
        ..of(2, 130)
    };
    assert_eq!(foreign.on(&history), None);
}

#[test]
fn a_damaged_note_is_as_none() {
    let vfs = disk();
    open(&vfs, true).tell(&positions(300, 200), Lsn(250));
    let path = Path::new(DIR).join(NAME);
    let bytes = vfs.read_file(&path, MAX_LEN).unwrap();
    let write = |bytes: &[u8]| {
        let file = vfs.open(&path, OpenMode::Truncate).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    };
    for at in 0..bytes.len() {
        write(&bytes[..at]);
        assert_eq!(found(&vfs), None, "cut to {at} bytes");
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            write(&flipped);
            assert_eq!(found(&vfs), None, "bit {bit} of byte {at}");
        }
    }
    write(&vec![0; MAX_LEN as usize + 1]);
    assert_eq!(found(&vfs), None, "too long");
    write(&bytes);
    assert!(found(&vfs).is_some());
}

#[test]
fn a_note_that_cannot_be_written_stays_as_it_is_and_stops_nobody() {
    let vfs = disk();
    let mut note = open(&vfs, true);
    note.tell(&positions(100, 100), Lsn(100));
    vfs.fail_nth(towline_base::vfs::crash::Op::Write, 1, 5, false);
    note.tell(&positions(200, 200), Lsn(200));
    note.tell(&positions(300, 300), Lsn(300));
    assert_eq!(found(&vfs).unwrap().visible, Lsn(100));
}
