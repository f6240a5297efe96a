//! CREATE TABLE, TRUNCATE, and what ANALYZE learnt.

use std::sync::Arc;

use towline_base::{Oid, SqlState};
use towline_types::{Category, Datum, RowDesc};

use super::index::{CLASS, plan_constraint, resolve_constraint};
use super::lookup::{check_fillfactor, check_user_table, creation_schema, files_of, lock_table, no_relation};
use super::op::{Action, Plan, catalog, lock_name, lock_schema, new_oid, update_row};
use super::statement::{CreateTable, NewColumn, Truncate, UpdateStatistics};
use super::toast::{lock_toast, plan_toast};
use crate::catalog::rows::{AttributeRow, ClassRow, default_row};
use crate::catalog::{Column, Index, RelationKind, Table, relation_file};
use crate::error::{AccessError, Result};
use crate::locks::LockMode;
use crate::ready;
use crate::step::Step;
use crate::toast;
use crate::txn::Transaction;

/// Most columns of a table.
const MAX_COLUMNS: usize = 1600;
/// Names that every table has without being asked.
const SYSTEM_COLUMNS: &[&str] = &["tableoid", "ctid", "xmin", "cmin", "xmax", "cmax"];

/// Refuses a column that cannot be (42701, 42P16).
pub(super) fn check_column(column: &NewColumn) -> Result<()> {
    if SYSTEM_COLUMNS.contains(&column.name.as_str()) {
        return Err(AccessError::new(
            SqlState::DUPLICATE_COLUMN,
            format!(
                "column name \"{}\" conflicts with a system column name",
                column.name
            ),
        ));
    }
    let info = column.column_type.id.info();
    if matches!(info.category, Category::Pseudo | Category::Unknown) {
        return Err(AccessError::new(
            SqlState::INVALID_TABLE_DEFINITION,
            format!("column \"{}\" has pseudo-type {}", column.name, info.sql_name),
        ));
    }
    Ok(())
}

fn describe_columns(statement: &CreateTable) -> Result<Vec<Column>> {
    if statement.columns.len() > MAX_COLUMNS {
        return Err(AccessError::new(
            SqlState::TOO_MANY_COLUMNS,
            format!("tables can have at most {MAX_COLUMNS} columns"),
        ));
    }
    let mut columns: Vec<Column> = Vec::with_capacity(statement.columns.len());
    for new in &statement.columns {
        check_column(new)?;
        if columns.iter().any(|other| &*other.name == new.name.as_str()) {
            return Err(AccessError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", new.name),
            ));
        }
        let in_primary_key = statement
            .constraints
            .iter()
            .any(|constraint| constraint.primary && constraint.columns.contains(&new.name));
        columns.push(Column {
            name: Arc::from(new.name.as_str()),
            number: columns.len() as i16 + 1,
            column_type: new.column_type,
            not_null: new.not_null || in_primary_key,
            default: new.default.as_deref().map(Arc::from),
            dropped: false,
        });
    }
    Ok(columns)
}

pub(super) fn plan_create(txn: &mut Transaction, statement: &CreateTable, owner: Oid) -> Result<Step<Plan>> {
    check_fillfactor(statement.fillfactor)?;
    let schema = creation_schema(&*catalog(txn)?, &statement.name)?;
    ready!(lock_schema(txn, schema.oid));
    ready!(lock_name(txn, CLASS, schema.oid, &statement.name.name));
    let view = catalog(txn)?;
    // It may have been dropped before the lock was had.
    creation_schema(&view, &statement.name)?;
    let mut plan = Plan::default();
    if view.relation_in(schema.oid, &statement.name.name).is_some() {
        let name = &statement.name.name;
        if statement.if_not_exists {
            plan.notice(
                SqlState::DUPLICATE_TABLE,
                format!("relation \"{name}\" already exists, skipping"),
            );
            return Ok(Step::Done(plan));
        }
        return Err(AccessError::new(
            SqlState::DUPLICATE_TABLE,
            format!("relation \"{name}\" already exists"),
        ));
    }
    let columns = describe_columns(statement)?;
    if statement
        .constraints
        .iter()
        .filter(|constraint| constraint.primary)
        .count()
        > 1
    {
        return Err(multiple_primary_keys(&statement.name.name));
    }
    let mut taken = vec![statement.name.name.clone()];
    let mut constraints = Vec::new();
    for constraint in &statement.constraints {
        let resolved = resolve_constraint(
            &view,
            schema.oid,
            &statement.name.name,
            &columns,
            constraint,
            &taken,
        )?;
        taken.push(resolved.name.clone());
        constraints.push(resolved);
    }
    for name in &taken[1..] {
        ready!(lock_name(txn, CLASS, schema.oid, name));
    }

    // What is older than the oldest transaction now will not get into the table.
    ready!(txn.ensure_xid());
    let oid = new_oid(txn)?;
    let table = Arc::new(Table {
        oid,
        name: Arc::from(statement.name.name.as_str()),
        schema: schema.oid,
        schema_name: Arc::clone(&schema.name),
        owner,
        kind: RelationKind::Table,
        node: relation_file(oid.0),
        layout: RowDesc::new(columns.iter().map(|column| column.column_type)),
        columns: columns.clone().into_boxed_slice(),
        indexes: Box::new([]),
        // It has no rows yet that would need it.
        toast: None,
        fillfactor: statement.fillfactor.unwrap_or(100),
        estimated_rows: -1.0,
        estimated_pages: 0,
        activity: Arc::default(),
    });
    let toast = if toast::is_needed(&columns) {
        plan_toast(txn, &mut plan, oid, owner)?
    } else {
        Oid(0)
    };
    let class = ClassRow {
        frozen_xid: txn.engine().oldest_running_xid(),
        oid,
        name: &table.name,
        schema: schema.oid,
        row_type: Oid(0),
        owner,
        file: oid.0,
        kind: RelationKind::Table,
        columns: columns.len() as i16,
        has_index: !constraints.is_empty(),
        toast,
        shared: false,
        fillfactor: statement.fillfactor,
    };
    plan.push(Action::CreateFile(table.node));
    plan.push(Action::Insert("pg_class", class.values()));
    for column in &columns {
        plan.push(Action::Insert("pg_attribute", attribute_row(oid, column)));
        if let Some(expression) = &column.default {
            let row = default_row(new_oid(txn)?, oid, column.number, expression);
            plan.push(Action::Insert("pg_attrdef", row));
        }
    }
    for constraint in &constraints {
        plan_constraint(txn, &mut plan, &table, constraint, true)?;
    }
    plan.push(Action::Invalidate(oid));
    Ok(Step::Done(plan))
}

