//! Rows on disk: attributes laid out exactly as PostgreSQL 15's `heap_fill_tuple` does.
//!
//! A [`RowDesc`] knows the physical properties of a table's (or an index's) columns and turns values into the data
//! area of a tuple and back. The tuple header, and where the data area and the null bitmap stand in it, belong to the
//! caller; offsets and alignment here are relative to the start of the data area, which every header aligns to 8.
//!
//! A varlena of up to 126 bytes has a 1-byte header and no alignment (unless its type's storage is plain), a longer
//! one a 4-byte header at its type's alignment; pad bytes are zero, so that a reader can tell them from a header.
//! A row that comes out too long is shortened by [`RowDesc::shorten`]: values are compressed, or moved out of line and
//! replaced by pointers, which the caller must follow before it uses them.

use crate::datum::Datum;
use crate::disk;
use crate::error::{Result, TypeError};
use crate::type_id::{Align, ColumnType, TypeId};
use crate::varlena::{self, MAX_TOTAL, Payload, SHORT_MAX, Stored};
use towline_base::SqlState;

/// The physical properties of one attribute.
#[derive(Clone, Copy, Debug)]
pub struct AttrDesc {
    /// Type and modifier.
    pub ty: ColumnType,
    /// `attlen`: bytes, -1 for varlena, -2 for a NUL-terminated string.
    pub len: i16,
    /// `attalign`
    pub align: Align,
    /// `attstorage`: `p` neither packed nor moved, `m` compressed and moved late, `x` compressed and moved.
    pub storage: u8,
    /// Whether a short value gets a 1-byte header.
    pub packable: bool,
}

impl AttrDesc {
    /// The attribute of a column of this type.
    pub fn new(ty: ColumnType) -> Self {
        let info = ty.id.info();
        AttrDesc {
            ty,
            len: info.len,
            align: info.align,
            storage: info.storage,
            packable: info.len == -1 && info.storage != b'p',
        }
    }
}

/// What [`RowDesc::form`] tells the writer of the tuple header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formed {
    /// Some value is NULL: the header needs the bitmap and its flag.
    pub has_nulls: bool,
    /// Some stored value has variable width.
    pub has_varwidth: bool,
    /// Some value stands out of line.
    pub has_external: bool,
}

/// The layout of a row. Dropped columns are described by the type they had.
#[derive(Clone, Debug)]
pub struct RowDesc {
    attrs: Box<[AttrDesc]>,
    /// Offset of each attribute while all before it are of fixed width and not null.
    offsets: Box<[Option<u32>]>,
}

impl RowDesc {
    /// The layout of a row with columns of these types.
    pub fn new(types: impl IntoIterator<Item = ColumnType>) -> Self {
        RowDesc::of(types.into_iter().map(AttrDesc::new).collect())
    }

    /// The same, with every value stored plain, whatever its type's storage: a TOAST table's own layout.
    pub fn plain(types: impl IntoIterator<Item = ColumnType>) -> Self {
        let plain = |ty| AttrDesc {
            storage: b'p',
            packable: false,
            ..AttrDesc::new(ty)
        };
        RowDesc::of(types.into_iter().map(plain).collect())
    }

    fn of(attrs: Box<[AttrDesc]>) -> Self {
        let mut next = Some(0usize);
        let offsets = attrs
            .iter()
            .map(|attr| {
                let at = match (next, attr.len) {
                    (Some(off), len) if len > 0 => Some(attr.align.up(off)),
                    // Where a varlena begins depends on its header, but pad bytes tell the reader.
                    (off, _) => off,
                };
                next = at.filter(|_| attr.len > 0).map(|off| off + attr.len as usize);
                at.map(|off| off as u32)
            })
            .collect();
        RowDesc { attrs, offsets }
    }

    /// The attributes.
    pub fn attrs(&self) -> &[AttrDesc] {
        &self.attrs
    }

    /// Number of attributes.
    pub fn len(&self) -> usize {
        self.attrs.len()
    }

    /// Whether there is no attribute.
    pub fn is_empty(&self) -> bool {
        self.attrs.is_empty()
    }

    /// Bytes of a null bitmap for `natts` attributes.
    pub const fn bitmap_len(natts: usize) -> usize {
        natts.div_ceil(8)
    }

    /// Appends the null bitmap: bit `i` (lowest first) is set where value `i` is not NULL.
    pub fn write_bitmap(values: &[Datum], out: &mut Vec<u8>) {
        for group in values.chunks(8) {
            let byte = group
                .iter()
                .enumerate()
                .fold(0u8, |b, (i, v)| b | (u8::from(!v.is_null()) << i));
            out.push(byte);
        }
    }

