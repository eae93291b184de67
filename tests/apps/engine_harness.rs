//! The Engine.IO server that the reference's own server suite drives: commands on standard input, events on standard output.
//!
//! It does what the reference child does, event for event, on the public API.

mod door;
mod node_options;
mod pipe;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use door::{headers, hooks, limits, listen, number, query, remote_address};
use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use node_options::NodeOptions;
use pipe::{Commands, Pipe, object, put};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use stickyport::engine::{Application, CloseReason, Connection, Engine, Message, Session, TransportKind};
use stickyport::http::client_address::Networks;
use stickyport::protocol::eio::Encoded;
use stickyport::protocol::eio::handshake::Query;
use stickyport::{Server, Shutdown};

// One thread, as in the reference: a command is carried out as a whole before anything else happens.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options: NodeOptions = serde_json::from_str(&std::env::args().nth(1).unwrap_or_else(|| "{}".to_owned()))?;
    let harness = Harness::default();
    let engine = Engine::builder()
        .options(options.engine("/engine.io"))
        .limits(limits())
        .hooks(hooks(&harness.pipe, &options, asked))
        .build(Arc::new(harness.clone()));
    let listeners = listen(options.port())?;
    let port = listeners.own_port().expect("just bound");
    let server = Server::new(engine)
        .cors(options.cors())
        // The reference knows no proxies: it tells whoever is at the other end of the socket.
        .trusted_proxies(Networks::default())
        .fallback(elsewhere(options.destroy_upgrade()));
    tokio::spawn(async move { server.run(listeners, &Shutdown::new()).await });
    harness.pipe.tell("listening", object! { port: port });

    let mut commands = Commands::new()?;
    while let Some(command) = commands.next().await {
        if command["c"] == "stop" {
            break;
        }
        harness.obey(&command);
    }
    harness.pipe.flush();
    // What is still open goes with the process, as in the reference.
    std::process::exit(0)
}

/// What is answered on other paths, where the reference's `listen` has a server of its own that knows nothing.
fn elsewhere(destroy_upgrade: Option<Duration>) -> Router {
    Router::new().fallback(async move |headers: HeaderMap| {
        if !headers.contains_key(UPGRADE) {
            return (StatusCode::NOT_IMPLEMENTED, Body::from("Not Implemented")).into_response();
        }
        match destroy_upgrade {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => pending().await,
        }
        // The reference says nothing before it closes; HTTP has a word for it.
        (StatusCode::NOT_FOUND, [(CONNECTION, HeaderValue::from_static("close"))]).into_response()
    })
}

fn asked(request: &Parts) -> Map<String, Value> {
    object! {
        url: request.uri.to_string(),
        method: request.method.as_str(),
        headers: headers(&(&request.headers).into()),
        query: query(Query::parse(request.uri.query().unwrap_or_default()).into_owned()),
    }
}

#[derive(Clone, Default)]
struct Harness {
    pipe: Pipe,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    sessions: HashMap<String, Arc<Session>>,
    /// Their sids, oldest first, as the reference goes through them.
    order: Vec<String>,
    /// What is to be said when the send with this mark has left.
    callbacks: HashMap<u64, Value>,
    marks: u64,
}

impl Harness {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics under this lock")
    }

    fn obey(&self, command: &Value) {
        let session = command["sid"].as_str().and_then(|sid| self.known().sessions.get(sid).cloned());
        match (command["c"].as_str(), session) {
            (Some("send"), Some(session)) => self.send(&session, command),
            (Some("close"), Some(session)) if command["discard"] == true => session.discard(CloseReason::ForcedClose),
            (Some("close"), Some(session)) => session.close(CloseReason::ForcedClose),
            (Some("closeAll"), _) => {
                let known = self.known();
                for session in known.order.iter().filter_map(|sid| known.sessions.get(sid)) {
                    session.discard(CloseReason::ForcedClose);
                }
            }
            (Some("answer"), _) => self.pipe.answered(command),
            // A session that has gone meanwhile is none of ours, as in the reference.
            _ => {}
        }
    }

    fn send(&self, session: &Session, command: &Value) {
        let message = match (&command["bin"], &command["text"]) {
            (Value::String(base64), _) => Message::Binary(BASE64_STANDARD.decode(base64).unwrap_or_default().into()),
            (_, Value::String(text)) => Message::from(text.as_str()),
            (_, Value::Null) => Message::from(""),
            (_, other) => Message::from(other.to_string().as_str()),
        };
        let packets = [Encoded::message(&message).compress(command["opts"]["compress"] != false)];
        // A session that is closing takes nothing more, as in the reference.
        if command["cb"].is_null() {
            let _ = session.send(&packets);
            return;
        }
        let mark = {
            let mut known = self.known();
            known.marks += 1;
            let mark = known.marks;
            known.callbacks.insert(mark, command["cb"].clone());
            mark
        };
        let _ = session.send_marked(&packets, mark);
    }

    fn tell(&self, session: &Session, event: &str, mut fields: Map<String, Value>) {
        put(&mut fields, "sid", session.sid().as_str());
        self.pipe.tell(event, fields);
    }
}

impl Application for Harness {
    fn opened(&self, session: &Arc<Session>) -> Arc<dyn Connection> {
        let sid = session.sid().as_str().to_owned();
        let mut known = self.known();
        known.order.push(sid.clone());
        known.sessions.insert(sid, Arc::clone(session));
        drop(known);
        let request = session.request();
        let event = object! {
            transport: session.transport().as_str(),
            protocol: number(session.version()),
            remoteAddress: remote_address(&request.address),
            query: query(request.query.clone()),
            headers: headers(&request.headers),
        };
        self.tell(session, "connection", event);
        Arc::new(self.clone())
    }
}

impl Connection for Harness {
    fn message(&self, session: &Arc<Session>, message: Message) {
        let event = match message {
            Message::Text(text) => object! { text: &*text },
            Message::Binary(bytes) => object! { bin: BASE64_STANDARD.encode(bytes) },
        };
        self.tell(session, "message", event);
    }

    fn heartbeat(&self, session: &Arc<Session>) {
        self.tell(session, "heartbeat", Map::new());
    }

    fn sent(&self, _: &Arc<Session>, mark: u64) {
        if let Some(callback) = self.known().callbacks.remove(&mark) {
            self.pipe.tell("sent", object! { cb: callback });
        }
    }

    fn upgrading(&self, session: &Arc<Session>) {
        self.tell(session, "upgrading", object! { transport: TransportKind::WebSocket.as_str() });
    }

    fn upgraded(&self, session: &Arc<Session>) {
        self.tell(session, "upgrade", object! { transport: TransportKind::WebSocket.as_str() });
    }

    fn closed(&self, session: &Arc<Session>, reason: CloseReason) {
        let mut known = self.known();
        known.sessions.remove(session.sid().as_str());
        known.order.retain(|sid| sid != session.sid().as_str());
        drop(known);
        self.tell(session, "close", object! { reason: reason.as_str() });
    }
}
