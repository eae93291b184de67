//! The vectors that were taken from the reference's parsers, run through ours.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::ser::{Serialize, SerializeTuple as _, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use std::collections::HashMap;
use stickyport::protocol::eio::{self, Encoded, Message};
use stickyport::protocol::sid::SocketId;
use stickyport::protocol::sio::{Args, Body, DecodeError, Decoder, Packet, Parser};

#[test]
fn engineio_packets_decode() {
    for case in section("engineio_decode_packet") {
        let text: String = case.read("in");
        let decoded = eio::Packet::decode(text.as_str().into());
        assert_eq!(engineio(&decoded), case.read::<Value>("out"), "{text:?}");
    }
}

#[test]
fn engineio_payloads_decode() {
    for case in section("engineio_decode_payload") {
        let text: String = case.read("in");
        let decoded = eio::payload::decode(&text.as_str().into(), 100).map(|packet| engineio(&packet));
        assert_eq!(decoded.collect::<Vec<_>>(), case.read::<Vec<Value>>("out"), "{text:?}");
    }
}

#[test]
fn engineio_payloads_encode() {
    for case in section("engineio_encode_payload") {
        let packets: Vec<String> = case.read("in");
        let encoded = packets.iter().map(|packet| match packet.split_once(' ') {
            Some(("message", "<01020304>")) => Encoded::binary(&[1, 2, 3, 4]),
            Some(("message", text)) => Encoded::message(&text.into()),
            Some(("ping", data)) => Encoded::control(&format!("2{data}")),
            None if packet == "noop" => Encoded::control("6"),
            other => panic!("no such packet: {other:?}"),
        });
        let payload = eio::payload::encode(&encoded.collect::<Vec<_>>());
        assert_eq!(String::from_utf8(payload).expect("text"), case.read::<String>("out"));
    }
}

#[test]
fn socketio_packets_decode() {
    let mut deviations = 0;
    for case in section("socketio_decode") {
        let messages: Vec<Value> = case.read("in");
        let expected: Vec<Value> = case.read("out");
        let mut decoder = Decoder::new(Parser::Json, 10);
        let (mut packets, mut error) = (Vec::new(), None);
        for message in &messages {
            let decoded = match message {
                Value::String(text) => decoder.text(text.as_str().into()),
                binary => decoder.binary(bytes(binary).expect("binary").into()),
            };
            match decoded {
                Ok(packet) => packets.extend(packet),
                Err(err) => {
                    error = Some(err);
                    break;
                }
            }
        }

        if let Some(refusal) = deviation(&messages) {
            deviations += 1;
            assert_eq!((packets, error), (vec![], Some(refusal)), "{messages:?}");
            continue;
        }
        assert_eq!(error.map(|err| err.to_string()), case.get("error").map(|_| case.read("error")), "{messages:?}");
        assert_eq!(packets.len(), expected.len(), "{messages:?}");
        for (packet, expected) in packets.iter().zip(&expected) {
            assert_same(packet, expected);
        }
    }
    assert_eq!(deviations, 4);
}

#[test]
fn socketio_packets_encode() {
    let mut not_a_servers = 0;
    for case in section("socketio_encode") {
        let packet: HashMap<String, Box<RawValue>> = case.read("in");
        let get = |key: &str| packet.get(key).map(|raw| raw.get());
        let nsp: String = serde_json::from_str(get("nsp").expect("a namespace")).expect("a string");
        let id = get("id").map(|id| id.parse::<u64>().expect("a number"));
        let encoded = match get("type").expect("a type") {
            // A server sends `0` with an id and nothing else.
            "0" => match get("data").map(|data| serde_json::from_str::<Value>(data).expect("JSON")) {
                Some(data) if data == json!({ "sid": data["sid"] }) => vec![Parser::Json.connect(&nsp, Some(&sid(&data)), None)],
                _ => {
                    not_a_servers += 1;
                    continue;
                }
            },
            "1" => vec![Parser::Json.disconnect(&nsp)],
            "2" => {
                let data: Vec<&RawValue> = serde_json::from_str(get("data").expect("data")).expect("an array");
                let name: String = serde_json::from_str(data[0].get()).expect("a name");
                Parser::Json.event(&nsp, id, &name, &arguments(&data[1..]))
            }
            "3" => {
                let data: Vec<&RawValue> = serde_json::from_str(get("data").expect("data")).expect("an array");
                Parser::Json.ack(&nsp, &id.expect("an id").into(), &arguments(&data))
            }
            "4" => {
                let error: Value = serde_json::from_str(get("data").expect("data")).expect("an object");
                let data = error.get("data").map(|data| to_raw_value(data).expect("JSON"));
                vec![Parser::Json.connect_error(&nsp, error["message"].as_str().expect("a message"), data.as_deref())]
            }
            other => panic!("type {other}"),
        };
        assert_eq!(encoded.iter().map(message).collect::<Vec<_>>(), case.read::<Vec<Value>>("out"), "{packet:?}");
    }
    assert_eq!(not_a_servers, 3);
}

