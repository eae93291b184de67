//! Messages that come back over long-polling; what is counted are requests, two for each message but for heartbeats.

use super::{Latencies, MESSAGE, MESSAGE_BACK, throughput};
use crate::polling::Pollers;
use crate::server::{Kind, Server, Setup, Window};
use crate::table::Figure;
use std::io;
use std::slice::from_ref;
use std::time::{Duration, Instant};

const CLIENTS: usize = 100;

pub fn run(kind: &Kind, length: Duration) -> io::Result<Vec<Figure>> {
    let server = Server::start(kind, &Setup { is_polling: true, ..Setup::default() })?;
    let mut pollers = Pollers::open(server.address, CLIENTS, MESSAGE)?;
    pollers.begin()?;
    let mut latencies = Latencies::new();
    let mut run = |pollers: &mut Pollers, length| {
        latencies.clear();
        let mut requests = 0;
        let end = Instant::now() + length;
        while Instant::now() < end {
            requests += pollers.turn(end, MESSAGE_BACK, |latency| latencies.record(latency))?;
        }
        Ok::<_, io::Error>(requests)
    };
    run(&mut pollers, length / 2)?;
    let window = Window::begin(from_ref(&server), pollers.spun())?;
    let requests = run(&mut pollers, length)?;
    let spent = window.end(pollers.spun())?;
    Ok(throughput(&spent, requests).into_iter().chain(latencies.figures()).collect())
}
