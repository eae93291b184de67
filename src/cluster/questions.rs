//! Questions to the other nodes: who has answered, and until when the others are waited for.

use super::members::Expected;
use super::wire::{Answer, Response};
use crate::hub::{ClusterReply, Missing};
use crate::metrics::Metrics;
use crate::reminder::Reminder;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// What an answer costs beside its bytes.
const OVERHEAD: usize = 256;

/// The questions that are open.
#[derive(Debug)]
pub(super) struct Questions {
    open: Mutex<HashMap<String, Open>>,
    /// Bytes that the answers to one question may have.
    limit: usize,
    metrics: Arc<Metrics>,
    many: Reminder,
}

/// The way to who has asked.
#[derive(Debug)]
struct Open {
    sender: mpsc::UnboundedSender<Reply>,
    left: usize,
}

/// What one node says.
type Reply = (Option<String>, Answer);

impl Questions {
    pub(super) fn new(limit: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), limit, metrics, many: Reminder::default() })
    }

    /// Opens a question, which is closed when it is dropped.
    pub(super) fn open(self: &Arc<Self>, id: String, deadline: Instant) -> Question {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().insert(id.clone(), Open { sender, left: self.limit });
        Question { questions: Arc::clone(self), id, receiver, deadline }
    }

    /// Whether an answer to it is still waited for.
    pub(super) fn is_open(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    /// A response of so many bytes has come; nobody may wait for it any more.
    pub(super) fn answer(&self, response: Response<'_>, bytes: usize) {
        let mut open = self.lock();
        let Some(question) = open.get_mut(&*response.id) else { return };
        if let Some(left) = question.left.checked_sub(bytes.saturating_add(OVERHEAD)) {
            question.left = left;
            // One that has just been closed.
            let _ = question.sender.send((response.sender.map(Into::into), response.body));
            return;
        }
        drop(open);
        self.metrics.limit_cluster_reply.inc();
        if self.many.is_due(std::time::Instant::now()) {
            tracing::warn!(limit = self.limit, "the other nodes answer more than limits.cluster_reply_bytes allows");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock().expect("no code that can panic runs under this lock")
    }
}

/// A question that is open.
#[derive(Debug)]
pub(super) struct Question {
    questions: Arc<Questions>,
    pub(super) id: String,
    receiver: mpsc::UnboundedReceiver<Reply>,
    deadline: Instant,
}

impl Question {
    /// The next that somebody says; `None` when the time is over.
    pub(super) async fn next(&mut self) -> Option<Reply> {
        timeout_at(self.deadline, self.receiver.recv()).await.ok().flatten()
    }

    /// One answer of each who is expected to give one; `read` says what is none.
    pub(super) async fn gather<T>(mut self, mut expected: Expected, read: impl Fn(Answer) -> Option<T>) -> ClusterReply<Vec<T>> {
        let mut answers = Vec::new();
        while !expected.is_nobody()
            && let Some((sender, answer)) = self.next().await
        {
            if let Some(answer) = read(answer) {
                expected.answered(sender.as_deref());
                answers.push(answer);
            }
        }
        ClusterReply { answered: answers.len(), value: answers, missing: expected.into() }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.questions.lock().remove(&self.id);
    }
}

impl Expected {
    pub(super) fn is_nobody(&self) -> bool {
        self.ours.is_empty() && self.others == 0
    }

    /// One of them has answered; Node's servers do not say who they are.
    pub(super) fn answered(&mut self, sender: Option<&str>) {
        match self.ours.iter().position(|(uid, _)| sender == Some(uid)) {
            Some(at) => drop(self.ours.remove(at)),
            None => self.others = self.others.saturating_sub(1),
        }
    }
}

impl From<Expected> for Missing {
    fn from(expected: Expected) -> Self {
        Self { nodes: expected.ours.into_iter().map(|(_, node)| node).collect(), others: expected.others, is_away: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::sid::Node;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_question_ends_when_all_have_answered() {
        let (questions, start) = (Questions::new(usize::MAX, Arc::default()), Instant::now());
        let question = questions.open("q".to_owned(), start + SECOND);
        questions.answer(response("another", None, Answer::ClientCount(9)), 10);
        questions.answer(response("q", Some("a"), Answer::ClientCount(1)), 10);
        questions.answer(response("q", None, Answer::Done), 10);
        questions.answer(response("q", None, Answer::ClientCount(2)), 10);
        let reply = question.gather(expected(&["a"], 1), count).await;
        assert_eq!(
            (reply.value, reply.answered, reply.missing.is_nobody(), start.elapsed()),
            (vec![1, 2], 2, true, Duration::ZERO)
        );
        assert!(questions.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_deadline_there_is_what_came_and_who_is_missing() {
        let (questions, start) = (Questions::new(usize::MAX, Arc::default()), Instant::now());
        let question = questions.open("q".to_owned(), start + SECOND);
        questions.answer(response("q", Some("b"), Answer::ClientCount(1)), 10);
        let reply = question.gather(expected(&["a", "b"], 2), count).await;
        assert_eq!((reply.value.clone(), start.elapsed()), (vec![1], SECOND));
        assert_eq!(reply.missing, Missing { nodes: vec![node(0)], others: 2, is_away: false });
        assert_eq!(
            reply.complete().expect_err("some are missing").to_string(),
            "timeout reached: only 1 responses received out of 4"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn answers_beyond_the_limit_are_dropped_and_who_gave_them_is_missing() {
        let questions = Questions::new(2 * (OVERHEAD + 10), Arc::default());
        let question = questions.open("q".to_owned(), Instant::now() + SECOND);
        for (sender, bytes) in [("a", 10), ("b", 11), ("c", 10), ("d", 0)] {
            questions.answer(response("q", Some(sender), Answer::ClientCount(1)), bytes);
        }
        let reply = question.gather(expected(&["a", "b", "c", "d"], 0), count).await;
        assert_eq!((reply.answered, reply.missing.nodes), (2, vec![node(1), node(3)]));
        assert_eq!(questions.metrics.limit_cluster_reply.get(), 2);
    }

    fn count(answer: Answer) -> Option<u64> {
        if let Answer::ClientCount(count) = answer { Some(count) } else { None }
    }

    fn response(id: &'static str, sender: Option<&'static str>, body: Answer) -> Response<'static> {
        Response { id: id.into(), sender: sender.map(Into::into), body }
    }

    fn expected(ours: &[&str], others: usize) -> Expected {
        Expected { ours: ours.iter().zip(0..).map(|(uid, number)| ((*uid).to_owned(), node(number))).collect(), others }
    }

    fn node(number: u32) -> Node {
        Node::try_from(number).expect("a node")
    }
}
