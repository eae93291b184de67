//! Puts packets together from the messages of one client, and believes nothing that they say.

use super::json::{placeholders_fit, unescape};
use super::{AckId, Args, Body, Packet};
use bytes::Bytes;
use bytestring::ByteString;
use serde::de::{Deserialize, Deserializer as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// Puts packets together from the messages of one client.
///
/// After an error nothing that it says means anything: the session ends.
#[derive(Debug)]
pub struct Decoder {
    max_attachments: usize,
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    namespace: ByteString,
    body: Body,
    missing: usize,
}

/// Why a message fits no packet, in the reference's words; the session ends with "forced close".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The first character is none from 0 to 6.
    #[error("unknown packet type {0}")]
    UnknownType(&'static str),
    /// The payload is not JSON, or not what its type of packet may carry.
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
}

impl Decoder {
    /// A decoder that takes at most so many attachments with a packet.
    pub const fn new(max_attachments: usize) -> Self {
        Self { max_attachments, partial: None }
    }

    /// Takes a text message; `None` says that attachments are due.
    ///
    /// # Errors
    /// The message is no packet.
    pub fn text(&mut self, text: ByteString) -> Result<Option<Packet>, DecodeError> {
        if self.partial.is_some() {
            return Err(DecodeError::UnexpectedText);
        }
        let (namespace, body, missing) = decode(&text, self.max_attachments)?;
        if missing == 0 {
            return Ok(Some(Packet { namespace, body }));
        }
        self.partial = Some(Partial { namespace, body, missing });
        Ok(None)
    }

    /// Takes a binary message; `None` says that more attachments are due.
    ///
    /// # Errors
    /// No attachment was due.
    pub fn binary(&mut self, bytes: Bytes) -> Result<Option<Packet>, DecodeError> {
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
}

/// `<type>[<attachments>-][<namespace>,][<ack id>][<JSON>]`
fn decode(text: &ByteString, max_attachments: usize) -> Result<(ByteString, Body, usize), DecodeError> {
    let kind = kind(text)?;
    let rest = text.get(1..).unwrap_or_default();
    let (attachments, rest) = match kind {
        b'5' | b'6' => attachments(rest, max_attachments)?,
        _ => (0, rest),
    };
    let (namespace, rest) = namespace(rest);
    let (id, json) = id(rest);
    let body = match kind {
        b'0' => Body::Connect { auth: optional(text, json, |first| first == b'{')? },
        b'1' if json.is_empty() => Body::Disconnect,
        b'2' | b'5' => {
            let (name, args) = event(text, json)?;
            Body::Event { name, args, ack: id.map(|digits| ack_id(text, digits)) }
        }
        b'3' | b'6' => Body::Ack { id: id.and_then(|id| id.parse().ok()), args: acknowledgement(text, json)? },
        b'4' => Body::ConnectError { data: optional(text, json, |first| matches!(first, b'{' | b'"'))? },
        _ => return Err(DecodeError::InvalidPayload),
    };
    if attachments > 0 && !placeholders_fit(json, attachments) {
        return Err(DecodeError::IllegalPlaceholder);
    }
    Ok((namespace.map_or(ByteString::from_static("/"), |name| text.slice_ref(name)), body, attachments))
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

/// An array that begins with the event's name.
fn event(text: &ByteString, json: &str) -> Result<(ByteString, Args), DecodeError> {
    let (first, len) = array::<&RawValue>(json).map_err(|_| DecodeError::InvalidPayload)?;
    let first = first.ok_or(DecodeError::InvalidPayload)?.get();
    let name = event_name(text, first).filter(|name| !is_reserved(name)).ok_or(DecodeError::InvalidPayload)?;
    let list = trim_brackets(json).trim_ascii_start();
    let tail = list.strip_prefix(first).unwrap_or_default().trim_ascii_start();
    let tail = tail.strip_prefix(',').unwrap_or(tail).trim_ascii_start();
    Ok((name, Args::validated(text.slice_ref(tail), len - 1)))
}

/// An array, or nothing: the reference calls its listener without arguments then.
fn acknowledgement(text: &ByteString, json: &str) -> Result<Args, DecodeError> {
    if json.is_empty() {
        return Ok(Args::none());
    }
    let len = validate_array(json).map_err(|_| DecodeError::InvalidPayload)?;
    Ok(Args::validated(text.slice_ref(trim_brackets(json)), len))
}

/// The text of a string or a number.
fn event_name(text: &ByteString, json: &str) -> Option<ByteString> {
    if json.starts_with('"') {
        return Some(match unescape(json) {
            Cow::Borrowed(name) => text.slice_ref(name),
            Cow::Owned(name) => name.into(),
        });
    }
    let number = json.parse::<f64>().ok()?;
    let exact = json.len() <= 15 && json.bytes().all(|b| b.is_ascii_digit());
    Some(if exact { text.slice_ref(json) } else { (number + 0.0).to_string().into() })
}

/// Names that the reference's sockets use for themselves.
fn is_reserved(name: &str) -> bool {
    matches!(name, "connect" | "connect_error" | "disconnect" | "disconnecting" | "newListener" | "removeListener")
}

/// How many elements a JSON array has.
pub(super) fn validate_array(json: &str) -> Result<usize, serde_json::Error> {
    array::<IgnoredAny>(json).map(|(_, len)| len)
}

/// A JSON array without its brackets.
pub(super) fn without_brackets(json: &ByteString) -> ByteString {
    json.slice_ref(trim_brackets(json))
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
