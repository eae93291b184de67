//! What was said and what was heard: the promises that a run is held to, and the trace that tells how it went.

use crate::world::Plan;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use stickyport::engine::{CloseReason, Session, TransportKind};
use stickyport::hub::{Broadcast, DisconnectReason, Socket};
use stickyport::metrics::{Metrics, Value};
use stickyport::protocol::eio::Version;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A closing session waits so long for the GET that takes its last words, and then looks no further; and a little of ours.
pub const FAREWELL: Duration = Duration::from_secs(30 + 5);

/// The books of one run; never locked while the server is called, which writes into them itself.
#[derive(Clone)]
pub struct Ledger {
    books: Arc<Mutex<Books>>,
    failed: Arc<Notify>,
}

impl Ledger {
    pub fn new() -> Self {
        let failed = Arc::default();
        Self { books: Arc::new(Mutex::new(Books::new(Arc::clone(&failed)))), failed }
    }

    pub fn lock(&self) -> MutexGuard<'_, Books> {
        // A panic under it is told of by itself.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn note(&self, line: fmt::Arguments<'_>) {
        self.lock().note(line);
    }

    /// The number of what is about to be sent to all of these.
    pub fn tell_all(&self, to: &Broadcast, kind: Kind) -> u64 {
        let sockets = to.local_sockets();
        // A session that is closing takes no more, though its sockets are still there.
        let open = sockets.iter().filter(|socket| socket.session().is_open());
        let ids: Vec<_> = open.map(|socket| socket.id().as_str()).collect();
        self.lock().tell(&ids, kind)
    }

    /// Waits until a promise is broken.
    pub async fn failed(&self) {
        self.failed.notified().await;
    }
}

/// All that is written down.
pub struct Books {
    start: Instant,
    trace: Vec<String>,
    failure: Option<String>,
    failed: Arc<Notify>,
    sessions: BTreeMap<String, SessionEntry>,
    sockets: BTreeMap<String, SocketEntry>,
    voices: Vec<Voice>,
    /// The number of the next news.
    news: u64,
    /// Sessions that ended with "transport error" though nobody broke their transport: a limit must have.
    unexplained: u64,
    /// How long after it went a client may come back as who it was.
    keep: Duration,
    /// What the server has counted in the whole run.
    counted: Vec<(&'static str, u64)>,
}

/// An Engine.IO session.
struct SessionEntry {
    client: String,
    session: Weak<Session>,
    opened: Instant,
    /// When the server last heard that its client lives.
    alive: Instant,
    /// How often its client has said so without being heard.
    unheard: u64,
    /// It has been in a namespace.
    has_come_in: bool,
    /// Since when the server can read over its WebSocket that it is over.
    line_ended: Option<Instant>,
    /// What has happened to it, as reasons for its end.
    may_end: Vec<CloseReason>,
    /// When it has to be over, by what else has happened to it.
    gone_by: Option<Instant>,
    /// Why the server has closed it, if it lets it take what waits.
    let_go: Option<CloseReason>,
    /// Its client, or the line to it, has not behaved.
    is_troubled: bool,
    closed: Option<CloseReason>,
}

/// A client in a namespace, as the server sees it; one that comes back as who it was is the same.
struct SocketEntry {
    sid: String,
    namespace: String,
    /// As whom it came first, and last.
    first_voice: usize,
    voice: usize,
    /// The rooms that it is in, besides its own.
    rooms: BTreeSet<String>,
    news: Vec<News>,
    /// How many of the news have arrived, or may be lost.
    arrived: usize,
    /// The server has sent it away.
    is_dismissed: bool,
    disconnected: Option<(DisconnectReason, Instant)>,
}

/// How the server says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It may be sent again to a client that comes back.
    Kept,
    /// It asks for an acknowledgement.
    Asked,
    /// It may be lost.
    Volatile,
}

/// Something that the server sent.
struct News {
    number: u64,
    kind: Kind,
    at: Instant,
    /// The client was away.
    is_away: bool,
    may_be_lost: bool,
}

