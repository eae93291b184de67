//! How clients come into namespaces.

use crate::engine::{CloseReason, Version};
use crate::hub::connection::Link;
use crate::hub::handshake::Handshake;
use crate::hub::testing::{Log, Server};
use crate::hub::{Auth, ConnectContext, ConnectError, HandlerResult, Namespace, Options, Room, Socket, State};
use crate::protocol::limits::Limits;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

#[tokio::test]
async fn the_client_is_welcomed_before_its_handler_speaks() {
    let server = Server::new(Namespace::new("/").on_connect(async |socket: Socket| socket.emit("hello", socket.id())));
    let mut client = server.client();
    let id = client.connect("/").await;
    assert_eq!(id.len(), 20);
    assert_eq!(client.hear().await, format!(r#"2["hello","{id}"]"#));
    assert_eq!((server.metrics().sockets.get(), server.metrics().sockets_connected.get()), (1, 1));
}

#[tokio::test]
async fn the_default_namespace_exists_without_being_declared() {
    let server = Server::new(Namespace::new("chat"));
    let mut client = server.joined().await;
    assert_ne!(client.connect("/chat").await, client_id(&server, "/"));
    assert!(server.io.has("/") && server.io.has("chat") && !server.io.has("/nope"));
}

#[tokio::test]
async fn the_log_shows_no_sid_though_the_id_of_a_client_of_protocol_3_holds_it() {
    let mut server =
        Server::new(Namespace::new("/").on_connect(|socket: Socket, State(log): State<Log>| log.note(socket.log_id())));
    let old = server.client_of(Version::V3);
    assert_eq!(server.noted().await, "Sid(0-…)");
    assert_eq!(client_id(&server, "/"), old.session.sid().as_str());
    let id = server.client().connect("/").await;
    assert_eq!(server.noted().await, id);
}

#[tokio::test]
async fn an_unknown_namespace_is_refused_and_the_session_stays() {
    let server = Server::new(Namespace::new("/"));
    let mut client = server.client();
    client.say(r#"0/nope,{"token":1}"#).await;
    assert_eq!(client.hear().await, r#"4/nope,{"message":"Invalid namespace"}"#);
    client.connect("/").await;
    assert_eq!(server.metrics().connect_errors.get(), 1);
}

#[tokio::test]
async fn middlewares_are_asked_in_turn_and_the_first_error_is_the_answer() {
    let server = Server::new(
        Namespace::new("/")
            .middleware(|State(log): State<Log>| {
                log.note("first");
                Ok(())
            })
            .middleware(async |State(log): State<Log>| {
                tokio::task::yield_now().await;
                log.note("second");
                Err(ConnectError::new("not \"authorized\"").data(&serde_json::json!({ "code": 7 })))
            })
            .middleware(|State(log): State<Log>| {
                log.note("third");
                Ok(())
            })
            .on_connect(|State(log): State<Log>| log.note("connected")),
    );
    let mut server = server;
    let mut client = server.client();
    client.say("0").await;
    assert_eq!(client.hear().await, r#"4{"message":"not \"authorized\"","data":{"code":7}}"#);
    assert_eq!(server.notes(), ["first", "second"]);
    assert_eq!((server.metrics().sockets.get(), server.metrics().connect_errors.get()), (0, 1));
    assert!(client.session.is_open());
}

#[derive(Deserialize)]
struct Token {
    token: u32,
}

#[tokio::test]
async fn auth_is_read_as_a_type_and_refuses_who_has_none() {
    let server = Server::new(Namespace::new("/").middleware(async |socket: Socket, Auth(Token { token }): Auth<Token>| {
        socket.set_data(&token).map_err(|error| ConnectError::new(error.to_string()))
    }));
    let mut client = server.client();
    client.say("0").await;
    assert_eq!(client.hear().await, r#"4{"message":"invalid auth"}"#);
    client.say(r#"0{"token":42}"#).await;
    assert!(client.hear().await.starts_with("0{"));
    let [socket] = &server.io.of("/").local_sockets()[..] else { panic!("one socket") };
    assert_eq!(socket.data::<u32>().expect("a number"), 42);
    assert_eq!(socket.handshake().auth_json(), r#"{"token":42}"#);
}

#[tokio::test]
async fn a_middleware_that_panics_refuses_only_its_client() {
    fn explode() -> Result<(), ConnectError> {
        panic!("no")
    }
    let server = Server::with(|builder| builder.namespace(Namespace::new("/bad").middleware(explode)));
    let mut client = server.joined().await;
    client.say("0/bad,").await;
    assert_eq!(client.hear().await, r#"4/bad,{"message":"internal server error"}"#);
    assert_eq!(server.metrics().handler_panics.get(), 1);
    assert!(client.session.is_open());
}

#[tokio::test]
async fn a_socket_in_a_middleware_may_join_and_speak_but_hears_no_broadcast() {
    let gate = Arc::new(Notify::new());
    let server = Server::with(|builder| {
        builder.state(Arc::clone(&gate)).namespace(Namespace::new("/").middleware(
            async |socket: Socket, State(gate): State<Arc<Notify>>| -> Result<(), ConnectError> {
                socket.join(["early"]).map_err(|error| ConnectError::new(error.to_string()))?;
                socket.disconnect(true);
                socket.emit("before", ()).map_err(|error| ConnectError::new(error.to_string()))?;
                gate.notified().await;
                Ok(())
            },
        ))
    });
    let mut client = server.client();
    client.say("0").await;
    assert_eq!(client.hear().await, r#"2["before"]"#);
    server.io.to("early").emit("missed", ()).expect("sent");
    assert!(server.io.of("/").all_rooms().await.complete().expect("one node").is_empty());
    gate.notify_one();
    assert!(client.hear().await.starts_with("0{"));
    server.io.to("early").emit("heard", ()).expect("sent");
    assert_eq!(client.hear().await, r#"2["heard"]"#);
    let [socket] = &server.io.of("/").local_sockets()[..] else { panic!("one socket") };
    assert_eq!(socket.rooms(), [Room::from("early"), Room::from(socket.id())]);
}

#[tokio::test]
async fn who_speaks_before_it_is_in_is_closed() {
    let server = Server::new(Namespace::new("/").middleware(async || {
        std::future::pending::<()>().await;
        Ok(())
    }));
    let mut client = server.client();
    client.say_all(&["0", r#"2["hi"]"#]).await;
    client.end().await;
    assert_eq!(server.metrics().protocol_errors.get(), 1);
}

#[tokio::test]
async fn nobody_is_told_of_a_client_that_went_while_it_was_decided() {
    let gate = Arc::new(Notify::new());
    let mut server = Server::with(|builder| {
        builder.state(Arc::clone(&gate)).namespace(
            Namespace::new("/")
                .middleware(async |State(gate): State<Arc<Notify>>, State(log): State<Log>| {
                    gate.notified().await;
                    log.note("decided");
                    Ok(())
                })
                .on_connect(|State(log): State<Log>| log.note("connected"))
                .on_disconnect(|State(log): State<Log>| log.note("disconnected")),
        )
    });
    let mut client = server.client();
    client.say("0").await;
    client.close(CloseReason::ForcedClose);
    client.end().await;
    gate.notify_one();
    assert_eq!(server.noted().await, "decided");
    tokio::task::yield_now().await;
    assert_eq!(server.notes(), [""; 0]);
    assert_eq!(server.metrics().sockets.get(), 0);
}

#[tokio::test]
async fn a_client_that_broke_the_protocol_is_not_heard_again() {
    let server = Server::new(Namespace::new("/"));
    let client = server.joined().await;
    client.say_all(&["0", "0/nope,", "0"]).await;
    client.say_though_closed("0");
    client.say_though_closed(r#"2["x"]"#);
    assert_eq!((server.metrics().protocol_errors.get(), server.metrics().connect_errors.get()), (1, 0));
    assert_eq!(server.metrics().events_received.get(), 0);
    assert_eq!((server.metrics().sockets_connected.get(), server.metrics().sockets.get()), (1, 0));
}

#[tokio::test]
async fn a_socket_that_was_closed_before_it_entered_stays_out() {
    let server = Server::new(Namespace::new("/"));
    let client = server.client();
    let live = server.io.live("/").expect("always there");
    let handshake = Handshake::new(Arc::clone(&client.session), None);
    let socket = Socket::new(
        Arc::clone(&live),
        Link::new(server.io.clone(), &client.session),
        Arc::clone(&client.session),
        handshake,
        None,
        None,
    );
    assert!(!socket.close());
    assert!(live.enter(&socket).is_none());
    assert!(live.select(&Default::default()).is_empty() && live.rooms().is_empty());
}

#[tokio::test]
async fn of_two_attempts_at_once_the_last_counts() {
    let gate = Arc::new(Notify::new());
    let mut server = Server::with(|builder| {
        builder.state(Arc::clone(&gate)).namespace(
            Namespace::new("/")
                .middleware(async |State(gate): State<Arc<Notify>>| {
                    gate.notified().await;
                    Ok(())
                })
                .on_connect(|context: ConnectContext, State(log): State<Log>| {
                    log.note(crate::hub::Context::socket(&context).id())
                }),
        )
    });
    let mut client = server.client();
    client.say_all(&["0", "0"]).await;
    gate.notify_waiters();
    let id = server.noted().await;
    assert_eq!(client.hear().await, format!(r#"0{{"sid":"{id}"}}"#));
    assert_eq!(server.metrics().sockets.get(), 1);
    assert_eq!(server.notes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn who_comes_into_no_namespace_in_time_is_closed() {
    let options = Options { connect_timeout: Duration::from_secs(2), ..Options::default() };
    let server = Server::with(|builder| builder.options(options));
    let mut late = server.client();
    late.say("0/nope,").await;
    let joined = server.joined().await;
    let start = tokio::time::Instant::now();
    late.end().await;
    assert_eq!(start.elapsed().as_secs(), 2);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(joined.session.is_open());
}

#[tokio::test]
async fn namespaces_of_one_session_are_limited() {
    let limits = Limits { namespaces_per_session: 2, ..Limits::default() };
    let server = Server::with(|builder| {
        let namespaces = ["/a", "/b", "/c"].map(Namespace::new);
        namespaces.into_iter().fold(builder.limits(limits), crate::hub::Builder::namespace)
    });
    let mut client = server.client().join("/a").await.join("/b").await;
    client.say("0/c,").await;
    assert_eq!(client.hear().await, r#"4/c,{"message":"Too many namespaces"}"#);
    client.say("1/a,").await;
    client.connect("/c").await;
    assert_eq!(server.metrics().limit_namespaces.get(), 1);
}

#[tokio::test]
async fn the_size_of_auth_is_limited() {
    let server = Server::with(|builder| builder.limits(Limits { auth_bytes: 21, ..Limits::default() }));
    let mut client = server.client();
    client.say(r#"0{"token":"1234567890"}"#).await;
    assert_eq!(client.hear().await, r#"4{"message":"auth is too large"}"#);
    client.say(r#"0{"token":"123456789"}"#).await;
    assert!(client.hear().await.starts_with("0{"));
    assert_eq!(server.metrics().limit_auth.get(), 1);
}

#[tokio::test]
async fn ten_thousand_namespaces_are_refused_one_by_one() {
    let server = Server::new(Namespace::new("/"));
    let mut client = server.client();
    for number in 0..10_000 {
        client.say(&format!("0/{number},")).await;
        assert_eq!(client.hear().await, format!(r#"4/{number},{{"message":"Invalid namespace"}}"#));
    }
    client.connect("/").await;
}

#[tokio::test]
async fn the_handshake_is_what_the_reference_shows() {
    let server = Server::new(Namespace::new("/"));
    let mut client = server.client();
    client.say(r#"0{"token":"1"}"#).await;
    client.hear().await;
    let [socket] = &server.io.of("/").local_sockets()[..] else { panic!("one socket") };
    let handshake = serde_json::to_value(socket.handshake()).expect("JSON");
    let time = handshake["time"].as_str().expect("a text");
    assert!(time.ends_with("GMT+0000 (Coordinated Universal Time)"), "{time}");
    assert!(handshake["issued"].as_u64().expect("a number") > 1_700_000_000_000);
    let mut rest = handshake;
    rest.as_object_mut().expect("an object").retain(|key, _| key != "time" && key != "issued");
    assert_eq!(
        rest,
        serde_json::json!({
            "headers": { "origin": "http://elsewhere", "x-many": "a, b" },
            "address": "192.0.2.1",
            "xdomain": true,
            "secure": false,
            "url": "/socket.io/?EIO=4&a=1&a=2",
            "query": { "EIO": "4", "a": "1" },
            "auth": { "token": "1" },
        })
    );
    assert_eq!(socket.handshake().header("Origin"), Some("http://elsewhere"));
    assert_eq!(socket.handshake().query("a"), Some("1"));
}

#[tokio::test]
async fn a_connect_handler_that_fails_is_told_and_the_client_stays() {
    let server = Server::new(
        Namespace::new("/").on_connect(|| -> HandlerResult { Err("broken".into()) }).on("ping", || crate::hub::Ack("pong")),
    );
    let mut client = server.joined().await;
    client.say(r#"20["ping"]"#).await;
    assert_eq!(client.hear().await, r#"30["pong"]"#);
    assert_eq!(server.metrics().handler_errors.get(), 1);
}

#[test]
#[should_panic(expected = "the namespace /chat exists already")]
fn a_namespace_is_declared_once() {
    Server::with(|builder| builder.namespace(Namespace::new("/chat")).namespace(Namespace::new("chat")));
}

#[test]
#[should_panic(expected = "handlers of /chat take State<u8>")]
fn state_that_handlers_take_must_be_given() {
    Server::with(|builder| builder.namespace(Namespace::new("/chat").on("x", |_: State<u8>| ())));
}

fn client_id(server: &Server, namespace: &str) -> String {
    server.io.of(namespace).local_sockets()[0].id().to_string()
}

#[tokio::test]
async fn an_admission_goes_with_its_client() {
    struct Dropped(Log);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.note("dropped");
        }
    }
    let mut server = Server::new(Namespace::new("/").middleware(async |State(log): State<Log>| {
        let _dropped = Dropped(log.clone());
        log.note("asked");
        std::future::pending::<Result<(), ConnectError>>().await
    }));
    let client = server.client();
    client.say("0").await;
    assert_eq!(server.noted().await, "asked");
    client.session.discard(CloseReason::TransportError);
    assert_eq!(server.noted().await, "dropped");
}
