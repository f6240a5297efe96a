//! Nodes that shape rows: projection, filters, limits, duplicates, set operations.

use hashbrown::{HashMap, HashSet};
use towline_base::SqlState;
use towline_types::Datum;

use super::{Flow, Row, Runtime, Source, count_removed, pull};
use crate::error::SqlError;
use crate::expr::{ScalarExpr, SetCall, SetRows};
use crate::parse::ast::SetOp;

/// One row without columns.
pub(super) struct OneRow {
    filter: Vec<ScalarExpr>,
    done: bool,
}

impl OneRow {
    pub(super) fn new(filter: Vec<ScalarExpr>) -> Self {
        OneRow { filter, done: false }
    }
}

impl Source for OneRow {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        out.clear();
        if std::mem::replace(&mut self.done, true) || !rt.holds(&self.filter, &[], outer)? {
            return Ok(Flow::End);
        }
        Ok(Flow::Row)
    }

    fn rescan(&mut self, _: &Runtime<'_>, _: &[Datum], _: &[Datum]) -> Result<(), SqlError> {
        self.done = false;
        Ok(())
    }
}

/// VALUES
pub(super) struct Values {
    rows: Vec<Vec<ScalarExpr>>,
    at: usize,
}

impl Values {
    pub(super) fn new(rows: Vec<Vec<ScalarExpr>>) -> Self {
        Values { rows, at: 0 }
    }
}

impl Source for Values {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        if rt.tick()? {
            return Ok(Flow::Yield);
        }
        let Some(row) = self.rows.get(self.at) else {
            return Ok(Flow::End);
        };
        self.at += 1;
        out.clear();
        let cx = rt.eval(outer);
        for expr in row {
            out.push(expr.eval(&[], &cx)?);
        }
        Ok(Flow::Row)
    }

    fn rescan(&mut self, _: &Runtime<'_>, _: &[Datum], _: &[Datum]) -> Result<(), SqlError> {
        self.at = 0;
        Ok(())
    }
}

/// Rows for which all conditions hold.
pub(super) struct Filter {
    input: Box<dyn Source>,
    conditions: Vec<ScalarExpr>,
    id: usize,
}

impl Filter {
    pub(super) fn new(input: Box<dyn Source>, conditions: Vec<ScalarExpr>, id: usize) -> Self {
        Filter {
            input,
            conditions,
            id,
        }
    }
}

impl Source for Filter {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        loop {
            if !pull!(self.input.next(rt, outer, out)) {
                return Ok(Flow::End);
            }
            if rt.holds(&self.conditions, out, outer)? {
                return Ok(Flow::Row);
            }
            count_removed(rt, self.id);
            if rt.tick()? {
                return Ok(Flow::Yield);
            }
        }
    }

    fn rescan(&mut self, rt: &Runtime<'_>, outer: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        self.input.rescan(rt, outer, param)
    }
}

/// New rows from expressions.
pub(super) struct Project {
    input: Box<dyn Source>,
    exprs: Vec<ScalarExpr>,
    row: Row,
}

impl Project {
    pub(super) fn new(input: Box<dyn Source>, exprs: Vec<ScalarExpr>) -> Self {
        Project {
            input,
            exprs,
            row: Vec::new(),
        }
    }
}

impl Source for Project {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        if !pull!(self.input.next(rt, outer, &mut self.row)) {
            return Ok(Flow::End);
        }
        out.clear();
        let cx = rt.eval(outer);
        for expr in &self.exprs {
            out.push(expr.eval(&self.row, &cx)?);
        }
        Ok(Flow::Row)
    }

    fn rescan(&mut self, rt: &Runtime<'_>, outer: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        self.input.rescan(rt, outer, param)
    }
}

/// Expressions with set-returning calls: the sets run side by side, shorter ones are filled with NULL.
pub(super) struct ProjectSet {
    input: Box<dyn Source>,
    sets: Vec<SetCall>,
    exprs: Vec<ScalarExpr>,
    width: usize,
    row: Row,
    running: Vec<Option<SetRows>>,
    active: bool,
}

