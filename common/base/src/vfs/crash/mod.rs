//! [`CrashVfs`]: files in memory that keep what is durable apart from what is merely written, so that
//! a test can cut the power at any moment and look at what a disk may hold then.
//!
//! - Every change (write, sync, length, create, rename, remove, directory) is one **boundary**, counted
//!   from one. [`CrashVfs::crash_at`] cuts the power in the middle of the k-th: a write or rename of that
//!   number is under way (it may or may not have reached the disk), a sync has not finished. From then
//!   on every call fails.
//! - [`CrashVfs::after_crash`] gives the disk that the next start finds: everything synced, and of
//!   the rest what [`Unsynced`] says: nothing, all, whole writes in any order, or single sectors.
//! - [`CrashVfs::observe`] shows the disk at every boundary of one run, so that a run need not be repeated for each.
//! - [`CrashVfs::after_kill`] gives the disk that a new process finds when only the old one has ended.
//! - [`CrashVfs::fail_nth`] makes single calls fail. A failed sync loses the unsynced writes for good,
//!   though they can still be read, as Linux does: a later sync succeeds without writing them.

mod disk;
mod world;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{DirEntry, FileLock, Metadata, OpenMode, Vfs, VfsFile};
use world::{InodeId, Observer, World};

/// What became of writes and names that were not synced before the power cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsynced {
    /// Nothing of them reached the disk.
    Lost,
    /// All of them did, as after the mere end of a process.
    Kept,
    /// Each write and each change of a name did or did not, whatever came before it.
    Reordered,
    /// As `Reordered`, and each write sector by sector of this many bytes.
    Torn(usize),
}

impl Unsynced {
    /// All ways, with the sector sizes of disks.
    pub const ALL: [Unsynced; 5] = [
        Unsynced::Lost,
        Unsynced::Kept,
        Unsynced::Reordered,
        Unsynced::Torn(512),
        Unsynced::Torn(4096),
    ];
}

/// A kind of call, for counting and for making one fail.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// Reading from a file.
    Read,
    /// Writing to a file, vectored or not, and filling with zeros.
    Write,
    /// `sync_data` and `sync_all`.
    Sync,
    /// `set_len`.
    SetLen,
    /// Opening a file, creating it or not.
    Open,
    /// Renaming.
    Rename,
    /// Removing a file or a directory.
    Remove,
    /// Creating a directory.
    CreateDir,
    /// `sync_dir`.
    SyncDir,
}

impl Op {
    /// All kinds.
    pub const ALL: [Op; 9] = [
        Op::Read,
        Op::Write,
        Op::Sync,
        Op::SetLen,
        Op::Open,
        Op::Rename,
        Op::Remove,
        Op::CreateDir,
        Op::SyncDir,
    ];
}

/// Files in memory, with a power switch. Clones share the files.
#[derive(Clone, Debug)]
pub struct CrashVfs {
    world: Arc<Mutex<World>>,
}

impl Default for CrashVfs {
    fn default() -> CrashVfs {
        CrashVfs::new()
    }
}

impl CrashVfs {
    /// An empty disk.
    pub fn new() -> CrashVfs {
        CrashVfs {
            world: Arc::new(Mutex::new(World::new())),
        }
    }

    /// As the shared trait object that the engine takes.
    pub fn shared(&self) -> Arc<dyn Vfs> {
        Arc::new(self.clone())
    }

    /// Boundaries passed so far.
    pub fn boundaries(&self) -> u64 {
        self.world.lock().boundaries()
    }

    /// Cuts the power during boundary `k`, counted from the disk's first, or during the next one when `k` is passed.
    pub fn crash_at(&self, k: u64) {
        self.world.lock().crash_at(Some(k));
    }

    /// Whether the power is cut.
    pub fn crashed(&self) -> bool {
        self.world.lock().crashed()
    }

    /// Cuts the power, if it is still on, and gives the disk that a start finds then. The same seed gives
    /// the same disk.
    pub fn after_crash(&self, unsynced: Unsynced, seed: u64) -> CrashVfs {
        let mut world = self.world.lock();
        world.cut_power();
        CrashVfs::of(world.after_crash(unsynced, seed).0)
    }

    /// Ends the process, if it has not ended, and gives the disk that the next one finds: all that was written, and what was not synced is
    /// still not durable.
    pub fn after_kill(&self) -> CrashVfs {
        let mut world = self.world.lock();
        world.cut_power();
        CrashVfs::of(world.after_kill())
    }

