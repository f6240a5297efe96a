//! Tests of the slots: their files, who may use them, and what they keep.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;
use towline_base::vfs::{CrashVfs, Unsynced};

use super::*;

const MB: u64 = 1 << 20;
/// How long another thread may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn node(name: &str, incarnation: u8) -> NodeId {
    NodeId {
        name: name.to_owned(),
        incarnation: Incarnation([incarnation; 16]),
    }
}

fn open(vfs: &CrashVfs) -> Arc<Slots> {
    Slots::open(vfs.shared(), Path::new("/slots")).unwrap()
}

/// Where the slot that has least begins, when retention has asked.
fn needed(slots: &Slots) -> Option<Lsn> {
    slots.save().unwrap();
    slots.oldest_saved()
}

fn bounds(insert: u64) -> Bounds {
    Bounds {
        insert: Lsn(insert * MB),
        max_wal: 10 * MB,
        max_keep: Some(40 * MB),
    }
}

#[test]
fn slots_survive_a_restart_with_what_was_saved() {
    let vfs = CrashVfs::new();
    vfs.create_dir_all(Path::new("/slots")).unwrap();
    vfs.sync_dir(Path::new("/")).unwrap();
    let slots = open(&vfs);
    slots.ensure("s1", &node("s1", 1), Lsn(100)).unwrap();
    slots.ensure("s2", &node("s2", 1), Lsn(300)).unwrap();
    let guard = slots.acquire("s1", 7).unwrap();
    guard.confirm(Lsn(200));
    assert_eq!(
        slots.oldest_saved(),
        Some(Lsn(100)),
        "only what is in the file counts"
    );
    slots.save().unwrap();
    guard.confirm(Lsn(250));
    assert_eq!(slots.oldest_saved(), Some(Lsn(200)));
    let again = open(&vfs.after_crash(Unsynced::Lost, 0));
    assert_eq!(needed(&again), Some(Lsn(200)));
    assert_eq!(again.ensure("s1", &node("s1", 1), Lsn(900)).unwrap(), Lsn(200));
    assert_eq!(again.rows(&bounds(1)).len(), 2);
}

/// A standby that is killed in the middle of a record asks for it from its beginning, which may lie in the segment before; that was gone.
#[test]
fn the_record_that_a_standby_may_have_half_of_is_kept_from_its_beginning() {
    let slots = open(&CrashVfs::new());
    assert_eq!(slots.oldest_needed(), None);
    slots.ensure("s1", &node("s1", 1), Lsn(10 * MB)).unwrap();
    let record = towline_base::limits::MAX_OWN_RECORD_BYTES as u64;
    let kept = slots.oldest_needed().unwrap();
    assert!(kept.saturating_add(record) < Lsn(10 * MB), "{kept}");
    // For the slot itself it does not count: one that keeps nothing else is not lost by it.
    assert_eq!(slots.invalidate_below(Lsn(10 * MB)).unwrap(), [""; 0]);
    assert_eq!(slots.invalidate_below(Lsn(10 * MB + 1)).unwrap(), ["s1"]);
}

#[test]
fn a_slot_moves_back_for_a_standby_that_lost_its_tail() {
    let vfs = CrashVfs::new();
    let slots = open(&vfs);
    slots.ensure("s1", &node("s1", 1), Lsn(100)).unwrap();
    slots.acquire("s1", 1).unwrap().confirm(Lsn(500));
    slots.save().unwrap();
    assert_eq!(slots.ensure("s1", &node("s1", 1), Lsn(900)).unwrap(), Lsn(500));
    assert_eq!(slots.ensure("s1", &node("s1", 1), Lsn(300)).unwrap(), Lsn(300));
    assert_eq!(open(&vfs).oldest_saved(), Some(Lsn(300)));
}

