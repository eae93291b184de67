//! The connection to Redis: made, kept, and made again, with what is subscribed to and what is published over it.

use super::inbound::{Inbound, Kind, Route};
use super::members::{self, LIFETIME, MEMORY, Members};
use super::outbox::Publication;
use super::redis::Redis;
use super::streams::{self, Fate, Streams, What, Writer};
use super::wire::{Channels, Record};
use crate::engine::Entropy;
use crate::hub::Adapter as _;
use crate::reminder::Reminder;
use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo as _, ProtocolVersion, PushInfo, PushKind, RedisError,
    RedisResult, ServerErrorKind, Value, cmd, pipe,
};
use bytes::Bytes;
use bytestring::ByteString;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How long Redis may take to answer before it counts as gone.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// So often it is given a sign of life, which it has to answer.
const BEAT: Duration = Duration::from_secs(3);
/// How long what it has said last may take to be read when it has gone.
const DRAIN: Duration = Duration::from_millis(100);
/// The pause before the second attempt, the longest one, and what makes it about twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A client of a Redis, which is not connected yet.
pub(super) fn client(url: &str) -> RedisResult<Client> {
    let info = url.into_connection_info()?;
    // Messages come over the one connection over which commands go; that needs the newer protocol.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_redis_settings(settings))
}

const UNPOISONED: &str = "no code that can panic runs under this lock";

