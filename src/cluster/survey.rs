//! What a Redis is like for those who are to be a cluster over it: asked once, by somebody who is none of them, and nothing there is changed.

use super::link::{self, PATIENCE};
use super::options::{Options, Protocol};
use super::streams::Keys;
use super::wire::Channels;
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, cmd, pipe};
use std::collections::HashMap;
use std::error::Error;
use std::time::{Duration, Instant};
use tokio::try_join;

/// So many answers are waited for to know how long one takes, and fewer if they take so long together.
const PINGS: usize = 9;
const ENOUGH: Duration = Duration::from_secs(1);
/// Who asks, where nodes have their ids.
const NODE: &str = "stickyport-check";
/// The id of no connection.
const NOBODY: i64 = i64::MAX;

/// What there is to know of a Redis.
#[derive(Debug)]
pub struct Survey {
    /// Where it is, without what else the URL says.
    pub address: String,
    /// What it calls itself: `redis`, `valkey`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether it is `standalone`, a shard of a `cluster`, or a `sentinel`.
    pub mode: String,
    /// Whether it is a `master` or a `replica`.
    pub role: String,
    /// What instances do, and its user may not.
    pub forbidden: Vec<String>,
    /// Why a connection over which entries were written cannot be ended, in a cluster over streams.
    pub unending: Option<String>,
    /// Bytes that it may keep, 0 for as many as there are; `None` if its user may not know.
    pub memory: Option<u64>,
    /// What it forgets when it has them.
    pub eviction: Option<String>,
    /// What may wait for one that is subscribed.
    pub buffer: Option<Buffer>,
    /// How long it takes to answer: of several times the one in the middle.
    pub round_trip: Duration,
}

/// Bytes that may wait for one connection before it is cut off: at once, and for some time; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as Redis names them")]
pub struct Buffer {
    pub hard: u64,
    pub soft: u64,
    pub seconds: u64,
}

/// Why nothing is known of it.
#[derive(Debug, thiserror::Error)]
#[error("{obstacle}")]
pub struct SurveyError {
    /// Where it was looked for, without what else the URL says.
    pub address: String,
    /// What the matter is.
    pub obstacle: Obstacle,
    source: RedisError,
}

impl SurveyError {
    /// What was said exactly.
    pub fn cause(&self) -> &dyn Error {
        &self.source
    }
}

/// What keeps an instance from a Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentence says it")]
pub enum Obstacle {
    #[error("cannot be reached")]
    Away,
    #[error("does not answer in time")]
    Silent,
    #[error("does not speak TLS as redis.url has it")]
    Tls,
    #[error("has a certificate that this host does not trust")]
    Certificate,
    #[error("is no Redis")]
    Foreign,
    #[error("does not take the user and the password of redis.url")]
    Stranger,
    #[error("is older than 6.0")]
    Old,
    #[error("still reads its data")]
    Loading,
    #[error("does not let its user in")]
    Forbidden,
    #[error("refuses")]
    Refusal,
}

impl Survey {
    /// Asks the Redis of these options, and waits for each answer as long as a node would.
    ///
    /// # Errors
    /// It is not there, or does not let its user in.
    pub async fn of(options: &Options) -> Result<Self, SurveyError> {
        let (client, address) = (link::client(&options.url), options.address());
        let asked = async {
            let config = AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
            let connection = client?.get_multiplexed_async_connection_with_config(&config).await?;
            ask(&connection, options).await
        };
        match asked.await {
            Ok(survey) => Ok(Self { address, ..survey }),
            Err(error) => Err(SurveyError { address, obstacle: obstacle(&error), source: error }),
        }
    }
}

