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

    /// The one that JavaScript's `String()` makes of a number.
    pub(crate) fn of_number(number: f64) -> Self {
        let is_plain = number == 0.0 || (1e-6..1e21).contains(&number.abs());
        // There is no -0.
        let text = if is_plain { (number + 0.0).to_string() } else { format!("{number:e}") };
        Self(text.replace("inf", "Infinity").replace('e', "e+").replace("e+-", "e-").into())
    }
}

impl<'de> Deserialize<'de> for Room {
    /// From a text, or from what else servers of Node may have for one.
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
                Ok(Room::of_number(number as f64))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Room, E> {
                Ok(Room::of_number(number as f64))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Room, E> {
                Ok(Room::of_number(number))
            }

            fn visit_bool<E>(self, is_true: bool) -> Result<Room, E> {
                Ok(is_true.to_string().into())
            }

            fn visit_unit<E>(self) -> Result<Room, E> {
                Ok("null".into())
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
    fn a_room_that_is_no_text_has_the_name_that_javascript_shows() {
        for (json, shown) in [
            ("\"a\"", "a"),
            ("123", "123"),
            ("-1", "-1"),
            ("1.5", "1.5"),
            ("-0.0", "0"),
            ("0.000001", "0.000001"),
            ("1.5e-7", "1.5e-7"),
            ("9007199254740992", "9007199254740992"),
            // No number of JavaScript's has all of these digits.
            ("1152921504606846976", "1152921504606847000"),
            ("100000000000000000000", "100000000000000000000"),
            ("1e+21", "1e+21"),
            ("-1.25e21", "-1.25e+21"),
            ("true", "true"),
            ("null", "null"),
        ] {
            assert_eq!(serde_json::from_str::<Room>(json).ok(), Some(Room::from(shown)), "{json}");
        }
        assert!(serde_json::from_str::<Room>("[]").is_err());
    }
}
