#![no_main]
#![doc = "The fuzzer of this name in common/wal/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/wal/tests/fuzz.rs", history_files_of_any_text_are_refused_or_consistent);
