//! WebSocket without polling: frames as the reference sends and takes them.

use crate::support::{Frame, TestServer, masked, websocket_request};
use bytes::Bytes;
use stickyport::engine::{CloseReason, Message};

#[tokio::test]
async fn a_binary_message_may_come_as_base64() {
    let server = TestServer::start(|_| {});
    let (_, mut socket) = server.websocket().await;
    socket.send("bAQID").await;
    assert_eq!(server.message().await, Message::Binary(Bytes::from_static(&[1, 2, 3])));
}

#[tokio::test]
async fn the_open_packet_comes_first_and_offers_no_upgrade() {
    let server = TestServer::start(|_| {});
    let mut socket = server.upgrade("EIO=4&transport=websocket").await.expect("upgraded");
    let session = server.opened().await;
    session.send_message(&"at once".into()).expect("open");
    assert!(socket.text().await.contains(r#""upgrades":[]"#));
    assert_eq!(socket.text().await, "4at once");
}

#[tokio::test]
async fn messages_pass_both_ways_as_text_and_binary() {
    let server = TestServer::start(|_| {});
    let (session, mut socket) = server.websocket().await;
    socket.send("4echo h\u{e9}llo").await;
    assert_eq!(socket.text().await, "4h\u{e9}llo");
    assert_eq!(server.message().await, "echo h\u{e9}llo".into());
    socket.send_frame(2, &[1, 2, 3]).await;
    assert_eq!(server.message().await, Message::Binary(Bytes::from_static(&[1, 2, 3])));
    session.send_message(&Bytes::from_static(&[9]).into()).expect("open");
    assert_eq!(socket.frame().await, Frame::Binary(vec![9]));
    for length in [125, 126, 65_535, 65_536, 300_000] {
        let text = "x".repeat(length);
        socket.send(&format!("4echo {text}")).await;
        assert_eq!(socket.text().await, format!("4{text}"));
    }
}

#[tokio::test]
async fn frames_that_come_with_the_request_are_not_lost() {
    let server = TestServer::start(|_| {});
    let mut http = server.connect().await;
    let request = websocket_request("EIO=4&transport=websocket").into_bytes();
    http.write([request, masked(1, b"4one"), masked(1, b"4two")].concat()).await;
    assert_eq!(http.answer().await.status, 101);
    server.opened().await;
    assert_eq!(server.message().await, "one".into());
    assert_eq!(server.message().await, "two".into());
}

#[tokio::test]
async fn a_fragmented_message_is_one_and_a_ping_in_between_is_answered() {
    let server = TestServer::start(|_| {});
    let (_, mut socket) = server.websocket().await;
    let mut first = masked(1, b"4echo a");
    first[0] = 0x01;
    socket.http.write(first).await;
    socket.send_frame(9, b"are you there").await;
    assert_eq!(socket.frame().await, Frame::Pong(b"are you there".to_vec()));
    socket.send_frame(0, b"b").await;
    assert_eq!(socket.text().await, "4ab");
}

#[tokio::test]
async fn a_pong_never_cuts_a_message_in_half() {
    let server = TestServer::start(|_| {});
    let (session, mut socket) = server.websocket().await;
    let big = Message::from("b".repeat(3_000_000).as_str());
    session.send_message(&big).expect("open");
    socket.send_frame(9, b"now").await;
    session.send_message(&"after".into()).expect("open");
    assert_eq!(socket.text().await.len(), 3_000_001);
    let mut rest = vec![socket.frame().await, socket.frame().await];
    rest.sort_by_key(|frame| matches!(frame, Frame::Pong(_)));
    assert_eq!(rest, [Frame::Text("4after".to_owned()), Frame::Pong(b"now".to_vec())]);
}

#[tokio::test]
async fn what_breaks_the_protocol_closes_the_session_and_only_that() {
    let server = TestServer::start(|_| {});
    let (other, mut bystander) = server.websocket().await;
    for (opcode, payload, reason) in [
        (1, &b"x"[..], CloseReason::ParseError),
        (1, b"", CloseReason::ParseError),
        (1, "\u{e9}4".as_bytes(), CloseReason::ParseError),
        (1, b"2", CloseReason::TransportError),
        (1, b"2probe", CloseReason::TransportError),
        (1, b"1", CloseReason::TransportClose),
        (1, b"\xff", CloseReason::TransportError),
        (3, b"reserved opcode", CloseReason::TransportError),
        (8, b"\x03\xe8", CloseReason::TransportClose),
        (8, b"", CloseReason::TransportClose),
    ] {
        let (session, mut socket) = server.websocket().await;
        socket.send_frame(opcode, payload).await;
        assert_eq!(server.closed().await, reason, "{opcode} {payload:?}");
        assert!(!session.is_open());
        assert!(socket.http.is_ended().await);
    }
    assert!(other.is_open());
    bystander.send("4echo still here").await;
    assert_eq!(bystander.text().await, "4still here");
}

#[tokio::test]
async fn an_unmasked_frame_is_refused() {
    let server = TestServer::start(|_| {});
    let (_, mut socket) = server.websocket().await;
    socket.http.write([0x81, 2, b'4', b'x']).await;
    assert_eq!(server.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn packets_that_mean_nothing_here_are_ignored() {
    let server = TestServer::start(|_| {});
    let (_, mut socket) = server.websocket().await;
    for packet in ["5", "6", "0", "3"] {
        socket.send(packet).await;
    }
    socket.send("4echo fine").await;
    assert_eq!(socket.text().await, "4fine");
}

#[tokio::test]
async fn a_message_over_the_limit_closes_with_1009() {
    let server = TestServer::start(|setup| setup.options.max_payload = 1000);
    let (_, mut socket) = server.websocket().await;
    socket.send(&format!("4{}", "x".repeat(999))).await;
    assert_eq!(server.message().await.len(), 999);
    socket.send(&format!("4{}", "x".repeat(1000))).await;
    assert_eq!(socket.frame().await, Frame::Close(Some(1009)));
    assert_eq!(server.closed().await, CloseReason::TransportError);
    assert_eq!(server.metrics().limit_payload.get(), 1);
}

#[tokio::test]
async fn a_server_that_closes_sends_what_waits_and_a_close_frame_without_a_code() {
    let server = TestServer::start(|_| {});
    let (session, mut socket) = server.websocket().await;
    session.send_message(&"x".repeat(2_000_000).as_str().into()).expect("open");
    session.send_message(&"last".into()).expect("open");
    session.close(CloseReason::ForcedClose);
    assert_eq!(socket.text().await.len(), 2_000_001);
    assert_eq!(socket.text().await, "4last");
    assert_eq!(socket.frame().await, Frame::Close(None));
    assert_eq!(server.closed().await, CloseReason::ForcedClose);
}

#[tokio::test]
async fn a_client_that_is_gone_is_noticed() {
    let server = TestServer::start(|_| {});
    let (_, socket) = server.websocket().await;
    drop(socket);
    assert_eq!(server.closed().await, CloseReason::TransportClose);
    server.until(|metrics| metrics.sessions.get() == 0 && metrics.sessions_websocket.get() == 0).await;
}
