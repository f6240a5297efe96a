//! What names mean at a point of a query.

use std::sync::Arc;

use towline_access::catalog::Table;
use towline_base::SqlState;
use towline_types::ColumnType;

use super::Binder;
use super::tree::{OutputColumn, RangeTable, SYSTEM_COLUMNS, Source};
use crate::error::SqlError;
use crate::expr::{AggregateCall, ScalarExpr, SetCall};
use crate::parse::ast::{Name, Pos};

/// Where an expression stands: decides what it may contain and how a refusal reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clause {
    Target,
    Where,
    On,
    GroupBy,
    Having,
    OrderBy,
    DistinctOn,
    Limit,
    Offset,
    Values,
    InsertValues,
    Set,
    Returning,
    FromFunction,
    Default,
}

impl Clause {
    pub(super) fn name(self) -> &'static str {
        match self {
            Clause::Target => "SELECT",
            Clause::Where => "WHERE",
            Clause::On => "JOIN conditions",
            Clause::GroupBy => "GROUP BY",
            Clause::Having => "HAVING",
            Clause::OrderBy => "ORDER BY",
            Clause::DistinctOn => "DISTINCT ON",
            Clause::Limit => "LIMIT",
            Clause::Offset => "OFFSET",
            Clause::Values | Clause::InsertValues => "VALUES",
            Clause::Set => "UPDATE",
            Clause::Returning => "RETURNING",
            Clause::FromFunction => "functions in FROM",
            Clause::Default => "DEFAULT expressions",
        }
    }

    pub(super) fn allows_aggregates(self) -> bool {
        matches!(
            self,
            Clause::Target | Clause::Having | Clause::OrderBy | Clause::DistinctOn
        )
    }

    pub(super) fn allows_sets(self) -> bool {
        matches!(
            self,
            Clause::Target | Clause::OrderBy | Clause::DistinctOn | Clause::GroupBy
        )
    }
}

/// A column as a name reaches it.
#[derive(Clone, Debug)]
pub(super) struct Visible {
    pub(super) name: String,
    pub(super) expr: ScalarExpr,
    pub(super) origin: (u32, i16),
}

/// A table as a qualified name reaches it.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) alias: String,
    /// The schema, when the table was written without an alias.
    pub(super) schema: Option<String>,
    pub(super) columns: Vec<Visible>,
    /// Number of its first system column and its OID.
    pub(super) system: Option<usize>,
}

/// The names of a FROM clause, or of a part of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    pub(super) items: Vec<Item>,
    /// What `*` gives and unqualified names see.
    pub(super) star: Vec<Visible>,
}

/// One query being bound.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) scope: Scope,
    pub(super) clause: Clause,
    pub(super) tables: Vec<RangeTable>,
    pub(super) next_base: usize,
    pub(super) outer: Vec<ScalarExpr>,
    pub(super) aggregates: Vec<AggregateCall>,
    pub(super) sets: Vec<SetCall>,
    /// Where columns were named outside of aggregates, for the error of grouping.
    pub(super) named: Vec<(usize, Pos)>,
    pub(super) in_aggregate: bool,
}

impl Level {
    pub(super) fn new(clause: Clause) -> Self {
        Level {
            scope: Scope::default(),
            clause,
            tables: Vec::new(),
            next_base: 0,
            outer: Vec::new(),
            aggregates: Vec::new(),
            sets: Vec::new(),
            named: Vec::new(),
            in_aggregate: false,
        }
    }
}

enum Found {
    One(ScalarExpr),
    None,
    Ambiguous,
}