async fn ask(connection: &MultiplexedConnection, options: &Options) -> RedisResult<Survey> {
    let round_trip = round_trip(connection.clone()).await?;
    // At once, so that one that is far away is asked as quickly as it can be.
    let (hello, limits, info, memory, eviction, forbidden, unending) = try_join!(
        hello(connection.clone()),
        setting(connection.clone(), "client-output-buffer-limit"),
        info(connection.clone()),
        setting(connection.clone(), "maxmemory"),
        setting(connection.clone(), "maxmemory-policy"),
        forbidden(connection.clone(), options),
        unending(connection.clone(), options),
    )?;
    let text = |name: &str| match hello.get(name) {
        Some(Value::BulkString(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Some(Value::SimpleString(text)) => text.clone(),
        _ => String::new(),
    };
    let info = |name: &str| {
        let lines = info.as_deref().unwrap_or_default().lines();
        lines.filter_map(|line| line.split_once(':')).find(|(found, _)| *found == name).map(|(_, value)| value.trim().to_owned())
    };
    let memory = memory.or_else(|| info("maxmemory"));
    Ok(Survey {
        address: String::new(),
        name: text("server"),
        version: text("version"),
        mode: text("mode"),
        role: text("role"),
        forbidden,
        unending,
        memory: memory.and_then(|memory| memory.parse().ok()),
        eviction: eviction.or_else(|| info("maxmemory_policy")),
        buffer: limits.and_then(|limits| Buffer::read(&limits)),
        round_trip,
    })
}

async fn round_trip(mut connection: MultiplexedConnection) -> RedisResult<Duration> {
    let (start, mut times) = (Instant::now(), Vec::with_capacity(PINGS));
    while times.len() < PINGS && start.elapsed() < ENOUGH {
        let began = Instant::now();
        // Instances do without it, and a refusal takes as long.
        allowed(cmd("PING").exec_async(&mut connection).await)?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

async fn hello(mut connection: MultiplexedConnection) -> RedisResult<HashMap<String, Value>> {
    Ok(allowed(cmd("HELLO").arg(3).query_async(&mut connection).await)?.unwrap_or_default())
}

async fn info(mut connection: MultiplexedConnection) -> RedisResult<Option<String>> {
    allowed(cmd("INFO").arg("memory").query_async(&mut connection).await)
}

/// What `CONFIG GET` says; `None` to a user who may not ask.
async fn setting(mut connection: MultiplexedConnection, name: &str) -> RedisResult<Option<String>> {
    let settings: RedisResult<HashMap<String, String>> = cmd("CONFIG").arg("GET").arg(name).query_async(&mut connection).await;
    Ok(allowed(settings)?.and_then(|mut settings| settings.remove(name)))
}

/// An answer, unless Redis is there and does not give this one: a service that is rented has fewer commands.
fn allowed<T>(answer: RedisResult<T>) -> RedisResult<Option<T>> {
    match answer {
        Err(error) if link::is_refused(&error) => Ok(None),
        answer => answer.map(Some),
    }
}

/// What instances do and this user may not. Each is asked so that it comes to nothing: with keys that are not there, and channels that nobody hears or
/// that are left at once.
async fn forbidden(mut connection: MultiplexedConnection, options: &Options) -> RedisResult<Vec<String>> {
    let probes = probes(options);
    let mut pipe = pipe();
    for (name, rest) in &probes {
        pipe.cmd(name).arg(rest);
    }
    let answers: Vec<RedisResult<Value>> = pipe.ignore_errors().query_async(&mut connection).await?;
    let named = probes.iter().map(|(name, rest)| match (*name, rest.first()) {
        ("EVAL" | "PUBSUB" | "XINFO" | "XREAD", _) | (_, None) => (*name).to_owned(),
        (name, Some(key)) => format!("{name} {key}"),
    });
    let refused = named.zip(answers).filter(|(_, answer)| answer.as_ref().is_err_and(link::is_forbidden));
    Ok(refused.map(|(name, _)| name).collect())
}

/// Commands of instances, and what is asked of them.
fn probes(options: &Options) -> Vec<(&'static str, Vec<String>)> {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let own = &*format!("stickyport#{}#check", options.prefix);
    let mut probes = vec![
        ("TIME", words(&[])),
        ("ZADD", words(&[own, "XX", "0", "a"])),
        ("ZREMRANGEBYSCORE", words(&[own, "0", "0"])),
        ("ZREVRANGEBYSCORE", words(&[own, "0", "0"])),
        ("ZREM", words(&[own, "a"])),
        ("PEXPIRE", words(&[own, "1"])),
        ("SET", words(&[own, "a", "XX"])),
        ("GETRANGE", words(&[own, "0", "0"])),
        ("DEL", words(&[own])),
        ("HMGET", words(&[own, "a"])),
        ("EVAL", words(&["return 0", "1", own])),
        ("PUBSUB", words(&["NUMSUB", own])),
    ];
    // Whoever asks the cluster meanwhile must not count with us: Redis does what comes together without doing anything between.
    let channels = Channels::new(&options.prefix, "/".into());
    let nobody = channels.room(NODE);
    probes.push(("PUBLISH", words(&[&nobody, ""])));
    let names = match options.adapter {
        Protocol::Redis => {
            let pattern = channels.pattern();
            probes.extend([("PSUBSCRIBE", words(&[&pattern])), ("PUNSUBSCRIBE", words(&[&pattern]))]);
            [channels.request(), channels.response(), channels.response_to(NODE)]
        }
        Protocol::RedisStreams => [channels.broadcast(), nobody, options.fence_channel(NODE)],
    };
    for name in names {
        probes.extend([("SUBSCRIBE", words(&[&name])), ("UNSUBSCRIBE", words(&[&name]))]);
    }
    if options.adapter == Protocol::RedisStreams {
        let session = &*format!("{}{NODE}", options.session_prefix);
        probes.extend([
            ("SET", words(&[session, "a", "XX"])),
            ("GET", words(&[session])),
            ("PEXPIRE", words(&[session, "1"])),
            ("DEL", words(&[session])),
            ("MULTI", words(&[])),
            ("EXEC", words(&[])),
        ]);
        for stream in Keys::new(options).names() {
            probes.extend([
                // No entry has this id, so none is added.
                ("XADD", words(&[stream, "0-0", "a", "a"])),
                ("XRANGE", words(&[stream, "0", "0"])),
                ("XLEN", words(&[stream])),
                ("XREAD", words(&["COUNT", "1", "STREAMS", stream, "$"])),
                ("XINFO", words(&["STREAM", stream])),
            ]);
        }
    }
    probes
}

/// Why the connection over which entries were written last could not be ended, before they are written again.
async fn unending(mut connection: MultiplexedConnection, options: &Options) -> RedisResult<Option<String>> {
    if options.adapter == Protocol::Redis {
        return Ok(None);
    }
    let mut pipe = pipe();
    pipe.cmd("CLIENT").arg("INFO").cmd("CLIENT").arg("KILL").arg("ID").arg(NOBODY);
    let answers: Vec<RedisResult<Value>> = pipe.ignore_errors().query_async(&mut connection).await?;
    for (asked, answer) in ["CLIENT INFO", "CLIENT KILL"].into_iter().zip(answers) {
        match answer {
            Err(error) if link::is_refused(&error) => {
                let why = if link::is_forbidden(&error) { "its user may not" } else { "there is no" };
                return Ok(Some(format!("{why} {asked}")));
            }
            answer => drop(answer?),
        }
    }
    Ok(None)
}

impl Buffer {
    /// Reads what `CONFIG GET client-output-buffer-limit` says of who is subscribed.
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        words.find(|&word| word == "pubsub")?;
        let mut number = || words.next()?.parse().ok();
        Some(Self { hard: number()?, soft: number()?, seconds: number()? })
    }
}

fn obstacle(error: &RedisError) -> Obstacle {
    let text =
        std::iter::successors(Some(error as &dyn Error), |&error| error.source()).map(ToString::to_string).collect::<String>();
    match error.kind() {
        ErrorKind::RESP3NotSupported => Obstacle::Old,
        _ if text.contains("unknown command") && text.contains("HELLO") => Obstacle::Old,
        // What concerns the connection itself is told without its code.
        _ if link::is_forbidden(error) || text.contains("no permissions to run") => Obstacle::Forbidden,
        _ if text.contains("max number of clients") => Obstacle::Away,
        ErrorKind::AuthenticationFailed => Obstacle::Stranger,
        ErrorKind::Extension if matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) => Obstacle::Stranger,
        ErrorKind::Server(ServerErrorKind::BusyLoading) => Obstacle::Loading,
        ErrorKind::Parse => Obstacle::Foreign,
        ErrorKind::Io if error.is_timeout() => Obstacle::Silent,
        ErrorKind::Io if text.contains("certificate") => Obstacle::Certificate,
        // What is no TLS, where TLS was to be spoken.
        ErrorKind::Io if text.contains("corrupt message") => Obstacle::Tls,
        ErrorKind::Io => Obstacle::Away,
        _ => Obstacle::Refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_of_subscribers_is_read() {
        let limits = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(Buffer::read(limits), Some(Buffer { hard: 32 << 20, soft: 8 << 20, seconds: 60 }));
        assert_eq!(["", "pubsub", "pubsub 1 2", "pubsub a 1 1"].map(Buffer::read), [None; 4]);
    }
}
