//! FOR UPDATE: locks the rows that come by, and looks again at those that changed meanwhile.

use std::sync::Arc;

use towline_access::Step;
use towline_access::catalog::Table;
use towline_access::heap::fetch;
use towline_access::ops::{LockRowOp, LockWait, RowOutcome};
use towline_base::Tid;
use towline_types::Datum;

use super::large::fetch_row;
use super::scan::decode;
use super::{Flow, Row, Runtime, Source, pull};
use crate::error::SqlError;
use crate::expr::ScalarExpr;
use crate::parse::ast::LockPolicy;
use crate::plan::{LockTarget, ScanColumn};

struct Target {
    table: Arc<Table>,
    ctid: usize,
    places: Vec<(usize, ScanColumn)>,
    wait: LockWait,
}

/// See the module.
pub(super) struct LockRows {
    input: Box<dyn Source>,
    targets: Vec<Target>,
    recheck: Vec<ScalarExpr>,
    row: Row,
    /// The target being locked, and its operation.
    at: usize,
    op: Option<LockRowOp>,
    has_row: bool,
}

impl LockRows {
    pub(super) fn new(input: Box<dyn Source>, targets: &[LockTarget], recheck: Vec<ScalarExpr>) -> Self {
        let targets = targets
            .iter()
            .map(|target| Target {
                table: target.table.clone(),
                ctid: target.ctid,
                places: target.places.clone(),
                wait: match target.lock.policy {
                    LockPolicy::Wait => LockWait::Wait,
                    LockPolicy::NoWait => LockWait::NoWait,
                    LockPolicy::Skip => LockWait::Skip,
                },
            })
            .collect();
        LockRows {
            input,
            targets,
            recheck,
            row: Vec::new(),
            at: 0,
            op: None,
            has_row: false,
        }
    }
}

/// Puts the version at `tid` into the row's places of its table; false if it is gone. Of the attributes in `carried`, what is stored out of
/// line is not fetched.
pub(super) fn refresh(
    rt: &Runtime<'_>,
    table: &Table,
    places: &[(usize, ScanColumn)],
    carried: &[u16],
    tid: Tid,
    row: &mut Row,
) -> Result<bool, SqlError> {
    let columns: Vec<ScanColumn> = places.iter().map(|(_, column)| *column).collect();
    let mut values = Row::new();
    {
        let mut txn = rt.txn.borrow_mut();
        let Some(found) = fetch::fetch_newest(&mut txn, table.node, tid)? else {
            return Ok(false);
        };
        decode(table, &columns, found.tuple(), found.tid(), &mut values)?;
    }
    fetch_row(rt, table, &columns, carried, &mut values)?;
    for ((place, _), value) in places.iter().zip(values) {
        if let Some(slot) = row.get_mut(*place) {
            *slot = value;
        }
    }
    Ok(true)
}

impl Source for LockRows {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        loop {
            if !self.has_row {
                if !pull!(self.input.next(rt, outer, &mut self.row)) {
                    return Ok(Flow::End);
                }
                self.has_row = true;
                self.at = 0;
                self.op = None;
            }
            let Some(target) = self.targets.get(self.at) else {
                self.has_row = false;
                std::mem::swap(out, &mut self.row);
                return Ok(Flow::Row);
            };
            let op = match &mut self.op {
                Some(op) => op,
                None => {
                    // The outer side of a join that found no partner has no row to lock.
                    let Some(Datum::Tid(tid)) = self.row.get(target.ctid) else {
                        self.at += 1;
                        continue;
                    };
                    self.op
                        .insert(LockRowOp::new(target.table.clone(), *tid, target.wait))
                }
            };
            let outcome = match op.step(&mut rt.txn.borrow_mut())? {
                Step::Wait(wait) => return Ok(Flow::Wait(wait)),
                Step::Done(outcome) => outcome,
            };
            match outcome {
                RowOutcome::Done(_) => {
                    self.op = None;
                    self.at += 1;
                }
                RowOutcome::Updated { newest } => {
                    let alive = refresh(rt, &target.table, &target.places, &[], newest, &mut self.row)?;
                    if alive && rt.holds(&self.recheck, &self.row, outer)? {
                        op.retarget(newest);
                    } else {
                        self.op = None;
                        self.has_row = false;
                    }
                }
                RowOutcome::Deleted | RowOutcome::SelfModified | RowOutcome::Skipped => {
                    self.op = None;
                    self.has_row = false;
                }
            }
        }
    }

    fn rescan(&mut self, rt: &Runtime<'_>, outer: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        self.has_row = false;
        self.op = None;
        self.input.rescan(rt, outer, param)
    }
}
