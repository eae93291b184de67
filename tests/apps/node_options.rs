//! The options of the reference's servers as JSON, read into ours; what has no place here is named where it would stand.
#![allow(dead_code, reason = "each program uses its part")]

use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use stickyport::engine::{self, TransportKind};
use stickyport::http::options::Cors;
use stickyport::hub::{self, Parser};

/// The `ServerOptions` and `AttachOptions` of engine.io and socket.io; times are milliseconds.
///
/// Without effect, because there is nothing that they would change: `perMessageDeflate` and `httpCompression.level` (never used), `wsEngine`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeOptions {
    ping_interval: Option<f64>,
    ping_timeout: Option<f64>,
    upgrade_timeout: Option<f64>,
    max_http_buffer_size: Option<usize>,
    #[serde(rename = "allowEIO3")]
    allow_eio3: bool,
    initial_packet: Option<String>,
    transports: Option<Vec<String>>,
    allow_upgrades: Option<bool>,
    http_compression: Option<Value>,
    cookie: Option<Value>,
    cors: Option<Value>,
    path: Option<String>,
    add_trailing_slash: Option<bool>,
    serve_client: Option<bool>,
    connect_timeout: Option<f64>,
    cleanup_empty_child_namespaces: Option<bool>,
    connection_state_recovery: Option<Recovery>,
    parser: Option<String>,
    allow_request: Option<Value>,
    generate_id: Option<Value>,
    destroy_upgrade: Option<bool>,
    destroy_upgrade_timeout: Option<f64>,
    #[serde(rename = "$port")]
    port: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Recovery {
    max_disconnection_duration: Option<f64>,
    skip_middlewares: Option<bool>,
}

impl NodeOptions {
    /// Of the session layer; `path` is where it stands unless the options say otherwise.
    pub fn engine(&self, path: &str) -> engine::Options {
        let usual = engine::Options::default();
        engine::Options {
            path: self.path.clone().unwrap_or_else(|| path.to_owned()),
            add_trailing_slash: self.add_trailing_slash.unwrap_or(usual.add_trailing_slash),
            serve_client: self.serve_client.unwrap_or(usual.serve_client),
            transports: match &self.transports {
                Some(names) => [TransportKind::Polling, TransportKind::WebSocket]
                    .into_iter()
                    .filter(|kind| names.iter().any(|name| name == kind.as_str()))
                    .collect(),
                None => usual.transports,
            },
            allow_upgrades: self.allow_upgrades.unwrap_or(usual.allow_upgrades),
            ping_interval: self.ping_interval.map_or(usual.ping_interval, millis),
            ping_timeout: self.ping_timeout.map_or(usual.ping_timeout, millis),
            upgrade_timeout: self.upgrade_timeout.map_or(usual.upgrade_timeout, millis),
            max_payload: self.max_http_buffer_size.unwrap_or(usual.max_payload),
            allow_eio3: self.allow_eio3,
            initial_packet: self.initial_packet.clone().unwrap_or_default(),
            http_compression: match &self.http_compression {
                None => usual.http_compression,
                Some(compression) if !is_truthy(compression) => 0,
                // Without a threshold, or with one of 0, every answer is compressed.
                Some(compression) => compression["threshold"].as_u64().map_or(1, |bytes| (bytes as usize).max(1)),
            },
            cookie: self.cookie().map_or_else(String::new, |(name, _)| name),
            cookie_attributes: self.cookie().map_or_else(String::new, |(_, attributes)| attributes),
        }
    }

    /// Of the namespaces above.
    pub fn hub(&self) -> hub::Options {
        let usual = hub::Options::default();
        hub::Options {
            connect_timeout: self.connect_timeout.map_or(usual.connect_timeout, millis),
            cleanup_empty_child_namespaces: self.cleanup_empty_child_namespaces.unwrap_or(usual.cleanup_empty_child_namespaces),
            // In the reference a package, which JSON can only name.
            parser: if self.parser.is_some() { Parser::MsgPack } else { usual.parser },
            recovery: self
                .connection_state_recovery
                .as_ref()
                .map_or(usual.recovery, |recovery| recovery.max_disconnection_duration.map_or(Duration::from_secs(120), millis)),
            recovery_skip_middlewares: self
                .connection_state_recovery
                .as_ref()
                .and_then(|recovery| recovery.skip_middlewares)
                .unwrap_or(true),
        }
    }

