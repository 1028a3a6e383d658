#![no_main]

use newcycle_fuzz as _;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_properties::credentials::check(bytes));
