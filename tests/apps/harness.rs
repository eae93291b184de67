//! The Socket.IO server that the reference's own server suite drives: commands on standard input, events on standard output.
//!
//! It does what the reference child does, event for event, on the public API. What a handler does is decided by whoever is at the other end, so every
//! namespace has the same handlers, which tell and ask.

mod door;
mod node_options;
mod pipe;
mod wire_value;

use door::{headers, hooks, limits, listen, number, remote_address};
use http::request::Parts;
use node_options::{NodeOptions, millis};
use pipe::{Commands, Pipe, object, put, put_some};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, SystemTime};
use stickyport::cluster::{self, Protocol, Redis};
use stickyport::engine::{Application, Connection, Session};
use stickyport::http::client_address::Networks;
use stickyport::hub::{
    AckError, AdapterError, Args, Broadcast, BroadcastReply, CloseReason, ClusterReply, ConnectError, DisconnectReason,
    EmitError, Event, EventError, Handshake, Namespace, NamespaceRequest, Regex, RemoteSocket, RoomEvent, ServerEvent, Socket,
    SocketError, SocketIo, State, TransportKind,
};
use stickyport::protocol::sid::{Boot, Node, NodeError};
use stickyport::shutdown::Phase;
use stickyport::{Server, Shutdown};
use wire_value::{read, shown};

/// What the program is started with.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    port: u16,
    opts: NodeOptions,
    adapter: Option<AdapterConfig>,
    periodic: Option<PeriodicConfig>,
}

/// A task that comes round; each turn is told, and its end.
#[derive(Deserialize)]
struct PeriodicConfig {
    /// How often, in milliseconds.
    every: u64,
    /// How long a turn takes, in milliseconds.
    lasts: u64,
}

impl PeriodicConfig {
    fn add_to(&self, server: Server, shared: &Arc<Shared>) -> Server {
        struct Told(Arc<Shared>, u64);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.pipe.tell("turned", object! { number: self.1 });
            }
        }
        let (shared, lasts) = (Arc::clone(shared), Duration::from_millis(self.lasts));
        server.periodic("told", Duration::from_millis(self.every), move |turn| {
            shared.pipe.tell("turn", object! { number: turn.number, token: turn.token });
            let told = Told(Arc::clone(&shared), turn.number);
            async move {
                let _told = told;
                tokio::time::sleep(lasts).await;
            }
        })
    }
}

/// What joins it to a cluster.
#[derive(Deserialize)]
struct AdapterConfig {
    #[serde(rename = "type")]
    kind: String,
    url: Option<String>,
    #[serde(default)]
    opts: AdapterOptions,
}

/// The reference's options for its adapter.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AdapterOptions {
    key: Option<String>,
    requests_timeout: Option<f64>,
    publish_on_specific_response_channel: bool,
    channel_prefix: Option<String>,
    stream_name: Option<String>,
    stream_count: Option<usize>,
    max_len: Option<usize>,
    read_count: Option<usize>,
    session_key_prefix: Option<String>,
    use_sharded_pub_sub: bool,
}

impl AdapterConfig {
    fn redis(&self) -> Result<Arc<Redis>, Box<dyn std::error::Error>> {
        let adapter = match &*self.kind {
            "redis" => Protocol::Redis,
            "redis-streams" if self.opts.use_sharded_pub_sub => return Err("useShardedPubSub is not there".into()),
            "redis-streams" => Protocol::RedisStreams,
            kind => return Err(format!("there is no adapter of type {kind} yet").into()),
        };
        let defaults = cluster::Options::default();
        let options = cluster::Options {
            url: self.url.clone().unwrap_or_else(|| "redis://127.0.0.1:6379".to_owned()),
            adapter,
            prefix: self.opts.key.clone().or_else(|| self.opts.channel_prefix.clone()).unwrap_or(defaults.prefix),
            stream: self.opts.stream_name.clone().unwrap_or(defaults.stream),
            stream_count: self.opts.stream_count.unwrap_or(defaults.stream_count),
            stream_length: self.opts.max_len.unwrap_or(defaults.stream_length),
            stream_read: self.opts.read_count.unwrap_or(defaults.stream_read),
            session_prefix: self.opts.session_key_prefix.clone().unwrap_or(defaults.session_prefix),
            request_timeout: self.opts.requests_timeout.map_or(defaults.request_timeout, millis),
            specific_response_channel: self.opts.publish_on_specific_response_channel,
        };
        Ok(Redis::new(&options, &limits())?)
    }
}

