//! The target `cluster_response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stickyport_fuzz::run("cluster_response", data));
