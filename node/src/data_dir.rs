//! A node's data directory as the binary sees it: whose it is, whether it is in use, whether it can be read.
//!
//! The identity file `towline.node` is made with the directory and never copied: a base backup leaves it out, so a
//! cloned or restored directory is a new node (A6). It is also the marker by which `up --fresh` knows what it may remove.
//!
//! While a directory is made, and while `up --fresh` removes one, the marker `towline.init` stands in it: from the first byte to the last
//! sync. What is in a marked directory is of no use to anybody, and whoever makes it next begins by [clearing](clear) it.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use towline_base::vfs::FileLock;
use towline_base::{Incarnation, NodeId, OsVfs, Vfs};

use crate::refusal::{Outcome, Refusal};

/// The identity file.
pub(crate) const NODE_FILE: &str = "towline.node";
/// The file whose lock says that a process uses the directory.
pub(crate) const LOCK_FILE: &str = "towline.lock";
/// Stands in a directory that is being made or removed.
pub(crate) const INIT_MARKER: &str = "towline.init";
/// What a start that was cut short before it had marked the directory may leave in it.
const LEFTOVERS: [&str; 3] = [LOCK_FILE, "towline.init.tmp", "towline.node.tmp"];
const HEADER: &str = "towline data directory 1";
const MAX_NODE_FILE: u64 = 4096;

/// What a path holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Nothing is there, or an empty directory, or one in which a start had not begun to make anything.
    Nothing,
    /// What an `init` or a removal that was cut short has left.
    Unfinished,
    /// A data directory of this node.
    Node(NodeId),
    /// Something that is not ours.
    Foreign,
}

/// Looks at a path without changing anything.
pub(crate) fn look(dir: &Path) -> Outcome<Contents> {
    let unreadable = |error: &io::Error| unreadable(dir, error);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        // A link is there, and what it leads to is not.
        Err(error) if error.kind() == io::ErrorKind::NotFound && std::fs::symlink_metadata(dir).is_ok() => {
            return Err(Refusal::new(format!(
                "{} is a link that leads nowhere; make the directory that it names, or remove it.",
                dir.display()
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::Nothing),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(Refusal::new(format!(
                "{} is not a directory; name one with --data-dir.",
                dir.display()
            )));
        }
        Err(error) => return Err(unreadable(&error)),
    };
    let is_there = |name: &str| dir.join(name).try_exists().map_err(|error| unreadable(&error));
    if is_there(INIT_MARKER)? {
        return Ok(Contents::Unfinished);
    }
    if is_there(NODE_FILE)? {
        return read_node(dir).map(Contents::Node);
    }
    for entry in entries {
        let name = entry.map_err(|error| unreadable(&error))?.file_name();
        if !LEFTOVERS.iter().any(|leftover| name == OsStr::new(leftover)) {
            return Ok(Contents::Foreign);
        }
    }
    Ok(Contents::Nothing)
}

/// Refuses a path that is no directory, for a command that makes none.
pub(crate) fn check_is_directory(dir: &Path) -> Outcome {
    match std::fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Err(unreadable(dir, &error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Refusal::new(format!(
            "{} is not a data directory of Towline: there is no such directory; name that of a stopped node.",
            dir.display()
        ))),
        Ok(_) | Err(_) => Err(Refusal::new(format!(
            "{} is not a data directory of Towline: it is not a directory; name that of a stopped node.",
            dir.display()
        ))),
    }
}

/// Marks a directory as of no use until it is made, durably. It is there, and locked.
pub(crate) fn mark(dir: &Path) -> io::Result<()> {
    let text = b"this directory is being made or removed; towline init begins it anew\n";
    OsVfs.write_file_atomically(&dir.join(INIT_MARKER), text)
}

/// What was made in a marked directory is complete and durable.
pub(crate) fn unmark(dir: &Path) -> io::Result<()> {
    OsVfs.remove_file(&dir.join(INIT_MARKER))?;
    OsVfs.sync_dir(dir)
}

/// Removes everything from a marked directory but the marker and the lock, which the caller holds. Links to directories stay, emptied: where
/// the data are to lie was the operator's choice.
pub(crate) fn clear(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        if [INIT_MARKER, LOCK_FILE]
            .iter()
            .any(|kept| name == OsStr::new(kept))
        {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(&path)?;
        } else if path.is_dir() {
            empty(&path)?;
        } else {
            std::fs::remove_file(&path)?;
        }
    }
    OsVfs.sync_dir(dir)
}

