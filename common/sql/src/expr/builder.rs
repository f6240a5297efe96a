//! Making trees: what a written expression means, its types decided and its casts inserted.
//!
//! The rules are PostgreSQL's: an undecided literal or parameter takes the type its surroundings need; operators and
//! functions are chosen by [`super::resolve`]; branches of CASE and the like meet in a common type. Constants are cast
//! at once where the result cannot depend on the session; what does (time zone, catalog) stays a cast in the tree.

use super::aggregate::AggregateCall;
use super::coerce::select_common;
use super::functions::{self, FunctionDef};
use super::resolve::{Choice, choose_operator, operator_error, polymorphic_element};
use super::set::SetCall;
use super::tree::{CaseExpr, IsKind, ScalarExpr, SubqueryKind, common_ty};
use crate::error::SqlError;
use crate::stack;
use smallvec::SmallVec;
use towline_base::SqlState;
use towline_types::cast::CastContext;
use towline_types::{ColumnType, Datum, IoStyle, TypeId};

/// What a function call turned out to be.
#[derive(Clone, Debug)]
pub enum ResolvedCall {
    /// An ordinary function.
    Scalar(ScalarExpr),
    /// An aggregate; FILTER and ORDER BY are already inside.
    Aggregate(AggregateCall),
    /// A set-returning function.
    Set(SetCall),
}

/// What may be written inside or behind a call besides its arguments.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    /// `f(*)`
    pub star: bool,
    /// DISTINCT
    pub distinct: bool,
    /// VARIADIC before the last argument.
    pub variadic: bool,
    /// ORDER BY inside the call: expression, descending, nulls first.
    pub order_by: Vec<(ScalarExpr, bool, bool)>,
    /// FILTER (WHERE …)
    pub filter: Option<ScalarExpr>,
}

/// Builds bound trees. Errors have no position: the binder knows it.
#[derive(Debug)]
pub struct ExprBuilder<'a> {
    /// Types of `$1`, …; `Unknown` while undecided. Grows as parameters are met; deciding one writes it here.
    pub params: &'a mut Vec<TypeId>,
    /// Reads literals.
    pub style: &'a IoStyle,
}

/// Most parameters of a statement, as in the protocol.
const MAX_PARAMETERS: u32 = 65_535;
const BOOL: ColumnType = ColumnType::new(TypeId::Bool);
/// Rows with more fields are compared by a tree that an ordinary stack is too small for.
const MAX_FIELDS: usize = 50;

impl<'a> ExprBuilder<'a> {
    /// A builder over the statement's parameter types.
    pub fn new(params: &'a mut Vec<TypeId>, style: &'a IoStyle) -> Self {
        ExprBuilder { params, style }
    }

    /// An undecided string literal.
    pub fn string(&self, text: &str) -> ScalarExpr {
        ScalarExpr::Const(Datum::text(text), ColumnType::new(TypeId::Unknown))
    }

    /// A number literal: integer, bigint or numeric by its size and form.
    pub fn number(&self, text: &str) -> Result<ScalarExpr, SqlError> {
        // The parser hands a minus over with its number: the lowest integer has no positive twin.
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.bytes().all(|b| b.is_ascii_digit()) {
            if let Ok(v) = text.parse::<i32>() {
                return Ok(ScalarExpr::constant(Datum::Int4(v)));
            }
            if let Ok(v) = text.parse::<i64>() {
                return Ok(ScalarExpr::constant(Datum::Int8(v)));
            }
        }
        Ok(ScalarExpr::constant(Datum::Numeric(text.parse()?)))
    }

    /// `$n`, `n` from 1; its type is what has been decided so far.
    pub fn param(&mut self, n: u32) -> Result<ScalarExpr, SqlError> {
        if n == 0 || n > MAX_PARAMETERS {
            return Err(SqlError::new(
                SqlState::UNDEFINED_PARAMETER,
                format!("there is no parameter ${n}"),
            ));
        }
        let index = n as usize - 1;
        if self.params.len() <= index {
            self.params.resize(index + 1, TypeId::Unknown);
        }
        Ok(ScalarExpr::Param {
            index,
            ty: ColumnType::new(self.params[index]),
        })
    }

