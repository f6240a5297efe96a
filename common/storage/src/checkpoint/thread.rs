//! The checkpointer's thread in production; the simulator calls `step` itself.

use super::Checkpointer;
use towline_base::{Clock, Next};

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest sleep between steps, so that a stop is seen.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// A running checkpointer. Dropping it ends the thread after its step, without a checkpoint; for an orderly end ask for the
/// shutdown checkpoint first and wait for [`CheckpointerThread::is_finished`] or [`CheckpointerThread::join`].
#[derive(Debug)]
pub struct CheckpointerThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Checkpointer>>,
}

impl CheckpointerThread {
    /// The loop has ended: after the shutdown checkpoint, or because the storage has stopped.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end of the loop (after [`super::CheckpointRequests::shut_down`]). The checkpointer, or `None` if its thread panicked.
    pub fn join(mut self) -> Option<Checkpointer> {
        self.thread.take()?.join().ok()
    }

    /// Ends the loop after its step and gives the checkpointer back (promotion: a standby's ends, a primary's begins).
    pub fn stop(mut self) -> Option<Checkpointer> {
        self.end();
        self.thread.take()?.join().ok()
    }

    fn end(&self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for CheckpointerThread {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            // A panic was reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

/// Runs a checkpointer on a thread of its own.
pub fn spawn_checkpointer(
    mut checkpointer: Checkpointer,
    clock: Arc<dyn Clock>,
) -> io::Result<CheckpointerThread> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let thread = std::thread::Builder::new()
        .name("checkpointer".to_owned())
        .spawn(move || {
            checkpointer.requests().set_thread(std::thread::current());
            while !seen.load(Ordering::SeqCst) {
                let now = clock.now();
                let sleep = match checkpointer.step(now) {
                    Next::Now => continue,
                    Next::Stop => break,
                    Next::Idle => LONGEST_SLEEP,
                    Next::At(moment) => moment.since(now).min(LONGEST_SLEEP),
                };
                match checkpointer.waits_for() {
                    Some(lsn) => {
                        checkpointer.storage.quorum().wait_for(lsn).block(Some(sleep));
                    }
                    None => std::thread::park_timeout(sleep),
                }
            }
            checkpointer
        })?;
    Ok(CheckpointerThread {
        stop,
        thread: Some(thread),
    })
}
