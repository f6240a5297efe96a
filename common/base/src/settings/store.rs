//! [`Settings`]: the node's values, their sources, and reload.
//!
//! A read is one atomic load for numbers, booleans and words, and a short shared lock for texts.
//! Each setting keeps the value of the strongest source: default < `towline.toml` <
//! `towline.auto.toml` < command line. `reload` reads the files again; what needs a restart keeps its
//! value and is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::def::{Context, Key, Kind, SettingDef, Typed, as_bytes, as_duration};
use super::error::SettingError;
use super::file::{self, ConfigFiles, HbaRule};
use super::table::{COUNT, DEFS, find, index_of};
use super::value::Value;
use crate::SqlState;
use crate::vfs::Vfs;

/// Where a setting's value comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    /// The table.
    Default,
    /// `towline.toml`.
    File,
    /// `towline.auto.toml`, written by `ALTER SYSTEM`.
    AutoFile,
    /// The command line.
    CommandLine,
    /// The node itself, for internal settings.
    Override,
}

impl Source {
    /// The name that `pg_settings.source` shows.
    pub const fn name(self) -> &'static str {
        match self {
            Source::Default => "default",
            Source::File | Source::AutoFile => "configuration file",
            Source::CommandLine => "command line",
            Source::Override => "override",
        }
    }
}

struct Cell {
    /// A boolean, a number's bits, or the index of a word.
    number: AtomicU64,
    /// Text settings only.
    text: RwLock<Arc<str>>,
}

/// What a reload changed.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Reload {
    /// Settings with a new value.
    pub changed: Vec<&'static str>,
    /// Settings whose new value waits for a restart.
    pub pending_restart: Vec<&'static str>,
    /// What was wrong in the files; those entries were ignored.
    pub errors: Vec<SettingError>,
}

/// One row of `pg_settings`.
#[derive(Clone, Debug)]
pub struct SettingRow {
    /// The setting.
    pub def: &'static SettingDef,
    /// Its value.
    pub value: Value,
    /// Where the value comes from.
    pub source: Source,
    /// Whether the files hold another value that waits for a restart.
    pub pending_restart: bool,
}

struct Origins {
    source: Vec<Source>,
    pending_restart: Vec<bool>,
    command_line: BTreeMap<usize, Value>,
    hba: Arc<[HbaRule]>,
}

/// The settings of a node.
pub struct Settings {
    cells: Box<[Cell]>,
    generation: AtomicU64,
    origins: Mutex<Origins>,
    files: Option<(Arc<dyn Vfs>, ConfigFiles)>,
}

impl Settings {
    /// All defaults, without files; for tests and tools.
    pub fn defaults() -> Arc<Settings> {
        Arc::new(Settings::build(None))
    }

    /// Defaults with these values as if from the command line; for tests and tools.
    pub fn with(values: &[(&str, &str)]) -> Result<Arc<Settings>, SettingError> {
        let settings = Settings::build(None);
        settings.apply_command_line(values)?;
        Ok(Arc::new(settings))
    }

