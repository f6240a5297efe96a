//! Rules of the design that a test may switch off, to see that the crash harness notices their absence.
//!
//! A harness that finds nothing proves something only if it finds what it is for. Each rule stands where it is obeyed as
//! `rules::is_off(Rule::…)`, a relaxed load of a flag in builds with debug assertions, and nothing in a release. A switch is off for the thread
//! that holds its [`RuleOff`], so that tests of one process do not disturb each other.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

/// A rule, with its label in the design.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Rule {
    /// A13: the log's tail is made durable before its end is reported.
    TailIsDurable,
    /// A14: a fork is a new file, zero behind the fork.
    ForkIsANewFile,
    /// B1: a relation's files go, and are cut, only when the quorum has the record that says so.
    FilesBelowQuorum,
    /// B1: no commit reaches the status log's files before the quorum has its record.
    StatusBelowQuorum,
    /// B1: the control file names a checkpoint only when the quorum has its record.
    CheckpointBelowQuorum,
    /// B2: the first record of a timeline is there to be shipped before redo begins.
    RecordBeforeRedo,
    /// B3: a copy of a page waits for the quorum, not the page.
    CopyWaits,
    /// B4: changes wait while too much stands above the quorum.
    RoomAboveQuorum,
    /// B5: a shutdown waits for its checkpoint only so long.
    ShutdownEnds,
    /// B6: on a new timeline the first change of each page carries an image.
    ImagesBehindFork,
    /// B7: a standby applies nothing above the quorum.
    ReplayBelowQuorum,
    /// B8: a committed hint is set only when nothing can take the commit back.
    HintsAreSettled,
    /// B9: a base backup is told where the newest of its pages can be.
    BackupKnowsItsEnd,
    /// C1: `visible` does not pass a commit whose CSN is not stored.
    BoundBeforeCommit,
}

static ANY: AtomicBool = AtomicBool::new(false);

thread_local! {
    static OFF: Cell<u32> = const { Cell::new(0) };
}

/// Whether this thread is a test that has switched the rule off.
#[inline]
pub fn is_off(rule: Rule) -> bool {
    cfg!(debug_assertions) && ANY.load(Ordering::Relaxed) && is_off_here(rule)
}

#[cold]
fn is_off_here(rule: Rule) -> bool {
    OFF.get() & 1 << rule as u8 != 0
}

/// Keeps a rule switched off for this thread; for tests.
#[derive(Debug)]
pub struct RuleOff(Rule);

impl RuleOff {
    /// Until it is dropped, on the thread that made it.
    pub fn new(rule: Rule) -> RuleOff {
        ANY.store(true, Ordering::Relaxed);
        OFF.set(OFF.get() | 1 << rule as u8);
        RuleOff(rule)
    }
}

impl Drop for RuleOff {
    fn drop(&mut self) {
        OFF.set(OFF.get() & !(1 << self.0 as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_off_for_one_thread_and_as_long_as_its_guard_lives() {
        assert!(!is_off(Rule::TailIsDurable));
        let off = RuleOff::new(Rule::TailIsDurable);
        assert_eq!(is_off(Rule::TailIsDurable), cfg!(debug_assertions));
        assert!(!is_off(Rule::ForkIsANewFile));
        let elsewhere = std::thread::spawn(|| is_off(Rule::TailIsDurable));
        assert!(elsewhere.join().is_ok_and(|off| !off));
        drop(off);
        assert!(!is_off(Rule::TailIsDurable));
    }
}
