//! What an adapter is told and asked, and what becomes of its answers.

use crate::hub::testing::Server;
use crate::hub::{
    Action, Adapter, AdapterError, Args, Asked, ClusterReply, EmitError, Flags, Missing, Namespace, RemoteAck, Room, SocketId,
    Target,
};
use crate::metrics::Metrics;
use crate::protocol::sid::Node;
use bytestring::ByteString;
use serde_json::value::RawValue;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

#[tokio::test]
async fn what_is_done_here_is_told_elsewhere_unless_it_is_local() {
    let (others, server) = cluster();
    server.io.to("a").except("b").emit("x", 1).expect("sent");
    server.io.local().emit("x", 1).expect("sent");
    server.io.of("/elsewhere").sockets_join(["c", "d"]);
    server.io.of("/").local().sockets_join("c");
    server.io.to("a").sockets_leave("c");
    server.io.of("/").disconnect_sockets(true);
    server.io.of("/").server_side_emit("y", ()).expect("sent");
    assert!(matches!(server.io.of("/").server_side_emit("connection", ()), Err(EmitError::Reserved(_))));
    assert_eq!(
        others.said(),
        [
            "opened /",
            r#"/: emit x [1] to ["a"] but ["b"]"#,
            r#"/elsewhere: join ["c", "d"] of []"#,
            r#"/: leave ["c"] of ["a"]"#,
            "/: disconnect [] true",
            "/: server y []",
        ]
    );
}

#[tokio::test]
async fn namespaces_are_told_as_they_come_and_go() {
    let others = Arc::new(Others::default());
    let tenants = Namespace::matching(regex::Regex::new("^/t-").expect("a pattern")).label("tenants");
    let server = Server::with(|builder| builder.adapter(others.clone()).namespace(tenants));
    server.io.add(Namespace::new("/b")).expect("new");
    assert!(server.io.open("/t-1") && server.io.open("/t-2"));
    server.io.children("tenants").emit("x", ()).expect("sent");
    assert_eq!(
        others.said(),
        ["opened /", "opened /b", "opened /t-1", "opened /t-2", "/t-1: emit x [] to [] but []", "/t-2: emit x [] to [] but []"]
    );
}

