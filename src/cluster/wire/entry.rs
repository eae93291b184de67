//! What every member of a cluster over streams is to do, even if it hears of it later: an entry of a stream with the fields `uid`, `nsp`, `type` and `data`.
//!
//! The data is JSON, or msgpack as base64 where it holds bytes.

use super::broadcast::Packet;
use super::request::{raw, rooms};
use super::{Bounds, Scope, WireError, members, names, read_rooms};
use crate::hub::{Action, Flags, Room, Target};
use crate::protocol::sio::transcode::{Head, Reader, append_json_within, append_list, append_map, append_number, append_str};
use crate::protocol::sio::{Args, json_name_and_arguments, part};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use smol_str::SmolStr;
use std::time::Duration;

const BROADCAST: &str = "3";
const JOIN: &str = "4";
const LEAVE: &str = "5";
const DISCONNECT: &str = "6";

/// The name of the field that names the sender.
pub const SENDER: &str = "uid";

/// An entry whose data was not looked at yet.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Who wrote it.
    pub sender: ByteString,
    /// The namespace that it is for.
    pub namespace: ByteString,
    kind: ByteString,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    Json(ByteString),
    Msgpack(Bytes),
}

/// What an entry tells a node to do.
#[derive(Debug, Clone)]
pub enum Deed<'a> {
    /// Sockets are sent an event.
    Emit(StatedEvent<'a>),
    /// They join rooms.
    Join(Target, Vec<Room>),
    /// They leave rooms.
    Leave(Target, Vec<Room>),
    /// They are sent out, and with `true` their sessions closed.
    Disconnect(Target, bool),
}

/// An event that was not looked at yet.
#[derive(Debug, Clone)]
pub struct StatedEvent<'a> {
    /// For whom it is.
    pub scope: Scope,
    list: List<'a>,
}

#[derive(Debug, Clone)]
enum List<'a> {
    Json(&'a ByteString, &'a RawValue),
    Msgpack(Packet<'a>),
}

impl Entry {
    /// An entry for the others; `None` of what is not for a stream.
    ///
    /// # Errors
    /// [`WireError::TooLong`]
    pub fn of(sender: &str, namespace: &ByteString, action: Action<'_>, bounds: &Bounds) -> Result<Option<Self>, WireError> {
        let (kind, data) = match action {
            Action::ServerSideEmit { .. } => return Ok(None),
            Action::Emit { target, flags, event, args } => (BROADCAST, event_data(target, flags, event, args, bounds)?),
            Action::Join { target, rooms } => (JOIN, Data::Json(json_rooms(target, &rooms))),
            Action::Leave { target, rooms } => (LEAVE, Data::Json(json_rooms(target, &names(rooms)))),
            Action::Disconnect { target, close } => {
                let opts = json_scope(target, &Flags::default());
                (DISCONNECT, Data::Json(format!(r#"{{"opts":{opts},"close":{close}}}"#).into()))
            }
        };
        let entry = Self { sender: sender.into(), namespace: namespace.clone(), kind: kind.into(), data };
        if entry.data.len() > bounds.bytes { Err(WireError::TooLong) } else { Ok(Some(entry)) }
    }

    /// The fields with their values, in the reference's order.
    pub fn fields(&self) -> [(&'static str, Bytes); 4] {
        let data = match &self.data {
            Data::Json(json) => json.as_bytes().clone(),
            Data::Msgpack(bytes) => BASE64_STANDARD.encode(bytes).into(),
        };
        let text = |text: &ByteString| text.as_bytes().clone();
        [(SENDER, text(&self.sender)), ("nsp", text(&self.namespace)), ("type", text(&self.kind)), ("data", data)]
    }

    /// Reads all but the data.
    ///
    /// # Errors
    /// It is to be skipped.
    pub fn read<'a>(fields: impl IntoIterator<Item = (&'a [u8], Bytes)>, bounds: &Bounds) -> Result<Self, WireError> {
        let [mut sender, mut namespace, mut kind, mut data] = [None, None, None, None];
        for (name, value) in fields {
            if value.len() > bounds.bytes {
                return Err(WireError::TooLong);
            }
            match name {
                b"uid" => sender = Some(value),
                b"nsp" => namespace = Some(value),
                b"type" => kind = Some(value),
                b"data" => data = Some(value),
                _ => {}
            }
        }
        let text = |value: Option<Bytes>| ByteString::try_from(value?).ok();
        let data = data.ok_or(WireError::Malformed)?;
        let data = if data.first() == Some(&b'{') {
            Data::Json(ByteString::try_from(data).map_err(|_| WireError::Malformed)?)
        } else {
            Data::Msgpack(BASE64_STANDARD.decode(&data).map_err(|_| WireError::Malformed)?.into())
        };
        match (text(sender), text(namespace), text(kind)) {
            (Some(sender), Some(namespace), Some(kind)) => Ok(Self { sender, namespace, kind, data }),
            _ => Err(WireError::Malformed),
        }
    }

    /// What it tells.
    ///
    /// # Errors
    /// It is to be skipped.
    pub fn deed(&self, bounds: &Bounds) -> Result<Deed<'_>, WireError> {
        let Content { packet, target, flags, rooms, close } = match &self.data {
            Data::Json(json) => Content::json(json, bounds)?,
            Data::Msgpack(bytes) => Content::msgpack(bytes, bounds)?,
        };
        Ok(match (&*self.kind, packet) {
            (BROADCAST, Some(list)) => Deed::Emit(StatedEvent { scope: Scope { target, flags }, list }),
            (JOIN, _) => Deed::Join(target, rooms),
            (LEAVE, _) => Deed::Leave(target, rooms),
            (DISCONNECT, _) => Deed::Disconnect(target, close),
            _ => return Err(WireError::Malformed),
        })
    }
}

impl StatedEvent<'_> {
    /// Reads the event: its name and arguments.
    ///
    /// # Errors
    /// It is none, or holds more than `bounds` allow.
    pub fn event(&self, bounds: &Bounds) -> Result<(SmolStr, Args), WireError> {
        match &self.list {
            List::Json(text, list) => Ok(json_name_and_arguments((*text).clone(), part(text, list.get()))?),
            List::Msgpack(packet) => packet.event(bounds),
        }
    }
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::Json(json) => json.len(),
            // As it is sent.
            Self::Msgpack(bytes) => bytes.len() / 3 * 4,
        }
    }
}

