//! What happens in a namespace: its handlers, declared before anyone comes.

use super::dynamic::{Address, Family, NamespaceRequest};
use super::errors::SocketError;
use super::event::{Event, is_reserved};
use super::extract::Needs;
use super::handler::{Admission, Call, ConnectContext, DisconnectContext, Done, EventContext, Handler, Reply, Verdict, erase};
use super::live::RoomEvent;
use super::server_event::ServerEvent;
use super::socket::Socket;
use crate::engine::TransportKind;
use bytestring::ByteString;
use regex::Regex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

type Hook<T> = Box<dyn Fn(&Socket, T) + Send + Sync>;
type ErrorHook = Box<dyn Fn(&Socket, &SocketError) + Send + Sync>;
type EventHook = Box<dyn Fn(&Socket, &Event) + Send + Sync>;
type ServerHook = Box<dyn Fn(&ServerEvent) + Send + Sync>;
type RoomHook = Box<dyn Fn(&str, &RoomEvent) + Send + Sync>;

/// A namespace and what happens in it, declared before anyone comes.
///
/// Handlers belong to the namespace and are given the socket. They are functions or closures, async or not, whose arguments say what they want to have:
/// see [`Handler`]. Several handlers of one kind, or of one event, run one after the other in the order in which they were declared.
///
/// One socket's handlers run strictly one after another, in the order in which things happened to it: the next event waits until the handlers of the one
/// before are done. Other sockets, those of the same client in other namespaces included, do not wait. A handler that is to go on for long while its socket's
/// events are handled spawns a task.
///
/// ```
/// use serde::Deserialize;
/// use stickyport::hub::{Ack, Auth, ConnectError, Data, DisconnectReason, HandlerResult, Namespace, Socket, SocketIo};
///
/// #[derive(Deserialize)]
/// struct Credentials {
///     user: String,
/// }
///
/// let chat = Namespace::new("/chat")
///     .middleware(async |socket: Socket, Auth(credentials): Auth<Credentials>| {
///         if credentials.user.is_empty() {
///             return Err(ConnectError::new("who are you?"));
///         }
///         socket.set_data(&credentials.user).map_err(|_| ConnectError::new("try again"))
///     })
///     .on_connect(async |socket: Socket| -> HandlerResult {
///         socket.join("everyone")?;
///         socket.to("everyone").emit("joined", socket.data::<String>()?)?;
///         Ok(())
///     })
///     .on("say", async |socket: Socket, Data(text): Data<String>| -> HandlerResult<Ack<usize>> {
///         socket.to("everyone").emit("said", (socket.data::<String>()?, &text))?;
///         Ok(Ack(text.len()))
///     })
///     .on_disconnect(async |socket: Socket, reason: DisconnectReason| -> HandlerResult {
///         socket.io().of("/chat").to("everyone").emit("left", (socket.data::<String>()?, reason.as_str()))?;
///         Ok(())
///     });
///
/// let io = SocketIo::builder().namespace(chat).build();
/// ```
pub struct Namespace {
    address: Address,
    label: Option<String>,
    behaviour: Behaviour,
    needs: Needs,
}

/// Everything that is called in a namespace.
#[derive(Default)]
pub(super) struct Behaviour {
    pub(super) middlewares: Vec<Box<dyn Call<ConnectContext>>>,
    pub(super) connect: Vec<Box<dyn Call<ConnectContext>>>,
    pub(super) any: Vec<Box<dyn Call<EventContext>>>,
    pub(super) event_middlewares: Vec<Box<dyn Call<EventContext>>>,
    pub(super) events: BTreeMap<ByteString, Vec<Box<dyn Call<EventContext>>>>,
    pub(super) disconnecting: Vec<Box<dyn Call<DisconnectContext>>>,
    pub(super) disconnect: Vec<Box<dyn Call<DisconnectContext>>>,
    pub(super) outgoing: Vec<EventHook>,
    pub(super) error: Vec<ErrorHook>,
    pub(super) upgrade: Vec<Hook<TransportKind>>,
    pub(super) room: Vec<RoomHook>,
    pub(super) server: Vec<ServerHook>,
}

