//! The seam to the other nodes of a cluster: what the hub tells whoever reaches them, what it asks, and what comes back.

use super::archive::Archive;
use super::broadcast::Flags;
use super::errors::AdapterError;
use super::room::Room;
use super::rooms::Target;
use crate::metrics::Metrics;
use crate::protocol::sid::{Node, SocketId};
use crate::protocol::sio::Args;
use bytestring::ByteString;
use serde_json::value::RawValue;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// What the other nodes answer, some time until the deadline.
pub type Asked<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Reaches the other nodes of a cluster; without one a node is alone.
///
/// What is done to sockets is done here first, by the hub, and then told to the adapter. Nothing in it may wait: it is called from handlers, and
/// under locks.
pub trait Adapter: fmt::Debug + Send + Sync + 'static {
    /// What it keeps for clients who come back on another node, if it can.
    fn archive(self: Arc<Self>) -> Option<Arc<dyn Archive>> {
        None
    }

    /// Where it counts.
    fn metrics(&self) -> &Arc<Metrics>;

    /// The namespace is on this node from now on: what the others do in it concerns it.
    fn opened(&self, namespace: &ByteString);

    /// The namespace is no longer on this node.
    fn closed(&self, namespace: &ByteString);

    /// Has the same done on all other nodes, which may have the namespace though this one has not.
    fn tell(&self, namespace: &ByteString, action: Action<'_>);

    /// What the other nodes know of sockets: objects in the reference's form.
    fn fetch(self: Arc<Self>, namespace: &ByteString, target: &Target) -> Asked<ClusterReply<Vec<Box<RawValue>>>>;

    /// The rooms that somebody is in on the other nodes.
    fn rooms(self: Arc<Self>, namespace: &ByteString) -> Asked<ClusterReply<Vec<Room>>>;

    /// The nodes that have the namespace, this one included.
    fn server_count(self: Arc<Self>, namespace: &ByteString) -> Asked<Result<usize, AdapterError>>;

    /// Sends sockets of the other nodes an event and hands on what they acknowledge with, until all have or the time of the flags is over.
    fn emit_with_ack(
        self: Arc<Self>,
        namespace: &ByteString,
        target: &Target,
        flags: &Flags,
        event: &str,
        args: &Args,
        acks: UnboundedSender<RemoteAck>,
    ) -> Asked<()>;

    /// What the other nodes' servers acknowledge an event of ours with.
    fn server_side_emit_with_ack(
        self: Arc<Self>,
        namespace: &ByteString,
        event: &str,
        args: &Args,
    ) -> Asked<ClusterReply<Vec<Args>>>;
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
    /// The other nodes' servers hear of an event; no socket does.
    ServerSideEmit {
        /// Its name.
        event: &'a str,
        /// What follows the name.
        args: &'a Args,
    },
}

/// What comes of an event that sockets of other nodes are to acknowledge.
#[derive(Debug)]
pub enum RemoteAck {
    /// So many more sockets were asked.
    Asked(usize),
    /// One of them has acknowledged; Node's servers do not say which.
    Came(Option<SocketId>, Args),
    /// These nodes did not say how many they asked.
    Missing(Missing),
}

/// What a cluster answered by the deadline, and who did not.
///
/// ```
/// use stickyport::hub::{AdapterError, SocketIo};
///
/// async fn count(io: SocketIo) -> Result<usize, AdapterError> {
///     let reply = io.fetch_sockets().await;
///     for node in &reply.missing.nodes {
///         println!("node {node} has not answered; the others know of {} sockets", reply.value.len());
///     }
///     // Or all, or nothing.
///     Ok(reply.complete()?.len())
/// }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ClusterReply<T> {
    /// What came.
    pub value: T,
    /// How many other nodes answered.
    pub answered: usize,
    /// Who did not.
    pub missing: Missing,
}

impl<T> ClusterReply<T> {
    /// What this node has to say, before any other was asked.
    pub(super) fn of(value: T) -> Self {
        Self { value, answered: 0, missing: Missing::default() }
    }

    /// The value, if every node has answered.
    ///
    /// # Errors
    /// One has not.
    pub fn complete(self) -> Result<T, AdapterError> {
        let Self { value, answered, missing } = self;
        match missing {
            Missing { is_away: true, .. } => Err(AdapterError::Away),
            missing if missing.is_nobody() => Ok(value),
            missing => {
                Err(AdapterError::Timeout { received: answered, expected: answered + missing.nodes.len() + missing.others })
            }
        }
    }

    /// Makes something else of the value.
    pub(crate) fn map<U>(self, make: impl FnOnce(T) -> U) -> ClusterReply<U> {
        ClusterReply { value: make(self.value), answered: self.answered, missing: self.missing }
    }

    /// Adds what other nodes say to what is known already.
    pub(super) fn add<U>(&mut self, other: ClusterReply<U>, join: impl FnOnce(&mut T, U)) {
        join(&mut self.value, other.value);
        self.answered += other.answered;
        self.missing.add(other.missing);
    }
}

/// Which nodes did not answer in time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// Of ours, by their numbers.
    pub nodes: Vec<Node>,
    /// How many there are besides: Node's, and ours of a few seconds' age.
    pub others: usize,
    /// Nobody could be asked: what carries the messages is away.
    pub is_away: bool,
}

impl Missing {
    /// Whether all answered.
    pub fn is_nobody(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
        self.others += other.others;
        self.is_away |= other.is_away;
    }
}
