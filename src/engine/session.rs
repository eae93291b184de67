//! One client's session: the protocol's state, what waits to be sent, and the transport that it leaves by.

use super::bell::Bell;
use super::driver::Turn;
use super::outbox::{Outbox, Payload};
use super::stream::Stream;
use super::transport::polling::Requests;
use super::transport::websocket::WebSocket;
use super::{Connection, Engine, Handshake, Intake, SendError};
use crate::metrics::Metrics;
use crate::protocol::eio::{Encoded, Message, Packet, Version};
use crate::protocol::errors::CloseReason;
use crate::protocol::limits::Limits;
use crate::protocol::session::{Output, Session as Machine, TransportKind};
use crate::protocol::sid::Sid;
use std::fmt;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tracing::error;

/// How long a frame counts as on its way. In the reference it is until its event loop has turned, so of what one handler sends only the first may be
/// volatile: a burst is what volatile is there to thin out. Longer would thin out a lively room as well.
const FLIGHT: Duration = Duration::from_micros(200);

/// One client's session.
///
/// Its methods may be called from any task. What they set off is done on the session's own tasks: [`Session::send`] writes at once where the socket takes it,
/// but never calls back into the application.
pub struct Session {
    sid: Sid,
    handshake: Handshake,
    engine: Arc<Engine>,
    limits: Arc<Limits>,
    connection: OnceLock<Arc<dyn Connection>>,
    state: Mutex<State>,
    /// Wakes the session's loop.
    pub(super) bell: Bell,
    /// Wakes a POST that waits for the application.
    room: Notify,
}

pub(super) struct State {
    pub(super) machine: Machine,
    pub(super) outbox: Outbox,
    /// When the WebSocket was last written to.
    written: Option<Instant>,
    pub(super) link: Link,
    /// How a polling client learns of the end.
    pub(super) farewell: Farewell,
    /// A WebSocket that is being probed.
    candidate: Option<Candidate>,
    /// The WebSocket that the loop has to read from now on.
    pub(super) upgraded: Option<Box<WebSocket>>,
    /// A client of protocol 3 that takes no binary data.
    is_base64: bool,
    /// Somebody is telling the application what happened; it will tell the rest as well, in order.
    is_running: bool,
}

impl State {
    /// Whether it is this WebSocket that is being probed, and not one before or after it.
    fn is_candidate(&self, stream: &Arc<Stream>) -> bool {
        self.candidate.as_ref().is_some_and(|candidate| Arc::ptr_eq(&candidate.stream, stream))
    }

    fn is_writable(&self) -> bool {
        self.machine.is_open()
            && self.outbox.is_empty()
            && match &self.link {
                Link::Polling(requests) => requests.is_writable(),
                Link::WebSocket(_) => true,
                Link::Closed => false,
            }
    }
}

/// How a polling client learns that the server ends its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// By a close packet, as the reference closes.
    Close,
    /// By finding its sid unknown.
    Silent,
}

/// The way out.
#[derive(Debug)]
pub(super) enum Link {
    Polling(Requests),
    WebSocket(Arc<Stream>),
    Closed,
}

struct Candidate {
    stream: Arc<Stream>,
    /// Dropped with the candidate, which ends its task.
    _cancel: oneshot::Sender<()>,
}

impl Session {
    pub(super) fn new(engine: Arc<Engine>, sid: Sid, handshake: Handshake, socket: Option<&WebSocket>) -> Arc<Self> {
        let (link, transport) = match socket {
            None => (Link::Polling(Requests::default()), TransportKind::Polling),
            Some(socket) => (Link::WebSocket(Arc::clone(socket.stream())), TransportKind::WebSocket),
        };
        let state = State {
            machine: Machine::open(handshake.version, engine.timing(), transport, Instant::now().into_std()),
            outbox: Outbox::default(),
            written: None,
            link,
            farewell: Farewell::Close,
            candidate: None,
            upgraded: None,
            is_base64: handshake.query.iter().any(|(key, value)| key == "j" || key == "b64" && !value.is_empty()),
            is_running: false,
        };
        Arc::new(Self {
            sid,
            handshake,
            limits: engine.limits().snapshot(),
            engine,
            connection: OnceLock::new(),
            state: Mutex::new(state),
            bell: Bell::default(),
            room: Notify::new(),
        })
    }