impl Namespace {
    /// The namespace of that name; a slash is put in front if it has none.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self::at(Address::Name(if name.starts_with('/') { name.into() } else { format!("/{name}").into() }))
    }

    /// Every namespace whose name matches; each is made when its first client comes, and is a namespace of its own.
    ///
    /// ```
    /// use stickyport::hub::{Namespace, Regex, Socket};
    ///
    /// let tenants = Namespace::matching(Regex::new(r"^/tenant-\d+$")?)
    ///     .on_connect(async |socket: Socket| println!("somebody is in {}", socket.namespace()));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn matching(pattern: Regex) -> Self {
        Self::at(Address::Pattern(pattern))
    }

    /// Every namespace that `allow` says yes to; asked when a client wants to be in one that does not exist, patterns and functions in the order of their
    /// declaration.
    ///
    /// ```
    /// use serde::Deserialize;
    /// use stickyport::hub::{Namespace, NamespaceRequest};
    ///
    /// #[derive(Deserialize)]
    /// struct Token {
    ///     token: u32,
    /// }
    ///
    /// let secret = Namespace::dynamic(async |request: NamespaceRequest| {
    ///     request.name().starts_with("/secret-") && request.handshake().auth::<Token>().is_ok_and(|auth| auth.token == 42)
    /// });
    /// ```
    pub fn dynamic<F, R>(allow: F) -> Self
    where
        F: Fn(NamespaceRequest) -> R + Send + Sync + 'static,
        R: Future<Output = bool> + Send + 'static,
    {
        Self::at(Address::Function(Box::new(move |request| Box::pin(allow(request)))))
    }

    fn at(address: Address) -> Self {
        Self { address, label: None, behaviour: Behaviour::default(), needs: Needs::default() }
    }

    /// The name by which [`SocketIo::children`](super::SocketIo::children) reaches all namespaces that are made from this declaration; a pattern is its own
    /// label.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Decides whether a client may come in; several are asked in turn, and the first error is the answer.
    ///
    /// The socket has its id, its handshake and its data, may join rooms, and hears no broadcast yet. If its client goes meanwhile, a middleware that
    /// waits is dropped where it waits.
    ///
    /// ```
    /// use stickyport::hub::{ConnectError, Namespace, Socket};
    ///
    /// Namespace::new("/admin").middleware(async |socket: Socket| {
    ///     if socket.handshake().header("x-admin").is_none() {
    ///         return Err(ConnectError::new("not authorized").data(&"please use the front door"));
    ///     }
    ///     Ok(())
    /// });
    /// ```
    #[must_use]
    pub fn middleware<M: 'static>(mut self, handler: impl Handler<ConnectContext, Admission, M>) -> Self {
        self.behaviour.middlewares.push(erase(handler, &mut self.needs));
        self
    }

    /// Called when a client has come in; its events wait until this is done.
    #[must_use]
    pub fn on_connect<M: 'static>(mut self, handler: impl Handler<ConnectContext, Done, M>) -> Self {
        self.behaviour.connect.push(erase(handler, &mut self.needs));
        self
    }

    /// Called with every event of that name.
    ///
    /// # Panics
    /// The name is reserved, such as `disconnect`: see [`Namespace::on_disconnect`].
    #[must_use]
    pub fn on<M: 'static>(mut self, event: impl Into<ByteString>, handler: impl Handler<EventContext, Reply, M>) -> Self {
        let event = event.into();
        assert!(!is_reserved(&event), "clients cannot send `{event}`; see on_connect, on_disconnecting and on_disconnect");
        self.behaviour.events.entry(event).or_default().push(erase(handler, &mut self.needs));
        self
    }

    /// Called with every event, before its middlewares and its own handlers.
    #[must_use]
    pub fn on_any<M: 'static>(mut self, handler: impl Handler<EventContext, Reply, M>) -> Self {
        self.behaviour.any.push(erase(handler, &mut self.needs));
        self
    }

    /// Decides whether an event goes on to its handlers; several are asked in turn, and the first error ends it, told to [`Namespace::on_error`].
    ///
    /// One that returns an event puts it in the place of the one that came.
    ///
    /// ```
    /// use stickyport::hub::{Event, EventError, Namespace, Socket};
    ///
    /// Namespace::new("/")
    ///     .event_middleware(async |socket: Socket, event: Event| {
    ///         if event.name() == "ban" && socket.data::<String>().ok().as_deref() != Some("admin") {
    ///             return Err(EventError::new("not yours to say"));
    ///         }
    ///         Ok(())
    ///     })
    ///     .event_middleware(|event: Event| -> Result<Event, EventError> {
    ///         let name = event.name().to_lowercase();
    ///         Ok(event.with_name(name))
    ///     });
    /// ```
    #[must_use]
    pub fn event_middleware<M: 'static>(mut self, handler: impl Handler<EventContext, Verdict, M>) -> Self {
        self.behaviour.event_middlewares.push(erase(handler, &mut self.needs));
        self
    }

    /// Called when a client goes, while [`Socket::rooms`] still says where it was.
    ///
    /// No broadcast reaches the socket any more. It is called after the handlers of the events that came before; those that still waited when the server
    /// itself sent the client away are dropped.
    #[must_use]
    pub fn on_disconnecting<M: 'static>(mut self, handler: impl Handler<DisconnectContext, Done, M>) -> Self {
        self.behaviour.disconnecting.push(erase(handler, &mut self.needs));
        self
    }

    /// Called when a client has gone and left its rooms: the last that is heard of a socket.
    #[must_use]
    pub fn on_disconnect<M: 'static>(mut self, handler: impl Handler<DisconnectContext, Done, M>) -> Self {
        self.behaviour.disconnect.push(erase(handler, &mut self.needs));
        self
    }

    /// Called inline with every event that is sent to a socket, volatile ones that are dropped included.
    #[must_use]
    pub fn on_any_outgoing(mut self, hook: impl Fn(&Socket, &Event) + Send + Sync + 'static) -> Self {
        self.behaviour.outgoing.push(Box::new(hook));
        self
    }

    /// Called inline with what goes wrong on a socket; it is logged at DEBUG and counted without this.
    #[must_use]
    pub fn on_error(mut self, hook: impl Fn(&Socket, &SocketError) + Send + Sync + 'static) -> Self {
        self.behaviour.error.push(Box::new(hook));
        self
    }

    /// Called inline when the session below a socket has moved to another transport.
    #[must_use]
    pub fn on_upgrade(mut self, hook: impl Fn(&Socket, TransportKind) + Send + Sync + 'static) -> Self {
        self.behaviour.upgrade.push(Box::new(hook));
        self
    }

    /// Called inline with the namespace's name when a room is made or dropped, or a socket joins or leaves one.
    #[must_use]
    pub fn on_room(mut self, hook: impl Fn(&str, &RoomEvent) + Send + Sync + 'static) -> Self {
        self.behaviour.room.push(Box::new(hook));
        self
    }

    /// Called inline with every event that another server of the cluster sends to this one, with
    /// [`server_side_emit`](super::Broadcast::server_side_emit) or the reference's `serverSideEmit`.
    ///
    /// ```
    /// use stickyport::hub::{Namespace, ServerEvent};
    ///
    /// Namespace::new("/").on_server_event(|event: &ServerEvent| {
    ///     if event.name() == "load?" {
    ///         let _ = event.acknowledge(0.25);
    ///     }
    /// });
    /// ```
    #[must_use]
    pub fn on_server_event(mut self, hook: impl Fn(&ServerEvent) + Send + Sync + 'static) -> Self {
        self.behaviour.server.push(Box::new(hook));
        self
    }

    pub(super) fn needs(&self) -> &Needs {
        &self.needs
    }

    pub(super) fn describe(&self) -> String {
        match &self.address {
            Address::Name(name) => name.to_string(),
            Address::Pattern(pattern) => pattern.to_string(),
            Address::Function(_) => self.label.clone().unwrap_or_else(|| "a dynamic namespace".to_owned()),
        }
    }

    pub(super) fn into_parts(self) -> Declared {
        let Self { address, label, behaviour, .. } = self;
        let behaviour = Arc::new(behaviour);
        match address {
            Address::Name(name) => Declared::Static(name, behaviour),
            address => Declared::Family(Arc::new(Family::new(address, label, behaviour))),
        }
    }
}

/// What a declaration comes to.
pub(super) enum Declared {
    Static(ByteString, Arc<Behaviour>),
    Family(Arc<Family>),
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace").field("address", &self.describe()).finish_non_exhaustive()
    }
}
