//! Engine.IO over HTTP: which request opens, polls, posts or upgrades, and how each is answered (wire.md, section A).

use super::client_address::{Client, Networks};
use super::compression::Coding;
use super::connection::Timed;
use super::cors::Cors;
use super::{Answer, client_script, jsonp, plain};
use crate::current::Current;
use crate::engine::stream::Peer;
use crate::engine::{
    Admission, Engine, Handshake, Held, Intake, Options, Overflow, Payload, PollError, Refusal, Session, TransportKind,
};
use crate::protocol::eio::handshake::{Query, Request as Checked, Route};
use crate::protocol::eio::{Message, Version};
use crate::protocol::errors::{BadRequest, CloseReason, ConnectionError};
use crate::protocol::sid::Sid;
use crate::reminder::Reminder;
use bytes::Bytes;
use bytestring::ByteString;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, SET_COOKIE, UPGRADE, USER_AGENT, X_XSS_PROTECTION,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::{Instrument, Span, debug, debug_span, warn};

/// Headers that a map has room for which is used again; a larger one would stay with its connection.
const REUSED: usize = 32;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=UTF-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Engine.IO below one path.
#[derive(Debug)]
pub struct EngineIo {
    engine: Arc<Engine>,
    cors: Current<Cors>,
    trusted_proxies: Networks,
    path: String,
    old_clients: Reminder,
    floods: Reminder,
}

/// Why a request of the protocol is not served.
enum Refused {
    /// As the reference refuses it.
    Protocol(ConnectionError),
    /// For want of room.
    Room(Refusal),
}

impl From<ConnectionError> for Refused {
    fn from(error: ConnectionError) -> Self {
        Self::Protocol(error)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Room(refusal)
    }
}

impl EngineIo {
    /// Serves `engine` below the path of its options.
    pub fn new(engine: Arc<Engine>, cors: Current<Cors>, trusted_proxies: Networks) -> Self {
        let options = engine.options();
        let bare = options.path.trim_end_matches('/');
        let path = if options.add_trailing_slash { format!("{bare}/") } else { bare.to_owned() };
        Self { engine, cors, trusted_proxies, path, old_clients: Reminder::default(), floods: Reminder::default() }
    }

