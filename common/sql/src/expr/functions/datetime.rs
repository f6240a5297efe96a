//! Date and time functions and operators.

use super::{FunctionDef, date, def, float, fromchar, int, int32, micros, num, span, text, tochar, txt};
use crate::error::SqlError;
use crate::expr::EvalContext;
use towline_base::SqlState;
use towline_types::TypeId::*;
use towline_types::datetime::fields::{self, Source};
use towline_types::datetime::{self, DAY, calendar, zone};
use towline_types::{Datum, Interval as Span, TypeError, cast};

type Answer = Result<Datum, SqlError>;

/// Seconds from 1970 to 2000.
const EPOCH: f64 = 946_684_800.0;

fn date_range() -> SqlError {
    datetime::date_range().into()
}

fn date_plus(days: i32, more: i64) -> Answer {
    if days == datetime::DATE_INFINITY || days == datetime::DATE_NEG_INFINITY {
        return Ok(Datum::Date(days));
    }
    let sum = i32::try_from(i64::from(days) + more).ok();
    sum.filter(|d| (datetime::MIN_DATE..datetime::END_DATE).contains(d))
        .map(Datum::Date)
        .ok_or_else(date_range)
}

fn date_add(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    date_plus(date(&a[0])?, int(&a[1])?)
}
fn add_date(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    date_plus(date(&a[1])?, int(&a[0])?)
}
fn date_sub(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    date_plus(date(&a[0])?, -int(&a[1])?)
}
fn date_diff(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (x, y) = (date(&a[0])?, date(&a[1])?);
    let infinite = |d: i32| d == datetime::DATE_INFINITY || d == datetime::DATE_NEG_INFINITY;
    if infinite(x) || infinite(y) {
        return Err(SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            "cannot subtract infinite dates",
        ));
    }
    Ok(Datum::Int4(x.wrapping_sub(y)))
}

fn negated(v: &Span) -> Result<Span, SqlError> {
    v.neg().ok_or_else(|| datetime::interval_range().into())
}

fn date_plus_span(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let t = cast::date_to_timestamp(date(&a[0])?)?;
    Ok(Datum::Timestamp(fields::add_interval(t, &span(&a[1])?)?))
}
fn span_plus_date(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    date_plus_span(cx, &[a[1].clone(), a[0].clone()])
}
fn date_minus_span(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let t = cast::date_to_timestamp(date(&a[0])?)?;
    Ok(Datum::Timestamp(fields::add_interval(
        t,
        &negated(&span(&a[1])?)?,
    )?))
}
/// A day and a time of it.
fn at_time(day: i64, time: i64) -> Result<i64, SqlError> {
    if datetime::is_infinite(day) {
        return Ok(day);
    }
    day.checked_add(time)
        .filter(|t| datetime::valid_timestamp(*t))
        .ok_or_else(|| datetime::timestamp_range().into())
}

fn date_plus_time(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let day = cast::date_to_timestamp(date(&a[0])?)?;
    at_time(day, micros(&a[1])?).map(Datum::Timestamp)
}
fn time_plus_date(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    date_plus_time(cx, &[a[1].clone(), a[0].clone()])
}

fn ts_plus(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Timestamp(fields::add_interval(
        micros(&a[0])?,
        &span(&a[1])?,
    )?))
}
fn plus_ts(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Timestamp(fields::add_interval(
        micros(&a[1])?,
        &span(&a[0])?,
    )?))
}
fn ts_minus(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Timestamp(fields::add_interval(
        micros(&a[0])?,
        &negated(&span(&a[1])?)?,
    )?))
}
fn tz_plus(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::TimestampTz(fields::add_interval_tz(
        micros(&a[0])?,
        &span(&a[1])?,
        &cx.style.time_zone,
    )?))
}
fn plus_tz(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::TimestampTz(fields::add_interval_tz(
        micros(&a[1])?,
        &span(&a[0])?,
        &cx.style.time_zone,
    )?))
}
fn tz_minus(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let back = negated(&span(&a[1])?)?;
    Ok(Datum::TimestampTz(fields::add_interval_tz(
        micros(&a[0])?,
        &back,
        &cx.style.time_zone,
    )?))
}
fn ts_diff(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Interval(fields::difference(
        micros(&a[0])?,
        micros(&a[1])?,
    )?))
}
fn time_diff(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Interval(Span {
        micros: micros(&a[0])? - micros(&a[1])?,
        days: 0,
        months: 0,
    }))
}
fn time_plus(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Time(
        micros(&a[0])?
            .wrapping_add(span(&a[1])?.micros % DAY)
            .rem_euclid(DAY),
    ))
}
fn plus_time(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    time_plus(cx, &[a[1].clone(), a[0].clone()])
}
fn time_minus(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Time(
        micros(&a[0])?
            .wrapping_sub(span(&a[1])?.micros % DAY)
            .rem_euclid(DAY),
    ))
}

