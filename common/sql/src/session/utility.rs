//! Statements that are neither queries nor row changes.

use std::sync::Arc;

use towline_access::Step;
use towline_access::catalog::Table;
use towline_access::ddl::DdlOp;
use towline_access::locks::{LockMode, LockTag};
use towline_base::settings::Scope;
use towline_base::{Lsn, SqlState};
use towline_types::{ColumnType, Datum, TypeId};

use super::context::SessionContext;
use super::prepared::{describe, no_statement};
use super::run::{Execution, Outcome, Portal, Progress, Stage};
use super::transaction::{Block, Commit};
use super::{Session, encode};
use crate::bind::tree::OutputColumn;
use crate::error::{Notice, Severity, SqlError};
use crate::explain;
use crate::parse::ast::{self, ExplainOptions, Statement, VacuumOptions};
use crate::sink::{CommandTag, RowSink};

/// A statement of this kind, under way.
pub(crate) enum Utility {
    /// Already done.
    Tag(&'static str),
    /// Rows computed at once (SHOW, EXPLAIN).
    Rows {
        rows: Vec<Vec<Datum>>,
        at: usize,
        tag: &'static str,
        columns: Vec<OutputColumn>,
        announce: bool,
    },
    /// Changes of the catalog.
    Ddl { ops: Vec<DdlOp>, tag: &'static str },
    /// CREATE TABLE AS: the definition, then the rows.
    CreateAs {
        op: Option<Box<DdlOp>>,
        insert: Option<Box<Portal>>,
        text: Arc<str>,
        fill: Box<ast::Insert>,
    },
    /// COMMIT
    Commit { commit: Commit, chain: bool },
    /// CHECKPOINT
    Checkpoint { asked: bool },
    /// LOCK TABLE
    Lock {
        tables: Vec<Arc<Table>>,
        at: usize,
        mode: LockMode,
        nowait: bool,
    },
    /// VACUUM, ANALYZE
    Vacuum(Box<super::vacuum::Vacuum>),
    /// EXPLAIN ANALYZE
    Analyze {
        execution: Box<Execution>,
        options: ExplainOptions,
        params: Vec<Datum>,
        planning: f64,
        announce: bool,
    },
    /// WAIT FOR LSN
    WaitForLsn(Lsn),
}

pub(crate) fn text_column(name: &str) -> OutputColumn {
    OutputColumn {
        name: name.to_owned(),
        ty: ColumnType::new(TypeId::Text),
        origin: (0, 0),
    }
}

fn word(tag: &'static str) -> Progress {
    Progress::Done(Outcome::Tag(CommandTag::Word(tag)))
}

impl Utility {
    /// Goes on.
    pub(crate) fn step(
        &mut self,
        session: &mut Session,
        out: &mut dyn RowSink,
    ) -> Result<Progress, SqlError> {
        match self {
            Utility::Tag(tag) => Ok(word(tag)),
            Utility::Rows {
                rows,
                at,
                tag,
                columns,
                announce,
            } => {
                if std::mem::take(announce) {
                    out.row_description(&describe(columns, &[]));
                }
                let types: Vec<ColumnType> = columns.iter().map(|column| column.ty).collect();
                let view = session.catalog_view()?;
                let context = SessionContext::new(session, &view);
                while let Some(row) = rows.get(*at) {
                    if out.is_full() {
                        return Ok(Progress::Yield);
                    }
                    *at += 1;
                    encode::data_row(row, &types, &[], &session.style, &context, out.buffer())?;
                }
                Ok(word(tag))
            }
            Utility::Ddl { ops, tag } => {
                while let Some(op) = ops.first_mut() {
                    let Some(txn) = &mut session.txn else {
                        return Err(SqlError::internal("no transaction"));
                    };
                    match op.step(txn)? {
                        Step::Wait(wait) => return Ok(Progress::Wait(wait)),
                        Step::Done(outcome) => {
                            for (sqlstate, message) in outcome.notices {
                                session.notices.borrow_mut().push(Notice::new(
                                    Severity::Notice,
                                    sqlstate,
                                    message,
                                ));
                            }
                            ops.remove(0);
                        }
                    }
                }
                Ok(word(tag))
            }
            Utility::CreateAs {
                op,
                insert,
                text,
                fill,
            } => {
                if let Some(ddl) = op {
                    let Some(txn) = &mut session.txn else {
                        return Err(SqlError::internal("no transaction"));
                    };
                    let outcome = match ddl.step(txn)? {
                        Step::Wait(wait) => return Ok(Progress::Wait(wait)),
                        Step::Done(outcome) => outcome,
                    };
                    *op = None;
                    // It was there already (IF NOT EXISTS): nothing is filled.
                    if !outcome.notices.is_empty() {
                        for (sqlstate, message) in outcome.notices {
                            session.notices.borrow_mut().push(Notice::new(
                                Severity::Notice,
                                sqlstate,
                                message,
                            ));
                        }
                        return Ok(word("CREATE TABLE AS"));
                    }
                    let statement = Statement::Insert(fill.clone());
                    let prepared = session.prepare_tree(text.clone(), Some(statement), Vec::new())?;
                    *insert = Some(Box::new(Portal::new(prepared, Vec::new(), Vec::new(), false)));
                }
                let Some(portal) = insert else {
                    return Ok(word("CREATE TABLE AS"));
                };
                match session.run_portal(portal, 0, out)? {
                    Progress::Done(Outcome::Tag(CommandTag::Rows(_, rows))) => {
                        Ok(Progress::Done(Outcome::Tag(CommandTag::Rows("SELECT", rows))))
                    }
                    other => Ok(other),
                }
            }
            Utility::Commit { commit, chain } => {
                let modes = session
                    .txn
                    .as_ref()
                    .map(|txn| (txn.isolation(), txn.is_read_only()));
                if let Some(wait) = session.step_commit(commit)? {
                    return Ok(Progress::Wait(wait));
                }
                session.block = Block::Idle;
                if *chain {
                    session.chain(modes)?;
                }
                Ok(word("COMMIT"))
            }
            Utility::Checkpoint { asked } => {
                if !std::mem::replace(asked, true)
                    && let Some(wait) = session.engine.checkpoint()
                {
                    return Ok(Progress::Wait(wait));
                }
                Ok(word("CHECKPOINT"))
            }
            Utility::Lock {
                tables,
                at,
                mode,
                nowait,
            } => {
                while let Some(table) = tables.get(*at) {
                    let Some(txn) = &mut session.txn else {
                        return Err(SqlError::internal("no transaction"));
                    };
                    let tag = LockTag::Relation(table.oid.0);
                    if *nowait {
                        match txn.try_lock(tag, *mode)? {
                            Step::Wait(wait) => return Ok(Progress::Wait(wait)),
                            Step::Done(true) => {}
                            Step::Done(false) => {
                                return Err(SqlError::new(
                                    SqlState::LOCK_NOT_AVAILABLE,
                                    format!("could not obtain lock on relation \"{}\"", table.name),
                                ));
                            }
                        }
                    } else if let Step::Wait(wait) = txn.lock(tag, *mode)? {
                        return Ok(Progress::Wait(wait));
                    }
                    *at += 1;
                }
                Ok(word("LOCK TABLE"))
            }
            Utility::Vacuum(vacuum) => vacuum.step(session),
            Utility::Analyze {
                execution,
                options,
                params,
                planning,
                announce,
            } => {
                match execution.run(session, params, &[], 0, out)? {
                    Progress::Done(_) => {}
                    other => return Ok(other),
                }
                let total = execution.started.elapsed().as_secs_f64() * 1e3;
                let stats = execution.stats();
                let mut lines =
                    explain::plan_lines(execution.plan(), options, Some((&stats, execution.count())));
                if options.summary.unwrap_or(true) {
                    lines.push(format!("Planning Time: {planning:.3} ms"));
                    lines.push(format!("Execution Time: {total:.3} ms"));
                }
                let announce = *announce;
                *self = explained(lines, announce);
                self.step(session, out)
            }
            Utility::WaitForLsn(lsn) => {
                if session.engine.visible().get() >= *lsn {
                    return Ok(word("WAIT FOR LSN"));
                }
                Ok(Progress::Wait(session.engine.wait_visible(*lsn)))
            }
        }
    }
}

pub(super) fn explained(lines: Vec<String>, announce: bool) -> Utility {
    Utility::Rows {
        rows: lines.into_iter().map(|line| vec![Datum::text(&line)]).collect(),
        at: 0,
        tag: "EXPLAIN",
        columns: vec![text_column("QUERY PLAN")],
        announce,
    }
}

impl Session {
    /// Decides how a statement of this kind goes on.
    pub(crate) fn start_utility(
        &mut self,
        portal: &mut Portal,
        statement: &Statement,
        out: &mut dyn RowSink,
    ) -> Result<Stage, SqlError> {
        let utility = match statement {
            Statement::Begin(modes, start) => {
                self.begin_block(modes)?;
                Utility::Tag(if *start { "START TRANSACTION" } else { "BEGIN" })
            }
            Statement::Commit(chain) => self.start_commit(*chain)?,
            Statement::Rollback(chain) => self.rollback(*chain)?,
            Statement::Execute(name, args) => return self.start_execute(portal, name, args),
            Statement::Explain(options, inner) => self.start_explain(portal, *options, inner)?,
            Statement::Copy(copy) => return self.start_copy(portal, copy, out),
            other => self.simple_utility(portal, other)?,
        };
        Ok(Stage::Utility(Box::new(utility)))
    }

    fn simple_utility(&mut self, portal: &mut Portal, statement: &Statement) -> Result<Utility, SqlError> {
        Ok(match statement {
            Statement::SetTransaction(modes, characteristics) => {
                self.set_transaction(modes, *characteristics)?;
                Utility::Tag("SET")
            }
            Statement::Set(name, value, local) => {
                self.set_statement(name, value, *local)?;
                Utility::Tag("SET")
            }
            Statement::Show(name) => self.start_show(name, portal.announces)?,
            Statement::Reset(name) => {
                self.ensure_transaction()?;
                if name == "all" {
                    self.settings.borrow_mut().reset_all();
                } else {
                    self.settings
                        .borrow_mut()
                        .reset(name, Scope::Session)
                        .map_err(setting_error)?;
                }
                self.settings_changed();
                Utility::Tag("RESET")
            }
            Statement::AlterSystem(name, value) => self.alter_system(name, value.as_ref())?,
            Statement::Discard(what) => self.discard(what)?,
            Statement::Checkpoint => {
                if !self.role.superuser {
                    return Err(SqlError::denied(
                        "must be superuser or have privileges of pg_checkpoint to do CHECKPOINT",
                    ));
                }
                Utility::Checkpoint { asked: false }
            }
            Statement::Vacuum(options, tables) => self.start_vacuum(options, tables)?,
            Statement::Prepare(name, types, inner) => {
                self.start_prepare(portal, name, types, inner)?;
                Utility::Tag("PREPARE")
            }
            Statement::Deallocate(name) => match name {
                None => {
                    self.statements.clear();
                    Utility::Tag("DEALLOCATE ALL")
                }
                Some(name) => {
                    self.statements
                        .remove(name.text.as_str())
                        .ok_or_else(|| no_statement(&name.text))?;
                    Utility::Tag("DEALLOCATE")
                }
            },
            Statement::Lock(names, mode, nowait) => self.start_lock(names, *mode, *nowait)?,
            Statement::WaitForLsn(text, _) => {
                let lsn = text
                    .rsplit(':')
                    .next()
                    .unwrap_or_default()
                    .parse::<Lsn>()
                    .map_err(|_| {
                        SqlError::new(
                            SqlState::INVALID_TEXT_REPRESENTATION,
                            format!("invalid input syntax for type pg_lsn: \"{text}\""),
                        )
                    })?;
                Utility::WaitForLsn(lsn)
            }
            Statement::CreateTable(create) => self.start_create_table(portal, create)?,
            other => self.start_ddl(other)?,
        })
    }

    fn start_commit(&mut self, chain: bool) -> Result<Utility, SqlError> {
        match self.block {
            Block::Open => Ok(Utility::Commit {
                commit: Commit::Insert,
                chain,
            }),
            Block::Failed => {
                self.abort();
                self.block = Block::Idle;
                if chain {
                    self.chain(None)?;
                }
                Ok(Utility::Tag("ROLLBACK"))
            }
            Block::Idle => {
                if chain {
                    return Err(SqlError::new(
                        SqlState::NO_ACTIVE_SQL_TRANSACTION,
                        "COMMIT AND CHAIN can only be used in transaction blocks",
                    ));
                }
                self.warn(
                    SqlState::NO_ACTIVE_SQL_TRANSACTION,
                    "there is no transaction in progress",
                );
                Ok(Utility::Commit {
                    commit: Commit::Insert,
                    chain: false,
                })
            }
        }
    }

    fn rollback(&mut self, chain: bool) -> Result<Utility, SqlError> {
        if self.block == Block::Idle {
            if chain {
                return Err(SqlError::new(
                    SqlState::NO_ACTIVE_SQL_TRANSACTION,
                    "ROLLBACK AND CHAIN can only be used in transaction blocks",
                ));
            }
            self.warn(
                SqlState::NO_ACTIVE_SQL_TRANSACTION,
                "there is no transaction in progress",
            );
        }
        let modes = self.txn.as_ref().map(|txn| (txn.isolation(), txn.is_read_only()));
        self.abort();
        self.block = Block::Idle;
        if chain {
            self.chain(modes)?;
        }
        Ok(Utility::Tag("ROLLBACK"))
    }

    /// AND CHAIN: a new block like the old one.
    fn chain(&mut self, modes: Option<(towline_access::Isolation, bool)>) -> Result<(), SqlError> {
        self.ensure_transaction()?;
        if let (Some(txn), Some((isolation, read_only))) = (&mut self.txn, modes) {
            txn.set_isolation(isolation);
            txn.set_read_only(read_only);
        }
        self.block = Block::Open;
        Ok(())
    }

    fn start_lock(&mut self, names: &[Vec<ast::Name>], mode: u8, nowait: bool) -> Result<Utility, SqlError> {
        if self.block == Block::Idle && !self.in_implicit_block() {
            return Err(SqlError::new(
                SqlState::NO_ACTIVE_SQL_TRANSACTION,
                "LOCK TABLE can only be used in transaction blocks",
            ));
        }
        self.ensure_transaction()?;
        let mut tables = Vec::with_capacity(names.len());
        for name in names {
            tables.push(self.table_named(name)?);
        }
        let mode = match mode {
            1 => LockMode::AccessShare,
            2 => LockMode::RowShare,
            3 => LockMode::RowExclusive,
            4 => LockMode::ShareUpdateExclusive,
            5 => LockMode::Share,
            6 => LockMode::ShareRowExclusive,
            7 => LockMode::Exclusive,
            _ => LockMode::AccessExclusive,
        };
        if mode >= LockMode::ShareUpdateExclusive
            && let Some(txn) = &self.txn
        {
            txn.check_writable("LOCK TABLE")?;
        }
        Ok(Utility::Lock {
            tables,
            at: 0,
            mode,
            nowait,
        })
    }

    /// A stored table by name; 42P01, 42809.
    pub(crate) fn table_named(&mut self, name: &[ast::Name]) -> Result<Arc<Table>, SqlError> {
        let view = self.catalog_view()?;
        let path = self.search_path();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let (schema, table) = match name {
            [.., schema, table] => (Some(schema.text.as_str()), table),
            [table] => (None, table),
            [] => return Err(SqlError::internal("empty name")),
        };
        match view.find_relation(schema, &table.text, &path) {
            Some(towline_access::catalog::Relation::Table(found)) => Ok(found.clone()),
            Some(towline_access::catalog::Relation::Index(index)) => Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a table", index.name),
            )),
            None => Err(crate::bind::undefined_table(name)),
        }
    }