    pub(super) fn connect(&self, connection: Arc<dyn Connection>) {
        assert!(self.connection.set(connection).is_ok(), "a session is opened once");
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.get().is_some()
    }

    /// Its id: a credential, never to be logged or shown to other clients.
    pub fn sid(&self) -> &Sid {
        &self.sid
    }

    /// The request that opened it.
    pub fn request(&self) -> &Handshake {
        &self.handshake
    }

    /// The protocol that its client speaks.
    pub fn version(&self) -> Version {
        self.handshake.version
    }

    /// How it reaches its client now.
    pub fn transport(&self) -> TransportKind {
        self.lock().machine.transport()
    }

    /// Whether packets can still be sent.
    pub fn is_open(&self) -> bool {
        self.lock().machine.is_open()
    }

    /// Bytes that wait to be sent: how far its client is behind.
    pub fn backlog(&self) -> usize {
        self.lock().outbox.bytes()
    }

    /// Sends all packets in order with nothing in between; what cannot leave at once waits.
    ///
    /// # Errors
    /// The session is closed, or too much waits already, which closes it; nothing was sent then.
    pub fn send(&self, packets: &[Encoded]) -> Result<(), SendError> {
        let mut state = self.lock();
        if !state.machine.is_open() {
            return Err(SendError::Closed);
        }
        self.push(&mut state, packets)?;
        self.metrics().messages_sent.add(packets.len() as u64);
        Ok(())
    }

    /// Puts packets in line as [`Session::send`] does, but lets them go only with [`Session::depart`], which has to follow: for a caller that sends to many
    /// under a lock. `false` says that somebody else will let them go.
    ///
    /// # Errors
    /// As [`Session::send`].
    pub(crate) fn line_up(&self, packets: &[Encoded]) -> Result<bool, SendError> {
        let mut state = self.lock();
        if !state.machine.is_open() {
            return Err(SendError::Closed);
        }
        if state.outbox.bytes() > 0 && packets.iter().map(Encoded::weight).sum::<usize>() > self.limits().outbox_bytes / 2 {
            // What others have just put in line may not have been given the chance to leave.
            self.let_go(&mut state);
        }
        let was_empty = state.outbox.is_empty();
        self.queue(&mut state, packets)?;
        self.metrics().messages_sent.add(packets.len() as u64);
        Ok(was_empty)
    }

    /// Lets go what [`Session::line_up`] put in line.
    pub(crate) fn depart(&self) {
        self.let_go(&mut self.lock());
    }

    /// As [`Session::send`]; [`Connection::sent`] tells when the last of the packets has left: the kernel, or the answer to a GET, has it.
    ///
    /// # Errors
    /// As [`Session::send`].
    pub fn send_marked(&self, packets: &[Encoded], mark: u64) -> Result<(), SendError> {
        let mut state = self.lock();
        if !state.machine.is_open() {
            return Err(SendError::Closed);
        }
        self.push(&mut state, packets)?;
        state.outbox.mark(mark);
        drop(state);
        self.metrics().messages_sent.add(packets.len() as u64);
        // It may have left already.
        self.bell.ring();
        Ok(())
    }

    /// Sends one message.
    ///
    /// # Errors
    /// As [`Session::send`].
    pub fn send_message(&self, message: &Message) -> Result<(), SendError> {
        self.send(&[Encoded::message(message)])
    }

    /// Sends if nothing has to wait for it and nothing else has just left; `false` says that the packets were dropped.
    pub fn send_volatile(&self, packets: &[Encoded]) -> bool {
        let mut state = self.lock();
        let is_in_flight = state.written.is_some_and(|at| at.elapsed() < FLIGHT);
        if !is_in_flight && state.is_writable() && self.push(&mut state, packets).is_ok() {
            self.metrics().messages_sent.add(packets.len() as u64);
            return true;
        }
        self.metrics().volatile_dropped.add(packets.len() as u64);
        false
    }

    /// Whether a packet could leave at once: nothing waits, and for polling a GET is parked.
    pub fn is_writable(&self) -> bool {
        self.lock().is_writable()
    }

    /// Closes after what waits was sent; clients come back by themselves.
    pub fn close(&self, reason: CloseReason) {
        let mut state = self.lock();
        state.machine.close(reason, Instant::now().into_std());
        if let Link::Polling(requests) = &mut state.link {
            requests.wake();
        }
        drop(state);
        self.bell.ring();
    }

