//! HTTP: the listeners, Engine.IO over HTTP, and what the shared port answers.

pub mod client_address;
pub mod listen;
pub mod metrics;
pub mod options;

pub use listen::{Listener, Listeners, Peer, Stream};
