//! What the other nodes say: read, judged, and handed to the hub. What is no message of theirs is skipped and counted.

use super::redis::Redis;
use super::wire::{Bounds, Broadcast, Channels, Heard, WireError};
use crate::hub::SocketIo;
use crate::reminder::Reminder;
use bytes::Bytes;
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
    routes: RwLock<HashMap<String, Route>>,
    skipped: Reminder,
}

/// Where a subscription leads.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) namespace: bytestring::ByteString,
    pub(super) channels: Channels,
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
        self.routes.write().expect(UNPOISONED).insert(pattern, route);
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
        if let Err(error) = self.broadcast(&route, channel, &message) {
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
}

const UNPOISONED: &str = "no code that can panic runs under this lock";
