//! What the session is in the middle of, step by step: a query text, a portal, a commit; and what ends it early.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use towline_base::SqlState;

use super::prepared::Prepared;
use super::run::{Outcome, Portal, Progress, Stage, is_data};
use super::transaction::{Block, Commit};
use super::utility::Utility;
use super::{Execution, Running, Session, Simple, copy_in};
use crate::error::SqlError;
use crate::parse;
use crate::sink::RowSink;
use crate::stack;

/// Bytes of a statement that pg_stat_activity shows: `track_activity_query_size`, as PostgreSQL has it by
/// default.
const SHOWN_QUERY: usize = 1023;

impl Session {
    /// Sync: ends the implicit transaction (commits it, or finishes its abort). The driver then sends `ReadyForQuery`
    /// with [`Session::transaction_status`].
    pub fn sync(&mut self, out: &mut dyn RowSink) -> Result<Execution, SqlError> {
        self.on_stack(|session| session.sync_here(out))
    }

    fn sync_here(&mut self, out: &mut dyn RowSink) -> Result<Execution, SqlError> {
        self.running = None;
        if self.block == Block::Idle && self.txn.is_some() {
            self.running = Some(Running::Sync(Commit::Insert));
            return self.resume(out);
        }
        self.tell(out);
        Ok(Execution::Complete)
    }

    /// Query: runs all statements of `text`; every message but `ErrorResponse` and `ReadyForQuery` is put into `out`.
    pub fn simple_query(&mut self, text: &str, out: &mut dyn RowSink) -> Result<Execution, SqlError> {
        self.leave_deep_stack();
        self.on_stack(|session| session.simple_query_here(text, out))
    }

    fn simple_query_here(&mut self, text: &str, out: &mut dyn RowSink) -> Result<Execution, SqlError> {
        self.unnamed = None;
        if let Some(prepared) = self.simple_texts.find(text, &[]) {
            self.show_query(&prepared.text);
            let simple = Simple {
                text: prepared.text.clone(),
                statements: VecDeque::new(),
                several: false,
                keep: false,
                portal: Some(Portal::new(prepared, Vec::new(), Vec::new(), true)),
                outcome: None,
                commit: None,
            };
            self.running = Some(Running::Simple(Box::new(simple)));
            return self.resume(out);
        }
        let text: Arc<str> = Arc::from(text);
        self.show_query(&text);
        let statements = match parse::parse(&text) {
            Ok(statements) => VecDeque::from(statements),
            Err(error) if !self.deep && stack::wants_deep_stack(&error) => {
                self.deep = true;
                return self.on_stack(|session| session.simple_query_here(&text, out));
            }
            Err(error) => return self.settle(Err(error)),
        };
        if statements.is_empty() {
            out.empty_query();
            return Ok(Execution::Complete);
        }
        let several = statements.len() > 1;
        let is_data = statements
            .front()
            .is_some_and(|parsed| is_data(&parsed.statement));
        let simple = Simple {
            keep: !several && is_data && self.simple_texts.came_before(&text),
            text,
            statements,
            several,
            portal: None,
            outcome: None,
            commit: None,
        };
        self.running = Some(Running::Simple(Box::new(simple)));
        self.resume(out)
    }

    /// Goes on after `Wait`, `Yield` or `CopyIn`.
    pub fn resume(&mut self, out: &mut dyn RowSink) -> Result<Execution, SqlError> {
        self.on_stack(|session| session.resume_here(out))
    }

    fn resume_here(&mut self, out: &mut dyn RowSink) -> Result<Execution, SqlError> {
        let Some(mut running) = self.running.take() else {
            return Ok(Execution::Complete);
        };
        if let Some(error) = self.interrupt.take() {
            let released = running.waits_for_release();
            drop(running);
            if released {
                // The transaction is over, whatever becomes of it: there is no block left that could have failed.
                self.block = Block::Idle;
                return self.settle(Err(unknown_outcome(&error)));
            }
            return self.settle(Err(error));
        }
        let result = match &mut running {
            Running::Simple(simple) => self.step_simple(simple, out),
            Running::Portal(portal, _, max_rows) => self.step_portal(portal, *max_rows, out),
            Running::Sync(commit) => match self.step_commit(commit) {
                Ok(Some(wait)) => Ok(Execution::Wait(wait)),
                Ok(None) => {
                    self.tell(out);
                    Ok(Execution::Complete)
                }
                Err(error) => Err(error),
            },
        };
        if let Some(txn) = &self.txn {
            self.depends_on = self.depends_on.max(txn.depends_on());
        }
        match &result {
            Err(_) => {}
            // Ended or not, it stays until its transaction ends or its name is taken.
            Ok(Execution::Complete | Execution::Suspended) => {
                if let Running::Portal(portal, name, _) = running
                    && self.txn.is_some()
                {
                    self.portals.insert(name, *portal);
                }
            }
            Ok(
                Execution::Wait(_)
                | Execution::Yield
                | Execution::Next
                | Execution::CopyIn(_)
                | Execution::Sleep(_),
            ) => self.running = Some(running),
        }
        if result.is_err() {
            self.tell(out);
        }
        self.settle(result)
    }

