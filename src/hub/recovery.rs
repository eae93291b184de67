//! Connection state recovery: what is kept for clients whose line broke, so that they come back as who they were and hear what they missed.
//!
//! Each namespace has a [`Shelf`]: a log of its events, and a place for each of its clients. The shelf's lock is the order of the namespace. Under it an event
//! gets its number, leaves for those who are here and joins the log; and under it who comes back gets what it missed, and is here. So of all that
//! is sent meanwhile, nothing is lost to it and nothing comes twice.
//!
//! Where a cluster keeps all of this, so that clients come back on any of its nodes, a namespace has a [`Far`] instead.
//!
//! What is kept goes when it is too old and, the oldest first, when all shelves together hold too much: see [`Memory`].

mod far;
mod moves;

use super::room::Room;
use super::rooms::Target;
use super::socket::{Socket, SocketState};
use crate::engine::{CloseReason, Session};
use crate::hub::errors::DisconnectReason;
use crate::metrics::Metrics;
use crate::protocol::eio::Encoded;
use crate::protocol::sid::{Pid, SocketId};
use crate::protocol::sio::Parser;
use bytestring::ByteString;
pub(super) use far::{Far, Trace};
use moves::Moves;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::mem::size_of;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Time for the handlers of a client's former socket to hear of its end; a client that would have to wait longer begins anew, so that nobody is told
/// that an id has come before being told that it has gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether who goes for this reason may come back.
pub(super) fn is_recoverable(reason: DisconnectReason) -> bool {
    matches!(reason, DisconnectReason::Session(reason) if reason != CloseReason::ParseError)
}

/// The connection that a client wants to take up again, as its `auth` names it.
pub(super) struct Claim {
    pid: String,
    /// Of the last event that it has received.
    offset: Option<String>,
}

impl Claim {
    /// `None` says that it names none.
    pub(super) fn read(auth: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Raw<'a> {
            #[serde(borrow)]
            pid: &'a RawValue,
            #[serde(borrow, default)]
            offset: Option<&'a RawValue>,
        }
        let raw: Raw<'_> = serde_json::from_str(auth).ok()?;
        let pid = serde_json::from_str(raw.pid.get()).ok()?;
        // What is no text is no offset of ours either.
        let offset = raw.offset.map(|offset| serde_json::from_str(offset.get()).unwrap_or_default());
        Some(Self { pid, offset })
    }
}

/// A client as it was when its line broke: plain data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) sid: SocketId,
    pid: Pid,
    pub(super) state: SocketState,
    progress: Progress,
    moves: Moves,
}

/// How far a client has come in its namespace's log.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Progress {
    /// The last event that was sent to it.
    sent: u64,
    /// The last that there was when it left.
    left: u64,
    /// Where it was at its last heartbeats, the oldest first, or when it came. What was sent before one of them had arrived before the next but one:
    /// a pong follows all that was sent before its ping, and no more than two pings are on their way at once.
    marks: [Mark; 3],
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Mark {
    /// The last event that had been sent then.
    sent: u64,
    /// The first that was sent later.
    next: Option<u64>,
}

impl Progress {
    fn at(number: u64) -> Self {
        Self { sent: number, left: number, marks: [Mark { sent: number, next: None }; 3] }
    }

    fn send(&mut self, number: u64) {
        self.sent = number;
        for mark in &mut self.marks {
            mark.next.get_or_insert(number);
        }
    }

    fn heartbeat(&mut self) {
        self.marks.rotate_left(1);
        self.marks[2] = Mark { sent: self.sent, next: None };
    }
}

/// A socket's part in recovery.
pub(super) struct Track {
    pub(super) pid: Pid,
    pub(super) is_recovered: bool,
    progress: Mutex<Progress>,
    moves: Mutex<Moves>,
    /// Until it comes in.
    restored: Mutex<Option<Box<Restored>>>,
    /// When, and the last event that there was then.
    left: OnceLock<(Instant, u64)>,
}

