#![no_main]
#![doc = "The fuzzer of this name in common/wal/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/wal/tests/fuzz.rs", records_of_any_bytes_are_decoded_or_refused);
