//! Arithmetic operators on numbers, and the bit operators.

use super::{FunctionDef, def, float, int, lsn, num};
use crate::error::SqlError;
use crate::expr::EvalContext;
use towline_base::{Lsn, SqlState};
use towline_types::TypeId::*;
use towline_types::{Datum, Numeric, TypeError};

type Answer = Result<Datum, SqlError>;

#[cold]
fn out_of_range(name: &str) -> SqlError {
    TypeError::out_of_range(format!("{name} out of range")).into()
}

#[cold]
fn zero() -> SqlError {
    TypeError::division_by_zero().into()
}

macro_rules! integers {
    ($module:ident, $width:ty, $variant:ident, $name:literal) => {
        mod $module {
            use super::*;

            fn result(value: Option<i64>) -> Answer {
                match value.and_then(|v| <$width>::try_from(v).ok()) {
                    Some(v) => Ok(Datum::$variant(v)),
                    None => Err(out_of_range($name)),
                }
            }
            pub(super) fn add(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
                result(int(&a[0])?.checked_add(int(&a[1])?))
            }
            pub(super) fn sub(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
                result(int(&a[0])?.checked_sub(int(&a[1])?))
            }
            pub(super) fn mul(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
                result(int(&a[0])?.checked_mul(int(&a[1])?))
            }
            pub(super) fn div(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
                match int(&a[1])? {
                    0 => Err(zero()),
                    b => result(int(&a[0])?.checked_div(b)),
                }
            }
            pub(super) fn rem(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
                match int(&a[1])? {
                    0 => Err(zero()),
                    b => result(Some(int(&a[0])?.checked_rem(b).unwrap_or(0))),
                }
            }
            pub(super) fn neg(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
                result(int(&a[0])?.checked_neg())
            }
            pub(super) fn abs(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
                result(int(&a[0])?.checked_abs())
            }
            pub(super) fn and(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
                result(Some(int(&a[0])? & int(&a[1])?))
            }
            pub(super) fn or(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
                result(Some(int(&a[0])? | int(&a[1])?))
            }
            pub(super) fn xor(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
                result(Some(int(&a[0])? ^ int(&a[1])?))
            }
            pub(super) fn not(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
                result(Some(!int(&a[0])?))
            }
            pub(super) fn shl(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
                let bits = int(&a[1])? as u32 & (<$width>::BITS - 1);
                Ok(Datum::$variant((int(&a[0])? as $width).wrapping_shl(bits)))
            }
            pub(super) fn shr(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
                let bits = int(&a[1])? as u32 & (<$width>::BITS - 1);
                Ok(Datum::$variant((int(&a[0])? as $width).wrapping_shr(bits)))
            }
        }
    };
}

integers!(i2, i16, Int2, "smallint");
integers!(i4, i32, Int4, "integer");
integers!(i8, i64, Int8, "bigint");

/// A float result, refused if finite operands overflowed.
fn checked(value: f64, inputs_infinite: bool) -> Result<f64, SqlError> {
    if value.is_infinite() && !inputs_infinite {
        return Err(TypeError::out_of_range("value out of range: overflow").into());
    }
    Ok(value)
}

#[cold]
fn underflow() -> SqlError {
    TypeError::out_of_range("value out of range: underflow").into()
}

fn float_op(op: u8, a: f64, b: f64) -> Result<f64, SqlError> {
    let infinite = a.is_infinite() || b.is_infinite();
    match op {
        b'+' => checked(a + b, infinite),
        b'-' => checked(a - b, infinite),
        b'*' => {
            let v = checked(a * b, infinite)?;
            if v == 0.0 && a != 0.0 && b != 0.0 {
                Err(underflow())
            } else {
                Ok(v)
            }
        }
        _ => {
            if b == 0.0 && !a.is_nan() {
                return Err(zero());
            }
            let v = checked(a / b, infinite)?;
            if v == 0.0 && a != 0.0 && !b.is_infinite() {
                Err(underflow())
            } else {
                Ok(v)
            }
        }
    }
}

macro_rules! floats {
    ($module:ident, $op:literal) => {
        mod $module {
            use super::*;

            pub(super) fn wide(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
                Ok(Datum::Float8(float_op($op, float(&a[0])?, float(&a[1])?)?))
            }
            pub(super) fn narrow(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
                let (x, y) = (float(&a[0])?, float(&a[1])?);
                let v = float_op($op, x, y)?;
                let narrow = v as f32;
                if narrow.is_infinite() && !v.is_infinite() {
                    return Err(TypeError::out_of_range("value out of range: overflow").into());
                }
                if narrow == 0.0 && v != 0.0 {
                    return Err(underflow());
                }
                Ok(Datum::Float4(narrow))
            }
        }
    };
}

