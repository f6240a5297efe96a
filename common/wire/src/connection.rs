//! One authenticated connection: the loop between the socket and the session.
//!
//! The loop reads what is there, steps the session through every complete message, collects the answers in one buffer
//! and writes that buffer when a Sync (or Flush, or a query) asked for it and no further complete message is buffered:
//! one write for a whole pipeline. It also writes at 64 KB, so a slow client holds back its own query, not memory.
//!
//! It owns three rules. **No byte leaves before the gate**: whatever the answers depend on must be visible first (C3).
//! **A session that waits holds nothing of the runtime**: the wait, cancel requests, timers, termination and the client's leaving are one
//! poll (`waits`), so none of them is lost or delayed by another. **A panic in a step ends its own session only**: it is rolled back, its
//! client gets XX000 and is cut off (see [`towline_base::containment`] for the panics that end the node).

mod waits;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use towline_access::session::{Interrupt, Interrupts, SessionState};
use towline_base::SqlState;
use towline_base::containment::{Caught, contain};
use towline_sql::SqlError;

use crate::backend;
use crate::contained::contained;
use crate::frontend::{Frame, Message, ProtocolError, Split, Target};
use crate::reply::Reply;
use crate::session::{Outcome, WireSession};

/// How long the last words to a client (a FATAL error) may take to be sent.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why a conversation ended.
#[derive(Debug)]
pub enum End {
    /// The client said goodbye or closed the socket.
    Closed,
    /// The socket failed.
    Io(io::Error),
    /// The server ends it and says why.
    Fatal(SqlError),
    /// A step of the session panicked; the client was told XX000.
    Panicked(Caught),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        End::Io(error)
    }
}

/// From a violation of the protocol to what the client is told.
pub(crate) fn protocol_error(error: &ProtocolError) -> SqlError {
    let state = SqlState::from_code(error.sqlstate).unwrap_or(SqlState::PROTOCOL_VIOLATION);
    if error.fatal {
        SqlError::fatal(state, &error.message)
    } else {
        SqlError::new(state, &error.message)
    }
}

/// Which protocol a COPY FROM STDIN was started by: it decides what follows its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Simple,
    Extended,
}

/// What a driven call came to.
enum Driven {
    Done,
    CopyIn,
    Failed(SqlError),
}

/// Which part of the reply can be taken back as a whole: the answer of one statement, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// None: nothing is held, or a part has left, or answers of several stand behind the gate.
    No,
    /// What stands behind this many bytes. What stands before them may leave.
    From(usize),
}

/// A connection after its startup phase.
pub struct Connection<IO, S> {
    io: IO,
    input: BytesMut,
    /// What the client sent while the session was at work; goes behind `input`.
    ahead: BytesMut,
    /// Bytes behind the message at work that wait in the input already.
    backlog: usize,
    reply: Reply,
    session: S,
    interrupts: Arc<Interrupts>,
    /// An answer is complete and the client waits for it.
    flush_wanted: bool,
    /// After an error in an extended-query group: everything until Sync is ignored.
    skip_until_sync: bool,
    /// A COPY FROM STDIN is being fed.
    copy: Option<Protocol>,
    /// When `statement_timeout` strikes.
    deadline: Option<Instant>,
    /// A statement group is running (its flags were cleared at its start).
    in_group: bool,
    /// A terminated session's wait was given up already.
    gave_up: bool,
    /// Why a wait was given up since the last write.
    given_up: Option<SqlError>,
    /// When `statement_timeout` strikes for answers that are not written yet.
    unwritten_until: Option<Instant>,
    /// The last statement's answer.
    held: Held,
}

impl<IO, S> Connection<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: WireSession,
{
    /// Takes over a stream whose startup is done. `input` holds bytes already read beyond the startup messages, `reply`
    /// what is to be sent with the first ReadyForQuery.
    pub fn new(io: IO, input: BytesMut, reply: Reply, session: S, interrupts: Arc<Interrupts>) -> Self {
        Self {
            io,
            input,
            ahead: BytesMut::new(),
            backlog: 0,
            reply,
            session,
            interrupts,
            flush_wanted: false,
            skip_until_sync: false,
            copy: None,
            deadline: None,
            in_group: false,
            gave_up: false,
            given_up: None,
            unwritten_until: None,
            held: Held::No,
        }
    }

