//! The sessions of this node's clients, and of those who have just gone, until they are written where every node finds them.

use super::super::wire::{Bounds, Record};
use crate::hub::{ArchivedSession, SessionSource};
use crate::metrics::Metrics;
use crate::protocol::sid::Pid;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How late a change is written: soon enough that a node that dies loses what its clients did in the last tenth of a second, and nothing before.
const DELAY: Duration = Duration::from_millis(20);
/// What one round trip takes at most.
const BATCH: usize = 500;
/// How many answers may wait for what is written before them.
const ANSWERS: usize = 10_000;

/// The sessions of this node's clients.
#[derive(Debug)]
pub(in crate::cluster) struct Sessions {
    prefix: String,
    uid: String,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    keep: Duration,
    limit: usize,
    here: HashMap<Pid, Here>,
    /// Those of them that are to be written.
    dirty: HashSet<Pid>,
    /// Those of them that are to be kept a little longer.
    aging: Vec<Pid>,
    gone: HashMap<Pid, Gone>,
    /// Of those who have gone.
    bytes: usize,
    /// When those are looked for whose time is over.
    sweep: Instant,
    /// What is published when all that was to be written is.
    then: Vec<(String, Vec<u8>)>,
    due: Option<Instant>,
    refresh: Instant,
}

struct Here {
    source: SessionSource,
    had: Had,
    /// Another node has, and says from now on what it is.
    is_taken: bool,
}

impl std::fmt::Debug for Here {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Here").field("had", &self.had).finish_non_exhaustive()
    }
}

/// Whether Redis has something of a client from this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Had {
    Nothing,
    /// Since it was there last: another node that takes the client over takes it out.
    It,
    /// Before it went away, or refused: by now it may have forgotten it, or another node may have the client.
    Perhaps,
}

/// Somebody who has gone: with a last record, or for good.
#[derive(Debug)]
struct Gone {
    record: Option<String>,
    /// When Redis has forgotten it by itself.
    until: Instant,
    had: Had,
}

impl Gone {
    fn weight(&self, pid: &Pid) -> usize {
        self.record.as_ref().map_or(0, String::len) + pid.as_str().len() + size_of::<(Pid, Self)>()
    }
}

/// What this node knows of a client that wants to come back and is not here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    Nothing,
    /// It has gone for good, whatever Redis still says of it.
    Gone,
    /// Its last record, which Redis may not have, and for how long it is good.
    Kept(String, Duration),
}

/// What is to be done to a key.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Write {
    pub(in crate::cluster) pid: Pid,
    pub(in crate::cluster) what: What,
    /// Only if no other node has the client by now.
    pub(in crate::cluster) is_unsure: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::cluster) enum What {
    /// It is set, for so long; with `true` only if it is there.
    Set(String, Duration, bool),
    /// It is kept so long from now.
    Refresh(Duration),
    Delete,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cluster) enum Fate {
    Written,
    /// It was to be there and is not.
    Missing,
    /// Another node has the client.
    Foreign,
    /// Redis does not do it, and is asked again when sessions are refreshed.
    Refused,
}

impl Sessions {
    pub(super) fn new(prefix: String, uid: String, bounds: Bounds, metrics: Arc<Metrics>) -> Self {
        let state = State {
            keep: Duration::ZERO,
            limit: 0,
            here: HashMap::new(),
            dirty: HashSet::new(),
            aging: Vec::new(),
            gone: HashMap::new(),
            bytes: 0,
            sweep: Instant::now(),
            then: Vec::new(),
            due: None,
            refresh: Instant::now(),
        };
        Self { prefix, uid, bounds, metrics, state: state.into(), changed: Notify::new() }
    }

    pub(in crate::cluster) fn key(&self, pid: &str) -> String {
        format!("{}{pid}", self.prefix)
    }

    pub(in crate::cluster) fn open(&self, keep: Duration, limit: usize) {
        let mut state = self.lock();
        (state.keep, state.limit, state.refresh) = (keep, limit, Instant::now() + keep / 3);
    }

    pub(in crate::cluster) fn begin(&self, pid: &Pid, source: SessionSource) {
        let mut state = self.lock();
        state.forget_gone(pid);
        state.here.insert(pid.clone(), Here { source, had: Had::Nothing, is_taken: false });
        state.touch(pid);
        self.soon(state);
    }