impl Track {
    fn new(pid: Pid, progress: Progress, restored: Option<Restored>) -> Self {
        let is_recovered = restored.is_some();
        let moves = restored.as_ref().map(|restored| restored.saved.moves.clone()).unwrap_or_default();
        let restored = restored.map(Box::new);
        Self {
            pid,
            is_recovered,
            progress: progress.into(),
            moves: moves.into(),
            restored: restored.into(),
            left: OnceLock::new(),
        }
    }

    /// Whose place it takes, until it comes in.
    pub(super) fn saved(&self) -> Option<Saved> {
        self.restored().as_ref().map(|restored| restored.saved.clone())
    }

    /// Its client and nobody else, here or gone: a room of its pid, which nobody knows who could join it.
    pub(super) fn alone(&self) -> Target {
        Target { rooms: vec![Room::from(self.pid.as_str())], except: Vec::new() }
    }

    /// An event is being sent to it.
    pub(super) fn send(&self, number: u64) {
        self.progress().send(number);
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().expect(UNPOISONED)
    }

    fn moves(&self) -> MutexGuard<'_, Moves> {
        self.moves.lock().expect(UNPOISONED)
    }

    fn restored(&self) -> MutexGuard<'_, Option<Box<Restored>>> {
        self.restored.lock().expect(UNPOISONED)
    }
}

/// A client that comes back, and what it missed.
struct Restored {
    saved: Saved,
    until: Instant,
    /// The last event that it has heard.
    heard: u64,
    /// How far the log was looked through.
    seen: u64,
    missed: Vec<(u64, Vec<Encoded>)>,
    bytes: usize,
}

/// While it is held no event is sent, and what the socket joins and leaves is remembered.
pub(super) struct Moving<'a> {
    track: &'a Track,
    /// The last event before.
    after: u64,
    _order: MutexGuard<'a, State>,
}

impl Moving<'_> {
    /// The socket has joined a room or left it.
    pub(super) fn note(&self, room: &Room, is_in: bool) {
        self.track.moves().note(self.after, room, is_in);
    }
}

/// What one namespace keeps.
pub(super) struct Shelf {
    memory: Arc<Memory>,
    this: Weak<Self>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order of their numbers.
    log: VecDeque<Logged>,
    /// The last event that the log has lost.
    lost: u64,
    places: HashMap<Pid, Place>,
}

struct Logged {
    number: u64,
    target: Target,
    packets: Vec<Encoded>,
}

enum Place {
    /// By a socket that is coming in, is here, or whose handlers are being told that it has gone.
    Taken {
        session: Arc<Session>,
        /// The number of the attempt.
        attempt: u64,
        /// Wakes the attempts that wait for the place.
        freed: Option<Arc<Notify>>,
    },
    Left {
        saved: Saved,
        until: Instant,
        number: u64,
    },
}

impl Shelf {
    pub(super) fn parser(&self) -> Parser {
        self.memory.parser
    }

    /// A place for a client that was not here before.
    pub(super) fn open(&self, pid: Pid, session: &Arc<Session>) -> Track {
        self.memory.runtime.get_or_init(Handle::current);
        let attempt = self.memory.next();
        self.lock().places.insert(pid.clone(), Place::Taken { session: Arc::clone(session), attempt, freed: None });
        Track::new(pid, Progress::at(0), None)
    }

