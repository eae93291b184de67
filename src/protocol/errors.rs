//! What can go wrong between a client and its session, under the reference's names.

use super::eio::Version;
use super::session::TransportKind;
use std::fmt;

/// Why a request was refused, with the reference's code and text (Engine.IO's error codes 0 to 5).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// The `transport` parameter names none that is enabled.
    #[error("Transport unknown")]
    TransportUnknown,
    /// No session of this instance has that sid.
    #[error("Session ID unknown")]
    UnknownSid,
    /// A handshake that is not a GET.
    #[error("Bad handshake method")]
    BadHandshakeMethod,
    /// Anything else that does not fit the protocol; the client is not told what.
    #[error("Bad request")]
    BadRequest(BadRequest),
    /// The application refused the handshake, in its own words if it has any.
    #[error("{}", if .0.is_empty() { "Forbidden" } else { .0 })]
    Forbidden(String),
    /// The client speaks a protocol version that is not enabled.
    #[error("Unsupported protocol version")]
    UnsupportedProtocolVersion,
}

impl ConnectionError {
    /// The code of the reference's JSON answer.
    pub const fn code(&self) -> u8 {
        match self {
            Self::TransportUnknown => 0,
            Self::UnknownSid => 1,
            Self::BadHandshakeMethod => 2,
            Self::BadRequest(_) => 3,
            Self::Forbidden(_) => 4,
            Self::UnsupportedProtocolVersion => 5,
        }
    }

    /// The HTTP status of the answer to a polling request; an upgrade is always refused with 400.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Forbidden(_) => 403,
            _ => 400,
        }
    }
}

/// What about a request does not fit the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRequest {
    /// The Origin header holds bytes that no header may hold.
    InvalidOrigin,
    /// It names two sessions.
    TwoSids,
    /// Its query has more parameters than are allowed.
    TooManyParameters,
    /// The session is on another transport than the request, this one, or does not upgrade to what it names.
    TransportMismatch(TransportKind),
    /// The session speaks another protocol than the request, this one.
    ProtocolMismatch(Version),
    /// A handshake that asks for a WebSocket in words and not by its headers, or the other way round.
    TransportHandshake,
    /// The headers of a WebSocket are not complete (RFC 6455, section 4.2.1).
    WebSocketHandshake,
    /// The application could not make a sid, or made one that is taken.
    IdGeneration,
}

impl BadRequest {
    /// The reference's name, where it has one.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidOrigin => "INVALID_ORIGIN",
            Self::TwoSids => "TWO_SIDS",
            Self::TooManyParameters => "TOO_MANY_PARAMETERS",
            Self::TransportMismatch(_) => "TRANSPORT_MISMATCH",
            Self::ProtocolMismatch(_) => "PROTOCOL_MISMATCH",
            Self::TransportHandshake => "TRANSPORT_HANDSHAKE_ERROR",
            Self::WebSocketHandshake => "WEBSOCKET_HANDSHAKE_ERROR",
            Self::IdGeneration => "ID_GENERATION_ERROR",
        }
    }
}

impl From<BadRequest> for ConnectionError {
    fn from(what: BadRequest) -> Self {
        Self::BadRequest(what)
    }
}

/// Why a session ended, under the reference's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The line broke: a reset, an aborted poll, a request that the protocol forbids.
    TransportError,
    /// The client closed its transport.
    TransportClose,
    /// No pong came in time.
    PingTimeout,
    /// A packet could not be decoded.
    ParseError,
    /// The application closed the session, or the client broke Socket.IO's rules.
    ForcedClose,
    /// The application closed the connection below a socket.
    ForcedServerClose,
    /// The server stops or drains.
    ServerShuttingDown,
}

impl CloseReason {
    /// The reference's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TransportError => "transport error",
            Self::TransportClose => "transport close",
            Self::PingTimeout => "ping timeout",
            Self::ParseError => "parse error",
            Self::ForcedClose => "forced close",
            Self::ForcedServerClose => "forced server close",
            Self::ServerShuttingDown => "server shutting down",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