#[tokio::test]
async fn what_comes_from_elsewhere_is_read_when_somebody_here_is_meant_and_then_once() {
    let (_, server) = cluster();
    let mut client = server.joined().await;
    server.io.of("/").sockets_join("here");
    let in_room = |room: &str| Target { rooms: vec![Room::from(room)], except: Vec::new() };
    let times_read = AtomicUsize::new(0);
    let hear = |target: &Target| {
        server.io.deliver("/", target, &Flags::default(), || {
            times_read.fetch_add(1, Relaxed);
            Some(("x".into(), Args::none()))
        });
    };
    hear(&in_room("elsewhere"));
    hear(&Target { except: vec!["here".into()], ..Target::default() });
    assert_eq!(times_read.load(Relaxed), 0);
    let _other = server.joined().await;
    hear(&Target::default());
    assert_eq!((client.hear().await, times_read.load(Relaxed)), (r#"2["x"]"#.to_owned(), 1));
}

#[tokio::test]
async fn those_elsewhere_are_known_and_who_is_missing_is_named() {
    let (others, server) = cluster();
    let _client = server.joined().await;
    let reply = server.io.fetch_sockets().await;
    // One that cannot be read.
    assert_eq!(others.metrics.cluster_skipped.get(), 1);
    let ids: Vec<_> = reply.value.iter().map(|socket| socket.id().as_str()).collect();
    let here = server.io.of("/").local_sockets()[0].id().clone();
    assert_eq!(ids, [here.as_str(), "far"]);
    let far = &reply.value[1];
    let handshake = far.handshake();
    assert_eq!((handshake.header("x-a"), handshake.query("q"), handshake.address()), (Some("b"), Some("1"), "10.0.0.1"));
    assert_eq!((far.rooms().len(), far.data::<u8>().expect("a number")), (2, 7));
    assert_eq!((reply.answered, &reply.missing), (1, &missing()));
    let error = AdapterError::Timeout { received: 1, expected: 4 };
    assert_eq!(reply.complete().err(), Some(error));
    assert_eq!(server.io.fetch_sockets().await.value.len(), 2);
    assert_eq!(server.io.local().fetch_sockets().await.complete().expect("nobody else is asked").len(), 1);
    assert_eq!(server.io.of("/").server_count().await, Ok(5));
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_come_from_here_and_from_elsewhere() {
    let (_, server) = cluster();
    let client = server.joined().await;
    let (replies, start) = (server.io.timeout(Duration::from_secs(9)).emit_with_ack("x", ()), Instant::now());
    client.say("30[1]").await;
    let reply = replies.await.expect("encoded");
    let mut values: Vec<u8> = reply.replies.iter().map(|(_, args)| args.first().expect("a number")).collect();
    values.sort_unstable();
    // Two of three elsewhere have answered, one of them without a name.
    assert_eq!((values, reply.missing, &reply.missing_nodes), (vec![1, 2, 3], 1, &missing()));
    assert_eq!(reply.replies.iter().filter(|(id, _)| id.is_none()).count(), 1);
    assert!(!reply.is_complete());
    // As long as the others take.
    assert_eq!(start.elapsed(), Duration::from_secs(3));
}

fn cluster() -> (Arc<Others>, Server) {
    let others = Arc::new(Others::default());
    let server = Server::with(|builder| builder.adapter(others.clone()));
    (others, server)
}

/// Node 3 and two of Node's never answer.
fn missing() -> Missing {
    Missing { nodes: vec![Node::try_from(3).expect("a node")], others: 2, is_away: false }
}

/// The other nodes, which write down what they hear.
#[derive(Debug, Default)]
struct Others {
    metrics: Arc<Metrics>,
    said: Mutex<Vec<String>>,
}

impl Others {
    fn note(&self, what: String) {
        self.said.lock().expect("one test").push(what);
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().expect("one test").clone()
    }
}

impl Adapter for Others {
    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn opened(&self, namespace: &ByteString) {
        self.note(format!("opened {namespace}"));
    }

    fn closed(&self, namespace: &ByteString) {
        self.note(format!("closed {namespace}"));
    }

    fn tell(&self, namespace: &ByteString, action: Action<'_>) {
        let names = |rooms: &[Room]| format!("{:?}", rooms.iter().map(Room::as_str).collect::<Vec<_>>());
        let what = match action {
            Action::Emit { target, event, args, .. } => {
                format!("emit {event} {} to {} but {}", args.json(), names(&target.rooms), names(&target.except))
            }
            Action::Join { target, rooms } => format!("join {} of {}", names(rooms), names(&target.rooms)),
            Action::Leave { target, rooms } => format!("leave {} of {}", names(rooms), names(&target.rooms)),
            Action::Disconnect { target, close } => format!("disconnect {} {close}", names(&target.rooms)),
            Action::ServerSideEmit { event, args } => format!("server {event} {}", args.json()),
        };
        self.note(format!("{namespace}: {what}"));
    }

    fn fetch(self: Arc<Self>, _: &ByteString, _: &Target) -> Asked<ClusterReply<Vec<Box<RawValue>>>> {
        let far = r#"{"id":"far","handshake":{"headers":{"x-a":"b"},"address":"10.0.0.1","query":{"q":"1"},"issued":5},"rooms":["far","r"],"data":7}"#;
        let value = [far, "5"].map(|json| RawValue::from_string(json.to_owned()).expect("JSON")).into();
        Box::pin(async { ClusterReply { value, answered: 1, missing: missing() } })
    }

    fn rooms(self: Arc<Self>, _: &ByteString) -> Asked<ClusterReply<Vec<Room>>> {
        Box::pin(async { ClusterReply::of(Vec::new()) })
    }

    fn server_count(self: Arc<Self>, _: &ByteString) -> Asked<Result<usize, AdapterError>> {
        Box::pin(async { Ok(5) })
    }

    fn emit_with_ack(
        self: Arc<Self>,
        _: &ByteString,
        _: &Target,
        _: &Flags,
        _: &str,
        _: &Args,
        acks: UnboundedSender<RemoteAck>,
    ) -> Asked<()> {
        Box::pin(async move {
            let args = |number: u8| Args::new(&number).expect("JSON");
            for ack in
                [RemoteAck::Asked(3), RemoteAck::Came(Some(SocketId::from("far")), args(2)), RemoteAck::Came(None, args(3))]
            {
                acks.send(ack).expect("somebody waits");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            acks.send(RemoteAck::Missing(missing())).expect("somebody waits");
        })
    }

    fn server_side_emit_with_ack(self: Arc<Self>, _: &ByteString, _: &str, _: &Args) -> Asked<ClusterReply<Vec<Args>>> {
        Box::pin(async { ClusterReply::of(Vec::new()) })
    }
}
