//! From the syntax tree to a typed query: names to columns, literals to values, every conversion made visible.
//!
//! The binder looks at the catalog but takes no locks and reads no rows; whoever runs the statement locks its tables and
//! checks that the catalog has not moved. It decides parameter types as it meets them. Errors carry PostgreSQL's
//! SQLSTATE, message and position.

mod dml;
mod expr;
mod from;
mod group;
mod keys;
mod names;
mod quantified;
mod row_locks;
mod scope;
mod select;
mod set_operation;
pub(crate) mod tree;

use std::cell::RefCell;

use towline_access::catalog::{CatalogState, Relation, Table};
use towline_base::SqlState;
use towline_types::{IoStyle, TypeId};

use self::scope::Level;
use self::tree::{Bound, BoundKind, Query, Subquery};
use crate::error::SqlError;
use crate::expr::ExprBuilder;
use crate::parse::ast::{self, CommonTable, Pos, Statement};
use crate::parse::lex::char_position;
use crate::stack::{self, too_deep};

pub(crate) use dml::{column_default, default_expression};
pub(crate) use names::{bind_type, check_storable};

/// What binding needs from the session.
#[derive(Clone, Copy)]
pub(crate) struct BindContext<'a> {
    /// The statement's whole text, for positions.
    pub text: &'a str,
    /// The catalog as the transaction sees it.
    pub catalog: &'a CatalogState,
    /// Schemas that exist, in order of search.
    pub search_path: &'a [&'a str],
    /// How literals are read.
    pub style: &'a IoStyle,
    /// `$n` may be used (not in a text of the simple protocol).
    pub params: bool,
}

/// Binds a data statement. `params` are the declared types, `Unknown` where not declared; more may be met.
pub(crate) fn bind(
    statement: &Statement,
    params: Vec<TypeId>,
    cx: BindContext<'_>,
) -> Result<Bound, SqlError> {
    let mut binder = Binder::new(params, cx);
    let (kind, columns, returns_rows) = match statement {
        Statement::Query(query) => {
            let (query, _) = binder.subquery(query, true)?;
            let columns = query.columns.clone();
            (BoundKind::Query(query), columns, true)
        }
        Statement::Insert(insert) => {
            let (insert, columns) = binder.insert(insert)?;
            let returns = !insert.returning.is_empty();
            (BoundKind::Insert(insert), columns, returns)
        }
        Statement::Update(update) => {
            let (update, columns) = binder.update(update)?;
            let returns = !update.returning.is_empty();
            (BoundKind::Update(update), columns, returns)
        }
        Statement::Delete(delete) => {
            let (delete, columns) = binder.delete(delete)?;
            let returns = !delete.returning.is_empty();
            (BoundKind::Delete(delete), columns, returns)
        }
        _ => return Err(SqlError::internal("not a data statement")),
    };
    if let Some(index) = binder.params.iter().position(|ty| *ty == TypeId::Unknown) {
        return Err(SqlError::new(
            SqlState::INDETERMINATE_DATATYPE,
            format!("could not determine data type of parameter ${}", index + 1),
        ));
    }
    Ok(Bound {
        kind,
        subqueries: binder.subqueries,
        params: binder.params,
        columns,
        returns_rows,
        volatile: binder.volatile,
    })
}

/// Binds an expression without columns (a default, an EXECUTE argument, a COPY … WHERE over `table`'s columns).
pub(crate) fn bind_scalar(
    expr: &ast::Expr,
    table: Option<&std::sync::Arc<Table>>,
    cx: BindContext<'_>,
) -> Result<crate::expr::ScalarExpr, SqlError> {
    let mut binder = Binder::new(Vec::new(), cx);
    binder.levels.push(Level::new(scope::Clause::Default));
    if let Some(table) = table {
        let scope = binder.table_scope(table, None);
        binder.level().scope = scope;
    }
    let expr = binder.expr(expr)?;
    if !binder.subqueries.is_empty() {
        return Err(SqlError::unsupported("a subquery in this place"));
    }
    Ok(expr)
}

