//! The bound query: what the planner works on.
//!
//! Columns are numbered through a whole query level: entry `t` of the range table owns the numbers
//! `tables[t].base ..`, its system columns behind its own. [`ScalarExpr::Column`] carries such a number until the
//! planner turns it into a place in a row. A grouped query's target list and HAVING speak of the group row instead:
//! keys first, aggregates after them.

use std::sync::Arc;

use towline_access::catalog::Table;
use towline_types::{ColumnType, TypeId};

use crate::expr::{AggregateCall, ScalarExpr, SetCall};
use crate::parse::ast::{JoinKind, LockPolicy, LockStrength, SetOp};

/// Numbers from here on stand for aggregates while a query is being bound.
pub(crate) const AGGREGATE_BASE: usize = 1 << 24;
/// Numbers from here on stand for set-returning calls of the select list.
pub(crate) const SET_BASE: usize = 1 << 25;

/// The system columns of a table, in the order of their numbers behind the table's own columns.
pub(crate) const SYSTEM_COLUMNS: &[(&str, TypeId, i16)] = &[
    ("ctid", TypeId::Tid, -1),
    ("xmin", TypeId::Xid, -2),
    ("xmax", TypeId::Xid, -4),
    ("tableoid", TypeId::Oid, -6),
];

/// A column as others see it.
#[derive(Clone, Debug)]
pub(crate) struct OutputColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: ColumnType,
    /// Table and attribute it comes straight from, or zeros.
    pub origin: (u32, i16),
}

/// One entry of a range table.
#[derive(Clone, Debug)]
pub(crate) struct RangeTable {
    /// The name it is known by.
    pub alias: String,
    /// What it is.
    pub source: Source,
    /// Number of its first column.
    pub base: usize,
    /// Its columns (without system columns).
    pub columns: Vec<OutputColumn>,
}

impl RangeTable {
    /// Numbers it owns, system columns included.
    pub(crate) fn width(&self) -> usize {
        self.columns.len()
            + if matches!(self.source, Source::Table(_)) {
                SYSTEM_COLUMNS.len()
            } else {
                0
            }
    }
}

/// Where the rows of a range table entry come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A stored table.
    Table(Arc<Table>),
    /// A virtual view of the catalog.
    View(Arc<Table>),
    /// A subquery.
    Query(Box<Subquery>),
    /// A function; true = WITH ORDINALITY.
    Function(SetCall, bool),
    /// An ordinary function in FROM: one row with its value.
    Scalar(ScalarExpr, bool),
}

/// A query inside another, with what it needs from it.
#[derive(Clone, Debug)]
pub(crate) struct Subquery {
    /// The query.
    pub query: Query,
    /// Values for its [`ScalarExpr::Outer`]s, over the enclosing query's columns.
    pub outer: Vec<ScalarExpr>,
    /// For IN and its kind: the type its column is cast to.
    pub cast: Option<ColumnType>,
}

/// The tree of FROM.
#[derive(Clone, Debug)]
pub(crate) enum From {
    /// An entry of the range table.
    Table(usize),
    /// A join.
    Join(Box<Join>),
}

/// A join of FROM.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    /// Which.
    pub kind: JoinKind,
    /// Left side.
    pub left: From,
    /// Right side.
    pub right: From,
    /// Conjuncts of its condition.
    pub condition: Vec<ScalarExpr>,
}

/// A sort key: an expression over the query's columns, or a target when [`Query::sort_on_targets`].
#[derive(Clone, Debug)]
pub(crate) struct SortKey {
    /// The key.
    pub expr: ScalarExpr,
    /// The target it is the same as, if any.
    pub target: Option<usize>,
    /// DESC
    pub descending: bool,
    /// NULLS FIRST
    pub nulls_first: bool,
}

/// DISTINCT
#[derive(Clone, Debug)]
pub(crate) enum Distinct {
    /// Over all targets.
    All,
    /// ON: over these targets (by number).
    On(Vec<usize>),
}

