//! What SQL shows and asks of the cluster, as a trait that the node implements: the layers below never see roles.

use towline_base::{Lsn, TimelineId};

use crate::error::{AccessError, Result};

/// One row of pg_stat_replication.
#[derive(Clone, Debug)]
pub struct ReplicationRow {
    /// The walsender's process number.
    pub pid: i32,
    /// The role that authenticated.
    pub user: String,
    /// The standby's name.
    pub application_name: String,
    /// Its address.
    pub client_addr: String,
    /// When the stream began (µs since 2000-01-01 UTC).
    pub backend_start: i64,
    /// "startup", "catchup", "streaming", "backup".
    pub state: String,
    /// Sent to it.
    pub sent_lsn: Lsn,
    /// Written there.
    pub write_lsn: Lsn,
    /// Durable there.
    pub flush_lsn: Lsn,
    /// Replayed there.
    pub replay_lsn: Lsn,
    /// Microseconds from local flush to each, when known.
    pub write_lag: Option<i64>,
    /// See `write_lag`.
    pub flush_lag: Option<i64>,
    /// See `write_lag`.
    pub replay_lag: Option<i64>,
    /// Place in `synchronous_standby_names`, 0 for an asynchronous one.
    pub sync_priority: i32,
    /// "async", "potential", "sync", "quorum".
    pub sync_state: String,
    /// When it last answered.
    pub reply_time: Option<i64>,
}

/// One row of pg_replication_slots.
#[derive(Clone, Debug)]
pub struct SlotRow {
    /// The slot's name.
    pub name: String,
    /// Whether a stream uses it.
    pub active: bool,
    /// The pid of that stream.
    pub active_pid: Option<i32>,
    /// WAL is kept from here.
    pub restart_lsn: Option<Lsn>,
    /// "reserved", "extended", "unreserved", "lost".
    pub wal_status: String,
    /// Bytes that may still be written before the slot is lost.
    pub safe_wal_size: Option<i64>,
}

/// The row of pg_stat_wal_receiver.
#[derive(Clone, Debug)]
pub struct ReceiverRow {
    /// "streaming", "waiting", …
    pub status: String,
    /// Where the stream began.
    pub receive_start_lsn: Lsn,
    /// Written.
    pub written_lsn: Lsn,
    /// Durable.
    pub flushed_lsn: Lsn,
    /// The timeline received.
    pub received_timeline: u32,
    /// The upstream's address.
    pub sender: String,
    /// When the last message came (µs since 2000-01-01 UTC).
    pub last_message_time: Option<i64>,
}

/// What the node knows of the cluster and can be asked to do. All calls are quick; none waits for another node.
pub trait ClusterInfo: Send + Sync + std::fmt::Debug {
    /// The node's name.
    fn node_name(&self) -> String;
    /// The current timeline.
    fn timeline(&self) -> TimelineId;
    /// Rows of pg_stat_replication (empty on a standby without cascading).
    fn replication(&self) -> Vec<ReplicationRow>;
    /// Rows of pg_replication_slots.
    fn slots(&self) -> Vec<SlotRow>;
    /// The row of pg_stat_wal_receiver, on a standby.
    fn receiver(&self) -> Option<ReceiverRow>;
    /// On a standby: the end of what was received and made durable.
    fn last_receive_lsn(&self) -> Option<Lsn>;
    /// On a standby: the end of what was replayed.
    fn last_replay_lsn(&self) -> Option<Lsn>;
    /// ALTER SYSTEM SET (`Some`) or RESET (`None`).
    fn alter_system(&self, name: &str, value: Option<&str>) -> Result<()>;
    /// pg_reload_conf().
    fn reload(&self) -> Result<()>;
    /// pg_promote(): asks for a promotion and does not wait for it.
    fn promote(&self) -> Result<()>;
}

/// The answers of a node that is alone: what tests and single-role tools use.
#[derive(Debug, Clone)]
pub struct AloneCluster {
    /// The timeline to report.
    pub timeline: TimelineId,
}

impl ClusterInfo for AloneCluster {
    fn node_name(&self) -> String {
        "alone".to_owned()
    }

    fn timeline(&self) -> TimelineId {
        self.timeline
    }

    fn replication(&self) -> Vec<ReplicationRow> {
        Vec::new()
    }

    fn slots(&self) -> Vec<SlotRow> {
        Vec::new()
    }

    fn receiver(&self) -> Option<ReceiverRow> {
        None
    }

    fn last_receive_lsn(&self) -> Option<Lsn> {
        None
    }

    fn last_replay_lsn(&self) -> Option<Lsn> {
        None
    }

    fn alter_system(&self, _name: &str, _value: Option<&str>) -> Result<()> {
        Err(AccessError::internal("this node keeps no settings file"))
    }

    fn reload(&self) -> Result<()> {
        Ok(())
    }

    fn promote(&self) -> Result<()> {
        Err(AccessError::internal("this node is not part of a cluster"))
    }
}
