//! Handshakes: the reference's checks, statuses and bodies, and what the application decides.

use crate::support::{TestServer, websocket_request};
use axum::Router;
use axum::routing::get;
use std::sync::{Arc, Mutex};
use stickyport::engine::{BadRequest, CloseReason, Hooks, TransportKind, Version};
use stickyport::http::options::Cors;
use tokio::sync::mpsc;

#[tokio::test]
async fn the_answer_is_the_references() {
    let server = TestServer::start(|_| {});
    let answer = server.get("EIO=4&transport=polling").await;
    let session = server.opened().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=UTF-8"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let sid = session.sid().as_str();
    assert_eq!(
        answer.text(),
        format!(r#"0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#)
    );
    assert!(sid.len() == 20 && sid.starts_with("0-"));
}

#[tokio::test]
async fn every_refusal_has_the_references_status_and_body() {
    let server = TestServer::start(|setup| {
        setup.hooks = Hooks::default().allow_request(|request| {
            let is_banned = request.headers.contains_key("x-banned");
            async move { if is_banned { Err("not \"you\"".to_owned()) } else { Ok(()) } }
        });
    });
    let get = |query: &str| format!("GET /engine.io/?{query} HTTP/1.1\r\nHost: test\r\n\r\n");
    for (request, status, body) in [
        (get("EIO=4"), 400, r#"{"code":0,"message":"Transport unknown"}"#),
        (get("EIO=4&transport=webtransport"), 400, r#"{"code":0,"message":"Transport unknown"}"#),
        (get("EIO=4&transport=polling&sid=garbage"), 400, r#"{"code":1,"message":"Session ID unknown"}"#),
        (get("EIO=4&transport=websocket"), 400, r#"{"code":3,"message":"Bad request"}"#),
        (get("EIO=3&transport=polling"), 400, r#"{"code":5,"message":"Unsupported protocol version"}"#),
        (
            "POST /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".to_owned(),
            400,
            r#"{"code":2,"message":"Bad handshake method"}"#,
        ),
        (
            "OPTIONS /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(),
            400,
            r#"{"code":2,"message":"Bad handshake method"}"#,
        ),
        (
            "GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: test\r\nX-Banned: yes\r\n\r\n".to_owned(),
            403,
            r#"{"code":4,"message":"not \"you\""}"#,
        ),
        (
            "GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: test\r\nOrigin: caf\u{e9}\r\n\r\n".to_owned(),
            400,
            r#"{"code":3,"message":"Bad request"}"#,
        ),
    ] {
        let answer = server.request(&request).await;
        assert_eq!((answer.status, answer.text()), (status, body), "{request}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let metrics = server.metrics();
    assert_eq!(
        [
            metrics.refused_transport_unknown.get(),
            metrics.refused_sid_garbage.get(),
            metrics.refused_method.get(),
            metrics.refused_bad_request.get(),
            metrics.refused_forbidden.get(),
            metrics.refused_protocol_version.get(),
        ],
        [2, 1, 2, 2, 1, 1]
    );
}

#[tokio::test]
async fn an_upgrade_is_refused_in_plain_http() {
    let server = TestServer::start(|setup| {
        setup.hooks = Hooks::default().allow_request(|_| async { Err("no".to_owned()) });
    });
    for (query, message) in [
        ("EIO=4", "Transport unknown"),
        ("EIO=4&transport=websocket&sid=garbage", "Session ID unknown"),
        ("EIO=4&transport=polling", "Bad request"),
        ("EIO=4&transport=websocket", "no"),
    ] {
        let answer = server.upgrade(query).await.expect_err("refused");
        assert_eq!((answer.status, answer.text()), (400, message), "{query}");
        assert_eq!((answer.header("connection"), answer.header("content-type")), (Some("close"), Some("text/html")));
    }
}

#[tokio::test]
async fn a_websocket_needs_a_key_and_version_13() {
    let server = TestServer::start(|_| {});
    let good = websocket_request("EIO=4&transport=websocket");
    for bad in [good.replace("Version: 13", "Version: 8"), good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short")] {
        assert_eq!(server.request(&bad).await.status, 400);
    }
    // The example of RFC 6455, section 1.3.
    let socket = server.upgrade("EIO=4&transport=websocket").await.expect("upgraded");
    assert_eq!(socket.answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

#[tokio::test]
async fn a_version_3_websocket_gets_a_proper_400() {
    let server = TestServer::start(|_| {});
    let answer = server.upgrade("EIO=3&transport=websocket").await.expect_err("refused");
    assert_eq!((answer.status, answer.text()), (400, "Unsupported protocol version"));
}

#[tokio::test]
async fn the_first_sid_of_two_counts_and_they_must_agree() {
    let server = TestServer::start(|_| {});
    let (session, query) = server.poller().await;
    let sid = session.sid().as_str();
    assert_eq!(server.post(&format!("{query}&sid={sid}"), "4same").await.status, 200);
    assert_eq!(server.message().await, "same".into());
    let answer = server.post(&format!("{query}&sid=0-00AAAAAAAAAAAAAAAAA"), "4other").await;
    assert_eq!((answer.status, answer.text()), (400, r#"{"code":3,"message":"Bad request"}"#));
    assert!(session.is_open());
}

#[tokio::test]
async fn the_client_script_is_for_the_pages_that_may_connect_and_not_there_unless_it_is_served() {
    let request = "GET /engine.io/socket.io.min.js HTTP/1.1\r\nHost: test\r\nOrigin: https://a.example\r\n\r\n";
    let server = TestServer::start(|setup| setup.cors.origins = vec!["https://a.example".to_owned()]);
    let answer = server.request(request).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("https://a.example")));
    let server = TestServer::start(|setup| setup.options.serve_client = false);
    let answer = server.request(request).await;
    assert_eq!((answer.status, answer.text()), (400, r#"{"code":0,"message":"Transport unknown"}"#));
}

#[tokio::test]
async fn cors_is_answered_on_everything_and_preflights_before_any_check() {
    let server = TestServer::start(|setup| {
        setup.cors = Cors { origins: vec!["https://a.example".to_owned()], credentials: true, ..Cors::default() };
    });
    let preflight = server
        .request(
            "OPTIONS /engine.io/?EIO=4&transport=polling&sid=elsewhere HTTP/1.1\r\nHost: test\r\nOrigin: https://a.example\r\n\
             Access-Control-Request-Headers: x-mine\r\n\r\n",
        )
        .await;
    assert_eq!((preflight.status, preflight.text()), (204, ""));
    assert_eq!(preflight.header("access-control-allow-methods"), Some("GET,HEAD,PUT,PATCH,POST,DELETE"));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("x-mine"));
    let refused = server.request("GET /engine.io/?EIO=4 HTTP/1.1\r\nHost: test\r\nOrigin: https://a.example\r\n\r\n").await;
    let upgrade = websocket_request("EIO=4&transport=websocket").replace("Host: test", "Host: test\r\nOrigin: https://a.example");
    let upgraded = server.request(upgrade).await;
    assert_eq!((refused.status, upgraded.status), (400, 101));
    for answer in [preflight, refused, upgraded] {
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert!(answer.head.contains("vary: Origin"));
    }
}

#[tokio::test]
async fn a_page_of_a_stranger_is_refused_if_origins_are_enforced() {
    let server = TestServer::start(|setup| setup.cors.enforce = true);
    let upgrade = websocket_request("EIO=4&transport=websocket");
    let from = |origin: &str| upgrade.replace("Host: test", &format!("Host: test\r\nOrigin: {origin}"));
    assert_eq!(server.request(from("https://evil.example")).await.text(), "Forbidden");
    assert_eq!(server.request(from("http://test")).await.status, 101);
}

#[tokio::test]
async fn an_application_may_make_its_own_sids_and_add_headers() {
    let server = TestServer::start(|setup| {
        setup.options.cookie = "io".to_owned();
        setup.hooks = Hooks::default()
            .generate_id(|request| {
                let id = request.headers.get("x-id").map(|id| id.to_str().expect("text").to_owned());
                async move { id.ok_or_else(|| "no id".to_owned()) }
            })
            .initial_headers(|headers, _| drop(headers.insert("x-first", "1".parse().expect("a value"))))
            .headers(|headers, _| drop(headers.insert("x-every", "1".parse().expect("a value"))));
    });
    let handshake = "GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: test\r\nX-Id: mine\r\n\r\n";
    let first = server.request(handshake).await;
    assert!(first.text().starts_with(r#"0{"sid":"mine","#));
    assert_eq!(first.header("set-cookie"), Some("io=mine; Path=/; HttpOnly; SameSite=Lax"));
    assert_eq!((first.header("x-first"), first.header("x-every")), (Some("1"), Some("1")));
    let next = server.post("EIO=4&transport=polling&sid=mine", "4hi").await;
    assert_eq!((next.header("x-first"), next.header("x-every")), (None, Some("1")));
    assert_eq!(next.header("set-cookie"), None);
    // Two sessions of one sid would read each other's messages.
    assert_eq!(server.request(handshake).await.text(), r#"{"code":3,"message":"Bad request"}"#);
    assert_eq!(server.get("EIO=4&transport=polling").await.text(), r#"{"code":3,"message":"Bad request"}"#);
}

#[tokio::test]
async fn an_application_sees_every_request_before_anything_is_made_of_it() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&seen);
    let server = TestServer::start(|setup| {
        setup.hooks = Hooks::default().on_request(move |request| {
            let method = request.method.to_string();
            requests.lock().expect("nothing panics under this lock").push((method, request.headers.contains_key("x-mine")));
        });
    });
    let (_, query) = server.poller().await;
    server.post(&query, "4hi").await;
    // When its message is heard, its request has been seen.
    server.message().await;
    server.request("OPTIONS /engine.io/?EIO=4 HTTP/1.1\r\nHost: test\r\nX-Mine: 1\r\n\r\n").await;
    server.websocket().await;
    let seen = seen.lock().expect("nothing panics under this lock").clone();
    let seen: Vec<_> = seen.iter().map(|(method, is_mine)| (method.as_str(), *is_mine)).collect();
    assert_eq!(seen, [("GET", false), ("POST", false), ("OPTIONS", true), ("GET", false)]);
}

#[tokio::test]
async fn a_cookie_has_the_attributes_that_are_set_and_a_value_that_cannot_break_out() {
    let server = TestServer::start(|setup| {
        setup.options.cookie = "io".to_owned();
        setup.options.cookie_attributes = "Path=/chat; Secure".to_owned();
        setup.hooks = Hooks::default().generate_id(|_| async { Ok("a b;ö".to_owned()) });
    });
    let answer = server.get("EIO=4&transport=polling").await;
    assert_eq!(answer.header("set-cookie"), Some("io=a%20b%3B%C3%B6; Path=/chat; Secure"));
}

#[tokio::test]
async fn transports_may_be_restricted() {
    let server = TestServer::start(|setup| setup.options.transports = vec![TransportKind::Polling]);
    let open = server.get("EIO=4&transport=polling").await;
    assert!(open.text().contains(r#""upgrades":[]"#));
    assert_eq!(server.upgrade("EIO=4&transport=websocket").await.expect_err("refused").text(), "Transport unknown");
    let server = TestServer::start(|setup| setup.options.allow_upgrades = false);
    assert!(server.get("EIO=4&transport=polling").await.text().contains(r#""upgrades":[]"#));
}

#[tokio::test]
async fn a_path_that_is_not_ours_is_not_found() {
    let server = TestServer::start(|_| {});
    for path in ["/", "/engine.io", "/engine.iox/", "/socket.io/?EIO=4&transport=polling"] {
        assert_eq!(server.request(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await.status, 404, "{path}");
    }
    let server = TestServer::start(|setup| setup.options.add_trailing_slash = false);
    let answer = server.request("GET /engine.io?EIO=4&transport=polling HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn an_application_may_have_pages_on_the_port_of_the_sessions() {
    let server = TestServer::start(|setup| setup.fallback = Router::new().route("/page", get(async || "a page")));
    let ask = async |path: &str| server.request(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    assert_eq!(ask("/page").await.text(), "a page");
    assert_eq!(ask("/elsewhere").await.status, 404);
    assert!(ask("/healthz").await.text().contains("ok"));
    assert_eq!(ask("/engine.io/?EIO=4&transport=polling").await.status, 200);
}

#[tokio::test]
async fn an_application_is_told_what_was_wrong_with_a_request() {
    let (sender, mut told) = mpsc::unbounded_channel();
    let server = TestServer::start(|setup| {
        setup.hooks = Hooks::default().on_connection_error(move |error, _| drop(sender.send(error.clone())));
    });
    let (_, query) = server.poller().await;
    server.get(&query.replace("polling", "websocket")).await;
    server.get(&query.replace("EIO=4", "EIO=3")).await;
    server.get("EIO=4&transport=websocket").await;
    for expected in [
        BadRequest::TransportMismatch(TransportKind::Polling),
        BadRequest::ProtocolMismatch(Version::V4),
        BadRequest::TransportHandshake,
    ] {
        assert_eq!(told.recv().await, Some(expected.into()));
    }
}

#[tokio::test]
async fn one_sid_for_two_handshakes_at_once_is_given_to_one() {
    let both = std::sync::Arc::new(tokio::sync::Barrier::new(2));
    let server = TestServer::start(|setup| {
        setup.hooks = Hooks::default().generate_id(move |_| {
            let both = std::sync::Arc::clone(&both);
            async move {
                both.wait().await;
                Ok("twin".to_owned())
            }
        });
    });
    let (one, two) = tokio::join!(server.get("EIO=4&transport=polling"), server.get("EIO=4&transport=polling"));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400]);
    let session = server.opened().await;
    assert_eq!(server.metrics().sessions.get(), 1);
    session.discard(CloseReason::ForcedClose);
    server.closed().await;

    let (one, two) = tokio::join!(server.upgrade("EIO=4&transport=websocket"), server.upgrade("EIO=4&transport=websocket"));
    server.opened().await.close(CloseReason::ForcedClose);
    let mut told = 0;
    for socket in [one, two] {
        // The other one's sid is a credential.
        told += usize::from(!socket.expect("upgraded").http.rest().await.is_empty());
    }
    assert_eq!((told, server.metrics().outbound_bytes.get()), (1, 0));
}