    pub(in crate::cluster) fn changed(&self, pid: &Pid) {
        let mut state = self.lock();
        if state.here.get(pid).is_some_and(|here| !here.is_taken) && state.touch(pid) {
            self.soon(state);
        }
    }

    pub(in crate::cluster) fn end(&self, session: &ArchivedSession) {
        // Beyond a bound it is not kept, and the client begins anew.
        let Ok(record) = Record::encode(session, Some(&self.uid), &self.bounds) else { return self.forget(&session.pid) };
        let mut state = self.lock();
        let here = state.here.remove(&session.pid);
        state.dirty.remove(&session.pid);
        state.forget_gone(&session.pid);
        if here.as_ref().is_some_and(|here| here.is_taken) {
            return;
        }
        let had = here.map_or(Had::Nothing, |here| here.had);
        self.goes(state, &session.pid, Some(record), had);
    }

    pub(in crate::cluster) fn forget(&self, pid: &Pid) {
        let mut state = self.lock();
        let here = state.here.remove(pid);
        if here.as_ref().is_some_and(|here| here.is_taken) {
            return;
        }
        state.dirty.remove(pid);
        state.forget_gone(pid);
        // Of somebody who is not here Redis may have the last record.
        let had = here.map_or(Had::Perhaps, |here| here.had);
        if had != Had::Nothing {
            self.goes(state, pid, None, had);
        }
    }

    fn goes(&self, mut state: MutexGuard<'_, State>, pid: &Pid, record: Option<String>, had: Had) {
        let gone = Gone { record, until: Instant::now() + state.keep, had };
        if state.insert_gone(pid, gone) {
            self.soon(state);
        } else {
            self.metrics.limit_recovery.inc();
        }
    }

    /// What goes before that which Redis says of a client; a record is the caller's to write.
    pub(super) fn claim(&self, pid: &str) -> Known {
        let mut state = self.lock();
        let Some((pid, gone)) = state.gone.remove_entry(pid) else { return Known::Nothing };
        state.bytes -= gone.weight(&pid);
        let left = gone.until.saturating_duration_since(Instant::now());
        let Gone { record: Some(record), .. } = gone else {
            // The key is still to be deleted, and that stays so.
            state.insert_gone(&pid, gone);
            return Known::Gone;
        };
        if left.is_zero() { Known::Nothing } else { Known::Kept(record, left) }
    }

    /// Publishes something when all that is to be written by now is.
    pub(in crate::cluster) fn then(&self, channel: String, message: Vec<u8>) {
        let mut state = self.lock();
        // Whoever is not answered goes on after a while.
        if state.then.len() < ANSWERS {
            state.then.push((channel, message));
            self.soon(state);
        }
    }

