//! Engine.IO's decoders against slower ones, and against their encoders.

use bytes::Bytes;
use bytestring::ByteString;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use stickyport::protocol::client::auth_of_query;
use stickyport::protocol::eio::handshake::{Query, Request, Route, verify};
use stickyport::protocol::eio::payload::{PayloadError, SEPARATOR, decode, encode};
use stickyport::protocol::eio::{Encoded, Message, Packet, PacketError, Version, v3};
use stickyport::protocol::session::TransportKind;
use stickyport::protocol::sid::{Boot, LENGTH, Miss, Node, Sid, owner};

const MAX_PACKETS: usize = 8;

/// One packet: a digit, and the rest as it stands; what begins with `b` is [`base64`]'s.
pub fn packet(data: &[u8]) {
    let text = lossy(data);
    if text.starts_with('b') {
        return;
    }
    let decoded = Packet::decode(text.clone());
    let data = text.get(1..).unwrap_or_default();
    assert_eq!(decoded.is_ok(), text.starts_with(|c| ('0'..='6').contains(&c)));
    match decoded {
        Ok(Packet::Open(rest) | Packet::Ping(rest) | Packet::Pong(rest)) => assert_eq!(rest, data),
        Ok(Packet::Message(message)) => {
            assert_eq!(message, Message::from(data));
            assert_eq!(Encoded::message(&message).payload(), text.as_bytes());
        }
        Ok(packet) => {
            let kinds = [(Packet::Close, '1'), (Packet::Upgrade, '5'), (Packet::Noop, '6')];
            assert!(kinds.iter().any(|(kind, digit)| packet == *kind && text.starts_with(*digit)), "{packet:?}");
        }
        Err(_) => {}
    }
}

/// A polling payload: its packets are those of its parts, up to the first that is none.
pub fn payload(data: &[u8]) {
    let text = lossy(data);
    let decoded: Vec<_> = decode(&text, MAX_PACKETS).collect();
    let mut parts = text.split(char::from(SEPARATOR));
    for (index, packet) in decoded.iter().enumerate() {
        let part = parts.next().expect("no more packets than parts");
        let expected = Packet::decode(part.into()).map_err(PayloadError::from);
        assert_eq!(*packet, if index == MAX_PACKETS { Err(PayloadError::TooManyPackets) } else { expected });
        assert!(packet.is_ok() || index + 1 == decoded.len(), "nothing is read behind an error");
    }
    assert!(parts.next().is_none() || decoded.last().is_some_and(Result::is_err), "a part was not read");

    let messages: Vec<_> = messages(decoded).collect();
    let encoded: Vec<_> = messages.iter().map(Encoded::message).collect();
    let body = ByteString::try_from(encode(&encoded)).expect("a payload is text");
    let again: Result<Vec<_>, _> = decode(&body, MAX_PACKETS).collect();
    // No packet at all is an empty text, which is not a packet.
    assert!(messages.is_empty() || again == Ok(messages.into_iter().map(Packet::Message).collect()));
}

/// A polling payload of protocol 3, binary if the first byte is odd.
pub fn payload_v3(data: &[u8]) {
    let (is_binary, data) = data.split_first().map_or((false, data), |(first, rest)| (first % 2 == 1, rest));
    let payload = if is_binary { Message::Binary(Bytes::copy_from_slice(data)) } else { Message::Text(lossy(data)) };
    let decoded: Vec<_> = v3::decode(payload.clone(), MAX_PACKETS).collect();
    let mut expected = Vec::new();
    match &payload {
        Message::Text(text) => split_text(text, &mut expected),
        Message::Binary(bytes) => split_binary(bytes, &mut expected),
    }
    let mut expected = expected.into_iter();
    for (index, packet) in decoded.iter().enumerate() {
        let part = expected.next().flatten().ok_or(PacketError).and_then(v3::decode_packet);
        let part = part.map_err(PayloadError::from);
        assert_eq!(*packet, if index == MAX_PACKETS { Err(PayloadError::TooManyPackets) } else { part });
        assert!(packet.is_ok() || index + 1 == decoded.len(), "nothing is read behind an error");
    }
    assert!(expected.next().is_none() || decoded.last().is_some_and(Result::is_err), "a part was not read");

    let messages: Vec<_> = messages(decoded).collect();
    for is_base64 in [false, true] {
        let encoded: Vec<_> = messages.iter().map(|message| Encoded::message(message).for_v3(is_base64)).collect();
        let body = Bytes::from(v3::encode(&encoded));
        assert!(!is_base64 || !v3::is_binary(&encoded));
        let body = if v3::is_binary(&encoded) {
            Message::Binary(body)
        } else {
            Message::Text(ByteString::try_from(body).expect("a payload without binary packets is text"))
        };
        let again: Result<Vec<_>, _> = v3::decode(body, MAX_PACKETS).collect();
        assert!(messages.is_empty() || again == Ok(messages.iter().cloned().map(Packet::Message).collect()));
    }
}

/// `<length in UTF-16 units>:<packet>`, over and over; the last item is `None` when that does not fit.
fn split_text(text: &str, parts: &mut Vec<Option<Message>>) {
    let mut rest: Vec<u16> = text.encode_utf16().collect();
    loop {
        let part = (|| {
            let colon = rest.iter().position(|unit| *unit == u16::from(b':'))?;
            let digits = String::from_utf16(&rest[..colon]).ok()?;
            let is_length = (1..=10).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
            let end = colon + 1 + digits.parse::<usize>().ok().filter(|_| is_length)?;
            let part = String::from_utf16(rest.get(colon + 1..end)?).ok()?;
            rest.drain(..end);
            Some(Message::from(part))
        })();
        let is_last = part.is_none() || rest.is_empty();
        parts.push(part);
        if is_last {
            return;
        }
    }
}