    /// Closes after what waits was sent, and without a close packet for polling: every client takes that for a lost connection and comes back,
    /// whereas python-socketio stays away after a close packet.
    pub fn hang_up(&self, reason: CloseReason) {
        self.lock().farewell = Farewell::Silent;
        self.close(reason);
    }

    /// Closes at once and drops what waits.
    pub fn discard(&self, reason: CloseReason) {
        let mut state = self.lock();
        self.drop_backlog(&mut state);
        state.machine.handle_lost(reason);
        drop(state);
        self.bell.ring();
    }

    /// Reads on after [`Connection::ready`] was false.
    pub fn resume(&self) {
        self.room.notify_waiters();
        self.bell.ring();
    }

    /// The bounds that there were when it began.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Counts what has begun to arrive and is not whole yet.
    pub fn intake(&self) -> Intake {
        Intake::new(&self.engine.metrics, &self.limits)
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.engine.metrics
    }

    pub(super) fn connection(&self) -> &Arc<dyn Connection> {
        self.connection.get().expect("set before anyone else sees the session")
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that can panic runs under this lock")
    }

    /// A packet came over the session's transport; `Some` is what the loop waits for if it has nothing else to do before, as it has when the session ends.
    pub(super) fn receive(self: &Arc<Self>, packet: Packet) -> Option<Turn> {
        let mut state = self.lock();
        let at = |state: &State| state.machine.poll_deadline().map(|(at, _)| at);
        let before = at(&state);
        state.machine.handle_packet(packet, || Instant::now().into_std());
        if at(&state) < before {
            // After a pong that came by POST the loop still sleeps until it would have been too late.
            self.bell.ring();
        }
        let state = self.run_from(state);
        if state.machine.is_open() { Turn::of(&state) } else { None }
    }

    /// The transport is gone.
    pub(super) fn lose(self: &Arc<Self>, reason: CloseReason) {
        let mut state = self.lock();
        state.machine.handle_lost(reason);
        drop(self.run_from(state));
    }

