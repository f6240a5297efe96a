//! Running one portal: plan, lock, snapshot, rows, tag; resumable at every point.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Instant;

use towline_access::catalog::{CatalogView, Table};
use towline_access::locks::{LockMode, LockTag};
use towline_access::{Snapshot, Step, Transaction, Wait};
use towline_base::SqlState;
use towline_types::{ColumnType, Datum};
use towline_wal::ImageOverride;

use super::context::SessionContext;
use super::copy_in::CopyIn;
use super::nested::MAX_EXECUTES;
use super::prepared::Prepared;
use super::utility::Utility;
use super::{Session, encode};
use crate::bind::{self, BindContext};
use crate::error::SqlError;
use crate::exec::modify::ChangeState;
use crate::exec::{self, Flow, NodeStats, Row, Runtime, Source, SubplanState};
use crate::parse::ast::Statement;
use crate::plan::{self, Plan, PlanBody};
use crate::sink::{CommandTag, CopyShape, RowSink};
use crate::stack;

/// What running a portal came to.
pub(crate) enum Progress {
    /// Finished.
    Done(Outcome),
    /// `max_rows` rows were given.
    Suspended,
    /// Await and go on.
    Wait(Wait),
    /// Let others run and go on.
    Yield,
    /// COPY wants data.
    CopyIn(CopyShape),
}

/// How a finished portal is answered.
pub(crate) enum Outcome {
    /// `CommandComplete`
    Tag(CommandTag),
    /// `EmptyQueryResponse`
    Empty,
}

/// A statement with its parameters, and how far it is.
pub(crate) struct Portal {
    pub(crate) prepared: Arc<Prepared>,
    pub(crate) params: Vec<Datum>,
    pub(crate) formats: Vec<i16>,
    pub(crate) stage: Stage,
    /// The simple protocol announces its columns itself.
    pub(crate) announces: bool,
    /// It is done, but the answer waits for `pg_sleep`.
    pub(crate) finished: Option<Outcome>,
    /// How it answered when it ended; asked to run again, it has no more rows.
    pub(crate) tag: Option<CommandTag>,
    /// How often EXECUTE has put another statement in its place.
    pub(crate) replaced: u32,
}

/// How far a portal is.
pub(crate) enum Stage {
    Start,
    /// Relations up to this one are locked.
    Locking(CatalogView, Arc<Plan>, usize),
    Running(Box<Execution>),
    Utility(Box<Utility>),
    CopyIn(Box<CopyIn>),
    Done,
}

/// Where the rows of an execution go.
pub(crate) enum Target {
    /// To the client.
    Rows,
    /// COPY TO: to the client, as COPY data.
    Copy(Box<super::copy_out::CopyOut>),
    /// EXPLAIN ANALYZE: nowhere.
    Count,
}

/// A running plan.
pub(crate) struct Execution {
    plan: Arc<Plan>,
    view: CatalogView,
    snapshot: Snapshot,
    source: Option<Box<dyn Source>>,
    change: Option<ChangeState>,
    subplans: Vec<RefCell<SubplanState>>,
    memory: Cell<usize>,
    types: Vec<ColumnType>,
    row: Row,
    /// Rows given.
    given: u64,
    /// Rows given by earlier Executes of the same portal.
    before: u64,
    target: Target,
    stats: Option<RefCell<Vec<NodeStats>>>,
    /// An earlier execution of the same plan left its memory: its nodes begin anew.
    again: bool,
    pub(crate) started: Instant,
}

impl Execution {
    pub(crate) fn new(
        plan: Arc<Plan>,
        view: CatalogView,
        snapshot: Snapshot,
        target: Target,
        counted: bool,
    ) -> Self {
        let (source, change) = match &plan.body {
            PlanBody::Query(node) => (Some(exec::build(node, counted)), None),
            PlanBody::Change(change) => (None, Some(ChangeState::new(change, counted))),
        };
        let subplans = plan
            .subplans
            .iter()
            .map(|plan| RefCell::new(SubplanState::new(plan, counted)))
            .collect();
        let types = plan.columns.iter().map(|column| column.ty).collect();
        let stats = counted.then(|| RefCell::new(vec![NodeStats::default(); plan.nodes]));
        Execution {
            plan,
            view,
            snapshot,
            source,
            change,
            subplans,
            memory: Cell::new(0),
            types,
            row: Vec::new(),
            given: 0,
            before: 0,
            target,
            stats,
            again: false,
            started: Instant::now(),
        }
    }

