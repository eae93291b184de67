//! The soak: rounds of chaos round clients that must not notice, and after each round everything is as it was at the start.

use super::clients::{Fleet, Way};
use super::server::{Place, Server, command};
use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Short times, so that what only time ends comes to its end often: the paths are those of the defaults.
const SERVER: &[&str] = &[
    "--ping-interval=3000",
    "--ping-timeout=3000",
    "--connect-timeout=4000",
    r#"--limits={"handshakes_per_second_per_address":0,"header_timeout":"3s","body_timeout":"4s","keep_alive":"5s","outbox_bytes":"1 MiB"}"#,
];

/// Clients that are there all along.
const CROWD: &[(Way, usize)] = &[(Way::Polling, 10), (Way::WebSocket, 10), (Way::Upgrade, 10)];
const INTERVAL: Duration = Duration::from_millis(100);

/// Longer than the longest-lived thing: a session that joins no namespace for 4 s is closed, and waits 30 s for the poll that takes its last words.
const SETTLE: Duration = Duration::from_secs(45);

/// From so long a round on memory is judged.
const STEADY: Duration = Duration::from_secs(60);
/// What it may grow to after the third and the last round, of what it was after the first.
const GROWTH: f64 = 1.3;

/// What must be back at the start. `descriptors` is counted in `/proc`.
const GAUGES: [&str; 6] = [
    "stickyport_sessions",
    "stickyport_sockets",
    "stickyport_connections",
    "stickyport_tasks",
    "stickyport_inbound_bytes",
    "stickyport_outbound_bytes",
];

/// Runs the rounds and prints a line for each; what is returned are the faults.
pub async fn run(time: Duration, rounds: u32, seed: u64) -> io::Result<Vec<String>> {
    let server = Server::start(&Place::default(), SERVER)?;
    let fleet = Fleet::start(server.address, CROWD, INTERVAL).await;
    let start = settle(&server, None).await?;
    println!("start: {start:?}");
    let mut faults = Vec::new();
    let mut memory = Vec::new();
    println!(
        "{:>5} {:>11} {:>9} {:>9} {:>9} {:>8} {:>8} {:>11} {:>5} {:>8} {:>4} {:>9} {:>7}",
        "round",
        "connections",
        "sessions",
        "echoes",
        "limits",
        "refused",
        "sessions",
        "connections",
        "tasks",
        "sockets",
        "fds",
        "outbound",
        "RSS MiB"
    );
    let chaos_time = time / rounds;
    let mut before = server.metrics().await?;
    for round in 1..=rounds {
        let echoes = fleet.ledger().echoes.load(Relaxed);
        let leave = CancellationToken::new();
        for way in [Way::Polling, Way::WebSocket, Way::Upgrade] {
            fleet.visitor(server.address, way, 20, leave.clone());
        }
        let connections = chaos(&server, chaos_time, seed + u64::from(round)).await?;
        leave.cancel();
        let settled = settle(&server, Some(&start)).await?;
        let after = server.metrics().await?;
        let sum = |start: &str| -> f64 {
            after
                .iter()
                .filter(|(name, _)| name.starts_with(start))
                .map(|(name, value)| value - before.get(name).unwrap_or(&0.0))
                .sum()
        };
        println!(
            "{round:>5} {connections:>11} {:>9} {:>9} {:>9} {:>8} {:>8} {:>11} {:>5} {:>8} {:>4} {:>9} {:>7.1}",
            sum("stickyport_sessions_opened_total"),
            fleet.ledger().echoes.load(Relaxed) - echoes,
            sum("stickyport_limit_reached_total"),
            sum("stickyport_requests_refused_total"),
            settled["stickyport_sessions"],
            settled["stickyport_connections"],
            settled["stickyport_tasks"],
            settled["stickyport_sockets"],
            settled["descriptors"],
            settled["stickyport_outbound_bytes"],
            server.memory()? as f64 / 1048576.0,
        );
        if settled != start {
            faults.push(format!("round {round} left something behind: {settled:?} and not {start:?}"));
        }
        memory.push(server.memory()?);
        before = after;
    }
    println!("memory after the last round is {:.2} of that after the first", memory[memory.len() - 1] as f64 / memory[0] as f64);
    // In a shorter round not even the slowest sessions have come to their end, so that each round may take more than the one before.
    for round in [2, rounds as usize - 1].into_iter().filter(|_| chaos_time >= STEADY) {
        if let (Some(&first), Some(&then)) = (memory.first(), memory.get(round))
            && round > 0
            && then as f64 > GROWTH * first as f64
        {
            faults.push(format!("memory after round {} is {then} bytes, after the first {first}", round + 1));
        }
    }
    let ledger = fleet.leave().await;
    faults.extend(ledger.faults());
    Ok(faults)
}

/// Does harm from a process of its own.
async fn chaos(server: &Server, time: Duration, seed: u64) -> io::Result<u64> {
    let mut chaos = Command::from(command(&Place::default(), std::env::current_exe()?));
    chaos.args([
        "chaos",
        "--server",
        &server.address.to_string(),
        "--seconds",
        &time.as_secs().max(1).to_string(),
        "--seed",
        &seed.to_string(),
    ]);
    let output = chaos.stdout(Stdio::piped()).kill_on_drop(true).spawn()?.wait_with_output().await?;
    String::from_utf8_lossy(&output.stdout).trim().parse().map_err(io::Error::other)
}

/// Waits until everything is as it was at the `start`, or for as long as it may take; without a start, until nothing changes.
async fn settle(server: &Server, start: Option<&BTreeMap<&'static str, i64>>) -> io::Result<BTreeMap<&'static str, i64>> {
    let until = Instant::now() + SETTLE;
    let mut last = BTreeMap::new();
    loop {
        let metrics = server.metrics().await?;
        let mut now: BTreeMap<_, _> =
            GAUGES.iter().map(|&name| (name, metrics.get(name).map_or(-1, |value| *value as i64))).collect();
        now.insert("descriptors", server.descriptors()? as i64);
        if now == *start.unwrap_or(&last) || Instant::now() > until {
            return Ok(now);
        }
        last = now;
        sleep(Duration::from_millis(237)).await;
    }
}
