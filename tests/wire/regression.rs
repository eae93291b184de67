//! Faults that were found once, each with its story.

use crate::support::{Event, Frame, TestServer, WebSocket, candidate, count, masked, poll_once, websocket_request};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};
use stickyport::engine::{Application, CloseReason, Connection, Handshake, Message, Session, Version};
use stickyport::shutdown::Phase;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

/// Longer than anything here takes, shorter than anyone's patience.
const SOON: Duration = Duration::from_secs(5);

/// What waited for a polling client that never came back stayed in the gauge for ever, and in the end every session was "too much".
#[tokio::test]
async fn what_waited_for_a_polling_client_that_is_gone_is_given_back() {
    let server = TestServer::start(|setup| {
        setup.options.ping_interval = Duration::from_millis(20);
        setup.options.ping_timeout = Duration::from_millis(20);
    });
    let (session, _) = server.poller().await;
    session.send_message(&"x".repeat(10_000).as_str().into()).expect("room");
    assert_eq!(server.closed().await, CloseReason::PingTimeout);
    assert_eq!(server.metrics().outbound_bytes.get(), 0);
    // The same through every other door: a bad packet, the client's own close.
    for body in ["x", "1"] {
        let (session, query) = server.poller().await;
        session.send_message(&"y".repeat(10_000).as_str().into()).expect("room");
        server.post(&query, body).await;
        server.closed().await;
        assert_eq!(server.metrics().outbound_bytes.get(), 0, "{body}");
    }
}

/// A session that was closed by its application while its client sent on, unread, handed on one message a turn, read 64 KiB more for
/// each, and never let another task run.
#[tokio::test]
async fn a_flood_into_a_closing_session_holds_nobody_up() {
    let server = TestServer::start(|_| {});
    let (session, socket) = server.websocket().await;
    while session.is_writable() {
        session.send_message(&"z".repeat(100_000).as_str().into()).expect("room");
    }
    let flood = Flood::of(socket, masked(1, b"4"));
    session.close(CloseReason::ForcedClose);
    for _ in 0..5 {
        let start = Instant::now();
        let answer = server.request("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(answer.status, 200);
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
    flood.stop();
}

/// Each time that the application took one message of a client that floods, 64 KiB more were read and kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_application_slows_its_client_down() {
    let turnstile = Turnstile::default();
    let server = TestServer::with(|_| {}, turnstile.clone());
    let socket = server.upgrade("EIO=4&transport=websocket").await.expect("upgraded");
    let flood = Flood::of(socket, masked(1, b"4"));
    for taken in 0..2_000 {
        while turnstile.taken.load(SeqCst) <= taken {
            assert!(timeout(SOON, turnstile.has_taken.notified()).await.is_ok(), "message {taken}");
        }
        turnstile.let_one_through();
    }
    let written = flood.stop();
    // What the kernel holds at both ends, and a read of ours.
    assert!(written < 20_000_000, "{written} bytes were taken from a client of whom 2,000 small messages were wanted");
}

/// A GET that was dropped after the session had left polling took the session with it.
#[tokio::test]
async fn a_poll_that_ends_after_the_upgrade_does_not_end_the_session() {
    let server = TestServer::start(|_| {});
    let (session, _) = server.poller().await;
    let mut get = Box::pin(session.poll());
    assert!(poll_once(get.as_mut()).is_none());
    let post = session.begin_post().expect("the only one");
    let mut socket = candidate(&server, &session).await;
    socket.send("5").await;
    assert!(matches!(server.event().await, Event::Upgraded));
    drop(get);
    assert!(session.is_open(), "by the GET");
    drop(post);
    assert!(session.is_open(), "by the POST");
    assert!(session.poll().await.is_err() && session.begin_post().is_err());
    assert!(session.is_open(), "by one that was routed just before");
}

/// A pong that came by POST woke nobody, and the next ping came when the pong would have been too late instead of an interval after it.
#[tokio::test]
async fn the_next_ping_of_a_polling_client_comes_an_interval_after_its_pong() {
    let server = TestServer::start(|setup| {
        setup.options.ping_interval = Duration::from_millis(50);
        setup.options.ping_timeout = Duration::from_secs(3600);
    });
    let (_session, query) = server.poller().await;
    for _ in 0..2 {
        let ping = timeout(SOON, server.get(&query)).await.expect("a ping");
        assert_eq!(ping.text(), "2");
        server.post(&query, "3").await;
    }
}

/// The loop of a session that was closed while it moved to WebSocket was over before it was given the socket, which then stayed open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_closed_in_the_middle_of_its_upgrade_closes_its_socket() {
    struct Closer(mpsc::UnboundedSender<Arc<Session>>);
    struct Closing;
    impl Application for Closer {
        fn opened(&self, session: &Arc<Session>) -> Arc<dyn Connection> {
            let _ = self.0.send(Arc::clone(session));
            Arc::new(Closing)
        }
    }
    impl Connection for Closing {
        fn message(&self, _: &Arc<Session>, _: Message) {}
        fn upgraded(&self, session: &Arc<Session>) {
            let (holders, since) = (Arc::strong_count(session), Instant::now());
            session.close(CloseReason::ForcedClose);
            // The loop finds the session over, and lets go of it.
            tokio::task::block_in_place(|| {
                while Arc::strong_count(session) == holders && since.elapsed() < SOON {
                    std::thread::yield_now();
                }
            });
        }
        fn closed(&self, _: &Arc<Session>, _: CloseReason) {}
    }
    let (sender, mut opened) = mpsc::unbounded_channel();
    let server = TestServer::with(|_| {}, Closer(sender));
    assert_eq!(server.get("EIO=4&transport=polling").await.status, 200);
    let session = opened.recv().await.expect("opened");
    let mut socket = candidate(&server, &session).await;
    socket.send("5").await;
    assert_eq!(timeout(SOON, socket.frame()).await.expect("a frame"), Frame::Close(None));
}

