//! Starts that must fail: what redo needs is missing or damaged. The error says which file, and nothing on disk is touched.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use towline_base::vfs::CrashVfs;
use towline_base::{Lsn, OpenMode, Vfs};
use towline_storage::ControlFile;

use crate::testing::*;

const SEGMENT: u64 = 1 << 20;

/// A node that was killed: its last checkpoint is two segments before the end of its log.
fn killed() -> (CrashVfs, Lsn) {
    let rig = Rig::new();
    let t = table(20_000, true, 100);
    rig.make_table(&t);
    let end_segment = |rig: &Rig| {
        let writer = rig.engine.writer().unwrap();
        while writer.wal.switch_segment(&writer.permit).unwrap().is_none() {
            std::thread::yield_now();
        }
        let mut txn = rig.begin();
        insert(&mut txn, &t, (writer.wal.insert_lsn().0 as i32, 1));
        commit(txn);
    };
    (0..3).for_each(|_| end_segment(&rig));
    assert!(
        rig.engine
            .checkpoint()
            .unwrap()
            .block(std::time::Duration::from_secs(20))
            .unwrap()
    );
    let redo = rig.engine.storage().control().get().checkpoint.redo;
    (0..2).for_each(|_| end_segment(&rig));
    let disk = rig.crash();
    (disk, redo)
}

/// Every file with its bytes.
fn files(vfs: &CrashVfs) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for dir in ["/data/global", "/data/pg_wal", "/data/pg_csn", "/data/base/5"] {
        for entry in vfs.read_dir(dir.as_ref()).unwrap() {
            let path = format!("{dir}/{}", entry.name);
            let bytes = vfs.read_file(path.as_ref(), 1 << 30).unwrap();
            found.push((path, bytes));
        }
    }
    found
}

/// The error of a start on this disk, which is as before.
fn refused(vfs: &CrashVfs) -> String {
    let before = files(vfs);
    let error = Rig::try_open(vfs.clone()).map(|_| ()).unwrap_err();
    assert!(files(vfs) == before, "the start has changed something: {error}");
    error.to_string()
}

/// The file of the newest timeline that holds this position.
fn segment(vfs: &CrashVfs, lsn: Lsn) -> String {
    let suffix = format!("{:016X}", lsn.0 / SEGMENT);
    let names = vfs.read_dir("/data/pg_wal".as_ref()).unwrap();
    let newest = names.into_iter().rfind(|entry| entry.name.ends_with(&suffix));
    format!("/data/pg_wal/{}", newest.unwrap().name)
}

#[test]
fn a_missing_segment_of_the_checkpoint_or_behind_it_ends_the_start_with_its_name() {
    for behind in [0, SEGMENT] {
        let (vfs, redo) = killed();
        let missing = segment(&vfs, redo + behind);
        vfs.remove_file(missing.as_ref()).unwrap();
        let error = refused(&vfs);
        assert!(error.contains(&missing) && error.contains("missing"), "{error}");
    }
}

#[test]
fn a_missing_redo_segment_ends_the_start_with_its_name() {
    let (vfs, redo) = killed();
    // The checkpoint's record is there, and redo begins two segments before it, where no file is.
    let suffix = format!("{:016X}", redo.0 / SEGMENT - 2);
    for entry in vfs.read_dir("/data/pg_wal".as_ref()).unwrap() {
        if entry.name.ends_with(&suffix) {
            vfs.remove_file(&Path::new("/data/pg_wal").join(&entry.name))
                .unwrap();
        }
    }
    let control = ControlFile::open(vfs.shared(), Path::new("/data")).unwrap();
    control
        .update(|data| data.checkpoint.redo = Lsn(redo.0 - 2 * SEGMENT))
        .unwrap();
    let error = refused(&vfs);
    assert!(error.contains(&suffix) && error.contains("missing"), "{error}");
}

#[test]
fn a_checkpoint_record_that_is_not_where_the_control_file_says_ends_the_start() {
    let (vfs, _) = killed();
    let control = ControlFile::open(vfs.shared(), Path::new("/data")).unwrap();
    // A record of another kind stands behind it.
    control
        .update(|data| data.checkpoint.lsn = data.checkpoint.end)
        .unwrap();
    let error = Rig::try_open(vfs).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("could not locate a valid checkpoint record"),
        "{error}"
    );
}

#[test]
fn a_damaged_or_missing_control_file_ends_the_start_with_its_name() {
    let (vfs, _) = killed();
    let path = Path::new("/data/global/towline_control");
    let file = vfs.open(path, OpenMode::ReadWrite).unwrap();
    // One copy is enough.
    let mut byte = [0];
    file.read_exact_at(&mut byte, 40).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 40).unwrap();
    drop(Rig::open(vfs.after_kill()));
    let (vfs, _) = killed();
    let file = vfs.open(path, OpenMode::ReadWrite).unwrap();
    for copy in [0, 8192] {
        file.write_all_at(&[0xFF; 4], copy + 40).unwrap();
    }
    let error = refused(&vfs);
    assert!(
        error.contains("towline_control") && error.contains("damaged") && error.contains("checksum"),
        "{error}"
    );
    vfs.remove_file(path).unwrap();
    let error = refused(&vfs);
    assert!(error.contains("towline_control"), "{error}");
}

/// Redo that waited for standbys, or for space, did not hear that the node was to stop.
#[test]
fn redo_that_is_told_to_stop_leaves_the_rest_to_the_next_call() {
    let (disk, _) = killed();
    let mut opened =
        crate::Engine::open_primary(disk.shared(), clock(), config(), super::QuorumMode::Alone).unwrap();
    opened.wal.flush_here(opened.first_record_end);
    assert!(!opened.recover_until(&|| true).unwrap());
    assert!(opened.engine.writer().is_err(), "it takes no changes yet");
    assert!(opened.recover_until(&|| false).unwrap());
    assert!(opened.engine.writer().is_ok());
}
