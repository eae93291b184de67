//! What can be set about Socket.IO, with the reference's defaults.

use crate::options;
use crate::protocol::sio::Parser;
use std::time::Duration;

options! {
    /// Socket.IO: namespaces on top of a session.
    pub struct Options {
        /// Time in which a client must join a namespace; else its session is closed.
        #[serde(with = "options::duration")]
        pub connect_timeout: Duration = Duration::from_secs(45),
        /// How packets are written; every client has to use the same: "json", or "msgpack" with socket.io-msgpack-parser.
        pub parser: Parser = Parser::Json,
        /// Whether a namespace that came from a pattern or a function goes with its last socket, and with it what `recovery` kept there.
        pub cleanup_empty_child_namespaces: bool = false,
        /// Time after its line broke in which a client that comes back is who it was and is sent what it missed; 0 is off, 2m the reference's usual.
        #[serde(with = "options::duration")]
        pub recovery: Duration = Duration::ZERO,
        /// Whether such a client comes in without its namespace's middlewares being asked again.
        pub recovery_skip_middlewares: bool = true,
    }
}
