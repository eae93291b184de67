//! What is measured: each workload on a server of its own, freshly started, with its figures in the order of the table.

use crate::clients::{Clients, frame};
use crate::server::{Kind, Server, Spent, Window};
use crate::table::{Figure, Unit};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use std::io;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Workload {
    /// 200 sockets, each with one message on its way.
    Echo,
}

const MESSAGE: &str = r#"42["message","0123456789abcdef"]"#;
const MESSAGE_BACK: &[u8] = br#"42["message-back","0123456789abcdef"]"#;

impl Workload {
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo, 200 sockets",
        }
    }

    pub fn run(self, kind: &Kind, length: Duration) -> io::Result<Vec<Figure>> {
        match self {
            Self::Echo => echo(kind, length),
        }
    }
}

fn echo(kind: &Kind, length: Duration) -> io::Result<Vec<Figure>> {
    let server = Server::start(kind)?;
    let mut clients = Clients::open(server.address, 200)?;
    let message = frame(MESSAGE);
    for client in clients.iter_mut() {
        client.send(&message)?;
        client.sent = Instant::now();
    }
    let mut latencies = latencies();
    let mut run = |clients: &mut Clients, length| {
        let until = Instant::now() + length;
        latencies.reset();
        while Instant::now() < until {
            clients.turn(until, |_, client, packet| {
                expect(packet, MESSAGE_BACK)?;
                let now = Instant::now();
                latencies.saturating_record((now - client.sent).as_nanos() as u64);
                client.sent = now;
                client.send(&message)
            })?;
        }
        Ok::<_, io::Error>(())
    };
    run(&mut clients, length / 2)?;
    let window = Window::begin(&server, clients.spun)?;
    run(&mut clients, length)?;
    let spent = window.end(clients.spun)?;
    let mut figures = throughput(&spent, latencies.len());
    figures.extend(quantiles(&latencies));
    Ok(figures)
}

/// What a number of anything cost.
fn throughput(spent: &Spent, count: u64) -> Vec<Figure> {
    let each = |time: Duration| time.as_secs_f64() / count as f64;
    let rate = count as f64 / spent.wall.as_secs_f64();
    let busy = spent.own.as_secs_f64() / spent.wall.as_secs_f64();
    vec![
        Figure { what: "server CPU each", unit: Unit::Seconds, value: each(spent.server) },
        Figure { what: "rate", unit: Unit::PerSecond, value: rate },
        Figure { what: "generator CPU each", unit: Unit::Seconds, value: each(spent.own) },
        Figure { what: "generator busy", unit: Unit::Percent, value: 100.0 * busy },
    ]
}

fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("bounds that fit")
}

fn quantiles(latencies: &Histogram<u64>) -> Vec<Figure> {
    let quantile =
        |what, quantile| Figure { what, unit: Unit::Seconds, value: latencies.value_at_quantile(quantile) as f64 / 1e9 };
    vec![quantile("p50", 0.5), quantile("p99", 0.99), quantile("p99.9", 0.999)]
}

fn expect(packet: &[u8], expected: &[u8]) -> io::Result<()> {
    if packet == expected { Ok(()) } else { Err(io::Error::other(String::from_utf8_lossy(packet))) }
}
