//! Rules: where requests go, so that each session stays with its instance.

use super::Found;
use crate::check::nginx::{Directive, Http, Upstream, is_down, values};
use crate::check::report::Place;
use crate::check::{MOST_INSTANCES, Ours, Setup, port};
use std::collections::BTreeMap;
use std::path::Path;

fn at(directive: &Directive, effect: impl Into<String>, mend: impl Into<String>) -> Found {
    Found { place: directive.place.clone(), value: directive.text(), effect: effect.into(), mend: mend.into() }
}

pub(super) fn no_instance(setup: &Setup<'_>) -> Vec<Found> {
    let path = crate::check::engine_path(setup.config());
    let lost = setup.proxies.iter().filter(|http| setup.sites_of(http).is_empty());
    lost.map(|http| {
        let pass = http.sites.first().map(|site| site.pass);
        Found {
            place: pass.map_or_else(|| http.main.place.clone(), |pass| pass.place.clone()),
            value: pass.map_or_else(|| format!("no location takes {path}"), |pass| format!("{path} goes to {}", pass.text())),
            effect: format!(
                "no request below {path} (engine.path) reaches the own port of an instance, so no client can connect"
            ),
            mend: format!(
                "location {path} {{ proxy_pass … }} to the ports from {} on (ws.base_port)",
                setup.config().ws.base_port
            ),
        }
    })
    .collect()
}

pub(super) fn not_sticky(setup: &Setup<'_>) -> Vec<Found> {
    let pools = setup.sites().into_iter().filter(|ours| ours.site.route.owners.is_empty()).filter_map(|ours| ours.pool());
    pools
        .filter(|pool| method(pool).is_none() && pool.live().len() > 1)
        .map(|pool| Found {
            place: pool.block.place.clone(),
            value: format!("upstream {} without ip_hash, and no map of $arg_sid", pool.name),
            effect: "each poll goes to the next instance, which answers `Session ID unknown`: no polling client stays connected"
                .to_owned(),
            mend: "ip_hash; in the pool, and a map of $arg_sid to owner upstreams as in nginx/stickyport/routing.conf".to_owned(),
        })
        .collect()
}

pub(super) fn sid_routing(setup: &Setup<'_>) -> Vec<Found> {
    let by_address = setup.sites().into_iter().filter(|ours| {
        ours.site.route.owners.is_empty() && ours.pool().is_some_and(|pool| method(pool).is_some() && pool.servers().len() > 1)
    });
    by_address
        .map(|ours| {
            at(
                ours.site.pass,
                "a change of the pool moves open polling sessions to instances that do not know them: three in four, when a fourth is added",
                "a map of $arg_sid to owner upstreams as in nginx/stickyport/routing.conf",
            )
        })
        .collect()
}

pub(super) fn hash(setup: &Setup<'_>) -> Vec<Found> {
    let pools = setup.sites().into_iter().filter(|ours| !ours.site.route.owners.is_empty()).filter_map(|ours| ours.pool());
    pools
        .filter(|pool| method(pool).is_none() && pool.live().len() > 1)
        .map(|pool| Found {
            place: pool.block.place.clone(),
            value: format!("upstream {} without ip_hash", pool.name),
            effect: "a client that comes back is placed on another instance: what is kept for it where it was, such as missed events, is lost".to_owned(),
            mend: "ip_hash; above the servers".to_owned(),
        })
        .collect()
}

/// What places clients, unless it is one after the other.
fn method<'a>(pool: &Upstream<'a>) -> Option<&'a Directive> {
    ["ip_hash", "hash", "sticky"].into_iter().find_map(|name| pool.own(name))
}

pub(super) fn no_live_slot(setup: &Setup<'_>) -> Vec<Found> {
    let dead = pools(setup).into_iter().filter(|pool| pool.live().is_empty());
    dead.map(|pool| Found {
        place: pool.block.place.clone(),
        value: format!("all {} servers of upstream {} are down", pool.servers().len(), pool.name),
        effect: "every handshake is answered 502".to_owned(),
        mend: "take `down` off the line of each instance that runs".to_owned(),
    })
    .collect()
}