impl ProjectSet {
    pub(super) fn new(
        input: Box<dyn Source>,
        sets: Vec<SetCall>,
        exprs: Vec<ScalarExpr>,
        width: usize,
    ) -> Self {
        ProjectSet {
            input,
            sets,
            exprs,
            width,
            row: Vec::new(),
            running: Vec::new(),
            active: false,
        }
    }
}

impl Source for ProjectSet {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        loop {
            if rt.tick()? {
                return Ok(Flow::Yield);
            }
            if !self.active {
                if !pull!(self.input.next(rt, outer, &mut self.row)) {
                    return Ok(Flow::End);
                }
                self.row.truncate(self.width);
                self.running.clear();
                let cx = rt.eval(outer);
                for set in &self.sets {
                    self.running.push(Some(set.start(&self.row, &cx)?));
                }
                self.active = true;
            }
            self.row.truncate(self.width);
            let mut any = false;
            for running in &mut self.running {
                let mut value = Row::new();
                let more = match running {
                    Some(rows) => rows.next_row(&mut value)?,
                    None => false,
                };
                if more {
                    any = true;
                } else {
                    *running = None;
                }
                self.row.push(value.pop().unwrap_or(Datum::Null));
            }
            if !any {
                self.active = false;
                continue;
            }
            out.clear();
            let cx = rt.eval(outer);
            for expr in &self.exprs {
                out.push(expr.eval(&self.row, &cx)?);
            }
            return Ok(Flow::Row);
        }
    }

    fn rescan(&mut self, rt: &Runtime<'_>, outer: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        self.active = false;
        self.input.rescan(rt, outer, param)
    }
}

/// LIMIT and OFFSET.
pub(super) struct Limit {
    input: Box<dyn Source>,
    limit: Option<ScalarExpr>,
    offset: Option<ScalarExpr>,
    left: Option<(u64, u64)>,
}

impl Limit {
    pub(super) fn new(input: Box<dyn Source>, limit: Option<ScalarExpr>, offset: Option<ScalarExpr>) -> Self {
        Limit {
            input,
            limit,
            offset,
            left: None,
        }
    }

    fn number(
        rt: &Runtime<'_>,
        outer: &[Datum],
        expr: Option<&ScalarExpr>,
        word: &str,
        sqlstate: SqlState,
    ) -> Result<Option<u64>, SqlError> {
        let Some(expr) = expr else { return Ok(None) };
        match expr.eval(&[], &rt.eval(outer))?.as_i64() {
            None => Ok(None),
            Some(number) => u64::try_from(number)
                .map(Some)
                .map_err(|_| SqlError::new(sqlstate, format!("{word} must not be negative"))),
        }
    }
}

impl Source for Limit {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        if self.left.is_none() {
            let offset = Self::number(
                rt,
                outer,
                self.offset.as_ref(),
                "OFFSET",
                SqlState::INVALID_ROW_COUNT_IN_RESULT_OFFSET_CLAUSE,
            )?;
            let limit = Self::number(
                rt,
                outer,
                self.limit.as_ref(),
                "LIMIT",
                SqlState::INVALID_ROW_COUNT_IN_LIMIT_CLAUSE,
            )?;
            self.left = Some((offset.unwrap_or(0), limit.unwrap_or(u64::MAX)));
        }
        let Some((skip, left)) = &mut self.left else {
            return Ok(Flow::End);
        };
        if *left == 0 {
            return Ok(Flow::End);
        }
        loop {
            if !pull!(self.input.next(rt, outer, out)) {
                return Ok(Flow::End);
            }
            if *skip == 0 {
                *left -= 1;
                return Ok(Flow::Row);
            }
            *skip -= 1;
        }
    }

    fn rescan(&mut self, rt: &Runtime<'_>, outer: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        self.left = None;
        self.input.rescan(rt, outer, param)
    }
}

/// One input after the other.
pub(super) struct Append {
    inputs: Vec<Box<dyn Source>>,
    at: usize,
}

