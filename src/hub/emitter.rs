//! How the next event of one socket is sent.

use super::ack::PendingAck;
use super::broadcast::{Broadcast, Flags};
use super::errors::EmitError;
use super::event::IntoArgs;
use super::room::Rooms;
use super::socket::Socket;
use std::time::Duration;

/// A socket, and how its next event is sent.
///
/// ```
/// use std::time::Duration;
/// use stickyport::hub::{EmitError, Socket};
///
/// fn tick(socket: &Socket, price: f64) -> Result<(), EmitError> {
///     socket.volatile().compress(false).emit("price", price)
/// }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before `emit` or `emit_with_ack`"]
pub struct Emitter {
    socket: Socket,
    flags: Flags,
}

impl Emitter {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, flags: Flags::default() }
    }

    /// It may be lost: it is sent only if nothing has to wait for it.
    pub fn volatile(mut self) -> Self {
        self.flags.volatile = true;
        self
    }

    /// Whether a polling answer with it may be compressed.
    pub fn compress(mut self, compress: bool) -> Self {
        self.flags.compress = compress;
        self
    }

    /// How long its acknowledgement is waited for.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.flags.timeout = Some(timeout);
        self
    }

    /// Sends an event, as [`Socket::emit`] does.
    ///
    /// # Errors
    /// As [`Socket::emit`]; a volatile event that is lost is none.
    pub fn emit(&self, event: &str, args: impl IntoArgs) -> Result<(), EmitError> {
        self.socket.emit_with(&self.flags, event, args)
    }

    /// Sends an event at once and waits for its acknowledgement, as [`Socket::emit_with_ack`] does.
    pub fn emit_with_ack(&self, event: &str, args: impl IntoArgs) -> PendingAck {
        self.socket.emit_with_ack_with(&self.flags, event, args)
    }

    /// Everyone else in the namespace, in the same way.
    pub fn broadcast(&self) -> Broadcast {
        self.socket.broadcast().with_flags(self.flags)
    }

    /// Everyone else in a room, in the same way.
    pub fn to(&self, rooms: impl Rooms) -> Broadcast {
        self.broadcast().to(rooms)
    }

    /// The same as [`Emitter::to`].
    pub fn in_(&self, rooms: impl Rooms) -> Broadcast {
        self.to(rooms)
    }

    /// Everyone else who is not in a room, in the same way.
    pub fn except(&self, rooms: impl Rooms) -> Broadcast {
        self.broadcast().except(rooms)
    }
}
