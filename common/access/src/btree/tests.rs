//! The B-tree against a model, under threads, through redo.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use towline_base::vfs::CrashVfs;
use towline_base::{Lsn, PageId, Tid, Vfs, Xid};
use towline_storage::Page;
use towline_types::{Datum, TypeId};

use super::check::check;
use super::delete::{BulkDelete, BulkStep, bulk_delete};
use super::harness::{Harness, index};
use super::insert::{InsertOutcome, RowProbe, RowState};
use super::scan::{Bound, Direction, IndexScan, ScanBounds};
use crate::catalog::Index;
use crate::error::Result;

fn harness() -> Harness {
    Harness::new(CrashVfs::new().shared(), Path::new("/data"), 512)
}

fn tid(n: u32) -> Tid {
    Tid::new(n / 100, (n % 100 + 1) as u16)
}

fn scan(h: &Harness, index: &Arc<Index>, bounds: &ScanBounds, direction: Direction) -> Vec<Tid> {
    let mut scan = IndexScan::new(Arc::clone(index), bounds, direction).unwrap();
    let mut out = Vec::new();
    while let Some(tid) = scan.next(h.storage.pool()).unwrap() {
        out.push(tid);
    }
    out
}

fn delete(h: &Harness, index: &Index, dead: &BTreeSet<Tid>) -> BulkDelete {
    let mut total = BulkDelete::default();
    let mut block = None;
    loop {
        match bulk_delete(&h.cx(), index, block, &mut |tid| dead.contains(&tid), &mut total).unwrap() {
            BulkStep::Next(next) => block = Some(next),
            BulkStep::Needs(pressure) => h.relieve(pressure),
            BulkStep::Done => return total,
        }
    }
}

/// Letters that do not compress.
fn noise(length: usize) -> String {
    let mut state = 7u64;
    (0..length)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            char::from(b'0' + ((state >> 33) % 75) as u8)
        })
        .collect()
}

/// A deterministic shuffle.
fn shuffled(count: u32, seed: u64) -> Vec<u32> {
    let mut out: Vec<u32> = (0..count).collect();
    let mut state = seed | 1;
    for at in (1..out.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        out.swap(at, (state >> 33) as usize % (at + 1));
    }
    out
}

#[test]
fn ascending_descending_and_random_inserts_give_the_same_order() {
    for order in 0..3 {
        let h = harness();
        let idx = Arc::new(index(16400, &[(TypeId::Int4, false)], false));
        h.create(&idx, &[]);
        let keys: Vec<u32> = match order {
            0 => (0..5000).collect(),
            1 => (0..5000).rev().collect(),
            _ => shuffled(5000, 7),
        };
        for key in keys {
            h.insert(&idx, &[Datum::Int4(key as i32)], tid(key));
        }
        let checked = check(h.storage.pool(), &idx).unwrap();
        assert!(checked.levels >= 2);
        assert_eq!(checked.unfinished_splits, 0);
        let all: Vec<Tid> = (0..5000).map(tid).collect();
        assert_eq!(checked.places, all);
        assert_eq!(scan(&h, &idx, &ScanBounds::default(), Direction::Forward), all);
        let mut reversed = all.clone();
        reversed.reverse();
        assert_eq!(
            scan(&h, &idx, &ScanBounds::default(), Direction::Backward),
            reversed
        );
    }
}

#[test]
fn ascending_loads_leave_leaves_nine_tenths_full() {
    let h = harness();
    let idx = Arc::new(index(16400, &[(TypeId::Int8, false)], false));
    h.create(&idx, &[]);
    for key in 0..20_000 {
        h.insert(&idx, &[Datum::Int8(key)], tid(key as u32));
    }
    let pages = check(h.storage.pool(), &idx).unwrap().pages;
    // 366 items of 16 + 4 bytes fill nine tenths of a leaf.
    assert!((54..=60).contains(&pages), "{pages} pages");
}

