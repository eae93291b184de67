//! In which rooms a client was when an event was sent: what it is sent again is what it was sent, and not what it would be sent now.

use super::super::room::Room;
use serde::{Deserialize, Serialize};
use std::collections::{HashSet, VecDeque};

/// Moves that are remembered of one client; one that moves on and on, and whose heartbeat says nothing, begins anew.
const MOST: usize = 256;

/// What a client has joined and left lately, in order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Moves {
    moves: VecDeque<Move>,
    /// Where it was when this event and those before it were sent is not known any more.
    forgotten: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Move {
    /// The last event before it.
    after: u64,
    room: Room,
    is_in: bool,
}

impl Moves {
    /// The client has joined a room or left it.
    pub(super) fn note(&mut self, after: u64, room: &Room, is_in: bool) {
        if self.moves.len() == MOST
            && let Some(oldest) = self.moves.pop_front()
        {
            self.forgotten = oldest.after;
        }
        self.moves.push_back(Move { after, room: room.clone(), is_in });
    }

    /// No event up to this one will be sent again.
    pub(super) fn forget(&mut self, number: u64) {
        while self.moves.front().is_some_and(|moved| moved.after <= number) {
            self.moves.pop_front();
        }
        if self.moves.is_empty() {
            self.moves.shrink_to_fit();
        }
    }

    /// Whether it is known where the client was for all events behind this one.
    pub(super) fn is_known_after(&self, number: u64) -> bool {
        self.forgotten <= number
    }

    /// The rooms that it moved through, as often as it did.
    pub(super) fn rooms(&self) -> impl Iterator<Item = &Room> {
        self.moves.iter().map(|moved| &moved.room)
    }

    /// Goes back from where the client was last to where it was when event `first` was sent.
    pub(super) fn rewind<'a>(&'a self, mut rooms: HashSet<&'a Room>, first: u64) -> Rewound<'a> {
        let at = self.moves.partition_point(|moved| moved.after < first);
        for moved in self.moves.range(at..).rev() {
            moved.apply(&mut rooms, !moved.is_in);
        }
        Rewound { rooms, moves: self, at }
    }
}

impl Move {
    fn apply<'a>(&'a self, rooms: &mut HashSet<&'a Room>, is_in: bool) {
        if is_in {
            rooms.insert(&self.room);
        } else {
            rooms.remove(&self.room);
        }
    }
}

/// Where a client was when one event after the other was sent.
pub(super) struct Rewound<'a> {
    rooms: HashSet<&'a Room>,
    moves: &'a Moves,
    at: usize,
}

impl<'a> Rewound<'a> {
    /// Its rooms when this event was sent, which comes after those that were asked for before.
    pub(super) fn rooms(&mut self, number: u64) -> &HashSet<&'a Room> {
        while let Some(moved) = self.moves.moves.get(self.at).filter(|moved| moved.after < number) {
            moved.apply(&mut self.rooms, moved.is_in);
            self.at += 1;
        }
        &self.rooms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_was_where_its_moves_say() {
        let (red, blue) = (Room::from("red"), Room::from("blue"));
        let mut moves = Moves::default();
        moves.note(5, &red, true);
        moves.note(7, &blue, false);
        moves.note(7, &red, false);
        moves.note(9, &red, true);
        // At last it is in red.
        let now: HashSet<&Room> = [&red].into();
        for (first, was_in) in [(4, "blue"), (6, "blue red"), (8, ""), (10, "red")] {
            let mut rewound = moves.rewind(now.clone(), first);
            let mut rooms: Vec<_> = rewound.rooms(first).iter().map(|room| room.as_str()).collect();
            rooms.sort_unstable();
            assert_eq!(rooms.join(" "), was_in, "at {first}");
            assert_eq!(rewound.rooms(11), &now);
        }
    }

    #[test]
    fn of_many_moves_the_oldest_are_forgotten() {
        let mut moves = Moves::default();
        let room = Room::from("red");
        (1..=MOST as u64).for_each(|number| moves.note(number, &room, number % 2 == 1));
        assert!(moves.is_known_after(0));
        moves.note(1_000, &room, true);
        assert!(!moves.is_known_after(0) && moves.is_known_after(1));
        moves.forget(999);
        assert_eq!(moves.rooms().count(), 1);
    }
}
