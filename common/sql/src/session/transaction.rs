//! Transaction blocks, as PostgreSQL's clients know them.
//!
//! A statement outside of a block runs in a transaction of its own, which ends with it (simple protocol) or at Sync
//! (extended). Several statements in one query text share an implicit block. A failed statement rolls everything back
//! at once and leaves an open block in the failed state, in which only its end is accepted (25P02).

use towline_access::{CommitLevel, Isolation, Step, TxnOptions, Wait};
use towline_base::settings::keys;
use towline_base::{Lsn, SqlState};

use super::Session;
use crate::error::{Notice, Severity, SqlError};
use crate::parse::ast::{IsolationLevel, Statement, TransactionMode};

/// Where the session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// Outside of any transaction, or in one that ends with its statement.
    Idle,
    /// In a block.
    Open,
    /// In a block that has failed.
    Failed,
}

/// How far a commit is.
#[derive(Debug)]
pub(crate) enum Commit {
    /// To be inserted.
    Insert,
    /// Inserted: to be released.
    Release(Lsn, CommitLevel, bool),
}

/// Warnings of one statement that are told.
const MOST_NOTICES: usize = 1000;

fn isolation(level: IsolationLevel) -> Result<Isolation, SqlError> {
    match level {
        IsolationLevel::ReadUncommitted | IsolationLevel::ReadCommitted => Ok(Isolation::ReadCommitted),
        IsolationLevel::RepeatableRead => Ok(Isolation::RepeatableRead),
        IsolationLevel::Serializable => Err(SqlError::unsupported("isolation level SERIALIZABLE")),
    }
}

fn isolation_named(name: &str) -> Result<Isolation, SqlError> {
    match name {
        "repeatable read" => Ok(Isolation::RepeatableRead),
        "serializable" => Err(SqlError::unsupported("isolation level SERIALIZABLE")),
        _ => Ok(Isolation::ReadCommitted),
    }
}

impl Session {
    /// Begins a transaction if there is none.
    #[inline]
    pub(crate) fn ensure_transaction(&mut self) -> Result<(), SqlError> {
        if self.txn.is_some() {
            return Ok(());
        }
        self.refresh_style();
        let (isolation, read_only) = {
            let settings = self.settings.borrow();
            (
                isolation_named(settings.get(keys::default_transaction_isolation))?,
                settings.get(keys::default_transaction_read_only),
            )
        };
        let options = TxnOptions {
            isolation,
            read_only,
            pid: self.handle.pid(),
            interrupts: Some(self.handle.interrupts().clone()),
        };
        self.txn = Some(self.engine.begin(options)?);
        self.queried = false;
        self.transaction_time = self.engine.clock().wall();
        self.style.now = self.transaction_time;
        self.settings.borrow_mut().begin();
        Ok(())
    }

    /// 25P02 for anything but the end of a failed block.
    pub(crate) fn check_not_failed(&self, statement: &Statement) -> Result<(), SqlError> {
        if self.block != Block::Failed || matches!(statement, Statement::Commit(_) | Statement::Rollback(_)) {
            return Ok(());
        }
        Err(SqlError::new(
            SqlState::IN_FAILED_SQL_TRANSACTION,
            "current transaction is aborted, commands ignored until end of transaction block",
        ))
    }

    pub(crate) fn warn(&self, sqlstate: SqlState, message: &str) {
        let mut notices = self.notices.borrow_mut();
        // A function may warn for each of a thousand million rows, and nothing is told before the statement
        // ends.
        if notices.len() < MOST_NOTICES {
            notices.push(Notice::new(Severity::Warning, sqlstate, message));
        }
    }

    /// BEGIN
    pub(crate) fn begin_block(&mut self, modes: &[TransactionMode]) -> Result<(), SqlError> {
        if self.block == Block::Open {
            self.warn(
                SqlState::ACTIVE_SQL_TRANSACTION,
                "there is already a transaction in progress",
            );
            return Ok(());
        }
        self.ensure_transaction()?;
        self.block = Block::Open;
        self.set_modes(modes, true)
    }

