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
fn name_and_arguments(mut list: Reader<'_>, len: u32, max_attachments: usize) -> Result<(ByteString, Args), DecodeError> {
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
    Ok((name, arguments(list, len - 1, max_attachments)?))
}

fn arguments(mut list: Reader<'_>, len: u32, max_attachments: usize) -> Result<Args, DecodeError> {
    let mut json = Json::with_attachments(max_attachments);
    json.append(&mut list, len)?;
    let (tail, attachments) = json.finish()?;
    Ok(Args::validated(tail, len as usize, attachments))
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
