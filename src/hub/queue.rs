//! The order of one socket: what happens to it is handled one after the other.

use super::errors::{DisconnectReason, SocketError};
use super::event::Event;
use super::handler::{Call, ConnectContext, DisconnectContext, EventContext, Guarded, Outcome, Panic, Step, Work, guarded};
use super::recovery::is_recoverable;
use super::room::Room;
use super::socket::Socket;
use crate::engine::Intake;
use crate::protocol::limits::Limits;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use tokio::task::coop::consume_budget;
use tracing::{Instrument as _, Span};

/// What happens to a socket.
pub(super) enum Job {
    Connected,
    /// With the bytes that it came in.
    Event(Event, usize),
    Disconnected(DisconnectReason),
}

impl Job {
    fn bytes(&self) -> usize {
        if let Self::Event(_, bytes) = self { *bytes } else { 0 }
    }
}

/// What waits behind the job that is being done.
pub(super) struct Queue {
    state: Mutex<State>,
    /// The server has sent the client away: nobody cares for what it said before it knew.
    is_cut: AtomicBool,
}

struct State {
    /// Somebody does the jobs, and will do those that are added.
    is_running: bool,
    jobs: VecDeque<Job>,
    /// What the events among them hold.
    bytes: Intake,
    /// Holds the session back until half of it is done.
    is_full: bool,
}

impl Queue {
    /// A queue that takes jobs and lets none be done before [`Socket::start`].
    pub(super) fn held(bytes: Intake) -> Self {
        let state = State { is_running: true, jobs: VecDeque::new(), bytes, is_full: false };
        Self { state: Mutex::new(state), is_cut: AtomicBool::new(false) }
    }

    /// `Some` says that the caller has to do it now.
    fn push(&self, job: Job) -> Option<Job> {
        let mut state = self.lock();
        if state.is_running {
            let bytes = state.bytes.held() + job.bytes();
            state.bytes.set(bytes);
            state.jobs.push_back(job);
            None
        } else {
            state.is_running = true;
            Some(job)
        }
    }

    /// The next job, if one waits, and whether the session is to be read again.
    fn pop(&self, limits: &Limits) -> (Option<Job>, bool) {
        let mut state = self.lock();
        let Some(job) = state.jobs.pop_front() else {
            state.is_running = false;
            return (None, std::mem::take(&mut state.is_full));
        };
        let bytes = state.bytes.held() - job.bytes();
        state.bytes.set(bytes);
        let has_room = state.is_full
            && !state.bytes.is_too_much()
            && state.jobs.len() <= limits.pending_events / 2
            && bytes <= limits.pending_event_bytes / 2;
        state.is_full &= !has_room;
        (Some(job), has_room)
    }

    fn is_cut(&self) -> bool {
        self.is_cut.load(Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that can panic runs under this lock")
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.lock().jobs.len()).finish_non_exhaustive()
    }
}

/// On whose task a job may be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    /// On the caller's, which is the session's own.
    This,
    /// On one of its own: the caller is the application, and may hold what its handlers want.
    Another,
}

impl Socket {
    /// The client has come in: its handlers are called, and then those of what has come meanwhile.
    pub(super) fn start(&self) {
        self.clone().work(Job::Connected);
    }

    /// The client was never in: nobody is told anything.
    pub(super) fn abandon(&self) {
        // An event that comes this moment must find nobody in.
        self.queue().is_cut.store(true, Release);
        while self.next_job().is_some() {}
    }

    pub(super) fn receive(self, event: Event, bytes: usize) {
        match self.queue().push(Job::Event(event, bytes)) {
            Some(job) => self.work(job),
            None => self.hold_back(),
        }
    }

    pub(super) fn finish(&self, reason: DisconnectReason, on: On) {
        tracing::debug!(id = %self.log_id(), namespace = self.namespace(), %reason, "socket disconnected");
        if !is_recoverable(reason) {
            self.forget();
        }
        if reason == DisconnectReason::ServerNamespaceDisconnect {
            self.queue().is_cut.store(true, Release);
        }
        let Some(job) = self.queue().push(Job::Disconnected(reason)) else { return };
        match on {
            On::This => self.clone().work(job),
            On::Another => {
                let socket = self.clone();
                self.io().spawn(async move { socket.work(job) });
            }
        }
    }