#[test]
fn notepacks_values_decode_and_encode() {
    let (mut decoded, mut encoded) = (0, 0);
    for case in section("notepack").iter().filter(|case| case.get("error").is_none()) {
        let (name, hex, expected): (String, String, Value) = (case.read("in"), case.read("hex"), case.read("decoded"));
        // The vectors show only the beginning of long texts.
        let is_whole = !name.starts_with("str");
        if is_whole {
            // {type:2,nsp:"/",data:["x",…]}
            let message = format!("83a47479706502a36e7370a12fa46461746192a178{hex}");
            let packet = Decoder::new(Parser::MsgPack, 10).binary(unhex(&message).into()).expect("a packet").expect("whole");
            let Body::Event { args, .. } = packet.body else { panic!("an event") };
            assert_arguments(&args, std::slice::from_ref(&expected));
            decoded += 1;
        }
        // JSON shows these as another value.
        let is_same = !name.starts_with("Date") && name != "NaN";
        if is_same {
            let argument = to_raw_value(&expected).expect("JSON");
            let [packet] = Parser::MsgPack.event("/", None, "x", &arguments(&[&argument])).try_into().expect("one packet");
            let value = unhex(&hex);
            assert!(packet.is_binary());
            assert_eq!(packet.payload().get(21..).and_then(|rest| rest.get(..value.len())), Some(&*value), "{name}");
            assert!(!is_whole || packet.payload().len() == 21 + value.len(), "{name}");
            encoded += 1;
        }
    }
    assert_eq!((decoded, encoded), (27, 26));
}

/// Where we refuse what the reference's decoder lets through.
///
/// An event without payload would be dispatched without a name. The empty message never reaches the reference's decoder as such:
/// its Engine.IO hands it on as undefined, which is refused.
fn deviation(messages: &[Value]) -> Option<DecodeError> {
    match messages.first()?.as_str()? {
        "2" | "20" | "51-" => Some(DecodeError::InvalidPayload),
        "" => Some(DecodeError::UnknownType("NaN")),
        _ => None,
    }
}

fn engineio<E>(packet: &Result<eio::Packet, E>) -> Value {
    let with =
        |kind: &str, text: &str| if text.is_empty() { json!({ "type": kind }) } else { json!({ "type": kind, "data": text }) };
    match packet {
        Ok(eio::Packet::Open(data)) => with("open", data),
        Ok(eio::Packet::Close) => with("close", ""),
        Ok(eio::Packet::Ping(data)) => with("ping", data),
        Ok(eio::Packet::Pong(data)) => with("pong", data),
        Ok(eio::Packet::Message(Message::Text(text))) => with("message", text),
        Ok(eio::Packet::Message(Message::Binary(bytes))) => json!({ "type": "message", "data": binary(bytes) }),
        Ok(eio::Packet::Upgrade) => with("upgrade", ""),
        Ok(eio::Packet::Noop) => with("noop", ""),
        Err(_) => with("error", "parser error"),
    }
}

fn assert_same(packet: &Packet, expected: &Value) {
    assert_eq!(expected["nsp"], *packet.namespace, "{expected}");
    match &packet.body {
        Body::Connect { auth } => {
            assert_eq!(expected["type"], 0);
            assert_eq!(expected.get("data"), parse(auth.as_deref()).as_ref());
        }
        Body::Disconnect => assert_eq!(expected["type"], 1),
        Body::Event { name, args, ack } => {
            assert_eq!(expected["type"], 2);
            assert_eq!(expected["id"].as_f64(), ack.as_ref().map(|id| id.as_str().parse().expect("digits")), "{expected}");
            let data = expected["data"].as_array().expect("an array");
            assert_eq!(*name, data[0].as_str().map_or_else(|| data[0].to_string(), str::to_owned));
            assert_arguments(args, &data[1..]);
        }
        Body::Ack { id, args } => {
            assert_eq!(expected["type"], 3);
            assert_eq!(expected["id"].as_u64(), *id, "{expected}");
            assert_arguments(args, expected["data"].as_array().map_or(&[], Vec::as_slice));
        }
        Body::ConnectError { data } => {
            assert_eq!(expected["type"], 4);
            assert_eq!(expected.get("data"), parse(data.as_deref()).as_ref());
        }
    }
}

