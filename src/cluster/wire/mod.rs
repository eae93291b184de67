//! What the nodes of a cluster say to each other over Redis: pure, byte for byte as `@socket.io/redis-adapter` 8 has it.
//!
//! Broadcasts are msgpack, requests and responses JSON where they hold no bytes. Channels are named after the namespace, and so say it.
//! A message is looked at from outside to inside: who sent it and whom it is for are read first, the data in it only when somebody is to have it.

mod broadcast;
mod channels;
mod entry;
mod message;
mod request;
mod response;
mod session;
#[cfg(test)]
mod testing;

pub use broadcast::Broadcast;
pub use channels::{Channels, Heard};
pub use entry::{Deed, Entry, SENDER, StatedEvent};
pub use message::{Message, Said};
pub use request::{AckedBroadcast, Request, Wish};
pub use response::{Answer, Response};
pub use session::Record;

use crate::hub::{Flags, Room, Target};
use crate::protocol::sio::DecodeError;
use crate::protocol::sio::transcode::{Head, Reader, TooLong, append_bool, append_list, append_map, append_number, append_str};
use serde::Serialize;
use std::time::Duration;

/// The sender that emitters without a server put in the place of a node.
pub const EMITTER: &str = "emitter";

/// How much of a message is taken.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of one message.
    pub bytes: usize,
    /// Rooms in one list.
    pub rooms: usize,
    /// Binary values of one event.
    pub attachments: usize,
}

/// Why a message is skipped, or not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// It is neither msgpack nor JSON, or has not the form of this version.
    #[error("it is not of the form of @socket.io/redis-adapter 8")]
    Malformed,
    /// An event in it cannot be shown to clients.
    #[error("the event in it cannot be sent")]
    Event(#[from] DecodeError),
    /// A list of rooms is longer than `limits.cluster_rooms`.
    #[error("it lists more rooms than limits.cluster_rooms allows")]
    TooManyRooms,
    /// It is longer than `limits.cluster_message_bytes`.
    #[error("it is longer than limits.cluster_message_bytes allows")]
    TooLong,
}

impl From<TooLong> for WireError {
    fn from(_: TooLong) -> Self {
        Self::TooLong
    }
}

/// Whom a message is for, and how it is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Who.
    pub target: Target,
    /// How.
    pub flags: Flags,
}

impl Scope {
    /// Appends `{rooms,except,flags}`; emitters have another order.
    fn append(target: &Target, flags: &Flags, is_emitter: bool, out: &mut Vec<u8>) {
        append_map(out, 3);
        append_names(out, "rooms", &target.rooms);
        if is_emitter {
            append_flags(out, flags);
        }
        append_names(out, "except", &target.except);
        if !is_emitter {
            append_flags(out, flags);
        }
    }

