//! Engine.IO 3 on the wire, where it differs from 4: binary data has its type in front, and the packets of a payload their lengths.

use super::payload::PayloadError;
use super::{Encoded, Message, Packet, PacketError};
use bytestring::ByteString;
use std::io::Write as _;

/// The type of a binary message; no other packet is binary.
const MESSAGE: u8 = 4;

/// Before a packet of a binary payload: what it is, its length in bytes with a byte for each decimal digit, and the delimiter.
const TEXT: u8 = 0;
const BINARY: u8 = 1;
const DELIMITER: u8 = 0xff;

/// Digits of a length; no payload is so long that it has more.
const MAX_DIGITS: usize = 10;

/// Decodes a WebSocket message, or what a payload holds between two lengths.
///
/// # Errors
/// Text that begins neither with a digit from 0 to 6 nor with `b4`, or binary data that is no message.
pub fn decode_packet(packet: Message) -> Result<Packet, PacketError> {
    match packet {
        Message::Text(text) => match text.strip_prefix("b4") {
            Some(base64) => Ok(Packet::from_base64(base64)),
            None => Packet::from_text(text),
        },
        Message::Binary(bytes) if bytes.first() == Some(&MESSAGE) => Ok(Packet::Message(bytes.slice(1..).into())),
        Message::Binary(_) => Err(PacketError),
    }
}

/// The packets of a POST's body, as far as they can be read: the first bad one is the last item.
///
/// More than `max_packets` is an error in place of the first packet too many.
pub fn decode(payload: Message, max_packets: usize) -> impl Iterator<Item = Result<Packet, PayloadError>> + use<> {
    let mut next = Some(payload);
    let mut packets = 0;
    std::iter::from_fn(move || {
        let payload = next.take()?;
        packets += 1;
        if packets > max_packets {
            return Some(Err(PayloadError::TooManyPackets));
        }
        let decoded = split(&payload).ok_or(PacketError).and_then(|(packet, rest)| {
            next = Some(rest).filter(|rest| !rest.is_empty());
            decode_packet(packet)
        });
        if decoded.is_err() {
            next = None;
        }
        Some(decoded.map_err(PayloadError::from))
    })
}

/// The first packet of a payload and what follows it; `None` when the length does not fit.
fn split(payload: &Message) -> Option<(Message, Message)> {
    match payload {
        Message::Text(payload) => {
            let (length, rest) = payload.split_once(':')?;
            let (packet, rest) = split_at_unit(rest, number(length.bytes().map(|digit| digit.wrapping_sub(b'0')))?)?;
            Some((Message::Text(payload.slice_ref(packet)), Message::Text(payload.slice_ref(rest))))
        }
        Message::Binary(payload) => {
            let (kind, rest) = payload.split_first()?;
            let end = rest.iter().take(MAX_DIGITS + 1).position(|byte| *byte == DELIMITER)?;
            let (length, rest) = rest.split_at_checked(end)?;
            let (packet, rest) = rest.get(1..)?.split_at_checked(number(length.iter().copied())?)?;
            let packet = payload.slice_ref(packet);
            let packet = match *kind {
                TEXT => Message::Text(ByteString::try_from(packet).ok()?),
                BINARY => Message::Binary(packet),
                _ => return None,
            };
            Some((packet, Message::Binary(payload.slice_ref(rest))))
        }
    }
}

fn number(digits: impl ExactSizeIterator<Item = u8>) -> Option<usize> {
    if !(1..=MAX_DIGITS).contains(&digits.len()) {
        return None;
    }
    let mut digits = digits;
    digits.try_fold(0_usize, |number, digit| if digit <= 9 { number.checked_mul(10)?.checked_add(digit.into()) } else { None })
}

/// Cuts a text behind so many UTF-16 code units, in which JavaScript counts; `None` when it is shorter, or would be cut within a character.
fn split_at_unit(text: &str, units: usize) -> Option<(&str, &str)> {
    if text.as_bytes().get(..units)?.is_ascii() {
        return text.split_at_checked(units);
    }
    let mut left = units;
    for (at, character) in text.char_indices() {
        if left == 0 {
            return text.split_at_checked(at);
        }
        left = left.checked_sub(character.len_utf16())?;
    }
    (left == 0).then_some((text, ""))
}

/// Whether the body of a GET's answer is binary: it is as soon as one of its packets is.
pub fn is_binary<'a>(packets: impl IntoIterator<Item = &'a Encoded>) -> bool {
    packets.into_iter().any(Encoded::is_binary)
}

/// The body of a GET's answer.
pub fn encode<'a>(packets: impl IntoIterator<Item = &'a Encoded> + Clone) -> Vec<u8> {
    let append = if is_binary(packets.clone()) { append_binary } else { append_text };
    let mut body = Vec::new();
    for packet in packets {
        append(packet, &mut body);
    }
    body
}

/// `6:4hello`
fn append_text(packet: &Encoded, out: &mut Vec<u8>) {
    let text = packet.payload();
    // Each character has one byte that continues none, and those of four bytes are two units.
    let units: usize = text.iter().map(|byte| usize::from(byte & 0xc0 != 0x80) + usize::from(*byte >= 0xf0)).sum();
    write!(out, "{units}:").expect("a Vec takes every byte");
    out.extend_from_slice(text);
}

