//! The log, statistics, and vacuum.

super::settings_table! {
    begins at super::queries::END;

    log_min_messages: &'static str = "warning", Enum(&["debug5", "debug4", "debug3", "debug2", "debug1", "info", "notice", "warning", "error", "log", "fatal", "panic"]), Plain, Superuser,
        "Reporting and Logging",
        "Least severe message that is logged.";
    log_min_error_statement: &'static str = "error", Enum(&["debug5", "debug4", "debug3", "debug2", "debug1", "info", "notice", "warning", "error", "log", "fatal", "panic"]), Plain, Superuser,
        "Reporting and Logging",
        "Least severe error whose statement is logged.";
    log_min_duration_statement: i64 = "-1", Int { min: -1, max: 2147483647 }, Millis, Superuser,
        "Reporting and Logging",
        "Statements that take at least this long are logged; -1 none.";
    log_checkpoints: bool = "on", Bool, Plain, Sighup,
        "Reporting and Logging",
        "Whether each checkpoint is logged.";
    log_startup_progress_interval: i64 = "10s", Int { min: 0, max: 2147483647 }, Millis, Sighup,
        "Reporting and Logging",
        "Time between two log lines about the progress of a long recovery; 0 writes none.";
    log_connections: bool = "off", Bool, Plain, Backend,
        "Reporting and Logging",
        "Whether each login is logged.";
    log_disconnections: bool = "off", Bool, Plain, Backend,
        "Reporting and Logging",
        "Whether each end of a session is logged.";
    log_lock_waits: bool = "off", Bool, Plain, Superuser,
        "Reporting and Logging",
        "Whether waits longer than deadlock_timeout are logged.";
    log_recovery_conflict_waits: bool = "off", Bool, Plain, Sighup,
        "Reporting and Logging",
        "Whether replay waiting for queries is logged.";
    log_replication_commands: bool = "off", Bool, Plain, Superuser,
        "Reporting and Logging",
        "Whether commands of standbys are logged.";
    log_duration: bool = "off", Bool, Plain, Superuser,
        "Reporting and Logging",
        "Whether the duration of each statement is logged.";
    log_statement: &'static str = "none", Enum(&["none", "ddl", "mod", "all"]), Plain, Superuser,
        "Reporting and Logging",
        "Which statements are logged.";
    log_autovacuum_min_duration: i64 = "10min", Int { min: -1, max: 2147483647 }, Millis, Sighup,
        "Reporting and Logging",
        "Autovacuum runs that take at least this long are logged; -1 none.";
    log_line_prefix: Arc<str> = "%m [%p] ", Text(checks::any), Plain, Sighup,
        "Reporting and Logging",
        "Kept for clients that ask.";
    log_timezone: Arc<str> = "Etc/UTC", Text(checks::time_zone), Plain, Sighup,
        "Reporting and Logging",
        "Time zone of the log.";
    log_format: &'static str = "text", Enum(&["text", "json"]), Plain, Postmaster,
        "Reporting and Logging",
        "Whether log lines are for people or for machines.";
    log_filter: Arc<str> = "", Text(checks::any), Plain, Postmaster,
        "Reporting and Logging",
        "Which modules log at which level, in tracing's syntax.";
    track_activities: bool = "on", Bool, Plain, Superuser,
        "Statistics",
        "Whether running statements are shown in pg_stat_activity.";
    track_counts: bool = "on", Bool, Plain, Superuser,
        "Statistics",
        "Kept for clients that ask: tables always count their changes.";
    track_io_timing: bool = "off", Bool, Plain, Superuser,
        "Statistics",
        "Whether reads and writes are timed.";
    track_activity_query_size: i64 = "1024", Int { min: 100, max: 1048576 }, Bytes, Postmaster,
        "Statistics",
        "How much of a running statement is shown.";
    autovacuum: bool = "on", Bool, Plain, Sighup,
        "Autovacuum",
        "Whether tables are vacuumed by themselves.";
    autovacuum_naptime: i64 = "1min", Int { min: 1, max: 2147483 }, Seconds, Sighup,
        "Autovacuum",
        "Pause between two looks at all tables.";
    autovacuum_max_workers: i64 = "3", Int { min: 1, max: 262143 }, Plain, Postmaster,
        "Autovacuum",
        "Kept for clients that ask: one worker takes the tables in turn.";
    autovacuum_vacuum_threshold: i64 = "50", Int { min: 0, max: 2147483647 }, Plain, Sighup,
        "Autovacuum",
        "Least number of dead rows before a vacuum.";
    autovacuum_vacuum_insert_threshold: i64 = "1000", Int { min: -1, max: 2147483647 }, Plain, Sighup,
        "Autovacuum",
        "Least number of inserts before a vacuum; -1 never.";
    autovacuum_analyze_threshold: i64 = "50", Int { min: 0, max: 2147483647 }, Plain, Sighup,
        "Autovacuum",
        "Kept for clients that ask: vacuum counts what analyze would.";
    autovacuum_vacuum_scale_factor: f64 = "0.2", Real { min: 0.0, max: 100.0 }, Plain, Sighup,
        "Autovacuum",
        "Share of dead rows, on top of the threshold.";
    autovacuum_vacuum_insert_scale_factor: f64 = "0.2", Real { min: 0.0, max: 100.0 }, Plain, Sighup,
        "Autovacuum",
        "Share of inserted rows, on top of the threshold.";
    autovacuum_analyze_scale_factor: f64 = "0.1", Real { min: 0.0, max: 100.0 }, Plain, Sighup,
        "Autovacuum",
        "Kept for clients that ask: vacuum counts what analyze would.";
    autovacuum_freeze_max_age: i64 = "200000000", Int { min: 100000, max: 2000000000 }, Plain, Postmaster,
        "Autovacuum",
        "Age of a table's oldest xid that forces a vacuum.";
    autovacuum_multixact_freeze_max_age: i64 = "400000000", Int { min: 10000, max: 2000000000 }, Plain, Postmaster,
        "Autovacuum",
        "Kept for clients that ask.";
    autovacuum_vacuum_cost_delay: f64 = "2ms", Real { min: -1.0, max: 100.0 }, Millis, Sighup,
        "Autovacuum",
        "Pause of autovacuum when its cost limit is used up; -1 takes vacuum_cost_delay.";
    autovacuum_vacuum_cost_limit: i64 = "-1", Int { min: -1, max: 10000 }, Plain, Sighup,
        "Autovacuum",
        "Cost limit of autovacuum; -1 takes vacuum_cost_limit.";
    vacuum_cost_delay: f64 = "0", Real { min: 0.0, max: 100.0 }, Millis, User,
        "Resource Usage / Cost-Based Vacuum Delay",
        "Pause of autovacuum whose own setting is -1; the command VACUUM does not pause.";
    vacuum_cost_limit: i64 = "200", Int { min: 1, max: 10000 }, Plain, User,
        "Resource Usage / Cost-Based Vacuum Delay",
        "Cost after which autovacuum pauses whose own setting is -1.";
    vacuum_cost_page_hit: i64 = "1", Int { min: 0, max: 10000 }, Plain, User,
        "Resource Usage / Cost-Based Vacuum Delay",
        "Cost of a page found in the pool.";
    vacuum_cost_page_miss: i64 = "2", Int { min: 0, max: 10000 }, Plain, User,
        "Resource Usage / Cost-Based Vacuum Delay",
        "Cost of a page read.";
    vacuum_cost_page_dirty: i64 = "20", Int { min: 0, max: 10000 }, Plain, User,
        "Resource Usage / Cost-Based Vacuum Delay",
        "Cost of a page made dirty.";
}
