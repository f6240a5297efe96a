//! The seam between the protocol and SQL: what the connection loop needs of a session, and of the node behind it.
//!
//! The loop is generic over [`WireSession`], so that it is tested with a scripted session over an in-memory stream and
//! the codec can be replaced without touching SQL. [`crate::sql_session`] implements it for `towline_sql::Session`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use towline_access::session::{SessionHandle, SessionRegistry, SessionState};
use towline_base::scram::ScramSecret;
use towline_sql::{
    CopyShape, RowDescription, RowSink, SessionParams, SqlError, StatementDescription, Timeouts,
};

/// What a call into the session came to; the loop acts and calls [`WireSession::resume`] where it says so.
#[derive(Debug)]
pub enum Outcome<W> {
    /// Finished; its messages are in the sink.
    Complete,
    /// The portal has more rows.
    Suspended,
    /// COPY wants data.
    CopyIn(CopyShape),
    /// Await, then resume.
    Wait(W),
    /// Let others run, then resume.
    Yield,
    /// The next statement of a query text begins: start its timer, then resume.
    Next,
}

/// Something a session waits for.
pub trait WireWait: Future<Output = Result<(), SqlError>> + Send + Unpin {
    /// Whether `deadlock_timeout` and `lock_timeout` apply.
    fn is_lock(&self) -> bool;
    /// 40P01 when the wait is part of a circle.
    fn check_deadlock(&self) -> Result<(), SqlError>;
}

/// A wait that needs no timers, boxed because it is rare.
pub type Gate = Pin<Box<dyn Future<Output = Result<(), SqlError>> + Send>>;

/// One connection's SQL session. All calls are synchronous and short (a slice of work); see `towline_sql::Session` for
/// the meaning of each.
#[expect(missing_docs, reason = "each method is documented at towline_sql::Session")]
pub trait WireSession: Send + 'static {
    /// What [`Outcome::Wait`] carries.
    type Wait: WireWait;

    fn initial_parameters(&self) -> Vec<(String, String)>;
    fn parse(&mut self, name: &str, text: &str, param_types: &[u32]) -> Result<(), SqlError>;
    fn bind(
        &mut self,
        portal: &str,
        statement: &str,
        param_formats: &[i16],
        params: &[Option<&[u8]>],
        result_formats: &[i16],
    ) -> Result<(), SqlError>;
    fn describe_statement(&mut self, name: &str) -> Result<StatementDescription, SqlError>;
    fn describe_portal(&mut self, name: &str) -> Result<Option<RowDescription>, SqlError>;
    fn close_statement(&mut self, name: &str);
    fn close_portal(&mut self, name: &str);
    fn execute(
        &mut self,
        portal: &str,
        max_rows: u32,
        out: &mut dyn RowSink,
    ) -> Result<Outcome<Self::Wait>, SqlError>;
    fn sync(&mut self, out: &mut dyn RowSink) -> Result<Outcome<Self::Wait>, SqlError>;
    fn simple_query(&mut self, text: &str, out: &mut dyn RowSink) -> Result<Outcome<Self::Wait>, SqlError>;
    fn resume(&mut self, out: &mut dyn RowSink) -> Result<Outcome<Self::Wait>, SqlError>;
    /// The running step was given up for this reason; the next `resume` undoes it and returns the error. With no step
    /// running (the client broke the protocol), an open transaction block fails.
    fn interrupt(&mut self, error: SqlError);
    fn copy_data(&mut self, data: &[u8]) -> Result<(), SqlError>;
    fn copy_done(&mut self) -> Result<(), SqlError>;
    fn copy_fail(&mut self, message: &str) -> Result<(), SqlError>;
    /// What must be awaited before any byte in the sink may leave (C3); `None` (the usual case) costs a load.
    fn gate(&self) -> Option<Gate>;
    /// The answer of a statement begins, and the gate is open.
    fn hold(&mut self);
    /// The answer since `hold`, none of which has left, is thrown away; what the client is told instead. `None`: it cannot be taken back.
    fn withdraw(&mut self, reason: &SqlError, out: &mut dyn RowSink) -> Option<SqlError>;
    fn transaction_status(&self) -> u8;
    fn timeouts(&self) -> Timeouts;
    /// [`Timeouts::statement_ms`], which every statement asks for.
    fn statement_timeout(&self) -> u32 {
        self.timeouts().statement_ms
    }
    /// The state to show in pg_stat_activity.
    fn show_state(&self, state: SessionState);
    /// The wait to show in pg_stat_activity, while it lasts.
    fn show_wait(&self, wait: Option<&Self::Wait>);
    /// Whether answers are waiting for the gate, to be shown there as well.
    fn show_gate(&self, waits: bool);
}

/// What authentication needs to know of a role.
#[derive(Clone, Debug)]
pub struct RoleLogin {
    /// `rolcanlogin`.
    pub can_login: bool,
    /// `rolsuper`: may use the reserved connections.
    pub superuser: bool,
    /// The password's secret, if it has a password in SCRAM form.
    pub secret: Option<ScramSecret>,
}

/// The node behind the listener.
pub trait Backend: Send + Sync + 'static {
    /// The sessions it opens.
    type Session: WireSession;

    /// An error (57P03) while the node starts, stops or cannot serve.
    fn accepting(&self) -> Result<(), SqlError>;
    /// The role of that name; `None` when there is none.
    fn role(&self, name: &str) -> Result<Option<RoleLogin>, SqlError>;
    /// Opens a session for an authenticated role.
    fn open(&self, params: SessionParams, handle: SessionHandle) -> Result<Self::Session, SqlError>;
    /// Where sessions are registered, for cancel requests and pg_stat_activity.
    fn registry(&self) -> &Arc<SessionRegistry>;
}
