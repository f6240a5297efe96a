//! The table of all settings, and a typed key for each.
//!
//! Names, units, bounds and contexts are PostgreSQL 15's where it has the setting. A setting that is
//! "kept for clients that ask" changes nothing here.
//!
//! The rows stand in one file for each theme; [`DEFS`] is all of them, one theme after the other.

use super::def::SettingDef;

/// Settings whose value a client is told at login and at each change.
pub const REPORTED: [&str; 14] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
    "towline.last_commit_lsn",
];

/// Finds a setting by name, without regard to case.
pub fn find(name: &str) -> Option<&'static SettingDef> {
    index_of(name).map(|index| &DEFS[index])
}

/// The row of a setting, by name without regard to case. Linear: the table is small, and this is
/// asked by `SET` and `SHOW`, not by hot paths.
pub(super) fn index_of(name: &str) -> Option<usize> {
    let name = match name.to_ascii_lowercase().as_str() {
        // PostgreSQL's second names.
        "sort_mem" => "work_mem",
        "vacuum_mem" => "maintenance_work_mem",
        _ => name,
    };
    DEFS.iter().position(|def| def.name.eq_ignore_ascii_case(name))
}

/// The rows of one theme: its part of [`DEFS`], which begins at row `$base`, and its keys.
macro_rules! settings_table {
    (begins at $base:expr;
     $($name:ident $(($shown:literal))?: $type:ty = $default:literal, $kind:expr, $unit:expr, $context:expr,
       $category:literal, $description:literal;)*) => {
        #[allow(unused_imports, reason = "a theme need not have every kind of setting")]
        mod names {
            pub(super) use std::marker::PhantomData;
            pub(super) use std::sync::Arc;

            pub(super) use crate::settings::checks;
            pub(super) use crate::settings::def::Context::{Backend, Internal, Postmaster, Sighup, Superuser, User};
            pub(super) use crate::settings::def::Kind::{Bool, Enum, Int, Real, Text};
            pub(super) use crate::settings::def::Unit::{
                Blocks, Bytes, Kilobytes, Megabytes, Micros, Millis, Minutes, Plain, Seconds,
            };
            pub(super) use crate::settings::def::{Key, SettingDef};
        }
        #[allow(unused_imports, reason = "a theme need not have every kind of setting")]
        use names::*;

        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        #[repr(u16)]
        enum Row { $($name),* }

        /// A typed key for each setting, by its name.
        #[allow(non_upper_case_globals)]
        pub(super) mod keys {
            use super::*;
            $(
                #[doc = $description]
                pub const $name: Key<$type> = Key { index: super::BEGIN + Row::$name as u16, of: PhantomData };
            )*
        }

        /// The first row of this theme in the whole table.
        const BEGIN: u16 = $base;
        const COUNT: usize = [$(stringify!($name)),*].len();
        /// The row behind the last one.
        pub(super) const END: u16 = BEGIN + COUNT as u16;

        /// The rows.
        pub(super) const DEFS: [SettingDef; COUNT] = [$(SettingDef {
            name: crate::settings::table::settings_table!(@name $name $($shown)?),
            kind: $kind,
            unit: $unit,
            context: $context,
            default: $default,
            category: $category,
            description: $description,
        }),*];

        #[cfg(test)]
        pub(super) fn key_types() -> Vec<(&'static str, bool)> {
            use crate::settings::def::Typed;
            use crate::settings::value::Value;
            vec![$({
                let def = keys::$name.def();
                let value = Value::parse(def, def.default).ok();
                (def.name, value.is_some_and(|v| <$type as Typed>::from_value(&v).is_some()))
            }),*]
        }
    };
    (@name $name:ident) => { stringify!($name) };
    (@name $name:ident $shown:literal) => { $shown };
}
use settings_table;

macro_rules! themes {
    ($($theme:ident),* $(,)?) => {
        $(mod $theme;)*

        /// A typed key for each setting, by its name.
        pub mod keys {
            $(pub use super::$theme::keys::*;)*
        }

        /// The themes' rows, in the order in which they count.
        const THEMES: &[&[SettingDef]] = &[$(&$theme::DEFS),*];

        #[cfg(test)]
        fn key_types() -> Vec<(&'static str, bool)> {
            [$($theme::key_types()),*].concat()
        }
    };
}

themes!(
    connections,
    resources,
    wal,
    replication,
    queries,
    maintenance,
    clients
);

/// How many settings there are.
pub const COUNT: usize = clients::END as usize;

/// Every setting, grouped by theme and category.
pub static DEFS: [SettingDef; COUNT] = {
    let mut all = [THEMES[0][0]; COUNT];
    let (mut row, mut theme) = (0, 0);
    while theme < THEMES.len() {
        let mut within = 0;
        while within < THEMES[theme].len() {
            all[row] = THEMES[theme][within];
            row += 1;
            within += 1;
        }
        theme += 1;
    }
    assert!(row == COUNT, "each theme begins where the one before it ends");
    all
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_keys_type() {
        for (name, fits) in key_types() {
            assert!(fits, "{name}");
        }
    }

    #[test]
    fn names_are_unique_and_reported_ones_exist() {
        for (index, def) in DEFS.iter().enumerate() {
            assert_eq!(index_of(def.name), Some(index), "{} twice", def.name);
            assert!(
                !def.description.is_empty() && def.description.ends_with('.'),
                "{}",
                def.name
            );
        }
        assert!(REPORTED.iter().all(|name| find(name).is_some()));
        assert_eq!(find("datestyle").map(|def| def.name), Some("DateStyle"));
    }

    #[test]
    fn a_key_finds_its_own_row() {
        for (key, name) in [
            (keys::port.name(), "port"),
            (keys::shared_buffers.name(), "shared_buffers"),
            (keys::wal_buffers.name(), "wal_buffers"),
            (keys::checkpoint_timeout.name(), "checkpoint_timeout"),
        ] {
            assert_eq!(key, name);
        }
    }
}
