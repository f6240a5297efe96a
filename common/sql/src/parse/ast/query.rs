//! Queries: SELECT, VALUES, set operations, FROM and row locks.

use std::sync::Arc;

use super::{Call, Expr, Name, Pos, QualifiedName};

/// One key of ORDER BY.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SortItem {
    /// The key.
    pub expr: Expr,
    /// DESC
    pub descending: bool,
    /// NULLS FIRST; the default is by direction.
    pub nulls_first: bool,
}

/// A query: a body with what is around it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query {
    /// WITH
    pub with: Vec<CommonTable>,
    /// The body.
    pub body: Body,
    /// ORDER BY
    pub order_by: Vec<SortItem>,
    /// LIMIT, FETCH FIRST
    pub limit: Option<Expr>,
    /// OFFSET
    pub offset: Option<Expr>,
    /// FOR UPDATE …
    pub locking: Vec<Locking>,
    /// Where it stands.
    pub pos: Pos,
}

/// One WITH entry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CommonTable {
    /// Its name.
    pub name: Name,
    /// Its column names.
    pub columns: Vec<Name>,
    /// Its query; the binder keeps it for whoever names it.
    pub query: Arc<Query>,
    /// RECURSIVE was written: it may name itself (refused).
    pub recursive: bool,
}

/// What a query is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    /// SELECT
    Select(Box<Select>),
    /// VALUES
    Values(Vec<Vec<Expr>>, Pos),
    /// UNION, INTERSECT, EXCEPT
    Set {
        /// Which.
        op: SetOp,
        /// ALL
        all: bool,
        /// Left side.
        left: Box<Query>,
        /// Right side.
        right: Box<Query>,
        /// Of the word.
        pos: Pos,
    },
}

/// A set operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetOp {
    /// UNION
    Union,
    /// INTERSECT
    Intersect,
    /// EXCEPT
    Except,
}

/// SELECT
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Select {
    /// DISTINCT; with expressions DISTINCT ON.
    pub distinct: Option<Vec<Expr>>,
    /// The list.
    pub targets: Vec<Target>,
    /// FROM
    pub from: Vec<FromItem>,
    /// WHERE
    pub filter: Option<Expr>,
    /// GROUP BY
    pub group_by: Vec<Expr>,
    /// HAVING
    pub having: Option<Expr>,
}

/// One entry of a select list or RETURNING.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    /// `*`
    Star(Pos),
    /// `t.*`
    QualifiedStar(QualifiedName),
    /// An expression with its alias.
    Expr(Expr, Option<Name>),
}

/// An alias with column names.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Alias {
    /// The name.
    pub name: Option<Name>,
    /// The columns.
    pub columns: Vec<Name>,
}

/// How two tables are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinKind {
    /// INNER and CROSS
    Inner,
    /// LEFT
    Left,
    /// RIGHT
    Right,
    /// FULL
    Full,
}

/// The condition of a join.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum JoinCondition {
    /// CROSS JOIN
    None,
    /// ON
    On(Expr),
    /// USING
    Using(Vec<Name>),
    /// NATURAL
    Natural,
}

/// One entry of FROM.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FromItem {
    /// A table.
    Table(QualifiedName, Alias),
    /// (query) alias; true = LATERAL
    Query(Box<Query>, Alias, bool, Pos),
    /// function(…) alias; true = WITH ORDINALITY
    Function(Call, Alias, bool),
    /// A join.
    Join {
        /// Which.
        kind: JoinKind,
        /// Left side.
        left: Box<FromItem>,
        /// Right side.
        right: Box<FromItem>,
        /// ON, USING, NATURAL
        condition: JoinCondition,
        /// Of the word.
        pos: Pos,
    },
}

/// FOR UPDATE and its like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Locking {
    /// How strong.
    pub strength: LockStrength,
    /// OF
    pub tables: Vec<Name>,
    /// NOWAIT, SKIP LOCKED
    pub policy: LockPolicy,
    /// Of the word.
    pub pos: Pos,
}

/// Row lock strengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LockStrength {
    /// FOR KEY SHARE
    KeyShare,
    /// FOR SHARE
    Share,
    /// FOR NO KEY UPDATE
    NoKeyUpdate,
    /// FOR UPDATE
    Update,
}

/// What to do when a row is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockPolicy {
    /// Wait.
    Wait,
    /// NOWAIT
    NoWait,
    /// SKIP LOCKED
    Skip,
}
