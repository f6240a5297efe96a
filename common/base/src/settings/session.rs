//! [`SessionSettings`]: what one session sees: the node's values under its own `SET`s.
//!
//! `SET` lasts for the session, `SET LOCAL` for the transaction; a rollback undoes both, to a
//! savepoint too. Only what differs from the node is stored, so an idle session costs little.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::def::{Context, Key, SettingDef, Typed, as_bytes, as_duration};
use super::error::SettingError;
use super::store::Settings;
use super::table::{DEFS, index_of};
use super::value::Value;

/// How long a `SET` lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Until the session ends or sets it again.
    Session,
    /// Until the transaction ends.
    Local,
}

/// What a transaction level did to one setting.
#[derive(Clone, Debug)]
struct Saved {
    /// The session's value before the level's first change; `None` when it had none of its own.
    before: Option<Value>,
    /// What the last `SET` that is not `LOCAL` left: `Some(None)` after a `RESET` to the node's value.
    lasting: Option<Option<Value>>,
}

type Level = BTreeMap<u16, Saved>;

/// One session's settings.
#[derive(Debug)]
pub struct SessionSettings {
    node: Arc<Settings>,
    /// The session's own values, sorted by row.
    own: Vec<(u16, Value)>,
    /// Values given at login, to which `RESET` returns; sorted by row.
    login: Vec<(u16, Value)>,
    /// Open transaction levels: the transaction, then its savepoints.
    levels: Vec<Level>,
    /// Reported settings that changed since the client was last told.
    unreported: Vec<u16>,
    superuser: bool,
}

impl SessionSettings {
    /// A session that sees the node's values.
    pub fn new(node: Arc<Settings>, superuser: bool) -> SessionSettings {
        SessionSettings {
            node,
            own: Vec::new(),
            login: Vec::new(),
            levels: Vec::new(),
            unreported: Vec::new(),
            superuser,
        }
    }

    /// The node's settings below.
    pub fn node(&self) -> &Arc<Settings> {
        &self.node
    }

    /// The value of a setting.
    #[inline]
    pub fn get<T: Typed>(&self, key: Key<T>) -> T {
        match self.own_value(key.index) {
            Some(value) => T::from_value(value).unwrap_or_else(T::fallback),
            None => self.node.get(key),
        }
    }

    /// The session's own value of a setting; `None` while it follows the node.
    pub fn own<T: Typed>(&self, key: Key<T>) -> Option<T> {
        self.own_value(key.index).and_then(T::from_value)
    }

    /// The value of a number with a unit of memory, in bytes; `None` when negative.
    pub fn bytes(&self, key: Key<i64>) -> Option<u64> {
        as_bytes(key.def().unit, self.get(key))
    }

    /// The value of a number with a unit of time; `None` when negative.
    pub fn duration(&self, key: Key<i64>) -> Option<Duration> {
        as_duration(key.def().unit, self.get(key))
    }

    #[inline]
    fn own_value(&self, index: u16) -> Option<&Value> {
        if self.own.is_empty() {
            return None;
        }
        let found = self.own.binary_search_by_key(&index, |(index, _)| *index);
        found.ok().map(|at| &self.own[at].1)
    }

    fn put(&mut self, index: u16, value: Option<Value>) {
        let found = self.own.binary_search_by_key(&index, |(index, _)| *index);
        let reported = DEFS[usize::from(index)].reported();
        let before = reported.then(|| self.value_of(index));
        match (found, value) {
            (Ok(at), Some(value)) => self.own[at].1 = value,
            (Err(at), Some(value)) => self.own.insert(at, (index, value)),
            (Ok(at), None) => drop(self.own.remove(at)),
            (Err(_), None) => {}
        }
        if before.is_some_and(|before| before != self.value_of(index)) && !self.unreported.contains(&index) {
            self.unreported.push(index);
        }
    }

    fn value_of(&self, index: u16) -> Value {
        match self.own_value(index) {
            Some(value) => value.clone(),
            None => self.node.value_at(usize::from(index)),
        }
    }

    /// The text that `SHOW` prints.
    pub fn show(&self, name: &str) -> Result<String, SettingError> {
        let index = index_of(name).ok_or_else(|| SettingError::unknown(name))?;
        Ok(self.value_of(index as u16).show(&DEFS[index]))
    }