    /// At the bound the session is not read until half of what waits is done.
    fn hold_back(&self) {
        let limits = self.session().limits();
        let mut state = self.queue().lock();
        let is_too_much = state.jobs.len() >= limits.pending_events || state.bytes.held() >= limits.pending_event_bytes;
        if !state.is_full && (is_too_much || state.bytes.is_too_much()) {
            state.is_full = true;
            // Under the lock, so that whoever makes room lets on what is held back already.
            self.link().hold_back();
            let metrics = self.io().metrics();
            if is_too_much { metrics.limit_pending_events.inc() } else { metrics.limit_inbound.inc() }
        }
    }

    /// Does jobs on the caller's task until one has to wait, and that one and the rest on a task of its own.
    fn work(self, job: Job) {
        let (mut socket, mut next) = (self, Some(job));
        while let Some(job) = next {
            let mut course = Course::new(socket, job);
            if let Some(work) = course.run() {
                let io = course.socket().io().clone();
                io.spawn(async move {
                    course.wait(work).await;
                    while let Some(job) = course.socket().next_job() {
                        course = Course::new(course.into_socket(), job);
                        if let Some(work) = course.run() {
                            course.wait(work).await;
                        }
                        // A thousand that had to wait behind one must not hold up everybody else.
                        consume_budget().await;
                    }
                });
                return;
            }
            socket = course.into_socket();
            next = socket.next_job();
        }
    }

    fn next_job(&self) -> Option<Job> {
        let (job, has_room) = self.queue().pop(self.session().limits());
        if has_room {
            self.link().let_on(self.session());
        }
        job
    }
}

/// One job on its way through its handlers.
struct Course {
    subject: Subject,
    stage: Stage,
    /// Puts the socket's id beside what its handlers log.
    span: Span,
    /// How many handlers of the stage have been called.
    called: usize,
    /// How many it has, once one has been called: looked up once for an event.
    handlers: usize,
}

/// What the handlers of a job are called with.
enum Subject {
    Connect(ConnectContext),
    Event(EventContext),
    /// With the rooms that the socket was in.
    Disconnect(DisconnectContext, Vec<Room>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connect,
    Any,
    EventMiddleware,
    Event,
    Disconnecting,
    Disconnect,
    Over,
}

impl Course {
    fn new(socket: Socket, job: Job) -> Self {
        let span = tracing::debug_span!("socket", namespace = socket.namespace(), id = %socket.log_id());
        let (stage, subject) = match job {
            Job::Connected => (Stage::Connect, Subject::Connect(ConnectContext { socket })),
            Job::Event(event, _) => {
                let behaviour = &socket.live().behaviour;
                let is_plain = behaviour.any.is_empty() && behaviour.event_middlewares.is_empty();
                (if is_plain { Stage::Event } else { Stage::Any }, Subject::Event(EventContext { socket, event }))
            }
            Job::Disconnected(reason) => {
                (Stage::Disconnecting, Subject::Disconnect(DisconnectContext { socket, reason }, Vec::new()))
            }
        };
        Self { subject, stage, span, called: 0, handlers: 0 }
    }

    fn socket(&self) -> &Socket {
        match &self.subject {
            Subject::Connect(context) => &context.socket,
            Subject::Event(context) => &context.socket,
            Subject::Disconnect(context, _) => &context.socket,
        }
    }

    fn into_socket(self) -> Socket {
        match self.subject {
            Subject::Connect(context) => context.socket,
            Subject::Event(context) => context.socket,
            Subject::Disconnect(context, _) => context.socket,
        }
    }

    /// The event's name; what is no event has none.
    fn event(&self) -> &str {
        if let Subject::Event(context) = &self.subject { context.event.name() } else { "" }
    }

    /// Calls handlers until one has to wait, which is returned.
    fn run(&mut self) -> Option<Work> {
        let span = self.span.clone();
        let _entered = span.enter();
        loop {
            match guarded(|| self.go_on()) {
                Ok(work) => return work,
                // Not the handler but what it returned, as it was shown or dropped.
                Err(panic) => self.apply(Err(panic)),
            }
        }
    }

