//! What a node answers: JSON, but for an acknowledgement, which may hold bytes and is msgpack.

use super::request::{SERVER_SIDE_EMIT, plain, raw, rooms, string};
use super::{Bounds, WireError, head, members};
use crate::hub::Room;
use crate::protocol::sid::SocketId;
use crate::protocol::sio::transcode::{Head, Reader, append_json_within, append_map, append_number, append_str};
use crate::protocol::sio::{Args, arguments};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

const CLIENT_COUNT: u64 = 8;
const ACK: u64 = 9;

/// What a node answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Response<'a> {
    /// The request that it answers.
    pub id: Cow<'a, str>,
    /// Who answers: only nodes of ours say so.
    pub sender: Option<Cow<'a, str>>,
    /// What it answers.
    pub body: Answer,
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// It was done, or there was nothing to do.
    Done,
    /// The ids of sockets, or what is known of them: a list of JSON values.
    Sockets(Vec<Box<RawValue>>),
    /// The rooms that somebody is in.
    Rooms(Vec<Room>),
    /// What a server acknowledges with: the first value counts.
    ServerSide(Args),
    /// How many sockets were sent an event that they are to acknowledge.
    ClientCount(u64),
    /// One of them has acknowledged with this value; the reference does not say which.
    Ack(Option<SocketId>, Args),
}

impl PartialEq for Answer {
    fn eq(&self, other: &Self) -> bool {
        let texts = |values: &[Box<RawValue>]| values.iter().map(|value| value.get().to_owned()).collect::<Vec<_>>();
        match (self, other) {
            (Self::Done, Self::Done) => true,
            (Self::Sockets(a), Self::Sockets(b)) => texts(a) == texts(b),
            (Self::Rooms(a), Self::Rooms(b)) => a == b,
            (Self::ServerSide(a), Self::ServerSide(b)) => a == b,
            (Self::ClientCount(a), Self::ClientCount(b)) => a == b,
            (Self::Ack(a, x), Self::Ack(b, y)) => (a, x) == (b, y),
            _ => false,
        }
    }
}

/// A response as it stands in JSON, in the reference's order; what only ours say comes last.
#[derive(Serialize, Deserialize)]
struct Json<'a> {
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<u64>,
    #[serde(borrow, rename = "requestId")]
    request_id: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sockets: Option<Cow<'a, [Box<RawValue>]>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    rooms: Option<Cow<'a, RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(default, rename = "clientCount", skip_serializing_if = "Option::is_none")]
    client_count: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    uid: Option<Cow<'a, str>>,
}

impl<'a> Response<'a> {
    /// Writes a response.
    ///
    /// # Errors
    /// [`WireError::TooLong`]
    pub fn encode(&self, bounds: &Bounds) -> Result<Vec<u8>, WireError> {
        let mut json = Json {
            kind: None,
            request_id: Cow::Borrowed(&*self.id),
            sockets: None,
            rooms: None,
            data: None,
            client_count: None,
            uid: self.sender.as_deref().map(Cow::Borrowed),
        };
        match &self.body {
            Answer::Done => {}
            Answer::Sockets(sockets) => json.sockets = Some(Cow::Borrowed(sockets)),
            Answer::Rooms(rooms) => json.rooms = Some(raw(rooms)),
            Answer::ServerSide(args) => {
                json.kind = Some(SERVER_SIDE_EMIT);
                json.data = first(args, bounds)?;
            }
            Answer::ClientCount(count) => {
                json.kind = Some(CLIENT_COUNT);
                json.client_count = Some(*count);
            }
            Answer::Ack(socket, args) => return self.encode_ack(socket.as_ref(), args, bounds),
        }
        let out = serde_json::to_vec(&json).expect("strings and numbers are JSON");
        if out.len() > bounds.bytes { Err(WireError::TooLong) } else { Ok(out) }
    }

    fn encode_ack(&self, socket: Option<&SocketId>, args: &Args, bounds: &Bounds) -> Result<Vec<u8>, WireError> {
        let mut out = Vec::with_capacity(96 + args.tail().len());
        append_map(&mut out, 3 + u32::from(socket.is_some()) + u32::from(self.sender.is_some()));
        append_str(&mut out, "type");
        append_number(&mut out, "9");
        append_str(&mut out, "requestId");
        append_str(&mut out, &self.id);
        append_str(&mut out, "packet");
        // The first argument and no other, as in the reference.
        let first = args.raw().first().map_or("null", |first| first.get());
        append_json_within(&mut out, first, args.attachments(), bounds.bytes)?;
        if let Some(socket) = socket {
            append_str(&mut out, "sid");
            append_str(&mut out, socket.as_str());
        }
        if let Some(sender) = &self.sender {
            append_str(&mut out, "uid");
            append_str(&mut out, sender);
        }
        Ok(out)
    }

