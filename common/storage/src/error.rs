//! [`StorageError`]: what can go wrong below the heap, classed by what the caller must do. The one place that maps to SQLSTATEs.

use crate::page::PageError;
use crate::smgr::FileKey;
use towline_base::{ForkKind, Lsn, PageId, RelFileNode, SqlState};

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Result of a storage operation.
pub type StorageResult<T> = Result<T, StorageError>;

/// A storage error. `NeedsFlush` and `NeedsQuorum` are no failures: the statement waits and tries the step again, nothing
/// being latched by this call any more.
#[derive(Debug, Clone)]
pub enum StorageError {
    /// WAL buffers have no room until this position is flushed.
    NeedsFlush(Lsn),
    /// Too much stands above the quorum: go on when `quorum` has reached this position.
    NeedsQuorum(Lsn),
    /// A page that cannot be what was written; `offset` is its first byte in `file`.
    Corrupt {
        /// The page.
        page: PageId,
        /// The file that holds it.
        file: PathBuf,
        /// Offset of the page in the file.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A page operation was refused.
    Page(PageId, PageError),
    /// A block beyond the end of its relation.
    NoSuchBlock(PageId),
    /// A relation whose files do not exist.
    NoSuchRelation(RelFileNode),
    /// Every frame of the buffer pool is pinned.
    NoFreeFrame,
    /// The file system refused.
    Io {
        /// What was being done.
        action: &'static str,
        /// On which file.
        file: PathBuf,
        /// The error, shared so that this type can be cloned.
        error: Arc<io::Error>,
    },
    /// The write-ahead log refused an insertion: the permit is revoked, or the log has failed.
    Wal(String),
    /// The storage has stopped: a change was begun and could not be logged, or a sync failed. The node must stop.
    Stopped(&'static str),
    /// A file of ours that cannot be what was written, or a request that only damage explains.
    Damaged(String),
    /// A request that no correct caller makes; the text says which.
    Misuse(&'static str),
}

impl StorageError {
    /// Wraps an I/O error.
    pub fn io(action: &'static str, file: impl Into<PathBuf>, error: io::Error) -> StorageError {
        StorageError::Io {
            action,
            file: file.into(),
            error: Arc::new(error),
        }
    }

    /// The code that a SQL client gets.
    pub fn sqlstate(&self) -> SqlState {
        match self {
            StorageError::NeedsFlush(_) | StorageError::NeedsQuorum(_) | StorageError::NoFreeFrame => {
                SqlState::INSUFFICIENT_RESOURCES
            }
            StorageError::Corrupt { .. } | StorageError::Page(..) | StorageError::NoSuchBlock(_) => {
                SqlState::DATA_CORRUPTED
            }
            StorageError::NoSuchRelation(_) => SqlState::UNDEFINED_FILE,
            StorageError::Io { error, .. } => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SqlState::DISK_FULL,
                io::ErrorKind::NotFound => SqlState::UNDEFINED_FILE,
                _ => SqlState::IO_ERROR,
            },
            StorageError::Wal(_) | StorageError::Stopped(_) => SqlState::CRASH_SHUTDOWN,
            StorageError::Damaged(_) => SqlState::DATA_CORRUPTED,
            StorageError::Misuse(_) => SqlState::INTERNAL_ERROR,
        }
    }

    /// True when the file system had no room.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, StorageError::Io { error, .. }
            if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// True when the caller should wait and step again.
    pub fn is_wait(&self) -> bool {
        matches!(self, StorageError::NeedsFlush(_) | StorageError::NeedsQuorum(_))
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorageError::NeedsFlush(lsn) => write!(f, "the WAL buffers are full until {lsn} is flushed"),
            StorageError::NeedsQuorum(lsn) => write!(f, "waiting for the quorum to reach {lsn}"),
            StorageError::Corrupt {
                page,
                file,
                offset,
                what,
            } => {
                write!(
                    f,
                    "invalid page in {page}: {what} (file \"{}\", offset {offset})",
                    file.display()
                )
            }
            StorageError::Page(page, error) => write!(f, "{page}: {error}"),
            StorageError::NoSuchBlock(page) => write!(f, "{page} does not exist"),
            StorageError::NoSuchRelation(rel) => {
                let file = FileKey {
                    rel: *rel,
                    fork: ForkKind::Main,
                    part: 0,
                };
                let file = file.path();
                write!(
                    f,
                    "the files of relation {rel} (\"{}\") do not exist",
                    file.display()
                )
            }
            StorageError::NoFreeFrame => f.write_str("no unpinned buffers available"),
            StorageError::Io { action, file, error } => {
                write!(f, "could not {action} file \"{}\": {error}", file.display())
            }
            StorageError::Wal(what) => write!(f, "the write-ahead log refused a record: {what}"),
            StorageError::Stopped(why) => write!(f, "the storage has stopped: {why}"),
            StorageError::Damaged(what) => f.write_str(what),
            StorageError::Misuse(what) => write!(f, "internal error in storage: {what}"),
        }
    }
}

impl std::error::Error for StorageError {}
