//! The text of `interval`: reading PostgreSQL's, SQL's and ISO 8601's forms, printing in style `postgres`.

use super::format::{put_2, put_fraction};
use super::{DAY, HOUR, MINUTE, SECOND};
use crate::error::{Result, TypeError};
use crate::interval::Interval;
use crate::output::put_i64;
use bytes::BufMut;
use towline_base::SqlState;

const NAME: &str = "interval";

/// A unit of time in an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microsecond.
    Microsecond,
    /// Millisecond.
    Millisecond,
    /// Second.
    Second,
    /// Minute.
    Minute,
    /// Hour.
    Hour,
    /// Day.
    Day,
    /// Week.
    Week,
    /// Month.
    Month,
    /// Quarter.
    Quarter,
    /// Year.
    Year,
    /// Ten years.
    Decade,
    /// A hundred years.
    Century,
    /// A thousand years.
    Millennium,
}

/// The unit a word names, as in literals, `extract` and `date_trunc`; lower case.
pub fn unit(word: &str) -> Option<Unit> {
    Some(match word {
        "us" | "usec" | "usecs" | "microsecond" | "microseconds" | "microsec" | "microsecon" => {
            Unit::Microsecond
        }
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" | "millisec" | "mseconds" | "millisecon" => {
            Unit::Millisecond
        }
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Second,
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Minute,
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Hour,
        "d" | "day" | "days" => Unit::Day,
        "w" | "week" | "weeks" => Unit::Week,
        "mon" | "mons" | "month" | "months" => Unit::Month,
        "qtr" | "quarter" => Unit::Quarter,
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Year,
        "dec" | "decade" | "decades" | "decs" => Unit::Decade,
        "c" | "cent" | "century" | "centuries" => Unit::Century,
        "mil" | "mils" | "millennium" | "millennia" => Unit::Millennium,
        _ => return None,
    })
}

#[cold]
fn syntax(text: &str) -> TypeError {
    TypeError::new(
        SqlState::INVALID_DATETIME_FORMAT,
        format!("invalid input syntax for type {NAME}: \"{text}\""),
    )
}

#[cold]
fn overflow(text: &str) -> TypeError {
    TypeError::new(
        SqlState::INTERVAL_FIELD_OVERFLOW,
        format!("interval field value out of range: \"{text}\""),
    )
}

/// An interval being added up.
#[derive(Default)]
struct Sum {
    micros: i64,
    days: i32,
    months: i32,
}

impl Sum {
    fn micros(&mut self, value: i64, fraction: f64, unit: i64) -> Option<()> {
        let rest = (fraction * unit as f64).round_ties_even() as i64;
        self.micros = self
            .micros
            .checked_add(value.checked_mul(unit)?)?
            .checked_add(rest)?;
        Some(())
    }

    /// Adds days and a fraction of `scale` days.
    fn days(&mut self, value: i64, fraction: f64, scale: i32) -> Option<()> {
        let days = i32::try_from(value.checked_mul(i64::from(scale))?).ok()?;
        self.days = self.days.checked_add(days)?;
        let extra = fraction * f64::from(scale);
        self.days = self.days.checked_add(extra as i32)?;
        self.micros(0, extra - extra.trunc(), DAY)
    }

    /// Adds months and a fraction of `scale` months.
    fn months(&mut self, value: i64, fraction: f64, scale: i32) -> Option<()> {
        let months = i32::try_from(value.checked_mul(i64::from(scale))?).ok()?;
        let extra = (fraction * f64::from(scale)).round_ties_even() as i32;
        self.months = self.months.checked_add(months)?.checked_add(extra)?;
        Some(())
    }

    fn add(&mut self, unit: Unit, value: i64, fraction: f64) -> Option<()> {
        match unit {
            Unit::Microsecond => self.micros(value, fraction, 1),
            Unit::Millisecond => self.micros(value, fraction, 1000),
            Unit::Second => self.micros(value, fraction, SECOND),
            Unit::Minute => self.micros(value, fraction, MINUTE),
            Unit::Hour => self.micros(value, fraction, HOUR),
            Unit::Day => self.days(value, fraction, 1),
            Unit::Week => self.days(value, fraction, 7),
            Unit::Month => {
                self.months = self.months.checked_add(i32::try_from(value).ok()?)?;
                self.days(0, fraction, 30)
            }
            Unit::Quarter => self.months(value, fraction, 3),
            Unit::Year => self.months(value, fraction, 12),
            Unit::Decade => self.months(value, fraction, 120),
            Unit::Century => self.months(value, fraction, 1200),
            Unit::Millennium => self.months(value, fraction, 12_000),
        }
    }