    /// The part of `path` below ours, or `None` when the request is not for us.
    pub fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(&*self.path)
    }

    /// Where it is served.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The sessions.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// A file of the official client, if `file` is one and they are served.
    pub fn client_script(&self, file: &str, request: &HeaderMap) -> Option<Answer> {
        let script = self.engine.options().serve_client.then(|| client_script::respond(file, request))??;
        let mut answer = script.map(Full::new);
        self.cors.get().add_headers(request, answer.headers_mut());
        Some(answer)
    }

    /// Answers a request below our path.
    ///
    /// What can be found out without waiting is found out at once: a request of a session lets go of hyper's buffer before it waits. For hyper listens
    /// meanwhile whether the client is still there, and would need another buffer for that.
    pub fn answer(&self, mut request: Request<Incoming>, peer: Peer) -> impl Future<Output = Answer> + Send {
        let is_upgrade = asks_for_websocket(request.headers());
        let on_upgrade = is_upgrade.then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        self.engine.requested(&parts);
        let (work, span) = if parts.method == Method::OPTIONS && self.cors.get().answers_preflight(&parts.headers) {
            let mut answer = plain(self.cors.get().preflight_status(), Bytes::new());
            self.cors.get().add_preflight_headers(&parts.headers, answer.headers_mut());
            self.cors.get().add_headers(&parts.headers, answer.headers_mut());
            (Work::Done(answer), Span::none())
        } else {
            let span = debug_span!("request", client = self.client(&parts, &peer).address());
            (span.in_scope(|| self.sort(parts, body, on_upgrade, peer)), span)
        };
        let answer = async move {
            match work {
                Work::Poll { session, script, reply } => self.poll(&session, script, reply).await,
                Work::Post { session, posted, reply } => self.post(&session, posted, reply).await,
                Work::Open(answer) => answer.await,
                Work::Done(answer) => answer,
            }
        };
        answer.instrument(span)
    }

    /// What there is to do for a request.
    fn sort(&self, parts: Parts, body: Incoming, on_upgrade: Option<OnUpgrade>, peer: Peer) -> Work<'_> {
        let is_upgrade = on_upgrade.is_some();
        let (script, session) = match self.route(&parts, is_upgrade) {
            Ok((query, Route::Session(session))) => (self.script(&query).map(str::to_owned), Some(session)),
            Ok((_, Route::Handshake(_))) => (None, None),
            Err(error) => {
                let answer = self.refuse(&error.into(), &parts, is_upgrade, &peer);
                return Work::Done(self.reply(parts).with(self, answer));
            }
        };
        match (session, on_upgrade) {
            (session, Some(on_upgrade)) => Work::Open(Box::pin(self.websocket(parts, session, on_upgrade, peer))),
            (None, None) => Work::Open(Box::pin(self.open(parts, peer))),
            (Some(session), None) => match parts.method {
                Method::GET => Work::Poll { session, script, reply: self.reply(parts) },
                Method::POST => {
                    let posted = Posted::of(&parts.headers, script.is_some(), body);
                    Work::Post { session, posted, reply: self.reply(parts) }
                }
                // As the reference answers a method that polling has no use for.
                _ => Work::Done(self.reply(parts).with(self, plain(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()))),
            },
        }
    }

    fn route<'a>(&self, parts: &'a Parts, is_upgrade: bool) -> Result<(Query<'a>, Route<Arc<Session>>), ConnectionError> {
        let query = parts.uri.query().unwrap_or_default();
        // Decoded, a short parameter takes a hundred times what it takes on the line.
        if query.bytes().filter(|byte| *byte == b'&').count() >= self.engine.limits().get().query_parameters {
            self.engine.metrics().limit_query_parameters.inc();
            return Err(BadRequest::TooManyParameters.into());
        }
        let query = Query::parse(query);
        // hyper lets bytes above 127 through, which Node's header check does not.
        let has_bad_origin = parts.headers.get(ORIGIN).is_some_and(|origin| origin.to_str().is_err());
        let is_get = parts.method == Method::GET;
        let route = self.engine.verify(Checked { query: &query, is_get, is_upgrade, has_bad_origin })?;
        Ok((query, route))
    }

    /// What a handshake passes: origin, application, version, room; in the reference's order where it has one.
    async fn admit(&self, parts: &Parts, peer: Peer) -> Result<Guest, Refused> {
        if self.cors.get().refuses(&parts.headers) {
            return Err(ConnectionError::Forbidden(String::new()).into());
        }
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let sid = self.engine.authorize(parts, &query).await?;
        self.engine.take_turn().await;
        let client = self.client(parts, &peer);
        let handshake = Handshake {
            version: Version::of(&query),
            headers: (&parts.headers).into(),
            query: query.into_owned(),
            url: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            address: client.address(),
            secure: client.secure,
            issued: SystemTime::now(),
        };
        let admission = self.engine.admit(&handshake.address)?;
        Ok(Guest { sid, handshake, admission })
    }

    fn client(&self, parts: &Parts, peer: &Peer) -> Client {
        Client::of(peer, &parts.headers, &self.trusted_proxies)
    }

    /// Opens a session on polling.
    async fn open(&self, parts: Parts, peer: Peer) -> Answer {
        let opened = async {
            let Guest { sid, handshake, admission } = self.admit(&parts, peer).await?;
            let cookie = self.cookie(&sid);
            Ok::<_, Refused>((self.engine.open_polling(sid, admission, handshake)?, cookie))
        };
        match opened.await {
            Ok((open, cookie)) => {
                let query = Query::parse(parts.uri.query().unwrap_or_default());
                let script = self.script(&query).map(str::to_owned);
                let mut answer = self.payload(open, script, self.reply(parts), true).await;
                if let Some(cookie) = cookie {
                    answer.headers_mut().insert(SET_COOKIE, cookie);
                }
                answer
            }
            Err(refused) => {
                let answer = self.refuse(&refused, &parts, false, &peer);
                self.reply(parts).with(self, answer)
            }
        }
    }

    async fn poll(&self, session: &Arc<Session>, script: Option<String>, reply: Reply) -> Answer {
        match session.poll().await {
            Ok(payload) => {
                let mut answering = Answering(Some(session));
                let answer = self.payload(payload, script, reply, false).await;
                answering.0 = None;
                answer
            }
            Err(PollError::Overlap) => reply.with(self, plain(StatusCode::BAD_REQUEST, Bytes::new())),
            Err(PollError::Gone) => {
                let error = ConnectionError::UnknownSid;
                reply.with(self, refusal(error.status(), error.code(), &error.to_string()))
            }
        }
    }

    async fn post(&self, session: &Arc<Session>, posted: Posted, reply: Reply) -> Answer {
        let Posted { is_form, is_binary, announced, body } = posted;
        let bad_request = |reply: Reply| reply.with(self, plain(StatusCode::BAD_REQUEST, Bytes::new()));
        let Ok(post) = session.begin_post() else { return bad_request(reply) };
        if is_binary && session.version() == Version::V4 {
            post.break_off();
            return bad_request(reply);
        }
        let limit = self.engine.options().max_payload;
        let body = if announced.is_some_and(|length| length > limit as u64) {
            Err(None)
        } else {
            let read = timeout(session.limits().body_timeout, read(Limited::new(body, limit), session.intake())).await;
            read.unwrap_or(Err(Some(StatusCode::REQUEST_TIMEOUT)))
        };
        match body {
            Ok((bytes, _held)) => {
                post.deliver(if is_binary {
                    bytes.into()
                } else {
                    // As Node decodes a request's text: bytes that are no UTF-8 become U+FFFD.
                    let text =
                        ByteString::try_from(bytes.clone()).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).as_ref().into());
                    if is_form { jsonp::unwrap(&text).unwrap_or_default().into() } else { Message::Text(text) }
                })
                .await;
                reply.with_all(self, HTML, None, Bytes::from_static(b"ok"), false)
            }
            Err(None) => {
                post.refuse();
                self.engine.metrics().limit_payload.inc();
                reply.with(self, plain(StatusCode::PAYLOAD_TOO_LARGE, Bytes::new()))
            }
            Err(Some(status)) => {
                if status == StatusCode::REQUEST_TIMEOUT {
                    self.engine.metrics().limit_body_timeout.inc();
                }
                post.break_off();
                let mut answer = plain(status, Bytes::new());
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                reply.with(self, answer)
            }
        }
    }

    /// Opens a WebSocket: for a new session, or for one that asks to move to it.
    async fn websocket(&self, parts: Parts, session: Option<Arc<Session>>, on_upgrade: OnUpgrade, peer: Peer) -> Answer {
        let accept = accept_key(&parts.headers).filter(|_| parts.method == Method::GET);
        let entered = async {
            let accept = accept.ok_or(ConnectionError::from(BadRequest::WebSocketHandshake))?;
            let guest = match session {
                Some(session) => Err(session),
                None => Ok(self.admit(&parts, peer).await?),
            };
            Ok::<_, Refused>((accept, guest))
        };
        let (accept, guest) = match entered.await {
            Ok(entered) => entered,
            Err(refused) => {
                let answer = self.refuse(&refused, &parts, true, &peer);
                return self.reply(parts).with(self, answer);
            }
        };
        let is_initial = guest.is_ok();
        let engine = Arc::clone(&self.engine);
        self.engine.tasks().spawn(async move {
            let upgraded = match on_upgrade.await {
                Ok(upgraded) => upgraded,
                Err(error) => return debug!(%error, "the client left before the WebSocket was open"),
            };
            // What hyper read beyond the request comes along.
            let Ok(socket) = upgraded.downcast::<TokioIo<Timed>>() else {
                unreachable!("every connection of this listener is a `Timed`")
            };
            let stream = socket.io.into_inner().into_stream();
            match guest {
                Ok(Guest { sid, handshake, admission }) => {
                    engine.open_websocket(sid, admission, handshake, stream, &socket.read_buf);
                }
                Err(session) => engine.upgrade(session, stream, &socket.read_buf).await,
            }
        });
        let reply = self.reply(parts);
        let mut answer = plain(StatusCode::SWITCHING_PROTOCOLS, Bytes::new());
        let headers = answer.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        reply.add_application(self, headers, is_initial);
        reply.with(self, answer)
    }

    /// A polling answer (wire.md A3).
    async fn payload(&self, payload: Payload, script: Option<String>, reply: Reply, is_initial: bool) -> Answer {
        let Payload { body, is_binary, compressible, mut held } = payload;
        let mut body = match script {
            Some(index) if !is_binary => jsonp::wrap(&index, &String::from_utf8_lossy(&body)),
            _ => body,
        };
        let threshold = if compressible { self.engine.options().http_compression } else { 0 };
        let coding = reply.coding.filter(|_| threshold > 0 && body.len() >= threshold);
        if let Some(coding) = coding {
            // In a box, so that the answers which are too small for it have a small future.
            body = Box::pin(coding.compress(&body)).await;
        }
        if let Some(held) = &mut held {
            held.recount(body.len());
        }
        let body = Bytes::from_owner(Outgoing { body, _held: held });
        reply.with_all(self, if is_binary { OCTETS } else { TEXT }, coding, body, is_initial)
    }

    /// The index of the function that a JSONP client of protocol 3 has called back.
    fn script<'a>(&self, query: &'a Query<'_>) -> Option<&'a str> {
        query.get("j").filter(|_| Version::of(query) == Version::V3 && self.cors.get().allows_scripts())
    }

    /// Takes from a request what its answer will need.
    fn reply(&self, mut parts: Parts) -> Reply {
        let headers = &parts.headers;
        let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let is_kept = self.engine.adds_headers() || headers.capacity() > REUSED;
        let mut reply = Reply {
            is_explorer: agent.contains("Trident/"),
            coding: Coding::accepted(headers),
            headers: if is_kept { HeaderMap::new() } else { mem::take(&mut parts.headers) },
            request: is_kept.then(|| Box::new(parts)),
        };
        if !is_kept {
            self.cors.get().turn(&mut reply.headers);
        }
        reply
    }

    fn cookie(&self, sid: &Sid) -> Option<HeaderValue> {
        let Options { cookie: name, cookie_attributes: attributes, .. } = self.engine.options();
        if name.is_empty() {
            return None;
        }
        // Ours need no encoding; those of an application may hold anything.
        let sid: String = sid.as_str().bytes().map(encode).collect();
        let separator = if attributes.is_empty() { "" } else { "; " };
        HeaderValue::from_str(&format!("{name}={sid}{separator}{attributes}")).ok()
    }

    fn refuse(&self, refused: &Refused, parts: &Parts, is_upgrade: bool, peer: &Peer) -> Answer {
        let (status, code, message) = match refused {
            Refused::Protocol(error) => {
                self.engine.refused(error, parts);
                (error.status(), error.code(), error.to_string())
            }
            Refused::Room(refusal) => (refusal.status(), ConnectionError::Forbidden(String::new()).code(), refusal.to_string()),
        };
        debug!(code, message, transport = transport(parts), "request refused");
        self.advise(refused, parts, peer);
        let is_room = matches!(refused, Refused::Room(_));
        let mut answer = if is_upgrade {
            // The reference refuses an upgrade in plain HTTP, always with 400; a full instance says so.
            let status = if is_room { status } else { 400 };
            let mut answer = plain(StatusCode::from_u16(status).expect("our own statuses"), Bytes::from(message));
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            answer.headers_mut().insert(CONTENT_TYPE, HTML);
            answer
        } else {
            refusal(status, code, &message)
        };
        if is_room {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }

    /// Tells the operator how to let in those who are kept out by a default, and nothing of others who are refused as they are.
    fn advise(&self, refused: &Refused, parts: &Parts, peer: &Peer) {
        match refused {
            Refused::Protocol(ConnectionError::UnsupportedProtocolVersion) => {
                let version = Query::find(parts.uri.query().unwrap_or_default(), "EIO");
                if version.as_deref() == Some("3") && self.old_clients.is_due(Instant::now()) {
                    let client = self.client(parts, peer).address();
                    warn!(client, "a client of Socket.IO 2 was refused: engine.allow_eio3 = true lets such clients in");
                }
            }
            Refused::Room(Refusal::TooFast) if self.floods.is_due(Instant::now()) => {
                let client = self.client(parts, peer).address();
                warn!(
                    client,
                    "too many handshakes from one address: limits.handshakes_per_second_per_address bounds them; if it is a proxy's, http.trusted_proxies \
                     must name it"
                );
            }
            _ => {}
        }
    }
}

