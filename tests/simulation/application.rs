//! The application of the simulation: it writes down what it hears, and talks to its clients whenever it likes.

use crate::chance::Chance;
use crate::ledger::{Kind, Ledger};
use bytes::Bytes;
use serde_json::Value;
use std::time::Duration;
use stickyport::engine::CloseReason;
use stickyport::hub::{
    Ack, AckError, All, Broadcast, Builder, ConnectError, DisconnectReason, Namespace, Regex, Socket, SocketIo, State,
};
use tokio::time::sleep;

/// The namespaces that clients may ask for; the first is the one that they begin with.
pub const NAMESPACES: &[&str] = &["/", "/asked", "/made-1", "/made-2"];

/// Rooms that sockets are in.
const ROOMS: u64 = 4;

/// The longest pause in what the server says.
const PAUSE: Duration = Duration::from_secs(4);

/// What handlers know.
#[derive(Clone)]
pub struct Desk {
    pub ledger: Ledger,
    pub seed: u64,
    /// Time in which every client that is well answers.
    pub patience: Duration,
}

pub fn furnish(builder: Builder, desk: Desk) -> SocketIo {
    let made = Regex::new(r"^/made-\d$").expect("a pattern");
    builder
        .state(desk.clone())
        .namespace(behave(Namespace::new("/"), &desk))
        .namespace(behave(Namespace::new("/asked").middleware(ask), &desk))
        .namespace(behave(Namespace::matching(made), &desk))
        .build()
}

fn behave(namespace: Namespace, desk: &Desk) -> Namespace {
    let desk = desk.clone();
    let upgraded = move |socket: &Socket, _| upgraded(socket, &desk);
    namespace.on_connect(connected).on("say", say).on("show", show).on_disconnect(disconnected).on_upgrade(upgraded)
}

/// The number under which a client comes in: what it shows, or in protocol 3 what its first request says.
fn voice(socket: &Socket) -> usize {
    let shown = socket.handshake().auth::<Value>().ok().and_then(|auth| auth.get("voice").cloned());
    let shown = shown.map(|voice| voice.to_string().trim_matches('"').to_owned());
    let voice = shown.or_else(|| socket.handshake().query("voice").map(str::to_owned));
    voice.and_then(|voice| voice.parse().ok()).expect("every client shows it")
}

/// Takes its time, and turns some away.
async fn ask(socket: Socket, State(desk): State<Desk>) -> Result<(), ConnectError> {
    let voice = voice(&socket);
    let mut chance = Chance::new(desk.seed ^ voice as u64);
    sleep(chance.up_to(Duration::from_millis(300))).await;
    if chance.one_in(4) { Err("not you".into()) } else { Ok(()) }
}

fn connected(socket: Socket, State(desk): State<Desk>) {
    let voice = voice(&socket);
    desk.ledger.lock().connected(&socket, voice);
    if !socket.recovered() {
        socket.set_data(&voice).expect("a number has a form");
        join(&socket, format!("room {}", voice as u64 % ROOMS), &desk);
    }
    tokio::spawn(chat(socket, voice, desk));
}

fn join(socket: &Socket, room: String, desk: &Desk) {
    socket.join(&room).expect("it is connected, and in few rooms");
    desk.ledger.lock().joined(socket.id().as_str(), room);
}

/// In the middle of the upgrade, sometimes, that is enough.
fn upgraded(socket: &Socket, desk: &Desk) {
    let voice = desk.ledger.lock().voice(socket.id().as_str());
    let mut chance = Chance::new(desk.seed.rotate_left(16) ^ voice as u64);
    match chance.below(24) {
        0 => close(socket, voice, desk),
        1 => discard(socket, voice, desk),
        2 => disconnect_all(socket, voice, desk),
        _ => {}
    }
}

/// The client's number, and how many milliseconds to be slow for.
async fn say(socket: Socket, All((number, slow, _)): All<(u64, u64, String)>, State(desk): State<Desk>) -> Ack<(u64, u64)> {
    if slow > 0 {
        sleep(Duration::from_millis(slow)).await;
    }
    desk.ledger.lock().heard(socket.id().as_str(), number);
    Ack(desk.ledger.lock().account(socket.id().as_str()))
}

fn show(socket: Socket, All((number, picture)): All<(u64, Bytes)>, State(desk): State<Desk>) -> Ack<(u64, u64)> {
    let mut books = desk.ledger.lock();
    books.check(picture == paint(number), format_args!("a picture arrives as it was sent"));
    books.heard(socket.id().as_str(), number);
    Ack(books.account(socket.id().as_str()))
}

fn disconnected(socket: Socket, reason: DisconnectReason, State(desk): State<Desk>) {
    desk.ledger.lock().disconnected(socket.id().as_str(), reason);
}

/// Bytes that only this number has.
pub fn paint(number: u64) -> Vec<u8> {
    let length = 1 + number as usize * 37 % 600;
    number.to_le_bytes().into_iter().cycle().take(length).collect()
}

/// What the server says to one socket, or to others because of it.
async fn chat(socket: Socket, voice: usize, desk: Desk) {
    let mut chance = Chance::new(desk.seed.rotate_left(32) ^ voice as u64);
    for _ in 0..chance.below(10) {
        sleep(chance.up_to(PAUSE)).await;
        if !socket.is_connected() {
            // What is sent to one that has gone is kept, if it may come back.
            (0..chance.below(3)).for_each(|_| news(&socket, &desk.ledger, 10));
            return;
        }
        speak(&socket, voice, &desk, &mut chance);
    }
}

