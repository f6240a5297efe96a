//! Aggregates: the bound call and its transition state.
//!
//! A state takes rows one by one: FILTER, then the arguments, then the transition. DISTINCT keeps a hash of what came
//! before; ORDER BY keeps the arguments and sorts at the end. Integer sums are exact in 128 bits, so that they cannot
//! overflow before the end; variances of exact numbers are computed exactly as well.

use super::EvalContext;
use super::functions::{FunctionDef, Volatility};
use super::resolve::{Choice, choose};
use super::tree::{ScalarExpr, size_of_datum};
use crate::error::SqlError;
use hashbrown::HashSet;
use std::cmp::Ordering;
use std::sync::Arc;
use towline_types::{ArrayValue, ColumnType, Datum, Interval, Numeric, TypeError, TypeId, cast};

/// Which aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateKind {
    /// `count(*)`
    CountStar,
    /// `count(x)`
    Count,
    /// `sum`
    Sum,
    /// `avg`
    Avg,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `bool_and`, `every`
    BoolAnd,
    /// `bool_or`
    BoolOr,
    /// `string_agg`
    StringAgg,
    /// `array_agg`
    ArrayAgg,
    /// `stddev`, `stddev_samp`
    StddevSamp,
    /// `stddev_pop`
    StddevPop,
    /// `variance`, `var_samp`
    VarSamp,
    /// `var_pop`
    VarPop,
    /// `bit_and`
    BitAnd,
    /// `bit_or`
    BitOr,
}

/// A bound aggregate call.
#[derive(Clone, Debug)]
pub struct AggregateCall {
    /// Which.
    pub kind: AggregateKind,
    /// Its name as written (`every` for `bool_and`): the default column name.
    pub name: &'static str,
    /// Its arguments over the input row, cast to what it takes.
    pub args: Vec<ScalarExpr>,
    /// Type the first argument has at the transition (after casts).
    pub input: TypeId,
    /// DISTINCT
    pub distinct: bool,
    /// ORDER BY inside the call: expression, descending, nulls first.
    pub order_by: Vec<(ScalarExpr, bool, bool)>,
    /// FILTER (WHERE …)
    pub filter: Option<ScalarExpr>,
    /// The result's type.
    pub ty: ColumnType,
}

/// A signature of an aggregate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) kind: AggregateKind,
    pub(super) def: &'static FunctionDef,
}

fn never(_: &EvalContext<'_>, _: &[Datum]) -> Result<Datum, SqlError> {
    Err(SqlError::internal("aggregate called as a function"))
}

const fn agg(name: &'static str, args: &'static [TypeId], ret: TypeId) -> FunctionDef {
    FunctionDef {
        name,
        args,
        ret,
        variadic: false,
        volatility: Volatility::Immutable,
        strict: false,
        eval: never,
    }
}

