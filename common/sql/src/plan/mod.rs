//! From a bound query to a plan: which index, which join, in which order.
//!
//! Rule-based, with cheap statistics: `reltuples` and `relpages` as ANALYZE left them, or the live size of the file.
//! A plan owns nothing of the transaction; it is shared by every execution of a prepared statement.
//!
//! Rows are flat: each node's `layout` says which of the query's columns stands at which place, and all expressions
//! of a node speak of places.

mod base;
mod change;
mod cost;
mod index;
mod join;
mod planner;
mod select;

use std::sync::Arc;

use towline_access::catalog::{Index, Table};
use towline_types::{ColumnType, TypeId};

use crate::bind::tree::{Bound, BoundKind, OutputColumn, RowLock};
use crate::error::SqlError;
use crate::expr::{AggregateCall, ScalarExpr, SetCall};
use crate::parse::ast::SetOp;

pub(crate) use join::is_parametric;
pub(crate) use planner::Planner;

/// What the planner may ask about sizes.
pub(crate) trait Statistics {
    /// Rows and pages of a table, estimated.
    fn table_size(&self, table: &Table) -> (f64, f64);
    /// Whether the statement's snapshot finds everything it must see through this index.
    fn is_usable(&self, index: &Index) -> bool;
}

/// Estimates, in PostgreSQL's units.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Estimate {
    /// Cost before the first row.
    pub startup: f64,
    /// Cost of all rows.
    pub total: f64,
    /// Rows.
    pub rows: f64,
    /// Bytes of a row.
    pub width: f64,
}

/// One node of a plan.
#[derive(Debug)]
pub(crate) struct Node {
    /// What it does.
    pub kind: Kind,
    /// Which column of the query stands at each place of its rows (empty above projections).
    pub layout: Vec<usize>,
    /// Places of a row.
    pub width: usize,
    /// Estimates.
    pub estimate: Estimate,
    /// Its number in the plan, for EXPLAIN ANALYZE.
    pub id: usize,
    /// What each place is called; only filled for EXPLAIN.
    pub labels: Vec<String>,
}

/// A value a scan of a table can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScanColumn {
    /// An attribute, from 0.
    Attribute(u16),
    /// `ctid`
    Ctid,
    /// `xmin`
    Xmin,
    /// `xmax`
    Xmax,
    /// `tableoid`
    TableOid,
}

/// How the values of an index bound are made.
#[derive(Clone, Debug)]
pub(crate) struct BoundExpr {
    /// The value, over the row of the outer side (or nothing).
    pub value: ScalarExpr,
    /// Whether the bound itself belongs.
    pub inclusive: bool,
}

/// The part of an index that is scanned.
#[derive(Clone, Debug, Default)]
pub(crate) struct IndexRange {
    /// Equality on the first columns; `None` = IS NULL.
    pub equal: Vec<Option<ScalarExpr>>,
    /// `column = ANY (…)` on the column after `equal`: one scan for each value.
    pub any: Option<ScalarExpr>,
    /// Lower bounds on the column after `equal`; the highest counts.
    pub lower: Vec<BoundExpr>,
    /// Upper bounds; the lowest counts.
    pub upper: Vec<BoundExpr>,
}

/// A scan of a stored table.
#[derive(Debug)]
pub(crate) struct TableScan {
    /// The table.
    pub table: Arc<Table>,
    /// The name it goes by.
    pub alias: String,
    /// What it gives, place by place.
    pub columns: Vec<ScanColumn>,
    /// Conditions on its rows.
    pub filter: Vec<ScalarExpr>,
    /// Attributes that nothing looks at: they are only carried into the new version of the row.
    pub carried: Vec<u16>,
}

/// A scan through an index.
#[derive(Debug)]
pub(crate) struct IndexAccess {
    /// The index.
    pub index: Arc<Index>,
    /// Which part.
    pub range: IndexRange,
    /// From the end.
    pub backward: bool,
    /// The conditions that the range stands for, for EXPLAIN; over the scan's layout where it can be said.
    pub shown: Vec<String>,
}

/// How two inputs are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinType {
    /// Pairs.
    Inner,
    /// And left rows without a partner.
    Left,
    /// And both (hash joins, or a nested loop with bookkeeping).
    Full,
}

/// One sort key: a place and its direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlaceKey {
    /// The place.
    pub place: usize,
    /// DESC
    pub descending: bool,
    /// NULLS FIRST
    pub nulls_first: bool,
}