    /// Makes a finished execution ready to be run again, in another transaction perhaps.
    fn begin_again(&mut self, view: CatalogView, snapshot: Snapshot) {
        self.view = view;
        self.snapshot = snapshot;
        self.given = 0;
        self.before = 0;
        self.memory.set(0);
        self.again = true;
    }

    pub(crate) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    pub(crate) fn stats(&self) -> Vec<NodeStats> {
        self.stats
            .as_ref()
            .map(|stats| stats.borrow().clone())
            .unwrap_or_default()
    }

    /// Rows changed, or given.
    pub(crate) fn count(&self) -> u64 {
        self.change.as_ref().map_or(self.given, |change| change.count)
    }

    /// Goes on until the end, `max_rows` more rows, or a pause.
    pub(crate) fn run(
        &mut self,
        session: &mut Session,
        params: &[Datum],
        formats: &[i16],
        max_rows: u64,
        out: &mut dyn RowSink,
    ) -> Result<Progress, SqlError> {
        let Some(mut txn) = session.txn.take() else {
            return Err(SqlError::internal("a portal runs without a transaction"));
        };
        // What this Execute has given before a pause counts.
        let wanted = if max_rows == 0 {
            u64::MAX
        } else {
            max_rows.saturating_sub(self.given - self.before)
        };
        let result = {
            let context = SessionContext::new(session, &self.view);
            let rt = Runtime::new(
                &mut txn,
                self.snapshot,
                params,
                &session.style,
                &context,
                &context,
                &self.subplans,
                &self.plan,
                self.stats.as_ref(),
                &self.memory,
            );
            let restarted = match &mut self.change {
                Some(change) if std::mem::take(&mut self.again) => change.restart(&rt),
                _ => Ok(()),
            };
            restarted.and_then(|()| {
                run_slice(
                    &rt,
                    (&mut self.source, &mut self.change),
                    (&mut self.row, &mut self.given, &mut self.target),
                    &self.types,
                    formats,
                    wanted,
                    out,
                )
            })
        };
        session.txn = Some(txn);
        match result? {
            Some(Progress::Suspended) => {
                self.before = self.given;
                Ok(Progress::Suspended)
            }
            Some(progress) => Ok(progress),
            None => Ok(Progress::Done(Outcome::Tag(self.tag()))),
        }
    }

    fn tag(&self) -> CommandTag {
        // What gives rows counts those of the last Execute.
        let count = if self.plan.returns_rows {
            self.given - self.before
        } else {
            self.count()
        };
        match self.plan.body_kind() {
            "INSERT" => CommandTag::Rows("INSERT 0", count),
            "UPDATE" => CommandTag::Rows("UPDATE", count),
            "DELETE" => CommandTag::Rows("DELETE", count),
            _ if matches!(self.target, Target::Copy(_)) => CommandTag::Rows("COPY", count),
            _ => CommandTag::Rows("SELECT", count),
        }
    }
}

/// One slice of work; `None` = finished.
fn run_slice(
    rt: &Runtime<'_>,
    (source, change): (&mut Option<Box<dyn Source>>, &mut Option<ChangeState>),
    (row, given, target): (&mut Row, &mut u64, &mut Target),
    types: &[ColumnType],
    formats: &[i16],
    wanted: u64,
    out: &mut dyn RowSink,
) -> Result<Option<Progress>, SqlError> {
    let mut left = wanted;
    let mut give = |row: &[Datum], given: &mut u64, out: &mut dyn RowSink| -> Result<(), SqlError> {
        match target {
            Target::Rows => {
                encode::data_row(row, types, formats, rt.style, rt.functions, out.buffer())?;
            }
            Target::Copy(copy) => copy.row(row, types, rt.style, rt.functions, out.buffer())?,
            Target::Count => {}
        }
        *given += 1;
        Ok(())
    };
    if let (Some(state), PlanBody::Change(plan)) = (change, &rt.plan.body) {
        if *given == 0 {
            match state.step(rt, plan)? {
                Flow::Wait(wait) => return Ok(Some(Progress::Wait(wait))),
                Flow::Yield => return Ok(Some(Progress::Yield)),
                Flow::Row | Flow::End => {}
            }
        }
        while let Some(returned) = state.returned.get(usize::try_from(*given).unwrap_or(usize::MAX)) {
            if left == 0 {
                return Ok(Some(Progress::Suspended));
            }
            if out.is_full() {
                return Ok(Some(Progress::Yield));
            }
            left -= 1;
            give(returned, given, out)?;
        }
        return Ok(None);
    }
    let Some(source) = source else { return Ok(None) };
    loop {
        if left == 0 {
            return Ok(Some(Progress::Suspended));
        }
        match source.next(rt, &[], row)? {
            Flow::Row => {
                give(row, given, out)?;
                left -= 1;
            }
            Flow::End => return Ok(None),
            Flow::Wait(wait) => return Ok(Some(Progress::Wait(wait))),
            Flow::Yield => return Ok(Some(Progress::Yield)),
        }
        // The row that was just given stays counted; only a full buffer pauses between two.
        if left > 0 && out.is_full() {
            return Ok(Some(Progress::Yield));
        }
    }
}

