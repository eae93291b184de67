//! The seam to the other nodes of a cluster: what the hub tells whoever reaches them.

use super::broadcast::Flags;
use super::room::Room;
use super::rooms::Target;
use crate::protocol::sio::Args;
use bytestring::ByteString;
use std::fmt;

/// Reaches the other nodes of a cluster; without one a node is alone.
///
/// What is done to sockets is done here first, by the hub, and then told to the adapter. Nothing in it may wait: it is called from handlers, and
/// under locks.
pub trait Adapter: fmt::Debug + Send + Sync + 'static {
    /// The namespace is on this node from now on: what the others do in it concerns it.
    fn opened(&self, namespace: &ByteString);

    /// The namespace is no longer on this node.
    fn closed(&self, namespace: &ByteString);

    /// Has the same done on all other nodes, which may have the namespace though this one has not.
    fn tell(&self, namespace: &ByteString, action: Action<'_>);
}

/// What is done to sockets.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// They are sent an event.
    Emit {
        /// Who.
        target: &'a Target,
        /// How.
        flags: &'a Flags,
        /// Its name.
        event: &'a str,
        /// What follows the name.
        args: &'a Args,
    },
    /// They join rooms.
    Join {
        /// Who.
        target: &'a Target,
        /// Which.
        rooms: &'a [Room],
    },
    /// They leave rooms.
    Leave {
        /// Who.
        target: &'a Target,
        /// Which.
        rooms: &'a [Room],
    },
    /// They are sent out of the namespace.
    Disconnect {
        /// Who.
        target: &'a Target,
        /// Whether their sessions are closed, too.
        close: bool,
    },
}
