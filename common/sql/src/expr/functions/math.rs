//! Mathematical functions on floats and numerics, random numbers.

use super::{FunctionDef, def, float, int, int32, num};
use crate::error::SqlError;
use crate::expr::EvalContext;
use towline_base::SqlState;
use towline_types::TypeId::*;
use towline_types::{Datum, TypeError};

type Answer = Result<Datum, SqlError>;

/// Radians of one degree; PostgreSQL divides and multiplies by this.
const DEGREE: f64 = 0.017_453_292_519_943_295;

#[cold]
fn argument(message: &str, state: SqlState) -> SqlError {
    SqlError::new(state, message)
}

#[cold]
fn input_range() -> SqlError {
    TypeError::out_of_range("input is out of range").into()
}

/// A result that must be finite if its input was.
fn finite(input_finite: bool, value: f64) -> Answer {
    if value.is_infinite() && input_finite {
        return Err(TypeError::out_of_range("value out of range: overflow").into());
    }
    Ok(Datum::Float8(value))
}

macro_rules! float_functions {
    ($($name:ident = |$x:ident| $body:expr;)*) => {
        $(fn $name(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
            let $x = float(&a[0])?;
            finite($x.is_finite(), $body)
        })*
    };
}

float_functions! {
    f_ceil = |x| x.ceil();
    f_floor = |x| x.floor();
    f_round = |x| x.round_ties_even();
    f_trunc = |x| x.trunc();
    f_sign = |x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x };
    f_cbrt = |x| x.cbrt();
    f_degrees = |x| x / DEGREE;
    f_radians = |x| x * DEGREE;
    f_atan = |x| x.atan();
    f_sinh = |x| x.sinh();
    f_cosh = |x| x.cosh();
    f_tanh = |x| x.tanh();
    f_asinh = |x| x.asinh();
}

macro_rules! trigonometry {
    ($($name:ident = |$x:ident| $body:expr;)*) => {
        $(fn $name(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
            let $x = float(&a[0])?;
            if $x.is_infinite() {
                return Err(input_range());
            }
            Ok(Datum::Float8($body))
        })*
    };
}

trigonometry! {
    f_sin = |x| x.sin();
    f_cos = |x| x.cos();
    f_tan = |x| x.tan();
    f_cot = |x| 1.0 / x.tan();
}

macro_rules! bounded {
    ($($name:ident = |$x:ident| $ok:expr, $body:expr;)*) => {
        $(fn $name(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
            let $x = float(&a[0])?;
            if !($x.is_nan() || $ok) {
                return Err(input_range());
            }
            Ok(Datum::Float8($body))
        })*
    };
}

bounded! {
    f_asin = |x| (-1.0..=1.0).contains(&x), x.asin();
    f_acos = |x| (-1.0..=1.0).contains(&x), x.acos();
    f_acosh = |x| x >= 1.0, x.acosh();
    f_atanh = |x| (-1.0..=1.0).contains(&x), x.atanh();
}

fn f_atan2(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Float8(float(&a[0])?.atan2(float(&a[1])?)))
}

fn f_sqrt(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let x = float(&a[0])?;
    if x < 0.0 {
        return Err(argument(
            "cannot take square root of a negative number",
            SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION,
        ));
    }
    Ok(Datum::Float8(x.sqrt()))
}

fn f_exp(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let x = float(&a[0])?;
    let v = x.exp();
    if v == 0.0 && x.is_finite() {
        return Err(TypeError::out_of_range("value out of range: underflow").into());
    }
    finite(x.is_finite(), v)
}

fn logarithm(x: f64, f: fn(f64) -> f64) -> Answer {
    if x == 0.0 {
        return Err(argument(
            "cannot take logarithm of zero",
            SqlState::INVALID_ARGUMENT_FOR_LOGARITHM,
        ));
    }
    if x < 0.0 {
        return Err(argument(
            "cannot take logarithm of a negative number",
            SqlState::INVALID_ARGUMENT_FOR_LOGARITHM,
        ));
    }
    Ok(Datum::Float8(f(x)))
}

fn f_ln(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    logarithm(float(&a[0])?, f64::ln)
}

fn f_log10(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    logarithm(float(&a[0])?, f64::log10)
}

fn f_power(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (x, y) = (float(&a[0])?, float(&a[1])?);
    let refuse = |message: &str| Err(argument(message, SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION));
    if x == 0.0 && y < 0.0 {
        return refuse("zero raised to a negative power is undefined");
    }
    if x < 0.0 && x.is_finite() && y.is_finite() && y.floor() != y {
        return refuse("a negative number raised to a non-integer power yields a complex result");
    }
    let v = x.powf(y);
    if v == 0.0 && x != 0.0 && x.is_finite() && y.is_finite() {
        return Err(TypeError::out_of_range("value out of range: underflow").into());
    }
    finite(x.is_finite() && y.is_finite(), v)
}