/// A client in a namespace, as the client sees it: what it says there, numbered from 0.
#[derive(Default)]
struct Voice {
    said: u64,
    heard: u64,
    /// So much of it has certainly reached the server.
    landed: u64,
    has_left: bool,
    /// How the socket went that had it.
    end: Option<DisconnectReason>,
}

impl Books {
    fn new(failed: Arc<Notify>) -> Self {
        Self {
            start: Instant::now(),
            trace: Vec::new(),
            failure: None,
            failed,
            sessions: BTreeMap::new(),
            sockets: BTreeMap::new(),
            // 0 is nobody's.
            voices: vec![Voice::default()],
            news: 0,
            unexplained: 0,
            keep: Duration::ZERO,
            counted: Vec::new(),
        }
    }

    // --- the trace ---

    pub fn note(&mut self, line: fmt::Arguments<'_>) {
        if self.failure.is_some() {
            // What is dropped at the end of a broken run tells nothing.
            return;
        }
        self.trace.push(format!("{:>9.3} {line}", self.start.elapsed().as_secs_f64()));
    }

    /// A promise that is broken ends the run; the first one counts.
    pub fn check(&mut self, holds: bool, promise: fmt::Arguments<'_>) {
        if !holds && self.failure.is_none() {
            self.note(format_args!("BROKEN: {promise}"));
            self.failure = Some(promise.to_string());
            self.failed.notify_one();
        }
    }

    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    pub fn trace(&self) -> &[String] {
        &self.trace
    }

    // --- sessions ---

    pub fn opened(&mut self, sid: &str, client: &str, session: Weak<Session>) {
        self.note(format_args!("{client}: session opened"));
        let now = Instant::now();
        let entry = SessionEntry {
            client: client.to_owned(),
            session,
            opened: now,
            alive: now,
            unheard: 0,
            has_come_in: false,
            line_ended: None,
            may_end: Vec::new(),
            gone_by: None,
            let_go: None,
            is_troubled: false,
            closed: None,
        };
        let before = self.sessions.insert(sid.to_owned(), entry);
        self.check(before.is_none(), format_args!("a sid is given once"));
    }

    /// Something has happened after which the session may end so.
    pub fn may_end(&mut self, sid: &str, reasons: &[CloseReason]) {
        if let Some(entry) = self.sessions.get_mut(sid) {
            entry.may_end.extend(reasons);
        }
    }

    /// The server knows of something after which the session ends `within` that time.
    pub fn must_end(&mut self, sid: &str, within: Duration) {
        let Some(entry) = self.sessions.get_mut(sid) else { return };
        let by = Instant::now() + within;
        entry.gone_by = Some(entry.gone_by.map_or(by, |before| before.min(by)));
    }

    /// What its client has done to its WebSocket, or has sent over it, ends the session, if that has moved there.
    pub fn line_ends(&mut self, sid: &str) {
        if let Some(entry) = self.sessions.get_mut(sid) {
            entry.line_ended.get_or_insert_with(Instant::now);
        }
    }

    /// Its client does its part of the heartbeat.
    pub fn beats(&mut self, sid: &str) {
        if let Some(entry) = self.sessions.get_mut(sid) {
            entry.unheard += 1;
        }
    }

    /// The server has heard its client's part of the heartbeat.
    pub fn beat_is_heard(&mut self, sid: &str) {
        let entry = self.sessions.get_mut(sid).expect("it was opened");
        entry.alive = Instant::now();
        let unheard = entry.unheard.checked_sub(1);
        entry.unheard = unheard.unwrap_or(0);
        let client = entry.client.clone();
        self.check(unheard.is_some(), format_args!("{client}: a heartbeat that is heard was sent"));
    }

    /// A message of its client is there, which in protocol 3 is as good as a ping.
    pub fn message_is_heard(&mut self, sid: &str, version: Version) {
        let entry = self.sessions.get_mut(sid).expect("it was opened");
        if version == Version::V3 {
            entry.alive = Instant::now();
        }
        let is_open = entry.closed.is_none();
        self.check(is_open, format_args!("nothing is heard after the end"));
    }

