//! A server as a child process on a core of its own, and what the kernel tells of it; several in a cluster share that core.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::OnceLock;
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

/// How a server is started.
pub struct Setup {
    /// Whether its clients will poll; the floor is another then.
    pub is_polling: bool,
    /// Threads, and cores for them; the last of ours may be among these.
    pub threads: usize,
    /// Address of the Redis of the cluster that it joins, and its number there.
    pub member: Option<(String, usize)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { is_polling: false, threads: 1, member: None }
    }
}

impl Server {
    pub fn start(kind: &Kind, setup: &Setup) -> io::Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let beside = std::env::current_exe()?;
        let mut command = match kind {
            Kind::Floor => Command::new(beside.with_file_name(if setup.is_polling { "floor_polling" } else { "floor" })),
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
        if setup.threads > 1 {
            command.args(["--threads", &setup.threads.to_string()]);
        }
        if let Some((redis, number)) = &setup.member {
            command.args(["--redis", redis, "--node", &number.to_string()]);
        }
        // A child begins where its parent is.
        move_self(cores()?.get(..setup.threads).ok_or_else(|| io::Error::other("fewer cores than threads"))?)?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        move_self_aside(setup.threads)?;
        let mut child = child?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
        let address = line.trim_end().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| io::Error::other(format!("{kind} does not listen")))?;
        let cpu = clock_getcpuclockid(Pid::from_raw(child.id() as i32))?;
        Ok(Self { child, cpu, address })
    }

    /// Bytes that are resident.
    pub fn memory(&self) -> io::Result<f64> {
        // Counted on the spot, unlike those in `status`.
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let kibibytes =
            rollup.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kibibytes.map(|kibibytes| kibibytes * 1024.0).ok_or_else(|| io::Error::other("no Rss"))
    }

    pub fn descriptors(&self) -> io::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Servers that are one to their clients, and the Redis that makes them so, which is where the load is.
pub struct Cluster {
    pub members: Vec<Server>,
    redis: Child,
}

impl Cluster {
    pub fn start(kind: &Kind, count: usize) -> io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()]);
        let mut redis = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let said = BufReader::new(redis.stdout.take().expect("piped"));
        let mut cluster = Self { members: Vec::new(), redis };
        said.lines()
            .find(|line| line.as_ref().is_ok_and(|line| line.contains("Ready to accept connections")))
            .ok_or_else(|| io::Error::other("Redis does not listen"))??;
        for number in 0..count {
            let setup = Setup { member: Some((format!("redis://127.0.0.1:{port}"), number)), ..Setup::default() };
            cluster.members.push(Server::start(kind, &setup)?);
        }
        Ok(cluster)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.redis.kill();
        let _ = self.redis.wait();
    }
}

/// A length of time, and who was how busy in it.
pub struct Window<'a> {
    servers: &'a [Server],
    began: Instant,
    cpu: Duration,
    own: Duration,
}

impl<'a> Window<'a> {
    /// `spun` is what of our own time is not work.
    pub fn begin(servers: &'a [Server], spun: Duration) -> io::Result<Self> {
        Ok(Self { servers, began: Instant::now(), cpu: time_of(servers)?, own: own_time(spun)? })
    }

    pub fn end(self, spun: Duration) -> io::Result<Spent> {
        Ok(Spent {
            wall: self.began.elapsed(),
            server: time_of(self.servers)? - self.cpu,
            own: own_time(spun)?.saturating_sub(self.own),
        })
    }
}

/// User and system time of all threads of the servers and of this process.
pub struct Spent {
    pub wall: Duration,
    pub server: Duration,
    pub own: Duration,
}

fn time_of(servers: &[Server]) -> io::Result<Duration> {
    servers.iter().map(|server| time(server.cpu)).sum()
}

fn own_time(spun: Duration) -> io::Result<Duration> {
    Ok(time(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.saturating_sub(spun))
}

fn time(clock: ClockId) -> io::Result<Duration> {
    Ok(clock_gettime(clock)?.into())
}

/// Moves this process to a core that a server of so many threads does not use, or shares with its last thread for want of another.
pub fn move_self_aside(threads: usize) -> io::Result<()> {
    let cores = cores()?;
    let own = cores.get(threads).or(cores.last().filter(|_| threads > 1));
    move_self(&[*own.ok_or_else(|| io::Error::other("the server and its load need a core each"))?])
}

fn move_self(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// The cores that this process could use when it started.
fn cores() -> io::Result<&'static [usize]> {
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok(CORES.get_or_init(|| (0..CpuSet::count()).filter(|core| set.is_set(*core) == Ok(true)).collect()))
}
