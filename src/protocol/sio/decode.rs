//! Puts packets together from the messages of one client, and believes nothing that they say.

use super::json::{placeholders_fit, unescape};
use super::{AckId, Args, Body, Packet, Parser, msgpack};
use crate::protocol::eio::Message;
use bytes::Bytes;
use bytestring::ByteString;
use serde::de::{Deserialize, Deserializer as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smol_str::SmolStr;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

/// Puts packets together from the messages of one client.
///
/// After an error nothing that it says means anything: the session ends.
#[derive(Debug)]
pub struct Decoder {
    parser: Parser,
    max_attachments: usize,
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    namespace: ByteString,
    body: Body,
    missing: usize,
}

/// Why a message fits no packet, in the words of the reference's parsers; the session ends with "forced close".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The first character is none from 0 to 6.
    #[error("unknown packet type {0}")]
    UnknownType(&'static str),
    /// The payload is not of the parser's form, or not what its type of packet may carry.
    #[error("invalid payload")]
    InvalidPayload,
    /// A binary packet without a number of attachments, or with 0.
    #[error("Illegal attachments")]
    IllegalAttachmentCount,
    /// More attachments than are allowed.
    #[error("too many attachments")]
    TooManyAttachments,
    /// A placeholder names an attachment that will not come.
    #[error("illegal attachments")]
    IllegalPlaceholder,
    /// A text message where an attachment is due.
    #[error("got plaintext data when reconstructing a packet")]
    UnexpectedText,
    /// A binary message where none is due.
    #[error("got binary data when not reconstructing a packet")]
    UnexpectedBinary,
    /// A message is not one msgpack value.
    #[error("Could not parse")]
    Malformed,
    /// A msgpack packet whose type is no integer from 0 to 4.
    #[error("invalid packet type")]
    InvalidType,
    /// A msgpack packet whose namespace is no string.
    #[error("invalid namespace")]
    InvalidNamespace,
    /// A msgpack packet whose acknowledgement id is no integer.
    #[error("invalid packet id")]
    InvalidId,
}

impl Decoder {
    /// A decoder that takes at most so many attachments with a packet.
    pub const fn new(parser: Parser, max_attachments: usize) -> Self {
        Self { parser, max_attachments, partial: None }
    }

    /// Whether a packet waits for its attachments.
    pub const fn is_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// Drops what has come of a packet: nobody waits for the rest.
    pub fn forget(&mut self) {
        self.partial = None;
    }

    /// Takes a text message; `None` says that attachments are due.
    ///
    /// # Errors
    /// The message is no packet.
    pub fn text(&mut self, text: ByteString) -> Result<Option<Packet>, DecodeError> {
        if self.parser == Parser::MsgPack {
            return Err(DecodeError::Malformed);
        }
        if self.partial.is_some() {
            return Err(DecodeError::UnexpectedText);
        }
        let (namespace, body, missing) = decode(text, self.max_attachments)?;
        if missing == 0 {
            return Ok(Some(Packet { namespace, body }));
        }
        self.partial = Some(Partial { namespace, body, missing });
        Ok(None)
    }

    /// Takes a binary message; `None` says that more attachments are due.
    ///
    /// # Errors
    /// No attachment was due, or the message is no packet.
    pub fn binary(&mut self, bytes: Bytes) -> Result<Option<Packet>, DecodeError> {
        if self.parser == Parser::MsgPack {
            return msgpack::decode(&bytes, self.max_attachments).map(Some);
        }
        let Some(mut partial) = self.partial.take() else {
            return Err(DecodeError::UnexpectedBinary);
        };
        if let Body::Event { args, .. } | Body::Ack { args, .. } = &mut partial.body {
            args.attach(bytes);
        }
        partial.missing -= 1;
        if partial.missing == 0 {
            return Ok(Some(Packet { namespace: partial.namespace, body: partial.body }));
        }
        self.partial = Some(partial);
        Ok(None)
    }

    /// Whether a message that this decoder does not take is CONNECT as the other parser writes it.
    pub fn is_foreign_connect(&self, message: &Message) -> bool {
        let body = match (self.parser, message) {
            (Parser::Json, Message::Binary(bytes)) => msgpack::decode(bytes, self.max_attachments).map(|packet| packet.body),
            (Parser::MsgPack, Message::Text(text)) => decode(text.clone(), self.max_attachments).map(|(_, body, _)| body),
            _ => return false,
        };
        matches!(body, Ok(Body::Connect { .. }))
    }
}

/// `<type>[<attachments>-][<namespace>,][<ack id>][<JSON>]`
fn decode(text: ByteString, max_attachments: usize) -> Result<(ByteString, Body, usize), DecodeError> {
    let kind = kind(&text)?;
    let rest = text.get(1..).unwrap_or_default();
    let (attachments, rest) = match kind {
        b'5' | b'6' => attachments(rest, max_attachments)?,
        _ => (0, rest),
    };
    let (namespace, rest) = namespace(rest);
    let (id, json) = id(rest);
    if attachments > 0 && !placeholders_fit(json, attachments) {
        return Err(DecodeError::IllegalPlaceholder);
    }
    let namespace = namespace.map_or(ByteString::from_static("/"), |name| text.slice_ref(name));
    let body = match kind {
        b'0' => Body::Connect { auth: optional(&text, json, |first| first == b'{')? },
        b'1' if json.is_empty() => Body::Disconnect,
        b'2' | b'5' => {
            let ack = id.map(|digits| ack_id(&text, digits));
            let json = part(&text, json);
            let (name, args) = json_name_and_arguments(text, json)?;
            Body::Event { name, args, ack }
        }
        b'3' | b'6' => {
            let id = id.and_then(|id| id.parse().ok());
            let json = part(&text, json);
            Body::Ack { id, args: acknowledgement(text, json)? }
        }
        b'4' => Body::ConnectError { data: optional(&text, json, |first| matches!(first, b'{' | b'"'))? },
        _ => return Err(DecodeError::InvalidPayload),
    };
    Ok((namespace, body, attachments))
}

/// Where a part of a text is in it.
pub(crate) fn part(text: &str, part: &str) -> Range<usize> {
    // An empty text may be one that stands for nothing, and not from here.
    let start = if part.is_empty() { Some(0) } else { part.as_ptr().addr().checked_sub(text.as_ptr().addr()) };
    let start = start.filter(|start| start + part.len() <= text.len()).expect("a part of the text");
    start..start + part.len()
}

fn kind(text: &str) -> Result<u8, DecodeError> {
    match text.as_bytes().first() {
        Some(kind @ b'0'..=b'6') => Ok(*kind),
        Some(b'7') => Err(DecodeError::UnknownType("7")),
        Some(b'8') => Err(DecodeError::UnknownType("8")),
        Some(b'9') => Err(DecodeError::UnknownType("9")),
        _ => Err(DecodeError::UnknownType("NaN")),
    }
}

fn attachments(text: &str, max: usize) -> Result<(usize, &str), DecodeError> {
    let (count, rest) = text.split_once('-').ok_or(DecodeError::IllegalAttachmentCount)?;
    if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DecodeError::IllegalAttachmentCount);
    }
    match count.parse() {
        Ok(0) => Err(DecodeError::IllegalAttachmentCount),
        Ok(count) if count <= max => Ok((count, rest)),
        _ => Err(DecodeError::TooManyAttachments),
    }
}

