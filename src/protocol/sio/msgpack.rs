//! Packets in msgpack, as `socket.io-msgpack-parser` has them: one map in one binary message, with bytes where they belong.

use super::decode::is_reserved;
use super::transcode::{ENDLESS, Head, Json, Reader, append_json, append_number, append_str};
use super::{AckId, Args, Body, DecodeError, Packet};
use crate::protocol::eio::Encoded;
use crate::protocol::sid::SocketId;
use bytes::Bytes;
use bytestring::ByteString;
use rmp::encode::{write_array_len, write_map_len};
use serde_json::value::RawValue;
use smol_str::SmolStr;

/// `{type:0,nsp,data:{sid,pid}}`, or no data to a client that is told no id.
pub(super) fn connect(namespace: &str, id: Option<&SocketId>, pid: Option<&str>) -> Encoded {
    Encoded::binary_with(SPARE, |out| {
        begin(out, "0", namespace, u32::from(id.is_some()));
        let Some(id) = id else { return };
        append_str(out, "data");
        write_map_len(out, 1 + u32::from(pid.is_some())).expect(ENDLESS);
        append_str(out, "sid");
        append_str(out, id.as_str());
        if let Some(pid) = pid {
            append_str(out, "pid");
            append_str(out, pid);
        }
    })
}

/// `{type:4,nsp,data:{message,data}}`
pub(super) fn connect_error(namespace: &str, message: &str, data: Option<&RawValue>) -> Encoded {
    Encoded::binary_with(SPARE, |out| {
        begin(out, "4", namespace, 1);
        append_str(out, "data");
        write_map_len(out, 1 + u32::from(data.is_some())).expect(ENDLESS);
        append_str(out, "message");
        append_str(out, message);
        if let Some(data) = data {
            append_str(out, "data");
            append_json(out, data.get(), &[]);
        }
    })
}

/// `{type:4,nsp,data}`, where the data is the message if there is no other
pub(super) fn plain_connect_error(namespace: &str, message: &str, data: Option<&RawValue>) -> Encoded {
    Encoded::binary_with(SPARE, |out| {
        begin(out, "4", namespace, 1);
        append_str(out, "data");
        match data {
            Some(data) => append_json(out, data.get(), &[]),
            None => append_str(out, message),
        }
    })
}

/// `{type:1,nsp}`
pub(super) fn disconnect(namespace: &str) -> Encoded {
    Encoded::binary_with(SPARE, |out| begin(out, "1", namespace, 0))
}

/// `{type:2,nsp,data:[name,…],id}`
pub(super) fn event(namespace: &str, ack: Option<u64>, name: &str, args: &Args) -> Encoded {
    Encoded::binary_with(SPARE + name.len() + size(args), |out| {
        begin(out, "2", namespace, 1 + u32::from(ack.is_some()));
        append_data(out, Some(name), args);
        if let Some(id) = ack {
            append_str(out, "id");
            append_number(out, &id.to_string());
        }
    })
}

/// `{type:3,nsp,data:[…],id}`
pub(super) fn ack(namespace: &str, id: &AckId, args: &Args) -> Encoded {
    Encoded::binary_with(SPARE + size(args), |out| {
        begin(out, "3", namespace, 2);
        append_data(out, None, args);
        append_str(out, "id");
        append_number(out, id.as_str());
    })
}

/// Room for the keys and short values of a packet.
const SPARE: usize = 64;

/// About so many bytes.
fn size(args: &Args) -> usize {
    args.tail().len() + args.attachments().iter().map(Bytes::len).sum::<usize>()
}

fn begin(out: &mut Vec<u8>, kind: &str, namespace: &str, members: u32) {
    write_map_len(out, 2 + members).expect(ENDLESS);
    append_str(out, "type");
    append_number(out, kind);
    append_str(out, "nsp");
    append_str(out, namespace);
}