    /// From now on its client cannot be expected to answer.
    pub fn is_troubled(&mut self, sid: &str) {
        if let Some(entry) = self.sessions.get_mut(sid) {
            entry.is_troubled = true;
        }
    }

    /// The server closes the session `within` that time and lets it take what waits.
    pub fn lets_go(&mut self, sid: &str, reason: CloseReason, within: Duration) {
        let Some(entry) = self.sessions.get_mut(sid) else { return };
        entry.may_end.push(reason);
        entry.let_go = Some(reason);
        // One that is closing is not asked any more whether it lives.
        entry.gone_by = Some(Instant::now() + within + FAREWELL);
    }

    /// The server throws the session away, and what waits with it.
    pub fn discards(&mut self, sid: &str, reason: CloseReason, within: Duration) {
        self.may_end(sid, &[reason]);
        self.must_end(sid, within);
        if let Some(entry) = self.sessions.get_mut(sid) {
            entry.let_go = None;
        }
    }

    /// All sessions that are open.
    pub fn open_sessions(&self) -> Vec<String> {
        let open = self.sessions.iter().filter(|(_, entry)| entry.closed.is_none());
        open.map(|(sid, _)| sid.clone()).collect()
    }

    pub fn upgraded(&mut self, sid: &str) {
        let entry = self.sessions.get_mut(sid).expect("it was opened");
        // A pong that is owed is not waited for any more.
        entry.alive = Instant::now();
        let (client, is_open) = (entry.client.clone(), entry.closed.is_none());
        self.note(format_args!("{client}: session upgraded"));
        self.check(is_open, format_args!("{client}: nothing is told after the end"));
    }

    pub fn closed(&mut self, sid: &str, reason: CloseReason, metrics: &Metrics) {
        let entry = self.sessions.get_mut(sid).expect("it was opened");
        let client = entry.client.clone();
        let is_first = entry.closed.replace(reason).is_none();
        let is_explained = entry.may_end.contains(&reason);
        if !is_explained {
            self.unexplained += 1;
        }
        let limited = metrics.limit_outbox.get() + metrics.limit_outbound.get();
        let is_limit = reason == CloseReason::TransportError && self.unexplained <= limited;
        self.note(format_args!("{client}: session closed, {reason}"));
        self.check(is_first, format_args!("{client}: a session is closed once"));
        self.check(is_explained || is_limit, format_args!("{client}: a session ends for a reason, and not by {reason}"));
    }

    /// The instance has drained: who is well has gone.
    pub fn has_gone(&mut self, sid: &str) {
        let entry = &self.sessions[sid];
        let (client, is_gone) = (entry.client.clone(), entry.closed.is_some() || entry.is_troubled);
        self.check(is_gone, format_args!("{client}: an instance that drains ends its session within the window"));
    }

    pub fn has_closed(&self, sid: &str, reason: CloseReason) -> bool {
        self.sessions.get(sid).is_some_and(|entry| entry.closed == Some(reason))
    }

    /// Whether the server has heard that the client has moved there.
    pub fn is_on_websocket(&self, sid: &str) -> bool {
        self.sessions.get(sid).is_some_and(SessionEntry::is_on_websocket)
    }

    /// Whether the server still takes the session for open.
    pub fn is_open(&self, sid: &str) -> bool {
        let session = self.sessions.get(sid).and_then(|entry| entry.session.upgrade());
        session.is_some_and(|session| session.is_open())
    }

    /// The client has been told that its session is over, and has not asked for it.
    pub fn client_saw_the_end(&mut self, sid: &str) {
        let Some(entry) = self.sessions.get(sid) else { return };
        let client = entry.client.clone();
        let is_over = entry.closed.is_some() || entry.session.upgrade().is_none_or(|session| !session.is_open());
        let is_let_go = entry.let_go.is_some() && entry.closed == entry.let_go && !entry.is_troubled;
        self.check(is_over, format_args!("{client}: a client is not sent away while its session is open"));
        // Who has left a namespace does not listen to it any more.
        let mut sockets = self.sockets.values().filter(|socket| socket.sid == sid && !self.voices[socket.voice].has_left);
        let is_complete = sockets.all(SocketEntry::has_all_but_what_it_was_away_for);
        self.check(is_complete || !is_let_go, format_args!("{client}: a session that is let go takes what waits"));
    }