impl Append {
    pub(super) fn new(inputs: Vec<Box<dyn Source>>) -> Self {
        Append { inputs, at: 0 }
    }
}

impl Source for Append {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        while let Some(input) = self.inputs.get_mut(self.at) {
            if pull!(input.next(rt, outer, out)) {
                return Ok(Flow::Row);
            }
            self.at += 1;
        }
        Ok(Flow::End)
    }

    fn rescan(&mut self, rt: &Runtime<'_>, outer: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        self.at = 0;
        self.inputs
            .iter_mut()
            .try_for_each(|input| input.rescan(rt, outer, param))
    }
}

/// The first row of each combination of some places.
pub(super) struct Unique {
    input: Box<dyn Source>,
    places: Vec<usize>,
    seen: HashSet<Row>,
    bytes: usize,
}

impl Unique {
    pub(super) fn new(input: Box<dyn Source>, places: Vec<usize>) -> Self {
        Unique {
            input,
            places,
            seen: HashSet::new(),
            bytes: 0,
        }
    }
}

impl Source for Unique {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        loop {
            if !pull!(self.input.next(rt, outer, out)) {
                return Ok(Flow::End);
            }
            let key: Row = if self.places.is_empty() {
                out.clone()
            } else {
                self.places
                    .iter()
                    .filter_map(|place| out.get(*place))
                    .cloned()
                    .collect()
            };
            if !self.seen.contains(&key) {
                self.bytes += rt.keep(&key)?;
                self.seen.insert(key);
                return Ok(Flow::Row);
            }
            if rt.tick()? {
                return Ok(Flow::Yield);
            }
        }
    }

    fn rescan(&mut self, rt: &Runtime<'_>, outer: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        rt.forget(std::mem::take(&mut self.bytes));
        self.seen.clear();
        self.input.rescan(rt, outer, param)
    }
}

/// INTERSECT and EXCEPT.
pub(super) struct SetOperation {
    op: SetOp,
    all: bool,
    left: Box<dyn Source>,
    right: Box<dyn Source>,
    /// How often each row came from the right.
    counts: HashMap<Row, u64>,
    given: HashSet<Row>,
    loaded: bool,
    row: Row,
    bytes: usize,
}

impl SetOperation {
    pub(super) fn new(op: SetOp, all: bool, left: Box<dyn Source>, right: Box<dyn Source>) -> Self {
        SetOperation {
            op,
            all,
            left,
            right,
            counts: HashMap::new(),
            given: HashSet::new(),
            loaded: false,
            row: Vec::new(),
            bytes: 0,
        }
    }

    /// Does a row of the left side belong to the result?
    fn wanted(&mut self, row: &Row) -> bool {
        let intersect = self.op == SetOp::Intersect;
        if self.all {
            return match self.counts.get_mut(row) {
                Some(count) if *count > 0 => {
                    *count -= 1;
                    intersect
                }
                _ => !intersect,
            };
        }
        self.counts.contains_key(row) == intersect && self.given.insert(row.clone())
    }
}

impl Source for SetOperation {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        while !self.loaded {
            if pull!(self.right.next(rt, outer, &mut self.row)) {
                self.bytes += rt.keep(&self.row)?;
                *self.counts.entry(std::mem::take(&mut self.row)).or_insert(0) += 1;
            } else {
                self.loaded = true;
            }
        }
        loop {
            if !pull!(self.left.next(rt, outer, out)) {
                return Ok(Flow::End);
            }
            if self.wanted(out) {
                if !self.all {
                    self.bytes += rt.keep(out)?;
                }
                return Ok(Flow::Row);
            }
            if rt.tick()? {
                return Ok(Flow::Yield);
            }
        }
    }

    fn rescan(&mut self, rt: &Runtime<'_>, outer: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        rt.forget(std::mem::take(&mut self.bytes));
        self.counts.clear();
        self.given.clear();
        self.loaded = false;
        self.left.rescan(rt, outer, param)?;
        self.right.rescan(rt, outer, param)
    }
}
