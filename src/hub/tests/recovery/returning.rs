//! Who comes back as who it was, and who begins anew.

use super::{MINUTE, Me, SECOND, back, came, offset, recovering, server, socket};
use crate::engine::{CloseReason, Version};
use crate::hub::testing::{Log, Server};
use crate::hub::{
    AckError, ConnectError, DisconnectReason, EmitError, HandlerResult, Namespace, Options, Regex, Room, Socket, State,
};
use crate::protocol::limits::Limits;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, advance};

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
