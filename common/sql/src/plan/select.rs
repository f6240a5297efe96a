//! What stands above the joins: grouping, projection, order, limits, row locks.

use super::cost::{CPU_OPERATOR, CPU_TUPLE, width_of};
use super::join::{WantedOrder, system_column};
use super::planner::{Planner, Query};
use super::{Estimate, Kind, LockTarget, Node, PlaceKey, ScanColumn};
use crate::bind::tree::{self, Body, Distinct, RangeTable, SET_BASE, Select, Source, Subquery};
use crate::error::SqlError;
use crate::expr::{AggregateCall, ScalarExpr};
use crate::parse::ast::SetOp;
use crate::stack;

impl Planner<'_> {
    /// Plans a query.
    pub(super) fn query(&mut self, query: &tree::Query) -> Result<Node, SqlError> {
        if self.depth > self.max_depth {
            return Err(stack::too_deep());
        }
        stack::check()?;
        self.depth += 1;
        let result = self.query_inner(query);
        self.depth -= 1;
        result
    }

    fn query_inner(&mut self, query: &tree::Query) -> Result<Node, SqlError> {
        let node = match &query.body {
            Body::Select(select) => return self.select(query, select),
            Body::Values(rows) => {
                let mapped: Result<Vec<_>, _> = rows.iter().map(|row| self.map_all(row, &[])).collect();
                let count = rows.len() as f64;
                let estimate = Estimate {
                    startup: 0.0,
                    total: 0.0125 * count,
                    rows: count,
                    width: 32.0,
                };
                self.node(Kind::Values(mapped?), Vec::new(), query.columns.len(), estimate)
            }
            Body::Set { op, all, left, right } => {
                let left = self.side(left)?;
                let right = self.side(right)?;
                self.set_operation(*op, *all, left, right, query.columns.len())
            }
        };
        let mut node = node;
        if self.explain {
            node.labels = query.columns.iter().map(|column| column.name.clone()).collect();
        }
        let keys: Vec<PlaceKey> = query
            .order_by
            .iter()
            .map(|key| PlaceKey {
                place: key.target.unwrap_or(0),
                descending: key.descending,
                nulls_first: key.nulls_first,
            })
            .collect();
        if !keys.is_empty() {
            node = self.sort(node, keys);
        }
        self.limit(node, query.limit.as_ref(), query.offset.as_ref())
    }

    fn side(&mut self, side: &Subquery) -> Result<Node, SqlError> {
        let node = self.query(&side.query)?;
        if side.outer.is_empty() {
            return Ok(node);
        }
        let values = self.map_all(&side.outer, &[])?;
        let (width, estimate, labels) = (node.width, node.estimate, node.labels.clone());
        let kind = Kind::SubqueryScan(Box::new(node), values, String::new(), Vec::new());
        let mut node = self.node(kind, Vec::new(), width, estimate);
        node.labels = labels;
        Ok(node)
    }

    fn set_operation(&mut self, op: SetOp, all: bool, left: Node, right: Node, width: usize) -> Node {
        let both = Estimate {
            startup: left.estimate.startup,
            total: left.estimate.total + right.estimate.total,
            rows: left.estimate.rows + right.estimate.rows,
            width: left.estimate.width,
        };
        if op != SetOp::Union {
            let estimate = Estimate {
                rows: left.estimate.rows,
                ..both
            };
            return self.node(
                Kind::SetOp(op, all, Box::new(left), Box::new(right)),
                Vec::new(),
                width,
                estimate,
            );
        }
        // A chain of UNION ALL is one Append.
        let mut inputs = Vec::new();
        for side in [left, right] {
            match side.kind {
                Kind::Append(parts) if all => inputs.extend(parts),
                kind => inputs.push(Node { kind, ..side }),
            }
        }
        let node = self.node(Kind::Append(inputs), Vec::new(), width, both);
        if all { node } else { self.unique(node, Vec::new()) }
    }

    fn unique(&mut self, input: Node, places: Vec<usize>) -> Node {
        let estimate = Estimate {
            startup: input.estimate.total,
            total: input.estimate.total + input.estimate.rows * CPU_OPERATOR,
            rows: (input.estimate.rows / 5.0).max(1.0).round(),
            width: input.estimate.width,
        };
        let (width, layout, labels) = (input.width, input.layout.clone(), input.labels.clone());
        let mut node = self.node(Kind::Unique(Box::new(input), places), layout, width, estimate);
        node.labels = labels;
        node
    }

    fn sort(&mut self, input: Node, keys: Vec<PlaceKey>) -> Node {
        let (width, layout, labels) = (input.width, input.layout.clone(), input.labels.clone());
        let estimate = input.estimate.sorted();
        let mut node = self.node(Kind::Sort(Box::new(input), keys), layout, width, estimate);
        node.labels = labels;
        node
    }

    fn limit(
        &mut self,
        input: Node,
        limit: Option<&ScalarExpr>,
        offset: Option<&ScalarExpr>,
    ) -> Result<Node, SqlError> {
        if limit.is_none() && offset.is_none() {
            return Ok(input);
        }
        let number = |expr: Option<&ScalarExpr>| match expr {
            Some(ScalarExpr::Const(value, _)) => value.as_i64().map(|value| value.max(0) as f64),
            _ => None,
        };
        let skipped = number(offset).unwrap_or(0.0);
        let wanted = limit.map_or(input.estimate.rows, |_| {
            number(limit).unwrap_or(input.estimate.rows / 10.0)
        });
        let estimate = input.estimate.limited(wanted + skipped);
        let estimate = Estimate {
            rows: wanted.min(input.estimate.rows).max(1.0),
            ..estimate
        };
        let limit = limit.map(|expr| self.map(expr, &[])).transpose()?;
        let offset = offset.map(|expr| self.map(expr, &[])).transpose()?;
        let (width, layout, labels) = (input.width, input.layout.clone(), input.labels.clone());
        let mut node = self.node(
            Kind::Limit(Box::new(input), limit, offset),
            layout,
            width,
            estimate,
        );
        node.labels = labels;
        Ok(node)
    }

    pub(super) fn needed(&self, select: &Select, order_by: &[tree::SortKey]) -> Vec<usize> {
        let mut columns = Vec::new();
        let mut add = |expr: &ScalarExpr| self.columns_of(expr, &mut columns);
        select.filter.iter().for_each(&mut add);
        select.group_by.iter().for_each(&mut add);
        for call in &select.aggregates {
            call.args.iter().chain(&call.filter).for_each(&mut add);
            call.order_by.iter().for_each(|(expr, ..)| add(expr));
        }
        if !select.grouped {
            select.targets.iter().for_each(&mut add);
            order_by.iter().for_each(|key| add(&key.expr));
            select.sets.iter().flat_map(|set| &set.args).for_each(&mut add);
        }
        select
            .from
            .iter()
            .for_each(|from| join_conditions(from, &mut add));
        for entry in &select.tables {
            match &entry.source {
                Source::Function(call, _) => call.args.iter().for_each(&mut add),
                Source::Scalar(expr, _) => add(expr),
                Source::Query(query) => query.outer.iter().for_each(&mut add),
                Source::Table(_) | Source::View(_) => {}
            }
        }
        for lock in &select.locking {
            if let Some(entry) = select.tables.get(lock.table) {
                columns.push(entry.base + entry.columns.len());
            }
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    fn wanted_order(&self, query: &tree::Query, select: &Select) -> Option<WantedOrder> {
        if select.grouped || select.distinct.is_some() || !select.sets.is_empty() || query.order_by.is_empty()
        {
            return None;
        }
        let [tree::From::Table(table)] = select.from.as_slice() else {
            return None;
        };
        let entry = &select.tables[*table];
        let Source::Table(_) = entry.source else {
            return None;
        };
        let keys: Option<Vec<_>> = query
            .order_by
            .iter()
            .map(|key| match &key.expr {
                ScalarExpr::Column { index, .. }
                    if (entry.base..entry.base + entry.columns.len()).contains(index) =>
                {
                    Some((index - entry.base, key.descending, key.nulls_first))
                }
                _ => None,
            })
            .collect();
        Some(WantedOrder {
            table: *table,
            keys: keys?,
            limited: query.limit.is_some(),
        })
    }

    fn select(&mut self, query: &tree::Query, select: &Select) -> Result<Node, SqlError> {
        if select.tables.len() > 120 {
            return Err(SqlError::new(
                towline_base::SqlState::PROGRAM_LIMIT_EXCEEDED,
                "a query may name at most 120 tables",
            ));
        }
        let level = Query {
            select,
            needed: self.needed(select, &query.order_by),
            carried: Vec::new(),
        };
        let wanted = self.wanted_order(query, select);
        let from: Vec<&tree::From> = select.from.iter().collect();
        let (mut node, mut ordered) =
            self.plan_from(&level, &from, select.filter.clone(), wanted.as_ref())?;
        if select.grouped {
            node = self.aggregate(node, select)?;
            ordered = false;
        }
        let mut sort_places = None;
        if select.sets.is_empty() && select.distinct.is_none() {
            if !query.order_by.is_empty() && !ordered {
                node = self.sort_before(node, query)?;
            }
            if !select.locking.is_empty() {
                node = self.lock_rows(node, select)?;
            }
            node = self.project(node, &select.targets[..query.columns.len()], query)?;
        } else {
            let keys = query.order_by.iter().map(|key| PlaceKey {
                place: key.target.unwrap_or(0),
                descending: key.descending,
                nulls_first: key.nulls_first,
            });
            sort_places = Some(keys.collect::<Vec<_>>());
            node = if select.sets.is_empty() {
                self.project(node, &select.targets, query)?
            } else {
                self.project_set(node, select, query)?
            };
        }
        if let Some(keys) = sort_places {
            match &select.distinct {
                Some(Distinct::On(places)) => {
                    if !keys.is_empty() {
                        node = self.sort(node, keys);
                    }
                    node = self.unique(node, places.clone());
                }
                Some(Distinct::All) => {
                    node = self.unique(node, (0..query.columns.len()).collect());
                    if !keys.is_empty() {
                        node = self.sort(node, keys);
                    }
                }
                None => {
                    if !keys.is_empty() {
                        node = self.sort(node, keys);
                    }
                }
            }
            if node.width > query.columns.len() {
                let exprs = (0..query.columns.len())
                    .map(|index| ScalarExpr::Column {
                        index,
                        ty: query.columns[index].ty,
                    })
                    .collect();
                node = self.projected(node, exprs, query);
            }
        }
        self.limit(node, query.limit.as_ref(), query.offset.as_ref())
    }

    fn aggregate(&mut self, input: Node, select: &Select) -> Result<Node, SqlError> {
        let layout = input.layout.clone();
        let keys = self.map_all(&select.group_by, &layout)?;
        let mut calls = Vec::with_capacity(select.aggregates.len());
        for call in &select.aggregates {
            let mut call: AggregateCall = call.clone();
            call.args = self.map_all(&call.args, &layout)?;
            for (expr, ..) in &mut call.order_by {
                *expr = self.map(expr, &layout)?;
            }
            call.filter = call
                .filter
                .as_ref()
                .map(|filter| self.map(filter, &layout))
                .transpose()?;
            calls.push(call);
        }
        let rows = if keys.is_empty() {
            1.0
        } else {
            (input.estimate.rows / 10.0).clamp(1.0, 200.0).round()
        };
        let cpu = input.estimate.rows * CPU_OPERATOR * (keys.len() + calls.len()) as f64;
        let width = keys.len() + calls.len();
        let estimate = Estimate {
            startup: input.estimate.total + cpu,
            total: input.estimate.total + cpu + rows * CPU_TUPLE,
            rows,
            width: 8.0 * width as f64,
        };
        let labels = if self.explain {
            let text = |expr: &ScalarExpr| crate::explain::expression(expr, &input.labels);
            let keys = keys.iter().map(text);
            let calls = calls.iter().map(|call| {
                let args: Vec<String> = call.args.iter().map(text).collect();
                let inner = if args.is_empty() {
                    "*".to_owned()
                } else {
                    args.join(", ")
                };
                format!("{}({inner})", call.name)
            });
            keys.chain(calls).collect()
        } else {
            Vec::new()
        };
        let mut node = self.node(
            Kind::Aggregate(Box::new(input), keys, calls),
            (0..width).collect(),
            width,
            estimate,
        );
        node.labels = labels;
        if select.having.is_empty() {
            return Ok(node);
        }
        let layout = node.layout.clone();
        let having = self.map_all(&select.having, &layout)?;
        Ok(self.filter_mapped(node, having))
    }

    /// Sorts the input rows by expressions over them; what is no place yet is computed beside them.
    fn sort_before(&mut self, node: Node, query: &tree::Query) -> Result<Node, SqlError> {
        let layout = node.layout.clone();
        let mut keys = Vec::with_capacity(query.order_by.len());
        let mut extra = Vec::new();
        for key in &query.order_by {
            let expr = self.map(&key.expr, &layout)?;
            let place = match expr {
                ScalarExpr::Column { index, .. } => index,
                // A constant orders nothing.
                ScalarExpr::Const(..) => continue,
                other => {
                    extra.push(other);
                    node.width + extra.len() - 1
                }
            };
            keys.push(PlaceKey {
                place,
                descending: key.descending,
                nulls_first: key.nulls_first,
            });
        }
        let mut node = node;
        if !extra.is_empty() {
            node = self.extended(node, extra);
        }
        Ok(if keys.is_empty() {
            node
        } else {
            self.sort(node, keys)
        })
    }

    /// The same rows with more places behind them.
    fn extended(&mut self, node: Node, extra: Vec<ScalarExpr>) -> Node {
        let mut exprs: Vec<ScalarExpr> = (0..node.width)
            .map(|index| ScalarExpr::Column {
                index,
                ty: towline_types::ColumnType::new(towline_types::TypeId::Unknown),
            })
            .collect();
        let mut layout = node.layout.clone();
        layout.resize(node.width, usize::MAX);
        layout.extend(extra.iter().map(|_| usize::MAX));
        let mut labels = node.labels.clone();
        if self.explain {
            labels.extend(
                extra
                    .iter()
                    .map(|expr| format!("({})", crate::explain::expression(expr, &node.labels))),
            );
        }
        exprs.extend(extra);
        let width = exprs.len();
        let estimate = node.estimate;
        let mut node = self.node(Kind::Project(Box::new(node), exprs), layout, width, estimate);
        node.labels = labels;
        node
    }

    fn project(&mut self, node: Node, targets: &[ScalarExpr], query: &tree::Query) -> Result<Node, SqlError> {
        let layout = node.layout.clone();
        let exprs = self.map_all(targets, &layout)?;
        let same = exprs.len() == node.width
            && exprs
                .iter()
                .enumerate()
                .all(|(at, expr)| matches!(expr, ScalarExpr::Column { index, .. } if *index == at));
        if same {
            return Ok(Node {
                layout: Vec::new(),
                ..node
            });
        }
        Ok(self.projected(node, exprs, query))
    }

    fn projected(&mut self, node: Node, exprs: Vec<ScalarExpr>, query: &tree::Query) -> Node {
        let width = exprs.len();
        let bytes: f64 = exprs.iter().map(|expr| width_of(expr.ty())).sum();
        let estimate = Estimate {
            width: bytes,
            ..node.estimate
        };
        let labels = if self.explain {
            query
                .columns
                .iter()
                .map(|column| column.name.clone())
                .chain(std::iter::repeat_n(
                    String::from("?"),
                    width.saturating_sub(query.columns.len()),
                ))
                .collect()
        } else {
            Vec::new()
        };
        let mut node = self.node(Kind::Project(Box::new(node), exprs), Vec::new(), width, estimate);
        node.labels = labels;
        node
    }

    fn project_set(&mut self, node: Node, select: &Select, query: &tree::Query) -> Result<Node, SqlError> {
        let layout = node.layout.clone();
        let mut sets = select.sets.clone();
        for set in &mut sets {
            set.args = self.map_all(&set.args, &layout)?;
        }
        let width = node.width;
        let mut exprs = select.targets.clone();
        for expr in &mut exprs {
            self.map_in_place(expr, &|column| {
                if column >= SET_BASE {
                    Some(width + column - SET_BASE)
                } else {
                    layout.iter().position(|other| *other == column)
                }
            })?;
        }
        let out = exprs.len();
        let estimate = Estimate {
            rows: node.estimate.rows * 1000.0,
            ..node.estimate
        };
        let labels = if self.explain {
            query.columns.iter().map(|column| column.name.clone()).collect()
        } else {
            Vec::new()
        };
        let mut node = self.node(
            Kind::ProjectSet(Box::new(node), sets, exprs),
            Vec::new(),
            out,
            estimate,
        );
        node.labels = labels;
        Ok(node)
    }

    fn lock_rows(&mut self, node: Node, select: &Select) -> Result<Node, SqlError> {
        self.locks_rows = true;
        let mut targets = Vec::with_capacity(select.locking.len());
        for lock in &select.locking {
            let entry = &select.tables[lock.table];
            let Source::Table(table) = &entry.source else {
                continue;
            };
            let ctid = node
                .layout
                .iter()
                .position(|column| *column == entry.base + entry.columns.len());
            let ctid = ctid.ok_or_else(|| SqlError::internal("the ctid of a locked table is not read"))?;
            targets.push(LockTarget {
                lock: *lock,
                table: table.clone(),
                ctid,
                places: places_of(&node.layout, entry),
            });
        }
        let mut conditions = select.filter.clone();
        for from in &select.from {
            inner_conditions(from, &mut conditions);
        }
        let layout = node.layout.clone();
        let recheck = self.map_all(&conditions, &layout)?;
        let (width, labels, estimate) = (node.width, node.labels.clone(), node.estimate);
        let mut node = self.node(
            Kind::LockRows(Box::new(node), targets, recheck),
            layout,
            width,
            estimate,
        );
        node.labels = labels;
        Ok(node)
    }
}

pub(super) fn places_of(layout: &[usize], entry: &RangeTable) -> Vec<(usize, ScanColumn)> {
    let end = entry.base + entry.width();
    layout
        .iter()
        .enumerate()
        .filter(|(_, column)| (entry.base..end).contains(*column))
        .map(|(place, column)| {
            let offset = column - entry.base;
            let column = if offset < entry.columns.len() {
                ScanColumn::Attribute(u16::try_from(offset).unwrap_or(u16::MAX))
            } else {
                system_column(offset - entry.columns.len())
            };
            (place, column)
        })
        .collect()
}

fn join_conditions(from: &tree::From, add: &mut impl FnMut(&ScalarExpr)) {
    if let tree::From::Join(join) = from {
        join.condition.iter().for_each(&mut *add);
        join_conditions(&join.left, add);
        join_conditions(&join.right, add);
    }
}

/// Conditions of inner joins, which hold for every row of the result.
pub(super) fn inner_conditions(from: &tree::From, conditions: &mut Vec<ScalarExpr>) {
    if let tree::From::Join(join) = from
        && join.kind == crate::parse::ast::JoinKind::Inner
    {
        conditions.extend(join.condition.iter().cloned());
        inner_conditions(&join.left, conditions);
        inner_conditions(&join.right, conditions);
    }
}
