//! The rows of the catalog's virtual views: the state of sessions, settings, replication, and lists made from the catalog.
//!
//! A view's columns come from the catalog; each provider names the values it has, the rest is NULL.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use towline_access::SessionState;
use towline_access::catalog::{RelationKind, Table};
use towline_base::Lsn;
use towline_base::settings::{Kind, is_secluded};
use towline_types::{ArrayValue, Datum, Interval, TypeId};

use super::context::SessionContext;
use crate::error::SqlError;
use crate::exec::{Row, Views};
use crate::expr::FunctionContext;

/// One row as names and values.
type Named = Vec<(&'static str, Datum)>;

fn text(value: &str) -> Datum {
    Datum::text(value)
}

fn optional(value: Option<&str>) -> Datum {
    value.map_or(Datum::Null, Datum::text)
}

fn time(value: Option<i64>) -> Datum {
    value.map_or(Datum::Null, Datum::TimestampTz)
}

fn lag(micros: Option<i64>) -> Datum {
    micros.map_or(Datum::Null, |micros| {
        Datum::Interval(Interval {
            months: 0,
            days: 0,
            micros,
        })
    })
}

fn lsn(value: Option<Lsn>) -> Datum {
    value.map_or(Datum::Null, Datum::PgLsn)
}

impl Views for SessionContext<'_> {
    fn rows(&self, view: &Table) -> Result<Vec<Row>, SqlError> {
        let named = match &*view.name {
            "pg_settings" => self.settings_rows(),
            "pg_roles" => self.roles(),
            "pg_user" | "pg_shadow" => self.users(&view.name),
            "pg_tables" => self.tables(),
            "pg_indexes" => self.indexes(),
            "pg_stat_activity" => self.activity(),
            "pg_stat_replication" => self.replication(),
            "pg_replication_slots" => self.slots(),
            "pg_stat_wal_receiver" => self.receiver(),
            "pg_prepared_statements" => self.prepared(),
            "pg_stat_user_tables" | "pg_stat_all_tables" => self.table_statistics(view.name.contains("user")),
            "pg_stat_database" => self.database(),
            "pg_stat_wal" => self.wal(),
            "pg_stat_bgwriter" => self.background_writer(),
            _ => Vec::new(),
        };
        Ok(named.into_iter().map(|row| arrange(view, row)).collect())
    }
}

/// Puts named values into the order of the view's columns.
fn arrange(view: &Table, row: Named) -> Row {
    view.columns
        .iter()
        .map(|column| {
            row.iter()
                .find(|(name, _)| *name == &*column.name)
                .map_or(Datum::Null, |(_, value)| value.clone())
        })
        .collect()
}