#[test]
fn a_slot_has_one_user_at_a_time() {
    let vfs = CrashVfs::new();
    let slots = open(&vfs);
    assert_eq!(
        slots.acquire("s1", 1).unwrap_err(),
        SlotError::NotFound("s1".into())
    );
    slots.ensure("s1", &node("s1", 1), Lsn(100)).unwrap();
    let guard = slots.acquire("s1", 1).unwrap();
    assert_eq!(slots.acquire("s1", 2).unwrap_err(), SlotError::InUse("s1".into()));
    assert_eq!(slots.drop_slot("s1"), Err(SlotError::InUse("s1".into())));
    drop(guard);
    drop(slots.acquire("s1", 2).unwrap());
    slots.drop_slot("s1").unwrap();
    assert_eq!(needed(&slots), None);
    assert!(open(&vfs).rows(&bounds(1)).is_empty());
}

/// A slot that was lost and made anew while its stream was still ending had two users, and the one before confirmed what the standby did
/// not have.
#[test]
fn a_slot_that_is_made_anew_stays_with_its_user_who_alone_confirms() {
    let vfs = CrashVfs::new();
    let (slots, owner) = (open(&vfs), node("s1", 1));
    slots.ensure("s1", &owner, Lsn(100)).unwrap();
    let before = slots.acquire("s1", 1).unwrap();
    slots.invalidate_below(Lsn(200)).unwrap();
    assert_eq!(slots.ensure("s1", &owner, Lsn(300)).unwrap(), Lsn(300));
    assert_eq!(slots.acquire("s1", 2).unwrap_err(), SlotError::InUse("s1".into()));
    before.confirm(Lsn(900));
    drop(before);
    // The next one begins with what it really has.
    let after = slots.acquire("s1", 2).unwrap();
    slots.ensure("s1", &owner, Lsn(350)).unwrap();
    slots.save().unwrap();
    assert_eq!(open(&vfs).oldest_saved(), Some(Lsn(350)));
    after.confirm(Lsn(400));
    slots.save().unwrap();
    assert_eq!(open(&vfs).oldest_saved(), Some(Lsn(400)));
}

#[test]
fn a_lost_slot_is_refused_until_it_is_made_anew() {
    let vfs = CrashVfs::new();
    let slots = open(&vfs);
    slots.ensure("s1", &node("s1", 1), Lsn(100)).unwrap();
    slots.ensure("s2", &node("s2", 1), Lsn(500)).unwrap();
    let guard = slots.acquire("s1", 1).unwrap();
    assert_eq!(slots.invalidate_below(Lsn(300)).unwrap(), ["s1"]);
    assert!(guard.is_lost());
    drop(guard);
    let slots = open(&vfs);
    assert_eq!(needed(&slots), Some(Lsn(500)));
    assert_eq!(slots.acquire("s1", 1).unwrap_err(), SlotError::Lost("s1".into()));
    assert_eq!(slots.rows(&bounds(1))[0].wal_status, "lost");
    assert_eq!(slots.ensure("s1", &node("s1", 2), Lsn(600)).unwrap(), Lsn(600));
    slots.acquire("s1", 1).unwrap();
}

#[test]
fn a_new_incarnation_of_a_node_begins_a_new_slot() {
    let slots = open(&CrashVfs::new());
    slots.ensure("s1", &node("s1", 1), Lsn(100)).unwrap();
    assert_eq!(slots.ensure("s1", &node("s1", 2), Lsn(600)).unwrap(), Lsn(600));
    let _guard = slots.acquire("s1", 1).unwrap();
    assert!(slots.ensure("s1", &node("s1", 3), Lsn(700)).is_err());
    slots.rewind("s1", Lsn(50)).unwrap();
    assert_eq!(needed(&slots), Some(Lsn(50)));
}

#[test]
fn names_and_numbers_of_slots_are_bounded() {
    let slots = open(&CrashVfs::new());
    for name in ["", "S1", "a/b", "..", "a b", &"x".repeat(64)] {
        assert!(
            matches!(
                slots.ensure(name, &node("n", 1), Lsn(1)),
                Err(SlotError::BadName(_))
            ),
            "{name}"
        );
    }
    for index in 0..MAX_SLOTS {
        slots.ensure(&format!("s{index}"), &node("n", 1), Lsn(1)).unwrap();
    }
    assert_eq!(
        slots.ensure("one_more", &node("n", 1), Lsn(1)),
        Err(SlotError::TooMany)
    );
    assert_eq!(slot_name_of("Node-1.example"), "node_1_example");
}

