//! sqrt, exp, ln, log, power: PostgreSQL's choice of scale, with the digits right to the last.
//!
//! Each result is computed with guard digits by a convergent series after argument reduction and rounded once.

use super::{DEC_DIGITS, MAX_DISPLAY_SCALE, MAX_RESULT_SCALE, MIN_SIG_DIGITS, Numeric, Repr, Var, overflow};
use crate::error::{Result, TypeError};
use towline_base::SqlState;

const LOG10_E: f64 = std::f64::consts::LOG10_E;
const LN_10: f64 = std::f64::consts::LN_10;

fn scale_for(weight: i32, at_least: i32) -> i32 {
    (MIN_SIG_DIGITS - weight)
        .max(at_least)
        .clamp(0, MAX_DISPLAY_SCALE)
}

fn one() -> Var {
    Var::from_i64(1)
}

/// Decimal weight of ln(x): the power of ten of its first digit, roughly.
fn ln_weight(x: &Var) -> i32 {
    // Near 1, ln(x) ≈ x − 1.
    let near_low = Var::from_decimal(9, -1);
    let near_high = Var::from_decimal(11, -1);
    if x.compare(&near_low).is_ge() && x.compare(&near_high).is_le() {
        let mut delta = x.sub(&one());
        delta.strip();
        return match delta.digits.first() {
            None => 0,
            Some(first) => delta.weight * DEC_DIGITS + f64::from(*first).log10() as i32,
        };
    }
    let ln = approximate_ln(x);
    if ln == 0.0 { 0 } else { ln.abs().log10() as i32 }
}

/// ln(x) to double precision, for any weight, also close to 1.
fn approximate_ln(x: &Var) -> f64 {
    let delta = super::convert::var_to_f64(&x.sub(&one()));
    if delta.abs() < 0.1 {
        return delta.ln_1p();
    }
    let mut mantissa = 0.0;
    for i in 0..4 {
        mantissa = mantissa * 10_000.0 + f64::from(x.digits.get(i).copied().unwrap_or(0));
    }
    mantissa.ln() + f64::from(x.weight - 3) * 10_000f64.ln()
}

/// √x to `rscale` digits, rounded.
fn sqrt_var(x: &Var, rscale: i32) -> Var {
    if x.is_zero() {
        return Var {
            dscale: rscale,
            ..Var::zero()
        };
    }
    let guard = rscale + 8;
    // Newton from a double approximation; each step doubles the digits.
    let ln = approximate_ln(x) / 2.0;
    let mut y = approximate_exp(ln);
    let mut previous: Option<Var> = None;
    for _ in 0..64 {
        let mut next = y.add(&x.div(&y, guard, true)).mul(&Var::from_decimal(5, -1));
        next.round(guard);
        if previous.as_ref().is_some_and(|p| p.compare(&next).is_eq()) || next.compare(&y).is_eq() {
            y = next;
            break;
        }
        previous = Some(y);
        y = next;
    }
    // Decide the last digit exactly: the floor of √x in units of one guard digit would be closer than needed.
    y.round(rscale);
    y.strip();
    y
}

/// e^value as a Var with about 15 digits.
fn approximate_exp(value: f64) -> Var {
    let power = (value / LN_10).floor();
    let mantissa = (value - power * LN_10).exp();
    Var::from_decimal((mantissa * 1e15) as i64, power as i32 - 15)
}

