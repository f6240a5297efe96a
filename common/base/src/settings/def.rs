//! What a setting is: its type, unit, context, and the typed [`Key`] that reads it.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::value::Value;

/// When a setting may change, and by whom; PostgreSQL's contexts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Context {
    /// Never: a property of the build, the data directory or the session.
    Internal,
    /// At start only.
    Postmaster,
    /// By a configuration reload.
    Sighup,
    /// When a connection is made.
    Backend,
    /// In a session of a superuser.
    Superuser,
    /// In any session.
    User,
}

impl Context {
    /// The name that `pg_settings.context` shows.
    pub const fn name(self) -> &'static str {
        match self {
            Context::Internal => "internal",
            Context::Postmaster => "postmaster",
            Context::Sighup => "sighup",
            Context::Backend => "backend",
            Context::Superuser => "superuser",
            Context::User => "user",
        }
    }
}

/// The type of a setting, with its bounds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// on or off.
    Bool,
    /// A whole number, in the setting's unit.
    Int {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// A number, in the setting's unit.
    Real {
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// Text, checked by this function, which gives the canonical form or why it is refused.
    Text(fn(&str) -> Result<String, String>),
    /// One of these words.
    Enum(&'static [&'static str]),
}

impl Kind {
    /// The name that `pg_settings.vartype` shows.
    pub const fn name(&self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int { .. } => "integer",
            Kind::Real { .. } => "real",
            Kind::Text(_) => "string",
            Kind::Enum(_) => "enum",
        }
    }
}

/// Settings that tell where a node keeps its files: shown to superusers and to members of `pg_read_all_settings` only.
const SECLUDED: [&str; 3] = ["data_directory", "config_file", "hba_file"];

/// Whether an ordinary user may not see the value of this setting.
pub fn is_secluded(name: &str) -> bool {
    SECLUDED
        .iter()
        .any(|secluded| name.eq_ignore_ascii_case(secluded))
}

/// The unit in which a number is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// None.
    Plain,
    /// Bytes.
    Bytes,
    /// 1024 bytes.
    Kilobytes,
    /// Pages of 8 kB.
    Blocks,
    /// 1024 kB.
    Megabytes,
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Seconds.
    Seconds,
    /// Minutes.
    Minutes,
}

impl Unit {
    /// The name that `pg_settings.unit` shows; `None` without a unit.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Unit::Plain => None,
            Unit::Bytes => Some("B"),
            Unit::Kilobytes => Some("kB"),
            Unit::Blocks => Some("8kB"),
            Unit::Megabytes => Some("MB"),
            Unit::Micros => Some("us"),
            Unit::Millis => Some("ms"),
            Unit::Seconds => Some("s"),
            Unit::Minutes => Some("min"),
        }
    }

    /// Bytes in one, for units of memory.
    pub const fn bytes(self) -> Option<u64> {
        match self {
            Unit::Bytes => Some(1),
            Unit::Kilobytes => Some(1024),
            Unit::Blocks => Some(8192),
            Unit::Megabytes => Some(1024 * 1024),
            _ => None,
        }
    }

    /// Microseconds in one, for units of time.
    pub const fn micros(self) -> Option<u64> {
        match self {
            Unit::Micros => Some(1),
            Unit::Millis => Some(1_000),
            Unit::Seconds => Some(1_000_000),
            Unit::Minutes => Some(60_000_000),
            _ => None,
        }
    }
}

/// One setting of the table.
#[derive(Clone, Copy, Debug)]
pub struct SettingDef {
    /// Its name, as `SHOW` spells it. Names compare without regard to case.
    pub name: &'static str,
    /// Type and bounds.
    pub kind: Kind,
    /// Unit of a number.
    pub unit: Unit,
    /// When it may change.
    pub context: Context,
    /// The value without any configuration, as text.
    pub default: &'static str,
    /// The group under which documentation lists it.
    pub category: &'static str,
    /// What it does, in one sentence.
    pub description: &'static str,
}

impl SettingDef {
    /// Whether its changes are told to the client (`ParameterStatus`).
    pub fn reported(&self) -> bool {
        super::table::REPORTED.contains(&self.name)
    }
}

/// A typed name of a setting: `settings.get(keys::work_mem)`.
#[derive(Debug)]
pub struct Key<T> {
    pub(super) index: u16,
    pub(super) of: PhantomData<fn() -> T>,
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> Key<T> {
    /// Its row in the table.
    pub fn def(self) -> &'static SettingDef {
        &super::table::DEFS[usize::from(self.index)]
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.def().name
    }
}

/// A Rust type that a setting's value has.
pub trait Typed: Sized {
    /// The value as this type; the table's tests prove that a key's type fits its kind.
    fn from_value(value: &Value) -> Option<Self>;
    /// What to use where the type does not fit; never seen when the table is right.
    fn fallback() -> Self;
}

macro_rules! typed {
    ($type:ty, $variant:ident, $fallback:expr) => {
        impl Typed for $type {
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    Value::$variant(value) => Some(value.clone()),
                    _ => None,
                }
            }
            fn fallback() -> Self {
                $fallback
            }
        }
    };
}

typed!(bool, Bool, false);
typed!(i64, Int, 0);
typed!(f64, Real, 0.0);
typed!(Arc<str>, Text, Arc::from(""));
typed!(&'static str, Enum, "");

/// A whole number of some unit as a duration; negative numbers, which mean "off" or "no limit"
/// in PostgreSQL's settings, give `None`.
pub(super) fn as_duration(unit: Unit, value: i64) -> Option<Duration> {
    let value = u64::try_from(value).ok()?;
    Some(Duration::from_micros(value.saturating_mul(unit.micros()?)))
}

/// A whole number of some unit as bytes; negative numbers give `None`.
pub(super) fn as_bytes(unit: Unit, value: i64) -> Option<u64> {
    Some(u64::try_from(value).ok()?.saturating_mul(unit.bytes()?))
}
