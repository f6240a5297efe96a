//! Dates and times: µs and days since 2000-01-01 in the proleptic Gregorian calendar, PostgreSQL's ranges and texts.
//!
//! `calendar` converts between day numbers and years, months and days; `zone` knows time zones; `parse` reads (with
//! `words`), `format` prints; `span` is interval's text; `fields` extracts, truncates and computes.

pub mod calendar;
pub mod fields;
pub mod format;
pub mod parse;
pub mod span;
mod words;
pub mod zone;

use crate::error::TypeError;
use towline_base::SqlState;

/// Microseconds of a day.
pub const DAY: i64 = 86_400_000_000;
/// Microseconds of an hour.
pub const HOUR: i64 = 3_600_000_000;
/// Microseconds of a minute.
pub const MINUTE: i64 = 60_000_000;
/// Microseconds of a second.
pub const SECOND: i64 = 1_000_000;
/// The first timestamp: 4714-11-24 BC.
pub const MIN_TIMESTAMP: i64 = -211_813_488_000_000_000;
/// The first timestamp that is out of range again: 294277-01-01.
pub const END_TIMESTAMP: i64 = 9_223_371_331_200_000_000;
/// The first date, as a day number since 2000: 4714-11-24 BC.
pub const MIN_DATE: i32 = -2_451_545;
/// The first date that is out of range again: 5874898-01-01.
pub const END_DATE: i32 = 2_145_031_949;
/// Timestamp infinities.
pub const INFINITY: i64 = i64::MAX;
/// Timestamp infinities.
pub const NEG_INFINITY: i64 = i64::MIN;
/// Date infinities.
pub const DATE_INFINITY: i32 = i32::MAX;
/// Date infinities.
pub const DATE_NEG_INFINITY: i32 = i32::MIN;

/// Whether a finite timestamp is in range.
pub fn valid_timestamp(micros: i64) -> bool {
    (MIN_TIMESTAMP..END_TIMESTAMP).contains(&micros)
}

/// Whether a date is in range or an infinity.
pub fn valid_date(days: i32) -> bool {
    (MIN_DATE..END_DATE).contains(&days) || days == DATE_INFINITY || days == DATE_NEG_INFINITY
}

/// Whether a timestamp is an infinity.
pub fn is_infinite(micros: i64) -> bool {
    micros == INFINITY || micros == NEG_INFINITY
}

/// 22008 `timestamp out of range`.
#[cold]
pub fn timestamp_range() -> TypeError {
    TypeError::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
}

/// 22008 `date out of range`.
#[cold]
pub fn date_range() -> TypeError {
    TypeError::new(SqlState::DATETIME_FIELD_OVERFLOW, "date out of range")
}

/// 22008 `interval out of range`.
#[cold]
pub fn interval_range() -> TypeError {
    TypeError::new(SqlState::DATETIME_FIELD_OVERFLOW, "interval out of range")
}
