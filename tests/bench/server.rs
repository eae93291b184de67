//! A server as a child process on a core of its own, and what the kernel tells of it.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::fmt::{self, Display, Formatter};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Which server.
#[derive(Clone)]
pub enum Kind {
    Floor,
    Ours,
    Socketioxide,
    Node,
    /// Another build of ours.
    Build {
        name: String,
        path: PathBuf,
    },
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "floor" => Ok(Self::Floor),
            "ours" => Ok(Self::Ours),
            "socketioxide" => Ok(Self::Socketioxide),
            "node" => Ok(Self::Node),
            _ => match text.split_once('=') {
                Some((name, path)) => Ok(Self::Build { name: name.to_owned(), path: path.into() }),
                None => Err("one of floor, ours, socketioxide, node and NAME=PATH".to_owned()),
            },
        }
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Floor => "floor",
            Self::Ours => "ours",
            Self::Socketioxide => "socketioxide",
            Self::Node => "node",
            Self::Build { name, .. } => name,
        })
    }
}

pub struct Server {
    child: Child,
    cpu: ClockId,
    pub address: SocketAddr,
}

impl Server {
    pub fn start(kind: &Kind) -> io::Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let beside = std::env::current_exe()?;
        let mut command = match kind {
            Kind::Floor => Command::new(beside.with_file_name("floor")),
            // `run` knows where Cargo put it.
            Kind::Ours => Command::new(std::env::var_os("CONFORMANCE").ok_or_else(|| io::Error::other("start tests/bench/run"))?),
            Kind::Build { path, .. } => Command::new(path),
            Kind::Socketioxide => Command::new(beside.with_file_name("peer")),
            Kind::Node => {
                let mut command = Command::new("node");
                command.arg(here.join("servers/node.mjs")).env("NODE_ENV", "production");
                command
            }
        };
        let [core, own] = two_cores()?;
        // A child begins where its parent is.
        move_self(core)?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        move_self(own)?;
        let mut child = child?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
        let address = line.trim_end().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| io::Error::other(format!("{kind} does not listen")))?;
        let cpu = clock_getcpuclockid(Pid::from_raw(child.id() as i32))?;
        Ok(Self { child, cpu, address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A length of time, and who was how busy in it.
pub struct Window<'a> {
    server: &'a Server,
    began: Instant,
    cpu: Duration,
    own: Duration,
}

impl<'a> Window<'a> {
    /// `spun` is what of our own time is not work.
    pub fn begin(server: &'a Server, spun: Duration) -> io::Result<Self> {
        Ok(Self { server, began: Instant::now(), cpu: time(server.cpu)?, own: own_time(spun)? })
    }

    pub fn end(self, spun: Duration) -> io::Result<Spent> {
        Ok(Spent { wall: self.began.elapsed(), server: time(self.server.cpu)? - self.cpu, own: own_time(spun)? - self.own })
    }
}

/// User and system time of all threads of the server and of this process.
pub struct Spent {
    pub wall: Duration,
    pub server: Duration,
    pub own: Duration,
}

fn own_time(spun: Duration) -> io::Result<Duration> {
    Ok(time(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.saturating_sub(spun))
}

fn time(clock: ClockId) -> io::Result<Duration> {
    Ok(clock_gettime(clock)?.into())
}

/// The first two cores that this process could use when it started: the server's and our own.
pub fn two_cores() -> io::Result<[usize; 2]> {
    static CORES: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let cores = CORES.get_or_init(|| (0..CpuSet::count()).filter(|core| set.is_set(*core) == Ok(true)).collect());
    match cores[..] {
        [server, own, ..] => Ok([server, own]),
        _ => Err(io::Error::other("the server and its load need a core each")),
    }
}

pub fn move_self(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
