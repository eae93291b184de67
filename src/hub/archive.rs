//! The seam to what a cluster keeps for clients who come back on whichever node: their sessions, and the events in one order for all.

use super::adapter::{Action, Asked};
use super::broadcast::Flags;
use super::room::Room;
use crate::protocol::sid::{Pid, SocketId};
use crate::protocol::sio::Args;
use bytestring::ByteString;
use serde_json::value::RawValue;
use smol_str::SmolStr;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// What a cluster keeps for clients who come back.
///
/// Events are recorded, and then heard by every node in the order of their [`Offset`]s, by the one that sent them as well. So whoever has heard one has
/// heard those before it, wherever they came from, and can be sent the rest by anyone.
pub trait Archive: fmt::Debug + Send + Sync + 'static {
    /// Sessions are kept so long after they were last heard of, and in so many bytes at most where they wait to be written.
    fn open(&self, keep: Duration, limit: usize);

    /// Records what is done to sockets, this node's included; `false` says that this node is not going to be told of it: it is to do it at once.
    fn record(&self, namespace: &ByteString, action: Action<'_>) -> bool;

    /// Does something when all that was recorded here before has been heard; at once, if it has, or if the `bytes` that it holds are too many to wait.
    fn after(&self, namespace: &ByteString, bytes: usize, act: Box<dyn FnOnce() + Send>);

    /// An event up to which all have been heard here.
    fn heard(&self, namespace: &ByteString) -> Offset;

    /// A client has come in; `session` tells what it is now, whenever that is written.
    fn begin(&self, pid: &Pid, session: SessionSource);

    /// Its rooms or its data are others now.
    fn changed(&self, pid: &Pid);

    /// It has gone and may come back.
    fn end(&self, session: ArchivedSession);

    /// It has gone for good.
    fn forget(&self, pid: &Pid);

    /// Takes out what is known of a client, and what it missed after the event that it names and up to `until`; `None` names the place where it came in.
    ///
    /// Of more than `limit` bytes nothing is told.
    fn restore(
        self: Arc<Self>,
        namespace: &ByteString,
        pid: String,
        offset: Option<String>,
        until: Offset,
        limit: usize,
    ) -> Asked<Result<Recovered, &'static str>>;
}

/// Tells what a client is at the moment.
pub type SessionSource = Arc<dyn Fn() -> ArchivedSession + Send + Sync>;

/// A client as it is kept.
#[derive(Debug, Clone)]
pub struct ArchivedSession {
    /// Its namespace; Node's servers do not say.
    pub namespace: Option<ByteString>,
    /// The id of its socket.
    pub sid: SocketId,
    /// What it names to come back.
    pub pid: Pid,
    /// Its rooms, its own among them.
    pub rooms: Vec<Room>,
    /// Its data.
    pub data: Arc<RawValue>,
    /// Where in the order of the events it came in; Node's servers do not say.
    pub start: Option<Offset>,
}

/// A client that comes back.
#[derive(Debug)]
pub struct Recovered {
    /// What it was.
    pub session: ArchivedSession,
    /// The event up to which it has heard all.
    pub heard: Offset,
    /// What it missed.
    pub missed: Vec<ArchivedEvent>,
}

/// An event that was recorded.
#[derive(Debug)]
pub struct ArchivedEvent {
    /// Its place.
    pub offset: Offset,
    /// How it is sent.
    pub flags: Flags,
    /// Its name.
    pub name: SmolStr,
    /// What follows the name.
    pub args: Args,
}

/// The place of an event in the order of all: `<milliseconds>-<number>`, as Redis has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Offset {
    milliseconds: u64,
    number: u64,
}

impl Offset {
    /// The next place, which may be empty.
    #[must_use]
    pub fn next(self) -> Self {
        match self.number.checked_add(1) {
            Some(number) => Self { number, ..self },
            None => Self { milliseconds: self.milliseconds.saturating_add(1), number: 0 },
        }
    }
}

/// A text is no [`Offset`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not two numbers with a dash between")]
pub struct OffsetError;

impl FromStr for Offset {
    type Err = OffsetError;

    /// As the reference takes it from a client: digits alone.
    fn from_str(text: &str) -> Result<Self, OffsetError> {
        let number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        let (milliseconds, last) = text.split_once('-').ok_or(OffsetError)?;
        Ok(Self { milliseconds: number(milliseconds).ok_or(OffsetError)?, number: number(last).ok_or(OffsetError)? })
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_in_order() {
        let offset = |text: &str| text.parse::<Offset>();
        assert!(["9-9", "10-0", "10-1", "10-10"].map(|text| offset(text).ok()).is_sorted());
        assert_eq!(offset("1795174663007-0").map(|offset| offset.to_string()), Ok("1795174663007-0".to_owned()));
        assert_eq!(offset("7-18446744073709551615").map(Offset::next), offset("8-0"));
        for text in ["", "-", "1", "1-", "-1", "+1-1", "1-1-1", "a-1", "1- 1", "$", "99999999999999999999-0"] {
            assert_eq!(offset(text), Err(OffsetError), "{text}");
        }
    }
}
