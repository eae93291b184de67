//! The target `payload_v3`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stickyport_fuzz::run("payload_v3", data));
