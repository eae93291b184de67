//! What can be set about Engine.IO, with the reference's defaults.

use super::TransportKind;
use crate::options;
use std::time::Duration;

options! {
    /// Engine.IO: sessions over HTTP long-polling and WebSocket.
    pub struct Options {
        /// Where clients find the server; must begin with a slash.
        pub path: String = "/socket.io/".to_owned(),
        /// Whether a slash is added to the end of `path` if it has none, so that `/socket.io` alone is not ours.
        pub add_trailing_slash: bool = true,
        /// Whether the official JavaScript client is served below `path`, as `socket.io.min.js` and so on.
        pub serve_client: bool = true,
        /// The transports that clients may use: `polling`, `websocket` or both.
        pub transports: Vec<TransportKind> = vec![TransportKind::Polling, TransportKind::WebSocket],
        /// Whether a client may move from polling to WebSocket.
        pub allow_upgrades: bool = true,
        /// Time from the opening of a session, and then from each pong, to the next ping.
        #[serde(with = "options::duration")]
        pub ping_interval: Duration = Duration::from_secs(25),
        /// Time in which a pong must follow its ping; else the session is closed.
        #[serde(with = "options::duration")]
        pub ping_timeout: Duration = Duration::from_secs(20),
        /// Time that an upgrade may take; else its WebSocket is closed and the session stays on polling.
        #[serde(with = "options::duration")]
        pub upgrade_timeout: Duration = Duration::from_secs(10),
        /// Bytes of one message or of one polling request; clients are told and split what they send.
        #[serde(with = "options::size")]
        pub max_payload: usize = 1_000_000,
        /// Whether clients of protocol 3, those of Socket.IO 2, may connect. The ids of their sockets hold the sids, so whoever is told such an id can
        /// speak as its client; and unless `cors.enforce` is set they may use JSONP, which pages of any origin can read.
        pub allow_eio3: bool = false,
        /// A text message that every client is sent right after the open packet; empty is none.
        pub initial_packet: String = String::new(),
        /// Name of a cookie that carries the sid, for load balancers that want one; empty is no cookie.
        pub cookie: String = String::new(),
        /// What follows that cookie's value, such as `Secure` or `Max-Age`, as Set-Cookie has it.
        pub cookie_attributes: String = "Path=/; HttpOnly; SameSite=Lax".to_owned(),
        /// Bytes from which a polling answer is compressed if the client takes that; 0 is never.
        #[serde(with = "options::size")]
        pub http_compression: usize = 1024,
    }
}
