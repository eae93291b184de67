//! Who waits for whom.

use crate::hub::testing::{Log, Server};
use crate::hub::{Ack, Data, HandlerResult, Namespace, Socket, State};
use crate::protocol::limits::Limits;
use std::sync::Arc;
use tokio::sync::Semaphore;

#[tokio::test]
async fn events_are_handled_in_the_order_in_which_they_came() {
    let mut server = Server::new(
        Namespace::new("/")
            .on("slow", async |Data(turns): Data<usize>, State(log): State<Log>| {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                log.note(format!("slow {turns}"));
            })
            .on("fast", |State(log): State<Log>| log.note("fast")),
    );
    let client = server.joined().await;
    client
        .say_all(&[r#"2["fast"]"#, r#"2["slow",20]"#, r#"2["fast"]"#, r#"2["slow",3]"#, r#"2["slow",0]"#, r#"2["fast"]"#])
        .await;
    for expected in ["fast", "slow 20", "fast", "slow 3", "slow 0", "fast"] {
        assert_eq!(server.noted().await, expected);
    }
}

#[tokio::test]
async fn a_slow_handler_holds_up_no_other_socket() {
    let server = gated(Limits::default());
    let mut slow = server.joined().await.join("/other").await;
    let mut other = server.joined().await;
    slow.say_all(&[r#"2["wait"]"#, r#"20["ping"]"#]).await;
    other.say(r#"21["ping"]"#).await;
    assert_eq!(other.hear().await, r#"31["pong"]"#);
    slow.say(r#"2/other,2["ping"]"#).await;
    assert_eq!(slow.hear().await, r#"3/other,2["pong"]"#);
    server.io.state::<Arc<Semaphore>>().expect("given").add_permits(1);
    assert_eq!(slow.hear().await, r#"30["pong"]"#);
}

#[tokio::test]
async fn events_wait_for_the_connect_handler() {
    let gate = Arc::new(Semaphore::new(0));
    let server = Server::with(|builder| {
        builder.state(Arc::clone(&gate)).namespace(
            Namespace::new("/")
                .on_connect(async |socket: Socket, State(gate): State<Arc<Semaphore>>| -> HandlerResult {
                    gate.acquire().await?.forget();
                    socket.set_data("ready")?;
                    Ok(())
                })
                .on("data", |socket: Socket| -> HandlerResult<Ack<String>> { Ok(Ack(socket.data()?)) }),
        )
    });
    let mut client = server.joined().await;
    client.say(r#"20["data"]"#).await;
    gate.add_permits(1);
    assert_eq!(client.hear().await, r#"30["ready"]"#);
}

#[tokio::test]
async fn a_handler_may_wait_for_an_acknowledgement_of_its_own_socket() {
    let server = Server::new(Namespace::new("/").on("ask", async |socket: Socket| -> HandlerResult<Ack<String>> {
        Ok(Ack(socket.emit_with_ack("question", ()).await?.first()?))
    }));
    let mut client = server.joined().await;
    client.say_all(&[r#"27["ask"]"#, r#"2["more"]"#]).await;
    assert_eq!(client.hear().await, r#"20["question"]"#);
    client.say(r#"30["answer"]"#).await;
    assert_eq!(client.hear().await, r#"37["answer"]"#);
}

#[tokio::test]
async fn a_handler_that_does_not_wait_gets_no_task() {
    let mut server =
        Server::new(Namespace::new("/").on("here", async |State(log): State<Log>| log.note(tokio::task::try_id().is_none())).on(
            "there",
            async |State(log): State<Log>| {
                tokio::task::yield_now().await;
                log.note(tokio::task::try_id().is_none());
            },
        ));
    let client = server.joined().await;
    client.say_all(&[r#"2["here"]"#, r#"2["there"]"#, r#"2["here"]"#]).await;
    let on_the_sessions_task = [server.noted().await, server.noted().await, server.noted().await];
    assert_eq!(on_the_sessions_task, ["true", "false", "false"]);
    client.say(r#"2["here"]"#).await;
    assert_eq!(server.noted().await, "true");
}

#[tokio::test]
async fn a_session_is_not_read_while_too_much_waits() {
    let server = gated(Limits { pending_events: 4, ..Limits::default() });
    let gate = server.io.state::<Arc<Semaphore>>().expect("given").clone();
    let mut client = server.joined().await;
    let mut other = server.joined().await;
    let events: Vec<String> = (0..20).map(|number| format!(r#"42{number}["wait"]"#)).collect();
    let post = tokio::spawn({
        let session = Arc::clone(&client.session);
        async move { session.begin_post().expect("no other").deliver(events.join("\x1e").into()).await }
    });
    while server.metrics().limit_pending_events.get() == 0 {
        tokio::task::yield_now().await;
    }
    other.say(r#"2["ping"]"#).await;
    // One is being handled, four wait, and the rest has not been read.
    assert_eq!(server.metrics().events_received.get(), 1 + 4 + 1);
    assert!(!post.is_finished());
    gate.add_permits(20);
    for number in 0..20 {
        assert_eq!(client.hear().await, format!("3{number}[]"));
    }
    post.await.expect("delivered");
    other.say(r#"20["ping"]"#).await;
    assert_eq!(other.hear().await, r#"30["pong"]"#);
}

#[tokio::test]
async fn bytes_that_wait_hold_the_session_back_too() {
    let server = gated(Limits { pending_event_bytes: 1000, ..Limits::default() });
    let mut client = server.joined().await;
    let (large, small) = (format!(r#"421["wait","{}"]"#, "x".repeat(1000)), r#"422["wait"]"#.to_owned());
    let post = tokio::spawn({
        let session = Arc::clone(&client.session);
        let payload = [&*small, &large, &small, &small].join("\x1e");
        async move { session.begin_post().expect("no other").deliver(payload.into()).await }
    });
    while server.metrics().limit_pending_events.get() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.metrics().events_received.get(), 2);
    server.io.state::<Arc<Semaphore>>().expect("given").add_permits(4);
    for answer in ["32[]", "31[]", "32[]", "32[]"] {
        assert_eq!(client.hear().await, answer);
    }
    post.await.expect("delivered");
}

#[tokio::test]
async fn a_panic_costs_its_socket_and_nothing_else() {
    for name in ["sync", "async", "later"] {
        let mut server = gated(Limits::default());
        let mut client = server.joined().await.join("/other").await;
        let mut other = server.joined().await;
        let packets = [&*format!(r#"20["panic {name}"]"#), r#"21["ping"]"#, r#"2/other,2["ping"]"#];
        client.say_all(&packets).await;
        let mut heard = [client.hear().await, client.hear().await];
        heard.sort();
        assert_eq!(heard, ["1", r#"3/other,2["pong"]"#], "{name}");
        assert_eq!(server.noted().await, "a handler panicked: on purpose");
        assert_eq!(server.noted().await, "server namespace disconnect");
        other.say(r#"23["ping"]"#).await;
        assert_eq!(other.hear().await, r#"33["pong"]"#);
        client.connect("/").await;
        client.say(r#"24["ping"]"#).await;
        assert_eq!(client.hear().await, r#"34["pong"]"#);
        assert_eq!(server.metrics().handler_panics.get(), 1);
    }
}

#[tokio::test]
async fn what_an_application_drops_may_panic_too() {
    #[derive(Debug)]
    struct Bad;
    impl std::fmt::Display for Bad {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("bad")
        }
    }
    impl std::error::Error for Bad {}
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("dropped on purpose");
        }
    }
    let namespace = Namespace::new("/")
        .on("now", || Err::<(), _>(Bad))
        .on("later", async || {
            tokio::task::yield_now().await;
            Err::<(), _>(Bad)
        })
        .on_disconnect(|State(log): State<Log>, reason: crate::hub::DisconnectReason| log.note(reason));
    let mut server = Server::new(namespace);
    for name in ["now", "later"] {
        let mut client = server.joined().await;
        client.say(&format!(r#"2["{name}"]"#)).await;
        assert_eq!(client.hear().await, "1", "{name}");
        assert_eq!(server.noted().await, "server namespace disconnect");
    }
    assert_eq!(server.metrics().handler_panics.get(), 2);
}

/// `wait` waits for the gate, `ping` answers at once, three events panic; in `/` and `/other`.
fn gated(limits: Limits) -> Server {
    fn explode() {
        panic!("on purpose")
    }
    let namespace = |name: &str| {
        Namespace::new(name)
            .on("wait", async |State(gate): State<Arc<Semaphore>>| -> HandlerResult<Ack<()>> {
                gate.acquire().await?.forget();
                Ok(Ack(()))
            })
            .on("ping", || Ack("pong"))
            .on("panic sync", explode)
            .on("panic async", async || explode())
            .on("panic later", async || {
                tokio::task::yield_now().await;
                explode();
            })
            .on_error(|socket, error| socket.io().state::<Log>().expect("given").note(error))
            .on_disconnect(|State(log): State<Log>, reason: crate::hub::DisconnectReason| log.note(reason))
    };
    let gate = Arc::new(Semaphore::new(0));
    Server::with(|builder| builder.limits(limits).state(gate).namespace(namespace("/")).namespace(namespace("/other")))
}
