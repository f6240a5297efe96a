//! The startup phase of a connection: from the first byte to ReadyForQuery.
//!
//! Bounded in time by the caller (`authentication_timeout`), in size by [`crate::frontend`]'s limits and in number of
//! messages by the protocol itself. Nothing of the node but the role table is touched before the client has proved who it is.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use towline_access::session::{Interrupts, SessionRow};
use towline_base::scram::{ScramError, ScramExchange, ScramSecret, random_bytes};
use towline_base::{Clock, SqlState, SystemClock};
use towline_sql::{SessionParams, SqlError};

use crate::backend as encode;
use crate::connection::{Connection, End, panicked, protocol_error};
use crate::contained::contained;
use crate::frontend::{Cursor, Frame, MAX_STARTUP, ProtocolError, Split};
use crate::hba::{self, Method, Rule, Transport};
use crate::reply::Reply;
use crate::session::{Backend, RoleLogin, WireSession};
use crate::startup::{self, Startup, StartupParameters};

const MECHANISM: &str = "SCRAM-SHA-256";
/// How often a client may ask for encryption before it has to start: once for TLS and once for GSSAPI.
const MAX_REQUESTS: usize = 2;

/// What a startup needs to know of the listener.
pub struct Gatekeeper<B> {
    /// The node.
    pub backend: Arc<B>,
    /// The rules in force.
    pub rules: Arc<Vec<Rule>>,
    /// `superuser_reserved_connections`.
    pub reserved: usize,
    /// `max_connections`.
    pub max_connections: usize,
    /// Random per process: makes the salts of users that do not exist.
    pub mock_key: [u8; 32],
    /// The server's end of the connection, when it has an address.
    pub local: Option<SocketAddr>,
}

/// Greets a client: answers encryption and cancel requests, authenticates, opens the session.
pub async fn greet<IO, B>(
    mut io: IO,
    transport: Transport,
    port: u16,
    gate: &Gatekeeper<B>,
) -> Result<Connection<IO, B::Session>, End>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Backend,
{
    let mut input = BytesMut::new();
    let startup = async {
        let parameters = first_packet(&mut io, &mut input, gate).await?;
        log_in(&mut io, &mut input, transport, port, gate, parameters).await
    };
    let started = contained(Box::pin(startup)).await;
    match started.unwrap_or_else(|caught| Err(End::Panicked(caught))) {
        Ok((session, interrupts, reply)) => Ok(Connection::new(io, input, reply, session, interrupts)),
        Err(end) => refuse(&mut io, end).await,
    }
}

/// Says why, before the connection is closed.
async fn refuse<IO: AsyncWrite + Unpin, T>(io: &mut IO, end: End) -> Result<T, End> {
    let error = match &end {
        End::Closed | End::Io(_) => None,
        End::Fatal(error) => Some(error.clone()),
        End::Panicked(_) => Some(panicked()),
    };
    if let Some(error) = error {
        let mut reply = Reply::default();
        reply.error(&error);
        io.write_all(&reply.bytes).await?;
        io.shutdown().await?;
    }
    Err(end)
}

async fn first_packet<IO, B>(
    io: &mut IO,
    input: &mut BytesMut,
    gate: &Gatekeeper<B>,
) -> Result<StartupParameters, End>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Backend,
{
    let fatal = |error: ProtocolError| End::Fatal(protocol_error(&error));
    let mut requests = 0;
    loop {
        fill(io, input, 4).await?;
        let len = usize::try_from(input.get_i32()).unwrap_or(0);
        if !(8..=MAX_STARTUP).contains(&len) {
            return Err(fatal(ProtocolError::fatal("invalid length of startup packet")));
        }
        fill(io, input, len - 4).await?;
        let body = input.split_to(len - 4);
        match startup::decode(&body).map_err(fatal)? {
            Startup::Session(parameters) => return Ok(parameters),
            Startup::Cancel { pid, key } => {
                gate.backend
                    .registry()
                    .cancel_with_key(pid.cast_signed(), key.cast_signed());
                return Err(End::Closed);
            }
            Startup::Ssl | Startup::GssEnc => {
                requests += 1;
                if requests > MAX_REQUESTS {
                    return Err(fatal(ProtocolError::fatal("too many encryption requests")));
                }
                io.write_all(b"N").await?;
                io.flush().await?;
            }
        }
    }
}

type LoggedIn<S> = (S, Arc<Interrupts>, Reply);