#[test]
fn the_status_follows_the_distance() {
    for (restart, lost, wanted) in [
        (95, false, WalStatus::Reserved),
        (90, false, WalStatus::Reserved),
        (80, false, WalStatus::Extended),
        (60, false, WalStatus::Extended),
        (59, false, WalStatus::Unreserved),
        (95, true, WalStatus::Lost),
    ] {
        assert_eq!(
            wal_status(Lsn(restart * MB), lost, &bounds(100)),
            wanted,
            "{restart}"
        );
    }
    let unbounded = Bounds {
        max_keep: None,
        ..bounds(100)
    };
    assert_eq!(wal_status(Lsn(0), false, &unbounded), WalStatus::Extended);
}

#[test]
fn a_damaged_file_is_a_lost_slot_not_a_failed_start() {
    let vfs = CrashVfs::new();
    open(&vfs).ensure("s1", &node("s1", 1), Lsn(100)).unwrap();
    let path = Path::new("/slots/s1");
    let mut bytes = vfs.read_file(path, 4096).unwrap();
    bytes[20] ^= 1;
    vfs.write_file_atomically(path, &bytes).unwrap();
    let slots = open(&vfs);
    assert_eq!(needed(&slots), None);
    assert_eq!(slots.acquire("s1", 1).unwrap_err(), SlotError::Lost("s1".into()));
}

/// Every ack takes the slots' lock on its way to the commits that wait for it.
#[test]
fn acks_do_not_wait_for_slot_files_to_be_written() {
    let vfs = CrashVfs::new();
    let slots = open(&vfs);
    slots.ensure("s1", &node("s1", 1), Lsn(100)).unwrap();
    let guard = slots.acquire("s1", 7).unwrap();
    guard.confirm(Lsn(200));
    // This disk stands still. A failpoint would hold the tests beside this one too, and take one of their saves for this one's.
    let (begun, at_the_disk) = std::sync::mpsc::channel();
    let (held, go_on) = std::sync::mpsc::channel::<()>();
    vfs.observe(move |_| {
        let _ = begun.send(());
        let _ = go_on.recv();
    });
    let saving = std::thread::spawn({
        let slots = Arc::clone(&slots);
        move || slots.save()
    });
    at_the_disk.recv_timeout(PATIENCE).unwrap();
    let (done, confirmed) = std::sync::mpsc::channel();
    let acking = std::thread::spawn({
        let slots = Arc::clone(&slots);
        move || {
            guard.confirm(Lsn(300));
            let _ = done.send(slots.oldest_saved());
        }
    });
    let saved = confirmed.recv_timeout(PATIENCE);
    drop(held);
    assert_eq!(
        saved,
        Ok(Some(Lsn(100))),
        "at once, and what is not written is not saved"
    );
    acking.join().unwrap();
    saving.join().unwrap().unwrap();
    assert_eq!(slots.oldest_saved(), Some(Lsn(200)));
    slots.save().unwrap();
    assert_eq!(open(&vfs).oldest_saved(), Some(Lsn(300)));
}

