//! `towline_sql::Session` behind the loop's trait: names match names, and waits carry their timers' rules.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use towline_access::{SessionState, Wait, WaitKind};
use towline_sql::{Execution, RowDescription, RowSink, Session, SqlError, StatementDescription, Timeouts};

use crate::session::{Gate, Outcome, WireSession, WireWait};

/// A wait of the engine, with the client's kind of error; or the time that `pg_sleep` takes.
#[derive(Debug)]
pub struct EngineWait(Kind);

#[derive(Debug)]
enum Kind {
    Engine(Wait),
    Sleep(Pin<Box<tokio::time::Sleep>>),
}

impl Future for EngineWait {
    type Output = Result<(), SqlError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Kind::Engine(wait) => Pin::new(wait).poll(cx).map_err(SqlError::from),
            Kind::Sleep(sleep) => sleep.as_mut().poll(cx).map(Ok),
        }
    }
}

impl WireWait for EngineWait {
    fn is_lock(&self) -> bool {
        matches!(&self.0, Kind::Engine(wait) if wait.kind().can_deadlock())
    }

    fn check_deadlock(&self) -> Result<(), SqlError> {
        match &self.0 {
            Kind::Engine(wait) => wait.check_deadlock().map_err(SqlError::from),
            Kind::Sleep(_) => Ok(()),
        }
    }
}

fn outcome(execution: Result<Execution, SqlError>) -> Result<Outcome<EngineWait>, SqlError> {
    Ok(match execution? {
        Execution::Complete => Outcome::Complete,
        Execution::Suspended => Outcome::Suspended,
        Execution::CopyIn(shape) => Outcome::CopyIn(shape),
        Execution::Wait(wait) => Outcome::Wait(EngineWait(Kind::Engine(wait))),
        Execution::Sleep(time) => Outcome::Wait(EngineWait(Kind::Sleep(Box::pin(tokio::time::sleep(time))))),
        Execution::Yield => Outcome::Yield,
        Execution::Next => Outcome::Next,
    })
}

impl WireSession for Session {
    type Wait = EngineWait;

    fn initial_parameters(&self) -> Vec<(String, String)> {
        Session::initial_parameters(self)
    }

    fn parse(&mut self, name: &str, text: &str, param_types: &[u32]) -> Result<(), SqlError> {
        Session::parse(self, name, text, param_types)
    }

    fn bind(
        &mut self,
        portal: &str,
        statement: &str,
        param_formats: &[i16],
        params: &[Option<&[u8]>],
        result_formats: &[i16],
    ) -> Result<(), SqlError> {
        Session::bind(self, portal, statement, param_formats, params, result_formats)
    }

    fn describe_statement(&mut self, name: &str) -> Result<StatementDescription, SqlError> {
        Session::describe_statement(self, name)
    }

    fn describe_portal(&mut self, name: &str) -> Result<Option<RowDescription>, SqlError> {
        Session::describe_portal(self, name)
    }

    fn close_statement(&mut self, name: &str) {
        Session::close_statement(self, name);
    }

    fn close_portal(&mut self, name: &str) {
        Session::close_portal(self, name);
    }

    fn execute(
        &mut self,
        portal: &str,
        max_rows: u32,
        out: &mut dyn RowSink,
    ) -> Result<Outcome<Self::Wait>, SqlError> {
        outcome(Session::execute(self, portal, max_rows, out))
    }

    fn sync(&mut self, out: &mut dyn RowSink) -> Result<Outcome<Self::Wait>, SqlError> {
        outcome(Session::sync(self, out))
    }

    fn simple_query(&mut self, text: &str, out: &mut dyn RowSink) -> Result<Outcome<Self::Wait>, SqlError> {
        outcome(Session::simple_query(self, text, out))
    }

    fn resume(&mut self, out: &mut dyn RowSink) -> Result<Outcome<Self::Wait>, SqlError> {
        outcome(Session::resume(self, out))
    }

    fn interrupt(&mut self, error: SqlError) {
        Session::interrupt(self, error);
    }

    fn copy_data(&mut self, data: &[u8]) -> Result<(), SqlError> {
        Session::copy_data(self, data)
    }

    fn copy_done(&mut self) -> Result<(), SqlError> {
        Session::copy_done(self)
    }

    fn copy_fail(&mut self, message: &str) -> Result<(), SqlError> {
        Session::copy_fail(self, message)
    }

    fn gate(&self) -> Option<Gate> {
        let lsn = self.depends_on();
        let visible = self.engine().visible();
        if visible.get() >= lsn {
            return None;
        }
        let wait = EngineWait(Kind::Engine(self.engine().wait_visible(lsn)));
        Some(Box::pin(wait))
    }

    fn hold(&mut self) {
        Session::hold(self);
    }

    fn withdraw(&mut self, reason: &SqlError, out: &mut dyn RowSink) -> Option<SqlError> {
        Session::withdraw(self, reason, out)
    }

    fn transaction_status(&self) -> u8 {
        Session::transaction_status(self)
    }

    fn timeouts(&self) -> Timeouts {
        Session::timeouts(self)
    }

    fn statement_timeout(&self) -> u32 {
        Session::statement_timeout(self)
    }

    fn show_state(&self, state: SessionState) {
        let now = self.engine().clock().wall();
        self.handle().update(|row| {
            row.state = state;
            row.state_change = Some(now);
            if state == SessionState::Idle {
                row.xact_start = None;
            }
        });
    }

    fn show_wait(&self, wait: Option<&EngineWait>) {
        let event = wait.map(|EngineWait(wait)| match wait {
            Kind::Engine(wait) => (wait.kind().event_type(), wait.kind().event()),
            Kind::Sleep(_) => ("Timeout", "PgSleep"),
        });
        self.handle().update(|row| row.wait_event = event);
    }

    fn show_gate(&self, waits: bool) {
        let kind = WaitKind::Visible(self.depends_on());
        let event = waits.then(|| (kind.event_type(), kind.event()));
        self.handle().update(|row| row.wait_event = event);
    }
}