    /// Which request a message answers, where it begins with that, as the long ones do; all nodes hear all of them, and one alone has to read it.
    pub fn asked(message: &[u8]) -> Option<&str> {
        let rest = message.strip_prefix(br#"{"requestId":""#)?;
        let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        let (id, rest) = rest.split_at_checked(end)?;
        if rest.first() == Some(&b'"') { std::str::from_utf8(id).ok() } else { None }
    }

    /// Reads a response.
    ///
    /// # Errors
    /// It is to be skipped.
    pub fn decode(message: &'a Bytes, bounds: &Bounds) -> Result<Self, WireError> {
        if message.len() > bounds.bytes {
            return Err(WireError::TooLong);
        }
        if message.first() != Some(&b'{') {
            return Self::decode_ack(message, bounds);
        }
        let json: Json<'a> = serde_json::from_slice(message).map_err(|_| WireError::Malformed)?;
        let body = match (json.kind, json.sockets, json.rooms) {
            (Some(SERVER_SIDE_EMIT), ..) => Answer::ServerSide(only(json.data)),
            (Some(CLIENT_COUNT), ..) => Answer::ClientCount(json.client_count.ok_or(WireError::Malformed)?),
            (Some(_), ..) => return Err(WireError::Malformed),
            (None, Some(sockets), _) => Answer::Sockets(sockets.into_owned()),
            (None, None, Some(names)) => Answer::Rooms(rooms(&names, bounds)?),
            (None, None, None) => Answer::Done,
        };
        Ok(Self { id: json.request_id, sender: json.uid, body })
    }

    fn decode_ack(message: &'a Bytes, bounds: &Bounds) -> Result<Self, WireError> {
        let mut reader = Reader::of(message);
        let (mut id, mut sender, mut socket, mut is_ack, mut value) = (None, None, None, false, None);
        members(&mut reader, |key, reader| {
            match key {
                b"type" => is_ack = head(reader)? == Head::Unsigned(ACK),
                b"requestId" => id = Some(string(reader)?),
                b"uid" => sender = Some(string(reader)?),
                b"sid" => socket = Some(SocketId::from(&*string(reader)?)),
                b"packet" => {
                    value = Some(reader.clone());
                    reader.skip()?;
                }
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        match (id, value) {
            (Some(id), Some(value)) if is_ack && reader.is_empty() => {
                Ok(Self { id, sender, body: Answer::Ack(socket, arguments(value, 1, bounds.attachments)?) })
            }
            _ => Err(WireError::Malformed),
        }
    }
}

/// The first argument, in which bytes are as Node's `Buffer` shows them.
fn first(args: &Args, bounds: &Bounds) -> Result<Option<Box<RawValue>>, WireError> {
    let list = plain(None, args, bounds)?;
    let values: Vec<&RawValue> = serde_json::from_str(list.get()).expect("a list");
    Ok(values.first().map(|first| (*first).to_owned()))
}

/// A value as arguments, null if there is none.
fn only(value: Option<Box<RawValue>>) -> Args {
    let list = value.map_or_else(|| "[null]".to_owned(), |value| format!("[{}]", value.get()));
    Args::from_raw(&list, Vec::new()).expect("a value in brackets is a list")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire::testing::{BOUNDS, rooms as names, unhex};
    use proptest::prelude::*;

    #[test]
    fn what_is_not_of_this_form_is_skipped() {
        for text in [
            "",
            "{",
            "{}",
            "null",
            r#"{"type":8,"requestId":"r"}"#,
            r#"{"type":1,"requestId":"r"}"#,
            r#"{"requestId":"r","rooms":{}}"#,
        ] {
            assert_eq!(Response::decode(&text.into(), &BOUNDS).err(), Some(WireError::Malformed), "{text}");
        }
        let many = format!(r#"{{"requestId":"r","rooms":[{}1]}}"#, "1,".repeat(100));
        assert_eq!(Response::decode(&many.into(), &BOUNDS).err(), Some(WireError::TooManyRooms));
        // Neither a kind, nor a value, nor more behind it.
        for message in [
            "82a9726571756573744964a172a67061636b6574c0",
            "82a47479706509a9726571756573744964a172",
            "83a47479706509a9726571756573744964a172a67061636b6574c0c0",
        ] {
            assert_eq!(Response::decode(&unhex(message), &BOUNDS).err(), Some(WireError::Malformed), "{message}");
        }
    }

    #[test]
    fn whom_an_answer_is_for_is_seen_at_its_beginning() {
        let response = Response { id: "é1".into(), sender: None, body: Answer::Sockets(Vec::new()) };
        assert_eq!(Response::asked(&response.encode(&BOUNDS).expect("short")), Some("é1"));
        for text in ["", r#"{"type":8,"requestId":"r"}"#, r#"{"requestId":"r"#, r#"{"requestId":"\u0072","sockets":[]}"#] {
            assert_eq!(Response::asked(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Response::asked(b"{\"requestId\":\"\xff\"}"), None);
    }

    #[test]
    fn a_socket_acknowledges_with_its_first_argument() {
        for (args, value) in [(Args::none(), "[null]"), (Args::new(&(1, 2)).expect("JSON"), "[1]")] {
            let response = Response { id: "r".into(), sender: None, body: Answer::Ack(None, args) };
            let message = response.encode(&BOUNDS).expect("short").into();
            let Answer::Ack(None, args) = Response::decode(&message, &BOUNDS).expect("written a line ago").body else {
                panic!("an ack")
            };
            assert_eq!(args.json(), value);
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(
            kind in 0..6_u8, texts in prop::collection::vec(any::<String>(), 0..4), count in 0..1_u64 << 53, bytes: Vec<u8>, sender: Option<String>, id: String,
        ) {
            let body = match kind {
                0 => Answer::Done,
                1 => Answer::Sockets(texts.iter().map(|text| raw(text).into_owned()).collect()),
                2 => Answer::Rooms(names(&texts)),
                3 => Answer::ServerSide(only(texts.first().map(|text| raw(text).into_owned()))),
                4 => Answer::ClientCount(count),
                _ => Answer::Ack(texts.first().map(|id| SocketId::from(&**id)), Args::new(&Bytes::from(bytes)).expect("JSON")),
            };
            let response = Response { id: id.into(), sender: sender.map(Into::into), body };
            let message: Bytes = response.encode(&BOUNDS).expect("short").into();
            prop_assert!(Response::asked(&message).is_none_or(|id| id == response.id));
            prop_assert_eq!(Response::decode(&message, &BOUNDS), Ok(response));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Response::asked(&bytes);
            let _ = Response::decode(&Bytes::from(bytes), &BOUNDS);
        }
    }
}
