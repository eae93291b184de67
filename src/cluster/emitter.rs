//! Speaks to the sockets of a cluster without being a server of it, as `@socket.io/redis-emitter` does.

use super::link;
use super::options::{Options, Protocol};
use super::redis::UrlError;
use super::streams::Keys;
use super::wire::{Bounds, Broadcast, Channels, EMITTER, Entry, Message, Request, WireError, Wish};
use crate::hub::{Action, EmitError, Flags, IntoArgs, Room, Rooms, Target, unreserved};
use crate::protocol::limits::Limits;
use ::redis::aio::MultiplexedConnection;
use ::redis::{RedisError, cmd, pipe};
use std::fmt;

/// Speaks to the sockets of a cluster without being a server of it.
///
/// ```no_run
/// # async fn example() -> Result<(), stickyport::cluster::EmitterError> {
/// use stickyport::cluster::{self, Emitter};
///
/// let options = cluster::Options { url: "redis://127.0.0.1".to_owned(), ..Default::default() };
/// let cluster = Emitter::connect(&options).await?;
/// cluster.of("/").to("kitchen").emit("said", "tea?").await?;
/// cluster.of("/admin").sockets_join("alarmed").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Emitter {
    connection: MultiplexedConnection,
    prefix: String,
    /// Of a cluster over streams.
    streams: Option<Keys>,
    bounds: Bounds,
}

