//! The driver of the fuzzers, in a process of its own: a panic of any thread fails whatever run is under way, and other tests panic on
//! purpose. So this is one test too.

use towline_base::testing::{Case, fuzz};

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
}
