//! Conversions between types: which exist, in which context, and how.
//!
//! The matrix is PostgreSQL 15's `pg_cast` for the types we have, plus its automatic conversions: anything to a string
//! type by assignment, any string to anything when written, arrays element by element.

use crate::array::ArrayValue;
use crate::datetime::{self, DAY, fields, zone};
use crate::datum::{Datum, trim_blanks};
use crate::error::{Result, TypeError};
use crate::input::{fit_text, parse_text, truncate_name};
use crate::interval::Interval;
use crate::numeric::Numeric;
use crate::output::text_of;
use crate::style::IoStyle;
use crate::type_id::{Category, ColumnType, TypeId};
use std::sync::Arc;
use towline_base::SqlState;

/// Where a cast may be used without being written (`pg_cast.castcontext`); ordered: what is allowed implicitly is
/// allowed in assignments, and everything explicitly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CastContext {
    /// In any expression.
    Implicit,
    /// When storing into a column.
    Assignment,
    /// Only when written (`CAST`, `::`).
    Explicit,
}

/// The least context in which `from` converts to `to`; `None` if no cast exists. `Unknown` converts to everything.
pub fn find_cast(from: TypeId, to: TypeId) -> Option<CastContext> {
    use CastContext::*;
    use TypeId as T;
    if from == to || from == T::Unknown || to == T::Any {
        return Some(Implicit);
    }
    let context = match (from, to) {
        (T::Bool, T::Int4) | (T::Int4, T::Bool | T::Char) | (T::Char, T::Int4) => Explicit,
        (T::Int2, T::Int4 | T::Int8) | (T::Int4, T::Int8) => Implicit,
        (T::Int2 | T::Int4 | T::Int8, T::Float4 | T::Float8 | T::Numeric) => Implicit,
        (T::Int2 | T::Int4 | T::Int8, T::Oid) => Implicit,
        (T::Int2 | T::Int4 | T::Int8, to) if to.is_reg() => Implicit,
        (T::Int8, T::Int4 | T::Int2) | (T::Int4, T::Int2) => Assignment,
        (T::Float4, T::Float8) | (T::Numeric, T::Float4 | T::Float8) => Implicit,
        (T::Float8, T::Float4) => Assignment,
        (T::Float4 | T::Float8, T::Int2 | T::Int4 | T::Int8 | T::Numeric) => Assignment,
        (T::Numeric, T::Int2 | T::Int4 | T::Int8) => Assignment,
        (T::Oid, T::Int4 | T::Int8) => Assignment,
        (T::Oid, to) if to.is_reg() => Implicit,
        (from, T::Oid) if from.is_reg() => Implicit,
        (T::Regproc, T::Regprocedure) | (T::Regprocedure, T::Regproc) => Implicit,
        (from, T::Int4 | T::Int8) if from.is_reg() => Assignment,
        (T::Date, T::Timestamp | T::TimestampTz)
        | (T::Timestamp, T::TimestampTz)
        | (T::Time, T::Interval) => Implicit,
        (T::Timestamp, T::Date | T::Time) | (T::TimestampTz, T::Date | T::Time | T::Timestamp) => Assignment,
        (T::Interval, T::Time) => Assignment,
        (T::Text | T::Varchar | T::Bpchar | T::PgNodeTree, T::Text | T::Varchar | T::Bpchar) => Implicit,
        (T::Text | T::Varchar | T::Bpchar, T::Name) => Implicit,
        (T::Text | T::Varchar, T::Regclass) => Implicit,
        (T::Name, T::Text) | (T::Char, T::Text) => Implicit,
        (T::Int2Vector, T::Int2Array) | (T::OidVector, T::OidArray) => Implicit,
        (_, T::AnyArray) if from.element().is_some() => Implicit,
        // Automatic conversions through text; from "char" and to it only as pg_cast says.
        (T::Record | T::Void, _) => return None,
        (_, T::Char) => match from.category() {
            Category::String => Assignment,
            _ => return None,
        },
        (_, T::Text | T::Varchar | T::Bpchar | T::Name | T::Cstring) => Assignment,
        (from, to) => match (from.element(), to.element()) {
            (Some(a), Some(b)) if to.element().and_then(TypeId::array) == Some(to) => return find_cast(a, b),
            _ if from.category() == Category::String && to.is_storable() => Explicit,
            _ => return None,
        },
    };
    Some(context)
}

