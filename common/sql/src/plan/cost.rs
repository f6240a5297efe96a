//! Estimates: PostgreSQL's cost units and default selectivities.

use towline_types::{ColumnType, TypeId};

use super::Estimate;
use crate::expr::ScalarExpr;

pub(super) const SEQ_PAGE: f64 = 1.0;
pub(super) const RANDOM_PAGE: f64 = 4.0;
pub(super) const CPU_TUPLE: f64 = 0.01;
pub(super) const CPU_INDEX_TUPLE: f64 = 0.005;
pub(super) const CPU_OPERATOR: f64 = 0.0025;

/// Average bytes of a value.
pub(super) fn width_of(ty: ColumnType) -> f64 {
    match ty.id {
        TypeId::Name => 64.0,
        _ if ty.id.len() > 0 => f64::from(ty.id.len()),
        _ => match ty.char_limit() {
            Some(limit) => (limit as f64).min(100.0),
            None => 32.0,
        },
    }
}

/// The share of rows that pass a condition.
pub(super) fn selectivity(condition: &ScalarExpr, rows: f64) -> f64 {
    match condition {
        ScalarExpr::Call(call) => match call.def.name {
            "=" => (1.0 / (rows / 10.0).max(10.0)).max(0.000_001),
            "<" | ">" | "<=" | ">=" => 1.0 / 3.0,
            "<>" => 0.995,
            "~~" | "~" | "~~*" | "~*" => 0.005,
            _ => 1.0 / 3.0,
        },
        ScalarExpr::And(parts) => parts.iter().map(|part| selectivity(part, rows)).product(),
        ScalarExpr::Or(parts) => parts.iter().fold(0.0, |sum: f64, part| {
            let one = selectivity(part, rows);
            sum + one - sum * one
        }),
        ScalarExpr::Not(part) => 1.0 - selectivity(part, rows),
        ScalarExpr::Is { negated, .. } => {
            if *negated {
                0.995
            } else {
                0.005
            }
        }
        ScalarExpr::InList { list, .. } => (list.len() as f64 / (rows / 10.0).max(10.0)).min(0.5),
        ScalarExpr::Const(towline_types::Datum::Bool(value), _) => f64::from(u8::from(*value)),
        _ => 0.5,
    }
}

/// All conditions together; never below one row.
pub(super) fn filtered(rows: f64, conditions: &[ScalarExpr]) -> f64 {
    let share: f64 = conditions
        .iter()
        .map(|condition| selectivity(condition, rows))
        .product();
    (rows * share).max(1.0).round()
}

impl Estimate {
    /// A scan of all pages.
    pub(super) fn seq_scan(rows: f64, pages: f64, conditions: &[ScalarExpr], width: f64) -> Estimate {
        let cpu = rows * (CPU_TUPLE + CPU_OPERATOR * conditions.len() as f64);
        Estimate {
            startup: 0.0,
            total: pages * SEQ_PAGE + cpu,
            rows: filtered(rows.max(1.0), conditions),
            width,
        }
    }

    /// A sort above this.
    pub(super) fn sorted(self) -> Estimate {
        let rows = self.rows.max(2.0);
        let work = 2.0 * CPU_OPERATOR * rows * rows.log2();
        Estimate {
            startup: self.total + work,
            total: self.total + work + CPU_OPERATOR * rows,
            ..self
        }
    }

    /// Only so many rows of this.
    pub(super) fn limited(self, limit: f64) -> Estimate {
        if limit >= self.rows {
            return self;
        }
        let share = (limit / self.rows.max(1.0)).clamp(0.0, 1.0);
        Estimate {
            total: self.startup + (self.total - self.startup) * share,
            rows: limit.max(1.0),
            ..self
        }
    }
}
