#![no_main]
#![doc = "The fuzzer of this name in common/access/tests/fuzz_pages.rs."]
towline_fuzz::target!("../../../common/access/tests/fuzz_pages.rs", a_damaged_index_gives_errors_or_answers);
