//! The bound expression tree and its evaluation.
//!
//! `eval` borrows nothing beyond the call and allocates only for values that need it (text, numeric, arrays); operands
//! of a call with up to four arguments stand on the stack. AND and OR stop at the first operand that decides, CASE and
//! COALESCE evaluate only what is chosen; everything else evaluates all operands from left to right. A strict function
//! is not called when an argument is NULL.

use super::context::EvalContext;
use super::functions::FunctionDef;
use crate::error::SqlError;
use smallvec::SmallVec;
use std::sync::Arc;
use towline_base::SqlState;
use towline_types::array::MAX_ELEMENTS;
use towline_types::{ArrayValue, ColumnType, Datum, TypeId, cast};

/// A bound scalar expression.
#[derive(Clone, Debug)]
pub enum ScalarExpr {
    /// A constant. An undecided string literal is `Text` of type `Unknown`.
    Const(Datum, ColumnType),
    /// Column `index` of the input row.
    Column {
        /// From 0.
        index: usize,
        /// Its type.
        ty: ColumnType,
    },
    /// A value of an enclosing query: `EvalContext::outer[index]`.
    Outer {
        /// From 0.
        index: usize,
        /// Its type.
        ty: ColumnType,
    },
    /// `$n`: `EvalContext::params[index]`.
    Param {
        /// From 0.
        index: usize,
        /// Its type; `Unknown` while undecided.
        ty: ColumnType,
    },
    /// A function or operator.
    Call(Box<CallExpr>),
    /// All true.
    And(Vec<ScalarExpr>),
    /// Any true.
    Or(Vec<ScalarExpr>),
    /// Not true.
    Not(Box<ScalarExpr>),
    /// `IS [NOT] NULL/TRUE/FALSE/UNKNOWN`; never NULL itself.
    Is {
        /// What is tested.
        arg: Box<ScalarExpr>,
        /// The test.
        kind: IsKind,
        /// NOT
        negated: bool,
    },
    /// `a IS [NOT] DISTINCT FROM b`; operands are of one comparable type.
    Distinct {
        /// Left.
        left: Box<ScalarExpr>,
        /// Right.
        right: Box<ScalarExpr>,
        /// NOT
        negated: bool,
    },
    /// `arg = ANY (list)` over one comparable type (`IN`).
    InList {
        /// What is looked for.
        arg: Box<ScalarExpr>,
        /// Where.
        list: Vec<ScalarExpr>,
        /// NOT IN
        negated: bool,
    },
    /// CASE
    Case(Box<CaseExpr>),
    /// The first that is not NULL, and its type.
    Coalesce(Vec<ScalarExpr>, ColumnType),
    /// NULL if both are equal, else the left.
    NullIf(Box<ScalarExpr>, Box<ScalarExpr>),
    /// GREATEST (true) or LEAST, NULLs ignored.
    MinMax(bool, Vec<ScalarExpr>, ColumnType),
    /// `arg op ANY/ALL (array)`
    AnyAll {
        /// Left operand.
        arg: Box<ScalarExpr>,
        /// The operator, boolean.
        op: &'static FunctionDef,
        /// ALL
        all: bool,
        /// The array.
        array: Box<ScalarExpr>,
    },
    /// `ARRAY[…]` of this element type.
    Array(TypeId, Vec<ScalarExpr>),
    /// `ROW(…)`
    Row(Vec<ScalarExpr>),
    /// `array[i]`
    Subscript(Box<ScalarExpr>, Box<ScalarExpr>, ColumnType),
    /// A conversion.
    Cast {
        /// What.
        arg: Box<ScalarExpr>,
        /// From.
        from: TypeId,
        /// To.
        to: ColumnType,
        /// Written, so that too long strings are cut.
        explicit: bool,
    },
    /// A subquery that the executor runs.
    Subquery {
        /// Its number.
        slot: usize,
        /// How its rows become a value.
        kind: SubqueryKind,
        /// The result's type.
        ty: ColumnType,
    },
}

/// A test that is never NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsKind {
    /// IS NULL
    Null,
    /// IS TRUE
    True,
    /// IS FALSE
    False,
    /// IS UNKNOWN
    Unknown,
}

