//! One message to 1,000 sockets, its sender's included; what is counted are deliveries.

use super::{after_a_warm_up, expect, throughput};
use crate::server::{Kind, Server, Setup};
use crate::table::Figure;
use crate::websocket::{Clients, frame};
use std::io;
use std::time::{Duration, Instant};

const SOCKETS: usize = 1_000;

const BROADCAST: &str = r#"42["broadcast","0123456789abcdef"]"#;

/// One each `pace`, or when all have the one before.
pub fn run(kind: &Kind, length: Duration, pace: Option<Duration>) -> io::Result<Vec<Figure>> {
    let server = Server::start(kind, &Setup::default())?;
    let mut clients = Clients::open(server.address, SOCKETS)?;
    let message = frame(BROADCAST);
    let mut sent: Vec<Instant> = Vec::new();
    // How many of them each has.
    let mut received = vec![0; SOCKETS];
    let mut deliveries = 0;
    let (spent, latencies) = after_a_warm_up(&server, &mut clients, length, |clients, length, latencies| {
        let mut due = Instant::now();
        let end = due + length;
        while Instant::now() < end {
            let is_due = if pace.is_some() { Instant::now() >= due } else { deliveries == sent.len() * SOCKETS };
            if is_due {
                sent.push(Instant::now());
                clients.send(0, &message)?;
            }
            due += pace.filter(|_| is_due).unwrap_or_default();
            let until = if pace.is_some() { due } else { end };
            clients.turn(until, |index, _, _, packet| {
                expect(packet, BROADCAST.as_bytes())?;
                latencies.record(sent[received[index]].elapsed());
                received[index] += 1;
                deliveries += 1;
                Ok(())
            })?;
        }
        Ok(())
    })?;
    Ok(throughput(&spent, latencies.count()).into_iter().chain(latencies.figures()).collect())
}
