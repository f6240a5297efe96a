//! The messages of the extended protocol: Parse, Bind, Describe, Close, Execute.
//!
//! They keep the named statements and portals; running a portal is [`Session::resume`]'s work.

use std::sync::Arc;

use towline_base::SqlState;
use towline_types::binary::check_utf8;
use towline_types::{ColumnType, Datum, TypeId, parse_binary, parse_text};

use super::prepared::{self, Prepared, no_statement};
use super::run::{Portal, is_data};
use super::{Execution, Running, Session, StatementDescription, context, utility};
use crate::error::SqlError;
use crate::expr::FunctionContext;
use crate::parse;
use crate::parse::ast::Statement;
use crate::sink::{RowDescription, RowSink};

impl Session {
    /// Parse: names a statement (empty name: the unnamed one). `param_types`: OIDs, 0 = infer.
    pub fn parse(&mut self, name: &str, text: &str, param_types: &[u32]) -> Result<(), SqlError> {
        if name.is_empty() {
            self.leave_deep_stack();
        }
        let result = self.make_tree(|session| session.parse_inner(name, text, param_types));
        self.on_stack(|session| session.settle(result))
    }

    fn parse_inner(&mut self, name: &str, text: &str, param_types: &[u32]) -> Result<(), SqlError> {
        if !name.is_empty() && self.statements.contains_key(name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        let mut declared = Vec::with_capacity(param_types.len());
        for oid in param_types {
            declared.push(match oid {
                0 => TypeId::Unknown,
                oid => TypeId::from_oid(*oid).ok_or_else(|| {
                    SqlError::new(
                        SqlState::UNDEFINED_OBJECT,
                        format!("type with OID {oid} does not exist"),
                    )
                })?,
            });
        }
        let prepared = self.prepare(text, &declared)?;
        if name.is_empty() {
            self.unnamed = Some(prepared);
        } else {
            self.statements.insert(name.to_owned(), prepared);
        }
        Ok(())
    }

    /// A prepared statement of this text, from the cache if it is there.
    pub(crate) fn prepare(&mut self, text: &str, declared: &[TypeId]) -> Result<Arc<Prepared>, SqlError> {
        if let Some(found) = self.texts.find(text, declared) {
            if let Some(statement) = &found.statement {
                self.check_not_failed(statement)?;
            }
            // One whose plan no longer fits may have other columns by now: this one is new.
            self.ensure_transaction()?;
            self.queried = true;
            let view = self.catalog_view()?;
            if found.plan(&view, self.settings_version.get()).is_some() {
                return Ok(found);
            }
        }
        let text: Arc<str> = Arc::from(text);
        let mut statements = parse::parse(&text)?;
        if statements.len() > 1 {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            ));
        }
        let statement = statements.pop().map(|parsed| parsed.statement);
        let prepared = self.prepare_tree(text, statement, declared.to_vec())?;
        if prepared.statement.as_ref().is_some_and(is_data) {
            self.texts.insert(&prepared);
        }
        Ok(prepared)
    }

    /// Binds a tree far enough to know its parameters and columns, and plans it.
    pub(crate) fn prepare_tree(
        &mut self,
        text: Arc<str>,
        statement: Option<Statement>,
        declared: Vec<TypeId>,
    ) -> Result<Arc<Prepared>, SqlError> {
        let Some(tree) = &statement else {
            return Ok(Arc::new(Prepared::new(text, None, declared, Vec::new(), None)));
        };
        self.check_not_failed(tree)?;
        if !is_data(tree) {
            let columns = self.utility_columns(tree)?;
            return Ok(Arc::new(Prepared::new(
                text,
                statement,
                declared.clone(),
                declared,
                columns,
            )));
        }
        self.ensure_transaction()?;
        self.queried = true;
        let view = self.catalog_view()?;
        let plan = self.make_plan(tree, &text, (declared.clone(), true), &view, false)?;
        let columns = plan.returns_rows.then(|| plan.columns.clone());
        let prepared = Prepared::new(text, statement, declared, plan.params.clone(), columns);
        prepared.set_plan(view, self.settings_version.get(), plan);
        Ok(Arc::new(prepared))
    }

    fn utility_columns(
        &self,
        statement: &Statement,
    ) -> Result<Option<Vec<crate::bind::tree::OutputColumn>>, SqlError> {
        Ok(match statement {
            Statement::Show(name) if name == "all" => Some(
                ["name", "setting", "description"]
                    .map(utility::text_column)
                    .to_vec(),
            ),
            Statement::Show(name) => {
                let shown = towline_base::settings::table::find(name).map_or(name.as_str(), |def| def.name);
                Some(vec![utility::text_column(shown)])
            }
            Statement::Explain(..) => Some(vec![utility::text_column("QUERY PLAN")]),
            Statement::Execute(name, _) => {
                let found = self
                    .statements
                    .get(name.text.as_str())
                    .ok_or_else(|| no_statement(&name.text))?;
                found.columns.clone()
            }
            _ => None,
        })
    }

    /// Bind: makes a portal. Formats as in the protocol: none = text, one = for all, else one each.
    pub fn bind(
        &mut self,
        portal: &str,
        statement: &str,
        param_formats: &[i16],
        params: &[Option<&[u8]>],
        result_formats: &[i16],
    ) -> Result<(), SqlError> {
        self.on_stack(|session| {
            let result = session.bind_inner(portal, statement, param_formats, params, result_formats);
            session.settle(result)
        })
    }

    fn bind_inner(
        &mut self,
        portal: &str,
        statement: &str,
        param_formats: &[i16],
        params: &[Option<&[u8]>],
        result_formats: &[i16],
    ) -> Result<(), SqlError> {
        let prepared = self.statement_named(statement)?;
        if let Some(tree) = &prepared.statement {
            self.check_not_failed(tree)?;
        }
        if params.len() != prepared.params.len() {
            return Err(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but prepared statement \"{statement}\" requires {}",
                    params.len(),
                    prepared.params.len()
                ),
            ));
        }
        let columns = prepared.columns.as_ref().map_or(0, Vec::len);
        if result_formats.len() > 1 && result_formats.len() != columns {
            return Err(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message has {} result formats but query has {columns} columns",
                    result_formats.len()
                ),
            ));
        }
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_CURSOR,
                format!("cursor \"{portal}\" already exists"),
            ));
        }
        self.ensure_transaction()?;
        let mut values = Vec::with_capacity(params.len());
        for (index, (value, ty)) in params.iter().zip(&prepared.params).enumerate() {
            values.push(match value {
                None => Datum::Null,
                Some(bytes) => self.parameter(bytes, *ty, prepared::format_of(param_formats, index))?,
            });
        }
        let made = Portal::new(prepared, values, result_formats.to_vec(), false);
        // The entry of a portal that is used again and again keeps its key.
        match self.portals.get_mut(portal) {
            Some(slot) => *slot = made,
            None => {
                self.portals.insert(portal.to_owned(), made);
            }
        }
        Ok(())
    }

    fn parameter(&mut self, bytes: &[u8], ty: TypeId, format: i16) -> Result<Datum, SqlError> {
        if format == 1 {
            return Ok(parse_binary(ColumnType::new(ty), bytes)?);
        }
        let text = check_utf8(bytes)?;
        if ty.is_reg() {
            let view = self.catalog_view()?;
            return context::SessionContext::new(self, &view)
                .reg_in(ty, text)
                .map(Datum::Oid);
        }
        Ok(parse_text(ColumnType::new(ty), text, &self.style)?)
    }

    fn statement_named(&self, name: &str) -> Result<Arc<Prepared>, SqlError> {
        let found = if name.is_empty() {
            self.unnamed.as_ref()
        } else {
            self.statements.get(name)
        };
        found.cloned().ok_or_else(|| no_statement(name))
    }

    /// Describe a statement.
    pub fn describe_statement(&mut self, name: &str) -> Result<StatementDescription, SqlError> {
        let result = self.statement_named(name).map(|prepared| StatementDescription {
            params: prepared.params.iter().map(|ty| ty.oid()).collect(),
            rows: prepared.description(&[]),
        });
        self.on_stack(|session| session.settle(result))
    }

    /// Describe a portal; `None`: no rows.
    pub fn describe_portal(&mut self, name: &str) -> Result<Option<RowDescription>, SqlError> {
        let result = match self.portals.get(name) {
            Some(portal) => Ok(portal.prepared.description(&portal.formats)),
            None => Err(no_portal(name)),
        };
        self.on_stack(|session| session.settle(result))
    }

    /// Close a statement; an unknown name is no error.
    pub fn close_statement(&mut self, name: &str) {
        self.on_stack(|session| {
            if name.is_empty() {
                session.unnamed = None;
            } else {
                session.statements.remove(name);
            }
        });
    }

    /// Close a portal; an unknown name is no error.
    pub fn close_portal(&mut self, name: &str) {
        self.on_stack(|session| drop(session.portals.remove(name)));
    }

    /// Execute: runs a portal for at most `max_rows` rows (0 = all).
    pub fn execute(
        &mut self,
        portal: &str,
        max_rows: u32,
        out: &mut dyn RowSink,
    ) -> Result<Execution, SqlError> {
        self.on_stack(|session| session.execute_here(portal, max_rows, out))
    }

    fn execute_here(
        &mut self,
        portal: &str,
        max_rows: u32,
        out: &mut dyn RowSink,
    ) -> Result<Execution, SqlError> {
        let Some(found) = self.portals.remove(portal) else {
            let result = Err(no_portal(portal));
            return self.settle(result);
        };
        if found.is_spent() {
            let result = Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("portal \"{portal}\" cannot be run"),
            ));
            return self.settle(result);
        }
        self.show_query(&found.prepared.text);
        self.running = Some(Running::Portal(
            Box::new(found),
            portal.to_owned(),
            u64::from(max_rows),
        ));
        self.resume(out)
    }
}

/// 34000
fn no_portal(name: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_CURSOR_NAME,
        format!("portal \"{name}\" does not exist"),
    )
}