/// Converts a value of type `from` to `to`, modifier included. `explicit` truncates what is too long for
/// `varchar(n)`/`char(n)` where an assignment refuses it (22001). NULL stays NULL. Names in `reg…` types are the SQL
/// layer's; here they are numbers.
pub fn cast(value: &Datum, from: TypeId, to: ColumnType, explicit: bool, style: &IoStyle) -> Result<Datum> {
    if value.is_null() {
        return Ok(Datum::Null);
    }
    let plain = if from == to.id {
        value.clone()
    } else {
        convert(value, from, to, style)?
    };
    if to.typmod < 0 {
        Ok(plain)
    } else {
        apply_typmod(plain, to, explicit)
    }
}

/// Fits a value of the right type into the modifier.
pub fn apply_typmod(value: Datum, ty: ColumnType, explicit: bool) -> Result<Datum> {
    if ty.typmod < 0 {
        return Ok(value);
    }
    Ok(match value {
        Datum::Text(s) | Datum::Bpchar(s) => return fit_text(&s, ty, explicit),
        Datum::Numeric(n) => match ty.numeric_limits() {
            Some((precision, scale)) => Datum::Numeric(n.fit(precision, scale)?),
            None => Datum::Numeric(n),
        },
        Datum::Timestamp(t) => Datum::Timestamp(fields::round_micros(t, ty.typmod)),
        Datum::TimestampTz(t) => Datum::TimestampTz(fields::round_micros(t, ty.typmod)),
        Datum::Time(t) => Datum::Time(fields::round_micros(t, ty.typmod)),
        Datum::Interval(v) => {
            let precision = ty.typmod & 0xffff;
            Datum::Interval(Interval {
                micros: fields::round_micros(v.micros, precision),
                ..v
            })
        }
        Datum::Array(a) => {
            let element = ColumnType {
                id: a.element,
                typmod: ty.typmod,
            };
            let values = a
                .values
                .iter()
                .map(|v| apply_typmod(v.clone(), element, explicit));
            let values = values.collect::<Result<Vec<_>>>()?;
            Datum::Array(Arc::new(ArrayValue {
                element: a.element,
                dims: a.dims.clone(),
                values,
            }))
        }
        other => other,
    })
}

fn no_cast(from: TypeId, to: ColumnType) -> TypeError {
    TypeError::new(
        SqlState::CANNOT_COERCE,
        format!("cannot cast type {} to {}", from.sql_name(), to.id.sql_name()),
    )
}

