//! Clients without a network: sessions of the real engine on polling, spoken to packet by packet.

use super::{Namespace, SocketIo};
use crate::engine::{Application, CloseReason, Connection, Engine, Entropy, Handshake, Options, Session, Version};
use crate::metrics::Metrics;
use crate::protocol::limits::Limits;
use crate::protocol::sid::{Boot, Sid};
use http::HeaderMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::mpsc;

/// A server whose clients are made by the test.
pub(super) struct Server {
    pub(super) io: SocketIo,
    engine: Arc<Engine>,
    opened: Opened,
    opening: Mutex<()>,
    log: mpsc::UnboundedReceiver<String>,
}

/// What handlers may note as state: `State(log): State<Log>`.
#[derive(Clone)]
pub(super) struct Log(mpsc::UnboundedSender<String>);

impl Log {
    pub(super) fn note(&self, text: impl ToString) {
        // A test that is over reads nothing.
        let _ = self.0.send(text.to_string());
    }
}

type Opened = Arc<Mutex<Option<(Arc<Session>, Arc<dyn Connection>)>>>;

/// Remembers the session that was opened last.
struct Opening(SocketIo, Opened);

impl Application for Opening {
    fn opened(&self, session: &Arc<Session>) -> Arc<dyn Connection> {
        let connection = self.0.opened(session);
        *self.1.lock().expect("one test") = Some((Arc::clone(session), Arc::clone(&connection)));
        connection
    }
}

impl Server {
    pub(super) fn new(namespace: Namespace) -> Self {
        Self::with(|builder| builder.namespace(namespace))
    }

    pub(super) fn with(build: impl FnOnce(super::Builder) -> super::Builder) -> Self {
        let (sender, log) = mpsc::unbounded_channel();
        let metrics = Arc::new(Metrics::default());
        let io = build(SocketIo::builder().metrics(metrics).state(Log(sender))).build();
        let opened = Arc::default();
        let options = Options { ping_interval: Duration::from_secs(3600), ..Options::default() };
        // All clients of a test come from one address.
        let limits = Limits { handshakes_per_second_per_address: 0, ..Limits::clone(&io.limits().get()) };
        let engine = Engine::builder()
            .options(options)
            .limits(limits)
            .metrics(Arc::clone(io.metrics()))
            .build(Arc::new(Opening(io.clone(), Arc::clone(&opened))));
        Self { io, engine, opened, opening: Mutex::default(), log }
    }

    /// A client in no namespace.
    pub(super) fn client(&self) -> Client {
        self.client_of(Version::V4)
    }

    /// A client that speaks this protocol.
    pub(super) fn client_of(&self, version: Version) -> Client {
        let mut headers = HeaderMap::new();
        headers.append("origin", "http://elsewhere".parse().expect("a value"));
        headers.append("x-many", "a".parse().expect("a value"));
        headers.append("x-many", "b".parse().expect("a value"));
        let handshake = Handshake {
            version,
            headers: (&headers).into(),
            query: vec![("EIO".to_owned(), "4".to_owned()), ("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())],
            url: "/socket.io/?EIO=4&a=1&a=2".to_owned(),
            address: "192.0.2.1".to_owned(),
            secure: false,
            issued: UNIX_EPOCH,
        };
        let sid = Sid::generate(self.engine.node(), Boot::at(UNIX_EPOCH), Entropy::default().bits());
        // Clients may be made from several threads.
        let _one_by_one = self.opening.lock().expect("nothing here panics");
        let admission = self.engine.admit("192.0.2.1").expect("there is room");
        self.engine.open_polling(sid, admission, handshake).expect("a free sid");
        let (session, connection) = self.opened.lock().expect("one test").take().expect("just opened");
        Client { session, connection, heard: VecDeque::new() }
    }

    /// A client in `/`.
    pub(super) async fn joined(&self) -> Client {
        self.client().join("/").await
    }

    /// What a handler noted next.
    pub(super) async fn noted(&mut self) -> String {
        self.log.recv().await.expect("the server lives as long as the test")
    }

    /// What handlers have noted and nobody has read.
    pub(super) fn notes(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.log.try_recv().ok()).collect()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        self.io.metrics()
    }
}

/// A client on polling.
pub(super) struct Client {
    pub(super) session: Arc<Session>,
    connection: Arc<dyn Connection>,
    heard: VecDeque<String>,
}

impl Client {
    pub(super) async fn join(mut self, namespace: &str) -> Self {
        self.connect(namespace).await;
        self
    }

    /// Connects, and tells the id of the socket.
    pub(super) async fn connect(&mut self, namespace: &str) -> String {
        let prefix = if namespace == "/" { String::new() } else { format!("{namespace},") };
        self.say(&format!("0{prefix}")).await;
        let answer = self.hear().await;
        let id = answer.strip_prefix(&format!("0{prefix}{{\"sid\":\"")).and_then(|rest| rest.strip_suffix("\"}"));
        id.unwrap_or_else(|| panic!("{answer} is no welcome")).to_owned()
    }

    /// Sends one Socket.IO packet.
    pub(super) async fn say(&self, packet: &str) {
        self.post(&format!("4{packet}")).await;
    }

    /// Sends several Socket.IO packets in one payload.
    pub(super) async fn say_all(&self, packets: &[&str]) {
        let packets: Vec<String> = packets.iter().map(|packet| format!("4{packet}")).collect();
        self.post(&packets.join("\x1e")).await;
    }

    pub(super) async fn post(&self, payload: &str) {
        self.session.begin_post().expect("no other POST").deliver(payload.into()).await;
    }

    /// The next Engine.IO packet, without the digit of a message.
    pub(super) async fn hear(&mut self) -> String {
        loop {
            if let Some(packet) = self.heard.pop_front() {
                return packet.strip_prefix('4').map(str::to_owned).unwrap_or(format!("engine {packet}"));
            }
            let payload = self.session.poll().await.expect("no other GET");
            let payload = String::from_utf8(payload.body).expect("text");
            self.heard.extend(payload.split('\x1e').map(str::to_owned));
        }
    }

    /// What has come, at least one packet, without the digit of a message.
    pub(super) async fn hear_all(&mut self) -> Vec<String> {
        let first = self.hear().await;
        let rest = std::mem::take(&mut self.heard);
        std::iter::once(first).chain(rest.into_iter().map(|packet| packet.trim_start_matches('4').to_owned())).collect()
    }

    /// Waits for the end of the session.
    pub(super) async fn end(&mut self) {
        while self.session.is_open() {
            self.hear().await;
        }
    }

    /// Tells the server what the engine would not tell it any more.
    pub(super) fn say_though_closed(&self, packet: &str) {
        self.connection.message(&self.session, packet.into());
    }

    /// Tells the server what the engine tells it after an upgrade.
    pub(super) fn upgrade(&self) {
        self.connection.upgraded(&self.session);
    }

    pub(super) fn close(&self, reason: CloseReason) {
        self.session.close(reason);
    }
}
