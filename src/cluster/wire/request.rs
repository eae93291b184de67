//! What a node asks of all others: JSON, but for a broadcast that wants acknowledgements, which is msgpack.

use super::broadcast::Packet;
use super::{Bounds, NAMELESS, ReadRooms, Scope, WireError, head, members, names};
use crate::hub::{Flags, Room, Target};
use crate::protocol::sio::transcode::{Head, Reader, append_map, append_number, append_str};
use crate::protocol::sio::{Args, DecodeError};
use bytes::Bytes;
use bytestring::ByteString;
use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use smol_str::SmolStr;
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

impl<'a> AckedBroadcast<'a> {
    pub(super) const fn new(scope: Scope, packet: Packet<'a>) -> Self {
        Self { scope, packet }
    }

    /// The namespace that it is for.
    pub fn namespace(&self) -> ByteString {
        self.packet.namespace()
    }

    /// Reads the event: its name and arguments.
    ///
    /// # Errors
    /// It is none, or holds more than `bounds` allow.
    pub fn event(&self, bounds: &Bounds) -> Result<(SmolStr, Args), WireError> {
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
    /// Writes a request, but for a broadcast: see [`Request::encode_broadcast`].
    ///
    /// # Errors
    /// [`WireError::TooLong`]; [`WireError::Malformed`] of a broadcast.
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
            Wish::Join(target, rooms) => {
                json.opts = Some(Opts::of(target));
                json.rooms = Some(raw(rooms));
            }
            Wish::Leave(target, rooms) => {
                json.opts = Some(Opts::of(target));
                json.rooms = Some(raw(&names(rooms)));
            }
            Wish::Disconnect(target, close) => {
                json.opts = Some(Opts::of(target));
                json.close = Some(*close);
            }
            Wish::Fetch(target) => json.opts = Some(Opts::of(target)),
            Wish::ServerSideEmit(event, args) => json.data = Some(Cow::Owned(plain(Some(event), args, bounds)?)),
            Wish::Broadcast(_) => return Err(WireError::Malformed),
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
        Self { rooms: Some(raw(&names(&target.rooms))), except: Some(raw(&names(&target.except))) }
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

/// The names of rooms: texts, and what else is one as JavaScript shows it.
pub(super) fn rooms(raw: &RawValue, bounds: &Bounds) -> Result<Vec<Room>, WireError> {
    /// Stops at the bound, and says so by being empty.
    struct Rooms(usize);

    impl<'de> Visitor<'de> for Rooms {
        type Value = Option<Vec<Room>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of rooms")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut read = ReadRooms::new(self.0);
            while let Some(raw) = seq.next_element::<&RawValue>()? {
                let text = raw.get();
                let room = serde_json::from_str(text).unwrap_or_else(|_| NAMELESS.into());
                let is_read = if text.starts_with('"') { read.text(room) } else { read.other(room) };
                if is_read.is_err() {
                    while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                    return Ok(None);
                }
            }
            Ok(Some(read.rooms))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire::testing::{BOUNDS, rooms as names, unhex};
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn old_nodes_name_one_socket_and_one_room() {
        let message = Bytes::from_static(br#"{"requestId":"r","sid":"s","room":"a","type":2}"#);
        let Request { sender: None, id: Some(id), body: Wish::Join(target, rooms) } =
            Request::decode(&message, &BOUNDS).expect("taken")
        else {
            panic!("to join")
        };
        assert_eq!((&*id, target, rooms), ("r", Target { rooms: names(&["s"]), except: vec![] }, names(&["a"])));
    }

    #[test]
    fn what_names_nobody_does_not_mean_everybody() {
        for text in [
            r#"{"type":2,"rooms":["a"]}"#,
            r#"{"type":3,"rooms":["a"]}"#,
            r#"{"type":4,"close":true}"#,
            r#"{"type":5,"requestId":"r"}"#,
        ] {
            assert_eq!(Request::decode(&text.into(), &BOUNDS).err(), Some(WireError::Malformed), "{text}");
        }
    }

    #[test]
    fn who_leaves_a_room_leaves_the_number_too() {
        let target = Target { rooms: names(&["a"]), except: Vec::new() };
        for (body, shown) in [
            (Wish::Join(target.clone(), names(&["123"])), r#"{"type":2,"opts":{"rooms":["a"],"except":[]},"rooms":["123"]}"#),
            (Wish::Leave(target, names(&["123"])), r#"{"type":3,"opts":{"rooms":["a"],"except":[]},"rooms":["123",123]}"#),
        ] {
            let message = Request { sender: None, id: None, body }.encode(&BOUNDS).expect("short");
            assert_eq!(String::from_utf8_lossy(&message), shown);
        }
    }

    #[test]
    fn what_is_not_of_this_form_is_skipped() {
        let deep = "[".repeat(100_000);
        for text in [
            "",
            "{",
            "{}",
            "null",
            r#"{"type":99}"#,
            r#"{"type":"2"}"#,
            r#"{"type":-1}"#,
            r#"{"type":6}"#,
            r#"{"type":6,"data":[]}"#,
            r#"{"type":6,"data":{}}"#,
            r#"{"type":2,"opts":{"rooms":"a","except":[]},"rooms":[]}"#,
            r#"{"type":2,"opts":{"rooms":[nul],"except":[]},"rooms":[]}"#,
            r#"{"type":0,"rooms":{}}"#,
            r#"{"type":2,"opts":{},"rooms":[]}x"#,
            &deep,
            &format!(r#"{{"type":6,"data":{deep}}}"#),
        ] {
            assert_eq!(Request::decode(&text.to_owned().into(), &BOUNDS).err(), Some(WireError::Malformed), "{text:.40}");
        }
        let many = format!(r#"{{"type":0,"rooms":[{}1]}}"#, "1,".repeat(100));
        assert_eq!(Request::decode(&many.into(), &BOUNDS).err(), Some(WireError::TooManyRooms));
        assert_eq!(Request::decode(&"x".repeat(BOUNDS.bytes + 1).into(), &BOUNDS).err(), Some(WireError::TooLong));
        // {"type": 7}, and one whose list of rooms is announced only.
        for message in ["81a47479706507", "82a47479706507a46f70747381a5726f6f6d73ddffffffff"] {
            assert!(Request::decode(&unhex(message), &BOUNDS).is_err(), "{message}");
        }
    }

    #[test]
    fn bytes_among_servers_are_as_node_shows_them() {
        let args = Args::new(&(1, Bytes::from_static(b"ab"), "x")).expect("JSON");
        let shown = |bytes| plain(Some("e"), &args, &Bounds { bytes, ..BOUNDS }).map(|json| json.get().to_owned());
        assert_eq!(shown(100), Ok(r#"["e",1,{"data":[97,98],"type":"Buffer"},"x"]"#.to_owned()));
        assert_eq!(shown(7), Err(WireError::TooLong));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(
            kind in 0..7_u8, some in prop::collection::vec(any::<String>(), 0..4), others in prop::collection::vec(any::<String>(), 0..4),
            close: bool, event in "[a-z]{1,5}", value: String, sender: Option<String>, id: Option<String>,
        ) {
            let target = Target { rooms: names(&some), except: names(&others) };
            let body = match kind {
                0 => Wish::Sockets(names(&some)),
                1 => Wish::AllRooms,
                2 => Wish::Join(target, names(&others)),
                3 => Wish::Leave(target, names(&others)),
                4 => Wish::Disconnect(target, close),
                5 => Wish::Fetch(target),
                _ => Wish::ServerSideEmit(event.into(), Args::new(&(value, 1.5)).expect("JSON")),
            };
            let request = Request { sender: sender.map(Into::into), id: id.map(Into::into), body };
            let message = request.encode(&BOUNDS).expect("short").into();
            let read = Request::decode(&message, &BOUNDS).expect("written a line ago");
            prop_assert_eq!(format!("{read:?}"), format!("{request:?}"));
        }

        #[test]
        fn an_event_that_wants_acknowledgements_is_read_again(rooms in prop::collection::vec("[a-z]{0,5}", 0..4), millis in 0..100_000_u64, bytes: Vec<u8>) {
            let args = Args::new(&Bytes::from(bytes)).expect("JSON");
            let scope = Scope {
                target: Target { rooms: names(&rooms), except: Vec::new() },
                flags: Flags { timeout: Some(Duration::from_millis(millis)), ..Flags::default() },
            };
            let message = Request::encode_broadcast(("me", "q"), "/n", &scope.target, &scope.flags, ("ask", &args), &BOUNDS).expect("short").into();
            let read = Request::decode(&message, &BOUNDS).expect("written a line ago");
            prop_assert_eq!((read.sender.as_deref(), read.id.as_deref()), (Some("me"), Some("q")));
            let Wish::Broadcast(broadcast) = read.body else { panic!("a broadcast") };
            prop_assert_eq!((&broadcast.scope, &*broadcast.namespace()), (&scope, "/n"));
            prop_assert_eq!(broadcast.event(&BOUNDS), Ok(("ask".into(), args)));
        }
    }
}
