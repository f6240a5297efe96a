//! The executor: a tree of row sources that can stop anywhere and go on.
//!
//! Every node answers [`Flow`]: a row, the end, or "not now" ([`Flow::Wait`], [`Flow::Yield`]). "Not now" travels up
//! unchanged, each node keeping its place, and calling the root again goes on exactly there; a row that was changed is
//! never changed twice. Between two calls nothing is latched or pinned.
//!
//! Subqueries of expressions run to their end within the call (they may not wait and do not yield), but look at the
//! session's interrupts at every page like everything else.

mod aggregate;
mod join;
mod large;
mod lock;
pub(crate) mod modify;
mod rows;
mod scan;
mod sort;
mod subquery;

use std::cell::{Cell, RefCell};
use std::time::Instant;

use towline_access::{Snapshot, Transaction, Wait};
use towline_base::SqlState;
use towline_types::{Datum, IoStyle};

use crate::error::SqlError;
use crate::expr::{EvalContext, FunctionContext, ScalarExpr, size_of_datum};
use crate::plan::{Kind, Node, Plan};

pub(crate) use scan::exact_key;
pub(crate) use subquery::SubplanState;

/// A row in memory.
pub(crate) type Row = Vec<Datum>;

/// Pages a statement may read before it lets others run.
const PAGES_PER_SLICE: u32 = 256;
/// Time a statement may run before it lets others run.
const SLICE_MICROS: u128 = 1_000;
/// Rows between two looks at the clock.
const ROWS_PER_LOOK: u32 = 256;
/// What sorts, hashes and buffered rows of one statement may take in all.
pub(crate) const MEMORY_LIMIT: usize = 1 << 30;

/// What asking a node for a row came to.
#[derive(Debug)]
pub(crate) enum Flow {
    /// The row is in the caller's buffer.
    Row,
    /// There are no more.
    End,
    /// Await this and ask again.
    Wait(Wait),
    /// Let others run and ask again.
    Yield,
}

/// Returns from the caller unless it is a row (true) or the end (false).
macro_rules! pull {
    ($flow:expr) => {
        match $flow? {
            $crate::exec::Flow::Row => true,
            $crate::exec::Flow::End => false,
            other => return Ok(other),
        }
    };
}
pub(crate) use pull;

/// A source of rows.
pub(crate) trait Source: Send {
    /// Puts the next row into `out`, whose old contents are dropped.
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError>;
    /// Begins anew; `param` is the row of the loop it stands in.
    fn rescan(&mut self, rt: &Runtime<'_>, outer: &[Datum], param: &[Datum]) -> Result<(), SqlError>;
}

/// What EXPLAIN ANALYZE counts of a node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NodeStats {
    /// Rows given.
    pub rows: u64,
    /// Times begun.
    pub loops: u64,
    /// Microseconds inside, its inputs included.
    pub micros: f64,
    /// Microseconds until the first row.
    pub first: f64,
    /// Rows that a filter refused.
    pub removed: u64,
}

/// What the nodes of one execution share while they run.
pub(crate) struct Runtime<'a> {
    /// The transaction.
    pub txn: RefCell<&'a mut Transaction>,
    /// What the statement sees.
    pub snapshot: Snapshot,
    /// Parameter values.
    pub params: &'a [Datum],
    /// How values are read and printed.
    pub style: &'a IoStyle,
    /// The session, as functions see it.
    pub functions: &'a dyn FunctionContext,
    /// The rows of virtual views.
    pub views: &'a dyn Views,
    /// Subqueries of expressions.
    pub subplans: &'a [RefCell<SubplanState>],
    /// The plan.
    pub plan: &'a Plan,
    /// Counters for EXPLAIN ANALYZE.
    pub stats: Option<&'a RefCell<Vec<NodeStats>>>,
    pages: Cell<u32>,
    ticks: Cell<u32>,
    started: Instant,
    quiet: Cell<u32>,
    memory: &'a Cell<usize>,
}

/// Gives the rows of the catalog's virtual views.
pub(crate) trait Views {
    /// All rows of a view; values in the order of its columns.
    fn rows(&self, view: &towline_access::catalog::Table) -> Result<Vec<Row>, SqlError>;
}

