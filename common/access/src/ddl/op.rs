//! [`DdlOp`]: executes a statement as a list of small actions, each of which may wait.
//!
//! Planning takes the locks, looks the names up in the newest catalog and refuses what PostgreSQL refuses; it changes nothing, so
//! that a wait in it is simply followed by planning again. Only then are the actions run, in order, each once. All of them
//! are ordinary changes of this transaction: an error or a rollback undoes them by MVCC, and files made meanwhile go with
//! the abort record.
//!
//! The unlinking of dropped files is left to the commit: [`Transaction::add_dropped`].

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use towline_base::{ForkKind, Oid, RelFileNode};
use towline_storage::StorageError;
use towline_types::Datum;
use towline_wal::records::invalidation::Invalidation;

use super::index_build::IndexBuild;
use super::statement::{AlterTable, DdlOutcome, Statement};
use super::{alter, drop, index, role, table};
use crate::catalog::load::{CatalogRow, Columns, oid, read_rows};
use crate::catalog::{CatalogView, Index, Table};
use crate::error::{AccessError, Result};
use crate::locks::{LockMode, LockTag};
use crate::ops::{DeleteOp, InsertOp, RowOutcome, UpdateOp};
use crate::ready;
use crate::step::Step;
use crate::txn::Transaction;

/// One change of a statement.
#[derive(Debug)]
pub(super) enum Action {
    /// A new catalog row.
    Insert(&'static str, Vec<Datum>),
    /// A catalog row gets new values.
    Update(&'static str, towline_base::Tid, Vec<Datum>),
    /// A catalog row goes.
    Delete(&'static str, towline_base::Tid),
    /// A relation's file is made.
    CreateFile(RelFileNode),
    /// A relation's file goes when the commit is durable.
    DropFile(RelFileNode),
    /// An index's file, which exists and is empty, is filled from the table; or left empty, for an empty table.
    BuildIndex {
        table: Arc<Table>,
        index: Arc<Index>,
        empty: bool,
    },
    /// Every row must have values in these columns (positions).
    CheckNotNull { table: Arc<Table>, columns: Vec<usize> },
    /// Caches forget the relation.
    Invalidate(Oid),
    /// Caches forget what they know of a catalog.
    InvalidateCatalog(u32),
}

/// An action that has begun.
#[derive(Debug)]
enum Running {
    Insert(InsertOp),
    Update(UpdateOp),
    Delete(DeleteOp),
    Build(Box<IndexBuild>),
    Check(Box<super::index_build::NullCheck>),
}

/// The actions of a plan, and what they need besides.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) actions: VecDeque<Action>,
    pub(super) outcome: DdlOutcome,
}

impl Plan {
    pub(super) fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(super) fn notice(&mut self, state: towline_base::SqlState, text: String) {
        self.outcome.notices.push((state, text));
    }
}

#[derive(Debug)]
enum Phase {
    Planning,
    Running,
    Done,
}

/// A statement being executed. Call [`DdlOp::step`] until it is done; after a wait, again.
#[derive(Debug)]
pub struct DdlOp {
    statement: Statement,
    /// Owner of what is created.
    owner: Oid,
    phase: Phase,
    /// Which action of ALTER TABLE is planned next.
    part: usize,
    actions: VecDeque<Action>,
    running: Option<Running>,
    outcome: DdlOutcome,
}

impl DdlOp {
    /// Prepares a statement on behalf of the role `owner`. Privileges were checked by the caller.
    pub fn new(statement: Statement, owner: Oid) -> DdlOp {
        DdlOp {
            statement,
            owner,
            phase: Phase::Planning,
            part: 0,
            actions: VecDeque::new(),
            running: None,
            outcome: DdlOutcome::default(),
        }
    }

    /// Goes on. After an error the transaction must be rolled back.
    pub fn step(&mut self, txn: &mut Transaction) -> Result<Step<DdlOutcome>> {
        loop {
            match self.phase {
                Phase::Planning => {
                    txn.check_writable(self.statement.tag())?;
                    // What the statement before it did is there: an index is filled with those rows too.
                    txn.next_command();
                    let plan = ready!(self.plan(txn));
                    self.part += 1;
                    self.actions = plan.actions;
                    self.outcome.notices.extend(plan.outcome.notices);
                    self.phase = Phase::Running;
                }
                Phase::Running => {
                    ready!(self.run(txn));
                    txn.next_command();
                    self.phase = if self.part < self.parts() {
                        Phase::Planning
                    } else {
                        Phase::Done
                    };
                }
                Phase::Done => return Ok(Step::Done(std::mem::take(&mut self.outcome))),
            }
        }
    }

    /// Parts that are planned one after the other, each seeing what the one before did.
    fn parts(&self) -> usize {
        match &self.statement {
            Statement::AlterTable(AlterTable { actions, .. }) => actions.len(),
            Statement::Drop(drop) => drop.names.len(),
            Statement::Truncate(truncate) => truncate.tables.len(),
            Statement::DropRole(drop) => drop.names.len(),
            _ => 1,
        }
    }

    fn plan(&self, txn: &mut Transaction) -> Result<Step<Plan>> {
        match &self.statement {
            Statement::CreateTable(statement) => table::plan_create(txn, statement, self.owner),
            Statement::CreateIndex(statement) => index::plan_create(txn, statement),
            Statement::Drop(statement) => drop::plan(txn, statement, self.part),
            Statement::Truncate(statement) => table::plan_truncate(txn, statement, self.part),
            Statement::AlterTable(statement) => alter::plan(txn, statement, self.part),
            Statement::UpdateStatistics(statement) => table::plan_statistics(txn, statement),
            Statement::CreateSchema(statement) => role::plan_create_schema(txn, statement, self.owner),
            Statement::CreateRole(statement) => role::plan_create(txn, statement),
            Statement::AlterRole(statement) => role::plan_alter(txn, statement),
            Statement::DropRole(statement) => role::plan_drop(txn, statement, self.part),
        }
    }

    fn run(&mut self, txn: &mut Transaction) -> Result<Step<()>> {
        loop {
            if let Some(running) = &mut self.running {
                ready!(run_on(running, txn));
                self.running = None;
                self.actions.pop_front();
            }
            let Some(action) = self.actions.front() else {
                return Ok(Step::Done(()));
            };
            txn.check_interrupts()?;
            self.running = begin(action, txn)?;
            if self.running.is_none() {
                ready!(at_once(action, txn));
                self.actions.pop_front();
            }
        }
    }
}

/// Begins an action that takes several steps.
fn begin(action: &Action, txn: &mut Transaction) -> Result<Option<Running>> {
    let catalog = |name: &str| Arc::clone(txn.engine().catalog().system().table(name));
    Ok(match action {
        Action::Insert(name, values) => Some(Running::Insert(InsertOp::new(catalog(name), values)?)),
        Action::Update(name, tid, values) => {
            Some(Running::Update(UpdateOp::new(catalog(name), *tid, values)?))
        }
        Action::Delete(name, tid) => Some(Running::Delete(DeleteOp::new(catalog(name), *tid))),
        Action::BuildIndex { table, index, empty } => {
            let build = IndexBuild::new(txn, Arc::clone(table), Arc::clone(index), *empty)?;
            Some(Running::Build(Box::new(build)))
        }
        Action::CheckNotNull { table, columns } => {
            let check = super::index_build::NullCheck::new(txn, Arc::clone(table), columns.clone())?;
            Some(Running::Check(Box::new(check)))
        }
        Action::CreateFile(_)
        | Action::DropFile(_)
        | Action::Invalidate(_)
        | Action::InvalidateCatalog(_) => None,
    })
}

fn run_on(running: &mut Running, txn: &mut Transaction) -> Result<Step<()>> {
    match running {
        Running::Insert(op) => Ok(op.step(txn)?.map(|_| ())),
        Running::Update(op) => unchanged(op.step(txn)?),
        Running::Delete(op) => unchanged(op.step(txn)?),
        Running::Build(op) => op.step(txn),
        Running::Check(op) => op.step(txn),
    }
}

/// A catalog row that another transaction changed meanwhile fails the statement: the locks should have prevented it.
fn unchanged(step: Step<RowOutcome>) -> Result<Step<()>> {
    match step {
        Step::Wait(wait) => Ok(Step::Wait(wait)),
        Step::Done(RowOutcome::Done(_)) => Ok(Step::Done(())),
        Step::Done(RowOutcome::Deleted) => Err(AccessError::internal("tuple concurrently deleted")),
        Step::Done(_) => Err(AccessError::internal("tuple concurrently updated")),
    }
}

/// Does an action that takes one step.
fn at_once(action: &Action, txn: &mut Transaction) -> Result<Step<()>> {
    match action {
        Action::CreateFile(node) => {
            let xid = ready!(txn.ensure_xid());
            let engine = Arc::clone(txn.engine());
            let writer = engine.writer()?;
            match engine
                .storage()
                .create_fork(&writer.permit, xid, *node, ForkKind::Main)
            {
                Ok(_) => txn.add_created(*node),
                Err(StorageError::NeedsFlush(lsn)) => return Ok(Step::Wait(engine.wait_flush(lsn))),
                Err(StorageError::NeedsQuorum(lsn)) => return Ok(Step::Wait(engine.wait_quorum(lsn))),
                Err(error) => return Err(error.into()),
            }
        }
        Action::DropFile(node) => txn.add_dropped(*node),
        Action::Invalidate(relation) => {
            txn.add_invalidation(Invalidation::Relcache {
                db: crate::DATABASE_OID,
                relation: relation.0,
            });
        }
        Action::InvalidateCatalog(catalog) => {
            txn.add_invalidation(Invalidation::Catalog {
                db: crate::DATABASE_OID,
                catalog: *catalog,
            });
        }
        Action::Insert(..)
        | Action::Update(..)
        | Action::Delete(..)
        | Action::BuildIndex { .. }
        | Action::CheckNotNull { .. } => return Err(AccessError::internal("an action was begun twice")),
    }
    Ok(Step::Done(()))
}

/// The newest catalog, own changes included.
pub(super) fn catalog(txn: &mut Transaction) -> Result<CatalogView> {
    let engine = Arc::clone(txn.engine());
    engine.catalog().view(txn)
}

/// An unused OID.
pub(super) fn new_oid(txn: &Transaction) -> Result<Oid> {
    txn.engine().catalog().new_oid(txn.engine())
}

/// Reserves a name in a schema until the end of the transaction is visible: two transactions cannot create it both.
pub(super) fn lock_name(txn: &mut Transaction, catalog: u32, schema: Oid, name: &str) -> Result<Step<()>> {
    let mut hasher = DefaultHasher::new();
    (schema.0, name).hash(&mut hasher);
    txn.lock(LockTag::Name(catalog, hasher.finish()), LockMode::Exclusive)
}

/// Keeps a schema from being dropped until the end of the transaction is visible.
pub(super) fn lock_schema(txn: &mut Transaction, schema: Oid) -> Result<Step<()>> {
    txn.lock(
        LockTag::Object(super::drop::namespace_catalog().0, schema.0),
        LockMode::AccessShare,
    )
}

/// Locks a relation.
pub(super) fn lock_relation(txn: &mut Transaction, relation: Oid, mode: LockMode) -> Result<Step<()>> {
    txn.lock(LockTag::Relation(relation.0), mode)
}

/// The rows of a catalog whose oid column `column` is `value`.
pub(super) fn rows_where(
    txn: &mut Transaction,
    catalog: &'static str,
    column: &str,
    value: Oid,
) -> Result<Vec<CatalogRow>> {
    let at = Columns::of(catalog).at(column);
    let engine = Arc::clone(txn.engine());
    let snapshot = txn.latest_snapshot();
    let mut found = Vec::new();
    read_rows(
        &engine,
        engine.catalog().system().table(catalog),
        &snapshot,
        &txn.combos,
        &mut |row| {
            if oid(&row.values, at) == value {
                found.push(row);
            }
            Ok(())
        },
    )?;
    Ok(found)
}

/// Plans an update of the one row of a catalog whose oid column `column` is `value`.
pub(super) fn update_row(
    txn: &mut Transaction,
    plan: &mut Plan,
    catalog: &'static str,
    column: &str,
    value: Oid,
    changes: &[(&str, Datum)],
) -> Result<()> {
    let columns = Columns::of(catalog);
    for mut row in rows_where(txn, catalog, column, value)? {
        for (name, value) in changes {
            row.values[columns.at(name)] = value.clone();
        }
        plan.push(Action::Update(catalog, row.tid, row.values));
    }
    Ok(())
}

/// Plans the removal of the rows of a catalog whose oid column `column` is `value`.
pub(super) fn delete_rows(
    txn: &mut Transaction,
    plan: &mut Plan,
    catalog: &'static str,
    column: &str,
    value: Oid,
) -> Result<()> {
    for row in rows_where(txn, catalog, column, value)? {
        plan.push(Action::Delete(catalog, row.tid));
    }
    Ok(())
}
