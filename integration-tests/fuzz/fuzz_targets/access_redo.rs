#![no_main]
#![doc = "The fuzzer of this name in common/access/tests/fuzz_redo.rs."]
towline_fuzz::target!("../../../common/access/tests/fuzz_redo.rs", redo_of_a_senseless_record_is_an_error_and_no_panic);
