//! The comparison operators: six symbols over every comparable type, by the one order of [`Datum::compare`].

use super::{FunctionDef, Volatility, def};
use crate::error::SqlError;
use crate::expr::EvalContext;
use crate::expr::tree::equal;
use std::cmp::Ordering;
use std::sync::OnceLock;
use towline_types::{Datum, TypeId, cast};

type Answer = Result<Datum, SqlError>;

macro_rules! comparisons {
    ($module:ident, $order:path) => {
        mod $module {
            use super::*;

            pub(super) fn eq(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
                Ok(Datum::Bool($order(cx, &a[0], &a[1])?.is_eq()))
            }
            pub(super) fn ne(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
                Ok(Datum::Bool($order(cx, &a[0], &a[1])?.is_ne()))
            }
            pub(super) fn lt(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
                Ok(Datum::Bool($order(cx, &a[0], &a[1])?.is_lt()))
            }
            pub(super) fn le(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
                Ok(Datum::Bool($order(cx, &a[0], &a[1])?.is_le()))
            }
            pub(super) fn gt(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
                Ok(Datum::Bool($order(cx, &a[0], &a[1])?.is_gt()))
            }
            pub(super) fn ge(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
                Ok(Datum::Bool($order(cx, &a[0], &a[1])?.is_ge()))
            }

            pub(super) const ALL: [(&str, super::super::ScalarFn); 6] = [
                ("=", eq),
                ("<>", ne),
                ("<", lt),
                ("<=", le),
                (">", gt),
                (">=", ge),
            ];
        }
    };
}

#[inline]
fn same_family(_: &EvalContext<'_>, a: &Datum, b: &Datum) -> Result<Ordering, SqlError> {
    Ok(a.compare(b))
}

/// date, timestamp and timestamptz against each other: a local time is an instant by the session's zone.
fn mixed_dates(cx: &EvalContext<'_>, a: &Datum, b: &Datum) -> Result<Ordering, SqlError> {
    let local = |d: &Datum| match d {
        Datum::Date(days) => {
            cast::date_to_timestamp(*days).unwrap_or(if *days < 0 { i64::MIN } else { i64::MAX })
        }
        Datum::Timestamp(t) | Datum::TimestampTz(t) => *t,
        _ => 0,
    };
    let with_zone = matches!(a, Datum::TimestampTz(_)) || matches!(b, Datum::TimestampTz(_));
    let key = |d: &Datum| -> Result<i64, SqlError> {
        match d {
            Datum::TimestampTz(t) => Ok(*t),
            d if with_zone => Ok(cast::local_to_utc(local(d), cx.style)?),
            d => Ok(local(d)),
        }
    };
    Ok(key(a)?.cmp(&key(b)?))
}

comparisons!(same, same_family);
comparisons!(dates, mixed_dates);

fn record_eq(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(equal(&a[0], &a[1]).map_or(Datum::Null, Datum::Bool))
}

fn record_ne(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(equal(&a[0], &a[1]).map_or(Datum::Null, |b| Datum::Bool(!b)))
}

/// Pairs that compare by [`Datum::compare`].
const SAME: &[[TypeId; 2]] = {
    use TypeId::*;
    &[
        [Int4, Int4],
        [Int8, Int8],
        [Int2, Int2],
        [Int4, Int8],
        [Int8, Int4],
        [Int2, Int4],
        [Int4, Int2],
        [Int2, Int8],
        [Int8, Int2],
        [Text, Text],
        [Bpchar, Bpchar],
        [Name, Name],
        [Name, Text],
        [Text, Name],
        [Bool, Bool],
        [Float8, Float8],
        [Float4, Float4],
        [Float4, Float8],
        [Float8, Float4],
        [Numeric, Numeric],
        [Bytea, Bytea],
        [Char, Char],
        [Oid, Oid],
        [OidVector, OidVector],
        [Tid, Tid],
        [Date, Date],
        [Time, Time],
        [Timestamp, Timestamp],
        [TimestampTz, TimestampTz],
        [Interval, Interval],
        [PgLsn, PgLsn],
        [AnyArray, AnyArray],
        [Inet, Inet],
    ]
};

/// Pairs whose order needs a conversion; by the session's zone where one is a timestamptz.
const DATES: &[[TypeId; 2]] = {
    use TypeId::*;
    &[
        [Date, Timestamp],
        [Timestamp, Date],
        [Date, TimestampTz],
        [TimestampTz, Date],
        [Timestamp, TimestampTz],
        [TimestampTz, Timestamp],
    ]
};

pub(super) fn defs() -> &'static [FunctionDef] {
    static DEFS: OnceLock<Vec<FunctionDef>> = OnceLock::new();
    DEFS.get_or_init(|| {
        let mut defs = Vec::new();
        for pair in SAME {
            defs.extend(
                same::ALL
                    .iter()
                    .map(|(name, eval)| def(name, pair, TypeId::Bool, *eval)),
            );
        }
        for pair in DATES {
            let zoned = pair.contains(&TypeId::TimestampTz);
            defs.extend(dates::ALL.iter().map(|(name, eval)| FunctionDef {
                volatility: if zoned {
                    Volatility::Stable
                } else {
                    Volatility::Immutable
                },
                ..def(name, pair, TypeId::Bool, *eval)
            }));
        }
        // xid and cid have equality only.
        for pair in [
            &[TypeId::Xid, TypeId::Xid],
            &[TypeId::Xid, TypeId::Int4],
            &[TypeId::Cid, TypeId::Cid],
        ] {
            defs.push(def("=", pair, TypeId::Bool, same::eq));
            defs.push(def("<>", pair, TypeId::Bool, same::ne));
        }
        defs.push(def(
            "=",
            &[TypeId::Int2Vector, TypeId::Int2Vector],
            TypeId::Bool,
            same::eq,
        ));
        let records: &'static [TypeId] = &[TypeId::Record, TypeId::Record];
        defs.push(def("=", records, TypeId::Bool, record_eq));
        defs.push(def("<>", records, TypeId::Bool, record_ne));
        for (name, eval) in &same::ALL[2..] {
            defs.push(def(name, records, TypeId::Bool, *eval));
        }
        defs
    })
}
