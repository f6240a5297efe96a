#![no_main]
#![doc = "The fuzzer of this name in common/storage/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/storage/tests/fuzz.rs", a_map_page_of_any_bytes_has_bits_for_every_block);
