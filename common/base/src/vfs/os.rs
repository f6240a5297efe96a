//! [`OsVfs`]: the operating system's files. The only place in the workspace that uses `std::fs`.
//!
//! New files have mode 0600 and directories 0700, whatever the umask allows more.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::{DirEntry, FileLock, Metadata, OpenMode, Vfs, VfsFile};

/// One write's worth of zeros when a file is filled.
static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];
/// Slices per `pwritev`; below every system's `IOV_MAX`.
const MAX_SLICES: usize = 64;

/// The operating system's files.
#[derive(Clone, Copy, Default, Debug)]
pub struct OsVfs;

impl OsVfs {
    /// As the shared trait object that the engine takes.
    pub fn shared() -> Arc<dyn Vfs> {
        Arc::new(OsVfs)
    }
}

impl Vfs for OsVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::ReadWrite => options.write(true),
            OpenMode::ReadWriteDsync => options
                .write(true)
                .custom_flags(rustix::fs::OFlags::DSYNC.bits() as i32),
            OpenMode::Create => options.write(true).create(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
            OpenMode::Truncate => options.write(true).create(true).truncate(true),
        };
        let file = options.open(path)?;
        if matches!(mode, OpenMode::Read) && file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Arc::new(OsFile(file)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // An empty path is what `Path::parent` gives for a bare name.
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        File::open(path)?.sync_all()
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            // A file may go away between the listing and the question about it.
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let is_dir = metadata.is_dir();
            entries.push(DirEntry {
                name,
                is_dir,
                len: if is_dir { 0 } else { metadata.len() },
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let metadata = fs::metadata(path)?;
        let is_dir = metadata.is_dir();
        let len = if is_dir { 0 } else { metadata.len() };
        Ok(Metadata {
            is_dir,
            len,
            mode: metadata.mode() & 0o7777,
        })
    }

    fn lock_file(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(OsLock { _file: file }))
    }

    fn disk_free(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Holds the descriptor whose lock this is; closing it gives the lock back.
#[derive(Debug)]
struct OsLock {
    _file: File,
}

impl FileLock for OsLock {}

#[derive(Debug)]
struct OsFile(File);

impl VfsFile for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn write_vectored_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut offset = offset;
        // `start` is the first slice not fully written, `skip` what is written of it.
        let (mut start, mut skip) = (0, 0);
        while start < slices.len() {
            if skip > 0 {
                // Rare: the kernel wrote part of a slice; finish it alone.
                self.0.write_all_at(&slices[start][skip..], offset)?;
                offset += (slices[start].len() - skip) as u64;
                start += 1;
                skip = 0;
                continue;
            }
            let end = slices.len().min(start + MAX_SLICES);
            let mut written = match rustix::io::pwritev(&self.0, &slices[start..end], offset) {
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let wanted: usize = slices[start..end].iter().map(|slice| slice.len()).sum();
            if written == 0 && wanted > 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            while start < end && written >= slices[start].len() {
                written -= slices[start].len();
                start += 1;
            }
            skip = written;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate_zeroed(&self, offset: u64, len: u64) -> io::Result<()> {
        // Written, not fallocated: an unwritten extent turns into a written one at the first sync
        // after a write, which would put a metadata change into every commit's fdatasync.
        let mut done = 0;
        while done < len {
            let count = (len - done).min(ZEROS.len() as u64) as usize;
            self.0.write_all_at(&ZEROS[..count], offset + done)?;
            done += count as u64;
        }
        Ok(())
    }

    fn advise_needed(&self, offset: u64, len: u64) -> io::Result<()> {
        let Some(len) = std::num::NonZeroU64::new(len) else {
            return Ok(());
        };
        rustix::fs::fadvise(&self.0, offset, Some(len), rustix::fs::Advice::WillNeed)?;
        Ok(())
    }

    fn advise_written(&self, offset: u64, len: u64) -> io::Result<()> {
        // Linux begins to write back what is dirty in the range and does not wait; what is being
        // written back stays cached. (sync_file_range would be the narrower call; rustix has it not.)
        let Some(len) = std::num::NonZeroU64::new(len) else {
            return Ok(());
        };
        rustix::fs::fadvise(&self.0, offset, Some(len), rustix::fs::Advice::DontNeed)?;
        Ok(())
    }
}
