//! What may be a handler: a function or closure, async or not, whose arguments are taken from what happened.

use super::errors::{BoxError, ConnectError, DisconnectReason, EventError, ExtractError};
use super::event::{Event, IntoArgs};
use super::extract::{FromContext, Needs};
use super::socket::Socket;
use crate::protocol::sio::Args;
use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

/// A client came, or asks to: for connect handlers and middlewares.
#[derive(Debug, Clone)]
pub struct ConnectContext {
    pub(super) socket: Socket,
}

/// An event arrived: for event handlers and event middlewares.
#[derive(Debug, Clone)]
pub struct EventContext {
    pub(super) socket: Socket,
    pub(super) event: Event,
}

/// A client went: for disconnect handlers.
#[derive(Debug, Clone)]
pub struct DisconnectContext {
    pub(super) socket: Socket,
    pub(super) reason: DisconnectReason,
}

/// What a handler is called with; every one of them has a socket.
pub trait Context {
    /// Whose turn it is.
    fn socket(&self) -> &Socket;
}

impl Context for ConnectContext {
    fn socket(&self) -> &Socket {
        &self.socket
    }
}

impl Context for EventContext {
    fn socket(&self) -> &Socket {
        &self.socket
    }
}

impl Context for DisconnectContext {
    fn socket(&self) -> &Socket {
        &self.socket
    }
}

impl EventContext {
    /// What arrived.
    pub fn event(&self) -> &Event {
        &self.event
    }
}

impl DisconnectContext {
    /// Why the client went.
    pub fn reason(&self) -> DisconnectReason {
        self.reason
    }
}

/// An acknowledgement as a handler's return value: `Ack(5)`, `Ack((1, "two"))` for several arguments, `Ack(())` for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<T>(pub T);

/// What an event handler returns: `()`, [`Ack`], or a `Result` of either whose error is any that `?` can box.
#[derive(Debug)]
pub enum Reply {}

/// What a connect or disconnect handler returns: `()`, or a `Result<(), E>` whose error is any that `?` can box.
#[derive(Debug)]
pub enum Done {}

/// What a middleware returns: `Result<(), ConnectError>`.
#[derive(Debug)]
pub enum Admission {}

/// What an event middleware returns: `Result<(), EventError>`, or `Result<Event, EventError>` with the event that goes on in its place.
#[derive(Debug)]
pub enum Verdict {}

/// How a handler ended.
#[doc(hidden)]
#[derive(Debug)]
pub enum Outcome {
    Reply(Result<Option<Args>, BoxError>),
    Done(Result<(), BoxError>),
    Admission(Result<(), ConnectError>),
    Verdict(Result<Option<Event>, EventError>),
}

#[doc(hidden)]
pub trait Kind {
    fn failed(error: ExtractError) -> Outcome;
}

impl Kind for Reply {
    fn failed(error: ExtractError) -> Outcome {
        Outcome::Reply(Err(error.into()))
    }
}

impl Kind for Done {
    fn failed(error: ExtractError) -> Outcome {
        Outcome::Done(Err(error.into()))
    }
}

impl Kind for Admission {
    fn failed(error: ExtractError) -> Outcome {
        tracing::debug!(error = &error as &dyn std::error::Error, "a middleware could not be called");
        Outcome::Admission(Err(ConnectError::new("invalid auth")))
    }
}

impl Kind for Verdict {
    fn failed(error: ExtractError) -> Outcome {
        Outcome::Verdict(Err(EventError::new(error.to_string())))
    }
}

/// A type that handlers of the kind `K` may return: see [`Reply`], [`Done`], [`Admission`] and [`Verdict`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not what a handler of this kind returns ({K})",
    note = "event handlers return `()`, `Ack(value)` or a `Result` of them; middlewares `Result<(), ConnectError>`; event middlewares `Result<(), EventError>`"
)]
pub trait Returns<K> {
    #[doc(hidden)]
    fn into_outcome(self) -> Outcome;
}

impl Returns<Reply> for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Reply(Ok(None))
    }
}

impl<T: IntoArgs> Returns<Reply> for Ack<T> {
    fn into_outcome(self) -> Outcome {
        Outcome::Reply(self.0.into_args().map(Some).map_err(Into::into))
    }
}

impl<T: Returns<Reply>, E: Into<BoxError>> Returns<Reply> for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        self.map_or_else(|error| Outcome::Reply(Err(error.into())), T::into_outcome)
    }
}

impl Returns<Done> for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Done(Ok(()))
    }
}

impl<E: Into<BoxError>> Returns<Done> for Result<(), E> {
    fn into_outcome(self) -> Outcome {
        Outcome::Done(self.map_err(Into::into))
    }
}

impl Returns<Admission> for Result<(), ConnectError> {
    fn into_outcome(self) -> Outcome {
        Outcome::Admission(self)
    }
}

impl Returns<Verdict> for Result<(), EventError> {
    fn into_outcome(self) -> Outcome {
        Outcome::Verdict(self.map(|()| None))
    }
}

impl Returns<Verdict> for Result<Event, EventError> {
    fn into_outcome(self) -> Outcome {
        Outcome::Verdict(self.map(Some))
    }
}

/// A handler that waits.
pub(super) type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What calling a handler comes to.
#[doc(hidden)]
pub enum Step {
    Done(Outcome),
    Wait(Pin<Box<dyn Future<Output = Outcome> + Send>>),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Done(_)) { "Done" } else { "Wait" })
    }
}

