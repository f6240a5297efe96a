//! `towline-primary`: what makes a node the primary of its cluster, beyond the engine.
//!
//! - [`sync_set`]: the pure rule by which acks become `quorum` and `quorum_written`.
//! - [`SyncRep`]: the members, their acks, and the publication of the quorum (A1, I3, I4).
//! - [`Slots`]: what WAL is kept for a standby that is away.
//! - [`SeenTimelines`]: timeline numbers that the next start must exceed.
//! - walsenders, base backups and their gRPC service, started by [`PrimaryRole`].
//!
//! Nothing here knows of SQL or of the standby role; the node composes both.

pub mod backup;
pub mod handshake;
mod lag;
mod role;
pub mod seen;
mod senders;
mod service;
pub mod slots;
mod source;
pub mod sync_rep;
pub mod sync_set;
mod walsender;

pub use role::{FeedbackHook, PrimaryParts, PrimaryRole, PrimaryView};
pub use seen::SeenTimelines;
pub use service::ReplicationService;
pub use slots::{SlotError, SlotGuard, Slots};
pub use sync_rep::{QuorumPublishers, SyncRep};
