//! Every bound, reached: what the client is answered, what is counted, and that nobody else notices.

use crate::support::{Frame, TestServer, masked, post};
use bytes::Bytes;
use std::time::Duration;
use stickyport::engine::{CloseReason, Message, SendError, Session};
use stickyport::protocol::eio::Encoded;

#[tokio::test]
async fn a_post_over_max_payload_is_413_and_the_session_goes_on() {
    let server = TestServer::start(|setup| setup.options.max_payload = 1000);
    let (session, query) = server.poller().await;
    let chunked = format!(
        "POST /engine.io/?{query} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
        "x".repeat(1001)
    );
    for request in [post(&query, &[b'x'; 1001]), chunked.into_bytes()] {
        let answer = server.request(request).await;
        assert_eq!((answer.status, answer.text()), (413, ""));
    }
    assert!(session.is_open());
    assert_eq!(server.metrics().limit_payload.get(), 2);
    assert_eq!(server.post(&query, [&b"4"[..], &[b'x'; 999]].concat()).await.text(), "ok");
    assert_eq!(server.message().await.len(), 999);
}

#[tokio::test]
async fn a_payload_of_ten_thousand_packets_is_taken_and_one_more_is_not() {
    let server = TestServer::start(|_| {});
    let (_, query) = server.poller().await;
    assert_eq!(server.post(&query, vec!["4"; 10_000].join("\u{1e}")).await.text(), "ok");
    for _ in 0..10_000 {
        assert!(server.message().await.is_empty());
    }
    assert_eq!(server.post(&query, vec!["4"; 10_001].join("\u{1e}")).await.text(), "ok");
    assert_eq!(server.closed().await, CloseReason::ParseError);
    assert_eq!(server.metrics().limit_packets_per_payload.get(), 1);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed_and_its_memory_comes_back() {
    let server = TestServer::start(|setup| setup.limits.outbox_bytes = 100_000);
    for is_polling in [true, false] {
        let mut _open = None;
        let session = if is_polling {
            server.poller().await.0
        } else {
            let (session, socket) = server.websocket().await;
            _open = Some(socket);
            session
        };
        let message = Message::from("x".repeat(10_000).as_str());
        let error = loop {
            if let Err(error) = session.send_message(&message) {
                break error;
            }
            if !is_polling {
                // What the kernel holds is not ours; its buffers fill first.
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(error, SendError::Full);
        assert_eq!(server.closed().await, CloseReason::TransportError);
        server.until(|metrics| metrics.outbound_bytes.get() == 0).await;
    }
    assert_eq!(server.metrics().limit_outbox.get(), 2);
}

#[tokio::test]
async fn small_packets_count_with_the_memory_that_they_take() {
    let server = TestServer::start(|setup| {
        setup.options.allow_eio3 = true;
        setup.limits.outbox_bytes = 100_000;
    });
    let open = server.get("EIO=3&transport=polling").await;
    let sid = open.text().split('"').nth(3).expect("a sid").to_owned();
    server.opened().await;
    // Ten thousand pongs of three bytes, each in a place of its own.
    assert_eq!(server.post(&format!("EIO=3&transport=polling&sid={sid}"), "1:2".repeat(10_000)).await.text(), "ok");
    assert_eq!(server.closed().await, CloseReason::TransportError);
    assert_eq!((server.metrics().limit_outbox.get(), server.metrics().outbound_bytes.get()), (1, 0));
}

#[tokio::test]
async fn volatile_messages_are_dropped_before_the_reader_is_slow() {
    let server = TestServer::start(|_| {});
    let (session, _) = server.poller().await;
    let packets = [Encoded::control("4x")];
    assert!(!session.send_volatile(&packets));
    assert_eq!(server.metrics().volatile_dropped.get(), 1);
    assert!(session.is_open());
}

#[tokio::test]
async fn of_a_burst_over_a_websocket_only_the_first_message_may_be_volatile() {
    let server = TestServer::start(|_| {});
    let (session, mut socket) = server.websocket().await;
    let volatile = |text: &'static str| session.send_volatile(&[Encoded::control(text)]);
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(volatile("4first"));
    assert!(!volatile("4second"));
    session.send_message(&"third".into()).expect("open");
    assert!(!volatile("4fourth"));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(volatile("4fifth"));
    tokio::time::resume();
    for heard in ["4first", "4third", "4fifth"] {
        assert_eq!(socket.text().await, heard);
    }
    assert_eq!(server.metrics().volatile_dropped.get(), 2);
}

#[tokio::test]
async fn the_memory_of_all_outboxes_is_bounded() {
    let server = TestServer::start(|setup| setup.limits.outbound_bytes = 50_000);
    let (first, _) = server.poller().await;
    let (second, _) = server.poller().await;
    let message = Message::from("x".repeat(20_000).as_str());
    first.send_message(&message).expect("room");
    first.send_message(&message).expect("room");
    second.send_message(&"a first packet always has room".into()).expect("room");
    assert_eq!(second.send_message(&message), Err(SendError::Full));
    assert_eq!(server.closed().await, CloseReason::TransportError);
    assert!(first.is_open());
    assert_eq!(server.metrics().limit_outbound.get(), 1);
}

#[tokio::test]
async fn the_memory_of_all_messages_that_have_begun_to_arrive_is_bounded() {
    let server = TestServer::start(|setup| setup.limits.inbound_bytes = 100_000);
    let (_, mut first) = server.websocket().await;
    let (_, mut second) = server.websocket().await;
    let (_, query) = server.poller().await;
    let message = masked(1, &[b'4'; 80_000]);
    let (begun, rest) = message.split_at(70_000);
    first.http.write(begun).await;
    server.until(|metrics| metrics.inbound_bytes.get() >= 70_000 - 8).await;
    assert_eq!(server.post(&query, vec![b'4'; 50_000]).await.status, 503);
    assert_eq!(server.closed().await, CloseReason::TransportError);
    second.http.write(begun).await;
    assert_eq!(server.closed().await, CloseReason::TransportError);
    // Whoever asks for little is served.
    let (_, query) = server.poller().await;
    assert_eq!(server.post(&query, "4little").await.text(), "ok");
    assert_eq!(server.message().await, "little".into());
    first.http.write(rest).await;
    assert_eq!(server.message().await.len(), 79_999);
    drop(second);
    server.until(|metrics| metrics.inbound_bytes.get() == 0).await;
    assert_eq!(server.metrics().limit_inbound.get(), 2);
}

#[tokio::test]
async fn an_answer_that_is_not_read_still_counts() {
    let server = TestServer::start(|setup| setup.limits.outbox_bytes = 100_000_000);
    let (session, query) = server.poller().await;
    session.send_message(&Bytes::from(vec![0; 30_000_000]).into()).expect("room");
    let mut http = server.connect().await;
    http.write(format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    // The outbox is empty when the answer has begun, and the answer is not read.
    writable_again(&session).await;
    // It is counted as it leaves, in base64.
    server.until(|metrics| metrics.outbound_bytes.get() == 40_000_001).await;
    drop(http);
    server.until(|metrics| metrics.outbound_bytes.get() == 0).await;
}

#[tokio::test]
async fn what_follows_a_frame_that_has_begun_to_leave_comes_behind_it() {
    let server = TestServer::start(|setup| setup.limits.outbox_bytes = 20_000_000);
    let (session, mut socket) = server.websocket().await;
    session.send_message(&"x".repeat(15_000_000).as_str().into()).expect("room");
    let error = loop {
        if let Err(error) = session.send_message(&"y".repeat(1_000_000).as_str().into()) {
            break error;
        }
    };
    assert_eq!(error, SendError::Full);
    assert_eq!(socket.text().await.len(), 15_000_001);
    // Whatever left before the bound is whole, and then comes the close frame.
    loop {
        match socket.frame().await {
            Frame::Text(text) => assert_eq!(text.len(), 1_000_001),
            last => break assert_eq!(last, Frame::Close(None)),
        }
    }
}

#[tokio::test]
async fn sessions_and_handshakes_are_counted() {
    let server = TestServer::start(|setup| setup.limits.sessions = 1);
    let (session, mut socket) = server.websocket().await;
    let refused = server.get("EIO=4&transport=polling").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.text(), r#"{"code":4,"message":"too many sessions on this instance"}"#);
    assert_eq!(server.upgrade("EIO=4&transport=websocket").await.expect_err("refused").status, 503);
    session.close(CloseReason::ForcedClose);
    socket.frame().await;
    assert_eq!(server.closed().await, CloseReason::ForcedClose);
    server.until(|metrics| metrics.sessions.get() == 0).await;
    assert_eq!(server.get("EIO=4&transport=polling").await.status, 200);
    assert_eq!(server.metrics().limit_sessions.get(), 2);
}

#[tokio::test]
async fn one_address_is_held_to_its_share_and_proxies_speak_for_others() {
    let server = TestServer::start(|setup| {
        setup.limits.sessions_per_address = 1;
        setup.limits.handshakes_per_second_per_address = 1000;
    });
    let from = |address: &str| {
        format!("GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {address}\r\n\r\n")
    };
    assert_eq!(server.request(from("192.0.2.1")).await.status, 200);
    let refused = server.request(from("192.0.2.1")).await;
    assert_eq!((refused.status, refused.text()), (429, r#"{"code":4,"message":"too many sessions from this address"}"#));
    assert_eq!(server.request(from("192.0.2.2")).await.status, 200);
    assert_eq!(server.metrics().limit_sessions_per_address.get(), 1);
    let server = TestServer::start(|setup| setup.limits.handshakes_per_second_per_address = 1);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(server.request(from("192.0.2.1")).await.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(server.metrics().limit_handshakes_per_address.get() > 0);
}

#[tokio::test]
async fn headers_have_a_size_and_a_number() {
    let server = TestServer::start(|_| {});
    let long_line = format!("GET /engine.io/?{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(1_000_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", (0..200).map(|n| format!("X-{n}: 1\r\n")).collect::<String>());
    let large = format!("GET / HTTP/1.1\r\nX-Large: {}\r\n\r\n", "x".repeat(20_000));
    for request in [long_line, many, large] {
        let mut http = server.connect().await;
        // The server may answer and close before the last byte is written.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut http.stream, request.as_bytes()).await;
        let status = http.status_or_end().await;
        assert!(matches!(status, Some(431 | 414) | None), "{status:?}");
    }
    server.until(|metrics| metrics.limit_headers.get() == 3).await;
}

/// 15 KB of `a&a&…` were 600 KB for as long as the session lasted.
#[tokio::test]
async fn a_query_has_so_many_parameters() {
    let server = TestServer::start(|_| {});
    let query = |count: usize| "EIO=4&transport=polling".to_owned() + &"&a".repeat(count - 2);
    assert_eq!(server.get(&query(100)).await.status, 200);
    let refused = server.get(&query(101)).await;
    assert_eq!((refused.status, refused.text()), (400, r#"{"code":3,"message":"Bad request"}"#));
    assert_eq!(server.upgrade(&query(101).replace("polling", "websocket")).await.expect_err("refused").status, 400);
    assert_eq!(server.metrics().limit_query_parameters.get(), 2);
}

#[tokio::test]
async fn slow_headers_bodies_and_idle_connections_are_cut() {
    let server = TestServer::start(|setup| {
        setup.limits.header_timeout = Duration::from_millis(50);
        setup.limits.body_timeout = Duration::from_millis(50);
        setup.limits.keep_alive = Duration::from_millis(50);
    });
    let mut silent = server.connect().await;
    assert!(silent.is_ended().await);
    let mut slow = server.connect().await;
    slow.write("GET / HT").await;
    assert!(slow.is_ended().await);
    assert_eq!(server.metrics().limit_header_timeout.get(), 2);

    let mut idle = server.connect().await;
    idle.write("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(idle.answer().await.status, 200);
    assert!(idle.is_ended().await);
    assert_eq!(server.metrics().limit_keep_alive.get(), 1);

    let (_, query) = server.poller().await;
    let mut body = server.connect().await;
    body.write(format!("POST /engine.io/?{query} HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n4")).await;
    assert_eq!(body.answer().await.status, 408);
    assert_eq!(server.closed().await, CloseReason::TransportError);
    assert_eq!(server.metrics().limit_body_timeout.get(), 1);
}

#[tokio::test]
async fn a_parked_get_is_not_an_idle_connection() {
    let server = TestServer::start(|setup| {
        setup.limits.header_timeout = Duration::from_millis(20);
        setup.limits.keep_alive = Duration::from_millis(20);
        setup.options.ping_interval = Duration::from_millis(200);
    });
    let (_, query) = server.poller().await;
    assert_eq!(server.get(&query).await.text(), "2");
}

/// Waits until a GET has taken what waited.
async fn writable_again(session: &Session) {
    while session.backlog() > 0 {
        tokio::task::yield_now().await;
    }
}