    /// Reads the configuration files and the command line's `name=value` pairs.
    ///
    /// # Errors
    /// The first entry that is unknown or not a value of its setting, or an unreadable file.
    pub fn load(
        vfs: Arc<dyn Vfs>,
        files: ConfigFiles,
        command_line: &[(&str, &str)],
    ) -> Result<Arc<Settings>, SettingError> {
        let settings = Settings::build(Some((vfs, files)));
        settings.apply_command_line(command_line)?;
        let mut outcome = Reload::default();
        settings.apply_files(&mut outcome, true)?;
        match outcome.errors.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(Arc::new(settings)),
        }
    }

    fn build(files: Option<(Arc<dyn Vfs>, ConfigFiles)>) -> Settings {
        let cells = DEFS.iter().map(|def| {
            let cell = Cell {
                number: AtomicU64::new(0),
                text: RwLock::new(Arc::from("")),
            };
            cell.store(def, &default_value(def));
            cell
        });
        Settings {
            cells: cells.collect(),
            generation: AtomicU64::new(1),
            origins: Mutex::new(Origins {
                source: vec![Source::Default; COUNT],
                pending_restart: vec![false; COUNT],
                command_line: BTreeMap::new(),
                hba: Arc::from([]),
            }),
            files,
        }
    }

    fn apply_command_line(&self, values: &[(&str, &str)]) -> Result<(), SettingError> {
        let mut origins = self.origins.lock();
        for (name, text) in values {
            let index = index_of(name).ok_or_else(|| SettingError::unknown(name))?;
            let def = &DEFS[index];
            if def.context == Context::Internal {
                return Err(SettingError::fixed(def.name));
            }
            let value = Value::parse(def, text)?;
            self.cells[index].store(def, &value);
            origins.source[index] = Source::CommandLine;
            origins.command_line.insert(index, value);
        }
        Ok(())
    }

    /// Reads the files again. Settings that need a restart keep their values. A wrong entry is
    /// reported, and its setting keeps its value; a file that cannot be read or parsed changes nothing.
    pub fn reload(&self) -> Reload {
        let mut outcome = Reload::default();
        if let Err(error) = self.apply_files(&mut outcome, false) {
            outcome.errors.push(error);
        }
        if !outcome.changed.is_empty() {
            self.generation.fetch_add(1, Ordering::Release);
        }
        outcome
    }

    fn apply_files(&self, outcome: &mut Reload, starting: bool) -> Result<(), SettingError> {
        let Some((vfs, files)) = &self.files else {
            return Ok(());
        };
        let main = file::read(vfs.as_ref(), &files.main)?;
        let auto = file::read(vfs.as_ref(), &files.auto)?;
        let mut wanted: BTreeMap<usize, (Value, Source)> = BTreeMap::new();
        // A setting whose strongest entry is wrong keeps its value.
        let mut kept = BTreeSet::new();
        for (contents, path, source) in [
            (&main, &files.main, Source::File),
            (&auto, &files.auto, Source::AutoFile),
        ] {
            for (name, text) in &contents.entries {
                match parse_entry(name, text) {
                    Ok((index, value)) => {
                        kept.remove(&index);
                        wanted.insert(index, (value, source));
                    }
                    Err(error) => {
                        kept.extend(index_of(name));
                        outcome.errors.push(contents.locate(path, name, error));
                    }
                }
            }
        }
        let mut origins = self.origins.lock();
        origins.hba = main.hba.into();
        for (index, def) in DEFS.iter().enumerate() {
            if origins.source[index] == Source::Override || kept.contains(&index) {
                continue;
            }
            let (value, source) = match (origins.command_line.get(&index), wanted.remove(&index)) {
                (Some(value), _) => (value.clone(), Source::CommandLine),
                (None, Some(found)) => found,
                (None, None) => (default_value(def), Source::Default),
            };
            let differs = self.cells[index].load(def) != value;
            let needs_restart = def.context == Context::Postmaster && !starting;
            origins.pending_restart[index] = differs && needs_restart;
            if differs && needs_restart {
                outcome.pending_restart.push(def.name);
                continue;
            }
            origins.source[index] = source;
            if differs {
                self.cells[index].store(def, &value);
                outcome.changed.push(def.name);
            }
        }
        Ok(())
    }

    /// The value of a setting.
    #[inline]
    pub fn get<T: Typed>(&self, key: Key<T>) -> T {
        let value = self.cells[usize::from(key.index)].load(key.def());
        T::from_value(&value).unwrap_or_else(T::fallback)
    }

    /// The value of a number with a unit of memory, in bytes; `None` when negative ("no limit").
    pub fn bytes(&self, key: Key<i64>) -> Option<u64> {
        as_bytes(key.def().unit, self.get(key))
    }

    /// The value of a number with a unit of time; `None` when negative ("never").
    pub fn duration(&self, key: Key<i64>) -> Option<Duration> {
        as_duration(key.def().unit, self.get(key))
    }

    /// The value of a row of the table.
    pub(super) fn value_at(&self, index: usize) -> Value {
        self.cells[index].load(&DEFS[index])
    }

    /// The text that `SHOW` prints.
    pub fn show(&self, name: &str) -> Result<String, SettingError> {
        let index = index_of(name).ok_or_else(|| SettingError::unknown(name))?;
        Ok(self.value_at(index).show(&DEFS[index]))
    }

    /// Grows with every reload that changed something, so that holders of copies notice.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Sets an internal setting, or one that the node decides, past all contexts.
    ///
    /// # Errors
    /// When the text is not a value of the setting.
    pub fn override_value(&self, name: &str, text: &str) -> Result<(), SettingError> {
        let index = index_of(name).ok_or_else(|| SettingError::unknown(name))?;
        let value = Value::parse(&DEFS[index], text)?;
        let mut origins = self.origins.lock();
        self.cells[index].store(&DEFS[index], &value);
        origins.source[index] = Source::Override;
        drop(origins);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// `ALTER SYSTEM SET name = text`, or `RESET name` when `text` is `None`: writes
    /// `towline.auto.toml`. It takes effect at the next reload or restart.
    pub fn alter_system(&self, name: &str, text: Option<&str>) -> Result<(), SettingError> {
        let def = find(name).ok_or_else(|| SettingError::unknown(name))?;
        if def.context == Context::Internal {
            return Err(SettingError::fixed(def.name));
        }
        if let Some(text) = text {
            Value::parse(def, text)?;
        }
        // The lock keeps two writers of the file apart.
        let _origins = self.origins.lock();
        let Some((vfs, files)) = &self.files else {
            let message = "this server has no configuration directory";
            return Err(SettingError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                message,
            ));
        };
        let mut entries = file::read(vfs.as_ref(), &files.auto)?.entries;
        entries.retain(|(other, _)| !other.eq_ignore_ascii_case(def.name));
        if let Some(text) = text {
            entries.push((def.name.to_owned(), text.to_owned()));
        }
        file::write_auto(vfs.as_ref(), &files.auto, &entries)
    }

    /// `ALTER SYSTEM RESET ALL`: empties `towline.auto.toml`.
    pub fn alter_system_reset_all(&self) -> Result<(), SettingError> {
        let _origins = self.origins.lock();
        match &self.files {
            Some((vfs, files)) => file::write_auto(vfs.as_ref(), &files.auto, &[]),
            None => Ok(()),
        }
    }

    /// The `[[hba]]` rules of `towline.toml`, in order; empty when the file has none.
    pub fn hba(&self) -> Arc<[HbaRule]> {
        Arc::clone(&self.origins.lock().hba)
    }

    /// All settings, as `pg_settings` lists them.
    pub fn rows(&self) -> Vec<SettingRow> {
        let origins = self.origins.lock();
        let rows = DEFS.iter().enumerate().map(|(index, def)| SettingRow {
            def,
            value: self.value_at(index),
            source: origins.source[index],
            pending_restart: origins.pending_restart[index],
        });
        rows.collect()
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

fn parse_entry(name: &str, text: &str) -> Result<(usize, Value), SettingError> {
    let index = index_of(name).ok_or_else(|| SettingError::unknown(name))?;
    if DEFS[index].context == Context::Internal {
        return Err(SettingError::fixed(DEFS[index].name));
    }
    Ok((index, Value::parse(&DEFS[index], text)?))
}

fn default_value(def: &SettingDef) -> Value {
    Value::parse(def, def.default).expect("the table's defaults are values, by its tests")
}

impl Cell {
    #[inline]
    fn load(&self, def: &SettingDef) -> Value {
        let number = || self.number.load(Ordering::Relaxed);
        match def.kind {
            Kind::Bool => Value::Bool(number() != 0),
            Kind::Int { .. } => Value::Int(number() as i64),
            Kind::Real { .. } => Value::Real(f64::from_bits(number())),
            Kind::Enum(words) => Value::Enum(words.get(number() as usize).copied().unwrap_or("")),
            Kind::Text(_) => Value::Text(Arc::clone(&self.text.read())),
        }
    }

    fn store(&self, def: &SettingDef, value: &Value) {
        let number = match (value, def.kind) {
            (Value::Bool(value), _) => u64::from(*value),
            (Value::Int(value), _) => *value as u64,
            (Value::Real(value), _) => value.to_bits(),
            (Value::Enum(word), Kind::Enum(words)) => {
                words.iter().position(|other| other == word).unwrap_or(0) as u64
            }
            (Value::Enum(_), _) => 0,
            (Value::Text(text), _) => {
                *self.text.write() = Arc::clone(text);
                return;
            }
        };
        self.number.store(number, Ordering::Relaxed);
    }
}
