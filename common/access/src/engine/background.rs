//! The threads of an engine, and its orderly end.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use towline_base::rules::{self, Rule};
use towline_storage::background_writer::{BackgroundWriterThread, spawn_background_writer};
use towline_storage::checkpoint::{CheckpointerThread, PrimarySide, spawn_checkpointer};
use towline_storage::{
    BackgroundWriter, BackgroundWriterSettings, CheckpointRequests, CheckpointSettings, CheckpointSource,
    Checkpointer,
};
use towline_wal::{
    LoopThread, SegmentDir, TimelineHistory, Wal, spawn_loop, spawn_preallocator, spawn_writer,
};

use super::Engine;
use super::participant::RetentionHooks;
use crate::error::{AccessError, Result};
use crate::step::{Wait, WaitKind};
use crate::vacuum::{Autovacuum, AutovacuumSettings};
use towline_base::{Lsn, TimelineNumber};

/// The running threads.
#[derive(Debug)]
pub(crate) struct Background {
    pub(crate) requests: Arc<CheckpointRequests>,
    checkpointer: Option<CheckpointerThread>,
    cleaner: Option<BackgroundWriterThread>,
    cleaner_settings: Arc<Mutex<BackgroundWriterSettings>>,
    autovacuum: Option<LoopThread>,
    autovacuum_settings: Arc<Mutex<AutovacuumSettings>>,
    preallocator: Option<LoopThread>,
    writer: Option<LoopThread>,
    note: Option<LoopThread>,
}

fn spawn_error(error: &std::io::Error) -> AccessError {
    AccessError::new(
        towline_base::SqlState::INSUFFICIENT_RESOURCES,
        format!("could not start a thread: {error}"),
    )
}

/// A full disk of the log asks for a checkpoint at once: it frees the segments that only redo still needed.
fn checkpoint_when_full(wal: &Arc<Wal>, requests: &Arc<CheckpointRequests>) {
    let (log, requests) = (Arc::downgrade(wal), Arc::clone(requests));
    wal.segments().set_shortage_hook(move || {
        if let Some(wal) = log.upgrade() {
            // Nobody waits for it: whoever is held back looks at the room there is.
            drop(requests.request(wal.insert_lsn()));
        }
    });
}

impl Engine {
    /// Starts the log's writer alone: what an opened primary needs while it recovers and ships.
    pub fn start_wal_writer(&self, wal: &Arc<Wal>) -> Result<LoopThread> {
        spawn_writer(wal, Arc::clone(&self.clock), Arc::clone(&self.open_writers))
            .map_err(|error| spawn_error(&error))
    }

    /// Starts the writer, the preallocator, the checkpointer and the autovacuum of a primary.
    pub fn start_background(self: &Arc<Self>, history: &TimelineHistory) -> Result<()> {
        let wal = Arc::clone(&self.writer()?.wal);
        let writer = self.start_wal_writer(&wal)?;
        self.start_background_with(history, writer)
    }

    /// As [`Engine::start_background`], for a primary whose log's writer is running already.
    pub fn start_background_with(
        self: &Arc<Self>,
        history: &TimelineHistory,
        writer: LoopThread,
    ) -> Result<()> {
        let current = self.writer()?;
        let wal = Arc::clone(&current.wal);
        let previous_timeline = history
            .ancestors()
            .last()
            .map_or(TimelineNumber::FIRST, |entry| entry.timeline.number);
        let segments = Arc::clone(wal.segments());
        let side = PrimarySide {
            wal: Arc::clone(&wal),
            permit: current.permit.clone(),
            previous_timeline,
            timeline_begin: history.begin(),
        };
        let checkpointer = Checkpointer::new(
            self.storage_arc(),
            CheckpointSource::Primary(side),
            Arc::clone(&self.participant) as _,
            Some(segments),
            Arc::clone(&self.clock),
            self.config.checkpoint,
        );
        let requests = Arc::clone(checkpointer.requests());
        checkpoint_when_full(&wal, &requests);
        let preallocator = spawn_preallocator(wal.segments(), Arc::clone(&self.clock))
            .map_err(|error| spawn_error(&error))?;
        let checkpointer =
            spawn_checkpointer(checkpointer, Arc::clone(&self.clock)).map_err(|error| spawn_error(&error))?;
        let (cleaner, cleaner_settings) = self.start_background_writer()?;
        let autovacuum_settings = Arc::new(Mutex::new(self.config.autovacuum));
        let mut looking = Autovacuum::new(self, Arc::clone(&autovacuum_settings));
        let autovacuum = spawn_loop("autovacuum", Arc::clone(&self.clock), move |now| {
            looking.step(now)
        })
        .map_err(|error| spawn_error(&error))?;
        let note = match self.note_sync.lock().take() {
            Some(mut sync) => {
                let step = move |now| sync.step(now);
                let thread = spawn_loop("release-note", Arc::clone(&self.clock), step);
                Some(thread.map_err(|error| spawn_error(&error))?)
            }
            None => None,
        };
        *self.background.lock() = Some(Background {
            note,
            requests,
            checkpointer: Some(checkpointer),
            cleaner: Some(cleaner),
            cleaner_settings,
            autovacuum: Some(autovacuum),
            autovacuum_settings,
            preallocator: Some(preallocator),
            writer: Some(writer),
        });
        Ok(())
    }

