//! Rules: what an instance hears of a request, and what is kept of it.

use super::Found;
use crate::check::nginx::{Directive, Scope, values};
use crate::check::{Ours, Setup};
use crate::http::options::Http as HttpOptions;
use crate::options::size::render;
use std::net::{IpAddr, SocketAddr};

fn of(directive: Option<&Directive>, scope: &Scope<'_>, missing: &str, effect: &str, mend: &str) -> Found {
    Found {
        place: directive.map_or_else(|| scope.place.clone(), |directive| directive.place.clone()),
        value: directive.map_or_else(|| missing.to_owned(), Directive::text),
        effect: effect.to_owned(),
        mend: mend.to_owned(),
    }
}

pub(super) fn http_version(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for Ours { site, .. } in setup.sites() {
        let set = site.engine.one("proxy_http_version");
        if set.is_none_or(|set| set.arg(0) != "1.1") {
            found.push(of(
                set,
                &site.engine,
                "no proxy_http_version, which is 1.0 then",
                "no WebSocket can be opened, and every poll opens a connection to the instance",
                "proxy_http_version 1.1;",
            ));
        }
    }
    found
}

pub(super) fn upgrade_header(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for Ours { http, site } in setup.sites() {
        let set = header(&site.engine, "Upgrade");
        let value = set.and_then(|set| http.expand(set.arg(1), ("http_upgrade", "websocket")));
        if !value.is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
            found.push(of(
                set,
                &site.engine,
                "no proxy_set_header Upgrade",
                "no WebSocket can be opened: clients stay on polling, and those without polling cannot connect",
                "proxy_set_header Upgrade $http_upgrade;",
            ));
        }
    }
    found
}

pub(super) fn connection_header(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for Ours { http, site } in setup.sites() {
        let set = header(&site.engine, "Connection");
        // What cannot be known here gets the benefit of the doubt.
        let value = set.map_or(Some("close".to_owned()), |set| http.expand(set.arg(1), ("http_upgrade", "websocket")));
        if value.is_some_and(|value| !value.to_ascii_lowercase().contains("upgrade")) {
            found.push(of(
                set,
                &site.engine,
                "no proxy_set_header Connection, which is close then",
                "no WebSocket can be opened: clients stay on polling, and those without polling cannot connect",
                "proxy_set_header Connection $stickyport_connection; with the map in nginx/stickyport/keepalive.conf",
            ));
        }
    }
    found
}

pub(super) fn connection_close(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for Ours { http, site } in setup.sites() {
        let Some(set) = header(&site.engine, "Connection") else { continue };
        if http.expand(set.arg(1), ("http_upgrade", "")).is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            let map = http.map(set.arg(1));
            let entry = map.and_then(|map| map.inside().iter().find(|entry| entry.arg(0).eq_ignore_ascii_case("close")));
            found.push(of(
                entry.or(Some(set)),
                &site.engine,
                "",
                "every poll opens a connection to the instance and leaves it in TIME_WAIT: 2,000 polls left 2,002",
                "'' ''; in the map of $http_upgrade",
            ));
        }
    }
    found
}

pub(super) fn upstream_keepalive(setup: &Setup<'_>) -> Vec<Found> {
    let sites = setup.sites();
    // Not where only handshakes go: on a kept connection to a host that has vanished one of these waits for proxy_read_timeout.
    let polled = sites.iter().flat_map(|ours| {
        let pool = ours.pool().filter(|_| !ours.site.route.owners.is_empty()).map(|pool| pool.name);
        ours.upstreams().into_iter().filter(move |upstream| Some(upstream.name) != pool)
    });
    polled
        .filter(|upstream| upstream.own("keepalive").is_none())
        .map(|upstream| Found {
            place: upstream.block.place.clone(),
            value: format!("upstream {} without keepalive", upstream.name),
            effect: "every poll opens a connection to the instance and leaves it in TIME_WAIT: 2,000 polls left 2,002".to_owned(),
            mend: "keepalive 32; below the servers".to_owned(),
        })
        .collect()
}

pub(super) fn host_header(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for Ours { site, .. } in setup.sites() {
        let set = header(&site.engine, "Host");
        if set.is_none_or(|set| set.arg(1) == "$proxy_host") {
            found.push(of(
                set,
                &site.engine,
                "no proxy_set_header Host, which is the upstream's name then",
                "the instance does not know under which name it was reached: it takes its own pages for another origin's and refuses them",
                "proxy_set_header Host $http_host;",
            ));
        }
    }
    found
}

pub(super) fn forwarded_for(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for Ours { site, .. } in setup.sites() {
        let set = header(&site.engine, "X-Forwarded-For");
        if set.is_none_or(|set| set.arg(1) == "$http_x_forwarded_for") {
            found.push(of(
                set,
                &site.engine,
                "no proxy_set_header X-Forwarded-For",
                "what the client writes there reaches the instance as nginx's word: it chooses its own address, for the log and for limits per address",
                "proxy_set_header X-Forwarded-For $remote_addr;",
            ));
        }
    }
    found
}

