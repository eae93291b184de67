//! What is left of sockets that have gone.

use super::idle::{SOCKETS, rest};
use crate::server::{Kind, Server, Setup};
use crate::table::{Figure, Unit};
use crate::websocket::Clients;
use std::io;
use std::slice::from_ref;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Time that a server has to let them go.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(kind: &Kind) -> io::Result<Vec<Figure>> {
    let server = Server::start(kind, &Setup::default())?;
    let descriptors = server.descriptors()?;
    let mut memory = Vec::new();
    for _ in 0..3 {
        let mut clients = Clients::open(from_ref(&server), SOCKETS)?;
        rest(&mut clients, Duration::from_secs(1))?;
        drop(clients);
        let patience = Instant::now() + PATIENCE;
        while server.descriptors()? > descriptors {
            if Instant::now() > patience {
                return Err(io::Error::other(format!("{kind} does not let its clients go")));
            }
            sleep(Duration::from_millis(100));
        }
        sleep(Duration::from_secs(1));
        memory.push(server.memory()?);
    }
    Ok(vec![
        Figure { what: "memory after once", unit: Unit::Bytes, value: memory[0] },
        Figure { what: "after three times, of once", unit: Unit::Times, value: memory[2] / memory[0] },
    ])
}
