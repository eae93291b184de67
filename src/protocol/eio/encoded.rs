//! A packet encoded once for every transport: the WebSocket frame whole, the polling packet from behind its header.

use super::Message;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf, Bytes};

/// RFC 6455, section 5.2: a frame header of an unmasked frame has 2, 4 or 10 bytes.
const MAX_HEADER: usize = 10;

/// What protocol 3 has before a binary message, its type: a fragment of its own with the `4`, and the first byte of the frame that continues it
/// (RFC 6455, section 5.4). So the bytes behind that are shared with the clients of protocol 4.
const TYPED: &[u8] = &[0x02, 1, 4, 0x80];

/// An outgoing packet as shared bytes; cloning it copies nothing.
#[derive(Debug, Clone)]
pub struct Encoded {
    frame: Bytes,
    header: u8,
    binary: bool,
    compress: bool,
    is_typed: bool,
}

impl Encoded {
    /// A text packet whose characters, the packet's digit included, `write` appends.
    pub fn text(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut buffer = Vec::with_capacity(128);
        buffer.resize(MAX_HEADER, 0);
        write(&mut buffer);
        Self::framed(buffer, false)
    }

    /// A text packet that is ready as it stands, such as `2` or `3probe`.
    pub fn control(packet: &str) -> Self {
        Self::text(|out| out.extend_from_slice(packet.as_bytes()))
    }

    /// A binary message.
    pub fn binary(payload: &[u8]) -> Self {
        Self::binary_with(payload.len(), |out| out.extend_from_slice(payload))
    }

    /// A binary message of about so many bytes, which `write` appends.
    pub fn binary_with(capacity: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut buffer = Vec::with_capacity(MAX_HEADER + capacity);
        buffer.resize(MAX_HEADER, 0);
        write(&mut buffer);
        Self::framed(buffer, true)
    }

    /// A message of either kind.
    pub fn message(message: &Message) -> Self {
        match message {
            Message::Text(text) => Self::text(|out| {
                out.push(b'4');
                out.extend_from_slice(text.as_bytes());
            }),
            Message::Binary(bytes) => Self::binary(bytes),
        }
    }

    /// WebSocket frames that are ready as they stand, such as a pong; never for polling.
    pub fn frames(frames: &[u8]) -> Self {
        Self { frame: Bytes::copy_from_slice(frames), header: 0, binary: true, compress: true, is_typed: false }
    }

    fn framed(mut buffer: Vec<u8>, binary: bool) -> Self {
        let length = buffer.len() - MAX_HEADER;
        let opcode = 0x80 | if binary { 2 } else { 1 };
        // The header has the size that the length asks for and ends where the payload begins.
        let header = match length {
            0..=125 => {
                buffer[8..10].copy_from_slice(&[opcode, length as u8]);
                2
            }
            126..=0xffff => {
                buffer[6..8].copy_from_slice(&[opcode, 126]);
                buffer[8..10].copy_from_slice(&(length as u16).to_be_bytes());
                4
            }
            _ => {
                buffer[0..2].copy_from_slice(&[opcode, 127]);
                buffer[2..10].copy_from_slice(&(length as u64).to_be_bytes());
                10
            }
        };
        let mut frame = Bytes::from(buffer);
        frame.advance(MAX_HEADER - header);
        Self { frame, header: header as u8, binary, compress: true, is_typed: false }
    }

    /// Whether a polling answer that holds this packet may be compressed.
    #[must_use]
    pub fn compress(mut self, compress: bool) -> Self {
        self.compress = compress;
        self
    }

    /// What [`Encoded::compress`] set.
    pub fn is_compressible(&self) -> bool {
        self.compress
    }

    /// The packet for a client of protocol 3; one that takes no binary data is given base64 on either transport.
    #[must_use]
    pub fn for_v3(&self, is_base64: bool) -> Self {
        match self {
            // Frames that are ready as they stand have no header of ours.
            Self { binary: true, header: 1.., .. } if is_base64 => Self::text(|out| {
                out.extend_from_slice(b"b4");
                append_base64(self.payload(), out);
            })
            .compress(self.compress),
            Self { binary: true, header: 1.., .. } => Self { is_typed: true, ..self.clone() },
            _ => self.clone(),
        }
    }

    /// The whole WebSocket frame, in two pieces of which the first is mostly empty.
    pub fn websocket(&self) -> [&[u8]; 2] {
        if self.is_typed { [TYPED, self.frame.get(1..).unwrap_or_default()] } else { [&[], &self.frame] }
    }

    /// Appends the packet as a polling payload carries it, without a separator.
    pub fn append_polling(&self, out: &mut Vec<u8>) {
        if self.binary {
            out.push(b'b');
            append_base64(self.payload(), out);
        } else {
            out.extend_from_slice(self.payload());
        }
    }

    /// The packet without its frame header; for a text packet it begins with its digit.
    pub fn payload(&self) -> &[u8] {
        &self.frame[usize::from(self.header)..]
    }

    /// Whether it is a binary message.
    pub fn is_binary(&self) -> bool {
        self.binary
    }

    /// Bytes of the whole frame.
    pub fn len(&self) -> usize {
        let [head, frame] = self.websocket();
        head.len() + frame.len()
    }

    /// Bytes that it takes while it waits: of a small packet most is its place in line.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.len()
    }

    /// Never: even an empty packet has a frame header.
    pub fn is_empty(&self) -> bool {
        false
    }
}

fn append_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    BASE64_STANDARD.encode_slice(bytes, &mut out[start..]).expect("the space was just made");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_buffer_serves_both_transports() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let payload = vec![0x61; length];
            let binary = Encoded::binary(&payload);
            assert_eq!(binary.payload(), payload);
            assert_eq!(binary.frame[0], 0x82);
            let [typed, rest] = binary.for_v3(false).websocket().map(<[u8]>::to_vec);
            assert_eq!((&typed[..], &rest[..]), (&[0x02, 1, 4, 0x80][..], &binary.frame[1..]));
            let text = Encoded::text(|out| out.extend_from_slice(&payload));
            assert_eq!(text.frame[0], 0x81);
            let mut polling = Vec::new();
            text.append_polling(&mut polling);
            assert_eq!(polling, payload);
            let (announced, header) = match text.frame[1] {
                126 => (usize::from(u16::from_be_bytes([text.frame[2], text.frame[3]])), 4),
                127 => (u64::from_be_bytes(text.frame[2..10].try_into().expect("8 bytes")) as usize, 10),
                short => (usize::from(short), 2),
            };
            assert_eq!((announced, text.len()), (length, header + length));
        }
    }

    #[test]
    fn a_binary_message_is_base64_in_a_payload() {
        let mut polling = Vec::new();
        Encoded::binary(&[1, 2, 3, 4]).append_polling(&mut polling);
        assert_eq!(polling, b"bAQIDBA==");
    }
}
