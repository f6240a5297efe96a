#![no_main]
#![doc = "The fuzzer of this name in primary/tests/fuzz.rs."]
towline_fuzz::target!("../../../primary/tests/fuzz.rs", a_slot_file_of_any_bytes_is_a_slot_or_a_lost_one);
