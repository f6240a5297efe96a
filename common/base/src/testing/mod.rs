//! What the tests of every crate share: the driver of the fuzzers ([`fuzz`], and [`Guided`] for one that is
//! guided by coverage), the allocator that watches them, and the count of crash points
//! ([`points`]).
//!
//! Nothing here runs in a node.

mod allocation;
mod case;
mod guided;
pub mod points;

pub use allocation::WatchedAllocator;
pub use case::Case;
pub use guided::Guided;

use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Once, mpsc};
use std::time::{Duration, Instant};

/// The seed of a run that names none: the cases of every run are the same until `TOWLINE_SEED` moves them.
const DEFAULT_SEED: u64 = 0x746f_776c;
/// How long a run may take that asks for no number of cases.
const SHORT_RUN: Duration = Duration::from_millis(1500);
/// A case that takes longer hangs. Generous: the machine may be busy.
const CASE_LIMIT: Duration = Duration::from_secs(30);
/// The largest piece of memory that a case may ask for, in bytes, where the test installs a [`WatchedAllocator`].
const ALLOCATION_LIMIT: usize = 256 * 1024 * 1024;

/// Panics of this process, in whichever thread.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            before(info);
        }));
    });
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.trim()
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text:?}")),
    )
}

/// Says how to repeat the case that is left by a panic.
struct Blame<'a> {
    name: &'a str,
    seed: u64,
}

impl Drop for Blame<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", rerun(self.name, self.seed));
        }
    }
}

fn rerun(name: &str, seed: u64) -> String {
    format!("fuzzer {name}: to repeat: TOWLINE_SEED={seed} TOWLINE_FUZZ_CASES=1")
}

/// Runs `case` with other random numbers each time and fails when one panics, in any thread, takes too long, or asks for too
/// much memory at once.
///
/// A run has at most `cases` cases and ends early after 1.5 seconds. `TOWLINE_FUZZ_CASES=n` makes it n cases, however long they take.
/// Case i has the seed `TOWLINE_SEED` + i, so the seed that a failure prints repeats the case as the first one.
///
/// # Panics
/// As above; that is what it is for. A hanging case ends the process, because nothing else can end it.
pub fn fuzz(name: &str, cases: u64, mut case: impl FnMut(&mut Case)) {
    count_panics();
    if guided::serve(|input| run_case(&mut Case::of_input(input), &mut case)) {
        return;
    }
    let first = number("TOWLINE_SEED").unwrap_or(DEFAULT_SEED);
    let (cases, limit) = match number("TOWLINE_FUZZ_CASES") {
        Some(cases) => (cases, Duration::MAX),
        None => (cases, SHORT_RUN),
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let (watched, watch) = mpsc::channel::<u64>();
        scope.spawn(move || watch_cases(name, &watch));
        for seed in (0..cases).map(|index| first.wrapping_add(index)) {
            if begun.elapsed() > limit {
                break;
            }
            let _ = watched.send(seed);
            let _blame = Blame { name, seed };
            run_case(&mut Case::new(seed), &mut case);
        }
        drop(watched);
    });
}

/// One case, and what must hold after each.
fn run_case(case: &mut Case, body: &mut impl FnMut(&mut Case)) {
    let panics = PANICS.load(Ordering::Relaxed);
    WatchedAllocator::reset();
    body(case);
    assert_eq!(
        PANICS.load(Ordering::Relaxed),
        panics,
        "another thread has panicked"
    );
    let largest = WatchedAllocator::largest();
    assert!(
        largest <= ALLOCATION_LIMIT,
        "{largest} bytes were allocated at once"
    );
}

fn watch_cases(name: &str, cases: &mpsc::Receiver<u64>) {
    let Ok(mut seed) = cases.recv() else { return };
    loop {
        match cases.recv_timeout(CASE_LIMIT) {
            Ok(next) => seed = next,
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // Not `eprintln`, which a test's harness keeps to itself until the test ends.
                let _ = writeln!(std::io::stderr(), "a case hangs; {}", rerun(name, seed));
                std::process::abort();
            }
        }
    }
}
