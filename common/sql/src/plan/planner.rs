//! The state of planning one statement, and what every part of it needs: columns to places, labels, filters.

use towline_access::catalog::Table;

use super::cost::filtered;
use super::index::Match;
use super::join::system_column;
use super::{Estimate, IndexRange, Kind, Node, ScanColumn, Statistics, Subplan};
use crate::bind::tree::{self, RangeTable, Select, Subquery};
use crate::error::SqlError;
use crate::expr::ScalarExpr;

/// The state of planning one statement.
pub(crate) struct Planner<'a> {
    bound: Vec<Subquery>,
    subplans: Vec<Option<Subplan>>,
    pub(super) statistics: &'a dyn Statistics,
    pub(super) relations: Vec<(std::sync::Arc<Table>, bool)>,
    pub(super) next_id: usize,
    pub(super) locks_rows: bool,
    pub(super) explain: bool,
    pub(super) depth: u32,
    pub(super) max_depth: u32,
}

/// One query level while it is planned.
pub(super) struct Query<'q> {
    pub(super) select: &'q Select,
    /// The columns that some expression looks at, sorted.
    pub(super) needed: Vec<usize>,
    /// Those of them that no expression looks at: an UPDATE carries them from the old version of a row to the new one.
    pub(super) carried: Vec<usize>,
}

impl Query<'_> {
    /// Layout and columns of a scan of a stored table.
    pub(super) fn needed_scan(&self, range: &RangeTable) -> (Vec<usize>, Vec<ScanColumn>) {
        let layout = self.needed_of(range);
        let columns = layout
            .iter()
            .map(|column| {
                let offset = column - range.base;
                if offset < range.columns.len() {
                    ScanColumn::Attribute(u16::try_from(offset).unwrap_or(u16::MAX))
                } else {
                    system_column(offset - range.columns.len())
                }
            })
            .collect();
        (layout, columns)
    }

    /// The attributes of a table that are only carried.
    pub(super) fn carried_of(&self, range: &RangeTable) -> Vec<u16> {
        let own = range.base..range.base + range.columns.len();
        let carried = self.carried.iter().filter(|column| own.contains(column));
        carried
            .filter_map(|column| u16::try_from(column - range.base).ok())
            .collect()
    }

    /// Layout and column numbers of a scan of a view.
    pub(super) fn needed_plain(&self, range: &RangeTable) -> (Vec<usize>, Vec<usize>) {
        let layout = self.needed_of(range);
        let columns = layout.iter().map(|column| column - range.base).collect();
        (layout, columns)
    }

    fn needed_of(&self, range: &RangeTable) -> Vec<usize> {
        let end = range.base + range.width();
        self.needed
            .iter()
            .copied()
            .filter(|column| (range.base..end).contains(column))
            .collect()
    }
}

impl<'a> Planner<'a> {
    pub(super) fn new(bound: Vec<Subquery>, statistics: &'a dyn Statistics, explain: bool) -> Self {
        Planner {
            bound,
            subplans: Vec::new(),
            statistics,
            relations: Vec::new(),
            next_id: 0,
            locks_rows: false,
            explain,
            depth: 0,
            max_depth: crate::stack::limits().depth,
        }
    }

    pub(super) fn finished_subplans(&mut self) -> Vec<Subplan> {
        std::mem::take(&mut self.subplans).into_iter().flatten().collect()
    }

    pub(super) fn node(&mut self, kind: Kind, layout: Vec<usize>, width: usize, estimate: Estimate) -> Node {
        self.next_id += 1;
        Node {
            kind,
            layout,
            width,
            estimate,
            id: self.next_id - 1,
            labels: Vec::new(),
        }
    }

    pub(super) fn uses(&mut self, table: &std::sync::Arc<Table>) {
        if !self.relations.iter().any(|(other, _)| other.oid == table.oid) {
            self.relations.push((table.clone(), false));
        }
    }

    pub(super) fn changes(&mut self, table: &std::sync::Arc<Table>) {
        match self
            .relations
            .iter_mut()
            .find(|(other, _)| other.oid == table.oid)
        {
            Some((_, changed)) => *changed = true,
            None => self.relations.push((table.clone(), true)),
        }
    }

    /// Every column of this query level that an expression looks at.
    pub(super) fn columns_of(&self, expr: &ScalarExpr, columns: &mut Vec<usize>) {
        if let ScalarExpr::Column { index, .. } = expr {
            if *index < tree::AGGREGATE_BASE {
                columns.push(*index);
            }
            return;
        }
        expr.for_each_child(&mut |child| self.columns_of(child, columns));
        if let ScalarExpr::Subquery { slot, .. } = expr
            && let Some(subquery) = self.bound.get(*slot)
        {
            subquery
                .outer
                .iter()
                .for_each(|value| self.columns_of(value, columns));
        }
    }

    pub(super) fn has_columns(&self, expr: &ScalarExpr) -> bool {
        let mut columns = Vec::new();
        self.columns_of(expr, &mut columns);
        !columns.is_empty()
    }