    /// Starts the restartpoints of a standby. `segments` is where it keeps its log, if it removes old segments itself.
    pub fn start_restartpoints(&self, segments: Option<Arc<SegmentDir>>) -> Result<()> {
        let replayer = self
            .replayer
            .clone()
            .ok_or_else(|| AccessError::internal("this engine does not replay"))?;
        let checkpointer = Checkpointer::new(
            self.storage_arc(),
            CheckpointSource::Standby(replayer),
            Arc::clone(&self.participant) as _,
            segments,
            Arc::clone(&self.clock),
            self.config.checkpoint,
        );
        let requests = Arc::clone(checkpointer.requests());
        let checkpointer =
            spawn_checkpointer(checkpointer, Arc::clone(&self.clock)).map_err(|error| spawn_error(&error))?;
        let (cleaner, cleaner_settings) = self.start_background_writer()?;
        *self.background.lock() = Some(Background {
            note: None,
            requests,
            checkpointer: Some(checkpointer),
            cleaner: Some(cleaner),
            cleaner_settings,
            autovacuum: None,
            autovacuum_settings: Arc::new(Mutex::new(self.config.autovacuum)),
            preallocator: None,
            writer: None,
        });
        Ok(())
    }

    fn start_background_writer(
        &self,
    ) -> Result<(BackgroundWriterThread, Arc<Mutex<BackgroundWriterSettings>>)> {
        let settings = Arc::new(Mutex::new(self.config.background_writer));
        let writer = BackgroundWriter::new(self.storage_arc(), Arc::clone(&settings));
        let thread =
            spawn_background_writer(writer, Arc::clone(&self.clock)).map_err(|error| spawn_error(&error))?;
        Ok((thread, settings))
    }

    /// Changes the background writer's settings (a reload).
    pub fn configure_background_writer(&self, settings: BackgroundWriterSettings) {
        if let Some(background) = self.background.lock().as_ref() {
            *background.cleaner_settings.lock() = settings;
        }
    }

    /// Changes autovacuum's settings (a reload). `autovacuum_freeze_max_age` is fixed.
    pub fn configure_autovacuum(&self, settings: AutovacuumSettings) {
        if let Some(background) = self.background.lock().as_ref() {
            *background.autovacuum_settings.lock() = AutovacuumSettings {
                freeze_max_age: self.config.autovacuum.freeze_max_age,
                ..settings
            };
            if let Some(thread) = &background.autovacuum {
                thread.wake();
            }
        }
    }

    /// CHECKPOINT: asks for one that covers everything so far. The wait ends when it is finished; on a standby there may be nothing to
    /// wait for.
    pub fn checkpoint(&self) -> Option<Wait> {
        let requests = Arc::clone(&self.background.lock().as_ref()?.requests);
        match self.writer.load().as_ref() {
            Some(writer) => {
                let position = writer.wal.insert_lsn();
                Some(Wait::lsn(WaitKind::Quorum(position), requests.request(position)))
            }
            None => {
                drop(requests.request(self.replayed()?));
                None
            }
        }
    }

    /// Changes the checkpointer's settings (a reload).
    pub fn configure_checkpoints(&self, settings: CheckpointSettings) {
        if let Some(background) = self.background.lock().as_ref() {
            background.requests.configure(settings);
        }
    }

    /// What replication slots need of the log, and word of finished checkpoints.
    pub fn set_retention_hooks(&self, hooks: Arc<dyn RetentionHooks>) {
        *self.participant.hooks.lock() = Some(hooks);
    }

    /// Ends the engine in order: the shutdown checkpoint, then the threads. Nobody may write any more. Without a quorum it gives up
    /// after `shutdown_timeout` and stops as after a crash (B5). The log stays readable for walsenders, which go last.
    pub fn shutdown(&self) -> Result<()> {
        self.log_pending_aborts();
        let Some(mut background) = self.background.lock().take() else {
            return Ok(());
        };
        // A vacuum under way ends with its present step.
        drop(background.autovacuum.take());
        drop(background.cleaner.take());
        background.requests.shut_down();
        let mut clean = true;
        if let Some(checkpointer) = background.checkpointer.take() {
            let deadline = std::time::Instant::now() + self.config.shutdown_timeout;
            let in_time = || std::time::Instant::now() < deadline || rules::is_off(Rule::ShutdownEnds);
            while !checkpointer.is_finished() && in_time() {
                background.requests.wake();
                std::thread::park_timeout(Duration::from_millis(2));
            }
            clean = checkpointer.is_finished();
            drop(checkpointer);
        }
        drop(background.note.take());
        drop(background.preallocator.take());
        drop(background.writer.take());
        if clean && self.storage.stop_reason().is_none() {
            return Ok(());
        }
        Err(AccessError::new(
            towline_base::SqlState::CRASH_SHUTDOWN,
            "the shutdown checkpoint did not end in time; the next start recovers as after a crash",
        ))
    }

    /// Ends the threads without a checkpoint, as a crash would.
    pub fn stop_abruptly(&self) {
        drop(self.background.lock().take());
    }

    /// Removes from memory, and later from disk, what committed transactions dropped and aborted ones had created.
    pub(crate) fn unlink_dropped(&self) {
        let quorum = if rules::is_off(Rule::FilesBelowQuorum) {
            Lsn::MAX
        } else {
            self.quorum.get()
        };
        for (lsn, rel) in self.release.take_dropped(quorum) {
            self.storage.unlink_after(lsn, rel);
        }
    }

    /// The end of the log as inserted (primary) or replayed (standby).
    pub fn current_lsn(&self) -> Lsn {
        match self.writer.load().as_ref() {
            Some(writer) => writer.wal.insert_lsn(),
            None => self.replayed().unwrap_or_default(),
        }
    }
}
