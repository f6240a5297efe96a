#![no_main]
#![doc = "The fuzzer of this name in standby/tests/fuzz.rs."]
towline_fuzz::target!("../../../standby/tests/fuzz.rs", a_standby_that_breaks_the_protocol_is_refused_and_the_primary_goes_on);