pub(super) fn slots(setup: &Setup<'_>) -> Vec<Found> {
    let wide = pools(setup).into_iter().filter(|pool| !pool.live().is_empty() && pool.servers().len() > 4 * pool.live().len());
    wide.map(|pool| Found {
        place: pool.block.place.clone(),
        value: format!("{} slots, {} of them live", pool.servers().len(), pool.live().len()),
        effect: "ip_hash tries 20 times to find a live slot, and places who finds none one after the other, which is not sticky"
            .to_owned(),
        mend: format!("at most {} slots, or more instances", 4 * pool.live().len()),
    })
    .collect()
}

pub(super) fn slot_twice(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for pool in pools(setup) {
        let mut seen = BTreeMap::new();
        for server in pool.live() {
            if let Some(line) = seen.insert(server.arg(0), server.place.line) {
                found.push(at(
                    server,
                    format!(
                        "the instance of line {line} takes two shares of all new clients, and the one that was meant gets none"
                    ),
                    "name each instance once",
                ));
            }
        }
    }
    found
}

pub(super) fn slot_order(setup: &Setup<'_>) -> Vec<Found> {
    let mut tables = setup.proxies.iter().filter_map(|http| table_of(setup, http));
    let Some(expected) = tables.next() else { return Vec::new() };
    let mut found = Vec::new();
    for table in tables {
        let same = |(one, node): &Slot<'_>, (other, other_node): &Slot<'_>| node == other_node && is_down(one) == is_down(other);
        let differ = expected.slots.iter().zip(&table.slots).find(|(one, other)| !same(one, other));
        let extra = table.slots.get(expected.slots.len()).or_else(|| expected.slots.get(table.slots.len()));
        if let Some((server, _)) = differ.map(|(_, other)| other).or(extra) {
            found.push(at(
                server,
                format!("this proxy and {} place the same client on different instances, so who comes back over the other one begins anew", expected.place.file.display()),
                "render the pool of all proxies from one list",
            ));
        }
    }
    found
}

pub(super) fn slot_moved(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for (was, is) in changes(setup) {
        let moved = moved(&was, &is);
        if moved.is_none() && was.slots.len() <= is.slots.len() {
            continue;
        }
        found.push(Found {
            place: moved.map_or_else(|| is.place.clone(), |(_, (server, _))| server.place.clone()),
            value: match moved {
                Some(((was, _), (is, _))) => format!("{} where {} was", is.arg(0), was.arg(0)),
                None => format!("{} slots, where there were {}", is.slots.len(), was.slots.len()),
            },
            effect: "nearly all client networks are placed on another instance than before; with a slot that was `down`, only its share".to_owned(),
            mend: "keep every line where it is; put an instance into service by taking `down` off a line, and out of it by putting it there".to_owned(),
        });
    }
    found
}

pub(super) fn slots_grown(setup: &Setup<'_>) -> Vec<Found> {
    let grown = changes(setup).into_iter().filter(|(was, is)| moved(was, is).is_none());
    grown
        .filter_map(|(was, is)| {
            let (first, _) = is.slots.get(was.slots.len())?;
            Some(Found {
                place: first.place.clone(),
                value: format!("{} slots, where there were {}", is.slots.len(), was.slots.len()),
                effect: "most client networks open their next session on another instance than before; open ones stay".to_owned(),
                mend: "take `down` off a slot that is nobody's, if there is one; a table of twice as many slots as instances has room".to_owned(),
            })
        })
        .collect()
}

/// The table of before and that of each proxy.
fn changes<'a>(setup: &Setup<'a>) -> Vec<(Table<'a>, Table<'a>)> {
    let Some(before) = setup.before.as_ref().and_then(|http| table_of(setup, http)) else { return Vec::new() };
    setup.proxies.iter().filter_map(|http| Some((before.clone(), table_of(setup, http)?))).collect()
}

