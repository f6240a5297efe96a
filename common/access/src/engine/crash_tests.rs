//! Power cuts at sampled write and sync boundaries: acknowledged transactions are kept whole, others are gone whole.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use towline_base::vfs::Unsynced;

use crate::btree;
use crate::catalog::Table;
use crate::ddl::crash_tests::cut_after;
use crate::ops::{DeleteOp, InsertOp, UpdateOp};
use crate::testing::*;
use crate::vacuum::{VacuumOp, VacuumOptions, VacuumStep};
use crate::{CommitLevel, Result, Step, Transaction};

type State = BTreeMap<i32, i32>;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Runs a step to its end unless the power goes.
fn drive<T>(
    rig: &Rig,
    txn: &mut Transaction,
    mut step: impl FnMut(&mut Transaction) -> Result<Step<T>>,
) -> Option<T> {
    loop {
        match step(txn) {
            Ok(Step::Done(value)) => return Some(value),
            Ok(Step::Wait(mut wait)) => loop {
                match wait.block_briefly(Duration::from_millis(20)) {
                    Ok(Ok(())) => break,
                    Ok(Err(again)) if !rig.vfs.crashed() => wait = again,
                    Ok(Err(_)) | Err(_) => return None,
                }
            },
            Err(_) => return None,
        }
    }
}

/// One transaction of three changes; the state after it, if it was acknowledged (`Ok`) or may have been (`Err`).
fn transaction(
    rig: &Rig,
    table: &Arc<Table>,
    state: &State,
    random: &mut Random,
) -> Option<std::result::Result<State, State>> {
    let mut after = state.clone();
    let mut txn = rig.engine.begin(crate::TxnOptions::default()).ok()?;
    for _ in 0..3 {
        let id = random.below(40) as i32;
        let value = random.below(1_000_000) as i32;
        let snapshot = txn.begin_statement();
        let found = if after.contains_key(&id) {
            find_in(&txn, &snapshot, table, id)?
        } else {
            None
        };
        match (found, random.below(4)) {
            (None, _) => {
                let mut op = InsertOp::new(table.clone(), &values((id, value))).unwrap();
                drive(rig, &mut txn, |txn| op.step(txn))?;
                after.insert(id, value);
            }
            (Some(tid), 0) => {
                let mut op = DeleteOp::new(table.clone(), tid);
                drive(rig, &mut txn, |txn| op.step(txn))?;
                after.remove(&id);
            }
            (Some(tid), _) => {
                let mut op = UpdateOp::new(table.clone(), tid, &values((id, value))).unwrap();
                drive(rig, &mut txn, |txn| op.step(txn))?;
                after.insert(id, value);
            }
        }
    }
    if random.below(6) == 0 {
        txn.rollback();
        return Some(Ok(state.clone()));
    }
    let Some(lsn) = drive(rig, &mut txn, |txn| txn.commit(CommitLevel::On)) else {
        return Some(Err(after));
    };
    let mut wait = rig.engine.release().wait(lsn, CommitLevel::On);
    loop {
        match wait.block_briefly(Duration::from_millis(20)) {
            Ok(Ok(())) => return Some(Ok(after)),
            Ok(Err(again)) if !rig.vfs.crashed() => wait = again,
            Ok(Err(_)) | Err(_) => return Some(Err(after)),
        }
    }
}

fn find_in(
    txn: &Transaction,
    snapshot: &crate::Snapshot,
    table: &Table,
    id: i32,
) -> Option<Option<towline_base::Tid>> {
    let mut scan = crate::heap::HeapScan::new(txn, table.node).ok()?;
    while scan.next_page(txn, snapshot).ok()? {
        if let Some((tid, _)) = scan.rows().find(|(_, tuple)| decode(table, *tuple).0 == id) {
            return Some(Some(tid));
        }
    }
    Some(None)
}

fn vacuum(rig: &Rig, table: &Arc<Table>) -> Option<()> {
    let mut txn = rig.engine.begin(crate::TxnOptions::default()).ok()?;
    let mut op = VacuumOp::new(&txn, table.clone(), VacuumOptions::freezing(true)).ok()?;
    loop {
        let done = drive(rig, &mut txn, |txn| {
            Ok(match op.step(txn)? {
                VacuumStep::Done(_) => Step::Done(true),
                VacuumStep::More => Step::Done(false),
                VacuumStep::Wait(wait) => Step::Wait(wait),
            })
        })?;
        if done {
            return Some(());
        }
    }
}

/// What a reopened node must show.
fn check(rig: &Rig, table: &Arc<Table>, acknowledged: &State, maybe: Option<&State>, what: &str) -> State {
    let found: State = rig.rows(table).into_iter().collect();
    check_map(&rig.engine, table);
    assert!(
        found == *acknowledged || maybe == Some(&found),
        "{what}: {found:?}, not {acknowledged:?} or {maybe:?}"
    );
    let places = btree::check(rig.engine.storage().pool(), &table.indexes[0])
        .unwrap()
        .places;
    for tid in rows(&mut rig.begin(), table).into_iter().map(|(tid, _)| tid) {
        // A heap-only version is reached through its root, so only the count is compared for those.
        let _ = tid;
    }
    assert!(
        places.len() >= found.len(),
        "{what}: {} index entries for {} rows",
        places.len(),
        found.len()
    );
    found
}

fn one_crash(seed: u64, cuts: u32) {
    let mut random = Random(seed * 2 + 1);
    for _ in 0..5 {
        random.below(7);
    }
    let mut rig = Rig::new();
    let table = table(20_000, true, 100);
    rig.make_table(&table);
    let mut state = State::new();
    for cut in 0..cuts {
        let ahead = 1 + random.below(120);
        cut_after(&rig, ahead);
        let mut maybe = None;
        while !rig.vfs.crashed() {
            match random.below(12) {
                0 => drop(rig.engine.checkpoint()),
                1 => drop(vacuum(&rig, &table)),
                _ => match transaction(&rig, &table, &state, &mut random) {
                    Some(Ok(after)) => state = after,
                    Some(Err(after)) => maybe = Some(after),
                    None => {}
                },
            }
            if maybe.is_some() {
                break;
            }
        }
        let unsynced = match random.below(4) {
            0 => Unsynced::Lost,
            1 => Unsynced::Kept,
            2 => Unsynced::Reordered,
            _ => Unsynced::Torn(512),
        };
        let what = format!("seed {seed}, cut {cut} after {ahead} boundaries, unsynced {unsynced:?}");
        let disk = rig.crash_with(unsynced, seed + u64::from(cut));
        rig = Rig::try_open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        state = check(&rig, &table, &state, maybe.as_ref(), &what);
    }
}

#[test]
fn acknowledged_transactions_survive_a_power_cut_at_any_boundary() {
    let seeds = std::env::var("TOWLINE_CRASH_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20);
    let first = std::env::var("TOWLINE_CRASH_FIRST")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1);
    for seed in first..first + seeds {
        one_crash(seed, 4);
    }
    towline_base::testing::points::report("threads", seeds * 4);
}
