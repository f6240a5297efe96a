//! + − × ÷ %, rounding and the like, with PostgreSQL's display scales and its treatment of NaN and infinities.

use super::{MAX_DISPLAY_SCALE, MAX_DSCALE, MAX_RESULT_SCALE, MIN_SIG_DIGITS, Numeric, Repr, Var};
use crate::error::{Result, TypeError};
use towline_base::SqlState;

/// -1, 0 or 1; infinities have a sign, NaN counts as 1.
fn sign_of(n: &Numeric) -> i32 {
    if n.is_zero() {
        0
    } else if n.is_negative() {
        -1
    } else {
        1
    }
}

/// The scale of a quotient: at least 16 significant digits and neither input's scale lost.
pub(crate) fn division_scale(a: &Var, b: &Var) -> i32 {
    let head = |v: &Var| {
        let zeros = v.digits.iter().take_while(|d| **d == 0).count();
        v.digits
            .get(zeros)
            .map_or((0, 0), |d| (v.weight - zeros as i32, i32::from(*d)))
    };
    let ((weight_a, first_a), (weight_b, first_b)) = (head(a), head(b));
    let mut weight = weight_a - weight_b;
    if first_a <= first_b {
        weight -= 1;
    }
    (MIN_SIG_DIGITS - weight * super::DEC_DIGITS)
        .max(a.dscale)
        .max(b.dscale)
        .clamp(0, MAX_DISPLAY_SCALE)
}

impl Numeric {
    /// `self + other`
    pub fn add(&self, other: &Numeric) -> Result<Numeric> {
        match (self.repr(), other.repr()) {
            (Repr::Finite(a), Repr::Finite(b)) => Numeric::from_var(a.add(b)),
            (Repr::NaN, _) | (_, Repr::NaN) => Ok(Numeric::nan()),
            (Repr::PosInf, Repr::NegInf) | (Repr::NegInf, Repr::PosInf) => Ok(Numeric::nan()),
            (Repr::PosInf | Repr::NegInf, _) => Ok(self.clone()),
            _ => Ok(other.clone()),
        }
    }

    /// `self - other`
    pub fn sub(&self, other: &Numeric) -> Result<Numeric> {
        self.add(&other.neg())
    }

    /// `-self`
    pub fn neg(&self) -> Numeric {
        match self.repr() {
            Repr::Finite(v) => Numeric(std::sync::Arc::new(Repr::Finite(v.negated()))),
            Repr::NaN => Numeric::nan(),
            Repr::PosInf => Numeric::infinity(true),
            Repr::NegInf => Numeric::infinity(false),
        }
    }

    /// `self * other`
    pub fn mul(&self, other: &Numeric) -> Result<Numeric> {
        match (self.repr(), other.repr()) {
            (Repr::Finite(a), Repr::Finite(b)) => {
                let mut product = a.mul(b);
                if product.dscale > MAX_DSCALE {
                    product.round(MAX_DSCALE);
                }
                Numeric::from_var(product)
            }
            (Repr::NaN, _) | (_, Repr::NaN) => Ok(Numeric::nan()),
            _ => Ok(match sign_of(self) * sign_of(other) {
                0 => Numeric::nan(),
                s => Numeric::infinity(s < 0),
            }),
        }
    }

    /// `self / other`; 22012 for a zero divisor.
    pub fn div(&self, other: &Numeric) -> Result<Numeric> {
        match (self.repr(), other.repr()) {
            (Repr::Finite(a), Repr::Finite(b)) => {
                if b.is_zero() {
                    return Err(TypeError::division_by_zero());
                }
                Numeric::from_var(a.div(b, division_scale(a, b), true))
            }
            (Repr::NaN, _) | (_, Repr::NaN) => Ok(Numeric::nan()),
            (Repr::Finite(_), _) => Ok(Numeric::zero()),
            (_, Repr::Finite(_)) => match sign_of(other) {
                0 => Err(TypeError::division_by_zero()),
                s => Ok(Numeric::infinity(sign_of(self) * s < 0)),
            },
            _ => Ok(Numeric::nan()),
        }
    }

    /// `div(self, other)`: the quotient cut to an integer.
    pub fn div_trunc(&self, other: &Numeric) -> Result<Numeric> {
        match (self.repr(), other.repr()) {
            (Repr::Finite(a), Repr::Finite(b)) => {
                if b.is_zero() {
                    return Err(TypeError::division_by_zero());
                }
                Numeric::from_var(a.div(b, 0, false))
            }
            _ => self.div(other),
        }
    }

    /// `self % other`, with the sign of `self`; 22012 for a zero divisor.
    pub fn rem(&self, other: &Numeric) -> Result<Numeric> {
        match (self.repr(), other.repr()) {
            (Repr::Finite(a), Repr::Finite(b)) => {
                if b.is_zero() {
                    return Err(TypeError::division_by_zero());
                }
                Numeric::from_var(a.rem(b))
            }
            (Repr::NaN, _) | (_, Repr::NaN) => Ok(Numeric::nan()),
            (Repr::Finite(_), _) => Ok(self.clone()),
            _ if other.is_zero() => Err(TypeError::division_by_zero()),
            _ => Ok(Numeric::nan()),
        }
    }