/// The first slot that is another's now; one that was nobody's may become somebody's.
fn moved<'t, 'a>(was: &'t Table<'a>, is: &'t Table<'a>) -> Option<(&'t Slot<'a>, &'t Slot<'a>)> {
    was.slots.iter().zip(&is.slots).find(|((server, node), (_, now))| node != now && !is_down(server))
}

/// The slots of a proxy's pool, in their order.
#[derive(Clone)]
struct Table<'a> {
    place: Place,
    slots: Vec<Slot<'a>>,
}

/// The line of a slot, and whose it is: the node that its address leads to, which may be another address on each proxy; else the address.
type Slot<'a> = (&'a Directive, String);

fn table_of<'a>(setup: &Setup<'a>, http: &Http<'a>) -> Option<Table<'a>> {
    let sites = setup.sites_of(http);
    let ours = sites.iter().find(|ours| ours.pool().is_some())?;
    let mut nodes = BTreeMap::new();
    for (node, target) in &ours.site.route.owners {
        nodes.extend(ours.addresses(target).into_iter().map(|(_, address)| (address, format!("node {node}"))));
    }
    let pool = ours.pool()?;
    let whose = |server: &Directive| nodes.get(server.arg(0)).cloned().unwrap_or_else(|| server.arg(0).to_owned());
    Some(Table {
        place: pool.block.place.clone(),
        slots: pool.servers().into_iter().map(|server| (server, whose(server))).collect(),
    })
}

pub(super) fn slot_owner(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for ours in setup.sites() {
        let owners = &ours.site.route.owners;
        let owned: Vec<_> = owners.iter().flat_map(|(_, target)| ours.addresses(target)).map(|(_, address)| address).collect();
        for server in ours.pool().map(Upstream::live).unwrap_or_default() {
            if !owners.is_empty() && !owned.iter().any(|address| address == server.arg(0)) {
                found.push(at(
                    server,
                    "it takes new clients, and nothing routes their sessions to it by their sids: the next change of the pool breaks them",
                    "an owner upstream for it, and an entry in each of the two maps",
                ));
            }
        }
    }
    found
}

pub(super) fn owner_alone(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for ours in setup.sites() {
        for (node, target) in &ours.site.route.owners {
            let Some(upstream) = ours.http.upstream(target) else { continue };
            if let Some(second) = upstream.servers().get(1) {
                found.push(at(
                    second,
                    format!("polls of node {node} that fail or time out are repeated at an instance that does not know their session, and the owner is taken for dead for 10s"),
                    format!("one server in upstream {target}"),
                ));
            }
        }
    }
    found
}

pub(super) fn owner_port(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for ours in setup.sites() {
        for (node, target) in &ours.site.route.owners {
            let Ok(node) = u16::try_from(*node) else { continue };
            let instance = node % MOST_INSTANCES;
            // None and several are other mistakes.
            let servers = ours.http.upstream(target).map(Upstream::servers).unwrap_or_default();
            let [place] = servers[..] else { continue };
            let address = place.arg(0);
            let expected = [setup.own_port(instance), setup.own_port(node)];
            let socket = address.strip_prefix("unix:").map(|path| path.split(':').next().unwrap_or_default());
            let is_right = match (socket, port(address)) {
                (Some(path), _) => Path::new(path).file_stem().is_some_and(|stem| *stem == *instance.to_string()),
                (None, port) => expected.contains(&port),
            };
            if !is_right {
                found.push(at(
                        place,
                        format!("sessions of node {node} are sent to another instance, which answers `Session ID unknown`: its polling clients lose their session at the second request"),
                        format!("port {} for node {node} (ws.base_port + instance; node = host * 32 + instance)", expected[0].unwrap_or_default()),
                    ));
            }
        }
    }
    found
}

