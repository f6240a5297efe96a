//! `to_char` for timestamps and numbers: the template patterns people use. A pattern that is not built is refused
//! with 0A000 instead of being copied through.

use crate::error::SqlError;
use towline_base::SqlState;
use towline_types::datetime::calendar::{self, Civil};
use towline_types::datetime::zone::{self, TimeZone};
use towline_types::{Interval, Numeric};

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const ROMAN_MONTHS: [&str; 12] = [
    "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII",
];
pub(super) const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// The patterns, longest first where one begins another.
const PATTERNS: &[&str] = &[
    "SSSSS", "SSSS", "Y,YYY", "YYYY", "IYYY", "MONTH", "Month", "month", "HH24", "HH12", "A.M.", "P.M.",
    "a.m.", "p.m.", "B.C.", "A.D.", "b.c.", "a.d.", "YYY", "IYY", "MON", "Mon", "mon", "DDD", "DAY", "Day",
    "day", "IDDD", "TZH", "TZM", "FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "HH", "MI", "SS", "MS", "US",
    "AM", "PM", "am", "pm", "YY", "IY", "MM", "DD", "DY", "Dy", "dy", "ID", "WW", "IW", "CC", "RM", "rm",
    "BC", "AD", "bc", "ad", "TZ", "tz", "OF", "Y", "I", "D", "W", "Q", "J",
];

/// `to_char(timestamp, template)`; for timestamptz the local time with its instant and zone.
pub(super) fn timestamp(
    local: i64,
    zoned: Option<(i64, &TimeZone)>,
    template: &str,
) -> Result<String, SqlError> {
    if towline_types::datetime::is_infinite(local) {
        return Ok(String::new());
    }
    let c = Civil::from_micros(local);
    expand(template, |pattern, fill| field(pattern, &c, zoned, fill))
}

/// `to_char(interval, template)`: what belongs to a calendar has no value.
pub(super) fn interval(value: &Interval, template: &str) -> Result<String, SqlError> {
    expand(template, |pattern, fill| interval_field(pattern, value, fill))
}

fn interval_field(pattern: &str, value: &Interval, fill: bool) -> Result<String, SqlError> {
    let (hours, within) = (value.micros / 3_600_000_000, value.micros % 3_600_000_000);
    let (minutes, within) = (within / 60_000_000, within % 60_000_000);
    let (seconds, micros) = (within / 1_000_000, within % 1_000_000);
    let (years, months, days) = (
        i64::from(value.months / 12),
        i64::from(value.months % 12),
        i64::from(value.days),
    );
    let number = |value: i64, width: usize| {
        let width = if value < 0 { width + 1 } else { width };
        if fill {
            format!("{value:0width$}")
        } else {
            value.to_string()
        }
    };
    let hour12 = if hours % 12 == 0 { 12 } else { hours % 12 };
    let morning = hours.rem_euclid(24) < 12;
    let half = |morning_word: &str, other: &str| if morning { morning_word } else { other }.to_string();
    Ok(match pattern {
        "YYYY" => number(years, 4),
        "YYY" => number(years % 1000, 3),
        "YY" => number(years % 100, 2),
        "Y" => number(years % 10, 1),
        "MM" => number(months, 2),
        // These two keep their width with a sign.
        "DD" if fill => format!("{days:02}"),
        "DDD" if fill => format!("{:03}", (years * 12 + months) * 30 + days),
        "DD" => days.to_string(),
        "DDD" => ((years * 12 + months) * 30 + days).to_string(),
        "HH24" => number(hours, 2),
        "HH" | "HH12" => number(hour12, 2),
        "MI" => number(minutes, 2),
        "SS" => number(seconds, 2),
        "SSSS" | "SSSSS" => (hours * 3600 + minutes * 60 + seconds).to_string(),
        "MS" => number(micros / 1000, 3),
        "US" | "FF6" => number(micros, 6),
        "AM" | "PM" => half("AM", "PM"),
        "am" | "pm" => half("am", "pm"),
        "A.M." | "P.M." => half("A.M.", "P.M."),
        "a.m." | "p.m." => half("a.m.", "p.m."),
        _ if is_word(pattern)
            || matches!(
                pattern,
                "D" | "ID" | "IDDD" | "IW" | "IYYY" | "IYY" | "IY" | "I" | "TZH" | "TZM" | "OF"
            ) =>
        {
            return Err(SqlError::new(
                SqlState::INVALID_DATETIME_FORMAT,
                "invalid format specification for an interval value",
            )
            .with_hint("Intervals are not tied to specific calendar dates."));
        }
        other => {
            return Err(SqlError::unsupported(format!(
                "to_char pattern \"{other}\" of an interval"
            )));
        }
    })
}

