//! The demo: says which instance a client reached, echoes the port, and keeps a small chat room.
//!
//! It is the same in `/` and in `/ws`:
//!
//! - on connect the client gets the event `data` with `"connected to worker: <instance>"`;
//! - `b:message` is answered by `s:message` with `"<namespace>: <port>"`;
//! - `chat:join` with `{name}` is acknowledged with who is there, and the others get `chat:joined`; joining again changes the name;
//! - `chat:message` with `{text}` goes to everyone in the room, the sender included, and is acknowledged with `{}`;
//! - the others get `chat:left` when a member disconnects.
//!
//! What the room refuses it acknowledges with `{error}`, in words for the client's user.

use crate::hub::{AckSender, Data, EmitError, HandlerResult, Namespace, Socket};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const ROOM: &str = "chat";
const NAME: usize = 32;
const TEXT: usize = 500;
/// Of so many members one who joins hears the names, of the rest the number.
const NAMED: usize = 200;
/// A member's next event waits so long after one that the room has heard of: nobody floods it, and only who tries is held up.
const BREATH: Duration = Duration::from_millis(50);

/// The demo's namespaces, for the instance and the port that they name to clients.
pub fn namespaces(instance: u32, port: u16) -> Vec<Namespace> {
    ["/", "/ws"].map(|name| namespace(name, instance, port)).into()
}

fn namespace(name: &'static str, instance: u32, port: u16) -> Namespace {
    Namespace::new(name)
        .on_connect(move |socket: Socket| socket.emit("data", format!("connected to worker: {instance}")))
        .on("b:message", move |socket: Socket| socket.emit("s:message", format!("{name}: {port}")))
        .on("chat:join", join)
        .on("chat:message", say)
        .on_disconnecting(leave)
}

/// What a socket in the room carries as its data.
#[derive(Serialize, Deserialize)]
struct Member {
    name: String,
}

#[derive(Deserialize)]
struct Join {
    name: String,
}

#[derive(Serialize)]
struct Welcome {
    name: String,
    people: Vec<Person>,
    total: usize,
}

#[derive(Serialize)]
struct Person {
    id: String,
    name: String,
}

#[derive(Serialize)]
struct Joined<'a> {
    id: &'a str,
    name: &'a str,
    was: Option<&'a str>,
}

async fn join(socket: Socket, Data(wish): Data<Join>, ack: AckSender) -> HandlerResult {
    let Some(name) = bounded(&wish.name, NAME) else {
        return refuse(ack, "A name has 1 to 32 characters.");
    };
    let was = socket.data::<Member>().ok().map(|member| member.name);
    socket.set_data(&Member { name: name.clone() })?;
    socket.join(ROOM)?;

    let others = socket.to(ROOM);
    others.emit("chat:joined", Joined { id: socket.id().as_str(), name: &name, was: was.as_deref() })?;
    let members = others.fetch_sockets().await.value;
    let total = members.len() + 1;
    let named = members.iter().take(NAMED).filter_map(|member| {
        let Member { name } = member.data().ok()?;
        Some(Person { id: member.id().to_string(), name })
    });
    ack.send(Welcome { name, people: named.collect(), total })?;
    tokio::time::sleep(BREATH).await;
    Ok(())
}

#[derive(Deserialize)]
struct Say {
    text: String,
}

#[derive(Serialize)]
struct Message<'a> {
    id: &'a str,
    name: &'a str,
    text: &'a str,
}

async fn say(socket: Socket, Data(message): Data<Say>, ack: AckSender) -> HandlerResult {
    let Some(member) = socket.data::<Member>().ok() else {
        return refuse(ack, "Join before you speak.");
    };
    let Some(text) = bounded(&message.text, TEXT) else {
        return refuse(ack, "A message has 1 to 500 characters.");
    };
    let message = Message { id: socket.id().as_str(), name: &member.name, text: &text };
    socket.to(ROOM).emit("chat:message", &message)?;
    socket.emit("chat:message", &message)?;
    ack.send(serde_json::json!({}))?;
    tokio::time::sleep(BREATH).await;
    Ok(())
}

#[derive(Serialize)]
struct Left<'a> {
    id: &'a str,
    name: &'a str,
}

fn leave(socket: Socket) -> Result<(), EmitError> {
    let Ok(Member { name }) = socket.data() else {
        return Ok(());
    };
    socket.to(ROOM).emit("chat:left", Left { id: socket.id().as_str(), name: &name })
}

#[derive(Serialize)]
struct Refusal {
    error: &'static str,
}

fn refuse(ack: AckSender, error: &'static str) -> HandlerResult {
    ack.send(Refusal { error })?;
    Ok(())
}

/// The text on one line without blanks around it, if it has 1 to `most` characters then.
fn bounded(text: &str, most: usize) -> Option<String> {
    let line: String = text.chars().filter(|c| !is_invisible(*c)).collect();
    let line = line.trim();
    (1..=most).contains(&line.chars().count()).then(|| line.to_owned())
}

/// Control characters, those that show nothing, and those that change the direction of what stands around them.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_counted_in_characters_and_kept_on_one_line() {
        assert_eq!(bounded("  Ada  ", 3).as_deref(), Some("Ada"));
        assert_eq!(bounded("Adas", 3), None);
        assert_eq!(bounded("\u{1f30d}\u{1f30d}\u{1f30d}", 3).as_deref(), Some("\u{1f30d}\u{1f30d}\u{1f30d}"));
        assert_eq!(bounded("a\nb\0\u{202e}c\u{7f}", 3).as_deref(), Some("abc"));
        for nothing in ["", "   ", "\n\u{2066} \u{200f}"] {
            assert_eq!(bounded(nothing, 3), None, "{nothing:?}");
        }
    }
}