/// News of a failed candidate, told late because the application was busy, took the next candidate down.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_candidate_is_not_taken_for_the_one_before() {
    struct Busy(mpsc::UnboundedSender<Arc<Session>>, Arc<AtomicBool>);
    struct Blocking(Arc<AtomicBool>);
    impl Application for Busy {
        fn opened(&self, session: &Arc<Session>) -> Arc<dyn Connection> {
            let _ = self.0.send(Arc::clone(session));
            Arc::new(Blocking(self.1.clone()))
        }
    }
    impl Connection for Blocking {
        fn message(&self, _: &Arc<Session>, _: Message) {
            self.0.store(true, SeqCst);
            // Not for ever: a test that fails must still end.
            let since = std::time::Instant::now();
            tokio::task::block_in_place(|| {
                while self.0.load(SeqCst) && since.elapsed() < SOON {
                    std::thread::yield_now();
                }
            });
        }
        fn closed(&self, _: &Arc<Session>, _: CloseReason) {}
    }
    let (sender, mut opened) = mpsc::unbounded_channel();
    let is_busy = Arc::new(AtomicBool::new(false));
    let server = Arc::new(TestServer::with(|_| {}, Busy(sender, is_busy.clone())));
    assert_eq!(server.get("EIO=4&transport=polling").await.status, 200);
    let session = opened.recv().await.expect("opened");
    let query = format!("EIO=4&transport=polling&sid={}", session.sid().as_str());
    let mut first = candidate(&server, &session).await;
    first.send("2probe").await;
    assert_eq!(first.text().await, "3probe");
    let posting = tokio::spawn({
        let server = server.clone();
        async move { server.post(&query, "4block").await.status }
    });
    timeout(SOON, async {
        while !is_busy.load(SeqCst) {
            tokio::task::yield_now().await
        }
    })
    .await
    .expect("busy");
    // The first fails while the application is busy, so that nobody is told; then a second one comes.
    first.send("4no").await;
    let mut second = loop {
        let mut second = candidate(&server, &session).await;
        match timeout(Duration::from_millis(100), second.frame()).await {
            Ok(_) => {}
            Err(_) => break second,
        }
    };
    is_busy.store(false, SeqCst);
    assert_eq!(posting.await.expect("no panic"), 200);
    second.send("2probe").await;
    assert_eq!(timeout(SOON, second.text()).await.expect("a frame"), "3probe");
    second.send("5").await;
    server.until(|metrics| metrics.upgrades.get() == 1).await;
    session.send_message(&"hello".into()).expect("open");
    assert_eq!(second.text().await, "4hello");
    assert_eq!(server.metrics().sessions_websocket.get(), 1);
}

