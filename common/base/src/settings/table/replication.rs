//! Replication: sending, the primary, standbys.

super::settings_table! {
    begins at super::wal::END;

    max_wal_senders: i64 = "10", Int { min: 0, max: 262143 }, Plain, Postmaster,
        "Replication / Sending Servers",
        "Most standbys connected at a time.";
    max_replication_slots: i64 = "10", Int { min: 0, max: 64 }, Plain, Postmaster,
        "Replication / Sending Servers",
        "Most replication slots.";
    wal_keep_size: i64 = "0", Int { min: 0, max: 2147483647 }, Megabytes, Sighup,
        "Replication / Sending Servers",
        "WAL kept for standbys without a slot.";
    max_slot_wal_keep_size: i64 = "4GB", Int { min: -1, max: 2147483647 }, Megabytes, Sighup,
        "Replication / Sending Servers",
        "Most WAL that a slot may hold back; past it the slot is lost; -1 is no limit.";
    wal_sender_timeout: i64 = "60s", Int { min: 0, max: 2147483647 }, Millis, User,
        "Replication / Sending Servers",
        "Silence of a standby after which its connection is closed; 0 never.";
    track_commit_timestamp: bool = "off", Bool, Plain, Postmaster,
        "Replication / Sending Servers",
        "Whether commit times are kept.";
    synchronous_standby_names: Arc<str> = "", Text(checks::sync_names), Plain, Sighup,
        "Replication / Primary Server",
        "Standbys that must confirm a commit: FIRST n (...), ANY n (...) or a list.";
    quorum_wal_limit: i64 = "1GB", Int { min: 16, max: 2147483647 }, Megabytes, Sighup,
        "Replication / Primary Server",
        "WAL above the quorum position from which changes wait.";
    vacuum_defer_cleanup_age: i64 = "0", Int { min: 0, max: 1000000 }, Plain, Sighup,
        "Replication / Primary Server",
        "Kept for clients that ask; snapshots are positions here.";
    primary_conninfo: Arc<str> = "", Text(checks::any), Plain, Sighup,
        "Replication / Standby Servers",
        "Address of the upstream node's replication service.";
    primary_slot_name: Arc<str> = "", Text(checks::slot_name), Plain, Sighup,
        "Replication / Standby Servers",
        "Slot used on the upstream node; empty takes the node's name.";
    hot_standby: bool = "on", Bool, Plain, Postmaster,
        "Replication / Standby Servers",
        "Whether a standby serves reads.";
    max_standby_streaming_delay: i64 = "0", Int { min: -1, max: 2147483647 }, Millis, Sighup,
        "Replication / Standby Servers",
        "How long replay waits for queries in its way; -1 for ever.";
    max_standby_archive_delay: i64 = "0", Int { min: -1, max: 2147483647 }, Millis, Sighup,
        "Replication / Standby Servers",
        "The same while replaying archived WAL.";
    wal_receiver_status_interval: i64 = "10s", Int { min: 0, max: 2147483 }, Seconds, Sighup,
        "Replication / Standby Servers",
        "Longest time between two reports to the upstream node.";
    hot_standby_feedback: bool = "on", Bool, Plain, Sighup,
        "Replication / Standby Servers",
        "Whether the oldest snapshot here holds back vacuum on the primary.";
    wal_receiver_timeout: i64 = "60s", Int { min: 0, max: 2147483647 }, Millis, Sighup,
        "Replication / Standby Servers",
        "Silence of the upstream node after which the connection is made anew; 0 never.";
    wal_retrieve_retry_interval: i64 = "5s", Int { min: 1, max: 2147483647 }, Millis, Sighup,
        "Replication / Standby Servers",
        "Longest pause between attempts to connect.";
    recovery_min_apply_delay: i64 = "0", Int { min: 0, max: 2147483647 }, Millis, Sighup,
        "Replication / Standby Servers",
        "How much later than the primary a standby applies commits.";
    leader_grace: i64 = "800ms", Int { min: 100, max: 60000 }, Millis, Sighup,
        "Replication / Standby Servers",
        "How long after its last heartbeat a primary cannot be replaced.";
    maximum_lag_on_failover: i64 = "1MB", Int { min: 0, max: 1125899906842624 }, Bytes, Sighup,
        "Replication / Standby Servers",
        "Lag up to which an asynchronous standby may be promoted.";
    shutdown_timeout: i64 = "10s", Int { min: 0, max: 2147483647 }, Millis, Sighup,
        "Replication / Standby Servers",
        "How long a shutdown waits for standbys.";
    cluster_name: Arc<str> = "", Text(checks::application_name), Plain, Postmaster,
        "Replication / Standby Servers",
        "Name of the cluster.";
}