/// A change of one slot, whose file the disk was slow to write, held the acks of all.
#[test]
fn acks_do_not_wait_for_changes_of_other_slots() {
    type Change = fn(&Slots);
    let changes: [(&str, Change); 4] = [
        ("ensure", |slots| {
            drop(slots.ensure("s2", &node("s2", 1), Lsn(50)))
        }),
        ("rewind", |slots| slots.rewind("s2", Lsn(50)).unwrap()),
        ("drop", |slots| slots.drop_slot("s2").unwrap()),
        ("invalidate", |slots| {
            drop(slots.invalidate_below(Lsn(90)).unwrap())
        }),
    ];
    for (what, change) in changes {
        let vfs = CrashVfs::new();
        let slots = open(&vfs);
        slots.ensure("s1", &node("s1", 1), Lsn(100)).unwrap();
        slots.ensure("s2", &node("s2", 1), Lsn(80)).unwrap();
        let guard = slots.acquire("s1", 7).unwrap();
        let (begun, at_the_disk) = std::sync::mpsc::channel();
        let (held, go_on) = std::sync::mpsc::channel::<()>();
        vfs.observe(move |_| {
            let _ = begun.send(());
            let _ = go_on.recv();
        });
        let changing = std::thread::spawn({
            let slots = Arc::clone(&slots);
            move || change(&slots)
        });
        at_the_disk.recv_timeout(PATIENCE).unwrap();
        let (done, confirmed) = std::sync::mpsc::channel();
        let acking = std::thread::spawn({
            let slots = Arc::clone(&slots);
            move || {
                guard.confirm(Lsn(300));
                // What is being removed is not taken into use.
                let taken = slots.acquire("s2", 8).map(drop);
                let _ = done.send(taken);
            }
        });
        let taken = confirmed.recv_timeout(PATIENCE);
        drop(held);
        let taken = taken.unwrap_or_else(|_| panic!("{what} holds acks"));
        assert_eq!(taken.is_err(), what == "drop", "{what}");
        acking.join().unwrap();
        changing.join().unwrap();
        slots.save().unwrap();
        let rows = |slots: &Slots| format!("{:?}", slots.rows(&bounds(1)));
        assert_eq!(rows(&slots), rows(&open(&vfs)), "{what}");
        assert_eq!(slots.rows(&bounds(1))[0].restart_lsn, Some(Lsn(300)), "{what}");
    }
}

#[test]
fn slots_that_are_made_used_and_dropped_at_once_stay_as_their_files() {
    let vfs = CrashVfs::new();
    let slots = open(&vfs);
    let names = ["s1", "s2", "s3"];
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let slots = &slots;
            scope.spawn(move || {
                for round in 0..300_u64 {
                    let name = names[((thread + round) % 3) as usize];
                    let lsn = Lsn(100 + round);
                    match (thread * 7 + round) % 5 {
                        0 => drop(slots.ensure(name, &node(name, 1), lsn)),
                        1 => drop(slots.drop_slot(name)),
                        2 => drop(slots.save()),
                        3 => drop(slots.invalidate_below(Lsn(round / 2))),
                        _ => {
                            if let Ok(guard) = slots.acquire(name, thread as i32) {
                                guard.confirm(lsn);
                            }
                        }
                    }
                }
            });
        }
    });
    slots.save().unwrap();
    let rows = |slots: &Slots| format!("{:?}", slots.rows(&bounds(1)));
    assert_eq!(rows(&slots), rows(&open(&vfs)));
    assert!(slots.rows(&bounds(1)).iter().all(|row| !row.active));
    // Each can still be made, used and dropped.
    for name in names {
        let owner = node(name, 2);
        slots.ensure(name, &owner, Lsn(900)).unwrap();
        drop(slots.acquire(name, 1).unwrap());
        slots.drop_slot(name).unwrap();
    }
    assert!(open(&vfs).rows(&bounds(1)).is_empty());
}

/// The log showed the decoder's outcome as the program has it, and neither the file nor what to do.
#[test]
fn a_damaged_slot_file_is_named_with_what_to_do() {
    let told = damaged(
        Path::new("/slots/s1"),
        &decode(b"TWSLOT").unwrap_err().to_string(),
    );
    assert!(told.contains("/slots/s1 is damaged: "), "{told}");
    assert!(told.contains("pg_drop_replication_slot"), "{told}");
    assert!(!told.contains("Err(") && !told.contains('\n'), "{told}");
}

/// It was passed over, and the WAL that its standby needed was not kept.
#[test]
fn a_directory_in_the_place_of_a_slot_is_an_error() {
    let vfs = CrashVfs::new();
    open(&vfs).ensure("s1", &node("s1", 1), Lsn(100)).unwrap();
    vfs.create_dir_all(Path::new("/slots/s2")).unwrap();
    let refused = Slots::open(vfs.shared(), Path::new("/slots")).unwrap_err();
    assert!(
        refused.to_string().contains("/slots/s2 is a directory"),
        "{refused}"
    );
    // What is no slot's name is nobody's.
    vfs.remove_dir_all(Path::new("/slots/s2")).unwrap();
    vfs.create_dir_all(Path::new("/slots/lost+found")).unwrap();
    assert_eq!(needed(&open(&vfs)), Some(Lsn(100)));
}

