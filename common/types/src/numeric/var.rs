//! The working form of a finite numeric: sign, weight, digits, and exact operations on magnitudes.

use super::{BASE, DEC_DIGITS};
use smallvec::SmallVec;
use std::cmp::Ordering;

/// Digits in base 10⁴, most significant first.
pub(crate) type Digits = SmallVec<[i16; 8]>;

/// A finite decimal. While being computed it may have zero digits at either end; [`Var::strip`] removes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Var {
    pub(crate) negative: bool,
    /// Power of 10000 of the first digit.
    pub(crate) weight: i32,
    /// Decimal digits shown after the point.
    pub(crate) dscale: i32,
    pub(crate) digits: Digits,
}

impl Var {
    pub(crate) fn zero() -> Var {
        Var {
            negative: false,
            weight: 0,
            dscale: 0,
            digits: Digits::new(),
        }
    }

    pub(crate) fn from_u128(mut value: u128, negative: bool) -> Var {
        let mut digits = Digits::new();
        while value > 0 {
            digits.push((value % BASE as u128) as i16);
            value /= BASE as u128;
        }
        digits.reverse();
        let mut var = Var {
            negative,
            weight: digits.len() as i32 - 1,
            dscale: 0,
            digits,
        };
        var.strip();
        var
    }

    pub(crate) fn from_i64(value: i64) -> Var {
        Var::from_u128(u128::from(value.unsigned_abs()), value < 0)
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.digits.iter().all(|d| *d == 0)
    }

    /// The digit worth 10000^`power`.
    pub(crate) fn digit_at(&self, power: i32) -> i32 {
        let index = i64::from(self.weight) - i64::from(power);
        usize::try_from(index)
            .ok()
            .and_then(|i| self.digits.get(i))
            .map_or(0, |d| i32::from(*d))
    }

    /// Removes zero digits at both ends; zero becomes the canonical zero (its dscale stays).
    pub(crate) fn strip(&mut self) {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        let leading = self.digits.iter().take_while(|d| **d == 0).count();
        if leading > 0 {
            self.digits.drain(..leading);
            self.weight -= leading as i32;
        }
        if self.digits.is_empty() {
            self.negative = false;
            self.weight = 0;
        }
    }