static SIGNATURES: &[(AggregateKind, FunctionDef)] = {
    use AggregateKind as K;
    use TypeId as T;
    &[
        (K::CountStar, agg("count", &[], T::Int8)),
        (K::Count, agg("count", &[T::Any], T::Int8)),
        (K::Sum, agg("sum", &[T::Int2], T::Int8)),
        (K::Sum, agg("sum", &[T::Int4], T::Int8)),
        (K::Sum, agg("sum", &[T::Int8], T::Numeric)),
        (K::Sum, agg("sum", &[T::Float4], T::Float4)),
        (K::Sum, agg("sum", &[T::Float8], T::Float8)),
        (K::Sum, agg("sum", &[T::Numeric], T::Numeric)),
        (K::Sum, agg("sum", &[T::Interval], T::Interval)),
        (K::Avg, agg("avg", &[T::Int2], T::Numeric)),
        (K::Avg, agg("avg", &[T::Int4], T::Numeric)),
        (K::Avg, agg("avg", &[T::Int8], T::Numeric)),
        (K::Avg, agg("avg", &[T::Float4], T::Float8)),
        (K::Avg, agg("avg", &[T::Float8], T::Float8)),
        (K::Avg, agg("avg", &[T::Numeric], T::Numeric)),
        (K::Avg, agg("avg", &[T::Interval], T::Interval)),
        (K::BoolAnd, agg("bool_and", &[T::Bool], T::Bool)),
        (K::BoolAnd, agg("every", &[T::Bool], T::Bool)),
        (K::BoolOr, agg("bool_or", &[T::Bool], T::Bool)),
        (K::StringAgg, agg("string_agg", &[T::Text, T::Text], T::Text)),
        (K::StringAgg, agg("string_agg", &[T::Bytea, T::Bytea], T::Bytea)),
        (K::ArrayAgg, agg("array_agg", &[T::AnyElement], T::AnyArray)),
        (K::BitAnd, agg("bit_and", &[T::Int2], T::Int2)),
        (K::BitAnd, agg("bit_and", &[T::Int4], T::Int4)),
        (K::BitAnd, agg("bit_and", &[T::Int8], T::Int8)),
        (K::BitOr, agg("bit_or", &[T::Int2], T::Int2)),
        (K::BitOr, agg("bit_or", &[T::Int4], T::Int4)),
        (K::BitOr, agg("bit_or", &[T::Int8], T::Int8)),
        (K::StddevSamp, agg("stddev", &[T::Float8], T::Float8)),
        (K::StddevSamp, agg("stddev", &[T::Numeric], T::Numeric)),
        (K::StddevSamp, agg("stddev_samp", &[T::Float8], T::Float8)),
        (K::StddevSamp, agg("stddev_samp", &[T::Numeric], T::Numeric)),
        (K::StddevPop, agg("stddev_pop", &[T::Float8], T::Float8)),
        (K::StddevPop, agg("stddev_pop", &[T::Numeric], T::Numeric)),
        (K::VarSamp, agg("variance", &[T::Float8], T::Float8)),
        (K::VarSamp, agg("variance", &[T::Numeric], T::Numeric)),
        (K::VarSamp, agg("var_samp", &[T::Float8], T::Float8)),
        (K::VarSamp, agg("var_samp", &[T::Numeric], T::Numeric)),
        (K::VarPop, agg("var_pop", &[T::Float8], T::Float8)),
        (K::VarPop, agg("var_pop", &[T::Numeric], T::Numeric)),
        (K::StddevSamp, agg("stddev", &[T::Int2], T::Numeric)),
        (K::StddevSamp, agg("stddev", &[T::Int4], T::Numeric)),
        (K::StddevSamp, agg("stddev", &[T::Int8], T::Numeric)),
        (K::StddevSamp, agg("stddev_samp", &[T::Int2], T::Numeric)),
        (K::StddevSamp, agg("stddev_samp", &[T::Int4], T::Numeric)),
        (K::StddevSamp, agg("stddev_samp", &[T::Int8], T::Numeric)),
        (K::StddevPop, agg("stddev_pop", &[T::Int2], T::Numeric)),
        (K::StddevPop, agg("stddev_pop", &[T::Int4], T::Numeric)),
        (K::StddevPop, agg("stddev_pop", &[T::Int8], T::Numeric)),
        (K::VarSamp, agg("variance", &[T::Int2], T::Numeric)),
        (K::VarSamp, agg("variance", &[T::Int4], T::Numeric)),
        (K::VarSamp, agg("variance", &[T::Int8], T::Numeric)),
        (K::VarSamp, agg("var_samp", &[T::Int2], T::Numeric)),
        (K::VarSamp, agg("var_samp", &[T::Int4], T::Numeric)),
        (K::VarSamp, agg("var_samp", &[T::Int8], T::Numeric)),
        (K::VarPop, agg("var_pop", &[T::Int2], T::Numeric)),
        (K::VarPop, agg("var_pop", &[T::Int4], T::Numeric)),
        (K::VarPop, agg("var_pop", &[T::Int8], T::Numeric)),
        (K::Min, agg("min", &[T::Text], T::Text)),
        (K::Max, agg("max", &[T::Text], T::Text)),
        (K::Min, agg("min", &[T::Bpchar], T::Bpchar)),
        (K::Max, agg("max", &[T::Bpchar], T::Bpchar)),
        (K::Min, agg("min", &[T::AnyElement], T::AnyElement)),
        (K::Max, agg("max", &[T::AnyElement], T::AnyElement)),
    ]
};