/// 42P16
pub(super) fn multiple_primary_keys(table: &str) -> AccessError {
    AccessError::new(
        SqlState::INVALID_TABLE_DEFINITION,
        format!("multiple primary keys for table \"{table}\" are not allowed"),
    )
}

/// The pg_attribute row of a table's column.
pub(super) fn attribute_row(relation: Oid, column: &Column) -> Vec<Datum> {
    AttributeRow {
        relation,
        name: &column.name,
        number: column.number,
        column_type: column.column_type,
        not_null: column.not_null,
        has_default: column.default.is_some(),
        dropped: column.dropped,
        plain: false,
    }
    .values()
}

/// TRUNCATE gives the table, its TOAST table and the indexes of both new, empty files; the old ones go when the commit is durable.
pub(super) fn plan_truncate(txn: &mut Transaction, statement: &Truncate, part: usize) -> Result<Step<Plan>> {
    let mut plan = Plan::default();
    let Some(name) = statement.tables.get(part) else {
        return Ok(Step::Done(plan));
    };
    let Some(table) = ready!(lock_table(txn, name, LockMode::AccessExclusive)) else {
        return Err(no_relation(name));
    };
    check_user_table(&table)?;
    ready!(lock_toast(txn, &table));
    let zero = [("relpages", Datum::Int4(0)), ("reltuples", Datum::Float4(-1.0))];
    for (oid, old) in files_of(&table).collect::<Vec<_>>() {
        let file = new_oid(txn)?;
        let new = relation_file(file.0);
        plan.push(Action::CreateFile(new));
        for owner in std::iter::once(&table).chain(&table.toast) {
            if let Some(index) = owner.indexes.iter().find(|index| index.oid == oid) {
                let index = Arc::new(moved(index, new));
                plan.push(Action::BuildIndex {
                    table: Arc::clone(owner),
                    index,
                    empty: true,
                });
            }
        }
        let mut changes = vec![("relfilenode", Datum::Oid(file.0))];
        changes.extend(zero.iter().cloned());
        update_row(txn, &mut plan, "pg_class", "oid", oid, &changes)?;
        plan.push(Action::DropFile(old));
    }
    plan.push(Action::Invalidate(table.oid));
    Ok(Step::Done(plan))
}

/// The same index in another file.
fn moved(index: &Index, node: towline_base::RelFileNode) -> Index {
    Index {
        oid: index.oid,
        name: Arc::clone(&index.name),
        schema: index.schema,
        table: index.table,
        node,
        keys: index.keys.clone(),
        key: index.key.clone(),
        unique: index.unique,
        primary: index.primary,
        constraint: index.constraint,
        fillfactor: index.fillfactor,
        usable_from: index.usable_from,
        hints: crate::btree::DescentHints::default(),
    }
}

/// Stores the planner's estimates.
pub(super) fn plan_statistics(txn: &mut Transaction, statement: &UpdateStatistics) -> Result<Step<Plan>> {
    let mut plan = Plan::default();
    let changes = [
        (
            "relpages",
            Datum::Int4(i32::try_from(statement.pages).unwrap_or(i32::MAX)),
        ),
        ("reltuples", Datum::Float4(statement.rows as f32)),
    ];
    update_row(txn, &mut plan, "pg_class", "oid", statement.relation, &changes)?;
    plan.push(Action::Invalidate(statement.relation));
    Ok(Step::Done(plan))
}
