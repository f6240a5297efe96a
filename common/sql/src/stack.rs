//! How much stack a statement has, and how deep it may nest on it.
//!
//! A statement is handled by functions that call themselves for each part of its tree: parser, binder, planner, executor, EXPLAIN, and
//! the dropping of what they made. A thread has 2 MB for them (a worker of the runtime, a test). That is enough for what people write
//! and not for what programs write: a sum of thousands of terms, thousands of parentheses. So there are two [`Limits`]. Those of an
//! ordinary stack are low enough for any thread. A text that is beyond them is refused by [`too_deep`], and the session, which sees
//! that refusal before its client does, marks itself and tries again on a stack of its own ([`on_deep_stack`]); only what is beyond
//! the limits of that one is an error.
//!
//! Why so, and not otherwise:
//! - Larger stacks for all threads would be as simple, but each worker would keep the pages that one bad statement has touched, threads
//!   that are not the runtime's would be forgotten, and strict accounting of memory charges them even when nobody uses them. A deep
//!   stack is mapped for one call of a session, its pages appear as they are touched, and they are gone when the call is over.
//! - A look at the stack in each recursive function (`maybe_grow` at each level) costs the evaluation of every row, and derived functions
//!   (`Clone`, `Debug`, the glue that drops a tree) have no place for it.
//! - Taking trees apart with loops needs each of these functions written by hand and kept so; operators alone would be a dozen.
//!
//! What holds:
//! - **The session owns every tree** of its statements (nothing that it hands out has one), and a session that has met a deep one makes
//!   each of its calls, the dropping of itself among them, on a deep stack.
//! - A session that has not pays one look at a flag.
//! - The limits are counted, not measured, so that a statement is accepted or refused by every build alike; `tests/depth.rs` measures
//!   what the deepest trees take. Where trees are made of other trees and counting is not exact (WITH entries), [`check`] looks at
//!   the stack itself.

use crate::error::SqlError;
use towline_base::SqlState;

/// Bytes of a deep stack. Address space; memory only as far as it is touched.
const DEEP_STACK: usize = 192 << 20;
/// A stack with so much left is a deep one.
const DEEP_ENOUGH: usize = DEEP_STACK - (32 << 20);
/// Nobody begins another level with less than this.
const RESERVE: usize = 256 << 10;

/// How high a tree may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Deepest nesting of expressions and queries, in calls of the parser: one for a parenthesis, three for a query in another.
    pub depth: u32,
    /// Highest tree: chains of one operator and nesting together. Chains in the first operands of chains multiply, so that a bound of
    /// their own would not be enough.
    pub height: u32,
}

/// What a level takes is greatest in a build for tests: 12 KB for a query in another, 6 KB for a parenthesis. See `tests/depth.rs`.
const ORDINARY: Limits = Limits {
    depth: 64,
    height: 250,
};
/// As much as PostgreSQL 15 takes by default: its parser has room for 10,000 parentheses, and its stack of 2 MB (max_stack_depth) for a
/// sum of 4,000 terms, 13,000 casts, 2,000 subqueries in each other.
const DEEP: Limits = Limits {
    depth: 10_500,
    height: 14_000,
};

/// The limits that fit the stack this thread is on.
pub(crate) fn limits() -> Limits {
    if is_deep() { DEEP } else { ORDINARY }
}

fn is_deep() -> bool {
    stacker::remaining_stack().is_some_and(|left| left >= DEEP_ENOUGH)
}

/// [`too_deep`] unless this is a deep stack.
pub(crate) fn needs_deep() -> Result<(), SqlError> {
    if is_deep() { Ok(()) } else { Err(too_deep()) }
}

/// Runs `work` on a deep stack: this one, if it is, or else one made for it.
pub(crate) fn on_deep_stack<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(DEEP_ENOUGH, DEEP_STACK, work)
}

/// 54001 if the stack is nearly used up.
#[inline]
pub(crate) fn check() -> Result<(), SqlError> {
    match stacker::remaining_stack() {
        Some(left) if left < RESERVE => Err(too_deep()),
        _ => Ok(()),
    }
}

/// 54001, as PostgreSQL answers when the stack is at its limit. Its hint, to raise max_stack_depth, would not help here: the limits do not
/// follow that setting.
#[cold]
pub(crate) fn too_deep() -> SqlError {
    SqlError::new(SqlState::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
        .with_hint("The statement is nested too deeply.")
}

/// Whether this is [`too_deep`], which a deep stack may heal.
pub(crate) fn wants_deep_stack(error: &SqlError) -> bool {
    error.sqlstate() == SqlState::STATEMENT_TOO_COMPLEX
}
