//! One message to 1,000 sockets, its sender's included, of one server or of two in a cluster; what is counted are deliveries.

use super::{after_a_warm_up, cluster, expect, throughput};
use crate::server::{Kind, Server, Setup};
use crate::table::Figure;
use crate::websocket::{Clients, frame};
use std::io;
use std::slice::from_ref;
use std::time::{Duration, Instant};

const SOCKETS: usize = 1_000;

const BROADCAST: &str = r#"42["broadcast","0123456789abcdef"]"#;

/// One each `pace`, or when all have the one before.
pub fn run(kind: &Kind, length: Duration, pace: Option<Duration>) -> io::Result<Vec<Figure>> {
    let server = Server::start(kind, &Setup::default())?;
    measure(from_ref(&server), &mut Clients::open(from_ref(&server), SOCKETS)?, length, pace)
}

/// One each 20 ms, which half of them hear through Redis.
pub fn over_redis(kind: &Kind, length: Duration) -> io::Result<Vec<Figure>> {
    let Some(cluster) = cluster::start(kind, 2)? else { return Ok(Vec::new()) };
    let mut clients = Clients::open(&cluster.members, SOCKETS)?;
    cluster::settle(&mut clients, &cluster, SOCKETS)?;
    measure(&cluster.members, &mut clients, length, Some(Duration::from_millis(20)))
}

fn measure(servers: &[Server], clients: &mut Clients, length: Duration, pace: Option<Duration>) -> io::Result<Vec<Figure>> {
    let message = frame(BROADCAST);
    let mut sent: Vec<Instant> = Vec::new();
    // How many of them each has.
    let mut received = vec![0; SOCKETS];
    let mut deliveries = 0;
    let (spent, latencies) = after_a_warm_up(servers, clients, length, |clients, length, latencies| {
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
