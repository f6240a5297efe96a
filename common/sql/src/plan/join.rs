//! FROM: the order and method of joins.
//!
//! Inner joins are a set of relations and a pool of conditions, joined greedily: the relation that is connected and
//! gives the fewest rows comes next. Outer joins keep their place and are planned as units.

use super::cost::{CPU_OPERATOR, CPU_TUPLE, filtered, selectivity};
use super::index::{best_index, match_rows, usable};
use super::planner::{Planner, Query};
use super::{Estimate, JoinType, Kind, Node, ScanColumn};
use crate::bind::tree::{From, Join, SYSTEM_COLUMNS, Select, Source};
use crate::error::SqlError;
use crate::expr::ScalarExpr;
use crate::parse::ast::JoinKind;

/// A set of range table entries.
pub(super) type Tables = u128;

/// One thing to join.
enum Relation<'q> {
    Base(usize),
    Outer(&'q Join),
}

/// The wish for an order: attributes of one table.
#[derive(Clone, Debug)]
pub(super) struct WantedOrder {
    pub(super) table: usize,
    /// (attribute, descending, nulls first)
    pub(super) keys: Vec<(usize, bool, bool)>,
    /// A LIMIT makes an early first row worth more.
    pub(super) limited: bool,
}

impl Planner<'_> {
    /// The entries an expression looks at.
    pub(super) fn tables_of(&self, select: &Select, expr: &ScalarExpr) -> Tables {
        let mut columns = Vec::new();
        self.columns_of(expr, &mut columns);
        columns
            .iter()
            .fold(0, |set, column| set | 1u128 << entry_of(select, *column))
    }

    /// Plans a list of FROM with these conditions; gives the plan and whether it has the wanted order.
    pub(super) fn plan_from(
        &mut self,
        query: &Query<'_>,
        list: &[&From],
        conditions: Vec<ScalarExpr>,
        wanted: Option<&WantedOrder>,
    ) -> Result<(Node, bool), SqlError> {
        let select = query.select;
        let mut relations = Vec::new();
        let mut pool = conditions;
        for from in list {
            flatten(from, &mut relations, &mut pool);
        }
        if relations.is_empty() {
            let filter = self.map_all(&pool, &[])?;
            let estimate = Estimate {
                startup: 0.0,
                total: CPU_TUPLE,
                rows: 1.0,
                width: 0.0,
            };
            return Ok((self.node(Kind::Result(filter), Vec::new(), 0, estimate), false));
        }
        let sets: Vec<Tables> = relations
            .iter()
            .map(|relation| relation_tables(relation))
            .collect();
        let needs: Vec<Tables> = relations
            .iter()
            .zip(&sets)
            .map(|(relation, own)| match relation {
                Relation::Base(entry) => self.lateral_tables(select, *entry) & !own,
                Relation::Outer(join) => self.join_lateral(select, join) & !own,
            })
            .collect();
        let mut left: Vec<usize> = (0..relations.len()).collect();
        // The first: fewest rows by its own conditions.
        let mut first = None;
        for &at in &left {
            if needs[at] != 0 {
                continue;
            }
            let rows = self.relation_rows(query, &relations[at], sets[at], &pool);
            if first.is_none_or(|(_, best)| rows < best) {
                first = Some((at, rows));
            }
        }
        let Some((first, _)) = first else {
            return Err(SqlError::unsupported("this arrangement of LATERAL items"));
        };
        left.retain(|at| *at != first);
        let mut joined = sets[first];
        let own = take(&mut pool, |condition| {
            self.tables_of(select, condition) & !joined == 0 && self.tables_of(select, condition) != 0
        });
        let single = relations.len() == 1;
        let wanted = wanted.filter(|_| single);
        let (mut node, ordered) = self.plan_relation(query, &relations[first], own, wanted)?;
        while !left.is_empty() {
            let mut best: Option<(usize, (bool, f64))> = None;
            for &at in &left {
                if needs[at] & !joined != 0 {
                    continue;
                }
                let connected = pool.iter().any(|condition| {
                    let tables = self.tables_of(select, condition);
                    tables & sets[at] != 0 && tables & joined != 0 && tables & !(joined | sets[at]) == 0
                });
                let rows = self.relation_rows(query, &relations[at], sets[at], &pool);
                let score = (!connected && needs[at] == 0, rows);
                if best.is_none_or(|(_, other)| score < other) {
                    best = Some((at, score));
                }
            }
            let Some((at, _)) = best else {
                return Err(SqlError::unsupported("this arrangement of LATERAL items"));
            };
            left.retain(|other| *other != at);
            let own = take(&mut pool, |condition| {
                let tables = self.tables_of(select, condition);
                tables != 0 && tables & !sets[at] == 0
            });
            let both = joined | sets[at];
            let conditions = take(&mut pool, |condition| {
                let tables = self.tables_of(select, condition);
                tables != 0 && tables & !both == 0
            });
            node = self.join_relation(
                query,
                node,
                joined,
                &relations[at],
                own,
                conditions,
                JoinType::Inner,
            )?;
            joined = both;
        }
        if !pool.is_empty() {
            node = self.filter(node, pool)?;
        }
        Ok((node, ordered))
    }

    fn relation_rows(
        &self,
        query: &Query<'_>,
        relation: &Relation<'_>,
        set: Tables,
        pool: &[ScalarExpr],
    ) -> f64 {
        let Relation::Base(entry) = relation else {
            return 1000.0;
        };
        let entry = &query.select.tables[*entry];
        let own: Vec<ScalarExpr> = pool
            .iter()
            .filter(|condition| {
                let tables = self.tables_of(query.select, condition);
                tables != 0 && tables & !set == 0
            })
            .cloned()
            .collect();
        match &entry.source {
            Source::Table(table) => {
                let (rows, _) = self.statistics.table_size(table);
                let usable = usable(&own, table, entry.base, &|value| !self.has_columns(value));
                match best_index(table, &usable, self.statistics) {
                    Some(found) => match_rows(&found, rows),
                    None => filtered(rows.max(1.0), &own),
                }
            }
            Source::View(_) => filtered(100.0, &own),
            Source::Query(_) => 200.0,
            Source::Function(..) => 1000.0,
            Source::Scalar(..) => 1.0,
        }
    }

    /// Entries of the same query that an entry's arguments look at.
    fn lateral_tables(&self, select: &Select, entry: usize) -> Tables {
        let mut columns = Vec::new();
        match &select.tables[entry].source {
            Source::Function(call, _) => call
                .args
                .iter()
                .for_each(|arg| self.columns_of(arg, &mut columns)),
            Source::Scalar(expr, _) => self.columns_of(expr, &mut columns),
            Source::Query(query) => query
                .outer
                .iter()
                .for_each(|value| self.columns_of(value, &mut columns)),
            Source::Table(_) | Source::View(_) => {}
        }
        columns
            .iter()
            .fold(0, |set, column| set | 1u128 << entry_of(select, *column))
    }

    fn join_lateral(&self, select: &Select, join: &Join) -> Tables {
        let mut entries = Vec::new();
        entries_of(&join.left, &mut entries);
        entries_of(&join.right, &mut entries);
        entries
            .iter()
            .fold(0, |set, entry| set | self.lateral_tables(select, *entry))
    }

    fn plan_relation(
        &mut self,
        query: &Query<'_>,
        relation: &Relation<'_>,
        conditions: Vec<ScalarExpr>,
        wanted: Option<&WantedOrder>,
    ) -> Result<(Node, bool), SqlError> {
        match relation {
            Relation::Base(entry) => self.plan_base(query, *entry, conditions, None, wanted),
            Relation::Outer(join) => self.plan_outer(query, join, conditions).map(|node| (node, false)),
        }
    }

    /// An outer join with the conditions that came from above.
    fn plan_outer(
        &mut self,
        query: &Query<'_>,
        join: &Join,
        mut above: Vec<ScalarExpr>,
    ) -> Result<Node, SqlError> {
        let select = query.select;
        let (kind, left, right) = match join.kind {
            JoinKind::Right => (JoinType::Left, &join.right, &join.left),
            JoinKind::Full => (JoinType::Full, &join.left, &join.right),
            JoinKind::Left | JoinKind::Inner => (JoinType::Left, &join.left, &join.right),
        };
        let (left_set, right_set) = (from_tables(left), from_tables(right));
        let mut condition = join.condition.clone();
        let mut down = Vec::new();
        let mut right_own = Vec::new();
        if kind == JoinType::Left {
            down = take(&mut above, |one| {
                let tables = self.tables_of(select, one);
                tables != 0 && tables & !left_set == 0
            });
            right_own = take(&mut condition, |one| {
                let tables = self.tables_of(select, one);
                tables != 0 && tables & !right_set == 0
            });
        }
        let (left_node, _) = self.plan_from(query, &[left], down, None)?;
        let relation = match right {
            From::Table(entry) => Relation::Base(*entry),
            From::Join(inner) if inner.kind != JoinKind::Inner => Relation::Outer(inner),
            From::Join(_) => {
                let (right_node, _) = self.plan_from(query, &[right], right_own, None)?;
                let node = self.join_nodes(
                    select, left_node, right_node, left_set, right_set, condition, kind,
                )?;
                return if above.is_empty() {
                    Ok(node)
                } else {
                    self.filter(node, above)
                };
            }
        };
        let node = self.join_relation(query, left_node, left_set, &relation, right_own, condition, kind)?;
        if above.is_empty() {
            Ok(node)
        } else {
            self.filter(node, above)
        }
    }

    #[expect(clippy::too_many_arguments, reason = "both sides with what is known of them")]
    fn join_relation(
        &mut self,
        query: &Query<'_>,
        left: Node,
        left_set: Tables,
        relation: &Relation<'_>,
        own: Vec<ScalarExpr>,
        conditions: Vec<ScalarExpr>,
        kind: JoinType,
    ) -> Result<Node, SqlError> {
        let select = query.select;
        if let Relation::Base(entry) = relation {
            if self.lateral_tables(select, *entry) != 0 {
                if kind == JoinType::Full {
                    return Err(SqlError::unsupported("LATERAL below a FULL JOIN"));
                }
                let (right, _) = self.plan_base(query, *entry, own, Some((&left, &[])), None)?;
                return self.nested_loop(left, right, conditions, kind);
            }
            if kind != JoinType::Full
                && self.index_join_pays(query, &left, left_set, *entry, &own, &conditions)
            {
                let (right, _) = self.plan_base(query, *entry, own, Some((&left, &conditions)), None)?;
                return self.nested_loop(left, right, conditions, kind);
            }
        }
        let right_set = relation_tables(relation);
        let (right, _) = self.plan_relation(query, relation, own, None)?;
        self.join_nodes(select, left, right, left_set, right_set, conditions, kind)
    }

    /// Is there an index on the right table for the join's conditions, and is looking it up for each left row cheaper
    /// than reading the table once?
    fn index_join_pays(
        &self,
        query: &Query<'_>,
        left: &Node,
        left_set: Tables,
        entry: usize,
        own: &[ScalarExpr],
        conditions: &[ScalarExpr],
    ) -> bool {
        let select = query.select;
        let range = &select.tables[entry];
        let Source::Table(table) = &range.source else {
            return false;
        };
        let all: Vec<ScalarExpr> = own.iter().chain(conditions).cloned().collect();
        let usable = usable(&all, table, range.base, &|value| {
            self.tables_of(select, value) & !left_set == 0
        });
        let Some(found) = best_index(table, &usable, self.statistics) else {
            return false;
        };
        if !found.used.iter().any(|condition| *condition >= own.len()) {
            return false;
        }
        let (rows, pages) = self.statistics.table_size(table);
        let matched = match_rows(&found, rows);
        let lookups = left.estimate.rows * (1.0 + matched * 0.1 + CPU_TUPLE * matched);
        let scan = pages + rows * (CPU_TUPLE + CPU_OPERATOR) + left.estimate.rows * CPU_OPERATOR;
        found.unique && left.estimate.rows <= 10.0 || lookups < scan
    }

    fn nested_loop(
        &mut self,
        left: Node,
        right: Node,
        conditions: Vec<ScalarExpr>,
        kind: JoinType,
    ) -> Result<Node, SqlError> {
        let layout: Vec<usize> = left.layout.iter().chain(&right.layout).copied().collect();
        let condition = self.map_all(&conditions, &layout)?;
        let share: f64 = conditions
            .iter()
            .map(|one| selectivity(one, right.estimate.rows.max(10.0)))
            .product();
        let pairs = left.estimate.rows * right.estimate.rows;
        let parametric = is_parametric(&right);
        let rows = if parametric { pairs } else { pairs * share };
        let rows = if kind == JoinType::Left {
            rows.max(left.estimate.rows)
        } else {
            rows
        };
        let estimate = Estimate {
            startup: left.estimate.startup + right.estimate.startup,
            total: left.estimate.total
                + left.estimate.rows * right.estimate.total.max(0.01)
                + pairs * CPU_TUPLE,
            rows: rows.max(1.0).round(),
            width: left.estimate.width + right.estimate.width,
        };
        let width = left.width + right.width;
        let labels = joined_labels(&left, &right);
        let mut node = self.node(
            Kind::NestedLoop(kind, Box::new(left), Box::new(right), condition),
            layout,
            width,
            estimate,
        );
        node.labels = labels;
        Ok(node)
    }

    #[expect(clippy::too_many_arguments, reason = "both sides with what is known of them")]
    fn join_nodes(
        &mut self,
        select: &Select,
        left: Node,
        right: Node,
        left_set: Tables,
        right_set: Tables,
        conditions: Vec<ScalarExpr>,
        kind: JoinType,
    ) -> Result<Node, SqlError> {
        let mut left_keys = Vec::new();
        let mut right_keys = Vec::new();
        let mut rest = Vec::new();
        for condition in &conditions {
            match self.hash_keys(select, condition, left_set, right_set) {
                Some((a, b)) => {
                    left_keys.push(a);
                    right_keys.push(b);
                }
                None => rest.push(condition.clone()),
            }
        }
        if left_keys.is_empty() {
            return self.nested_loop(left, right, conditions, kind);
        }
        // The smaller side is hashed.
        let swap = kind == JoinType::Inner && right.estimate.rows > left.estimate.rows;
        let (left, right, left_keys, right_keys) = if swap {
            (right, left, right_keys, left_keys)
        } else {
            (left, right, left_keys, right_keys)
        };
        let layout: Vec<usize> = left.layout.iter().chain(&right.layout).copied().collect();
        let left_keys = self.map_all(&left_keys, &left.layout)?;
        let right_keys = self.map_all(&right_keys, &right.layout)?;
        let condition = self.map_all(&rest, &layout)?;
        let larger = left.estimate.rows.max(right.estimate.rows).max(1.0);
        let mut rows = left.estimate.rows * right.estimate.rows / larger;
        for one in &rest {
            rows *= selectivity(one, larger);
        }
        if kind != JoinType::Inner {
            rows = rows.max(left.estimate.rows);
        }
        let startup = right.estimate.total + right.estimate.rows * CPU_TUPLE;
        let estimate = Estimate {
            startup: startup + left.estimate.startup,
            total: startup
                + left.estimate.total
                + left.estimate.rows * CPU_OPERATOR * left_keys.len() as f64
                + rows * CPU_TUPLE,
            rows: rows.max(1.0).round(),
            width: left.estimate.width + right.estimate.width,
        };
        let width = left.width + right.width;
        let labels = joined_labels(&left, &right);
        let kind = Kind::HashJoin {
            join: kind,
            left: Box::new(left),
            right: Box::new(right),
            left_keys,
            right_keys,
            condition,
        };
        let mut node = self.node(kind, layout, width, estimate);
        node.labels = labels;
        Ok(node)
    }

    /// `a = b` with one side from each input, of types whose values hash alike.
    fn hash_keys(
        &self,
        select: &Select,
        condition: &ScalarExpr,
        left_set: Tables,
        right_set: Tables,
    ) -> Option<(ScalarExpr, ScalarExpr)> {
        let ScalarExpr::Call(call) = condition else {
            return None;
        };
        let [a, b] = call.args.as_slice() else { return None };
        if call.def.name != "=" || !hashes_alike(a, b) {
            return None;
        }
        let (in_a, in_b) = (self.tables_of(select, a), self.tables_of(select, b));
        if in_a == 0 || in_b == 0 {
            return None;
        }
        if in_a & !left_set == 0 && in_b & !right_set == 0 {
            Some((a.clone(), b.clone()))
        } else if in_b & !left_set == 0 && in_a & !right_set == 0 {
            Some((b.clone(), a.clone()))
        } else {
            None
        }
    }
}

