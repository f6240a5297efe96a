//! ALTER TABLE, one action at a time.

use std::sync::Arc;

use towline_base::SqlState;
use towline_types::Datum;

use super::drop::remove_index;
use super::index::{CLASS, plan_constraint, resolve_constraint};
use super::lookup::{check_fillfactor, check_user_table, lock_table, no_relation};
use super::op::{Action, Plan, catalog, lock_name, new_oid, rows_where, update_row};
use super::statement::{AlterTable, AlterTableAction, NewColumn, NewConstraint};
use super::table::{attribute_row, check_column, multiple_primary_keys};
use super::toast::plan_toast;
use crate::catalog::load::{Columns, int};
use crate::catalog::rows::{default_row, text_array};
use crate::catalog::{Column, Table};
use crate::error::{AccessError, Result};
use crate::locks::LockMode;
use crate::ready;
use crate::step::Step;
use crate::toast;
use crate::txn::Transaction;

/// Plans the action number `part`.
pub(super) fn plan(txn: &mut Transaction, statement: &AlterTable, part: usize) -> Result<Step<Plan>> {
    let mut plan = Plan::default();
    let Some(action) = statement.actions.get(part) else {
        return Ok(Step::Done(plan));
    };
    let Some(table) = ready!(lock_table(txn, &statement.name, LockMode::AccessExclusive)) else {
        if statement.if_exists {
            if part == 0 {
                let text = format!("relation \"{}\" does not exist, skipping", statement.name);
                plan.notice(SqlState::SUCCESSFUL_COMPLETION, text);
            }
            return Ok(Step::Done(plan));
        }
        return Err(no_relation(&statement.name));
    };
    check_user_table(&table)?;
    match action {
        AlterTableAction::AddConstraint(constraint) => {
            ready!(add_constraint(txn, &mut plan, &table, constraint))
        }
        AlterTableAction::DropConstraint { name, if_exists } => {
            drop_constraint(txn, &mut plan, &table, name, *if_exists)?;
        }
        AlterTableAction::SetDefault { column, default } => {
            let column = find_column(&table, column)?.clone();
            set_default(txn, &mut plan, &table, &column, default.as_deref())?;
        }
        AlterTableAction::SetNotNull { column, not_null } => {
            let column = find_column(&table, column)?.clone();
            set_not_null(txn, &mut plan, &table, &column, *not_null)?;
        }
        AlterTableAction::RenameTable(name) => ready!(rename_table(txn, &mut plan, &table, name)),
        AlterTableAction::RenameColumn { from, to } => rename_column(txn, &mut plan, &table, from, to)?,
        AlterTableAction::AddColumn(column) => add_column(txn, &mut plan, &table, column)?,
        AlterTableAction::DropColumn { column, if_exists } => {
            drop_column(txn, &mut plan, &table, column, *if_exists)?;
        }
        AlterTableAction::SetFillfactor(percent) => {
            check_fillfactor(*percent)?;
            let options = percent.map_or(Datum::Null, |percent| {
                text_array(&[&format!("fillfactor={percent}")])
            });
            update_row(
                txn,
                &mut plan,
                "pg_class",
                "oid",
                table.oid,
                &[("reloptions", options)],
            )?;
        }
    }
    plan.push(Action::Invalidate(table.oid));
    Ok(Step::Done(plan))
}

fn find_column<'t>(table: &'t Table, name: &str) -> Result<&'t Column> {
    table.column(name).ok_or_else(|| {
        AccessError::new(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{name}\" of relation \"{}\" does not exist", table.name),
        )
    })
}

/// Plans new values in the pg_attribute row of a column.
fn update_attribute(
    txn: &mut Transaction,
    plan: &mut Plan,
    table: &Table,
    number: i16,
    changes: &[(&str, Datum)],
) -> Result<()> {
    let columns = Columns::of("pg_attribute");
    for mut row in rows_where(txn, "pg_attribute", "attrelid", table.oid)? {
        if int(&row.values, columns.at("attnum")) != i32::from(number) {
            continue;
        }
        for (name, value) in changes {
            row.values[columns.at(name)] = value.clone();
        }
        plan.push(Action::Update("pg_attribute", row.tid, row.values));
    }
    Ok(())
}

