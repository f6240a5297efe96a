//! Statements that hold another one: PREPARE, EXECUTE, EXPLAIN, COPY.

use std::sync::Arc;

use bytes::BytesMut;
use towline_base::SqlState;
use towline_types::{ColumnType, Datum};

use super::Session;
use super::context::SessionContext;
use super::copy_in::CopyIn;
use super::copy_out::CopyOut;
use super::prepared::{Prepared, no_statement};
use super::run::{Execution, Portal, Stage, Target, is_data};
use super::utility::{Utility, explained};
use crate::error::SqlError;
use crate::explain;
use crate::parse::ast::{self, ExplainOptions, Statement};
use crate::plan::Plan;
use crate::sink::RowSink;
use crate::stack::too_deep;

/// Most statements that execute each other.
pub(super) const MAX_EXECUTES: u32 = 150;

impl Session {
    pub(super) fn start_prepare(
        &mut self,
        portal: &Portal,
        name: &ast::Name,
        types: &[ast::TypeName],
        inner: &Statement,
    ) -> Result<(), SqlError> {
        if self.statements.contains_key(name.text.as_str()) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{}\" already exists", name.text),
            ));
        }
        let text = portal.prepared.text.clone();
        let mut declared = Vec::with_capacity(types.len());
        for ty in types {
            declared.push(crate::bind::bind_type(ty, &text)?.id);
        }
        let prepared = self.prepare_tree(text, Some(inner.clone()), declared)?;
        self.statements.insert(name.text.clone(), prepared);
        Ok(())
    }

    pub(super) fn start_execute(
        &mut self,
        portal: &mut Portal,
        name: &ast::Name,
        args: &[ast::Expr],
    ) -> Result<Stage, SqlError> {
        let prepared = self
            .statements
            .get(name.text.as_str())
            .cloned()
            .ok_or_else(|| no_statement(&name.text))?;
        let params = self.execute_args(&portal.prepared.text.clone(), &name.text, &prepared, args)?;
        // What is executed may be an EXECUTE, by Parse, and that one of the first again.
        portal.replaced += 1;
        if portal.replaced > MAX_EXECUTES {
            return Err(too_deep());
        }
        portal.prepared = prepared;
        portal.params = params;
        Ok(Stage::Start)
    }

    fn execute_args(
        &mut self,
        text: &str,
        name: &str,
        prepared: &Prepared,
        args: &[ast::Expr],
    ) -> Result<Vec<Datum>, SqlError> {
        if args.len() != prepared.params.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("wrong number of parameters for prepared statement \"{name}\""),
            )
            .with_detail(format!(
                "Expected {} parameters but got {}.",
                prepared.params.len(),
                args.len()
            )));
        }
        self.ensure_transaction()?;
        let view = self.catalog_view()?;
        let path = self.search_path();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let cx = crate::bind::BindContext {
            text,
            catalog: &view,
            search_path: &path,
            style: &self.style,
            params: false,
        };
        let context = SessionContext::new(self, &view);
        let mut params = Vec::with_capacity(args.len());
        for (index, (arg, ty)) in args.iter().zip(&prepared.params).enumerate() {
            let bound = crate::bind::bind_scalar(arg, None, cx)?;
            let from = bound.ty();
            let mut none = Vec::new();
            let mut builder = crate::expr::ExprBuilder::new(&mut none, &self.style);
            let coerced = builder.coerce(
                bound,
                ColumnType::new(*ty),
                towline_types::cast::CastContext::Assignment,
            )?;
            let Some(coerced) = coerced else {
                return Err(SqlError::new(
                    SqlState::DATATYPE_MISMATCH,
                    format!(
                        "parameter ${} of type {} cannot be coerced to the expected type {}",
                        index + 1,
                        from.id.sql_name(),
                        ty.sql_name()
                    ),
                )
                .with_hint("You will need to rewrite or cast the expression."));
            };
            let cx = crate::expr::EvalContext {
                params: &[],
                outer: &[],
                style: &self.style,
                functions: &context,
                subqueries: &crate::expr::NoSubqueries,
            };
            params.push(coerced.eval(&[], &cx)?);
        }
        Ok(params)
    }

    pub(super) fn start_explain(
        &mut self,
        portal: &Portal,
        options: ExplainOptions,
        inner: &Statement,
    ) -> Result<Utility, SqlError> {
        let (statement, text, params, values) = match inner {
            Statement::Execute(name, args) => {
                let prepared = self
                    .statements
                    .get(name.text.as_str())
                    .cloned()
                    .ok_or_else(|| no_statement(&name.text))?;
                let values = self.execute_args(&portal.prepared.text.clone(), &name.text, &prepared, args)?;
                let Some(statement) = prepared.statement.clone() else {
                    return Err(SqlError::internal("an empty statement was prepared"));
                };
                (statement, prepared.text.clone(), prepared.params.clone(), values)
            }
            other => (
                other.clone(),
                portal.prepared.text.clone(),
                portal.prepared.params.clone(),
                portal.params.clone(),
            ),
        };
        if !is_data(&statement) {
            return Err(SqlError::unsupported("EXPLAIN of this statement"));
        }
        self.ensure_transaction()?;
        let started = std::time::Instant::now();
        let view = self.catalog_view()?;
        let plan = self.make_plan(&statement, &text, (params, true), &view, true)?;
        let planning = started.elapsed().as_secs_f64() * 1e3;
        if !options.analyze {
            let mut lines = explain::plan_lines(&plan, &options, None);
            if options.summary == Some(true) {
                lines.push(format!("Planning Time: {planning:.3} ms"));
            }
            return Ok(explained(lines, portal.announces));
        }
        self.check_writable(&plan)?;
        let mut at = 0;
        // EXPLAIN ANALYZE is for people: it does not queue for locks.
        if self.lock_for(&plan, &mut at)?.is_some() {
            return Err(SqlError::new(
                SqlState::LOCK_NOT_AVAILABLE,
                "a table of the statement is locked by another transaction",
            ));
        }
        let snapshot = self.begin_statement()?;
        let execution = Box::new(Execution::new(plan, view, snapshot, Target::Count, true));
        Ok(Utility::Analyze {
            execution,
            options,
            params: values,
            planning,
            announce: portal.announces,
        })
    }

    pub(super) fn start_copy(
        &mut self,
        portal: &mut Portal,
        copy: &ast::Copy,
        out: &mut dyn RowSink,
    ) -> Result<Stage, SqlError> {
        let format = CopyOut::format(&copy.options, &portal.prepared.text)?;
        self.ensure_transaction()?;
        if copy.from {
            let copy_in = CopyIn::start(self, copy, format, &portal.prepared.text.clone())?;
            return Ok(Stage::CopyIn(Box::new(copy_in)));
        }
        let query = match &copy.source {
            ast::CopySource::Query(query) => (**query).clone(),
            ast::CopySource::Table(name, columns) => copy_query(name, columns),
        };
        let view = self.catalog_view()?;
        let statement = Statement::Query(Box::new(query));
        let plan: Arc<Plan> = self.make_plan(
            &statement,
            &portal.prepared.text.clone(),
            (Vec::new(), false),
            &view,
            false,
        )?;
        let mut at = 0;
        if let Some(wait) = self.lock_for(&plan, &mut at)? {
            self.pending_wait = Some(wait);
            return Ok(Stage::Start);
        }
        let snapshot = self.begin_statement()?;
        let writer = CopyOut::new(format, &plan.columns);
        out.copy_out(writer.shape());
        let mut writer = Box::new(writer);
        let mut header = BytesMut::new();
        writer.header(&plan.columns, &mut header)?;
        out.buffer().extend_from_slice(&header);
        Ok(Stage::Running(Box::new(Execution::new(
            plan,
            view,
            snapshot,
            Target::Copy(writer),
            false,
        ))))
    }
}

fn copy_query(name: &[ast::Name], columns: &[ast::Name]) -> ast::Query {
    let pos = name.first().map_or(0, |name| name.pos);
    let targets = if columns.is_empty() {
        vec![ast::Target::Star(pos)]
    } else {
        columns
            .iter()
            .map(|column| ast::Target::Expr(ast::Expr::Column(vec![column.clone()]), None))
            .collect()
    };
    ast::Query {
        with: Vec::new(),
        body: ast::Body::Select(Box::new(ast::Select {
            distinct: None,
            targets,
            from: vec![ast::FromItem::Table(name.to_vec(), ast::Alias::default())],
            filter: None,
            group_by: Vec::new(),
            having: None,
        })),
        order_by: Vec::new(),
        limit: None,
        offset: None,
        locking: Vec::new(),
        pos,
    }
}
