//! libFuzzer's way into `larder_fuzz::mse`, which says what is checked.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    larder_fuzz::mse::check(data);
});