impl Plan {
    /// The word of the command tag.
    pub(crate) fn body_kind(&self) -> &'static str {
        match &self.body {
            PlanBody::Query(_) => "SELECT",
            PlanBody::Change(change) => match &**change {
                plan::Change::Insert { .. } => "INSERT",
                plan::Change::Modify { delete: true, .. } => "DELETE",
                plan::Change::Modify { .. } => "UPDATE",
            },
        }
    }
}

impl Portal {
    pub(crate) fn new(
        prepared: Arc<Prepared>,
        params: Vec<Datum>,
        formats: Vec<i16>,
        announces: bool,
    ) -> Self {
        Portal {
            prepared,
            params,
            formats,
            stage: Stage::Start,
            announces,
            finished: None,
            tag: None,
            replaced: 0,
        }
    }

    /// Whether it has ended and cannot be run again: what it does is not the giving of rows.
    pub(crate) fn is_spent(&self) -> bool {
        self.tag.is_some() && self.prepared.columns.is_none()
    }
}

impl Session {
    /// Runs a portal up to its end, `max_rows` rows, or a pause.
    pub(crate) fn run_portal(
        &mut self,
        portal: &mut Portal,
        max_rows: u64,
        out: &mut dyn RowSink,
    ) -> Result<Progress, SqlError> {
        self.refresh_style();
        let _images = self.images.map(ImageOverride::enter);
        loop {
            match std::mem::replace(&mut portal.stage, Stage::Done) {
                Stage::Start => {
                    match self.start_portal(portal, out) {
                        Ok(None) => {}
                        Ok(Some(outcome)) => return Ok(Progress::Done(outcome)),
                        Err(error)
                            if !self.deep
                                && portal.replaced <= MAX_EXECUTES
                                && stack::wants_deep_stack(&error) =>
                        {
                            // No tree may outlive the stack it was made on: the next call has a deep one.
                            self.deep = true;
                            portal.stage = Stage::Start;
                            return Ok(Progress::Yield);
                        }
                        Err(error) => return Err(error),
                    }
                    // A lock to wait for before it can be started at all.
                    if let Some(wait) = self.pending_wait.take() {
                        return Ok(Progress::Wait(wait));
                    }
                }
                Stage::Locking(view, plan, at) => {
                    if let Some(progress) = self.lock_relations(portal, view, plan, at, out)? {
                        return Ok(progress);
                    }
                }
                Stage::Running(mut execution) => {
                    let progress = execution.run(self, &portal.params, &portal.formats, max_rows, out)?;
                    if let Progress::Done(Outcome::Tag(tag)) = &progress {
                        if let Target::Copy(_) = execution.target {
                            out.copy_done();
                        }
                        let tag = tag.clone();
                        if execution.plan.is_by_key() && execution.stats.is_none() {
                            *portal.prepared.spare.lock() = Some(execution);
                        }
                        return Ok(Progress::Done(Outcome::Tag(tag)));
                    }
                    portal.stage = Stage::Running(execution);
                    return Ok(progress);
                }
                Stage::Utility(mut utility) => {
                    let progress = utility.step(self, out)?;
                    if !matches!(progress, Progress::Done(_)) {
                        portal.stage = Stage::Utility(utility);
                    }
                    return Ok(progress);
                }
                Stage::CopyIn(mut copy) => {
                    let progress = copy.step(self, out)?;
                    if !matches!(progress, Progress::Done(_)) {
                        portal.stage = Stage::CopyIn(copy);
                    }
                    return Ok(progress);
                }
                Stage::Done => {
                    return Ok(Progress::Done(match &portal.tag {
                        Some(CommandTag::Rows(word, _)) => Outcome::Tag(CommandTag::Rows(word, 0)),
                        Some(tag) => Outcome::Tag(tag.clone()),
                        None => Outcome::Empty,
                    }));
                }
            }
        }
    }

