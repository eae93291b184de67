//! The sessions of one instance: who is here, who may come, and how all of them go.

use super::admission::{Admission, Gate, Hold, Refusal};
use super::stream::Stream;
use super::transport::websocket::WebSocket;
use super::{Application, Entropy, Handshake, Hooks, Intake, Options, Payload, Session, TransportKind, driver};
use crate::current::Current;
use crate::metrics::Metrics;
use crate::protocol::eio::handshake::{Open, Query, Request, Route, verify};
use crate::protocol::eio::{Encoded, Version};
use crate::protocol::errors::{BadRequest, CloseReason, ConnectionError};
use crate::protocol::limits::Limits;
use crate::protocol::session::Timing;
use crate::protocol::sid::{Boot, Miss, Node, Sid};
use http::HeaderMap;
use http::request::Parts;
use std::collections::{HashMap, hash_map};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::debug;

/// Handshakes that are begun before others get their turn.
const NEWCOMERS_A_TURN: usize = 8;

/// The sessions of one instance.
pub struct Engine {
    pub(super) options: Options,
    limits: Current<Limits>,
    pub(super) metrics: Arc<Metrics>,
    node: Node,
    boot: Boot,
    entropy: Entropy,
    application: Arc<dyn Application>,
    hooks: Hooks,
    gate: Arc<Gate>,
    newcomers: Semaphore,
    sessions: RwLock<HashMap<Sid, Entry>>,
    tasks: TaskTracker,
    pub(super) ping: Encoded,
    pub(super) pong: Encoded,
    pub(super) noop: Encoded,
    pub(super) probe_answer: Encoded,
    initial_packet: Option<Encoded>,
}

struct Entry {
    session: Arc<Session>,
    _admission: Admission,
}

/// What an [`Engine`] is made of.
#[derive(Debug)]
pub struct Builder {
    options: Options,
    limits: Current<Limits>,
    metrics: Arc<Metrics>,
    node: Node,
    boot: Boot,
    entropy: Entropy,
    hooks: Hooks,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            options: Options::default(),
            limits: Limits::default().into(),
            metrics: Arc::default(),
            node: Node::try_from(0).expect("0 is a node"),
            boot: Boot::at(SystemTime::now()),
            entropy: Entropy::default(),
            hooks: Hooks::default(),
        }
    }
}

impl Builder {
    /// Sets the engine's options.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Sets the bounds; who keeps a clone can change them later.
    #[must_use]
    pub fn limits(mut self, limits: impl Into<Current<Limits>>) -> Self {
        self.limits = limits.into();
        self
    }

    /// Counts there.
    #[must_use]
    pub fn metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// Names the owner in every sid.
    #[must_use]
    pub fn node(mut self, node: Node) -> Self {
        self.node = node;
        self
    }

    /// Labels this start of the process in every sid.
    #[must_use]
    pub fn boot(mut self, boot: Boot) -> Self {
        self.boot = boot;
        self
    }

    /// Sets where the random part of every sid comes from.
    #[must_use]
    pub fn entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = entropy;
        self
    }

    /// Sets what the application decides about requests.
    #[must_use]
    pub fn hooks(mut self, hooks: Hooks) -> Self {
        self.hooks = hooks;
        self
    }

    /// An engine below `application`.
    pub fn build(self, application: Arc<dyn Application>) -> Arc<Engine> {
        let Self { options, limits, metrics, node, boot, entropy, hooks } = self;
        let initial_packet = Some(&*options.initial_packet).filter(|text| !text.is_empty());
        let initial_packet = initial_packet.map(|text| Encoded::message(&text.into()));
        Arc::new(Engine {
            options,
            limits,
            metrics,
            node,
            boot,
            entropy,
            application,
            hooks,
            gate: Arc::default(),
            newcomers: Semaphore::new(NEWCOMERS_A_TURN),
            sessions: RwLock::default(),
            tasks: TaskTracker::new(),
            ping: Encoded::control("2"),
            pong: Encoded::control("3"),
            noop: Encoded::control("6"),
            probe_answer: Encoded::control("3probe"),
            initial_packet,
        })
    }
}

