//! Rules: the Redis of a cluster. It is asked as an instance would, and not judged where nobody asked.

use super::Found;
use crate::check::Setup;
use crate::check::report::Place;
use crate::cluster::{Obstacle, Protocol, Survey};
use crate::options::{duration, size};
use std::time::Duration;

/// What a message to the other nodes has besides what a client sent: the names of a few rooms, and who says it.
const ENVELOPE: u64 = 1024;
/// Bytes that a client takes in the answer to `fetch_sockets`; measured were 570 to 910, by the headers that it sends.
const ANSWER: u64 = 1024;
/// Bytes of an entry of a stream, if events are small.
const ENTRY: u64 = 1024;
/// Bytes of a client's session.
const SESSION: u64 = 300;
/// An answer that takes longer comes from far away, or from a host that has too much to do.
const SLOW: Duration = Duration::from_millis(20);
/// The answers that have to fit into the time in which other nodes are to answer.
const ANSWERS: u32 = 100;

pub(super) fn reachable(setup: &Setup<'_>) -> Vec<Found> {
    let Some(Err(error)) = &setup.redis else { return Vec::new() };
    if matches!(error.obstacle, Obstacle::Old | Obstacle::Forbidden) {
        return Vec::new();
    }
    let mend = match error.obstacle {
        Obstacle::Away | Obstacle::Silent => {
            "start Redis, correct redis.url (rediss:// if it speaks TLS, and only then), open the way to it, or raise its maxclients if it has \
             as many; where only this host has none, --offline leaves it out"
        }
        Obstacle::Tls => "redis:// for a Redis without TLS, or TLS in Redis (tls-port)",
        Obstacle::Certificate => {
            "a certificate for the name in redis.url by an authority of this host's, or that authority in SSL_CERT_FILE"
        }
        Obstacle::Foreign => "the address and the port of a Redis in redis.url",
        Obstacle::Stranger => "the user and the password that Redis has for instances: ACL SETUSER, requirepass",
        Obstacle::Loading => "wait until it has read what it kept; of a cluster nothing need be kept: save \"\", appendonly no",
        Obstacle::Old | Obstacle::Forbidden | Obstacle::Refusal => {
            "what redis.url says besides the address: it may name a database that there is not"
        }
    };
    vec![Found {
        place: setup.setting("redis.url"),
        value: format!("Redis at {} {error}: {}", error.address, error.cause()),
        effect: "instances start, and each serves its own clients alone: nobody hears those of another instance, and /readyz says degraded"
            .to_owned(),
        mend: mend.to_owned(),
    }]
}

pub(super) fn version(setup: &Setup<'_>) -> Vec<Found> {
    let Some(Err(error)) = setup.redis.as_ref().filter(|redis| matches!(redis, Err(error) if error.obstacle == Obstacle::Old))
    else {
        return Vec::new();
    };
    vec![Found {
        place: setup.setting("redis.url"),
        value: format!("Redis at {} {error}: {}", error.address, error.cause()),
        effect: "it does not know HELLO, with which one connection carries commands and messages: no instance can use it, and each serves \
                 its own clients alone"
            .to_owned(),
        mend: "Redis 6.0 or newer, or any Valkey; over streams 6.2".to_owned(),
    }]
}

pub(super) fn role(setup: &Setup<'_>) -> Vec<Found> {
    let Some(redis) = asked(setup) else { return Vec::new() };
    let (value, effect, mend) = match (&*redis.mode, &*redis.role) {
        ("cluster", _) => (
            "cluster-enabled yes",
            "it is a shard, and says of most keys that they are elsewhere, where no instance looks: nobody knows which nodes are alive, and \
             streams and sessions are not kept",
            "a Redis with cluster-enabled no",
        ),
        ("sentinel", _) => (
            "it is a sentinel",
            "it keeps nothing and carries no messages: each instance serves its own clients alone",
            "the address of the master that it watches",
        ),
        (_, role) if !role.is_empty() && role != "master" => (
            "it is a replica",
            "it takes no writes (READONLY): no instance can use it, and each serves its own clients alone",
            "the address of its master, or one that always leads to the master",
        ),
        _ => return Vec::new(),
    };
    vec![found(redis, value.to_owned(), effect.to_owned(), mend.to_owned())]
}

