//! The WAL receiver's writing half: one thread that writes, syncs, publishes and acknowledges, in this order (I3).
//!
//! It takes everything that has arrived, writes it, and syncs once for all of it. What it publishes are the positions of
//! [`ReceivedWal`]; the ack is built from them afterwards, so none says more than is durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use towline_base::{Lsn, LsnPublisher, TimelineId, failpoint};
use towline_proto::replication::Progress;
use towline_wal::timeline::ReceiveError;
use towline_wal::{LoopThread, ReceivedWal, TimelineHistory, spawn_preallocator};

use crate::promise::PromiseError;
use crate::shared::Shared;

/// Messages that may wait for the thread: a bound of memory, and of what a cut discards.
pub(crate) const QUEUE: usize = 8;
/// Bytes written before a sync, when more keeps arriving.
const MAX_UNSYNCED: usize = 1024 * 1024;

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Bytes of the log; they belong to the stream with this number.
    Wal {
        stream: u64,
        start: Lsn,
        data: Bytes,
        progress: Progress,
    },
    /// Where the primary stands.
    Progress { stream: u64, progress: Progress },
    /// Answered when everything before it is durable: then the log stands still until the next stream begins.
    Settle { done: oneshot::Sender<()> },
    /// A stream begins, which sends from `start` on along `history`: the log is cut there if it is longer or elsewhere.
    Follow {
        stream: u64,
        start: Lsn,
        history: Box<TimelineHistory>,
        sync_set_version: u64,
        done: oneshot::Sender<Result<(), String>>,
    },
}

struct Writer {
    shared: Arc<Shared>,
    received: Option<ReceivedWal>,
    quorum: LsnPublisher,
    /// Messages of older streams are dropped.
    stream: u64,
    announced: Lsn,
    unsynced: usize,
    /// Makes the next segment before it is needed.
    preallocator: Option<LoopThread>,
}

/// Starts the thread. It ends when all senders are gone.
pub(crate) fn spawn(
    shared: Arc<Shared>,
    received: ReceivedWal,
    quorum: LsnPublisher,
    mut commands: mpsc::Receiver<Command>,
) -> std::io::Result<JoinHandle<Option<(ReceivedWal, LsnPublisher)>>> {
    let announced = quorum.get();
    let preallocator = Some(spawn_preallocator(
        received.segments(),
        Arc::clone(&shared.clock),
    )?);
    let mut writer = Writer {
        shared,
        received: Some(received),
        quorum,
        stream: 0,
        announced,
        unsynced: 0,
        preallocator,
    };
    std::thread::Builder::new()
        .name("walreceiver".to_owned())
        .spawn(move || {
            while let Some(command) = commands.blocking_recv() {
                let outcome = writer.round(command, &mut commands);
                if let Err(error) = outcome {
                    writer
                        .shared
                        .fail(format!("received WAL could not be made durable: {error}"));
                    return None;
                }
            }
            writer.received.take().map(|received| (received, writer.quorum))
        })
}

