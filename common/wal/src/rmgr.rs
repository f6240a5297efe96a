//! The table of resource managers: which id means what, and its name in dumps.
//!
//! Ids 0–21 are PostgreSQL 15's; 128–255 are free for extensions, of which Towline uses 128. All of PostgreSQL's names
//! are here, so that dumps of foreign WAL read well, but only those that Towline writes have a variant of their own.

use std::fmt;

/// The resource manager that a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rmgr {
    /// Checkpoints, timelines, page images.
    Xlog,
    /// Commit and abort.
    Transaction,
    /// Relation files.
    Storage,
    /// What standbys must know about running transactions.
    Standby,
    /// Heap: prune, vacuum, freeze, visibility, multi-insert.
    Heap2,
    /// Heap: rows.
    Heap,
    /// B-tree indexes.
    Btree,
    /// Towline's own records.
    Towline,
    /// An id that Towline does not write; replay refuses it.
    Foreign(u8),
}

/// PostgreSQL 15's names by id.
const NAMES: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

/// Lowest id for resource managers outside PostgreSQL's core.
pub const MIN_CUSTOM_ID: u8 = 128;

impl Rmgr {
    /// The manager of an `xl_rmid` byte.
    pub fn from_id(id: u8) -> Self {
        match id {
            0 => Self::Xlog,
            1 => Self::Transaction,
            2 => Self::Storage,
            8 => Self::Standby,
            9 => Self::Heap2,
            10 => Self::Heap,
            11 => Self::Btree,
            128 => Self::Towline,
            other => Self::Foreign(other),
        }
    }

    /// The `xl_rmid` byte.
    pub fn id(self) -> u8 {
        match self {
            Self::Xlog => 0,
            Self::Transaction => 1,
            Self::Storage => 2,
            Self::Standby => 8,
            Self::Heap2 => 9,
            Self::Heap => 10,
            Self::Btree => 11,
            Self::Towline => 128,
            Self::Foreign(id) => id,
        }
    }

    /// Whether the id is one that a log may contain: PostgreSQL's or the custom range.
    pub fn is_valid_id(id: u8) -> bool {
        usize::from(id) < NAMES.len() || id >= MIN_CUSTOM_ID
    }

    /// The manager with this name in dumps (case-insensitive), as `-r` of pg_waldump takes it.
    pub fn from_name(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("towline") {
            return Some(Self::Towline);
        }
        if let Some(id) = name.strip_prefix("custom").and_then(|id| id.parse().ok()) {
            return (id >= MIN_CUSTOM_ID).then(|| Self::from_id(id));
        }
        NAMES
            .iter()
            .position(|known| known.eq_ignore_ascii_case(name))
            .map(|id| Self::from_id(id as u8))
    }

    /// Every id that has a name, in order: PostgreSQL's, then ours.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..NAMES.len() as u8)
            .chain([Self::Towline.id()])
            .map(Self::from_id)
    }
}

impl fmt::Display for Rmgr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Towline => f.pad("Towline"),
            _ => match NAMES.get(usize::from(self.id())) {
                Some(name) => f.pad(name),
                None => f.pad(&format!("custom{:03}", self.id())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_and_names_round_trip() {
        for id in 0..=255u8 {
            assert_eq!(Rmgr::from_id(id).id(), id);
            if Rmgr::is_valid_id(id) {
                assert_eq!(
                    Rmgr::from_name(&Rmgr::from_id(id).to_string()),
                    Some(Rmgr::from_id(id))
                );
            }
        }
        assert!(!Rmgr::is_valid_id(22) && !Rmgr::is_valid_id(127));
    }
}