/// What a node does.
#[derive(Debug)]
pub(crate) enum Kind {
    /// One row without columns, if the condition holds.
    Result(Vec<ScalarExpr>),
    /// All pages of a table.
    SeqScan(TableScan),
    /// Rows found by an index.
    IndexScan(TableScan, IndexAccess),
    /// A virtual view: (view, columns by number, filter).
    ViewScan(Arc<Table>, String, Vec<usize>, Vec<ScalarExpr>),
    /// A set-returning function over the outer row; WITH ORDINALITY.
    FunctionScan(SetCall, bool, Vec<ScalarExpr>),
    /// One value over the outer row; WITH ORDINALITY.
    ScalarScan(ScalarExpr, bool, Vec<ScalarExpr>),
    /// A subquery: its plan, its outer values over the outer row, its name, a filter.
    SubqueryScan(Box<Node>, Vec<ScalarExpr>, String, Vec<ScalarExpr>),
    /// Rows of expressions.
    Values(Vec<Vec<ScalarExpr>>),
    /// For each left row, the right side begun anew over it.
    NestedLoop(JoinType, Box<Node>, Box<Node>, Vec<ScalarExpr>),
    /// The right side hashed by its keys, probed with the left side's.
    HashJoin {
        /// Which.
        join: JoinType,
        /// Probes.
        left: Box<Node>,
        /// Is hashed.
        right: Box<Node>,
        /// Keys over the left row.
        left_keys: Vec<ScalarExpr>,
        /// Keys over the right row.
        right_keys: Vec<ScalarExpr>,
        /// Further conditions over both.
        condition: Vec<ScalarExpr>,
    },
    /// Rows for which all hold.
    Filter(Box<Node>, Vec<ScalarExpr>),
    /// New rows from expressions.
    Project(Box<Node>, Vec<ScalarExpr>),
    /// New rows from expressions, the set-returning ones run in step: their places are `input width + n`.
    ProjectSet(Box<Node>, Vec<SetCall>, Vec<ScalarExpr>),
    /// Sorted; the second number: only so many rows are wanted.
    Sort(Box<Node>, Vec<PlaceKey>),
    /// Grouped by keys; without keys always one row. True: HAVING-like filter is a node above.
    Aggregate(Box<Node>, Vec<ScalarExpr>, Vec<AggregateCall>),
    /// First row of each combination of these places (all if empty).
    Unique(Box<Node>, Vec<usize>),
    /// LIMIT, OFFSET.
    Limit(Box<Node>, Option<ScalarExpr>, Option<ScalarExpr>),
    /// One after the other.
    Append(Vec<Node>),
    /// UNION (distinct), INTERSECT, EXCEPT.
    SetOp(SetOp, bool, Box<Node>, Box<Node>),
    /// FOR UPDATE: locks rows, and looks again at those that moved.
    LockRows(Box<Node>, Vec<LockTarget>, Vec<ScalarExpr>),
}

/// One table whose rows are locked.
#[derive(Debug)]
pub(crate) struct LockTarget {
    /// Strength and policy.
    pub lock: RowLock,
    /// The table.
    pub table: Arc<Table>,
    /// The place of its ctid.
    pub ctid: usize,
    /// The places of its columns.
    pub places: Vec<(usize, ScanColumn)>,
}

/// A planned subquery of an expression.
#[derive(Debug)]
pub(crate) struct Subplan {
    /// Its plan.
    pub node: Node,
    /// Its outer values, over the row of the expression.
    pub outer: Vec<ScalarExpr>,
    /// The type its column is cast to.
    pub cast: Option<ColumnType>,
    /// Does not depend on the row: run once.
    pub constant: bool,
}

/// What a data-changing statement does with its input rows.
#[derive(Debug)]
pub(crate) enum Change {
    /// INSERT: full rows from the input (places of the input in the expressions).
    Insert {
        /// The table.
        table: Arc<Table>,
        /// Full rows without input, or one template over the input.
        rows: Vec<Vec<ScalarExpr>>,
        /// The input.
        input: Option<Node>,
        /// RETURNING, over the full row.
        returning: Vec<ScalarExpr>,
    },
    /// UPDATE and DELETE.
    Modify {
        /// The table.
        table: Arc<Table>,
        /// The input.
        input: Node,
        /// The place of the target's ctid.
        ctid: usize,
        /// The places of the target's attributes.
        places: Vec<(usize, ScanColumn)>,
        /// New values over the input; empty for DELETE.
        set: Vec<(usize, ScalarExpr)>,
        /// All conditions, over the input: asked again for a row that changed.
        recheck: Vec<ScalarExpr>,
        /// RETURNING, over the input with the target's new values.
        returning: Vec<ScalarExpr>,
        /// Attributes of the target that nothing looks at: values out of line are carried over as they are.
        carried: Vec<u16>,
        /// DELETE.
        delete: bool,
    },
}

/// The body of a plan.
#[derive(Debug)]
pub(crate) enum PlanBody {
    /// Rows.
    Query(Box<Node>),
    /// Changes.
    Change(Box<Change>),
}

/// A plan.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What it does.
    pub body: PlanBody,
    /// Subqueries of its expressions.
    pub subplans: Vec<Subplan>,
    /// The columns of the result.
    pub columns: Vec<OutputColumn>,
    /// Whether rows come back.
    pub returns_rows: bool,
    /// Types of the parameters.
    pub params: Vec<TypeId>,
    /// Relations it reads (OIDs, with their lock need: false = read, true = changed).
    pub relations: Vec<(Arc<Table>, bool)>,
    /// Number of nodes.
    pub nodes: usize,
    /// FOR UPDATE is in it.
    pub locks_rows: bool,
    /// A volatile function is in it: running it may do more than read and change rows.
    pub volatile: bool,
}

/// Plans a bound statement. `explain`: nodes are to be shown, so they keep the names of their columns.
pub(crate) fn plan(bound: Bound, statistics: &dyn Statistics, explain: bool) -> Result<Plan, SqlError> {
    let mut planner = Planner::new(bound.subqueries, statistics, explain);
    let body = match bound.kind {
        BoundKind::Query(query) => PlanBody::Query(Box::new(planner.query(&query)?)),
        BoundKind::Insert(insert) => PlanBody::Change(Box::new(planner.insert(insert)?)),
        BoundKind::Update(modify) => PlanBody::Change(Box::new(planner.modify(modify, false)?)),
        BoundKind::Delete(modify) => PlanBody::Change(Box::new(planner.modify(modify, true)?)),
    };
    Ok(Plan {
        body,
        subplans: planner.finished_subplans(),
        columns: bound.columns,
        returns_rows: bound.returns_rows,
        params: bound.params,
        relations: planner.relations,
        nodes: planner.next_id,
        locks_rows: planner.locks_rows,
        volatile: bound.volatile,
    })
}
