//! FROM: tables, derived tables, functions, joins, and the names they bring.

use towline_access::catalog::RelationKind;
use towline_base::SqlState;
use towline_types::{ColumnType, TypeId};

use super::Binder;
use super::scope::{Clause, Scope, Visible, table_columns};
use super::tree::{From, Join, OutputColumn, Source, Subquery};
use crate::error::SqlError;
use crate::expr::{ResolvedCall, ScalarExpr};
use crate::parse::ast::{Alias, Call, FromItem, JoinCondition, JoinKind, Name};

impl Binder<'_> {
    /// The comma list of FROM; its names become the level's scope.
    pub(super) fn bind_from(&mut self, list: &[FromItem]) -> Result<Vec<From>, SqlError> {
        let mut trees = Vec::with_capacity(list.len());
        for item in list {
            let (tree, scope) = self.bind_item(item)?;
            let mut whole = std::mem::take(&mut self.level().scope);
            self.merge(&mut whole, scope)?;
            self.level().scope = whole;
            trees.push(tree);
        }
        Ok(trees)
    }

    /// Joins two scopes; 42712 for a name given twice.
    pub(super) fn merge(&mut self, left: &mut Scope, right: Scope) -> Result<(), SqlError> {
        for item in &right.items {
            let twice = left.items.iter().any(|other| {
                other.alias == item.alias
                    && (other.schema.is_none() || item.schema.is_none() || other.schema == item.schema)
            });
            if twice {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_ALIAS,
                    format!("table name \"{}\" specified more than once", item.alias),
                ));
            }
        }
        left.items.extend(right.items);
        left.star.extend(right.star);
        Ok(())
    }

    fn bind_item(&mut self, item: &FromItem) -> Result<(From, Scope), SqlError> {
        match item {
            FromItem::Table(name, alias) => self.bind_table(name, alias),
            FromItem::Query(query, alias, lateral, pos) => {
                let (bound, outer) = self.derived(query, *lateral)?;
                let columns = self.alias_columns(bound.columns.clone(), alias, *pos)?;
                let name = alias
                    .name
                    .as_ref()
                    .map(|name| name.text.clone())
                    .unwrap_or_default();
                let source = Source::Query(Box::new(Subquery {
                    query: bound,
                    outer,
                    cast: None,
                }));
                let (index, scope) = self.add_table(name, None, source, columns);
                Ok((From::Table(index), scope))
            }
            FromItem::Function(call, alias, ordinality) => self.bind_function(call, alias, *ordinality),
            FromItem::Join {
                kind,
                left,
                right,
                condition,
                pos,
            } => {
                let (left_tree, left_scope) = self.bind_item(left)?;
                // The left side is in reach of LATERAL items on the right.
                let saved = self.level().scope.clone();
                let mut reach = saved.clone();
                reach.items.extend(left_scope.items.clone());
                reach.star.extend(left_scope.star.clone());
                self.level().scope = reach;
                let right_result = self.bind_item(right);
                self.level().scope = saved;
                let (right_tree, right_scope) = right_result?;
                self.join(
                    *kind,
                    (left_tree, left_scope),
                    (right_tree, right_scope),
                    condition,
                    *pos,
                )
            }
        }
    }

    fn bind_table(&mut self, name: &[Name], alias: &Alias) -> Result<(From, Scope), SqlError> {
        let given = alias.name.as_ref().map(|name| name.text.clone());
        if let [single] = name
            && let Some(entry) = self
                .common
                .iter()
                .rev()
                .find(|entry| entry.table.name.text == single.text)
                .cloned()
        {
            let scope = std::mem::take(&mut self.level().scope);
            let bound = self.common_query(&entry);
            self.level().scope = scope;
            let (query, outer) = bound?;
            let inner = Alias {
                name: None,
                columns: entry.table.columns.clone(),
            };
            let columns = self.alias_columns(query.columns.clone(), &inner, single.pos)?;
            let columns = self.alias_columns(columns, alias, single.pos)?;
            let source = Source::Query(Box::new(Subquery {
                query,
                outer,
                cast: None,
            }));
            let (index, scope) = self.add_table(
                given.unwrap_or_else(|| single.text.clone()),
                None,
                source,
                columns,
            );
            return Ok((From::Table(index), scope));
        }
        if let [single] = name
            && self.recursive.as_deref() == Some(single.text.as_str())
        {
            return self.unsupported(single.pos, "WITH RECURSIVE");
        }
        let table = self.find_table(name)?;
        let columns = self.alias_columns(table_columns(&table), alias, name[0].pos)?;
        let schema = given.is_none().then(|| table.schema_name.to_string());
        let shown = given.unwrap_or_else(|| table.name.to_string());
        let source = if table.kind == RelationKind::View {
            Source::View(table)
        } else {
            Source::Table(table)
        };
        let (index, scope) = self.add_table(shown, schema, source, columns);
        Ok((From::Table(index), scope))
    }

    /// Renames columns by an alias list.
    fn alias_columns(
        &mut self,
        mut columns: Vec<OutputColumn>,
        alias: &Alias,
        pos: u32,
    ) -> Result<Vec<OutputColumn>, SqlError> {
        let live = columns.iter().filter(|column| !column.name.is_empty()).count();
        if alias.columns.len() > live {
            let name = alias.name.as_ref().map_or("", |name| name.text.as_str());
            return Err(self.error(
                pos,
                SqlState::INVALID_COLUMN_REFERENCE,
                format!(
                    "table \"{name}\" has {live} columns available but {} columns specified",
                    alias.columns.len()
                ),
            ));
        }
        let live = columns.iter_mut().filter(|column| !column.name.is_empty());
        for (column, name) in live.zip(&alias.columns) {
            column.name.clone_from(&name.text);
        }
        Ok(columns)
    }

    fn bind_function(
        &mut self,
        call: &Call,
        alias: &Alias,
        ordinality: bool,
    ) -> Result<(From, Scope), SqlError> {
        let clause = std::mem::replace(&mut self.level().clause, Clause::FromFunction);
        let name = call.name.last().map(|name| name.text.clone()).unwrap_or_default();
        let resolved = self.resolve_call(call, &name);
        self.level().clause = clause;
        let shown = alias
            .name
            .as_ref()
            .map_or_else(|| name.clone(), |alias| alias.text.clone());
        let column = |name: &str, ty: ColumnType| OutputColumn {
            name: name.to_owned(),
            ty,
            origin: (0, 0),
        };
        let (source, mut columns) = match resolved? {
            ResolvedCall::Set(set) => {
                // A single column is named like the alias.
                let columns = match set.columns.as_slice() {
                    [(_, ty)] => vec![column(&shown, *ty)],
                    many => many.iter().map(|(name, ty)| column(name, *ty)).collect(),
                };
                (Source::Function(set, ordinality), columns)
            }
            ResolvedCall::Scalar(expr) => {
                let columns = vec![column(&shown, expr.ty())];
                (Source::Scalar(expr, ordinality), columns)
            }
            ResolvedCall::Aggregate(_) => {
                return Err(self.error(
                    call.pos,
                    SqlState::GROUPING_ERROR,
                    "aggregate functions are not allowed in functions in FROM",
                ));
            }
        };
        if ordinality {
            columns.push(column("ordinality", ColumnType::new(TypeId::Int8)));
        }
        let columns = self.alias_columns(columns, alias, call.pos)?;
        let (index, scope) = self.add_table(shown, None, source, columns);
        Ok((From::Table(index), scope))
    }

    fn join(
        &mut self,
        kind: JoinKind,
        (left_tree, left): (From, Scope),
        (right_tree, right): (From, Scope),
        condition: &JoinCondition,
        pos: u32,
    ) -> Result<(From, Scope), SqlError> {
        let names: Option<Vec<Name>> = match condition {
            JoinCondition::Using(names) => Some(names.clone()),
            JoinCondition::Natural => Some(
                left.star
                    .iter()
                    .filter(|column| right.star.iter().any(|other| other.name == column.name))
                    .map(|column| Name {
                        text: column.name.clone(),
                        pos,
                    })
                    .collect(),
            ),
            JoinCondition::None | JoinCondition::On(_) => None,
        };
        let mut scope = left.clone();
        self.merge(&mut scope, right.clone())?;
        let conjuncts = match (condition, names) {
            (JoinCondition::On(expr), _) => {
                // ON sees the two sides, and what encloses the query.
                let saved = std::mem::replace(&mut self.level().scope, scope.clone());
                let clause = self.level().clause;
                let result = self.condition(expr, Clause::On);
                self.level().scope = saved;
                self.level().clause = clause;
                result?
            }
            (_, Some(names)) => {
                let mut conjuncts = Vec::with_capacity(names.len());
                let mut merged = Vec::with_capacity(names.len());
                for name in &names {
                    let (conjunct, column) = self.using_column(kind, &left, &right, name)?;
                    conjuncts.push(conjunct);
                    merged.push(column);
                }
                let plain = |column: &&Visible| !names.iter().any(|name| name.text == column.name);
                merged.extend(left.star.iter().filter(plain).cloned());
                merged.extend(right.star.iter().filter(plain).cloned());
                scope.star = merged;
                conjuncts
            }
            _ => Vec::new(),
        };
        let join = Join {
            kind,
            left: left_tree,
            right: right_tree,
            condition: conjuncts,
        };
        Ok((From::Join(Box::new(join)), scope))
    }

    fn using_column(
        &mut self,
        kind: JoinKind,
        left: &Scope,
        right: &Scope,
        name: &Name,
    ) -> Result<(ScalarExpr, Visible), SqlError> {
        let side = |scope: &Scope, which: &str| {
            let mut found = scope.star.iter().filter(|column| column.name == name.text);
            match (found.next(), found.next()) {
                (Some(one), None) => Ok(one.clone()),
                (Some(_), Some(_)) => Err(self.error(
                    name.pos,
                    SqlState::AMBIGUOUS_COLUMN,
                    format!(
                        "common column name \"{}\" appears more than once in {which} table",
                        name.text
                    ),
                )),
                (None, _) => Err(self.error(
                    name.pos,
                    SqlState::UNDEFINED_COLUMN,
                    format!(
                        "column \"{}\" specified in USING clause does not exist in {which} table",
                        name.text
                    ),
                )),
            }
        };
        let (left, right) = (side(left, "left")?, side(right, "right")?);
        let result = self.build().binary("=", left.expr.clone(), right.expr.clone());
        let conjunct = result.map_err(|error| self.at(error, name.pos))?;
        let expr = match kind {
            JoinKind::Inner | JoinKind::Left => left.expr.clone(),
            JoinKind::Right => right.expr.clone(),
            JoinKind::Full => self
                .build()
                .coalesce(vec![left.expr.clone(), right.expr.clone()])?,
        };
        let origin = if matches!(kind, JoinKind::Right) {
            right.origin
        } else {
            left.origin
        };
        Ok((
            conjunct,
            Visible {
                name: name.text.clone(),
                expr,
                origin,
            },
        ))
    }
}
