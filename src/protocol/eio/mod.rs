//! Engine.IO 4 and 3 on the wire: packets, polling payloads, WebSocket frames, the query and the handshake.

mod encoded;
pub mod handshake;
mod packet;
pub mod payload;
pub mod v3;

pub use encoded::Encoded;
pub use handshake::Version;
pub use packet::{Message, Packet, PacketError};