impl Engine {
    /// An engine with the reference's defaults, to be changed.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Its options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Its bounds; a session has those of its beginning.
    pub fn limits(&self) -> &Current<Limits> {
        &self.limits
    }

    /// Where it counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The node that its sids name.
    pub fn node(&self) -> Node {
        self.node
    }

    /// Sessions that are open now.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether no session is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tasks of its sessions; a process that stops waits for them, so that every client hears its last words.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Whether new sessions are taken.
    pub fn is_accepting(&self) -> bool {
        !self.gate.is_shut()
    }

    /// Refuses handshakes from now on.
    pub fn stop_accepting(&self) {
        self.gate.shut();
    }

    /// Sets what keeps this instance from being ready; `None` if nothing does.
    pub fn hold(&self, hold: Option<Hold>) {
        self.gate.hold(hold);
    }

    /// What keeps this instance from being ready, beside that it goes.
    pub fn held(&self) -> Option<Hold> {
        self.gate.held()
    }

    /// Checks a request in the reference's order and counts what is wrong with it.
    ///
    /// # Errors
    /// What the client is answered.
    pub fn verify(&self, request: Request<'_>) -> Result<Route<Arc<Session>>, ConnectionError> {
        let find = |sid: &str| {
            // One that the application has not taken yet is nobody's: its client does not know its sid.
            let found = self.read().get(sid).map(|entry| Arc::clone(&entry.session)).filter(|session| session.is_connected());
            if found.is_none() {
                self.explain_miss(sid);
            }
            found.map(|session| {
                let (version, transport) = (session.version(), session.transport());
                (session, version, transport)
            })
        };
        verify(request, &self.options.transports, find)
    }

    fn explain_miss(&self, sid: &str) {
        let (reason, owner, count) = match Miss::explain(sid, self.node) {
            Miss::Other(owner) => ("sid_other", Some(owner), &self.metrics.refused_sid_other),
            Miss::Gone => ("sid_gone", None, &self.metrics.refused_sid_gone),
            Miss::Garbage => ("sid_garbage", None, &self.metrics.refused_sid_garbage),
        };
        count.inc();
        debug!(reason, owner = owner.map(u32::from), "session id unknown");
    }

    /// Tells the application of a request.
    pub fn requested(&self, request: &Parts) {
        if let Some(look) = &self.hooks.on_request {
            look(request);
        }
    }

    /// Counts a refusal and tells the application of it.
    pub fn refused(&self, error: &ConnectionError, request: &Parts) {
        match error {
            ConnectionError::TransportUnknown => self.metrics.refused_transport_unknown.inc(),
            // Counted by its cause when it was looked up.
            ConnectionError::UnknownSid => {}
            ConnectionError::BadHandshakeMethod => self.metrics.refused_method.inc(),
            ConnectionError::BadRequest(_) => self.metrics.refused_bad_request.inc(),
            ConnectionError::Forbidden(_) => self.metrics.refused_forbidden.inc(),
            ConnectionError::UnsupportedProtocolVersion => self.metrics.refused_protocol_version.inc(),
        }
        if let Some(tell) = &self.hooks.connection_error {
            tell(error, request);
        }
    }

    /// Waits for a newcomer's turn: those who are here go first, and a flood of handshakes holds them up no longer than a few of them.
    pub async fn take_turn(&self) {
        let _turn = self.newcomers.acquire().await.expect("never closed");
        // The runtime goes on with the last of those that yield first: the second time puts them in the order in which they came.
        yield_now().await;
        yield_now().await;
    }

    /// A place for one more session of `address`.
    ///
    /// # Errors
    /// A limit is reached, the instance drains, or its number is another's.
    pub fn admit(&self, address: &str) -> Result<Admission, Refusal> {
        self.gate.admit(address, Instant::now(), &self.limits.get(), &self.metrics)
    }

