//! Speaking to many sockets, and acting on them.

use super::ack::{PendingAcks, Wait, limit};
use super::adapter::{Action, Adapter, ClusterReply, RemoteAck};
use super::errors::{AdapterError, EmitError};
use super::event::{IntoArgs, unreserved};
use super::live::Live;
use super::remote::RemoteSocket;
use super::room::{Room, Rooms};
use super::rooms::Target;
use super::server_event;
use super::socket::Socket;
use super::socketio::SocketIo;
use crate::protocol::eio::Encoded;
use crate::protocol::sio::Args;
use bytestring::ByteString;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How an event is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// It may be lost.
    pub volatile: bool,
    /// A polling answer with it may be compressed; `true` unless it is set.
    pub compress: bool,
    /// Only on this node.
    pub local: bool,
    /// How long its acknowledgements are waited for.
    pub timeout: Option<Duration>,
}

impl Default for Flags {
    fn default() -> Self {
        Self { volatile: false, compress: true, local: false, timeout: None }
    }
}

impl Flags {
    /// The packets as the transport is to treat them.
    pub(super) fn packets(&self, packets: Vec<Encoded>) -> Vec<Encoded> {
        if self.compress { packets } else { packets.into_iter().map(|packet| packet.compress(false)).collect() }
    }
}

/// Some sockets of a namespace: those in any of some rooms (all, if no room is named) and in none of others.
///
/// It is only a description: whom it reaches is found out when something is done, so it may be kept and used again. A socket that several rooms name is
/// reached once.
///
/// ```
/// use std::time::Duration;
/// use stickyport::hub::{HandlerResult, Socket, SocketIo};
///
/// async fn everyone(io: SocketIo, socket: Socket) -> HandlerResult {
///     io.of("/chat").emit("news", "to all of the namespace")?;
///     io.of("/chat").to(["red", "blue"]).except("muted").emit("news", "to two rooms, and not to some")?;
///     socket.to("red").volatile().emit("cursor", (10, 20))?;
///
///     let votes = io.to("jury").timeout(Duration::from_secs(30)).emit_with_ack("guilty?", ()).await?;
///     for (id, vote) in &votes.replies {
///         println!("{id:?} says {}", vote.first::<bool>()?);
///     }
///     println!("{} did not say", votes.missing);
///
///     io.to("guests").sockets_join("waiting");
///     for socket in io.to("waiting").fetch_sockets().await.complete()? {
///         println!("{} is {}", socket.id(), socket.data::<String>()?);
///     }
///     io.to("rowdies").disconnect_sockets(true);
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is done before `emit` or one of the other verbs"]
pub struct Broadcast {
    io: SocketIo,
    scope: Scope,
    target: Target,
    flags: Flags,
}

#[derive(Debug, Clone)]
enum Scope {
    Namespace(ByteString),
    /// All namespaces that were made from the declaration of this label.
    Children(String),
}

impl Broadcast {
    pub(super) fn of(io: SocketIo, namespace: ByteString, target: Target) -> Self {
        Self { io, scope: Scope::Namespace(namespace), target, flags: Flags::default() }
    }

    pub(super) fn children(io: SocketIo, label: String) -> Self {
        Self { io, scope: Scope::Children(label), target: Target::default(), flags: Flags::default() }
    }

    pub(super) fn with_flags(self, flags: Flags) -> Self {
        Self { flags, ..self }
    }

    /// Those in a room too.
    pub fn to(mut self, rooms: impl Rooms) -> Self {
        self.target.rooms.extend(rooms.rooms());
        self
    }

    /// The same as [`Broadcast::to`].
    pub fn in_(self, rooms: impl Rooms) -> Self {
        self.to(rooms)
    }

    /// Not those in a room.
    pub fn except(mut self, rooms: impl Rooms) -> Self {
        self.target.except.extend(rooms.rooms());
        self
    }

    /// Only those of this node.
    pub fn local(mut self) -> Self {
        self.flags.local = true;
        self
    }

    /// The event may be lost: it is sent to those for whom nothing has to wait.
    pub fn volatile(mut self) -> Self {
        self.flags.volatile = true;
        self
    }

    /// Whether polling answers with the event may be compressed.
    pub fn compress(mut self, compress: bool) -> Self {
        self.flags.compress = compress;
        self
    }