/// How the rows of a subquery become a value.
#[derive(Clone, Debug)]
pub enum SubqueryKind {
    /// `(query)`
    Scalar,
    /// `EXISTS (query)`
    Exists,
    /// `ARRAY(query)` of this element type.
    Array(TypeId),
    /// `arg op ANY/ALL (query)`; `IN` is `= ANY`.
    AnyAll {
        /// Left operand.
        arg: Box<ScalarExpr>,
        /// The operator, boolean; its right operand has the query's column type.
        op: &'static FunctionDef,
        /// ALL
        all: bool,
    },
}

/// A call of a function or operator.
#[derive(Clone, Debug)]
pub struct CallExpr {
    /// What is called.
    pub def: &'static FunctionDef,
    /// Its arguments, cast to what it takes.
    pub args: SmallVec<[ScalarExpr; 2]>,
    /// The result's type.
    pub ty: ColumnType,
}

/// CASE; with an operand each WHEN is already `operand = value`.
#[derive(Clone, Debug)]
pub struct CaseExpr {
    /// Condition and result.
    pub whens: Vec<(ScalarExpr, ScalarExpr)>,
    /// ELSE; NULL without.
    pub otherwise: Option<ScalarExpr>,
    /// The result's type.
    pub ty: ColumnType,
}

const BOOL: ColumnType = ColumnType::new(TypeId::Bool);

impl ScalarExpr {
    /// A constant of its own type.
    pub fn constant(value: Datum) -> ScalarExpr {
        let ty = ColumnType::new(value.type_id());
        ScalarExpr::Const(value, ty)
    }

    /// NULL of unknown type.
    pub fn null() -> ScalarExpr {
        ScalarExpr::Const(Datum::Null, ColumnType::new(TypeId::Unknown))
    }

    /// The result's type.
    pub fn ty(&self) -> ColumnType {
        match self {
            ScalarExpr::Const(_, ty)
            | ScalarExpr::Column { ty, .. }
            | ScalarExpr::Outer { ty, .. }
            | ScalarExpr::Param { ty, .. }
            | ScalarExpr::Subscript(_, _, ty)
            | ScalarExpr::Coalesce(_, ty)
            | ScalarExpr::MinMax(_, _, ty)
            | ScalarExpr::Subquery { ty, .. } => *ty,
            ScalarExpr::Call(call) => call.ty,
            ScalarExpr::And(_)
            | ScalarExpr::Or(_)
            | ScalarExpr::Not(_)
            | ScalarExpr::Is { .. }
            | ScalarExpr::Distinct { .. }
            | ScalarExpr::InList { .. }
            | ScalarExpr::AnyAll { .. } => BOOL,
            ScalarExpr::Case(case) => case.ty,
            ScalarExpr::NullIf(left, _) => left.ty(),
            ScalarExpr::Array(element, _) => ColumnType::new(element.array().unwrap_or(TypeId::TextArray)),
            ScalarExpr::Row(_) => ColumnType::new(TypeId::Record),
            ScalarExpr::Cast { to, .. } => *to,
        }
    }

