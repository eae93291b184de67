//! What members of a cluster over streams ask and answer at once: numbered messages in msgpack, `{type,data,uid,nsp}`.

use super::broadcast::Packet;
use super::entry::append_packet;
use super::request::{plain, string};
use super::{AckedBroadcast, Answer, Bounds, Request, Response, Scope, WireError, Wish, head, members, read_rooms};
use crate::hub::{Flags, Target};
use crate::protocol::sid::SocketId;
use crate::protocol::sio::transcode::{Head, Reader, append_json_within, append_list, append_map, append_number, append_str};
use crate::protocol::sio::{Args, arguments};
use bytes::Bytes;
use serde_json::value::RawValue;
use std::borrow::Cow;

const BROADCAST: u64 = 3;
const JOIN: u64 = 4;
const LEAVE: u64 = 5;
const DISCONNECT: u64 = 6;
const FETCH: u64 = 7;
const FETCHED: u64 = 8;
const SERVER_SIDE_EMIT: u64 = 9;
const SERVER_SIDE_ACK: u64 = 10;
const CLIENT_COUNT: u64 = 11;
const ACK: u64 = 12;

/// A message whose data was not looked at yet.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// Who says it.
    pub sender: Cow<'a, str>,
    /// The namespace that it is for.
    pub namespace: Cow<'a, str>,
    kind: u64,
    data: Option<Reader<'a>>,
}

