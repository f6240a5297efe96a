//! Insertion: credits, reservation, copying into the WAL buffers, and flushing them. [`Wal`] tells the protocol.

mod assemble;
mod builder;
mod copy;
mod flush;
mod images;
mod permit;
mod ring;
mod slots;
mod space;
mod switch;
mod wal;

pub use builder::{BlockFlags, PageBytes, RecordBuilder, credit_for};
pub use images::{CheckedManagers, ImageOverride, ImageOverrideGuard, ImagePolicy};
pub use permit::{PermitIssuer, WritePermit};
pub use space::Credit;
pub use wal::{FailureHook, InsertError, Inserted, NoCredit, PostFlushHook, Wal, WalFailed};
