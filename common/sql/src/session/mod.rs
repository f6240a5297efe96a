//! One connection's conversation: prepared statements, portals, the transaction, settings.
//!
//! Everything here is synchronous. A call that starts work ([`Session::simple_query`], [`Session::execute`],
//! [`Session::sync`]) and [`Session::resume`] return an [`Execution`]; on [`Execution::Wait`] the driver awaits and
//! calls `resume`, on [`Execution::Yield`] it writes what the sink holds, lets others run and calls `resume`. When the
//! wait was given up (cancel, timeout, deadlock, terminate) it calls [`Session::interrupt`] first, and `resume`
//! returns that error after the statement was undone.

mod context;
mod copy_format;
mod copy_in;
mod copy_out;
mod deep;
mod definitions;
mod drive;
mod encode;
mod extended;
mod nested;
mod point;
mod prepared;
mod run;
mod settings;
mod statistics;
mod transaction;
mod utility;
mod vacuum;
mod views;
mod withdraw;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use towline_access::catalog::{CatalogView, Role};
use towline_access::{Engine, SessionHandle, Transaction, Wait};
use towline_base::settings::{Scope, SessionSettings, Settings, is_secluded, keys};
use towline_base::{Lsn, SqlState};
use towline_types::IoStyle;
use towline_wal::format::Compression;
use towline_wal::{CheckedManagers, ImageOverride};

use self::prepared::{Prepared, TextCache};
use self::run::{Outcome, Portal};
use self::transaction::{Block, Commit};
use self::utility::setting_error;
use self::withdraw::Held;
use crate::error::{Notice, SqlError};
use crate::parse::Parsed;
use crate::sink::{CopyShape, RowDescription};

/// Who connects, from the startup message and the authentication.
#[derive(Clone, Debug, Default)]
pub struct SessionParams {
    /// Role name, already authenticated.
    pub user: String,
    /// Database name.
    pub database: String,
    /// The client's address for `pg_stat_activity`, empty for a local one.
    pub client_addr: String,
    /// The client's port.
    pub client_port: u16,
    /// The server's end of the connection; none for a local one.
    pub server: Option<SocketAddr>,
    /// Settings of the startup message (`application_name`, `client_encoding`, `options`' `-c name=value`), in order.
    pub settings: Vec<(String, String)>,
}

/// What a call came to.
#[derive(Debug)]
pub enum Execution {
    /// The statement, the query text or the sync is finished; its messages are in the sink.
    Complete,
    /// The portal gave `max_rows` rows and has more (`PortalSuspended` is in the sink).
    Suspended,
    /// COPY wants data: flush the sink, then [`Session::copy_data`], [`Session::copy_done`] or [`Session::copy_fail`],
    /// and [`Session::resume`] after each.
    CopyIn(CopyShape),
    /// Await this, then [`Session::resume`].
    Wait(Wait),
    /// Let others run, write the sink if it is full, then [`Session::resume`].
    Yield,
    /// A statement of a text of several is over, its answer is in the sink, and another begins: each has the whole of `statement_timeout`,
    /// as it is set then. Begin its time, then [`Session::resume`].
    Next,
    /// `pg_sleep`: let this much time pass (or interrupt), then [`Session::resume`].
    Sleep(Duration),
}

/// Parameter types and result shape of a prepared statement.
#[derive(Clone, Debug, Default)]
pub struct StatementDescription {
    /// Type OIDs of `$1`, `$2`, …
    pub params: Vec<u32>,
    /// `None`: the statement returns no rows (`NoData`).
    pub rows: Option<RowDescription>,
}

/// The timers the driver keeps for this session, in milliseconds, 0 = none; read after each call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// `statement_timeout`: 57014 "canceling statement due to statement timeout".
    pub statement_ms: u32,
    /// `lock_timeout`: 55P03 while waiting for a lock.
    pub lock_ms: u32,
    /// `deadlock_timeout`: after it, ask [`Wait::check_deadlock`].
    pub deadlock_ms: u32,
    /// `idle_in_transaction_session_timeout`: 25P03, ends the connection.
    pub idle_in_transaction_ms: u32,
}

/// What the session is in the middle of.
enum Running {
    /// A query text of the simple protocol.
    Simple(Box<Simple>),
    /// An Execute of this portal.
    Portal(Box<Portal>, String, u64),
    /// A commit at Sync.
    Sync(Commit),
}

/// A query text of the simple protocol.
struct Simple {
    text: Arc<str>,
    statements: VecDeque<Parsed>,
    several: bool,
    /// The text came before: its statement is kept if it is by key.
    keep: bool,
    portal: Option<Portal>,
    /// The finished statement whose answer waits for the commit.
    outcome: Option<Outcome>,
    commit: Option<Commit>,
}

