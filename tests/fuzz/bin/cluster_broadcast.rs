//! The target `cluster_broadcast`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stickyport_fuzz::run("cluster_broadcast", data));
