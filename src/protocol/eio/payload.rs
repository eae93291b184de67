//! Polling payloads: packets joined by the record separator.

use super::{Encoded, Packet, PacketError};
use bytestring::ByteString;

/// The record separator between two packets of a payload.
pub const SEPARATOR: u8 = 0x1e;

/// The packets of a POST's body, as far as they can be read: the first bad one is the last item.
///
/// More than `max_packets` is an error in place of the first packet too many.
pub fn decode(payload: &ByteString, max_packets: usize) -> impl Iterator<Item = Result<Packet, PayloadError>> + use<> {
    let payload = payload.clone();
    let mut next = Some(0);
    let mut packets = 0;
    std::iter::from_fn(move || {
        let rest = payload.get(next?..)?;
        packets += 1;
        if packets > max_packets {
            next = None;
            return Some(Err(PayloadError::TooManyPackets));
        }
        let end = rest.find(char::from(SEPARATOR));
        let text = rest.get(..end.unwrap_or(rest.len())).expect("a separator is ASCII");
        let packet = Packet::decode(payload.slice_ref(text)).map_err(PayloadError::from);
        next = match (end, &packet) {
            (Some(end), Ok(_)) => next.map(|start| start + end + 1),
            _ => None,
        };
        Some(packet)
    })
}

/// Why a payload is not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// One of its packets is none.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// It holds more packets than are allowed.
    #[error("too many packets in one payload")]
    TooManyPackets,
}

/// The body of a GET's answer.
pub fn encode<'a>(packets: impl IntoIterator<Item = &'a Encoded>) -> Vec<u8> {
    let mut body = Vec::new();
    for packet in packets {
        if !body.is_empty() {
            body.push(SEPARATOR);
        }
        packet.append_polling(&mut body);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::eio::Message;
    use bytes::Bytes;
    use proptest::prelude::*;

    #[test]
    fn packets_before_the_first_bad_one_are_read() {
        let read: Vec<_> = decode(&"4a\u{1e}x\u{1e}4b".into(), 10).collect();
        assert_eq!(read, [Ok(Packet::Message("a".into())), Err(PayloadError::Packet(PacketError))]);
    }

    #[test]
    fn a_payload_holds_at_most_so_many_packets() {
        let read: Vec<_> = decode(&"4\u{1e}4\u{1e}4".into(), 2).collect();
        assert_eq!(read.last(), Some(&Err(PayloadError::TooManyPackets)));
        assert_eq!(read.len(), 3);
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            "[^\u{1e}]{0,200}".prop_map(|text| Message::from(text.as_str())),
            prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Message::Binary(Bytes::from(bytes))),
        ]
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(messages in prop::collection::vec(message(), 1..20)) {
            let encoded: Vec<_> = messages.iter().map(Encoded::message).collect();
            let body = ByteString::try_from(encode(&encoded)).expect("a payload is text");
            let decoded: Result<Vec<_>, _> = decode(&body, 20).collect();
            prop_assert_eq!(decoded, Ok(messages.into_iter().map(Packet::Message).collect()));
        }

        #[test]
        fn no_text_panics(text in any::<String>(), bytes in prop::collection::vec(prop_oneof![Just(SEPARATOR), Just(b'b'), any::<u8>()], 0..60)) {
            for text in [text, String::from_utf8_lossy(&bytes).into_owned()] {
                prop_assert!(decode(&text.into(), 100).count() <= 101);
            }
        }
    }
}