/// Connects, again and again, until the node leaves.
pub(super) async fn run(redis: &Redis, inbound: &Arc<Inbound>) {
    let (mut pause, unreachable) = (FIRST_PAUSE, Reminder::default());
    let address = redis.client.get_connection_info().addr().to_string();
    redis.metrics().redis_down.inc();
    while !redis.leaving.is_cancelled() {
        let error = match Session::begin(redis, inbound).await {
            Ok(mut session) => {
                redis.metrics().redis_down.dec();
                tracing::info!(address, "connected to Redis");
                let began = Instant::now();
                *redis.connection.lock().expect(UNPOISONED) = Some(session.connection.clone());
                redis.outbox.open();
                if let Some(streams) = &redis.streams {
                    streams.backlog.open();
                }
                redis.is_connected.send_replace(true);
                let ended = session.serve().await;
                session.drain(if ended.is_err() { DRAIN } else { Duration::ZERO }).await;
                redis.is_connected.send_replace(false);
                *redis.connection.lock().expect(UNPOISONED) = None;
                redis.outbox.close();
                if let Some(streams) = &redis.streams {
                    streams.backlog.close().into_iter().for_each(|turn| inbound.take_turn(None, turn));
                    streams.sessions.close();
                }
                redis.metrics().redis_down.inc();
                // One that takes us and throws us out again is not asked more often than one that is away.
                if began.elapsed() > LONGEST_PAUSE {
                    pause = FIRST_PAUSE;
                }
                match ended {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => {
                redis.registry.is_unknown();
                error
            }
        };
        if unreachable.is_due(Instant::now()) {
            tracing::warn!(address, "Redis is away; what is sent reaches this node only: {error}");
        }
        tokio::select! {
            () = sleep(scattered(pause)) => {}
            () = redis.leaving.cancelled() => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Between half of it and one and a half of it, so that a fleet does not come back all at once.
fn scattered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + (Entropy::default().bits() % 1_000) as f64 / 1_000.0)
}

/// A connection while it lasts.
struct Session<'a> {
    redis: &'a Redis,
    inbound: &'a Arc<Inbound>,
    connection: MultiplexedConnection,
    subscribed: BTreeSet<ByteString>,
    /// Those among them that Redis does not let this node listen to.
    forbidden: BTreeSet<ByteString>,
    broken: CancellationToken,
    /// Reads the streams of a cluster over streams, until it cannot.
    reading: Option<AbortOnDropHandle<()>>,
}

impl<'a> Session<'a> {
    async fn begin(redis: &'a Redis, inbound: &'a Arc<Inbound>) -> RedisResult<Self> {
        let broken = CancellationToken::new();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_push_sender(hear(Arc::clone(inbound), broken.clone()));
        let connection = redis.client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut session =
            Self { redis, inbound, connection, subscribed: BTreeSet::new(), forbidden: BTreeSet::new(), broken, reading: None };
        // First, so that who asks counts with this node as soon as it listens.
        session.beat().await?;
        session.subscribe().await?;
        if let Some(streams) = &redis.streams {
            session.read(streams).await?;
        }
        Ok(session)
    }

    /// Reads what the streams hold, and goes on doing so.
    async fn read(&mut self, streams: &Arc<Streams>) -> RedisResult<()> {
        // Who may not ask, or asks a Redis that cannot say, ends nothing.
        let known: Option<String> = cmd("CLIENT").arg("INFO").query_async(&mut self.connection).await.ok();
        if let Some(Writer { id, address }) = streams.writes(known.as_deref().and_then(Writer::read)) {
            // What it was told last may still wait to be done, and is told again if it is not there now. It has gone, as a rule, or that is not ours to say.
            let mut kill = cmd("CLIENT");
            kill.arg("KILL").arg("ID").arg(id).arg("ADDR").arg(address);
            let _: RedisResult<Value> = kill.query_async(&mut self.connection).await;
        }
        let own = self.redis.fence_channel(self.redis.uid());
        let channels = self.redis.channels(&ByteString::new());
        self.inbound.route(own.clone(), Route { namespace: ByteString::new(), channels, kind: Kind::Fence });
        self.connection.subscribe(own).await?;
        let connection = streams.connect(&self.redis.client, self.inbound, PATIENCE).await?;
        let (streams, inbound, broken) = (Arc::clone(streams), Arc::clone(self.inbound), self.broken.clone());
        self.reading = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let error = streams.run(connection, &inbound).await;
            tracing::debug!("the streams cannot be read any more: {error}");
            broken.cancel();
        })));
        Ok(())
    }

    /// Works until the node leaves.
    async fn serve(&mut self) -> RedisResult<()> {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // For something to publish or to write, for namespaces that come and go, for the time to ask whether Redis is there, for news of this node, for the
            // connection's end, and for ours.
            tokio::select! {
                batch = self.redis.outbox.next() => self.publish(&batch).await?,
                batch = next_entries(self.redis) => self.write(batch).await?,
                () = sessions_due(self.redis) => drop(self.keep().await?),
                () = self.redis.namespaces.changed.notified() => self.subscribe().await?,
                _ = beat.tick() => {
                    self.beat().await?;
                    // What an operator allows meanwhile is taken.
                    if !self.forbidden.is_empty() {
                        self.subscribe().await?;
                    }
                }
                () = self.redis.registry.changed.notified() => self.beat().await?,
                () = self.broken.cancelled() => return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()),
                () = self.redis.leaving.cancelled() => return self.finish().await,
            }
        }
    }

    /// Takes in what Redis has said before it went, because what this node has written may be there; nothing is read any more when this returns.
    async fn drain(&mut self, patience: Duration) {
        if let Some(mut reading) = self.reading.take()
            // As long as Redis is there nothing ends it.
            && timeout(patience, &mut reading).await.is_err()
        {
            reading.abort();
            // Or the next one would read beside it.
            let _ = reading.await;
        }
    }

    /// Gives a sign of life, and learns of the others'.
    async fn beat(&mut self) -> RedisResult<()> {
        match self.sign().await {
            // Then nobody knows which of our nodes is missing, and all else goes on: a Redis that is full still publishes.
            Err(error) if is_refused(&error) => {
                if self.redis.unknown.is_due(Instant::now()) {
                    tracing::warn!("nodes cannot tell who of them is alive: {error}");
                }
            }
            signed => signed?,
        }
        let info = self.redis.client.get_connection_info();
        self.redis.registry.beat(&mut self.connection, info.addr(), self.redis.metrics()).await
    }

    async fn sign(&mut self) -> RedisResult<()> {
        let now = members::now(&mut self.connection).await?;
        let (key, name) = self.redis.membership();
        let mut signs = pipe();
        signs.cmd("ZADD").arg(&key).arg(now + LIFETIME.as_millis() as u64).arg(name).ignore();
        let forgotten = now.saturating_sub(MEMORY.as_millis() as u64);
        signs.cmd("ZREMRANGEBYSCORE").arg(&key).arg("-inf").arg(forgotten).ignore();
        signs.cmd("PEXPIRE").arg(&key).arg(MEMORY.as_millis() as u64).ignore();
        signs.exec_async(&mut self.connection).await?;
        let held = members::held(&mut self.connection, &key, now).await?;
        let known = Members::new(&held, now, Instant::now());
        if known.len() < held.len() && self.redis.unknown.is_due(Instant::now()) {
            tracing::warn!(key, skipped = held.len() - known.len(), "entries that no node of ours has written were skipped");
        }
        *self.redis.members.lock().expect(UNPOISONED) = known;
        Ok(())
    }

    /// Sends what was said last, and is no longer waited for.
    async fn finish(&mut self) -> RedisResult<()> {
        while self.keep().await? {}
        if let Some(streams) = &self.redis.streams {
            loop {
                let batch = streams.backlog.take_last();
                if batch.is_empty() {
                    break;
                }
                self.write(batch).await?;
            }
        }
        loop {
            let batch = self.redis.outbox.take();
            if batch.is_empty() {
                break;
            }
            self.publish(&batch).await?;
        }
        self.redis.registry.leave(&mut self.connection).await?;
        let (key, name) = self.redis.membership();
        cmd("ZREM").arg(key).arg(name).exec_async(&mut self.connection).await
    }

    async fn publish(&mut self, batch: &[Publication]) -> RedisResult<()> {
        let mut pipe = pipe();
        for Publication { channel, payload } in batch {
            pipe.cmd("PUBLISH").arg(channel).arg(&**payload);
        }
        let metrics = self.redis.metrics();
        let published: RedisResult<Vec<RedisResult<u64>>> = pipe.ignore_errors().query_async(&mut self.connection).await;
        let refused = published.as_ref().map_or(batch.len(), |each| each.iter().filter(|one| one.is_err()).count());
        metrics.cluster_published.add((batch.len() - refused) as u64);
        metrics.cluster_unsent.add(refused as u64);
        published?.into_iter().try_for_each(|one| match one {
            // One channel's affair, and all others go on.
            Err(error) if is_forbidden(&error) => {
                if self.redis.unpublished.is_due(Instant::now()) {
                    tracing::error!("Redis does not let this node publish, so what it sends does not reach the others: {error}");
                }
                Ok(())
            }
            one => one.map(drop),
        })
    }

    /// Adds entries to streams, all of them or none.
    async fn write(&mut self, batch: Vec<(usize, streams::Fields)>) -> RedisResult<()> {
        let Some(streams) = &self.redis.streams else { return Ok(()) };
        let (mut pipe, count) = (pipe(), batch.len());
        pipe.atomic();
        for (place, fields) in batch {
            pipe.add_command(streams.keys.add(place, &fields)).ignore();
        }
        let () = pipe.query_async(&mut self.connection).await?;
        self.redis.metrics().cluster_published.add(count as u64);
        Ok(())
    }

    /// Writes clients' sessions; `false` says that there were none to be written.
    async fn keep(&mut self) -> RedisResult<bool> {
        let Some(streams) = &self.redis.streams else { return Ok(false) };
        let (writes, then) = streams.sessions.take();
        let foreign = self.foreign(streams, &writes).await?;
        let mut pipe = pipe();
        for (streams::Write { pid, what, .. }, is_foreign) in writes.iter().zip(&foreign) {
            if *is_foreign {
                continue;
            }
            let key = streams.sessions.key(pid.as_str());
            match what {
                What::Set(record, keep, is_there) => {
                    pipe.cmd("SET").arg(key).arg(record).arg("PX").arg(keep.as_millis().max(1) as u64);
                    if *is_there {
                        pipe.arg("XX");
                    }
                }
                What::Refresh(keep) => {
                    pipe.cmd("PEXPIRE").arg(key).arg(keep.as_millis() as u64);
                }
                // Whether it was there does not matter.
                What::Delete => {
                    pipe.cmd("DEL").arg(key);
                }
            }
        }
        for (channel, message) in &then {
            pipe.cmd("PUBLISH").arg(channel).arg(message);
        }
        if writes.is_empty() && pipe.is_empty() {
            return Ok(false);
        }
        let answers: Vec<RedisResult<Value>> =
            if pipe.is_empty() { Vec::new() } else { pipe.ignore_errors().query_async(&mut self.connection).await? };
        let mut answers = answers.into_iter();
        let mut fates = Vec::with_capacity(writes.len());
        for (write, is_foreign) in writes.iter().zip(foreign) {
            let answer = if is_foreign { None } else { answers.next() };
            fates.push(match answer {
                None => Fate::Foreign,
                Some(Ok(Value::Nil | Value::Int(0))) if write.what != What::Delete => Fate::Missing,
                Some(Ok(_)) => Fate::Written,
                Some(Err(error)) => self.unkept(error)?,
            });
        }
        answers.try_for_each(|answer| answer.or_else(|error| self.unkept(error).map(|_| Value::Nil)).map(drop))?;
        streams.sessions.written(&writes, &fates);
        Ok(!writes.is_empty())
    }

    /// Which of the clients another node has, which came by while Redis was away from here: what is left of them here ends.
    async fn foreign(&mut self, streams: &Streams, writes: &[streams::Write]) -> RedisResult<Vec<bool>> {
        let mut pipe = pipe();
        for write in writes.iter().filter(|write| write.is_unsure) {
            pipe.cmd("GET").arg(streams.sessions.key(write.pid.as_str()));
        }
        let mut foreign = vec![false; writes.len()];
        if pipe.is_empty() {
            return Ok(foreign);
        }
        let held: Vec<RedisResult<Option<Vec<u8>>>> = pipe.ignore_errors().query_async(&mut self.connection).await?;
        for ((write, is_foreign), held) in writes.iter().zip(&mut foreign).filter(|(write, _)| write.is_unsure).zip(held) {
            let held = held.or_else(|error| self.unkept(error).map(|_| None))?;
            let record = held.and_then(|held| Record::decode(&held, self.redis.bounds()).ok());
            *is_foreign = record.is_some_and(|record| record.holder.as_deref() != Some(self.redis.uid()));
            if *is_foreign
                && let Some(source) = streams.sessions.source(&write.pid)
                && let Some(namespace) = source().namespace
            {
                self.inbound.end(namespace, write.pid.clone());
            }
        }
        Ok(foreign)
    }

    /// Redis does not do what concerns one client's session.
    fn unkept(&self, error: RedisError) -> RedisResult<Fate> {
        if !is_refused(&error) {
            return Err(error);
        }
        if self.redis.unkept.is_due(Instant::now()) {
            tracing::error!("Redis does not keep this node's clients, so they come back as somebody new: {error}");
        }
        Ok(Fate::Refused)
    }

    /// Listens to what concerns the namespaces that there are now.
    async fn subscribe(&mut self) -> RedisResult<()> {
        let names = self.redis.namespaces.names();
        let gone: Vec<_> = self.subscribed.difference(&names).cloned().collect();
        for namespace in gone {
            let channels = self.redis.channels(&namespace);
            let Heard { pattern, names } = self.heard(&channels);
            self.connection.unsubscribe(&names).await?;
            if let Some(pattern) = &pattern {
                self.connection.punsubscribe(pattern).await?;
            }
            names.iter().chain(&pattern).for_each(|name| self.inbound.unroute(name));
            self.subscribed.remove(&namespace);
            self.forbidden.remove(&namespace);
        }
        let heard = |name: &&ByteString| self.subscribed.contains(*name) && !self.forbidden.contains(*name);
        let new: Vec<_> = names.iter().filter(|name| !heard(name)).cloned().collect();
        for namespace in new {
            match self.listen(&namespace).await {
                Err(error) if is_forbidden(&error) => {
                    if self.redis.unheard.is_due(Instant::now()) {
                        tracing::error!(
                            namespace = &*namespace,
                            "Redis does not let this node listen to a namespace, so what the others send there is not heard: {error}"
                        );
                    }
                    self.forbidden.insert(namespace.clone());
                }
                listening => {
                    listening?;
                    self.forbidden.remove(&namespace);
                }
            }
            self.subscribed.insert(namespace);
        }
        Ok(())
    }

    async fn listen(&mut self, namespace: &ByteString) -> RedisResult<()> {
        let channels = self.redis.channels(namespace);
        let Heard { pattern, names } = self.heard(&channels);
        let kinds = match &pattern {
            Some(_) => [Kind::Request, Kind::Response, Kind::Response, Kind::Broadcast],
            None => [Kind::Message; 4],
        };
        for (name, kind) in names.iter().chain(&pattern).zip(kinds) {
            self.inbound.route(name.clone(), Route { namespace: namespace.clone(), channels: channels.clone(), kind });
        }
        // Whoever is counted as listening to requests has to hear broadcasts and be able to answer.
        if let Some(pattern) = &pattern {
            self.connection.psubscribe(pattern).await?;
        }
        self.connection.subscribe(&names).await
    }

    /// What is listened to for a namespace.
    fn heard(&self, channels: &Channels) -> Heard {
        let (all, one) = (self.redis.all(channels), self.redis.one(channels, self.redis.uid()));
        match &self.redis.streams {
            Some(_) => Heard { pattern: None, names: vec![all, one] },
            None => Heard { pattern: Some(channels.pattern()), names: vec![all, channels.response(), one] },
        }
    }
}

