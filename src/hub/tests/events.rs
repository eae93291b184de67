//! What happens with an event.

use crate::hub::testing::{Log, Server};
use crate::hub::{
    Ack, AckSender, All, Args, Data, EmitError, Event, EventError, ExtractError, HandlerResult, Namespace, Socket, SocketError,
    State,
};
use crate::protocol::limits::Limits;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[tokio::test]
async fn arguments_go_back_as_they_came() {
    let server =
        Server::new(Namespace::new("/").on("message", async |socket: Socket, args: Args| socket.emit("message-back", args)));
    let mut client = server.joined().await;
    for args in
        ["", r#",1"#, r#",1,"2",{"3":[true,null,1.50]}"#, r#",{"a":{"b":[{"c":"\u00e9\ud83d\ude00"}]}}"#, r#","42,[\"x\"]""#]
    {
        client.say(&format!(r#"2["message"{args}]"#)).await;
        assert_eq!(client.hear().await, format!(r#"2["message-back"{args}]"#));
    }
}

#[tokio::test]
async fn bytes_travel_wherever_they_are() {
    #[derive(Serialize, Deserialize)]
    struct Upload {
        name: String,
        parts: BTreeMap<String, Vec<Bytes>>,
    }
    let server = Server::new(
        Namespace::new("/")
            .on("raw", async |socket: Socket, args: Args| socket.emit("raw-back", args))
            .on("typed", |Data(upload): Data<Upload>| Ack((upload.name.len(), upload))),
    );
    let mut client = server.joined().await;
    let (one, two) = (r#"{"_placeholder":true,"num":0}"#, r#"{"_placeholder":true,"num":1}"#);
    client.post(&format!("452-[\"raw\",{two},{{\"a\":[{one}]}}]\x1ebAQI=\x1ebAwQ=")).await;
    assert_eq!(client.hear().await, format!(r#"52-["raw-back",{two},{{"a":[{one}]}}]"#));
    assert_eq!((client.hear().await, client.hear().await), ("engine bAQI=".to_owned(), "engine bAwQ=".to_owned()));
    client.post(&format!("452-7[\"typed\",{{\"name\":\"été\",\"parts\":{{\"x\":[{one},{two}]}}}}]\x1ebAQI=\x1ebAwQ=")).await;
    assert_eq!(client.hear().await, format!(r#"62-7[5,{{"name":"été","parts":{{"x":[{one},{two}]}}}}]"#));
}

#[tokio::test]
async fn an_acknowledgement_is_a_return_value_or_sent() {
    let server = Server::new(
        Namespace::new("/")
            .on("sum", async |All((a, b)): All<(i64, i64)>| Ack(a + b))
            .on("echo", |args: Args| Ack(args))
            .on("none", || Ack(()))
            .on("several", async || -> HandlerResult<Ack<(u8, &str)>> { Ok(Ack((1, "two"))) })
            .on("sent", |ack: AckSender| {
                let first = ack.clone().send("once");
                assert!(!ack.is_awaited());
                let second = ack.send("twice");
                first.and(second)
            })
            .on("asked", |socket: Socket, ack: AckSender| socket.emit("asked", (ack.is_asked(), ack.is_awaited()))),
    );
    let mut client = server.joined().await;
    for (packet, answer) in [
        (r#"20["sum",2,3]"#, "30[5]"),
        (r#"299999999999999999999["echo",{"a":1}]"#, r#"399999999999999999999[{"a":1}]"#),
        (r#"21["none"]"#, "31[]"),
        (r#"22["several"]"#, r#"32[1,"two"]"#),
        (r#"23["sent"]"#, r#"33["once"]"#),
        (r#"24["asked"]"#, r#"2["asked",true,true]"#),
        (r#"2["asked"]"#, r#"2["asked",false,false]"#),
    ] {
        client.say(packet).await;
        assert_eq!(client.hear().await, answer, "{packet}");
    }
    client.say_all(&[r#"2["sum",1,1]"#, r#"2["sent"]"#, r#"2["asked"]"#]).await;
    assert_eq!(client.hear().await, r#"2["asked",false,false]"#);
}

#[tokio::test]
async fn errors_are_told_counted_and_not_acknowledged() {
    let mut server = Server::new(
        watched()
            .on("typed", async |Data(_): Data<u32>| Ack("never"))
            .on("all", async |_: All<(u8, u8)>| Ack("never"))
            .on("fails", async || -> HandlerResult<Ack<u8>> { Err("on purpose".into()) })
            .on("reserved", |socket: Socket| socket.emit("disconnect", ()))
            .on("seen", |data: Result<Data<u32>, ExtractError>| Ack(data.map_or(0, |Data(number)| number))),
    );
    let mut client = server.joined().await;
    let packets =
        [r#"20["typed","x"]"#, r#"21["all",1]"#, r#"22["fails"]"#, r#"23["reserved"]"#, r#"24["unknown"]"#, r#"25["seen","x"]"#];
    client.say_all(&packets).await;
    assert_eq!(client.hear().await, "35[0]");
    assert_eq!(
        server.notes(),
        [
            "a handler failed: the arguments are not of the handler's types",
            "a handler failed: the arguments are not of the handler's types",
            "a handler failed: on purpose",
            "a handler failed: `disconnect` is a reserved event name",
        ]
    );
    assert_eq!(server.metrics().handler_errors.get(), 4);
    assert_eq!(server.metrics().events_received.get(), 6);
}

#[tokio::test]
async fn catch_all_handlers_come_first_then_middlewares_then_the_events_own() {
    fn note(text: &'static str) -> impl Fn(State<Log>, Event) + Send + Sync {
        move |State(log), event| log.note(format!("{text} {} {}", event.name(), event.args().json()))
    }
    let mut server = Server::new(
        watched()
            .on_any(note("any"))
            .on_any(async |State(log): State<Log>| {
                tokio::task::yield_now().await;
                log.note("any 2");
            })
            .event_middleware(async |event: Event| {
                if event.name() == "refused" {
                    return Err(EventError::new("not this one"));
                }
                Ok(())
            })
            .event_middleware(|event: Event| -> Result<Event, EventError> {
                if event.name() == "alias" {
                    Ok(event.with_name("real").with_args("changed").map_err(|_| "no")?)
                } else {
                    Ok(event)
                }
            })
            .on("real", note("on"))
            .on("real", note("on 2"))
            .on("refused", note("on")),
    );
    let client = server.joined().await;
    client.say_all(&[r#"2["alias",1]"#, r#"2["refused"]"#, r#"2["nobody's"]"#]).await;
    for expected in [
        "any alias [1]",
        "any 2",
        r#"on real ["changed"]"#,
        r#"on 2 real ["changed"]"#,
        "any refused []",
        "any 2",
        "not this one",
        "any nobody's []",
        "any 2",
    ] {
        assert_eq!(server.noted().await, expected);
    }
    assert_eq!(server.metrics().handler_errors.get(), 0);
}

#[tokio::test]
async fn outgoing_events_are_seen_per_socket() {
    let mut server = Server::new(Namespace::new("/").on_any_outgoing(|socket, event| {
        socket.io().state::<Log>().expect("given").note(format!("{} {} {}", socket.id(), event.name(), event.args().json()));
    }));
    let (mut one, mut two) = (server.client(), server.client());
    let (first, second) = (one.connect("/").await, two.connect("/").await);
    server.io.emit("both", 1).expect("sent");
    server.io.to(&*first).emit("one", ()).expect("sent");
    server.io.to("nobody").emit("none", ()).expect("sent");
    let socket = &server.io.to(&*second).local_sockets()[0];
    socket.emit("two", "x").expect("sent");
    drop(socket.emit_with_ack("asked", ()));
    let expected = [
        format!("{first} both [1]"),
        format!("{second} both [1]"),
        format!("{first} one []"),
        format!(r#"{second} two ["x"]"#),
        format!("{second} asked []"),
    ];
    assert_eq!(server.notes(), expected);
}

#[tokio::test]
async fn reserved_names_and_values_without_json_are_not_sent() {
    let server = Server::new(Namespace::new("/"));
    let _client = server.joined().await;
    let socket = &server.io.of("/").local_sockets()[0];
    for name in ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"] {
        assert!(matches!(socket.emit(name, ()), Err(EmitError::Reserved(reserved)) if reserved == name));
        assert!(matches!(server.io.emit(name, ()), Err(EmitError::Reserved(_))));
        assert!(server.io.of("/").emit_with_ack(name, ()).await.is_err());
    }
    let unwritable = std::collections::HashMap::from([(vec![1], 2)]);
    assert!(matches!(socket.emit("x", &unwritable), Err(EmitError::Encode(_))));
    assert!(matches!(server.io.emit("x", &unwritable), Err(EmitError::Encode(_))));
}

#[tokio::test]
async fn an_event_that_is_no_packet_is_told_to_every_socket_and_closes_the_session() {
    let mut server = Server::with(|builder| builder.namespace(watched()).namespace(watched_at("/b")));
    let mut client = server.joined().await.join("/b").await;
    client.say(r#"2["disconnect"]"#).await;
    client.end().await;
    assert_eq!(server.notes(), ["invalid payload", "invalid payload", "forced close", "forced close"]);
}

#[tokio::test]
async fn attachments_of_one_packet_are_limited() {
    let mut server = Server::with(|builder| builder.limits(Limits { attachments: 2, ..Limits::default() }).namespace(watched()));
    let mut client = server.joined().await;
    client.say(r#"53-["x"]"#).await;
    client.end().await;
    assert_eq!(server.notes(), ["too many attachments", "forced close"]);
    assert_eq!((server.metrics().limit_attachments.get(), server.metrics().protocol_errors.get()), (1, 1));
}

#[tokio::test]
async fn an_upgrade_is_told_to_every_socket_of_the_session() {
    let note = |socket: &Socket, transport: crate::hub::TransportKind| {
        socket.io().state::<Log>().expect("given").note(format!("{} {}", socket.namespace(), transport.as_str()));
    };
    let mut server = Server::with(|builder| {
        builder.namespace(Namespace::new("/").on_upgrade(note)).namespace(Namespace::new("/b").on_upgrade(note))
    });
    let client = server.joined().await.join("/b").await;
    client.upgrade();
    assert_eq!(server.notes(), ["/ polling", "/b polling"]);
}

#[tokio::test]
async fn data_is_one_value() {
    let server = Server::new(Namespace::new("/"));
    let _client = server.joined().await;
    let socket = &server.io.of("/").local_sockets()[0];
    assert_eq!(socket.data::<serde_json::Value>().expect("an object"), serde_json::json!({}));
    socket.set_data(&("ann", 7)).expect("JSON");
    assert_eq!(socket.data::<(String, u8)>().expect("a pair"), ("ann".to_owned(), 7));
    assert!(socket.data::<u8>().is_err());
    assert!(socket.set_data(&std::collections::HashMap::from([(vec![1], 2)])).is_err());
    assert!(socket.data::<(String, u8)>().is_ok());
}

fn watched() -> Namespace {
    watched_at("/")
}

/// A namespace that notes its errors and disconnects.
fn watched_at(name: &str) -> Namespace {
    Namespace::new(name)
        .on_error(|socket, error| {
            let log = socket.io().state::<Log>().expect("given");
            match error {
                SocketError::Handler(cause) => log.note(format!("{error}: {cause}")),
                _ => log.note(error),
            }
        })
        .on_disconnect(|State(log): State<Log>, reason: crate::hub::DisconnectReason| log.note(reason))
}
