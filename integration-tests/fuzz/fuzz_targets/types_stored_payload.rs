#![no_main]
#![doc = "The fuzzer of this name in common/types/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/types/tests/fuzz.rs", stored_payloads_of_any_bytes_are_values_or_errors);
