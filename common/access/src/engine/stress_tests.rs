//! Many threads on one engine: transfers keep the sum, whatever snapshot looks.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::catalog::Table;
use crate::heap::fetch::fetch_newest;
use crate::ops::{RowOutcome, UpdateOp};
use crate::testing::*;
use crate::vacuum::{VacuumOp, VacuumOptions, VacuumStep};
use crate::{Isolation, Result, Step, Transaction};

const ACCOUNTS: i32 = 8;
const START: i32 = 1000;
/// How long a run may take: far above what it does on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// Tells the others when the thread that holds it fails: they must not go on without it.
struct Alarm<'a>(&'a AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Adds `delta` to an account, as READ COMMITTED does it.
fn add(txn: &mut Transaction, table: &Arc<Table>, id: i32, delta: i32) -> Result<()> {
    let snapshot = txn.begin_statement();
    let found = all_at(txn, &snapshot, table)
        .into_iter()
        .find(|(_, row)| row.0 == id);
    let (tid, row) = found.expect("no account is ever deleted");
    let mut op = UpdateOp::new(table.clone(), tid, &values((row.0, row.1 + delta)))?;
    loop {
        match op.step(txn)? {
            Step::Done(RowOutcome::Done(_)) => return Ok(()),
            Step::Done(RowOutcome::Updated { newest }) => {
                let row = fetch_newest(txn, table.node, newest)?.map(|row| decode(table, row.tuple()));
                let row = row.expect("a committed version is there");
                op.retarget(newest, &values((row.0, row.1 + delta)))?;
            }
            Step::Done(other) => panic!("{other:?}"),
            Step::Wait(wait) => {
                if let Err(wait) = wait.block_briefly(Duration::from_millis(50))? {
                    wait.check_deadlock()?;
                    let _ = wait.block(Duration::from_secs(10))?;
                }
            }
        }
    }
}

#[test]
fn transfers_between_threads_keep_the_sum_in_every_snapshot() {
    let rig = Rig::new();
    let table = table(20_000, true, 100);
    rig.make_table(&table);
    let mut txn = rig.begin();
    for id in 0..ACCOUNTS {
        insert(&mut txn, &table, (id, START));
    }
    commit(txn);
    let stop = AtomicBool::new(false);
    // A failing thread must not leave the others waiting for it.
    let failed = &AtomicBool::new(false);
    let deadline = std::time::Instant::now() + LIMIT;
    let late = || failed.load(Ordering::Relaxed) || std::time::Instant::now() > deadline;
    let (transfers, deadlocks, looks) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let wanted: u64 = std::env::var("TOWLINE_STRESS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(400);
    std::thread::scope(|scope| {
        for thread in 0..6u64 {
            let (rig, table) = (&rig, &table);
            let (transfers, deadlocks) = (&transfers, &deadlocks);
            scope.spawn(move || {
                let _alarm = Alarm(failed);
                let mut seed = thread * 7919 + 1;
                while transfers.load(Ordering::Relaxed) < wanted && !late() {
                    seed = seed
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let from = (seed >> 33) as i32 % ACCOUNTS;
                    let to = (from + 1 + (seed >> 40) as i32 % (ACCOUNTS - 1)) % ACCOUNTS;
                    let amount = (seed >> 50) as i32 % 10;
                    let mut txn = begin(&rig.engine, Isolation::ReadCommitted);
                    let done =
                        add(&mut txn, table, from, -amount).and_then(|()| add(&mut txn, table, to, amount));
                    match done {
                        Ok(()) if seed >> 60 == 0 => txn.rollback(),
                        Ok(()) => {
                            commit(txn);
                            transfers.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            assert_eq!(
                                error.sqlstate(),
                                towline_base::SqlState::DEADLOCK_DETECTED,
                                "{error}"
                            );
                            deadlocks.fetch_add(1, Ordering::Relaxed);
                            txn.rollback();
                        }
                    }
                }
            });
        }
        let (rig, table) = (&rig, &table);
        let (stop, looks, transfers) = (&stop, &looks, &transfers);
        scope.spawn(move || {
            let _alarm = Alarm(failed);
            while !stop.load(Ordering::Relaxed) && !late() {
                let mut txn = begin(&rig.engine, Isolation::RepeatableRead);
                for _ in 0..3 {
                    let found = rows(&mut txn, table);
                    assert_eq!(found.len(), ACCOUNTS as usize);
                    let sum: i32 = found.iter().map(|(_, row)| row.1).sum();
                    assert_eq!(sum, ACCOUNTS * START);
                }
                looks.fetch_add(1, Ordering::Relaxed);
                if transfers.load(Ordering::Relaxed) >= wanted {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        });
        scope.spawn(move || {
            let _alarm = Alarm(failed);
            while !stop.load(Ordering::Relaxed) && !late() {
                let mut txn = rig.begin();
                let mut op = VacuumOp::new(&txn, table.clone(), VacuumOptions::freezing(true))
                    .unwrap()
                    .keep_length();
                loop {
                    match op.step(&mut txn).unwrap() {
                        VacuumStep::Done(_) => break,
                        VacuumStep::More => {}
                        VacuumStep::Wait(wait) => drop(wait.block(Duration::from_secs(20)).unwrap()),
                    }
                }
                drop(rig.engine.checkpoint());
            }
        });
    });
    assert!(looks.load(Ordering::Relaxed) > 0 && transfers.load(Ordering::Relaxed) >= wanted);
    let sum = |rig: &Rig| rig.rows(&table).iter().map(|row| row.1).sum::<i32>();
    assert_eq!(sum(&rig), ACCOUNTS * START);
    let rig = Rig::open(rig.crash());
    assert_eq!(sum(&rig), ACCOUNTS * START);
}
