//! Subqueries of expressions: run to their end when an expression asks.

use std::sync::Arc;

use hashbrown::HashSet;
use towline_base::SqlState;
use towline_types::Datum;

use super::{Flow, Row, Runtime, Source, build};
use crate::error::SqlError;
use crate::expr::{EvalContext, Subqueries};
use crate::plan::Subplan;

/// The state of one subplan in one execution.
pub(crate) struct SubplanState {
    source: Box<dyn Source>,
    fresh: bool,
    outer: Row,
    /// Results of a subplan that depends on nothing.
    scalar: Option<Datum>,
    exists: Option<bool>,
    values: Option<Arc<Vec<Datum>>>,
    set: Option<(HashSet<Datum>, bool)>,
}

impl SubplanState {
    /// Not yet run.
    pub(crate) fn new(plan: &Subplan, counted: bool) -> Self {
        SubplanState {
            source: build(&plan.node, counted),
            fresh: true,
            outer: Vec::new(),
            scalar: None,
            exists: None,
            values: None,
            set: None,
        }
    }

    /// Begins it for this row.
    fn start(
        &mut self,
        rt: &Runtime<'_>,
        plan: &Subplan,
        row: &[Datum],
        cx: &EvalContext<'_>,
    ) -> Result<(), SqlError> {
        self.outer.clear();
        for value in &plan.outer {
            self.outer.push(value.eval(row, cx)?);
        }
        if !self.fresh {
            self.source.rescan(rt, &self.outer, &[])?;
        }
        self.fresh = false;
        Ok(())
    }

    fn next(&mut self, rt: &Runtime<'_>, out: &mut Row) -> Result<bool, SqlError> {
        loop {
            match self.source.next(rt, &self.outer, out)? {
                Flow::Row => return Ok(true),
                Flow::End => return Ok(false),
                Flow::Yield => {}
                Flow::Wait(_) => {
                    return Err(SqlError::unsupported("row locks in a subquery of an expression"));
                }
            }
        }
    }
}

impl Runtime<'_> {
    fn subplan<T>(
        &self,
        slot: usize,
        run: impl FnOnce(&mut SubplanState, &Subplan) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let (Some(state), Some(plan)) = (self.subplans.get(slot), self.plan.subplans.get(slot)) else {
            return Err(SqlError::internal("no such subplan"));
        };
        crate::stack::check()?;
        let mut state = state
            .try_borrow_mut()
            .map_err(|_| SqlError::internal("a subplan was asked while it runs"))?;
        self.quietly(|| run(&mut state, plan))
    }

    /// One value of a row; several columns as a record.
    fn single(&self, plan: &Subplan, row: &mut Row, cx: &EvalContext<'_>) -> Result<Datum, SqlError> {
        let value = if row.len() == 1 {
            row.pop().unwrap_or(Datum::Null)
        } else {
            Datum::Record(row.as_slice().into())
        };
        match plan.cast {
            Some(to) if !value.is_null() => crate::expr::cast_value(value, to, cx),
            _ => Ok(value),
        }
    }
}

impl Subqueries for Runtime<'_> {
    fn scalar(&self, slot: usize, row: &[Datum], cx: &EvalContext<'_>) -> Result<Datum, SqlError> {
        self.subplan(slot, |state, plan| {
            if let (true, Some(value)) = (plan.constant, &state.scalar) {
                return Ok(value.clone());
            }
            state.start(self, plan, row, cx)?;
            let mut out = Row::new();
            let value = if state.next(self, &mut out)? {
                self.single(plan, &mut out, cx)?
            } else {
                Datum::Null
            };
            let mut second = Row::new();
            if state.next(self, &mut second)? {
                return Err(SqlError::new(
                    SqlState::CARDINALITY_VIOLATION,
                    "more than one row returned by a subquery used as an expression",
                ));
            }
            if plan.constant {
                state.scalar = Some(value.clone());
            }
            Ok(value)
        })
    }

    fn exists(&self, slot: usize, row: &[Datum], cx: &EvalContext<'_>) -> Result<bool, SqlError> {
        self.subplan(slot, |state, plan| {
            if let (true, Some(exists)) = (plan.constant, state.exists) {
                return Ok(exists);
            }
            state.start(self, plan, row, cx)?;
            let exists = state.next(self, &mut Row::new())?;
            state.exists = Some(exists);
            Ok(exists)
        })
    }

    fn values(&self, slot: usize, row: &[Datum], cx: &EvalContext<'_>) -> Result<Arc<Vec<Datum>>, SqlError> {
        self.subplan(slot, |state, plan| {
            if let (true, Some(values)) = (plan.constant, &state.values) {
                return Ok(values.clone());
            }
            state.start(self, plan, row, cx)?;
            let mut values = Vec::new();
            let mut bytes = 0;
            let mut out = Row::new();
            while state.next(self, &mut out)? {
                bytes += self.keep(&out)?;
                values.push(self.single(plan, &mut out, cx)?);
            }
            let values = Arc::new(values);
            if plan.constant {
                state.values = Some(values.clone());
            } else {
                self.forget(bytes);
            }
            Ok(values)
        })
    }

    fn contains(
        &self,
        slot: usize,
        row: &[Datum],
        value: &Datum,
        cx: &EvalContext<'_>,
    ) -> Result<Option<Datum>, SqlError> {
        if self.plan.subplans.get(slot).is_none_or(|plan| !plan.constant) || matches!(value, Datum::Record(_))
        {
            return Ok(None);
        }
        let values = self.values(slot, row, cx)?;
        self.subplan(slot, |state, _| {
            let (set, has_null) = state.set.get_or_insert_with(|| {
                let has_null = values.iter().any(Datum::is_null);
                (
                    values.iter().filter(|value| !value.is_null()).cloned().collect(),
                    has_null,
                )
            });
            Ok(Some(if set.contains(value) {
                Datum::Bool(true)
            } else if *has_null {
                Datum::Null
            } else {
                Datum::Bool(false)
            }))
        })
    }
}
