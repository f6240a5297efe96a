//! Computing with dates: extract, date_trunc, age, and arithmetic with intervals.

use super::calendar::{self, Civil};
use super::span::{Unit, unit};
use super::{
    DAY, HOUR, INFINITY, MINUTE, NEG_INFINITY, SECOND, interval_range, timestamp_range, valid_timestamp, zone,
};
use crate::error::{Result, TypeError};
use crate::interval::Interval;
use crate::numeric::Numeric;
use jiff::tz::TimeZone;
use towline_base::SqlState;

impl Interval {
    /// `-self`; `None` out of range.
    pub fn neg(&self) -> Option<Interval> {
        Some(Interval {
            micros: self.micros.checked_neg()?,
            days: self.days.checked_neg()?,
            months: self.months.checked_neg()?,
        })
    }

    /// `self + other`
    pub fn add(&self, other: &Interval) -> Result<Interval> {
        let sum = || {
            Some(Interval {
                micros: self.micros.checked_add(other.micros)?,
                days: self.days.checked_add(other.days)?,
                months: self.months.checked_add(other.months)?,
            })
        };
        sum().ok_or_else(interval_range)
    }

    /// `self - other`
    pub fn sub(&self, other: &Interval) -> Result<Interval> {
        self.add(&other.neg().ok_or_else(interval_range)?)
    }

    /// `self * factor`: fractions of months become days, of days time.
    pub fn mul(&self, factor: f64) -> Result<Interval> {
        self.scaled(|part| part * factor)
    }

    /// Each part as `scale` makes it, with what is no whole month or day in the part below.
    fn scaled(&self, scale: impl Fn(f64) -> f64) -> Result<Interval> {
        let int = |v: f64| {
            (f64::from(i32::MIN)..=f64::from(i32::MAX))
                .contains(&v)
                .then_some(v as i32)
                .ok_or_else(interval_range)
        };
        let round6 = |v: f64| (v * 1e6).round_ties_even() / 1e6;
        let months = int(scale(f64::from(self.months)))?;
        let mut days = int(scale(f64::from(self.days)))?;
        let month_rest = round6((scale(f64::from(self.months)) - f64::from(months)) * 30.0);
        let mut seconds = round6(
            (scale(f64::from(self.days)) - f64::from(days) + month_rest - month_rest.trunc()) * 86_400.0,
        );
        if seconds.abs() >= 86_400.0 {
            days = days
                .checked_add((seconds / 86_400.0) as i32)
                .ok_or_else(interval_range)?;
            seconds -= (seconds / 86_400.0).trunc() * 86_400.0;
        }
        let days = days.checked_add(month_rest as i32).ok_or_else(interval_range)?;
        let micros = (scale(self.micros as f64) + seconds * 1e6).round_ties_even();
        // i64::MAX is no float: the one above it is out of range.
        if !(i64::MIN as f64..-(i64::MIN as f64)).contains(&micros) {
            return Err(interval_range());
        }
        Ok(Interval {
            micros: micros as i64,
            days,
            months,
        })
    }

    /// `self / divisor`; 22012 for zero.
    pub fn div(&self, divisor: f64) -> Result<Interval> {
        if divisor == 0.0 {
            return Err(TypeError::division_by_zero());
        }
        // Not times 1/divisor: 49 × (1/49) is less than 1.
        self.scaled(|part| part / divisor)
    }

    /// Whole 24 hours become days (`justify_hours`).
    pub fn justify_hours(&self) -> Result<Interval> {
        let days = i32::try_from(self.micros / DAY)
            .ok()
            .and_then(|d| self.days.checked_add(d))
            .ok_or_else(interval_range)?;
        let mut out = Interval {
            micros: self.micros % DAY,
            days,
            months: self.months,
        };
        if out.days > 0 && out.micros < 0 {
            out.micros += DAY;
            out.days -= 1;
        } else if out.days < 0 && out.micros > 0 {
            out.micros -= DAY;
            out.days += 1;
        }
        Ok(out)
    }

    /// Both at once, with one sign for all parts (`justify_interval`).
    pub fn justify(&self) -> Result<Interval> {
        let days = i64::from(self.days) + self.micros / DAY;
        let mut micros = self.micros % DAY;
        let (mut months, mut days) = (i64::from(self.months) + days / 30, days % 30);
        if months > 0 && (days < 0 || (days == 0 && micros < 0)) {
            days += 30;
            months -= 1;
        } else if months < 0 && (days > 0 || (days == 0 && micros > 0)) {
            days -= 30;
            months += 1;
        }
        if days > 0 && micros < 0 {
            micros += DAY;
            days -= 1;
        } else if days < 0 && micros > 0 {
            micros -= DAY;
            days += 1;
        }
        let months = i32::try_from(months).map_err(|_| interval_range())?;
        Ok(Interval {
            micros,
            days: days as i32,
            months,
        })
    }

