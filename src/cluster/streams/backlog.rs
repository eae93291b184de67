//! What this node writes to the streams, until it is read again: bounded, in order, and neither lost nor written twice when Redis goes away.

use super::super::wire::Entry;
use crate::metrics::Metrics;
use crate::reminder::Reminder;
use bytes::Bytes;
use std::collections::VecDeque;
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

#[derive(Debug)]
struct Waiting {
    fields: Fields,
    weight: usize,
}

/// The fields of an entry.
pub(in crate::cluster) type Fields = [(&'static str, Bytes); 4];

impl Backlog {
    pub(super) fn new(streams: usize, limit: usize, metrics: Arc<Metrics>) -> Self {
        let state = State { streams: (0..streams).map(|_| Stream::default()).collect(), ..State::default() };
        Self { state: state.into(), filled: Notify::new(), limit, metrics, full: Reminder::default() }
    }

    /// Lines an entry up, even while Redis is away; what there is no room for is dropped and counted, which `false` says.
    pub(in crate::cluster) fn push(&self, place: usize, entry: &Entry) -> bool {
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
        state.streams[place].waiting.push_back(Waiting { fields, weight });
        drop(state);
        self.filled.notify_one();
        true
    }

    /// All that Redis has was read: what is left of the unsure was not written, and goes first.
    pub(in crate::cluster) fn open(&self) {
        let mut state = self.lock();
        state.streams.iter_mut().for_each(|stream| stream.unsure = 0);
        state.is_open = true;
        drop(state);
        self.filled.notify_one();
    }

    /// Redis has gone, perhaps with what it was handed.
    pub(in crate::cluster) fn close(&self) {
        let mut state = self.lock();
        state.is_open = false;
        for stream in &mut state.streams {
            stream.unsure += std::mem::take(&mut stream.written);
        }
    }

    /// An entry of this node's was read: it is the oldest of those that were written.
    pub(in crate::cluster) fn read(&self, place: usize) {
        let mut state = self.lock();
        let stream = &mut state.streams[place];
        // One of an earlier process has the name of that process.
        if stream.unsure > 0 {
            stream.unsure -= 1;
        } else if stream.written > 0 {
            stream.written -= 1;
        } else {
            return;
        }
        if let Some(Waiting { weight, .. }) = stream.waiting.pop_front() {
            state.bytes -= weight;
        }
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

    /// The next entries, if there are any.
    pub(in crate::cluster) fn take(&self) -> Vec<(usize, Fields)> {
        let mut state = self.lock();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        if !state.is_open {
            return batch;
        }
        for (place, stream) in state.streams.iter_mut().enumerate() {
            while batch.len() < BATCH_ENTRIES
                && let Some(Waiting { fields, weight }) = stream.waiting.get(stream.written)
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

    #[test]
    fn what_a_redis_that_went_away_has_is_not_written_again() {
        let backlog = Backlog::new(1, usize::MAX, Arc::default());
        (0..5).for_each(|number| assert!(push(&backlog, 0, number)));
        assert!(backlog.take().is_empty());
        backlog.open();
        assert_eq!(taken(&backlog), ["0", "1", "2", "3", "4"]);
        backlog.read(0);
        backlog.close();
        push(&backlog, 0, 5);
        assert!(backlog.take().is_empty());
        // It is back, and has 1 and 2.
        backlog.read(0);
        backlog.read(0);
        backlog.open();
        assert_eq!(taken(&backlog), ["3", "4", "5"]);
        (0..3).for_each(|_| backlog.read(0));
        assert_eq!(backlog.lock().bytes, 0);
        // What is read too often is nobody's.
        backlog.read(0);
        push(&backlog, 0, 6);
        assert_eq!(taken(&backlog), ["6"]);
    }

    #[test]
    fn what_waits_is_bounded_and_the_rest_is_counted() {
        let backlog = Backlog::new(1, usize::MAX, Arc::default());
        push(&backlog, 0, 0);
        let one = backlog.lock().bytes;
        let backlog = Backlog::new(1, 3 * one, Arc::default());
        (0..5).for_each(|number| assert_eq!(push(&backlog, 0, number), number < 3));
        assert_eq!((backlog.metrics.cluster_unsent.get(), backlog.metrics.limit_cluster_outbox.get()), (2, 2));
        backlog.open();
        // Written is not read.
        assert_eq!(backlog.take().len(), 3);
        assert!(!push(&backlog, 0, 5));
        backlog.read(0);
        assert!(push(&backlog, 0, 5));
    }

    #[test]
    fn streams_do_not_wait_for_each_other() {
        let backlog = Backlog::new(3, usize::MAX, Arc::default());
        for place in [0, 2, 0] {
            push(&backlog, place, place);
        }
        backlog.open();
        assert_eq!(backlog.take().iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 0, 2]);
        backlog.read(2);
        backlog.close();
        backlog.open();
        assert_eq!(backlog.take().iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 0]);
    }

    fn push(backlog: &Backlog, place: usize, number: usize) -> bool {
        let bounds = Bounds { bytes: 1_000, rooms: 10, attachments: 10 };
        let (target, flags, args) = (Target::default(), Flags::default(), Args::none());
        let name = number.to_string();
        let action = Action::Emit { target: &target, flags: &flags, event: &name, args: &args };
        let entry = Entry::of("me", &"/".into(), action, &bounds).expect("short").expect("for a stream");
        backlog.push(place, &entry)
    }

    fn taken(backlog: &Backlog) -> Vec<String> {
        let name = |fields: &Fields| {
            let data: serde_json::Value = serde_json::from_slice(&fields[3].1).expect("JSON");
            data["packet"]["data"][0].as_str().expect("a name").to_owned()
        };
        backlog.take().iter().map(|(_, fields)| name(fields)).collect()
    }
}
