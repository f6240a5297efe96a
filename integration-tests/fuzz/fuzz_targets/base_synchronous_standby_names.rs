#![no_main]
#![doc = "The fuzzer of this name in common/base/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/base/tests/fuzz.rs", lists_of_standbys_are_parsed_or_refused);
