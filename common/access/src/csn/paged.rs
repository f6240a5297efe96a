//! The older pages of the CSN log: files of 1024 pages, a bounded cache, a checksum per 512-byte sector.
//!
//! Sector: 63 entries of 8 bytes, then a checksum (FNV-1a over the entries, 64 bits, seeded with the sector's place). A sector of zero bytes
//! is valid and means 63 transactions without an outcome. Files are named by 8 hex digits under `pg_csn/`.
//!
//! What lies behind a file's end reads as zeros, so a lost file would turn committed transactions into aborted ones without a word.
//! Therefore each checkpoint extends the files over every page below its next xid ([`PagedLog::reach`]), and from then on a page that is
//! not there is damage ([`PagedLog::require`]).
//!
//! A write that finds the disk full leaves its page dirty and is tried again; a failed sync is not repeated (I5).

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use towline_base::{Lsn, OpenMode, Vfs, VfsFile};
use towline_storage::{StorageError, StorageResult};

use super::{ENTRIES_PER_PAGE, ENTRIES_PER_SECTOR, Entries, SECTORS_PER_PAGE, empty_entries, mask};
use crate::error::{AccessError, Result};

const SECTOR: usize = 512;
const PAGE: usize = SECTOR * SECTORS_PER_PAGE;
const PAGES_PER_FILE: u64 = 1024;

const _: () = assert!(ENTRIES_PER_SECTOR * 8 + 8 == SECTOR);

#[derive(Debug)]
struct Cached {
    entries: Entries,
    dirty: bool,
    used: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct PagedLog {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    files: HashMap<u64, Arc<dyn VfsFile>>,
    unsynced: HashSet<u64>,
    new_files: bool,
    cache: HashMap<u64, Cached>,
    /// Clean pages kept in memory.
    capacity: usize,
    /// Dirty pages in the cache, or a little more: counted anew by each write.
    dirty: usize,
    clock: u64,
    /// Pages that are in the files: one that is not is damage.
    required: Range<u64>,
}

/// Files to be made durable, outside the log's lock.
#[derive(Debug)]
pub(super) struct Unsynced {
    vfs: Arc<dyn Vfs>,
    files: Vec<(PathBuf, Arc<dyn VfsFile>)>,
    dir: Option<PathBuf>,
}

impl Unsynced {
    pub(super) fn sync(self) -> StorageResult<()> {
        // Also when there was no room: what the system could not write it may have forgotten, so this is no full disk to wait out.
        let failed = |path: &Path, error| StorageError::io("sync", path, io::Error::other(error));
        for (path, file) in &self.files {
            file.sync_data().map_err(|error| failed(path, error))?;
        }
        if let Some(dir) = &self.dir {
            self.vfs.sync_dir(dir).map_err(|error| failed(dir, error))?;
        }
        Ok(())
    }
}

/// Bytes that a file must have to hold the pages of the range that fall into it.
fn length_for(file: u64, pages: &Range<u64>) -> u64 {
    let last = (pages.end - 1).min(file * PAGES_PER_FILE + PAGES_PER_FILE - 1);
    (last % PAGES_PER_FILE + 1) * PAGE as u64
}

/// The files that pages of the range fall into.
fn files_of(pages: &Range<u64>) -> Range<u64> {
    if pages.is_empty() {
        return 0..0;
    }
    pages.start / PAGES_PER_FILE..(pages.end - 1) / PAGES_PER_FILE + 1
}

fn checksum(entries: &[u8], page: u64, sector: usize) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64 ^ page.wrapping_mul(31).wrapping_add(sector as u64);
    for chunk in entries.chunks_exact(8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("chunks have eight bytes"));
        hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01B3);
        hash ^= hash >> 29;
    }
    hash
}

impl PagedLog {
    pub(super) fn open(vfs: Arc<dyn Vfs>, dir: &Path, capacity: usize) -> Result<Self> {
        vfs.create_dir_all(dir)
            .map_err(|error| StorageError::io("create", dir, error))?;
        Ok(PagedLog {
            vfs,
            dir: dir.to_owned(),
            files: HashMap::new(),
            unsynced: HashSet::new(),
            new_files: false,
            cache: HashMap::new(),
            capacity: capacity.max(4),
            dirty: 0,
            clock: 0,
            required: 0..0,
        })
    }

