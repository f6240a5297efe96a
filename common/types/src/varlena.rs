//! The headers of values of variable width ("varlena"), PostgreSQL 15's on a little-endian machine:
//! ```text
//! plain, up to 126 bytes   1 byte: (1 + length) << 1 | 1; not aligned
//! plain                    4 bytes: (4 + length) << 2; at the type's alignment, as the next
//! compressed               4 bytes: (8 + stream length) << 2 | 2;  4 bytes: value's length in 30 bits, method in the
//!                          highest two (0 is pglz);  the stream
//! out of line              1 byte: 1;  1 byte: 18;  a [`ToastPointer`]: 16 bytes; not aligned
//! ```
//! Pad bytes are zero, which no header begins with.

use std::borrow::Cow;

use crate::error::{Result, TypeError};
use crate::pglz;
use crate::type_id::Align;
use towline_base::SqlState;

/// Largest total size of a value with a 1-byte header.
pub(crate) const SHORT_MAX: usize = 127;
/// Largest total size of a value; PostgreSQL's limit.
pub(crate) const MAX_TOTAL: usize = (1 << 30) - 1;
/// Header of a plain value that is not short.
pub(crate) const PLAIN_HEADER: usize = 4;
/// First byte of a pointer.
const EXTERNAL: u8 = 1;
/// Bytes before a compressed value's stream.
const COMPRESSED_HEADER: usize = 8;
const COMPRESSED: u32 = 2;
const RAW_LEN_MASK: u32 = 0x3fff_ffff;
/// What compression must save to be worth a longer header and its padding.
const LEAST_GAIN: usize = 2;

/// The bytes of a value without its header: as they are stored, or decompressed.
pub type Payload<'a> = Cow<'a, [u8]>;

/// A value as it stands in a row.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    /// The payload itself.
    Plain(&'a [u8]),
    /// A pglz stream of a payload of this length.
    Compressed {
        /// Bytes of the payload.
        raw_len: usize,
        /// The stream.
        stream: &'a [u8],
    },
    /// In the chunks of a TOAST table.
    External(ToastPointer),
}

impl<'a> Stored<'a> {
    /// The payload. XX001 when it cannot be decompressed; XX000 for a value out of line, which the caller must fetch first.
    #[inline]
    pub fn payload(self) -> Result<Payload<'a>> {
        match self {
            Stored::Plain(bytes) => Ok(Cow::Borrowed(bytes)),
            Stored::Compressed { raw_len, stream } => pglz::decompress(stream, raw_len).map(Cow::Owned),
            Stored::External(pointer) => Err(TypeError::new(
                SqlState::INTERNAL_ERROR,
                format!("TOAST value {} was not fetched before it was used", pointer.value),
            )),
        }
    }
}

/// Where a value is that is stored out of line: PostgreSQL's `varatt_external`, little-endian, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ToastPointer {
    /// `va_rawsize`: bytes of the value as it is used, with a header of 4.
    pub raw_size: u32,
    /// `va_extinfo`: bytes stored in 30 bits, compression method in the highest two.
    pub info: u32,
    /// `va_valueid`: `chunk_id` of its chunks.
    pub value: u32,
    /// `va_toastrelid`: OID of the TOAST table.
    pub relation: u32,
}

impl ToastPointer {
    /// Bytes of a pointer in a row, with its header.
    pub const SIZE: usize = 18;
    /// `VARTAG_ONDISK`
    const TAG: u8 = 18;

    /// Bytes in the chunks, all together.
    pub fn stored_len(&self) -> usize {
        (self.info & RAW_LEN_MASK) as usize
    }

    /// Bytes of the value without its header.
    pub fn raw_len(&self) -> usize {
        (self.raw_size as usize).saturating_sub(PLAIN_HEADER)
    }

    /// Whether the chunks hold a compressed value (with its 4 bytes of length and method).
    pub fn is_compressed(&self) -> bool {
        self.stored_len() < self.raw_len()
    }

    /// The pointer as it stands in a row.
    pub fn encode(&self) -> [u8; ToastPointer::SIZE] {
        let mut out = [EXTERNAL; ToastPointer::SIZE];
        out[1] = ToastPointer::TAG;
        for (field, place) in [self.raw_size, self.info, self.value, self.relation]
            .iter()
            .zip(out[2..].chunks_exact_mut(4))
        {
            place.copy_from_slice(&field.to_le_bytes());
        }
        out
    }

