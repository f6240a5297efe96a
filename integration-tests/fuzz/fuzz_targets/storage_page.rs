#![no_main]
#![doc = "The fuzzer of this name in common/storage/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/storage/tests/fuzz.rs", a_page_of_any_bytes_is_read_and_changed_within_its_bounds);
