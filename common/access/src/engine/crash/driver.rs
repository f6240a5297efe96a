//! Workloads in small steps, and what is promised at each moment of them.

use std::sync::Arc;

use parking_lot::Mutex;
use towline_base::vfs::CrashVfs;
use towline_types::{ColumnType, Datum, TypeId};

use super::node::{Contents, Failure, Node, State, find_row, is_large, large, long, text};
use super::sweep::Sweep;
use crate::CommitLevel;
use crate::catalog::{BOOTSTRAP_SUPERUSER, Table};
use crate::ddl::{
    CreateIndex, CreateTable, DdlOp, Drop, DropKind, NewColumn, NewConstraint, NewIndexKey, QualifiedName,
    Statement, Truncate,
};
use crate::ops::{DeleteOp, InsertOp, UpdateOp};
use crate::vacuum::{VacuumOp, VacuumOptions, VacuumStep};
use crate::{Step, Transaction};

/// What a start must find: the sure state, or one of those that may have become durable since, in this order.
#[derive(Clone, Debug, Default)]
pub(super) struct Promise {
    pub(super) sure: Arc<State>,
    pub(super) maybe: Vec<Arc<State>>,
}

impl Promise {
    pub(super) fn allows(&self, found: &State) -> bool {
        *self.sure == *found || self.maybe.iter().any(|state| **state == *found)
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Commit(CommitLevel),
    /// Commits, and nobody waits for the answer.
    Unanswered(CommitLevel),
    Rollback,
}

/// Commits and waits for the answer.
pub(super) const COMMIT: End = End::Commit(CommitLevel::On);

/// A node at work, its state, and what it has promised.
pub(super) struct Driver {
    pub(super) node: Node,
    /// As its own transactions see it.
    pub(super) state: State,
    pub(super) promise: Arc<Mutex<Promise>>,
    /// Length of the texts of new rows.
    pub(super) text_length: usize,
    /// Judges, between two steps, what the boundaries of the last one could have left.
    pub(super) sweep: Option<Sweep>,
}

impl Driver {
    /// Starts on a disk, whose state becomes what is promised.
    pub(super) fn start(vfs: &CrashVfs) -> Result<Driver, Failure> {
        Driver::of(Node::start(vfs)?)
    }

    /// Works on a node, whose state becomes what is promised.
    pub(super) fn of(node: Node) -> Result<Driver, Failure> {
        let state = node.contents()?;
        let promise = Promise {
            sure: Arc::new(state.clone()),
            maybe: Vec::new(),
        };
        Ok(Driver {
            node,
            state,
            promise: Arc::new(Mutex::new(promise)),
            text_length: 20,
            sweep: None,
        })
    }

    /// Between two steps.
    fn settle(&self) -> Result<(), Failure> {
        self.sweep.as_ref().map_or(Ok(()), Sweep::judge_seen)
    }

    fn the_table(&self, name: &str) -> Result<Arc<Table>, Failure> {
        self.node
            .table(name)?
            .ok_or_else(|| format!("there is no table {name}"))
    }

    /// Ends a transaction that has made `after` of the state.
    fn end(&mut self, mut txn: Transaction, after: State, end: End) -> Result<(), Failure> {
        let (level, is_answered) = match end {
            End::Commit(level) => (level, level != CommitLevel::Off),
            End::Unanswered(level) => (level, false),
            End::Rollback => {
                txn.rollback();
                return self.settle();
            }
        };
        // From here on it may become durable, but nobody knows yet.
        self.promise.lock().maybe.push(Arc::new(after.clone()));
        let lsn = self.node.drive(&mut txn, |txn| txn.commit(level))?;
        drop(txn);
        if is_answered {
            self.node.await_now(self.node.engine.release().wait(lsn, level))?;
            *self.promise.lock() = Promise {
                sure: Arc::new(after.clone()),
                maybe: Vec::new(),
            };
        }
        self.state = after;
        self.settle()
    }

    /// The text of a row whose version before this one was `old`: a value out of line that stays the same is carried, not written anew.
    fn text_of(&self, table: &Table, id: i32, value: i32, old: &[Datum]) -> Datum {
        if !is_large(table) {
            return Datum::text(&long(id, self.text_length));
        }
        match old {
            [_, Datum::Int4(before), text @ Datum::External(_)]
                if before.div_euclid(10) == value.div_euclid(10) =>
            {
                text.clone()
            }
            _ => Datum::text(&large(id, value)),
        }
    }

    /// One transaction over rows of one table: a value to put, or none to delete.
    pub(super) fn change(
        &mut self,
        table: &str,
        changes: &[(i32, Option<i32>)],
        end: End,
    ) -> Result<(), Failure> {
        let (name, table) = (table, self.the_table(table)?);
        let mut after = self.state.clone();
        let mut txn = self.node.begin()?;
        let known = after.entry(name.to_owned()).or_default();
        for (id, value) in changes {
            let there = if known.rows.contains_key(id) {
                let found = find_row(&mut txn, &table, *id)?;
                Some(found.ok_or_else(|| format!("row {id} of {name} is lost"))?)
            } else {
                None
            };
            txn.begin_statement();
            let row = |value: i32, old: &[Datum]| {
                let text = self.text_of(&table, *id, value, old);
                [Datum::Int4(*id), Datum::Int4(value), text]
            };
            match (there, value) {
                (None, Some(value)) => {
                    let mut op = InsertOp::new(Arc::clone(&table), &row(*value, &[])).map_err(text)?;
                    self.node.drive(&mut txn, |txn| op.step(txn))?;
                    known.rows.insert(*id, *value);
                }
                (Some((tid, old)), Some(value)) => {
                    let mut op = UpdateOp::new(Arc::clone(&table), tid, &row(*value, &old)).map_err(text)?;
                    self.node.drive(&mut txn, |txn| op.step(txn))?;
                    known.rows.insert(*id, *value);
                }
                (Some((tid, _)), None) => {
                    let mut op = DeleteOp::new(Arc::clone(&table), tid);
                    self.node.drive(&mut txn, |txn| op.step(txn))?;
                    known.rows.remove(id);
                }
                (None, None) => {}
            }
        }
        self.end(txn, after, end)
    }

