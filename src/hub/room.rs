//! Names of rooms, and lists of them.

use crate::protocol::sid::SocketId;
use bytestring::ByteString;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Borrow;
use std::fmt;

/// The name of a room; cloning it copies nothing.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Room(ByteString);

impl Room {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Room {
    /// From a text, or from a number, which servers of Node may have for one.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Room;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a room")
            }

            fn visit_str<E>(self, name: &str) -> Result<Room, E> {
                Ok(name.into())
            }

            fn visit_u64<E>(self, number: u64) -> Result<Room, E> {
                Ok(number.to_string().into())
            }

            fn visit_i64<E>(self, number: i64) -> Result<Room, E> {
                Ok(number.to_string().into())
            }
        }
        deserializer.deserialize_any(Name)
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Room({})", self.0)
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Room {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Room {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Room {
    fn eq(&self, name: &str) -> bool {
        &*self.0 == name
    }
}

impl PartialEq<&str> for Room {
    fn eq(&self, name: &&str) -> bool {
        &*self.0 == *name
    }
}

macro_rules! room_from {
    ($($type:ty: |$name:ident| $text:expr),* $(,)?) => {
        $(
            impl From<$type> for Room {
                fn from($name: $type) -> Self {
                    Self(ByteString::from($text))
                }
            }

            impl Rooms for $type {
                fn rooms(self) -> impl Iterator<Item = Room> {
                    std::iter::once(Room::from(self))
                }
            }
        )*
    };
}

room_from! {
    &str: |name| name,
    String: |name| name,
    &String: |name| name.as_str(),
    ByteString: |name| name,
    SocketId: |id| id.as_str(),
    &SocketId: |id| id.as_str(),
}

impl From<&Room> for Room {
    fn from(room: &Room) -> Self {
        room.clone()
    }
}

/// One room or several: a name, or an array, slice or `Vec` of names; the id of a socket names its own room.
pub trait Rooms {
    /// The rooms in their order.
    fn rooms(self) -> impl Iterator<Item = Room>;
}

impl Rooms for Room {
    fn rooms(self) -> impl Iterator<Item = Room> {
        std::iter::once(self)
    }
}

impl Rooms for &Room {
    fn rooms(self) -> impl Iterator<Item = Room> {
        std::iter::once(self.clone())
    }
}

impl<T: Into<Room>> Rooms for Vec<T> {
    fn rooms(self) -> impl Iterator<Item = Room> {
        self.into_iter().map(Into::into)
    }
}

impl<T: Into<Room>, const N: usize> Rooms for [T; N] {
    fn rooms(self) -> impl Iterator<Item = Room> {
        self.into_iter().map(Into::into)
    }
}

impl<'a, T> Rooms for &'a [T]
where
    &'a T: Into<Room>,
{
    fn rooms(self) -> impl Iterator<Item = Room> {
        self.iter().map(Into::into)
    }
}

impl<'a, T> Rooms for &'a Vec<T>
where
    &'a T: Into<Room>,
{
    fn rooms(self) -> impl Iterator<Item = Room> {
        self.iter().map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_named_in_many_ways() {
        fn names(rooms: impl Rooms) -> Vec<String> {
            rooms.rooms().map(|room| room.to_string()).collect()
        }
        let several = vec![String::from("a"), String::from("b")];
        assert_eq!(names("a"), ["a"]);
        assert_eq!(names(String::from("a")), ["a"]);
        assert_eq!(names(SocketId::from("0-abc")), ["0-abc"]);
        assert_eq!(names(["a", "b"]), ["a", "b"]);
        assert_eq!(names(vec![String::from("a")]), ["a"]);
        assert_eq!(names(&[Room::from("a")][..]), ["a"]);
        assert_eq!(names(&several), ["a", "b"]);
    }

    #[test]
    fn a_room_that_is_a_number_has_the_name_that_javascript_shows() {
        let rooms: Vec<Room> = serde_json::from_str(r#"["a", 123, -1]"#).expect("names");
        assert_eq!(rooms, ["a", "123", "-1"]);
        assert!(serde_json::from_str::<Room>("null").is_err());
    }
}
