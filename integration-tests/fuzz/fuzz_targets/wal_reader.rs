#![no_main]
#![doc = "The fuzzer of this name in common/wal/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/wal/tests/fuzz.rs", a_damaged_log_is_read_to_an_end_and_judged);
