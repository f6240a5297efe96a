//! SET, RESET, SHOW, ALTER SYSTEM and DISCARD.

use towline_base::SqlState;
use towline_base::settings::Scope;
use towline_types::{Datum, IoStyle};

use super::Session;
use super::transaction::Block;
use super::utility::{Utility, not_in_block, setting_error, text_column};
use crate::error::SqlError;
use crate::parse::ast::{self, SetValue};

/// What the table of settings cannot judge: whether a time zone is known, which it has no time zones for, and what is not built. A default
/// isolation level that is not built would make every later statement fail, the one that takes it back as well.
pub(super) fn check_value(name: &str, value: &str) -> Result<(), SqlError> {
    let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
    let word = |wanted: &str| value.trim().eq_ignore_ascii_case(wanted);
    if is("timezone") && !word("default") && !word("local") {
        IoStyle::default().set_time_zone(value)?;
    }
    if is("default_transaction_isolation") && word("serializable") {
        return Err(SqlError::unsupported("isolation level SERIALIZABLE"));
    }
    Ok(())
}

impl Session {
    pub(super) fn set_transaction(
        &mut self,
        modes: &[ast::TransactionMode],
        characteristics: bool,
    ) -> Result<(), SqlError> {
        if !characteristics {
            if self.block == Block::Idle && !self.in_implicit_block() {
                self.warn(
                    SqlState::NO_ACTIVE_SQL_TRANSACTION,
                    "SET TRANSACTION can only be used in transaction blocks",
                );
                return Ok(());
            }
            self.ensure_transaction()?;
            return self.set_modes(modes, false);
        }
        self.ensure_transaction()?;
        for mode in modes {
            let (name, value) = match mode {
                ast::TransactionMode::Isolation(level) => (
                    "default_transaction_isolation",
                    match level {
                        ast::IsolationLevel::ReadUncommitted => "read uncommitted",
                        ast::IsolationLevel::ReadCommitted => "read committed",
                        ast::IsolationLevel::RepeatableRead => "repeatable read",
                        ast::IsolationLevel::Serializable => "serializable",
                    },
                ),
                ast::TransactionMode::ReadOnly(read_only) => (
                    "default_transaction_read_only",
                    if *read_only { "on" } else { "off" },
                ),
                ast::TransactionMode::Deferrable(on) => {
                    ("default_transaction_deferrable", if *on { "on" } else { "off" })
                }
            };
            self.set_setting(name, value, false)?;
        }
        Ok(())
    }