async fn log_in<IO, B>(
    io: &mut IO,
    input: &mut BytesMut,
    transport: Transport,
    port: u16,
    gate: &Gatekeeper<B>,
    parameters: StartupParameters,
) -> Result<LoggedIn<B::Session>, End>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Backend,
{
    let mut reply = Reply::default();
    if let Some(options) = &parameters.negotiate {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        encode::negotiate_protocol_version(&mut reply.bytes, startup::NEWEST_PROTOCOL, &options);
    }
    if parameters.replication {
        return Err(End::Fatal(
            SqlError::fatal(
                SqlState::FEATURE_NOT_SUPPORTED,
                "the streaming replication protocol is not supported",
            )
            .with_hint("Standbys of Towline stream over gRPC; see towline standby --upstream."),
        ));
    }
    gate.backend.accepting().map_err(End::Fatal)?;
    // The place is taken before the password is asked for: a crowd of guests cannot exceed max_connections.
    let mut key = [0; 4];
    random_bytes(&mut key)?;
    let row = session_row(transport, port, &parameters);
    let handle = gate.backend.registry().register(i32::from_ne_bytes(key), row);
    let handle = handle.map_err(|error| End::Fatal(into_fatal(error.into())))?;

    let superuser = authenticate(io, input, &mut reply, transport, gate, &parameters).await?;
    if !superuser && gate.backend.registry().len() > gate.max_connections.saturating_sub(gate.reserved) {
        return Err(End::Fatal(SqlError::fatal(
            SqlState::TOO_MANY_CONNECTIONS,
            "remaining connection slots are reserved for non-replication superuser connections",
        )));
    }
    encode::authentication_ok(&mut reply.bytes);
    let (client_addr, client_port) = match transport {
        Transport::Local => (String::new(), 0),
        Transport::Tcp { address, .. } => (address.to_string(), port),
    };
    let params = SessionParams {
        user: parameters.user,
        database: parameters.database,
        client_addr,
        client_port,
        server: gate.local,
        settings: parameters.settings,
    };
    let (pid, secret) = (handle.pid(), handle.secret());
    let interrupts = Arc::clone(handle.interrupts());
    let session = gate
        .backend
        .open(params, handle)
        .map_err(|error| End::Fatal(into_fatal(error)))?;
    for (name, value) in session.initial_parameters() {
        encode::parameter_status(&mut reply.bytes, &name, &value);
    }
    encode::backend_key_data(&mut reply.bytes, pid.cast_unsigned(), secret.cast_unsigned());
    Ok((session, interrupts, reply))
}

/// Whatever goes wrong before the session exists ends the connection.
fn into_fatal(mut error: SqlError) -> SqlError {
    error.fields_mut().severity = towline_sql::Severity::Fatal;
    error
}

fn session_row(transport: Transport, port: u16, parameters: &StartupParameters) -> SessionRow {
    let now = SystemClock.wall();
    let application = parameters
        .settings
        .iter()
        .rev()
        .find(|(name, _)| name == "application_name");
    let (client_addr, client_port) = match transport {
        Transport::Local => (String::new(), -1),
        Transport::Tcp { address, .. } => (address.to_string(), i32::from(port)),
    };
    SessionRow {
        user: parameters.user.clone(),
        database: parameters.database.clone(),
        application_name: application.map(|(_, value)| value.clone()).unwrap_or_default(),
        client_addr,
        client_port,
        backend_start: now,
        state_change: Some(now),
        backend_type: "client backend",
        ..SessionRow::default()
    }
}

/// Applies the first matching rule. `Ok` tells whether the role is a superuser.
async fn authenticate<IO, B>(
    io: &mut IO,
    input: &mut BytesMut,
    reply: &mut Reply,
    transport: Transport,
    gate: &Gatekeeper<B>,
    parameters: &StartupParameters,
) -> Result<bool, End>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Backend,
{
    let StartupParameters { user, database, .. } = parameters;
    let method = hba::first_match(&gate.rules, transport, database, user);
    let origin = match transport {
        Transport::Local => "host \"[local]\"".to_owned(),
        Transport::Tcp { address, .. } => format!("host \"{}\"", address.to_canonical()),
    };
    let who = format!("{origin}, user \"{user}\", database \"{database}\", no encryption");
    let refused = |message: String| {
        let error = SqlError::fatal(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, message);
        Err(End::Fatal(
            error.with_hint("The rules are the [[hba]] sections of towline.toml."),
        ))
    };
    let role = || {
        gate.backend
            .role(user)
            .map_err(|error| End::Fatal(into_fatal(error)))
    };
    let login = match method {
        None => return refused(format!("no pg_hba.conf entry for {who}")),
        Some(Method::Reject) => return refused(format!("pg_hba.conf rejects connection for {who}")),
        Some(Method::Trust) => role()?.ok_or_else(|| {
            End::Fatal(SqlError::fatal(
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                format!("role \"{user}\" does not exist"),
            ))
        })?,
        Some(Method::Scram) => {
            let role = role()?;
            let secret = role.as_ref().and_then(|role| role.secret.clone());
            let proved = scram(io, input, reply, secret, user, &gate.mock_key).await?;
            match role {
                Some(role) if proved => role,
                _ => {
                    return Err(End::Fatal(SqlError::fatal(
                        SqlState::INVALID_PASSWORD,
                        format!("password authentication failed for user \"{user}\""),
                    )));
                }
            }
        }
    };
    check_login(user, &login)
}