floats!(fadd, b'+');
floats!(fsub, b'-');
floats!(fmul, b'*');
floats!(fdiv, b'/');

fn num_add(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Numeric(num(&a[0])?.add(num(&a[1])?)?))
}
fn num_sub(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Numeric(num(&a[0])?.sub(num(&a[1])?)?))
}
fn num_mul(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Numeric(num(&a[0])?.mul(num(&a[1])?)?))
}
fn num_div(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Numeric(num(&a[0])?.div(num(&a[1])?)?))
}
fn num_rem(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Numeric(num(&a[0])?.rem(num(&a[1])?)?))
}
fn num_neg(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Numeric(num(&a[0])?.neg()))
}
fn num_abs(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Numeric(num(&a[0])?.abs()))
}
fn f8_neg(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Float8(-float(&a[0])?))
}
fn f8_abs(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Float8(float(&a[0])?.abs()))
}
fn f4_neg(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Float4(-float(&a[0])? as f32))
}
fn f4_abs(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Float4(float(&a[0])?.abs() as f32))
}
fn same(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(a[0].clone())
}

fn lsn_diff(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Numeric(Numeric::from(
        i128::from(lsn(&a[0])?.0) - i128::from(lsn(&a[1])?.0),
    )))
}

fn lsn_shift(position: Lsn, bytes: &Numeric, sign: i128) -> Answer {
    let invalid = |what: &str| {
        SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!(
                "cannot {what} NaN {} pg_lsn",
                if sign > 0 { "to" } else { "from" }
            ),
        )
    };
    if bytes.is_nan() {
        return Err(invalid(if sign > 0 { "add" } else { "subtract" }));
    }
    if bytes.is_infinite() {
        return Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "cannot convert infinity to pg_lsn",
        ));
    }
    let moved = bytes
        .to_i128()
        .and_then(|n| n.checked_mul(sign))
        .and_then(|n| i128::from(position.0).checked_add(n));
    match moved.and_then(|v| u64::try_from(v).ok()) {
        Some(v) => Ok(Datum::PgLsn(Lsn(v))),
        None => Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "pg_lsn out of range",
        )),
    }
}

fn lsn_add(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    lsn_shift(lsn(&a[0])?, num(&a[1])?, 1)
}
fn add_lsn(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    lsn_shift(lsn(&a[1])?, num(&a[0])?, 1)
}
fn lsn_sub(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    lsn_shift(lsn(&a[0])?, num(&a[1])?, -1)
}