/// A function or closure with up to six arguments that can be taken from a `C`, and that returns what a handler of the kind `K` returns; `M` tells the
/// forms apart and is inferred.
///
/// Async functions and closures that do not use their surroundings are handlers as they stand. An async closure that uses them has to be written as a closure
/// that returns an async block, or takes what it needs as [`State`](super::State):
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use stickyport::hub::{Ack, Namespace, State};
///
/// let visits = Arc::new(AtomicU64::new(0));
///
/// let namespace = Namespace::new("/")
///     // not async
///     .on("ping", || Ack("pong"))
///     // async
///     .on("later", async || Ack("in time"))
///     // async, with surroundings
///     .on("visit", {
///         let visits = Arc::clone(&visits);
///         move || {
///             let visits = Arc::clone(&visits);
///             async move { Ack(visits.fetch_add(1, Ordering::Relaxed)) }
///         }
///     })
///     // async, with state
///     .on("visits", async |State(visits): State<Arc<AtomicU64>>| Ack(visits.load(Ordering::Relaxed)));
///
/// stickyport::hub::SocketIo::builder().state(visits).namespace(namespace).build();
/// ```
#[diagnostic::on_unimplemented(
    message = "this function cannot be a handler here",
    label = "not a handler for {C}",
    note = "its arguments must be extractors for this place (`Socket`, `Data<T>`, `All<T>`, `Args`, `AckSender`, `Event`, `State<T>`, `Auth<T>`, `DisconnectReason`, …), not references, its future must be `Send`, and its return type one that fits",
    note = "an async closure that uses its surroundings must be written `move |…| {{ let x = x.clone(); async move {{ … }} }}`, or take them as `State<T>`"
)]
pub trait Handler<C, K, M>: Send + Sync + 'static {
    #[doc(hidden)]
    fn call(&self, context: &C) -> Step;
    #[doc(hidden)]
    fn needs(needs: &mut Needs);
}

/// Marks a handler that is not async.
#[derive(Debug)]
pub enum Immediate {}

/// Marks a handler that is async.
#[derive(Debug)]
pub enum Waiting {}

macro_rules! handler {
    ($($arg:ident),*) => {
        #[allow(non_snake_case, unused_variables, clippy::allow_attributes)]
        impl<Func, C, K, Out, $($arg),*> Handler<C, K, (Immediate, Out, $($arg),*)> for Func
        where
            Func: Fn($($arg),*) -> Out + Send + Sync + 'static,
            Out: Returns<K>,
            K: Kind,
            $($arg: FromContext<C>),*
        {
            fn call(&self, context: &C) -> Step {
                $(let $arg = match $arg::from_context(context) {
                    Ok(value) => value,
                    Err(error) => return Step::Done(K::failed(error)),
                };)*
                Step::Done(self($($arg),*).into_outcome())
            }

            fn needs(needs: &mut Needs) {
                $($arg::needs(needs);)*
            }
        }

        #[allow(non_snake_case, unused_variables, clippy::allow_attributes)]
        impl<Func, C, K, Out, Fut, $($arg),*> Handler<C, K, (Waiting, Out, Fut, $($arg),*)> for Func
        where
            Func: Fn($($arg),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Out> + Send + 'static,
            Out: Returns<K>,
            K: Kind,
            $($arg: FromContext<C>),*
        {
            fn call(&self, context: &C) -> Step {
                $(let $arg = match $arg::from_context(context) {
                    Ok(value) => value,
                    Err(error) => return Step::Done(K::failed(error)),
                };)*
                let future = self($($arg),*);
                Step::Wait(Box::pin(async move { future.await.into_outcome() }))
            }

            fn needs(needs: &mut Needs) {
                $($arg::needs(needs);)*
            }
        }
    };
}

handler!();
handler!(A1);
handler!(A1, A2);
handler!(A1, A2, A3);
handler!(A1, A2, A3, A4);
handler!(A1, A2, A3, A4, A5);
handler!(A1, A2, A3, A4, A5, A6);

/// A handler whose own type is forgotten.
pub(super) trait Call<C>: Send + Sync {
    fn call(&self, context: &C) -> Step;
}

struct Erased<H, K, M>(H, PhantomData<fn() -> (K, M)>);

impl<C, K: 'static, M: 'static, H: Handler<C, K, M>> Call<C> for Erased<H, K, M> {
    fn call(&self, context: &C) -> Step {
        self.0.call(context)
    }
}

/// Forgets a handler's own type, and notes what it needs.
pub(super) fn erase<C, K: 'static, M: 'static, H: Handler<C, K, M>>(handler: H, needs: &mut Needs) -> Box<dyn Call<C>> {
    H::needs(needs);
    Box::new(Erased(handler, PhantomData))
}

/// What a panic said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Panic(pub(super) String);

impl From<Box<dyn Any + Send>> for Panic {
    fn from(payload: Box<dyn Any + Send>) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        Self(text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "not a text".to_owned()))
    }
}

/// Calls what an application wrote.
pub(super) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, Panic> {
    // What a panic leaves half done is the application's own, as with a panic in a task.
    catch_unwind(AssertUnwindSafe(call)).map_err(Panic::from)
}

/// A handler that waits, and whose panics are values.
pub(super) struct Guarded(pub(super) Work);

impl Future for Guarded {
    type Output = Result<Outcome, Panic>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match guarded(|| self.0.as_mut().poll(cx)) {
            Ok(Poll::Ready(outcome)) => Poll::Ready(Ok(outcome)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}
