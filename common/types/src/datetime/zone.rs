//! Time zones: offsets at an instant, the instant of a local time, names and abbreviations.
//!
//! The rules come from jiff's copy of the tz database. Its range is years ±9999; beyond it an instant is moved by
//! whole 400-year cycles, after which weekdays, and so daylight saving rules, repeat.

use super::calendar::{Civil, EPOCH_JULIAN, UNIX_EPOCH_JULIAN};
use super::{DAY, SECOND};
use crate::error::{Result, TypeError};
use jiff::Timestamp;
use jiff::civil::DateTime;
pub use jiff::tz::TimeZone;
use jiff::tz::{AmbiguousOffset, Offset};
use towline_base::SqlState;

/// Seconds from 1970 to 2000.
const EPOCH_SHIFT: i64 = (EPOCH_JULIAN - UNIX_EPOCH_JULIAN) as i64 * 86_400;
/// Microseconds of 400 Gregorian years.
const CYCLE: i64 = 146_097 * DAY;
/// The years ±9000 as microseconds since 2000, the range handed to jiff unchanged.
const SAFE: i64 = 7000 * 365 * DAY;
/// The largest offset accepted in a literal: 15:59:59.
pub(crate) const MAX_OFFSET: i32 = 15 * 3600 + 59 * 60 + 59;

fn into_safe_range(micros: i64) -> i64 {
    if micros > SAFE {
        micros - (micros - SAFE).div_euclid(CYCLE).saturating_add(1) * CYCLE
    } else if micros < -SAFE {
        micros + (-SAFE - micros).div_euclid(CYCLE).saturating_add(1) * CYCLE
    } else {
        micros
    }
}

fn instant(micros: i64) -> Timestamp {
    let safe = into_safe_range(micros);
    let seconds = safe.div_euclid(SECOND) + EPOCH_SHIFT;
    Timestamp::new(seconds, 0).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Seconds east of UTC at an instant (µs since 2000 UTC).
pub fn offset_at(zone: &TimeZone, micros: i64) -> i32 {
    zone.to_offset(instant(micros)).seconds()
}

/// The abbreviation in force at an instant, as `EST`.
pub fn abbreviation_at(zone: &TimeZone, micros: i64) -> String {
    zone.to_offset_info(instant(micros)).abbreviation().to_string()
}

/// Seconds east of UTC that a local time (µs since 2000 by the local clock) has. A time that the clock skips is read
/// by the offset before the jump, one that it shows twice is the second.
pub fn offset_of_local(zone: &TimeZone, local: i64) -> i32 {
    let civil = Civil::from_micros(into_safe_range(local));
    let datetime = DateTime::new(
        civil.year as i16,
        civil.month as i8,
        civil.day as i8,
        civil.hour as i8,
        civil.minute as i8,
        civil.second as i8,
        0,
    );
    let Ok(datetime) = datetime else { return 0 };
    match zone.to_ambiguous_timestamp(datetime).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.seconds(),
        AmbiguousOffset::Gap { before, .. } => before.seconds(),
        AmbiguousOffset::Fold { after, .. } => after.seconds(),
    }
}

/// The instant of a local time; `None` if out of range.
pub fn local_to_utc(zone: &TimeZone, local: i64) -> Option<i64> {
    let offset = offset_of_local(zone, local);
    local.checked_sub(i64::from(offset) * SECOND)
}

/// The local time of an instant.
pub fn utc_to_local(zone: &TimeZone, micros: i64) -> i64 {
    micros.saturating_add(i64::from(offset_at(zone, micros)) * SECOND)
}

/// Abbreviations of PostgreSQL's default set whose offset never changes, in seconds east of UTC.
const ABBREVIATIONS: &[(&str, i32)] = &[
    ("acdt", 37_800),
    ("acst", 34_200),
    ("adt", -10_800),
    ("aedt", 39_600),
    ("aest", 36_000),
    ("akdt", -28_800),
    ("akst", -32_400),
    ("ast", -14_400),
    ("awst", 28_800),
    ("bst", 3600),
    ("cadt", 37_800),
    ("cdt", -18_000),
    ("cest", 7200),
    ("cet", 3600),
    ("cst", -21_600),
    ("edt", -14_400),
    ("eest", 10_800),
    ("eet", 7200),
    ("est", -18_000),
    ("gmt", 0),
    ("hkt", 28_800),
    ("hst", -36_000),
    ("idt", 10_800),
    ("ist", 7200),
    ("jst", 32_400),
    ("kst", 32_400),
    ("mdt", -21_600),
    ("mest", 7200),
    ("met", 3600),
    ("msd", 14_400),
    ("msk", 10_800),
    ("mst", -25_200),
    ("ndt", -9000),
    ("nst", -12_600),
    ("nzdt", 46_800),
    ("nzst", 43_200),
    ("pdt", -25_200),
    ("pst", -28_800),
    ("sast", 7200),
    ("sgt", 28_800),
    ("ut", 0),
    ("utc", 0),
    ("uct", 0),
    ("wast", 7200),
    ("wat", 3600),
    ("west", 3600),
    ("wet", 0),
    ("z", 0),
    ("zulu", 0),
];

