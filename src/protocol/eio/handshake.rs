//! The query of a request and the answer to a handshake.
