//! `to_date` and `to_timestamp` of text: reading by the template patterns that `to_char` writes.
//!
//! The rules are PostgreSQL's for templates without `FX`: white space before a field is skipped, a separator of the
//! template stands for at most one separator or space of the input, a number is as wide as its pattern unless a
//! separator, `FM` or the end follows it.

use super::tochar::{self, MONTHS};
use crate::error::SqlError;
use towline_base::SqlState;
use towline_types::datetime::calendar::{self, Civil};

/// A part of a template.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    /// A field, whether `FM` stands before it, whether `TH` follows.
    Field(&'static str, bool, bool),
    /// White space or punctuation.
    Separator,
    /// Any other character, or a quoted one.
    Char(char),
}

fn nodes(template: &str) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut rest = template;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let quoted = &rest[1..];
            let end = quoted.find('"').unwrap_or(quoted.len());
            nodes.extend(quoted[..end].chars().map(Node::Char));
            rest = quoted.get(end + 1..).unwrap_or("");
            continue;
        }
        let unfilled = rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm"));
        rest = unfilled.unwrap_or(rest);
        if let Some(pattern) = tochar::pattern_at(rest) {
            rest = &rest[pattern.len()..];
            let th = rest.starts_with("TH") || rest.starts_with("th");
            rest = if th { &rest[2..] } else { rest };
            nodes.push(Node::Field(pattern, unfilled.is_some(), th));
        } else if unfilled.is_none() {
            let separator = first.is_ascii_whitespace() || first.is_ascii_punctuation();
            nodes.push(if separator {
                Node::Separator
            } else {
                Node::Char(first)
            });
            rest = &rest[first.len_utf8()..];
        }
    }
    nodes
}

#[cold]
fn format_error(message: String, detail: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_DATETIME_FORMAT, message).with_detail(detail)
}

#[cold]
fn out_of_range(input: &str) -> SqlError {
    SqlError::new(
        SqlState::DATETIME_FIELD_OVERFLOW,
        format!("date/time field value out of range: \"{input}\""),
    )
}

/// What the fields said; `None`: the template has no such field.
#[derive(Default)]
struct Found {
    year: Option<i64>,
    short_year: bool,
    century: Option<i64>,
    before_christ: bool,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    julian: Option<i64>,
    hour: Option<i64>,
    twelve: bool,
    afternoon: bool,
    minute: Option<i64>,
    second: Option<i64>,
    second_of_day: Option<i64>,
    millis: Option<i64>,
    micros: Option<i64>,
}

struct Reader<'t> {
    rest: &'t str,
    found: Found,
}

fn set(slot: &mut Option<i64>, value: i64, pattern: &str) -> Result<(), SqlError> {
    if slot.is_some_and(|old| old != 0 && old != value) {
        return Err(format_error(
            format!("conflicting values for \"{pattern}\" field in formatting string"),
            "This value contradicts a previous setting for the same field type.",
        ));
    }
    *slot = Some(value);
    Ok(())
}

