//! Constants, type names and scalar expressions.

use super::{Pos, QualifiedName, Query, SortItem};

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    /// NULL
    Null,
    /// TRUE, FALSE
    Bool(bool),
    /// Digits only; int4, int8 or numeric by size.
    Int(String),
    /// With a point or exponent: numeric.
    Num(String),
    /// A string: of unknown type.
    Str(String),
}

/// A type as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TypeName {
    /// `pg_catalog.int4`; SQL's own spellings are already mapped (`integer` → int4).
    pub name: QualifiedName,
    /// `(10, 2)`.
    pub modifiers: Vec<i32>,
    /// `[]` was written.
    pub array: bool,
    /// Where it stands.
    pub pos: Pos,
}

/// The test of `IS [NOT] …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IsTest {
    /// IS NULL
    Null,
    /// IS TRUE
    True,
    /// IS FALSE
    False,
    /// IS UNKNOWN
    Unknown,
}

/// A scalar expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    /// `a`, `t.a`, `s.t.a`
    Column(QualifiedName),
    /// `t.*` where an expression may stand (only `count(t.*)`-like forms; refused by the binder).
    WholeRow(QualifiedName),
    /// `$1`
    Param(u32, Pos),
    /// A constant.
    Literal(Literal, Pos),
    /// A prefix operator.
    Unary(String, Box<Expr>, Pos),
    /// An infix operator; the position is the operator's.
    Binary(String, Box<Expr>, Box<Expr>, Pos),
    /// A chain of AND.
    And(Vec<Expr>, Pos),
    /// A chain of OR.
    Or(Vec<Expr>, Pos),
    /// NOT
    Not(Box<Expr>, Pos),
    /// IS [NOT] NULL/TRUE/FALSE/UNKNOWN
    Is(Box<Expr>, IsTest, bool, Pos),
    /// IS [NOT] DISTINCT FROM; true = NOT.
    Distinct(Box<Expr>, Box<Expr>, bool, Pos),
    /// BETWEEN
    Between {
        /// What is tested.
        arg: Box<Expr>,
        /// Lower bound.
        low: Box<Expr>,
        /// Upper bound.
        high: Box<Expr>,
        /// NOT
        negated: bool,
        /// SYMMETRIC
        symmetric: bool,
        /// Of the word.
        pos: Pos,
    },
    /// IN (list); true = NOT.
    InList(Box<Expr>, Vec<Expr>, bool, Pos),
    /// IN (query); true = NOT.
    InQuery(Box<Expr>, Box<Query>, bool, Pos),
    /// LIKE, ILIKE
    Like {
        /// What is tested.
        arg: Box<Expr>,
        /// The pattern.
        pattern: Box<Expr>,
        /// ESCAPE
        escape: Option<Box<Expr>>,
        /// ILIKE
        insensitive: bool,
        /// NOT
        negated: bool,
        /// Of the word.
        pos: Pos,
    },
    /// `x op ANY (array)`, `ALL`
    AnyAll(Box<Expr>, String, bool, Box<Expr>, Pos),
    /// `x op ANY (query)`, `ALL`
    AnyAllQuery(Box<Expr>, String, bool, Box<Query>, Pos),
    /// EXISTS (query)
    Exists(Box<Query>, Pos),
    /// (query)
    Subquery(Box<Query>, Pos),
    /// ARRAY(query)
    ArrayQuery(Box<Query>, Pos),
    /// ARRAY[…]
    Array(Vec<Expr>, Pos),
    /// ROW(…) or (a, b)
    Row(Vec<Expr>, Pos),
    /// CASE
    Case {
        /// CASE x WHEN …
        operand: Option<Box<Expr>>,
        /// WHEN … THEN …
        whens: Vec<(Expr, Expr, Pos)>,
        /// ELSE
        otherwise: Option<Box<Expr>>,
        /// Of the word.
        pos: Pos,
    },
    /// `x::t`, CAST(x AS t), `t 'literal'`
    Cast(Box<Expr>, TypeName, Pos),
    /// A function call.
    Call(Call),
    /// COALESCE
    Coalesce(Vec<Expr>, Pos),
    /// NULLIF
    NullIf(Box<Expr>, Box<Expr>, Pos),
    /// GREATEST (true), LEAST (false)
    Greatest(bool, Vec<Expr>, Pos),
    /// COLLATE; only "C", "POSIX", "default", "ucs_basic" bind.
    Collate(Box<Expr>, QualifiedName, Pos),
    /// `a[i]`
    Subscript(Box<Expr>, Box<Expr>, Pos),
    /// DEFAULT, in VALUES of an INSERT and in UPDATE … SET.
    Default(Pos),
}

/// A function call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    /// Its name.
    pub name: QualifiedName,
    /// Its arguments.
    pub args: Vec<Expr>,
    /// `count(*)`
    pub star: bool,
    /// DISTINCT
    pub distinct: bool,
    /// VARIADIC before the last argument
    pub variadic: bool,
    /// ORDER BY inside the call.
    pub order_by: Vec<SortItem>,
    /// FILTER (WHERE …)
    pub filter: Option<Box<Expr>>,
    /// Written without parentheses (CURRENT_DATE): the name of its column is the word.
    pub sql_value: bool,
    /// Where it stands.
    pub pos: Pos,
}