    // --- sockets ---

    /// A client asks for a namespace; the number is its voice there.
    pub fn new_voice(&mut self) -> usize {
        self.voices.push(Voice::default());
        self.voices.len() - 1
    }

    pub fn connected(&mut self, socket: &Socket, voice: usize) {
        let (id, sid) = (socket.id().as_str(), socket.session().sid().as_str());
        let how = if socket.recovered() { "is back in" } else { "connected to" };
        self.note(format_args!("v{voice}: socket {how} {}", socket.namespace()));
        let session = self.sessions.get_mut(sid).map(|entry| entry.has_come_in = true);
        let is_known = session.is_some() && voice < self.voices.len();
        let is_new = self.sockets.values().all(|other| other.voice != voice);
        self.check(is_known && is_new, format_args!("v{voice}: one CONNECT makes one socket"));
        if socket.recovered() {
            return self.recovered(socket, voice);
        }
        let entry = SocketEntry {
            sid: sid.to_owned(),
            namespace: socket.namespace().to_owned(),
            first_voice: voice,
            voice,
            rooms: BTreeSet::new(),
            news: Vec::new(),
            arrived: 0,
            is_dismissed: false,
            disconnected: None,
        };
        let before = self.sockets.insert(id.to_owned(), entry);
        self.check(before.is_none(), format_args!("v{voice}: an id is given once"));
    }

    fn recovered(&mut self, socket: &Socket, voice: usize) {
        let Some(entry) = self.sockets.get_mut(socket.id().as_str()) else {
            return self.check(false, format_args!("v{voice}: who comes back was here"));
        };
        let first = entry.first_voice;
        let was_gone = entry.disconnected.take().is_some();
        socket.session().sid().as_str().clone_into(&mut entry.sid);
        entry.voice = voice;
        entry.is_dismissed = false;
        // What asked for an acknowledgement is not sent again.
        let lost = entry.news.iter_mut().skip(entry.arrived).filter(|news| news.kind != Kind::Kept);
        lost.for_each(|news| news.may_be_lost = true);
        let own = socket.id().as_str();
        let rooms = socket.rooms().into_iter().map(|room| room.as_str().to_owned()).filter(|room| room != own);
        let (is_everywhere, data) = (rooms.collect::<BTreeSet<_>>() == entry.rooms, socket.data::<usize>().ok());
        self.check(was_gone, format_args!("v{voice}: nobody comes back before having gone"));
        self.check(is_everywhere, format_args!("v{voice}: who comes back is in the rooms where it was"));
        self.check(data == Some(first), format_args!("v{voice}: who comes back has its data, and not {data:?}"));
    }

    pub fn keep(&mut self, keep: Duration) {
        self.keep = keep;
    }

    /// Whether a client that takes up this socket again has to be let in as who it was.
    pub fn must_recover(&self, id: &str) -> bool {
        let socket = &self.sockets[id];
        let is_known = match socket.disconnected {
            Some((DisconnectReason::Session(reason), at)) => reason != CloseReason::ParseError && at.elapsed() < self.keep / 2,
            Some(_) => false,
            None => !socket.is_dismissed && !self.voices[socket.voice].has_left,
        };
        is_known && socket.missed_since().is_none_or(|at| at.elapsed() < self.keep)
    }

    /// The number under which a socket came in.
    pub fn voice(&self, id: &str) -> usize {
        self.sockets[id].voice
    }

    pub fn joined(&mut self, id: &str, room: String) {
        self.sockets.get_mut(id).expect("it was connected").rooms.insert(room);
    }

    pub fn parted(&mut self, id: &str, room: &str) {
        self.sockets.get_mut(id).expect("it was connected").rooms.remove(room);
    }

    pub fn left(&mut self, voice: usize) {
        self.voices[voice].has_left = true;
    }

    /// The server sends a socket away.
    pub fn dismissed(&mut self, id: &str) {
        if let Some(socket) = self.sockets.get_mut(id) {
            socket.is_dismissed = true;
        }
    }

