//! Clients of Engine.IO 3 and Socket.IO 2: payloads with lengths, frames with types, a heartbeat that the client beats, and ids made of sids.

use crate::support::{Event, Frame, Setup, TestServer, WebSocket, writable};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use stickyport::engine::{CloseReason, Message, Session, TransportKind, Version};
use stickyport::hub::{Ack, Args, Auth, ConnectError, Data, Namespace, Socket};
use tokio::sync::Notify;
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

#[tokio::test]
async fn a_client_of_socket_io_2_is_in_the_main_namespace_without_asking() {
    let server = socket_io(|_| {});
    let mut client = server.upgrade("EIO=3&transport=websocket").await.expect("upgraded");
    let sid = sid(&client.text().await);
    assert_eq!(client.text().await, "40");
    assert_eq!(client.text().await, format!(r#"42["id","{sid}",{{}},["{sid}"]]"#));
    client.send(r#"452-7["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#).await;
    client.send_frame(2, &[4, 1]).await;
    client.send_frame(2, &[4, 2]).await;
    assert_eq!(client.text().await, r#"462-7[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#);
    assert_eq!(client.frame().await, Frame::Binary(vec![4, 1]));
    assert_eq!(client.frame().await, Frame::Binary(vec![4, 2]));
    // It asks for what it has.
    client.send("40").await;
    assert_eq!(client.frame().await, Frame::Close(None));
    assert_eq!(server.metrics().protocol_errors.get(), 1);
}

#[tokio::test]
async fn the_handshake_of_a_polling_client_is_answered_before_its_welcome() {
    let server = socket_io(|_| {});
    let open = server.get("EIO=3&transport=polling").await;
    let sid = sid(open.text());
    assert!(open.text().ends_with('}'), "{}", open.text());
    let poll = server.get(&format!("EIO=3&transport=polling&sid={sid}")).await;
    assert_eq!(poll.text(), format!(r#"2:4059:42["id","{sid}",{{}},["{sid}"]]"#));
}

#[tokio::test]
async fn a_client_of_socket_io_2_asks_for_a_namespace_with_a_query() {
    let server = socket_io(|_| {});
    let mut client = server.upgrade("EIO=3&transport=websocket").await.expect("upgraded");
    let sid = sid(&client.text().await);
    client.text().await;
    client.text().await;
    for (connect, refusal) in [
        ("40/admin", r#"44/admin,"nope""#),
        ("40/admin?because=1,", r#"44/admin,{"code":401}"#),
        ("40/nowhere?a=b", r#"44/nowhere,{"message":"Invalid namespace"}"#),
        (r#"40/admin,{"token":"1"}"#, r#"44/admin,"nope""#),
    ] {
        client.send(connect).await;
        assert_eq!(client.text().await, refusal, "{connect}");
    }
    client.send("40/admin?token=1&x=a%20b&x=c,").await;
    assert_eq!(client.text().await, "40/admin,");
    let id = format!("/admin#{sid}");
    assert_eq!(client.text().await, format!(r#"42/admin,["id","{id}",{{"token":"1","x":"c"}},["{id}"]]"#));
    client.send(r#"42/admin,3["echo","hi"]"#).await;
    assert_eq!(client.text().await, r#"43/admin,3["hi"]"#);
    client.send("41/admin").await;
    client.send(r#"421["echo"]"#).await;
    assert_eq!(client.text().await, "431[]");
    assert_eq!(server.metrics().sockets.get(), 1);
}

#[tokio::test]
async fn a_query_of_a_namespace_has_a_limit() {
    let server = socket_io(|setup| setup.limits.auth_bytes = 20);
    let mut client = server.upgrade("EIO=3&transport=websocket").await.expect("upgraded");
    for _ in 0..3 {
        client.text().await;
    }
    client.send("40/admin?token=1&padding=12345").await;
    assert_eq!(client.text().await, r#"44/admin,{"message":"auth is too large"}"#);
    assert_eq!(server.metrics().limit_auth.get(), 1);
}

#[tokio::test]
async fn clients_of_both_versions_hear_the_same_broadcast() {
    let server = socket_io(|_| {});
    let mut old = server.upgrade("EIO=3&transport=websocket").await.expect("upgraded");
    let old_sid = sid(&old.text().await);
    for _ in 0..2 {
        old.text().await;
    }
    let mut new = server.upgrade("EIO=4&transport=websocket").await.expect("upgraded");
    new.text().await;
    new.send("40").await;
    for _ in 0..2 {
        new.text().await;
    }
    new.send(r#"451-["tell all",{"_placeholder":true,"num":0}]"#).await;
    new.send_frame(2, &[1, 2, 3]).await;
    for (client, bytes) in [(&mut new, vec![1, 2, 3]), (&mut old, vec![4, 1, 2, 3])] {
        assert_eq!(client.text().await, r#"451-["told",{"_placeholder":true,"num":0}]"#);
        assert_eq!(client.frame().await, Frame::Binary(bytes));
    }
    // The rooms of clients of protocol 3 are found by the ids that they make themselves.
    new.send(&format!(r#"42["tell","{old_sid}"]"#)).await;
    assert_eq!(old.text().await, r#"42["told"]"#);
}

#[tokio::test]
async fn a_client_of_socket_io_2_waits_for_a_slow_middleware() {
    let gate = Arc::new(Notify::new());
    let server = TestServer::socket_io(eio3, {
        let gate = Arc::clone(&gate);
        move |builder| {
            builder.namespace(Namespace::new("/").middleware(move || {
                let gate = Arc::clone(&gate);
                async move {
                    gate.notified().await;
                    Ok(())
                }
            }))
        }
    });
    let mut client = server.upgrade("EIO=3&transport=websocket").await.expect("upgraded");
    client.text().await;
    client.send("2").await;
    assert_eq!(client.text().await, "3");
    gate.notify_one();
    assert_eq!(client.text().await, "40");
}

/// A server that tells each client its id, its auth and its rooms.
fn socket_io(change: impl FnOnce(&mut Setup)) -> TestServer {
    let namespace = |name: &str| {
        Namespace::new(name)
            .on_connect(|socket: Socket| {
                let auth: serde_json::Value = socket.handshake().auth().expect("JSON");
                socket.emit("id", (socket.id(), auth, socket.rooms()))
            })
            .on("echo", |args: Args| Ack(args))
            .on("tell all", |socket: Socket, args: Args| socket.nsp().emit("told", args))
            .on("tell", |socket: Socket, Data(room): Data<String>| socket.to(room).emit("told", ()))
    };
    let guarded = namespace("/admin").middleware(|Auth(auth): Auth<serde_json::Value>| match auth["token"].as_str() {
        Some("1") => Ok(()),
        _ if auth["because"].is_string() => Err(ConnectError::new("nope").data(&serde_json::json!({ "code": 401 }))),
        _ => Err(ConnectError::new("nope")),
    });
    let setup = |setup: &mut Setup| {
        eio3(setup);
        change(setup);
    };
    TestServer::socket_io(setup, |builder| builder.namespace(namespace("/")).namespace(guarded))
}

/// The sid in an open packet.
fn sid(open: &str) -> String {
    open.split('"').nth(3).expect("a sid").to_owned()
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