fn check_login(user: &str, login: &RoleLogin) -> Result<bool, End> {
    if login.can_login {
        Ok(login.superuser)
    } else {
        Err(End::Fatal(SqlError::fatal(
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            format!("role \"{user}\" is not permitted to log in"),
        )))
    }
}

/// Runs the exchange; a user without a secret takes part in one that cannot succeed.
async fn scram<IO>(
    io: &mut IO,
    input: &mut BytesMut,
    reply: &mut Reply,
    secret: Option<ScramSecret>,
    user: &str,
    mock_key: &[u8; 32],
) -> Result<bool, End>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let doomed = secret.is_none();
    let secret = secret.unwrap_or_else(|| ScramSecret::mock(user, mock_key));
    encode::authentication_sasl(&mut reply.bytes, &[MECHANISM]);
    send(io, reply).await?;

    let body = password_message(io, input).await?;
    let mut cursor = Cursor(&body);
    let malformed = |detail: &str| {
        let error = SqlError::fatal(SqlState::PROTOCOL_VIOLATION, "malformed SCRAM message");
        End::Fatal(error.with_detail(format!("{detail}.")))
    };
    let mechanism = cursor
        .text()
        .map_err(|error| End::Fatal(protocol_error(&error)))?;
    if mechanism != MECHANISM {
        let error = ProtocolError::fatal("client selected an invalid SASL authentication mechanism");
        return Err(End::Fatal(protocol_error(&error)));
    }
    let len = cursor.i32().map_err(|error| End::Fatal(protocol_error(&error)))?;
    let first = usize::try_from(len)
        .ok()
        .filter(|len| *len == cursor.0.len())
        .map(|_| cursor.0);
    let first = first.and_then(|bytes| std::str::from_utf8(bytes).ok());
    let first = first.ok_or_else(|| malformed("The initial response is missing"))?;
    let mut nonce = [0; 18];
    random_bytes(&mut nonce)?;
    let explain = |error| match error {
        ScramError::Malformed(detail) => Err(malformed(&capitalized(detail))),
        ScramError::WrongPassword => Ok(false),
    };
    let exchange = match ScramExchange::start(secret, first, &nonce) {
        Ok(exchange) => exchange,
        Err(error) => return explain(error),
    };
    encode::authentication_sasl_continue(&mut reply.bytes, exchange.server_first());
    send(io, reply).await?;

    let body = password_message(io, input).await?;
    let last = std::str::from_utf8(&body).map_err(|_| malformed("The final response is not UTF-8"))?;
    match exchange.finish(last) {
        Ok(_) if doomed => Ok(false),
        Ok(proof) => {
            encode::authentication_sasl_final(&mut reply.bytes, &proof);
            Ok(true)
        }
        Err(error) => explain(error),
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

async fn send<IO: AsyncWrite + Unpin>(io: &mut IO, reply: &mut Reply) -> Result<(), End> {
    io.write_all(&reply.bytes).await?;
    io.flush().await?;
    reply.reset();
    Ok(())
}

/// The body of the next password message.
async fn password_message<IO: AsyncRead + Unpin>(io: &mut IO, input: &mut BytesMut) -> Result<BytesMut, End> {
    loop {
        let need = match Frame::split(input, false).map_err(|error| End::Fatal(protocol_error(&error)))? {
            Split::Frame(_, used) => {
                let mut message = input.split_to(used);
                message.advance(5);
                return Ok(message);
            }
            Split::Need(need) => need,
        };
        fill(io, input, need).await?;
    }
}

/// Reads until `input` holds at least `len` bytes; the end of the stream before that closes the connection.
async fn fill<IO: AsyncRead + Unpin>(io: &mut IO, input: &mut BytesMut, len: usize) -> Result<(), End> {
    while input.len() < len {
        input.reserve(1024);
        if io.read_buf(input).await? == 0 {
            return Err(End::Closed);
        }
    }
    Ok(())
}
