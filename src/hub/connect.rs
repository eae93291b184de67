//! How a client comes into a namespace: the namespace is found or made, its middlewares are asked, the client is told, and then its handlers.

use super::connection::Link;
use super::errors::ConnectError;
use super::handler::{ConnectContext, Guarded, Outcome, Panic, Step, guarded};
use super::handshake::Handshake;
use super::live::Live;
use super::recovery::{Claim, Trace, Track};
use super::socket::Socket;
use crate::engine::{CloseReason, Session, Version};
use crate::protocol::client::{Attempt, auth_of_query};
use crate::protocol::eio::Encoded;
use crate::protocol::sio::Parser;
use bytestring::ByteString;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Writes why a client stays out of a namespace: a message, and what may come with it.
type RefusalPacket = fn(Parser, &str, &str, Option<&RawValue>) -> Encoded;

/// Begins on the session's task and goes on with one of its own if something has to be waited for.
pub(super) fn connect(link: Arc<Link>, session: Arc<Session>, namespace: ByteString, auth: Option<ByteString>, attempt: Attempt) {
    let io = link.io().clone();
    let mut admission = Box::pin(admit(link, session, namespace, auth, attempt));
    // A future that is polled again by its task gets that task's waker, so that none is needed here.
    if admission.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        io.spawn(admission);
    }
}

async fn admit(link: Arc<Link>, session: Arc<Session>, namespace: ByteString, auth: Option<ByteString>, attempt: Attempt) {
    if auth.as_ref().is_some_and(|auth| auth.len() > session.limits().auth_bytes) {
        link.io().metrics().limit_auth.inc();
        return refuse(&link, &session, attempt, &namespace, &"auth is too large".into(), Parser::connect_error);
    }
    let auth = auth.map(|auth| match session.version() {
        Version::V3 => auth_of_query(&auth),
        // Its own buffer: the client's may be a whole payload, and a handshake is kept for long.
        Version::V4 => ByteString::from(&*auth),
    });
    let handshake = Handshake::new(Arc::clone(&session), auth);
    // A client that goes takes its admission along, or a slow middleware would keep one for each that came and went.
    let found = tokio::select! {
        biased;
        found = find(&link, &namespace, &handshake) => found,
        () = link.closed() => return,
    };
    let live = match found {
        Ok(live) => live,
        // As the reference tells it, to all clients alike.
        Err(error) => return refuse(&link, &session, attempt, &namespace, &error, Parser::connect_error),
    };
    let track = tokio::select! {
        biased;
        track = identify(&link, &session, &live, &handshake) => track,
        () = link.closed() => return link.io().release(&live),
    };
    let trace = tokio::select! {
        biased;
        trace = identify_far(&link, &session, &live, &handshake) => trace,
        () = link.closed() => return link.io().release(&live),
    };
    let socket = Socket::new(live, Arc::clone(&link), Arc::clone(&session), handshake, track, trace);
    let asked = tokio::select! {
        biased;
        asked = ask(&socket) => asked,
        () = link.closed() => return give_up(&socket),
    };
    match asked {
        Ok(()) => welcome(&link, &session, attempt, &socket),
        Err(error) => {
            give_up(&socket);
            let packet = match session.version() {
                Version::V3 => Parser::plain_connect_error,
                Version::V4 => Parser::connect_error,
            };
            refuse(&link, &session, attempt, &namespace, &error, packet);
        }
    }
}

/// The namespace, with a place in it; made if a declaration allows it.
async fn find(link: &Link, name: &ByteString, handshake: &Handshake) -> Result<Arc<Live>, ConnectError> {
    let io = link.io();
    loop {
        let live = match io.live(name) {
            Some(live) => live,
            None => {
                let mut families = io.families().into_iter();
                loop {
                    let family = families.next().ok_or("Invalid namespace")?;
                    match Caught(Box::pin(family.allows(name, handshake))).await {
                        Ok(true) => break io.make(name, &family).ok_or("Too many namespaces")?,
                        Ok(false) => {}
                        Err(panic) => {
                            io.metrics().handler_panics.inc();
                            tracing::error!(namespace = &**name, panic = panic.0, "a dynamic namespace's function panicked");
                        }
                    }
                }
            }
        };
        if live.reserve() {
            return Ok(live);
        }
        // Its last socket went a moment ago: another one takes its name.
        io.drop_live(&live);
    }
}

/// Gives the client the place that it had before its line broke, if it names it and may have it, and else one of its own; `None` without recovery.
async fn identify(link: &Link, session: &Arc<Session>, live: &Live, handshake: &Handshake) -> Option<Track> {
    let shelf = live.shelf.as_ref().filter(|_| session.version() == Version::V4)?;
    if let Some(claim) = Claim::read(handshake.auth_json()) {
        match shelf.take(claim, session, room(session)).await {
            Ok(track) => return Some(track),
            Err(reason) => begins_anew(link, live, reason),
        }
    }
    Some(shelf.open(link.io().next_pid(), session))
}