    /// Turns column numbers into places; plans the subqueries met.
    pub(super) fn map(&mut self, expr: &ScalarExpr, layout: &[usize]) -> Result<ScalarExpr, SqlError> {
        let mut expr = expr.clone();
        self.map_in_place(&mut expr, &|column| {
            layout.iter().position(|other| *other == column)
        })?;
        Ok(expr)
    }

    pub(super) fn map_all(
        &mut self,
        exprs: &[ScalarExpr],
        layout: &[usize],
    ) -> Result<Vec<ScalarExpr>, SqlError> {
        exprs.iter().map(|expr| self.map(expr, layout)).collect()
    }

    pub(super) fn map_in_place(
        &mut self,
        expr: &mut ScalarExpr,
        place: &dyn Fn(usize) -> Option<usize>,
    ) -> Result<(), SqlError> {
        if let ScalarExpr::Column { index, .. } = expr {
            *index = place(*index)
                .ok_or_else(|| SqlError::internal(format!("column {index} is not in the row of its node")))?;
            return Ok(());
        }
        let mut result = Ok(());
        expr.for_each_child_mut(&mut |child| {
            if result.is_ok() {
                result = self.map_in_place(child, place);
            }
        });
        result?;
        if let ScalarExpr::Subquery { slot, .. } = expr {
            *slot = self.plan_subquery(*slot, place)?;
        }
        Ok(())
    }

    fn plan_subquery(
        &mut self,
        slot: usize,
        place: &dyn Fn(usize) -> Option<usize>,
    ) -> Result<usize, SqlError> {
        let Some(mut subquery) = self.bound.get(slot).cloned() else {
            return Err(SqlError::internal("no such subquery"));
        };
        let number = self.subplans.len();
        self.subplans.push(None);
        for value in &mut subquery.outer {
            self.map_in_place(value, place)?;
        }
        let node = self.query(&subquery.query)?;
        let constant = subquery.outer.is_empty();
        self.subplans[number] = Some(Subplan {
            node,
            outer: subquery.outer,
            cast: subquery.cast,
            constant,
        });
        Ok(number)
    }

    /// Fills in what a node's places are called.
    pub(super) fn label(&self, node: &mut Node, query: &Query<'_>) {
        if !self.explain {
            return;
        }
        let qualified = query.select.tables.len() > 1;
        node.labels = node
            .layout
            .iter()
            .map(|column| {
                let entry = query
                    .select
                    .tables
                    .iter()
                    .find(|entry| (entry.base..entry.base + entry.width()).contains(column));
                let Some(entry) = entry else { return "?".to_owned() };
                let offset = column - entry.base;
                let name = match entry.columns.get(offset) {
                    Some(column) => column.name.as_str(),
                    None => tree::SYSTEM_COLUMNS
                        .get(offset - entry.columns.len())
                        .map_or("?", |(name, ..)| name),
                };
                if qualified {
                    format!("{}.{name}", entry.alias)
                } else {
                    name.to_owned()
                }
            })
            .collect();
    }

    /// The index conditions as EXPLAIN prints them.
    pub(super) fn shown_range(
        &self,
        found: &Match,
        table: &Table,
        range: &IndexRange,
        outer_labels: &[String],
    ) -> Vec<String> {
        let name_of = |place: usize| {
            found
                .index
                .keys
                .get(place)
                .and_then(|key| usize::try_from(key.column - 1).ok())
                .map_or("?", |at| &*table.columns[at].name)
        };
        let text = |expr: &ScalarExpr| super::super::explain::expression(expr, outer_labels);
        let mut shown = Vec::new();
        for (place, value) in range.equal.iter().enumerate() {
            shown.push(match value {
                Some(value) => format!("({} = {})", name_of(place), text(value)),
                None => format!("({} IS NULL)", name_of(place)),
            });
        }
        let next = range.equal.len();
        if let Some(array) = &range.any {
            shown.push(format!("({} = ANY ({}))", name_of(next), text(array)));
        }
        for (bounds, op) in [(&range.lower, ">"), (&range.upper, "<")] {
            for bound in bounds {
                let op = if bound.inclusive {
                    format!("{op}=")
                } else {
                    op.to_owned()
                };
                shown.push(format!("({} {op} {})", name_of(next), text(&bound.value)));
            }
        }
        shown
    }

    pub(super) fn filter(&mut self, input: Node, conditions: Vec<ScalarExpr>) -> Result<Node, SqlError> {
        let layout = input.layout.clone();
        let mapped = self.map_all(&conditions, &layout)?;
        Ok(self.filter_mapped(input, mapped))
    }

    pub(super) fn filter_mapped(&mut self, input: Node, conditions: Vec<ScalarExpr>) -> Node {
        let layout = input.layout.clone();
        let labels = input.labels.clone();
        let width = input.width;
        let rows = filtered(input.estimate.rows.max(1.0), &conditions);
        let estimate = Estimate {
            rows,
            ..input.estimate
        };
        let mut node = self.node(Kind::Filter(Box::new(input), conditions), layout, width, estimate);
        node.labels = labels;
        node
    }
}