fn append_data(out: &mut Vec<u8>, name: Option<&str>, args: &Args) {
    append_str(out, "data");
    let len = args.len() + usize::from(name.is_some());
    write_array_len(out, u32::try_from(len).expect("its text is shorter than 4 GiB")).expect(ENDLESS);
    if let Some(name) = name {
        append_str(out, name);
    }
    append_json(out, args.tail(), args.attachments());
}

/// Reads a packet as the reference's parser checks it; besides, an event has a name that is not reserved, as in JSON.
///
/// Clients in Python write nil where JavaScript's have no data: it is none.
pub(super) fn decode(message: &Bytes, max_attachments: usize) -> Result<Packet, DecodeError> {
    let mut reader = Reader::of(message);
    let Head::Map(members) = reader.head()? else { return Err(DecodeError::InvalidType) };
    let (mut kind, mut namespace, mut data, mut id) = (None, None, None, None);
    for _ in 0..members {
        let Head::Str(key) = reader.head()? else { return Err(DecodeError::Malformed) };
        let mut value = reader.clone();
        reader.skip()?;
        let value = if value.skip_undefined()? { None } else { Some(value) };
        match key {
            b"type" => kind = value,
            b"nsp" => namespace = value,
            b"data" => data = value,
            b"id" => id = value,
            _ => {}
        }
    }
    if !reader.is_empty() {
        return Err(DecodeError::Malformed);
    }

    let kind = kind.and_then(integer).ok_or(DecodeError::InvalidType)?;
    let namespace = match namespace.as_mut().map(Reader::head).transpose()? {
        Some(Head::Str(name)) => reader.text(name),
        _ => return Err(DecodeError::InvalidNamespace),
    };
    let id = match id {
        Some(id) => Some(integer(id).ok_or(DecodeError::InvalidId)?),
        None => None,
    };
    let whole = data.clone();
    let body = match (kind.as_str(), data.as_mut().map(Reader::head).transpose()?, data) {
        ("0", None | Some(Head::Nil), _) => Body::Connect { auth: None },
        ("0", Some(Head::Map(_)), _) => Body::Connect { auth: whole.map(plain).transpose()? },
        ("1", None | Some(Head::Nil), _) => Body::Disconnect,
        ("2", Some(Head::Array(len @ 1..)), Some(list)) => {
            let (name, args) = name_and_arguments(list, len, max_attachments)?;
            Body::Event { name, args, ack: id.map(|id| AckId(id.into())) }
        }
        ("3", Some(Head::Array(len)), Some(list)) => {
            Body::Ack { id: id.and_then(|id| id.parse().ok()), args: arguments(list, len, max_attachments)? }
        }
        ("4", Some(Head::Map(_) | Head::Str(_)), _) => Body::ConnectError { data: whole.map(plain).transpose()? },
        ("0" | "1" | "2" | "3" | "4", ..) => return Err(DecodeError::InvalidPayload),
        _ => return Err(DecodeError::InvalidType),
    };
    Ok(Packet { namespace, body })
}

/// A name, and the rest of the list that it begins.
pub(crate) fn name_and_arguments(mut list: Reader<'_>, len: u32, max_attachments: usize) -> Result<(SmolStr, Args), DecodeError> {
    let name = match list.clone().head()? {
        Head::Str(name) => {
            list.skip()?;
            list.text(name)
        }
        Head::Unsigned(_) | Head::Signed(_) | Head::Float(_) => {
            let mut number = Json::with_attachments(0);
            number.append(&mut list, 1)?;
            number.finish()?.0
        }
        _ => return Err(DecodeError::InvalidPayload),
    };
    if is_reserved(&name) {
        return Err(DecodeError::InvalidPayload);
    }
    Ok(((*name).into(), arguments(list, len - 1, max_attachments)?))
}

/// So many values of a list.
pub(crate) fn arguments(mut list: Reader<'_>, len: u32, max_attachments: usize) -> Result<Args, DecodeError> {
    let mut json = Json::with_attachments(max_attachments);
    json.append(&mut list, len)?;
    let (tail, attachments) = json.finish()?;
    Ok(Args::whole(tail, len as usize, attachments))
}