fn namespace(text: &str) -> (Option<&str>, &str) {
    if !text.starts_with('/') {
        return (None, text);
    }
    let (name, rest) = text.split_once(',').unwrap_or((text, ""));
    (Some(name), rest)
}

/// The acknowledgement id before the payload; white space in its place is the number 0, as in JavaScript.
fn id(text: &str) -> (Option<&str>, &str) {
    let trimmed = text.trim_ascii_start();
    let end = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (digits, json) = trimmed.split_at_checked(end).unwrap_or((trimmed, ""));
    let present = !digits.is_empty() || trimmed.len() < text.len();
    (present.then_some(digits), json.trim_ascii_start())
}

fn optional(text: &ByteString, json: &str, fits: impl Fn(u8) -> bool) -> Result<Option<ByteString>, DecodeError> {
    if json.is_empty() {
        return Ok(None);
    }
    let value = serde_json::from_str::<&RawValue>(json).map_err(|_| DecodeError::InvalidPayload)?.get();
    match value.as_bytes().first() {
        Some(first) if fits(*first) => Ok(Some(text.slice_ref(value))),
        _ => Err(DecodeError::InvalidPayload),
    }
}

fn ack_id(text: &ByteString, digits: &str) -> AckId {
    AckId(if digits.is_empty() { ByteString::from_static("0") } else { text.slice_ref(digits) })
}

