//! `towline-proto`: the messages and services between nodes, and their conversions to the types of base.
//!
//! Everything decoded here came from the network: conversions check lengths and never panic.

mod convert;
pub mod transport;

/// The generated code of `replication.proto`.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod replication {
    tonic::include_proto!("towline.replication.v1");
}

pub use convert::{BadMessage, asks_to_reclone, is_intact, may_follow, reclone, required, wal_message};

/// How far behind its durable log a standby may begin again, at most: one that was killed in the middle of a record asks for the record
/// from its beginning. The largest record, with the page headers in it.
pub const UNFINISHED_RECORD: u64 = 2 * towline_base::limits::MAX_OWN_RECORD_BYTES as u64;

/// Version of the replication protocol; both sides must have the same.
pub const PROTOCOL_VERSION: u32 = 2;
