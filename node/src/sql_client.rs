//! A small blocking SQL client for the binary's own questions (`up`, `status`, `health`): simple queries, trust only.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest message that an answer to our own questions has.
const MAX_MESSAGE: usize = 1024 * 1024;

/// A logged-in connection.
pub(crate) struct SqlClient {
    stream: TcpStream,
}

/// How far a node let us in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// It serves SQL to us.
    Ready,
    /// It would serve SQL to somebody with a password.
    WantsPassword,
    /// It answered with an error.
    Refused {
        /// SQLSTATE.
        code: String,
        /// The message.
        message: String,
    },
}

fn bad(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// Knocks at a node: connects, sends a startup packet as `postgres`, tells how it answered.
pub(crate) fn knock(address: SocketAddr, timeout: Duration) -> io::Result<Greeting> {
    Ok(open(address, timeout)?.1)
}

fn open(address: SocketAddr, timeout: Duration) -> io::Result<(TcpStream, Greeting)> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    let mut body = 0x30000u32.to_be_bytes().to_vec();
    body.extend_from_slice(b"user\0postgres\0database\0postgres\0application_name\0towline\0\0");
    let len = u32::try_from(body.len() + 4).unwrap_or(0);
    stream.write_all(&[&len.to_be_bytes()[..], &body].concat())?;
    loop {
        let (kind, body) = read_message(&mut stream)?;
        match (kind, body.first_chunk::<4>()) {
            (b'R', Some([0, 0, 0, 0])) => {}
            (b'R', _) => return Ok((stream, Greeting::WantsPassword)),
            (b'Z', _) => return Ok((stream, Greeting::Ready)),
            (b'E', _) => {
                let code = error_field(&body, b'C');
                let message = error_field(&body, b'M');
                return Ok((stream, Greeting::Refused { code, message }));
            }
            _ => {}
        }
    }
}

fn read_message(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [kind, a, b, c, d] = head;
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(4..=MAX_MESSAGE).contains(&len) {
        return Err(bad("the answer is not PostgreSQL's protocol"));
    }
    let mut body = vec![0; len - 4];
    stream.read_exact(&mut body)?;
    Ok((kind, body))
}

fn error_field(body: &[u8], letter: u8) -> String {
    body.split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(&[letter]))
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .unwrap_or_default()
}

impl SqlClient {
    /// Connects and logs in as `postgres`. Every later read and write has the same time limit.
    pub(crate) fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        match open(address, timeout)? {
            (stream, Greeting::Ready) => Ok(Self { stream }),
            (_, Greeting::WantsPassword) => Err(io::Error::other("a password is needed")),
            (_, Greeting::Refused { message, .. }) => Err(io::Error::other(message)),
        }
    }

    /// Runs a query; each row is its columns as text, NULL as `None`.
    pub(crate) fn query(&mut self, text: &str) -> io::Result<Vec<Vec<Option<String>>>> {
        let len = u32::try_from(text.len() + 5).map_err(|_| bad("query too long"))?;
        let mut message = vec![b'Q'];
        message.extend_from_slice(&len.to_be_bytes());
        message.extend_from_slice(text.as_bytes());
        message.push(0);
        self.stream.write_all(&message)?;
        let mut rows = Vec::new();
        let mut error = None;
        loop {
            let (kind, body) = read_message(&mut self.stream)?;
            match kind {
                b'D' => rows.push(data_row(&body).ok_or_else(|| bad("malformed row"))?),
                b'E' => error = Some(error_field(&body, b'M')),
                b'Z' => return error.map_or(Ok(rows), |message| Err(io::Error::other(message))),
                _ => {}
            }
        }
    }

    /// The first column of the first row.
    pub(crate) fn value(&mut self, text: &str) -> io::Result<Option<String>> {
        let rows = self.query(text)?;
        Ok(rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next())
            .flatten())
    }
}

fn data_row(body: &[u8]) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (len, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        match usize::try_from(i32::from_be_bytes(*len)) {
            Ok(len) => {
                let (value, after) = rest.split_at_checked(len)?;
                rest = after;
                row.push(Some(String::from_utf8_lossy(value).into_owned()));
            }
            Err(_) => row.push(None),
        }
    }
    Some(row)
}
