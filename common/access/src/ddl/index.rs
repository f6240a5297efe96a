//! CREATE INDEX, and the index behind a constraint.

use std::sync::Arc;

use towline_base::{Lsn, Oid, SqlState, Xid};
use towline_types::Datum;

use super::lookup::{check_fillfactor, check_user_table, creation_schema, lock_table, no_relation};
use super::names;
use super::op::{Action, Plan, catalog, lock_name, new_oid, update_row};
use super::statement::{CreateIndex, NewConstraint, QualifiedName};
use crate::bootstrap::rows::{index_attributes, index_row};
use crate::btree::{DescentHints, KeyColumn, KeyDescriptor};
use crate::catalog::rows::{ClassRow, constraint_row, operator_class_of};
use crate::catalog::{CatalogState, Column, Index, IndexKey, RelationKind, Table, relation_file};
use crate::error::{AccessError, Result};
use crate::locks::LockMode;
use crate::ready;
use crate::step::Step;
use crate::txn::Transaction;

/// Most key columns of an index.
const MAX_KEYS: usize = 32;
/// OID of pg_class, under which relation names are reserved.
pub(super) const CLASS: u32 = 1259;

pub(super) fn plan_create(txn: &mut Transaction, statement: &CreateIndex) -> Result<Step<Plan>> {
    check_fillfactor(statement.fillfactor)?;
    let Some(table) = ready!(lock_table(txn, &statement.table, LockMode::Share)) else {
        return Err(no_relation(&statement.table));
    };
    if table.kind != RelationKind::Table {
        return Err(AccessError::new(
            SqlState::WRONG_OBJECT_TYPE,
            format!("cannot create index on relation \"{}\"", table.name),
        )
        .with_detail("This operation is not supported for views."));
    }
    check_user_table(&table)?;
    if statement.keys.len() > MAX_KEYS {
        return Err(AccessError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("cannot use more than {MAX_KEYS} columns in an index"),
        ));
    }
    let mut keys = Vec::new();
    for key in &statement.keys {
        let column = table.column(&key.column).ok_or_else(|| {
            AccessError::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{}\" does not exist", key.column),
            )
        })?;
        check_key_type(column)?;
        keys.push(IndexKey {
            column: column.number,
            descending: key.descending,
            nulls_first: key.nulls_first,
        });
    }
    let columns: Vec<&str> = statement.keys.iter().map(|key| key.column.as_str()).collect();
    let name = match &statement.name {
        Some(name) => name.clone(),
        None => names::choose(&*catalog(txn)?, table.schema, &table.name, &columns, "idx", &[]),
    };
    ready!(lock_name(txn, CLASS, table.schema, &name));
    let view = catalog(txn)?;
    creation_schema(&view, &QualifiedName::in_schema(&*table.schema_name, &*name))?;
    let mut plan = Plan::default();
    if view.relation_in(table.schema, &name).is_some() {
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
    let spec = IndexSpec {
        name: &name,
        keys,
        unique: statement.unique,
        primary: false,
        fillfactor: statement.fillfactor,
    };
    plan_index(txn, &mut plan, &table, spec, None, false)?;
    if table.indexes.is_empty() {
        update_row(
            txn,
            &mut plan,
            "pg_class",
            "oid",
            table.oid,
            &[("relhasindex", Datum::Bool(true))],
        )?;
    }
    plan.push(Action::Invalidate(table.oid));
    Ok(Step::Done(plan))
}

/// 42704 for a type that has no order.
pub(super) fn check_key_type(column: &Column) -> Result<()> {
    let id = column.column_type.id;
    if operator_class_of(id).is_valid() {
        return Ok(());
    }
    Err(AccessError::new(
        SqlState::UNDEFINED_OBJECT,
        format!("data type {} has no default operator class for access method \"btree\"", id.info().sql_name),
    )
    .with_hint("You must specify an operator class for the index or define a default operator class for the data type."))
}

/// An index to be made.
pub(super) struct IndexSpec<'a> {
    pub(super) name: &'a str,
    pub(super) keys: Vec<IndexKey>,
    pub(super) unique: bool,
    pub(super) primary: bool,
    pub(super) fillfactor: Option<u8>,
}