    /// `abs(self)`
    pub fn abs(&self) -> Numeric {
        if self.is_negative() {
            self.neg()
        } else {
            self.clone()
        }
    }

    /// `sign(self)`: -1, 0, 1 or NaN.
    pub fn sign(&self) -> Numeric {
        if self.is_nan() {
            Numeric::nan()
        } else {
            Numeric::from(i64::from(sign_of(self)))
        }
    }

    /// `round(self, scale)`, half away from zero.
    pub fn round(&self, scale: i32) -> Result<Numeric> {
        self.with_finite(|v| v.round(scale.clamp(-MAX_RESULT_SCALE, MAX_RESULT_SCALE)))
    }

    /// `trunc(self, scale)`, towards zero.
    pub fn trunc(&self, scale: i32) -> Result<Numeric> {
        self.with_finite(|v| v.trunc(scale.clamp(-MAX_RESULT_SCALE, MAX_RESULT_SCALE)))
    }

    /// `floor(self)`
    pub fn floor(&self) -> Result<Numeric> {
        self.whole(true)
    }

    /// `ceil(self)`
    pub fn ceil(&self) -> Result<Numeric> {
        self.whole(false)
    }

    fn whole(&self, down: bool) -> Result<Numeric> {
        self.with_finite(|v| {
            let mut cut = v.clone();
            cut.trunc(0);
            if v.negative == down && cut.compare(v).is_ne() {
                cut = if down {
                    cut.sub(&Var::from_i64(1))
                } else {
                    cut.add(&Var::from_i64(1))
                };
            }
            *v = cut;
        })
    }

    /// The value without trailing zeros after the point (`trim_scale`).
    pub fn trim_scale(&self) -> Result<Numeric> {
        self.with_finite(|v| v.dscale = min_scale(v))
    }

    /// The smallest scale that shows the value exactly (`min_scale`).
    pub fn min_scale(&self) -> Option<i32> {
        match self.repr() {
            Repr::Finite(v) => Some(min_scale(v)),
            _ => None,
        }
    }

    fn with_finite(&self, change: impl FnOnce(&mut Var)) -> Result<Numeric> {
        match self.repr() {
            Repr::Finite(v) => {
                let mut var = v.clone();
                change(&mut var);
                Numeric::from_var(var)
            }
            _ => Ok(self.clone()),
        }
    }

    /// Fits the value into `numeric(precision, scale)`: rounds, then refuses too many digits before the point (22003).
    pub fn fit(&self, precision: i32, scale: i32) -> Result<Numeric> {
        let refuse = |detail: String| {
            Err(
                TypeError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow")
                    .with_detail(detail),
            )
        };
        let var = match self.repr() {
            Repr::NaN => return Ok(self.clone()),
            Repr::PosInf | Repr::NegInf => {
                return refuse(format!(
                    "A field with precision {precision}, scale {scale} cannot hold an infinite value."
                ));
            }
            Repr::Finite(v) => v,
        };
        let mut var = var.clone();
        var.round(scale);
        let limit = precision - scale;
        if let Some(first) = var.digits.iter().position(|d| *d != 0) {
            let head = i32::from(var.digits[first]);
            let decimals = (var.weight - first as i32) * super::DEC_DIGITS
                + match head {
                    1000.. => 4,
                    100.. => 3,
                    10.. => 2,
                    _ => 1,
                };
            if decimals > limit {
                let bound = if limit == 0 {
                    "1".to_string()
                } else {
                    format!("10^{limit}")
                };
                return refuse(format!(
                    "A field with precision {precision}, scale {scale} must round to an absolute value less than {bound}."
                ));
            }
        }
        Numeric::from_var(var)
    }

    /// `gcd(self, other)`
    pub fn gcd(&self, other: &Numeric) -> Result<Numeric> {
        let (Repr::Finite(a), Repr::Finite(b)) = (self.repr(), other.repr()) else {
            return Ok(Numeric::nan());
        };
        let dscale = a.dscale.max(b.dscale);
        let (mut a, mut b) = (a.clone(), b.clone());
        while !b.is_zero() {
            let rest = a.rem(&b);
            a = b;
            b = rest;
        }
        a.negative = false;
        a.dscale = dscale;
        Numeric::from_var(a)
    }
}

fn min_scale(v: &Var) -> i32 {
    let Some(last) = v.digits.last() else { return 0 };
    let mut scale = (v.digits.len() as i32 - v.weight - 1) * super::DEC_DIGITS;
    if scale > 0 {
        let mut digit = *last;
        while digit % 10 == 0 && digit != 0 {
            scale -= 1;
            digit /= 10;
        }
    }
    scale.max(0)
}
