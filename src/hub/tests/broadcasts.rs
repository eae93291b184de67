//! Whom broadcasts reach, and what is done with many sockets.

use crate::hub::testing::{Client, Log, Server};
use crate::hub::{DisconnectReason, JoinError, Namespace, Room, RoomEvent, Socket, State};
use crate::protocol::limits::Limits;
use serde_json::{Value, json};

#[tokio::test]
async fn a_broadcast_reaches_whom_it_names() {
    let mut house = House::new().await;
    let socket = house.sockets[0].clone();
    let io = house.server.io.clone();
    for (broadcast, reached) in [
        (io.of("/"), "abc"),
        (io.to("odd"), "ac"),
        (io.in_("odd"), "ac"),
        (io.to("odd").to("all"), "abc"),
        (io.to(["odd", "even"]), "abc"),
        (io.to(["odd", "even"]).except("even"), "ac"),
        (io.except(["even"]), "ac"),
        (io.local(), "abc"),
        (io.to("nobody"), ""),
        (io.of("/elsewhere"), ""),
        (socket.nsp().to("all"), "abc"),
        (io.to(socket.id()), "a"),
        (socket.broadcast(), "bc"),
        (socket.to("odd"), "c"),
        (socket.in_("odd"), "c"),
        (socket.except("even"), "c"),
        (socket.compress(false).to("all").except("even"), "c"),
        (socket.timeout(std::time::Duration::ZERO).broadcast(), "bc"),
    ] {
        broadcast.emit("x", ()).expect("sent");
        assert_eq!(house.heard().await, reached, "{broadcast:?}");
    }
}

