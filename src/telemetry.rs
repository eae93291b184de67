//! Logs, to standard error: standard output belongs to what was asked for.

use crate::options;
use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

options! {
    /// Logs, which go to standard error.
    pub struct Options {
        /// Least level that is logged: `error`, `warn`, `info`, `debug`, `trace` or `off`; by module as in `"info,stickyport::engine=debug"`.
        pub level: String = "info".to_owned(),
        /// `human`, a line for the reader, or `json`, an object a line for machines.
        pub format: Format = Format::Human
    }
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A line for the reader, in colour on a terminal.
    Human,
    /// An object a line.
    Json,
}

/// A log level that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is neither a level (error, warn, info, debug, trace, off) nor directives such as \"info,stickyport::engine=debug\""
)]
pub struct LevelError(String);

impl Options {
    /// Reads `level`.
    ///
    /// # Errors
    /// A level or directive that is not understood.
    pub fn filter(&self) -> Result<EnvFilter, LevelError> {
        let directives = self.level.split(',').map(str::trim);
        // A bare word that is no level would be taken for a module's name, and a typo would silence all the others.
        for directive in directives {
            if directive.is_empty() || !directive.contains('=') && directive.parse::<LevelFilter>().is_err() {
                return Err(LevelError(directive.to_owned()));
            }
        }
        let filter = EnvFilter::try_new(&self.level).map_err(|_| LevelError(self.level.clone()))?;
        // Its TRACE shows every message whole, and with it tokens and the credential of connection state recovery.
        Ok(filter.add_directive("tungstenite=off".parse().expect("a directive")))
    }
}

/// The log of this process, whose level may be changed.
#[derive(Debug)]
pub struct Log(Handle<EnvFilter, Registry>);

impl Log {
    /// Logs at the level of these options from now on; their format is left alone.
    ///
    /// # Errors
    /// A level that is not understood.
    pub fn set_level(&self, options: &Options) -> Result<(), LevelError> {
        // It can only fail because somebody else has set up logging, and decides there.
        let _ = self.0.reload(options.filter()?);
        Ok(())
    }
}

/// Starts logging for the whole process; a second call changes nothing.
///
/// # Errors
/// A level that is not understood.
pub fn init(options: &Options) -> Result<Log, LevelError> {
    let (filter, level) = reload::Layer::new(options.filter()?);
    let registry = tracing_subscriber::registry().with(filter);
    // A log whose reader is gone is lost; saying so on standard error would panic whoever logs.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    // It can only fail because somebody else, such as a test, has set up logging before.
    let _ = match options.format {
        Format::Human => registry.with(lines.with_ansi(wants_colour())).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Ok(Log(level))
}

/// Colour is for terminals, and not for those who ask for none (<https://no-color.org>).
fn wants_colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_word_or_directives() {
        for level in ["info", "off", "DEBUG", "warn,stickyport=trace", "stickyport::engine=debug, info"] {
            assert!(with(level).filter().is_ok(), "{level}");
        }
    }

    #[test]
    fn no_level_shows_whole_messages() {
        for level in ["trace", "tungstenite=trace"] {
            let filter = with(level).filter().expect("a level");
            assert!(filter.to_string().contains("tungstenite=off"), "{filter}");
            assert!(!filter.to_string().contains("tungstenite=trace"), "{filter}");
        }
    }

    #[test]
    fn a_typo_is_not_taken_for_a_module() {
        for (level, culprit) in [("infoo", "infoo"), ("", ""), ("info,debugg", "debugg"), ("stickyport=loud", "stickyport=loud")]
        {
            assert_eq!(with(level).filter().err(), Some(LevelError(culprit.to_owned())), "{level}");
        }
    }

    fn with(level: &str) -> Options {
        Options { level: level.to_owned(), ..Options::default() }
    }
}
