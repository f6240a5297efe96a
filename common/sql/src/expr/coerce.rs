//! Coercion: giving an expression the type its surroundings need, and finding the type in which several meet.

use super::builder::ExprBuilder;
use super::functions::Volatility;
use super::tree::ScalarExpr;
use super::walk::cast_volatility;
use crate::error::SqlError;
use towline_base::SqlState;
use towline_types::cast::{self, CastContext, find_cast};
use towline_types::{ColumnType, Datum, IoStyle, TypeId, parse_text};

impl ExprBuilder<'_> {
    /// An explicit cast; 42846 if there is none.
    pub fn cast(&mut self, arg: ScalarExpr, to: ColumnType) -> Result<ScalarExpr, SqlError> {
        // ARRAY[]::type[] and casts of array constructors apply to the elements.
        let from = arg.ty().id;
        self.coerce(arg, to, CastContext::Explicit)?
            .ok_or_else(|| cannot_cast(from, to.id))
    }

    /// Coerces to `to` as far as `context` allows; `None` if it does not. Decides unknown literals and parameters; a
    /// literal that is not a value of the type is its own error.
    pub fn coerce(
        &mut self,
        arg: ScalarExpr,
        to: ColumnType,
        context: CastContext,
    ) -> Result<Option<ScalarExpr>, SqlError> {
        let from = arg.ty();
        let explicit = context == CastContext::Explicit;
        if from.id == TypeId::Unknown {
            return self.decide(arg, to, explicit).map(Some);
        }
        if from.id == to.id {
            // Only a modifier that the value may not fit needs work.
            if to.typmod < 0 || to.typmod == from.typmod {
                return Ok(Some(arg));
            }
            return Ok(Some(fold_cast(arg, from.id, to, explicit, self.style)));
        }
        match find_cast(from.id, to.id) {
            Some(least) if least <= context => Ok(Some(fold_cast(arg, from.id, to, explicit, self.style))),
            _ => Ok(None),
        }
    }

    /// Gives an undecided literal, NULL or parameter its type.
    fn decide(&mut self, arg: ScalarExpr, to: ColumnType, explicit: bool) -> Result<ScalarExpr, SqlError> {
        let base = ColumnType::new(to.id);
        let fit = |e: ScalarExpr, style: &IoStyle| {
            if to.typmod < 0 {
                e
            } else {
                fold_cast(e, to.id, to, explicit, style)
            }
        };
        match arg {
            ScalarExpr::Param { index, .. } => {
                let known = self.params.get(index).copied().unwrap_or(TypeId::Unknown);
                if known == TypeId::Unknown {
                    if let Some(slot) = self.params.get_mut(index) {
                        *slot = to.id;
                    }
                } else if known != to.id {
                    let detail = format!("{} versus {}", known.sql_name(), to.id.sql_name());
                    return Err(SqlError::new(
                        SqlState::AMBIGUOUS_PARAMETER,
                        format!("inconsistent types deduced for parameter ${}", index + 1),
                    )
                    .with_detail(detail));
                }
                Ok(fit(ScalarExpr::Param { index, ty: base }, self.style))
            }
            ScalarExpr::Const(Datum::Null, _) => Ok(ScalarExpr::Const(Datum::Null, to)),
            ScalarExpr::Const(Datum::Text(text), _) => {
                let literal = self.literal(&text, to.id)?;
                Ok(fit(literal, self.style))
            }
            other => Ok(ScalarExpr::Cast {
                arg: Box::new(other),
                from: TypeId::Unknown,
                to,
                explicit,
            }),
        }
    }

    /// An undecided string as a constant of a type, or, where its meaning hangs on the session, as a cast.
    fn literal(&self, text: &str, id: TypeId) -> Result<ScalarExpr, SqlError> {
        let ty = ColumnType::new(id);
        let later = || ScalarExpr::Cast {
            arg: Box::new(ScalarExpr::Const(
                Datum::text(text),
                ColumnType::new(TypeId::Unknown),
            )),
            from: TypeId::Unknown,
            to: ty,
            explicit: false,
        };
        if id.is_reg() {
            return Ok(match text.parse::<u32>() {
                Ok(oid) => ScalarExpr::Const(Datum::Oid(oid), ty),
                Err(_) => later(),
            });
        }
        let value = parse_text(ty, text, self.style)?;
        let bytes = text.as_bytes();
        let iso = bytes.len() >= 10 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-';
        Ok(match id {
            TypeId::Date | TypeId::Timestamp if !iso => later(),
            TypeId::TimestampTz
            | TypeId::DateArray
            | TypeId::TimestampArray
            | TypeId::TimestampTzArray
            | TypeId::Time => later(),
            _ => ScalarExpr::Const(value, ty),
        })
    }

    /// Coerces a value for a column; 42804 `column "…" is of type … but expression is of type …` with its hint.
    pub fn assign(&mut self, arg: ScalarExpr, to: ColumnType, column: &str) -> Result<ScalarExpr, SqlError> {
        let from = arg.ty();
        self.coerce(arg, to, CastContext::Assignment)?.ok_or_else(|| {
            let (to, from) = (to.id.sql_name(), from.id.sql_name());
            SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!("column \"{column}\" is of type {to} but expression is of type {from}"),
            )
            .with_hint("You will need to rewrite or cast the expression.")
        })
    }

    /// The type in which all of these can meet (UNION, VALUES, CASE, …); 42804 `… types … and … cannot be matched`.
    /// All unknown: text.
    pub fn common_type(&mut self, exprs: &[&ScalarExpr], construct: &str) -> Result<TypeId, SqlError> {
        match select_common(exprs.iter().map(|e| e.ty().id)) {
            Ok(ty) => Ok(ty.unwrap_or(TypeId::Text)),
            Err((a, b)) => Err(SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!(
                    "{construct} types {} and {} cannot be matched",
                    a.sql_name(),
                    b.sql_name()
                ),
            )),
        }
    }

    /// Decides what stayed unknown at the top of a select list or such: literals and parameters become text.
    pub fn settle(&mut self, expr: ScalarExpr) -> Result<ScalarExpr, SqlError> {
        if expr.ty().id == TypeId::Unknown {
            return self.decide(expr, ColumnType::new(TypeId::Text), false);
        }
        Ok(expr)
    }

    pub(super) fn coerce_all(
        &mut self,
        exprs: Vec<ScalarExpr>,
        ty: TypeId,
        construct: &str,
    ) -> Result<Vec<ScalarExpr>, SqlError> {
        exprs
            .into_iter()
            .map(|e| self.coerce_to_common(e, ty, construct))
            .collect()
    }

    pub(super) fn coerce_to_common(
        &mut self,
        expr: ScalarExpr,
        ty: TypeId,
        construct: &str,
    ) -> Result<ScalarExpr, SqlError> {
        let from = expr.ty();
        if from.id == ty {
            return Ok(expr);
        }
        self.coerce(expr, ColumnType::new(ty), CastContext::Implicit)?
            .ok_or_else(|| {
                SqlError::new(
                    SqlState::CANNOT_COERCE,
                    format!(
                        "{construct} could not convert type {} to {}",
                        from.id.sql_name(),
                        ty.sql_name()
                    ),
                )
            })
    }

    pub(super) fn common_all(
        &mut self,
        args: Vec<ScalarExpr>,
        construct: &str,
    ) -> Result<(Vec<ScalarExpr>, TypeId), SqlError> {
        let ty = self.common_type(&args.iter().collect::<Vec<_>>(), construct)?;
        Ok((self.coerce_all(args, ty, construct)?, ty))
    }
}