// One thread, as in the reference: a command is carried out as a whole before anything else happens.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // On standard error, which is free.
    let _log = stickyport::telemetry::init(&Default::default())?;
    let config: Config = serde_json::from_str(&std::env::args().nth(1).unwrap_or_else(|| "{}".to_owned()))?;
    let redis = config.adapter.as_ref().map(AdapterConfig::redis).transpose()?;
    let is_over_streams = config.adapter.as_ref().is_some_and(|adapter| adapter.kind == "redis-streams");
    let shared = Arc::new(Shared { is_member: redis.is_some(), is_over_streams, ..Shared::default() });
    let io = server(&shared, &config, redis.as_ref())?;
    let engine = io
        .engine()
        .options(config.opts.engine("/socket.io/"))
        .hooks(hooks(&shared.pipe, &config.opts, asked))
        .build(Arc::new(Noted { io: io.clone(), shared: Arc::clone(&shared) }));
    let listeners = listen(config.port)?;
    let port = listeners.own_port().expect("just bound");
    let shutdown = Shutdown::new();
    let mut server =
        Server::new(engine).cors(config.opts.cors()).trusted_proxies(Networks::default()).restart_window(Duration::ZERO);
    if let Some(redis) = &redis {
        server = server.cluster(Arc::clone(redis), io.clone());
    }
    if let Some(periodic) = &config.periodic {
        server = periodic.add_to(server, &shared);
    }
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move { server.run(listeners, &shutdown).await }
    });
    if let Some(redis) = &redis {
        redis.connected().await;
    }
    shared.pipe.tell("listening", object! { port: port });

    let mut commands = Commands::new()?;
    'serving: while let Some(first) = commands.next().await {
        // What the other side says in one turn is carried out at one moment, as if it stood in a handler: of two volatile events the second is lost.
        // It may still be saying it. Nothing else is to overtake it meanwhile, so the thread waits, and not the task.
        if matches!(first["c"].as_str(), Some("emit" | "op")) {
            std::thread::sleep(Duration::from_millis(3));
        }
        tokio::time::pause();
        let rest = std::iter::from_fn(|| commands.next_now());
        for command in std::iter::once(first).chain(rest) {
            match command["c"].as_str() {
                Some("close") => {
                    io.close();
                    shutdown.enter(Phase::Stopping);
                }
                Some("stop") => break 'serving,
                _ => obey(&io, &shared, &command),
            }
        }
        tokio::time::resume();
    }
    shared.pipe.flush();
    // What is still open goes with the process, as in the reference.
    std::process::exit(0)
}

fn asked(request: &Parts) -> Map<String, Value> {
    object! { url: request.uri.to_string(), headers: headers(&(&request.headers).into()) }
}

/// The hub, and a note of each session: some are in no namespace.
struct Noted {
    io: SocketIo,
    shared: Arc<Shared>,
}

impl Application for Noted {
    fn opened(&self, session: &Arc<Session>) -> Arc<dyn Connection> {
        {
            let sessions = &mut self.shared.known().sessions;
            sessions.retain(|session| session.strong_count() > 0);
            sessions.push(Arc::downgrade(session));
        }
        self.io.opened(session)
    }
}

/// What the handlers share.
#[derive(Default)]
struct Shared {
    /// Whether it is in a cluster.
    is_member: bool,
    /// Whether that speaks over streams, and its errors are that adapter's.
    is_over_streams: bool,
    pipe: Pipe,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// In the order in which they were opened.
    sessions: Vec<Weak<Session>>,
    sockets: HashMap<Name, Socket>,
    /// Those that a middleware decides on.
    held: HashMap<Name, Socket>,
    /// How many event middlewares are on.
    event_middlewares: HashMap<Name, usize>,
    /// The middlewares that are on, by namespace, each with the parent that it came from.
    middlewares: HashMap<String, Vec<Option<Value>>>,
    parents: Vec<Parent>,
}

/// Namespace and id.
type Name = (String, String);

/// The declaration of dynamic namespaces.
struct Parent {
    id: Value,
    pattern: Option<Regex>,
    /// How many middlewares the namespaces have that are made from now on.
    middlewares: usize,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics under this lock")
    }

    /// The connected socket that a command names.
    fn socket(&self, command: &Value) -> Option<Socket> {
        self.known().sockets.get(&named(command)).cloned()
    }
}

