//! Recovery on whichever node: what is kept is in the cluster's [`Archive`], and here is only who has which place, and how far the events have been heard.
//!
//! The lock is the order of the namespace, as it is of a [`Shelf`](super::Shelf). Whoever comes back is sent, under it, what it missed up to the event that
//! was heard here last, and hears the next like everybody else.

use super::super::archive::{Archive, ArchivedEvent, ArchivedSession, Offset, Recovered};
use super::super::room::Room;
use super::super::rooms::Target;
use super::super::socket::Socket;
use super::{Claim, PATIENCE, UNPOISONED, weigh_event};
use crate::engine::{CloseReason, Session};
use crate::protocol::eio::Encoded;
use crate::protocol::sid::{Pid, SocketId};
use crate::protocol::sio::Parser;
use bytestring::ByteString;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

/// What one namespace knows of clients who may come back on any node.
pub(in crate::hub) struct Far {
    pub(in crate::hub) archive: Arc<dyn Archive>,
    namespace: ByteString,
    keep: Duration,
    /// Bytes of what is remembered while somebody comes back.
    limit: usize,
    parser: Parser,
    this: Weak<Self>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    places: HashMap<Pid, Place>,
    attempts: u64,
    /// The last event that was heard.
    heard: Offset,
    /// How many are coming back.
    coming: usize,
    /// What was heard since the first of them asked.
    log: Vec<Logged>,
    bytes: usize,
}

/// A place that is taken by a socket that is coming in, is here, or whose handlers are being told that it has gone.
struct Place {
    session: Arc<Session>,
    attempt: u64,
    /// Wakes the attempts that wait for the place.
    freed: Option<Arc<Notify>>,
}

struct Logged {
    /// Of one that has a place of its own.
    offset: Option<Offset>,
    target: Target,
    packets: Vec<Encoded>,
}

/// A socket's part in it.
pub(in crate::hub) struct Trace {
    pub(in crate::hub) pid: Pid,
    pub(in crate::hub) is_recovered: bool,
    /// The event up to which it needs nothing.
    heard: OnceLock<Offset>,
    /// Where it came in first.
    start: OnceLock<Offset>,
    /// Until it comes in.
    restored: Mutex<Option<Restored>>,
    left: OnceLock<Instant>,
    is_forgotten: AtomicBool,
}

/// A client that comes back, and what it missed until it asked.
struct Restored {
    session: ArchivedSession,
    is_vouched: bool,
    heard: Offset,
    until: Offset,
    missed: Vec<Encoded>,
    /// How many events were remembered when it asked.
    before: usize,
    _coming: Coming,
}

/// While it lives, what is heard is remembered.
struct Coming(Weak<Far>);

impl Drop for Coming {
    fn drop(&mut self) {
        if let Some(far) = self.0.upgrade() {
            let mut state = far.lock();
            state.coming -= 1;
            if state.coming == 0 {
                (state.log, state.bytes) = (Vec::new(), 0);
            }
        }
    }
}

