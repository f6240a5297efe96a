//! A client of the simple protocol over TCP, small enough to trust: what the scripts use against real servers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::script::Peer;

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    lines: Vec<String>,
}

impl Client {
    /// Connects as `user` to database `postgres`, without a password.
    pub fn connect(address: SocketAddr, user: &str) -> std::io::Result<Client> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut body = Vec::new();
        body.extend_from_slice(&196_608u32.to_be_bytes());
        for word in ["user", user, "database", "postgres", "application_name", "script"] {
            body.extend_from_slice(word.as_bytes());
            body.push(0);
        }
        body.push(0);
        stream.write_all(&(body.len() as u32 + 4).to_be_bytes())?;
        stream.write_all(&body)?;
        let mut client = Client {
            stream,
            buffer: Vec::new(),
            lines: Vec::new(),
        };
        match client.answer(Duration::from_secs(20)) {
            Some(lines) if lines.iter().all(|line| !line.starts_with("FATAL")) => Ok(client),
            other => Err(std::io::Error::other(format!("login failed: {other:?}"))),
        }
    }

    /// Takes whole messages off the buffer; true at ReadyForQuery.
    fn take_messages(&mut self) -> bool {
        loop {
            let Some(length) = self.buffer.get(1..5) else {
                return false;
            };
            let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
            if self.buffer.len() < length + 1 {
                return false;
            }
            let message: Vec<u8> = self.buffer.drain(..=length).collect();
            if message[0] == b'Z' {
                return true;
            }
            let line = describe(message[0], &message[5..]);
            self.lines.extend(line);
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn describe(kind: u8, body: &[u8]) -> Option<String> {
    match kind {
        b'D' => Some(row(body)),
        b'C' => Some(text(&body[..body.len() - 1])),
        b'I' => Some("EMPTY".to_owned()),
        b'E' | b'N' => Some(fields(body)),
        b'd' => Some(format!("copy: {}", text(body).trim_end_matches('\n'))),
        _ => None,
    }
}

fn row(body: &[u8]) -> String {
    let mut rest = &body[2..];
    let mut values = Vec::new();
    while let Some((length, after)) = rest.split_at_checked(4) {
        let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        match usize::try_from(length) {
            Ok(length) => {
                values.push(text(&after[..length]).replace('\n', "\\n"));
                rest = &after[length..];
            }
            Err(_) => {
                values.push("NULL".to_owned());
                rest = after;
            }
        }
    }
    values.join("|")
}

/// An error or notice: severity, code, message, position, and what else a client is shown.
pub fn fields(body: &[u8]) -> String {
    let mut found = std::collections::BTreeMap::new();
    for field in body.split(|byte| *byte == 0).filter(|field| !field.is_empty()) {
        found.insert(field[0], text(&field[1..]));
    }
    let get = |key: u8| found.get(&key).cloned().unwrap_or_default();
    let mut line = format!("{} {}: {}", get(b'S'), get(b'C'), get(b'M'));
    if let Some(position) = found.get(&b'P') {
        line += &format!(" (at {position})");
    }
    line
}

impl Peer for Client {
    fn send(&mut self, sql: &str) {
        let mut message = vec![b'Q'];
        message.extend_from_slice(&(sql.len() as u32 + 5).to_be_bytes());
        message.extend_from_slice(sql.as_bytes());
        message.push(0);
        self.lines.clear();
        // A broken connection shows as no answer.
        let _ = self.stream.write_all(&message);
    }

    fn answer(&mut self, patience: Duration) -> Option<Vec<String>> {
        let deadline = Instant::now() + patience;
        loop {
            if self.take_messages() {
                return Some(std::mem::take(&mut self.lines));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                return None;
            }
            let mut part = [0; 16384];
            match self.stream.read(&mut part) {
                Ok(0) => {
                    self.lines.push("CONNECTION CLOSED".to_owned());
                    return Some(std::mem::take(&mut self.lines));
                }
                Ok(count) => self.buffer.extend_from_slice(&part[..count]),
                Err(_) => return None,
            }
        }
    }
}
