//! What is wrong with a configuration, in the words of whoever wrote it: the place, the key, and what was expected.

use figment::Metadata;
use figment::error::{Actual, Kind};
use std::fmt;

/// A configuration that cannot be used; the process exits with 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// All that was found; never empty.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The flag, the variable, or the file with the setting in it.
    pub place: String,
    /// What was found and what was expected.
    pub what: String,
}

impl ConfigError {
    pub(super) fn one(place: String, what: String) -> Self {
        Self { problems: vec![Problem { place, what }] }
    }

    /// A value of the wrong type or form.
    pub(super) fn wrong_value(error: figment::Error) -> Self {
        // The last part may be an index into a list, which says less than the value does.
        let key = error.path.into_iter().filter(|part| part.parse::<usize>().is_err()).collect::<Vec<_>>().join(".");
        Self::one(place(error.metadata.as_ref(), &key), what(&error.kind))
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (line, problem) in self.problems.iter().enumerate() {
            let separator = if line == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Where a setting has its value from: a variable or a flag is named after it, a file holds many, and a default is the setting's own.
pub(super) fn place(from: Option<&Metadata>, key: &str) -> String {
    match from {
        Some(Metadata { name, source: Some(_), .. }) => format!("{name}: {key}"),
        Some(Metadata { name, .. }) if !name.is_empty() => name.to_string(),
        _ => key.to_owned(),
    }
}

fn what(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => {
            format!("found {}, expected {}", plain(found), expected(wanted))
        }
        Kind::UnknownVariant(found, wanted) => format!("found `{found}`, expected {}", either(wanted)),
        Kind::Message(message) => match message.as_str() {
            "invalid socket address syntax" => r#"expected an address with its port such as "0.0.0.0:8080""#.to_owned(),
            "invalid IP address syntax" => r#"expected an address such as "0.0.0.0""#.to_owned(),
            message => message.to_owned(),
        },
        kind => kind.to_string(),
    }
}

fn plain(found: &Actual) -> String {
    match found {
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(number) => number.to_string(),
        Actual::Signed(number) => number.to_string(),
        Actual::Float(number) => number.to_string(),
        Actual::Str(text) => format!("{text:?}"),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a table".to_owned(),
        found => found.to_string(),
    }
}

/// serde's words for what a reader knows under others.
fn expected(wanted: &str) -> &str {
    match wanted {
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "socket address" => r#"an address with its port such as "0.0.0.0:8080""#,
        "IP address" => r#"an address such as "0.0.0.0""#,
        "path string" => "a path",
        wanted if wanted.starts_with("struct ") => "a table",
        wanted => wanted,
    }
}

fn either(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
}