    /// How long acknowledgements are waited for.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.flags.timeout = Some(timeout);
        self
    }

    /// Sends an event to all of them; it is encoded once.
    ///
    /// # Errors
    /// The name is reserved, or the arguments have no form in JSON. Sockets that cannot take it are none.
    pub fn emit(&self, event: &str, args: impl IntoArgs) -> Result<(), EmitError> {
        let event = unreserved(event)?;
        let args = args.into_args()?;
        self.act(Action::Emit { target: &self.target, flags: &self.flags, event, args: &args }, |live| {
            live.broadcast(&self.target, &self.flags, event, &args);
        });
        Ok(())
    }

    /// Sends an event to all of them at once and waits for their acknowledgements.
    ///
    /// Without [`Broadcast::timeout`] it waits until each of them has answered or is gone; for those of other nodes `redis.request_timeout`.
    pub fn emit_with_ack(&self, event: &str, args: impl IntoArgs) -> PendingAcks {
        let prepared = unreserved(event).and_then(|event| Ok((event, args.into_args()?)));
        let (event, args) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return PendingAcks::failed(error),
        };
        let lives = self.lives();
        // As many as can answer; `register` of a socket that has come meanwhile takes none.
        let room = lives.iter().map(|live| live.select(&self.target).len()).sum::<usize>();
        let (sender, receiver) = mpsc::channel(room.max(1));
        let remote = self.ask_elsewhere(event, &args);
        let mut asked = Vec::new();
        for live in lives {
            let register = |socket: &Socket, id| {
                // One that owes too much already, or has just gone, counts as missing.
                let _ = socket.register(id, Wait::Broadcast(sender.clone()));
            };
            let (sockets, id) = live.broadcast_with_ack(&self.target, &self.flags, event, &args, register);
            asked.extend(sockets.into_iter().map(|socket| (socket, id)));
        }
        PendingAcks::waiting(asked, receiver, limit(self.flags.timeout), remote)
    }

    /// Has sockets of the other nodes acknowledge an event.
    fn ask_elsewhere(&self, event: &str, args: &Args) -> Option<mpsc::UnboundedReceiver<RemoteAck>> {
        let elsewhere = self.elsewhere();
        let (sender, receiver) = mpsc::unbounded_channel();
        let is_anywhere = !elsewhere.is_empty();
        for (adapter, namespace) in elsewhere {
            self.io.spawn(adapter.emit_with_ack(&namespace, &self.target, &self.flags, event, args, sender.clone()));
        }
        is_anywhere.then_some(receiver)
    }

    /// What the whole cluster knows of them: those of this node first, in the order in which they came.
    pub async fn fetch_sockets(&self) -> ClusterReply<Vec<RemoteSocket>> {
        let mut reply = ClusterReply::of(self.local_sockets().iter().map(RemoteSocket::of).collect::<Vec<_>>());
        for (adapter, namespace) in self.elsewhere() {
            let fetched = Arc::clone(&adapter).fetch(&namespace, &self.target).await;
            let told = |json: &_| {
                let told = RemoteSocket::told(&self.io, &namespace, json);
                told.inspect_err(|error| self.io.skipped_socket(adapter.metrics(), error)).ok()
            };
            reply.add(fetched, |sockets, fetched| sockets.extend(fetched.iter().filter_map(|json| told(json))));
        }
        reply
    }

    /// Those that are connected to this node.
    pub fn local_sockets(&self) -> Vec<Socket> {
        self.lives().iter().flat_map(|live| live.select(&self.target)).collect()
    }

    /// Lets them join a room or several; one that is in too many rooms joins none.
    pub fn sockets_join(&self, rooms: impl Rooms) {
        let rooms: Vec<Room> = rooms.rooms().collect();
        self.act(Action::Join { target: &self.target, rooms: &rooms }, |live| {
            for socket in live.select(&self.target) {
                if let Err(error) = socket.join(&rooms) {
                    tracing::debug!(id = %socket.log_id(), %error, "a socket did not join");
                }
            }
        });
    }

    /// Lets them leave a room or several.
    pub fn sockets_leave(&self, rooms: impl Rooms) {
        let rooms: Vec<Room> = rooms.rooms().collect();
        self.act(Action::Leave { target: &self.target, rooms: &rooms }, |live| {
            live.select(&self.target).iter().for_each(|socket| socket.leave(&rooms));
        });
    }

    /// Sends them out of the namespace, as [`Socket::disconnect`] does.
    pub fn disconnect_sockets(&self, close: bool) {
        self.act(Action::Disconnect { target: &self.target, close }, |live| {
            live.select(&self.target).iter().for_each(|socket| socket.disconnect_now(close));
        });
    }

    /// The rooms of the namespace that somebody in the cluster is in, the sockets' own among them, in no order.
    pub async fn all_rooms(&self) -> ClusterReply<HashSet<Room>> {
        let mut reply = ClusterReply::of(self.lives().iter().flat_map(|live| live.rooms()).collect::<HashSet<_>>());
        for (adapter, namespace) in self.elsewhere() {
            reply.add(adapter.rooms(&namespace).await, |rooms, others| rooms.extend(others));
        }
        reply
    }

    /// The nodes of the cluster that have the namespace, this one included.
    ///
    /// # Errors
    /// The cluster could not be asked.
    pub async fn server_count(&self) -> Result<usize, AdapterError> {
        let mut most = 1;
        for (adapter, namespace) in self.elsewhere() {
            most = most.max(adapter.server_count(&namespace).await?);
        }
        Ok(most)
    }

    /// Sends an event to the other servers of the cluster, whose [`on_server_event`](super::Namespace::on_server_event) hears it; rooms do not matter.
    ///
    /// # Errors
    /// The name is reserved, or the arguments have no form in JSON.
    pub fn server_side_emit(&self, event: &str, args: impl IntoArgs) -> Result<(), EmitError> {
        server_event::unreserved(event)?;
        self.tell(Action::ServerSideEmit { event, args: &args.into_args()? });
        Ok(())
    }

    /// The same, and waits for what they acknowledge with: one value each.
    ///
    /// # Errors
    /// As [`Broadcast::server_side_emit`].
    pub async fn server_side_emit_with_ack(
        &self,
        event: &str,
        args: impl IntoArgs,
    ) -> Result<ClusterReply<Vec<Args>>, EmitError> {
        server_event::unreserved(event)?;
        let args = args.into_args()?;
        let mut reply = ClusterReply::of(Vec::new());
        for (adapter, namespace) in self.elsewhere() {
            reply.add(adapter.server_side_emit_with_ack(&namespace, event, &args).await, Vec::extend);
        }
        Ok(reply)
    }

    /// Does something here and has the same done on the other nodes, if there are any and they are meant; where the cluster has one order for all, it is
    /// done here, too, when its turn has come.
    fn act(&self, action: Action<'_>, here: impl Fn(&Live)) {
        let Some(archive) = self.io.archive().filter(|_| !self.flags.local) else {
            self.lives().iter().for_each(|live| here(live));
            return self.tell(action);
        };
        for name in self.names() {
            if !archive.record(&name, action)
                && let Some(live) = self.io.live(&name)
            {
                here(&live);
            }
        }
    }

    fn names(&self) -> Vec<ByteString> {
        match &self.scope {
            Scope::Namespace(name) => vec![name.clone()],
            Scope::Children(label) => self.io.children_of(label).iter().map(|live| live.name.clone()).collect(),
        }
    }

    /// Has the same done on the other nodes, if there are any and they are meant.
    fn tell(&self, action: Action<'_>) {
        if let Some(adapter) = self.adapter() {
            self.names().iter().for_each(|name| adapter.tell(name, action));
        }
    }

    /// Who can ask the other nodes about which namespaces, if there are any and they are meant.
    fn elsewhere(&self) -> Vec<(Arc<dyn Adapter>, ByteString)> {
        let Some(adapter) = self.adapter() else { return Vec::new() };
        self.names().into_iter().map(|name| (Arc::clone(adapter), name)).collect()
    }

    fn adapter(&self) -> Option<&Arc<dyn Adapter>> {
        self.io.adapter().filter(|_| !self.flags.local)
    }

    fn lives(&self) -> Vec<Arc<Live>> {
        match &self.scope {
            Scope::Namespace(name) => self.io.live(name).into_iter().collect(),
            Scope::Children(label) => self.io.children_of(label),
        }
    }
}