#[tokio::test]
async fn volatile_events_are_lost_where_something_would_have_to_wait() {
    let server = Server::new(Namespace::new("/"));
    let mut client = server.joined().await;
    let socket = server.io.of("/").local_sockets()[0].clone();
    // No GET is waiting.
    socket.volatile().emit("lost", ()).expect("no error");
    server.io.volatile().emit("lost", ()).expect("no error");
    socket.volatile().broadcast().emit("lost", ()).expect("no error");
    assert_eq!(server.metrics().volatile_dropped.get(), 2);
    let (heard, ()) = tokio::join!(client.hear(), async {
        tokio::task::yield_now().await;
        socket.volatile().emit("heard", ()).expect("sent");
    });
    assert_eq!(heard, r#"2["heard"]"#);
    client.say("1").await;
    socket.volatile().emit("lost", ()).expect("no error, though it has gone");
}

#[tokio::test]
async fn compression_is_said_of_each_packet() {
    let server = Server::new(Namespace::new("/"));
    let _client = server.joined().await;
    let _other = server.joined().await;
    let [socket, other] = &server.io.of("/").local_sockets()[..] else { panic!("two sockets") };
    socket.compress(false).broadcast().emit("x", ()).expect("sent");
    assert!(!other.session().poll().await.expect("no other GET").compressible);
    for (is_compressible, send) in [
        (true, Box::new(|socket: &Socket| socket.emit("x", ())) as Box<dyn Fn(&Socket) -> Result<(), crate::hub::EmitError>>),
        (false, Box::new(|socket| socket.compress(false).emit("x", ()))),
        (true, Box::new(|socket| socket.compress(false).compress(true).emit("x", ()))),
        (false, Box::new(|socket| socket.io().of("/").compress(false).emit("x", bytes::Bytes::from_static(b"1")))),
    ] {
        send(socket).expect("sent");
        assert_eq!(socket.session().poll().await.expect("no other GET").compressible, is_compressible);
    }
}

#[tokio::test]
async fn sockets_join_and_leave_from_afar() {
    let house = House::new().await;
    let io = &house.server.io;
    io.to("odd").sockets_join(["late", "later"]);
    assert_eq!(house.names(&io.to("late").local_sockets()), "ac");
    io.except(house.sockets[2].id()).sockets_leave("late");
    assert_eq!(house.names(&io.to("late").local_sockets()), "c");
    assert_eq!(house.names(&io.to("later").local_sockets()), "ac");
    let own = Room::from(house.sockets[0].id());
    assert_eq!(house.sockets[0].rooms(), [own, Room::from("all"), Room::from("odd"), Room::from("later")]);
}

#[tokio::test]
async fn sockets_are_fetched_with_all_that_is_known_of_them() {
    let house = House::new().await;
    house.sockets[2].set_data(&json!({ "name": "c" })).expect("JSON");
    let fetched = house.server.io.to("odd").fetch_sockets().await.complete().expect("one node");
    let seen: Value = serde_json::to_value(&fetched).expect("JSON");
    for (at, socket) in [(0, &house.sockets[0]), (1, &house.sockets[2])] {
        assert_eq!(seen[at]["id"], socket.id().as_str());
        assert_eq!(seen[at]["rooms"], json!([socket.id(), "all", "odd"]));
        assert_eq!(seen[at]["handshake"]["address"], "192.0.2.1");
        assert_eq!(seen[at].as_object().expect("an object").len(), 4);
    }
    assert_eq!((&seen[0]["data"], &seen[1]["data"]), (&json!({}), &json!({ "name": "c" })));
    fetched[0].join("special");
    fetched[1].leave("odd");
    fetched[1].leave("nothing");
    assert_eq!(house.names(&house.server.io.to("special").local_sockets()), "a");
    assert_eq!(house.names(&house.server.io.to("odd").local_sockets()), "a");
    assert_eq!(fetched[1].data::<Value>().expect("an object")["name"], "c");
    assert_eq!(house.server.io.of("/").server_count().await, Ok(1));
}

#[tokio::test]
async fn rooms_are_known_as_long_as_somebody_is_in_them() {
    let house = House::new().await;
    let rooms = house.server.io.of("/").all_rooms().await.complete().expect("one node");
    assert_eq!(rooms.len(), 3 + 3);
    house.sockets[1].leave("even");
    house.sockets[1].leave_all();
    assert!(house.sockets[1].rooms().is_empty());
    let rooms = house.server.io.of("/").all_rooms().await.complete().expect("one node");
    assert!(rooms.len() == 4 && rooms.contains("odd") && !rooms.contains("even"));
}

#[tokio::test]
async fn sockets_are_sent_away_from_afar() {
    let mut house = House::new().await;
    house.server.io.to("odd").disconnect_sockets(false);
    assert_eq!((house.clients[0].hear().await, house.clients[2].hear().await), ("1".to_owned(), "1".to_owned()));
    assert_eq!(house.names(&house.server.io.of("/").local_sockets()), "b");
    assert!(house.clients[0].session.is_open());
    house.server.io.of("/").disconnect_sockets(true);
    assert_eq!(house.clients[1].hear().await, "1");
    house.clients[1].end().await;
    for _ in 0..3 {
        assert_eq!(house.server.noted().await, "server namespace disconnect");
    }
}

#[tokio::test]
async fn rooms_of_one_socket_are_limited() {
    let limits = Limits { rooms_per_socket: 3, ..Limits::default() };
    let server = Server::with(|builder| builder.limits(limits));
    let _client = server.joined().await;
    let socket = server.io.of("/").local_sockets()[0].clone();
    assert_eq!(socket.join(["a", "b", "c"]), Err(JoinError::TooManyRooms));
    assert_eq!(socket.rooms().len(), 1);
    assert_eq!(socket.join(["a", "b", "a"]), Ok(()));
    assert_eq!(socket.join("b"), Ok(()));
    assert_eq!(socket.join("c"), Err(JoinError::TooManyRooms));
    server.io.of("/").sockets_join("c");
    assert_eq!(socket.rooms().len(), 3);
    assert!(!server.io.of("/").all_rooms().await.complete().expect("one node").contains("c"));
    assert_eq!(server.metrics().limit_rooms.get(), 3);
}

#[tokio::test]
async fn names_of_rooms_that_panic_leave_the_namespace_as_it_was() {
    struct Bad;
    impl From<Bad> for Room {
        fn from(_: Bad) -> Self {
            panic!("on purpose")
        }
    }
    let server = Server::new(Namespace::new("/").on("join", |socket: Socket| socket.join(vec![Bad])));
    let mut bad = server.joined().await;
    let mut other = server.joined().await;
    bad.say(r#"2["join"]"#).await;
    assert_eq!(bad.hear().await, "1");
    server.io.emit("still", "here").expect("sent");
    assert_eq!(other.hear().await, r#"2["still","here"]"#);
}

#[tokio::test]
async fn hooks_without_a_socket_that_panic_are_counted_and_cost_nothing() {
    let server = Server::with(|builder| {
        let tenants =
            Namespace::matching(crate::hub::Regex::new("^/t$").expect("a pattern")).on_room(|_, _| panic!("on purpose"));
        builder.namespace(tenants).on_new_namespace(|_| panic!("on purpose"))
    });
    let _client = server.joined().await.join("/t").await;
    // The namespace, its room, and who is in it.
    assert_eq!(server.metrics().handler_panics.get(), 3);
}

#[tokio::test]
async fn what_happens_to_rooms_is_told() {
    let mut server = Server::with(|builder| {
        let log = std::sync::Arc::new(std::sync::Mutex::new(None::<Log>));
        builder.namespace(
            Namespace::new("/")
                .on_connect({
                    let log = std::sync::Arc::clone(&log);
                    move |State(own): State<Log>| *log.lock().expect("one test") = Some(own)
                })
                .on_room(move |namespace, event| {
                    assert_eq!(namespace, "/");
                    if let Some(log) = &*log.lock().expect("one test") {
                        log.note(match event {
                            RoomEvent::Created(room) => format!("create {room}"),
                            RoomEvent::Joined(room, _) => format!("join {room}"),
                            RoomEvent::Left(room, _) => format!("leave {room}"),
                            RoomEvent::Deleted(room) => format!("delete {room}"),
                        });
                    }
                }),
        )
    });
    let mut client = server.client();
    let id = client.connect("/").await;
    let other = server.joined().await;
    let sockets = server.io.of("/").local_sockets();
    server.notes();
    sockets[0].join(["a", "b"]).expect("few");
    sockets[1].join(["a"]).expect("few");
    sockets[0].join("a").expect("few");
    sockets[0].leave("a");
    sockets[0].leave("a");
    client.say("1").await;
    assert_eq!(
        server.notes(),
        [
            "create a",
            "join a",
            "create b",
            "join b",
            "join a",
            "leave a",
            &*format!("leave {id}"),
            &*format!("delete {id}"),
            "leave b",
            "delete b"
        ]
    );
    assert_eq!(server.metrics().rooms.get(), 2, "`a`, and the other's own");
    drop(other);
}

/// Three clients of `/`, all in `all`, `a` and `c` in `odd`, `b` in `even`.
struct House {
    server: Server,
    clients: Vec<Client>,
    sockets: Vec<Socket>,
}

impl House {
    async fn new() -> Self {
        let server =
            Server::new(Namespace::new("/").on_disconnect(|State(log): State<Log>, reason: DisconnectReason| log.note(reason)));
        let clients = vec![server.joined().await, server.joined().await, server.joined().await];
        let sockets = server.io.of("/").local_sockets();
        for (socket, room) in sockets.iter().zip(["odd", "even", "odd"]) {
            socket.join(["all", room]).expect("few rooms");
        }
        Self { server, clients, sockets }
    }

    /// Who heard `x`, found out by what they hear after it.
    async fn heard(&mut self) -> String {
        self.server.io.emit("mark", ()).expect("sent");
        let mut names = String::new();
        for (client, name) in self.clients.iter_mut().zip('a'..) {
            let mut packet = client.hear().await;
            while packet != r#"2["mark"]"# {
                assert_eq!(packet, r#"2["x"]"#);
                names.push(name);
                packet = client.hear().await;
            }
        }
        names
    }

    fn names(&self, sockets: &[Socket]) -> String {
        self.sockets.iter().zip('a'..).filter(|(socket, _)| sockets.contains(socket)).map(|(_, name)| name).collect()
    }
}
