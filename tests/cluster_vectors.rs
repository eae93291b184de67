//! The messages that were taken from a cluster of the reference's, read by ours and written again, byte for byte.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::path::Path;
use stickyport::cluster::wire::{Bounds, Broadcast, Channels, Deed, Entry, Heard, Message, Request, Response, Said, Wish};
use stickyport::hub::Action;

const BOUNDS: Bounds = Bounds { bytes: 1 << 20, rooms: 100, attachments: 10 };

#[test]
fn every_message_is_read_and_written_again_byte_for_byte() {
    let mut seen = Vec::new();
    for vector in vectors() {
        let message = vector.message();
        let (kind, again) = match vector.kind() {
            "socket.io" => ("broadcast", broadcast(&vector, &message)),
            "socket.io-request" => ("request", request(&vector, &message)),
            "socket.io-response" => ("response", response(&vector, &message)),
            other => panic!("what is on {other}?"),
        };
        assert_eq!(hex(&again), vector.hex, "{}", vector.case);
        seen.push(kind);
    }
    let count = |kind| seen.iter().filter(|seen| **seen == kind).count();
    assert_eq!(["broadcast", "request", "response"].map(count), [10, 15, 9]);
}

#[test]
fn every_message_of_a_cluster_over_streams_is_read_and_written_again_byte_for_byte() {
    let mut seen = 0;
    for vector in all("streams: ").into_iter().filter(|vector| vector.get("hex").is_some()) {
        let vector: Vector = serde_json::from_value(vector).expect("a vector");
        let message = vector.message();
        let read = Message::decode(&message, &BOUNDS).expect("a message");
        assert_eq!((&*read.sender, &*read.namespace), (text(&vector.decoded["uid"]), text(&vector.decoded["nsp"])));
        let namespace = read.namespace.clone();
        let again = match read.said(&BOUNDS).expect("a request or a response") {
            Said::Response(response) => Message::response(&namespace, &response, &BOUNDS),
            Said::Request(Request { sender, id, body: Wish::Broadcast(broadcast) }) => {
                let (event, args) = broadcast.event(&BOUNDS).expect("an event");
                let ids = (sender.as_deref().expect("a sender"), id.as_deref().expect("an id"));
                Message::broadcast(ids, &namespace, &broadcast.scope.target, &broadcast.scope.flags, (&event, &args), &BOUNDS)
            }
            Said::Request(request) => Message::request(&namespace, &request, &BOUNDS),
        };
        assert_eq!(hex(&again.expect("short")), vector.hex, "{}", vector.case);
        seen += 1;
    }
    assert_eq!(seen, 11);
}

#[test]
fn every_entry_is_read_and_written_again_byte_for_byte() {
    let mut seen = Vec::new();
    for vector in all("streams: stream entry") {
        let fields = vector["fields"].as_object().expect("fields");
        let values = fields.iter().map(|(name, value)| (name.as_bytes(), Bytes::from(text(value).to_owned())));
        let entry = Entry::read(values, &BOUNDS).expect("an entry");
        let of = |action| Entry::of(&entry.sender, &entry.namespace, action, &BOUNDS).expect("short").expect("for a stream");
        let again = match entry.deed(&BOUNDS).expect("a deed") {
            Deed::Emit(stated) => {
                let (event, args) = stated.event(&BOUNDS).expect("an event");
                let (target, flags) = (&stated.scope.target, &stated.scope.flags);
                of(Action::Emit { target, flags, event: &event, args: &args })
            }
            Deed::Join(target, rooms) => of(Action::Join { target: &target, rooms: &rooms }),
            Deed::Leave(target, rooms) => of(Action::Leave { target: &target, rooms: &rooms }),
            Deed::Disconnect(target, close) => of(Action::Disconnect { target: &target, close }),
        };
        for (name, value) in again.fields() {
            assert_eq!(value, text(&fields[name]), "{name} of {vector}");
        }
        assert_eq!(fields.len(), 4);
        seen.push(text(&fields["type"]).to_owned());
    }
    seen.sort_unstable();
    assert_eq!(seen.concat(), "3333333456");
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn broadcast(vector: &Vector, message: &Bytes) -> Vec<u8> {
    let sender = std::str::from_utf8(Broadcast::sender(message).expect("a sender")).expect("text");
    assert_eq!(sender, vector.decoded[0]);
    let read = Broadcast::decode(message, &BOUNDS).expect("a broadcast");
    let (namespace, (event, args)) = (read.namespace(), read.event(&BOUNDS).expect("an event"));
    let mut shown = vec![Value::from(&*event)];
    shown.extend(args.all::<Vec<Value>>().expect("values"));
    if args.attachments().is_empty() {
        assert_eq!(Value::from(shown), vector.decoded[1]["data"], "{}", vector.case);
    }
    let channels = Channels::new("socket.io", namespace.clone());
    let channel = match channels.heard(&vector.channel) {
        Heard::Broadcast => channels.broadcast(),
        Heard::ToRoom(room) => {
            assert_eq!(read.scope.target.rooms, [room]);
            channels.room(room)
        }
    };
    assert_eq!(channel, vector.channel);
    let scope = &read.scope;
    Broadcast::encode(sender, &namespace, &scope.target, &scope.flags, &event, &args, &BOUNDS).expect("short")
}

fn request(vector: &Vector, message: &Bytes) -> Vec<u8> {
    let read = Request::decode(message, &BOUNDS).expect("a request");
    let text = |text: &Option<_>| text.as_deref().map(Value::from).unwrap_or_default();
    assert_eq!((text(&read.sender), text(&read.id)), (vector.decoded["uid"].clone(), vector.decoded["requestId"].clone()));
    let Wish::Broadcast(broadcast) = &read.body else { return read.encode(&BOUNDS).expect("short") };
    let (event, args) = broadcast.event(&BOUNDS).expect("an event");
    let ids = (read.sender.as_deref().expect("a sender"), read.id.as_deref().expect("an id"));
    let scope = &broadcast.scope;
    Request::encode_broadcast(ids, &broadcast.namespace(), &scope.target, &scope.flags, (&event, &args), &BOUNDS).expect("short")
}

fn response(vector: &Vector, message: &Bytes) -> Vec<u8> {
    let read = Response::decode(message, &BOUNDS).expect("a response");
    assert_eq!((&*read.id, &read.sender), (vector.decoded["requestId"].as_str().expect("an id"), &None));
    let channels = Channels::new("socket.io", "/".into());
    assert!([channels.response(), channels.response_to("cBHwzL")].contains(&vector.channel), "{}", vector.channel);
    read.encode(&BOUNDS).expect("short")
}

/// A message on a channel.
#[derive(Deserialize)]
struct Vector {
    case: String,
    channel: String,
    decoded: Value,
    hex: String,
}

impl Vector {
    fn kind(&self) -> &str {
        self.channel.split('#').next().unwrap_or_default()
    }

    fn message(&self) -> Bytes {
        let digit = |at| self.hex.get(at..at + 2).and_then(|byte| u8::from_str_radix(byte, 16).ok()).expect("hexadecimal");
        (0..self.hex.len()).step_by(2).map(digit).collect()
    }
}

fn vectors() -> Vec<Vector> {
    let ours = all("classic").into_iter().chain(all("emitter"));
    ours.map(|vector| serde_json::from_value(vector).expect("a vector")).collect()
}

fn all(case: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/redis.json");
    let all: Vec<Value> = serde_json::from_str(&fs::read_to_string(path).expect("vectors")).expect("JSON");
    all.into_iter().filter(|vector| text(&vector["case"]).starts_with(case)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
