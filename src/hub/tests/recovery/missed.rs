//! What clients hear of what they missed: all of it, once and in order.

use super::{MINUTE, Me, back, came, offset, recovering, server, socket};
use crate::engine::CloseReason;
use crate::hub::testing::{Client, Log, Server};
use crate::hub::{Builder, ConnectError, Namespace, Options, Socket, State};
use crate::protocol::limits::Limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::advance;

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
async fn what_was_heard_last_may_be_long_ago_if_nothing_else_was_sent_until_a_heartbeat() {
    let server = server(Namespace::new("/"));
    let (mut quiet, me) = came(&server, "/", "").await;
    server.io.emit("heard", ()).expect("sent");
    let heard = offset(&quiet.hear().await, r#"["heard"]"#);
    quiet.post("3").await;
    // The log forgets it, and that it was the last before what is swallowed.
    for _ in 0..10 {
        advance(MINUTE).await;
        server.io.to("others").emit("x", ()).expect("sent");
    }
    server.io.emit("swallowed", ()).expect("sent");
    let (_back, told) = back(&server, "/", &me, Some(&heard)).await;
    offset(&told[0], r#"["swallowed"]"#);
    assert_eq!(Me::read(told.last().expect("a welcome")), me);
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
    let build = |builder: Builder| builder.options(options).limits(limits).state(Arc::clone(&gate)).namespace(namespace);
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
            namespaces.into_iter().fold(builder.state(Arc::clone(&gate)), Builder::namespace)
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
