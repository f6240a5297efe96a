//! INSERT, UPDATE, DELETE: one pending row, resumed exactly where it stopped.
//!
//! When another transaction changed the row first (READ COMMITTED), the newest version takes the old one's place in the
//! input row, the statement's conditions are asked again, the new values are computed from it, and the operation goes
//! on with that version; its place in the row's queue is kept.

use std::sync::Arc;

use towline_access::Step;
use towline_access::catalog::Table;
use towline_access::ops::{DeleteOp, InsertOp, MultiInsertOp, RowOutcome, UpdateOp};
use towline_base::{SqlState, Tid};
use towline_types::{Datum, IoStyle, text_of};

use super::lock::refresh;
use super::{Flow, Row, Runtime, Source, build, pull};
use crate::error::SqlError;
use crate::expr::ScalarExpr;
use crate::plan::{Change, ScanColumn};

/// The state of one data-changing statement.
pub(crate) struct ChangeState {
    input: Option<Box<dyn Source>>,
    row: Row,
    values: Row,
    /// The operation on the current row; between rows it keeps its memory for the next.
    op: Op,
    /// The operation is under way.
    active: bool,
    at: usize,
    /// Rows changed.
    pub(crate) count: u64,
    /// Rows of RETURNING.
    pub(crate) returned: Vec<Row>,
    finished: bool,
}

enum Op {
    None,
    Insert(InsertOp),
    Batch(MultiInsertOp),
    Update(UpdateOp),
    Delete(DeleteOp),
}

/// 23502, worded as PostgreSQL does.
pub(crate) fn check_not_null(table: &Table, values: &[Datum], style: &IoStyle) -> Result<(), SqlError> {
    for (column, value) in table.columns.iter().zip(values) {
        if column.not_null && value.is_null() && !column.dropped {
            let shown: Vec<String> = table
                .columns
                .iter()
                .zip(values)
                .filter(|(column, _)| !column.dropped)
                .map(|(_, value)| {
                    if value.is_null() {
                        "null".to_owned()
                    } else {
                        cut(text_of(value, style))
                    }
                })
                .collect();
            let mut error = SqlError::new(
                SqlState::NOT_NULL_VIOLATION,
                format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    column.name, table.name
                ),
            )
            .with_detail(format!("Failing row contains ({}).", shown.join(", ")));
            let fields = error.fields_mut();
            fields.schema = Some(table.schema_name.to_string());
            fields.table = Some(table.name.to_string());
            fields.column = Some(column.name.to_string());
            return Err(error);
        }
    }
    Ok(())
}

/// Long values are cut in the detail line, after 64 characters.
fn cut(text: String) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

impl ChangeState {
    pub(crate) fn new(change: &Change, counted: bool) -> Self {
        let input = match change {
            Change::Insert { input, .. } => input.as_ref().map(|node| build(node, counted)),
            Change::Modify { input, .. } => Some(build(input, counted)),
        };
        ChangeState {
            input,
            row: Vec::new(),
            values: Vec::new(),
            op: Op::None,
            active: false,
            at: 0,
            count: 0,
            returned: Vec::new(),
            finished: false,
        }
    }

    /// Begins anew, keeping the memory of the execution before, which has ended well.
    pub(crate) fn restart(&mut self, rt: &Runtime<'_>) -> Result<(), SqlError> {
        if let Some(input) = &mut self.input {
            input.rescan(rt, &[], &[])?;
        }
        self.active = false;
        self.at = 0;
        self.count = 0;
        self.returned.clear();
        self.finished = false;
        Ok(())
    }

    /// Goes on; `End` when all rows are done.
    pub(crate) fn step(&mut self, rt: &Runtime<'_>, change: &Change) -> Result<Flow, SqlError> {
        match change {
            Change::Insert {
                table,
                rows,
                returning,
                ..
            } => {
                let batched = returning.is_empty() && (self.input.is_some() || rows.len() > 1);
                if batched {
                    self.insert_many(rt, table, rows)
                } else {
                    self.insert(rt, table, rows, returning)
                }
            }
            Change::Modify {
                table,
                ctid,
                places,
                set,
                recheck,
                returning,
                carried,
                delete,
                ..
            } => {
                let target = ModifyTarget {
                    table,
                    ctid: *ctid,
                    places,
                    set,
                    recheck,
                    returning,
                    carried,
                };
                if *delete {
                    self.delete(rt, &target)
                } else {
                    self.update(rt, &target)
                }
            }
        }
    }

