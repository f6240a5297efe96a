//! The double's own semantics: what a power cut may and may not take.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::vfs::OsVfs;

fn disk_with(content: &[u8]) -> (CrashVfs, Arc<dyn VfsFile>) {
    let vfs = CrashVfs::new();
    vfs.create_dir_all(Path::new("/d")).unwrap();
    let file = vfs.open(Path::new("/d/f"), OpenMode::CreateNew).unwrap();
    file.write_all_at(content, 0).unwrap();
    file.sync_data().unwrap();
    vfs.sync_dir(Path::new("/d")).unwrap();
    vfs.sync_dir(Path::new("/")).unwrap();
    (vfs, file)
}

fn content(vfs: &CrashVfs) -> Vec<u8> {
    vfs.read_file(Path::new("/d/f"), 1 << 20).unwrap()
}

#[test]
fn synced_bytes_survive_and_unsynced_ones_are_lost_or_kept() {
    let (vfs, file) = disk_with(b"old");
    file.write_all_at(b"new!", 0).unwrap();
    assert_eq!(content(&vfs), b"new!");
    assert_eq!(content(&vfs.after_crash(Unsynced::Lost, 0)), b"old");
    assert_eq!(content(&vfs.after_crash(Unsynced::Kept, 0)), b"new!");
    assert!(file.sync_data().is_err(), "the old disk has no power");
}

#[test]
fn a_file_without_a_synced_directory_is_gone() {
    let vfs = CrashVfs::new();
    let file = vfs.open(Path::new("/f"), OpenMode::Create).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.sync_all().unwrap();
    assert!(
        !vfs.after_crash(Unsynced::Lost, 0)
            .exists(Path::new("/f"))
            .unwrap()
    );
}

#[test]
fn an_unsynced_rename_leaves_either_name_never_both() {
    for seed in 0..32 {
        let (vfs, _file) = disk_with(b"x");
        vfs.rename(Path::new("/d/f"), Path::new("/d/g")).unwrap();
        let after = vfs.after_crash(Unsynced::Reordered, seed);
        assert_eq!(after.read_dir(Path::new("/d")).unwrap().len(), 1);
    }
}

#[test]
fn torn_writes_keep_whole_sectors_in_any_order() {
    let (vfs, file) = disk_with(&[0; 2048]);
    file.write_all_at(&[1; 2048], 0).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let bytes = content(&vfs.after_crash(Unsynced::Torn(512), seed));
        assert!(
            bytes
                .chunks(512)
                .all(|sector| sector.iter().all(|b| *b == sector[0]))
        );
        seen.insert(bytes.chunks(512).map(|sector| sector[0]).collect::<Vec<_>>());
    }
    assert_eq!(seen.len(), 16, "every combination of four sectors");
    let again = |seed| content(&vfs.after_crash(Unsynced::Torn(512), seed));
    assert_eq!(again(7), again(7), "one seed, one disk");
}

#[test]
fn the_power_goes_in_the_middle_of_the_chosen_boundary() {
    let (vfs, file) = disk_with(b"old");
    let now = vfs.boundaries();
    vfs.crash_at(now + 2);
    file.write_all_at(b"one", 0).unwrap();
    assert!(file.sync_data().is_err());
    assert!(vfs.crashed());
    assert!(vfs.open(Path::new("/d/f"), OpenMode::Read).is_err());
    assert_eq!(content(&vfs.after_crash(Unsynced::Lost, 0)), b"old");
    assert_eq!(content(&vfs.after_crash(Unsynced::Kept, 0)), b"one");
}

/// An order for a boundary that was passed while it was given was never carried out.
#[test]
fn the_power_goes_at_the_next_boundary_when_the_chosen_one_is_passed() {
    let (vfs, file) = disk_with(b"old");
    let late = vfs.boundaries();
    vfs.crash_at(late);
    assert!(!vfs.crashed());
    assert!(file.write_all_at(b"new", 0).is_err());
    assert!(vfs.crashed());
}

#[test]
fn a_write_under_way_may_reach_the_disk() {
    let (vfs, file) = disk_with(b"old");
    vfs.crash_at(vfs.boundaries() + 1);
    assert!(file.write_all_at(b"new", 0).is_err());
    assert_eq!(content(&vfs.after_crash(Unsynced::Lost, 0)), b"old");
    assert_eq!(content(&vfs.after_crash(Unsynced::Kept, 0)), b"new");
}

#[test]
fn a_failed_sync_loses_the_writes_although_a_later_sync_succeeds() {
    let (vfs, file) = disk_with(b"old");
    file.write_all_at(b"new", 0).unwrap();
    vfs.fail_nth(Op::Sync, 1, 5, false);
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    file.sync_data().unwrap();
    assert_eq!(content(&vfs), b"new", "the cache still shows them");
    assert_eq!(content(&vfs.after_crash(Unsynced::Kept, 0)), b"old");
}