    /// Whole 30 days become months (`justify_days`).
    pub fn justify_days(&self) -> Result<Interval> {
        let months = self
            .months
            .checked_add(self.days / 30)
            .ok_or_else(interval_range)?;
        let mut out = Interval {
            days: self.days % 30,
            months,
            ..*self
        };
        if out.months > 0 && out.days < 0 {
            out.days += 30;
            out.months -= 1;
        } else if out.months < 0 && out.days > 0 {
            out.days -= 30;
            out.months += 1;
        }
        Ok(out)
    }
}

/// A local timestamp plus an interval: months, then days, then time.
pub fn add_interval(timestamp: i64, span: &Interval) -> Result<i64> {
    if super::is_infinite(timestamp) {
        return Ok(timestamp);
    }
    let mut t = timestamp;
    if span.months != 0 {
        let mut c = Civil::from_micros(t);
        let months = i64::from(c.year) * 12 + i64::from(c.month) - 1 + i64::from(span.months);
        c.year = i32::try_from(months.div_euclid(12)).map_err(|_| timestamp_range())?;
        c.month = months.rem_euclid(12) as i32 + 1;
        c.day = c.day.min(calendar::month_days(c.year, c.month));
        t = c.to_micros().ok_or_else(timestamp_range)?;
    }
    let shifted = t.checked_add(
        i64::from(span.days)
            .checked_mul(DAY)
            .ok_or_else(timestamp_range)?,
    );
    shifted
        .and_then(|t| t.checked_add(span.micros))
        .filter(|t| valid_timestamp(*t))
        .ok_or_else(timestamp_range)
}

/// An instant plus an interval: months and days by the local clock, the rest in elapsed time.
pub fn add_interval_tz(timestamp: i64, span: &Interval, tz: &TimeZone) -> Result<i64> {
    if super::is_infinite(timestamp) {
        return Ok(timestamp);
    }
    let mut t = timestamp;
    if span.months != 0 || span.days != 0 {
        let local = zone::utc_to_local(tz, t);
        let moved = add_interval(local, &Interval { micros: 0, ..*span })?;
        t = zone::local_to_utc(tz, moved).ok_or_else(timestamp_range)?;
    }
    t.checked_add(span.micros)
        .filter(|t| valid_timestamp(*t))
        .ok_or_else(timestamp_range)
}

/// `a - b` of two timestamps, in days and time.
pub fn difference(a: i64, b: i64) -> Result<Interval> {
    if super::is_infinite(a) || super::is_infinite(b) {
        return Err(TypeError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            "cannot subtract infinite timestamps",
        ));
    }
    let micros = a.checked_sub(b).ok_or_else(interval_range)?;
    Interval {
        micros,
        days: 0,
        months: 0,
    }
    .justify_hours()
}

/// `age(a, b)`: the difference in years, months, days and time.
pub fn age(a: i64, b: i64) -> Result<Interval> {
    if super::is_infinite(a) || super::is_infinite(b) {
        return Err(timestamp_range());
    }
    let (later, earlier, negative) = if a < b { (b, a, true) } else { (a, b, false) };
    let (x, y) = (Civil::from_micros(later), Civil::from_micros(earlier));
    let mut micros = later.rem_euclid(DAY) - earlier.rem_euclid(DAY);
    let mut days = x.day - y.day;
    let mut months = (x.year - y.year) * 12 + x.month - y.month;
    if micros < 0 {
        micros += DAY;
        days -= 1;
    }
    while days < 0 {
        // Borrow the days of the earlier date's month, whichever way the difference is asked for.
        days += calendar::month_days(y.year, y.month);
        months -= 1;
    }
    let span = Interval { micros, days, months };
    if negative {
        span.neg().ok_or_else(interval_range)
    } else {
        Ok(span)
    }
}

/// 22023 (or 0A000 in `extract` of a known unit) for a unit that the type does not have.
#[cold]
fn unknown_unit(field: &str, type_name: &str, known: bool) -> TypeError {
    if known {
        TypeError::unsupported(format!("unit \"{field}\" not supported for type {type_name}"))
    } else {
        TypeError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("unit \"{field}\" not recognized for type {type_name}"),
        )
    }
}

