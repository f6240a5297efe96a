//! Asking for a checkpoint, and waiting for it.

use super::CheckpointSettings;
use parking_lot::Mutex;
use towline_base::{Lsn, LsnWait, LsnWatch};

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;

/// Shared by the checkpointer and everybody who asks: `CHECKPOINT`, base backup, shutdown, reload.
#[derive(Debug)]
pub struct CheckpointRequests {
    /// A checkpoint whose redo pointer is at or behind this is wanted; 0 for none.
    wanted: AtomicU64,
    shutdown: AtomicBool,
    /// Redo pointer of the last finished checkpoint.
    finished: LsnWatch,
    settings: Mutex<CheckpointSettings>,
    thread: Mutex<Option<Thread>>,
}

impl CheckpointRequests {
    pub(super) fn new(finished: LsnWatch, settings: CheckpointSettings) -> CheckpointRequests {
        CheckpointRequests {
            wanted: AtomicU64::new(0),
            shutdown: AtomicBool::new(false),
            finished,
            settings: Mutex::new(settings),
            thread: Mutex::new(None),
        }
    }

    /// Asks for a checkpoint at once that covers everything before `position` (the insert or replay position), and says how to wait
    /// for it. On a standby there is nothing newer than the last checkpoint record: wait only on a primary.
    pub fn request(&self, position: Lsn) -> LsnWait {
        self.wanted.fetch_max(position.0.max(1), Ordering::SeqCst);
        self.wake();
        self.finished.wait_for(position)
    }

    /// Asks for the shutdown checkpoint: nobody inserts records any more. The checkpointer's `step` ends with `Stop`.
    pub fn shut_down(&self) {
        self.shutdown.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Redo pointer of the last finished checkpoint, published.
    pub fn finished(&self) -> &LsnWatch {
        &self.finished
    }

    /// Changes the settings (a reload).
    pub fn configure(&self, settings: CheckpointSettings) {
        *self.settings.lock() = settings;
        self.wake();
    }

    /// The settings now.
    pub fn settings(&self) -> CheckpointSettings {
        *self.settings.lock()
    }

    pub(super) fn wanted(&self) -> Option<Lsn> {
        let wanted = self.wanted.load(Ordering::SeqCst);
        (wanted > self.finished.get().0).then_some(Lsn(wanted))
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        self.shutdown.load(Ordering::SeqCst)
    }

    /// Forgets a wish that cannot be fulfilled (a standby without a newer checkpoint record).
    pub(super) fn forget_wish(&self) {
        self.wanted.store(0, Ordering::SeqCst);
    }

    /// Wakes the checkpointer's thread: something it looks at has changed.
    pub fn wake(&self) {
        if let Some(thread) = &*self.thread.lock() {
            thread.unpark();
        }
    }

    pub(super) fn set_thread(&self, thread: Thread) {
        *self.thread.lock() = Some(thread);
    }
}
