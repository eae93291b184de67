//! The server as an application sees it: its namespaces, and the way to their sockets.

use super::adapter::{Adapter, ClusterReply};
use super::archive::{Archive, Offset};
use super::broadcast::{Broadcast, Flags};
use super::connection::Link;
use super::dynamic::Family;
use super::errors::EmitError;
use super::event::IntoArgs;
use super::extract::States;
use super::handler::guarded;
use super::live::Live;
use super::namespace::{Declared, Namespace};
use super::options::Options;
use super::recovery::{Far, Memory, Shelf};
use super::remote::RemoteSocket;
use super::room::{Room, Rooms};
use super::rooms::Target;
use super::server_event::ServerEvent;
use crate::current::Current;
use crate::engine::{self, Application, Connection, Engine, Entropy, Session, Version};
use crate::metrics::Metrics;
use crate::protocol::limits::Limits;
use crate::protocol::sid::{Boot, Node, Pid, SocketId};
use crate::protocol::sio::{Args, Parser};
use crate::reminder::Reminder;
use bytestring::ByteString;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Handle;

type NameHook = Box<dyn Fn(&str) + Send + Sync>;

/// A Socket.IO server; clones are the same server.
///
/// It is the [`Application`] above an [`Engine`]. Its verbs without a namespace speak to `/`, as in the reference.
///
/// ```
/// use stickyport::hub::{Ack, Args, HandlerResult, Namespace, Socket, SocketIo};
///
/// let io = SocketIo::builder()
///     .namespace(
///         Namespace::new("/")
///             .on("message", async |socket: Socket, args: Args| socket.emit("message-back", args))
///             .on("message-with-ack", async |args: Args| Ack(args)),
///     )
///     .build();
/// io.emit("news", "nobody is here yet")?;
/// # Ok::<_, stickyport::hub::EmitError>(())
/// ```
#[derive(Clone)]
pub struct SocketIo(Arc<Hub>);

struct Hub {
    options: Options,
    limits: Current<Limits>,
    metrics: Arc<Metrics>,
    node: Node,
    boot: Boot,
    entropy: Entropy,
    states: States,
    /// In the order of their names, so that what reaches all of them does so in the same order each time.
    namespaces: RwLock<BTreeMap<ByteString, Arc<Live>>>,
    /// How many of them were made for clients.
    children: AtomicUsize,
    families: RwLock<Vec<Arc<Family>>>,
    on_new_namespace: Vec<NameHook>,
    on_namespace_removed: Vec<NameHook>,
    /// Where handlers go on that have to wait; known from the first session on.
    runtime: OnceLock<Handle>,
    /// For clients who may come back, if they may.
    memory: Option<Arc<Memory>>,
    /// That clients use another parser.
    foreign_clients: Reminder,
    /// That what another node tells of a socket cannot be read.
    skipped_sockets: Reminder,
    /// To the other nodes, if there are any.
    adapter: Option<Arc<dyn Adapter>>,
    /// What they keep for clients who may come back on any of them, if they do.
    archive: Option<Arc<dyn Archive>>,
}

/// What a [`SocketIo`] is made of.
pub struct Builder {
    hub: Hub,
    namespaces: Vec<Namespace>,
}

/// Why a namespace cannot be added to a server that runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the namespace {0} exists already")]
pub struct NamespaceExists(ByteString);