/// e^x to `rscale` digits, rounded; `None` if the result is too large.
fn exp_var(x: &Var, rscale: i32) -> Option<Var> {
    let approximate = super::convert::var_to_f64(x);
    if approximate.abs() >= f64::from(MAX_RESULT_SCALE * 3) {
        if approximate > 0.0 {
            return None;
        }
        return Some(Var {
            dscale: rscale,
            ..Var::zero()
        });
    }
    let weight = (approximate * LOG10_E) as i32;
    // Halve until small, sum the series, square back; squaring costs digits.
    let mut reduced = x.clone();
    let mut halvings = 0;
    let mut size = approximate.abs();
    while size > 0.01 {
        halvings += 1;
        size /= 2.0;
    }
    let guard = (rscale + weight.max(0) + halvings + 12).max(12);
    let mut divisor = 1i64;
    for _ in 0..halvings {
        divisor *= 2;
    }
    if halvings > 0 {
        reduced = reduced.div(&Var::from_i64(divisor), guard + 8, true);
    }
    let mut sum = one().add(&reduced);
    let mut term = reduced.clone();
    for n in 2..10_000 {
        term = term.mul(&reduced);
        term = term.div(&Var::from_i64(n), guard + 8, true);
        if term.is_zero() {
            break;
        }
        sum = sum.add(&term);
    }
    for _ in 0..halvings {
        sum = sum.mul(&sum);
        // Relative precision is what counts while the value grows or shrinks.
        let keep = guard + 8 - (sum.weight * DEC_DIGITS).min(0);
        sum.round(keep);
    }
    sum.round(rscale);
    sum.strip();
    Some(sum)
}

/// ln x to `rscale` digits, rounded; x > 0.
fn ln_var(x: &Var, rscale: i32) -> Var {
    let guard = rscale + 16;
    // Square roots until close to 1, then the series of artanh.
    let low = Var::from_decimal(9, -1);
    let high = Var::from_decimal(11, -1);
    let mut y = x.clone();
    let mut factor = Var::from_i64(2);
    while y.compare(&low).is_le() || y.compare(&high).is_ge() {
        // Below 1 more digits are needed for the same relative precision.
        let extra = (-y.weight).max(0) * DEC_DIGITS / 2;
        y = sqrt_var(&y, guard + 8 + extra);
        factor = factor.mul(&Var::from_i64(2));
    }
    let z = y.sub(&one()).div(&y.add(&one()), guard + 8, true);
    let square = z.mul_round(&z, guard + 8);
    let mut power = z.clone();
    let mut sum = z;
    let mut n = 1;
    loop {
        n += 2;
        power = power.mul_round(&square, guard + 8);
        let term = power.div(&Var::from_i64(n), guard + 8, true);
        if term.is_zero() || n > 100_000 {
            break;
        }
        sum = sum.add(&term);
    }
    let mut result = sum.mul(&factor);
    result.round(rscale);
    result.strip();
    result
}

impl Var {
    /// `value` × 10^`exponent`.
    pub(super) fn from_decimal(value: i64, exponent: i32) -> Var {
        let shift = exponent.rem_euclid(DEC_DIGITS);
        let mut var = Var::from_u128(
            u128::from(value.unsigned_abs()) * 10u128.pow(shift as u32),
            value < 0,
        );
        if !var.digits.is_empty() {
            var.weight += exponent.div_euclid(DEC_DIGITS);
        }
        var
    }
}

fn logarithm_error(message: &str) -> TypeError {
    TypeError::new(SqlState::INVALID_ARGUMENT_FOR_LOGARITHM, message)
}

fn power_error(message: &str) -> TypeError {
    TypeError::new(SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION, message)
}

impl Numeric {
    /// `sqrt(self)`; 2201F for a negative value.
    pub fn sqrt(&self) -> Result<Numeric> {
        let negative = || power_error("cannot take square root of a negative number");
        let x = match self.repr() {
            Repr::NaN | Repr::PosInf => return Ok(self.clone()),
            Repr::NegInf => return Err(negative()),
            Repr::Finite(x) => x,
        };
        if x.negative {
            return Err(negative());
        }
        let weight = (x.weight + 1) * DEC_DIGITS / 2 - 1;
        let rscale = scale_for(weight, x.dscale);
        Numeric::from_var(Var {
            dscale: rscale,
            ..sqrt_var(x, rscale)
        })
    }

    /// `exp(self)`; 22003 if too large.
    pub fn exp(&self) -> Result<Numeric> {
        let x = match self.repr() {
            Repr::NaN | Repr::PosInf => return Ok(self.clone()),
            Repr::NegInf => return Ok(Numeric::zero()),
            Repr::Finite(x) => x,
        };
        let weight = super::convert::var_to_f64(x) * LOG10_E;
        let weight = weight.clamp(f64::from(-MAX_RESULT_SCALE), f64::from(MAX_RESULT_SCALE)) as i32;
        let rscale = scale_for(weight, x.dscale);
        let result = exp_var(x, rscale).ok_or_else(overflow)?;
        Numeric::from_var(Var {
            dscale: rscale,
            ..result
        })
    }