pub(super) fn owner_twice(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for ours in setup.sites() {
        let mut seen = BTreeMap::new();
        for (node, target) in &ours.site.route.owners {
            for (place, address) in ours.addresses(target) {
                if let Some(first) = seen.insert(address, node) {
                    found.push(at(
                        place,
                        format!("nodes {first} and {node} lead to one process, which is only one of them: all polls of the other are answered `Session ID unknown`"),
                        "an address of its own for each node",
                    ));
                }
            }
        }
    }
    found
}

pub(super) fn owner_unknown(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for ours in setup.sites() {
        let is_known = |target: &str| {
            ours.http.upstream(target).is_some() || target.parse::<std::net::SocketAddr>().is_ok() || target.starts_with("unix:")
        };
        let owners = ours.site.route.owners.iter().map(|(node, target)| (format!("sessions of node {node} go"), target));
        let pool = ours.site.route.pool.iter().map(|target| ("clients without a session go".to_owned(), target));
        let nobody = ours.site.route.nobody.iter().map(|target| ("sessions of a node that no map names go".to_owned(), target));
        for (who, target) in owners.chain(pool).chain(nobody) {
            // A host name in the line itself is looked up when nginx starts.
            if !is_known(target) && ours.site.pass.arg(0).contains('$') {
                found.push(Found {
                    place: naming(&ours, target),
                    value: format!("`{target}` is no upstream"),
                    effect: format!("{who} there, and are answered 502 or 500 (`no resolver defined`)"),
                    mend: "an upstream of that name, and `default` entries that lead to the pool".to_owned(),
                });
            }
        }
    }
    found
}

/// The map entry that names a target, else where it is used.
fn naming(ours: &Ours<'_, '_>, target: &str) -> Place {
    let entries =
        ours.site.route.maps.iter().flat_map(|map| map.inside()).find(|entry| !target.is_empty() && entry.arg(0) == target);
    entries.unwrap_or(ours.site.pass).place.clone()
}

pub(super) fn map_captures(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for ours in setup.sites() {
        for entry in ours.site.route.maps.iter().flat_map(|map| map.inside()) {
            let captures = entry.name.starts_with('~') && entry.name.replace("\\(", "").replace("(?:", "").contains('(');
            if captures {
                found.push(at(
                    entry,
                    "an owner that does not exist becomes a host name that does not exist, `502 no resolver defined`, instead of a new session; and captures in maps were CVE-2026-42533",
                    "one entry per node, such as \"~^0-\" 0;",
                ));
            }
        }
    }
    found
}

pub(super) fn max_fails(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for server in pools(setup).into_iter().filter(|pool| pool.live().len() > 1).flat_map(|pool| pool.live()) {
        let set = server.args.iter().find_map(|arg| arg.strip_prefix("max_fails="));
        let pause = server.args.iter().find_map(|arg| arg.strip_prefix("fail_timeout=")).and_then(values::time);
        let pause = pause.map_or(10, |pause| pause.as_secs());
        let effect = match set.unwrap_or("1") {
            "1" => format!("one handshake that is slow or fails takes the instance out for everybody for {pause}s"),
            "0" => {
                "a host that has vanished is tried for every client that is placed on it, each time until proxy_connect_timeout"
                    .to_owned()
            }
            _ => continue,
        };
        found.push(at(server, effect, "max_fails=2 fail_timeout=5s"));
    }
    found
}

pub(super) fn next_upstream(setup: &Setup<'_>) -> Vec<Found> {
    let by_pool = setup
        .sites()
        .into_iter()
        .filter(|ours| ours.site.route.owners.is_empty() && ours.pool().is_some_and(|pool| pool.live().len() > 1));
    by_pool
        .filter_map(|ours| {
            let set = ours.site.engine.one("proxy_next_upstream");
            if set.is_some_and(|set| set.arg(0) == "off") {
                return None;
            }
            Some(Found {
                place: set.map_or_else(|| ours.site.engine.place.clone(), |set| set.place.clone()),
                value: set.map_or_else(|| "no proxy_next_upstream, which is `error timeout` then".to_owned(), Directive::text),
                effect: "a poll that fails or times out is repeated at an instance that does not know its session, and its own is taken out for 10s: \
                         all of its clients get `Session ID unknown`"
                    .to_owned(),
                mend: "proxy_next_upstream off; or owner upstreams of one server each, chosen by the sid".to_owned(),
            })
        })
        .collect()
}