fn add_constraint(
    txn: &mut Transaction,
    plan: &mut Plan,
    table: &Arc<Table>,
    constraint: &NewConstraint,
) -> Result<Step<()>> {
    if constraint.primary && table.primary_key().is_some() {
        return Err(multiple_primary_keys(&table.name));
    }
    let view = catalog(txn)?;
    let resolved = resolve_constraint(&view, table.schema, &table.name, &table.columns, constraint, &[])?;
    ready!(lock_name(txn, CLASS, table.schema, &resolved.name));
    let view = catalog(txn)?;
    if view.relation_in(table.schema, &resolved.name).is_some() {
        return Err(AccessError::new(
            SqlState::DUPLICATE_TABLE,
            format!("relation \"{}\" already exists", resolved.name),
        ));
    }
    if constraint.primary {
        let nullable: Vec<&Column> = resolved
            .columns
            .iter()
            .copied()
            .filter(|column| !column.not_null)
            .collect();
        if !nullable.is_empty() {
            let columns = nullable.iter().map(|column| column.number as usize - 1).collect();
            plan.push(Action::CheckNotNull {
                table: Arc::clone(table),
                columns,
            });
        }
        for column in nullable {
            update_attribute(
                txn,
                plan,
                table,
                column.number,
                &[("attnotnull", Datum::Bool(true))],
            )?;
        }
    }
    plan_constraint(txn, plan, table, &resolved, false)?;
    if table.indexes.is_empty() {
        update_row(
            txn,
            plan,
            "pg_class",
            "oid",
            table.oid,
            &[("relhasindex", Datum::Bool(true))],
        )?;
    }
    Ok(Step::Done(()))
}

fn drop_constraint(
    txn: &mut Transaction,
    plan: &mut Plan,
    table: &Table,
    name: &str,
    if_exists: bool,
) -> Result<()> {
    let index = table
        .indexes
        .iter()
        .find(|index| index.constraint.is_some() && &*index.name == name);
    match index {
        Some(index) => remove_index(txn, plan, index),
        None => {
            let text = format!(
                "constraint \"{name}\" of relation \"{}\" does not exist",
                table.name
            );
            if !if_exists {
                return Err(AccessError::new(SqlState::UNDEFINED_OBJECT, text));
            }
            plan.notice(SqlState::SUCCESSFUL_COMPLETION, format!("{text}, skipping"));
            Ok(())
        }
    }
}

fn set_default(
    txn: &mut Transaction,
    plan: &mut Plan,
    table: &Table,
    column: &Column,
    default: Option<&str>,
) -> Result<()> {
    let columns = Columns::of("pg_attrdef");
    for row in rows_where(txn, "pg_attrdef", "adrelid", table.oid)? {
        if int(&row.values, columns.at("adnum")) == i32::from(column.number) {
            plan.push(Action::Delete("pg_attrdef", row.tid));
        }
    }
    if let Some(expression) = default {
        let row = default_row(new_oid(txn)?, table.oid, column.number, expression);
        plan.push(Action::Insert("pg_attrdef", row));
    }
    if column.default.is_some() != default.is_some() {
        update_attribute(
            txn,
            plan,
            table,
            column.number,
            &[("atthasdef", Datum::Bool(default.is_some()))],
        )?;
    }
    Ok(())
}

fn set_not_null(
    txn: &mut Transaction,
    plan: &mut Plan,
    table: &Arc<Table>,
    column: &Column,
    not_null: bool,
) -> Result<()> {
    if column.not_null == not_null {
        return Ok(());
    }
    if not_null {
        plan.push(Action::CheckNotNull {
            table: Arc::clone(table),
            columns: vec![column.number as usize - 1],
        });
    } else if table
        .primary_key()
        .is_some_and(|index| index.keys.iter().any(|key| key.column == column.number))
    {
        return Err(AccessError::new(
            SqlState::INVALID_TABLE_DEFINITION,
            format!("column \"{}\" is in a primary key", column.name),
        ));
    }
    update_attribute(
        txn,
        plan,
        table,
        column.number,
        &[("attnotnull", Datum::Bool(not_null))],
    )
}

fn rename_table(txn: &mut Transaction, plan: &mut Plan, table: &Table, name: &str) -> Result<Step<()>> {
    ready!(lock_name(txn, CLASS, table.schema, name));
    if catalog(txn)?.relation_in(table.schema, name).is_some() {
        return Err(AccessError::new(
            SqlState::DUPLICATE_TABLE,
            format!("relation \"{name}\" already exists"),
        ));
    }
    update_row(
        txn,
        plan,
        "pg_class",
        "oid",
        table.oid,
        &[("relname", Datum::text(name))],
    )?;
    Ok(Step::Done(()))
}

