//! UPDATE of one row.

use std::sync::Arc;

use towline_base::Tid;
use towline_types::Datum;

use super::index::{Entries, same_keys};
use super::{Refusal, RowOutcome, myself, refuse, took_row};
use crate::catalog::Table;
use crate::error::Result;
use crate::heap::form_toasted;
use crate::heap::insert::bad_tuple;
use crate::heap::modify::{self, Attempt, Myself, NewVersion, Updated, Verdict};
use crate::heap::tuple::TupleRef;
use crate::locks::RowTicket;
use crate::step::Step;
use crate::toast::{Outgoing, Removal};
use crate::txn::Transaction;

/// Replaces the row at an address.
///
/// Where values move out of line, the row is locked first: chunks for a row that somebody else has would be written in vain, and stay.
/// Then their chunks are written, the row is replaced, and the chunks of values that it no longer has are deleted.
#[derive(Debug)]
pub struct UpdateOp {
    table: Arc<Table>,
    tid: Tid,
    tuple: Vec<u8>,
    outgoing: Outgoing,
    place: Option<RowTicket>,
    /// The row was locked, so that values may move out of line.
    locked: bool,
    /// The new version is in the heap, and its index entries are being added.
    placed: Option<Placed>,
    entries: Entries,
}

/// What is left to do once the new version is in the heap.
#[derive(Debug)]
struct Placed {
    tid: Tid,
    hot: bool,
    removal: Removal,
}

impl UpdateOp {
    /// The row whose version, as the statement saw it, is at `tid`, becomes `values` (one for each column). A value that is
    /// [`Datum::External`] is one that this version has, and the next one keeps.
    ///
    /// # Errors
    /// 54000 when the row does not fit a page.
    pub fn new(table: Arc<Table>, tid: Tid, values: &[Datum]) -> Result<Self> {
        let mut op = UpdateOp {
            table,
            tid,
            tuple: Vec::new(),
            outgoing: Outgoing::default(),
            place: None,
            locked: false,
            placed: None,
            entries: Entries::default(),
        };
        op.form(values)?;
        Ok(op)
    }

    /// Makes the operation ready for another row of the same table, keeping its buffer.
    pub fn reset(&mut self, tid: Tid, values: &[Datum]) -> Result<()> {
        self.place = None;
        self.placed = None;
        self.entries = Entries::default();
        self.retarget(tid, values)
    }

    /// Goes on with a newer version, which the caller has re-checked and computed the values from. The place in the row's queue is kept.
    pub fn retarget(&mut self, tid: Tid, values: &[Datum]) -> Result<()> {
        self.tid = tid;
        self.locked = false;
        self.form(values)
    }

    fn form(&mut self, values: &[Datum]) -> Result<()> {
        let toast = self.table.toast_oid();
        self.outgoing = Outgoing::new(form_toasted(&self.table.layout, values, toast, &mut self.tuple)?);
        Ok(())
    }

    /// Goes on. 23505 for a duplicate key.
    pub fn step(&mut self, txn: &mut Transaction) -> Result<Step<RowOutcome>> {
        if self.placed.is_none() {
            let me = crate::ready!(myself(txn));
            loop {
                let refused = match crate::ready!(self.attempt(txn, &me)) {
                    Updated::Done { tid, hot, external } => {
                        took_row(&mut self.place, tid, &me);
                        txn.touched.updated(&self.table, hot);
                        if hot && !external {
                            return Ok(Step::Done(RowOutcome::Done(tid)));
                        }
                        let removal = if external {
                            let new = TupleRef::new(&self.tuple).ok_or_else(bad_tuple)?;
                            Removal::of(txn, &self.table, self.tid, Some(new))?
                        } else {
                            Removal::default()
                        };
                        self.placed = Some(Placed { tid, hot, removal });
                        break;
                    }
                    Updated::Refused(verdict) => verdict,
                };
                match refuse(txn, &self.table, self.tid, refused, &mut self.place)? {
                    Refusal::Outcome(outcome) => return Ok(Step::Done(outcome)),
                    Refusal::Wait(wait) => return Ok(Step::Wait(wait)),
                    Refusal::Retry => {}
                }
            }
        }
        self.finish(txn)
    }

    /// Adds index entries, and deletes what the old version had out of line.
    fn finish(&mut self, txn: &mut Transaction) -> Result<Step<RowOutcome>> {
        let Some(placed) = &mut self.placed else {
            return Ok(Step::Done(RowOutcome::SelfModified));
        };
        let tid = placed.tid;
        if !placed.hot {
            crate::ready!(
                self.entries
                    .step(txn, &self.table, &self.tuple, &self.outgoing, tid)
            );
        }
        if !placed.removal.is_empty() {
            let me = crate::ready!(myself(txn));
            crate::ready!(placed.removal.step(txn, &self.table, &me));
        }
        Ok(Step::Done(RowOutcome::Done(tid)))
    }

    fn attempt(&mut self, txn: &mut Transaction, me: &Myself) -> Result<Step<Updated>> {
        if !self.outgoing.is_empty() {
            if !self.locked {
                match crate::ready!(modify::lock(txn, self.table.node, self.tid, me)) {
                    Attempt::Done(..) => self.locked = true,
                    Attempt::Refused(verdict) => return Ok(Step::Done(Updated::Refused(verdict))),
                }
            }
            crate::ready!(self.outgoing.step(txn, &self.table, &mut self.tuple));
        }
        let table = &self.table;
        let hot_allowed = |old: TupleRef<'_>, new: TupleRef<'_>| same_keys(table, old, new);
        let mut new = NewVersion {
            tuple: &mut self.tuple,
            fillfactor: table.fillfactor,
            hot_allowed: &hot_allowed,
        };
        let updated = crate::ready!(modify::update(txn, table.node, self.tid, me, &mut new));
        if let (Updated::Refused(verdict), true) = (&updated, self.locked) {
            return Err(lost(*verdict));
        }
        Ok(Step::Done(updated))
    }
}

/// XX000: the own lock did not hold.
fn lost(verdict: Verdict) -> crate::error::AccessError {
    crate::error::AccessError::internal(format!("a locked row was changed by another: {verdict:?}"))
}