    /// Lets `observer` look at the disk in the middle of each boundary from now on, on the thread whose call it is: a power cut at every
    /// boundary in one run. It must not use this disk.
    pub fn observe(&self, mut observer: impl FnMut(&Moment<'_>) + Send + 'static) {
        let look = move |world: &World| observer(&Moment { world });
        self.world.lock().set_observer(Some(Observer(Box::new(look))));
    }

    /// Ends the observation.
    pub fn observe_no_more(&self) {
        // Dropped without the lock: what it holds may be another disk.
        let observer = self.world.lock().take_observer();
        drop(observer);
    }

    /// What an observer would see now.
    pub fn look<T>(&self, look: impl FnOnce(&Moment<'_>) -> T) -> T {
        look(&Moment {
            world: &self.world.lock(),
        })
    }

    fn of(world: World) -> CrashVfs {
        CrashVfs {
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// Calls of this kind so far.
    pub fn count(&self, op: Op) -> u64 {
        self.world.lock().count(op)
    }

    /// Makes the `nth` call of this kind from now on (1 is the next) fail with this system error; with
    /// `sticky` every later one too.
    pub fn fail_nth(&self, op: Op, nth: u64, errno: i32, sticky: bool) {
        self.world.lock().fail_nth(op, nth, errno, sticky);
    }

    /// Takes all injected failures back.
    pub fn clear_failures(&self) {
        self.world.lock().clear_failures();
    }

    /// Limits the disk's size; a write that would need more fails with `ENOSPC`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.world.lock().set_capacity(bytes);
    }
}

/// The disk in the middle of a boundary.
#[derive(Debug)]
pub struct Moment<'a> {
    world: &'a World,
}

impl Moment<'_> {
    /// The number of the boundary.
    pub fn boundary(&self) -> u64 {
        self.world.boundaries()
    }

    /// The disks that a start may find if the power goes now: one for each way in which unsynced changes may fare, without those that are
    /// equal to an earlier one.
    pub fn disks(&self, fates: &[Unsynced], seed: u64) -> Vec<(Unsynced, CrashVfs)> {
        let mut seen = Vec::new();
        let mut disks = Vec::new();
        for (number, fate) in (0u64..).zip(fates) {
            let seed = seed.wrapping_mul(31).wrapping_add(number);
            let (world, mark) = self.world.after_crash(*fate, seed);
            if !seen.contains(&mark) {
                seen.push(mark);
                disks.push((*fate, CrashVfs::of(world)));
            }
        }
        disks
    }

    /// The disk that the next process finds if this one ends now.
    pub fn after_kill(&self) -> CrashVfs {
        CrashVfs::of(self.world.after_kill())
    }
}

impl Vfs for CrashVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let inode = self.world.lock().open(path, mode)?;
        let dsync = mode == OpenMode::ReadWriteDsync;
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(CrashFile {
            world: Arc::clone(&self.world),
            inode,
            writable,
            dsync,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.world.lock().create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.world.lock().rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.world.lock().remove(path, false)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.world.lock().remove(path, true)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.world.lock().sync_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.world.lock().read_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.world.lock().metadata(path)
    }

    fn lock_file(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let inode = self.world.lock().lock_file(path)?;
        Ok(Box::new(CrashLock {
            world: Arc::clone(&self.world),
            inode,
        }))
    }

    fn disk_free(&self, _path: &Path) -> io::Result<u64> {
        self.world.lock().free()
    }
}

#[derive(Debug)]
struct CrashLock {
    world: Arc<Mutex<World>>,
    inode: InodeId,
}

impl FileLock for CrashLock {}

impl Drop for CrashLock {
    fn drop(&mut self) {
        self.world.lock().unlock(self.inode);
    }
}

#[derive(Debug)]
struct CrashFile {
    world: Arc<Mutex<World>>,
    inode: InodeId,
    writable: bool,
    dsync: bool,
}

impl CrashFile {
    fn check_writable(&self) -> io::Result<()> {
        // EBADF, as the system answers.
        if self.writable {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(9))
        }
    }
}

impl VfsFile for CrashFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.world.lock().read(self.inode, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        self.world.lock().write(self.inode, bytes, offset, self.dsync)
    }

    fn write_vectored_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.world.lock().write(self.inode, &bytes, offset, self.dsync)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.world.lock().sync(self.inode)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.world.lock().sync(self.inode)
    }

    fn len(&self) -> io::Result<u64> {
        self.world.lock().len(self.inode)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.world.lock().set_len(self.inode, len)
    }

    fn allocate_zeroed(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let zeros = vec![0; len as usize];
        self.world.lock().write(self.inode, &zeros, offset, self.dsync)
    }

    fn advise_needed(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn advise_written(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
