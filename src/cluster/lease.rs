//! A lease: which node of a cluster may do what only one of them is to do, until when, and for which period.
//!
//! It stands in a hash of Redis, `stickyport#<prefix>#lease#<name>`, and Redis's clock decides. Whoever has it counts from before the request was sent, and so gives
//! it up before Redis does. A key that is not there may have been lost, with a Redis that was started anew or alone, and then somebody may still have the lease:
//! only who has found it missing for longer than a lease lasts, over one connection, knows that nobody does.

use super::redis::Redis;
use ::redis::{RedisResult, cmd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Takes or renews the lease, and with it the period that has begun, unless that was had before.
///
/// KEYS: the lease's. ARGV: who, for how long, the period, the end of the last period that the asker has had, the asker's last token, and 1 if a key that is
/// not there is nobody's. Returns whether it was given (-1: nobody knows), the milliseconds to the next period or to the end of the other's lease, the
/// token, and the period's number or -1.
const TAKE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local length, period = tonumber(ARGV[2]), tonumber(ARGV[3])
local held = redis.call('HMGET', KEYS[1], 'holder', 'until', 'token', 'done')
if not held[1] and ARGV[6] ~= '1' then return {-1, length, 0, -1} end
local till, token, done = tonumber(held[2]) or 0, tonumber(held[3]) or 0, tonumber(held[4]) or 0
if held[1] ~= ARGV[1] and till > now then return {0, till - now, 0, -1} end
if held[1] ~= ARGV[1] or till <= now then token = math.max(token + 1, now, tonumber(ARGV[5]) + 1) end
local number = math.floor(now / period)
done = math.max(done, tonumber(ARGV[4]))
local turn = -1
if number * period >= done then turn = number; done = (number + 1) * period end
local text = function(number) return string.format('%.0f', number) end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', text(now + length), 'token', text(token), 'done', text(done))
redis.call('PEXPIRE', KEYS[1], text(math.max(3600000, 10 * length)))
return {1, (number + 1) * period - now, token, turn}";

/// Gives the lease back; the key stays, so that the next one need not wait. KEYS: the lease's. ARGV: who.
const RELEASE: &str = "if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then redis.call('HSET', KEYS[1], 'until', '0') end";

/// How the lease of one name comes to this node.
#[derive(Debug)]
pub(super) struct Lease {
    source: Source,
    period: Duration,
    /// So long it holds: half a period longer than it takes to renew it, so that the next one has it in less than two.
    length: Duration,
    /// The last that this node had.
    last: Option<Held>,
}

/// Who says that nobody else has it.
#[derive(Debug)]
enum Source {
    /// This node is alone.
    Alone { began: Instant, at: SystemTime },
    Cluster {
        redis: Arc<Redis>,
        key: String,
        is_connected: watch::Receiver<bool>,
        /// Since when the key has been missing, as far as this connection can tell.
        missing: Option<Instant>,
    },
}

/// A lease while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// Larger with every holder.
    pub(super) token: u64,
    pub(super) until: Instant,
    /// The end of the last period that was given, in milliseconds since the epoch.
    done: u64,
}

/// What comes of asking for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// If it is this node's.
    pub(super) held: Option<Held>,
    /// The number of a period that has begun and that nobody had before.
    pub(super) turn: Option<u64>,
    /// When to ask again.
    pub(super) again: Instant,
}

impl Lease {
    pub(super) fn new(redis: Option<Arc<Redis>>, name: &str, period: Duration) -> Self {
        let source = match redis {
            None => Source::Alone { began: Instant::now(), at: SystemTime::now() },
            Some(redis) => Source::Cluster {
                key: format!("stickyport#{}#lease#{name}", redis.options.prefix),
                is_connected: redis.is_connected.subscribe(),
                redis,
                missing: None,
            },
        };
        Self { source, period, length: period * 3 / 2, last: None }
    }

