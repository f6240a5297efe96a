//! The driver of the fuzzers, in a process of its own: a panic of any thread fails whatever run is under way, and other tests panic on
//! purpose. So this is one test too.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use towline_base::testing::{Case, Guided, fuzz};

static SEEN: Mutex<Vec<(usize, Vec<u8>)>> = Mutex::new(Vec::new());

/// A fuzzer: its cases take what they get, but no zero.
fn plain() {
    fuzz("guided", 1, |case| {
        let seen = (case.below(256), case.bytes(2));
        assert_ne!(seen.0, 0);
        SEEN.lock().unwrap().push(seen);
    });
}

#[test]
fn a_case_is_repeated_by_its_seed_and_a_panic_of_any_thread_fails_the_run() {
    let mut bytes = vec![7; 100];
    let mut again = bytes.clone();
    Case::new(5).mutate(&mut bytes);
    Case::new(5).mutate(&mut again);
    assert_eq!(bytes, again);
    let mut seen = Vec::new();
    fuzz("seeds", 3, |case| seen.push(case.seed()));
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seen:?}");

    let run = |body: fn()| std::panic::catch_unwind(|| fuzz("panics", 1, |_| body())).is_err();
    assert!(run(|| panic!("here")));
    assert!(run(|| {
        let _ = std::thread::spawn(|| panic!("there")).join();
    }));
    assert!(!run(|| ()));

    // Driven by inputs, it runs a case for each of them, and the first that fails is told.
    let guided = Guided::start(plain);
    guided.run(&[7, 8, 9, 10]);
    guided.run(&[1, 2, 3]);
    assert_eq!(*SEEN.lock().unwrap(), [(7, vec![8, 9]), (1, vec![2, 3])]);
    let fails = std::panic::AssertUnwindSafe(|| guided.run(&[0]));
    assert!(std::panic::catch_unwind(fails).is_err());
}