    /// The name of the cookie, and its attributes in the order of the npm package `cookie`.
    fn cookie(&self) -> Option<(String, String)> {
        let cookie = self.cookie.as_ref().filter(|cookie| is_truthy(cookie))?;
        let get = |name: &str, usual: Value| cookie.get(name).cloned().unwrap_or(usual);
        let mut attributes = Vec::new();
        for (key, name, usual) in
            [("maxAge", "Max-Age", Value::Null), ("domain", "Domain", Value::Null), ("path", "Path", "/".into())]
        {
            match get(key, usual) {
                Value::String(value) if !value.is_empty() => attributes.push(format!("{name}={value}")),
                Value::Number(value) => attributes.push(format!("{name}={}", value.as_f64().unwrap_or_default().floor())),
                _ => {}
            }
        }
        for (key, name, usual) in
            [("httpOnly", "HttpOnly", true), ("secure", "Secure", false), ("partitioned", "Partitioned", false)]
        {
            if is_truthy(&get(key, usual.into())) {
                attributes.push(name.to_owned());
            }
        }
        for (key, name, usual) in [("priority", "Priority", Value::Null), ("sameSite", "SameSite", "lax".into())] {
            match get(key, usual) {
                Value::Bool(true) => attributes.push(format!("{name}=Strict")),
                Value::String(value) => {
                    let (first, rest) = value.split_at_checked(1).unwrap_or_default();
                    attributes.push(format!("{name}={}{}", first.to_uppercase(), rest.to_lowercase()));
                }
                _ => {}
            }
        }
        let name = get("name", "io".into()).as_str().unwrap_or_default().to_owned();
        Some((name, attributes.join("; ")))
    }

    /// Of the pages that may connect: the options of the npm package `cors`.
    ///
    /// Without effect: `preflightContinue`, because there is nothing behind that would answer.
    pub fn cors(&self) -> Cors {
        let usual = Cors::default();
        let Some(cors) = self.cors.as_ref().filter(|cors| is_truthy(cors)) else { return usual };
        let origin = cors.get("origin").cloned().unwrap_or_else(|| "*".into());
        if !is_truthy(&origin) {
            return usual;
        }
        let headers = if is_truthy(&cors["allowedHeaders"]) { &cors["allowedHeaders"] } else { &cors["headers"] };
        let seconds = cors["maxAge"].as_u64().or_else(|| cors["maxAge"].as_str()?.parse().ok());
        Cors {
            reflect: origin == true,
            origins: list(&origin),
            credentials: cors["credentials"] == true,
            methods: if is_truthy(&cors["methods"]) { list(&cors["methods"]) } else { usual.methods },
            allowed_headers: list(headers),
            exposed_headers: list(&cors["exposedHeaders"]),
            max_age: seconds.map_or(usual.max_age, Duration::from_secs),
            preflight_status: cors["optionsSuccessStatus"].as_u64().map_or(usual.preflight_status, |status| status as u16),
            ..usual
        }
    }

    /// Where to listen; 0 lets the system choose.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// After which time a connection is let go that asks for another upgrade than ours; `None` is never.
    pub fn destroy_upgrade(&self) -> Option<Duration> {
        (self.destroy_upgrade != Some(false)).then(|| millis(self.destroy_upgrade_timeout.unwrap_or(1000.0)))
    }

    /// Whether `generateId` is to be asked over the pipe.
    pub fn asks_generate_id(&self) -> bool {
        self.generate_id.as_ref().is_some_and(is_truthy)
    }

    /// Whether `allowRequest` is to be asked over the pipe.
    pub fn asks_allow_request(&self) -> bool {
        self.allow_request.as_ref().is_some_and(is_truthy)
    }
}

/// A list as JavaScript's packages take it: itself, or in one text.
fn list(value: &Value) -> Vec<String> {
    match value {
        Value::String(items) => vec![items.clone()],
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// What JavaScript takes for true.
fn is_truthy(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false)) && value != "" && value.as_f64() != Some(0.0)
}

/// The reference's milliseconds.
pub fn millis(millis: f64) -> Duration {
    Duration::try_from_secs_f64(millis / 1000.0).unwrap_or_default()
}
