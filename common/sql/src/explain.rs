//! EXPLAIN: plans and expressions as text, in PostgreSQL's shape.
//!
//! Nodes that only compute columns are not shown, as in PostgreSQL; a filter that is a node of its own here is shown as
//! a line of the node below it.

use std::fmt::Write;

use towline_types::{Datum, IoStyle, TypeId, text_of};

use crate::exec::NodeStats;
use crate::expr::{IsKind, ScalarExpr, SubqueryKind};
use crate::parse::ast::{ExplainOptions, SetOp};
use crate::plan::{Change, JoinType, Kind, Node, Plan, PlanBody, TableScan};

/// An expression as text; `labels` name the places of its row.
pub(crate) fn expression(expr: &ScalarExpr, labels: &[String]) -> String {
    let text = |expr: &ScalarExpr| expression(expr, labels);
    let list =
        |list: &[ScalarExpr], separator: &str| list.iter().map(text).collect::<Vec<_>>().join(separator);
    match expr {
        ScalarExpr::Const(value, ty) => constant(value, ty.id),
        ScalarExpr::Column { index, .. } => labels
            .get(*index)
            .cloned()
            .unwrap_or_else(|| format!("?{index}?")),
        ScalarExpr::Outer { index, .. } => format!("${index}"),
        ScalarExpr::Param { index, .. } => format!("${}", index + 1),
        ScalarExpr::Call(call) => match call.args.as_slice() {
            [left, right] if is_operator(call.def.name) => {
                format!("({} {} {})", text(left), call.def.name, text(right))
            }
            [arg] if is_operator(call.def.name) => format!("({} {})", call.def.name, text(arg)),
            args => format!("{}({})", call.def.name, list(args, ", ")),
        },
        ScalarExpr::And(args) => format!("({})", list(args, " AND ")),
        ScalarExpr::Or(args) => format!("({})", list(args, " OR ")),
        ScalarExpr::Not(arg) => format!("(NOT {})", text(arg)),
        ScalarExpr::Is { arg, kind, negated } => {
            let word = match kind {
                IsKind::Null => "NULL",
                IsKind::True => "TRUE",
                IsKind::False => "FALSE",
                IsKind::Unknown => "UNKNOWN",
            };
            format!("({} IS {}{word})", text(arg), if *negated { "NOT " } else { "" })
        }
        ScalarExpr::Distinct { left, right, negated } => {
            format!(
                "({} IS {}DISTINCT FROM {})",
                text(left),
                if *negated { "NOT " } else { "" },
                text(right)
            )
        }
        ScalarExpr::InList {
            arg,
            list: items,
            negated,
        } => {
            let op = if *negated { "<> ALL" } else { "= ANY" };
            format!("({} {op} (ARRAY[{}]))", text(arg), list(items, ", "))
        }
        ScalarExpr::Case(case) => {
            let mut out = String::from("CASE");
            for (when, then) in &case.whens {
                let _ = write!(out, " WHEN {} THEN {}", text(when), text(then));
            }
            if let Some(otherwise) = &case.otherwise {
                let _ = write!(out, " ELSE {}", text(otherwise));
            }
            out + " END"
        }
        ScalarExpr::Coalesce(args, _) => format!("COALESCE({})", list(args, ", ")),
        ScalarExpr::NullIf(left, right) => format!("NULLIF({}, {})", text(left), text(right)),
        ScalarExpr::MinMax(greatest, args, _) => {
            format!(
                "{}({})",
                if *greatest { "GREATEST" } else { "LEAST" },
                list(args, ", ")
            )
        }
        ScalarExpr::AnyAll { arg, op, all, array } => {
            format!(
                "({} {} {} ({}))",
                text(arg),
                op.name,
                if *all { "ALL" } else { "ANY" },
                text(array)
            )
        }
        ScalarExpr::Array(_, items) => format!("ARRAY[{}]", list(items, ", ")),
        ScalarExpr::Row(items) => format!("ROW({})", list(items, ", ")),
        ScalarExpr::Subscript(array, index, _) => format!("{}[{}]", text(array), text(index)),
        ScalarExpr::Cast { arg, to, .. } => format!("({})::{}", text(arg), to.sql_name()),
        ScalarExpr::Subquery { slot, kind, .. } => match kind {
            SubqueryKind::AnyAll { arg, op, all } => {
                format!(
                    "({} {} {} (SubPlan {}))",
                    text(arg),
                    op.name,
                    if *all { "ALL" } else { "ANY" },
                    slot + 1
                )
            }
            _ => format!("(SubPlan {})", slot + 1),
        },
    }
}