/// Whether a pattern stands for letters, not for a number.
pub(super) fn is_word(pattern: &str) -> bool {
    names(pattern.to_ascii_uppercase().as_str())
}

/// The pattern with which this text begins.
pub(super) fn pattern_at(text: &str) -> Option<&'static str> {
    let found = PATTERNS.iter().find(|p| {
        // Names are case-sensitive, because their case is the output's; the rest is not.
        if p.chars().any(|c| c.is_ascii_lowercase()) || names(p) {
            text.starts_with(**p)
        } else {
            let start = text.as_bytes().get(..p.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(p.as_bytes()))
        }
    });
    found.copied()
}

/// Copies a template with each pattern replaced by what `piece` makes of it; its second argument: padded, not `FM`.
fn expand(
    template: &str,
    piece: impl Fn(&str, bool) -> Result<String, SqlError>,
) -> Result<String, SqlError> {
    let mut out = String::new();
    let mut rest = template;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            out.push_str(&quoted[..end]);
            rest = quoted.get(end + 1..).unwrap_or("");
            continue;
        }
        let fill = match rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm")) {
            Some(tail) => {
                rest = tail;
                false
            }
            None => true,
        };
        let Some(pattern) = pattern_at(rest) else {
            if let Some(ch) = rest.chars().next() {
                out.push(ch);
                rest = &rest[ch.len_utf8()..];
            }
            continue;
        };
        rest = &rest[pattern.len()..];
        let mut ordinal = None;
        for suffix in ["TH", "th"] {
            if let Some(tail) = rest.strip_prefix(suffix) {
                rest = tail;
                ordinal = Some(suffix);
                break;
            }
        }
        let piece = piece(pattern, fill)?;
        if let Some(suffix) = ordinal {
            let th = ordinal_suffix(&piece);
            out.push_str(&piece);
            out.push_str(&if suffix == "TH" {
                th.to_ascii_uppercase()
            } else {
                th.to_string()
            });
        } else {
            out.push_str(&piece);
        }
    }
    Ok(out)
}

fn names(pattern: &str) -> bool {
    matches!(
        pattern,
        "MONTH"
            | "MON"
            | "DAY"
            | "DY"
            | "AM"
            | "PM"
            | "A.M."
            | "P.M."
            | "BC"
            | "AD"
            | "B.C."
            | "A.D."
            | "RM"
            | "TZ"
    )
}

fn ordinal_suffix(number: &str) -> &'static str {
    let digits: Vec<char> = number.chars().filter(char::is_ascii_digit).collect();
    match digits.as_slice() {
        [.., '1', _] => "th",
        [.., '1'] => "st",
        [.., '2'] => "nd",
        [.., '3'] => "rd",
        _ => "th",
    }
}

fn cased(pattern: &str, name: &str) -> String {
    if pattern.chars().all(|c| c.is_ascii_uppercase()) {
        name.to_ascii_uppercase()
    } else if pattern.chars().all(|c| c.is_ascii_lowercase()) {
        name.to_ascii_lowercase()
    } else {
        name.to_string()
    }
}

