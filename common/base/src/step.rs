//! [`Next`]: what a background loop asks for after one step.
//!
//! Every loop of the system (WAL writer, checkpointer, appliers, vacuum, agent) is a function
//! `step(now) -> Next`. Production gives it a thread; the simulator steps many on one thread.

use crate::clock::Moment;

/// When a background loop wants its next step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// At this moment, or earlier when something wakes it.
    At(Moment),
    /// At once: there is more to do.
    Now,
    /// Only when something wakes it.
    Idle,
    /// Never: it has finished.
    Stop,
}

impl Next {
    /// The earlier of two wishes. `Stop` yields to any other.
    pub fn earlier(self, other: Next) -> Next {
        match (self, other) {
            (Next::Now, _) | (_, Next::Now) => Next::Now,
            (Next::At(a), Next::At(b)) => Next::At(a.min(b)),
            (Next::At(a), _) | (_, Next::At(a)) => Next::At(a),
            (Next::Idle, _) | (_, Next::Idle) => Next::Idle,
            (Next::Stop, Next::Stop) => Next::Stop,
        }
    }
}
