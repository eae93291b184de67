//! What the cluster keeps for clients who come back: the entries of the streams, and a key for each session.

use super::super::redis::{Redis, hexadecimal};
use super::super::wire::{Deed, Entry, Record};
use super::Streams;
use super::fence::Fence;
use super::reader::entries;
use super::sessions::Known;
use crate::hub::{Action, Archive, ArchivedEvent, ArchivedSession, Asked, Offset, Recovered, Room, SessionSource};
use crate::protocol::sid::Pid;
use ::redis::aio::MultiplexedConnection;
use ::redis::{RedisResult, Value, cmd, pipe};
use bytestring::ByteString;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a node may take to end a session whose client is here now; one that takes longer hangs, or its host has lost power.
const PATIENCE: Duration = Duration::from_secs(2);
/// Entries that are looked through at a time.
const PAGE: usize = 1_000;

const AWAY: &str = "Redis is away";
const UNKNOWN: &str = "its session is not known";

impl Archive for Redis {
    fn open(&self, keep: Duration, limit: usize) {
        self.kept_in().sessions.open(keep, limit);
    }

    fn record(&self, namespace: &ByteString, action: Action<'_>) -> bool {
        let streams = self.kept_in();
        match Entry::of(self.uid(), namespace, action, self.bounds()) {
            Ok(Some(entry)) => streams.backlog.record(streams.keys.place(namespace), &entry),
            Ok(None) => false,
            Err(error) => {
                self.refused(namespace, error);
                false
            }
        }
    }

    fn after(&self, namespace: &ByteString, bytes: usize, act: Box<dyn FnOnce() + Send>) {
        let streams = self.kept_in();
        streams.backlog.after(streams.keys.place(namespace), bytes, act);
    }

    fn heard(&self, namespace: &ByteString) -> Offset {
        self.kept_in().read_to(namespace)
    }

    fn begin(&self, pid: &Pid, session: SessionSource) {
        self.kept_in().sessions.begin(pid, session);
    }

    fn changed(&self, pid: &Pid) {
        self.kept_in().sessions.changed(pid);
    }

    fn end(&self, session: ArchivedSession) {
        self.kept_in().sessions.end(&session);
    }

    fn forget(&self, pid: &Pid) {
        self.kept_in().sessions.forget(pid);
    }

    fn restore(
        self: Arc<Self>,
        namespace: &ByteString,
        pid: String,
        offset: Option<String>,
        until: Offset,
        limit: usize,
    ) -> Asked<Result<Recovered, &'static str>> {
        let namespace = namespace.clone();
        Box::pin(async move {
            let connection = self.connection.lock().expect("no code that can panic runs under this lock").clone();
            let mut restoring =
                Restoring { redis: &self, streams: self.kept_in(), connection: connection.ok_or(AWAY)?, namespace };
            let session = restoring.take_out(&pid).await?;
            let heard = match offset {
                Some(offset) => offset.parse().map_err(|_| "its offset is not one of ours")?,
                None => session.start.ok_or("it names no event, and Node's servers do not say where it came in")?,
            };
            let missed = restoring.missed(&session.rooms, heard, until, limit).await?;
            Ok(Recovered { session, heard, missed })
        })
    }
}

impl Redis {
    fn kept_in(&self) -> &Streams {
        self.streams.as_ref().expect("only a cluster over streams keeps anything")
    }
}

/// One client that comes back.
struct Restoring<'a> {
    redis: &'a Redis,
    streams: &'a Streams,
    connection: MultiplexedConnection,
    namespace: ByteString,
}

