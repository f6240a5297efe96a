//! Power cuts while large values are written, carried, replaced, deleted, vacuumed and truncated: rows and chunks agree afterwards.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use towline_base::Tid;
use towline_base::vfs::Unsynced;
use towline_types::Datum;

use super::fetch_all;
use super::tests::noise;
use crate::Result;
use crate::catalog::Table;
use crate::ddl::crash_tests::{commit, cut_after, ddl, drive, table};
use crate::ddl::{QualifiedName, Statement, Truncate, verify_table};
use crate::heap::HeapScan;
use crate::ops::{DeleteOp, InsertOp, UpdateOp};
use crate::testing::{Rig, large_table};
use crate::vacuum::{VacuumOp, VacuumOptions, VacuumStep};

/// Generation of the large value and the number beside it, by id.
type Model = BTreeMap<i32, (i32, i32)>;

/// Short, compressed in the row, compressed out of line, and plain out of line.
fn large(id: i32, generation: i32) -> String {
    let seed = id * 1000 + generation;
    match seed % 5 {
        0 => noise(seed, 30),
        1 => noise(seed, 40).repeat(100),
        2 => "ab".repeat(2000) + &noise(seed, 3000),
        _ => noise(seed, 2000 + (seed as usize * 37) % 9000),
    }
}

fn values(id: i32, (generation, number): (i32, i32)) -> [Datum; 3] {
    let text = format!("{generation}:{}", large(id, generation));
    [Datum::Int4(id), Datum::Int4(number), Datum::text(&text)]
}

/// All rows with their places, as they stand, with pointers. An error is one of the power cut, which may come from any thread's work.
fn raw(rig: &Rig, t: &Table) -> Result<Vec<(Tid, Vec<Datum>)>> {
    let mut txn = rig.engine.begin(crate::TxnOptions::default())?;
    let snapshot = txn.begin_statement();
    let mut scan = HeapScan::new(&txn, t.node)?;
    let mut found = Vec::new();
    while scan.next_page(&txn, &snapshot)? {
        found.extend(scan.rows().map(|(tid, tuple)| {
            let mut values = Vec::new();
            let (data, bitmap, natts) = (tuple.data(), tuple.bitmap(), tuple.natts());
            t.layout.deform(data, bitmap, natts, &mut values).unwrap();
            (tid, values)
        }));
    }
    Ok(found)
}

fn contents(rig: &Rig, t: &Table) -> Model {
    let txn = rig.begin();
    let mut model = Model::new();
    for (_, mut values) in raw(rig, t).unwrap() {
        fetch_all(&txn, t, &mut values).unwrap();
        let [Datum::Int4(id), Datum::Int4(number), Datum::Text(text)] = values.as_slice() else {
            panic!("{values:?}")
        };
        let (generation, rest) = text.split_once(':').unwrap();
        let generation: i32 = generation.parse().unwrap();
        assert_eq!(rest, large(*id, generation), "row {id}");
        assert_eq!(model.insert(*id, (generation, *number)), None);
    }
    model
}

/// One transaction; `None` when the power went.
fn change(rig: &Rig, t: &Arc<Table>, kind: u64, at: usize, model: &mut Model) -> Option<()> {
    let mut txn = rig.engine.begin(crate::TxnOptions::default()).ok()?;
    txn.begin_statement();
    let rows = raw(rig, t)
        .inspect_err(|error| assert!(rig.vfs.crashed(), "without a power cut: {error}"))
        .ok()?;
    let next = model.last_key_value().map_or(0, |(id, _)| id + 1);
    let victim = rows.get(at % rows.len().max(1));
    match (kind, victim) {
        (0 | 1, _) | (_, None) => {
            for id in next..next + 2 {
                model.insert(id, (0, 0));
                let mut op = InsertOp::new(Arc::clone(t), &values(id, (0, 0))).unwrap();
                drive(rig, &mut txn, |txn| op.step(txn))?;
            }
        }
        (2, Some((tid, row))) => {
            model.remove(&(row[0].as_i64().unwrap() as i32));
            let mut op = DeleteOp::new(Arc::clone(t), *tid);
            drive(rig, &mut txn, |txn| op.step(txn))?;
        }
        (kind, Some((tid, row))) => {
            let id = row[0].as_i64().unwrap() as i32;
            let entry = model.get_mut(&id).unwrap();
            entry.1 += 1;
            let mut new = row.clone();
            new[1] = Datum::Int4(entry.1);
            if kind == 3 {
                entry.0 += 1;
                new = values(id, *entry).to_vec();
            }
            let mut op = UpdateOp::new(Arc::clone(t), *tid, &new).unwrap();
            drive(rig, &mut txn, |txn| op.step(txn))?;
        }
    }
    commit(rig, txn)
}

