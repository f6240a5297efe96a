//! Tables, indexes and roles.

use super::{Expr, Name, Pos, QualifiedName, Query, TypeName};

/// A column of CREATE TABLE or ADD COLUMN.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ColumnDef {
    /// Its name.
    pub name: Name,
    /// Its type.
    pub ty: TypeName,
    /// NOT NULL
    pub not_null: bool,
    /// DEFAULT, with the text as written.
    pub default: Option<(Expr, String)>,
}

/// A key constraint.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyConstraint {
    /// CONSTRAINT name
    pub name: Option<Name>,
    /// PRIMARY KEY, else UNIQUE
    pub primary: bool,
    /// Its columns.
    pub columns: Vec<Name>,
    /// Where it stands.
    pub pos: Pos,
}

/// CREATE TABLE
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CreateTable {
    /// Its name.
    pub name: QualifiedName,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// UNLOGGED (accepted, logged all the same)
    pub unlogged: bool,
    /// The columns.
    pub columns: Vec<ColumnDef>,
    /// The keys.
    pub keys: Vec<KeyConstraint>,
    /// WITH (…)
    pub options: Vec<(String, String)>,
    /// CREATE TABLE AS
    pub query: Option<Box<Query>>,
}

/// One action of ALTER TABLE.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AlterAction {
    /// ADD PRIMARY KEY, ADD UNIQUE
    AddKey(KeyConstraint),
    /// SET (option = value)
    SetOptions(Vec<(String, String)>),
}

/// CREATE INDEX
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CreateIndex {
    /// Its name.
    pub name: Option<Name>,
    /// UNIQUE
    pub unique: bool,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// The table.
    pub table: QualifiedName,
    /// (column, descending, nulls first)
    pub columns: Vec<(Name, bool, bool)>,
    /// WITH (…)
    pub options: Vec<(String, String)>,
}

/// Options of CREATE and ALTER ROLE.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct RoleOptions {
    /// PASSWORD; inner None = PASSWORD NULL.
    pub password: Option<Option<String>>,
    /// LOGIN
    pub login: Option<bool>,
    /// SUPERUSER
    pub superuser: Option<bool>,
    /// CREATEDB
    pub createdb: Option<bool>,
    /// CREATEROLE
    pub createrole: Option<bool>,
    /// INHERIT
    pub inherit: Option<bool>,
    /// REPLICATION
    pub replication: Option<bool>,
    /// BYPASSRLS
    pub bypass_rls: Option<bool>,
    /// CONNECTION LIMIT
    pub connection_limit: Option<i32>,
}
