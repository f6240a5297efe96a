//! Crash points: how many each suite of the crash harness must reach in a plain `cargo test`, in one table.
//!
//! A point is one disk that a power cut, or the end of a process, may leave at one boundary, different from the others of that boundary,
//! which was recovered from and then passed every check of its suite. `TOWLINE_CRASH_FACTOR=n` runs n times as much of each.

/// Suites, and the points that each of them asserts to have checked.
pub const SUITES: [(&str, u64); 15] = [
    ("log", 100),
    ("half records", 50),
    ("pages", 300),
    ("page recovery", 20),
    ("heap", 1200),
    ("splits", 1000),
    ("ddl", 3600),
    ("vacuum", 300),
    ("large values", 2000),
    ("segments", 1700),
    ("recovery", 300),
    ("random", 2500),
    ("threads", 80),
    ("ddl threads", 48),
    ("slots", 50),
];

/// What a plain run checks at least.
pub const TOTAL: u64 = 10_000;

const fn sum() -> u64 {
    let mut total = 0;
    let mut index = 0;
    while index < SUITES.len() {
        total += SUITES[index].1;
        index += 1;
    }
    total
}

const _: () = assert!(sum() >= TOTAL);

/// How much more than a plain run is wanted: `TOWLINE_CRASH_FACTOR`, 1 without it.
///
/// # Panics
/// When the variable is no number.
pub fn factor() -> u64 {
    super::number("TOWLINE_CRASH_FACTOR").unwrap_or(1).max(1)
}

/// The seed that a failure has printed, to run it alone: `TOWLINE_CRASH_SEED`.
///
/// # Panics
/// When the variable is no number.
pub fn only_seed() -> Option<u64> {
    super::number("TOWLINE_CRASH_SEED")
}

/// Reports what a suite has checked.
///
/// # Panics
/// When the suite is not in [`SUITES`], or has checked fewer points than it says there (a run of one seed is not judged).
pub fn report(suite: &str, points: u64) {
    let minimum = SUITES.iter().find(|(name, _)| *name == suite);
    let (_, minimum) = minimum.unwrap_or_else(|| panic!("no suite {suite:?}"));
    println!("crash points, {suite}: {points} fully checked, at least {minimum} wanted");
    assert!(
        points >= *minimum || only_seed().is_some(),
        "only {points} crash points were checked by the suite {suite:?}, not {minimum}"
    );
}
