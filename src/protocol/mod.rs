//! The protocols as arithmetic: packets and `now` come in, outputs and a deadline come out; no sockets, clocks or randomness.

pub mod client;
pub mod eio;
pub mod errors;
pub mod limits;
pub mod session;
pub mod sid;
pub mod sio;