/// What is listened to for one namespace.
struct Heard {
    /// Where broadcasts come, unless they come through a stream.
    pattern: Option<String>,
    names: Vec<String>,
}

/// Waits until clients' sessions are to be written.
async fn sessions_due(redis: &Redis) {
    match &redis.streams {
        Some(streams) => streams.sessions.due().await,
        None => pending().await,
    }
}

/// What is to be written to streams, as soon as there is something.
async fn next_entries(redis: &Redis) -> Vec<(usize, streams::Fields)> {
    match &redis.streams {
        Some(streams) => streams.backlog.next().await,
        None => pending().await,
    }
}

/// Whether Redis is there and does not do this one thing; not that it does nothing at the moment, or nothing for this connection.
pub(super) fn is_refused(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly};
    match error.kind() {
        ErrorKind::Server(kind) => !matches!(kind, BusyLoading | ClusterDown | MasterDown | ReadOnly),
        ErrorKind::Extension => error.code() != Some("NOAUTH"),
        _ => false,
    }
}

/// Whether the user whom this node is may not do that, which no other connection changes.
pub(super) fn is_forbidden(error: &RedisError) -> bool {
    error.code() == Some("NOPERM")
}

/// Hands on what others publish; called on the task that reads from Redis.
fn hear(inbound: Arc<Inbound>, broken: CancellationToken) -> impl Fn(PushInfo) -> Result<(), Infallible> {
    move |PushInfo { kind, data }| {
        match kind {
            PushKind::PMessage => {
                if let Ok([pattern, channel, message]) = <[Value; 3]>::try_from(data)
                    && let (Some(pattern), Some(channel), Value::BulkString(message)) = (text(pattern), text(channel), message)
                {
                    inbound.hear(&pattern, &channel, Bytes::from(message));
                }
            }
            PushKind::Message => {
                if let Ok([channel, message]) = <[Value; 2]>::try_from(data)
                    && let (Some(channel), Value::BulkString(message)) = (text(channel), message)
                {
                    inbound.hear(&channel, &channel, Bytes::from(message));
                }
            }
            PushKind::Disconnection => broken.cancel(),
            _ => {}
        }
        Ok(())
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        _ => None,
    }
}