/// One connection's state.
pub struct Session {
    engine: Arc<Engine>,
    handle: SessionHandle,
    user: String,
    database: String,
    client_addr: String,
    client_port: u16,
    server: Option<SocketAddr>,
    role: Arc<Role>,
    settings: RefCell<SessionSettings>,
    style: IoStyle,
    style_stale: Cell<bool>,
    /// Counts the changes of settings: a plan rests on some of them (search_path, TimeZone).
    settings_version: Cell<u64>,
    /// What the session has set for itself about page images in the log; `None` when that is nothing.
    images: Option<ImageOverride>,
    txn: Option<Transaction>,
    /// A statement of the transaction has taken a snapshot: its isolation level is fixed.
    queried: bool,
    block: Block,
    /// Within a text of several statements.
    implicit_block: bool,
    statements: HashMap<String, Arc<Prepared>>,
    unnamed: Option<Arc<Prepared>>,
    /// Statements that were parsed, by their text.
    texts: TextCache,
    /// Statements by key that came as a query text more than once.
    simple_texts: TextCache,
    portals: HashMap<String, Portal>,
    running: Option<Running>,
    /// It may hold a tree that an ordinary stack is too small for: see [`crate::stack`].
    deep: bool,
    interrupt: Option<SqlError>,
    pending_wait: Option<Wait>,
    notices: RefCell<Vec<Notice>>,
    depends_on: Lsn,
    last_commit: Lsn,
    /// For an answer that is taken back.
    held: Held,
    random: Cell<u64>,
    /// What `pg_sleep` asked for in this statement.
    sleep: Cell<Duration>,
    transaction_time: i64,
    statement_time: i64,
    start_time: i64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("user", &self.user)
            .field("block", &self.block)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Opens a session for an authenticated role. Fails with 28000 (no such role, no LOGIN), 3D000 (no such database),
    /// 22023/42704 (bad startup setting).
    /// `handle` is the session's place in the registry (pid, cancel key, interrupts), taken by the driver.
    pub fn new(
        engine: Arc<Engine>,
        settings: Arc<Settings>,
        handle: SessionHandle,
        params: SessionParams,
    ) -> Result<Session, SqlError> {
        let view = engine.catalog().shared(&engine)?;
        let role = view.role(&params.user).cloned().ok_or_else(|| {
            SqlError::fatal(
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                format!("role \"{}\" does not exist", params.user),
            )
        })?;
        if !role.can_login {
            return Err(SqlError::fatal(
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                format!("role \"{}\" is not permitted to log in", params.user),
            ));
        }
        let database = if params.database.is_empty() {
            params.user.clone()
        } else {
            params.database
        };
        if database != "postgres" {
            return Err(SqlError::fatal(
                SqlState::INVALID_CATALOG_NAME,
                format!("database \"{database}\" does not exist"),
            ));
        }
        let mut own = SessionSettings::new(settings, role.superuser);
        own.set_internal(keys::is_superuser, if role.superuser { "on" } else { "off" })
            .map_err(setting_error)?;
        own.set_internal(keys::session_authorization, &params.user)
            .map_err(setting_error)?;
        own.set_internal(
            keys::in_hot_standby,
            if engine.is_standby() { "on" } else { "off" },
        )
        .map_err(setting_error)?;
        for (name, value) in &params.settings {
            settings::check_value(name, value)?;
            own.set_at_login(name, value).map_err(setting_error)?;
        }
        let application_name = own.get(keys::application_name).to_string();
        let (user, start_time) = (params.user, engine.clock().wall());
        handle.update(|row| {
            row.user.clone_from(&user);
            row.database.clone_from(&database);
            row.application_name.clone_from(&application_name);
        });
        let seed = (start_time as u64).rotate_left(32) ^ u64::from(handle.pid().unsigned_abs());
        Ok(Session {
            engine,
            handle,
            user,
            database,
            client_addr: params.client_addr,
            client_port: params.client_port,
            server: params.server,
            role,
            settings: RefCell::new(own),
            style: IoStyle::default(),
            style_stale: Cell::new(true),
            settings_version: Cell::new(0),
            images: None,
            txn: None,
            queried: false,
            block: Block::Idle,
            implicit_block: false,
            statements: HashMap::new(),
            unnamed: None,
            texts: TextCache::default(),
            simple_texts: TextCache::default(),
            portals: HashMap::new(),
            running: None,
            deep: false,
            interrupt: None,
            pending_wait: None,
            notices: RefCell::new(Vec::new()),
            depends_on: Lsn::INVALID,
            last_commit: Lsn::INVALID,
            held: Held::default(),
            random: Cell::new(seed),
            sleep: Cell::new(Duration::ZERO),
            transaction_time: start_time,
            statement_time: start_time,
            start_time,
        })
    }