    /// `ln(self)`; 2201E for zero and below.
    pub fn ln(&self) -> Result<Numeric> {
        let x = self.logarithm_argument()?;
        let Some(x) = x else { return Ok(self.clone()) };
        let rscale = scale_for(ln_weight(x), x.dscale);
        Numeric::from_var(Var {
            dscale: rscale,
            ..ln_var(x, rscale)
        })
    }

    /// The finite positive argument of a logarithm; `None` for NaN and infinity.
    fn logarithm_argument(&self) -> Result<Option<&Var>> {
        match self.repr() {
            Repr::NaN | Repr::PosInf => Ok(None),
            Repr::NegInf => Err(logarithm_error("cannot take logarithm of a negative number")),
            Repr::Finite(x) if x.is_zero() => Err(logarithm_error("cannot take logarithm of zero")),
            Repr::Finite(x) if x.negative => {
                Err(logarithm_error("cannot take logarithm of a negative number"))
            }
            Repr::Finite(x) => Ok(Some(x)),
        }
    }

    /// `log(base, self)`
    pub fn log(&self, base: &Numeric) -> Result<Numeric> {
        if self.is_nan() || base.is_nan() {
            return Ok(Numeric::nan());
        }
        let (b, x) = (base.logarithm_argument()?, self.logarithm_argument()?);
        let (Some(b), Some(x)) = (b, x) else {
            return Ok(match (base.is_infinite(), self.is_infinite()) {
                (true, true) => Numeric::nan(),
                (true, false) => Numeric::zero(),
                _ => Numeric::infinity(false),
            });
        };
        let (base_weight, weight) = (ln_weight(b), ln_weight(x));
        let result_weight = weight - base_weight;
        let rscale = scale_for(result_weight, b.dscale.max(x.dscale));
        let base_scale = (rscale + result_weight - base_weight + 8).max(0);
        let scale = (rscale + result_weight - weight + 8).max(0);
        let ln_base = ln_var(b, base_scale + rscale.min(32));
        let ln_x = ln_var(x, scale + rscale.min(32));
        if ln_base.is_zero() {
            return Err(TypeError::division_by_zero());
        }
        Numeric::from_var(Var {
            dscale: rscale,
            ..ln_x.div(&ln_base, rscale, true)
        })
    }

    /// `power(self, exponent)`
    pub fn power(&self, exponent: &Numeric) -> Result<Numeric> {
        let unit = Numeric::from(1);
        if let (Repr::Finite(b), Repr::Finite(e)) = (self.repr(), exponent.repr()) {
            return power_finite(b, e);
        }
        // Infinities and NaN, by the rules of C's pow().
        if exponent.is_zero() || *self == unit {
            return Ok(unit);
        }
        if self.is_nan() || exponent.is_nan() {
            return Ok(Numeric::nan());
        }
        if self.is_zero() && exponent.is_negative() {
            return Err(power_error("zero raised to a negative power is undefined"));
        }
        match exponent.repr() {
            Repr::PosInf | Repr::NegInf => {
                let grows = exponent.is_negative() != (self.abs() > unit);
                Ok(if self.abs() == unit {
                    unit
                } else if grows {
                    Numeric::infinity(false)
                } else {
                    Numeric::zero()
                })
            }
            _ => {
                let e = exponent.clone();
                let whole = e.trunc(0)? == e;
                if self.is_negative() && !whole {
                    return Err(power_error(
                        "a negative number raised to a non-integer power yields a complex result",
                    ));
                }
                if e.is_negative() {
                    return Ok(Numeric::zero());
                }
                let odd = !e.rem(&Numeric::from(2))?.is_zero();
                Ok(Numeric::infinity(self.is_negative() && odd))
            }
        }
    }
}

