//! What the fuzz targets do with their input: cargo-fuzz runs it on bytes that it makes up, and `corpus.rs` on those that were kept.
//!
//! A target panics when an invariant does not hold; there is nothing else to report. `tests/run --long fuzz` gives each half a minute; for one alone:
//!
//! ```sh
//! cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none session /tmp/found tests/fuzz/corpus/session
//! ```
//!
//! An input that broke something is kept in the corpus under a name that says what. Those with a hash for a name reach most of the code between them; they are
//! few, so that they can be replaced whole: `-set_cover_merge=1 -use_counters=0` picks them out of what a long run has found.

mod client;
mod cluster;
mod eio;
mod http;
mod input;
mod session;
mod setting;
mod sio;
mod websocket;

/// A target's name and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("client", client::client),
    ("packet", eio::packet),
    ("payload", eio::payload),
    ("payload_v3", eio::payload_v3),
    ("query", eio::query),
    ("base64", eio::base64),
    ("sid", eio::sid),
    ("session", session::session),
    ("event", sio::event),
    ("args", sio::args),
    ("forwarded", http::forwarded),
    ("headers", http::headers),
    ("jsonp", http::jsonp),
    ("setting", setting::setting),
    ("websocket", websocket::websocket),
    ("msgpack", sio::msgpack),
    ("cluster_broadcast", cluster::broadcast),
    ("cluster_request", cluster::request),
    ("cluster_response", cluster::response),
    ("cluster_message", cluster::message),
    ("cluster_entry", cluster::entry),
    ("cluster_session", cluster::session),
];

/// Runs the target of that name.
///
/// # Panics
/// When an invariant does not hold.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).expect("a name from the list above");
    target(data);
}
