//! Reads the streams, over a connection of its own on which Redis makes it wait for what comes next.

use super::super::inbound::Inbound;
use super::Streams;
use crate::hub::Offset;
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, RedisError, RedisResult, Value, cmd};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::MutexGuard;
use std::time::Duration;

/// How long Redis makes the reader wait for an entry; the reference's `blockTimeInMs`. Whether Redis is there is asked over the other connection.
const BLOCK: Duration = Duration::from_secs(5);

/// An entry as Redis hands it out.
pub(super) type Read = (usize, Offset, Vec<(Bytes, Bytes)>);

impl Streams {
    /// Connects, and reads what has come since it stopped; the first time nothing.
    pub(in crate::cluster) async fn connect(
        &self,
        client: &Client,
        inbound: &Inbound,
        patience: Duration,
    ) -> RedisResult<MultiplexedConnection> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(patience)).set_response_timeout(Some(BLOCK + patience));
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        for (place, key) in self.keys.names.iter().enumerate() {
            let newest = newest(&mut connection, key).await?;
            let mut places = self.places();
            places[place] = Some(match places[place] {
                None => newest,
                Some(read) if read <= newest => read,
                // Redis has begun anew.
                Some(_) => Offset::default(),
            });
        }
        while self.read(&mut connection, inbound, None).await? {}
        Ok(connection)
    }

    /// Reads until it cannot, and why.
    pub(in crate::cluster) async fn run(&self, mut connection: MultiplexedConnection, inbound: &Inbound) -> RedisError {
        loop {
            if let Err(error) = self.read(&mut connection, inbound, Some(BLOCK)).await {
                return error;
            }
        }
    }

    /// Reads what is there, or what comes next; `false` says that nothing was or did.
    async fn read(&self, connection: &mut MultiplexedConnection, inbound: &Inbound, wait: Option<Duration>) -> RedisResult<bool> {
        let mut command = cmd("XREAD");
        command.arg("COUNT").arg(self.read_at_once);
        if let Some(wait) = wait {
            command.arg("BLOCK").arg(wait.as_millis() as u64);
        }
        command.arg("STREAMS").arg(&self.keys.names);
        command.arg(self.places().iter().map(|place| place.unwrap_or_default().to_string()).collect::<Vec<_>>());
        let answer: Value = command.query_async(connection).await?;
        let read = self.streams_of(answer);
        let is_any = !read.is_empty();
        for (place, id, fields) in read {
            inbound.hear_entry(place, id, &fields);
            self.places()[place] = Some(id);
        }
        Ok(is_any)
    }

    fn streams_of(&self, answer: Value) -> Vec<Read> {
        let place = |key: &Value| {
            let Value::BulkString(key) = key else { return None };
            self.keys.names.iter().position(|known| known.as_bytes() == key)
        };
        let streams = match answer {
            Value::Map(streams) => streams,
            _ => Vec::new(),
        };
        streams.into_iter().filter_map(|(key, list)| Some(entries(place(&key)?, list))).flatten().collect()
    }

    pub(super) fn places(&self) -> MutexGuard<'_, Vec<Option<Offset>>> {
        self.places.lock().expect("no code that can panic runs under this lock")
    }
}

/// The id of a stream's last entry, be it there or not.
async fn newest(connection: &mut MultiplexedConnection, key: &str) -> RedisResult<Offset> {
    let known: RedisResult<HashMap<String, Value>> = cmd("XINFO").arg("STREAM").arg(key).query_async(connection).await;
    match known {
        Ok(known) => match known.get("last-generated-id") {
            Some(Value::BulkString(id)) => Ok(std::str::from_utf8(id).ok().and_then(|id| id.parse().ok()).unwrap_or_default()),
            _ => Ok(Offset::default()),
        },
        // Nobody has written to it.
        Err(error) if error.detail().is_some_and(|detail| detail.contains("no such key")) => Ok(Offset::default()),
        Err(error) => Err(error),
    }
}

/// The entries of a list, without what is none.
pub(super) fn entries(place: usize, list: Value) -> Vec<Read> {
    let entry = |value: Value| {
        let Value::Array(entry) = value else { return None };
        let [id, fields] = <[Value; 2]>::try_from(entry).ok()?;
        let (Value::BulkString(id), Value::Array(fields)) = (id, fields) else { return None };
        let id = std::str::from_utf8(&id).ok()?.parse().ok()?;
        let mut fields = fields.into_iter();
        let mut pairs = Vec::with_capacity(fields.len() / 2);
        while let (Some(Value::BulkString(name)), Some(Value::BulkString(value))) = (fields.next(), fields.next()) {
            pairs.push((name.into(), value.into()));
        }
        Some((place, id, pairs))
    };
    let Value::Array(list) = list else { return Vec::new() };
    list.into_iter().filter_map(entry).collect()
}