    /// The server sends away all sockets of a session.
    pub fn dismissed_all(&mut self, sid: &str) {
        let sockets = self.sockets.values_mut().filter(|socket| socket.sid == sid && socket.disconnected.is_none());
        sockets.for_each(|socket| socket.is_dismissed = true);
    }

    pub fn disconnected(&mut self, id: &str, reason: DisconnectReason) {
        let Some(socket) = self.sockets.get_mut(id) else {
            return self.check(false, format_args!("who goes was here"));
        };
        let (voice, is_dismissed) = (socket.voice, socket.is_dismissed);
        let is_first = socket.disconnected.replace((reason, Instant::now())).is_none();
        self.voices[voice].end = Some(reason);
        let session = &self.sessions[&socket.sid];
        let is_explained = match reason {
            DisconnectReason::ClientNamespaceDisconnect => self.voices[voice].has_left,
            DisconnectReason::ServerNamespaceDisconnect => is_dismissed,
            DisconnectReason::Session(reason) => session.may_end.contains(&reason) || session.closed == Some(reason),
        };
        self.note(format_args!("v{voice}: socket disconnected, {reason}"));
        self.check(is_first, format_args!("v{voice}: a socket is disconnected once"));
        self.check(is_explained, format_args!("v{voice}: a socket ends for a reason, and not by {reason}"));
    }

    // --- from the client to the application ---

    /// The number of what a client says now.
    pub fn say(&mut self, voice: usize) -> u64 {
        self.voices[voice].said += 1;
        self.voices[voice].said - 1
    }

    pub fn heard(&mut self, id: &str, number: u64) {
        let socket = self.sockets.get(id).expect("it was connected");
        let (at, is_here) = (socket.voice, socket.disconnected.is_none());
        let voice = &mut self.voices[at];
        let expected = voice.heard;
        voice.heard += 1;
        let was_said = number < voice.said;
        self.note(format_args!("v{at}: {number} is heard"));
        self.check(number == expected && was_said, format_args!("v{at}: {number} is heard where {expected} comes next"));
        self.check(is_here, format_args!("v{at}: nothing is heard of a socket that is gone"));
    }

    /// All that the client has said until now has reached the server.
    pub fn landed(&mut self, voice: usize, count: u64) {
        let landed = &mut self.voices[voice].landed;
        *landed = count.max(*landed);
    }

    /// All of it has.
    pub fn landed_all(&mut self, voice: usize) {
        self.landed(voice, self.voices[voice].said);
    }

    /// What an acknowledgement carries: how much was heard of the client, and how much was sent to it.
    pub fn account(&self, id: &str) -> (u64, u64) {
        let socket = &self.sockets[id];
        (self.voices[socket.voice].heard, socket.news.len() as u64)
    }

    // --- from the application to the client ---

    /// The number of what the server is about to send to these sockets.
    pub fn tell(&mut self, ids: &[&str], kind: Kind) -> u64 {
        let number = self.news;
        self.news += 1;
        self.add(number, ids.iter().map(|id| (*id).to_owned()).collect(), kind);
        number
    }

    /// What is told to all of a namespace, or of a room in it, is told to those as well who are away and may come back.
    pub fn tell_away(&mut self, number: u64, namespace: &str, room: Option<&String>, except: Option<&str>) {
        if self.keep.is_zero() {
            return;
        }
        let is_told = |socket: &SocketEntry| socket.news.last().is_some_and(|news| news.number == number);
        let is_meant = |socket: &SocketEntry| {
            let is_there = socket.namespace == namespace && room.is_none_or(|room| socket.rooms.contains(room));
            let may_return = socket.disconnected.is_none_or(|(reason, _)| matches!(reason, DisconnectReason::Session(_)));
            is_there && may_return && !is_told(socket)
        };
        let away = self.sockets.iter().filter(|(id, socket)| Some(id.as_str()) != except && is_meant(socket));
        let away = away.map(|(id, _)| id.clone()).collect();
        self.add(number, away, Kind::Kept);
    }

