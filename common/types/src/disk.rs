//! The stored bytes of single values (without varlena headers): writing, reading, and comparing in place.
//!
//! Little-endian, PostgreSQL 15's formats on a 64-bit machine. Reading never trusts the length it is given.

use crate::array::{ArrayValue, Dimension};
use crate::datetime;
use crate::datum::{Datum, trim_blanks};
use crate::error::{Result, TypeError};
use crate::interval::Interval;
use crate::numeric::Numeric;
use crate::type_id::{Align, Category, TypeId};
use crate::varlena::take_plain;
use smallvec::SmallVec;
use std::cmp::Ordering;
use towline_base::{Lsn, SqlState, Tid};

/// Bytes of a `name`.
pub const NAME_LEN: usize = 64;
/// Bytes of PostgreSQL's array header, its varlena header included.
const ARRAY_HEADER: usize = 16;
/// Bytes of the varlena header that array offsets count and payloads do not have.
const VARHDRSZ: usize = 4;

/// XX000: a value of another type than its column.
#[cold]
pub(crate) fn mismatch(id: TypeId, value: &Datum) -> TypeError {
    TypeError::new(
        SqlState::INTERNAL_ERROR,
        format!(
            "value of type {} where {} is stored",
            value.type_id().name(),
            id.name()
        ),
    )
}

/// Bytes that [`write()`] will append.
pub fn payload_len(id: TypeId, value: &Datum) -> Result<usize> {
    Ok(match value {
        Datum::Text(s) | Datum::Bpchar(s) if id.len() < 0 => s.len(),
        Datum::Bytea(b) => b.len(),
        Datum::Numeric(n) => n.disk_len(),
        Datum::Int2Vector(v) => ARRAY_HEADER - VARHDRSZ + 8 + 2 * v.len(),
        Datum::OidVector(v) => ARRAY_HEADER - VARHDRSZ + 8 + 4 * v.len(),
        Datum::Array(a) => {
            let mut out = Vec::new();
            write_array(a, &mut out)?;
            out.len()
        }
        _ if id.len() > 0 => id.len() as usize,
        _ => return Err(mismatch(id, value)),
    })
}

/// Appends the stored bytes of a non-null value of type `id`.
pub fn write(id: TypeId, value: &Datum, out: &mut Vec<u8>) -> Result<()> {
    match (id, value) {
        (TypeId::Int4, Datum::Int4(v)) => out.extend_from_slice(&v.to_le_bytes()),
        (TypeId::Int8, Datum::Int8(v)) => out.extend_from_slice(&v.to_le_bytes()),
        (TypeId::Int2, Datum::Int2(v)) => out.extend_from_slice(&v.to_le_bytes()),
        (TypeId::Name, Datum::Text(s)) => {
            let bytes = s.as_bytes();
            if bytes.len() >= NAME_LEN {
                return Err(TypeError::new(SqlState::NAME_TOO_LONG, "identifier too long")
                    .with_detail("Identifier must be less than 64 characters."));
            }
            out.extend_from_slice(bytes);
            out.resize(out.len() + NAME_LEN - bytes.len(), 0);
        }
        (_, Datum::Text(s) | Datum::Bpchar(s)) if id.len() == -1 && id.category() != Category::Array => {
            out.extend_from_slice(s.as_bytes());
        }
        (TypeId::Bool, Datum::Bool(v)) => out.push(u8::from(*v)),
        (TypeId::Char, Datum::Char(v)) => out.push(*v),
        (TypeId::Float4, Datum::Float4(v)) => out.extend_from_slice(&v.to_le_bytes()),
        (TypeId::Float8, Datum::Float8(v)) => out.extend_from_slice(&v.to_le_bytes()),
        (TypeId::Numeric, Datum::Numeric(v)) => v.write_disk(out),
        (TypeId::Bytea, Datum::Bytea(v)) => out.extend_from_slice(v),
        (TypeId::Date, Datum::Date(v)) => out.extend_from_slice(&v.to_le_bytes()),
        (TypeId::Time, Datum::Time(v))
        | (TypeId::Timestamp, Datum::Timestamp(v))
        | (TypeId::TimestampTz, Datum::TimestampTz(v)) => out.extend_from_slice(&v.to_le_bytes()),
        (TypeId::Interval, Datum::Interval(v)) => {
            out.extend_from_slice(&v.micros.to_le_bytes());
            out.extend_from_slice(&v.days.to_le_bytes());
            out.extend_from_slice(&v.months.to_le_bytes());
        }
        (TypeId::PgLsn, Datum::PgLsn(v)) => out.extend_from_slice(&v.0.to_le_bytes()),
        (TypeId::Xid | TypeId::Cid, Datum::Xid(v)) => out.extend_from_slice(&v.to_le_bytes()),
        (TypeId::Oid, Datum::Oid(v)) => out.extend_from_slice(&v.to_le_bytes()),
        (_, Datum::Oid(v)) if id.is_reg() => out.extend_from_slice(&v.to_le_bytes()),
        (TypeId::Tid, Datum::Tid(t)) => {
            // BlockIdData keeps the high half first.
            out.extend_from_slice(&((t.block >> 16) as u16).to_le_bytes());
            out.extend_from_slice(&(t.block as u16).to_le_bytes());
            out.extend_from_slice(&t.offset.to_le_bytes());
        }
        (TypeId::Int2Vector, Datum::Int2Vector(v)) => {
            write_vector_header(TypeId::Int2, v.len(), out);
            v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
        }
        (TypeId::OidVector, Datum::OidVector(v)) => {
            write_vector_header(TypeId::Oid, v.len(), out);
            v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
        }
        (_, Datum::Array(a)) if id.category() == Category::Array || id == TypeId::AnyArray => {
            write_array(a, out)?
        }
        _ => return Err(mismatch(id, value)),
    }
    Ok(())
}

