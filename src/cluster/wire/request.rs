//! What a node asks of all others: JSON, but for a broadcast that wants acknowledgements, which is msgpack.

use super::broadcast::Packet;
use super::{Bounds, Scope, WireError, head, members};
use crate::hub::{Flags, Room, Target};
use crate::protocol::sio::transcode::{Head, Reader, append_map, append_number, append_str};
use crate::protocol::sio::{Args, DecodeError};
use bytes::Bytes;
use bytestring::ByteString;
use serde::de::{DeserializeSeed, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

const SOCKETS: u64 = 0;
const ALL_ROOMS: u64 = 1;
const JOIN: u64 = 2;
const LEAVE: u64 = 3;
const DISCONNECT: u64 = 4;
const FETCH: u64 = 5;
pub(super) const SERVER_SIDE_EMIT: u64 = 6;
const BROADCAST: u64 = 7;

/// What a node asks of all others.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Who asks; emitters leave it out.
    pub sender: Option<Cow<'a, str>>,
    /// What the response is to name, if one is wanted.
    pub id: Option<Cow<'a, str>>,
    /// What it asks.
    pub body: Wish<'a>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub enum Wish<'a> {
    /// The ids of the sockets in some rooms.
    Sockets(Vec<Room>),
    /// The rooms.
    AllRooms,
    /// That sockets join rooms.
    Join(Target, Vec<Room>),
    /// That sockets leave rooms.
    Leave(Target, Vec<Room>),
    /// That sockets are sent out, and with `true` their sessions closed.
    Disconnect(Target, bool),
    /// What is known of sockets.
    Fetch(Target),
    /// That the other servers hear of an event, which no client does.
    ServerSideEmit(ByteString, Args),
    /// That sockets are sent an event and acknowledge it.
    Broadcast(AckedBroadcast<'a>),
}

/// An event that sockets are to acknowledge, whose data was not looked at yet.
#[derive(Debug, Clone)]
pub struct AckedBroadcast<'a> {
    /// For whom it is, and for how long acknowledgements are waited for.
    pub scope: Scope,
    packet: Packet<'a>,
}

impl AckedBroadcast<'_> {
    /// The namespace that it is for.
    pub fn namespace(&self) -> ByteString {
        self.packet.namespace()
    }

    /// Reads the event: its name and arguments.
    ///
    /// # Errors
    /// It is none, or holds more than `bounds` allow.
    pub fn event(&self, bounds: &Bounds) -> Result<(ByteString, Args), WireError> {
        self.packet.event(bounds)
    }
}

/// A request as it stands in JSON, in the reference's order.
#[derive(Serialize, Deserialize)]
struct Json<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    uid: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "requestId", skip_serializing_if = "Option::is_none")]
    request_id: Option<Cow<'a, str>>,
    #[serde(rename = "type")]
    kind: u64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    opts: Option<Opts<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    rooms: Option<Cow<'a, RawValue>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    data: Option<Cow<'a, RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    close: Option<bool>,
    /// Of old nodes, which name one socket.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    sid: Option<Cow<'a, str>>,
    /// And one room.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    room: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct Opts<'a> {
    #[serde(borrow, default)]
    rooms: Option<Cow<'a, RawValue>>,
    #[serde(borrow, default)]
    except: Option<Cow<'a, RawValue>>,
}

impl<'a> Request<'a> {
    /// Writes a request, but for one that wants acknowledgements.
    ///
    /// # Errors
    /// [`WireError::TooLong`]
    pub fn encode(&self, bounds: &Bounds) -> Result<Vec<u8>, WireError> {
        let mut json = Json {
            uid: self.sender.clone(),
            request_id: self.id.clone(),
            kind: self.kind(),
            opts: None,
            rooms: None,
            data: None,
            close: None,
            sid: None,
            room: None,
        };
        match &self.body {
            Wish::Sockets(rooms) => json.rooms = Some(raw(rooms)),
            Wish::AllRooms => {}
            Wish::Join(target, rooms) | Wish::Leave(target, rooms) => {
                json.opts = Some(Opts::of(target));
                json.rooms = Some(raw(rooms));
            }
            Wish::Disconnect(target, close) => {
                json.opts = Some(Opts::of(target));
                json.close = Some(*close);
            }
            Wish::Fetch(target) => json.opts = Some(Opts::of(target)),
            Wish::ServerSideEmit(event, args) => json.data = Some(Cow::Owned(plain(Some(event), args, bounds)?)),
            Wish::Broadcast(_) => unreachable!("written by `encode_broadcast`, for it is read without being copied"),
        }
        let out = serde_json::to_vec(&json).expect("strings and numbers are JSON");
        if out.len() > bounds.bytes { Err(WireError::TooLong) } else { Ok(out) }
    }