/// The state of binding one statement.
pub(crate) struct Binder<'a> {
    cx: BindContext<'a>,
    params: Vec<TypeId>,
    levels: Vec<Level>,
    subqueries: Vec<Subquery>,
    /// WITH entries in reach, innermost last.
    common: Vec<CommonEntry<'a>>,
    /// The WITH RECURSIVE entry being bound.
    recursive: Option<String>,
    /// Above 0: literals of the next select list may stay of unknown type.
    keep_unknown: u32,
    depth: u32,
    max_depth: u32,
    /// WITH entries within which the binder is.
    inlining: u32,
    /// Parts of the tree that stand for something written elsewhere.
    copied: usize,
    /// A volatile function was met.
    volatile: bool,
}

/// Most parts of a tree that are copies: a WITH entry is bound for each of its names, and an operand of
/// BETWEEN for each bound. Where each copy holds two of the next, forty lines of text would fill the memory.
const MAX_COPIED: usize = 1_000_000;
/// What a WITH entry counts beside its expressions.
const ENTRY: usize = 10;

/// The query of a WITH entry, what it needs from outside, and how many levels there were around it.
struct CommonBound {
    query: Query,
    outer: Vec<crate::expr::ScalarExpr>,
    levels: usize,
}

#[derive(Clone)]
struct CommonEntry<'a> {
    table: std::rc::Rc<CommonTable>,
    /// How many entries it may itself see.
    sees: usize,
    /// Its query as it was bound where it is defined, for the first that names it there.
    bound: std::rc::Rc<RefCell<Option<CommonBound>>>,
    marker: std::marker::PhantomData<&'a ()>,
}

impl<'a> Binder<'a> {
    fn new(params: Vec<TypeId>, cx: BindContext<'a>) -> Self {
        let limits = stack::limits();
        Binder {
            cx,
            params,
            levels: Vec::new(),
            subqueries: Vec::new(),
            common: Vec::new(),
            recursive: None,
            keep_unknown: 0,
            depth: 0,
            max_depth: limits.height + limits.depth,
            inlining: 0,
            copied: 0,
            volatile: false,
        }
    }

    /// Counts parts that are made once more; 54001 beyond what a statement may have.
    fn copies(&mut self, parts: usize) -> Result<(), SqlError> {
        self.copied = self.copied.saturating_add(parts);
        if self.copied > MAX_COPIED {
            return Err(too_deep());
        }
        Ok(())
    }

    /// Counts a bound operand that will stand in `times` places besides its own.
    fn copies_of(&mut self, operand: &crate::expr::ScalarExpr, times: usize) -> Result<(), SqlError> {
        let parts = operand.size(MAX_COPIED);
        self.copies(parts.saturating_mul(times))
    }

