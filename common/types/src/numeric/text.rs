//! The decimal text form, as `numeric_in` reads and `numeric_out` prints it.

use super::{BASE, DEC_DIGITS, MAX_DSCALE, MAX_WEIGHT, Numeric, Repr, Var, var::Digits};
use crate::error::{Result, TypeError};
use bytes::BufMut;
use std::fmt;
use std::str::FromStr;

impl FromStr for Numeric {
    type Err = TypeError;

    /// Reads a decimal number with optional exponent, `NaN` or `[+-]Infinity`/`inf`; blanks around are skipped.
    fn from_str(input: &str) -> Result<Numeric> {
        let syntax = || TypeError::syntax("numeric", input);
        let s = input.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
        let (negative, unsigned) = match s.as_bytes().first() {
            Some(b'-') => (true, &s[1..]),
            Some(b'+') => (false, &s[1..]),
            _ => (false, s),
        };
        let first = unsigned.as_bytes().first().copied().ok_or_else(syntax)?;
        if !first.is_ascii_digit() && first != b'.' {
            if s.eq_ignore_ascii_case("nan") {
                return Ok(Numeric::nan());
            }
            if unsigned.eq_ignore_ascii_case("infinity") || unsigned.eq_ignore_ascii_case("inf") {
                return Ok(Numeric::infinity(negative));
            }
            return Err(syntax());
        }
        let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
            Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
            None => (unsigned, None),
        };
        let exponent = match exponent {
            None => 0i64,
            Some(e) => {
                let digits = e.strip_prefix(['+', '-']).unwrap_or(e);
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(syntax());
                }
                let value: i64 = e.parse().unwrap_or(if e.starts_with('-') {
                    i64::MIN / 4
                } else {
                    i64::MAX / 4
                });
                if value.abs() >= i64::from(i32::MAX / 2) {
                    return Err(super::overflow());
                }
                value
            }
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return Err(syntax());
        }
        let decimals = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0');
        // Position of the point after the first decimal digit.
        let point = whole.len() as i64 + exponent;
        let dscale = (fraction.len() as i64 - exponent).max(0);
        let var = from_decimals(decimals, whole.len() + fraction.len(), point, negative);
        if var.weight > MAX_WEIGHT || dscale > i64::from(MAX_DSCALE) {
            return Err(super::overflow());
        }
        Numeric::from_var(Var {
            dscale: dscale as i32,
            ..var
        })
    }
}

/// Groups decimal digits into base 10⁴, `point` of them before the decimal point.
fn from_decimals(decimals: impl Iterator<Item = u8>, count: usize, point: i64, negative: bool) -> Var {
    let step = i64::from(DEC_DIGITS);
    let weight = (point + step - 1).div_euclid(step) - 1;
    // Zeros before the first decimal digit inside its group.
    let lead = (weight + 1) * step - point;
    let mut digits = Digits::with_capacity(count / DEC_DIGITS as usize + 2);
    let (mut group, mut filled) = (0i32, lead);
    for d in decimals {
        group = group * 10 + i32::from(d);
        filled += 1;
        if filled == step {
            digits.push(group as i16);
            (group, filled) = (0, 0);
        }
    }
    if filled > 0 {
        for _ in filled..step {
            group *= 10;
        }
        digits.push(group as i16);
    }
    let leading = digits.iter().take_while(|d| **d == 0).count();
    // Weights outside i32 are refused by the caller; zero has none.
    let weight = if leading == digits.len() {
        0
    } else {
        weight.clamp(i64::from(i32::MIN / 2), i64::from(i32::MAX / 2))
    };
    let mut var = Var {
        negative,
        weight: weight as i32,
        dscale: 0,
        digits,
    };
    var.strip();
    var
}

impl Numeric {
    /// Appends the text form.
    pub fn write(&self, out: &mut impl BufMut) {
        match self.repr() {
            Repr::NaN => out.put_slice(b"NaN"),
            Repr::PosInf => out.put_slice(b"Infinity"),
            Repr::NegInf => out.put_slice(b"-Infinity"),
            Repr::Finite(v) => write_var(v, out),
        }
    }
}

fn group_digits(group: i32) -> [u8; 4] {
    let d = group as u32;
    [1000, 100, 10, 1].map(|unit| b'0' + (d / unit % 10) as u8)
}

fn write_var(v: &Var, out: &mut impl BufMut) {
    if v.negative {
        out.put_u8(b'-');
    }
    if v.weight < 0 || v.digits.is_empty() {
        out.put_u8(b'0');
    } else {
        let head = group_digits(v.digit_at(v.weight));
        let zeros = head[..3].iter().take_while(|b| **b == b'0').count();
        out.put_slice(&head[zeros..]);
        for power in (0..v.weight).rev() {
            out.put_slice(&group_digits(v.digit_at(power)));
        }
    }
    if v.dscale > 0 {
        out.put_u8(b'.');
        let mut left = v.dscale as usize;
        let mut power = -1;
        while left > 0 {
            let take = left.min(4);
            out.put_slice(&group_digits(v.digit_at(power))[..take]);
            left -= take;
            power -= 1;
        }
    }
}

/// `d.ddde±x` with all digits, for conversion to float.
pub(super) fn write_scientific(v: &Var, out: &mut String) {
    if v.negative {
        out.push('-');
    }
    // The digits as one integer, times 10000^(weight - n + 1).
    for d in &v.digits {
        let d = (i32::from(*d) % BASE) as u32;
        for unit in [1000, 100, 10, 1] {
            out.push(char::from(b'0' + (d / unit % 10) as u8));
        }
    }
    let exponent = (v.weight - v.digits.len() as i32 + 1) * DEC_DIGITS;
    out.push('e');
    out.push_str(&exponent.to_string());
}

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::with_capacity(24);
        self.write(&mut out);
        f.write_str(&String::from_utf8_lossy(&out))
    }
}