    fn add(&mut self, number: u64, ids: Vec<String>, kind: Kind) {
        let mut voices = String::new();
        for id in ids {
            let Some(socket) = self.sockets.get_mut(&id) else {
                return self.check(false, format_args!("who is told something was connected"));
            };
            let session = self.sessions.get(&socket.sid).and_then(|entry| entry.session.upgrade());
            let is_away = !session.is_some_and(|session| session.is_open());
            // Who is being sent away may have gone before, and then comes back for it.
            let is_going = socket.is_dismissed && socket.disconnected.is_none();
            let may_be_lost = kind == Kind::Volatile || is_going;
            socket.news.push(News { number, kind, at: Instant::now(), is_away, may_be_lost });
            voices += &format!(" v{}", socket.voice);
        }
        if !voices.is_empty() {
            self.note(format_args!("news {number}, {kind:?}, for{voices}"));
        }
    }

    /// The server could not send it after all.
    pub fn untell(&mut self, id: &str, number: u64) {
        self.sockets.get_mut(id).expect("it was connected").news.retain(|news| news.number != number);
    }

    pub fn told(&mut self, id: &str, number: u64) {
        let Some(socket) = self.sockets.get_mut(id) else {
            return self.check(false, format_args!("news come from a socket that the server knows"));
        };
        let voice = socket.voice;
        let ahead = socket.news.iter().skip(socket.arrived);
        let lost = ahead.take_while(|news| news.number != number && news.may_be_lost).count();
        let next = socket.news.get(socket.arrived + lost).map(|news| news.number);
        socket.arrived += lost + 1;
        self.note(format_args!("v{voice}: news {number}"));
        self.check(next == Some(number), format_args!("v{voice}: news {number} arrives where {next:?} comes next"));
    }

    /// An acknowledgement arrived, behind all that was sent before it.
    pub fn settled(&mut self, id: &str, (heard, sent): (u64, u64), number: u64) {
        let socket = &self.sockets[id];
        let voice = socket.voice;
        let has_all = socket.has_all(sent as usize);
        let arrived = socket.arrived;
        self.note(format_args!("v{voice}: {number} is acknowledged"));
        self.check(
            has_all,
            format_args!("v{voice}: an acknowledgement comes behind the {sent} news that were sent before it, {arrived} arrived"),
        );
        self.check(heard > number, format_args!("v{voice}: what is acknowledged was heard"));
    }

    /// A client did not answer in time.
    pub fn unanswered(&mut self, id: &str) {
        let socket = &self.sockets[id];
        let (voice, session) = (socket.voice, &self.sessions[&socket.sid]);
        let is_excused = session.is_troubled && socket.disconnected.is_none();
        self.note(format_args!("v{voice}: does not answer"));
        self.check(is_excused, format_args!("v{voice}: a client that is well is heard in time"));
    }

    /// The client was told that the server has sent it away.
    pub fn client_was_dismissed(&mut self, id: &str) {
        let socket = &self.sockets[id];
        let (voice, is_dismissed, is_complete) = (socket.voice, socket.is_dismissed, socket.has_all(socket.news.len()));
        self.note(format_args!("v{voice}: sent away"));
        self.check(is_dismissed, format_args!("v{voice}: nobody is sent away by nobody"));
        self.check(is_complete, format_args!("v{voice}: the farewell comes behind all that was sent"));
    }

    // --- while it runs, and at the end ---

