//! The target `cluster_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stickyport_fuzz::run("cluster_request", data));
