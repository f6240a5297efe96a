#![no_main]
#![doc = "The fuzzer of this name in common/wire/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/wire/tests/fuzz.rs", a_client_that_breaks_the_protocol_is_answered_or_sent_away);