    /// Decides what a portal does; Some: it is done already.
    fn start_portal(
        &mut self,
        portal: &mut Portal,
        out: &mut dyn RowSink,
    ) -> Result<Option<Outcome>, SqlError> {
        let prepared = portal.prepared.clone();
        let Some(statement) = &prepared.statement else {
            return Ok(Some(Outcome::Empty));
        };
        self.check_not_failed(statement)?;
        self.refresh_style();
        if writes(statement) && self.must_wait_to_write() {
            portal.stage = Stage::Start;
            return Ok(None);
        }
        if is_data(statement) {
            self.ensure_transaction()?;
            self.queried = true;
            let (view, plan) = self.plan_for(&prepared)?;
            self.check_writable(&plan)?;
            // In a subquery, the lock is known only now.
            if plan.locks_rows && self.must_wait_to_write() {
                portal.stage = Stage::Start;
                return Ok(None);
            }
            self.held.runs(&plan);
            portal.stage = Stage::Locking(view, plan, 0);
            return Ok(None);
        }
        self.held.runs_other();
        portal.stage = self.start_utility(portal, statement, out)?;
        self.queried |= takes_snapshot(statement);
        Ok(None)
    }

    /// Whether what this primary's log held at its start is not released yet; then there is a wait for that, to be taken before the
    /// statement sees anything. A statement that will be refused need not wait.
    fn must_wait_to_write(&mut self) -> bool {
        if self.txn.as_ref().is_some_and(Transaction::is_read_only) {
            return false;
        }
        self.pending_wait = self.engine.wait_to_write();
        self.pending_wait.is_some()
    }

    pub(crate) fn check_writable(&mut self, plan: &Plan) -> Result<(), SqlError> {
        let Some(txn) = &self.txn else { return Ok(()) };
        if matches!(plan.body, PlanBody::Change(_)) {
            txn.check_writable(plan.body_kind())?;
        } else if plan.locks_rows {
            txn.check_writable("SELECT FOR UPDATE")?;
        }
        Ok(())
    }

