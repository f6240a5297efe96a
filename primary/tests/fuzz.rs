//! Slot files of any bytes: each is read, or counts as a slot that has lost its WAL. `towline_base::testing` says how to run it longer
//! and how to repeat a case.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use towline_base::testing::{WatchedAllocator, fuzz};
use towline_base::vfs::CrashVfs;
use towline_base::{Incarnation, Lsn, NodeId, Vfs};
use towline_primary::Slots;

#[global_allocator]
static ALLOCATOR: WatchedAllocator = WatchedAllocator;

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn a_slot_file_of_any_bytes_is_a_slot_or_a_lost_one() {
    let dir = Path::new("/data/slots");
    let owner = NodeId {
        name: "s1".into(),
        incarnation: Incarnation([7; 16]),
    };
    let made = CrashVfs::new();
    let slots = Slots::open(made.shared(), dir).unwrap();
    slots.ensure("s1", &owner, Lsn(0x100_0028)).unwrap();
    let bytes = made.read_file(&dir.join("s1"), 1 << 20).unwrap();
    fuzz("slot file", 100_000, |case| {
        let mut changed = bytes.clone();
        case.mutate(&mut changed);
        if case.one_in(2) && changed.len() >= 4 {
            let end = changed.len() - 4;
            let crc = crc32c::crc32c(&changed[..end]);
            changed[end..].copy_from_slice(&crc.to_le_bytes());
        }
        let vfs = CrashVfs::new();
        vfs.create_dir_all(dir).unwrap();
        let name = *case.pick(&["s1", "s1", "s2"]);
        vfs.write_file_atomically(&dir.join(name), &changed).unwrap();
        let Ok(slots) = Slots::open(vfs.shared(), dir) else {
            return;
        };
        let _ = (slots.oldest_needed(), slots.oldest_saved());
        let _ = slots.invalidate_below(Lsn(case.border()));
        slots.ensure(name, &owner, Lsn(0x200_0000)).unwrap();
        slots.save().unwrap();
        Slots::open(vfs.shared(), dir).unwrap();
    });
}
