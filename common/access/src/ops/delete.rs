//! DELETE of one row.

use std::sync::Arc;

use towline_base::Tid;

use super::{Refusal, RowOutcome, myself, refuse, took_row};
use crate::catalog::Table;
use crate::error::Result;
use crate::heap::modify::{self, Attempt};
use crate::locks::RowTicket;
use crate::step::Step;
use crate::toast::Removal;
use crate::txn::Transaction;

/// Deletes the row at an address.
#[derive(Debug)]
pub struct DeleteOp {
    table: Arc<Table>,
    tid: Tid,
    place: Option<RowTicket>,
    /// The row is deleted, and its values out of line are being deleted.
    deleted: Option<(Tid, Removal)>,
}

impl DeleteOp {
    /// The row whose version, as the statement saw it, is at `tid`.
    pub fn new(table: Arc<Table>, tid: Tid) -> Self {
        DeleteOp {
            table,
            tid,
            place: None,
            deleted: None,
        }
    }

    /// Goes on with a newer version, which the caller has re-checked. The place in the row's queue is kept.
    pub fn retarget(&mut self, tid: Tid) {
        self.tid = tid;
    }

    /// Goes on.
    pub fn step(&mut self, txn: &mut Transaction) -> Result<Step<RowOutcome>> {
        let me = crate::ready!(myself(txn));
        loop {
            if let Some((tid, removal)) = &mut self.deleted {
                crate::ready!(removal.step(txn, &self.table, &me));
                return Ok(Step::Done(RowOutcome::Done(*tid)));
            }
            match crate::ready!(modify::delete(txn, self.table.node, self.tid, &me)) {
                Attempt::Done(tid, external) => {
                    took_row(&mut self.place, tid, &me);
                    txn.touched.deleted(&self.table);
                    if !external {
                        return Ok(Step::Done(RowOutcome::Done(tid)));
                    }
                    self.deleted = Some((tid, Removal::of(txn, &self.table, tid, None)?));
                }
                Attempt::Refused(verdict) => {
                    match refuse(txn, &self.table, self.tid, verdict, &mut self.place)? {
                        Refusal::Outcome(outcome) => return Ok(Step::Done(outcome)),
                        Refusal::Wait(wait) => return Ok(Step::Wait(wait)),
                        Refusal::Retry => {}
                    }
                }
            }
        }
    }
}