fn speak(socket: &Socket, voice: usize, desk: &Desk, chance: &mut Chance) {
    let ledger = &desk.ledger;
    let id = socket.id().as_str();
    let sid = socket.session().sid().as_str();
    let room = format!("room {}", chance.below(ROOMS));
    match chance.below(100) {
        0..30 => news(socket, ledger, chance.below(50) as usize),
        // A burst that fills buffers.
        30..40 => (0..chance.below(12)).for_each(|_| news(socket, ledger, 1_000)),
        40..50 => {
            let number = ledger.lock().tell(&[id], Kind::Volatile);
            let _ = socket.volatile().emit("news", (number, 0));
        }
        50..62 => ask_client(socket, voice, desk),
        62..70 => {
            let number = ledger.lock().tell(&[id], Kind::Kept);
            if socket.emit("picture", (number, Bytes::from(paint(number)))).is_err() {
                ledger.lock().untell(id, number);
            }
        }
        70..80 => broadcast(&socket.to(&room), ledger, socket.namespace(), Some(&room), Some(id)),
        80..86 => broadcast(&socket.nsp(), ledger, socket.namespace(), None, None),
        86..90 => ask_everybody(&socket.nsp().to(room), desk),
        90..94 => {
            if chance.one_in(2) {
                join(socket, room, desk);
            } else {
                socket.leave(&room);
                ledger.lock().parted(id, &room);
            }
        }
        94..96 => {
            ledger.note(format_args!("v{voice}: the server sends it away"));
            ledger.lock().dismissed(id);
            socket.disconnect(false);
        }
        96 => disconnect_all(socket, voice, desk),
        97 => close(socket, voice, desk),
        98 => {
            ledger.note(format_args!("v{voice}: the server hangs up"));
            ledger.lock().lets_go(sid, CloseReason::ServerShuttingDown, Duration::ZERO);
            socket.session().hang_up(CloseReason::ServerShuttingDown);
        }
        _ => discard(socket, voice, desk),
    }
}

fn disconnect_all(socket: &Socket, voice: usize, desk: &Desk) {
    let sid = socket.session().sid().as_str();
    desk.ledger.note(format_args!("v{voice}: the server sends all of its client away"));
    desk.ledger.lock().dismissed_all(sid);
    desk.ledger.lock().lets_go(sid, CloseReason::ForcedServerClose, Duration::ZERO);
    socket.disconnect(true);
}

fn close(socket: &Socket, voice: usize, desk: &Desk) {
    desk.ledger.note(format_args!("v{voice}: the server closes its session"));
    desk.ledger.lock().lets_go(socket.session().sid().as_str(), CloseReason::ForcedClose, Duration::ZERO);
    socket.session().close(CloseReason::ForcedClose);
}

fn discard(socket: &Socket, voice: usize, desk: &Desk) {
    desk.ledger.note(format_args!("v{voice}: the server discards its session"));
    desk.ledger.lock().discards(socket.session().sid().as_str(), CloseReason::ForcedClose, Duration::from_secs(1));
    socket.session().discard(CloseReason::ForcedClose);
}

fn news(socket: &Socket, ledger: &Ledger, length: usize) {
    let id = socket.id().as_str();
    let number = ledger.lock().tell(&[id], Kind::Kept);
    if socket.emit("news", (number, "x".repeat(length))).is_err() {
        ledger.lock().untell(id, number);
    }
}

fn broadcast(to: &Broadcast, ledger: &Ledger, namespace: &str, room: Option<&String>, except: Option<&str>) {
    let number = ledger.tell_all(to, Kind::Kept);
    // Who is away may come back for it.
    ledger.lock().tell_away(number, namespace, room, except);
    to.emit("news", (number, "to many")).expect("a good event");
}

fn ask_client(socket: &Socket, voice: usize, desk: &Desk) {
    let Desk { ledger, patience, .. } = desk.clone();
    let id = socket.id().as_str().to_owned();
    let number = ledger.lock().tell(&[&id], Kind::Asked);
    let waiting = socket.timeout(patience).emit_with_ack("ask", (number, 0));
    if !socket.session().is_open() {
        ledger.lock().untell(&id, number);
    }
    tokio::spawn(async move {
        let answer = waiting.await;
        let mut books = ledger.lock();
        match answer {
            Ok(args) => {
                let echo = args.first::<u64>().ok();
                books.note(format_args!("v{voice}: answers {echo:?}"));
                books.check(echo == Some(number), format_args!("v{voice}: the answer is to the question"));
            }
            Err(AckError::Timeout) => books.unanswered(&id),
            Err(_) => {}
        }
    });
}

fn ask_everybody(to: &Broadcast, desk: &Desk) {
    let ledger = desk.ledger.clone();
    let number = ledger.tell_all(to, Kind::Asked);
    let asked = to.local_sockets().len();
    let waiting = to.clone().timeout(desk.patience).emit_with_ack("ask", (number, 0));
    tokio::spawn(async move {
        let reply = waiting.await.expect("a good event");
        let mut books = ledger.lock();
        let total = reply.replies.len() + reply.missing;
        let is_echo = reply.replies.iter().all(|(_, args)| args.first::<u64>().ok() == Some(number));
        books.note(format_args!("{} of {asked} answer {number}", reply.replies.len()));
        books.check(is_echo && total == asked, format_args!("each of {asked} answers {number} once or is missing"));
    });
}