/// What there is to do for a request.
enum Work<'a> {
    Poll {
        session: Arc<Session>,
        script: Option<String>,
        reply: Reply,
    },
    Post {
        session: Arc<Session>,
        posted: Posted,
        reply: Reply,
    },
    /// A handshake or an upgrade, in a box because it is large and happens once a session.
    Open(Pin<Box<dyn Future<Output = Answer> + Send + 'a>>),
    Done(Answer),
}

/// What a client posts.
struct Posted {
    is_form: bool,
    is_binary: bool,
    announced: Option<u64>,
    body: Incoming,
}

impl Posted {
    fn of(headers: &HeaderMap, is_form: bool, body: Incoming) -> Self {
        Self {
            is_form,
            is_binary: headers.get(CONTENT_TYPE) == Some(&OCTETS),
            announced: headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()),
            body,
        }
    }
}

/// What an answer needs of its request.
struct Reply {
    /// Those that every answer carries, in the request's own map: hyper takes it back for the next request.
    headers: HeaderMap,
    /// The request itself where the application wants to see it; then nothing is in `headers` yet.
    request: Option<Box<Parts>>,
    is_explorer: bool,
    coding: Option<Coding>,
}

impl Reply {
    /// An answer to which the application adds nothing.
    fn with(self, io: &EngineIo, mut answer: Answer) -> Answer {
        match self.request {
            Some(request) => io.cors.get().add_headers(&request.headers, answer.headers_mut()),
            None => answer.headers_mut().extend(self.headers),
        }
        answer
    }

