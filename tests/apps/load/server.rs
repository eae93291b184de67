//! The server as a child process: how it is started, and what it, and the kernel, tell of it.

use super::wire::Line;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Descriptors that each process may have.
const OPEN_FILES: u32 = 20_000;

pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts the example that echoes.
    pub fn start(place: &Place, arguments: &[&str]) -> io::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("conformance");
        let mut child = command(place, program).args(arguments).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
        let address = line.trim_end().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| io::Error::other("the server does not listen"))?;
        Ok(Self { child, address })
    }

    /// What `/metrics` says: the sample's name with its labels, and its value.
    pub async fn metrics(&self) -> io::Result<BTreeMap<String, f64>> {
        let mut line = Line::connect(self.address).await?;
        let page = line.ask("GET /metrics HTTP/1.1\r\nHost: load\r\n\r\n").await?;
        let samples = page.text().lines().filter(|line| !line.starts_with('#'));
        Ok(samples
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect())
    }

    pub fn descriptors(&self) -> io::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// Bytes of memory that are resident.
    pub fn memory(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kibibytes = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kibibytes.map(|kibibytes| kibibytes * 1024).ok_or_else(|| io::Error::other("no VmRSS"))
    }

    /// Time that it has spent on a core.
    pub fn cpu(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // utime and stime, counted behind the name, which may hold anything; in hundredths of a second.
        let ticks: u64 = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum();
        Ok(Duration::from_millis(ticks * 10))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a process runs.
#[derive(Default)]
pub struct Place {
    pub core: Option<usize>,
    /// Whether it goes before everybody else on that core.
    pub is_first: bool,
}

/// A program with a bounded number of descriptors.
pub fn command(place: &Place, program: PathBuf) -> Command {
    // Nice values count within a session only where the kernel groups tasks by session, so the session itself is made as nice.
    let first = "echo -20 >/proc/self/autogroup; exec nice -n -20 \"$@\"";
    let script = format!("ulimit -n {OPEN_FILES}; {}", if place.is_first { first } else { "exec \"$@\"" });
    let mut command = if place.is_first { Command::new("setsid") } else { Command::new("env") };
    command.args(["sh", "-c", &script, "sh"]);
    if let Some(core) = place.core {
        command.args(["taskset", "-c", &core.to_string()]);
    }
    command.arg(program).stdin(Stdio::null());
    command
}

/// Whether this user may put a process first.
pub fn may_be_first() -> bool {
    Command::new("chrt").args(["--fifo", "1", "true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Puts this process there, and not those that it starts; first means SCHED_FIFO, which is only for one that sleeps most of the time: Linux stops it
/// for 50 ms of a second in which it does not.
pub fn move_self(place: &Place) {
    let id = std::process::id().to_string();
    let run = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    assert!(place.core.is_none_or(|core| run("taskset", &["-cp", &core.to_string(), &id])), "taskset does not work");
    assert!(!place.is_first || run("chrt", &["--reset-on-fork", "--fifo", "-p", "1", &id]), "chrt does not work");
}

/// The first two cores that this process may use, if there are two.
pub fn two_cores() -> Option<[usize; 2]> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim();
    let mut cores = list.split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse().unwrap_or(0)..=last.parse().unwrap_or(0)
    });
    Some([cores.next()?, cores.next()?])
}
