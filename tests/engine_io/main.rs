//! Engine.IO as its clients see it: raw requests and raw frames against a server in this process.

mod handshake;
mod life;
mod limits;
mod polling;
mod support;
mod upgrade;
mod websocket;
