//! SELECT, VALUES, set operations, FROM, ORDER BY.

use towline_base::SqlState;
use towline_types::cast::CastContext;
use towline_types::{ColumnType, TypeId};

use super::Binder;
use super::expr::pos_of;
use super::names::column_name;
use super::scope::{Clause, Level, Visible};
use super::tree::{Body, Distinct, OutputColumn, Query, Select};
use crate::error::SqlError;
use crate::expr::ScalarExpr;
use crate::parse::ast::{self, Expr, Literal, Target};

impl Binder<'_> {
    /// Binds a query as a level of its own; gives it with what it needs from outside. `visible`: the enclosing levels
    /// are in reach (they are not for a WITH entry or a derived table beside others).
    pub(super) fn subquery(
        &mut self,
        query: &ast::Query,
        visible: bool,
    ) -> Result<(Query, Vec<ScalarExpr>), SqlError> {
        let _ = visible;
        let level = Level::new(Clause::Target);
        self.levels.push(level);
        let result = self.deeper(|binder| binder.query(query));
        let level = self.levels.pop();
        let outer = level.map(|level| level.outer).unwrap_or_default();
        result.map(|query| (query, outer))
    }

    /// A derived table: sees the enclosing levels but not its siblings, unless LATERAL.
    pub(super) fn derived(
        &mut self,
        query: &ast::Query,
        lateral: bool,
    ) -> Result<(Query, Vec<ScalarExpr>), SqlError> {
        if lateral {
            return self.subquery(query, true);
        }
        let scope = std::mem::take(&mut self.level().scope);
        let result = self.subquery(query, true);
        self.level().scope = scope;
        result
    }

    fn query(&mut self, query: &ast::Query) -> Result<Query, SqlError> {
        let mark = self.push_common(&query.with)?;
        let result = match &query.body {
            ast::Body::Select(select) => self.select(select, query),
            ast::Body::Values(rows, _) => self.values(rows, query),
            ast::Body::Set {
                op, all, left, right, ..
            } => self.set_operation(*op, *all, left, right, query),
        };
        self.common.truncate(mark);
        result
    }

    pub(super) fn limits(
        &mut self,
        query: &ast::Query,
    ) -> Result<(Option<ScalarExpr>, Option<ScalarExpr>), SqlError> {
        let mut bound = [None, None];
        for (slot, (expr, clause)) in bound
            .iter_mut()
            .zip([(&query.limit, Clause::Limit), (&query.offset, Clause::Offset)])
        {
            let Some(expr) = expr else { continue };
            if matches!(expr, Expr::Literal(Literal::Null, _)) {
                continue;
            }
            // No column of this query may be named.
            let scope = std::mem::take(&mut self.level().scope);
            self.level().clause = clause;
            let value = self.expr(expr);
            self.level().scope = scope;
            let value = value.map_err(|error| {
                if error.sqlstate() == SqlState::UNDEFINED_COLUMN {
                    self.error(
                        pos_of(expr),
                        SqlState::INVALID_COLUMN_REFERENCE,
                        format!("argument of {} must not contain variables", clause.name()),
                    )
                } else {
                    error
                }
            })?;
            let ty = value.ty();
            let value = self
                .build()
                .coerce(value, ColumnType::new(TypeId::Int8), CastContext::Assignment);
            let value = value.map_err(|error| self.at(error, pos_of(expr)))?;
            *slot = Some(value.ok_or_else(|| {
                self.error(
                    pos_of(expr),
                    SqlState::DATATYPE_MISMATCH,
                    format!(
                        "argument of {} must be type bigint, not type {}",
                        clause.name(),
                        ty.id.sql_name()
                    ),
                )
            })?);
        }
        let [limit, offset] = bound;
        Ok((limit, offset))
    }

    fn select(&mut self, select: &ast::Select, query: &ast::Query) -> Result<Query, SqlError> {
        let keep_unknown = std::mem::take(&mut self.keep_unknown);
        let result = self.select_inner(select, query, keep_unknown > 0);
        self.keep_unknown = keep_unknown;
        result
    }

    fn select_inner(
        &mut self,
        select: &ast::Select,
        query: &ast::Query,
        keep_unknown: bool,
    ) -> Result<Query, SqlError> {
        let from = self.bind_from(&select.from)?;
        // The select list comes first: of several errors, PostgreSQL reports the one there.
        let (mut targets, mut columns) = self.targets(&select.targets, Clause::Target)?;
        let filter = match &select.filter {
            Some(filter) => self.condition(filter, Clause::Where)?,
            None => Vec::new(),
        };
        let mut group_by = self.group_keys(&select.group_by, &select.targets, &targets, &columns)?;
        let mut having = match &select.having {
            Some(having) => self.condition(having, Clause::Having)?,
            None => Vec::new(),
        };
        let mut order_by = self.sort_keys(&query.order_by, &mut targets, &columns, Clause::OrderBy)?;
        let distinct = self.distinct(select, &mut targets, &columns)?;
        for (index, target) in targets.iter_mut().enumerate() {
            if keep_unknown && index < columns.len() && matches!(target, ScalarExpr::Const(..)) {
                continue;
            }
            let value = std::mem::replace(target, ScalarExpr::null());
            *target = self.build().settle(value)?;
            if let Some(column) = columns.get_mut(index) {
                column.ty = target.ty();
            }
        }
        let grouped =
            !select.group_by.is_empty() || !having.is_empty() || !self.level().aggregates.is_empty();
        let (limit, offset) = self.limits(query)?;
        if grouped {
            for expr in targets
                .iter_mut()
                .chain(&mut having)
                .chain(order_by.iter_mut().map(|key| &mut key.expr))
            {
                self.group_form(expr, &mut group_by)?;
            }
            let keys = group_by.len();
            for expr in targets
                .iter_mut()
                .chain(&mut having)
                .chain(order_by.iter_mut().map(|key| &mut key.expr))
            {
                self.place_aggregates(expr, keys);
            }
            let mut sets = std::mem::take(&mut self.level().sets);
            for set in &mut sets {
                for arg in &mut set.args {
                    self.group_form(arg, &mut group_by)?;
                    self.place_aggregates(arg, keys);
                }
            }
            self.level().sets = sets;
        }
        if matches!(distinct, Some(Distinct::All))
            && let Some((item, _)) = query
                .order_by
                .iter()
                .zip(&order_by)
                .find(|(_, key)| key.target.is_none_or(|at| at >= columns.len()))
        {
            return Err(self.error(
                pos_of(&item.expr),
                SqlState::INVALID_COLUMN_REFERENCE,
                "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
            ));
        }
        if let Some(Distinct::On(keys)) = &distinct {
            self.distinct_on_leads(select, keys, &order_by)?;
        }
        let locking = self.row_locks(query, grouped, distinct.is_some())?;
        let level = self.level();
        let select = Select {
            tables: std::mem::take(&mut level.tables),
            from,
            filter,
            grouped,
            group_by,
            aggregates: std::mem::take(&mut level.aggregates),
            having,
            sets: std::mem::take(&mut level.sets),
            targets,
            distinct,
            locking,
        };
        Ok(Query {
            body: Body::Select(Box::new(select)),
            columns,
            order_by,
            limit,
            offset,
        })
    }

    /// A select list or RETURNING.
    pub(super) fn targets(
        &mut self,
        list: &[Target],
        clause: Clause,
    ) -> Result<(Vec<ScalarExpr>, Vec<OutputColumn>), SqlError> {
        let mut all_targets = Vec::new();
        let mut all_columns: Vec<OutputColumn> = Vec::new();
        for target in list {
            self.level().clause = clause;
            match target {
                Target::Star(pos) => {
                    let visible = self.level().scope.star.clone();
                    if self.level().scope.items.is_empty() {
                        return Err(self.error(
                            *pos,
                            SqlState::SYNTAX_ERROR,
                            "SELECT * with no tables specified is not valid",
                        ));
                    }
                    self.star_targets(visible, *pos, &mut all_targets, &mut all_columns);
                }
                Target::QualifiedStar(name) => {
                    let visible = self.star_of(name)?;
                    self.star_targets(visible, name[0].pos, &mut all_targets, &mut all_columns);
                }
                Target::Expr(written, alias) => {
                    let expr = self.expr(written)?;
                    let name = alias
                        .as_ref()
                        .map_or_else(|| column_name(written), |alias| alias.text.clone());
                    let origin = self.origin(&expr);
                    all_columns.push(OutputColumn {
                        name,
                        ty: expr.ty(),
                        origin,
                    });
                    all_targets.push(expr);
                }
            }
        }
        if all_targets.len() > 1664 {
            return Err(SqlError::new(
                SqlState::TOO_MANY_COLUMNS,
                "target lists can have at most 1664 entries",
            ));
        }
        Ok((all_targets, all_columns))
    }

    fn star_targets(
        &mut self,
        visible: Vec<Visible>,
        pos: u32,
        targets: &mut Vec<ScalarExpr>,
        columns: &mut Vec<OutputColumn>,
    ) {
        for column in visible {
            if let ScalarExpr::Column { index, .. } = column.expr {
                self.level().named.push((index, pos));
            }
            columns.push(OutputColumn {
                name: column.name,
                ty: column.expr.ty(),
                origin: column.origin,
            });
            targets.push(column.expr);
        }
    }

    fn origin(&mut self, expr: &ScalarExpr) -> (u32, i16) {
        let ScalarExpr::Column { index, .. } = expr else {
            return (0, 0);
        };
        let level = self.level();
        level
            .tables
            .iter()
            .find(|entry| (entry.base..entry.base + entry.width()).contains(index))
            .and_then(|entry| entry.columns.get(index - entry.base))
            .map_or((0, 0), |column| column.origin)
    }
}

/// Where a column of a query is written.
pub(super) fn target_pos(query: &ast::Query, index: usize) -> u32 {
    match &query.body {
        ast::Body::Select(select) => match select.targets.get(index).or(select.targets.first()) {
            Some(Target::Expr(expr, _)) => pos_of(expr),
            Some(Target::Star(pos)) => *pos,
            Some(Target::QualifiedStar(name)) => name.first().map_or(query.pos, |name| name.pos),
            None => query.pos,
        },
        ast::Body::Values(rows, pos) => rows.first().and_then(|row| row.get(index)).map_or(*pos, pos_of),
        ast::Body::Set { left, .. } => target_pos(left, index),
    }
}
