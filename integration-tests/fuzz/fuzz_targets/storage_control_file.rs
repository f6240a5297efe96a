#![no_main]
#![doc = "The fuzzer of this name in common/storage/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/storage/tests/fuzz.rs", a_control_file_of_any_bytes_is_refused_or_told);
