//! Speaks to the sockets of a cluster without being a server of it, as `@socket.io/redis-emitter` does.

use super::link;
use super::options::{Options, Protocol};
use super::redis::UrlError;
use super::wire::{Bounds, Broadcast, Channels, EMITTER, Request, WireError, Wish};
use crate::hub::{EmitError, Flags, IntoArgs, Room, Rooms, Target, unreserved};
use crate::protocol::limits::Limits;
use ::redis::aio::MultiplexedConnection;
use ::redis::{RedisError, cmd};
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
    bounds: Bounds,
}

/// Why something did not reach the cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitterError {
    /// The URL is none of a Redis.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The cluster hears its own members only.
    #[error("redis.adapter is \"redis-streams\", and such a cluster takes events from its members only")]
    OverStreams,
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
    /// There is none, or it refuses, or the cluster is one over streams.
    pub async fn connect(options: &Options) -> Result<Self, EmitterError> {
        if options.adapter == Protocol::RedisStreams {
            return Err(EmitterError::OverStreams);
        }
        let client = link::client(&options.url).map_err(UrlError::new)?;
        let connection = client.get_multiplexed_async_connection().await.map_err(EmitterError::Redis)?;
        let Limits { cluster_message_bytes: bytes, cluster_rooms: rooms, .. } = Limits::default();
        Ok(Self { connection, prefix: options.prefix.clone(), bounds: Bounds { bytes, rooms, attachments: usize::MAX } })
    }

    /// Everyone in a namespace.
    pub fn of(&self, namespace: &str) -> Emission {
        let name = if namespace.starts_with('/') { namespace.to_owned() } else { format!("/{namespace}") };
        Emission {
            emitter: self.clone(),
            channels: Channels::new(&self.prefix, name.as_str().into()),
            namespace: name,
            target: Target::default(),
            flags: Flags::default(),
        }
    }

    async fn publish(&self, channel: String, message: Vec<u8>) -> Result<u64, EmitterError> {
        let mut connection = self.connection.clone();
        cmd("PUBLISH").arg(channel).arg(message).query_async(&mut connection).await.map_err(EmitterError::Redis)
    }
}

/// Some sockets of a cluster, and how they are spoken to. Each verb returns how many servers heard of it.
#[derive(Debug, Clone)]
#[must_use = "nothing is done before `emit` or one of the other verbs"]
pub struct Emission {
    emitter: Emitter,
    channels: Channels,
    namespace: String,
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
        let (target, flags, bounds) = (&self.target, &self.flags, &self.emitter.bounds);
        let message = Broadcast::encode(EMITTER, &self.namespace, target, flags, event, &args, bounds)?;
        self.emitter.publish(self.channels.of(target), message).await
    }

    /// Lets them join a room or several.
    ///
    /// # Errors
    /// Redis does not take it.
    pub async fn sockets_join(&self, rooms: impl Rooms) -> Result<u64, EmitterError> {
        let rooms: Vec<Room> = rooms.rooms().collect();
        self.request(None, Wish::Join(self.target.clone(), rooms)).await
    }

    /// Lets them leave a room or several.
    ///
    /// # Errors
    /// Redis does not take it.
    pub async fn sockets_leave(&self, rooms: impl Rooms) -> Result<u64, EmitterError> {
        let rooms: Vec<Room> = rooms.rooms().collect();
        self.request(None, Wish::Leave(self.target.clone(), rooms)).await
    }

    /// Sends them out of the namespace, and with `close` closes their sessions.
    ///
    /// # Errors
    /// Redis does not take it.
    pub async fn disconnect_sockets(&self, close: bool) -> Result<u64, EmitterError> {
        self.request(None, Wish::Disconnect(self.target.clone(), close)).await
    }

    /// Sends an event to the servers, which no client hears; rooms do not matter.
    ///
    /// # Errors
    /// It cannot be sent, or Redis does not take it.
    pub async fn server_side_emit(&self, event: &str, args: impl IntoArgs) -> Result<u64, EmitterError> {
        let args = args.into_args().map_err(EmitError::from)?;
        self.request(Some(EMITTER), Wish::ServerSideEmit(event.into(), args)).await
    }

    async fn request(&self, sender: Option<&str>, body: Wish<'_>) -> Result<u64, EmitterError> {
        let request = Request { sender: sender.map(Into::into), id: None, body };
        self.emitter.publish(self.channels.request(), request.encode(&self.emitter.bounds)?).await
    }
}

impl fmt::Debug for Emitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emitter").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