/// Why something did not reach the cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitterError {
    /// The URL is none of a Redis.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Redis cannot be reached, or refuses.
    #[error("Redis does not take it")]
    Redis(#[source] RedisError),
    /// The event cannot be sent to anybody.
    #[error(transparent)]
    Event(#[from] EmitError),
    /// The message would be too long.
    #[error(transparent)]
    Message(#[from] WireError),
}

impl Emitter {
    /// Connects to the Redis of a cluster.
    ///
    /// # Errors
    /// There is none, or it refuses.
    pub async fn connect(options: &Options) -> Result<Self, EmitterError> {
        let client = link::client(&options.url).map_err(UrlError::new)?;
        let connection = client.get_multiplexed_async_connection().await.map_err(EmitterError::Redis)?;
        let Limits { cluster_message_bytes: bytes, cluster_rooms: rooms, .. } = Limits::default();
        let streams = (options.adapter == Protocol::RedisStreams).then(|| Keys::new(options));
        let bounds = Bounds { bytes, rooms, attachments: usize::MAX };
        Ok(Self { connection, prefix: options.prefix.clone(), streams, bounds })
    }

    /// Everyone in a namespace.
    pub fn of(&self, namespace: &str) -> Emission {
        let name = if namespace.starts_with('/') { namespace.to_owned() } else { format!("/{namespace}") };
        Emission {
            emitter: self.clone(),
            channels: Channels::new(&self.prefix, name.into()),
            target: Target::default(),
            flags: Flags::default(),
        }
    }

    async fn publish(&self, channel: String, message: Vec<u8>) -> Result<u64, EmitterError> {
        let mut connection = self.connection.clone();
        cmd("PUBLISH").arg(channel).arg(message).query_async(&mut connection).await.map_err(EmitterError::Redis)
    }

    /// Adds an entry to a namespace's stream; how many servers there are, each of which reads it.
    async fn write(&self, keys: &Keys, entry: &Entry, channel: String) -> Result<u64, EmitterError> {
        let mut pipe = pipe();
        pipe.add_command(keys.add(keys.place(&entry.namespace), &entry.fields())).ignore();
        pipe.cmd("PUBSUB").arg("NUMSUB").arg(channel);
        let mut connection = self.connection.clone();
        let (listeners,): (Vec<(String, u64)>,) = pipe.query_async(&mut connection).await.map_err(EmitterError::Redis)?;
        Ok(listeners.iter().map(|(_, count)| count).sum())
    }
}

/// Some sockets of a cluster, and how they are spoken to. Each verb returns how many servers heard of it.
#[derive(Debug, Clone)]
#[must_use = "nothing is done before `emit` or one of the other verbs"]
pub struct Emission {
    emitter: Emitter,
    channels: Channels,
    target: Target,
    flags: Flags,
}

impl Emission {
    /// Those in a room; those in any of several.
    pub fn to(mut self, rooms: impl Rooms) -> Self {
        self.target.rooms.extend(rooms.rooms());
        self
    }

    /// Not those in a room.
    pub fn except(mut self, rooms: impl Rooms) -> Self {
        self.target.except.extend(rooms.rooms());
        self
    }

    /// The event may be lost.
    pub fn volatile(mut self) -> Self {
        self.flags.volatile = true;
        self
    }

    /// Whether polling answers with the event may be compressed.
    pub fn compress(mut self, compress: bool) -> Self {
        self.flags.compress = compress;
        self
    }

    /// Sends them an event.
    ///
    /// # Errors
    /// It cannot be sent, or Redis does not take it.
    pub async fn emit(&self, event: &str, args: impl IntoArgs) -> Result<u64, EmitterError> {
        let event = unreserved(event)?;
        let args = args.into_args().map_err(EmitError::from)?;
        let Self { target, flags, .. } = self;
        self.tell(Action::Emit { target, flags, event, args: &args }).await
    }

    /// Lets them join a room or several.
    ///
    /// # Errors
    /// Redis does not take it.
    pub async fn sockets_join(&self, rooms: impl Rooms) -> Result<u64, EmitterError> {
        let rooms: Vec<Room> = rooms.rooms().collect();
        self.tell(Action::Join { target: &self.target, rooms: &rooms }).await
    }

    /// Lets them leave a room or several.
    ///
    /// # Errors
    /// Redis does not take it.
    pub async fn sockets_leave(&self, rooms: impl Rooms) -> Result<u64, EmitterError> {
        let rooms: Vec<Room> = rooms.rooms().collect();
        self.tell(Action::Leave { target: &self.target, rooms: &rooms }).await
    }

    /// Sends them out of the namespace, and with `close` closes their sessions.
    ///
    /// # Errors
    /// Redis does not take it.
    pub async fn disconnect_sockets(&self, close: bool) -> Result<u64, EmitterError> {
        self.tell(Action::Disconnect { target: &self.target, close }).await
    }

    /// Sends an event to the servers, which no client hears; rooms do not matter.
    ///
    /// # Errors
    /// It cannot be sent, or Redis does not take it.
    pub async fn server_side_emit(&self, event: &str, args: impl IntoArgs) -> Result<u64, EmitterError> {
        let args = args.into_args().map_err(EmitError::from)?;
        self.tell(Action::ServerSideEmit { event, args: &args }).await
    }

    async fn tell(&self, action: Action<'_>) -> Result<u64, EmitterError> {
        let Self { emitter: Emitter { streams, bounds, .. }, channels, .. } = self;
        if let Some(keys) = streams
            && let Some(entry) = Entry::of(EMITTER, channels.namespace(), action, bounds)?
        {
            return self.emitter.write(keys, &entry, channels.broadcast()).await;
        }
        // Only what is said to servers has a sender, as in the reference.
        let (sender, body) = match action {
            Action::Emit { target, flags, event, args } => {
                let message = Broadcast::encode(EMITTER, channels.namespace(), target, flags, event, args, bounds)?;
                return self.emitter.publish(channels.of(target), message).await;
            }
            Action::Join { target, rooms } => (None, Wish::Join(target.clone(), rooms.to_owned())),
            Action::Leave { target, rooms } => (None, Wish::Leave(target.clone(), rooms.to_owned())),
            Action::Disconnect { target, close } => (None, Wish::Disconnect(target.clone(), close)),
            Action::ServerSideEmit { event, args } => (Some(EMITTER), Wish::ServerSideEmit(event.into(), args.clone())),
        };
        let request = Request { sender: sender.map(Into::into), id: None, body };
        match streams {
            Some(_) => {
                self.emitter.publish(channels.broadcast(), Message::request(channels.namespace(), &request, bounds)?).await
            }
            None => self.emitter.publish(channels.request(), request.encode(bounds)?).await,
        }
    }
}

impl fmt::Debug for Emitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emitter").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