fn convert(value: &Datum, from: TypeId, to: ColumnType, style: &IoStyle) -> Result<Datum> {
    use TypeId as T;
    Ok(match (value, to.id) {
        (Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_), T::Int2 | T::Int4 | T::Int8) => {
            integer(value.as_i64().unwrap_or(0), to.id)?
        }
        (Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_), T::Float8) => {
            Datum::Float8(value.as_i64().unwrap_or(0) as f64)
        }
        (Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_), T::Float4) => {
            Datum::Float4(value.as_i64().unwrap_or(0) as f32)
        }
        (Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_), T::Numeric) => {
            Datum::Numeric(Numeric::from(value.as_i64().unwrap_or(0)))
        }
        (Datum::Int4(v), T::Bool) => Datum::Bool(*v != 0),
        (Datum::Int4(v), T::Char) => match i8::try_from(*v) {
            Ok(v) => Datum::Char(v as u8),
            Err(_) => return Err(TypeError::out_of_range("\"char\" out of range")),
        },
        (Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_), id) if id == T::Oid || id.is_reg() => {
            let v = value.as_i64().unwrap_or(0);
            // A negative int4 wraps, a bigint must fit.
            let oid = if matches!(value, Datum::Int8(_)) {
                u32::try_from(v).ok()
            } else {
                Some(v as u32)
            };
            Datum::Oid(oid.ok_or_else(|| TypeError::out_of_range("OID out of range"))?)
        }
        (Datum::Oid(v), T::Int4) => Datum::Int4(*v as i32),
        (Datum::Oid(v), T::Int8) => Datum::Int8(i64::from(*v)),
        (Datum::Oid(v), id) if id == T::Oid || id.is_reg() => Datum::Oid(*v),
        (Datum::Bool(v), T::Int4) => Datum::Int4(i32::from(*v)),
        (Datum::Char(v), T::Int4) => Datum::Int4(i32::from(*v as i8)),
        (Datum::Float4(v), T::Float8) => Datum::Float8(f64::from(*v)),
        (Datum::Float8(v), T::Float4) => Datum::Float4(narrow(*v)?),
        (Datum::Float4(v), T::Int2 | T::Int4 | T::Int8) => float_to_int(f64::from(*v), to.id)?,
        (Datum::Float8(v), T::Int2 | T::Int4 | T::Int8) => float_to_int(*v, to.id)?,
        (Datum::Float4(v), T::Numeric) => Datum::Numeric(Numeric::from_f32(*v)),
        (Datum::Float8(v), T::Numeric) => Datum::Numeric(Numeric::from_f64(*v)),
        (Datum::Numeric(n), T::Int2) => {
            Datum::Int2(n.to_integer(i64::from(i16::MIN), i64::from(i16::MAX), "smallint")? as i16)
        }
        (Datum::Numeric(n), T::Int4) => {
            Datum::Int4(n.to_integer(i64::from(i32::MIN), i64::from(i32::MAX), "integer")? as i32)
        }
        (Datum::Numeric(n), T::Int8) => Datum::Int8(n.to_integer(i64::MIN, i64::MAX, "bigint")?),
        (Datum::Numeric(n), T::Float8) => Datum::Float8(n.to_f64()?),
        (Datum::Numeric(n), T::Float4) => {
            let wide = n.to_f64_lossy();
            let narrow = wide as f32;
            if narrow.is_infinite() && !n.is_infinite() {
                return Err(TypeError::out_of_range(format!(
                    "\"{n}\" is out of range for type real"
                )));
            }
            Datum::Float4(narrow)
        }
        (Datum::Date(d), T::Timestamp) => Datum::Timestamp(date_to_timestamp(*d)?),
        (Datum::Date(d), T::TimestampTz) => Datum::TimestampTz(local_to_utc(date_to_timestamp(*d)?, style)?),
        (Datum::Timestamp(t), T::TimestampTz) => Datum::TimestampTz(local_to_utc(*t, style)?),
        (Datum::TimestampTz(t), T::Timestamp) => Datum::Timestamp(utc_to_local(*t, style)),
        (Datum::Timestamp(t), T::Date) => Datum::Date(timestamp_to_date(*t)),
        (Datum::TimestampTz(t), T::Date) => Datum::Date(timestamp_to_date(utc_to_local(*t, style))),
        (Datum::Timestamp(t), T::Time) => time_of(*t),
        (Datum::TimestampTz(t), T::Time) => time_of(utc_to_local(*t, style)),
        (Datum::Time(t), T::Interval) => Datum::Interval(Interval {
            micros: *t,
            days: 0,
            months: 0,
        }),
        (Datum::Interval(v), T::Time) => Datum::Time(v.micros.rem_euclid(DAY)),
        (Datum::Int2Vector(v), T::Int2Array) => Datum::Array(Arc::new(ArrayValue::new(
            T::Int2,
            v.iter().map(|x| Datum::Int2(*x)).collect(),
        ))),
        (Datum::OidVector(v), T::OidArray) => Datum::Array(Arc::new(ArrayValue::new(
            T::Oid,
            v.iter().map(|x| Datum::Oid(*x)).collect(),
        ))),
        (_, T::AnyArray | T::Any) => value.clone(),
        (Datum::Bool(v), T::Text | T::Varchar | T::Bpchar) => {
            return fit_text(if *v { "true" } else { "false" }, ColumnType::new(to.id), true);
        }
        (Datum::Bpchar(s), T::Text | T::Varchar | T::Cstring) => Datum::text(trim_blanks(s)),
        (Datum::Bpchar(s), T::Name) => Datum::text(truncate_name(trim_blanks(s))),
        (_, T::Text | T::Varchar | T::Cstring | T::PgNodeTree | T::Inet) => match value {
            Datum::Text(s) => Datum::Text(s.clone()),
            _ => Datum::text(&text_of(value, style)),
        },
        (_, T::Bpchar) => Datum::Bpchar(text_of(value, style).into()),
        (_, T::Name) => Datum::text(truncate_name(&text_of(value, style))),
        (Datum::Text(s), _) => parse_text(
            ColumnType {
                id: to.id,
                typmod: -1,
            },
            s,
            style,
        )?,
        (Datum::Bpchar(s), _) => parse_text(
            ColumnType {
                id: to.id,
                typmod: -1,
            },
            s,
            style,
        )?,
        (Datum::Array(a), _) => match to.id.element() {
            Some(element) => {
                let target = ColumnType {
                    id: element,
                    typmod: -1,
                };
                let values = a.values.iter().map(|v| cast(v, a.element, target, true, style));
                let values = values.collect::<Result<Vec<_>>>()?;
                Datum::Array(Arc::new(ArrayValue {
                    element,
                    dims: a.dims.clone(),
                    values,
                }))
            }
            None => return Err(no_cast(from, to)),
        },
        _ => return Err(no_cast(from, to)),
    })
}