/// Plans the file, the catalog rows and the contents of an index. `empty`: the table has no rows yet.
pub(super) fn plan_index(
    txn: &mut Transaction,
    plan: &mut Plan,
    table: &Arc<Table>,
    spec: IndexSpec<'_>,
    constraint: Option<Oid>,
    empty: bool,
) -> Result<Arc<Index>> {
    let oid = new_oid(txn)?;
    let key_columns = spec
        .keys
        .iter()
        .filter_map(|key| {
            let column = table.columns.get(usize::try_from(key.column - 1).ok()?)?;
            Some(KeyColumn::new(
                column.column_type.id,
                key.descending,
                key.nulls_first,
            ))
        })
        .collect();
    let index = Arc::new(Index {
        oid,
        name: Arc::from(spec.name),
        schema: table.schema,
        table: table.oid,
        node: relation_file(oid.0),
        keys: spec.keys.into_boxed_slice(),
        key: KeyDescriptor::new(key_columns),
        unique: spec.unique,
        primary: spec.primary,
        constraint,
        fillfactor: spec.fillfactor.unwrap_or(90),
        usable_from: Lsn::INVALID,
        hints: DescentHints::default(),
    });
    let class = ClassRow {
        frozen_xid: Xid::INVALID,
        oid,
        name: spec.name,
        schema: table.schema,
        row_type: Oid(0),
        owner: table.owner,
        file: oid.0,
        kind: RelationKind::Index,
        columns: index.keys.len() as i16,
        has_index: false,
        toast: Oid(0),
        shared: false,
        fillfactor: spec.fillfactor,
    };
    plan.push(Action::CreateFile(index.node));
    plan.push(Action::Insert("pg_class", class.values()));
    for values in index_attributes(table, &index) {
        plan.push(Action::Insert("pg_attribute", values));
    }
    plan.push(Action::Insert("pg_index", index_row(table, &index)));
    plan.push(Action::BuildIndex {
        table: Arc::clone(table),
        index: Arc::clone(&index),
        empty,
    });
    Ok(index)
}

/// A constraint with its columns found and its name chosen.
pub(super) struct ResolvedConstraint<'a> {
    pub(super) name: String,
    pub(super) primary: bool,
    pub(super) columns: Vec<&'a Column>,
    pub(super) fillfactor: Option<u8>,
}

/// Finds the columns of a constraint and chooses its name.
pub(super) fn resolve_constraint<'a>(
    view: &CatalogState,
    schema: Oid,
    table_name: &str,
    columns: &'a [Column],
    constraint: &NewConstraint,
    taken: &[String],
) -> Result<ResolvedConstraint<'a>> {
    check_fillfactor(constraint.fillfactor)?;
    let mut found: Vec<&Column> = Vec::new();
    for name in &constraint.columns {
        let column = columns
            .iter()
            .find(|column| !column.dropped && &*column.name == name.as_str());
        let column = column.ok_or_else(|| {
            AccessError::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{name}\" named in key does not exist"),
            )
        })?;
        if found.iter().any(|other| other.number == column.number) {
            let kind = if constraint.primary {
                "primary key"
            } else {
                "unique"
            };
            return Err(AccessError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" appears twice in {kind} constraint"),
            ));
        }
        check_key_type(column)?;
        found.push(column);
    }
    if found.len() > MAX_KEYS {
        return Err(AccessError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("cannot use more than {MAX_KEYS} columns in an index"),
        ));
    }
    let name = match &constraint.name {
        Some(name) => {
            if view.relation_in(schema, name).is_some() || taken.contains(name) {
                return Err(AccessError::new(
                    SqlState::DUPLICATE_TABLE,
                    format!("relation \"{name}\" already exists"),
                ));
            }
            name.clone()
        }
        None if constraint.primary => names::choose(view, schema, table_name, &[], "pkey", taken),
        None => {
            let parts: Vec<&str> = constraint.columns.iter().map(String::as_str).collect();
            names::choose(view, schema, table_name, &parts, "key", taken)
        }
    };
    Ok(ResolvedConstraint {
        name,
        primary: constraint.primary,
        columns: found,
        fillfactor: constraint.fillfactor,
    })
}

/// Plans a constraint: its index and its pg_constraint row.
pub(super) fn plan_constraint(
    txn: &mut Transaction,
    plan: &mut Plan,
    table: &Arc<Table>,
    constraint: &ResolvedConstraint<'_>,
    empty: bool,
) -> Result<Arc<Index>> {
    let oid = new_oid(txn)?;
    let numbers: Vec<i16> = constraint.columns.iter().map(|column| column.number).collect();
    let keys = numbers
        .iter()
        .map(|column| IndexKey {
            column: *column,
            descending: false,
            nulls_first: false,
        })
        .collect();
    let spec = IndexSpec {
        name: &constraint.name,
        keys,
        unique: true,
        primary: constraint.primary,
        fillfactor: constraint.fillfactor,
    };
    let index = plan_index(txn, plan, table, spec, Some(oid), empty)?;
    let row = constraint_row(
        oid,
        &constraint.name,
        table.schema,
        table.oid,
        index.oid,
        constraint.primary,
        &numbers,
    );
    plan.push(Action::Insert("pg_constraint", row));
    Ok(index)
}