fn f_pi(_: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::Float8(std::f64::consts::PI))
}

macro_rules! numeric_functions {
    ($($name:ident = |$x:ident| $body:expr;)*) => {
        $(fn $name(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
            let $x = num(&a[0])?;
            Ok(Datum::Numeric($body))
        })*
    };
}

numeric_functions! {
    n_ceil = |x| x.ceil()?;
    n_floor = |x| x.floor()?;
    n_round = |x| x.round(0)?;
    n_trunc = |x| x.trunc(0)?;
    n_sign = |x| x.sign();
    n_sqrt = |x| x.sqrt()?;
    n_exp = |x| x.exp()?;
    n_ln = |x| x.ln()?;
    n_log10 = |x| x.log(&towline_types::Numeric::from(10))?;
    n_trim_scale = |x| x.trim_scale()?;
}

fn n_round_to(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Numeric(num(&a[0])?.round(int32(&a[1])?)?))
}

fn n_trunc_to(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Numeric(num(&a[0])?.trunc(int32(&a[1])?)?))
}

fn n_power(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Numeric(num(&a[0])?.power(num(&a[1])?)?))
}

fn n_log(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Numeric(num(&a[1])?.log(num(&a[0])?)?))
}

fn n_div(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Numeric(num(&a[0])?.div_trunc(num(&a[1])?)?))
}

fn n_gcd(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Numeric(num(&a[0])?.gcd(num(&a[1])?)?))
}

fn n_scale(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(num(&a[0])?.scale().map_or(Datum::Null, Datum::Int4))
}

fn n_min_scale(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(num(&a[0])?.min_scale().map_or(Datum::Null, Datum::Int4))
}

fn gcd_of(a: i64, b: i64) -> u64 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn i4_gcd(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    i32::try_from(gcd_of(int(&a[0])?, int(&a[1])?))
        .map(Datum::Int4)
        .map_err(|_| TypeError::out_of_range("integer out of range").into())
}

fn i8_gcd(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    i64::try_from(gcd_of(int(&a[0])?, int(&a[1])?))
        .map(Datum::Int8)
        .map_err(|_| TypeError::out_of_range("bigint out of range").into())
}

fn lcm_of(a: i64, b: i64) -> Option<i64> {
    if a == 0 || b == 0 {
        return Some(0);
    }
    let gcd = i64::try_from(gcd_of(a, b)).ok()?;
    (a / gcd).checked_mul(b)?.checked_abs()
}

fn i4_lcm(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    lcm_of(int(&a[0])?, int(&a[1])?)
        .and_then(|v| i32::try_from(v).ok())
        .map(Datum::Int4)
        .ok_or_else(|| TypeError::out_of_range("integer out of range").into())
}

fn i8_lcm(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    lcm_of(int(&a[0])?, int(&a[1])?)
        .map(Datum::Int8)
        .ok_or_else(|| TypeError::out_of_range("bigint out of range").into())
}

fn width_bucket(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (x, low, high, count) = (float(&a[0])?, float(&a[1])?, float(&a[2])?, int32(&a[3])?);
    let refuse = |message: &str| {
        let state = SqlState::from_code("2201G").unwrap_or(SqlState::INVALID_PARAMETER_VALUE);
        Err(SqlError::new(state, message))
    };
    if count <= 0 {
        return refuse("count must be greater than zero");
    }
    if x.is_nan() || low.is_nan() || high.is_nan() {
        return refuse("operand, lower bound, and upper bound cannot be NaN");
    }
    if low.is_infinite() || high.is_infinite() {
        return refuse("lower and upper bounds must be finite");
    }
    if low == high {
        return refuse("lower bound cannot equal upper bound");
    }
    let ascending = low < high;
    let (below, above) = if ascending {
        (x < low, x >= high)
    } else {
        (x > low, x <= high)
    };
    let bucket = if below {
        0
    } else if above {
        i64::from(count) + 1
    } else {
        ((x - low) / (high - low) * f64::from(count)) as i64 + 1
    };
    i32::try_from(bucket)
        .map(Datum::Int4)
        .map_err(|_| TypeError::out_of_range("integer out of range").into())
}

fn random(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    // 53 bits in [0, 1).
    Ok(Datum::Float8(
        (cx.functions.random_bits() >> 11) as f64 / (1u64 << 53) as f64,
    ))
}

fn setseed(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let seed = float(&a[0])?;
    if !(-1.0..=1.0).contains(&seed) {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("setseed parameter {seed} is out of allowed range [-1,1]"),
        ));
    }
    cx.functions.set_seed(seed);
    Ok(Datum::text(""))
}

