//! Rules: how long things take, from the instance outwards.

use super::Found;
use crate::check::Setup;
use crate::check::nginx::{Scope, values};
use crate::check::report::Place;
use crate::check::systemd::{self, Unit};
use crate::options::duration::render;
use crate::shutdown::GRACE;
use std::time::Duration;

/// A time that holds somewhere, and where it was set.
pub(super) struct Held {
    pub(super) place: Place,
    pub(super) value: String,
    pub(super) time: Duration,
}

/// A time of nginx's; `default` is nginx's own.
pub(super) fn held(scope: &Scope<'_>, name: &str, default: Duration) -> Held {
    match scope.one(name).map(|directive| (directive, values::time(directive.arg(0)))) {
        Some((directive, Some(time))) => Held { place: directive.place.clone(), value: directive.text(), time },
        _ => Held { place: scope.place.clone(), value: format!("no {name}, which is {} then", render(default)), time: default },
    }
}

/// A time of a unit's; `None` says that there is no end to it.
pub(super) fn unit_time(unit: &Unit, section: &str, key: &str, default: Duration) -> Option<Held> {
    match unit.one(section, key) {
        Some(entry) => {
            let time = systemd::time(&entry.value)?;
            Some(Held { place: entry.place.clone(), value: format!("{key}={}", entry.value), time })
        }
        None => Some(Held {
            place: unit.section(section),
            value: format!("no {key}, which is {} then", render(default)),
            time: default,
        }),
    }
}

const NGINX: Duration = Duration::from_secs(60);

pub(super) fn read_timeout(setup: &Setup<'_>) -> Vec<Found> {
    let heartbeat = setup.heartbeat();
    let held = setup.sites().into_iter().map(|ours| held(&ours.site.engine, "proxy_read_timeout", NGINX));
    held.filter(|held| held.time <= heartbeat)
        .map(|Held { place, value, .. }| Found {
            place,
            value,
            effect: format!(
                "nginx cuts sessions that are merely quiet: a healthy one may be silent for {} (engine.ping_interval + engine.ping_timeout)",
                render(heartbeat)
            ),
            mend: format!("proxy_read_timeout {};", render(heartbeat + Duration::from_secs(10))),
        })
        .collect()
}

pub(super) fn connect_timeout(setup: &Setup<'_>) -> Vec<Found> {
    let held = setup.sites().into_iter().map(|ours| held(&ours.site.engine, "proxy_connect_timeout", NGINX));
    held.filter(|held| held.time > Duration::from_secs(5))
        .map(|Held { place, value, time }| Found {
            place,
            value,
            effect: format!("every request to a host that has vanished hangs for {} before anything else is tried", render(time)),
            mend: "proxy_connect_timeout 2s;".to_owned(),
        })
        .collect()
}

pub(super) fn idle_connections(setup: &Setup<'_>) -> Vec<Found> {
    let kept = setup.config().limits.keep_alive;
    let mut found = Vec::new();
    for upstream in setup.sites().iter().flat_map(|ours| ours.upstreams()).filter(|upstream| upstream.own("keepalive").is_some())
    {
        let own = upstream.own("keepalive_timeout");
        let time = own.and_then(|directive| values::time(directive.arg(0))).unwrap_or(NGINX);
        if time >= kept {
            found.push(Found {
                place: own.map_or_else(|| upstream.block.place.clone(), |directive| directive.place.clone()),
                value: own.map_or_else(|| "no keepalive_timeout, which is 60s then".to_owned(), |directive| directive.text()),
                effect: format!(
                    "the instance closes an idle connection after {} (limits.keep_alive), just when nginx sends a POST over it: now and then a 502",
                    render(kept)
                ),
                mend: format!("limits.keep_alive = \"{}\", or a shorter keepalive_timeout in the upstream", render(time + Duration::from_secs(15))),
            });
        }
    }
    found
}

pub(super) fn worker_shutdown(setup: &Setup<'_>) -> Vec<Found> {
    let set = setup.proxies.iter().filter_map(|http| http.main.one("worker_shutdown_timeout"));
    let short = set.filter(|directive| values::time(directive.arg(0)).is_some_and(|time| time < Duration::from_secs(3600)));
    short
        .map(|directive| Found {
            place: directive.place.clone(),
            value: directive.text(),
            effect: "so long after each reload all WebSockets of the old workers are cut at once, without a close frame"
                .to_owned(),
            mend: "remove it, or set an hour".to_owned(),
        })
        .collect()
}

pub(super) fn watchdog(setup: &Setup<'_>) -> Vec<Found> {
    let heartbeat = setup.heartbeat();
    let mut found = Vec::new();
    for unit in setup.services() {
        let entry = unit.one("Service", "WatchdogSec");
        let time = entry.and_then(|entry| systemd::time(&entry.value)).unwrap_or_default();
        if time.is_zero() {
            found.push(Found {
                place: entry.map_or_else(|| unit.section("Service"), |entry| entry.place.clone()),
                value: "no WatchdogSec".to_owned(),
                effect: "a process that hangs keeps its port and its clients, and nobody starts it again".to_owned(),
                mend: "WatchdogSec=30".to_owned(),
            });
        } else if let Some(entry) = entry.filter(|_| time >= heartbeat) {
            found.push(Found {
                place: entry.place.clone(),
                value: format!("WatchdogSec={}", entry.value),
                effect: format!(
                    "clients of a process that hangs give up after {}, and meet it again when they come back",
                    render(heartbeat)
                ),
                mend: format!("WatchdogSec={}", heartbeat.as_secs() * 2 / 3),
            });
        }
    }
    found
}

pub(super) fn stop_time(setup: &Setup<'_>) -> Vec<Found> {
    let config = setup.config();
    let stop = config.restart_window + GRACE;
    let (longest, what) = if stop > config.drain_timeout {
        (stop, "a stop takes restart_window and 5s for last words")
    } else {
        (config.drain_timeout, "a drain takes drain_timeout")
    };
    let held = setup.services().filter_map(|unit| unit_time(unit, "Service", "TimeoutStopSec", Duration::from_secs(90)));
    held.filter(|held| held.time <= longest)
        .map(|Held { place, value, .. }| Found {
            place,
            value,
            effect: format!(
                "{what}, {}: systemd kills the process in the middle of it, and its clients are cut all at once",
                render(longest)
            ),
            mend: format!("TimeoutStopSec={}", (longest + Duration::from_secs(15)).as_secs()),
        })
        .collect()
}
