//! `numeric`: exact decimals in base 10⁴, PostgreSQL's representation and its rules for the scale of results.
//!
//! A finite value is `digits` in base 10⁴ with the first digit worth 10000^`weight`, plus `dscale`, the number of
//! decimal digits shown after the point. Invariants of a finished value: no leading or trailing zero digit, zero has
//! no digits, weight 0 and no sign, `dscale` ≤ 16383. The submodules: `arith` + − × ÷ % and rounding; `math` roots,
//! exponentials and logarithms; `text` the decimal form; `codec` the on-disk and wire forms; `convert` to and from
//! integers and floats.

mod arith;
mod codec;
mod convert;
mod math;
mod text;
mod var;

pub(crate) use var::Var;

use crate::error::{Result, TypeError};
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The base of the digits.
pub(crate) const BASE: i32 = 10_000;
/// Decimal digits per digit.
pub(crate) const DEC_DIGITS: i32 = 4;
/// The largest display scale the on-disk format holds.
pub(crate) const MAX_DSCALE: i32 = 0x3fff;
/// The largest weight the on-disk format holds.
pub(crate) const MAX_WEIGHT: i32 = i16::MAX as i32;
/// Fewest significant digits of a quotient, root or logarithm.
pub(crate) const MIN_SIG_DIGITS: i32 = 16;
/// Largest display scale that a computation chooses by itself.
pub(crate) const MAX_DISPLAY_SCALE: i32 = 1000;
/// Largest scale of `round` and `trunc`, and bound of exponents in `exp` and `power`.
pub(crate) const MAX_RESULT_SCALE: i32 = 2000;

/// An exact decimal, NaN or an infinity. Shared, so that a copy costs no allocation.
#[derive(Clone)]
pub struct Numeric(Arc<Repr>);

#[derive(Clone, Debug)]
pub(crate) enum Repr {
    Finite(Var),
    NaN,
    PosInf,
    NegInf,
}

impl Numeric {
    /// Not a number.
    pub fn nan() -> Numeric {
        Numeric(Arc::new(Repr::NaN))
    }

    /// Positive or negative infinity.
    pub fn infinity(negative: bool) -> Numeric {
        Numeric(Arc::new(if negative { Repr::NegInf } else { Repr::PosInf }))
    }

    /// Zero with scale 0.
    pub fn zero() -> Numeric {
        Numeric(Arc::new(Repr::Finite(Var::zero())))
    }

    pub(crate) fn repr(&self) -> &Repr {
        &self.0
    }

    /// Finishes a computed value: strips zero digits and refuses what the format cannot hold (22003).
    pub(crate) fn from_var(mut var: Var) -> Result<Numeric> {
        var.strip();
        if var.weight > MAX_WEIGHT || var.dscale > MAX_DSCALE {
            return Err(overflow());
        }
        if var.weight < -MAX_WEIGHT {
            // Smaller than anything the format holds.
            var = Var {
                dscale: var.dscale,
                ..Var::zero()
            };
        }
        Ok(Numeric(Arc::new(Repr::Finite(var))))
    }

    /// Whether this is NaN.
    pub fn is_nan(&self) -> bool {
        matches!(self.repr(), Repr::NaN)
    }

    /// Whether this is an infinity.
    pub fn is_infinite(&self) -> bool {
        matches!(self.repr(), Repr::PosInf | Repr::NegInf)
    }

    /// Whether this is exactly zero.
    pub fn is_zero(&self) -> bool {
        matches!(self.repr(), Repr::Finite(v) if v.digits.is_empty())
    }

    /// Whether this is below zero.
    pub fn is_negative(&self) -> bool {
        match self.repr() {
            Repr::Finite(v) => v.negative,
            Repr::NegInf => true,
            _ => false,
        }
    }

    /// Number of decimal digits after the point; none for NaN and the infinities.
    pub fn scale(&self) -> Option<i32> {
        match self.repr() {
            Repr::Finite(v) => Some(v.dscale),
            _ => None,
        }
    }
}

/// 22003 `value overflows numeric format`.
pub(crate) fn overflow() -> TypeError {
    TypeError::out_of_range("value overflows numeric format")
}

impl std::fmt::Debug for Numeric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Numeric({self})")
    }
}

/// PostgreSQL's order: -Infinity < numbers < Infinity < NaN; scale does not matter.
impl Ord for Numeric {
    fn cmp(&self, other: &Self) -> Ordering {
        let class = |n: &Numeric| match n.repr() {
            Repr::NegInf => 0,
            Repr::Finite(_) => 1,
            Repr::PosInf => 2,
            Repr::NaN => 3,
        };
        match (self.repr(), other.repr()) {
            (Repr::Finite(a), Repr::Finite(b)) => a.compare(b),
            _ => class(self).cmp(&class(other)),
        }
    }
}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Numeric {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Numeric {}

impl Hash for Numeric {
    fn hash<H: Hasher>(&self, h: &mut H) {
        match self.repr() {
            Repr::Finite(v) => (v.negative, v.weight, &v.digits).hash(h),
            Repr::NaN => h.write_u8(1),
            Repr::PosInf => h.write_u8(2),
            Repr::NegInf => h.write_u8(3),
        }
    }
}
