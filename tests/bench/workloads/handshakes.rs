//! Clients that connect, are greeted and go.

use super::{after_a_warm_up, throughput};
use crate::server::{Kind, Server, Setup};
use crate::table::Figure;
use crate::websocket::Clients;
use std::io;
use std::slice::from_ref;
use std::time::{Duration, Instant};

const AT_ONCE: usize = 64;

pub fn run(kind: &Kind, length: Duration) -> io::Result<Vec<Figure>> {
    let server = Server::start(kind, &Setup::default())?;
    let mut clients = Clients::new(from_ref(&server))?;
    for index in 0..AT_ONCE {
        clients.begin(index)?;
    }
    let (spent, latencies) = after_a_warm_up(from_ref(&server), &mut clients, length, |clients, length, latencies| {
        let end = Instant::now() + length;
        let mut greeted = Vec::new();
        while Instant::now() < end {
            clients.turn(end, |index, client, _, _| {
                latencies.record(client.sent.elapsed());
                greeted.push(index);
                Ok(())
            })?;
            for index in greeted.drain(..) {
                clients.begin(index)?;
            }
        }
        Ok(())
    })?;
    Ok(throughput(&spent, latencies.count()).into_iter().chain(latencies.figures()).collect())
}
