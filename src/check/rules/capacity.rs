//! Rules: how many clients there may be. What is planned for must also fit while one instance is down.

use super::Found;
use crate::check::nginx::{Directive, Http};
use crate::check::report::Place;
use crate::check::systemd::Unit;
use crate::check::{MOST_INSTANCES, Setup, port};
use crate::http::listen::BACKLOG;

/// Descriptors of a process besides those of its clients: listeners, logs, the runtime's own.
const OTHERS: u64 = 64;
/// What a process may open when nobody has set more.
const SOFT: u64 = 1024;

pub(super) fn worker_connections(setup: &Setup<'_>) -> Vec<Found> {
    // Each proxy has its part of the clients, and two connections for each.
    let clients = setup.clients.div_ceil((setup.proxies.len() as u64).max(1));
    let mut found = Vec::new();
    for http in &setup.proxies {
        let Some((place, value, each)) = connections(http) else { continue };
        let workers = match http.main.one("worker_processes").map(|set| set.arg(0)) {
            Some("auto") => setup.host.as_ref().and_then(|host| host.cpus),
            Some(number) => number.parse().ok(),
            None => Some(1),
        };
        let room = each * workers.unwrap_or(1);
        if room < 2 * clients {
            let workers = workers.map_or_else(
                || "one worker, for want of a --proc that tells how many `auto` are".to_owned(),
                |count| format!("{count} workers"),
            );
            found.push(Found {
                place,
                value: format!("{value}, with {workers}"),
                effect: format!(
                    "from {} WebSockets on the next one gets a bare end of file; {clients} clients are planned for",
                    room / 2
                ),
                mend: format!("worker_connections {};", (2 * clients).div_ceil(room / each.max(1)).max(512)),
            });
        }
    }
    found
}

pub(super) fn worker_descriptors(setup: &Setup<'_>) -> Vec<Found> {
    let unit = setup.units.iter().find(|unit| unit.name == "nginx.service");
    let from_unit = unit.and_then(limit);
    let mut found = Vec::new();
    for http in &setup.proxies {
        let Some((place, _, each)) = connections(http) else { continue };
        let own = http.main.one("worker_rlimit_nofile");
        let (place, value, most) = match own.and_then(|own| Some((own, own.arg(0).parse().ok()?))) {
            Some((own, most)) => (own.place.clone(), own.text(), most),
            None => from_unit.clone().unwrap_or((place, "no worker_rlimit_nofile, and systemd's 1024 then".to_owned(), SOFT)),
        };
        if most < each {
            found.push(Found {
                place,
                value,
                effect: format!("a worker has {each} connections and {most} descriptors: beyond them `Too many open files`, and nobody is accepted"),
                mend: format!("worker_rlimit_nofile {};", 2 * each),
            });
        }
    }
    found
}

pub(super) fn ephemeral_ports(setup: &Setup<'_>) -> Vec<Found> {
    let range = setup.host.as_ref().and_then(|host| host.port_range.clone()).unwrap_or(32768..=60999);
    let ports = range
        .clone()
        .filter(|&port| {
            setup.host.as_ref().is_none_or(|host| !host.reserved_ports.iter().any(|reserved| reserved.contains(&port)))
        })
        .count() as u64;
    let (share, sharing) = setup.share();
    let share = share.div_ceil((setup.proxies.len() as u64).max(1));
    let mut found = Vec::new();
    for ours in setup.sites() {
        let tcp =
            ours.pool().map(|pool| pool.live()).unwrap_or_default().into_iter().find(|server| port(server.arg(0)).is_some());
        if let Some(server) = tcp.filter(|_| share > ports && ours.site.engine.one("proxy_bind").is_none()) {
            found.push(Found {
                place: server.place.clone(),
                value: server.text(),
                effect: format!(
                    "there are {ports} ports ({}-{}) for connections from this nginx to one address and port, and {share} clients for it when {sharing} instances share them: \
                     the rest are answered 502, `Cannot assign requested address`",
                    range.start(),
                    range.end()
                ),
                mend: "server unix:/run/stickyport/N.sock; for instances on nginx's own host, more instances, or a wider net.ipv4.ip_local_port_range".to_owned(),
            });
        }
    }
    found
}

pub(super) fn reserved_ports(setup: &Setup<'_>) -> Vec<Found> {
    let Some(host) = &setup.host else { return Vec::new() };
    let own = (0..MOST_INSTANCES).filter_map(|instance| setup.own_port(instance));
    let taken: Vec<_> =
        own.chain([setup.config().http.listen.port()]).filter(|&port| port > 0 && !host.keeps_free(port)).collect();
    let found = taken.first().map(|port| Found {
        place: host.place("sys/net/ipv4/ip_local_reserved_ports"),
        value: format!("port {port} is among those that outgoing connections take"),
        effect: "now and then an instance cannot start, because a connection of nginx's has its port".to_owned(),
        mend: format!(
            "net.ipv4.ip_local_reserved_ports = {}-{},{}",
            setup.config().ws.base_port,
            setup.config().ws.base_port.saturating_add(MOST_INSTANCES - 1),
            setup.config().http.listen.port()
        ),
    });
    found.into_iter().collect()
}