    fn finish(self) -> Interval {
        Interval {
            micros: self.micros,
            days: self.days,
            months: self.months,
        }
    }
}

/// A signed decimal split into whole part and fraction, both with its sign.
fn decimal(text: &str) -> Option<(i64, f64)> {
    let negative = text.starts_with('-');
    let body = text.trim_start_matches(['+', '-']);
    let (whole, rest) = body.split_at(body.find('.').unwrap_or(body.len()));
    let value: i64 = if whole.is_empty() && rest.len() > 1 {
        0
    } else {
        whole.parse().ok()?
    };
    let fraction: f64 = if rest.len() > 1 { rest.parse().ok()? } else { 0.0 };
    Some(if negative {
        (-value, -fraction)
    } else {
        (value, fraction)
    })
}

/// Microseconds of `[±]h:m[:s[.f]]` or `[±]m:s.f`; `Some(None)` if well formed but out of range.
fn clock(text: &str) -> Option<Option<i64>> {
    let negative = text.starts_with('-');
    let body = text.trim_start_matches(['+', '-']);
    let (body, rest) = body.split_at(body.find('.').unwrap_or(body.len()));
    let mut parts = body
        .split(':')
        .map(|p| if p.is_empty() { None } else { p.parse::<i64>().ok() });
    let (first, second, third) = (parts.next()??, parts.next()??, parts.next());
    if parts.next().is_some() {
        return None;
    }
    let micros = if rest.is_empty() {
        0
    } else {
        super::parse::fraction(rest)?
    };
    let (h, m, s) = match third {
        Some(third) => (first, second, third?),
        None if rest.is_empty() => (first, second, 0),
        None => (0, first, second),
    };
    if !(0..60).contains(&m) || !(0..=60).contains(&s) {
        return Some(None);
    }
    let total = h
        .checked_mul(HOUR)
        .and_then(|t| t.checked_add(m * MINUTE + s * SECOND + micros));
    Some(total.map(|t| if negative { -t } else { t }))
}

/// Reads an `interval`.
pub fn parse_interval(text: &str) -> Result<Interval> {
    if text.len() > 200 {
        return Err(syntax(text));
    }
    let lower = text.trim().to_ascii_lowercase();
    if let Some(iso) = lower.strip_prefix('p') {
        return parse_iso(iso).ok_or_else(|| syntax(text));
    }
    let tokens = tokens(&lower).ok_or_else(|| syntax(text))?;
    let mut sum = Sum::default();
    let mut pending: Option<Unit> = None;
    let mut ago = false;
    // Each unit may stand once.
    let mut seen = 0u32;
    let mut once = |bits: u32| {
        if seen & bits == 0 {
            seen |= bits;
            Ok(())
        } else {
            Err(syntax(text))
        }
    };
    // Units stand behind their number: read from the right, so that a number finds its unit known.
    for token in tokens.iter().rev() {
        let first = token.trim_start_matches(['+', '-']).chars().next().unwrap_or(' ');
        if first.is_ascii_alphabetic() {
            if *token == "ago" {
                ago = true;
            } else {
                pending = Some(unit(token).ok_or_else(|| syntax(text))?);
            }
            continue;
        }
        if token.contains(':') {
            once(unit_bit(Unit::Hour) | unit_bit(Unit::Minute) | unit_bit(Unit::Second))?;
            let micros = clock(token)
                .ok_or_else(|| syntax(text))?
                .ok_or_else(|| overflow(text))?;
            sum.micros = sum.micros.checked_add(micros).ok_or_else(|| overflow(text))?;
            // `1 12:00`: a number before a time is days.
            pending = Some(Unit::Day);
            continue;
        }
        let body = token.trim_start_matches(['+', '-']);
        if let Some((years, months)) = body.split_once('-') {
            // SQL's `years-months`.
            let sign = if token.starts_with('-') { -1 } else { 1 };
            let parse = |s: &str| s.parse::<i64>().map_err(|_| syntax(text));
            let (years, months) = (parse(years)?, parse(months)?);
            once(unit_bit(Unit::Year) | unit_bit(Unit::Month))?;
            if months > 11 {
                return Err(overflow(text));
            }
            years
                .checked_mul(12)
                .and_then(|all| sum.months(sign * all.checked_add(months)?, 0.0, 1))
                .ok_or_else(|| overflow(text))?;
            pending = None;
            continue;
        }
        let (value, fraction) = decimal(token).ok_or_else(|| {
            if body.bytes().all(|b| b.is_ascii_digit()) {
                overflow(text)
            } else {
                syntax(text)
            }
        })?;
        let unit = pending.take().unwrap_or(Unit::Second);
        once(unit_bit(unit))?;
        sum.add(unit, value, fraction).ok_or_else(|| overflow(text))?;
    }
    if seen == 0 {
        return Err(syntax(text));
    }
    let sum = sum.finish();
    if ago {
        sum.neg().ok_or_else(|| overflow(text))
    } else {
        Ok(sum)
    }
}