    pub fn counted(&self) -> &[(&'static str, u64)] {
        &self.counted
    }

    /// What is true at every moment: each session is where it should be.
    pub fn inspect(&mut self, metrics: &Metrics, plan: &Plan, largest_outbox: usize) {
        let open: Vec<_> = self.sessions.values().filter(|entry| entry.closed.is_none()).collect();
        let sessions: Vec<_> = open.iter().filter_map(|entry| entry.session.upgrade()).collect();
        let websockets = sessions.iter().filter(|session| session.transport() == TransportKind::WebSocket).count();
        let backlog: usize = sessions.iter().map(|session| session.backlog()).sum();
        let largest = sessions.iter().map(|session| session.backlog()).max().unwrap_or(0);
        let now = Instant::now();
        let overdue = open.iter().find(|entry| entry.ends_by(plan) < now).map(|entry| entry.client.clone());
        let count = (open.len() as i64, websockets as i64);
        let gauges = (metrics.sessions.get(), metrics.sessions_websocket.get());
        let outbound = metrics.outbound_bytes.get();
        self.check(count == gauges, format_args!("the gauges {gauges:?} count the sessions and the WebSockets, {count:?}"));
        self.check(outbound >= backlog as i64, format_args!("{outbound} bytes wait, and {backlog} of them in sessions"));
        self.check(largest <= largest_outbox, format_args!("an outbox of {largest} bytes is within {largest_outbox}"));
        self.check(overdue.is_none(), format_args!("{overdue:?}: what is broken ends in time"));
    }

    /// What is true when everybody has left.
    pub fn settle(&mut self, metrics: &Metrics) {
        let counter = |(name, _, value)| if let Value::Counter(count) = value { Some((name, count)) } else { None };
        self.counted = metrics.all().into_iter().filter_map(counter).collect();
        let counted = format!("counted {:?}", self.counted);
        self.note(format_args!("{counted}"));
        let open = self.sessions.values().find(|entry| entry.closed.is_none()).map(|entry| entry.client.clone());
        self.check(open.is_none(), format_args!("{open:?}: every session ends"));
        let held = self.sessions.values().find(|entry| entry.session.strong_count() > 0).map(|entry| entry.client.clone());
        self.check(held.is_none(), format_args!("{held:?}: nobody keeps a session that is over"));
        let connected = self.sockets.values().find(|socket| socket.disconnected.is_none()).map(|socket| socket.voice);
        self.check(connected.is_none(), format_args!("v{connected:?}: every socket is disconnected"));
        let mut deaf =
            self.voices.iter().enumerate().filter(|(_, voice)| voice.heard < voice.landed && voice.ended_by_its_client());
        let deaf = deaf.next().map(|(number, _)| number);
        self.check(deaf.is_none(), format_args!("v{deaf:?}: what has reached the server is heard"));
    }
}

impl SessionEntry {
    /// When it has to be over, by what has reached the server until now; what has not changes nothing.
    fn ends_by(&self, plan: &Plan) -> Instant {
        let outside = (!self.has_come_in).then_some(self.opened + plan.hub.connect_timeout + FAREWELL);
        let line_ended = self.line_ended.filter(|_| self.is_on_websocket());
        let ends = [Some(self.alive + plan.silence()), outside, line_ended.map(|at| at + plan.slack()), self.gone_by];
        ends.into_iter().flatten().min().expect("the first")
    }

    fn is_on_websocket(&self) -> bool {
        self.session.upgrade().is_some_and(|session| session.transport() == TransportKind::WebSocket)
    }
}

impl SocketEntry {
    /// Whether all that must arrive of the first `count` news has.
    fn has_all(&self, count: usize) -> bool {
        self.news.iter().take(count).skip(self.arrived).all(|news| news.may_be_lost)
    }

    /// When it was sent the last news that it has, if it misses any since; or the first, if it has none.
    fn missed_since(&self) -> Option<Instant> {
        let kept = |news: &&News| news.kind == Kind::Kept;
        let missed = self.news.iter().skip(self.arrived).find(kept)?;
        let heard = self.news.iter().take(self.arrived).rfind(kept);
        Some(heard.unwrap_or(missed).at)
    }

    fn has_all_but_what_it_was_away_for(&self) -> bool {
        self.news.iter().skip(self.arrived).all(|news| news.may_be_lost || news.is_away)
    }
}

impl Voice {
    /// Who sends a client away does not care for what it said before it knew.
    fn ended_by_its_client(&self) -> bool {
        use CloseReason::{PingTimeout, TransportClose, TransportError};
        match self.end {
            Some(DisconnectReason::Session(reason)) => [PingTimeout, TransportClose, TransportError].contains(&reason),
            Some(DisconnectReason::ClientNamespaceDisconnect) => true,
            Some(DisconnectReason::ServerNamespaceDisconnect) | None => false,
        }
    }
}
