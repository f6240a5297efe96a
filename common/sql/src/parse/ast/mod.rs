//! The syntax tree: what was written, with the byte offset of each part that an error may point at.
//!
//! It holds exactly the forms we bind; whatever else PostgreSQL's grammar has is refused by name while parsing, so no
//! clause can be silently ignored later.

mod change;
mod definition;
mod expr;
mod query;
mod utility;

pub(crate) use change::*;
pub(crate) use definition::*;
pub(crate) use expr::*;
pub(crate) use query::*;
pub(crate) use utility::*;

/// Byte offset into the text.
pub(crate) type Pos = u32;

/// An identifier, folded and unquoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// The text.
    pub text: String,
    /// Where it stands.
    pub pos: Pos,
}

/// A possibly qualified name.
pub(crate) type QualifiedName = Vec<Name>;

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Statement {
    /// SELECT, VALUES, TABLE, WITH
    Query(Box<Query>),
    /// INSERT
    Insert(Box<Insert>),
    /// UPDATE
    Update(Box<Update>),
    /// DELETE
    Delete(Box<Delete>),
    /// CREATE TABLE
    CreateTable(Box<CreateTable>),
    /// DROP TABLE: names, IF EXISTS, CASCADE
    DropTable(Vec<QualifiedName>, bool, bool),
    /// DROP INDEX: names, IF EXISTS, CASCADE
    DropIndex(Vec<QualifiedName>, bool, bool),
    /// TRUNCATE
    Truncate(Vec<QualifiedName>),
    /// ALTER TABLE: name, IF EXISTS, actions
    AlterTable(QualifiedName, bool, Vec<AlterAction>),
    /// CREATE INDEX
    CreateIndex(Box<CreateIndex>),
    /// CREATE ROLE (false) or USER (true: with LOGIN)
    CreateRole(Name, bool, RoleOptions),
    /// ALTER ROLE
    AlterRole(Name, RoleOptions),
    /// DROP ROLE: names, IF EXISTS
    DropRole(Vec<Name>, bool),
    /// BEGIN, START TRANSACTION (true)
    Begin(Vec<TransactionMode>, bool),
    /// COMMIT, END; AND CHAIN
    Commit(bool),
    /// ROLLBACK, ABORT; AND CHAIN
    Rollback(bool),
    /// SET TRANSACTION (false), SET SESSION CHARACTERISTICS AS TRANSACTION (true)
    SetTransaction(Vec<TransactionMode>, bool),
    /// SET, SET LOCAL (true)
    Set(String, SetValue, bool),
    /// SHOW; "all" = everything
    Show(String),
    /// RESET; "all" = everything
    Reset(String),
    /// ALTER SYSTEM SET; None = RESET; name "all"
    AlterSystem(String, Option<SetValue>),
    /// DISCARD ALL, PLANS, SEQUENCES, TEMP; CLOSE ALL (`cursors`), UNLISTEN (`channels`)
    Discard(String),
    /// EXPLAIN
    Explain(ExplainOptions, Box<Statement>),
    /// COPY
    Copy(Box<Copy>),
    /// VACUUM, ANALYZE, with tables and their columns
    Vacuum(VacuumOptions, Vec<(QualifiedName, Vec<Name>)>),
    /// CHECKPOINT
    Checkpoint,
    /// PREPARE: name, types, statement and the range of its text
    Prepare(Name, Vec<TypeName>, Box<Statement>),
    /// EXECUTE
    Execute(Name, Vec<Expr>),
    /// DEALLOCATE; None = ALL
    Deallocate(Option<Name>),
    /// LOCK TABLE: names, mode (as PostgreSQL's number 1..8), NOWAIT
    Lock(Vec<QualifiedName>, u8, bool),
    /// WAIT FOR LSN '…'
    WaitForLsn(String, Pos),
}