    /// Asks the application whether a handshake may go on, then looks at its version, and makes its sid: the reference's order.
    ///
    /// # Errors
    /// The application says no, the version is not enabled, or the sid could not be made.
    pub async fn authorize(&self, request: &Parts, query: &Query<'_>) -> Result<Sid, ConnectionError> {
        if let Some(allow) = &self.hooks.allow_request {
            allow(request).await.map_err(ConnectionError::Forbidden)?;
        }
        if Version::of(query) == Version::V3 && !self.options.allow_eio3 {
            return Err(ConnectionError::UnsupportedProtocolVersion);
        }
        let Some(generate) = &self.hooks.generate_id else {
            return Ok(Sid::generate(self.node, self.boot, self.entropy.bits()));
        };
        let sid = generate(request).await.map_err(|error| {
            debug!(error, "the application's sid generator failed");
            BadRequest::IdGeneration
        })?;
        // Two sessions of one sid would share their messages.
        if sid.is_empty() || self.read().contains_key(sid.as_str()) {
            debug!("the application's sid generator gave an empty sid or one that is taken");
            return Err(BadRequest::IdGeneration.into());
        }
        Ok(Sid::from(sid.as_str()))
    }

    /// Whether the application adds headers to answers.
    pub fn adds_headers(&self) -> bool {
        self.hooks.initial_headers.is_some() || self.hooks.headers.is_some()
    }

    /// Adds the application's headers to an answer; `is_initial` for that of a session's first request.
    pub fn add_headers(&self, headers: &mut HeaderMap, request: &Parts, is_initial: bool) {
        if is_initial && let Some(add) = &self.hooks.initial_headers {
            add(headers, request);
        }
        if let Some(add) = &self.hooks.headers {
            add(headers, request);
        }
    }

    /// Opens a session on polling; what is returned is the body of the handshake's answer.
    ///
    /// # Errors
    /// The application's generator has given the same sid twice.
    pub fn open_polling(
        self: &Arc<Self>,
        sid: Sid,
        admission: Admission,
        handshake: Handshake,
    ) -> Result<Payload, ConnectionError> {
        let session = Session::new(Arc::clone(self), sid, handshake, None);
        let greeting = self.greeting(&session);
        self.start(&session, admission)?;
        let version = session.version();
        self.tasks.spawn(driver::drive(session, None));
        Ok(Payload::of(version, &greeting))
    }

    /// Opens a session on a WebSocket whose handshake is done; `unread` came with it.
    pub fn open_websocket(self: &Arc<Self>, sid: Sid, admission: Admission, handshake: Handshake, stream: Stream, unread: &[u8]) {
        let socket =
            Box::new(WebSocket::new(stream, unread, self.options.max_payload, Intake::new(&self.metrics, &self.limits.get())));
        let session = Session::new(Arc::clone(self), sid, handshake, Some(&socket));
        // In line before the application can send, and sent after it was told: so nobody hears of a session that the application does not know.
        let greeting = self.greeting(&session);
        session.queue(&mut session.lock(), &greeting).expect("nothing waits yet");
        if self.start(&session, admission).is_err() {
            // The sid is another session's, and no business of this client's.
            return session.drop_backlog(&mut session.lock());
        }
        session.flush(&mut session.lock());
        self.metrics.sessions_websocket.inc();
        self.tasks.spawn(driver::drive(session, Some(socket)));
    }

    /// Runs a WebSocket that asks to take a polling session over.
    pub async fn upgrade(&self, session: Arc<Session>, stream: Stream, unread: &[u8]) {
        let socket = Box::new(WebSocket::new(stream, unread, self.options.max_payload, session.intake()));
        driver::probe(session, socket).await;
    }