pub(super) const DEFS: &[FunctionDef] = &[
    def("+", &[Int4, Int4], Int4, i4::add),
    def("-", &[Int4, Int4], Int4, i4::sub),
    def("*", &[Int4, Int4], Int4, i4::mul),
    def("/", &[Int4, Int4], Int4, i4::div),
    def("%", &[Int4, Int4], Int4, i4::rem),
    def("+", &[Int8, Int8], Int8, i8::add),
    def("-", &[Int8, Int8], Int8, i8::sub),
    def("*", &[Int8, Int8], Int8, i8::mul),
    def("/", &[Int8, Int8], Int8, i8::div),
    def("%", &[Int8, Int8], Int8, i8::rem),
    def("+", &[Int2, Int2], Int2, i2::add),
    def("-", &[Int2, Int2], Int2, i2::sub),
    def("*", &[Int2, Int2], Int2, i2::mul),
    def("/", &[Int2, Int2], Int2, i2::div),
    def("%", &[Int2, Int2], Int2, i2::rem),
    def("+", &[Int2, Int4], Int4, i4::add),
    def("-", &[Int2, Int4], Int4, i4::sub),
    def("*", &[Int2, Int4], Int4, i4::mul),
    def("/", &[Int2, Int4], Int4, i4::div),
    def("+", &[Int4, Int2], Int4, i4::add),
    def("-", &[Int4, Int2], Int4, i4::sub),
    def("*", &[Int4, Int2], Int4, i4::mul),
    def("/", &[Int4, Int2], Int4, i4::div),
    def("+", &[Int2, Int8], Int8, i8::add),
    def("-", &[Int2, Int8], Int8, i8::sub),
    def("*", &[Int2, Int8], Int8, i8::mul),
    def("/", &[Int2, Int8], Int8, i8::div),
    def("+", &[Int8, Int2], Int8, i8::add),
    def("-", &[Int8, Int2], Int8, i8::sub),
    def("*", &[Int8, Int2], Int8, i8::mul),
    def("/", &[Int8, Int2], Int8, i8::div),
    def("+", &[Int4, Int8], Int8, i8::add),
    def("-", &[Int4, Int8], Int8, i8::sub),
    def("*", &[Int4, Int8], Int8, i8::mul),
    def("/", &[Int4, Int8], Int8, i8::div),
    def("+", &[Int8, Int4], Int8, i8::add),
    def("-", &[Int8, Int4], Int8, i8::sub),
    def("*", &[Int8, Int4], Int8, i8::mul),
    def("/", &[Int8, Int4], Int8, i8::div),
    def("mod", &[Int2, Int2], Int2, i2::rem),
    def("mod", &[Int4, Int4], Int4, i4::rem),
    def("mod", &[Int8, Int8], Int8, i8::rem),
    def("mod", &[Numeric, Numeric], Numeric, num_rem),
    def("-", &[Int2], Int2, i2::neg),
    def("-", &[Int4], Int4, i4::neg),
    def("-", &[Int8], Int8, i8::neg),
    def("-", &[Float4], Float4, f4_neg),
    def("-", &[Float8], Float8, f8_neg),
    def("-", &[Numeric], Numeric, num_neg),
    def("+", &[Int2], Int2, same),
    def("+", &[Int4], Int4, same),
    def("+", &[Int8], Int8, same),
    def("+", &[Float4], Float4, same),
    def("+", &[Float8], Float8, same),
    def("+", &[Numeric], Numeric, same),
    def("@", &[Int2], Int2, i2::abs),
    def("@", &[Int4], Int4, i4::abs),
    def("@", &[Int8], Int8, i8::abs),
    def("@", &[Float4], Float4, f4_abs),
    def("@", &[Float8], Float8, f8_abs),
    def("@", &[Numeric], Numeric, num_abs),
    def("abs", &[Int2], Int2, i2::abs),
    def("abs", &[Int4], Int4, i4::abs),
    def("abs", &[Int8], Int8, i8::abs),
    def("abs", &[Float4], Float4, f4_abs),
    def("abs", &[Float8], Float8, f8_abs),
    def("abs", &[Numeric], Numeric, num_abs),
    def("&", &[Int2, Int2], Int2, i2::and),
    def("&", &[Int4, Int4], Int4, i4::and),
    def("&", &[Int8, Int8], Int8, i8::and),
    def("|", &[Int2, Int2], Int2, i2::or),
    def("|", &[Int4, Int4], Int4, i4::or),
    def("|", &[Int8, Int8], Int8, i8::or),
    def("#", &[Int2, Int2], Int2, i2::xor),
    def("#", &[Int4, Int4], Int4, i4::xor),
    def("#", &[Int8, Int8], Int8, i8::xor),
    def("~", &[Int2], Int2, i2::not),
    def("~", &[Int4], Int4, i4::not),
    def("~", &[Int8], Int8, i8::not),
    def("<<", &[Int2, Int4], Int2, i2::shl),
    def("<<", &[Int4, Int4], Int4, i4::shl),
    def("<<", &[Int8, Int4], Int8, i8::shl),
    def(">>", &[Int2, Int4], Int2, i2::shr),
    def(">>", &[Int4, Int4], Int4, i4::shr),
    def(">>", &[Int8, Int4], Int8, i8::shr),
    def("+", &[Float8, Float8], Float8, fadd::wide),
    def("-", &[Float8, Float8], Float8, fsub::wide),
    def("*", &[Float8, Float8], Float8, fmul::wide),
    def("/", &[Float8, Float8], Float8, fdiv::wide),
    def("+", &[Float4, Float4], Float4, fadd::narrow),
    def("-", &[Float4, Float4], Float4, fsub::narrow),
    def("*", &[Float4, Float4], Float4, fmul::narrow),
    def("/", &[Float4, Float4], Float4, fdiv::narrow),
    def("+", &[Float4, Float8], Float8, fadd::wide),
    def("-", &[Float4, Float8], Float8, fsub::wide),
    def("*", &[Float4, Float8], Float8, fmul::wide),
    def("/", &[Float4, Float8], Float8, fdiv::wide),
    def("+", &[Float8, Float4], Float8, fadd::wide),
    def("-", &[Float8, Float4], Float8, fsub::wide),
    def("*", &[Float8, Float4], Float8, fmul::wide),
    def("/", &[Float8, Float4], Float8, fdiv::wide),
    def("+", &[Numeric, Numeric], Numeric, num_add),
    def("-", &[Numeric, Numeric], Numeric, num_sub),
    def("*", &[Numeric, Numeric], Numeric, num_mul),
    def("/", &[Numeric, Numeric], Numeric, num_div),
    def("%", &[Numeric, Numeric], Numeric, num_rem),
    def("-", &[PgLsn, PgLsn], Numeric, lsn_diff),
    def("pg_wal_lsn_diff", &[PgLsn, PgLsn], Numeric, lsn_diff),
    def("+", &[PgLsn, Numeric], PgLsn, lsn_add),
    def("+", &[Numeric, PgLsn], PgLsn, add_lsn),
    def("-", &[PgLsn, Numeric], PgLsn, lsn_sub),
];
