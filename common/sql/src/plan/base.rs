//! One entry of FROM: a table by itself or by an index, a view, a function, a derived table.

use super::cost::{CPU_INDEX_TUPLE, CPU_OPERATOR, CPU_TUPLE, RANDOM_PAGE, filtered, width_of};
use super::index::{best_index, match_index, match_rows, usable};
use super::join::{WantedOrder, has_subquery, is_volatile};
use super::planner::{Planner, Query};
use super::{Estimate, IndexAccess, Kind, Node, ScanColumn, TableScan};
use crate::bind::tree::{RangeTable, Source};
use crate::error::SqlError;
use crate::expr::ScalarExpr;

impl Planner<'_> {
    /// A scan of one entry. `outer`: the left side of a nested loop, whose row bounds and arguments may use, and the
    /// join's conditions for an index.
    pub(super) fn plan_base(
        &mut self,
        query: &Query<'_>,
        entry: usize,
        conditions: Vec<ScalarExpr>,
        outer: Option<(&Node, &[ScalarExpr])>,
        wanted: Option<&WantedOrder>,
    ) -> Result<(Node, bool), SqlError> {
        let range = &query.select.tables[entry];
        let outer_layout: &[usize] = outer.map_or(&[], |(node, _)| &node.layout);
        let outer_labels: Vec<String> = outer.map_or_else(Vec::new, |(node, _)| node.labels.clone());
        match &range.source {
            Source::Table(table) => {
                let join_conditions = outer.map_or(&[][..], |(_, conditions)| conditions);
                let table = table.clone();
                self.plan_table(
                    query,
                    range,
                    entry,
                    table,
                    conditions,
                    (outer_layout, outer_labels, join_conditions),
                    wanted,
                )
            }
            Source::View(table) => {
                let (layout, columns) = query.needed_plain(range);
                let filter = self.map_all(&conditions, &layout)?;
                let rows = filtered(100.0, &conditions);
                let estimate = Estimate {
                    startup: 0.0,
                    total: 1.0 + rows,
                    rows,
                    width: 64.0,
                };
                let width = layout.len();
                let kind = Kind::ViewScan(table.clone(), range.alias.clone(), columns, filter);
                let mut node = self.node(kind, layout, width, estimate);
                self.label(&mut node, query);
                Ok((node, false))
            }
            Source::Function(call, ordinality) => {
                let mut call = call.clone();
                call.args = self.map_all(&call.args, outer_layout)?;
                let layout = whole_layout(range);
                let filter = self.map_all(&conditions, &layout)?;
                let rows = filtered(1000.0, &conditions);
                let estimate = Estimate {
                    startup: 0.0,
                    total: 10.0,
                    rows,
                    width: 8.0 * layout.len() as f64,
                };
                let width = layout.len();
                let mut node = self.node(
                    Kind::FunctionScan(call, *ordinality, filter),
                    layout,
                    width,
                    estimate,
                );
                self.label(&mut node, query);
                Ok((node, false))
            }
            Source::Scalar(expr, ordinality) => {
                let expr = self.map(expr, outer_layout)?;
                let layout = whole_layout(range);
                let filter = self.map_all(&conditions, &layout)?;
                let estimate = Estimate {
                    startup: 0.0,
                    total: CPU_TUPLE,
                    rows: 1.0,
                    width: 8.0,
                };
                let width = layout.len();
                let mut node = self.node(
                    Kind::ScalarScan(expr, *ordinality, filter),
                    layout,
                    width,
                    estimate,
                );
                self.label(&mut node, query);
                Ok((node, false))
            }
            Source::Query(subquery) => {
                let input = self.query(&subquery.query)?;
                let values = self.map_all(&subquery.outer, outer_layout)?;
                let layout = whole_layout(range);
                let filter = self.map_all(&conditions, &layout)?;
                let rows = filtered(input.estimate.rows.max(1.0), &conditions);
                let estimate = Estimate {
                    rows,
                    ..input.estimate
                };
                let width = layout.len();
                let kind = Kind::SubqueryScan(Box::new(input), values, range.alias.clone(), filter);
                let mut node = self.node(kind, layout, width, estimate);
                self.label(&mut node, query);
                Ok((node, false))
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a table with what is known of its use")]
    fn plan_table(
        &mut self,
        query: &Query<'_>,
        range: &RangeTable,
        entry: usize,
        table: std::sync::Arc<towline_access::catalog::Table>,
        conditions: Vec<ScalarExpr>,
        (outer_layout, outer_labels, join_conditions): (&[usize], Vec<String>, &[ScalarExpr]),
        wanted: Option<&WantedOrder>,
    ) -> Result<(Node, bool), SqlError> {
        let (rows, pages) = self.statistics.table_size(&table);
        let (layout, columns) = query.needed_scan(range);
        let width = layout.len();
        let row_width: f64 = columns
            .iter()
            .map(|column| match column {
                ScanColumn::Attribute(at) => width_of(table.columns[usize::from(*at)].column_type),
                _ => 6.0,
            })
            .sum();
        let all: Vec<ScalarExpr> = conditions.iter().chain(join_conditions).cloned().collect();
        let outer_has = |value: &ScalarExpr| {
            let mut used = Vec::new();
            self.columns_of(value, &mut used);
            used.iter().all(|column| outer_layout.contains(column))
                && !has_subquery(value)
                && !is_volatile(value)
        };
        let usable = usable(&all, &table, range.base, &outer_has);
        let mut found = best_index(&table, &usable, self.statistics);
        let wanted = wanted.filter(|wanted| wanted.table == entry);
        let mut ordered = None;
        if let Some(wanted) = wanted {
            ordered = found
                .as_ref()
                .and_then(|found| order_of(&found.index, found.equal, wanted));
            let no_match = found
                .as_ref()
                .is_none_or(|found| !found.unique && match_rows(found, rows) > 1000.0);
            if ordered.is_none() && no_match {
                // An index without conditions, only for its order.
                for index in table
                    .indexes
                    .iter()
                    .filter(|index| self.statistics.is_usable(index))
                {
                    let equal = match_index(index, &usable).map_or(0, |found| found.equal);
                    let Some(backward) = order_of(index, equal, wanted) else {
                        continue;
                    };
                    if wanted.limited || rows < 1.0 {
                        found = match_index(index, &usable).or_else(|| {
                            Some(super::index::Match {
                                index: index.clone(),
                                range: super::IndexRange::default(),
                                used: Vec::new(),
                                unique: false,
                                equal: 0,
                                ranged: false,
                            })
                        });
                        ordered = Some(backward);
                        break;
                    }
                }
            }
        }
        // A small table is read faster than an index is descended, unless the answer is one row or sorted.
        if let Some(one) = &found {
            let matched = match_rows(one, rows);
            let by_index = RANDOM_PAGE * 2.0 + matched * (CPU_TUPLE + CPU_INDEX_TUPLE + 0.5);
            let by_scan = pages + rows * (CPU_TUPLE + CPU_OPERATOR * all.len() as f64);
            let lossy = one.range.any.is_some() && one.equal + 1 < one.index.keys.len() && ordered.is_some();
            if lossy || (ordered.is_none() && !one.unique && by_scan < by_index && rows > 0.0) {
                found = None;
                ordered = None;
            }
        }
        let Some(found) = found else {
            let filter = self.map_all(&conditions, &layout)?;
            let estimate = Estimate::seq_scan(rows, pages, &conditions, row_width);
            let scan = TableScan {
                table: table.clone(),
                alias: range.alias.clone(),
                columns,
                filter,
                carried: query.carried_of(range),
            };
            self.uses(&table);
            let mut node = self.node(Kind::SeqScan(scan), layout, width, estimate);
            self.label(&mut node, query);
            return Ok((node, false));
        };
        // Several values give no order.
        let ordered = ordered.filter(|_| found.range.any.is_none());
        let matched = if found.used.is_empty() {
            rows
        } else {
            match_rows(&found, rows)
        };
        let rest: Vec<ScalarExpr> = conditions
            .iter()
            .enumerate()
            .filter(|(number, _)| !found.used.contains(number))
            .map(|(_, condition)| condition.clone())
            .collect();
        let filter = self.map_all(&rest, &layout)?;
        let mut range_mapped = super::IndexRange::default();
        for value in &found.range.equal {
            range_mapped.equal.push(match value {
                Some(value) => Some(self.map(value, outer_layout)?),
                None => None,
            });
        }
        range_mapped.any = found
            .range
            .any
            .as_ref()
            .map(|array| self.map(array, outer_layout))
            .transpose()?;
        for (from, to) in [
            (&found.range.lower, &mut range_mapped.lower),
            (&found.range.upper, &mut range_mapped.upper),
        ] {
            for bound in from {
                let value = self.map(&bound.value, outer_layout)?;
                to.push(super::BoundExpr {
                    value,
                    inclusive: bound.inclusive,
                });
            }
        }
        let shown = if self.explain {
            self.shown_range(&found, &table, &range_mapped, &outer_labels)
        } else {
            Vec::new()
        };
        let pages_touched = (matched / (rows / pages.max(1.0)).max(1.0)).max(1.0).min(matched);
        let height = if rows > 100.0 { RANDOM_PAGE } else { 0.0 };
        let startup = if rows > 100.0 { 0.29 } else { 0.15 };
        let estimate = Estimate {
            startup,
            total: startup
                + height
                + pages_touched * RANDOM_PAGE
                + matched * (CPU_TUPLE + CPU_INDEX_TUPLE + CPU_OPERATOR * rest.len() as f64),
            rows: if found.unique {
                1.0
            } else {
                filtered(matched, &rest)
            },
            width: row_width,
        };
        let scan = TableScan {
            table: table.clone(),
            alias: range.alias.clone(),
            columns,
            filter,
            carried: query.carried_of(range),
        };
        let access = IndexAccess {
            index: found.index.clone(),
            range: range_mapped,
            backward: ordered.unwrap_or(false),
            shown,
        };
        self.uses(&table);
        let mut node = self.node(Kind::IndexScan(scan, access), layout, width, estimate);
        self.label(&mut node, query);
        Ok((node, ordered.is_some()))
    }
}

/// Does the index, after `equal` fixed columns, give the wanted order? Forward (false) or backward (true).
fn order_of(index: &towline_access::catalog::Index, equal: usize, wanted: &WantedOrder) -> Option<bool> {
    for backward in [false, true] {
        let mut keys = index.keys.iter().enumerate();
        let fits = wanted.keys.iter().all(|(attribute, descending, nulls_first)| {
            loop {
                let Some((place, key)) = keys.next() else {
                    return false;
                };
                let same = usize::try_from(key.column - 1).ok() == Some(*attribute);
                if same {
                    return (key.descending != backward) == *descending
                        && (key.nulls_first != backward) == *nulls_first
                        || place < equal;
                }
                if place >= equal {
                    return false;
                }
            }
        });
        if fits {
            return Some(backward);
        }
    }
    None
}

fn whole_layout(range: &RangeTable) -> Vec<usize> {
    (range.base..range.base + range.columns.len()).collect()
}