    fn go_on(&mut self) -> Option<Work> {
        while let Some(step) = self.step() {
            match step {
                Ok(Step::Done(outcome)) => self.apply(Ok(outcome)),
                Ok(Step::Wait(mut work)) => {
                    // A future that is polled again by its task gets that task's waker, so that none is needed here.
                    match guarded(|| work.as_mut().poll(&mut Context::from_waker(Waker::noop()))) {
                        Ok(Poll::Pending) => return Some(work),
                        Ok(Poll::Ready(outcome)) => self.apply(Ok(outcome)),
                        Err(panic) => self.apply(Err(panic)),
                    }
                }
                Err(panic) => self.apply(Err(panic)),
            }
        }
        None
    }

    async fn wait(&mut self, work: Work) {
        let mut next = Some(work);
        while let Some(work) = next {
            let result = Guarded(work).instrument(self.span.clone()).await;
            if let Err(panic) = guarded(|| self.apply(result)) {
                self.apply(Err(panic));
            }
            next = self.run();
        }
    }

    /// Calls the next handler, if there is one.
    fn step(&mut self) -> Option<Result<Step, Panic>> {
        while self.stage != Stage::Over {
            if self.called > 0 && self.called == self.handlers {
                self.advance();
                continue;
            }
            let behaviour = &self.socket().live().behaviour;
            // As in the reference: what is queued when the server sends the client away is not handled.
            let step = match &self.subject {
                Subject::Connect(context) => self.call(&behaviour.connect, context),
                Subject::Event(_) if self.socket().queue().is_cut() => return None,
                Subject::Event(context) => match self.stage {
                    Stage::Any => self.call(&behaviour.any, context),
                    Stage::EventMiddleware => self.call(&behaviour.event_middlewares, context),
                    _ => self.call(behaviour.events.get(self.event()).map_or(&[], Vec::as_slice), context),
                },
                Subject::Disconnect(context, _) if self.stage == Stage::Disconnecting => {
                    self.call(&behaviour.disconnecting, context)
                }
                Subject::Disconnect(context, _) => self.call(&behaviour.disconnect, context),
            };
            if let Some((step, handlers)) = step {
                self.called += 1;
                self.handlers = handlers;
                return Some(step);
            }
            self.advance();
        }
        None
    }

    fn call<C>(&self, handlers: &[Box<dyn Call<C>>], context: &C) -> Option<(Result<Step, Panic>, usize)> {
        handlers.get(self.called).map(|handler| (guarded(|| handler.call(context)), handlers.len()))
    }

    fn advance(&mut self) {
        self.called = 0;
        self.stage = match self.stage {
            Stage::Any => Stage::EventMiddleware,
            Stage::EventMiddleware => Stage::Event,
            Stage::Disconnecting => {
                if let Subject::Disconnect(DisconnectContext { socket, .. }, rooms) = &mut self.subject {
                    *rooms = socket.rooms();
                    socket.leave_all();
                }
                Stage::Disconnect
            }
            Stage::Disconnect => {
                if let Subject::Disconnect(DisconnectContext { socket, .. }, rooms) = &mut self.subject {
                    socket.save(std::mem::take(rooms));
                    socket.retire();
                }
                Stage::Over
            }
            Stage::Connect | Stage::Event | Stage::Over => Stage::Over,
        };
    }

    fn apply(&mut self, result: Result<Outcome, Panic>) {
        match (result, &mut self.subject) {
            (Ok(Outcome::Reply(Ok(Some(args)))), Subject::Event(context)) => {
                if let Err(error) = context.event.ack().send(args) {
                    tracing::trace!(error = &error as &dyn std::error::Error, "an acknowledgement was not sent");
                }
            }
            (Ok(Outcome::Verdict(Ok(Some(event)))), Subject::Event(context)) => context.event = event,
            (Ok(Outcome::Verdict(Err(error))), _) => {
                self.stage = Stage::Over;
                self.socket().report(&SocketError::Refused(error));
            }
            (Ok(Outcome::Reply(Err(error)) | Outcome::Done(Err(error))), _) => self.socket().failed(self.event(), error),
            (Err(panic), subject) => {
                let place = match subject {
                    Subject::Connect(_) => "on_connect",
                    Subject::Event(context) => context.event.name(),
                    Subject::Disconnect(..) => "on_disconnect",
                };
                let place = place.to_owned();
                // On the way out the rest has to happen all the same.
                if !matches!(self.stage, Stage::Disconnecting | Stage::Disconnect) {
                    self.stage = Stage::Over;
                }
                self.socket().panicked(&panic, &place);
            }
            (Ok(_), _) => {}
        }
    }
}
