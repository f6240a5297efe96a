//! What a statement can answer instead of rows: errors and notices, with PostgreSQL's fields.
//!
//! One type for every layer of this crate. The SQLSTATE is PostgreSQL's; `position` counts characters (not bytes)
//! from 1 in the text of the query, as the protocol wants it.

use std::fmt;

use towline_base::SqlState;

/// How bad it is: the word of the `S` and `V` fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The statement failed and the connection ends.
    Fatal,
    /// Something the user should look at; the statement goes on.
    Warning,
    /// Something the user may like to know.
    Notice,
    /// Told only to those who asked (`client_min_messages`).
    Info,
}

impl Severity {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
            Severity::Warning => "WARNING",
            Severity::Notice => "NOTICE",
            Severity::Info => "INFO",
        }
    }
}

/// The fields of an error or notice. Boxed inside [`SqlError`], so that results stay small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorFields {
    /// `S`/`V`.
    pub severity: Severity,
    /// `C`: five characters.
    pub sqlstate: SqlState,
    /// `M`.
    pub message: String,
    /// `D`.
    pub detail: Option<String>,
    /// `H`.
    pub hint: Option<String>,
    /// `P`: character position in the query text, from 1.
    pub position: Option<u32>,
    /// `W`: where it happened (COPY line and column).
    pub context: Option<String>,
    /// `s`.
    pub schema: Option<String>,
    /// `t`.
    pub table: Option<String>,
    /// `c`.
    pub column: Option<String>,
    /// `n`.
    pub constraint: Option<String>,
}

/// A failed statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError(Box<ErrorFields>);

/// A notice or warning: the same fields, but the statement goes on.
pub type Notice = ErrorFields;

impl SqlError {
    /// An error of severity ERROR.
    #[cold]
    pub fn new(sqlstate: SqlState, message: impl Into<String>) -> Self {
        SqlError(Box::new(ErrorFields::new(Severity::Error, sqlstate, message)))
    }

    /// An error that ends the connection.
    #[cold]
    pub fn fatal(sqlstate: SqlState, message: impl Into<String>) -> Self {
        SqlError(Box::new(ErrorFields::new(Severity::Fatal, sqlstate, message)))
    }

    /// 0A000 with the feature's name.
    #[cold]
    pub fn unsupported(feature: impl fmt::Display) -> Self {
        SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("{feature} is not supported"),
        )
    }

    /// 42501
    #[cold]
    pub fn denied(message: impl Into<String>) -> Self {
        SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message)
    }

    /// XX000: a state that should not occur.
    #[cold]
    pub fn internal(message: impl Into<String>) -> Self {
        SqlError::new(SqlState::INTERNAL_ERROR, message)
    }

    /// The fields, for the wire.
    pub fn fields(&self) -> &ErrorFields {
        &self.0
    }

    /// The fields, to add to.
    pub fn fields_mut(&mut self) -> &mut ErrorFields {
        &mut self.0
    }

    /// The code.
    pub fn sqlstate(&self) -> SqlState {
        self.0.sqlstate
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// With a detail line.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// With a hint line.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// With a character position (from 1), unless one is already known: the innermost knows best.
    pub fn with_position(mut self, position: u32) -> Self {
        if self.0.position.is_none() && position > 0 {
            self.0.position = Some(position);
        }
        self
    }

    /// With a context line.
    pub fn with_context(mut self, context: impl Into<String>) -> Self {
        self.0.context = Some(context.into());
        self
    }

    /// With the constraint's name (and its table's).
    pub fn with_constraint(mut self, schema: &str, table: &str, constraint: &str) -> Self {
        self.0.schema = Some(schema.to_owned());
        self.0.table = Some(table.to_owned());
        self.0.constraint = Some(constraint.to_owned());
        self
    }
}

impl ErrorFields {
    /// Fields with only the three that are always there.
    pub fn new(severity: Severity, sqlstate: SqlState, message: impl Into<String>) -> Self {
        ErrorFields {
            severity,
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            context: None,
            schema: None,
            table: None,
            column: None,
            constraint: None,
        }
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} ({})",
            self.0.severity.as_str(),
            self.0.message,
            self.0.sqlstate.code()
        )
    }
}

impl std::error::Error for SqlError {}

impl From<towline_access::AccessError> for SqlError {
    #[cold]
    fn from(error: towline_access::AccessError) -> Self {
        let from = error.into_fields();
        let severity = if from.sqlstate == SqlState::ADMIN_SHUTDOWN {
            Severity::Fatal
        } else {
            Severity::Error
        };
        let mut fields = ErrorFields::new(severity, from.sqlstate, from.message);
        fields.detail = from.detail;
        fields.hint = from.hint;
        fields.schema = from.schema;
        fields.table = from.table;
        fields.column = from.column;
        fields.constraint = from.constraint;
        SqlError(Box::new(fields))
    }
}