    /// The answer to a request that did what it was to do.
    fn with_all(mut self, io: &EngineIo, kind: HeaderValue, coding: Option<Coding>, body: Bytes, is_initial: bool) -> Answer {
        let mut headers = mem::take(&mut self.headers);
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, coding.header());
        }
        self.add_application(io, &mut headers, is_initial);
        if let Some(request) = &self.request {
            io.cors.get().add_headers(&request.headers, &mut headers);
        }
        let mut answer = plain(StatusCode::OK, body);
        *answer.headers_mut() = headers;
        answer
    }

    fn add_application(&self, io: &EngineIo, headers: &mut HeaderMap, is_initial: bool) {
        if self.is_explorer {
            // Internet Explorer takes what a page gets back of its own words for an attack on it.
            headers.insert(X_XSS_PROTECTION, HeaderValue::from_static("0"));
        }
        if let Some(request) = &self.request {
            io.engine.add_headers(headers, request, is_initial);
        }
    }
}

/// A byte of a cookie's value, as JavaScript's `encodeURIComponent` writes it.
fn encode(byte: u8) -> String {
    let char = char::from(byte);
    if byte.is_ascii_alphanumeric() || "-_.!~*'()".contains(char) { char.to_string() } else { format!("%{byte:02X}") }
}

/// The reference's JSON answer to a request that it refuses.
fn refusal(status: u16, code: u8, message: &str) -> Answer {
    let message = serde_json::to_string(message).expect("a string is JSON");
    let body = format!(r#"{{"code":{code},"message":{message}}}"#);
    let mut answer = plain(StatusCode::from_u16(status).expect("our own statuses"), Bytes::from(body));
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// Ends a session whose client goes before its answer is ready: the packets of that answer would be missing.
struct Answering<'a>(Option<&'a Session>);

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.0 {
            session.discard(CloseReason::TransportError);
        }
    }
}