    const fn kind(&self) -> u64 {
        match &self.body {
            Wish::Sockets(_) => SOCKETS,
            Wish::AllRooms => ALL_ROOMS,
            Wish::Join(..) => JOIN,
            Wish::Leave(..) => LEAVE,
            Wish::Disconnect(..) => DISCONNECT,
            Wish::Fetch(_) => FETCH,
            Wish::ServerSideEmit(..) => SERVER_SIDE_EMIT,
            Wish::Broadcast(_) => BROADCAST,
        }
    }

    /// Writes an event that sockets are to acknowledge.
    ///
    /// # Errors
    /// [`WireError::TooLong`]
    pub fn encode_broadcast(
        (sender, id): (&str, &str),
        namespace: &str,
        target: &Target,
        flags: &Flags,
        (event, args): (&str, &Args),
        bounds: &Bounds,
    ) -> Result<Vec<u8>, WireError> {
        let mut out = Vec::with_capacity(192 + args.tail().len());
        append_map(&mut out, 5);
        append_str(&mut out, "uid");
        append_str(&mut out, sender);
        append_str(&mut out, "requestId");
        append_str(&mut out, id);
        append_str(&mut out, "type");
        append_number(&mut out, "7");
        append_str(&mut out, "packet");
        Packet::append(&mut out, namespace, event, args, bounds)?;
        append_str(&mut out, "opts");
        Scope::append(target, flags, false, &mut out);
        Ok(out)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// It is to be skipped.
    pub fn decode(message: &'a Bytes, bounds: &Bounds) -> Result<Self, WireError> {
        if message.len() > bounds.bytes {
            return Err(WireError::TooLong);
        }
        if message.first() == Some(&b'{') { Self::decode_json(message, bounds) } else { Self::decode_msgpack(message, bounds) }
    }

    fn decode_json(message: &'a [u8], bounds: &Bounds) -> Result<Self, WireError> {
        let json: Json<'a> = serde_json::from_slice(message).map_err(|_| WireError::Malformed)?;
        let rooms = |raw: Option<&RawValue>| raw.map_or(Ok(Vec::new()), |raw| rooms(raw, bounds));
        let target = match (&json.opts, &json.sid) {
            (Some(opts), _) => Some(Target { rooms: rooms(opts.rooms.as_deref())?, except: rooms(opts.except.as_deref())? }),
            (None, Some(sid)) => Some(Target { rooms: vec![Room::from(&**sid)], except: Vec::new() }),
            (None, None) => None,
        };
        // What sockets are to do has to name them: all of them are named by an empty list.
        let target = target.ok_or(WireError::Malformed);
        let moved = || match &json.room {
            Some(room) => Ok(vec![Room::from(&**room)]),
            None => rooms(json.rooms.as_deref()),
        };
        let body = match json.kind {
            SOCKETS => Wish::Sockets(rooms(json.rooms.as_deref())?),
            ALL_ROOMS => Wish::AllRooms,
            JOIN => Wish::Join(target?, moved()?),
            LEAVE => Wish::Leave(target?, moved()?),
            DISCONNECT => Wish::Disconnect(target?, json.close.unwrap_or_default()),
            FETCH => Wish::Fetch(target?),
            SERVER_SIDE_EMIT => {
                let (event, args) = named(json.data.as_deref().ok_or(WireError::Malformed)?)?;
                Wish::ServerSideEmit(event, args)
            }
            _ => return Err(WireError::Malformed),
        };
        Ok(Self { sender: json.uid, id: json.request_id, body })
    }

    fn decode_msgpack(message: &'a Bytes, bounds: &Bounds) -> Result<Self, WireError> {
        let mut reader = Reader::of(message);
        let (mut sender, mut id, mut is_broadcast, mut packet, mut scope) = (None, None, false, None, None);
        members(&mut reader, |key, reader| {
            match key {
                b"uid" => sender = Some(string(reader)?),
                b"requestId" => id = Some(string(reader)?),
                b"type" => is_broadcast = head(reader)? == Head::Unsigned(BROADCAST),
                b"packet" => packet = Some(Packet::read(reader)?),
                b"opts" => scope = Some(Scope::read(reader, bounds)?),
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        match (packet, scope) {
            (Some(packet), Some(scope)) if is_broadcast && id.is_some() && reader.is_empty() => {
                Ok(Self { sender, id, body: Wish::Broadcast(AckedBroadcast { scope, packet }) })
            }
            _ => Err(WireError::Malformed),
        }
    }
}

impl Opts<'_> {
    fn of(target: &Target) -> Self {
        Self { rooms: Some(raw(&target.rooms)), except: Some(raw(&target.except)) }
    }
}

pub(super) fn string<'a>(reader: &mut Reader<'a>) -> Result<Cow<'a, str>, WireError> {
    match head(reader)? {
        Head::Str(text) => Ok(String::from_utf8_lossy(text)),
        _ => Err(WireError::Malformed),
    }
}

pub(super) fn raw<'a>(value: &impl Serialize) -> Cow<'a, RawValue> {
    Cow::Owned(serde_json::value::to_raw_value(value).expect("strings are JSON"))
}

/// A name and its arguments.
fn named(list: &RawValue) -> Result<(ByteString, Args), WireError> {
    let args = Args::from_raw(list.get(), Vec::new()).map_err(|_| WireError::Malformed)?;
    let mut all = args.raw();
    if all.is_empty() {
        return Err(WireError::Malformed);
    }
    // As in JavaScript, where a number may name an event.
    let name = all.remove(0).get();
    let name =
        if name.starts_with('"') { serde_json::from_str(name).map_err(|_| WireError::Malformed)? } else { name.to_owned() };
    let rest = raw(&all);
    let args = Args::from_raw(rest.get(), Vec::new()).map_err(|_| WireError::Malformed)?;
    Ok((name.into(), args))
}

/// A name, if there is one, and arguments as JSON, where bytes are as Node's `Buffer` shows them.
pub(super) fn plain(name: Option<&str>, args: &Args, bounds: &Bounds) -> Result<Box<RawValue>, WireError> {
    let bytes: usize = args.attachments().iter().map(Bytes::len).sum();
    // As text each of them takes up to four, and one that is named twice is there twice.
    if bytes > bounds.bytes / 4 {
        return Err(WireError::TooLong);
    }
    let mut json = String::from("[");
    if let Some(name) = name {
        json.push_str(&serde_json::to_string(name).expect("a string is JSON"));
    }
    for value in args.raw() {
        if json.len() > 1 {
            json.push(',');
        }
        if args.attachments().is_empty() {
            json.push_str(value.get());
        } else {
            let mut value = serde_json::from_str(value.get()).map_err(|_| DecodeError::InvalidPayload)?;
            let mut left = bounds.bytes / 4;
            show_bytes(&mut value, args.attachments(), &mut left)?;
            json.push_str(&value.to_string());
        }
    }
    json.push(']');
    Ok(RawValue::from_string(json).expect("made of JSON"))
}

fn show_bytes(value: &mut serde_json::Value, attachments: &[Bytes], left: &mut usize) -> Result<(), WireError> {
    use serde_json::Value;
    match value {
        Value::Object(members) if members.get("_placeholder") == Some(&Value::Bool(true)) => {
            let num = members.get("num").and_then(Value::as_u64).and_then(|num| usize::try_from(num).ok());
            if let Some(bytes) = num.and_then(|num| attachments.get(num)) {
                *left = left.checked_sub(bytes.len()).ok_or(WireError::TooLong)?;
                *value = serde_json::json!({ "type": "Buffer", "data": &bytes[..] });
            }
            Ok(())
        }
        Value::Object(members) => members.values_mut().try_for_each(|value| show_bytes(value, attachments, left)),
        Value::Array(values) => values.iter_mut().try_for_each(|value| show_bytes(value, attachments, left)),
        _ => Ok(()),
    }
}

/// The names of rooms: texts, and numbers as JavaScript shows them.
pub(super) fn rooms(raw: &RawValue, bounds: &Bounds) -> Result<Vec<Room>, WireError> {
    /// Stops at the bound, and says so by being empty.
    struct Rooms(usize);

    impl<'de> Visitor<'de> for Rooms {
        type Value = Option<Vec<Room>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of rooms")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut rooms = Vec::new();
            while let Some(raw) = seq.next_element::<&RawValue>()? {
                if rooms.len() == self.0 {
                    while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                    return Ok(None);
                }
                let text = raw.get();
                rooms.push(match text.as_bytes().first() {
                    Some(b'"') => Room::from(serde_json::from_str::<String>(text).map_err(A::Error::custom)?),
                    Some(b'-' | b'0'..=b'9') => Room::from(text),
                    _ => return Err(A::Error::custom("no room")),
                });
            }
            Ok(Some(rooms))
        }
    }

    impl<'de> DeserializeSeed<'de> for Rooms {
        type Value = Option<Vec<Room>>;

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_seq(self)
        }
    }

    let rooms = Rooms(bounds.rooms).deserialize(&mut serde_json::Deserializer::from_str(raw.get()));
    rooms.map_err(|_| WireError::Malformed)?.ok_or(WireError::TooManyRooms)
}