/// The parts that data may have.
#[derive(Default)]
struct Content<'a> {
    packet: Option<List<'a>>,
    target: Target,
    flags: Flags,
    rooms: Vec<Room>,
    close: bool,
}

impl<'a> Content<'a> {
    fn json(text: &'a ByteString, bounds: &Bounds) -> Result<Self, WireError> {
        #[derive(Deserialize)]
        struct Json<'a> {
            #[serde(borrow, default)]
            packet: Option<JsonPacket<'a>>,
            #[serde(borrow)]
            opts: Opts<'a>,
            #[serde(borrow, default)]
            rooms: Option<&'a RawValue>,
            #[serde(default)]
            close: bool,
        }
        #[derive(Deserialize)]
        struct JsonPacket<'a> {
            #[serde(rename = "type")]
            kind: u64,
            #[serde(borrow)]
            data: &'a RawValue,
        }
        #[derive(Deserialize)]
        struct Opts<'a> {
            #[serde(borrow, default)]
            rooms: Option<&'a RawValue>,
            #[serde(borrow, default)]
            except: Option<&'a RawValue>,
            #[serde(default)]
            flags: Map<String, Value>,
        }
        let Json { packet, opts, rooms: moved, close } = serde_json::from_str(text).map_err(|_| WireError::Malformed)?;
        let read = |raw: Option<&RawValue>| raw.map_or(Ok(Vec::new()), |raw| rooms(raw, bounds));
        let packet = match packet {
            Some(JsonPacket { kind: 2 | 5, data }) => Some(List::Json(text, data)),
            Some(_) => return Err(WireError::Malformed),
            None => None,
        };
        let flag = |name| opts.flags.get(name).and_then(Value::as_bool);
        let timeout = opts.flags.get("timeout").and_then(Value::as_f64);
        Ok(Self {
            packet,
            target: Target { rooms: read(opts.rooms)?, except: read(opts.except)? },
            flags: Flags {
                volatile: flag("volatile").unwrap_or_default(),
                compress: flag("compress").unwrap_or(true),
                local: false,
                timeout: timeout.and_then(|millis| Duration::try_from_secs_f64(millis / 1e3).ok()),
            },
            rooms: read(moved)?,
            close,
        })
    }

    fn msgpack(message: &'a Bytes, bounds: &Bounds) -> Result<Self, WireError> {
        let mut reader = Reader::of(message);
        let (mut content, mut has_scope) = (Self::default(), false);
        members(&mut reader, |key, reader| {
            match key {
                b"packet" => content.packet = Some(List::Msgpack(Packet::read(reader)?)),
                b"opts" => {
                    Scope { target: content.target, flags: content.flags } = Scope::read(reader, bounds)?;
                    has_scope = true;
                }
                b"rooms" => content.rooms = read_rooms(reader, bounds)?,
                b"close" => content.close = super::head(reader)? == Head::Bool(true),
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        if has_scope && reader.is_empty() { Ok(content) } else { Err(WireError::Malformed) }
    }
}

fn event_data(target: &Target, flags: &Flags, event: &str, args: &Args, bounds: &Bounds) -> Result<Data, WireError> {
    if args.attachments().is_empty() {
        let (name, opts) = (raw(&event), json_scope(target, flags));
        let comma = if args.is_empty() { "" } else { "," };
        let json = format!(r#"{{"packet":{{"type":2,"data":[{name}{comma}{}]}},"opts":{opts}}}"#, args.tail());
        return Ok(Data::Json(json.into()));
    }
    let mut out = Vec::with_capacity(128 + args.tail().len());
    append_map(&mut out, 2);
    append_str(&mut out, "packet");
    append_packet(&mut out, event, args, bounds)?;
    append_str(&mut out, "opts");
    Scope::append(target, flags, false, &mut out);
    Ok(Data::Msgpack(out.into()))
}

/// Appends `{type:2,data:[event,…]}`: the namespace stands elsewhere.
pub(super) fn append_packet(out: &mut Vec<u8>, event: &str, args: &Args, bounds: &Bounds) -> Result<(), WireError> {
    append_map(out, 2);
    append_str(out, "type");
    append_number(out, "2");
    append_str(out, "data");
    append_list(out, 1 + args.len());
    append_str(out, event);
    Ok(append_json_within(out, args.tail(), args.attachments(), bounds.bytes)?)
}

fn json_scope(Target { rooms, except }: &Target, flags: &Flags) -> String {
    let mut shown = Vec::new();
    if flags.volatile {
        shown.push(r#""volatile":true"#.to_owned());
    }
    if !flags.compress {
        shown.push(r#""compress":false"#.to_owned());
    }
    if let Some(timeout) = flags.timeout {
        shown.push(format!(r#""timeout":{}"#, timeout.as_millis()));
    }
    format!(r#"{{"rooms":{},"except":{},"flags":{{{}}}}}"#, raw(&names(rooms)), raw(&names(except)), shown.join(","))
}

fn json_rooms(target: &Target, rooms: &impl Serialize) -> ByteString {
    format!(r#"{{"opts":{},"rooms":{}}}"#, json_scope(target, &Flags::default()), raw(rooms)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire::testing::{BOUNDS, rooms as names};
    use proptest::prelude::*;

    #[test]
    fn who_leaves_a_room_leaves_the_number_too() {
        let (target, rooms) = (Target::default(), names(&["123"]));
        for (action, shown) in [
            (Action::Join { target: &target, rooms: &rooms }, r#""rooms":["123"]}"#),
            (Action::Leave { target: &target, rooms: &rooms }, r#""rooms":["123",123]}"#),
        ] {
            let entry = Entry::of("me", &"/".into(), action, &BOUNDS).expect("short").expect("for the others, too");
            let Data::Json(json) = &entry.data else { panic!("no bytes") };
            assert!(json.ends_with(shown), "{json}");
        }
    }

    #[test]
    fn what_is_not_of_this_form_is_skipped() {
        let fields = |kind: &'static str, data: &str| {
            let data = Bytes::from(data.to_owned());
            [("uid", "a".into()), ("nsp", "/".into()), ("type", kind.into()), ("data", data)]
                .map(|(name, value)| (name.as_bytes(), value))
        };
        let read = |kind, data: &str| Entry::read(fields(kind, data), &BOUNDS)?.deed(&BOUNDS).map(drop);
        let deep = "[".repeat(100_000);
        for (kind, data) in [
            ("3", ""),
            ("3", "{"),
            ("3", "{}"),
            ("3", "!"),
            ("3", "gA=="),
            ("3", r#"{"opts":{}}"#),
            ("3", r#"{"packet":{"type":3,"data":[]},"opts":{}}"#),
            ("3", r#"{"packet":{"type":2,"data":["x"]},"opts":{"rooms":"a"}}"#),
            ("9", r#"{"opts":{}}"#),
            ("", r#"{"opts":{}}"#),
            ("4", r#"{"opts":{},"rooms":{}}"#),
            ("4", &format!(r#"{{"opts":{{}},"rooms":{deep}}}"#)),
        ] {
            assert_eq!(read(kind, data), Err(WireError::Malformed), "{kind} {data:.60}");
        }
        let many = format!(r#"{{"opts":{{}},"rooms":[{}1]}}"#, "1,".repeat(100));
        assert_eq!(read("4", &many), Err(WireError::TooManyRooms));
        assert_eq!(read("4", &"x".repeat(BOUNDS.bytes + 1)), Err(WireError::TooLong));
        assert_eq!(Entry::read(fields("3", "{}").into_iter().skip(1), &BOUNDS).err(), Some(WireError::Malformed));
        // A reserved name, and no list.
        for data in [r#"["connect"]"#, "[]", "{}", "1"] {
            let json = format!(r#"{{"packet":{{"type":2,"data":{data}}},"opts":{{}}}}"#);
            let entry = Entry::read(fields("3", &json), &BOUNDS).expect("not looked at");
            let Ok(Deed::Emit(stated)) = entry.deed(&BOUNDS) else { panic!("not looked at") };
            assert!(stated.event(&BOUNDS).is_err(), "{data}");
        }
    }

    #[test]
    fn an_event_that_would_be_too_long_is_not_written() {
        let json = format!("[{}]", [r#"{"_placeholder":true,"num":0}"#; 100].join(","));
        let args = Args::from_raw(&json, vec![vec![0; 1_000].into()]).expect("JSON");
        let (target, flags) = (Target::default(), Flags::default());
        let action = Action::Emit { target: &target, flags: &flags, event: "x", args: &args };
        let write = |bytes| Entry::of("a", &"/".into(), action, &Bounds { bytes, ..BOUNDS }).map(drop);
        assert_eq!(write(50_000), Err(WireError::TooLong));
        assert_eq!(write(110_000), Err(WireError::TooLong));
        assert_eq!(write(200_000), Ok(()));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(
            kind in 0..4_u8, some in prop::collection::vec("[a-z0-9]{0,6}", 0..5), others in prop::collection::vec(any::<String>(), 0..5),
            volatile: bool, compress: bool, close: bool, event in "[a-b]{1,3}", text: String, bytes: Option<Vec<u8>>,
        ) {
            let args = match bytes {
                Some(bytes) => Args::new(&(text, Bytes::from(bytes))).expect("JSON"),
                None => Args::new(&text).expect("JSON"),
            };
            let (target, rooms) = (Target { rooms: names(&some), except: names(&others) }, names(&others));
            let flags = Flags { volatile, compress, ..Flags::default() };
            let action = match kind {
                0 => Action::Emit { target: &target, flags: &flags, event: &event, args: &args },
                1 => Action::Join { target: &target, rooms: &rooms },
                2 => Action::Leave { target: &target, rooms: &rooms },
                _ => Action::Disconnect { target: &target, close },
            };
            let written = Entry::of("me", &"/é".into(), action, &BOUNDS).expect("short").expect("for a stream");
            let fields = written.fields();
            let entry = Entry::read(fields.iter().map(|(name, value)| (name.as_bytes(), value.clone())), &BOUNDS).expect("written a line ago");
            prop_assert_eq!((&*entry.sender, &*entry.namespace), ("me", "/é"));
            match entry.deed(&BOUNDS).expect("written above") {
                Deed::Emit(stated) => {
                    prop_assert_eq!((kind, &stated.scope), (0, &Scope { target, flags }));
                    prop_assert_eq!(stated.event(&BOUNDS), Ok((event.into(), args)));
                }
                Deed::Join(read, joined) => prop_assert_eq!((kind, read, joined), (1, target, rooms)),
                Deed::Leave(read, left) => prop_assert_eq!((kind, read, left), (2, target, rooms)),
                Deed::Disconnect(read, closed) => prop_assert_eq!((kind, read, closed), (3, target, close)),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(kind in "[0-9]", data: Vec<u8>, is_base64: bool) {
            let data = if is_base64 { BASE64_STANDARD.encode(&data).into() } else { Bytes::from(data) };
            let fields = [("uid", "a".into()), ("nsp", "/".into()), ("type", kind.into()), ("data", data)];
            if let Ok(entry) = Entry::read(fields.iter().map(|(name, value)| (name.as_bytes(), value.clone())), &BOUNDS)
                && let Ok(Deed::Emit(stated)) = entry.deed(&BOUNDS)
            {
                let _ = stated.event(&BOUNDS);
            }
        }
    }
}