/// An array that begins with the event's name, at `json` in `text`.
pub(crate) fn json_name_and_arguments(text: ByteString, json: Range<usize>) -> Result<(SmolStr, Args), DecodeError> {
    let json = text.get(json).expect("a part of the text");
    let (first, len) = array::<&RawValue>(json).map_err(|_| DecodeError::InvalidPayload)?;
    let first = first.ok_or(DecodeError::InvalidPayload)?.get();
    let name = event_name(first).filter(|name| !is_reserved(name)).ok_or(DecodeError::InvalidPayload)?;
    let tail = trim_brackets(json).strip_prefix(first).unwrap_or_default().trim_ascii_start();
    let tail = part(&text, tail.strip_prefix(',').unwrap_or(tail).trim_ascii_start());
    Ok((name, Args::validated(text, tail, len - 1)))
}

/// An array, or nothing: the reference calls its listener without arguments then.
fn acknowledgement(text: ByteString, json: Range<usize>) -> Result<Args, DecodeError> {
    if json.is_empty() {
        return Ok(Args::none());
    }
    let json = text.get(json).expect("a part of the text");
    let len = validate_array(json).map_err(|_| DecodeError::InvalidPayload)?;
    let tail = part(&text, trim_brackets(json));
    Ok(Args::validated(text, tail, len))
}

/// The text of a string or a number.
fn event_name(json: &str) -> Option<SmolStr> {
    if json.starts_with('"') {
        return Some(unescape(json).into());
    }
    let number = json.parse::<f64>().ok()?;
    let exact = json.len() <= 15 && json.bytes().all(|b| b.is_ascii_digit());
    Some(if exact { json.into() } else { (number + 0.0).to_string().into() })
}

/// Names that the reference's sockets use for themselves.
pub(super) fn is_reserved(name: &str) -> bool {
    matches!(name, "connect" | "connect_error" | "disconnect" | "disconnecting" | "newListener" | "removeListener")
}

/// How many elements a JSON array has.
pub(super) fn validate_array(json: &str) -> Result<usize, serde_json::Error> {
    array::<IgnoredAny>(json).map(|(_, len)| len)
}

/// Where the elements of a JSON array are.
pub(super) fn without_brackets(json: &str) -> Range<usize> {
    part(json, trim_brackets(json))
}

fn trim_brackets(json: &str) -> &str {
    let list = json.trim_ascii();
    list.strip_prefix('[').and_then(|list| list.strip_suffix(']')).unwrap_or_default().trim_ascii()
}

