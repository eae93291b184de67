//! The adapter over Redis: puts what this node does into messages, and keeps the connection.

use super::inbound::Inbound;
use super::link;
use super::options::Options;
use super::outbox::{Outbox, Publication};
use super::wire::{Bounds, Broadcast, Channels, Request, WireError, Wish};
use crate::engine::Entropy;
use crate::hub::{Action, Adapter, SocketIo};
use crate::metrics::Metrics;
use crate::protocol::limits::Limits;
use crate::reminder::Reminder;
use bytestring::ByteString;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long the last messages may take when a node leaves.
const FAREWELL: Duration = Duration::from_secs(1);

/// Joins a node to the others of its cluster over Redis.
///
/// A broadcast that reaches this node's sockets goes on to the others' while Redis is there. While it is not, those here still hear it, `/readyz` says so, and
/// what could not be sent is counted: nothing waits for Redis to come back, as in the reference.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use stickyport::cluster::{self, Redis};
/// use stickyport::http::Listeners;
/// use stickyport::hub::SocketIo;
/// use stickyport::{Server, Shutdown};
///
/// let options = cluster::Options { url: "redis://127.0.0.1".to_owned(), ..Default::default() };
/// let redis = Redis::new(&options, &Default::default(), Default::default())?;
/// let io = SocketIo::builder().adapter(redis.clone()).metrics(redis.metrics().clone()).build();
/// let engine = io.engine().build(Arc::new(io.clone()));
/// let listeners = Listeners::only("127.0.0.1:3131".parse()?)?;
/// Server::new(engine).cluster(redis, io).run(listeners, &Shutdown::on_signals()?).await;
/// # Ok(())
/// # }
/// ```
pub struct Redis {
    pub(super) client: ::redis::Client,
    pub(super) outbox: Outbox,
    pub(super) namespaces: Namespaces,
    pub(super) is_connected: watch::Sender<bool>,
    /// Ends the connection when all is said.
    pub(super) leaving: CancellationToken,
    gone: CancellationToken,
    /// What this node calls itself on the channels.
    uid: String,
    prefix: String,
    /// For what is sent: how many binary values that has is the sender's own affair.
    bounds: Bounds,
    metrics: Arc<Metrics>,
    too_long: Reminder,
}

/// Why a URL is none of a Redis.
#[derive(Debug, thiserror::Error)]
#[error("no URL of a Redis, such as \"redis://127.0.0.1:6379\"")]
pub struct UrlError(#[source] ::redis::RedisError);

impl UrlError {
    pub(super) const fn new(error: ::redis::RedisError) -> Self {
        Self(error)
    }
}

impl Redis {
    /// A node that is to be joined to the cluster that `options` name; it counts in `metrics`.
    ///
    /// # Errors
    /// `options.url` is none of a Redis.
    pub fn new(options: &Options, limits: &Limits, metrics: Arc<Metrics>) -> Result<Arc<Self>, UrlError> {
        let client = link::client(&options.url).map_err(UrlError)?;
        let bounds = Bounds { bytes: limits.cluster_message_bytes, rooms: limits.cluster_rooms, attachments: usize::MAX };
        Ok(Arc::new(Self {
            client,
            outbox: Outbox::new(limits.cluster_outbox_bytes, Arc::clone(&metrics)),
            namespaces: Namespaces::default(),
            is_connected: watch::Sender::new(false),
            leaving: CancellationToken::new(),
            gone: CancellationToken::new(),
            uid: uid(),
            prefix: options.prefix.clone(),
            bounds,
            metrics,
            too_long: Reminder::default(),
        }))
    }

    /// Stays connected until [`Redis::leave`] is called; `io` hears what the others do.
    pub async fn run(self: Arc<Self>, io: SocketIo) {
        let inbound = Arc::new(Inbound::new(Arc::clone(&self), io));
        link::run(&self, &inbound).await;
        self.gone.cancel();
    }

    /// Waits until what the others do is heard, and what is done here reaches them.
    pub async fn connected(&self) {
        let mut is_connected = self.is_connected.subscribe();
        is_connected.wait_for(|is_connected| *is_connected).await.expect("its sender lives as long as this");
    }

    /// Sends what was said, and leaves the cluster.
    pub async fn leave(&self) {
        self.leaving.cancel();
        // Redis may hang, and then what was said last is lost.
        let _ = timeout(FAREWELL, self.gone.cancelled()).await;
    }

    /// Where it counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(super) fn uid(&self) -> &str {
        &self.uid
    }

    pub(super) fn channels(&self, namespace: &ByteString) -> Channels {
        Channels::new(&self.prefix, namespace.clone())
    }

    fn request(&self, channels: &Channels, body: Wish<'_>) {
        let request = Request { sender: Some(self.uid.as_str().into()), id: None, body };
        self.publish(channels.request(), request.encode(&self.bounds));
    }

    fn publish(&self, channel: String, payload: Result<Vec<u8>, WireError>) {
        match payload {
            Ok(payload) => self.outbox.push(Publication { channel, payload }),
            Err(error) => {
                self.metrics.cluster_unsent.inc();
                if self.too_long.is_due(Instant::now()) {
                    tracing::warn!(channel, "a message was not sent to the other nodes: {error}");
                }
            }
        }
    }
}

impl Adapter for Redis {
    fn opened(&self, namespace: &ByteString) {
        self.namespaces.change(|names| names.insert(namespace.clone()));
    }

    fn closed(&self, namespace: &ByteString) {
        self.namespaces.change(|names| names.remove(namespace));
    }

    fn tell(&self, namespace: &ByteString, action: Action<'_>) {
        let channels = self.channels(namespace);
        match action {
            Action::Join { target, rooms } => self.request(&channels, Wish::Join(target.clone(), rooms.to_owned())),
            Action::Leave { target, rooms } => self.request(&channels, Wish::Leave(target.clone(), rooms.to_owned())),
            Action::Disconnect { target, close } => self.request(&channels, Wish::Disconnect(target.clone(), close)),
            Action::Emit { target, flags, event, args } => {
                let channel = match &*target.rooms {
                    [room] => channels.room(room.as_str()),
                    _ => channels.broadcast(),
                };
                self.publish(channel, Broadcast::encode(&self.uid, namespace, target, flags, event, args, &self.bounds));
            }
        }
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL, which may hold a password.
        f.debug_struct("Redis").field("uid", &self.uid).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// The namespaces that this node has.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    names: Mutex<BTreeSet<ByteString>>,
    pub(super) changed: Notify,
}

impl Namespaces {
    pub(super) fn names(&self) -> BTreeSet<ByteString> {
        self.names.lock().expect(UNPOISONED).clone()
    }

    fn change(&self, what: impl FnOnce(&mut BTreeSet<ByteString>) -> bool) {
        let is_changed = what(&mut self.names.lock().expect(UNPOISONED));
        if is_changed {
            self.changed.notify_one();
        }
    }
}

const UNPOISONED: &str = "no code that can panic runs under this lock";

/// Six characters, as the reference has them.
fn uid() -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut bits = Entropy::default().bits();
    let mut next = || {
        let letter = LETTERS[(bits % 62) as usize];
        bits /= 62;
        char::from(letter)
    };
    (0..6).map(|_| next()).collect()
}