pub(super) fn acl(setup: &Setup<'_>) -> Vec<Found> {
    let mend = "the rules of an ACL user for instances are in README.md, under Cluster";
    if let Some(Err(error)) =
        setup.redis.as_ref().filter(|redis| matches!(redis, Err(error) if error.obstacle == Obstacle::Forbidden))
    {
        return vec![Found {
            place: setup.setting("redis.url"),
            value: format!("Redis at {} {error}: {}", error.address, error.cause()),
            effect: "no instance gets in, and each serves its own clients alone".to_owned(),
            mend: mend.to_owned(),
        }];
    }
    let redis = asked(setup).filter(|redis| !redis.forbidden.is_empty());
    let redis = redis.map(|redis| {
        found(
            redis,
            format!("its user may not do {}", redis.forbidden.join(", ")),
            "what Redis refuses does not happen: messages that nobody hears, calls that wait for nodes that are dead, sessions that are lost"
                .to_owned(),
            mend.to_owned(),
        )
    });
    redis.into_iter().collect()
}

pub(super) fn writer(setup: &Setup<'_>) -> Vec<Found> {
    let asked = asked(setup);
    let found = asked.and_then(|redis| redis.unending.as_ref().map(|why| (redis, why))).map(|(redis, why)| {
        found(
            redis,
            why.clone(),
            "an instance cannot end the connection that Redis has of it from before a long silence: what was written last may be written again, \
             and clients hear it twice"
                .to_owned(),
            "+client|kill and +client|info for its user; Redis 6.2 or newer, or Valkey".to_owned(),
        )
    });
    found.into_iter().collect()
}

pub(super) fn eviction(setup: &Setup<'_>) -> Vec<Found> {
    let effect = "when it is full, Redis deletes whole streams and clients' sessions: events that were acknowledged never arrive, and who comes \
                  back begins anew";
    evicting(setup, Protocol::RedisStreams, effect)
}

pub(super) fn forgetting(setup: &Setup<'_>) -> Vec<Found> {
    let effect = "when it is full, Redis deletes the list of nodes, their numbers and the leases of periodic tasks: calls wait for nodes that are \
                  dead, two nodes may have one number, and a task is left out";
    evicting(setup, Protocol::Redis, effect)
}

fn evicting(setup: &Setup<'_>, adapter: Protocol, effect: &str) -> Vec<Found> {
    let redis =
        asked(setup).filter(|redis| setup.config().redis.adapter == adapter && redis.memory.is_some_and(|memory| memory > 0));
    let policy = redis.and_then(|redis| Some((redis, redis.eviction.as_ref().filter(|policy| *policy != "noeviction")?)));
    let found = policy.map(|(redis, policy)| {
        found(redis, format!("maxmemory-policy {policy}"), effect.to_owned(), "maxmemory-policy noeviction".to_owned())
    });
    found.into_iter().collect()
}

pub(super) fn memory(setup: &Setup<'_>) -> Vec<Found> {
    let options = &setup.config().redis;
    let entries = (options.stream_count as u64).saturating_mul(options.stream_length as u64);
    let needed = entries.saturating_mul(ENTRY).saturating_add(setup.clients.saturating_mul(SESSION));
    let redis = asked(setup).filter(|_| options.adapter == Protocol::RedisStreams);
    let most = redis.and_then(|redis| Some((redis, redis.memory.filter(|&most| most > 0 && most < needed)?)));
    let found = most.map(|(redis, most)| {
        found(
            redis,
            format!("maxmemory {most}"),
            format!(
                "redis.stream_length entries of {} and the sessions of {} clients take {needed} bytes: when it is full nothing is written any \
                 more, and events wait in the instances until they are lost",
                size::render(ENTRY as usize),
                setup.clients
            ),
            format!("maxmemory {}mb or more, or a smaller redis.stream_length", needed.div_ceil(1 << 20)),
        )
    });
    found.into_iter().collect()
}

pub(super) fn buffer(setup: &Setup<'_>) -> Vec<Found> {
    let largest = (setup.config().engine.max_payload as u64).saturating_add(ENVELOPE);
    let redis = asked(setup).filter(|_| setup.config().redis.adapter == Protocol::Redis);
    let narrow = redis.and_then(|redis| narrower(redis, largest));
    let found = narrow.map(|(redis, value)| {
        found(
            redis,
            value,
            format!(
                "one message of engine.max_payload ({}) is more than may wait for an instance: any client that sends one has Redis cut off every \
                 instance, which misses what is said until it is back",
                size::render(setup.config().engine.max_payload)
            ),
            wider(burst(setup).max(largest)),
        )
    });
    found.into_iter().collect()
}