/// The same where the cluster keeps it.
async fn identify_far(link: &Link, session: &Arc<Session>, live: &Live, handshake: &Handshake) -> Option<Trace> {
    let far = live.far.as_ref().filter(|_| session.version() == Version::V4)?;
    if let Some(claim) = Claim::read(handshake.auth_json()) {
        match far.take(claim, session, room(session)).await {
            Ok(trace) => return Some(trace),
            Err(reason) => begins_anew(link, live, reason),
        }
    }
    Some(far.open(link.io().next_pid(), session))
}

fn begins_anew(link: &Link, live: &Live, reason: &str) {
    link.io().metrics().not_recovered.inc();
    tracing::debug!(namespace = &*live.name, reason, "a client begins anew");
}

/// Bytes that may still be sent to the client before its line is given up: what it missed in several namespaces comes over the same one.
fn room(session: &Session) -> usize {
    session.limits().outbox_bytes.saturating_sub(session.backlog())
}

/// Asks the middlewares in turn; one that took up its former connection joins its rooms first, and may not have to ask.
async fn ask(socket: &Socket) -> Result<(), ConnectError> {
    if let Some(saved) = socket.part().and_then(|(_, track)| track.saved()) {
        // They were within the limit, and the socket is not connected yet.
        let _ = socket.live().join(socket, saved.state.rooms, usize::MAX);
        if socket.io().options().recovery_skip_middlewares {
            return Ok(());
        }
    }
    if let Some((saved, is_vouched)) = socket.trace().and_then(|trace| Some((trace.saved()?, trace.is_vouched()))) {
        let _ = socket.live().join(socket, saved.rooms, usize::MAX);
        if socket.io().options().recovery_skip_middlewares && is_vouched {
            return Ok(());
        }
    }
    let context = ConnectContext { socket: socket.clone() };
    for middleware in &socket.live().behaviour.middlewares {
        let outcome = match guarded(|| middleware.call(&context)) {
            Ok(Step::Done(outcome)) => Ok(outcome),
            Ok(Step::Wait(work)) => Guarded(work).await,
            Err(panic) => Err(panic),
        };
        match outcome {
            Ok(Outcome::Admission(answer)) => answer?,
            Ok(_) => {}
            Err(panic) => {
                socket.panicked(&panic, "a middleware");
                return Err(ConnectError::new("internal server error"));
            }
        }
    }
    Ok(())
}

fn welcome(link: &Link, session: &Session, attempt: Attempt, socket: &Socket) {
    if !link.join(attempt, socket.clone()) {
        // The client has gone, or tried once more, while it was decided.
        give_up(socket);
        return;
    }
    // Before anything that a handler or a broadcast sends; its events wait in the queue. A session that is closing takes it no more.
    let id = Some(socket.id()).filter(|_| session.version() == Version::V4);
    let greet = |mut packets: Vec<Encoded>| {
        packets.push(link.io().parser().connect(socket.namespace(), id, socket.pid()));
        session.send(&packets).ok().and_then(|()| socket.live().enter(socket))
    };
    let entered = match (socket.part(), socket.far()) {
        (Some((shelf, track)), _) => shelf.welcome(track, room(session), greet),
        (None, Some((far, trace))) => far.welcome(trace, room(session), greet),
        (None, None) => greet(Vec::new()),
    };
    let Some(rooms) = entered else {
        link.leave(socket);
        give_up(socket);
        if session.is_open() {
            // What the client missed was lost while its middlewares were asked: it comes back and begins anew.
            session.hang_up(CloseReason::TransportError);
        }
        return;
    };
    if let Some((far, trace)) = socket.far() {
        far.begin(trace, socket);
    }
    socket.live().tell(socket, &rooms);
    let metrics = link.io().metrics();
    if socket.recovered() {
        metrics.recovered.inc();
    }
    metrics.sockets.inc();
    metrics.sockets_connected.inc();
    tracing::debug!(id = %socket.log_id(), namespace = socket.namespace(), recovered = socket.recovered(), "socket connected");
    socket.start();
}

fn refuse(link: &Link, session: &Session, attempt: Attempt, namespace: &str, error: &ConnectError, packet: RefusalPacket) {
    link.io().metrics().connect_errors.inc();
    tracing::debug!(namespace, %error, "a client may not connect");
    if link.refuse(attempt) {
        // A session that is closed needs no answer.
        let _ = session.send(&[packet(link.io().parser(), namespace, error.message(), error.raw_data())]);
    }
}

/// The socket will never be connected.
fn give_up(socket: &Socket) {
    socket.close();
    socket.abandon();
    socket.leave_all();
    socket.give_back();
    socket.retire();
}

/// A future of the application's, whose panics are values.
struct Caught<F>(std::pin::Pin<Box<F>>);

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panic>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match guarded(|| self.0.as_mut().poll(cx)) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}
