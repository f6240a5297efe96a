//! VALUES and set operations: columns whose type every row or side decides together.

use towline_base::SqlState;
use towline_types::cast::CastContext;
use towline_types::{ColumnType, TypeId};

use super::Binder;
use super::expr::pos_of;
use super::scope::Clause;
use super::select::target_pos;
use super::tree::{Body, OutputColumn, Query, SortKey, Subquery};
use crate::error::SqlError;
use crate::expr::{ScalarExpr, first_misfit};
use crate::parse::ast::{self, Expr, Literal};

impl Binder<'_> {
    pub(super) fn values(&mut self, rows: &[Vec<Expr>], query: &ast::Query) -> Result<Query, SqlError> {
        if let Some(locking) = query.locking.first() {
            return Err(self.error(
                locking.pos,
                SqlState::FEATURE_NOT_SUPPORTED,
                "FOR UPDATE cannot be applied to VALUES",
            ));
        }
        self.level().clause = Clause::Values;
        let width = rows.first().map_or(0, Vec::len);
        let mut bound: Vec<Vec<ScalarExpr>> = Vec::with_capacity(rows.len());
        for row in rows {
            if row.len() != width {
                let pos = row.first().map_or(0, pos_of);
                return Err(self.error(
                    pos,
                    SqlState::SYNTAX_ERROR,
                    "VALUES lists must all be the same length",
                ));
            }
            let mut values = Vec::with_capacity(width);
            for expr in row {
                values.push(self.expr(expr)?);
            }
            bound.push(values);
        }
        let mut columns = Vec::with_capacity(width);
        for column in 0..width {
            let exprs: Vec<&ScalarExpr> = bound.iter().map(|row| &row[column]).collect();
            let ty = self.build().common_type(&exprs, "VALUES");
            let misfit = first_misfit(exprs.iter().map(|expr| expr.ty().id)).unwrap_or(0);
            let pos = rows.get(misfit).map_or(0, |row| pos_of(&row[column]));
            let ty = ty.map_err(|error| self.at(error, pos))?;
            let shared = exprs
                .first()
                .map(|expr| expr.ty())
                .filter(|first| first.id == ty && exprs.iter().all(|expr| expr.ty() == *first));
            let ty = shared.unwrap_or(ColumnType::new(ty));
            for (row, written) in bound.iter_mut().zip(rows) {
                let value = std::mem::replace(&mut row[column], ScalarExpr::null());
                row[column] = self.coerced(value, ty, pos_of(&written[column]), "VALUES")?;
            }
            columns.push(OutputColumn {
                name: format!("column{}", column + 1),
                ty,
                origin: (0, 0),
            });
        }
        self.finish_plain(Body::Values(bound), columns, query)
    }

    fn coerced(
        &mut self,
        value: ScalarExpr,
        ty: ColumnType,
        pos: u32,
        what: &str,
    ) -> Result<ScalarExpr, SqlError> {
        let from = value.ty();
        let result = self.build().coerce(value, ty, CastContext::Implicit);
        match result.map_err(|error| self.at(error, pos))? {
            Some(value) => Ok(value),
            None => Err(self.error(
                pos,
                SqlState::CANNOT_COERCE,
                format!(
                    "{what} could not convert type {} to {}",
                    from.id.sql_name(),
                    ty.id.sql_name()
                ),
            )),
        }
    }

    /// ORDER BY, LIMIT of VALUES and set operations: only result columns can be named.
    fn finish_plain(
        &mut self,
        body: Body,
        columns: Vec<OutputColumn>,
        query: &ast::Query,
    ) -> Result<Query, SqlError> {
        let mut order_by = Vec::with_capacity(query.order_by.len());
        for item in &query.order_by {
            let found = match &item.expr {
                Expr::Literal(Literal::Int(text), pos) => {
                    Some(self.position(text, columns.len(), *pos, "ORDER BY")?)
                }
                Expr::Column(name) if name.len() == 1 => {
                    columns.iter().position(|column| column.name == name[0].text)
                }
                _ => None,
            };
            let Some(target) = found else {
                let simple = matches!(&item.expr, Expr::Column(name) if name.len() == 1);
                if let Expr::Column(name) = &item.expr
                    && simple
                    && !matches!(body, Body::Set { .. })
                {
                    return Err(self.error(
                        name[0].pos,
                        SqlState::UNDEFINED_COLUMN,
                        format!("column \"{}\" does not exist", name[0].text),
                    ));
                }
                return Err(self
                    .error(
                        pos_of(&item.expr),
                        SqlState::FEATURE_NOT_SUPPORTED,
                        "invalid UNION/INTERSECT/EXCEPT ORDER BY clause",
                    )
                    .with_detail("Only result column names can be used, not expressions or functions.")
                    .with_hint(
                        "Add the expression/function to every SELECT, or move the UNION into a FROM clause.",
                    ));
            };
            order_by.push(SortKey {
                expr: ScalarExpr::Column {
                    index: target,
                    ty: columns[target].ty,
                },
                target: Some(target),
                descending: item.descending,
                nulls_first: item.nulls_first,
            });
        }
        let (limit, offset) = self.limits(query)?;
        Ok(Query {
            body,
            columns,
            order_by,
            limit,
            offset,
        })
    }

    pub(super) fn set_operation(
        &mut self,
        op: ast::SetOp,
        all: bool,
        left: &ast::Query,
        right: &ast::Query,
        query: &ast::Query,
    ) -> Result<Query, SqlError> {
        let word = match op {
            ast::SetOp::Union => "UNION",
            ast::SetOp::Intersect => "INTERSECT",
            ast::SetOp::Except => "EXCEPT",
        };
        if let Some(locking) = query.locking.first() {
            return Err(self.error(
                locking.pos,
                SqlState::FEATURE_NOT_SUPPORTED,
                "FOR UPDATE is not allowed with UNION/INTERSECT/EXCEPT",
            ));
        }
        let (mut left_query, left_outer) = self.unsettled(left)?;
        let (mut right_query, right_outer) = self.unsettled(right)?;
        if left_query.columns.len() != right_query.columns.len() {
            return Err(self.error(
                target_pos(right, 0),
                SqlState::SYNTAX_ERROR,
                format!("each {word} query must have the same number of columns"),
            ));
        }
        let mut columns = Vec::with_capacity(left_query.columns.len());
        for index in 0..left_query.columns.len() {
            let sides = [left_query.columns[index].ty, right_query.columns[index].ty];
            let as_exprs = sides.map(|ty| side_expr(index, ty));
            let common = self.build().common_type(&[&as_exprs[0], &as_exprs[1]], word);
            let common = common.map_err(|error| self.at(error, target_pos(right, index)))?;
            let ty = if sides[0] == sides[1] && sides[0].id == common {
                sides[0]
            } else {
                ColumnType::new(common)
            };
            self.cast_column(&mut left_query, index, ty, target_pos(left, index))?;
            self.cast_column(&mut right_query, index, ty, target_pos(right, index))?;
            columns.push(OutputColumn {
                name: left_query.columns[index].name.clone(),
                ty,
                origin: (0, 0),
            });
        }
        let body = Body::Set {
            op,
            all,
            left: Box::new(Subquery {
                query: left_query,
                outer: left_outer,
                cast: None,
            }),
            right: Box::new(Subquery {
                query: right_query,
                outer: right_outer,
                cast: None,
            }),
        };
        self.finish_plain(body, columns, query)
    }

    /// A side of a set operation, whose literals wait for the other side to decide their type.
    fn unsettled(&mut self, query: &ast::Query) -> Result<(Query, Vec<ScalarExpr>), SqlError> {
        self.keep_unknown += 1;
        let result = self.subquery(query, true);
        self.keep_unknown -= 1;
        result
    }

    /// Makes column `index` of a query have this type.
    fn cast_column(
        &mut self,
        query: &mut Query,
        index: usize,
        ty: ColumnType,
        pos: u32,
    ) -> Result<(), SqlError> {
        if query.columns[index].ty == ty {
            return Ok(());
        }
        match &mut query.body {
            Body::Select(select) => {
                let value = std::mem::replace(&mut select.targets[index], ScalarExpr::null());
                select.targets[index] = self.coerced(value, ty, pos, "UNION")?;
            }
            Body::Values(rows) => {
                for row in rows {
                    let value = std::mem::replace(&mut row[index], ScalarExpr::null());
                    row[index] = self.coerced(value, ty, pos, "UNION")?;
                }
            }
            Body::Set { left, right, .. } => {
                self.cast_column(&mut left.query, index, ty, pos)?;
                self.cast_column(&mut right.query, index, ty, pos)?;
            }
        }
        query.columns[index].ty = ty;
        Ok(())
    }
}

/// A stand-in of a type, for the choice of a common one.
fn side_expr(index: usize, ty: ColumnType) -> ScalarExpr {
    if ty.id == TypeId::Unknown {
        ScalarExpr::null()
    } else {
        ScalarExpr::Column { index, ty }
    }
}