impl Known {
    /// The middlewares of a namespace; one that is made from a parent begins with those that the parent has then.
    fn middlewares(&mut self, namespace: &str, parent: Option<&Value>) -> &mut Vec<Option<Value>> {
        self.middlewares.entry(namespace.to_owned()).or_insert_with(|| {
            let parent = self.parents.iter().find(|known| Some(&known.id) == parent);
            parent.map(|parent| vec![Some(parent.id.clone()); parent.middlewares]).unwrap_or_default()
        })
    }
}

fn named(command: &Value) -> Name {
    let text = |key: &str| command[key].as_str().unwrap_or_default().to_owned();
    (text("nsp"), text("sid"))
}

fn name(socket: &Socket) -> Name {
    (socket.namespace().to_owned(), socket.id().to_string())
}

/// The beginning of every event about a socket.
fn of(socket: &Socket) -> Map<String, Value> {
    object! { nsp: socket.namespace(), sid: socket.id().as_str() }
}

fn rooms(socket: &Socket) -> Value {
    socket.rooms().iter().map(|room| room.as_str()).collect()
}

/// A socket's data as it was set, bytes in the harness protocol's form.
fn data(socket: &Socket) -> Value {
    socket.data().unwrap_or_default()
}

/// As the reference tells it; in a cluster as the other members tell it too, which know of no family but the address's own.
fn handshake(shared: &Shared, handshake: &Handshake) -> Value {
    let mut told = serde_json::to_value(handshake).unwrap_or_default();
    if !shared.is_member {
        told["address"] = remote_address(handshake.address()).into();
    }
    told
}

fn server(shared: &Arc<Shared>, config: &Config, redis: Option<&Arc<Redis>>) -> Result<SocketIo, NodeError> {
    // The one number that no other harness on this host has.
    let node = Node::try_from(u32::from(config.port))?;
    let told = Arc::clone(shared);
    let forgotten = Arc::clone(shared);
    let mut builder = SocketIo::builder();
    if let Some(redis) = redis {
        builder = builder.adapter(Arc::clone(redis) as _);
    }
    let io = builder
        .options(config.opts.hub())
        .limits(limits())
        .ids(node, Boot::at(SystemTime::now()))
        .state(Arc::clone(shared))
        .namespace(watched(Namespace::new("/"), shared, None))
        .on_new_namespace(move |name| told.pipe.tell("new_namespace", object! { name: name }))
        .on_namespace_removed(move |name| {
            forgotten.known().middlewares.remove(name);
            forgotten.pipe.tell("nsp_removed", object! { name: name });
        })
        .build();
    Ok(io)
}

/// A namespace in which everything is told.
fn watched(namespace: Namespace, shared: &Arc<Shared>, parent: Option<Value>) -> Namespace {
    let asking = Arc::clone(shared);
    let moving = Arc::clone(shared);
    let told = Arc::clone(shared);
    namespace
        .on_server_event(move |event| heard_server(&told, event))
        .middleware(move |socket: Socket| admit(Arc::clone(&asking), socket, parent.clone()))
        .on_connect(connected)
        .on_any(received)
        .event_middleware(pass)
        .on_any_outgoing(outgoing)
        .on_room(move |namespace, event| moved(&moving, namespace, event))
        .on_upgrade(upgraded)
        .on_error(failed)
        .on_disconnecting(disconnecting)
        .on_disconnect(disconnected)
}

async fn admit(shared: Arc<Shared>, socket: Socket, parent: Option<Value>) -> Result<(), ConnectError> {
    let middlewares = shared.known().middlewares(socket.namespace(), parent.as_ref()).clone();
    for parent in middlewares {
        shared.known().held.insert(name(&socket), socket.clone());
        let mut question = of(&socket);
        put_some(&mut question, "parent", parent);
        put(&mut question, "handshake", handshake(&shared, socket.handshake()));
        put(&mut question, "recovered", socket.recovered());
        put(&mut question, "rooms", rooms(&socket));
        put(&mut question, "data", data(&socket));
        let answer = shared.pipe.answer_to("mw", question).await;
        shared.known().held.remove(&name(&socket));
        if !answer["data"].is_null() {
            // A value is JSON already.
            let _ = socket.set_data(&answer["data"]);
        }
        if let Some(error) = answer["err"].as_object() {
            let refused = ConnectError::new(error.get("message").and_then(Value::as_str).unwrap_or_default());
            return Err(match error.get("data") {
                Some(data) => refused.data(data),
                None => refused,
            });
        }
    }
    Ok(())
}