fn field(pattern: &str, c: &Civil, zoned: Option<(i64, &TimeZone)>, fill: bool) -> Result<String, SqlError> {
    let days = c.days();
    let weekday = calendar::weekday(days);
    let year = if c.year > 0 { c.year } else { 1 - c.year };
    let day_of_year = days - calendar::days(c.year, 1, 1) + 1;
    let hour12 = if c.hour % 12 == 0 { 12 } else { c.hour % 12 };
    let number = |value: i32, width: usize| {
        if fill {
            format!("{value:0width$}")
        } else {
            value.to_string()
        }
    };
    let padded = |name: String| if fill { format!("{name:<9}") } else { name };
    let east = zoned.map(|(t, tz)| zone::offset_at(tz, t));
    let month = MONTHS[(c.month - 1).clamp(0, 11) as usize];
    let day = DAYS[weekday as usize];
    let (iso_year, iso_week) = calendar::iso_week(days);
    let iso_year = if iso_year > 0 { iso_year } else { 1 - iso_year };
    let roman = ROMAN_MONTHS[(c.month - 1).clamp(0, 11) as usize];
    let roman = if fill {
        format!("{roman:<4}")
    } else {
        roman.to_string()
    };
    Ok(match pattern {
        "YYYY" => number(year, 4),
        "YYY" => number(year % 1000, 3),
        "YY" => number(year % 100, 2),
        "Y" => number(year % 10, 1),
        "Y,YYY" => format!("{},{:03}", year / 1000, year % 1000),
        "IYYY" => number(iso_year, 4),
        "IYY" => number(iso_year % 1000, 3),
        "IY" => number(iso_year % 100, 2),
        "I" => number(iso_year % 10, 1),
        "MONTH" | "Month" | "month" => padded(cased(pattern, month)),
        "MON" | "Mon" | "mon" => cased(pattern, &month[..3]),
        "DAY" | "Day" | "day" => padded(cased(pattern, day)),
        "DY" | "Dy" | "dy" => cased(pattern, &day[..3]),
        "MM" => number(c.month, 2),
        "DDD" => number(day_of_year, 3),
        "DD" => number(c.day, 2),
        "D" => (weekday + 1).to_string(),
        "ID" => ((weekday + 6) % 7 + 1).to_string(),
        "WW" => number((day_of_year - 1) / 7 + 1, 2),
        "IW" => number(iso_week, 2),
        "W" => ((c.day - 1) / 7 + 1).to_string(),
        "Q" => ((c.month - 1) / 3 + 1).to_string(),
        "RM" => roman,
        "rm" => roman.to_ascii_lowercase(),
        "CC" => number((year + 99) / 100, 2),
        "J" => (days + calendar::EPOCH_JULIAN).to_string(),
        "HH24" => number(c.hour, 2),
        "HH" | "HH12" => number(hour12, 2),
        "MI" => number(c.minute, 2),
        "SS" => number(c.second, 2),
        "SSSS" | "SSSSS" => (c.hour * 3600 + c.minute * 60 + c.second).to_string(),
        "MS" => format!("{:03}", c.micros / 1000),
        "US" => format!("{:06}", c.micros),
        "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
            let digits = usize::from(pattern.as_bytes()[2] - b'0');
            format!("{:06}", c.micros)[..digits].to_string()
        }
        "AM" | "PM" => if c.hour < 12 { "AM" } else { "PM" }.to_string(),
        "am" | "pm" => if c.hour < 12 { "am" } else { "pm" }.to_string(),
        "A.M." | "P.M." => if c.hour < 12 { "A.M." } else { "P.M." }.to_string(),
        "a.m." | "p.m." => if c.hour < 12 { "a.m." } else { "p.m." }.to_string(),
        "BC" | "AD" => if c.year > 0 { "AD" } else { "BC" }.to_string(),
        "bc" | "ad" => if c.year > 0 { "ad" } else { "bc" }.to_string(),
        "B.C." | "A.D." => if c.year > 0 { "A.D." } else { "B.C." }.to_string(),
        "b.c." | "a.d." => if c.year > 0 { "a.d." } else { "b.c." }.to_string(),
        "TZ" => zoned
            .map(|(t, tz)| zone::abbreviation_at(tz, t).to_ascii_uppercase())
            .unwrap_or_default(),
        "tz" => zoned
            .map(|(t, tz)| zone::abbreviation_at(tz, t).to_ascii_lowercase())
            .unwrap_or_default(),
        "TZH" => {
            let east = east.unwrap_or(0);
            format!("{}{:02}", if east < 0 { '-' } else { '+' }, east.abs() / 3600)
        }
        "TZM" => format!("{:02}", east.unwrap_or(0).abs() / 60 % 60),
        "OF" => {
            let east = east.unwrap_or(0);
            let (sign, seconds) = (if east < 0 { '-' } else { '+' }, east.abs());
            let minutes = seconds / 60 % 60;
            let tail = if minutes == 0 {
                String::new()
            } else {
                format!(":{minutes:02}")
            };
            format!("{sign}{:02}{tail}", seconds / 3600)
        }
        other => return Err(SqlError::unsupported(format!("to_char pattern \"{other}\""))),
    })
}

