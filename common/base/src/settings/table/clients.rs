//! Defaults of client connections, locks, compatibility, and the rest.

super::settings_table! {
    begins at super::maintenance::END;

    vacuum_freeze_min_age: i64 = "50000000", Int { min: 0, max: 1000000000 }, Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Age from which vacuum freezes rows of the pages it visits.";
    vacuum_freeze_table_age: i64 = "150000000", Int { min: 0, max: 2000000000 }, Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Age from which vacuum visits every page not frozen.";
    vacuum_failsafe_age: i64 = "1600000000", Int { min: 0, max: 2100000000 }, Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Kept for clients that ask: VACUUM needs no xid for what it must do.";
    vacuum_multixact_freeze_min_age: i64 = "5000000", Int { min: 0, max: 1000000000 }, Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Kept for clients that ask.";
    vacuum_multixact_freeze_table_age: i64 = "150000000", Int { min: 0, max: 2000000000 }, Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Kept for clients that ask.";
    client_min_messages: &'static str = "notice", Enum(&["debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error"]), Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Least severe message that is sent to the client.";
    search_path: Arc<str> = "\"$user\", public", Text(checks::any), Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Schemas in which unqualified names are looked up.";
    row_security: bool = "on", Bool, Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Kept for clients that ask; there are no row policies.";
    default_tablespace: Arc<str> = "", Text(checks::any), Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Kept for clients that ask; there is one tablespace.";
    temp_tablespaces: Arc<str> = "", Text(checks::any), Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Kept for clients that ask.";
    default_table_access_method: &'static str = "heap", Enum(&["heap"]), Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "How tables are stored.";
    default_toast_compression: &'static str = "pglz", Enum(&["pglz", "lz4"]), Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "How large values are compressed.";
    check_function_bodies: bool = "on", Bool, Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Kept for clients that ask.";
    default_transaction_isolation: &'static str = "read committed", Enum(&["read uncommitted", "read committed", "repeatable read"]), Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Isolation level of new transactions.";
    default_transaction_read_only: bool = "off", Bool, Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Whether new transactions are read-only.";
    default_transaction_deferrable: bool = "off", Bool, Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Kept for clients that ask.";
    transaction_isolation: &'static str = "read committed", Enum(&["read uncommitted", "read committed", "repeatable read", "serializable"]), Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Isolation level of the current transaction.";
    transaction_read_only: bool = "off", Bool, Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Whether the current transaction is read-only.";
    transaction_deferrable: bool = "off", Bool, Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Kept for clients that ask.";
    session_replication_role: &'static str = "origin", Enum(&["origin", "replica", "local"]), Plain, Superuser,
        "Client Connection Defaults / Statement Behavior",
        "Kept for clients that ask.";
    statement_timeout: i64 = "0", Int { min: 0, max: 2147483647 }, Millis, User,
        "Client Connection Defaults / Statement Behavior",
        "Time after which a statement is cancelled; 0 never.";
    lock_timeout: i64 = "0", Int { min: 0, max: 2147483647 }, Millis, User,
        "Client Connection Defaults / Statement Behavior",
        "Time after which a wait for a lock is given up; 0 never.";
    idle_in_transaction_session_timeout: i64 = "0", Int { min: 0, max: 2147483647 }, Millis, User,
        "Client Connection Defaults / Statement Behavior",
        "Time after which a session idle in a transaction is ended; 0 never.";
    idle_session_timeout: i64 = "0", Int { min: 0, max: 2147483647 }, Millis, User,
        "Client Connection Defaults / Statement Behavior",
        "Time after which an idle session is ended; 0 never.";
    bytea_output: &'static str = "hex", Enum(&["escape", "hex"]), Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "How bytea is printed.";
    xmlbinary: &'static str = "base64", Enum(&["base64", "hex"]), Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Kept for clients that ask.";
    xmloption: &'static str = "content", Enum(&["content", "document"]), Plain, User,
        "Client Connection Defaults / Statement Behavior",
        "Kept for clients that ask.";
    gin_pending_list_limit: i64 = "4MB", Int { min: 64, max: 2147483647 }, Kilobytes, User,
        "Client Connection Defaults / Statement Behavior",
        "Kept for clients that ask.";
    DateStyle: Arc<str> = "ISO, MDY", Text(checks::date_style), Plain, User,
        "Client Connection Defaults / Locale and Formatting",
        "How dates are printed and read.";
    IntervalStyle: &'static str = "postgres", Enum(&["postgres", "postgres_verbose", "sql_standard", "iso_8601"]), Plain, User,
        "Client Connection Defaults / Locale and Formatting",
        "How intervals are printed.";
    TimeZone: Arc<str> = "Etc/UTC", Text(checks::time_zone), Plain, User,
        "Client Connection Defaults / Locale and Formatting",
        "Time zone in which timestamps are printed and read.";
    timezone_abbreviations: Arc<str> = "Default", Text(checks::any), Plain, User,
        "Client Connection Defaults / Locale and Formatting",
        "Kept for clients that ask.";
    extra_float_digits: i64 = "1", Int { min: -15, max: 3 }, Plain, User,
        "Client Connection Defaults / Locale and Formatting",
        "Digits of floating-point numbers: above 0 the shortest exact form.";
    client_encoding: Arc<str> = "UTF8", Text(checks::encoding), Plain, User,
        "Client Connection Defaults / Locale and Formatting",
        "Encoding of the client; only UTF8.";
    lc_messages: Arc<str> = "C", Text(checks::any), Plain, Superuser,
        "Client Connection Defaults / Locale and Formatting",
        "Language of messages.";
    lc_monetary: Arc<str> = "C", Text(checks::any), Plain, User,
        "Client Connection Defaults / Locale and Formatting",
        "Formatting of money.";
    lc_numeric: Arc<str> = "C", Text(checks::any), Plain, User,
        "Client Connection Defaults / Locale and Formatting",
        "Formatting of numbers.";
    lc_time: Arc<str> = "C", Text(checks::any), Plain, User,
        "Client Connection Defaults / Locale and Formatting",
        "Formatting of dates.";
    default_text_search_config: Arc<str> = "pg_catalog.simple", Text(checks::any), Plain, User,
        "Client Connection Defaults / Locale and Formatting",
        "Kept for clients that ask.";
    application_name: Arc<str> = "", Text(checks::application_name), Plain, User,
        "Client Connection Defaults / Other Defaults",
        "Name of the client, for people.";
    dynamic_library_path: Arc<str> = "$libdir", Text(checks::any), Plain, Superuser,
        "Client Connection Defaults / Other Defaults",
        "Kept for clients that ask.";
    local_preload_libraries: Arc<str> = "", Text(checks::any), Plain, Backend,
        "Client Connection Defaults / Other Defaults",
        "Kept for clients that ask.";
    session_preload_libraries: Arc<str> = "", Text(checks::any), Plain, Superuser,
        "Client Connection Defaults / Other Defaults",
        "Kept for clients that ask.";
    shared_preload_libraries: Arc<str> = "", Text(checks::any), Plain, Postmaster,
        "Client Connection Defaults / Other Defaults",
        "Kept for clients that ask.";
    deadlock_timeout: i64 = "1s", Int { min: 1, max: 2147483647 }, Millis, Superuser,
        "Lock Management",
        "Time that a lock is waited for before looking for a deadlock.";
    max_locks_per_transaction: i64 = "64", Int { min: 10, max: 2147483647 }, Plain, Postmaster,
        "Lock Management",
        "Locks of a transaction for which room is kept, on average.";
    max_prepared_transactions: i64 = "0", Int { min: 0, max: 262143 }, Plain, Postmaster,
        "Lock Management",
        "Prepared transactions; there are none.";
    standard_conforming_strings: bool = "on", Bool, Plain, User,
        "Version and Platform Compatibility",
        "Whether backslashes in ordinary strings are ordinary.";
    backslash_quote: &'static str = "safe_encoding", Enum(&["safe_encoding", "on", "off"]), Plain, User,
        "Version and Platform Compatibility",
        "Whether a backslash may escape a quote.";
    escape_string_warning: bool = "on", Bool, Plain, User,
        "Version and Platform Compatibility",
        "Whether backslashes in ordinary strings are warned of.";
    quote_all_identifiers: bool = "off", Bool, Plain, User,
        "Version and Platform Compatibility",
        "Whether generated SQL quotes every identifier.";
    array_nulls: bool = "on", Bool, Plain, User,
        "Version and Platform Compatibility",
        "Whether NULL in an array's text is a null.";
    transform_null_equals: bool = "off", Bool, Plain, User,
        "Version and Platform Compatibility",
        "Whether x = NULL means x IS NULL.";
    synchronize_seqscans: bool = "on", Bool, Plain, User,
        "Version and Platform Compatibility",
        "Whether scans of one table join each other.";
    lo_compat_privileges: bool = "off", Bool, Plain, Superuser,
        "Version and Platform Compatibility",
        "Kept for clients that ask.";
    default_with_oids: bool = "off", Bool, Plain, User,
        "Version and Platform Compatibility",
        "Kept for clients that ask; always off.";
    exit_on_error: bool = "off", Bool, Plain, User,
        "Error Handling",
        "Whether any error ends the session.";
    restart_after_crash: bool = "on", Bool, Plain, Sighup,
        "Error Handling",
        "Kept for clients that ask.";
    data_sync_retry: bool = "off", Bool, Plain, Postmaster,
        "Error Handling",
        "Whether a failed sync is tried again; never.";
    towline__last_commit_lsn ("towline.last_commit_lsn"): Arc<str> = "", Text(checks::any), Plain, Internal,
        "Customized Options",
        "Timeline and position of this session's last commit.";
    towline__node_name ("towline.node_name"): Arc<str> = "", Text(checks::any), Plain, Internal,
        "Customized Options",
        "Name of this node.";
    data_directory: Arc<str> = "", Text(checks::any), Plain, Internal,
        "File Locations",
        "Where this node keeps its data.";
    config_file: Arc<str> = "", Text(checks::any), Plain, Internal,
        "File Locations",
        "The configuration file in use.";
    hba_file: Arc<str> = "", Text(checks::any), Plain, Internal,
        "File Locations",
        "The file with the login rules in use.";
    ignore_checksum_failure: bool = "off", Bool, Plain, Superuser,
        "Developer Options",
        "Whether damaged pages are read anyway.";
    zero_damaged_pages: bool = "off", Bool, Plain, Superuser,
        "Developer Options",
        "Whether damaged pages are taken for empty.";
    allow_system_table_mods: bool = "off", Bool, Plain, Superuser,
        "Developer Options",
        "Whether the catalog may be changed by hand.";
    ignore_system_indexes: bool = "off", Bool, Plain, Backend,
        "Developer Options",
        "Kept for clients that ask.";
}
