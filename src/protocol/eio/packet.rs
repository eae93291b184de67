//! One Engine.IO packet, as text and as binary.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Buf as _, Bytes};
use bytestring::ByteString;

/// What the application exchanges with its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A text message; may be empty.
    Text(ByteString),
    /// A binary message; may be empty.
    Binary(Bytes),
}

impl Message {
    /// Bytes of its content.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether it has no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

/// An Engine.IO packet: a digit, then data (protocol section "Packet encoding").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// `0`, from the server only.
    Open(ByteString),
    /// `1`
    Close,
    /// `2`, with data only as `2probe`.
    Ping(ByteString),
    /// `3`, with data only as `3probe`.
    Pong(ByteString),
    /// `4`, or a binary frame, or `b` and base64; in protocol 3 a `4` follows the `b` and begins the frame.
    Message(Message),
    /// `5`
    Upgrade,
    /// `6`
    Noop,
}

/// Text that is no packet; the session ends with "parse error".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Engine.IO packet")]
pub struct PacketError;

impl Packet {
    /// Decodes the text of a WebSocket frame, or one packet of a polling payload.
    ///
    /// Some clients write binary messages as base64 on WebSockets too.
    ///
    /// # Errors
    /// The text begins neither with a digit from 0 to 6 nor with `b`.
    pub fn decode(text: ByteString) -> Result<Self, PacketError> {
        match text.strip_prefix('b') {
            Some(base64) => Ok(Self::from_base64(base64)),
            None => Self::from_text(text),
        }
    }

    /// Decodes a packet that is a digit and text.
    pub(super) fn from_text(text: ByteString) -> Result<Self, PacketError> {
        let kind = *text.as_bytes().first().ok_or(PacketError)?;
        // Not sliced off, which would have the two share what they are in; to check the text once more costs less.
        let data = || {
            let mut data = text.into_bytes();
            data.advance(1);
            ByteString::try_from(data).expect("what follows a digit")
        };
        Ok(match kind {
            b'0' => Self::Open(data()),
            b'1' => Self::Close,
            b'2' => Self::Ping(data()),
            b'3' => Self::Pong(data()),
            b'4' => Self::Message(Message::Text(data())),
            b'5' => Self::Upgrade,
            b'6' => Self::Noop,
            _ => return Err(PacketError),
        })
    }

    /// The binary message that a text stands for.
    pub(super) fn from_base64(text: &str) -> Self {
        Self::Message(Message::Binary(decode_base64(text)))
    }
}

/// As the reference's `Buffer.from`: padding may be missing, both alphabets count, anything else is skipped, and the first `=` ends it.
fn decode_base64(text: &str) -> Bytes {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    if let Ok(bytes) = LENIENT.decode(text) {
        return bytes.into();
    }
    let mut clean: Vec<u8> = text
        .bytes()
        .take_while(|b| *b != b'=')
        .filter_map(|b| match b {
            b'-' => Some(b'+'),
            b'_' => Some(b'/'),
            b'+' | b'/' => Some(b),
            _ => b.is_ascii_alphanumeric().then_some(b),
        })
        .collect();
    if clean.len() % 4 == 1 {
        clean.pop();
    }
    LENIENT.decode(clean).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_the_reference_reads_it() {
        for (text, bytes) in [
            ("AQIDBA==", &[1, 2, 3, 4][..]),
            ("AQIDBA", &[1, 2, 3, 4]),
            ("!!!", &[]),
            ("A", &[]),
            ("AQ\nID", &[1, 2, 3]),
            ("-_-_", &[251, 255, 191]),
        ] {
            assert_eq!(decode_base64(text), bytes, "{text}");
        }
    }
}