    /// Appends the data area of a row with these values.
    ///
    /// # Errors
    /// A value that is not of its column's type (XX000): a bug of the caller.
    pub fn form(&self, values: &[Datum], out: &mut Vec<u8>) -> Result<Formed> {
        let start = out.len();
        let mut formed = Formed {
            has_nulls: false,
            has_varwidth: false,
            has_external: false,
        };
        if values.len() != self.attrs.len() {
            return Err(TypeError::new(
                SqlState::INTERNAL_ERROR,
                format!("row of {} values for {} columns", values.len(), self.attrs.len()),
            ));
        }
        for (attr, value) in self.attrs.iter().zip(values) {
            if value.is_null() {
                formed.has_nulls = true;
                continue;
            }
            formed.has_varwidth |= attr.len < 0;
            formed.has_external |= matches!(value, Datum::External(_));
            form_attr(attr, value, start, out)?;
        }
        Ok(formed)
    }

    /// The payload of attribute `n`: the bytes of a fixed-width value, or a varlena without its header and decompressed.
    /// `None` for NULL and for a column the row is too old to have (`n >= natts`).
    ///
    /// `data` is the data area, `bitmap` the null bitmap if the row has one, `natts` the attributes it was stored with.
    #[inline]
    pub fn attr<'a>(
        &self,
        data: &'a [u8],
        bitmap: Option<&[u8]>,
        natts: usize,
        n: usize,
    ) -> Result<Option<Payload<'a>>> {
        self.stored(data, bitmap, natts, n)?
            .map(Stored::payload)
            .transpose()
    }

    /// As [`RowDesc::attr`], the value as it stands there.
    #[inline]
    pub fn stored<'a>(
        &self,
        data: &'a [u8],
        bitmap: Option<&[u8]>,
        natts: usize,
        n: usize,
    ) -> Result<Option<Stored<'a>>> {
        let (Some(attr), true) = (self.attrs.get(n), n < natts) else {
            return Ok(None);
        };
        let nulls_before = match bitmap {
            None => false,
            Some(bits) => {
                if !not_null(bits, n) {
                    return Ok(None);
                }
                (0..n).any(|i| !not_null(bits, i))
            }
        };
        let mut offset = match self.offsets[n] {
            Some(offset) if !nulls_before => offset as usize,
            _ => self.walk(data, bitmap, n)?,
        };
        take_attr(attr, data, &mut offset).map(Some)
    }

    /// Where attribute `n` begins in every row without NULLs, if all before it are of fixed width.
    pub fn fixed_offset(&self, n: usize) -> Option<usize> {
        self.offsets
            .get(n)
            .copied()
            .flatten()
            .map(|offset| offset as usize)
    }

    /// Where attribute `n` begins, by walking over those before it.
    fn walk(&self, data: &[u8], bitmap: Option<&[u8]>, n: usize) -> Result<usize> {
        let mut offset = 0;
        for (i, attr) in self.attrs[..n].iter().enumerate() {
            if bitmap.is_none_or(|bits| not_null(bits, i)) {
                take_attr(attr, data, &mut offset)?;
            }
        }
        Ok(offset)
    }

    /// A cursor over the attributes in order, for a reader that wants several of them.
    pub fn cursor<'a>(&'a self, data: &'a [u8], bitmap: Option<&'a [u8]>, natts: usize) -> AttrCursor<'a> {
        AttrCursor {
            desc: self,
            data,
            bitmap,
            natts: natts.min(self.attrs.len()),
            next: 0,
            offset: 0,
        }
    }

    /// Appends the values of all columns to `out`; columns that the row is too old to have are NULL, values out of line are
    /// [`Datum::External`].
    pub fn deform(
        &self,
        data: &[u8],
        bitmap: Option<&[u8]>,
        natts: usize,
        out: &mut Vec<Datum>,
    ) -> Result<()> {
        self.deform_prefix(data, bitmap, natts, self.attrs.len(), out)
    }

    /// Appends the values of the first `columns` columns to `out`.
    pub fn deform_prefix(
        &self,
        data: &[u8],
        bitmap: Option<&[u8]>,
        natts: usize,
        columns: usize,
        out: &mut Vec<Datum>,
    ) -> Result<()> {
        let columns = columns.min(self.attrs.len());
        let mut cursor = self.cursor(data, bitmap, natts);
        for attr in &self.attrs[..columns] {
            out.push(match cursor.next_stored()? {
                Some(Stored::External(pointer)) => Datum::External(pointer),
                Some(stored) => disk::read(attr.ty.id, &stored.payload()?)?,
                None => Datum::Null,
            });
        }
        Ok(())
    }
}

