//! `towline-wal`: the write-ahead log, in PostgreSQL 15's framing, readable by its pg_waldump.
//!
//! - [`mod@format`]: the bytes: pages, records, segments, positions. No I/O.
//! - [`records`]: the payload of every record kind, and how dumps print it; [`rmgr`] is the table of resource managers.
//! - [`insert`]: [`Wal`]: credits, concurrent insertion into the WAL buffers, flushing (write, sync, publish, wake).
//! - [`WalWriter`], [`Preallocator`]: the two loops behind it, each a `step`.
//! - [`reader`]: [`WalReader`]: one reader for recovery, standbys, walsenders and dumps, and the judgement of the log's end.
//! - [`timeline`]: history files, forks, [`ReceivedWal`] of a standby.
//! - [`retention`]: which segments may go. [`waldump`]: the dump tool.
//!
//! What holds here, and is asserted or tested:
//! - `flush ≤ write ≤ insert` (I2); a position is published only by the function that made it true (I3).
//! - A failed write or sync is never tried again (I5).
//! - A timeline's bytes are written by the holder of its [`WritePermit`] only (I6), and a fork never overwrites in place (A14).
//! - Every record found is one that was inserted, whole and in order; an unreadable place with proof of durability behind it
//!   is damage, not the end (A13).

mod config;
pub mod format;
pub mod insert;
pub mod reader;
pub mod records;
pub mod retention;
pub mod rmgr;
mod segments;
pub mod timeline;
pub mod waldump;
mod writer;

pub use config::{Positions, StartAt, SyncMethod, WalConfig, WalPublishers, WalTuning};
pub use insert::{
    BlockFlags, CheckedManagers, Credit, ImageOverride, ImageOverrideGuard, ImagePolicy, InsertError,
    Inserted, NoCredit, PageBytes, PermitIssuer, RecordBuilder, Wal, WalFailed, WritePermit, credit_for,
};
pub use reader::{
    Beyond, EndOfWal, EndReason, Known, LogEnd, ReadOutcome, WalBytes, WalReader, WalSource, find_end,
};
pub use rmgr::Rmgr;
pub use segments::SegmentDir;
pub use timeline::{ReceivedWal, TimelineHistory, fork_timeline, rewrite_tail_durable};
pub use writer::{LoopThread, Preallocator, WalWriter, spawn_loop, spawn_preallocator, spawn_writer};
