//! A configuration that is read again: what of it a running process takes, and what has to wait for its next start.

use super::print::{json, toml};
use super::{Config, ConfigError, Sources};
use crate::options::{Describe, Setting};
use crate::protocol::limits::Limits;
use crate::telemetry;
use serde_json::Value;

/// What a configuration that was read again means to a process that runs.
#[derive(Debug)]
pub struct Reloaded {
    /// What the process runs with from now on.
    pub config: Config,
    /// What that changes, each as `key = value (was value)`.
    pub now: Vec<String>,
    /// The keys of what else is set otherwise, which only a start takes.
    pub later: Vec<String>,
}

impl Config {
    /// Reads everything again for a process that runs with this, and changes nothing.
    ///
    /// # Errors
    /// As [`Config::load`]; or what could be taken at once does not fit what cannot.
    pub fn reload(&self, sources: Sources) -> Result<Reloaded, ConfigError> {
        let loaded = Self::load(sources)?;
        let next = &loaded.config;
        let config = Self {
            limits: Limits {
                // Stores of the whole process are made with theirs, so that no message has to look.
                recovery_bytes: self.limits.recovery_bytes,
                cluster_message_bytes: self.limits.cluster_message_bytes,
                cluster_rooms: self.limits.cluster_rooms,
                cluster_reply_bytes: self.limits.cluster_reply_bytes,
                cluster_outbox_bytes: self.limits.cluster_outbox_bytes,
                ..next.limits.clone()
            },
            cors: next.cors.clone(),
            log: telemetry::Options { level: next.log.level.clone(), ..self.log.clone() },
            ..self.clone()
        };
        loaded.check(&config)?;
        let now = differences(self, &config).into_iter();
        let now = now.map(|Difference { key, was, is }| format!("{key} = {} (was {})", toml(&is), toml(&was))).collect();
        let later = differences(&config, next).into_iter().map(|difference| difference.key).collect();
        Ok(Reloaded { config, now, later })
    }
}

struct Difference {
    key: String,
    was: Value,
    is: Value,
}

fn differences(was: &Config, is: &Config) -> Vec<Difference> {
    let (was, is) = (json(was), json(is));
    let table = |prefix: String, settings: &'static [Setting], was: &Value, is: &Value| {
        let changed = settings.iter().filter(|Setting { key, .. }| was[key] != is[key]);
        let of = |Setting { key, .. }: &Setting| Difference {
            key: format!("{prefix}{key}"),
            was: was[key].clone(),
            is: is[key].clone(),
        };
        changed.map(of).collect::<Vec<_>>()
    };
    let mut found = table(String::new(), Config::SETTINGS, &was, &is);
    for inner in Config::TABLES {
        found.extend(table(format!("{}.", inner.key), inner.settings, &was[inner.key], &is[inner.key]));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flag;

    #[test]
    fn level_limits_and_origins_are_taken_and_the_rest_is_named() {
        let running = load(&["instance=1"]);
        let again = [
            "instance=2",
            "engine.ping_interval=20s",
            "log.level=debug",
            "log.format=json",
            "limits.sessions=5",
            "limits.cluster_rooms=5",
        ];
        let again: Vec<_> = again.into_iter().chain(["cors.origins=https://a.example,https://b.example"]).collect();
        let Reloaded { config, now, later } = running.reload(sources(&again)).expect("right");
        assert_eq!(
            now,
            [
                "limits.sessions = 5 (was 100000)",
                r#"cors.origins = ["https://a.example", "https://b.example"] (was [])"#,
                r#"log.level = "debug" (was "info")"#
            ]
        );
        assert_eq!(later, ["instance", "engine.ping_interval", "limits.cluster_rooms", "log.format"]);
        assert_eq!(config, load(&["instance=1", "log.level=debug", "limits.sessions=5", again[6]]));
        // What waits for the next start is named until then; what was taken is not.
        let Reloaded { now, later, .. } = config.reload(sources(&again)).expect("right");
        assert_eq!((now.len(), later.len()), (0, 4));
    }

    #[test]
    fn nothing_is_taken_of_a_wrong_one() {
        let running = load(&[]);
        let error = running.reload(sources(&["limits.sessions=5", "limits.headers=0"])).expect_err("refused");
        assert_eq!(error.to_string(), "--set limits.headers: must be more than 0");
    }

    #[test]
    fn what_is_taken_has_to_fit_what_stays() {
        let running = load(&["engine.max_payload=100MB"]);
        let error = running.reload(sources(&["limits.inbound_bytes=10MB"])).expect_err("refused").to_string();
        assert!(error.starts_with("--set limits.inbound_bytes: must be at least twice engine.max_payload"), "{error}");
    }

    fn load(settings: &[&str]) -> Config {
        Config::load(sources(settings)).expect("right").config
    }

    fn sources(settings: &[&str]) -> Sources {
        let flags = settings.iter().map(|setting| {
            let (key, text) = setting.split_once('=').expect("key=value");
            Flag { place: format!("--set {key}"), key: key.to_owned(), text: text.to_owned() }
        });
        Sources { flags: flags.collect(), ..Sources::default() }
    }
}