    /// The place that a client had before. If a socket still has it, that one's session ends: who knows the pid is its client, and is here.
    ///
    /// # Errors
    /// Why the client begins anew.
    pub(super) async fn take(&self, claim: Claim, session: &Arc<Session>, limit: usize) -> Result<Track, &'static str> {
        let patience = Instant::now() + PATIENCE;
        let attempt = self.memory.next();
        loop {
            let (stale, free);
            let freed = {
                let mut state = self.lock();
                let Some(Place::Taken { session: holder, attempt: holders, freed }) = state.places.get_mut(&*claim.pid) else {
                    return state.retake(&claim, session, attempt, limit);
                };
                // Of two attempts that waited, the earlier one's line is stale.
                let is_late = *holders > attempt;
                // An attempt of this very session ends by itself.
                stale = (!Arc::ptr_eq(holder, session)).then(|| Arc::clone(if is_late { session } else { holder }));
                free = Arc::clone(freed.get_or_insert_default());
                free.notified()
            };
            if let Some(stale) = stale {
                stale.discard(CloseReason::TransportError);
            }
            if timeout_at(patience, freed).await.is_err() {
                return Err("the handlers of its former socket take too long");
            }
        }
    }

    /// Whether a client with that pid is here, or may come back.
    pub(super) fn knows(&self, pid: &Pid) -> bool {
        self.lock().places.contains_key(pid)
    }

    #[cfg(test)]
    pub(super) fn saved(&self, pid: &str) -> Option<Saved> {
        match self.lock().places.get(pid)? {
            Place::Left { saved, .. } => Some(saved.clone()),
            Place::Taken { .. } => None,
        }
    }

    /// Sends an event to those that `select` names, and keeps it for those whom the target reaches when they come back.
    pub(super) fn send(
        &self,
        target: &Target,
        select: impl FnOnce() -> Vec<Socket>,
        encode: impl FnOnce(&str) -> Vec<Encoded>,
    ) -> Vec<Socket> {
        let mut state = self.lock();
        // Before the number is drawn: see `left`.
        let sockets = select();
        let is_kept = !state.places.is_empty();
        if !is_kept && sockets.is_empty() {
            return sockets;
        }
        let number = self.memory.next();
        let packets = encode(&offset(number));
        let departing: Vec<&Socket> = sockets.iter().filter(|socket| socket.line_up(number, &packets)).collect();
        let bytes = if is_kept { weigh_event(target, &packets) } else { 0 };
        if is_kept {
            state.log.push_back(Logged { number, target: target.clone(), packets });
        }
        drop(state);
        // The order is settled: whoever speaks next does not wait for the network.
        departing.iter().for_each(|socket| socket.session().depart());
        if is_kept {
            self.memory.keep(self, number, None, bytes);
        }
        sockets
    }

    /// Whether the socket still has to hear what it missed: what is sent to it waits for that.
    pub(super) fn is_behind(&self, track: &Track) -> bool {
        track.restored().is_some()
    }

    /// Lets a socket in with `greet`, which is given what it missed; no event is sent meanwhile. `None` says that it stays out.
    pub(super) fn welcome<T>(&self, track: &Track, limit: usize, greet: impl FnOnce(Vec<Encoded>) -> Option<T>) -> Option<T> {
        let state = self.lock();
        let mut restored = track.restored();
        // Middlewares may have taken long.
        if !restored.as_mut().is_none_or(|restored| state.collect(restored, limit)) {
            // The next attempt would end like this one: it begins anew.
            *restored = None;
            return None;
        }
        let (missed, progress) = match &mut *restored {
            None => (Vec::new(), Progress::at(self.memory.next())),
            Some(restored) => {
                let mut progress = Progress::at(restored.heard);
                let mut missed = Vec::new();
                for (number, packets) in restored.missed.drain(..) {
                    progress.send(number);
                    missed.extend(packets);
                }
                (missed, progress)
            }
        };
        *track.progress() = progress;
        let greeted = greet(missed);
        if greeted.is_some() {
            *restored = None;
        }
        greeted
    }

    /// The client's part of the heartbeat came.
    pub(super) fn heartbeat(&self, track: &Track) {
        let _order = self.lock();
        let mut progress = track.progress();
        progress.heartbeat();
        track.moves().forget(progress.marks[0].sent);
    }

    /// The socket is about to join or to leave rooms.
    pub(super) fn moving<'a>(&'a self, track: &'a Track) -> Moving<'a> {
        let order = self.lock();
        Moving { track, after: self.memory.last.load(Relaxed), _order: order }
    }

    /// The socket is about to hear no more events.
    ///
    /// Called before it leaves the index: an event that does not find it there gets a number above this one.
    pub(super) fn left(&self, track: &Track) {
        track.left.get_or_init(|| (Instant::now(), self.memory.last.load(Relaxed)));
    }

    /// The client has gone for good.
    pub(super) fn forget(&self, track: &Track) {
        let mut state = self.lock();
        state.free(&track.pid);
        state.tidy();
    }

    /// The client's handlers have heard that it went: it may come back, unless it was forgotten before.
    pub(super) fn save(&self, track: &Track, sid: &SocketId, socket_state: SocketState) {
        let (at, left) = *track.left.get().expect("its handlers heard that it went");
        let until = at + self.memory.keep;
        let mut state = self.lock();
        // Under the lock: an event that found the socket may just be on its way to it.
        let progress = Progress { left, ..*track.progress() };
        let moves = track.moves().clone();
        let saved = Saved { sid: sid.clone(), pid: track.pid.clone(), state: socket_state, progress, moves };
        if state.free(&track.pid) {
            self.put(state, saved, until);
        }
    }

    /// The socket never came in: whose place it took may have it again.
    pub(super) fn give_back(&self, track: &Track) {
        let mut state = self.lock();
        let is_known = state.free(&track.pid);
        match track.restored().take() {
            Some(restored) if is_known => self.put(state, restored.saved, restored.until),
            _ => state.tidy(),
        }
    }

    fn put(&self, mut state: MutexGuard<'_, State>, saved: Saved, until: Instant) {
        let number = self.memory.next();
        let pid = saved.pid.clone();
        let rooms = saved.state.rooms.iter().chain(saved.moves.rooms()).map(weigh_room).sum::<usize>();
        let bytes = size_of::<(Pid, Place)>() + 4 * pid.as_str().len() + saved.state.data.get().len() + rooms;
        state.places.insert(pid.clone(), Place::Left { saved, until, number });
        drop(state);
        self.memory.keep(self, number, Some(pid), bytes);
    }

    /// Drops what is too old or too much.
    fn drop_kept(&self, number: u64, pid: Option<&Pid>) {
        let mut state = self.lock();
        match pid {
            Some(pid) => {
                if matches!(state.places.get(pid), Some(Place::Left { number: own, .. }) if *own == number) {
                    state.places.remove(pid);
                }
            }
            None => {
                while state.log.front().is_some_and(|logged| logged.number <= number) {
                    state.log.pop_front();
                }
                state.lost = state.lost.max(number);
            }
        }
        state.tidy();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(UNPOISONED)
    }
}

