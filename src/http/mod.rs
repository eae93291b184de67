//! HTTP: the listeners, Engine.IO over HTTP, and what the shared port answers.

pub mod client_address;
pub mod client_script;
pub mod compression;
pub mod connection;
pub mod cors;
pub mod engine;
pub mod jsonp;
pub mod listen;
pub mod metrics;
pub mod options;
pub mod own;

pub use crate::engine::stream::{Peer, Stream};
pub use engine::EngineIo;
pub use listen::{ListenError, Listener, Listeners};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

/// What a request is answered.
pub type Answer = Response<Full<Bytes>>;

/// An answer without headers of its own.
pub(crate) fn plain(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer
}
