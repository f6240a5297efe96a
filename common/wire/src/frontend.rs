//! What a client sends: a bounded, zero-copy decoder of PostgreSQL's frontend messages (protocol 3.0).
//!
//! Every function here takes bytes and returns borrowed views or an error; nothing allocates more than the message
//! itself holds, and nothing panics whatever the bytes are. Lengths are checked before a body is buffered
//! ([`Frame::split`]), so a client cannot make the server reserve memory for bytes that it has not sent.
//!
//! Facts (message letters, limits) follow PostgreSQL 15's `protocol.sgml` and `pqcomm`.

use smallvec::SmallVec;

/// Largest message after authentication: statement texts, parameters and COPY data. PostgreSQL's `PQ_LARGE_MESSAGE_LIMIT`, so that a
/// value of the largest size but for its message's other fields may be a parameter.
pub const MAX_MESSAGE: usize = towline_base::limits::MAX_CLIENT_MESSAGE_BYTES;
/// Largest message of a kind that only carries names and numbers.
pub const MAX_SMALL_MESSAGE: usize = 10_000;
/// Largest startup packet, as in PostgreSQL.
pub const MAX_STARTUP: usize = 10_000;
/// Largest password or SASL message.
pub const MAX_PASSWORD_MESSAGE: usize = 65_535;

/// A violation of the protocol, SQLSTATE 08P01 unless the text itself is not UTF-8 (22021).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    /// The sentence for the client.
    pub message: String,
    /// Whether the position in the byte stream is lost, so that the connection must end.
    pub fatal: bool,
    /// The five characters of the SQLSTATE.
    pub sqlstate: &'static str,
}

impl ProtocolError {
    /// An error inside one message; the stream goes on behind it.
    pub fn recoverable(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            fatal: false,
            sqlstate: "08P01",
        }
    }

    /// An error after which message boundaries are unknown.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            fatal: true,
            sqlstate: "08P01",
        }
    }
}

/// One complete message still undecoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The message letter.
    pub kind: u8,
    /// What follows the length word.
    pub body: &'a [u8],
}

/// What the buffered bytes hold at their start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A whole message and how many bytes it takes.
    Frame(Frame<'a>, usize),
    /// Not yet: this many bytes (from the start) make the message, as far as is known.
    Need(usize),
}

