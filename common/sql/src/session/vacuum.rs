//! VACUUM and ANALYZE, table by table, each in a transaction of its own so that no snapshot holds the horizon back.
//!
//! ANALYZE inside of a block stays in the block's transaction. It counts what VACUUM counted, or scans the table once;
//! column statistics are not built yet: the planner works with sizes.

use std::sync::Arc;

use towline_access::catalog::Table;
use towline_access::heap::HeapScan;
use towline_access::locks::{LockMode, LockTag};
use towline_access::vacuum::{SizesOp, VacuumOp, VacuumOptions as Asked, VacuumStep};
use towline_access::{Snapshot, Step};
use towline_base::settings::{Key, keys};

use super::Session;
use super::run::{Outcome, Progress};
use super::transaction::{Block, Commit};
use crate::error::{Notice, Severity, SqlError};
use crate::parse::ast::VacuumOptions;
use crate::sink::CommandTag;

/// Pages read before others may run.
const PAGES_PER_SLICE: u32 = 256;

enum Phase {
    /// To be locked.
    Lock,
    Vacuum(Box<VacuumOp>),
    /// Counting rows.
    Count(Box<HeapScan>, Snapshot, u64),
    /// Sizes to be written: the table's, then its TOAST table's.
    Write(SizesOp, Option<SizesOp>),
    Commit(Commit),
}

/// A VACUUM or ANALYZE under way.
pub(crate) struct Vacuum {
    options: VacuumOptions,
    tables: Vec<Arc<Table>>,
    at: usize,
    phase: Phase,
    /// Each table has its own transaction.
    apart: bool,
    begun: bool,
}

impl Vacuum {
    pub(crate) fn new(options: VacuumOptions, tables: Vec<Arc<Table>>) -> Self {
        Vacuum {
            options,
            tables,
            at: 0,
            phase: Phase::Lock,
            apart: false,
            begun: false,
        }
    }

    /// Goes on.
    pub(crate) fn step(&mut self, session: &mut Session) -> Result<Progress, SqlError> {
        let tag = if self.options.vacuum { "VACUUM" } else { "ANALYZE" };
        if !std::mem::replace(&mut self.begun, true) {
            self.apart = session.block == Block::Idle && !session.in_implicit_block();
            if self.apart {
                session.abort();
            }
        }
        while let Some(table) = self.tables.get(self.at).cloned() {
            session.ensure_transaction()?;
            if let Some(progress) = self.step_table(session, &table)? {
                return Ok(progress);
            }
        }
        Ok(Progress::Done(Outcome::Tag(CommandTag::Word(tag))))
    }

    fn step_table(
        &mut self,
        session: &mut Session,
        table: &Arc<Table>,
    ) -> Result<Option<Progress>, SqlError> {
        if let Phase::Commit(commit) = &mut self.phase {
            if self.apart
                && let Some(wait) = session.step_commit(commit)?
            {
                return Ok(Some(Progress::Wait(wait)));
            }
            self.at += 1;
            self.phase = Phase::Lock;
            return Ok(None);
        }
        let Some(txn) = &mut session.txn else {
            return Err(SqlError::internal("no transaction"));
        };
        match &mut self.phase {
            Phase::Lock => {
                let mode = if self.options.vacuum || self.apart {
                    LockMode::ShareUpdateExclusive
                } else {
                    LockMode::AccessShare
                };
                if let Step::Wait(wait) = txn.lock(LockTag::Relation(table.oid.0), mode)? {
                    return Ok(Some(Progress::Wait(wait)));
                }
                // It may have been dropped, or got another file, while we waited.
                let view = session.catalog_view()?;
                let Some(current) = view.table(table.oid).cloned() else {
                    self.phase = Phase::Commit(Commit::Insert);
                    return Ok(None);
                };
                self.tables[self.at] = current.clone();
                let Some(txn) = &mut session.txn else {
                    return Err(SqlError::internal("no transaction"));
                };
                self.phase = if self.options.vacuum {
                    let asked = asked(&session.settings.borrow(), self.options.freeze);
                    Phase::Vacuum(Box::new(VacuumOp::new(txn, current, asked)?))
                } else {
                    let snapshot = txn.begin_statement();
                    Phase::Count(Box::new(HeapScan::new(txn, current.node)?), snapshot, 0)
                };
            }
            Phase::Vacuum(op) => match op.step(txn)? {
                VacuumStep::More => return Ok(Some(Progress::Yield)),
                VacuumStep::Wait(wait) => return Ok(Some(Progress::Wait(wait))),
                VacuumStep::Done(report) => {
                    if self.options.verbose {
                        let message = format!(
                            "finished vacuuming \"postgres.{}.{}\": {} pages, {} rows live, {} line pointers and {} index entries removed, {} tuples frozen",
                            table.schema_name,
                            table.name,
                            report.pages,
                            report.live_rows,
                            report.removed,
                            report.index_entries,
                            report.frozen
                        );
                        let state = towline_base::SqlState::SUCCESSFUL_COMPLETION;
                        session
                            .notices
                            .borrow_mut()
                            .push(Notice::new(Severity::Info, state, message));
                    }
                    let now = txn.engine().clock().wall();
                    table.activity.vacuumed(&report, now, false);
                    if self.options.analyze {
                        table.activity.analyzed(report.live_rows, now);
                    }
                    let owner = session.role.oid;
                    let sizes = |table, rows| SizesOp::new(table, rows as f64, owner);
                    let toast = table.toast.clone().zip(op.toast_report());
                    let toast = toast.map(|(toast, report)| sizes(toast, report.live_rows));
                    self.phase = Phase::Write(sizes(Arc::clone(table), report.live_rows), toast);
                }
            },
            Phase::Count(scan, snapshot, rows) => {
                for _ in 0..PAGES_PER_SLICE {
                    if !scan.next_page(txn, snapshot)? {
                        table.activity.analyzed(*rows, txn.engine().clock().wall());
                        let op = SizesOp::new(Arc::clone(table), *rows as f64, session.role.oid);
                        self.phase = Phase::Write(op, None);
                        return Ok(None);
                    }
                    *rows += scan.rows().count() as u64;
                }
                return Ok(Some(Progress::Yield));
            }
            Phase::Write(op, toast) => {
                if let Step::Wait(wait) = op.step(txn)? {
                    return Ok(Some(Progress::Wait(wait)));
                }
                self.phase = match toast.take() {
                    Some(op) => Phase::Write(op, None),
                    None => Phase::Commit(Commit::Insert),
                };
            }
            Phase::Commit(_) => {}
        }
        Ok(None)
    }
}

/// What the session's settings ask of a VACUUM.
fn asked(settings: &towline_base::settings::SessionSettings, freeze: bool) -> Asked {
    let age = |key: Key<i64>| u64::try_from(settings.get(key)).unwrap_or(0);
    let asked = Asked {
        freeze,
        freeze_min_age: age(keys::vacuum_freeze_min_age),
        freeze_table_age: age(keys::vacuum_freeze_table_age),
    };
    asked.bounded_by(age(keys::autovacuum_freeze_max_age))
}
