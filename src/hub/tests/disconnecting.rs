//! How sockets go, and what is said of it.

use crate::engine::CloseReason;
use crate::hub::testing::{Log, Server};
use crate::hub::{
    Ack, AckError, ConnectError, Data, DisconnectReason, EmitError, HandlerResult, JoinError, Namespace, Options, Regex, Room,
    Socket, State,
};
use std::sync::Arc;
use tokio::sync::Semaphore;

// Paused, because a session that is closed waits for the GET that takes its last words.
#[tokio::test(start_paused = true)]
async fn every_way_to_go_has_the_references_reason() {
    for (way, reason, stays) in [
        ("1", "client namespace disconnect", true),
        ("disconnect", "server namespace disconnect", true),
        ("disconnect and close", "server namespace disconnect", false),
        ("close the session", "forced close", false),
        (r#"2{"no":"list"}"#, "forced close", false),
        ("0", "forced server close", false),
        (r#"2/nope,["x"]"#, "forced server close", false),
        ("close the server", "server shutting down", false),
        ("leave", "transport close", false),
        ("break", "transport error", false),
        ("no packet", "parse error", false),
    ] {
        let mut server = watched();
        let client = server.joined().await;
        match way {
            "disconnect" => socket(&server).disconnect(false),
            "disconnect and close" => socket(&server).disconnect(true),
            "close the session" => socket(&server).session().close(CloseReason::ForcedClose),
            "close the server" => server.io.close(),
            "leave" => client.post("1").await,
            "break" => client.session.discard(CloseReason::TransportError),
            "no packet" => client.post("x").await,
            packet => client.say(packet).await,
        }
        assert_eq!(server.noted().await, format!("disconnecting: {reason}, 1 rooms"));
        assert_eq!(server.noted().await, format!("disconnect: {reason}, 0 rooms"));
        assert_eq!(client.session.is_open(), stays, "{reason}");
        assert_eq!((server.metrics().sockets.get(), server.io.of("/").local_sockets().len()), (0, 0), "{reason}");
    }
}

#[tokio::test]
async fn disconnect_with_close_ends_every_namespace_of_the_client() {
    let mut server = watched();
    let mut client = server.joined().await.join("/b").await;
    socket(&server).disconnect(true);
    assert_eq!((client.hear().await, client.hear().await), ("1".to_owned(), "1/b,".to_owned()));
    client.end().await;
    for _ in 0..2 {
        assert_eq!(server.noted().await, "disconnecting: server namespace disconnect, 1 rooms");
        assert_eq!(server.noted().await, "disconnect: server namespace disconnect, 0 rooms");
    }
    assert_eq!(server.notes(), [""; 0]);
}

#[tokio::test]
async fn what_came_before_the_end_is_still_handled() {
    let mut server = watched();
    let client = server.joined().await;
    client.say_all(&[r#"2["wait"]"#, r#"2["note"]"#, "1"]).await;
    assert!(server.io.of("/").local_sockets().is_empty());
    assert!(server.io.fetch_sockets().await.complete().expect("one node").is_empty());
    open(&server, 1);
    for expected in [
        "waited",
        "noted",
        "disconnecting: client namespace disconnect, 1 rooms",
        "disconnect: client namespace disconnect, 0 rooms",
    ] {
        assert_eq!(server.noted().await, expected);
    }
}

#[tokio::test]
async fn what_waited_when_the_server_sent_the_client_away_is_dropped() {
    let mut server = watched();
    let mut client = server.joined().await;
    client.say_all(&[r#"2["wait"]"#, r#"2["note"]"#]).await;
    socket(&server).disconnect(false);
    client.say_all(&[r#"2["note"]"#, "30[]"]).await;
    open(&server, 1);
    for expected in
        ["waited", "disconnecting: server namespace disconnect, 1 rooms", "disconnect: server namespace disconnect, 0 rooms"]
    {
        assert_eq!(server.noted().await, expected);
    }
    assert_eq!(client.hear().await, "1");
    client.connect("/").await;
    client.say(r#"2["note"]"#).await;
    assert_eq!(server.noted().await, "noted");
}

#[tokio::test]
async fn a_handler_may_send_its_own_client_away() {
    let mut server = Server::new(
        Namespace::new("/")
            .on("bye", |socket: Socket| {
                socket.disconnect(false);
                socket.disconnect(false);
                socket.disconnect(true);
            })
            .on_disconnect(|State(log): State<Log>, reason: DisconnectReason| log.note(reason)),
    );
    let mut client = server.joined().await;
    client.say_all(&[r#"2["bye"]"#, r#"2["bye"]"#]).await;
    assert_eq!(client.hear().await, "1");
    assert_eq!(server.noted().await, "server namespace disconnect");
    assert!(client.session.is_open());
    client.connect("/").await;
    assert_eq!(server.notes(), [""; 0]);
}

#[tokio::test]
async fn disconnect_handlers_run_free_of_what_their_caller_holds() {
    let held = Arc::new(std::sync::Mutex::new(0_u32));
    let mut server = Server::with(|builder| {
        builder.state(Arc::clone(&held)).namespace(Namespace::new("/").on_disconnect(
            |State(held): State<Arc<std::sync::Mutex<u32>>>, State(log): State<Log>| {
                *held.lock().expect("one test") += 1;
                log.note("counted");
            },
        ))
    });
    let _client = server.joined().await;
    {
        let _held = held.lock().expect("one test");
        server.io.of("/").disconnect_sockets(false);
    }
    assert_eq!(server.noted().await, "counted");
}

#[tokio::test]
async fn a_socket_that_has_gone_says_so() {
    let server = watched();
    let client = server.joined().await;
    let socket = socket(&server);
    assert!(socket.is_connected());
    client.say("1").await;
    assert!(!socket.is_connected());
    assert!(matches!(socket.emit("x", ()), Err(EmitError::Disconnected)));
    assert!(matches!(socket.emit_with_ack("x", ()).await, Err(AckError::Disconnected)));
    assert_eq!(socket.join("room"), Err(JoinError::Disconnected));
    socket.leave_all();
    socket.disconnect(true);
    assert!(client.session.is_open());
    assert_eq!(socket.rooms(), [] as [Room; 0]);
}

#[tokio::test]
async fn closing_the_server_lets_clients_come_back() {
    let mut server = watched();
    let mut client = server.joined().await.join("/b").await;
    server.io.close();
    client.end().await;
    for _ in 0..2 {
        assert_eq!(server.noted().await, "disconnecting: server shutting down, 1 rooms");
        assert_eq!(server.noted().await, "disconnect: server shutting down, 0 rooms");
    }
    assert!(client.hear().await.starts_with("engine "), "no packet that keeps clients away");
}

#[tokio::test]
async fn a_handler_that_panics_on_the_way_out_stops_nothing() {
    fn explode() {
        panic!("on purpose")
    }
    let mut server = Server::new(
        Namespace::new("/")
            .on_disconnecting(explode)
            .on_disconnect(async || explode())
            .on_disconnect(|socket: Socket, State(log): State<Log>| log.note(socket.rooms().len())),
    );
    let client = server.joined().await;
    client.say("1").await;
    assert_eq!(server.noted().await, "0");
    assert_eq!(server.metrics().handler_panics.get(), 2);
    assert!(client.session.is_open());
}

#[tokio::test]
async fn a_client_that_left_may_come_back_at_once() {
    let server = watched();
    let client = server.joined().await;
    let old = socket(&server);
    client.say_all(&["1", "0"]).await;
    let new = socket(&server);
    assert_ne!(old.id(), new.id());
    old.disconnect(false);
    assert!(new.is_connected());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_when_everybody_has_gone() {
    let options = Options { cleanup_empty_child_namespaces: true, ..Options::default() };
    let server = Server::with(|builder| {
        builder.options(options).namespace(
            Namespace::matching(Regex::new("^/").expect("a pattern"))
                .middleware(async |socket: Socket| socket.join(["early"]).map_err(|error| ConnectError::new(error.to_string())))
                .on("mix", async |socket: Socket, Data(turn): Data<usize>| -> HandlerResult<Ack<()>> {
                    let rooms = ["a", "b", "c"];
                    socket.join([rooms[turn % 3], rooms[(turn + 1) % 3]])?;
                    socket.nsp().to(rooms[turn % 3]).except(rooms[(turn + 2) % 3]).emit("noise", turn)?;
                    drop(socket.nsp().emit_with_ack("asked", ()));
                    if turn.is_multiple_of(2) {
                        tokio::task::yield_now().await;
                    }
                    socket.nsp().to("b").sockets_leave(rooms[(turn + 1) % 3]);
                    if turn.is_multiple_of(7) {
                        socket.nsp().to("c").disconnect_sockets(turn.is_multiple_of(2));
                    }
                    socket.leave_all();
                    Ok(Ack(()))
                }),
        )
    });
    let clients: Vec<_> = (0..60).map(|_| server.client()).collect();
    let sessions: Vec<_> = clients.iter().map(|client| Arc::downgrade(&client.session)).collect();
    let tasks = clients.into_iter().enumerate().map(|(number, client)| {
        tokio::spawn(async move {
            let name = ["/x", "/y"][number % 2];
            for turn in 0..20 {
                // A session that was closed meanwhile takes no POST.
                let Ok(post) = client.session.begin_post() else { return };
                let turn = number + turn;
                post.deliver(format!("40{name},\x1e42{name},{turn}[\"mix\",{turn}]\x1e41{name},").into()).await;
                tokio::task::yield_now().await;
            }
            client.session.discard(CloseReason::TransportClose);
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    while sessions.iter().any(|session| session.strong_count() > 0) || server.io.has("/x") || server.io.has("/y") {
        tokio::task::yield_now().await;
    }
    let metrics = server.metrics();
    assert_eq!((metrics.sockets.get(), metrics.rooms.get(), metrics.handler_panics.get()), (0, 0, 0));
    assert!(metrics.events_received.get() > 0);
}

/// Notes what happens in `/` and `/b`; `wait` waits for the gate.
fn watched() -> Server {
    fn note(text: &'static str) -> impl Fn(Socket, DisconnectReason, State<Log>) + Send + Sync {
        move |socket, reason, State(log)| log.note(format!("{text}: {reason}, {} rooms", socket.rooms().len()))
    }
    let namespace = |name: &str| {
        Namespace::new(name)
            .on("wait", async |State(gate): State<Arc<Semaphore>>, State(log): State<Log>| -> HandlerResult {
                gate.acquire().await?.forget();
                log.note("waited");
                Ok(())
            })
            .on("note", |State(log): State<Log>| {
                log.note("noted");
                Ack(())
            })
            .on_disconnecting(note("disconnecting"))
            .on_disconnect(note("disconnect"))
    };
    let gate = Arc::new(Semaphore::new(0));
    Server::with(|builder| builder.state(gate).namespace(namespace("/")).namespace(namespace("/b")))
}

fn open(server: &Server, permits: usize) {
    server.io.state::<Arc<Semaphore>>().expect("given").add_permits(permits);
}

fn socket(server: &Server) -> Socket {
    server.io.of("/").local_sockets().pop().expect("one socket")
}
