//! WebSocket frames through a whole session: cut anywhere, they bring what they bring in one piece, and a client that reads nothing costs little.

use super::input::Input;
use bytes::Bytes;
use bytestring::ByteString;
use std::cell::RefCell;
use std::io::{self, Cursor, IoSlice, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, SystemTime};
use stickyport::engine::stream::{Memory, Stream};
use stickyport::engine::{CloseReason, Connection, Engine, Handshake, Message, Options, Session, Version};
use stickyport::protocol::eio::{Packet, PacketError, v3};
use stickyport::protocol::limits::Limits;
use stickyport::protocol::sid::Sid;
use tokio::runtime::Runtime;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{self, Message as Frame};

const MAX_PAYLOAD: usize = 256;
const OUTBOX: usize = 512;

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime"),
    );
}

pub fn websocket(data: &[u8]) {
    let mut input = Input::new(data);
    let version = input.one_of(&[Version::V4, Version::V3]);
    let (is_slow, reads) = input.one_of(&[(false, true), (true, true), (false, false)]);
    let (unread, cut) = (input.below(64), 1 + input.below(64));
    let (unread, rest) = data.get(4..).unwrap_or_default().split_at_checked(unread).unwrap_or_default();
    let (heard, echoed) = RUNTIME.with_borrow_mut(|runtime| runtime.block_on(hear(version, is_slow, reads, unread, rest, cut)));
    let expected = expected(version, &[unread, rest].concat());
    if reads {
        assert_eq!((&heard, &echoed), (&expected, &expected));
    } else {
        assert!(expected.starts_with(&heard), "{heard:?} instead of {expected:?}");
    }
}

/// What the application hears when the bytes come in such pieces, and then the end; and what it sends back, if the client reads it.
async fn hear(
    version: Version,
    is_slow: bool,
    reads: bool,
    unread: &[u8],
    rest: &[u8],
    cut: usize,
) -> (Vec<Message>, Vec<Message>) {
    let ear = Arc::new(Ear { is_slow, ..Ear::default() });
    let options = Options { max_payload: MAX_PAYLOAD, allow_eio3: true, ..Options::default() };
    let limits = Limits { outbox_bytes: if reads { usize::MAX } else { OUTBOX }, ..Limits::default() };
    let engine = Engine::builder().options(options).limits(limits).build(Arc::new(Application(Arc::clone(&ear))));
    let (server, client) = Memory::pair(if reads { 1 << 20 } else { 1 << 8 });
    let handshake = Handshake {
        version,
        headers: Default::default(),
        query: Vec::new(),
        url: String::new(),
        address: String::new(),
        secure: false,
        issued: SystemTime::UNIX_EPOCH,
    };
    let admission = engine.admit("somebody").expect("a place for the only one");
    engine.open_websocket(Sid::from("0-00abcdefghijklmnop"), admission, handshake, Stream::Memory(server), unread);
    for piece in rest.chunks(cut) {
        let Some(session) = ear.session() else { break };
        write(&client, piece, &session).await;
        let backlog = session.backlog();
        // Beside what the limit allows there may be the answers to the pings of one read.
        assert!(backlog <= if reads { 0 } else { OUTBOX.max(unread.len() + rest.len()) }, "{backlog} bytes wait");
    }
    client.shut_down();
    engine.tasks().close();
    let mut left = data_bound(unread.len() + rest.len());
    // Few enough rounds to outlast a client that takes no last words, and short enough ones that no ping comes between.
    while timeout(Duration::from_millis(20), engine.tasks().wait()).await.is_err() {
        left = u32::checked_sub(left, 1).expect("a session whose client is gone is over");
        let waits = ear.is_waiting.swap(false, Ordering::Relaxed);
        ear.session().filter(|_| waits).inspect(|session| session.resume());
    }
    assert!(ear.session().is_none(), "somebody holds a session that is over");
    assert!(engine.is_empty());
    assert_eq!(engine.metrics().outbound_bytes.get(), 0, "bytes that nobody holds are counted");
    let heard = std::mem::take(&mut *ear.heard.lock().expect("no panic"));
    assert_eq!(heard.iter().filter(|event| event.is_none()).count(), 1, "one end");
    assert_eq!(heard.last(), Some(&None), "nothing follows the end");
    (heard.into_iter().flatten().collect(), if reads { read_back(version, &client) } else { Vec::new() })
}