fn flatten<'q>(from: &'q From, relations: &mut Vec<Relation<'q>>, pool: &mut Vec<ScalarExpr>) {
    match from {
        From::Table(entry) => relations.push(Relation::Base(*entry)),
        From::Join(join) if join.kind == JoinKind::Inner => {
            flatten(&join.left, relations, pool);
            flatten(&join.right, relations, pool);
            pool.extend(join.condition.iter().cloned());
        }
        From::Join(join) => relations.push(Relation::Outer(join)),
    }
}

fn entries_of(from: &From, entries: &mut Vec<usize>) {
    match from {
        From::Table(entry) => entries.push(*entry),
        From::Join(join) => {
            entries_of(&join.left, entries);
            entries_of(&join.right, entries);
        }
    }
}

fn from_tables(from: &From) -> Tables {
    let mut entries = Vec::new();
    entries_of(from, &mut entries);
    entries.iter().fold(0, |set, entry| set | 1u128 << entry)
}

fn relation_tables(relation: &Relation<'_>) -> Tables {
    match relation {
        Relation::Base(entry) => 1u128 << entry,
        Relation::Outer(join) => from_tables(&join.left) | from_tables(&join.right),
    }
}

fn entry_of(select: &Select, column: usize) -> usize {
    select
        .tables
        .iter()
        .rposition(|entry| entry.base <= column && entry.width() > 0)
        .unwrap_or(0)
}