impl Reader<'_> {
    fn skip_spaces(&mut self) -> i32 {
        let trimmed = self.rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
        let skipped = self.rest.len() - trimmed.len();
        self.rest = trimmed;
        skipped as i32
    }

    /// A number of `width` characters, or of any number where `free`; gives it with the characters it took.
    fn number(&mut self, pattern: &str, width: usize, free: bool) -> Result<(i64, usize), SqlError> {
        self.skip_spaces();
        let part = if free {
            self.rest
        } else {
            let end = self
                .rest
                .char_indices()
                .nth(width)
                .map_or(self.rest.len(), |(at, _)| at);
            let part = &self.rest[..end];
            let given = part.chars().count();
            if given < width {
                return Err(format_error(
                    format!("source string too short for \"{pattern}\" formatting field"),
                    &format!("Field requires {width} characters, but only {given} remain."),
                )
                .with_hint("If your source string is not fixed-width, try using the \"FM\" modifier."));
            }
            part
        };
        let signed = part.strip_prefix(['-', '+']).unwrap_or(part);
        let digits = signed.bytes().take_while(u8::is_ascii_digit).count();
        let used = part.len() - signed.len() + digits;
        if digits == 0 {
            let shown: String = part.chars().take(width).collect();
            return Err(format_error(
                format!("invalid value \"{shown}\" for \"{pattern}\""),
                "Value must be an integer.",
            ));
        }
        if !free && used < part.len() {
            return Err(format_error(
                format!("invalid value \"{part}\" for \"{pattern}\""),
                &format!("Field requires {width} characters, but only {used} could be parsed."),
            )
            .with_hint("If your source string is not fixed-width, try using the \"FM\" modifier."));
        }
        let value = part[..used].trim_start_matches('+').parse::<i32>().map_err(|_| {
            SqlError::new(
                SqlState::DATETIME_FIELD_OVERFLOW,
                format!("value for \"{pattern}\" in source string is out of range"),
            )
            .with_detail(format!(
                "Value must be in the range {} to {}.",
                i32::MIN,
                i32::MAX
            ))
        })?;
        self.rest = &self.rest[used..];
        Ok((i64::from(value), used))
    }

    /// Which of these words stands here, in any case.
    fn word(&mut self, pattern: &str, words: &[&str]) -> Result<usize, SqlError> {
        let found = words.iter().position(|word| {
            self.rest
                .get(..word.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(word))
        });
        match found {
            Some(at) => {
                self.rest = &self.rest[words[at].len()..];
                Ok(at)
            }
            None => {
                let shown = self.rest.split_ascii_whitespace().next().unwrap_or("");
                Err(format_error(
                    format!("invalid value \"{shown}\" for \"{pattern}\""),
                    "The given value did not match any of the allowed values for this field.",
                ))
            }
        }
    }

    fn field(&mut self, pattern: &'static str, free: bool) -> Result<(), SqlError> {
        let upper = pattern.to_ascii_uppercase();
        match upper.as_str() {
            "YYYY" | "YYY" | "YY" | "Y" => {
                let (year, used) = self.number(pattern, pattern.len(), free)?;
                let full = pattern.len() == 4 || used >= 4;
                self.found.short_year = pattern.len() <= 2;
                set(
                    &mut self.found.year,
                    if full { year } else { near_2020(year) },
                    pattern,
                )
            }
            "MONTH" => {
                let at = self.word(pattern, &MONTHS)?;
                set(&mut self.found.month, at as i64 + 1, pattern)
            }
            "MON" => {
                let at = self.word(pattern, &MONTHS.map(|name| &name[..3]))?;
                set(&mut self.found.month, at as i64 + 1, pattern)
            }
            "DAY" => self.word(pattern, &tochar::DAYS).map(drop),
            "DY" => self.word(pattern, &tochar::DAYS.map(|name| &name[..3])).map(drop),
            "AM" | "PM" | "A.M." | "P.M." => {
                let words: &[&str] = if upper.contains('.') {
                    &["a.m.", "p.m."]
                } else {
                    &["am", "pm"]
                };
                self.found.afternoon = self.word(pattern, words)? == 1;
                self.found.twelve = true;
                Ok(())
            }
            "BC" | "AD" | "B.C." | "A.D." => {
                let words: &[&str] = if upper.contains('.') {
                    &["a.d.", "b.c."]
                } else {
                    &["ad", "bc"]
                };
                self.found.before_christ = self.word(pattern, words)? == 1;
                Ok(())
            }
            "HH" | "HH12" | "HH24" => {
                self.found.twelve |= upper != "HH24";
                let (value, _) = self.number(pattern, 2, free)?;
                set(&mut self.found.hour, value, pattern)
            }
            "MS" => {
                let (value, used) = self.number(pattern, 3, free)?;
                set(&mut self.found.millis, scaled(value, used, 3), pattern)
            }
            "US" | "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
                let width = upper.strip_prefix("FF").and_then(|digits| digits.parse().ok());
                let (value, used) = self.number(pattern, width.unwrap_or(6), free)?;
                set(&mut self.found.micros, scaled(value, used, 6), pattern)
            }
            "D" | "Q" | "MM" | "DD" | "DDD" | "MI" | "SS" | "SSSS" | "SSSSS" | "J" | "CC" => {
                let (value, _) = self.number(pattern, pattern.len(), free)?;
                let found = &mut self.found;
                let slot = match upper.as_str() {
                    "MM" => &mut found.month,
                    "DD" => &mut found.day,
                    "DDD" => &mut found.day_of_year,
                    "MI" => &mut found.minute,
                    "SS" => &mut found.second,
                    "J" => &mut found.julian,
                    "CC" => &mut found.century,
                    "SSSS" | "SSSSS" => &mut found.second_of_day,
                    // A day of the week or a quarter says nothing that the date needs.
                    _ => return Ok(()),
                };
                set(slot, value, pattern)
            }
            "TZ" | "OF" => Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("formatting field \"{pattern}\" is only supported in to_char"),
            )),
            _ => Err(SqlError::unsupported(format!(
                "to_timestamp pattern \"{pattern}\""
            ))),
        }
    }
}

/// A year of less than four digits is one near 2020.
fn near_2020(year: i64) -> i64 {
    match year {
        ..70 | 100..520 => year + 2000,
        70..100 => year + 1900,
        520..1000 => year + 1000,
        _ => year,
    }
}

/// A fraction written with `used` digits, in units of 10^-places.
fn scaled(value: i64, used: usize, places: usize) -> i64 {
    value * 10_i64.pow(places.saturating_sub(used) as u32)
}

