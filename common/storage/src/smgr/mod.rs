//! Relation files: creating, extending, reading, writing, cutting and removing them, and knowing which must be synced.
//!
//! Invariants owned here:
//!
//! - A block exists in the file system, allocated, before [`Smgr::extend`] names it; so a full disk shows there, as an error of
//!   one statement, and writing a page back later does not run out of space.
//! - Whatever was written since the last [`Smgr::sync`] is in the set of files to be synced before the write returns.
//! - A file whose length is no multiple of the block size is damage. Only a power cut leaves one rightly, in the middle of an extension,
//!   and a start after a crash rounds those off before anything is read ([`Smgr::round_off_torn_blocks`]).
//!
//! When a file may be removed or cut (not before the quorum has the record, I7) is decided by the callers.

mod handles;
mod paths;

pub use paths::{
    DATABASE, DEFAULT_TABLESPACE, FileKey, SHARED_TABLESPACE, file_offset, parse_file_name, relation,
    relation_directory,
};

use crate::error::{StorageError, StorageResult};
use crate::page::Page;
use handles::HandleCache;
use hashbrown::{HashMap, HashSet};
use parking_lot::{Mutex, RwLock};
use towline_base::limits::BLOCKS_PER_FILE;
use towline_base::{BlockNumber, Clock, ForkKind, OpenMode, PAGE_SIZE, PageId, RelFileNode, Vfs, VfsFile};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Most blocks that one extension allocates ahead of need.
const MAX_EXTENSION_AHEAD: u32 = 64;
/// The largest relation: one block less than the invalid block number.
pub const MAX_BLOCKS: u32 = u32::MAX - 1;

/// Length of a fork: kept here so that asking costs no system call.
struct ForkState {
    /// Blocks that are part of the relation.
    blocks: AtomicU32,
    /// Blocks that the files have; at least `blocks`. Its lock serialises extension and truncation.
    allocated: Mutex<u32>,
}

type ForkKey = (RelFileNode, ForkKind);

#[derive(Default)]
struct SyncRequests {
    files: HashSet<FileKey>,
    directories: HashSet<PathBuf>,
}

/// What a sync of files came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncCounts {
    /// Files synced.
    pub files: usize,
    /// The longest of their syncs.
    pub longest: Duration,
    /// All of them together.
    pub total: Duration,
}

/// The relation files of a data directory.
pub struct Smgr {
    vfs: Arc<dyn Vfs>,
    root: PathBuf,
    handles: HandleCache,
    forks: RwLock<HashMap<ForkKey, Arc<ForkState>>>,
    sync: Mutex<SyncRequests>,
}

