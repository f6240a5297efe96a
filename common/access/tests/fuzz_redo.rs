//! Redo of records that are whole but senseless: a log of real work is replayed, with one record after the other changed inside. Redo
//! gives an error or applies what there is; it does not panic, and the page bounds memory. `towline_base::testing` says how to
//! run it longer and how to repeat a case.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, LazyLock};

use support::Work;
use towline_access::Engine;
use towline_base::testing::{Case, WatchedAllocator, fuzz};
use towline_base::vfs::{CrashVfs, Unsynced};
use towline_base::{Lsn, LsnPublisher, LsnWatch};
use towline_wal::format::{DecodedRecord, decode_record};
use towline_wal::records::describe;

#[global_allocator]
static ALLOCATOR: WatchedAllocator = WatchedAllocator;

/// What a primary wrote: its disk as it was before, and every record since.
struct History {
    before: CrashVfs,
    records: Vec<(Lsn, Lsn, Vec<u8>)>,
}

static HISTORY: LazyLock<History> = LazyLock::new(|| {
    let before = support::fresh_disk();
    let work = Work::on(before.after_crash(Unsynced::Kept, 0));
    work.change_much();
    let records = work.records();
    assert!(records.len() > 300, "{}", records.len());
    History { before, records }
});

/// A standby that stands at the beginning of the history.
struct Standby {
    engine: Arc<Engine>,
    _quorum: LsnPublisher,
}

impl Standby {
    fn new() -> Self {
        let disk = HISTORY.before.after_crash(Unsynced::Kept, 0);
        let (quorum, watch) = LsnWatch::new(Lsn(1 << 40));
        let engine = Engine::open_standby(disk.shared(), support::clock(), support::config(), watch).unwrap();
        Standby {
            engine,
            _quorum: quorum,
        }
    }

    fn replay(&self, record: &DecodedRecord<'_>) -> bool {
        self.engine.replay(record).is_ok()
    }
}

/// Whether the disk of the test, which is memory, could hold what the record makes: a block far behind the end of its file means
/// a file of that length.
fn is_small(record: &DecodedRecord<'_>) -> bool {
    record.blocks.iter().all(|block| block.page.block < 2000)
}

fn changed(case: &mut Case, records: &[(Lsn, Lsn, Vec<u8>)], at: usize) -> Vec<u8> {
    let mut bytes = records[at].2.clone();
    let body = bytes.len().min(24);
    match case.below(8) {
        // Another kind of record with the same body.
        0 => bytes[16] = case.next_u64() as u8,
        1 => bytes[17] = *case.pick(&[0, 1, 2, 8, 9, 10, 11, 128, 3]),
        2 => {
            let other = case.pick(records).2.clone();
            case.splice(&mut bytes, &other);
        }
        3 => {
            let mut tail = bytes.split_off(body);
            case.mutate(&mut tail);
            bytes.extend_from_slice(&tail);
        }
        // The payload, which stands at the end.
        4 | 5 => {
            let from = bytes.len() - (bytes.len() - body).min(40);
            case.mutate_in_place(&mut bytes[from..]);
        }
        _ => case.mutate_in_place(&mut bytes[body..]),
    }
    let length = bytes.len() as u32;
    if bytes.len() >= 4 {
        bytes[0..4].copy_from_slice(&length.to_le_bytes());
    }
    bytes
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn redo_of_a_senseless_record_is_an_error_and_no_panic() {
    fuzz("redo", 100_000, |case| {
        let standby = Standby::new();
        // What a refused record leaves stops the storage, so each case begins to change records somewhere else.
        let (from, often) = (case.below(HISTORY.records.len()), 1 + case.below(20));
        for (at, (start, end, bytes)) in HISTORY.records.iter().enumerate() {
            if at >= from && case.one_in(often) {
                let bytes = changed(case, &HISTORY.records, at);
                if let Ok(record) = decode_record(*start, *end, &bytes)
                    && is_small(&record)
                {
                    let mut text = String::new();
                    describe(&record, &mut text);
                    standby.replay(&record);
                }
            }
            // After a refusal the storage has stopped, but whoever goes on meets no panic.
            standby.replay(&decode_record(*start, *end, bytes).unwrap());
        }
    });
}
