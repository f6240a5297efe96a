//! SQL: text → parse → bind → plan → execute, and the session that drives it.
//!
//! Synchronous and runtime-free: nothing here blocks on another transaction, on the WAL or on a client. Whatever must
//! wait is handed out as [`Execution::Wait`] and resumed exactly where it stopped.

mod bind;
pub mod error;
mod exec;
mod explain;
pub mod expr;
mod parse;
mod plan;
mod session;
pub mod sink;
mod stack;

pub use error::{Notice, Severity, SqlError};
pub use session::{Execution, Session, SessionParams, StatementDescription, Timeouts};
pub use sink::{CommandTag, CopyShape, Field, RowDescription, RowSink};
