//! The names of the channels.

use crate::hub::Target;
use bytestring::ByteString;

/// The channels of one namespace, as Redis knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channels {
    prefix: String,
    namespace: ByteString,
}

/// What is heard on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A broadcast to the whole namespace, or to several rooms.
    Broadcast,
    /// A broadcast to one room.
    ToRoom(&'a str),
}

impl Channels {
    /// Those of a namespace in the cluster of that prefix; the reference's is `socket.io`.
    pub fn new(prefix: &str, namespace: ByteString) -> Self {
        Self { prefix: prefix.to_owned(), namespace }
    }

    /// Whose they are.
    pub fn namespace(&self) -> &ByteString {
        &self.namespace
    }

    /// `<prefix>#<namespace>#`
    pub fn broadcast(&self) -> String {
        format!("{}#{}#", self.prefix, self.namespace)
    }

    /// Where a broadcast to a target goes.
    pub fn of(&self, target: &Target) -> String {
        match &*target.rooms {
            [room] => self.room(room.as_str()),
            _ => self.broadcast(),
        }
    }

    /// `<prefix>#<namespace>#<room>#`; of a cluster over streams what one node alone hears, by its name.
    pub fn room(&self, room: &str) -> String {
        format!("{}#{}#{room}#", self.prefix, self.namespace)
    }

    /// `<prefix>-request#<namespace>#`
    pub fn request(&self) -> String {
        format!("{}-request#{}#", self.prefix, self.namespace)
    }

    /// `<prefix>-response#<namespace>#`
    pub fn response(&self) -> String {
        format!("{}-response#{}#", self.prefix, self.namespace)
    }

    /// `<prefix>-response#<namespace>#<uid>#`, which one node alone hears.
    pub fn response_to(&self, uid: &str) -> String {
        format!("{}-response#{}#{uid}#", self.prefix, self.namespace)
    }

    /// What matches the first two above, and nothing else of what clients may have named.
    pub fn pattern(&self) -> String {
        let mut pattern = String::new();
        for character in self.broadcast().chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '^' | '\\') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern.push('*');
        pattern
    }

    /// What a channel that the pattern matches is for.
    pub fn heard<'a>(&self, channel: &'a str) -> Heard<'a> {
        let rest = channel.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('#'));
        let rest = rest.and_then(|rest| rest.strip_prefix(&*self.namespace)).and_then(|rest| rest.strip_prefix('#'));
        rest.and_then(|rest| rest.strip_suffix('#')).map_or(Heard::Broadcast, Heard::ToRoom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_named_as_in_the_reference() {
        let root = Channels::new("socket.io", "/".into());
        assert_eq!([root.broadcast(), root.room("a b"), root.pattern()], ["socket.io#/#", "socket.io#/#a b#", "socket.io#/#*"]);
        assert_eq!(root.heard("socket.io#/#"), Heard::Broadcast);
        assert_eq!(root.heard("socket.io#/#a#b#"), Heard::ToRoom("a#b"));
        assert_eq!(root.heard("socket.io#/##"), Heard::ToRoom(""));
        let odd = Channels::new("p", "/a*[b]?\\".into());
        assert_eq!(odd.pattern(), r"p#/a\*\[b\]\?\\#*");
        assert_eq!(odd.heard(&odd.room("x")), Heard::ToRoom("x"));
    }
}
