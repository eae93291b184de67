//! What other nodes of a cluster say: what is read is written in one way, which reads the same.

use bytes::Bytes;
use stickyport::cluster::wire::{Bounds, Broadcast, Deed, Entry, Message, Record, Request, Response, Said, Wish};
use stickyport::hub::Action;

const BOUNDS: Bounds = Bounds { bytes: 1 << 20, rooms: 50, attachments: 10 };

/// An event for many sockets.
pub fn broadcast(data: &[u8]) {
    let Some(written) = broadcast_again(&Bytes::copy_from_slice(data)) else { return };
    assert_eq!(broadcast_again(&written).as_ref(), Some(&written));
}

fn broadcast_again(message: &Bytes) -> Option<Bytes> {
    let sender = String::from_utf8_lossy(Broadcast::sender(message).ok()?).into_owned();
    let read = Broadcast::decode(message, &BOUNDS).ok()?;
    assert!(read.scope.target.rooms.len() <= BOUNDS.rooms && read.scope.target.except.len() <= BOUNDS.rooms);
    let (event, args) = read.event(&BOUNDS).ok()?;
    let (target, flags) = (&read.scope.target, &read.scope.flags);
    Broadcast::encode(&sender, &read.namespace(), target, flags, &event, &args, &BOUNDS).ok().map(Bytes::from)
}

/// What a node asks of all others.
pub fn request(data: &[u8]) {
    let Some(written) = request_again(&Bytes::copy_from_slice(data)) else { return };
    assert_eq!(request_again(&written).as_ref(), Some(&written));
}

fn request_again(message: &Bytes) -> Option<Bytes> {
    let read = Request::decode(message, &BOUNDS).ok()?;
    let Wish::Broadcast(broadcast) = &read.body else { return read.encode(&BOUNDS).ok().map(Bytes::from) };
    let (event, args) = broadcast.event(&BOUNDS).ok()?;
    let ids = (read.sender.as_deref().unwrap_or_default(), read.id.as_deref().expect("it wants acknowledgements"));
    let (target, flags) = (&broadcast.scope.target, &broadcast.scope.flags);
    Request::encode_broadcast(ids, &broadcast.namespace(), target, flags, (&event, &args), &BOUNDS).ok().map(Bytes::from)
}

/// What a node answers.
pub fn response(data: &[u8]) {
    let message = Bytes::copy_from_slice(data);
    let Ok(read) = Response::decode(&message, &BOUNDS) else { return };
    let Ok(written) = read.encode(&BOUNDS).map(Bytes::from) else { return };
    assert_eq!(Response::decode(&written, &BOUNDS), Ok(read));
}

/// What a node of a cluster over streams asks or answers.
pub fn message(data: &[u8]) {
    let Some(written) = message_again(&Bytes::copy_from_slice(data)) else { return };
    assert_eq!(message_again(&written).as_ref(), Some(&written));
}

fn message_again(message: &Bytes) -> Option<Bytes> {
    let read = Message::decode(message, &BOUNDS).ok()?;
    let namespace = read.namespace.clone();
    let again = match read.said(&BOUNDS).ok()? {
        Said::Response(response) => Message::response(&namespace, &response, &BOUNDS),
        Said::Request(Request { sender, id, body: Wish::Broadcast(broadcast) }) => {
            let (event, args) = broadcast.event(&BOUNDS).ok()?;
            let (target, flags) = (&broadcast.scope.target, &broadcast.scope.flags);
            let ids = (sender.as_deref().unwrap_or_default(), id.as_deref()?);
            Message::broadcast(ids, &namespace, target, flags, (&event, &args), &BOUNDS)
        }
        Said::Request(request) => Message::request(&namespace, &request, &BOUNDS),
    };
    again.ok().map(Bytes::from)
}

/// What is in a stream: its kind in one byte, and its data.
pub fn entry(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let fields = [("uid", "a"), ("nsp", "/")].map(|(name, value)| (name, Bytes::from(value)));
    let kind = Bytes::copy_from_slice(std::slice::from_ref(kind));
    let Some(written) =
        entry_again(&[fields[0].clone(), fields[1].clone(), ("type", kind), ("data", Bytes::copy_from_slice(data))])
    else {
        return;
    };
    assert_eq!(entry_again(&written).as_ref(), Some(&written));
}

fn entry_again(fields: &[(&'static str, Bytes); 4]) -> Option<[(&'static str, Bytes); 4]> {
    let entry = Entry::read(fields.iter().map(|(name, value)| (name.as_bytes(), value.clone())), &BOUNDS).ok()?;
    let of = |action| Some(Entry::of(&entry.sender, &entry.namespace, action, &BOUNDS).ok()??.fields());
    match entry.deed(&BOUNDS).ok()? {
        Deed::Emit(stated) => {
            let (event, args) = stated.event(&BOUNDS).ok()?;
            of(Action::Emit { target: &stated.scope.target, flags: &stated.scope.flags, event: &event, args: &args })
        }
        Deed::Join(target, rooms) => of(Action::Join { target: &target, rooms: &rooms }),
        Deed::Leave(target, rooms) => of(Action::Leave { target: &target, rooms: &rooms }),
        Deed::Disconnect(target, close) => of(Action::Disconnect { target: &target, close }),
    }
}

/// What is kept of a client.
pub fn session(data: &[u8]) {
    let Some(written) = session_again(data) else { return };
    assert_eq!(session_again(written.as_bytes()).as_ref(), Some(&written));
}

fn session_again(kept: &[u8]) -> Option<String> {
    let Record { session, holder } = Record::decode(kept, &BOUNDS).ok()?;
    assert!(session.rooms.len() <= BOUNDS.rooms);
    Record::encode(&session, holder.as_deref(), &BOUNDS).ok()
}
