//! How clients take up a connection again, and what they have missed.

use crate::engine::{CloseReason, Version};
use crate::hub::testing::{Client, Log, Server};
use crate::hub::{
    AckError, ConnectError, DisconnectReason, EmitError, HandlerResult, Namespace, Options, Regex, Room, Socket, State,
};
use crate::protocol::limits::Limits;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, advance};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn it_is_off_by_default() {
    let server = Server::new(Namespace::new("/"));
    let mut client = server.client();
    client.say(r#"0{"pid":"x","offset":"y"}"#).await;
    let welcome: Value = serde_json::from_str(client.hear().await.trim_start_matches('0')).expect("JSON");
    assert_eq!(welcome.as_object().expect("an object").len(), 1);
    server.io.emit("x", "y").expect("sent");
    assert_eq!(client.hear().await, r#"2["x","y"]"#);
    let [socket] = &server.io.of("/").local_sockets()[..] else { panic!("one socket") };
    assert_eq!((socket.pid(), socket.recovered()), (None, false));
    assert_eq!((server.metrics().not_recovered.get(), server.metrics().recovery_bytes.get()), (0, 0));
    client.session.discard(CloseReason::TransportError);
    assert!(matches!(socket.emit("x", ()), Err(EmitError::Disconnected)));
}

#[tokio::test]
async fn events_have_an_offset_unless_they_are_volatile_or_want_an_acknowledgement() {
    let server = server(Namespace::new("/"));
    let (mut client, me) = came(&server, "/", "").await;
    let [socket] = &server.io.of("/").local_sockets()[..] else { panic!("one socket") };
    assert_eq!((socket.pid(), socket.recovered(), me.pid.len()), (Some(&*me.pid), false, 20));
    assert_ne!(me.pid, me.sid);

    server.io.emit("all", ()).expect("sent");
    socket.emit("one", bytes::Bytes::from_static(b"\x01")).expect("sent");
    server.io.to(socket.id()).emit("room", (1, "two")).expect("sent");
    let offsets =
        [offset(&client.hear().await, r#"["all"]"#), offset(&client.hear().await, r#"["one",{"_placeholder":true,"num":0}]"#), {
            assert_eq!(client.hear().await, "engine bAQ==");
            offset(&client.hear().await, r#"["room",1,"two"]"#)
        }];
    assert!(offsets.is_sorted() && offsets[0] != offsets[1] && offsets[1] != offsets[2]);

    let (_one, _all) = (socket.emit_with_ack("one", ()), server.io.of("/").emit_with_ack("all", ()));
    assert_eq!([client.hear().await, client.hear().await], [r#"20["one"]"#, r#"21["all"]"#]);
    let hearing = tokio::spawn(async move { client.hear().await });
    while !socket.session().is_writable() {
        tokio::task::yield_now().await;
    }
    socket.volatile().emit("volatile", "x").expect("sent");
    assert_eq!(hearing.await.expect("heard"), r#"2["volatile","x"]"#);
}

#[tokio::test]
async fn who_comes_back_is_who_it_was_and_hears_what_it_missed_and_then_that_it_is_in() {
    let server = server(Namespace::new("/").on_connect(async |socket: Socket| -> HandlerResult {
        if !socket.recovered() {
            socket.join(["red", "blue"])?;
            socket.set_data(&("some", "data"))?;
        }
        Ok(())
    }));
    let (mut client, me) = came(&server, "/", "").await;
    let (mut other, _) = came(&server, "/", "").await;
    let old = socket(&server, &me.sid);
    server.io.emit("heard", ()).expect("sent");
    let heard = offset(&client.hear().await, r#"["heard"]"#);
    offset(&other.hear().await, r#"["heard"]"#);
    client.post("1").await;
    assert!(server.io.of("/").local_sockets().len() == 1 && !old.is_connected());

    server.io.emit("1", ()).expect("sent");
    server.io.to("red").emit("2", ()).expect("sent");
    server.io.to("green").emit("not in it", ()).expect("sent");
    server.io.to("red").except("blue").emit("excepted", ()).expect("sent");
    server.io.volatile().emit("volatile", ()).expect("sent");
    let _acks = server.io.of("/").emit_with_ack("with acknowledgement", ());
    old.broadcast().emit("its own", ()).expect("sent");
    old.emit("3", bytes::Bytes::from_static(b"\x01")).expect("kept");
    server.io.to(["green", &me.sid]).emit("4", "x").expect("sent");

    let (mut back, told) = back(&server, "/", &me, Some(&heard)).await;
    let [one, two, three, attachment, four, welcome] = &told[..] else { panic!("{told:?}") };
    offset(one, r#"["1"]"#);
    offset(two, r#"["2"]"#);
    offset(three, r#"["3",{"_placeholder":true,"num":0}]"#);
    assert_eq!(attachment, "engine bAQ==");
    let last = offset(four, r#"["4","x"]"#);
    assert_eq!(*welcome, format!(r#"0{{"sid":"{}","pid":"{}"}}"#, me.sid, me.pid));

    let new = socket(&server, &me.sid);
    assert!(new.recovered() && new.is_connected() && new != old);
    assert_eq!(new.pid(), Some(&*me.pid));
    let mut rooms = new.rooms();
    rooms.sort();
    assert_eq!(rooms, [Room::from(&*me.sid), "blue".into(), "red".into()]);
    assert_eq!(new.data::<(String, String)>().expect("data"), ("some".to_owned(), "data".to_owned()));
    server.io.to("red").emit("now", ()).expect("sent");
    assert!(offset(&back.hear().await, r#"["now"]"#) > last);
    // Who still has the old socket speaks to the new one.
    old.emit("through the old one", ()).expect("sent");
    offset(&back.hear().await, r#"["through the old one"]"#);
    assert_eq!((server.metrics().recovered.get(), server.metrics().not_recovered.get()), (1, 0));
    drop(other);
}

#[tokio::test]
async fn middlewares_are_skipped_unless_they_are_to_be_asked() {
    for skip in [true, false] {
        let options = Options { recovery_skip_middlewares: skip, ..recovering() };
        let middleware = async |socket: Socket, State(log): State<Log>| -> Result<(), ConnectError> {
            tokio::task::yield_now().await;
            log.note(format!("{} {:?}", socket.recovered(), socket.rooms()));
            socket.set_data("asked").map_err(|_| ConnectError::new("no"))?;
            socket.emit("from the middleware", ()).map_err(|_| ConnectError::new("no"))
        };
        let mut server = Server::with(|builder| {
            builder.options(options).namespace(Namespace::new("/").middleware(middleware).on_connect(
                |socket: Socket, State(log): State<Log>| -> HandlerResult {
                    log.note(format!("in {}", socket.data::<String>()?));
                    socket.set_data("old")?;
                    Ok(())
                },
            ))
        });
        let mut client = server.client();
        client.say("0").await;
        offset(&client.hear().await, r#"["from the middleware"]"#);
        let me = Me::read(&client.hear().await);
        assert_eq!((server.noted().await, server.noted().await), ("false []".to_owned(), "in asked".to_owned()));
        client.post("1").await;
        server.io.emit("missed", ()).expect("sent");
        let (_back, told) = back(&server, "/", &me, None).await;
        offset(&told[0], r#"["missed"]"#);
        if skip {
            assert_eq!((told.len(), &*server.noted().await), (2, "in old"));
        } else {
            assert_eq!(server.noted().await, format!("true [Room({})]", me.sid));
            offset(&told[1], r#"["from the middleware"]"#);
            assert_eq!((told.len(), &*server.noted().await), (3, "in asked"));
        }
    }
}

#[tokio::test]
async fn who_a_middleware_refuses_may_try_again_with_what_it_had() {
    let gate = Arc::new(Semaphore::new(1));
    let options = Options { recovery_skip_middlewares: false, ..recovering() };
    let namespace = Namespace::new("/").middleware(|State(gate): State<Arc<Semaphore>>| {
        gate.try_acquire().map_err(|_| ConnectError::new("not now")).map(SemaphorePermit::forget)
    });
    let server = Server::with(|builder| builder.options(options).state(Arc::clone(&gate)).namespace(namespace));
    let (client, me) = came(&server, "/", "").await;
    client.post("1").await;
    server.io.emit("missed", ()).expect("sent");
    let mut refused = server.client();
    refused.say(&me.connect("", None)).await;
    assert_eq!(refused.hear().await, r#"4{"message":"not now"}"#);
    gate.add_permits(1);
    refused.say(&me.connect("", None)).await;
    offset(&refused.hear().await, r#"["missed"]"#);
    assert_eq!(Me::read(&refused.hear().await), me);
}

#[tokio::test(start_paused = true)]
async fn the_reason_says_who_may_come_back() {
    for (way, comes_back) in [
        ("transport error", true),
        ("transport close", true),
        ("forced close", true),
        ("ping timeout", true),
        ("server shutting down", true),
        ("forced server close", true),
        ("close the server", true),
        ("a violation", true),
        ("parse error", false),
        ("1", false),
        ("disconnect", false),
        ("disconnect and close", false),
        ("panic", false),
    ] {
        let server = server(Namespace::new("/").on("panic", || {
            if true {
                panic!("on purpose")
            }
        }));
        let (client, me) = came(&server, "/", "").await;
        let socket = socket(&server, &me.sid);
        match way {
            "transport error" => client.session.discard(CloseReason::TransportError),
            "transport close" => client.post("1").await,
            "forced close" => client.session.discard(CloseReason::ForcedClose),
            "ping timeout" => client.session.discard(CloseReason::PingTimeout),
            "server shutting down" => client.session.discard(CloseReason::ServerShuttingDown),
            "forced server close" => client.session.discard(CloseReason::ForcedServerClose),
            "close the server" => server.io.close(),
            "a violation" => client.say("0").await,
            "parse error" => client.session.discard(CloseReason::ParseError),
            "1" => client.say("1").await,
            "disconnect" => socket.disconnect(false),
            "disconnect and close" => socket.disconnect(true),
            _ => client.say(r#"2["panic"]"#).await,
        }
        while socket.is_connected() {
            tokio::task::yield_now().await;
        }
        let kept = socket.emit("afterwards", ());
        assert_eq!(kept.is_ok(), comes_back, "{way}");
        let (_back, told) = back(&server, "/", &me, None).await;
        assert_eq!(
            (told.len(), Me::read(told.last().expect("one")) == me),
            if comes_back { (2, true) } else { (1, false) },
            "{way}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_names_what_is_wrong_foreign_or_too_old_begins_anew() {
    for (case, offset_named) in [
        ("no such pid", None),
        ("another namespace's pid", None),
        ("a pid that is no text", None),
        ("too late", None),
        ("an offset that is none", Some("bar")),
        ("an offset of another namespace", None),
        ("an offset that is still to come", Some(".fffffffffffff")),
        ("an offset that is no text", None),
        ("an offset whose successors are lost", None),
    ] {
        let server = Server::with(|builder| {
            let limits = Limits { recovery_bytes: 10_000, ..Limits::default() };
            let room = async |socket: Socket| socket.join("room");
            builder
                .options(recovering())
                .limits(limits)
                .namespace(Namespace::new("/").on_connect(room))
                .namespace(Namespace::new("/b"))
        });
        let (mut client, me) = came(&server, "/", "").await;
        let (mut other, foreign) = came(&server, "/b", "").await;
        server.io.emit("x", ()).expect("sent");
        let mine = offset(&client.hear().await, r#"["x"]"#);
        server.io.of("/b").emit("x", ()).expect("sent");
        let foreign_offset = offset(&other.hear().await, r#"["x"]"#);
        server.io.emit("swallowed", ()).expect("sent");
        client.post("1").await;
        let (mut pid, mut named) = (format!("\"{}\"", me.pid), format!("\"{}\"", offset_named.unwrap_or(&mine)));
        match case {
            "no such pid" => pid = "\"foo\"".to_owned(),
            "another namespace's pid" => pid = format!("\"{}\"", foreign.pid),
            "a pid that is no text" => pid = "7".to_owned(),
            "too late" => advance(2 * MINUTE + SECOND).await,
            "an offset of another namespace" => named = format!("\"{foreign_offset}\""),
            "an offset that is no text" => named = "123".to_owned(),
            "an offset whose successors are lost" => {
                for _ in 0..100 {
                    server.io.emit("filler", ()).expect("sent");
                }
            }
            _ => {}
        }
        let mut again = server.client();
        again.say(&format!(r#"0{{"pid":{pid},"offset":{named}}}"#)).await;
        let new = Me::read(&again.hear().await);
        assert!(new.sid != me.sid && new.pid != me.pid, "{case}");
        assert_eq!(socket(&server, &new.sid).rooms().len(), 2, "{case}");
        assert!(!socket(&server, &new.sid).recovered());
        let counted = u64::from(case != "a pid that is no text");
        assert_eq!((server.metrics().not_recovered.get(), server.metrics().recovered.get()), (counted, 0), "{case}");
        assert_eq!(server.metrics().connect_errors.get(), 0);
    }
}

#[tokio::test]
async fn a_stale_line_is_ended_at_once_and_again_and_what_it_swallowed_is_sent_again() {
    let note =
        |text: &'static str| move |socket: Socket, State(log): State<Log>| log.note(format!("{} {text}", socket.namespace()));
    let gone =
        |socket: Socket, reason: DisconnectReason, State(log): State<Log>| log.note(format!("{} {reason}", socket.namespace()));
    let namespace = |name: &str| Namespace::new(name).on_connect(note("came")).on_disconnect(gone);
    let mut server = Server::with(|builder| builder.options(recovering()).namespace(namespace("/")).namespace(namespace("/b")));
    let mut stale = server.client();
    let me = stale.enter("/", "").await;
    let me_too = stale.enter("/b", "").await;
    assert_eq!([server.noted().await, server.noted().await], ["/ came", "/b came"]);
    server.io.emit("heard", ()).expect("sent");
    let mut heard = offset(&stale.hear().await, r#"["heard"]"#);
    for round in 0..3 {
        server.io.emit("swallowed", round).expect("sent");
        server.io.of("/b").emit("swallowed too", round).expect("sent");
        let pending = socket(&server, &me.sid).emit_with_ack("never answered", ());

        let mut back = server.client();
        back.say(&me.connect("", Some(&heard))).await;
        heard = offset(&back.hear().await, &format!(r#"["swallowed",{round}]"#));
        assert_eq!(Me::read(&back.hear().await), me);
        assert!(!stale.session.is_open());
        assert!(matches!(pending.await, Err(AckError::Disconnected)));
        back.say(&me_too.connect("/b,", None)).await;
        for missed in 0..=round {
            offset(&back.hear().await, &format!(r#"["swallowed too",{missed}]"#));
        }
        assert_eq!(Me::read(&back.hear().await), me_too);
        let mut notes = server.notes();
        assert_eq!(notes.pop().expect("four"), "/b came");
        notes.sort();
        assert_eq!(notes, ["/ came", "/ transport error", "/b transport error"]);
        assert_eq!(server.metrics().sockets.get(), 2);
        stale = back;
    }
    assert_eq!((server.metrics().recovered.get(), server.metrics().not_recovered.get()), (6, 0));
}

/// What was swallowed by a dead line was looked up by the rooms in which the client was when it left, and not when it was sent.
#[tokio::test]
async fn what_was_swallowed_is_sent_again_by_the_rooms_of_that_time() {
    let server = server(Namespace::new("/"));
    let (mut client, me) = came(&server, "/", "").await;
    let socket = socket(&server, &me.sid);
    socket.join("left later").expect("connected");
    server.io.emit("heard", ()).expect("sent");
    let heard = offset(&client.hear().await, r#"["heard"]"#);
    let tell = |event| server.io.to(["left later", "joined later"]).emit(event, ()).expect("sent");
    tell("meant for it");
    socket.leave("left later");
    tell("not meant for it");
    socket.join(["joined later", "dropped"]).expect("connected");
    tell("meant for it too");
    socket.leave("dropped");
    server.io.to("dropped").emit("not for it either", ()).expect("sent");
    let (_back, told) = back(&server, "/", &me, Some(&heard)).await;
    offset(&told[0], r#"["meant for it"]"#);
    offset(&told[1], r#"["meant for it too"]"#);
    assert_eq!((told.len(), Me::read(&told[2])), (3, me));
}

#[tokio::test(start_paused = true)]
async fn who_never_received_an_event_gets_all_since_it_came() {
    let server = server(Namespace::new("/"));
    let (mut other, _) = came(&server, "/", "").await;
    server.io.emit("before", ()).expect("sent");
    let earlier = offset(&other.hear().await, r#"["before"]"#);
    // Clients keep the offset of an earlier connection, of this process or of one before it.
    for named in [None, Some(&*earlier), Some(".1")] {
        let (stale, me) = came(&server, "/", "").await;
        advance(10 * MINUTE).await;
        server.io.emit("swallowed", ()).expect("sent");
        let (cut, told) = back(&server, "/", &me, named).await;
        assert_eq!(told.len(), 2);
        offset(&told[0], r#"["swallowed"]"#);
        cut.post("1").await;
        server.io.emit("missed", ()).expect("sent");
        let (_back, told) = back(&server, "/", &me, named).await;
        assert_eq!(told.len(), 3);
        offset(&told[0], r#"["swallowed"]"#);
        offset(&told[1], r#"["missed"]"#);
        drop(stale);
    }
    assert_eq!(server.metrics().not_recovered.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_has_heard_all_that_was_for_it_may_have_heard_it_long_ago() {
    let server = server(Namespace::new("/"));
    let (mut quiet, me) = came(&server, "/", "").await;
    server.io.emit("heard", ()).expect("sent");
    let heard = offset(&quiet.hear().await, r#"["heard"]"#);
    // The log forgets it among what is for others.
    for _ in 0..10 {
        advance(MINUTE).await;
        server.io.to("others").emit("x", ()).expect("sent");
    }
    quiet.post("1").await;
    server.io.emit("missed", ()).expect("sent");
    let (_back, told) = back(&server, "/", &me, Some(&heard)).await;
    assert_eq!((told.len(), server.metrics().recovered.get()), (2, 1));
    offset(&told[0], r#"["missed"]"#);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_says_what_has_arrived() {
    for heartbeats in [true, false] {
        let server = server(Namespace::new("/"));
        let (mut quiet, me) = came(&server, "/", "").await;
        server.io.emit("heard", ()).expect("sent");
        let heard = offset(&quiet.hear().await, r#"["heard"]"#);
        for _ in 0..10 {
            advance(MINUTE).await;
            server.io.to("others").emit("x", ()).expect("sent");
            if heartbeats {
                quiet.post("3").await;
            }
        }
        server.io.emit("swallowed", ()).expect("sent");
        server.io.emit("swallowed too", ()).expect("sent");
        let mut back = server.client();
        back.say(&me.connect("", Some(&heard))).await;
        if heartbeats {
            offset(&back.hear().await, r#"["swallowed"]"#);
            offset(&back.hear().await, r#"["swallowed too"]"#);
        }
        assert_eq!(Me::read(&back.hear().await) == me, heartbeats);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_since_the_last_heartbeats_is_not_taken_for_received() {
    let server = server(Namespace::new("/"));
    let (stale, me) = came(&server, "/", "").await;
    for number in 0..5 {
        server.io.emit("swallowed", number).expect("sent");
        if number < 2 {
            // The pongs of two pings that were under way before.
            stale.post("3").await;
        }
    }
    let (_back, told) = back(&server, "/", &me, None).await;
    assert_eq!(told.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn an_id_goes_before_it_comes_again() {
    let gate = Arc::new(Semaphore::new(0));
    let namespace = Namespace::new("/")
        .on_connect(|socket: Socket, State(log): State<Log>| log.note(format!("came {}", socket.recovered())))
        .on_disconnecting(|socket: Socket| socket.set_data("last words"))
        .on_disconnect(async |State(gate): State<Arc<Semaphore>>, State(log): State<Log>| -> HandlerResult {
            gate.acquire().await?.forget();
            log.note("went");
            Ok(())
        });
    let mut server = Server::with(|builder| builder.options(recovering()).state(Arc::clone(&gate)).namespace(namespace));
    let (stale, me) = came(&server, "/", "").await;
    assert_eq!(server.noted().await, "came false");
    let waiting = server.client();
    waiting.say(&me.connect("", None)).await;
    while stale.session.is_open() {
        tokio::task::yield_now().await;
    }
    advance(4 * SECOND).await;
    assert_eq!(server.notes(), [""; 0]);
    // It goes itself while it waits, and another one waits in its place.
    waiting.session.discard(CloseReason::TransportError);
    let mut back = server.client();
    back.say(&me.connect("", None)).await;
    tokio::task::yield_now().await;
    gate.add_permits(1);
    assert_eq!(Me::read(&back.hear().await), me);
    assert_eq!([server.noted().await, server.noted().await], ["went", "came true"]);
    assert_eq!(socket(&server, &me.sid).data::<String>().expect("a text"), "last words");
    // And who would have to wait too long is somebody else.
    let start = Instant::now();
    let mut anew = server.client();
    anew.say(&me.connect("", None)).await;
    assert_ne!(Me::read(&anew.hear().await), me);
    assert_eq!((start.elapsed(), server.noted().await), (5 * SECOND, "came false".to_owned()));
    gate.add_permits(1);
    assert_eq!(server.noted().await, "went");
    assert_eq!((server.metrics().recovered.get(), server.metrics().not_recovered.get()), (1, 1));
}

#[tokio::test]
async fn an_attempt_that_is_replaced_gives_way_to_its_successor() {
    let gate = Arc::new(Semaphore::new(1));
    let options = Options { recovery_skip_middlewares: false, ..recovering() };
    let namespace = Namespace::new("/").middleware(async |State(gate): State<Arc<Semaphore>>| {
        gate.acquire().await.map_err(|_| ConnectError::new("closed")).map(SemaphorePermit::forget)
    });
    let server = Server::with(|builder| builder.options(options).state(Arc::clone(&gate)).namespace(namespace));
    let (client, me) = came(&server, "/", "").await;
    client.post("1").await;
    let mut back = server.client();
    let connect = me.connect("", None);
    back.say_all(&[&connect, &connect]).await;
    gate.add_permits(2);
    assert_eq!(Me::read(&back.hear().await), me);
    assert_eq!((server.metrics().sockets.get(), server.metrics().not_recovered.get()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_goes_by_itself_and_so_does_who_watches_it() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let server = Server::with(|builder| builder.options(recovering()).namespace(Namespace::new("/b")));
    let before = tasks();
    // Nobody could come back for it.
    server.io.emit("x", "y".repeat(1000)).expect("sent");
    server.io.of("/b").emit("x", "y".repeat(1000)).expect("sent");
    assert_eq!((server.metrics().recovery_bytes.get(), tasks()), (0, before));
    for round in 0..2 {
        let (client, _) = came(&server, "/", "").await;
        client.post("1").await;
        server.io.emit("x", "y".repeat(1000)).expect("sent");
        assert!(server.metrics().recovery_bytes.get() > 1000, "{round}");
        advance(2 * MINUTE - SECOND).await;
        tokio::task::yield_now().await;
        assert!(server.metrics().recovery_bytes.get() > 1000);
        while server.metrics().recovery_bytes.get() > 0 {
            tokio::time::sleep(SECOND).await;
        }
        tokio::task::yield_now().await;
        assert_eq!(tasks(), before);
        server.io.emit("x", "y".repeat(1000)).expect("sent");
        assert_eq!(server.metrics().recovery_bytes.get(), 0);
    }
}

#[tokio::test]
async fn memory_is_bounded_over_all_namespaces_and_the_oldest_goes_first() {
    let limits = Limits { recovery_bytes: 200_000, ..Limits::default() };
    let server = Server::with(|builder| builder.options(recovering()).limits(limits).namespace(Namespace::new("/b")));
    let (old, was) = came(&server, "/", "").await;
    old.post("1").await;
    server.io.emit("missed", "x".repeat(1000)).expect("sent");
    let most = |_| {
        server.io.of("/b").emit("filler", "x".repeat(1000)).expect("sent");
        server.metrics().recovery_bytes.get()
    };
    // Who is in the other namespace pushes it out.
    let (new, is) = came(&server, "/b", "").await;
    let most = (0..1000).map(most).max().expect("a thousand");
    assert!((190_000..=200_000).contains(&most), "{most}");
    assert!(server.metrics().limit_recovery.get() > 800);
    new.post("1").await;
    server.io.of("/b").emit("missed", ()).expect("sent");
    let (_anew, told) = back(&server, "/", &was, None).await;
    assert_ne!(Me::read(told.last().expect("a welcome")), was);
    // It has swallowed more than is kept.
    let (_anew, told) = back(&server, "/b", &is, None).await;
    assert_ne!(Me::read(told.last().expect("a welcome")), is);

    // Sessions count too: who comes and goes without end takes no more than the rest.
    for _ in 0..2000 {
        let (client, _) = came(&server, "/", "").await;
        client.session.discard(CloseReason::TransportClose);
    }
    while server.metrics().sockets.get() > 2 {
        tokio::task::yield_now().await;
    }
    let now = server.metrics().recovery_bytes.get();
    assert!((190_000..=200_000).contains(&now), "{now}");
}

#[tokio::test]
async fn nobody_is_sent_more_than_a_slow_reader_may_owe() {
    let limits = Limits { outbox_bytes: 5_000, ..Limits::default() };
    let server = Server::with(|builder| builder.options(recovering()).limits(limits));
    for (events, comes_back) in [(4, true), (5, false)] {
        let (client, me) = came(&server, "/", "").await;
        client.post("1").await;
        for _ in 0..events {
            server.io.emit("x", "y".repeat(1000)).expect("sent");
        }
        let (_back, told) = back(&server, "/", &me, None).await;
        assert_eq!(Me::read(told.last().expect("a welcome")) == me, comes_back, "{events}");
    }
}

#[tokio::test]
async fn what_gets_lost_while_middlewares_are_asked_is_not_passed_over() {
    let gate = Arc::new(Semaphore::new(1));
    let options = Options { recovery_skip_middlewares: false, ..recovering() };
    let limits = Limits { recovery_bytes: 10_000, ..Limits::default() };
    let namespace = Namespace::new("/").middleware(async |State(gate): State<Arc<Semaphore>>, State(log): State<Log>| {
        log.note("asked");
        gate.acquire().await.map_err(|_| ConnectError::new("closed")).map(SemaphorePermit::forget)
    });
    let build =
        |builder: crate::hub::Builder| builder.options(options).limits(limits).state(Arc::clone(&gate)).namespace(namespace);
    let mut server = Server::with(build);
    let (client, me) = came(&server, "/", "").await;
    client.post("1").await;
    let back = server.client();
    back.say(&me.connect("", None)).await;
    assert_eq!([server.noted().await, server.noted().await], ["asked", "asked"]);
    for _ in 0..100 {
        server.io.emit("x", "y".repeat(1000)).expect("sent");
    }
    gate.add_permits(2);
    while back.session.is_open() {
        tokio::task::yield_now().await;
    }
    let mut anew = server.client();
    anew.say(&me.connect("", None)).await;
    assert_ne!(Me::read(&anew.hear().await), me);
}

#[tokio::test]
async fn a_namespace_that_is_dropped_takes_its_sessions_along() {
    let pattern = Regex::new("^/tenant-").expect("a pattern");
    for cleanup in [true, false] {
        let options = Options { cleanup_empty_child_namespaces: cleanup, ..recovering() };
        let tenants = Namespace::matching(pattern.clone());
        let server = Server::with(|builder| builder.options(options).namespace(tenants));
        let (client, me) = came(&server, "/tenant-1", "").await;
        client.post("1").await;
        assert_eq!(server.io.has("/tenant-1"), !cleanup);
        let (_back, told) = back(&server, "/tenant-1", &me, None).await;
        assert_eq!(Me::read(told.last().expect("a welcome")) == me, !cleanup);
    }
}

#[tokio::test]
async fn who_waits_for_its_place_and_goes_leaves_no_namespace_behind() {
    let options = Options { cleanup_empty_child_namespaces: true, ..recovering() };
    let gate = Arc::new(Semaphore::new(0));
    let tenants = Namespace::matching(Regex::new("^/tenant-").expect("a pattern"))
        .on_disconnect(async |State(gate): State<Arc<Semaphore>>| gate.acquire().await.map(SemaphorePermit::forget));
    let server = Server::with(|builder| builder.options(options).state(Arc::clone(&gate)).namespace(tenants));
    let (_stale, me) = came(&server, "/tenant-1", "").await;
    let waiting = server.client();
    waiting.say(&me.connect("/tenant-1,", None)).await;
    waiting.session.discard(CloseReason::TransportError);
    gate.add_permits(1);
    while server.io.has("/tenant-1") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn clients_of_protocol_3_have_no_part_in_it() {
    let server = server(Namespace::new("/"));
    let mut old = server.client_of(Version::V3);
    assert_eq!(old.hear().await, "engine 2:40");
    let [socket] = &server.io.of("/").local_sockets()[..] else { panic!("one socket") };
    assert_eq!((socket.pid(), socket.recovered()), (None, false));
    socket.emit("x", ()).expect("sent");
    assert_eq!(old.hear().await, r#"engine 7:42["x"]"#);
}

#[tokio::test]
async fn a_session_is_plain_data() {
    let server = server(Namespace::new("/"));
    let (client, me) = came(&server, "/", "").await;
    let old = socket(&server, &me.sid);
    old.join("room").expect("joined");
    old.set_data(&7).expect("set");
    client.post("1").await;
    let (shelf, _) = old.part().expect("on");
    let saved = serde_json::to_string(&shelf.saved(&me.pid)).expect("plain");
    let back: crate::hub::recovery::Saved = serde_json::from_str(&saved).expect("plain");
    assert_eq!((back.sid.as_str(), back.state.rooms.len(), back.state.data.get()), (&*me.sid, 2, "7"));
    assert!(!format!("{back:?}").contains(&me.pid));
}

#[tokio::test]
async fn what_is_too_much_for_one_line_does_not_end_every_line_that_the_client_tries() {
    for skip in [true, false] {
        let options = Options { recovery_skip_middlewares: skip, ..recovering() };
        let gate = Arc::new(Semaphore::new(2));
        let middleware = async |State(gate): State<Arc<Semaphore>>| -> Result<(), ConnectError> {
            gate.acquire().await.expect("open").forget();
            Ok(())
        };
        let server = Server::with(|builder| {
            let builder = builder.options(options).limits(Limits { outbox_bytes: 10_000, ..Limits::default() });
            let namespaces = ["/", "/b"].map(|name| Namespace::new(name).middleware(middleware));
            namespaces.into_iter().fold(builder.state(Arc::clone(&gate)), super::super::Builder::namespace)
        });
        let mut client = server.client();
        let (me, too) = (client.enter("/", "").await, client.enter("/b", "").await);
        client.post("1").await;
        for namespace in ["/", "/b"] {
            server.io.of(namespace).emit("missed", "x".repeat(6_000)).expect("sent");
        }
        let mut attempts = 0;
        let heard = loop {
            attempts += 1;
            assert!(attempts < 3, "it never comes in, middlewares skipped: {skip}");
            let mut back = server.client();
            back.say_all(&[&me.connect("", None), &too.connect("/b,", None)]).await;
            gate.add_permits(2);
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            if back.session.is_open() {
                break [back.hear().await, back.hear().await, back.hear().await];
            }
        };
        assert_eq!((attempts, heard[0].len() > 6_000), (if skip { 1 } else { 2 }, true));
        assert_eq!(Me::read(&heard[1]), me);
        assert_ne!(Me::read(&heard[2]).pid, too.pid);
    }
}

#[tokio::test]
async fn who_listens_to_outgoing_events_may_send_one_first() {
    for recovery in [Duration::ZERO, MINUTE] {
        let namespace = Namespace::new("/").on_any_outgoing(|socket, event| {
            if event.name() == "second" {
                socket.emit("first", ()).expect("sent");
            }
        });
        let options = Options { recovery, ..Options::default() };
        let server = Server::with(|builder| builder.options(options).namespace(namespace));
        let mut client = server.client();
        client.say("0").await;
        client.hear().await;
        server.io.of("/").local_sockets()[0].emit("second", ()).expect("sent");
        let heard = [client.hear().await, client.hear().await];
        assert!(heard[0].contains("first") && heard[1].contains("second"), "{heard:?}");
    }
}

#[tokio::test]
async fn what_was_sent_to_one_socket_is_missed_by_nobody_else_in_its_room() {
    let server = server(Namespace::new("/"));
    let (client, me) = came(&server, "/", "").await;
    let (guest, other) = came(&server, "/", "").await;
    let one = socket(&server, &me.sid);
    socket(&server, &other.sid).join(one.id()).expect("joined");
    one.leave(one.id());
    guest.post("1").await;
    one.emit("while it is here", ()).expect("sent");
    client.post("1").await;
    one.emit("while it is gone", ()).expect("kept");
    server.io.except(one.id()).emit("to all but its room", ()).expect("sent");

    let (mut client, told) = back(&server, "/", &me, None).await;
    assert_eq!(
        told.iter().filter_map(|packet| packet.split('"').nth(1)).collect::<Vec<_>>(),
        ["while it is here", "while it is gone", "to all but its room", "sid"]
    );
    let (_guest, told) = back(&server, "/", &other, None).await;
    assert_eq!(told.len(), 1, "{told:?}");
    socket(&server, &me.sid).join(one.id()).expect("joined");
    one.emit("through the old one", ()).expect("sent");
    offset(&client.hear().await, r#"["through the old one"]"#);
}

/// Four threads speak while three clients are cut again and again, half of their lines swallow the last that they are given, and they come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_said_meanwhile_every_client_hears_it_once_and_in_one_order() {
    let server = Arc::new(Server::with(|builder| {
        builder.options(recovering()).namespace(Namespace::new("/").on_connect(async |socket: Socket| socket.join("room")))
    }));
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(came(&server, "/", "").await);
    }
    let is_over = Arc::new(AtomicBool::new(false));
    // Who is far behind would have missed too much.
    let behind = Arc::new(Semaphore::new(20_000));
    let speakers: Vec<_> = (0..4)
        .map(|speaker| {
            let (io, is_over, behind) = (server.io.clone(), Arc::clone(&is_over), Arc::clone(&behind));
            std::thread::spawn(move || {
                for number in 0.. {
                    let last = is_over.load(Relaxed);
                    let all = if number % 2 == 0 { io.of("/") } else { io.to("room").except("nobody") };
                    all.emit("said", (speaker, number, last)).expect("encoded");
                    io.to("somebody else").emit("not for us", ()).expect("encoded");
                    if last {
                        return number + 1;
                    }
                    // One for each listener.
                    while behind.try_acquire_many(3).map(SemaphorePermit::forget).is_err() && !is_over.load(Relaxed) {
                        std::thread::yield_now();
                    }
                }
                unreachable!("it is over one day")
            })
        })
        .collect();
    let listeners: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(seed, (client, me))| {
            tokio::spawn(listen(Arc::clone(&server), client, me, seed, Arc::clone(&is_over), Arc::clone(&behind)))
        })
        .collect();
    let mut heard = Vec::new();
    for listener in listeners {
        heard.push(listener.await.expect("heard all"));
    }
    for (speaker, said) in speakers.into_iter().enumerate() {
        let said: u64 = said.join().expect("said all");
        let numbers: Vec<u64> = heard[0].iter().filter(|(by, _)| *by == speaker).map(|(_, number)| *number).collect();
        assert!(numbers.iter().copied().eq(0..said), "{speaker}: {numbers:?}");
    }
    assert!(heard[0] == heard[1] && heard[1] == heard[2]);
    assert_eq!(server.metrics().not_recovered.get(), 0);
    assert!(server.metrics().recovered.get() >= 100);
}

/// Is cut a hundred times and then hears all that is left.
async fn listen(
    server: Arc<Server>,
    mut client: Client,
    me: Me,
    seed: usize,
    is_over: Arc<AtomicBool>,
    behind: Arc<Semaphore>,
) -> Vec<(usize, u64)> {
    let mut heard = Vec::new();
    let mut offset: Option<String> = None;
    let mut to_end = 4;
    for round in seed.. {
        let is_last = round >= seed + 100;
        is_over.fetch_or(is_last, Relaxed);
        let steps = if is_last { usize::MAX } else { round % 5 };
        for step in 0..steps {
            let packets = client.hear_all().await;
            assert!(packets.iter().filter(|packet| packet.starts_with('0')).all(|packet| Me::read(packet) == me));
            if step + 1 == steps && round % 2 == 0 {
                break;
            }
            for packet in packets.iter().filter_map(|packet| packet.strip_prefix('2')) {
                let (_, speaker, number, last, own): (String, usize, u64, bool, String) =
                    serde_json::from_str(packet).expect("an event");
                heard.push((speaker, number));
                behind.add_permits(1);
                offset = Some(own);
                to_end -= usize::from(last);
            }
            if to_end == 0 {
                return heard;
            }
        }
        match round % 3 {
            0 => client.session.discard(CloseReason::TransportError),
            1 => client.post("1").await,
            // Half open.
            _ => {}
        }
        client = server.client();
        client.say(&me.connect("", offset.as_deref())).await;
    }
    unreachable!("the last round has no end")
}

/// Who a client is.
#[derive(Debug, Clone, PartialEq)]
struct Me {
    sid: String,
    pid: String,
}

impl Me {
    /// From the answer to CONNECT.
    fn read(packet: &str) -> Self {
        let json = packet
            .strip_prefix('0')
            .and_then(|rest| rest.get(rest.find('{')?..))
            .unwrap_or_else(|| panic!("{packet} is no welcome"));
        let welcome: Value = serde_json::from_str(json).expect("JSON");
        let text = |key: &str| welcome[key].as_str().unwrap_or_else(|| panic!("{packet} has no {key}")).to_owned();
        Self { sid: text("sid"), pid: text("pid") }
    }

    /// A CONNECT packet.
    fn connect(&self, prefix: &str, offset: Option<&str>) -> String {
        let offset = offset.map(|offset| format!(r#","offset":"{offset}""#)).unwrap_or_default();
        format!(r#"0{prefix}{{"pid":"{}"{offset},"more":1}}"#, self.pid)
    }
}

impl Client {
    async fn enter(&mut self, namespace: &str, auth: &str) -> Me {
        self.say(&format!("0{namespace},{auth}")).await;
        Me::read(&self.hear().await)
    }
}

fn recovering() -> Options {
    Options { recovery: 2 * MINUTE, ..Options::default() }
}

fn server(namespace: Namespace) -> Server {
    Server::with(|builder| builder.options(recovering()).namespace(namespace))
}

/// A client that was not here before.
async fn came(server: &Server, namespace: &str, auth: &str) -> (Client, Me) {
    let mut client = server.client();
    let me = client.enter(namespace, auth).await;
    (client, me)
}

/// A client that comes back, and what it is told up to the welcome.
async fn back(server: &Server, namespace: &str, me: &Me, offset: Option<&str>) -> (Client, Vec<String>) {
    let mut client = server.client();
    client.say(&me.connect(&format!("{namespace},"), offset)).await;
    let mut told = Vec::new();
    while !told.last().is_some_and(|packet: &String| packet.starts_with('0')) {
        told.push(client.hear().await);
    }
    (client, told)
}

fn socket(server: &Server, sid: &str) -> Socket {
    let sockets = server.io.of("/").local_sockets();
    sockets.into_iter().find(|socket| socket.id().as_str() == sid).expect("connected")
}

/// The offset at the end of an event whose rest is `expected`.
fn offset(packet: &str, expected: &str) -> String {
    let json = packet.get(packet.find('[').unwrap_or_default()..).unwrap_or_default();
    let mut event: Vec<Value> = serde_json::from_str(json).unwrap_or_else(|_| panic!("{packet} is no event"));
    let offset = event.pop().and_then(|offset| offset.as_str().map(str::to_owned));
    let rest = Value::from(event).to_string();
    assert_eq!(rest, expected, "{packet}");
    offset.unwrap_or_else(|| panic!("{packet} has no offset"))
}
