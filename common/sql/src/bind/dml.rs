//! INSERT, UPDATE, DELETE.

use std::sync::Arc;

use towline_access::catalog::{RelationKind, Table};
use towline_base::SqlState;
use towline_types::ColumnType;

use super::expr::pos_of;
use super::scope::{Clause, Level};
use super::tree::{From, Insert, InsertSource, Modify, OutputColumn, Select};
use super::{BindContext, Binder, bind_scalar};
use crate::error::SqlError;
use crate::expr::ScalarExpr;
use crate::parse::ast::{self, Assignment, Expr, Name};
use crate::parse::lex::char_position;

impl Binder<'_> {
    fn target_table(&mut self, name: &[Name], verb: &str) -> Result<Arc<Table>, SqlError> {
        let table = self.find_table(name)?;
        if table.kind == RelationKind::View {
            let doing = match verb {
                "insert" => "insert into",
                "update" => "update",
                _ => "delete from",
            };
            return Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot {doing} view \"{}\"", table.name),
            ));
        }
        if table.kind == RelationKind::Toast {
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("cannot change TOAST relation \"{}\"", table.name),
            ));
        }
        if table.is_system() {
            return Err(SqlError::denied(format!(
                "permission denied: \"{}\" is a system catalog",
                table.name
            )));
        }
        Ok(table)
    }

    /// The index (from 0) of a column to be assigned.
    fn assigned_column(&self, table: &Table, name: &Name) -> Result<usize, SqlError> {
        match table.column(&name.text) {
            Some(column) => Ok(usize::try_from(column.number - 1).unwrap_or(0)),
            None => Err(self.error(
                name.pos,
                SqlState::UNDEFINED_COLUMN,
                format!(
                    "column \"{}\" of relation \"{}\" does not exist",
                    name.text, table.name
                ),
            )),
        }
    }

    /// A column's default, NULL without one.
    fn default_of(&mut self, table: &Table, column: usize) -> Result<ScalarExpr, SqlError> {
        let default = column_default(table, column, self.cx)?;
        self.volatile |= default.volatility() == crate::expr::Volatility::Volatile;
        Ok(default)
    }

    pub(super) fn insert(&mut self, insert: &ast::Insert) -> Result<(Insert, Vec<OutputColumn>), SqlError> {
        let mark = self.push_common(&insert.with)?;
        let table = self.target_table(&insert.table, "insert")?;
        let mut columns = Vec::with_capacity(insert.columns.len());
        for name in &insert.columns {
            let column = self.assigned_column(&table, name)?;
            if columns.contains(&column) {
                return Err(self.error(
                    name.pos,
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{}\" specified more than once", name.text),
                ));
            }
            columns.push(column);
        }
        if insert.columns.is_empty() {
            columns.extend((0..table.columns.len()).filter(|index| !table.columns[*index].dropped));
        }
        let source = self.insert_source(insert, &table, &columns)?;
        let (returning, output) = self.insert_returning(insert, &table)?;
        self.common.truncate(mark);
        Ok((
            Insert {
                table,
                source,
                returning,
            },
            output,
        ))
    }

    fn insert_source(
        &mut self,
        insert: &ast::Insert,
        table: &Arc<Table>,
        columns: &[usize],
    ) -> Result<InsertSource, SqlError> {
        let Some(query) = &insert.source else {
            let row: Result<Vec<_>, _> = (0..table.columns.len())
                .map(|at| self.default_of(table, at))
                .collect();
            return Ok(InsertSource::Values(vec![row?]));
        };
        if let ast::Body::Values(rows, _) = &query.body
            && query.order_by.is_empty()
            && query.limit.is_none()
            && query.offset.is_none()
            && query.with.is_empty()
        {
            self.levels.push(Level::new(Clause::InsertValues));
            let result: Result<Vec<_>, _> = rows
                .iter()
                .map(|row| self.insert_row(row, insert, table, columns))
                .collect();
            self.levels.pop();
            return result.map(InsertSource::Values);
        }
        self.keep_unknown += 1;
        let bound = self.subquery(query, true);
        self.keep_unknown -= 1;
        let (query_bound, _) = bound?;
        let given = query_bound.columns.len();
        let extra = super::select::target_pos(query, columns.len());
        self.check_width(given, columns, insert, extra, None)?;
        let mut row = self.defaults_for(table, columns, given)?;
        for (index, column) in columns.iter().enumerate().take(given) {
            let from = &query_bound.columns[index];
            let name = table.columns[*column].name.to_string();
            let ty = table.columns[*column].column_type;
            // A literal of the select list takes the column's type.
            let literal = match &query_bound.body {
                super::tree::Body::Select(select) => match select.targets.get(index) {
                    Some(ScalarExpr::Const(value, _)) if from.ty.id == towline_types::TypeId::Unknown => {
                        Some(ScalarExpr::Const(value.clone(), from.ty))
                    }
                    _ => None,
                },
                _ => None,
            };
            let value = literal.unwrap_or(ScalarExpr::Column { index, ty: from.ty });
            let assigned = self.assigned(value, None, ty, &name);
            row[*column] =
                assigned.map_err(|error| self.at(error, super::select::target_pos(query, index)))?;
        }
        Ok(InsertSource::Query(Box::new(query_bound), row))
    }

    /// A full row of defaults where no value is given.
    fn defaults_for(
        &mut self,
        table: &Arc<Table>,
        columns: &[usize],
        given: usize,
    ) -> Result<Vec<ScalarExpr>, SqlError> {
        (0..table.columns.len())
            .map(|at| {
                if columns.iter().take(given).any(|column| *column == at) {
                    Ok(ScalarExpr::null())
                } else {
                    self.default_of(table, at)
                }
            })
            .collect()
    }

    fn check_width(
        &self,
        given: usize,
        columns: &[usize],
        insert: &ast::Insert,
        pos: u32,
        row: Option<&[Expr]>,
    ) -> Result<(), SqlError> {
        if given > columns.len() {
            let pos = row.and_then(|row| row.get(columns.len())).map_or(pos, pos_of);
            return Err(self.error(
                pos,
                SqlState::SYNTAX_ERROR,
                "INSERT has more expressions than target columns",
            ));
        }
        if given < columns.len() && !insert.columns.is_empty() {
            let pos = insert.columns.get(given).map_or(pos, |name| name.pos);
            return Err(self.error(
                pos,
                SqlState::SYNTAX_ERROR,
                "INSERT has more target columns than expressions",
            ));
        }
        Ok(())
    }

    fn insert_row(
        &mut self,
        written: &[Expr],
        insert: &ast::Insert,
        table: &Arc<Table>,
        columns: &[usize],
    ) -> Result<Vec<ScalarExpr>, SqlError> {
        self.check_width(written.len(), columns, insert, 0, Some(written))?;
        let mut row = self.defaults_for(table, columns, written.len())?;
        for (expr, column) in written.iter().zip(columns) {
            if matches!(expr, Expr::Default(_)) {
                row[*column] = self.default_of(table, *column)?;
                continue;
            }
            let bound = self.expr(expr)?;
            let (name, ty) = (
                table.columns[*column].name.to_string(),
                table.columns[*column].column_type,
            );
            row[*column] = self.assigned(bound, Some(expr), ty, &name)?;
        }
        Ok(row)
    }

    fn assignments(
        &mut self,
        set: &[Assignment],
        table: &Arc<Table>,
    ) -> Result<Vec<(usize, ScalarExpr)>, SqlError> {
        let mut bound: Vec<(usize, ScalarExpr)> = Vec::with_capacity(set.len());
        for assignment in set {
            self.level().clause = Clause::Set;
            let column = self.assigned_column(table, &assignment.column)?;
            if bound.iter().any(|(other, _)| *other == column) {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    format!(
                        "multiple assignments to same column \"{}\"",
                        assignment.column.text
                    ),
                ));
            }
            let value = if matches!(assignment.value, Expr::Default(_)) {
                self.default_of(table, column)?
            } else {
                let value = self.expr(&assignment.value)?;
                let (name, ty) = (
                    table.columns[column].name.to_string(),
                    table.columns[column].column_type,
                );
                self.assigned(value, Some(&assignment.value), ty, &name)?
            };
            bound.push((column, value));
        }
        Ok(bound)
    }

    fn insert_returning(
        &mut self,
        insert: &ast::Insert,
        table: &Arc<Table>,
    ) -> Result<(Vec<ScalarExpr>, Vec<OutputColumn>), SqlError> {
        if insert.returning.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        self.levels.push(Level::new(Clause::Returning));
        let scope = self.table_scope(table, insert.alias.as_ref().map(|alias| alias.text.as_str()));
        self.level().scope = scope;
        let result = self.returning(&insert.returning);
        self.levels.pop();
        result
    }

    fn returning(&mut self, list: &[ast::Target]) -> Result<(Vec<ScalarExpr>, Vec<OutputColumn>), SqlError> {
        if list.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let (mut targets, mut columns) = self.targets(list, Clause::Returning)?;
        for (target, column) in targets.iter_mut().zip(&mut columns) {
            let value = std::mem::replace(target, ScalarExpr::null());
            *target = self.build().settle(value)?;
            column.ty = target.ty();
        }
        Ok((targets, columns))
    }

    /// Entry 0 is the target; the other inputs follow.
    fn modify_from(
        &mut self,
        table: &Arc<Table>,
        alias: Option<&Name>,
        from: &[ast::FromItem],
        filter: Option<&Expr>,
    ) -> Result<(Vec<From>, Vec<ScalarExpr>), SqlError> {
        let target = self.table_scope(table, alias.map(|alias| alias.text.as_str()));
        let mut trees = vec![From::Table(0)];
        trees.extend(self.bind_from(from)?);
        // The target's own names come first.
        let others = std::mem::take(&mut self.level().scope);
        let mut scope = target;
        self.merge(&mut scope, others)?;
        self.level().scope = scope;
        let filter = match filter {
            Some(filter) => self.condition(filter, Clause::Where)?,
            None => Vec::new(),
        };
        Ok((trees, filter))
    }

    fn finish_modify(
        &mut self,
        table: Arc<Table>,
        from: Vec<From>,
        filter: Vec<ScalarExpr>,
        set: Vec<(usize, ScalarExpr)>,
        returning: Vec<ScalarExpr>,
    ) -> Modify {
        let level = self.levels.pop();
        let tables = level.map(|level| level.tables).unwrap_or_default();
        let select = Select {
            tables,
            from,
            filter,
            ..Select::default()
        };
        Modify {
            table,
            select,
            set,
            returning,
        }
    }

    pub(super) fn update(&mut self, update: &ast::Update) -> Result<(Modify, Vec<OutputColumn>), SqlError> {
        let mark = self.push_common(&update.with)?;
        let table = self.target_table(&update.table, "update")?;
        self.levels.push(Level::new(Clause::Set));
        let (from, filter) = self.modify_from(
            &table,
            update.alias.as_ref(),
            &update.from,
            update.filter.as_ref(),
        )?;
        let set = self.assignments(&update.set, &table)?;
        let (returning, columns) = self.returning(&update.returning)?;
        let modify = self.finish_modify(table, from, filter, set, returning);
        self.common.truncate(mark);
        Ok((modify, columns))
    }

    pub(super) fn delete(&mut self, delete: &ast::Delete) -> Result<(Modify, Vec<OutputColumn>), SqlError> {
        let mark = self.push_common(&delete.with)?;
        let table = self.target_table(&delete.table, "delete")?;
        self.levels.push(Level::new(Clause::Where));
        let (from, filter) = self.modify_from(
            &table,
            delete.alias.as_ref(),
            &delete.using,
            delete.filter.as_ref(),
        )?;
        let (returning, columns) = self.returning(&delete.returning)?;
        let modify = self.finish_modify(table, from, filter, Vec::new(), returning);
        self.common.truncate(mark);
        Ok((modify, columns))
    }
}

