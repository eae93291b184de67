//! Session ids that name their owner: `<node>-<boot><random>`, 20 characters in all.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Characters of every id; other people's routers and adapters count on it.
pub const LENGTH: usize = 20;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const MAX_NODE: u32 = 99_999;

/// A number that is unique in the whole fleet, 0 to 99,999: what a sid, nginx's owner map and the cluster speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Node(u32);

/// A node number of more than five digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is above 99999, the last node")]
pub struct NodeError(u32);

impl TryFrom<u32> for Node {
    type Error = NodeError;

    fn try_from(number: u32) -> Result<Self, NodeError> {
        if number > MAX_NODE { Err(NodeError(number)) } else { Ok(Self(number)) }
    }
}

impl From<Node> for u32 {
    fn from(node: Node) -> Self {
        node.0
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A label of two characters from the start time; it explains a miss and decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot([u8; 2]);

impl Boot {
    /// The label of a process that started then.
    pub fn at(start: SystemTime) -> Self {
        let seconds = start.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) % 3844;
        Self([BASE62[(seconds / 62) as usize], BASE62[(seconds % 62) as usize]])
    }

    /// The two characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base62 is ASCII")
    }
}

/// Makes an id of the common form; `entropy` must come from the operating system.
fn generate(node: Node, boot: Boot, mut entropy: u128) -> String {
    let mut id = format!("{node}-{}", boot.as_str());
    while id.len() < LENGTH {
        id.push(char::from(BASE62[(entropy % 62) as usize]));
        entropy /= 62;
    }
    id
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// An id of 20 characters that begins with its owner; `entropy` must come from the operating system.
            pub fn generate(node: Node, boot: Boot, entropy: u128) -> Self {
                Self(generate(node, boot, entropy).into())
            }

            /// The id as it stands on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.into())
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id! {
    /// The Engine.IO session id: a credential, so it has no `Display` and its `Debug` hides all but the owner.
    Sid
}

id! {
    /// The Socket.IO id of a socket in a namespace: public.
    SocketId
}

id! {
    /// What lets a client take up its Socket.IO connection again: a credential like [`Sid`].
    Pid
}

macro_rules! hidden {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}-…)"), self.0.split_once('-').map_or("?", |(node, _)| node))
            }
        }
    };
}

hidden!(Sid);
hidden!(Pid);

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SocketId({})", self.0)
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a sid that is not in the session table says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Miss {
    /// It belongs to another node: the request was misrouted.
    Other(Node),
    /// It was this node's: expired, or of an earlier boot.
    Gone,
    /// It is not of our form.
    Garbage,
}

impl Miss {
    /// Explains a sid that was looked up in vain on this node.
    pub fn explain(sid: &str, here: Node) -> Self {
        match owner(sid) {
            None => Self::Garbage,
            Some(node) if node == here => Self::Gone,
            Some(node) => Self::Other(node),
        }
    }
}

/// The node that a sid names, or `None` when it is not of our form.
pub fn owner(sid: &str) -> Option<Node> {
    if sid.len() != LENGTH {
        return None;
    }
    let (node, rest) = sid.split_once('-')?;
    let canonical = node.len() <= 5 && node.bytes().all(|b| b.is_ascii_digit()) && (node == "0" || !node.starts_with('0'));
    let ours = canonical && rest.bytes().all(|b| b.is_ascii_alphanumeric());
    if ours { node.parse().ok().map(Node) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_id_has_twenty_characters_and_names_its_owner() {
        let boot = Boot::at(UNIX_EPOCH + Duration::from_secs(3844 + 63));
        assert_eq!(boot.as_str(), "11");
        for number in [0, 7, 31, 1_000, MAX_NODE] {
            let node = Node::try_from(number).expect("in range");
            let sid = Sid::generate(node, boot, u128::MAX);
            assert_eq!(sid.as_str().len(), LENGTH);
            assert_eq!(owner(sid.as_str()), Some(node));
            assert!(sid.as_str().starts_with(&format!("{number}-11")));
        }
        assert_eq!(Node::try_from(MAX_NODE + 1), Err(NodeError(100_000)));
    }

    #[test]
    fn a_miss_is_told_apart() {
        let here = Node(3);
        assert_eq!(Miss::explain("3-11abcdefghijklmnop", here), Miss::Gone);
        assert_eq!(Miss::explain("4-11abcdefghijklmnop", here), Miss::Other(Node(4)));
        for garbage in [
            "",
            "3-short",
            "03-1abcdefghijklmnop",
            "-311abcdefghijklmnop",
            "3-11abcdefghijklmn-p",
            "é-11abcdefghijklmno",
            "123456-abcdefghijklm",
        ] {
            assert_eq!(Miss::explain(garbage, here), Miss::Garbage, "{garbage}");
        }
    }

    #[test]
    fn a_sid_is_not_shown() {
        let sid = Sid::from("3-11abcdefghijklmnop");
        assert_eq!(format!("{sid:?}"), "Sid(3-…)");
        assert_eq!(format!("{:?}", Pid::from("3-11abcdefghijklmnop")), "Pid(3-…)");
    }
}