fn connected(State(shared): State<Arc<Shared>>, socket: Socket) {
    shared.known().sockets.insert(name(&socket), socket.clone());
    let mut event = of(&socket);
    put(&mut event, "handshake", handshake(&shared, socket.handshake()));
    put_some(&mut event, "pid", socket.pid());
    put(&mut event, "recovered", socket.recovered());
    put(&mut event, "rooms", rooms(&socket));
    put(&mut event, "data", data(&socket));
    put(&mut event, "transport", socket.transport().as_str());
    put(&mut event, "protocol", number(socket.session().version()));
    shared.pipe.tell("connection", event);
}

fn received(State(shared): State<Arc<Shared>>, socket: Socket, event: Event) {
    let ack = event.ack().clone();
    let mut told = of(&socket);
    let mut args = vec![event.name().into()];
    args.extend(shown(event.args()));
    put(&mut told, "args", args);
    if ack.is_asked() {
        put(&mut told, "ack", true);
        shared.pipe.ask("event", told, move |answer| {
            // A client that has gone does not miss it.
            let _ = ack.send(read(&answer["args"]));
        });
    } else {
        shared.pipe.tell("event", told);
    }
}

async fn pass(State(shared): State<Arc<Shared>>, socket: Socket, event: Event) -> Result<(), EventError> {
    let middlewares = shared.known().event_middlewares.get(&name(&socket)).copied().unwrap_or_default();
    for _ in 0..middlewares {
        let mut question = of(&socket);
        let mut args = vec![event.name().into()];
        args.extend(shown(event.args()));
        put(&mut question, "args", args);
        let answer = shared.pipe.answer_to("smw", question).await;
        if let Some(error) = answer["err"].as_object() {
            return Err(EventError::new(error.get("message").and_then(Value::as_str).unwrap_or_default()));
        }
    }
    Ok(())
}

fn outgoing(socket: &Socket, event: &Event) {
    let shared = shared(socket);
    // The reference listens from `connection` on.
    if shared.known().sockets.contains_key(&name(socket)) {
        let mut args = vec![event.name().into()];
        args.extend(shown(event.args()));
        let mut told = of(socket);
        put(&mut told, "args", args);
        shared.pipe.tell("outgoing", told);
    }
}

fn heard_server(shared: &Shared, event: &ServerEvent) {
    let mut args = vec![event.name().into()];
    args.extend(shown(event.args()));
    let mut told = object! { nsp: event.namespace(), args: args };
    if event.is_asked() {
        put(&mut told, "ack", true);
        let event = event.clone();
        shared.pipe.ask("sse", told, move |answer| {
            // What came out of JSON is JSON.
            let _ = event.acknowledge(read(&answer["args"]));
        });
    } else {
        shared.pipe.tell("sse", told);
    }
}

fn moved(shared: &Shared, namespace: &str, event: &RoomEvent) {
    let (RoomEvent::Joined(_, id) | RoomEvent::Left(_, id)) = event else { return };
    let socket = shared.known().sockets.get(&(namespace.to_owned(), id.to_string())).cloned();
    if let Some(socket) = socket {
        let mut told = of(&socket);
        put(&mut told, "rooms", rooms(&socket));
        shared.pipe.tell("rooms", told);
    }
}

fn upgraded(socket: &Socket, transport: TransportKind) {
    let mut told = of(socket);
    put(&mut told, "transport", transport.as_str());
    shared(socket).pipe.tell("upgrade", told);
}

fn failed(socket: &Socket, error: &SocketError) {
    let mut told = of(socket);
    put(&mut told, "message", error.to_string());
    shared(socket).pipe.tell("error", told);
}

fn disconnecting(State(shared): State<Arc<Shared>>, socket: Socket, reason: DisconnectReason) {
    let mut told = of(&socket);
    put(&mut told, "reason", reason.as_str());
    put(&mut told, "rooms", rooms(&socket));
    shared.pipe.tell("disconnecting", told);
}

