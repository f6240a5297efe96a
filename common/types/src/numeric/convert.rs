//! Numeric to and from integers and floats.

use super::{BASE, DEC_DIGITS, Numeric, Repr, Var};
use crate::error::{Result, TypeError};
use std::sync::Arc;

impl From<i64> for Numeric {
    fn from(value: i64) -> Numeric {
        Numeric(Arc::new(Repr::Finite(Var::from_i64(value))))
    }
}

impl From<i32> for Numeric {
    fn from(value: i32) -> Numeric {
        Numeric::from(i64::from(value))
    }
}

impl From<i128> for Numeric {
    fn from(value: i128) -> Numeric {
        Numeric(Arc::new(Repr::Finite(Var::from_u128(
            value.unsigned_abs(),
            value < 0,
        ))))
    }
}

impl From<u64> for Numeric {
    fn from(value: u64) -> Numeric {
        Numeric::from(i128::from(value))
    }
}

impl Numeric {
    /// `value` × 10^-`scale`, shown with `scale` digits (at most 12).
    pub fn from_scaled(value: i128, scale: u32) -> Numeric {
        let groups = scale.div_ceil(DEC_DIGITS as u32);
        let padded = value
            .unsigned_abs()
            .saturating_mul(10u128.pow(groups * DEC_DIGITS as u32 - scale));
        let mut var = Var::from_u128(padded, value < 0);
        if !var.digits.is_empty() {
            var.weight -= groups as i32;
        }
        var.dscale = scale as i32;
        Numeric(Arc::new(Repr::Finite(var)))
    }

    /// The value of a double with its 15 significant decimal digits, as PostgreSQL converts.
    pub fn from_f64(value: f64) -> Numeric {
        from_float(value, 15)
    }

    /// The value of a float with its 6 significant decimal digits.
    pub fn from_f32(value: f32) -> Numeric {
        from_float(f64::from(value), 6)
    }

    /// The nearest double; magnitudes beyond it are 22003.
    pub fn to_f64(&self) -> Result<f64> {
        let v = self.to_f64_lossy();
        if (v.is_infinite() && !self.is_infinite()) || (v == 0.0 && !self.is_zero()) {
            return Err(TypeError::out_of_range(format!(
                "\"{self}\" is out of range for type double precision"
            )));
        }
        Ok(v)
    }

    /// The nearest double; infinite where too large.
    pub fn to_f64_lossy(&self) -> f64 {
        match self.repr() {
            Repr::NaN => f64::NAN,
            Repr::PosInf => f64::INFINITY,
            Repr::NegInf => f64::NEG_INFINITY,
            Repr::Finite(v) => var_to_f64(v),
        }
    }

    /// The value rounded to an integer of any width that `i128` holds; `None` beyond it or if not finite.
    pub fn to_i128(&self) -> Option<i128> {
        let Repr::Finite(v) = self.repr() else { return None };
        let mut v = v.clone();
        v.round(0);
        if v.digits.is_empty() {
            return Some(0);
        }
        if v.weight > 9 {
            return None;
        }
        let mut value: i128 = 0;
        for power in (0..=v.weight).rev() {
            value = value
                .checked_mul(i128::from(BASE))?
                .checked_add(i128::from(v.digit_at(power)))?;
        }
        Some(if v.negative { -value } else { value })
    }

    /// The value rounded to `bigint`; `type_name` is for the message (22003, or 0A000 for NaN and infinity).
    pub fn to_integer(&self, min: i64, max: i64, type_name: &str) -> Result<i64> {
        if self.is_nan() {
            return Err(TypeError::unsupported(format!(
                "cannot convert NaN to {type_name}"
            )));
        }
        if self.is_infinite() {
            return Err(TypeError::unsupported(format!(
                "cannot convert infinity to {type_name}"
            )));
        }
        self.to_i128()
            .and_then(|v| i64::try_from(v).ok())
            .filter(|v| (min..=max).contains(v))
            .ok_or_else(|| TypeError::out_of_range(format!("{type_name} out of range")))
    }
}

pub(super) fn var_to_f64(v: &Var) -> f64 {
    if v.digits.is_empty() {
        return 0.0;
    }
    if v.weight * DEC_DIGITS > 320 {
        return if v.negative {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        };
    }
    // Through the decimal form, so that the result is correctly rounded.
    let mut text = String::with_capacity(v.digits.len() * 4 + 8);
    super::text::write_scientific(v, &mut text);
    text.parse().unwrap_or(f64::NAN)
}

fn from_float(value: f64, digits: usize) -> Numeric {
    if value.is_nan() {
        return Numeric::nan();
    }
    if value.is_infinite() {
        return Numeric::infinity(value < 0.0);
    }
    // "%.15g": at most that many significant digits, trailing zeros dropped.
    let text = format!("{:.*e}", digits - 1, value);
    let trimmed = match text.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => {
            format!(
                "{}e{exponent}",
                mantissa.trim_end_matches('0').trim_end_matches('.')
            )
        }
        _ => text,
    };
    trimmed.parse().unwrap_or_else(|_| Numeric::nan())
}