/// A value as JSON, which holds no bytes.
fn plain(mut value: Reader<'_>) -> Result<ByteString, DecodeError> {
    let mut json = Json::with_attachments(0);
    json.append(&mut value, 1)?;
    json.finish().map(|(text, _)| text)
}

/// The digits of what JavaScript takes for an integer.
fn integer(mut value: Reader<'_>) -> Option<String> {
    match value.head().ok()? {
        Head::Unsigned(number) => Some(number.to_string()),
        Head::Signed(number) => Some(number.to_string()),
        Head::Float(number) if number.trunc() == number && number.is_finite() => Some((number + 0.0).to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::sio::{Decoder, Parser};
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn packets_read_as_the_reference_writes_them() {
        let sid = SocketId::from("3-11abcdefghijklmnop");
        let args = Args::new(&(1, Bytes::from_static(b"ab"), json!({"a": [null]}))).expect("JSON");
        let data = serde_json::value::to_raw_value(&json!({"_placeholder": true, "num": 0})).expect("JSON");
        for (packet, expected) in [
            (connect("/", Some(&sid), None), json!({"type": 0, "nsp": "/", "data": {"sid": sid.as_str()}})),
            (connect("/é", Some(&sid), Some("p")), json!({"type": 0, "nsp": "/é", "data": {"sid": sid.as_str(), "pid": "p"}})),
            (connect("/", None, None), json!({"type": 0, "nsp": "/"})),
            (connect_error("/a", "no", None), json!({"type": 4, "nsp": "/a", "data": {"message": "no"}})),
            (connect_error("/", "no", Some(&data)), json!({"type": 4, "nsp": "/", "data": {"message": "no", "data": &*data}})),
            (plain_connect_error("/a", "no", None), json!({"type": 4, "nsp": "/a", "data": "no"})),
            (plain_connect_error("/", "no", Some(&data)), json!({"type": 4, "nsp": "/", "data": &*data})),
            (disconnect("/a"), json!({"type": 1, "nsp": "/a"})),
            (event("/", None, "é", &Args::none()), json!({"type": 2, "nsp": "/", "data": ["é"]})),
            (
                event("/a", Some(300), "x", &args),
                json!({"type": 2, "nsp": "/a", "data": ["x", 1, {"_placeholder": true, "num": 0}, {"a": [null]}], "id": 300}),
            ),
            (
                ack("/", &7.into(), &args),
                json!({"type": 3, "nsp": "/", "data": [1, {"_placeholder": true, "num": 0}, {"a": [null]}], "id": 7}),
            ),
        ] {
            assert!(packet.is_binary());
            let message = Bytes::copy_from_slice(packet.payload());
            let mut json = Json::with_attachments(1);
            let mut reader = Reader::of(&message);
            json.append(&mut reader, 1).expect("msgpack");
            assert!(reader.is_empty());
            let text = json.finish().expect("one of them").0;
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), expected);
        }
    }

    #[test]
    fn clients_send_what_the_reference_lets_them_send() {
        let packet = |body| Ok(Packet { namespace: "/a".into(), body });
        let auth = |auth: Option<&str>| packet(Body::Connect { auth: auth.map(Into::into) });
        let ack = |id, args: &str| packet(Body::Ack { id, args: Args::from_raw(args, Vec::new()).expect("JSON") });
        let event = |name: &str, args: &str, ack: Option<&str>| {
            let ack = ack.map(|id| AckId(id.into()));
            packet(Body::Event { name: name.into(), args: Args::from_raw(args, Vec::new()).expect("JSON"), ack })
        };
        for (message, expected) in [
            (r#"{"type":0,"nsp":"/a"}"#, auth(None)),
            (r#"{"type":0,"nsp":"/a","data":null}"#, auth(None)),
            (r#"{"data":{"b":[1]},"nsp":"/a","type":0}"#, auth(Some(r#"{"b":[1]}"#))),
            (r#"{"type":0,"nsp":"/a","data":[]}"#, Err(DecodeError::InvalidPayload)),
            (r#"{"type":0,"nsp":"/a","data":"x"}"#, Err(DecodeError::InvalidPayload)),
            (r#"{"type":1,"nsp":"/a","options":{"compress":true}}"#, packet(Body::Disconnect)),
            (r#"{"type":1,"nsp":"/a","data":null}"#, packet(Body::Disconnect)),
            (r#"{"type":1,"nsp":"/a","data":{}}"#, Err(DecodeError::InvalidPayload)),
            (r#"{"type":2,"nsp":"/a","data":["x"]}"#, event("x", "[]", None)),
            (r#"{"type":2,"nsp":"/a","data":["x",[1],"é"],"id":0}"#, event("x", r#"[[1],"é"]"#, Some("0"))),
            (r#"{"type":2,"nsp":"/a","data":[5,1],"id":18446744073709551616}"#, event("5", "[1]", Some("18446744073709552000"))),
            (r#"{"type":2,"nsp":"/a","data":[1.5],"id":-1}"#, event("1.5", "[]", Some("-1"))),
            (r#"{"type":2,"nsp":"/a","data":[]}"#, Err(DecodeError::InvalidPayload)),
            (r#"{"type":2,"nsp":"/a","data":[null]}"#, Err(DecodeError::InvalidPayload)),
            (r#"{"type":2,"nsp":"/a","data":[["x"]]}"#, Err(DecodeError::InvalidPayload)),
            (r#"{"type":2,"nsp":"/a","data":["disconnecting"]}"#, Err(DecodeError::InvalidPayload)),
            (r#"{"type":2,"nsp":"/a","data":{}}"#, Err(DecodeError::InvalidPayload)),
            (r#"{"type":2,"nsp":"/a"}"#, Err(DecodeError::InvalidPayload)),
            (r#"{"type":2,"nsp":"/a","data":["x"],"id":"1"}"#, Err(DecodeError::InvalidId)),
            (r#"{"type":2,"nsp":"/a","data":["x"],"id":1.5}"#, Err(DecodeError::InvalidId)),
            (r#"{"type":2,"nsp":"/a","data":["x"],"id":null}"#, Err(DecodeError::InvalidId)),
            (r#"{"type":3,"nsp":"/a","data":[],"id":12}"#, ack(Some(12), "[]")),
            (r#"{"type":3,"nsp":"/a","data":[1,2]}"#, ack(None, "[1,2]")),
            (r#"{"type":3,"nsp":"/a","data":[],"id":-1}"#, ack(None, "[]")),
            (r#"{"type":3,"nsp":"/a","data":null,"id":1}"#, Err(DecodeError::InvalidPayload)),
            (r#"{"type":4,"nsp":"/a","data":"x"}"#, packet(Body::ConnectError { data: Some(r#""x""#.into()) })),
            (r#"{"type":4,"nsp":"/a","data":1}"#, Err(DecodeError::InvalidPayload)),
            (r#"{"type":5,"nsp":"/a","data":["x"]}"#, Err(DecodeError::InvalidType)),
            (r#"{"type":-1,"nsp":"/a"}"#, Err(DecodeError::InvalidType)),
            (r#"{"type":0.5,"nsp":"/a"}"#, Err(DecodeError::InvalidType)),
            (r#"{"type":"0","nsp":"/a"}"#, Err(DecodeError::InvalidType)),
            (r#"{"nsp":"/a"}"#, Err(DecodeError::InvalidType)),
            ("[0]", Err(DecodeError::InvalidType)),
            ("null", Err(DecodeError::InvalidType)),
            (r#"{"type":0}"#, Err(DecodeError::InvalidNamespace)),
            (r#"{"type":0,"nsp":5}"#, Err(DecodeError::InvalidNamespace)),
            (r#"{"type":0,"nsp":"/a"},1"#, Err(DecodeError::Malformed)),
        ] {
            let mut out = Vec::new();
            append_json(&mut out, message, &[]);
            assert_eq!(decode(&out.into(), 10), expected, "{message}");
        }
    }

    #[test]
    fn undefined_is_as_if_it_were_not_there() {
        let undefined = [0xd4, 0, 0];
        let mut message = vec![0x84];
        for (key, value) in [("type", &[1][..]), ("nsp", &[0xa1, b'/']), ("data", &undefined), ("id", &undefined)] {
            append_str(&mut message, key);
            message.extend_from_slice(value);
        }
        assert_eq!(decode(&message.into(), 10), Ok(Packet { namespace: "/".into(), body: Body::Disconnect }));
    }

    #[test]
    fn bytes_are_counted_and_credentials_hold_none() {
        let args = |count| Args::new(&vec![Bytes::from_static(b"x"); count]).expect("JSON");
        let relay = |packet: Encoded| decode(&Bytes::copy_from_slice(packet.payload()), 2);
        assert!(relay(event("/", None, "x", &args(2))).is_ok());
        assert_eq!(relay(event("/", None, "x", &args(3))), Err(DecodeError::TooManyAttachments));
        assert_eq!(relay(ack("/", &0.into(), &args(3))), Err(DecodeError::TooManyAttachments));
        let mut message = Vec::new();
        let connect = r#"{"type":0,"nsp":"/","data":{"key":{"_placeholder":true,"num":0}}}"#;
        append_json(&mut message, connect, &[Bytes::from_static(b"x")]);
        assert_eq!(decode(&message.into(), 2), Err(DecodeError::TooManyAttachments));
    }

    #[test]
    fn a_text_message_is_no_packet() {
        let mut decoder = Decoder::new(Parser::MsgPack, 10);
        assert_eq!(decoder.text(r#"2["x"]"#.into()), Err(DecodeError::Malformed));
        assert_eq!(decoder.text("0".into()), Err(DecodeError::Malformed));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_again(namespace in "/[^,]{0,8}", name: String, id: Option<u64>, args in args()) {
            prop_assume!(!is_reserved(&name));
            let relay = |packet: Encoded| decode(&Bytes::copy_from_slice(packet.payload()), 100);
            let body = Body::Event { name: name.clone().into(), args: args.clone(), ack: id.map(AckId::from) };
            prop_assert_eq!(relay(event(&namespace, id, &name, &args)), Ok(Packet { namespace: namespace.clone().into(), body }));
            let id = id.unwrap_or(u64::MAX);
            let body = Body::Ack { id: Some(id), args: args.clone() };
            prop_assert_eq!(relay(ack(&namespace, &id.into(), &args)), Ok(Packet { namespace: namespace.into(), body }));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes.into(), 100);
        }

        #[test]
        fn no_damage_to_a_packet_panics(args in args(), at: prop::sample::Index, cut in 0..4_usize, insert: Option<u8>) {
            let mut packet = event("/ü", Some(1), "x", &args).payload().to_vec();
            let at = at.index(packet.len());
            packet.splice(at..(at + cut).min(packet.len()), insert);
            if let Ok(Packet { body: Body::Event { args, .. } | Body::Ack { args, .. }, .. }) = decode(&packet.into(), 100) {
                prop_assert_eq!(args.raw().len(), args.len());
                let again = Args::from_raw(&args.json(), args.attachments().to_vec());
                prop_assert_eq!(again.expect("as it stands"), args);
            }
        }
    }

    fn args() -> impl Strategy<Value = Args> {
        let number = any::<f64>().prop_filter("an integer is written as one", |number| number.fract() != 0.0);
        (any::<(String, i64)>(), prop::option::of(number), prop::collection::vec(any::<Vec<u8>>(), 0..4)).prop_map(
            |(plain, number, bytes)| {
                let bytes: Vec<Bytes> = bytes.into_iter().map(Bytes::from).collect();
                Args::new(&(plain, number, bytes)).expect("JSON")
            },
        )
    }
}
