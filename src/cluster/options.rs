//! What can be set about the cluster.

use super::link;
use super::redis::UrlError;
use crate::options;
use std::time::Duration;

options! {
    /// The cluster: many instances as one, over Redis (6 or newer) and the protocol of `@socket.io/redis-adapter` 8.
    pub struct Options {
        /// URL of Redis, such as `"redis://user:password@10.0.0.1:6379"`, `"rediss://…"` for TLS or `"redis+unix:///run/redis.sock"`.
        /// If it is empty, the instance is alone.
        pub url: String = String::new(),
        /// What the names of all channels begin with: the reference's option `key`. Clusters that share a Redis take different ones.
        pub prefix: String = "socket.io".to_owned(),
        /// Time in which the other nodes must answer; the reference's `requestsTimeout`.
        #[serde(with = "options::duration")]
        pub request_timeout: Duration = Duration::from_secs(5),
        /// Whether answers go to who has asked and to nobody else: the reference's `publishOnSpecificResponseChannel`, 8 and newer, the same on all nodes.
        pub specific_response_channel: bool = false,
    }
}

impl Options {
    /// Whether the URL is one that [`Redis::new`](super::Redis::new) takes; nothing is connected to.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self) -> Result<(), UrlError> {
        link::client(&self.url).map(drop).map_err(UrlError::new)
    }
}