/// `<0 or 1><length in digits><255><packet>`, over and over; the last item is `None` when that does not fit.
fn split_binary(bytes: &[u8], parts: &mut Vec<Option<Message>>) {
    let mut rest = bytes;
    loop {
        let part = (|| {
            let end = rest.iter().position(|byte| *byte == 0xff).filter(|end| (2..=11).contains(end))?;
            let mut length = 0_usize;
            for digit in &rest[1..end] {
                length = length * 10 + usize::from(Some(*digit).filter(|digit| *digit < 10)?);
            }
            let part = rest.get(end + 1..end + 1 + length)?;
            let kind = rest[0];
            rest = &rest[end + 1 + length..];
            match kind {
                0 => String::from_utf8(part.to_vec()).ok().map(Message::from),
                1 => Some(Message::Binary(Bytes::copy_from_slice(part))),
                _ => None,
            }
        })();
        let is_last = part.is_none() || rest.is_empty();
        parts.push(part);
        if is_last {
            return;
        }
    }
}

fn messages(packets: Vec<Result<Packet, PayloadError>>) -> impl Iterator<Item = Message> {
    packets.into_iter().filter_map(|packet| if let Ok(Packet::Message(message)) = packet { Some(message) } else { None })
}

/// A query, as `URLSearchParams` reads it, and what the checks make of it.
pub fn query(data: &[u8]) {
    let text = lossy(data);
    let query = Query::parse(&text);
    let expected: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
    assert_eq!(query.clone().into_owned(), expected);
    for (key, _) in &expected {
        let first = expected.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        assert_eq!(query.get(key), first);
    }
    let last_of_each: BTreeMap<_, _> = expected.iter().cloned().collect();
    let auth: BTreeMap<String, String> = serde_json::from_str(&auth_of_query(&text)).expect("an object of texts");
    assert_eq!(auth, last_of_each);

    let mut sids = expected.iter().filter(|(key, _)| key == "sid").map(|(_, value)| value.as_str());
    let sid = sids.next().unwrap_or_default();
    let has_two = sids.any(|other| other != sid);
    for (is_get, is_upgrade) in [(true, false), (true, true), (false, false)] {
        let request = Request { query: &query, is_get, is_upgrade, has_bad_origin: false };
        let transport = if is_upgrade { TransportKind::WebSocket } else { TransportKind::Polling };
        let both = [TransportKind::Polling, TransportKind::WebSocket];
        let route = verify(request, &both, |asked| Some((asked.to_owned(), Version::V4, TransportKind::Polling)));
        let is_named = query.get("transport") == Some(transport.as_str());
        match route {
            Ok(Route::Session(found)) => assert!(is_named && !has_two && found == sid && query.get("EIO") == Some("4")),
            Ok(Route::Handshake(kind)) => assert!(is_named && !has_two && kind == transport && is_get && sid.is_empty()),
            Err(error) => assert!(error.code() < 4, "{error}"),
        }
    }
}

/// Base64, as Node's `Buffer.from` reads it: both alphabets, junk skipped, up to the first `=`.
pub fn base64(data: &[u8]) {
    let text = lossy(data);
    let decoded = Packet::decode(format!("b{text}").into());
    let mut expected = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes().take_while(|byte| *byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => continue,
        };
        (bits, count) = (bits << 6 | u32::from(value), count + 6);
        if count >= 8 {
            count -= 8;
            expected.push((bits >> count) as u8);
        }
    }
    assert_eq!(decoded, Ok(Packet::Message(Message::Binary(expected.into()))));

    let bytes = Message::Binary(Bytes::copy_from_slice(data));
    let mut encoded = Vec::new();
    Encoded::message(&bytes).append_polling(&mut encoded);
    let again = Packet::decode(ByteString::try_from(encoded).expect("base64 is text"));
    assert_eq!(again, Ok(Packet::Message(bytes)));
}

/// A sid: who owns it, and the same of one that we make.
pub fn sid(data: &[u8]) {
    let text = lossy(data);
    let (node, rest) = text.split_once('-').unwrap_or_default();
    let number = node.parse::<u32>().ok().filter(|number| number.to_string() == node && *number <= 99_999);
    let is_ours = text.len() == LENGTH && !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric());
    let expected = number.filter(|_| is_ours).and_then(|number| Node::try_from(number).ok());
    assert_eq!(owner(&text), expected);

    let mut entropy = [0; 16];
    entropy.iter_mut().zip(data).for_each(|(byte, from)| *byte = *from);
    let entropy = u128::from_le_bytes(entropy);
    let here = Node::try_from((entropy % 100_000) as u32).expect("five digits");
    let boot = Boot::at(SystemTime::UNIX_EPOCH + Duration::from_secs((entropy >> 64) as u64 >> 2));
    let made = Sid::generate(here, boot, entropy);
    assert_eq!(made.as_str().len(), LENGTH);
    assert_eq!(Miss::explain(made.as_str(), here), Miss::Gone);
    let explained = match expected {
        None => Miss::Garbage,
        Some(node) if node == here => Miss::Gone,
        Some(node) => Miss::Other(node),
    };
    assert_eq!(Miss::explain(&text, here), explained);
}

/// Text that a frame or a body may hold.
pub fn lossy(data: &[u8]) -> ByteString {
    String::from_utf8_lossy(data).into_owned().into()
}