pub(super) fn non_idempotent(setup: &Setup<'_>) -> Vec<Found> {
    let set = next(setup).into_iter().filter(|set| set.args.iter().any(|arg| arg == "non_idempotent"));
    set.map(|set| {
        at(
            set,
            "a POST that fails half-way is sent again: messages arrive twice, or at an instance that does not know the session",
            "remove non_idempotent",
        )
    })
    .collect()
}

pub(super) fn next_status(setup: &Setup<'_>) -> Vec<Found> {
    let set =
        next(setup).into_iter().filter(|set| set.args.iter().any(|arg| arg.starts_with("http_") || arg == "invalid_header"));
    set.map(|set| {
        at(
            set,
            "an answer counts as a failure of the instance: a client that provokes it takes one instance after the other out of the pool",
            "proxy_next_upstream error timeout;",
        )
    })
    .collect()
}

pub(super) fn next_tries(setup: &Setup<'_>) -> Vec<Found> {
    let many = setup.sites().into_iter().filter(|ours| ours.pool().is_some_and(|pool| pool.live().len() > 2));
    many.filter_map(|ours| {
        let is_off = ours.site.engine.one("proxy_next_upstream").is_some_and(|set| set.arg(0) == "off");
        let set = ours.site.engine.one("proxy_next_upstream_tries");
        let is_bounded = set.is_some_and(|set| set.arg(0).parse::<u32>().is_ok_and(|tries| (1..=2).contains(&tries)));
        let found = || Found {
            place: set.map_or_else(|| ours.site.engine.place.clone(), |set| set.place.clone()),
            value: set.map_or_else(|| "no proxy_next_upstream_tries".to_owned(), Directive::text),
            effect: "one handshake that makes instances fail makes all of them fail, one after the other".to_owned(),
            mend: "proxy_next_upstream_tries 2;".to_owned(),
        };
        (!is_off && !is_bounded).then(found)
    })
    .collect()
}

pub(super) fn gone(setup: &Setup<'_>) -> Vec<Found> {
    let routed = setup.sites().into_iter().filter(|ours| !ours.site.route.owners.is_empty());
    routed
        .filter(|ours| !ours.site.engine.all("error_page").iter().any(|page| page.args.iter().any(|arg| arg == "502")))
        .map(|ours| Found {
            place: ours.site.engine.place.clone(),
            value: "no error_page for 502".to_owned(),
            effect: "clients of an instance that is down see nginx's 502 page instead of `Session ID unknown`".to_owned(),
            mend: "error_page 502 504 = @gone; as in nginx/stickyport/server.conf".to_owned(),
        })
        .collect()
}

fn next<'s>(setup: &'s Setup<'_>) -> Vec<&'s Directive> {
    setup.sites().into_iter().filter_map(|ours| ours.site.engine.one("proxy_next_upstream")).collect()
}

fn pools<'s, 'a>(setup: &'s Setup<'a>) -> Vec<&'s Upstream<'a>> {
    setup.proxies.iter().flat_map(|http| pools_of(setup, http)).collect()
}

/// The pools of a proxy, each once.
fn pools_of<'s, 'a>(setup: &'s Setup<'a>, http: &'s Http<'a>) -> Vec<&'s Upstream<'a>> {
    let mut pools: Vec<&Upstream<'_>> = Vec::new();
    for pool in setup.sites_of(http).iter().filter_map(Ours::pool) {
        if !pools.iter().any(|known| known.name == pool.name) {
            pools.push(pool);
        }
    }
    pools
}