    /// Converses until either side ends it. The session is gone, its transaction rolled back, before the client is told.
    pub async fn run(mut self) -> End {
        self.ready();
        let end = match contained(self.converse()).await {
            Ok(Err(end)) => end,
            Err(caught) => End::Panicked(caught),
        };
        let Self { mut io, session, .. } = self;
        let end = match contain(|| drop(session)) {
            Ok(()) => end,
            Err(caught) => End::Panicked(caught),
        };
        let last_error = match &end {
            End::Closed | End::Io(_) => return end,
            End::Fatal(error) => error.clone(),
            End::Panicked(_) => panicked(),
        };
        // Unsent answers may not be exposed, and the FATAL message tells the client that it has no answer.
        let mut reply = Reply::default();
        reply.error(&last_error);
        let last_words = async {
            io.write_all(&reply.bytes).await?;
            io.shutdown().await
        };
        let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
        end
    }

    async fn converse(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            let mut input = std::mem::take(&mut self.input);
            let processed = self.process(&mut input).await;
            self.input = input;
            let need = processed?;
            if self.flush_wanted || self.reply.is_full() {
                self.write_out().await?;
            }
            self.read_more(need).await?;
        }
    }

    /// Handles every complete message of `input`; returns how many bytes the next one needs.
    async fn process(&mut self, input: &mut BytesMut) -> Result<usize, End> {
        let mut at = 0;
        let need = loop {
            match Frame::split(input.get(at..).unwrap_or_default(), true) {
                Ok(Split::Frame(frame, used)) => {
                    at += used;
                    self.backlog = input.len() - at;
                    self.message(frame).await?;
                    if !self.ahead.is_empty() {
                        input.advance(std::mem::take(&mut at));
                        waits::append_ahead(input, &mut self.ahead);
                    }
                    if self.reply.is_full() {
                        self.write_out().await?;
                    }
                }
                Ok(Split::Need(need)) => break need,
                Err(error) => return Err(End::Fatal(protocol_error(&error))),
            }
        };
        input.advance(at);
        Ok(need)
    }

    async fn message(&mut self, frame: Frame<'_>) -> Result<(), End> {
        if self.skip_until_sync && !matches!(frame.kind, b'S' | b'X') {
            return Ok(());
        }
        let message = match Message::decode(frame) {
            Ok(message) => message,
            Err(error) if error.fatal => return Err(End::Fatal(protocol_error(&error))),
            Err(error) => return self.broken_message(frame.kind, &error).await,
        };
        if self.copy.is_some() {
            return self.copy_message(message).await;
        }
        match message {
            Message::Query(text) => {
                self.begin_group();
                self.begin_answer();
                self.start_timer();
                let outcome = self.session.simple_query(text, &mut self.reply);
                let driven = self.drive(outcome).await?;
                self.finish(Protocol::Simple, driven).await
            }
            Message::Sync => {
                self.begin_group();
                self.skip_until_sync = false;
                let outcome = self.session.sync(&mut self.reply);
                if let Driven::Failed(error) = self.drive(outcome).await? {
                    self.report(&error)?;
                }
                self.ready();
                Ok(())
            }
            Message::Flush => {
                self.flush_wanted = true;
                Ok(())
            }
            Message::Terminate => Err(End::Closed),
            // A client may still be sending data for a COPY that has failed.
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) => Ok(()),
            Message::FunctionCall => {
                self.failed_message(frame.kind, SqlError::unsupported("the function-call protocol"))
                    .await
            }
            Message::Password => Err(End::Fatal(protocol_error(&ProtocolError::fatal(
                "invalid frontend message type 112",
            )))),
            Message::Parse { .. }
            | Message::Bind(_)
            | Message::Describe(..)
            | Message::Execute { .. }
            | Message::Close(..) => self.extended(message).await,
        }
    }

    /// The extended-query messages. An error makes the rest of the group skipped.
    async fn extended(&mut self, message: Message<'_>) -> Result<(), End> {
        self.begin_group();
        self.begin_answer();
        let result = match message {
            Message::Parse {
                name,
                text,
                param_types,
            } => self
                .session
                .parse(name, text, &param_types)
                .map(|()| backend::parse_complete(&mut self.reply.bytes)),
            Message::Bind(bind) => self
                .session
                .bind(
                    bind.portal,
                    bind.statement,
                    &bind.param_formats,
                    &bind.params,
                    &bind.result_formats,
                )
                .map(|()| backend::bind_complete(&mut self.reply.bytes)),
            Message::Describe(Target::Statement, name) => {
                self.session.describe_statement(name).map(|description| {
                    backend::parameter_description(&mut self.reply.bytes, &description.params);
                    self.reply.description(description.rows.as_ref());
                })
            }
            Message::Describe(Target::Portal, name) => self
                .session
                .describe_portal(name)
                .map(|rows| self.reply.description(rows.as_ref())),
            Message::Close(target, name) => {
                match target {
                    Target::Statement => self.session.close_statement(name),
                    Target::Portal => self.session.close_portal(name),
                }
                backend::close_complete(&mut self.reply.bytes);
                Ok(())
            }
            Message::Execute { portal, max_rows } => {
                self.start_timer();
                let outcome = self.session.execute(portal, max_rows, &mut self.reply);
                let driven = self.drive(outcome).await?;
                return self.finish(Protocol::Extended, driven).await;
            }
            _ => Ok(()),
        };
        match result {
            Ok(()) => Ok(()),
            Err(error) => self.extended_error(&error),
        }
    }

    /// What follows a query's or a portal's end, or the start of its COPY.
    async fn finish(&mut self, protocol: Protocol, driven: Driven) -> Result<(), End> {
        self.copy = None;
        if !matches!(driven, Driven::CopyIn) {
            self.stop_timer();
        }
        match (driven, protocol) {
            (Driven::CopyIn, _) => {
                self.copy = Some(protocol);
                self.flush_wanted = true;
            }
            (Driven::Done, Protocol::Simple) => self.ready(),
            (Driven::Done, Protocol::Extended) => {}
            (Driven::Failed(error), Protocol::Simple) => {
                self.report(&error)?;
                self.ready();
            }
            (Driven::Failed(error), Protocol::Extended) => self.extended_error(&error)?,
        }
        Ok(())
    }

    /// A message while COPY FROM STDIN is being fed.
    async fn copy_message(&mut self, message: Message<'_>) -> Result<(), End> {
        let Some(protocol) = self.copy else { return Ok(()) };
        let fed = match message {
            Message::CopyData(data) => self.session.copy_data(data),
            Message::CopyDone => self.session.copy_done(),
            Message::CopyFail(reason) => self.session.copy_fail(reason),
            // Ignored during COPY, so that a client may send them without knowing that a COPY began.
            Message::Flush | Message::Sync => return Ok(()),
            Message::Terminate => return Err(End::Closed),
            _ => {
                let error = SqlError::new(
                    SqlState::PROTOCOL_VIOLATION,
                    "unexpected message type during COPY from stdin",
                );
                self.session.interrupt(error);
                Ok(())
            }
        };
        if let Err(error) = fed {
            self.session.interrupt(error);
        }
        let outcome = self.session.resume(&mut self.reply);
        match self.drive(outcome).await? {
            Driven::CopyIn => Ok(()),
            driven => self.finish(protocol, driven).await,
        }
    }

    /// A message whose boundaries are known but whose inside is not: an error like that of any statement.
    async fn broken_message(&mut self, kind: u8, error: &ProtocolError) -> Result<(), End> {
        let error = protocol_error(error);
        if let Some(protocol) = self.copy {
            self.session.interrupt(error);
            let outcome = self.session.resume(&mut self.reply);
            let driven = self.drive(outcome).await?;
            return self.finish(protocol, driven).await;
        }
        if matches!(kind, b'd' | b'c' | b'f') {
            // The rest of a COPY that has failed: nobody looks into it, and an answer would be taken for
            // another message's.
            return Ok(());
        }
        self.failed_message(kind, error).await
    }

    /// A message that is an error outside of a COPY: an open transaction block fails.
    async fn failed_message(&mut self, kind: u8, error: SqlError) -> Result<(), End> {
        self.session.interrupt(error.clone());
        let outcome = self.session.resume(&mut self.reply);
        self.drive(outcome).await?;
        match kind {
            b'P' | b'B' | b'D' | b'E' | b'C' | b'H' => self.extended_error(&error),
            _ => {
                self.skip_until_sync = false;
                self.report(&error)?;
                self.ready();
                Ok(())
            }
        }
    }

    fn extended_error(&mut self, error: &SqlError) -> Result<(), End> {
        self.skip_until_sync = true;
        self.report(error)
    }

    /// Puts an error into the reply; a terminated session or a FATAL error ends the conversation.
    fn report(&mut self, error: &SqlError) -> Result<(), End> {
        let interrupts = &self.interrupts;
        if interrupts.is_terminated() {
            // I4: who is told only that the connection ends would take the transaction for undone.
            if error.sqlstate() == SqlState::TRANSACTION_RESOLUTION_UNKNOWN {
                let mut error = error.clone();
                error.fields_mut().severity = towline_sql::Severity::Fatal;
                return Err(End::Fatal(error));
            }
            return Err(End::Fatal(terminated()));
        }
        if error.fields().severity == towline_sql::Severity::Fatal {
            return Err(End::Fatal(error.clone()));
        }
        interrupts.clear();
        self.flush_wanted = true;
        self.reply.error(error);
        Ok(())
    }

    fn ready(&mut self) {
        self.in_group = false;
        self.stop_timer();
        let status = self.session.transaction_status();
        backend::ready_for_query(&mut self.reply.bytes, status);
        self.flush_wanted = true;
    }

    /// The first message of a group: forgets a cancel meant for the group before.
    fn begin_group(&mut self) {
        if self.in_group {
            return;
        }
        self.in_group = true;
        let interrupts = &self.interrupts;
        if interrupts.is_raised() {
            interrupts.clear_statement();
        }
    }

    /// What is appended to the reply from now on answers another statement or message. It can be taken back alone when nothing before it
    /// waits for the gate.
    fn begin_answer(&mut self) {
        self.held = if self.session.gate().is_none() {
            self.session.hold();
            Held::From(self.reply.bytes.len())
        } else {
            Held::No
        };
    }

    /// Starts `statement_timeout` for the query or portal about to run.
    fn start_timer(&mut self) {
        let timeout = Duration::from_millis(self.session.statement_timeout().into());
        self.deadline = (!timeout.is_zero()).then(|| Instant::now() + timeout);
        // A step that does not yield looks at it as well.
        self.interrupts.set_deadline(self.deadline.map(Instant::into_std));
    }

    /// The next statement of a query text begins: the time of the one before is not its own, and a cancel is for the whole text.
    fn next_statement(&mut self) {
        if self.disarm().is_some_and(|at| at <= Instant::now()) {
            self.interrupts.clear_timeout();
        }
        self.begin_answer();
        self.start_timer();
    }

    /// `statement_timeout` does not strike any more; returns when it would have.
    fn disarm(&mut self) -> Option<Instant> {
        let deadline = self.deadline.take()?;
        self.interrupts.set_deadline(None);
        Some(deadline)
    }

    /// The query or portal is over.
    fn stop_timer(&mut self) {
        let deadline = self.disarm();
        if deadline.is_some_and(|at| at <= Instant::now()) {
            // It may have struck at the end: it is not for the next.
            self.interrupts.clear_statement();
        }
        // Until its answer may be shown, it goes on for the client.
        self.unwritten_until = self.unwritten_until.or(deadline);
    }

    /// Steps the session until it has an answer or wants input.
    async fn drive(&mut self, mut outcome: Result<Outcome<S::Wait>, SqlError>) -> Result<Driven, End> {
        loop {
            match outcome {
                Ok(Outcome::Complete | Outcome::Suspended) => return Ok(Driven::Done),
                Ok(Outcome::CopyIn(_)) => return Ok(Driven::CopyIn),
                Err(error) => return Ok(Driven::Failed(error)),
                Ok(Outcome::Wait(wait)) => {
                    if self.flush_wanted {
                        // Answers to earlier statements of the pipeline need not wait for this one.
                        self.write_out().await?;
                    }
                    self.session.show_wait(Some(&wait));
                    let waited = self.wait(wait).await;
                    self.session.show_wait(None);
                    if let Err(error) = waited? {
                        let interrupts = &self.interrupts;
                        if interrupts.is_terminated() && std::mem::replace(&mut self.gave_up, true) {
                            // Told to stop, the session waits again: its transaction ends with the session.
                            return Err(End::Fatal(terminated()));
                        }
                        interrupts.clear();
                        self.given_up = Some(error.clone());
                        self.session.interrupt(error);
                    }
                }
                Ok(Outcome::Next) => self.next_statement(),
                Ok(Outcome::Yield) => {
                    if self.reply.is_full() {
                        self.write_out().await?;
                    }
                    tokio::task::yield_now().await;
                    self.check_client().await?;
                    if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        self.disarm();
                        self.interrupts.raise(Interrupt::StatementTimeout);
                    }
                }
            }
            outcome = self.session.resume(&mut self.reply);
        }
    }

    fn mark_idle(&self) {
        let state = match self.session.transaction_status() {
            b'T' => SessionState::IdleInTransaction,
            b'E' => SessionState::IdleInTransactionAborted,
            _ => SessionState::Idle,
        };
        self.session.show_state(state);
    }

    fn mark_active(&self) {
        self.session.show_state(SessionState::Active);
    }
}

fn terminated() -> SqlError {
    SqlError::fatal(
        SqlState::ADMIN_SHUTDOWN,
        "terminating connection due to administrator command",
    )
}

/// What the client of a session that panicked is told.
pub(crate) fn panicked() -> SqlError {
    SqlError::fatal(
        SqlState::INTERNAL_ERROR,
        "terminating connection because of an internal error",
    )
    .with_detail("The transaction was rolled back; the server's log has the cause.")
}
