//! Where a statement's answer goes: the contract between the session and whoever owns the connection.
//!
//! The session writes its rows as finished `DataRow` messages into the sink's buffer, so that a row goes from the page
//! to the socket's buffer with one copy. Everything rarer is a call. The sink never blocks; when it holds enough, it
//! says so by [`RowSink::is_full`] and the session returns [`crate::Execution::Yield`].

use bytes::BytesMut;

use crate::error::Notice;

/// One column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Column name.
    pub name: String,
    /// The table's OID, or 0.
    pub table_oid: u32,
    /// The column's number in that table, or 0.
    pub column: i16,
    /// The type's OID.
    pub type_oid: u32,
    /// `typlen`.
    pub type_len: i16,
    /// `atttypmod`, or -1.
    pub typmod: i32,
    /// 0 text, 1 binary.
    pub format: i16,
}

/// The shape of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowDescription {
    /// In order.
    pub fields: Vec<Field>,
}

/// What `CommandComplete` carries, for example `INSERT 0 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandTag {
    /// A fixed word: `BEGIN`, `CREATE TABLE`.
    Word(&'static str),
    /// A word and a number of rows: `SELECT 3`, `INSERT 0 1`.
    Rows(&'static str, u64),
}

impl CommandTag {
    /// Appends the text.
    pub fn write(&self, out: &mut BytesMut) {
        match self {
            CommandTag::Word(word) => out.extend_from_slice(word.as_bytes()),
            CommandTag::Rows(word, rows) => {
                out.extend_from_slice(word.as_bytes());
                out.extend_from_slice(b" ");
                write_u64(*rows, out);
            }
        }
    }
}

impl std::fmt::Display for CommandTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CommandTag::Word(word) => f.write_str(word),
            CommandTag::Rows(word, rows) => write!(f, "{word} {rows}"),
        }
    }
}

fn write_u64(mut value: u64, out: &mut BytesMut) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The shape of a COPY, for `CopyInResponse` and `CopyOutResponse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyShape {
    /// Number of columns.
    pub columns: u16,
    /// Binary format (we refuse it for now, so always false).
    pub binary: bool,
}

/// The connection's side of an answer.
pub trait RowSink {
    /// The reply buffer. The session appends whole protocol messages (`DataRow`, `CopyData`) to it.
    fn buffer(&mut self) -> &mut BytesMut;
    /// `RowDescription`; sent by the session itself only in the simple protocol.
    fn row_description(&mut self, description: &RowDescription);
    /// `CommandComplete`.
    fn command_complete(&mut self, tag: &CommandTag);
    /// `EmptyQueryResponse`.
    fn empty_query(&mut self);
    /// `PortalSuspended`.
    fn portal_suspended(&mut self);
    /// `CopyInResponse`; must reach the client before the session is fed with data: the driver flushes on `CopyIn`.
    fn copy_in(&mut self, shape: CopyShape);
    /// `CopyOutResponse`.
    fn copy_out(&mut self, shape: CopyShape);
    /// `CopyDone`.
    fn copy_done(&mut self);
    /// `NoticeResponse`.
    fn notice(&mut self, notice: &Notice);
    /// `ParameterStatus`.
    fn parameter_status(&mut self, name: &str, value: &str);
    /// True when the session should pause so that the buffer can be written (64 KB).
    fn is_full(&mut self) -> bool {
        self.buffer().len() >= 64 * 1024
    }
}
