//! [`target!`]: a libFuzzer target from a fuzzer of a crate's tests. The fuzzers stay where they are and what they are: functions that cargo's
//! own test runner calls with random seeds. Here the same functions get inputs that are chosen by what they reach.

/// The whole of a target: the file with the fuzzer, and the fuzzer's name.
#[macro_export]
macro_rules! target {
    ($file:literal, $fuzzer:ident) => {
        #[path = $file]
        #[allow(dead_code, unused_imports)]
        mod fuzzer;

        static FUZZER: std::sync::OnceLock<towline_base::testing::Guided> = std::sync::OnceLock::new();

        libfuzzer_sys::fuzz_target!(|input: &[u8]| {
            FUZZER
                .get_or_init(|| towline_base::testing::Guided::start(fuzzer::$fuzzer))
                .run(input);
        });
    };
}
