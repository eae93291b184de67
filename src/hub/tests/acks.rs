//! Acknowledgements that we wait for.

use crate::engine::CloseReason;
use crate::hub::testing::{Client, Server};
use crate::hub::{AckError, EmitError, Namespace, Socket};
use crate::protocol::limits::Limits;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_socket_acknowledges() {
    let (_server, mut client, socket) = pair(Limits::default()).await;
    let reply = socket.emit_with_ack("sum", (1, 2));
    assert_eq!(client.hear().await, r#"20["sum",1,2]"#);
    client.say_all(&["37[0]", r#"30[3,"three"]"#, "30[4]"]).await;
    assert_eq!(reply.await.expect("in time").all::<(u8, String)>().expect("two"), (3, "three".to_owned()));
    let reply = socket.emit_with_ack("again", ());
    assert_eq!(client.hear().await, r#"21["again"]"#);
    client.post("461-1[{\"_placeholder\":true,\"num\":0}]\x1ebAQI=").await;
    assert_eq!(reply.await.expect("in time").first::<bytes::Bytes>().expect("bytes"), b"\x01\x02"[..]);
    assert_eq!(socket.pending().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_does_not_come_in_time_is_an_error() {
    let (_server, client, socket) = pair(Limits::default()).await;
    let start = tokio::time::Instant::now();
    let reply = socket.timeout(2 * SECOND).emit_with_ack("x", ());
    tokio::time::advance(SECOND).await;
    let error = reply.await.expect_err("nobody answers");
    assert_eq!((error.to_string().as_str(), start.elapsed()), ("operation has timed out", 2 * SECOND));
    assert_eq!(socket.pending().len(), 0);
    client.say("30[1]").await;
    assert!(client.session.is_open());
}

#[tokio::test]
async fn a_socket_that_goes_owes_nothing() {
    let (_server, client, socket) = pair(Limits::default()).await;
    let (one, two) = (socket.emit_with_ack("x", ()), socket.timeout(SECOND).emit_with_ack("x", ()));
    client.say("1").await;
    assert!(matches!(one.await, Err(AckError::Disconnected)));
    assert!(matches!(two.await, Err(AckError::Disconnected)));
    assert!(matches!(socket.emit_with_ack("x", ()).await, Err(AckError::Disconnected)));
    assert!(matches!(socket.emit_with_ack("connect", ()).await, Err(AckError::Emit(EmitError::Reserved(_)))));
}

#[tokio::test]
async fn the_end_of_a_socket_ends_its_acknowledgements_in_the_order_in_which_they_were_asked_for() {
    let (_server, client, socket) = pair(Limits::default()).await;
    let (ended, mut order) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..20 {
        let (reply, ended) = (socket.emit_with_ack("x", number), ended.clone());
        tokio::spawn(async move {
            assert!(matches!(reply.await, Err(AckError::Disconnected)));
            ended.send(number).expect("the test waits");
        });
    }
    drop(ended);
    // They have to wait before they can be woken.
    tokio::task::yield_now().await;
    client.say("1").await;
    let mut seen = Vec::new();
    while let Some(number) = order.recv().await {
        seen.push(number);
    }
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_is_woken_by_the_end_of_a_socket_may_let_go_of_its_other_acknowledgements() {
    struct Holder(std::sync::Mutex<Option<crate::hub::PendingAck>>);
    impl std::task::Wake for Holder {
        fn wake(self: std::sync::Arc<Self>) {
            drop(self.0.lock().expect("one test").take());
        }
    }
    let (_server, client, socket) = pair(Limits::default()).await;
    let mut one = socket.emit_with_ack("x", ());
    let holder = std::sync::Arc::new(Holder(std::sync::Mutex::new(Some(socket.emit_with_ack("y", ())))));
    let waker = std::task::Waker::from(holder);
    assert!(std::pin::Pin::new(&mut one).poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    client.say("1").await;
    assert!(matches!(one.await, Err(AckError::Disconnected)));
}

#[tokio::test]
async fn pending_acknowledgements_are_limited() {
    let (server, mut client, socket) = pair(Limits { pending_acks: 2, ..Limits::default() }).await;
    let (_one, two) = (socket.emit_with_ack("x", ()), socket.emit_with_ack("x", ()));
    assert!(matches!(socket.emit_with_ack("x", ()).await, Err(AckError::TooMany)));
    assert_eq!(server.io.of("/").emit_with_ack("x", ()).await.expect("encoded").missing, 1);
    assert_eq!(server.metrics().limit_pending_acks.get(), 2);
    drop(two);
    let three = socket.emit_with_ack("x", ());
    for packet in [r#"20["x"]"#, r#"21["x"]"#, r#"23["x"]"#, r#"24["x"]"#] {
        assert_eq!(client.hear().await, packet);
    }
    client.say("34[]").await;
    assert!(three.await.expect("in time").is_empty());
}

#[tokio::test]
async fn a_broadcast_is_acknowledged_by_all_under_one_id() {
    let server = Server::new(Namespace::new("/"));
    let mut clients = [server.joined().await, server.joined().await, server.joined().await];
    let first = server.io.of("/").local_sockets()[0].clone();
    let replies = first.broadcast().timeout(SECOND).emit_with_ack("vote", "?");
    assert_eq!(first.pending().len(), 0);
    for (client, vote) in clients.iter_mut().skip(1).zip(["30[true]", "30[false,1]"]) {
        assert_eq!(client.hear().await, r#"20["vote","?"]"#);
        client.say(vote).await;
    }
    let reply = replies.await.expect("encoded");
    assert!(reply.is_complete());
    let votes: Vec<bool> = reply.replies.iter().map(|(_, vote)| vote.first().expect("a vote")).collect();
    assert_eq!(votes, [true, false]);
    assert_ne!(reply.replies[0].0, reply.replies[1].0);
    let next = server.io.to(first.id()).emit_with_ack("only", ());
    assert_eq!(clients[0].hear().await, r#"21["only"]"#);
    clients[0].say("31[]").await;
    assert_eq!(next.await.expect("encoded").replies.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_counts_who_does_not_acknowledge() {
    let server = Server::new(Namespace::new("/"));
    let mut clients = [server.joined().await, server.joined().await, server.joined().await];
    let start = tokio::time::Instant::now();
    let replies = server.io.timeout(SECOND).emit_with_ack("x", ());
    clients[1].hear().await;
    clients[1].say("30[1]").await;
    clients[2].session.discard(CloseReason::TransportError);
    let reply = replies.await.expect("encoded");
    assert_eq!((reply.replies.len(), reply.missing, start.elapsed()), (1, 2, SECOND));
    for socket in server.io.of("/").local_sockets() {
        assert_eq!(socket.pending().len(), 0);
    }
}

#[tokio::test]
async fn a_broadcast_waits_for_nobody_who_has_gone() {
    let server = Server::new(Namespace::new("/"));
    let clients = [server.joined().await, server.joined().await];
    let replies = server.io.of("/").emit_with_ack("x", ());
    clients[0].say("30[]").await;
    clients[1].say("1").await;
    let reply = replies.await.expect("encoded");
    assert_eq!((reply.replies.len(), reply.missing), (1, 1));
    let nobody = server.io.to("nobody").emit_with_ack("x", ()).await.expect("encoded");
    assert_eq!((nobody.replies.len(), nobody.missing), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_remote_socket_acknowledges() {
    let (server, mut client, _) = pair(Limits::default()).await;
    let [remote] = &server.io.fetch_sockets().await.complete().expect("one node")[..] else { panic!("one socket") };
    let mut reply = Box::pin(remote.emit_with_ack(SECOND, "x", 1));
    assert!(futures_poll(&mut reply).is_none());
    assert_eq!(client.hear().await, r#"20["x",1]"#);
    client.say("30[2]").await;
    assert_eq!(reply.await.expect("in time").first::<u8>().expect("a number"), 2);
    assert!(matches!(remote.emit_with_ack(SECOND, "x", 1).await, Err(AckError::Timeout)));
    client.say("1").await;
    assert!(matches!(remote.emit_with_ack(SECOND, "x", 1).await, Err(AckError::Disconnected)));
}

fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match std::pin::Pin::new(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

async fn pair(limits: Limits) -> (Server, Client, Socket) {
    let server = Server::with(|builder| builder.limits(limits));
    let client = server.joined().await;
    let socket = server.io.of("/").local_sockets()[0].clone();
    (server, client, socket)
}
