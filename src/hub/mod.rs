//! Who is where, and who hears what: Socket.IO as an application sees it.
//!
//! A [`SocketIo`] is built from [`Namespace`]s, which say what happens in them. Handlers are functions whose arguments name what they want
//! ([`Socket`], [`Data`], [`AckSender`], …), and whose return values answer ([`Ack`], `Result`). To speak to many, describe them: [`SocketIo::of`],
//! [`SocketIo::to`] and [`Socket::to`] begin a [`Broadcast`].
//!
//! ```
//! use stickyport::hub::{Ack, All, AckSender, Data, DisconnectReason, HandlerResult, Namespace, Socket, SocketIo};
//!
//! async fn join(socket: Socket, Data(room): Data<String>) -> HandlerResult {
//!     socket.join(&room)?;
//!     socket.to(&room).emit("joined", socket.id())?;
//!     Ok(())
//! }
//!
//! let io = SocketIo::builder()
//!     .namespace(
//!         Namespace::new("/")
//!             .on_connect(async |socket: Socket| socket.emit("welcome", socket.id()))
//!             .on("join", join)
//!             // The return value is the acknowledgement …
//!             .on("sum", async |All((a, b)): All<(i64, i64)>| Ack(a + b))
//!             // … or it is sent when it is ready.
//!             .on("roll", async |ack: AckSender| ack.send((4, "chosen by fair dice")))
//!             .on_disconnect(async |socket: Socket, reason: DisconnectReason| {
//!                 println!("{} went: {reason}", socket.id());
//!             }),
//!     )
//!     .build();
//! ```
//!
//! What is promised:
//!
//! - One socket's events are handled one after the other, in the order in which they arrived; no other socket waits for them.
//! - A handler that does not wait runs on the session's own task; only one that waits gets a task.
//! - A handler that panics costs its socket, which is disconnected, and nothing else.
//! - A broadcast is encoded once, and no lock is held while it is sent.
//! - With the option `recovery`, a client whose line broke and that comes back in time is who it was and hears every event that it missed, once and in
//!   order: see [`Socket::recovered`].
//! - Whatever a client can make grow has a limit, and a metric that counts when it is reached: see [`Limits`](crate::protocol::limits::Limits).

mod ack;
mod adapter;
mod archive;
mod broadcast;
mod connect;
mod connection;
mod dynamic;
mod emitter;
mod errors;
mod event;
mod extract;
mod handler;
mod handshake;
mod live;
mod namespace;
mod options;
mod queue;
mod recovery;
mod remote;
mod room;
mod rooms;
mod server_event;
mod socket;
mod socketio;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use crate::engine::{CloseReason, TransportKind};
pub use crate::protocol::sid::SocketId;
pub use crate::protocol::sio::{Args, ArgsError, DecodeError, Parser};
pub use ack::{AckSender, BroadcastReply, PendingAck, PendingAcks};
pub use adapter::{Action, Adapter, Asked, ClusterReply, Missing, RemoteAck};
pub use archive::{Archive, ArchivedEvent, ArchivedSession, Offset, OffsetError, Recovered, SessionSource};
pub use broadcast::{Broadcast, Flags};
pub use dynamic::NamespaceRequest;
pub use emitter::Emitter;
pub use errors::{
    AckError, AdapterError, BoxError, ConnectError, DisconnectReason, EmitError, EventError, ExtractError, HandlerResult,
    JoinError, SocketError,
};
pub(crate) use event::unreserved;
pub use event::{Event, IntoArgs};
pub use extract::{All, Auth, Data, FromContext, State};
pub use handler::{
    Ack, Admission, ConnectContext, Context, DisconnectContext, Done, EventContext, Handler, Immediate, Reply, Returns, Verdict,
    Waiting,
};
pub use handshake::Handshake;
pub use live::RoomEvent;
pub use namespace::Namespace;
pub use options::Options;
pub use regex::Regex;
pub use remote::RemoteSocket;
pub use room::{Room, Rooms};
pub use rooms::Target;
pub use server_event::ServerEvent;
pub use socket::Socket;
pub use socketio::{Builder, NamespaceExists, SocketIo};