    /// Waits until something is to be written.
    pub(in crate::cluster) async fn due(&self) {
        loop {
            let next = {
                let state = self.lock();
                let refresh = (!state.here.is_empty()).then_some(state.refresh);
                [state.due, refresh].into_iter().flatten().min()
            };
            match next {
                Some(next) => tokio::select! {
                    () = sleep_until(next) => return,
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// What is to be written, and what is published after the last of it.
    pub(in crate::cluster) fn take(&self) -> (Vec<Write>, Vec<(String, Vec<u8>)>) {
        let now = Instant::now();
        let (mut writes, mut sources, then);
        {
            let mut state = self.lock();
            let keep = state.keep;
            if state.refresh <= now {
                state.aging = state.here.keys().cloned().collect();
                state.refresh = now + keep / 3;
            }
            writes = Vec::new();
            for (pid, gone) in state.gone.iter().take(BATCH) {
                let what = match &gone.record {
                    None => What::Delete,
                    Some(record) => What::Set(record.clone(), gone.until.saturating_duration_since(now), gone.had == Had::It),
                };
                writes.push(Write { pid: pid.clone(), what, is_unsure: gone.had == Had::Perhaps });
            }
            while writes.len() < 2 * BATCH
                && let Some(pid) = state.aging.pop()
            {
                // What is to be written anew is kept longer by that.
                match state.here.get(&pid) {
                    Some(here) if here.is_taken || state.dirty.contains(&pid) => {}
                    Some(here) if here.had == Had::It => {
                        writes.push(Write { pid, what: What::Refresh(keep), is_unsure: false });
                    }
                    // It was refused.
                    Some(_) => {
                        state.touch(&pid);
                    }
                    None => {}
                }
            }
            let pids: Vec<Pid> = state.dirty.iter().take(BATCH).cloned().collect();
            sources = Vec::new();
            for pid in pids {
                state.dirty.remove(&pid);
                if let Some(here) = state.here.get_mut(&pid) {
                    sources.push((pid, Arc::clone(&here.source), std::mem::replace(&mut here.had, Had::It)));
                }
            }
            let is_more = !state.dirty.is_empty() || !state.aging.is_empty() || state.gone.len() > BATCH;
            state.due = is_more.then_some(now);
            then = if is_more { Vec::new() } else { std::mem::take(&mut state.then) };
            // They lock what may be locked by whoever waits for this lock.
            drop(state);
            for (pid, source, had) in sources.drain(..) {
                if let Ok(record) = Record::encode(&source(), Some(&self.uid), &self.bounds) {
                    let what = What::Set(record, keep, had == Had::It);
                    writes.push(Write { pid, what, is_unsure: had == Had::Perhaps });
                }
            }
        }
        (writes, then)
    }

    /// What tells of a client that is here.
    pub(in crate::cluster) fn source(&self, pid: &Pid) -> Option<SessionSource> {
        self.lock().here.get(pid).map(|here| Arc::clone(&here.source))
    }

    /// What was taken was sent to Redis; this became of each.
    pub(in crate::cluster) fn written(&self, writes: &[Write], fates: &[Fate]) {
        self.metrics
            .sessions_written
            .add(fates.iter().filter(|fate| matches!(fate, Fate::Written | Fate::Missing)).count() as u64);
        let mut state = self.lock();
        let state = &mut *state;
        for (Write { pid, what, .. }, fate) in writes.iter().zip(fates) {
            match (fate, state.here.get_mut(pid)) {
                (Fate::Missing | Fate::Foreign, Some(here)) => {
                    here.is_taken = true;
                    state.dirty.remove(pid);
                }
                (Fate::Refused, Some(here)) => here.had = Had::Perhaps,
                _ => {}
            }
            let is_last = match (state.gone.get(pid), what) {
                (Some(Gone { record: Some(record), .. }), What::Set(written, ..)) => record == written,
                (Some(Gone { record: None, .. }), What::Delete) => true,
                _ => false,
            };
            if is_last {
                state.forget_gone(pid);
            }
        }
    }

    /// Redis has gone, and may have lost what was written.
    pub(in crate::cluster) fn close(&self) {
        let mut state = self.lock();
        state.here.values_mut().filter(|here| here.had == Had::It).for_each(|here| here.had = Had::Perhaps);
        // Whether they were handed over is not known.
        state.gone.values_mut().for_each(|gone| gone.had = Had::Perhaps);
        state.dirty = state.here.iter().filter(|(_, here)| !here.is_taken).map(|(pid, _)| pid.clone()).collect();
        state.aging.clear();
        state.forget_expired();
        state.then.clear();
        self.soon(state);
    }

    fn soon(&self, mut state: MutexGuard<'_, State>) {
        if state.due.is_none() {
            state.due = Some(Instant::now() + DELAY);
            drop(state);
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that can panic runs under this lock")
    }
}

impl State {
    /// `false` says that it was to be written already.
    fn touch(&mut self, pid: &Pid) -> bool {
        self.dirty.insert(pid.clone())
    }

    /// `false` says that there is no room.
    fn insert_gone(&mut self, pid: &Pid, gone: Gone) -> bool {
        // Not each time, while Redis is away and many go.
        if self.sweep <= Instant::now() {
            self.forget_expired();
        }
        let bytes = self.bytes + gone.weight(pid);
        if bytes > self.limit {
            return false;
        }
        self.bytes = bytes;
        self.gone.insert(pid.clone(), gone);
        true
    }

    fn forget_gone(&mut self, pid: &Pid) {
        if let Some(gone) = self.gone.remove(pid) {
            self.bytes -= gone.weight(pid);
        }
    }

    fn forget_expired(&mut self) {
        let now = Instant::now();
        self.gone.retain(|_, gone| gone.until > now);
        self.bytes = self.gone.iter().map(|(pid, gone)| gone.weight(pid)).sum();
        self.sweep = now + self.keep / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::sid::SocketId;
    use serde_json::value::RawValue;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use tokio::time::sleep;

    const KEEP: Duration = Duration::from_secs(120);

    #[tokio::test(start_paused = true)]
    async fn a_change_is_written_soon_and_only_over_what_is_there() {
        let (sessions, rooms) = (sessions(), Arc::new(AtomicUsize::new(1)));
        let began = Instant::now();
        begin(&sessions, "a", &rooms);
        assert_eq!(written(&sessions).await, ["a: 1 room"]);
        assert!(began.elapsed() < Duration::from_millis(100));
        let began = Instant::now();
        for _ in 0..5 {
            rooms.fetch_add(1, Relaxed);
            sessions.changed(&Pid::from("a"));
        }
        assert_eq!(written(&sessions).await, ["a: 6 rooms, if it is there"]);
        assert!(began.elapsed() < Duration::from_millis(100));
        // It lives on.
        assert_eq!(written(&sessions).await, ["a: longer"]);
        assert!(began.elapsed() < KEEP / 2);
        // After Redis was away it is not known what it has.
        sessions.close();
        assert_eq!(written(&sessions).await, ["a: unless another has it"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_gone_is_written_until_it_is_and_not_when_another_has_taken_it() {
        let (sessions, rooms) = (sessions(), Arc::new(AtomicUsize::new(1)));
        for pid in ["a", "b", "c"] {
            begin(&sessions, pid, &rooms);
            written(&sessions).await;
        }
        sessions.end(&session("a", 2));
        let (writes, _) = sessions.take();
        assert_eq!(writes.len(), 1);
        // It was not: Redis went away.
        sessions.close();
        sessions.forget(&Pid::from("b"));
        let mut all = written(&sessions).await;
        all.sort();
        assert_eq!(all, ["a", "b", "c"].map(|pid| format!("{pid}: unless another has it")));
        rooms.fetch_add(1, Relaxed);
        sessions.changed(&Pid::from("c"));
        sessions.due().await;
        let (writes, _) = sessions.take();
        sessions.written(&writes, &[Fate::Missing]);
        sessions.changed(&Pid::from("c"));
        sessions.end(&session("c", 3));
        assert!(sessions.take().0.is_empty());
        assert_eq!(sessions.lock().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_redis_refuses_is_tried_again_later_and_not_at_once() {
        let (sessions, rooms) = (sessions(), Arc::new(AtomicUsize::new(1)));
        begin(&sessions, "a", &rooms);
        sessions.end(&session("b", 1));
        sessions.due().await;
        let (writes, _) = sessions.take();
        sessions.written(&writes, &vec![Fate::Refused; writes.len()]);
        assert_eq!((writes.len(), sessions.metrics.sessions_written.get()), (2, 0));
        // Who has gone is nobody's any more.
        assert_eq!(kept(&sessions), (0, 0));
        let began = Instant::now();
        assert_eq!(written(&sessions).await, ["a: unless another has it"]);
        assert!(began.elapsed() > KEEP / 4);
        assert_eq!(written(&sessions).await, ["a: longer"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded() {
        let sessions = sessions();
        sessions.open(KEEP, 300);
        (0..10).for_each(|number| sessions.end(&session(&number.to_string(), 1)));
        let (kept, _) = kept(&sessions);
        assert!((1..10).contains(&kept), "{kept}");
        assert_eq!(sessions.metrics.limit_recovery.get() as usize, 10 - kept);
        // Those whose time is over make room, and leave none behind.
        sleep(KEEP).await;
        sessions.end(&session("late", 1));
        assert_eq!(sessions.lock().gone.len(), 1);
        sessions.lock().forget_gone(&Pid::from("late"));
        assert_eq!(sessions.lock().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_are_sent_away_while_redis_is_gone_do_not_heap_up() {
        let sessions = sessions();
        sessions.open(KEEP, 2_000);
        for number in 0..100 {
            let rooms = Arc::new(AtomicUsize::new(1));
            let pid: &'static str = Box::leak(number.to_string().into_boxed_str());
            begin(&sessions, pid, &rooms);
            if number >= 50 {
                sessions.take();
            }
            sessions.forget(&Pid::from(pid));
            // Of whom Redis has never heard nothing is to be deleted.
            assert!(number >= 50 || kept(&sessions) == (0, 0));
        }
        let (count, bytes) = kept(&sessions);
        assert!(count > 0 && bytes <= 2_000, "{count} {bytes}");
        assert!(sessions.metrics.limit_recovery.get() > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whom_another_node_has_after_an_outage_is_its_own() {
        let (sessions, rooms) = (sessions(), Arc::new(AtomicUsize::new(1)));
        begin(&sessions, "a", &rooms);
        begin(&sessions, "b", &rooms);
        written(&sessions).await;
        sessions.close();
        sessions.end(&session("b", 1));
        sessions.due().await;
        let (writes, _) = sessions.take();
        assert!(writes.len() == 2 && writes.iter().all(|write| write.is_unsure));
        sessions.written(&writes, &[Fate::Foreign; 2]);
        assert!(sessions.source(&Pid::from("a")).is_some());
        sessions.changed(&Pid::from("a"));
        sessions.end(&session("a", 1));
        assert_eq!((sessions.take().0.len(), sessions.lock().bytes), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_follows_what_is_written() {
        let sessions = sessions();
        sessions.end(&session("a", 1));
        sessions.then("channel".to_owned(), Vec::new());
        sessions.due().await;
        let (writes, then) = sessions.take();
        assert_eq!((writes.len(), then.len()), (1, 1));
        assert!(matches!(sessions.claim("a"), Known::Kept(_, left) if left > KEEP / 2));
        assert_eq!(sessions.claim("a"), Known::Nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_sent_away_does_not_come_back_before_redis_knows() {
        let sessions = sessions();
        begin(&sessions, "a", &Arc::new(AtomicUsize::new(1)));
        written(&sessions).await;
        sessions.forget(&Pid::from("a"));
        let bytes = sessions.lock().bytes;
        assert_eq!([sessions.claim("a"), sessions.claim("a")], [Known::Gone, Known::Gone]);
        assert_eq!(sessions.lock().bytes, bytes);
        assert_eq!(written(&sessions).await, ["a: no more"]);
        assert_eq!(sessions.claim("a"), Known::Nothing);
    }

    fn sessions() -> Sessions {
        let bounds = Bounds { bytes: 10_000, rooms: 100, attachments: 10 };
        let sessions = Sessions::new("sio:session:".to_owned(), "me".to_owned(), bounds, Arc::default());
        sessions.open(KEEP, 1_000_000);
        sessions
    }

    /// How many have gone, and what they take.
    fn kept(sessions: &Sessions) -> (usize, usize) {
        let state = sessions.lock();
        (state.gone.len(), state.bytes)
    }

    fn begin(sessions: &Sessions, pid: &'static str, rooms: &Arc<AtomicUsize>) {
        let rooms = Arc::clone(rooms);
        sessions.begin(&Pid::from(pid), Arc::new(move || session(pid, rooms.load(Relaxed))));
    }

    fn session(pid: &str, rooms: usize) -> ArchivedSession {
        ArchivedSession {
            namespace: None,
            sid: SocketId::from("s"),
            pid: Pid::from(pid),
            rooms: (0..rooms).map(|room| room.to_string().into()).collect(),
            data: RawValue::from_string("{}".to_owned()).expect("an object").into(),
            start: None,
        }
    }

    async fn written(sessions: &Sessions) -> Vec<String> {
        sessions.due().await;
        let (writes, _) = sessions.take();
        let shown = |Write { pid, what, is_unsure }: &Write| match what {
            _ if *is_unsure => format!("{}: unless another has it", pid.as_str()),
            What::Delete => format!("{}: no more", pid.as_str()),
            What::Refresh(_) => format!("{}: longer", pid.as_str()),
            What::Set(record, _, is_there) => {
                let rooms = Record::decode(record.as_bytes(), &sessions.bounds).expect("a record").session.rooms.len();
                let if_there = if *is_there { ", if it is there" } else { "" };
                format!("{}: {rooms} room{}{if_there}", pid.as_str(), if rooms == 1 { "" } else { "s" })
            }
        };
        let all = writes.iter().map(shown).collect();
        sessions.written(&writes, &vec![Fate::Written; writes.len()]);
        all
    }
}