    /// `left op right`; 42883 without such an operator, 42725 if ambiguous.
    pub fn binary(&mut self, op: &str, left: ScalarExpr, right: ScalarExpr) -> Result<ScalarExpr, SqlError> {
        let op = if op == "!=" { "<>" } else { op };
        match (left, right) {
            (ScalarExpr::Row(a), ScalarExpr::Row(b)) => self.row_comparison(op, a, b),
            (left, right) => self.operator(op, SmallVec::from_iter([left, right])),
        }
    }

    /// `op arg`
    pub fn unary(&mut self, op: &str, arg: ScalarExpr) -> Result<ScalarExpr, SqlError> {
        self.operator(op, SmallVec::from_iter([arg]))
    }

    fn operator(&mut self, op: &str, args: SmallVec<[ScalarExpr; 2]>) -> Result<ScalarExpr, SqlError> {
        let types: SmallVec<[TypeId; 2]> = args.iter().map(|a| a.ty().id).collect();
        let def = self.operator_def(op, &types)?;
        self.make_call(def, args)
    }

    fn operator_def(&self, op: &str, types: &[TypeId]) -> Result<&'static FunctionDef, SqlError> {
        match choose_operator(functions::lookup(op), types) {
            Choice::One(def) => Ok(def),
            Choice::None => Err(operator_error(op, types, false)),
            Choice::Ambiguous => Err(operator_error(op, types, true)),
        }
    }

    fn row_comparison(
        &mut self,
        op: &str,
        left: Vec<ScalarExpr>,
        right: Vec<ScalarExpr>,
    ) -> Result<ScalarExpr, SqlError> {
        if left.len() != right.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "unequal number of entries in row expressions",
            ));
        }
        if left.is_empty() {
            return Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "cannot compare rows of zero length",
            ));
        }
        let strict = match op {
            "=" | "<>" => {
                let pairs = left.into_iter().zip(right).map(|(a, b)| self.binary(op, a, b));
                let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
                return Ok(if op == "=" {
                    ScalarExpr::And(pairs)
                } else {
                    ScalarExpr::Or(pairs)
                });
            }
            "<" | "<=" => "<",
            ">" | ">=" => ">",
            _ => {
                return Err(SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    format!("could not determine interpretation of row comparison operator {op}"),
                ));
            }
        };
        // From the last pair outwards: a < b OR (a = b AND rest). Rows that are written are counted by the parser, `t.*` is not.
        if left.len() > MAX_FIELDS {
            stack::needs_deep()?;
        }
        let mut result: Option<ScalarExpr> = None;
        for (a, b) in left.into_iter().zip(right).rev() {
            result = Some(match result {
                None => self.binary(op, a, b)?,
                Some(rest) => {
                    let less = self.binary(strict, a.clone(), b.clone())?;
                    let equal = self.binary("=", a, b)?;
                    ScalarExpr::Or(vec![less, ScalarExpr::And(vec![equal, rest])])
                }
            });
        }
        result.ok_or_else(|| SqlError::internal("row comparison without columns"))
    }

    /// A condition for WHERE, ON, HAVING, AND, …: coerced to boolean, 42804 `argument of WHERE must be type boolean, not
    /// type …`. `clause` is the word in the message.
    pub fn condition(&mut self, expr: ScalarExpr, clause: &str) -> Result<ScalarExpr, SqlError> {
        let from = expr.ty().id;
        self.coerce(expr, BOOL, CastContext::Assignment)?
            .filter(|_| matches!(from, TypeId::Bool | TypeId::Unknown))
            .ok_or_else(|| {
                SqlError::new(
                    SqlState::DATATYPE_MISMATCH,
                    format!(
                        "argument of {clause} must be type boolean, not type {}",
                        from.sql_name()
                    ),
                )
            })
    }

    /// AND
    pub fn and(&mut self, args: Vec<ScalarExpr>) -> Result<ScalarExpr, SqlError> {
        let mut flat = Vec::with_capacity(args.len());
        for arg in args {
            match self.condition(arg, "AND")? {
                ScalarExpr::And(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        Ok(ScalarExpr::And(flat))
    }

    /// OR
    pub fn or(&mut self, args: Vec<ScalarExpr>) -> Result<ScalarExpr, SqlError> {
        let mut flat = Vec::with_capacity(args.len());
        for arg in args {
            match self.condition(arg, "OR")? {
                ScalarExpr::Or(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        Ok(ScalarExpr::Or(flat))
    }

    /// NOT
    pub fn not(&mut self, arg: ScalarExpr) -> Result<ScalarExpr, SqlError> {
        Ok(ScalarExpr::Not(Box::new(self.condition(arg, "NOT")?)))
    }

    /// `arg IS [NOT] …`
    pub fn is(&mut self, arg: ScalarExpr, kind: IsKind, negated: bool) -> Result<ScalarExpr, SqlError> {
        let word = match kind {
            IsKind::Null => None,
            IsKind::True => Some("TRUE"),
            IsKind::False => Some("FALSE"),
            IsKind::Unknown => Some("UNKNOWN"),
        };
        let arg = match word {
            None => self.settle(arg)?,
            Some(word) => self.condition(arg, &format!("IS {}{word}", if negated { "NOT " } else { "" }))?,
        };
        Ok(ScalarExpr::Is {
            arg: Box::new(arg),
            kind,
            negated,
        })
    }

    /// Coerces two operands so that [`Datum::compare`] decides their equality.
    fn comparable(
        &mut self,
        left: ScalarExpr,
        right: ScalarExpr,
    ) -> Result<(ScalarExpr, ScalarExpr), SqlError> {
        let def = self.operator_def("=", &[left.ty().id, right.ty().id])?;
        if let [a, b] = def.args {
            let dates = [TypeId::Date, TypeId::Timestamp, TypeId::TimestampTz];
            if a != b && dates.contains(a) && dates.contains(b) {
                let zoned = [a, b].contains(&&TypeId::TimestampTz);
                let target = if zoned {
                    TypeId::TimestampTz
                } else {
                    TypeId::Timestamp
                };
                return Ok((
                    self.coerce_argument(left, target)?,
                    self.coerce_argument(right, target)?,
                ));
            }
        }
        let element = polymorphic_element(def, &[left.ty().id, right.ty().id]);
        let mut args = self.coerce_arguments(def, [left, right], element)?.into_iter();
        match (args.next(), args.next()) {
            (Some(left), Some(right)) => Ok((left, right)),
            _ => Err(SqlError::internal("equality without operands")),
        }
    }

    /// `left IS [NOT] DISTINCT FROM right`
    pub fn distinct(
        &mut self,
        left: ScalarExpr,
        right: ScalarExpr,
        negated: bool,
    ) -> Result<ScalarExpr, SqlError> {
        if let (ScalarExpr::Row(a), ScalarExpr::Row(b)) = (&left, &right) {
            if a.len() != b.len() {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    "unequal number of entries in row expressions",
                ));
            }
            let (a, b) = (a.clone(), b.clone());
            let mut pairs = Vec::with_capacity(a.len());
            for (x, y) in a.into_iter().zip(b) {
                pairs.push(self.distinct(x, y, negated)?);
            }
            return Ok(if negated {
                ScalarExpr::And(pairs)
            } else {
                ScalarExpr::Or(pairs)
            });
        }
        let (left, right) = self.comparable(left, right)?;
        Ok(ScalarExpr::Distinct {
            left: Box::new(left),
            right: Box::new(right),
            negated,
        })
    }

    /// `arg [NOT] BETWEEN [SYMMETRIC] low AND high`
    pub fn between(
        &mut self,
        arg: ScalarExpr,
        low: ScalarExpr,
        high: ScalarExpr,
        negated: bool,
        symmetric: bool,
    ) -> Result<ScalarExpr, SqlError> {
        let mut range = |low: ScalarExpr, high: ScalarExpr| -> Result<ScalarExpr, SqlError> {
            let (above, below) = if negated { ("<", ">") } else { (">=", "<=") };
            let pair = vec![
                self.binary(above, arg.clone(), low)?,
                self.binary(below, arg.clone(), high)?,
            ];
            Ok(if negated {
                ScalarExpr::Or(pair)
            } else {
                ScalarExpr::And(pair)
            })
        };
        if !symmetric {
            return range(low, high);
        }
        let pair = vec![range(low.clone(), high.clone())?, range(high, low)?];
        Ok(if negated {
            ScalarExpr::And(pair)
        } else {
            ScalarExpr::Or(pair)
        })
    }

    /// `arg [NOT] IN (list)`
    pub fn in_list(
        &mut self,
        arg: ScalarExpr,
        list: Vec<ScalarExpr>,
        negated: bool,
    ) -> Result<ScalarExpr, SqlError> {
        let rows = matches!(arg, ScalarExpr::Row(_)) || list.iter().any(|e| matches!(e, ScalarExpr::Row(_)));
        if !rows && let Some(expr) = self.in_list_of_one_type(&arg, &list, negated)? {
            return Ok(expr);
        }
        let op = if negated { "<>" } else { "=" };
        let parts = list.into_iter().map(|item| self.binary(op, arg.clone(), item));
        let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
        if parts.len() == 1 {
            return parts.pop().ok_or_else(|| SqlError::internal("empty IN list"));
        }
        Ok(if negated {
            ScalarExpr::And(parts)
        } else {
            ScalarExpr::Or(parts)
        })
    }

    /// IN where all items share a type that compares directly with `arg`.
    fn in_list_of_one_type(
        &mut self,
        arg: &ScalarExpr,
        list: &[ScalarExpr],
        negated: bool,
    ) -> Result<Option<ScalarExpr>, SqlError> {
        let known: Vec<&ScalarExpr> = list.iter().filter(|e| e.ty().id != TypeId::Unknown).collect();
        let from = arg.ty().id;
        let item_type = if known.is_empty() {
            if from == TypeId::Unknown {
                TypeId::Text
            } else {
                from
            }
        } else {
            match select_common(known.iter().map(|e| e.ty().id)) {
                Ok(Some(ty)) => ty,
                _ => return Ok(None),
            }
        };
        let Ok(def) = self.operator_def("=", &[from, item_type]) else {
            return Ok(None);
        };
        let [left, right] = def.args else { return Ok(None) };
        let dates = |t: &TypeId| matches!(t, TypeId::Date | TypeId::Timestamp | TypeId::TimestampTz);
        if (left != right && dates(left)) || *left == TypeId::AnyArray || *left == TypeId::Record {
            return Ok(None);
        }
        let arg = self.coerce_argument(arg.clone(), *left)?;
        let list = list
            .iter()
            .map(|e| self.coerce_argument(e.clone(), *right))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Some(ScalarExpr::InList {
            arg: Box::new(arg),
            list,
            negated,
        }))
    }

    /// `arg [NOT] LIKE/ILIKE pattern [ESCAPE escape]`
    pub fn like(
        &mut self,
        arg: ScalarExpr,
        pattern: ScalarExpr,
        escape: Option<ScalarExpr>,
        insensitive: bool,
        negated: bool,
    ) -> Result<ScalarExpr, SqlError> {
        let pattern = match escape {
            None => pattern,
            Some(escape) => match self.call("like_escape", vec![pattern, escape], CallOptions::default())? {
                ResolvedCall::Scalar(expr) => expr,
                _ => return Err(SqlError::internal("like_escape is not a function")),
            },
        };
        let op = match (insensitive, negated) {
            (false, false) => "~~",
            (false, true) => "!~~",
            (true, false) => "~~*",
            (true, true) => "!~~*",
        };
        self.binary(op, arg, pattern)
    }

    /// `arg op ANY/ALL (array)`
    pub fn any_all(
        &mut self,
        arg: ScalarExpr,
        op: &str,
        all: bool,
        array: ScalarExpr,
    ) -> Result<ScalarExpr, SqlError> {
        let op = if op == "!=" { "<>" } else { op };
        let wrong = |what: &str| {
            SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("op ANY/ALL (array) requires {what}"),
            )
        };
        let mut array = array;
        if array.ty().id == TypeId::Unknown {
            let element = if arg.ty().id == TypeId::Unknown {
                TypeId::Text
            } else {
                arg.ty().id
            };
            let ty = element.array().ok_or_else(|| wrong("array on right side"))?;
            array = self.coerce_argument(array, ty)?;
        }
        let element = array
            .ty()
            .id
            .element()
            .ok_or_else(|| wrong("array on right side"))?;
        let def = self.operator_def(op, &[arg.ty().id, element])?;
        if def.ret != TypeId::Bool {
            return Err(wrong("operator to yield boolean"));
        }
        let poly = polymorphic_element(def, &[arg.ty().id, element]);
        let arg = self
            .coerce_arguments(def, [arg], poly)?
            .pop()
            .ok_or_else(|| wrong("left operand"))?;
        let target = def.arg(1);
        let direct = target == element
            || (target == TypeId::Text && matches!(element, TypeId::Varchar | TypeId::Name))
            || matches!(target, TypeId::Any | TypeId::AnyElement | TypeId::AnyArray);
        if !direct {
            let ty = target.array().ok_or_else(|| wrong("array on right side"))?;
            array = self.coerce_argument(array, ty)?;
        }
        Ok(ScalarExpr::AnyAll {
            arg: Box::new(arg),
            op: def,
            all,
            array: Box::new(array),
        })
    }

    /// `arg op ANY/ALL (query)`, the query being `slot` with one column of this type. Where the operator needs the
    /// column cast, the cast's target is returned: the executor applies it to the query's rows.
    pub fn any_all_query(
        &mut self,
        arg: ScalarExpr,
        op: &str,
        all: bool,
        slot: usize,
        column: ColumnType,
    ) -> Result<(ScalarExpr, Option<ColumnType>), SqlError> {
        let op = if op == "!=" { "<>" } else { op };
        let def = self.operator_def(op, &[arg.ty().id, column.id])?;
        if def.ret != TypeId::Bool {
            return Err(SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!(
                    "operator {op} must return type boolean, not type {}",
                    def.ret.sql_name()
                ),
            ));
        }
        let element = polymorphic_element(def, &[arg.ty().id, column.id]);
        let arg = self.coerce_arguments(def, [arg], element)?;
        let arg = arg
            .into_iter()
            .next()
            .ok_or_else(|| SqlError::internal("operator without operand"))?;
        let target = def.arg(1);
        let direct = target == column.id
            || (target == TypeId::Text && matches!(column.id, TypeId::Varchar | TypeId::Name))
            || matches!(
                target,
                TypeId::Any | TypeId::AnyElement | TypeId::AnyArray | TypeId::Record
            );
        let kind = SubqueryKind::AnyAll {
            arg: Box::new(arg),
            op: def,
            all,
        };
        let expr = ScalarExpr::Subquery { slot, kind, ty: BOOL };
        Ok((expr, (!direct).then(|| ColumnType::new(target))))
    }

    /// CASE over conditions; `CASE x WHEN y` has the condition `x = y`.
    pub fn case(
        &mut self,
        whens: Vec<(ScalarExpr, ScalarExpr)>,
        otherwise: Option<ScalarExpr>,
    ) -> Result<ScalarExpr, SqlError> {
        let mut conditions = Vec::with_capacity(whens.len());
        let mut results = Vec::with_capacity(whens.len());
        for (when, then) in whens {
            conditions.push(self.condition(when, "CASE/WHEN")?);
            results.push(then);
        }
        // ELSE counts first when the type is decided.
        let mut all: Vec<&ScalarExpr> = otherwise.iter().collect();
        all.extend(&results);
        let ty = self.common_type(&all, "CASE")?;
        let results = self.coerce_all(results, ty, "CASE")?;
        let otherwise = otherwise
            .map(|e| self.coerce_to_common(e, ty, "CASE"))
            .transpose()?;
        let mut typmods = results.iter().chain(&otherwise).map(|e| e.ty().typmod);
        let first = typmods.next().unwrap_or(-1);
        // Without ELSE the other result is a NULL, which has no modifier.
        let same = otherwise.is_some() && typmods.all(|t| t == first);
        let typmod = if same { first } else { -1 };
        Ok(ScalarExpr::Case(Box::new(CaseExpr {
            whens: conditions.into_iter().zip(results).collect(),
            otherwise,
            ty: ColumnType { id: ty, typmod },
        })))
    }

    /// COALESCE
    pub fn coalesce(&mut self, args: Vec<ScalarExpr>) -> Result<ScalarExpr, SqlError> {
        let args = self.common_all(args, "COALESCE")?.0;
        let ty = common_ty(&args);
        Ok(ScalarExpr::Coalesce(args, ty))
    }

    /// NULLIF
    pub fn null_if(&mut self, left: ScalarExpr, right: ScalarExpr) -> Result<ScalarExpr, SqlError> {
        let (mut left, right) = self.comparable(left, right)?;
        // The result has the type that the equality operator takes.
        if left.ty().id == TypeId::Varchar {
            left = self.coerce_to_common(left, TypeId::Text, "NULLIF")?;
        }
        Ok(ScalarExpr::NullIf(Box::new(left), Box::new(right)))
    }

    /// GREATEST (true), LEAST
    pub fn min_max(&mut self, greatest: bool, args: Vec<ScalarExpr>) -> Result<ScalarExpr, SqlError> {
        let construct = if greatest { "GREATEST" } else { "LEAST" };
        let args = self.common_all(args, construct)?.0;
        let ty = common_ty(&args);
        Ok(ScalarExpr::MinMax(greatest, args, ty))
    }

    /// `ARRAY[…]`
    pub fn array(&mut self, items: Vec<ScalarExpr>) -> Result<ScalarExpr, SqlError> {
        if items.is_empty() {
            return Err(SqlError::new(
                SqlState::INDETERMINATE_DATATYPE,
                "cannot determine type of empty array",
            )
            .with_hint("Explicitly cast to the desired type, for example ARRAY[]::integer[]."));
        }
        let (items, element) = self.common_all(items, "ARRAY")?;
        if element.array().is_none() {
            return Err(SqlError::new(
                SqlState::UNDEFINED_OBJECT,
                format!("could not find array type for data type {}", element.sql_name()),
            ));
        }
        Ok(ScalarExpr::Array(element, items))
    }

    /// `array[index]`
    pub fn subscript(&mut self, array: ScalarExpr, index: ScalarExpr) -> Result<ScalarExpr, SqlError> {
        let from = array.ty();
        let element = from.id.element().ok_or_else(|| {
            SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!(
                    "cannot subscript type {} because it does not support subscripting",
                    from.id.sql_name()
                ),
            )
        })?;
        let int4 = ColumnType::new(TypeId::Int4);
        let index = self
            .coerce(index, int4, CastContext::Assignment)?
            .ok_or_else(|| {
                SqlError::new(
                    SqlState::DATATYPE_MISMATCH,
                    "array subscript must have type integer",
                )
            })?;
        let ty = ColumnType {
            id: element,
            typmod: from.typmod,
        };
        Ok(ScalarExpr::Subscript(Box::new(array), Box::new(index), ty))
    }
}
