//! The file layer. All files of a node are reached through [`Vfs`], so that tests can take away
//! what was not synced ([`CrashVfs`]) and make any call fail.
//!
//! Rules that callers may rely on, and the double enforces:
//! - Bytes are durable after `sync_data` of their file returned; a changed length is too.
//! - A name (create, rename, remove) is durable after `sync_dir` of its directory returned.
//! - Positional reads and writes may run concurrently on one handle.
//! - A handle stays usable after its name is renamed or removed.

pub mod crash;
mod os;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

pub use crash::{CrashVfs, Unsynced};
pub use os::OsVfs;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// For reading; the file must exist.
    Read,
    /// For reading and writing; the file must exist.
    ReadWrite,
    /// As `ReadWrite`, and every write is durable when it returns (`O_DSYNC`).
    ReadWriteDsync,
    /// For reading and writing; created empty when absent.
    Create,
    /// For reading and writing; created, and an error when it exists.
    CreateNew,
    /// For reading and writing; created when absent, emptied when present.
    Truncate,
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirEntry {
    /// The last component of the path. Names that are not UTF-8 are left out of listings.
    pub name: String,
    /// True for a directory.
    pub is_dir: bool,
    /// Length in bytes; 0 for a directory.
    pub len: u64,
}

/// What `metadata` tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// True for a directory.
    pub is_dir: bool,
    /// Length in bytes; 0 for a directory.
    pub len: u64,
    /// Permission bits (`0o600`).
    pub mode: u32,
}

/// An exclusive lock on a file, held until dropped or until the process ends.
pub trait FileLock: Send + Sync + Debug {}

/// The file system of a node.
pub trait Vfs: Send + Sync + Debug {
    /// Opens a file; new files get mode 0600.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>>;
    /// Creates a directory and its missing parents, mode 0700. An existing one is no error.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Renames a file or directory; replaces a file that has the new name, atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in this directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Kind, length and mode of what the path names.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;
    /// Takes an exclusive lock on a file (created when absent) without waiting; `WouldBlock` when
    /// another process or handle holds it.
    fn lock_file(&self, path: &Path) -> io::Result<Box<dyn FileLock>>;
    /// Bytes free for us on the file system that holds the path.
    fn disk_free(&self, path: &Path) -> io::Result<u64>;

    /// Whether the path names anything.
    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A whole file, refused when longer than `max` bytes.
    fn read_file(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let len = file.len()?;
        if len > max {
            let text = format!("{} has {len} bytes, more than {max}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Replaces a file's contents so that a crash leaves the old or the new, never a mixture:
    /// writes `<path>.tmp`, syncs it, renames it, syncs the directory.
    fn write_file_atomically(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".tmp");
        let temporary = path.with_file_name(name);
        let file = self.open(&temporary, OpenMode::Truncate)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        drop(file);
        self.rename(&temporary, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }
}

/// An open file. Offsets are bytes from the start.
#[expect(
    clippy::len_without_is_empty,
    reason = "an empty file is not a special case here"
)]
pub trait VfsFile: Send + Sync + Debug {
    /// Reads up to `buffer.len()` bytes; fewer at the end of the file, 0 past it.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes, extending the file when needed.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Writes all slices one after another, in as few system calls as possible.
    fn write_vectored_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes contents and length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes contents and metadata durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or extends (with zeros, possibly sparse).
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Extends to `offset + len` with zeros that are really allocated, so that later writes in
    /// the range cannot run out of space and their sync need not change metadata. What the range
    /// held before is overwritten.
    fn allocate_zeroed(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Asks the system to begin reading this range. A hint; it promises nothing.
    fn advise_needed(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Asks the system to begin writing this range back. A hint; it promises nothing.
    fn advise_written(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Reads exactly `buffer.len()` bytes; `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(())
    }
}
