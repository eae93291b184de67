//! What was found, for the reader and for machines.

use serde::Serialize;
use std::fmt::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// A line of a file; line 0 is the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Arc<Path>,
    pub(super) line: usize,
}

impl Place {
    /// A file, flag or variable as a whole.
    pub(super) fn whole(file: impl AsRef<Path>) -> Self {
        Self { file: file.as_ref().into(), line: 0 }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something could not be judged.
    Note,
    /// It works, and worse than it could.
    Warning,
    /// Clients will notice, or a credential is given away.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule that is broken.
    pub rule: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The file, variable or flag.
    pub file: String,
    /// The line in the file; 0 where it is the file as a whole.
    pub line: usize,
    /// What stands there.
    pub value: String,
    /// What happens in production because of it.
    pub effect: String,
    /// What to do.
    pub mend: String,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Mistakes that clients will notice.
    pub errors: usize,
    /// Those that clients will not notice.
    pub warnings: usize,
    /// What could not be judged, which is no mistake.
    pub notes: usize,
    /// The worst first.
    pub findings: Vec<Finding>,
    /// What there was to judge.
    pub read: Vec<String>,
    /// What was not given, and the flag that gives it.
    pub not_judged: Vec<String>,
}

impl Report {
    pub(super) fn of(mut findings: Vec<Finding>, read: Vec<String>, not_judged: Vec<String>) -> Self {
        findings.sort_by(|one, other| {
            other.severity.cmp(&one.severity).then_with(|| (&one.file, one.line).cmp(&(&other.file, other.line)))
        });
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        let (errors, warnings, notes) = (count(Severity::Error), count(Severity::Warning), count(Severity::Note));
        Self { errors, warnings, notes, findings, read, not_judged }
    }

    /// Text for the reader.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Finding { rule, severity, file, line, value, effect, mend } in &self.findings {
            let place = if *line == 0 { file.clone() } else { format!("{file}:{line}") };
            write!(text, "{severity}: {place}: {value} [{rule}]\n  what happens: {effect}\n  mend: {mend}\n\n")
                .expect("a string takes everything");
        }
        let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let notes = if self.notes == 0 { String::new() } else { format!(", {}", plural(self.notes, "note")) };
        text + &match (self.errors, self.warnings) {
            (0, 0) => format!("nothing found{notes}\n"),
            (errors, warnings) => format!("{}, {}{notes}\n", plural(errors, "error"), plural(warnings, "warning")),
        } + &list("read", &self.read)
            + &list("not judged", &self.not_judged)
    }

    /// An object for machines.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data") + "\n"
    }
}

fn list(what: &str, entries: &[String]) -> String {
    if entries.is_empty() { String::new() } else { format!("{what}: {}\n", entries.join(", ")) }
}
