//! The two ways to a client.

pub(super) mod polling;
pub(super) mod websocket;