impl<'a> Frame<'a> {
    /// Splits the first message off `bytes`. Limits depend on the phase: before authentication ends only password
    /// messages are legal.
    pub fn split(bytes: &'a [u8], authenticated: bool) -> Result<Split<'a>, ProtocolError> {
        let Some((&kind, rest)) = bytes.split_first() else {
            return Ok(Split::Need(5));
        };
        let limit = match kind {
            b'p' if !authenticated => MAX_PASSWORD_MESSAGE,
            _ if !authenticated => {
                return Err(ProtocolError::fatal(format!(
                    "expected password response, got message type {kind}"
                )));
            }
            b'Q' | b'P' | b'B' | b'F' | b'd' => MAX_MESSAGE,
            b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' | b'p' => MAX_SMALL_MESSAGE,
            _ => {
                return Err(ProtocolError::fatal(format!(
                    "invalid frontend message type {kind}"
                )));
            }
        };
        let Some(head) = rest.first_chunk::<4>() else {
            return Ok(Split::Need(5));
        };
        let len = i32::from_be_bytes(*head);
        let len = usize::try_from(len).unwrap_or(0);
        if len < 4 || len > limit {
            return Err(ProtocolError::fatal("invalid message length"));
        }
        match rest.get(4..len) {
            Some(body) => Ok(Split::Frame(Frame { kind, body }, len + 1)),
            None => Ok(Split::Need(len + 1)),
        }
    }
}

/// What Describe and Close name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

/// The parameters of a Bind message, borrowed from the input buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// Portal to make.
    pub portal: &'a str,
    /// Statement to bind.
    pub statement: &'a str,
    /// Format codes of the parameters: none, one for all, or one each.
    pub param_formats: SmallVec<[i16; 16]>,
    /// Values; `None` is NULL.
    pub params: SmallVec<[Option<&'a [u8]>; 16]>,
    /// Format codes of the result columns.
    pub result_formats: SmallVec<[i16; 16]>,
}

/// A decoded frontend message. It is handed on several times while it is handled, so its large part is boxed: an
/// allocation for each Bind costs less than moving 400 bytes again and again for every message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Simple query.
    Query(&'a str),
    /// Prepare a statement.
    Parse {
        /// Statement name, empty for the unnamed one.
        name: &'a str,
        /// Statement text.
        text: &'a str,
        /// Parameter types given by the client, 0 for unspecified.
        param_types: Vec<u32>,
    },
    /// Make a portal.
    Bind(Box<Bind<'a>>),
    /// Ask for the row description.
    Describe(Target, &'a str),
    /// Run a portal; 0 rows means all.
    Execute {
        /// Portal name.
        portal: &'a str,
        /// Row limit, 0 for none.
        max_rows: u32,
    },
    /// Drop a statement or portal.
    Close(Target, &'a str),
    /// End of an extended-query group.
    Sync,
    /// Send what is buffered.
    Flush,
    /// Leave.
    Terminate,
    /// COPY payload.
    CopyData(&'a [u8]),
    /// COPY finished.
    CopyDone,
    /// COPY given up by the client, with its reason.
    CopyFail(&'a str),
    /// The old function-call protocol.
    FunctionCall,
    /// Password or SASL answer, outside authentication.
    Password,
}

impl<'a> Message<'a> {
    /// Decodes a frame.
    pub fn decode(frame: Frame<'a>) -> Result<Self, ProtocolError> {
        let mut cursor = Cursor(frame.body);
        let message = match frame.kind {
            b'Q' => Message::Query(cursor.text()?),
            b'P' => {
                let name = cursor.text()?;
                let text = cursor.text()?;
                let count = cursor.count()?;
                let mut param_types = Vec::new();
                for _ in 0..count {
                    param_types.push(cursor.u32()?);
                }
                Message::Parse {
                    name,
                    text,
                    param_types,
                }
            }
            b'B' => Message::Bind(Box::new(Bind::decode(&mut cursor)?)),
            b'D' => Message::Describe(cursor.target("DESCRIBE")?, cursor.text()?),
            b'C' => Message::Close(cursor.target("CLOSE")?, cursor.text()?),
            b'E' => {
                let portal = cursor.text()?;
                let max_rows = cursor.i32()?;
                Message::Execute {
                    portal,
                    max_rows: u32::try_from(max_rows).unwrap_or(0),
                }
            }
            b'S' => Message::Sync,
            b'H' => Message::Flush,
            b'X' => return Ok(Message::Terminate),
            b'd' => return Ok(Message::CopyData(frame.body)),
            b'c' => Message::CopyDone,
            b'f' => Message::CopyFail(cursor.text()?),
            b'F' => return Ok(Message::FunctionCall),
            b'p' => return Ok(Message::Password),
            other => {
                return Err(ProtocolError::fatal(format!(
                    "invalid frontend message type {other}"
                )));
            }
        };
        if cursor.0.is_empty() {
            Ok(message)
        } else {
            Err(ProtocolError::recoverable("invalid message format"))
        }
    }
}

impl<'a> Bind<'a> {
    fn decode(cursor: &mut Cursor<'a>) -> Result<Self, ProtocolError> {
        let portal = cursor.text()?;
        let statement = cursor.text()?;
        let param_formats = cursor.formats()?;
        let count = cursor.count()?;
        if param_formats.len() > 1 && param_formats.len() != count {
            return Err(ProtocolError::recoverable(format!(
                "bind message has {} parameter formats but {count} parameters",
                param_formats.len()
            )));
        }
        let mut params = SmallVec::new();
        for _ in 0..count {
            let len = cursor.i32()?;
            params.push(match usize::try_from(len) {
                Ok(len) => Some(cursor.bytes(len)?),
                Err(_) if len == -1 => None,
                Err(_) => return Err(insufficient()),
            });
        }
        let result_formats = cursor.formats()?;
        Ok(Self {
            portal,
            statement,
            param_formats,
            params,
            result_formats,
        })
    }
}

fn insufficient() -> ProtocolError {
    ProtocolError::recoverable("insufficient data left in message")
}

/// A bounded reader of one message body.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], ProtocolError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or_else(insufficient)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or_else(insufficient)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, ProtocolError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, ProtocolError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ProtocolError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A 16-bit count; the protocol reads it unsigned (up to 65,535 parameters).
    fn count(&mut self) -> Result<usize, ProtocolError> {
        Ok(usize::from(u16::from_be_bytes(self.array()?)))
    }

    fn formats(&mut self) -> Result<SmallVec<[i16; 16]>, ProtocolError> {
        let count = self.count()?;
        let mut formats = SmallVec::new();
        for _ in 0..count {
            let code = self.i16()?;
            if code != 0 && code != 1 {
                return Err(ProtocolError {
                    message: format!("unsupported format code: {code}"),
                    fatal: false,
                    sqlstate: "22023",
                });
            }
            formats.push(code);
        }
        Ok(formats)
    }

    fn target(&mut self, what: &str) -> Result<Target, ProtocolError> {
        match self.array::<1>()? {
            [b'S'] => Ok(Target::Statement),
            [b'P'] => Ok(Target::Portal),
            [other] => Err(ProtocolError::recoverable(format!(
                "invalid {what} message subtype {other}"
            ))),
        }
    }

    /// A zero-terminated UTF-8 string.
    pub(crate) fn text(&mut self) -> Result<&'a str, ProtocolError> {
        let end = self
            .0
            .iter()
            .position(|&byte| byte == 0)
            .ok_or_else(|| ProtocolError::recoverable("invalid string in message"))?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        match std::str::from_utf8(text) {
            Ok(text) => Ok(text),
            Err(error) => Err(invalid_utf8(text, error.valid_up_to())),
        }
    }
}

/// PostgreSQL's 22021, showing the offending bytes.
fn invalid_utf8(text: &[u8], at: usize) -> ProtocolError {
    use std::fmt::Write as _;
    let bad = text.get(at..).unwrap_or_default();
    let width = match bad.first() {
        Some(0xC0..=0xDF) => 2,
        Some(0xE0..=0xEF) => 3,
        Some(0xF0..=0xF7) => 4,
        _ => 1,
    };
    let mut message = String::from("invalid byte sequence for encoding \"UTF8\":");
    for byte in bad.iter().take(width) {
        let _ = write!(message, " 0x{byte:02x}");
    }
    ProtocolError {
        message,
        fatal: false,
        sqlstate: "22021",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![kind];
        out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Message<'_>, ProtocolError> {
        match Frame::split(bytes, true)? {
            Split::Frame(frame, used) => {
                assert_eq!(used, bytes.len());
                Message::decode(frame)
            }
            Split::Need(_) => panic!("incomplete"),
        }
    }

    #[test]
    fn bind_borrows_its_parameters() {
        let mut body = b"p\0s\0".to_vec();
        body.extend_from_slice(&[0, 1, 0, 1, 0, 2]);
        body.extend_from_slice(&[0, 0, 0, 2, 7, 8, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]);
        let bytes = frame(b'B', &body);
        let Message::Bind(bind) = decode(&bytes).unwrap() else {
            panic!()
        };
        assert_eq!(bind.portal, "p");
        assert_eq!(bind.statement, "s");
        assert_eq!(bind.params.as_slice(), &[Some(&[7u8, 8][..]), None]);
        assert_eq!(bind.param_formats.as_slice(), &[1]);
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_it_is_buffered() {
        let mut bytes = vec![b'Q'];
        bytes.extend_from_slice(&i32::MAX.to_be_bytes());
        assert!(Frame::split(&bytes, true).unwrap_err().fatal);
        bytes[1..5].copy_from_slice(&(-1i32).to_be_bytes());
        assert!(Frame::split(&bytes, true).unwrap_err().fatal);
        bytes[1..5].copy_from_slice(&3i32.to_be_bytes());
        assert!(Frame::split(&bytes, true).unwrap_err().fatal);
    }

    #[test]
    fn trailing_bytes_and_missing_terminators_are_recoverable_errors() {
        assert!(!decode(&frame(b'S', b"x")).unwrap_err().fatal);
        assert!(!decode(&frame(b'Q', b"select 1")).unwrap_err().fatal);
        assert_eq!(decode(&frame(b'Q', b"\xff\0")).unwrap_err().sqlstate, "22021");
    }

    #[test]
    fn every_prefix_of_a_message_asks_for_more() {
        let bytes = frame(b'P', b"n\0select 1\0\0\0");
        for end in 0..bytes.len() {
            assert!(matches!(Frame::split(&bytes[..end], true).unwrap(), Split::Need(n) if n > end));
        }
    }

    #[test]
    fn random_bodies_never_panic() {
        let mut seed = 0x9E37_79B9_7F4A_7C15u64;
        for _ in 0..20_000 {
            let mut body = [0u8; 48];
            for byte in &mut body {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                *byte = if seed & 3 == 0 { 0 } else { (seed >> 32) as u8 };
            }
            let len = (seed % 48) as usize;
            for kind in b"QPBDCESHXdcfFp" {
                let _ = Message::decode(Frame {
                    kind: *kind,
                    body: &body[..len],
                });
            }
        }
    }
}