#[test]
fn write_through_is_durable_and_not_undone_by_an_older_write() {
    let (vfs, file) = disk_with(b"....");
    file.write_all_at(b"abcd", 0).unwrap();
    let through = vfs.open(Path::new("/d/f"), OpenMode::ReadWriteDsync).unwrap();
    through.write_all_at(b"XY", 1).unwrap();
    assert_eq!(content(&vfs.clone().after_crash(Unsynced::Lost, 0)), b".XY.");
    let kept = vfs.after_crash(Unsynced::Kept, 0);
    assert_eq!(content(&kept), b"aXYd");
}

#[test]
fn a_full_disk_refuses_growth_only() {
    let (vfs, file) = disk_with(&[0; 100]);
    vfs.set_capacity(Some(120));
    assert_eq!(vfs.disk_free(Path::new("/")).unwrap(), 20);
    file.write_all_at(&[1; 100], 0).unwrap();
    assert_eq!(
        file.write_all_at(&[1; 21], 100).unwrap_err().raw_os_error(),
        Some(28)
    );
    file.write_all_at(&[1; 20], 100).unwrap();
    vfs.set_capacity(None);
    file.write_all_at(&[1; 200], 0).unwrap();
}

#[test]
fn injected_failures_hit_the_chosen_call() {
    let (vfs, file) = disk_with(b"x");
    vfs.fail_nth(Op::Write, 2, 28, true);
    file.write_all_at(b"a", 0).unwrap();
    assert!(file.write_all_at(b"b", 0).is_err());
    assert!(file.write_all_at(b"c", 0).is_err());
    vfs.clear_failures();
    file.write_all_at(b"d", 0).unwrap();
    assert_eq!(content(&vfs), b"d");
}

#[test]
fn atomic_replacement_leaves_old_or_new_at_every_boundary() {
    for k in 1.. {
        let (vfs, _file) = disk_with(b"old");
        vfs.crash_at(vfs.boundaries() + k);
        let finished = vfs.write_file_atomically(Path::new("/d/f"), b"new").is_ok();
        for (unsynced, seeds) in [
            (Unsynced::Lost, 1),
            (Unsynced::Kept, 1),
            (Unsynced::Torn(512), 16),
        ] {
            for seed in 0..seeds {
                let found = content(&vfs.after_crash(unsynced, seed));
                assert!(
                    found == b"new" || (found == b"old" && !finished),
                    "{k} {unsynced:?}"
                );
            }
        }
        if finished {
            assert!(k > 4, "create, write, sync, rename, sync_dir");
            break;
        }
    }
}

/// The same calls on the double and on real files.
fn exercise(vfs: &dyn Vfs, root: &Path) -> Vec<String> {
    let mut log = Vec::new();
    let kind = |result: io::Result<()>| format!("{:?}", result.map_err(|error| error.kind()));
    let dir = root.join("a/b");
    vfs.create_dir_all(&dir).unwrap();
    vfs.create_dir_all(&dir).unwrap();
    let path = dir.join("f");
    log.push(kind(vfs.open(&path, OpenMode::Read).map(drop)));
    log.push(kind(vfs.open(&path, OpenMode::ReadWrite).map(drop)));
    let file = vfs.open(&path, OpenMode::CreateNew).unwrap();
    log.push(kind(vfs.open(&path, OpenMode::CreateNew).map(drop)));
    let slices: Vec<Vec<u8>> = (0..100u8).map(|i| vec![i; usize::from(i % 7)]).collect();
    let slices: Vec<IoSlice<'_>> = slices.iter().map(|bytes| IoSlice::new(bytes)).collect();
    file.write_vectored_all_at(&slices, 3).unwrap();
    log.push(format!("{}", file.len().unwrap()));
    let mut buffer = [9; 16];
    log.push(format!("{} {buffer:?}", file.read_at(&mut buffer, 0).unwrap()));
    log.push(kind(file.read_exact_at(&mut buffer, 295)));
    file.set_len(5).unwrap();
    file.allocate_zeroed(4, 600_000).unwrap();
    file.advise_written(0, 10).unwrap();
    log.push(format!("{}", file.len().unwrap()));
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    let readonly = vfs.open(&path, OpenMode::Read).unwrap();
    log.push(format!("{}", readonly.write_all_at(b"x", 0).is_err()));
    vfs.rename(&path, &dir.join("g")).unwrap();
    log.push(format!("{}", file.len().unwrap()));
    vfs.open(&path, OpenMode::Create).unwrap();
    vfs.rename(&dir.join("g"), &path).unwrap();
    log.push(format!("{:?}", vfs.read_dir(&dir).unwrap()));
    log.push(format!("{:?}", vfs.metadata(&path).unwrap().len));
    log.push(format!("{:?}", vfs.metadata(&dir).unwrap().is_dir));
    let lock = vfs.lock_file(&dir.join("lock")).unwrap();
    log.push(kind(vfs.lock_file(&dir.join("lock")).map(drop)));
    drop(lock);
    vfs.lock_file(&dir.join("lock")).unwrap();
    vfs.write_file_atomically(&path, b"short").unwrap();
    log.push(format!("{:?}", vfs.read_file(&path, 5)));
    log.push(kind(vfs.read_file(&path, 4).map(drop)));
    vfs.sync_dir(&dir).unwrap();
    log.push(kind(vfs.remove_file(&dir.join("none"))));
    vfs.remove_file(&path).unwrap();
    vfs.remove_dir_all(&root.join("a")).unwrap();
    log.push(format!("{:?}", vfs.exists(&dir).unwrap()));
    assert!(vfs.disk_free(root).unwrap() > 0);
    log
}