/// Which of these types is the first that cannot meet those before it, if any: what PostgreSQL's error points at.
pub(crate) fn first_misfit(types: impl Iterator<Item = TypeId>) -> Option<usize> {
    let mut chosen = None;
    for (index, ty) in types.enumerate() {
        match meet(chosen, ty) {
            Ok(both) => chosen = both,
            Err(_) => return Some(index),
        }
    }
    None
}

/// PostgreSQL's `select_common_type`: `None` if all are unknown, the two that do not meet as error.
pub(super) fn select_common(
    mut types: impl Iterator<Item = TypeId>,
) -> Result<Option<TypeId>, (TypeId, TypeId)> {
    types.try_fold(None, meet)
}

/// What the type chosen so far becomes when this one joins in.
fn meet(chosen: Option<TypeId>, ty: TypeId) -> Result<Option<TypeId>, (TypeId, TypeId)> {
    let implicit = |a: TypeId, b: TypeId| find_cast(a, b) == Some(CastContext::Implicit);
    match chosen {
        _ if ty == TypeId::Unknown => Ok(chosen),
        None => Ok(Some(ty)),
        Some(current) if current == ty => Ok(chosen),
        Some(current) if current.category() != ty.category() => Err((current, ty)),
        Some(current) if !current.is_preferred() && implicit(current, ty) && !implicit(ty, current) => {
            Ok(Some(ty))
        }
        Some(_) => Ok(chosen),
    }
}

#[cold]
pub(super) fn cannot_cast(from: TypeId, to: TypeId) -> SqlError {
    SqlError::new(
        SqlState::CANNOT_COERCE,
        format!("cannot cast type {} to {}", from.sql_name(), to.sql_name()),
    )
}

/// A cast, done at once for a constant if it always gives the same and succeeds.
pub(super) fn fold_cast(
    arg: ScalarExpr,
    from: TypeId,
    to: ColumnType,
    explicit: bool,
    style: &IoStyle,
) -> ScalarExpr {
    if let ScalarExpr::Const(value, _) = &arg
        && cast_volatility(from, to.id) == Volatility::Immutable
        && let Ok(value) = cast::cast(value, from, to, explicit, style)
    {
        return ScalarExpr::Const(value, to);
    }
    ScalarExpr::Cast {
        arg: Box::new(arg),
        from,
        to,
        explicit,
    }
}
