//! What the other nodes say: read, judged, and handed to the hub. What is no message of theirs is skipped and counted.

use super::redis::Redis;
use super::streams::{Fence, Turn};
use super::wire::{
    Answer, Bounds, Broadcast, Channels, Deed, Entry, Heard, Message, Request, Response, SENDER, Said, WireError, Wish,
};
use crate::hub::{Adapter as _, Flags, Offset, RemoteSocket, ServerEvent, SocketIo, Target};
use crate::protocol::sid::Pid;
use crate::protocol::sio::Args;
use crate::reminder::Reminder;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Instant;

/// Hears what the other nodes say.
#[derive(Debug)]
pub(super) struct Inbound {
    redis: Arc<Redis>,
    io: SocketIo,
    bounds: Bounds,
    /// By the pattern that was subscribed to.
    routes: RwLock<HashMap<String, Arc<Route>>>,
    skipped: Reminder,
}

/// Where a subscription leads.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) namespace: bytestring::ByteString,
    pub(super) channels: Channels,
    pub(super) kind: Kind,
}

/// What comes there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Broadcast,
    Request,
    Response,
    /// Of a cluster over streams: both of these.
    Message,
    /// A client is at another node now, or no longer at one.
    Fence,
}

impl Inbound {
    pub(super) fn new(redis: Arc<Redis>, io: SocketIo) -> Self {
        let limits = io.limits().snapshot();
        let bounds = Bounds {
            bytes: limits.cluster_message_bytes,
            rooms: limits.cluster_rooms,
            attachments: io.options().parser.max_attachments(&limits),
        };
        Self { redis, io, bounds, routes: RwLock::default(), skipped: Reminder::default() }
    }

    /// What comes under this pattern is for that namespace.
    pub(super) fn route(&self, pattern: String, route: Route) {
        self.routes.write().expect(UNPOISONED).insert(pattern, Arc::new(route));
    }

    /// Nothing is to come under this pattern any more.
    pub(super) fn unroute(&self, pattern: &str) {
        self.routes.write().expect(UNPOISONED).remove(pattern);
    }

    /// A message has come. It is carried out at once, on the task that reads from Redis: who is slower than Redis keeps Redis waiting, and holds nothing.
    pub(super) fn hear(&self, pattern: &str, channel: &str, message: Bytes) {
        let Some(route) = self.routes.read().expect(UNPOISONED).get(pattern).cloned() else { return };
        let metrics = self.redis.metrics();
        metrics.cluster_received.inc();
        let heard = match route.kind {
            Kind::Broadcast => self.broadcast(&route, channel, &message),
            Kind::Request => Request::decode(&message, &self.bounds).and_then(|request| self.request(&route, request)),
            Kind::Message => self.message(&route, &message),
            Kind::Fence => self.fence(&message),
            Kind::Response if Response::asked(&message).is_some_and(|id| !self.redis.questions.is_open(id)) => Ok(()),
            Kind::Response => {
                Response::decode(&message, &self.bounds).map(|response| self.redis.questions.answer(response, message.len()))
            }
        };
        if let Err(error) = heard {
            metrics.cluster_skipped.inc();
            if self.skipped.is_due(Instant::now()) {
                tracing::warn!(channel, bytes = message.len(), "a message from the cluster was skipped: {error}");
            }
        }
    }

    fn broadcast(&self, route: &Route, channel: &str, message: &Bytes) -> Result<(), WireError> {
        if let Heard::ToRoom(room) = route.channels.heard(channel)
            && !self.io.hears(&route.namespace, room)
        {
            return Ok(());
        }
        if Broadcast::sender(message)? == self.redis.uid().as_bytes() {
            return Ok(());
        }
        let broadcast = Broadcast::decode(message, &self.bounds)?;
        if broadcast.namespace() != route.namespace {
            return Ok(());
        }
        let mut read = Ok(());
        self.io.deliver(&route.namespace, &broadcast.scope.target, &broadcast.scope.flags, || {
            broadcast.event(&self.bounds).map_err(|error| read = Err(error)).ok()
        });
        read
    }