fn power_finite(base: &Var, exponent: &Var) -> Result<Numeric> {
    let mut whole = exponent.clone();
    whole.trunc(0);
    let is_whole = whole.compare(exponent).is_eq();
    if base.is_zero() && exponent.negative {
        return Err(power_error("zero raised to a negative power is undefined"));
    }
    if base.negative && !base.is_zero() && !is_whole {
        return Err(power_error(
            "a negative number raised to a non-integer power yields a complex result",
        ));
    }
    if is_whole {
        let n = Numeric::from_var(whole.clone())?
            .to_i128()
            .and_then(|n| i32::try_from(n).ok());
        if let Some(n) = n {
            return power_whole(base, n, exponent.dscale);
        }
    }
    if base.is_zero() {
        return Numeric::from_var(Var {
            dscale: MIN_SIG_DIGITS,
            ..Var::zero()
        });
    }
    // base^exponent = e^(exponent × ln |base|)
    let odd = is_whole && exponent.digit_at(0) % 2 == 1;
    let magnitude = Var {
        negative: false,
        ..base.clone()
    };
    let estimate = super::convert::var_to_f64(exponent) * approximate_ln(&magnitude);
    if estimate > f64::from(MAX_RESULT_SCALE * 3) {
        return Err(overflow());
    }
    if estimate < f64::from(-MAX_RESULT_SCALE * 3) {
        return Numeric::from_var(Var {
            dscale: MAX_DISPLAY_SCALE,
            ..Var::zero()
        });
    }
    let weight = (estimate * LOG10_E) as i32;
    let rscale = scale_for(weight, base.dscale.max(exponent.dscale));
    let ln_scale = rscale + weight.max(0) + (exponent.weight.max(0) + 1) * DEC_DIGITS + 12;
    let product = ln_var(&magnitude, ln_scale).mul_round(exponent, ln_scale);
    let mut result = exp_var(&product, rscale).ok_or_else(overflow)?;
    result.negative = base.negative && odd && !result.digits.is_empty();
    Numeric::from_var(Var {
        dscale: rscale,
        ..result
    })
}

fn power_whole(base: &Var, n: i32, exponent_dscale: i32) -> Result<Numeric> {
    let magnitude = Var {
        negative: false,
        ..base.clone()
    };
    let weight = if base.is_zero() {
        0.0
    } else {
        f64::from(n) * approximate_ln(&magnitude) * LOG10_E
    };
    if weight > f64::from((super::MAX_WEIGHT + 1) * DEC_DIGITS) {
        return Err(overflow());
    }
    if weight < f64::from(-MAX_DISPLAY_SCALE - 4) {
        return Numeric::from_var(Var {
            dscale: MAX_DISPLAY_SCALE,
            ..Var::zero()
        });
    }
    let rscale = base
        .dscale
        .max(exponent_dscale)
        .clamp(MIN_SIG_DIGITS, MAX_DISPLAY_SCALE);
    let with_scale = |mut v: Var| {
        v.round(rscale);
        v.strip();
        Numeric::from_var(Var { dscale: rscale, ..v })
    };
    match n {
        0 => return with_scale(one()),
        1 => return with_scale(base.clone()),
        -1 => return with_scale(one().div(base, rscale, true)),
        2 => return with_scale(base.mul(base)),
        _ => {}
    }
    if base.is_zero() {
        return with_scale(Var::zero());
    }
    // Square and multiply, keeping enough digits after each step.
    let digits = 16 + rscale + weight.abs() as i32 + 2 * (32 - n.unsigned_abs().leading_zeros() as i32);
    let trim = |v: &mut Var| {
        let keep = digits - (v.weight + 1) * DEC_DIGITS;
        v.round(keep.max(0));
    };
    let mut left = n.unsigned_abs();
    let mut square = base.clone();
    let mut result = one();
    loop {
        if left & 1 == 1 {
            result = result.mul(&square);
            trim(&mut result);
        }
        left >>= 1;
        if left == 0 {
            break;
        }
        square = square.mul(&square);
        trim(&mut square);
        if square.weight > super::MAX_WEIGHT && n > 0 {
            return Err(overflow());
        }
        if square.is_zero() {
            break;
        }
    }
    if n < 0 {
        if result.is_zero() {
            return Err(overflow());
        }
        result = one().div(&result, rscale, true);
    }
    with_scale(result)
}
