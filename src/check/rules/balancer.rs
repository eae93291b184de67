//! Rules: the load balancer in front of nginx, and what nginx knows of it.

use super::Found;
use super::times::{Held, held, unit_time};
use crate::check::balancer::{ClientAddress, Kind};
use crate::check::nginx::{Directive, Site};
use crate::check::{Ours, Setup};
use crate::options::duration::render;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn idle(setup: &Setup<'_>) -> Vec<Found> {
    let heartbeat = setup.heartbeat();
    let idle = setup.balancer.idle().filter(|&idle| setup.balancer.kind != Kind::Gcp && idle <= heartbeat);
    let found = idle.map(|idle| Found {
        place: setup.balancer_place.clone(),
        value: set(setup, idle),
        effect: format!(
            "the balancer cuts WebSockets and polls that are merely quiet, which a healthy one may be for {}",
            render(heartbeat)
        ),
        mend: format!(
            "an idle timeout of {} or more, or a shorter engine.ping_interval",
            render(heartbeat + Duration::from_secs(15))
        ),
    });
    found.into_iter().collect()
}

/// The idle timeout, and whether somebody has set it.
fn set(setup: &Setup<'_>, idle: Duration) -> String {
    let default = if setup.balancer.idle_timeout.is_zero() { ", the default of its kind" } else { "" };
    format!("idle_timeout = \"{}\"{default}", render(idle))
}

pub(super) fn reply(setup: &Setup<'_>) -> Vec<Found> {
    // With one that is too short for healthy sessions, no proxy_read_timeout is right.
    let Some(idle) = setup.balancer.idle().filter(|&idle| idle > setup.heartbeat()) else { return Vec::new() };
    let held = setup.sites().into_iter().map(|ours| held(&ours.site.engine, "proxy_read_timeout", Duration::from_secs(60)));
    held.filter(|held| held.time >= idle && setup.balancer.kind != Kind::Gcp)
        .map(|Held { place, value, .. }| Found {
            place,
            value,
            effect: format!(
                "the balancer gives up first, after {}: its clients see its own 504, and nginx never learns which instance was slow",
                render(idle)
            ),
            mend: format!("a proxy_read_timeout between {} and {}", render(setup.heartbeat()), render(idle)),
        })
        .collect()
}

pub(super) fn keepalive(setup: &Setup<'_>) -> Vec<Found> {
    // Only those that speak HTTP use a connection again.
    let idle = match setup.balancer.kind {
        Kind::Alb | Kind::Clb => setup.balancer.idle(),
        Kind::Gcp => Some(Duration::from_secs(600)),
        _ => None,
    };
    let Some(idle) = idle else { return Vec::new() };
    let held = setup.sites().into_iter().map(|ours| held(&ours.site.server, "keepalive_timeout", Duration::from_secs(75)));
    held.filter(|held| held.time <= idle)
        .map(|Held { place, value, .. }| Found {
            place,
            value,
            effect: format!(
                "nginx closes idle connections that the balancer still uses, up to {}: now and then a 502",
                render(idle)
            ),
            mend: format!("keepalive_timeout {};", render(idle + Duration::from_secs(15))),
        })
        .collect()
}

pub(super) fn lifetime(setup: &Setup<'_>) -> Vec<Found> {
    let short = setup.balancer.idle().filter(|&life| setup.balancer.kind == Kind::Gcp && life < HOUR);
    let found = short.map(|life| Found {
        place: setup.balancer_place.clone(),
        value: set(setup, life),
        effect: format!("it is the lifetime of a WebSocket there, busy or not: every client is cut every {}", render(life)),
        mend: "a backend service timeout of 3600 to 86400 seconds".to_owned(),
    });
    found.into_iter().collect()
}

pub(super) fn deregistration(setup: &Setup<'_>) -> Vec<Found> {
    let Some(delay) = setup.balancer.deregistration() else { return Vec::new() };
    let drain = setup.config().drain_timeout;
    let mut found = Vec::new();
    let effect = |what: &str| {
        format!(
            "{what} is cut off by the balancer, which closes what is left of a target after {} (deregistration delay)",
            render(delay)
        )
    };
    if drain >= delay {
        found.push(Found {
            place: setup.setting("drain_timeout"),
            value: format!("drain_timeout = \"{}\"", render(drain)),
            effect: effect("a drain"),
            mend: format!("a deregistration delay of {} or more", render(drain * 2)),
        });
    }
    for Held { place, value, time } in
        setup.services().filter_map(|unit| unit_time(unit, "Service", "TimeoutStopSec", Duration::from_secs(90)))
    {
        if time >= delay {
            let mend = format!("a deregistration delay of {} or more", render(time * 2));
            found.push(Found { place, value, effect: effect("a stop that takes its time"), mend });
        }
    }
    found
}

