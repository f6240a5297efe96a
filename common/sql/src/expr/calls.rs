//! Function calls: ordinary functions, aggregates, set-returning functions, and types called as functions.

use super::aggregate::{self, AggregateCall};
use super::builder::{CallOptions, ExprBuilder, ResolvedCall};
use super::coerce::cannot_cast;
use super::context::{EvalContext, NoContext, NoSubqueries};
use super::functions::{self, FunctionDef, Volatility};
use super::resolve::{Choice, choose, function_error, is_undetermined, polymorphic_element};
use super::set::{self, SetCall};
use super::tree::{CallExpr, ScalarExpr};
use crate::error::SqlError;
use smallvec::SmallVec;
use towline_base::SqlState;
use towline_types::cast::{CastContext, find_cast};
use towline_types::{ColumnType, Datum, TypeId};

impl ExprBuilder<'_> {
    /// A function call; 42883 with PostgreSQL's hint if there is none.
    pub fn call(
        &mut self,
        name: &str,
        args: Vec<ScalarExpr>,
        options: CallOptions,
    ) -> Result<ResolvedCall, SqlError> {
        if args.len() > super::resolve::MAX_ARGUMENTS {
            return Err(SqlError::new(
                SqlState::TOO_MANY_ARGUMENTS,
                format!(
                    "cannot pass more than {} arguments to a function",
                    super::resolve::MAX_ARGUMENTS
                ),
            ));
        }
        let types: Vec<TypeId> = args.iter().map(|a| a.ty().id).collect();
        if aggregate::is_aggregate(name) {
            return self.aggregate_call(name, args, &types, options);
        }
        let not_aggregate = |what: &str| {
            let message = format!("{what} specified, but {name} is not an aggregate function");
            Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message))
        };
        if options.star {
            let message = format!("{name}(*) specified, but {name} is not an aggregate function");
            return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message));
        }
        if options.distinct {
            return not_aggregate("DISTINCT");
        }
        if !options.order_by.is_empty() {
            return not_aggregate("ORDER BY");
        }
        if options.filter.is_some() {
            return not_aggregate("FILTER");
        }
        if options.variadic {
            return Err(SqlError::unsupported("VARIADIC"));
        }
        if set::is_set_returning(name) {
            return self.set_call(name, args, &types);
        }
        if let ("pg_typeof", [ty]) = (name, types.as_slice()) {
            let regtype = ColumnType::new(TypeId::Regtype);
            return Ok(ResolvedCall::Scalar(ScalarExpr::Const(
                Datum::Oid(ty.oid()),
                regtype,
            )));
        }
        match choose(functions::lookup(name), &types) {
            Choice::One(def) => Ok(ResolvedCall::Scalar(self.make_call(def, args.into())?)),
            Choice::Ambiguous => Err(function_error(name, &types, true)),
            Choice::None => match self.cast_call(name, args, &types)? {
                Some(cast) => Ok(ResolvedCall::Scalar(cast)),
                None => Err(function_error(name, &types, false)),
            },
        }
    }

    /// `text(x)`, `int4(x)`: a type's name called as a function is a cast.
    fn cast_call(
        &mut self,
        name: &str,
        args: Vec<ScalarExpr>,
        types: &[TypeId],
    ) -> Result<Option<ScalarExpr>, SqlError> {
        let Some(target) = TypeId::from_name(name).filter(|t| t.name() == name && t.is_storable()) else {
            return Ok(None);
        };
        let Ok([arg]) = <[ScalarExpr; 1]>::try_from(args) else {
            return Ok(None);
        };
        if find_cast(types[0], target).is_none() {
            return Ok(None);
        }
        self.cast(arg, ColumnType::new(target)).map(Some)
    }

    fn aggregate_call(
        &mut self,
        name: &str,
        args: Vec<ScalarExpr>,
        types: &[TypeId],
        options: CallOptions,
    ) -> Result<ResolvedCall, SqlError> {
        if args.is_empty() && !options.star && name == "count" {
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                "count(*) must be used to call a parameterless aggregate function",
            ));
        }
        if options.star && name != "count" {
            return Err(function_error(name, &[], false));
        }
        let found = match aggregate::resolve(name, types, options.star) {
            Ok(found) => found,
            Err(ambiguous) => return Err(function_error(name, types, ambiguous)),
        };
        let element = polymorphic_element(found.def, types);
        let args = self.coerce_arguments(found.def, args, element)?.into_vec();
        let input = args.first().map_or(TypeId::Any, |a| a.ty().id);
        let ty = match found.def.ret {
            // A function's result has no type modifier.
            TypeId::AnyElement => ColumnType::new(args.first().map_or(TypeId::Text, |arg| arg.ty().id)),
            TypeId::AnyArray => match input.array() {
                Some(array) => ColumnType::new(array),
                None => {
                    return Err(SqlError::new(
                        SqlState::UNDEFINED_OBJECT,
                        format!("could not find array type for data type {}", input.sql_name()),
                    ));
                }
            },
            ret => ColumnType::new(ret),
        };
        if options.distinct {
            // Each key of ORDER BY must then be the argument itself; ours sort only by what they keep.
            let same = |e: &ScalarExpr| args.iter().any(|a| a.is_same(e));
            if !options.order_by.iter().all(|(e, _, _)| same(e)) {
                return Err(SqlError::new(
                    SqlState::INVALID_COLUMN_REFERENCE,
                    "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list",
                ));
            }
        }
        let filter = options.filter.map(|f| self.condition(f, "FILTER")).transpose()?;
        Ok(ResolvedCall::Aggregate(AggregateCall {
            kind: found.kind,
            name: found.def.name,
            args,
            input,
            distinct: options.distinct,
            order_by: options.order_by,
            filter,
            ty,
        }))
    }

    fn set_call(
        &mut self,
        name: &str,
        args: Vec<ScalarExpr>,
        types: &[TypeId],
    ) -> Result<ResolvedCall, SqlError> {
        let def = match choose(&set::candidates(name), types) {
            Choice::One(def) => def,
            Choice::None => return Err(function_error(name, types, false)),
            Choice::Ambiguous => return Err(function_error(name, types, true)),
        };
        let element = polymorphic_element(def, types);
        let args = self.coerce_arguments(def, args, element)?.into_vec();
        Ok(ResolvedCall::Set(SetCall {
            name: def.name,
            columns: set::columns(def, element),
            args,
        }))
    }

    pub(super) fn make_call(
        &mut self,
        def: &'static FunctionDef,
        args: SmallVec<[ScalarExpr; 2]>,
    ) -> Result<ScalarExpr, SqlError> {
        let types: SmallVec<[TypeId; 4]> = args.iter().map(|a| a.ty().id).collect();
        let undetermined = || {
            SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                "could not determine polymorphic type because input has type unknown",
            )
        };
        if is_undetermined(def, &types) {
            return Err(undetermined());
        }
        let element = polymorphic_element(def, &types);
        let args = self.coerce_arguments(def, args, element)?;
        let ret = match def.ret {
            TypeId::AnyElement => element.ok_or_else(undetermined)?,
            TypeId::AnyArray => element.and_then(TypeId::array).ok_or_else(undetermined)?,
            ret => ret,
        };
        let ty = ColumnType::new(ret);
        let constant = def.volatility == Volatility::Immutable
            && args.iter().all(|a| matches!(a, ScalarExpr::Const(..)));
        let call = ScalarExpr::Call(Box::new(CallExpr { def, args, ty }));
        if constant {
            // What fails stays a call: the error belongs to the execution that reaches it.
            let cx = EvalContext {
                params: &[],
                outer: &[],
                style: self.style,
                functions: &NoContext,
                subqueries: &NoSubqueries,
            };
            if let Ok(value) = call.eval(&[], &cx) {
                return Ok(ScalarExpr::Const(value, ty));
            }
        }
        Ok(call)
    }

    pub(super) fn coerce_arguments(
        &mut self,
        def: &FunctionDef,
        args: impl IntoIterator<Item = ScalarExpr>,
        element: Option<TypeId>,
    ) -> Result<SmallVec<[ScalarExpr; 2]>, SqlError> {
        args.into_iter()
            .enumerate()
            .map(|(i, arg)| {
                let declared = match def.arg(i) {
                    TypeId::AnyElement => element.unwrap_or(TypeId::Text),
                    TypeId::AnyArray => {
                        let from = arg.ty().id;
                        if from != TypeId::Unknown && (element.is_none() || from.element() == element) {
                            return Ok(arg);
                        }
                        element.and_then(TypeId::array).unwrap_or(TypeId::TextArray)
                    }
                    TypeId::Any => return self.settle(arg),
                    ty => ty,
                };
                self.coerce_argument(arg, declared)
            })
            .collect()
    }

    /// Implicit coercion for an operator or function that was chosen for it.
    pub(super) fn coerce_argument(&mut self, arg: ScalarExpr, to: TypeId) -> Result<ScalarExpr, SqlError> {
        // The same value in memory: a cast would only hide the column from the planner.
        if to == TypeId::Text && matches!(arg.ty().id, TypeId::Varchar | TypeId::Name) {
            return Ok(arg);
        }
        let from = arg.ty().id;
        let coerced = self.coerce(arg, ColumnType::new(to), CastContext::Implicit)?;
        coerced.ok_or_else(|| cannot_cast(from, to))
    }
}
