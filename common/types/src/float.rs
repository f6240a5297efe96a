//! Text form of floats: PostgreSQL's choice of digits and its exponent style.
//!
//! With `extra_float_digits` above 0 the digits are the shortest that read back as the same value and do not lie
//! exactly half-way to a neighbour (PostgreSQL's Ryu does not accept the bounds of the rounding interval); else
//! `%.{15+n}g`. Exponents have a sign and at least two digits and are used below 1e-4 and from 1e15 (1e6 for real).

use crate::error::{Result, TypeError};
use bytes::BufMut;
use smallvec::SmallVec;

/// Decimal digits and the exponent of the first (`d.ddd × 10^exponent`).
struct Decimal {
    digits: SmallVec<[u8; 20]>,
    exponent: i32,
}

fn decimal_of(scientific: &[u8]) -> Decimal {
    let mut digits = SmallVec::new();
    let mut exponent = 0i32;
    let mut iter = scientific.iter();
    for b in iter.by_ref() {
        match b {
            b'0'..=b'9' => digits.push(*b),
            b'e' => break,
            _ => {}
        }
    }
    let mut negative = false;
    for b in iter {
        match b {
            b'-' => negative = true,
            b'0'..=b'9' => exponent = exponent * 10 + i32::from(b - b'0'),
            _ => {}
        }
    }
    Decimal {
        digits,
        exponent: if negative { -exponent } else { exponent },
    }
}

/// A fixed buffer for `write!`.
struct Scratch(SmallVec<[u8; 48]>);

impl std::fmt::Write for Scratch {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.0.extend_from_slice(s.as_bytes());
        Ok(())
    }
}

fn scientific(value: f64, digits: Option<usize>) -> Decimal {
    use std::fmt::Write;
    let mut scratch = Scratch(SmallVec::new());
    // Writing into a SmallVec cannot fail.
    let _ = match digits {
        None => write!(scratch, "{value:e}"),
        Some(n) => write!(scratch, "{value:.n$e}"),
    };
    decimal_of(&scratch.0)
}

fn scientific_f32(value: f32, digits: Option<usize>) -> Decimal {
    use std::fmt::Write;
    let mut scratch = Scratch(SmallVec::new());
    let _ = match digits {
        None => write!(scratch, "{value:e}"),
        Some(n) => write!(scratch, "{value:.n$e}"),
    };
    decimal_of(&scratch.0)
}

/// Whether these digits stand exactly half-way between the float `mantissa × 2^exponent` and a neighbour.
fn is_midpoint(decimal: &Decimal, mantissa: u64, exponent: i32) -> bool {
    let mut significand: u128 = decimal
        .digits
        .iter()
        .fold(0u128, |n, d| n * 10 + u128::from(d - b'0'));
    let power = decimal.exponent - (decimal.digits.len() as i32 - 1);
    if significand == 0 || power.unsigned_abs() > 27 {
        return false;
    }
    // Bring both sides to odd × 2^n: 10^power = 5^power × 2^power.
    let fives = 5u128.pow(power.unsigned_abs());
    if power < 0 {
        if !significand.is_multiple_of(fives) {
            return false;
        }
        significand /= fives;
    } else {
        match significand.checked_mul(fives) {
            Some(product) => significand = product,
            None => return false,
        }
    }
    let twos = significand.trailing_zeros() as i32;
    let odd = significand >> twos;
    let halves = u128::from(mantissa) * 2;
    twos + power == exponent - 1 && (odd == halves + 1 || odd + 1 == halves)
}

fn parts_f64(value: f64) -> (u64, i32) {
    let bits = value.to_bits();
    let fraction = bits & ((1 << 52) - 1);
    match (bits >> 52) as i32 & 0x7ff {
        0 => (fraction, -1074),
        e => (fraction | 1 << 52, e - 1075),
    }
}