    /// Makes the next full row in `values`; End without one.
    fn next_insert(
        &mut self,
        rt: &Runtime<'_>,
        table: &Table,
        rows: &[Vec<ScalarExpr>],
    ) -> Result<Flow, SqlError> {
        let template = match &mut self.input {
            Some(input) => {
                if !pull!(input.next(rt, &[], &mut self.row)) {
                    return Ok(Flow::End);
                }
                rows.first()
            }
            None => {
                self.at += 1;
                rows.get(self.at - 1)
            }
        };
        let Some(template) = template else {
            return Ok(Flow::End);
        };
        self.values.clear();
        let cx = rt.eval(&[]);
        for expr in template {
            self.values.push(expr.eval(&self.row, &cx)?);
        }
        check_not_null(table, &self.values, rt.style)?;
        Ok(Flow::Row)
    }

    fn insert(
        &mut self,
        rt: &Runtime<'_>,
        table: &Arc<Table>,
        rows: &[Vec<ScalarExpr>],
        returning: &[ScalarExpr],
    ) -> Result<Flow, SqlError> {
        loop {
            if let (Op::Insert(op), true) = (&mut self.op, self.active) {
                let tid = match op.step(&mut rt.txn.borrow_mut())? {
                    Step::Wait(wait) => return Ok(Flow::Wait(wait)),
                    Step::Done(tid) => tid,
                };
                self.active = false;
                self.count += 1;
                if !returning.is_empty() {
                    let xid = rt.txn.borrow().xid().map_or(0, |xid| xid.low32());
                    let mut full = self.values.clone();
                    full.extend([
                        Datum::Tid(tid),
                        Datum::Xid(xid),
                        Datum::Xid(0),
                        Datum::Oid(table.oid.0),
                    ]);
                    self.give_back(rt, returning, &full)?;
                }
            }
            if rt.tick()? {
                return Ok(Flow::Yield);
            }
            if !pull!(self.next_insert(rt, table, rows)) {
                return Ok(Flow::End);
            }
            match &mut self.op {
                Op::Insert(op) => op.reset(&self.values)?,
                other => *other = Op::Insert(InsertOp::new(table.clone(), &self.values)?),
            }
            self.active = true;
        }
    }

    fn insert_many(
        &mut self,
        rt: &Runtime<'_>,
        table: &Arc<Table>,
        rows: &[Vec<ScalarExpr>],
    ) -> Result<Flow, SqlError> {
        if matches!(self.op, Op::None) {
            self.op = Op::Batch(MultiInsertOp::new(table.clone()));
        }
        loop {
            let Op::Batch(batch) = &mut self.op else {
                return Ok(Flow::End);
            };
            if batch.is_full() || self.finished {
                match batch.step(&mut rt.txn.borrow_mut())? {
                    Step::Wait(wait) => return Ok(Flow::Wait(wait)),
                    Step::Done(rows) => self.count += rows as u64,
                }
                if self.finished {
                    return Ok(Flow::End);
                }
            }
            if rt.tick()? {
                return Ok(Flow::Yield);
            }
            if pull!(self.next_insert(rt, table, rows)) {
                if let Op::Batch(batch) = &mut self.op {
                    batch.push(&self.values)?;
                }
            } else {
                self.finished = true;
            }
        }
    }

    /// Computes a row of RETURNING.
    fn give_back(
        &mut self,
        rt: &Runtime<'_>,
        returning: &[ScalarExpr],
        row: &[Datum],
    ) -> Result<(), SqlError> {
        let cx = rt.eval(&[]);
        let result: Result<Row, SqlError> = returning.iter().map(|expr| expr.eval(row, &cx)).collect();
        let result = result?;
        rt.keep(&result)?;
        self.returned.push(result);
        Ok(())
    }

    /// Computes the new values of the current input row.
    fn new_values(&mut self, rt: &Runtime<'_>, target: &ModifyTarget<'_>) -> Result<(), SqlError> {
        self.values.clear();
        self.values.resize(target.table.columns.len(), Datum::Null);
        for (place, column) in target.places {
            if let ScanColumn::Attribute(at) = column
                && let Some(slot) = self.values.get_mut(usize::from(*at))
            {
                *slot = self.row.get(*place).cloned().unwrap_or(Datum::Null);
            }
        }
        let cx = rt.eval(&[]);
        for (column, expr) in target.set {
            let value = expr.eval(&self.row, &cx)?;
            if let Some(slot) = self.values.get_mut(*column) {
                *slot = value;
            }
        }
        let checked = check_not_null(target.table, &self.values, rt.style);
        if checked.is_err()
            && self
                .values
                .iter()
                .any(|value| matches!(value, Datum::External(_)))
        {
            // The message shows the whole row.
            towline_access::toast::fetch_all(&rt.txn.borrow(), target.table, &mut self.values)?;
            return check_not_null(target.table, &self.values, rt.style);
        }
        checked
    }

    fn row_tid(&self, target: &ModifyTarget<'_>) -> Result<Tid, SqlError> {
        match self.row.get(target.ctid) {
            Some(Datum::Tid(tid)) => Ok(*tid),
            _ => Err(SqlError::internal("a row to change has no ctid")),
        }
    }