/// A column's default as an expression of the column's type; NULL without one.
pub(crate) fn column_default(
    table: &Table,
    column: usize,
    cx: BindContext<'_>,
) -> Result<ScalarExpr, SqlError> {
    let column = &table.columns[column];
    let Some(text) = &column.default else {
        return Ok(ScalarExpr::Const(
            towline_types::Datum::Null,
            ColumnType::new(column.column_type.id),
        ));
    };
    let written = crate::parse::parse_expression(text)?;
    default_expression(
        &written,
        column.column_type,
        &column.name,
        BindContext { text, ..cx },
    )
}

/// Binds a default for a column of this type: also the check of CREATE TABLE.
pub(crate) fn default_expression(
    written: &Expr,
    ty: ColumnType,
    name: &str,
    cx: BindContext<'_>,
) -> Result<ScalarExpr, SqlError> {
    let place = |error: SqlError| error.with_position(char_position(cx.text, pos_of(written)));
    let bound = bind_scalar(written, None, cx).map_err(|error| {
        // A default cannot look at the row.
        if matches!(
            error.sqlstate(),
            SqlState::UNDEFINED_COLUMN | SqlState::UNDEFINED_TABLE
        ) {
            let message = "cannot use column reference in DEFAULT expression";
            return place(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message));
        }
        error
    })?;
    let mut params = Vec::new();
    let mut builder = crate::expr::ExprBuilder::new(&mut params, cx.style);
    let from = bound.ty();
    match builder
        .coerce(bound, ty, towline_types::cast::CastContext::Assignment)
        .map_err(place)?
    {
        Some(expr) => Ok(expr),
        None => Err(SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "column \"{name}\" is of type {} but default expression is of type {}",
                ty.id.sql_name(),
                from.id.sql_name()
            ),
        )
        .with_hint("You will need to rewrite or cast the expression.")),
    }
}
