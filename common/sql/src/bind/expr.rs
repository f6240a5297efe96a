//! Scalar expressions.

use towline_base::SqlState;
use towline_types::{ColumnType, Datum, TypeId};

use super::Binder;
use super::names::bind_type;
use super::scope::Clause;
use super::tree::{AGGREGATE_BASE, SET_BASE};
use crate::error::SqlError;
use crate::expr::{CallOptions, IsKind, ResolvedCall, ScalarExpr, SubqueryKind, Volatility, first_misfit};
use crate::parse::ast::{Call, Expr, IsTest, Literal, Pos};

/// Names of aggregates: their arguments may not hold further ones, and columns in them need no grouping.
const AGGREGATES: &[&str] = &[
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "every",
    "string_agg",
    "array_agg",
    "stddev",
    "stddev_samp",
    "stddev_pop",
    "variance",
    "var_samp",
    "var_pop",
    "bit_and",
    "bit_or",
];

impl Binder<'_> {
    /// Binds an expression at the innermost level.
    pub(super) fn expr(&mut self, expr: &Expr) -> Result<ScalarExpr, SqlError> {
        if self.inlining > 0 {
            self.copies(1)?;
        }
        self.deeper(|binder| binder.expr_inner(expr))
    }

    pub(super) fn boxed_list(&mut self, list: &[Expr]) -> Result<Vec<ScalarExpr>, SqlError> {
        list.iter().map(|expr| self.expr(expr)).collect()
    }

    /// Gives an error of the builder its place: at the literal that could not be read, else at the construct.
    pub(super) fn placed<T>(
        &self,
        result: Result<T, SqlError>,
        pos: Pos,
        operands: &[&Expr],
    ) -> Result<T, SqlError> {
        result.map_err(|error| {
            let about_value = error.sqlstate().class() == "22";
            let literal = operands
                .iter()
                .find_map(|expr| literal_pos(expr))
                .filter(|_| about_value);
            self.at(error, literal.unwrap_or(pos))
        })
    }

    fn expr_inner(&mut self, expr: &Expr) -> Result<ScalarExpr, SqlError> {
        match expr {
            Expr::Column(name) => self.column(name),
            Expr::WholeRow(name) => {
                let columns = self.star_of(name)?;
                Ok(ScalarExpr::Row(
                    columns.into_iter().map(|column| column.expr).collect(),
                ))
            }
            Expr::Param(number, pos) if !self.cx.params => Err(self.error(
                *pos,
                SqlState::UNDEFINED_PARAMETER,
                format!("there is no parameter ${number}"),
            )),
            Expr::Param(number, pos) => {
                let result = self.build().param(*number);
                self.placed(result, *pos, &[])
            }
            Expr::Literal(literal, pos) => self.literal(literal, *pos),
            Expr::Unary(op, arg, pos) => {
                let bound = self.expr(arg)?;
                let result = self.build().unary(op, bound);
                self.placed(result, *pos, &[arg])
            }
            Expr::Binary(op, left, right, pos) => self.binary(op, left, right, *pos),
            Expr::And(list, _) | Expr::Or(list, _) => {
                let and = matches!(expr, Expr::And(..));
                let word = if and { "AND" } else { "OR" };
                let mut parts = Vec::with_capacity(list.len());
                for part in list {
                    let bound = self.expr(part)?;
                    let result = self.build().condition(bound, word);
                    parts.push(self.placed(result, pos_of(part), &[part])?);
                }
                if and {
                    self.build().and(parts)
                } else {
                    self.build().or(parts)
                }
            }
            Expr::Not(arg, _) => {
                let bound = self.expr(arg)?;
                let result = self.build().condition(bound, "NOT");
                let bound = self.placed(result, pos_of(arg), &[arg])?;
                self.build().not(bound)
            }
            Expr::Is(arg, test, negated, pos) => {
                let bound = self.expr(arg)?;
                let kind = match test {
                    IsTest::Null => IsKind::Null,
                    IsTest::True => IsKind::True,
                    IsTest::False => IsKind::False,
                    IsTest::Unknown => IsKind::Unknown,
                };
                let result = self.build().is(bound, kind, *negated);
                let pos = if *test == IsTest::Null { *pos } else { pos_of(arg) };
                self.placed(result, pos, &[arg])
            }
            Expr::Distinct(left, right, negated, pos) => {
                let (bound_left, bound_right) = (self.expr(left)?, self.expr(right)?);
                let result = self.build().distinct(bound_left, bound_right, *negated);
                self.placed(result, *pos, &[left, right])
            }
            Expr::Between {
                arg,
                low,
                high,
                negated,
                symmetric,
                pos,
            } => {
                let (bound, low_bound, high_bound) = (self.expr(arg)?, self.expr(low)?, self.expr(high)?);
                self.copies_of(&bound, if *symmetric { 3 } else { 1 })?;
                if *symmetric {
                    self.copies_of(&low_bound, 1)?;
                    self.copies_of(&high_bound, 1)?;
                }
                let result = self
                    .build()
                    .between(bound, low_bound, high_bound, *negated, *symmetric);
                self.placed(result, *pos, &[arg, low, high])
            }
            Expr::InList(arg, list, negated, pos) => {
                if let [Expr::Subquery(query, _)] = list.as_slice() {
                    return self.quantified(arg, "=", false, query, *negated, *pos);
                }
                let bound = self.expr(arg)?;
                let items = self.boxed_list(list)?;
                if matches!(bound, ScalarExpr::Row(_)) {
                    self.copies_of(&bound, items.len())?;
                }
                let result = self.build().in_list(bound, items, *negated);
                let operands: Vec<&Expr> = std::iter::once(&**arg).chain(list).collect();
                self.placed(result, *pos, &operands)
            }
            Expr::InQuery(arg, query, negated, pos) => {
                self.quantified(arg, "=", false, query, *negated, *pos)
            }
            Expr::Like {
                arg,
                pattern,
                escape,
                insensitive,
                negated,
                pos,
            } => {
                let (bound, pattern_bound) = (self.expr(arg)?, self.expr(pattern)?);
                let escape = escape.as_ref().map(|escape| self.expr(escape)).transpose()?;
                let result = self
                    .build()
                    .like(bound, pattern_bound, escape, *insensitive, *negated);
                self.placed(result, *pos, &[arg, pattern])
            }
            Expr::AnyAll(arg, op, all, array, pos) => {
                let (bound, array_bound) = (self.expr(arg)?, self.expr(array)?);
                let result = self.build().any_all(bound, op, *all, array_bound);
                self.placed(result, *pos, &[array, arg])
            }
            Expr::AnyAllQuery(arg, op, all, query, pos) => self.quantified(arg, op, *all, query, false, *pos),
            Expr::Exists(query, _) => {
                let slot = self.nested_query(query)?;
                Ok(ScalarExpr::Subquery {
                    slot,
                    kind: SubqueryKind::Exists,
                    ty: ColumnType::new(TypeId::Bool),
                })
            }
            Expr::Subquery(query, pos) => {
                let slot = self.nested_query(query)?;
                let ty = self.single_column(slot, *pos)?;
                Ok(ScalarExpr::Subquery {
                    slot,
                    kind: SubqueryKind::Scalar,
                    ty,
                })
            }
            Expr::ArrayQuery(query, pos) => {
                let slot = self.nested_query(query)?;
                let element = self.single_column(slot, *pos)?;
                let array = element.id.array().ok_or_else(|| {
                    self.error(
                        *pos,
                        SqlState::UNDEFINED_OBJECT,
                        format!(
                            "could not find array type for data type {}",
                            element.id.sql_name()
                        ),
                    )
                })?;
                Ok(ScalarExpr::Subquery {
                    slot,
                    kind: SubqueryKind::Array(element.id),
                    ty: ColumnType::new(array),
                })
            }
            Expr::Array(list, pos) => {
                let items = self.boxed_list(list)?;
                let pos = misfit_of(&items, list).unwrap_or(*pos);
                let result = self.build().array(items);
                let operands: Vec<&Expr> = list.iter().collect();
                self.placed(result, pos, &operands)
            }
            Expr::Row(list, pos) => {
                self.check_row(list.len(), *pos)?;
                let items = self.boxed_list(list)?;
                let items: Result<Vec<_>, _> =
                    items.into_iter().map(|item| self.build().settle(item)).collect();
                Ok(ScalarExpr::Row(items?))
            }
            Expr::Case {
                operand,
                whens,
                otherwise,
                pos,
            } => {
                let operand = operand.as_ref().map(|operand| self.expr(operand)).transpose()?;
                let mut bound = Vec::with_capacity(whens.len());
                let operand = operand.map(|operand| self.build().settle(operand)).transpose()?;
                if let Some(operand) = &operand {
                    self.copies_of(operand, whens.len())?;
                }
                for (when, then, when_pos) in whens {
                    let mut condition = self.expr(when)?;
                    if let Some(operand) = &operand {
                        let result = self.build().binary("=", operand.clone(), condition);
                        condition = self.placed(result, *when_pos, &[when])?;
                    }
                    let result = self.build().condition(condition, "CASE/WHEN");
                    condition = self.placed(result, pos_of(when), &[when])?;
                    bound.push((condition, self.expr(then)?));
                }
                let last = otherwise
                    .as_ref()
                    .map(|otherwise| self.expr(otherwise))
                    .transpose()?;
                // ELSE counts first when the type is decided.
                let mut parts: Vec<(TypeId, &Expr)> = Vec::with_capacity(bound.len() + 1);
                parts.extend(last.iter().map(|last| last.ty().id).zip(otherwise.as_deref()));
                parts.extend(
                    bound
                        .iter()
                        .zip(whens)
                        .map(|((_, then), when)| (then.ty().id, &when.1)),
                );
                let pos = misfit(&parts).unwrap_or(*pos);
                let result = self.build().case(bound, last);
                self.placed(result, pos, &[])
            }
            Expr::Cast(arg, ty, pos) => {
                let to = bind_type(ty, self.cx.text)?;
                // The element type of `ARRAY[]::int[]` comes from the cast.
                if let Expr::Array(list, _) = &**arg
                    && list.is_empty()
                {
                    let element = to.id.element().unwrap_or(TypeId::Text);
                    return Ok(ScalarExpr::Array(element, Vec::new()));
                }
                let bound = self.expr(arg)?;
                let result = self.build().cast(bound, to);
                self.placed(result, *pos, &[arg])
            }
            Expr::Call(call) => self.call(call),
            Expr::Coalesce(list, pos) => {
                let items = self.boxed_list(list)?;
                let pos = misfit_of(&items, list).unwrap_or(*pos);
                let result = self.build().coalesce(items);
                let operands: Vec<&Expr> = list.iter().collect();
                self.placed(result, pos, &operands)
            }
            Expr::NullIf(left, right, pos) => {
                let (bound_left, bound_right) = (self.expr(left)?, self.expr(right)?);
                let result = self.build().null_if(bound_left, bound_right);
                self.placed(result, *pos, &[left, right])
            }
            Expr::Greatest(greatest, list, pos) => {
                let items = self.boxed_list(list)?;
                let pos = misfit_of(&items, list).unwrap_or(*pos);
                let result = self.build().min_max(*greatest, items);
                let operands: Vec<&Expr> = list.iter().collect();
                self.placed(result, pos, &operands)
            }
            Expr::Collate(arg, name, pos) => {
                let bound = self.expr(arg)?;
                let collation = name.last().map_or("", |last| last.text.as_str());
                if !matches!(collation, "C" | "POSIX" | "default" | "ucs_basic") {
                    return Err(self.error(
                        *pos,
                        SqlState::UNDEFINED_OBJECT,
                        format!("collation \"{collation}\" for encoding \"UTF8\" does not exist"),
                    ));
                }
                if bound.ty().id == TypeId::Unknown {
                    return self.build().settle(bound);
                }
                let collatable = bound.ty().id.category() == towline_types::Category::String;
                if !collatable {
                    return Err(self.error(
                        *pos,
                        SqlState::DATATYPE_MISMATCH,
                        format!(
                            "collations are not supported by type {}",
                            bound.ty().id.sql_name()
                        ),
                    ));
                }
                Ok(bound)
            }
            Expr::Subscript(arg, index, pos) => {
                let (bound, index_bound) = (self.expr(arg)?, self.expr(index)?);
                let result = self.build().subscript(bound, index_bound);
                self.placed(result, *pos, &[index])
            }
            Expr::Default(pos) => Err(self.error(
                *pos,
                SqlState::SYNTAX_ERROR,
                "DEFAULT is not allowed in this context",
            )),
        }
    }

    fn literal(&mut self, literal: &Literal, pos: Pos) -> Result<ScalarExpr, SqlError> {
        match literal {
            Literal::Null => Ok(ScalarExpr::null()),
            Literal::Bool(value) => Ok(ScalarExpr::constant(Datum::Bool(*value))),
            Literal::Int(text) | Literal::Num(text) => {
                let result = self.build().number(text);
                self.placed(result, pos, &[])
            }
            Literal::Str(text) => Ok(self.build().string(text)),
        }
    }

    fn binary(&mut self, op: &str, left: &Expr, right: &Expr, pos: Pos) -> Result<ScalarExpr, SqlError> {
        if let (Expr::Row(lefts, _), Expr::Row(rights, _)) = (left, right) {
            return self.row_comparison(op, lefts, rights, pos);
        }
        let (bound_left, bound_right) = (self.expr(left)?, self.expr(right)?);
        let result = self.build().binary(op, bound_left, bound_right);
        self.placed(result, pos, &[left, right])
    }

    fn call(&mut self, call: &Call) -> Result<ScalarExpr, SqlError> {
        let name = match call.name.as_slice() {
            [name] => name,
            [schema, name] if schema.text == "pg_catalog" => name,
            _ => {
                let written: Vec<&str> = call.name.iter().map(|part| part.text.as_str()).collect();
                return Err(self
                    .error(
                        call.pos,
                        SqlState::UNDEFINED_FUNCTION,
                        format!("function {}() does not exist", written.join(".")),
                    )
                    .with_hint(
                        "No function matches the given name and argument types. You might need to add explicit type casts.",
                    ));
            }
        };
        let resolved = self.resolve_call(call, &name.text)?;
        match resolved {
            ResolvedCall::Scalar(expr) => Ok(expr),
            ResolvedCall::Aggregate(aggregate) => {
                let clause = self.level().clause;
                if self.level().in_aggregate {
                    return Err(self.error(
                        call.pos,
                        SqlState::GROUPING_ERROR,
                        "aggregate function calls cannot be nested",
                    ));
                }
                if !clause.allows_aggregates() {
                    return Err(self.error(
                        call.pos,
                        SqlState::GROUPING_ERROR,
                        format!("aggregate functions are not allowed in {}", clause.name()),
                    ));
                }
                let ty = aggregate.ty;
                let level = self.level();
                let known = level
                    .aggregates
                    .iter()
                    .position(|other| other.is_same(&aggregate));
                let index = known.unwrap_or_else(|| {
                    level.aggregates.push(aggregate);
                    level.aggregates.len() - 1
                });
                Ok(ScalarExpr::Column {
                    index: AGGREGATE_BASE + index,
                    ty,
                })
            }
            ResolvedCall::Set(set) => {
                let clause = self.level().clause;
                if !clause.allows_sets() || self.level().in_aggregate {
                    return Err(self.error(
                        call.pos,
                        SqlState::FEATURE_NOT_SUPPORTED,
                        format!("set-returning functions are not allowed in {}", clause.name()),
                    ));
                }
                let [(_, ty)] = set.columns.as_slice() else {
                    return self.unsupported(call.pos, "a function that returns rows in a select list");
                };
                let ty = *ty;
                let level = self.level();
                level.sets.push(set);
                Ok(ScalarExpr::Column {
                    index: SET_BASE + level.sets.len() - 1,
                    ty,
                })
            }
        }
    }

    /// Binds the arguments and asks the builder what the name means.
    pub(super) fn resolve_call(&mut self, call: &Call, name: &str) -> Result<ResolvedCall, SqlError> {
        let is_aggregate = AGGREGATES.contains(&name);
        let nested = self.level().in_aggregate;
        if is_aggregate && nested {
            return Err(self.error(
                call.pos,
                SqlState::GROUPING_ERROR,
                "aggregate function calls cannot be nested",
            ));
        }
        if is_aggregate {
            self.level().in_aggregate = true;
        }
        let parts = self.call_parts(call);
        if is_aggregate {
            self.level().in_aggregate = nested;
        }
        let (args, options) = parts?;
        let result = self.build().call(name, args, options).map_err(|mut error| {
            // A function called with its schema is reported with it.
            let fields = error.fields_mut();
            let bare = format!("function {name}(");
            if call.name.len() > 1 && fields.message.starts_with(&bare) {
                fields.message.insert_str("function ".len(), "pg_catalog.");
            }
            error
        });
        if let Ok(ResolvedCall::Scalar(ScalarExpr::Call(call))) = &result {
            self.volatile |= call.def.volatility == Volatility::Volatile;
        }
        let operands: Vec<&Expr> = call.args.iter().collect();
        self.placed(result, call.pos, &operands)
    }

    fn call_parts(&mut self, call: &Call) -> Result<(Vec<ScalarExpr>, CallOptions), SqlError> {
        let args = self.boxed_list(&call.args)?;
        let mut order_by = Vec::with_capacity(call.order_by.len());
        for item in &call.order_by {
            let key = self.expr(&item.expr)?;
            order_by.push((self.build().settle(key)?, item.descending, item.nulls_first));
        }
        let filter = match &call.filter {
            Some(filter) => {
                let bound = self.expr(filter)?;
                let result = self.build().condition(bound, "FILTER");
                Some(self.placed(result, pos_of(filter), &[filter])?)
            }
            None => None,
        };
        let options = CallOptions {
            star: call.star,
            distinct: call.distinct,
            variadic: call.variadic,
            order_by,
            filter,
        };
        Ok((args, options))
    }

    /// A condition of a clause, split at its ANDs.
    pub(super) fn condition(&mut self, expr: &Expr, clause: Clause) -> Result<Vec<ScalarExpr>, SqlError> {
        self.level().clause = clause;
        let bound = self.expr(expr)?;
        let word = match clause {
            Clause::On => "JOIN/ON",
            other => other.name(),
        };
        let result = self.build().condition(bound, word);
        let bound = self.placed(result, pos_of(expr), &[expr])?;
        Ok(match bound {
            ScalarExpr::And(parts) => parts,
            other => vec![other],
        })
    }

    /// An expression assigned to a column.
    pub(super) fn assigned(
        &mut self,
        bound: ScalarExpr,
        written: Option<&Expr>,
        ty: ColumnType,
        column: &str,
    ) -> Result<ScalarExpr, SqlError> {
        let result = self.build().assign(bound, ty, column);
        match written {
            Some(written) => self.placed(result, pos_of(written), &[written]),
            None => result,
        }
    }
}

