//! Transactions, settings, COPY, EXPLAIN, VACUUM.

use super::{Expr, Name, Pos, QualifiedName, Query};

/// A modifier of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionMode {
    /// ISOLATION LEVEL
    Isolation(IsolationLevel),
    /// READ ONLY (true), READ WRITE (false)
    ReadOnly(bool),
    /// [NOT] DEFERRABLE
    Deferrable(bool),
}

/// The four levels of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IsolationLevel {
    /// Runs as READ COMMITTED.
    ReadUncommitted,
    /// The default.
    ReadCommitted,
    /// One snapshot.
    RepeatableRead,
    /// Refused.
    Serializable,
}

/// The value of SET.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SetValue {
    /// DEFAULT
    Default,
    /// A list of words, strings and numbers, as one text each.
    Values(Vec<String>),
}

/// The options of COPY.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct CopyOptions {
    /// FORMAT
    pub format: Option<(String, Pos)>,
    /// FREEZE
    pub freeze: bool,
    /// DELIMITER
    pub delimiter: Option<String>,
    /// NULL
    pub null: Option<String>,
    /// HEADER
    pub header: bool,
    /// QUOTE
    pub quote: Option<String>,
    /// ESCAPE
    pub escape: Option<String>,
    /// ENCODING
    pub encoding: Option<String>,
    /// FORCE_QUOTE *
    pub force_quote_all: bool,
    /// FORCE_QUOTE (columns)
    pub force_quote: Vec<Name>,
    /// FORCE_NULL (columns)
    pub force_null: Vec<Name>,
    /// FORCE_NOT_NULL (columns)
    pub force_not_null: Vec<Name>,
}

/// COPY
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Copy {
    /// A table with its columns, or a query.
    pub source: CopySource,
    /// FROM STDIN, else TO STDOUT
    pub from: bool,
    /// The options.
    pub options: CopyOptions,
    /// WHERE, of COPY FROM
    pub filter: Option<Expr>,
}

/// What is copied.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CopySource {
    /// A table.
    Table(QualifiedName, Vec<Name>),
    /// A query (TO only).
    Query(Box<Query>),
}

/// The options of EXPLAIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExplainOptions {
    /// ANALYZE
    pub analyze: bool,
    /// VERBOSE
    pub verbose: bool,
    /// COSTS
    pub costs: bool,
    /// BUFFERS
    pub buffers: bool,
    /// TIMING
    pub timing: bool,
    /// SUMMARY
    pub summary: Option<bool>,
}

/// The options of VACUUM and ANALYZE.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct VacuumOptions {
    /// VACUUM, else only ANALYZE
    pub vacuum: bool,
    /// ANALYZE
    pub analyze: bool,
    /// FULL (refused)
    pub full: bool,
    /// FREEZE
    pub freeze: bool,
    /// VERBOSE
    pub verbose: bool,
}
