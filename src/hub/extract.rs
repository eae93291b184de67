//! What a handler's arguments may be.

use super::ack::AckSender;
use super::errors::{DisconnectReason, ExtractError};
use super::event::Event;
use super::handler::{ConnectContext, Context, DisconnectContext, EventContext};
use super::handshake::Handshake;
use super::socket::Socket;
use super::socketio::SocketIo;
use crate::protocol::sio::Args;
use serde::de::DeserializeOwned;
use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::fmt;

/// A type that a handler may take as an argument where it is called with a `C`.
///
/// An application may add its own:
///
/// ```
/// use serde::Deserialize;
/// use stickyport::hub::{Ack, Context, ExtractError, FromContext, Namespace};
///
/// /// Whom the client says it is, from the data that a middleware has set.
/// #[derive(Deserialize)]
/// struct User {
///     name: String,
/// }
///
/// impl<C: Context> FromContext<C> for User {
///     fn from_context(context: &C) -> Result<Self, ExtractError> {
///         context.socket().data().map_err(ExtractError::Auth)
///     }
/// }
///
/// Namespace::new("/").on("whoami", async |user: User| Ack(user.name));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of this handler",
    label = "not to be had from {C}",
    note = "arguments of events are `Data<T>` (the first), `All<T>` (a tuple of all) or `Args` (as they came)"
)]
pub trait FromContext<C>: Sized {
    /// Takes the value from what happened.
    ///
    /// # Errors
    /// It is not there, or of another type; the handler is not called then.
    fn from_context(context: &C) -> Result<Self, ExtractError>;

    #[doc(hidden)]
    fn needs(_needs: &mut Needs) {}
}

/// The first argument of an event, as `T`; one that is missing reads as null.
///
/// ```
/// use bytes::Bytes;
/// use serde::Deserialize;
/// use stickyport::hub::{Data, Namespace};
///
/// #[derive(Deserialize)]
/// struct Upload {
///     name: String,
///     content: Bytes,
/// }
///
/// Namespace::new("/").on("upload", async |Data(upload): Data<Upload>| {
///     println!("{} has {} bytes", upload.name, upload.content.len());
/// });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<T>(pub T);

/// All arguments of an event, as a tuple or another type that reads from a list.
///
/// ```
/// use stickyport::hub::{Ack, All, Namespace};
///
/// Namespace::new("/").on("sum", async |All((a, b)): All<(i64, i64)>| Ack(a + b));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct All<T>(pub T);

/// What the client sent as `auth` when it connected, as `T`; without any it reads as `{}`.
///
/// A middleware that cannot have it refuses the client with "invalid auth".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth<T>(pub T);

/// A clone of what [`state`](super::Builder::state) was given; large things go into an `Arc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State<T>(pub T);

impl<C: Context> FromContext<C> for Socket {
    fn from_context(context: &C) -> Result<Self, ExtractError> {
        Ok(context.socket().clone())
    }
}

impl<C: Context> FromContext<C> for SocketIo {
    fn from_context(context: &C) -> Result<Self, ExtractError> {
        Ok(context.socket().io().clone())
    }
}

impl<C: Context> FromContext<C> for Handshake {
    fn from_context(context: &C) -> Result<Self, ExtractError> {
        Ok(context.socket().handshake().clone())
    }
}

impl<C: Context, T: DeserializeOwned> FromContext<C> for Auth<T> {
    fn from_context(context: &C) -> Result<Self, ExtractError> {
        context.socket().handshake().auth().map(Self).map_err(ExtractError::Auth)
    }
}

impl<C: Context, T: Clone + Send + Sync + 'static> FromContext<C> for State<T> {
    fn from_context(context: &C) -> Result<Self, ExtractError> {
        let state = context.socket().io().state::<T>();
        Ok(Self(state.expect("checked when the namespace was added").clone()))
    }

    fn needs(needs: &mut Needs) {
        needs.0.insert(TypeId::of::<T>(), type_name::<T>());
    }
}

/// Lets the handler see what is wrong with an argument, where it would not be called otherwise.
impl<C, T: FromContext<C>> FromContext<C> for Result<T, ExtractError> {
    fn from_context(context: &C) -> Result<Self, ExtractError> {
        Ok(T::from_context(context))
    }

    fn needs(needs: &mut Needs) {
        T::needs(needs);
    }
}

impl FromContext<EventContext> for Event {
    fn from_context(context: &EventContext) -> Result<Self, ExtractError> {
        Ok(context.event.clone())
    }
}

impl FromContext<EventContext> for Args {
    fn from_context(context: &EventContext) -> Result<Self, ExtractError> {
        Ok(context.event.args().clone())
    }
}

impl FromContext<EventContext> for AckSender {
    fn from_context(context: &EventContext) -> Result<Self, ExtractError> {
        Ok(context.event.ack().clone())
    }
}

impl<T: DeserializeOwned> FromContext<EventContext> for Data<T> {
    fn from_context(context: &EventContext) -> Result<Self, ExtractError> {
        Ok(Self(context.event.args().first()?))
    }
}

impl<T: DeserializeOwned> FromContext<EventContext> for All<T> {
    fn from_context(context: &EventContext) -> Result<Self, ExtractError> {
        Ok(Self(context.event.args().all()?))
    }
}

impl FromContext<DisconnectContext> for DisconnectReason {
    fn from_context(context: &DisconnectContext) -> Result<Self, ExtractError> {
        Ok(context.reason)
    }
}

impl FromContext<Self> for ConnectContext {
    fn from_context(context: &Self) -> Result<Self, ExtractError> {
        Ok(context.clone())
    }
}

/// The types of state that handlers take.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Needs(HashMap<TypeId, &'static str>);

/// One value per type.
#[derive(Default)]
pub(super) struct States(HashMap<TypeId, Box<dyn Any + Send + Sync>>);

impl States {
    pub(super) fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(value));
    }

    pub(super) fn get<T: 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// Panics with the names of the types that are missing.
    pub(super) fn check(&self, needs: &Needs, namespace: &str) {
        let missing = needs.0.iter().filter(|(id, _)| !self.0.contains_key(*id)).map(|(_, name)| *name);
        let missing: Vec<_> = missing.collect();
        assert!(
            missing.is_empty(),
            "handlers of {namespace} take State<{}>, which Builder::state was not given",
            missing.join(">, State<")
        );
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "States({})", self.0.len())
    }
}
