//! Questions to the other nodes: who has answered, and until when the others are waited for.

use super::members::Expected;
use super::wire::{Answer, Response};
use crate::hub::{ClusterReply, Missing};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// The questions that are open.
#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<HashMap<String, mpsc::UnboundedSender<Reply>>>);

/// What one node says.
type Reply = (Option<String>, Answer);

impl Questions {
    /// Opens a question, which is closed when it is dropped.
    pub(super) fn open(self: &Arc<Self>, id: String, deadline: Instant) -> Question {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().insert(id.clone(), sender);
        Question { questions: Arc::clone(self), id, receiver, deadline }
    }

    /// A response has come; nobody may wait for it any more.
    pub(super) fn answer(&self, response: Response<'_>) {
        if let Some(question) = self.lock().get(&*response.id) {
            // One that has just been closed.
            let _ = question.send((response.sender.map(Into::into), response.body));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, mpsc::UnboundedSender<Reply>>> {
        self.0.lock().expect("no code that can panic runs under this lock")
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
        let (questions, start) = (Arc::new(Questions::default()), Instant::now());
        let question = questions.open("q".to_owned(), start + SECOND);
        questions.answer(response("another", None, Answer::ClientCount(9)));
        questions.answer(response("q", Some("a"), Answer::ClientCount(1)));
        questions.answer(response("q", None, Answer::Done));
        questions.answer(response("q", None, Answer::ClientCount(2)));
        let reply = question.gather(expected(&["a"], 1), count).await;
        assert_eq!(
            (reply.value, reply.answered, reply.missing.is_nobody(), start.elapsed()),
            (vec![1, 2], 2, true, Duration::ZERO)
        );
        assert!(questions.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_deadline_there_is_what_came_and_who_is_missing() {
        let (questions, start) = (Arc::new(Questions::default()), Instant::now());
        let question = questions.open("q".to_owned(), start + SECOND);
        questions.answer(response("q", Some("b"), Answer::ClientCount(1)));
        let reply = question.gather(expected(&["a", "b"], 2), count).await;
        assert_eq!((reply.value.clone(), start.elapsed()), (vec![1], SECOND));
        assert_eq!(reply.missing, Missing { nodes: vec![node(0)], others: 2, is_away: false });
        assert_eq!(
            reply.complete().expect_err("some are missing").to_string(),
            "timeout reached: only 1 responses received out of 4"
        );
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
