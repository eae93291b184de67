//! Where settings come from, each source checked for keys that do not exist before they are merged.

use super::error::{ConfigError, Problem};
use crate::options::{Describe, Setting};
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const PREFIX: &str = "STICKYPORT_";

/// Where to read settings from; the default is nowhere.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file, which must exist.
    pub file: Option<PathBuf>,
    /// Variables, of which those that begin with `STICKYPORT_` count; two underscores stand for a dot.
    pub environment: Vec<(OsString, OsString)>,
    /// What the command line sets; the last one wins.
    pub flags: Vec<Flag>,
}

/// A setting on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// What was written there, for error messages.
    pub place: String,
    /// The setting, as `table.key`.
    pub key: String,
    /// Its value, without TOML's quotes if it likes.
    pub text: String,
}

impl Sources {
    /// All sources, later ones above earlier ones, and the variables that name no setting.
    pub(super) fn merge<T: Describe>(&self) -> Result<(Figment, Vec<String>), ConfigError> {
        let known = Value::serialize(T::default()).expect("settings are plain data");
        let known = known.as_dict().expect("settings are a table");
        let mut figment = Figment::from(Source { metadata: Metadata::named(""), dict: known.clone() });
        let mut problems = Vec::new();
        let mut unknown_variables = Vec::new();

        if let Some(path) = &self.file {
            let place = path.display().to_string();
            let dict = read(path).map_err(|what| ConfigError::one(place.clone(), what))?;
            for key in unknown_keys(&dict, known) {
                let what = format!("unknown key `{key}`; {}", known_keys::<T>(&key));
                problems.push(Problem { place: place.clone(), what });
            }
            figment = figment.merge(Source { metadata: Metadata::from(place, &**path), dict });
        }
        for (name, text) in &self.environment {
            let Some((name, key)) = name.to_str().and_then(|name| Some((name, name.strip_prefix(PREFIX)?))) else { continue };
            let key = key.to_ascii_lowercase().replace("__", ".");
            match (setting(&key, known), text.to_str()) {
                (None, _) => unknown_variables.push(name.to_owned()),
                (Some(_), None) => problems.push(Problem { place: name.to_owned(), what: "is not UTF-8".to_owned() }),
                (Some(default), Some(text)) => figment = figment.merge(Source::of(name.to_owned(), &key, typed(text, default))),
            }
        }
        for Flag { place, key, text } in &self.flags {
            let place = place.clone();
            match setting(key, known) {
                None => problems.push(Problem { place, what: format!("unknown key; {}", known_keys::<T>(key)) }),
                Some(default) => figment = figment.merge(Source::of(place, key, typed(text, default))),
            }
        }
        if problems.is_empty() { Ok((figment, unknown_variables)) } else { Err(ConfigError { problems }) }
    }
}

/// Reads a table that is not among the program's own settings.
///
/// # Errors
/// A source cannot be read, names a key that does not exist, or sets a value that cannot be used.
pub fn table<T: Describe + DeserializeOwned>(sources: &Sources) -> Result<T, ConfigError> {
    sources.merge::<T>()?.0.extract().map_err(ConfigError::wrong_value)
}

/// What one place sets.
struct Source {
    metadata: Metadata,
    dict: Dict,
}

impl Source {
    fn of(place: String, key: &str, value: Value) -> Self {
        let nested = figment::util::nest(key, value);
        Self { metadata: Metadata::named(place), dict: nested.into_dict().expect("a key nests into a table") }
    }
}

impl Provider for Source {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

fn read(path: &Path) -> Result<Dict, String> {
    let mut profiles = Toml::file_exact(path).data().map_err(|error| on_one_line(&error.to_string()))?;
    Ok(profiles.remove(&Profile::Default).unwrap_or_default())
}

/// Without the drawing of the place, which takes three lines and says no more than its line and column.
fn on_one_line(error: &str) -> String {
    let mut lines = error.trim_end().lines();
    let place = lines.next().unwrap_or_default();
    let what = lines.skip(3).collect::<Vec<_>>().join(", ");
    if what.is_empty() { place.to_owned() } else { format!("{place}: {what}") }
}

/// The default of a setting; `None` when there is no such setting.
fn setting<'a>(key: &str, known: &'a Dict) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let mut value = known.get(parts.next()?)?;
    for part in parts {
        value = value.as_dict()?.get(part)?;
    }
    if value.as_dict().is_some() { None } else { Some(value) }
}

/// The keys of a file that name no setting; one that should be a table and is not is left to be found as a wrong value.
fn unknown_keys(dict: &Dict, known: &Dict) -> Vec<String> {
    let mut unknown = Vec::new();
    for (key, value) in dict {
        match (known.get(key), value) {
            (None, _) => unknown.push(key.clone()),
            (Some(Value::Dict(_, known)), Value::Dict(_, dict)) => {
                unknown.extend(unknown_keys(dict, known).into_iter().map(|inner| format!("{key}.{inner}")));
            }
            _ => {}
        }
    }
    unknown
}

/// What there is where a key was looked for.
fn known_keys<T: Describe>(key: &str) -> String {
    let table = key.split('.').next().and_then(|name| T::TABLES.iter().find(|table| table.key == name));
    let names = |settings: &[Setting]| settings.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", ");
    match table {
        Some(table) => format!("[{}] has {}", table.key, names(table.settings)),
        None => {
            let tables = T::TABLES.iter().map(|table| format!(", [{}]", table.key));
            format!("there are {}{}", names(T::SETTINGS), tables.collect::<String>())
        }
    }
}

/// What a text means to a setting of that default: nobody should have to write TOML's quotes into a variable.
fn typed(text: &str, default: &Value) -> Value {
    let parsed = || text.parse::<Value>().expect("what is no number is a string");
    match default {
        Value::String(..) if !text.starts_with('"') => Value::from(text),
        Value::Array(..) if !text.trim_start().starts_with('[') => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::from(items.map(Value::from).collect::<Vec<_>>())
        }
        _ => parsed(),
    }
}
