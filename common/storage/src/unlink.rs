//! Files that wait to be removed: not before a checkpoint has passed the record that drops their relation.
//!
//! Two reasons in one rule. The quorum must have the record (I7): a finished checkpoint behind it proves that. And the number must
//! not be used again while redo could meet records of its old life: redo starts behind them once the checkpoint is in
//! the control file.
//!
//! What waits is known in memory only. A crash between the checkpoint and the removal, or in the middle of a transaction that has created
//! files, leaves files that nobody will remove: [`Storage::sweep`] finds them, when no transaction runs and the catalog can be read.

use crate::buffer::BufferPool;
use crate::error::StorageResult;
use crate::smgr::{Smgr, relation};
use crate::storage::Storage;
use hashbrown::HashMap;
use parking_lot::Mutex;
use towline_base::{Lsn, RelFileNode};

/// A relation whose files are to be removed.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// End of the record that drops it.
    logged: Lsn,
    rel: RelFileNode,
    /// Parts up to this one may be there although one before them is missing: a removal was interrupted.
    parts: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct PendingUnlinks {
    waiting: Mutex<Vec<Waiting>>,
    /// Held while files are removed, so that a number is not given a new life in the middle.
    removing: Mutex<()>,
}

impl PendingUnlinks {
    /// A relation dropped by the record that ends at `logged`.
    pub(crate) fn add(&self, logged: Lsn, rel: RelFileNode) {
        self.waiting.lock().push(Waiting {
            logged,
            rel,
            parts: 0,
        });
    }

    /// Relations that wait.
    pub fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this relation waits.
    pub fn contains(&self, rel: RelFileNode) -> bool {
        self.waiting.lock().iter().any(|other| other.rel == rel)
    }

    /// Removes the files of every relation that was dropped at or before `redo`, the redo pointer of a checkpoint that is in the
    /// control file. What fails stays for the next time. Returns how many relations went.
    pub(crate) fn run(&self, smgr: &Smgr, pool: &BufferPool, redo: Lsn) -> StorageResult<usize> {
        self.remove(smgr, pool, |waiting| waiting.logged <= redo)
    }

    /// The relation's number begins a new life by a record that the quorum has: what is left of the old one goes first, visibility map
    /// included, and is not looked for again. For redo, on a node whose last checkpoint is behind the primary's.
    pub(crate) fn settle(&self, smgr: &Smgr, pool: &BufferPool, rel: RelFileNode) -> StorageResult<()> {
        self.remove(smgr, pool, |waiting| waiting.rel == rel).map(|_| ())
    }

    fn remove(&self, smgr: &Smgr, pool: &BufferPool, due: impl Fn(&Waiting) -> bool) -> StorageResult<usize> {
        let _removing = self.removing.lock();
        let mut now = Vec::new();
        self.waiting.lock().retain(|waiting| {
            let due = due(waiting);
            if due {
                now.push(*waiting);
            }
            !due
        });
        let mut failed = None;
        let mut removed = 0;
        for waiting in now {
            match smgr.unlink_parts(waiting.rel, waiting.parts) {
                Ok(()) => {
                    // A late reader may have brought pages back; under a new relation of this number they would be found.
                    pool.drop_pages(waiting.rel, None, 0);
                    removed += 1;
                }
                Err(error) => {
                    failed = Some(error);
                    self.waiting.lock().push(waiting);
                }
            }
        }
        failed.map_or(Ok(removed), Err)
    }
}

