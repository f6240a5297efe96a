//! A table whose heap or index pages were damaged on disk, with and without a right checksum: reading, writing and vacuum give errors
//! (XX001, XX002) or answers, end, and do not panic. `towline_base::testing` says how to run it longer and how to repeat a case.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use support::Work;
use towline_access::Result;
use towline_access::btree::{self, Bound, Direction, IndexScan, ScanBounds};
use towline_access::catalog::Table;
use towline_access::heap::{HeapScan, fetch};
use towline_base::testing::{Case, WatchedAllocator, fuzz};
use towline_base::vfs::{CrashVfs, Unsynced};
use towline_base::{OpenMode, PAGE_SIZE, SqlState, Tid, Vfs};
use towline_storage::Page;
use towline_types::Datum;

#[global_allocator]
static ALLOCATOR: WatchedAllocator = WatchedAllocator;

/// A cluster that was shut down, and the files of its table and index.
struct Made {
    disk: CrashVfs,
    heap: PathBuf,
    index: PathBuf,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let work = Work::on(support::fresh_disk());
    work.change_much();
    let table = work.table().unwrap();
    let file = |number: u32| PathBuf::from(format!("/data/base/5/{number}"));
    let (heap, index) = (file(table.node.rel), file(table.indexes[0].node.rel));
    work.engine.shutdown().unwrap();
    Made {
        disk: work.vfs.after_crash(Unsynced::Kept, 0),
        heap,
        index,
    }
});

fn damage(case: &mut Case, vfs: &CrashVfs, path: &Path, with_checksum: bool) {
    let file = vfs.open(path, OpenMode::ReadWrite).unwrap();
    let blocks = file.len().unwrap() / PAGE_SIZE as u64;
    for _ in 0..1 + case.below(3) {
        let block = case.below(blocks as usize) as u64;
        let mut page = Page::boxed_zeroed();
        file.read_exact_at(page.as_bytes_mut(), block * PAGE_SIZE as u64)
            .unwrap();
        let bytes = page.as_bytes_mut();
        match case.below(6) {
            0 => case.mutate_in_place(&mut bytes[10..24]),
            1 => case.mutate_in_place(&mut bytes[24..200]),
            2 => case.mutate_in_place(&mut bytes[PAGE_SIZE - 16..]),
            3 => {
                // Links between pages: a cycle, the parent, the metapage, itself.
                let at = *case.pick(&[PAGE_SIZE - 16, PAGE_SIZE - 12, PAGE_SIZE - 8, 24 + 8, 24 + 16]);
                let target = case.below(blocks as usize) as u32;
                bytes[at..at + 4].copy_from_slice(&target.to_le_bytes());
            }
            4 => {
                let upper = usize::from(u16::from_le_bytes([bytes[14], bytes[15]])).clamp(24, PAGE_SIZE - 64);
                case.mutate_in_place(&mut bytes[upper..]);
            }
            _ => case.mutate_in_place(bytes),
        }
        if with_checksum {
            page.set_stored_checksum(page.checksum(block as u32));
        }
        file.write_all_at(page.as_bytes(), block * PAGE_SIZE as u64)
            .unwrap();
    }
    if case.one_in(12) {
        file.set_len(case.below(blocks as usize * PAGE_SIZE) as u64)
            .unwrap();
    }
}

/// More rows than the table ever had: a scan that gives more goes in circles.
const MANY: usize = 1_000_000;

fn scan_heap(work: &Work, table: &Arc<Table>) -> Result<()> {
    let mut txn = work.begin()?;
    let snapshot = txn.begin_statement();
    let mut scan = HeapScan::new(&txn, table.node)?;
    let mut values = Vec::new();
    while scan.next_page(&txn, &snapshot)? {
        for (_, tuple) in scan.rows() {
            values.clear();
            let _ = table
                .layout
                .deform(tuple.data(), tuple.bitmap(), tuple.natts(), &mut values);
        }
    }
    Ok(())
}

fn scan_index(work: &Work, table: &Arc<Table>, bounds: &ScanBounds, direction: Direction) -> Result<()> {
    let mut txn = work.begin()?;
    let snapshot = txn.begin_statement();
    let mut scan = IndexScan::new(table.indexes[0].clone(), bounds, direction)?;
    let mut found = 0;
    while let Some(tid) = scan.next(work.engine.storage().pool())? {
        found += 1;
        if found < 100 {
            let _ = fetch::fetch(&txn, &snapshot, table.node, tid);
        }
        assert!(found < MANY, "the index scan goes in circles");
    }
    Ok(())
}

fn use_table(case: &mut Case, work: &Work) -> Result<()> {
    let table = work.table()?;
    let mut results = Vec::new();
    for _ in 0..3 {
        results.push(match case.below(8) {
            0 => scan_heap(work, &table),
            1 => {
                let key = case.below(1500) as i32;
                scan_index(
                    work,
                    &table,
                    &ScanBounds::equal(vec![Datum::Int4(key)]),
                    Direction::Forward,
                )
            }
            2 | 3 => {
                let mut bounds = ScanBounds::equal(vec![]);
                let inclusive = case.one_in(2);
                let bound = |case: &mut Case| Bound {
                    value: Datum::Int4(case.below(1500) as i32),
                    inclusive,
                };
                bounds.lower = case.one_in(2).then(|| bound(case));
                bounds.upper = case.one_in(2).then(|| bound(case));
                let direction = if case.one_in(2) {
                    Direction::Forward
                } else {
                    Direction::Backward
                };
                scan_index(work, &table, &bounds, direction)
            }
            4 => btree::check(work.engine.storage().pool(), &table.indexes[0]).map(drop),
            5 => (0..20).try_for_each(|_| {
                let mut txn = work.begin()?;
                let id = case.below(3000) as i32;
                work.insert(&mut txn, &table, id)?;
                work.commit(txn)
            }),
            6 => {
                let mut txn = work.begin()?;
                let tid = Tid::new(case.below(10) as u32, case.border() as u16 % 100);
                let id = case.below(3000) as i32;
                let result = if case.one_in(2) {
                    work.delete(&mut txn, &table, tid).map(drop)
                } else {
                    work.update(&mut txn, &table, tid, id).map(drop)
                };
                result.and_then(|()| work.commit(txn))
            }
            _ => work.vacuum(&table, case.one_in(2)),
        });
    }
    results.into_iter().collect()
}

fn run(case: &mut Case, path: &Path) {
    let vfs = MADE.disk.after_crash(Unsynced::Kept, 0);
    let with_checksum = case.one_in(2);
    damage(case, &vfs, path, with_checksum);
    let result = Work::try_on(vfs).and_then(|work| use_table(case, &work));
    if let Err(error) = result {
        // The statement fails and the node goes on: a change looks for damage before it begins.
        let allowed = [
            SqlState::DATA_CORRUPTED,
            SqlState::INDEX_CORRUPTED,
            SqlState::UNIQUE_VIOLATION,
        ];
        assert!(
            allowed.contains(&error.sqlstate()),
            "{}: {error}",
            error.sqlstate().code()
        );
    }
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn a_damaged_heap_gives_errors_or_answers() {
    fuzz("heap pages", 100_000, |case| run(case, &MADE.heap));
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn a_damaged_index_gives_errors_or_answers() {
    fuzz("index pages", 100_000, |case| run(case, &MADE.index));
}
