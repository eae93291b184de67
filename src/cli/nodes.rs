//! `stickyport nodes`: the instances of a cluster, as a table or for machines.

use super::{Exit, Settings, chain, complain, print};
use crate::cluster::{Fleet, FleetError, NodeInfo, NodeState};
use clap::Args;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What to print.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct Nodes {
    #[command(flatten)]
    settings: Settings,
    /// Print a list of objects for machines
    #[arg(long)]
    json: bool,
}

const EXIT_CODES: &str = "\
Exit codes:
   0  printed
  64  the command line or the configuration is wrong, or redis.url is not set
  75  Redis cannot be reached, or refuses";

impl Nodes {
    pub(super) fn run(self, before: Settings) -> Exit {
        let options = match before.then(self.settings).cluster() {
            Ok(options) => options,
            Err(exit) => return exit,
        };
        match super::wait_for(Fleet::of(&options)) {
            Err(exit) => exit,
            Ok(Err(error)) => {
                if let FleetError::Url(_) = error {
                    complain(&chain(&error));
                    return Exit::Configuration;
                }
                complain(&format!("Redis at {}: {}", options.address(), chain(&error)));
                Exit::Away
            }
            Ok(Ok(fleet)) => {
                if fleet.unreadable > 0 {
                    complain(&format!("entries that no instance has written were skipped: {}", fleet.unreadable));
                }
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                print(&if self.json { json(&fleet.nodes) } else { table(&fleet.nodes, now) })
            }
        }
    }
}

fn json(nodes: &[NodeInfo]) -> String {
    serde_json::to_string_pretty(nodes).expect("texts and numbers are JSON") + "\n"
}

const COLUMNS: [&str; 9] = ["NODE", "ADDRESS", "STATE", "SESSIONS", "CLIENTS", "VERSION", "BOOT", "UP", "SEEN"];

fn table(nodes: &[NodeInfo], now: Duration) -> String {
    let ago = |time: Duration| match time.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    };
    let row = |info: &NodeInfo| {
        let state = match info.state {
            _ if !info.is_alive() => "silent",
            NodeState::Ready => "ready",
            NodeState::Draining => "draining",
            NodeState::Conflict => "conflict",
        };
        let silent = Duration::from_millis(info.silent);
        let up = now.saturating_sub(Duration::from_millis(info.started)).saturating_sub(silent);
        let (sessions, clients) = (info.sessions.to_string(), info.clients.to_string());
        let (version, boot) = (info.version.clone(), info.boot.clone());
        [info.node.to_string(), info.address.clone(), state.to_owned(), sessions, clients, version, boot, ago(up), ago(silent)]
    };
    let rows: Vec<_> = std::iter::once(COLUMNS.map(str::to_owned)).chain(nodes.iter().map(row)).collect();
    let widths: Vec<_> = (0..COLUMNS.len()).map(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or_default()).collect();
    let line = |row: &[String; COLUMNS.len()]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_who_is_there_and_who_was() {
        let ready: NodeInfo = serde_json::from_str(
            r#"{"node":3,"address":"10.0.0.5:3134","boot":"a1","started":1000,"version":"0.1.0","state":"ready","sessions":1200,"clients":7,"silent":2900}"#,
        )
        .expect("as it is printed");
        let silent = NodeInfo { address: "10.0.0.6:3134".to_owned(), silent: 120_000, sessions: 0, ..ready.clone() };
        assert_eq!(
            table(&[ready, silent], Duration::from_secs(7_300)),
            "NODE  ADDRESS        STATE   SESSIONS  CLIENTS  VERSION  BOOT  UP  SEEN\n\
             3     10.0.0.5:3134  ready   1200      7        0.1.0    a1    2h  2s\n\
             3     10.0.0.6:3134  silent  0         7        0.1.0    a1    1h  2m\n"
        );
    }
}
