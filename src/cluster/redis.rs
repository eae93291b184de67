//! The adapter over Redis: puts what this node does into messages, and keeps the connection.

use super::inbound::Inbound;
use super::link;
use super::members::{self, Expected, Member, Members};
use super::options::{Options, Protocol};
use super::outbox::{Outbox, Publication};
use super::questions::{Question, Questions};
use super::registry::{Fleet, FleetError, Registry};
use super::streams::Streams;
use super::wire::{Answer, Bounds, Broadcast, Channels, Entry, Message, Request, WireError, Wish};
use crate::engine::{Entropy, Hold};
use crate::hub::{
    Action, Adapter, AdapterError, Archive, Asked, ClusterReply, Flags, Missing, RemoteAck, Room, SocketIo, Target,
};
use crate::metrics::Metrics;
use crate::protocol::limits::Limits;
use crate::protocol::sio::Args;
use crate::reminder::Reminder;
use ::redis::aio::MultiplexedConnection;
use bytestring::ByteString;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long the last messages may take when a node leaves.
const FAREWELL: Duration = Duration::from_secs(1);

/// Joins a node to the others of its cluster over Redis.
///
/// A broadcast that reaches this node's sockets goes on to the others' while Redis is there. While it is not, those here still hear it, `/readyz` says so, and
/// what could not be sent is counted: nothing waits for Redis to come back, as in the reference. Over streams what is done to sockets does wait, and clients who
/// may come back do so on any node.
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
/// let redis = Redis::new(&options, &Default::default())?;
/// let io = SocketIo::builder().adapter(redis.clone()).build();
/// let engine = io.engine().build(Arc::new(io.clone()));
/// let listeners = Listeners::only("127.0.0.1:3131".parse()?)?;
/// Server::new(engine).cluster(redis, io).run(listeners, &Shutdown::on_signals()?).await;
/// # Ok(())
/// # }
/// ```
pub struct Redis {
    pub(super) client: ::redis::Client,
    pub(super) outbox: Outbox,
    /// Of a cluster over streams.
    pub(super) streams: Option<Arc<Streams>>,
    pub(super) namespaces: Namespaces,
    pub(super) connection: Mutex<Option<MultiplexedConnection>>,
    pub(super) members: Mutex<Members>,
    pub(super) questions: Arc<Questions>,
    pub(super) is_connected: watch::Sender<bool>,
    /// Ends the connection when all is said.
    pub(super) leaving: CancellationToken,
    gone: CancellationToken,
    /// What this node calls itself on the channels.
    uid: String,
    pub(super) registry: Registry,
    pub(super) options: Options,
    /// For what is sent: how many binary values that has is the sender's own affair.
    bounds: Bounds,
    metrics: Arc<Metrics>,
    too_long: Reminder,
    /// That the key of the nodes is not to be had.
    pub(super) unknown: Reminder,
    /// That nobody knows whose turn it is.
    pub(super) unleased: Reminder,
    /// That a client's session is not to be kept.
    pub(super) unkept: Reminder,
    /// That a channel may not be listened to, or published to.
    pub(super) unheard: Reminder,
    pub(super) unpublished: Reminder,
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
    /// A node that is to be joined to the cluster that `options` name.
    ///
    /// # Errors
    /// `options.url` is none of a Redis.
    pub fn new(options: &Options, limits: &Limits) -> Result<Arc<Self>, UrlError> {
        let client = link::client(&options.url).map_err(UrlError)?;
        let is_over_streams = options.adapter == Protocol::RedisStreams;
        let (metrics, uid) = (Arc::new(Metrics::default()), if is_over_streams { hexadecimal() } else { uid() });
        let bounds = Bounds { bytes: limits.cluster_message_bytes, rooms: limits.cluster_rooms, attachments: usize::MAX };
        let of_streams = || Arc::new(Streams::new(options, limits.cluster_outbox_bytes, (&uid, &bounds), &metrics));
        let streams = is_over_streams.then(of_streams);
        Ok(Arc::new(Self {
            client,
            outbox: Outbox::new(limits.cluster_outbox_bytes, Arc::clone(&metrics)),
            streams,
            namespaces: Namespaces::default(),
            connection: Mutex::default(),
            members: Mutex::default(),
            questions: Questions::new(limits.cluster_reply_bytes, Arc::clone(&metrics)),
            is_connected: watch::Sender::new(false),
            leaving: CancellationToken::new(),
            gone: CancellationToken::new(),
            registry: Registry::new(&options.prefix, &uid),
            uid,
            options: options.clone(),
            bounds,
            metrics,
            too_long: Reminder::default(),
            unknown: Reminder::default(),
            unleased: Reminder::default(),
            unkept: Reminder::default(),
            unheard: Reminder::default(),
            unpublished: Reminder::default(),
        }))
    }