/// A whole body, and what counts it; an error is the status of the answer, none that of a body that is too large.
async fn read(mut body: Limited<Incoming>, mut intake: Intake) -> Result<(Bytes, Intake), Option<StatusCode>> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| (!error.is::<LengthLimitError>()).then_some(StatusCode::BAD_REQUEST))?;
        // Trailers mean nothing here.
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        intake.hold(bytes.len()).map_err(|Overflow| Some(StatusCode::SERVICE_UNAVAILABLE))?;
    }
    Ok((bytes.into(), intake))
}

/// A body that is counted until hyper has written it.
struct Outgoing {
    body: Vec<u8>,
    _held: Option<Held>,
}

impl AsRef<[u8]> for Outgoing {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// A client that may come in.
struct Guest {
    sid: Sid,
    handshake: Handshake,
    admission: Admission,
}

fn transport(parts: &Parts) -> Option<&'static str> {
    let named = Query::find(parts.uri.query().unwrap_or_default(), "transport")?;
    [TransportKind::Polling, TransportKind::WebSocket].map(TransportKind::as_str).into_iter().find(|name| *name == named)
}

/// RFC 6455, section 4.2.1: `Connection` names `upgrade` among others, `Upgrade` names `websocket`.
fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let names = |header, token: &str| {
        let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
    };
    names(UPGRADE, "websocket") && names(CONNECTION, "upgrade")
}

/// RFC 6455, section 4.2.1, items 5 and 6: a key of 16 bytes in base64, and version 13.
fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    use base64::Engine as _;
    let key = headers.get(SEC_WEBSOCKET_KEY)?.as_bytes();
    let is_key = base64::prelude::BASE64_STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16);
    let is_version_13 = headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    if is_key && is_version_13 { HeaderValue::from_str(&derive_accept_key(key)).ok() } else { None }
}
