//! What the kernel of a host allows, as its /proc says.

use super::report::Place;
use super::systemd::refused;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// A host's /proc, or a copy of it.
#[derive(Debug)]
pub(super) struct Host {
    folder: PathBuf,
    /// Ports that outgoing connections take, and which of them they leave alone.
    pub(super) port_range: Option<RangeInclusive<u16>>,
    pub(super) reserved_ports: Vec<RangeInclusive<u16>>,
    pub(super) somaxconn: Option<u64>,
    pub(super) nr_open: Option<u64>,
    pub(super) cpus: Option<u64>,
    /// The processes that run now, and how many descriptors each may open.
    pub(super) running: Vec<(Place, String, u64)>,
}

impl Host {
    pub(super) fn read(folder: &Path) -> io::Result<Self> {
        fs::metadata(folder).map_err(|error| refused(folder, error))?;
        let line = |path: &str| fs::read_to_string(folder.join(path)).ok().map(|text| text.trim().to_owned());
        let number = |path: &str| line(path)?.parse().ok();
        let port_range = line("sys/net/ipv4/ip_local_port_range").and_then(|text| {
            let (first, last) = text.split_once(char::is_whitespace)?;
            Some(first.parse().ok()?..=last.trim().parse().ok()?)
        });
        let reserved = line("sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
        let cpus = line("cpuinfo").map(|text| text.lines().filter(|line| line.starts_with("processor")).count() as u64);
        let somaxconn = number("sys/net/core/somaxconn");
        if port_range.is_none() && somaxconn.is_none() && cpus.is_none() {
            return Err(refused(folder, "it is no /proc of a host"));
        }
        Ok(Self {
            port_range,
            reserved_ports: reserved.split(',').filter_map(range).collect(),
            somaxconn,
            nr_open: number("sys/fs/nr_open"),
            cpus: cpus.filter(|&cpus| cpus > 0),
            running: running(folder),
            folder: folder.to_owned(),
        })
    }

    /// A file of it.
    pub(super) fn place(&self, path: &str) -> Place {
        Place { line: 1, ..Place::whole(self.folder.join(path)) }
    }

    /// Whether no outgoing connection takes that port.
    pub(super) fn keeps_free(&self, port: u16) -> bool {
        let is_taken = self.port_range.as_ref().is_some_and(|range| range.contains(&port));
        !is_taken || self.reserved_ports.iter().any(|range| range.contains(&port))
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
}

/// The instances that run now; of nginx the master, whose limit its workers begin with, is none of them.
fn running(folder: &Path) -> Vec<(Place, String, u64)> {
    let mut found = Vec::new();
    for process in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_process = process.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
        let Ok(name) = fs::read_to_string(process.path().join("comm")) else { continue };
        if !is_process || name.trim() != "stickyport" || !serves(&process.path()) {
            continue;
        }
        let path = process.path().join("limits");
        let Ok(limits) = fs::read_to_string(&path) else { continue };
        let open = limits.lines().zip(1..).find_map(|(text, line)| Some((text.strip_prefix("Max open files")?.to_owned(), line)));
        let Some((text, line)) = open else { continue };
        if let Some(Ok(soft)) = text.split_whitespace().next().map(str::parse) {
            found.push((Place { line, ..Place::whole(path) }, name.trim().to_owned(), soft));
        }
    }
    found
}

/// Whether it is an instance, and not one of the program's other commands, such as the one that asks.
fn serves(process: &Path) -> bool {
    let line = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
    !line.split('\0').any(|word| ["check", "check-config", "print-config", "emit", "nodes", "help"].contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_can_be_read() {
        let host = Host::read(Path::new("/proc")).expect("there");
        assert!(host.cpus.is_some() && host.nr_open.is_some());
        assert!(host.port_range.is_some_and(|range| range.start() < range.end()));
    }

    #[test]
    fn reserved_ports_are_ranges() {
        let ranges: Vec<_> = "8080,3131-3162".split(',').filter_map(range).collect();
        assert_eq!(ranges, [8080..=8080, 3131..=3162]);
        assert!("".split(',').filter_map(range).next().is_none());
    }
}
