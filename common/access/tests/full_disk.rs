//! The disk of the log is full: a checkpoint frees what only redo still needed, at once, and changes go on.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::time::Duration;

use support::Work;
use towline_access::Step;
use towline_base::{Lsn, Vfs};
use towline_wal::{RecordBuilder, Rmgr};

/// Far above what any wait here takes, far below `checkpoint_timeout`.
const LIMIT: Duration = Duration::from_secs(20);

const MB: u64 = 1 << 20;

/// Changes were held back until `checkpoint_timeout` brought the next checkpoint, although that would have freed all they needed.
#[test]
fn a_full_disk_of_the_log_brings_a_checkpoint_at_once() {
    let work = Work::on(support::fresh_disk());
    let plenty = 1 << 40;
    work.vfs.set_capacity(Some(plenty));
    let used = plenty - work.vfs.disk_free(Path::new("/data")).unwrap();
    // Room for segments, and a little for the checkpoint's own files.
    work.vfs.set_capacity(Some(used + 3 * MB + MB / 2));
    let redo = || work.engine.storage().control().get().checkpoint.redo;
    let (before, start) = (redo(), work.engine.current_lsn());
    let writer = work.engine.writer().unwrap();
    let mut record = RecordBuilder::new();
    let mut waits = 0;
    // Three times what the disk has room for.
    while work.engine.current_lsn().distance_from(start) < 9 * MB {
        record.begin(Rmgr::Towline, 0x20, 0).data(&[1; 50_000]);
        let credit = match work.engine.credit(record.credit_needed()).unwrap() {
            Step::Done(credit) => credit,
            Step::Wait(wait) => {
                // Others are for a segment that is being made.
                waits += u32::from(writer.wal.segments().shortage() != Lsn::MAX);
                assert!(waits < 20 && wait.block(LIMIT).unwrap(), "changes are held back");
                continue;
            }
        };
        let inserted = writer
            .wal
            .insert(&writer.permit, credit, &mut record, &[])
            .unwrap();
        writer.wal.flush(inserted.end, Some(LIMIT)).unwrap();
    }
    assert!(redo() > before);
    assert!(!work.engine.has_failed());
}

/// The first refused write of the status log stopped the node, and the marks of its other pages were lost.
#[test]
fn a_checkpoint_that_finds_no_room_for_the_status_log_is_tried_again() {
    let work = Work::on(support::fresh_disk());
    let checkpoint = || work.engine.checkpoint().unwrap();
    assert!(checkpoint().block(LIMIT).unwrap());
    let plenty = 1 << 40;
    work.vfs.set_capacity(Some(plenty));
    let used = plenty - work.vfs.disk_free(Path::new("/data")).unwrap();
    // More transactions than a page of the status log has room for.
    for _ in 0..1100 {
        let mut txn = work.begin().unwrap();
        support::drive(&mut txn, |txn| txn.ensure_xid()).unwrap();
        txn.rollback();
    }
    work.vfs.set_capacity(Some(used));
    let wait = checkpoint();
    let Err(wait) = wait.block_briefly(Duration::from_millis(100)).unwrap() else {
        panic!("there was room");
    };
    assert!(!work.engine.has_failed());
    work.vfs.set_capacity(None);
    assert!(wait.block(LIMIT).unwrap());
    assert!(!work.engine.has_failed());
}
