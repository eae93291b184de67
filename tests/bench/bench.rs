//! What this server costs beside its peers, and beside a floor that does nothing: workloads, round by round, server after server.
//!
//! It ends with 1 if this server misses a goal that it has beside Node's.
//!
//!     tests/bench/run                                     everything: 40 minutes
//!     tests/bench/run echo --rounds 3 --servers ours      seconds
//!     tests/bench/run echo --servers ours,before=/tmp/conformance-of-yesterday

mod lines;
mod polling;
mod server;
mod table;
mod websocket;
mod workloads;

use clap::{Parser, ValueEnum};
use server::Kind;
use std::error::Error;
use std::time::Duration;
use table::Table;
use workloads::Workload;

#[derive(Parser)]
struct Arguments {
    /// All of them if none is named.
    workloads: Vec<Workload>,
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// What is measured, in this order, and compared with the first; NAME=PATH is another build of the conformance example.
    #[arg(long, value_delimiter = ',', default_value = "floor,ours,socketioxide,node")]
    servers: Vec<Kind>,
    /// How long a workload that has no length of its own is measured, after a warm-up of half of that.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { workloads, rounds, servers, seconds } = Arguments::parse();
    let workloads = if workloads.is_empty() { Workload::value_variants() } else { &workloads };
    server::move_self_aside(1)?;
    let mut table = Table::new(&servers);
    let measured = measure(&mut table, workloads, rounds, &servers, Duration::from_secs_f64(seconds));
    // What there is of it, if something went wrong.
    println!("{table}");
    measured?;
    match &*table.missed() {
        [] => Ok(()),
        missed => Err(missed.join("; ").into()),
    }
}

fn measure(
    table: &mut Table,
    workloads: &[Workload],
    rounds: u32,
    servers: &[Kind],
    length: Duration,
) -> Result<(), Box<dyn Error>> {
    for round in 1..=rounds {
        for workload in workloads {
            for (column, kind) in servers.iter().enumerate() {
                eprintln!("round {round} of {rounds}: {workload:?}, {kind}");
                let figures = workload.run(kind, length);
                for figure in figures.map_err(|error| format!("{workload:?}, {kind}: {error}"))? {
                    table.add(column, *workload, figure);
                }
            }
        }
    }
    Ok(())
}
