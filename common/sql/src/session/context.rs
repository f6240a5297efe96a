//! The session and the engine as functions see them.

use std::fmt::Write;
use std::time::Duration;

use towline_access::Interrupt;
use towline_access::catalog::{CatalogView, Index, Relation, Table};
use towline_access::csn::XidStatus;
use towline_base::{ForkKind, Lsn, Oid, SqlState, Xid};
use towline_types::{Datum, TypeId};

use super::Session;
use crate::error::{Notice, Severity, SqlError};
use crate::expr::FunctionContext;
use crate::parse::keywords;

/// A session with the catalog its statement sees.
pub(crate) struct SessionContext<'a> {
    pub(super) session: &'a Session,
    pub(super) view: &'a CatalogView,
}

impl<'a> SessionContext<'a> {
    pub(crate) fn new(session: &'a Session, view: &'a CatalogView) -> Self {
        SessionContext { session, view }
    }

    fn is_searched(&self, schema: &str) -> bool {
        schema == "pg_catalog" || self.session.search_path().iter().any(|name| name == schema)
    }

    /// A relation's name, qualified if the search path does not find it.
    pub(crate) fn relation_name(&self, schema: Oid, name: &str) -> String {
        let schema = self
            .view
            .schema_by_oid(schema)
            .map_or_else(String::new, |schema| schema.name.to_string());
        if self.is_searched(&schema) {
            quote_ident(name)
        } else {
            format!("{}.{}", quote_ident(&schema), quote_ident(name))
        }
    }

    fn table_of(&self, index: &Index) -> Option<&std::sync::Arc<Table>> {
        self.view.table(index.table)
    }

    fn relation_node(
        &self,
        relation: u32,
    ) -> Option<(towline_base::RelFileNode, Option<&std::sync::Arc<Table>>)> {
        match self.view.relation(Oid(relation))? {
            Relation::Table(table) if table.kind == towline_access::catalog::RelationKind::View => None,
            Relation::Table(table) => Some((table.node, Some(table))),
            Relation::Index(index) => Some((index.node, None)),
        }
    }

    fn fork_bytes(&self, node: towline_base::RelFileNode, fork: ForkKind) -> Result<i64, SqlError> {
        let blocks = self.session.engine.storage().nblocks(node, fork).unwrap_or(0);
        Ok(i64::from(blocks) * towline_base::PAGE_SIZE as i64)
    }

    fn key_columns(&self, index: &Index) -> Vec<String> {
        let Some(table) = self.table_of(index) else {
            return Vec::new();
        };
        index
            .keys
            .iter()
            .filter_map(|key| usize::try_from(key.column - 1).ok())
            .filter_map(|at| table.columns.get(at))
            .map(|column| quote_ident(&column.name))
            .collect()
    }

    /// Who is no superuser stops only what runs under its own role.
    fn check_may_signal(&self, pid: i32, interrupt: Interrupt) -> Result<(), SqlError> {
        if self.session.role.superuser {
            return Ok(());
        }
        let sessions = self.session.engine.sessions().rows();
        let Some(other) = sessions.iter().find(|row| row.pid == pid) else {
            return Ok(());
        };
        let cancels = interrupt == Interrupt::Cancel;
        if self.view.role(&other.user).is_some_and(|role| role.superuser) {
            return Err(SqlError::denied(if cancels {
                "must be a superuser to cancel superuser query"
            } else {
                "must be a superuser to terminate superuser process"
            }));
        }
        if other.user != self.session.user {
            return Err(SqlError::denied(if cancels {
                "must be a member of the role whose query is being canceled or member of pg_signal_backend"
            } else {
                "must be a member of the role whose process is being terminated or member of pg_signal_backend"
            }));
        }
        Ok(())
    }

    fn check_may_administer(&self, function: &str) -> Result<(), SqlError> {
        if self.session.role.superuser {
            return Ok(());
        }
        Err(SqlError::denied(format!(
            "permission denied for function {function}"
        )))
    }

    fn find_regclass(&self, text: &str) -> Result<Option<u32>, SqlError> {
        let name = crate::parse::parse_qualified_name(text)?;
        let path = self.session.search_path();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let (schema, table) = match name.as_slice() {
            [table] => (None, table),
            [.., schema, table] => (Some(schema.text.as_str()), table),
            [] => return Ok(None),
        };
        Ok(self
            .view
            .find_relation(schema, &table.text, &path)
            .map(|relation| relation.oid().0))
    }
}

