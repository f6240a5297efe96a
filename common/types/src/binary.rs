//! Binary input and output of every type: PostgreSQL's send and receive functions, big-endian.

use crate::array::{ArrayValue, Dimension};
use crate::datetime;
use crate::datum::Datum;
use crate::disk;
use crate::error::{Result, TypeError};
use crate::interval::Interval;
use crate::numeric::Numeric;
use crate::type_id::{ColumnType, TypeId};
use bytes::{BufMut, BytesMut};
use std::sync::Arc;
use towline_base::{Lsn, SqlState, Tid};

fn fixed<const N: usize>(bytes: &[u8], ty: ColumnType) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| {
        let problem = if bytes.len() < N {
            "insufficient data left in message"
        } else {
            "incorrect binary data format"
        };
        let state = if bytes.len() < N {
            SqlState::PROTOCOL_VIOLATION
        } else {
            SqlState::INVALID_BINARY_REPRESENTATION
        };
        TypeError::new(state, problem).with_detail(format!("Value of type {}.", ty.id.sql_name()))
    })
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    let invalid = |bad: &[u8]| {
        let shown: Vec<String> = bad.iter().take(4).map(|b| format!("0x{b:02x}")).collect();
        TypeError::new(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" ")),
        )
    };
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let from = e.valid_up_to();
        let len = e.error_len().unwrap_or(bytes.len() - from);
        invalid(&bytes[from..from + len])
    })?;
    if text.contains('\0') {
        Err(invalid(&[0]))
    } else {
        Ok(text)
    }
}

/// Bytes from a client as text: 22021 with PostgreSQL's message if they are not UTF-8 or hold a NUL.
pub fn check_utf8(bytes: &[u8]) -> Result<&str> {
    utf8(bytes)
}

/// Reads the binary wire form of a value and applies the type modifier.
pub fn parse_binary(ty: ColumnType, bytes: &[u8]) -> Result<Datum> {
    let value = parse(ty, bytes)?;
    if ty.typmod < 0 {
        Ok(value)
    } else {
        crate::cast::apply_typmod(value, ty, false)
    }
}