fn vacuum(rig: &Rig, t: &Arc<Table>) -> Option<()> {
    let mut txn = rig.engine.begin(crate::TxnOptions::default()).ok()?;
    let mut op = VacuumOp::new(&txn, Arc::clone(t), VacuumOptions::freezing(true)).ok()?;
    loop {
        match op.step(&mut txn).ok()? {
            VacuumStep::Done(_) => return commit(rig, txn),
            VacuumStep::More => {}
            VacuumStep::Wait(wait) => crate::ddl::crash_tests::settle(rig, wait)?,
        }
    }
}

fn one_run(seed: u64) {
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut below = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let mut rig = Rig::new();
    large_table(&rig, "t");
    let mut model = Model::new();
    for cut in 0..4 {
        cut_after(&rig, 1 + below(80));
        let mut maybe = model.clone();
        while !rig.vfs.crashed() {
            let Some(t) = table(&rig, "t") else { break };
            let done = match below(20) {
                0 => {
                    drop(rig.engine.checkpoint());
                    Some(())
                }
                1 | 2 => vacuum(&rig, &t),
                3 => {
                    maybe.clear();
                    ddl(
                        &rig,
                        Statement::Truncate(Truncate {
                            tables: vec![QualifiedName::new("t")],
                        }),
                    )
                }
                other => change(&rig, &t, other % 5, below(50) as usize, &mut maybe),
            };
            if done.is_none() {
                break;
            }
            model = maybe.clone();
        }
        let unsynced = match below(4) {
            0 => Unsynced::Lost,
            1 => Unsynced::Kept,
            2 => Unsynced::Reordered,
            _ => Unsynced::Torn(512),
        };
        let what = format!("seed {seed}, cut {cut}, {unsynced:?}");
        rig = Rig::try_open(rig.crash_with(unsynced, seed + cut))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let t = table(&rig, "t").unwrap_or_else(|| panic!("{what}: the table is gone"));
        let found = contents(&rig, &t);
        assert!(
            found == model || found == maybe,
            "{what}: {found:?}\n{model:?} or {maybe:?} expected"
        );
        model = found;
        let check = |rig: &Rig, when: &str| {
            let mut txn = rig.begin();
            txn.begin_statement();
            verify_table(&mut txn, &t).unwrap_or_else(|error| panic!("{what}, {when}: {error}"));
        };
        check(&rig, "after the restart");
        vacuum(&rig, &t).unwrap();
        check(&rig, "after vacuum");
        for kind in [0, 3, 4, 2] {
            change(&rig, &t, kind, below(50) as usize, &mut model).unwrap();
        }
        check(&rig, "after more changes");
        assert_eq!(contents(&rig, &t), model, "{what}");
    }
}

#[test]
fn large_values_and_their_rows_agree_after_a_power_cut_at_any_boundary() {
    let setting = |name: &str, default| {
        std::env::var(name)
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(default)
    };
    let (first, seeds) = (
        setting("TOWLINE_CRASH_FIRST", 1u64),
        setting("TOWLINE_CRASH_SEEDS", 12u64),
    );
    (first..first + seeds).for_each(one_run);
}