fn is_operator(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
}

fn constant(value: &Datum, ty: TypeId) -> String {
    if value.is_null() {
        return format!("NULL::{}", ty.sql_name());
    }
    let text = text_of(value, &IoStyle::default());
    match ty {
        TypeId::Bool | TypeId::Int4 | TypeId::Numeric if !text.starts_with('-') => text,
        _ => format!("'{}'::{}", text.replace('\'', "''"), ty.sql_name()),
    }
}

/// What is being printed.
struct Printer<'a> {
    plan: &'a Plan,
    options: &'a ExplainOptions,
    stats: Option<(&'a [NodeStats], u64)>,
    lines: Vec<String>,
}

/// The lines of EXPLAIN.
pub(crate) fn plan_lines(
    plan: &Plan,
    options: &ExplainOptions,
    stats: Option<(&[NodeStats], u64)>,
) -> Vec<String> {
    let mut printer = Printer {
        plan,
        options,
        stats,
        lines: Vec::new(),
    };
    match &plan.body {
        PlanBody::Query(node) => printer.node(node, 0, &[]),
        PlanBody::Change(change) => printer.change(change),
    }
    for (slot, subplan) in plan.subplans.iter().enumerate() {
        printer.lines.push(format!("  SubPlan {}", slot + 1));
        printer.node(&subplan.node, 1, &[]);
    }
    printer.lines
}

