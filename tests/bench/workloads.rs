//! What is measured: each workload on a server that was just started for it, with its figures in the order of the table.

mod broadcast;
mod churn;
mod cluster;
mod echo;
mod handshakes;
mod idle;
mod polling;
mod threads;

use crate::server::{Kind, Server, Spent, Window};
use crate::table::{Figure, Unit};
use crate::websocket::Clients;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use std::io;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Workload {
    /// 200 sockets, each with one message on its way.
    Echo,
    /// 200 sockets, 20,000 messages a second.
    PacedEcho,
    /// To 1,000 sockets, the next when all have the one before.
    Broadcast,
    /// To 1,000 sockets, 50 a second.
    PacedBroadcast,
    /// 100 clients, each with a request that waits for the answer to what another brings.
    Polling,
    /// WebSockets, until they are greeted in `/`; 64 at once.
    Handshakes,
    /// 10,000 sockets that say nothing, for one interval of the heartbeat.
    Idle,
    /// 10,000 sockets that come and go, three times.
    Churn,
    /// Echo on two threads and on one; only this server.
    Threads,
    /// To 2 x 500 sockets over Redis, 50 a second; only this server and Node's.
    ClusterBroadcast,
    /// A list of the 4 x 2,500 sockets of a cluster over Redis; only this server and Node's.
    FetchSockets,
}

/// What a client sends in a packet, and what comes back.
const MESSAGE: &str = r#"42["message","0123456789abcdef"]"#;
const MESSAGE_BACK: &[u8] = br#"42["message-back","0123456789abcdef"]"#;

impl Workload {
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo, 200 sockets",
            Self::PacedEcho => "echo, 20,000/s",
            Self::Broadcast => "broadcast to 1,000",
            Self::PacedBroadcast => "broadcast to 1,000, 50/s",
            Self::Polling => "long-polling",
            Self::Handshakes => "handshakes",
            Self::Idle => "10,000 idle",
            Self::Churn => "10,000 came and went",
            Self::Threads => "echo on two threads",
            Self::ClusterBroadcast => "broadcast to 2 x 500 over Redis, 50/s",
            Self::FetchSockets => "fetch_sockets of 4 x 2,500",
        }
    }

    pub fn run(self, kind: &Kind, length: Duration) -> io::Result<Vec<Figure>> {
        match self {
            Self::Echo => echo::saturating(kind, length),
            Self::PacedEcho => echo::paced(kind, length),
            Self::Broadcast => broadcast::run(kind, length, None),
            Self::PacedBroadcast => broadcast::run(kind, length, Some(Duration::from_millis(20))),
            Self::Polling => polling::run(kind, length),
            Self::Handshakes => handshakes::run(kind, length),
            Self::Idle => idle::run(kind),
            Self::Churn => churn::run(kind),
            Self::Threads => threads::run(kind, length),
            Self::ClusterBroadcast => broadcast::over_redis(kind, length),
            Self::FetchSockets => cluster::fetch_sockets(kind),
        }
    }

    /// What this server may take of what Node's does.
    pub fn goal(self, what: &str) -> Option<f64> {
        match (self, what) {
            (Self::ClusterBroadcast | Self::FetchSockets, "server CPU each") => Some(0.6),
            (Self::ClusterBroadcast | Self::FetchSockets, "p99") => Some(1.0),
            _ => None,
        }
    }
}

/// Runs a load for half of `length`, and then for all of it: what that took, and how long anything took in it.
fn after_a_warm_up(
    servers: &[Server],
    clients: &mut Clients,
    length: Duration,
    mut run: impl FnMut(&mut Clients, Duration, &mut Latencies) -> io::Result<()>,
) -> io::Result<(Spent, Latencies)> {
    let mut latencies = Latencies::new();
    run(clients, length / 2, &mut latencies)?;
    latencies.clear();
    let window = Window::begin(servers, clients.spun())?;
    run(clients, length, &mut latencies)?;
    Ok((window.end(clients.spun())?, latencies))
}

/// What so many of anything cost, and how busy this process was with them.
fn throughput(spent: &Spent, count: u64) -> Vec<Figure> {
    let each = |time: Duration| time.as_secs_f64() / count as f64;
    vec![
        Figure { what: "server CPU each", unit: Unit::Seconds, value: each(spent.server) },
        Figure { what: "rate", unit: Unit::PerSecond, value: count as f64 / spent.wall.as_secs_f64() },
        Figure { what: "generator busy", unit: Unit::Percent, value: 100.0 * spent.own.as_secs_f64() / spent.wall.as_secs_f64() },
    ]
}

/// How long anything took, by its frequency.
struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Self {
        Self(Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("bounds that fit"))
    }

    fn clear(&mut self) {
        self.0.reset();
    }

    fn record(&mut self, latency: Duration) {
        self.0.saturating_record(latency.as_nanos() as u64);
    }

    fn count(&self) -> u64 {
        self.0.len()
    }

    fn figures(&self) -> [Figure; 3] {
        [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)].map(|(what, quantile)| Figure {
            what,
            unit: Unit::Seconds,
            value: self.0.value_at_quantile(quantile) as f64 / 1e9,
        })
    }
}

fn expect(packet: &[u8], expected: &[u8]) -> io::Result<()> {
    if packet == expected { Ok(()) } else { Err(io::Error::other(String::from_utf8_lossy(packet))) }
}
