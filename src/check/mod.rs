//! `stickyport check`: reads what an operator has set for the program, nginx, systemd, the kernel and a load balancer, and says what does not fit.
//!
//! `nginx` and `systemd` read files and keep where everything stands, `host` reads `/proc`, and `rules` is the table of what must hold. What the Redis of
//! a cluster is like has been asked before. Nothing is bound, started or changed.

pub mod balancer;
mod host;
mod nginx;
pub mod report;
mod rules;
mod systemd;

pub use balancer::Balancer;
pub use report::{Finding, Report, Severity};
pub use rules::table;

use crate::cluster::{Survey, SurveyError};
use crate::config::{Config, ConfigError, Loaded, Problem};
use host::Host;
use nginx::{Directive, Http, Site, Tree, Upstream};
use report::Place;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use systemd::Unit;

/// What there is to read; what is not given is not judged.
#[derive(Debug)]
pub struct Inputs {
    /// The program's own settings, or what is wrong with them.
    pub config: Result<Loaded, ConfigError>,
    /// The program's own configuration file.
    pub config_file: Option<PathBuf>,
    /// For each proxy its main file or all of them as `nginx -T` prints them: a name, and the text.
    pub nginx: Vec<(PathBuf, String)>,
    /// The same of a proxy as it runs now, before the change that the others are.
    pub nginx_before: Option<(PathBuf, String)>,
    /// Unit files, and folders of them.
    pub units: Vec<PathBuf>,
    /// A host's `/proc`.
    pub proc: Option<PathBuf>,
    /// The load balancer in front of nginx.
    pub balancer: Balancer,
    /// Where that was written down.
    pub balancer_place: PathBuf,
    /// Clients that are planned for, of the whole fleet; 0 leaves capacity out.
    pub clients: u64,
    /// What is known of the cluster's Redis, or why nothing is.
    pub redis: Option<Result<Survey, SurveyError>>,
}

/// Judges all of it.
///
/// # Errors
/// A unit file or `/proc` cannot be read.
pub fn run(inputs: Inputs) -> io::Result<Report> {
    let loaded = match inputs.config {
        Ok(loaded) => loaded,
        Err(error) => {
            return Ok(Report::of(wrong_settings(error), vec!["settings".to_owned()], vec!["everything else".to_owned()]));
        }
    };
    let mut findings = Vec::new();
    let mut read = |(name, text): &(PathBuf, String)| {
        let tree = Tree::of(name, text);
        tree.map_err(|error| findings.push(unreadable("nginx", error.place, error.what))).ok()
    };
    let trees: Vec<_> = inputs.nginx.iter().filter_map(&mut read).collect();
    let before = inputs.nginx_before.as_ref().and_then(&mut read);
    let units = systemd::read(&inputs.units)?.unwrap_or_else(|error| {
        findings.push(unreadable("systemd", error.place, error.what));
        Vec::new()
    });
    let path = engine_path(&loaded.config);
    let setup = Setup {
        config_text: inputs.config_file.as_deref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default(),
        config_file: inputs.config_file.unwrap_or_default(),
        proxies: trees.iter().map(|tree| Http::of(tree, &path)).collect(),
        before: before.as_ref().map(|tree| Http::of(tree, &path)),
        units,
        host: inputs.proc.as_deref().map(Host::read).transpose()?,
        balancer: inputs.balancer,
        balancer_place: Place::whole(inputs.balancer_place),
        clients: inputs.clients,
        redis: inputs.redis,
        loaded,
    };
    findings.extend(rules::judge(&setup));
    let (read, not_judged) = extent(&setup);
    Ok(Report::of(findings, read, not_judged))
}