fn take(pool: &mut Vec<ScalarExpr>, wanted: impl Fn(&ScalarExpr) -> bool) -> Vec<ScalarExpr> {
    let (taken, kept) = std::mem::take(pool)
        .into_iter()
        .partition(|condition| wanted(condition));
    *pool = kept;
    taken
}

fn joined_labels(left: &Node, right: &Node) -> Vec<String> {
    left.labels.iter().chain(&right.labels).cloned().collect()
}

/// Does a node look at the row of the other side of its loop?
pub(crate) fn is_parametric(node: &Node) -> bool {
    let uses_row = |expr: &ScalarExpr| {
        expr.any(&|part| matches!(part, ScalarExpr::Column { .. } | ScalarExpr::Subquery { .. }))
    };
    match &node.kind {
        Kind::IndexScan(_, access) => {
            let range = &access.range;
            range.equal.iter().flatten().chain(&range.any).any(uses_row)
                || range
                    .lower
                    .iter()
                    .chain(&range.upper)
                    .any(|bound| uses_row(&bound.value))
        }
        Kind::FunctionScan(call, ..) => call.args.iter().any(uses_row),
        Kind::ScalarScan(expr, ..) => uses_row(expr),
        Kind::SubqueryScan(_, values, ..) => values.iter().any(uses_row),
        _ => false,
    }
}