/// A panic of the application on a WebSocket's message ended the session's loop and left the session in the table.
#[tokio::test]
async fn an_application_that_panics_costs_its_session_only() {
    struct Fragile;
    impl Application for Fragile {
        fn opened(&self, _: &Arc<Session>) -> Arc<dyn Connection> {
            Arc::new(Fragile)
        }
    }
    impl Connection for Fragile {
        fn message(&self, _: &Arc<Session>, _: Message) {
            panic!("as the test wants it");
        }
        fn closed(&self, _: &Arc<Session>, _: CloseReason) {}
    }
    let server = TestServer::with(|_| {}, Fragile);
    let mut socket = server.upgrade("EIO=4&transport=websocket").await.expect("upgraded");
    assert!(socket.text().await.starts_with("0{"));
    socket.send("4x").await;
    assert!(timeout(SOON, socket.http.is_ended()).await.expect("an end"));
    server.until(|metrics| metrics.sessions.get() == 0 && metrics.sessions_websocket.get() == 0).await;
    assert!(server.engine.is_empty());
}

/// Proxies may keep an answer that does not forbid it (wire.md A3: on every polling response).
#[tokio::test]
async fn the_answer_to_a_post_is_not_to_be_stored() {
    let server = TestServer::start(|_| {});
    let (_, query) = server.poller().await;
    assert_eq!(server.post(&query, "4x").await.header("cache-control"), Some("no-store"));
}

/// A handshake that was let in before the gate was shut and finished after everybody was closed stayed for ever.
#[tokio::test]
async fn a_handshake_that_is_late_for_the_drain_is_closed_too() {
    let server = TestServer::start(|_| {});
    let admission = server.engine.admit("192.0.2.1").expect("room");
    server.engine.close_all(Duration::ZERO).await;
    let handshake = Handshake {
        version: Version::V4,
        headers: Default::default(),
        query: Vec::new(),
        url: String::new(),
        address: "192.0.2.1".to_owned(),
        secure: false,
        issued: SystemTime::now(),
    };
    server.engine.open_polling("0-00abcdefghijklmnop".into(), admission, handshake).expect("a free sid");
    let session = server.opened().await;
    assert!(!session.is_open());
}

/// Nobody can come for its last words once nothing is accepted and every connection is done, so waiting for that is for nothing.
#[tokio::test]
async fn a_client_between_two_polls_does_not_hold_up_a_stop() {
    let server = TestServer::start(|_| {});
    server.poller().await;
    let start = Instant::now();
    server.stop().await;
    assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
}