impl State {
    /// Gives a client that has left its place again, and looks up what it missed.
    fn retake(&mut self, claim: &Claim, session: &Arc<Session>, attempt: u64, limit: usize) -> Result<Track, &'static str> {
        let Some((pid, Place::Left { saved, until, .. })) = self.places.remove_entry(&*claim.pid) else {
            return Err("its session is not known");
        };
        if until <= Instant::now() {
            return Err("its session has expired");
        }
        let heard = saved.progress.heard(claim.offset.as_deref()).ok_or("its offset is not one of ours")?;
        let seen = self.missed_after(&saved.progress, heard).ok_or("its offset is not known any more")?;
        if !saved.moves.is_known_after(seen) {
            return Err("its rooms at that time are not known any more");
        }
        let mut restored = Restored { saved, until, heard, seen, missed: Vec::new(), bytes: 0 };
        if !self.collect(&mut restored, limit) {
            return Err("it missed too much");
        }
        self.places.insert(pid.clone(), Place::Taken { session: Arc::clone(session), attempt, freed: None });
        Ok(Track::new(pid, restored.saved.progress, Some(restored)))
    }

    /// The event after which those come that a client has missed that has heard `heard`; `None` says that some of them are lost, or nobody ever heard that.
    fn missed_after(&self, progress: &Progress, heard: u64) -> Option<u64> {
        let after = if heard == progress.sent {
            // It has heard all that was sent to it, however long that is ago.
            progress.left
        } else if let Some(mark) = progress.marks.iter().find(|mark| mark.sent == heard) {
            mark.next.map_or(progress.left, |next| next - 1)
        } else {
            self.log.binary_search_by_key(&heard, |logged| logged.number).ok()?;
            heard
        };
        (self.lost <= after).then_some(after)
    }

    /// Adds what came since it was looked last; `false` says that some of that is lost, or that it is too much.
    fn collect(&self, restored: &mut Restored, limit: usize) -> bool {
        if self.lost > restored.seen {
            return false;
        }
        let own = Room::from(restored.saved.pid.as_str());
        let rooms = restored.saved.state.rooms.iter().chain([&own]).collect();
        let from = self.log.partition_point(|logged| logged.number <= restored.seen);
        let mut rewound = restored.saved.moves.rewind(rooms, restored.seen + 1);
        for Logged { number, target, packets } in self.log.range(from..) {
            restored.seen = *number;
            if target.reaches(rewound.rooms(*number)) {
                restored.bytes += weight(packets);
                restored.missed.push((*number, packets.clone()));
            }
            if restored.bytes > limit {
                break;
            }
        }
        restored.bytes <= limit
    }

    /// Lets those come who wait for the place; `false` says that there was none.
    fn free(&mut self, pid: &Pid) -> bool {
        let place = self.places.remove(pid);
        if let Some(Place::Taken { freed: Some(freed), .. }) = &place {
            freed.notify_waiters();
        }
        place.is_some()
    }

    /// A burst must not leave its space behind.
    fn tidy(&mut self) {
        if self.log.is_empty() {
            self.log.shrink_to_fit();
        }
        if self.places.is_empty() {
            self.places.shrink_to_fit();
        }
    }
}

