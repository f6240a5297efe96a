//! Comparisons of rows, and of values or rows with what a query gives: `(a, b) < (c, d)`, IN, ANY, ALL.

use towline_base::SqlState;
use towline_types::{ColumnType, TypeId};

use super::Binder;
use super::tree::Subquery;
use crate::error::SqlError;
use crate::expr::ScalarExpr;
use crate::parse::ast::{self, Expr, Pos};

/// As many as PostgreSQL's tuples have.
const MAX_FIELDS: usize = 1664;

impl Binder<'_> {
    /// `(a, b) = (c, d)` field by field; the ordering operators by the first field that differs.
    pub(super) fn row_comparison(
        &mut self,
        op: &str,
        lefts: &[Expr],
        rights: &[Expr],
        pos: Pos,
    ) -> Result<ScalarExpr, SqlError> {
        if lefts.len() != rights.len() {
            return Err(self.error(
                pos,
                SqlState::SYNTAX_ERROR,
                "unequal number of entries in row expressions",
            ));
        }
        self.check_row(lefts.len(), pos)?;
        let pair = |binder: &mut Self, op: &str, left: &Expr, right: &Expr| {
            let (bound_left, bound_right) = (binder.expr(left)?, binder.expr(right)?);
            let result = binder.build().binary(op, bound_left, bound_right);
            binder.placed(result, pos, &[left, right])
        };
        match op {
            "=" | "<>" => {
                let mut parts = Vec::with_capacity(lefts.len());
                for (left, right) in lefts.iter().zip(rights) {
                    parts.push(pair(self, op, left, right)?);
                }
                if op == "=" {
                    self.build().and(parts)
                } else {
                    self.build().or(parts)
                }
            }
            "<" | "<=" | ">" | ">=" => {
                // (a, b) < (c, d) is a < c or (a = c and b < d).
                let strict = op.trim_end_matches('=');
                let mut result: Option<ScalarExpr> = None;
                for (index, (left, right)) in lefts.iter().zip(rights).enumerate().rev() {
                    let last = index + 1 == lefts.len();
                    let here = pair(self, if last { op } else { strict }, left, right)?;
                    result = Some(match result {
                        None => here,
                        Some(rest) => {
                            // Both are bound once more.
                            self.copies_of(&here, 1)?;
                            let same = pair(self, "=", left, right)?;
                            let both = self.build().and(vec![same, rest])?;
                            self.build().or(vec![here, both])?
                        }
                    });
                }
                result.ok_or_else(|| {
                    self.error(
                        pos,
                        SqlState::FEATURE_NOT_SUPPORTED,
                        "cannot compare rows of zero length",
                    )
                })
            }
            _ => self.unsupported(pos, "this operator between rows"),
        }
    }

    /// 54011 for a row with more fields than a tuple may have.
    pub(super) fn check_row(&self, fields: usize, pos: Pos) -> Result<(), SqlError> {
        if fields > MAX_FIELDS {
            return Err(self.error(
                pos,
                SqlState::TOO_MANY_COLUMNS,
                format!("ROW expressions can have at most {MAX_FIELDS} entries"),
            ));
        }
        Ok(())
    }

    /// Binds a query of an expression and gives its slot.
    pub(super) fn nested_query(&mut self, query: &ast::Query) -> Result<usize, SqlError> {
        let (query, outer) = self.subquery(query, true)?;
        self.subqueries.push(Subquery {
            query,
            outer,
            cast: None,
        });
        Ok(self.subqueries.len() - 1)
    }

    pub(super) fn single_column(&mut self, slot: usize, pos: Pos) -> Result<ColumnType, SqlError> {
        match self.subqueries[slot].query.columns.as_slice() {
            [column] => Ok(column.ty),
            _ => Err(self.error(
                pos,
                SqlState::SYNTAX_ERROR,
                "subquery must return only one column",
            )),
        }
    }

    /// `arg op ANY/ALL (query)` and IN.
    pub(super) fn quantified(
        &mut self,
        arg: &Expr,
        op: &str,
        all: bool,
        query: &ast::Query,
        negated: bool,
        pos: Pos,
    ) -> Result<ScalarExpr, SqlError> {
        if let Expr::Row(parts, _) = arg {
            return self.row_in(parts, op, all, query, negated, pos);
        }
        let bound = self.expr(arg)?;
        let slot = self.nested_query(query)?;
        let columns = self.subqueries[slot].query.columns.len();
        if columns != 1 {
            let word = if columns == 0 { "no" } else { "too many" };
            return Err(self.error(
                pos,
                SqlState::SYNTAX_ERROR,
                format!("subquery has {word} columns"),
            ));
        }
        let column = self.subqueries[slot].query.columns[0].ty;
        let result = self.build().any_all_query(bound, op, all, slot, column);
        let (expr, cast) = self.placed(result, pos, &[arg])?;
        self.subqueries[slot].cast = cast;
        if negated { self.build().not(expr) } else { Ok(expr) }
    }

    /// `(a, b) IN (query)`: rows are compared as records.
    pub(super) fn row_in(
        &mut self,
        parts: &[Expr],
        op: &str,
        all: bool,
        query: &ast::Query,
        negated: bool,
        pos: Pos,
    ) -> Result<ScalarExpr, SqlError> {
        let bound = self.boxed_list(parts)?;
        let slot = self.nested_query(query)?;
        if self.subqueries[slot].query.columns.len() != parts.len() {
            let word = if self.subqueries[slot].query.columns.len() < parts.len() {
                "few"
            } else {
                "many"
            };
            return Err(self.error(
                pos,
                SqlState::SYNTAX_ERROR,
                format!("subquery has too {word} columns"),
            ));
        }
        let types: Vec<ColumnType> = self.subqueries[slot]
            .query
            .columns
            .iter()
            .map(|column| column.ty)
            .collect();
        let mut items = Vec::with_capacity(bound.len());
        for (item, ty) in bound.into_iter().zip(types) {
            let result = self.build().coerce(
                item,
                ColumnType::new(ty.id),
                towline_types::cast::CastContext::Implicit,
            );
            match self.placed(result, pos, &[])? {
                Some(item) => items.push(item),
                None => return self.unsupported(pos, "this comparison of rows"),
            }
        }
        let result = self.build().any_all_query(
            ScalarExpr::Row(items),
            op,
            all,
            slot,
            ColumnType::new(TypeId::Record),
        );
        let (expr, _) = self.placed(result, pos, &[])?;
        if negated { self.build().not(expr) } else { Ok(expr) }
    }
}