/// What there was to judge, and what was not given; the cluster's Redis only where there is one.
fn extent(setup: &Setup<'_>) -> (Vec<String>, Vec<String>) {
    let (proxies, units) = (setup.proxies.len(), setup.units.len());
    let parts = [
        (true, "settings".to_owned(), ""),
        (proxies > 0, format!("{proxies} {}", if proxies == 1 { "proxy" } else { "proxies" }), "nginx (--nginx)"),
        (units > 0, format!("{units} {}", if units == 1 { "unit" } else { "units" }), "units (--unit)"),
        (setup.host.is_some(), "a kernel".to_owned(), "a kernel (--proc)"),
        (setup.balancer.kind != balancer::Kind::None, "a balancer".to_owned(), "a balancer (--balancer)"),
        (setup.clients > 0, format!("a plan for {} clients", setup.clients), "capacity (--clients)"),
        (setup.redis.is_some(), "Redis".to_owned(), "Redis (--offline)"),
    ];
    let is_alone = setup.config().redis.url.is_empty();
    let parts = parts.into_iter().filter(|(_, _, without)| !(is_alone && without.starts_with("Redis")));
    let (there, not): (Vec<_>, Vec<_>) = parts.partition(|(is_there, ..)| *is_there);
    (there.into_iter().map(|(_, what, _)| what).collect(), not.into_iter().map(|(.., without)| without.to_owned()).collect())
}

fn wrong_settings(error: ConfigError) -> Vec<Finding> {
    let finding = |problem: Problem| {
        // A file is named together with the key that is meant in it.
        let (file, key) = problem.place.split_once(": ").unwrap_or((&problem.place, ""));
        Finding {
            rule: "settings",
            severity: Severity::Error,
            file: file.to_owned(),
            line: 0,
            value: if key.is_empty() { problem.what } else { format!("{key}: {}", problem.what) },
            effect: "the program does not start; nothing else was judged".to_owned(),
            mend: "`stickyport print-config` shows every setting with its unit and its default".to_owned(),
        }
    };
    error.problems.into_iter().map(finding).collect()
}

fn unreadable(who: &str, place: Place, what: String) -> Finding {
    Finding {
        rule: "syntax",
        severity: Severity::Error,
        file: place.file.display().to_string(),
        line: place.line,
        value: what,
        effect: format!("{who} refuses the file or ignores the line, and goes on as it was; nothing else in it was judged"),
        mend: "correct the line".to_owned(),
    }
}

/// What requests of Engine.IO begin with.
fn engine_path(config: &Config) -> String {
    let path = &config.engine.path;
    if path.ends_with('/') || !config.engine.add_trailing_slash { path.clone() } else { format!("{path}/") }
}

/// Everything that was read, as the rules see it.
struct Setup<'a> {
    loaded: Loaded,
    config_file: PathBuf,
    config_text: String,
    proxies: Vec<Http<'a>>,
    before: Option<Http<'a>>,
    units: Vec<Unit>,
    host: Option<Host>,
    balancer: Balancer,
    balancer_place: Place,
    clients: u64,
    redis: Option<Result<Survey, SurveyError>>,
}

impl<'a> Setup<'a> {
    fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// The longest silence that the protocol allows.
    fn heartbeat(&self) -> Duration {
        self.config().engine.ping_interval + self.config().engine.ping_timeout
    }

    /// Where a setting of the program was written down: its line, its variable, its flag, or nowhere.
    fn setting(&self, key: &str) -> Place {
        let place = self.loaded.place(key);
        if place.is_empty() {
            return Place::whole(format!("the default of {key}"));
        }
        let is_file = Path::new(&place) == self.config_file;
        let line = if is_file { line_of(&self.config_text, key) } else { 0 };
        Place { line, ..Place::whole(place) }
    }

    /// The sites that lead to instances, each with its proxy.
    fn sites(&self) -> Vec<Ours<'_, 'a>> {
        self.proxies.iter().flat_map(|http| self.sites_of(http)).collect()
    }

