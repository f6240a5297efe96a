//! Joins: nested loops and hash joins.

use hashbrown::HashMap;
use towline_types::Datum;

use super::{Flow, Row, Runtime, Source, pull};
use crate::error::SqlError;
use crate::expr::ScalarExpr;
use crate::plan::JoinType;

/// For each left row, the right side: begun anew over that row if it depends on it, else kept in memory.
pub(super) struct NestedLoop {
    join: JoinType,
    left: Box<dyn Source>,
    right: Box<dyn Source>,
    condition: Vec<ScalarExpr>,
    widths: (usize, usize),
    parametric: bool,
    /// The right side's rows, once read, when they do not depend on the left row; and which of them met a partner.
    kept: Vec<(Row, bool)>,
    complete: bool,
    left_row: Row,
    right_row: Row,
    has_left: bool,
    matched: bool,
    at: usize,
    /// FULL: giving the right rows that met no partner.
    leftover: Option<usize>,
    bytes: usize,
}

impl NestedLoop {
    pub(super) fn new(
        join: JoinType,
        left: Box<dyn Source>,
        right: Box<dyn Source>,
        condition: Vec<ScalarExpr>,
        widths: (usize, usize),
        parametric: bool,
    ) -> Self {
        NestedLoop {
            join,
            left,
            right,
            condition,
            widths,
            parametric,
            kept: Vec::new(),
            complete: false,
            left_row: Vec::new(),
            right_row: Vec::new(),
            has_left: false,
            matched: false,
            at: 0,
            leftover: None,
            bytes: 0,
        }
    }

    /// Puts left row and a right row (or NULLs) into `out`.
    fn combine(&self, right: Option<&[Datum]>, out: &mut Row) {
        out.clear();
        out.extend_from_slice(&self.left_row);
        match right {
            Some(right) => out.extend_from_slice(right),
            None => out.extend(std::iter::repeat_n(Datum::Null, self.widths.1)),
        }
    }
}

impl Source for NestedLoop {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        // The right side is read once when it depends on nothing.
        while !self.parametric && !self.complete {
            if pull!(self.right.next(rt, outer, &mut self.right_row)) {
                self.bytes += rt.keep(&self.right_row)?;
                self.kept.push((std::mem::take(&mut self.right_row), false));
                if rt.tick()? {
                    return Ok(Flow::Yield);
                }
            } else {
                self.complete = true;
            }
        }
        loop {
            if let Some(at) = self.leftover {
                let Some((row, met)) = self.kept.get(at) else {
                    return Ok(Flow::End);
                };
                let give = !met;
                if give {
                    out.clear();
                    out.extend(std::iter::repeat_n(Datum::Null, self.widths.0));
                    out.extend_from_slice(row);
                }
                self.leftover = Some(at + 1);
                if give {
                    return Ok(Flow::Row);
                }
                continue;
            }
            if !self.has_left {
                if !pull!(self.left.next(rt, outer, &mut self.left_row)) {
                    if self.join == JoinType::Full {
                        self.leftover = Some(0);
                        continue;
                    }
                    return Ok(Flow::End);
                }
                self.has_left = true;
                self.matched = false;
                self.at = 0;
                if self.parametric {
                    self.right.rescan(rt, outer, &self.left_row)?;
                }
            }
            let more = if self.parametric {
                let more = pull!(self.right.next(rt, outer, &mut self.right_row));
                if more {
                    self.combine(Some(&self.right_row), out);
                }
                more
            } else {
                let more = match self.kept.get(self.at) {
                    Some((row, _)) => {
                        self.combine(Some(row), out);
                        true
                    }
                    None => false,
                };
                self.at += 1;
                more
            };
            if more {
                if rt.holds(&self.condition, out, outer)? {
                    self.matched = true;
                    if !self.parametric
                        && let Some((_, met)) = self.kept.get_mut(self.at - 1)
                    {
                        *met = true;
                    }
                    return Ok(Flow::Row);
                }
                if rt.tick()? {
                    return Ok(Flow::Yield);
                }
                continue;
            }
            self.has_left = false;
            if !self.matched && matches!(self.join, JoinType::Left | JoinType::Full) {
                self.combine(None, out);
                return Ok(Flow::Row);
            }
        }
    }

    fn rescan(&mut self, rt: &Runtime<'_>, outer: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        rt.forget(std::mem::take(&mut self.bytes));
        self.has_left = false;
        self.leftover = None;
        self.kept.clear();
        self.complete = false;
        self.left.rescan(rt, outer, param)?;
        if self.parametric {
            Ok(())
        } else {
            self.right.rescan(rt, outer, param)
        }
    }
}

