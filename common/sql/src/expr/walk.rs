//! Looking over and changing a bound tree: operands, volatility, constants and their folding.

use super::context::EvalContext;
use super::functions::Volatility;
use super::tree::{ScalarExpr, SubqueryKind};
use towline_types::TypeId;

impl ScalarExpr {
    /// How many parts it has, itself among them; counted no further than `most`.
    pub fn size(&self, most: usize) -> usize {
        let mut count = 1;
        self.for_each_child(&mut |child| {
            if count < most {
                count += child.size(most - count);
            }
        });
        count
    }

    /// Calls `f` for each direct operand.
    pub fn for_each_child<'a>(&'a self, f: &mut dyn FnMut(&'a ScalarExpr)) {
        match self {
            ScalarExpr::Const(..)
            | ScalarExpr::Column { .. }
            | ScalarExpr::Outer { .. }
            | ScalarExpr::Param { .. } => {}
            ScalarExpr::Call(call) => call.args.iter().for_each(f),
            ScalarExpr::And(args)
            | ScalarExpr::Or(args)
            | ScalarExpr::Coalesce(args, _)
            | ScalarExpr::MinMax(_, args, _)
            | ScalarExpr::Array(_, args)
            | ScalarExpr::Row(args) => args.iter().for_each(f),
            ScalarExpr::Not(arg) | ScalarExpr::Is { arg, .. } | ScalarExpr::Cast { arg, .. } => f(arg),
            ScalarExpr::Distinct { left, right, .. }
            | ScalarExpr::NullIf(left, right)
            | ScalarExpr::Subscript(left, right, _) => {
                f(left);
                f(right);
            }
            ScalarExpr::InList { arg, list, .. } => {
                f(arg);
                list.iter().for_each(f);
            }
            ScalarExpr::Case(case) => {
                for (when, then) in &case.whens {
                    f(when);
                    f(then);
                }
                if let Some(otherwise) = &case.otherwise {
                    f(otherwise);
                }
            }
            ScalarExpr::AnyAll { arg, array, .. } => {
                f(arg);
                f(array);
            }
            ScalarExpr::Subquery { kind, .. } => {
                if let SubqueryKind::AnyAll { arg, .. } = kind {
                    f(arg);
                }
            }
        }
    }

    /// Calls `f` for each direct operand, to change it.
    pub fn for_each_child_mut(&mut self, f: &mut dyn FnMut(&mut ScalarExpr)) {
        match self {
            ScalarExpr::Const(..)
            | ScalarExpr::Column { .. }
            | ScalarExpr::Outer { .. }
            | ScalarExpr::Param { .. } => {}
            ScalarExpr::Call(call) => call.args.iter_mut().for_each(f),
            ScalarExpr::And(args)
            | ScalarExpr::Or(args)
            | ScalarExpr::Coalesce(args, _)
            | ScalarExpr::MinMax(_, args, _)
            | ScalarExpr::Array(_, args)
            | ScalarExpr::Row(args) => args.iter_mut().for_each(f),
            ScalarExpr::Not(arg) | ScalarExpr::Is { arg, .. } | ScalarExpr::Cast { arg, .. } => f(arg),
            ScalarExpr::Distinct { left, right, .. }
            | ScalarExpr::NullIf(left, right)
            | ScalarExpr::Subscript(left, right, _) => {
                f(left);
                f(right);
            }
            ScalarExpr::InList { arg, list, .. } => {
                f(arg);
                list.iter_mut().for_each(f);
            }
            ScalarExpr::Case(case) => {
                for (when, then) in &mut case.whens {
                    f(when);
                    f(then);
                }
                if let Some(otherwise) = &mut case.otherwise {
                    f(otherwise);
                }
            }
            ScalarExpr::AnyAll { arg, array, .. } => {
                f(arg);
                f(array);
            }
            ScalarExpr::Subquery { kind, .. } => {
                if let SubqueryKind::AnyAll { arg, .. } = kind {
                    f(arg);
                }
            }
        }
    }

    /// Whether some node of the tree satisfies `test`.
    pub fn any(&self, test: &dyn Fn(&ScalarExpr) -> bool) -> bool {
        if test(self) {
            return true;
        }
        let mut found = false;
        self.for_each_child(&mut |child| found = found || child.any(test));
        found
    }

    /// The least stable function in the tree. Columns, parameters and subqueries count as [`Volatility::Immutable`]
    /// here; ask [`ScalarExpr::is_constant`] for them.
    pub fn volatility(&self) -> Volatility {
        let mut worst = match self {
            ScalarExpr::Call(call) => call.def.volatility,
            ScalarExpr::Cast { from, to, .. } => cast_volatility(*from, to.id),
            _ => Volatility::Immutable,
        };
        self.for_each_child(&mut |child| worst = worst.max(child.volatility()));
        worst
    }

    /// Whether the tree has neither columns (of this or an enclosing query), nor subqueries; with `params`, parameters
    /// count as constants.
    pub fn is_constant(&self, params: bool) -> bool {
        !self.any(&|e| match e {
            ScalarExpr::Column { .. } | ScalarExpr::Outer { .. } | ScalarExpr::Subquery { .. } => true,
            ScalarExpr::Param { .. } => !params,
            _ => false,
        })
    }

    /// Replaces constant subtrees by their value: at bind time those up to `Immutable`, at the start of an execution
    /// (with its parameters in `cx`, `params` true) those up to `Stable`. A subtree whose evaluation fails stays, so
    /// that the error comes only if it is reached.
    pub fn fold(&mut self, limit: Volatility, params: bool, cx: &EvalContext<'_>) {
        self.for_each_child_mut(&mut |child| child.fold(limit, params, cx));
        if matches!(self, ScalarExpr::Const(..)) || self.volatility() > limit || !self.is_constant(params) {
            return;
        }
        let ty = self.ty();
        if let Ok(value) = self.eval(&[], cx) {
            *self = ScalarExpr::Const(value, ty);
        }
    }
}

pub(super) fn cast_volatility(from: TypeId, to: TypeId) -> Volatility {
    let session = |t: TypeId| t.is_reg() || matches!(t, TypeId::TimestampTz | TypeId::TimestampTzArray);
    let dates = |t: TypeId| {
        matches!(
            t,
            TypeId::Date | TypeId::Timestamp | TypeId::DateArray | TypeId::TimestampArray
        )
    };
    if session(from) || session(to) || dates(from) || dates(to) || from == TypeId::Bytea {
        Volatility::Stable
    } else {
        Volatility::Immutable
    }
}