    fn sites_of<'s>(&self, http: &'s Http<'a>) -> Vec<Ours<'s, 'a>> {
        let ours = http.sites.iter().map(|site| Ours { http, site });
        ours.filter(|ours| {
            ours.targets().iter().any(|target| ours.addresses(target).iter().any(|(_, address)| self.is_own(address)))
        })
        .collect()
    }

    /// Whether an address is an instance's own port or socket.
    fn is_own(&self, address: &str) -> bool {
        port(address).is_none_or(|port| (0..MOST_INSTANCES).any(|instance| self.own_port(instance) == Some(port)))
    }

    /// The own port of an instance.
    fn own_port(&self, instance: u16) -> Option<u16> {
        self.config().ws.base_port.checked_add(instance)
    }

    /// The units that run an instance.
    fn services(&self) -> impl Iterator<Item = &Unit> {
        self.units
            .iter()
            .filter(|unit| unit.is("service") && unit.all("Service", "ExecStart").iter().any(|entry| is_ours(&entry.value)))
    }

    /// Clients that each instance holds while one of them is down, and how many share them.
    fn share(&self) -> (u64, u64) {
        let first = self.sites().into_iter().next();
        let live = first.and_then(|ours| Some(ours.pool()?.live().len() as u64)).unwrap_or(1);
        let sharing = live.saturating_sub(1).max(1);
        (self.clients.div_ceil(sharing), sharing)
    }
}

/// Instances of one host.
const MOST_INSTANCES: u16 = 32;

/// Whether a command is this program.
fn is_ours(command: &str) -> bool {
    let program = command.trim_start_matches(['-', '@', '+', '!', ':']).split_whitespace().next().unwrap_or_default();
    program.rsplit('/').next() == Some("stickyport")
}

/// A site that leads to instances.
struct Ours<'s, 'a> {
    http: &'s Http<'a>,
    site: &'s Site<'a>,
}

impl<'s, 'a> Ours<'s, 'a> {
    /// The upstreams or addresses that its requests go to, each once.
    fn targets(&self) -> Vec<String> {
        let owners = self.site.route.owners.iter().map(|(_, target)| target);
        let mut targets: Vec<_> = self.site.route.pool.iter().chain(owners).cloned().collect();
        targets.sort();
        targets.dedup();
        targets
    }

    /// The upstreams among them.
    fn upstreams(&self) -> Vec<&'s Upstream<'a>> {
        self.targets().iter().filter_map(|target| self.http.upstream(target)).collect()
    }

    /// Where clients without a session go.
    fn pool(&self) -> Option<&'s Upstream<'a>> {
        self.http.upstream(self.site.route.pool.as_ref()?)
    }

    /// The addresses behind a target, and the lines that name them.
    fn addresses(&self, target: &str) -> Vec<(&'a Directive, String)> {
        match self.http.upstream(target) {
            Some(upstream) => upstream.servers().into_iter().map(|server| (server, server.arg(0).to_owned())).collect(),
            None => vec![(self.site.pass, target.to_owned())],
        }
    }
}

/// The port of an address; `None` for a unix socket, and 80 where none is written.
fn port(address: &str) -> Option<u16> {
    if address.starts_with("unix:") {
        return None;
    }
    let written = address.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
    Some(
        written
            .and_then(|(_, port)| port.parse().ok())
            .or_else(|| address.parse::<SocketAddr>().ok().map(|address| address.port()))
            .unwrap_or(80),
    )
}

/// The line of a TOML file that sets `table.key`; 0 if it is written in another way.
fn line_of(text: &str, key: &str) -> usize {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut current = String::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            header.trim().clone_into(&mut current);
        } else if current == table && line.split_once('=').is_some_and(|(found, _)| found.trim() == name) {
            return number;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_found_in_its_table() {
        let text = "drain_timeout = \"1s\"\n[engine]\n# ping_interval = \"1s\"\nping_interval = \"2s\"\n[http]\nlisten = \"a\"\n";
        assert_eq!(
            ["drain_timeout", "engine.ping_interval", "http.listen", "ws.host"].map(|key| line_of(text, key)),
            [1, 4, 6, 0]
        );
    }

    #[test]
    fn addresses_have_ports() {
        let addresses = ["10.0.0.1:3131", "[::1]:3132", "a.example", "unix:/run/stickyport/0.sock", "[::1]"];
        assert_eq!(addresses.map(port), [Some(3131), Some(3132), Some(80), None, Some(80)]);
    }

    #[test]
    fn a_command_is_ours_by_its_program() {
        assert!(is_ours("/opt/x/stickyport serve --instance %i") && is_ours("-/usr/bin/stickyport"));
        assert!(!is_ours("/usr/bin/logger stickyport") && !is_ours(""));
    }
}
