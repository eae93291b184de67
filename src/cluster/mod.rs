//! Many instances as one: the adapter that joins a node to the others over Redis, and what they say to each other.
//!
//! [`Redis`] speaks the protocol of `@socket.io/redis-adapter` 8 or of `@socket.io/redis-streams-adapter`, so that the others may be of Node as well as ours. The forms of its messages are in
//! [`wire`], which knows nothing of Redis; the connection and what is queued for it are apart from what is said over it.

mod emitter;
mod inbound;
mod lease;
mod link;
mod members;
mod options;
mod outbox;
mod periodic;
mod questions;
mod redis;
mod registry;
mod streams;
mod survey;
pub mod wire;

pub use emitter::{Emission, Emitter, EmitterError};
pub use options::{Options, Protocol};
pub use periodic::{Periodic, Turn};
pub use redis::{Redis, UrlError};
pub use registry::{Fleet, FleetError, NodeInfo, NodeState};
pub use survey::{Buffer, Obstacle, Survey, SurveyError};
