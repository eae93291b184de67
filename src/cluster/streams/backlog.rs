//! What this node writes to the streams, until it is read again: bounded, in order, and neither lost nor written twice when Redis goes away.

use super::super::wire::Entry;
use crate::metrics::Metrics;
use crate::reminder::Reminder;
use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::Notify;

/// What one round trip takes at most, unless a single entry is longer.
const BATCH_BYTES: usize = 1024 * 1024;
const BATCH_ENTRIES: usize = 1_000;

/// What this node writes to the streams.
#[derive(Debug)]
pub(in crate::cluster) struct Backlog {
    state: Mutex<State>,
    filled: Notify,
    limit: usize,
    /// So many entries of a stream are handed out at most before this node has read them, because Redis may forget what is behind that.
    ahead: usize,
    metrics: Arc<Metrics>,
    full: Reminder,
}

#[derive(Debug, Default)]
struct State {
    streams: Vec<Stream>,
    bytes: usize,
    is_open: bool,
}

#[derive(Debug, Default)]
struct Stream {
    /// In the order in which they were said.
    waiting: VecDeque<Waiting>,
    /// So many of them, the first ones, were handed to Redis and not read again.
    written: usize,
    /// Of those, so many were handed to a Redis that went away: whether they are there is known when what is there was read.
    unsure: usize,
}

struct Waiting {
    fields: Fields,
    weight: usize,
    /// This node does what it says when it is read, like everybody else.
    is_pending: bool,
    /// What is done behind it.
    then: Vec<Act>,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("weight", &self.weight).field("is_pending", &self.is_pending).finish_non_exhaustive()
    }
}

/// Something to be done.
pub(in crate::cluster) type Act = Box<dyn FnOnce() + Send>;

/// What is to be done on this node now: what an entry says, if that was not done before, and what is done behind it.
#[derive(Default)]
pub(in crate::cluster) struct Turn {
    pub(in crate::cluster) entry: Option<Fields>,
    pub(in crate::cluster) then: Vec<Act>,
}