    /// Takes it, if nobody has it, or keeps it.
    pub(super) async fn ask(&mut self) -> Answer {
        let asked = Instant::now();
        let Self { source, period, length, last } = self;
        match source {
            Source::Alone { began, at } => {
                let at = at.duration_since(UNIX_EPOCH).map_or(0, millis);
                let (now, period) = (at + millis(began.elapsed()), millis(*period));
                let (number, token) = (now / period, at);
                let done = last.map_or(0, |last| last.done);
                let turn = (number * period >= done).then_some(number);
                let next = (number + 1) * period;
                let done = if turn.is_some() { next } else { done };
                // Nobody takes it away.
                let held = Held { token, until: asked + Duration::from_secs(u32::MAX.into()), done };
                *last = Some(held);
                Answer { held: *last, turn, again: asked + Duration::from_millis(next - now) }
            }
            Source::Cluster { redis, key, is_connected, missing } => {
                let connection = redis.connection();
                // In this order: whoever has a new connection sees that there was an end.
                if is_connected.has_changed().unwrap_or(true) {
                    is_connected.mark_unchanged();
                    *missing = None;
                }
                // One that fails is soon tried again, because what is left of the lease is half a period.
                let soon = *period / 8;
                let nobody = Answer { held: None, turn: None, again: asked + soon };
                let Some(mut connection) = connection else { return nobody };
                let is_proven =
                    missing.is_some_and(|since| since.elapsed() > *length) || last.is_some_and(|held| held.until > asked);
                let mut take = cmd("EVAL");
                take.arg(TAKE).arg(1).arg(&*key).arg(redis.uid()).arg(millis(*length)).arg(millis(*period));
                take.arg(last.map_or(0, |held| held.done)).arg(last.map_or(0, |held| held.token)).arg(u8::from(is_proven));
                type Taken = RedisResult<(i64, u64, u64, i64)>;
                let taken: Result<Taken, _> = timeout(*length, take.query_async(&mut connection)).await;
                let (given, wait, token, turn) = match taken {
                    Ok(Ok(taken)) => taken,
                    Ok(Err(error)) => {
                        if redis.unleased.is_due(asked.into()) {
                            tracing::warn!(key, "nobody knows who is to do this, so nobody does: {error}");
                        }
                        return nobody;
                    }
                    Err(_) => return nobody,
                };
                let turn = u64::try_from(turn).ok();
                let wait = Duration::from_millis(wait);
                let wait = if given < 0 {
                    length.saturating_sub(missing.get_or_insert(asked).elapsed())
                } else {
                    *missing = None;
                    wait
                };
                if given != 1 {
                    return Answer { held: None, turn: None, again: Instant::now() + wait + MOMENT };
                }
                let done = turn.map_or(last.map_or(0, |last| last.done), |number| (number + 1) * millis(*period));
                let held = Held { token, until: asked + *length, done };
                *last = Some(held);
                // Of a lease whose answer came late little is left, and it is renewed before that ends.
                let again = (Instant::now() + wait + MOMENT).min(held.until - soon);
                // An answer that took longer than the lease says nothing any more.
                let is_valid = Instant::now() < held.until;
                Answer { held: is_valid.then_some(held), turn: turn.filter(|_| is_valid), again }
            }
        }
    }

    /// Gives it back.
    pub(super) async fn release(&mut self) {
        if let Source::Cluster { redis, key, .. } = &self.source
            && self.last.is_some()
            && let Some(mut connection) = redis.connection()
        {
            let mut release = cmd("EVAL");
            release.arg(RELEASE).arg(1).arg(key).arg(redis.uid());
            // Who is not heard is waited for until the lease ends.
            let _ = timeout(FAREWELL, release.exec_async(&mut connection)).await;
        }
    }
}

/// Redis's milliseconds begin a little later than ours may have ended.
const MOMENT: Duration = Duration::from_millis(2);
/// How long giving it back may take.
const FAREWELL: Duration = Duration::from_secs(1);

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