    /// All settings with the session's values, as `SHOW ALL` lists them.
    pub fn show_all(&self) -> impl Iterator<Item = (&'static SettingDef, String)> + '_ {
        let shown = |(index, def): (usize, &'static SettingDef)| (def, self.value_of(index as u16).show(def));
        DEFS.iter().enumerate().map(shown)
    }

    /// A setting given in the startup message: the session's value, and what `RESET` returns to.
    pub fn set_at_login(&mut self, name: &str, text: &str) -> Result<(), SettingError> {
        let (index, value) = self.parse(name, text, true)?;
        self.put(index, Some(value.clone()));
        self.login.retain(|(other, _)| *other != index);
        self.login.push((index, value));
        Ok(())
    }

    /// `SET name = text`.
    pub fn set(&mut self, name: &str, text: &str, scope: Scope) -> Result<(), SettingError> {
        let (index, value) = self.parse(name, text, false)?;
        self.change(index, Some(value), scope);
        Ok(())
    }

    /// `RESET name`, or `SET name TO DEFAULT`.
    pub fn reset(&mut self, name: &str, scope: Scope) -> Result<(), SettingError> {
        let index = self.permitted(name, false)?;
        let login = self.login.iter().find(|(other, _)| *other == index);
        let value = login.map(|(_, value)| value.clone());
        self.change(index, value, scope);
        Ok(())
    }

    /// `RESET ALL`, as `DISCARD ALL` does too.
    pub fn reset_all(&mut self) {
        let rows: Vec<u16> = self.own.iter().map(|(index, _)| *index).collect();
        for index in rows {
            let context = DEFS[usize::from(index)].context;
            if matches!(context, Context::User | Context::Superuser) {
                let login = self.login.iter().find(|(other, _)| *other == index);
                let value = login.map(|(_, value)| value.clone());
                self.change(index, value, Scope::Session);
            }
        }
    }

    /// Sets a value that the session itself decides (`is_superuser`, `transaction_read_only`, …),
    /// past all contexts; no rollback undoes it.
    pub fn set_internal<T>(&mut self, key: Key<T>, text: &str) -> Result<(), SettingError> {
        let value = Value::parse(key.def(), text)?;
        self.put(key.index, Some(value));
        Ok(())
    }

    fn parse(&self, name: &str, text: &str, login: bool) -> Result<(u16, Value), SettingError> {
        let index = self.permitted(name, login)?;
        Ok((index, Value::parse(&DEFS[usize::from(index)], text)?))
    }

    fn permitted(&self, name: &str, login: bool) -> Result<u16, SettingError> {
        let index = index_of(name).ok_or_else(|| SettingError::unknown(name))?;
        let def = &DEFS[index];
        match def.context {
            Context::Internal => Err(SettingError::fixed(def.name)),
            Context::Postmaster => Err(SettingError::needs_restart(def.name)),
            Context::Sighup => Err(SettingError::not_now(def.name)),
            Context::Backend if login => Ok(index as u16),
            Context::Backend => {
                let message = format!("parameter \"{}\" cannot be set after connection start", def.name);
                Err(SettingError::new(
                    crate::SqlState::CANT_CHANGE_RUNTIME_PARAM,
                    message,
                ))
            }
            Context::Superuser if !self.superuser => Err(SettingError::denied(def.name)),
            Context::Superuser | Context::User => Ok(index as u16),
        }
    }

    fn change(&mut self, index: u16, value: Option<Value>, scope: Scope) {
        let before = self.own_value(index).cloned();
        match self.levels.last_mut() {
            Some(level) => {
                let saved = level.entry(index).or_insert(Saved {
                    before,
                    lasting: None,
                });
                if scope == Scope::Session {
                    saved.lasting = Some(value.clone());
                }
            }
            // Outside a transaction SET LOCAL has nothing to last for.
            None if scope == Scope::Local => return,
            None => {}
        }
        self.put(index, value);
    }

    /// A transaction, or a savepoint inside one, begins.
    pub fn begin(&mut self) {
        self.levels.push(Level::new());
    }

    /// The innermost level ends well: a savepoint's changes become its parent's; at the end of the
    /// transaction `SET LOCAL` is undone; true if there was any.
    pub fn commit(&mut self) -> bool {
        let Some(level) = self.levels.pop() else {
            return false;
        };
        let mut undone = false;
        for (index, saved) in level {
            match self.levels.last_mut() {
                Some(parent) => {
                    let entry = parent.entry(index).or_insert(Saved {
                        before: saved.before,
                        lasting: None,
                    });
                    if saved.lasting.is_some() {
                        entry.lasting = saved.lasting;
                    }
                }
                None => {
                    undone |= saved.lasting.is_none();
                    self.put(index, saved.lasting.unwrap_or(saved.before));
                }
            }
        }
        undone
    }

    /// The innermost level is rolled back; true if it had changed anything.
    pub fn rollback(&mut self) -> bool {
        let level = self.levels.pop().unwrap_or_default();
        let changed = !level.is_empty();
        for (index, saved) in level {
            self.put(index, saved.before);
        }
        changed
    }

    /// Whether the open transaction has set something that its end may undo.
    pub fn is_changed(&self) -> bool {
        self.levels.iter().any(|level| !level.is_empty())
    }

    /// Reported settings that changed since the last call: name and text.
    pub fn take_reports(&mut self) -> Vec<(&'static str, String)> {
        let rows = std::mem::take(&mut self.unreported);
        let report = |index: u16| {
            let def = &DEFS[usize::from(index)];
            (def.name, self.value_of(index).show(def))
        };
        rows.into_iter().map(report).collect()
    }

    /// All reported settings, for the end of the login.
    pub fn all_reports(&mut self) -> Vec<(&'static str, String)> {
        self.unreported.clear();
        let shown = |name: &&'static str| Some((*name, self.show(name).ok()?));
        super::table::REPORTED.iter().filter_map(shown).collect()
    }
}
