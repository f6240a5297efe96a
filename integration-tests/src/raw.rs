//! A client that behaves badly: bytes on a socket, so that a test may stop reading, stop sending, or vanish.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a read may take before a test calls the server silent.
const SILENCE: Duration = Duration::from_secs(60);

/// A socket to a node, logged in or not.
pub struct Raw {
    /// The socket.
    pub socket: TcpStream,
}

impl Raw {
    /// Connects to a loopback port and sends nothing.
    pub fn dial(port: u16) -> io::Result<Raw> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.set_nodelay(true)?;
        Ok(Raw { socket })
    }

    /// Connects and logs in as `postgres`; an error when the server does not let it in.
    pub fn log_in(port: u16) -> io::Result<Raw> {
        let mut raw = Raw::dial(port)?;
        let parameters = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
        let length = (parameters.len() as u32 + 4).to_be_bytes();
        raw.socket.write_all(&[&length[..], parameters].concat())?;
        raw.read_until(b'Z')?;
        Ok(raw)
    }

    fn write(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        self.socket.write_all(&[&[kind], &length[..], body].concat())
    }

    /// Sends a query and does not wait for its answer.
    pub fn send(&mut self, sql: &str) -> io::Result<()> {
        self.write(b'Q', &[sql.as_bytes(), b"\0"].concat())
    }

    /// Feeds a COPY FROM STDIN with rows and waits for its end. What the server refuses is an [`io::ErrorKind::Other`].
    pub fn copy_in(&mut self, sql: &str, rows: &str) -> io::Result<()> {
        self.send(sql)?;
        self.answer(b'G')?;
        self.write(b'd', rows.as_bytes())?;
        self.write(b'c', b"")?;
        self.answer(b'C')?;
        self.answer(b'Z')
    }

    fn read(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.socket.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length.saturating_sub(4)];
        self.socket.read_exact(&mut body)?;
        Ok((head[0], body))
    }

    /// Reads messages up to the first of this kind; an error at the end of the stream.
    pub fn read_until(&mut self, kind: u8) -> io::Result<Vec<u8>> {
        loop {
            let (found, body) = self.read()?;
            if found == kind {
                return Ok(body);
            }
        }
    }

    /// The same, and an error at one of the server's.
    fn answer(&mut self, kind: u8) -> io::Result<()> {
        loop {
            let (found, body) = self.read()?;
            if found == b'E' {
                return Err(io::Error::other(String::from_utf8_lossy(&body).into_owned()));
            }
            if found == kind {
                return Ok(());
            }
        }
    }

    /// Breaks the connection as a machine that has crashed would: with a reset.
    pub fn reset(self) {
        let at_once = Some(Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(&self.socket, at_once)
            .expect("a socket can be told to reset");
    }
}