fn span_add(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Interval(span(&a[0])?.add(&span(&a[1])?)?))
}
fn span_sub(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Interval(span(&a[0])?.sub(&span(&a[1])?)?))
}
fn span_neg(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Interval(negated(&span(&a[0])?)?))
}
fn span_mul(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Interval(span(&a[0])?.mul(float(&a[1])?)?))
}
fn mul_span(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Interval(span(&a[1])?.mul(float(&a[0])?)?))
}
fn span_div(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Interval(span(&a[0])?.div(float(&a[1])?)?))
}

fn now(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::TimestampTz(cx.functions.transaction_timestamp()))
}
fn statement_now(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::TimestampTz(cx.functions.statement_timestamp()))
}
fn clock(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::TimestampTz(cx.functions.clock_timestamp()))
}
fn local_now(cx: &EvalContext<'_>) -> i64 {
    cast::utc_to_local(cx.functions.transaction_timestamp(), cx.style)
}
fn current_date(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::Date(cast::timestamp_to_date(local_now(cx))))
}
fn local_timestamp(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::Timestamp(local_now(cx)))
}
fn local_time(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::Time(local_now(cx).rem_euclid(DAY)))
}
fn now_rounded(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let t = cx.functions.transaction_timestamp();
    Ok(Datum::TimestampTz(fields::round_micros(t, int32(&a[0])?)))
}
fn local_rounded(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Timestamp(fields::round_micros(
        local_now(cx),
        int32(&a[0])?,
    )))
}
fn timeofday(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    let mut style = cx.style.clone();
    style.date_style = towline_types::style::DateStyle::Postgres;
    Ok(text(&towline_types::text_of(
        &Datum::TimestampTz(cx.functions.clock_timestamp()),
        &style,
    )))
}

fn source<'a>(cx: &EvalContext<'a>, d: &Datum) -> Result<Source<'a>, SqlError> {
    Ok(match d {
        Datum::Date(v) => Source::Date(*v),
        Datum::Timestamp(v) => Source::Timestamp(*v),
        Datum::TimestampTz(v) => Source::TimestampTz(*v, &cx.style.time_zone),
        Datum::Time(v) => Source::Time(*v),
        Datum::Interval(v) => Source::Interval(*v),
        other => return Err(super::mismatch("date or time", other)),
    })
}

fn extract(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(fields::extract(txt(&a[0])?, source(cx, &a[1])?)?.map_or(Datum::Null, Datum::Numeric))
}

fn date_part(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    // A date counts as a timestamp here: it has hours.
    let from = match source(cx, &a[1])? {
        Source::Date(d) => Source::Timestamp(cast::date_to_timestamp(d)?),
        other => other,
    };
    Ok(fields::extract(txt(&a[0])?, from)?.map_or(Datum::Null, |n| Datum::Float8(n.to_f64_lossy())))
}

fn trunc_ts(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Timestamp(fields::truncate(
        txt(&a[0])?,
        micros(&a[1])?,
        "timestamp without time zone",
    )?))
}
fn trunc_tz(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::TimestampTz(fields::truncate_tz(
        txt(&a[0])?,
        micros(&a[1])?,
        &cx.style.time_zone,
    )?))
}
fn trunc_tz_in(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::TimestampTz(fields::truncate_tz(
        txt(&a[0])?,
        micros(&a[1])?,
        &zone::lookup(txt(&a[2])?)?,
    )?))
}
fn trunc_span(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Interval(fields::truncate_interval(
        txt(&a[0])?,
        &span(&a[1])?,
    )?))
}