    fn build(&mut self) -> ExprBuilder<'_> {
        ExprBuilder::new(&mut self.params, self.cx.style)
    }

    fn level(&mut self) -> &mut Level {
        if self.levels.is_empty() {
            self.levels.push(Level::new(scope::Clause::Default));
        }
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    fn error(&self, pos: Pos, sqlstate: SqlState, message: impl Into<String>) -> SqlError {
        SqlError::new(sqlstate, message).with_position(char_position(self.cx.text, pos))
    }

    fn at(&self, error: SqlError, pos: Pos) -> SqlError {
        error.with_position(char_position(self.cx.text, pos))
    }

    fn unsupported<T>(&self, pos: Pos, feature: &str) -> Result<T, SqlError> {
        Err(self.at(SqlError::unsupported(feature), pos))
    }

    fn push_common(&mut self, with: &[CommonTable]) -> Result<usize, SqlError> {
        let mark = self.common.len();
        let mut names = hashbrown::HashSet::new();
        for table in with {
            if !names.insert(table.name.text.as_str()) {
                return Err(self.error(
                    table.name.pos,
                    SqlState::DUPLICATE_ALIAS,
                    format!("WITH query name \"{}\" specified more than once", table.name.text),
                ));
            }
            let sees = self.common.len();
            self.common.push(CommonEntry {
                table: std::rc::Rc::new(table.clone()),
                sees,
                bound: std::rc::Rc::default(),
                marker: std::marker::PhantomData,
            });
        }
        // An entry that nobody names must still be right.
        for index in mark..self.common.len() {
            let entry = self.common[index].clone();
            let (query, outer) = self.common_query(&entry)?;
            let (given, named) = (query.columns.len(), entry.table.columns.len());
            if named > given {
                let name = &entry.table.name;
                return Err(self.error(
                    name.pos,
                    SqlState::INVALID_COLUMN_REFERENCE,
                    format!(
                        "WITH query \"{}\" has {given} columns available but {named} columns specified",
                        name.text
                    ),
                ));
            }
            // Most are named once, in the query they belong to: entries in entries would be bound twice as often at each level.
            let levels = self.levels.len();
            *entry.bound.borrow_mut() = Some(CommonBound { query, outer, levels });
        }
        Ok(mark)
    }

    /// Binds the query of a WITH entry, with the entries it may see.
    fn common_query(
        &mut self,
        entry: &CommonEntry<'a>,
    ) -> Result<(Query, Vec<crate::expr::ScalarExpr>), SqlError> {
        let bound = entry
            .bound
            .borrow_mut()
            .take_if(|bound| bound.levels == self.levels.len());
        if let Some(bound) = bound {
            return Ok((bound.query, bound.outer));
        }
        let outer = std::mem::replace(
            &mut self.recursive,
            entry.table.recursive.then(|| entry.table.name.text.clone()),
        );
        let rest = self.common.split_off(entry.sees);
        self.inlining += 1;
        let result = self
            .copies(ENTRY)
            .and_then(|()| self.subquery(&entry.table.query, false));
        self.inlining -= 1;
        self.common.truncate(entry.sees);
        self.common.extend(rest);
        self.recursive = outer;
        result
    }

    /// Finds a table or virtual view by name.
    fn find_table(&self, name: &[ast::Name]) -> Result<std::sync::Arc<Table>, SqlError> {
        let (schema, table) = self.split_name(name)?;
        match self
            .cx
            .catalog
            .find_relation(schema, &table.text, self.cx.search_path)
        {
            Some(Relation::Table(found)) => Ok(found.clone()),
            Some(Relation::Index(_)) => Err(self.error(
                table.pos,
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is an index", table.text),
            )),
            None => Err(undefined_table(name).with_position(char_position(self.cx.text, name[0].pos))),
        }
    }

    fn split_name<'n>(&self, name: &'n [ast::Name]) -> Result<(Option<&'n str>, &'n ast::Name), SqlError> {
        match name {
            [table] => Ok((None, table)),
            [schema, table] => Ok((Some(&schema.text), table)),
            [database, schema, table] => {
                if database.text != "postgres" {
                    let written: Vec<&str> = name.iter().map(|part| part.text.as_str()).collect();
                    return Err(self.error(
                        database.pos,
                        SqlState::FEATURE_NOT_SUPPORTED,
                        format!(
                            "cross-database references are not implemented: \"{}\"",
                            written.join(".")
                        ),
                    ));
                }
                Ok((Some(&schema.text), table))
            }
            _ => Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "improper qualified name (too many dotted names)",
            )),
        }
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, SqlError>) -> Result<T, SqlError> {
        if self.depth >= self.max_depth {
            return Err(too_deep());
        }
        stack::check()?;
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }
}

/// 42P01 without a position.
pub(crate) fn undefined_table(name: &[ast::Name]) -> SqlError {
    let written: Vec<&str> = name.iter().map(|part| part.text.as_str()).collect();
    SqlError::new(
        SqlState::UNDEFINED_TABLE,
        format!("relation \"{}\" does not exist", written.join(".")),
    )
}
