//! Rules: what systemd does with an instance and its sockets.

use super::Found;
use super::times::unit_time;
use crate::check::systemd::{Entry, Unit, is_yes};
use crate::check::{MOST_INSTANCES, Setup};
use std::time::Duration;

fn at(
    entry: Option<&Entry>,
    unit: &Unit,
    section: &str,
    missing: &str,
    effect: impl Into<String>,
    mend: impl Into<String>,
) -> Found {
    Found {
        place: entry.map_or_else(|| unit.section(section), |entry| entry.place.clone()),
        value: entry.map_or_else(|| missing.to_owned(), |entry| format!("{}={}", entry.key, entry.value)),
        effect: effect.into(),
        mend: mend.into(),
    }
}

pub(super) fn unit_type(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for unit in setup.services() {
        let entry = unit.one("Service", "Type");
        if entry.is_none_or(|entry| entry.value != "notify") {
            let effect = "systemd takes the process for ready before it listens, so a rolling deploy goes on while nobody is served, and hears no watchdog \
                          (systemd 252 takes `notify-reload` for a typo, and the unit for Type=simple)";
            found.push(at(entry, unit, "Service", "no Type, which is simple then", effect, "Type=notify"));
        }
        let access = unit.one("Service", "NotifyAccess").filter(|access| access.value == "none");
        if access.is_some() {
            found.push(at(
                access,
                unit,
                "Service",
                "",
                "systemd does not listen, and kills a process that is well",
                "NotifyAccess=main",
            ));
        }
    }
    found
}

pub(super) fn instance(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for unit in setup.services().filter(|unit| unit.name.contains("@.")) {
        let commands = unit.all("Service", "ExecStart").into_iter().filter_map(|entry| entry.value.split_once(' '));
        let variables = ["Environment", "EnvironmentFile"].into_iter().flat_map(|key| unit.all("Service", key));
        let told = commands.map(|(_, arguments)| arguments).chain(variables.map(|entry| entry.value.as_str()));
        if !told.into_iter().any(|text| text.contains("%i") || text.contains("%I")) {
            let entry = unit.one("Service", "ExecStart");
            found.push(at(
                entry,
                unit,
                "Service",
                "",
                "every instance is instance 0: the second finds the port taken, exits with 69 and is given up",
                "ExecStart=… --instance %i",
            ));
        }
    }
    found
}

pub(super) fn ignored(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for unit in setup.units.iter().filter(|unit| unit.name.starts_with("stickyport")) {
        // What begins with X- is the operator's own, and no line of it is meant for systemd.
        for entry in unit.entries().iter().filter(|entry| !entry.section.starts_with("X-") && !entry.key.starts_with("X-")) {
            let sections = sections(&entry.key);
            let mend = if sections.contains(&entry.section.as_str()) {
                continue;
            } else if let Some(section) = sections.iter().find(|section| **section == "Unit" || unit.is(&section.to_lowercase()))
            {
                format!("move it to [{section}]")
            } else {
                "correct its name, or remove it: systemd 252 knows none such".to_owned()
            };
            let effect =
                format!("systemd ignores it in [{}] with a line in the journal, and does what it does without it", entry.section);
            found.push(at(Some(entry), unit, "", "", effect, mend));
        }
    }
    found
}

/// Where systemd 252 knows a directive.
fn sections(key: &str) -> Vec<&'static str> {
    let mut current = "";
    let mut found = Vec::new();
    for line in include_str!("../directives.txt").lines().filter(|line| !line.starts_with('#')) {
        if let Some(sections) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            current = sections;
        } else if line.split(' ').any(|known| known == key) {
            found.extend(current.split(' '));
        }
    }
    found
}

pub(super) fn restart(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for unit in setup.services() {
        let entry = unit.one("Service", "Restart");
        if !starts_again(unit) {
            let effect = "an instance that crashes stays down until somebody notices; its clients are on the others meanwhile";
            found.push(at(entry, unit, "Service", "no Restart", effect, "Restart=on-failure"));
        }
    }
    found
}

fn starts_again(unit: &Unit) -> bool {
    unit.one("Service", "Restart").is_some_and(|entry| ["on-failure", "always"].contains(&entry.value.as_str()))
}

pub(super) fn start_limit(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for unit in setup.services().filter(|unit| starts_again(unit)) {
        let pause = unit_time(unit, "Service", "RestartSec", Duration::from_millis(100));
        // The names of before systemd 230 hold as well, and of several the one that was read last.
        let (section, key) = unit
            .last(&[("Unit", "StartLimitIntervalSec"), ("Unit", "StartLimitInterval"), ("Service", "StartLimitInterval")])
            .map_or(("Unit", "StartLimitIntervalSec"), |entry| (entry.section.as_str(), entry.key.as_str()));
        let interval = unit_time(unit, section, key, Duration::from_secs(10));
        let set = unit.last(&[("Unit", "StartLimitBurst"), ("Service", "StartLimitBurst")]);
        let burst: u32 = set.and_then(|entry| entry.value.parse().ok()).unwrap_or(5);
        let (Some(pause), Some(interval)) = (pause, interval) else { continue };
        if pause.time * burst >= interval.time || burst == 0 {
            let crashes = pause.time * burst;
            found.push(Found {
                value: format!("{} ({burst} starts, {})", interval.value, pause.value),
                place: interval.place,
                effect: format!("{burst} crashes take {} s or more, so the limit never trips: an instance that cannot start is started for ever, and nobody is told", crashes.as_secs_f64()),
                mend: format!("StartLimitIntervalSec={} in [Unit]", (crashes.as_secs() * 6).max(60)),
            });
        }
    }
    found
}