#[test]
fn long_keys_make_a_deep_tree() {
    let h = harness();
    let idx = Arc::new(index(16400, &[(TypeId::Text, false)], false));
    h.create(&idx, &[]);
    let prefix = noise(700);
    let key = |n: u32| Datum::text(&format!("{prefix}{n:06}"));
    for n in shuffled(1500, 3) {
        h.insert(&idx, &[key(n)], tid(n));
    }
    let checked = check(h.storage.pool(), &idx).unwrap();
    assert!(checked.levels >= 4, "{} levels", checked.levels);
    assert_eq!(checked.places, (0..1500).map(tid).collect::<Vec<_>>());
    for n in [0, 1, 777, 1499] {
        assert_eq!(
            scan(&h, &idx, &ScanBounds::equal(vec![key(n)]), Direction::Forward),
            vec![tid(n)]
        );
        assert_eq!(
            scan(&h, &idx, &ScanBounds::equal(vec![key(n)]), Direction::Backward),
            vec![tid(n)]
        );
    }
}

/// The right half of an unfinished split filled up and was split itself: its own downlink was not there yet.
#[test]
fn a_page_whose_own_downlink_is_missing_can_be_split() {
    for seed in 0..20 {
        let h = harness();
        let idx = Arc::new(index(16400, &[(TypeId::Text, false)], false));
        h.create(&idx, &[]);
        let padding = noise(900);
        let key = |n: u32| Datum::text(&format!("{n:06}{padding}"));
        super::harness::abandon_splits(Some(seed));
        for n in shuffled(600, seed + 5) {
            h.insert(&idx, &[key(n)], tid(n));
        }
        assert!(check(h.storage.pool(), &idx).unwrap().places == (0..600).map(tid).collect::<Vec<_>>());
        super::harness::abandon_splits(None);
        for n in 600..1200 {
            h.insert(&idx, &[key(n)], tid(n));
        }
        let checked = check(h.storage.pool(), &idx).unwrap();
        assert_eq!(checked.places, (0..1200).map(tid).collect::<Vec<_>>());
        for n in [0, 300, 599, 1100] {
            assert_eq!(
                scan(&h, &idx, &ScanBounds::equal(vec![key(n)]), Direction::Forward),
                vec![tid(n)]
            );
        }
    }
}

#[test]
fn one_value_a_thousand_times_is_ordered_by_place() {
    let h = harness();
    let idx = Arc::new(index(16400, &[(TypeId::Int4, false)], false));
    h.create(&idx, &[]);
    for n in shuffled(3000, 11) {
        h.insert(&idx, &[Datum::Int4(5)], tid(n));
    }
    h.insert(&idx, &[Datum::Int4(4)], tid(9000));
    h.insert(&idx, &[Datum::Int4(6)], tid(9001));
    check(h.storage.pool(), &idx).unwrap();
    let five = ScanBounds::equal(vec![Datum::Int4(5)]);
    assert_eq!(
        scan(&h, &idx, &five, Direction::Forward),
        (0..3000).map(tid).collect::<Vec<_>>()
    );
    assert_eq!(
        scan(&h, &idx, &five, Direction::Backward),
        (0..3000).rev().map(tid).collect::<Vec<_>>()
    );
}

#[test]
fn long_keys_that_compress_are_found_in_order() {
    let h = harness();
    let idx = Arc::new(index(
        16400,
        &[(TypeId::Text, false), (TypeId::Int4, true)],
        false,
    ));
    h.create(&idx, &[]);
    let prefix = "a key of many words ".repeat(300);
    let key = |n: u32| vec![Datum::text(&format!("{prefix}{n:06}")), Datum::Int4(n as i32)];
    for n in shuffled(900, 3) {
        h.insert(&idx, &key(n), tid(n));
    }
    let checked = check(h.storage.pool(), &idx).unwrap();
    assert_eq!(checked.places, (0..900).map(tid).collect::<Vec<_>>());
    assert!((10..60).contains(&checked.pages), "{} pages", checked.pages);
    for n in [0, 450, 899] {
        assert_eq!(
            scan(&h, &idx, &ScanBounds::equal(key(n)), Direction::Forward),
            vec![tid(n)]
        );
    }
    // One built at once is the same.
    let built = Arc::new(index(
        16401,
        &[(TypeId::Text, false), (TypeId::Int4, true)],
        false,
    ));
    let rows: Vec<_> = (0..900).map(|n| (key(n), tid(n))).collect();
    h.create(&built, &rows);
    assert_eq!(check(h.storage.pool(), &built).unwrap().places, checked.places);
}