    /// These pages were made durable by a checkpoint: checks that the files reach over them, and holds a page of them that is missing
    /// later for damage as well.
    ///
    /// # Errors
    /// XX001 with the name of the file that is missing or too short.
    pub(super) fn require(&mut self, pages: Range<u64>) -> Result<()> {
        for number in files_of(&pages) {
            let path = self.path(number);
            let found = match self.vfs.open(&path, OpenMode::Read) {
                Ok(file) => file
                    .len()
                    .map_err(|error| StorageError::io("look at", &path, error))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(AccessError::corrupted(format!(
                        "file \"{}\" of the commit log is missing",
                        path.display()
                    )));
                }
                Err(error) => return Err(StorageError::io("open", &path, error).into()),
            };
            let needed = length_for(number, &pages);
            if found < needed {
                return Err(AccessError::corrupted(format!(
                    "file \"{}\" of the commit log is cut: it has {found} bytes, the last checkpoint left at least {needed}",
                    path.display()
                )));
            }
        }
        self.required = pages;
        Ok(())
    }

    /// Extends the files over every page below `end`. Durable with the next [`Unsynced::sync`].
    pub(super) fn reach(&mut self, end: u64) -> StorageResult<()> {
        let pages = self.required.end.max(self.required.start)..end;
        for number in files_of(&pages) {
            let file = self.file(number, true)?.expect("created when absent");
            let needed = length_for(number, &pages);
            let path = self.path(number);
            let failed = |error| StorageError::io("extend", &path, error);
            if file.len().map_err(failed)? < needed {
                file.set_len(needed).map_err(failed)?;
            }
            self.unsynced.insert(number);
        }
        self.required.end = self.required.end.max(end);
        Ok(())
    }

    fn path(&self, file: u64) -> PathBuf {
        self.dir.join(format!("{file:08X}"))
    }

    /// The open file, or none when it does not exist and is not to be created.
    fn file(&mut self, number: u64, create: bool) -> StorageResult<Option<Arc<dyn VfsFile>>> {
        if let Some(file) = self.files.get(&number) {
            return Ok(Some(Arc::clone(file)));
        }
        let path = self.path(number);
        let exists = self
            .vfs
            .exists(&path)
            .map_err(|error| StorageError::io("look at", &path, error))?;
        if !exists && !create {
            return Ok(None);
        }
        let file = self
            .vfs
            .open(&path, OpenMode::Create)
            .map_err(|error| StorageError::io("open", &path, error))?;
        self.new_files |= !exists;
        self.files.insert(number, Arc::clone(&file));
        Ok(Some(file))
    }

    /// Zeros stand for what is behind a file's end, but not for a page that a checkpoint left there.
    fn may_be_absent(&self, page: u64) -> Result<()> {
        if !self.required.contains(&page) {
            return Ok(());
        }
        Err(AccessError::corrupted(format!(
            "file \"{}\" of the commit log is missing, or cut in page {page}",
            self.path(page / PAGES_PER_FILE).display()
        )))
    }

    fn read(&mut self, page: u64) -> Result<Entries> {
        let mut entries = empty_entries();
        let (number, offset) = (page / PAGES_PER_FILE, (page % PAGES_PER_FILE) * PAGE as u64);
        let Some(file) = self.file(number, false)? else {
            self.may_be_absent(page)?;
            return Ok(entries);
        };
        let path = self.path(number);
        let mut bytes = vec![0u8; PAGE];
        let mut done = 0;
        while done < PAGE {
            let count = file
                .read_at(&mut bytes[done..], offset + done as u64)
                .map_err(|error| StorageError::io("read", &path, error))?;
            if count == 0 {
                self.may_be_absent(page)?;
                break;
            }
            done += count;
        }
        for (sector, chunk) in bytes.chunks_exact(SECTOR).enumerate() {
            if chunk.iter().all(|byte| *byte == 0) {
                continue;
            }
            let (body, sum) = chunk.split_at(SECTOR - 8);
            if sum != checksum(body, page, sector).to_le_bytes() {
                return Err(AccessError::corrupted(format!(
                    "invalid sector in the commit log, file \"{}\", offset {}",
                    path.display(),
                    offset + (sector * SECTOR) as u64
                )));
            }
            let targets = entries.iter_mut().skip(sector * ENTRIES_PER_SECTOR);
            for (target, word) in targets.zip(body.chunks_exact(8)) {
                *target = u64::from_le_bytes(word.try_into().expect("chunks have eight bytes"));
            }
        }
        Ok(entries)
    }

    fn load(&mut self, page: u64) -> Result<&mut Cached> {
        self.clock += 1;
        let clock = self.clock;
        if !self.cache.contains_key(&page) {
            self.make_room();
            let entries = self.read(page)?;
            self.cache.insert(
                page,
                Cached {
                    entries,
                    dirty: false,
                    used: clock,
                },
            );
        }
        let cached = self.cache.get_mut(&page).expect("just inserted");
        cached.used = clock;
        Ok(cached)
    }

    /// Forgets the clean pages unused for longest. Dirty ones stay: they wait for the gate.
    fn make_room(&mut self) {
        if self.cache.len() < self.capacity {
            return;
        }
        let mut clean: Vec<(u64, u64)> = self
            .cache
            .iter()
            .filter(|(_, cached)| !cached.dirty)
            .map(|(page, cached)| (cached.used, *page))
            .collect();
        clean.sort_unstable();
        for (_, page) in clean.into_iter().take(self.capacity / 4) {
            self.cache.remove(&page);
        }
    }

    pub(super) fn get(&mut self, page: u64, index: usize) -> Result<u64> {
        Ok(self.load(page)?.entries[index])
    }

    /// Stores an outcome; nowhere when its file was removed.
    pub(super) fn set(&mut self, page: u64, index: usize, entry: u64) -> Result<()> {
        if page < self.required.start {
            return Ok(());
        }
        let cached = self.load(page)?;
        cached.entries[index] = entry;
        let was_dirty = std::mem::replace(&mut cached.dirty, true);
        self.dirty += usize::from(!was_dirty);
        Ok(())
    }

    /// The contents of a page that enters the ring.
    pub(super) fn take_for_ring(&mut self, page: u64) -> Result<Entries> {
        match self.cache.remove(&page) {
            Some(cached) => Ok(cached.entries),
            None => self.read(page),
        }
    }

    /// How many pages have changed since they were written.
    pub(super) fn dirty_pages(&self) -> usize {
        self.dirty
    }

    /// Takes a page that left the ring.
    pub(super) fn put_back(&mut self, page: u64, entries: Entries, dirty: bool) {
        self.clock += 1;
        self.make_room();
        self.dirty += usize::from(dirty);
        self.cache.insert(
            page,
            Cached {
                entries,
                dirty,
                used: self.clock,
            },
        );
    }

    pub(super) fn write(&mut self, page: u64, entries: &[u64; ENTRIES_PER_PAGE]) -> StorageResult<()> {
        let (number, offset) = (page / PAGES_PER_FILE, (page % PAGES_PER_FILE) * PAGE as u64);
        let mut bytes = vec![0u8; PAGE];
        for (sector, chunk) in bytes.chunks_exact_mut(SECTOR).enumerate() {
            let values = &entries[sector * ENTRIES_PER_SECTOR..(sector + 1) * ENTRIES_PER_SECTOR];
            if values.iter().all(|entry| *entry == 0) {
                continue;
            }
            let (body, sum) = chunk.split_at_mut(SECTOR - 8);
            for (target, value) in body.chunks_exact_mut(8).zip(values) {
                target.copy_from_slice(&value.to_le_bytes());
            }
            sum.copy_from_slice(&checksum(body, page, sector).to_le_bytes());
        }
        let path = self.path(number);
        let file = self.file(number, true)?.expect("created when absent");
        file.write_all_at(&bytes, offset)
            .map_err(|error| StorageError::io("write", &path, error))?;
        self.unsynced.insert(number);
        Ok(())
    }

    pub(super) fn write_dirty(&mut self, limit: Lsn) -> StorageResult<usize> {
        let dirty: Vec<u64> = self
            .cache
            .iter()
            .filter(|(_, cached)| cached.dirty)
            .map(|(page, _)| *page)
            .collect();
        for page in &dirty {
            let cached = self.cache.get_mut(page).expect("listed above");
            let mut entries = cached.entries.clone();
            cached.dirty = mask(&mut entries, limit);
            if let Err(error) = self.write(*page, &entries) {
                self.cache.get_mut(page).expect("listed above").dirty = true;
                return Err(error);
            }
        }
        self.dirty = self.cache.values().filter(|cached| cached.dirty).count();
        Ok(dirty.len())
    }

    /// What was written and is not durable yet.
    pub(super) fn take_unsynced(&mut self) -> Unsynced {
        let files = self
            .unsynced
            .drain()
            .filter_map(|number| self.files.get(&number).map(|file| (number, Arc::clone(file))))
            .map(|(number, file)| (self.dir.join(format!("{number:08X}")), file))
            .collect();
        let dir = std::mem::take(&mut self.new_files).then(|| self.dir.clone());
        Unsynced {
            vfs: Arc::clone(&self.vfs),
            files,
            dir,
        }
    }

    /// Whether [`PagedLog::remove_below`] would find a file.
    pub(super) fn has_files_below(&self, page: u64) -> bool {
        self.required.start / PAGES_PER_FILE < page / PAGES_PER_FILE
    }

    #[cfg(test)]
    pub(super) fn file_numbers(&self) -> Vec<u64> {
        let names = self.vfs.read_dir(&self.dir).unwrap_or_default();
        let mut numbers: Vec<u64> = names
            .iter()
            .filter_map(|entry| u64::from_str_radix(&entry.name, 16).ok())
            .collect();
        numbers.sort_unstable();
        numbers
    }

    pub(super) fn remove_below(&mut self, page: u64) -> Result<()> {
        let keep_from = page / PAGES_PER_FILE;
        let names = self
            .vfs
            .read_dir(&self.dir)
            .map_err(|error| StorageError::io("list", &self.dir, error))?;
        for name in names {
            let Ok(number) = u64::from_str_radix(&name.name, 16) else {
                continue;
            };
            if number < keep_from {
                self.files.remove(&number);
                self.unsynced.remove(&number);
                let path = self.path(number);
                self.vfs
                    .remove_file(&path)
                    .map_err(|error| StorageError::io("remove", &path, error))?;
            }
        }
        self.cache
            .retain(|number, _| number / PAGES_PER_FILE >= keep_from);
        self.required.start = self.required.start.max(keep_from * PAGES_PER_FILE);
        Ok(())
    }
}
