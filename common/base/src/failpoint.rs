//! Failpoints: named places where a test may pause a thread, make a step fail, or end the process.
//!
//! `failpoint!("wal::before_fsync")?` costs one relaxed load of a flag that is false unless some
//! failpoint was configured in this process, by [`configure`] or by the environment variable
//! `TOWLINE_FAILPOINTS="name=action;name=action"` ([`configure_from_env`]).
//!
//! Actions: `off`, `pause` (until [`release`], or until the file of a `pause:PATH` action is gone,
//! which lets another process hold it), `error` (the step fails with EIO), `enospc`, `crash`
//! (`abort`, as kill -9 would), `panic` (also `panic:PATH`: as long as that file exists), each
//! optionally after `N*`: the action takes effect from the N-th hit on (`3*crash`).

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

static ANY: AtomicBool = AtomicBool::new(false);
static TABLE: Mutex<Option<HashMap<String, Point>>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

/// What a failpoint does when it is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Nothing; hits are still counted.
    Off,
    /// Hold the thread until [`release`] or another action.
    Pause,
    /// Hold the thread as long as this file exists.
    PauseWhileFile(PathBuf),
    /// The step fails with `EIO`.
    Error,
    /// The step fails with `ENOSPC`.
    NoSpace,
    /// The process aborts.
    Crash,
    /// The thread panics.
    Panic,
    /// The thread panics if this file exists.
    PanicWhileFile(PathBuf),
}

#[derive(Clone, Debug)]
struct Point {
    action: Action,
    skip: u64,
    hits: u64,
    /// Threads held since the last release.
    paused: u64,
    /// How often the threads held were let go: one that is slow to leave is not held anew by a pause that follows at once.
    releases: u64,
}

/// Reaches the failpoint of this name; a `std::io::Result<()>`.
#[macro_export]
macro_rules! failpoint {
    ($name:expr) => {
        $crate::failpoint::reach($name)
    };
}

/// What `failpoint!` calls.
#[inline]
pub fn reach(name: &str) -> io::Result<()> {
    if ANY.load(Ordering::Relaxed) {
        reach_configured(name)
    } else {
        Ok(())
    }
}

#[cold]
fn reach_configured(name: &str) -> io::Result<()> {
    let mut table = TABLE.lock();
    let Some(point) = table.as_mut().and_then(|points| points.get_mut(name)) else {
        return Ok(());
    };
    point.hits += 1;
    if point.hits <= point.skip {
        return Ok(());
    }
    match point.action.clone() {
        Action::Off => Ok(()),
        Action::Error => Err(io::Error::from_raw_os_error(5)),
        Action::NoSpace => Err(io::Error::from_raw_os_error(28)),
        Action::Crash => std::process::abort(),
        Action::Panic => {
            drop(table);
            panic!("failpoint {name}")
        }
        Action::PanicWhileFile(path) => {
            drop(table);
            assert!(!path.exists(), "failpoint {name}");
            Ok(())
        }
        Action::Pause => {
            point.paused += 1;
            let releases = point.releases;
            CHANGED.notify_all();
            while releases_of(&table, name) == Some(releases) {
                CHANGED.wait(&mut table);
            }
            Ok(())
        }
        Action::PauseWhileFile(path) => {
            drop(table);
            while path.exists() {
                std::thread::park_timeout(Duration::from_millis(2));
            }
            Ok(())
        }
    }
}

fn releases_of(table: &Option<HashMap<String, Point>>, name: &str) -> Option<u64> {
    table.as_ref()?.get(name).map(|point| point.releases)
}

/// Sets a failpoint's action; it takes effect after `skip` more hits. Threads that it holds stay held if it still pauses, and are freed
/// otherwise.
pub fn configure(name: &str, action: Action, skip: u64) {
    let mut table = TABLE.lock();
    let points = table.get_or_insert_default();
    let (paused, releases) = match points.get(name) {
        Some(point) if action == Action::Pause => (point.paused, point.releases),
        Some(point) => (0, point.releases + 1),
        None => (0, 0),
    };
    points.insert(
        name.to_owned(),
        Point {
            action,
            skip,
            hits: 0,
            paused,
            releases,
        },
    );
    ANY.store(true, Ordering::Relaxed);
    CHANGED.notify_all();
}

/// Turns a failpoint off and frees the threads it holds.
pub fn release(name: &str) {
    configure(name, Action::Off, 0);
}

/// How often a configured failpoint was reached since it was last configured.
pub fn hits(name: &str) -> u64 {
    TABLE
        .lock()
        .as_ref()
        .and_then(|points| points.get(name))
        .map_or(0, |point| point.hits)
}

