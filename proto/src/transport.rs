//! How nodes talk to each other: sizes, keepalives and the shared secret, the same on both sides.
//!
//! A node serves beyond loopback only with `cluster_secret_file`: every request then carries the secret as
//! metadata, and it is compared without telling by time how much of it was right.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Status};
use towline_base::limits::MAX_REPLICATION_MESSAGE_BYTES;

/// The metadata key that carries the secret.
pub const SECRET_KEY: &str = "towline-secret";
/// HTTP/2 flow control: what may be on the way on one stream. Large enough for a few chunks of WAL over a
/// long line; bounded, because it is memory of the receiver.
pub const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// What may be on the way on a connection.
pub const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Largest HTTP/2 frame: fewer, larger ones cost less.
pub const FRAME_SIZE: u32 = 256 * 1024;
/// Largest message that either side takes.
pub const MESSAGE_LIMIT: usize = MAX_REPLICATION_MESSAGE_BYTES;

/// A server with the windows and keepalives of this service.
pub fn server(keepalive: Duration) -> Server {
    Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_SIZE)
        .http2_keepalive_interval(Some(keepalive))
        .http2_keepalive_timeout(Some(keepalive))
        .tcp_keepalive(Some(keepalive))
}

/// An endpoint with the same. It has no request timeout: streams live long.
///
/// # Errors
/// When the address is not a URI.
pub fn endpoint(
    address: &str,
    connect_timeout: Duration,
    keepalive: Duration,
) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(address.to_owned())?;
    Ok(endpoint
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(keepalive))
        .http2_keep_alive_interval(keepalive)
        .keep_alive_timeout(keepalive)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}

/// The secret of the cluster, or none on loopback.
#[derive(Clone, Default)]
pub struct Secret(Option<MetadataValue<Ascii>>);

/// The secret holds bytes that cannot travel as metadata.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadSecret;

impl std::fmt::Display for BadSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the cluster secret must be 8 to 1024 printable ASCII characters")
    }
}

impl std::error::Error for BadSecret {}

impl Secret {
    /// No secret: anybody who reaches the port may talk.
    pub fn none() -> Secret {
        Secret(None)
    }

    /// The text of a secret file, without spaces around it.
    pub fn parse(text: &str) -> Result<Secret, BadSecret> {
        let text = text.trim();
        let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !printable || !(8..=1024).contains(&text.len()) {
            return Err(BadSecret);
        }
        let mut value: MetadataValue<Ascii> = text.parse().map_err(|_| BadSecret)?;
        value.set_sensitive(true);
        Ok(Secret(Some(value)))
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a request shows the secret.
    pub fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let Some(wanted) = &self.0 else { return Ok(()) };
        let shown = request.metadata().get(SECRET_KEY);
        let equal = shown.is_some_and(|shown| same(shown.as_encoded_bytes(), wanted.as_encoded_bytes()));
        if equal {
            Ok(())
        } else {
            Err(Status::unauthenticated("the cluster secret is missing or wrong"))
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_set() {
            "Secret(set)"
        } else {
            "Secret(none)"
        })
    }
}

/// Compares in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

/// Adds the secret to each request of a client.
#[derive(Clone, Debug)]
pub struct ShowSecret(pub Secret);

impl Interceptor for ShowSecret {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(secret) = &self.0.0 {
            request.metadata_mut().insert(SECRET_KEY, secret.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_right_secret_is_let_in() {
        let secret = Secret::parse(" correct horse \n").unwrap();
        let shown = |text: &str| {
            let request = ShowSecret(Secret::parse(text).unwrap())
                .call(Request::new(()))
                .unwrap();
            secret.check(&request).is_ok()
        };
        assert!(shown("correct horse"));
        assert!(!shown("correct hors3"));
        assert!(!shown("correct horse battery"));
        assert!(secret.check(&Request::new(())).is_err());
        assert!(Secret::none().check(&Request::new(())).is_ok());
    }

    #[test]
    fn a_secret_is_printable_and_long_enough_and_never_printed() {
        assert!(Secret::parse("short").is_err());
        assert!(Secret::parse("with\nnewline").is_err());
        assert!(Secret::parse("größtes Geheimnis").is_err());
        assert_eq!(format!("{:?}", Secret::parse("12345678").unwrap()), "Secret(set)");
    }
}