/// The directory's own name was not synced: after a power failure all slots were gone, and the WAL with them.
#[test]
fn the_first_slot_survives_a_power_failure() {
    let vfs = CrashVfs::new();
    vfs.create_dir_all(Path::new("/data")).unwrap();
    vfs.sync_dir(Path::new("/")).unwrap();
    let slots = Slots::open(vfs.shared(), Path::new("/data/slots")).unwrap();
    slots.ensure("s1", &node("s1", 1), Lsn(100)).unwrap();
    let disk = vfs.after_crash(Unsynced::Lost, 0);
    let again = Slots::open(disk.shared(), Path::new("/data/slots")).unwrap();
    assert_eq!(needed(&again), Some(Lsn(100)));
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), fix in any::<bool>()) {
        let mut bytes = bytes;
        if fix {
            let crc = crc32c::crc32c(&bytes);
            bytes.extend(crc.to_le_bytes());
        }
        let _ = decode(&bytes);
    }
}

/// What a start must find: restart positions by name, with or without the change that was under way.
#[derive(Clone, Default)]
struct Promise {
    sure: std::collections::BTreeMap<String, Lsn>,
    under_way: Option<(String, Option<Lsn>)>,
}

#[test]
fn a_power_cut_at_any_boundary_leaves_each_slot_as_it_was_before_or_after_the_change() {
    use towline_base::testing::points;
    let vfs = CrashVfs::new();
    vfs.create_dir_all(Path::new("/slots")).unwrap();
    vfs.sync_dir(Path::new("/")).unwrap();
    let slots = open(&vfs);
    let promise = Arc::new(Mutex::new(Promise::default()));
    let checked = Arc::new(Mutex::new(0));
    let (seen, count) = (Arc::clone(&promise), Arc::clone(&checked));
    vfs.observe(move |moment| {
        let promise = seen.lock().clone();
        let mut changed = promise.sure.clone();
        match promise.under_way {
            Some((name, Some(restart))) => {
                changed.insert(name, restart);
            }
            Some((name, None)) => {
                changed.remove(&name);
            }
            None => {}
        }
        for (fate, disk) in moment.disks(&Unsynced::ALL, moment.boundary()) {
            let slots = open(&disk);
            let rows = slots.rows(&bounds(1));
            let found: std::collections::BTreeMap<String, Lsn> = rows
                .into_iter()
                .map(|row| (row.name.clone(), row.restart_lsn.unwrap_or_default()))
                .collect();
            let place = format!("boundary {}, {fate:?}", moment.boundary());
            assert!(
                found == promise.sure || found == changed,
                "{place}: {found:?}, not {:?} or {changed:?}",
                promise.sure
            );
            // And it goes on.
            slots.ensure("new", &node("new", 1), Lsn(5)).unwrap();
            assert_eq!(
                open(&disk.after_crash(Unsynced::Lost, 0)).rows(&bounds(1)).len(),
                found.len() + 1
            );
            *count.lock() += 1;
        }
    });
    let change = |name: &str, to: Option<Lsn>, what: &dyn Fn()| {
        promise.lock().under_way = Some((name.to_owned(), to));
        what();
        let mut promise = promise.lock();
        promise.under_way = None;
        match to {
            Some(to) => promise.sure.insert(name.to_owned(), to),
            None => promise.sure.remove(name),
        };
    };
    for round in 1..5u64 {
        for name in ["s1", "s2", "s3"] {
            let at = Lsn(round * 1000);
            change(name, Some(at), &|| {
                if slots.rows(&bounds(1)).iter().any(|row| row.name == name) {
                    slots.acquire(name, 1).unwrap().confirm(at);
                    slots.save().unwrap();
                } else {
                    slots.ensure(name, &node(name, 1), at).unwrap();
                }
            });
        }
        let back = Lsn(round * 1000 - 500);
        change("s2", Some(back), &|| slots.rewind("s2", back).unwrap());
        change("s3", None, &|| slots.drop_slot("s3").unwrap());
    }
    vfs.observe_no_more();
    points::report("slots", *checked.lock());
}
