//! Cuts of vacuum whose record is logged and not durable yet: what waits for them, and for whom they are given up.

use std::sync::Arc;

use super::driver::{COMMIT, Driver};
use super::node::{Failure, Node, text};
use crate::locks::{LockMode, LockTag};
use crate::testing::fresh_disk;
use crate::vacuum::{VacuumOp, VacuumOptions, VacuumStep};
use crate::{Step, Transaction};

/// A table whose pages are empty, with a vacuum that is about to cut them off.
struct Cut {
    driver: Driver,
    txn: Transaction,
    op: VacuumOp,
    tag: LockTag,
}

impl Cut {
    fn begin() -> Result<Cut, Failure> {
        let mut driver = Driver::start(&fresh_disk())?;
        driver.text_length = 700;
        driver.create("t", COMMIT)?;
        let filled: Vec<_> = (0..60).map(|id| (id, Some(id))).collect();
        driver.change("t", &filled, COMMIT)?;
        let emptied: Vec<_> = (0..60).map(|id| (id, None)).collect();
        driver.change("t", &emptied, COMMIT)?;
        let table = driver.node.table("t")?.ok_or("no table")?;
        let tag = LockTag::Relation(table.oid.0);
        let txn = driver.node.begin()?;
        let op = VacuumOp::new(&txn, Arc::clone(&table), VacuumOptions::freezing(true)).map_err(text)?;
        let mut cut = Cut { driver, txn, op, tag };
        while !cut.op.is_cutting() {
            if cut.step()? {
                return Err("nothing was cut".to_owned());
            }
        }
        Ok(cut)
    }

    /// One step of the vacuum; true when it has ended.
    fn step(&mut self) -> Result<bool, Failure> {
        let Cut { driver, txn, op, .. } = self;
        driver.node.drive(txn, |txn| {
            Ok(match op.step(txn)? {
                VacuumStep::Done(_) => Step::Done(true),
                VacuumStep::More => Step::Done(false),
                VacuumStep::Wait(wait) => Step::Wait(wait),
            })
        })
    }

    fn node(&mut self) -> &mut Node {
        &mut self.driver.node
    }
}

/// Redo from that checkpoint would not see the record, and what was cut would come back.
#[test]
fn a_checkpoint_does_not_end_before_a_logged_cut_is_carried_out() {
    let mut cut = Cut::begin().unwrap();
    cut.node().flush().unwrap();
    assert!(cut.node().checkpoint().is_err());
    while !cut.step().unwrap() {}
    cut.node().checkpoint().unwrap();
}

#[test]
fn a_cut_is_given_up_for_whoever_waits_for_the_table() {
    let mut cut = Cut::begin().unwrap();
    let mut reader = cut.node().begin().unwrap();
    let tag = cut.tag;
    let Step::Wait(_wait) = reader.lock(tag, LockMode::AccessShare).unwrap() else {
        panic!("the table is not held")
    };
    // Nobody makes the record durable, and no time passes.
    let ended = (0..100).any(|_| cut.step().unwrap());
    assert!(ended, "the vacuum holds the table");
    assert!(matches!(
        reader.lock(tag, LockMode::AccessShare).unwrap(),
        Step::Done(())
    ));
}