pub(super) fn has_subquery(expr: &ScalarExpr) -> bool {
    expr.any(&|part| matches!(part, ScalarExpr::Subquery { .. }))
}

pub(super) fn is_volatile(expr: &ScalarExpr) -> bool {
    expr.volatility() == crate::expr::Volatility::Volatile
}

/// Values of both sides must hash the same when they are equal.
fn hashes_alike(a: &ScalarExpr, b: &ScalarExpr) -> bool {
    use towline_types::TypeId;
    let group = |id: TypeId| match id {
        TypeId::Int2 | TypeId::Int4 | TypeId::Int8 => 1,
        TypeId::Text | TypeId::Varchar | TypeId::Name => 2,
        id if id == TypeId::Oid || id.is_reg() => 3,
        _ => 0,
    };
    let (a, b) = (a.ty().id, b.ty().id);
    a == b || group(a) != 0 && group(a) == group(b)
}

/// The place of a system column among a table's numbers.
pub(super) fn system_column(offset: usize) -> ScanColumn {
    match SYSTEM_COLUMNS.get(offset).map(|(name, ..)| *name) {
        Some("xmin") => ScanColumn::Xmin,
        Some("xmax") => ScanColumn::Xmax,
        Some("tableoid") => ScanColumn::TableOid,
        _ => ScanColumn::Ctid,
    }
}
