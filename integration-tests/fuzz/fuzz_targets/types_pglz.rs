#![no_main]
#![doc = "The fuzzer of this name in common/types/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/types/tests/fuzz.rs", compressed_values_come_back_and_damaged_streams_are_refused);
