#![no_main]
#![doc = "The fuzzer of this name in common/sql/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/sql/tests/fuzz.rs", nesting_without_end_is_refused_and_no_stack_is_exhausted);
