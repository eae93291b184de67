//! What the cluster knows of a socket, wherever it is.

use super::ack::PendingAcks;
use super::broadcast::Broadcast;
use super::errors::{AckError, EmitError};
use super::event::IntoArgs;
use super::handshake::Handshake;
use super::room::{Room, Rooms};
use super::rooms::Target;
use super::socket::Socket;
use super::socketio::SocketIo;
use crate::protocol::sid::SocketId;
use crate::protocol::sio::Args;
use bytestring::ByteString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

/// A socket on any node, as it was when [`fetch_sockets`](Broadcast::fetch_sockets) asked; what is done with it is done where it is.
///
/// It serialises to the reference's `{"id":…,"handshake":…,"rooms":[…],"data":…}`.
#[derive(Debug, Clone, Serialize)]
pub struct RemoteSocket {
    id: SocketId,
    handshake: Handshake,
    rooms: Vec<Room>,
    data: Arc<RawValue>,
    #[serde(skip)]
    operator: Broadcast,
}

impl RemoteSocket {
    pub(crate) fn of(socket: &Socket) -> Self {
        let state = socket.state().clone();
        let target = Target { rooms: vec![Room::from(socket.id())], except: Vec::new() };
        Self {
            id: socket.id().clone(),
            handshake: socket.handshake().clone(),
            rooms: state.rooms,
            data: state.data,
            operator: Broadcast::of(socket.io().clone(), socket.live().name.clone(), target),
        }
    }

    /// What another node tells of a socket.
    ///
    /// # Errors
    /// It is not of the reference's form.
    pub(super) fn told(io: &SocketIo, namespace: &ByteString, json: &RawValue) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Told<'a> {
            id: &'a str,
            #[serde(deserialize_with = "Handshake::told")]
            handshake: Handshake,
            rooms: Vec<Room>,
            #[serde(default)]
            data: Option<Box<RawValue>>,
        }
        let Told { id, handshake, rooms, data } = serde_json::from_str(json.get())?;
        let target = Target { rooms: vec![Room::from(id)], except: Vec::new() };
        Ok(Self {
            id: id.into(),
            handshake,
            rooms,
            data: data.unwrap_or_else(|| RawValue::from_string("{}".to_owned()).expect("an object")).into(),
            operator: Broadcast::of(io.clone(), namespace.clone(), target),
        })
    }

    /// Its id.
    pub fn id(&self) -> &SocketId {
        &self.id
    }

    /// The request that it came with.
    pub fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// The rooms that it was in.
    pub fn rooms(&self) -> &[Room] {
        &self.rooms
    }

    /// Its data as `T`; `{}` if none was set.
    ///
    /// # Errors
    /// It is of another type.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.data.get())
    }

    /// Sends it an event; that it has gone meanwhile is no error.
    ///
    /// # Errors
    /// The name is reserved, or the arguments have no form in JSON.
    pub fn emit(&self, event: &str, args: impl IntoArgs) -> Result<(), EmitError> {
        self.operator.emit(event, args)
    }

    /// Sends it an event and waits so long for its acknowledgement.
    ///
    /// # Errors
    /// None came, the socket has gone, or the event could not be encoded.
    pub async fn emit_with_ack(&self, timeout: Duration, event: &str, args: impl IntoArgs) -> Result<Args, AckError> {
        let pending: PendingAcks = self.operator.clone().timeout(timeout).emit_with_ack(event, args);
        let reply = pending.await?;
        let is_gone = reply.replies.is_empty() && reply.missing == 0;
        let first = reply.replies.into_iter().next();
        first.map(|(_, args)| args).ok_or(if is_gone { AckError::Disconnected } else { AckError::Timeout })
    }

    /// Lets it join a room or several.
    pub fn join(&self, rooms: impl Rooms) {
        self.operator.sockets_join(rooms);
    }

    /// Lets it leave a room or several.
    pub fn leave(&self, rooms: impl Rooms) {
        self.operator.sockets_leave(rooms);
    }

    /// Sends it out of its namespace, as [`Socket::disconnect`] does.
    pub fn disconnect(&self, close: bool) {
        self.operator.disconnect_sockets(close);
    }
}
