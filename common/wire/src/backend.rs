//! What the server sends: encoders that append PostgreSQL's backend messages to one buffer.
//!
//! Each function writes a whole message; [`MessageWriter`] fills in the length when the body is done. Rows are not
//! written here: a session appends its DataRow messages by itself, straight into the same buffer.

use bytes::{BufMut, BytesMut};

/// A message being written; [`MessageWriter::finish`] patches the length.
pub struct MessageWriter<'a> {
    out: &'a mut BytesMut,
    start: usize,
}

impl<'a> MessageWriter<'a> {
    /// Starts a message with its letter.
    pub fn new(out: &'a mut BytesMut, kind: u8) -> Self {
        out.put_u8(kind);
        let start = out.len();
        out.put_u32(0);
        Self { out, start }
    }

    /// The buffer, to append the body.
    pub fn body(&mut self) -> &mut BytesMut {
        self.out
    }

    /// Appends a zero-terminated string; zero bytes inside it are dropped.
    pub fn text(&mut self, text: &str) -> &mut Self {
        if text.as_bytes().contains(&0) {
            self.out.extend(text.bytes().filter(|&byte| byte != 0));
        } else {
            self.out.put_slice(text.as_bytes());
        }
        self.out.put_u8(0);
        self
    }

    /// Fills in the length.
    pub fn finish(self) {
        let len = u32::try_from(self.out.len() - self.start).unwrap_or(u32::MAX);
        if let Some(slot) = self.out.get_mut(self.start..self.start + 4) {
            slot.copy_from_slice(&len.to_be_bytes());
        }
    }
}

fn bare(out: &mut BytesMut, kind: u8) {
    out.put_slice(&[kind, 0, 0, 0, 4]);
}

/// ParseComplete.
pub fn parse_complete(out: &mut BytesMut) {
    bare(out, b'1');
}

/// BindComplete.
pub fn bind_complete(out: &mut BytesMut) {
    bare(out, b'2');
}

/// CloseComplete.
pub fn close_complete(out: &mut BytesMut) {
    bare(out, b'3');
}

/// NoData: the described thing returns no rows.
pub fn no_data(out: &mut BytesMut) {
    bare(out, b'n');
}

/// EmptyQueryResponse.
pub fn empty_query(out: &mut BytesMut) {
    bare(out, b'I');
}

/// PortalSuspended.
pub fn portal_suspended(out: &mut BytesMut) {
    bare(out, b's');
}

/// CopyDone, at the end of COPY TO STDOUT.
pub fn copy_done(out: &mut BytesMut) {
    bare(out, b'c');
}

/// CommandComplete with its tag.
pub fn command_complete(out: &mut BytesMut, tag: &str) {
    let mut message = MessageWriter::new(out, b'C');
    message.text(tag);
    message.finish();
}

/// ReadyForQuery with the transaction status `I`, `T` or `E`.
pub fn ready_for_query(out: &mut BytesMut, status: u8) {
    out.put_slice(&[b'Z', 0, 0, 0, 5, status]);
}

/// ParameterStatus.
pub fn parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    let mut message = MessageWriter::new(out, b'S');
    message.text(name).text(value);
    message.finish();
}

/// BackendKeyData.
pub fn backend_key_data(out: &mut BytesMut, pid: u32, key: u32) {
    out.put_slice(&[b'K', 0, 0, 0, 12]);
    out.put_u32(pid);
    out.put_u32(key);
}

/// AuthenticationOk.
pub fn authentication_ok(out: &mut BytesMut) {
    out.put_slice(&[b'R', 0, 0, 0, 8, 0, 0, 0, 0]);
}

/// AuthenticationSASL with the mechanisms on offer.
pub fn authentication_sasl(out: &mut BytesMut, mechanisms: &[&str]) {
    let mut message = MessageWriter::new(out, b'R');
    message.body().put_u32(10);
    for mechanism in mechanisms {
        message.text(mechanism);
    }
    message.body().put_u8(0);
    message.finish();
}

/// AuthenticationSASLContinue with the server-first message.
pub fn authentication_sasl_continue(out: &mut BytesMut, data: &str) {
    let mut message = MessageWriter::new(out, b'R');
    message.body().put_u32(11);
    message.body().put_slice(data.as_bytes());
    message.finish();
}

/// AuthenticationSASLFinal with the server's proof.
pub fn authentication_sasl_final(out: &mut BytesMut, data: &str) {
    let mut message = MessageWriter::new(out, b'R');
    message.body().put_u32(12);
    message.body().put_slice(data.as_bytes());
    message.finish();
}

/// NegotiateProtocolVersion: the newest version we speak, its major number in the high half, and the options not understood.
pub fn negotiate_protocol_version(out: &mut BytesMut, newest: u32, options: &[&str]) {
    let mut message = MessageWriter::new(out, b'v');
    message.body().put_u32(newest);
    message.body().put_u32(u32::try_from(options.len()).unwrap_or(0));
    for option in options {
        message.text(option);
    }
    message.finish();
}

/// ParameterDescription: the types of a prepared statement's parameters.
pub fn parameter_description(out: &mut BytesMut, types: &[u32]) {
    let mut message = MessageWriter::new(out, b't');
    message
        .body()
        .put_u16(u16::try_from(types.len()).unwrap_or(u16::MAX));
    for oid in types {
        message.body().put_u32(*oid);
    }
    message.finish();
}

/// CopyInResponse (`G`) or CopyOutResponse (`H`): overall format and one format code per column.
pub fn copy_response(out: &mut BytesMut, kind: u8, binary: bool, columns: u16) {
    let mut message = MessageWriter::new(out, kind);
    message.body().put_u8(u8::from(binary));
    message.body().put_u16(columns);
    for _ in 0..columns {
        message.body().put_u16(u16::from(binary));
    }
    message.finish();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_cover_the_body_and_themselves() {
        let mut out = BytesMut::new();
        command_complete(&mut out, "SELECT 1");
        assert_eq!(&out[..], b"C\0\0\0\x0dSELECT 1\0");
    }

    #[test]
    fn a_zero_byte_in_a_string_cannot_end_it_early() {
        let mut out = BytesMut::new();
        parameter_status(&mut out, "a\0b", "c");
        assert_eq!(&out[..], b"S\0\0\0\x09ab\0c\0");
    }
}