    /// One transaction over the catalog.
    fn ddl(
        &mut self,
        statement: Statement,
        end: End,
        effect: impl FnOnce(&mut State),
    ) -> Result<(), Failure> {
        let mut after = self.state.clone();
        effect(&mut after);
        let mut txn = self.node.begin()?;
        txn.begin_statement();
        let mut op = DdlOp::new(statement, BOOTSTRAP_SUPERUSER);
        self.node.drive(&mut txn, |txn| op.step(txn))?;
        self.end(txn, after, end)
    }

    /// `create table name (id int primary key, value int, text text unique)`.
    pub(super) fn create(&mut self, name: &str, end: End) -> Result<(), Failure> {
        self.create_table(name, "text", &[(true, "id"), (false, "text")], end)
    }

    /// `create table name (id int primary key, value int, large text)`, for values out of line.
    pub(super) fn create_large(&mut self, name: &str, end: End) -> Result<(), Failure> {
        self.create_table(name, "large", &[(true, "id")], end)
    }

    fn create_table(
        &mut self,
        name: &str,
        last: &str,
        keys: &[(bool, &str)],
        end: End,
    ) -> Result<(), Failure> {
        let column = |name: &str, id| NewColumn {
            name: name.into(),
            column_type: ColumnType::from(id),
            not_null: false,
            default: None,
        };
        let key = |(primary, column): &(bool, &str)| NewConstraint {
            primary: *primary,
            name: None,
            columns: vec![(*column).into()],
            fillfactor: None,
        };
        let indexes = keys.len();
        let statement = Statement::CreateTable(CreateTable {
            name: QualifiedName::new(name),
            if_not_exists: false,
            columns: vec![
                column("id", TypeId::Int4),
                column("value", TypeId::Int4),
                column(last, TypeId::Text),
            ],
            constraints: keys.iter().map(key).collect(),
            fillfactor: None,
        });
        self.ddl(statement, end, |state| {
            let contents = Contents {
                indexes,
                ..Contents::default()
            };
            state.insert(name.to_owned(), contents);
        })
    }

    /// `create index on name (value desc)`.
    pub(super) fn index(&mut self, name: &str, end: End) -> Result<(), Failure> {
        let statement = Statement::CreateIndex(CreateIndex {
            name: None,
            if_not_exists: false,
            table: QualifiedName::new(name),
            unique: false,
            keys: vec![NewIndexKey {
                column: "value".into(),
                descending: true,
                nulls_first: true,
            }],
            fillfactor: None,
        });
        self.ddl(statement, end, |state| {
            state.entry(name.to_owned()).or_default().indexes += 1;
        })
    }

    pub(super) fn drop_table(&mut self, name: &str, end: End) -> Result<(), Failure> {
        let statement = Statement::Drop(Drop {
            kind: DropKind::Table,
            names: vec![QualifiedName::new(name)],
            if_exists: false,
            cascade: false,
        });
        self.ddl(statement, end, |state| {
            state.remove(name);
        })
    }

    pub(super) fn truncate(&mut self, name: &str, end: End) -> Result<(), Failure> {
        let statement = Statement::Truncate(Truncate {
            tables: vec![QualifiedName::new(name)],
        });
        self.ddl(statement, end, |state| {
            state.entry(name.to_owned()).or_default().rows.clear();
        })
    }

    pub(super) fn vacuum(&mut self, name: &str) -> Result<(), Failure> {
        let table = self.the_table(name)?;
        let mut txn = self.node.begin()?;
        let mut op = VacuumOp::new(&txn, table, VacuumOptions::freezing(true)).map_err(text)?;
        loop {
            let done = self.node.drive(&mut txn, |txn| {
                Ok(match op.step(txn)? {
                    VacuumStep::Done(_) => Step::Done(true),
                    VacuumStep::More => Step::Done(false),
                    VacuumStep::Wait(wait) => Step::Wait(wait),
                })
            })?;
            if done {
                return self.settle();
            }
            if op.is_cutting() {
                // A cut looks at the quorum by itself, and lets others run meanwhile.
                self.node.flush()?;
            }
        }
    }

    pub(super) fn checkpoint(&mut self) -> Result<(), Failure> {
        self.node.checkpoint()?;
        self.all_is_durable();
        self.settle()
    }

    /// What was committed without waiting has become durable with something else.
    fn all_is_durable(&self) {
        let mut promise = self.promise.lock();
        if let Some(newest) = promise.maybe.last().cloned() {
            *promise = Promise {
                sure: newest,
                maybe: Vec::new(),
            };
        }
    }

    pub(super) fn switch_segment(&mut self) -> Result<(), Failure> {
        let writer = self.node.engine.writer().map_err(text)?;
        writer.wal.switch_segment(&writer.permit).map_err(text)?;
        self.node.flush()?;
        self.all_is_durable();
        self.settle()
    }
}
