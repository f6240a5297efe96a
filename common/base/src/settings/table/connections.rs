//! What a node tells of itself, and its connections.

super::settings_table! {
    begins at 0;

    server_version: Arc<str> = "15.18 (Towline 0.1)", Text(checks::any), Plain, Internal,
        "Preset Options",
        "Version that clients see: the PostgreSQL release whose formats and behaviour we follow, and ours.";
    server_version_num: i64 = "150018", Int { min: 150018, max: 150018 }, Plain, Internal,
        "Preset Options",
        "The same PostgreSQL release as a number.";
    server_encoding: Arc<str> = "UTF8", Text(checks::any), Plain, Internal,
        "Preset Options",
        "Encoding of stored text.";
    integer_datetimes: bool = "on", Bool, Plain, Internal,
        "Preset Options",
        "Whether timestamps are 64-bit integers; always.";
    data_checksums: bool = "on", Bool, Plain, Internal,
        "Preset Options",
        "Whether data pages carry checksums.";
    block_size: i64 = "8192", Int { min: 8192, max: 8192 }, Plain, Internal,
        "Preset Options",
        "Bytes in a data page.";
    wal_block_size: i64 = "8192", Int { min: 8192, max: 8192 }, Plain, Internal,
        "Preset Options",
        "Bytes in a WAL page.";
    segment_size: i64 = "131072", Int { min: 131072, max: 131072 }, Blocks, Internal,
        "Preset Options",
        "Size of one file of a relation.";
    wal_segment_size: i64 = "16777216", Int { min: 1048576, max: 1073741824 }, Bytes, Internal,
        "Preset Options",
        "Size of one WAL segment; chosen by init.";
    max_identifier_length: i64 = "63", Int { min: 63, max: 63 }, Plain, Internal,
        "Preset Options",
        "Longest identifier, in bytes.";
    max_index_keys: i64 = "32", Int { min: 32, max: 32 }, Plain, Internal,
        "Preset Options",
        "Most key columns of an index.";
    max_function_args: i64 = "100", Int { min: 100, max: 100 }, Plain, Internal,
        "Preset Options",
        "Most arguments of a function.";
    debug_assertions: bool = "off", Bool, Plain, Internal,
        "Preset Options",
        "Whether the build checks C-style assertions; ours are always on.";
    lc_collate: Arc<str> = "C", Text(checks::any), Plain, Internal,
        "Preset Options",
        "Collation of text.";
    lc_ctype: Arc<str> = "C", Text(checks::any), Plain, Internal,
        "Preset Options",
        "Character classification of text.";
    in_hot_standby: bool = "off", Bool, Plain, Internal,
        "Preset Options",
        "Whether this node is a standby.";
    is_superuser: bool = "on", Bool, Plain, Internal,
        "Preset Options",
        "Whether the session user is a superuser.";
    session_authorization: Arc<str> = "postgres", Text(checks::any), Plain, Internal,
        "Preset Options",
        "The session user.";
    role: Arc<str> = "none", Text(checks::any), Plain, User,
        "Preset Options",
        "The current role.";
    listen_addresses: Arc<str> = "localhost", Text(checks::any), Plain, Postmaster,
        "Connections and Authentication / Connection Settings",
        "Addresses on which SQL clients are served.";
    port: i64 = "5432", Int { min: 0, max: 65535 }, Plain, Postmaster,
        "Connections and Authentication / Connection Settings",
        "TCP port for SQL clients.";
    max_connections: i64 = "100", Int { min: 1, max: 262143 }, Plain, Postmaster,
        "Connections and Authentication / Connection Settings",
        "Most SQL sessions at a time.";
    superuser_reserved_connections: i64 = "3", Int { min: 0, max: 262143 }, Plain, Postmaster,
        "Connections and Authentication / Connection Settings",
        "Sessions kept free for superusers.";
    tcp_keepalives_idle: i64 = "0", Int { min: 0, max: 2147483647 }, Seconds, User,
        "Connections and Authentication / Connection Settings",
        "Idle time before TCP probes a client; 0 leaves it to the system.";
    tcp_keepalives_interval: i64 = "0", Int { min: 0, max: 2147483647 }, Seconds, User,
        "Connections and Authentication / Connection Settings",
        "Time between TCP probes; 0 leaves it to the system.";
    tcp_keepalives_count: i64 = "0", Int { min: 0, max: 2147483647 }, Plain, User,
        "Connections and Authentication / Connection Settings",
        "TCP probes before a client is taken for gone; 0 leaves it to the system.";
    tcp_user_timeout: i64 = "0", Int { min: 0, max: 2147483647 }, Millis, User,
        "Connections and Authentication / Connection Settings",
        "Time that sent data may stay unacknowledged; 0 leaves it to the system.";
    authentication_timeout: i64 = "60", Int { min: 1, max: 600 }, Seconds, Sighup,
        "Connections and Authentication / Connection Settings",
        "Time in which a client must log in.";
    client_connection_check_interval: i64 = "0", Int { min: 0, max: 2147483647 }, Millis, User,
        "Connections and Authentication / Connection Settings",
        "How often a running statement looks whether its client is still there.";
    unix_socket_directories: Arc<str> = "", Text(checks::any), Plain, Postmaster,
        "Connections and Authentication / Connection Settings",
        "Directories of Unix sockets; none are served.";
    password_encryption: &'static str = "scram-sha-256", Enum(&["scram-sha-256"]), Plain, User,
        "Connections and Authentication / Authentication",
        "How new passwords are stored.";
    cluster_secret_file: Arc<str> = "", Text(checks::any), Plain, Postmaster,
        "Connections and Authentication / Authentication",
        "File with the secret that nodes of the cluster show each other; needed beyond loopback.";
    ssl: bool = "off", Bool, Plain, Sighup,
        "Connections and Authentication / Authentication",
        "Whether SQL clients may use TLS.";
    ssl_cert_file: Arc<str> = "server.crt", Text(checks::any), Plain, Sighup,
        "Connections and Authentication / Authentication",
        "Certificate chain for TLS.";
    ssl_key_file: Arc<str> = "server.key", Text(checks::any), Plain, Sighup,
        "Connections and Authentication / Authentication",
        "Private key for TLS.";
}
