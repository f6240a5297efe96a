#![no_main]
#![doc = "The fuzzer of this name in common/wal/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/wal/tests/fuzz.rs", a_damaged_log_is_dumped_as_far_as_it_goes);
