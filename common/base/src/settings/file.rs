//! The configuration files: `towline.toml`, written by people, and `towline.auto.toml`, written by
//! `ALTER SYSTEM`.
//!
//! ```toml
//! shared_buffers = "64MB"
//! fsync = true
//! commit_delay = 0
//! [towline]                # a setting with a dot in its name
//! [[hba]]                  # login rules, first match counts
//! address = "10.0.0.0/8"   # or "all", "local"
//! user = "all"
//! database = "all"
//! method = "scram-sha-256" # or "trust", "reject"
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::SettingError;
use crate::SqlState;
use crate::vfs::Vfs;

/// The file that `ALTER SYSTEM` writes.
const AUTO_FILE: &str = "towline.auto.toml";
/// Longest configuration file that is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The two files of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigFiles {
    /// `towline.toml`.
    pub main: PathBuf,
    /// `towline.auto.toml`.
    pub auto: PathBuf,
}

impl ConfigFiles {
    /// The files in this data directory.
    pub fn in_dir(dir: &Path) -> ConfigFiles {
        ConfigFiles {
            main: dir.join("towline.toml"),
            auto: dir.join(AUTO_FILE),
        }
    }
}

/// One login rule.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HbaRule {
    /// `host` (TCP), `hostssl`, `hostnossl` or `local` (socket file).
    #[serde(rename = "type", default = "host")]
    pub kind: String,
    /// `all`, or a network (`10.0.0.0/8`, `::1/128`), or one address; empty for `local`.
    #[serde(default)]
    pub address: String,
    /// `all` or names of roles, with commas between them.
    #[serde(default = "all")]
    pub user: String,
    /// `all`, `sameuser` or names of databases, with commas between them.
    #[serde(default = "all")]
    pub database: String,
    /// `trust`, `scram-sha-256` or `reject`.
    pub method: String,
}

fn host() -> String {
    "host".to_owned()
}

fn all() -> String {
    "all".to_owned()
}

#[derive(Default, Debug)]
pub(super) struct Contents {
    /// Names and texts in the file's order.
    pub(super) entries: Vec<(String, String)>,
    pub(super) hba: Vec<HbaRule>,
    /// The file as it was read, to say in which line something is wrong.
    text: String,
}

impl Contents {
    /// An error of the entry `name`, with the file and the line it stands in.
    pub(super) fn locate(&self, path: &Path, name: &str, error: SettingError) -> SettingError {
        let line = line_of(&self.text, name).map_or_else(String::new, |line| format!(" line {line}"));
        let message = format!(
            "configuration file \"{}\"{line}: {}",
            path.display(),
            error.message
        );
        SettingError { message, ..error }
    }
}

/// The line, from 1, where the entry `name` begins. A part after a dot may stand in a table.
fn line_of(text: &str, name: &str) -> Option<usize> {
    let key_of = |line: &str| {
        line.split_once('=')
            .map(|(key, _)| key.trim().trim_matches('"').to_owned())
    };
    let at = |wanted: &str| {
        text.lines()
            .position(|line| key_of(line).as_deref() == Some(wanted))
    };
    let last = name.rsplit_once('.').map(|(_, last)| last);
    at(name).or_else(|| last.and_then(at)).map(|index| index + 1)
}

/// Reads a file; an absent one is empty.
pub(super) fn read(vfs: &dyn Vfs, path: &Path) -> Result<Contents, SettingError> {
    let bytes = match vfs.read_file(path, MAX_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Contents::default()),
        Err(error) => return Err(file_error(path, &error)),
    };
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => return Err(broken(path, &bytes, error.valid_up_to(), "it is not UTF-8")),
    };
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            let at = error.span().map_or(text.len(), |span| span.start);
            return Err(broken(path, &bytes, at, error.message()));
        }
    };
    let mut contents = parse(table, text).map_err(|error| file_error(path, &error))?;
    contents.text = text.to_owned();
    Ok(contents)
}

fn parse(table: toml::Table, text: &str) -> Result<Contents, String> {
    let mut contents = Contents::default();
    for (name, value) in table {
        match value {
            toml::Value::Array(_) if name == "hba" => {
                let wrong = |error: toml::de::Error| format!("[[hba]]: {}", one_line(error.message()));
                contents.hba = value.try_into().map_err(wrong)?;
            }
            toml::Value::Table(inner) => {
                for (rest, value) in inner {
                    let name = format!("{name}.{rest}");
                    let text = scalar(text, &name, &value)?;
                    contents.entries.push((name, text));
                }
            }
            value => {
                let text = scalar(text, &name, &value)?;
                contents.entries.push((name, text));
            }
        }
    }
    Ok(contents)
}

fn scalar(file: &str, name: &str, value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(value) => Ok(value.to_string()),
        other => {
            let line = line_of(file, name).map_or_else(String::new, |line| format!("line {line}: "));
            Err(format!(
                "{line}{name}: expected a value, found {}",
                other.type_str()
            ))
        }
    }
}

/// Replaces `towline.auto.toml`, atomically.
pub(super) fn write_auto(
    vfs: &dyn Vfs,
    path: &Path,
    entries: &[(String, String)],
) -> Result<(), SettingError> {
    let mut text = String::from("# Written by ALTER SYSTEM; do not edit by hand.\n");
    for (name, value) in entries {
        let quoted = toml::Value::String(value.clone());
        // A dot in the name would mean a table.
        let name = if name.contains('.') {
            format!("\"{name}\"")
        } else {
            name.clone()
        };
        text.push_str(&format!("{name} = {quoted}\n"));
    }
    vfs.write_file_atomically(path, text.as_bytes())
        .map_err(|error| file_error(path, &error))
}

/// An error of the file itself, at this byte of it: the line, what is wrong there, and what to do.
fn broken(path: &Path, bytes: &[u8], at: usize, wrong: &str) -> SettingError {
    let line = 1 + bytes.iter().take(at).filter(|byte| **byte == b'\n').count();
    let message = format!(
        "configuration file \"{}\" line {line} cannot be read: {}",
        path.display(),
        one_line(wrong)
    );
    let hint = if path.file_name().is_some_and(|name| name == AUTO_FILE) {
        "correct or remove that line; the file holds what ALTER SYSTEM has set, and without it the node starts with the other settings"
    } else {
        "correct or remove that line"
    };
    SettingError::new(SqlState::CONFIG_FILE_ERROR, message).with_hint(hint)
}

/// The parser says over several lines what it expected.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join(", ")
}

fn file_error(path: &Path, error: &dyn std::fmt::Display) -> SettingError {
    let message = format!("configuration file \"{}\": {error}", path.display());
    SettingError::new(SqlState::CONFIG_FILE_ERROR, message)
}