    /// Computes the value over `row`.
    pub fn eval(&self, row: &[Datum], cx: &EvalContext<'_>) -> Result<Datum, SqlError> {
        match self {
            ScalarExpr::Column { index, .. } => slot(row, *index, "column"),
            ScalarExpr::Const(value, _) => Ok(value.clone()),
            ScalarExpr::Param { index, .. } => slot(cx.params, *index, "parameter"),
            ScalarExpr::Outer { index, .. } => slot(cx.outer, *index, "outer column"),
            ScalarExpr::Call(call) => call.eval(row, cx),
            ScalarExpr::And(args) => connect(args, row, cx, false),
            ScalarExpr::Or(args) => connect(args, row, cx, true),
            ScalarExpr::Not(arg) => Ok(match arg.eval(row, cx)? {
                Datum::Bool(b) => Datum::Bool(!b),
                _ => Datum::Null,
            }),
            ScalarExpr::Is { arg, kind, negated } => {
                let value = arg.eval(row, cx)?;
                let holds = match kind {
                    IsKind::Null => match &value {
                        // A row is NULL if all its fields are, NOT NULL if none is.
                        Datum::Record(fields) => fields.iter().all(|f| f.is_null() != *negated) != *negated,
                        value => value.is_null(),
                    },
                    IsKind::Unknown => value.is_null(),
                    IsKind::True => matches!(value, Datum::Bool(true)),
                    IsKind::False => matches!(value, Datum::Bool(false)),
                };
                Ok(Datum::Bool(holds != *negated))
            }
            ScalarExpr::Distinct { left, right, negated } => {
                let (a, b) = (left.eval(row, cx)?, right.eval(row, cx)?);
                Ok(Datum::Bool((a != b) != *negated))
            }
            ScalarExpr::InList { arg, list, negated } => {
                let value = arg.eval(row, cx)?;
                if value.is_null() {
                    return Ok(Datum::Null);
                }
                let mut unknown = false;
                for item in list {
                    // A constant is looked at where it stands.
                    let found = match item {
                        ScalarExpr::Const(item, _) => equal(&value, item),
                        item => equal(&value, &item.eval(row, cx)?),
                    };
                    match found {
                        Some(true) => return Ok(Datum::Bool(!negated)),
                        Some(false) => {}
                        None => unknown = true,
                    }
                }
                Ok(if unknown {
                    Datum::Null
                } else {
                    Datum::Bool(*negated)
                })
            }
            ScalarExpr::Case(case) => {
                for (when, then) in &case.whens {
                    if when.is_true(row, cx)? {
                        return then.eval(row, cx);
                    }
                }
                case.otherwise
                    .as_ref()
                    .map_or(Ok(Datum::Null), |e| e.eval(row, cx))
            }
            ScalarExpr::Coalesce(args, _) => {
                for arg in args {
                    let value = arg.eval(row, cx)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Ok(Datum::Null)
            }
            ScalarExpr::NullIf(left, right) => {
                let (a, b) = (left.eval(row, cx)?, right.eval(row, cx)?);
                Ok(if equal(&a, &b) == Some(true) {
                    Datum::Null
                } else {
                    a
                })
            }
            ScalarExpr::MinMax(greatest, args, _) => {
                let mut best = Datum::Null;
                for arg in args {
                    let value = arg.eval(row, cx)?;
                    let better = !value.is_null()
                        && (best.is_null()
                            || if *greatest {
                                value.compare(&best).is_gt()
                            } else {
                                value.compare(&best).is_lt()
                            });
                    if better {
                        best = value;
                    }
                }
                Ok(best)
            }
            ScalarExpr::AnyAll { arg, op, all, array } => {
                let (value, array) = (arg.eval(row, cx)?, array.eval(row, cx)?);
                let Some(items) = array_items(&array) else {
                    return Ok(Datum::Null);
                };
                any_all(&value, op, *all, items.iter(), cx)
            }
            ScalarExpr::Array(element, items) => {
                let values = items
                    .iter()
                    .map(|e| e.eval(row, cx))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(Datum::Array(Arc::new(ArrayValue::new(*element, values))))
            }
            ScalarExpr::Row(items) => {
                let values = items
                    .iter()
                    .map(|e| e.eval(row, cx))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(Datum::Record(values.into()))
            }
            ScalarExpr::Subscript(array, index, _) => {
                let (array, index) = (array.eval(row, cx)?, index.eval(row, cx)?);
                Ok(subscript(&array, &index))
            }
            ScalarExpr::Cast {
                arg,
                from,
                to,
                explicit,
            } => {
                let value = arg.eval(row, cx)?;
                fits(eval_cast(value, *from, *to, *explicit, cx)?)
            }
            ScalarExpr::Subquery { slot, kind, .. } => match kind {
                SubqueryKind::Scalar => cx.subqueries.scalar(*slot, row, cx),
                SubqueryKind::Exists => Ok(Datum::Bool(cx.subqueries.exists(*slot, row, cx)?)),
                SubqueryKind::Array(element) => {
                    let values = cx.subqueries.values(*slot, row, cx)?;
                    if values.len() > MAX_ELEMENTS {
                        return Err(too_large());
                    }
                    Ok(Datum::Array(Arc::new(ArrayValue::new(*element, values.to_vec()))))
                }
                SubqueryKind::AnyAll { arg, op, all } => {
                    let value = arg.eval(row, cx)?;
                    if !all
                        && op.name == "="
                        && !value.is_null()
                        && let Some(known) = cx.subqueries.contains(*slot, row, &value, cx)?
                    {
                        return Ok(known);
                    }
                    let values = cx.subqueries.values(*slot, row, cx)?;
                    any_all(&value, op, *all, values.iter(), cx)
                }
            },
        }
    }

    /// Whether the expression, as a condition, holds: NULL does not.
    #[inline]
    pub fn is_true(&self, row: &[Datum], cx: &EvalContext<'_>) -> Result<bool, SqlError> {
        Ok(matches!(self.eval(row, cx)?, Datum::Bool(true)))
    }
}

/// The type of a COALESCE or GREATEST: that of its arguments, with a modifier only if all share it. It is kept: asking all arguments of
/// all arguments would make each level of nesting twice as dear.
pub(super) fn common_ty(args: &[ScalarExpr]) -> ColumnType {
    let mut types = args.iter().map(ScalarExpr::ty);
    let first = types.next().unwrap_or(ColumnType::new(TypeId::Unknown));
    if types.all(|ty| ty == first) {
        first
    } else {
        ColumnType::new(first.id)
    }
}

fn slot(values: &[Datum], index: usize, what: &str) -> Result<Datum, SqlError> {
    match values.get(index) {
        Some(value) => Ok(value.clone()),
        None => Err(SqlError::internal(format!(
            "no {what} {index} in a row of {}",
            values.len()
        ))),
    }
}

/// AND (`decides` = false) and OR (`decides` = true).
fn connect(
    args: &[ScalarExpr],
    row: &[Datum],
    cx: &EvalContext<'_>,
    decides: bool,
) -> Result<Datum, SqlError> {
    let mut unknown = false;
    for arg in args {
        match arg.eval(row, cx)? {
            Datum::Bool(b) if b == decides => return Ok(Datum::Bool(decides)),
            Datum::Bool(_) => {}
            _ => unknown = true,
        }
    }
    Ok(if unknown {
        Datum::Null
    } else {
        Datum::Bool(!decides)
    })
}

/// SQL equality: `None` is unknown. Rows are equal field by field.
pub(crate) fn equal(a: &Datum, b: &Datum) -> Option<bool> {
    match (a, b) {
        (Datum::Null, _) | (_, Datum::Null) => None,
        (Datum::Record(a), Datum::Record(b)) if a.len() == b.len() => {
            let mut unknown = false;
            for (x, y) in a.iter().zip(b.iter()) {
                match equal(x, y) {
                    Some(false) => return Some(false),
                    Some(true) => {}
                    None => unknown = true,
                }
            }
            (!unknown).then_some(true)
        }
        _ => Some(a.compare(b).is_eq()),
    }
}

/// The elements of an array value; `None` for NULL.
pub(crate) fn array_items(array: &Datum) -> Option<SmallVec<[Datum; 8]>> {
    match array {
        Datum::Array(a) => Some(a.values.iter().cloned().collect()),
        Datum::Int2Vector(v) => Some(v.iter().map(|x| Datum::Int2(*x)).collect()),
        Datum::OidVector(v) => Some(v.iter().map(|x| Datum::Oid(*x)).collect()),
        _ => None,
    }
}

fn any_all<'a>(
    value: &Datum,
    op: &FunctionDef,
    all: bool,
    items: impl Iterator<Item = &'a Datum>,
    cx: &EvalContext<'_>,
) -> Result<Datum, SqlError> {
    let mut unknown = false;
    for item in items {
        if op.strict && (value.is_null() || item.is_null()) {
            unknown = true;
            continue;
        }
        match (op.eval)(cx, &[value.clone(), item.clone()])? {
            Datum::Bool(b) if b != all => return Ok(Datum::Bool(!all)),
            Datum::Bool(_) => {}
            _ => unknown = true,
        }
    }
    Ok(if unknown { Datum::Null } else { Datum::Bool(all) })
}

