//! An event for many sockets: `[sender, {type:2,data:[event,…],nsp}, {rooms,except,flags}]` in msgpack.

use super::{Bounds, EMITTER, Scope, WireError, head, members};
use crate::hub::{Flags, Target};
use crate::protocol::sio::transcode::{Head, Reader, append_json_within, append_list, append_map, append_number, append_str};
use crate::protocol::sio::{Args, name_and_arguments};
use bytes::Bytes;
use bytestring::ByteString;
use smol_str::SmolStr;

/// An event for many sockets, whose data was not looked at yet.
#[derive(Debug, Clone)]
pub struct Broadcast<'a> {
    /// For whom it is.
    pub scope: Scope,
    packet: Packet<'a>,
}

impl<'a> Broadcast<'a> {
    /// Writes an event.
    ///
    /// # Errors
    /// [`WireError::TooLong`]
    pub fn encode(
        sender: &str,
        namespace: &str,
        target: &Target,
        flags: &Flags,
        event: &str,
        args: &Args,
        bounds: &Bounds,
    ) -> Result<Vec<u8>, WireError> {
        let mut out = Vec::with_capacity(128 + args.tail().len());
        append_list(&mut out, 3);
        append_str(&mut out, sender);
        Packet::append(&mut out, namespace, event, args, bounds)?;
        Scope::append(target, flags, sender == EMITTER, &mut out);
        Ok(out)
    }

    /// Who sent a message.
    ///
    /// # Errors
    /// [`WireError::Malformed`]
    pub fn sender(message: &'a Bytes) -> Result<&'a [u8], WireError> {
        Self::begin(message).map(|(sender, _)| sender)
    }

    /// Reads all but the event.
    ///
    /// # Errors
    /// The message is to be skipped.
    pub fn decode(message: &'a Bytes, bounds: &Bounds) -> Result<Self, WireError> {
        if message.len() > bounds.bytes {
            return Err(WireError::TooLong);
        }
        let (_, mut reader) = Self::begin(message)?;
        let packet = Packet::read(&mut reader)?;
        let scope = Scope::read(&mut reader, bounds)?;
        if reader.is_empty() { Ok(Self { scope, packet }) } else { Err(WireError::Malformed) }
    }

    /// The namespace that it is for.
    pub fn namespace(&self) -> ByteString {
        self.packet.namespace()
    }

    /// Reads the event: its name and arguments.
    ///
    /// # Errors
    /// It is none, or holds more than `bounds` allow.
    pub fn event(&self, bounds: &Bounds) -> Result<(SmolStr, Args), WireError> {
        self.packet.event(bounds)
    }

    fn begin(message: &'a Bytes) -> Result<(&'a [u8], Reader<'a>), WireError> {
        let mut reader = Reader::of(message);
        match (head(&mut reader)?, head(&mut reader)?) {
            (Head::Array(3), Head::Str(sender)) => Ok((sender, reader)),
            _ => Err(WireError::Malformed),
        }
    }
}

/// An event as the reference passes it on, `{type:2,data,nsp}`: where it stands.
#[derive(Debug, Clone)]
pub(super) struct Packet<'a> {
    namespace: Option<&'a [u8]>,
    data: Reader<'a>,
}

impl<'a> Packet<'a> {
    pub(super) fn append(out: &mut Vec<u8>, namespace: &str, event: &str, args: &Args, bounds: &Bounds) -> Result<(), WireError> {
        append_map(out, 3);
        append_str(out, "type");
        append_number(out, "2");
        append_str(out, "data");
        append_list(out, 1 + args.len());
        append_str(out, event);
        append_json_within(out, args.tail(), args.attachments(), bounds.bytes)?;
        append_str(out, "nsp");
        append_str(out, namespace);
        Ok(())
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let (mut is_event, mut namespace, mut data) = (false, None, None);
        members(reader, |key, reader| {
            let mut value = reader.clone();
            reader.skip()?;
            match key {
                // 5 is what emitters of old say of an event that holds bytes.
                b"type" => is_event = matches!(head(&mut value)?, Head::Unsigned(2 | 5)),
                b"nsp" => namespace = if let Head::Str(name) = head(&mut value)? { Some(name) } else { None },
                b"data" => data = Some(value),
                _ => {}
            }
            Ok(())
        })?;
        match data {
            Some(data) if is_event => Ok(Self { namespace, data }),
            _ => Err(WireError::Malformed),
        }
    }

    pub(super) fn namespace(&self) -> ByteString {
        // Emitters of old leave it out.
        self.namespace.map_or_else(|| "/".into(), |name| self.data.text(name))
    }