    /// Waits while the application is not ready for more.
    pub(super) async fn until_ready(&self) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // Registered before the look, so that no call to `resume` falls between.
            room.as_mut().enable();
            if self.connection().ready() || !self.is_open() {
                return;
            }
            room.await;
        }
    }

    /// A WebSocket that asks to take over; what is returned ends when the candidate is dropped.
    pub(super) fn propose(&self, socket: &WebSocket) -> Option<oneshot::Receiver<()>> {
        let mut state = self.lock();
        state.machine.handle_candidate(Instant::now().into_std()).ok()?;
        let (cancel, cancelled) = oneshot::channel();
        state.candidate = Some(Candidate { stream: Arc::clone(socket.stream()), _cancel: cancel });
        drop(state);
        // The loop sleeps towards a later deadline.
        self.bell.ring();
        Some(cancelled)
    }

    /// A packet came over the candidate; `true` when the candidate has become the session's transport.
    pub(super) fn receive_from_candidate(self: &Arc<Self>, stream: &Arc<Stream>, packet: &Packet) -> bool {
        let mut state = self.lock();
        if !state.is_candidate(stream) {
            return false;
        }
        state.machine.handle_candidate_packet(packet, Instant::now().into_std());
        let is_upgraded = state.machine.transport() == TransportKind::WebSocket;
        if is_upgraded && let Some(candidate) = state.candidate.take() {
            // Together with the machine's change, so that no packet takes the old way any more.
            if let Link::Polling(requests) = &mut state.link {
                requests.part("1");
            }
            state.link = Link::WebSocket(candidate.stream);
            self.metrics().upgrades.inc();
            self.metrics().sessions_websocket.inc();
            self.flush(&mut state);
        }
        drop(state);
        drop(self.run());
        // `2probe` asks for noops earlier than anything that the loop waits for.
        self.bell.ring();
        is_upgraded
    }

    /// Gives the loop the socket that it has to read from now on; a session that is over has no loop, and gives it back.
    pub(super) fn hand_over(&self, socket: Box<WebSocket>) -> Option<Box<WebSocket>> {
        let mut state = self.lock();
        if state.machine.is_closed() {
            return Some(socket);
        }
        state.upgraded = Some(socket);
        None
    }

    /// The candidate is gone.
    pub(super) fn lose_candidate(self: &Arc<Self>, stream: &Arc<Stream>) {
        let mut state = self.lock();
        if state.is_candidate(stream) {
            state.machine.handle_candidate_lost();
            drop(state);
            drop(self.run());
        }
    }

    /// Tells the application, in order, what the protocol's state has decided, and sends what it wants sent; the state as it is then.
    pub(super) fn run(self: &Arc<Self>) -> MutexGuard<'_, State> {
        self.run_from(self.lock())
    }

    pub(super) fn run_from<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.is_running {
            return state;
        }
        state.is_running = true;
        loop {
            let Some(output) = state.machine.poll_output() else {
                if let Some(mark) = state.outbox.take_mark() {
                    drop(state);
                    self.tell(|| self.connection().sent(self, mark));
                    state = self.lock();
                    continue;
                }
                state.is_running = false;
                return state;
            };
            match output {
                Output::Message(message) => {
                    drop(state);
                    self.metrics().messages_received.inc();
                    self.tell(|| self.connection().message(self, message));
                    state = self.lock();
                }
                Output::Ping => self.push_control(&mut state, &self.engine.ping),
                Output::Pong(data) if data.is_empty() => self.push_control(&mut state, &self.engine.pong),
                Output::Pong(data) => self.push_control(&mut state, &Encoded::control(&format!("3{data}"))),
                Output::Noop => self.let_get_go(&mut state),
                Output::Heartbeat => {
                    drop(state);
                    self.tell(|| self.connection().heartbeat(self));
                    state = self.lock();
                }
                Output::ProbeAnswer => {
                    self.answer_probe(&mut state);
                    drop(state);
                    self.tell(|| self.connection().upgrading(self));
                    state = self.lock();
                }
                Output::ProbeFailed => {
                    // The next one may have come since this was decided.
                    if !state.machine.is_probing() {
                        state.candidate = None;
                    }
                    self.metrics().upgrades_failed.inc();
                }
                Output::Upgraded => {
                    drop(state);
                    self.tell(|| self.connection().upgraded(self));
                    state = self.lock();
                }
                Output::Closed(reason) => {
                    state.candidate = None;
                    let left: Vec<_> = std::iter::from_fn(|| state.outbox.take_mark()).collect();
                    state.outbox.drop_marks();
                    let farewell = state.farewell;
                    match &mut state.link {
                        Link::Polling(requests) if requests.has_get() => match farewell {
                            Farewell::Close => requests.part("1"),
                            Farewell::Silent => requests.wake(),
                        },
                        // It leaves before the last words.
                        Link::WebSocket(_) => {}
                        Link::Polling(_) | Link::Closed => self.drop_backlog(&mut state),
                    }
                    drop(state);
                    for mark in left {
                        self.tell(|| self.connection().sent(self, mark));
                    }
                    self.engine.forget(self, reason);
                    self.tell(|| self.connection().closed(self, reason));
                    self.bell.ring();
                    self.room.notify_waiters();
                    state = self.lock();
                }
            }
        }
    }

    /// Calls the application; a panic there ends this session, and not the task that happened to bring the news.
    pub(super) fn tell(&self, call: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(call)).is_err() {
            error!("the application panicked; its session is closed");
            self.metrics().handler_panics.inc();
            self.lock().machine.handle_lost(CloseReason::ForcedClose);
        }
    }

    fn let_get_go(&self, state: &mut State) {
        let is_writable = matches!(&state.link, Link::Polling(requests) if requests.is_writable());
        if is_writable && state.outbox.is_empty() {
            self.push_control(state, &self.engine.noop);
        }
    }

    fn answer_probe(self: &Arc<Self>, state: &mut State) {
        let Some(candidate) = &state.candidate else { return };
        let answer = &self.engine.probe_answer;
        let written = candidate.stream.try_write_vectored(&answer.websocket().map(IoSlice::new));
        // The first bytes on a fresh connection: a kernel that does not take them has lost it.
        if written.ok() != Some(answer.len()) {
            state.machine.handle_candidate_lost();
        }
    }

    fn push_control(&self, state: &mut State, packet: &Encoded) {
        // At the bound the heartbeat finds out that the client is dead; the error has closed the session already.
        let _ = self.push(state, std::slice::from_ref(packet));
    }

    /// Frames that tungstenite wants sent, such as a pong.
    pub(super) fn push_frames(&self, frames: &[u8]) {
        let mut state = self.lock();
        if matches!(state.link, Link::WebSocket(_)) {
            self.push_control(&mut state, &Encoded::frames(frames));
        }
    }

    fn push(&self, state: &mut State, packets: &[Encoded]) -> Result<(), SendError> {
        if let [packet] = packets
            && self.write_at_once(state, packet)
        {
            return Ok(());
        }
        let was_empty = state.outbox.is_empty();
        self.queue(state, packets)?;
        // What waits already is ahead of us, and whoever put it there sees to it: the loop is waiting for the socket.
        if was_empty {
            self.let_go(state);
        }
        Ok(())
    }

    /// Writes a packet before which nothing waits, without putting it in line first; of one that does not fit the rest waits. `false` leaves it to be sent.
    fn write_at_once(&self, state: &mut State, packet: &Encoded) -> bool {
        let State { outbox, link: Link::WebSocket(stream), written, .. } = state else { return false };
        if !outbox.is_empty() || self.version() == Version::V3 {
            return false;
        }
        let [_, frame] = packet.websocket();
        // An error is met when it is sent with what waits, at no cost: the socket is known to be full then, or broken.
        let Ok(count) = stream.try_write_vectored(&[IoSlice::new(frame)]) else { return false };
        *written = Some(Instant::now());
        if count < frame.len() {
            outbox.push_begun(packet.clone(), count);
            self.metrics().outbound_bytes.add(outbox.bytes() as i64);
            self.bell.ring();
        }
        true
    }

    /// Sends what waits, as far as the client takes it.
    fn let_go(&self, state: &mut State) {
        match &mut state.link {
            Link::Polling(requests) => requests.wake(),
            Link::WebSocket(_) => {
                self.flush(state);
                if !state.outbox.is_empty() {
                    self.bell.ring();
                }
            }
            Link::Closed => {}
        }
    }

    /// Puts packets in line, as the client's protocol has them.
    pub(super) fn queue(&self, state: &mut State, packets: &[Encoded]) -> Result<(), SendError> {
        if self.version() == Version::V4 {
            return self.queue_all(state, packets);
        }
        let packets: Vec<_> = packets.iter().map(|packet| packet.for_v3(state.is_base64)).collect();
        self.queue_all(state, &packets)
    }

    fn queue_all(&self, state: &mut State, packets: &[Encoded]) -> Result<(), SendError> {
        let size: usize = packets.iter().map(Encoded::weight).sum();
        let waiting = state.outbox.bytes();
        let is_full = waiting > 0 && waiting + size > self.limits().outbox_bytes;
        let total = usize::try_from(self.metrics().outbound_bytes.get()).unwrap_or(0);
        if is_full || (waiting > 0 && total + size > self.limits().outbound_bytes) {
            let limit = if is_full { &self.metrics().limit_outbox } else { &self.metrics().limit_outbound };
            limit.inc();
            self.drop_backlog(state);
            state.machine.handle_lost(CloseReason::TransportError);
            self.bell.ring();
            return Err(SendError::Full);
        }
        for packet in packets {
            state.outbox.push(packet.clone());
        }
        self.metrics().outbound_bytes.add(size as i64);
        Ok(())
    }

    /// Writes what the socket takes; an error of the socket is met by the loop when it reads.
    pub(super) fn flush(&self, state: &mut State) {
        let State { outbox, link: Link::WebSocket(stream), written, .. } = state else { return };
        let before = outbox.bytes();
        *written = Some(Instant::now());
        let result = outbox.write_with(|slices| stream.try_write_vectored(slices));
        if let Err(error) = result
            && error.kind() != io::ErrorKind::WouldBlock
        {
            // Nobody will read it any more.
            *outbox = Outbox::default();
            state.machine.handle_lost(CloseReason::TransportError);
            self.bell.ring();
        }
        self.metrics().outbound_bytes.add(state.outbox.bytes() as i64 - before as i64);
    }

    /// Gives back what waits: nobody will come for it.
    pub(super) fn drop_backlog(&self, state: &mut State) {
        let waiting = state.outbox.bytes();
        state.outbox.drop_unsent();
        self.metrics().outbound_bytes.add(state.outbox.bytes() as i64 - waiting as i64);
    }

    pub(super) fn take_payload(&self, state: &mut State) -> Payload {
        state.outbox.take_payload(self.version(), &self.engine.metrics)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("sid", &self.sid).finish_non_exhaustive()
    }
}
