//! libFuzzer's way into `larder_fuzz::tracker`, which says what is checked.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    larder_fuzz::tracker::check(data);
});
