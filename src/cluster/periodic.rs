//! Tasks that come round, each of them on exactly one node of a cluster at a time.

use super::lease::{Answer, Lease};
use super::redis::Redis;
use crate::metrics::Metrics;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The shortest period; Redis is asked once in each.
const SHORTEST: Duration = Duration::from_millis(100);

/// A task that comes round once in each period, on exactly one node of the cluster; see [`Server::periodic`](crate::Server::periodic).
pub struct Periodic {
    name: String,
    period: Duration,
    task: Box<dyn Fn(Turn) -> Work + Send + Sync>,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One period of a task, which no other node has.
///
/// The node that has it may stand still, without noticing, until another one has the next. Whoever hands its results to a third party sends the
/// [`token`](Turn::token) along, and that party refuses one that is smaller than the largest it has seen.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Periods since the epoch, by Redis's clock: each number comes once, and later ones are larger.
    pub number: u64,
    /// Larger with every node that takes the task over.
    pub token: u64,
    until: watch::Receiver<Instant>,
}

impl Turn {
    /// Whether the task is still this node's.
    pub fn is_mine(&self) -> bool {
        Instant::now() < *self.until.borrow()
    }
}

impl Periodic {
    /// Names a task; the same name and period are given on every node.
    ///
    /// # Panics
    /// The period is shorter than 100 ms.
    pub fn new<F>(name: impl Into<String>, period: Duration, task: impl Fn(Turn) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        assert!(period >= SHORTEST, "a period of less than 100 ms");
        Self { name: name.into(), period, task: Box::new(move |turn| Box::pin(task(turn))) }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Carries it out whenever it is this node's turn, until it is to stop; a node without a cluster has every turn.
    pub async fn run(self, redis: Option<Arc<Redis>>, metrics: Arc<Metrics>, stop: CancellationToken) {
        let mut lease = Lease::new(redis, &self.name, self.period);
        let until = watch::Sender::new(Instant::now());
        let mut running: Option<JoinHandle<()>> = None;
        let mut token = None;
        loop {
            let Some(Answer { held, turn, again }) = stop.run_until_cancelled(lease.ask()).await else { break };
            if let Some(held) = held {
                until.send_replace(held.until);
                if token != Some(held.token) {
                    tracing::info!(task = self.name, token = held.token, "this node does it from now on");
                    token = Some(held.token);
                }
            }
            if let (Some(number), Some(token)) = (turn, token) {
                if running.as_ref().is_some_and(|running| !running.is_finished()) {
                    metrics.turns_skipped.inc();
                } else {
                    metrics.turns.inc();
                    let turn = Turn { number, token, until: until.subscribe() };
                    running = Some(tokio::spawn(self.take(turn, Arc::clone(&metrics), stop.clone())));
                }
            }
            if stop.run_until_cancelled(sleep_until(again)).await.is_none() {
                break;
            }
        }
        // The next node may begin as soon as it is told.
        if let Some(running) = running {
            let _ = running.await;
        }
        lease.release().await;
    }

    /// One turn, which ends with the lease at the latest.
    fn take(&self, turn: Turn, metrics: Arc<Metrics>, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let (name, number, mut until) = (self.name.clone(), turn.number, turn.until.clone());
        let mut task = tokio::spawn((self.task)(turn));
        async move {
            loop {
                let end = *until.borrow_and_update();
                // For its end, for the lease to be renewed, for the end of that, and for ours.
                tokio::select! {
                    ended = &mut task => {
                        if ended.is_err_and(|error| error.is_panic()) {
                            metrics.handler_panics.inc();
                            tracing::error!(task = name, number, "a periodic task panicked");
                        }
                        return;
                    }
                    Ok(()) = until.changed() => continue,
                    () = sleep_until(end) => {
                        metrics.turns_cut.inc();
                        tracing::warn!(task = name, number, "Redis does not say whose it is any more, so it was broken off");
                    }
                    () = stop.cancelled() => {}
                }
                task.abort();
                let _ = task.await;
                return;
            }
        }
    }
}

impl fmt::Debug for Periodic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Periodic").field("name", &self.name).field("period", &self.period).finish_non_exhaustive()
    }
}
