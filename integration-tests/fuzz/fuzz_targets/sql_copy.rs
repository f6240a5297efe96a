#![no_main]
#![doc = "The fuzzer of this name in common/sql/tests/fuzz.rs."]
towline_fuzz::target!("../../../common/sql/tests/fuzz.rs", copy_data_of_any_bytes_is_rows_or_an_error);
