//! A server in this process, and clients that write bytes.

use axum::Router;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use stickyport::engine::{Application, CloseReason, Connection, Engine, Hooks, Message, Options, Session};
use stickyport::http::listen::{Listener, Listeners, Sharing};
use stickyport::http::options::Cors;
use stickyport::hub::{self, SocketIo};
use stickyport::metrics::Metrics;
use stickyport::protocol::limits::Limits;
use stickyport::shutdown::Phase;
use stickyport::{Server, Shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

/// No event of these tests takes longer on the slowest machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to change before the server starts.
#[derive(Default)]
pub struct Setup {
    pub options: Options,
    pub hub: hub::Options,
    pub limits: Limits,
    pub metrics: Arc<Metrics>,
    pub cors: Cors,
    pub hooks: Hooks,
    pub fallback: Router,
}

/// What the application was told.
#[derive(Debug)]
pub enum Event {
    Opened(Arc<Session>),
    Message(Message),
    Upgraded,
    Closed(CloseReason),
}

pub struct TestServer {
    pub address: SocketAddr,
    /// The shared port, where there is one.
    pub shared: Option<SocketAddr>,
    pub engine: Arc<Engine>,
    pub shutdown: Shutdown,
    events: Mutex<mpsc::UnboundedReceiver<Event>>,
    serving: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Recorder(mpsc::UnboundedSender<Event>);

impl Application for Recorder {
    fn opened(&self, session: &Arc<Session>) -> Arc<dyn Connection> {
        let _ = self.0.send(Event::Opened(Arc::clone(session)));
        Arc::new(self.clone())
    }
}

impl Connection for Recorder {
    fn message(&self, session: &Arc<Session>, message: Message) {
        if let Message::Text(text) = &message
            && let Some(echo) = text.strip_prefix("echo ")
        {
            let _ = session.send_message(&echo.into());
        }
        let _ = self.0.send(Event::Message(message));
    }

    fn upgraded(&self, _: &Arc<Session>) {
        let _ = self.0.send(Event::Upgraded);
    }

    fn closed(&self, _: &Arc<Session>, reason: CloseReason) {
        let _ = self.0.send(Event::Closed(reason));
    }
}

impl TestServer {
    /// A server whose application records what it is told, and answers `echo …`.
    pub fn start(change: impl FnOnce(&mut Setup)) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        Self::serve(change, events, move |_| Arc::new(Recorder(sender)))
    }

    /// A server of these namespaces, which records nothing.
    pub fn socket_io(change: impl FnOnce(&mut Setup), namespaces: impl FnOnce(hub::Builder) -> hub::Builder) -> Self {
        let (_, events) = mpsc::unbounded_channel();
        Self::serve(change, events, |setup| {
            let builder =
                SocketIo::builder().options(setup.hub.clone()).limits(setup.limits.clone()).metrics(setup.metrics.clone());
            Arc::new(namespaces(builder).build())
        })
    }

    /// As [`TestServer::start`], with a shared port beside its own.
    pub fn start_shared() -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let anywhere = "127.0.0.1:0".parse().expect("an address");
        let shared = Listener::tcp(anywhere, Sharing::Siblings).expect("a free port");
        Self::listen(|_| {}, events, move |_| Arc::new(Recorder(sender)), vec![shared])
    }

    /// A server of this application, which records nothing.
    pub fn with(change: impl FnOnce(&mut Setup), application: impl Application) -> Self {
        let (_, events) = mpsc::unbounded_channel();
        Self::serve(change, events, |_| Arc::new(application))
    }

    fn serve(
        change: impl FnOnce(&mut Setup),
        events: mpsc::UnboundedReceiver<Event>,
        application: impl FnOnce(&Setup) -> Arc<dyn Application>,
    ) -> Self {
        Self::listen(change, events, application, Vec::new())
    }

    fn listen(
        change: impl FnOnce(&mut Setup),
        events: mpsc::UnboundedReceiver<Event>,
        application: impl FnOnce(&Setup) -> Arc<dyn Application>,
        shared: Vec<Listener>,
    ) -> Self {
        let mut setup = Setup { options: Options { path: "/engine.io/".to_owned(), ..Options::default() }, ..Setup::default() };
        change(&mut setup);
        let application = application(&setup);
        let builder = Engine::builder().options(setup.options).limits(setup.limits).hooks(setup.hooks).metrics(setup.metrics);
        let engine = builder.build(application);
        let mut listeners = Listeners::only("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = SocketAddr::from(([127, 0, 0, 1], listeners.own_port().expect("a TCP port")));
        listeners.http = shared;
        let shared = listeners.http_address();
        let shutdown = Shutdown::new();
        let server = Server::new(Arc::clone(&engine))
            .cors(setup.cors)
            .fallback(setup.fallback)
            .restart_window(Duration::from_millis(100))
            .drain_timeout(Duration::from_millis(100));
        let serving = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { server.run(listeners, &shutdown).await }
        });
        Self { address, shared, engine, shutdown, events: Mutex::new(events), serving }
    }

    pub fn metrics(&self) -> &Metrics {
        self.engine.metrics()
    }

    pub async fn event(&self) -> Event {
        let mut events = self.events.lock().await;
        timeout(PATIENCE, events.recv()).await.expect("an event in time").expect("a server")
    }

    pub async fn opened(&self) -> Arc<Session> {
        match self.event().await {
            Event::Opened(session) => session,
            other => panic!("not opened: {other:?}"),
        }
    }

    pub async fn message(&self) -> Message {
        match self.event().await {
            Event::Message(message) => message,
            other => panic!("no message: {other:?}"),
        }
    }

    pub async fn closed(&self) -> CloseReason {
        loop {
            match self.event().await {
                Event::Closed(reason) => return reason,
                Event::Message(_) | Event::Upgraded => {}
                Event::Opened(_) => panic!("a session was opened"),
            }
        }
    }

    pub async fn get(&self, query: &str) -> Answer {
        self.request(&format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\n\r\n")).await
    }

    pub async fn post(&self, query: &str, body: impl AsRef<[u8]>) -> Answer {
        self.request(&post(query, body.as_ref())).await
    }

    /// One request on a connection of its own.
    pub async fn request(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut http = self.connect().await;
        http.write(request).await;
        http.answer().await
    }

    pub async fn connect(&self) -> Http {
        Http { stream: TcpStream::connect(self.address).await.expect("connected"), unread: Vec::new() }
    }

    /// A polling session, and the query that names it.
    pub async fn poller(&self) -> (Arc<Session>, String) {
        let open = self.get("EIO=4&transport=polling").await;
        assert_eq!(open.status, 200, "{open:?}");
        let session = self.opened().await;
        let query = format!("EIO=4&transport=polling&sid={}", session.sid().as_str());
        (session, query)
    }

    /// A WebSocket session whose open packet was read.
    pub async fn websocket(&self) -> (Arc<Session>, WebSocket) {
        let mut socket = self.upgrade("EIO=4&transport=websocket").await.expect("upgraded");
        let session = self.opened().await;
        assert!(socket.text().await.starts_with("0{"));
        (session, socket)
    }

    pub async fn upgrade(&self, query: &str) -> Result<WebSocket, Answer> {
        let mut http = self.connect().await;
        http.write(websocket_request(query)).await;
        let answer = http.answer().await;
        if answer.status == 101 { Ok(WebSocket { http, answer }) } else { Err(answer) }
    }

    pub async fn stop(self) {
        self.shutdown.enter(Phase::Stopping);
        timeout(PATIENCE, self.serving).await.expect("stopped in time").expect("no panic");
    }

    /// Waits until a counter shows that something has happened which no event tells of.
    pub async fn until(&self, what: impl Fn(&Metrics) -> bool) {
        let wait = async {
            while !what(self.metrics()) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, wait).await.expect("in time");
    }
}

