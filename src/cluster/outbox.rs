//! What waits to be published: bounded, and nothing at all while Redis is away.

use crate::metrics::Metrics;
use crate::reminder::Reminder;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::Notify;

/// What one round trip takes at most, unless a single message is longer.
const BATCH_BYTES: usize = 1024 * 1024;
const BATCH_MESSAGES: usize = 1_000;

/// A message for a channel.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) channel: String,
    pub(super) payload: Vec<u8>,
}

impl Publication {
    fn weight(&self) -> usize {
        self.channel.len() + self.payload.len() + size_of::<Self>()
    }
}

/// What waits to be published.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    limit: usize,
    metrics: Arc<Metrics>,
    full: Reminder,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Publication>,
    bytes: usize,
    is_open: bool,
}

impl Outbox {
    pub(super) fn new(limit: usize, metrics: Arc<Metrics>) -> Self {
        Self { queue: Mutex::default(), filled: Notify::new(), limit, metrics, full: Reminder::default() }
    }

    /// Lines a message up; what there is no way or no room for is dropped and counted, which `false` says.
    pub(super) fn push(&self, publication: Publication) -> bool {
        let mut queue = self.lock();
        if !queue.is_open {
            drop(queue);
            self.metrics.cluster_unsent.inc();
            return false;
        }
        let bytes = queue.bytes + publication.weight();
        if bytes > self.limit {
            drop(queue);
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
        queue.bytes = bytes;
        queue.waiting.push_back(publication);
        drop(queue);
        self.filled.notify_one();
        true
    }

    /// Messages are taken from now on.
    pub(super) fn open(&self) {
        self.lock().is_open = true;
    }

    /// Drops what waits, and whatever comes.
    pub(super) fn close(&self) {
        let dropped = std::mem::take(&mut *self.lock()).waiting.len();
        self.metrics.cluster_unsent.add(dropped as u64);
    }

    /// The next messages, as soon as there are any.
    pub(super) async fn next(&self) -> Vec<Publication> {
        loop {
            let batch = self.take();
            if !batch.is_empty() {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    /// The next messages, if there are any.
    pub(super) fn take(&self) -> Vec<Publication> {
        let mut queue = self.lock();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_MESSAGES
            && let Some(weight) = queue.waiting.front().map(Publication::weight)
            && (batch.is_empty() || bytes + weight <= BATCH_BYTES)
        {
            bytes += weight;
            batch.extend(queue.waiting.pop_front());
        }
        queue.bytes -= bytes;
        batch
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no code that can panic runs under this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_waits_for_a_redis_that_is_away() {
        let outbox = Outbox::new(1_000_000, Arc::default());
        outbox.push(message(1));
        assert!(outbox.take().is_empty());
        outbox.open();
        outbox.push(message(1));
        outbox.push(message(1));
        outbox.close();
        outbox.push(message(1));
        outbox.open();
        assert!(outbox.take().is_empty());
        assert_eq!(outbox.metrics.cluster_unsent.get(), 4);
    }

    #[test]
    fn what_waits_is_bounded_and_the_rest_is_counted() {
        let one = message(100).weight();
        let outbox = Outbox::new(3 * one, Arc::default());
        outbox.open();
        (0..5).for_each(|number| assert_eq!(outbox.push(message(100)), number < 3));
        assert_eq!((outbox.metrics.cluster_unsent.get(), outbox.metrics.limit_cluster_outbox.get()), (2, 2));
        assert_eq!(outbox.take().len(), 3);
        outbox.push(message(100));
        assert_eq!(outbox.take().len(), 1);
    }

    #[test]
    fn a_round_trip_takes_no_more_than_it_should() {
        let outbox = Outbox::new(usize::MAX, Arc::default());
        outbox.open();
        for size in [2 * BATCH_BYTES, BATCH_BYTES / 2, BATCH_BYTES / 2, 1] {
            outbox.push(message(size));
        }
        let sizes: Vec<_> = (0..3).map(|_| outbox.take().len()).collect();
        assert_eq!(sizes, [1, 1, 2]);
        assert!((0..=BATCH_MESSAGES).all(|_| outbox.push(message(0))));
        assert_eq!([outbox.take().len(), outbox.take().len()], [BATCH_MESSAGES, 1]);
    }

    fn message(size: usize) -> Publication {
        Publication { channel: "c".to_owned(), payload: vec![0; size] }
    }
}
