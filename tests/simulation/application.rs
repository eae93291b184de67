//! The application of the simulation: it writes down what it hears, and talks to its clients whenever it likes.

use crate::chance::Chance;
use crate::ledger::Ledger;
use bytes::Bytes;
use std::time::Duration;
use stickyport::engine::CloseReason;
use stickyport::hub::{
    Ack, AckError, All, Auth, Broadcast, Builder, ConnectError, DisconnectReason, Namespace, Regex, Socket, SocketIo, State,
};
use tokio::time::sleep;

/// The namespaces that clients may ask for; the first is the one that they begin with.
pub const NAMESPACES: &[&str] = &["/", "/asked", "/made-1", "/made-2"];

/// Rooms that sockets are in.
const ROOMS: u64 = 4;

/// The longest pause in what the server says.
const PAUSE: Duration = Duration::from_secs(4);

/// What a client shows when it comes in.
#[derive(serde::Deserialize)]
struct Card {
    voice: usize,
}

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
        .state(desk)
        .namespace(behave(Namespace::new("/")))
        .namespace(behave(Namespace::new("/asked").middleware(ask)))
        .namespace(behave(Namespace::matching(made)))
        .build()
}

fn behave(namespace: Namespace) -> Namespace {
    namespace.on_connect(connected).on("say", say).on("show", show).on_disconnect(disconnected)
}

/// Takes its time, and turns some away.
async fn ask(Auth(Card { voice }): Auth<Card>, State(desk): State<Desk>) -> Result<(), ConnectError> {
    let mut chance = Chance::new(desk.seed ^ voice as u64);
    sleep(chance.up_to(Duration::from_millis(300))).await;
    if chance.one_in(4) { Err("not you".into()) } else { Ok(()) }
}

fn connected(socket: Socket, Auth(Card { voice }): Auth<Card>, State(desk): State<Desk>) {
    desk.ledger.lock().connected(&socket, voice);
    let room = format!("room {}", voice as u64 % ROOMS);
    socket.join(room).expect("there is room for one");
    tokio::spawn(chat(socket, voice, desk));
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
            let number = ledger.lock().tell(&[id], true);
            let _ = socket.volatile().emit("news", (number, ""));
        }
        50..62 => ask_client(socket, voice, desk),
        62..70 => {
            let number = ledger.lock().tell(&[id], false);
            if socket.emit("picture", (number, Bytes::from(paint(number)))).is_err() {
                ledger.lock().untell(id, number);
            }
        }
        70..80 => broadcast(&socket.to(room), ledger),
        80..86 => broadcast(&socket.nsp(), ledger),
        86..90 => ask_everybody(&socket.nsp().to(room), desk),
        90..94 => {
            if chance.one_in(2) {
                socket.join(room).expect("it is connected, and in few rooms");
            } else {
                socket.leave(room);
            }
        }
        94..96 => {
            ledger.note(format_args!("v{voice}: the server sends it away"));
            ledger.lock().dismissed(id);
            socket.disconnect(false);
        }
        96 => {
            ledger.note(format_args!("v{voice}: the server sends all of its client away"));
            let sid = sid.to_owned();
            ledger.lock().dismissed_all(&sid);
            ledger.lock().lets_go(&sid, CloseReason::ForcedServerClose, Duration::ZERO);
            socket.disconnect(true);
        }
        97 => {
            ledger.note(format_args!("v{voice}: the server closes its session"));
            ledger.lock().lets_go(sid, CloseReason::ForcedClose, Duration::ZERO);
            socket.session().close(CloseReason::ForcedClose);
        }
        98 => {
            ledger.note(format_args!("v{voice}: the server hangs up"));
            ledger.lock().lets_go(sid, CloseReason::ServerShuttingDown, Duration::ZERO);
            socket.session().hang_up(CloseReason::ServerShuttingDown);
        }
        _ => {
            ledger.note(format_args!("v{voice}: the server discards its session"));
            ledger.lock().discards(sid, CloseReason::ForcedClose, Duration::from_secs(1));
            socket.session().discard(CloseReason::ForcedClose);
        }
    }
}

fn news(socket: &Socket, ledger: &Ledger, length: usize) {
    let id = socket.id().as_str();
    let number = ledger.lock().tell(&[id], false);
    if socket.emit("news", (number, "x".repeat(length))).is_err() {
        ledger.lock().untell(id, number);
    }
}

fn broadcast(to: &Broadcast, ledger: &Ledger) {
    let number = ledger.tell_all(to);
    to.emit("news", (number, "to many")).expect("a good event");
}

fn ask_client(socket: &Socket, voice: usize, desk: &Desk) {
    let Desk { ledger, patience, .. } = desk.clone();
    let id = socket.id().as_str().to_owned();
    let number = ledger.lock().tell(&[&id], false);
    let waiting = socket.timeout(patience).emit_with_ack("ask", (number, ""));
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
    let number = ledger.tell_all(to);
    let asked = to.local_sockets().len();
    let waiting = to.clone().timeout(desk.patience).emit_with_ack("ask", (number, ""));
    tokio::spawn(async move {
        let reply = waiting.await.expect("a good event");
        let mut books = ledger.lock();
        let total = reply.replies.len() + reply.missing;
        let is_echo = reply.replies.iter().all(|(_, args)| args.first::<u64>().ok() == Some(number));
        books.note(format_args!("{} of {asked} answer {number}", reply.replies.len()));
        books.check(is_echo && total == asked, format_args!("each of {asked} answers {number} once or is missing"));
    });
}