impl<'a> Runtime<'a> {
    /// A slice of work on one execution.
    #[expect(clippy::too_many_arguments, reason = "the parts of an execution")]
    pub(crate) fn new(
        txn: &'a mut Transaction,
        snapshot: Snapshot,
        params: &'a [Datum],
        style: &'a IoStyle,
        functions: &'a dyn FunctionContext,
        views: &'a dyn Views,
        subplans: &'a [RefCell<SubplanState>],
        plan: &'a Plan,
        stats: Option<&'a RefCell<Vec<NodeStats>>>,
        memory: &'a Cell<usize>,
    ) -> Self {
        Runtime {
            txn: RefCell::new(txn),
            snapshot,
            params,
            style,
            functions,
            views,
            subplans,
            plan,
            stats,
            pages: Cell::new(0),
            ticks: Cell::new(0),
            started: Instant::now(),
            quiet: Cell::new(0),
            memory,
        }
    }

    /// The context of an expression.
    #[inline]
    pub(crate) fn eval<'c>(&'c self, outer: &'c [Datum]) -> EvalContext<'c> {
        EvalContext {
            params: self.params,
            outer,
            style: self.style,
            functions: self.functions,
            subqueries: self,
        }
    }

    /// True when all conditions hold.
    #[inline]
    pub(crate) fn holds(
        &self,
        conditions: &[ScalarExpr],
        row: &[Datum],
        outer: &[Datum],
    ) -> Result<bool, SqlError> {
        if conditions.is_empty() {
            return Ok(true);
        }
        let cx = self.eval(outer);
        for condition in conditions {
            if !matches!(condition.eval(row, &cx)?, Datum::Bool(true)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Counts a page; true: time to yield (the page was not read yet, ask again).
    #[inline]
    pub(crate) fn page(&self) -> bool {
        self.pages.set(self.pages.get() + 1);
        if self.quiet.get() > 0 {
            return false;
        }
        if self.pages.get() > PAGES_PER_SLICE {
            self.pages.set(0);
            return true;
        }
        false
    }

    /// Counts a row; true: time to yield. Also looks at the interrupts now and then.
    #[inline]
    pub(crate) fn tick(&self) -> Result<bool, SqlError> {
        let ticks = self.ticks.get() + 1;
        self.ticks.set(ticks);
        if !ticks.is_multiple_of(ROWS_PER_LOOK) {
            return Ok(false);
        }
        self.txn.borrow().check_interrupts()?;
        Ok(
            self.quiet.get() == 0 && self.started.elapsed().as_micros() > SLICE_MICROS && {
                self.ticks.set(0);
                true
            },
        )
    }

    /// Runs without yields.
    pub(crate) fn quietly<T>(&self, inner: impl FnOnce() -> T) -> T {
        self.quiet.set(self.quiet.get() + 1);
        let result = inner();
        self.quiet.set(self.quiet.get() - 1);
        result
    }

    /// Accounts for a row that is kept, and gives its bytes; 53200 beyond the bound. Who lets go of what it
    /// kept says so by [`Runtime::forget`]: a node may be begun anew for each row of another.
    pub(crate) fn keep(&self, row: &[Datum]) -> Result<usize, SqlError> {
        let bytes = 24 + row.iter().map(size_of_datum).sum::<usize>();
        self.keep_bytes(bytes)?;
        Ok(bytes)
    }

    /// Accounts for memory.
    pub(crate) fn keep_bytes(&self, bytes: usize) -> Result<(), SqlError> {
        let total = self.memory.get() + bytes;
        self.memory.set(total);
        if total > MEMORY_LIMIT {
            return Err(SqlError::new(SqlState::OUT_OF_MEMORY, "out of memory").with_detail(format!(
                "A statement may keep at most {} MB of rows in sorts, hashes and joins; spilling to disk is not built yet.",
                MEMORY_LIMIT >> 20
            )));
        }
        Ok(())
    }

    /// Gives back what a restarted node had kept.
    pub(crate) fn forget(&self, bytes: usize) {
        self.memory.set(self.memory.get().saturating_sub(bytes));
    }
}

/// Makes the runnable form of a plan's node. With `counted`, every node keeps its statistics.
pub(crate) fn build(node: &Node, counted: bool) -> Box<dyn Source> {
    let child = |node: &Node| build(node, counted);
    let source: Box<dyn Source> = match &node.kind {
        Kind::Result(filter) => Box::new(rows::OneRow::new(filter.clone())),
        Kind::SeqScan(scan) => Box::new(scan::SeqScan::new(scan, node.id)),
        Kind::IndexScan(scan, access) => Box::new(scan::IndexScan::new(scan, access, node.id)),
        Kind::ViewScan(view, _, columns, filter) => {
            Box::new(scan::ViewScan::new(view.clone(), columns.clone(), filter.clone()))
        }
        Kind::FunctionScan(call, ordinality, filter) => {
            Box::new(scan::FunctionScan::new(call.clone(), *ordinality, filter.clone()))
        }
        Kind::ScalarScan(expr, ordinality, filter) => {
            Box::new(scan::ScalarScan::new(expr.clone(), *ordinality, filter.clone()))
        }
        Kind::SubqueryScan(input, values, _, filter) => Box::new(scan::SubqueryScan::new(
            child(input),
            values.clone(),
            filter.clone(),
        )),
        Kind::Values(list) => Box::new(rows::Values::new(list.clone())),
        Kind::NestedLoop(kind, left, right, condition) => Box::new(join::NestedLoop::new(
            *kind,
            child(left),
            child(right),
            condition.clone(),
            (left.width, right.width),
            crate::plan::is_parametric(right),
        )),
        Kind::HashJoin {
            join,
            left,
            right,
            left_keys,
            right_keys,
            condition,
        } => Box::new(join::HashJoin::new(
            *join,
            child(left),
            child(right),
            left_keys.clone(),
            right_keys.clone(),
            condition.clone(),
            (left.width, right.width),
        )),
        Kind::Filter(input, conditions) => {
            Box::new(rows::Filter::new(child(input), conditions.clone(), node.id))
        }
        Kind::Project(input, exprs) => Box::new(rows::Project::new(child(input), exprs.clone())),
        Kind::ProjectSet(input, sets, exprs) => Box::new(rows::ProjectSet::new(
            child(input),
            sets.clone(),
            exprs.clone(),
            input.width,
        )),
        Kind::Sort(input, keys) => Box::new(sort::Sort::new(child(input), keys.clone())),
        Kind::Aggregate(input, keys, calls) => Box::new(aggregate::Aggregate::new(
            child(input),
            keys.clone(),
            calls.clone(),
        )),
        Kind::Unique(input, places) => Box::new(rows::Unique::new(child(input), places.clone())),
        Kind::Limit(input, limit, offset) => {
            Box::new(rows::Limit::new(child(input), limit.clone(), offset.clone()))
        }
        Kind::Append(inputs) => Box::new(rows::Append::new(inputs.iter().map(child).collect())),
        Kind::SetOp(op, all, left, right) => {
            Box::new(rows::SetOperation::new(*op, *all, child(left), child(right)))
        }
        Kind::LockRows(input, targets, recheck) => {
            Box::new(lock::LockRows::new(child(input), targets, recheck.clone()))
        }
    };
    if counted {
        Box::new(Counted { source, id: node.id })
    } else {
        source
    }
}

/// Counts rows and time of a node, for EXPLAIN ANALYZE.
struct Counted {
    source: Box<dyn Source>,
    id: usize,
}

impl Source for Counted {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        let started = Instant::now();
        let flow = self.source.next(rt, outer, out);
        let micros = started.elapsed().as_secs_f64() * 1e6;
        if let Some(stats) = rt.stats
            && let Some(stats) = stats.borrow_mut().get_mut(self.id)
        {
            stats.loops = stats.loops.max(1);
            stats.micros += micros;
            if stats.rows == 0 {
                stats.first = stats.micros;
            }
            if matches!(flow, Ok(Flow::Row)) {
                stats.rows += 1;
            }
        }
        flow
    }

    fn rescan(&mut self, rt: &Runtime<'_>, outer: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        if let Some(stats) = rt.stats
            && let Some(stats) = stats.borrow_mut().get_mut(self.id)
        {
            stats.loops += 1;
        }
        self.source.rescan(rt, outer, param)
    }
}

/// Counts a row that a node's filter refused.
pub(crate) fn count_removed(rt: &Runtime<'_>, id: usize) {
    if let Some(stats) = rt.stats
        && let Some(stats) = stats.borrow_mut().get_mut(id)
    {
        stats.removed += 1;
    }
}
