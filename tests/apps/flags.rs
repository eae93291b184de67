//! The flags that the example servers share.

use clap::Parser;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use stickyport::engine;

/// Times are milliseconds, sizes bytes, as the suites that drive these programs write them.
#[derive(Debug, Parser)]
pub struct Flags {
    /// Port on 127.0.0.1; 0 lets the system choose.
    #[arg(long, default_value_t = 0)]
    port: u16,
    #[arg(long, default_value_t = 25_000)]
    ping_interval: u64,
    #[arg(long, default_value_t = 20_000)]
    ping_timeout: u64,
    #[arg(long, default_value_t = 45_000)]
    connect_timeout: u64,
    #[arg(long, default_value_t = 1_000_000)]
    max_payload: usize,
}

impl Flags {
    /// Where to listen.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The engine's options, on `path`.
    pub fn engine(&self, path: &str) -> engine::Options {
        engine::Options {
            path: path.to_owned(),
            ping_interval: Duration::from_millis(self.ping_interval),
            ping_timeout: Duration::from_millis(self.ping_timeout),
            max_payload: self.max_payload,
            ..engine::Options::default()
        }
    }

    /// Time in which a client must join a namespace.
    #[allow(dead_code, reason = "an Engine.IO server has no namespaces")]
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout)
    }
}