fn age_ts(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Interval(fields::age(micros(&a[0])?, micros(&a[1])?)?))
}
fn age_tz(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let local = |d: &Datum| Ok::<_, SqlError>(cast::utc_to_local(micros(d)?, cx.style));
    Ok(Datum::Interval(fields::age(local(&a[0])?, local(&a[1])?)?))
}
fn today(cx: &EvalContext<'_>) -> i64 {
    local_now(cx).div_euclid(DAY) * DAY
}
fn age_since_ts(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Interval(fields::age(today(cx), micros(&a[0])?)?))
}
fn age_since_tz(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Interval(fields::age(
        today(cx),
        cast::utc_to_local(micros(&a[0])?, cx.style),
    )?))
}

/// `timezone(zone, timestamp)`: AT TIME ZONE.
fn zone_of_ts(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let t = micros(&a[1])?;
    if datetime::is_infinite(t) {
        return Ok(Datum::TimestampTz(t));
    }
    let utc = zone::local_to_utc(&zone::lookup(txt(&a[0])?)?, t).filter(|t| datetime::valid_timestamp(*t));
    utc.map(Datum::TimestampTz)
        .ok_or_else(|| datetime::timestamp_range().into())
}
fn zone_of_tz(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let t = micros(&a[1])?;
    if datetime::is_infinite(t) {
        return Ok(Datum::Timestamp(t));
    }
    Ok(Datum::Timestamp(zone::utc_to_local(
        &zone::lookup(txt(&a[0])?)?,
        t,
    )))
}
fn offset_of_ts(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let t = micros(&a[1])?
        .checked_sub(zone_span(&a[0])?)
        .filter(|t| datetime::valid_timestamp(*t));
    t.map(Datum::TimestampTz)
        .ok_or_else(|| datetime::timestamp_range().into())
}
fn offset_of_tz(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let t = micros(&a[1])?
        .checked_add(zone_span(&a[0])?)
        .filter(|t| datetime::valid_timestamp(*t));
    t.map(Datum::Timestamp)
        .ok_or_else(|| datetime::timestamp_range().into())
}
fn zone_span(d: &Datum) -> Result<i64, SqlError> {
    let v = span(d)?;
    if v.months != 0 || v.days != 0 {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "interval time zone must not include months or days",
        ));
    }
    Ok(v.micros)
}

fn to_timestamp(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let seconds = float(&a[0])?;
    let range = || {
        SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("timestamp out of range: \"{seconds}\""),
        )
    };
    if seconds.is_nan() {
        return Err(SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            "timestamp cannot be NaN",
        ));
    }
    if seconds.is_infinite() {
        return Ok(Datum::TimestampTz(if seconds > 0.0 {
            datetime::INFINITY
        } else {
            datetime::NEG_INFINITY
        }));
    }
    let t = ((seconds - EPOCH) * 1e6).round_ties_even();
    if !(-2.2e17..9.3e18).contains(&t) || !datetime::valid_timestamp(t as i64) {
        return Err(range());
    }
    Ok(Datum::TimestampTz(t as i64))
}

fn make_date(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (year, month, day) = (int32(&a[0])?, int32(&a[1])?, int32(&a[2])?);
    let shown = if year < 0 { year.wrapping_add(1) } else { year };
    let valid = year != 0
        && (-4713..=5_874_897).contains(&shown)
        && (1..=12).contains(&month)
        && day >= 1
        && day <= calendar::month_days(shown, month);
    if !valid {
        return Err(SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("date field value out of range: {year}-{month:02}-{day:02}"),
        ));
    }
    date_plus(calendar::days(shown, month, day), 0)
}

fn clock_micros(hour: i64, minute: i64, second: f64) -> Result<i64, SqlError> {
    let valid = (0..=24).contains(&hour) && (0..60).contains(&minute) && (0.0..=60.0).contains(&second);
    let total = hour * 3_600_000_000 + minute * 60_000_000 + (second * 1e6).round_ties_even() as i64;
    if !valid || total > DAY {
        return Err(SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("time field value out of range: {hour}:{minute:02}:{second:02}"),
        ));
    }
    Ok(total)
}

fn make_time(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Time(clock_micros(
        int(&a[0])?,
        int(&a[1])?,
        float(&a[2])?,
    )?))
}