/// The right side in a hash table, probed with the left side's keys.
pub(super) struct HashJoin {
    join: JoinType,
    left: Box<dyn Source>,
    right: Box<dyn Source>,
    left_keys: Vec<ScalarExpr>,
    right_keys: Vec<ScalarExpr>,
    condition: Vec<ScalarExpr>,
    widths: (usize, usize),
    /// Rows of the right side, with whether they met a partner, chained by key.
    rows: Vec<(Row, bool, usize)>,
    heads: HashMap<Row, usize>,
    loaded: bool,
    left_row: Row,
    key: Row,
    row: Row,
    has_left: bool,
    matched: bool,
    next: usize,
    leftover: Option<usize>,
    bytes: usize,
}

/// The end of a chain.
const NONE: usize = usize::MAX;

impl HashJoin {
    pub(super) fn new(
        join: JoinType,
        left: Box<dyn Source>,
        right: Box<dyn Source>,
        left_keys: Vec<ScalarExpr>,
        right_keys: Vec<ScalarExpr>,
        condition: Vec<ScalarExpr>,
        widths: (usize, usize),
    ) -> Self {
        HashJoin {
            join,
            left,
            right,
            left_keys,
            right_keys,
            condition,
            widths,
            rows: Vec::new(),
            heads: HashMap::new(),
            loaded: false,
            left_row: Vec::new(),
            key: Vec::new(),
            row: Vec::new(),
            has_left: false,
            matched: false,
            next: NONE,
            leftover: None,
            bytes: 0,
        }
    }

    /// Computes a key; false if a part is NULL, which equals nothing.
    fn key_of(
        keys: &[ScalarExpr],
        row: &[Datum],
        key: &mut Row,
        rt: &Runtime<'_>,
        outer: &[Datum],
    ) -> Result<bool, SqlError> {
        key.clear();
        let cx = rt.eval(outer);
        for part in keys {
            let value = part.eval(row, &cx)?;
            if value.is_null() {
                return Ok(false);
            }
            key.push(value);
        }
        Ok(true)
    }

    fn insert(&mut self, rt: &Runtime<'_>, outer: &[Datum]) -> Result<(), SqlError> {
        let usable = Self::key_of(&self.right_keys, &self.row, &mut self.key, rt, outer)?;
        if !usable && self.join != JoinType::Full {
            return Ok(());
        }
        self.bytes += rt.keep(&self.row)?;
        let number = self.rows.len();
        let mut chain = NONE;
        if usable {
            match self.heads.get_mut(&self.key) {
                Some(head) => chain = std::mem::replace(head, number),
                None => {
                    self.bytes += rt.keep(&self.key)?;
                    self.heads.insert(self.key.clone(), number);
                }
            }
        }
        self.rows.push((std::mem::take(&mut self.row), false, chain));
        Ok(())
    }
}

impl Source for HashJoin {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        while !self.loaded {
            if pull!(self.right.next(rt, outer, &mut self.row)) {
                self.insert(rt, outer)?;
                if rt.tick()? {
                    return Ok(Flow::Yield);
                }
            } else {
                self.loaded = true;
            }
        }
        loop {
            if let Some(at) = self.leftover {
                let Some((row, met, _)) = self.rows.get(at) else {
                    return Ok(Flow::End);
                };
                self.leftover = Some(at + 1);
                if !met {
                    out.clear();
                    out.extend(std::iter::repeat_n(Datum::Null, self.widths.0));
                    out.extend_from_slice(row);
                    return Ok(Flow::Row);
                }
                continue;
            }
            if !self.has_left {
                if !pull!(self.left.next(rt, outer, &mut self.left_row)) {
                    if self.join == JoinType::Full {
                        self.leftover = Some(0);
                        continue;
                    }
                    return Ok(Flow::End);
                }
                self.has_left = true;
                self.matched = false;
                let usable = Self::key_of(&self.left_keys, &self.left_row, &mut self.key, rt, outer)?;
                self.next = if usable {
                    self.heads.get(&self.key).copied().unwrap_or(NONE)
                } else {
                    NONE
                };
            }
            if let Some((row, met, chain)) = self.rows.get_mut(self.next) {
                self.next = *chain;
                out.clear();
                out.extend_from_slice(&self.left_row);
                out.extend_from_slice(row);
                if rt.holds(&self.condition, out, outer)? {
                    *met = true;
                    self.matched = true;
                    return Ok(Flow::Row);
                }
                if rt.tick()? {
                    return Ok(Flow::Yield);
                }
                continue;
            }
            self.has_left = false;
            if !self.matched && matches!(self.join, JoinType::Left | JoinType::Full) {
                out.clear();
                out.extend_from_slice(&self.left_row);
                out.extend(std::iter::repeat_n(Datum::Null, self.widths.1));
                return Ok(Flow::Row);
            }
            if rt.tick()? {
                return Ok(Flow::Yield);
            }
        }
    }

    fn rescan(&mut self, rt: &Runtime<'_>, outer: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        rt.forget(std::mem::take(&mut self.bytes));
        self.rows.clear();
        self.heads.clear();
        self.loaded = false;
        self.has_left = false;
        self.leftover = None;
        self.left.rescan(rt, outer, param)?;
        self.right.rescan(rt, outer, param)
    }
}