impl Restoring<'_> {
    /// The client's session, which nobody else has from now on.
    async fn take_out(&mut self, pid: &str) -> Result<ArchivedSession, &'static str> {
        let key = self.streams.sessions.key(pid);
        // What this node knows of it and has not written yet goes first.
        match self.streams.sessions.claim(pid) {
            Known::Gone => return Err(UNKNOWN),
            Known::Kept(record, left) => {
                let mut set = cmd("SET");
                set.arg(&key).arg(record).arg("PX").arg(left.as_millis().max(1) as u64);
                set.exec_async(&mut self.connection).await.map_err(|_| AWAY)?;
            }
            Known::Nothing => {}
        }
        let held: Option<Vec<u8>> = cmd("GET").arg(&key).query_async(&mut self.connection).await.map_err(|_| AWAY)?;
        let Record { session, holder } = self.read(held)?;
        if session.namespace.is_some_and(|namespace| namespace != self.namespace) {
            return Err("its session is of another namespace");
        }
        if let Some(holder) = holder.filter(|holder| holder != self.redis.uid()) {
            self.fence(&holder, pid).await.map_err(|_| AWAY)?;
        }
        let taken: RedisResult<(Option<Vec<u8>>,)> =
            pipe().atomic().cmd("GET").arg(&key).cmd("DEL").arg(&key).ignore().query_async(&mut self.connection).await;
        let (held,) = taken.map_err(|_| AWAY)?;
        Ok(self.read(held)?.session)
    }

    fn read(&self, held: Option<Vec<u8>>) -> Result<Record, &'static str> {
        Record::decode(&held.ok_or(UNKNOWN)?, self.redis.bounds()).map_err(|_| "its session cannot be read")
    }

    /// Has the node that had the client last end what is left of its session, if it is there.
    async fn fence(&mut self, holder: &str, pid: &str) -> RedisResult<()> {
        let id = hexadecimal();
        let (_waiting, freed) = self.streams.fences.open(id.clone());
        let from = self.redis.uid().to_owned();
        let release = Fence::Release { namespace: self.namespace.to_string(), pid: pid.to_owned(), id, from };
        let channel = self.redis.fence_channel(holder);
        let heard: u64 = cmd("PUBLISH").arg(channel).arg(release.written()).query_async(&mut self.connection).await?;
        if heard > 0 && timeout(PATIENCE, freed).await.is_err() {
            tracing::debug!(holder, "a node does not let go of a client");
        }
        Ok(())
    }

    /// The events after the one that the client has heard last, as far as they are for it.
    async fn missed(
        &mut self,
        rooms: &[Room],
        heard: Offset,
        until: Offset,
        limit: usize,
    ) -> Result<Vec<ArchivedEvent>, &'static str> {
        let place = self.streams.keys.place(&self.namespace);
        if !self.is_there(place, heard).await.map_err(|_| AWAY)? {
            return Err("its offset is not known any more");
        }
        let rooms: HashSet<&Room> = rooms.iter().collect();
        let (mut missed, mut bytes, mut from) = (Vec::new(), 0, heard.next());
        while from <= until {
            let page = self.page(place, from, until).await.map_err(|_| AWAY)?;
            let Some((_, last, _)) = page.last() else { break };
            from = last.next();
            for (_, offset, fields) in page {
                let weight = fields.iter().map(|(_, value)| value.len()).sum::<usize>();
                // What cannot be read was not heard by anybody either.
                let Ok(entry) = Entry::read(fields.iter().map(|(name, value)| (&**name, value.clone())), self.redis.bounds())
                else {
                    continue;
                };
                if entry.namespace != self.namespace {
                    continue;
                }
                if let Ok(Deed::Emit(stated)) = entry.deed(self.redis.bounds())
                    && !stated.scope.flags.volatile
                    && stated.scope.target.reaches(&rooms)
                    && let Ok((name, args)) = stated.event(self.redis.bounds())
                {
                    bytes += weight;
                    missed.push(ArchivedEvent { offset, flags: stated.scope.flags, name, args });
                }
                if bytes > limit {
                    return Err("it missed too much");
                }
            }
        }
        Ok(missed)
    }

    /// Whether nothing behind an event has been forgotten.
    async fn is_there(&mut self, place: usize, offset: Offset) -> RedisResult<bool> {
        if offset == Offset::default() {
            // Before the first: a stream that is not longer than it may be has forgotten nothing.
            let length: usize = cmd("XLEN").arg(&self.streams.keys.names[place]).query_async(&mut self.connection).await?;
            return Ok(length < self.streams.keys.length);
        }
        Ok(!self.page(place, offset, offset).await?.is_empty())
    }

    async fn page(&mut self, place: usize, from: Offset, until: Offset) -> RedisResult<Vec<super::reader::Read>> {
        let key = &self.streams.keys.names[place];
        let mut range = cmd("XRANGE");
        range.arg(key).arg(from.to_string()).arg(until.to_string()).arg("COUNT").arg(PAGE);
        let list: Value = range.query_async(&mut self.connection).await?;
        Ok(entries(place, list))
    }
}