impl Binder<'_> {
    /// Adds an entry to the range table and gives the names it brings.
    pub(super) fn add_table(
        &mut self,
        alias: String,
        schema: Option<String>,
        source: Source,
        columns: Vec<OutputColumn>,
    ) -> (usize, Scope) {
        let level = self.level();
        let base = level.next_base;
        let index = level.tables.len();
        let entry = RangeTable {
            alias: alias.clone(),
            source,
            base,
            columns,
        };
        level.next_base += entry.width();
        let columns: Vec<Visible> = entry
            .columns
            .iter()
            .enumerate()
            .map(|(offset, column)| Visible {
                name: column.name.clone(),
                expr: ScalarExpr::Column {
                    index: base + offset,
                    ty: column.ty,
                },
                origin: column.origin,
            })
            .collect();
        let system = matches!(entry.source, Source::Table(_)).then_some(base + entry.columns.len());
        level.tables.push(entry);
        let star = columns
            .iter()
            .filter(|column| !column.name.is_empty())
            .cloned()
            .collect();
        (
            index,
            Scope {
                items: vec![Item {
                    alias,
                    schema,
                    columns,
                    system,
                }],
                star,
            },
        )
    }

    /// The names of a stored table's columns.
    pub(super) fn table_scope(&mut self, table: &Arc<Table>, alias: Option<&str>) -> Scope {
        let schema = alias.is_none().then(|| table.schema_name.to_string());
        let name = alias.map_or_else(|| table.name.to_string(), str::to_owned);
        self.add_table(name, schema, Source::Table(table.clone()), table_columns(table))
            .1
    }

    /// A column by its parts; 42703, 42702, 42P01.
    pub(super) fn column(&mut self, name: &[Name]) -> Result<ScalarExpr, SqlError> {
        let top = self.levels.len();
        for up in 0..top {
            let at = top - 1 - up;
            match find(&self.levels[at].scope, name) {
                Found::One(expr) => {
                    if up == 0
                        && let ScalarExpr::Column { index, .. } = &expr
                        && !self.levels[at].in_aggregate
                    {
                        let index = *index;
                        self.levels[at].named.push((index, name[0].pos));
                    }
                    return Ok(self.bring_down(expr, at));
                }
                Found::Ambiguous => {
                    let last = &name[name.len() - 1];
                    return Err(self.error(
                        name[0].pos,
                        SqlState::AMBIGUOUS_COLUMN,
                        format!("column reference \"{}\" is ambiguous", last.text),
                    ));
                }
                Found::None => {}
            }
        }
        // A table's name by itself is its row.
        if let [table] = name {
            for at in (0..top).rev() {
                let found = self.levels[at]
                    .scope
                    .items
                    .iter()
                    .find(|item| item.alias == table.text)
                    .cloned();
                if let Some(item) = found {
                    let columns = item.columns.into_iter().filter(|column| !column.name.is_empty());
                    return Ok(ScalarExpr::Row(
                        columns.map(|column| self.bring_down(column.expr, at)).collect(),
                    ));
                }
            }
        }
        Err(self.no_column(name))
    }

    /// Makes an expression of level `at` usable at the innermost level: each level between passes it on.
    fn bring_down(&mut self, expr: ScalarExpr, at: usize) -> ScalarExpr {
        let mut expr = expr;
        for level in self.levels.iter_mut().skip(at + 1) {
            let ty = expr.ty();
            let shown = format!("{expr:?}");
            let known = level.outer.iter().position(|other| format!("{other:?}") == shown);
            let index = known.unwrap_or_else(|| {
                level.outer.push(expr);
                level.outer.len() - 1
            });
            expr = ScalarExpr::Outer { index, ty };
        }
        expr
    }

    #[cold]
    fn no_column(&self, name: &[Name]) -> SqlError {
        let pos = name[0].pos;
        let [qualifier @ .., column] = name else {
            return SqlError::internal("empty name");
        };
        let Some(table) = qualifier.last() else {
            return self.error(
                pos,
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{}\" does not exist", column.text),
            );
        };
        let known = self
            .levels
            .iter()
            .rev()
            .flat_map(|level| &level.scope.items)
            .find(|item| item_matches(item, qualifier));
        if known.is_some() {
            return self.error(
                pos,
                SqlState::UNDEFINED_COLUMN,
                format!("column {}.{} does not exist", table.text, column.text),
            );
        }
        let hidden = self
            .levels
            .iter()
            .rev()
            .flat_map(|level| &level.tables)
            .find(|entry| entry.alias == table.text);
        if hidden.is_some() {
            return self
                .error(
                    pos,
                    SqlState::UNDEFINED_TABLE,
                    format!("invalid reference to FROM-clause entry for table \"{}\"", table.text),
                )
                .with_hint(format!(
                    "There is an entry for table \"{}\", but it cannot be referenced from this part of the query.",
                    table.text
                ));
        }
        // Named by its own name where the query has given it another.
        let renamed = self
            .levels
            .iter()
            .rev()
            .flat_map(|level| &level.tables)
            .find(|entry| matches!(&entry.source, Source::Table(known) if *known.name == *table.text));
        if let Some(entry) = renamed {
            return self
                .error(
                    pos,
                    SqlState::UNDEFINED_TABLE,
                    format!(
                        "invalid reference to FROM-clause entry for table \"{}\"",
                        table.text
                    ),
                )
                .with_hint(format!(
                    "Perhaps you meant to reference the table alias \"{}\".",
                    entry.alias
                ));
        }
        self.error(
            pos,
            SqlState::UNDEFINED_TABLE,
            format!("missing FROM-clause entry for table \"{}\"", table.text),
        )
    }

    /// The columns of `t.*`.
    pub(super) fn star_of(&mut self, name: &[Name]) -> Result<Vec<Visible>, SqlError> {
        let top = self.levels.len();
        for up in 0..top {
            let at = top - 1 - up;
            let found = self.levels[at]
                .scope
                .items
                .iter()
                .find(|item| item_matches(item, name))
                .cloned();
            if let Some(item) = found {
                let columns = item.columns.into_iter().filter(|column| !column.name.is_empty());
                let columns: Vec<Visible> = columns
                    .map(|column| Visible {
                        expr: self.bring_down(column.expr.clone(), at),
                        ..column
                    })
                    .collect();
                if up == 0 {
                    for column in &columns {
                        if let ScalarExpr::Column { index, .. } = column.expr {
                            self.levels[at].named.push((index, name[0].pos));
                        }
                    }
                }
                return Ok(columns);
            }
        }
        let table = &name[name.len() - 1];
        Err(self.error(
            name[0].pos,
            SqlState::UNDEFINED_TABLE,
            format!("missing FROM-clause entry for table \"{}\"", table.text),
        ))
    }

    /// The range table entry that a bare name means in FOR UPDATE OF.
    pub(super) fn entry_named(&self, name: &str) -> Option<usize> {
        self.levels
            .last()?
            .tables
            .iter()
            .position(|entry| entry.alias == name)
    }
}