    fn start_vacuum(
        &mut self,
        options: &VacuumOptions,
        names: &[(Vec<ast::Name>, Vec<ast::Name>)],
    ) -> Result<Utility, SqlError> {
        let word = if options.vacuum { "VACUUM" } else { "ANALYZE" };
        if options.vacuum && (self.block == Block::Open || self.in_implicit_block()) {
            return Err(not_in_block("VACUUM"));
        }
        if self.engine.is_standby() {
            return Err(SqlError::new(
                SqlState::READ_ONLY_SQL_TRANSACTION,
                format!("cannot execute {word} during recovery"),
            ));
        }
        let mut tables = Vec::new();
        for (name, columns) in names {
            let table = self.table_named(name)?;
            for column in columns {
                if table.column(&column.text).is_none() {
                    return Err(SqlError::new(
                        SqlState::UNDEFINED_COLUMN,
                        format!(
                            "column \"{}\" of relation \"{}\" does not exist",
                            column.text, table.name
                        ),
                    ));
                }
            }
            tables.push(table);
        }
        if names.is_empty() {
            let view = self.catalog_view()?;
            let mut all: Vec<Arc<Table>> = view
                .tables()
                .filter(|table| table.kind == towline_access::catalog::RelationKind::Table)
                .cloned()
                .collect();
            all.sort_by_key(|table| table.oid.0);
            tables = all;
        }
        Ok(Utility::Vacuum(Box::new(super::vacuum::Vacuum::new(
            options.clone(),
            tables,
        ))))
    }
}

/// 25001
pub(crate) fn not_in_block(word: &str) -> SqlError {
    SqlError::new(
        SqlState::ACTIVE_SQL_TRANSACTION,
        format!("{word} cannot run inside a transaction block"),
    )
}

/// A refused setting as an error of SQL.
pub(crate) fn setting_error(error: towline_base::settings::SettingError) -> SqlError {
    let result = SqlError::new(error.sqlstate, error.message);
    match error.hint {
        Some(hint) => result.with_hint(hint),
        None => result,
    }
}
