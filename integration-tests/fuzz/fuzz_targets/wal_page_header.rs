#![no_main]
#![doc = "The fuzzer of this name in common/wal/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/wal/tests/fuzz.rs", page_headers_and_segment_names_of_any_bytes_are_refused_or_right);