    /// The `ParameterStatus` pairs to send after authentication.
    pub fn initial_parameters(&self) -> Vec<(String, String)> {
        let reports = self.settings.borrow_mut().all_reports();
        reports
            .into_iter()
            .filter(|(name, _)| *name != "towline.last_commit_lsn")
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// No byte of the answer may leave before `visible` has reached this (C3). [`Lsn::INVALID`]: nothing to wait for.
    pub fn depends_on(&self) -> Lsn {
        self.depends_on
    }

    /// The LSN of this session's last commit, for reading one's own writes on a standby.
    pub fn last_commit(&self) -> Lsn {
        self.last_commit
    }

    /// `I` idle, `T` in a transaction block, `E` in a failed one.
    pub fn transaction_status(&self) -> u8 {
        match self.block {
            Block::Idle => b'I',
            Block::Open => b'T',
            Block::Failed => b'E',
        }
    }

    /// `statement_timeout` in milliseconds, 0 = none: [`Timeouts::statement_ms`] by itself.
    pub fn statement_timeout(&self) -> u32 {
        u32::try_from(self.settings.borrow().get(keys::statement_timeout)).unwrap_or(0)
    }

    /// The timers that apply now.
    pub fn timeouts(&self) -> Timeouts {
        let settings = self.settings.borrow();
        let millis = |value: i64| u32::try_from(value).unwrap_or(0);
        Timeouts {
            statement_ms: millis(settings.get(keys::statement_timeout)),
            lock_ms: millis(settings.get(keys::lock_timeout)),
            deadlock_ms: millis(settings.get(keys::deadlock_timeout)),
            idle_in_transaction_ms: millis(settings.get(keys::idle_in_transaction_session_timeout)),
        }
    }

    /// The session's place in the registry.
    pub fn handle(&self) -> &SessionHandle {
        &self.handle
    }

    /// The engine this session works on.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The catalog as this session's transaction sees it.
    pub(crate) fn catalog_view(&mut self) -> Result<CatalogView, SqlError> {
        match &mut self.txn {
            Some(txn) => Ok(self.engine.catalog().view(txn)?),
            None => Ok(self.engine.catalog().shared(&self.engine)?),
        }
    }

    fn catalog_view_with(&self, txn: &mut Transaction) -> Result<CatalogView, SqlError> {
        Ok(self.engine.catalog().view(txn)?)
    }

    /// The schemas to search, in order; `$user` and unknown ones included.
    pub(crate) fn search_path(&self) -> Vec<String> {
        let text = self.settings.borrow().get(keys::search_path);
        if &*text == "\"$user\", public" {
            return vec![self.user.clone(), "public".to_owned()];
        }
        text.split(',')
            .map(|part| {
                let part = part.trim();
                match part.strip_prefix('"').and_then(|part| part.strip_suffix('"')) {
                    Some(quoted) => quoted.replace("\"\"", "\""),
                    None => part.to_ascii_lowercase(),
                }
            })
            .map(|part| if part == "$user" { self.user.clone() } else { part })
            .filter(|part| !part.is_empty())
            .collect()
    }

    pub(crate) fn in_implicit_block(&self) -> bool {
        self.implicit_block
    }

    /// SHOW
    pub(crate) fn show(&self, name: &str) -> Result<String, SqlError> {
        if let Some(value) = self.transaction_setting(name) {
            return Ok(value);
        }
        if name.eq_ignore_ascii_case("towline.last_commit_lsn") {
            let timeline = self
                .engine
                .cluster()
                .map_or(1, |cluster| cluster.timeline().number.0);
            return Ok(if self.last_commit == Lsn::INVALID {
                String::new()
            } else {
                format!("{timeline}:{}", self.last_commit)
            });
        }
        if is_secluded(name) && !self.role.superuser {
            return Err(SqlError::denied(format!(
                "must be superuser or have privileges of pg_read_all_settings to examine \"{name}\""
            )));
        }
        self.settings.borrow().show(name).map_err(setting_error)
    }

    /// SET
    pub(crate) fn set_setting(&self, name: &str, value: &str, local: bool) -> Result<(), SqlError> {
        let scope = if local { Scope::Local } else { Scope::Session };
        settings::check_value(name, value)?;
        self.settings
            .borrow_mut()
            .set(name, value, scope)
            .map_err(setting_error)?;
        self.settings_changed();
        Ok(())
    }

    /// Some setting may have another value: what was derived from settings is derived anew.
    pub(crate) fn settings_changed(&self) {
        self.style_stale.set(true);
        self.settings_version.set(self.settings_version.get() + 1);
    }

    /// Takes over what settings say about reading and printing values, and about page images in the log.
    fn refresh_style(&mut self) {
        if !self.style_stale.replace(false) {
            return;
        }
        let settings = self.settings.borrow();
        // The settings table has checked these values; a refusal keeps the old one.
        let _ = self.style.set_date_style(&settings.get(keys::DateStyle));
        let _ = self.style.set_time_zone(&settings.get(keys::TimeZone));
        self.style.extra_float_digits = i32::try_from(settings.get(keys::extra_float_digits)).unwrap_or(1);
        self.style.bytea_output = match settings.get(keys::bytea_output) {
            "escape" => towline_types::style::ByteaOutput::Escape,
            _ => towline_types::style::ByteaOutput::Hex,
        };
        let checked = settings.own(keys::wal_consistency_checking);
        let images = ImageOverride {
            compression: settings.own(keys::wal_compression).map(Compression::from_name),
            checked: checked.map(|text| CheckedManagers::parse(&text)),
        };
        self.images = (images != ImageOverride::default()).then_some(images);
    }
}
