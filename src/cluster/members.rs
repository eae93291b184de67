//! Which nodes are alive: their signs of life in a key of Redis that is ours alone, and who may be expected to answer.
//!
//! Redis counts who listens to a channel, and counts a host that has lost its power as listening for minutes. So each of our nodes writes, every few seconds,
//! until when it counts as alive; times are Redis's, so that no two clocks are compared. Of Node's servers we know their number and nothing else.

use crate::protocol::sid::Node;
use ::redis::aio::MultiplexedConnection;
use ::redis::{RedisResult, cmd};
use std::time::{Duration, Instant};

/// So long a node counts as alive after a sign of life.
pub(super) const LIFETIME: Duration = Duration::from_secs(10);
/// So long one that gave none is remembered: as long as Redis may take to notice that its host is gone.
pub(super) const MEMORY: Duration = Duration::from_secs(3600);
/// So many are looked at, those first of whom one has heard last: what others write into our key is not to fill our memory.
const MOST: usize = 1_000;

/// Characters that what a node calls itself on the channels has at most.
const UID: usize = 32;

/// The key in which they give signs of life.
pub(super) fn key(prefix: &str) -> String {
    format!("stickyport#{prefix}#nodes")
}

/// Redis's clock, in milliseconds.
pub(super) async fn now(connection: &mut MultiplexedConnection) -> RedisResult<u64> {
    let (seconds, microseconds): (u64, u64) = cmd("TIME").query_async(connection).await?;
    Ok(seconds * 1_000 + microseconds / 1_000)
}

/// What the key holds: names, and until when they count as alive.
pub(super) async fn held(connection: &mut MultiplexedConnection, key: &str, now: u64) -> RedisResult<Vec<(Vec<u8>, f64)>> {
    let mut range = cmd("ZREVRANGEBYSCORE");
    // Nobody lives longer than that.
    range.arg(key).arg(now + 2 * LIFETIME.as_millis() as u64).arg("-inf").arg("WITHSCORES").arg("LIMIT").arg(0).arg(MOST);
    range.query_async(connection).await
}

/// A node of ours, as it stands in the key: `<node> <uid>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) node: Node,
    pub(super) uid: String,
    /// Until when it counts as alive, in Redis's milliseconds.
    pub(super) until: u64,
}

impl Member {
    pub(super) fn name(node: Node, uid: &str) -> String {
        format!("{node} {uid}")
    }

    /// `None` if it is none of ours.
    pub(super) fn read(name: &[u8], until: f64) -> Option<Self> {
        let (node, uid) = std::str::from_utf8(name).ok()?.split_once(' ')?;
        let node = node.parse::<u32>().ok()?.try_into().ok()?;
        (uid.len() <= UID).then(|| Self { node, uid: uid.to_owned(), until: until as u64 })
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
    pub(super) fn new(held: &[(Vec<u8>, f64)], redis_now: u64, now: Instant) -> Self {
        let all = held.iter().filter_map(|(name, until)| Member::read(name, *until)).collect();
        Self { all, asked: Some((redis_now, now)) }
    }

    /// How many there are, the dead included.
    pub(super) fn len(&self) -> usize {
        self.all.len()
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
        let held = [
            ("0 myself", 9.0),
            ("1 alive1", 9.0),
            ("2 dead-2", 4.0),
            ("3 away-3", 9.0),
            ("rubbish", 9.0),
            ("x alive1", 9.0),
            ("4 0123456789abcdef0123456789abcdef0", 9.0),
        ];
        let held = held.map(|(name, seconds)| (name.into(), seconds * 1e3));
        let members = Members::new(&held, 5_000, start);
        assert_eq!(members.uids().collect::<Vec<_>>(), ["myself", "alive1", "dead-2", "away-3"]);
        // Six listen: three of ours, of which one is dead, and three of Node's.
        let expected = |after| members.expected("myself", 6, &[1, 1, 1, 0], start + Duration::from_secs(after));
        let alive = ("alive1".to_owned(), Node::try_from(1).expect("a node"));
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
