//! The write-ahead log, checkpoints, archiving, recovery.

super::settings_table! {
    begins at super::resources::END;

    wal_level: &'static str = "replica", Enum(&["replica"]), Plain, Postmaster,
        "Write-Ahead Log / Settings",
        "How much the WAL says; always enough to replicate.";
    fsync: bool = "on", Bool, Plain, Sighup,
        "Write-Ahead Log / Settings",
        "Whether writes are forced to disk; off may lose everything in a crash.";
    synchronous_commit: &'static str = "on", Enum(&["local", "remote_write", "remote_apply", "on", "off"]), Plain, User,
        "Write-Ahead Log / Settings",
        "What a commit waits for before its client hears of it.";
    wal_sync_method: &'static str = "fdatasync", Enum(&["fsync", "fdatasync", "open_datasync"]), Plain, Sighup,
        "Write-Ahead Log / Settings",
        "How the WAL is forced to disk.";
    full_page_writes: bool = "on", Bool, Plain, Sighup,
        "Write-Ahead Log / Settings",
        "Whether the first change of a page after a checkpoint logs the whole page.";
    wal_compression: &'static str = "off", Enum(&["off", "lz4", "zstd"]), Plain, Superuser,
        "Write-Ahead Log / Settings",
        "How page images in the WAL are compressed.";
    wal_consistency_checking: Arc<str> = "", Text(checks::checked_managers), Plain, Superuser,
        "Write-Ahead Log / Settings",
        "Resource managers whose replayed pages are compared with the primary's.";
    wal_buffers: i64 = "-1", Int { min: -1, max: 262143 }, Blocks, Postmaster,
        "Write-Ahead Log / Settings",
        "Size of the WAL buffers; -1 takes a share of shared_buffers.";
    wal_writer_delay: i64 = "200ms", Int { min: 1, max: 10000 }, Millis, Sighup,
        "Write-Ahead Log / Settings",
        "How long the WAL writer lets asynchronous commits gather.";
    wal_writer_flush_after: i64 = "1MB", Int { min: 0, max: 2147483647 }, Blocks, Sighup,
        "Write-Ahead Log / Settings",
        "WAL that may gather before the WAL writer writes it without waiting.";
    commit_delay: i64 = "0", Int { min: 0, max: 100000 }, Plain, Superuser,
        "Write-Ahead Log / Settings",
        "Microseconds that a flush waits for more commits to join.";
    commit_siblings: i64 = "5", Int { min: 0, max: 1000 }, Plain, User,
        "Write-Ahead Log / Settings",
        "Open transactions from which commit_delay applies.";
    wal_recycle: bool = "on", Bool, Plain, Superuser,
        "Write-Ahead Log / Settings",
        "Whether old segments are reused.";
    wal_init_zero: bool = "on", Bool, Plain, Superuser,
        "Write-Ahead Log / Settings",
        "Whether new segments are filled with zeros.";
    wal_decode_buffer_size: i64 = "512kB", Int { min: 65536, max: 1073741823 }, Bytes, Postmaster,
        "Write-Ahead Log / Settings",
        "WAL decoded ahead in recovery.";
    checkpoint_timeout: i64 = "5min", Int { min: 30, max: 86400 }, Seconds, Sighup,
        "Write-Ahead Log / Checkpoints",
        "Longest time between checkpoints.";
    checkpoint_completion_target: f64 = "0.9", Real { min: 0.0, max: 1.0 }, Plain, Sighup,
        "Write-Ahead Log / Checkpoints",
        "Share of the time between checkpoints over which one is spread.";
    checkpoint_flush_after: i64 = "256kB", Int { min: 0, max: 256 }, Blocks, Sighup,
        "Write-Ahead Log / Checkpoints",
        "Pages after which a checkpoint asks the system to write back.";
    checkpoint_warning: i64 = "30s", Int { min: 0, max: 2147483647 }, Seconds, Sighup,
        "Write-Ahead Log / Checkpoints",
        "Checkpoints that come closer than this by WAL volume are logged as a warning.";
    max_wal_size: i64 = "1GB", Int { min: 2, max: 2147483647 }, Megabytes, Sighup,
        "Write-Ahead Log / Checkpoints",
        "WAL volume that triggers a checkpoint.";
    min_wal_size: i64 = "80MB", Int { min: 2, max: 2147483647 }, Megabytes, Sighup,
        "Write-Ahead Log / Checkpoints",
        "WAL files kept for reuse rather than removed.";
    archive_mode: &'static str = "off", Enum(&["off", "on", "always"]), Plain, Postmaster,
        "Write-Ahead Log / Archiving",
        "Whether finished segments are archived.";
    archive_command: Arc<str> = "", Text(checks::any), Plain, Sighup,
        "Write-Ahead Log / Archiving",
        "Command that archives a segment.";
    restore_command: Arc<str> = "", Text(checks::any), Plain, Sighup,
        "Write-Ahead Log / Archiving",
        "Command that fetches an archived segment.";
    archive_timeout: i64 = "0", Int { min: 0, max: 1073741823 }, Seconds, Sighup,
        "Write-Ahead Log / Archiving",
        "Time after which an unfinished segment is switched.";
    replay_appliers: i64 = "0", Int { min: 0, max: 32 }, Plain, Postmaster,
        "Write-Ahead Log / Recovery",
        "Threads that change pages in a recovery after a crash; 0 for one less than there are cores, at most 4.";
    recovery_prefetch: &'static str = "try", Enum(&["off", "on", "try"]), Plain, Sighup,
        "Write-Ahead Log / Recovery",
        "Whether recovery after a crash asks for pages before it needs them.";
    recovery_target_timeline: Arc<str> = "latest", Text(checks::any), Plain, Postmaster,
        "Write-Ahead Log / Recovery",
        "Timeline that recovery follows.";
}