impl Builder {
    /// Sets Socket.IO's options.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.hub.options = options;
        self
    }

    /// Sets the bounds.
    #[must_use]
    pub fn limits(mut self, limits: impl Into<Current<Limits>>) -> Self {
        self.hub.limits = limits.into();
        self
    }

    /// Counts there.
    #[must_use]
    pub fn metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.hub.metrics = metrics;
        self
    }

    /// Names the owner in every socket's id.
    #[must_use]
    pub fn ids(mut self, node: Node, boot: Boot) -> Self {
        self.hub.node = node;
        self.hub.boot = boot;
        self
    }

    /// Sets where the random part of every id comes from.
    #[must_use]
    pub fn entropy(mut self, entropy: Entropy) -> Self {
        self.hub.entropy = entropy;
        self
    }

    /// What handlers may take as [`State<T>`](super::State): one value per type, cloned for every call.
    #[must_use]
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, state: T) -> Self {
        self.hub.states.insert(state);
        self
    }

    /// Makes it one node of a cluster, whose others this adapter reaches, and counts where that counts.
    #[must_use]
    pub fn adapter(mut self, adapter: Arc<dyn Adapter>) -> Self {
        self.hub.metrics = Arc::clone(adapter.metrics());
        self.hub.adapter = Some(adapter);
        self
    }

    /// Adds a namespace; `/` exists without being added.
    #[must_use]
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.namespaces.push(namespace);
        self
    }

    /// Called when a namespace was added to a running server, or made for a client.
    #[must_use]
    pub fn on_new_namespace(mut self, hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.hub.on_new_namespace.push(Box::new(hook));
        self
    }

    /// Called when a namespace that was made for a client has been dropped with its last socket.
    #[must_use]
    pub fn on_namespace_removed(mut self, hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.hub.on_namespace_removed.push(Box::new(hook));
        self
    }

    /// The server.
    ///
    /// # Panics
    /// A namespace was added twice, or a handler takes a state that was not given.
    pub fn build(mut self) -> SocketIo {
        let Hub { options, limits, metrics, .. } = &self.hub;
        if !options.recovery.is_zero() {
            let limit = limits.get().recovery_bytes;
            let memory = Memory::new(options.recovery, limit, options.parser, Arc::clone(metrics));
            let archive = self.hub.adapter.clone().and_then(Adapter::archive);
            if let Some(archive) = &archive {
                archive.open(options.recovery, limit);
            }
            (self.hub.archive, self.hub.memory) = (archive, Some(memory));
        }
        let io = SocketIo(Arc::new(self.hub));
        for namespace in self.namespaces {
            io.declare(namespace).unwrap_or_else(|error| panic!("{error}"));
        }
        // It may have been added; it exists in any case.
        let _ = io.declare(Namespace::new("/"));
        io
    }
}

impl SocketIo {
    /// A server with the reference's defaults, to be changed.
    pub fn builder() -> Builder {
        let hub = Hub {
            options: Options::default(),
            limits: Limits::default().into(),
            metrics: Arc::default(),
            node: Node::try_from(0).expect("0 is a node"),
            boot: Boot::at(SystemTime::now()),
            entropy: Entropy::default(),
            states: States::default(),
            namespaces: RwLock::default(),
            children: AtomicUsize::new(0),
            families: RwLock::default(),
            on_new_namespace: Vec::new(),
            on_namespace_removed: Vec::new(),
            runtime: OnceLock::new(),
            memory: None,
            foreign_clients: Reminder::default(),
            skipped_sockets: Reminder::default(),
            adapter: None,
            archive: None,
        };
        Builder { hub, namespaces: Vec::new() }
    }

    /// Adds a namespace to a server that runs.
    ///
    /// # Errors
    /// There is one of that name.
    ///
    /// # Panics
    /// A handler takes a state that was not given.
    pub fn add(&self, namespace: Namespace) -> Result<(), NamespaceExists> {
        if let Some(name) = self.declare(namespace)? {
            self.tell(&self.0.on_new_namespace, &name);
        }
        Ok(())
    }

    /// Makes the namespace `name` from the first pattern that it matches, without waiting for a client; `false` says that none does.
    pub fn open(&self, name: &str) -> bool {
        let name = normal(name);
        if self.live(&name).is_some() {
            return true;
        }
        let family = self.families().into_iter().find(|family| family.matches(&name));
        family.is_some_and(|family| self.make(&name, &family).is_some())
    }

    /// Whether there is a namespace of that name now.
    pub fn has(&self, name: &str) -> bool {
        self.live(&normal(name)).is_some()
    }

    /// Everyone in a namespace; nobody, if there is none of that name.
    pub fn of(&self, namespace: &str) -> Broadcast {
        Broadcast::of(self.clone(), normal(namespace), Target::default())
    }

