#![no_main]
#![doc = "The fuzzer of this name in common/sql/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/sql/tests/fuzz.rs", parameters_of_any_bytes_are_values_or_errors);
