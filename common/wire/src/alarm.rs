//! Strikes for statements whose time is over. A step that does not yield holds its thread of the runtime, and may hold
//! the one that drives the runtime's timers: these have a thread of their own.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use towline_access::session::{Interrupt, Interrupts};

/// Strikes at a time unless it is dropped before, and never after.
pub(crate) struct Alarm {
    key: (Instant, u64),
}

struct Clock {
    due: Mutex<Due>,
    changed: Condvar,
}

#[derive(Default)]
struct Due {
    strikes: BTreeMap<(Instant, u64), Arc<Interrupts>>,
    /// Makes keys of one time differ.
    given: u64,
    /// The thread is there.
    started: bool,
}

static CLOCK: LazyLock<Clock> = LazyLock::new(|| Clock {
    due: Mutex::new(Due::default()),
    changed: Condvar::new(),
});

impl Alarm {
    /// Raises the statement's flag at this time.
    pub(crate) fn set(at: Instant, interrupts: &Arc<Interrupts>) -> Self {
        let mut due = CLOCK.due.lock();
        due.given += 1;
        let key = (at, due.given);
        due.strikes.insert(key, Arc::clone(interrupts));
        if !due.started {
            let thread = std::thread::Builder::new().name("statement-clock".to_owned());
            // Without it, a statement is still ended where it yields; the next one tries again.
            due.started = thread.spawn(strike).is_ok();
        } else if due.strikes.keys().next() == Some(&key) {
            CLOCK.changed.notify_one();
        }
        Self { key }
    }

    /// Whether it struck; it does not from now on.
    pub(crate) fn stop(self) -> bool {
        self.remove()
    }

    fn remove(&self) -> bool {
        CLOCK.due.lock().strikes.remove(&self.key).is_none()
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The clock's thread.
fn strike() {
    let mut due = CLOCK.due.lock();
    loop {
        let next = due.strikes.keys().next().copied();
        match next {
            None => CLOCK.changed.wait(&mut due),
            Some((at, _)) if at > Instant::now() => {
                let _ = CLOCK.changed.wait_until(&mut due, at);
            }
            Some(key) => {
                // Under the lock: who has stopped an alarm is not struck.
                if let Some(interrupts) = due.strikes.remove(&key) {
                    interrupts.raise(Interrupt::StatementTimeout);
                }
            }
        }
    }
}