    pub(super) fn event(&self, bounds: &Bounds) -> Result<(SmolStr, Args), WireError> {
        let mut list = self.data.clone();
        match head(&mut list)? {
            Head::Array(len @ 1..) => Ok(name_and_arguments(list, len, bounds.attachments)?),
            _ => Err(WireError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire::testing::{BOUNDS, rooms, unhex};
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn emitters_of_old_leave_out_what_they_do_not_know() {
        // ["emitter", {"type": 5, "data": ["x", 7]}, {}], and with {"flags": "", "rooms": ""}
        for options in ["80", "82a5666c616773a0a5726f6f6d73a0"] {
            let message = unhex(&format!("93a7656d697474657282a47479706505a46461746192a17807{options}"));
            let broadcast = Broadcast::decode(&message, &BOUNDS).expect("taken");
            assert_eq!((broadcast.scope.clone(), &*broadcast.namespace()), (Scope::default(), "/"));
            assert_eq!(broadcast.event(&BOUNDS).map(|(name, args)| (name, args.json())), Ok(("x".into(), "[7]".into())));
        }
    }

    #[test]
    fn a_room_that_is_a_number_is_that_text() {
        // ["a", {"type": 2, "data": ["x"]}, {"rooms": [123, -1, "b"]}]
        let message = unhex("93a16182a47479706502a46461746191a17881a5726f6f6d73937bffa162");
        let broadcast = Broadcast::decode(&message, &BOUNDS).expect("taken");
        assert_eq!(broadcast.scope.target.rooms, rooms(&["123", "-1", "b"]));
    }

    #[test]
    fn what_is_not_of_this_form_is_skipped() {
        for (message, error) in [
            ("", WireError::Malformed),
            ("c1", WireError::Malformed),
            ("7b7d", WireError::Malformed),
            ("93a161c0c0", WireError::Malformed),
            ("92a16182a47479706502a46461746191a178", WireError::Malformed),
            // No event.
            ("93a16182a47479706503a46461746191a17880", WireError::Malformed),
            ("93a16181a4747970650280", WireError::Malformed),
            // Something behind the end.
            ("93a16182a47479706502a46461746191a17880c0", WireError::Malformed),
            // 2^32 rooms are announced.
            ("93a16182a47479706502a46461746191a17881a5726f6f6d73ddffffffff", WireError::TooManyRooms),
            ("93a16182a47479706502a46461746191a17881a5726f6f6d73a161", WireError::Malformed),
        ] {
            assert_eq!(Broadcast::decode(&unhex(message), &BOUNDS).err(), Some(error), "{message}");
        }
        let few = Bounds { bytes: 10, ..BOUNDS };
        assert_eq!(Broadcast::decode(&vec![0x93; 11].into(), &few).err(), Some(WireError::TooLong));
        // A reserved name, and no list.
        for data in ["91a7636f6e6e656374", "90", "c0"] {
            let message = unhex(&format!("93a16182a47479706502a464617461{data}80"));
            assert!(Broadcast::decode(&message, &BOUNDS).expect("not looked at").event(&BOUNDS).is_err(), "{data}");
        }
    }

    #[test]
    fn an_event_that_would_be_too_long_is_not_written() {
        let json = format!("[{}]", [r#"{"_placeholder":true,"num":0}"#; 100].join(","));
        let args = Args::from_raw(&json, vec![vec![0; 1_000].into()]).expect("JSON");
        let write =
            |bytes| Broadcast::encode("a", "/", &Target::default(), &Flags::default(), "x", &args, &Bounds { bytes, ..BOUNDS });
        assert_eq!(write(50_000), Err(WireError::TooLong));
        assert!(write(200_000).is_ok());
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(
            names in prop::collection::vec("[a-z0-9]{0,6}", 0..5), others in prop::collection::vec(any::<String>(), 0..5),
            volatile: bool, compress: bool, timeout in prop::option::of(0..10_000_u64), event in "[a-b]{1,3}", text: String, bytes: Vec<u8>,
        ) {
            let args = Args::new(&(text, Bytes::from(bytes))).expect("JSON");
            let target = Target { rooms: rooms(&names), except: rooms(&others) };
            let flags = Flags { volatile, compress, local: false, timeout: timeout.map(Duration::from_millis) };
            let message = Broadcast::encode("me", "/é", &target, &flags, &event, &args, &BOUNDS).expect("short").into();
            prop_assert_eq!(Broadcast::sender(&message), Ok(&b"me"[..]));
            let read = Broadcast::decode(&message, &BOUNDS).expect("written a line ago");
            prop_assert_eq!(&read.scope, &Scope { target, flags });
            prop_assert_eq!(&*read.namespace(), "/é");
            prop_assert_eq!(read.event(&BOUNDS), Ok((event.into(), args)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at in 0..60_usize, byte: u8) {
            let _ = Broadcast::decode(&Bytes::from(bytes), &BOUNDS).map(|read| read.event(&BOUNDS));
            let mut almost = unhex("93a161 83 a474797065 02 a464617461 92a17807 a36e7370 a12f 83 a5726f6f6d73 91a161 a6657863657074 90 a5666c616773 80").to_vec();
            let at = at % almost.len();
            almost[at] = byte;
            let _ = Broadcast::decode(&Bytes::from(almost), &BOUNDS).map(|read| read.event(&BOUNDS));
        }
    }
}
