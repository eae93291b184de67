//! Heartbeats, and how a server goes: stop in place and drain.

use crate::support::{Frame, TestServer, writable};
use std::sync::Arc;
use std::time::Duration;
use stickyport::engine::{Application, CloseReason, Connection, Message, Session};
use stickyport::protocol::eio::Encoded;
use stickyport::shutdown::Phase;
use tokio::sync::mpsc;

#[tokio::test]
async fn the_server_pings_and_a_client_that_answers_stays() {
    let server = TestServer::start(|setup| {
        setup.options.ping_interval = Duration::from_millis(20);
        setup.options.ping_timeout = Duration::from_millis(2000);
    });
    let (session, mut socket) = server.websocket().await;
    for _ in 0..5 {
        assert_eq!(socket.text().await, "2");
        socket.send("3").await;
    }
    assert!(session.is_open());
    let (session, query) = server.poller().await;
    for _ in 0..3 {
        assert_eq!(server.get(&query).await.text(), "2");
        assert_eq!(server.post(&query, "3").await.text(), "ok");
    }
    assert!(session.is_open());
}

#[tokio::test]
async fn an_application_is_told_of_heartbeats_of_what_has_left_and_of_an_upgrade_that_is_tried() {
    struct Told(mpsc::UnboundedSender<String>);

    impl Application for Told {
        fn opened(&self, _: &Arc<Session>) -> Arc<dyn Connection> {
            Arc::new(Self(self.0.clone()))
        }
    }

    impl Connection for Told {
        fn message(&self, session: &Arc<Session>, message: Message) {
            session.send_marked(&[Encoded::message(&message)], 7).expect("open");
        }
        fn heartbeat(&self, _: &Arc<Session>) {
            let _ = self.0.send("heartbeat".to_owned());
        }
        fn sent(&self, _: &Arc<Session>, mark: u64) {
            let _ = self.0.send(format!("sent {mark}"));
        }
        fn upgrading(&self, _: &Arc<Session>) {
            let _ = self.0.send("upgrading".to_owned());
        }
        fn closed(&self, _: &Arc<Session>, _: CloseReason) {}
    }

    let (sender, mut told) = mpsc::unbounded_channel();
    let server = TestServer::with(|setup| setup.options.ping_interval = Duration::from_millis(20), Told(sender));
    let mut told = async || told.recv().await.expect("a server");
    let open = server.get("EIO=4&transport=polling").await;
    let sid = open.text().split('"').nth(3).expect("a sid");
    let query = format!("EIO=4&transport=polling&sid={sid}");
    assert_eq!(server.get(&query).await.text(), "2");
    // Nothing has left while nobody polls.
    server.post(&query, "4x\u{1e}3").await;
    assert_eq!(told().await, "heartbeat");
    assert!(server.get(&query).await.text().starts_with("4x"));
    assert_eq!(told().await, "sent 7");
    let mut socket = server.upgrade(&format!("EIO=4&transport=websocket&sid={sid}")).await.expect("upgraded");
    socket.send("2probe").await;
    assert_eq!(told().await, "upgrading");
    assert_eq!(socket.text().await, "3probe");
    socket.send("5").await;
    socket.send("4y").await;
    assert_eq!(told().await, "sent 7");
}

#[tokio::test]
async fn a_client_that_does_not_answer_is_closed() {
    let server = TestServer::start(|setup| {
        setup.options.ping_interval = Duration::from_millis(20);
        setup.options.ping_timeout = Duration::from_millis(20);
    });
    let (_, mut socket) = server.websocket().await;
    assert_eq!(server.closed().await, CloseReason::PingTimeout);
    assert_eq!(socket.text().await, "2");
    assert_eq!(socket.frame().await, Frame::Close(None));
    // A polling client that has gone away without a word.
    server.poller().await;
    assert_eq!(server.closed().await, CloseReason::PingTimeout);
}

#[tokio::test]
async fn stop_in_place_closes_all_transports_and_answers_what_is_parked() {
    let server = TestServer::start(|_| {});
    let (_, mut socket) = server.websocket().await;
    let (session, query) = server.poller().await;
    let mut http = server.connect().await;
    http.write(format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    writable(&session).await;
    server.shutdown.enter(Phase::Stopping);
    assert_eq!(socket.frame().await, Frame::Close(None));
    let address = server.address;
    tokio::net::TcpListener::bind(address).await.expect("the port is free when a client hears of the end");
    // Not with a close packet: after that python-socketio stays away.
    let parked = http.answer().await;
    assert_eq!((parked.status, parked.text()), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
    assert_eq!(server.closed().await, CloseReason::ServerShuttingDown);
    assert_eq!(server.closed().await, CloseReason::ServerShuttingDown);
    drop((socket, http));
    server.stop().await;
    tokio::net::TcpStream::connect(address).await.expect_err("nobody listens");
}

#[tokio::test]
async fn drain_refuses_handshakes_lets_clients_go_and_waits() {
    let server = TestServer::start(|_| {});
    let (_, mut socket) = server.websocket().await;
    let ready = "GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n";
    assert_eq!(server.request(ready).await.status, 200);
    server.shutdown.enter(Phase::Draining);
    assert_eq!(server.closed().await, CloseReason::ServerShuttingDown);
    assert_eq!(socket.frame().await, Frame::Close(None));
    let refused = server.get("EIO=4&transport=polling").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(server.request(ready).await.status, 503);
    assert_eq!(server.request("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n").await.status, 200);
    assert_eq!(server.metrics().refused_draining.get(), 1);
    drop(socket);
    server.stop().await;
}

#[tokio::test]
async fn transports_are_closed_spread_over_the_window() {
    let server = TestServer::start(|_| {});
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(server.websocket().await);
    }
    let start = std::time::Instant::now();
    server.engine.close_all(Duration::from_millis(500)).await;
    // The last of five is closed after four fifths of the window.
    assert!(start.elapsed() >= Duration::from_millis(400));
    for _ in 0..5 {
        assert_eq!(server.closed().await, CloseReason::ServerShuttingDown);
    }
}

#[tokio::test]
async fn a_polling_client_that_does_not_come_for_its_last_words_does_not_hold_up_the_stop() {
    let server = TestServer::start(|_| {});
    let (idle, _) = server.poller().await;
    let (session, _) = server.poller().await;
    session.send_message(&"never fetched".into()).expect("open");
    let start = std::time::Instant::now();
    server.stop().await;
    assert!(start.elapsed() < Duration::from_secs(4));
    assert!(!idle.is_open() && !session.is_open());
}