/// Units that only `extract` knows.
fn extract_word(word: &str) -> bool {
    matches!(
        word,
        "dow"
            | "isodow"
            | "doy"
            | "epoch"
            | "isoyear"
            | "julian"
            | "timezone"
            | "timezone_hour"
            | "timezone_h"
            | "timezone_m"
            | "timezone_minute"
    )
}

/// Seconds of 1970-01-01 before 2000-01-01, in µs.
const UNIX_EPOCH: i64 = -946_684_800 * SECOND;

/// What `extract` is applied to.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// `date`, as a day number.
    Date(i32),
    /// `timestamp`
    Timestamp(i64),
    /// `timestamptz` in a zone.
    TimestampTz(i64, &'a TimeZone),
    /// `time`
    Time(i64),
    /// `interval`
    Interval(Interval),
}

/// `extract(field from source)`; `None` is NULL (fields of an infinity).
pub fn extract(field: &str, source: Source<'_>) -> Result<Option<Numeric>> {
    let word = field.to_ascii_lowercase();
    match source {
        Source::Interval(span) => extract_interval(&word, field, &span),
        Source::Time(micros) => extract_time(&word, field, micros),
        Source::Date(days) => {
            const NAME: &str = "date";
            let infinite = days == super::DATE_INFINITY || days == super::DATE_NEG_INFINITY;
            let clock = matches!(
                unit(&word),
                Some(Unit::Microsecond | Unit::Millisecond | Unit::Second | Unit::Minute | Unit::Hour)
            );
            if clock || word.starts_with("timezone") {
                return Err(unknown_unit(&word, NAME, true));
            }
            if infinite {
                return infinite_field(&word, days > 0, NAME);
            }
            if word == "epoch" {
                return Ok(Some(Numeric::from(i64::from(days) * 86_400 + 946_684_800)));
            }
            if word == "julian" {
                return Ok(Some(Numeric::from(days + calendar::EPOCH_JULIAN)));
            }
            // Most dates have no timestamp.
            let (year, month, day) = calendar::date(days);
            let civil = Civil {
                year,
                month,
                day,
                ..Civil::default()
            };
            extract_civil(&word, civil, days, 0, NAME).map(Some)
        }
        Source::Timestamp(t) => {
            const NAME: &str = "timestamp without time zone";
            if super::is_infinite(t) {
                return infinite_field(&word, t > 0, NAME);
            }
            if word.starts_with("timezone") {
                return Err(unknown_unit(&word, NAME, true));
            }
            if word == "epoch" {
                return Ok(Some(Numeric::from_scaled(
                    i128::from(t) - i128::from(UNIX_EPOCH),
                    6,
                )));
            }
            extract_moment(&word, t, NAME).map(Some)
        }
        Source::TimestampTz(t, tz) => {
            const NAME: &str = "timestamp with time zone";
            if super::is_infinite(t) {
                return infinite_field(&word, t > 0, NAME);
            }
            let east = zone::offset_at(tz, t);
            match word.as_str() {
                "epoch" => Ok(Some(Numeric::from_scaled(
                    i128::from(t) - i128::from(UNIX_EPOCH),
                    6,
                ))),
                "timezone" => Ok(Some(Numeric::from(east))),
                "timezone_hour" | "timezone_h" => Ok(Some(Numeric::from(east / 3600))),
                "timezone_minute" | "timezone_m" => Ok(Some(Numeric::from(east / 60 % 60))),
                _ => extract_moment(&word, t + i64::from(east) * SECOND, NAME).map(Some),
            }
        }
    }
}

/// Fields of an infinity: infinite where they grow without bound, NULL where they cycle.
fn infinite_field(word: &str, positive: bool, type_name: &str) -> Result<Option<Numeric>> {
    let grows = matches!(
        unit(word),
        Some(Unit::Year | Unit::Decade | Unit::Century | Unit::Millennium)
    ) || matches!(word, "epoch" | "isoyear" | "julian");
    if grows {
        return Ok(Some(Numeric::infinity(!positive)));
    }
    if unit(word).is_some() || extract_word(word) {
        Ok(None)
    } else {
        Err(unknown_unit(word, type_name, false))
    }
}

/// The year as people count: no year 0.
fn shown_year(year: i32) -> i32 {
    if year > 0 { year } else { year - 1 }
}

fn extract_moment(word: &str, t: i64, type_name: &str) -> Result<Numeric> {
    let c = Civil::from_micros(t);
    extract_civil(word, c, c.days(), t.rem_euclid(DAY), type_name)
}