    /// Reads `{rooms,except,flags}`, of which old emitters leave some out.
    fn read(reader: &mut Reader<'_>, bounds: &Bounds) -> Result<Self, WireError> {
        let mut scope = Self::default();
        members(reader, |key, reader| {
            match key {
                // Python's emitter says it so when it has none.
                b"rooms" | b"flags" if head(&mut reader.clone())? == Head::Str(b"") => reader.skip()?,
                b"rooms" => scope.target.rooms = read_rooms(reader, bounds)?,
                b"except" => scope.target.except = read_rooms(reader, bounds)?,
                b"flags" => scope.flags = read_flags(reader)?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        Ok(scope)
    }
}

/// What a target, or who is to leave, calls a room: to JavaScript a number is not the text that looks like it, and who is in either is meant.
#[derive(Serialize)]
#[serde(untagged)]
enum Name<'a> {
    Text(&'a str),
    Number(i64),
}

fn names(rooms: &[Room]) -> Vec<Name<'_>> {
    let both = |room| [Some(Name::Text(Room::as_str(room))), number(room).map(Name::Number)];
    rooms.iter().flat_map(both).flatten().collect()
}

/// The number that JavaScript shows as this.
fn number(room: &Room) -> Option<i64> {
    let number = room.as_str().parse::<i64>().ok()?;
    (number.unsigned_abs() < 1 << 53 && number.to_string() == room.as_str()).then_some(number)
}

fn append_names(out: &mut Vec<u8>, key: &str, rooms: &[Room]) {
    let names = names(rooms);
    append_str(out, key);
    append_list(out, names.len());
    for name in names {
        match name {
            Name::Text(text) => append_str(out, text),
            Name::Number(number) => append_number(out, &number.to_string()),
        }
    }
}

fn append_rooms(out: &mut Vec<u8>, key: &str, rooms: &[Room]) {
    append_str(out, key);
    append_list(out, rooms.len());
    rooms.iter().for_each(|room| append_str(out, room.as_str()));
}

fn append_flags(out: &mut Vec<u8>, flags: &Flags) {
    let timeout = flags.timeout.map(|timeout| timeout.as_millis());
    append_str(out, "flags");
    append_map(out, u32::from(flags.volatile) + u32::from(!flags.compress) + u32::from(timeout.is_some()));
    if flags.volatile {
        append_str(out, "volatile");
        append_bool(out, true);
    }
    if !flags.compress {
        append_str(out, "compress");
        append_bool(out, false);
    }
    if let Some(timeout) = timeout {
        append_str(out, "timeout");
        append_number(out, &timeout.to_string());
    }
}

/// What a list or a map is called in the place of a room: if it had no name, a target could be left with none, which is everyone.
const NAMELESS: &str = "[object Object]";

fn read_rooms(reader: &mut Reader<'_>, bounds: &Bounds) -> Result<Vec<Room>, WireError> {
    let Head::Array(len) = head(reader)? else { return Err(WireError::Malformed) };
    // Each may have two names.
    if len as usize > 2 * bounds.rooms {
        return Err(WireError::TooManyRooms);
    }
    let mut read = ReadRooms::new(bounds.rooms);
    for _ in 0..len {
        match head(&mut reader.clone())? {
            // Its own memory: the message is long gone when a socket is still in the room.
            Head::Str(name) => read.text((&*String::from_utf8_lossy(name)).into())?,
            Head::Unsigned(number) => read.other(Room::of_number(number as f64))?,
            Head::Signed(number) => read.other(Room::of_number(number as f64))?,
            Head::Float(number) => read.other(Room::of_number(number))?,
            Head::Bool(is_true) => read.other(is_true.to_string().into())?,
            Head::Nil => read.other("null".into())?,
            Head::Undefined => read.other("undefined".into())?,
            Head::Bin(_) | Head::Date(_) | Head::Extension(..) | Head::Array(_) | Head::Map(_) => read.other(NAMELESS.into())?,
        }
        reader.skip()?;
    }
    Ok(read.rooms)
}

/// The rooms that were read, each once if it was called by text and by number.
struct ReadRooms {
    rooms: Vec<Room>,
    limit: usize,
    is_text: bool,
}

impl ReadRooms {
    fn new(limit: usize) -> Self {
        Self { rooms: Vec::new(), limit, is_text: false }
    }

    fn text(&mut self, room: Room) -> Result<(), WireError> {
        self.is_text = true;
        self.push(room)
    }

    /// What is no text, as JavaScript shows it.
    fn other(&mut self, shown: Room) -> Result<(), WireError> {
        let is_second_name = std::mem::take(&mut self.is_text) && self.rooms.last() == Some(&shown);
        if is_second_name { Ok(()) } else { self.push(shown) }
    }

    fn push(&mut self, room: Room) -> Result<(), WireError> {
        if self.rooms.len() == self.limit {
            return Err(WireError::TooManyRooms);
        }
        self.rooms.push(room);
        Ok(())
    }
}

fn read_flags(reader: &mut Reader<'_>) -> Result<Flags, WireError> {
    let mut flags = Flags::default();
    // A flag that is not set may stand there as undefined.
    members(reader, |key, reader| {
        match (key, head(&mut reader.clone())?) {
            (b"volatile", Head::Bool(volatile)) => flags.volatile = volatile,
            (b"compress", Head::Bool(compress)) => flags.compress = compress,
            (b"timeout", Head::Unsigned(timeout)) => flags.timeout = Some(Duration::from_millis(timeout)),
            (b"timeout", Head::Float(timeout)) => flags.timeout = Duration::try_from_secs_f64(timeout / 1e3).ok(),
            _ => {}
        }
        Ok(reader.skip()?)
    })?;
    Ok(flags)
}

/// Goes through a map; `member` is called with each key and reads the value.
fn members<'a>(
    reader: &mut Reader<'a>,
    mut member: impl FnMut(&[u8], &mut Reader<'a>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let Head::Map(len) = head(reader)? else { return Err(WireError::Malformed) };
    for _ in 0..len {
        let Head::Str(key) = head(reader)? else { return Err(WireError::Malformed) };
        member(key, reader)?;
    }
    Ok(())
}

fn head<'a>(reader: &mut Reader<'a>) -> Result<Head<'a>, WireError> {
    reader.head().map_err(|_| WireError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire::testing::{BOUNDS, rooms};
    use crate::protocol::sio::transcode::append_json_within;

    #[test]
    fn a_room_that_may_be_a_number_is_called_both_and_is_one() {
        for (name, called) in [
            ("123", r#"["123",123]"#),
            ("-1", r#"["-1",-1]"#),
            ("9007199254740991", r#"["9007199254740991",9007199254740991]"#),
            // JavaScript would show another number.
            ("9007199254740992", r#"["9007199254740992"]"#),
            ("007", r#"["007"]"#),
            ("-0", r#"["-0"]"#),
            ("1.5", r#"["1.5"]"#),
            ("", r#"[""]"#),
        ] {
            let room = rooms(&[name, name]);
            let json = request::raw(&names(&room[..1]));
            assert_eq!(json.get(), called);
            assert_eq!(request::rooms(&json, &BOUNDS).expect("written two lines up"), room[..1]);
            let mut out = Vec::new();
            append_names(&mut out, "", &room);
            // Behind the key.
            let out = out.split_off(1).into();
            assert_eq!(read_rooms(&mut Reader::of(&out), &BOUNDS).expect("written a line ago"), room);
        }
    }

    #[test]
    fn a_room_that_is_no_text_costs_nobody_the_message() {
        let read = ["a", "1.5", "1e+21", "true", "null", NAMELESS, NAMELESS, "z"];
        let json = r#"["a",1.5,1e+21,true,null,{"b":["c"]},["d"],"z"]"#;
        let raw = serde_json::value::RawValue::from_string(json.to_owned()).expect("JSON");
        assert_eq!(request::rooms(&raw, &BOUNDS).expect("a list"), rooms(&read));
        let mut msgpack = Vec::new();
        append_json_within(&mut msgpack, json, &[], BOUNDS.bytes).expect("short");
        assert_eq!(read_rooms(&mut Reader::of(&msgpack.into()), &BOUNDS).expect("a list"), rooms(&read));
        // Undefined, infinite, an integer of 64 bits, and bytes, which JSON has not.
        let msgpack = testing::unhex("94d40000cbfff0000000000000cf1000000000000000c40161");
        let read = ["undefined", "-Infinity", "1152921504606847000", NAMELESS];
        assert_eq!(read_rooms(&mut Reader::of(&msgpack), &BOUNDS).expect("a list"), rooms(&read));
    }
}