    /// Stays connected until [`Redis::leave`] is called; `io` hears what the others do.
    pub async fn run(self: Arc<Self>, io: SocketIo) {
        self.registry.is(io.node(), io.boot());
        let inbound = Arc::new(Inbound::new(Arc::clone(&self), io));
        link::run(&self, &inbound).await;
        self.gone.cancel();
    }

    /// Tells the others where this node's own port is. A node that does not is in no list, and does not learn that another has its number.
    pub fn listens(&self, own: SocketAddr) {
        self.registry.listens(own);
    }

    /// Tells the others that this node takes no new sessions.
    pub fn drain(&self) {
        self.registry.drain();
    }

    /// Why this node is not ready, if it is not: its number is another's, or nobody knows yet.
    pub fn hold(&self) -> watch::Receiver<Option<Hold>> {
        self.registry.hold()
    }

    /// The nodes of the cluster that are of ours.
    ///
    /// # Errors
    /// Redis is away, or refuses.
    pub async fn fleet(&self) -> Result<Fleet, FleetError> {
        let connection = self.connection();
        Fleet::read(&mut connection.ok_or(FleetError::Away)?, &self.options.prefix).await.map_err(FleetError::Redis)
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

    /// For what is asked of Redis itself, while there is one.
    pub(super) fn connection(&self) -> Option<MultiplexedConnection> {
        self.connection.lock().expect(UNPOISONED).clone()
    }

    pub(super) fn uid(&self) -> &str {
        &self.uid
    }

    /// The key of ours in which nodes give signs of life, and this one's entry there.
    pub(super) fn membership(&self) -> (String, String) {
        (members::key(&self.options.prefix), Member::name(self.registry.node(), &self.uid))
    }

    pub(super) const fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    pub(super) fn channels(&self, namespace: &ByteString) -> Channels {
        Channels::new(&self.options.prefix, namespace.clone())
    }

    /// Where all nodes hear what is asked in a namespace.
    pub(super) fn all(&self, channels: &Channels) -> String {
        if self.streams.is_some() { channels.broadcast() } else { channels.request() }
    }

    /// Where one node alone hears what it is answered.
    pub(super) fn one(&self, channels: &Channels, uid: &str) -> String {
        if self.streams.is_some() { channels.room(uid) } else { channels.response_to(uid) }
    }

    /// Where a node is told that a client of its is at another one: a channel of ours that Node's servers do not hear.
    pub(super) fn fence_channel(&self, uid: &str) -> String {
        self.options.fence_channel(uid)
    }

    /// `false` says that it was not sent.
    fn request(&self, channels: &Channels, id: Option<&str>, body: Wish<'_>) -> bool {
        let request = Request { sender: Some(self.uid.as_str().into()), id: id.map(Into::into), body };
        let message = match &self.streams {
            Some(_) => Message::request(channels.namespace(), &request, &self.bounds),
            None => request.encode(&self.bounds),
        };
        self.publish(self.all(channels), message)
    }

    /// Writes to the stream of a namespace what is for one; `false` says that this is not.
    fn write(&self, streams: &Streams, namespace: &ByteString, action: Action<'_>) -> bool {
        match Entry::of(&self.uid, namespace, action, &self.bounds) {
            Ok(None) => return false,
            // Here it is done already.
            Ok(Some(entry)) => streams.backlog.push(streams.keys.place(namespace), &entry),
            Err(error) => self.refused(namespace, error),
        }
        true
    }

    /// `false` says that it was not sent.
    pub(super) fn publish(&self, channel: String, payload: Result<Vec<u8>, WireError>) -> bool {
        match payload {
            Ok(payload) => self.outbox.push(Publication { channel, payload }),
            Err(error) => {
                self.refused(&channel, error);
                false
            }
        }
    }

    pub(super) fn refused(&self, place: &str, error: WireError) {
        self.metrics.cluster_unsent.inc();
        if self.too_long.is_due(Instant::now()) {
            tracing::warn!(place, "a message was not sent to the other nodes: {error}");
        }
    }

    /// Asks all other nodes, and has one answer of each that `read` takes for one.
    async fn ask<T>(
        self: Arc<Self>,
        namespace: ByteString,
        body: Wish<'static>,
        read: impl Fn(Answer) -> Option<T>,
    ) -> ClusterReply<Vec<T>> {
        let channels = self.channels(&namespace);
        let deadline = tokio::time::Instant::now() + self.options.request_timeout;
        let question = self.questions.open(uid(), deadline);
        // Who listens now will hear it.
        let Some((expected, _)) = self.listeners(&channels).await else { return away() };
        if !self.request(&channels, Some(&question.id), body) {
            return away();
        }
        question.gather(expected, read).await
    }

    /// Who is expected to answer what is asked in a namespace, and how many nodes there are in all; `None` if Redis does not say.
    async fn listeners(&self, channels: &Channels) -> Option<(Expected, usize)> {
        let mut connection = self.connection()?;
        let members = self.members.lock().expect(UNPOISONED).clone();
        let mut count = ::redis::cmd("PUBSUB");
        count.arg("NUMSUB").arg(self.all(channels));
        for uid in members.uids() {
            count.arg(self.one(channels, uid));
        }
        let counts: Vec<(String, usize)> = count.query_async(&mut connection).await.ok()?;
        let counts: Vec<usize> = counts.into_iter().map(|(_, count)| count).collect();
        let (listeners, present) = counts.split_first()?;
        let expected = members.expected(&self.uid, *listeners, present, Instant::now());
        let all = expected.ours.len() + expected.others + 1;
        Some((expected, all))
    }
}

fn away<T>() -> ClusterReply<Vec<T>> {
    ClusterReply { value: Vec::new(), answered: 0, missing: Missing { is_away: true, ..Missing::default() } }
}

impl Adapter for Redis {
    fn archive(self: Arc<Self>) -> Option<Arc<dyn Archive>> {
        self.streams.is_some().then_some(self as _)
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn opened(&self, namespace: &ByteString) {
        self.namespaces.change(|names| names.insert(namespace.clone()));
    }

    fn closed(&self, namespace: &ByteString) {
        self.namespaces.change(|names| names.remove(namespace));
    }

    fn tell(&self, namespace: &ByteString, action: Action<'_>) {
        if self.streams.as_ref().is_some_and(|streams| self.write(streams, namespace, action)) {
            return;
        }
        let channels = self.channels(namespace);
        let wish = match action {
            Action::ServerSideEmit { event, args } => Wish::ServerSideEmit(event.into(), args.clone()),
            Action::Join { target, rooms } => Wish::Join(target.clone(), rooms.to_owned()),
            Action::Leave { target, rooms } => Wish::Leave(target.clone(), rooms.to_owned()),
            Action::Disconnect { target, close } => Wish::Disconnect(target.clone(), close),
            Action::Emit { target, flags, event, args } => {
                let message = Broadcast::encode(&self.uid, namespace, target, flags, event, args, &self.bounds);
                self.publish(channels.of(target), message);
                return;
            }
        };
        self.request(&channels, None, wish);
    }

    fn fetch(self: Arc<Self>, namespace: &ByteString, target: &Target) -> Asked<ClusterReply<Vec<Box<RawValue>>>> {
        let asked = self.ask(namespace.clone(), Wish::Fetch(target.clone()), |answer| match answer {
            Answer::Sockets(sockets) => Some(sockets),
            _ => None,
        });
        Box::pin(async { flat(asked.await) })
    }

    fn rooms(self: Arc<Self>, namespace: &ByteString) -> Asked<ClusterReply<Vec<Room>>> {
        if self.streams.is_some() {
            // There is no such question in a cluster over streams: the rooms are those of the sockets.
            let fetched = self.fetch(namespace, &Target::default());
            return Box::pin(async { fetched.await.map(|sockets| sockets.iter().flat_map(|socket| rooms_of(socket)).collect()) });
        }
        let asked = self.ask(namespace.clone(), Wish::AllRooms, |answer| match answer {
            Answer::Rooms(rooms) => Some(rooms),
            _ => None,
        });
        Box::pin(async { flat(asked.await) })
    }

    fn server_count(self: Arc<Self>, namespace: &ByteString) -> Asked<Result<usize, AdapterError>> {
        let channels = self.channels(namespace);
        Box::pin(async move { self.listeners(&channels).await.map(|(_, all)| all).ok_or(AdapterError::Away) })
    }

    fn emit_with_ack(
        self: Arc<Self>,
        namespace: &ByteString,
        target: &Target,
        flags: &Flags,
        event: &str,
        args: &Args,
        acks: UnboundedSender<RemoteAck>,
    ) -> Asked<()> {
        let channels = self.channels(namespace);
        let timeout = flags.timeout.unwrap_or(self.options.request_timeout);
        let far = || tokio::time::Instant::now() + Duration::from_secs(u32::MAX.into());
        let deadline = tokio::time::Instant::now().checked_add(timeout).unwrap_or_else(far);
        let question = self.questions.open(uid(), deadline);
        // What is sent next is not to overtake it, so it leaves before anybody waits.
        let ids = (&*self.uid, &*question.id);
        let message = match &self.streams {
            // The reference gives up at that time, and so needs one.
            Some(_) => Message::broadcast(
                ids,
                namespace,
                target,
                &Flags { timeout: Some(timeout), ..*flags },
                (event, args),
                &self.bounds,
            ),
            None => Request::encode_broadcast(ids, namespace, target, flags, (event, args), &self.bounds),
        };
        let is_sent = self.publish(self.all(&channels), message);
        Box::pin(async move {
            let listeners = if is_sent { self.listeners(&channels).await } else { None };
            let missing = match listeners {
                Some((expected, _)) => pass_on(question, expected, &acks).await,
                None => Missing { is_away: true, ..Missing::default() },
            };
            // Nobody may want to know.
            let _ = acks.send(RemoteAck::Missing(missing));
        })
    }

    fn server_side_emit_with_ack(
        self: Arc<Self>,
        namespace: &ByteString,
        event: &str,
        args: &Args,
    ) -> Asked<ClusterReply<Vec<Args>>> {
        let body = Wish::ServerSideEmit(event.into(), args.clone());
        Box::pin(self.ask(namespace.clone(), body, |answer| match answer {
            Answer::ServerSide(args) => Some(args),
            _ => None,
        }))
    }
}

/// Hands on what sockets acknowledge with, until all have or the time is over.
async fn pass_on(mut question: Question, mut expected: Expected, acks: &UnboundedSender<RemoteAck>) -> Missing {
    let mut owed = 0;
    while owed > 0 || !expected.is_nobody() {
        let Some((sender, answer)) = question.next().await else { break };
        let ack = match answer {
            Answer::ClientCount(count) => {
                expected.answered(sender.as_deref());
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                owed = count.saturating_add(owed);
                RemoteAck::Asked(count)
            }
            // More than were announced are no acknowledgements.
            Answer::Ack(socket, args) if owed > 0 => {
                owed -= 1;
                RemoteAck::Came(socket, args)
            }
            _ => continue,
        };
        if acks.send(ack).is_err() {
            break;
        }
    }
    expected.into()
}

/// The rooms that a socket is told to be in.
fn rooms_of(socket: &RawValue) -> Vec<Room> {
    #[derive(Deserialize)]
    struct Told {
        rooms: Vec<Room>,
    }
    serde_json::from_str(socket.get()).map_or_else(|_| Vec::new(), |Told { rooms }| rooms)
}

fn flat<T>(reply: ClusterReply<Vec<Vec<T>>>) -> ClusterReply<Vec<T>> {
    let ClusterReply { value, answered, missing } = reply;
    ClusterReply { value: value.into_iter().flatten().collect(), answered, missing }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL, which may hold a password.
        f.debug_struct("Redis").field("uid", &self.uid).field("prefix", &self.options.prefix).finish_non_exhaustive()
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

/// Sixteen characters, as the reference has them in a cluster over streams.
pub(super) fn hexadecimal() -> String {
    format!("{:016x}", Entropy::default().bits() as u64)
}

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
