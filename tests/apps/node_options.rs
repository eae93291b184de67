//! The options of the reference's servers as JSON, read into ours; what has no place here is named where it would stand.
#![allow(dead_code, reason = "each program uses its part")]

use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use stickyport::engine::{self, TransportKind};
use stickyport::http::options::Cors;
use stickyport::hub;

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
    transports: Option<Vec<TransportKind>>,
    allow_upgrades: Option<bool>,
    http_compression: Option<Value>,
    cors: Option<Value>,
    path: Option<String>,
    add_trailing_slash: Option<bool>,
    connect_timeout: Option<f64>,
    cleanup_empty_child_namespaces: Option<bool>,
    allow_request: Option<Value>,
}

impl NodeOptions {
    /// Of the session layer; `path` is where it stands unless the options say otherwise.
    pub fn engine(&self, path: &str) -> engine::Options {
        let usual = engine::Options::default();
        engine::Options {
            path: self.path.clone().unwrap_or_else(|| path.to_owned()),
            add_trailing_slash: self.add_trailing_slash.unwrap_or(usual.add_trailing_slash),
            transports: self.transports.clone().unwrap_or(usual.transports),
            allow_upgrades: self.allow_upgrades.unwrap_or(usual.allow_upgrades),
            ping_interval: self.ping_interval.map_or(usual.ping_interval, millis),
            ping_timeout: self.ping_timeout.map_or(usual.ping_timeout, millis),
            upgrade_timeout: self.upgrade_timeout.map_or(usual.upgrade_timeout, millis),
            max_payload: self.max_http_buffer_size.unwrap_or(usual.max_payload),
            http_compression: match &self.http_compression {
                Some(Value::Bool(false)) => 0,
                Some(compression) => compression["threshold"].as_u64().map_or(usual.http_compression, |bytes| bytes as usize),
                None => usual.http_compression,
            },
            ..usual
        }
    }

    /// Of the namespaces above.
    pub fn hub(&self) -> hub::Options {
        let usual = hub::Options::default();
        hub::Options {
            connect_timeout: self.connect_timeout.map_or(usual.connect_timeout, millis),
            cleanup_empty_child_namespaces: self.cleanup_empty_child_namespaces.unwrap_or(usual.cleanup_empty_child_namespaces),
            ..usual
        }
    }

    /// Of the pages that may connect.
    pub fn cors(&self) -> Cors {
        let Some(cors) = &self.cors else { return Cors::default() };
        let origins = match &cors["origin"] {
            Value::String(origin) => vec![origin.clone()],
            Value::Array(origins) => origins.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Value::Bool(false) => Vec::new(),
            _ => vec!["*".to_owned()],
        };
        Cors { origins, credentials: cors["credentials"].as_bool().unwrap_or_default(), ..Cors::default() }
    }

    /// Whether `allowRequest` is to be asked over the pipe.
    pub fn asks_allow_request(&self) -> bool {
        self.allow_request.as_ref().is_some_and(|function| !function.is_null())
    }
}

/// The reference's milliseconds.
pub fn millis(millis: f64) -> Duration {
    Duration::try_from_secs_f64(millis / 1000.0).unwrap_or_default()
}
