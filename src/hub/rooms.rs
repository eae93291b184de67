//! The index of one namespace: who is in which room, and whom a broadcast reaches.

use super::room::Room;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Whom a broadcast reaches: everyone in any of `rooms` (all, if there are none) who is in none of `except`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Rooms of which one is enough.
    pub rooms: Vec<Room>,
    /// Rooms of which none may be.
    pub except: Vec<Room>,
}

impl Target {
    /// Whether it reaches who is in these rooms.
    pub(crate) fn reaches(&self, rooms: &HashSet<&Room>) -> bool {
        let is_in = |room: &Room| rooms.contains(room);
        (self.rooms.is_empty() || self.rooms.iter().any(is_in)) && !self.except.iter().any(is_in)
    }
}

/// Who can be in rooms.
pub(super) trait Member: Clone {
    /// Whether broadcasts reach it: a member may join rooms before it has entered, and is in them a little longer than it is here.
    fn is_reached(&self) -> bool;
}

/// The members of a namespace by the order in which they came, and by room.
#[derive(Debug)]
pub(super) struct Index<S> {
    entered: BTreeMap<u64, S>,
    rooms: HashMap<Room, Members<S>>,
}

/// Most rooms have one member: the room that is named by its id.
#[derive(Debug)]
enum Members<S> {
    One(u64, S),
    Many(BTreeMap<u64, S>),
}

impl<S> Default for Index<S> {
    fn default() -> Self {
        Self { entered: BTreeMap::new(), rooms: HashMap::new() }
    }
}

impl<S: Member> Index<S> {
    pub(super) fn enter(&mut self, key: u64, member: S) {
        self.entered.insert(key, member);
    }

    pub(super) fn exit(&mut self, key: u64) {
        self.entered.remove(&key);
    }

    /// `true` says that the room is new.
    pub(super) fn join(&mut self, room: &Room, key: u64, member: &S) -> bool {
        match self.rooms.get_mut(room) {
            None => {
                self.rooms.insert(room.clone(), Members::One(key, member.clone()));
                true
            }
            Some(members) => {
                members.insert(key, member);
                false
            }
        }
    }

    /// `true` says that the room is gone.
    pub(super) fn leave(&mut self, room: &Room, key: u64) -> bool {
        let is_empty = self.rooms.get_mut(room).is_some_and(|members| members.remove(key));
        if is_empty {
            self.rooms.remove(room);
        }
        is_empty
    }

    /// The members that a target reaches, each once, in the order in which they came.
    pub(super) fn select(&self, target: &Target) -> Vec<S> {
        let excluded: Vec<u64> = self.in_any(&target.except).into_iter().map(|(key, _)| *key).collect();
        let is_reached = |(key, member): &(&u64, &S)| excluded.binary_search(key).is_err() && member.is_reached();
        match &*target.rooms {
            [] => gather(self.entered.len(), self.entered.iter().filter(is_reached)),
            [room] => {
                self.rooms.get(room).map_or_else(Vec::new, |members| gather(members.len(), members.iter().filter(is_reached)))
            }
            rooms => {
                let members = self.in_any(rooms);
                gather(members.len(), members.into_iter().filter(is_reached))
            }
        }
    }

    /// Who is in any of some rooms, each once, in the order in which they came.
    fn in_any(&self, rooms: &[Room]) -> Vec<(&u64, &S)> {
        let rooms = rooms.iter().filter_map(|room| self.rooms.get(room));
        let mut members = Vec::with_capacity(rooms.clone().map(Members::len).sum());
        members.extend(rooms.flat_map(Members::iter));
        members.sort_unstable_by_key(|(key, _)| **key);
        members.dedup_by_key(|(key, _)| **key);
        members
    }

    /// Whether somebody is in the room, or is about to be.
    pub(super) fn has(&self, room: &str) -> bool {
        self.rooms.contains_key(room)
    }

    /// The rooms that somebody is in.
    pub(super) fn rooms(&self) -> Vec<Room> {
        let is_used = |members: &Members<S>| members.iter().any(|(_, member)| member.is_reached());
        self.rooms.iter().filter(|(_, members)| is_used(members)).map(|(room, _)| room.clone()).collect()
    }
}

/// Clones at most `most` members into a list that does not grow while it is filled.
fn gather<'a, S: Clone + 'a>(most: usize, members: impl Iterator<Item = (&'a u64, &'a S)>) -> Vec<S> {
    let mut gathered = Vec::with_capacity(most);
    gathered.extend(members.map(|(_, member)| member.clone()));
    gathered
}

impl<S: Clone> Members<S> {
    fn insert(&mut self, key: u64, member: &S) {
        match self {
            Self::One(only, _) if *only == key => {}
            Self::One(only, first) => *self = Self::Many(BTreeMap::from([(*only, first.clone()), (key, member.clone())])),
            Self::Many(members) => drop(members.insert(key, member.clone())),
        }
    }