/// Whether a name is an aggregate's.
pub(crate) fn is_aggregate(name: &str) -> bool {
    SIGNATURES.iter().any(|(_, d)| d.name == name)
}

/// Whether `min` and `max` of a type exist.
fn orderable(ty: TypeId) -> bool {
    !matches!(
        ty,
        TypeId::Bool | TypeId::Bytea | TypeId::Xid | TypeId::Cid | TypeId::Record
    )
}

/// The signature for arguments of these types; the error says whether several fit.
pub(super) fn resolve(name: &str, types: &[TypeId], star: bool) -> Result<Found, bool> {
    if star {
        let (kind, def) = &SIGNATURES[0];
        return Ok(Found { kind: *kind, def });
    }
    let candidates: Vec<&'static FunctionDef> = SIGNATURES
        .iter()
        .map(|(_, d)| d)
        .filter(|d| d.name == name && !d.args.is_empty())
        .collect();
    if matches!(name, "min" | "max") && types.iter().any(|t| !orderable(*t)) {
        return Err(false);
    }
    let def = match choose(&candidates, types) {
        Choice::One(def) => def,
        Choice::None => return Err(false),
        Choice::Ambiguous => return Err(true),
    };
    let found = SIGNATURES.iter().find(|(_, d)| std::ptr::eq(d, def));
    found.map(|(kind, def)| Found { kind: *kind, def }).ok_or(false)
}

/// The running value of one aggregate.
#[derive(Clone, Debug)]
enum Running {
    Count(i64),
    /// Exact integer sum.
    Integers {
        sum: i128,
        count: i64,
    },
    Numerics {
        sum: Numeric,
        count: i64,
    },
    Floats {
        sum: f64,
        count: i64,
    },
    Spans {
        sum: Interval,
        count: i64,
    },
    /// min, max, bool_and, bool_or, bit_and, bit_or: the best so far.
    Best(Datum),
    Strings {
        out: Option<Vec<u8>>,
    },
    Items {
        items: Vec<Datum>,
    },
    /// Float variance by the Youngs-Cramer update.
    FloatSquares {
        count: f64,
        sum: f64,
        squares: f64,
    },
    NumericSquares {
        count: i64,
        sum: Numeric,
        squares: Numeric,
    },
}

/// The running state of one aggregate in one group.
#[derive(Clone, Debug)]
pub struct AggregateState {
    running: Running,
    /// What DISTINCT has seen.
    seen: Option<HashSet<Vec<Datum>>>,
    /// Arguments and keys kept for ORDER BY.
    sorted: Option<Vec<(Vec<Datum>, Vec<Datum>)>>,
    /// Bytes that rows have added and nobody has asked for.
    kept: usize,
}

impl AggregateState {
    /// Roughly the memory, in bytes, that it has taken since it was asked the last time, for the executor's
    /// budget.
    pub fn take_kept(&mut self) -> usize {
        std::mem::take(&mut self.kept)
    }
}

/// Bytes by which these arguments make a running value larger.
fn added(running: &Running, args: &[Datum]) -> usize {
    match running {
        Running::Items { .. } => args.iter().map(size_of_datum).sum(),
        Running::Strings { .. } => args
            .iter()
            .map(|arg| match arg {
                Datum::Bytea(bytes) => bytes.len(),
                arg => arg.as_str().map_or(0, str::len),
            })
            .sum(),
        _ => 0,
    }
}

