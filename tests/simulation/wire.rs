//! Packets, payloads and frames as a client writes and reads them, on its own account: nothing here is the server's code.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use stickyport::protocol::eio::Version;

/// An Engine.IO packet; a text begins with the packet's digit, bytes are a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    Text(String),
    Binary(Vec<u8>),
}

/// The body of a polling request or of its answer.
#[derive(Debug)]
pub enum Body {
    Text(String),
    /// Only of protocol 3.
    Binary(Vec<u8>),
}

impl Body {
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

impl Packet {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// As a WebSocket frame of a client (RFC 6455, section 5.3).
    pub fn frame(&self, version: Version) -> Vec<u8> {
        match (self, version) {
            (Self::Text(text), _) => frame(0x81, text.as_bytes()),
            (Self::Binary(bytes), Version::V4) => frame(0x82, bytes),
            (Self::Binary(bytes), Version::V3) => frame(0x82, &[&[4], &bytes[..]].concat()),
        }
    }

    /// The same when it came in a frame.
    pub fn of_frame(self, version: Version) -> Self {
        match self {
            Self::Binary(bytes) if version == Version::V3 => Self::Binary(message(&bytes)),
            packet => packet,
        }
    }

    fn append(&self, version: Version, as_binary: bool, body: &mut Vec<u8>) {
        match (version, self) {
            (Version::V4, Self::Text(text)) => {
                let separator = if body.is_empty() { "" } else { "\x1e" };
                body.extend([separator, text].concat().bytes());
            }
            (Version::V4, Self::Binary(bytes)) => {
                Self::Text(format!("b{}", BASE64_STANDARD.encode(bytes))).append(version, false, body)
            }
            (Version::V3, Self::Text(text)) if as_binary => append_v3(0, text.as_bytes(), body),
            (Version::V3, Self::Binary(bytes)) if as_binary => append_v3(1, &[&[4], &bytes[..]].concat(), body),
            (Version::V3, Self::Text(text)) => body.extend(format!("{}:{text}", text.encode_utf16().count()).bytes()),
            (Version::V3, Self::Binary(bytes)) => {
                Self::Text(format!("b4{}", BASE64_STANDARD.encode(bytes))).append(version, false, body);
            }
        }
    }
}

/// The first packets of `waiting` that fit into `limit` bytes, at least one, as a body; and how many they are.
pub fn payload<'a>(waiting: impl Iterator<Item = &'a Packet>, limit: usize, version: Version, as_binary: bool) -> (Body, usize) {
    let mut body = Vec::new();
    let mut count = 0;
    for packet in waiting {
        let before = body.len();
        packet.append(version, as_binary, &mut body);
        if count > 0 && body.len() > limit {
            body.truncate(before);
            break;
        }
        count += 1;
    }
    let is_binary = version == Version::V3 && as_binary;
    (if is_binary { Body::Binary(body) } else { Body::Text(String::from_utf8(body).expect("text")) }, count)
}

/// The packets of an answer.
pub fn packets(body: Body, version: Version) -> Vec<Packet> {
    match (body, version) {
        (Body::Text(text), Version::V4) => text.split('\x1e').map(|packet| of_text(packet, "b")).collect(),
        (Body::Text(text), Version::V3) => {
            let mut units: Vec<u16> = text.encode_utf16().collect();
            std::iter::from_fn(|| {
                let colon = units.iter().position(|unit| *unit == u16::from(b':'))?;
                let length: String = String::from_utf16(&units[..colon]).expect("digits");
                let end = colon + 1 + length.parse::<usize>().expect("a length");
                let packet: Vec<u16> = units.drain(..end).skip(colon + 1).collect();
                Some(of_text(&String::from_utf16(&packet).expect("a whole packet"), "b4"))
            })
            .collect()
        }
        (Body::Binary(mut bytes), Version::V3) => std::iter::from_fn(|| {
            let end = bytes.iter().position(|byte| *byte == 0xff)?;
            let length = bytes[1..end].iter().fold(0, |length, digit| length * 10 + usize::from(*digit));
            let packet: Vec<u8> = bytes.drain(..end + 1 + length).skip(end + 1).collect();
            Some(packet)
        })
        .map(|packet| match packet.first() {
            Some(4) => Packet::Binary(message(&packet)),
            _ => Packet::Text(String::from_utf8(packet).expect("text")),
        })
        .collect(),
        (Body::Binary(_), Version::V4) => panic!("no payload of protocol 4 is binary"),
    }
}