/// Validates a JSON array to its end, at any depth without recursion; its first element, and how many there are.
fn array<'de, T: Deserialize<'de>>(json: &'de str) -> Result<(Option<T>, usize), serde_json::Error> {
    struct Array<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Array<T> {
        type Value = (Option<T>, usize);

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let first = seq.next_element()?;
            let mut len = usize::from(first.is_some());
            while seq.next_element::<IgnoredAny>()?.is_some() {
                len += 1;
            }
            Ok((first, len))
        }
    }

    let mut deserializer = serde_json::Deserializer::from_str(json);
    let array = deserializer.deserialize_seq(Array(PhantomData))?;
    deserializer.end()?;
    Ok(array)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::sio::encode;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn an_event_has_a_name_arguments_and_an_id() {
        let packet = one("2/admin,12 [ \"a\" , 1 , {} ] ").expect("a packet");
        assert_eq!(packet.namespace, "/admin");
        let Body::Event { name, args, ack } = packet.body else { panic!("an event") };
        assert_eq!((&*name, args.json().as_str(), args.len()), ("a", "[1 , {}]", 2));
        assert_eq!(ack.map(|id| id.to_string()).as_deref(), Some("12"));
        let Ok(Packet { body: Body::Event { args, ack: None, .. }, .. }) = one("2[\"a\"]") else { panic!("an event") };
        assert_eq!(args, Args::none());
    }

    #[test]
    fn white_space_in_the_place_of_an_id_is_the_number_0() {
        for (text, digits) in [("2 [\"a\"]", "0"), ("2 5 [\"a\"]", "5"), ("2/é,\t[\"a\"]", "0")] {
            let packet = one(text).expect("a packet");
            let Body::Event { ack: Some(id), .. } = packet.body else { panic!("an event with an id: {text:?}") };
            assert_eq!(id.as_str(), digits, "{text:?}");
        }
        assert_eq!(one("21 2[\"a\"]"), Err(DecodeError::InvalidPayload));
    }

    #[test]
    fn a_name_is_a_string_or_a_number() {
        for (json, name) in [
            (r#""""#, ""),
            (r#""\u0061\n\"""#, "a\n\""),
            (r#""\ud83d\ude00""#, "😀"),
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""é€😀""#, "é€😀"),
            ("12", "12"),
            ("-12", "-12"),
            ("-0", "0"),
            ("1.0", "1"),
            ("1.50", "1.5"),
            ("12345678901234567", "12345678901234568"),
        ] {
            match one(&format!("2[{json},1]")) {
                Ok(Packet { body: Body::Event { name: decoded, args, .. }, .. }) => {
                    assert_eq!((&*decoded, args.json().as_str()), (name, "[1]"), "{json}");
                }
                other => panic!("{json}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_reserved_name_is_refused_however_it_is_written() {
        for name in ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"] {
            assert_eq!(one(&format!("2[\"{name}\"]")), Err(DecodeError::InvalidPayload), "{name}");
        }
        assert_eq!(one(r#"2["\u0063onnect"]"#), Err(DecodeError::InvalidPayload));
        assert!(one(r#"2["error"]"#).is_ok());
    }

    #[test]
    fn an_acknowledgement_may_come_without_payload_or_id() {
        for (text, id, len) in [("312[1,2]", Some(12), 2), ("312", Some(12), 0), ("3[]", None, 0), ("3007[1]", Some(7), 1)] {
            match one(text) {
                Ok(Packet { body: Body::Ack { id: decoded, args }, .. }) => {
                    assert_eq!((decoded, args.len()), (id, len), "{text}")
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        assert_eq!(one("3"), Ok(Packet { namespace: "/".into(), body: Body::Ack { id: None, args: Args::none() } }));
        let beyond = one("399999999999999999999[]");
        assert!(matches!(beyond, Ok(Packet { body: Body::Ack { id: None, .. }, .. })), "{beyond:?}");
    }

    #[test]
    fn credentials_are_an_object_and_stay_json() {
        let connect =
            |auth: Option<&str>| Ok(Packet { namespace: "/é".into(), body: Body::Connect { auth: auth.map(Into::into) } });
        assert_eq!(one("0/é"), connect(None));
        assert_eq!(one("0/é,"), connect(None));
        assert_eq!(one("0/é,5 {\"a\":\"\\ud800\"} "), connect(Some("{\"a\":\"\\ud800\"}")));
        for text in ["0null", "0[]", "0\"a\"", "0{}x", "0{", "0{\"a\"}", "0/é,x"] {
            assert_eq!(one(text), Err(DecodeError::InvalidPayload), "{text}");
        }
    }

    #[test]
    fn attachments_come_in_order_and_nothing_comes_between() {
        let mut decoder = Decoder::new(Parser::Json, 2);
        let text = r#"52-/a,7["x",{"_placeholder":true,"num":1},[{"_placeholder":true,"num":0}]]"#;
        assert_eq!(decoder.text(text.into()), Ok(None));
        assert_eq!(decoder.binary(Bytes::from_static(b"0")), Ok(None));
        let packet = decoder.binary(Bytes::from_static(b"1")).expect("due").expect("complete");
        let Body::Event { args, .. } = packet.body else { panic!("an event") };
        assert_eq!(args.all::<(Bytes, [Bytes; 1])>().expect("bytes"), ("1".into(), ["0".into()]));

        assert_eq!(decoder.binary(Bytes::new()), Err(DecodeError::UnexpectedBinary));
        assert_eq!(decoder.text(text.into()), Ok(None));
        assert_eq!(decoder.text("2[\"a\"]".into()), Err(DecodeError::UnexpectedText));
    }

    #[test]
    fn an_announcement_of_attachments_is_believed_only_within_bounds() {
        for (text, error) in [
            ("5", DecodeError::IllegalAttachmentCount),
            ("5-[\"a\"]", DecodeError::IllegalAttachmentCount),
            ("50-[\"a\"]", DecodeError::IllegalAttachmentCount),
            ("500-[\"a\"]", DecodeError::IllegalAttachmentCount),
            ("5+1-[\"a\"]", DecodeError::IllegalAttachmentCount),
            ("5１-[\"a\"]", DecodeError::IllegalAttachmentCount),
            ("511-[\"a\"]", DecodeError::TooManyAttachments),
            ("599999999999999999999999-[\"a\"]", DecodeError::TooManyAttachments),
            (r#"51-["a",{"_placeholder":true,"num":1}]"#, DecodeError::IllegalPlaceholder),
            (r#"61-1[{"_placeholder":true}]"#, DecodeError::IllegalPlaceholder),
        ] {
            assert_eq!(one(text), Err(error), "{text}");
        }
        // Fewer placeholders than attachments are fine, and without attachments a placeholder is an object like any other.
        assert_eq!(Decoder::new(Parser::Json, 10).text("510-[\"a\"]".into()), Ok(None));
        assert!(one(r#"2["a",{"_placeholder":true,"num":1}]"#).is_ok());
    }

    #[test]
    fn a_million_brackets_are_one_more_array() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        for text in [format!("2[\"a\",{deep}]"), format!("3{deep}"), format!("51-[\"a\",{deep}]")] {
            assert!(Decoder::new(Parser::Json, 1).text(text.into()).is_ok());
        }
        for text in [
            format!("2{}", "[".repeat(1_000_000)),
            format!("2[\"a\",{}", "[{\"a\":".repeat(1_000_000)),
            format!("0{{\"a\":{deep}"),
        ] {
            assert_eq!(one(&text), Err(DecodeError::InvalidPayload));
        }
        let Ok(Packet { body: Body::Event { args, .. }, .. }) = one(&format!("2[\"a\",{deep}]")) else { panic!("an event") };
        assert_eq!(args.raw()[0].get().len(), deep.len());
        assert!(args.first::<Value>().is_err(), "a typed read has a limit of its own");
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(namespace in namespace(), name in name(), args in args(), ack: Option<u64>) {
            let event = Packet {
                namespace: namespace.clone().into(),
                body: Body::Event { name: name.clone().into(), args: args.clone(), ack: ack.map(AckId::from) },
            };
            prop_assert_eq!(relay(&encode::event(&namespace, ack, &name, &args)), Ok(event));
            let id = ack.unwrap_or(0);
            let answer = Packet { namespace: namespace.clone().into(), body: Body::Ack { id: Some(id), args: args.clone() } };
            prop_assert_eq!(relay(&encode::ack(&namespace, &id.into(), &args)), Ok(answer));
        }

        #[test]
        fn no_text_panics(text in prop_oneof![any::<String>(), almost_a_packet()]) {
            use_up(&text);
        }

        #[test]
        fn no_damage_to_a_packet_panics(
            args in args(),
            name in name(),
            at: prop::sample::Index,
            cut in 0..4usize,
            insert in prop::sample::select(vec!["", "é", "😀", "\\", "\"", "\\ud800", "-", "["]),
        ) {
            let packets = encode::event("/ü", Some(1), &name, &args);
            let text = std::str::from_utf8(packets[0].payload()).expect("text").strip_prefix('4').expect("a message");
            let mut characters: Vec<char> = text.chars().collect();
            let at = at.index(characters.len());
            characters.splice(at..(at + cut).min(text.chars().count()), insert.chars());
            use_up(&characters.into_iter().collect::<String>());
        }
    }

    /// Decodes a packet that has no attachments.
    fn one(text: &str) -> Result<Packet, DecodeError> {
        Decoder::new(Parser::Json, 10).text(text.into()).map(|packet| packet.expect("no attachments are due"))
    }

    fn relay(packets: &[crate::protocol::eio::Encoded]) -> Result<Packet, DecodeError> {
        let mut decoder = Decoder::new(Parser::Json, 100);
        for packet in packets {
            let decoded = if packet.is_binary() {
                decoder.binary(Bytes::copy_from_slice(packet.payload()))
            } else {
                let text = std::str::from_utf8(packet.payload()).expect("text");
                decoder.text(text.strip_prefix('4').expect("a message").into())
            };
            if let Some(packet) = decoded? {
                return Ok(packet);
            }
        }
        panic!("incomplete");
    }

    /// Decodes, and reads whatever comes of it in every way.
    fn use_up(text: &str) {
        let mut decoder = Decoder::new(Parser::Json, 100);
        let mut decoded = decoder.text(text.into());
        while let Ok(None) = decoded {
            decoded = decoder.binary(Bytes::from_static(b"x"));
        }
        if let Ok(Some(Packet { body: Body::Event { args, .. } | Body::Ack { args, .. }, .. })) = decoded {
            assert_eq!(args.raw().len(), args.len());
            assert!(serde_json::from_str::<Vec<IgnoredAny>>(&args.json()).is_ok());
            let _ = (args.first::<Value>(), args.get::<Bytes>(1), args.all::<Vec<Value>>(), args.all::<(Bytes, Value)>());
        }
    }

    fn almost_a_packet() -> impl Strategy<Value = String> {
        r#"[0-7][0-9]{0,2}-?(/[a-zé😀?]{0,4},?)?[0-9 é]{0,3}[\[\]{}",:a-z0-9\\_é€😀 ]{0,40}"#
    }

    fn namespace() -> impl Strategy<Value = String> {
        prop_oneof![Just("/".to_owned()), "/[^,]{1,8}"]
    }

    fn name() -> impl Strategy<Value = String> {
        any::<String>().prop_filter("reserved", |name| !is_reserved(name))
    }

    fn args() -> impl Strategy<Value = Args> {
        (any::<(String, Option<f64>)>(), prop::collection::vec(any::<Vec<u8>>(), 0..4)).prop_flat_map(|(plain, bytes)| {
            let bytes: Vec<Bytes> = bytes.into_iter().map(Bytes::from).collect();
            prop_oneof![
                Just(Args::none()),
                Just(Args::new(&plain.0).expect("JSON")),
                Just(Args::new(&(plain, bytes)).expect("JSON")),
            ]
        })
    }
}