impl Printer<'_> {
    fn change(&mut self, change: &Change) {
        let (word, table, input) = match change {
            Change::Insert { table, input, .. } => ("Insert", table, input.as_ref()),
            Change::Modify {
                table, input, delete, ..
            } => (if *delete { "Delete" } else { "Update" }, table, Some(input)),
        };
        let estimate = input.map(|node| node.estimate).unwrap_or_default();
        let rows = if self.plan.returns_rows {
            estimate.rows
        } else {
            0.0
        };
        let mut line = format!("{word} on {}", table.name);
        if self.options.costs {
            let width = if self.plan.returns_rows {
                estimate.width
            } else {
                0.0
            };
            let _ = write!(
                line,
                "  (cost={:.2}..{:.2} rows={rows:.0} width={width:.0})",
                estimate.startup, estimate.total
            );
        }
        if self.stats.is_some() {
            let _ = write!(
                line,
                " (actual rows={} loops=1)",
                if self.plan.returns_rows { self.changed() } else { 0 }
            );
        }
        self.lines.push(line);
        match input {
            Some(node) => self.node(node, 1, &[]),
            None => self
                .lines
                .push("  ->  Result  (cost=0.00..0.01 rows=1 width=0)".to_owned()),
        }
    }

    fn changed(&self) -> u64 {
        self.stats.map_or(0, |(_, count)| count)
    }

    fn head(&mut self, node: &Node, title: &str, depth: usize) {
        let mut line = match depth {
            0 => String::new(),
            depth => format!("{}->  ", " ".repeat(6 * depth - 4)),
        };
        line.push_str(title);
        let estimate = node.estimate;
        if self.options.costs {
            let _ = write!(
                line,
                "  (cost={:.2}..{:.2} rows={:.0} width={:.0})",
                estimate.startup,
                estimate.total.max(estimate.startup),
                estimate.rows,
                estimate.width
            );
        }
        if let Some(stats) = self.stats.and_then(|(stats, _)| stats.get(node.id)) {
            if stats.loops == 0 {
                line.push_str(" (never executed)");
            } else {
                let loops = stats.loops as f64;
                let rows = stats.rows as f64 / loops;
                if self.options.timing {
                    let _ = write!(
                        line,
                        " (actual time={:.3}..{:.3} rows={rows:.0} loops={})",
                        stats.first / 1e3 / loops,
                        stats.micros / 1e3 / loops,
                        stats.loops
                    );
                } else {
                    let _ = write!(line, " (actual rows={rows:.0} loops={})", stats.loops);
                }
            }
        }
        self.lines.push(line);
    }

    fn property(&mut self, depth: usize, text: &str) {
        self.lines.push(format!("{}{text}", " ".repeat(6 * depth + 2)));
    }

    fn conditions(&mut self, depth: usize, name: &str, conditions: &[ScalarExpr], labels: &[String]) {
        match conditions {
            [] => {}
            [one] => {
                let text = expression(one, labels);
                let text = if text.starts_with('(') {
                    text
                } else {
                    format!("({text})")
                };
                self.property(depth, &format!("{name}: {text}"));
            }
            many => {
                let parts: Vec<String> = many.iter().map(|one| expression(one, labels)).collect();
                self.property(depth, &format!("{name}: ({})", parts.join(" AND ")));
            }
        }
    }

    fn removed(&mut self, node: &Node, depth: usize) {
        let removed = self
            .stats
            .and_then(|(stats, _)| stats.get(node.id))
            .map_or(0, |stats| stats.removed / stats.loops.max(1));
        if removed > 0 {
            self.property(depth, &format!("Rows Removed by Filter: {removed}"));
        }
    }

    fn scan(&mut self, node: &Node, scan: &TableScan, title: &str, depth: usize) {
        let alias = if scan.alias == *scan.table.name {
            String::new()
        } else {
            format!(" {}", scan.alias)
        };
        self.head(node, &format!("{title} on {}{alias}", scan.table.name), depth);
    }

    /// Prints a node; `above` are filters of nodes that are not shown, with the labels they speak of.
    fn node(&mut self, node: &Node, depth: usize, above: &[(&[ScalarExpr], &Node)]) {
        match &node.kind {
            Kind::Project(input, _) => self.node(input, depth, above),
            Kind::Filter(input, conditions) => {
                let mut filters: Vec<(&[ScalarExpr], &Node)> = vec![(conditions, input)];
                filters.extend_from_slice(above);
                self.node(input, depth, &filters);
            }
            _ => {
                self.shown(node, depth, above);
            }
        }
    }

    fn filters_above(&mut self, depth: usize, above: &[(&[ScalarExpr], &Node)]) {
        for (conditions, input) in above {
            self.conditions(depth, "Filter", conditions, &input.labels);
        }
    }

    fn shown(&mut self, node: &Node, depth: usize, above: &[(&[ScalarExpr], &Node)]) {
        match &node.kind {
            Kind::Result(filter) => {
                self.head(node, "Result", depth);
                self.conditions(depth, "One-Time Filter", filter, &[]);
                self.filters_above(depth, above);
            }
            Kind::SeqScan(scan) => {
                self.scan(node, scan, "Seq Scan", depth);
                self.conditions(depth, "Filter", &scan.filter, &node.labels);
                self.filters_above(depth, above);
                self.removed(node, depth);
            }
            Kind::IndexScan(scan, access) => {
                let direction = if access.backward { " Backward" } else { "" };
                self.scan(
                    node,
                    scan,
                    &format!("Index Scan{direction} using {}", access.index.name),
                    depth,
                );
                match access.shown.as_slice() {
                    [] => {}
                    [one] => self.property(depth, &format!("Index Cond: {one}")),
                    many => self.property(depth, &format!("Index Cond: ({})", many.join(" AND "))),
                }
                self.conditions(depth, "Filter", &scan.filter, &node.labels);
                self.filters_above(depth, above);
                self.removed(node, depth);
            }
            Kind::ViewScan(view, alias, _, filter) => {
                let alias = if **alias == *view.name {
                    String::new()
                } else {
                    format!(" {alias}")
                };
                self.head(node, &format!("Function Scan on {}{alias}", view.name), depth);
                self.conditions(depth, "Filter", filter, &node.labels);
                self.filters_above(depth, above);
            }
            Kind::FunctionScan(call, _, filter) => {
                self.head(node, &format!("Function Scan on {}", call.name), depth);
                self.conditions(depth, "Filter", filter, &node.labels);
                self.filters_above(depth, above);
            }
            Kind::ScalarScan(_, _, filter) => {
                self.head(node, "Function Scan", depth);
                self.conditions(depth, "Filter", filter, &node.labels);
                self.filters_above(depth, above);
            }
            Kind::SubqueryScan(input, _, alias, filter) => {
                if filter.is_empty() && above.is_empty() {
                    self.node(input, depth, &[]);
                } else {
                    self.head(node, &format!("Subquery Scan on {alias}"), depth);
                    self.conditions(depth, "Filter", filter, &node.labels);
                    self.filters_above(depth, above);
                    self.node(input, depth + 1, &[]);
                }
            }
            Kind::Values(rows) => {
                self.head(
                    node,
                    if rows.len() == 1 {
                        "Result"
                    } else {
                        "Values Scan on \"*VALUES*\""
                    },
                    depth,
                );
                self.filters_above(depth, above);
            }
            Kind::NestedLoop(join, left, right, condition) => {
                self.head(node, &joined("Nested Loop", *join), depth);
                if !crate::plan::is_parametric(right) {
                    self.conditions(depth, "Join Filter", condition, &node.labels);
                }
                self.filters_above(depth, above);
                self.node(left, depth + 1, &[]);
                self.node(right, depth + 1, &[]);
            }
            Kind::HashJoin {
                join,
                left,
                right,
                left_keys,
                right_keys,
                condition,
            } => {
                let title = if *join == JoinType::Inner {
                    "Hash Join".to_owned()
                } else {
                    joined("Hash", *join)
                };
                self.head(node, &title, depth);
                let keys: Vec<String> = left_keys
                    .iter()
                    .zip(right_keys)
                    .map(|(a, b)| {
                        format!(
                            "({} = {})",
                            expression(a, &left.labels),
                            expression(b, &right.labels)
                        )
                    })
                    .collect();
                match keys.as_slice() {
                    [one] => self.property(depth, &format!("Hash Cond: {one}")),
                    many => self.property(depth, &format!("Hash Cond: ({})", many.join(" AND "))),
                }
                self.conditions(depth, "Join Filter", condition, &node.labels);
                self.filters_above(depth, above);
                self.node(left, depth + 1, &[]);
                let mut line = format!("{}->  Hash", " ".repeat(6 * depth + 2));
                if self.options.costs {
                    let estimate = right.estimate;
                    let _ = write!(
                        line,
                        "  (cost={:.2}..{:.2} rows={:.0} width={:.0})",
                        estimate.total, estimate.total, estimate.rows, estimate.width
                    );
                }
                self.lines.push(line);
                self.node(right, depth + 2, &[]);
            }
            Kind::ProjectSet(input, ..) => self.unary(node, "ProjectSet", input, depth, above),
            Kind::Sort(input, keys) => {
                self.head(node, "Sort", depth);
                let keys: Vec<String> = keys
                    .iter()
                    .map(|key| {
                        let name = node.labels.get(key.place).map_or("?", String::as_str);
                        let direction = if key.descending { " DESC" } else { "" };
                        let nulls = match (key.descending, key.nulls_first) {
                            (true, false) => " NULLS LAST",
                            (false, true) => " NULLS FIRST",
                            _ => "",
                        };
                        format!("{name}{direction}{nulls}")
                    })
                    .collect();
                self.property(depth, &format!("Sort Key: {}", keys.join(", ")));
                self.filters_above(depth, above);
                self.node(input, depth + 1, &[]);
            }
            Kind::Aggregate(input, keys, _) => {
                self.head(
                    node,
                    if keys.is_empty() {
                        "Aggregate"
                    } else {
                        "HashAggregate"
                    },
                    depth,
                );
                if !keys.is_empty() {
                    let keys: Vec<String> = keys.iter().map(|key| expression(key, &input.labels)).collect();
                    self.property(depth, &format!("Group Key: {}", keys.join(", ")));
                }
                self.filters_above(depth, above);
                self.node(input, depth + 1, &[]);
            }
            Kind::Unique(input, _) => self.unary(node, "HashAggregate", input, depth, above),
            Kind::Limit(input, ..) => self.unary(node, "Limit", input, depth, above),
            Kind::LockRows(input, ..) => self.unary(node, "LockRows", input, depth, above),
            Kind::Append(inputs) => {
                self.head(node, "Append", depth);
                self.filters_above(depth, above);
                for input in inputs {
                    self.node(input, depth + 1, &[]);
                }
            }
            Kind::SetOp(op, all, left, right) => {
                let word = match op {
                    SetOp::Union => "Union",
                    SetOp::Intersect => "Intersect",
                    SetOp::Except => "Except",
                };
                self.head(
                    node,
                    &format!("HashSetOp {word}{}", if *all { " All" } else { "" }),
                    depth,
                );
                self.filters_above(depth, above);
                self.node(left, depth + 1, &[]);
                self.node(right, depth + 1, &[]);
            }
            Kind::Project(input, _) | Kind::Filter(input, _) => self.node(input, depth, above),
        }
    }

    fn unary(
        &mut self,
        node: &Node,
        title: &str,
        input: &Node,
        depth: usize,
        above: &[(&[ScalarExpr], &Node)],
    ) {
        self.head(node, title, depth);
        self.filters_above(depth, above);
        self.node(input, depth + 1, &[]);
    }
}

fn joined(method: &str, join: JoinType) -> String {
    match join {
        JoinType::Inner => method.to_owned(),
        JoinType::Left => format!("{method} Left Join"),
        JoinType::Full => format!("{method} Full Join"),
    }
}
