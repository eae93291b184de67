//! Namespaces that are made when a client asks for them.

use crate::hub::testing::{Client, Log, Server};
use crate::hub::{ConnectError, Namespace, NamespaceRequest, Options, Regex, Socket, State};
use crate::protocol::limits::Limits;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::Notify;

#[tokio::test]
async fn a_pattern_makes_a_namespace_for_each_name() {
    let server = Server::new(tenants().on("who", |socket: Socket| crate::hub::Ack(socket.namespace().to_owned())));
    let mut one = server.client().join("/tenant-1").await;
    let mut two = server.client().join("/tenant-2").await;
    one.say(r#"2/tenant-1,0["who"]"#).await;
    assert_eq!(one.hear().await, r#"3/tenant-1,0["/tenant-1"]"#);
    server.io.of("/tenant-2").emit("only", "two").expect("sent");
    assert_eq!(two.hear().await, r#"2/tenant-2,["only","two"]"#);
    server.io.children(r"^/tenant-\d+$").emit("to", "all").expect("sent");
    assert_eq!(two.hear().await, r#"2/tenant-2,["to","all"]"#);
    assert_eq!(one.hear().await, r#"2/tenant-1,["to","all"]"#);
    let mut stranger = server.client();
    stranger.say("0/tenant-x,").await;
    assert_eq!(stranger.hear().await, r#"4/tenant-x,{"message":"Invalid namespace"}"#);
}

#[tokio::test]
async fn a_function_sees_name_and_auth_and_the_first_that_says_yes_makes_it() {
    let mut server = Server::with(|builder| {
        builder
            .namespace(Namespace::dynamic(async |_: NamespaceRequest| panic!("a bad function")).on_connect(note("never")))
            .namespace(
                Namespace::dynamic(async |request: NamespaceRequest| {
                    tokio::task::yield_now().await;
                    request.handshake().auth::<Value>().is_ok_and(|auth| auth["admin"] == true)
                })
                .on_connect(note("admin")),
            )
            .namespace(Namespace::dynamic(async |request: NamespaceRequest| request.name() == "/guest").on_connect(note("guest")))
            .namespace(Namespace::new("/static").on_connect(note("static")))
    });
    let mut client = server.client();
    for (packet, answer) in [
        (r#"0/x,{"admin":true}"#, "0/x,"),
        (r#"0/guest,{"admin":1}"#, "0/guest,"),
        (r#"0/static,{"admin":true}"#, "0/static,"),
        ("0/y,", r#"4/y,{"message":"Invalid namespace"}"#),
    ] {
        client.say(packet).await;
        let heard = client.hear().await;
        assert!(heard.starts_with(answer), "{packet}: {heard}");
    }
    assert_eq!(server.notes(), ["admin", "guest", "static"]);
    assert_eq!(server.metrics().handler_panics.get(), 3);
}

#[tokio::test]
async fn an_empty_namespace_goes_if_it_is_asked() {
    let mut server = cleaning(true);
    let first = server.client().join("/tenant-1").await;
    let second = server.client().join("/tenant-1").await;
    first.say("1/tenant-1,").await;
    assert!(server.io.has("/tenant-1"));
    second.say("1/tenant-1,").await;
    assert!(!server.io.has("/tenant-1"));
    assert_eq!(server.notes(), ["new /tenant-1", "left", "left", "removed /tenant-1"]);
    refused(&server).await;
    assert!(!server.io.has("/tenant-0"));
    assert_eq!(server.notes(), ["new /tenant-0", "removed /tenant-0"]);
    server.client().join("/tenant-1").await;
    let leaving = server.client().join("/fixed").await;
    leaving.say("1/fixed,").await;
    assert!(server.io.has("/tenant-1") && server.io.has("/fixed"));
}

#[tokio::test]
async fn an_empty_namespace_stays_if_it_is_not_asked() {
    let mut server = cleaning(false);
    let client = server.client().join("/tenant-1").await;
    client.say("1/tenant-1,").await;
    assert!(server.io.has("/tenant-1"));
    assert_eq!(server.notes(), ["new /tenant-1", "left"]);
}

#[tokio::test]
async fn a_running_server_gets_more_namespaces() {
    let mut server = cleaning(false);
    server.io.add(Namespace::new("later").on_connect(note("later"))).expect("a new name");
    assert_eq!(server.io.add(Namespace::new("/later")).expect_err("taken").to_string(), "the namespace /later exists already");
    assert!(server.io.open("tenant-7") && server.io.open("/tenant-7") && !server.io.open("/nope"));
    server
        .io
        .add(Namespace::matching(Regex::new("^/late-").expect("a pattern")).label("late").on_connect(note("dynamic")))
        .expect("never taken");
    let mut client = server.client().join("/later").await.join("/late-1").await;
    server.io.children("late").emit("hi", ()).expect("sent");
    assert_eq!(client.hear().await, r#"2/late-1,["hi"]"#);
    assert_eq!(server.notes(), ["new /later", "new /tenant-7", "later", "new /late-1", "dynamic"]);
}

#[tokio::test]
async fn namespaces_that_clients_make_are_limited() {
    let limits = Limits { child_namespaces: 2, ..Limits::default() };
    let server = Server::with(|builder| builder.limits(limits).namespace(tenants()));
    let leaving = server.client().join("/tenant-1").await;
    let staying = server.client().join("/tenant-2").await;
    let mut third = server.client();
    third.say("0/tenant-3,").await;
    assert_eq!(third.hear().await, r#"4/tenant-3,{"message":"Too many namespaces"}"#);
    let another = server.client().join("/tenant-2").await;
    leaving.say("1/tenant-1,").await;
    // Empty ones make room, though they may stay otherwise.
    third.connect("/tenant-3").await;
    assert!(!server.io.has("/tenant-1") && server.io.has("/tenant-2"));
    assert!(!server.io.open("/tenant-4"));
    assert_eq!(server.metrics().limit_child_namespaces.get(), 3);
    drop((staying, another));
}

#[tokio::test]
async fn who_went_while_it_was_decided_leaves_no_namespace_behind() {
    let gate = Arc::new(Notify::new());
    let options = Options { cleanup_empty_child_namespaces: true, ..Options::default() };
    let server = Server::with(|builder| {
        builder.options(options).state(Arc::clone(&gate)).namespace(tenants().middleware(
            async |State(gate): State<Arc<Notify>>| {
                gate.notified().await;
                Ok(())
            },
        ))
    });
    let mut client = server.client();
    client.say("0/tenant-1,").await;
    assert!(server.io.has("/tenant-1"));
    client.post("1").await;
    client.end().await;
    gate.notify_one();
    while server.io.has("/tenant-1") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_finds_a_namespace_that_is_just_going_gets_another_of_its_name() {
    let server = Server::with(|builder| builder.namespace(tenants()));
    assert!(server.io.open("/tenant-1"));
    let going = server.io.live("/tenant-1").expect("just made");
    assert!(going.close_if_empty());
    let _client = server.client().join("/tenant-1").await;
    assert!(!Arc::ptr_eq(&going, &server.io.live("/tenant-1").expect("made for the client")));
    assert!(!going.reserve());
}

#[tokio::test]
async fn a_namespace_that_has_gone_makes_room_for_another() {
    let options = Options { cleanup_empty_child_namespaces: true, ..Options::default() };
    let limits = Limits { child_namespaces: 1, ..Limits::default() };
    let server = Server::with(|builder| builder.options(options).limits(limits).namespace(tenants()));
    for number in 0..3 {
        let client = server.client().join(&format!("/tenant-{number}")).await;
        client.say(&format!("1/tenant-{number},")).await;
    }
    assert_eq!(server.metrics().limit_child_namespaces.get(), 0);
}

fn tenants() -> Namespace {
    Namespace::matching(Regex::new(r"^/tenant-\d+$").expect("a pattern"))
}

fn note(text: &'static str) -> impl Fn(State<Log>) + Send + Sync {
    move |State(log)| log.note(text)
}

fn cleaning(cleanup: bool) -> Server {
    let options = Options { cleanup_empty_child_namespaces: cleanup, ..Options::default() };
    let (log, notes) = (Arc::new(std::sync::OnceLock::<Log>::new()), Arc::new(std::sync::OnceLock::new()));
    let (made, dropped) = (Arc::clone(&log), Arc::clone(&log));
    let server = Server::with(|builder| {
        builder
            .options(options)
            .on_new_namespace(move |name| made.get().expect("set").note(format!("new {name}")))
            .on_namespace_removed(move |name| dropped.get().expect("set").note(format!("removed {name}")))
            .namespace(Namespace::new("/fixed"))
            .namespace(
                tenants()
                    .middleware(
                        |socket: Socket| if socket.namespace() == "/tenant-0" { Err(ConnectError::new("no")) } else { Ok(()) },
                    )
                    .on_disconnect(note("left")),
            )
    });
    let state = server.io.state::<Log>().expect("every server has one").clone();
    assert!(log.set(state).is_ok() && notes.set(()).is_ok());
    server
}

async fn refused(server: &Server) -> Client {
    let mut client = server.client();
    client.say("0/tenant-0,").await;
    assert_eq!(client.hear().await, r#"4/tenant-0,{"message":"no"}"#);
    client
}