pub(super) fn restart_prevented(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for unit in setup.services().filter(|unit| starts_again(unit)) {
        let entries = unit.all("Service", "RestartPreventExitStatus");
        if !entries.iter().any(|entry| entry.value.split_whitespace().any(|status| ["64", "USAGE"].contains(&status))) {
            let effect = "a wrong configuration, which is as wrong at the second start, is tried until the start limit trips";
            found.push(at(
                entries.last().copied(),
                unit,
                "Service",
                "no RestartPreventExitStatus",
                effect,
                "RestartPreventExitStatus=64",
            ));
        }
    }
    found
}

pub(super) fn on_failure(setup: &Setup<'_>) -> Vec<Found> {
    let silent = setup.services().filter(|unit| unit.all("Unit", "OnFailure").is_empty());
    let effect = "an instance that was given up is missed by nobody until a second one is";
    silent.map(|unit| at(None, unit, "Unit", "no OnFailure", effect, "OnFailure=stickyport-alert@%i.service in [Unit]")).collect()
}

pub(super) fn runtime_directory(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for unit in setup.services().filter(|unit| unit.name.contains('@')) {
        let keeps =
            unit.one("Service", "RuntimeDirectoryPreserve").is_some_and(|entry| is_yes(&entry.value) || entry.value == "restart");
        let shared = unit.all("Service", "RuntimeDirectory").into_iter().find(|entry| !entry.value.contains("%i"));
        if let Some(entry) = shared.filter(|_| !keeps) {
            let effect =
                "the folder belongs to all instances, and the first one that stops deletes it with the sockets of the others";
            found.push(at(Some(entry), unit, "Service", "", effect, "RuntimeDirectoryPreserve=yes"));
        }
    }
    found
}

pub(super) fn socket_name(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for unit in handed_over(setup) {
        let entry = unit.one("Socket", "FileDescriptorName");
        if !entry.is_some_and(|entry| ["ws", "http"].contains(&entry.value.as_str())) {
            let effect = "the program does not know what the socket is for and exits with 64";
            let mend = if unit.name.contains('@') { "FileDescriptorName=ws" } else { "FileDescriptorName=http" };
            found.push(at(entry, unit, "Socket", "no FileDescriptorName, which is the unit's name then", effect, mend));
        }
    }
    found
}

/// The sockets that an instance gets.
fn handed_over<'s>(setup: &'s Setup<'_>) -> impl Iterator<Item = &'s Unit> {
    let listed: Vec<_> = setup
        .services()
        .flat_map(|unit| unit.all("Service", "Sockets"))
        .flat_map(|entry| entry.value.split_whitespace())
        .collect();
    setup.units.iter().filter(move |unit| {
        let is_listed = listed.iter().any(|name| *name == unit.name || *name == unit.name.replace("@.", "@%i."));
        unit.is("socket") && (is_listed || unit.name.starts_with("stickyport@"))
    })
}

pub(super) fn socket_port(setup: &Setup<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for unit in setup.units.iter().filter(|unit| unit.is("socket") && unit.name.starts_with("stickyport@")) {
        let Some(instance) = unit.instance().and_then(|instance| instance.parse::<u16>().ok()) else { continue };
        let Some(expected) = setup.own_port(instance).filter(|_| instance < MOST_INSTANCES) else { continue };
        for entry in unit.all("Socket", "ListenStream") {
            let port = entry.value.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
            if port.is_some_and(|port| port != expected) {
                let effect = format!(
                    "instance {instance} listens where nginx looks for another one, or for none: its clients' sessions are not found"
                );
                found.push(at(
                    Some(entry),
                    unit,
                    "Socket",
                    "",
                    effect,
                    format!("ListenStream={expected} (ws.base_port + {instance})"),
                ));
            }
        }
    }
    found
}

pub(super) fn socket_listed(setup: &Setup<'_>) -> Vec<Found> {
    let Some(shared) = shared_socket(setup) else { return Vec::new() };
    let mut found = Vec::new();
    for unit in setup.services() {
        let entries = unit.all("Service", "Sockets");
        if !entries.iter().any(|entry| entry.value.split_whitespace().any(|name| name == shared.name)) {
            let effect = format!(
                "the instance is not handed the shared port and binds it itself, which {} has: it exits with 69",
                shared.name
            );
            found.push(at(
                entries.last().copied(),
                unit,
                "Service",
                "no Sockets",
                effect,
                format!("Sockets=stickyport@%i.socket {}", shared.name),
            ));
        }
    }
    found
}

pub(super) fn socket_service(setup: &Setup<'_>) -> Vec<Found> {
    let Some(shared) = shared_socket(setup) else { return Vec::new() };
    let entry = shared.one("Socket", "Service").filter(|entry| setup.services().any(|unit| is_of(&entry.value, &unit.name)));
    let effect = "each request on the shared port starts that instance, so it does not stay stopped when it was taken out";
    entry
        .map(|entry| at(Some(entry), shared, "Socket", "", effect, "Service=stickyport-http.service, which does nothing"))
        .into_iter()
        .collect()
}

/// Whether a name is a unit's, or one of its instances'.
fn is_of(name: &str, unit: &str) -> bool {
    name == unit || unit.split_once("@.").is_some_and(|(start, _)| name.split_once('@').is_some_and(|(found, _)| found == start))
}

/// The socket that all instances of the host share.
fn shared_socket<'s>(setup: &'s Setup<'_>) -> Option<&'s Unit> {
    setup
        .units
        .iter()
        .find(|unit| unit.is("socket") && unit.one("Socket", "FileDescriptorName").is_some_and(|name| name.value == "http"))
}
