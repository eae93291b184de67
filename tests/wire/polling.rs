//! Long-polling: GETs that wait, POSTs that deliver, and what breaks them.

use crate::support::{TestServer, post, writable};
use bytes::Bytes;
use stickyport::engine::{CloseReason, Message};

#[tokio::test]
async fn a_get_waits_until_there_is_something_and_takes_all_of_it() {
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    let mut http = server.connect().await;
    http.write(format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    assert_eq!(server.post(&query, "4echo one\u{1e}4echo two").await.text(), "ok");
    let first = http.answer().await;
    assert!(first.text() == "4one" || first.text() == "4one\u{1e}4two", "{first:?}");
    session.send_message(&"three".into()).expect("open");
    session.send_message(&Bytes::from_static(&[1, 2, 3, 4]).into()).expect("open");
    let rest = server.get(&query).await;
    assert_eq!(format!("{}\u{1e}{}", first.text(), rest.text()), "4one\u{1e}4two\u{1e}4three\u{1e}bAQIDBA==");
    assert_eq!(rest.header("content-type"), Some("text/plain; charset=UTF-8"));
}

#[tokio::test]
async fn a_post_delivers_text_and_binary_in_order() {
    let server = TestServer::start(|_| {});
    let (_, query) = server.poller().await;
    let answer = server.post(&query, "4h\u{e9}llo \u{20ac}\u{1e}bAQIDBA==\u{1e}4").await;
    assert_eq!((answer.status, answer.text(), answer.header("content-type")), (200, "ok", Some("text/html")));
    assert_eq!(server.message().await, "h\u{e9}llo \u{20ac}".into());
    assert_eq!(server.message().await, Message::Binary(Bytes::from_static(&[1, 2, 3, 4])));
    assert_eq!(server.message().await, "".into());
}

#[tokio::test]
async fn packets_before_a_bad_one_are_delivered_and_the_post_is_still_answered_ok() {
    let server = TestServer::start(|_| {});
    for body in ["4good\u{1e}x", "4good\u{1e}", "4good\u{1e}\u{1e}4late"] {
        let (session, query) = server.poller().await;
        assert_eq!(server.post(&query, body).await.text(), "ok");
        assert_eq!(server.message().await, "good".into());
        assert_eq!(server.closed().await, CloseReason::ParseError);
        assert!(!session.is_open());
        assert_eq!(server.get(&query).await.text(), r#"{"code":1,"message":"Session ID unknown"}"#);
    }
}

#[tokio::test]
async fn bytes_that_are_no_utf8_become_replacement_characters() {
    let server = TestServer::start(|_| {});
    let (_, query) = server.poller().await;
    assert_eq!(server.post(&query, b"4a\xff\xe2\x82").await.text(), "ok");
    assert_eq!(server.message().await, "a\u{fffd}\u{fffd}".into());
}

#[tokio::test]
async fn a_second_get_ends_the_session() {
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    let mut parked = server.connect().await;
    parked.write(format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    writable(&session).await;
    let second = server.get(&query).await;
    assert_eq!((second.status, second.text()), (400, ""));
    assert_eq!(parked.answer().await.text(), "1");
    assert_eq!(server.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn a_second_post_ends_the_session() {
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    let mut slow = server.connect().await;
    slow.write(format!("POST /engine.io/?{query} HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n4ha")).await;
    // Whichever of the two comes first, the other one is the second.
    let mut second = server.connect().await;
    second.write(format!("POST /engine.io/?{query} HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n4ha")).await;
    assert_eq!(server.closed().await, CloseReason::TransportError);
    assert!(!session.is_open());
}

#[tokio::test]
async fn a_client_that_aborts_its_poll_is_gone_at_once() {
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    let mut http = server.connect().await;
    http.write(format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    writable(&session).await;
    drop(http);
    assert_eq!(server.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn a_client_that_aborts_its_post_is_gone() {
    let server = TestServer::start(|_| {});
    let (_, query) = server.poller().await;
    let mut http = server.connect().await;
    let request = post(&query, b"4never whole");
    http.write(&request[..request.len() - 3]).await;
    drop(http);
    assert_eq!(server.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn a_client_that_closes_has_its_get_answered_with_a_noop() {
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    let mut http = server.connect().await;
    http.write(format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    writable(&session).await;
    assert_eq!(server.post(&query, "1").await.text(), "ok");
    assert_eq!(http.answer().await.text(), "6");
    assert_eq!(server.closed().await, CloseReason::TransportClose);
}

#[tokio::test]
async fn a_server_that_closes_says_so_to_the_parked_get() {
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    let mut http = server.connect().await;
    http.write(format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    writable(&session).await;
    session.close(CloseReason::ForcedClose);
    assert_eq!(http.answer().await.text(), "1");
    assert_eq!(server.closed().await, CloseReason::ForcedClose);
    assert_eq!(server.get(&query).await.text(), r#"{"code":1,"message":"Session ID unknown"}"#);
}

#[tokio::test]
async fn a_server_that_closes_says_so_to_the_next_get_after_what_waits() {
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    session.close(CloseReason::ForcedClose);
    assert_eq!(server.get(&query).await.text(), "6\u{1e}1");
    assert_eq!(server.closed().await, CloseReason::ForcedClose);

    let (session, query) = server.poller().await;
    session.send_message(&"x".into()).expect("open");
    session.close(CloseReason::ForcedClose);
    assert_eq!(server.get(&query).await.text(), "4x");
    assert_eq!(server.get(&query).await.text(), "6\u{1e}1");
    assert_eq!(server.closed().await, CloseReason::ForcedClose);
}

#[tokio::test]
async fn a_method_that_polling_has_no_use_for_is_answered_500() {
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    for method in ["PUT", "DELETE"] {
        let answer = server.request(format!("{method} /engine.io/?{query} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        assert_eq!((answer.status, answer.text()), (500, ""));
    }
    assert!(session.is_open());
}

#[tokio::test]
async fn a_binary_post_ends_the_session() {
    let server = TestServer::start(|_| {});
    let (_, query) = server.poller().await;
    let request = format!(
        "POST /engine.io/?{query} HTTP/1.1\r\nHost: test\r\nContent-Type: application/octet-stream\r\nContent-Length: 2\r\n\r\n4x"
    );
    let answer = server.request(request).await;
    assert_eq!((answer.status, answer.text()), (400, ""));
    assert_eq!(server.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn a_large_answer_is_compressed_unless_a_packet_forbids_it() {
    use stickyport::protocol::eio::Encoded;
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    let request = format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip, deflate\r\n\r\n");
    let long = Message::from("a".repeat(5000).as_str());
    session.send_message(&long).expect("open");
    let compressed = server.request(&request).await;
    assert_eq!(compressed.header("content-encoding"), Some("gzip"));
    assert!(compressed.body.len() < 200);
    session.send(&[Encoded::message(&long).compress(false)]).expect("open");
    let plain = server.request(&request).await;
    assert_eq!((plain.header("content-encoding"), plain.body.len()), (None, 5001));
    session.send_message(&"short".into()).expect("open");
    assert_eq!(server.request(&request).await.text(), "4short");
}
