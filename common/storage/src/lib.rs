//! `towline-storage`: pages, the buffer pool, relation files, logged changes, the control file, checkpoints, recovery.
//!
//! What it promises to the layers above:
//!
//! - A page is changed only under its write latch and only by a [`LoggedChange`] or by redo; a hint changes bytes but never
//!   makes a page dirty (B8).
//! - No page reaches disk before the quorum has its LSN (I7); write-back copies a page, waits without a latch, writes the copy (B3).
//! - After a crash, redo from the control file's checkpoint restores every page to its last logged state.

pub mod background_writer;
pub mod buffer;
pub mod change;
pub mod checkpoint;
pub mod checksums;
pub mod control;
pub mod error;
pub mod fsm;
pub mod page;
pub mod pagedump;
pub mod recovery;
pub mod smgr;
mod storage;
mod truncate;
mod unlink;
pub mod vm;

pub use background_writer::{BackgroundWriter, BackgroundWriterSettings};
pub use buffer::{Access, BufferPool, HintGuard, PageRead, PageReadRef, PageWrite, PinnedPage};
pub use change::{ChangedPages, LoggedChange};
pub use checkpoint::{
    CheckpointCounters, CheckpointParticipant, CheckpointRequests, CheckpointSettings, CheckpointSource,
    Checkpointer,
};
pub use control::{CheckpointInfo, ClusterState, ControlData, ControlFile};
pub use error::{StorageError, StorageResult};
pub use fsm::FreeSpaceMap;
pub use page::{ItemId, ItemState, OffsetNumber, Page, PageError, Placement};
pub use recovery::{
    ProgressMeter, Recovery, RecoveryProgress, RecoveryStep, RedoAction, RedoContext, RedoError, Replayer,
    ResourceManagers, ScanMeter,
};
pub use smgr::Smgr;
pub use storage::{Storage, StorageConfig};
pub use truncate::PendingTruncation;
pub use unlink::PendingUnlinks;