    fn step_portal(
        &mut self,
        portal: &mut Portal,
        max_rows: u64,
        out: &mut dyn RowSink,
    ) -> Result<Execution, SqlError> {
        let progress = match portal.finished.take() {
            Some(outcome) => Progress::Done(outcome),
            None => self.run_portal(portal, max_rows, out)?,
        };
        match progress {
            Progress::Done(outcome) => {
                if let Some(time) = self.take_sleep() {
                    portal.finished = Some(outcome);
                    return Ok(Execution::Sleep(time));
                }
                self.check_conflict()?;
                self.end_statement();
                self.tell(out);
                answer(&outcome, out);
                portal.tag = match outcome {
                    Outcome::Tag(tag) => Some(tag),
                    Outcome::Empty => None,
                };
                Ok(Execution::Complete)
            }
            Progress::Suspended => {
                out.portal_suspended();
                Ok(Execution::Suspended)
            }
            Progress::Wait(wait) => Ok(Execution::Wait(wait)),
            Progress::Yield => Ok(Execution::Yield),
            Progress::CopyIn(shape) => Ok(Execution::CopyIn(shape)),
        }
    }

    fn step_simple(&mut self, simple: &mut Simple, out: &mut dyn RowSink) -> Result<Execution, SqlError> {
        loop {
            if let Some(commit) = &mut simple.commit {
                if let Some(wait) = self.step_commit(commit)? {
                    return Ok(Execution::Wait(wait));
                }
                simple.commit = None;
            }
            if let Some(outcome) = simple.outcome.take() {
                self.tell(out);
                answer(&outcome, out);
                if !simple.statements.is_empty() {
                    return Ok(Execution::Next);
                }
            }
            let portal = match &mut simple.portal {
                Some(portal) => portal,
                None => {
                    let Some(parsed) = simple.statements.pop_front() else {
                        return Ok(Execution::Complete);
                    };
                    self.check_not_failed(&parsed.statement)?;
                    let prepared = Prepared::new(
                        simple.text.clone(),
                        Some(parsed.statement),
                        Vec::new(),
                        Vec::new(),
                        None,
                    );
                    let prepared = Arc::new(prepared);
                    simple
                        .portal
                        .insert(Portal::new(prepared, Vec::new(), Vec::new(), true))
                }
            };
            self.implicit_block = simple.several;
            let progress = self.run_portal(portal, 0, out);
            self.implicit_block = false;
            match progress? {
                Progress::Done(outcome) => {
                    self.check_conflict()?;
                    if let Some(portal) = simple.portal.take().filter(|_| simple.keep)
                        && portal.prepared.is_by_key()
                    {
                        self.simple_texts.insert(&portal.prepared);
                    }
                    self.end_statement();
                    simple.outcome = Some(outcome);
                    if self.block == Block::Idle && self.txn.is_some() && simple.statements.is_empty() {
                        simple.commit = Some(Commit::Insert);
                    }
                    if let Some(time) = self.take_sleep() {
                        return Ok(Execution::Sleep(time));
                    }
                }
                Progress::Suspended => return Err(SqlError::internal("a simple query was suspended")),
                Progress::Wait(wait) => return Ok(Execution::Wait(wait)),
                Progress::Yield => return Ok(Execution::Yield),
                Progress::CopyIn(shape) => return Ok(Execution::CopyIn(shape)),
            }
        }
    }

    /// On a standby, what a statement did not find may be what replay has just removed: then it has failed.
    fn check_conflict(&self) -> Result<(), SqlError> {
        match &self.txn {
            Some(txn) => Ok(txn.check_conflict()?),
            None => Ok(()),
        }
    }

    /// What `pg_sleep` asked for, once.
    fn take_sleep(&self) -> Option<Duration> {
        let time = self.sleep.replace(Duration::ZERO);
        (time > Duration::ZERO).then_some(time)
    }