fn made_timestamp(cx: &EvalContext<'_>, a: &[Datum]) -> Result<i64, SqlError> {
    let day = make_date(cx, &a[..3])?;
    let (hour, minute, second) = (int(&a[3])?, int(&a[4])?, float(&a[5])?);
    let time = clock_micros(hour, minute, second)?;
    at_time(cast::date_to_timestamp(date(&day)?)?, time).map_err(|_| {
        let (year, month, day) = (int(&a[0]), int(&a[1]), int(&a[2]));
        let [year, month, day] = [year, month, day].map(Result::unwrap_or_default);
        SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("timestamp out of range: {year}-{month:02}-{day:02} {hour}:{minute:02}:{second:02}"),
        )
    })
}
fn make_timestamp(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Timestamp(made_timestamp(cx, a)?))
}
fn make_timestamptz(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::TimestampTz(cast::local_to_utc(
        made_timestamp(cx, a)?,
        cx.style,
    )?))
}

fn make_interval(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    // years, months, weeks, days, hours, minutes, seconds; what is missing is 0.
    let n = |i: usize| a.get(i).map_or(Ok(0), int);
    let seconds = a.get(6).map_or(Ok(0.0), float)?;
    let range = || SqlError::from(datetime::interval_range());
    let months = i32::try_from(n(0)? * 12 + n(1)?).map_err(|_| range())?;
    let days = i32::try_from(n(2)? * 7 + n(3)?).map_err(|_| range())?;
    if !seconds.is_finite() || seconds.abs() > 9e12 {
        return Err(range());
    }
    let time = n(4)? * 3_600_000_000 + n(5)? * 60_000_000;
    let micros = time
        .checked_add((seconds * 1e6).round_ties_even() as i64)
        .ok_or_else(range)?;
    Ok(Datum::Interval(Span { micros, days, months }))
}

fn justify_hours(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Interval(span(&a[0])?.justify_hours()?))
}
fn justify_days(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Interval(span(&a[0])?.justify_days()?))
}
fn justify_interval(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Interval(span(&a[0])?.justify()?))
}

fn is_finite(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Bool(match &a[0] {
        Datum::Date(d) => *d != datetime::DATE_INFINITY && *d != datetime::DATE_NEG_INFINITY,
        Datum::Interval(_) => true,
        d => !datetime::is_infinite(micros(d)?),
    }))
}

fn overlaps(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let t = |i: usize| micros(&a[i]);
    let sorted = |x: i64, y: i64| if x <= y { (x, y) } else { (y, x) };
    let ((s1, e1), (s2, e2)) = (sorted(t(0)?, t(1)?), sorted(t(2)?, t(3)?));
    let hit = if s1 == s2 {
        true
    } else if s1 > s2 {
        s1 < e2
    } else {
        s2 < e1
    };
    Ok(Datum::Bool(hit))
}

/// `date_bin(stride, source, origin)`
fn bin(stride: &Span, t: i64, origin: i64) -> Result<i64, SqlError> {
    if datetime::is_infinite(t) {
        return Ok(t);
    }
    if stride.months != 0 {
        return Err(TypeError::unsupported(
            "timestamps cannot be binned into intervals containing months or years",
        )
        .into());
    }
    let width = i64::try_from(stride.span())
        .ok()
        .filter(|w| *w > 0)
        .ok_or_else(|| {
            SqlError::new(
                SqlState::DATETIME_FIELD_OVERFLOW,
                "stride must be greater than zero",
            )
        })?;
    if datetime::is_infinite(origin) {
        return Err(SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            "origin out of range",
        ));
    }
    let offset = t.checked_sub(origin).ok_or_else(datetime::interval_range)?;
    offset
        .div_euclid(width)
        .checked_mul(width)
        .and_then(|bins| origin.checked_add(bins))
        .filter(|t| datetime::valid_timestamp(*t))
        .ok_or_else(|| datetime::timestamp_range().into())
}
fn bin_ts(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Timestamp(bin(
        &span(&a[0])?,
        micros(&a[1])?,
        micros(&a[2])?,
    )?))
}
fn bin_tz(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::TimestampTz(bin(
        &span(&a[0])?,
        micros(&a[1])?,
        micros(&a[2])?,
    )?))
}

