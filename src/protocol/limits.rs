//! What one client, and all of them together, may ask for.

use crate::options;
use std::time::Duration;

options! {
    /// What one client, and all of them together, may ask for; 0 switches a limit off where the sentence says so.
    pub struct Limits {
        /// Sessions that this instance holds at once; 0 is no limit.
        pub sessions: usize = 100_000,
        /// Sessions that one client address (of IPv6, one /64) may hold at once; 0 is no limit, because carriers put thousands of people behind one.
        pub sessions_per_address: usize = 0,
        /// Handshakes a second that one client address may begin; 0 is no limit. More than a carrier's people begin in a second, and in the 45 s that a
        /// session outlives its client too few to fill the instance.
        pub handshakes_per_second_per_address: u32 = 1_000,
        /// Packets in one polling payload; clients put whole bursts into one POST.
        pub packets_per_payload: usize = 10_000,
        /// Binary attachments of one Socket.IO packet, as the reference counts them.
        pub attachments: usize = 10,
        /// Binary values of one packet of the msgpack parser, which the reference does not count.
        pub msgpack_attachments: usize = 1_000,
        /// Namespaces that one session may be connected to at once.
        pub namespaces_per_session: usize = 100,
        /// Namespaces that clients may have made by pattern or by function; beyond it the empty ones go, and if none is, clients are refused.
        pub child_namespaces: usize = 10_000,
        /// Rooms that one socket may be in, its own included.
        pub rooms_per_socket: usize = 1_000,
        /// Acknowledgements that one socket may owe us at once.
        pub pending_acks: usize = 1_000,
        /// Events of one socket that may wait behind a slow handler; at the bound its session is not read until there is room.
        pub pending_events: usize = 1_000,
        /// Bytes of those events, with the same consequence.
        #[serde(with = "options::size")]
        pub pending_event_bytes: usize = 4 * 1024 * 1024,
        /// Bytes of the `auth` with which a client asks for a namespace, where it is kept as long as its socket; more are refused.
        #[serde(with = "options::size")]
        pub auth_bytes: usize = 64 * 1024,
        /// Bytes that may wait to be sent to one session, some 40 for each packet among them; beyond it the session is closed as a slow reader.
        #[serde(with = "options::size")]
        pub outbox_bytes: usize = 4 * 1024 * 1024,
        /// Bytes that may wait to be sent to all sessions of this instance; beyond it the session that asks for more is closed.
        #[serde(with = "options::size")]
        pub outbound_bytes: usize = 1024 * 1024 * 1024,
        /// Bytes of events and sessions that are kept for clients who may come back (`socketio.recovery`); beyond it the oldest go, and who needs them
        /// begins anew; 0 recovers nobody. Nobody is sent more than `outbox_bytes` of them.
        #[serde(with = "options::size")]
        pub recovery_bytes: usize = 64 * 1024 * 1024,
        /// Bytes of messages that are not whole yet or wait for a handler, of all sessions of this instance; beyond it a session that holds more than
        /// 16 KiB and brings more is closed, or not read where a handler is waited for. A POST counts until all in it has been taken.
        #[serde(with = "options::size")]
        pub inbound_bytes: usize = 1024 * 1024 * 1024,
        /// Bytes of one message to or from the other nodes of the cluster; a longer one is not sent, or skipped.
        #[serde(with = "options::size")]
        pub cluster_message_bytes: usize = 32 * 1024 * 1024,
        /// Rooms in one list of such a message.
        pub cluster_rooms: usize = 100_000,
        /// Bytes of all that the other nodes answer to one question, such as `fetch_sockets`; beyond it answers are dropped, and who gave them is missing.
        #[serde(with = "options::size")]
        pub cluster_reply_bytes: usize = 256 * 1024 * 1024,
        /// Bytes of such messages that may wait for Redis; beyond it they are not sent.
        #[serde(with = "options::size")]
        pub cluster_outbox_bytes: usize = 64 * 1024 * 1024,
        /// Bytes of a request's line and headers together.
        #[serde(with = "options::size")]
        pub header_bytes: usize = 16 * 1024,
        /// Headers of one request.
        pub headers: usize = 100,
        /// Parameters of one request's query; those of a handshake are kept as long as its session.
        pub query_parameters: usize = 100,
        /// Time from the first byte of a request to the end of its headers.
        #[serde(with = "options::duration")]
        pub header_timeout: Duration = Duration::from_secs(10),
        /// Time from the end of a request's headers to the end of its body.
        #[serde(with = "options::duration")]
        pub body_timeout: Duration = Duration::from_secs(60),
        /// Time that a connection may stay open between two requests; longer than nginx's `keepalive_timeout` for upstreams (60 s).
        #[serde(with = "options::duration")]
        pub keep_alive: Duration = Duration::from_secs(75),
    }
}
