//! rust_socketio, the client that most Rust programs have, against the example applications.
//!
//! What it cannot do with the reference server either is not asked of it: to acknowledge, to have bytes acknowledged, to hear an event without arguments
//! under its name, or to take any byte from a WebSocket.

#![cfg(test)]

use rust_socketio::client::Client;
use rust_socketio::{ClientBuilder, Event, Payload, TransportType};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::Duration;

type Transport = fn() -> TransportType;

/// Where the client cuts even what comes from a WebSocket.
const SEPARATOR: u8 = 0x1e;

const DEADLINE: Duration = Duration::from_secs(15);

/// `tests!` makes each case a test for every transport.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        mod polling { $(#[test] fn $name() { super::$name(|| rust_socketio::TransportType::Polling); })* }
        mod websocket { $(#[test] fn $name() { super::$name(|| rust_socketio::TransportType::Websocket); })* }
        mod upgrade { $(#[test] fn $name() { super::$name(|| rust_socketio::TransportType::WebsocketUpgrade); })* }
    };
}

tests![
    arguments_come_back_as_they_went,
    bytes_come_back,
    the_server_acknowledges,
    the_handshakes_auth_arrives,
    a_middleware_refuses_and_lets_in_who_knows_the_secret,
    a_broadcast_reaches_everyone,
    events_arrive_in_the_order_in_which_they_were_sent,
    it_comes_back_by_itself_after_the_server_restarts,
];

fn arguments_come_back_as_they_went(transport: Transport) {
    let line = Line::open("conformance", transport, |builder| builder);
    let everything = vec![
        json!(null),
        json!(-1.5),
        json!("Zeichen: äöü ☃ 💩 \"\\\n\0"),
        json!([[[]]]),
        json!({"a": {"b": [1, {"c": "d"}]}, "": 1}),
    ];
    line.client.emit("message", everything.clone()).expect("sent");
    assert_eq!(line.hear("message-back"), Payload::Text(everything));
}

fn bytes_come_back(transport: Transport) {
    let line = Line::open("conformance", transport, |builder| builder);
    let bytes: Vec<u8> = (0..70_000_u32).map(|n| n as u8).filter(|byte| *byte != SEPARATOR).collect();
    line.client.emit("message", bytes.clone()).expect("sent");
    assert_eq!(line.hear("message-back"), Payload::from(bytes));
}

fn the_server_acknowledges(transport: Transport) {
    let line = Line::open("conformance", transport, |builder| builder);
    for n in 0..50 {
        assert_eq!(line.ask(json!({"n": [n]})), Payload::Text(vec![json!([{"n": [n]}])]));
    }
}

fn the_handshakes_auth_arrives(transport: Transport) {
    let auth = json!({"token": "ä 123", "nested": [1]});
    for namespace in ["/", "/custom"] {
        let line = Line::open("conformance", transport, |builder| builder.namespace(namespace).auth(auth.clone()));
        assert_eq!(line.hear("auth"), Payload::Text(vec![auth.clone()]));
    }
}

fn a_middleware_refuses_and_lets_in_who_knows_the_secret(transport: Transport) {
    let guarded = |token: &str| {
        let auth = json!({"token": token});
        Line::open("features", transport, |builder| builder.namespace("/guarded").auth(auth))
    };
    let Payload::Text(refusal) = guarded("wrong").hear("error") else { panic!("a text") };
    let text = refusal[0].as_str().expect("a text");
    assert!(text.ends_with(r#"{"message":"not authorized","data":{"code":401}}"#), "{text}");
    guarded("secret").hear("connect");
}

fn a_broadcast_reaches_everyone(transport: Transport) {
    let [one, two] = [(), ()].map(|()| Line::open("conformance", transport, |builder| builder));
    for line in [&one, &two] {
        line.hear("connect");
    }
    // It may still be on its way into the namespace's first room; an acknowledgement comes after that.
    two.ask(json!(1));
    one.client.emit("broadcast", json!("to all")).expect("sent");
    for line in [&one, &two] {
        assert_eq!(line.hear("broadcast"), Payload::Text(vec![json!("to all")]));
    }
}

fn events_arrive_in_the_order_in_which_they_were_sent(transport: Transport) {
    let line = Line::open("conformance", transport, |builder| builder);
    for n in 0..200 {
        line.client.emit("message", json!(n)).expect("sent");
    }
    let back: Vec<Payload> = (0..200).map(|_| line.hear("message-back")).collect();
    assert_eq!(back, (0..200).map(|n| Payload::Text(vec![json!(n)])).collect::<Vec<_>>());
}

fn it_comes_back_by_itself_after_the_server_restarts(transport: Transport) {
    // One after the other: they share the server that is restarted.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let auth = json!({"who": "me"});
    let line = Line::open("restarted", transport, |builder| builder.auth(auth.clone()).reconnect_delay(50, 200));
    assert_eq!(line.hear("auth"), Payload::Text(vec![auth.clone()]));
    STAGE.lock().expect("no test panics with it").restart();
    assert_eq!(line.hear("auth"), Payload::Text(vec![auth]));
    assert_eq!(line.ask(json!("again")), Payload::Text(vec![json!(["again"])]));
}

/// A client, and what it heard that nobody has looked at.
struct Line {
    client: Client,
    heard: mpsc::Receiver<(String, Payload)>,
}

impl Line {
    fn open(application: &str, transport: Transport, build: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
        let url = STAGE.lock().expect("no test panics with it").urls[application].as_str().expect("a URL").to_owned();
        let (sender, heard) = mpsc::channel();
        // A test that is over hears nothing.
        let note = move |event: Event, payload| drop(sender.send((event.to_string(), payload)));
        let [connect, error, any] = [note.clone(), note.clone(), note];
        let builder = ClientBuilder::new(url)
            .transport_type(transport())
            .on(Event::Connect, move |payload, _| connect(Event::Connect, payload))
            .on(Event::Error, move |payload, _| error(Event::Error, payload))
            .on_any(move |event, payload, _| any(event, payload));
        Self { client: build(builder).connect().expect("connected"), heard }
    }

    /// The next event of that name; others are passed over.
    fn hear(&self, name: &str) -> Payload {
        loop {
            let (heard, payload) = self.heard.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no {name} in time"));
            if heard == name {
                return payload;
            }
        }
    }

    /// What the server acknowledges.
    fn ask(&self, payload: impl Into<Payload>) -> Payload {
        let (sender, answer) = mpsc::channel();
        let answered = move |payload, _| drop(sender.send(payload));
        self.client.emit_with_ack("message-with-ack", payload, DEADLINE, answered).expect("sent");
        answer.recv_timeout(DEADLINE).expect("an acknowledgement")
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.client.disconnect();
    }
}

/// The applications, served by a process that ends with this one.
struct Stage {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
    urls: Value,
}

static STAGE: LazyLock<Mutex<Stage>> = LazyLock::new(|| {
    let mut process = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../lib/applications.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts");
    let mut answers = BufReader::new(process.stdout.take().expect("asked for"));
    let place: Value = serde_json::from_str(&line(&mut answers)).expect("where everything is");
    Mutex::new(Stage { process, answers, urls: place["urls"]["direct"].clone() })
});

impl Stage {
    fn restart(&mut self) {
        let stdin = self.process.stdin.as_mut().expect("asked for");
        stdin.write_all(b"restart\n").expect("it reads");
        assert_eq!(line(&mut self.answers), "restarted\n");
    }
}

fn line(answers: &mut impl BufRead) -> String {
    let mut line = String::new();
    answers.read_line(&mut line).expect("text");
    line
}
