//! Grouping: from a query's own columns to the row of a group.

use towline_base::SqlState;
use towline_types::ColumnType;

use super::Binder;
use super::tree::{AGGREGATE_BASE, SET_BASE, SYSTEM_COLUMNS, Source};
use crate::error::SqlError;
use crate::expr::ScalarExpr;

/// Same expression? By structure, ignoring what does not matter.
pub(super) fn same(left: &ScalarExpr, right: &ScalarExpr) -> bool {
    match (left, right) {
        (ScalarExpr::Column { index: a, .. }, ScalarExpr::Column { index: b, .. }) => a == b,
        (ScalarExpr::Column { .. }, _) | (_, ScalarExpr::Column { .. }) => false,
        _ => left.ty() == right.ty() && left.is_same(right),
    }
}

impl Binder<'_> {
    /// Rewrites an expression over the query's columns into one over the group row. `keys` may grow by columns that
    /// depend on a primary key among them.
    pub(super) fn group_form(
        &mut self,
        expr: &mut ScalarExpr,
        keys: &mut Vec<ScalarExpr>,
    ) -> Result<(), SqlError> {
        if let Some(index) = keys.iter().position(|key| same(key, expr)) {
            *expr = ScalarExpr::Column { index, ty: expr.ty() };
            return Ok(());
        }
        if let ScalarExpr::Column { index, ty } = expr {
            if *index >= SET_BASE {
                return Ok(());
            }
            if *index >= AGGREGATE_BASE {
                return Ok(());
            }
            let (index, ty) = (*index, *ty);
            if !self.depends_on_key(index, keys) {
                return Err(self.ungrouped(index));
            }
            keys.push(ScalarExpr::Column { index, ty });
            *expr = ScalarExpr::Column {
                index: keys.len() - 1,
                ty,
            };
            return Ok(());
        }
        let mut result = Ok(());
        expr.for_each_child_mut(&mut |child| {
            if result.is_ok() {
                result = self.group_form(child, keys);
            }
        });
        result?;
        if let ScalarExpr::Subquery { slot, .. } = expr {
            let slot = *slot;
            let mut outer = std::mem::take(&mut self.subqueries[slot].outer);
            for value in &mut outer {
                self.group_form(value, keys)?;
            }
            self.subqueries[slot].outer = outer;
        }
        Ok(())
    }

    /// After all keys are known: aggregates stand behind them.
    pub(super) fn place_aggregates(&mut self, expr: &mut ScalarExpr, keys: usize) {
        if let ScalarExpr::Column { index, .. } = expr {
            if *index >= AGGREGATE_BASE && *index < SET_BASE {
                *index = *index - AGGREGATE_BASE + keys;
            }
            return;
        }
        expr.for_each_child_mut(&mut |child| self.place_aggregates(child, keys));
        if let ScalarExpr::Subquery { slot, .. } = expr {
            let slot = *slot;
            let mut outer = std::mem::take(&mut self.subqueries[slot].outer);
            for value in &mut outer {
                self.place_aggregates(value, keys);
            }
            self.subqueries[slot].outer = outer;
        }
    }

    /// Is the column's table grouped by its primary key?
    fn depends_on_key(&mut self, column: usize, keys: &[ScalarExpr]) -> bool {
        let level = self.level();
        let Some(entry) = level
            .tables
            .iter()
            .find(|entry| (entry.base..entry.base + entry.width()).contains(&column))
        else {
            return false;
        };
        let Source::Table(table) = &entry.source else {
            return false;
        };
        let Some(primary) = table.primary_key() else {
            return false;
        };
        primary.keys.iter().all(|key| {
            let wanted = entry.base + usize::try_from(key.column - 1).unwrap_or(usize::MAX / 2);
            keys.iter()
                .any(|have| matches!(have, ScalarExpr::Column { index, .. } if *index == wanted))
        })
    }

    #[cold]
    fn ungrouped(&mut self, column: usize) -> SqlError {
        let level = self.level();
        let pos = level
            .named
            .iter()
            .find(|(index, _)| *index == column)
            .map(|(_, pos)| *pos);
        let entry = level
            .tables
            .iter()
            .find(|entry| (entry.base..entry.base + entry.width()).contains(&column));
        let name = entry.map_or_else(String::new, |entry| {
            let offset = column - entry.base;
            let column = match entry.columns.get(offset) {
                Some(column) => column.name.as_str(),
                None => SYSTEM_COLUMNS
                    .get(offset - entry.columns.len())
                    .map_or("?", |(name, ..)| name),
            };
            format!("{}.{column}", entry.alias)
        });
        let message = format!(
            "column \"{name}\" must appear in the GROUP BY clause or be used in an aggregate function"
        );
        let error = SqlError::new(SqlState::GROUPING_ERROR, message);
        pos.map_or(error.clone(), |pos| self.at(error, pos))
    }

    /// True when a placeholder of an aggregate is in the expression.
    pub(super) fn has_aggregate(&self, expr: &ScalarExpr) -> bool {
        expr.any(&|part| matches!(part, ScalarExpr::Column { index, .. } if (AGGREGATE_BASE..SET_BASE).contains(index)))
    }
}

/// Replaces parts that are the same as one of `targets` by a reference to it (sorting above DISTINCT).
pub(super) fn target_reference(expr: &ScalarExpr, targets: &[ScalarExpr]) -> Option<(usize, ColumnType)> {
    targets
        .iter()
        .position(|target| same(target, expr))
        .map(|index| (index, expr.ty()))
}