    /// The modes of BEGIN and SET TRANSACTION.
    pub(crate) fn set_modes(&mut self, modes: &[TransactionMode], fresh: bool) -> Result<(), SqlError> {
        let standby = self.engine.is_standby();
        let queried = self.queried;
        let Some(txn) = &mut self.txn else { return Ok(()) };
        for mode in modes {
            match mode {
                TransactionMode::Isolation(level) => {
                    let isolation = isolation(*level)?;
                    if queried && !fresh && isolation != txn.isolation() {
                        return Err(SqlError::new(
                            SqlState::ACTIVE_SQL_TRANSACTION,
                            "SET TRANSACTION ISOLATION LEVEL must be called before any query",
                        ));
                    }
                    txn.set_isolation(isolation);
                }
                TransactionMode::ReadOnly(read_only) => {
                    if !read_only && txn.is_read_only() && queried {
                        return Err(SqlError::new(
                            SqlState::ACTIVE_SQL_TRANSACTION,
                            "transaction read-write mode must be set before any query",
                        ));
                    }
                    if !read_only && standby {
                        return Err(SqlError::new(
                            SqlState::FEATURE_NOT_SUPPORTED,
                            "cannot set transaction read-write mode during recovery",
                        ));
                    }
                    txn.set_read_only(*read_only);
                }
                TransactionMode::Deferrable(_) => {}
            }
        }
        Ok(())
    }

    /// How a setting that lives in the transaction is shown.
    pub(crate) fn transaction_setting(&self, name: &str) -> Option<String> {
        match name.to_ascii_lowercase().as_str() {
            "transaction_isolation" => Some(match &self.txn {
                Some(txn) => txn.isolation().as_str().to_owned(),
                None => self
                    .settings
                    .borrow()
                    .get(keys::default_transaction_isolation)
                    .to_owned(),
            }),
            "transaction_read_only" => {
                let read_only = self.engine.is_standby()
                    || match &self.txn {
                        Some(txn) => txn.is_read_only(),
                        None => self.settings.borrow().get(keys::default_transaction_read_only),
                    };
                Some(if read_only { "on" } else { "off" }.to_owned())
            }
            "in_hot_standby" => Some(if self.engine.is_standby() { "on" } else { "off" }.to_owned()),
            _ => None,
        }
    }

    /// One step of committing; None: done.
    pub(crate) fn step_commit(&mut self, commit: &mut Commit) -> Result<Option<Wait>, SqlError> {
        if let Commit::Insert = commit {
            let Some(txn) = &mut self.txn else { return Ok(None) };
            let level = if txn.xid().is_some() {
                let name = self.settings.borrow().get(keys::synchronous_commit);
                name.parse().unwrap_or(CommitLevel::On)
            } else {
                CommitLevel::Off
            };
            let wrote = txn.xid().is_some();
            let lsn = match txn.commit(level) {
                Ok(Step::Wait(wait)) => return Ok(Some(wait)),
                Ok(Step::Done(lsn)) => lsn,
                Err(error) => {
                    self.abort();
                    return Err(error.into());
                }
            };
            self.depends_on = self.depends_on.max(txn.depends_on());
            self.txn = None;
            self.portals.clear();
            if self.settings.borrow_mut().commit() {
                self.settings_changed();
            }
            if !wrote {
                // What it read may rest on commits that are not visible yet: the driver waits for them.
                self.depends_on = self.depends_on.max(lsn);
                return Ok(None);
            }
            *commit = Commit::Release(lsn, level, false);
        }
        let Commit::Release(lsn, level, waited) = commit else {
            return Ok(None);
        };
        // `off` needs no disk, but like every commit it stands behind its predecessors (I4): answered earlier, the
        // client's next statement might not see its own change.
        if *waited || (*level != CommitLevel::RemoteApply && self.engine.release().is_visible(*lsn)) {
            self.report_commit(*lsn);
            return Ok(None);
        }
        *waited = true;
        Ok(Some(self.engine.release().wait(*lsn, *level)))
    }

    fn report_commit(&mut self, lsn: Lsn) {
        self.last_commit = lsn;
    }

    /// Rolls back whatever is open.
    pub(crate) fn abort(&mut self) {
        if let Some(txn) = self.txn.take() {
            self.depends_on = self.depends_on.max(txn.depends_on());
            txn.rollback();
            if self.settings.borrow_mut().rollback() {
                self.settings_changed();
            }
        }
        self.portals.clear();
    }

    /// After a failed statement: roll back; an open block becomes a failed one.
    pub(crate) fn fail(&mut self) {
        self.abort();
        if self.block == Block::Open {
            self.block = Block::Failed;
        }
    }
}
