#![no_main]
#![doc = "The fuzzer of this name in common/types/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/types/tests/fuzz.rs", rows_of_any_bytes_are_deformed_or_refused);