/// PostgreSQL's `hashint4`/`hashint8` are not needed; a factorial is.
fn factorial(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let n = int(&a[0])?;
    if n < 0 {
        return Err(TypeError::out_of_range("factorial of a negative number is undefined").into());
    }
    if n > 32_177 {
        return Err(TypeError::out_of_range("value overflows numeric format").into());
    }
    let mut product = towline_types::Numeric::from(1);
    for i in 2..=n {
        product = product.mul(&towline_types::Numeric::from(i))?;
    }
    Ok(Datum::Numeric(product))
}

pub(super) const DEFS: &[FunctionDef] = &[
    def("ceil", &[Float8], Float8, f_ceil),
    def("ceil", &[Numeric], Numeric, n_ceil),
    def("ceiling", &[Float8], Float8, f_ceil),
    def("ceiling", &[Numeric], Numeric, n_ceil),
    def("floor", &[Float8], Float8, f_floor),
    def("floor", &[Numeric], Numeric, n_floor),
    def("round", &[Float8], Float8, f_round),
    def("round", &[Numeric], Numeric, n_round),
    def("round", &[Numeric, Int4], Numeric, n_round_to),
    def("trunc", &[Float8], Float8, f_trunc),
    def("trunc", &[Numeric], Numeric, n_trunc),
    def("trunc", &[Numeric, Int4], Numeric, n_trunc_to),
    def("sign", &[Float8], Float8, f_sign),
    def("sign", &[Numeric], Numeric, n_sign),
    def("sqrt", &[Float8], Float8, f_sqrt),
    def("sqrt", &[Numeric], Numeric, n_sqrt),
    def("|/", &[Float8], Float8, f_sqrt),
    def("cbrt", &[Float8], Float8, f_cbrt),
    def("||/", &[Float8], Float8, f_cbrt),
    def("exp", &[Float8], Float8, f_exp),
    def("exp", &[Numeric], Numeric, n_exp),
    def("ln", &[Float8], Float8, f_ln),
    def("ln", &[Numeric], Numeric, n_ln),
    def("log", &[Float8], Float8, f_log10),
    def("log", &[Numeric], Numeric, n_log10),
    def("log", &[Numeric, Numeric], Numeric, n_log),
    def("log10", &[Float8], Float8, f_log10),
    def("log10", &[Numeric], Numeric, n_log10),
    def("power", &[Float8, Float8], Float8, f_power),
    def("power", &[Numeric, Numeric], Numeric, n_power),
    def("pow", &[Float8, Float8], Float8, f_power),
    def("pow", &[Numeric, Numeric], Numeric, n_power),
    def("^", &[Float8, Float8], Float8, f_power),
    def("^", &[Numeric, Numeric], Numeric, n_power),
    def("div", &[Numeric, Numeric], Numeric, n_div),
    def("gcd", &[Int4, Int4], Int4, i4_gcd),
    def("gcd", &[Int8, Int8], Int8, i8_gcd),
    def("gcd", &[Numeric, Numeric], Numeric, n_gcd),
    def("lcm", &[Int4, Int4], Int4, i4_lcm),
    def("lcm", &[Int8, Int8], Int8, i8_lcm),
    def("scale", &[Numeric], Int4, n_scale),
    def("min_scale", &[Numeric], Int4, n_min_scale),
    def("trim_scale", &[Numeric], Numeric, n_trim_scale),
    def("factorial", &[Int8], Numeric, factorial),
    def("degrees", &[Float8], Float8, f_degrees),
    def("radians", &[Float8], Float8, f_radians),
    def("pi", &[], Float8, f_pi),
    def("sin", &[Float8], Float8, f_sin),
    def("cos", &[Float8], Float8, f_cos),
    def("tan", &[Float8], Float8, f_tan),
    def("cot", &[Float8], Float8, f_cot),
    def("asin", &[Float8], Float8, f_asin),
    def("acos", &[Float8], Float8, f_acos),
    def("atan", &[Float8], Float8, f_atan),
    def("atan2", &[Float8, Float8], Float8, f_atan2),
    def("sinh", &[Float8], Float8, f_sinh),
    def("cosh", &[Float8], Float8, f_cosh),
    def("tanh", &[Float8], Float8, f_tanh),
    def("asinh", &[Float8], Float8, f_asinh),
    def("acosh", &[Float8], Float8, f_acosh),
    def("atanh", &[Float8], Float8, f_atanh),
    def(
        "width_bucket",
        &[Float8, Float8, Float8, Int4],
        Int4,
        width_bucket,
    ),
    def("random", &[], Float8, random).volatile(),
    def("setseed", &[Float8], Void, setseed).volatile(),
];
