//! From polling to WebSocket: the probe, and every packet once and in order.

use crate::support::{Event, Frame, TestServer, candidate, writable};
use std::time::Duration;
use stickyport::engine::{CloseReason, TransportKind};

#[tokio::test]
async fn a_probe_and_an_upgrade_packet_move_the_session() {
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    let mut socket = candidate(&server, &session).await;
    let mut http = server.connect().await;
    http.write(format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    writable(&session).await;
    socket.send("2probe").await;
    assert_eq!(socket.text().await, "3probe");
    // The parked GET is let go, so that the client can pause polling.
    assert_eq!(http.answer().await.text(), "6");
    session.send_message(&"in between".into()).expect("open");
    socket.send("5").await;
    assert_eq!(socket.text().await, "4in between");
    assert!(matches!(server.event().await, Event::Upgraded));
    assert_eq!(session.transport(), TransportKind::WebSocket);
    socket.send("4echo there").await;
    assert_eq!(socket.text().await, "4there");
    for answer in [server.get(&query).await, server.post(&query, "4x").await] {
        assert_eq!((answer.status, answer.text()), (400, r#"{"code":3,"message":"Bad request"}"#));
    }
    assert_eq!((server.metrics().upgrades.get(), server.metrics().sessions_websocket.get()), (1, 1));
}

#[tokio::test]
async fn what_is_sent_during_the_probe_still_goes_over_polling() {
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    let mut socket = candidate(&server, &session).await;
    socket.send("2probe").await;
    assert_eq!(socket.text().await, "3probe");
    session.send_message(&"polled".into()).expect("open");
    assert_eq!(server.get(&query).await.text(), "4polled");
    socket.send("5").await;
    assert!(matches!(server.event().await, Event::Upgraded));
    session.send_message(&"framed".into()).expect("open");
    assert_eq!(socket.text().await, "4framed");
}

#[tokio::test]
async fn a_get_that_is_parked_when_the_upgrade_comes_is_answered_close() {
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    let mut socket = candidate(&server, &session).await;
    let mut http = server.connect().await;
    http.write(format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    writable(&session).await;
    socket.send("5").await;
    assert_eq!(http.answer().await.text(), "1");
    assert!(session.is_open());
}

#[tokio::test]
async fn messages_that_come_right_behind_the_upgrade_packet_are_read() {
    let server = TestServer::start(|_| {});
    let (session, _) = server.poller().await;
    let mut socket = candidate(&server, &session).await;
    let bytes: Vec<u8> =
        ["2probe", "5", "4one", "4two"].iter().flat_map(|text| crate::support::masked(1, text.as_bytes())).collect();
    socket.http.write(bytes).await;
    assert!(matches!(server.event().await, Event::Upgraded));
    assert_eq!(server.message().await, "one".into());
    assert_eq!(server.message().await, "two".into());
}

#[tokio::test]
async fn a_candidate_that_says_anything_else_is_closed_and_polling_goes_on() {
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    for packet in ["4x", "2", "3probe", "x", ""] {
        let mut socket = candidate(&server, &session).await;
        socket.send(packet).await;
        assert_eq!(socket.frame().await, Frame::Close(None), "{packet:?}");
    }
    // One that leaves in the middle of its probe.
    let mut socket = candidate(&server, &session).await;
    socket.send("2probe").await;
    assert_eq!(socket.text().await, "3probe");
    drop(socket);
    server.until(|metrics| metrics.upgrades_failed.get() == 6).await;
    assert_eq!(server.post(&query, "4echo fine").await.text(), "ok");
    assert_eq!(server.get(&query).await.text(), "4fine");
}

#[tokio::test]
async fn a_second_candidate_is_closed() {
    let server = TestServer::start(|_| {});
    let (session, _) = server.poller().await;
    let mut first = candidate(&server, &session).await;
    first.send("2probe").await;
    assert_eq!(first.text().await, "3probe");
    let mut second = candidate(&server, &session).await;
    assert_eq!(second.frame().await, Frame::Close(None));
    first.send("5").await;
    assert!(matches!(server.event().await, Event::Upgraded));
    let mut third = candidate(&server, &session).await;
    assert_eq!(third.frame().await, Frame::Close(None));
    assert!(session.is_open());
}

#[tokio::test]
async fn a_candidate_that_is_silent_is_closed_in_time() {
    let server = TestServer::start(|setup| setup.options.upgrade_timeout = Duration::from_millis(50));
    let (session, _) = server.poller().await;
    let mut socket = candidate(&server, &session).await;
    assert_eq!(socket.frame().await, Frame::Close(None));
    assert!(session.is_open());
}

#[tokio::test]
async fn a_session_that_closes_takes_its_candidate_along() {
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    let mut socket = candidate(&server, &session).await;
    socket.send("2probe").await;
    assert_eq!(socket.text().await, "3probe");
    assert_eq!(server.post(&query, "1").await.text(), "ok");
    assert_eq!(server.closed().await, CloseReason::TransportClose);
    assert_eq!(socket.frame().await, Frame::Close(None));
}
