#![no_main]
#![doc = "The fuzzer of this name in common/sql/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/sql/tests/fuzz.rs", texts_of_shuffled_statements_are_answered);
