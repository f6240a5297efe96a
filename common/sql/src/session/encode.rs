//! Rows as protocol messages, straight into the reply buffer.

use bytes::{BufMut, BytesMut};
use towline_types::{ColumnType, Datum, IoStyle, TypeId, write_binary, write_text};

use super::prepared::format_of;
use crate::error::SqlError;
use crate::expr::FunctionContext;

/// Appends one `DataRow`.
pub(crate) fn data_row(
    row: &[Datum],
    types: &[ColumnType],
    formats: &[i16],
    style: &IoStyle,
    names: &dyn FunctionContext,
    out: &mut BytesMut,
) -> Result<(), SqlError> {
    let start = begin(b'D', out);
    out.put_u16(row.len() as u16);
    for (index, value) in row.iter().enumerate() {
        let ty = types.get(index).map_or(TypeId::Text, |ty| ty.id);
        field(value, ty, format_of(formats, index) == 1, style, names, out);
        if out.len() - start > MAX_MESSAGE {
            // The rest need not be written to be told.
            break;
        }
    }
    end(start, out)
}

/// A message's length is a signed word.
const MAX_MESSAGE: usize = i32::MAX as usize;

/// Begins a message; gives where its length stands.
pub(crate) fn begin(tag: u8, out: &mut BytesMut) -> usize {
    out.put_u8(tag);
    let start = out.len();
    out.put_u32(0);
    start
}

/// Fills in the length.
pub(crate) fn end(start: usize, out: &mut BytesMut) -> Result<(), SqlError> {
    let length = out.len() - start;
    let Ok(length) = i32::try_from(length) else {
        out.truncate(start.saturating_sub(1));
        return Err(SqlError::new(
            towline_base::SqlState::PROGRAM_LIMIT_EXCEEDED,
            "a row is larger than 2 GB",
        ));
    };
    if let Some(slot) = out.get_mut(start..start + 4) {
        slot.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

fn field(
    value: &Datum,
    ty: TypeId,
    binary: bool,
    style: &IoStyle,
    names: &dyn FunctionContext,
    out: &mut BytesMut,
) {
    if value.is_null() {
        out.put_i32(-1);
        return;
    }
    let start = out.len();
    out.put_u32(0);
    if binary {
        write_binary(value, out);
    } else {
        text(value, ty, style, names, out);
    }
    let length = (out.len() - start - 4) as u32;
    if let Some(slot) = out.get_mut(start..start + 4) {
        slot.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a value as text.
pub(crate) fn text(
    value: &Datum,
    ty: TypeId,
    style: &IoStyle,
    names: &dyn FunctionContext,
    out: &mut BytesMut,
) {
    match value {
        Datum::Oid(oid) if ty.is_reg() => out.extend_from_slice(names.reg_out(ty, *oid).as_bytes()),
        value => write_text(value, style, out),
    }
}
