//! A crash at every boundary: the workload runs once, in the middle of each boundary the disk is kept, and between two steps of the workload
//! every disk that a power cut could have left is recovered from and checked. (Not at once: a start takes locks of the process that the
//! workload may hold there.)

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use towline_base::testing::points;
use towline_base::vfs::crash::Moment;
use towline_base::vfs::{CrashVfs, Unsynced};

use super::driver::{Driver, Promise};
use super::node::{Failure, Node, text};
use crate::testing::fresh_disk;

/// Every so many points the recovered node also works on, and is killed and started again.
const WORKS_ON: u64 = 6;

/// A small deterministic generator.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }
}

/// The disk at a boundary, and what was promised then.
struct Seen {
    disk: CrashVfs,
    promise: Promise,
}

/// What a sweep has come to.
#[derive(Default)]
struct Tally {
    points: u64,
    failure: Option<Failure>,
    seen: Vec<Seen>,
}

/// A sweep over the boundaries of one workload.
#[derive(Clone)]
pub(super) struct Sweep {
    suite: &'static str,
    seed: u64,
    /// One boundary in so many is looked at.
    sample: u64,
    tally: Arc<Mutex<Tally>>,
}

impl Sweep {
    pub(super) fn new(suite: &'static str, seed: u64, sample: u64) -> Sweep {
        Sweep {
            suite,
            seed,
            sample,
            tally: Arc::default(),
        }
    }

    /// Points so far.
    pub(super) fn points(&self) -> u64 {
        self.tally.lock().points
    }

    /// The first failure.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.tally.lock().failure.clone()
    }

    /// Keeps the disk at each boundary from now on, with what is promised then.
    pub(super) fn observe(&self, vfs: &CrashVfs, promise: &Arc<Mutex<Promise>>) {
        let (tally, promise, sample) = (Arc::clone(&self.tally), Arc::clone(promise), self.sample);
        let mut random = Random::new(self.seed ^ 0x5EED);
        vfs.observe(move |moment| {
            if random.below(sample) == 0 {
                let (disk, promise) = (moment.after_kill(), promise.lock().clone());
                tally.lock().seen.push(Seen { disk, promise });
            }
        });
    }

    /// Judges what was kept.
    pub(super) fn judge_seen(&self) -> Result<(), Failure> {
        let seen = std::mem::take(&mut self.tally.lock().seen);
        for Seen { disk, promise } in seen {
            disk.look(|moment| self.judge_all(moment, &promise));
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Every disk of this moment.
    fn judge_all(&self, moment: &Moment<'_>, promise: &Promise) {
        let boundary = moment.boundary();
        for (fate, disk) in moment.disks(&Unsynced::ALL, self.seed.wrapping_add(boundary)) {
            let number = self.points();
            let judged = catch_unwind(AssertUnwindSafe(|| judge(&disk, promise, number)));
            let outcome = judged.unwrap_or_else(|_| Err("a panic, see above".to_owned()));
            let mut tally = self.tally.lock();
            match outcome {
                Ok(()) => tally.points += 1,
                Err(what) => {
                    let place = format!("boundary {boundary}, unsynced changes {fate:?}");
                    tally.failure = Some(format!(
                        "{place}: {what}\nto repeat: TOWLINE_CRASH_SEED={} and the suite {:?}",
                        self.seed, self.suite
                    ));
                    return;
                }
            }
        }
    }

    /// Runs a workload on a disk of its own, observed from its first call on.
    pub(super) fn run(&self, work: impl FnOnce(&mut Driver) -> Result<(), Failure>) -> Result<(), Failure> {
        let vfs = fresh_disk();
        let mut driver = Driver::start(&vfs)?;
        driver.sweep = Some(self.clone());
        self.observe(&vfs, &driver.promise);
        let worked = work(&mut driver).and_then(|()| self.judge_seen());
        vfs.observe_no_more();
        match (self.failure(), worked) {
            (Some(failure), _) => Err(failure),
            (None, Err(error)) => Err(format!("the workload itself failed: {error}")),
            (None, Ok(())) => Ok(()),
        }
    }
}

/// Recovers from a disk and checks everything.
fn judge(disk: &CrashVfs, promise: &Promise, number: u64) -> Result<(), Failure> {
    // Without appliers, with one, with several.
    let node = Node::start_with(disk, (number % 5) as usize)?;
    let found = node.contents()?;
    if !promise.allows(&found) {
        return Err(format!(
            "found {found:?}\nwhere {:?} is sure, and {:?} may be",
            promise.sure, promise.maybe
        ));
    }
    if !number.is_multiple_of(WORKS_ON) {
        return Ok(());
    }
    drop(node);
    // What was shown must stay, also through a power cut that follows at once; and the node must be able to go on.
    let disk = disk.after_crash(Unsynced::Lost, number);
    let mut driver = Driver::start(&disk)?;
    if driver.state != found {
        return Err(format!(
            "{found:?} was shown, and {:?} after a power cut",
            driver.state
        ));
    }
    if let Some(name) = found.keys().next().cloned() {
        for id in 0..3 {
            driver.change(&name, &[(90_000 + id, Some(20 + id))], super::driver::COMMIT)?;
        }
        driver.checkpoint()?;
        driver.change(&name, &[(90_000, None), (90_001, Some(7))], super::driver::COMMIT)?;
    }
    let sure = Arc::clone(&driver.promise.lock().sure);
    drop(driver);
    let again = Node::start(&disk.after_crash(Unsynced::Lost, number))?.contents()?;
    if again != *sure {
        return Err(format!("after more work {again:?} is there, not {sure:?}"));
    }
    Ok(())
}

/// The seeds of a suite: one that was asked for, or `count` from `first` on, times the factor.
pub(super) fn seeds(first: u64, count: u64) -> Vec<u64> {
    match points::only_seed() {
        Some(seed) => vec![seed],
        None => (first..first + count * points::factor()).collect(),
    }
}

/// Runs a suite: the workload with each seed.
#[track_caller]
pub(super) fn suite(
    name: &'static str,
    seeds: Vec<u64>,
    sample: u64,
    work: impl Fn(&mut Driver, &mut Random) -> Result<(), Failure>,
) {
    let mut points = 0;
    for seed in seeds {
        let sweep = Sweep::new(name, seed, sample);
        if let Err(failure) = sweep.run(|driver| work(driver, &mut Random::new(seed))) {
            panic!("{failure}");
        }
        points += sweep.points();
    }
    points::report(name, points);
}

/// The recovery of a disk as the workload: a crash at each of its boundaries, and in the checkpoint behind it.
pub(super) fn sweep_recovery(
    sweep: &Sweep,
    disk: &CrashVfs,
    promise: Promise,
    appliers: usize,
) -> Result<(), Failure> {
    let shown = Arc::new(Mutex::new(promise.clone()));
    sweep.observe(disk, &shown);
    let worked = Node::start_with(disk, appliers)
        .map_err(text)
        .and_then(|mut node| {
            let found = node.contents()?;
            if !promise.allows(&found) {
                return Err(format!("found {found:?}, promised {promise:?}"));
            }
            sweep.judge_seen()?;
            // Somebody may have seen it now.
            *shown.lock() = Promise {
                sure: Arc::new(found),
                maybe: Vec::new(),
            };
            node.checkpoint()?;
            sweep.judge_seen()
        });
    disk.observe_no_more();
    match (sweep.failure(), worked) {
        (Some(failure), _) => Err(failure),
        (None, worked) => worked,
    }
}
