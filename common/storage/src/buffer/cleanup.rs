//! Waiting to be the only one with a pin (vacuum, redo of pruning): rare, so one static queue serves all pools.
//!
//! It is static, and not in the pool, so that giving a pin back touches nothing of the pool afterwards (frame.rs, rule 1).
//! No wake-up is lost: the waiter sets its flag and looks at the count under the lock that the waker takes.

use super::frame::{CLEANUP_WAITER, Frame};
use parking_lot::{Condvar, Mutex};

use std::sync::atomic::Ordering;

static QUEUE: Mutex<()> = Mutex::new(());
static CHANGED: Condvar = Condvar::new();

/// Called by whoever gives back a pin of a frame that somebody waits for.
#[cold]
pub(super) fn wake_waiters() {
    let _queue = QUEUE.lock();
    CHANGED.notify_all();
}

/// Waits until the caller's pin is the only one; true at once when it is. It holds no latch meanwhile, so it may have changed again
/// when this returns.
pub(super) fn wait_for_sole_pin(frame: &Frame) {
    let mut queue = QUEUE.lock();
    loop {
        let before = frame.state.fetch_or(CLEANUP_WAITER, Ordering::AcqRel);
        if before & super::frame::PIN_MASK == 1 {
            // Others that wait for this frame hold pins, so there are none; nobody needs the flag.
            frame.state.fetch_and(!CLEANUP_WAITER, Ordering::AcqRel);
            return;
        }
        CHANGED.wait(&mut queue);
    }
}
