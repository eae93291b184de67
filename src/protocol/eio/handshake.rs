//! The query of a request, the reference's checks in its order, and the answer to a handshake.

use super::Encoded;
use crate::protocol::errors::{BadRequest, ConnectionError};
use crate::protocol::session::TransportKind;
use crate::protocol::sid::Sid;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::Duration;

/// The parameters of a request that mean something; of repeated ones the first counts, because nginx routes by the first `sid`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// Parameters in their order, decoded.
    pub pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    /// Reads the part of a URL behind the `?`.
    pub fn parse(query: &'a str) -> Self {
        // All at once: byte by byte this would take longer than all the rest.
        let is_plain = !query.bytes().fold(false, |is_coded, byte| is_coded | matches!(byte, b'%' | b'+'));
        let decode = if is_plain { Cow::Borrowed } else { decode };
        let mut pairs = Vec::new();
        let mut rest = query;
        while !rest.is_empty() {
            let pair;
            (pair, rest) = split(rest, b'&');
            if !pair.is_empty() {
                let (key, value) = split(pair, b'=');
                pairs.push((decode(key), decode(value)));
            }
        }
        Self { pairs }
    }

    /// The first value of one parameter; the others, which may be many, are not decoded.
    pub fn find(query: &'a str, key: &str) -> Option<Cow<'a, str>> {
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key).map(|(_, value)| decode(value))
    }

    /// The first value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }

    /// The parameters, for as long as they are wanted.
    pub fn into_owned(self) -> Vec<(String, String)> {
        self.pairs.into_iter().map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
    }

    /// Whether two `sid`s contradict each other: then a proxy may have routed by the one that we did not look at.
    fn has_two_sids(&self) -> bool {
        let mut sids = self.pairs.iter().filter(|(name, _)| name == "sid").map(|(_, value)| value);
        sids.next().is_some_and(|first| sids.any(|other| other != first))
    }
}

/// As [`str::split_once`], which takes several times as long over the few bytes of a parameter; without the byte all is in front of it.
fn split(text: &str, at: u8) -> (&str, &str) {
    let front = text.bytes().position(|byte| byte == at).unwrap_or(text.len());
    (text.get(..front).unwrap_or_default(), text.get(front + 1..).unwrap_or_default())
}

/// Undoes percent-encoding and `+`, as `URLSearchParams` does; what is no UTF-8 becomes U+FFFD.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut ahead = rest.clone();
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                match (digit(ahead.next()), digit(ahead.next())) {
                    (Some(high), Some(low)) => {
                        rest = ahead;
                        (high * 16 + low) as u8
                    }
                    _ => b'%',
                }
            }
            other => other,
        });
    }
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()).into()
}

/// What the checks look at.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The query.
    pub query: &'a Query<'a>,
    /// Whether the method is GET.
    pub is_get: bool,
    /// Whether the request asks for a WebSocket.
    pub is_upgrade: bool,
    /// Whether an Origin header holds bytes that no header may hold.
    pub has_bad_origin: bool,
}

/// The protocol that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Version {
    /// Engine.IO 3, which clients of Socket.IO 2 and before speak.
    V3,
    /// Engine.IO 4.
    V4,
}

impl Version {
    /// What a request names: anything but `EIO=4` counts as 3.
    pub fn of(query: &Query<'_>) -> Self {
        if query.get("EIO") == Some("4") { Self::V4 } else { Self::V3 }
    }
}

/// What a valid request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route<S> {
    /// A new session over this transport; the application may still refuse it, and then the version is looked at.
    Handshake(TransportKind),
    /// A request of this session.
    Session(S),
}

/// The reference's `verify`, in its order (wire.md A1); `find` looks a sid up and tells its version and its transport.
///
/// # Errors
/// The first check that fails.
pub fn verify<S>(
    request: Request<'_>,
    transports: &[TransportKind],
    find: impl FnOnce(&str) -> Option<(S, Version, TransportKind)>,
) -> Result<Route<S>, ConnectionError> {
    let query = request.query;
    let transport = match query.get("transport") {
        Some("polling") => TransportKind::Polling,
        Some("websocket") => TransportKind::WebSocket,
        _ => return Err(ConnectionError::TransportUnknown),
    };
    if !transports.contains(&transport) {
        return Err(ConnectionError::TransportUnknown);
    }
    if request.has_bad_origin {
        return Err(BadRequest::InvalidOrigin.into());
    }
    if query.has_two_sids() {
        return Err(BadRequest::TwoSids.into());
    }
    match query.get("sid").filter(|sid| !sid.is_empty()) {
        Some(sid) => {
            let (session, version, current) = find(sid).ok_or(ConnectionError::UnknownSid)?;
            let fits = if request.is_upgrade { transport == TransportKind::WebSocket } else { transport == current };
            if !fits {
                return Err(BadRequest::TransportMismatch(current).into());
            }
            if version != Version::of(query) {
                return Err(BadRequest::ProtocolMismatch(version).into());
            }
            Ok(Route::Session(session))
        }
        None if !request.is_get => Err(ConnectionError::BadHandshakeMethod),
        None if (transport == TransportKind::WebSocket) != request.is_upgrade => Err(BadRequest::TransportHandshake.into()),
        None => Ok(Route::Handshake(transport)),
    }
}