fn unit_bit(unit: Unit) -> u32 {
    1 << unit as u32
}

/// Splits at blanks and between a number and its unit; a lone sign joins what follows; `@` and commas are skipped.
fn tokens(text: &str) -> Option<Vec<&str>> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b if b.is_ascii_whitespace() || b == b'@' || b == b',' => i += 1,
            b if b.is_ascii_alphabetic() => {
                let start = i;
                while i < bytes.len() && bytes[i].is_ascii_alphabetic() {
                    i += 1;
                }
                out.push(&text[start..i]);
            }
            b if b.is_ascii_digit() || b"+-.".contains(&b) => {
                let start = i;
                i += 1;
                while i < bytes.len() && (bytes[i].is_ascii_digit() || b".:-".contains(&bytes[i])) {
                    i += 1;
                }
                out.push(&text[start..i]);
            }
            _ => return None,
        }
    }
    Some(out)
}

/// `nYnMnWnDTnHnMnS` behind the `P`, lower case.
fn parse_iso(text: &str) -> Option<Interval> {
    let mut sum = Sum::default();
    let mut in_time = false;
    let mut rest = text;
    let mut seen = false;
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('t') {
            if in_time {
                return None;
            }
            in_time = true;
            rest = time;
            continue;
        }
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (value, fraction) = decimal(&rest[..end])?;
        let unit = match (in_time, rest.as_bytes()[end]) {
            (false, b'y') => Unit::Year,
            (false, b'm') => Unit::Month,
            (false, b'w') => Unit::Week,
            (false, b'd') => Unit::Day,
            (true, b'h') => Unit::Hour,
            (true, b'm') => Unit::Minute,
            (true, b's') => Unit::Second,
            _ => return None,
        };
        sum.add(unit, value, fraction)?;
        seen = true;
        rest = &rest[end + 1..];
    }
    seen.then(|| sum.finish())
}

/// Appends an `interval` in style `postgres`: `1 year 2 mons -3 days +04:05:06.7`.
pub fn write_interval(value: &Interval, out: &mut impl BufMut) {
    let (years, months) = (value.months / 12, value.months % 12);
    let mut any = false;
    let mut negative = false;
    for (amount, name) in [(years, "year"), (months, "mon"), (value.days, "day")] {
        if amount == 0 {
            continue;
        }
        if any {
            out.put_u8(b' ');
        }
        if negative && amount > 0 {
            out.put_u8(b'+');
        }
        put_i64(i64::from(amount), out);
        out.put_u8(b' ');
        out.put_slice(name.as_bytes());
        if amount != 1 {
            out.put_u8(b's');
        }
        negative = amount < 0;
        any = true;
    }
    if any && value.micros == 0 {
        return;
    }
    if any {
        out.put_u8(b' ');
    }
    if value.micros < 0 {
        out.put_u8(b'-');
    } else if negative {
        out.put_u8(b'+');
    }
    let micros = value.micros.unsigned_abs();
    put_2((micros / HOUR as u64) as i32, out);
    out.put_u8(b':');
    put_2((micros / MINUTE as u64 % 60) as i32, out);
    out.put_u8(b':');
    put_2((micros / SECOND as u64 % 60) as i32, out);
    put_fraction((micros % SECOND as u64) as i32, out);
}
