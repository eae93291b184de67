//! Plain counters that every layer may use; `http/metrics.rs` renders them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.add(-1);
    }

    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

macro_rules! metrics {
    ($( $(#[doc = $doc:literal])+ $field:ident: $kind:ident ),* $(,)?) => {
        /// All that one instance counts.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $( $(#[doc = $doc])+ pub $field: $kind ),*
        }

        impl Metrics {
            /// Every metric: its name, its sentence, and its value.
            pub fn all(&self) -> Vec<(&'static str, &'static str, Value)> {
                vec![$( (stringify!($field), concat!($($doc),+).trim(), Value::$kind(self.$field.get())) ),*]
            }
        }
    };
}

/// A value as it is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Of a [`Counter`].
    Counter(u64),
    /// Of a [`Gauge`].
    Gauge(i64),
}

metrics! {
    /// Connections that have not become a WebSocket: they speak HTTP, or nothing yet.
    connections: Gauge,
    /// Sessions that are open.
    sessions: Gauge,
    /// Sessions whose transport is WebSocket.
    sessions_websocket: Gauge,
    /// Sessions that were opened.
    sessions_opened: Counter,
    /// Sessions that moved from polling to WebSocket.
    upgrades: Counter,
    /// Upgrades that were begun and not finished.
    upgrades_failed: Counter,
    /// Sessions closed: transport error.
    closed_transport_error: Counter,
    /// Sessions closed: transport close.
    closed_transport_close: Counter,
    /// Sessions closed: ping timeout.
    closed_ping_timeout: Counter,
    /// Sessions closed: parse error.
    closed_parse_error: Counter,
    /// Sessions closed: forced close.
    closed_forced: Counter,
    /// Sessions closed: server shutting down.
    closed_shutdown: Counter,
    /// Messages received.
    messages_received: Counter,
    /// Messages handed to a session to be sent.
    messages_sent: Counter,
    /// Bytes that wait to be sent, over all sessions.
    outbound_bytes: Gauge,
    /// Bytes of messages that are not whole yet or wait for a handler, over all sessions.
    inbound_bytes: Gauge,
    /// Requests refused: transport unknown.
    refused_transport_unknown: Counter,
    /// Requests refused: the sid belongs to another node.
    refused_sid_other: Counter,
    /// Requests refused: the sid was this node's and is gone.
    refused_sid_gone: Counter,
    /// Requests refused: the sid is not of our form.
    refused_sid_garbage: Counter,
    /// Requests refused: bad handshake method.
    refused_method: Counter,
    /// Requests refused: bad request.
    refused_bad_request: Counter,
    /// Requests refused: forbidden by the application.
    refused_forbidden: Counter,
    /// Requests refused: unsupported protocol version.
    refused_protocol_version: Counter,
    /// Handshakes refused while draining.
    refused_draining: Counter,
    /// Handshakes refused while another node has this one's number.
    refused_number_taken: Counter,
    /// Limit reached: sessions.
    limit_sessions: Counter,
    /// Limit reached: sessions of one address.
    limit_sessions_per_address: Counter,
    /// Limit reached: handshakes a second of one address.
    limit_handshakes_per_address: Counter,
    /// Limit reached: size of a payload or message.
    limit_payload: Counter,
    /// Limit reached: packets in one payload.
    limit_packets_per_payload: Counter,
    /// Limit reached: attachments of one packet.
    limit_attachments: Counter,
    /// Limit reached: namespaces of one session.
    limit_namespaces: Counter,
    /// Limit reached: namespaces that clients have made.
    limit_child_namespaces: Counter,
    /// Limit reached: size of a client's auth.
    limit_auth: Counter,
    /// Limit reached: rooms of one socket.
    limit_rooms: Counter,
    /// Limit reached: acknowledgements that one socket owes.
    limit_pending_acks: Counter,
    /// Limit reached: events of one socket that wait for a slow handler.
    limit_pending_events: Counter,
    /// Limit reached: bytes waiting for one session, which was closed as a slow reader.
    limit_outbox: Counter,
    /// Limit reached: bytes waiting for all sessions.
    limit_outbound: Counter,
    /// Limit reached: events and sessions that were kept for clients who may come back, and went early.
    limit_recovery: Counter,
    /// Limit reached: bytes that wait for Redis.
    limit_cluster_outbox: Counter,
    /// Limit reached: bytes of what the cluster's other nodes answer to one question.
    limit_cluster_reply: Counter,
    /// Limit reached: bytes that have arrived for all sessions and cannot be handed on yet.
    limit_inbound: Counter,
    /// Limit reached: size or number of a request's headers.
    limit_headers: Counter,
    /// Limit reached: parameters of a request's query.
    limit_query_parameters: Counter,
    /// Limit reached: time for a request's headers.
    limit_header_timeout: Counter,
    /// Limit reached: time for a request's body.
    limit_body_timeout: Counter,
    /// Limit reached: time between two requests of a connection.
    limit_keep_alive: Counter,
    /// Connections that could not be accepted yet, for want of descriptors or memory.
    accept_errors: Counter,
    /// Volatile packets dropped because their socket was not writable.
    volatile_dropped: Counter,
    /// Sockets connected to a namespace.
    sockets: Gauge,
    /// Rooms that somebody is in, the one that each socket has for itself included.
    rooms: Gauge,
    /// Sockets that were connected to a namespace.
    sockets_connected: Counter,
    /// Sockets that took up their former connection.
    recovered: Counter,
    /// Sockets that could not take up the connection that they named, and began anew.
    not_recovered: Counter,
    /// Sessions that were ended because their client is at another node of the cluster.
    fenced: Counter,
    /// Sessions written to Redis, kept there longer or deleted there, for clients who may come back on another node.
    sessions_written: Counter,
    /// Bytes of events and sessions that are kept for clients who may come back.
    recovery_bytes: Gauge,
    /// Namespace connections refused by a middleware or for want of the namespace.
    connect_errors: Counter,
    /// Events received from clients.
    events_received: Counter,
    /// Event handlers that returned an error or could not read their arguments.
    handler_errors: Counter,
    /// Event handlers that panicked.
    handler_panics: Counter,
    /// 1 while a Redis is set and cannot be reached.
    redis_down: Gauge,
    /// 1 while a live node at another address has this one's number.
    node_conflict: Gauge,
    /// Turns of periodic tasks that this node took.
    turns: Counter,
    /// Turns that nobody took, because the one before had not ended.
    turns_skipped: Counter,
    /// Turns that were broken off, because Redis no longer said whose they were.
    turns_cut: Counter,
    /// Messages sent to the other nodes of the cluster.
    cluster_published: Counter,
    /// Messages for the other nodes that were not sent: Redis was away or took too long, or they were too long.
    cluster_unsent: Counter,
    /// Messages that came over the cluster's channels, this node's own among them.
    cluster_received: Counter,
    /// Messages from the cluster that were skipped, and sockets in a list from there: not of our form, or beyond a limit.
    cluster_skipped: Counter,
    /// Packets that broke Socket.IO's rules, each of which closed its session.
    protocol_errors: Counter,
}
