//! Conditions that an index can answer.

use std::sync::Arc;

use towline_access::catalog::{Index, Table};
use towline_types::{Category, TypeId};

use super::{BoundExpr, IndexRange};
use crate::expr::{IsKind, ScalarExpr};

/// How a condition bounds a column.
#[derive(Clone, Debug)]
pub(super) enum Limit {
    Equal(ScalarExpr),
    IsNull,
    Any(ScalarExpr),
    Lower(ScalarExpr, bool),
    Upper(ScalarExpr, bool),
}

/// A condition of the form `column op value`, with the number of the condition it came from.
#[derive(Clone, Debug)]
pub(super) struct Usable {
    /// Attribute, from 0.
    pub(super) attribute: usize,
    pub(super) limit: Limit,
    pub(super) condition: usize,
}

/// An index with the conditions it answers.
#[derive(Clone, Debug)]
pub(super) struct Match {
    pub(super) index: Arc<Index>,
    pub(super) range: IndexRange,
    /// Conditions that need not be asked again.
    pub(super) used: Vec<usize>,
    /// Equality on every column of a unique index.
    pub(super) unique: bool,
    /// Number of columns with equality, and whether a range follows.
    pub(super) equal: usize,
    pub(super) ranged: bool,
}

fn family(id: TypeId) -> u8 {
    match id {
        TypeId::Int2 | TypeId::Int4 | TypeId::Int8 => 1,
        TypeId::Text | TypeId::Varchar | TypeId::Name => 2,
        id if id == TypeId::Oid || id.is_reg() => 3,
        _ => 0,
    }
}

/// Do both types compare alike in an index of the first?
fn compatible(column: TypeId, value: TypeId) -> bool {
    column == value || family(column) != 0 && family(column) == family(value)
}

/// Looks through conversions that keep value and order.
fn stripped(expr: &ScalarExpr) -> &ScalarExpr {
    match expr {
        ScalarExpr::Cast { arg, from, to, .. }
            if to.typmod < 0
                && family(*from) != 0
                && family(*from) == family(to.id)
                && widens(*from, to.id) =>
        {
            stripped(arg)
        }
        other => other,
    }
}

fn widens(from: TypeId, to: TypeId) -> bool {
    from.category() == Category::String || from.len() <= to.len()
}

fn flipped(op: &str) -> &str {
    match op {
        "<" => ">",
        ">" => "<",
        "<=" => ">=",
        ">=" => "<=",
        other => other,
    }
}

