//! The process itself: limits, signals, panics, the tie to a parent.

use std::io;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use towline_base::containment;

/// How many files this process may have open; without a limit, the largest number.
pub(crate) fn open_files() -> u64 {
    rustix::process::getrlimit(Resource::Nofile)
        .current
        .unwrap_or(u64::MAX)
}

/// Raises the soft limit of open files to the hard one: sessions, relation files and segments add up.
pub(crate) fn raise_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
            tracing::warn!("could not raise the limit of open files: {error}");
        }
    }
}

/// Has the kernel end this process at once, as by a crash, when the parent that started it ends. A parent that stops its
/// children in order is still there meanwhile; one that was killed left nobody who would wait for an orderly end, and what holds
/// ports and directories then is in the way of the next start.
pub(crate) fn die_with_parent(parent: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before the call above.
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
    if now == Some(parent) {
        Ok(())
    } else {
        Err(io::Error::other("the parent process has ended"))
    }
}

/// A panic in the background means that a part of the node no longer does its work: the process ends at once, and
/// recovery decides. A panic in a session's step is caught by its connection, which ends; see [`containment`].
pub(crate) fn end_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tracing::error!("panic: {info}");
        default(info);
        if !containment::is_contained() {
            std::process::abort();
        }
    }));
}

/// Sends a signal to a process we started.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// What a node is asked from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGTERM: no new sessions, wait for the present ones.
    StopSmart,
    /// SIGINT: end the sessions and stop.
    StopFast,
    /// SIGQUIT: stop as after a crash.
    StopNow,
}

/// The signals a node listens to.
pub(crate) struct Signals {
    hup: SignalStream,
    term: SignalStream,
    int: SignalStream,
    quit: SignalStream,
}

impl Signals {
    /// Starts listening. Must be called inside a runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.hup.recv() => Request::Reload,
            _ = self.term.recv() => Request::StopSmart,
            _ = self.int.recv() => Request::StopFast,
            _ = self.quit.recv() => Request::StopNow,
        }
    }
}