impl Far {
    pub(in crate::hub) fn new(
        archive: Arc<dyn Archive>,
        namespace: ByteString,
        (keep, limit): (Duration, usize),
        parser: Parser,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { archive, namespace, keep, limit, parser, this: Weak::clone(this), state: Mutex::default() })
    }

    pub(in crate::hub) fn parser(&self) -> Parser {
        self.parser
    }

    /// A place for a client that was not here before.
    pub(in crate::hub) fn open(&self, pid: Pid, session: &Arc<Session>) -> Trace {
        self.lock().take(pid.clone(), session);
        Trace::new(pid, None)
    }

    /// The place that a client had before, wherever that was. If a socket still has it, that one's session ends.
    ///
    /// # Errors
    /// Why the client begins anew.
    pub(in crate::hub) async fn take(&self, claim: Claim, session: &Arc<Session>, limit: usize) -> Result<Trace, &'static str> {
        let patience = Instant::now() + PATIENCE;
        let Claim { pid, offset } = claim;
        let place = loop {
            let (stale, free);
            let freed = {
                let mut state = self.lock();
                let Some(Place { session: holder, freed, .. }) = state.places.get_mut(&*pid) else {
                    break state.take(Pid::from(&*pid), session);
                };
                stale = (!Arc::ptr_eq(holder, session)).then(|| Arc::clone(holder));
                free = Arc::clone(freed.get_or_insert_default());
                free.notified()
            };
            if let Some(stale) = stale {
                stale.discard(CloseReason::TransportError);
            }
            if timeout_at(patience, freed).await.is_err() {
                return Err("the handlers of its former socket take too long");
            }
        };
        // A client that goes meanwhile must not take along what was taken out for it.
        let (sender, receiver) = oneshot::channel();
        let far = self.this.upgrade().expect("it is being called");
        tokio::spawn(async move {
            let restored = far.restore(pid.clone(), offset, limit).await;
            if restored.is_err() {
                far.lock().free(&pid, place);
            }
            if let Err(Ok(trace)) = sender.send(restored) {
                far.give_back(&trace);
            }
        });
        receiver.await.unwrap_or(Err("nobody could be asked"))
    }

    async fn restore(&self, pid: String, offset: Option<String>, limit: usize) -> Result<Trace, &'static str> {
        let (coming, until, before) = {
            let mut state = self.lock();
            state.coming += 1;
            let until = state.heard.max(self.archive.heard(&self.namespace));
            (Coming(Weak::clone(&self.this)), until, state.log.len())
        };
        let pid_of_it = Pid::from(&*pid);
        let restored = Arc::clone(&self.archive).restore(&self.namespace, pid, offset, until, limit);
        let Recovered { session, heard, missed } = restored.await?;
        let is_vouched = match &session.namespace {
            Some(namespace) if *namespace != self.namespace => return Err("its session is of another namespace"),
            named => named.is_some(),
        };
        let packets = |ArchivedEvent { offset, flags, name, args }: ArchivedEvent| {
            flags.packets(self.parser.event(&self.namespace, None, &name, &args.and(&offset.to_string())))
        };
        let missed = missed.into_iter().flat_map(packets).collect();
        let restored = Restored { is_vouched, heard, until, missed, before, _coming: coming, session };
        Ok(Trace::new(pid_of_it, Some(restored)))
    }

    /// Sends an event that was heard to those that `select` names; it is only written if somebody hears it.
    pub(in crate::hub) fn hear(
        &self,
        offset: Offset,
        target: &Target,
        select: impl FnOnce() -> Vec<Socket>,
        encode: impl FnOnce(&str) -> Option<Vec<Encoded>>,
    ) -> Vec<Socket> {
        let mut state = self.lock();
        state.heard = offset;
        let mut sockets = select();
        sockets.retain(|socket| socket.trace().is_none_or(|trace| trace.heard.get().is_none_or(|heard| *heard < offset)));
        if state.coming == 0 && sockets.is_empty() {
            return sockets;
        }
        let Some(packets) = encode(&offset.to_string()) else { return Vec::new() };
        let departing: Vec<&Socket> = sockets.iter().filter(|socket| socket.line_up_far(&packets)).collect();
        self.log(&mut state, Some(offset), target, packets);
        drop(state);
        // The order is settled: whoever speaks next does not wait for the network.
        departing.iter().for_each(|socket| socket.session().depart());
        sockets
    }

    /// Sends an event that has no place of its own, and so names the one before.
    pub(in crate::hub) fn send(
        &self,
        target: &Target,
        select: impl FnOnce() -> Vec<Socket>,
        encode: impl FnOnce(&str) -> Vec<Encoded>,
    ) -> Vec<Socket> {
        let mut state = self.lock();
        let sockets = select();
        if state.coming == 0 && sockets.is_empty() {
            return sockets;
        }
        let packets = encode(&state.heard.max(self.archive.heard(&self.namespace)).to_string());
        let departing: Vec<&Socket> = sockets.iter().filter(|socket| socket.line_up_far(&packets)).collect();
        self.log(&mut state, None, target, packets);
        drop(state);
        departing.iter().for_each(|socket| socket.session().depart());
        sockets
    }

    /// Remembers an event while somebody is coming.
    fn log(&self, state: &mut State, offset: Option<Offset>, target: &Target, packets: Vec<Encoded>) {
        if state.coming == 0 {
            return;
        }
        state.bytes += weigh_event(target, &packets);
        // Beyond it nobody who is coming gets in, and all of it is forgotten.
        if state.bytes <= self.limit {
            state.log.push(Logged { offset, target: target.clone(), packets });
        }
    }

    /// Lets a socket in with `greet`, which is given what it missed; no event is heard meanwhile. `None` says that it stays out.
    pub(in crate::hub) fn welcome<T>(
        &self,
        trace: &Trace,
        limit: usize,
        greet: impl FnOnce(Vec<Encoded>) -> Option<T>,
    ) -> Option<T> {
        let state = self.lock();
        let now = state.heard.max(self.archive.heard(&self.namespace));
        let mut restored = trace.restored.lock().expect(UNPOISONED);
        let mut missed = Vec::new();
        let (heard, start) = match &mut *restored {
            None => (now, now),
            Some(restored) => {
                if state.bytes > self.limit {
                    return None;
                }
                let rooms: HashSet<&Room> = restored.session.rooms.iter().collect();
                let first = restored.until.max(restored.heard);
                let is_missed = |(index, logged): &(usize, &Logged)| {
                    logged.offset.map_or(*index >= restored.before, |offset| offset > first) && logged.target.reaches(&rooms)
                };
                let since = state.log.iter().enumerate().filter(is_missed);
                let since: Vec<_> = since.flat_map(|(_, logged)| logged.packets.iter().cloned()).collect();
                missed.append(&mut restored.missed);
                missed.extend(since);
                if missed.iter().map(Encoded::weight).sum::<usize>() > limit {
                    return None;
                }
                (now.max(restored.heard), restored.session.start.unwrap_or(restored.heard))
            }
        };
        trace.heard.get_or_init(|| heard);
        trace.start.get_or_init(|| start);
        let greeted = greet(missed);
        let done = greeted.is_some().then(|| restored.take());
        drop((restored, state));
        // It takes the lock.
        drop(done);
        greeted
    }

    /// The socket is here: it is written down, and again when it changes.
    pub(in crate::hub) fn begin(&self, trace: &Trace, socket: &Socket) {
        let source = socket.clone();
        self.archive.begin(&trace.pid, Arc::new(move || source.archived(source.rooms())));
    }

    /// As the socket is to be kept.
    pub(in crate::hub) fn archived(
        &self,
        trace: &Trace,
        sid: &SocketId,
        rooms: Vec<Room>,
        data: Arc<serde_json::value::RawValue>,
    ) -> ArchivedSession {
        ArchivedSession {
            namespace: Some(self.namespace.clone()),
            sid: sid.clone(),
            pid: trace.pid.clone(),
            rooms,
            data,
            start: trace.start.get().copied(),
        }
    }

    /// The client's handlers have heard that it went: it may come back, unless it was forgotten before.
    pub(in crate::hub) fn save(&self, trace: &Trace, session: ArchivedSession) {
        if !trace.is_forgotten.load(Relaxed) {
            self.archive.end(session);
        }
        self.lock().free(trace.pid.as_str(), u64::MAX);
    }

    /// The client has gone for good.
    pub(in crate::hub) fn forget(&self, trace: &Trace) {
        trace.is_forgotten.store(true, Relaxed);
        self.archive.forget(&trace.pid);
    }

    /// The socket never came in: whose place it took may have it again.
    pub(in crate::hub) fn give_back(&self, trace: &Trace) {
        let restored = trace.restored.lock().expect(UNPOISONED).take();
        if let Some(restored) = &restored {
            self.archive.end(restored.session.clone());
        }
        self.lock().free(trace.pid.as_str(), u64::MAX);
    }

    /// Ends the session of whoever has a place, and waits until it is free; `false` says that it was.
    pub(in crate::hub) async fn release(&self, pid: &str) -> bool {
        let (stale, free);
        let freed = {
            let mut state = self.lock();
            let Some(place) = state.places.get_mut(pid) else { return false };
            stale = Arc::clone(&place.session);
            free = Arc::clone(place.freed.get_or_insert_default());
            free.notified()
        };
        stale.discard(CloseReason::TransportError);
        // Whoever asked does not wait longer either.
        let _ = timeout_at(Instant::now() + PATIENCE, freed).await;
        true
    }

    /// Whether something is kept for a socket that has gone.
    pub(in crate::hub) fn keeps(&self, trace: &Trace) -> bool {
        !trace.is_forgotten.load(Relaxed) && trace.left.get().is_none_or(|left| left.elapsed() < self.keep)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(UNPOISONED)
    }
}

