//! Open files, bounded: at most so many handles are kept, the least recently used go first.

use super::FileKey;
use hashbrown::HashMap;
use parking_lot::RwLock;
use towline_base::{OpenMode, Vfs, VfsFile};

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

struct Entry {
    file: Arc<dyn VfsFile>,
    last_use: AtomicU64,
}

/// `EMFILE` and `ENFILE`: no descriptor is left to the process, or to the system.
const NO_DESCRIPTOR: [i32; 2] = [24, 23];

fn is_exhaustion(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|code| NO_DESCRIPTOR.contains(&code))
}

pub(super) struct HandleCache {
    open: RwLock<HashMap<FileKey, Entry>>,
    clock: AtomicU64,
    limit: usize,
}

impl HandleCache {
    pub(super) fn new(limit: usize) -> HandleCache {
        HandleCache {
            open: RwLock::new(HashMap::new()),
            clock: AtomicU64::new(0),
            limit: limit.max(8),
        }
    }

    /// The open file; opens it when it is not.
    pub(super) fn get(
        &self,
        vfs: &dyn Vfs,
        root: &Path,
        key: &FileKey,
        mode: OpenMode,
    ) -> io::Result<Arc<dyn VfsFile>> {
        if mode == OpenMode::ReadWrite
            && let Some(entry) = self.open.read().get(key)
        {
            entry
                .last_use
                .store(self.clock.load(Ordering::Relaxed), Ordering::Relaxed);
            return Ok(Arc::clone(&entry.file));
        }
        let path = root.join(key.path());
        let file = loop {
            match vfs.open(&path, mode) {
                // The process has no descriptor left, or the system: ours are the ones that can be had again.
                Err(error) if is_exhaustion(&error) && self.close_some() => {}
                opened => break opened?,
            }
        };
        let mut open = self.open.write();
        let now = self.clock.fetch_add(1, Ordering::Relaxed) + 1;
        if open.len() >= self.limit && !open.contains_key(key) {
            self.shrink(&mut open);
        }
        if mode == OpenMode::ReadWrite
            && let Some(entry) = open.get(key)
        {
            return Ok(Arc::clone(&entry.file));
        }
        open.insert(
            *key,
            Entry {
                file: Arc::clone(&file),
                last_use: AtomicU64::new(now),
            },
        );
        Ok(file)
    }

    /// Whether anything was closed.
    fn close_some(&self) -> bool {
        let mut open = self.open.write();
        if open.is_empty() {
            return false;
        }
        self.shrink(&mut open);
        true
    }

    /// Closes the older half, so that the cost of finding them is spread.
    fn shrink(&self, open: &mut HashMap<FileKey, Entry>) {
        let mut uses: Vec<u64> = open
            .values()
            .map(|entry| entry.last_use.load(Ordering::Relaxed))
            .collect();
        let middle = uses.len() / 2;
        let (_, median, _) = uses.select_nth_unstable(middle);
        let median = *median;
        open.retain(|_, entry| entry.last_use.load(Ordering::Relaxed) > median);
    }

    /// Forgets a file that is removed.
    pub(super) fn forget(&self, key: &FileKey) {
        self.open.write().remove(key);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.read().len()
    }
}