    fn message(&self, route: &Route, message: &Bytes) -> Result<(), WireError> {
        let bytes = message.len();
        let message = Message::decode(message, &self.bounds)?;
        if message.sender == self.redis.uid() || message.namespace != *route.namespace {
            return Ok(());
        }
        match message.said(&self.bounds)? {
            Said::Request(request) => self.request(route, request)?,
            Said::Response(response) => self.redis.questions.answer(response, bytes),
        }
        Ok(())
    }

    /// An entry of a stream was read.
    pub(super) fn hear_entry(&self, place: usize, id: Offset, fields: &[(Bytes, Bytes)]) {
        let metrics = self.redis.metrics();
        metrics.cluster_received.inc();
        let sender = fields.iter().find(|(name, _)| name == SENDER).map(|(_, sender)| sender);
        if sender.is_some_and(|sender| sender == self.redis.uid()) {
            if let Some(streams) = &self.redis.streams {
                let mut turns = streams.backlog.read(place, fields);
                let last = turns.pop();
                // What is no longer in the stream has no place of its own.
                turns.into_iter().for_each(|turn| self.take_turn(None, turn));
                last.into_iter().for_each(|turn| self.take_turn(Some(id), turn));
            }
        } else if let Err(error) = self.entry(Some(id), fields.iter().map(|(name, value)| (&**name, value.clone()))) {
            metrics.cluster_skipped.inc();
            if self.skipped.is_due(Instant::now()) {
                tracing::warn!(%id, "an entry of a stream was skipped: {error}");
            }
        }
    }

    /// What this node has written is done here, too, if it has not been done.
    pub(super) fn take_turn(&self, id: Option<Offset>, Turn { entry, then }: Turn) {
        if let Some(fields) = entry
            && let Err(error) = self.entry(id, fields.iter().map(|(name, value)| (name.as_bytes(), value.clone())))
        {
            tracing::error!("this node does not understand itself: {error}");
        }
        then.into_iter().for_each(|act| act());
    }