/// Reads a local time by a template: µs since 2000-01-01.
pub(super) fn timestamp(input: &str, template: &str) -> Result<i64, SqlError> {
    let nodes = nodes(template);
    let mut reader = Reader {
        rest: input,
        found: Found::default(),
    };
    let mut extra = 0;
    for (at, node) in nodes.iter().enumerate() {
        if reader.rest.is_empty() {
            break;
        }
        if at == 0 || matches!(node, Node::Field(..)) {
            extra += reader.skip_spaces();
        }
        match *node {
            Node::Separator => {
                extra -= 1;
                if let Some(first) = reader.rest.chars().next()
                    && (first.is_ascii_whitespace() || first.is_ascii_punctuation())
                {
                    reader.rest = &reader.rest[1..];
                    extra += 1;
                }
            }
            Node::Char(_) if extra > 0 => extra -= 1,
            Node::Char(_) => {
                let skipped = reader.rest.chars().next().map_or(0, char::len_utf8);
                reader.rest = &reader.rest[skipped..];
            }
            Node::Field(pattern, unfilled, th) => {
                let separated = th
                    || match nodes.get(at + 1) {
                        None | Some(Node::Separator) => true,
                        Some(Node::Char(next)) => !next.is_ascii_digit(),
                        Some(Node::Field(next, ..)) => tochar::is_word(next),
                    };
                reader.field(pattern, unfilled || separated)?;
                if th {
                    let skipped = reader
                        .rest
                        .char_indices()
                        .nth(2)
                        .map_or(reader.rest.len(), |(at, _)| at);
                    reader.rest = &reader.rest[skipped..];
                }
                extra = reader.skip_spaces();
            }
        }
    }
    assemble(&reader.found, input)
}

fn assemble(found: &Found, input: &str) -> Result<i64, SqlError> {
    let range = || out_of_range(input);
    let mut hour = found.hour.unwrap_or(0);
    let (mut minute, mut second) = (found.minute.unwrap_or(0), found.second.unwrap_or(0));
    if let Some(seconds) = found.second_of_day {
        (hour, minute, second) = (seconds / 3600, seconds % 3600 / 60, seconds % 60);
    }
    if found.twelve {
        if !(1..=12).contains(&hour) {
            return Err(SqlError::new(
                SqlState::INVALID_DATETIME_FORMAT,
                format!("hour \"{hour}\" is invalid for the 12-hour clock"),
            )
            .with_hint("Use the 24-hour clock, or give an hour between 1 and 12."));
        }
        hour = hour % 12 + if found.afternoon { 12 } else { 0 };
    }
    // Internal years: 0 is 1 BC.
    let mut year = 0;
    if let Some(given) = found.year.filter(|year| *year != 0) {
        year = match found.century {
            Some(century) if found.short_year => (century - 1) * 100 + given % 100,
            _ => given,
        };
        year = if found.before_christ { -year } else { year };
        year += i64::from(year < 0);
    } else if let Some(century) = found.century {
        let century = if found.before_christ { -century } else { century };
        year = if century >= 0 {
            (century - 1) * 100 + 1
        } else {
            century * 100 + 1
        };
    }
    let year = i32::try_from(year).map_err(|_| range())?;
    let (mut month, mut day) = (found.month.unwrap_or(1), found.day.unwrap_or(1));
    let mut civil_year = year;
    if let Some(julian) = found.julian {
        let julian = i32::try_from(julian)
            .ok()
            .filter(|julian| *julian >= 0)
            .ok_or_else(range)?;
        let (y, m, d) = calendar::from_julian(julian);
        (civil_year, month, day) = (y, i64::from(m), i64::from(d));
    }
    if let Some(mut left) = found.day_of_year.filter(|_| month <= 1 || day <= 1) {
        if found.year.is_none() && !found.before_christ {
            return Err(SqlError::new(
                SqlState::INVALID_DATETIME_FORMAT,
                "cannot calculate day of year without year information",
            ));
        }
        month = 1;
        while month <= 12 && left > i64::from(calendar::month_days(year, month as i32)) {
            left -= i64::from(calendar::month_days(year, month as i32));
            month += 1;
        }
        day = left;
    }
    let valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && day <= i64::from(calendar::month_days(civil_year, month as i32))
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..60).contains(&second);
    if !valid {
        return Err(range());
    }
    if !(-4713..294_277).contains(&civil_year) {
        return Err(SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("timestamp out of range: \"{input}\""),
        ));
    }
    let micros = found.millis.unwrap_or(0) * 1000 + found.micros.unwrap_or(0);
    let civil = Civil {
        year: civil_year,
        month: month as i32,
        day: day as i32,
        hour: hour as i32,
        minute: minute as i32,
        second: second as i32,
        micros: 0,
    };
    civil
        .to_micros()
        .and_then(|whole| whole.checked_add(micros))
        .ok_or_else(range)
}
