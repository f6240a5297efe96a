//! [`SettingError`]: why a setting was refused, ready for a client or the log.

use std::fmt;

use crate::SqlState;

/// Why a setting was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingError {
    /// The code for SQL clients.
    pub sqlstate: SqlState,
    /// One sentence.
    pub message: String,
    /// What would be accepted.
    pub hint: Option<String>,
}

impl SettingError {
    /// An error without a hint.
    pub fn new(sqlstate: SqlState, message: impl Into<String>) -> SettingError {
        SettingError {
            sqlstate,
            message: message.into(),
            hint: None,
        }
    }

    /// Adds a hint.
    pub fn with_hint(mut self, hint: impl Into<String>) -> SettingError {
        self.hint = Some(hint.into());
        self
    }

    /// There is no such setting.
    pub fn unknown(name: &str) -> SettingError {
        let message = format!("unrecognized configuration parameter \"{name}\"");
        SettingError::new(SqlState::UNDEFINED_OBJECT, message)
    }

    /// The text is not a value of this setting.
    pub fn invalid(name: &str, text: &str) -> SettingError {
        let message = format!("invalid value for parameter \"{name}\": \"{text}\"");
        SettingError::new(SqlState::INVALID_PARAMETER_VALUE, message)
    }

    pub(super) fn fixed(name: &str) -> SettingError {
        let message = format!("parameter \"{name}\" cannot be changed");
        SettingError::new(SqlState::CANT_CHANGE_RUNTIME_PARAM, message)
    }

    pub(super) fn needs_restart(name: &str) -> SettingError {
        let message = format!("parameter \"{name}\" cannot be changed without restarting the server");
        SettingError::new(SqlState::CANT_CHANGE_RUNTIME_PARAM, message)
    }

    pub(super) fn not_now(name: &str) -> SettingError {
        let message = format!("parameter \"{name}\" cannot be changed now");
        SettingError::new(SqlState::CANT_CHANGE_RUNTIME_PARAM, message)
    }

    pub(super) fn denied(name: &str) -> SettingError {
        let message = format!("permission denied to set parameter \"{name}\"");
        SettingError::new(SqlState::INSUFFICIENT_PRIVILEGE, message)
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl std::error::Error for SettingError {}
