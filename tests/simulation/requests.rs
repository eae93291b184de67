//! A client's requests: what `http/` does with each, without HTTP, and with the time that each way takes.

use crate::wire::Body;
use crate::world::World;
use bytes::Bytes;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};
use stickyport::engine::stream::{Memory, Stream};
use stickyport::engine::{Handshake, Payload, Session, TransportKind};
use stickyport::protocol::eio::Version;
use stickyport::protocol::eio::handshake::{Query, Request as Checked, Route};
use tokio::time::sleep;

/// A request under way; dropping it is the client breaking it off.
pub struct Request<T> {
    pub answer: Pin<Box<dyn Future<Output = T> + Send>>,
    stage: Stage,
}

/// How far a request has come.
#[derive(Clone, Default)]
struct Stage(Arc<AtomicU8>);

const AT_SERVER: u8 = 1;
const ANSWERED: u8 = 2;

impl<T> Request<T> {
    /// Whether the server knows of it and has not answered.
    pub fn is_at_server(&self) -> bool {
        self.stage.0.load(Relaxed) == AT_SERVER
    }

    /// Whether its answer is on its way.
    pub fn is_answered(&self) -> bool {
        self.stage.0.load(Relaxed) == ANSWERED
    }
}

/// The answer to a GET.
#[derive(Debug)]
pub enum Got {
    Payload(Body),
    Refused,
}

/// How a POST goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Whole,
    /// Its connection breaks while its body is read.
    Broken,
    /// Its body never comes to an end.
    Endless,
    TooLarge,
    NotText,
}

/// The answer to a POST.
#[derive(Debug)]
pub enum Posted {
    /// Taken, and the session is open behind it.
    Open,
    /// Taken, and the session is over.
    Over,
    Refused,
}

/// Who sends a request.
#[derive(Debug, Clone)]
pub struct Sender {
    pub version: Version,
    pub sid: String,
}

impl Sender {
    fn query(&self, transport: &str) -> String {
        let version = if self.version == Version::V3 { 3 } else { 4 };
        format!("EIO={version}&transport={transport}&sid={}", self.sid)
    }
}

/// Opens a session: the body of the answer over polling, the client's end of the connection over WebSocket.
pub async fn open(world: &World, query: &str, over: TransportKind, capacity: usize) -> Option<Result<Body, Memory>> {
    let query = format!("{query}&transport={}", over.as_str());
    let query = Query::parse(&query);
    let is_upgrade = over == TransportKind::WebSocket;
    let checked = Checked { query: &query, is_get: true, is_upgrade, has_bad_origin: false };
    let Ok(Route::Handshake(_)) = world.engine.verify(checked) else { panic!("it names no session") };
    let (parts, ()) = http::Request::new(()).into_parts();
    let sid = world.engine.authorize(&parts, &query).await.expect("everybody may");
    let handshake = Handshake {
        headers: Default::default(),
        query: query.clone().into_owned(),
        url: "/socket.io/".to_owned(),
        address: "192.0.2.1".to_owned(),
        secure: false,
        version: Version::of(&query),
        issued: UNIX_EPOCH,
    };
    let admission = world.engine.admit(&handshake.address).ok()?;
    if is_upgrade {
        let (server, end) = Memory::pair(capacity);
        world.engine.open_websocket(sid, admission, handshake, Stream::Memory(server), &[]);
        return Some(Err(end));
    }
    let open = world.engine.open_polling(sid, admission, handshake).expect("a sid of its own");
    Some(Ok(body(&open)))
}

fn body(payload: &Payload) -> Body {
    let bytes = payload.body.clone();
    if payload.is_binary { Body::Binary(bytes) } else { Body::Text(String::from_utf8(bytes).expect("text")) }
}

pub fn get(world: &Arc<World>, sender: &Sender, there: Duration, back: Duration) -> Request<Got> {
    let (world, sender, stage) = (Arc::clone(world), sender.clone(), Stage::default());
    let at = stage.clone();
    let answer = Box::pin(async move {
        sleep(there).await;
        let Some(session) = find(&world, &sender, true, false) else { return refused(back).await };
        at.0.store(AT_SERVER, Relaxed);
        let polled = session.poll().await;
        drop(session);
        at.0.store(ANSWERED, Relaxed);
        // The payload counts as outbound until its client has it.
        match polled {
            Ok(payload) => {
                sleep(back).await;
                Got::Payload(body(&payload))
            }
            Err(_) => refused(back).await,
        }
    });
    Request { answer, stage }
}

async fn refused(back: Duration) -> Got {
    sleep(back).await;
    Got::Refused
}

pub fn post(world: &Arc<World>, sender: &Sender, body: Body, manner: Manner, there: Duration, back: Duration) -> Request<Posted> {
    let (world, sender, stage) = (Arc::clone(world), sender.clone(), Stage::default());
    let at = stage.clone();
    let answer = Box::pin(async move {
        sleep(there).await;
        let posted = match find(&world, &sender, false, false) {
            Some(session) => {
                at.0.store(AT_SERVER, Relaxed);
                deliver(&world, &session, body, manner, there).await
            }
            None => Posted::Refused,
        };
        at.0.store(ANSWERED, Relaxed);
        sleep(back).await;
        posted
    });
    Request { answer, stage }
}

async fn deliver(world: &World, session: &Arc<Session>, body: Body, manner: Manner, upload: Duration) -> Posted {
    let Ok(post) = session.begin_post() else { return Posted::Refused };
    sleep(upload).await;
    match manner {
        Manner::Whole => {
            let body = match body {
                Body::Text(text) => text.into(),
                Body::Binary(bytes) => Bytes::from(bytes).into(),
            };
            post.deliver(body).await;
            return if session.is_open() { Posted::Open } else { Posted::Over };
        }
        Manner::Broken => drop(post),
        Manner::Endless => {
            sleep(world.engine.limits().get().body_timeout).await;
            post.break_off();
        }
        Manner::TooLarge => post.refuse(),
        Manner::NotText => post.break_off(),
    }
    Posted::Refused
}

/// A WebSocket that asks to take a polling session over; `None` is a refusal.
pub fn upgrade(world: &Arc<World>, sender: &Sender, capacity: usize, there: Duration, eager: usize) -> Option<Memory> {
    let session = find(world, sender, true, true)?;
    let (server, end) = Memory::pair(capacity);
    let engine = Arc::clone(&world.engine);
    world.engine.tasks().spawn(async move {
        sleep(there).await;
        // What came with the request was read together with it.
        let mut unread = vec![0; eager];
        let count = server.try_read(&mut unread).unwrap_or(0);
        unread.truncate(count);
        engine.upgrade(session, Stream::Memory(server), &unread).await;
    });
    Some(end)
}

fn find(world: &World, sender: &Sender, is_get: bool, is_upgrade: bool) -> Option<Arc<Session>> {
    let query = sender.query(if is_upgrade { "websocket" } else { "polling" });
    let query = Query::parse(&query);
    match world.engine.verify(Checked { query: &query, is_get, is_upgrade, has_bad_origin: false }) {
        Ok(Route::Session(session)) => Some(session),
        Ok(Route::Handshake(_)) => panic!("it names its session"),
        Err(_) => None,
    }
}