fn subscript(array: &Datum, index: &Datum) -> Datum {
    let Some(index) = index.as_i64() else {
        return Datum::Null;
    };
    let at = |lower: i64, len: usize| usize::try_from(index - lower).ok().filter(|i| *i < len);
    match array {
        Datum::Array(a) => match a.dims.as_slice() {
            [dim] => at(i64::from(dim.lower), a.values.len()).map_or(Datum::Null, |i| a.values[i].clone()),
            _ => Datum::Null,
        },
        Datum::Int2Vector(v) => at(0, v.len()).map_or(Datum::Null, |i| Datum::Int2(v[i])),
        Datum::OidVector(v) => at(0, v.len()).map_or(Datum::Null, |i| Datum::Oid(v[i])),
        _ => Datum::Null,
    }
}

/// The elements of an array value (vectors too); `None` for NULL.
pub fn array_elements(array: &Datum) -> Option<SmallVec<[Datum; 8]>> {
    array_items(array)
}

/// An assignment cast of a value of its own type, as the executor needs it for the rows of a subquery.
pub fn cast_value(value: Datum, to: ColumnType, cx: &EvalContext<'_>) -> Result<Datum, SqlError> {
    let from = value.type_id();
    eval_cast(value, from, to, false, cx)
}

/// A cast, with the catalog's help for the `reg…` types.
pub(crate) fn eval_cast(
    value: Datum,
    from: TypeId,
    to: ColumnType,
    explicit: bool,
    cx: &EvalContext<'_>,
) -> Result<Datum, SqlError> {
    if value.is_null() {
        return Ok(value);
    }
    match &value {
        Datum::Text(s) if to.id.is_reg() => Ok(Datum::Oid(cx.functions.reg_in(to.id, s)?)),
        Datum::Oid(oid) if from.is_reg() && to.id.category() == towline_types::Category::String => {
            let text = Datum::text(&cx.functions.reg_out(from, *oid));
            Ok(cast::cast(&text, TypeId::Text, to, explicit, cx.style)?)
        }
        _ => Ok(cast::cast(&value, from, to, explicit, cx.style)?),
    }
}