fn rename_column(txn: &mut Transaction, plan: &mut Plan, table: &Table, from: &str, to: &str) -> Result<()> {
    let column = table.column(from).ok_or_else(|| {
        AccessError::new(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{from}\" does not exist"),
        )
    })?;
    if table.column(to).is_some() {
        return Err(already_exists(table, to));
    }
    update_attribute(txn, plan, table, column.number, &[("attname", Datum::text(to))])?;
    // Index columns carry the names of the table's.
    for index in &table.indexes {
        let columns = Columns::of("pg_attribute");
        let numbers: Vec<i32> = index
            .keys
            .iter()
            .enumerate()
            .filter(|(_, key)| key.column == column.number)
            .map(|(at, _)| at as i32 + 1)
            .collect();
        if numbers.is_empty() {
            continue;
        }
        for mut row in rows_where(txn, "pg_attribute", "attrelid", index.oid)? {
            if numbers.contains(&int(&row.values, columns.at("attnum"))) {
                row.values[columns.at("attname")] = Datum::text(to);
                plan.push(Action::Update("pg_attribute", row.tid, row.values));
            }
        }
    }
    Ok(())
}

/// 42701
fn already_exists(table: &Table, column: &str) -> AccessError {
    AccessError::new(
        SqlState::DUPLICATE_COLUMN,
        format!(
            "column \"{column}\" of relation \"{}\" already exists",
            table.name
        ),
    )
}

/// Rows stored before have no such attribute and read as NULL, so only a nullable column without default can be added so far.
fn add_column(txn: &mut Transaction, plan: &mut Plan, table: &Table, new: &NewColumn) -> Result<()> {
    check_column(new)?;
    if table.column(&new.name).is_some() {
        return Err(already_exists(table, &new.name));
    }
    if table.columns.len() >= 1600 {
        return Err(AccessError::new(
            SqlState::TOO_MANY_COLUMNS,
            "tables can have at most 1600 columns",
        ));
    }
    let empty = txn
        .engine()
        .storage()
        .nblocks(table.node, towline_base::ForkKind::Main)?
        == 0;
    if !empty && (new.not_null || new.default.is_some()) {
        return Err(AccessError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "ALTER TABLE ADD COLUMN with NOT NULL or DEFAULT on a table with rows is not supported",
        ));
    }
    let column = Column {
        name: Arc::from(new.name.as_str()),
        number: table.columns.len() as i16 + 1,
        column_type: new.column_type,
        not_null: new.not_null,
        default: new.default.as_deref().map(Arc::from),
        dropped: false,
    };
    plan.push(Action::Insert("pg_attribute", attribute_row(table.oid, &column)));
    if let Some(expression) = &column.default {
        let row = default_row(new_oid(txn)?, table.oid, column.number, expression);
        plan.push(Action::Insert("pg_attrdef", row));
    }
    let mut changes = vec![("relnatts", Datum::Int2(column.number))];
    let columns: Vec<Column> = table.columns.iter().cloned().chain([column]).collect();
    if table.toast.is_none() && toast::is_needed(&columns) {
        let toast = plan_toast(txn, plan, table.oid, table.owner)?;
        changes.push(("reltoastrelid", Datum::Oid(toast.0)));
    }
    update_row(txn, plan, "pg_class", "oid", table.oid, &changes)
}

fn drop_column(
    txn: &mut Transaction,
    plan: &mut Plan,
    table: &Table,
    name: &str,
    if_exists: bool,
) -> Result<()> {
    let column = match find_column(table, name) {
        Ok(column) => column.clone(),
        Err(_) if if_exists => {
            let text = format!(
                "column \"{name}\" of relation \"{}\" does not exist, skipping",
                table.name
            );
            plan.notice(SqlState::SUCCESSFUL_COMPLETION, text);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for index in table
        .indexes
        .iter()
        .filter(|index| index.keys.iter().any(|key| key.column == column.number))
    {
        remove_index(txn, plan, index)?;
    }
    set_default(
        txn,
        plan,
        table,
        &Column {
            default: None,
            ..column.clone()
        },
        None,
    )?;
    let changes = [
        (
            "attname",
            Datum::text(&format!("........pg.dropped.{}........", column.number)),
        ),
        ("atttypid", Datum::Oid(0)),
        ("attnotnull", Datum::Bool(false)),
        ("atthasdef", Datum::Bool(false)),
        ("attisdropped", Datum::Bool(true)),
    ];
    update_attribute(txn, plan, table, column.number, &changes)
}
