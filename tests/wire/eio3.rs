//! Clients of Engine.IO 3: payloads with lengths, frames with types, and a heartbeat that the client beats.

use crate::support::{Event, Frame, Setup, TestServer, WebSocket, writable};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use stickyport::engine::{CloseReason, Message, Session, TransportKind, Version};
use tokio::time::Instant;

fn eio3(setup: &mut Setup) {
    setup.options.allow_eio3 = true;
}

#[tokio::test]
async fn a_handshake_is_answered_with_a_length() {
    let server = TestServer::start(|setup| {
        eio3(setup);
        setup.options.cookie = "io".to_owned();
    });
    for query in ["EIO=3&transport=polling", "transport=polling", "EIO=abc&transport=polling"] {
        let answer = server.get(query).await;
        let session = server.opened().await;
        let sid = session.sid().as_str();
        let open = format!(
            r#"0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#
        );
        assert_eq!(answer.text(), format!("{}:{open}", open.len()), "{query}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=UTF-8"));
        assert!(answer.header("set-cookie").is_some_and(|cookie| cookie.contains(sid)));
        assert_eq!(session.version(), Version::V3);
    }
}

#[tokio::test]
async fn a_session_keeps_to_its_version() {
    let server = TestServer::start(eio3);
    let (_, old) = poller(&server, "").await;
    let (_, new) = server.poller().await;
    for (query, [from, to]) in [(&old, ["EIO=3", "EIO=4"]), (&new, ["EIO=4", "EIO=3"])] {
        let query = query.replace(from, to);
        let refused = r#"{"code":3,"message":"Bad request"}"#;
        assert_eq!(server.get(&query).await.text(), refused);
        assert_eq!(server.post(&query, "1:2").await.text(), refused);
        let refused = server.upgrade(&query.replace("polling", "websocket")).await.expect_err("refused");
        assert_eq!((refused.status, refused.text()), (400, "Bad request"));
    }
}

#[tokio::test]
async fn payloads_come_and_go_as_text() {
    let server = TestServer::start(eio3);
    let (session, query) = poller(&server, "&b64=1").await;
    assert_eq!(server.post(&query, "5:4h\u{e9}\u{1f600}10:b4AQIDBA==1:4").await.text(), "ok");
    let bytes = Message::Binary(Bytes::from_static(&[1, 2, 3, 4]));
    for message in ["h\u{e9}\u{1f600}".into(), bytes.clone(), "".into()] {
        assert_eq!(server.message().await, message);
        session.send_message(&message).expect("open");
    }
    let answer = server.get(&query).await;
    assert_eq!(answer.text(), "5:4h\u{e9}\u{1f600}10:b4AQIDBA==1:4");
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=UTF-8"));
}

#[tokio::test]
async fn payloads_come_and_go_as_bytes() {
    let server = TestServer::start(eio3);
    let (session, query) = poller(&server, "").await;
    let payload = b"\x00\x06\xff4hello\x01\x05\xff\x04\x01\x02\x03\x04";
    let request = [
        format!(
            "POST /engine.io/?{query} HTTP/1.1\r\nHost: test\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            payload.len()
        )
        .as_bytes(),
        payload,
    ]
    .concat();
    assert_eq!(server.request(request).await.text(), "ok");
    for message in ["hello".into(), Bytes::from_static(&[1, 2, 3, 4]).into()] {
        assert_eq!(server.message().await, message);
        session.send_message(&message).expect("open");
    }
    let answer = server.get(&query).await;
    assert_eq!(answer.body, payload);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    session.send_message(&"only text".into()).expect("open");
    assert_eq!(server.get(&query).await.text(), "10:4only text");
}