    fn update(&mut self, rt: &Runtime<'_>, target: &ModifyTarget<'_>) -> Result<Flow, SqlError> {
        loop {
            if self.active {
                if let Some(wait) = self.step_update(rt, target)? {
                    return Ok(wait);
                }
                continue;
            }
            if rt.tick()? {
                return Ok(Flow::Yield);
            }
            let Some(input) = &mut self.input else {
                return Ok(Flow::End);
            };
            if !pull!(input.next(rt, &[], &mut self.row)) {
                return Ok(Flow::End);
            }
            self.new_values(rt, target)?;
            let tid = self.row_tid(target)?;
            match &mut self.op {
                Op::Update(op) => op.reset(tid, &self.values)?,
                other => *other = Op::Update(UpdateOp::new(target.table.clone(), tid, &self.values)?),
            }
            self.active = true;
        }
    }

    fn step_update(&mut self, rt: &Runtime<'_>, target: &ModifyTarget<'_>) -> Result<Option<Flow>, SqlError> {
        let Op::Update(op) = &mut self.op else {
            return Ok(None);
        };
        let outcome = match op.step(&mut rt.txn.borrow_mut())? {
            Step::Wait(wait) => return Ok(Some(Flow::Wait(wait))),
            Step::Done(outcome) => outcome,
        };
        match outcome {
            RowOutcome::Done(tid) => {
                self.active = false;
                self.count += 1;
                if !target.returning.is_empty() {
                    let mut row = self.row.clone();
                    for (place, column) in target.places {
                        let value = match column {
                            ScanColumn::Attribute(at) => self.values.get(usize::from(*at)).cloned(),
                            ScanColumn::Ctid => Some(Datum::Tid(tid)),
                            _ => None,
                        };
                        if let (Some(slot), Some(value)) = (row.get_mut(*place), value) {
                            *slot = value;
                        }
                    }
                    self.give_back(rt, target.returning, &row)?;
                }
            }
            RowOutcome::Updated { newest } => {
                if self.still_wanted(rt, target, newest)? {
                    self.new_values(rt, target)?;
                    if let Op::Update(op) = &mut self.op {
                        op.retarget(newest, &self.values)?;
                    }
                } else {
                    self.give_up_row();
                }
            }
            RowOutcome::Deleted | RowOutcome::SelfModified | RowOutcome::Skipped => self.give_up_row(),
        }
        Ok(None)
    }

    /// Leaves the current row as it is, and its queue.
    fn give_up_row(&mut self) {
        self.op = Op::None;
        self.active = false;
    }

    /// Looks at the newest version in place of the one the snapshot saw.
    fn still_wanted(
        &mut self,
        rt: &Runtime<'_>,
        target: &ModifyTarget<'_>,
        newest: Tid,
    ) -> Result<bool, SqlError> {
        let (table, places, carried) = (target.table, target.places, target.carried);
        Ok(refresh(rt, table, places, carried, newest, &mut self.row)?
            && rt.holds(target.recheck, &self.row, &[])?)
    }

    fn delete(&mut self, rt: &Runtime<'_>, target: &ModifyTarget<'_>) -> Result<Flow, SqlError> {
        loop {
            if let (Op::Delete(op), true) = (&mut self.op, self.active) {
                let outcome = match op.step(&mut rt.txn.borrow_mut())? {
                    Step::Wait(wait) => return Ok(Flow::Wait(wait)),
                    Step::Done(outcome) => outcome,
                };
                match outcome {
                    RowOutcome::Done(_) => {
                        self.give_up_row();
                        self.count += 1;
                        if !target.returning.is_empty() {
                            let row = std::mem::take(&mut self.row);
                            self.give_back(rt, target.returning, &row)?;
                        }
                    }
                    RowOutcome::Updated { newest } => {
                        if self.still_wanted(rt, target, newest)? {
                            if let Op::Delete(op) = &mut self.op {
                                op.retarget(newest);
                            }
                        } else {
                            self.give_up_row();
                        }
                    }
                    RowOutcome::Deleted | RowOutcome::SelfModified | RowOutcome::Skipped => {
                        self.give_up_row();
                    }
                }
                continue;
            }
            if rt.tick()? {
                return Ok(Flow::Yield);
            }
            let Some(input) = &mut self.input else {
                return Ok(Flow::End);
            };
            if !pull!(input.next(rt, &[], &mut self.row)) {
                return Ok(Flow::End);
            }
            let tid = self.row_tid(target)?;
            self.op = Op::Delete(DeleteOp::new(target.table.clone(), tid));
            self.active = true;
        }
    }
}

/// The parts of [`Change::Modify`].
struct ModifyTarget<'a> {
    table: &'a Arc<Table>,
    ctid: usize,
    places: &'a [(usize, ScanColumn)],
    set: &'a [(usize, ScalarExpr)],
    recheck: &'a [ScalarExpr],
    returning: &'a [ScalarExpr],
    carried: &'a [u16],
}
