//! What the fuzz targets do with their input: cargo-fuzz runs it on bytes that it makes up, and `corpus.rs` on those that were kept.
//!
//! A target panics when an invariant does not hold; there is nothing else to report.

mod client;
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
];

/// Runs the target of that name.
///
/// # Panics
/// When an invariant does not hold.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).expect("a name from the list above");
    target(data);
}