#[test]
fn a_tuple_beyond_a_third_of_a_page_is_refused() {
    let h = harness();
    let idx = index(16400, &[(TypeId::Text, false)], false);
    h.create(&idx, &[]);
    let key = idx.key.encode(&[Datum::text(&noise(2800))]).unwrap();
    let error = super::insert::insert(&h.cx(), &idx, &key.values(), tid(1), None).unwrap_err();
    assert_eq!(error.sqlstate().code(), "54000");
    assert_eq!(
        error.message(),
        "index row size 2816 exceeds btree version 4 maximum 2704 for index \"t_idx\""
    );
    let key = idx.key.encode(&[Datum::text(&noise(8180))]).unwrap();
    let error = super::insert::insert(&h.cx(), &idx, &key.values(), tid(1), None).unwrap_err();
    assert_eq!(error.sqlstate().code(), "54000");
    assert_eq!(
        error.message(),
        "index row requires 8192 bytes, maximum size is 8191"
    );
}

/// Says what it was told of each place.
struct Fixed(Vec<(Tid, RowState)>);

impl RowProbe for Fixed {
    fn probe(&self, tid: Tid) -> Result<RowState> {
        Ok(self.0.iter().find(|(known, _)| *known == tid).unwrap().1)
    }
}

#[test]
fn a_unique_index_blocks_conflicts_or_takes_the_key() {
    let h = harness();
    let idx = index(16400, &[(TypeId::Int4, false)], true);
    h.create(&idx, &[]);
    let one = [Datum::Int4(1)];
    let none = Fixed(vec![]);
    assert!(matches!(
        h.try_insert(&idx, &one, tid(1), Some(&none)),
        InsertOutcome::Inserted { .. }
    ));
    let running = Fixed(vec![(
        tid(1),
        RowState::InProgress {
            xid: Xid(9),
            tid: tid(1),
        },
    )]);
    match h.try_insert(&idx, &one, tid(2), Some(&running)) {
        InsertOutcome::Blocked { xid, tid: place } => assert_eq!((xid, place), (Xid(9), tid(1))),
        other => panic!("{other:?}"),
    }
    let live = Fixed(vec![(tid(1), RowState::Live { depends_on: Lsn(77) })]);
    match h.try_insert(&idx, &one, tid(2), Some(&live)) {
        InsertOutcome::Duplicate {
            tid: place,
            depends_on,
        } => assert_eq!((place, depends_on), (tid(1), Lsn(77))),
        other => panic!("{other:?}"),
    }
    let deleted = Fixed(vec![(
        tid(1),
        RowState::Gone {
            for_everybody: false,
            depends_on: Lsn(88),
        },
    )]);
    match h.try_insert(&idx, &one, tid(2), Some(&deleted)) {
        InsertOutcome::Inserted { depends_on } => assert_eq!(depends_on, Lsn(88)),
        other => panic!("{other:?}"),
    }
    // NULLs never conflict.
    for n in 10..13 {
        assert!(matches!(
            h.try_insert(&idx, &[Datum::Null], tid(n), Some(&none)),
            InsertOutcome::Inserted { .. }
        ));
    }
    assert_eq!(check(h.storage.pool(), &idx).unwrap().places.len(), 5);
}

#[test]
fn dead_equal_keys_are_removed_before_a_page_is_split() {
    struct AllDead;
    impl RowProbe for AllDead {
        fn probe(&self, _: Tid) -> Result<RowState> {
            Ok(RowState::Gone {
                for_everybody: true,
                depends_on: Lsn::INVALID,
            })
        }
    }
    let h = harness();
    let idx = index(16400, &[(TypeId::Int4, false)], true);
    h.create(&idx, &[]);
    for n in 0..3000 {
        h.insert_with(&idx, &[Datum::Int4(1)], tid(n), &AllDead);
    }
    let checked = check(h.storage.pool(), &idx).unwrap();
    assert_eq!(checked.pages, 1);
}