fn empty(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    OsVfs.sync_dir(dir)
}

/// Clears a marked directory for whoever makes something else of it.
pub(crate) fn reclaim(dir: &Path) -> Outcome {
    let _lock = lock(dir)?;
    let cleared = clear(dir).and_then(|()| unmark(dir));
    cleared.map_err(|error| Refusal::failed(format!("{} cannot be cleared: {error}.", dir.display())))
}

/// What is said of a file or directory that may be whole: nothing of it is to be removed.
pub(crate) fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(format!(
        "{} cannot be read ({error}); check its owner and mode.",
        path.display()
    ))
}

/// Reads the identity file.
pub(crate) fn read_node(dir: &Path) -> Outcome<NodeId> {
    let path = dir.join(NODE_FILE);
    let damaged = || {
        Refusal::new(format!(
            "{} is damaged; restore the data directory from a backup, or remove it and start again.",
            path.display()
        ))
    };
    let bytes = OsVfs
        .read_file(&path, MAX_NODE_FILE)
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::IsADirectory => damaged(),
            _ => unreadable(&path, &error),
        })?;
    parse_node(&String::from_utf8_lossy(&bytes)).ok_or_else(damaged)
}

/// The identity file's text; a change of any byte of it is noticed.
fn node_text(node: &NodeId) -> String {
    let body = format!("{HEADER}\nname {}\nincarnation {}\n", node.name, node.incarnation);
    let checksum = crc32c::crc32c(body.as_bytes());
    format!("{body}checksum {checksum:08x}\n")
}

fn parse_node(text: &str) -> Option<NodeId> {
    let mut lines = text.lines();
    (lines.next()? == HEADER).then_some(())?;
    let name = lines.next()?.strip_prefix("name ")?;
    let incarnation: Incarnation = lines.next()?.strip_prefix("incarnation ")?.parse().ok()?;
    check_name(name).ok()?;
    let node = NodeId {
        name: name.to_owned(),
        incarnation,
    };
    (node_text(&node) == text).then_some(node)
}

/// Whether a name can be a node's: it appears in `synchronous_standby_names` and in slot names.
pub(crate) fn check_name(name: &str) -> Outcome {
    let valid = !name.is_empty()
        && name.len() <= 63
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if valid {
        Ok(())
    } else {
        Err(Refusal::new(format!(
            "\"{name}\" cannot be a node's name: use up to 63 lower-case letters, digits and underscores."
        )))
    }
}

/// Gives a directory its identity.
pub(crate) fn write_node(dir: &Path, name: &str) -> Outcome<NodeId> {
    check_name(name)?;
    let failed = |error: io::Error| {
        Refusal::failed(format!(
            "{} cannot be written: {error}.",
            dir.join(NODE_FILE).display()
        ))
    };
    let node = NodeId {
        name: name.to_owned(),
        incarnation: Incarnation::random().map_err(failed)?,
    };
    OsVfs.create_dir_all(dir).map_err(failed)?;
    OsVfs
        .write_file_atomically(&dir.join(NODE_FILE), node_text(&node).as_bytes())
        .map_err(failed)?;
    Ok(node)
}

/// Takes the directory for this process; the lock falls with the process.
pub(crate) fn lock(dir: &Path) -> Outcome<Box<dyn FileLock>> {
    lock_file(&dir.join(LOCK_FILE)).map_err(|error| match error {
        None => Refusal::new(format!(
            "{} is already in use by another process; stop that one first, or choose another directory.",
            dir.display()
        )),
        Some(error) => Refusal::new(format!("{} cannot be locked: {error}.", dir.display())),
    })
}