    /// Order by value.
    pub(crate) fn compare(&self, other: &Var) -> Ordering {
        match (self.is_zero(), other.is_zero()) {
            (true, true) => return Ordering::Equal,
            (true, false) => {
                return if other.negative {
                    Ordering::Greater
                } else {
                    Ordering::Less
                };
            }
            (false, true) => {
                return if self.negative {
                    Ordering::Less
                } else {
                    Ordering::Greater
                };
            }
            (false, false) => {}
        }
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.compare_abs(other),
            (true, true) => other.compare_abs(self),
        }
    }

    /// Order of the magnitudes.
    pub(crate) fn compare_abs(&self, other: &Var) -> Ordering {
        let skip = |v: &Var| v.digits.iter().take_while(|d| **d == 0).count();
        let (sa, sb) = (skip(self), skip(other));
        let (a, b) = (&self.digits[sa..], &other.digits[sb..]);
        if a.is_empty() || b.is_empty() {
            return a.iter().any(|d| *d != 0).cmp(&b.iter().any(|d| *d != 0));
        }
        (self.weight - sa as i32)
            .cmp(&(other.weight - sb as i32))
            .then_with(|| {
                for i in 0..a.len().max(b.len()) {
                    let (x, y) = (a.get(i).copied().unwrap_or(0), b.get(i).copied().unwrap_or(0));
                    if x != y {
                        return x.cmp(&y);
                    }
                }
                Ordering::Equal
            })
    }

    /// Rounds half away from zero to `rscale` decimal digits after the point (negative: before it).
    pub(crate) fn round(&mut self, rscale: i32) {
        self.cut(rscale, true);
    }

    /// Cuts to `rscale` decimal digits after the point, towards zero.
    pub(crate) fn trunc(&mut self, rscale: i32) {
        self.cut(rscale, false);
    }

    fn cut(&mut self, rscale: i32, round: bool) {
        self.dscale = rscale.max(0);
        // Decimal digits wanted, counted from the first digit's top.
        let decimals = (self.weight + 1) * DEC_DIGITS + rscale;
        if decimals < 0 || (decimals == 0 && !round) {
            *self = Var {
                dscale: self.dscale,
                ..Var::zero()
            };
            return;
        }
        let keep = ((decimals + DEC_DIGITS - 1) / DEC_DIGITS) as usize;
        let within = decimals % DEC_DIGITS;
        if keep > self.digits.len() || (keep == self.digits.len() && within == 0) {
            return;
        }
        let mut carry = 0;
        if within == 0 {
            if round {
                carry = i32::from(self.digits.get(keep).is_some_and(|d| i32::from(*d) >= BASE / 2));
            }
            self.digits.truncate(keep);
        } else {
            self.digits.truncate(keep);
            let unit = 10i32.pow((DEC_DIGITS - within) as u32);
            if let Some(last) = self.digits.last_mut() {
                let extra = i32::from(*last) % unit;
                *last -= extra as i16;
                if round && extra >= unit / 2 {
                    let bumped = i32::from(*last) + unit;
                    carry = i32::from(bumped >= BASE);
                    *last = (bumped % BASE) as i16;
                    if carry == 1 {
                        self.carry_from(keep - 1);
                    }
                    carry = 0;
                }
            }
        }
        if carry == 1 {
            self.carry_from(keep);
        }
        self.strip();
    }

    /// Adds one to the digit before index `end`.
    fn carry_from(&mut self, end: usize) {
        for i in (0..end).rev() {
            if i32::from(self.digits[i]) + 1 < BASE {
                self.digits[i] += 1;
                return;
            }
            self.digits[i] = 0;
        }
        self.digits.insert(0, 1);
        self.weight += 1;
    }

    /// |self| + |other|, positive, exact.
    pub(crate) fn add_abs(&self, other: &Var) -> Var {
        let low = |v: &Var| v.weight - v.digits.len() as i32 + 1;
        let top = self.weight.max(other.weight) + 1;
        let bottom = low(self).min(low(other));
        let mut digits: Digits = SmallVec::from_elem(0, (top - bottom + 1).max(0) as usize);
        let mut carry = 0;
        for i in (0..digits.len()).rev() {
            let power = top - i as i32;
            let sum = self.digit_at(power) + other.digit_at(power) + carry;
            digits[i] = (sum % BASE) as i16;
            carry = sum / BASE;
        }
        let mut var = Var {
            negative: false,
            weight: top,
            dscale: self.dscale.max(other.dscale),
            digits,
        };
        var.strip();
        var
    }

    /// |self| − |other| for |self| ≥ |other|, positive, exact.
    pub(crate) fn sub_abs(&self, other: &Var) -> Var {
        let low = |v: &Var| v.weight - v.digits.len() as i32 + 1;
        let top = self.weight.max(other.weight);
        let bottom = low(self).min(low(other));
        let mut digits: Digits = SmallVec::from_elem(0, (top - bottom + 1).max(0) as usize);
        let mut borrow = 0;
        for i in (0..digits.len()).rev() {
            let power = top - i as i32;
            let mut diff = self.digit_at(power) - other.digit_at(power) - borrow;
            borrow = i32::from(diff < 0);
            diff += borrow * BASE;
            digits[i] = diff as i16;
        }
        let mut var = Var {
            negative: false,
            weight: top,
            dscale: self.dscale.max(other.dscale),
            digits,
        };
        var.strip();
        var
    }

    pub(crate) fn add(&self, other: &Var) -> Var {
        let dscale = self.dscale.max(other.dscale);
        let mut result = if self.negative == other.negative {
            let mut sum = self.add_abs(other);
            sum.negative = self.negative;
            sum
        } else {
            match self.compare_abs(other) {
                Ordering::Equal => Var::zero(),
                Ordering::Greater => Var {
                    negative: self.negative,
                    ..self.sub_abs(other)
                },
                Ordering::Less => Var {
                    negative: other.negative,
                    ..other.sub_abs(self)
                },
            }
        };
        result.dscale = dscale;
        result.strip();
        result
    }

    pub(crate) fn sub(&self, other: &Var) -> Var {
        self.add(&other.negated())
    }

    pub(crate) fn negated(&self) -> Var {
        Var {
            negative: !self.negative && !self.digits.is_empty(),
            ..self.clone()
        }
    }

    /// The exact product; its dscale is the sum of both.
    pub(crate) fn mul(&self, other: &Var) -> Var {
        let (n, m) = (self.digits.len(), other.digits.len());
        let dscale = self.dscale + other.dscale;
        if n == 0 || m == 0 {
            return Var {
                dscale,
                ..Var::zero()
            };
        }
        // 64-bit sums: no carry is needed inside, 10^8 × the digit count stays far below 2^63.
        let mut sums: SmallVec<[u64; 16]> = SmallVec::from_elem(0, n + m);
        for (i, a) in self.digits.iter().enumerate() {
            if *a == 0 {
                continue;
            }
            for (sum, b) in sums[i + 1..].iter_mut().zip(&other.digits) {
                *sum += *a as u64 * *b as u64;
            }
        }
        let mut carry = 0;
        let mut digits: Digits = SmallVec::from_elem(0, n + m);
        for i in (0..n + m).rev() {
            let value = sums[i] + carry;
            digits[i] = (value % BASE as u64) as i16;
            carry = value / BASE as u64;
        }
        let negative = self.negative != other.negative;
        let mut var = Var {
            negative,
            weight: self.weight + other.weight + 1,
            dscale,
            digits,
        };
        var.strip();
        var
    }

    /// The product rounded to `rscale`, dropping digits that cannot matter first.
    pub(crate) fn mul_round(&self, other: &Var, rscale: i32) -> Var {
        let mut product = self.mul(other);
        product.round(rscale);
        product
    }

    /// `self / divisor` to `rscale` decimal digits, rounded or cut. The divisor is not zero.
    pub(crate) fn div(&self, divisor: &Var, rscale: i32, round: bool) -> Var {
        let (mut a, mut b) = (self.clone(), divisor.clone());
        a.strip();
        b.strip();
        if a.digits.is_empty() || b.digits.is_empty() {
            return Var {
                dscale: rscale.max(0),
                ..Var::zero()
            };
        }
        let negative = a.negative != b.negative;
        // Quotient digits down to 10000^-(fraction digits), one more to round by.
        let weight = a.weight - b.weight;
        let fraction = (rscale + DEC_DIGITS - 1).div_euclid(DEC_DIGITS) + 1;
        let wanted = weight + 1 + fraction;
        if wanted <= 0 {
            return Var {
                dscale: rscale.max(0),
                ..Var::zero()
            };
        }
        let digits = long_division(&a.digits, &b.digits, wanted as usize);
        let mut var = Var {
            negative,
            weight,
            dscale: 0,
            digits,
        };
        if round {
            var.round(rscale);
        } else {
            var.trunc(rscale);
        }
        var.strip();
        var
    }

    /// `self` − trunc(`self` / `divisor`) × `divisor`, the sign of `self`.
    pub(crate) fn rem(&self, divisor: &Var) -> Var {
        let quotient = self.div(divisor, 0, false);
        let mut rem = self.sub(&quotient.mul(divisor));
        rem.dscale = self.dscale.max(divisor.dscale);
        rem.strip();
        rem
    }
}