    pub(super) fn set_statement(
        &mut self,
        name: &str,
        value: &SetValue,
        local: bool,
    ) -> Result<(), SqlError> {
        if local && self.block == Block::Idle && !self.in_implicit_block() {
            self.warn(
                SqlState::NO_ACTIVE_SQL_TRANSACTION,
                "SET LOCAL can only be used in transaction blocks",
            );
        }
        self.ensure_transaction()?;
        let lower = name.to_ascii_lowercase();
        let text = match value {
            SetValue::Default => {
                let scope = if local { Scope::Local } else { Scope::Session };
                self.settings
                    .borrow_mut()
                    .reset(name, scope)
                    .map_err(setting_error)?;
                self.settings_changed();
                return Ok(());
            }
            SetValue::Values(values) => match (lower.as_str(), values.as_slice()) {
                ("search_path", values) => {
                    let quoted: Vec<String> = values
                        .iter()
                        .map(|value| {
                            if value.is_empty() {
                                "\"\"".to_owned()
                            } else {
                                super::context::quote_ident(value)
                            }
                        })
                        .collect();
                    quoted.join(", ")
                }
                ("datestyle", values) => values.join(", "),
                (_, [one]) => one.clone(),
                _ => {
                    return Err(SqlError::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        format!("SET {name} takes only one argument"),
                    ));
                }
            },
        };
        match lower.as_str() {
            "transaction_isolation" => {
                let level = match text.to_ascii_lowercase().as_str() {
                    "read uncommitted" => ast::IsolationLevel::ReadUncommitted,
                    "read committed" => ast::IsolationLevel::ReadCommitted,
                    "repeatable read" => ast::IsolationLevel::RepeatableRead,
                    "serializable" => ast::IsolationLevel::Serializable,
                    _ => return self.set_setting(name, &text, local),
                };
                self.set_modes(&[ast::TransactionMode::Isolation(level)], false)
            }
            "transaction_read_only" => {
                let Some(on) = towline_base::settings::value::parse_bool(&text) else {
                    return self.set_setting(name, &text, local);
                };
                self.set_modes(&[ast::TransactionMode::ReadOnly(on)], false)
            }
            _ => self.set_setting(name, &text, local),
        }
    }

    pub(super) fn start_show(&mut self, name: &str, announce: bool) -> Result<Utility, SqlError> {
        if name == "all" {
            let settings = self.settings.borrow();
            let mut rows: Vec<Vec<Datum>> = settings
                .show_all()
                .map(|(def, value)| {
                    let value = self.transaction_setting(def.name).unwrap_or(value);
                    vec![
                        Datum::text(def.name),
                        Datum::text(&value),
                        Datum::text(def.description),
                    ]
                })
                .collect();
            rows.sort_by_cached_key(|row| row[0].as_str().unwrap_or_default().to_ascii_lowercase());
            let columns = ["name", "setting", "description"].map(text_column).to_vec();
            return Ok(Utility::Rows {
                rows,
                at: 0,
                tag: "SHOW",
                columns,
                announce,
            });
        }
        let value = self.show(name)?;
        let shown = towline_base::settings::table::find(name).map_or(name, |def| def.name);
        let columns = vec![text_column(shown)];
        Ok(Utility::Rows {
            rows: vec![vec![Datum::text(&value)]],
            at: 0,
            tag: "SHOW",
            columns,
            announce,
        })
    }

    pub(super) fn alter_system(&mut self, name: &str, value: Option<&SetValue>) -> Result<Utility, SqlError> {
        if self.block == Block::Open || self.in_implicit_block() {
            return Err(not_in_block("ALTER SYSTEM"));
        }
        if !self.role.superuser {
            return Err(SqlError::denied(format!(
                "permission denied to set parameter \"{name}\""
            )));
        }
        let text = match value {
            None | Some(SetValue::Default) => None,
            Some(SetValue::Values(values)) => Some(values.join(", ")),
        };
        if let Some(text) = &text {
            check_value(name, text)?;
        }
        if name == "all" {
            self.settings
                .borrow()
                .node()
                .alter_system_reset_all()
                .map_err(setting_error)?;
        } else {
            match self.engine.cluster() {
                Some(cluster) => cluster.alter_system(name, text.as_deref())?,
                None => {
                    self.settings
                        .borrow()
                        .node()
                        .alter_system(name, text.as_deref())
                        .map_err(setting_error)?;
                }
            }
        }
        Ok(Utility::Tag("ALTER SYSTEM"))
    }

    pub(super) fn discard(&mut self, what: &str) -> Result<Utility, SqlError> {
        match what {
            "all" => {
                if self.block == Block::Open || self.in_implicit_block() {
                    return Err(not_in_block("DISCARD ALL"));
                }
                self.statements.clear();
                self.portals.clear();
                self.texts.clear();
                self.simple_texts.clear();
                self.ensure_transaction()?;
                self.settings.borrow_mut().reset_all();
                self.settings_changed();
                Ok(Utility::Tag("DISCARD ALL"))
            }
            "plans" => {
                self.texts.clear();
                self.simple_texts.clear();
                Ok(Utility::Tag("DISCARD PLANS"))
            }
            "cursors" => Ok(Utility::Tag("CLOSE CURSOR ALL")),
            "channels" => Ok(Utility::Tag("UNLISTEN")),
            "sequences" => Ok(Utility::Tag("DISCARD SEQUENCES")),
            _ => Ok(Utility::Tag("DISCARD TEMP")),
        }
    }
}
