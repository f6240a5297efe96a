//! A bare client over an in-memory stream: bytes out, messages in.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use towline_wire::auth::{Gatekeeper, greet};
use towline_wire::connection::End;
use towline_wire::hba::{Rule, Transport};

use super::fake::World;

/// Counts the writes that pass through it.
pub struct Counted {
    pub inner: DuplexStream,
    pub writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

pub struct Client {
    pub io: DuplexStream,
    pub writes: Arc<AtomicUsize>,
    pub server: tokio::task::JoinHandle<End>,
}

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

pub fn query(text: &str) -> Vec<u8> {
    message(b'Q', format!("{text}\0").as_bytes())
}

/// Parse, Bind and Execute of the unnamed statement, without Sync.
pub fn extended(text: &str) -> Vec<u8> {
    let mut out = message(b'P', format!("\0{text}\0\0\0").as_bytes());
    out.extend(message(b'B', &[0; 8]));
    out.extend(message(b'E', &[0; 5]));
    out
}

pub fn sync() -> Vec<u8> {
    message(b'S', b"")
}

pub fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut body = 0x30000u32.to_be_bytes().to_vec();
    body.extend_from_slice(format!("user\0{user}\0database\0{database}\0\0").as_bytes());
    let mut out = (body.len() as u32 + 4).to_be_bytes().to_vec();
    out.extend(body);
    out
}

impl Client {
    /// Connects without logging in; `capacity` is the stream's buffer in bytes.
    pub fn dial(world: &Arc<World>, rules: Vec<Rule>, capacity: usize) -> Self {
        let (near, far) = duplex(capacity);
        let writes = Arc::new(AtomicUsize::new(0));
        let io = Counted {
            inner: far,
            writes: Arc::clone(&writes),
        };
        let gate = Gatekeeper {
            backend: Arc::clone(world),
            rules: Arc::new(rules),
            reserved: 1,
            max_connections: 3,
            mock_key: [7; 32],
            local: None,
        };
        let server = tokio::spawn(async move {
            let transport = Transport::Tcp {
                address: "127.0.0.1".parse().unwrap(),
                tls: false,
            };
            match greet(io, transport, 1234, &gate).await {
                Ok(connection) => connection.run().await,
                Err(end) => end,
            }
        });
        Self {
            io: near,
            writes,
            server,
        }
    }

    /// A logged-in client.
    pub async fn connect(world: &Arc<World>) -> Self {
        Self::connect_with(world, 1 << 20).await
    }

    pub async fn connect_with(world: &Arc<World>, capacity: usize) -> Self {
        let mut client = Self::dial(world, Rule::loopback_trust(), capacity);
        client.send(&startup("postgres", "postgres")).await;
        let greeting = client.until(b'Z').await;
        assert_eq!(kinds(&greeting), "RSKZ");
        client
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    /// The next message, or `None` at the end of the stream.
    pub async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.io.read_exact(&mut head).await.ok()?;
        let len = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4;
        let mut body = vec![0; len];
        self.io.read_exact(&mut body).await.ok()?;
        Some((head[0], body))
    }

    /// All messages up to and including one of this kind, or to the end of the stream.
    pub async fn until(&mut self, kind: u8) -> Vec<(u8, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(message) = self.read().await {
            let last = message.0 == kind;
            all.push(message);
            if last {
                break;
            }
        }
        all
    }
}

pub fn kinds(messages: &[(u8, Vec<u8>)]) -> String {
    messages.iter().map(|(kind, _)| *kind as char).collect()
}

/// The SQLSTATE of the first ErrorResponse.
pub fn error_code(messages: &[(u8, Vec<u8>)]) -> String {
    let (_, body) = messages.iter().find(|(kind, _)| *kind == b'E').expect("an error");
    let field = body
        .split(|byte| *byte == 0)
        .find(|field| field.first() == Some(&b'C'))
        .unwrap();
    String::from_utf8(field[1..].to_vec()).unwrap()
}
