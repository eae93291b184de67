//! Socket.IO's decoders: what they take is what serde_json takes, and comes out again when it is encoded.

use super::eio::lossy;
use bytes::Bytes;
use bytestring::ByteString;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::collections::HashMap;
use stickyport::protocol::eio::Encoded;
use stickyport::protocol::sio::{Args, Body, Decoder, Packet, Parser};

const MAX_ATTACHMENTS: usize = 10;

/// Messages, each behind a record separator; one that begins with `b` is binary.
pub fn event(data: &[u8]) {
    let mut decoder = Decoder::new(MAX_ATTACHMENTS);
    for part in data.split(|byte| *byte == 0x1e) {
        let packet = match part.strip_prefix(b"b") {
            Some(bytes) => decoder.binary(Bytes::copy_from_slice(bytes)),
            None => decoder.text(lossy(part)),
        };
        if let Some(json) = part.strip_prefix(b"2") {
            must_be_taken(json, &packet);
        }
        match packet {
            Ok(Some(packet)) => check(&packet),
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

fn check(packet: &Packet) {
    assert!(packet.namespace.starts_with('/'));
    assert!(!packet.namespace.contains(','));
    match &packet.body {
        Body::Event { name, args, ack } => {
            check_args(args);
            let id = ack.as_ref().and_then(|id| id.as_str().parse().ok());
            let encoded = Parser::Json.event(&packet.namespace, id, name, args);
            let again = decode(&encoded);
            let ack = id.map(Into::into);
            assert_eq!(
                again,
                Packet { namespace: packet.namespace.clone(), body: Body::Event { name: name.clone(), args: args.clone(), ack } }
            );
        }
        Body::Ack { id, args } => {
            check_args(args);
            let encoded = Parser::Json.ack(&packet.namespace, &id.unwrap_or_default().into(), args);
            let body = Body::Ack { id: Some(id.unwrap_or_default()), args: args.clone() };
            assert_eq!(decode(&encoded), Packet { namespace: packet.namespace.clone(), body });
        }
        Body::Connect { auth: Some(json) } => assert!(json.starts_with('{') && serde_json::from_str::<IgnoredAny>(json).is_ok()),
        Body::ConnectError { data: Some(json) } => assert!(serde_json::from_str::<IgnoredAny>(json).is_ok()),
        Body::Connect { auth: None } | Body::ConnectError { data: None } | Body::Disconnect => {}
    }
}

/// What a client reads of what we write.
fn decode(packets: &[Encoded]) -> Packet {
    let mut decoder = Decoder::new(usize::MAX);
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

/// Arguments from JSON and attachments, whose number is the first byte, read as all kinds of types.
pub fn args(data: &[u8]) {
    let (count, json) = data.split_first().map_or((0, data), |(first, rest)| (usize::from(first % 4), rest));
    let json = lossy(json);
    let attachments: Vec<_> = (0..count as u8).map(|number| Bytes::from(vec![number; usize::from(number)])).collect();
    let args = Args::from_raw(&json, attachments);
    let is_array = serde_json::from_str::<Vec<IgnoredAny>>(&json).is_ok();
    assert!(if count == 0 { args.is_ok() == is_array } else { args.is_err() || is_array }, "{args:?}");
    if let Ok(args) = args {
        check_args(&args);
        if let Ok(values) = serde_json::from_str::<Vec<Value>>(&json) {
            assert_eq!(args.all::<Vec<Value>>().expect("values"), values);
            let written = Args::new(&values).expect("values are JSON");
            assert_eq!(written.first::<Vec<Value>>().expect("one list"), values);
        }
    }
}

fn check_args(args: &Args) {
    let raw = args.raw();
    assert_eq!(raw.len(), args.len());
    let again = Args::from_raw(&args.json(), args.attachments().to_vec()).expect("what was an array still is one");
    assert_eq!(again, *args);
    for (index, raw) in raw.iter().enumerate() {
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
