//! COPY TO STDOUT: rows as COPY data.

use bytes::{BufMut, BytesMut};
use towline_types::{ColumnType, Datum, IoStyle, TypeId};

use super::copy_format::CopyFormat;
use super::encode;
use crate::bind::tree::OutputColumn;
use crate::error::SqlError;
use crate::expr::FunctionContext;
use crate::parse::ast::CopyOptions;
use crate::sink::CopyShape;

/// Writes rows in a COPY format.
pub(crate) struct CopyOut {
    format: CopyFormat,
    columns: usize,
    quoted: Vec<bool>,
    value: BytesMut,
}

impl CopyOut {
    /// Checks the options of a COPY.
    pub(crate) fn format(options: &CopyOptions, text: &str) -> Result<CopyFormat, SqlError> {
        CopyFormat::new(options, text)
    }

    pub(crate) fn new(format: CopyFormat, columns: &[OutputColumn]) -> Self {
        let quoted = columns
            .iter()
            .map(|column| format.force_quote_all || format.force_quote.contains(&column.name))
            .collect();
        CopyOut {
            format,
            columns: columns.len(),
            quoted,
            value: BytesMut::new(),
        }
    }

    pub(crate) fn shape(&self) -> CopyShape {
        CopyShape {
            columns: self.columns as u16,
            binary: false,
        }
    }

    /// The header line, if it is wanted.
    pub(crate) fn header(&mut self, columns: &[OutputColumn], out: &mut BytesMut) -> Result<(), SqlError> {
        if !self.format.header {
            return Ok(());
        }
        let start = encode::begin(b'd', out);
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                out.put_u8(self.format.delimiter);
            }
            self.value.clear();
            self.value.extend_from_slice(column.name.as_bytes());
            // FORCE_QUOTE is about values: no name is forced.
            self.put_value(usize::MAX, out);
        }
        out.put_u8(b'\n');
        encode::end(start, out)
    }

    /// One row as a `CopyData` message.
    pub(crate) fn row(
        &mut self,
        row: &[Datum],
        types: &[ColumnType],
        style: &IoStyle,
        names: &dyn FunctionContext,
        out: &mut BytesMut,
    ) -> Result<(), SqlError> {
        let start = encode::begin(b'd', out);
        for (index, value) in row.iter().enumerate() {
            if index > 0 {
                out.put_u8(self.format.delimiter);
            }
            if value.is_null() {
                out.extend_from_slice(self.format.null.as_bytes());
                continue;
            }
            self.value.clear();
            let ty = types.get(index).map_or(TypeId::Text, |ty| ty.id);
            encode::text(value, ty, style, names, &mut self.value);
            self.put_value(index, out);
        }
        out.put_u8(b'\n');
        encode::end(start, out)
    }

    fn put_value(&self, index: usize, out: &mut BytesMut) {
        if self.format.csv {
            self.put_csv(index, out)
        } else {
            self.put_text(out)
        }
    }

    fn put_text(&self, out: &mut BytesMut) {
        for &byte in &self.value {
            let escaped = match byte {
                b'\\' => b'\\',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                0x08 => b'b',
                0x0c => b'f',
                0x0b => b'v',
                byte if byte == self.format.delimiter => byte,
                byte => {
                    out.put_u8(byte);
                    continue;
                }
            };
            out.put_u8(b'\\');
            out.put_u8(escaped);
        }
    }

    fn put_csv(&self, index: usize, out: &mut BytesMut) {
        let format = &self.format;
        let special =
            |byte: &u8| *byte == format.delimiter || *byte == format.quote || matches!(byte, b'\n' | b'\r');
        let quote = self.quoted.get(index).copied().unwrap_or(false)
            || &self.value[..] == format.null.as_bytes()
            || self.value.iter().any(special)
            // A lone `\.` would end the data for a reader.
            || (self.columns == 1 && &self.value[..] == b"\\.");
        if !quote {
            out.extend_from_slice(&self.value);
            return;
        }
        out.put_u8(format.quote);
        for &byte in &self.value {
            if byte == format.quote || byte == format.escape {
                out.put_u8(format.escape);
            }
            out.put_u8(byte);
        }
        out.put_u8(format.quote);
    }
}
