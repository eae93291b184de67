//! Whoever asks for much is served in turns, so that nobody waits long for it; each of these was a flood that made everybody wait.

use crate::support::{TestServer, masked, post, websocket_request};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use stickyport::engine::CloseReason;
use stickyport::hub::{Args, Namespace, Socket};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::timeout;

#[tokio::test]
async fn a_payload_of_many_packets_is_taken_in_turns() {
    let server = TestServer::start(|_| {});
    let (_, query) = server.poller().await;
    let _line = write(&server, post(&query, vec!["4"; 10_000].join("\u{1e}").as_bytes()));
    // The runtime's budget of one task, which hyper may ask twice.
    grows_by_at_most(2 * 128, 10_000, || server.metrics().messages_received.get()).await;
}

#[tokio::test]
async fn a_flood_of_messages_is_taken_in_turns() {
    let server = TestServer::start(|_| {});
    let mut socket = server.upgrade("EIO=4&transport=websocket").await.expect("upgraded");
    server.opened().await;
    socket.http.write(masked(1, b"4").repeat(9_000)).await;
    grows_by_at_most(64, 9_000, || server.metrics().messages_received.get()).await;
}

#[tokio::test]
async fn a_flood_of_pings_is_answered_in_turns() {
    let server = TestServer::start(|_| {});
    let (session, mut socket) = server.websocket().await;
    socket.http.write(masked(9, b"").repeat(9_000)).await;
    socket.send("4the end").await;
    let mut turns = 0;
    while server.metrics().messages_received.get() == 0 {
        yield_now().await;
        turns += 1;
    }
    assert!(turns >= 9_000 / 64, "{turns}");
    assert!(session.is_open());
}

#[tokio::test]
async fn a_large_answer_is_compressed_in_turns() {
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    session.send_message(&"x".repeat(4_000_000).as_str().into()).expect("room");
    let get = |query: &str| format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\n\r\n");
    let mut line = write(&server, get(&query));
    line.set_nonblocking(true).expect("set");
    let mut turns = 0;
    while line.read(&mut [0]).is_err() {
        yield_now().await;
        turns += 1;
    }
    assert!(turns >= 4_000_000 / 32_768, "{turns}");

    // Who goes before the answer is ready would miss what it holds.
    let (session, query) = server.poller().await;
    session.send_message(&"x".repeat(4_000_000).as_str().into()).expect("room");
    drop(write(&server, get(&query)));
    assert_eq!(server.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn events_that_waited_are_handled_in_turns() {
    let first = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&first);
    let namespace = Namespace::new("/").on("wait", move || {
        let gate = Arc::clone(&gate);
        async move { gate.acquire().await.expect("open").forget() }
    });
    let server =
        TestServer::socket_io(|_| {}, |builder| builder.namespace(namespace.on("fail", || Err::<(), _>(std::fmt::Error))));
    let mut socket = server.upgrade("EIO=4&transport=websocket").await.expect("upgraded");
    for packet in ["40", "42[\"wait\"]"] {
        socket.send(packet).await;
    }
    socket.http.write(masked(1, b"42[\"fail\"]").repeat(900)).await;
    server.until(|metrics| metrics.events_received.get() == 901).await;
    first.add_permits(1);
    grows_by_at_most(128, 900, || server.metrics().handler_errors.get()).await;
}

#[tokio::test]
async fn an_echo_waits_for_few_events_of_a_flood_that_does_not_end() {
    for flood in [r#"42["done at once"]"#, r#"42["has to wait"]"#, r#"42["nobody listens"]"#] {
        let namespace = Namespace::new("/")
            .on("done at once", || {})
            .on("has to wait", yield_now)
            .on("echo", |socket: Socket, args: Args| socket.emit("echo", args));
        let server = TestServer::socket_io(|_| {}, |builder| builder.namespace(namespace));
        let mut flooder = write(&server, websocket_request("EIO=4&transport=websocket"));
        flooder.write_all(&masked(1, b"40")).expect("room");
        let mut other = server.upgrade("EIO=4&transport=websocket").await.expect("upgraded");
        other.send("40").await;
        while !other.text().await.starts_with("40") {}
        server.until(|metrics| metrics.sockets.get() == 2).await;
        flooder.set_nonblocking(true).expect("set");
        let events = masked(1, flood.as_bytes()).repeat(1_000);
        let mut at = 0;
        for _ in 0..50 {
            // More than is handled until the answer comes.
            while let Ok(written) = flooder.write(&events[at..]) {
                at = (at + written) % events.len();
            }
            let before = server.metrics().events_received.get();
            other.send(r#"42["echo"]"#).await;
            assert_eq!(other.text().await, r#"42["echo"]"#);
            let others = server.metrics().events_received.get() - before - 1;
            // Four turns: the client has its own on this thread too.
            assert!((1..=4 * 64).contains(&others), "{flood}: {others}");
        }
    }
}

#[tokio::test]
async fn connections_are_let_in_a_few_at_a_time() {
    let server = TestServer::start(|_| {});
    let _waiting: Vec<_> = (0..200).map(|_| write(&server, b"")).collect();
    let connections = || server.metrics().connections.get().unsigned_abs();
    grows_by_at_most(8, 200, connections).await;
}

#[tokio::test]
async fn handshakes_are_begun_a_few_at_a_time() {
    for request in [
        "GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(),
        websocket_request("EIO=4&transport=websocket"),
    ] {
        let server = TestServer::start(|_| {});
        let mut waiting: Vec<_> = (0..100).map(|_| write(&server, "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")).collect();
        // All of them are in, so that what holds them up is not the door.
        server.until(|metrics| metrics.connections.get() == 100).await;
        for line in &mut waiting {
            line.write_all(request.as_bytes()).expect("written");
        }
        grows_by_at_most(8, 100, || server.metrics().sessions_opened.get()).await;
    }
}

#[tokio::test]
async fn handshakes_that_come_together_are_answered_in_their_order() {
    let server = TestServer::start(|_| {});
    let mut waiting: Vec<_> = (0..20).map(|_| write(&server, "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")).collect();
    server.until(|metrics| metrics.connections.get() == 20).await;
    for (number, line) in waiting.iter_mut().enumerate() {
        line.write_all(websocket_request(&format!("EIO=4&transport=websocket&number={number}")).as_bytes()).expect("written");
    }
    for number in 0..20 {
        let session = server.opened().await;
        assert!(session.request().url.ends_with(&format!("&number={number}")), "{number}: {}", session.request().url);
    }
}

/// Fails when `count` grows by more than `most` between two turns of ours, until it has reached `end`.
async fn grows_by_at_most(most: u64, end: u64, count: impl Fn() -> u64) {
    let grew = most_a_turn(count, end).await;
    assert!(grew <= most, "{grew} at once");
}

/// The most that `count` grew by between two turns of ours, until it has reached `end`.
async fn most_a_turn(count: impl Fn() -> u64, end: u64) -> u64 {
    let watch = async {
        let mut most = 0;
        let mut last = count();
        while last < end {
            yield_now().await;
            let now = count();
            most = most.max(now.saturating_sub(last));
            last = now;
        }
        most
    };
    timeout(Duration::from_secs(20), watch).await.expect("in time")
}

/// Writes without letting the server, which is on this thread, have its turn.
fn write(server: &TestServer, bytes: impl AsRef<[u8]>) -> TcpStream {
    let mut line = TcpStream::connect(server.address).expect("the kernel takes it");
    line.write_all(bytes.as_ref()).expect("room");
    line
}
