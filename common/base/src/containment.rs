//! Which panics end one session, and which end the node.
//!
//! A panic in the work of a session (an expression, a plan, a scan) says that this work is wrong, not that shared memory is: the session's
//! driver runs each step in [`contain`], catches the panic, drops the session, whose transaction thereby rolls back, and everybody else goes
//! on. No lock of this system is poisoned by it: latches, pins, tickets and `parking_lot` locks are given up by unwinding.
//!
//! Some steps change shared memory in several moves of which none may be seen alone: a page that has changed while its record is not in
//! the log, log space that is reserved and not filled, a commit record without its CSN. They run inside a [`CriticalSection`]. Unwinding out
//! of one aborts the process, as PostgreSQL's PANIC does, and recovery decides.
//!
//! A panic on a thread that is not inside [`contain`] (the log's writer, the checkpointer, replay) always ends the process: a part of the
//! node would no longer do its work. The process's panic hook asks [`is_contained`].

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// A panic that [`contain`] has caught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caught {
    /// What the panic said, if it was text.
    pub message: String,
}

impl Caught {
    fn new(payload: &(dyn Any + Send)) -> Caught {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Caught {
            message: text.unwrap_or_else(|| "a panic without a message".to_owned()),
        }
    }
}

/// Runs a step of a session. After a panic the caller gives up everything that the step could reach and did not share.
pub fn contain<R>(step: impl FnOnce() -> R) -> Result<R, Caught> {
    let outer = CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(step));
    CONTAINED.set(outer);
    result.map_err(|payload| Caught::new(&*payload))
}

/// Whether a panic on this thread would be caught by [`contain`].
pub fn is_contained() -> bool {
    CONTAINED.get()
}

/// Several moves on shared memory of which none may be seen alone; see the module.
///
/// [`CriticalSection::leave`] ends it. Dropped otherwise, by an early return, it does nothing; by unwinding, it aborts the process.
#[derive(Debug)]
#[must_use = "a section that is dropped at once protects nothing"]
pub struct CriticalSection {
    name: &'static str,
}

impl CriticalSection {
    /// Enters a section; the name is for the log.
    #[inline]
    pub fn enter(name: &'static str) -> CriticalSection {
        CriticalSection { name }
    }

    /// The moves are complete.
    #[inline]
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for CriticalSection {
    fn drop(&mut self) {
        if std::thread::panicking() {
            abort_in(self.name);
        }
    }
}

#[cold]
fn abort_in(name: &str) -> ! {
    tracing::error!("a panic in the critical section \"{name}\": the node ends, and recovery decides");
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contained_panic_is_an_error_with_its_message() {
        assert_eq!(contain(|| 7), Ok(7));
        let caught = contain(|| -> u8 { panic!("row {}", 3) }).map_err(|caught| caught.message);
        assert_eq!(caught, Err("row 3".to_owned()));
        assert!(!is_contained());
        assert_eq!(
            contain(|| (contain(is_contained), is_contained())),
            Ok((Ok(true), true))
        );
    }

    #[test]
    fn a_section_that_is_left_or_returned_from_aborts_nothing() {
        CriticalSection::enter("left").leave();
        drop(CriticalSection::enter("returned from"));
    }
}
