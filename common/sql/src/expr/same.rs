//! Whether two bound expressions are the same: GROUP BY, DISTINCT and ORDER BY find theirs in the select list by it.
//!
//! By structure. It stops at the first difference, so that looking for a key in each part of a high tree stays cheap.

use super::aggregate::AggregateCall;
use super::tree::{ScalarExpr, SubqueryKind};
use smallvec::SmallVec;

impl ScalarExpr {
    /// Whether both say the same: the same operations on the same columns and constants.
    pub(crate) fn is_same(&self, other: &ScalarExpr) -> bool {
        if !self.is_same_at_top(other) {
            return false;
        }
        let (own, others) = (self.children(), other.children());
        own.len() == others.len() && own.iter().zip(&others).all(|(a, b)| a.is_same(b))
    }

    fn children(&self) -> SmallVec<[&ScalarExpr; 3]> {
        let mut children = SmallVec::new();
        self.for_each_child(&mut |child| children.push(child));
        children
    }

    /// Whether both are the same but for their operands.
    fn is_same_at_top(&self, other: &ScalarExpr) -> bool {
        use ScalarExpr as E;
        match (self, other) {
            // 1.0 and 1.00 are equal, and not the same.
            (E::Const(a, ty), E::Const(b, other)) => ty == other && format!("{a:?}") == format!("{b:?}"),
            (E::Column { index: a, .. }, E::Column { index: b, .. }) => a == b,
            (E::Outer { index: a, ty }, E::Outer { index: b, ty: other })
            | (E::Param { index: a, ty }, E::Param { index: b, ty: other }) => a == b && ty == other,
            (E::Call(a), E::Call(b)) => std::ptr::eq(a.def, b.def) && a.ty == b.ty,
            (E::And(_), E::And(_))
            | (E::Or(_), E::Or(_))
            | (E::Not(_), E::Not(_))
            | (E::Coalesce(..), E::Coalesce(..))
            | (E::NullIf(..), E::NullIf(..))
            | (E::Row(_), E::Row(_)) => true,
            (
                E::Is { kind, negated, .. },
                E::Is {
                    kind: other,
                    negated: or_not,
                    ..
                },
            ) => kind == other && negated == or_not,
            (E::Distinct { negated: a, .. }, E::Distinct { negated: b, .. })
            | (E::InList { negated: a, .. }, E::InList { negated: b, .. })
            | (E::MinMax(a, ..), E::MinMax(b, ..)) => a == b,
            (E::Case(a), E::Case(b)) => a.ty == b.ty && a.whens.len() == b.whens.len(),
            (
                E::AnyAll { op, all, .. },
                E::AnyAll {
                    op: other,
                    all: or_all,
                    ..
                },
            ) => std::ptr::eq(*op, *other) && all == or_all,
            (E::Array(a, _), E::Array(b, _)) => a == b,
            (E::Subscript(_, _, a), E::Subscript(_, _, b)) => a == b,
            (
                E::Cast {
                    from, to, explicit, ..
                },
                E::Cast {
                    from: other_from,
                    to: other_to,
                    explicit: other_explicit,
                    ..
                },
            ) => from == other_from && to == other_to && explicit == other_explicit,
            (
                E::Subquery { slot: a, kind, ty },
                E::Subquery {
                    slot: b,
                    kind: other,
                    ty: other_ty,
                },
            ) => a == b && ty == other_ty && is_same_kind(kind, other),
            _ => false,
        }
    }
}

fn is_same_kind(kind: &SubqueryKind, other: &SubqueryKind) -> bool {
    match (kind, other) {
        (SubqueryKind::Scalar, SubqueryKind::Scalar) | (SubqueryKind::Exists, SubqueryKind::Exists) => true,
        (SubqueryKind::Array(a), SubqueryKind::Array(b)) => a == b,
        (
            SubqueryKind::AnyAll { op, all, .. },
            SubqueryKind::AnyAll {
                op: other,
                all: or_all,
                ..
            },
        ) => std::ptr::eq(*op, *other) && all == or_all,
        _ => false,
    }
}

impl AggregateCall {
    /// Whether both compute the same.
    pub(crate) fn is_same(&self, other: &AggregateCall) -> bool {
        let Self {
            kind,
            name,
            args,
            input,
            distinct,
            order_by,
            filter,
            ty,
        } = self;
        let all_same = |a: &[ScalarExpr], b: &[ScalarExpr]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_same(b))
        };
        (kind, name, input, distinct, ty)
            == (&other.kind, &other.name, &other.input, &other.distinct, &other.ty)
            && all_same(args, &other.args)
            && order_by.len() == other.order_by.len()
            && order_by
                .iter()
                .zip(&other.order_by)
                .all(|(a, b)| a.1 == b.1 && a.2 == b.2 && a.0.is_same(&b.0))
            && all_same(filter.as_slice(), other.filter.as_slice())
    }
}
