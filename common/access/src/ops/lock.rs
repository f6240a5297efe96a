//! SELECT … FOR UPDATE of one row. The weaker row locks (FOR NO KEY UPDATE, FOR SHARE, FOR KEY SHARE) are taken as FOR UPDATE: stricter,
//! never wrong.

use std::sync::Arc;

use towline_base::{SqlState, Tid};

use super::{Refusal, RowOutcome, myself, refuse, took_row};
use crate::catalog::Table;
use crate::error::{AccessError, Result};
use crate::heap::modify::{self, Attempt, Verdict};
use crate::locks::RowTicket;
use crate::step::Step;
use crate::txn::Transaction;

/// What to do about a row that another transaction holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LockWait {
    /// Wait for it.
    #[default]
    Wait,
    /// 55P03.
    NoWait,
    /// Leave the row out.
    Skip,
}

/// Locks the row at an address until the end of the transaction.
#[derive(Debug)]
pub struct LockRowOp {
    table: Arc<Table>,
    tid: Tid,
    wait: LockWait,
    place: Option<RowTicket>,
}

impl LockRowOp {
    /// The row whose version, as the statement saw it, is at `tid`.
    pub fn new(table: Arc<Table>, tid: Tid, wait: LockWait) -> Self {
        LockRowOp {
            table,
            tid,
            wait,
            place: None,
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
            let verdict = match crate::ready!(modify::lock(txn, self.table.node, self.tid, &me)) {
                Attempt::Done(tid, _) => {
                    took_row(&mut self.place, tid, &me);
                    return Ok(Step::Done(RowOutcome::Done(tid)));
                }
                Attempt::Refused(verdict) => verdict,
            };
            if let (Verdict::Held(_), false) = (verdict, self.wait == LockWait::Wait) {
                if self.wait == LockWait::Skip {
                    return Ok(Step::Done(RowOutcome::Skipped));
                }
                return Err(AccessError::new(
                    SqlState::LOCK_NOT_AVAILABLE,
                    format!("could not obtain lock on row in relation \"{}\"", self.table.name),
                ));
            }
            match refuse(txn, &self.table, self.tid, verdict, &mut self.place)? {
                Refusal::Outcome(outcome) => return Ok(Step::Done(outcome)),
                Refusal::Wait(wait) => return Ok(Step::Wait(wait)),
                Refusal::Retry => {}
            }
        }
    }
}
