//! What can be set about the cluster.

use super::link;
use super::redis::UrlError;
use crate::options;
use serde::{Deserialize, Serialize};
use std::time::Duration;

options! {
    /// The cluster: many instances as one, over Redis (6 or newer).
    pub struct Options {
        /// URL of Redis, such as `"redis://user:password@10.0.0.1:6379"`, `"rediss://…"` for TLS or `"redis+unix:///run/redis.sock"`.
        /// If it is empty, the instance is alone.
        pub url: String = String::new(),
        /// How the nodes speak to each other, the same on all of them: "redis" as `@socket.io/redis-adapter` 8, or "redis-streams" as
        /// `@socket.io/redis-streams-adapter`, which loses nothing while Redis is away for a moment and lets clients come back on another node.
        pub adapter: Protocol = Protocol::Redis,
        /// What the names of all channels begin with: the reference's option `key` or `channelPrefix`. Clusters that share a Redis take different ones.
        pub prefix: String = "socket.io".to_owned(),
        /// Time in which the other nodes must answer; the reference's `requestsTimeout`.
        #[serde(with = "options::duration")]
        pub request_timeout: Duration = Duration::from_secs(5),
        /// Whether answers go to who has asked and to nobody else: the reference's `publishOnSpecificResponseChannel`, 8 and newer, the same on all nodes.
        pub specific_response_channel: bool = false,
        /// The stream's key; the reference's `streamName`. Clusters that share a Redis take different ones.
        pub stream: String = "socket.io".to_owned(),
        /// Over how many streams the namespaces are spread; the reference's `streamCount`, the same on all nodes.
        pub stream_count: usize = 1,
        /// How many entries of a stream Redis keeps, about; the reference's `maxLen`. Who misses more than that has missed something for good.
        pub stream_length: usize = 10_000,
        /// How many entries are read at a time; the reference's `readCount`.
        pub stream_read: usize = 100,
        /// What the keys of clients' sessions begin with; the reference's `sessionKeyPrefix`.
        pub session_prefix: String = "sio:session:".to_owned(),
    }
}

/// How nodes speak to each other over Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// By publishing, as `@socket.io/redis-adapter` 8.
    Redis,
    /// Through a stream, as `@socket.io/redis-streams-adapter`.
    #[serde(alias = "streams")]
    RedisStreams,
}

impl Options {
    /// Whether the URL is one that [`Redis::new`](super::Redis::new) takes; nothing is connected to.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self) -> Result<(), UrlError> {
        link::client(&self.url).map(drop).map_err(UrlError::new)
    }

    /// Where Redis is, without what else the URL says; empty if it is none.
    pub fn address(&self) -> String {
        link::client(&self.url).map(|client| client.get_connection_info().addr().to_string()).unwrap_or_default()
    }

    /// Where a node is told that a client of its is at another one: a channel of ours that Node's servers do not hear.
    pub(super) fn fence_channel(&self, uid: &str) -> String {
        format!("stickyport#{}#fence#{uid}", self.prefix)
    }
}
