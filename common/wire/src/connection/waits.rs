//! Where a connection waits: for the engine, for the gate, for its client.
//!
//! Whatever it waits for, it notices that the client has gone: a query on whose answer nobody waits any more holds no lock, no snapshot and
//! none of the `max_connections` places. A client that closes its sending side is taken as gone, as by PostgreSQL's
//! `client_connection_check_interval`. The end of the stream can only be seen behind what stands before it, so bytes that arrive during a
//! wait are read into a buffer of their own. It is bounded ([`MOST_AHEAD`]): a client that sends more than that ahead is held back by its
//! own full socket, and its leaving is noticed when the wait ends.
//!
//! A commit that waits for its release when the client leaves is neither taken back nor shown before its time (I4).

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, interval, sleep_until};
use towline_access::session::Interrupt;
use towline_base::SqlState;
use towline_sql::SqlError;

use super::{Connection, End, Held, terminated};
use crate::backend;
use crate::session::{WireSession, WireWait};

/// Input is read in pieces of at least this size; a larger buffer is given back when the connection falls idle.
const READ_SIZE: usize = 8 * 1024;
/// A large message makes the input buffer grow by at most this much ahead of the bytes received.
const READ_AHEAD: usize = 256 * 1024;
/// How often a write that cannot go on looks whether the session was ended, after its query was cancelled.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Most bytes behind the message at work that are taken from the socket while the session waits.
const MOST_AHEAD: usize = 64 * 1024;

impl<IO, S> Connection<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: WireSession,
{
    /// Awaits what the session waits for, unless a flag, a timer or the client's leaving comes first.
    pub(super) async fn wait(&mut self, mut wait: S::Wait) -> Result<Result<(), SqlError>, End> {
        let interrupts = Arc::clone(&self.interrupts);
        let timeouts = self.session.timeouts();
        let started = if wait.is_lock() || self.deadline.is_some() {
            Some(Instant::now())
        } else {
            None
        };
        let after = |ms: u32| started.map(|at| at + Duration::from_millis(ms.into()));
        let lock = wait.is_lock();
        let mut deadlock_at = if lock && timeouts.deadlock_ms > 0 {
            after(timeouts.deadlock_ms)
        } else {
            None
        };
        let lock_at = if lock && timeouts.lock_ms > 0 {
            after(timeouts.lock_ms)
        } else {
            None
        };
        let statement_at = self.deadline;
        loop {
            let next = [deadlock_at, lock_at, statement_at].into_iter().flatten().min();
            let mut timer = pin!(next.map(sleep_until));
            let Self {
                io, ahead, backlog, ..
            } = self;
            let event = poll_fn(|cx| {
                if let Poll::Ready(result) = Pin::new(&mut wait).poll(cx) {
                    return Poll::Ready(Ok(Some(result)));
                }
                if interrupts.poll_raised(cx).is_ready() {
                    return Poll::Ready(Ok(Some(interrupts.check().map_err(SqlError::from))));
                }
                if let Poll::Ready(gone) = poll_gone(io, ahead, *backlog, cx) {
                    return Poll::Ready(Err(gone));
                }
                poll_timer(timer.as_mut().as_pin_mut(), cx).map(|()| Ok(None))
            })
            .await?;
            if let Some(result) = event {
                return Ok(result);
            }
            let now = Instant::now();
            let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if passed(deadlock_at) {
                deadlock_at = None;
                if let Err(error) = wait.check_deadlock() {
                    return Ok(Err(error));
                }
            }
            if passed(lock_at) {
                return Ok(Err(SqlError::new(
                    SqlState::LOCK_NOT_AVAILABLE,
                    "canceling statement due to lock timeout",
                )));
            }
            if passed(statement_at) {
                self.disarm();
                return Ok(Err(statement_timeout()));
            }
        }
    }

