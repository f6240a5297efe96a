//! The listener: accepts, bounds and tracks connections, and ends them when the node stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use towline_access::session::Interrupt;
use towline_base::SqlState;
use towline_base::scram::random_bytes;
use towline_sql::SqlError;

use crate::auth::{self, Gatekeeper};
use crate::connection::End;
use crate::hba::{Rule, Transport};
use crate::reply::Reply;
use crate::session::Backend;

/// How long accepting pauses when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a reload may change.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The `[[hba]]` rules.
    pub rules: Arc<Vec<Rule>>,
    /// `max_connections`.
    pub max_connections: usize,
    /// `superuser_reserved_connections`.
    pub reserved: usize,
    /// `authentication_timeout`.
    pub authentication_timeout: Duration,
}

/// How a stop treats sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not stopping.
    No,
    /// No new connections; the present ones may finish (SIGTERM).
    Smart,
    /// Sessions are ended with 57P01 (SIGINT).
    Fast,
}

/// The SQL front end of a node.
pub struct Server<B> {
    backend: Arc<B>,
    config: RwLock<ServerConfig>,
    mock_key: [u8; 32],
    /// Connections accepted and not yet gone, those still logging in included.
    open: AtomicUsize,
}

/// Counts a connection for as long as it lives.
struct OpenGuard<'a>(&'a AtomicUsize);

impl Drop for OpenGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<B: Backend> Server<B> {
    /// A server that has not started listening.
    pub fn new(backend: Arc<B>, config: ServerConfig) -> io::Result<Arc<Self>> {
        let mut mock_key = [0; 32];
        random_bytes(&mut mock_key)?;
        Ok(Arc::new(Self {
            backend,
            config: RwLock::new(config),
            mock_key,
            open: AtomicUsize::new(0),
        }))
    }

    /// Connections that are open now, those that have not logged in yet as well.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Replaces the configuration for connections to come.
    pub fn reconfigure(&self, change: impl FnOnce(&mut ServerConfig)) {
        change(&mut self.config.write());
    }

    /// Accepts until `stop` says otherwise, then waits for the connections to end.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, mut stop: watch::Receiver<Stop>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                changed = stop.changed() => {
                    if changed.is_err() || *stop.borrow() != Stop::No {
                        break;
                    }
                }
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let (server, stop) = (Arc::clone(&self), stop.clone());
                        connections.spawn(async move { server.connection(stream, peer, stop).await });
                    }
                    Err(error) => {
                        tracing::warn!("could not accept a connection: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        loop {
            if *stop.borrow() == Stop::Fast || stop.has_changed().is_err() {
                self.backend.registry().interrupt_all(Interrupt::Terminate);
            }
            tokio::select! {
                joined = connections.join_next() => if joined.is_none() { return },
                Ok(()) = stop.changed() => {}
                // A connection that was still logging in registers after the call above; it is told the next time.
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, stop: watch::Receiver<Stop>) {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let _guard = OpenGuard(&self.open);
        let _ = stream.set_nodelay(true);
        let config = self.config.read().clone();
        // Room for cancel requests and logins in flight beside the sessions; a flood beyond that is cut off.
        if open >= config.max_connections.saturating_mul(2).saturating_add(16) {
            turn_away(stream).await;
            return;
        }
        let gate = Gatekeeper {
            backend: Arc::clone(&self.backend),
            rules: config.rules,
            reserved: config.reserved,
            max_connections: config.max_connections,
            mock_key: self.mock_key,
            local: stream.local_addr().ok(),
        };
        let transport = Transport::Tcp {
            address: peer.ip(),
            tls: false,
        };
        let greeting = auth::greet(stream, transport, peer.port(), &gate);
        let greeting = tokio::time::timeout(config.authentication_timeout, Box::pin(greeting));
        let greeted = tokio::select! {
            greeted = greeting => greeted,
            // Who has not logged in has nothing to lose, and may take its time. As in PostgreSQL, it is not
            // told.
            () = told_to_stop(stop) => return,
        };
        let end = match greeted {
            Ok(Ok(connection)) => Box::pin(connection.run()).await,
            Ok(Err(end)) => end,
            Err(_) => {
                tracing::info!("{peer} did not finish logging in within authentication_timeout");
                return;
            }
        };
        match end {
            End::Closed => {}
            End::Io(error) => tracing::debug!("connection from {peer} broke: {error}"),
            End::Fatal(error) => tracing::info!("connection from {peer} ended: {error}"),
            End::Panicked(caught) => tracing::error!(
                "the session of {peer} panicked and was rolled back; its connection is closed: {}",
                caught.message
            ),
        }
    }
}

/// Ready when sessions are ended, or nobody is left to say so.
async fn told_to_stop(mut stop: watch::Receiver<Stop>) {
    let _ = stop.wait_for(|stop| *stop == Stop::Fast).await;
}

/// Tells a client above all limits why it is closed, without waiting for what it has to say.
async fn turn_away(stream: TcpStream) {
    let mut reply = Reply::default();
    reply.error(&SqlError::fatal(
        SqlState::TOO_MANY_CONNECTIONS,
        "sorry, too many clients already",
    ));
    let _ = stream.try_write(&reply.bytes);
}
