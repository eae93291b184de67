//! Messages that come back to their senders.

use super::{Latencies, MESSAGE, MESSAGE_BACK, after_a_warm_up, expect, throughput};
use crate::server::{Kind, Server, Setup, Spent};
use crate::table::Figure;
use crate::websocket::{Clients, frame};
use std::collections::VecDeque;
use std::io;
use std::slice::from_ref;
use std::time::{Duration, Instant};

const SOCKETS: usize = 200;

/// Time from one message to the next of any socket.
const PACE: Duration = Duration::from_micros(50);

pub fn saturating(kind: &Kind, length: Duration) -> io::Result<Vec<Figure>> {
    let (spent, latencies) = saturate(kind, &Setup::default(), length)?;
    Ok(throughput(&spent, latencies.count()).into_iter().chain(latencies.figures()).collect())
}

/// Each socket sends the next message when it has the one before.
pub fn saturate(kind: &Kind, setup: &Setup, length: Duration) -> io::Result<(Spent, Latencies)> {
    let server = Server::start(kind, setup)?;
    let mut clients = Clients::open(from_ref(&server), SOCKETS)?;
    let message = frame(MESSAGE);
    for index in 0..SOCKETS {
        clients.send(index, &message)?;
    }
    after_a_warm_up(from_ref(&server), &mut clients, length, |clients, length, latencies| {
        let end = Instant::now() + length;
        while Instant::now() < end {
            clients.turn(end, |_, client, line, packet| {
                expect(packet, MESSAGE_BACK)?;
                let now = Instant::now();
                latencies.record(now - client.sent);
                client.sent = now;
                line.send(&message)
            })?;
        }
        Ok(())
    })
}

/// The sockets take turns, whether or not the one whose turn it is has got its last message back.
pub fn paced(kind: &Kind, length: Duration) -> io::Result<Vec<Figure>> {
    let server = Server::start(kind, &Setup::default())?;
    let mut clients = Clients::open(from_ref(&server), SOCKETS)?;
    let message = frame(MESSAGE);
    let mut sent = vec![VecDeque::new(); SOCKETS];
    let mut turns = (0..SOCKETS).cycle();
    let (spent, latencies) = after_a_warm_up(from_ref(&server), &mut clients, length, |clients, length, latencies| {
        let mut due = Instant::now();
        let end = due + length;
        while due < end {
            while due <= Instant::now() {
                let index = turns.next().expect("endless");
                sent[index].push_back(Instant::now());
                clients.send(index, &message)?;
                due += PACE;
            }
            clients.turn(due, |index, _, _, packet| {
                expect(packet, MESSAGE_BACK)?;
                latencies.record(sent[index].pop_front().expect("asked for").elapsed());
                Ok(())
            })?;
        }
        Ok(())
    })?;
    Ok(throughput(&spent, latencies.count()).into_iter().chain(latencies.figures()).collect())
}