/// Waits until a thread is held at the failpoint; false when the timeout passed first.
pub fn wait_paused(name: &str, timeout: Duration) -> bool {
    let deadline = std::time::Instant::now() + timeout;
    let mut table = TABLE.lock();
    loop {
        let held = table
            .as_ref()
            .and_then(|points| points.get(name))
            .is_some_and(|p| p.paused > 0);
        if held {
            return true;
        }
        if CHANGED.wait_until(&mut table, deadline).timed_out() {
            return false;
        }
    }
}

/// A failpoint set for the life of this guard; dropping it releases the failpoint.
#[derive(Debug)]
pub struct FailpointGuard(String);

impl FailpointGuard {
    /// Sets the action until the guard is dropped.
    pub fn new(name: &str, action: Action, skip: u64) -> FailpointGuard {
        configure(name, action, skip);
        FailpointGuard(name.to_owned())
    }
}

impl Drop for FailpointGuard {
    fn drop(&mut self) {
        release(&self.0);
    }
}

/// Reads `TOWLINE_FAILPOINTS`. Unknown text is an error that names it.
pub fn configure_from_env() -> Result<(), String> {
    let Ok(text) = std::env::var("TOWLINE_FAILPOINTS") else {
        return Ok(());
    };
    for entry in text.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (name, action) = entry.split_once('=').ok_or_else(|| bad_entry(entry))?;
        let (skip, action) = match action.split_once('*') {
            Some((count, action)) => {
                let nth: u64 = count.trim().parse().map_err(|_| bad_entry(entry))?;
                (nth.saturating_sub(1), action)
            }
            None => (0, action),
        };
        let action = parse_action(action.trim()).ok_or_else(|| bad_entry(entry))?;
        configure(name.trim(), action, skip);
    }
    Ok(())
}

fn bad_entry(entry: &str) -> String {
    format!("TOWLINE_FAILPOINTS: cannot understand {entry:?}")
}

fn parse_action(text: &str) -> Option<Action> {
    match text.split_once(':') {
        Some(("pause", path)) => Some(Action::PauseWhileFile(path.into())),
        Some(("panic", path)) => Some(Action::PanicWhileFile(path.into())),
        Some(_) => None,
        None => match text {
            "off" => Some(Action::Off),
            "pause" => Some(Action::Pause),
            "error" => Some(Action::Error),
            "enospc" => Some(Action::NoSpace),
            "crash" => Some(Action::Crash),
            "panic" => Some(Action::Panic),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far above what any wait here takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn an_unknown_failpoint_does_nothing() {
        assert!(failpoint!("base::never_configured").is_ok());
    }

    #[test]
    fn an_error_takes_effect_from_the_chosen_hit_until_released() {
        let guard = FailpointGuard::new("base::third", Action::Error, 2);
        assert!(failpoint!("base::third").is_ok());
        assert!(failpoint!("base::third").is_ok());
        assert_eq!(
            failpoint!("base::third").map_err(|e| e.raw_os_error()),
            Err(Some(5))
        );
        assert_eq!(hits("base::third"), 3);
        drop(guard);
        assert!(failpoint!("base::third").is_ok());
    }

    #[test]
    fn a_paused_thread_goes_on_when_released() {
        configure("base::pause", Action::Pause, 0);
        let thread = std::thread::spawn(|| failpoint!("base::pause").is_ok());
        assert!(wait_paused("base::pause", PATIENCE));
        assert!(!thread.is_finished());
        release("base::pause");
        assert!(thread.join().is_ok_and(|ok| ok));
    }

    /// A thread that was let go and had not run yet was held for good, and was taken for the next one to come.
    #[test]
    fn a_release_frees_a_thread_although_the_failpoint_pauses_again_at_once() {
        configure("base::again", Action::Pause, 0);
        let thread = std::thread::spawn(|| failpoint!("base::again").is_ok());
        assert!(wait_paused("base::again", PATIENCE));
        configure("base::again", Action::Pause, 1);
        assert!(wait_paused("base::again", Duration::ZERO), "still held");
        release("base::again");
        configure("base::again", Action::Pause, 0);
        assert!(!wait_paused("base::again", Duration::ZERO));
        assert!(thread.join().is_ok_and(|ok| ok));
        release("base::again");
    }

    #[test]
    fn actions_are_read_from_text() {
        assert_eq!(parse_action("crash"), Some(Action::Crash));
        assert_eq!(
            parse_action("pause:/x"),
            Some(Action::PauseWhileFile("/x".into()))
        );
        assert_eq!(parse_action("explode"), None);
    }
}
