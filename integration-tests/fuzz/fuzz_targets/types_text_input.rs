#![no_main]
#![doc = "The fuzzer of this name in common/types/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/types/tests/fuzz.rs", text_of_any_kind_is_a_value_or_an_error);