/// What makes the rows of a query.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// SELECT
    Select(Box<Select>),
    /// VALUES: rows of one shape.
    Values(Vec<Vec<ScalarExpr>>),
    /// A set operation; its columns are numbered from 0.
    Set {
        /// Which.
        op: SetOp,
        /// ALL
        all: bool,
        /// Left side, with the types its columns are cast to.
        left: Box<Subquery>,
        /// Right side.
        right: Box<Subquery>,
    },
}

/// A bound SELECT.
#[derive(Clone, Debug, Default)]
pub(crate) struct Select {
    /// The range table.
    pub tables: Vec<RangeTable>,
    /// The comma list of FROM.
    pub from: Vec<From>,
    /// Conjuncts of WHERE.
    pub filter: Vec<ScalarExpr>,
    /// Grouping happens (GROUP BY, HAVING or an aggregate).
    pub grouped: bool,
    /// Keys, over the query's columns.
    pub group_by: Vec<ScalarExpr>,
    /// Aggregates, over the query's columns.
    pub aggregates: Vec<AggregateCall>,
    /// HAVING, over the group row.
    pub having: Vec<ScalarExpr>,
    /// Set-returning calls of the select list; `SET_BASE + n` in the targets.
    pub sets: Vec<SetCall>,
    /// The select list (over the query's columns, or the group row), with hidden sort columns at the end.
    pub targets: Vec<ScalarExpr>,
    /// DISTINCT
    pub distinct: Option<Distinct>,
    /// FOR UPDATE: entries of the range table.
    pub locking: Vec<RowLock>,
}

/// One table to lock rows of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowLock {
    /// Entry of the range table.
    pub table: usize,
    /// How strong.
    pub strength: LockStrength,
    /// What to do when locked.
    pub policy: LockPolicy,
}

/// A bound query.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    /// What makes its rows.
    pub body: Body,
    /// Its visible columns; [`Select::targets`] may have more.
    pub columns: Vec<OutputColumn>,
    /// ORDER BY
    pub order_by: Vec<SortKey>,
    /// LIMIT
    pub limit: Option<ScalarExpr>,
    /// OFFSET
    pub offset: Option<ScalarExpr>,
}

/// The rows of an INSERT.
#[derive(Clone, Debug)]
pub(crate) enum InsertSource {
    /// Full rows, without input.
    Values(Vec<Vec<ScalarExpr>>),
    /// A query, and the full row over its columns.
    Query(Box<Query>, Vec<ScalarExpr>),
}

/// INSERT
#[derive(Clone, Debug)]
pub(crate) struct Insert {
    /// The table.
    pub table: Arc<Table>,
    /// Its rows.
    pub source: InsertSource,
    /// RETURNING, over the table's columns.
    pub returning: Vec<ScalarExpr>,
}

/// UPDATE and DELETE: the target is entry 0 of the range table.
#[derive(Clone, Debug)]
pub(crate) struct Modify {
    /// The table.
    pub table: Arc<Table>,
    /// Target, other inputs, conditions.
    pub select: Select,
    /// Assignments (attribute index from 0), over the query's columns; empty for DELETE.
    pub set: Vec<(usize, ScalarExpr)>,
    /// RETURNING, over the query's columns (the target's being the new values).
    pub returning: Vec<ScalarExpr>,
}

/// What a statement does.
#[derive(Clone, Debug)]
pub(crate) enum BoundKind {
    /// SELECT, VALUES
    Query(Query),
    /// INSERT
    Insert(Insert),
    /// UPDATE
    Update(Modify),
    /// DELETE
    Delete(Modify),
}

/// A bound statement.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    /// What it does.
    pub kind: BoundKind,
    /// Subqueries of expressions, by slot.
    pub subqueries: Vec<Subquery>,
    /// Types of `$1`, `$2`, …
    pub params: Vec<TypeId>,
    /// The columns of the result; empty without rows.
    pub columns: Vec<OutputColumn>,
    /// Whether rows come back.
    pub returns_rows: bool,
    /// Whether a volatile function is in it.
    pub volatile: bool,
}
