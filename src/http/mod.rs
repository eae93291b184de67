//! HTTP: the listeners, Engine.IO over HTTP, and what the shared port answers.

pub mod client_address;
pub mod client_script;
pub mod listen;
pub mod options;

pub use crate::engine::stream::{Peer, Stream};
pub use listen::{Listener, Listeners};
