//! Long-polling: one GET that waits and one POST that delivers, each on its request's own task.

use crate::engine::outbox::Payload;
use crate::engine::session::{Farewell, Link, Session, State};
use crate::protocol::eio::payload::{self, PayloadError};
use crate::protocol::eio::{Message, Packet, Version, v3};
use crate::protocol::errors::CloseReason;
use std::future::poll_fn;
use std::sync::{Arc, MutexGuard};
use std::task::{Poll, Waker};
use tokio::task::coop::consume_budget;

/// The GET and the POST of a session.
#[derive(Debug, Default)]
pub(in crate::engine) struct Requests {
    get: Option<Parked>,
    is_posting: bool,
}

/// A GET that has arrived and is not answered.
#[derive(Debug, Default)]
struct Parked {
    waker: Option<Waker>,
    /// Set once it has found nothing to take; a session that closes tells such a GET with `1` alone.
    has_waited: bool,
    /// What it is answered when nothing else is left to say.
    parting: Option<&'static str>,
}

/// Why a GET takes nothing, or a POST is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PollError {
    /// A second GET beside one that waits, or a second POST beside one that is read: the session is closed, the request answered 400.
    /// So is one that comes when the session has just left polling, which does the session no harm.
    #[error("a request of this kind is already under way")]
    Overlap,
    /// The session has ended without a word: to its client it is unknown.
    #[error("the session has ended")]
    Gone,
}

impl Requests {
    /// Whether a packet could leave at once.
    pub(in crate::engine) fn is_writable(&self) -> bool {
        self.get.as_ref().is_some_and(|get| get.parting.is_none())
    }

    /// Whether a GET is under way.
    pub(in crate::engine) fn has_get(&self) -> bool {
        self.get.is_some()
    }

    /// Lets a parked GET look at the session again.
    pub(in crate::engine) fn wake(&mut self) {
        if let Some(waker) = self.get.as_mut().and_then(|get| get.waker.take()) {
            waker.wake();
        }
    }

    /// Answers a parked GET with `text`, after what waits if anything does.
    pub(in crate::engine) fn part(&mut self, text: &'static str) {
        if let Some(get) = &mut self.get {
            get.parting.get_or_insert(text);
        }
        self.wake();
    }
}

impl Session {
    /// Waits for something to send and takes all of it: the answer to a GET.
    ///
    /// Dropping the future before it is ready is the client aborting its poll: the session closes with "transport error".
    ///
    /// # Errors
    /// Another GET waits already, and both the session and that GET end; or the session was hung up.
    pub async fn poll(self: &Arc<Self>) -> Result<Payload, PollError> {
        let mut poll = self.begin_poll()?;
        let answer = poll_fn(|cx| {
            let answer = self.take_answer(cx.waker());
            answer.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        poll.is_answered = true;
        drop(poll);
        drop(self.run());
        answer
    }

    fn begin_poll(self: &Arc<Self>) -> Result<Polling<'_>, PollError> {
        let mut state = self.lock();
        match &mut state.link {
            Link::Polling(requests) if requests.get.is_none() => {
                requests.get = Some(Parked::default());
                Ok(Polling { session: self, is_answered: false })
            }
            _ => Err(self.overlap(state)),
        }
    }

    /// Ends the session, unless the request was only routed here while the session moved on.
    fn overlap(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> PollError {
        if matches!(state.link, Link::Polling(_)) {
            state.machine.handle_lost(CloseReason::TransportError);
            drop(state);
            drop(self.run());
        }
        PollError::Overlap
    }

    fn take_answer(&self, waker: &Waker) -> Option<Result<Payload, PollError>> {
        let mut state = self.lock();
        let state = &mut *state;
        let control = |packets: &[&str]| Some(Ok(Payload::control(self.version(), packets)));
        let Link::Polling(Requests { get: Some(get), .. }) = &mut state.link else {
            // The session moved on or ended without this GET.
            return control(&["1"]);
        };
        if !state.outbox.is_empty() {
            return Some(Ok(self.take_payload(state)));
        }
        if let Some(parting) = get.parting {
            return control(&[parting]);
        }
        let was_closing = state.machine.is_closing();
        state.machine.handle_drained();
        if state.machine.is_closed() {
            return match (state.farewell, was_closing && !get.has_waited) {
                (Farewell::Silent, _) => Some(Err(PollError::Gone)),
                (Farewell::Close, true) => control(&["6", "1"]),
                (Farewell::Close, false) => control(&["1"]),
            };
        }
        get.has_waited = true;
        get.waker = Some(waker.clone());
        None
    }

    async fn receive_all(self: &Arc<Self>, packets: impl Iterator<Item = Result<Packet, PayloadError>>) {
        for packet in packets {
            match packet {
                Ok(packet) => {
                    self.receive(packet);
                }
                Err(error) => {
                    if error == PayloadError::TooManyPackets {
                        self.metrics().limit_packets_per_payload.inc();
                    }
                    self.lose(CloseReason::ParseError);
                }
            }
            self.until_ready().await;
            // Others get their turn: a payload may hold ten thousand packets.
            consume_budget().await;
        }
    }

    /// Begins a POST; its body is read between this and [`Post::deliver`].
    ///
    /// # Errors
    /// Another POST is being read; the session ends.
    pub fn begin_post(self: &Arc<Self>) -> Result<Post, PollError> {
        let mut state = self.lock();
        match &mut state.link {
            Link::Polling(requests) if !requests.is_posting => {
                requests.is_posting = true;
                drop(state);
                Ok(Post { session: Arc::clone(self), outcome: Outcome::Aborted })
            }
            _ => Err(self.overlap(state)),
        }
    }
}

/// A GET under way.
struct Polling<'a> {
    session: &'a Arc<Session>,
    is_answered: bool,
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        let mut state = self.session.lock();
        let Link::Polling(requests) = &mut state.link else { return };
        requests.get = None;
        if !self.is_answered {
            state.machine.handle_lost(CloseReason::TransportError);
            self.session.drop_backlog(&mut state);
            drop(state);
            drop(self.session.run());
        }
    }
}

/// A POST under way; dropping it is the client aborting it, which closes the session with "transport error".
#[derive(Debug)]
pub struct Post {
    session: Arc<Session>,
    outcome: Outcome,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Aborted,
    Refused,
    Delivered,
}

impl Post {
    /// Hands the body's packets to the application, waiting where it is not ready for more.
    ///
    /// Packets before a bad one are delivered, then the session closes with "parse error"; the POST is answered `ok` all the same.
    pub async fn deliver(mut self, body: Message) {
        let session = &self.session;
        let max_packets = session.limits().packets_per_payload;
        match (session.version(), body) {
            (Version::V4, Message::Text(text)) => session.receive_all(payload::decode(&text, max_packets)).await,
            (Version::V3, body) => session.receive_all(v3::decode(body, max_packets)).await,
            // Only protocol 3 has binary payloads.
            (Version::V4, Message::Binary(_)) => return,
        }
        self.outcome = Outcome::Delivered;
    }

    /// Leaves the session as it is: the body was too large.
    pub fn refuse(mut self) {
        self.outcome = Outcome::Refused;
    }

    /// Closes the session: the body is no text, or the request not of the protocol.
    pub fn break_off(self) {}
}

impl Drop for Post {
    fn drop(&mut self) {
        let mut state = self.session.lock();
        // A session that has moved on does not care how its polling ends.
        let Link::Polling(requests) = &mut state.link else { return };
        requests.is_posting = false;
        drop(state);
        if self.outcome == Outcome::Aborted {
            self.session.lose(CloseReason::TransportError);
        }
    }
}