/// A field of a moment: its calendar, the number of its day, and the time of that day.
fn extract_civil(word: &str, c: Civil, days: i32, time: i64, type_name: &str) -> Result<Numeric> {
    let in_second = i64::from(c.second) * SECOND + i64::from(c.micros);
    Ok(match unit(word) {
        Some(Unit::Microsecond) => Numeric::from(in_second),
        Some(Unit::Millisecond) => Numeric::from_scaled(i128::from(in_second), 3),
        Some(Unit::Second) => Numeric::from_scaled(i128::from(in_second), 6),
        Some(Unit::Minute) => Numeric::from(c.minute),
        Some(Unit::Hour) => Numeric::from(c.hour),
        Some(Unit::Day) => Numeric::from(c.day),
        Some(Unit::Week) => Numeric::from(calendar::iso_week(days).1),
        Some(Unit::Month) => Numeric::from(c.month),
        Some(Unit::Quarter) => Numeric::from((c.month - 1) / 3 + 1),
        Some(Unit::Year) => Numeric::from(shown_year(c.year)),
        Some(Unit::Decade) => Numeric::from(c.year.div_euclid(10)),
        Some(Unit::Century) => Numeric::from(period(c.year, 100)),
        Some(Unit::Millennium) => Numeric::from(period(c.year, 1000)),
        None => match word {
            "dow" => Numeric::from(calendar::weekday(days)),
            "isodow" => Numeric::from((calendar::weekday(days) + 6) % 7 + 1),
            "doy" => Numeric::from(days - calendar::days(c.year, 1, 1) + 1),
            "isoyear" => Numeric::from(shown_year(calendar::iso_week(days).0)),
            "julian" => {
                let day = Numeric::from(days + calendar::EPOCH_JULIAN);
                let part = Numeric::from(time).div(&Numeric::from(DAY))?;
                day.add(&part)?
            }
            _ => return Err(unknown_unit(word, type_name, false)),
        },
    })
}

/// Century or millennium of a year: they begin with a year 1.
fn period(year: i32, length: i32) -> i32 {
    if year > 0 {
        (year + length - 1) / length
    } else {
        -((length - 1 - (year - 1)) / length)
    }
}

fn extract_time(word: &str, field: &str, micros: i64) -> Result<Option<Numeric>> {
    const NAME: &str = "time without time zone";
    let (h, m, s, us) = calendar::split_time(micros);
    let in_second = i128::from(s) * i128::from(SECOND) + i128::from(us);
    Ok(Some(match unit(word) {
        Some(Unit::Microsecond) => Numeric::from(in_second),
        Some(Unit::Millisecond) => Numeric::from_scaled(in_second, 3),
        Some(Unit::Second) => Numeric::from_scaled(in_second, 6),
        Some(Unit::Minute) => Numeric::from(m),
        Some(Unit::Hour) => Numeric::from(h),
        None if word == "epoch" => Numeric::from_scaled(i128::from(micros), 6),
        known => return Err(unknown_unit(field, NAME, known.is_some() || extract_word(word))),
    }))
}

fn extract_interval(word: &str, field: &str, span: &Interval) -> Result<Option<Numeric>> {
    let in_minute = i128::from(span.micros % MINUTE);
    let (years, months) = (span.months / 12, span.months % 12);
    Ok(Some(match unit(word) {
        Some(Unit::Microsecond) => Numeric::from(in_minute),
        Some(Unit::Millisecond) => Numeric::from_scaled(in_minute, 3),
        Some(Unit::Second) => Numeric::from_scaled(in_minute, 6),
        Some(Unit::Minute) => Numeric::from(span.micros / MINUTE % 60),
        Some(Unit::Hour) => Numeric::from(span.micros / HOUR),
        Some(Unit::Day) => Numeric::from(span.days),
        Some(Unit::Month) => Numeric::from(months),
        Some(Unit::Quarter) => Numeric::from(months / 3 + 1),
        Some(Unit::Year) => Numeric::from(years),
        Some(Unit::Decade) => Numeric::from(years / 10),
        Some(Unit::Century) => Numeric::from(years / 100),
        Some(Unit::Millennium) => Numeric::from(years / 1000),
        None if word == "epoch" => {
            // A year has 365.25 days here, a month 30.
            let days =
                (i128::from(years) * 1461 + i128::from(months) * 120 + i128::from(span.days) * 4) * 21_600;
            Numeric::from_scaled(days * i128::from(SECOND) + i128::from(span.micros), 6)
        }
        known => {
            return Err(unknown_unit(
                field,
                "interval",
                known.is_some() || extract_word(word),
            ));
        }
    }))
}

