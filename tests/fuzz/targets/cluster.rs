//! What other nodes of a cluster say: what is read is written in one way, which reads the same.

use bytes::Bytes;
use stickyport::cluster::wire::{Bounds, Broadcast, Request, Response, Wish};

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