fn disconnected(State(shared): State<Arc<Shared>>, socket: Socket, reason: DisconnectReason) {
    let mut told = of(&socket);
    put(&mut told, "reason", reason.as_str());
    shared.pipe.tell("disconnect", told);
    let mut known = shared.known();
    known.sockets.remove(&name(&socket));
    known.event_middlewares.remove(&name(&socket));
}

fn shared(socket: &Socket) -> &Arc<Shared> {
    socket.io().state().expect("given to the builder")
}

/// Carries out a command.
fn obey(io: &SocketIo, shared: &Arc<Shared>, command: &Value) {
    let socket = || shared.socket(command);
    match command["c"].as_str().unwrap_or_default() {
        "answer" => shared.pipe.answered(command),
        "nsp" => drop(open(io, shared, &command["nsp"])),
        "parent" => declare(io, shared, command),
        "mw" => add_middleware(io, shared, command),
        "smw" => {
            let mut known = shared.known();
            if known.sockets.contains_key(&named(command)) {
                *known.event_middlewares.entry(named(command)).or_default() += 1;
            }
        }
        "emit" => emit(io, shared, command),
        "op" => operate(io, shared, command),
        "join" => {
            if let Some(socket) = socket() {
                // One that is on its way out joins nothing.
                let _ = socket.join(names(&command["rooms"]));
            }
        }
        "leave" => {
            if let Some(socket) = socket() {
                socket.leave(names(&command["rooms"]));
            }
        }
        "leaveAll" => {
            if let Some(socket) = socket() {
                // One after the other, as the reference child does it.
                socket.leave(socket.rooms());
            }
        }
        "disconnect" => {
            if let Some(socket) = socket() {
                socket.disconnect(command["close"] == true);
            }
        }
        "connClose" => {
            let held = || shared.known().held.get(&named(command)).cloned();
            if let Some(socket) = socket().or_else(held) {
                socket.session().close(CloseReason::ForcedClose);
            }
        }
        "data" => {
            if let Some(socket) = socket() {
                // A value is JSON already.
                let _ = socket.set_data(&command["data"]);
            }
        }
        "engineClose" => {
            let sessions = std::mem::take(&mut shared.known().sessions);
            for session in sessions.iter().filter_map(Weak::upgrade) {
                session.discard(CloseReason::ForcedClose);
            }
        }
        unknown => tracing::error!(unknown, "not a command"),
    }
}

