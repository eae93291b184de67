//! What applications are promised, on sessions of the real engine.

mod acks;
mod broadcasts;
mod cluster;
mod connecting;
mod disconnecting;
mod dynamic;
mod events;
mod far;
mod order;
mod recovery;