fn write_vector_header(element: TypeId, len: usize, out: &mut Vec<u8>) {
    for word in [1, 0, element.oid(), len as u32, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

fn write_array(a: &ArrayValue, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    let has_nulls = a.values.iter().any(Datum::is_null);
    let bitmap_len = if has_nulls { a.values.len().div_ceil(8) } else { 0 };
    let header = Align::Double.up(ARRAY_HEADER + 8 * a.dims.len() + bitmap_len);
    for word in [
        a.dims.len() as u32,
        if has_nulls { header as u32 } else { 0 },
        a.element.oid(),
    ] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    a.dims
        .iter()
        .for_each(|d| out.extend_from_slice(&d.len.to_le_bytes()));
    a.dims
        .iter()
        .for_each(|d| out.extend_from_slice(&d.lower.to_le_bytes()));
    if has_nulls {
        crate::row::RowDesc::write_bitmap(&a.values, out);
    }
    if !a.dims.is_empty() {
        out.resize(start + header - VARHDRSZ, 0);
    }
    // Offsets count the varlena header that stands before the payload.
    let pad = |out: &mut Vec<u8>, align: Align| {
        let at = align.up(out.len() - start + VARHDRSZ) + start - VARHDRSZ;
        out.resize(at, 0);
    };
    let info = a.element.info();
    for value in a.values.iter().filter(|v| !v.is_null()) {
        pad(out, info.align);
        if info.len == -1 {
            let len = payload_len(a.element, value)?;
            out.extend_from_slice(&(((len + VARHDRSZ) as u32) << 2).to_le_bytes());
        }
        write(a.element, value, out)?;
        // Each element is padded behind as well, as PostgreSQL's att_addlength does.
        pad(out, info.align);
    }
    Ok(())
}

#[inline]
fn fixed<const N: usize>(payload: &[u8]) -> Result<[u8; N]> {
    payload
        .try_into()
        .map_err(|_| TypeError::corrupt("length of a fixed-width value"))
}

fn moment(payload: &[u8]) -> Result<i64> {
    let micros = i64::from_le_bytes(fixed(payload)?);
    if datetime::valid_timestamp(micros) || datetime::is_infinite(micros) {
        return Ok(micros);
    }
    Err(TypeError::corrupt("timestamp out of range"))
}

fn utf8(payload: &[u8]) -> Result<&str> {
    std::str::from_utf8(payload).map_err(|_| TypeError::corrupt("text is not valid UTF-8"))
}

/// The text of a stored `name`.
pub fn name_str(payload: &[u8]) -> Result<&str> {
    let len = payload.iter().position(|b| *b == 0).unwrap_or(payload.len());
    utf8(&payload[..len])
}

/// The value in the stored bytes of type `id`.
#[inline]
pub fn read(id: TypeId, payload: &[u8]) -> Result<Datum> {
    Ok(match id {
        TypeId::Int4 => Datum::Int4(i32::from_le_bytes(fixed(payload)?)),
        TypeId::Int8 => Datum::Int8(i64::from_le_bytes(fixed(payload)?)),
        TypeId::Int2 => Datum::Int2(i16::from_le_bytes(fixed(payload)?)),
        TypeId::Text
        | TypeId::Varchar
        | TypeId::PgNodeTree
        | TypeId::Inet
        | TypeId::Unknown
        | TypeId::Cstring => Datum::Text(utf8(payload)?.into()),
        TypeId::Bpchar => Datum::Bpchar(utf8(payload)?.into()),
        TypeId::Name => Datum::Text(name_str(payload)?.into()),
        TypeId::Bool => Datum::Bool(fixed::<1>(payload)?[0] != 0),
        TypeId::Char => Datum::Char(fixed::<1>(payload)?[0]),
        TypeId::Float4 => Datum::Float4(f32::from_le_bytes(fixed(payload)?)),
        TypeId::Float8 => Datum::Float8(f64::from_le_bytes(fixed(payload)?)),
        TypeId::Numeric => Datum::Numeric(Numeric::from_disk(payload)?),
        TypeId::Bytea => Datum::Bytea(payload.into()),
        // Calendar arithmetic relies on the ranges, so they are checked where values enter.
        TypeId::Date => match i32::from_le_bytes(fixed(payload)?) {
            days if datetime::valid_date(days) => Datum::Date(days),
            _ => return Err(TypeError::corrupt("date out of range")),
        },
        TypeId::Time => match i64::from_le_bytes(fixed(payload)?) {
            micros if (0..=datetime::DAY).contains(&micros) => Datum::Time(micros),
            _ => return Err(TypeError::corrupt("time out of range")),
        },
        TypeId::Timestamp => Datum::Timestamp(moment(payload)?),
        TypeId::TimestampTz => Datum::TimestampTz(moment(payload)?),
        TypeId::Interval => {
            let bytes: [u8; 16] = fixed(payload)?;
            Datum::Interval(Interval {
                micros: i64::from_le_bytes(fixed(&bytes[..8])?),
                days: i32::from_le_bytes(fixed(&bytes[8..12])?),
                months: i32::from_le_bytes(fixed(&bytes[12..])?),
            })
        }
        TypeId::PgLsn => Datum::PgLsn(Lsn(u64::from_le_bytes(fixed(payload)?))),
        TypeId::Oid
        | TypeId::Regproc
        | TypeId::Regprocedure
        | TypeId::Regclass
        | TypeId::Regtype
        | TypeId::Regnamespace
        | TypeId::Regrole => Datum::Oid(u32::from_le_bytes(fixed(payload)?)),
        TypeId::Xid | TypeId::Cid => Datum::Xid(u32::from_le_bytes(fixed(payload)?)),
        TypeId::Tid => {
            let b: [u8; 6] = fixed(payload)?;
            let half = |i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
            Datum::Tid(Tid::new(u32::from(half(0)) << 16 | u32::from(half(2)), half(4)))
        }
        TypeId::Int2Vector => {
            let a = vector_items(payload, 2)?;
            Datum::Int2Vector(
                a.chunks_exact(2)
                    .map(|c| i16::from_le_bytes([c[0], c[1]]))
                    .collect(),
            )
        }
        TypeId::OidVector => {
            let a = vector_items(payload, 4)?;
            Datum::OidVector(
                a.chunks_exact(4)
                    .map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]))
                    .collect(),
            )
        }
        TypeId::BoolArray
        | TypeId::ByteaArray
        | TypeId::CharArray
        | TypeId::NameArray
        | TypeId::Int2Array
        | TypeId::Int4Array
        | TypeId::TextArray
        | TypeId::BpcharArray
        | TypeId::VarcharArray
        | TypeId::Int8Array
        | TypeId::Float4Array
        | TypeId::Float8Array
        | TypeId::OidArray
        | TypeId::AclItemArray
        | TypeId::TimestampArray
        | TypeId::DateArray
        | TypeId::TimestampTzArray
        | TypeId::NumericArray
        | TypeId::AnyArray => Datum::Array(read_array(payload)?.into()),
        TypeId::AclItem | TypeId::Record | TypeId::Any | TypeId::Void | TypeId::AnyElement => {
            return Err(TypeError::corrupt("value of a type that is never stored"));
        }
    })
}

