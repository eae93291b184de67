//! Engine.IO and Socket.IO as their clients see them: raw requests and raw frames against a server in this process.

mod eio3;
mod handshake;
mod life;
mod limits;
mod polling;
mod regression;
mod socket_io;
mod support;
mod turns;
mod upgrade;
mod websocket;
