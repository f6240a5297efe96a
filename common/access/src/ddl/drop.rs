//! DROP TABLE, DROP INDEX, DROP SCHEMA, and the removal of a relation's catalog rows.

use std::sync::Arc;

use towline_base::{Oid, SqlState};

use super::lookup::{check_user_table, find, lock_table, no_schema};
use super::op::{Action, Plan, catalog, delete_rows, lock_relation};
use super::statement::{Drop, DropKind, QualifiedName};
use super::toast::lock_toast;
use crate::catalog::{Index, Relation, RelationKind, Table};
use crate::error::{AccessError, Result};
use crate::locks::{LockMode, LockTag};
use crate::ready;
use crate::step::Step;
use crate::txn::Transaction;

const NAMESPACE: u32 = 2615;

/// Plans the drop of the object number `part`.
pub(super) fn plan(txn: &mut Transaction, statement: &Drop, part: usize) -> Result<Step<Plan>> {
    let Some(name) = statement.names.get(part) else {
        return Ok(Step::Done(Plan::default()));
    };
    if statement.kind != DropKind::Schema
        && let Some(schema) = &name.schema
        && catalog(txn)?.schema(schema).is_none()
    {
        let mut plan = Plan::default();
        if statement.if_exists {
            plan.notice(
                SqlState::SUCCESSFUL_COMPLETION,
                format!("schema \"{schema}\" does not exist, skipping"),
            );
            return Ok(Step::Done(plan));
        }
        return Err(no_schema(schema));
    }
    match statement.kind {
        DropKind::Table => drop_table(txn, name, statement.if_exists),
        DropKind::Index => drop_index(txn, name, statement.if_exists),
        DropKind::Schema => drop_schema(txn, name, statement),
    }
}

/// A missing object: a notice with IF EXISTS, else an error.
fn missing(kind: &str, name: &dyn std::fmt::Display, state: SqlState, if_exists: bool) -> Result<Step<Plan>> {
    if !if_exists {
        return Err(AccessError::new(
            state,
            format!("{kind} \"{name}\" does not exist"),
        ));
    }
    let mut plan = Plan::default();
    plan.notice(
        SqlState::SUCCESSFUL_COMPLETION,
        format!("{kind} \"{name}\" does not exist, skipping"),
    );
    Ok(Step::Done(plan))
}

fn drop_table(txn: &mut Transaction, name: &QualifiedName, if_exists: bool) -> Result<Step<Plan>> {
    if let Some(Relation::Index(_)) = find(&*catalog(txn)?, name) {
        return Err(super::lookup::not_a_table(&name.name).with_hint("Use DROP INDEX to remove an index."));
    }
    let Some(table) = ready!(lock_table(txn, name, LockMode::AccessExclusive)) else {
        return missing("table", &name.name, SqlState::UNDEFINED_TABLE, if_exists);
    };
    check_user_table(&table)?;
    ready!(lock_toast(txn, &table));
    let mut plan = Plan::default();
    remove_table(txn, &mut plan, &table)?;
    Ok(Step::Done(plan))
}

/// Plans the removal of a table with everything that belongs to it. It is locked.
fn remove_table(txn: &mut Transaction, plan: &mut Plan, table: &Table) -> Result<()> {
    if let Some(toast) = &table.toast {
        remove_table(txn, plan, toast)?;
    }
    for index in &table.indexes {
        remove_index(txn, plan, index)?;
    }
    for (rows, column) in [
        ("pg_class", "oid"),
        ("pg_attribute", "attrelid"),
        ("pg_attrdef", "adrelid"),
        ("pg_description", "objoid"),
    ] {
        delete_rows(txn, plan, rows, column, table.oid)?;
    }
    plan.push(Action::DropFile(table.node));
    plan.push(Action::Invalidate(table.oid));
    Ok(())
}

/// Plans the removal of an index and its constraint. Its table is locked.
pub(super) fn remove_index(txn: &mut Transaction, plan: &mut Plan, index: &Index) -> Result<()> {
    for (rows, column) in [
        ("pg_class", "oid"),
        ("pg_attribute", "attrelid"),
        ("pg_index", "indexrelid"),
        ("pg_constraint", "conindid"),
        ("pg_description", "objoid"),
    ] {
        delete_rows(txn, plan, rows, column, index.oid)?;
    }
    plan.push(Action::DropFile(index.node));
    plan.push(Action::Invalidate(index.oid));
    Ok(())
}