fn parse(ty: ColumnType, bytes: &[u8]) -> Result<Datum> {
    Ok(match ty.id {
        TypeId::Int4 => Datum::Int4(i32::from_be_bytes(fixed(bytes, ty)?)),
        TypeId::Int8 => Datum::Int8(i64::from_be_bytes(fixed(bytes, ty)?)),
        TypeId::Int2 => Datum::Int2(i16::from_be_bytes(fixed(bytes, ty)?)),
        TypeId::Text
        | TypeId::Varchar
        | TypeId::Unknown
        | TypeId::PgNodeTree
        | TypeId::Cstring
        | TypeId::Inet => Datum::Text(utf8(bytes)?.into()),
        TypeId::Bpchar => Datum::Bpchar(utf8(bytes)?.into()),
        TypeId::Name => {
            let text = utf8(bytes)?;
            if text.len() >= disk::NAME_LEN {
                return Err(TypeError::new(SqlState::NAME_TOO_LONG, "identifier too long")
                    .with_detail("Identifier must be less than 64 characters."));
            }
            Datum::Text(text.into())
        }
        TypeId::Bool => Datum::Bool(fixed::<1>(bytes, ty)?[0] != 0),
        TypeId::Char => Datum::Char(fixed::<1>(bytes, ty)?[0]),
        TypeId::Float4 => Datum::Float4(f32::from_be_bytes(fixed(bytes, ty)?)),
        TypeId::Float8 => Datum::Float8(f64::from_be_bytes(fixed(bytes, ty)?)),
        TypeId::Numeric => Datum::Numeric(Numeric::from_binary(bytes)?),
        TypeId::Bytea => Datum::Bytea(bytes.into()),
        TypeId::Date => {
            let days = i32::from_be_bytes(fixed(bytes, ty)?);
            if !datetime::valid_date(days) {
                return Err(datetime::date_range());
            }
            Datum::Date(days)
        }
        TypeId::Time => {
            let micros = i64::from_be_bytes(fixed(bytes, ty)?);
            if !(0..=datetime::DAY).contains(&micros) {
                return Err(TypeError::new(
                    SqlState::DATETIME_FIELD_OVERFLOW,
                    "time out of range",
                ));
            }
            Datum::Time(micros)
        }
        TypeId::Timestamp | TypeId::TimestampTz => {
            let micros = i64::from_be_bytes(fixed(bytes, ty)?);
            if !datetime::is_infinite(micros) && !datetime::valid_timestamp(micros) {
                return Err(datetime::timestamp_range());
            }
            if ty.id == TypeId::Timestamp {
                Datum::Timestamp(micros)
            } else {
                Datum::TimestampTz(micros)
            }
        }
        TypeId::Interval => {
            let b: [u8; 16] = fixed(bytes, ty)?;
            Datum::Interval(Interval {
                micros: i64::from_be_bytes(fixed(&b[..8], ty)?),
                days: i32::from_be_bytes(fixed(&b[8..12], ty)?),
                months: i32::from_be_bytes(fixed(&b[12..], ty)?),
            })
        }
        TypeId::PgLsn => Datum::PgLsn(Lsn(u64::from_be_bytes(fixed(bytes, ty)?))),
        TypeId::Oid
        | TypeId::Regproc
        | TypeId::Regprocedure
        | TypeId::Regclass
        | TypeId::Regtype
        | TypeId::Regnamespace
        | TypeId::Regrole => Datum::Oid(u32::from_be_bytes(fixed(bytes, ty)?)),
        TypeId::Xid | TypeId::Cid => Datum::Xid(u32::from_be_bytes(fixed(bytes, ty)?)),
        TypeId::Tid => {
            let b: [u8; 6] = fixed(bytes, ty)?;
            Datum::Tid(Tid::new(
                u32::from_be_bytes(fixed(&b[..4], ty)?),
                u16::from_be_bytes([b[4], b[5]]),
            ))
        }
        TypeId::Int2Vector | TypeId::OidVector => vector(parse_array(ty, bytes)?, ty)?,
        TypeId::Record
        | TypeId::Any
        | TypeId::Void
        | TypeId::AnyElement
        | TypeId::AnyArray
        | TypeId::AclItem => {
            return Err(TypeError::unsupported(format!(
                "cannot accept a value of type {}",
                ty.id.sql_name()
            )));
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
        | TypeId::NumericArray => Datum::Array(Arc::new(parse_array(ty, bytes)?)),
    })
}

fn vector(array: ArrayValue, ty: ColumnType) -> Result<Datum> {
    let invalid = || TypeError::binary(ty.id.sql_name());
    if ty.id == TypeId::Int2Vector {
        let items: Option<Arc<[i16]>> = array
            .values
            .iter()
            .map(|v| if let Datum::Int2(x) = v { Some(*x) } else { None })
            .collect();
        items.map(Datum::Int2Vector).ok_or_else(invalid)
    } else {
        let items: Option<Arc<[u32]>> = array.values.iter().map(Datum::as_oid).collect();
        items.map(Datum::OidVector).ok_or_else(invalid)
    }
}

fn parse_array(ty: ColumnType, bytes: &[u8]) -> Result<ArrayValue> {
    let invalid = || TypeError::binary(ty.id.sql_name());
    let mut rest = bytes;
    let word = |rest: &mut &[u8]| -> Result<i32> {
        let (head, tail) = rest.split_first_chunk::<4>().ok_or_else(invalid)?;
        *rest = tail;
        Ok(i32::from_be_bytes(*head))
    };
    let ndims = word(&mut rest)?;
    let _has_nulls = word(&mut rest)?;
    let element_oid = word(&mut rest)? as u32;
    let element = TypeId::from_oid(element_oid)
        .filter(|e| ty.id.element() == Some(*e))
        .ok_or_else(|| {
            TypeError::new(SqlState::DATATYPE_MISMATCH, "wrong element type").with_detail(format!(
                "Array of type {} cannot hold elements of type {element_oid}.",
                ty.id.sql_name()
            ))
        })?;
    if !(0..=crate::array::MAX_DIMENSIONS as i32).contains(&ndims) {
        return Err(invalid());
    }
    let mut dims = smallvec::SmallVec::new();
    for _ in 0..ndims {
        dims.push(Dimension {
            len: word(&mut rest)?,
            lower: word(&mut rest)?,
        });
    }
    let count = ArrayValue::count(&dims)?;
    // Each element has at least its length word.
    if count > rest.len() / 4 {
        return Err(invalid());
    }
    let element_type = ColumnType {
        id: element,
        typmod: ty.typmod,
    };
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        let len = word(&mut rest)?;
        if len < 0 {
            values.push(Datum::Null);
            continue;
        }
        let item = rest.get(..len as usize).ok_or_else(invalid)?;
        rest = &rest[len as usize..];
        values.push(parse_binary(element_type, item)?);
    }
    if !rest.is_empty() {
        return Err(invalid());
    }
    if count == 0 {
        dims.clear();
    }
    Ok(ArrayValue {
        element,
        dims,
        values,
    })
}