fn assert_arguments(args: &Args, expected: &[Value]) {
    if args.json() == "[1e400]" {
        // JavaScript reads infinity, which its JSON shows as null; we pass on what came.
        return assert_eq!(expected, [json!(null)]);
    }
    let mut arguments: Vec<Value> = args.all().expect("JSON");
    arguments.iter_mut().for_each(|value| attach(value, args.attachments()));
    assert_eq!(arguments.len(), expected.len());
    for (argument, expected) in arguments.iter().zip(expected) {
        // Numbers are doubles there.
        match (argument.as_f64(), expected.as_f64()) {
            (Some(ours), Some(theirs)) => assert_eq!(ours, theirs),
            _ => assert_eq!(argument, expected),
        }
    }
}

/// Puts attachments in the place of their placeholders, as the vectors show them.
fn attach(value: &mut Value, attachments: &[Bytes]) {
    match value {
        Value::Object(object) if object.contains_key("_placeholder") => {
            let num = object["num"].as_u64().expect("checked by the decoder");
            *value = binary(&attachments[usize::try_from(num).expect("small")]);
        }
        Value::Object(object) => object.values_mut().for_each(|value| attach(value, attachments)),
        Value::Array(array) => array.iter_mut().for_each(|value| attach(value, attachments)),
        _ => {}
    }
}

/// Values, or the JSON as it stands there when it holds half a character.
fn arguments(data: &[&RawValue]) -> Args {
    struct Arguments(Vec<Value>);
    struct Argument<'a>(&'a Value);

    impl Serialize for Arguments {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut tuple = serializer.serialize_tuple(self.0.len())?;
            self.0.iter().try_for_each(|argument| tuple.serialize_element(&Argument(argument)))?;
            tuple.end()
        }
    }

    impl Serialize for Argument<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0 {
                value if bytes(value).is_some() => serializer.serialize_bytes(&bytes(value).expect("asked before")),
                Value::Object(object) => serializer.collect_map(object.iter().map(|(key, value)| (key, Argument(value)))),
                Value::Array(array) => serializer.collect_seq(array.iter().map(Argument)),
                other => other.serialize(serializer),
            }
        }
    }

    match data.iter().map(|raw| serde_json::from_str(raw.get())).collect() {
        Ok(values) => Args::new(&Arguments(values)).expect("JSON"),
        Err(_) => {
            let raw: Vec<&str> = data.iter().map(|raw| raw.get()).collect();
            Args::from_raw(&format!("[{}]", raw.join(",")), Vec::new()).expect("JSON")
        }
    }
}

fn message(packet: &Encoded) -> Value {
    if packet.is_binary() {
        return binary(packet.payload());
    }
    let text = std::str::from_utf8(packet.payload()).expect("text");
    json!(text.strip_prefix('4').expect("an Engine.IO message"))
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |at| hex.get(at..at + 2).and_then(|byte| u8::from_str_radix(byte, 16).ok()).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn sid(data: &Value) -> SocketId {
    SocketId::from(data["sid"].as_str().expect("a string"))
}

fn parse(json: Option<&str>) -> Option<Value> {
    json.map(|json| serde_json::from_str(json).expect("validated by the decoder"))
}

fn binary(bytes: &[u8]) -> Value {
    json!({ "$bin": BASE64_STANDARD.encode(bytes) })
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(value.get("$bin")?.as_str()?).ok()
}

/// One vector; its parts stay JSON, because some hold half a character.
struct Case(HashMap<String, Box<RawValue>>);

impl Case {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|raw| raw.get())
    }

    fn read<T: serde::de::DeserializeOwned>(&self, key: &str) -> T {
        serde_json::from_str(self.get(key).expect("present")).expect("of this form")
    }
}

fn section(name: &str) -> Vec<Case> {
    let sections: HashMap<String, Box<RawValue>> =
        serde_json::from_str(include_str!("vectors/parsers.json")).expect("the vectors are JSON");
    let cases: Vec<HashMap<String, Box<RawValue>>> = serde_json::from_str(sections[name].get()).expect("a list of cases");
    assert!(!cases.is_empty());
    cases.into_iter().map(Case).collect()
}