impl std::fmt::Debug for Smgr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smgr")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Smgr {
    /// Over the data directory `root`; keeps at most `max_open_files` handles.
    pub fn new(vfs: Arc<dyn Vfs>, root: impl Into<PathBuf>, max_open_files: usize) -> Smgr {
        Smgr {
            vfs,
            root: root.into(),
            handles: HandleCache::new(max_open_files),
            forks: RwLock::new(HashMap::new()),
            sync: Mutex::new(SyncRequests::default()),
        }
    }

    /// Makes the directories that relation files live in. For `init`.
    pub fn create_directories(&self) -> StorageResult<()> {
        for directory in [PathBuf::from("global"), PathBuf::from(format!("base/{DATABASE}"))] {
            let path = self.root.join(directory);
            self.vfs
                .create_dir_all(&path)
                .map_err(|error| StorageError::io("create directory", &path, error))?;
            for ancestor in path
                .ancestors()
                .skip(1)
                .take_while(|ancestor| ancestor.starts_with(&self.root))
            {
                self.vfs
                    .sync_dir(ancestor)
                    .map_err(|error| StorageError::io("sync directory", ancestor, error))?;
            }
        }
        Ok(())
    }

    /// Absolute path and offset of a page, for messages.
    pub fn locate(&self, page: &PageId) -> (PathBuf, u64) {
        (self.root.join(FileKey::of(page).path()), file_offset(page))
    }

    /// Whether the fork's first file exists.
    pub fn exists(&self, rel: RelFileNode, fork: ForkKind) -> StorageResult<bool> {
        if self.forks.read().contains_key(&(rel, fork)) {
            return Ok(true);
        }
        let path = self.path(&FileKey { rel, fork, part: 0 });
        self.vfs
            .exists(&path)
            .map_err(|error| StorageError::io("look at", path, error))
    }

    /// Creates an empty fork; an error when it exists. The record that says so must be logged first.
    pub fn create(&self, rel: RelFileNode, fork: ForkKind) -> StorageResult<()> {
        self.create_with(rel, fork, OpenMode::CreateNew)
    }

    /// Creates a fork or empties what is there: redo of a creation (B1). Parts behind the first one are removed.
    pub fn create_or_empty(&self, rel: RelFileNode, fork: ForkKind) -> StorageResult<()> {
        self.forks.write().remove(&(rel, fork));
        self.remove_parts(rel, fork, 1, 0)?;
        self.create_with(rel, fork, OpenMode::Truncate)
    }

    fn create_with(&self, rel: RelFileNode, fork: ForkKind, mode: OpenMode) -> StorageResult<()> {
        let key = FileKey { rel, fork, part: 0 };
        self.open(&key, mode)?;
        self.note_directory(&rel);
        self.note_sync(key);
        let state = ForkState {
            blocks: AtomicU32::new(0),
            allocated: Mutex::new(0),
        };
        self.forks.write().insert((rel, fork), Arc::new(state));
        Ok(())
    }

    /// Length of a fork in blocks. [`StorageError::NoSuchRelation`] when its file does not exist.
    pub fn nblocks(&self, rel: RelFileNode, fork: ForkKind) -> StorageResult<BlockNumber> {
        Ok(self.fork(rel, fork)?.blocks.load(Ordering::Acquire))
    }

    /// Adds `count` blocks of zeros and returns the number of the first.
    pub fn extend(&self, rel: RelFileNode, fork: ForkKind, count: u32) -> StorageResult<BlockNumber> {
        let state = self.fork(rel, fork)?;
        let mut allocated = state.allocated.lock();
        let first = state.blocks.load(Ordering::Acquire);
        let end = first
            .checked_add(count)
            .filter(|end| *end <= MAX_BLOCKS)
            .ok_or(StorageError::Misuse(
                "a relation cannot have more than 2^32-2 blocks",
            ))?;
        self.allocate(rel, fork, &mut allocated, end)?;
        state.blocks.store(end, Ordering::Release);
        Ok(first)
    }

    /// Makes the fork at least `blocks` long, creating it when it is missing: redo meets blocks whose extension a crash took.
    /// [`StorageError::Damaged`] above [`MAX_BLOCKS`].
    pub fn ensure_blocks(&self, rel: RelFileNode, fork: ForkKind, blocks: BlockNumber) -> StorageResult<()> {
        if blocks > MAX_BLOCKS {
            return Err(StorageError::Damaged(format!(
                "relation {rel} is to have {blocks} blocks, more than a relation can have"
            )));
        }
        if !self.exists(rel, fork)? {
            // Its length is measured below, like that of any file: of two appliers that find it missing, neither begins it anew.
            let key = FileKey { rel, fork, part: 0 };
            self.open(&key, OpenMode::Create)?;
            self.note_directory(&rel);
            self.note_sync(key);
        }
        let state = self.fork(rel, fork)?;
        let mut allocated = state.allocated.lock();
        if state.blocks.load(Ordering::Acquire) < blocks {
            self.allocate(rel, fork, &mut allocated, blocks)?;
            state.blocks.store(blocks, Ordering::Release);
        }
        Ok(())
    }

    /// Makes the files hold `end` blocks, and some more when the fork is large, so that extension is not a system call each.
    fn allocate(&self, rel: RelFileNode, fork: ForkKind, allocated: &mut u32, end: u32) -> StorageResult<()> {
        let target = end
            .saturating_add((end / 8).min(MAX_EXTENSION_AHEAD))
            .min(MAX_BLOCKS);
        while *allocated < end {
            let part = *allocated / BLOCKS_PER_FILE;
            let part_end = (part + 1).saturating_mul(BLOCKS_PER_FILE).min(target);
            let key = FileKey { rel, fork, part };
            let file = if allocated.is_multiple_of(BLOCKS_PER_FILE) && part > 0 {
                self.note_directory(&rel);
                self.open(&key, OpenMode::Create)?
            } else {
                self.open(&key, OpenMode::ReadWrite)?
            };
            let offset = u64::from(*allocated % BLOCKS_PER_FILE) * PAGE_SIZE as u64;
            let bytes = u64::from(part_end - *allocated) * PAGE_SIZE as u64;
            let grown = file.allocate_zeroed(offset, bytes);
            self.note_sync(key);
            if let Err(error) = grown {
                // What was written of it goes, so that the length stays one that a stopped node may have.
                let _ = file.set_len(offset);
                return Err(StorageError::io("extend", self.path(&key), error));
            }
            *allocated = part_end;
        }
        Ok(())
    }

    /// Reads a page's bytes as they are on disk; the caller checks them.
    pub fn read(&self, id: &PageId, page: &mut Page) -> StorageResult<()> {
        if id.block >= self.nblocks(id.rel, id.fork)? {
            return Err(StorageError::NoSuchBlock(*id));
        }
        let key = FileKey::of(id);
        let file = self.open(&key, OpenMode::ReadWrite)?;
        file.read_exact_at(page.as_bytes_mut(), file_offset(id))
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => StorageError::NoSuchBlock(*id),
                _ => StorageError::io("read", self.path(&key), error),
            })
    }

    /// Writes a page's bytes to the operating system and notes that its file must be synced.
    pub fn write(&self, id: &PageId, page: &Page) -> StorageResult<()> {
        let key = FileKey::of(id);
        let file = self.open(&key, OpenMode::ReadWrite)?;
        let written = file.write_all_at(page.as_bytes(), file_offset(id));
        // After the write: a sync that runs meanwhile may have come too early for it, and then finds the request next time.
        self.note_sync(key);
        written.map_err(|error| StorageError::io("write", self.path(&key), error))
    }

    /// Asks the system to begin writing these pages back (a hint), so that a later sync finds little to do. Sorts them: neighbours
    /// make one call.
    pub fn advise_written(&self, pages: &mut [PageId]) {
        pages.sort_unstable();
        let neighbours = |one: &PageId, next: &PageId| {
            FileKey::of(one) == FileKey::of(next) && next.block - one.block <= 1
        };
        for run in pages.chunk_by(neighbours) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else {
                continue;
            };
            if let Ok(file) = self.open(&FileKey::of(first), OpenMode::ReadWrite) {
                let bytes = u64::from(last.block - first.block + 1) * PAGE_SIZE as u64;
                let _ = file.advise_written(file_offset(first), bytes);
            }
        }
    }

    /// Asks the system to read a page (a hint), so that [`Smgr::read`] finds it there.
    pub fn advise_needed(&self, id: &PageId) {
        if let Ok(file) = self.open(&FileKey::of(id), OpenMode::ReadWrite) {
            let _ = file.advise_needed(file_offset(id), PAGE_SIZE as u64);
        }
    }

    /// The fork counts as `blocks` long from now on, its files being cut later: a page behind that cannot be read any more. Before the
    /// pages behind are dropped from the pool, so that no reader brings one back in between.
    pub fn shrink(&self, rel: RelFileNode, fork: ForkKind, blocks: BlockNumber) -> StorageResult<()> {
        let state = self.fork(rel, fork)?;
        let _allocated = state.allocated.lock();
        state.blocks.fetch_min(blocks, Ordering::AcqRel);
        Ok(())
    }

    /// Cuts a fork to `blocks`. The caller has dropped the pages behind from the pool, and the record of the truncation is ≤ Q.
    pub fn truncate(&self, rel: RelFileNode, fork: ForkKind, blocks: BlockNumber) -> StorageResult<()> {
        let state = self.fork(rel, fork)?;
        let mut allocated = state.allocated.lock();
        if blocks >= *allocated {
            return Ok(());
        }
        state.blocks.store(
            blocks.min(state.blocks.load(Ordering::Acquire)),
            Ordering::Release,
        );
        let keep = blocks / BLOCKS_PER_FILE;
        let key = FileKey {
            rel,
            fork,
            part: keep,
        };
        let bytes = u64::from(blocks % BLOCKS_PER_FILE) * PAGE_SIZE as u64;
        let file = self.open(&key, OpenMode::ReadWrite)?;
        file.set_len(bytes)
            .map_err(|error| StorageError::io("truncate", self.path(&key), error))?;
        self.note_sync(key);
        *allocated = blocks;
        self.remove_parts(rel, fork, keep + 1, 0)
    }

    /// Removes all files of a relation; those that are missing are no error.
    pub fn unlink(&self, rel: RelFileNode) -> StorageResult<()> {
        self.unlink_parts(rel, 0)
    }

    /// As [`Smgr::unlink`], where a removal may have been interrupted: parts up to `last` may be there behind missing ones.
    pub fn unlink_parts(&self, rel: RelFileNode, last: u32) -> StorageResult<()> {
        for fork in ForkKind::ALL {
            self.forks.write().remove(&(rel, fork));
            self.remove_parts(rel, fork, 0, last)?;
        }
        self.note_directory(&rel);
        Ok(())
    }

    /// Files of relations in the directory of `rel`'s database: number, fork and part of each.
    pub fn list(&self, rel: &RelFileNode) -> StorageResult<Vec<(u32, ForkKind, u32)>> {
        let path = self.root.join(relation_directory(rel));
        let entries = self
            .vfs
            .read_dir(&path)
            .map_err(|error| StorageError::io("list", &path, error))?;
        Ok(entries
            .iter()
            .filter_map(|entry| parse_file_name(&entry.name))
            .collect())
    }

    /// Files with unsynced writes now.
    pub fn unsynced_files(&self) -> usize {
        self.sync.lock().files.len()
    }

    /// Makes everything durable that was written before the call, and tells how many files that were and how long each took. After an
    /// error the set is lost to the operating system's memory of it: the node must stop (I5), as the caller sees to.
    pub fn sync(&self, clock: &dyn Clock) -> StorageResult<SyncCounts> {
        let mut counts = SyncCounts::default();
        let SyncRequests { files, directories } = std::mem::take(&mut *self.sync.lock());
        let mut files: Vec<FileKey> = files.into_iter().collect();
        let mut directories: Vec<PathBuf> = directories.into_iter().collect();
        files.sort_unstable();
        directories.sort_unstable();
        for key in &files {
            let begun = clock.now();
            self.sync_file(key)?;
            let took = clock.now().since(begun);
            counts.files += 1;
            counts.longest = counts.longest.max(took);
            counts.total += took;
        }
        for directory in &directories {
            let path = self.root.join(directory);
            self.vfs
                .sync_dir(&path)
                .map_err(|error| StorageError::io("sync directory", &path, error))?;
        }
        Ok(counts)
    }

    fn sync_file(&self, key: &FileKey) -> StorageResult<()> {
        let file = match self.open(key, OpenMode::ReadWrite) {
            Ok(file) => file,
            // Removed since it was written.
            Err(StorageError::NoSuchRelation(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        file.sync_data()
            .map_err(|error| StorageError::io("sync", self.path(key), error))
    }

    /// Removes the parts from `first` on: up to the first one behind `last` that is missing.
    fn remove_parts(&self, rel: RelFileNode, fork: ForkKind, first: u32, last: u32) -> StorageResult<()> {
        let mut part = first;
        loop {
            let key = FileKey { rel, fork, part };
            let path = self.path(&key);
            self.handles.forget(&key);
            self.sync.lock().files.remove(&key);
            match self.vfs.remove_file(&path) {
                Ok(()) => self.note_directory(&rel),
                Err(error) if error.kind() == io::ErrorKind::NotFound && part < last => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(StorageError::io("remove", path, error)),
            }
            part += 1;
        }
    }

    fn fork(&self, rel: RelFileNode, fork: ForkKind) -> StorageResult<Arc<ForkState>> {
        if let Some(state) = self.forks.read().get(&(rel, fork)) {
            return Ok(Arc::clone(state));
        }
        let mut forks = self.forks.write();
        if let Some(state) = forks.get(&(rel, fork)) {
            return Ok(Arc::clone(state));
        }
        let blocks = self.measure(rel, fork)?;
        let state = Arc::new(ForkState {
            blocks: AtomicU32::new(blocks),
            allocated: Mutex::new(blocks),
        });
        forks.insert((rel, fork), Arc::clone(&state));
        Ok(state)
    }

    /// Rounds every relation file to whole blocks: what a power cut leaves of an extension. Zeros at the end are cut off; anything else is the
    /// beginning of a page and is filled up, so that whoever reads the page finds it damaged unless redo restores it. For a start after a
    /// crash, before redo. Returns how many files were rounded off.
    pub fn round_off_torn_blocks(&self) -> StorageResult<usize> {
        let shared = RelFileNode {
            spc: SHARED_TABLESPACE,
            db: 0,
            rel: 1,
        };
        let mut rounded = 0;
        for directory in [shared, relation(1)] {
            for (number, fork, part) in self.list(&directory)? {
                let rel = RelFileNode {
                    rel: number,
                    ..directory
                };
                rounded += usize::from(self.round_off(FileKey { rel, fork, part })?);
            }
        }
        Ok(rounded)
    }

    fn round_off(&self, key: FileKey) -> StorageResult<bool> {
        let failed = |action, error| StorageError::io(action, self.path(&key), error);
        let file = self.open(&key, OpenMode::ReadWrite)?;
        let len = file.len().map_err(|error| failed("measure", error))?;
        let torn = (len % PAGE_SIZE as u64) as usize;
        if torn == 0 {
            return Ok(false);
        }
        let whole = len - torn as u64;
        let mut tail = [0; PAGE_SIZE];
        file.read_exact_at(&mut tail[..torn], whole)
            .map_err(|error| failed("read", error))?;
        let done = if tail.iter().all(|byte| *byte == 0) {
            file.set_len(whole)
        } else {
            file.allocate_zeroed(len, (PAGE_SIZE - torn) as u64)
        };
        self.note_sync(key);
        done.map_err(|error| failed("round off", error))?;
        tracing::warn!(
            file = %self.path(&key).display(),
            length = len,
            "a file ended in the middle of a block and was rounded off"
        );
        Ok(true)
    }

    /// Length by the files. A part shorter than 1 GB is the last one.
    fn measure(&self, rel: RelFileNode, fork: ForkKind) -> StorageResult<BlockNumber> {
        let mut blocks = 0u32;
        for part in 0..=MAX_BLOCKS / BLOCKS_PER_FILE {
            let key = FileKey { rel, fork, part };
            let file = match self.open(&key, OpenMode::ReadWrite) {
                Ok(file) => file,
                Err(StorageError::NoSuchRelation(_)) if part > 0 => break,
                Err(error) => return Err(error),
            };
            let len = file
                .len()
                .map_err(|error| StorageError::io("measure", self.path(&key), error))?;
            if !len.is_multiple_of(PAGE_SIZE as u64) {
                return Err(StorageError::Damaged(format!(
                    "file \"{}\" has {len} bytes, which is no multiple of the block size {PAGE_SIZE}: a part of it is lost; \
                     restore it from a backup, or clone this node anew",
                    self.path(&key).display()
                )));
            }
            let here = (len / PAGE_SIZE as u64).min(u64::from(BLOCKS_PER_FILE)) as u32;
            blocks = blocks.saturating_add(here);
            if here < BLOCKS_PER_FILE {
                break;
            }
        }
        Ok(blocks)
    }

    fn open(&self, key: &FileKey, mode: OpenMode) -> StorageResult<Arc<dyn VfsFile>> {
        self.handles
            .get(&*self.vfs, &self.root, key, mode)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => StorageError::NoSuchRelation(key.rel),
                _ => StorageError::io("open", self.path(key), error),
            })
    }

    fn path(&self, key: &FileKey) -> PathBuf {
        self.root.join(key.path())
    }

    fn note_sync(&self, key: FileKey) {
        self.sync.lock().files.insert(key);
    }

    fn note_directory(&self, rel: &RelFileNode) {
        let directory = relation_directory(rel);
        let mut sync = self.sync.lock();
        if !sync.directories.contains(Path::new(&directory)) {
            sync.directories.insert(directory);
        }
    }
}

#[cfg(test)]
mod tests;