/// Writes all of it, unless the session is over.
async fn write(client: &Memory, mut piece: &[u8], session: &Session) {
    let mut rounds = 0;
    while !piece.is_empty() && session.is_open() {
        match client.try_write_vectored(&[IoSlice::new(piece)]) {
            Ok(count) => piece = &piece[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        yield_now().await;
        rounds += 1;
        assert!(rounds < 100, "a session that does not read");
    }
}

/// Rounds that it takes to hand on so many bytes, a message each, and to say good-bye.
fn data_bound(bytes: usize) -> u32 {
    1_000 + bytes as u32
}

/// The messages that the client reads, behind the open packet.
fn read_back(version: Version, client: &Memory) -> Vec<Message> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = client.try_read(&mut piece) {
        bytes.extend_from_slice(&piece[..count]);
    }
    let mut context = WebSocketContext::new(Role::Client, None);
    let mut wire = Wire(Cursor::new(&bytes));
    let mut packets = Vec::new();
    loop {
        match context.read(&mut wire) {
            Ok(Frame::Close(_)) => {}
            Ok(frame) => packets.extend(decode(version, frame)),
            Err(tungstenite::Error::Protocol(error)) if error != ProtocolError::ResetWithoutClosingHandshake => panic!("{error}"),
            Err(_) => break,
        }
    }
    let mut packets = packets.into_iter().map(|packet| packet.expect("packets"));
    assert!(matches!(packets.next(), Some(Packet::Open(_))));
    packets.filter_map(|packet| if let Packet::Message(message) = packet { Some(message) } else { None }).collect()
}

/// The packet in a frame, or nothing in a control frame.
fn decode(version: Version, frame: Frame) -> Option<Result<Packet, PacketError>> {
    let message = match frame {
        Frame::Text(text) => Message::Text(ByteString::try_from(Bytes::from(text)).expect("tungstenite has looked")),
        Frame::Binary(bytes) => Message::Binary(bytes),
        _ => return None,
    };
    Some(match (version, message) {
        (Version::V3, message) => v3::decode_packet(message),
        (Version::V4, Message::Text(text)) => Packet::decode(text),
        (Version::V4, message) => Ok(Packet::Message(message)),
    })
}

/// What tungstenite alone makes of the bytes, and Engine.IO of that.
fn expected(version: Version, bytes: &[u8]) -> Vec<Message> {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_PAYLOAD)).max_frame_size(Some(MAX_PAYLOAD));
    let mut context = WebSocketContext::new(Role::Server, Some(config));
    let mut wire = Wire(Cursor::new(bytes));
    let mut messages = Vec::new();
    loop {
        let packet = match context.read(&mut wire) {
            Ok(Frame::Close(_)) | Err(_) => return messages,
            Ok(frame) => decode(version, frame),
        };
        match (version, packet) {
            (_, Some(Ok(Packet::Message(message)))) => messages.push(message),
            (_, None | Some(Ok(Packet::Open(_) | Packet::Upgrade | Packet::Noop))) => {}
            (Version::V3, Some(Ok(Packet::Ping(_)))) | (Version::V4, Some(Ok(Packet::Pong(_)))) => {}
            _ => return messages,
        }
    }
}

struct Wire<'a>(Cursor<&'a [u8]>);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives the session its ear.
struct Application(Arc<Ear>);

impl stickyport::engine::Application for Application {
    fn opened(&self, session: &Arc<Session>) -> Arc<dyn Connection> {
        assert!(self.0.session.set(Arc::downgrade(session)).is_ok(), "one session");
        Arc::clone(&self.0) as Arc<dyn Connection>
    }
}

/// Notes what it hears and sends it back; a slow one wants a pause after each message.
#[derive(Default)]
struct Ear {
    is_slow: bool,
    session: OnceLock<Weak<Session>>,
    /// Messages, and `None` for the end.
    heard: Mutex<Vec<Option<Message>>>,
    is_waiting: AtomicBool,
}

impl Ear {
    fn session(&self) -> Option<Arc<Session>> {
        self.session.get().expect("it was opened").upgrade()
    }
}

impl Connection for Ear {
    fn message(&self, session: &Arc<Session>, message: Message) {
        // A client that reads nothing has lost its session when this fails.
        let _ = session.send_message(&message);
        self.heard.lock().expect("no panic").push(Some(message));
        assert!(!self.is_waiting.swap(self.is_slow, Ordering::Relaxed), "a message in a pause");
    }

    fn closed(&self, _: &Arc<Session>, _: CloseReason) {
        self.heard.lock().expect("no panic").push(None);
    }

    fn ready(&self) -> bool {
        !self.is_waiting.load(Ordering::Relaxed)
    }
}