    /// Ends the conversation of a client that has gone, without waiting.
    pub(super) async fn check_client(&mut self) -> Result<(), End> {
        let Self {
            io, ahead, backlog, ..
        } = self;
        poll_fn(|cx| match poll_gone(io, ahead, *backlog, cx) {
            Poll::Ready(gone) => Poll::Ready(Err(gone)),
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await
    }

    /// Writes the reply, behind the gate.
    pub(super) async fn write_out(&mut self) -> Result<(), End> {
        self.flush_wanted = false;
        let (given_up, until) = (self.given_up.take(), self.unwritten_until.take());
        if self.reply.bytes.is_empty() {
            return Ok(());
        }
        let held = std::mem::replace(&mut self.held, Held::No);
        if let Some(mut gate) = self.session.gate() {
            self.session.show_gate(true);
            let mut timer = pin!(until.map(sleep_until));
            let Self {
                io,
                ahead,
                backlog,
                interrupts,
                ..
            } = self;
            let opened = poll_fn(|cx| {
                if let Poll::Ready(result) = gate.as_mut().poll(cx) {
                    return Poll::Ready(Ok(result));
                }
                if interrupts.poll_raised(cx).is_ready() {
                    return Poll::Ready(Ok(interrupts.check().map_err(SqlError::from)));
                }
                // Who has given up a wait already does not begin another one, for the same thing.
                if let Some(error) = &given_up {
                    return Poll::Ready(Ok(Err(error.clone())));
                }
                if poll_timer(timer.as_mut().as_pin_mut(), cx).is_ready() {
                    return Poll::Ready(Ok(Err(statement_timeout())));
                }
                poll_gone(io, ahead, *backlog, cx).map(Err)
            })
            .await?;
            self.session.show_gate(false);
            if let Err(error) = opened {
                self.withhold(held, &error)?;
            }
        }
        let Self {
            io,
            reply,
            interrupts,
            ..
        } = self;
        {
            let mut write = pin!(io.write_all(&reply.bytes));
            let mut looks = None;
            poll_fn(|cx| {
                if let Poll::Ready(result) = write.as_mut().poll(cx) {
                    return Poll::Ready(result.map_err(End::Io));
                }
                // A client that does not read must not hold up a shutdown; its stream is cut inside a message.
                if interrupts.poll_raised(cx).is_ready() {
                    if interrupts.is_terminated() {
                        return Poll::Ready(Err(End::Closed));
                    }
                    // A cancel is for the step after this. As long as its flag is up, no other flag wakes us.
                    let looks = looks.get_or_insert_with(|| interval(LOOK_EVERY));
                    while looks.poll_tick(cx).is_ready() {}
                }
                Poll::Pending
            })
            .await?;
        }
        io.flush().await?;
        reply.reset();
        Ok(())
    }

    /// The wait for the gate was given up: the answer may not be shown. A statement's that is over and none of which has left is replaced by
    /// an error, and the session goes on; of any other the client must ask again.
    fn withhold(&mut self, held: Held, reason: &SqlError) -> Result<(), End> {
        if self.interrupts.is_terminated() {
            return Err(End::Fatal(terminated()));
        }
        if let Held::From(length) = held
            && !self.in_group
        {
            self.reply.take_back(length);
            if let Some(error) = self.session.withdraw(reason, &mut self.reply) {
                // A cancel has done its work.
                self.interrupts.clear_statement();
                self.reply.error(&error);
                backend::ready_for_query(&mut self.reply.bytes, self.session.transaction_status());
                return Ok(());
            }
        }
        Err(End::Fatal(
            SqlError::fatal(
                SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
                "terminating connection because a commit that the answer depends on is not confirmed",
            )
            .with_detail(reason.message()),
        ))
    }

    /// Reads at least one byte more, giving spare memory back first. `need` is the size of the next message as far as
    /// it is known.
    pub(super) async fn read_more(&mut self, need: usize) -> Result<(), End> {
        self.backlog = 0;
        let have = self.input.len();
        if have == 0 && self.input.capacity() > 2 * READ_SIZE {
            self.input = BytesMut::new();
        }
        self.input
            .reserve(need.saturating_sub(have).clamp(READ_SIZE, READ_AHEAD));
        let idle = !self.in_group && self.copy.is_none();
        if idle {
            self.mark_idle();
        }
        let in_block = idle && self.session.transaction_status() != b'I';
        let limit = if in_block {
            self.session.timeouts().idle_in_transaction_ms
        } else {
            0
        };
        let deadline = if self.copy.is_some() {
            self.deadline
        } else {
            (limit > 0).then(|| Instant::now() + Duration::from_millis(limit.into()))
        };
        let mut timer = pin!(deadline.map(sleep_until));
        loop {
            if !self.ahead.is_empty() {
                append_ahead(&mut self.input, &mut self.ahead);
                return Ok(());
            }
            let Self {
                io,
                input,
                interrupts,
                ..
            } = self;
            let mut read = pin!(io.read_buf(input));
            let event = poll_fn(|cx| {
                if let Poll::Ready(result) = read.as_mut().poll(cx) {
                    return Poll::Ready(ReadEvent::Read(result));
                }
                if interrupts.poll_raised(cx).is_ready() {
                    return Poll::Ready(ReadEvent::Interrupted);
                }
                poll_timer(timer.as_mut().as_pin_mut(), cx).map(|()| ReadEvent::TimeIsOver)
            })
            .await;
            match event {
                ReadEvent::Read(Ok(0)) => return Err(End::Closed),
                ReadEvent::Read(Ok(_)) => {
                    if idle {
                        self.mark_active();
                    }
                    return Ok(());
                }
                ReadEvent::Read(Err(error)) => return Err(End::Io(error)),
                ReadEvent::TimeIsOver if self.copy.is_some() => {
                    timer.set(None);
                    self.disarm();
                    self.interrupts.raise(Interrupt::StatementTimeout);
                    self.interrupted_while_reading().await?;
                }
                ReadEvent::TimeIsOver => {
                    return Err(End::Fatal(SqlError::fatal(
                        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                        "terminating connection due to idle-in-transaction timeout",
                    )));
                }
                ReadEvent::Interrupted => self.interrupted_while_reading().await?,
            }
        }
    }

    /// A flag was raised while the client is silent: a cancel is for a statement that is over, a conflict ends what
    /// still holds a snapshot, a termination ends everything.
    async fn interrupted_while_reading(&mut self) -> Result<(), End> {
        let interrupts = Arc::clone(&self.interrupts);
        if interrupts.is_terminated() {
            return Err(End::Fatal(terminated()));
        }
        if let Some(protocol) = self.copy {
            let error = interrupts.check().map_err(SqlError::from);
            if let Err(error) = error {
                self.session.interrupt(error);
                let outcome = self.session.resume(&mut self.reply);
                let driven = self.drive(outcome).await?;
                self.finish(protocol, driven).await?;
                self.write_out().await?;
            }
            return Ok(());
        }
        let conflict = interrupts.is_conflict();
        interrupts.clear();
        if conflict && self.session.transaction_status() != b'I' {
            return Err(End::Fatal(SqlError::fatal(
                SqlState::SERIALIZATION_FAILURE,
                "terminating connection due to conflict with recovery",
            )));
        }
        Ok(())
    }
}

fn statement_timeout() -> SqlError {
    SqlError::new(
        SqlState::QUERY_CANCELED,
        "canceling statement due to statement timeout",
    )
}

enum ReadEvent {
    Read(io::Result<usize>),
    Interrupted,
    TimeIsOver,
}

fn poll_timer(timer: Option<Pin<&mut Sleep>>, cx: &mut Context<'_>) -> Poll<()> {
    timer.map_or(Poll::Pending, |timer| timer.poll(cx))
}

/// Ready when the client has closed its side or the socket has failed. What the client has sent meanwhile is kept in `ahead`, up to
/// [`MOST_AHEAD`] together with the `backlog` of bytes that stand before it.
fn poll_gone<IO: AsyncRead + Unpin>(
    io: &mut IO,
    ahead: &mut BytesMut,
    backlog: usize,
    cx: &mut Context<'_>,
) -> Poll<End> {
    loop {
        let room = MOST_AHEAD.saturating_sub(backlog + ahead.len());
        if room == 0 {
            return Poll::Pending;
        }
        // Read on the stack first: a session whose client is silent while it waits needs no memory for it.
        let mut space = [MaybeUninit::<u8>::uninit(); 2048];
        let size = room.min(space.len());
        let mut read = ReadBuf::uninit(&mut space[..size]);
        match Pin::new(&mut *io).poll_read(cx, &mut read) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(End::Io(error)),
            Poll::Ready(Ok(())) if read.filled().is_empty() => return Poll::Ready(End::Closed),
            Poll::Ready(Ok(())) => ahead.extend_from_slice(read.filled()),
        }
    }
}

/// Puts what was read during a wait behind the input.
pub(super) fn append_ahead(input: &mut BytesMut, ahead: &mut BytesMut) {
    let ahead = std::mem::take(ahead);
    if input.is_empty() {
        *input = ahead;
    } else {
        input.extend_from_slice(&ahead);
    }
}
