//! Soak and floods: a server, clients that behave and clients that do not, each a process of its own, over loopback.
//!
//!     cargo build --profile quick --examples
//!     target/quick/examples/load soak --seconds 60
//!     target/quick/examples/load flood idle slow-bodies --seconds 5 --rounds 3
#![expect(clippy::print_stdout, reason = "a report is what this program is for")]

mod attacks;
mod chaos;
mod clients;
mod flood;
mod server;
mod soak;
mod wire;

use attacks::Attack;
use clap::{Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Rounds of everything that a client may do wrong; after each the server is back where it began.
    Soak {
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// What clients that behave notice of each attack, or of these.
    Flood {
        attacks: Vec<Attack>,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
        rounds: u64,
    },
    /// An attack as a process of its own, until its standard input ends; prints how often it struck.
    #[command(hide = true)]
    Attack {
        attack: Attack,
        #[arg(long)]
        server: SocketAddr,
    },
    /// What the soak's rounds are made of, as a process of its own; prints how many connections it took.
    #[command(hide = true)]
    Chaos {
        #[arg(long)]
        server: SocketAddr,
        #[arg(long)]
        seconds: u64,
        #[arg(long)]
        seed: u64,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<ExitCode> {
    let faults = match Arguments::parse().command {
        Command::Soak { seconds, rounds, seed } => soak::run(Duration::from_secs(seconds), rounds, seed).await?,
        Command::Flood { attacks, seconds, rounds } => {
            let attacks = if attacks.is_empty() { Attack::value_variants() } else { &attacks };
            flood::run(attacks, Duration::from_secs(seconds), rounds as usize).await?
        }
        Command::Attack { attack, server } => {
            println!("{}", attacks::run(attack, server).await?);
            return Ok(ExitCode::SUCCESS);
        }
        Command::Chaos { server, seconds, seed } => {
            println!("{}", chaos::run(server, Duration::from_secs(seconds), seed).await);
            return Ok(ExitCode::SUCCESS);
        }
    };
    for fault in &faults {
        println!("{fault}");
    }
    println!("{}", if faults.is_empty() { "ok" } else { "FAILED" });
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
