//! Finding what a statement names, with PostgreSQL's refusals.

use std::sync::Arc;

use towline_base::{Oid, SqlState};

use super::op::{catalog, lock_relation};
use super::statement::QualifiedName;
use crate::catalog::{CatalogState, Relation, RelationKind, Schema, Table};
use crate::error::{AccessError, Result};
use crate::locks::LockMode;
use crate::ready;
use crate::step::Step;
use crate::txn::Transaction;

/// Schemas searched for unqualified names.
const SEARCH_PATH: &[&str] = &["public"];

/// The schema that a new relation goes to (3F000, 42501).
pub(super) fn creation_schema(catalog: &CatalogState, name: &QualifiedName) -> Result<Schema> {
    let schema_name = name.schema.as_deref().unwrap_or("public");
    let schema = catalog
        .schema(schema_name)
        .ok_or_else(|| no_schema(schema_name))?;
    if schema_name.starts_with("pg_") {
        return Err(AccessError::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("permission denied to create \"{schema_name}.{}\"", name.name),
        )
        .with_detail("System catalog modifications are currently disallowed."));
    }
    Ok(schema.clone())
}

/// 3F000
pub(super) fn no_schema(name: &str) -> AccessError {
    AccessError::new(
        SqlState::INVALID_SCHEMA_NAME,
        format!("schema \"{name}\" does not exist"),
    )
}

/// The relation of this name, if there is one.
pub(super) fn find<'c>(catalog: &'c CatalogState, name: &QualifiedName) -> Option<&'c Relation> {
    catalog.find_relation(name.schema.as_deref(), &name.name, SEARCH_PATH)
}

/// 42P01 for this name.
pub(super) fn no_relation(name: &QualifiedName) -> AccessError {
    AccessError::new(
        SqlState::UNDEFINED_TABLE,
        format!("relation \"{name}\" does not exist"),
    )
}

/// Locks the table of this name, and looks again until name and lock agree. `None` when there is none.
pub(super) fn lock_table(
    txn: &mut Transaction,
    name: &QualifiedName,
    mode: LockMode,
) -> Result<Step<Option<Arc<Table>>>> {
    loop {
        let before = catalog(txn)?;
        let oid = match find(&before, name) {
            Some(Relation::Table(table)) => table.oid,
            Some(Relation::Index(_)) => return Err(not_a_table(&name.name)),
            None => return Ok(Step::Done(None)),
        };
        ready!(lock_relation(txn, oid, mode));
        let after = catalog(txn)?;
        match find(&after, name) {
            Some(Relation::Table(table)) if table.oid == oid => {
                return Ok(Step::Done(Some(Arc::clone(table))));
            }
            _ => {}
        }
    }
}

/// 42809
pub(super) fn not_a_table(name: &str) -> AccessError {
    AccessError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{name}\" is not a table"))
}

/// Refuses to change what belongs to the system (42501), and views (42809).
pub(super) fn check_user_table(table: &Table) -> Result<()> {
    if table.is_system() {
        return Err(AccessError::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("permission denied: \"{}\" is a system catalog", table.name),
        ));
    }
    if table.kind != RelationKind::Table {
        return Err(not_a_table(&table.name));
    }
    Ok(())
}

/// 22023 for a fillfactor outside 10 to 100.
pub(super) fn check_fillfactor(percent: Option<u8>) -> Result<()> {
    match percent {
        Some(percent) if !(10..=100).contains(&percent) => Err(AccessError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("value {percent} out of bounds for option \"fillfactor\""),
        )
        .with_detail("Valid values are between \"10\" and \"100\".")),
        _ => Ok(()),
    }
}

/// The file numbers of a table, its TOAST table and the indexes of both, with their pg_class OIDs.
pub(super) fn files_of(table: &Table) -> impl Iterator<Item = (Oid, towline_base::RelFileNode)> + '_ {
    std::iter::once(table)
        .chain(table.toast.as_deref())
        .flat_map(|table| {
            let indexes = table.indexes.iter().map(|index| (index.oid, index.node));
            std::iter::once((table.oid, table.node)).chain(indexes)
        })
}