/// `Err(None)`: somebody else holds it.
pub(crate) fn lock_file(path: &Path) -> Result<Box<dyn FileLock>, Option<io::Error>> {
    OsVfs
        .lock_file(path)
        .map_err(|error| (error.kind() != io::ErrorKind::WouldBlock).then_some(error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_directory_is_ours_by_its_node_file_only() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("n");
        assert_eq!(look(&dir).unwrap(), Contents::Nothing);
        std::fs::create_dir(&dir).unwrap();
        assert_eq!(look(&dir).unwrap(), Contents::Nothing);
        std::fs::write(dir.join("notes.txt"), "mine").unwrap();
        assert_eq!(look(&dir).unwrap(), Contents::Foreign);
        let node = write_node(&dir, "node1").unwrap();
        assert_eq!(look(&dir).unwrap(), Contents::Node(node));
        std::fs::write(dir.join(NODE_FILE), "x").unwrap();
        assert!(look(&dir).unwrap_err().sentence.contains("damaged"));
    }

    /// A flipped byte made another name or incarnation of it, and the node started as that one.
    #[test]
    fn an_identity_that_was_changed_by_a_single_bit_or_cut_is_damaged() {
        let base = tempfile::tempdir().unwrap();
        let node = write_node(base.path(), "node1").unwrap();
        let path = base.path().join(NODE_FILE);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            std::fs::write(&path, &changed).unwrap();
            let refused = look(base.path()).unwrap_err().sentence;
            assert!(
                refused.contains("towline.node is damaged"),
                "byte {at}: {refused}"
            );
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(look(base.path()).is_err(), "cut to {at} bytes");
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(look(base.path()).unwrap(), Contents::Node(node));
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_named_as_one() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("notes.txt");
        std::fs::write(&file, "mine").unwrap();
        for path in [file.clone(), file.join("below")] {
            let refused = look(&path).unwrap_err().sentence;
            assert!(refused.contains("is not a directory"), "{refused}");
        }
    }

    #[test]
    fn a_directory_that_is_missing_is_told_as_missing() {
        let base = tempfile::tempdir().unwrap();
        assert!(check_is_directory(base.path()).is_ok());
        let file = base.path().join("notes.txt");
        std::fs::write(&file, "mine").unwrap();
        for (path, told) in [
            (base.path().join("nope"), "there is no such directory"),
            (file.clone(), "it is not a directory"),
            (file.join("below"), "it is not a directory"),
        ] {
            let refused = check_is_directory(&path).unwrap_err().sentence;
            assert!(
                refused.contains(told) && refused.contains("name that of a stopped node"),
                "{refused}"
            );
        }
    }

    /// It was taken for a node's, or for somebody else's, and neither `init` nor `up` went on with it.
    #[test]
    fn what_an_interrupted_init_leaves_is_recognised_and_cleared() {
        let base = tempfile::tempdir().unwrap();
        let (dir, elsewhere) = (base.path().join("n"), base.path().join("elsewhere"));
        std::fs::create_dir(&dir).unwrap();
        for leftover in LEFTOVERS {
            std::fs::write(dir.join(leftover), "").unwrap();
            assert_eq!(look(&dir).unwrap(), Contents::Nothing, "{leftover}");
        }
        mark(&dir).unwrap();
        assert_eq!(look(&dir).unwrap(), Contents::Unfinished);
        write_node(&dir, "node1").unwrap();
        std::fs::create_dir_all(dir.join("base/5")).unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("000000010000000000000001"), "wal").unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.join("pg_wal")).unwrap();
        assert_eq!(look(&dir).unwrap(), Contents::Unfinished);
        reclaim(&dir).unwrap();
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
        assert!(dir.join("pg_wal").is_dir() && !dir.join("base").exists());
        std::fs::remove_file(dir.join("pg_wal")).unwrap();
        assert_eq!(look(&dir).unwrap(), Contents::Nothing);
    }

    #[test]
    fn names_are_those_that_settings_can_hold() {
        for good in ["s1", "node_3"] {
            assert!(check_name(good).is_ok());
        }
        for bad in ["", "S1", "a b", "a-b", "ü"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_second_lock_is_refused_with_a_sentence() {
        let base = tempfile::tempdir().unwrap();
        let held = lock(base.path()).unwrap();
        assert!(lock(base.path()).unwrap_err().sentence.contains("in use"));
        drop(held);
        assert!(lock(base.path()).is_ok());
    }
}