fn parts_f32(value: f32) -> (u64, i32) {
    let bits = value.to_bits();
    let fraction = u64::from(bits & ((1 << 23) - 1));
    match (bits >> 23) as i32 & 0xff {
        0 => (fraction, -149),
        e => (fraction | 1 << 23, e - 150),
    }
}

fn trim_zeros(mut decimal: Decimal) -> Decimal {
    while decimal.digits.len() > 1 && decimal.digits.last() == Some(&b'0') {
        decimal.digits.pop();
    }
    decimal
}

fn shortest_f64(value: f64) -> Decimal {
    let (mantissa, exponent) = parts_f64(value);
    let first = scientific(value, None);
    if !is_midpoint(&first, mantissa, exponent) {
        return first;
    }
    (first.digits.len()..17)
        .map(|n| trim_zeros(scientific(value, Some(n))))
        .find(|d| !is_midpoint(d, mantissa, exponent))
        .unwrap_or(first)
}

fn shortest_f32(value: f32) -> Decimal {
    let (mantissa, exponent) = parts_f32(value);
    let first = scientific_f32(value, None);
    if !is_midpoint(&first, mantissa, exponent) {
        return first;
    }
    (first.digits.len()..9)
        .map(|n| trim_zeros(scientific_f32(value, Some(n))))
        .find(|d| !is_midpoint(d, mantissa, exponent))
        .unwrap_or(first)
}

fn put_decimal(decimal: &Decimal, scientific_from: i32, out: &mut impl BufMut) {
    let Decimal { digits, exponent } = decimal;
    if *exponent < -4 || *exponent >= scientific_from {
        out.put_u8(digits[0]);
        if digits.len() > 1 {
            out.put_u8(b'.');
            out.put_slice(&digits[1..]);
        }
        out.put_u8(b'e');
        out.put_u8(if *exponent < 0 { b'-' } else { b'+' });
        let magnitude = exponent.unsigned_abs();
        if magnitude < 10 {
            out.put_u8(b'0');
        }
        crate::output::put_u64(u64::from(magnitude), out);
    } else if *exponent < 0 {
        out.put_slice(b"0.");
        for _ in 1..-exponent {
            out.put_u8(b'0');
        }
        out.put_slice(digits);
    } else {
        let whole = *exponent as usize + 1;
        if digits.len() <= whole {
            out.put_slice(digits);
            for _ in digits.len()..whole {
                out.put_u8(b'0');
            }
        } else {
            out.put_slice(&digits[..whole]);
            out.put_u8(b'.');
            out.put_slice(&digits[whole..]);
        }
    }
}

/// NaN, infinities, zero; true if `value` was one of them.
fn put_special(value: f64, out: &mut impl BufMut) -> bool {
    let text: &[u8] = if value.is_nan() {
        b"NaN"
    } else if value.is_infinite() {
        if value > 0.0 { b"Infinity" } else { b"-Infinity" }
    } else if value == 0.0 {
        if value.is_sign_negative() { b"-0" } else { b"0" }
    } else {
        return false;
    };
    out.put_slice(text);
    true
}

/// Appends a double as `float8out` does.
pub fn write_f64(value: f64, extra_float_digits: i32, out: &mut impl BufMut) {
    if put_special(value, out) {
        return;
    }
    if value < 0.0 {
        out.put_u8(b'-');
    }
    let value = value.abs();
    if extra_float_digits > 0 {
        put_decimal(&shortest_f64(value), 15, out);
    } else {
        let digits = (15 + extra_float_digits).max(1);
        put_decimal(
            &trim_zeros(scientific(value, Some(digits as usize - 1))),
            digits,
            out,
        );
    }
}