fn drop_index(txn: &mut Transaction, name: &QualifiedName, if_exists: bool) -> Result<Step<Plan>> {
    loop {
        let before = catalog(txn)?;
        let table = match find(&before, name) {
            Some(Relation::Index(index)) => index.table,
            Some(Relation::Table(table)) => {
                let error = AccessError::new(
                    SqlState::WRONG_OBJECT_TYPE,
                    format!("\"{}\" is not an index", name.name),
                );
                return Err(if table.kind == RelationKind::Table {
                    error.with_hint("Use DROP TABLE to remove a table.")
                } else {
                    error.with_hint("Use DROP VIEW to remove a view.")
                });
            }
            None => return missing("index", &name.name, SqlState::UNDEFINED_OBJECT, if_exists),
        };
        ready!(lock_relation(txn, table, LockMode::AccessExclusive));
        let after = catalog(txn)?;
        let index = match find(&after, name) {
            Some(Relation::Index(index)) if index.table == table => Arc::clone(index),
            _ => continue,
        };
        let Some(table) = after.table(table) else { continue };
        check_user_table(table)?;
        if index.constraint.is_some() {
            let (constraint, table) = (&index.name, &table.name);
            return Err(AccessError::new(
                SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
                format!("cannot drop index {constraint} because constraint {constraint} on table {table} requires it"),
            )
            .with_hint(format!("You can drop constraint {constraint} on table {table} instead.")));
        }
        ready!(lock_relation(txn, index.oid, LockMode::AccessExclusive));
        let mut plan = Plan::default();
        remove_index(txn, &mut plan, &index)?;
        plan.push(Action::Invalidate(index.table));
        return Ok(Step::Done(plan));
    }
}

fn drop_schema(txn: &mut Transaction, name: &QualifiedName, statement: &Drop) -> Result<Step<Plan>> {
    loop {
        let before = catalog(txn)?;
        let Some(schema) = before.schema(&name.name).cloned() else {
            return missing(
                "schema",
                &name.name,
                SqlState::INVALID_SCHEMA_NAME,
                statement.if_exists,
            );
        };
        if schema.oid.0 < crate::catalog::FIRST_USER_OID && schema.oid != crate::catalog::PUBLIC {
            return Err(AccessError::new(
                SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
                format!(
                    "cannot drop schema {} because it is required by the database system",
                    name.name
                ),
            ));
        }
        ready!(txn.lock(
            LockTag::Object(NAMESPACE, schema.oid.0),
            LockMode::AccessExclusive
        ));
        let after = catalog(txn)?;
        if after
            .schema(&name.name)
            .is_none_or(|found| found.oid != schema.oid)
        {
            continue;
        }
        let mut tables: Vec<Arc<Table>> = after
            .tables()
            .filter(|table| table.schema == schema.oid)
            .map(Arc::clone)
            .collect();
        tables.sort_by_key(|table| table.oid);
        if !tables.is_empty() && !statement.cascade {
            return Err(still_needed(&name.name, &tables));
        }
        for table in &tables {
            ready!(lock_relation(txn, table.oid, LockMode::AccessExclusive));
            ready!(lock_toast(txn, table));
        }
        let mut plan = Plan::default();
        for table in &tables {
            if let Some(table) = catalog(txn)?.table(table.oid).cloned() {
                remove_table(txn, &mut plan, &table)?;
            }
        }
        delete_rows(txn, &mut plan, "pg_namespace", "oid", schema.oid)?;
        delete_rows(txn, &mut plan, "pg_description", "objoid", schema.oid)?;
        plan.push(Action::InvalidateCatalog(NAMESPACE));
        if let [only] = tables.as_slice() {
            plan.notice(
                SqlState::SUCCESSFUL_COMPLETION,
                format!("drop cascades to table {}", display(only)),
            );
        } else if tables.len() > 1 {
            plan.notice(
                SqlState::SUCCESSFUL_COMPLETION,
                format!("drop cascades to {} other objects", tables.len()),
            );
        }
        return Ok(Step::Done(plan));
    }
}

fn display(table: &Table) -> String {
    if &*table.schema_name == "public" {
        table.name.to_string()
    } else {
        format!("{}.{}", table.schema_name, table.name)
    }
}

/// 2BP01
fn still_needed(schema: &str, tables: &[Arc<Table>]) -> AccessError {
    let lines: Vec<String> = tables
        .iter()
        .map(|table| format!("table {} depends on schema {schema}", display(table)))
        .collect();
    AccessError::new(
        SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
        format!("cannot drop schema {schema} because other objects depend on it"),
    )
    .with_detail(lines.join("\n"))
    .with_hint("Use DROP ... CASCADE to drop the dependent objects too.")
}

/// OID of pg_namespace, for locks on schemas.
pub(super) const fn namespace_catalog() -> Oid {
    Oid(NAMESPACE)
}