/// The fields of an entry.
pub(in crate::cluster) type Fields = [(&'static str, Bytes); 4];

impl Backlog {
    /// For so many streams that keep so many entries each; `limit` bytes may wait.
    pub(super) fn new(streams: usize, length: usize, limit: usize, metrics: Arc<Metrics>) -> Self {
        let state = State { streams: (0..streams).map(|_| Stream::default()).collect(), ..State::default() };
        let ahead = (length / 2).max(1);
        Self { state: state.into(), filled: Notify::new(), limit, ahead, metrics, full: Reminder::default() }
    }

    /// Lines an entry up, even while Redis is away; what there is no room for is dropped and counted.
    pub(in crate::cluster) fn push(&self, place: usize, entry: &Entry) {
        self.line_up(place, entry, false);
    }

    /// Lines an entry up for this node, too; `false` says that it will not hear of it, because Redis is away or there is no room.
    pub(in crate::cluster) fn record(&self, place: usize, entry: &Entry) -> bool {
        self.line_up(place, entry, true)
    }

    /// Does something behind the last entry that this node is still to hear of; now, if there is none, or no room for what it holds.
    pub(in crate::cluster) fn after(&self, place: usize, bytes: usize, act: Act) {
        let mut state = self.lock();
        let State { streams, bytes: held, .. } = &mut *state;
        let weight = bytes + size_of::<Act>();
        match streams[place].waiting.iter_mut().rev().find(|waiting| waiting.is_pending) {
            Some(last) if *held + weight <= self.limit => {
                *held += weight;
                last.weight += weight;
                last.then.push(act);
            }
            _ => {
                drop(state);
                act();
            }
        }
    }

    fn line_up(&self, place: usize, entry: &Entry, is_wanted: bool) -> bool {
        let fields = entry.fields();
        let weight = fields.iter().map(|(_, value)| value.len()).sum::<usize>() + size_of::<Waiting>();
        let mut state = self.lock();
        if state.bytes + weight > self.limit {
            drop(state);
            self.metrics.limit_cluster_outbox.inc();
            self.metrics.cluster_unsent.inc();
            if self.full.is_due(Instant::now()) {
                tracing::warn!(
                    limit = self.limit,
                    "Redis takes messages slower than they come, and limits.cluster_outbox_bytes is reached"
                );
            }
            return false;
        }
        state.bytes += weight;
        let is_pending = is_wanted && state.is_open;
        state.streams[place].waiting.push_back(Waiting { fields, weight, is_pending, then: Vec::new() });
        drop(state);
        self.filled.notify_one();
        is_pending
    }

    /// All that Redis has was read: what is left of the unsure was not written, and goes first.
    pub(in crate::cluster) fn open(&self) {
        let mut state = self.lock();
        state.streams.iter_mut().for_each(|stream| stream.unsure = 0);
        state.is_open = true;
        drop(state);
        self.filled.notify_one();
    }

    /// Redis has gone, perhaps with what it was handed; what this node was still to hear of it is not to wait for.
    pub(in crate::cluster) fn close(&self) -> Vec<Turn> {
        let mut state = self.lock();
        state.is_open = false;
        let mut turns = Vec::new();
        for stream in &mut state.streams {
            stream.unsure += std::mem::take(&mut stream.written);
            for waiting in stream.waiting.iter_mut().filter(|waiting| waiting.is_pending) {
                waiting.is_pending = false;
                turns.push(Turn { entry: Some(waiting.fields.clone()), then: std::mem::take(&mut waiting.then) });
            }
        }
        turns
    }

    /// An entry of this node's was read. Its turn is the last; before it comes that of each older one, which Redis had and forgot before it was read here.
    pub(in crate::cluster) fn read(&self, place: usize, entry: &[(Bytes, Bytes)]) -> Vec<Turn> {
        let mut state = self.lock();
        let stream = &mut state.streams[place];
        let sent = if stream.unsure > 0 { &mut stream.unsure } else { &mut stream.written };
        let is_it = |waiting: &Waiting| {
            waiting
                .fields
                .iter()
                .map(|(name, value)| (name.as_bytes(), value))
                .eq(entry.iter().map(|(name, value)| (&**name, value)))
        };
        // What was not sent is nobody's: an entry that Redis has twice, or that somebody wrote in this node's name.
        let Some(found) = stream.waiting.iter().take(*sent).position(is_it) else { return Vec::new() };
        let is_held_up = *sent >= self.ahead;
        *sent -= found + 1;
        let read: Vec<_> = stream.waiting.drain(..=found).collect();
        state.bytes -= read.iter().map(|waiting| waiting.weight).sum::<usize>();
        drop(state);
        if is_held_up {
            self.filled.notify_one();
        }
        let turn = |Waiting { fields, is_pending, then, .. }| Turn { entry: is_pending.then_some(fields), then };
        read.into_iter().map(turn).collect()
    }

    /// The next entries with the places of their streams, as soon as there are any.
    pub(in crate::cluster) async fn next(&self) -> Vec<(usize, Fields)> {
        loop {
            let batch = self.take();
            if !batch.is_empty() {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    /// The next entries, if there are any and this node has read enough of those before.
    pub(in crate::cluster) fn take(&self) -> Vec<(usize, Fields)> {
        self.hand_out(self.ahead)
    }

    /// The next entries, if there are any, for a node that is about to leave and has read enough.
    pub(in crate::cluster) fn take_last(&self) -> Vec<(usize, Fields)> {
        self.hand_out(usize::MAX)
    }

    fn hand_out(&self, ahead: usize) -> Vec<(usize, Fields)> {
        let mut state = self.lock();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        if !state.is_open {
            return batch;
        }
        for (place, stream) in state.streams.iter_mut().enumerate() {
            while batch.len() < BATCH_ENTRIES
                && stream.written < ahead
                && let Some(Waiting { fields, weight, .. }) = stream.waiting.get(stream.written)
                && (batch.is_empty() || bytes + weight <= BATCH_BYTES)
            {
                bytes += weight;
                batch.push((place, fields.clone()));
                stream.written += 1;
            }
        }
        batch
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that can panic runs under this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire::Bounds;
    use crate::hub::{Action, Args, Flags, Target};
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[test]
    fn what_a_redis_that_went_away_has_is_not_written_again() {
        let backlog = Backlog::new(1, 1_000, usize::MAX, Arc::default());
        (0..5).for_each(|number| push(&backlog, 0, number));
        assert!(backlog.take().is_empty());
        backlog.open();
        assert_eq!(taken(&backlog), ["0", "1", "2", "3", "4"]);
        read(&backlog, 0, 0);
        backlog.close();
        push(&backlog, 0, 5);
        assert!(backlog.take().is_empty());
        // It is back, and has 1 and 2.
        read(&backlog, 0, 1);
        read(&backlog, 0, 2);
        backlog.open();
        assert_eq!(taken(&backlog), ["3", "4", "5"]);
        (3..6).for_each(|number| drop(read(&backlog, 0, number)));
        assert_eq!(backlog.lock().bytes, 0);
        // What is read too often is nobody's.
        assert!(read(&backlog, 0, 5).is_empty());
        push(&backlog, 0, 6);
        assert_eq!(taken(&backlog), ["6"]);
    }

    #[test]
    fn what_waits_is_bounded_and_the_rest_is_counted() {
        let backlog = Backlog::new(1, 1_000, usize::MAX, Arc::default());
        push(&backlog, 0, 0);
        let one = backlog.lock().bytes;
        let backlog = Backlog::new(1, 1_000, 3 * one, Arc::default());
        (0..5).for_each(|number| push(&backlog, 0, number));
        assert_eq!((backlog.metrics.cluster_unsent.get(), backlog.metrics.limit_cluster_outbox.get()), (2, 2));
        backlog.open();
        // Written is not read.
        assert_eq!(backlog.take().len(), 3);
        push(&backlog, 0, 5);
        assert!(backlog.take().is_empty());
        read(&backlog, 0, 0);
        push(&backlog, 0, 5);
        assert_eq!(backlog.take().len(), 1);
    }

    #[test]
    fn what_is_to_be_done_then_waits_within_the_same_bound() {
        let done = Arc::new(AtomicUsize::new(0));
        let act = || {
            let done = Arc::clone(&done);
            Box::new(move || {
                done.fetch_add(1, Relaxed);
            }) as Act
        };
        let backlog = Backlog::new(1, 1_000, 10_000, Arc::default());
        backlog.open();
        assert!(backlog.record(0, &entry(0)));
        (0..100).for_each(|_| backlog.after(0, 1_000, act()));
        assert_eq!(done.load(Relaxed), 91);
        assert_eq!(taken(&backlog), ["0"]);
        assert_eq!(read(&backlog, 0, 0).remove(0).then.len(), 9);
        assert_eq!(backlog.lock().bytes, 0);
    }

    #[test]
    fn what_redis_forgot_before_it_was_read_moves_nothing() {
        let backlog = Backlog::new(1, 1_000, usize::MAX, Arc::default());
        backlog.open();
        (0..6).for_each(|number| assert!(backlog.record(0, &entry(number))));
        assert_eq!(taken(&backlog).len(), 6);
        let names = |turns: Vec<Turn>| turns.iter().map(|turn| name(turn.entry.as_ref().expect("one"))).collect::<Vec<_>>();
        assert_eq!(names(read(&backlog, 0, 0)), ["0"]);
        assert_eq!(names(read(&backlog, 0, 3)), ["1", "2", "3"]);
        // Somebody else has this node's name.
        assert!(read(&backlog, 0, 9).is_empty());
        assert_eq!(names(read(&backlog, 0, 4)), ["4"]);
        // The same when Redis went away meanwhile.
        push(&backlog, 0, 6);
        assert_eq!(taken(&backlog), ["6"]);
        backlog.close();
        assert_eq!(read(&backlog, 0, 6).len(), 2);
        assert_eq!(backlog.lock().bytes, 0);
    }

    #[tokio::test]
    async fn no_more_is_handed_out_than_redis_keeps_until_it_is_read() {
        let backlog = Backlog::new(2, 6, usize::MAX, Arc::default());
        backlog.open();
        (0..5).for_each(|number| push(&backlog, 0, number));
        push(&backlog, 1, 0);
        assert_eq!(taken(&backlog), ["0", "1", "2", "0"]);
        let read = async {
            assert_eq!(read(&backlog, 0, 1).len(), 2);
        };
        let (next, ()) = tokio::join!(backlog.next(), read);
        assert_eq!(next.iter().map(|(_, fields)| name(fields)).collect::<Vec<_>>(), ["3", "4"]);
        push(&backlog, 0, 5);
        assert!(backlog.take().is_empty());
        assert_eq!(backlog.take_last().len(), 1);
    }

    #[test]
    fn this_node_hears_what_it_records_in_its_turn_and_at_once_when_redis_goes() {
        let backlog = Backlog::new(1, 1_000, usize::MAX, Arc::default());
        let done = Arc::new(Mutex::new(Vec::new()));
        let act = |name: &'static str| {
            let done = Arc::clone(&done);
            Box::new(move || done.lock().expect("one thread").push(name)) as Act
        };
        assert!(!backlog.record(0, &entry(0)));
        backlog.open();
        assert_eq!(taken(&backlog), ["0"]);
        backlog.after(0, 0, act("nothing to wait for"));
        assert!(backlog.record(0, &entry(1)));
        backlog.after(0, 100, act("behind 1"));
        assert!(backlog.record(0, &entry(2)));
        backlog.after(0, 0, act("behind 2"));
        assert_eq!(taken(&backlog), ["1", "2"]);
        assert!(read(&backlog, 0, 0).iter().all(|turn| turn.entry.is_none()));
        let turn = read(&backlog, 0, 1).remove(0);
        assert!(turn.entry.is_some());
        turn.then.into_iter().for_each(|act| act());
        assert_eq!(*done.lock().expect("one thread"), ["nothing to wait for", "behind 1"]);
        let turns = backlog.close();
        assert_eq!(turns.iter().map(|turn| name(turn.entry.as_ref().expect("one"))).collect::<Vec<_>>(), ["2"]);
        turns.into_iter().flat_map(|turn| turn.then).for_each(|act| act());
        assert_eq!(done.lock().expect("one thread").len(), 3);
        // It is there after all, and is not heard twice.
        assert!(read(&backlog, 0, 2)[0].entry.is_none());
        assert_eq!(backlog.lock().bytes, 0);
    }

    #[test]
    fn streams_do_not_wait_for_each_other() {
        let backlog = Backlog::new(3, 1_000, usize::MAX, Arc::default());
        for place in [0, 2, 0] {
            push(&backlog, place, place);
        }
        backlog.open();
        assert_eq!(backlog.take().iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 0, 2]);
        read(&backlog, 2, 2);
        backlog.close();
        backlog.open();
        assert_eq!(backlog.take().iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 0]);
    }

    fn push(backlog: &Backlog, place: usize, number: usize) {
        backlog.push(place, &entry(number));
    }

    /// It is read as Redis hands it out.
    fn read(backlog: &Backlog, place: usize, number: usize) -> Vec<Turn> {
        let fields = entry(number).fields().map(|(name, value)| (Bytes::from_static(name.as_bytes()), value));
        backlog.read(place, &fields)
    }

    fn entry(number: usize) -> Entry {
        let bounds = Bounds { bytes: 1_000, rooms: 10, attachments: 10 };
        let (target, flags, args) = (Target::default(), Flags::default(), Args::none());
        let name = number.to_string();
        let action = Action::Emit { target: &target, flags: &flags, event: &name, args: &args };
        Entry::of("me", &"/".into(), action, &bounds).expect("short").expect("for a stream")
    }

    fn taken(backlog: &Backlog) -> Vec<String> {
        backlog.take().iter().map(|(_, fields)| name(fields)).collect()
    }

    fn name(fields: &Fields) -> String {
        let data: serde_json::Value = serde_json::from_slice(&fields[3].1).expect("JSON");
        data["packet"]["data"][0].as_str().expect("a name").to_owned()
    }
}