    /// A plan that fits the catalog as the transaction sees it now.
    pub(crate) fn plan_for(
        &mut self,
        prepared: &Arc<Prepared>,
    ) -> Result<(CatalogView, Arc<Plan>), SqlError> {
        let view = self.catalog_view()?;
        if let Some(plan) = prepared.plan(&view, self.settings_version.get())
            && self.sees_through_indexes(&plan)
        {
            return Ok((view, plan));
        }
        let Some(statement) = &prepared.statement else {
            return Err(SqlError::internal("an empty plan"));
        };
        let params = (prepared.params.clone(), !prepared.params.is_empty());
        let plan = self.make_plan(statement, &prepared.text, params, &view, false)?;
        if let Some(columns) = &prepared.columns {
            let same = columns.len() == plan.columns.len()
                && columns
                    .iter()
                    .zip(&plan.columns)
                    .all(|(old, new)| old.ty == new.ty && old.name == new.name);
            if !same {
                return Err(SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "cached plan must not change result type",
                ));
            }
        }
        // A plan that avoids an index for an old snapshot is for this transaction only.
        if self.sees_through_indexes(&plan) {
            prepared.set_plan(view.clone(), self.settings_version.get(), plan.clone());
        }
        Ok((view, plan))
    }

    /// The snapshot of a REPEATABLE READ transaction that has one already.
    fn held_snapshot(&mut self) -> Option<towline_base::Lsn> {
        let txn = self.txn.as_mut()?;
        let held = txn.isolation() == towline_access::Isolation::RepeatableRead && txn.has_snapshot();
        held.then(|| txn.snapshot().lsn)
    }

    /// Whether every index of the plan's tables can be used with the snapshot.
    fn sees_through_indexes(&mut self, plan: &Plan) -> bool {
        let Some(snapshot) = self.held_snapshot() else {
            return true;
        };
        plan.relations
            .iter()
            .all(|(table, _)| table.indexes.iter().all(|index| index.usable_at(snapshot)))
    }

    /// Binds and plans a data statement with parameters of these types; true: further ones may be met.
    pub(crate) fn make_plan(
        &mut self,
        statement: &Statement,
        text: &str,
        params: (Vec<towline_types::TypeId>, bool),
        view: &CatalogView,
        explain: bool,
    ) -> Result<Arc<Plan>, SqlError> {
        let (params, allow) = params;
        let path = self.search_path();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let cx = BindContext {
            text,
            catalog: view,
            search_path: &path,
            style: &self.style,
            params: allow,
        };
        let bound = bind::bind(statement, params, cx)?;
        let snapshot = self.held_snapshot();
        let statistics = super::statistics::Live {
            engine: &self.engine,
            snapshot,
        };
        let plan = plan::plan(bound, &statistics, explain)?;
        let secret = |table: &Table| table.is_system() && &*table.name == "pg_authid";
        if !self.role.superuser && plan.relations.iter().any(|(table, _)| secret(table)) {
            // What a password is checked against is for superusers, as in PostgreSQL; pg_roles is for all.
            return Err(SqlError::denied("permission denied for table pg_authid"));
        }
        Ok(Arc::new(plan))
    }

    fn lock_relations(
        &mut self,
        portal: &mut Portal,
        view: CatalogView,
        plan: Arc<Plan>,
        mut at: usize,
        out: &mut dyn RowSink,
    ) -> Result<Option<Progress>, SqlError> {
        if let Some(wait) = self.lock_for(&plan, &mut at)? {
            portal.stage = Stage::Locking(view, plan, at);
            return Ok(Some(Progress::Wait(wait)));
        }
        // A lock that waited may have let a change of the catalog pass.
        if !self.catalog_view()?.is_same(&view) {
            portal.stage = Stage::Start;
            return Ok(None);
        }
        if portal.announces && plan.returns_rows {
            out.row_description(&super::prepared::describe(&plan.columns, &portal.formats));
        }
        if let (Some(point), Some(txn)) = (plan.point().filter(|_| plan.subplans.is_empty()), &mut self.txn) {
            let mut memory = portal.prepared.lookup.lock();
            let answered = point.read(
                txn,
                &mut memory,
                &portal.params,
                &portal.formats,
                &self.style,
                out,
            )?;
            if let Some(rows) = answered {
                return Ok(Some(Progress::Done(Outcome::Tag(CommandTag::Rows(
                    "SELECT", rows,
                )))));
            }
        }
        let snapshot = self.begin_statement()?;
        let spare = portal.prepared.spare.lock().take();
        let execution = match spare {
            Some(mut execution) if Arc::ptr_eq(&execution.plan, &plan) => {
                execution.begin_again(view, snapshot);
                execution
            }
            _ => Box::new(Execution::new(plan, view, snapshot, Target::Rows, false)),
        };
        portal.stage = Stage::Running(execution);
        Ok(None)
    }

    /// Locks the relations of a plan, from the `at`-th on.
    pub(crate) fn lock_for(&mut self, plan: &Plan, at: &mut usize) -> Result<Option<Wait>, SqlError> {
        while let Some((table, changed)) = plan.relations.get(*at) {
            let mode = if *changed {
                LockMode::RowExclusive
            } else if plan.locks_rows {
                LockMode::RowShare
            } else {
                LockMode::AccessShare
            };
            // The catalog is never dropped or truncated: it needs no lock.
            if !table.is_system() {
                let Some(txn) = &mut self.txn else { return Ok(None) };
                if let Step::Wait(wait) = txn.lock(LockTag::Relation(table.oid.0), mode)? {
                    return Ok(Some(wait));
                }
            }
            *at += 1;
        }
        Ok(None)
    }

    pub(crate) fn begin_statement(&mut self) -> Result<Snapshot, SqlError> {
        match &mut self.txn {
            Some(txn) => Ok(txn.begin_statement()),
            None => Err(SqlError::internal("no transaction")),
        }
    }
}

/// Whether PostgreSQL takes a snapshot for a statement, after which its transaction's isolation level is
/// fixed.
fn takes_snapshot(statement: &Statement) -> bool {
    !matches!(
        statement,
        Statement::Begin(..)
            | Statement::Commit(_)
            | Statement::Rollback(_)
            | Statement::SetTransaction(..)
            | Statement::Set(..)
            | Statement::Show(_)
            | Statement::Reset(_)
            | Statement::Lock(..)
            | Statement::Checkpoint
            | Statement::WaitForLsn(..)
    )
}

/// Whether a statement changes rows or the catalog, or locks rows, as far as its text tells.
fn writes(statement: &Statement) -> bool {
    match statement {
        Statement::Insert(_)
        | Statement::Update(_)
        | Statement::Delete(_)
        | Statement::CreateTable(_)
        | Statement::DropTable(..)
        | Statement::DropIndex(..)
        | Statement::Truncate(_)
        | Statement::AlterTable(..)
        | Statement::CreateIndex(_)
        | Statement::CreateRole(..)
        | Statement::AlterRole(..)
        | Statement::DropRole(..) => true,
        Statement::Query(query) => !query.locking.is_empty(),
        Statement::Copy(copy) => copy.from,
        Statement::Explain(options, statement) => options.analyze && writes(statement),
        _ => false,
    }
}

/// Statements that the planner handles.
pub(crate) fn is_data(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_)
    )
}
