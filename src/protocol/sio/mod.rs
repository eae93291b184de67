//! Socket.IO 5 on the wire: packets, their attachments, and arguments.

mod args;
mod decode;
mod deserialize;
mod encode;
mod json;
mod msgpack;
mod packet;
mod parser;
mod serialize;
pub(crate) mod transcode;

pub use args::{Args, ArgsError};
pub use decode::{DecodeError, Decoder};
pub(crate) use decode::{json_name_and_arguments, part};
pub(crate) use msgpack::{arguments, name_and_arguments};
pub use packet::{AckId, Body, Packet};
pub use parser::Parser;