pub(super) fn real_ip(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for Ours { site, .. } in setup.sites() {
        let (header, what) = match setup.balancer.tells(listens(site).iter().any(takes_proxy)) {
            Some(ClientAddress::Header) => ("X-Forwarded-For", "real_ip_header X-Forwarded-For; real_ip_recursive on;"),
            Some(ClientAddress::ProxyProtocol) => ("proxy_protocol", "real_ip_header proxy_protocol;"),
            _ => continue,
        };
        let set = site.server.one("real_ip_header");
        let is_set = set.is_some_and(|directive| directive.arg(0).eq_ignore_ascii_case(header));
        let trusted = site.server.all("set_real_ip_from");
        if !is_set || trusted.is_empty() {
            found.push(Found {
                place: set.filter(|_| !is_set).map_or_else(|| site.server.place.clone(), |directive| directive.place.clone()),
                value: match set {
                    Some(directive) if !is_set => directive.text(),
                    Some(_) => "no set_real_ip_from".to_owned(),
                    None => "no real_ip_header".to_owned(),
                },
                effect: "every client has the address of one of the balancer's nodes: ip_hash places thousands on each of a few instances and leaves \
                         others idle, and limits per address count all of them as one"
                    .to_owned(),
                mend: format!("set_real_ip_from <the balancer's subnets>; {what}"),
            });
        }
    }
    found
}

pub(super) fn real_ip_anybody(setup: &Setup<'_>) -> Vec<Found> {
    let trusted = setup.sites().into_iter().flat_map(|ours| ours.site.server.all("set_real_ip_from"));
    let anybody = trusted.filter(|directive| directive.arg(0).ends_with("/0"));
    anybody
        .map(|directive| Found {
            place: directive.place.clone(),
            value: directive.text(),
            effect: "whoever sends the header chooses the address that nginx hashes, logs and hands on, and with it the instance"
                .to_owned(),
            mend: "set_real_ip_from <the balancer's subnets>;".to_owned(),
        })
        .collect()
}

pub(super) fn proxy_protocol(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for Ours { site, .. } in setup.sites() {
        let listens = listens(site);
        let is_taken = listens.iter().any(takes_proxy);
        let Some(tells) = setup.balancer.tells(is_taken) else { continue };
        let is_spoken = tells == ClientAddress::ProxyProtocol;
        // A balancer's health checks may have a port of their own that speaks plainly.
        let wrong = listens.into_iter().filter(|listen| takes_proxy(listen) != is_spoken && !(is_spoken && is_taken));
        found.extend(wrong.map(|listen| Found {
            place: listen.place.clone(),
            value: listen.text(),
            effect: if is_spoken {
                "nginx takes the balancer's first bytes for a broken request: every connection is answered 400".to_owned()
            } else {
                "nginx waits for the PROXY protocol, which the balancer does not speak: every connection is cut".to_owned()
            },
            mend: if is_spoken {
                format!("{} proxy_protocol;", listen.text())
            } else {
                "remove proxy_protocol from listen".to_owned()
            },
        }));
        let header = site.server.one("real_ip_header").filter(|header| header.arg(0) == "proxy_protocol");
        found.extend(header.filter(|_| !is_taken && !is_spoken).map(|header| Found {
            place: header.place.clone(),
            value: header.text(),
            effect: "no listen takes the PROXY protocol: if the balancer speaks it, every connection is answered 400, and if not, the line does nothing"
                .to_owned(),
            mend: "proxy_protocol on each listen that the balancer leads to, or another real_ip_header".to_owned(),
        }));
    }
    found
}

fn listens<'a>(site: &Site<'a>) -> Vec<&'a Directive> {
    site.server.own("listen").collect()
}

fn takes_proxy(listen: &&Directive) -> bool {
    listen.args.iter().any(|arg| arg == "proxy_protocol")
}
