//! Text output of every type, from values and straight from stored bytes.

use crate::array::ArrayValue;
use crate::datetime::{format, span};
use crate::datum::Datum;
use crate::disk;
use crate::error::{Result, TypeError};
use crate::float;
use crate::style::{ByteaOutput, IoStyle};
use crate::type_id::TypeId;
use bytes::{BufMut, BytesMut};

/// Decimal digits in pairs.
static PAIRS: [[u8; 2]; 100] = {
    let mut table = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        table[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    table
};

/// Appends an unsigned integer.
#[inline]
pub fn put_u64(mut value: u64, out: &mut impl BufMut) {
    let mut buffer = [0u8; 20];
    let mut at = buffer.len();
    while value >= 100 {
        at -= 2;
        buffer[at..at + 2].copy_from_slice(&PAIRS[(value % 100) as usize]);
        value /= 100;
    }
    if value >= 10 {
        at -= 2;
        buffer[at..at + 2].copy_from_slice(&PAIRS[value as usize]);
    } else {
        at -= 1;
        buffer[at] = b'0' + value as u8;
    }
    out.put_slice(&buffer[at..]);
}

/// Appends a signed integer.
#[inline]
pub fn put_i64(value: i64, out: &mut impl BufMut) {
    if value < 0 {
        out.put_u8(b'-');
    }
    put_u64(value.unsigned_abs(), out);
}

/// Appends the text form of a non-null value (NULL appends nothing). A `reg…` value prints as its number: the SQL
/// layer, which can ask the catalog, prints names.
pub fn write_text(value: &Datum, style: &IoStyle, out: &mut BytesMut) {
    match value {
        Datum::Null => {}
        Datum::Int4(v) => put_i64(i64::from(*v), out),
        Datum::Int8(v) => put_i64(*v, out),
        Datum::Int2(v) => put_i64(i64::from(*v), out),
        Datum::Text(s) | Datum::Bpchar(s) => out.put_slice(s.as_bytes()),
        Datum::Bool(b) => out.put_u8(if *b { b't' } else { b'f' }),
        Datum::Char(0) => {}
        // A byte that is no character by itself is shown in octal.
        Datum::Char(c @ 0x80..) => {
            out.put_slice(&[b'\\', b'0' + (c >> 6), b'0' + (c >> 3 & 7), b'0' + (c & 7)])
        }
        Datum::Char(c) => out.put_u8(*c),
        Datum::Float4(v) => float::write_f32(*v, style.extra_float_digits, out),
        Datum::Float8(v) => float::write_f64(*v, style.extra_float_digits, out),
        Datum::Numeric(n) => n.write(out),
        Datum::Bytea(b) => put_bytea(b, style, out),
        Datum::Date(d) => format::write_date(*d, style, out),
        Datum::Time(t) => format::write_time(*t, out),
        Datum::Timestamp(t) => format::write_timestamp(*t, style, out),
        Datum::TimestampTz(t) => format::write_timestamptz(*t, style, out),
        Datum::Interval(v) => span::write_interval(v, out),
        Datum::PgLsn(v) => put_lsn(v.0, out),
        Datum::Oid(v) | Datum::Xid(v) => put_u64(u64::from(*v), out),
        Datum::Tid(t) => {
            out.put_u8(b'(');
            put_u64(u64::from(t.block), out);
            out.put_u8(b',');
            put_u64(u64::from(t.offset), out);
            out.put_u8(b')');
        }
        Datum::Int2Vector(v) => put_words(v.iter().map(|x| i64::from(*x)), out),
        Datum::OidVector(v) => put_words(v.iter().map(|x| i64::from(*x)), out),
        Datum::Array(a) => put_array(a, style, out),
        Datum::Record(fields) => put_record(fields, style, out),
        // It was not fetched, and so has no text.
        Datum::External(_) => {}
    }
}

fn put_words(values: impl Iterator<Item = i64>, out: &mut BytesMut) {
    for (i, value) in values.enumerate() {
        if i > 0 {
            out.put_u8(b' ');
        }
        put_i64(value, out);
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn put_bytea(bytes: &[u8], style: &IoStyle, out: &mut BytesMut) {
    match style.bytea_output {
        ByteaOutput::Hex => {
            out.reserve(2 + 2 * bytes.len());
            out.put_slice(b"\\x");
            for b in bytes {
                out.put_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
            }
        }
        ByteaOutput::Escape => {
            for b in bytes {
                match b {
                    b'\\' => out.put_slice(b"\\\\"),
                    0x20..=0x7e => out.put_u8(*b),
                    _ => out.put_slice(&[b'\\', b'0' + (b >> 6), b'0' + (b >> 3 & 7), b'0' + (b & 7)]),
                }
            }
        }
    }
}

fn put_lsn(lsn: u64, out: &mut BytesMut) {
    let put_hex = |value: u32, out: &mut BytesMut| {
        let digits = (8 - value.leading_zeros() / 4).max(1);
        for i in (0..digits).rev() {
            out.put_u8(HEX[(value >> (4 * i) & 15) as usize].to_ascii_uppercase());
        }
    };
    put_hex((lsn >> 32) as u32, out);
    out.put_u8(b'/');
    put_hex(lsn as u32, out);
}

fn put_array(a: &ArrayValue, style: &IoStyle, out: &mut BytesMut) {
    if a.dims.is_empty() {
        return out.put_slice(b"{}");
    }
    if a.dims.iter().any(|d| d.lower != 1) {
        for d in &a.dims {
            out.put_u8(b'[');
            put_i64(i64::from(d.lower), out);
            out.put_u8(b':');
            put_i64(i64::from(d.lower) + i64::from(d.len) - 1, out);
            out.put_u8(b']');
        }
        out.put_u8(b'=');
    }
    let mut values = a.values.iter();
    put_dimension(a, 0, &mut values, style, out);
}

fn put_dimension<'a>(
    a: &ArrayValue,
    depth: usize,
    values: &mut impl Iterator<Item = &'a Datum>,
    style: &IoStyle,
    out: &mut BytesMut,
) {
    out.put_u8(b'{');
    for i in 0..a.dims[depth].len {
        if i > 0 {
            out.put_u8(b',');
        }
        if depth + 1 < a.dims.len() {
            put_dimension(a, depth + 1, values, style, out);
        } else if let Some(value) = values.next() {
            put_element(value, style, out);
        }
    }
    out.put_u8(b'}');
}

fn put_element(value: &Datum, style: &IoStyle, out: &mut BytesMut) {
    if value.is_null() {
        return out.put_slice(b"NULL");
    }
    let mut text = BytesMut::new();
    write_text(value, style, &mut text);
    let special =
        |b: &u8| matches!(b, b'{' | b'}' | b',' | b'"' | b'\\' | b'\x0b') || b.is_ascii_whitespace();
    if !text.is_empty() && !text.iter().any(special) && !text.eq_ignore_ascii_case(b"null") {
        return out.put_slice(&text);
    }
    out.put_u8(b'"');
    for b in &text {
        if matches!(b, b'"' | b'\\') {
            out.put_u8(b'\\');
        }
        out.put_u8(*b);
    }
    out.put_u8(b'"');
}

fn put_record(fields: &[Datum], style: &IoStyle, out: &mut BytesMut) {
    out.put_u8(b'(');
    for (i, field) in fields.iter().enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        if field.is_null() {
            continue;
        }
        let mut text = BytesMut::new();
        write_text(field, style, &mut text);
        let special =
            |b: &u8| matches!(b, b'(' | b')' | b',' | b'"' | b'\\' | b'\x0b') || b.is_ascii_whitespace();
        if !text.is_empty() && !text.iter().any(special) {
            out.put_slice(&text);
            continue;
        }
        out.put_u8(b'"');
        for b in &text {
            if matches!(b, b'"' | b'\\') {
                out.put_u8(*b);
            }
            out.put_u8(*b);
        }
        out.put_u8(b'"');
    }
    out.put_u8(b')');
}

/// Appends the text form of the stored bytes of type `id`: the short way from page to reply, without a [`Datum`] for
/// integers and strings.
#[inline]
pub fn write_disk_text(id: TypeId, payload: &[u8], style: &IoStyle, out: &mut BytesMut) -> Result<()> {
    let corrupt = || TypeError::corrupt("length of a fixed-width value");
    match id {
        TypeId::Int4 => {
            put_i64(
                i64::from(i32::from_le_bytes(payload.try_into().map_err(|_| corrupt())?)),
                out,
            );
        }
        TypeId::Int8 => put_i64(
            i64::from_le_bytes(payload.try_into().map_err(|_| corrupt())?),
            out,
        ),
        TypeId::Text | TypeId::Varchar | TypeId::Bpchar => out.put_slice(payload),
        TypeId::Name => out.put_slice(disk::name_str(payload)?.as_bytes()),
        _ => write_text(&disk::read(id, payload)?, style, out),
    }
    Ok(())
}

/// The text form as a string, as a cast to `text` gives it (booleans in full, `char(n)` without padding are the
/// cast's business, not this function's).
pub fn text_of(value: &Datum, style: &IoStyle) -> String {
    if let Datum::Text(s) | Datum::Bpchar(s) = value {
        return s.to_string();
    }
    let mut out = BytesMut::new();
    write_text(value, style, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}
