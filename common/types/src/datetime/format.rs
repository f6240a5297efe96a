//! Printing dates, times and timestamps in the four DateStyles.

use super::calendar::{self, Civil};
use super::zone;
use super::{DATE_INFINITY, DATE_NEG_INFINITY, INFINITY, NEG_INFINITY};
use crate::output::put_u64;
use crate::style::{DateOrder, DateStyle, IoStyle};
use bytes::BufMut;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// Two digits.
pub(super) fn put_2(value: i32, out: &mut impl BufMut) {
    let value = value as u32;
    if value < 100 {
        out.put_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
    } else {
        put_u64(u64::from(value), out);
    }
}

/// A year as shown (1 BC is 1), at least four digits.
fn put_year(year: i32, out: &mut impl BufMut) {
    let shown = if year > 0 { year as u32 } else { (1 - year) as u32 };
    if shown < 1000 {
        out.put_slice(
            &b"000"[..if shown < 10 {
                3
            } else if shown < 100 {
                2
            } else {
                1
            }],
        );
    }
    put_u64(u64::from(shown), out);
}

/// `.ffffff` without trailing zeros; nothing for zero.
pub(super) fn put_fraction(micros: i32, out: &mut impl BufMut) {
    if micros == 0 {
        return;
    }
    let mut digits = [0u8; 6];
    let mut rest = micros.unsigned_abs();
    for d in digits.iter_mut().rev() {
        *d = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let len = digits.iter().rposition(|d| *d != b'0').map_or(0, |i| i + 1);
    out.put_u8(b'.');
    out.put_slice(&digits[..len]);
}

fn put_clock(c: &Civil, out: &mut impl BufMut) {
    put_2(c.hour, out);
    out.put_u8(b':');
    put_2(c.minute, out);
    out.put_u8(b':');
    put_2(c.second, out);
    put_fraction(c.micros, out);
}

/// `±hh[:mm[:ss]]`
fn put_offset(east: i32, out: &mut impl BufMut) {
    out.put_u8(if east < 0 { b'-' } else { b'+' });
    let seconds = east.abs();
    put_2(seconds / 3600, out);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    if minutes != 0 || seconds != 0 {
        out.put_u8(b':');
        put_2(minutes, out);
    }
    if seconds != 0 {
        out.put_u8(b':');
        put_2(seconds, out);
    }
}

/// Month and day (or day and month) with a separator.
fn put_pair(c: &Civil, day_first: bool, separator: u8, out: &mut impl BufMut) {
    let (a, b) = if day_first {
        (c.day, c.month)
    } else {
        (c.month, c.day)
    };
    put_2(a, out);
    out.put_u8(separator);
    put_2(b, out);
}

fn put_era(year: i32, out: &mut impl BufMut) {
    if year <= 0 {
        out.put_slice(b" BC");
    }
}

/// Appends a `date`.
pub fn write_date(days: i32, style: &IoStyle, out: &mut impl BufMut) {
    match days {
        DATE_INFINITY => return out.put_slice(b"infinity"),
        DATE_NEG_INFINITY => return out.put_slice(b"-infinity"),
        _ => {}
    }
    let (year, month, day) = calendar::date(days);
    let c = Civil {
        year,
        month,
        day,
        ..Civil::default()
    };
    let day_first = style.date_order == DateOrder::Dmy;
    match style.date_style {
        DateStyle::Iso => put_iso_date(&c, out),
        DateStyle::Sql => {
            put_pair(&c, day_first, b'/', out);
            out.put_u8(b'/');
            put_year(year, out);
        }
        DateStyle::German => {
            put_pair(&c, true, b'.', out);
            out.put_u8(b'.');
            put_year(year, out);
        }
        DateStyle::Postgres => {
            put_pair(&c, day_first, b'-', out);
            out.put_u8(b'-');
            put_year(year, out);
        }
    }
    put_era(year, out);
}

fn put_iso_date(c: &Civil, out: &mut impl BufMut) {
    put_year(c.year, out);
    out.put_u8(b'-');
    put_2(c.month, out);
    out.put_u8(b'-');
    put_2(c.day, out);
}

/// Appends a `time`.
pub fn write_time(micros: i64, out: &mut impl BufMut) {
    let (hour, minute, second, micros) = calendar::split_time(micros);
    put_clock(
        &Civil {
            hour,
            minute,
            second,
            micros,
            ..Civil::default()
        },
        out,
    );
}

/// Appends a `timestamp`.
pub fn write_timestamp(micros: i64, style: &IoStyle, out: &mut impl BufMut) {
    if !put_infinity(micros, out) {
        put_moment(&Civil::from_micros(micros), None, style, out);
    }
}

/// Appends a `timestamptz` in the session's zone.
pub fn write_timestamptz(micros: i64, style: &IoStyle, out: &mut impl BufMut) {
    if put_infinity(micros, out) {
        return;
    }
    let east = zone::offset_at(&style.time_zone, micros);
    let local = Civil::from_micros(micros + i64::from(east) * super::SECOND);
    put_moment(&local, Some((east, micros)), style, out);
}

fn put_infinity(micros: i64, out: &mut impl BufMut) -> bool {
    match micros {
        INFINITY => out.put_slice(b"infinity"),
        NEG_INFINITY => out.put_slice(b"-infinity"),
        _ => return false,
    }
    true
}

/// A local time with, for `timestamptz`, its offset and instant.
fn put_moment(c: &Civil, zone: Option<(i32, i64)>, style: &IoStyle, out: &mut impl BufMut) {
    let day_first = style.date_order == DateOrder::Dmy;
    let put_zone = |out: &mut _, named: bool| {
        if let Some((east, instant)) = zone {
            let name = zone::abbreviation_at(&style.time_zone, instant);
            if named && name.starts_with(|c: char| c.is_ascii_alphabetic()) {
                BufMut::put_u8(out, b' ');
                BufMut::put_slice(out, name.as_bytes());
            } else {
                if style.date_style == DateStyle::Postgres {
                    BufMut::put_u8(out, b' ');
                }
                put_offset(east, out);
            }
        }
    };
    match style.date_style {
        DateStyle::Iso => {
            put_iso_date(c, out);
            out.put_u8(b' ');
            put_clock(c, out);
            if let Some((east, _)) = zone {
                put_offset(east, out);
            }
        }
        DateStyle::Sql | DateStyle::German => {
            let german = style.date_style == DateStyle::German;
            let separator = if german { b'.' } else { b'/' };
            put_pair(c, german || day_first, separator, out);
            out.put_u8(separator);
            put_year(c.year, out);
            out.put_u8(b' ');
            put_clock(c, out);
            put_zone(out, true);
        }
        DateStyle::Postgres => {
            out.put_slice(WEEKDAYS[calendar::weekday(c.days()) as usize].as_bytes());
            out.put_u8(b' ');
            let month = MONTHS[(c.month - 1).clamp(0, 11) as usize].as_bytes();
            if day_first {
                put_2(c.day, out);
                out.put_u8(b' ');
                out.put_slice(month);
            } else {
                out.put_slice(month);
                out.put_u8(b' ');
                put_2(c.day, out);
            }
            out.put_u8(b' ');
            put_clock(c, out);
            out.put_u8(b' ');
            put_year(c.year, out);
            put_zone(out, true);
        }
    }
    put_era(c.year, out);
}
