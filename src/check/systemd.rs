//! systemd's unit files with their drop-ins: what holds in the end, and where it stands.

use super::report::Place;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A unit with its drop-ins; a template's instance is one of its own when drop-ins make it differ.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    /// As in `stickyport@.service` or `stickyport@3.socket`.
    pub(super) name: String,
    /// The unit file itself.
    pub(super) file: Place,
    entries: Vec<Entry>,
}

/// `Key=Value` in a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) place: Place,
}

impl Unit {
    /// The value that holds: the last one, unless it is empty.
    pub(super) fn one(&self, section: &str, key: &str) -> Option<&Entry> {
        self.all(section, key).into_iter().next_back()
    }

    /// All values of a key that may occur several times, since the last empty one.
    pub(super) fn all(&self, section: &str, key: &str) -> Vec<&Entry> {
        let all: Vec<_> = self.entries.iter().filter(|entry| entry.section == section && entry.key == key).collect();
        let from = all.iter().rposition(|entry| entry.value.is_empty()).map_or(0, |at| at + 1);
        all.into_iter().skip(from).collect()
    }

    /// The value that holds of one setting that has several names, each with its section: the last one, unless it is empty.
    pub(super) fn last(&self, names: &[(&str, &str)]) -> Option<&Entry> {
        let is_named = |entry: &&Entry| names.iter().any(|(section, key)| entry.section == *section && entry.key == *key);
        self.entries.iter().rfind(is_named).filter(|entry| !entry.value.is_empty())
    }

    /// Every entry, overridden ones included.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Where a key would have to be added: its section, or the file when it has none.
    pub(super) fn section(&self, section: &str) -> Place {
        let first = self.entries.iter().find(|entry| entry.section == section && *entry.place.file == *self.file.file);
        first.map_or_else(|| self.file.clone(), |entry| entry.place.clone())
    }

    /// `3` of `stickyport@3.socket`.
    pub(super) fn instance(&self) -> Option<&str> {
        let (_, rest) = self.name.split_once('@')?;
        rest.rsplit_once('.').map(|(instance, _)| instance).filter(|instance| !instance.is_empty())
    }

    pub(super) fn is(&self, kind: &str) -> bool {
        self.name.rsplit_once('.').is_some_and(|(_, found)| found == kind)
    }
}

/// A unit file that systemd would not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnitError {
    pub(super) place: Place,
    pub(super) what: String,
}

/// The units that these paths name, each a unit file or a folder of them; drop-ins are found in the folders beside them.
pub(super) fn read(paths: &[PathBuf]) -> io::Result<Result<Vec<Unit>, UnitError>> {
    let mut files = Vec::new();
    let mut drop_ins = BTreeMap::new();
    for path in paths {
        let is_folder = fs::metadata(path).map_err(|error| refused(path, error))?.is_dir();
        let folder = if is_folder { path.as_path() } else { path.parent().unwrap_or(Path::new(".")) };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let mut beside: Vec<_> = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?.iter().map(|entry| entry.path()).collect();
        beside.sort();
        if is_folder {
            let is_unit = |path: &&PathBuf| name(path).strip_suffix(".d").is_some() || path.is_file();
            if !beside.iter().filter(is_unit).any(|path| kind(Path::new(name(path).trim_end_matches(".d"))).is_some()) {
                return Err(refused(path, "there are no units in it"));
            }
            files.extend(beside.iter().filter(|path| path.is_file() && kind(path).is_some()).cloned());
        } else if kind(path).is_some() {
            files.push(path.clone());
        } else {
            return Err(refused(path, "it is no .service, .socket or .target"));
        }
        for folder in beside.into_iter().filter(|path| path.is_dir()) {
            if let Some(unit) = name(&folder).strip_suffix(".d").map(str::to_owned) {
                drop_ins.insert(unit, folder);
            }
        }
    }
    let mut units = Vec::new();
    for file in files {
        let unit = Unit { name: name(&file), file: Place::whole(&file), entries: Vec::new() };
        units.push((unit, vec![file]));
    }
    // An instance inherits from its template, and a unit that is not among the files, such as nginx's, has at least its drop-ins.
    for (full, folder) in &drop_ins {
        if !units.iter().any(|(unit, _)| unit.name == *full) && kind(Path::new(full)).is_some() {
            let base = units.iter().find(|(unit, _)| Some(unit.name.clone()) == template(full)).cloned();
            let (unit, files) = base
                .unwrap_or_else(|| (Unit { name: full.clone(), file: Place::whole(folder), entries: Vec::new() }, Vec::new()));
            units.push((Unit { name: full.clone(), ..unit }, files));
        }
    }
    let mut whole = Vec::new();
    for (mut unit, mut files) in units {
        for of in template(&unit.name).into_iter().chain([unit.name.clone()]) {
            files.extend(drop_ins.get(&of).map(|folder| confs(folder)).transpose()?.unwrap_or_default());
        }
        for file in files {
            match parse(&file, &fs::read_to_string(&file)?) {
                Ok(entries) => unit.entries.extend(entries),
                Err(error) => return Ok(Err(error)),
            }
        }
        whole.push(unit);
    }
    Ok(Ok(whole))
}