    fn entry<'a>(&self, id: Option<Offset>, fields: impl Iterator<Item = (&'a [u8], Bytes)>) -> Result<(), WireError> {
        let entry = Entry::read(fields, &self.bounds)?;
        let sockets = |target: Target| self.io.of(&entry.namespace).to(target.rooms).except(target.except).local();
        match entry.deed(&self.bounds)? {
            Deed::Join(target, rooms) => sockets(target).sockets_join(rooms),
            Deed::Leave(target, rooms) => sockets(target).sockets_leave(rooms),
            Deed::Disconnect(target, close) => sockets(target).disconnect_sockets(close),
            Deed::Emit(stated) => {
                let mut read = Ok(());
                self.io.hear(&entry.namespace, id, &stated.scope.target, &stated.scope.flags, || {
                    stated.event(&self.bounds).map_err(|error| read = Err(error)).ok()
                });
                return read;
            }
        }
        Ok(())
    }

    fn fence(&self, message: &Bytes) -> Result<(), WireError> {
        let Some(streams) = self.redis.streams.clone() else { return Ok(()) };
        match Fence::read(message, &self.bounds)? {
            Fence::Free { id } => streams.fences.answered(&id),
            Fence::Release { namespace, pid, id, from } => {
                let (io, channel) = (self.io.clone(), self.redis.fence_channel(&from));
                tokio::spawn(async move {
                    io.fence(&namespace, &pid).await;
                    streams.sessions.then(channel, Fence::Free { id }.written());
                });
            }
        }
        Ok(())
    }

    /// A client is at another node: its session here ends.
    pub(super) fn end(&self, namespace: bytestring::ByteString, pid: Pid) {
        let io = self.io.clone();
        tokio::spawn(async move { io.fence(&namespace, pid.as_str()).await });
    }

    fn request(&self, route: &Route, Request { sender, id, body }: Request<'_>) -> Result<(), WireError> {
        // What this node asks it has done itself before.
        if sender.as_deref() == Some(self.redis.uid()) {
            return Ok(());
        }
        let reply = id.map(|id| Reply {
            redis: Arc::clone(&self.redis),
            channels: route.channels.clone(),
            to: sender.map(Into::into),
            id: id.into(),
        });
        let sockets = |target: Target| self.io.of(&route.namespace).to(target.rooms).except(target.except).local();
        match (body, reply) {
            (Wish::Join(target, rooms), _) => sockets(target).sockets_join(rooms),
            (Wish::Leave(target, rooms), _) => sockets(target).sockets_leave(rooms),
            (Wish::Disconnect(target, close), _) => sockets(target).disconnect_sockets(close),
            (Wish::ServerSideEmit(event, args), reply) => {
                let answer = reply.map(|reply| Box::new(move |args: Args| reply.send_server_side(&args)) as _);
                self.io.hear_server(&ServerEvent::new(route.namespace.clone(), event, args, answer));
            }
            // Nobody is told what nobody can wait for.
            (_, None) => return Err(WireError::Malformed),
            (Wish::Sockets(rooms), Some(reply)) => {
                let found = sockets(Target { rooms, except: Vec::new() }).local_sockets();
                reply.send(Answer::Sockets(found.iter().map(|socket| json(socket.id().as_str())).collect()));
            }
            (Wish::AllRooms, Some(reply)) => reply.send(Answer::Rooms(self.io.rooms_here(&route.namespace))),
            (Wish::Fetch(target), Some(reply)) => {
                let found = sockets(target).local_sockets();
                reply.send(Answer::Sockets(found.iter().map(|socket| json(&RemoteSocket::of(socket))).collect()));
            }
            (Wish::Broadcast(broadcast), Some(reply)) => {
                if !matches!(route.kind, Kind::Message) && broadcast.namespace() != route.namespace {
                    return Ok(());
                }
                let Flags { timeout, compress, .. } = broadcast.scope.flags;
                let timeout = timeout.unwrap_or(self.redis.options.request_timeout);
                let sockets = sockets(broadcast.scope.target.clone()).compress(compress).timeout(timeout);
                // The event is only read if somebody hears it.
                if sockets.local_sockets().is_empty() {
                    reply.send(Answer::ClientCount(0));
                    return Ok(());
                }
                let (event, args) = broadcast.event(&self.bounds)?;
                let mut acks = sockets.emit_with_ack(&event, args);
                reply.send(Answer::ClientCount(acks.asked() as u64));
                tokio::spawn(async move {
                    while let Some((socket, args)) = acks.next().await {
                        reply.send(Answer::Ack(Some(socket), args));
                    }
                });
            }
        }
        Ok(())
    }
}

/// The way back to who has asked.
struct Reply {
    redis: Arc<Redis>,
    channels: Channels,
    to: Option<String>,
    id: String,
}

impl Reply {
    fn send(&self, answer: Answer) {
        if self.redis.streams.is_some() {
            // Every message names its sender.
            let uid = self.to.as_deref().unwrap_or_default();
            return self.publish(self.channels.room(uid), answer);
        }
        let channel = match &self.to {
            Some(uid) if self.redis.options.specific_response_channel => self.channels.response_to(uid),
            _ => self.channels.response(),
        };
        self.publish(channel, answer);
    }

    /// Where all hear it in any case, as in the reference.
    fn send_server_side(&self, args: &Args) {
        let answer = Answer::ServerSide(args.clone());
        if self.redis.streams.is_some() { self.send(answer) } else { self.publish(self.channels.response(), answer) }
    }

    fn publish(&self, channel: String, body: Answer) {
        let response = Response { id: self.id.as_str().into(), sender: Some(self.redis.uid().into()), body };
        let bounds = self.redis.bounds();
        let message = match &self.redis.streams {
            Some(_) => Message::response(self.channels.namespace(), &response, bounds),
            None => response.encode(bounds),
        };
        self.redis.publish(channel, message);
    }
}

fn json(value: &(impl Serialize + ?Sized)) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("texts and JSON are JSON")
}

const UNPOISONED: &str = "no code that can panic runs under this lock";