/// `to_char(number, template)`: `9`, `0`, `.`/`D`, `,`/`G`, `FM`, `S`, `MI`, `PR`, quoted text.
pub(super) fn number(value: &Numeric, template: &str) -> Result<String, SqlError> {
    let fill = !template.to_ascii_uppercase().contains("FM");
    let body = template.replace("FM", "").replace("fm", "");
    let upper = body.to_ascii_uppercase();
    for word in ["EEEE", "RN", "V", "TH", "L", "PL", "SG"] {
        if upper.contains(word) {
            return Err(SqlError::unsupported(format!("to_char pattern \"{word}\"")));
        }
    }
    if value.is_nan() || value.is_infinite() {
        return Err(SqlError::unsupported("to_char of NaN or infinity"));
    }
    let is_point = |c: char| matches!(c, '.' | 'D' | 'd');
    let point = body.find(is_point);
    let (whole_part, fraction_part) = match point {
        Some(at) => (&body[..at], &body[at + 1..]),
        None => (body.as_str(), ""),
    };
    let digits_in = |s: &str| s.chars().filter(|c| matches!(c, '9' | '0')).count();
    let (whole_len, scale) = (digits_in(whole_part), digits_in(fraction_part));
    let rounded = value.round(scale as i32)?;
    let negative = rounded.is_negative();
    let text = rounded.abs().to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let whole = if whole == "0" { "" } else { whole };
    let overflow = whole.len() > whole_len;
    // Digits of the whole part from the right, `#` when they do not fit.
    let mut digits = whole.chars().rev().chain(std::iter::repeat(' '));
    let mut shown: Vec<char> = Vec::new();
    let first_zero = whole_part.find('0');
    let mut used = 0;
    for (at, ch) in whole_part.char_indices().rev() {
        match ch {
            '9' | '0' => {
                let digit = digits.next().unwrap_or(' ');
                used += 1;
                shown.push(if overflow {
                    '#'
                } else if digit == ' ' && (first_zero.is_some_and(|z| z <= at) || (used == 1 && scale == 0)) {
                    '0'
                } else {
                    digit
                });
            }
            ',' | 'G' | 'g' => {
                let more = overflow || used < whole.len() || first_zero.is_some_and(|z| z < at);
                shown.push(if more { ',' } else { ' ' });
            }
            'S' | 's' | '"' => {}
            _ if matches!(upper.as_bytes().get(at), Some(b'M' | b'I' | b'P' | b'R')) => {}
            other => shown.push(other),
        }
    }
    let mut number: String = shown.iter().rev().collect();
    if point.is_some() {
        number.push('.');
        let mut digits = fraction.chars();
        for ch in fraction_part.chars().filter(|c| matches!(c, '9' | '0')) {
            let _ = ch;
            number.push(if overflow {
                '#'
            } else {
                digits.next().unwrap_or('0')
            });
        }
    }
    let trimmed = number.trim_start();
    let blanks = number.len() - trimmed.len();
    let mut result = trimmed.to_string();
    if !fill && point.is_some() {
        // FM drops trailing zeros that a 9 stands for.
        let keep = fraction_part
            .rfind('0')
            .map_or(0, |at| digits_in(&fraction_part[..=at]));
        let point = result.find('.').unwrap_or(0);
        while result.ends_with('0') && result.len() - point - 1 > keep {
            result.pop();
        }
    }
    let before = " ".repeat(blanks);
    let signed = if upper.contains("MI") {
        let sign = if negative { "-" } else { " " };
        format!("{before}{result}{sign}")
    } else if upper.contains("PR") {
        if negative {
            format!("{before}<{result}>")
        } else {
            format!("{before} {result} ")
        }
    } else if upper.contains('S') {
        let sign = if negative { '-' } else { '+' };
        if upper.ends_with('S') {
            format!("{before}{result}{sign}")
        } else {
            format!("{before}{sign}{result}")
        }
    } else {
        format!("{before}{}{result}", if negative { '-' } else { ' ' })
    };
    Ok(if fill { signed } else { signed.trim().to_string() })
}
