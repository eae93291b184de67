//! A client's session as the reference keeps it for the node to which it comes back: base64 of `{sid,pid,rooms,data}` in msgpack.
//!
//! Ours say more at the end, which Node's servers leave alone: the client's namespace (`nsp`), where it came in (`offset`), and the node that has it (`uid`).

use super::request::{plain, string};
use super::{Bounds, WireError, append_rooms, head, members, read_rooms};
use crate::hub::ArchivedSession;
use crate::protocol::sid::{Pid, SocketId};
use crate::protocol::sio::arguments;
use crate::protocol::sio::transcode::{Head, Reader, append_json_within, append_map, append_str};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

/// A session as it is kept.
#[derive(Debug, Clone)]
pub struct Record {
    /// The client's.
    pub session: ArchivedSession,
    /// The node of ours that has it, or had it last.
    pub holder: Option<String>,
}

impl Record {
    /// Writes a session that a node has.
    ///
    /// # Errors
    /// [`WireError::TooLong`]
    pub fn encode(session: &ArchivedSession, holder: Option<&str>, bounds: &Bounds) -> Result<String, WireError> {
        let ArchivedSession { namespace, sid, pid, rooms, data, start } = session;
        let mut out = Vec::with_capacity(256 + data.get().len());
        let more = [namespace.is_some(), start.is_some(), holder.is_some()].into_iter().filter(|is_known| *is_known).count();
        append_map(&mut out, 4 + more as u32);
        append_str(&mut out, "sid");
        append_str(&mut out, sid.as_str());
        append_str(&mut out, "pid");
        append_str(&mut out, pid.as_str());
        append_rooms(&mut out, "rooms", rooms);
        append_str(&mut out, "data");
        append_json_within(&mut out, data.get(), &[], bounds.bytes)?;
        let start = start.map(|start| start.to_string());
        for (key, value) in [("nsp", namespace.as_deref()), ("offset", start.as_deref()), ("uid", holder)] {
            if let Some(value) = value {
                append_str(&mut out, key);
                append_str(&mut out, value);
            }
        }
        if out.len() > bounds.bytes { Err(WireError::TooLong) } else { Ok(BASE64_STANDARD.encode(out)) }
    }

    /// Reads what was kept, by ours or by Node's.
    ///
    /// # Errors
    /// It is no session.
    pub fn decode(kept: &[u8], bounds: &Bounds) -> Result<Self, WireError> {
        if kept.len() / 4 * 3 > bounds.bytes {
            return Err(WireError::TooLong);
        }
        let message = Bytes::from(BASE64_STANDARD.decode(kept).map_err(|_| WireError::Malformed)?);
        let mut reader = Reader::of(&message);
        let [mut sid, mut pid, mut namespace, mut start, mut holder] = [None, None, None, None, None];
        let (mut rooms, mut data) = (None, None);
        members(&mut reader, |key, reader| {
            match key {
                b"sid" => sid = Some(string(reader)?),
                b"pid" => pid = Some(string(reader)?),
                b"nsp" => namespace = Some(string(reader)?),
                b"offset" => start = Some(string(reader)?),
                b"uid" => holder = Some(string(reader)?),
                b"rooms" => rooms = Some(read_rooms(reader, bounds)?),
                b"data" => {
                    data = Some(reader.clone());
                    reader.skip()?;
                }
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        let (Some(sid), Some(pid), Some(rooms), true) = (sid, pid, rooms, reader.is_empty()) else {
            return Err(WireError::Malformed);
        };
        let session = ArchivedSession {
            namespace: namespace.map(|namespace| (&*namespace).into()),
            sid: SocketId::from(&*sid),
            pid: Pid::from(&*pid),
            rooms,
            data: self::data(data, bounds)?.into(),
            start: start.and_then(|start| start.parse().ok()),
        };
        Ok(Self { session, holder: holder.map(Into::into) })
    }
}

/// One value as JSON, in which bytes are as Node's `Buffer` shows them.
fn data(value: Option<Reader<'_>>, bounds: &Bounds) -> Result<Box<RawValue>, WireError> {
    match value {
        Some(value) if head(&mut value.clone())? != Head::Nil => {
            let list = plain(None, &arguments(value, 1, usize::MAX)?, bounds)?;
            let [value] = serde_json::from_str::<[&RawValue; 1]>(list.get()).map_err(|_| WireError::Malformed)?;
            Ok(value.to_owned())
        }
        _ => Ok(RawValue::from_string("{}".to_owned()).expect("an object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire::testing::{BOUNDS, rooms as names, unhex};
    use proptest::prelude::*;

    #[test]
    fn a_record_of_nodes_is_read() {
        // {sid: "s", pid: "p", rooms: ["s", "r"], data: {a: <01>}}
        let kept = BASE64_STANDARD.encode(unhex("84a3736964a173a3706964a170a5726f6f6d7392a173a172a46461746181a161c40101"));
        let Record { session, holder } = Record::decode(kept.as_bytes(), &BOUNDS).expect("a session");
        assert_eq!((session.sid.as_str(), session.pid.as_str(), &session.rooms), ("s", "p", &names(&["s", "r"])));
        assert_eq!(
            (session.data.get(), session.namespace, session.start, holder),
            (r#"{"a":{"data":[1],"type":"Buffer"}}"#, None, None, None)
        );
    }

    #[test]
    fn what_is_no_session_is_none() {
        for kept in ["", "!", "gA==", "wA==", "hA==", "haNzaWShc6NwaWShcKVyb29tc5Ghc6RkYXRhwMA="] {
            assert!(Record::decode(kept.as_bytes(), &BOUNDS).is_err(), "{kept}");
        }
        assert_eq!(Record::decode(&vec![b'A'; 2 * BOUNDS.bytes], &BOUNDS).err(), Some(WireError::TooLong));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(
            some in prop::collection::vec(any::<String>(), 0..4), text: String, namespace: Option<String>, start in prop::option::of("[0-9]{1,9}-[0-9]"), holder: Option<String>,
        ) {
            let data = serde_json::value::to_raw_value(&serde_json::json!({ "a": text })).expect("JSON");
            let session = ArchivedSession {
                namespace: namespace.map(Into::into),
                sid: SocketId::from("s"),
                pid: Pid::from("p"),
                rooms: names(&some),
                data: data.into(),
                start: start.map(|start| start.parse().expect("an offset")),
            };
            let kept = Record::encode(&session, holder.as_deref(), &BOUNDS).expect("short");
            let read = Record::decode(kept.as_bytes(), &BOUNDS).expect("written a line ago");
            prop_assert_eq!((read.session.namespace, read.session.rooms, read.session.start), (session.namespace, session.rooms, session.start));
            prop_assert_eq!((read.session.data.get(), read.holder), (session.data.get(), holder));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Record::decode(BASE64_STANDARD.encode(&bytes).as_bytes(), &BOUNDS);
            let _ = Record::decode(&bytes, &BOUNDS);
        }
    }
}