    /// Everyone in the namespaces that were made from the declaration of that [`label`](Namespace::label); a pattern is its own label.
    ///
    /// ```
    /// use stickyport::hub::{EmitError, Namespace, Regex, SocketIo};
    ///
    /// let tenants = Namespace::matching(Regex::new(r"^/tenant-\d+$")?).label("tenants");
    /// let io = SocketIo::builder().namespace(tenants).build();
    /// io.children("tenants").emit("maintenance", "in five minutes")?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn children(&self, label: impl Into<String>) -> Broadcast {
        Broadcast::children(self.clone(), label.into())
    }

    /// Those in a room of `/`.
    pub fn to(&self, rooms: impl Rooms) -> Broadcast {
        self.of("/").to(rooms)
    }

    /// The same as [`SocketIo::to`].
    pub fn in_(&self, rooms: impl Rooms) -> Broadcast {
        self.to(rooms)
    }

    /// Those not in a room of `/`.
    pub fn except(&self, rooms: impl Rooms) -> Broadcast {
        self.of("/").except(rooms)
    }

    /// Everyone in `/` who is connected to this node.
    pub fn local(&self) -> Broadcast {
        self.of("/").local()
    }

    /// Everyone in `/`, with an event that may be lost.
    pub fn volatile(&self) -> Broadcast {
        self.of("/").volatile()
    }

    /// Everyone in `/`, with so long to acknowledge.
    pub fn timeout(&self, timeout: Duration) -> Broadcast {
        self.of("/").timeout(timeout)
    }

    /// Sends an event to everyone in `/`.
    ///
    /// # Errors
    /// As [`Broadcast::emit`].
    pub fn emit(&self, event: &str, args: impl IntoArgs) -> Result<(), EmitError> {
        self.of("/").emit(event, args)
    }

    /// Everyone in `/`, as [`Broadcast::fetch_sockets`] has them.
    pub async fn fetch_sockets(&self) -> ClusterReply<Vec<RemoteSocket>> {
        self.of("/").fetch_sockets().await
    }

    /// Closes the session of everyone on this node with "server shutting down"; the clients come back by themselves, and may.
    ///
    /// Who is in no namespace is not among them: [`Engine::close_all`](crate::engine::Engine::close_all) ends all sessions.
    pub fn close(&self) {
        let lives: Vec<_> = self.0.namespaces.read().expect(UNPOISONED).values().cloned().collect();
        for live in lives {
            for socket in live.select(&Target::default()) {
                socket.shut_down();
            }
        }
    }

    /// What [`Builder::state`] was given of that type.
    pub fn state<T: 'static>(&self) -> Option<&T> {
        self.0.states.get()
    }

    /// The beginning of an engine to stand on: one with the same bounds, ids, entropy and metrics.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use stickyport::hub::SocketIo;
    ///
    /// let io = SocketIo::builder().build();
    /// let engine = io.engine().build(Arc::new(io.clone()));
    /// ```
    pub fn engine(&self) -> engine::Builder {
        let Hub { limits, metrics, node, boot, entropy, .. } = &*self.0;
        Engine::builder().limits(limits.clone()).metrics(metrics.clone()).node(*node).boot(*boot).entropy(entropy.clone())
    }

    /// The number that its ids name.
    pub fn node(&self) -> Node {
        self.0.node
    }

    /// The label of its start, which its ids carry.
    pub fn boot(&self) -> Boot {
        self.0.boot
    }

    /// Its options.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// What reaches the other nodes.
    pub(super) fn adapter(&self) -> Option<&Arc<dyn Adapter>> {
        self.0.adapter.as_ref()
    }

    /// Under the lock of the namespaces, so that opening and closing are told in their order.
    fn tell_adapter(&self, what: impl FnOnce(&dyn Adapter)) {
        if let Some(adapter) = self.adapter() {
            what(&**adapter);
        }
    }

    /// Sends those of this node whom the target reaches an event of another node's; it is only read if there are any.
    pub(crate) fn deliver(
        &self,
        namespace: &str,
        target: &Target,
        flags: &Flags,
        read: impl FnOnce() -> Option<(SmolStr, Args)>,
    ) {
        if let Some(live) = self.live(namespace) {
            live.deliver(target, flags, read);
        }
    }

    /// The same with an event that has a place in the order of all, or has come too late to have one here.
    pub(crate) fn hear(
        &self,
        namespace: &str,
        offset: Option<Offset>,
        target: &Target,
        flags: &Flags,
        read: impl FnOnce() -> Option<(SmolStr, Args)>,
    ) {
        if let Some(live) = self.live(namespace) {
            live.hear(offset, target, flags, read);
        }
    }

    /// Ends the session of the client with that pid, which is at another node now, and waits until its handlers have heard of it.
    pub(crate) async fn fence(&self, namespace: &str, pid: &str) {
        let far = self.live(namespace).and_then(|live| live.far.clone());
        if let Some(far) = far
            && far.release(pid).await
        {
            self.0.metrics.fenced.inc();
        }
    }

    /// The rooms of a namespace that somebody on this node is in.
    pub(crate) fn rooms_here(&self, namespace: &str) -> Vec<Room> {
        self.live(namespace).map_or_else(Vec::new, |live| live.rooms())
    }

    /// Another server of the cluster has sent an event.
    pub(crate) fn hear_server(&self, event: &ServerEvent) {
        let Some(live) = self.live(event.namespace()) else { return };
        for hook in &live.behaviour.server {
            if let Err(panic) = guarded(|| hook(event)) {
                self.0.metrics.handler_panics.inc();
                tracing::error!(
                    namespace = event.namespace(),
                    event = event.name(),
                    panic = panic.0,
                    "a server event hook panicked"
                );
            }
        }
    }

    /// Whether anybody here is concerned by what is sent to a room.
    pub(crate) fn hears(&self, namespace: &str, room: &str) -> bool {
        self.live(namespace).is_some_and(|live| live.hears(room))
    }

    pub(super) fn parser(&self) -> Parser {
        self.0.options.parser
    }

    /// What another node tells of a socket cannot be read.
    pub(super) fn skipped_socket(&self, metrics: &Metrics, error: &serde_json::Error) {
        metrics.cluster_skipped.inc();
        if self.0.skipped_sockets.is_due(Instant::now()) {
            tracing::warn!("a socket of another node was left out of a list: {error}");
        }
    }

    /// Tells the operator why a client that uses another parser cannot come in.
    pub(super) fn explain_parsers(&self, client: &str) {
        if !self.0.foreign_clients.is_due(Instant::now()) {
            return;
        }
        match self.parser() {
            Parser::Json => tracing::warn!(
                client,
                "a client with socket.io-msgpack-parser was turned away: socketio.parser = \"msgpack\" is for such clients, and for no others"
            ),
            Parser::MsgPack => tracing::warn!(
                client,
                "a client without socket.io-msgpack-parser was turned away: socketio.parser = \"json\" is for such clients, and for no others"
            ),
        }
    }

    /// Its bounds.
    pub fn limits(&self) -> &Current<Limits> {
        &self.0.limits
    }

    /// Where it counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// The name of a namespace that exists from now on and was not made for a client.
    fn declare(&self, namespace: Namespace) -> Result<Option<ByteString>, NamespaceExists> {
        self.0.states.check(namespace.needs(), &namespace.describe());
        let (name, behaviour) = match namespace.into_parts() {
            Declared::Static(name, behaviour) => (name, behaviour),
            Declared::Family(family) => {
                self.0.families.write().expect(UNPOISONED).push(family);
                return Ok(None);
            }
        };
        let mut namespaces = self.0.namespaces.write().expect(UNPOISONED);
        if namespaces.contains_key(&name) {
            return Err(NamespaceExists(name));
        }
        namespaces.insert(name.clone(), Live::new(name.clone(), behaviour, None, self.shelf(), self.far(&name)));
        self.tell_adapter(|adapter| adapter.opened(&name));
        Ok(Some(name))
    }

    pub(super) fn live(&self, name: &str) -> Option<Arc<Live>> {
        self.0.namespaces.read().expect(UNPOISONED).get(name).cloned()
    }

    pub(super) fn families(&self) -> Vec<Arc<Family>> {
        self.0.families.read().expect(UNPOISONED).clone()
    }

    pub(super) fn children_of(&self, label: &str) -> Vec<Arc<Live>> {
        let is_child = |live: &&Arc<Live>| live.family.as_ref().is_some_and(|family| family.is_labelled(label));
        self.0.namespaces.read().expect(UNPOISONED).values().filter(is_child).cloned().collect()
    }

    /// The namespace of that name, made from the declaration if there is none; `None` says that there are too many.
    pub(super) fn make(&self, name: &str, family: &Arc<Family>) -> Option<Arc<Live>> {
        if self.0.children.load(Relaxed) >= self.0.limits.get().child_namespaces && self.live(name).is_none() {
            self.0.metrics.limit_child_namespaces.inc();
            if !self.drop_empty() {
                return None;
            }
        }
        let live = {
            let mut namespaces = self.0.namespaces.write().expect(UNPOISONED);
            if let Some(live) = namespaces.get(name) {
                return Some(Arc::clone(live));
            }
            // Its own buffer: the client's may be a whole payload.
            let name = ByteString::from(name);
            let live =
                Live::new(name.clone(), Arc::clone(&family.behaviour), Some(Arc::clone(family)), self.shelf(), self.far(&name));
            self.tell_adapter(|adapter| adapter.opened(&name));
            namespaces.insert(name, Arc::clone(&live));
            self.0.children.fetch_add(1, Relaxed);
            live
        };
        self.tell(&self.0.on_new_namespace, name);
        Some(live)
    }

    /// Drops the namespaces that were made for clients who are gone; `false` says that there are none.
    fn drop_empty(&self) -> bool {
        let is_empty = |live: &&Arc<Live>| live.family.is_some() && live.close_if_empty();
        let empty: Vec<_> = self.0.namespaces.read().expect(UNPOISONED).values().filter(is_empty).cloned().collect();
        empty.iter().for_each(|live| self.drop_live(live));
        !empty.is_empty()
    }

    /// A socket has gone for good, and its namespace with it if nobody else is there and the options say so.
    pub(super) fn release(&self, live: &Arc<Live>) {
        if live.release(self.0.options.cleanup_empty_child_namespaces) {
            self.drop_live(live);
        }
    }

    /// Drops a namespace that takes nobody any more.
    pub(super) fn drop_live(&self, live: &Arc<Live>) {
        {
            let mut namespaces = self.0.namespaces.write().expect(UNPOISONED);
            if !namespaces.get(&live.name).is_some_and(|current| Arc::ptr_eq(current, live)) {
                return;
            }
            namespaces.remove(&live.name);
            self.tell_adapter(|adapter| adapter.closed(&live.name));
            self.0.children.fetch_sub(1, Relaxed);
        }
        self.tell(&self.0.on_namespace_removed, &live.name);
    }

    fn tell(&self, hooks: &[NameHook], name: &str) {
        for hook in hooks {
            if let Err(panic) = guarded(|| hook(name)) {
                self.0.metrics.handler_panics.inc();
                tracing::error!(namespace = name, panic = panic.0, "a namespace hook panicked");
            }
        }
    }

    /// The id of a socket to be; clients of protocol 3 are not told theirs, they make it from the sid.
    pub(super) fn next_id(&self, session: &Session, namespace: &str) -> SocketId {
        let sid = session.sid().as_str();
        match session.version() {
            Version::V3 if namespace == "/" => SocketId::from(sid),
            Version::V3 => SocketId::from(&*format!("{namespace}#{sid}")),
            Version::V4 => SocketId::generate(self.0.node, self.0.boot, self.0.entropy.bits()),
        }
    }

    pub(super) fn next_pid(&self) -> Pid {
        Pid::generate(self.0.node, self.0.boot, self.0.entropy.bits())
    }

    /// What is kept in a namespace, unless that is elsewhere.
    fn shelf(&self) -> Option<Arc<Shelf>> {
        self.0.memory.as_ref().filter(|_| self.0.archive.is_none()).map(Memory::shelf)
    }

    fn far(&self, namespace: &ByteString) -> Option<Arc<Far>> {
        let Options { recovery, parser, .. } = self.0.options;
        let archive = self.0.archive.clone()?;
        Some(Far::new(archive, namespace.clone(), (recovery, self.0.limits.get().recovery_bytes), parser))
    }

    pub(super) fn archive(&self) -> Option<&Arc<dyn Archive>> {
        self.0.archive.as_ref()
    }

    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let opened = || self.0.runtime.get().cloned();
        let runtime = Handle::try_current().ok().or_else(opened);
        drop(runtime.expect("set when the first session was opened, and without one nothing waits").spawn(future));
    }
}

const UNPOISONED: &str = "no code that can panic runs under this lock";

/// A namespace's name with its slash.
fn normal(name: &str) -> ByteString {
    if name.starts_with('/') { name.into() } else { format!("/{name}").into() }
}

impl Application for SocketIo {
    fn opened(&self, session: &Arc<Session>) -> Arc<dyn Connection> {
        self.0.runtime.get_or_init(Handle::current);
        let link = Link::new(self.clone(), session);
        link.open(session);
        link
    }
}

impl fmt::Debug for SocketIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketIo").field("node", &self.0.node).finish_non_exhaustive()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("namespaces", &self.namespaces).finish_non_exhaustive()
    }
}