/// Waits until a packet could leave at once: for a polling session, until a GET is parked.
pub async fn writable(session: &Session) {
    let wait = async {
        while !session.is_writable() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.expect("in time");
}

/// A WebSocket that asks to take a polling session over.
pub async fn candidate(server: &TestServer, session: &Session) -> WebSocket {
    let query = format!("EIO=4&transport=websocket&sid={}", session.sid().as_str());
    server.upgrade(&query).await.expect("upgraded")
}

/// Bytes that come until the end.
pub async fn count(stream: &mut TcpStream) -> usize {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        total += count;
    }
    total
}

/// Polls a future by hand; nobody will wake it.
pub fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

pub fn post(query: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST /engine.io/?{query} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub fn websocket_request(query: &str) -> String {
    format!(
        "GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A connection that writes what it is told.
#[derive(Debug)]
pub struct Http {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Http {
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("written");
    }

    async fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let count = timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect("bytes in time").unwrap_or(0);
        self.unread.extend_from_slice(&buffer[..count]);
        count > 0
    }

    pub async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(self.more().await, "ended after {} bytes", self.unread.len());
        }
        self.unread.drain(..count).collect()
    }

    pub async fn answer(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.more().await, "ended after {} bytes", self.unread.len());
        };
        let head = String::from_utf8(self.take(end).await).expect("a head is text");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let head = head.split("\r\n").fold(String::new(), |lines, line| match line.split_once(": ") {
            Some((name, value)) => lines + &name.to_lowercase() + ": " + value + "\n",
            None => lines,
        });
        let mut answer = Answer { status, head, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        answer.body = self.take(length).await;
        answer
    }

    /// The status of an answer, or `None` when the connection is reset before it can be read.
    pub async fn status_or_end(&mut self) -> Option<u16> {
        let rest = self.rest().await;
        let head = String::from_utf8_lossy(&rest);
        head.split(' ').nth(1).and_then(|status| status.parse().ok())
    }

    /// Whether the server has closed; what it sent before is dropped.
    pub async fn is_ended(&mut self) -> bool {
        self.rest().await;
        true
    }

    /// What comes until the server closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.unread)
    }
}