/// An error that says which path it is about.
pub(super) fn refused(path: &Path, what: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {what}", path.display()))
}

fn confs(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<_> = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?.iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    Ok(files)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn kind(path: &Path) -> Option<&str> {
    path.extension()?.to_str().filter(|kind| ["service", "socket", "target"].contains(kind))
}

/// `stickyport@.socket` of `stickyport@3.socket`.
fn template(name: &str) -> Option<String> {
    let (start, rest) = name.split_once('@')?;
    let (instance, kind) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{start}@.{kind}"))
}

/// The entries of one file: comments, sections, and lines that a backslash continues.
fn parse(file: &Path, text: &str) -> Result<Vec<Entry>, UnitError> {
    let file: Arc<Path> = file.into();
    let mut entries = Vec::new();
    let mut section = String::new();
    let mut begun: Option<(usize, String)> = None;
    for (text, line) in text.lines().zip(1..) {
        // Also in the middle of a continued line, which goes on after it.
        if text.trim_start().starts_with(['#', ';']) {
            continue;
        }
        let (line, text) = match begun.take() {
            Some((line, start)) => (line, start + text),
            None => (line, text.to_owned()),
        };
        if let Some(start) = text.strip_suffix('\\') {
            begun = Some((line, format!("{start} ")));
            continue;
        }
        let (text, place) = (text.trim(), Place { file: Arc::clone(&file), line });
        if text.is_empty() {
        } else if let Some(name) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = text.split_once('=') {
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            entries.push(Entry { section: section.clone(), key, value, place });
        } else {
            return Err(UnitError { place, what: format!("`{text}` is neither a section nor key=value") });
        }
    }
    Ok(entries)
}

/// A time span such as `45`, `45s`, `1min 30s`; `infinity` is none.
pub(super) fn time(text: &str) -> Option<Duration> {
    const UNITS: [(&[&str], f64); 7] = [
        (&["us", "usec", "µs"], 0.000_001),
        (&["ms", "msec"], 0.001),
        (&["", "s", "sec", "second", "seconds"], 1.0),
        (&["m", "min", "minute", "minutes"], 60.0),
        (&["h", "hr", "hour", "hours"], 3600.0),
        (&["d", "day", "days"], 86_400.0),
        (&["w", "week", "weeks"], 604_800.0),
    ];
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(digits)?;
        let after = after.trim_start();
        let letters = after.find(|c: char| c.is_ascii_digit() || c.is_whitespace()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(letters)?;
        let (_, size) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
        seconds += number.parse::<f64>().ok()? * size;
        rest = after.trim_start();
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// Whether a boolean is set to yes.
pub(super) fn is_yes(text: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"].iter().any(|yes| text.eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_holds_and_an_empty_one_forgets() {
        let text = "# a\n[Service]\nRestart = no\nRestart=on-failure\nSockets=a \\\n; a comment\n  b\nSockets=\nSockets=c\n[Unit]\nRestart=x\n";
        let unit = unit(text);
        let restart = unit.one("Service", "Restart").expect("set");
        assert_eq!((restart.value.as_str(), restart.place.line), ("on-failure", 4));
        let sockets: Vec<_> =
            unit.all("Service", "Sockets").iter().map(|entry| (entry.value.as_str(), entry.place.line)).collect();
        assert_eq!(sockets, [("c", 9)]);
        assert_eq!(unit.entries()[2].value, "a    b");
    }

    #[test]
    fn what_is_no_assignment_is_an_error() {
        let error = parse(Path::new("x"), "[Service]\nRestart\n").expect_err("refused");
        assert_eq!((error.place.line, error.what.as_str()), (2, "`Restart` is neither a section nor key=value"));
    }

    #[test]
    fn time_spans_are_systemds() {
        let seconds = |text| time(text).map(|time| time.as_secs_f64());
        for (text, expected) in
            [("45", 45.0), ("1min 30s", 90.0), ("100ms", 0.1), ("2h", 7200.0), ("1.5s", 1.5), ("5 min", 300.0)]
        {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "infinity", "5x", "s"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn instances_have_their_number_and_their_template() {
        let unit = Unit { name: "stickyport@3.socket".to_owned(), ..unit("") };
        assert_eq!((unit.instance(), template(&unit.name).as_deref()), (Some("3"), Some("stickyport@.socket")));
        assert!(unit.is("socket") && !unit.is("service"));
        assert_eq!(template("stickyport@.socket"), None);
    }

    fn unit(text: &str) -> Unit {
        let entries = parse(Path::new("x"), text).expect("parsed");
        Unit { name: "a.service".to_owned(), file: Place::whole("x"), entries }
    }
}