#[test]
fn the_double_behaves_as_real_files_do() {
    let root = tempfile::tempdir().unwrap();
    let real = exercise(&OsVfs, root.path());
    let double = CrashVfs::new();
    double.create_dir_all(Path::new("/r")).unwrap();
    assert_eq!(exercise(&double, Path::new("/r")), real);
}

#[test]
fn real_files_are_private() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("x/y");
    OsVfs.create_dir_all(&dir).unwrap();
    OsVfs.open(&dir.join("f"), OpenMode::Create).unwrap();
    assert_eq!(OsVfs.metadata(&dir).unwrap().mode, 0o700);
    assert_eq!(OsVfs.metadata(&dir.join("f")).unwrap().mode, 0o600);
}

#[test]
fn an_observer_sees_each_boundary_as_a_power_cut_there_would_leave_it() {
    let work = |vfs: &CrashVfs| -> io::Result<()> {
        let file = vfs.open(Path::new("/d/f"), OpenMode::ReadWrite)?;
        for round in 0..4u8 {
            file.write_all_at(&[round; 5000], u64::from(round) * 3000)?;
            if round % 2 == 1 {
                file.sync_data()?;
            }
            vfs.rename(Path::new("/d/f"), Path::new("/d/g"))?;
            vfs.sync_dir(Path::new("/d"))?;
            vfs.rename(Path::new("/d/g"), Path::new("/d/f"))?;
        }
        Ok(())
    };
    let state = |vfs: &CrashVfs| {
        let names = vfs.read_dir(Path::new("/d")).unwrap();
        let bytes = |name: &str| vfs.read_file(&Path::new("/d").join(name), 1 << 20).unwrap();
        names
            .iter()
            .map(|entry| (entry.name.clone(), bytes(&entry.name)))
            .collect::<Vec<_>>()
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (vfs, _file) = disk_with(b"old");
    let before = vfs.boundaries();
    let notes = Arc::clone(&seen);
    vfs.observe(move |moment| {
        let disks = moment.disks(&Unsynced::ALL, 9);
        let states: Vec<_> = disks.iter().map(|(fate, disk)| (*fate, state(disk))).collect();
        notes.lock().push((moment.boundary(), states));
    });
    work(&vfs).unwrap();
    vfs.observe_no_more();
    let seen = std::mem::take(&mut *seen.lock());
    assert_eq!(seen.len() as u64, vfs.boundaries() - before);
    for (boundary, states) in seen {
        let (vfs, _file) = disk_with(b"old");
        vfs.crash_at(boundary);
        work(&vfs).unwrap_err();
        let of = |number: u64| {
            let fate = Unsynced::ALL[number as usize];
            (fate, state(&vfs.after_crash(fate, 9 * 31 + number)))
        };
        let mut expected = Vec::new();
        for state in (0..5).map(of) {
            if !states.contains(&state) {
                // Left out because it equals one that was shown.
                let equal = |other: &(Unsynced, _)| other.1 == state.1;
                assert!(expected.iter().any(equal), "{boundary}");
            }
            expected.push(state);
        }
        assert!(states.iter().all(|state| expected.contains(state)), "{boundary}");
        assert!(!states.is_empty());
    }
}

#[test]
fn after_a_kill_everything_is_there_and_a_power_cut_then_takes_what_was_not_synced() {
    let (vfs, file) = disk_with(b"old");
    file.write_all_at(b"new", 0).unwrap();
    let next = vfs.after_kill();
    assert!(file.sync_data().is_err(), "the process has ended");
    assert_eq!(content(&next), b"new");
    assert_eq!(content(&next.look(|moment| moment.after_kill())), b"new");
    assert_eq!(content(&next.after_crash(Unsynced::Lost, 0)), b"old");
}