/// `date_trunc(field, timestamp)`
pub fn truncate(field: &str, t: i64, type_name: &str) -> Result<i64> {
    let word = field.to_ascii_lowercase();
    let unit = unit(&word).ok_or_else(|| unknown_unit(&word, type_name, word.starts_with("timezone")))?;
    if t == INFINITY || t == NEG_INFINITY {
        return Ok(t);
    }
    let c = Civil::from_micros(t);
    let day = Civil {
        year: c.year,
        month: c.month,
        day: c.day,
        ..Civil::default()
    };
    let first = |year: i32, month: i32| Civil {
        year,
        month,
        day: 1,
        ..Civil::default()
    };
    let start = match unit {
        Unit::Microsecond => return Ok(t),
        Unit::Millisecond => return Ok(t - t.rem_euclid(1000)),
        Unit::Second => return Ok(t - t.rem_euclid(SECOND)),
        Unit::Minute => return Ok(t - t.rem_euclid(MINUTE)),
        Unit::Hour => return Ok(t - t.rem_euclid(HOUR)),
        Unit::Day => day,
        Unit::Week => {
            let days = c.days();
            let monday = days - (calendar::weekday(days) + 6) % 7;
            return Ok(i64::from(monday) * DAY);
        }
        Unit::Month => first(c.year, c.month),
        Unit::Quarter => first(c.year, (c.month - 1) / 3 * 3 + 1),
        Unit::Year => first(c.year, 1),
        Unit::Decade => first(c.year.div_euclid(10) * 10, 1),
        Unit::Century => first((c.year - 1).div_euclid(100) * 100 + 1, 1),
        Unit::Millennium => first((c.year - 1).div_euclid(1000) * 1000 + 1, 1),
    };
    start
        .to_micros()
        .filter(|t| valid_timestamp(*t))
        .ok_or_else(timestamp_range)
}

/// `date_trunc(field, timestamptz)` by a zone's clock.
pub fn truncate_tz(field: &str, t: i64, tz: &TimeZone) -> Result<i64> {
    const NAME: &str = "timestamp with time zone";
    if super::is_infinite(t) {
        return truncate(field, t, NAME);
    }
    let east = i64::from(zone::offset_at(tz, t)) * SECOND;
    let local = truncate(field, t + east, NAME)?;
    // Within a day the offset stays that of the instant, so that a repeated hour is not moved.
    let word = field.to_ascii_lowercase();
    match unit(&word) {
        Some(Unit::Microsecond | Unit::Millisecond | Unit::Second | Unit::Minute | Unit::Hour) => {
            Ok(local - east)
        }
        _ => zone::local_to_utc(tz, local).ok_or_else(timestamp_range),
    }
}

/// `date_trunc(field, interval)`
pub fn truncate_interval(field: &str, span: &Interval) -> Result<Interval> {
    let word = field.to_ascii_lowercase();
    let unit = unit(&word).ok_or_else(|| unknown_unit(&word, "interval", word.starts_with("timezone")))?;
    let cut = |step: i64| Interval {
        micros: span.micros - span.micros % step,
        ..*span
    };
    let months = |step: i32| Interval {
        micros: 0,
        days: 0,
        months: span.months - span.months % step,
    };
    Ok(match unit {
        Unit::Microsecond => *span,
        Unit::Millisecond => cut(1000),
        Unit::Second => cut(SECOND),
        Unit::Minute => cut(MINUTE),
        Unit::Hour => cut(HOUR),
        Unit::Day => Interval { micros: 0, ..*span },
        Unit::Week => {
            return Err(
                unknown_unit(&word, "interval", true).with_detail("Months usually have fractional weeks.")
            );
        }
        Unit::Month => months(1),
        Unit::Quarter => months(3),
        Unit::Year => months(12),
        Unit::Decade => months(120),
        Unit::Century => months(1200),
        Unit::Millennium => months(12_000),
    })
}

/// Rounds a timestamp to `precision` digits of the second (the type modifier).
pub fn round_micros(t: i64, precision: i32) -> i64 {
    if !(0..6).contains(&precision) || super::is_infinite(t) {
        return t;
    }
    let step = 10i64.pow(6 - precision as u32);
    let half = step / 2;
    // Half away from zero, as PostgreSQL's AdjustTimestampForTypmod.
    // A span of time may be so long that nothing is left to round it to: it stays.
    match t.checked_add(if t >= 0 { half } else { -half }) {
        Some(moved) => moved / step * step,
        None => t,
    }
}
