//! `towline-base`: the vocabulary that every other crate of Towline speaks.
//!
//! Log positions ([`Lsn`]) and who may publish them ([`LsnWatch`]), identities ([`ids`]), the file
//! layer ([`vfs`]), settings ([`settings`]), bounded codecs ([`codec`]), clocks ([`clock`]), error
//! codes ([`SqlState`]) and limits ([`limits`]). It depends on no other crate of the workspace.

pub mod clock;
pub mod codec;
pub mod containment;
pub mod failpoint;
pub mod ids;
pub mod limits;
pub mod lsn;
pub mod lsn_watch;
pub mod rules;
pub mod scram;
pub mod settings;
pub mod sqlstate;
pub mod step;
pub mod testing;
pub mod vfs;

pub use clock::{Clock, ManualClock, Moment, SystemClock, TimestampTz};
pub use containment::CriticalSection;
pub use ids::{
    BlockNumber, ForkKind, Incarnation, NodeId, Oid, PageId, RelFileNode, SystemId, Tid, TimelineId,
    TimelineNumber, Xid,
};
pub use limits::PAGE_SIZE;
pub use lsn::Lsn;
pub use lsn_watch::{LsnPublisher, LsnWait, LsnWatch, WaitOutcome, WatchClosed};
pub use sqlstate::SqlState;
pub use step::Next;
pub use vfs::{DirEntry, FileLock, OpenMode, OsVfs, Vfs, VfsFile};
