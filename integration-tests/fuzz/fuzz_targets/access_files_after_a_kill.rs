#![no_main]
#![doc = "The fuzzer of this name in common/access/tests/fuzz_files.rs."]
towline_fuzz::target!("../../../common/access/tests/fuzz_files.rs", a_damaged_file_of_a_node_that_was_killed_loses_nothing_in_silence);
