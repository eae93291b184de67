//! What the operator reads in the log, of the server's start and of clients that are not served.

mod process;

use process::{Instance, Place, request};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::sync::Arc;
use stickyport::http::Listeners;
use stickyport::hub::SocketIo;
use stickyport::shutdown::Phase;
use stickyport::{Server, Shutdown};

#[tokio::test]
async fn every_server_says_where_it_listens() {
    let place = Place::new("listening");
    // The others here are processes of their own.
    let log = Arc::new(File::create(place.folder.join("log")).expect("created"));
    tracing_subscriber::fmt().with_ansi(false).with_writer(log).init();
    let listeners = Listeners::only("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let own = format!("listener=127.0.0.1:{}", listeners.own_port().expect("just bound"));
    let io = SocketIo::builder().build();
    let shutdown = Shutdown::new();
    shutdown.enter(Phase::Stopping);
    Server::new(io.engine().build(Arc::new(io))).run(listeners, &shutdown).await;
    let log = fs::read_to_string(place.folder.join("log")).expect("UTF-8");
    assert!(log.lines().any(|line| line.contains("listening") && line.contains(&own)), "{log}");
}

#[test]
fn an_old_client_leaves_one_line_that_names_the_mend() {
    let place = Place::new("old-client");
    let instance = Instance::start(&mut place.command(0));
    for (version, client) in [("", "192.0.2.5"), ("EIO=2&", "192.0.2.6"), ("EIO=3&", "192.0.2.7"), ("EIO=3&", "192.0.2.8")] {
        let head = format!("GET /socket.io/?{version}transport=polling HTTP/1.1\r\nX-Forwarded-For: {client}\r\n");
        let answer = request(place.own(0), &head, "");
        assert!(answer.ends_with(r#"{"code":5,"message":"Unsupported protocol version"}"#), "{answer}");
    }
    only_warning(instance, r#"client="192.0.2.7""#, "engine.allow_eio3 = true lets such clients in");
}

#[test]
fn a_flood_of_handshakes_leaves_one_line_that_names_the_limit() {
    let place = Place::new("handshakes");
    let instance = Instance::start(place.command(0).args(["--set", "limits.handshakes_per_second_per_address=1"]));
    let head = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nX-Forwarded-For: 192.0.2.7\r\n";
    let mut refused = 0;
    while refused < 2 {
        let answer = request(place.own(0), head, "");
        refused += usize::from(answer.ends_with(r#"{"code":4,"message":"too many handshakes from this address"}"#));
    }
    only_warning(instance, r#"client="192.0.2.7""#, "http.trusted_proxies must name it");
}

#[test]
fn a_client_with_another_parser_leaves_one_line_that_names_the_mend() {
    for (parser, connect, mend) in
        [("json", MSGPACK_CONNECT, r#"socketio.parser = "msgpack" is"#), ("msgpack", "40", r#"socketio.parser = "json" is"#)]
    {
        let place = Place::new("other-parser");
        let instance = Instance::start(place.command(0).args(["--set", &format!("socketio.parser={parser}")]));
        for _ in 0..2 {
            let sid = open(place.own(0));
            let head = format!("POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\n");
            assert!(request(place.own(0), &head, connect).ends_with("ok"));
        }
        only_warning(instance, r#"client="192.0.2.7""#, mend);
    }
}

#[test]
fn a_refused_request_is_logged_with_its_client() {
    let place = Place::new("refused");
    let instance = Instance::start(place.command(0).args(["--set", "log.level=debug"]));
    let sid = "0-00abcdefghijklmnop";
    for proxies in ["192.0.2.7", "192.0.2.7, 127.0.0.2"] {
        let head = format!("GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nX-Forwarded-For: {proxies}\r\n");
        assert!(request(place.own(0), &head, "").ends_with(r#"{"code":1,"message":"Session ID unknown"}"#));
    }
    let (_, log) = instance.stop();
    for line in ["session id unknown", "request refused"] {
        let told: Vec<_> = log.lines().filter(|told| told.contains(line)).collect();
        assert_eq!(told.len(), 2, "{log}");
        assert!(told.iter().all(|line| line.contains(r#"request{client="192.0.2.7"}"#)), "{log}");
    }
    assert!(!log.contains(sid), "a sid is a credential: {log}");
}

/// `{type: 0, nsp: "/"}`, as polling carries bytes.
const MSGPACK_CONNECT: &str = "bgqR0eXBlAKNuc3ChLw==";

fn only_warning(instance: Instance, client: &str, mend: &str) {
    let (_, log) = instance.stop();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains(client) && warnings[0].contains(mend), "{log}");
}

/// The sid of a new session.
fn open(server: SocketAddr) -> String {
    let head = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nX-Forwarded-For: 192.0.2.7\r\n";
    let answer = request(server, head, "");
    let (_, rest) = answer.split_once("\"sid\":\"").expect("an open packet");
    rest.split_once('"').expect("a sid").0.to_owned()
}
