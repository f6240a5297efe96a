//! The keys of GROUP BY, ORDER BY and DISTINCT ON: positions, output names, then expressions.

use towline_base::SqlState;

use super::Binder;
use super::expr::pos_of;
use super::group::{same, target_reference};
use super::scope::Clause;
use super::tree::{Distinct, OutputColumn, SortKey};
use crate::error::SqlError;
use crate::expr::ScalarExpr;
use crate::parse::ast::{self, Expr, Literal, Name, SortItem, Target};

impl Binder<'_> {
    pub(super) fn position(
        &self,
        text: &str,
        columns: usize,
        pos: u32,
        clause: &str,
    ) -> Result<usize, SqlError> {
        text.parse::<usize>()
            .ok()
            .filter(|number| (1..=columns).contains(number))
            .map(|number| number - 1)
            .ok_or_else(|| {
                self.error(
                    pos,
                    SqlState::INVALID_COLUMN_REFERENCE,
                    format!("{clause} position {text} is not in select list"),
                )
            })
    }

    pub(super) fn group_keys(
        &mut self,
        keys: &[Expr],
        written: &[Target],
        targets: &[ScalarExpr],
        columns: &[OutputColumn],
    ) -> Result<Vec<ScalarExpr>, SqlError> {
        let mut bound: Vec<ScalarExpr> = Vec::with_capacity(keys.len());
        for key in keys {
            self.level().clause = Clause::GroupBy;
            let expr = match key {
                Expr::Literal(Literal::Int(text), pos) => {
                    targets[self.position(text, columns.len(), *pos, "GROUP BY")?].clone()
                }
                Expr::Column(name) if name.len() == 1 => {
                    // An input column comes before an output column of that name.
                    match self.column(name) {
                        Ok(expr) => expr,
                        Err(error) => self
                            .output_column(&name[0], written, targets, columns)
                            .ok_or(error)?,
                    }
                }
                other => self.expr(other)?,
            };
            if self.has_aggregate(&expr) {
                return Err(self.error(
                    pos_of(key),
                    SqlState::GROUPING_ERROR,
                    "aggregate functions are not allowed in GROUP BY",
                ));
            }
            let expr = self.build().settle(expr)?;
            if !bound.iter().any(|other| same(other, &expr)) {
                bound.push(expr);
            }
        }
        Ok(bound)
    }

    fn output_column(
        &self,
        name: &Name,
        _written: &[Target],
        targets: &[ScalarExpr],
        columns: &[OutputColumn],
    ) -> Option<ScalarExpr> {
        columns
            .iter()
            .position(|column| column.name == name.text)
            .map(|index| targets[index].clone())
    }

    /// ORDER BY of a SELECT: positions, output names, then expressions over the input. Keys that are no target are
    /// added as hidden ones.
    pub(super) fn sort_keys(
        &mut self,
        items: &[SortItem],
        targets: &mut Vec<ScalarExpr>,
        columns: &[OutputColumn],
        clause: Clause,
    ) -> Result<Vec<SortKey>, SqlError> {
        let mut keys = Vec::with_capacity(items.len());
        for item in items {
            self.level().clause = clause;
            let target = self.sort_target(&item.expr, targets, columns, clause)?;
            keys.push(SortKey {
                expr: targets[target].clone(),
                target: Some(target),
                descending: item.descending,
                nulls_first: item.nulls_first,
            });
        }
        for key in &mut keys {
            let value = std::mem::replace(&mut key.expr, ScalarExpr::null());
            key.expr = self.build().settle(value)?;
        }
        Ok(keys)
    }

    fn sort_target(
        &mut self,
        expr: &Expr,
        targets: &mut Vec<ScalarExpr>,
        columns: &[OutputColumn],
        clause: Clause,
    ) -> Result<usize, SqlError> {
        let word = if clause == Clause::OrderBy {
            "ORDER BY"
        } else {
            "SELECT DISTINCT ON"
        };
        match expr {
            Expr::Literal(Literal::Int(text), pos) => return self.position(text, columns.len(), *pos, word),
            Expr::Literal(Literal::Str(_) | Literal::Num(_), pos) => {
                return Err(self.error(
                    *pos,
                    SqlState::SYNTAX_ERROR,
                    format!("non-integer constant in {word}"),
                ));
            }
            Expr::Column(name) if name.len() == 1 => {
                let mut found = columns
                    .iter()
                    .enumerate()
                    .filter(|(_, column)| column.name == name[0].text);
                if let Some((first, _)) = found.next() {
                    if found.any(|(other, _)| !same(&targets[first], &targets[other])) {
                        return Err(self.error(
                            name[0].pos,
                            SqlState::AMBIGUOUS_COLUMN,
                            format!("{word} \"{}\" is ambiguous", name[0].text),
                        ));
                    }
                    return Ok(first);
                }
            }
            _ => {}
        }
        let bound = self.expr(expr)?;
        if let Some((index, _)) = target_reference(&bound, targets) {
            return Ok(index);
        }
        targets.push(bound);
        Ok(targets.len() - 1)
    }

    pub(super) fn distinct(
        &mut self,
        select: &ast::Select,
        targets: &mut Vec<ScalarExpr>,
        columns: &[OutputColumn],
    ) -> Result<Option<Distinct>, SqlError> {
        let Some(keys) = &select.distinct else {
            return Ok(None);
        };
        if keys.is_empty() {
            return Ok(Some(Distinct::All));
        }
        let mut numbers = Vec::with_capacity(keys.len());
        for key in keys {
            self.level().clause = Clause::DistinctOn;
            numbers.push(self.sort_target(key, targets, columns, Clause::DistinctOn)?);
        }
        Ok(Some(Distinct::On(numbers)))
    }

    /// The keys of DISTINCT ON must be the first of ORDER BY, in any order among themselves; ORDER BY may end before
    /// it has named all of them.
    pub(super) fn distinct_on_leads(
        &self,
        select: &ast::Select,
        keys: &[usize],
        order_by: &[SortKey],
    ) -> Result<(), SqlError> {
        let is_key = |sort: &&SortKey| sort.target.is_some_and(|target| keys.contains(&target));
        let leading: Vec<usize> = order_by
            .iter()
            .take_while(is_key)
            .filter_map(|sort| sort.target)
            .collect();
        let others = order_by.iter().any(|sort| !is_key(&sort));
        let missing = keys.iter().position(|key| !leading.contains(key));
        match missing.filter(|_| others) {
            None => Ok(()),
            Some(at) => {
                let written = select.distinct.as_ref().and_then(|keys| keys.get(at));
                Err(self.error(
                    written.map_or(0, pos_of),
                    SqlState::INVALID_COLUMN_REFERENCE,
                    "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
                ))
            }
        }
    }
}
