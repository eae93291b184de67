//! What a client may send: connect, disconnect, events and acknowledgements, each in one namespace.

use super::Args;
use bytestring::ByteString;
use smol_str::SmolStr;
use std::fmt;

/// One Socket.IO packet, its attachments included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// `/`, or `/name` as the client wrote it: it may carry a `?query`.
    pub namespace: ByteString,
    /// What it says there.
    pub body: Body,
}

/// What a packet says; the binary kinds of the wire are told by their [`Args`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// `0`
    Connect {
        /// The client's credentials: a JSON object, unparsed.
        auth: Option<ByteString>,
    },
    /// `1`
    Disconnect,
    /// `2` and `5`
    Event {
        /// Never one of the reserved names; a number reads as its text.
        name: SmolStr,
        /// What follows the name.
        args: Args,
        /// Present when the client waits for an acknowledgement.
        ack: Option<AckId>,
    },
    /// `3` and `6`
    Ack {
        /// The id of our event; `None` when it cannot be one of ours.
        id: Option<u64>,
        /// What the client answers.
        args: Args,
    },
    /// `4`, from the server only: a client that sends it breaks the protocol.
    ConnectError {
        /// A JSON object or string, unparsed.
        data: Option<ByteString>,
    },
}

/// A client's acknowledgement id, to be echoed: its digits and not their value, which may be above 2^64.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AckId(pub(super) ByteString);

impl AckId {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<u64> for AckId {
    fn from(id: u64) -> Self {
        Self(id.to_string().into())
    }
}

impl fmt::Debug for AckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AckId({})", self.0)
    }
}

impl fmt::Display for AckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
