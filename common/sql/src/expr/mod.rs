//! Scalar expressions: the bound tree, its evaluation, and the resolution of operators, functions and casts.
//!
//! - [`ScalarExpr`] is a bound, typed tree. [`ScalarExpr::eval`] computes it over one row of [`Datum`](towline_types::Datum)s with SQL's
//!   three-valued logic and left-to-right short-circuit; it never waits.
//! - [`ExprBuilder`] makes trees: the binder hands it operands and names, it resolves by PostgreSQL's rules, decides
//!   unknown literals and undeclared parameters, and inserts the casts.
//! - [`FunctionContext`] is what functions may ask of the session and the engine; the session implements it.
//! - [`AggregateCall`] and [`AggregateState`] are aggregates; [`SetCall`] is a set-returning function.
//!
//! Nothing here knows plans, tables or transactions.

mod aggregate;
mod builder;
mod calls;
mod coerce;
mod context;
mod functions;
#[cfg(test)]
mod oracle;
mod resolve;
mod same;
mod set;
mod tree;
mod walk;

pub use aggregate::{AggregateCall, AggregateKind, AggregateState};
pub use builder::{CallOptions, ExprBuilder, ResolvedCall};
pub(crate) use coerce::first_misfit;
pub use context::{EvalContext, FunctionContext, NoContext, NoSubqueries, Subqueries};
pub use functions::{FunctionDef, ScalarFn, Volatility, all_functions, function_exists};
pub use set::{SetCall, SetRows};
pub(crate) use tree::size_of_datum;
pub use tree::{CallExpr, CaseExpr, IsKind, ScalarExpr, SubqueryKind, array_elements, cast_value};

use crate::error::SqlError;
use towline_types::TypeError;

impl From<TypeError> for SqlError {
    #[cold]
    fn from(error: TypeError) -> Self {
        let mut out = SqlError::new(error.sqlstate(), error.message());
        if let Some(detail) = error.detail() {
            out = out.with_detail(detail);
        }
        if let Some(hint) = error.hint() {
            out = out.with_hint(hint);
        }
        out
    }
}