/// Walks the attributes of one row in order.
#[derive(Debug)]
pub struct AttrCursor<'a> {
    desc: &'a RowDesc,
    data: &'a [u8],
    bitmap: Option<&'a [u8]>,
    natts: usize,
    next: usize,
    offset: usize,
}

impl<'a> AttrCursor<'a> {
    /// The payload of the next attribute, `None` for NULL (and for all attributes past the end).
    #[inline]
    pub fn next_attr(&mut self) -> Result<Option<Payload<'a>>> {
        self.next_stored()?.map(Stored::payload).transpose()
    }

    /// Passes over the attributes before number `n` (from 0), decompressing none of them.
    #[inline]
    pub fn skip_to(&mut self, n: usize) -> Result<()> {
        while self.next < n {
            self.next_stored()?;
        }
        Ok(())
    }

    /// The next attribute as it stands in the row.
    #[inline]
    pub fn next_stored(&mut self) -> Result<Option<Stored<'a>>> {
        let n = self.next;
        self.next += 1;
        if n >= self.natts || self.bitmap.is_some_and(|bits| !not_null(bits, n)) {
            return Ok(None);
        }
        take_attr(&self.desc.attrs[n], self.data, &mut self.offset).map(Some)
    }
}

/// Whether attribute `i` is present; a bitmap that is too short says NULL.
#[inline]
fn not_null(bitmap: &[u8], i: usize) -> bool {
    bitmap.get(i / 8).is_some_and(|byte| byte & (1 << (i % 8)) != 0)
}

/// Takes the attribute at `offset` and moves behind it.
#[inline]
pub(crate) fn take_attr<'a>(attr: &AttrDesc, data: &'a [u8], offset: &mut usize) -> Result<Stored<'a>> {
    if attr.len > 0 {
        let start = attr.align.up(*offset);
        let end = start + attr.len as usize;
        *offset = end;
        return data
            .get(start..end)
            .map(Stored::Plain)
            .ok_or_else(|| TypeError::corrupt("attribute past the end of the row"));
    }
    if attr.len == -1 {
        let (stored, end) = varlena::take(data, *offset, attr.align)?;
        *offset = end;
        return Ok(stored);
    }
    let rest = data.get(*offset..).unwrap_or_default();
    let len = rest
        .iter()
        .position(|b| *b == 0)
        .ok_or_else(|| TypeError::corrupt("unterminated string"))?;
    *offset += len + 1;
    Ok(Stored::Plain(&rest[..len]))
}

/// Appends zero bytes up to the alignment, counted from `start`.
#[inline]
pub(crate) fn pad(out: &mut Vec<u8>, start: usize, align: Align) {
    let aligned = align.up(out.len() - start) + start;
    out.resize(aligned, 0);
}

/// Appends the header of a plain varlena with a payload of `len` bytes, and the padding before it.
pub(crate) fn put_header(attr: &AttrDesc, len: usize, start: usize, out: &mut Vec<u8>) {
    if attr.packable && len < SHORT_MAX {
        out.push(((len as u8 + 1) << 1) | 1);
    } else {
        pad(out, start, attr.align);
        out.extend_from_slice(&(((len + 4) as u32) << 2).to_le_bytes());
    }
}

fn form_attr(attr: &AttrDesc, value: &Datum, start: usize, out: &mut Vec<u8>) -> Result<()> {
    match attr.len {
        -1 if let Datum::External(pointer) = value => {
            out.extend_from_slice(&pointer.encode());
            Ok(())
        }
        -1 => {
            let len = disk::payload_len(attr.ty.id, value)?;
            if len + 4 > MAX_TOTAL {
                return Err(TypeError::new(
                    SqlState::PROGRAM_LIMIT_EXCEEDED,
                    "value is too large",
                ));
            }
            put_header(attr, len, start, out);
            let before = out.len();
            disk::write(attr.ty.id, value, out)?;
            debug_assert_eq!(out.len() - before, len, "payload length of {:?}", attr.ty);
            Ok(())
        }
        -2 => {
            let text = value
                .as_str()
                .ok_or_else(|| disk::mismatch(TypeId::Cstring, value))?;
            out.extend_from_slice(text.as_bytes());
            out.push(0);
            Ok(())
        }
        _ => {
            pad(out, start, attr.align);
            disk::write(attr.ty.id, value, out)
        }
    }
}