impl Storage {
    /// Hands every relation file with a number from `first` on that nobody claims to those that wait, as if the record that ends at
    /// `logged` had dropped it: the quorum has that record before the files go (I7). Returns the numbers. No transaction may run, nor
    /// redo be behind a page on disk: a file might belong to what is not seen yet.
    pub fn sweep(&self, logged: Lsn, first: u32, claimed: impl Fn(u32) -> bool) -> StorageResult<Vec<u32>> {
        let mut found: HashMap<u32, u32> = HashMap::new();
        for (number, _fork, part) in self.smgr().list(&relation(first))? {
            let parts = found.entry(number).or_default();
            *parts = part.max(*parts);
        }
        let mut orphans: Vec<(u32, u32)> = found
            .into_iter()
            .filter(|(number, _)| *number >= first && !claimed(*number))
            .filter(|(number, _)| !self.unlinks().contains(relation(*number)))
            .collect();
        orphans.sort_unstable();
        for (number, parts) in &orphans {
            let rel = relation(*number);
            self.pool().drop_pages(rel, None, 0);
            self.fsm().forget(rel);
            self.unlinks().waiting.lock().push(Waiting {
                logged,
                rel,
                parts: *parts,
            });
        }
        Ok(orphans.into_iter().map(|(number, _)| number).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::page::Placement;
    use crate::smgr::relation;
    use std::sync::Arc;
    use towline_base::{ForkKind, LsnWatch, OsVfs, PageId};

    /// A frame with a page of a dropped relation was found under the next relation of the same number.
    #[test]
    fn a_number_that_is_used_again_does_not_show_old_pages() {
        let dir = tempfile::tempdir().unwrap();
        let smgr = Arc::new(Smgr::new(Arc::new(OsVfs), dir.path(), 100));
        smgr.create_directories().unwrap();
        let (_publisher, quorum) = LsnWatch::new(Lsn(100));
        let pool = BufferPool::new(16, Arc::clone(&smgr), quorum, true);
        let rel = relation(20_000);
        smgr.create(rel, ForkKind::Main).unwrap();
        let mut page = pool.extend(rel, ForkKind::Main).unwrap().write();
        page.mark_dirty(Lsn(10));
        page.bytes_mut().init(0);
        page.bytes_mut().add_item(b"old row", Placement::Heap).unwrap();
        page.stamp(Lsn(20));
        drop(page);
        let unlinks = PendingUnlinks::default();
        unlinks.add(Lsn(30), rel);
        pool.pin(PageId::main(rel, 0)).unwrap();
        assert_eq!(unlinks.run(&smgr, &pool, Lsn(29)).unwrap(), 0);
        assert!(unlinks.contains(rel) && smgr.exists(rel, ForkKind::Main).unwrap());
        assert_eq!(unlinks.run(&smgr, &pool, Lsn(30)).unwrap(), 1);
        assert!(unlinks.is_empty() && !smgr.exists(rel, ForkKind::Main).unwrap());
        smgr.create(rel, ForkKind::Main).unwrap();
        assert!(pool.extend(rel, ForkKind::Main).unwrap().read().is_all_zero());
    }

    /// A standby whose restartpoint is slow replays the creation of a relation whose number it still has to free: the file went away
    /// under the new relation.
    #[test]
    fn a_number_with_a_new_life_loses_nothing_to_its_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let smgr = Arc::new(Smgr::new(Arc::new(OsVfs), dir.path(), 10));
        smgr.create_directories().unwrap();
        let (rel, watch) = (relation(16384), LsnWatch::new(Lsn(1000)).1);
        let pool = BufferPool::new(16, Arc::clone(&smgr), watch, true);
        smgr.create(rel, ForkKind::Main).unwrap();
        smgr.create(rel, ForkKind::Vm).unwrap();
        let unlinks = PendingUnlinks::default();
        unlinks.add(Lsn(30), rel);
        unlinks.settle(&smgr, &pool, rel).unwrap();
        assert!(!smgr.exists(rel, ForkKind::Vm).unwrap(), "the old map is gone");
        smgr.create(rel, ForkKind::Main).unwrap();
        assert_eq!(unlinks.run(&smgr, &pool, Lsn(40)).unwrap(), 0);
        assert!(smgr.exists(rel, ForkKind::Main).unwrap());
    }

    #[test]
    fn parts_behind_a_missing_one_go_too() {
        let dir = tempfile::tempdir().unwrap();
        let smgr = Smgr::new(Arc::new(OsVfs), dir.path(), 10);
        smgr.create_directories().unwrap();
        let rel = relation(16384);
        smgr.create(rel, ForkKind::Main).unwrap();
        let vfs = OsVfs::shared();
        let part = |part: u32| {
            let fork = ForkKind::Main;
            dir.path().join(crate::smgr::FileKey { rel, fork, part }.path())
        };
        vfs.open(&part(3), towline_base::OpenMode::Create).unwrap();
        smgr.unlink_parts(rel, 3).unwrap();
        assert!(!vfs.exists(&part(0)).unwrap() && !vfs.exists(&part(3)).unwrap());
    }
}
