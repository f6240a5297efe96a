//! What access refuses, with PostgreSQL's SQLSTATE: the one error type of this crate.
//!
//! An error is classed by what its caller must do, which the SQLSTATE says: retry the transaction (class 40), report
//! it to the client (most), or stop the node (XX, raised by storage on damage). Boxed, so that a `Result` stays small.

use std::fmt;

use towline_base::SqlState;
use towline_storage::StorageError;
use towline_types::TypeError;
use towline_wal::records::layout::PayloadError;

/// The fields of an [`AccessError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorFields {
    /// The five-character code.
    pub sqlstate: SqlState,
    /// The primary message.
    pub message: String,
    /// More about what happened.
    pub detail: Option<String>,
    /// What could be done.
    pub hint: Option<String>,
    /// The schema concerned.
    pub schema: Option<String>,
    /// The table concerned.
    pub table: Option<String>,
    /// The column concerned.
    pub column: Option<String>,
    /// The constraint or index concerned.
    pub constraint: Option<String>,
}

/// An error of the access layer.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessError(Box<ErrorFields>);

impl AccessError {
    /// An error with a code and a message.
    pub fn new(sqlstate: SqlState, message: impl Into<String>) -> Self {
        AccessError(Box::new(ErrorFields {
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
            schema: None,
            table: None,
            column: None,
            constraint: None,
        }))
    }

    /// Adds the detail line.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds the hint line.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Names the table.
    #[must_use]
    pub fn with_table(mut self, schema: &str, table: &str) -> Self {
        self.0.schema = Some(schema.to_owned());
        self.0.table = Some(table.to_owned());
        self
    }

    /// Names the column.
    #[must_use]
    pub fn with_column(mut self, column: &str) -> Self {
        self.0.column = Some(column.to_owned());
        self
    }

    /// Names the constraint.
    #[must_use]
    pub fn with_constraint(mut self, constraint: &str) -> Self {
        self.0.constraint = Some(constraint.to_owned());
        self
    }

    /// The five-character code.
    pub fn sqlstate(&self) -> SqlState {
        self.0.sqlstate
    }

    /// The primary message.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// All fields.
    pub fn fields(&self) -> &ErrorFields {
        &self.0
    }

    /// All fields, owned.
    pub fn into_fields(self) -> ErrorFields {
        *self.0
    }

    /// 40001: another transaction changed the row after this transaction's snapshot.
    pub fn concurrent_update() -> Self {
        AccessError::new(
            SqlState::SERIALIZATION_FAILURE,
            "could not serialize access due to concurrent update",
        )
    }

    /// 40001: another transaction deleted the row after this transaction's snapshot.
    pub fn concurrent_delete() -> Self {
        AccessError::new(
            SqlState::SERIALIZATION_FAILURE,
            "could not serialize access due to concurrent delete",
        )
    }

    /// 40001: replay on a standby needed what this query was still reading.
    pub fn recovery_conflict(detail: &str) -> Self {
        AccessError::new(
            SqlState::SERIALIZATION_FAILURE,
            "canceling statement due to conflict with recovery",
        )
        .with_detail(detail)
    }

    /// 40P01, with the circle spelled out.
    pub fn deadlock(detail: String) -> Self {
        AccessError::new(SqlState::DEADLOCK_DETECTED, "deadlock detected")
            .with_detail(detail)
            .with_hint("See server log for query details.")
    }

    /// 25006: the statement writes, but the transaction or the node does not.
    pub fn read_only(command: &str) -> Self {
        AccessError::new(
            SqlState::READ_ONLY_SQL_TRANSACTION,
            format!("cannot execute {command} in a read-only transaction"),
        )
    }

    /// 57014: the user, or a timeout, asked to stop.
    pub fn canceled() -> Self {
        AccessError::new(
            SqlState::QUERY_CANCELED,
            "canceling statement due to user request",
        )
    }

    /// 57P01: the session was told to end.
    pub fn terminated() -> Self {
        AccessError::new(
            SqlState::ADMIN_SHUTDOWN,
            "terminating connection due to administrator command",
        )
    }

    /// 55P03: NOWAIT found a lock held.
    pub fn lock_not_available(message: impl Into<String>) -> Self {
        AccessError::new(SqlState::LOCK_NOT_AVAILABLE, message)
    }

    /// 54000: a row that does not fit a page.
    pub fn row_too_big(size: usize, max: usize) -> Self {
        AccessError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("row is too big: size {size}, maximum size {max}"),
        )
    }

    /// XX001: something on disk is not what it must be.
    pub fn corrupted(message: impl Into<String>) -> Self {
        AccessError::new(SqlState::DATA_CORRUPTED, message)
    }

    /// XX000: this should not have happened; the statement fails, the node goes on.
    pub fn internal(message: impl Into<String>) -> Self {
        AccessError::new(SqlState::INTERNAL_ERROR, message)
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(detail) = &self.0.detail {
            write!(f, " ({detail})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessError({}: {self})", self.0.sqlstate)
    }
}

impl std::error::Error for AccessError {}

/// Waits (`NeedsFlush`, `NeedsQuorum`) are turned into steps before they come here; see `Engine::credit`.
impl From<StorageError> for AccessError {
    fn from(error: StorageError) -> Self {
        AccessError::new(error.sqlstate(), error.to_string())
    }
}

impl From<TypeError> for AccessError {
    fn from(error: TypeError) -> Self {
        let mut mapped = AccessError::new(error.sqlstate(), error.message());
        mapped.0.detail = error.detail().map(str::to_owned);
        mapped.0.hint = error.hint().map(str::to_owned);
        mapped
    }
}

/// A record payload that cannot be decoded: the log is damaged, or of another version.
impl From<PayloadError> for AccessError {
    fn from(error: PayloadError) -> Self {
        AccessError::corrupted(format!("invalid log record: {error}"))
    }
}

/// What every fallible function here returns.
pub type Result<T> = std::result::Result<T, AccessError>;
