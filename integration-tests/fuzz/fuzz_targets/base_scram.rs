#![no_main]
#![doc = "The fuzzer of this name in common/base/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/base/tests/fuzz.rs", scram_messages_of_any_text_are_refused);