/// Appends the binary wire form of a non-null value (NULL appends nothing), without its length.
pub fn write_binary(value: &Datum, out: &mut BytesMut) {
    match value {
        Datum::Null => {}
        Datum::Int4(v) => out.put_i32(*v),
        Datum::Int8(v) => out.put_i64(*v),
        Datum::Int2(v) => out.put_i16(*v),
        Datum::Text(s) | Datum::Bpchar(s) => out.put_slice(s.as_bytes()),
        Datum::Bool(b) => out.put_u8(u8::from(*b)),
        Datum::Char(c) => out.put_u8(*c),
        Datum::Float4(v) => out.put_f32(*v),
        Datum::Float8(v) => out.put_f64(*v),
        Datum::Numeric(n) => n.write_binary(out),
        Datum::Bytea(b) => out.put_slice(b),
        Datum::Date(v) => out.put_i32(*v),
        Datum::Time(v) | Datum::Timestamp(v) | Datum::TimestampTz(v) => out.put_i64(*v),
        Datum::Interval(v) => {
            out.put_i64(v.micros);
            out.put_i32(v.days);
            out.put_i32(v.months);
        }
        Datum::PgLsn(v) => out.put_u64(v.0),
        Datum::Oid(v) | Datum::Xid(v) => out.put_u32(*v),
        Datum::Tid(t) => {
            out.put_u32(t.block);
            out.put_u16(t.offset);
        }
        Datum::Int2Vector(v) => put_vector(TypeId::Int2, v.len(), v.iter().map(|x| Datum::Int2(*x)), out),
        Datum::OidVector(v) => put_vector(TypeId::Oid, v.len(), v.iter().map(|x| Datum::Oid(*x)), out),
        Datum::Array(a) => {
            let has_nulls = a.values.iter().any(Datum::is_null);
            out.put_i32(a.dims.len() as i32);
            out.put_i32(i32::from(has_nulls));
            out.put_u32(a.element.oid());
            for d in &a.dims {
                out.put_i32(d.len);
                out.put_i32(d.lower);
            }
            a.values.iter().for_each(|v| put_sized(v, out));
        }
        Datum::Record(fields) => {
            out.put_i32(fields.len() as i32);
            for field in fields.iter() {
                out.put_u32(field.type_id().oid());
                put_sized(field, out);
            }
        }
        // It was not fetched, and so has no bytes.
        Datum::External(_) => {}
    }
}

fn put_vector(element: TypeId, len: usize, values: impl Iterator<Item = Datum>, out: &mut BytesMut) {
    for word in [1, 0, element.oid(), len as u32, 0] {
        out.put_u32(word);
    }
    values.for_each(|v| put_sized(&v, out));
}

/// A length word and the value; -1 for NULL.
fn put_sized(value: &Datum, out: &mut BytesMut) {
    if value.is_null() {
        return out.put_i32(-1);
    }
    let at = out.len();
    out.put_i32(0);
    write_binary(value, out);
    let len = (out.len() - at - 4) as i32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

/// Appends the binary wire form of the stored bytes of type `id`.
#[inline]
pub fn write_disk_binary(id: TypeId, payload: &[u8], out: &mut BytesMut) -> Result<()> {
    match id {
        TypeId::Text | TypeId::Varchar | TypeId::Bpchar | TypeId::Bytea => out.put_slice(payload),
        _ => write_binary(&disk::read(id, payload)?, out),
    }
    Ok(())
}