impl AggregateCall {
    /// An empty group.
    pub fn new_state(&self) -> AggregateState {
        use AggregateKind as K;
        let running = match self.kind {
            K::CountStar | K::Count => Running::Count(0),
            K::Sum | K::Avg => match self.input {
                TypeId::Int2 | TypeId::Int4 | TypeId::Int8 => Running::Integers { sum: 0, count: 0 },
                TypeId::Float4 | TypeId::Float8 => Running::Floats { sum: 0.0, count: 0 },
                TypeId::Interval => Running::Spans {
                    sum: Interval::default(),
                    count: 0,
                },
                _ => Running::Numerics {
                    sum: Numeric::zero(),
                    count: 0,
                },
            },
            K::Min | K::Max | K::BoolAnd | K::BoolOr | K::BitAnd | K::BitOr => Running::Best(Datum::Null),
            K::StringAgg => Running::Strings { out: None },
            K::ArrayAgg => Running::Items { items: Vec::new() },
            K::StddevSamp | K::StddevPop | K::VarSamp | K::VarPop => {
                if self.input == TypeId::Float8 {
                    Running::FloatSquares {
                        count: 0.0,
                        sum: 0.0,
                        squares: 0.0,
                    }
                } else {
                    Running::NumericSquares {
                        count: 0,
                        sum: Numeric::zero(),
                        squares: Numeric::zero(),
                    }
                }
            }
        };
        AggregateState {
            running,
            seen: self.distinct.then(HashSet::new),
            sorted: (!self.order_by.is_empty()).then(Vec::new),
            kept: 0,
        }
    }

    /// Takes one input row into the group: FILTER, then the arguments, then the transition.
    pub fn accumulate(
        &self,
        state: &mut AggregateState,
        row: &[Datum],
        cx: &EvalContext<'_>,
    ) -> Result<(), SqlError> {
        if let Some(filter) = &self.filter
            && !filter.is_true(row, cx)?
        {
            return Ok(());
        }
        if self.kind == AggregateKind::CountStar {
            if let Running::Count(n) = &mut state.running {
                *n += 1;
            }
            return Ok(());
        }
        if let ([arg], None, None) = (self.args.as_slice(), &state.seen, &state.sorted) {
            // The common case without an allocation.
            let value = [arg.eval(row, cx)?];
            state.kept += added(&state.running, &value);
            return self.transition(&mut state.running, &value);
        }
        let args = self
            .args
            .iter()
            .map(|e| e.eval(row, cx))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(seen) = &mut state.seen {
            let skipped = args[0].is_null() && self.kind != AggregateKind::ArrayAgg;
            if skipped || !seen.insert(args.clone()) {
                return Ok(());
            }
            state.kept += 64 + args.iter().map(size_of_datum).sum::<usize>();
        }
        if let Some(sorted) = &mut state.sorted {
            let keys = self
                .order_by
                .iter()
                .map(|(e, _, _)| e.eval(row, cx))
                .collect::<Result<Vec<_>, _>>()?;
            state.kept += 64 + keys.iter().chain(&args).map(size_of_datum).sum::<usize>();
            sorted.push((keys, args));
            return Ok(());
        }
        if state.seen.is_some() && self.order_matters() {
            // Distinct values come in their own order, when all are known.
            return Ok(());
        }
        state.kept += added(&state.running, &args);
        self.transition(&mut state.running, &args)
    }

    fn order_matters(&self) -> bool {
        matches!(self.kind, AggregateKind::StringAgg | AggregateKind::ArrayAgg)
    }

