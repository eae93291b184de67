//! Socket.IO's decoders: what they take is what serde_json takes, and comes out again when it is encoded.

use super::eio::lossy;
use bytes::Bytes;
use bytestring::ByteString;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::collections::HashMap;
use stickyport::protocol::eio::Encoded;
use stickyport::protocol::sio::{AckId, Args, Body, Decoder, Packet, Parser};

const MAX_ATTACHMENTS: usize = 10;
const MAX_READ: usize = 20;

/// Messages, each behind a record separator; one that begins with `b` is binary.
pub fn event(data: &[u8]) {
    let mut decoder = Decoder::new(Parser::Json, MAX_ATTACHMENTS);
    for part in data.split(|byte| *byte == 0x1e) {
        let packet = match part.strip_prefix(b"b") {
            Some(bytes) => decoder.binary(Bytes::copy_from_slice(bytes)),
            None => decoder.text(lossy(part)),
        };
        if let Some(json) = part.strip_prefix(b"2") {
            must_be_taken(json, &packet);
        }
        match packet {
            Ok(Some(packet)) => check(Parser::Json, &packet),
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

/// The simplest events: an array that begins with a name which is not reserved.
fn must_be_taken<E>(json: &[u8], packet: &Result<Option<Packet>, E>) {
    const RESERVED: [&str; 6] = ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];
    if !json.starts_with(b"[") {
        return;
    }
    let Ok(values) = serde_json::from_slice::<Vec<Value>>(json) else { return };
    let Some(Value::String(name)) = values.first() else { return };
    match packet {
        Ok(Some(Packet { namespace, body: Body::Event { name: read, args, ack: None } })) => {
            assert_eq!((&**namespace, &**read, args.len()), ("/", name.as_str(), values.len() - 1));
        }
        // A text where an attachment was due.
        Err(_) => {}
        _ => panic!("an event is an event"),
    }
    assert!(!RESERVED.contains(&name.as_str()) || packet.is_err());
}

/// A packet is the same when it comes back from the encoder.
fn check(parser: Parser, packet: &Packet) {
    let again = match &packet.body {
        Body::Event { name, args, ack } => {
            check_args(args);
            // We ask for acknowledgements by numbers of ours; what a client asks with is only given back.
            let id = ack.as_ref().and_then(|id| id.as_str().parse().ok());
            let body = Body::Event { name: name.clone(), args: args.clone(), ack: id.map(AckId::from) };
            assert_eq!(decode(parser, &parser.event(&packet.namespace, id, name, args)).body, body);
            let Some(ack) = ack else { return };
            decode(parser, &parser.ack(&packet.namespace, ack, args))
        }
        Body::Ack { id, args } => {
            check_args(args);
            let id = id.unwrap_or_default();
            let again = decode(parser, &parser.ack(&packet.namespace, &id.into(), args));
            assert_eq!(again.body, Body::Ack { id: Some(id), args: args.clone() });
            again
        }
        Body::Connect { auth: Some(json) } => {
            assert!(json.starts_with('{') && serde_json::from_str::<IgnoredAny>(json).is_ok());
            return;
        }
        Body::ConnectError { data: Some(json) } => {
            assert!(json.starts_with(['{', '"']) && serde_json::from_str::<IgnoredAny>(json).is_ok());
            return;
        }
        Body::Connect { auth: None } | Body::ConnectError { data: None } => return,
        Body::Disconnect => decode(parser, &[parser.disconnect(&packet.namespace)]),
    };
    assert_eq!(again.namespace, packet.namespace);
}

/// What a client reads of what we write.
fn decode(parser: Parser, packets: &[Encoded]) -> Packet {
    let mut decoder = Decoder::new(parser, usize::MAX);
    let mut read = None;
    for packet in packets {
        assert!(read.is_none(), "a packet is complete with its last message");
        let payload = Bytes::copy_from_slice(packet.payload());
        read = if packet.is_binary() {
            decoder.binary(payload)
        } else {
            let text = ByteString::try_from(payload).expect("a text packet is text");
            decoder.text(text.strip_prefix('4').expect("a message").into())
        }
        .expect("what was encoded can be decoded");
    }
    read.expect("what was encoded is a packet")
}

/// A packet of msgpack, with the values that another decoder sees in it.
pub fn msgpack(data: &[u8]) {
    let message = Bytes::copy_from_slice(data);
    let Ok(packet) = Decoder::new(Parser::MsgPack, 100).binary(message) else { return };
    let packet = packet.expect("a packet is one message");
    check(Parser::MsgPack, &packet);

    let mut rest = data;
    let value = rmpv::decode::read_value_with_max_depth(&mut rest, usize::from(u16::MAX)).expect("msgpack");
    assert_eq!(rest, b"", "it ends where it ends");
    let data = value.as_map().and_then(|members| members.iter().rev().find(|(key, _)| key.as_str() == Some("data")));
    let (read, skip) = match &packet.body {
        Body::Event { args, .. } => (args.json(), 1),
        Body::Ack { args, .. } => (args.json(), 0),
        _ => return,
    };
    let Ok(read) = serde_json::from_str::<Vec<Value>>(&read) else { return };
    let (_, data) = data.expect("an event has data");
    let list = data.as_array().expect("a list");
    assert_eq!(read.len() + skip, list.len());
    for (read, value) in read.iter().zip(list.iter().skip(skip)) {
        compare(read, value);
    }
}

/// Holds what became JSON against what stands in msgpack, as far as JavaScript has one way to see it.
fn compare(json: &Value, value: &rmpv::Value) {
    match (value, json) {
        (rmpv::Value::Array(values), Value::Array(list)) => {
            assert_eq!(values.len(), list.len());
            list.iter().zip(values).for_each(|(json, value)| compare(json, value));
        }
        (rmpv::Value::Map(members), Value::Object(object)) => {
            let keys = members.iter().map(|(key, _)| match key {
                rmpv::Value::String(key) => String::from_utf8_lossy(key.as_bytes()).into_owned(),
                key => key.to_string(),
            });
            let keys: Vec<String> = keys.collect();
            for (key, (_, value)) in keys.iter().zip(members) {
                // Of members with one name the last counts, and undefined ones are left out.
                if keys.iter().filter(|other| *other == key).count() == 1
                    && let Some(json) = object.get(key)
                {
                    compare(json, value);
                }
            }
        }
        (rmpv::Value::Binary(_) | rmpv::Value::Ext(..), _) => {}
        (rmpv::Value::Nil, json) => assert_eq!(*json, Value::Null),
        (rmpv::Value::Boolean(value), json) => assert_eq!(*json, Value::Bool(*value)),
        (rmpv::Value::String(text), json) => assert_eq!(json.as_str(), Some(&*String::from_utf8_lossy(text.as_bytes()))),
        (rmpv::Value::Integer(number), json) => {
            assert_eq!((json.as_u64(), json.as_i64()), (number.as_u64(), number.as_i64()));
        }
        (rmpv::Value::F32(_) | rmpv::Value::F64(_), json) => {
            let number = value.as_f64().filter(|number| number.is_finite());
            assert_eq!(json.as_f64(), number);
        }
        (value, json) => panic!("{value} became {json}"),
    }
}

/// Arguments from JSON and attachments, whose number is the first byte, read as all kinds of types.
pub fn args(data: &[u8]) {
    let (count, json) = data.split_first().map_or((0, data), |(first, rest)| (usize::from(first % 4), rest));
    let json = lossy(json);
    let attachments: Vec<_> = (0..count as u8).map(|number| Bytes::from(vec![number; usize::from(number)])).collect();
    let args = Args::from_raw(&json, attachments);
    let is_array = serde_json::from_str::<Vec<IgnoredAny>>(&json).is_ok();
    let values = serde_json::from_str::<Value>(&json);
    let fits = values.as_ref().is_ok_and(|values| count == 0 || placeholders_fit(values, count as u64));
    // serde_json's values go less deep than what is only passed on, and hold no half characters.
    assert!(if values.is_ok() { args.is_ok() == (is_array && fits) } else { args.is_err() || is_array }, "{args:?}");
    if let Ok(args) = args {
        check_args(&args);
        if let Ok(Value::Array(values)) = values {
            assert_eq!(args.all::<Vec<Value>>().expect("values"), values);
            let written = Args::new(&values).expect("values are JSON");
            assert_eq!(written.first::<Vec<Value>>().expect("one list"), values);
        }
    }
}

/// Whether every placeholder names one of so many attachments.
fn placeholders_fit(value: &Value, attachments: u64) -> bool {
    match value {
        Value::Object(object) => {
            let is_placeholder = object.get("_placeholder") == Some(&Value::Bool(true));
            let names_one = object.get("num").and_then(Value::as_u64).is_some_and(|num| num < attachments);
            (!is_placeholder || names_one) && object.values().all(|value| placeholders_fit(value, attachments))
        }
        Value::Array(values) => values.iter().all(|value| placeholders_fit(value, attachments)),
        _ => true,
    }
}

fn check_args(args: &Args) {
    let raw = args.raw();
    assert_eq!(raw.len(), args.len());
    let again = Args::from_raw(&args.json(), args.attachments().to_vec()).expect("what was an array still is one");
    assert_eq!(again, *args);
    // Each read begins at the first argument, so all of many would take long.
    for (index, raw) in raw.iter().enumerate().take(MAX_READ) {
        if let Ok(value) = serde_json::from_str::<Value>(raw.get()) {
            assert_eq!(args.get::<Value>(index).expect("a value"), value);
        }
        let _ = args.get::<Kinds>(index);
        let _ = args.get::<Post>(index);
        let _ = args.get::<HashMap<String, Option<Bytes>>>(index);
        let _ = args.get::<(Vec<Bytes>, f64)>(index);
        if let Ok(bytes) = args.get::<Bytes>(index)
            && raw.get().starts_with('{')
        {
            assert!(args.attachments().contains(&bytes), "bytes from a placeholder are an attachment");
        }
    }
    assert_eq!(args.get::<Option<Value>>(args.len()).expect("nothing"), None);
    let _ = args.all::<(String, Option<i64>, Bytes)>();
    let _ = args.all::<Vec<Kinds>>();
    assert!(args.all::<()>().is_ok());
    assert_eq!(args.all::<Vec<IgnoredAny>>().map(|list| list.len()).ok(), Some(args.len()));
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "only read")]
enum Kinds {
    One(Bytes),
    Two(String, u8),
    Named { bytes: Bytes },
    Unit,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "only read")]
struct Post {
    title: String,
    parts: Vec<Kinds>,
    number: i128,
    #[serde(default)]
    rest: Option<Box<Post>>,
}