fn of_text(packet: &str, binary: &str) -> Packet {
    match packet.strip_prefix(binary) {
        Some(base64) => Packet::Binary(BASE64_STANDARD.decode(base64).expect("base64")),
        None => Packet::text(packet),
    }
}

/// In protocol 3 a binary message has its type in front.
fn message(bytes: &[u8]) -> Vec<u8> {
    assert_eq!(bytes.first(), Some(&4), "bytes are a message");
    bytes[1..].to_vec()
}

fn append_v3(kind: u8, packet: &[u8], body: &mut Vec<u8>) {
    body.push(kind);
    body.extend(packet.len().to_string().bytes().map(|digit| digit - b'0'));
    body.push(0xff);
    body.extend_from_slice(packet);
}

pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x21, 0x43, 0x65, 0x87];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(u16::try_from(length).expect("messages are short")).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// What a server's frame is.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Packet(Packet),
    Close,
    Pong,
}

/// What a server sends over a WebSocket, put together from what was read.
#[derive(Debug, Default)]
pub struct Frames {
    pub read: Vec<u8>,
    /// The beginning of a message that comes in several frames.
    message: Vec<u8>,
    opcode: u8,
}

impl Iterator for Frames {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        loop {
            let (first, second) = (*self.read.first()?, *self.read.get(1)?);
            let (header, length) = match second {
                126 => (4, usize::from(u16::from_be_bytes([*self.read.get(2)?, *self.read.get(3)?]))),
                127 => panic!("no message of a server here is so long"),
                short => (2, usize::from(short)),
            };
            if self.read.len() < header + length {
                return None;
            }
            let payload = self.read.drain(..header + length).skip(header);
            match first {
                0x88 => return Some(Frame::Close),
                0x8a => return Some(Frame::Pong),
                _ => self.message.extend(payload),
            }
            match first & 0x0f {
                0 => {}
                opcode => self.opcode = opcode,
            }
            if first & 0x80 != 0 {
                let message = std::mem::take(&mut self.message);
                return Some(Frame::Packet(match self.opcode {
                    1 => Packet::Text(String::from_utf8(message).expect("text")),
                    2 => Packet::Binary(message),
                    other => panic!("a server sends no frame {other:#x}"),
                }));
            }
        }
    }
}

/// A Socket.IO packet from a server.
#[derive(Debug)]
pub struct Said {
    pub kind: char,
    pub attachments: usize,
    pub namespace: String,
    pub id: Option<u64>,
    pub data: Value,
}

impl Said {
    pub fn parse(text: &str) -> Self {
        let mut rest = text;
        let kind = rest.chars().next().expect("a kind");
        rest = rest.strip_prefix(kind).expect("the first");
        let mut attachments = 0;
        if let '5' | '6' = kind {
            let (count, behind) = rest.split_once('-').expect("a count");
            (attachments, rest) = (count.parse().expect("a number"), behind);
        }
        let mut namespace = "/";
        if rest.starts_with('/') {
            (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
        }
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        rest = rest.strip_prefix(digits.as_str()).expect("its digits");
        let data = if rest.is_empty() { Value::Null } else { serde_json::from_str(rest).expect("JSON") };
        Self { kind, attachments, namespace: namespace.to_owned(), id: digits.parse().ok(), data }
    }

    /// A number in the list of arguments.
    pub fn number(&self, at: usize) -> Option<u64> {
        self.data.get(at)?.as_u64()
    }
}

/// A Socket.IO packet of a client: kind, namespace, and what is behind it.
pub fn say(kind: &str, namespace: &str, rest: &str) -> Packet {
    let namespace = if namespace == "/" { String::new() } else { format!("{namespace},") };
    Packet::Text(format!("4{kind}{namespace}{rest}"))
}
