//! What both harness programs do before there is a session: how they listen, what they ask about a request, and how they tell one.
#![allow(dead_code, reason = "each program uses its part")]

use crate::node_options::NodeOptions;
use crate::pipe::{Pipe, object, put};
use http::header::ORIGIN;
use http::request::Parts;
use serde_json::map::Entry;
use serde_json::{Map, Value};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use stickyport::engine::{BadRequest, ConnectionError, Headers, Hooks, Version};
use stickyport::http::{ListenError, Listeners};
use stickyport::protocol::eio::handshake::Query;
use stickyport::protocol::limits::Limits;

/// The reference has none, and its suite asks for more than a client may have of us.
pub fn limits() -> Limits {
    let usual = Limits::default();
    Limits { packets_per_payload: usize::MAX, outbox_bytes: usual.outbound_bytes, ..usual }
}

/// Both families on one socket, as Node listens.
pub fn listen(port: u16) -> Result<Listeners, ListenError> {
    let both = Listeners::only(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    both.or_else(|error| match error {
        ListenError::Refused { .. } => Listeners::only(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        error => Err(error),
    })
}

/// The questions of the handshake, and what is refused; `asked` is what is told with the question of whether a request is allowed.
pub fn hooks(pipe: &Pipe, options: &NodeOptions, asked: impl Fn(&Parts) -> Map<String, Value> + Send + Sync + 'static) -> Hooks {
    let mut hooks = Hooks::default().on_connection_error({
        let pipe = pipe.clone();
        move |error, request| {
            let message = match error {
                // Its own words are for the client.
                ConnectionError::Forbidden(_) => ConnectionError::Forbidden(String::new()).to_string(),
                error => error.to_string(),
            };
            pipe.tell("connection_error", object! { code: error.code(), message: message, context: context(error, request) });
        }
    });
    if options.asks_allow_request() {
        let pipe = pipe.clone();
        hooks = hooks.allow_request(move |request| {
            let pipe = pipe.clone();
            let question = asked(request);
            async move {
                let answer = pipe.answer_to("allowRequest", question).await;
                if answer["ok"] == true { Ok(()) } else { Err(answer["err"].as_str().unwrap_or_default().to_owned()) }
            }
        });
    }
    if options.asks_generate_id() {
        let pipe = pipe.clone();
        hooks = hooks.generate_id(move |request| {
            let pipe = pipe.clone();
            let question = object! { url: request.uri.to_string(), headers: headers(&(&request.headers).into()) };
            async move {
                let answer = pipe.answer_to("generateId", question).await;
                answer["sid"].as_str().map(str::to_owned).ok_or_else(|| answer["error"].to_string())
            }
        });
    }
    hooks
}

/// What the reference tells of a refused request beside its code.
fn context(error: &ConnectionError, request: &Parts) -> Map<String, Value> {
    let query = Query::parse(request.uri.query().unwrap_or_default());
    let parameter = |name: &str| {
        let mut context = Map::new();
        if let Some(value) = query.get(name) {
            put(&mut context, name, value);
        }
        context
    };
    match error {
        ConnectionError::TransportUnknown => parameter("transport"),
        ConnectionError::UnknownSid => parameter("sid"),
        ConnectionError::BadHandshakeMethod => object! { method: request.method.as_str() },
        ConnectionError::Forbidden(words) => object! { message: Some(words.as_str()).filter(|words| !words.is_empty()) },
        ConnectionError::UnsupportedProtocolVersion => object! { protocol: number(Version::of(&query)) },
        ConnectionError::BadRequest(what) => {
            let mut context = match what {
                BadRequest::InvalidOrigin => {
                    object! { origin: request.headers.get(ORIGIN).map(|origin| text(origin.as_bytes())) }
                }
                BadRequest::TransportMismatch(previous) => {
                    let mut context = parameter("transport");
                    put(&mut context, "previousTransport", previous.as_str());
                    context
                }
                BadRequest::ProtocolMismatch(previous) => {
                    object! { protocol: number(Version::of(&query)), previousProtocol: number(*previous) }
                }
                _ => Map::new(),
            };
            put(&mut context, "name", what.as_str());
            context
        }
    }
}

pub fn number(version: Version) -> u8 {
    match version {
        Version::V3 => 3,
        Version::V4 => 4,
    }
}

/// As Node tells it on a socket of both families.
pub fn remote_address(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V4(address)) => address.to_ipv6_mapped().to_string(),
        _ => address.to_owned(),
    }
}

/// Parameters by name; of repeated ones the first, by which we decide everything else.
pub fn query(pairs: Vec<(String, String)>) -> Map<String, Value> {
    pairs.into_iter().rev().map(|(name, value)| (name, value.into())).collect()
}

/// Headers by name; repeated ones in one text, as Node has them.
pub fn headers(headers: &Headers) -> Map<String, Value> {
    let mut joined = Map::new();
    for (name, value) in headers.iter() {
        match joined.entry(name) {
            Entry::Vacant(place) => drop(place.insert(text(value).into())),
            Entry::Occupied(mut place) => {
                *place.get_mut() = format!("{}, {}", place.get().as_str().unwrap_or_default(), text(value)).into()
            }
        }
    }
    joined
}

/// A header's bytes, each for a character, as Node reads them.
fn text(value: &[u8]) -> String {
    value.iter().map(|byte| char::from(*byte)).collect()
}