/// What a message says.
#[derive(Debug, Clone)]
pub enum Said<'a> {
    /// It asks.
    Request(Request<'a>),
    /// It answers.
    Response(Response<'a>),
}

impl<'a> Message<'a> {
    /// Writes a request, but for what is written to the stream, and for a broadcast: see [`Message::broadcast`].
    ///
    /// # Errors
    /// [`WireError::TooLong`]; [`WireError::Malformed`] of what is no question of this kind of cluster.
    pub fn request(namespace: &str, Request { sender, id, body }: &Request<'_>, bounds: &Bounds) -> Result<Vec<u8>, WireError> {
        let write_id = |out: &mut Vec<u8>| {
            if let Some(id) = id {
                append_str(out, "requestId");
                append_str(out, id);
            }
        };
        let members = 1 + u32::from(id.is_some());
        let sender = sender.as_deref().unwrap_or_default();
        match body {
            Wish::Fetch(target) => write((FETCH, members), sender, namespace, bounds, |out| {
                append_str(out, "opts");
                Scope::append(target, &Flags::default(), false, out);
                write_id(out);
                Ok(())
            }),
            Wish::ServerSideEmit(event, args) => write((SERVER_SIDE_EMIT, members), sender, namespace, bounds, |out| {
                write_id(out);
                append_str(out, "packet");
                append_list(out, 1 + args.len());
                append_str(out, event);
                Ok(append_json_within(out, args.tail(), args.attachments(), bounds.bytes)?)
            }),
            _ => Err(WireError::Malformed),
        }
    }

    /// Writes an event that sockets are to acknowledge.
    ///
    /// # Errors
    /// [`WireError::TooLong`]
    pub fn broadcast(
        (sender, id): (&str, &str),
        namespace: &str,
        target: &Target,
        flags: &Flags,
        (event, args): (&str, &Args),
        bounds: &Bounds,
    ) -> Result<Vec<u8>, WireError> {
        write((BROADCAST, 3), sender, namespace, bounds, |out| {
            append_str(out, "packet");
            append_packet(out, event, args, bounds)?;
            append_str(out, "requestId");
            append_str(out, id);
            append_str(out, "opts");
            Scope::append(target, flags, false, out);
            Ok(())
        })
    }

    /// Writes a response.
    ///
    /// # Errors
    /// [`WireError::TooLong`]; [`WireError::Malformed`] of what is no answer of this kind of cluster.
    pub fn response(
        namespace: &str,
        Response { id, sender, body }: &Response<'_>,
        bounds: &Bounds,
    ) -> Result<Vec<u8>, WireError> {
        let (kind, members) = match body {
            Answer::Sockets(_) => (FETCHED, 2),
            Answer::ServerSide(_) => (SERVER_SIDE_ACK, 2),
            Answer::ClientCount(_) => (CLIENT_COUNT, 2),
            Answer::Ack(None, _) => (ACK, 2),
            Answer::Ack(Some(_), _) => (ACK, 3),
            Answer::Done | Answer::Rooms(_) => return Err(WireError::Malformed),
        };
        write((kind, members), sender.as_deref().unwrap_or_default(), namespace, bounds, |out| {
            append_str(out, "requestId");
            append_str(out, id);
            match body {
                Answer::Sockets(sockets) => {
                    append_str(out, "sockets");
                    append_list(out, sockets.len());
                    sockets.iter().try_for_each(|socket| append_json_within(out, socket.get(), &[], bounds.bytes))?;
                }
                Answer::ServerSide(args) => append_first(out, args, bounds)?,
                Answer::ClientCount(count) => {
                    append_str(out, "clientCount");
                    append_number(out, &count.to_string());
                }
                Answer::Ack(socket, args) => {
                    append_first(out, args, bounds)?;
                    // Only ours say which socket.
                    if let Some(socket) = socket {
                        append_str(out, "sid");
                        append_str(out, socket.as_str());
                    }
                }
                Answer::Done | Answer::Rooms(_) => {}
            }
            Ok(())
        })
    }

    /// Reads all but the data.
    ///
    /// # Errors
    /// It is to be skipped.
    pub fn decode(message: &'a Bytes, bounds: &Bounds) -> Result<Self, WireError> {
        if message.len() > bounds.bytes {
            return Err(WireError::TooLong);
        }
        let mut reader = Reader::of(message);
        let (mut sender, mut namespace, mut kind, mut data) = (None, None, None, None);
        members(&mut reader, |key, reader| {
            match key {
                b"uid" => sender = Some(string(reader)?),
                b"nsp" => namespace = Some(string(reader)?),
                b"type" => kind = if let Head::Unsigned(kind) = head(reader)? { Some(kind) } else { None },
                b"data" => {
                    data = Some(reader.clone());
                    reader.skip()?;
                }
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        match (sender, namespace, kind) {
            (Some(sender), Some(namespace), Some(kind)) if reader.is_empty() => Ok(Self { sender, namespace, kind, data }),
            _ => Err(WireError::Malformed),
        }
    }

    /// Reads what it says.
    ///
    /// # Errors
    /// It is to be skipped.
    pub fn said(self, bounds: &Bounds) -> Result<Said<'a>, WireError> {
        let mut reader = self.data.ok_or(WireError::Malformed)?;
        let (mut id, mut scope, mut packet, mut rooms) = (None, None, None, Vec::new());
        let (mut sockets, mut count, mut close, mut socket) = (None, None, false, None);
        members(&mut reader, |key, reader| {
            match key {
                b"requestId" => {
                    id = if head(&mut reader.clone())? == Head::Nil {
                        reader.skip().map(|()| None)?
                    } else {
                        Some(string(reader)?)
                    }
                }
                b"opts" => scope = Some(Scope::read(reader, bounds)?),
                b"rooms" => rooms = read_rooms(reader, bounds)?,
                b"close" => close = head(reader)? == Head::Bool(true),
                b"clientCount" => count = if let Head::Unsigned(count) = head(reader)? { Some(count) } else { None },
                b"sid" => socket = Some(SocketId::from(&*string(reader)?)),
                b"packet" => {
                    packet = Some(reader.clone());
                    reader.skip()?;
                }
                b"sockets" => {
                    sockets = Some(reader.clone());
                    reader.skip()?;
                }
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        let target = scope.as_ref().map(|scope: &Scope| scope.target.clone()).ok_or(WireError::Malformed);
        let body = match self.kind {
            BROADCAST => {
                let packet = Packet::read(&mut packet.ok_or(WireError::Malformed)?)?;
                Wish::Broadcast(AckedBroadcast::new(scope.ok_or(WireError::Malformed)?, packet))
            }
            JOIN => Wish::Join(target?, rooms),
            LEAVE => Wish::Leave(target?, rooms),
            DISCONNECT => Wish::Disconnect(target?, close),
            FETCH => Wish::Fetch(target?),
            SERVER_SIDE_EMIT => server_event(packet.ok_or(WireError::Malformed)?, bounds)?,
            kind => {
                let one = |packet: Option<Reader<'_>>| match packet {
                    Some(packet) => Ok(arguments(packet, 1, bounds.attachments)?),
                    None => Err(WireError::Malformed),
                };
                let body = match kind {
                    FETCHED => Answer::Sockets(list(sockets.ok_or(WireError::Malformed)?, bounds)?),
                    SERVER_SIDE_ACK => Answer::ServerSide(one(packet)?),
                    CLIENT_COUNT => Answer::ClientCount(count.ok_or(WireError::Malformed)?),
                    ACK => Answer::Ack(socket, one(packet)?),
                    _ => return Err(WireError::Malformed),
                };
                let id = id.ok_or(WireError::Malformed)?;
                return Ok(Said::Response(Response { id, sender: Some(self.sender), body }));
            }
        };
        Ok(Said::Request(Request { sender: Some(self.sender), id, body }))
    }
}

/// Writes a message of a kind; its data has so many members, which `data` writes.
fn write(
    (kind, members): (u64, u32),
    sender: &str,
    namespace: &str,
    bounds: &Bounds,
    data: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::with_capacity(192);
    append_map(&mut out, 4);
    append_str(&mut out, "type");
    append_number(&mut out, &kind.to_string());
    append_str(&mut out, "data");
    append_map(&mut out, members);
    data(&mut out)?;
    append_str(&mut out, "uid");
    append_str(&mut out, sender);
    append_str(&mut out, "nsp");
    append_str(&mut out, namespace);
    if out.len() > bounds.bytes { Err(WireError::TooLong) } else { Ok(out) }
}

/// Appends the first argument and no other, as in the reference.
fn append_first(out: &mut Vec<u8>, args: &Args, bounds: &Bounds) -> Result<(), WireError> {
    append_str(out, "packet");
    let first = args.raw().first().map_or("null", |first| first.get());
    Ok(append_json_within(out, first, args.attachments(), bounds.bytes)?)
}

fn server_event<'a>(mut packet: Reader<'a>, bounds: &Bounds) -> Result<Wish<'a>, WireError> {
    let Head::Array(len @ 1..) = head(&mut packet)? else { return Err(WireError::Malformed) };
    // A name that no socket may use is a server's to use.
    let name = match head(&mut packet)? {
        Head::Str(name) => packet.text(name),
        Head::Unsigned(number) => number.to_string().into(),
        _ => return Err(WireError::Malformed),
    };
    Ok(Wish::ServerSideEmit(name, arguments(packet, len - 1, bounds.attachments)?))
}

/// The values of a list as JSON, in which bytes are as Node's `Buffer` shows them.
fn list(mut reader: Reader<'_>, bounds: &Bounds) -> Result<Vec<Box<RawValue>>, WireError> {
    let Head::Array(len) = head(&mut reader)? else { return Err(WireError::Malformed) };
    let values = arguments(reader, len, bounds.attachments)?;
    let json = plain(None, &values, bounds)?;
    serde_json::from_str(json.get()).map_err(|_| WireError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire::testing::{BOUNDS, rooms as names, unhex};
    use proptest::prelude::*;

    #[test]
    fn what_is_not_of_this_form_is_skipped() {
        for message in [
            "",
            "c1",
            "80",
            // {type: 7, data: {}, uid: "a", nsp: "/"}, of which the first has nothing to fetch, the second no kind and the third something behind.
            "84a47479706507a46461746180a3756964a161a36e7370a12f",
            "84a474797065a137a46461746180a3756964a161a36e7370a12f",
            "84a47479706507a46461746180a3756964a161a36e7370a12fc0",
            // 2^32 rooms are announced.
            "84a47479706507a46461746181a46f70747381a5726f6f6d73ddffffffffa3756964a161a36e7370a12f",
        ] {
            let message = unhex(message);
            let read = Message::decode(&message, &BOUNDS).and_then(|message| message.said(&BOUNDS).map(drop));
            assert!(read.is_err(), "{message:?}");
        }
        let few = Bounds { bytes: 10, ..BOUNDS };
        assert_eq!(Message::decode(&vec![0x84; 11].into(), &few).err(), Some(WireError::TooLong));
    }

    proptest! {
        #[test]
        fn requests_are_read_again(kind in 0..3_u8, some in prop::collection::vec(any::<String>(), 0..4), event in "[a-z]{1,5}", bytes: Vec<u8>, id: Option<String>) {
            let target = Target { rooms: names(&some), except: names(&["x"]) };
            let args = Args::new(&(1.5, Bytes::from(bytes))).expect("JSON");
            let id = id.unwrap_or_else(|| "r".to_owned());
            let body = if kind == 0 { Wish::Fetch(target.clone()) } else { Wish::ServerSideEmit(event.as_str().into(), args.clone()) };
            let message = if kind == 2 {
                Message::broadcast(("me", &id), "/n", &target, &Flags::default(), (&event, &args), &BOUNDS)
            } else {
                Message::request("/n", &Request { sender: Some("me".into()), id: Some(id.as_str().into()), body: body.clone() }, &BOUNDS)
            };
            let message = message.expect("short").into();
            let read = Message::decode(&message, &BOUNDS).expect("written a line ago");
            prop_assert_eq!((&*read.sender, &*read.namespace), ("me", "/n"));
            let Said::Request(read) = read.said(&BOUNDS).expect("written above") else { panic!("a request") };
            prop_assert_eq!((read.sender.as_deref(), read.id.as_deref()), (Some("me"), Some(&*id)));
            match &read.body {
                Wish::Broadcast(broadcast) => {
                    prop_assert_eq!((kind, &broadcast.scope.target), (2, &target));
                    prop_assert_eq!(broadcast.event(&BOUNDS), Ok((event.into(), args)));
                }
                wish => prop_assert_eq!(format!("{wish:?}"), format!("{body:?}")),
            }
        }

        #[test]
        fn responses_are_read_again(kind in 0..4_u8, count in 0..1_u64 << 53, text: String, bytes: Vec<u8>, id: String) {
            let args = Args::new(&Bytes::from(bytes)).expect("JSON");
            let socket = serde_json::value::to_raw_value(&serde_json::json!({ "id": text, "rooms": [text], "data": { "n": 1 } })).expect("JSON");
            let body = match kind {
                0 => Answer::Sockets(vec![socket]),
                1 => Answer::ServerSide(args),
                2 => Answer::ClientCount(count),
                _ => Answer::Ack((count % 2 == 0).then(|| SocketId::from(&*text)), args),
            };
            let response = Response { id: id.into(), sender: Some("me".into()), body };
            let message = Message::response("/n", &response, &BOUNDS).expect("short").into();
            let Said::Response(read) = Message::decode(&message, &BOUNDS).and_then(|read| read.said(&BOUNDS)).expect("written above") else { panic!("a response") };
            prop_assert_eq!(read, response);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at in 0..60_usize, byte: u8) {
            let read = |bytes: Bytes| Message::decode(&bytes, &BOUNDS).is_ok_and(|message| message.said(&BOUNDS).is_ok());
            read(bytes.into());
            let mut almost = unhex("84a47479706503a46461746183a67061636b657482a47479706502a46461746191a178a9726571756573744964a172a46f70747383a5726f6f6d7390a665786365707490a5666c61677380a3756964a161a36e7370a12f").to_vec();
            let at = at % almost.len();
            almost[at] = byte;
            read(almost.into());
        }
    }
}