/// Finds the conditions on columns `base .. base + columns` whose other side `allowed` accepts.
pub(super) fn usable(
    conditions: &[ScalarExpr],
    table: &Table,
    base: usize,
    allowed: &dyn Fn(&ScalarExpr) -> bool,
) -> Vec<Usable> {
    let attribute_of = |expr: &ScalarExpr| match stripped(expr) {
        ScalarExpr::Column { index, .. } if (base..base + table.columns.len()).contains(index) => {
            Some(index - base)
        }
        _ => None,
    };
    let mut found = Vec::new();
    for (number, condition) in conditions.iter().enumerate() {
        match condition {
            ScalarExpr::Call(call) if call.args.len() == 2 => {
                for (column, value, turned) in [
                    (&call.args[0], &call.args[1], false),
                    (&call.args[1], &call.args[0], true),
                ] {
                    let Some(attribute) = attribute_of(column) else {
                        continue;
                    };
                    let value = stripped(value);
                    let ty = table.columns[attribute].column_type.id;
                    if !compatible(ty, value.ty().id) || !allowed(value) {
                        continue;
                    }
                    let op = if turned {
                        flipped(call.def.name)
                    } else {
                        call.def.name
                    };
                    let value = value.clone();
                    let limit = match op {
                        "=" => Limit::Equal(value),
                        ">" => Limit::Lower(value, false),
                        ">=" => Limit::Lower(value, true),
                        "<" => Limit::Upper(value, false),
                        "<=" => Limit::Upper(value, true),
                        _ => continue,
                    };
                    found.push(Usable {
                        attribute,
                        limit,
                        condition: number,
                    });
                    break;
                }
            }
            ScalarExpr::Is {
                arg,
                kind: IsKind::Null,
                negated: false,
            } => {
                if let Some(attribute) = attribute_of(arg) {
                    found.push(Usable {
                        attribute,
                        limit: Limit::IsNull,
                        condition: number,
                    });
                }
            }
            ScalarExpr::AnyAll {
                arg,
                op,
                all: false,
                array,
            } if op.name == "=" => {
                if let Some(attribute) = attribute_of(arg) {
                    let element = array.ty().id.element();
                    let ty = table.columns[attribute].column_type.id;
                    if element.is_some_and(|element| compatible(ty, element)) && allowed(array) {
                        found.push(Usable {
                            attribute,
                            limit: Limit::Any((**array).clone()),
                            condition: number,
                        });
                    }
                }
            }
            ScalarExpr::InList {
                arg,
                list,
                negated: false,
            } => {
                if let Some(attribute) = attribute_of(arg) {
                    let ty = table.columns[attribute].column_type.id;
                    let items: Vec<ScalarExpr> = list.iter().map(|item| stripped(item).clone()).collect();
                    let element = items.first().map_or(TypeId::Unknown, |item| item.ty().id);
                    let alike = items.iter().all(|item| item.ty().id == element && allowed(item));
                    if alike && compatible(ty, element) && element.array().is_some() {
                        let array = ScalarExpr::Array(element, items);
                        found.push(Usable {
                            attribute,
                            limit: Limit::Any(array),
                            condition: number,
                        });
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// What an index can do with these conditions; `None`: nothing.
pub(super) fn match_index(index: &Arc<Index>, usable: &[Usable]) -> Option<Match> {
    let mut range = IndexRange::default();
    let mut used = Vec::new();
    let mut ranged = false;
    for key in index.keys.iter() {
        let attribute = usize::try_from(key.column - 1).ok()?;
        let here = || usable.iter().filter(move |one| one.attribute == attribute);
        let equal = here().find_map(|one| match &one.limit {
            Limit::Equal(value) => Some((Some(value.clone()), one.condition)),
            Limit::IsNull => Some((None, one.condition)),
            _ => None,
        });
        if let Some((value, condition)) = equal {
            range.equal.push(value);
            used.push(condition);
            continue;
        }
        if let Some(one) = here().find(|one| matches!(one.limit, Limit::Any(_)))
            && let Limit::Any(array) = &one.limit
        {
            range.any = Some(array.clone());
            used.push(one.condition);
            break;
        }
        for one in here() {
            match &one.limit {
                Limit::Lower(value, inclusive) => {
                    range.lower.push(BoundExpr {
                        value: value.clone(),
                        inclusive: *inclusive,
                    });
                }
                Limit::Upper(value, inclusive) => {
                    range.upper.push(BoundExpr {
                        value: value.clone(),
                        inclusive: *inclusive,
                    });
                }
                _ => continue,
            }
            ranged = true;
            used.push(one.condition);
        }
        break;
    }
    let equal = range.equal.len();
    if equal == 0 && !ranged && range.any.is_none() {
        return None;
    }
    let unique = index.unique && equal == index.keys.len() && range.equal.iter().all(Option::is_some);
    Some(Match {
        index: index.clone(),
        range,
        used,
        unique,
        equal,
        ranged,
    })
}

/// The best index for these conditions.
pub(super) fn best_index(
    table: &Table,
    usable: &[Usable],
    statistics: &dyn super::Statistics,
) -> Option<Match> {
    let mut best: Option<Match> = None;
    for index in table.indexes.iter().filter(|index| statistics.is_usable(index)) {
        let Some(found) = match_index(index, usable) else {
            continue;
        };
        let score = |found: &Match| {
            (
                found.unique,
                found.equal + usize::from(found.range.any.is_some()),
                found.ranged,
                usize::MAX - found.index.keys.len(),
            )
        };
        if best.as_ref().is_none_or(|best| score(&found) > score(best)) {
            best = Some(found);
        }
    }
    best
}

/// The share of the table's rows that a match finds.
pub(super) fn match_rows(found: &Match, rows: f64) -> f64 {
    if found.unique {
        return 1.0;
    }
    let mut estimate = rows;
    let keys = found.index.keys.len();
    for place in 0..found.equal {
        let distinct = if found.index.unique && keys == 1 {
            rows
        } else {
            (rows / 10.0).max(10.0)
        };
        estimate /= if place == 0 { distinct.max(1.0) } else { 10.0 };
    }
    if found.range.any.is_some() {
        estimate = if found.index.unique && keys == found.equal + 1 {
            10.0
        } else {
            estimate / 10.0
        };
    }
    if !found.range.lower.is_empty() && !found.range.upper.is_empty() {
        estimate *= 0.005_f64.max(1.0 / rows.max(1.0));
    } else if found.ranged {
        estimate /= 3.0;
    }
    estimate.max(1.0)
}