/// The visible columns of a stored table; dropped ones keep their place under an empty name.
pub(super) fn table_columns(table: &Table) -> Vec<OutputColumn> {
    table
        .columns
        .iter()
        .map(|column| OutputColumn {
            name: if column.dropped {
                String::new()
            } else {
                column.name.to_string()
            },
            ty: column.column_type,
            origin: (table.oid.0, column.number),
        })
        .collect()
}

fn item_matches(item: &Item, qualifier: &[Name]) -> bool {
    match qualifier {
        [table] => item.alias == table.text,
        [schema, table] => item.alias == table.text && item.schema.as_deref() == Some(schema.text.as_str()),
        [_, schema, table] => {
            item.alias == table.text && item.schema.as_deref() == Some(schema.text.as_str())
        }
        _ => false,
    }
}

fn find(scope: &Scope, name: &[Name]) -> Found {
    let [qualifier @ .., column] = name else {
        return Found::None;
    };
    if qualifier.is_empty() {
        let mut matches = scope.star.iter().filter(|visible| visible.name == column.text);
        return match (matches.next(), matches.next()) {
            (Some(one), None) => Found::One(one.expr.clone()),
            (Some(_), Some(_)) => Found::Ambiguous,
            (None, _) => {
                let mut system = scope
                    .items
                    .iter()
                    .filter_map(|item| system_column(item, &column.text));
                match (system.next(), system.next()) {
                    (Some(one), None) => Found::One(one),
                    (Some(_), Some(_)) => Found::Ambiguous,
                    _ => Found::None,
                }
            }
        };
    }
    let mut items = scope.items.iter().filter(|item| item_matches(item, qualifier));
    let Some(item) = items.next() else {
        return Found::None;
    };
    let mut matches = item.columns.iter().filter(|visible| visible.name == column.text);
    match (matches.next(), matches.next()) {
        (Some(one), None) => Found::One(one.expr.clone()),
        (Some(_), Some(_)) => Found::Ambiguous,
        (None, _) => system_column(item, &column.text).map_or(Found::None, Found::One),
    }
}

fn system_column(item: &Item, name: &str) -> Option<ScalarExpr> {
    let first = item.system?;
    let offset = SYSTEM_COLUMNS.iter().position(|(column, ..)| *column == name)?;
    let (_, id, _) = SYSTEM_COLUMNS[offset];
    Some(ScalarExpr::Column {
        index: first + offset,
        ty: ColumnType::new(id),
    })
}