fn word(payload: &[u8], at: usize) -> Result<u32> {
    let bytes = payload
        .get(at..at + 4)
        .ok_or_else(|| TypeError::corrupt("array header"))?;
    Ok(u32::from_le_bytes(fixed(bytes)?))
}

fn vector_items(payload: &[u8], width: usize) -> Result<&[u8]> {
    let dims = word(payload, 0)?;
    if dims == 0 {
        return Ok(&[]);
    }
    let len = word(payload, 12)? as usize;
    let end = len.checked_mul(width).and_then(|n| n.checked_add(20));
    let items = end.and_then(|end| payload.get(20..end));
    items
        .filter(|_| dims == 1)
        .ok_or_else(|| TypeError::corrupt("vector"))
}

fn read_array(payload: &[u8]) -> Result<ArrayValue> {
    let corrupt = || TypeError::corrupt("array");
    let ndims = word(payload, 0)? as usize;
    let data_offset = word(payload, 4)? as usize;
    let element = TypeId::from_oid(word(payload, 8)?).ok_or_else(corrupt)?;
    if ndims > crate::array::MAX_DIMENSIONS {
        return Err(corrupt());
    }
    let mut dims: SmallVec<[Dimension; 1]> = SmallVec::new();
    for i in 0..ndims {
        let len = word(payload, 12 + 4 * i)? as i32;
        let lower = word(payload, 12 + 4 * (ndims + i))? as i32;
        dims.push(Dimension { len, lower });
    }
    let count = ArrayValue::count(&dims).map_err(|_| corrupt())?;
    let bitmap_at = 12 + 8 * ndims;
    let (bitmap, data_at) = if data_offset == 0 {
        (None, Align::Double.up(ARRAY_HEADER + 8 * ndims) - VARHDRSZ)
    } else {
        let bits = payload
            .get(bitmap_at..bitmap_at + count.div_ceil(8))
            .ok_or_else(corrupt)?;
        (Some(bits), data_offset.checked_sub(VARHDRSZ).ok_or_else(corrupt)?)
    };
    let info = element.info();
    // No more than the payload can hold, whatever the header says.
    let mut values = Vec::with_capacity(count.min(payload.len()));
    // Element alignment counts from the varlena header; both are multiples of 4, doubles need the shift.
    let mut at = data_at;
    let align_at = |at: usize| info.align.up(at + VARHDRSZ) - VARHDRSZ;
    for i in 0..count {
        if bitmap.is_some_and(|bits| bits[i / 8] & (1 << (i % 8)) == 0) {
            values.push(Datum::Null);
            continue;
        }
        let item = if info.len > 0 {
            let start = align_at(at);
            at = start + info.len as usize;
            payload.get(start..at).ok_or_else(corrupt)?
        } else {
            let (item, end) = take_plain(payload, at, info.align)?;
            at = end;
            item
        };
        values.push(read(element, item)?);
    }
    Ok(ArrayValue {
        element,
        dims,
        values,
    })
}