/// A name as it must be written to be read back.
pub(crate) fn quote_ident(name: &str) -> String {
    let plain = name.bytes().enumerate().all(|(at, byte)| {
        byte == b'_' || byte.is_ascii_lowercase() || at > 0 && (byte.is_ascii_digit() || byte == b'$')
    });
    if plain && !name.is_empty() && !keywords::needs_quotes(name) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

impl FunctionContext for SessionContext<'_> {
    fn transaction_timestamp(&self) -> i64 {
        self.session.transaction_time
    }

    fn statement_timestamp(&self) -> i64 {
        self.session.statement_time
    }

    fn clock_timestamp(&self) -> i64 {
        self.session.engine.clock().wall()
    }

    fn start_time(&self) -> i64 {
        self.session.start_time
    }

    fn random_bits(&self) -> u64 {
        // splitmix64: small, fast and good enough for random().
        let mut state = self.session.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.session.random.set(state);
        state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        state ^ (state >> 31)
    }

    fn set_seed(&self, seed: f64) {
        self.session.random.set(seed.to_bits());
    }

    fn sleep(&self, seconds: f64) -> Result<(), SqlError> {
        // A test panics in an expression here.
        let _ = towline_base::failpoint!("sql::sleep");
        let time = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        self.session
            .sleep
            .set(self.session.sleep.get().saturating_add(time));
        Ok(())
    }

    fn current_user(&self) -> String {
        self.session.user.clone()
    }

    fn current_database(&self) -> String {
        self.session.database.clone()
    }

    fn search_path(&self, include_implicit: bool) -> Vec<String> {
        let mut path: Vec<String> = self
            .session
            .search_path()
            .into_iter()
            .filter(|name| self.view.schema(name).is_some())
            .collect();
        if include_implicit && !path.iter().any(|name| name == "pg_catalog") {
            path.insert(0, "pg_catalog".to_owned());
        }
        path
    }

    fn version(&self) -> String {
        let version = self
            .session
            .settings
            .borrow()
            .show("server_version")
            .unwrap_or_default();
        let number = version.split(' ').next().unwrap_or_default();
        format!(
            "PostgreSQL {number} (Towline {}) on {}, 64-bit",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH
        )
    }

    fn backend_pid(&self) -> i32 {
        self.session.handle.pid()
    }

    fn client_address(&self) -> Option<(String, i32)> {
        let address = &self.session.client_addr;
        (!address.is_empty()).then(|| (address.clone(), i32::from(self.session.client_port)))
    }

    fn server_address(&self) -> Option<(String, i32)> {
        let address = self.session.server?;
        Some((address.ip().to_string(), i32::from(address.port())))
    }

    fn setting(&self, name: &str) -> Option<String> {
        self.session.show(name).ok()
    }

    fn set_setting(&self, name: &str, value: &str, local: bool) -> Result<String, SqlError> {
        self.session.set_setting(name, value, local)?;
        self.session.show(name)
    }

    fn next_xid(&self) -> u64 {
        self.session.engine.next_xid().0
    }

    fn xid_status(&self, xid: u64) -> Result<Option<&'static str>, SqlError> {
        let (xid, engine) = (Xid(xid), &self.session.engine);
        if xid >= engine.next_xid() {
            let text = format!("transaction ID {} is in the future", xid.0);
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, text));
        }
        if !xid.is_valid() || (xid.is_normal() && xid < engine.xids().oldest_unfrozen()) {
            return Ok(None);
        }
        Ok(Some(match engine.csn().status(xid)? {
            // Nobody hears of a commit before it is released (I4).
            XidStatus::Committed(lsn) if engine.release().is_visible(lsn) => "committed",
            XidStatus::Committed(_) | XidStatus::InProgress => "in progress",
            XidStatus::Aborted => "aborted",
        }))
    }

    fn in_recovery(&self) -> bool {
        self.session.engine.is_standby()
    }

    fn wal_position(&self, function: &str) -> Result<Option<Lsn>, SqlError> {
        let engine = &self.session.engine;
        let standby = engine.is_standby();
        let cluster = engine.cluster();
        if function.starts_with("pg_last_wal") {
            if !standby {
                return Ok(None);
            }
            return Ok(match function {
                "pg_last_wal_receive_lsn" => cluster.and_then(|cluster| cluster.last_receive_lsn()),
                _ => cluster.and_then(|cluster| cluster.last_replay_lsn()),
            });
        }
        if standby {
            return Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "recovery is in progress",
            )
            .with_hint("WAL control functions cannot be executed during recovery."));
        }
        let positions = engine.writer()?.wal.positions().clone();
        Ok(Some(match function {
            "pg_current_wal_lsn" => positions.write.get(),
            "pg_current_wal_flush_lsn" => positions.flush.get(),
            _ => engine.insert_lsn()?,
        }))
    }

    fn wal_file_name(&self, lsn: Lsn) -> Result<String, SqlError> {
        let timeline = self
            .session
            .engine
            .cluster()
            .map_or(1, |cluster| cluster.timeline().number.0);
        let size = self
            .session
            .settings
            .borrow()
            .bytes(towline_base::settings::keys::wal_segment_size);
        let size = size.filter(|size| *size > 0).unwrap_or(16 << 20);
        // As PostgreSQL: a position at a boundary belongs to the segment before it.
        let segment = lsn.0.saturating_sub(1) / size;
        let per_log = 0x1_0000_0000 / size;
        Ok(format!(
            "{timeline:08X}{:08X}{:08X}",
            segment / per_log,
            segment % per_log
        ))
    }

    fn admin(&self, function: &str, args: &[Datum]) -> Result<Datum, SqlError> {
        let sessions = self.session.engine.sessions();
        let pid = || {
            args.first()
                .and_then(Datum::as_i64)
                .and_then(|pid| i32::try_from(pid).ok())
                .unwrap_or(0)
        };
        match function {
            "pg_cancel_backend" | "pg_terminate_backend" => {
                let interrupt = if function == "pg_cancel_backend" {
                    Interrupt::Cancel
                } else {
                    Interrupt::Terminate
                };
                self.check_may_signal(pid(), interrupt)?;
                let found = sessions.interrupt(pid(), interrupt);
                if !found {
                    self.session.warn(
                        SqlState::WARNING,
                        &format!("PID {} is not a PostgreSQL backend process", pid()),
                    );
                }
                Ok(Datum::Bool(found))
            }
            "pg_reload_conf" => {
                self.check_may_administer(function)?;
                match self.session.engine.cluster() {
                    Some(cluster) => cluster.reload()?,
                    None => {
                        self.session.settings.borrow().node().reload();
                    }
                }
                Ok(Datum::Bool(true))
            }
            "pg_promote" => match self.session.engine.cluster() {
                Some(cluster) => {
                    self.check_may_administer(function)?;
                    cluster.promote()?;
                    Ok(Datum::Bool(true))
                }
                None => Err(SqlError::unsupported(function)),
            },
            _ => Err(SqlError::unsupported(format!("function {function}()"))),
        }
    }

    fn reg_in(&self, ty: TypeId, text: &str) -> Result<u32, SqlError> {
        if text == "-" {
            return Ok(0);
        }
        if let Ok(oid) = text.parse::<u32>() {
            return Ok(oid);
        }
        match ty {
            TypeId::Regclass => self.find_regclass(text)?.ok_or_else(|| {
                SqlError::new(
                    SqlState::UNDEFINED_TABLE,
                    format!("relation \"{text}\" does not exist"),
                )
            }),
            TypeId::Regtype => {
                let name = crate::parse::parse_type_name(text)?;
                crate::bind::bind_type(&name, text).map(|ty| ty.id.oid())
            }
            TypeId::Regnamespace => {
                let name = crate::parse::parse_qualified_name(text)?;
                let name = name.first().map_or("", |name| name.text.as_str());
                self.view.schema(name).map(|schema| schema.oid.0).ok_or_else(|| {
                    SqlError::new(
                        SqlState::INVALID_SCHEMA_NAME,
                        format!("schema \"{name}\" does not exist"),
                    )
                })
            }
            TypeId::Regrole => {
                let name = crate::parse::parse_qualified_name(text)?;
                let name = name.first().map_or("", |name| name.text.as_str());
                self.view.role(name).map(|role| role.oid.0).ok_or_else(|| {
                    SqlError::new(
                        SqlState::UNDEFINED_OBJECT,
                        format!("role \"{name}\" does not exist"),
                    )
                })
            }
            _ => Err(SqlError::new(
                SqlState::UNDEFINED_FUNCTION,
                format!("function \"{text}\" does not exist"),
            )),
        }
    }

    fn reg_out(&self, ty: TypeId, oid: u32) -> String {
        if oid == 0 {
            return "-".to_owned();
        }
        let found = match ty {
            TypeId::Regclass => self.view.relation(Oid(oid)).map(|relation| match relation {
                Relation::Table(table) => self.relation_name(table.schema, &table.name),
                Relation::Index(index) => self.relation_name(index.schema, &index.name),
            }),
            TypeId::Regtype => TypeId::from_oid(oid).map(|id| id.sql_name().to_owned()),
            TypeId::Regnamespace => self
                .view
                .schema_by_oid(Oid(oid))
                .map(|schema| quote_ident(&schema.name)),
            TypeId::Regrole => self
                .view
                .role_by_oid(Oid(oid))
                .map(|role| quote_ident(&role.name)),
            _ => None,
        };
        found.unwrap_or_else(|| oid.to_string())
    }

    fn role_name(&self, oid: u32) -> Option<String> {
        self.view.role_by_oid(Oid(oid)).map(|role| role.name.to_string())
    }

    fn is_visible(&self, function: &str, oid: u32) -> Option<bool> {
        if function != "pg_table_is_visible" {
            return Some(true);
        }
        let (schema, name) = match self.view.relation(Oid(oid))? {
            Relation::Table(table) => (table.schema, &table.name),
            Relation::Index(index) => (index.schema, &index.name),
        };
        let schema = self.view.schema_by_oid(schema)?.name.to_string();
        if !self.is_searched(&schema) {
            return Some(false);
        }
        let path = self.session.search_path();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        Some(
            self.view
                .find_relation(None, name, &path)
                .is_some_and(|found| found.oid().0 == oid),
        )
    }

    fn index_definition(&self, index: u32, column: i32) -> Option<String> {
        let index = self.view.index(Oid(index))?;
        let columns = self.key_columns(index);
        if let Some(at) = usize::try_from(column)
            .ok()
            .and_then(|column| column.checked_sub(1))
        {
            return columns.get(at).cloned();
        }
        let table = self.table_of(index)?;
        let mut text = String::from("CREATE ");
        if index.unique {
            text.push_str("UNIQUE ");
        }
        let _ = write!(
            text,
            "INDEX {} ON {}.{} USING btree (",
            quote_ident(&index.name),
            quote_ident(&table.schema_name),
            quote_ident(&table.name)
        );
        for (at, (column, key)) in columns.iter().zip(index.keys.iter()).enumerate() {
            if at > 0 {
                text.push_str(", ");
            }
            text.push_str(column);
            match (key.descending, key.nulls_first) {
                (true, true) => text.push_str(" DESC"),
                (true, false) => text.push_str(" DESC NULLS LAST"),
                (false, true) => text.push_str(" NULLS FIRST"),
                (false, false) => {}
            }
        }
        text.push(')');
        if index.fillfactor != 90 {
            let _ = write!(text, " WITH (fillfactor='{}')", index.fillfactor);
        }
        Some(text)
    }

    fn constraint_definition(&self, constraint: u32) -> Option<String> {
        let index = self
            .view
            .tables()
            .flat_map(|table| table.indexes.iter())
            .find(|index| index.constraint == Some(Oid(constraint)))?;
        let word = if index.primary { "PRIMARY KEY" } else { "UNIQUE" };
        Some(format!("{word} ({})", self.key_columns(index).join(", ")))
    }

    fn relation_size(
        &self,
        relation: u32,
        fork: Option<&str>,
        with_indexes: bool,
    ) -> Result<Option<i64>, SqlError> {
        let Some((node, table)) = self.relation_node(relation) else {
            return Ok(None);
        };
        let Some(fork) = fork else {
            let mut total = 0;
            for fork in [ForkKind::Main, ForkKind::Fsm, ForkKind::Vm] {
                total += self.fork_bytes(node, fork)?;
            }
            if let Some(toast) = table.and_then(|table| table.toast.as_ref()) {
                total += self.relation_size(toast.oid.0, None, true)?.unwrap_or(0);
            }
            if with_indexes {
                total += self.indexes_size(relation)?.unwrap_or(0);
            }
            return Ok(Some(total));
        };
        let fork = match fork {
            "main" => ForkKind::Main,
            "fsm" => ForkKind::Fsm,
            "vm" => ForkKind::Vm,
            "init" => ForkKind::Init,
            _ => {
                return Err(
                    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "invalid fork name")
                        .with_hint("Valid fork names are \"main\", \"fsm\", \"vm\", and \"init\"."),
                );
            }
        };
        self.fork_bytes(node, fork).map(Some)
    }

    fn indexes_size(&self, relation: u32) -> Result<Option<i64>, SqlError> {
        let Some(table) = self.view.table(Oid(relation)) else {
            return Ok(None);
        };
        let mut total = 0;
        for index in table.indexes.iter() {
            total += self.fork_bytes(index.node, ForkKind::Main)?;
        }
        Ok(Some(total))
    }

    fn database_size(&self) -> Result<i64, SqlError> {
        let mut total = 0;
        // A TOAST table counts with its own.
        let is_own =
            |table: &&std::sync::Arc<Table>| table.kind != towline_access::catalog::RelationKind::Toast;
        for table in self.view.tables().filter(is_own) {
            if let Some(size) = self.relation_size(table.oid.0, None, true)? {
                total += size;
            }
        }
        Ok(total)
    }

    fn relation_file(&self, relation: u32) -> Option<(u32, String)> {
        let (node, _) = self.relation_node(relation)?;
        Some((node.rel, format!("base/{}/{}", node.db, node.rel)))
    }

    fn notice(&self, message: &str) {
        self.session.notices.borrow_mut().push(Notice::new(
            Severity::Notice,
            SqlState::SUCCESSFUL_COMPLETION,
            message,
        ));
    }
}
