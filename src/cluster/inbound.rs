//! What the other nodes say: read, judged, and handed to the hub. What is no message of theirs is skipped and counted.

use super::redis::Redis;
use super::wire::{Answer, Bounds, Broadcast, Channels, Heard, Request, Response, WireError, Wish, plain};
use crate::hub::{Adapter as _, Flags, RemoteSocket, ServerEvent, SocketIo, Target};
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
            Kind::Request => self.request(&route, &message),
            Kind::Response => Response::decode(&message, &self.bounds).map(|response| self.redis.questions.answer(response)),
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

    fn request(&self, route: &Route, message: &Bytes) -> Result<(), WireError> {
        let Request { sender, id, body } = Request::decode(message, &self.bounds)?;
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
                if broadcast.namespace() != route.namespace {
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
        let channel = match &self.to {
            Some(uid) if self.redis.options.specific_response_channel => self.channels.response_to(uid),
            _ => self.channels.response(),
        };
        self.publish(channel, answer);
    }

    /// Where all hear it in any case, as in the reference.
    fn send_server_side(&self, args: &Args) {
        match plain(None, args, self.redis.bounds()) {
            Ok(list) => {
                let values: Vec<&RawValue> = serde_json::from_str(list.get()).expect("a list");
                self.publish(self.channels.response(), Answer::ServerSide(values.first().map(|first| (*first).to_owned())));
            }
            Err(error) => drop(self.redis.publish(self.channels.response(), Err(error))),
        }
    }

    fn publish(&self, channel: String, body: Answer) {
        let response = Response { id: self.id.as_str().into(), sender: Some(self.redis.uid().into()), body };
        self.redis.publish(channel, response.encode(self.redis.bounds()));
    }
}

fn json(value: &(impl Serialize + ?Sized)) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("texts and JSON are JSON")
}

const UNPOISONED: &str = "no code that can panic runs under this lock";
