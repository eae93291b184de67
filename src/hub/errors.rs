//! What can fail between an application and its sockets.

use crate::engine::SendError;
use crate::protocol::errors::CloseReason;
use crate::protocol::sio::{ArgsError, DecodeError};
use bytestring::ByteString;
use serde::Serialize;
use serde_json::value::RawValue;
use std::error::Error;
use std::fmt;

/// Any error, as handlers return it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What a handler returns whose errors have several types; `?` turns every error into it.
///
/// ```
/// use stickyport::hub::{Data, HandlerResult, Namespace, Socket};
///
/// async fn rename(socket: Socket, Data(name): Data<String>) -> HandlerResult {
///     socket.set_data(&name)?;
///     socket.broadcast().emit("renamed", name)?;
///     Ok(())
/// }
///
/// Namespace::new("/").on("rename", rename);
/// ```
pub type HandlerResult<T = ()> = Result<T, BoxError>;

/// Why an event was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// `connect`, `connect_error`, `disconnect`, `disconnecting`, `newListener` and `removeListener` mean something to clients.
    #[error("`{0}` is a reserved event name")]
    Reserved(ByteString),
    /// The arguments have no form in JSON.
    #[error("the arguments cannot be encoded")]
    Encode(#[from] ArgsError),
    /// The socket is no longer connected.
    #[error("the socket is disconnected")]
    Disconnected,
    /// The client reads slower than it is sent to, and `limits.outbox_bytes` is reached: its session was closed.
    #[error("too much waits to be sent")]
    Full,
}

impl From<SendError> for EmitError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Closed => Self::Disconnected,
            SendError::Full => Self::Full,
        }
    }
}

/// Why no acknowledgement came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// None came in the time that `timeout` sets.
    #[error("operation has timed out")]
    Timeout,
    /// The socket disconnected first.
    #[error("the socket was disconnected before it acknowledged")]
    Disconnected,
    /// The client owes us as many acknowledgements as `limits.pending_acks` allows; the event was not sent.
    #[error("too many acknowledgements are pending")]
    TooMany,
    /// The event was not sent.
    #[error(transparent)]
    Emit(#[from] EmitError),
}

/// Why a socket is not in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The socket is in as many rooms as `limits.rooms_per_socket` allows; it joined none of those that were asked for.
    #[error("the socket is in too many rooms")]
    TooManyRooms,
    /// The socket is no longer connected.
    #[error("the socket is disconnected")]
    Disconnected,
}

/// Why the cluster did not answer; one node alone always answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// Some nodes did not answer in time.
    #[error("timeout reached: only {received} responses received out of {expected}")]
    Timeout {
        /// Nodes that answered.
        received: usize,
        /// Nodes that were asked.
        expected: usize,
    },
    /// What carries messages between the nodes is away.
    #[error("the other nodes cannot be reached")]
    Away,
}

/// Why a client may not come into a namespace: what its `connect_error` event shows.
///
/// ```
/// use stickyport::hub::ConnectError;
///
/// let error = ConnectError::new("not authorized").data(&serde_json::json!({ "retry_after": 60 }));
/// assert_eq!(error.to_string(), "not authorized");
/// ```
#[derive(Debug, Clone)]
pub struct ConnectError {
    message: String,
    data: Option<Box<RawValue>>,
}

impl ConnectError {
    /// The client sees this text as `err.message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None }
    }

    /// The client sees this value as `err.data`; one that has no form in JSON reads as null.
    #[must_use]
    pub fn data<T: Serialize + ?Sized>(mut self, data: &T) -> Self {
        let null = || RawValue::from_string("null".to_owned()).expect("null is JSON");
        self.data = Some(serde_json::value::to_raw_value(data).unwrap_or_else(|_| null()));
        self
    }

    /// The text.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The value as JSON.
    pub fn raw_data(&self) -> Option<&RawValue> {
        self.data.as_deref()
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ConnectError {}

impl From<&str> for ConnectError {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

impl From<String> for ConnectError {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

/// Why an event is not handed to its handlers: the word of an event middleware, told to [`on_error`](super::Namespace::on_error) and to no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EventError(String);

impl EventError {
    /// An error with this text.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl From<&str> for EventError {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

impl From<String> for EventError {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

/// Why an argument of a handler could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// The event's arguments have other types.
    #[error("the arguments are not of the handler's types")]
    Args(#[from] ArgsError),
    /// The client's `auth` has another type.
    #[error("the client's auth is not of the handler's type")]
    Auth(#[source] serde_json::Error),
}

/// What went wrong on a socket, as [`on_error`](super::Namespace::on_error) sees it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The client sent what is no packet; its session is being closed.
    #[error(transparent)]
    Protocol(#[from] DecodeError),
    /// An event middleware refused an event.
    #[error(transparent)]
    Refused(#[from] EventError),
    /// A handler returned an error, or its arguments could not be read; the event is not acknowledged.
    #[error("a handler failed")]
    Handler(#[source] BoxError),
    /// A handler panicked; the socket is being disconnected.
    #[error("a handler panicked: {0}")]
    Panic(String),
}

/// Why a socket was disconnected, under the reference's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DisconnectReason {
    /// The session ended, and all its sockets with it.
    Session(CloseReason),
    /// The client left this namespace.
    ClientNamespaceDisconnect,
    /// The server sent the client out of this namespace: [`Socket::disconnect`](super::Socket::disconnect), or a panic of a handler.
    ServerNamespaceDisconnect,
}

impl DisconnectReason {
    /// The reference's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session(reason) => reason.as_str(),
            Self::ClientNamespaceDisconnect => "client namespace disconnect",
            Self::ServerNamespaceDisconnect => "server namespace disconnect",
        }
    }
}

impl From<CloseReason> for DisconnectReason {
    fn from(reason: CloseReason) -> Self {
        Self::Session(reason)
    }
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