pub(super) fn descriptors(setup: &Setup<'_>) -> Vec<Found> {
    let (share, sharing) = setup.share();
    let mut found = Vec::new();
    for unit in setup.services().filter(|_| setup.clients > 0) {
        let (place, value, most) =
            limit(unit).unwrap_or_else(|| (unit.section("Service"), "no LimitNOFILE, which is 1024 then".to_owned(), SOFT));
        if most < share + OTHERS {
            found.push(Found {
                place,
                value,
                effect: format!("an instance takes one descriptor per client: from {most} on clients wait in the kernel and are not answered; {share} are planned for it when {sharing} instances share them"),
                mend: format!("LimitNOFILE={}", (2 * share).max(65536)),
            });
        }
    }
    found
}

pub(super) fn descriptors_now(setup: &Setup<'_>) -> Vec<Found> {
    let (share, _) = setup.share();
    let running =
        setup.host.iter().flat_map(|host| &host.running).filter(|(.., most)| setup.clients > 0 && *most < share + OTHERS);
    running
        .map(|(place, name, most)| Found {
            place: place.clone(),
            value: format!("Max open files {most}, of a {name} that runs"),
            effect: format!("it has room for {most} clients and more are planned for it, {share}; the unit's limit holds from its next start on"),
            mend: "restart it after LimitNOFILE was raised".to_owned(),
        })
        .collect()
}

pub(super) fn nr_open(setup: &Setup<'_>) -> Vec<Found> {
    let Some(most) = setup.host.as_ref().and_then(|host| host.nr_open) else { return Vec::new() };
    let limits = setup.services().filter_map(limit).filter(|(.., limit)| *limit > most && *limit != u64::MAX);
    limits
        .map(|(place, value, _)| Found {
            place,
            value,
            effect: format!("the kernel allows {most} (fs.nr_open): the unit does not get what it asks for"),
            mend: "a smaller LimitNOFILE, or a larger fs.nr_open".to_owned(),
        })
        .collect()
}

pub(super) fn session_limit(setup: &Setup<'_>) -> Vec<Found> {
    let most = setup.config().limits.sessions as u64;
    let (share, sharing) = setup.share();
    let found = (most > 0 && most < share).then(|| Found {
        place: setup.setting("limits.sessions"),
        value: format!("limits.sessions = {most}"),
        effect: format!(
            "from {most} sessions on handshakes are answered 503; {share} are planned for an instance when {sharing} share them"
        ),
        mend: format!("limits.sessions = {}, or more instances", share + share / 4),
    });
    found.into_iter().collect()
}

pub(super) fn backlog(setup: &Setup<'_>) -> Vec<Found> {
    let wanted = BACKLOG.unsigned_abs().into();
    let effect = "when an instance restarts all of its clients come back within seconds: who finds no room waits a second or more and tries again".to_owned();
    let mut found = Vec::new();
    if let Some(host) = &setup.host
        && let Some(most) = host.somaxconn.filter(|&most| most < wanted)
    {
        found.push(Found {
            place: host.place("sys/net/core/somaxconn"),
            value: format!("net.core.somaxconn = {most}"),
            effect: effect.clone(),
            mend: format!("net.core.somaxconn = {wanted}"),
        });
    }
    for entry in
        setup.units.iter().filter(|unit| unit.name.starts_with("stickyport")).filter_map(|unit| unit.one("Socket", "Backlog"))
    {
        if entry.value.parse::<u64>().is_ok_and(|backlog| backlog < wanted) {
            let value = format!("Backlog={}", entry.value);
            found.push(Found { place: entry.place.clone(), value, effect: effect.clone(), mend: format!("Backlog={wanted}") });
        }
    }
    found
}

/// `worker_connections`, where a tree has what is outside of `http { }`.
fn connections(http: &Http<'_>) -> Option<(Place, String, u64)> {
    let events: &Directive = http.main.one("events")?;
    let set = events.inside().iter().rfind(|directive| directive.name == "worker_connections");
    let read = set.and_then(|set| Some((set.place.clone(), set.text(), set.arg(0).parse().ok()?)));
    Some(read.unwrap_or((events.place.clone(), "no worker_connections, which are 512 then".to_owned(), 512)))
}

/// The soft limit of descriptors that a unit sets.
fn limit(unit: &Unit) -> Option<(Place, String, u64)> {
    let entry = unit.one("Service", "LimitNOFILE")?;
    let soft = entry.value.split(':').next().unwrap_or_default();
    let most = if soft == "infinity" { u64::MAX } else { soft.parse().ok()? };
    Some((entry.place.clone(), format!("LimitNOFILE={}", entry.value), most))
}
