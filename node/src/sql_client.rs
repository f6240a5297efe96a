//! A small blocking SQL client for the binary's own questions (`up`, `status`, `health`): simple queries, trust only.
//!
//! Whoever answers may be anybody: an answer has a time limit as a whole, however many messages it is made of, and what of it is shown is
//! one line of text without control characters.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest message that an answer to our own questions has.
const MAX_MESSAGE: usize = 1024 * 1024;
/// Most characters of an error that are shown.
const MAX_SHOWN: usize = 500;
/// Longest time that anybody is waited for.
const MAX_PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// A logged-in connection.
#[derive(Debug)]
pub(crate) struct SqlClient {
    line: Line,
}

/// A connection whose answers have a time limit.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    patience: Duration,
    deadline: Instant,
}

impl Line {
    /// What follows is another answer.
    fn begin(&mut self) {
        self.deadline = Instant::now() + self.patience;
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            let rest = self.deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(rest))?;
            match self.stream.read(&mut bytes[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
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

fn open(address: SocketAddr, timeout: Duration) -> io::Result<(Line, Greeting)> {
    let timeout = timeout.min(MAX_PATIENCE);
    let deadline = Instant::now() + timeout;
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_write_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    let mut body = 0x30000u32.to_be_bytes().to_vec();
    body.extend_from_slice(b"user\0postgres\0database\0postgres\0application_name\0towline\0\0");
    let len = u32::try_from(body.len() + 4).unwrap_or(0);
    stream.write_all(&[&len.to_be_bytes()[..], &body].concat())?;
    let mut line = Line {
        stream,
        patience: timeout,
        deadline,
    };
    loop {
        let (kind, body) = read_message(&mut line)?;
        match (kind, body.first_chunk::<4>()) {
            (b'R', Some([0, 0, 0, 0])) => {}
            (b'R', _) => return Ok((line, Greeting::WantsPassword)),
            (b'Z', _) => return Ok((line, Greeting::Ready)),
            (b'E', _) => {
                let code = error_field(&body, b'C');
                let message = error_field(&body, b'M');
                return Ok((line, Greeting::Refused { code, message }));
            }
            _ => {}
        }
    }
}

fn read_message(line: &mut Line) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    line.read_exact(&mut head)?;
    let [kind, a, b, c, d] = head;
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(4..=MAX_MESSAGE).contains(&len) {
        return Err(bad("the answer is not PostgreSQL's protocol"));
    }
    let mut body = vec![0; len - 4];
    line.read_exact(&mut body)?;
    Ok((kind, body))
}

fn error_field(body: &[u8], letter: u8) -> String {
    body.split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(&[letter]))
        .map(|text| shown(&String::from_utf8_lossy(text)))
        .unwrap_or_default()
}

/// A text from outside as part of a line for a terminal.
fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).take(MAX_SHOWN).collect()
}

impl SqlClient {
    /// Connects and logs in as `postgres`. Every later read and write has the same time limit.
    pub(crate) fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        match open(address, timeout)? {
            (line, Greeting::Ready) => Ok(Self { line }),
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
        self.line.begin();
        self.line.stream.write_all(&message)?;
        let mut rows = Vec::new();
        let mut error = None;
        loop {
            let (kind, body) = read_message(&mut self.line)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;

    use super::*;

    /// Whoever sent a message before each time limit kept `health` and `status` for ever.
    #[test]
    fn an_answer_that_never_ends_has_a_time_limit_as_a_whole() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let talking = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let notice = [b'N', 0, 0, 0, 4];
            // Until the client hangs up.
            while stream.write_all(&notice).is_ok() {
                std::thread::park_timeout(Duration::from_millis(10));
            }
        });
        let said = knock(address, Duration::from_millis(300)).unwrap_err();
        assert_eq!(said.kind(), io::ErrorKind::TimedOut);
        talking.join().unwrap();
    }

    #[test]
    fn what_a_stranger_says_is_one_line_without_control_characters() {
        let body = b"SERROR\0C57P03\0Mfirst\n\x1b[2Jsecond\0\0";
        assert_eq!(error_field(body, b'M'), "first  [2Jsecond");
        let long = [&b"M"[..], &[b'x'; 10_000], b"\0"].concat();
        assert_eq!(error_field(&long, b'M').len(), MAX_SHOWN);
    }
}
