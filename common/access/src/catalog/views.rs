//! The shape of the system views that show the node's state: names, columns and OIDs as PostgreSQL 15 has them.
//!
//! These have no files: `init` writes their pg_class and pg_attribute rows (relkind `v`), and sql computes their
//! rows from a provider when they are read.

use super::schema::SystemColumn;

/// One virtual view.
#[derive(Debug)]
pub struct SystemView {
    /// OID in pg_class.
    pub oid: u32,
    /// Name within the schema pg_catalog.
    pub name: &'static str,
    /// The columns, `name:type`, separated by spaces.
    pub columns: &'static str,
}

impl SystemView {
    /// The columns in attribute order.
    pub fn parsed_columns(&self) -> impl Iterator<Item = SystemColumn> {
        super::schema::parse_columns(self.columns)
    }
}

/// The virtual view called `name`.
pub fn system_view(name: &str) -> Option<&'static SystemView> {
    SYSTEM_VIEWS.iter().find(|view| view.name == name)
}

/// Every virtual view.
pub const SYSTEM_VIEWS: &[SystemView] = &[
    SystemView {
        oid: 12104,
        name: "pg_settings",
        columns: "name:text setting:text unit:text category:text short_desc:text extra_desc:text \
                  context:text vartype:text source:text min_val:text max_val:text enumvals:_text \
                  boot_val:text reset_val:text sourcefile:text sourceline:int4 pending_restart:bool",
    },
    SystemView {
        oid: 12000,
        name: "pg_roles",
        columns: "rolname:name rolsuper:bool rolinherit:bool rolcreaterole:bool rolcreatedb:bool \
                  rolcanlogin:bool rolreplication:bool rolconnlimit:int4 rolpassword:text \
                  rolvaliduntil:timestamptz rolbypassrls:bool rolconfig:_text oid:oid",
    },
    SystemView {
        oid: 12014,
        name: "pg_user",
        columns: "usename:name usesysid:oid usecreatedb:bool usesuper:bool userepl:bool usebypassrls:bool \
                  passwd:text valuntil:timestamptz useconfig:_text",
    },
    SystemView {
        oid: 12005,
        name: "pg_shadow",
        columns: "usename:name usesysid:oid usecreatedb:bool usesuper:bool userepl:bool usebypassrls:bool \
                  passwd:text valuntil:timestamptz useconfig:_text",
    },
    SystemView {
        oid: 12010,
        name: "pg_group",
        columns: "groname:name grosysid:oid grolist:_oid",
    },
    SystemView {
        oid: 12033,
        name: "pg_tables",
        columns: "schemaname:name tablename:name tableowner:name tablespace:name hasindexes:bool \
                  hasrules:bool hastriggers:bool rowsecurity:bool",
    },
    SystemView {
        oid: 12043,
        name: "pg_indexes",
        columns: "schemaname:name tablename:name indexname:name tablespace:name indexdef:text",
    },
    SystemView {
        oid: 12028,
        name: "pg_views",
        columns: "schemaname:name viewname:name viewowner:name definition:text",
    },
    SystemView {
        oid: 12222,
        name: "pg_stat_activity",
        columns: "datid:oid datname:name pid:int4 leader_pid:int4 usesysid:oid usename:name \
                  application_name:text client_addr:inet client_hostname:text client_port:int4 \
                  backend_start:timestamptz xact_start:timestamptz query_start:timestamptz \
                  state_change:timestamptz wait_event_type:text wait_event:text state:text backend_xid:xid \
                  backend_xmin:xid query_id:int8 query:text backend_type:text",
    },
    SystemView {
        oid: 12227,
        name: "pg_stat_replication",
        columns: "pid:int4 usesysid:oid usename:name application_name:text client_addr:inet \
                  client_hostname:text client_port:int4 backend_start:timestamptz backend_xmin:xid \
                  state:text sent_lsn:pg_lsn write_lsn:pg_lsn flush_lsn:pg_lsn replay_lsn:pg_lsn \
                  write_lag:interval flush_lag:interval replay_lag:interval sync_priority:int4 \
                  sync_state:text reply_time:timestamptz",
    },
    SystemView {
        oid: 12257,
        name: "pg_replication_slots",
        columns: "slot_name:name plugin:name slot_type:text datoid:oid database:name temporary:bool \
                  active:bool active_pid:int4 xmin:xid catalog_xmin:xid restart_lsn:pg_lsn \
                  confirmed_flush_lsn:pg_lsn wal_status:text safe_wal_size:int8 two_phase:bool",
    },
    SystemView {
        oid: 12073,
        name: "pg_locks",
        columns: "locktype:text database:oid relation:oid page:int4 tuple:int2 virtualxid:text \
                  transactionid:xid classid:oid objid:oid objsubid:int2 virtualtransaction:text pid:int4 \
                  mode:text granted:bool fastpath:bool waitstart:timestamptz",
    },
    SystemView {
        oid: 12266,
        name: "pg_stat_database",
        columns: "datid:oid datname:name numbackends:int4 xact_commit:int8 xact_rollback:int8 \
                  blks_read:int8 blks_hit:int8 tup_returned:int8 tup_fetched:int8 tup_inserted:int8 \
                  tup_updated:int8 tup_deleted:int8 conflicts:int8 temp_files:int8 temp_bytes:int8 \
                  deadlocks:int8 checksum_failures:int8 checksum_last_failure:timestamptz \
                  blk_read_time:float8 blk_write_time:float8 session_time:float8 active_time:float8 \
                  idle_in_transaction_time:float8 sessions:int8 sessions_abandoned:int8 \
                  sessions_fatal:int8 sessions_killed:int8 stats_reset:timestamptz",
    },
    SystemView {
        oid: 12161,
        name: "pg_stat_user_tables",
        columns: "relid:oid schemaname:name relname:name seq_scan:int8 seq_tup_read:int8 idx_scan:int8 \
                  idx_tup_fetch:int8 n_tup_ins:int8 n_tup_upd:int8 n_tup_del:int8 n_tup_hot_upd:int8 \
                  n_live_tup:int8 n_dead_tup:int8 n_mod_since_analyze:int8 n_ins_since_vacuum:int8 \
                  last_vacuum:timestamptz last_autovacuum:timestamptz last_analyze:timestamptz \
                  last_autoanalyze:timestamptz vacuum_count:int8 autovacuum_count:int8 analyze_count:int8 \
                  autoanalyze_count:int8",
    },
    SystemView {
        oid: 12142,
        name: "pg_stat_all_tables",
        columns: "relid:oid schemaname:name relname:name seq_scan:int8 seq_tup_read:int8 idx_scan:int8 \
                  idx_tup_fetch:int8 n_tup_ins:int8 n_tup_upd:int8 n_tup_del:int8 n_tup_hot_upd:int8 \
                  n_live_tup:int8 n_dead_tup:int8 n_mod_since_analyze:int8 n_ins_since_vacuum:int8 \
                  last_vacuum:timestamptz last_autovacuum:timestamptz last_analyze:timestamptz \
                  last_autoanalyze:timestamptz vacuum_count:int8 autovacuum_count:int8 analyze_count:int8 \
                  autoanalyze_count:int8",
    },
    SystemView {
        oid: 12236,
        name: "pg_stat_wal_receiver",
        columns: "pid:int4 status:text receive_start_lsn:pg_lsn receive_start_tli:int4 written_lsn:pg_lsn \
                  flushed_lsn:pg_lsn received_tli:int4 last_msg_send_time:timestamptz \
                  last_msg_receipt_time:timestamptz latest_end_lsn:pg_lsn latest_end_time:timestamptz \
                  slot_name:text sender_host:text sender_port:int4 conninfo:text",
    },
    SystemView {
        oid: 12289,
        name: "pg_stat_bgwriter",
        columns: "checkpoints_timed:int8 checkpoints_req:int8 checkpoint_write_time:float8 \
                  checkpoint_sync_time:float8 buffers_checkpoint:int8 buffers_clean:int8 \
                  maxwritten_clean:int8 buffers_backend:int8 buffers_backend_fsync:int8 buffers_alloc:int8 \
                  stats_reset:timestamptz",
    },
    SystemView {
        oid: 12126,
        name: "pg_timezone_names",
        columns: "name:text abbrev:text utc_offset:interval is_dst:bool",
    },
    SystemView {
        oid: 12095,
        name: "pg_prepared_statements",
        columns: "name:text statement:text prepare_time:timestamptz parameter_types:_text from_sql:bool \
                  generic_plans:int8 custom_plans:int8",
    },
    SystemView {
        oid: 12077,
        name: "pg_cursors",
        columns: "name:text statement:text is_holdable:bool is_binary:bool is_scrollable:bool \
                  creation_time:timestamptz",
    },
    SystemView {
        oid: 12110,
        name: "pg_file_settings",
        columns: "sourcefile:text sourceline:int4 seqno:int4 name:text setting:text applied:bool \
                  error:text",
    },
    SystemView {
        oid: 12114,
        name: "pg_hba_file_rules",
        columns: "line_number:int4 type:text database:_text user_name:_text address:text netmask:text \
                  auth_method:text options:_text error:text",
    },
    SystemView {
        oid: 12048,
        name: "pg_sequences",
        columns: "schemaname:name sequencename:name sequenceowner:name data_type:regtype start_value:int8 \
                  min_value:int8 max_value:int8 increment_by:int8 cycle:bool cache_size:int8 \
                  last_value:int8",
    },
    SystemView {
        oid: 12053,
        name: "pg_stats",
        columns: "schemaname:name tablename:name attname:name inherited:bool null_frac:float4 \
                  avg_width:int4 n_distinct:float4 most_common_vals:anyarray most_common_freqs:_float4 \
                  histogram_bounds:anyarray correlation:float4 most_common_elems:anyarray \
                  most_common_elem_freqs:_float4 elem_count_histogram:_float4",
    },
    SystemView {
        oid: 12038,
        name: "pg_matviews",
        columns: "schemaname:name matviewname:name matviewowner:name tablespace:name hasindexes:bool \
                  ispopulated:bool definition:text",
    },
    SystemView {
        oid: 12023,
        name: "pg_rules",
        columns: "schemaname:name tablename:name rulename:name definition:text",
    },
    SystemView {
        oid: 12018,
        name: "pg_policies",
        columns: "schemaname:name tablename:name policyname:name permissive:text roles:_name cmd:text \
                  qual:text with_check:text",
    },
    SystemView {
        oid: 12081,
        name: "pg_available_extensions",
        columns: "name:name default_version:text installed_version:text comment:text",
    },
    SystemView {
        oid: 12293,
        name: "pg_stat_wal",
        columns: "wal_records:int8 wal_fpi:int8 wal_bytes:numeric wal_buffers_full:int8 wal_write:int8 \
                  wal_sync:int8 wal_write_time:float8 wal_sync_time:float8 stats_reset:timestamptz",
    },
    SystemView {
        oid: 12317,
        name: "pg_stat_progress_basebackup",
        columns: "pid:int4 phase:text backup_total:int8 backup_streamed:int8 tablespaces_total:int8 \
                  tablespaces_streamed:int8",
    },
];