impl Writer {
    /// Everything that has arrived, then one sync, then the word of it.
    fn round(&mut self, first: Command, commands: &mut mpsc::Receiver<Command>) -> Result<(), ReceiveError> {
        self.handle(first)?;
        while self.unsynced < MAX_UNSYNCED
            && let Ok(next) = commands.try_recv()
        {
            self.handle(next)?;
        }
        self.sync()?;
        if self.announced > self.quorum.get() {
            self.quorum.advance(self.announced);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), ReceiveError> {
        if self.unsynced == 0 {
            return Ok(());
        }
        if self.shared.ack_writes.load(Ordering::Relaxed) {
            self.shared.ack_due.notify_one();
        }
        failpoint!("standby::before_flush").map_err(ReceiveError::Failed)?;
        self.log().flush()?;
        self.unsynced = 0;
        self.shared.ack_due.notify_one();
        Ok(())
    }

    fn log(&mut self) -> &mut ReceivedWal {
        self.received.as_mut().expect("a failed cut ends the thread")
    }

    fn handle(&mut self, command: Command) -> Result<(), ReceiveError> {
        match command {
            Command::Wal {
                stream,
                start,
                data,
                progress,
            } if stream == self.stream => {
                self.log().write(start, &data)?;
                self.unsynced += data.len();
                self.progress(&progress)?;
            }
            Command::Progress { stream, progress } if stream == self.stream => self.progress(&progress)?,
            Command::Wal { .. } | Command::Progress { .. } => {}
            Command::Settle { done } => {
                self.sync()?;
                // The stream may be gone again already.
                let _ = done.send(());
            }
            Command::Follow {
                stream,
                start,
                history,
                sync_set_version,
                done,
            } => {
                self.sync()?;
                self.stream = stream;
                let outcome = self.follow(start, *history, sync_set_version)?;
                // The stream may be gone again already.
                let _ = done.send(outcome);
            }
        }
        Ok(())
    }

    /// The quorum counts only with the timeline that the log follows (A1).
    fn progress(&mut self, progress: &Progress) -> Result<(), ReceiveError> {
        let followed = self.shared.timeline();
        let timeline = progress
            .timeline
            .clone()
            .and_then(|timeline| TimelineId::try_from(timeline).ok());
        if timeline == Some(followed) {
            self.announced = self.announced.max(Lsn(progress.quorum));
            if progress.sync_set_version > self.shared.promise.get().sync_set_version {
                promised(self.shared.promise.give(followed, progress.sync_set_version))?.ok();
            }
        }
        self.shared.retain.store(progress.retain, Ordering::Relaxed);
        self.shared.echo_time.store(progress.send_time, Ordering::Relaxed);
        self.shared
            .ack_writes
            .store(progress.ack_writes, Ordering::Relaxed);
        let applies = self
            .shared
            .ack_applies
            .swap(progress.ack_applies, Ordering::Relaxed);
        if progress.ack_applies && !applies {
            self.shared.ack_due.notify_one();
        }
        Ok(())
    }

    /// The outer error ends the node, the inner one the stream.
    fn follow(
        &mut self,
        start: Lsn,
        history: TimelineHistory,
        sync_set_version: u64,
    ) -> Result<Result<(), String>, ReceiveError> {
        // What was announced last may not be published yet.
        let kept = self.shared.kept().max(self.announced);
        let followed = self.shared.followed();
        let log = self.log();
        let (from, to, at) = (log.history().current(), history.current(), log.written());
        let unchanged = *log.history() == history && at == start;
        let shared = followed.fork_from(&history).map(|(_, shared)| shared);
        if start > at || shared.is_none_or(|shared| start > shared) {
            return Ok(Err(format!(
                "the stream begins at {start} of timeline {to}, which does not go on from the log at {at}"
            )));
        }
        // After a base backup the log begins below what is kept; nothing of it is cut then.
        if shared.is_none_or(|shared| shared < kept) || (start < at && start < kept) {
            return Ok(Err(format!(
                "the stream begins at {start} of timeline {to}, and this standby knows of data up to {kept} of timeline {from} that \
                 the primary lacks"
            )));
        }
        if let Err(refused) = promised(self.shared.promise.give(to, sync_set_version))? {
            return Ok(Err(refused));
        }
        if unchanged {
            return Ok(Ok(()));
        }
        if start < at {
            tracing::info!(%from, %to, position = %at, cut = %start, "cutting WAL that no quorum had");
        }
        let Some(received) = self.received.take() else {
            return Ok(Err("the log has failed".to_owned()));
        };
        // Nobody makes segments of the log that is cut.
        drop(self.preallocator.take());
        let (received, _) = received.cut_at(start, history).map_err(ReceiveError::Failed)?;
        let preallocator = spawn_preallocator(received.segments(), Arc::clone(&self.shared.clock));
        self.preallocator = Some(preallocator.map_err(ReceiveError::Failed)?);
        self.shared.set_log(&received);
        self.received = Some(received);
        if from != to {
            let followed = self.shared.replay.follow(to);
            followed.map_err(|error| ReceiveError::Failed(std::io::Error::other(error.to_string())))?;
            tracing::info!(%from, %to, at = %start, "following a new timeline");
        }
        Ok(Ok(()))
    }
}

/// A promise that could not be stored ends the node, one that must not be given the stream.
fn promised(given: Result<(), PromiseError>) -> Result<Result<(), String>, ReceiveError> {
    match given {
        Ok(()) => Ok(Ok(())),
        Err(PromiseError::Io(error)) => Err(ReceiveError::Failed(error)),
        Err(refused @ PromiseError::Refused { .. }) => Ok(Err(refused.to_string())),
    }
}
