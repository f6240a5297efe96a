//! `towline-standby`: what makes a node a standby, beyond the engine.
//!
//! How the node puts it together:
//!
//! 1. [`needs_clone`]: then [`wipe`] and [`clone_database`] fill the data directory from the primary.
//! 2. [`open_log`] finds the end of the log, makes it durable, and says how far the quorum is known; [`PromiseFile::open`] reads
//!    which timelines may be followed.
//! 3. The engine is opened for replay, with a watch of the announced quorum that begins at [`OpenedLog::quorum`].
//! 4. [`StandbyRole::start`] streams, replays, and moves the read horizon; after [`StandbyRole::wait_consistent`] SQL is served.
//! 5. [`StandbyRole::wait_ended`] says when the data cannot follow the primary any more ([`StandbyEnd::Reclone`]): the node
//!    [marks](mark_for_clone) it and begins at 1 with a new identity.
//!
//! Invariants: `replay ≤ flush ≤ write` and `replay ≤ quorum` (I2, B7); an ack says nothing that is not durable (I3); no log
//! is cut below what a quorum had, and no database is given up unless the primary says so by name.

mod backoff;
mod base_backup;
mod log;
mod promise;
mod replay;
mod role;
mod shared;
mod stream;
mod writer;

pub use backoff::Backoff;
pub use base_backup::{
    CLONE_MARKER, CloneError, CloneProgress, CloneRequest, clone_database, mark_for_clone, needs_clone, wipe,
};
pub use log::{LogSettings, OpenLogError, OpenedLog, open_log, read_history, wal_dir};
pub use promise::{PROMISE_FILE, Promise, PromiseError, PromiseFile};
pub use replay::Replay;
pub use role::{StandbyParts, StandbyRole, StandbyView};
pub use shared::StandbyEnd;