pub(super) fn trusted_proxies(setup: &Setup<'_>) -> Vec<Found> {
    let trusted = &setup.config().http.trusted_proxies;
    let mut found = Vec::new();
    for ours in setup.sites() {
        let addresses = ours.targets().into_iter().flat_map(|target| ours.addresses(&target));
        let ips: Vec<_> = addresses.filter_map(|(_, address)| Some(address.parse::<SocketAddr>().ok()?.ip())).collect();
        let here = ips.iter().any(IpAddr::is_loopback);
        let elsewhere = ips.iter().find(|ip| !ip.is_loopback());
        let localhost = IpAddr::from([127, 0, 0, 1]);
        let unknown = if here && !trusted.contains(localhost) {
            Some("127.0.0.1, from where nginx connects".to_owned())
        } else {
            // nginx's own address is in none of these files; that nobody has named it is to be seen.
            elsewhere
                .filter(|_| *trusted == HttpOptions::default().trusted_proxies)
                .map(|ip| format!("the address from which nginx connects to {ip}"))
        };
        if let Some(unknown) = unknown {
            found.push(Found {
                place: setup.setting("http.trusted_proxies"),
                value: format!("http.trusted_proxies is without {unknown}"),
                effect: "the instance takes nginx for the client: all clients have one address, in the log and for limits per address, and none came over TLS".to_owned(),
                mend: "name every proxy's address in http.trusted_proxies".to_owned(),
            });
        }
    }
    found
}

pub(super) fn body_size(setup: &Setup<'_>) -> Vec<Found> {
    let payload = setup.config().engine.max_payload;
    let mut found = Vec::new();
    for Ours { site, .. } in setup.sites() {
        let set = site.engine.one("client_max_body_size");
        let size = set.and_then(|set| values::size(set.arg(0))).unwrap_or(1 << 20);
        if size > 0 && size < payload as u64 {
            found.push(of(
                set,
                &site.engine,
                "no client_max_body_size, which is 1m then",
                &format!("nginx answers 413 to messages that the instance has announced as allowed, up to {} (engine.max_payload), and the session ends", render(payload)),
                &format!("client_max_body_size {payload};"),
            ));
        }
    }
    found
}

pub(super) fn sid_in_log(setup: &Setup<'_>) -> Vec<Found> {
    const EFFECT: &str = "the log holds session ids: whoever reads it can speak as any client that is connected";
    const MEND: &str =
        "a log_format with $uri, without $request, $request_uri, $args and $http_referer, as in nginx/stickyport/log.conf";
    let mut found = Vec::new();
    for Ours { http, site } in setup.sites() {
        let logs = site.engine.all("access_log");
        if logs.is_empty() {
            found.push(of(None, &site.server, "no access_log, which has the format `combined` then", EFFECT, MEND));
        }
        for log in logs.into_iter().filter(|log| log.arg(0) != "off") {
            let name = if log.arg(1).is_empty() || log.arg(1).contains('=') { "combined" } else { log.arg(1) };
            let format = http.log_formats.iter().find(|format| format.arg(0) == name);
            let leak = match format {
                Some(format) => format.args.iter().skip(1).flat_map(|text| variables(text)).find(|name| LEAKS.contains(name)),
                None => (name == "combined").then_some("request"),
            };
            if let Some(leak) = leak {
                let value = format!("${leak} in the format `{name}`");
                let place = format.map_or(&log.place, |format| &format.place).clone();
                found.push(Found { place, value, effect: EFFECT.to_owned(), mend: MEND.to_owned() });
            }
        }
    }
    found
}

/// Variables that hold the query, where the sid stands.
const LEAKS: [&str; 6] = ["request", "request_uri", "args", "query_string", "arg_sid", "http_referer"];

fn variables(text: &str) -> impl Iterator<Item = &str> {
    let names = text.split('$').skip(1).map(|rest| rest.trim_start_matches('{'));
    names.map(|rest| rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default())
}

pub(super) fn sid_in_error_log(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for Ours { site, .. } in setup.sites() {
        let logs = site.engine.all("error_log");
        let loud =
            logs.iter().copied().find(|log| log.arg(0) != "/dev/null" && !["crit", "alert", "emerg"].contains(&log.arg(1)));
        if logs.is_empty() || loud.is_some() {
            found.push(of(
                loud,
                &site.engine,
                "no error_log, which has the level `error` then",
                "each failed request is quoted in the error log, sid included: whoever reads it can speak as that client",
                "error_log … crit; in the location of engine.path",
            ));
        }
    }
    found
}

pub(super) fn request_limits(setup: &Setup<'_>) -> Vec<Found> {
    let sites = setup.sites();
    let limits =
        sites.iter().flat_map(|ours| ["limit_conn", "limit_req"].into_iter().flat_map(|name| ours.site.engine.all(name)));
    limits
        .map(|limit| Found {
            place: limit.place.clone(),
            value: limit.text(),
            effect: "a WebSocket counts for as long as it lives and each poll as a request: people behind one carrier's address lock each other out".to_owned(),
            mend: "limits.sessions_per_address and limits.handshakes_per_second_per_address, which know sessions".to_owned(),
        })
        .collect()
}

pub(super) fn mapped_addresses(setup: &Setup<'_>) -> Vec<Found> {
    let sites = setup.sites();
    let listens = sites.iter().flat_map(|ours| ours.site.server.own("listen"));
    listens
        .filter(|listen| listen.args.iter().any(|arg| arg == "ipv6only=off"))
        .map(|listen| Found {
            place: listen.place.clone(),
            value: listen.text(),
            effect: "IPv4 clients arrive with IPv6 addresses, of which ip_hash takes all 16 bytes: a household or a carrier's /24 is split over all instances".to_owned(),
            mend: "two lines: listen 80; listen [::]:80;".to_owned(),
        })
        .collect()
}

/// The header that is sent to the instance under that name.
fn header<'a>(scope: &Scope<'a>, name: &str) -> Option<&'a Directive> {
    scope.all("proxy_set_header").into_iter().rev().find(|set| set.arg(0).eq_ignore_ascii_case(name))
}