    fn transition(&self, running: &mut Running, args: &[Datum]) -> Result<(), SqlError> {
        let value = &args[0];
        if value.is_null() && !matches!(running, Running::Items { .. }) {
            return Ok(());
        }
        match running {
            Running::Count(n) => *n += 1,
            Running::Integers { sum, count } => {
                *sum += i128::from(value.as_i64().unwrap_or(0));
                *count += 1;
            }
            Running::Numerics { sum, count } => {
                if let Datum::Numeric(n) = value {
                    *sum = sum.add(n)?;
                    *count += 1;
                }
            }
            Running::Floats { sum, count } => {
                let v = match value {
                    Datum::Float8(v) => *v,
                    Datum::Float4(v) => f64::from(*v),
                    _ => 0.0,
                };
                let next = *sum + v;
                if next.is_infinite() && !sum.is_infinite() && !v.is_infinite() {
                    return Err(TypeError::out_of_range("value out of range: overflow").into());
                }
                *sum = next;
                *count += 1;
            }
            Running::Spans { sum, count } => {
                if let Datum::Interval(v) = value {
                    *sum = sum.add(v)?;
                    *count += 1;
                }
            }
            Running::Best(best) => {
                if best.is_null() {
                    *best = value.clone();
                    return Ok(());
                }
                let better = match self.kind {
                    AggregateKind::Min => value.compare(best).is_lt(),
                    AggregateKind::Max => value.compare(best).is_gt(),
                    AggregateKind::BoolAnd => matches!(value, Datum::Bool(false)),
                    AggregateKind::BoolOr => matches!(value, Datum::Bool(true)),
                    _ => {
                        let (a, b) = (best.as_i64().unwrap_or(0), value.as_i64().unwrap_or(0));
                        let bits = if self.kind == AggregateKind::BitAnd {
                            a & b
                        } else {
                            a | b
                        };
                        *best = cast::integer(bits, self.input)?;
                        false
                    }
                };
                if better {
                    *best = value.clone();
                }
            }
            Running::Strings { out } => {
                let bytes = |d: &Datum| -> Vec<u8> {
                    match d {
                        Datum::Bytea(b) => b.to_vec(),
                        d => d.as_str().unwrap_or_default().as_bytes().to_vec(),
                    }
                };
                match out {
                    None => *out = Some(bytes(value)),
                    Some(out) => {
                        if let Some(separator) = args.get(1).filter(|d| !d.is_null()) {
                            out.extend(bytes(separator));
                        }
                        out.extend(bytes(value));
                        if out.len() > MAX_TEXT {
                            return Err(too_large());
                        }
                    }
                }
            }
            Running::Items { items } => {
                items.push(value.clone());
                if items.len() > towline_types::array::MAX_ELEMENTS {
                    return Err(too_large());
                }
            }
            Running::FloatSquares { count, sum, squares } => {
                if let Datum::Float8(v) = value {
                    *count += 1.0;
                    *sum += v;
                    if *count > 1.0 {
                        let t = v * *count - *sum;
                        *squares += t * t / (*count * (*count - 1.0));
                    } else if !v.is_finite() {
                        *squares = f64::NAN;
                    }
                }
            }
            Running::NumericSquares { count, sum, squares } => {
                let exact = match value {
                    Datum::Numeric(v) => Some(v.clone()),
                    integer => integer.as_i64().map(Numeric::from),
                };
                if let Some(v) = &exact {
                    *count += 1;
                    *sum = sum.add(v)?;
                    *squares = squares.add(&v.mul(v)?)?;
                }
            }
        }
        Ok(())
    }

    /// The group's result.
    pub fn finish(&self, state: AggregateState) -> Result<Datum, SqlError> {
        let AggregateState {
            mut running,
            sorted,
            seen,
            ..
        } = state;
        if let (Some(seen), None, true) = (seen, &sorted, self.order_matters()) {
            let mut rows: Vec<Vec<Datum>> = seen.into_iter().collect();
            rows.sort_by(|a, b| {
                a.iter()
                    .zip(b)
                    .map(|(x, y)| x.compare(y))
                    .find(|o| o.is_ne())
                    .unwrap_or(Ordering::Equal)
            });
            for args in rows {
                self.transition(&mut running, &args)?;
            }
        }
        if let Some(mut rows) = sorted {
            rows.sort_by(|(a, _), (b, _)| self.compare_keys(a, b));
            for (_, args) in rows {
                self.transition(&mut running, &args)?;
            }
        }
        let average = self.kind == AggregateKind::Avg;
        Ok(match running {
            Running::Count(n) => Datum::Int8(n),
            Running::Integers { count: 0, .. }
            | Running::Numerics { count: 0, .. }
            | Running::Floats { count: 0, .. }
            | Running::Spans { count: 0, .. } => Datum::Null,
            Running::Integers { sum, count } => {
                if average {
                    Datum::Numeric(Numeric::from(sum).div(&Numeric::from(count))?)
                } else if self.ty.id == TypeId::Int8 {
                    let narrow =
                        i64::try_from(sum).map_err(|_| TypeError::out_of_range("bigint out of range"))?;
                    Datum::Int8(narrow)
                } else {
                    Datum::Numeric(Numeric::from(sum))
                }
            }
            Running::Numerics { sum, count } => Datum::Numeric(if average {
                sum.div(&Numeric::from(count))?
            } else {
                sum
            }),
            Running::Floats { sum, count } => {
                if average {
                    Datum::Float8(sum / count as f64)
                } else if self.ty.id == TypeId::Float4 {
                    Datum::Float4(sum as f32)
                } else {
                    Datum::Float8(sum)
                }
            }
            Running::Spans { sum, count } => {
                Datum::Interval(if average { sum.div(count as f64)? } else { sum })
            }
            Running::Best(best) => best,
            Running::Strings { out } => match out {
                None => Datum::Null,
                Some(bytes) if self.ty.id == TypeId::Bytea => Datum::Bytea(bytes.into()),
                Some(bytes) => Datum::text(&String::from_utf8_lossy(&bytes)),
            },
            Running::Items { items } => {
                if items.is_empty() {
                    return Ok(Datum::Null);
                }
                Datum::Array(Arc::new(ArrayValue::new(self.input, items)))
            }
            Running::FloatSquares { count, squares, .. } => self.float_spread(count, squares),
            Running::NumericSquares { count, sum, squares } => self.numeric_spread(count, &sum, &squares)?,
        })
    }

