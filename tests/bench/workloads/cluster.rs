//! Servers that share a Redis: how long the list of all their sockets takes, which they ask each other for.

use super::{Latencies, throughput};
use crate::server::{Cluster, Kind, Window};
use crate::table::Figure;
use crate::websocket::{Clients, frame};
use std::io;
use std::time::{Duration, Instant};

const MEMBERS: usize = 4;
const SOCKETS: usize = MEMBERS * 2_500;

/// Lists that are asked for, of the members in turn, after a warm-up of a third of that.
const CALLS: usize = 60;

/// Time after which an answer is no longer expected.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn fetch_sockets(kind: &Kind) -> io::Result<Vec<Figure>> {
    let Some(cluster) = start(kind, MEMBERS)? else { return Ok(Vec::new()) };
    let mut clients = Clients::open(&cluster.members, SOCKETS)?;
    settle(&mut clients, &cluster, SOCKETS)?;
    let call = |clients: &mut Clients, number| {
        let began = Instant::now();
        let counted = count(clients, number % MEMBERS)?;
        if counted == SOCKETS { Ok(began.elapsed()) } else { Err(io::Error::other(format!("a list of {counted} sockets"))) }
    };
    for number in 0..CALLS / 3 {
        call(&mut clients, number)?;
    }
    let mut latencies = Latencies::new();
    let window = Window::begin(&cluster.members, clients.spun())?;
    for number in 0..CALLS {
        latencies.record(call(&mut clients, number)?);
    }
    let spent = window.end(clients.spun())?;
    // Of so few calls 99.9 % are all.
    let [p50, p99, _] = latencies.figures();
    Ok(throughput(&spent, latencies.count()).into_iter().chain([p50, p99]).collect())
}

/// `None` for who is in no cluster.
pub fn start(kind: &Kind, members: usize) -> io::Result<Option<Cluster>> {
    match kind {
        Kind::Floor | Kind::Socketioxide => Ok(None),
        Kind::Ours | Kind::Build { .. } | Kind::Node => Cluster::start(kind, members).map(Some),
    }
}

/// Waits until each member knows of all sockets: some subscribe only after they listen.
pub fn settle(clients: &mut Clients, cluster: &Cluster, sockets: usize) -> io::Result<()> {
    let patience = Instant::now() + PATIENCE;
    for member in 0..cluster.members.len() {
        while count(clients, member)? != sockets {
            if Instant::now() > patience {
                return Err(io::Error::other("they do not know each other"));
            }
        }
    }
    Ok(())
}

/// How many sockets there are, as the server of that client finds.
fn count(clients: &mut Clients, client: usize) -> io::Result<usize> {
    clients.send(client, &frame(r#"42["count"]"#))?;
    let patience = Instant::now() + PATIENCE;
    let mut counted = None;
    while counted.is_none() {
        if Instant::now() > patience {
            return Err(io::Error::other("no list of the sockets"));
        }
        clients.turn(patience, |_, _, _, packet| {
            let event = serde_json::from_slice::<(String, usize)>(&packet[2..]).map_err(io::Error::other)?;
            counted = Some(event.1);
            Ok(())
        })?;
    }
    Ok(counted.unwrap_or_default())
}
