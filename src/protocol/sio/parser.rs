//! Which parser a server and its clients have agreed upon: how a packet becomes messages, and messages a packet.

use super::{AckId, Args, encode, msgpack};
use crate::protocol::eio::Encoded;
use crate::protocol::limits::Limits;
use crate::protocol::sid::SocketId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// How packets are written; a server and all its clients use the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parser {
    /// The reference's own: a text, and a binary message for each attachment.
    #[default]
    Json,
    /// `socket.io-msgpack-parser`: each packet is one binary message, whatever it holds.
    MsgPack,
}

impl Parser {
    /// The client is connected to the namespace under this id, which clients of Socket.IO 2 are not told; `pid` lets it recover the connection.
    pub fn connect(self, namespace: &str, id: Option<&SocketId>, pid: Option<&str>) -> Encoded {
        match self {
            Self::Json => encode::connect(namespace, id, pid),
            Self::MsgPack => msgpack::connect(namespace, id, pid),
        }
    }

    /// The client is not connected to the namespace.
    pub fn connect_error(self, namespace: &str, message: &str, data: Option<&RawValue>) -> Encoded {
        match self {
            Self::Json => encode::connect_error(namespace, message, data),
            Self::MsgPack => msgpack::connect_error(namespace, message, data),
        }
    }

    /// A middleware does not let a client of Socket.IO 2 into the namespace: it is told the data, or else the message.
    pub fn plain_connect_error(self, namespace: &str, message: &str, data: Option<&RawValue>) -> Encoded {
        match self {
            Self::Json => encode::plain_connect_error(namespace, message, data),
            Self::MsgPack => msgpack::plain_connect_error(namespace, message, data),
        }
    }

    /// The client is out of the namespace and will not come back by itself.
    pub fn disconnect(self, namespace: &str) -> Encoded {
        match self {
            Self::Json => encode::disconnect(namespace),
            Self::MsgPack => msgpack::disconnect(namespace),
        }
    }

    /// An event; `ack` asks for an acknowledgement.
    pub fn event(self, namespace: &str, ack: Option<u64>, name: &str, args: &Args) -> Vec<Encoded> {
        match self {
            Self::Json => encode::event(namespace, ack, name, args),
            Self::MsgPack => vec![msgpack::event(namespace, ack, name, args)],
        }
    }

    /// The acknowledgement that a client waits for under this id.
    pub fn ack(self, namespace: &str, id: &AckId, args: &Args) -> Vec<Encoded> {
        match self {
            Self::Json => encode::ack(namespace, id, args),
            Self::MsgPack => vec![msgpack::ack(namespace, id, args)],
        }
    }

    /// How many binary values a packet may hold.
    pub const fn max_attachments(self, limits: &Limits) -> usize {
        match self {
            Self::Json => limits.attachments,
            Self::MsgPack => limits.msgpack_attachments,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parser_has_a_bound_of_its_own() {
        let limits = Limits { attachments: 1, msgpack_attachments: 2, ..Limits::default() };
        assert_eq!([Parser::Json, Parser::MsgPack].map(|parser| parser.max_attachments(&limits)), [1, 2]);
    }
}