/// An integer in a width; 22003 `integer out of range`.
pub fn integer(value: i64, id: TypeId) -> Result<Datum> {
    let range = || TypeError::out_of_range(format!("{} out of range", id.sql_name()));
    Ok(match id {
        TypeId::Int2 => Datum::Int2(i16::try_from(value).map_err(|_| range())?),
        TypeId::Int4 => Datum::Int4(i32::try_from(value).map_err(|_| range())?),
        _ => Datum::Int8(value),
    })
}

fn float_to_int(value: f64, id: TypeId) -> Result<Datum> {
    let rounded = value.round_ties_even();
    // Bounds as floats: i64::MAX is not one, so the upper comparison is strict.
    let (low, high) = match id {
        TypeId::Int2 => (-32_768.0, 32_768.0),
        TypeId::Int4 => (-2_147_483_648.0, 2_147_483_648.0),
        _ => (-9_223_372_036_854_775_808.0, 9_223_372_036_854_775_808.0),
    };
    if !(low..high).contains(&rounded) {
        return Err(TypeError::out_of_range(format!("{} out of range", id.sql_name())));
    }
    integer(rounded as i64, id)
}

fn narrow(value: f64) -> Result<f32> {
    let narrow = value as f32;
    if narrow.is_infinite() && !value.is_infinite() {
        return Err(TypeError::out_of_range("value out of range: overflow"));
    }
    if narrow == 0.0 && value != 0.0 {
        return Err(TypeError::out_of_range("value out of range: underflow"));
    }
    Ok(narrow)
}

/// Midnight of a date.
pub fn date_to_timestamp(days: i32) -> Result<i64> {
    match days {
        datetime::DATE_INFINITY => Ok(datetime::INFINITY),
        datetime::DATE_NEG_INFINITY => Ok(datetime::NEG_INFINITY),
        _ => {
            let micros = i64::from(days)
                .checked_mul(DAY)
                .filter(|t| datetime::valid_timestamp(*t));
            micros.ok_or_else(|| {
                TypeError::new(
                    SqlState::DATETIME_FIELD_OVERFLOW,
                    "date out of range for timestamp",
                )
            })
        }
    }
}

/// The day of a timestamp.
pub fn timestamp_to_date(micros: i64) -> i32 {
    match micros {
        datetime::INFINITY => datetime::DATE_INFINITY,
        datetime::NEG_INFINITY => datetime::DATE_NEG_INFINITY,
        _ => micros.div_euclid(DAY) as i32,
    }
}

/// The instant of a local time in the session's zone.
pub fn local_to_utc(local: i64, style: &IoStyle) -> Result<i64> {
    if datetime::is_infinite(local) {
        return Ok(local);
    }
    let utc = zone::local_to_utc(&style.time_zone, local).filter(|t| datetime::valid_timestamp(*t));
    utc.ok_or_else(datetime::timestamp_range)
}

/// The local time of an instant in the session's zone.
pub fn utc_to_local(utc: i64, style: &IoStyle) -> i64 {
    if datetime::is_infinite(utc) {
        utc
    } else {
        zone::utc_to_local(&style.time_zone, utc)
    }
}

fn time_of(local: i64) -> Datum {
    if datetime::is_infinite(local) {
        Datum::Null
    } else {
        Datum::Time(local.rem_euclid(DAY))
    }
}