/// The first `wanted` digits of a/b as fractions with equal weight (a₀.a₁a₂… / b₀.b₁b₂…, in base 10⁴), cut, not
/// rounded. Knuth's algorithm D.
fn long_division(a: &[i16], b: &[i16], wanted: usize) -> Digits {
    let mut quotient = Digits::with_capacity(wanted);
    if b.len() == 1 {
        let divisor = i64::from(b[0]);
        let mut rest = 0i64;
        for i in 0..wanted {
            let value = rest * i64::from(BASE) + a.get(i).map_or(0, |d| i64::from(*d));
            quotient.push((value / divisor) as i16);
            rest = value % divisor;
        }
        return quotient;
    }
    let n = b.len();
    // Scale so that the divisor's first digit is at least BASE/2.
    let scale = i64::from(BASE) / (i64::from(b[0]) + 1);
    let scaled = |digits: &[i16], len: usize| -> Vec<i64> {
        // One leading slot for the carry.
        let mut out = vec![0i64; len + 1];
        let mut carry = 0;
        for i in (0..len).rev() {
            let value = digits.get(i).map_or(0, |d| i64::from(*d)) * scale + carry;
            out[i + 1] = value % i64::from(BASE);
            carry = value / i64::from(BASE);
        }
        out[0] = carry;
        out
    };
    let divisor = scaled(b, n);
    let divisor = &divisor[1..];
    let mut rest = scaled(a, wanted + n);
    for i in 0..wanted {
        let head = rest[i] * i64::from(BASE) + rest[i + 1];
        let mut guess = (head / divisor[0]).min(i64::from(BASE) - 1);
        let mut left = head - guess * divisor[0];
        while left < i64::from(BASE) && guess * divisor[1] > left * i64::from(BASE) + rest[i + 2] {
            guess -= 1;
            left += divisor[0];
        }
        if guess > 0 {
            let mut borrow = 0;
            for j in (0..n).rev() {
                let value = rest[i + 1 + j] - guess * divisor[j] - borrow;
                rest[i + 1 + j] = value.rem_euclid(i64::from(BASE));
                borrow = -value.div_euclid(i64::from(BASE));
            }
            rest[i] -= borrow;
            if rest[i] < 0 {
                guess -= 1;
                let mut carry = 0;
                for j in (0..n).rev() {
                    let value = rest[i + 1 + j] + divisor[j] + carry;
                    rest[i + 1 + j] = value % i64::from(BASE);
                    carry = value / i64::from(BASE);
                }
                rest[i] += carry;
            }
        }
        quotient.push(guess as i16);
    }
    quotient
}