fn char_ts(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    if datetime::is_infinite(micros(&a[0])?) {
        return Ok(Datum::Null);
    }
    Ok(text(&tochar::timestamp(micros(&a[0])?, None, txt(&a[1])?)?))
}
fn char_tz(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let t = micros(&a[0])?;
    if datetime::is_infinite(t) {
        return Ok(Datum::Null);
    }
    let local = cast::utc_to_local(t, cx.style);
    Ok(text(&tochar::timestamp(
        local,
        Some((t, &cx.style.time_zone)),
        txt(&a[1])?,
    )?))
}
fn char_span(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(text(&tochar::interval(&span(&a[0])?, txt(&a[1])?)?))
}
fn to_timestamp_by(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let local = fromchar::timestamp(txt(&a[0])?, txt(&a[1])?)?;
    Ok(Datum::TimestampTz(cast::local_to_utc(local, cx.style)?))
}
fn to_date_by(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let local = fromchar::timestamp(txt(&a[0])?, txt(&a[1])?)?;
    Ok(Datum::Date(cast::timestamp_to_date(local)))
}
fn char_number(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let n = match &a[0] {
        Datum::Float8(v) => towline_types::Numeric::from_f64(*v),
        Datum::Numeric(_) => num(&a[0])?.clone(),
        d => towline_types::Numeric::from(int(d)?),
    };
    Ok(text(&tochar::number(&n, txt(&a[1])?)?))
}