/// A WebSocket that writes what it is told.
#[derive(Debug)]
pub struct WebSocket {
    pub http: Http,
    pub answer: Answer,
}

/// A frame as it came.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Close(Option<u16>),
    Pong(Vec<u8>),
}

impl WebSocket {
    pub async fn send(&mut self, text: &str) {
        self.http.write(masked(1, text.as_bytes())).await;
    }

    pub async fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        self.http.write(masked(opcode, payload)).await;
    }

    pub async fn frame(&mut self) -> Frame {
        let (first, mut payload) = self.fragment().await;
        let mut last = first;
        while last & 0x80 == 0 {
            let (next, more) = self.fragment().await;
            assert_eq!(next & 0x7f, 0, "a fragment that continues");
            payload.extend(more);
            last = next;
        }
        match first | 0x80 {
            0x81 => Frame::Text(String::from_utf8(payload).expect("text")),
            0x82 => Frame::Binary(payload),
            0x88 => Frame::Close(payload.try_into().ok().map(u16::from_be_bytes)),
            0x8a => Frame::Pong(payload),
            other => panic!("frame {other:#x}"),
        }
    }

    async fn fragment(&mut self) -> (u8, Vec<u8>) {
        let head = self.http.take(2).await;
        let length = match head[1] {
            126 => u16::from_be_bytes(self.http.take(2).await.try_into().expect("2 bytes")).into(),
            127 => u64::from_be_bytes(self.http.take(8).await.try_into().expect("8 bytes")) as usize,
            short => usize::from(short),
        };
        (head[0], self.http.take(length).await)
    }

    pub async fn text(&mut self) -> String {
        match self.frame().await {
            Frame::Text(text) => text,
            other => panic!("not text: {other:?}"),
        }
    }
}

/// A frame as clients send it (RFC 6455, section 5.3).
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
