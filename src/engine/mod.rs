//! Gives sessions a task, a clock and a transport.
//!
//! [`Engine`] holds the sessions of one instance, [`Session`] is one of them. What runs above implements [`Application`] and [`Connection`]; what runs below
//! (`http/`) brings requests and sockets. The protocol itself is decided in [`crate::protocol::session`]; `driver` is the only loop.

mod admission;
mod bell;
mod driver;
mod entropy;
mod headers;
mod hooks;
mod intake;
pub mod options;
mod outbox;
mod session;
mod sessions;
pub mod stream;
mod transport;

pub use crate::protocol::eio::{Message, Version};
pub use crate::protocol::errors::{BadRequest, CloseReason, ConnectionError};
pub use crate::protocol::session::TransportKind;
pub use admission::{Admission, Hold, Refusal};
pub use entropy::Entropy;
pub use headers::Headers;
pub use hooks::Hooks;
pub use intake::{Intake, Overflow};
pub use options::Options;
pub use outbox::{Held, Payload};
pub use session::Session;
pub use sessions::{Builder, Engine};
pub use transport::polling::{PollError, Post};

use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::Instant;

/// The application above the engine: one value for all sessions.
pub trait Application: Send + Sync + 'static {
    /// A session was opened; what is returned is told of everything that happens to it.
    fn opened(&self, session: &Arc<Session>) -> Arc<dyn Connection>;
}

/// One session's side of the application; called inline on the session's tasks, one call at a time, so nothing here may wait.
pub trait Connection: Send + Sync + 'static {
    /// A message arrived.
    fn message(&self, session: &Arc<Session>, message: Message);
    /// The client has done its part of the heartbeat: its pong came, or in protocol 3 its ping.
    fn heartbeat(&self, _session: &Arc<Session>) {}
    /// What was sent with this mark has left, see [`Session::send_marked`]; not called for what was dropped.
    fn sent(&self, _session: &Arc<Session>, _mark: u64) {}
    /// A WebSocket is being tried; the session may still stay on polling.
    fn upgrading(&self, _session: &Arc<Session>) {}
    /// The session moved to WebSocket.
    fn upgraded(&self, _session: &Arc<Session>) {}
    /// The session ended; called once and last.
    fn closed(&self, session: &Arc<Session>, reason: CloseReason);
    /// When [`Connection::timeout`] wants to be called; may come later than said, not earlier.
    fn deadline(&self) -> Option<Instant> {
        None
    }
    /// The deadline has come.
    fn timeout(&self, _session: &Arc<Session>, _now: Instant) {}
    /// Whether more messages may come now; else [`Session::resume`] says when.
    fn ready(&self) -> bool {
        true
    }
}

/// The request that opened a session, as applications see it.
#[derive(Clone)]
pub struct Handshake {
    /// The protocol that the client speaks.
    pub version: Version,
    /// Its headers.
    pub headers: Headers,
    /// Query parameters in their order, decoded.
    pub query: Vec<(String, String)>,
    /// Path and query.
    pub url: String,
    /// The client's address, behind trusted proxies the one that they report.
    pub address: String,
    /// Whether the client came over TLS, which a trusted proxy reports.
    pub secure: bool,
    /// When it arrived.
    pub issued: SystemTime,
}

impl Handshake {
    /// Whether it came with an Origin header, as browsers send it from other sites.
    pub fn is_cross_domain(&self) -> bool {
        self.headers.get("origin").is_some()
    }
}

impl std::fmt::Debug for Handshake {
    /// Without headers and URL, which carry credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").field("address", &self.address).field("secure", &self.secure).finish_non_exhaustive()
    }
}

/// Why a session took no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The session is closing or closed.
    #[error("the session is closed")]
    Closed,
    /// Too much waits to be sent; the session is closed as a slow reader.
    #[error("too much waits to be sent")]
    Full,
}
