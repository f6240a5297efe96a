#![no_main]
#![doc = "The fuzzer of this name in common/base/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/base/tests/fuzz.rs", a_configuration_file_of_any_bytes_is_read_or_refused);