/// Where an expression begins, as PostgreSQL's exprLocation has it.
pub(super) fn pos_of(expr: &Expr) -> Pos {
    let first = |pos: Pos, arg: &Expr| pos.min(pos_of(arg));
    match expr {
        Expr::Column(name) | Expr::WholeRow(name) => name.first().map_or(0, |name| name.pos),
        Expr::Binary(_, left, _, pos)
        | Expr::Distinct(left, _, _, pos)
        | Expr::InList(left, _, _, pos)
        | Expr::InQuery(left, _, _, pos)
        | Expr::AnyAll(left, _, _, _, pos)
        | Expr::AnyAllQuery(left, _, _, _, pos)
        | Expr::Is(left, _, _, pos)
        | Expr::Collate(left, _, pos)
        | Expr::Subscript(left, _, pos)
        | Expr::Cast(left, _, pos) => first(*pos, left),
        Expr::Between { arg, pos, .. } | Expr::Like { arg, pos, .. } => first(*pos, arg),
        Expr::And(list, pos) | Expr::Or(list, pos) => list.first().map_or(*pos, |arg| first(*pos, arg)),
        Expr::Param(_, pos)
        | Expr::Literal(_, pos)
        | Expr::Unary(_, _, pos)
        | Expr::Not(_, pos)
        | Expr::Exists(_, pos)
        | Expr::Subquery(_, pos)
        | Expr::ArrayQuery(_, pos)
        | Expr::Array(_, pos)
        | Expr::Row(_, pos)
        | Expr::Coalesce(_, pos)
        | Expr::NullIf(_, _, pos)
        | Expr::Greatest(_, _, pos)
        | Expr::Default(pos)
        | Expr::Case { pos, .. } => *pos,
        Expr::Call(call) => call.pos,
    }
}

/// The first of these expressions whose type cannot meet those before it.
fn misfit(parts: &[(TypeId, &Expr)]) -> Option<Pos> {
    let at = first_misfit(parts.iter().map(|(ty, _)| *ty))?;
    Some(pos_of(parts[at].1))
}

fn misfit_of(bound: &[ScalarExpr], written: &[Expr]) -> Option<Pos> {
    first_misfit(bound.iter().map(|expr| expr.ty().id)).map(|at| pos_of(&written[at]))
}

fn literal_pos(expr: &Expr) -> Option<Pos> {
    match expr {
        Expr::Literal(Literal::Str(_), pos) => Some(*pos),
        _ => None,
    }
}
