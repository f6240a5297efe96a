//! The reply buffer of a connection: where a session's answers are collected until Sync, Flush or 64 KB.

use bytes::{BufMut, BytesMut};
use towline_sql::error::ErrorFields;
use towline_sql::{CommandTag, CopyShape, Notice, RowDescription, RowSink, SqlError};

use crate::backend::{self, MessageWriter};

/// Above this the loop writes before the session goes on.
pub const FULL: usize = 64 * 1024;
/// A buffer larger than this is given back when the connection falls idle.
const KEEP: usize = 16 * 1024;

/// The buffer.
#[derive(Debug, Default)]
pub struct Reply {
    /// Whole messages, in order.
    pub bytes: BytesMut,
}

impl Reply {
    /// Whether it is time to write.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    /// Empties the buffer after its bytes were written, and gives large memory back.
    pub fn reset(&mut self) {
        if self.bytes.capacity() > KEEP {
            self.bytes = BytesMut::new();
        } else {
            self.bytes.clear();
        }
    }

    /// Throws away what was appended since it had `length` bytes, but for ParameterStatus: what a client was to know of its settings it is
    /// still to know. Of an answer that is taken back they tell only that a failed block took its settings with it.
    pub fn take_back(&mut self, length: usize) {
        let held = self.bytes.split_off(length.min(self.bytes.len()));
        let mut rest = &held[..];
        // Whole messages: a kind, and a length that counts itself.
        while let Some((&[kind, a, b, c, d], _)) = rest.split_first_chunk() {
            let length = u32::from_be_bytes([a, b, c, d]) as usize + 1;
            let Some((message, after)) = rest.split_at_checked(length) else {
                return;
            };
            if kind == b'S' {
                self.bytes.extend_from_slice(message);
            }
            rest = after;
        }
    }

    /// Appends an ErrorResponse.
    pub fn error(&mut self, error: &SqlError) {
        error_or_notice(&mut self.bytes, b'E', error.fields());
    }

    /// Appends RowDescription, or NoData.
    pub fn description(&mut self, rows: Option<&RowDescription>) {
        match rows {
            Some(rows) => row_description(&mut self.bytes, rows),
            None => backend::no_data(&mut self.bytes),
        }
    }
}

impl RowSink for Reply {
    fn buffer(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    fn row_description(&mut self, description: &RowDescription) {
        row_description(&mut self.bytes, description);
    }

    fn command_complete(&mut self, tag: &CommandTag) {
        let mut message = MessageWriter::new(&mut self.bytes, b'C');
        tag.write(message.body());
        message.body().put_u8(0);
        message.finish();
    }

    fn empty_query(&mut self) {
        backend::empty_query(&mut self.bytes);
    }

    fn portal_suspended(&mut self) {
        backend::portal_suspended(&mut self.bytes);
    }

    fn copy_in(&mut self, shape: CopyShape) {
        backend::copy_response(&mut self.bytes, b'G', shape.binary, shape.columns);
    }

    fn copy_out(&mut self, shape: CopyShape) {
        backend::copy_response(&mut self.bytes, b'H', shape.binary, shape.columns);
    }

    fn copy_done(&mut self) {
        backend::copy_done(&mut self.bytes);
    }

    fn notice(&mut self, notice: &Notice) {
        error_or_notice(&mut self.bytes, b'N', notice);
    }

    fn parameter_status(&mut self, name: &str, value: &str) {
        backend::parameter_status(&mut self.bytes, name, value);
    }
}

fn row_description(out: &mut BytesMut, description: &RowDescription) {
    let mut message = MessageWriter::new(out, b'T');
    message
        .body()
        .put_u16(u16::try_from(description.fields.len()).unwrap_or(u16::MAX));
    for field in &description.fields {
        message.text(&field.name);
        let body = message.body();
        body.put_u32(field.table_oid);
        body.put_i16(field.column);
        body.put_u32(field.type_oid);
        body.put_i16(field.type_len);
        body.put_i32(field.typmod);
        body.put_i16(field.format);
    }
    message.finish();
}

fn error_or_notice(out: &mut BytesMut, kind: u8, fields: &ErrorFields) {
    let mut message = MessageWriter::new(out, kind);
    let mut field = |letter: u8, text: &str| {
        message.body().put_u8(letter);
        message.text(text);
    };
    field(b'S', fields.severity.as_str());
    field(b'V', fields.severity.as_str());
    field(b'C', fields.sqlstate.code());
    field(b'M', &fields.message);
    let optional = [
        (b'D', &fields.detail),
        (b'H', &fields.hint),
        (b'W', &fields.context),
        (b's', &fields.schema),
        (b't', &fields.table),
        (b'c', &fields.column),
        (b'n', &fields.constraint),
    ];
    for (letter, text) in optional {
        if let Some(text) = text {
            field(letter, text);
        }
    }
    if let Some(position) = fields.position {
        field(b'P', &position.to_string());
    }
    message.body().put_u8(0);
    message.finish();
}
