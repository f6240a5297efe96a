//! The one error of this crate: an SQLSTATE and a message in PostgreSQL's words.
//!
//! Every error here is the user's (wrong input, overflow) except [`TypeError::corrupt`], which means that bytes read
//! from disk cannot be what we wrote. Messages are built only when an error happens.

use std::fmt;
use towline_base::SqlState;

/// A value could not be read, converted or computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeError(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    sqlstate: SqlState,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

/// What this crate's fallible functions return.
pub type Result<T> = std::result::Result<T, TypeError>;

impl TypeError {
    /// An error with this SQLSTATE and message.
    #[cold]
    pub fn new(sqlstate: SqlState, message: impl Into<String>) -> Self {
        TypeError(Box::new(Inner {
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
        }))
    }

    /// Adds the DETAIL line.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds the HINT line.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// 22P02 `invalid input syntax for type …: "…"`.
    #[cold]
    pub fn syntax(type_name: &str, input: &str) -> Self {
        TypeError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("invalid input syntax for type {type_name}: \"{input}\""),
        )
    }

    /// 22003 with this message.
    #[cold]
    pub fn out_of_range(message: impl Into<String>) -> Self {
        TypeError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message)
    }

    /// 22012 `division by zero`.
    #[cold]
    pub fn division_by_zero() -> Self {
        TypeError::new(SqlState::DIVISION_BY_ZERO, "division by zero")
    }

    /// 0A000: a feature that is not built.
    #[cold]
    pub fn unsupported(message: impl Into<String>) -> Self {
        TypeError::new(SqlState::FEATURE_NOT_SUPPORTED, message)
    }

    /// XX001: bytes from disk that no writer of ours produced.
    #[cold]
    pub fn corrupt(what: &str) -> Self {
        TypeError::new(SqlState::DATA_CORRUPTED, format!("corrupt row data: {what}"))
    }

    /// 22P03: a binary value that is not of its type.
    #[cold]
    pub fn binary(type_name: &str) -> Self {
        TypeError::new(
            SqlState::INVALID_BINARY_REPRESENTATION,
            format!("invalid binary representation for type {type_name}"),
        )
    }

    /// The SQLSTATE.
    pub fn sqlstate(&self) -> SqlState {
        self.0.sqlstate
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The DETAIL line.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The HINT line.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for TypeError {}