    /// `true` says that nobody is left.
    fn remove(&mut self, key: u64) -> bool {
        match self {
            Self::One(only, _) => *only == key,
            Self::Many(members) => {
                members.remove(&key);
                members.is_empty()
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::Many(members) => members.len(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&u64, &S)> {
        let (one, many) = match self {
            Self::One(key, member) => (Some((key, member)), None),
            Self::Many(members) => (None, Some(members.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::collections::BTreeSet;
    use std::rc::Rc;

    #[test]
    fn a_member_of_several_rooms_is_reached_once() {
        let index = index(&[(1, &["a", "b"]), (2, &["b"]), (3, &[])]);
        assert_eq!(reached(&index, &["a", "b"], &[]), [1, 2]);
        assert_eq!(reached(&index, &["b", "b"], &[]), [1, 2]);
    }

    #[test]
    fn without_rooms_everyone_is_reached() {
        let index = index(&[(1, &["a"]), (2, &[])]);
        assert_eq!(reached(&index, &[], &[]), [1, 2]);
        assert_eq!(reached(&index, &[], &["a"]), [2]);
        assert_eq!(reached(&index, &["nobody"], &[]), [0; 0]);
    }

    #[test]
    fn who_is_in_an_excepted_room_is_not_reached_by_any_other() {
        let index = index(&[(1, &["a"]), (2, &["a", "b"]), (3, &["b"])]);
        assert_eq!(reached(&index, &["a"], &["b"]), [1]);
        assert_eq!(reached(&index, &["a", "b"], &["nobody"]), [1, 2, 3]);
    }

    #[test]
    fn rooms_come_and_go_with_their_members() {
        let mut index = index(&[]);
        let room = Room::from("a");
        let member = |key| Here(key, Cell::new(true).into());
        assert!(index.join(&room, 1, &member(1)));
        assert!(!index.join(&room, 1, &member(1)));
        assert!(!index.join(&room, 2, &member(2)));
        assert!(!index.leave(&room, 1));
        assert!(!index.leave(&room, 1));
        assert!(index.leave(&room, 2));
        assert!(!index.leave(&room, 2));
        assert!(index.rooms.is_empty());
    }

    #[test]
    fn a_member_that_has_not_entered_or_has_gone_is_not_reached() {
        let mut index = index(&[(1, &["a"])]);
        let late = Here(2, Cell::new(false).into());
        index.join(&Room::from("a"), 2, &late);
        index.join(&Room::from("b"), 2, &late);
        assert_eq!(reached(&index, &["a"], &[]), [1]);
        assert_eq!(index.rooms(), [Room::from("a")]);
        late.1.set(true);
        assert_eq!(reached(&index, &["a"], &[]), [1, 2]);
        index.enter(2, late);
        index.exit(1);
        assert_eq!(reached(&index, &[], &[]), [2]);
    }

    proptest! {
        #[test]
        fn a_target_reaches_whom_its_words_say(
            members in proptest::collection::vec(proptest::collection::btree_set(0_u8..6, 0..6), 0..12),
            rooms in proptest::collection::btree_set(0_u8..7, 0..4),
            except in proptest::collection::btree_set(0_u8..7, 0..4),
        ) {
            let mut index = Index::default();
            for (key, joined) in members.iter().enumerate() {
                let member = Here(key as u64, Cell::new(true).into());
                index.enter(member.0, member.clone());
                for room in joined {
                    index.join(&name(*room), member.0, &member);
                }
            }
            let is_reached = |joined: &BTreeSet<u8>| (rooms.is_empty() || !joined.is_disjoint(&rooms)) && joined.is_disjoint(&except);
            let expected: Vec<_> = (0..members.len()).filter(|key| is_reached(&members[*key])).map(|key| key as u64).collect();
            let target = Target { rooms: rooms.into_iter().map(name).collect(), except: except.into_iter().map(name).collect() };
            prop_assert_eq!(index.select(&target).iter().map(|member| member.0).collect::<Vec<_>>(), &expected[..]);
            let reaches = |joined: &BTreeSet<u8>| {
                let rooms: Vec<Room> = joined.iter().copied().map(name).collect();
                target.reaches(&rooms.iter().collect())
            };
            let by_itself: Vec<_> = (0..members.len()).filter(|key| reaches(&members[*key])).map(|key| key as u64).collect();
            prop_assert_eq!(by_itself, expected);
        }
    }

    fn name(room: u8) -> Room {
        Room::from(room.to_string())
    }

    #[derive(Debug, Clone)]
    struct Here(u64, Rc<Cell<bool>>);

    impl Member for Here {
        fn is_reached(&self) -> bool {
            self.1.get()
        }
    }

    fn index(members: &[(u64, &[&str])]) -> Index<Here> {
        let mut index = Index::default();
        for (key, rooms) in members {
            let member = Here(*key, Cell::new(true).into());
            index.enter(*key, member.clone());
            for room in *rooms {
                index.join(&Room::from(*room), *key, &member);
            }
        }
        index
    }

    fn reached(index: &Index<Here>, rooms: &[&str], except: &[&str]) -> Vec<u64> {
        let rooms_of = |names: &[&str]| names.iter().map(|name| Room::from(*name)).collect();
        let target = Target { rooms: rooms_of(rooms), except: rooms_of(except) };
        index.select(&target).iter().map(|member| member.0).collect()
    }
}