/// A client that asked for the end of its connection and then read nothing held it, and what waited for it, for ever.
#[tokio::test]
async fn an_answer_that_is_not_read_is_given_up() {
    let server = TestServer::start(|setup| {
        setup.limits.keep_alive = Duration::from_millis(100);
        setup.limits.outbox_bytes = 64 << 20;
    });
    for connection in ["close", "keep-alive"] {
        let (session, query) = server.poller().await;
        session.send_message(&"a".repeat(30_000_000).as_str().into()).expect("room");
        let mut http = server.connect().await;
        http.write(format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n")).await;
        server.until(|metrics| metrics.outbound_bytes.get() > 0).await;
        server.until(|metrics| metrics.outbound_bytes.get() == 0).await;
        let read = timeout(SOON, count(&mut http.stream)).await.expect("an end");
        assert!(read < 30_000_000, "{connection}: all {read} bytes were kept for a client that did not read");
    }
}

/// A slow but steady reader was cut when its answer took longer than a connection may be idle.
#[tokio::test]
async fn an_answer_that_is_read_slowly_is_finished() {
    use tokio::io::AsyncReadExt;
    let server = TestServer::start(|setup| {
        setup.limits.keep_alive = Duration::from_secs(1);
        setup.limits.outbox_bytes = 64 << 20;
    });
    let (session, query) = server.poller().await;
    session.send_message(&"a".repeat(30_000_000).as_str().into()).expect("room");
    let mut http = server.connect().await;
    http.write(format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    let mut buffer = vec![0; 3_000_000];
    let mut read = 0;
    while read < 30_000_000 {
        // The reader's own pace: often enough to be alive, and slow enough that the whole takes longer than a connection may be idle.
        tokio::time::sleep(Duration::from_millis(150)).await;
        match http.stream.read(&mut buffer).await {
            Ok(count) if count > 0 => read += count,
            end => panic!("{end:?} after {read} bytes"),
        }
    }
}

/// A request must be a GET to become a WebSocket (RFC 6455, section 4.1).
#[tokio::test]
async fn a_post_does_not_become_a_websocket() {
    let server = TestServer::start(|_| {});
    let (session, _) = server.poller().await;
    let query = format!("EIO=4&transport=websocket&sid={}", session.sid().as_str());
    let request = websocket_request(&query).replace("GET", "POST");
    assert_eq!(server.request(request).await.status, 400);
}

/// Clients whose connection was made and not yet read when the shared port was let go were reset instead of answered.
#[tokio::test]
async fn who_waits_at_the_shared_port_when_it_is_let_go_is_still_answered() {
    use std::io::{Read, Write};
    let server = TestServer::start_shared();
    let mut waiting = std::net::TcpStream::connect(server.shared.expect("a shared port")).expect("connected");
    waiting.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("written");
    server.shutdown.enter(Phase::Draining);
    let read = tokio::task::spawn_blocking(move || {
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).map(|_| answer)
    });
    let answer = read.await.expect("no panic").expect("no reset");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
}

/// An application that takes one message each time that it is told to.
#[derive(Clone, Default)]
struct Turnstile {
    taken: Arc<AtomicUsize>,
    has_taken: Arc<Notify>,
    allowed: Arc<AtomicUsize>,
    session: Arc<std::sync::Mutex<Option<Arc<Session>>>>,
}

impl Turnstile {
    fn let_one_through(&self) {
        self.allowed.fetch_add(1, SeqCst);
        if let Some(session) = &*self.session.lock().expect("no panic") {
            session.resume();
        }
    }
}

impl Application for Turnstile {
    fn opened(&self, session: &Arc<Session>) -> Arc<dyn Connection> {
        *self.session.lock().expect("no panic") = Some(Arc::clone(session));
        Arc::new(self.clone())
    }
}

impl Connection for Turnstile {
    fn message(&self, _: &Arc<Session>, _: Message) {
        self.taken.fetch_add(1, SeqCst);
        self.has_taken.notify_one();
    }
    fn closed(&self, _: &Arc<Session>, _: CloseReason) {}
    fn ready(&self) -> bool {
        self.taken.load(SeqCst) <= self.allowed.load(SeqCst)
    }
}

/// A thread that writes the same frame into a socket, as fast as it is taken, and reads nothing.
struct Flood {
    is_over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<usize>,
}

impl Flood {
    fn of(socket: WebSocket, frame: Vec<u8>) -> Self {
        use std::io::Write;
        let is_over = Arc::new(AtomicBool::new(false));
        let mut stream = socket.http.stream.into_std().expect("a socket");
        stream.set_nonblocking(false).expect("set");
        // So often it looks whether it is over.
        stream.set_write_timeout(Some(Duration::from_millis(20))).expect("set");
        let thread = std::thread::spawn({
            let is_over = is_over.clone();
            move || {
                let chunk = frame.repeat(10_000);
                let (mut total, mut at) = (0, 0);
                while !is_over.load(SeqCst) {
                    match stream.write(&chunk[at..]) {
                        Ok(count) => (total, at) = (total + count, (at + count) % chunk.len()),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => break,
                    }
                }
                total
            }
        });
        Self { is_over, thread }
    }

    fn stop(self) -> usize {
        self.is_over.store(true, SeqCst);
        self.thread.join().expect("no panic")
    }
}