    /// The packets with which every session begins.
    fn greeting(&self, session: &Session) -> Vec<Encoded> {
        let can_upgrade = session.transport() == TransportKind::Polling
            && self.options.allow_upgrades
            && self.options.transports.contains(&TransportKind::WebSocket);
        let open = Open {
            sid: session.sid(),
            upgrade: can_upgrade,
            ping_interval: self.options.ping_interval,
            ping_timeout: self.options.ping_timeout,
            max_payload: self.options.max_payload,
        };
        let mut packets = vec![open.encode()];
        packets.extend(self.initial_packet.clone());
        packets
    }

    fn start(&self, session: &Arc<Session>, admission: Admission) -> Result<(), ConnectionError> {
        let sid = session.sid();
        match self.write().entry(sid.clone()) {
            hash_map::Entry::Occupied(_) => {
                debug!("the application's sid generator gave one sid to two handshakes at once");
                return Err(BadRequest::IdGeneration.into());
            }
            hash_map::Entry::Vacant(place) => place.insert(Entry { session: Arc::clone(session), _admission: admission }),
        };
        match catch_unwind(AssertUnwindSafe(|| self.application.opened(session))) {
            Ok(connection) => session.connect(connection),
            Err(panic) => {
                self.write().remove(sid);
                session.drop_backlog(&mut session.lock());
                resume_unwind(panic);
            }
        }
        self.metrics.sessions.inc();
        self.metrics.sessions_opened.inc();
        // Whoever closes all sessions shuts the gate first, so one that comes late for that finds it shut.
        if self.gate.is_shut() {
            session.hang_up(CloseReason::ServerShuttingDown);
        }
        Ok(())
    }

    /// A session is over.
    pub(super) fn forget(&self, session: &Session, reason: CloseReason) {
        let entry = self.write().remove(session.sid());
        drop(entry);
        self.metrics.sessions.dec();
        if session.transport() == TransportKind::WebSocket {
            self.metrics.sessions_websocket.dec();
        }
        match reason {
            CloseReason::TransportError => self.metrics.closed_transport_error.inc(),
            CloseReason::TransportClose => self.metrics.closed_transport_close.inc(),
            CloseReason::PingTimeout => self.metrics.closed_ping_timeout.inc(),
            CloseReason::ParseError => self.metrics.closed_parse_error.inc(),
            CloseReason::ForcedClose | CloseReason::ForcedServerClose => self.metrics.closed_forced.inc(),
            CloseReason::ServerShuttingDown => self.metrics.closed_shutdown.inc(),
        }
        debug!(%reason, "session closed");
    }

    /// Refuses handshakes and closes all sessions with "server shutting down", spread evenly over `window`: clients come back by themselves.
    pub async fn close_all(&self, window: Duration) {
        self.stop_accepting();
        let sessions = self.all();
        let start = Instant::now();
        let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX).max(1);
        for (session, index) in sessions.into_iter().zip(0_u32..) {
            tokio::time::sleep_until(start + (window / count) * index).await;
            session.hang_up(CloseReason::ServerShuttingDown);
        }
    }

    /// Ends polling sessions at once: nobody is there to take their last words.
    pub fn discard_polling(&self) {
        for session in self.all() {
            if session.transport() == TransportKind::Polling {
                session.discard(CloseReason::ServerShuttingDown);
            }
        }
    }

    /// The sessions by their sids: a table's own order is another one each time, and a simulation could not be replayed.
    fn all(&self) -> Vec<Arc<Session>> {
        let mut sessions: Vec<_> = self.read().values().map(|entry| Arc::clone(&entry.session)).collect();
        sessions.sort_unstable_by(|one, other| one.sid().cmp(other.sid()));
        sessions
    }

    pub(super) fn timing(&self) -> Timing {
        Timing {
            ping_interval: self.options.ping_interval,
            ping_timeout: self.options.ping_timeout,
            upgrade_timeout: self.options.upgrade_timeout,
        }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<Sid, Entry>> {
        self.sessions.write().expect("no code that can panic runs under this lock")
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Sid, Entry>> {
        self.sessions.read().expect("no code that can panic runs under this lock")
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("node", &self.node).field("sessions", &self.len()).finish_non_exhaustive()
    }
}