impl CallExpr {
    fn eval(&self, row: &[Datum], cx: &EvalContext<'_>) -> Result<Datum, SqlError> {
        match self.args.as_slice() {
            [a, b] => {
                let args = [a.eval(row, cx)?, b.eval(row, cx)?];
                self.apply(&args, cx)
            }
            [a] => self.apply(&[a.eval(row, cx)?], cx),
            args => {
                let args = args
                    .iter()
                    .map(|e| e.eval(row, cx))
                    .collect::<Result<SmallVec<[Datum; 4]>, _>>()?;
                self.apply(&args, cx)
            }
        }
    }

    #[inline]
    fn apply(&self, args: &[Datum], cx: &EvalContext<'_>) -> Result<Datum, SqlError> {
        if self.def.strict && args.iter().any(Datum::is_null) {
            return Ok(Datum::Null);
        }
        fits((self.def.eval)(cx, args)?)
    }
}

/// Bytes of the longest value, as in PostgreSQL: one function's result is another's argument, and each may
/// make it several times as long.
const MAX_VALUE: usize = 0x3fff_ffff;

/// A result, unless it is larger than a value may be.
#[inline]
fn fits(value: Datum) -> Result<Datum, SqlError> {
    let large = match &value {
        Datum::Text(text) | Datum::Bpchar(text) => text.len() > MAX_VALUE,
        Datum::Bytea(bytes) => bytes.len() > MAX_VALUE,
        Datum::Array(array) => array.values.len() > MAX_ELEMENTS,
        _ => false,
    };
    if large { Err(too_large()) } else { Ok(value) }
}

/// About how much memory a value takes.
pub(crate) fn size_of_datum(value: &Datum) -> usize {
    24 + match value {
        Datum::Text(text) | Datum::Bpchar(text) => text.len() + 16,
        Datum::Bytea(bytes) => bytes.len() + 16,
        Datum::Numeric(number) => number.disk_len() + 24,
        Datum::Array(array) => 32 + array.values.iter().map(size_of_datum).sum::<usize>(),
        Datum::Record(fields) => fields.iter().map(size_of_datum).sum(),
        _ => 0,
    }
}

/// 54000
#[cold]
pub(crate) fn too_large() -> SqlError {
    SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "requested length too large")
}

/// As many values as an array may have; 54000 with more, before they take memory.
pub(crate) fn collect_elements(values: impl Iterator<Item = Datum>) -> Result<Vec<Datum>, SqlError> {
    let mut all = Vec::new();
    for value in values {
        if all.len() == MAX_ELEMENTS {
            return Err(too_large());
        }
        all.push(value);
    }
    Ok(all)
}