fn append_binary(packet: &Encoded, out: &mut Vec<u8>) {
    let (kind, head) = if packet.is_binary() { (BINARY, &[MESSAGE][..]) } else { (TEXT, &[][..]) };
    let length = (head.len() + packet.payload().len()).to_string();
    out.push(kind);
    out.extend(length.bytes().map(|digit| digit - b'0'));
    out.push(DELIMITER);
    out.extend_from_slice(head);
    out.extend_from_slice(packet.payload());
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    /// What the reference's parser writes for the same packets.
    #[test]
    fn payloads_are_those_of_the_reference() {
        let hello = Message::from("hello");
        let bytes = Message::from(Bytes::from_static(&[1, 2, 3, 4]));
        for (messages, is_base64, payload) in [
            (vec![hello.clone()], false, b"6:4hello".to_vec()),
            (vec!["€".into(), "😀".into(), "".into()], false, "2:4€3:4😀1:4".as_bytes().to_vec()),
            (vec![hello.clone(), bytes.clone()], true, b"6:4hello10:b4AQIDBA==".to_vec()),
            (
                vec![hello, bytes, "é".into()],
                false,
                b"\x00\x06\xff4hello\x01\x05\xff\x04\x01\x02\x03\x04\x00\x03\xff4\xc3\xa9".to_vec(),
            ),
            (vec![Bytes::from(vec![7; 99]).into()], false, [&b"\x01\x01\x00\x00\xff\x04"[..], &[7; 99]].concat()),
        ] {
            let packets: Vec<_> = messages.iter().map(|message| Encoded::message(message).for_v3(is_base64)).collect();
            assert_eq!(encode(&packets), payload);
            let read: Vec<_> = decode(body(payload), 10).collect();
            assert_eq!(read, messages.into_iter().map(|message| Ok(Packet::Message(message))).collect::<Vec<_>>());
        }
    }

    #[test]
    fn packets_before_the_first_bad_one_are_read() {
        let packet = |text: &str| Ok(Packet::Message(text.into()));
        let bad = || Err(PayloadError::Packet(PacketError));
        for (payload, read) in [
            (&b""[..], vec![bad()]),
            (b"abc", vec![bad()]),
            (b"2:4a1:x2:4b", vec![packet("a"), bad()]),
            (b"2:4a3:4b", vec![packet("a"), bad()]),
            (b"2:4a2", vec![packet("a"), bad()]),
            (b":4a", vec![bad()]),
            (b"+2:4a", vec![bad()]),
            (b"0:", vec![bad()]),
            (b"99999999999999999999:4", vec![bad()]),
            ("2:4😀".as_bytes(), vec![bad()]),
            (b"\x00\x02\xff4a\x00\x02\xff4", vec![packet("a"), bad()]),
            (b"\x00\x02\xff4a\x02\x02\xff4b", vec![packet("a"), bad()]),
            (b"\x00\x02\xff4\xc3", vec![bad()]),
            (b"\x00\xff", vec![bad()]),
            (b"\x002\xff4a", vec![bad()]),
            (b"\x01\x01\xff\x02", vec![bad()]),
            (b"\x01\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\xff", vec![bad()]),
        ] {
            assert_eq!(decode(body(payload.to_vec()), 10).collect::<Vec<_>>(), read, "{payload:?}");
        }
    }

    #[test]
    fn a_payload_holds_at_most_so_many_packets() {
        for payload in [&b"1:41:41:4"[..], b"\x00\x01\xff4\x00\x01\xff4\x00\x01\xff4"] {
            let read: Vec<_> = decode(body(payload.to_vec()), 2).collect();
            assert_eq!(read.last(), Some(&Err(PayloadError::TooManyPackets)));
            assert_eq!(read.len(), 3);
        }
    }

    #[test]
    fn a_websocket_message_is_text_or_has_its_type_in_front() {
        assert_eq!(decode_packet("2probe".into()), Ok(Packet::Ping("probe".into())));
        assert_eq!(decode_packet("b4AQID".into()), Ok(Packet::Message(Bytes::from_static(&[1, 2, 3]).into())));
        assert_eq!(decode_packet(Bytes::from_static(&[4, 9]).into()), Ok(Packet::Message(Bytes::from_static(&[9]).into())));
        for bad in [Message::from(""), "b2AQID".into(), Bytes::new().into(), Bytes::from_static(&[2]).into()] {
            assert_eq!(decode_packet(bad), Err(PacketError));
        }
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            any::<String>().prop_map(|text| Message::from(text.as_str())),
            prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Message::Binary(Bytes::from(bytes))),
        ]
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(messages in prop::collection::vec(message(), 1..20), is_base64 in any::<bool>()) {
            let packets: Vec<_> = messages.iter().map(|message| Encoded::message(message).for_v3(is_base64)).collect();
            let decoded: Result<Vec<_>, _> = decode(body(encode(&packets)), 20).collect();
            prop_assert_eq!(decoded, Ok(messages.into_iter().map(Packet::Message).collect()));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(prop_oneof![0_u8..10, Just(0xff), b'0'..b':', Just(b'b'), any::<u8>()], 0..60)) {
            let text = Message::from(&*String::from_utf8_lossy(&bytes));
            for payload in [text, Bytes::from(bytes).into()] {
                prop_assert!(decode(payload, 100).count() <= 101);
            }
        }
    }

    /// A body of the content type that its first byte shows.
    fn body(bytes: Vec<u8>) -> Message {
        if bytes.first().is_some_and(|first| *first <= 1) {
            return Bytes::from(bytes).into();
        }
        Message::Text(ByteString::try_from(bytes).expect("text"))
    }
}