impl Progress {
    /// What a client has heard that says so; `None` says that it names no event of ours.
    fn heard(&self, offset: Option<&str>) -> Option<u64> {
        let [known, ..] = self.marks;
        // Clients remember the last offset of an earlier connection until they receive another one.
        offset.map_or(Some(0), number).map(|named| named.max(known.sent))
    }
}

/// Bounds what all shelves of a server keep, by age and by bytes.
pub(super) struct Memory {
    keep: Duration,
    limit: usize,
    parser: Parser,
    metrics: Arc<Metrics>,
    /// The last number that was drawn. It begins with the time, so that those of an earlier process are smaller.
    last: AtomicU64,
    ages: Mutex<Ages>,
    /// Where the old is dropped.
    runtime: OnceLock<Handle>,
}

#[derive(Default)]
struct Ages {
    /// The oldest first.
    kept: VecDeque<Kept>,
    bytes: usize,
    /// A task drops what gets too old.
    is_watched: bool,
}

/// Something that is kept.
struct Kept {
    until: Instant,
    shelf: Weak<Shelf>,
    number: u64,
    /// Whose session it is, if it is no event.
    pid: Option<Pid>,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(keep: Duration, limit: usize, parser: Parser, metrics: Arc<Metrics>) -> Arc<Self> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let last = AtomicU64::new(u64::try_from(since_epoch.as_micros()).unwrap_or_default());
        Arc::new(Self { keep, limit, parser, metrics, last, ages: Mutex::default(), runtime: OnceLock::new() })
    }

    pub(super) fn shelf(self: &Arc<Self>) -> Arc<Shelf> {
        let memory = Arc::clone(self);
        Arc::new_cyclic(|this| Shelf { memory, this: Weak::clone(this), state: Mutex::default() })
    }

    fn next(&self) -> u64 {
        self.last.fetch_add(1, Relaxed) + 1
    }

    /// Something was put on a shelf, whose lock the caller does not hold: to make room, others' are taken.
    fn keep(self: &Arc<Self>, shelf: &Shelf, number: u64, pid: Option<Pid>, bytes: usize) {
        let now = Instant::now();
        let bytes = bytes + size_of::<Kept>();
        let kept = Kept { until: now + self.keep, shelf: Weak::clone(&shelf.this), number, pid, bytes };
        let (too_much, needs_watch) = {
            let mut ages = self.ages();
            ages.bytes += bytes;
            ages.kept.push_back(kept);
            let mut too_much = Vec::new();
            while ages.bytes > self.limit {
                too_much.extend(ages.pop());
            }
            (too_much, !std::mem::replace(&mut ages.is_watched, true))
        };
        self.metrics.recovery_bytes.add(bytes as i64);
        self.metrics.limit_recovery.add(too_much.len() as u64);
        self.drop_all(too_much);
        if needs_watch {
            let runtime = self.runtime.get().expect("set when the first place was taken, and before that nothing is kept");
            drop(runtime.spawn(watch(Arc::downgrade(self))));
        }
    }

    /// Drops what is too old; `None` says that nothing is left, and else when to come again.
    fn drop_old(&self, now: Instant) -> Option<Instant> {
        let mut old = Vec::new();
        let next = {
            let mut ages = self.ages();
            while ages.kept.front().is_some_and(|kept| kept.until <= now) {
                old.extend(ages.pop());
            }
            let next = ages.kept.front().map(|kept| kept.until);
            ages.is_watched = next.is_some();
            if next.is_none() {
                ages.kept.shrink_to_fit();
            }
            next
        };
        self.drop_all(old);
        // Not for each by itself.
        next.map(|next| next.max(now + self.keep / 16))
    }

    fn drop_all(&self, kept: Vec<Kept>) {
        for Kept { shelf, number, pid, bytes, .. } in kept {
            self.metrics.recovery_bytes.add(-(bytes as i64));
            // Its namespace may have been dropped.
            if let Some(shelf) = shelf.upgrade() {
                shelf.drop_kept(number, pid.as_ref());
            }
        }
    }

    fn ages(&self) -> MutexGuard<'_, Ages> {
        self.ages.lock().expect(UNPOISONED)
    }
}

