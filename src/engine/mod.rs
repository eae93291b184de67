//! Gives sessions a task, a clock and a transport.

mod options;

pub use options::Options;

use crate::protocol::eio::{Encoded, Message};
use crate::protocol::errors::CloseReason;
use crate::protocol::sid::Sid;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::Instant;

/// How a session reaches its client now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// HTTP long-polling.
    Polling,
    /// WebSocket.
    WebSocket,
}

impl TransportKind {
    /// The protocol's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::WebSocket => "websocket",
        }
    }
}

/// The request that opened a session, as applications see it.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// Headers, names in lower case.
    pub headers: http::HeaderMap,
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

/// Random bits from the operating system, for one id.
pub fn entropy() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has entropy");
    u128::from_ne_bytes(bytes)
}

/// One client's session.
#[derive(Debug)]
pub struct Session;

impl Session {
    /// Its id: a credential.
    pub fn sid(&self) -> &Sid {
        todo!()
    }

    /// The request that opened it.
    pub fn request(&self) -> &Handshake {
        todo!()
    }

    /// How it reaches its client now.
    pub fn transport(&self) -> TransportKind {
        todo!()
    }

    /// Sends all packets in order with nothing in between.
    ///
    /// # Errors
    /// The session is closed, or takes no more; nothing was sent then.
    pub fn send(&self, _packets: &[Encoded]) -> Result<(), SendError> {
        todo!()
    }

    /// Sends if that needs no waiting; `false` says that the packets were dropped.
    pub fn send_volatile(&self, _packets: &[Encoded]) -> bool {
        todo!()
    }

    /// Closes after what waits was sent.
    pub fn close(&self, _reason: CloseReason) {
        todo!()
    }

    /// Whether packets can still be sent.
    pub fn is_open(&self) -> bool {
        todo!()
    }

    /// Reads on after [`Connection::ready`] was false.
    pub fn resume(&self) {
        todo!()
    }
}

/// The application above the engine.
pub trait Application: Send + Sync + 'static {
    /// A session was opened.
    fn opened(&self, session: &Arc<Session>) -> Arc<dyn Connection>;
}

/// One session's side of the application; called inline on the session's task, so nothing here may wait.
pub trait Connection: Send + Sync + 'static {
    /// A message arrived.
    fn message(&self, session: &Arc<Session>, message: Message);
    /// The session moved to WebSocket.
    fn upgraded(&self, _session: &Arc<Session>) {}
    /// The session ended; called once and last.
    fn closed(&self, session: &Arc<Session>, reason: CloseReason);
    /// When [`Connection::timeout`] wants to be called.
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
