//! Statements that change the catalog: tables, indexes, constraints, schemas, roles; transactional like any row change.
//!
//! [`DdlOp`] executes a [`Statement`]. Locks: what is created reserves its name, what is changed or dropped is locked exclusively
//! (CREATE INDEX: against writers), all until the commit is visible, so that whoever gets the lock next reads the new
//! catalog (C2). Statements over several objects, and the actions of ALTER TABLE, are planned one after the other.

mod alter;
#[cfg(test)]
pub(crate) mod crash_tests;
mod drop;
mod index;
mod index_build;
mod lookup;
mod names;
mod op;
mod role;
mod statement;
mod table;
#[cfg(test)]
mod tests;
mod toast;
mod verify;

pub use op::DdlOp;
pub use statement::{
    AlterRole, AlterTable, AlterTableAction, CreateIndex, CreateRole, CreateSchema, CreateTable, DdlOutcome,
    Drop, DropKind, DropRole, NewColumn, NewConstraint, NewIndexKey, QualifiedName, RoleOptions, Statement,
    Truncate, UpdateStatistics,
};
pub use verify::verify_table;