/// A room, or a list of them.
fn names(rooms: &Value) -> Vec<String> {
    match rooms {
        Value::Array(rooms) => rooms.iter().map(text).collect(),
        Value::Null => Vec::new(),
        room => vec![text(room)],
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The namespace exists from now on, as a child of the first parent that it matches or by itself; its name is returned.
fn open(io: &SocketIo, shared: &Arc<Shared>, name: &Value) -> String {
    let name = name.as_str().unwrap_or_default();
    let name = if name.starts_with('/') { name.to_owned() } else { format!("/{name}") };
    if io.has(&name) {
        return name;
    }
    let mut known = shared.known();
    let matches = |parent: &&Parent| parent.pattern.as_ref().is_some_and(|pattern| pattern.is_match(&name));
    let parent = known.parents.iter().find(matches).map(|parent| parent.id.clone());
    known.middlewares(&name, parent.as_ref());
    drop(known);
    if !io.open(&name) {
        io.add(watched(Namespace::new(name.clone()), shared, None)).expect("it did not exist");
    }
    name
}

fn declare(io: &SocketIo, shared: &Arc<Shared>, command: &Value) {
    let id = command["id"].clone();
    let (namespace, pattern) = match command["regex"].as_str() {
        Some(regex) => {
            // What JavaScript calls flags is written into the pattern here; the others of its flags say how a search goes on.
            let flags: String =
                command["flags"].as_str().unwrap_or_default().chars().filter(|flag| "ims".contains(*flag)).collect();
            let pattern = if flags.is_empty() { regex.to_owned() } else { format!("(?{flags}){regex}") };
            match Regex::new(&pattern) {
                Ok(pattern) => (Namespace::matching(pattern.clone()), Some(pattern)),
                Err(error) => return tracing::error!(%error, "not a pattern"),
            }
        }
        None => {
            let (asking, id) = (Arc::clone(shared), id.clone());
            (Namespace::dynamic(move |request| check(Arc::clone(&asking), id.clone(), request)), None)
        }
    };
    shared.known().parents.push(Parent { id: id.clone(), pattern, middlewares: 0 });
    io.add(watched(namespace, shared, Some(id))).expect("a pattern has no name that could be taken");
}

async fn check(shared: Arc<Shared>, id: Value, request: NamespaceRequest) -> bool {
    let auth: Value = request.handshake().auth().unwrap_or_default();
    let answer = shared.pipe.answer_to("parentCheck", object! { id: id, name: request.name(), auth: auth }).await;
    answer["err"].is_null() && answer["ok"] == true
}

fn add_middleware(io: &SocketIo, shared: &Arc<Shared>, command: &Value) {
    if command["parent"].is_null() {
        let namespace = open(io, shared, &command["nsp"]);
        shared.known().middlewares(&namespace, None).push(None);
    } else if let Some(parent) = shared.known().parents.iter_mut().find(|parent| parent.id == command["parent"]) {
        parent.middlewares += 1;
    }
}

fn emit(io: &SocketIo, shared: &Arc<Shared>, command: &Value) {
    let (event, args) = event(&command["args"]);
    let wants_ack = command["ack"] == true;
    let flags = Flags::of(&command["flags"]);
    let Some(socket) = shared.socket(command) else {
        if !wants_ack {
            emit_to_gone(io, shared, command, &event, args);
        }
        return;
    };
    let mut emitter = socket.compress(flags.compress.unwrap_or(true));
    if flags.volatile {
        emitter = emitter.volatile();
    }
    if let Some(timeout) = flags.timeout {
        emitter = emitter.timeout(timeout);
    }
    if !wants_ack {
        match emitter.emit(&event, &args) {
            Err(EmitError::Disconnected) => emit_to_gone(io, shared, command, &event, args),
            Err(error) => tracing::error!(%error, event, "not sent"),
            Ok(()) => {}
        }
        return;
    }
    let pending = emitter.emit_with_ack(&event, args);
    let (shared, n) = (Arc::clone(shared), command.get("n").cloned());
    tokio::spawn(async move {
        let mut told = Map::new();
        put_some(&mut told, "n", n);
        match (pending.await, flags.timeout) {
            (Ok(args), None) => put(&mut told, "args", shown(&args)),
            (Ok(args), Some(_)) => {
                put(&mut told, "err", Value::Null);
                put(&mut told, "args", shown(&args));
            }
            // Without a time limit the reference waits for ever.
            (Err(_), None) => return,
            (Err(error), Some(_)) => {
                put(&mut told, "err", error.to_string());
                put(&mut told, "args", Vec::<Value>::new());
            }
        }
        shared.pipe.tell("ack", told);
    });
}

/// What is sent to a socket that has gone only matters to connection state recovery.
fn emit_to_gone(io: &SocketIo, shared: &Arc<Shared>, command: &Value, event: &str, args: Args) {
    if let Err(error) = io.of(&open(io, shared, &command["nsp"])).to(named(command).1).emit(event, args) {
        tracing::error!(%error, event, "not sent");
    }
}

/// The name and the arguments of an event.
fn event(args: &Value) -> (String, Args) {
    let mut args = args.as_array().cloned().unwrap_or_default();
    let name = if args.is_empty() { String::new() } else { text(&args.remove(0)) };
    (name, read(&args.into()))
}

/// How something is sent.
struct Flags {
    local: bool,
    volatile: bool,
    compress: Option<bool>,
    timeout: Option<Duration>,
}

impl Flags {
    fn of(flags: &Value) -> Self {
        Self {
            local: flags["local"] == true,
            volatile: flags["volatile"] == true,
            compress: flags["compress"].as_bool(),
            timeout: flags["timeout"].as_f64().map(millis),
        }
    }

    fn on(&self, mut broadcast: Broadcast) -> Broadcast {
        if self.local {
            broadcast = broadcast.local();
        }
        if self.volatile {
            broadcast = broadcast.volatile();
        }
        if let Some(compress) = self.compress {
            broadcast = broadcast.compress(compress);
        }
        match self.timeout {
            Some(timeout) => broadcast.timeout(timeout),
            None => broadcast,
        }
    }
}

/// Does something with many sockets.
fn operate(io: &SocketIo, shared: &Arc<Shared>, command: &Value) {
    let results = Results { shared: Arc::clone(shared), n: command.get("n").cloned() };
    let Some(sockets) = operator(io, shared, command) else { return results.failed("unknown socket") };
    let args = &command["args"];
    match command["m"].as_str().unwrap_or_default() {
        "emit" => {
            let (event, args) = event(args);
            if command["ack"] == true {
                let pending = sockets.emit_with_ack(&event, args);
                tokio::spawn(async move {
                    match pending.await {
                        Ok(reply) => results.acknowledged(&reply),
                        Err(error) => results.failed(&error.to_string()),
                    }
                });
            } else if let Err(error) = sockets.emit(&event, args) {
                tracing::error!(%error, event, "not sent");
            }
        }
        "socketsJoin" => sockets.sockets_join(names(&args[0])),
        "socketsLeave" => sockets.sockets_leave(names(&args[0])),
        "disconnectSockets" => sockets.disconnect_sockets(args[0] == true),
        // One node alone has nobody to send it to, and says nothing.
        "serverSideEmit" if !shared.is_member => {}
        "serverSideEmit" => {
            let (event, args) = event(args);
            if command["ack"] == true {
                tokio::spawn(async move {
                    match sockets.server_side_emit_with_ack(&event, args).await {
                        Ok(reply) => results.answered(reply),
                        Err(error) => results.failed(&error.to_string()),
                    }
                });
            } else if let Err(error) = sockets.server_side_emit(&event, args) {
                tracing::error!(%error, event, "not sent");
            }
        }
        "fetchSockets" => drop(tokio::spawn(async move {
            let sockets = sockets.fetch_sockets().await.complete();
            let told = sockets.map(|sockets| sockets.iter().map(|socket| fetched(&results.shared, socket)).collect::<Value>());
            results.of("fetchSockets", told);
        })),
        "allRooms" => drop(tokio::spawn(async move { results.of("allRooms", sockets.all_rooms().await.complete()) })),
        "serverCount" => drop(tokio::spawn(async move { results.of("serverCount", sockets.server_count().await) })),
        unknown => tracing::error!(unknown, "not something to do"),
    }
}

/// Whom a command means; `None` if it names a socket that is not there.
fn operator(io: &SocketIo, shared: &Arc<Shared>, command: &Value) -> Option<Broadcast> {
    let sockets =
        if command["sid"].is_string() { shared.socket(command)?.broadcast() } else { io.of(&open(io, shared, &command["nsp"])) };
    let sockets = sockets.to(names(&command["rooms"])).except(names(&command["except"]));
    Some(Flags::of(&command["flags"]).on(sockets))
}

fn fetched(shared: &Shared, socket: &RemoteSocket) -> Value {
    let mut told = serde_json::to_value(socket).unwrap_or_default();
    told["handshake"] = handshake(shared, socket.handshake());
    told
}

/// Where the result of an operation goes.
struct Results {
    shared: Arc<Shared>,
    n: Option<Value>,
}

impl Results {
    fn of(self, question: &str, result: Result<impl serde::Serialize, AdapterError>) {
        match result {
            Ok(value) => self.tell(Value::Null, serde_json::to_value(value).ok()),
            // In the words of the reference's adapter.
            Err(error @ AdapterError::Timeout { .. }) if self.shared.is_over_streams => self.failed(&error.to_string()),
            Err(_) => self.failed(&format!("timeout reached while waiting for {question} response")),
        }
    }

    /// What the other servers answered, and the reference's error if one did not.
    fn answered(self, reply: ClusterReply<Vec<Args>>) {
        let values: Value = reply.value.iter().map(|args| shown(args).into_iter().next().unwrap_or_default()).collect();
        let error = reply.complete().err().map_or(Value::Null, |error| json!({ "message": error.to_string() }));
        self.tell(error, Some(values));
    }

    fn acknowledged(self, reply: &BroadcastReply) {
        let first = |args: &Args| shown(args).into_iter().next().unwrap_or_default();
        let values: Vec<_> = reply.replies.iter().map(|(_, args)| first(args)).collect();
        let error = if reply.is_complete() { Value::Null } else { json!({ "message": AckError::Timeout.to_string() }) };
        self.tell(error, Some(values.into()));
    }

    fn failed(self, message: &str) {
        self.tell(json!({ "message": message }), None);
    }

    fn tell(self, err: Value, value: Option<Value>) {
        let mut told = object! { err: err };
        put_some(&mut told, "n", self.n);
        put_some(&mut told, "value", value);
        self.shared.pipe.tell("result", told);
    }
}
