//! Where a relation's files are: PostgreSQL's names. `base/<db>/<N>`, `global/<N>` for shared relations, `_vm`, `_fsm`, `_init` for
//! the other forks, `.1`, `.2`… for the parts of 1 GB after the first.

use towline_base::limits::BLOCKS_PER_FILE;
use towline_base::{ForkKind, PAGE_SIZE, PageId, RelFileNode};

use std::path::PathBuf;

/// The tablespace of ordinary relations.
pub const DEFAULT_TABLESPACE: u32 = 1663;
/// The tablespace of relations that all databases share.
pub const SHARED_TABLESPACE: u32 = 1664;
/// The one database, `postgres`.
pub const DATABASE: u32 = 5;

/// One file of one fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    /// The relation.
    pub rel: RelFileNode,
    /// The fork.
    pub fork: ForkKind,
    /// Which gigabyte.
    pub part: u32,
}

impl FileKey {
    /// The file that holds a page.
    pub fn of(page: &PageId) -> FileKey {
        FileKey {
            rel: page.rel,
            fork: page.fork,
            part: page.block / BLOCKS_PER_FILE,
        }
    }

    /// Path below the data directory.
    pub fn path(&self) -> PathBuf {
        let mut path = relation_directory(&self.rel);
        let suffix = match self.fork {
            ForkKind::Main => String::new(),
            other => format!("_{}", other.name()),
        };
        let part = if self.part == 0 {
            String::new()
        } else {
            format!(".{}", self.part)
        };
        path.push(format!("{}{suffix}{part}", self.rel.rel));
        path
    }
}

/// The directory of a relation's files, below the data directory.
pub fn relation_directory(rel: &RelFileNode) -> PathBuf {
    if rel.spc == SHARED_TABLESPACE {
        PathBuf::from("global")
    } else {
        PathBuf::from(format!("base/{}", rel.db))
    }
}

/// Offset of a page in its file.
pub fn file_offset(page: &PageId) -> u64 {
    u64::from(page.block % BLOCKS_PER_FILE) * PAGE_SIZE as u64
}

/// A relation with the main tablespace and database.
pub const fn relation(rel: u32) -> RelFileNode {
    RelFileNode {
        spc: DEFAULT_TABLESPACE,
        db: DATABASE,
        rel,
    }
}

/// Parses a file name of a database directory: relation number, fork, part. `None` for a foreign name.
pub fn parse_file_name(name: &str) -> Option<(u32, ForkKind, u32)> {
    let (stem, part) = match name.split_once('.') {
        Some((stem, part)) => (stem, canonical_number(part).filter(|part| *part > 0)?),
        None => (name, 0),
    };
    let (number, fork) = match stem.split_once('_') {
        Some((number, fork)) => {
            let fork = ForkKind::ALL
                .into_iter()
                .find(|kind| *kind != ForkKind::Main && kind.name() == fork)?;
            (number, fork)
        }
        None => (stem, ForkKind::Main),
    };
    Some((canonical_number(number).filter(|number| *number > 0)?, fork, part))
}

fn canonical_number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_postgresqls_and_parse_back() {
        for (fork, part, name) in [
            (ForkKind::Main, 0, "base/5/16384"),
            (ForkKind::Main, 2, "base/5/16384.2"),
            (ForkKind::Vm, 0, "base/5/16384_vm"),
            (ForkKind::Init, 1, "base/5/16384_init.1"),
        ] {
            let key = FileKey {
                rel: relation(16384),
                fork,
                part,
            };
            assert_eq!(key.path().to_str().unwrap(), name);
            assert_eq!(
                parse_file_name(name.rsplit('/').next().unwrap()),
                Some((16384, fork, part))
            );
        }
        for foreign in [
            "PG_VERSION",
            "16384_main",
            "016384",
            "16384.0",
            "16384.x",
            "16384_vm_vm",
            "",
            "_vm",
            "0",
        ] {
            assert_eq!(parse_file_name(foreign), None, "{foreign}");
        }
        let shared = RelFileNode {
            spc: SHARED_TABLESPACE,
            db: 0,
            rel: 1260,
        };
        assert_eq!(relation_directory(&shared), PathBuf::from("global"));
    }

    #[test]
    fn the_last_block_of_a_part_is_followed_by_the_next_file() {
        let page = PageId::main(relation(7), BLOCKS_PER_FILE);
        assert_eq!((FileKey::of(&page).part, file_offset(&page)), (1, 0));
        let page = PageId::main(relation(7), BLOCKS_PER_FILE - 1);
        assert_eq!(
            (FileKey::of(&page).part, file_offset(&page)),
            (0, (1 << 30) - 8192)
        );
    }
}
