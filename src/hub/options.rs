//! What can be set about Socket.IO, with the reference's defaults.

use crate::options;
use std::time::Duration;

options! {
    /// Socket.IO: namespaces on top of sessions.
    pub struct Options {
        /// Time from the opening of a session in which its client has to come into a namespace; else the session is closed.
        #[serde(with = "options::duration")]
        pub connect_timeout: Duration = Duration::from_secs(45),
        /// Whether a namespace that was made for a client (by pattern or by function) is dropped with its last socket.
        pub cleanup_empty_child_namespaces: bool = false,
    }
}
