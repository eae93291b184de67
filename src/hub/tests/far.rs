//! How clients come back on another node, and in which order all hear what a cluster has recorded.

use crate::engine::CloseReason;
use crate::hub::testing::{Client, Server};
use crate::hub::{
    Ack, Action, Adapter, AdapterError, Archive, ArchivedEvent, ArchivedSession, Args, Asked, ClusterReply, Data, Flags,
    HandlerResult, Namespace, Offset, Options, Recovered, RemoteAck, Room, SessionSource, Socket, Target,
};
use crate::metrics::Metrics;
use crate::protocol::sid::Pid;
use bytestring::ByteString;
use serde_json::Value;
use serde_json::value::RawValue;
use smol_str::SmolStr;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

#[tokio::test]
async fn an_event_is_heard_in_its_turn_and_at_once_when_the_cluster_is_away() {
    let (tape, server) = node(&Arc::default(), Namespace::new("/"));
    let (mut client, _) = come(&server, "").await;
    let socket = server.io.of("/").local_sockets().remove(0);
    server.io.emit("all", 1).expect("sent");
    socket.emit("one", ()).expect("sent");
    let _ack = socket.emit_with_ack("ask", ());
    socket.disconnect(false);
    assert!(socket.is_connected());
    tape.play(&server);
    for expected in [r#"2["all",1,"1-0"]"#, r#"2["one","2-0"]"#, r#"20["ask"]"#, "1"] {
        assert_eq!(client.hear().await, expected);
    }

    let (mut client, _) = come(&server, "").await;
    tape.is_away.store(true, Relaxed);
    server.io.emit("directly", ()).expect("sent");
    // It names the last that has a place.
    assert_eq!(client.hear().await, r#"2["directly","2-0"]"#);
    server.io.local().emit("here", ()).expect("sent");
    assert_eq!(client.hear().await, r#"2["here","2-0"]"#);
    server.io.of("/").disconnect_sockets(false);
    assert_eq!(client.hear().await, "1");
}

#[tokio::test]
async fn an_acknowledgement_leaves_when_what_was_said_before_is_safe() {
    let say = |socket: Socket, Data(what): Data<String>| socket.io().emit("said", what).map(Ack);
    let (tape, server) = node(&Arc::default(), Namespace::new("/").on("say", say));
    let (mut client, _) = come(&server, "").await;
    client.say(r#"27["say","tea?"]"#).await;
    while tape.cluster.recorded.lock().expect("one thread").is_empty() {
        tokio::task::yield_now().await;
    }
    tape.play(&server);
    for expected in [r#"2["said","tea?","1-0"]"#, "37[]"] {
        assert_eq!(client.hear().await, expected);
    }
}

#[tokio::test]
async fn who_comes_back_on_another_node_is_who_it_was_and_hears_what_it_missed_once() {
    let cluster = Arc::default();
    let begin = async |socket: Socket| -> HandlerResult {
        if !socket.recovered() {
            socket.join("red")?;
            socket.set_data(&("some", "data"))?;
        }
        Ok(())
    };
    let (first_tape, first) = node(&cluster, Namespace::new("/").on_connect(begin));
    let (second_tape, second) = node(&cluster, Namespace::new("/").on_connect(begin));
    let (mut client, me) = come(&first, "").await;
    first.io.emit("heard", ()).expect("sent");
    first_tape.play(&first);
    assert_eq!(client.hear().await, r#"2["heard","1-0"]"#);
    second.io.to("red").emit("missed", ()).expect("sent");
    second.io.except("red").emit("not for it", ()).expect("sent");
    second_tape.play(&second);
    second.io.emit("recorded", ()).expect("sent");
    // Its node died: nothing more is heard of it. Of its rooms and data the cluster knows.
    let offset = Some("1-0");
    let (mut back, told) = back(&second, &me, offset).await;
    assert_eq!(told, [r#"2["missed","2-0"]"#.to_owned(), me.welcome()]);
    let socket = second.io.of("/").local_sockets().remove(0);
    let mut rooms = socket.rooms();
    rooms.sort();
    assert_eq!((socket.recovered(), rooms), (true, vec![Room::from(&*me.sid), "red".into()]));
    assert_eq!(socket.data::<(String, String)>().expect("data"), ("some".to_owned(), "data".to_owned()));
    second_tape.play(&second);
    assert_eq!(back.hear().await, r#"2["recorded","4-0"]"#);
    // It has gone for good.
    back.say("1").await;
    assert!(cluster.sessions.lock().expect("one thread").is_empty());
}

#[tokio::test]
async fn what_is_heard_while_middlewares_are_asked_is_not_lost_and_does_not_come_twice() {
    let gate = Arc::new(Semaphore::new(0));
    let asked = Arc::new(AtomicUsize::new(0));
    let (waiting, counting) = (Arc::clone(&gate), Arc::clone(&asked));
    let cluster: Arc<Cluster> = Arc::default();
    let namespace = Namespace::new("/").middleware(move || {
        counting.fetch_add(1, Relaxed);
        let waiting = Arc::clone(&waiting);
        async move { waiting.acquire().await.map(|permit| permit.forget()).map_err(|_| "closed".into()) }
    });
    let (tape, server) = node(&cluster, namespace);
    // As Node's servers keep it: without its namespace, so that it is not let in unasked.
    let me = Me { sid: "s".to_owned(), pid: "p".to_owned() };
    cluster.keep(session(&me, None));
    server.io.emit("0", ()).expect("sent");
    server.io.emit("1", ()).expect("sent");
    tape.play(&server);
    server.io.to("red").emit("2", ()).expect("sent");
    let mut client = server.client();
    client.say(&me.connect(Some("1-0"))).await;
    while asked.load(Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    tape.play(&server);
    server.io.to("blue").emit("not for it", ()).expect("sent");
    server.io.to("red").emit("3", ()).expect("sent");
    // While the cluster is away nothing has a place of its own.
    tape.is_away.store(true, Relaxed);
    server.io.to("red").emit("directly", ()).expect("sent");
    server.io.to("blue").emit("not for it", ()).expect("sent");
    tape.is_away.store(false, Relaxed);
    gate.add_permits(1);
    let expected = [r#"2["1","2-0"]"#, r#"2["2","3-0"]"#, r#"2["directly","3-0"]"#, &me.welcome()];
    assert_eq!(told(&mut client).await, expected);
    tape.play(&server);
    assert_eq!(client.hear().await, r#"2["3","5-0"]"#);
}

#[tokio::test]
async fn who_names_what_is_not_its_own_begins_anew() {
    let cluster: Arc<Cluster> = Arc::default();
    let (_, server) = node(&cluster, Namespace::new("/"));
    let me = Me { sid: "s".to_owned(), pid: "p".to_owned() };
    for (namespace, offset) in [(Some("/other"), Some("0-0")), (Some("/"), Some("rubbish")), (None, None)] {
        cluster.keep(session(&me, namespace));
        let (_, other) = come(
            &server,
            &format!(r#"{{"pid":"p"{}}}"#, offset.map_or_else(String::new, |offset| format!(r#","offset":"{offset}""#))),
        )
        .await;
        assert_ne!((&*other.sid, &*other.pid), ("s", "p"), "{namespace:?} {offset:?}");
    }
    assert_eq!(server.metrics().not_recovered.get(), 3);
}

#[tokio::test]
async fn a_session_that_is_half_open_ends_when_another_node_asks_for_its_client() {
    let (tape, server) = node(&Arc::default(), Namespace::new("/"));
    let (mut client, me) = come(&server, "").await;
    server.io.fence("/", &me.pid).await;
    assert!(!client.session.is_open());
    client.end().await;
    assert!(server.io.of("/").local_sockets().is_empty());
    assert_eq!(server.metrics().fenced.get(), 1);
    assert_eq!(tape.said.lock().expect("one thread").last().expect("something"), &format!("end {}", me.pid));
    // And of one who is not here nothing ends.
    server.io.fence("/", &me.pid).await;
    assert_eq!(server.metrics().fenced.get(), 1);
}

#[tokio::test]
async fn each_change_of_rooms_and_data_is_told() {
    let (tape, server) = node(&Arc::default(), Namespace::new("/"));
    let (client, me) = come(&server, "").await;
    let socket = server.io.of("/").local_sockets().remove(0);
    socket.join(["a", "b"]).expect("joined");
    socket.leave("a");
    socket.set_data(&1).expect("JSON");
    socket.leave_all();
    client.session.discard(CloseReason::PingTimeout);
    while !tape.said.lock().expect("one thread").iter().any(|said| said.starts_with("end")) {
        tokio::task::yield_now().await;
    }
    let expected = ["begin", "changed", "changed", "changed", "changed", "end"].map(|what| format!("{what} {}", me.pid));
    assert_eq!(*tape.said.lock().expect("one thread"), expected);
}

/// What the nodes of a cluster share.
#[derive(Debug, Default)]
struct Cluster {
    recorded: Mutex<Vec<Recorded>>,
    sessions: Mutex<HashMap<String, ArchivedSession>>,
}

impl Cluster {
    fn keep(&self, session: ArchivedSession) {
        self.sessions.lock().expect("one thread").insert(session.pid.as_str().to_owned(), session);
    }
}

#[derive(Debug, Clone)]
struct Recorded {
    namespace: ByteString,
    target: Target,
    flags: Flags,
    name: SmolStr,
    args: Args,
}

/// One node's way to it.
#[derive(Default)]
struct Tape {
    cluster: Arc<Cluster>,
    metrics: Arc<Metrics>,
    is_away: AtomicBool,
    played: AtomicUsize,
    then: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    here: Mutex<HashMap<String, SessionSource>>,
    said: Mutex<Vec<String>>,
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape").finish_non_exhaustive()
    }
}

impl Tape {
    /// The node hears what was recorded and it has not heard yet.
    fn play(&self, server: &Server) {
        let recorded = self.cluster.recorded.lock().expect("one thread").clone();
        for (index, Recorded { namespace, target, flags, name, args }) in
            recorded.iter().enumerate().skip(self.played.load(Relaxed))
        {
            server.io.hear(namespace, Some(offset(index)), target, flags, || Some((name.clone(), args.clone())));
            self.played.store(index + 1, Relaxed);
        }
        std::mem::take(&mut *self.then.lock().expect("one thread")).into_iter().for_each(|act| act());
    }

    fn say(&self, what: &str, pid: &Pid) {
        self.said.lock().expect("one thread").push(format!("{what} {}", pid.as_str()));
    }
}

fn offset(index: usize) -> Offset {
    format!("{}-0", index + 1).parse().expect("an offset")
}

impl Archive for Tape {
    fn open(&self, _: Duration, _: usize) {}

    fn record(&self, namespace: &ByteString, action: Action<'_>) -> bool {
        let Action::Emit { target, flags, event, args } = action else { return false };
        if self.is_away.load(Relaxed) {
            return false;
        }
        let recorded = Recorded {
            namespace: namespace.clone(),
            target: target.clone(),
            flags: *flags,
            name: event.into(),
            args: args.clone(),
        };
        self.cluster.recorded.lock().expect("one thread").push(recorded);
        true
    }

    fn after(&self, _: &ByteString, _: usize, act: Box<dyn FnOnce() + Send>) {
        if self.played.load(Relaxed) == self.cluster.recorded.lock().expect("one thread").len() {
            act();
        } else {
            self.then.lock().expect("one thread").push(act);
        }
    }

    fn heard(&self, _: &ByteString) -> Offset {
        self.played.load(Relaxed).checked_sub(1).map(offset).unwrap_or_default()
    }

    fn begin(&self, pid: &Pid, session: SessionSource) {
        self.say("begin", pid);
        self.cluster.keep(session());
        self.here.lock().expect("one thread").insert(pid.as_str().to_owned(), session);
    }

    fn changed(&self, pid: &Pid) {
        self.say("changed", pid);
        let source = self.here.lock().expect("one thread").get(pid.as_str()).cloned().expect("it is here");
        self.cluster.keep(source());
    }

    fn end(&self, session: ArchivedSession) {
        self.say("end", &session.pid);
        self.here.lock().expect("one thread").remove(session.pid.as_str());
        self.cluster.keep(session);
    }

    fn forget(&self, pid: &Pid) {
        self.here.lock().expect("one thread").remove(pid.as_str());
        self.cluster.sessions.lock().expect("one thread").remove(pid.as_str());
    }

    fn restore(
        self: Arc<Self>,
        namespace: &ByteString,
        pid: String,
        offset: Option<String>,
        until: Offset,
        _: usize,
    ) -> Asked<Result<Recovered, &'static str>> {
        let namespace = namespace.clone();
        Box::pin(async move {
            let session = self.cluster.sessions.lock().expect("one thread").remove(&pid).ok_or("unknown")?;
            let heard: Offset = match offset {
                Some(offset) => offset.parse().map_err(|_| "rubbish")?,
                None => session.start.ok_or("nowhere")?,
            };
            let rooms: HashSet<&Room> = session.rooms.iter().collect();
            let recorded = self.cluster.recorded.lock().expect("one thread").clone();
            let events = recorded.into_iter().enumerate().map(|(index, recorded)| (self::offset(index), recorded));
            let is_missed = |(offset, recorded): &(Offset, Recorded)| {
                (heard..=until).contains(offset)
                    && *offset > heard
                    && recorded.namespace == namespace
                    && recorded.target.reaches(&rooms)
            };
            let event = |(offset, Recorded { flags, name, args, .. })| ArchivedEvent { offset, flags, name, args };
            let missed = events.filter(is_missed).map(event).collect();
            Ok(Recovered { heard, missed, session })
        })
    }
}

impl Adapter for Tape {
    fn archive(self: Arc<Self>) -> Option<Arc<dyn Archive>> {
        Some(self)
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn opened(&self, _: &ByteString) {}

    fn closed(&self, _: &ByteString) {}

    fn tell(&self, _: &ByteString, _: Action<'_>) {}

    fn fetch(self: Arc<Self>, _: &ByteString, _: &Target) -> Asked<ClusterReply<Vec<Box<RawValue>>>> {
        Box::pin(async { ClusterReply::default() })
    }

    fn rooms(self: Arc<Self>, _: &ByteString) -> Asked<ClusterReply<Vec<Room>>> {
        Box::pin(async { ClusterReply::default() })
    }

    fn server_count(self: Arc<Self>, _: &ByteString) -> Asked<Result<usize, AdapterError>> {
        Box::pin(async { Ok(1) })
    }

    fn emit_with_ack(
        self: Arc<Self>,
        _: &ByteString,
        _: &Target,
        _: &Flags,
        _: &str,
        _: &Args,
        _: UnboundedSender<RemoteAck>,
    ) -> Asked<()> {
        Box::pin(async {})
    }

    fn server_side_emit_with_ack(self: Arc<Self>, _: &ByteString, _: &str, _: &Args) -> Asked<ClusterReply<Vec<Args>>> {
        Box::pin(async { ClusterReply::default() })
    }
}

fn node(cluster: &Arc<Cluster>, namespace: Namespace) -> (Arc<Tape>, Server) {
    let tape = Arc::new(Tape { cluster: Arc::clone(cluster), ..Tape::default() });
    let options = Options { recovery: Duration::from_secs(120), ..Options::default() };
    let server = Server::with(|builder| builder.options(options).adapter(tape.clone()).namespace(namespace));
    (tape, server)
}

/// What a client was told of itself.
struct Me {
    sid: String,
    pid: String,
}

impl Me {
    fn welcome(&self) -> String {
        format!(r#"0{{"sid":"{}","pid":"{}"}}"#, self.sid, self.pid)
    }

    fn connect(&self, offset: Option<&str>) -> String {
        match offset {
            Some(offset) => format!(r#"0{{"pid":"{}","offset":"{offset}"}}"#, self.pid),
            None => format!(r#"0{{"pid":"{}"}}"#, self.pid),
        }
    }
}

/// A client that was told who it is.
async fn come(server: &Server, auth: &str) -> (Client, Me) {
    let mut client = server.client();
    client.say(&format!("0{auth}")).await;
    let told = client.hear().await;
    let welcome: Value = serde_json::from_str(told.strip_prefix('0').expect("a welcome")).expect("JSON");
    let text = |key: &str| welcome[key].as_str().expect("a text").to_owned();
    (client, Me { sid: text("sid"), pid: text("pid") })
}

async fn back(server: &Server, me: &Me, offset: Option<&str>) -> (Client, Vec<String>) {
    let mut client = server.client();
    client.say(&me.connect(offset)).await;
    let told = told(&mut client).await;
    (client, told)
}

/// What it is told until it is in.
async fn told(client: &mut Client) -> Vec<String> {
    let mut told = Vec::new();
    while !told.last().is_some_and(|packet: &String| packet.starts_with('0')) {
        told.push(client.hear().await);
    }
    told
}

fn session(me: &Me, namespace: Option<&'static str>) -> ArchivedSession {
    ArchivedSession {
        namespace: namespace.map(Into::into),
        sid: (&*me.sid).into(),
        pid: Pid::from(&*me.pid),
        rooms: vec![Room::from(&*me.sid), "red".into()],
        data: RawValue::from_string("{}".to_owned()).expect("an object").into(),
        start: None,
    }
}