    /// A statement has ended: READ COMMITTED gives up its snapshot, unless a portal still reads with one.
    fn end_statement(&mut self) {
        if let Some(txn) = &mut self.txn {
            let reading = self
                .portals
                .values()
                .any(|portal| matches!(portal.stage, Stage::Running(_)));
            if !reading {
                txn.end_statement();
            }
        }
    }

    /// Sends what has piled up beside the rows: notices and changed settings.
    pub(super) fn tell(&mut self, out: &mut dyn RowSink) {
        let notices = std::mem::take(&mut *self.notices.borrow_mut());
        for notice in &notices {
            out.notice(notice);
        }
        let reports = self.settings.borrow_mut().take_reports();
        for (name, value) in reports {
            out.parameter_status(name, &value);
            if name == "application_name" {
                self.handle.update(|row| row.application_name.clone_from(&value));
            }
        }
    }

    /// A statement, or a text of several, begins now: its time, and what pg_stat_activity shows of it.
    pub(super) fn show_query(&mut self, text: &Arc<str>) {
        let now = self.engine.clock().wall();
        self.statement_time = now;
        // It stays until the next statement comes: of a long text, only its beginning.
        let shown = match text.get(..text.floor_char_boundary(SHOWN_QUERY)) {
            Some(start) if start.len() < text.len() => Arc::from(start),
            _ => Arc::clone(text),
        };
        self.handle.update(|row| {
            row.query = shown;
            row.query_start = Some(now);
            row.xact_start.get_or_insert(now);
        });
    }

    /// Rolls back after an error.
    pub(super) fn settle<T>(&mut self, result: Result<T, SqlError>) -> Result<T, SqlError> {
        if result.is_err() {
            self.running = None;
            self.interrupt = None;
            self.pending_wait = None;
            self.fail();
        }
        result
    }

    /// The wait was given up for this reason: the next [`Session::resume`] undoes the statement and returns it.
    /// With nothing running, an open transaction block fails.
    pub fn interrupt(&mut self, error: SqlError) {
        if self.running.is_some() {
            self.interrupt = Some(error);
        } else {
            self.on_stack(Self::fail);
        }
    }

    fn copying(&mut self) -> Option<&mut copy_in::CopyIn> {
        let portal = match self.running.as_mut()? {
            Running::Simple(simple) => simple.portal.as_mut()?,
            Running::Portal(portal, ..) => portal,
            Running::Sync(_) => return None,
        };
        match &mut portal.stage {
            Stage::CopyIn(copy) => Some(copy),
            _ => None,
        }
    }

    /// A `CopyData` message; parsed and inserted by the next [`Session::resume`].
    pub fn copy_data(&mut self, data: &[u8]) -> Result<(), SqlError> {
        if let Some(copy) = self.copying() {
            copy.data(data);
        }
        Ok(())
    }

    /// `CopyDone`.
    pub fn copy_done(&mut self) -> Result<(), SqlError> {
        if let Some(copy) = self.copying() {
            copy.done();
        }
        Ok(())
    }

    /// `CopyFail`: the next [`Session::resume`] returns 57014 with the client's words.
    pub fn copy_fail(&mut self, message: &str) -> Result<(), SqlError> {
        if let Some(copy) = self.copying() {
            copy.fail(message);
        }
        Ok(())
    }
}

impl Running {
    /// Whether a commit is in the log already and only its release is awaited: that of the text or of Sync, or an explicit COMMIT.
    fn waits_for_release(&self) -> bool {
        let portal = match self {
            Running::Simple(simple) if simple.commit.is_some() => {
                return matches!(simple.commit, Some(Commit::Release(..)));
            }
            Running::Simple(simple) => simple.portal.as_ref(),
            Running::Portal(portal, ..) => Some(&**portal),
            Running::Sync(commit) => return matches!(commit, Commit::Release(..)),
        };
        portal.is_some_and(|portal| match &portal.stage {
            Stage::Utility(utility) => matches!(
                &**utility,
                Utility::Commit {
                    commit: Commit::Release(..),
                    ..
                }
            ),
            _ => false,
        })
    }
}

fn answer(outcome: &Outcome, out: &mut dyn RowSink) {
    match outcome {
        Outcome::Tag(tag) => out.command_complete(tag),
        Outcome::Empty => out.empty_query(),
    }
}

/// A commit whose wait was given up: it is in the log, and may or may not survive a failover (I4).
fn unknown_outcome(error: &SqlError) -> SqlError {
    let mut result = SqlError::new(
        SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
        format!(
            "the wait for the commit to be released was given up: {}",
            error.message()
        ),
    )
    .with_detail(
        "The transaction has committed locally, but it is not known whether the commit quorum has it.",
    );
    result.fields_mut().severity = error.fields().severity;
    result
}
