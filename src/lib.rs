//! stickyport: a realtime server for Socket.IO, Engine.IO and WebSocket clients that keeps every client on its process.
//!
//! The layers, lowest first; a module uses its own layer and the ones below it:
//!
//! - [`protocol`]: the protocols as arithmetic; no sockets, clocks or randomness.
//! - [`engine`]: gives sessions a task, a clock and a transport.
//! - [`hub`]: who is where, and who hears what: the Socket.IO API.
//! - [`cluster`]: many instances as one, over Redis.
//! - [`http`]: listeners, Engine.IO over HTTP, and the shared port.
//! - [`apps`]: what ships in the binary, written against the public API like anyone's application.
//! - [`config`], [`cli`], [`telemetry`], [`shutdown`], [`systemd`] and [`reload`]: what a process needs besides; [`server`] joins the layers.
//! - [`check`]: reads what an operator has set for all of that, and for nginx and systemd, and says what does not fit.
//! - [`mod@options`], [`metrics`], [`current`] and `reminder` are leaves that every layer may use.

pub mod apps;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod current;
pub mod engine;
pub mod http;
pub mod hub;
pub mod metrics;
pub mod options;
pub mod protocol;
pub mod reload;
mod reminder;
pub mod server;
pub mod shutdown;
pub mod systemd;
pub mod telemetry;

pub use server::Server;
pub use shutdown::Shutdown;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
