//! The target `cluster_session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stickyport_fuzz::run("cluster_session", data));