impl Ages {
    fn pop(&mut self) -> Option<Kept> {
        let kept = self.kept.pop_front()?;
        self.bytes -= kept.bytes;
        Some(kept)
    }
}

/// Drops what gets too old until nothing is left.
async fn watch(memory: Weak<Memory>) {
    while let Some(next) = memory.upgrade().and_then(|memory| memory.drop_old(Instant::now())) {
        sleep_until(next).await;
    }
}

/// What clients are given for an event's number, and give back.
fn offset(number: u64) -> String {
    format!(".{number:x}")
}

/// Clients take every text that ends an event for an offset, so not all that they give back is one.
fn number(text: &str) -> Option<u64> {
    let number = u64::from_str_radix(text.strip_prefix('.')?, 16).ok()?;
    (offset(number) == text).then_some(number)
}

/// What an event takes while it is kept: of a small one most is what stands around it, with room to grow.
fn weigh_event(target: &Target, packets: &[Encoded]) -> usize {
    const BUFFER: usize = 128;
    let packets = packets.iter().map(|packet| packet.weight() + BUFFER).sum::<usize>();
    let rooms = target.rooms.iter().chain(&target.except).map(weigh_room).sum::<usize>();
    2 * size_of::<Logged>() + size_of::<Kept>() + packets + rooms
}

fn weight(packets: &[Encoded]) -> usize {
    packets.iter().map(Encoded::weight).sum()
}

fn weigh_room(room: &Room) -> usize {
    2 * size_of::<ByteString>() + room.as_str().len()
}

const UNPOISONED: &str = "no code that can panic runs under this lock";

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").finish_non_exhaustive()
    }
}
