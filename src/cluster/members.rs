//! Which nodes are alive: their signs of life in a key of Redis that is ours alone, and who may be expected to answer.
//!
//! Redis counts who listens to a channel, and counts a host that has lost its power as listening for minutes. So each of our nodes writes, every few seconds,
//! until when it counts as alive; times are Redis's, so that no two clocks are compared. Of Node's servers we know their number and nothing else.

use crate::protocol::sid::Node;
use std::time::{Duration, Instant};

/// So long a node counts as alive after a sign of life.
pub(super) const LIFETIME: Duration = Duration::from_secs(10);
/// So long one that gave none is remembered: as long as Redis may take to notice that its host is gone.
pub(super) const MEMORY: Duration = Duration::from_secs(3600);

/// A node of ours, as it stands in the key: `<node> <uid>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) node: Node,
    pub(super) uid: String,
    /// Until when it counts as alive, in Redis's milliseconds.
    until: u64,
}

impl Member {
    pub(super) fn name(node: Node, uid: &str) -> String {
        format!("{node} {uid}")
    }

    fn read(name: &str, until: f64) -> Option<Self> {
        let (node, uid) = name.split_once(' ')?;
        let node = node.parse::<u32>().ok()?.try_into().ok()?;
        Some(Self { node, uid: uid.to_owned(), until: until as u64 })
    }
}

/// The nodes of ours, as they were known when last asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    all: Vec<Member>,
    /// When that was, by Redis and by our own clock.
    asked: Option<(u64, Instant)>,
}

/// Who may be expected to answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// Nodes of ours.
    pub(super) ours: Vec<(String, Node)>,
    /// How many there are besides.
    pub(super) others: usize,
}

impl Members {
    /// What the key holds: names, and until when they count as alive.
    pub(super) fn new(held: Vec<(String, f64)>, redis_now: u64, now: Instant) -> Self {
        let all = held.into_iter().filter_map(|(name, until)| Member::read(&name, until)).collect();
        Self { all, asked: Some((redis_now, now)) }
    }

    /// All of them, the dead included.
    pub(super) fn uids(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|member| &*member.uid)
    }

    /// Who will answer what `myself` asks of those who listen: `listeners` in all, and of [`Members::uids`] each as many as `present` says, in that order.
    pub(super) fn expected(&self, myself: &str, listeners: usize, present: &[usize], now: Instant) -> Expected {
        let redis_now = self.asked.map_or(0, |(then, at)| then + now.saturating_duration_since(at).as_millis() as u64);
        let here: Vec<_> = self.all.iter().zip(present).filter(|(_, count)| **count > 0).map(|(member, _)| member).collect();
        // I listen too, though the key may not know me yet.
        let ours_and_me = here.iter().filter(|member| member.uid != myself).count() + 1;
        let is_alive = |member: &&&Member| member.uid != myself && member.until > redis_now;
        Expected {
            ours: here.iter().filter(is_alive).map(|member| (member.uid.clone(), member.node)).collect(),
            others: listeners.saturating_sub(ours_and_me),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_no_sign_of_life_is_not_waited_for() {
        let start = Instant::now();
        let held = [("0 me", 9.0), ("1 alive", 9.0), ("2 dead", 4.0), ("3 elsewhere", 9.0), ("rubbish", 9.0), ("x y", 9.0)];
        let held = held.map(|(name, seconds)| (name.to_owned(), seconds * 1e3)).to_vec();
        let members = Members::new(held, 5_000, start);
        assert_eq!(members.uids().collect::<Vec<_>>(), ["me", "alive", "dead", "elsewhere"]);
        // Six listen: three of ours, of which one is dead, and three of Node's.
        let expected = |after| members.expected("me", 6, &[1, 1, 1, 0], start + Duration::from_secs(after));
        let alive = ("alive".to_owned(), Node::try_from(1).expect("a node"));
        assert_eq!(expected(0), Expected { ours: vec![alive], others: 3 });
        assert_eq!(expected(4), Expected { ours: vec![], others: 3 });
    }

    #[test]
    fn a_node_that_the_key_does_not_know_yet_does_not_count_itself() {
        let members = Members::default();
        assert_eq!(members.expected("me", 1, &[], Instant::now()), Expected::default());
        assert_eq!(members.expected("me", 3, &[], Instant::now()), Expected { ours: vec![], others: 2 });
        assert_eq!(members.expected("me", 0, &[], Instant::now()), Expected::default());
    }
}