    fn compare_keys(&self, a: &[Datum], b: &[Datum]) -> Ordering {
        for ((x, y), (_, descending, nulls_first)) in a.iter().zip(b).zip(&self.order_by) {
            let order = match (x.is_null(), y.is_null()) {
                (true, true) => Ordering::Equal,
                (true, false) => {
                    if *nulls_first {
                        Ordering::Less
                    } else {
                        Ordering::Greater
                    }
                }
                (false, true) => {
                    if *nulls_first {
                        Ordering::Greater
                    } else {
                        Ordering::Less
                    }
                }
                (false, false) => {
                    if *descending {
                        y.compare(x)
                    } else {
                        x.compare(y)
                    }
                }
            };
            if order.is_ne() {
                return order;
            }
        }
        Ordering::Equal
    }

    fn float_spread(&self, count: f64, squares: f64) -> Datum {
        let sample = matches!(self.kind, AggregateKind::StddevSamp | AggregateKind::VarSamp);
        let divisor = if sample { count - 1.0 } else { count };
        if count == 0.0 || divisor <= 0.0 {
            return Datum::Null;
        }
        let variance = squares / divisor;
        let deviation = matches!(self.kind, AggregateKind::StddevSamp | AggregateKind::StddevPop);
        Datum::Float8(if deviation { variance.sqrt() } else { variance })
    }

    fn numeric_spread(&self, count: i64, sum: &Numeric, squares: &Numeric) -> Result<Datum, SqlError> {
        let sample = matches!(self.kind, AggregateKind::StddevSamp | AggregateKind::VarSamp);
        if count == 0 || (sample && count == 1) {
            return Ok(Datum::Null);
        }
        // (N Σx² − (Σx)²) / (N (N or N−1))
        let n = Numeric::from(count);
        let spread = n.mul(squares)?.sub(&sum.mul(sum)?)?;
        if spread.is_negative() || spread.is_zero() {
            return Ok(Datum::Numeric(Numeric::zero()));
        }
        let divisor = n.mul(&Numeric::from(if sample { count - 1 } else { count }))?;
        let variance = spread.div(&divisor)?;
        let deviation = matches!(self.kind, AggregateKind::StddevSamp | AggregateKind::StddevPop);
        Ok(Datum::Numeric(if deviation {
            variance.sqrt()?
        } else {
            variance
        }))
    }
}

/// Longest text an aggregate builds.
const MAX_TEXT: usize = 1 << 29;

#[cold]
fn too_large() -> SqlError {
    SqlError::new(
        towline_base::SqlState::PROGRAM_LIMIT_EXCEEDED,
        "aggregate result is too large",
    )
}
