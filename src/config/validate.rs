//! What types cannot say about settings: numbers that must not be zero, texts of a form, settings that do not fit each other.

use super::Config;
use std::collections::HashSet;
use std::time::Duration;

/// hyper refuses a smaller buffer for a request's headers.
const LEAST_HEADER_BYTES: usize = 8 * 1024;

impl Config {
    /// The settings that cannot be used, each with its reason.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Problems(Vec::new());
        self.ports(&mut problems);
        self.engine_options(&mut problems);
        self.bounds(&mut problems);
        problems.check("public_url", is_url(&self.public_url), || {
            format!(r#"{:?} is no URL such as "https://example.org""#, self.public_url)
        });
        for origin in &self.cors.origins {
            problems.check("cors.origins", is_origin(origin), || {
                format!(r#"{origin:?} is neither "*" nor an origin such as "https://example.org", without a slash at the end"#)
            });
        }
        let to_all = self.cors.origins.iter().any(|origin| origin == "*");
        problems.check("cors.credentials", !(self.cors.credentials && to_all), || {
            r#"browsers refuse credentials together with cors.origins = ["*"]; name the origins"#.to_owned()
        });
        if !self.redis.url.is_empty()
            && let Err(error) = self.redis.check()
        {
            // Without the URL itself, which may hold a password.
            problems.0.push(("redis.url", error.to_string()));
        }
        problems.check("redis.prefix", !self.redis.prefix.is_empty() && !self.redis.prefix.contains('#'), || {
            format!("{:?} is empty or has a #, which divides the parts of a channel's name", self.redis.prefix)
        });
        problems.check("redis.stream", !self.redis.stream.is_empty(), || "is empty, and a stream needs a key".to_owned());
        problems.check("redis.session_prefix", !self.redis.session_prefix.is_empty(), || {
            "is empty, and sessions would be among all other keys".to_owned()
        });
        problems.check("redis.stream_count", (1..=1_000).contains(&self.redis.stream_count), || "must be 1 to 1000".to_owned());
        for (key, count) in [("redis.stream_length", self.redis.stream_length), ("redis.stream_read", self.redis.stream_read)] {
            problems.check(key, count > 0, || "must be more than 0".to_owned());
        }
        if let Err(error) = self.log.filter() {
            problems.0.push(("log.level", error.to_string()));
        }
        problems.0
    }

    fn ports(&self, problems: &mut Problems) {
        let base = self.ws.base_port;
        let own = base.checked_add(self.instance);
        problems.check("instance", own.is_some(), || {
            format!("ws.base_port {base} + instance {} is above 65535, the last port", self.instance)
        });
        let shared = self.http.listen.port();
        problems.check("http.listen", base == 0 || own != Some(shared), || {
            format!("port {shared} is this instance's own port (ws.base_port {base} + instance {})", self.instance)
        });
    }

    fn engine_options(&self, problems: &mut Problems) {
        let engine = &self.engine;
        // Braces, stars and colons are the router's own; slashes alone would take every path of the own port.
        let plain = |c: char| c.is_ascii_graphic() && !"?#%{}*:".contains(c);
        let is_path = engine.path.starts_with('/') && engine.path.chars().all(plain) && engine.path.chars().any(|c| c != '/');
        problems.check("engine.path", is_path, || format!(r#"{:?} is no path such as "/socket.io/""#, engine.path));
        let distinct: HashSet<_> = engine.transports.iter().collect();
        problems.check("engine.transports", !distinct.is_empty() && distinct.len() == engine.transports.len(), || {
            "expected `polling`, `websocket` or both, each once".to_owned()
        });
        for (key, time) in [
            ("engine.ping_interval", engine.ping_interval),
            ("engine.ping_timeout", engine.ping_timeout),
            ("engine.upgrade_timeout", engine.upgrade_timeout),
            ("socketio.connect_timeout", self.socketio.connect_timeout),
            ("redis.request_timeout", self.redis.request_timeout),
            ("limits.header_timeout", self.limits.header_timeout),
            ("limits.body_timeout", self.limits.body_timeout),
            ("limits.keep_alive", self.limits.keep_alive),
        ] {
            problems.check(key, !time.is_zero(), || "must be more than 0".to_owned());
            // Far enough for anyone, and near enough that `now + time` is always a time.
            problems.check(key, time <= DAY, || "must be at most 24h".to_owned());
        }
        for (key, time) in [
            ("restart_window", self.restart_window),
            ("drain_timeout", self.drain_timeout),
            ("socketio.recovery", self.socketio.recovery),
        ] {
            problems.check(key, time <= DAY, || "must be at most 24h".to_owned());
        }
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        problems.check("engine.cookie", engine.cookie.chars().all(token), || format!("{:?} is no cookie's name", engine.cookie));
        let is_header = http::HeaderValue::from_str(&engine.cookie_attributes).is_ok();
        problems.check("engine.cookie_attributes", is_header, || format!("{:?} fits in no header", engine.cookie_attributes));
        for (key, names) in [
            ("cors.methods", &self.cors.methods),
            ("cors.allowed_headers", &self.cors.allowed_headers),
            ("cors.exposed_headers", &self.cors.exposed_headers),
        ] {
            for name in names {
                problems.check(key, !name.is_empty() && name.chars().all(token), || format!("{name:?} is no name of one"));
            }
        }
        let status = self.cors.preflight_status;
        problems.check("cors.preflight_status", (200..300).contains(&status), || format!("{status} is no success"));
    }

    fn bounds(&self, problems: &mut Problems) {
        let limits = &self.limits;
        for (key, number) in [
            ("engine.max_payload", self.engine.max_payload),
            ("limits.packets_per_payload", limits.packets_per_payload),
            ("limits.namespaces_per_session", limits.namespaces_per_session),
            ("limits.rooms_per_socket", limits.rooms_per_socket),
            ("limits.child_namespaces", limits.child_namespaces),
            ("limits.pending_events", limits.pending_events),
            ("limits.pending_event_bytes", limits.pending_event_bytes),
            ("limits.outbox_bytes", limits.outbox_bytes),
            ("limits.outbound_bytes", limits.outbound_bytes),
            ("limits.inbound_bytes", limits.inbound_bytes),
            ("limits.cluster_message_bytes", limits.cluster_message_bytes),
            ("limits.cluster_rooms", limits.cluster_rooms),
            ("limits.cluster_reply_bytes", limits.cluster_reply_bytes),
            ("limits.cluster_outbox_bytes", limits.cluster_outbox_bytes),
            ("limits.headers", limits.headers),
            ("limits.query_parameters", limits.query_parameters),
        ] {
            problems.check(key, number > 0, || "must be more than 0".to_owned());
        }
        problems.check("limits.header_bytes", limits.header_bytes >= LEAST_HEADER_BYTES, || "must be at least 8KiB".to_owned());
        problems.check("limits.inbound_bytes", limits.inbound_bytes / 2 >= self.engine.max_payload, || {
            "must be at least twice engine.max_payload: a message may count as it comes in and as it waits".to_owned()
        });
        problems.check("limits.outbound_bytes", limits.outbound_bytes >= limits.outbox_bytes, || {
            "must be at least limits.outbox_bytes, what one session may take of it".to_owned()
        });
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Problems(Vec<(&'static str, String)>);

impl Problems {
    fn check(&mut self, key: &'static str, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push((key, what()));
        }
    }
}

/// Empty, or `http` or `https` with a host and perhaps a path.
fn is_url(text: &str) -> bool {
    let Ok(url) = text.parse::<http::Uri>() else { return text.is_empty() };
    matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty()) && url.query().is_none()
}

/// `*`, or a scheme and a host and perhaps a port, as browsers write it.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return text == "*" };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.+".contains(c);
    let authority_fits = authority.parse::<http::uri::Authority>().is_ok_and(|parsed| parsed.as_str() == authority);
    !scheme.is_empty() && scheme.chars().all(plain) && authority_fits && !authority.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flag, Sources};

    #[test]
    fn settings_that_cannot_be_used_are_named() {
        for (settings, problem) in [
            (&["instance=65000"][..], "instance: ws.base_port 3131 + instance 65000 is above 65535, the last port"),
            (
                &["ws.base_port=8079", "instance=1"],
                "http.listen: port 8080 is this instance's own port (ws.base_port 8079 + instance 1)",
            ),
            (&["engine.ping_timeout=0s"], "engine.ping_timeout: must be more than 0"),
            (&["engine.ping_interval=9999h"], "engine.ping_interval: must be at most 24h"),
            (&["engine.path=socket.io"], r#"engine.path: "socket.io" is no path such as "/socket.io/""#),
            (&["engine.path=/{*all}"], r#"engine.path: "/{*all}" is no path such as "/socket.io/""#),
            (&["engine.path=//"], r#"engine.path: "//" is no path such as "/socket.io/""#),
            (&["engine.transports="], "engine.transports: expected `polling`, `websocket` or both, each once"),
            (&["engine.cookie_attributes=Path=/\n"], r#"engine.cookie_attributes: "Path=/\n" fits in no header"#),
            (&["cors.exposed_headers=a b"], r#"cors.exposed_headers: "a b" is no name of one"#),
            (&["cors.preflight_status=404"], "cors.preflight_status: 404 is no success"),
            (&["redis.url=http://user:secret@x"], r#"redis.url: no URL of a Redis, such as "redis://127.0.0.1:6379""#),
            (&["redis.prefix=a#b"], r#"redis.prefix: "a#b" is empty or has a #, which divides the parts of a channel's name"#),
            (&["engine.cookie=a b"], r#"engine.cookie: "a b" is no cookie's name"#),
            (&["limits.header_bytes=1KiB"], "limits.header_bytes: must be at least 8KiB"),
            (
                &["limits.outbound_bytes=1KiB"],
                "limits.outbound_bytes: must be at least limits.outbox_bytes, what one session may take of it",
            ),
            (&["public_url=example.org"], r#"public_url: "example.org" is no URL such as "https://example.org""#),
            (
                &["cors.origins=*", "cors.credentials=true"],
                r#"cors.credentials: browsers refuse credentials together with cors.origins = ["*"]; name the origins"#,
            ),
            (
                &["log.level=infoo"],
                "log.level: `infoo` is neither a level (error, warn, info, debug, trace, off) \
                 nor directives such as \"info,stickyport::engine=debug\"",
            ),
        ] {
            let error = load(settings).expect_err("refused").to_string();
            assert_eq!(error.strip_prefix("--set ").unwrap_or(&error), problem);
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let error = load(&["engine.ping_timeout=0s", "limits.headers=0", "public_url=x"]).expect_err("refused");
        assert_eq!(error.problems.len(), 3);
    }

    #[test]
    fn origins_are_as_browsers_write_them() {
        for origin in ["*", "https://example.org", "http://localhost:8080", "http://[::1]:80", "capacitor://localhost"] {
            assert!(is_origin(origin), "{origin}");
        }
        for text in
            ["", "example.org", "https://", "https://example.org/", "https://a/b", "HTTPS://example.org", "https://a@b", "null"]
        {
            assert!(!is_origin(text), "{text}");
        }
    }

    #[test]
    fn urls_have_a_scheme_and_a_host() {
        for url in ["", "http://example.org", "https://example.org/chat/"] {
            assert!(is_url(url), "{url}");
        }
        for text in ["example.org", "/chat", "ftp://example.org", "https://example.org/?a=b", "https:///"] {
            assert!(!is_url(text), "{text}");
        }
    }

    fn load(settings: &[&str]) -> Result<(), crate::config::ConfigError> {
        let flags = settings.iter().map(|setting| {
            let (key, text) = setting.split_once('=').expect("key=value");
            Flag { place: format!("--set {key}"), key: key.to_owned(), text: text.to_owned() }
        });
        Config::load(Sources { flags: flags.collect(), ..Sources::default() }).map(|_| ())
    }
}