/// Appends a float as `float4out` does.
pub fn write_f32(value: f32, extra_float_digits: i32, out: &mut impl BufMut) {
    if put_special(f64::from(value), out) {
        return;
    }
    if value < 0.0 {
        out.put_u8(b'-');
    }
    let value = value.abs();
    if extra_float_digits > 0 {
        put_decimal(&shortest_f32(value), 6, out);
    } else {
        let digits = (6 + extra_float_digits).max(1);
        put_decimal(
            &trim_zeros(scientific_f32(value, Some(digits as usize - 1))),
            digits,
            out,
        );
    }
}

/// What a float's text may be; the number itself is read by the caller.
enum Parsed<'a> {
    Special(f64),
    Number(&'a str),
}

fn classify<'a>(text: &'a str, type_name: &str) -> Result<Parsed<'a>> {
    let syntax = || TypeError::syntax(type_name, text);
    let s = crate::input::trim_space(text);
    let (negative, unsigned) = match s.as_bytes().first() {
        Some(b'-') => (true, &s[1..]),
        Some(b'+') => (false, &s[1..]),
        Some(_) => (false, s),
        None => return Err(syntax()),
    };
    if ["inf", "infinity"]
        .iter()
        .any(|w| unsigned.eq_ignore_ascii_case(w))
    {
        return Ok(Parsed::Special(if negative {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        }));
    }
    if unsigned.eq_ignore_ascii_case("nan") {
        return Ok(Parsed::Special(f64::NAN));
    }
    // Rust's parser is stricter than strtod only in hexadecimal, which nobody writes.
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(syntax());
    }
    Ok(Parsed::Number(s))
}

/// Whether a number that read as zero was written with a digit other than 0.
fn underflowed(s: &str) -> bool {
    s.bytes()
        .take_while(|b| !matches!(b, b'e' | b'E'))
        .any(|b| matches!(b, b'1'..=b'9'))
}

/// Reads a double as `float8in` does.
pub fn parse_f64(text: &str) -> Result<f64> {
    const NAME: &str = "double precision";
    match classify(text, NAME)? {
        Parsed::Special(v) => Ok(v),
        Parsed::Number(s) => {
            let v: f64 = s.parse().map_err(|_| TypeError::syntax(NAME, text))?;
            if v.is_infinite() || (v == 0.0 && underflowed(s)) {
                return Err(TypeError::out_of_range(format!(
                    "\"{s}\" is out of range for type {NAME}"
                )));
            }
            Ok(v)
        }
    }
}

/// Reads a float as `float4in` does.
pub fn parse_f32(text: &str) -> Result<f32> {
    const NAME: &str = "real";
    match classify(text, NAME)? {
        Parsed::Special(v) => Ok(v as f32),
        Parsed::Number(s) => {
            let v: f32 = s.parse().map_err(|_| TypeError::syntax(NAME, text))?;
            if v.is_infinite() || (v == 0.0 && underflowed(s)) {
                return Err(TypeError::out_of_range(format!(
                    "\"{s}\" is out of range for type {NAME}"
                )));
            }
            Ok(v)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(v: f64) -> String {
        let mut out = Vec::new();
        write_f64(v, 1, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn digits_are_those_of_float8out() {
        for (v, expected) in [
            (1e23, "9.999999999999999e+22"),
            (9007199254740993.0, "9.007199254740992e+15"),
            (5e-324, "5e-324"),
            (1e15, "1e+15"),
            (1e14, "100000000000000"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (123456.789, "123456.789"),
            (-0.0, "-0"),
        ] {
            assert_eq!(text(v), expected);
        }
    }

    #[test]
    fn digits_are_those_of_float4out() {
        for (v, expected) in [
            (1e6f32, "1e+06"),
            (123456.0, "123456"),
            (1.175_494_4e-38, "1.1754944e-38"),
            (16777216.0, "1.6777216e+07"),
            (2e-45, "1e-45"),
        ] {
            let mut out = Vec::new();
            write_f32(v, 1, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn fewer_digits_on_request() {
        let mut out = Vec::new();
        write_f64(0.1 + 0.2, 0, &mut out);
        assert_eq!(out, b"0.3");
    }
}