#[tokio::test]
async fn a_payload_is_read_up_to_its_first_bad_packet() {
    let server = TestServer::start(|setup| {
        eio3(setup);
        setup.limits.packets_per_payload = 2;
    });
    for body in ["5:4good1:x", "5:4good9:4", "5:4good1:65:4late"] {
        let (_, query) = poller(&server, "").await;
        assert_eq!(server.post(&query, body).await.text(), "ok");
        assert_eq!(server.message().await, "good".into());
        assert_eq!(server.closed().await, CloseReason::ParseError, "{body}");
    }
    assert_eq!(server.metrics().limit_packets_per_payload.get(), 1);
}

#[tokio::test]
async fn the_client_pings_over_both_transports() {
    let server = TestServer::start(eio3);
    let (session, query) = poller(&server, "").await;
    assert_eq!(server.post(&query, "1:22:2x").await.text(), "ok");
    assert_eq!(server.get(&query).await.text(), "1:32:3x");
    assert_eq!(server.post(&query, "1:3").await.text(), "ok");
    assert_eq!(server.closed().await, CloseReason::TransportError);
    assert!(!session.is_open());

    let (_, mut socket) = websocket(&server).await;
    socket.send("2").await;
    assert_eq!(socket.text().await, "3");
    socket.send("3").await;
    assert_eq!(server.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn a_client_that_is_silent_is_closed_and_never_pinged() {
    let server = TestServer::start(|setup| {
        eio3(setup);
        setup.options.ping_interval = Duration::from_millis(60);
        setup.options.ping_timeout = Duration::from_millis(40);
    });
    let start = Instant::now();
    let (_, mut socket) = websocket(&server).await;
    assert_eq!(socket.frame().await, Frame::Close(None));
    assert_eq!(server.closed().await, CloseReason::PingTimeout);
    assert!(start.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn frames_have_their_type_in_front_when_they_are_binary() {
    let server = TestServer::start(eio3);
    let (session, mut socket) = websocket(&server).await;
    socket.send_frame(2, &[4, 1, 2, 3]).await;
    assert_eq!(server.message().await, Message::Binary(Bytes::from_static(&[1, 2, 3])));
    socket.send("b4AQID").await;
    assert_eq!(server.message().await, Message::Binary(Bytes::from_static(&[1, 2, 3])));
    for length in [0, 1, 125, 126, 70_000] {
        let bytes = vec![9; length];
        session.send_message(&Bytes::from(bytes.clone()).into()).expect("open");
        session.send_message(&"text".into()).expect("open");
        assert_eq!(socket.frame().await, Frame::Binary([&[4][..], &bytes].concat()));
        assert_eq!(socket.text().await, "4text");
    }
    // Control frames of WebSocket's own are nobody's messages.
    socket.send_frame(9, b"hi").await;
    assert_eq!(socket.frame().await, Frame::Pong(b"hi".to_vec()));
    socket.send_frame(2, &[2]).await;
    assert_eq!(server.closed().await, CloseReason::ParseError);
}

#[tokio::test]
async fn a_client_without_binary_data_is_sent_base64_in_frames_too() {
    let server = TestServer::start(eio3);
    let mut socket = server.upgrade("EIO=3&transport=websocket&b64=1").await.expect("upgraded");
    let session = server.opened().await;
    assert!(socket.text().await.starts_with("0{"));
    session.send_message(&Bytes::from_static(&[1, 2, 3, 4]).into()).expect("open");
    assert_eq!(socket.text().await, "b4AQIDBA==");
}

#[tokio::test]
async fn an_upgrade_moves_what_waits() {
    let server = TestServer::start(eio3);
    let (session, query) = poller(&server, "").await;
    let mut socket = server.upgrade(&query.replace("polling", "websocket")).await.expect("upgraded");
    socket.send("2probe").await;
    assert_eq!(socket.text().await, "3probe");
    assert_eq!(server.get(&query).await.text(), "1:6");
    session.send_message(&Bytes::from_static(&[7]).into()).expect("open");
    session.send_message(&"text".into()).expect("open");
    socket.send("5").await;
    assert_eq!(socket.frame().await, Frame::Binary(vec![4, 7]));
    assert_eq!(socket.text().await, "4text");
    assert!(matches!(server.event().await, Event::Upgraded));
    assert_eq!(session.transport(), TransportKind::WebSocket);
    assert_eq!(server.get(&query).await.status, 400);
}

#[tokio::test]
async fn the_end_of_a_polling_session_is_told_in_its_own_form() {
    let server = TestServer::start(eio3);
    let (session, query) = poller(&server, "").await;
    let mut http = server.connect().await;
    http.write(format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    writable(&session).await;
    assert_eq!(server.post(&query, "1:1").await.text(), "ok");
    assert_eq!(http.answer().await.text(), "1:6");
    assert_eq!(server.closed().await, CloseReason::TransportClose);

    let (session, query) = poller(&server, "").await;
    session.close(CloseReason::ForcedClose);
    assert_eq!(server.get(&query).await.text(), "1:61:1");
    assert_eq!(server.closed().await, CloseReason::ForcedClose);

    let (session, query) = poller(&server, "").await;
    http.write(format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    writable(&session).await;
    session.close(CloseReason::ForcedClose);
    assert_eq!(http.answer().await.text(), "1:1");
}

#[tokio::test]
async fn jsonp_carries_payloads_in_scripts_and_forms() {
    let server = TestServer::start(eio3);
    let open = server.get("EIO=3&transport=polling&j=2").await;
    let session = server.opened().await;
    assert!(open.text().starts_with(r#"___eio[2]("118:0{\"sid\":\"0-"#), "{}", open.text());
    let query = format!("EIO=3&transport=polling&j=2&sid={}", session.sid().as_str());
    assert_eq!(server.post(&query, r"d=10:4a%20b+%5Cn%5C%5Cnd\n").await.text(), "ok");
    assert_eq!(server.message().await, "a b \n\\nd\n".into());
    session.send_message(&"\u{2028}\"".into()).expect("open");
    session.send_message(&Bytes::from_static(&[1, 2, 3, 4]).into()).expect("open");
    let answer = server.get(&query).await;
    assert_eq!(answer.text(), r#"___eio[2]("3:4\u2028\"10:b4AQIDBA==");"#);
    assert_eq!(server.post(&query, "5:4late").await.text(), "ok");
    assert_eq!(server.closed().await, CloseReason::ParseError);
    let server = TestServer::start(|setup| {
        eio3(setup);
        setup.cors.enforce = true;
    });
    assert!(server.get("EIO=3&transport=polling&j=2").await.text().starts_with("118:0{"));
    // Clients of protocol 4 have no use for scripts, and their pages obey CORS.
    assert!(server.get("EIO=4&transport=polling&j=2").await.text().starts_with("0{"));
}

#[tokio::test]
async fn the_initial_packet_follows_the_open_packet() {
    let server = TestServer::start(|setup| {
        eio3(setup);
        setup.options.initial_packet = "h\u{e9}llo".to_owned();
    });
    assert!(server.get("EIO=4&transport=polling").await.text().ends_with("}\u{1e}4h\u{e9}llo"));
    assert!(server.get("EIO=3&transport=polling").await.text().ends_with("}6:4h\u{e9}llo"));
    for version in [3, 4] {
        let mut socket = server.upgrade(&format!("EIO={version}&transport=websocket")).await.expect("upgraded");
        assert!(socket.text().await.starts_with("0{"));
        assert_eq!(socket.text().await, "4h\u{e9}llo");
    }
}

async fn poller(server: &TestServer, more: &str) -> (Arc<Session>, String) {
    let open = server.get(&format!("EIO=3&transport=polling{more}")).await;
    assert_eq!(open.status, 200, "{open:?}");
    let session = server.opened().await;
    let query = format!("EIO=3&transport=polling&sid={}", session.sid().as_str());
    (session, query)
}

async fn websocket(server: &TestServer) -> (Arc<Session>, WebSocket) {
    let mut socket = server.upgrade("EIO=3&transport=websocket").await.expect("upgraded");
    let session = server.opened().await;
    assert!(socket.text().await.starts_with("0{"));
    (session, socket)
}