impl SessionContext<'_> {
    fn user_oid(&self, name: &str) -> Datum {
        self.view
            .role(name)
            .map_or(Datum::Null, |role| Datum::Oid(role.oid.0))
    }

    fn owner(&self, oid: towline_base::Oid) -> Datum {
        self.view
            .role_by_oid(oid)
            .map_or(Datum::Null, |role| text(&role.name))
    }

    fn settings_rows(&self) -> Vec<Named> {
        let rows = self.session.settings.borrow().node().rows();
        rows.into_iter()
            .filter(|row| self.session.role.superuser || !is_secluded(row.def.name))
            .map(|row| {
                let def = row.def;
                let shown = self.session.show(def.name).unwrap_or_default();
                let own = shown != row.value.show(def);
                let raw = if own { shown } else { row.value.raw() };
                let (low, high, values) = match &def.kind {
                    Kind::Int { min, max } => (Some(min.to_string()), Some(max.to_string()), None),
                    Kind::Real { min, max } => (Some(min.to_string()), Some(max.to_string()), None),
                    Kind::Enum(values) => (None, None, Some(*values)),
                    Kind::Bool | Kind::Text(_) => (None, None, None),
                };
                let values = values.map_or(Datum::Null, |values| {
                    let values = values.iter().map(|value| text(value)).collect();
                    Datum::Array(Arc::new(ArrayValue::new(TypeId::Text, values)))
                });
                vec![
                    ("name", text(def.name)),
                    ("setting", text(&raw)),
                    ("unit", optional(def.unit.name())),
                    ("category", text(def.category)),
                    ("short_desc", text(def.description)),
                    ("context", text(def.context.name())),
                    ("vartype", text(def.kind.name())),
                    ("source", text(if own { "session" } else { row.source.name() })),
                    ("min_val", optional(low.as_deref())),
                    ("max_val", optional(high.as_deref())),
                    ("enumvals", values),
                    ("boot_val", text(def.default)),
                    ("reset_val", text(&row.value.raw())),
                    ("pending_restart", Datum::Bool(row.pending_restart)),
                ]
            })
            .collect()
    }

    fn roles(&self) -> Vec<Named> {
        let mut roles: Vec<_> = self.view.roles().cloned().collect();
        roles.sort_by_key(|role| role.oid.0);
        roles
            .iter()
            .map(|role| {
                vec![
                    ("rolname", text(&role.name)),
                    ("rolsuper", Datum::Bool(role.superuser)),
                    ("rolinherit", Datum::Bool(role.inherit)),
                    ("rolcreaterole", Datum::Bool(role.create_role)),
                    ("rolcreatedb", Datum::Bool(role.create_database)),
                    ("rolcanlogin", Datum::Bool(role.can_login)),
                    ("rolreplication", Datum::Bool(role.replication)),
                    ("rolconnlimit", Datum::Int4(role.connection_limit)),
                    ("rolpassword", text("********")),
                    ("rolvaliduntil", time(role.valid_until)),
                    ("rolbypassrls", Datum::Bool(role.bypass_row_security)),
                    ("oid", Datum::Oid(role.oid.0)),
                ]
            })
            .collect()
    }

    fn users(&self, view: &str) -> Vec<Named> {
        let mut roles: Vec<_> = self.view.roles().filter(|role| role.can_login).cloned().collect();
        roles.sort_by_key(|role| role.oid.0);
        let shadow = view == "pg_shadow" && self.session.role.superuser;
        roles
            .iter()
            .map(|role| {
                vec![
                    ("usename", text(&role.name)),
                    ("usesysid", Datum::Oid(role.oid.0)),
                    ("usecreatedb", Datum::Bool(role.create_database)),
                    ("usesuper", Datum::Bool(role.superuser)),
                    ("userepl", Datum::Bool(role.replication)),
                    ("usebypassrls", Datum::Bool(role.bypass_row_security)),
                    (
                        "passwd",
                        if shadow {
                            optional(role.password.as_deref())
                        } else {
                            text("********")
                        },
                    ),
                    ("valuntil", time(role.valid_until)),
                ]
            })
            .collect()
    }

    fn stored_tables(&self) -> Vec<Arc<Table>> {
        let mut tables: Vec<_> = self
            .view
            .tables()
            .filter(|table| table.kind == RelationKind::Table)
            .cloned()
            .collect();
        tables.sort_by_key(|table| table.oid.0);
        tables
    }

    fn tables(&self) -> Vec<Named> {
        self.stored_tables()
            .iter()
            .map(|table| {
                vec![
                    ("schemaname", text(&table.schema_name)),
                    ("tablename", text(&table.name)),
                    ("tableowner", self.owner(table.owner)),
                    ("hasindexes", Datum::Bool(!table.indexes.is_empty())),
                    ("hasrules", Datum::Bool(false)),
                    ("hastriggers", Datum::Bool(false)),
                    ("rowsecurity", Datum::Bool(false)),
                ]
            })
            .collect()
    }

    fn indexes(&self) -> Vec<Named> {
        let mut rows = Vec::new();
        for table in self.stored_tables() {
            for index in &table.indexes {
                rows.push(vec![
                    ("schemaname", text(&table.schema_name)),
                    ("tablename", text(&table.name)),
                    ("indexname", text(&index.name)),
                    (
                        "indexdef",
                        self.index_definition(index.oid.0, 0)
                            .as_deref()
                            .map_or(Datum::Null, text),
                    ),
                ]);
            }
        }
        rows
    }

    fn activity(&self) -> Vec<Named> {
        let sessions = self.session.engine.sessions().rows();
        sessions
            .iter()
            .map(|row| {
                let idle =
                    row.state == SessionState::Idle && row.query.is_empty() && row.state_change.is_none();
                vec![
                    ("datid", Datum::Oid(towline_access::DATABASE_OID)),
                    ("datname", text(&row.database)),
                    ("pid", Datum::Int4(row.pid)),
                    ("usesysid", self.user_oid(&row.user)),
                    ("usename", text(&row.user)),
                    ("application_name", text(&row.application_name)),
                    (
                        "client_addr",
                        optional(Some(row.client_addr.as_str()).filter(|address| !address.is_empty())),
                    ),
                    ("client_port", Datum::Int4(row.client_port)),
                    ("backend_start", Datum::TimestampTz(row.backend_start)),
                    ("xact_start", time(row.xact_start)),
                    ("query_start", time(row.query_start)),
                    ("state_change", time(row.state_change)),
                    ("wait_event_type", optional(row.wait_event.map(|(kind, _)| kind))),
                    ("wait_event", optional(row.wait_event.map(|(_, event)| event))),
                    (
                        "state",
                        if idle {
                            Datum::Null
                        } else {
                            text(row.state.as_str())
                        },
                    ),
                    ("backend_xid", row.backend_xid.map_or(Datum::Null, Datum::Xid)),
                    ("query", text(&row.query)),
                    ("backend_type", text(row.backend_type)),
                ]
            })
            .collect()
    }

    fn replication(&self) -> Vec<Named> {
        let Some(cluster) = self.session.engine.cluster() else {
            return Vec::new();
        };
        cluster
            .replication()
            .iter()
            .map(|row| {
                vec![
                    ("pid", Datum::Int4(row.pid)),
                    ("usesysid", self.user_oid(&row.user)),
                    ("usename", text(&row.user)),
                    ("application_name", text(&row.application_name)),
                    (
                        "client_addr",
                        optional(Some(row.client_addr.as_str()).filter(|address| !address.is_empty())),
                    ),
                    ("client_port", Datum::Int4(-1)),
                    ("backend_start", Datum::TimestampTz(row.backend_start)),
                    ("state", text(&row.state)),
                    ("sent_lsn", Datum::PgLsn(row.sent_lsn)),
                    ("write_lsn", Datum::PgLsn(row.write_lsn)),
                    ("flush_lsn", Datum::PgLsn(row.flush_lsn)),
                    ("replay_lsn", Datum::PgLsn(row.replay_lsn)),
                    ("write_lag", lag(row.write_lag)),
                    ("flush_lag", lag(row.flush_lag)),
                    ("replay_lag", lag(row.replay_lag)),
                    ("sync_priority", Datum::Int4(row.sync_priority)),
                    ("sync_state", text(&row.sync_state)),
                    ("reply_time", time(row.reply_time)),
                ]
            })
            .collect()
    }

    fn slots(&self) -> Vec<Named> {
        let Some(cluster) = self.session.engine.cluster() else {
            return Vec::new();
        };
        cluster
            .slots()
            .iter()
            .map(|row| {
                vec![
                    ("slot_name", text(&row.name)),
                    ("slot_type", text("physical")),
                    ("temporary", Datum::Bool(false)),
                    ("active", Datum::Bool(row.active)),
                    ("active_pid", row.active_pid.map_or(Datum::Null, Datum::Int4)),
                    ("restart_lsn", lsn(row.restart_lsn)),
                    ("wal_status", text(&row.wal_status)),
                    (
                        "safe_wal_size",
                        row.safe_wal_size.map_or(Datum::Null, Datum::Int8),
                    ),
                    ("two_phase", Datum::Bool(false)),
                ]
            })
            .collect()
    }

    fn receiver(&self) -> Vec<Named> {
        let row = self
            .session
            .engine
            .cluster()
            .and_then(|cluster| cluster.receiver());
        row.iter()
            .map(|row| {
                vec![
                    ("pid", Datum::Int4(0)),
                    ("status", text(&row.status)),
                    ("receive_start_lsn", Datum::PgLsn(row.receive_start_lsn)),
                    ("written_lsn", Datum::PgLsn(row.written_lsn)),
                    ("flushed_lsn", Datum::PgLsn(row.flushed_lsn)),
                    (
                        "received_tli",
                        Datum::Int4(i32::try_from(row.received_timeline).unwrap_or(i32::MAX)),
                    ),
                    ("last_msg_receipt_time", time(row.last_message_time)),
                    ("sender_host", text(&row.sender)),
                ]
            })
            .collect()
    }

    fn prepared(&self) -> Vec<Named> {
        let mut names: Vec<_> = self.session.statements.iter().collect();
        names.sort_by_key(|(name, _)| name.as_str());
        names
            .into_iter()
            .map(|(name, statement)| {
                let types = statement.params.iter().map(|ty| Datum::Oid(ty.oid())).collect();
                vec![
                    ("name", text(name)),
                    ("statement", text(&statement.text)),
                    (
                        "parameter_types",
                        Datum::Array(Arc::new(ArrayValue::new(TypeId::Regtype, types))),
                    ),
                ]
            })
            .collect()
    }

    /// What was done to each table since the start; on a standby only what its own readers know, which is little.
    fn table_statistics(&self, user: bool) -> Vec<Named> {
        self.stored_tables()
            .iter()
            .filter(|table| !user || !table.is_system())
            .map(|table| {
                let counts = table.activity.counts();
                let number = |count: u64| Datum::Int8(i64::try_from(count).unwrap_or(i64::MAX));
                vec![
                    ("relid", Datum::Oid(table.oid.0)),
                    ("schemaname", text(&table.schema_name)),
                    ("relname", text(&table.name)),
                    ("n_tup_ins", number(counts.inserted)),
                    ("n_tup_upd", number(counts.updated)),
                    ("n_tup_del", number(counts.deleted)),
                    ("n_tup_hot_upd", number(counts.hot_updated)),
                    ("n_live_tup", number(counts.live)),
                    ("n_dead_tup", number(counts.dead)),
                    ("n_mod_since_analyze", number(counts.changed_since_analyze)),
                    ("n_ins_since_vacuum", number(counts.inserted_since_vacuum)),
                    ("last_vacuum", time(counts.vacuum.0)),
                    ("last_autovacuum", time(counts.autovacuum.0)),
                    ("last_analyze", time(counts.analyze.0)),
                    ("vacuum_count", number(counts.vacuum.1)),
                    ("autovacuum_count", number(counts.autovacuum.1)),
                    ("analyze_count", number(counts.analyze.1)),
                    // No autovacuum analyzes: vacuum counts what there is to count.
                    ("autoanalyze_count", Datum::Int8(0)),
                ]
            })
            .collect()
    }

    /// Syncs are counted; the other columns are unknown (NULL). A standby writes no log of its own: no row.
    fn wal(&self) -> Vec<Named> {
        let Ok(wal) = self.session.engine.storage().wal() else {
            return Vec::new();
        };
        let syncs = i64::try_from(wal.sync_count()).unwrap_or(i64::MAX);
        vec![vec![("wal_sync", Datum::Int8(syncs))]]
    }

    /// Checkpoints (on a standby: restartpoints) and who wrote pages, since the start.
    fn background_writer(&self) -> Vec<Named> {
        let storage = self.session.engine.storage();
        let (checkpoints, pool) = (storage.checkpoints(), storage.pool().counters());
        let count = |counter: &AtomicU64| {
            Datum::Int8(i64::try_from(counter.load(Ordering::Relaxed)).unwrap_or(i64::MAX))
        };
        let millis = |micros: &AtomicU64| Datum::Float8(micros.load(Ordering::Relaxed) as f64 / 1000.0);
        vec![vec![
            ("checkpoints_timed", count(&checkpoints.timed)),
            ("checkpoints_req", count(&checkpoints.requested)),
            ("checkpoint_write_time", millis(&checkpoints.write_micros)),
            ("checkpoint_sync_time", millis(&checkpoints.sync_micros)),
            ("buffers_checkpoint", count(&checkpoints.buffers)),
            ("buffers_clean", count(&pool.cleaned)),
            ("maxwritten_clean", count(&pool.clean_rounds_cut)),
            ("buffers_backend", count(&pool.evicted_dirty)),
            // A session never syncs a data file.
            ("buffers_backend_fsync", Datum::Int8(0)),
            ("buffers_alloc", count(&pool.allocated)),
        ]]
    }

    fn database(&self) -> Vec<Named> {
        let backends = i32::try_from(self.session.engine.sessions().len()).unwrap_or(i32::MAX);
        vec![vec![
            ("datid", Datum::Oid(towline_access::DATABASE_OID)),
            ("datname", text("postgres")),
            ("numbackends", Datum::Int4(backends)),
        ]]
    }
}