pub(super) fn bursts(setup: &Setup<'_>) -> Vec<Found> {
    let burst = burst(setup);
    let redis = asked(setup).filter(|_| buffer(setup).is_empty());
    let narrow = redis.and_then(|redis| narrower(redis, burst));
    let found = narrow.map(|(redis, value)| {
        found(
            redis,
            value,
            format!(
                "up to {burst} bytes come at once for an instance, of what another has held back while Redis was slow \
                 (limits.cluster_outbox_bytes) or of the answers to fetch_sockets: Redis cuts off one that is busy just then, and it misses what \
                 is said until it is back"
            ),
            wider(burst),
        )
    });
    found.into_iter().collect()
}

/// Bytes that may come for one instance faster than it reads.
/// The buffer's bounds as Redis writes them, if so many bytes do not go into it.
fn narrower(redis: &Survey, bytes: u64) -> Option<(&Survey, String)> {
    let buffer = redis.buffer.filter(|buffer| buffer.hard > 0 && buffer.hard < bytes)?;
    Some((redis, format!("client-output-buffer-limit pubsub {} {} {}", buffer.hard, buffer.soft, buffer.seconds)))
}

fn burst(setup: &Setup<'_>) -> u64 {
    let broadcasts = match setup.config().redis.adapter {
        Protocol::Redis => setup.config().limits.cluster_outbox_bytes as u64,
        // They come over a connection that is subscribed to nothing.
        Protocol::RedisStreams => 0,
    };
    broadcasts.max(setup.clients.saturating_mul(ANSWER))
}

fn wider(bytes: u64) -> String {
    let megabytes = bytes.div_ceil(1 << 20);
    let limit = format!("pubsub {megabytes}mb {}mb 10", megabytes.div_ceil(2));
    format!(
        "client-output-buffer-limit {limit} in redis.conf; at once: redis-cli CONFIG SET client-output-buffer-limit \"{limit}\""
    )
}

pub(super) fn latency(setup: &Setup<'_>) -> Vec<Found> {
    let most = SLOW.min(setup.config().redis.request_timeout / ANSWERS);
    let slow = asked(setup).filter(|redis| redis.round_trip > most);
    let found = slow.map(|redis| {
        found(
            redis,
            format!("it takes {} to answer, more than {}", duration::render(redis.round_trip), duration::render(most)),
            format!(
                "an event is so much later at other instances, and over streams with recovery everywhere; what is asked of all nodes takes \
                 three times as long, of redis.request_timeout = \"{}\", and leases of periodic tasks are renewed late",
                duration::render(setup.config().redis.request_timeout)
            ),
            "a Redis near the instances, on a host that has time; SLOWLOG GET and LATENCY DOCTOR say what holds it up".to_owned(),
        )
    });
    found.into_iter().collect()
}

pub(super) fn unseen(setup: &Setup<'_>) -> Vec<Found> {
    let Some(redis) = asked(setup) else { return Vec::new() };
    let known = [redis.buffer.is_some(), redis.memory.is_some() && redis.eviction.is_some()];
    let names = ["client-output-buffer-limit", "maxmemory and maxmemory-policy"];
    let unknown: Vec<_> = names.into_iter().zip(known).filter(|(_, is_known)| !is_known).map(|(name, _)| name).collect();
    if unknown.is_empty() {
        return Vec::new();
    }
    vec![found(
        redis,
        format!("its user may not see {}", unknown.join(", ")),
        "they were not judged; instances need not see them".to_owned(),
        "check once as somebody who may CONFIG GET: stickyport check --set redis.url=redis://admin:password@…".to_owned(),
    )]
}

/// The Redis that has answered.
fn asked<'s>(setup: &'s Setup<'_>) -> Option<&'s Survey> {
    setup.redis.as_ref()?.as_ref().ok()
}

fn found(redis: &Survey, value: String, effect: String, mend: String) -> Found {
    // Which of its files says so, if any does, is not to be known from here.
    let place = Place::whole(format!("{} {} at {}", redis.name, redis.version, redis.address));
    Found { place, value, effect, mend }
}