/// What the server tells a client that it accepts.
#[derive(Debug, Clone, Copy)]
pub struct Open<'a> {
    /// The new session's id.
    pub sid: &'a Sid,
    /// Whether the client may move to WebSocket.
    pub upgrade: bool,
    /// From a pong to the next ping.
    pub ping_interval: Duration,
    /// From a ping to the last moment for its pong.
    pub ping_timeout: Duration,
    /// Bytes of the largest payload.
    pub max_payload: usize,
}

impl Open<'_> {
    /// The packet `0{"sid":…}`, keys in the reference's order.
    pub fn encode(&self) -> Encoded {
        let sid = serde_json::to_string(self.sid.as_str()).expect("a string is JSON");
        let upgrades = if self.upgrade { r#"["websocket"]"# } else { "[]" };
        Encoded::control(&format!(
            r#"0{{"sid":{sid},"upgrades":{upgrades},"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
            self.ping_interval.as_millis(),
            self.ping_timeout.as_millis(),
            self.max_payload,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TransportKind::{Polling, WebSocket};

    const BOTH: &[TransportKind] = &[Polling, WebSocket];

    #[test]
    fn checks_come_in_the_references_order() {
        let handshake = "EIO=4&transport=polling";
        for (query, is_get, is_upgrade, has_bad_origin, answer) in [
            (handshake, true, false, false, Ok(Route::Handshake(Polling))),
            ("EIO=4&transport=websocket", true, true, false, Ok(Route::Handshake(WebSocket))),
            ("", true, false, false, Err(ConnectionError::TransportUnknown)),
            ("EIO=4&transport=webtransport", true, false, false, Err(ConnectionError::TransportUnknown)),
            ("EIO=3&transport=carrier-pigeon&sid=x", true, false, true, Err(ConnectionError::TransportUnknown)),
            ("EIO=4&transport=polling&sid=nobody", true, false, true, Err(BadRequest::InvalidOrigin.into())),
            ("EIO=4&transport=polling&sid=known&sid=other", true, false, false, Err(BadRequest::TwoSids.into())),
            ("EIO=4&transport=polling&sid=known&sid=known", true, false, false, Ok(Route::Session("known"))),
            ("EIO=4&transport=polling&sid=nobody", false, false, false, Err(ConnectionError::UnknownSid)),
            ("EIO=4&transport=polling&sid=known", false, false, false, Ok(Route::Session("known"))),
            ("EIO=4&transport=websocket&sid=known", true, false, false, Err(BadRequest::TransportMismatch(Polling).into())),
            ("EIO=4&transport=websocket&sid=known", true, true, false, Ok(Route::Session("known"))),
            ("EIO=4&transport=polling&sid=known", true, true, false, Err(BadRequest::TransportMismatch(Polling).into())),
            ("EIO=3&transport=polling&sid=known", true, false, false, Err(BadRequest::ProtocolMismatch(Version::V4).into())),
            ("EIO=4&transport=polling&sid=old", true, false, false, Err(BadRequest::ProtocolMismatch(Version::V3).into())),
            ("EIO=3&transport=polling&sid=old", true, false, false, Ok(Route::Session("old"))),
            ("transport=websocket&sid=old", true, true, false, Ok(Route::Session("old"))),
            (handshake, false, false, false, Err(ConnectionError::BadHandshakeMethod)),
            ("EIO=4&transport=websocket", false, false, false, Err(ConnectionError::BadHandshakeMethod)),
            ("EIO=4&transport=websocket", true, false, false, Err(BadRequest::TransportHandshake.into())),
        ] {
            let query_read = Query::parse(query);
            let request = Request { query: &query_read, is_get, is_upgrade, has_bad_origin };
            let known = [("known", Version::V4, Polling), ("old", Version::V3, Polling)];
            let route = verify(request, BOTH, |sid| known.into_iter().find(|(name, ..)| *name == sid));
            assert_eq!(route, answer, "{query}");
        }
    }

    #[test]
    fn a_transport_that_is_not_enabled_is_unknown() {
        let query = Query::parse("EIO=4&transport=polling");
        let request = Request { query: &query, is_get: true, is_upgrade: false, has_bad_origin: false };
        let route = verify::<()>(request, &[WebSocket], |_| None);
        assert_eq!(route, Err(ConnectionError::TransportUnknown));
    }

    #[test]
    fn a_query_is_decoded_and_never_panics() {
        let query = Query::parse("a=b%20c+d&e&%66=%E2%82%AC&bad=%&worse=%zz&%=é%c3");
        let read: Vec<_> = query.pairs.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(read, [("a", "b c d"), ("e", ""), ("f", "€"), ("bad", "%"), ("worse", "%zz"), ("%", "é\u{fffd}")]);
    }

    #[test]
    fn the_open_packet_has_the_references_keys_in_its_order() {
        let open = Open {
            sid: &Sid::from("0-00abcdefghijklmnop"),
            upgrade: true,
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            max_payload: 1_000_000,
        };
        assert_eq!(
            std::str::from_utf8(open.encode().payload()),
            Ok(
                r#"0{"sid":"0-00abcdefghijklmnop","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#
            )
        );
    }
}
