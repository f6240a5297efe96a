//! INSERT, UPDATE, DELETE.

use super::{CommonTable, Expr, FromItem, Name, QualifiedName, Query, Target};

/// INSERT
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Insert {
    /// WITH
    pub with: Vec<CommonTable>,
    /// The table.
    pub table: QualifiedName,
    /// AS
    pub alias: Option<Name>,
    /// The columns; empty = all.
    pub columns: Vec<Name>,
    /// `None` = DEFAULT VALUES
    pub source: Option<Box<Query>>,
    /// RETURNING
    pub returning: Vec<Target>,
}

/// One `column = value` of SET.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Assignment {
    /// The column.
    pub column: Name,
    /// The value.
    pub value: Expr,
}

/// UPDATE
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    /// WITH
    pub with: Vec<CommonTable>,
    /// The table.
    pub table: QualifiedName,
    /// AS
    pub alias: Option<Name>,
    /// SET
    pub set: Vec<Assignment>,
    /// FROM
    pub from: Vec<FromItem>,
    /// WHERE
    pub filter: Option<Expr>,
    /// RETURNING
    pub returning: Vec<Target>,
}

/// DELETE
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Delete {
    /// WITH
    pub with: Vec<CommonTable>,
    /// The table.
    pub table: QualifiedName,
    /// AS
    pub alias: Option<Name>,
    /// USING
    pub using: Vec<FromItem>,
    /// WHERE
    pub filter: Option<Expr>,
    /// RETURNING
    pub returning: Vec<Target>,
}
