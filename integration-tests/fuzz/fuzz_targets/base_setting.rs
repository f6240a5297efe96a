#![no_main]
#![doc = "The fuzzer of this name in common/base/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/base/tests/fuzz.rs", settings_take_any_text_or_say_why_not);
