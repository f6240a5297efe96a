//! `towline-access`: heap, B-tree, transactions, locks, the catalog, and the [`Engine`] that ties them to storage and WAL.
//!
//! The life of a change: a [`Transaction`] takes its xid and snapshot, an operation ([`ops`]) latches a page, changes it
//! through a logged change, and the commit path ([`txn`], [`release`]) makes it visible in LSN order (I1, I4). Nothing here ever
//! waits for another transaction: a step that cannot go on returns a [`Wait`] (DESIGN §5). No runtime, no sockets.

pub mod activity;
pub mod bootstrap;
pub mod btree;
pub mod catalog;
pub mod cluster;
pub mod csn;
pub mod ddl;
pub mod engine;
mod error;
pub mod heap;
pub mod locks;
pub mod ops;
pub mod release;
pub mod session;
mod step;
#[cfg(test)]
mod testing;
pub mod toast;
pub mod txn;
pub mod vacuum;

pub use cluster::ClusterInfo;
pub use engine::{Engine, EngineConfig, OpenedPrimary, QuorumMode, open_alone};
pub use error::{AccessError, ErrorFields, Result};
pub use release::CommitLevel;
pub use session::{Interrupt, Interrupts, SessionHandle, SessionRegistry, SessionRow, SessionState};
pub use step::{Step, Wait, WaitCell, WaitKind};
pub use txn::{Isolation, Snapshot, Transaction, TxnOptions};

/// OID of the one database, `postgres`.
pub const DATABASE_OID: u32 = 5;
/// OID of the default tablespace.
pub const DEFAULT_TABLESPACE_OID: u32 = 1663;