/// The offset of a zone abbreviation, in seconds east of UTC.
pub fn abbreviation_offset(name: &str) -> Option<i32> {
    ABBREVIATIONS
        .iter()
        .find(|(a, _)| name.eq_ignore_ascii_case(a))
        .map(|(_, offset)| *offset)
}

/// A zone by a name of the tz database or in POSIX form.
pub fn by_name(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name.len() > 64 {
        return None;
    }
    TimeZone::get(name).ok().or_else(|| posix(name))
}

/// `PST8PDT`, `UTC+3`, `<+05>-5`: POSIX zones, whose offsets count west. A bare zone with daylight saving name uses
/// the United States' rules, as PostgreSQL does.
fn posix(name: &str) -> Option<TimeZone> {
    if !name.bytes().any(|b| b.is_ascii_digit()) || name.contains(':') && !name.starts_with('<') {
        return None;
    }
    if let Ok(zone) = TimeZone::posix(name) {
        return Some(zone);
    }
    TimeZone::posix(&format!("{name},M3.2.0,M11.1.0")).ok()
}

/// A zone for `AT TIME ZONE` and literals: a name, an abbreviation or an offset such as `+02:30` (ISO: east positive;
/// PostgreSQL reads a bare number here as POSIX, west positive, through its zone grammar).
pub fn lookup(name: &str) -> Result<TimeZone> {
    let trimmed = name.trim();
    if let Some(offset) = abbreviation_offset(trimmed) {
        return fixed(offset).ok_or_else(|| unrecognized(name));
    }
    if let Some(zone) = by_name(trimmed) {
        return Ok(zone);
    }
    // POSIX without a zone name: `+02` is two hours west.
    let offset = parse_offset(trimmed).and_then(|east| fixed(-east));
    offset.ok_or_else(|| unrecognized(name))
}

/// A zone of constant offset, in seconds east.
pub fn fixed(east: i32) -> Option<TimeZone> {
    Offset::from_seconds(east).ok().map(TimeZone::fixed)
}

fn unrecognized(name: &str) -> TypeError {
    TypeError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("time zone \"{name}\" not recognized"),
    )
}

/// `±hh`, `±hh:mm`, `±hh:mm:ss`, `±hhmm`, `±hhmmss` in seconds, the sign as written.
pub(crate) fn parse_offset(text: &str) -> Option<i32> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let number = |s: &str| {
        (s.bytes().all(|b| b.is_ascii_digit()) && !s.is_empty())
            .then(|| s.parse().ok())
            .flatten()
    };
    let (h, m, s): (i32, i32, i32) = if rest.contains(':') {
        let mut parts = rest.split(':');
        let h = number(parts.next()?)?;
        let m = number(parts.next()?)?;
        let s = parts.next().map_or(Some(0), number)?;
        if parts.next().is_some() {
            return None;
        }
        (h, m, s)
    } else {
        let n = number(rest)?;
        match rest.len() {
            1 | 2 => (n, 0, 0),
            3 | 4 => (n / 100, n % 100, 0),
            5 | 6 => (n / 10_000, n / 100 % 100, n % 100),
            _ => return None,
        }
    };
    if h > 15 || m > 59 || s > 59 {
        return None;
    }
    Some(sign * (h * 3600 + m * 60 + s))
}

/// The zone a value of the setting TimeZone names, and its name as SHOW prints it.
pub(crate) fn lookup_setting(value: &str) -> Result<(TimeZone, String)> {
    let invalid = || {
        TypeError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for parameter \"TimeZone\": \"{value}\""),
        )
    };
    // A bare number is hours east of Greenwich.
    if let Ok(hours) = value.parse::<f64>() {
        let east = (hours * 3600.0).round();
        if !east.is_finite() || east.abs() > f64::from(MAX_OFFSET) {
            return Err(invalid());
        }
        return Ok((fixed(east as i32).ok_or_else(invalid)?, offset_name(east as i32)));
    }
    if value.eq_ignore_ascii_case("default") {
        return Ok((TimeZone::UTC, "UTC".into()));
    }
    match by_name(value) {
        Some(zone) => {
            let name = zone.iana_name().unwrap_or(value).to_string();
            Ok((zone, name))
        }
        None => Err(invalid()),
    }
}

/// How SHOW prints a zone set as an offset: `<+02>-02`.
fn offset_name(east: i32) -> String {
    let clock = |sign: char| {
        let (h, m, s) = (east.abs() / 3600, east.abs() / 60 % 60, east.abs() % 60);
        let mut text = format!("{sign}{h:02}");
        if m != 0 || s != 0 {
            text += &format!(":{m:02}");
        }
        if s != 0 {
            text += &format!(":{s:02}");
        }
        text
    };
    let (shown, posix) = if east < 0 { ('-', '+') } else { ('+', '-') };
    format!("<{}>{}", clock(shown), clock(posix))
}
