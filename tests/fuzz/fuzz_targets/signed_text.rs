#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldlock_fuzz_bodies::signed_text(data));