    /// Reads what follows the first byte.
    fn decode(bytes: &[u8]) -> Result<ToastPointer> {
        let Some((&tag, &[a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])) = bytes
            .split_first()
            .and_then(|(tag, rest)| Some((tag, rest.first_chunk::<16>()?)))
        else {
            return Err(TypeError::corrupt("TOAST pointer past the end of the row"));
        };
        let pointer = ToastPointer {
            raw_size: u32::from_le_bytes([a, b, c, d]),
            info: u32::from_le_bytes([e, f, g, h]),
            value: u32::from_le_bytes([i, j, k, l]),
            relation: u32::from_le_bytes([m, n, o, p]),
        };
        let sane = (PLAIN_HEADER..=MAX_TOTAL).contains(&(pointer.raw_size as usize))
            && pointer.stored_len() <= pointer.raw_len();
        if tag != ToastPointer::TAG || !sane {
            return Err(TypeError::corrupt("TOAST pointer"));
        }
        Ok(pointer)
    }

    /// The value's payload, out of what its chunks hold, put together.
    ///
    /// # Errors
    /// XX001 when that is not a value of the pointer's length.
    pub fn unpack(&self, stored: Vec<u8>) -> Result<Vec<u8>> {
        if stored.len() != self.stored_len() {
            return Err(TypeError::corrupt("length of a TOAST value"));
        }
        if !self.is_compressed() {
            return Ok(stored);
        }
        match compressed_body(&stored)? {
            Stored::Compressed { raw_len, stream } if raw_len == self.raw_len() => {
                pglz::decompress(stream, raw_len)
            }
            _ => Err(TypeError::corrupt("length of a compressed TOAST value")),
        }
    }
}

/// What follows the first word of a compressed value.
fn compressed_body(body: &[u8]) -> Result<Stored<'_>> {
    let (info, stream) = body
        .split_first_chunk()
        .ok_or_else(|| TypeError::corrupt("header of a compressed value"))?;
    let info = u32::from_le_bytes(*info);
    if info & !RAW_LEN_MASK != 0 {
        return Err(TypeError::corrupt("value compressed by an unknown method"));
    }
    let raw_len = info as usize;
    Ok(Stored::Compressed { raw_len, stream })
}

/// The varlena at `offset`, after its padding, and its end.
pub(crate) fn take(data: &[u8], offset: usize, align: Align) -> Result<(Stored<'_>, usize)> {
    let past_end = || TypeError::corrupt("varlena past the end of the row");
    let first = *data.get(offset).ok_or_else(past_end)?;
    let start = if first == 0 { align.up(offset) } else { offset };
    let first = *data.get(start).ok_or_else(past_end)?;
    if first & 1 == 1 {
        let total = usize::from(first >> 1);
        if total == 0 {
            let pointer = ToastPointer::decode(&data[start + 1..])?;
            return Ok((Stored::External(pointer), start + ToastPointer::SIZE));
        }
        let payload = data.get(start + 1..start + total).ok_or_else(past_end)?;
        return Ok((Stored::Plain(payload), start + total));
    }
    let header = data.get(start..start + 4).ok_or_else(past_end)?;
    let header = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let end = start.saturating_add((header >> 2) as usize);
    let body = data.get(start + 4..end).ok_or_else(past_end)?;
    if header & COMPRESSED == 0 {
        return Ok((Stored::Plain(body), end));
    }
    Ok((compressed_body(body)?, end))
}

/// Payload and end of the varlena at `offset`, where nothing is compressed: in an array.
pub(crate) fn take_plain(data: &[u8], offset: usize, align: Align) -> Result<(&[u8], usize)> {
    match take(data, offset, align)? {
        (Stored::Plain(payload), end) => Ok((payload, end)),
        (Stored::Compressed { .. } | Stored::External(_), _) => Err(TypeError::corrupt("compressed element")),
    }
}

/// A value compressed, with its header; `None` when that saves too little, or the stream would not be shorter than `limit`.
pub fn compressed(payload: &[u8], limit: usize) -> Option<Vec<u8>> {
    let stream = pglz::compress(payload, limit)?;
    let total = COMPRESSED_HEADER + stream.len();
    if total + LEAST_GAIN >= payload.len() {
        return None;
    }
    let mut out = Vec::with_capacity(total);
    out.extend_from_slice(&((total as u32) << 2 | COMPRESSED).to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&stream);
    Some(out)
}
