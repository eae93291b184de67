//! What the nodes write to streams and read from them: how nothing is lost while Redis is away, and how each hears everything in one order.
//!
//! What this node writes waits in a [`Backlog`] until it is read again, like what the others write. So what became of it is known even if Redis went away
//! while it was being written.

mod archive;
mod backlog;
mod fence;
mod reader;
mod sessions;

pub(super) use backlog::{Backlog, Fields, Turn};
pub(super) use fence::{Fence, Fences};
pub(super) use sessions::{Fate, Sessions, What, Write};

use super::options::Options;
use super::wire::Bounds;
use crate::hub::Offset;
use crate::metrics::Metrics;
use ::redis::{Cmd, cmd};
use std::sync::{Arc, Mutex};

/// Where the entries of a cluster stand.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    names: Vec<String>,
    count: i32,
    length: usize,
}

impl Keys {
    pub(super) fn new(options: &Options) -> Self {
        let count = i32::try_from(options.stream_count).unwrap_or(i32::MAX).max(1);
        let name = &options.stream;
        // The reference's remainder may be below 0; what it writes there it does not read.
        let names =
            if count == 1 { vec![name.clone()] } else { (1 - count..count).map(|index| format!("{name}-{index}")).collect() };
        Self { names, count, length: options.stream_length }
    }

    /// The keys of all streams.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Which of the streams is a namespace's.
    pub(super) fn place(&self, namespace: &str) -> usize {
        let hash = namespace.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
        usize::try_from(hash % self.count + self.count - 1).expect("above 0")
    }

    /// Adds an entry to a stream.
    pub(super) fn add(&self, place: usize, fields: &Fields) -> Cmd {
        let mut add = cmd("XADD");
        add.arg(&self.names[place]).arg("MAXLEN").arg("~").arg(self.length).arg("*");
        for (name, value) in fields {
            add.arg(name).arg(&**value);
        }
        add
    }
}

/// The streams of a cluster.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) keys: Keys,
    read_at_once: usize,
    pub(super) backlog: Backlog,
    /// The last entry of each that was read.
    places: Mutex<Vec<Option<Offset>>>,
    pub(super) sessions: Sessions,
    pub(super) fences: Fences,
    /// The connection over which entries were written last.
    writer: Mutex<Option<Writer>>,
}

impl Streams {
    /// Those of the cluster that `options` name, of which this node is known as `uid`; so much may wait to be written.
    pub(super) fn new(options: &Options, limit: usize, (uid, bounds): (&str, &Bounds), metrics: &Arc<Metrics>) -> Self {
        let keys = Keys::new(options);
        let backlog = Backlog::new(keys.names.len(), keys.length, limit, Arc::clone(metrics));
        let sessions = Sessions::new(options.session_prefix.clone(), uid.to_owned(), *bounds, Arc::clone(metrics));
        Self {
            places: vec![None; keys.names.len()].into(),
            keys,
            read_at_once: options.stream_read,
            backlog,
            sessions,
            fences: Fences::default(),
            writer: Mutex::default(),
        }
    }

    /// An entry of a namespace's stream up to which all were read.
    pub(super) fn read_to(&self, namespace: &str) -> Offset {
        self.places()[self.keys.place(namespace)].unwrap_or_default()
    }

    /// Who writes from now on, and who has before and may still be there.
    pub(super) fn writes(&self, writer: Option<Writer>) -> Option<Writer> {
        let mut last = self.writer.lock().expect("no code that can panic runs under this lock");
        let former = std::mem::replace(&mut *last, writer);
        // The ids of one Redis only rise: another one, or one that was started anew, knows nothing of the former, and its id may be anybody's there.
        former.filter(|former| last.as_ref().is_some_and(|last| last.id > former.id))
    }
}

/// How Redis knows a connection: ids begin anew with every Redis, and then another's has this one's, but hardly its address as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Writer {
    pub(super) id: u64,
    pub(super) address: String,
}

impl Writer {
    /// Reads what `CLIENT INFO` says.
    pub(super) fn read(info: &str) -> Option<Self> {
        let field = |name: &str| info.split_ascii_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        Some(Self { id: field("id")?.parse().ok()?, address: field("addr")?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_former_connection_is_not_looked_for_in_a_redis_that_was_started_anew() {
        let bounds = Bounds { bytes: 1_000, rooms: 10, attachments: 10 };
        let streams = Streams::new(&Options::default(), 1_000, ("me", &bounds), &Arc::default());
        let writer = |id: u64| Writer::read(&format!("id={id} addr=10.0.0.1:{id}0 laddr=10.0.0.2:6379 fd=8 name= lib-name=\n"));
        assert_eq!(writer(7), Some(Writer { id: 7, address: "10.0.0.1:70".to_owned() }));
        assert_eq!(Writer::read("id=x"), None);
        assert_eq!(streams.writes(writer(7)), None);
        assert_eq!(streams.writes(writer(9)), writer(7));
        // It began anew, and the next one cannot say.
        assert_eq!(streams.writes(writer(3)), None);
        assert_eq!(streams.writes(None), None);
        assert_eq!(streams.writes(writer(12)), None);
    }

    #[test]
    fn a_namespace_has_its_stream_as_in_the_reference() {
        let key = |stream_count, namespace| {
            let keys = Keys::new(&Options { stream_count, ..Options::default() });
            keys.names[keys.place(namespace)].clone()
        };
        // As JavaScript has it: "/foo".split("").reduce((hash, c) => (hash * 31 + c.charCodeAt(0)) | 0, 0) % 3
        for (count, namespace, expected) in [
            (1, "/", "socket.io"),
            (1, "/long enough for a hash below zero", "socket.io"),
            (3, "/", "socket.io-2"),
            (3, "/tenants", "socket.io-0"),
            (3, "/é", "socket.io-1"),
            (3, "/live-scores", "socket.io--1"),
        ] {
            assert_eq!(key(count, namespace), expected, "{namespace}");
        }
    }
}