impl Trace {
    fn new(pid: Pid, restored: Option<Restored>) -> Self {
        Self {
            pid,
            is_recovered: restored.is_some(),
            heard: OnceLock::new(),
            start: OnceLock::new(),
            restored: restored.into(),
            left: OnceLock::new(),
            is_forgotten: AtomicBool::new(false),
        }
    }

    /// Whose place it takes, until it comes in.
    pub(in crate::hub) fn saved(&self) -> Option<ArchivedSession> {
        self.restored.lock().expect(UNPOISONED).as_ref().map(|restored| restored.session.clone())
    }

    /// Whether what it takes up is known to be of this namespace: Node's servers do not say, and it might be of one with other middlewares.
    pub(in crate::hub) fn is_vouched(&self) -> bool {
        self.restored.lock().expect(UNPOISONED).as_ref().is_some_and(|restored| restored.is_vouched)
    }

    /// The socket hears no more events.
    pub(in crate::hub) fn leave(&self) {
        self.left.get_or_init(Instant::now);
    }
}

impl State {
    fn take(&mut self, pid: Pid, session: &Arc<Session>) -> u64 {
        self.attempts += 1;
        let attempt = self.attempts;
        self.places.insert(pid, Place { session: Arc::clone(session), attempt, freed: None });
        attempt
    }

    /// Lets those come who wait for the place, if it is this attempt's, or anyone's for the last of numbers.
    fn free(&mut self, pid: &str, attempt: u64) {
        if self.places.get(pid).is_some_and(|place| attempt == u64::MAX || place.attempt == attempt)
            && let Some(Place { freed: Some(freed), .. }) = self.places.remove(pid)
        {
            freed.notify_waiters();
        }
        if self.places.is_empty() {
            self.places.shrink_to_fit();
        }
    }
}

impl fmt::Debug for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Far").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}