/// B-tree order of two stored values of one type; no allocation for scalar types but numeric.
#[inline]
pub fn compare(id: TypeId, a: &[u8], b: &[u8]) -> Result<Ordering> {
    Ok(match id {
        TypeId::Int4 => i32::from_le_bytes(fixed(a)?).cmp(&i32::from_le_bytes(fixed(b)?)),
        TypeId::Int8 => i64::from_le_bytes(fixed(a)?).cmp(&i64::from_le_bytes(fixed(b)?)),
        TypeId::Oid => u32::from_le_bytes(fixed(a)?).cmp(&u32::from_le_bytes(fixed(b)?)),
        TypeId::Text | TypeId::Varchar | TypeId::Bytea | TypeId::Cstring | TypeId::PgNodeTree => a.cmp(b),
        TypeId::Name => until_nul(a).cmp(until_nul(b)),
        TypeId::Bpchar => without_blanks(a).cmp(without_blanks(b)),
        _ => read(id, a)?.compare(&read(id, b)?),
    })
}

/// B-tree order of a value in memory and a stored one of type `id` (or of a type in the same operator family).
#[inline]
pub fn compare_datum(id: TypeId, a: &Datum, b: &[u8]) -> Result<Ordering> {
    Ok(match (id, a) {
        (TypeId::Int4, Datum::Int4(a)) => a.cmp(&i32::from_le_bytes(fixed(b)?)),
        (TypeId::Int8, Datum::Int8(a)) => a.cmp(&i64::from_le_bytes(fixed(b)?)),
        (TypeId::Text | TypeId::Varchar | TypeId::Cstring, Datum::Text(a)) => a.as_bytes().cmp(b),
        (TypeId::Name, Datum::Text(a)) => a.as_bytes().cmp(until_nul(b)),
        (TypeId::Bpchar, Datum::Bpchar(a) | Datum::Text(a)) => {
            trim_blanks(a).as_bytes().cmp(without_blanks(b))
        }
        (TypeId::Bytea, Datum::Bytea(a)) => (**a).cmp(b),
        _ => a.compare(&read(id, b)?),
    })
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())]
}

fn without_blanks(bytes: &[u8]) -> &[u8] {
    let len = bytes.iter().rposition(|b| *b != b' ').map_or(0, |i| i + 1);
    &bytes[..len]
}