#[test]
fn unique_check_follows_equal_keys_over_several_pages() {
    struct LastIs(Tid);
    impl RowProbe for LastIs {
        fn probe(&self, tid: Tid) -> Result<RowState> {
            Ok(if tid == self.0 {
                RowState::Live {
                    depends_on: Lsn::INVALID,
                }
            } else {
                RowState::Gone {
                    for_everybody: false,
                    depends_on: Lsn::INVALID,
                }
            })
        }
    }
    let h = harness();
    let idx = index(16400, &[(TypeId::Int4, false)], true);
    h.create(&idx, &[]);
    for n in 0..1500 {
        h.insert(&idx, &[Datum::Int4(1)], tid(n));
    }
    h.insert(&idx, &[Datum::Int4(0)], tid(5000));
    h.insert(&idx, &[Datum::Int4(2)], tid(5001));
    assert!(check(h.storage.pool(), &idx).unwrap().pages > 3);
    let outcome = h.try_insert(&idx, &[Datum::Int4(1)], tid(6000), Some(&LastIs(tid(1499))));
    assert!(
        matches!(outcome, InsertOutcome::Duplicate { tid: place, .. } if place == tid(1499)),
        "{outcome:?}"
    );
}

#[test]
fn a_bulk_build_equals_single_inserts() {
    let h = harness();
    for (file, count) in [(16400, 0u32), (16401, 1), (16402, 300), (16403, 30_000)] {
        let idx = Arc::new(index(file, &[(TypeId::Int4, false), (TypeId::Text, true)], false));
        let rows: Vec<_> = shuffled(count, 5)
            .into_iter()
            .map(|n| {
                (
                    vec![
                        Datum::Int4((n / 10) as i32),
                        Datum::text(&format!("{:03}", n % 10)),
                    ],
                    tid(n),
                )
            })
            .collect();
        h.create(&idx, &rows);
        let checked = check(h.storage.pool(), &idx).unwrap();
        let mut expected: Vec<u32> = (0..count).collect();
        expected.sort_by_key(|n| (n / 10, std::cmp::Reverse(n % 10)));
        assert_eq!(checked.places, expected.into_iter().map(tid).collect::<Vec<_>>());
        h.insert(&idx, &[Datum::Int4(-1), Datum::Null], tid(999_999));
        h.insert(&idx, &[Datum::Int4(i32::MAX), Datum::Null], tid(999_998));
        check(h.storage.pool(), &idx).unwrap();
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(i32, Option<String>, u32),
    Delete(Vec<u32>),
    Scan {
        equal: Option<i32>,
        lower: Option<(i32, bool)>,
        upper: Option<(i32, bool)>,
        backward: bool,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let bound = || proptest::option::of((-8i32..8, any::<bool>()));
    let op = prop_oneof![
        12 => (-8i32..8, proptest::option::of("[a-c]{0,300}"), 0u32..5000).prop_map(|(a, b, t)| Op::Insert(a, b, t)),
        1 => proptest::collection::vec(0u32..5000, 1..1500).prop_map(Op::Delete),
        2 => (proptest::option::of(-8i32..8), bound(), bound(), any::<bool>())
            .prop_map(|(equal, lower, upper, backward)| Op::Scan { equal, lower, upper, backward }),
    ];
    proptest::collection::vec(op, 1..400)
}

/// A model key in index order: the first column's order may be reversed; NULL text is last, or first under DESC.
type ModelKey = (i64, i32, Option<Vec<u8>>);

fn model_key(a: i32, b: &Option<String>, descending: bool) -> ModelKey {
    let sign = if descending { -1 } else { 1 };
    (
        i64::from(a) * sign,
        i32::from(b.is_none()),
        b.as_ref().map(|b| b.as_bytes().to_vec()),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_history_agrees_with_an_ordered_set(ops in ops(), descending in any::<bool>()) {
        let h = harness();
        let mut idx = index(16400, &[(TypeId::Int4, descending), (TypeId::Text, false)], false);
        idx.keys[0].nulls_first = descending;
        let idx = Arc::new(idx);
        h.create(&idx, &[]);
        let mut model: BTreeSet<(ModelKey, Tid, i32)> = BTreeSet::new();
        let mut used = BTreeSet::new();
        for op in ops {
            match op {
                Op::Insert(a, b, t) => {
                    if !used.insert(t) {
                        continue;
                    }
                    let text = b.as_ref().map_or(Datum::Null, |b| Datum::text(b));
                    h.insert(&idx, &[Datum::Int4(a), text], tid(t));
                    model.insert((model_key(a, &b, descending), tid(t), a));
                }
                Op::Delete(which) => {
                    let dead: BTreeSet<Tid> = which.iter().copied().map(tid).collect();
                    delete(&h, &idx, &dead);
                    model.retain(|(_, place, _)| !dead.contains(place));
                    used.retain(|t| !dead.contains(&tid(*t)));
                }
                Op::Scan { equal, lower, upper, backward } => {
                    let bound = |b: Option<(i32, bool)>| {
                        b.map(|(value, inclusive)| Bound { value: Datum::Int4(value), inclusive })
                    };
                    let bounds = match equal {
                        Some(value) => ScanBounds::equal(vec![Datum::Int4(value)]),
                        None => ScanBounds { lower: bound(lower), upper: bound(upper), ..ScanBounds::default() },
                    };
                    let direction = if backward { Direction::Backward } else { Direction::Forward };
                    let matches = |a: i32| match equal {
                        Some(value) => a == value,
                        None => lower.is_none_or(|(b, inclusive)| a > b || (inclusive && a == b))
                            && upper.is_none_or(|(b, inclusive)| a < b || (inclusive && a == b)),
                    };
                    let mut expected: Vec<Tid> =
                        model.iter().filter(|(_, _, a)| matches(*a)).map(|(_, place, _)| *place).collect();
                    if backward {
                        expected.reverse();
                    }
                    prop_assert_eq!(scan(&h, &idx, &bounds, direction), expected);
                }
            }
        }
        let checked = check(h.storage.pool(), &idx).unwrap();
        let expected: Vec<Tid> = model.iter().map(|(_, place, _)| *place).collect();
        prop_assert_eq!(checked.places, expected);
    }
}

#[test]
fn concurrent_inserts_and_scans_keep_the_tree_whole() {
    const THREADS: u32 = 4;
    const EACH: u32 = 4000;
    let h = Harness::new(CrashVfs::new().shared(), Path::new("/data"), 2048);
    let idx = Arc::new(index(16400, &[(TypeId::Int4, false)], false));
    h.create(&idx, &[]);
    let done = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (h, idx, done) = (&h, &idx, &done);
            scope.spawn(move || {
                for n in shuffled(EACH, u64::from(thread) + 1) {
                    // Two threads share their ranges, two insert at the end.
                    let key = if thread < 2 { n } else { EACH + n / 50 };
                    h.insert(idx, &[Datum::Int4(key as i32)], tid(thread * EACH + n));
                }
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        for direction in [Direction::Forward, Direction::Backward] {
            let (h, idx, done) = (&h, &idx, &done);
            scope.spawn(move || {
                while done.load(Ordering::SeqCst) < THREADS {
                    let all = scan(h, idx, &ScanBounds::default(), direction);
                    let distinct: BTreeSet<Tid> = all.iter().copied().collect();
                    assert_eq!(distinct.len(), all.len(), "{direction:?}: an item was seen twice");
                }
            });
        }
    });
    let places = check(h.storage.pool(), &idx).unwrap().places;
    assert_eq!(places.len(), (THREADS * EACH) as usize);
    // Who found no room in the log's buffers has left the second step of a split to the next one who comes by.
    let blocks = h.storage.nblocks(idx.node, towline_base::ForkKind::Main).unwrap();
    for block in 1..blocks {
        h.relieve(super::context::Pressure::Flush(Lsn::INVALID));
        assert!(super::split::finish(&h.cx(), &idx, block, &[]).unwrap().is_none());
    }
    let checked = check(h.storage.pool(), &idx).unwrap();
    assert_eq!((checked.unfinished_splits, checked.places), (0, places));
}

/// A page without what redo need not restore: LSN, checksum, hints.
fn masked(page: &Page) -> Vec<u8> {
    let mut bytes = page.as_bytes().to_vec();
    bytes[0..10].fill(0);
    bytes
}

#[test]
fn redo_from_the_first_record_gives_the_same_pages_and_may_be_repeated() {
    let vfs: Arc<dyn Vfs> = CrashVfs::new().shared();
    let h = Harness::new(Arc::clone(&vfs), Path::new("/data"), 2048);
    let idx = Arc::new(index(
        16400,
        &[(TypeId::Int4, false), (TypeId::Text, false)],
        false,
    ));
    h.create(&idx, &[]);
    for n in shuffled(4000, 2) {
        h.insert(
            &idx,
            &[
                Datum::Int4((n % 700) as i32),
                Datum::text(&"z".repeat((n % 90) as usize)),
            ],
            tid(n),
        );
    }
    let dead: BTreeSet<Tid> = (0..4000).step_by(3).map(tid).collect();
    delete(&h, &idx, &dead);
    let built = index(16401, &[(TypeId::Int8, false)], false);
    let rows: Vec<_> = (0..3000).map(|n| (vec![Datum::Int8(n)], tid(n as u32))).collect();
    h.create(&built, &rows);
    h.relieve(super::context::Pressure::Flush(Lsn::INVALID));

    let replica = h.replica(&vfs, Path::new("/replica"));
    for round in 0..2 {
        h.replay(&vfs, Path::new("/data"), &replica);
        for index in [&*idx, &built] {
            let blocks = h
                .storage
                .nblocks(index.node, towline_base::ForkKind::Main)
                .unwrap();
            assert!(blocks > 5);
            for block in 0..blocks {
                let id = PageId::main(index.node, block);
                let ours = masked(&h.storage.pin(id).unwrap().read());
                let theirs = masked(&replica.pin(id).unwrap().read());
                assert!(
                    ours == theirs,
                    "round {round}: block {block} of {} differs",
                    index.node
                );
            }
        }
    }
    assert_eq!(
        check(replica.pool(), &idx).unwrap(),
        check(h.storage.pool(), &idx).unwrap()
    );
}

/// Whoever finished the split of a page that it remembered as the root came by that page on the way to its parent, and waited for its own
/// latch for ever.
#[test]
fn a_split_is_finished_by_one_who_remembers_the_page_as_the_root() {
    let h = harness();
    let old = index(16400, &[(TypeId::Int4, false)], false);
    h.create(&old, &[]);
    for n in 0..100 {
        h.insert(&old, &[Datum::Int4(n)], tid(n as u32));
    }
    // Another session's view of the index: its memory is its own.
    let new = index(16400, &[(TypeId::Int4, false)], false);
    for n in 100..2000 {
        h.insert(&new, &[Datum::Int4(n)], tid(n as u32));
    }
    let root = 1;
    let unfinished = || {
        let (_, opaque) = super::search::read(h.storage.pool(), &new, root).unwrap();
        opaque.is_leaf() && opaque.is_incomplete_split()
    };
    super::harness::abandon_splits(Some(1));
    let mut places = 2000;
    while !unfinished() {
        h.insert(&new, &[Datum::Int4(0)], tid(places));
        places += 1;
        assert!(places < 20_000, "the first leaf is never left unfinished");
    }
    super::harness::abandon_splits(None);
    assert!(super::split::finish(&h.cx(), &old, root, &[]).unwrap().is_none());
    assert!(!unfinished());
    assert_eq!(
        check(h.storage.pool(), &new).unwrap().places.len(),
        places as usize
    );
}
