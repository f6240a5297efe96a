//! Waiting for a condition with a deadline: the only way a black-box test lets time pass.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Returns what `condition` yields as soon as it yields something; panics, naming `what`, after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "still waiting for {what} after {limit:?}"
        );
        std::thread::park_timeout(POLL);
    }
}

/// Waits until `condition` holds; panics, naming `what`, after `limit`.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}
