//! What sockets cost that say nothing: memory of a process that has seen nothing else, and time for their heartbeats.

use super::expect;
use crate::server::{Kind, Server, Setup, Window};
use crate::table::{Figure, Unit};
use crate::websocket::Clients;
use std::io;
use std::slice::from_ref;
use std::time::{Duration, Instant};

pub const SOCKETS: usize = 10_000;

/// The default interval of the heartbeat: each socket has one in that time.
const INTERVAL: Duration = Duration::from_secs(25);

pub fn run(kind: &Kind) -> io::Result<Vec<Figure>> {
    let server = Server::start(kind, &Setup::default())?;
    let before = server.memory()?;
    let mut clients = Clients::open(from_ref(&server), SOCKETS)?;
    // What was begun for the last of them may come to an end.
    rest(&mut clients, Duration::from_secs(1))?;
    let memory = server.memory()? - before;
    let window = Window::begin(from_ref(&server), clients.spun())?;
    rest(&mut clients, INTERVAL)?;
    let spent = window.end(clients.spun())?;
    let share = |time: Duration| 100.0 * time.as_secs_f64() / spent.wall.as_secs_f64();
    Ok(vec![
        Figure { what: "memory each", unit: Unit::Bytes, value: memory / SOCKETS as f64 },
        Figure { what: "server CPU", unit: Unit::Percent, value: share(spent.server) },
        Figure { what: "generator busy", unit: Unit::Percent, value: share(spent.own) },
    ])
}

/// Answers heartbeats and expects nothing else.
pub fn rest(clients: &mut Clients, length: Duration) -> io::Result<()> {
    let end = Instant::now() + length;
    while Instant::now() < end {
        clients.turn(end, |_, _, _, packet| expect(packet, b""))?;
    }
    Ok(())
}