pub(super) const DEFS: &[FunctionDef] = &[
    def("+", &[Date, Int4], Date, date_add),
    def("+", &[Int4, Date], Date, add_date),
    def("-", &[Date, Int4], Date, date_sub),
    def("-", &[Date, Date], Int4, date_diff),
    def("+", &[Date, Interval], Timestamp, date_plus_span),
    def("+", &[Interval, Date], Timestamp, span_plus_date),
    def("-", &[Date, Interval], Timestamp, date_minus_span),
    def("+", &[Date, Time], Timestamp, date_plus_time),
    def("+", &[Time, Date], Timestamp, time_plus_date),
    def("+", &[Timestamp, Interval], Timestamp, ts_plus),
    def("+", &[Interval, Timestamp], Timestamp, plus_ts),
    def("-", &[Timestamp, Interval], Timestamp, ts_minus),
    def("+", &[TimestampTz, Interval], TimestampTz, tz_plus).stable(),
    def("+", &[Interval, TimestampTz], TimestampTz, plus_tz).stable(),
    def("-", &[TimestampTz, Interval], TimestampTz, tz_minus).stable(),
    def("-", &[Timestamp, Timestamp], Interval, ts_diff),
    def("-", &[TimestampTz, TimestampTz], Interval, ts_diff),
    def("-", &[Time, Time], Interval, time_diff),
    def("+", &[Time, Interval], Time, time_plus),
    def("+", &[Interval, Time], Time, plus_time),
    def("-", &[Time, Interval], Time, time_minus),
    def("+", &[Interval, Interval], Interval, span_add),
    def("-", &[Interval, Interval], Interval, span_sub),
    def("-", &[Interval], Interval, span_neg),
    def("*", &[Interval, Float8], Interval, span_mul),
    def("*", &[Float8, Interval], Interval, mul_span),
    def("/", &[Interval, Float8], Interval, span_div),
    def("now", &[], TimestampTz, now).stable(),
    def("current_timestamp", &[], TimestampTz, now).stable(),
    def("current_timestamp", &[Int4], TimestampTz, now_rounded).stable(),
    def("transaction_timestamp", &[], TimestampTz, now).stable(),
    def("statement_timestamp", &[], TimestampTz, statement_now).stable(),
    def("clock_timestamp", &[], TimestampTz, clock).volatile(),
    def("timeofday", &[], Text, timeofday).volatile(),
    def("current_date", &[], Date, current_date).stable(),
    def("localtimestamp", &[], Timestamp, local_timestamp).stable(),
    def("localtimestamp", &[Int4], Timestamp, local_rounded).stable(),
    def("localtime", &[], Time, local_time).stable(),
    def("current_time", &[], Time, local_time).stable(),
    def("extract", &[Text, Date], Numeric, extract),
    def("extract", &[Text, Timestamp], Numeric, extract),
    def("extract", &[Text, TimestampTz], Numeric, extract).stable(),
    def("extract", &[Text, Time], Numeric, extract),
    def("extract", &[Text, Interval], Numeric, extract),
    def("date_part", &[Text, Date], Float8, date_part),
    def("date_part", &[Text, Timestamp], Float8, date_part),
    def("date_part", &[Text, TimestampTz], Float8, date_part).stable(),
    def("date_part", &[Text, Time], Float8, date_part),
    def("date_part", &[Text, Interval], Float8, date_part),
    def("date_trunc", &[Text, Timestamp], Timestamp, trunc_ts),
    def("date_trunc", &[Text, TimestampTz], TimestampTz, trunc_tz).stable(),
    def("date_trunc", &[Text, TimestampTz, Text], TimestampTz, trunc_tz_in).stable(),
    def("date_trunc", &[Text, Interval], Interval, trunc_span),
    def("date_bin", &[Interval, Timestamp, Timestamp], Timestamp, bin_ts),
    def(
        "date_bin",
        &[Interval, TimestampTz, TimestampTz],
        TimestampTz,
        bin_tz,
    ),
    def("age", &[Timestamp, Timestamp], Interval, age_ts),
    def("age", &[TimestampTz, TimestampTz], Interval, age_tz).stable(),
    def("age", &[Timestamp], Interval, age_since_ts).stable(),
    def("age", &[TimestampTz], Interval, age_since_tz).stable(),
    def("timezone", &[Text, Timestamp], TimestampTz, zone_of_ts),
    def("timezone", &[Text, TimestampTz], Timestamp, zone_of_tz),
    def("timezone", &[Interval, Timestamp], TimestampTz, offset_of_ts),
    def("timezone", &[Interval, TimestampTz], Timestamp, offset_of_tz),
    def("to_timestamp", &[Float8], TimestampTz, to_timestamp),
    def("make_date", &[Int4, Int4, Int4], Date, make_date),
    def("make_time", &[Int4, Int4, Float8], Time, make_time),
    def(
        "make_timestamp",
        &[Int4, Int4, Int4, Int4, Int4, Float8],
        Timestamp,
        make_timestamp,
    ),
    def(
        "make_timestamptz",
        &[Int4, Int4, Int4, Int4, Int4, Float8],
        TimestampTz,
        make_timestamptz,
    )
    .stable(),
    def("make_interval", &[], Interval, make_interval),
    def("make_interval", &[Int4], Interval, make_interval),
    def("make_interval", &[Int4, Int4], Interval, make_interval),
    def("make_interval", &[Int4, Int4, Int4], Interval, make_interval),
    def(
        "make_interval",
        &[Int4, Int4, Int4, Int4],
        Interval,
        make_interval,
    ),
    def(
        "make_interval",
        &[Int4, Int4, Int4, Int4, Int4],
        Interval,
        make_interval,
    ),
    def(
        "make_interval",
        &[Int4, Int4, Int4, Int4, Int4, Int4],
        Interval,
        make_interval,
    ),
    def(
        "make_interval",
        &[Int4, Int4, Int4, Int4, Int4, Int4, Float8],
        Interval,
        make_interval,
    ),
    def("justify_hours", &[Interval], Interval, justify_hours),
    def("justify_days", &[Interval], Interval, justify_days),
    def("justify_interval", &[Interval], Interval, justify_interval),
    def("isfinite", &[Date], Bool, is_finite),
    def("isfinite", &[Timestamp], Bool, is_finite),
    def("isfinite", &[TimestampTz], Bool, is_finite),
    def("isfinite", &[Interval], Bool, is_finite),
    def(
        "overlaps",
        &[Timestamp, Timestamp, Timestamp, Timestamp],
        Bool,
        overlaps,
    ),
    def(
        "overlaps",
        &[TimestampTz, TimestampTz, TimestampTz, TimestampTz],
        Bool,
        overlaps,
    ),
    def("to_char", &[Timestamp, Text], Text, char_ts).stable(),
    def("to_char", &[TimestampTz, Text], Text, char_tz).stable(),
    def("to_char", &[Interval, Text], Text, char_span).stable(),
    def("to_timestamp", &[Text, Text], TimestampTz, to_timestamp_by).stable(),
    def("to_date", &[Text, Text], Date, to_date_by).stable(),
    def("to_char", &[Int4, Text], Text, char_number).stable(),
    def("to_char", &[Int8, Text], Text, char_number).stable(),
    def("to_char", &[Float8, Text], Text, char_number).stable(),
    def("to_char", &[Numeric, Text], Text, char_number).stable(),
];
