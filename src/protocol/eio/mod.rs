//! Engine.IO 4 on the wire: packets, polling payloads, WebSocket frames, the query and the handshake.

mod encoded;
pub mod handshake;
mod packet;
pub mod payload;

pub use encoded::Encoded;
pub use packet::{Message, Packet, PacketError};
