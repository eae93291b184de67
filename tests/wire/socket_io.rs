//! Socket.IO packets on the wire: what each is answered, and that whoever breaks the rules loses nothing but their own session.

use crate::support::{Frame, Setup, TestServer, WebSocket};
use std::sync::Arc;
use std::time::Duration;
use stickyport::hub::{Ack, Args, ConnectError, Data, Namespace, Socket};
use tokio::sync::Notify;

#[tokio::test]
async fn connecting_to_a_namespace_is_answered_before_anything_its_handler_sends() {
    let server = server(|_| {});
    let mut client = client(&server).await;
    client.send("40").await;
    assert!(client.text().await.starts_with(r#"40{"sid":"0-"#));
    assert_eq!(client.text().await, r#"42["auth",{}]"#);
    client.send(r#"40/custom,{"token":"123"}"#).await;
    assert!(client.text().await.starts_with(r#"40/custom,{"sid":"0-"#));
    assert_eq!(client.text().await, r#"42/custom,["auth",{"token":"123"}]"#);
}

#[tokio::test]
async fn a_socket_has_an_id_of_its_own_and_the_session_keeps_its_secret() {
    let server = server(|_| {});
    let mut client = server.upgrade("EIO=4&transport=websocket").await.expect("upgraded");
    let open = client.text().await;
    client.send("40").await;
    let connected = client.text().await;
    let id = |text: &str| text.split('"').nth(3).expect("an id").to_owned();
    assert_ne!(id(&open), id(&connected));
    assert_eq!(id(&connected).len(), 20);
}

#[tokio::test]
async fn refusals_leave_the_connection_open() {
    let server = server(|_| {});
    let mut client = connected(&server).await;
    for (connect, refusal) in [
        ("40/nowhere", r#"44/nowhere,{"message":"Invalid namespace"}"#),
        ("40/guarded", r#"44/guarded,{"message":"not you","data":{"code":401}}"#),
    ] {
        client.send(connect).await;
        assert_eq!(client.text().await, refusal);
    }
    alive(&mut client).await;
}

#[tokio::test]
async fn events_and_acknowledgements_carry_any_json_and_binary() {
    let server = server(|_| {});
    let mut client = connected(&server).await;
    client.send("42[\"message\",1,\"\u{20ac}\\ud800\",{\"a\":[null,1e400]}]").await;
    assert_eq!(client.text().await, "42[\"message-back\",1,\"\u{20ac}\\ud800\",{\"a\":[null,1e400]}]");
    client.send(r#"42456["message-with-ack",1,"2",{"3":[false]}]"#).await;
    assert_eq!(client.text().await, r#"43456[1,"2",{"3":[false]}]"#);
    client.send(r#"42/custom,["message"]"#).await;
    // Not connected to that one.
    assert_ended(&mut client).await;

    let mut client = connected(&server).await;
    client.send(r#"452-789["message-with-ack",{"_placeholder":true,"num":1},{"x":{"_placeholder":true,"num":0}}]"#).await;
    client.send_frame(2, b"one").await;
    client.send_frame(2, b"two").await;
    assert_eq!(client.text().await, r#"462-789[{"_placeholder":true,"num":1},{"x":{"_placeholder":true,"num":0}}]"#);
    assert_eq!(client.frame().await, Frame::Binary(b"one".to_vec()));
    assert_eq!(client.frame().await, Frame::Binary(b"two".to_vec()));
}

#[tokio::test]
async fn attachments_come_over_polling_too_even_in_another_post() {
    let server = server(|_| {});
    let open = server.get("EIO=4&transport=polling").await;
    let sid = open.text().split('"').nth(3).expect("a sid").to_owned();
    let query = format!("EIO=4&transport=polling&sid={sid}");
    assert_eq!(server.post(&query, "40").await.text(), "ok");
    assert_eq!(server.post(&query, r#"451-["message",{"_placeholder":true,"num":0}]"#).await.text(), "ok");
    assert_eq!(server.post(&query, "bAQIDBA==").await.text(), "ok");
    let answers = server.get(&query).await;
    let packets: Vec<_> = answers.text().split('\u{1e}').collect();
    assert_eq!(
        packets.get(1..),
        Some(&[r#"42["auth",{}]"#, r#"451-["message-back",{"_placeholder":true,"num":0}]"#, "bAQIDBA=="][..])
    );
}

#[tokio::test]
async fn what_breaks_the_rules_closes_that_session_and_only_that() {
    let server = server(|_| {});
    let mut bystander = connected(&server).await;
    let deep = format!("42[\"message\",{}", "[".repeat(900_000));
    let deep: [&str; 1] = [&deep];
    let breaches: Vec<&[&str]> = vec![
        &["4"],
        &["4abc"],
        &["47"],
        &["42"],
        &["42{}"],
        &["42[]"],
        &["42[1,"],
        &["42[true]"],
        &[r#"42["connect"]"#],
        &[r#"42["disconnecting"]"#],
        &deep,
        &["40"],
        &["44{}"],
        &["41{}"],
        &["40/custom,[]"],
        &[r#"42/nobody-is-here,["message"]"#],
        &["43/nobody-is-here,1[]"],
        &[r#"4511-["message"]"#],
        &[r#"450-["message"]"#],
        &[r#"45["message"]"#],
        &[r#"451-["message",{"_placeholder":true,"num":1}]"#, "binary"],
        &[r#"451-["message",{"_placeholder":true,"num":0}]"#, r#"42["message"]"#],
        &["binary"],
    ];
    for breach in &breaches {
        let mut client = connected(&server).await;
        for packet in *breach {
            match *packet {
                "binary" => client.send_frame(2, &[1]).await,
                text => client.send(text).await,
            }
        }
        assert_ended(&mut client).await;
    }
    server.until(|metrics| metrics.sessions.get() == 1).await;
    assert!(server.metrics().protocol_errors.get() >= breaches.len() as u64);
    assert_eq!(server.metrics().limit_attachments.get(), 1);
    alive(&mut bystander).await;
}

#[tokio::test]
async fn an_acknowledgement_that_nobody_asked_for_is_ignored() {
    let server = server(|_| {});
    let mut client = connected(&server).await;
    client.send("4399[1]").await;
    client.send("43[]").await;
    client.send("4399999999999999999999[]").await;
    alive(&mut client).await;
}

#[tokio::test]
async fn attachments_that_never_come_hold_nobody_up_but_their_sender() {
    let server = TestServer::socket_io(
        |setup| {
            setup.options.ping_interval = Duration::from_millis(100);
            setup.options.ping_timeout = Duration::from_millis(100);
        },
        namespaces,
    );
    let mut client = connected(&server).await;
    client.send(r#"451-["message",{"_placeholder":true,"num":0}]"#).await;
    assert_ended(&mut client).await;
    server.until(|metrics| metrics.sessions.get() == 0 && metrics.sockets.get() == 0).await;
}

#[tokio::test]
async fn ten_thousand_namespaces_are_too_many() {
    let server =
        TestServer::socket_io(|_| {}, |io| io.namespace(Namespace::new("/")).namespace(Namespace::dynamic(async |_| true)));
    let mut client = client(&server).await;
    client.send("40").await;
    client.text().await;
    let mut refused = 0;
    for number in 0..10_000 {
        client.send(&format!("40/n{number},")).await;
        if client.text().await.starts_with("44") {
            refused += 1;
        }
    }
    let limit = server.engine.limits().get().namespaces_per_session;
    assert_eq!(refused, 10_000 + 1 - limit);
    assert_eq!(server.metrics().limit_namespaces.get(), refused as u64);
    assert_eq!(server.metrics().sockets.get(), limit as i64);
}

#[tokio::test]
async fn a_client_that_joins_no_namespace_is_closed_in_time() {
    let server = server(|setup| setup.hub.connect_timeout = Duration::from_millis(50));
    let mut silent = client(&server).await;
    assert_ended(&mut silent).await;
    let mut refused = client(&server).await;
    refused.send("40/nowhere").await;
    refused.text().await;
    assert_ended(&mut refused).await;
}

#[tokio::test]
async fn a_client_that_leaves_a_namespace_keeps_its_connection() {
    let server = server(|_| {});
    let mut client = connected(&server).await;
    client.send("40/custom").await;
    client.text().await;
    client.text().await;
    client.send("41/custom,").await;
    alive(&mut client).await;
    client.send("40/custom").await;
    assert!(client.text().await.starts_with("40/custom,"));
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_own_socket() {
    let server = server(|_| {});
    let mut bystander = connected(&server).await;
    let mut client = connected(&server).await;
    client.send("40/custom").await;
    client.text().await;
    client.text().await;
    client.send(r#"42["panic"]"#).await;
    assert_eq!(client.text().await, "41");
    client.send(r#"42/custom,["message",1]"#).await;
    assert_eq!(client.text().await, r#"42/custom,["message-back",1]"#);
    alive(&mut bystander).await;
    assert_eq!(server.metrics().handler_panics.get(), 1);
}

#[tokio::test]
async fn a_slow_handler_holds_up_only_its_own_socket_and_in_order() {
    let server = server(|_| {});
    let mut client = connected(&server).await;
    client.send("40/custom").await;
    client.text().await;
    client.text().await;
    for number in 0..3 {
        client.send(&format!(r#"42["slow",{number}]"#)).await;
    }
    client.send(r#"42["message","last"]"#).await;
    client.send(r#"42/custom,["message","not held up"]"#).await;
    assert_eq!(client.text().await, r#"42/custom,["message-back","not held up"]"#);
    let mut other = connected(&server).await;
    other.send(r#"42["release",3]"#).await;
    for number in 0..3 {
        assert_eq!(client.text().await, format!(r#"42["done",{number}]"#));
    }
    assert_eq!(client.text().await, r#"42["message-back","last"]"#);
}

#[tokio::test]
async fn events_that_wait_are_bounded_and_the_client_is_read_again() {
    let server = server(|setup| setup.limits.pending_events = 10);
    let mut client = connected(&server).await;
    client.send(r#"42["slow",0]"#).await;
    for number in 0..100 {
        client.send(&format!(r#"42["message",{number}]"#)).await;
    }
    server.until(|metrics| metrics.limit_pending_events.get() > 0).await;
    let mut other = connected(&server).await;
    other.send(r#"42["release",1]"#).await;
    assert_eq!(client.text().await, r#"42["done",0]"#);
    for number in 0..100 {
        assert_eq!(client.text().await, format!(r#"42["message-back",{number}]"#));
    }
}

#[tokio::test]
async fn what_waits_for_handlers_and_for_attachments_is_bounded_over_all_clients() {
    let server = server(|setup| setup.limits.inbound_bytes = 100_000);
    let long = "x".repeat(60_000);
    let mut one = connected(&server).await;
    let mut two = connected(&server).await;
    for client in [&mut one, &mut two] {
        client.send(r#"42["slow",0]"#).await;
        client.send(&format!(r#"42["message","{long}"]"#)).await;
    }
    // Nothing is lost, and whoever holds much waits.
    server.until(|metrics| metrics.limit_inbound.get() == 1).await;
    let mut greedy = connected(&server).await;
    greedy.send(r#"452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#).await;
    greedy.send_frame(2, long.as_bytes()).await;
    assert_ended(&mut greedy).await;
    assert_eq!(server.metrics().limit_inbound.get(), 2);
    let mut modest = connected(&server).await;
    // Whole, and nobody waits for it: nothing is held.
    modest.send(&format!(r#"43["{long}"]"#)).await;
    modest.send_frame(9, b"hi").await;
    assert_eq!(modest.frame().await, Frame::Pong(b"hi".to_vec()));
    modest.send(r#"42["release",2]"#).await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.text().await, r#"42["done",0]"#);
        assert_eq!(client.text().await, format!(r#"42["message-back","{long}"]"#));
        alive(client).await;
    }
    server.until(|metrics| metrics.inbound_bytes.get() == 0).await;
}

#[tokio::test]
async fn a_client_that_goes_while_it_is_not_read_is_noticed() {
    let server = server(|setup| {
        setup.limits.pending_events = 4;
        setup.options.ping_interval = Duration::from_millis(100);
        setup.options.ping_timeout = Duration::from_millis(100);
    });
    let mut client = connected(&server).await;
    client.send(r#"42["slow",0]"#).await;
    for number in 0..10 {
        client.send(&format!(r#"42["message",{number}]"#)).await;
    }
    server.until(|metrics| metrics.limit_pending_events.get() > 0).await;
    drop(client);
    server.until(|metrics| metrics.sessions.get() == 0 && metrics.sockets.get() == 0).await;
}

#[tokio::test]
async fn a_broadcast_reaches_everyone_in_the_namespace() {
    let server = server(|_| {});
    let mut one = connected(&server).await;
    let mut two = connected(&server).await;
    one.send(r#"451-["broadcast","x",{"_placeholder":true,"num":0}]"#).await;
    one.send_frame(2, &[7]).await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.text().await, r#"451-["broadcast","x",{"_placeholder":true,"num":0}]"#);
        assert_eq!(client.frame().await, Frame::Binary(vec![7]));
    }
}

/// The namespaces of the conformance example, one that refuses, and handlers that misbehave.
fn server(change: impl FnOnce(&mut Setup)) -> TestServer {
    TestServer::socket_io(change, namespaces)
}

fn namespaces(io: stickyport::hub::Builder) -> stickyport::hub::Builder {
    let gate = Arc::new(Notify::new());
    let release = Arc::clone(&gate);
    let echo = |name: &str| {
        Namespace::new(name)
            .on_connect(async |socket: Socket| {
                socket.emit("auth", socket.handshake().auth::<serde_json::Value>()?).map_err(stickyport::hub::BoxError::from)
            })
            .on("message", async |socket: Socket, args: Args| socket.emit("message-back", args))
            .on("message-with-ack", async |args: Args| Ack(args))
            .on("broadcast", async |socket: Socket, args: Args| socket.io().of(socket.namespace()).emit("broadcast", args))
    };
    io.namespace(
        echo("/")
            .on("panic", async |_: Socket| -> () { panic!("as the test asks") })
            .on("slow", move |socket: Socket, Data(number): Data<u32>| {
                let gate = Arc::clone(&gate);
                async move {
                    gate.notified().await;
                    socket.emit("done", number)
                }
            })
            .on("release", move |Data(times): Data<u32>| {
                let gate = Arc::clone(&release);
                async move {
                    for _ in 0..times {
                        gate.notify_one();
                        tokio::task::yield_now().await;
                    }
                }
            }),
    )
    .namespace(echo("/custom"))
    .namespace(Namespace::new("/guarded").middleware(async |_: Socket| -> Result<(), ConnectError> {
        Err(ConnectError::new("not you").data(&serde_json::json!({ "code": 401 })))
    }))
}

async fn client(server: &TestServer) -> WebSocket {
    let mut client = server.upgrade("EIO=4&transport=websocket").await.expect("upgraded");
    assert!(client.text().await.starts_with("0{"));
    client
}

async fn connected(server: &TestServer) -> WebSocket {
    let mut client = client(server).await;
    client.send("40").await;
    assert!(client.text().await.starts_with("40{"));
    assert!(client.text().await.starts_with(r#"42["auth""#));
    client
}

async fn alive(client: &mut WebSocket) {
    client.send(r#"42["message","alive"]"#).await;
    assert_eq!(client.text().await, r#"42["message-back","alive"]"#);
}

async fn assert_ended(client: &mut WebSocket) {
    while !matches!(client.frame().await, Frame::Close(None)) {}
    assert!(client.http.is_ended().await);
}
