//! The command line: what it says, what it prints, and the exit codes that others may count on.

mod emit;
mod nodes;

use crate::check::{self, Inputs};
use crate::cluster::{self, Survey};
use crate::config::{self, Config, Flag, Loaded, Sources};
use crate::http::listen::ListenError;
use clap::{Args, Parser, Subcommand};
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How the process ends, in the codes of `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked; `check` found nothing.
    Done = 0,
    /// `check` found warnings.
    Warnings = 1,
    /// `check` found errors.
    Errors = 2,
    /// The command line or the configuration is wrong; nothing was bound. Another start changes nothing.
    Configuration = 64,
    /// A port or a socket is taken by somebody else.
    Taken = 69,
    /// The operating system refused something else.
    System = 71,
    /// Redis cannot be reached, or refuses; another time it may not.
    Away = 75,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<&ListenError> for Exit {
    fn from(error: &ListenError) -> Self {
        use ListenError::{Answered, Inherit, NoSocket, NotListening, Refused, Socket, Taken, UnknownName};
        match error {
            UnknownName(_) | NotListening(_) | Inherit(_) => Self::Configuration,
            Taken { .. } | Answered(_) | NoSocket(_) => Self::Taken,
            Refused { .. } | Socket { .. } => Self::System,
        }
    }
}

const EXIT_CODES: &str = "\
Exit codes:
   0  stopped when asked to
  64  the command line or the configuration is wrong; no port was bound
  69  a port or the unix socket is taken
  71  the operating system refuses something else
 130  asked twice to stop with Ctrl-C (143 with SIGTERM): left at once

Signals:
  SIGTERM, Ctrl-C  stop: accept nothing more, close what is open, exit
  SIGUSR1          drain: take no new clients, let go of those that are here, wait to be stopped
  SIGHUP           reload: read the configuration again, take log level, limits and origins of it, name the rest";

/// A realtime server for Socket.IO and WebSocket clients that keeps every client on its process.
#[derive(Debug, Parser)]
#[command(name = "stickyport", version, about, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told to stop; what happens without a command, too
    Serve(Settings),
    /// Print the configuration that `serve` would run with, as a file: every setting and its unit, defaults behind a #
    PrintConfig(Settings),
    /// Read and check the configuration, bind nothing, exit with 0 or 64
    CheckConfig(Settings),
    /// Read what is set for the program, nginx, systemd, the kernel and a load balancer, and say what does not fit
    Check(Check),
    /// Send an event to the clients of a cluster (redis.url); no server is started for it
    Emit(emit::Emit),
    /// Print the instances of a cluster (redis.url): number, address, state and load of each
    Nodes(nodes::Nodes),
}

#[derive(Debug, Default, Args)]
struct Settings {
    /// Configuration file in TOML, which must exist; none is read without this
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which process of this host this is: 0, 1, 2 …; its own port is ws.base_port (3131) + N
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    instance: Option<String>,
    /// Number that no other process of the whole fleet has; the instance if not given
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    node: Option<String>,
    /// Any setting, as in --set engine.ping_interval=20s; may be repeated, and the last one wins
    #[arg(long, value_name = "TABLE.KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

/// What is not given is not judged.
#[derive(Debug, Args)]
#[command(after_help = CHECK_EXIT_CODES)]
struct Check {
    #[command(flatten)]
    settings: Settings,
    /// A proxy's nginx: its main file, or what `nginx -T` prints, in a file or from standard input (-); once for each proxy of the fleet
    #[arg(long, value_name = "FILE")]
    nginx: Vec<PathBuf>,
    /// The same of a proxy as it runs before the change, to see whether clients would be placed elsewhere
    #[arg(long, value_name = "FILE")]
    nginx_before: Option<PathBuf>,
    /// A unit file, or a folder of them; drop-ins beside it are read, too
    #[arg(long, value_name = "PATH")]
    unit: Vec<PathBuf>,
    /// The /proc of a host, for what its kernel allows
    #[arg(long, value_name = "FOLDER")]
    proc: Option<PathBuf>,
    /// The load balancer in front of nginx, in TOML: kind, idle_timeout, deregistration_delay, client_address
    #[arg(long, value_name = "FILE")]
    balancer: Option<PathBuf>,
    /// One value of it, as in --balancer-set kind=alb
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    balancer_set: Vec<(String, String)>,
    /// Clients that are planned for, of the whole fleet; without it capacity is left out
    #[arg(long, value_name = "N", default_value_t = 0)]
    clients: u64,
    /// Do not ask the Redis of redis.url what it is like; where the way to it is not the instances'
    #[arg(long)]
    offline: bool,
    /// Print an object for machines
    #[arg(long)]
    json: bool,
    /// Print what must hold, a line for each rule, and read nothing
    #[arg(long)]
    rules: bool,
}

const CHECK_EXIT_CODES: &str = "\
Exit codes:
   0  nothing found, but for notes of what could not be judged
   1  warnings
   2  errors, of which clients will notice something
  64  the command line is wrong, or a file that it names cannot be read";

impl Check {
    fn run(self, before: Settings) -> Exit {
        if self.rules {
            return print(&check::table());
        }
        let json = self.json;
        match self.inputs(before).and_then(|inputs| check::run(inputs).map_err(|error| error.to_string())) {
            Err(what) => {
                complain(&what);
                Exit::Configuration
            }
            Ok(report) => match print(&if json { report.json() } else { report.text() }) {
                Exit::Done if report.errors > 0 => Exit::Errors,
                Exit::Done if report.warnings > 0 => Exit::Warnings,
                exit => exit,
            },
        }
    }

    fn inputs(self, before: Settings) -> Result<Inputs, String> {
        let settings = before.then(self.settings);
        let flags = self.balancer_set.into_iter();
        let flags = flags.map(|(key, text)| Flag { place: format!("--balancer-set {key}"), key, text }).collect();
        let read = |path: PathBuf| match read_or_stdin(&path) {
            Ok(text) if text.trim().is_empty() => {
                let what = if path == Path::new("-") {
                    "standard input was empty".to_owned()
                } else {
                    format!("{}: it is empty", path.display())
                };
                Err(format!("{what}: `nginx -T` prints nothing where nginx refuses its files; `nginx -t` says why"))
            }
            Ok(text) => Ok((path, text)),
            Err(error) => Err(format!("{}: {error}", path.display())),
        };
        let (config_file, config) = (settings.config.clone(), settings.load());
        let cluster = config.as_ref().ok().map(|loaded| &loaded.config.redis);
        let redis = cluster.filter(|options| !options.url.is_empty() && !self.offline);
        let redis =
            redis.map(|options| wait_for(Survey::of(options)).map_err(|_| "Redis was not asked".to_owned())).transpose()?;
        Ok(Inputs {
            config_file,
            config,
            redis,
            nginx: self.nginx.into_iter().map(read).collect::<Result<_, _>>()?,
            nginx_before: self.nginx_before.map(read).transpose()?,
            units: self.unit,
            proc: self.proc,
            balancer_place: self.balancer.clone().unwrap_or_else(|| PathBuf::from("--balancer-set")),
            balancer: config::table(&Sources { file: self.balancer, flags, ..Sources::default() })
                .map_err(|error| error.to_string())?,
            clients: self.clients,
        })
    }
}

fn read_or_stdin(path: &Path) -> io::Result<String> {
    if path == Path::new("-") { io::read_to_string(io::stdin()) } else { fs::read_to_string(path) }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected table.key=value")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

impl Settings {
    /// Those before the command and those after it, which win.
    fn then(mut self, after: Self) -> Self {
        self.config = after.config.or(self.config);
        self.instance = after.instance.or(self.instance);
        self.node = after.node.or(self.node);
        self.set.extend(after.set);
        self
    }

    fn load(self) -> Result<Loaded, config::ConfigError> {
        let flag = |place: String, key: &str, text| Flag { place, key: key.to_owned(), text };
        let set = self.set.into_iter().map(|(key, text)| flag(format!("--set {key}"), &key, text));
        let named = [("instance", self.instance), ("node", self.node)];
        let named = named.into_iter().filter_map(|(key, text)| Some(flag(format!("--{key}"), key, text?)));
        Config::load(Sources { file: self.config, environment: std::env::vars_os().collect(), flags: set.chain(named).collect() })
    }

    /// The settings of the cluster for a command that speaks to it; what is wrong has been said.
    fn cluster(self) -> Result<cluster::Options, Exit> {
        let loaded = self.load().map_err(|error| {
            error.problems.iter().for_each(|problem| complain(&problem.to_string()));
            Exit::Configuration
        })?;
        if loaded.config.redis.url.is_empty() {
            complain("redis.url is not set, and without it there is no cluster");
            return Err(Exit::Configuration);
        }
        Ok(loaded.config.redis)
    }
}

/// Does what has to wait, for a command that is no server.
fn wait_for<T>(work: impl Future<Output = T>) -> Result<T, Exit> {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => Ok(runtime.block_on(work)),
        Err(error) => {
            complain(&format!("cannot start the runtime: {error}"));
            Err(Exit::System)
        }
    }
}

/// Does what the command line asks for, except for serving: for that it hands back the configuration.
///
/// # Errors
/// The process is to end with this code, now; what there was to say has been printed.
pub fn start(arguments: impl IntoIterator<Item = OsString>) -> Result<Loaded, Exit> {
    let cli = Cli::try_parse_from(arguments).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { Exit::Configuration } else { Exit::Done }
    })?;
    let load = |settings: Settings| {
        settings.load().map_err(|error| {
            for problem in error.problems {
                complain(&problem.to_string());
            }
            Exit::Configuration
        })
    };
    match cli.command {
        None => load(cli.settings),
        Some(Command::Serve(settings)) => load(cli.settings.then(settings)),
        Some(Command::Emit(emit)) => Err(emit.run(cli.settings)),
        Some(Command::Nodes(nodes)) => Err(nodes.run(cli.settings)),
        Some(Command::Check(check)) => Err(check.run(cli.settings)),
        Some(Command::PrintConfig(settings)) => Err(show(&load(cli.settings.then(settings))?, Config::to_toml)),
        Some(Command::CheckConfig(settings)) => Err(show(&load(cli.settings.then(settings))?, summary)),
    }
}

/// What to say of a variable with our prefix that names no setting.
pub fn unknown_variable(name: &str) -> String {
    format!("the environment variable {name} names no setting and is ignored")
}

/// Prints a line to standard output; that nobody reads it is no reason to stop.
pub fn announce(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// An error and its causes on one line; what a cause of somebody else's has said already is not said again.
pub fn chain(error: &dyn Error) -> String {
    let mut said = error.to_string();
    for cause in std::iter::successors(error.source(), |&error| error.source()).map(ToString::to_string) {
        if !said.ends_with(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

fn show(loaded: &Loaded, text: impl Fn(&Config) -> String) -> Exit {
    for name in &loaded.unknown_variables {
        complain(&unknown_variable(name));
    }
    print(&text(&loaded.config))
}

fn summary(config: &Config) -> String {
    let Config { instance, http, .. } = config;
    format!(
        "The configuration is right: instance {instance}, node {}, shared port {}, own port {}.\n",
        config.node(),
        http.listen,
        config.own_address()
    )
}

#[expect(clippy::print_stderr, reason = "logging is not up before the configuration is read")]
fn complain(what: &str) {
    eprintln!("stickyport: {what}");
}

/// Prints to standard output; somebody who reads only the first lines is no error.
fn print(text: &str) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("cannot print: {error}"));
            Exit::System
        }
        _ => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Says(&'static str, #[source] Option<Box<Says>>);
        let refused = || Some(Box::new(Says("connection refused", None)));
        assert_eq!(chain(&Says("it is away", refused())), "it is away: connection refused");
        let repeats = Says("cannot connect: connection refused", refused());
        assert_eq!(chain(&Says("it is away", Some(Box::new(repeats)))), "it is away: cannot connect: connection refused");
    }

    #[test]
    fn settings_may_stand_before_and_after_the_command() {
        let cli =
            Cli::try_parse_from(["stickyport", "--set", "a=1", "--instance", "1", "serve", "--set", "b=x=y", "--instance", "2"]);
        let cli = cli.expect("parsed");
        let Some(Command::Serve(after)) = cli.command else { panic!("not serve") };
        let settings = cli.settings.then(after);
        assert_eq!(settings.instance.as_deref(), Some("2"));
        assert_eq!(settings.set, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x=y".to_owned())]);
    }

    #[test]
    fn no_command_means_serve() {
        let loaded = start(["stickyport", "--instance", "3", "--node", "7"].map(OsString::from)).expect("serve");
        assert_eq!((loaded.config.instance, loaded.config.node().to_string()), (3, "7".to_owned()));
    }

    #[test]
    fn what_is_not_understood_is_a_wrong_configuration() {
        for arguments in
            [&["--instence", "1"][..], &["fly"], &["--set", "engine"], &["--instance", "-1"], &["--config"], &["--set", "a.b=1"]]
        {
            let arguments = ["stickyport"].iter().chain(arguments).map(OsString::from);
            assert_eq!(start(arguments).err(), Some(Exit::Configuration));
        }
        assert_eq!(start(["stickyport", "--help"].map(OsString::from)).err(), Some(Exit::Done));
    }
}
